"""
Readings from `/proc`: CPU time and memory of a process with all its threads and children.

`parse_*` functions are pure; the others read the running system. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import attrs

NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
BYTES_PER_KB = 1024

# A mapping's first line in smaps: address range, permissions, offset, device, inode, path.
MAPPING_PATTERN = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S{4} (?P<offset>[0-9a-f]+) (?P<device>\S+) (?P<inode>\d+)")
AMOUNT_PATTERN = re.compile(r"^(?P<name>\w+):\s+(?P<kilobytes>\d+) kB$")


@attrs.frozen(kw_only=True)
class ProcessStat:
    """The fields of `/proc/PID/stat` that we use; times in clock ticks."""

    pid: int
    parent_pid: int
    user_ticks: int
    system_ticks: int
    reaped_user_ticks: int
    reaped_system_ticks: int
    started_at_ticks: int


@attrs.frozen(kw_only=True)
class CpuTime:
    """
    CPU time used so far by a process tree; subtract two of them to get what a load cost.

    `run_ns` is exact; the ticks (usually 10 ms) only serve to split it into user and system.
    """

    run_ns: int
    user_ticks: int
    system_ticks: int

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        """Return what was used between *earlier* and this reading."""
        return CpuTime(
            run_ns=self.run_ns - earlier.run_ns,
            user_ticks=self.user_ticks - earlier.user_ticks,
            system_ticks=self.system_ticks - earlier.system_ticks,
        )

    @property
    def user_share(self) -> float:
        """Return the part spent in user space, 0 to 1; 0 when less than a tick was used."""
        ticks = self.user_ticks + self.system_ticks
        return self.user_ticks / ticks if ticks > 0 else 0.0


@attrs.frozen(kw_only=True)
class FilePages:
    """Pages of one file mapping that are in memory; *source* is (device, inode, offset)."""

    source: tuple[str, int, int]
    resident_bytes: int


def parse_stat(text: str) -> ProcessStat:
    """
    Parse the content of `/proc/PID/stat`.

    The command name is in parentheses and may itself hold blanks and parentheses (proc(5)).
    """
    before, _, after = text.rpartition(")")
    fields = after.split()
    return ProcessStat(
        pid=int(before.split(" ", 1)[0]),
        parent_pid=int(fields[1]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        reaped_user_ticks=int(fields[13]),
        reaped_system_ticks=int(fields[14]),
        started_at_ticks=int(fields[19]),
    )


def parse_amounts(text: str) -> dict[str, int]:
    """Parse the `Name: 12 kB` lines of `/proc/PID/smaps_rollup` into bytes by name."""
    matches = (AMOUNT_PATTERN.match(line) for line in text.splitlines())
    return {m["name"]: int(m["kilobytes"]) * BYTES_PER_KB for m in matches if m}


def parse_file_pages(text: str) -> list[FilePages]:
    """Parse `/proc/PID/smaps` into its file mappings; copied (anonymous) pages are not counted."""
    pages: list[FilePages] = []
    source: tuple[str, int, int] | None = None
    resident_bytes = 0
    for line in text.splitlines():
        if mapping := MAPPING_PATTERN.match(line):
            inode = int(mapping["inode"])
            source = (mapping["device"], inode, int(mapping["offset"], 16)) if inode else None
        elif source and (amount := AMOUNT_PATTERN.match(line)):
            size_bytes = int(amount["kilobytes"]) * BYTES_PER_KB
            if amount["name"] == "Rss":
                resident_bytes = size_bytes
            elif amount["name"] == "Anonymous":
                pages.append(FilePages(source=source, resident_bytes=resident_bytes - size_bytes))
    return pages


def distinct_file_bytes(processes: Iterable[Iterable[FilePages]]) -> int:
    """
    Sum the file pages of several processes, counting what they share with each other once.

    Args:
        processes: The file mappings of each process.

    Returns:
        Bytes. Of a file mapped by several, the largest resident part counts.
    """
    largest: dict[tuple[str, int, int], int] = {}
    for mappings in processes:
        own: defaultdict[tuple[str, int, int], int] = defaultdict(int)
        for mapping in mappings:
            own[mapping.source] = max(own[mapping.source], mapping.resident_bytes)
        for source, resident_bytes in own.items():
            largest[source] = max(largest.get(source, 0), resident_bytes)
    return sum(largest.values())


def descendants(root_pid: int, stats: Iterable[ProcessStat]) -> list[int]:
    """Return *root_pid* and every process below it, parents before their children."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in stats:
        children[stat.parent_pid].append(stat.pid)
    tree = [root_pid]
    for pid in tree:
        tree.extend(children[pid])
    return tree


def read_stat(pid: int) -> ProcessStat | None:
    """Read one process; None when it is gone."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def process_tree(root_pid: int) -> list[int]:
    """Return the pids of a running process and of everything below it."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return descendants(root_pid, (stat for pid in pids if (stat := read_stat(pid))))


def read_cpu_time(root_pid: int) -> CpuTime:
    """Read the CPU time of a process tree: all threads, living or ended, and all children."""
    stats = [stat for pid in process_tree(root_pid) if (stat := read_stat(pid))]
    reaped = [stat.reaped_user_ticks + stat.reaped_system_ticks for stat in stats]
    return CpuTime(
        run_ns=sum(map(_run_ns, stats)) + sum(reaped) * NANOSECONDS_PER_TICK,
        user_ticks=sum(stat.user_ticks + stat.reaped_user_ticks for stat in stats),
        system_ticks=sum(stat.system_ticks + stat.reaped_system_ticks for stat in stats),
    )


def read_thread_ns(root_pid: int) -> dict[int, int]:
    """Read the run time of each living thread of a process tree, in nanoseconds by thread id."""
    paths = (path for pid in process_tree(root_pid) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    times: dict[int, int] = {}
    for path in paths:
        # A thread may end between being listed and being read.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            times[int(path.parent.name)] = int(path.read_text().split()[0])
    return times


def read_pss_bytes(root_pid: int) -> int:
    """Read the proportional set size of a process tree, in bytes."""
    rollups = (_read_process_file(pid, "smaps_rollup") for pid in process_tree(root_pid))
    return sum(parse_amounts(text).get("Pss", 0) for text in rollups)


def read_alone_bytes(root_pid: int) -> int:
    """
    Read what a process tree would occupy if nothing else on the machine shared its files.

    The proportional set size falls when *unrelated* processes map the same libraries: other
    peers on the same OpenSSL, or this benchmark on the same interpreter as the proxy. In a
    container of its own a proxy pays for all of them.
    """
    pids = process_tree(root_pid)
    rollups = [parse_amounts(_read_process_file(pid, "smaps_rollup")) for pid in pids]
    maps = [parse_file_pages(_read_process_file(pid, "smaps")) for pid in pids]
    return sum(rollup.get("Pss_Anon", 0) for rollup in rollups) + distinct_file_bytes(maps)


def _run_ns(stat: ProcessStat) -> int:
    """
    Return the exact run time of one process, ended threads included.

    The clock id is what clock_getcpuclockid(3) computes, which the standard library does not
    offer for other processes. `/proc/PID/task/*/schedstat` would miss ended threads, and
    stunnel ends one per connection.
    """
    try:
        return time.clock_gettime_ns((~stat.pid << 3) | 2)
    except OSError:
        return (stat.user_ticks + stat.system_ticks) * NANOSECONDS_PER_TICK


def _read_process_file(pid: int, name: str) -> str:
    """Read `/proc/PID/NAME`; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
