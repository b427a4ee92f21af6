"""
Connections to the app, kept open between requests.

Rules that hold here: an idle connection is used newest first, so that surplus ones age; none is used once the app may
be about to close it, because that would cost a request: after `IDLE_SECONDS`, or what the app itself promises in its
Keep-Alive field less `MARGIN_SECONDS`. One that began with a preface is only used for requests with the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
from twisted.logger import Logger
from twisted.python import failure

from sidecar.proxy import connect
from sidecar.proxy.connect import ConnectFailed, Locate, Security, Transport, Way
from sidecar.proxy.multiplex import Carrier
from sidecar.proxy.sockets import NOBODY, StreamProtocol
from sidecar.proxy.upstream import RawConnection, Upstream, UpstreamConnection
from sidecar.settings import HostPort, Limits, UnixPath
from sidecar.topology import ClusterLimits
from sidecar.wire.http1 import ClientCodec, begins_with_settings

IDLE_SECONDS: Final = 4.0
"""One second less than Node's keep-alive of 5 s, the shortest default among common app servers."""

MARGIN_SECONDS: Final = 1.0
"""How much earlier than promised an app may close: its clock starts when it has sent, ours when we have received."""

LONGEST_IDLE_SECONDS: Final = 300.0
"""However long an app would keep it."""

MAX_IDLE_CONNECTIONS: Final = 256
"""More idle ones than this are closed at once: they would only hold descriptors of ours and workers of the app."""

LOG_PAUSE_SECONDS: Final = 10.0

LOOK_SECONDS: Final = 0.5
"""How long an app that spoke HTTP/2 is listened to, to find out whether it still does."""

_SWEEP_SECONDS: Final = 1.0

_log = Logger()

Ready = Callable[[Upstream | ConnectFailed], None]

RawReady = Callable[[Transport | ConnectFailed], None]

_Connection = TypeVar("_Connection", UpstreamConnection, RawConnection, Carrier)


@attrs.define
class PoolStatistics:
    """
    Counters, since start.

    Attributes:
        connects: Connections made.
        failures: Attempts that failed, by reason.
        last_error: Why the last one did, in words; "" once one has worked.
        keep_alive_seconds: How long the app last promised to keep an idle connection.
    """

    connects: int = 0
    failures: dict[str, int] = attrs.Factory(dict)
    last_error: str = ""
    keep_alive_seconds: float | None = None

    @property
    def connect_failures(self) -> int:
        return sum(self.failures.values())


@attrs.define
class Budget:
    """
    How many connections the pools of a cluster may have together.

    Attributes:
        connections: Open, or being made.
        pending: Requests that wait for a connection.
        pools: Those that share it.
    """

    limits: ClusterLimits
    connections: int = 0
    pending: int = 0
    pools: list[Pool] = attrs.Factory(list)

    def refusal(self) -> str:
        """
        Return why no connection may be made now, "" if one may.

        At the limit an idle one is closed: it may be to an endpoint whose turn it is not.
        """
        if self.pending >= self.limits.pending_requests:
            return f"{self.limits.pending_requests:,} requests wait for a connection, the limit"
        if self.connections >= self.limits.connections and not self._make_room():
            return f"{self.limits.connections:,} connections are open, the limit"
        return ""

    def _make_room(self) -> bool:
        richest = max(self.pools, key=lambda pool: pool.idle_count, default=None)
        if richest is not None and richest.idle_count:
            richest.retire_oldest()
        return self.connections < self.limits.connections


