"""`observe.logs`: the program log."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted import logger
from twisted.python import failure

from sidecar.observe import logs
from sidecar.settings import LogLevel


class Observed:
    """What `start` handed to Twisted, in place of the process's one log beginner."""

    def __init__(self) -> None:
        self.observers: list[Any] = []

    def beginLoggingTo(self, observers: list[Any], **named: Any) -> None:
        assert named["redirectStandardIO"] is False
        self.observers = observers


@pytest.fixture
def beginner(monkeypatch: pytest.MonkeyPatch) -> Observed:
    observed = Observed()
    monkeypatch.setattr(logger, "globalLogBeginner", observed)
    return observed


def make_event(level: str = "info", text: str = "hello", namespace: str = "sidecar.app", **more: Any) -> Any:
    return {
        "log_level": logger.LogLevel.lookupByName(level),
        "log_namespace": namespace,
        "log_format": text,
        "log_time": 0.0,
        **more,
    }


def written(beginner: Observed, level: LogLevel, *events: Any) -> list[str]:
    stream = io.StringIO()
    logs.start(level, stream)
    for event in events:
        for observer in beginner.observers:
            observer(event)
    return stream.getvalue().splitlines(keepends=True)


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
    def test_level_is_the_lowest_shown(self, beginner: Observed, level: LogLevel, shown: list[str]) -> None:
        """What is below the level is left out."""
        events = [make_event(name) for name in ("debug", "info", "warn", "error", "critical")]
        assert [line.split()[1] for line in written(beginner, level, *events)] == shown

    def test_chatter_of_libraries_is_left_out(self, beginner: Observed) -> None:
        """What Twisted says of its main loop is not for operators; its warnings are."""
        lines = written(
            beginner,
            LogLevel.DEBUG,
            make_event(namespace="twisted.internet", text="Main loop"),
            make_event(namespace="log_legacy", text="Starting factory"),
            make_event("warn", namespace="twisted.internet", text="trouble"),
        )
        assert lines == ["1970-01-01T00:00:00Z warn  trouble\n"]

    @pytest.mark.parametrize("why", [OSError("gone"), ValueError("I/O operation on closed file")], ids=repr)
    def test_stream_that_is_gone_is_no_error(self, beginner: Observed, why: Exception) -> None:
        """A program whose standard error was closed serves on."""

        class Gone(io.StringIO):
            def write(self, text: str) -> int:
                raise why

        logs.start(LogLevel.INFO, Gone())
        beginner.observers[0](make_event())

    def test_stream_that_was_never_there_is_no_error(self, beginner: Observed) -> None:
        """A program that was started with its standard error closed has nowhere to log, and serves."""
        logs.start(LogLevel.DEBUG, None)
        for level in ("debug", "critical"):
            beginner.observers[0](make_event(level))


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
