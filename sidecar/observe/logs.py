"""The program log on standard error: one line per event, with its level and time."""

from __future__ import annotations

import time
from typing import Any, Final, TextIO, cast

from twisted import logger

from sidecar.settings import LogLevel

_LEVELS: Final = {
    LogLevel.DEBUG: logger.LogLevel.debug,
    LogLevel.INFO: logger.LogLevel.info,
    LogLevel.WARN: logger.LogLevel.warn,
    LogLevel.ERROR: logger.LogLevel.error,
}

_ESCAPES: Final = {number: repr(chr(number))[1:-1] for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
"""What could forge a line or talk to a terminal: control characters and Unicode's line ends, as Python writes them."""


class _Threshold:
    lowest: Any = logger.LogLevel.info


_threshold: Final = _Threshold()
"""The process has one program log."""

_QUIET_NAMESPACES: Final = ("twisted", "log_legacy")
"""Whose own chatter (main loop started and so on) is not for operators, below a warning."""


def start(level: LogLevel, stream: TextIO | None) -> None:
    """Let everything that is logged from *level* upwards go to *stream*; None, a closed one, takes nothing."""
    set_level(level)

    def observe(event: logger.LogEvent) -> None:
        event_level: Any = event.get("log_level", logger.LogLevel.info)
        if event_level < _threshold.lowest or stream is None:
            return
        namespace = str(event.get("log_namespace", ""))
        if namespace.startswith(_QUIET_NAMESPACES) and event_level < logger.LogLevel.warn:
            return
        try:
            stream.write(format_line(event, event_level.name))
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody listens any more, and there is nobody left to tell

    logger.globalLogBeginner.beginLoggingTo(
        [cast(logger.ILogObserver, observe)], redirectStandardIO=False, discardBuffer=True
    )


def set_level(level: LogLevel) -> None:
    """Log from *level* upwards from now on."""
    _threshold.lowest = _LEVELS[level]


def format_line(event: logger.LogEvent, level: str) -> str:
    """Return the line of an event: time, level, text, and the traceback of a failure if it has one."""
    moment = time.gmtime(event.get("log_time", time.time()))
    text = logger.formatEvent(event).translate(_ESCAPES)
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', moment)} {level:<5} {text}\n"
    failure: Any = event.get("log_failure")
    return line + failure.getTraceback() if failure is not None else line
