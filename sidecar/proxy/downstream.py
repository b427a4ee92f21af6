"""
One client's connection after its handshake: requests in turn, one exchange each.

What it waits for between and inside requests is named by the exchange, or else by the codec: the first byte of a
request (idle timeout) or the rest of its head (header timeout).
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.python import failure

from sidecar.errors import RequestError
from sidecar.observe.jsonline import Remembered
from sidecar.policy.authz import Admission, Decision, Refusal
from sidecar.proxy import replies
from sidecar.proxy.deadlines import Deadline
from sidecar.proxy.exchange import Downstream, Exchange
from sidecar.proxy.intake import Admitted, AnsweredHere, Forwarding, Intake, TurnedAway
from sidecar.proxy.proxyheader import proxy_header
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import MAX_READ_SIZE
from sidecar.proxy.splice import Splice
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import HostPort, ProxyProtocolOut
from sidecar.tls.session import TlsSession
from sidecar.wire.events import Data, RequestEvent, RequestHead
from sidecar.wire.http1 import ServerCodec, State
from sidecar.wire.proxyproto import ProxyHeader

_COMPLETE: Final = State.COMPLETE

DRAIN_IDLE_SECONDS: Final = 0.5
"""How long an idle connection is kept for a last request when the process is to end."""

UNVERIFIED_IDLE_SECONDS: Final = 5.0
"""How long a client whose certificate is not accepted may take to its first request."""

LINGER_SECONDS: Final = 2.0
"""How long a client that is still sending may take to read our last answer."""


class SecureTransport(Protocol):
    """The TLS connection below, as `tls.server.TlsServer` gives it."""

    @property
    def is_flushed(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def write_last(self, data: bytes) -> None: ...
    def shut_down_writing(self) -> None: ...
    def close(self) -> None: ...
    def linger(self) -> None: ...
    def abort(self) -> None: ...


class Peer(Protocol):
    """What the connection needs of its socket and its place in the listener."""

    host: str
    remote: HostPort
    local: HostPort
    via: HostPort | None
    proxied: ProxyHeader | None
    deadline: Deadline

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def read_up_to(self, size: int) -> None:
        """Read about so much at once while it flows, if that is more than usual."""


class DownstreamConnection(Downstream):
    """
    HTTP/1.1 with one client.

    Attributes:
        requests: Begun on it.
    """

    __slots__ = (
        "_admitted",
        "_codec",
        "_exchange",
        "_intake",
        "_is_half_closed",
        "_is_reading_paused",
        "_is_stuck",
        "_last_head",
        "_logged",
        "_requests_left",
        "_splice",
        "_tls",
        "_upgraded_by",
        "_was_begun",
        "requests",
    )

    def __init__(
        self,
        tls: SecureTransport,
        peer: Peer,
        service: Service,
        session: TlsSession,
        *,
        forwarding: Forwarding,
        admission: Admission | Decision,
    ) -> None:
        """
        Args:
            admission: What is decided about all its requests, or who decides about each.
        """
        intake = Intake(service, forwarding, admission)
        super().__init__(service, session, peer, intake.principal, peer.deadline.set)
        self.is_closing = service.is_draining
        self.requests = 0
        self._tls = tls
        self._intake = intake
        self._logged: Remembered | None = None
        limits = service.limits
        self._codec = ServerCodec(limits.header_bytes, limits.headers, limits.body_bytes)
        self._requests_left = limits.requests_per_connection  # never reaches 0 where that is off
        self._exchange: Exchange | None = None
        self._splice: Splice | None = None
        self._is_reading_paused = False
        self._is_half_closed = False
        self._is_stuck = False  # between two exchanges: the client has not taken the last response
        self._was_begun = False  # whether the deadline is that of a head, of which some has arrived
        self._upgraded_by: RequestHead | None = None
        self._last_head: RequestHead | None = None  # of the last request that was let in, and what was found about it
        self._admitted: Admitted | None = None
        timeout = LINGER_SECONDS if service.is_draining else service.timeouts.idle
        if session.verification.reason is not None:
            # Its certificate, of up to 32 KiB, is kept by OpenSSL for as long as it is connected.
            timeout = min(timeout, UNVERIFIED_IDLE_SECONDS)
        self.wait(timeout)

    # -- from the TLS connection --

    def dataReceived(self, data: bytes) -> None:
        if self._splice is not None:
            self._splice.from_downstream(data)
            return
        try:
            events = self._codec.receive(data)
        except RequestError as error:
            self._refuse_request(error)
            return
        if events:
            self._take(events)
        elif self._codec.state is _COMPLETE:
            # A pipelined request: it waits for its turn, and its sender with it.
            self.pause_reading()
        elif not self._was_begun:
            self._expect_rest()

    def _expect_rest(self) -> None:
        """Give a head that has begun to arrive, if one has, its time."""
        if self._codec.state is State.HEAD and not self._codec.is_idle:
            self._was_begun = True
            self.wait(self.service.timeouts.header)

    def eofReceived(self, clean: bool) -> None:
        if self._splice is not None:
            self._splice.downstream_ended(clean)
        elif self._exchange is None:
            self._tls.close()
        elif clean and self._codec.is_complete:
            # Half-closed after whole requests: the client may still read their answers; the last is the end.
            self._is_half_closed = True
            self.is_closing = self.is_closing or not self._codec.has_pipelined
        else:
            self._tls.abort()

    def connectionLost(self, reason: failure.Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.downstream_lost()
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.downstream_lost()

    def pauseProducing(self) -> None:
        if self._splice is not None:
            self._splice.downstream_full()
        elif self._exchange is not None:
            self._exchange.downstream_full()

    def resumeProducing(self) -> None:
        if self._splice is not None:
            self._splice.downstream_drained()
        elif self._exchange is not None:
            self._exchange.downstream_drained()
        elif self._is_stuck:
            self._is_stuck = False
            self._go_on()

    def deadline_passed(self) -> None:
        if self._splice is not None:
            self._splice.deadline_passed()
        elif self._exchange is not None:
            self._exchange.deadline_passed()
        elif self._is_stuck:
            self._tls.abort()
        elif self._codec.is_idle:
            self._tls.close()
        else:
            status, message = replies.REPLIES["header_timeout"]
            self._refuse_request(RequestError("header_timeout", message, status))

    # -- from the listener --

    def drain(self) -> None:
        """
        Answer what is in flight with «Connection: close», then close.

        An idle connection stays for a moment, and so does one whose response had begun without saying that it is the
        last: a request may be on its way, and a client that sends one after the other learns from its answer that this
        is the end.
        """
        self.is_closing = True
        if self.is_idle and self._codec.is_idle:
            self.wait(DRAIN_IDLE_SECONDS)

    def judge_again(self, session: TlsSession, admission: Admission | Decision, forwarding: Forwarding) -> None:
        """
        From now on its client is worth what *admission* says; a request under way is finished.

        An upgraded connection ends at once if its client may not come in any more: it will send no further request.
        """
        self.session = session
        self._intake = Intake(self.service, forwarding, admission)
        self.principal = self._intake.principal
        self._admitted = None
        if self._splice is not None:
            self._end_unwelcome_upgrade()

    def _end_unwelcome_upgrade(self) -> None:
        """End an upgraded connection that would not be upgraded now."""
        assert self._upgraded_by is not None
        try:
            refusal = self._intake.refusal_of(self._upgraded_by)
        except RequestError:  # under other settings, its path has become ambiguous
            self._tls.abort()
            return
        if refusal is not None:
            self.service.rejecter.request_refused(self.peer.host, self.session, refusal)
            self._tls.abort()

    def proxy_header(self, version: ProxyProtocolOut) -> bytes:
        """Return the PROXY header by which the app learns of the client, as the first bytes of a connection to it."""
        return proxy_header(version, self.peer, self.session)

    @property
    def _scheme(self) -> str:
        return "https" if self.session.version else "http"

    @property
    def doing(self) -> str:
        """What it is about, in a word for operators."""
        if self._splice is not None:
            return "upgraded"
        if self._exchange is not None:
            return "request"
        return "closing" if self.is_closing else "idle"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost by closing now."""
        return self._exchange is None and self._splice is None and not self._is_stuck

    def end(self) -> None:
        """End now: an exchange that has not begun to answer is answered with 503, whatever else there is is cut."""
        if self._exchange is not None:
            self._exchange.drain_timeout_passed()
        else:
            self._tls.abort()

    # -- from the exchange --

    @property
    def logged(self) -> Remembered | None:
        return self._logged

    @logged.setter
    def logged(self, remembered: Remembered | None) -> None:
        self._logged = remembered

    def write(self, data: bytes) -> None:
        self._tls.write(data)

    def write_last(self, data: bytes) -> None:
        self._tls.write_last(data)

    def pause_reading(self) -> None:
        """Take nothing more from the client for now."""
        self._is_reading_paused = True
        self.peer.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless a pipelined request is already waiting."""
        if self._is_reading_paused and not self._codec.has_pipelined:
            self._is_reading_paused = False
            self.peer.resume_reading()

    def exchange_ended(self, exchange: Exchange, *, close: bool) -> None:
        """The whole response has been sent."""
        self._exchange = None
        self.service.record(exchange, "")
        if close or self._codec.state is not _COMPLETE:
            self._finish()
        elif exchange.is_response_stuck:
            self._wait_until_taken()
        elif self._is_half_closed:
            self._go_on()
        else:
            self._next()

    def exchange_refused(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Nothing of a response has been sent: send ours, and close."""
        self._exchange = None
        status, message = replies.REPLIES[reason]
        self._reply(status, reason, message, exchange)
        self.service.record(exchange, reason, detail, status=status)

    def exchange_cut(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Part of a response has been sent and the rest will not come: it must not look complete."""
        self._exchange = None
        self.service.record(exchange, reason, detail)
        self._tls.abort()

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """The app switched protocols: from now on bytes are relayed as they come."""
        self._exchange = None
        self.service.record(exchange, "")
        splice = self._splice = Splice(self, self._tls, upstream, self.service.timeouts)
        splice.start(self._codec.upgrade())
        if self._is_half_closed:
            splice.downstream_ended(True)
        # The app may have taken its time, and trust or rules may have changed meanwhile.
        self._upgraded_by = exchange.head
        self._end_unwelcome_upgrade()

    # -- inside --

    def _take(self, events: list[RequestEvent]) -> None:
        if self._exchange is not None:
            self._exchange.request_events(events)
            first = events[0]
            self._choose_read_size(len(first.payload) if isinstance(first, Data) else 0)
        elif isinstance(events[0], RequestHead):  # else the rest of a request that was answered already
            self._begin(events[0], events)

    def _choose_read_size(self, got: int) -> None:
        """
        Have more read at once of a body whose length is known: nothing in it is parsed (bench row `upload`).

        But nothing behind it, and no more than twice what the last piece held: tiny TLS records cost much to open.
        """
        self.peer.read_up_to(min(2 * got, self._codec.awaited_bytes, MAX_READ_SIZE))

    def _begin(self, head: RequestHead, events: list[RequestEvent]) -> None:
        self._was_begun = False
        service = self.service
        exchange = Exchange(self, head)
        service.metrics.requests += 1
        self.requests += 1
        self._requests_left -= 1
        if not self._requests_left:
            self.is_closing = True
        intake = self._intake
        if intake.forwarding.is_trusted:
            intake.believe(exchange, self.peer.host)
        admitted = self._admitted
        if admitted is None or self._last_head is not head or admitted.router is not service.router:
            admitted = self._judge(exchange)
            if admitted is None:
                return
        self.principal = admitted.principal  # the request before may have been judged by another rule
        self._exchange = exchange
        exchange.begin(admitted.prefix, events, admitted.trace_id, admitted.destination)

    def _judge(self, exchange: Exchange) -> Admitted | None:
        """Find out what becomes of a request; None if it has been answered."""
        self._admitted = None
        self.principal = self._intake.principal
        try:
            verdict = self._intake.judge(exchange.head)
            self.principal = verdict.principal
            if isinstance(verdict, Admitted):
                self._last_head, self._admitted = exchange.head, verdict
                return verdict
            if isinstance(verdict, TurnedAway):
                self._refuse(exchange, verdict.refusal)
            else:
                self._answer(exchange, verdict)
        except RequestError as error:
            self._reply(error.status, error.reason, _sentence(str(error)), exchange)
            self.service.record(exchange, error.reason, status=error.status)
        return None

    def _answer(self, exchange: Exchange, verdict: AnsweredHere) -> None:
        """Answer a request that goes nowhere; the connection goes on if nothing else is under way on it."""
        outcome = verdict.answer
        head, codec = exchange.head, self._codec
        goes_on = codec.is_complete and not codec.has_pipelined and head.keep_alive and head.minor_version == 1
        keep_alive = goes_on and not self.is_closing and outcome is not None
        reason, reply = verdict.reply(self._scheme, head)
        self._send(reply, exchange, keep_alive=keep_alive)
        self.service.record(exchange, reason, outcome.name if outcome is not None else "", status=reply.status)
        if not keep_alive:
            self._finish()
        elif not self._tls.is_flushed:
            self._wait_until_taken()
        else:
            self._go_on()

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._reply(refusal.status, refusal.reason, refusal.message, exchange)
        self.service.record(exchange, refusal.reason, refusal.detail, status=refusal.status)
        path = exchange.head.target.partition(b"?")[0].decode("ascii")
        self.service.rejecter.request_refused(self.peer.host, self.session, refusal, path)

    def _wait_until_taken(self) -> None:
        """The client has not taken its answer, behind which the next would queue up, without a bound."""
        self._is_stuck = True
        self.pause_reading()
        self.wait(self.service.timeouts.body)

    def _go_on(self) -> None:
        """What was sent did not say that it is the last."""
        if self._is_half_closed and not self._codec.has_pipelined:
            self._finish()
        else:
            self._next()

    def _next(self) -> None:
        """Go on with the next request: what of it has arrived already, or wait for its first byte."""
        self.wait(DRAIN_IDLE_SECONDS if self.is_closing else self.service.timeouts.idle)
        codec = self._codec
        try:
            events = codec.next_request()
        except RequestError as error:
            self._refuse_request(error)
            return
        if self._is_half_closed:
            if not codec.is_complete:
                self._tls.close()  # the rest of this request will never come
                return
            self.is_closing = self.is_closing or not codec.has_pipelined
        if self._is_reading_paused:
            self.resume_reading()  # before the exchange begins: it may pause reading again
        if events:
            self._take(events)
        else:
            self._expect_rest()

    def _refuse_request(self, error: RequestError) -> None:
        """The client broke a rule, in its head or in the middle of its body."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self.service.record_refused(self, error)
        else:
            begun = exchange.response is not None
            exchange.cancel(error.reason, status=None if begun else error.status)
            if begun:
                self._tls.abort()
                return
        self._reply(error.status, error.reason, _sentence(str(error)), exchange)

    def _reply(self, status: int, reason: str, message: str, exchange: Exchange | None) -> None:
        """Answer, and close; *exchange* is None where the head could not be read."""
        as_json = replies.wants_json(exchange.head.fields if exchange is not None else None)
        self._send(replies.refusal(status, reason, message, as_json=as_json), exchange, keep_alive=False)
        self._finish()

    def _send(self, reply: replies.Reply, exchange: Exchange | None, *, keep_alive: bool) -> None:
        with_body = exchange is None or exchange.head.method != b"HEAD"
        data = reply.http1(keep_alive=keep_alive, with_body=with_body)
        if keep_alive:
            self.write(data)
        else:
            self.write_last(data)
        if exchange is not None and with_body:
            exchange.bytes_sent = len(reply.body)

    def _finish(self) -> None:
        """Close; a client that may still be sending gets time to read what it was told."""
        if self._codec.is_complete and not self._codec.has_pipelined:
            self._tls.close()
        else:
            self._tls.linger()
        self.wait(LINGER_SECONDS if self._tls.is_flushed else self.service.timeouts.body)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."
