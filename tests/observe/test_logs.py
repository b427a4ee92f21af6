"""`observe.logs`: the program log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted import logger
from twisted.python import failure

from sidecar.observe import logs
from sidecar.observe.writer import MAX_QUEUED_BYTES
from sidecar.settings import LogLevel
from tests.support.program import ROOT, eventually


class Observed:
    """What `start` handed to Twisted, in place of the process's one log beginner."""

    def __init__(self) -> None:
        self.observers: list[Any] = []

    def beginLoggingTo(self, observers: list[Any], **named: Any) -> None:
        assert named["redirectStandardIO"] is False
        self.observers = observers

    def log(self, event: Any) -> None:
        for observer in self.observers:
            observer(event)


@pytest.fixture
def beginner(monkeypatch: pytest.MonkeyPatch) -> Observed:
    observed = Observed()
    monkeypatch.setattr(logger, "globalLogBeginner", observed)
    monkeypatch.setattr(logs, "_output", logs._Output())
    return observed


def make_event(level: str = "info", text: str = "hello", namespace: str = "sidecar.app", **more: Any) -> Any:
    return {
        "log_level": logger.LogLevel.lookupByName(level),
        "log_namespace": namespace,
        "log_format": text,
        "log_time": 0.0,
        **more,
    }


class Pipe:
    """What the log leads to."""

    def __init__(self, beginner: Observed) -> None:
        self._beginner = beginner
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.stream = os.fdopen(self._writing, "w")
        self.data = b""
        logs.start(LogLevel.INFO, self.stream)

    def log(self, text: str) -> None:
        self._beginner.log(make_event(text=text))

    def lines(self) -> list[str]:
        """Read what there is; return the texts of all lines so far."""
        try:
            while piece := os.read(self.reading, 1_000_000):
                self.data += piece
        except BlockingIOError:
            pass
        return [line.split(maxsplit=2)[2] for line in self.data.decode().splitlines()]

    def wait_for(self, condition: Callable[[list[str]], bool]) -> list[str]:
        eventually(lambda: condition(self.lines()), "the lines are written")
        return self.lines()

    def fill(self) -> None:
        """Leave no room in it for a line."""
        os.set_blocking(self._writing, False)
        try:
            while True:
                os.write(self._writing, b"0 fill ~\n")
        except BlockingIOError:
            pass
        os.set_blocking(self._writing, True)


@pytest.fixture
def pipe(beginner: Observed) -> Iterator[Pipe]:
    pipe = Pipe(beginner)
    yield pipe
    os.close(pipe.reading)  # whoever is stuck in a write gets EPIPE
    eventually(lambda: "program-log" not in {thread.name for thread in threading.enumerate()}, "the thread ends")
    pipe.stream.close()


