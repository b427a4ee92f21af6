"""Rules of `bench.procfs`: what the texts of /proc mean."""

from __future__ import annotations

import os
import time

import pytest

from bench.procfs import (
    CpuTime,
    FilePages,
    ProcessStat,
    descendants,
    distinct_file_bytes,
    parse_amounts,
    parse_file_pages,
    parse_stat,
    read_cpu_time,
    read_pss_bytes,
    read_thread_ns,
)

STAT = "4711 (a (b) c) S 17 4711 4711 0 -1 4194560 100 0 0 0 250 120 30 20 20 0 5 0 98765 1000 200 18446744073709551615"

SMAPS = """\
00400000-00500000 r-xp 00001000 fe:00 1234                               /usr/bin/a (b)
Size:               1024 kB
Rss:                 300 kB
Pss:                 100 kB
Anonymous:            20 kB
VmFlags: rd ex mr mw me sd
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                 512 kB
Anonymous:           512 kB
"""


def make_stat(pid: int, parent_pid: int) -> ProcessStat:
    """Return a process that has not run yet."""
    return ProcessStat(
        pid=pid,
        parent_pid=parent_pid,
        user_ticks=0,
        system_ticks=0,
        reaped_user_ticks=0,
        reaped_system_ticks=0,
        started_at_ticks=0,
    )


class TestParseStat:
    """`parse_stat` reads one line of /proc/PID/stat."""

    def test_name_with_blanks_and_parentheses_is_skipped(self) -> None:
        """Fields are counted from the last closing parenthesis."""
        assert parse_stat(STAT) == ProcessStat(
            pid=4711,
            parent_pid=17,
            user_ticks=250,
            system_ticks=120,
            reaped_user_ticks=30,
            reaped_system_ticks=20,
            started_at_ticks=98765,
        )


class TestParseAmounts:
    """`parse_amounts` reads the amounts of smaps_rollup."""

    def test_kilobytes_become_bytes(self) -> None:
        """A kB of /proc is 1,024 bytes; lines that are no amounts are skipped."""
        text = "00-ff ---p 00000000 00:00 0 [rollup]\nRss:  8 kB\nPss:  2 kB\nPss_Anon:  1 kB\n"
        assert parse_amounts(text) == {"Rss": 8192, "Pss": 2048, "Pss_Anon": 1024}


class TestParseFilePages:
    """`parse_file_pages` finds the file mappings of a process."""

    def test_copied_pages_and_anonymous_mappings_are_left_out(self) -> None:
        """Only pages that still belong to a file are counted."""
        expected = FilePages(source=("fe:00", 1234, 0x1000), resident_bytes=280 * 1024)
        assert parse_file_pages(SMAPS) == [expected]


class TestDistinctFileBytes:
    """`distinct_file_bytes` adds up file pages of several processes."""

    def test_mapping_shared_by_two_processes_counts_once(self) -> None:
        """The larger resident part stands for both; other mappings are added."""
        shared, other = ("fe:00", 1, 0), ("fe:00", 2, 0)
        first = [FilePages(source=shared, resident_bytes=100)]
        second = [
            FilePages(source=shared, resident_bytes=150),
            FilePages(source=other, resident_bytes=7),
        ]
        assert distinct_file_bytes([first, second]) == 157


class TestDescendants:
    """`descendants` finds a process tree."""

    def test_grandchildren_belong_and_strangers_do_not(self) -> None:
        """Everything below the root is in, whatever the order of the readings."""
        stats = [make_stat(4, 3), make_stat(3, 2), make_stat(2, 1), make_stat(9, 1)]
        assert descendants(2, stats) == [2, 3, 4]


class TestCpuTime:
    """`CpuTime` values subtract and split."""

    def test_difference_is_what_was_used_between(self) -> None:
        """Each part is subtracted; the user share is that of the ticks."""
        before = CpuTime(run_ns=5, user_ticks=1, system_ticks=1)
        used = CpuTime(run_ns=45, user_ticks=4, system_ticks=2) - before
        assert used == CpuTime(run_ns=40, user_ticks=3, system_ticks=1)
        assert used.user_share == pytest.approx(0.75)

    def test_less_than_a_tick_has_no_user_share(self) -> None:
        """A share of nothing is 0, not an error."""
        assert CpuTime(run_ns=40, user_ticks=0, system_ticks=0).user_share == 0.0


class TestReadings:
    """The running system can be read."""

    def test_own_cpu_time_agrees_with_the_clock(self) -> None:
        """The clock of another process is computed right: for ourselves it is our own clock."""
        low = time.process_time_ns()
        reading = read_cpu_time(os.getpid())
        assert low <= reading.run_ns

    def test_own_memory_is_some(self) -> None:
        """A Python process has at least a megabyte."""
        assert read_pss_bytes(os.getpid()) > 1_000_000


class TestReadThreadNs:
    """`read_thread_ns` reads the run time of single threads."""

    def test_own_threads_are_there_and_add_up(self) -> None:
        """The busiest of them is among those of which the process has its time."""
        times = read_thread_ns(os.getpid())
        assert os.getpid() in times
        assert 0 < times[os.getpid()] <= read_cpu_time(os.getpid()).run_ns
