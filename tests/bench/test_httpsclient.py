"""Rules of `bench.httpsclient` that need no network: heads, shares, sums."""

from __future__ import annotations

import pytest

from bench.httpsclient import BadAnswerError, WorkDone, content_length, shares


class TestContentLength:
    """`content_length` accepts only what the app sends through a correct proxy."""

    def test_length_of_a_good_head(self) -> None:
        """Field names are compared without regard to case."""
        assert content_length(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 19\r\nX: y") == 19

    @pytest.mark.parametrize(
        ("head", "message"),
        [
            (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 19", "502"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "no Content-Length"),
            (b"garbage", "garbage"),
        ],
        ids=["status", "length", "garbage"],
    )
    def test_other_heads_are_refused(self, head: bytes, message: str) -> None:
        """Nobody wins by failing: what is not a plain 200 counts as a failure."""
        with pytest.raises(BadAnswerError, match=message):
            content_length(head)


class TestShares:
    """`shares` divides work among threads."""

    @pytest.mark.parametrize(
        ("count", "workers", "expected"),
        [(10, 4, [3, 3, 2, 2]), (2, 16, [1, 1]), (4, 1, [4])],
        ids=["uneven", "fewer-units", "one-worker"],
    )
    def test_all_units_are_shared_out(self, count: int, workers: int, expected: list[int]) -> None:
        """Shares differ by one at most, add up, and nobody gets nothing."""
        assert shares(count, workers) == expected


class TestWorkDone:
    """`WorkDone` adds up workers."""

    def test_first_error_is_kept(self) -> None:
        """Counts are added; the first error stands for all."""
        total = WorkDone()
        total.add(WorkDone(done=3, resumed=2, first_error="reset"))
        total.add(WorkDone(done=1, failed=1, moved_bytes=7, first_error="timeout"))
        assert total == WorkDone(done=4, failed=1, resumed=2, moved_bytes=7, first_error="reset")
