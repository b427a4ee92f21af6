"""Takes the lines that a proxy logs, as fast as they come, and counts them; nothing is kept but the last one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import attrs

READ_BYTES = 256 * 1024
MAX_LINE_BYTES = 64 * 1024
JOIN_SECONDS = 5.0


@attrs.define
class LineSink:
    """
    Counts lines.

    Attributes:
        descriptor: What the proxy is to write to.
        lines: How many have ended so far.
        last_line: The latest that has ended, without its newline; empty before there is one.
    """

    descriptor: int
    lines: int = 0
    last_line: bytes = b""
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take in what was read; a line may come in pieces, and of one without an end only the beginning is kept."""
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = self._rest + ended[0]
            self.lines += len(ended)
            self.last_line = ended[-1]
            self._rest = rest
        else:
            self._rest = (self._rest + rest)[:MAX_LINE_BYTES]

    def drain(self, source: int) -> None:
        """Read *source* until nobody can write to it any more, then close it."""
        try:
            while data := os.read(source, READ_BYTES):
                self.feed(data)
        finally:
            os.close(source)


@contextlib.contextmanager
def line_sink() -> Iterator[LineSink]:
    """Keep a pipe and its reader for the length of the block, in a thread: this program has nothing else to do then."""
    source, descriptor = os.pipe()
    sink = LineSink(descriptor)
    thread = threading.Thread(target=sink.drain, args=(source,), name="line-sink", daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        os.close(descriptor)
        thread.join(JOIN_SECONDS)
