"""Rules of `bench.paced`: latency counts from when a request was due."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench.errors import MeasurementError
from bench.httpsclient import BadAnswerError, HttpsConnection, Target
from bench.paced import Line, PacedReport, Pacer, TlsLine, percentile

MS = 1_000_000
TARGET = Target(port=1, certificate_path="", greeting=b"hello", transfer_bytes=0)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@attrs.define
class Clock:
    """Moments that pass only when somebody waits."""

    now_ns: int = 0


@attrs.define(eq=False)
class FakeLine:
    """A connection whose answers take *service_ns* each, or up to *stalled_until_ns* if that is later."""

    clock: Clock
    service_ns: int = MS // 10
    stalled_until_ns: int = 0
    ready_ns: int = 0

    def fileno(self) -> int:
        """Nobody selects on it."""
        raise AssertionError

    def ask(self) -> None:
        """Take a request."""
        self.ready_ns = max(self.clock.now_ns, self.stalled_until_ns) + self.service_ns

    def is_answered(self) -> bool:
        """Return whether the time has come."""
        return self.clock.now_ns >= self.ready_ns


def pace(lines: list[FakeLine], clock: Clock, *, rate: int, count: int, oversleep_ns: int = 0) -> PacedReport:
    """Pace requests over *lines*; who waits for nothing sleeps *oversleep_ns* too long."""

    def wait(busy: Collection[Line], seconds: float) -> Collection[Line]:
        until_ns = clock.now_ns + round(seconds * 1e9)
        answers = [line.ready_ns for line in cast(Collection[FakeLine], busy)]
        first_ns = min([until_ns, *answers])
        clock.now_ns = first_ns + (oversleep_ns if first_ns == until_ns and seconds else 0)
        return [line for line in busy if line.is_answered()]

    return Pacer(lines=lines, now=lambda: clock.now_ns, wait=wait).run(rate=rate, count=count)


class TestPacer:
    """`Pacer` keeps to its times, whatever the proxy does."""

    def test_request_that_could_not_be_sent_has_waited_since_it_was_due(self) -> None:
        """A stall of 10 ms is felt by all ten requests that were due in it, and not by one alone."""
        clock = Clock()
        report = pace([FakeLine(clock, service_ns=0, stalled_until_ns=10 * MS)], clock, rate=1_000, count=20)
        assert [round(us) for us in report.latencies_us] == [*range(10_000, 0, -1_000), *([0] * 10)]

    def test_wait_for_a_connection_is_not_our_delay(self) -> None:
        """The proxy keeps all connections busy; that they are is its doing."""
        clock = Clock()
        report = pace([FakeLine(clock, service_ns=0, stalled_until_ns=10 * MS)], clock, rate=1_000, count=20)
        assert report.late_share == 0.0

    def test_oversleeping_is_our_delay_and_counts(self) -> None:
        """It cannot be told from the proxy's latency afterwards, so it is reported beside it."""
        clock = Clock()
        report = pace([FakeLine(clock), FakeLine(clock)], clock, rate=100, count=10, oversleep_ns=2 * MS)
        assert report.late_share == 0.9  # the first is due at once
        assert report.percentile_us(90) == pytest.approx(2_100)

    def test_answers_may_overtake_each_other(self) -> None:
        """One slow connection does not hold up the others."""
        clock = Clock()
        report = pace([FakeLine(clock, service_ns=3 * MS), FakeLine(clock)], clock, rate=1_000, count=3)
        assert sorted(round(us) for us in report.latencies_us) == [100, 100, 3_000]

    def test_proxy_that_does_not_answer_fails(self) -> None:
        """Requests without an answer have no latency, and must not be left out of it."""
        clock = Clock()
        with pytest.raises(MeasurementError, match="5 of 5 paced requests got no answer"):
            pace([FakeLine(clock, stalled_until_ns=10**15)], clock, rate=1_000, count=5)


@attrs.define
class FakeSocket:
    """A socket from which an answer comes in pieces; empty when the proxy has closed."""

    pieces: list[bytes]
    sent: list[bytes] = attrs.Factory(list)

    def setblocking(self, _is_blocking: bool) -> None:
        """Take notice."""

    def send(self, data: bytes) -> int:
        """Take a request."""
        self.sent.append(data)
        return len(data)

    def recv(self, _limit: int) -> bytes:
        """Return the next piece."""
        return self.pieces.pop(0)


class TestTlsLine:
    """`TlsLine` knows a whole and right answer."""

    @pytest.mark.parametrize("cut", [1, 30, len(ANSWER) - 1, len(ANSWER)])
    def test_answer_may_come_in_pieces(self, cut: int) -> None:
        """Records end anywhere."""
        pieces = [piece for piece in (ANSWER[:cut], ANSWER[cut:]) if piece]
        line = TlsLine(cast(HttpsConnection, SimpleNamespace(socket=FakeSocket(pieces))), TARGET)
        line.ask()
        assert line.is_answered()

    @pytest.mark.parametrize(
        ("pieces", "message"),
        [
            ([ANSWER.replace(b"hello", b"jello")], "instead of"),
            ([ANSWER.replace(b"200 OK", b"502 Bad")], "502"),
            ([ANSWER[:-2], b""], "no whole answer"),
            ([ANSWER + b"more"], "instead of"),
        ],
        ids=["another-body", "another-status", "cut-short", "too-much"],
    )
    def test_other_answers_are_refused(self, pieces: list[bytes], message: str) -> None:
        """Nobody wins by failing fast."""
        line = TlsLine(cast(HttpsConnection, SimpleNamespace(socket=FakeSocket(pieces))), TARGET)
        line.ask()
        with pytest.raises(BadAnswerError, match=message):
            line.is_answered()


class TestPercentile:
    """`percentile` never returns less than what so many do not exceed."""

    @pytest.mark.parametrize(
        ("count", "percent", "expected"), [(100, 99, 99), (101, 99, 100), (100, 50, 50), (1, 99, 1), (3, 100, 3)]
    )
    def test_rank_is_rounded_up(self, count: int, percent: float, expected: float) -> None:
        """Of few values the 99th percentile is the largest."""
        assert percentile([float(value) for value in range(count, 0, -1)], percent) == expected