class TestStart:
    @pytest.mark.parametrize(
        ("level", "shown"),
        [
            (LogLevel.DEBUG, ["debug", "info", "warn", "error", "critical"]),
            (LogLevel.INFO, ["info", "warn", "error", "critical"]),
            (LogLevel.WARN, ["warn", "error", "critical"]),
            (LogLevel.ERROR, ["error", "critical"]),
        ],
        ids=str,
    )
    def test_level_is_the_lowest_shown(self, beginner: Observed, pipe: Pipe, level: LogLevel, shown: list[str]) -> None:
        """What is below the level is left out."""
        logs.start(level, pipe.stream)
        for name in ("debug", "info", "warn", "error", "critical"):
            beginner.log(make_event(name, text=name))
        assert pipe.lines() == shown

    def test_chatter_of_libraries_is_left_out(self, beginner: Observed, pipe: Pipe) -> None:
        """What Twisted says of its main loop is not for operators; its warnings are."""
        logs.start(LogLevel.DEBUG, pipe.stream)
        beginner.log(make_event(namespace="twisted.internet", text="Main loop"))
        beginner.log(make_event(namespace="log_legacy", text="Starting factory"))
        beginner.log(make_event("warn", namespace="twisted.internet", text="trouble"))
        assert pipe.lines() == ["trouble"]

    def test_line_is_written_when_its_logger_goes_on(self, pipe: Pipe) -> None:
        """A program that cannot start has said why, however soon it ends."""
        pipe.log("why")
        assert pipe.lines() == ["why"]

    def test_odd_characters_do_not_raise(self, pipe: Pipe) -> None:
        """A lone surrogate, as in a file name that is not UTF-8, is written as its escape."""
        pipe.log("a\udc80b")
        assert pipe.lines() == ["a\\udc80b"]

    @pytest.mark.parametrize("is_unblocked", [False, True], ids=["direct", "unblocked"])
    def test_reader_that_is_gone_is_no_error(self, beginner: Observed, is_unblocked: bool) -> None:
        """A program whose log reader has ended serves on."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stream:
            logs.start(LogLevel.INFO, stream)
            if is_unblocked:
                with logs.unblocked():
                    beginner.log(make_event())
            beginner.log(make_event())

    def test_stream_that_was_never_there_is_no_error(self, beginner: Observed) -> None:
        """A program that was started with its standard error closed has nowhere to log, and serves."""
        logs.start(LogLevel.DEBUG, None)
        with logs.unblocked():
            beginner.log(make_event("critical"))
        beginner.log(make_event("debug"))


LOST = "lines of this log were lost: nobody read it"

LINE = "x" * 974
"""The text of a line of 1,000 bytes and a few."""

MANY_LINES = """
import os, sys
from twisted.logger import Logger
from sidecar.observe import logs
from sidecar.settings import LogLevel
logs.start(LogLevel.INFO, sys.stderr)
with logs.unblocked():
    for number in range(1000):
        Logger().info("{number}", number=number)
    exec(sys.argv[1])
