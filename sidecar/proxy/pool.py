"""
Connections to the app, kept open between requests.

Rules that hold here: an idle connection is used newest first, so that surplus ones age; none is used once the app may
be about to close it, because that would cost a request: after `IDLE_SECONDS`, or what the app itself promises in its
Keep-Alive field less `MARGIN_SECONDS`.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.logger import Logger

from sidecar.proxy import connect
from sidecar.proxy.sockets import MAX_READ_SIZE, SocketTransport
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import HostPort, Limits, UnixPath
from sidecar.wire.http1 import ClientCodec

IDLE_SECONDS: Final = 4.0
"""One second less than Node's keep-alive of 5 s, the shortest default among common app servers."""

MARGIN_SECONDS: Final = 1.0
"""How much earlier than promised an app may close: its clock starts when it has sent, ours when we have received."""

LONGEST_IDLE_SECONDS: Final = 300.0
"""However long an app would keep it."""

MAX_IDLE_CONNECTIONS: Final = 256
"""More idle ones than this are closed at once: they would only hold descriptors of ours and workers of the app."""

LOG_PAUSE_SECONDS: Final = 10.0

_SWEEP_SECONDS: Final = 1.0

_log = Logger()

Ready = Callable[["UpstreamConnection | connect.ConnectFailed"], None]


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


class Pool:
    """The connections of one upstream address."""

    def __init__(
        self, target: HostPort | UnixPath, connect_timeout_seconds: float, limits: Limits, reactor: Any
    ) -> None:
        self.target = target
        self.address = str(target)
        self.statistics = PoolStatistics()
        self._connect_timeout_seconds = connect_timeout_seconds
        self._limits = limits
        self._reactor = reactor
        self._now = reactor.seconds
        self._idle: list[UpstreamConnection] = []  # oldest first
        self._open: set[UpstreamConnection] = set()
        self._connecting = 0
        self._bytes_received = self._bytes_sent = 0  # of connections that are gone
        self._sweep: Any = None
        self._stopped = False
        self._told_at = -math.inf

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def pending_count(self) -> int:
        """Requests that wait for a connection to be made."""
        return self._connecting

    def bytes_moved(self) -> tuple[int, int]:
        """Return how much was received from and sent to the app, since start."""
        transports = [upstream.transport for upstream in self._open]
        received = self._bytes_received + sum(transport.bytes_received for transport in transports)
        return received, self._bytes_sent + sum(transport.bytes_sent for transport in transports)

    def take(self) -> UpstreamConnection | None:
        """Return an idle connection that is fresh enough, or None."""
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

    def connect(self, ready: Ready) -> None:
        """Make a connection; call *ready*, later, with it or with why there is none."""

        def connected(outcome: socket.socket | connect.ConnectFailed) -> None:
            self._connecting -= 1
            if isinstance(outcome, connect.ConnectFailed):
                reason = outcome.reason
                self.statistics.failures[reason] = self.statistics.failures.get(reason, 0) + 1
                self.statistics.last_error = str(outcome)
                if not self.statistics.connects and reason == "upstream_connect_refused":
                    reason = "upstream_not_started"  # for all we know: clients may try again
                self._tell_of_failure(str(outcome))
                ready(connect.ConnectFailed(reason, f"{self.target}: {outcome}"))
                return
            self.statistics.connects += 1
            self.statistics.last_error = ""
            upstream = UpstreamConnection(ClientCodec(self._limits.header_bytes, self._limits.headers), self)
            upstream.transport = SocketTransport(outcome, upstream, self._reactor, MAX_READ_SIZE)
            self._open.add(upstream)
            ready(upstream)

        limit = self._limits.upstream_connections
        if len(self._open) + self._connecting >= limit:
            self.statistics.failures["upstream_overflow"] = self.statistics.failures.get("upstream_overflow", 0) + 1
            full = connect.ConnectFailed("upstream_overflow", f"{limit:,} connections to the app are open, the limit")
            self._reactor.callLater(0, ready, full)
            return
        self._connecting += 1
        connect.connect(self.target, self._connect_timeout_seconds, self._reactor, connected)

    def _tell_of_failure(self, why: str) -> None:
        """Log, not more often than anybody reads it: with every request it would fail again."""
        now = self._now()
        if now - self._told_at >= LOG_PAUSE_SECONDS:
            self._told_at = now
            _log.warn(
                "no connection to the app, {target}: {why}; failures so far: {count}",
                target=self.target,
                why=why,
                count=self.statistics.connect_failures,
            )

    def release(self, upstream: UpstreamConnection) -> None:
        """Take back a connection whose exchange is complete on both sides."""
        upstream.lessee = None
        promised = upstream.codec.keep_alive_seconds
        if promised is not None:
            self.statistics.keep_alive_seconds = promised
        usable = IDLE_SECONDS if promised is None else min(promised - MARGIN_SECONDS, LONGEST_IDLE_SECONDS)
        if self._stopped or len(self._idle) >= MAX_IDLE_CONNECTIONS or usable <= 0 or not upstream.transport.is_open:
            upstream.retire()
            return
        upstream.usable_until = self._now() + usable
        self._idle.append(upstream)
        if self._sweep is None:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)

    def forget(self, upstream: UpstreamConnection) -> None:
        """The connection is gone or going."""
        if upstream in self._open:
            self._open.discard(upstream)
            self._bytes_received += upstream.transport.bytes_received
            self._bytes_sent += upstream.transport.bytes_sent
        if upstream.lessee is None and upstream in self._idle:
            self._idle.remove(upstream)

    def stop(self) -> None:
        """Close what is idle; what is leased closes on its return."""
        self._stopped = True
        if self._sweep is not None and self._sweep.active():
            self._sweep.cancel()
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.retire()

    def _close_aged(self) -> None:
        self._sweep = None
        now = self._now()
        aged = [upstream for upstream in self._idle if upstream.usable_until <= now]
        self._idle = [upstream for upstream in self._idle if upstream.usable_until > now]
        for upstream in aged:
            upstream.retire()
        if self._idle:
            self._sweep = self._reactor.callLater(_SWEEP_SECONDS, self._close_aged)
