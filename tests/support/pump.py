"""
Client bytes <-> DownstreamConnection <-> Exchange <-> UpstreamConnection, in memory and in the test's own time.

Only TLS, the sockets and the making of connections are fakes; the deadlines run on a `Clock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
from twisted.internet import error, task

from sidecar.errors import RequestError
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.policy.authz import NO_CERTIFICATE, Admission, Decision, Rule, judge
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.routing import Router
from sidecar.proxy.service import Service
from sidecar.proxy.tunnel import Tunnel
from sidecar.settings import ClientCertMode, HttpSettings, Limits, Timeouts
from sidecar.tls.session import TlsSession
from sidecar.tls.verify import NO_CERTIFICATE as NONE_SHOWN

from .ports import (
    FakeCluster,
    FakePeer,
    FakePool,
    RecordingSecureTransport,
    RecordingTransport,
    make_failure,
    transport_of,
)

SESSION = TlsSession(
    version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    group="X25519",
    alpn="http/1.1",
    server_name="localhost",
    resumed=False,
    verification=NONE_SHOWN,
)

FORWARDED = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
FORWARDING = Forwarding(FORWARDED, FORWARDED)


ADMITTED = judge(Rule(name="default", mode=ClientCertMode.NONE), NO_CERTIFICATE)


@attrs.frozen
class Ended:
    """One exchange or refused head, as it was recorded."""

    status: int
    reason: str
    detail: str


class RecordedLog:
    """Stands for the access log; keeps what the exchanges came to."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.exchanges: list[Exchange] = []
        self.tunnels: list[Tunnel] = []

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
    ) -> None:
        assert now >= exchange.started_at
        assert exchange not in self.exchanges, "an exchange is recorded once"
        self.exchanges.append(exchange)
        self.ended.append(Ended(status, reason, detail))

    def tunnel(self, tunnel: Tunnel, reason: str, detail: str, duration: float) -> None:
        assert duration >= 0
        assert tunnel not in self.tunnels, "a connection is recorded once"
        self.tunnels.append(tunnel)
        self.ended.append(Ended(0, reason, detail))

    def refused(self, downstream: DownstreamConnection, refusal: RequestError) -> None:
        self.ended.append(Ended(refusal.status, refusal.reason, str(refusal)))


def make_service(
    clock: task.Clock,
    pool: Any = None,  # Any: a Pool, or a fake of one
    *,
    router: Router | None = None,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    http: HttpSettings | None = None,
    access_log: Any = None,  # Any: an AccessLog, or a fake of one
) -> Service:
    """Make what connections share; every part that is not given is a fake."""
    metrics = Metrics()
    if router is None:
        router = Router.to(FakeCluster(pool if pool is not None else FakePool(clock)), timeouts or Timeouts())
    return Service(
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
        http=http or HttpSettings(),
        router=router,
        metrics=metrics,
        rejecter=Rejecter(metrics, clock.seconds),
        access_log=cast(AccessLog, access_log if access_log is not None else RecordedLog()),
        now=clock.seconds,
    )


