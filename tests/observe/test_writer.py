"""`observe.writer`: lines to a descriptor that may stop taking them; a real pipe and the writer's own thread."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.task import Clock

from sidecar.observe import writer as module
from sidecar.observe.writer import FLUSH_SECONDS, MAX_COLLECTED_BYTES, MAX_QUEUED_BYTES, LineWriter

LINE = "x" * 999 + "\n"


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.clock = Clock()
        self.writer = LineWriter(self.writing, self.clock)

    def read(self) -> bytes:
        data = b""
        try:
            while piece := os.read(self.reading, 1_000_000):
                data += piece
        except BlockingIOError:
            pass
        return data

    def read_until(self, size: int) -> bytes:
        data = b""
        deadline = time.monotonic() + 5
        while len(data) < size and time.monotonic() < deadline:
            data += self.read()
        return data

    def close(self) -> None:
        for descriptor in (self.reading, self.writing):
            try:
                os.close(descriptor)
            except OSError:
                pass


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.001)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.read()
    os.close(pipe.reading)  # whoever is stuck in a write gets EPIPE
    pipe.writer.stop()
    pipe.writer._thread.join(5)
    assert not pipe.writer._thread.is_alive()
    os.close(pipe.writing)


class TestWrite:
    def test_lines_wait_for_company(self, pipe: Pipe) -> None:
        """Lines are collected for a moment, then written together, in order."""
        pipe.writer.write("a\n")
        pipe.clock.advance(FLUSH_SECONDS / 2)
        pipe.writer.write("b\n")
        assert pipe.read() == b""
        pipe.clock.advance(FLUSH_SECONDS / 2)
        assert pipe.read_until(4) == b"a\nb\n"
        assert not pipe.clock.getDelayedCalls()

    def test_many_lines_do_not_wait(self, pipe: Pipe) -> None:
        """A reader that keeps up loses none, however many come in a moment."""
        each = MAX_COLLECTED_BYTES // len(LINE) + 1
        for _ in range(3 * MAX_QUEUED_BYTES // MAX_COLLECTED_BYTES):
            for _ in range(each):
                pipe.writer.write(LINE)
            assert pipe.read_until(each * len(LINE)) == LINE.encode() * each
        assert pipe.writer.dropped == 0
        assert not pipe.clock.getDelayedCalls()

    def test_pipe_that_nobody_reads_is_bounded(self, pipe: Pipe) -> None:
        """What does not fit is dropped and counted; the caller never waits."""
        for _ in range(3 * MAX_QUEUED_BYTES // len(LINE)):
            pipe.writer.write(LINE)
            pipe.clock.advance(FLUSH_SECONDS)
        held = pipe.writer._queued_bytes + pipe.writer._collected_bytes
        assert held <= MAX_QUEUED_BYTES
        assert pipe.writer.dropped > 1.5 * MAX_QUEUED_BYTES / len(LINE)

    def test_reader_that_comes_back_gets_whole_lines(self, pipe: Pipe) -> None:
        """After a pause the log goes on where it was, without half lines."""
        count = MAX_QUEUED_BYTES // len(LINE)
        for _ in range(2 * count):
            pipe.writer.write(LINE)
        pipe.clock.advance(FLUSH_SECONDS)
        data = pipe.read_until(count * len(LINE))
        assert data == LINE.encode() * count
        assert pipe.writer.dropped == count
        wait_until(lambda: pipe.writer._queued_bytes == 0)
        pipe.writer.write("again\n")
        pipe.clock.advance(FLUSH_SECONDS)
        assert pipe.read_until(6) == b"again\n"

    def test_odd_characters_do_not_raise(self, pipe: Pipe) -> None:
        """A lone surrogate is written as its escape."""
        pipe.writer.write("a\udc80b\n")
        pipe.clock.advance(FLUSH_SECONDS)
        assert pipe.read_until(9) == b"a\\udc80b\n"

    def test_non_blocking_descriptor_is_waited_for(self, pipe: Pipe) -> None:
        """Standard output may have been made non-blocking by somebody else: a full pipe is no closed one."""
        os.set_blocking(pipe.writing, False)
        capacity = fcntl.fcntl(pipe.writing, fcntl.F_GETPIPE_SZ)
        lines = 2 * capacity // len(LINE)
        for _ in range(lines):
            pipe.writer.write(LINE)
        pipe.clock.advance(FLUSH_SECONDS)
        assert pipe.read_until(lines * len(LINE)) == LINE.encode() * lines
        assert pipe.writer.dropped == 0

    def test_closed_reader_is_counted(self) -> None:
        """When nobody reads any more, lines are dropped and counted, and nothing else happens."""
        pipe = Pipe()
        os.close(pipe.reading)
        pipe.writer.write("a\n")
        pipe.writer.write("b\n")
        pipe.clock.advance(FLUSH_SECONDS)
        wait_until(lambda: pipe.writer.dropped == 2)
        pipe.writer.stop()
        os.close(pipe.writing)

    def test_closed_descriptor_is_counted(self) -> None:
        """A daemon that closed its standard output serves on."""
        pipe = Pipe()
        writer = LineWriter(10_000_000, pipe.clock)
        writer.write("a\n")
        pipe.clock.advance(FLUSH_SECONDS)
        wait_until(lambda: writer.dropped == 1)
        for each in (writer, pipe.writer):
            each.stop()
        pipe.close()


class TestStop:
    def test_last_lines_are_written(self, pipe: Pipe) -> None:
        """A stop does not wait for company."""
        pipe.writer.write("last\n")
        pipe.writer.stop()
        assert pipe.read() == b"last\n"
        assert not pipe.clock.getDelayedCalls()
        assert not pipe.writer._thread.is_alive()

    def test_pipe_that_nobody_reads_holds_it_up_briefly(self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stop returns in time, whoever does not read."""
        monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
        for _ in range(500):
            pipe.writer.write(LINE)
        before = time.monotonic()
        pipe.writer.stop()
        assert time.monotonic() - before < 2
        assert pipe.writer._thread.is_alive()

    def test_second_stop_is_nothing(self, pipe: Pipe) -> None:
        """Whoever stops twice waits for nothing."""
        pipe.writer.stop()
        pipe.writer.stop()
        assert not pipe.writer._thread.is_alive()


WRITING = """
import sys
from twisted.internet.task import Clock
from sidecar.observe.writer import LineWriter
clock = Clock()
writer = LineWriter(1, clock, is_shared=True)
for _ in range(500):
    writer.write(sys.argv[1] * 999 + "\\n")
sys.stderr.write("ready")
sys.stderr.flush()
sys.stdin.read()
clock.advance(1)
writer.stop()
"""


class TestSharedPipe:
    def test_lines_of_two_processes_stay_whole(self) -> None:
        """A pipe that is full takes what it can: without turns, lines end up in the middle of others."""
        reading, writing = os.pipe()
        command = (sys.executable, "-c", WRITING)
        pipe = subprocess.PIPE
        writers = [
            subprocess.Popen([*command, name], stdin=pipe, stdout=writing, stderr=pipe, bufsize=0) for name in "ab"
        ]
        os.close(writing)
        for each in writers:
            assert each.stderr is not None
            assert each.stderr.read(5) == b"ready"
        for each in writers:
            assert each.stdin is not None
            each.stdin.close()
        data = b""
        while piece := os.read(reading, 4096):
            data += piece
        os.close(reading)
        for each in writers:
            assert each.stderr is not None
            assert (each.wait(10), each.stderr.read()) == (0, b"")
            each.stderr.close()
        assert sorted(data.splitlines()) == [b"a" * 999] * 500 + [b"b" * 999] * 500
