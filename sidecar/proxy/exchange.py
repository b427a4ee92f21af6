"""
One request to its response, across both sides.

Rules that hold here: what arrives is sent on in the same turn or its sender is paused; a response that was begun ends
as the app ended it or the client's connection is aborted; whichever side fails, the other is told once.

    CONNECTING -- connection ready ---------> WAITING
    CONNECTING -- no connection ------------> CONNECTING     to another endpoint, if there is one
    WAITING    -- head of final response ---> STREAMING      early too, while the request is still arriving
    WAITING    -- reused connection lost ---> CONNECTING     once, if the request can be repeated
    STREAMING  -- end of response ----------> ENDED
    STREAMING  -- 101 ----------------------> ENDED          the splice takes over
    any        -- failure, deadline, loss --> ENDED          after our own reply, or an abort
"""

from __future__ import annotations

import enum
import itertools
import os
from binascii import hexlify
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from sidecar.errors import RequestError, ResponseError
from sidecar.policy import rewrite, tracing
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.routing import Destination, Endpoint
from sidecar.proxy.sockets import MAX_READ_SIZE, MAX_UPSTREAM_READ_SIZE, READ_SIZE
from sidecar.proxy.upstream import Lessee, Upstream, UpstreamConnection
from sidecar.settings import HttpSettings, ProxyProtocolOut, Switch, UnderscoreHeaders
from sidecar.wire import http1
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
from sidecar.wire.framing import last_chunk
from sidecar.wire.target import canonical, origin_form

if TYPE_CHECKING:
    from sidecar.observe.jsonline import Remembered
    from sidecar.proxy.downstream import Peer
    from sidecar.proxy.service import Service
    from sidecar.tls.session import TlsSession

