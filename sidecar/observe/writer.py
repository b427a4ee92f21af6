"""
Lines to a descriptor that may stop taking them.

The event loop never waits for a log reader: lines are collected for a moment, then handed to one thread, and what does
not fit into a bounded queue is dropped and counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import select
import stat
import threading
from collections.abc import Iterator
from typing import Any, Final

MAX_QUEUED_BYTES: Final = 1024 * 1024
FLUSH_SECONDS: Final = 0.1
"""How long a line may wait for company."""

MAX_COLLECTED_BYTES: Final = 128 * 1024
"""So much company does not wait: at 20,000 requests a second, a moment's lines would be more than the queue takes."""

STOP_SECONDS: Final = 1.0
"""How long the last lines may take at the end."""


class LineWriter:
    """
    Writes lines to a file descriptor.

    Attributes:
        dropped: Lines lost because the reader was too slow, or gone.
    """

    def __init__(self, descriptor: int, clock: Any, *, is_shared: bool = False) -> None:
        """
        Args:
            descriptor: Stays open; may be blocking.
            clock: IReactorTime.
            is_shared: Whether other processes write lines to it in the same way.
        """
        self.dropped = 0
        self._turn = _turn if is_shared and _is_pipe(descriptor) else _no_turn
        self._descriptor = descriptor
        self._clock = clock
        self._lines: list[str] = []
        self._collected_bytes = 0
        self._flush_call: Any = None
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Write *line*, which ends in a newline, soon."""
        if self._queued_bytes + self._collected_bytes + len(line) > MAX_QUEUED_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._collected_bytes += len(line)
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(FLUSH_SECONDS, self._flush)
        elif self._collected_bytes >= MAX_COLLECTED_BYTES:
            self._flush_call.cancel()
            self._flush()

    def stop(self) -> None:
        """Write what is left, within `STOP_SECONDS`."""
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush()
        self._blocks.put(None)
        self._thread.join(STOP_SECONDS)

    def _flush(self) -> None:
        self._flush_call = None
        lines, self._lines = self._lines, []
        self._collected_bytes = 0
        block = "".join(lines).encode("utf-8", "backslashreplace")
        with self._lock:
            self._queued_bytes += len(block)
        self._blocks.put(block)

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            if not self._write_out(block):
                self.dropped += block.count(b"\n")
            with self._lock:
                self._queued_bytes -= len(block)

    def _write_out(self, block: bytes) -> bool:
        """Write all of *block*; False if the descriptor is closed or otherwise gone."""
        try:
            with self._turn(self._descriptor):
                write_whole(self._descriptor, block)
        except OSError:
            return False
        return True


def write_whole(descriptor: int, block: bytes) -> None:
    """
    Write all of *block*, however long that takes.

    Raises:
        OSError: The descriptor is closed, or nobody will read it any more.
    """
    view = memoryview(block)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody made it non-blocking: half a line must not stay the last
            select.select((), (descriptor,), ())


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def _turn(descriptor: int) -> Iterator[None]:
    """
    Keep the other processes from writing to a pipe, which takes a long block in pieces if its reader is slow.

    A record lock: it belongs to the process, not to the descriptor that all have inherited, and ends with it.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def _no_turn(descriptor: int) -> Iterator[None]:
    yield
