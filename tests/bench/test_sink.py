"""Rules of `bench.sink`: what counts as a line."""

from __future__ import annotations

import os

import pytest

from bench.sink import MAX_LINE_BYTES, LineSink, line_sink


class TestFeed:
    """`LineSink.feed` counts lines in whatever pieces they come."""

    @pytest.mark.parametrize(
        ("pieces", "lines", "last"),
        [
            ([b"one\ntwo\n"], 2, b"two"),
            ([b"on", b"e", b"\ntw", b"o\n"], 2, b"two"),
            ([b"one\n", b"tw"], 1, b"one"),
            ([b"one"], 0, b""),
            ([b"\n\n"], 2, b""),
        ],
        ids=["at-once", "in-pieces", "not-ended", "none", "empty"],
    )
    def test_line_counts_when_it_has_ended(self, pieces: list[bytes], lines: int, last: bytes) -> None:
        """A line is what stands before a newline, however it was written."""
        sink = LineSink(-1)
        for piece in pieces:
            sink.feed(piece)
        assert (sink.lines, sink.last_line) == (lines, last)

    def test_line_without_an_end_is_not_kept_whole(self) -> None:
        """A proxy that never ends its line does not fill the memory of the benchmark."""
        sink = LineSink(-1)
        for _ in range(3):
            sink.feed(b"x" * MAX_LINE_BYTES)
        sink.feed(b"\n")
        assert len(sink.last_line) == MAX_LINE_BYTES


class TestLineSink:
    """`line_sink` reads what is written to its descriptor."""

    def test_all_is_read_when_the_block_ends(self) -> None:
        """What a proxy wrote last is not lost."""
        with line_sink() as sink:
            os.write(sink.descriptor, b"one\ntwo\n")
        assert sink.lines == 2
