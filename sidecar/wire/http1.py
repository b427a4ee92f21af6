"""
The HTTP/1.1 connection machine, in either role: bytes in, events out, no I/O (RFC 9112).

`ServerCodec` reads requests and writes responses; `ClientCodec` the reverse. Rules that hold here:

- One exchange at a time. Bytes of a pipelined request stay in the codec until `next_request()`.
- A codec that raised stays broken: nothing that follows on the connection can be trusted.
- What is held is bounded: a head by `max_head_bytes`, pipelined bytes by what the caller still feeds; the caller
  stops reading once `is_complete`.
- A head that repeats the last one of its connection byte for byte is not parsed again: peers that keep a connection
  open tend to send the same fields over and over. One head of at most `MAX_REMEMBERED_BYTES` is remembered, for its own
  connection only, so nothing can be learnt about anybody else's.

The states of the reading side; any pair not listed is a protocol error:

    HEAD     -- head, no body --------> COMPLETE
    HEAD     -- head, body -----------> BODY
    HEAD     -- 1xx (client role) ----> HEAD
    BODY     -- last byte ------------> COMPLETE
    COMPLETE -- next_request() -------> HEAD
    COMPLETE -- upgrade() ------------> TUNNEL      bytes are nobody's framing from here on
    any      -- error ----------------> BROKEN
"""

from __future__ import annotations

import enum
from typing import Any, Final

from sidecar.errors import RequestError, ResponseError
from sidecar.wire import framing, grammar
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
from sidecar.wire.head import keep_alive_seconds, parse_request_head, parse_response_head
from sidecar.wire.target import MAX_TARGET_BYTES

SPEAKS_HTTP2: Final = "speaks_http2"
"""Reason of what is wrong with an app that answers in another version."""

MAX_INTERIM_RESPONSES: Final = 16
"""1xx responses before the final one; an app that sends more never means to finish."""

MAX_REMEMBERED_BYTES: Final = 2048

_LONGEST_METHOD_AND_VERSION: Final = 48
"""Room for what stands in a request line beside the target."""


class State(enum.Enum):
    """Where the reading side of a codec is."""

    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"
    TUNNEL = "tunnel"
    BROKEN = "broken"


# A global is read faster than an enum member.
_HEAD: Final = State.HEAD
_BODY: Final = State.BODY
_COMPLETE: Final = State.COMPLETE


class _HeadBuffer:
    """The bytes of a head that has not fully arrived; searched once per byte however slowly they come."""

    __slots__ = ("checked", "data", "searched")

    def __init__(self) -> None:
        self.data = bytearray()
        self.searched = 0
        self.checked = 0

    def add(self, data: bytes) -> int:
        """Append *data*; return the length of the head with its empty line, or -1 while that is missing."""
        self.data += data
        end = self.data.find(b"\r\n\r\n", max(0, self.searched - 3))
        if end < 0:
            self.searched = len(self.data)
            return -1
        return end + 4

    def has_bare_line_end(self) -> bool:
        """Whether a line that has arrived since the last look ends in a bare CR or LF: no end would ever be seen."""
        found = grammar.BARE_CR_OR_LF.search(self.data, self.checked)
        self.checked = max(0, len(self.data) - 1)  # of a CR that is the last byte nothing is known yet
        return found is not None


