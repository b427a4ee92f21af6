"""
Connections to an app that speaks HTTP/2: few, each shared by many exchanges.

A request goes on the first connection that has room. One that finds none waits for the next, together with as many
others as that is likely to take.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from sidecar.proxy.connect import ConnectFailed, Locate, Security
from sidecar.proxy.multiplex import Carrier, UpstreamStream
from sidecar.proxy.pool import LONGEST_IDLE_SECONDS, MAX_IDLE_CONNECTIONS, Budget, Pool, Ready
from sidecar.proxy.turnend import TurnEnd
from sidecar.proxy.upstream import Upstream
from sidecar.settings import HostPort, Limits, UnixPath
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.http2client import STREAMS_UNTIL_TOLD

_SWEEP_SECONDS: Final = 10.0

_TAKES_NOTHING: Final = (
    "it takes no request on a new HTTP/2 connection: it allows no streams (SETTINGS_MAX_CONCURRENT_STREAMS is 0), or "
    "has said GOAWAY"
)


class StreamPool(Pool):
    """The connections of one upstream address, as `Pool`, for HTTP/2."""

    def __init__(
        self,
        target: HostPort | UnixPath,
        connect_timeout_seconds: float,
        limits: Limits,
        reactor: Any,
        *,
        name: str = "the app",
        address: str = "",
        locate: Locate | None = None,
        security: Security | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Args: as of `Pool`."""
        super().__init__(
            target,
            connect_timeout_seconds,
            limits,
            reactor,
            name=name,
            address=address,
            locate=locate,
            security=security,
            budget=budget,
        )
        head_bytes = self._limits.header_bytes
        self._h2_limits = Http2Limits(
            header_list_bytes=head_bytes, block_bytes=2 * head_bytes, fields=self._limits.headers
        ).for_app()
        self._turns = TurnEnd(self._reactor)
        self._streams_each = STREAMS_UNTIL_TOLD  # that a connection is likely to take
        self._carriers: list[Carrier] = []  # whose app has said what it is
        self._waiting: deque[Ready] = deque()
        self._beginning: set[Carrier] = set()  # whose app has not yet: others wait for them

    @property
    def idle_count(self) -> int:
        return sum([carrier.is_idle for carrier in self._carriers])

    @property
    def pending_count(self) -> int:
        return len(self._waiting)

    def take(self, preface: bytes = b"") -> Upstream | None:
        """Return a stream on a connection that has room; None: there is none."""
        for carrier in self._carriers:
            if carrier.room:
                return UpstreamStream(carrier)
        return None

    def connect(self, ready: Ready, preface: bytes = b"") -> None:
        """Call *ready*, later, with a stream of a connection that is being made, or with why there is none."""
        most = self._budget.limits.pending_requests
        if sum([pool.pending_count for pool in self._budget.pools]) >= most:
            self._count_failure("upstream_overflow")
            text = f"{self._name}: {most:,} requests wait for a connection, the limit"
            self._reactor.callLater(0, ready, ConnectFailed("upstream_overflow", text))
            return
        self._waiting.append(ready)
        if any(carrier.room for carrier in self._carriers):
            self._turns.call(self._serve_or_make)  # whoever asks has just been refused, or there was none a moment ago
        else:
            self._make_enough()

    def _serve_or_make(self) -> None:
        self._serve_waiting()
        self._make_enough()

    def look(self, preface: bytes = b"") -> None:
        """Find out whether the app speaks HTTP/2, which takes more than a connection; one that does is kept."""
        self.connect(self._let_go)

    def _let_go(self, outcome: Upstream | ConnectFailed) -> None:
        if not isinstance(outcome, ConnectFailed):
            self.release(outcome)

    @property
    def _provided_for(self) -> int:
        """Requests that the connections on their way are likely to take."""
        return (self._connecting + len(self._beginning)) * self._streams_each

    def _make_enough(self) -> None:
        if len(self._waiting) > self._provided_for:
            self._make(Carrier(self._h2_limits, self, self._reactor, self._turns), b"", self._made)

    def _made(self, outcome: Carrier | ConnectFailed) -> None:
        if isinstance(outcome, ConnectFailed):
            self._refuse_waiting(outcome)
            return
        self._beginning.add(outcome)
        outcome.begin(self.connect_timeout_seconds)

    def _refuse_waiting(self, why: ConnectFailed) -> None:
        """Tell those that wait; of one connection too many, only those whom none of the others will take."""
        kept = self._provided_for if why.reason == "upstream_overflow" else 0
        refused = [self._waiting.pop() for _ in range(len(self._waiting) - kept)]
        for ready in reversed(refused):
            ready(why)

    def carrier_ready(self, carrier: Carrier) -> None:
        """The app has said how many streams it takes."""
        self._beginning.discard(carrier)
        self._carriers.append(carrier)
        if carrier.room:
            self._streams_each = carrier.room
            self._serve_waiting()
        elif not carrier.is_last:
            # To make another would be to do so without end.
            carrier.is_last = True
            self._refuse_waiting(self._failed(ConnectFailed("upstream_connect_refused", _TAKES_NOTHING)))
        self._make_enough()
        if carrier.is_idle:
            self.stream_ended(carrier)

    def _serve_waiting(self) -> None:
        while self._waiting:
            stream = self.take()
            if stream is None:
                return
            self._waiting.popleft()(stream)

    def carrier_failed(self, carrier: Carrier, why: ConnectFailed) -> None:
        """The app does not speak HTTP/2, as far as the connection tells."""
        self._refuse_waiting(self._failed(why))

    def release(self, upstream: Upstream) -> None:
        """Take back a stream whose exchange is complete on both sides."""
        assert isinstance(upstream, UpstreamStream)
        upstream.release()

    def stream_ended(self, carrier: Carrier) -> None:
        """A connection has room for one more, or nothing at all on it: then it is kept for a while."""
        if self._waiting and carrier.room:
            self._turns.call(self._serve_waiting)
        if not carrier.is_idle:
            return
        carrier.idle_since = self._now()
        if self._stopped or carrier.is_last or self.idle_count > MAX_IDLE_CONNECTIONS:
            self._turns.call(carrier.retire)
        elif self._sweep is None:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)

    def forget_carrier(self, carrier: Carrier) -> None:
        """The connection is gone or going."""
        self._forget(carrier)
        self._beginning.discard(carrier)
        if carrier in self._carriers:
            self._carriers.remove(carrier)

    def retire_oldest(self) -> None:
        """Close the idle connection that has been so for longest; there is one."""
        min((carrier for carrier in self._carriers if carrier.is_idle), key=lambda carrier: carrier.idle_since).retire()

    def _close_idle(self) -> None:
        for carrier in list(self._carriers):
            carrier.retire()  # once it is idle

    def _close_aged(self) -> None:
        self._sweep = None
        now = self._now()
        for carrier in list(self._carriers):
            if carrier.is_idle and now - carrier.idle_since >= LONGEST_IDLE_SECONDS:
                carrier.retire()
        if self.idle_count:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)
