"""Rules of `bench.httpsclient` that need no network: heads, shares, sums."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import pytest

from bench import httpsclient
from bench.certificate import write_certificates
from bench.httpsclient import (
    SLOW_READS,
    BadAnswerError,
    HttpsConnection,
    Target,
    WorkDone,
    Worker,
    content_length,
    shares,
)


@attrs.define
class FakeConnection:
    """An open connection that notes what is done on it, in the log of all."""

    log: list[str]
    greeting: bytes = b"hello"

    def send_head(self, method: str, path: str) -> None:
        """Note a request."""
        self.log.append(f"{method} {path}")

    def receive_greeting(self, target: Target) -> None:
        """Note an answer, or fail as a wrong one does."""
        self.log.append("answer")
        if self.greeting != target.greeting:
            raise BadAnswerError("body is wrong")


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


class TestWorker:
    """`Worker` does its units of work; of `requests`, a unit is one request on each connection."""

    @pytest.fixture
    def worker(self, tmp_path: Path) -> Worker:
        """Make a worker that is to do two rounds."""
        certificate_path = write_certificates(tmp_path).certificate_path
        target = Target(port=1, certificate_path=str(certificate_path), greeting=b"hello", transfer_bytes=0)
        return Worker(target, "requests", 2)

    def test_round_sends_all_requests_before_it_reads_an_answer(self, worker: Worker) -> None:
        """The proxy has as many requests at a time as there are connections."""
        log: list[str] = []
        worker.held = [cast(HttpsConnection, FakeConnection(log)) for _ in range(3)]
        assert worker.work() == WorkDone(done=2)
        assert log == (["GET /"] * 3 + ["answer"] * 3) * 2

    def test_one_wrong_answer_fails_its_round(self, worker: Worker) -> None:
        """Nobody wins by failing, not even on the last of many connections."""
        log: list[str] = []
        worker.held = [cast(HttpsConnection, FakeConnection(log, body)) for body in (b"hello", b"502")]
        assert worker.work() == WorkDone(failed=2, first_error="BadAnswerError: body is wrong")


@attrs.define
class SlowConnection:
    """A connection on which the file comes piece by piece, until there are no more *pieces*."""

    pieces: int
    length: int = 1_000

    @property
    def socket(self) -> SlowConnection:
        """Return itself, for its `recv`."""
        return self

    def send_head(self, _method: str, _path: str) -> None:
        """Take a request."""

    def receive_head(self) -> tuple[bytes, bytes]:
        """Return a head that promises the file, with the first byte of it."""
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d" % self.length, b"x"

    def recv(self, _limit: int) -> bytes:
        """Return the next piece."""
        self.pieces -= 1
        return b"xyz" if self.pieces >= 0 else b""


class TestSlowReader:
    """A `slow` worker takes a little of the file, bit by bit, and keeps its connection."""

    @pytest.mark.parametrize(
        ("connection", "done", "message"),
        [
            (SlowConnection(SLOW_READS), 1, ""),
            (SlowConnection(SLOW_READS - 1), 0, "cut short"),
            (SlowConnection(SLOW_READS, length=999), 0, "999 bytes"),
        ],
        ids=["all", "cut-short", "another-file"],
    )
    def test_reader_stops_after_its_share(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, connection: SlowConnection, done: int, message: str
    ) -> None:
        """What it has not read stays with the proxy; a proxy that gives up on it, or on the file, fails."""
        pauses: list[float] = []
        monkeypatch.setattr(httpsclient.time, "sleep", pauses.append)
        monkeypatch.setattr(httpsclient, "HttpsConnection", lambda _target, _context: connection)
        certificate_path = write_certificates(tmp_path).certificate_path
        target = Target(port=1, certificate_path=str(certificate_path), greeting=b"hello", transfer_bytes=1_000)
        worker = Worker(target, "slow", 1)
        worker.prepare()
        result = worker.work()
        assert (result.done, message in result.first_error) == (done, True)
        assert len(pauses) == (0 if "999" in message else SLOW_READS)
        assert worker.held == [connection]


class TestWorkDone:
    """`WorkDone` adds up workers."""

    def test_first_error_is_kept(self) -> None:
        """Counts are added; the first error stands for all."""
        total = WorkDone()
        total.add(WorkDone(done=3, resumed=2, first_error="reset"))
        total.add(WorkDone(done=1, failed=1, moved_bytes=7, first_error="timeout"))
        assert total == WorkDone(done=4, failed=1, resumed=2, moved_bytes=7, first_error="reset")