_SAFE_TO_REPEAT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""Idempotent methods (RFC 9110 section 9.2.2) less TRACE, which is never forwarded."""

MAX_REPEATED_BYTES: Final = 64 * 1024
"""Requests that are longer are not kept to be sent again."""

_IDS_AT_ONCE: Final = 256
"""Request ids that are made together, which takes a fifth of what it takes one by one."""

MAX_ENDPOINTS_TRIED: Final = 3
"""Endpoints that are connected to for one request."""

_FAILURES: Final = frozenset({502, 503, 504})
"""Answers that speak against an endpoint."""

_FAULTS_OF_ENDPOINTS: Final = frozenset(
    {
        "upstream_invalid_response",
        "upstream_not_http1",
        "upstream_reset",
        "upstream_stalled",
        "upstream_timeout",
        "upstream_tls_failed",
    }
)
"""Reasons of ours that do, beside connections that could not be made."""


class _State(enum.Enum):
    CONNECTING = "connecting"
    WAITING = "waiting"
    STREAMING = "streaming"
    ENDED = "ended"


_CONNECTING: Final = _State.CONNECTING
_WAITING: Final = _State.WAITING
_STREAMING: Final = _State.STREAMING
_ENDED: Final = _State.ENDED
_NO_PREFACE: Final = ProxyProtocolOut.OFF
_NO_BODY: Final = BodyKind.NONE
_CHUNKED: Final = BodyKind.CHUNKED
_UNTIL_CLOSE: Final = BodyKind.UNTIL_CLOSE


def _some_request_ids() -> list[bytes]:
    digits = hexlify(os.urandom(16 * _IDS_AT_ONCE))
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


_request_ids: Final = itertools.chain.from_iterable(iter(_some_request_ids, None))
"""Each 32 random hexadecimal digits. They name a request in logs; nothing secret hangs on them."""


def request_prefix(
    head: RequestHead, forwarding: bytes, http: HttpSettings, trace_id: bytes, destination: Destination, says_host: bool
) -> bytes:
    """
    Return the head for the app, less the request id, the trace if we start one, and the empty line; depends on nothing
    else.

    Args:
        forwarding: Lines about the client.
        trace_id: Of the trace that goes on; b"": the client's, if it names one, does not.
        says_host: Whether X-Forwarded-Host is in *forwarding*.

    Raises:
        RequestError: It is refused by *http*, or the path to be rewritten can be read in different ways.
    """
    if http.underscore_headers is UnderscoreHeaders.REJECT and (name := rewrite.underscored_name(head)):
        shown = name[:40].decode("ascii")
        raise RequestError("underscore_in_name", f"the field name {shown!r} has an underscore, which is refused here")
    target = origin_form(head.method, head.target)
    if destination.rewriting is not None:
        target = destination.rewritten(head.target)
    elif http.normalize_path is Switch.ON:
        target = canonical(target)
    dropped = tracing.dropped_trace_fields(head, trace_id)
    section = rewrite.request_section(head, forwarding, http.underscore_headers, dropped, destination.host, says_host)
    return b"%b %b HTTP/1.1\r\n%b" % (head.method, target, section)


class Client(Protocol):
    """
    Who sends requests: a connection or a stream of one.

    Attributes:
        principal: Who it is, for the log; "" if nobody in particular.
        logged: What the access log remembers of it; None at first.
    """

    principal: str
    logged: Remembered | None

    @property
    def service(self) -> Service: ...
    @property
    def session(self) -> TlsSession: ...
    @property
    def peer(self) -> Peer: ...


class Downstream:
    """
    Whom an exchange answers; a `Client`.

    Attributes:
        service: What all connections share.
        session: What the handshake agreed on.
        peer: Where the client is.
        principal: Who the client is, for the log; "" if nobody in particular.
        is_closing: Whether the response is to be the last one.
        wait: Sets its one deadline, so many seconds from now; 0 means never.
    """

    # No protocol, which mypyc would look up by name each time (bench row `requests`).
    __slots__ = ("is_closing", "peer", "principal", "service", "session", "wait")

    def __init__(
        self, service: Service, session: TlsSession, peer: Peer, principal: str, wait: Callable[[float], None]
    ) -> None:
        self.service = service
        self.session = session
        self.peer = peer
        self.principal = principal
        self.wait = wait
        self.is_closing = False

    @property
    def logged(self) -> Remembered | None:
        """What the access log remembers of the client; None at first."""
        raise NotImplementedError

    @logged.setter
    def logged(self, remembered: Remembered | None) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""
        raise NotImplementedError

    def write_last(self, data: bytes) -> None:
        """Send the end of the last response; `exchange_ended` follows at once, and closes."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Take nothing more from the client for now."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def proxy_header(self, version: ProxyProtocolOut) -> bytes:
        """Return the PROXY header by which the app learns of the client, as the first bytes of a connection to it."""
        raise NotImplementedError

    def exchange_ended(self, exchange: Exchange, *, close: bool) -> None:
        """The whole response has been sent."""
        raise NotImplementedError

    def exchange_refused(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Nothing of a response has been sent, and none will come from the app."""
        raise NotImplementedError

    def exchange_cut(self, exchange: Exchange, reason: str, detail: str) -> None:
        """Part of a response has been sent and the rest will not come."""
        raise NotImplementedError

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """The app switched protocols: from now on bytes are relayed as they come."""
        raise NotImplementedError


class Exchange(Lessee):
    """
    One request and its response.

    Attributes:
        downstream: Whose request it is.
        head: The request.
        request_id: What X-Request-Id names it.
        is_named_by_us: Whether we have made that up.
        trace_id: Of the trace that the app is told; b"" before it is sent on.
        client: Address of the client, if another one than our peer; "" if not.
        destination: Where it goes; None before that is known.
        endpoint: The one that it was sent to; None before.
        response: Head of the app's final response; None before it came.
        grpc_status: How a gRPC call ended, by its number; "" for anything else, and for a call that was cut.
        bytes_sent: Body bytes sent to the client.
        bytes_received: Body bytes received from the client.
        started_at, first_byte_at: Moments on the clock; `first_byte_at` is None before the response head.
        is_response_stuck: Whether the client has not taken what it was sent.
    """

    # Defaults on the class, not slots: most exchanges change few of them, and making one is on the path of every
    # request (bench row `requests`).
    response: ResponseHead | None = None
    is_named_by_us = True
    trace_id = b""
    client = ""
    destination: Destination | None = None
    grpc_status = ""
    bytes_sent = 0
    bytes_received = 0
    first_byte_at: float | None = None
    is_response_stuck = False
    _state: _State = _CONNECTING
    _kind: BodyKind = _NO_BODY  # framing towards the client
    _framing: BodyKind = _NO_BODY  # towards the app
    _close_after = False
    _held: bytes = b""  # of the request, until there is a connection
    _sent: bytes = b""  # of the request, for as long as it may have to be sent again
    _request_complete = False
    _trailers = b""  # of the request, where its framing has no place for them
    _request_stuck = False
    _is_reused = False  # the connection to the app
    _is_repeated = False
    _is_for_stream = False  # what of the request is held
    _preface = b""
    _reads_more = False  # from the app
    _tried: tuple[Any, ...] = ()  # endpoints that could not be connected to

    def __init__(self, downstream: Downstream, head: RequestHead) -> None:
        self.downstream: Downstream = downstream
        self.head: RequestHead = head
        self.request_id: bytes = next(_request_ids)
        self.started_at = downstream.service.now()
        # Here, since mypyc leaves out a class's None for what is a Protocol.
        self.endpoint: Endpoint | None = None
        self._upstream: Upstream | None = None

    # -- the request --

    def begin(self, prefix: bytes, events: list[RequestEvent], trace_id: bytes, destination: Destination) -> None:
        """
        Send the request on.

        Args:
            prefix: Its head for the app, as `request_prefix` makes it.
            events: All that has arrived of it.
            trace_id: Of the trace that goes on; b"": a new one is started.
        """
        self.destination = destination
        cluster = destination.cluster
        if trace_id:
            self.trace_id = trace_id
            self._held = prefix + rewrite.request_id_line(self.request_id) + b"\r\n"
        else:
            # One name finds both, unless a trusted proxy has given the request a name that is no trace-id.
            self.trace_id = trace_id = self.request_id if self.is_named_by_us else next(_request_ids)
            self._held = prefix + tracing.naming_lines(self.request_id, trace_id) + b"\r\n"
        if cluster.is_multiplexed:
            self._is_for_stream = True
        if self.head.body is _NO_BODY:
            self._request_complete = True
            self.downstream.wait(destination.timeouts.upstream)
        else:
            self._framing = BodyKind.LENGTH if self._is_for_stream else self.head.body
            self._held += self._serialise(events)
            self._wait()
        endpoint = cluster.pick()
        if isinstance(endpoint, ConnectFailed):
            self._fail(endpoint.reason, detail=str(endpoint))
            return
        self.endpoint = endpoint
        endpoint.begin()
        if cluster.proxy_protocol is not _NO_PREFACE:
            self._preface = self.downstream.proxy_header(cluster.proxy_protocol)
            upstream = endpoint.pool.take(self._preface)
        else:
            upstream = endpoint.pool.take()
        if upstream is None:
            self._connect()
        else:
            self._send_on(upstream, is_reused=True)

    def request_events(self, events: list[RequestEvent]) -> None:
        """More of the request has arrived."""
        if self._state is _ENDED:
            return  # answered already: the rest is read and dropped
        data = self._serialise(events)
        if self._upstream is None:
            self._held += data
            self.downstream.pause_reading()
            return
        if self._sent:
            self._remember(self._sent + data)
        self._upstream.send(data, self._request_complete, self._trailers)
        if self._request_complete:
            self._app_progressed()  # from here on, see `deadline_passed`
        self._wait()

    def _remember(self, sent: bytes) -> None:
        """
        Keep *sent*, all that was sent of the request, if it may be sent again on another connection.

        On a stream anything may have to be: an app that ends says which requests it has not looked at.
        """
        is_kept = self.head.method in _SAFE_TO_REPEAT or self._is_for_stream or self._is_repeatable
        self._sent = sent if is_kept and len(sent) <= MAX_REPEATED_BYTES else b""

    @property
    def _is_repeatable(self) -> bool:
        """
        Whether the request does no harm if the app sees it twice.

        Either its method is idempotent, or the app cannot have acted on it yet, since none of its body was sent.
        """
        if self.head.method in _SAFE_TO_REPEAT:
            return True
        return self.head.body is not BodyKind.NONE and not self.bytes_received and not self._request_complete

    def _serialise(self, events: list[RequestEvent]) -> bytes:
        pieces: list[bytes] = []
        trailers = b""
        for event in events:
            if isinstance(event, Data):
                self.bytes_received += len(event.payload)
                pieces.append(http1.body_bytes(event.payload, self._framing))
            elif isinstance(event, Trailers):
                trailers = rewrite.request_trailer_section(
                    event.fields, self.downstream.service.http.underscore_headers
                )
            elif event is END:
                self._request_complete = True
                if self._framing is BodyKind.CHUNKED:
                    pieces.append(last_chunk(trailers))
                else:
                    self._trailers = trailers
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- the connection to the app --

    def _connect(self) -> None:
        self._state = _State.CONNECTING
        assert self.endpoint is not None
        if self._preface:
            self.endpoint.pool.connect(self._connected, self._preface)
        else:
            self.endpoint.pool.connect(self._connected)

    def _connected(self, outcome: Upstream | ConnectFailed) -> None:
        endpoint = self.endpoint
        assert endpoint is not None
        if isinstance(outcome, ConnectFailed):
            if outcome.reason != "upstream_overflow":
                endpoint.failed(outcome.reason)
            if self._state is not _ENDED:
                self._connect_elsewhere(endpoint, outcome)
            return
        if self._state is _ENDED:
            endpoint.pool.release(outcome)
            return
        # In this order: a connection that is full at once pauses the client again.
        self.downstream.resume_reading()
        self._send_on(outcome, is_reused=False)

    def _connect_elsewhere(self, failed: Endpoint, why: ConnectFailed) -> None:
        """Try another endpoint, which costs the app nothing: it has seen none of the request."""
        assert self.destination is not None
        self._tried = (*self._tried, failed)
        cluster = self.destination.cluster
        # After a reload that changed the protocol, what is held is framed for the other one.
        may_try = len(self._tried) < MAX_ENDPOINTS_TRIED and cluster.is_multiplexed is self._is_for_stream
        other = cluster.pick(self._tried) if may_try else why
        if isinstance(other, ConnectFailed):
            self._fail(why.reason, detail=str(why))
            return
        self._move_to(other)
        self._connect()

    def _move_to(self, endpoint: Endpoint) -> None:
        assert self.endpoint is not None
        self.endpoint.end()
        self.endpoint = endpoint
        endpoint.begin()
        self.downstream.service.metrics.upstream_retries += 1

    def _send_on(self, upstream: Upstream, *, is_reused: bool) -> None:
        self._state = _WAITING
        self._upstream = upstream
        data, self._held = self._held, b""
        self._is_reused = is_reused
        if (is_reused or self._is_for_stream) and not self._is_repeated:
            self._remember(data)
        upstream.begin(self, self.head)
        upstream.send(data, self._request_complete, self._trailers)
        if self.bytes_received and self._request_complete:
            self._app_progressed()

    def upstream_full(self) -> None:
        self._request_stuck = True
        self.downstream.pause_reading()
        self._wait()

    def upstream_drained(self) -> None:
        self._request_stuck = False
        if self._request_complete:
            self._app_progressed()  # the kernel has the rest, the app not yet
        self.downstream.resume_reading()
        self._wait()

    def upstream_lost(self) -> None:
        upstream, self._upstream = self._upstream, None
        # A stream that the app has ended alone was answered, if badly.
        self._is_reused = self._is_reused and upstream is not None and upstream.is_lost
        if self._sent and upstream is not None and self._may_repeat(upstream):
            self._held, self._sent = self._sent, b""
            self._is_repeated = True
            self._request_stuck = False
            self.downstream.service.metrics.upstream_retries += 1
            self._connect()
            return
        broken_by = upstream.broken_by if upstream is not None else ""
        # With TLS 1.3 an upstream refuses our certificate only once the connection is made.
        self._fail("upstream_tls_failed" if broken_by and self.response is None else "upstream_reset", detail=broken_by)

    def _may_repeat(self, upstream: Upstream) -> bool:
        """
        Whether the request, which is still at hand, may be sent again.

        An app that closes a kept connection in the moment that we use it may have seen the request even so: then only
        what is safe to repeat is. One that ends a stream may say that it has not.
        """
        if upstream.is_refused:
            return True
        return self._is_reused and not upstream.has_response_bytes and self._is_repeatable

    # -- the response --

    def response_events(self, events: list[ResponseEvent]) -> None:
        """Parts of the response have arrived; send them on in one piece."""
        pieces: list[bytes] = []
        trailers = b""
        ended = False
        for event in events:
            if isinstance(event, Data):
                # Behind a 101 it is the first of the tunnel; its kind is NONE, so it goes as it is.
                self.bytes_sent += len(event.payload)
                pieces.append(http1.body_bytes(event.payload, self._kind))
            elif event is END:
                ended = True
                if self._kind is BodyKind.CHUNKED:
                    pieces.append(last_chunk(trailers))
            elif isinstance(event, ResponseHead):
                pieces.append(self._begin_response(event))
            elif isinstance(event, Trailers):
                if rewrite.accepts_trailers(self.head):
                    trailers = rewrite.response_trailer_section(event.fields)
            elif isinstance(event, InterimHead) and self.head.minor_version:
                section = rewrite.interim_section(event.fields)
                pieces.append(http1.response_bytes(event.status, event.reason, section))
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if ended and self._close_after:
                self.downstream.write_last(data)
            else:
                self.downstream.write(data)
            if len(data) > MAX_READ_SIZE // 2 and not (self._reads_more or self.is_response_stuck):
                self._read_more()
        if ended:
            self._end_response()
        else:
            self._wait()

    def _read_more(self) -> None:
        """A long response flows, and the client takes it: let more of it come at once (bench row `download`)."""
        if self._upstream is not None:
            self._upstream.flow().read_up_to(MAX_UPSTREAM_READ_SIZE)
            self._reads_more = True

    def whole_response(self, head: ResponseHead, body: bytes) -> None:
        data = self._begin_response(head) + body
        self.bytes_sent = len(body)
        if self._close_after:
            self.downstream.write_last(data)
        else:
            self.downstream.write(data)
        self._end_response()

    def note_response(self, head: ResponseHead) -> None:
        """The final response begins."""
        self.response = head
        self.first_byte_at = self.downstream.service.now()
        self._state = _STREAMING
        self._sent = b""
        if head.status in _FAILURES:
            assert self.endpoint is not None
            self.endpoint.failed(f"status_{head.status}")

    def _begin_response(self, head: ResponseHead) -> bytes:
        downstream = self.downstream
        self.note_response(head)
        kind, minor_version = head.body, self.head.minor_version
        close = not self.head.keep_alive or downstream.is_closing
        if kind is _UNTIL_CLOSE or (kind is _CHUNKED and not minor_version):
            # HTTP/1.1 clients get chunks instead, and keep their connection; for 1.0 the end of it is the end of all.
            kind = _CHUNKED if minor_version else _UNTIL_CLOSE
            close = close or kind is _UNTIL_CLOSE
        self._kind = kind
        self._close_after = close and head.status != 101  # that begins something
        upstream = self._upstream
        assert upstream is not None
        if minor_version and not close and upstream.remembered_head is head:
            return upstream.remembered_bytes
        section = rewrite.response_section(head, kind, minor_version, not close)
        data = http1.response_bytes(head.status, head.reason, section)
        if minor_version and not close:
            upstream.remembered_head, upstream.remembered_bytes = head, data
        return data

    def _end_response(self) -> None:
        response, upstream = self.response, self._upstream
        assert response is not None
        assert upstream is not None
        endpoint = self.endpoint
        assert endpoint is not None
        self._state = _ENDED
        self._upstream = None
        if response.status not in _FAILURES:
            endpoint.succeeded()  # not before: one that always breaks off would never fail twice in a row
        if response.status == 101:
            assert isinstance(upstream, UpstreamConnection)
            self.downstream.upgraded(self, upstream)
            return
        reusable = response.keep_alive and upstream.is_reusable and response.body is not _UNTIL_CLOSE
        if reusable and self._request_complete and not self._request_stuck:
            if self.is_response_stuck:
                upstream.flow().resumeProducing()
            if self._reads_more:
                upstream.flow().read_up_to(MAX_READ_SIZE)  # the next may be for one of a client's many streams
            endpoint.pool.release(upstream)
        else:
            upstream.close()
        self.downstream.exchange_ended(self, close=self._close_after)

    def response_failed(self, error: ResponseError) -> None:
        self._upstream = None
        reason = "upstream_reset" if error.reason == "response_cut" else "upstream_invalid_response"
        if error.reason == http1.SPEAKS_HTTP2:
            assert self.endpoint is not None
            reason = "upstream_not_http1"
            self.endpoint.pool.misfits(ConnectFailed(reason, str(error)))
        self._fail(reason, detail=f"{error.reason}: {error}")

    # -- the client --

    def downstream_full(self) -> None:
        self.is_response_stuck = True
        if self._upstream is not None:
            self._upstream.flow().pauseProducing()
        self._wait()

    def downstream_drained(self) -> None:
        self.is_response_stuck = False
        if self._upstream is not None:
            self._upstream.flow().resumeProducing()
        self._wait()

    def downstream_lost(self, reason: str = "downstream_lost", detail: str = "") -> None:
        """The client is gone, or (*reason*) wants no answer any more: so is the request."""
        if self._state is not _ENDED:
            self._state = _ENDED
            self._give_up_upstream()
            self.downstream.service.record(self, reason, detail)

    # -- deadlines and failures --

    def _wait(self) -> None:
        """Set the deadline of what the exchange now waits for."""
        assert self.destination is not None
        timeouts = self.destination.timeouts
        if self.is_response_stuck:
            timeout = timeouts.body
        elif self._state is _STREAMING:
            timeout = timeouts.stream
        elif self._request_complete or self._request_stuck:
            timeout = timeouts.upstream
        else:
            timeout = timeouts.body
        self.downstream.wait(timeout)

    def deadline_passed(self) -> None:
        """What it waited for did not come."""
        if self.is_response_stuck:
            self._fail("downstream_stalled")
        elif self._state is _STREAMING:
            self._fail("upstream_stalled")
        elif self._request_complete or self._request_stuck:
            if self._app_progressed():
                self._wait()  # it is still reading the request, slowly
                return
            self._fail("upstream_timeout")
        else:
            self._fail("body_timeout")

    def _app_progressed(self) -> bool:
        """
        Whether the app has taken any of the request since this was last asked.

        Of a small one it says nothing: the app's system takes that whole, whether the app reads or not.
        """
        if self._upstream is None or not (self._request_stuck or self.bytes_received > READ_SIZE):
            return False
        return self._upstream.flow().has_progressed()

    def _fail(self, reason: str, detail: str = "") -> None:
        """End the exchange: by a reply of ours if none has begun, else by cutting the client's connection."""
        # Where the client takes nothing, not even a reply of ours would reach it.
        begun = self._state is _STREAMING or self.is_response_stuck
        self._state = _ENDED
        # That an app closes a kept connection in the moment it is used speaks against nobody.
        is_race = reason == "upstream_reset" and self._is_reused and not begun
        if reason in _FAULTS_OF_ENDPOINTS and self.endpoint is not None and not self._has_failed and not is_race:
            self.endpoint.failed(reason)
        self._give_up_upstream()
        if begun:
            self.downstream.exchange_cut(self, reason, detail)
        else:
            self.downstream.exchange_refused(self, reason, detail)

    def drain_timeout_passed(self) -> None:
        """The process ends, and waited for this exchange as long as it may."""
        self._fail("drain_timeout")

    def cancel(self, reason: str, status: int | None) -> None:
        """The client broke a rule in the middle of its request; it gets *status*, or (None) no more of the response."""
        self._state = _ENDED
        self._give_up_upstream()
        self.downstream.service.record(self, reason, status=status)

    def _give_up_upstream(self) -> None:
        self._held = b""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    @property
    def _has_failed(self) -> bool:
        """Whether the endpoint has been told already that its answer speaks against it."""
        return self.response is not None and self.response.status in _FAILURES

    def note_grpc_status(self, fields: Fields) -> None:
        """Take from a head or trailers how a gRPC call ended, if that is there, and is a number."""
        if b"grpc-status" in fields.names:
            status = fields.first(b"grpc-status").strip(b" \t")
            if status.isdigit() and len(status) <= 2:
                self.grpc_status = str(int(status))

    @property
    def protocol(self) -> str:
        """The client's, as logs name it."""
        return f"HTTP/1.{self.head.minor_version}"

    @property
    def is_connecting(self) -> bool:
        """Whether there is no connection to the app, so that what comes of the request is held."""
        return self._state is _State.CONNECTING