class Pump:
    """
    One client and its app.

    Attributes:
        clock: All time there is.
        tls: What the client sees of its connection; `tls.sent` is what it has received.
        log: How the exchanges ended.
        cluster: The app.
        pools: Connections to each of its endpoints.
        pool: Those to the first; `pool.accept()` lets one be made.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        http: HttpSettings | None = None,
        admission: Admission | Decision = ADMITTED,
        forwarding: Forwarding = FORWARDING,
        pools: int = 1,
    ) -> None:
        self.clock = task.Clock()
        self.deadlines = Deadlines(self.clock)
        self.tls = RecordingSecureTransport()
        self.log = RecordedLog()
        self.pools = [FakePool(self.clock, limits or Limits()) for _ in range(pools)]
        self.pool = self.pools[0]
        self.cluster = FakeCluster(*self.pools)
        self.service = make_service(
            self.clock,
            router=Router.to(self.cluster, timeouts or Timeouts()),
            timeouts=timeouts,
            limits=limits,
            http=http,
            access_log=self.log,
        )
        self.peer = FakePeer(self, self.deadlines)
        self._admission, self._forwarding = admission, forwarding
        self.downstream = self.make_downstream(forwarding, admission)
        self.tls.owner = self.downstream
        self._is_lost = False

    def make_downstream(self, forwarding: Forwarding, admission: Admission | Decision) -> Any:
        """Return what is tested: a `DownstreamConnection`, or in pumps for other protocols another of its kind."""
        return DownstreamConnection(
            self.tls, self.peer, self.service, SESSION, forwarding=forwarding, admission=admission
        )

    def judge_again(self, admission: Admission | Decision | None = None, forwarding: Forwarding | None = None) -> None:
        """Let what is known of the client have changed; None: that has not."""
        self._admission = self._admission if admission is None else admission
        self._forwarding = self._forwarding if forwarding is None else forwarding
        self.downstream.judge_again(self.downstream.session, self._admission, self._forwarding)

    # -- the client --

    def client_sends(self, data: bytes) -> None:
        assert self.peer.is_reading, "the client was asked for silence"
        if not self.tls.ending:
            self.downstream.dataReceived(data)
        self.settle()

    def client_half_closes(self) -> None:
        """The client says that it sends no more (close_notify)."""
        self._tell(lambda: self.downstream.eofReceived(True))

    def client_cuts(self) -> None:
        """The client's side just ends (FIN without close_notify)."""
        self._tell(lambda: self.downstream.eofReceived(False))

    def client_vanishes(self) -> None:
        """The connection breaks."""
        self.tls.abort()
        self.settle()

    def received(self) -> bytes:
        """Return what the client got since the last call."""
        data, self.tls.sent = self.tls.sent, b""
        return data

    # -- the app --

    @property
    def app(self) -> RecordingTransport:
        """The newest connection to the app."""
        return transport_of(self.pool.opened[-1])

    def app_receives(self) -> bytes:
        """Return what the app got on its newest connection since the last call."""
        data, self.app.sent = self.app.sent, b""
        return data

    def app_sends(self, data: bytes) -> None:
        self.app.deliver(data)
        self.settle()

    def app_closes(self) -> None:
        self.app.deliver_eof()
        self.settle()

    def app_resets(self) -> None:
        self.app.reset()
        self.settle()

    # -- time --

    def settle(self) -> None:
        """Run what was put off to the next turn, and tell a connection that was aborted of its end."""
        self.clock.advance(0)
        if self.tls.ending == "abort" and not self._is_lost:
            self._is_lost = True
            self.peer.deadline.end()
            self.downstream.connectionLost(make_failure(error.ConnectionAborted()))
            self.clock.advance(0)
        if self.downstream.doing != "request":
            assert not any(endpoint.active for endpoint in self.cluster.endpoints), "a request is counted that is over"

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    def deadline_passed(self) -> None:
        """As `TlsServer` hands it on: to the application while the connection is open, else it aborts."""
        if self.tls.ending:
            self.tls.abort()
        else:
            self.downstream.deadline_passed()

    def abandon(self) -> None:
        raise AssertionError("a deadline failed")

    # -- ready-made --

    @property
    def last(self) -> Ended:
        return self.log.ended[-1]

    def start_exchange(self, request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> None:
        """Send *request* and let the connection to the app be made."""
        self.client_sends(request)
        self.pool.accept()
        self.settle()

    def reuse_connection(self) -> None:
        """Run one whole exchange, so that the next finds a kept connection."""
        self.start_exchange()
        self.app_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.received()
        self.app_receives()
        assert len(self.pool.idle) == 1

    def _tell(self, event: Callable[[], None]) -> None:
        if not self.tls.ending:
            event()
        self.settle()
