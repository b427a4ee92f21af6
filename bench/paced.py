"""
Keep-alive HTTPS requests at a fixed rate, in an open loop: each is due at its moment, whatever became of those before.

Latency counts from the moment a request was due, not from when it was sent. One that had to wait because the proxy
was still busy with others has waited all the same, and who measures from sending leaves just that out. wrk has no
rate; h2load has one (`--rps`), but starts its clock when it sends.
"""

from __future__ import annotations

import contextlib
import gc
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import attrs

from bench.errors import MeasurementError
from bench.httpsclient import BadAnswerError, HttpsConnection, Target, client_context, content_length, get_greeting

CONNECTIONS = 32
NANOSECONDS = 1_000_000_000
GRACE_SECONDS = 10.0
LATE_US = 1_000.0
MAX_LATE_SHARE = 0.01
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
MAX_ANSWER_BYTES = 64 * 1024


@attrs.frozen(kw_only=True)
class PacedReport:
    """
    What one run saw, in microseconds, by request.

    Attributes:
        latencies_us: From when it was due to when its answer was complete.
        own_delays_us: From when it was due, and a connection free, to when it was sent: what is not the proxy's fault.
    """

    latencies_us: Sequence[float]
    own_delays_us: Sequence[float]

    def percentile_us(self, percent: float) -> float:
        """Return the smallest latency that *percent* of all do not exceed."""
        return percentile(self.latencies_us, percent)

    @property
    def late_share(self) -> float:
        """Return the part of the requests that this program itself sent more than a millisecond late, 0 to 1."""
        return sum(delay > LATE_US for delay in self.own_delays_us) / len(self.own_delays_us)


class Line(Protocol):
    """One connection to the proxy, with at most one request on the way."""

    def fileno(self) -> int:
        """Return what select() waits on."""

    def ask(self) -> None:
        """Send a request."""

    def is_answered(self) -> bool:
        """Read what there is; return whether that completes the answer, which is then checked."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* (above 0) of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * percent // 100) - 1)]


class TlsLine:
    """A `Line` over TLS."""

    def __init__(self, connection: HttpsConnection, target: Target) -> None:
        """Take over an open *connection* on which nothing is on the way."""
        self._socket = connection.socket
        self._socket.setblocking(False)
        self._greeting = target.greeting
        self._received = b""

    def fileno(self) -> int:
        """Return what select() waits on."""
        return self._socket.fileno()

    def ask(self) -> None:
        """Send a request; it is so short that the kernel takes it at once."""
        self._received = b""
        self._socket.send(REQUEST)

    def is_answered(self) -> bool:
        """
        Read until there is no more for now; return whether the answer is complete.

        Raises:
            BadAnswerError: It is not the app's.
        """
        with contextlib.suppress(ssl.SSLWantReadError):
            while not self._is_complete():
                piece = self._socket.recv(MAX_ANSWER_BYTES)
                if not piece or len(self._received) > MAX_ANSWER_BYTES:
                    raise BadAnswerError(f"no whole answer in {self._received[:80]!r}")
                self._received += piece
        return self._is_complete()

    def _is_complete(self) -> bool:
        """Return whether all of an answer is there; raises BadAnswerError if it is a wrong one."""
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < content_length(head):
            return False
        if body != self._greeting:
            raise BadAnswerError(f"body is {body[:80]!r} instead of {self._greeting!r}")
        return True


@attrs.define(kw_only=True)
class Pacer:
    """
    Sends each request when it is due, or as soon after that as a connection is free.

    Attributes:
        lines: The connections; those that are not busy are free.
        now: A clock, in nanoseconds.
        wait: Waits for any of some lines to have something to read, at most so many seconds; returns those that have.
    """

    lines: Sequence[Line]
    now: Callable[[], int]
    wait: Callable[[Collection[Line], float], Collection[Line]]
    _free: deque[tuple[Line, int]] = attrs.Factory(deque)
    _busy: dict[Line, int] = attrs.Factory(dict)
    _latencies_us: list[float] = attrs.Factory(list)
    _own_delays_us: list[float] = attrs.Factory(list)

    def run(self, *, rate: int, count: int) -> PacedReport:
        """
        Make *count* requests, *rate* of them due in each second.

        Raises:
            MeasurementError: Not all were answered within a time of grace after the last was due.
            BadAnswerError: An answer was a wrong one.
        """
        gap_ns = NANOSECONDS // rate
        started_ns = self.now()
        last_due_ns = started_ns + (count - 1) * gap_ns
        due = deque(range(started_ns, last_due_ns + 1, gap_ns))
        self._free.extend((line, started_ns) for line in self.lines)
        while len(self._latencies_us) < count:
            now_ns = self.now()
            if now_ns > last_due_ns + GRACE_SECONDS * NANOSECONDS:
                raise MeasurementError(f"{count - len(self._latencies_us):,} of {count:,} paced requests got no answer")
            while due and due[0] <= now_ns and self._free:
                self._send(due.popleft())
            # With all lines busy only an answer helps; a request that is due then goes out with it.
            until_ns = due[0] if due and self._free else now_ns + NANOSECONDS
            for line in self.wait(self._busy, max(0.0, (until_ns - self.now()) / NANOSECONDS)):
                if line.is_answered():
                    self._take_answer(line)
        return PacedReport(latencies_us=self._latencies_us, own_delays_us=self._own_delays_us)

    def _send(self, due_ns: int) -> None:
        """Send the request that was due at a moment over the line that has been free for longest."""
        line, free_ns = self._free.popleft()
        self._own_delays_us.append((self.now() - max(due_ns, free_ns)) / 1000)
        self._busy[line] = due_ns
        line.ask()

    def _take_answer(self, line: Line) -> None:
        """Note the latency of an answer that is complete, and free its line."""
        now_ns = self.now()
        self._latencies_us.append((now_ns - self._busy.pop(line)) / 1000)
        self._free.append((line, now_ns))


def run_paced(target: Target, *, rate: int, seconds: int) -> PacedReport:
    """
    Ask a proxy *rate* times a second, over connections that are opened and used once before the clock starts.

    Raises:
        MeasurementError: A connection failed, an answer was wrong or did not come.
    """
    context = client_context(target)
    with ExitStack() as stack:
        try:
            connections = [stack.enter_context(HttpsConnection(target, context)) for _ in range(CONNECTIONS)]
            for connection in connections:
                get_greeting(connection, target)
            lines = [TlsLine(connection, target) for connection in connections]
            with _without_garbage_collection():
                pacer = Pacer(lines=lines, now=time.perf_counter_ns, wait=_readable)
                return pacer.run(rate=rate, count=rate * seconds)
        except (OSError, BadAnswerError, ValueError) as error:
            raise MeasurementError(f"paced requests: {type(error).__name__}: {error}") from error


def _readable(lines: Collection[Line], seconds: float) -> Collection[Line]:
    """Wait with select(), since epoll counts in whole milliseconds."""
    return select.select(lines, [], [], seconds)[0]


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep our own pauses out of the latency of others."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