class Pool:
    """
    The connections of one upstream address.

    Attributes:
        target: As it was set.
        address: The same in words, or the address that its name was found to have.
        locate: Who knows the addresses of *target*, see `connect.Way`.
        connect_timeout_seconds: For connections that are made from now on.
    """

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
        """
        Args:
            name: What the log calls the upstream.
            address: "": that of *target*.
            security: TLS; None: none.
            budget: Shared with other pools; None: its own, from *limits*.
        """
        self.target = target
        self.address = address or str(target)
        self.locate = locate
        self.connect_timeout_seconds = connect_timeout_seconds
        self.statistics = PoolStatistics()
        self._name = name
        self._security = security
        self._budget = budget or Budget(ClusterLimits(connections=limits.upstream_connections))
        self._budget.pools.append(self)
        self._limits = limits
        self._reactor = reactor
        self._now = reactor.seconds
        self._idle: list[UpstreamConnection] = []  # oldest first
        self._idle_prefaced: list[UpstreamConnection] = []  # those that began with a preface, oldest first
        self._open: set[UpstreamConnection | RawConnection | Carrier] = set()
        self._connecting = 0
        self._bytes_received = self._bytes_sent = 0  # of connections that are gone
        self._sweep: Any = None
        self._stopped = False
        self._is_misfit = False
        self._told_at = -math.inf

    @property
    def idle_count(self) -> int:
        return len(self._idle) + len(self._idle_prefaced)

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def pending_count(self) -> int:
        """Requests that wait for a connection to be made."""
        return self._connecting

    def bytes_moved(self) -> tuple[int, int]:
        """Return how much was received from and sent to the app, since start."""
        transports = [connection.transport for connection in self._open]
        received = self._bytes_received + sum(transport.bytes_received for transport in transports)
        return received, self._bytes_sent + sum(transport.bytes_sent for transport in transports)

    def way(self) -> Way:
        """Return how connections are made now."""
        return Way(
            target=self.target,
            timeout_seconds=self.connect_timeout_seconds,
            locate=self.locate,
            security=self._security,
        )

    def take(self, preface: bytes = b"") -> Upstream | None:
        """Return an idle connection that is fresh enough and began with *preface*, or None."""
        if preface:
            return self._take_prefaced(preface)
        idle = self._idle
        if not idle:
            return None
        now = self._now()
        while idle:
            newest = idle.pop()
            if now < newest.usable_until:
                return newest
            newest.retire()
        return None

    def _take_prefaced(self, preface: bytes) -> UpstreamConnection | None:
        """There are few, since nobody but the client that a preface speaks of has a use for one."""
        now = self._now()
        for upstream in reversed(self._idle_prefaced):
            if upstream.preface == preface and now < upstream.usable_until:
                self._idle_prefaced.remove(upstream)
                return upstream
        return None

    def connect(self, ready: Ready, preface: bytes = b"") -> None:
        """
        Make a connection; call *ready*, later, with it or with why there is none.

        Args:
            preface: What it begins with, outside of TLS.
        """
        codec = ClientCodec(self._limits.header_bytes, self._limits.headers)
        self._make(UpstreamConnection(codec, self, preface), preface, ready)

    def look(self, preface: bytes = b"") -> None:
        """Find out, for `statistics`, whether a connection can be made, to an app that speaks what it should."""
        if not self._is_misfit:
            self.connect_raw(NOBODY, _let_go, preface)
            return
        looking = _Looking(self)
        self.connect_raw(looking, looking.begin, preface)

    def misfits(self, why: ConnectFailed) -> None:
        """The app does not speak HTTP/1.1, which it says as soon as it is connected to: tell it, and look again."""
        self._is_misfit = True
        self._failed(why)

    def connect_raw(self, protocol: StreamProtocol, ready: RawReady, preface: bytes = b"") -> None:
        """
        Make a connection that is nobody else's, and counts as one; call *ready*, later, with its transport or with why
        there is none.

        Args:
            protocol: Hears what happens, once *ready* was called.
            preface: As in `connect`.
        """

        def made(outcome: RawConnection | ConnectFailed) -> None:
            if isinstance(outcome, RawConnection):
                outcome.protocol = protocol
                ready(outcome.transport)
            else:
                ready(outcome)

        self._make(RawConnection(self), preface, made)

    def _make(
        self, connection: _Connection, preface: bytes, ready: Callable[[_Connection | ConnectFailed], None]
    ) -> None:
        security, budget = self._security, self._budget

        def opened(outcome: Transport | ConnectFailed) -> None:
            self._connecting -= 1
            budget.pending -= 1
            if isinstance(outcome, ConnectFailed):
                budget.connections -= 1
                ready(self._failed(outcome))
                return
            self.statistics.connects += 1
            self.statistics.last_error = ""
            connection.transport = outcome
            if security is not self._security:
                _mark_last(connection)
            self._open.add(connection)
            ready(connection)

        refusal = budget.refusal()
        if refusal:
            self._count_failure("upstream_overflow")
            full = ConnectFailed("upstream_overflow", f"{self._name}: {refusal}")
            self._reactor.callLater(0, ready, full)
            return
        self._connecting += 1
        budget.pending += 1
        budget.connections += 1
        connect.open_stream(self.way(), connection, self._reactor, opened, preface)

    def _count_failure(self, reason: str) -> None:
        self.statistics.failures[reason] = self.statistics.failures.get(reason, 0) + 1

    def _failed(self, why: ConnectFailed) -> ConnectFailed:
        """Count and tell it; return it as the exchange is to hear it."""
        reason = why.reason
        self._count_failure(reason)
        self.statistics.last_error = str(why)
        has_started = any(pool.statistics.connects for pool in self._budget.pools)
        if not has_started and reason == "upstream_connect_refused":
            reason = "upstream_not_started"  # for all we know: clients may try again
        self._tell_of_failure(str(why))
        return ConnectFailed(reason, f"{self.address}: {why}")

    def _tell_of_failure(self, why: str) -> None:
        """Log, not more often than anybody reads it: with every request it would fail again."""
        now = self._now()
        if now - self._told_at >= LOG_PAUSE_SECONDS:
            self._told_at = now
            _log.warn(
                "no connection to {name}, {address}: {why}; failures so far: {count}",
                name=self._name,
                address=self.address,
                why=why,
                count=self.statistics.connect_failures,
            )

    def release(self, upstream: Upstream) -> None:
        """Take back a connection whose exchange is complete on both sides."""
        assert isinstance(upstream, UpstreamConnection)
        upstream.lessee = None
        codec = upstream.codec
        promised = codec.keep_alive_seconds
        if promised is not None:
            self.statistics.keep_alive_seconds = promised
        usable = IDLE_SECONDS if promised is None else min(promised - MARGIN_SECONDS, LONGEST_IDLE_SECONDS)
        if self._stopped or usable <= 0 or not codec.is_reusable or not upstream.transport.is_open:
            upstream.retire()
            return
        idle = self._idle
        if upstream.preface:
            idle = self._idle_prefaced
            if len(idle) >= MAX_IDLE_CONNECTIONS:
                idle.pop(0).retire()  # its client is the likeliest to have left
        elif len(idle) >= MAX_IDLE_CONNECTIONS:
            upstream.retire()
            return
        upstream.usable_until = self._now() + usable
        idle.append(upstream)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)

    def forget(self, upstream: UpstreamConnection) -> None:
        """The connection is gone or going."""
        self._forget(upstream)
        if upstream.lessee is None:
            idle = self._idle_prefaced if upstream.preface else self._idle
            if upstream in idle:
                idle.remove(upstream)
        elif upstream.broken_by and not upstream.usable_until and not upstream.codec.has_response_bytes:
            # With TLS 1.3, that the app refuses our certificate is heard only when the connection seems to be made.
            self._failed(ConnectFailed("upstream_tls_failed", upstream.broken_by))

    def forget_raw(self, raw: RawConnection) -> None:
        """The connection is gone."""
        self._forget(raw)

    def _forget(self, connection: UpstreamConnection | RawConnection | Carrier) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._budget.connections -= 1
            self._bytes_received += connection.transport.bytes_received
            self._bytes_sent += connection.transport.bytes_sent

    def retire_oldest(self) -> None:
        """Close the idle connection that has been so for longest; there is one."""
        oldest = (self._idle_prefaced or self._idle)[0]
        self.forget(oldest)
        oldest.retire()

    def secure(self, security: Security | None) -> None:
        """
        Make connections with *security* from now on.

        If it is another one, those that there are serve no further request: they may rest on what is no longer trusted.
        """
        if security is not self._security:
            self._security = security
            for connection in self._open:
                _mark_last(connection)
            self._close_idle()

    def stop(self) -> None:
        """Close what is idle; what is leased closes on its return."""
        self._stopped = True
        if self in self._budget.pools:
            self._budget.pools.remove(self)
        if self._sweep is not None and self._sweep.active():
            self._sweep.cancel()
        self._close_idle()

    def _close_idle(self) -> None:
        idle, self._idle, self._idle_prefaced = [*self._idle, *self._idle_prefaced], [], []
        for upstream in idle:
            upstream.retire()

    def _close_aged(self) -> None:
        self._sweep = None
        now = self._now()
        aged = [upstream for upstream in (*self._idle, *self._idle_prefaced) if upstream.usable_until <= now]
        self._idle = [upstream for upstream in self._idle if upstream.usable_until > now]
        self._idle_prefaced = [upstream for upstream in self._idle_prefaced if upstream.usable_until > now]
        for upstream in aged:
            upstream.retire()
        if self._idle or self._idle_prefaced:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)


class _Looking:
    """A connection on which nothing is asked: an app that speaks HTTP/2 begins by itself."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: Transport | None = None

    def begin(self, outcome: Transport | ConnectFailed) -> None:
        if not isinstance(outcome, ConnectFailed):
            self._transport = outcome
            self._pool._reactor.callLater(LOOK_SECONDS, self._end, is_misfit=False)

    def _end(self, *, is_misfit: bool) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._pool._is_misfit = is_misfit
            transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._transport is not None and begins_with_settings(data):
            self._end(is_misfit=True)
            self._pool._failed(ConnectFailed("upstream_not_http1", "it speaks HTTP/2 without TLS: write h2c://"))

    def eofReceived(self) -> None:
        self._end(is_misfit=False)

    def connectionLost(self, reason: failure.Failure) -> None:
        self._transport = None

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


def _let_go(outcome: Transport | ConnectFailed) -> None:
    if not isinstance(outcome, ConnectFailed):
        outcome.loseConnection()


def _mark_last(connection: UpstreamConnection | RawConnection | Carrier) -> None:
    """Let what runs on it be the last: it is closed then."""
    if isinstance(connection, UpstreamConnection):
        connection.codec.is_reusable = False
    elif isinstance(connection, Carrier):
        connection.is_last = True
