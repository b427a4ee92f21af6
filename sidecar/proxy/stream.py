"""
One stream of an HTTP/2 connection: to its exchange it is what an HTTP/1.1 connection is for one request.

Credit for a request body is given back as its bytes go on towards the app, so that what we hold of it is bounded by the
stream's window. What the client's windows have no room for stays here, at most what the app sent until it was paused.

    OPEN     -- the whole response was taken over ---> SENDING      the exchange is over
    OPEN     -- 101, which the client sees as 200 ---> TUNNEL       the splice takes over
    SENDING  -- the client took the rest ------------> OVER
    any      -- reset by either side, a deadline ----> OVER         the exchange or splice is told
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from sidecar.errors import RequestError, ResponseError
from sidecar.policy import rewrite
from sidecar.policy.authz import Refusal
from sidecar.proxy import replies
from sidecar.proxy.exchange import Downstream, Exchange
from sidecar.proxy.intake import Admitted, AnsweredHere
from sidecar.proxy.proxyheader import proxy_header
from sidecar.proxy.sockets import MIN_PROGRESS_BYTES
from sidecar.proxy.splice import Splice
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import ProxyProtocolOut
from sidecar.wire.events import (
    END,
    BodyKind,
    Data,
    InterimHead,
    RequestEvent,
    RequestHead,
    ResponseEvent,
    ResponseHead,
    Trailers,
)
from sidecar.wire.fields import Fields
from sidecar.wire.h2frames import Code
from sidecar.wire.h2streams import Reset

if TYPE_CHECKING:
    from sidecar.observe.jsonline import Remembered
    from sidecar.proxy.h2downstream import Http2Connection

CUT_CODES: Final = {"downstream_stalled": Code.CANCEL}
"""Codes of RST_STREAM for responses that are cut, by reason; for all others it is INTERNAL_ERROR."""


class StreamExchange(Exchange):
    """An exchange whose response goes out on a stream: heads, bodies and trailers, without any framing of ours."""

    def __init__(self, stream: Stream, head: RequestHead) -> None:
        super().__init__(stream, head)
        self._stream = stream

    @property
    def protocol(self) -> str:
        return "HTTP/2"

    def response_events(self, events: list[ResponseEvent]) -> None:
        stream = self._stream
        head: ResponseHead | None = None
        pieces: list[bytes] = []
        trailers = b""
        ended = False
        for event in events:
            if isinstance(event, Data):
                pieces.append(event.payload)
            elif event is END:
                ended = True
            elif isinstance(event, ResponseHead):
                head = event
            elif isinstance(event, Trailers):
                trailers = rewrite.response_trailer_section(event.fields)
                self.note_grpc_status(event.fields)
            elif isinstance(event, InterimHead):
                stream.send_head(event.status, rewrite.interim_section(event.fields))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_sent += len(data)
        is_tunnel = False
        if head is not None:
            is_tunnel = head.status == 101
            if self.head.upgrade and not is_tunnel and head.status < 300:
                self._refuse_ignored_upgrade(head.status)
                return
            self.note_response(head)
            self.note_grpc_status(head.fields)
            section = rewrite.response_section(head, head.body, 1, True)
            stream.send_head(head.status, section, ends=ended and not data and not trailers and not is_tunnel)
        if data or (ended and (head is None or trailers)):
            stream.send(data, ends=ended and not is_tunnel, trailers=trailers)
        if ended:
            self._end_response()
        else:
            self._wait()

    def whole_response(self, head: ResponseHead, body: bytes) -> None:
        self.response_events([head, Data(body), END])

    def _refuse_ignored_upgrade(self, status: int) -> None:
        """A success would tell the client that its tunnel stands (RFC 8441 section 5)."""
        assert self._upstream is not None
        self._upstream.close()
        text = f"the app answered a WebSocket request with {status}, not with 101"
        self.response_failed(ResponseError("upgrade_ignored", text))


class Stream(Downstream):
    """
    A request of an HTTP/2 client, and what becomes of it.

    Attributes:
        id: Its number.
    """

    __slots__ = (
        "_ahead",
        "_connection",
        "_deadline",
        "_exchange",
        "_is_request_over",
        "_is_stuck",
        "_is_withholding",
        "_owed",
        "_rest",
        "_rest_ends",
        "_rest_trailers",
        "_splice",
        "_taken",
        "_upgraded_by",
        "id",
        "is_over",
    )

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        deadline = connection.lend_deadline(self)
        super().__init__(connection.service, connection.session, connection.peer, connection.principal, deadline.set)
        self.id = stream_id
        self.is_over = False
        self._connection = connection
        self._deadline = deadline
        self._exchange: StreamExchange | None = None
        self._splice: Splice | None = None
        self._upgraded_by: RequestHead | None = None
        self._ahead = b""  # of a tunnel that is not there yet
        self._is_request_over = False
        self._is_withholding = False  # credit for the request's body
        self._owed = 0  # credit that was withheld
        self._is_stuck = False  # the client does not take the response
        self._rest = b""  # of the response, for which the client has no room
        self._rest_ends = False
        self._rest_trailers = b""
        self._taken = 0  # bytes of it that the client has taken since its deadline was set

    @property
    def logged(self) -> Remembered | None:
        """What the access log remembers of the client: the same for all streams of its connection."""
        return self._connection.logged

    @logged.setter
    def logged(self, remembered: Remembered | None) -> None:
        self._connection.logged = remembered

    # -- from the connection --

    def begin(self, head: RequestHead, events: list[RequestEvent]) -> None:
        """A request has come: *events* are all that has arrived of it, its head first."""
        connection, service = self._connection, self.service
        exchange = StreamExchange(self, head)
        service.metrics.requests += 1
        intake = connection.intake
        if intake.forwarding.is_trusted:
            intake.believe(exchange, self.peer.host)
        self._is_request_over = events[-1] is END
        admitted = connection.admitted(head)
        if admitted is None:
            admitted = self._judge(exchange)
            if admitted is None:
                return
        self.principal = admitted.principal
        self._exchange = exchange
        size = 0
        if head.upgrade:
            events = self._hold_back(events)
        elif len(events) > 1 and head.body is not BodyKind.NONE:
            size = _size(events)
        if head.body is not BodyKind.NONE and (error := self._too_large(max(size, head.length))) is not None:
            self.refuse(error)
            return
        exchange.begin(admitted.prefix, events, admitted.trace_id, admitted.destination)
        if exchange.is_connecting:
            self._is_withholding = True
        if size:
            self._give_back(size)

    def receive(self, events: list[RequestEvent]) -> None:
        """More of the request has come."""
        size = _size(events)
        exchange = self._exchange
        self._is_request_over = self._is_request_over or events[-1] is END
        if self._splice is not None:
            self._into_tunnel(events)
        elif exchange is None:
            self._connection.acknowledge(self.id, size)  # it is answered already, and nobody wants the rest
            return
        elif exchange.head.upgrade:
            self._hold_back(events)
            return
        else:
            if (error := self._too_large(exchange.bytes_received + size)) is not None:
                self.refuse(error)
                return
            exchange.request_events(events)
        if size:
            self._give_back(size)

    def refuse(self, error: RequestError) -> None:
        """The request is refused, in its head or in the middle of its body."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self.service.record_refused(self, error)
            self._reply(error.status, error.reason, _sentence(str(error)), None)
            return
        begun = exchange.response is not None
        exchange.cancel(error.reason, status=None if begun else error.status)
        if begun:
            self._cut(Code.CANCEL)
        else:
            self._reply(error.status, error.reason, _sentence(str(error)), exchange)

    def was_reset(self, reset: Reset) -> None:
        """The stream is gone, by the client or since it broke a rule, and nothing can be sent on it any more."""
        is_taken_back = reset.reason == "client_reset"  # by a deadline or a user who has gone on, most often
        self._lose("downstream_reset" if is_taken_back else reset.reason, reset.message)

    def connection_lost(self) -> None:
        """The connection is gone, and the stream with it."""
        self._lose("downstream_lost", "")

    def _lose(self, reason: str, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._end()
        if exchange is not None:
            exchange.downstream_lost(reason, detail)
        self._leave_splice()

    def client_ended(self) -> None:
        """The client's connection brings nothing more: a request that is not whole never will be."""
        if self._is_request_over:
            return
        if self._splice is not None:
            self._splice.downstream_ended(True)
        else:
            self._cut_request()

    def _cut_request(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.downstream_lost()
        self._cut(Code.CANCEL)

    def end(self) -> None:
        """End now: an exchange that has not begun to answer is answered with 503, whatever else there is is cut."""
        if self._exchange is not None:
            self._exchange.drain_timeout_passed()
        elif not self.is_over:
            self.abort()

    def full(self) -> None:
        """The client takes nothing more, on any stream."""
        if not self._is_stuck and not self.is_over:
            self._is_stuck = True
            if self._splice is not None:
                self._splice.downstream_full()
            elif self._exchange is not None:
                self._exchange.downstream_full()

    def writable(self) -> None:
        """The client takes more."""
        if not self._send_rest() or not self._is_stuck:
            return
        self._is_stuck = False
        if self._splice is not None:
            self._splice.downstream_drained()
        elif self._exchange is not None:
            self._exchange.downstream_drained()

    def judge_again(self) -> None:
        """What is known of the client, or what it may do, has changed; a request under way is finished."""
        self.session = self._connection.session
        if self._splice is not None:
            self._end_unwelcome_upgrade()

    # -- deadlines.Waiting --

    def deadline_passed(self) -> None:
        if self._connection.is_full:
            self.wait(self.service.timeouts.body)  # what is to be said about that has one deadline, the connection's
        elif self._is_stuck and self._taken >= min(MIN_PROGRESS_BYTES, len(self._rest)):
            self._taken = 0
            self.wait(self.service.timeouts.body)
        elif self._splice is not None:
            self._splice.deadline_passed()
        elif self._exchange is not None:
            self._exchange.deadline_passed()
        else:
            self._cut(Code.CANCEL)

    def abandon(self) -> None:
        self._connection.abandon()

    # -- from the exchange --

    def pause_reading(self) -> None:
        """Give no credit for now: the client will have sent its window full, and stop."""
        self._is_withholding = True

    def resume_reading(self) -> None:
        self._is_withholding = False
        if self._owed:
            # Not at once: what is held goes on only now, and it may be that the app takes none of it.
            self._connection.at_turn_end(self._give_back_owed)

    def proxy_header(self, version: ProxyProtocolOut) -> bytes:
        """Return the PROXY header by which the app learns of the client; the app is spoken to in HTTP/1.1."""
        return proxy_header(version, self.peer, attrs.evolve(self.session, alpn="http/1.1"))

    def send_head(self, status: int, section: bytes, *, ends: bool = False) -> None:
        """Send the head of a response, or of an interim one; *ends*: there is nothing behind it."""
        self._connection.send_head(self.id, status, section, ends=ends)

    def send(self, data: bytes, *, ends: bool, trailers: bytes = b"") -> None:
        """
        Send some of a response's body.

        Args:
            ends: Whether it is the last of it.
            trailers: Field lines behind the last.
        """
        self._rest += data
        self._rest_ends = ends
        self._rest_trailers = trailers
        if not self._send_rest():
            if not self._is_stuck:
                self._is_stuck = True
                self._taken = 0
            # Each time: when the connection became full, there may have been no app to be paused.
            if self._splice is not None:
                self._splice.downstream_full()
            elif self._exchange is not None:
                self._exchange.downstream_full()

    def exchange_ended(self, exchange: Exchange, *, close: bool) -> None:
        """The whole response is here, if not with the client."""
        self._exchange = None
        self.service.record(exchange, "")
        if self._rest or self._rest_ends:
            self.wait(self.service.timeouts.body)
        else:
            self._end()

    def exchange_refused(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Nothing of a response has been sent: send ours."""
        self._exchange = None
        status, message = replies.REPLIES[reason]
        status = self._reply(status, reason, message, exchange)
        self.service.record(exchange, reason, detail, status=status)

    def exchange_cut(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Part of a response has been sent and the rest will not come: it must not look complete."""
        if exchange.response is None:  # it was held up by other streams' responses, and a reply of ours can wait too
            self.exchange_refused(exchange, reason, detail)
            return
        self._exchange = None
        response = exchange.response
        if response is not None and replies.is_grpc(response.fields) and not (self._rest or self._connection.is_full):
            # A call is whole only with a status: with that of a failure it is none, and its client knows why.
            trailers = replies.grpc_trailers(reason)
            exchange.note_grpc_status(Fields(trailers))
            self.service.record(exchange, reason, detail)
            self._connection.send_trailers(self.id, trailers)
            self._end()
            return
        self.service.record(exchange, reason, detail)
        self._cut(CUT_CODES.get(reason, Code.INTERNAL_ERROR))

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """The app switched protocols: from now on bytes are relayed as they come."""
        self._exchange = None
        self.service.record(exchange, "")
        splice = self._splice = Splice(self, self, upstream, self.service.timeouts)
        ahead, self._ahead = self._ahead, b""
        splice.start(ahead)
        if self._is_request_over:
            splice.downstream_ended(True)
        self._upgraded_by = exchange.head
        self._end_unwelcome_upgrade()

    # -- from the splice: the surface of a connection --

    @property
    def is_flushed(self) -> bool:
        """Whether the client has room for everything written."""
        return not self._rest

    def write(self, data: bytes) -> None:
        """Send bytes of a tunnel."""
        if not self.is_over:
            self.send(data, ends=False)

    def write_last(self, data: bytes) -> None:
        """The same: what ends a stream is in a frame of its own."""
        self.write(data)

    def shut_down_writing(self) -> None:
        """Say that no more will come."""
        if not self.is_over:
            self.send(b"", ends=True)

    def close(self) -> None:
        """End once everything has been sent."""
        self._leave_splice()
        self.shut_down_writing()
        if not (self._rest or self._rest_ends):
            self._cut(Code.NO_ERROR)  # what else the client sends is not looked at

    def linger(self) -> None:
        self.close()

    def abort(self) -> None:
        """Cut the stream."""
        self._leave_splice()
        self._cut(Code.CANCEL)

    # -- inside --

    def _judge(self, exchange: StreamExchange) -> Admitted | None:
        """Find out what becomes of a request; None if it has been answered."""
        connection, head = self._connection, exchange.head
        try:
            connection.check_authority(head)
            verdict = connection.intake.judge(head)
            self.principal = verdict.principal
            if isinstance(verdict, Admitted):
                connection.remember(head, verdict)
                return verdict
            if isinstance(verdict, AnsweredHere):
                self._answer(exchange, verdict)
            else:
                self._turn_away(exchange, verdict.refusal)
        except RequestError as error:
            status = self._reply(error.status, error.reason, _sentence(str(error)), exchange)
            self.service.record(exchange, error.reason, status=status)
        return None

    def _answer(self, exchange: StreamExchange, verdict: AnsweredHere) -> None:
        """Answer a request that goes nowhere."""
        reason, reply = verdict.reply("https" if self.session.version else "http", exchange.head)
        if exchange.head.upgrade and reply.status < 300:
            raise RequestError("upgrade_ignored", "there is no WebSocket to be had here", 501)
        if verdict.answer is None and _is_call(exchange.head):
            reply = replies.grpc_refusal(reply.status, reason, replies.REPLIES[reason][1])
        self._send_reply(reply, exchange)
        detail = verdict.answer.name if verdict.answer is not None else ""
        self.service.record(exchange, reason, detail, status=reply.status)

    def _turn_away(self, exchange: StreamExchange, refusal: Refusal) -> None:
        status = self._reply(refusal.status, refusal.reason, refusal.message, exchange)
        self.service.record(exchange, refusal.reason, refusal.detail, status=status)
        path = exchange.head.target.partition(b"?")[0].decode("ascii")
        self.service.rejecter.request_refused(self.peer.host, self.session, refusal, path)

    def _reply(self, status: int, reason: str, message: str, exchange: Exchange | None) -> int:
        """Answer; return the status, which for gRPC is another. *exchange* is None where the head could not be read."""
        if exchange is not None and _is_call(exchange.head):
            reply = replies.grpc_refusal(status, reason, message)
        else:
            fields = exchange.head.fields if exchange is not None else None
            reply = replies.refusal(status, reason, message, as_json=replies.wants_json(fields))
        self._send_reply(reply, exchange)
        return reply.status

    def _send_reply(self, reply: replies.Reply, exchange: Exchange | None) -> None:
        body = reply.body if exchange is None or exchange.head.method != b"HEAD" else b""
        if exchange is not None:
            exchange.bytes_sent = len(body)
            exchange.note_grpc_status(Fields(reply.fields))
        self.send_head(reply.status, reply.fields, ends=not body)
        if body:
            self.send(body, ends=True)
        if self._rest:
            self.wait(self.service.timeouts.body)
        else:
            self._end()

    def _too_large(self, size: int) -> RequestError | None:
        most = self.service.limits.body_bytes
        if 0 < most < size:
            text = f"the request body is {size:,} bytes or more, limit {most:,}"
            return RequestError("body_too_large", text, 413)
        return None

    def _give_back(self, size: int) -> None:
        """*size* bytes of the request have gone on, unless the exchange holds them."""
        if self._is_withholding:
            self._owed += size
        else:
            self._connection.acknowledge(self.id, size)

    def _give_back_owed(self) -> None:
        if self._owed and not self._is_withholding and not self._ahead:
            owed, self._owed = self._owed, 0
            self._connection.acknowledge(self.id, owed)

    def _hold_back(self, events: list[RequestEvent]) -> list[RequestEvent]:
        """Keep what a client sends into a tunnel that is not there yet, a window full; return the rest of *events*."""
        ahead = b"".join([event.payload for event in events if isinstance(event, Data)])
        self._ahead += ahead
        self._is_withholding = True
        self._owed += len(ahead)
        return [event for event in events if isinstance(event, RequestHead)]

    def _into_tunnel(self, events: list[RequestEvent]) -> None:
        splice = self._splice
        assert splice is not None
        for event in events:
            if isinstance(event, Data):
                splice.from_downstream(event.payload)
            elif event is END:
                splice.downstream_ended(True)

    def _end_unwelcome_upgrade(self) -> None:
        """End a tunnel that would not be made now: trust or rules may have changed meanwhile."""
        assert self._upgraded_by is not None
        try:
            refusal = self._connection.intake.refusal_of(self._upgraded_by)
        except RequestError:  # under other settings, its path has become ambiguous
            self.abort()
            return
        if refusal is not None:
            self.service.rejecter.request_refused(self.peer.host, self.session, refusal)
            self.abort()

    def _send_rest(self) -> bool:
        """Send what there is room for; return whether that was all."""
        rest = self._rest
        if self._connection.is_full and (rest or self._rest_ends):
            return False
        ends, trailers = self._rest_ends, self._rest_trailers
        if rest or (ends and not trailers):
            taken = self._connection.send_data(self.id, rest, ends=ends and not trailers)
            self._taken += taken
            self._rest = rest[taken:]
            if self._rest:
                return False
        if ends:
            if trailers:
                self._connection.send_trailers(self.id, trailers)
            self._rest_ends, self._rest_trailers = False, b""
            if self._exchange is None and self._splice is None:
                self._end()
        return True

    def _leave_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.downstream_lost()

    def _cut(self, code: int) -> None:
        """End the stream without the rest of its response."""
        if not self.is_over:
            self._connection.reset(self.id, code)
            self._end()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.wait = _wait_for_nothing
            self._rest = self._ahead = b""
            if self._upgraded_by is not None:
                self._connection.reset(self.id, Code.NO_ERROR)  # unless the client has ended its side too
            self._connection.stream_ended(self, self._deadline)


def _size(events: list[RequestEvent]) -> int:
    """Return how many bytes of a body are among *events*."""
    return sum([len(event.payload) for event in events if isinstance(event, Data)])


def _is_call(head: RequestHead) -> bool:
    """Whether gRPC is to be answered; not where 200, its status for everything, would say that a tunnel stands."""
    return not head.upgrade and replies.is_grpc(head.fields)


def _wait_for_nothing(timeout_seconds: float) -> None:
    """Stand in for the deadline of a stream that is over: that may be another stream's by now."""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."
