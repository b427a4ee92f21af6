"""What all connections of a listener share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import RequestError
from sidecar.observe.histogram import Histogram
from sidecar.observe.metrics import Metrics
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.routing import Router
from sidecar.settings import HttpSettings, Limits, Timeouts
from sidecar.wire.h2limits import Http2Limits

ORDERLY_ENDS: Final = frozenset({"", "closed_without_notify"})
"""How a tunnel ends whose two sides had both said all, as far as we are concerned."""

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Client, Exchange
    from sidecar.proxy.tunnel import Tunnel


class Log(Protocol):
    """What is told of whatever is over, as `observe.accesslog.AccessLog`."""

    def exchange(
        self,
        exchange: Exchange,
        status: int,
        reason: str,
        detail: str,
        now: float,
        *,
        upstream: str = "",
        trace_id: str = "",
    ) -> None: ...
    def tunnel(self, tunnel: Tunnel, reason: str, detail: str, duration: float) -> None: ...
    def refused(self, downstream: Client, error: RequestError) -> None: ...


class Service:
    """
    The narrow settings and the shared parts that a connection needs.

    Attributes:
        router: Where requests go.
        now: The clock that everything is timed by, in seconds from any moment.
        wall_clock: Seconds since the epoch.
        http2: What an HTTP/2 connection may cost.
        is_draining: Whether every response is to be its connection's last.
    """

    # Written out: mypyc compiles no decorated class, and every request ends here (bench row `requests-logged`).
    def __init__(
        self,
        *,
        timeouts: Timeouts,
        limits: Limits,
        http: HttpSettings,
        router: Router,
        metrics: Metrics,
        rejecter: Rejecter,
        access_log: Log | None,
        now: Callable[[], float],
        http2: Http2Limits | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.timeouts: Timeouts = timeouts
        self.limits: Limits = limits
        self.http: HttpSettings = http
        self.router: Router = router
        self.metrics: Metrics = metrics
        self._responses: dict[int, int] = metrics.responses
        self._durations: Histogram = metrics.request_duration
        self.rejecter: Rejecter = rejecter
        self.access_log: Log | None = access_log
        self.now: Callable[[], float] = now
        self.wall_clock: Callable[[], float] = wall_clock
        self.http2: Http2Limits = Http2Limits() if http2 is None else http2
        self.is_draining = False

    def count(self, status: int, reason: str) -> None:
        """
        Count an exchange that is over, or what takes the place of one.

        Args:
            status: 0 if nothing was answered.
            reason: "" if the app's response went through.
        """
        responses = self._responses
        responses[status] = responses.get(status, 0) + 1
        if reason:
            reasons = self.metrics.reasons
            reasons[reason] = reasons.get(reason, 0) + 1

    def record(self, exchange: Exchange, reason: str, detail: str = "", *, status: int | None = None) -> None:
        """
        Count an exchange that is over, and log it.

        Args:
            exchange: As far as it came.
            reason: Why we ended it, or "" if the app's response went through.
            detail: More about the reason, for operators.
            status: Of our own reply; None: of the app's response, if any.
        """
        if status is None:
            status = exchange.response.status if exchange.response is not None else 0
        now, downstream, endpoint = self.now(), exchange.downstream, exchange.endpoint
        if endpoint is not None:
            endpoint.end()
        self._durations.add(now - exchange.started_at)
        self.count(status, reason)
        if exchange.grpc_status:
            calls = self.metrics.grpc_calls
            calls[exchange.grpc_status] = calls.get(exchange.grpc_status, 0) + 1
        if downstream.principal and (identity := downstream.session.verification.identity) is not None:
            self.metrics.client_request(downstream.principal, identity.not_after, self.wall_clock())
        if self.access_log is not None:
            self.access_log.exchange(
                exchange,
                status,
                reason,
                detail,
                now,
                upstream=endpoint.address if endpoint is not None else "",
                trace_id=exchange.trace_id.decode(),
            )

    def record_tunnel(self, tunnel: Tunnel, reason: str, detail: str) -> None:
        """
        Count a connection in raw TCP mode that is over, and log it.

        Args:
            reason: Why it was cut, or "" if both sides had ended.
            detail: More about the reason, for operators.
        """
        if reason not in ORDERLY_ENDS:
            cut = self.metrics.tunnels_ended
            cut[reason] = cut.get(reason, 0) + 1
        if tunnel.principal and (identity := tunnel.session.verification.identity) is not None:
            self.metrics.client_request(tunnel.principal, identity.not_after, self.wall_clock())
        if self.access_log is not None:
            self.access_log.tunnel(tunnel, reason, detail, self.now() - tunnel.started_at)

    def record_refused(self, downstream: Client, error: RequestError) -> None:
        """Count and log a request whose head was refused."""
        self.metrics.requests += 1
        self.count(error.status, error.reason)
        if self.access_log is not None:
            self.access_log.refused(downstream, error)