"""


class TestUnblocked:
    def test_line_comes_at_once(self, pipe: Pipe) -> None:
        """Whoever looks at the log does not wait for the next line, or for the end."""
        with logs.unblocked():
            pipe.log("a")
            pipe.wait_for(lambda lines: lines == ["a"])

    def test_full_pipe_holds_up_nobody(self, pipe: Pipe) -> None:
        """What does not fit is lost; memory is bounded; the reader learns how much it missed, and where."""
        with logs.unblocked():
            pipe.fill()
            count = 2 * MAX_QUEUED_BYTES // len(LINE)
            for _ in range(count):
                pipe.log(LINE)
            thread: Any = logs._output.thread
            assert thread._queued_bytes <= MAX_QUEUED_BYTES
            lines = pipe.wait_for(lambda lines: LOST in lines[-1])
            pipe.log("again")
            assert pipe.wait_for(lambda lines: "again" in lines)[-1] == "again"
        lines = [line for line in lines if line != "~"]
        kept = lines.count(LINE)
        assert lines == [LINE] * kept + [f"{count - kept} {LOST}"]
        assert kept > 0.9 * MAX_QUEUED_BYTES / (len(LINE) + 30)

    def test_each_gap_is_told_once(self, pipe: Pipe) -> None:
        """A reader that stalls again learns what it missed this time."""
        with logs.unblocked():
            for _ in range(2):
                pipe.fill()
                for _ in range(2 * MAX_QUEUED_BYTES // len(LINE)):
                    pipe.log(LINE)
                pipe.wait_for(lambda lines: LOST in lines[-1])
                pipe.log("between")
                pipe.wait_for(lambda lines: lines[-1] == "between")
        assert sum(LOST in line for line in pipe.lines()) == 2

    def test_lines_of_several_threads_stay_whole(self, pipe: Pipe) -> None:
        """Any thread may log; each one's lines keep their order."""

        def log(name: str) -> None:
            for number in range(200):
                pipe.log(f"{name} {number}")

        with logs.unblocked():
            threads = [threading.Thread(target=log, args=(name,)) for name in "abc"]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        lines = pipe.lines()
        assert len(lines) == 600
        for name in "abc":
            assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(200)]

    def test_finalizer_that_logs_does_not_wait_for_itself(self, pipe: Pipe) -> None:
        """A Deferred that nobody looked at logs whenever the garbage collector finds it: also in the midst of us."""
        with logs.unblocked():
            thread: Any = logs._output.thread
            with thread._lock:
                pipe.log("from a finalizer")
        assert pipe.lines() == ["from a finalizer"]

    def test_end_waits_briefly_for_a_reader_that_has_stalled(self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the process ends without its last lines, and nothing after it waits for that reader either."""
        monkeypatch.setattr(logs, "STOP_SECONDS", 0.05)
        before = time.monotonic()
        with logs.unblocked():
            pipe.fill()
            pipe.log("never read")
        pipe.log("nor this")
        assert time.monotonic() - before < 2

    def test_lines_after_it_are_written_directly(self, pipe: Pipe) -> None:
        """After its end the log is what it was before."""
        with logs.unblocked():
            pipe.log("a")
        pipe.log("b")
        assert pipe.lines() == ["a", "b"]

    @pytest.mark.parametrize(
        ("ending", "status", "last"),
        [
            ("pass", 0, " 999"),
            ("sys.exit(78)", 78, " 999"),
            ("sys.exit('in words')", 1, "in words"),
            ("raise RuntimeError('a bug')", 1, "RuntimeError: a bug"),
        ],
        ids=["end", "exit", "exit in words", "bug"],
    )
    def test_process_that_ends_has_written_its_last_lines(self, ending: str, status: int, last: str) -> None:
        """However the block is left, all lines come, in order, before what is written past the log."""
        ended = subprocess.run(
            [sys.executable, "-c", MANY_LINES, ending], cwd=ROOT, capture_output=True, text=True, timeout=30
        )
        lines = ended.stderr.splitlines()
        assert ended.returncode == status
        assert lines[-1].endswith(last)
        assert [line.split()[2] for line in lines[:1000]] == [str(number) for number in range(1000)]

    def test_process_ends_while_its_reader_stalls(self) -> None:
        """At the exit nothing waits for the thread that is stuck in a write."""
        reading, writing = os.pipe()
        script = MANY_LINES.replace("range(1000)", "range(5000)")
        try:
            ended = subprocess.run([sys.executable, "-c", script, "pass"], cwd=ROOT, stderr=writing, timeout=30)
        finally:
            os.close(reading)
            os.close(writing)
        assert ended.returncode == 0


class TestFormatLine:
    def test_line_has_time_level_and_text(self) -> None:
        """One event is one line."""
        event = make_event(text="{count} connections", count=3)
        assert logs.format_line(event, "info") == "1970-01-01T00:00:00Z info  3 connections\n"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("a\nforged line", "a\\nforged line"),
            ("a\r\nb", "a\\r\\nb"),
            ("\x1b[2J\x07", "\\x1b[2J\\x07"),
            ("nul\x00", "nul\\x00"),
            ("tab\t", "tab\\t"),
            ("\x85\u2028", "\\x85\\u2028"),
        ],
        ids=["newline", "CRLF", "terminal", "nul", "tab", "separators"],
    )
    def test_control_characters_are_escaped(self, value: str, shown: str) -> None:
        """What a peer sent can neither forge a line nor talk to the terminal."""
        line = logs.format_line(make_event(text="{value}", value=value), "warn")
        assert line == f"1970-01-01T00:00:00Z warn  {shown}\n"

    def test_failure_is_followed_by_its_traceback(self) -> None:
        """A bug is shown whole: its place is worth more than the rule of one line."""
        try:
            raise RuntimeError("a bug")
        except RuntimeError:
            event = make_event("critical", log_failure=failure.Failure())
        text = logs.format_line(event, "critical")
        assert text.startswith("1970-01-01T00:00:00Z critical hello\n")
        assert "RuntimeError: a bug" in text

    def test_event_that_cannot_be_formatted_does_not_raise(self) -> None:
        """A wrong format is no reason to lose the connection that it was about."""
        assert logs.format_line(make_event(text="{missing}"), "info").endswith("\n")
