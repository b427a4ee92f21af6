"""
The program log on standard error: one line per event, with its level and time.

A line is written by whoever logs it, so that a program which cannot start has said why before it ends. One that serves
must not wait for a log reader: it does its work in `unblocked`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

from twisted import logger

from sidecar.observe.writer import MAX_QUEUED_BYTES, STOP_SECONDS, write_whole
from sidecar.settings import LogLevel

_LEVELS: Final = {
    LogLevel.DEBUG: logger.LogLevel.debug,
    LogLevel.INFO: logger.LogLevel.info,
    LogLevel.WARN: logger.LogLevel.warn,
    LogLevel.ERROR: logger.LogLevel.error,
}

_ESCAPES: Final = {number: repr(chr(number))[1:-1] for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
"""What could forge a line or talk to a terminal: control characters and Unicode's line ends, as Python writes them."""


class _Output:
    """
    Where lines go.

    Attributes:
        lowest: Level from which on they do.
        descriptor: None: nowhere.
        thread: What writes them; None: whoever logs does.
    """

    lowest: Any = logger.LogLevel.info
    descriptor: int | None = None
    thread: _WritingThread | None = None

    def write(self, text: str) -> None:
        """Write *text*, whole lines. That it cannot be written is no error: there is nobody left to tell."""
        block = text.encode("utf-8", "backslashreplace")
        if self.thread is not None:
            self.thread.write(block)
        elif self.descriptor is not None:
            with contextlib.suppress(OSError):
                write_whole(self.descriptor, block)


class _WritingThread:
    """
    Writes lines in a thread of its own, at once, and in the order in which they came, from whatever threads.

    What does not fit into a bounded queue is lost. In the place of the first lost line the log says how many were, as
    soon as somebody reads it again.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._lost = 0
        # Reentrant: the garbage collector may run a finalizer that logs, such as a Deferred's, while we hold it.
        self._lock = threading.RLock()
        # A daemon: at the end of the process nobody waits for a reader that has stalled.
        self._thread = threading.Thread(target=self._run, name="program-log", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Write *block*, whole lines, as soon as what came before it is written."""
        size, lines = len(block), block.count(b"\n")
        with self._lock:
            if self._queued_bytes + size <= MAX_QUEUED_BYTES:
                self._queued_bytes += size
                self._blocks.put(block)
                return
            if not self._lost:
                self._blocks.put(b"")  # where lines are missing
            self._lost += lines

    def stop(self) -> bool:
        """Write what is left, within `STOP_SECONDS`; return whether that was enough."""
        self._blocks.put(None)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            with contextlib.suppress(OSError):
                write_whole(self._descriptor, block or self._account())
            with self._lock:
                self._queued_bytes -= len(block)

    def _account(self) -> bytes:
        with self._lock:
            lost, self._lost = self._lost, 0
        return _line(time.time(), "warn", f"{lost} lines of this log were lost: nobody read it").encode()


_output: Final = _Output()
"""The process has one program log."""

_QUIET_NAMESPACES: Final = ("twisted", "log_legacy")
"""Whose own chatter (main loop started and so on) is not for operators, below a warning."""


def start(level: LogLevel, stream: TextIO | None) -> None:
    """
    Let everything that is logged from *level* upwards go to *stream*.

    Args:
        level: The lowest that is shown.
        stream: Of which only the descriptor is used; None, a closed one, takes nothing.
    """
    set_level(level)
    _output.descriptor = None if stream is None else stream.fileno()
    logger.globalLogBeginner.beginLoggingTo(
        [cast(logger.ILogObserver, _observe)], redirectStandardIO=False, discardBuffer=True
    )


@contextlib.contextmanager
def unblocked() -> Iterator[None]:
    """
    Let nobody who logs in this block wait for whoever reads the log.

    At its end, however it is left, what was logged has been written, if its reader takes it within `STOP_SECONDS`. If
    not, the log is at its end: nothing that could wait for that reader is tried any more.
    """
    if _output.descriptor is None:
        yield
        return
    thread = _output.thread = _WritingThread(_output.descriptor)
    try:
        yield
    finally:
        if thread.stop():
            _output.thread = None


def set_level(level: LogLevel) -> None:
    """Log from *level* upwards from now on."""
    _output.lowest = _LEVELS[level]


def format_line(event: logger.LogEvent, level: str) -> str:
    """Return the line of an event: time, level, text, and the traceback of a failure if it has one."""
    line = _line(event.get("log_time", time.time()), level, logger.formatEvent(event).translate(_ESCAPES))
    failure: Any = event.get("log_failure")
    return line + failure.getTraceback() if failure is not None else line


def _line(moment: float, level: str, text: str) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(moment))} {level:<5} {text}\n"


def _observe(event: logger.LogEvent) -> None:
    level: Any = event.get("log_level", logger.LogLevel.info)
    if level < _output.lowest:
        return
    namespace = str(event.get("log_namespace", ""))
    if namespace.startswith(_QUIET_NAMESPACES) and level < logger.LogLevel.warn:
        return
    _output.write(format_line(event, level.name))