class ServerCodec:
    """
    The downstream side: reads requests, writes responses.

    Attributes:
        state: Where reading is.
        request: Head of the current request; None before it arrived.
    """

    __slots__ = (
        "_body_bytes",
        "_head",
        "_max_body_bytes",
        "_max_head_bytes",
        "_max_headers",
        "_reader",
        "_remembered",
        "_remembered_events",
        "_rest",
        "request",
        "state",
    )

    def __init__(self, max_head_bytes: int, max_headers: int, max_body_bytes: int = 0) -> None:
        """
        Args:
            max_head_bytes: Longest head, start line and empty line included.
            max_headers: Most field lines.
            max_body_bytes: Longest body; 0: any.
        """
        self._max_head_bytes = max_head_bytes
        self._max_headers = max_headers
        self._max_body_bytes = max_body_bytes
        self._body_bytes = 0  # of the current request, counted only against a limit
        self._head: _HeadBuffer | None = None
        self._reader: framing.Reader | None = None
        self._remembered: bytes | None = None  # the last head, if it had no body
        self._remembered_events: list[RequestEvent] = []
        self._rest: list[bytes] = []  # what came after the current request
        self.request: RequestHead | None = None
        self.state = State.HEAD

    @property
    def is_idle(self) -> bool:
        """Whether no byte of a request has arrived; the empty lines that may stand before one do not count."""
        return self.state is State.HEAD and (self._head is None or self._head.data == b"\r")

    @property
    def is_complete(self) -> bool:
        """Whether the current request has arrived to its last byte."""
        return self.state is State.COMPLETE

    @property
    def has_pipelined(self) -> bool:
        """Whether bytes of a further request are held."""
        return bool(self._rest)

    @property
    def awaited_bytes(self) -> int:
        """How many bytes of the current request's body are still to come; 0 where its framing does not tell."""
        return self._reader.remaining if isinstance(self._reader, framing.LengthReader) else 0

    def receive(self, data: bytes) -> list[RequestEvent]:
        """
        Take bytes from the client.

        Returns:
            The events they complete, at most one request's. The list is not to be changed.

        Raises:
            RequestError: They break a rule. The codec is BROKEN from then on.
        """
        state = self.state
        if state is _HEAD and data == self._remembered and self._head is None:
            self.state = _COMPLETE
            self.request = self._remembered_events[0]  # type: ignore[assignment]  # a RequestHead
            return self._remembered_events
        try:
            if state is _HEAD:
                return self._receive_head(data)
            if state is _BODY:
                return self._receive_body(data)
        except RequestError:
            self.state = State.BROKEN
            raise
        if state is _COMPLETE:
            if data:
                self._rest.append(data)
            return []
        raise RequestError("bytes_out_of_turn", f"bytes arrived in state {state.value}")

    def next_request(self) -> list[RequestEvent]:
        """Forget the request that was answered and read on; return the events of pipelined bytes, if any."""
        assert self.state is State.COMPLETE, self.state
        self.state = State.HEAD
        self.request = None
        self._reader = None
        if not self._rest:
            return []
        data = b"".join(self._rest)
        self._rest.clear()
        return self.receive(data)

    def upgrade(self) -> bytes:
        """Stop framing after a 101; return the bytes that the client sent ahead."""
        assert self.state is State.COMPLETE, self.state
        self.state = State.TUNNEL
        ahead = b"".join(self._rest)
        self._rest.clear()
        return ahead

    def _receive_head(self, data: bytes) -> list[RequestEvent]:
        if self._head is not None and self._head.data == b"\r":  # half an empty line
            data, self._head = b"\r" + data, None
        # The common case first: the whole head in one piece, nothing copied together.
        if self._head is None:
            if data.startswith(b"\r\n"):
                data = grammar.EMPTY_LINES.sub(b"", data, count=1)
            end = data.find(b"\r\n\r\n") + 4
            if end > 3:
                return self._head_arrived(data, end)
            if not data:
                return []
            self._head = _HeadBuffer()
        end = self._head.add(data)
        if end < 0:
            self._check_unfinished(self._head)
            return []
        whole = bytes(self._head.data)
        self._head = None
        return self._head_arrived(whole, end)

    def _head_arrived(self, data: bytes, end: int) -> list[RequestEvent]:
        if end > self._max_head_bytes:
            raise self._head_too_large(end)
        request = parse_request_head(data if end == len(data) else data[:end], self._max_headers)
        self.request = request
        self._reader = framing.reader_for(request.body, request.length, RequestError)
        rest = data[end:]
        if self._reader is None:
            self.state = _COMPLETE
            if rest:
                self._rest.append(rest)
            events: list[RequestEvent] = [request, END]
            if end == len(data) <= MAX_REMEMBERED_BYTES:
                self._remembered, self._remembered_events = data, events
            return events
        self._check_body(request.length)
        self._body_bytes = 0
        self.state = _BODY
        events = [request]
        if rest:
            events += self._receive_body(rest)
        return events

    def _receive_body(self, data: bytes) -> list[RequestEvent]:
        assert self._reader is not None
        events: list[RequestEvent] = []
        rest = _read_body(self._reader, data, events)
        if self._max_body_bytes and events and isinstance(events[0], Data):
            self._body_bytes += len(events[0].payload)
            self._check_body(self._body_bytes)
        if rest is not None:
            self.state = _COMPLETE
            if rest:
                self._rest.append(rest)
        return events

    def _check_body(self, size: int) -> None:
        if 0 < self._max_body_bytes < size:
            limit = f"limit {self._max_body_bytes:,}"
            raise RequestError("body_too_large", f"the request body is {size:,} bytes or more, {limit}", 413)

    def _check_unfinished(self, head: _HeadBuffer) -> None:
        """Refuse a head that can no longer become a good one, without waiting for its end."""
        size = len(head.data)
        if size > self._max_head_bytes:
            raise self._head_too_large(size)
        if not grammar.METHOD_SO_FAR.match(head.data) and head.data != b"\r":
            raise RequestError("bad_request_line", "what has arrived does not begin with a method")
        if size > MAX_TARGET_BYTES + _LONGEST_METHOD_AND_VERSION and b"\r\n" not in head.data:
            raise RequestError("uri_too_long", f"the request line is over {MAX_TARGET_BYTES:,} bytes", 414)
        if head.has_bare_line_end():
            raise RequestError("bare_line_end", "a line of the head ends in a bare CR or LF")

    def _head_too_large(self, size: int) -> RequestError:
        return RequestError("header_too_large", f"head is {size:,} bytes, limit {self._max_head_bytes:,}", 431)


