"""
Raw TCP mode: what is inside a client's TLS is passed on byte for byte, and so is what comes back.

Rules that hold here: each side is paused while the other does not take what it sent; the end of what one side sends
goes on to the other, which may still talk; whichever side breaks, the other is cut, so that neither takes what it has
for all there is. Every wait has a deadline: for the connection to the app, for a byte of either side, and, once one
side has ended, for the other.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.python import failure

from sidecar.policy.authz import Admission, Decision, Refusal
from sidecar.proxy.connect import ConnectFailed, Transport
from sidecar.proxy.routing import Endpoint
from sidecar.proxy.service import ORDERLY_ENDS, Service
from sidecar.proxy.sockets import MAX_UPSTREAM_READ_SIZE
from sidecar.settings import ProxyProtocolOut
from sidecar.tls.session import TlsSession

if TYPE_CHECKING:
    from sidecar.proxy.downstream import Peer, SecureTransport
    from sidecar.proxy.intake import Forwarding

MAX_ENDPOINTS_TRIED: Final = 3

LINGER_SECONDS: Final = 2.0
"""How long a client may take to close after both sides have ended."""


class _State(enum.Enum):
    CONNECTING = "connecting"  # to the app; the client is not read from
    ENDED_EARLY = "client ended, connecting"  # what it sent came at once, and then its end
    OPEN = "open"
    CLIENT_ENDED = "client ended"  # the app may still talk
    APP_ENDED = "app ended"  # the client may still talk
    ENDED = "ended"


_OPEN: Final = _State.OPEN


class Tunnel:
    """
    One client's connection in raw TCP mode, and its connection to the app.

    Attributes:
        session: What the handshake agreed on.
        peer: Where the client is.
        principal: Who the client is, for the log; "" if nobody in particular.
        upstream: Where it was connected to; "" before.
        bytes_received, bytes_sent: Of the client's, inside TLS.
        requests: 1; what there is instead of requests.
        started_at: Moment on the clock.
    """

    __slots__ = (
        "_app",
        "_endpoint",
        "_held",
        "_is_app_stuck",
        "_is_client_stuck",
        "_is_recorded",
        "_proxy_header",
        "_service",
        "_state",
        "_tls",
        "_tried",
        "bytes_received",
        "bytes_sent",
        "peer",
        "principal",
        "requests",
        "session",
        "started_at",
        "upstream",
    )

    def __init__(
        self,
        tls: SecureTransport,
        peer: Peer,
        service: Service,
        session: TlsSession,
        *,
        admission: Admission | Decision,
        proxy_header: Callable[[ProxyProtocolOut, Peer, TlsSession], bytes],
    ) -> None:
        self._tls = tls
        self.peer = peer
        self._service = service
        self.session = session
        self.requests = 1
        self.principal = ""
        self.upstream = ""
        self.bytes_received = self.bytes_sent = 0
        self.started_at = service.now()
        self._proxy_header = proxy_header
        self._state = _State.CONNECTING
        self._app: Transport | None = None
        self._endpoint: Endpoint | None = None
        self._tried: tuple[Any, ...] = ()
        self._held = b""  # of the client, until there is a connection
        self._is_client_stuck = self._is_app_stuck = False
        self._is_recorded = False
        refusal = self._admit(admission)
        service.metrics.tunnels += 1
        if refusal is not None:
            self._turn_away(refusal)
        else:
            self.peer.pause_reading()
            self._connect(service.router.cluster.pick())

    # -- from the TLS connection --

    def dataReceived(self, data: bytes) -> None:
        self.bytes_received += len(data)
        app = self._app
        if app is not None:
            app.write(data)
            self._wait()
        elif self._state is _State.CONNECTING:
            self._held += data  # bounded: nothing more is read

    def eofReceived(self, clean: bool) -> None:
        if self._state is _State.CONNECTING and clean:
            self._state = _State.ENDED_EARLY
        elif self._state in (_State.CONNECTING, _State.ENDED):
            self._end("downstream_lost")
        elif not clean:
            # As many clients do that have said all in their own protocol. Only that can tell; so the app hears of it
            # as of any end, and the log as of this one.
            self._end("closed_without_notify")
        elif self._state is _State.APP_ENDED:
            self._end("")
        elif self._state is _State.OPEN:
            self._state = _State.CLIENT_ENDED
            assert self._app is not None
            self._app.shut_down_writing()
            self._wait()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._end("" if self._state is _State.ENDED else "downstream_lost")

    def pauseProducing(self) -> None:
        self._is_client_stuck = True
        if self._app is not None:
            self._app.pauseProducing()
        self._wait()

    def resumeProducing(self) -> None:
        self._is_client_stuck = False
        if self._app is not None:
            self._app.resumeProducing()
        self._wait()

    def deadline_passed(self) -> None:
        if self._state in (_State.CONNECTING, _State.ENDED_EARLY):
            return  # the pool has its own deadline, and calls
        if self._is_client_stuck:
            self._end("downstream_stalled")
        elif self._is_app_stuck:
            if self._app is not None and self._app.has_progressed():
                self._wait()  # it is still taking what it was sent, slowly
            else:
                self._end("upstream_stalled")
        else:
            self._end("idle_timeout" if self._state is _State.OPEN else "half_closed_timeout")

    # -- from the listener --

    @property
    def cluster(self) -> str:
        """Name of the cluster that its bytes go to."""
        return self._service.router.cluster.name

    @property
    def doing(self) -> str:
        """What it is about, in a word for operators."""
        return "tunnel"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost by closing now; nobody can tell."""
        return self._state is _State.ENDED

    def drain(self) -> None:
        """Nothing: only its two ends know when it is over."""

    def end(self) -> None:
        """The process ends, and waited for as long as it may."""
        if self._state is _State.ENDED:
            self._tls.abort()  # it was only to let its client go first
        else:
            self._end("drain_timeout")

    def judge_again(self, session: TlsSession, admission: Admission | Decision, forwarding: Forwarding) -> None:
        """From now on its client is worth what *admission* says: one that may not come in any more is cut."""
        self.session = session
        refusal = self._admit(admission)
        if refusal is not None and self._state is not _State.ENDED:
            self._turn_away(refusal)

    def _admit(self, admission: Admission | Decision) -> Refusal | None:
        # `config.check` sees to it that no rule looks at requests here; one that did would find none to let in.
        decision = admission if isinstance(admission, Decision) else admission.judge(admission.rules.default)
        self.principal = decision.principal
        return decision.refusal

    def _turn_away(self, refusal: Refusal) -> None:
        self._service.rejecter.request_refused(self.peer.host, self.session, refusal)
        self._end(refusal.reason)

    # -- the connection to the app --

    def _connect(self, endpoint: Endpoint | ConnectFailed) -> None:
        if isinstance(endpoint, ConnectFailed):
            self._end(endpoint.reason, str(endpoint))
            return
        self._endpoint = endpoint
        self.upstream = endpoint.address
        endpoint.begin()
        version = self._service.router.cluster.proxy_protocol
        preface = b"" if version is ProxyProtocolOut.OFF else self._proxy_header(version, self.peer, self.session)
        endpoint.pool.connect_raw(_AppSide(self), self._connected, preface)

    def _connected(self, outcome: Transport | ConnectFailed) -> None:
        endpoint = self._endpoint
        if isinstance(outcome, ConnectFailed):
            if endpoint is not None and self._state is not _State.ENDED:
                self._connect_elsewhere(endpoint, outcome)
            return
        if self._state is _State.ENDED or endpoint is None:
            outcome.abortConnection()
            return
        endpoint.succeeded()
        has_client_ended = self._state is _State.ENDED_EARLY
        self._app = outcome
        outcome.read_up_to(MAX_UPSTREAM_READ_SIZE)
        self._state = _State.CLIENT_ENDED if has_client_ended else _State.OPEN
        held, self._held = self._held, b""
        self.peer.resume_reading()
        self._wait()
        if self._is_client_stuck:
            outcome.pauseProducing()
        if held:
            outcome.write(held)
        if has_client_ended:
            outcome.shut_down_writing()

    def _connect_elsewhere(self, failed: Endpoint, why: ConnectFailed) -> None:
        if why.reason != "upstream_overflow":
            failed.failed(why.reason)
        failed.end()
        self._endpoint = None
        self._tried = (*self._tried, failed)
        other = self._service.router.cluster.pick(self._tried) if len(self._tried) < MAX_ENDPOINTS_TRIED else why
        self._connect(why if isinstance(other, ConnectFailed) else other)

    # -- from the app --

    def from_app(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._tls.write(data)
        if not self._is_client_stuck:
            self._wait()

    def app_ended(self) -> None:
        """The app sends no more."""
        if self._state is _State.CLIENT_ENDED:
            self._end("")
        elif self._state is _State.OPEN:
            self._state = _State.APP_ENDED
            self._tls.shut_down_writing()
            self._wait()

    def app_lost(self) -> None:
        """The connection broke: what the client has may not be all there was."""
        self._app = None
        self._end("upstream_reset")

    def app_full(self) -> None:
        self._is_app_stuck = True
        self.peer.pause_reading()
        self._wait()

    def app_drained(self) -> None:
        self._is_app_stuck = False
        self.peer.resume_reading()
        self._wait()

    # -- inside --

    def _wait(self) -> None:
        """Bytes have moved, or a side has ended: wait for the next."""
        timeouts = self._service.timeouts
        # With every piece that is relayed (bench row `tcp-requests`).
        if self._state is _OPEN and not self._is_client_stuck and not self._is_app_stuck:
            self.peer.deadline.set(timeouts.tcp_idle)
        elif self._is_app_stuck and not self._is_client_stuck:
            # Its client is not read from, so nobody would notice that it has left.
            self.peer.deadline.set(timeouts.stream or timeouts.tcp_idle)
        else:
            self.peer.deadline.set(timeouts.body)

    def _end(self, reason: str, detail: str = "") -> None:
        """
        End both sides; the second time nothing happens.

        Args:
            reason: Why we cut it; "" if both sides have ended by themselves.
        """
        if self._is_recorded:
            return
        self._is_recorded = True
        self._state = _State.ENDED
        self._held = b""
        app, self._app = self._app, None
        if app is not None:
            if reason in ORDERLY_ENDS:
                app.loseConnection()
            else:
                app.abortConnection()
        if self._endpoint is not None:
            self._endpoint.end()
        self._service.record_tunnel(self, reason, detail)
        if reason:
            self._tls.abort()
        else:
            self._tls.linger()
            self.peer.deadline.set(LINGER_SECONDS if self._tls.is_flushed else self._service.timeouts.body)


class _AppSide:
    """The other end of a tunnel, as its transport sees it."""

    __slots__ = ("_tunnel", "dataReceived")

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self.dataReceived = tunnel.from_app

    def eofReceived(self) -> None:
        self._tunnel.app_ended()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._tunnel.app_lost()

    def pauseProducing(self) -> None:
        self._tunnel.app_full()

    def resumeProducing(self) -> None:
        self._tunnel.app_drained()