class ClientCodec:
    """
    The upstream side: writes requests, reads responses.

    Attributes:
        state: Where reading is. COMPLETE before the first request and after each response.
        is_reusable: False once the app sent bytes that answer nothing.
        keep_alive_seconds: How long the app said it keeps the connection open between requests; None: it never did.
        response: Head of the current response; None before it arrived.
    """

    __slots__ = (
        "_head",
        "_interim_count",
        "_max_head_bytes",
        "_max_headers",
        "_method",
        "_offered_upgrade",
        "_reader",
        "_remembered",
        "_remembered_for",
        "_remembered_head",
        "_remembered_size",
        "is_reusable",
        "keep_alive_seconds",
        "response",
        "state",
    )

    def __init__(self, max_head_bytes: int, max_headers: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_headers = max_headers
        self._head: _HeadBuffer | None = None
        self._reader: framing.Reader | None = None
        self._method = b""
        self._offered_upgrade: tuple[bytes, ...] = ()
        self._interim_count = 0
        self._remembered = b""  # the last head of a response with a length and nothing unusual
        self._remembered_for = b""  # the method it answered
        self._remembered_head: ResponseHead | None = None
        self._remembered_size = -1  # of that response, with its body
        self.is_reusable = True
        self.keep_alive_seconds: int | None = None
        self.response: ResponseHead | None = None
        self.state = State.COMPLETE

    @property
    def has_response_bytes(self) -> bool:
        """Whether any byte of the current response has arrived."""
        return self.state is not State.HEAD or self._head is not None or self._interim_count > 0

    def expect_response(self, method: bytes, offered_upgrade: tuple[bytes, ...]) -> None:
        """A request was sent, offering to switch to these protocols (lower case): now its response is read."""
        assert self.state is _COMPLETE, self.state
        self._method = method
        self._offered_upgrade = offered_upgrade
        self._interim_count = 0
        self.response = None
        self._reader = None
        self.state = _HEAD

    def receive(self, data: bytes) -> list[ResponseEvent]:
        """
        Take bytes from the app.

        Returns:
            The events they complete.

        Raises:
            ResponseError: They break a rule, or come after the end of the response. The codec is BROKEN from then on.
        """
        state = self.state
        try:
            if state is _BODY:
                return self._receive_body(data)
            if state is _HEAD:
                return self._receive_head(data)
        except ResponseError:
            self.state = State.BROKEN
            raise
        if state is State.TUNNEL:
            return [Data(data)]
        self.state = State.BROKEN
        raise ResponseError("bytes_after_response", "the app sent bytes after the end of its response")

    def receive_repeated(self, data: bytes) -> bytes | None:
        """
        Take *data* if it is a whole response with the head of the last one, of which it is then the `response`.

        Returns:
            Its body; None: it is something else, for `receive`, and nothing was taken.
        """
        if (
            len(data) == self._remembered_size
            and self.state is _HEAD
            and self._head is None
            and data.startswith(self._remembered)
            and self._method == self._remembered_for
        ):
            self.response = self._remembered_head
            self.state = _COMPLETE
            return data[len(self._remembered) :]
        return None

    def receive_eof(self) -> list[ResponseEvent]:
        """
        The app closed its side.

        Returns:
            END if that is what ends the body.

        Raises:
            ResponseError: The response is cut short.
        """
        if self.state is State.TUNNEL:
            return [END]
        if self.state is _BODY and isinstance(self._reader, framing.UntilCloseReader):
            self.state = _COMPLETE
            return [END]
        cut = "inside its body" if self.state is _BODY else "before its head was complete"
        self.state = State.BROKEN
        raise ResponseError("response_cut", f"the app closed the connection {cut}")

    def upgrade(self) -> None:
        """Stop framing after a 101. What the app sent behind it came as a Data event."""
        assert self.state is _COMPLETE, self.state
        self.state = State.TUNNEL

    def _receive_head(self, data: bytes) -> list[ResponseEvent]:
        if self._head is None:
            remembered = self._remembered_head
            if remembered is not None and data.startswith(self._remembered) and self._method == self._remembered_for:
                self.response = remembered
                return self._length_begun(remembered, data[len(self._remembered) :])
            end = data.find(b"\r\n\r\n") + 4
            if end > 3:
                return self._head_arrived(data, end)
            self._head = _HeadBuffer()
        end = self._head.add(data)
        if end < 0:
            if len(self._head.data) > self._max_head_bytes:
                raise self._head_too_large(len(self._head.data))
            if not b"HTTP/1.".startswith(self._head.data[:7]) or self._head.has_bare_line_end():
                if begins_with_settings(self._head.data):
                    raise ResponseError(SPEAKS_HTTP2, "it speaks HTTP/2 without TLS, as gRPC does: write h2c://")
                raise ResponseError("bad_response_head", "what the app sends is not HTTP/1.x")
            return []
        whole = bytes(self._head.data)
        self._head = None
        return self._head_arrived(whole, end)

    def _head_arrived(self, data: bytes, end: int) -> list[ResponseEvent]:
        if end > self._max_head_bytes:
            raise self._head_too_large(end)
        head = parse_response_head(data if end == len(data) else data[:end], self._max_headers, self._method)
        if isinstance(head, InterimHead):
            return self._interim_arrived(head, data[end:])
        if head.status == 101:
            self._check_upgrade(head)
        if b"keep-alive" in head.fields.names:
            self.keep_alive_seconds = keep_alive_seconds(head.fields)
        self.response = head
        rest = data[end:]
        if head.body is BodyKind.LENGTH:
            if end <= MAX_REMEMBERED_BYTES:
                self._remembered, self._remembered_for, self._remembered_head = data[:end], self._method, head
                self._remembered_size = end + head.length
            return self._length_begun(head, rest)
        self._reader = framing.reader_for(head.body, head.length, ResponseError)
        events: list[ResponseEvent] = [head]
        if self._reader is None:
            return self._bodiless(events, rest)
        self.state = _BODY
        if rest:
            events += self._receive_body(rest)
        return events

    def _check_upgrade(self, head: ResponseHead) -> None:
        """RFC 9110 section 15.2.2: to one or more of the protocols that the client offered."""
        chosen = {p.strip(b" \t").lower() for value in head.fields.values(b"upgrade") for p in value.split(b",")}
        chosen.discard(b"")  # an empty element is none (RFC 9110 section 5.6.1)
        if not chosen or not head.minor_version or not chosen.issubset(self._offered_upgrade):
            raise ResponseError("unasked_upgrade", "the app switched to a protocol (101) that nobody asked for")

    def _length_begun(self, head: ResponseHead, rest: bytes) -> list[ResponseEvent]:
        if len(rest) == head.length:  # all of it came with its head, as small bodies do
            self.state = _COMPLETE
            return [head, Data(rest), END]
        self.state = _BODY
        self._reader = framing.LengthReader(head.length)
        return [head, *self._receive_body(rest)] if rest else [head]

    def _interim_arrived(self, head: InterimHead, rest: bytes) -> list[ResponseEvent]:
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM_RESPONSES:
            raise ResponseError("too_many_interim", f"the app sent over {MAX_INTERIM_RESPONSES} interim responses")
        events: list[ResponseEvent] = [head]
        if rest:
            events += self._receive_head(rest)
        return events

    def _bodiless(self, events: list[ResponseEvent], rest: bytes) -> list[ResponseEvent]:
        assert self.response is not None
        self.state = _COMPLETE
        events.append(END)
        if self.response.status == 101:
            if rest:
                events.append(Data(rest))
        elif rest or framing.announces_body(self.response.fields):
            # A careless app may send the body that its answer to HEAD, or its 204 or 304, speaks of; if not now, later.
            self._not_reusable()
        return events

    def _receive_body(self, data: bytes) -> list[ResponseEvent]:
        assert self._reader is not None
        events: list[ResponseEvent] = []
        rest = _read_body(self._reader, data, events)
        if rest is not None:
            self.state = _COMPLETE
            if rest:
                self._not_reusable()
        return events

    def _not_reusable(self) -> None:
        """
        Bytes follow the end of the response. The response itself is good; the connection is not: its next bytes
        would be taken for the answer to somebody else's request.
        """
        self.is_reusable = False

    def _head_too_large(self, size: int) -> ResponseError:
        return ResponseError(
            "response_header_too_large", f"response head is {size:,} bytes, limit {self._max_head_bytes:,}"
        )


def _read_body(reader: framing.Reader, data: bytes, events: list[Any]) -> bytes | None:
    """
    Read *data* as body and append the events (of either role, hence Any).

    Returns:
        What follows the body, or None while more of it is to come.
    """
    payload, rest = reader.read(data)
    if payload:
        events.append(Data(payload))
    if rest is not None:
        if reader.trailers is not None:
            events.append(Trailers(reader.trailers))
        events.append(END)
    return rest


def begins_with_settings(data: bytes | bytearray) -> bool:
    """Whether *data* is what a server of HTTP/2 says first: SETTINGS on stream 0 (RFC 9113 section 3.4)."""
    return len(data) >= 9 and data[:1] == b"\0" and data[3] == 4 and data[5:9] == bytes(4)


def response_bytes(status: int, reason: bytes, section: bytes) -> bytes:
    """Serialise a response head; *reason* has the blank before it."""
    return b"HTTP/1.1 %d%b\r\n%b\r\n" % (status, reason, section)


def body_bytes(payload: bytes, kind: BodyKind) -> bytes:
    """Serialise a piece of body in the framing *kind*."""
    return framing.chunk(payload) if kind is BodyKind.CHUNKED else payload
