"""
What must hold for every input, whatever it is: the oracles.

`judge` fails with AssertionError where one does not hold; any other exception than our own is a failure too. What it
returns says what was new about an input: two with the same signature took the same way through the program, as far as
can be seen from outside.
"""

from __future__ import annotations

import h11

from sidecar.errors import ProtocolError, RequestError
from sidecar.settings import ByteCount, Limits
from sidecar.wire.events import BodyKind, RequestHead, ResponseHead
from sidecar.wire.framing import MAX_TRAILER_BYTES
from sidecar.wire.http1 import MAX_REMEMBERED_BYTES, ServerCodec, State
from tests.fuzz.headers import judge_header
from tests.fuzz.http2 import judge_frames
from tests.fuzz.http2client import judge_app_frames
from tests.fuzz.inputs import AppFrameInput, FrameInput, HeaderInput, RequestInput, ResponseInput, segments
from tests.fuzz.reading import (
    Message,
    Reading,
    check_section,
    check_start,
    is_upgrade,
    read_forwarded_response,
    read_request_by_h11,
    read_requests,
    read_response,
    read_response_by_h11,
)
from tests.support.ports import RecordingTransport, transport_of
from tests.support.pump import Ended, Pump

Signature = tuple[object, ...]

_OF_SIZE = frozenset(
    {"header_too_large", "uri_too_long", "too_many_headers", "trailers_too_large", "bad_chunk"} | {"body_too_large"}
)
"""Reasons of refusals that come when a limit is passed. Whether that is seen before another broken rule depends on how
much arrives at once, and so does the status; that it is refused does not."""

_ALL_PIECES = 500
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def judge(input: RequestInput) -> Signature:
    """Hold *input* against every rule; return its signature."""
    if isinstance(input, ResponseInput):
        return _judge_response(input)
    if isinstance(input, HeaderInput):
        return judge_header(input)
    if isinstance(input, AppFrameInput):
        return judge_app_frames(input)
    if isinstance(input, FrameInput):
        return judge_frames(input)
    return _judge_requests(input)


# -- requests ---------------------------------------------------------------------------------------------------


def _judge_requests(input: RequestInput) -> Signature:
    pieces = segments(input.data, input.cuts)
    reading = read_requests(pieces, input)
    slow = read_requests(_small_pieces(input.data), input)
    for other in (slow, read_requests([input.data], input)):
        _check_alike(reading, other)
    for message in [*reading.messages, *slow.messages]:
        _check_message(message, input)
    _check_held(reading, pieces, input)
    _check_held(slow, _small_pieces(input.data), input)
    forwarded = _Forwarded(input)
    forwarded.run(pieces)
    expected = _until_close(reading.complete)
    _check_forwarded(forwarded, expected, slow.messages[len(expected)] if len(slow.messages) > len(expected) else None)
    refusal = reading.refusal if len(expected) == len(reading.complete) and _stays_open(expected) else None
    _check_answers(forwarded.ended, len(expected), refusal)
    return ("requests", *_shape(reading), forwarded.ending, len(expected))


def _check_answers(ended: list[Ended], count: int, refusal: ProtocolError | None) -> None:
    """Fail unless *count* requests were answered by the app, and then *refusal* by us, if there is one."""
    assert [(end.status, end.reason) for end in ended[:count]] == [(204, "")] * count, "not answered by the app"
    own = ended[count:]
    if refusal is None:
        assert not own, f"answered, but not refused: {own}"
        return
    assert len(own) == 1, f"refused, but not answered once: {own}"
    # What a hasty client pipelines is read later and in larger pieces than it came.
    assert own[0].status == refusal.status or {own[0].reason, refusal.reason} & _OF_SIZE, f"another status: {own}"


def _until_close(messages: list[Message]) -> list[Message]:
    """Those that are answered: none behind one that asks to close."""
    for count, message in enumerate(messages, 1):
        if not _stays_open([message]):
            return messages[:count]
    return messages


def _stays_open(messages: list[Message]) -> bool:
    return all(isinstance(message.head, RequestHead) and message.head.keep_alive for message in messages)


class _Forwarded:
    """What the app gets of what a client sends: the proxy with fakes for sockets, and an app that answers 204."""

    def __init__(self, input: RequestInput) -> None:
        self._pump = _make_pump(input)
        self._is_hasty = input.is_hasty
        self._apps: dict[RecordingTransport, _App] = {}
        self.requests: list[tuple[Message, bytes]] = []  # as read by our codec, and their bytes

    def run(self, pieces: list[bytes]) -> None:
        """Let the client send, and the app answer what has arrived whole."""
        for piece in pieces:
            if self._pump.tls.ending:
                break
            self._pump.client_sends(piece)
            self._move(may_answer=not self._is_hasty)
            if not self._pump.peer.is_reading:
                self._move(may_answer=True)
            assert self._pump.peer.is_reading or self._pump.tls.ending, "the client is paused, and nobody will resume"
        self._move(may_answer=True)

    @property
    def ended(self) -> list[Ended]:
        return self._pump.log.ended

    @property
    def ending(self) -> str:
        return self._pump.tls.ending

    @property
    def unfinished(self) -> list[Message]:
        """What the app has of requests that did not end."""
        return [app.message for app in self._apps.values() if app.raw]

    def _move(self, *, may_answer: bool) -> None:
        """Let connections be made, the app read and, if it may, answer, until nothing moves any more."""
        moved = True
        while moved:
            moved = bool(self._pump.pool.waiting)
            while self._pump.pool.waiting:
                self._pump.pool.accept()
            for upstream in self._pump.pool.opened:
                moved = self._serve(transport_of(upstream), may_answer) or moved
            self._pump.settle()

    def _serve(self, transport: RecordingTransport, may_answer: bool) -> bool:
        app = self._apps.setdefault(transport, _App())
        data, transport.sent = transport.sent, b""
        if data:
            app.receive(data)
        if not app.is_asked or not may_answer:
            return False
        self.requests.append((app.message, app.raw))
        app.answer()
        transport.deliver(_NO_CONTENT)
        return True


class _App:
    """One connection as the app reads it, with room for the fields that the proxy adds."""

    def __init__(self) -> None:
        self._codec = ServerCodec(1 << 20, 1 << 10)
        self.message = Message()
        self.raw = b""

    @property
    def is_asked(self) -> bool:
        """Whether a whole request waits for its answer."""
        return self._codec.is_complete

    def receive(self, data: bytes) -> None:
        """Read *data*."""
        self.raw += data
        try:
            events = self._codec.receive(data)
        except RequestError as error:
            raise AssertionError(f"what is forwarded would be refused: {error.reason}") from error
        for event in events:
            self.message.add(event)
        assert not self._codec.has_pipelined, "more is forwarded than was framed"

    def answer(self) -> None:
        """Have answered."""
        self._codec.next_request()
        self.message, self.raw = Message(), b""


def _check_forwarded(forwarded: _Forwarded, expected: list[Message], begun: Message | None) -> None:
    """Fail unless the app got each of the requests *expected*, once, and of the one *begun* no more than there is."""
    assert len(forwarded.requests) == len(expected), "the app got another number of requests"
    for (got, raw), message in zip(forwarded.requests, expected, strict=True):
        _check_forwarded_head(got, message)
        assert got.payload == message.payload, "another body is forwarded"
        _check_trailers(got, message)
        _check_with_h11(got, raw)
    for got in forwarded.unfinished:
        assert begun is not None, "the app got a request that nobody sent"
        if begun.head is not None and got.head is not None:
            _check_forwarded_head(got, begun)
        # Either may have seen a little more of it before it was refused.
        assert begun.payload.startswith(got.payload) or got.payload.startswith(begun.payload), "another body is begun"


def _check_forwarded_head(got: Message, message: Message) -> None:
    head, original = got.head, message.head
    assert isinstance(head, RequestHead)
    assert isinstance(original, RequestHead)
    assert head.method == original.method, "another method is forwarded"
    assert (head.body, head.length) == (original.body, original.length), "another framing is forwarded"
    path = head.target
    same = path == b"*" or (path.startswith(b"/") and original.target.endswith((path, path[1:])))
    assert same, "another target is forwarded"
    check_section(head.fields.section)
    sent = set(original.fields.section.split(b"\r\n"))
    invented = {line.partition(b":")[0].lower() for line in head.fields.section.split(b"\r\n") if line not in sent}
    assert invented <= _OURS, f"fields that nobody sent: {invented - _OURS}"


_OURS = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-host", b"x-request-id"}
    | {b"connection", b"te", b"upgrade", b"host", b"traceparent", b"transfer-encoding"}
)
"""Names of the lines that the proxy writes."""

_NEVER_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host", b"connection", b"authorization"})


def _check_with_h11(got: Message, raw: bytes) -> None:
    assert isinstance(got.head, RequestHead)
    try:
        read = read_request_by_h11(raw)
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what is forwarded: {error}") from error
    assert read.start == (got.head.method, got.head.target), "h11 reads another request line"
    assert read.is_complete, "h11 waits for more of what is forwarded"
    assert read.payload == got.payload, "h11 reads another body"
    assert read.rest == b"", "h11 reads the beginning of another request"


# -- responses --------------------------------------------------------------------------------------------------


def _judge_response(input: ResponseInput) -> Signature:
    pieces = segments(input.data, input.cuts)
    reading = read_response(pieces, input)
    for other in (read_response([input.data] if input.data else [], input), _read_slowly(input)):
        _check_alike(reading, other)
        if reading.refusal is None:
            assert reading.is_reusable is other.is_reusable, "whether it is reusable depends on the cuts"
    _check_message(reading.messages[0], input)
    _check_held(reading, pieces, input)
    pump = _make_pump(input)
    first = _run_response(pump, pieces, input)
    _check_received(first, pump, reading, input)
    if pump.pool.idle:
        assert reading.messages[0].is_complete, "a connection is kept whose response goes on"
        assert reading.is_reusable, "a connection is kept whose next bytes answer nothing"
        assert not input.is_closed, "a connection is kept that the app has closed"
        if not pump.tls.ending:
            again = _run_response(pump, pieces, input)
            assert again == first, "what was read before changes what is read"
    return ("responses", *_shape(reading), reading.is_reusable, pump.tls.ending, bool(pump.pool.idle))


def _read_slowly(input: ResponseInput) -> Reading:
    reading = read_response(_small_pieces(input.data), input)
    _check_held(reading, _small_pieces(input.data), input)
    return reading


def _run_response(pump: Pump, pieces: list[bytes], input: ResponseInput) -> bytes:
    """Let the proxy forward a request of a client and the app's answer to it; return what the client got."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % b", ".join(input.offered) if input.offered else b""
    pump.client_sends(b"%b /x HTTP/1.%d\r\nHost: a\r\n%b\r\n" % (input.method, input.minor_version, upgrade))
    while pump.pool.waiting:
        pump.pool.accept()
    app = pump.app
    for piece in pieces:
        if not app.is_open:
            break
        assert app.is_reading, "the app is paused by a client that takes everything"
        pump.app_sends(piece)
    if input.is_closed and app.is_open:
        pump.app_closes()
    return pump.received()


def _check_received(data: bytes, pump: Pump, reading: Reading, input: ResponseInput) -> None:
    """Fail unless the client got what the app sent, or a 502, or a cut connection."""
    ending, message = pump.tls.ending, reading.messages[0]
    got = read_forwarded_response(data, input, is_closed=ending == "close")
    received = got.messages[0]
    if reading.refusal is not None and message.head is not None:
        assert ending == "abort", "a response that is cut short does not end in a cut connection"
        assert not received.is_complete, "a response that is cut short looks whole"
        assert message.payload.startswith(received.payload), "the client got another body"
        return
    assert got.refusal is None, f"the client would refuse what it got: {got.refusal}"
    _check_interim(received, message, input)
    if reading.refusal is not None:
        assert _status(received) == 502, "not answered with 502"
        assert received.is_complete, "our own answer is not whole"
        assert pump.log.ended[-1].reason in ("upstream_invalid_response", "upstream_reset"), pump.log.ended
    elif message.head is not None:
        assert _status(received) == _status(message), "the client got another status"
        assert received.payload == message.payload, "the client got another body"
        assert received.tunnel == message.tunnel, "the client got other bytes behind the 101"
        _check_trailers(received, message)
        assert received.is_complete is message.is_complete, "the client cannot tell whether it is over"
        assert ending != "abort", "a good response ends in a cut connection"
    else:
        assert received.head is None, "the client got a response that nobody sent"
    if received.head is not None:
        check_section(received.head.fields.section)
    if not is_upgrade(message):
        _check_client_with_h11(data, received, input, is_closed=ending == "close")


def _status(message: Message) -> int:
    return message.head.status if isinstance(message.head, ResponseHead) else 0


def _check_interim(received: Message, message: Message, input: ResponseInput) -> None:
    wanted = [interim.status for interim in message.interim] if input.minor_version else []
    assert [interim.status for interim in received.interim] == wanted, "the client got other interim responses"
    for interim in received.interim:
        check_section(interim.fields.section)


def _check_client_with_h11(data: bytes, received: Message, input: ResponseInput, *, is_closed: bool) -> None:
    try:
        read = read_response_by_h11(data, input.method, is_closed=is_closed and received.head is not None)
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what the client got: {error}") from error
    assert (read.start or 0) == _status(received), "h11 reads another status"
    assert read.interim == [interim.status for interim in received.interim], "h11 reads other interim responses"
    assert read.payload == received.payload, "h11 reads another body"
    assert read.is_complete is received.is_complete, "h11 cannot tell whether it is over"
    if read.is_complete:
        assert read.rest == b"", "h11 reads the beginning of another response"


# -- either -----------------------------------------------------------------------------------------------------


def _make_pump(input: RequestInput) -> Pump:
    """Make the proxy, with the limits of *input* on both sides."""
    limits = Limits(
        header_bytes=ByteCount(input.max_head_bytes),
        headers=input.max_headers,
        body_bytes=ByteCount(input.max_body_bytes),
    )
    return Pump(limits=limits)


def _check_trailers(got: Message, message: Message) -> None:
    """Fail unless *got* has some of the trailers of *message*, in order, and none that decides anything."""
    check_section(got.trailers)
    sent = iter(message.trailers.split(b"\r\n"))
    lines = got.trailers.split(b"\r\n")
    assert all(line in sent for line in lines), "trailers that nobody sent"
    names = {line.partition(b":")[0].lower() for line in lines}
    assert names.isdisjoint(_NEVER_IN_TRAILERS), f"forbidden trailers: {names & _NEVER_IN_TRAILERS}"


def _small_pieces(data: bytes) -> list[bytes]:
    """Byte by byte, or as small as is bearable."""
    size = 1 + len(data) // _ALL_PIECES // 4
    return [data[start : start + size] for start in range(0, len(data), size)]


def _check_alike(reading: Reading, other: Reading) -> None:
    """Fail unless two readings of the same bytes are the same but for where they were refused."""
    one, two = reading.refusal, other.refusal
    assert (one is None) is (two is None), f"whether it is refused depends on the cuts: {one!r}, {two!r}"
    assert reading.complete == other.complete, "whole messages depend on the cuts"
    if one is None or two is None:
        assert reading.messages == other.messages, "messages depend on the cuts"
        assert reading.state is other.state, f"the state depends on the cuts: {reading.state}, {other.state}"
        return
    assert one.status == two.status or {one.reason, two.reason} & _OF_SIZE, f"the status depends on the cuts: {one!r}"
    assert reading.state is State.BROKEN, "a codec that refused goes on"


def _check_message(message: Message, limits: RequestInput) -> None:
    """Fail if something was accepted that must not be, by rules written down here once more."""
    check_section(message.trailers)
    for interim in message.interim:
        check_section(interim.fields.section)
    head = message.head
    if head is None:
        return
    check_section(head.fields.section)
    assert not {b"content-length", b"transfer-encoding"}.issubset(head.fields.names), "both framings are accepted"
    if isinstance(head, RequestHead):
        check_start(head.method)
        check_start(head.target)
        assert not limits.max_body_bytes or len(message.payload) <= limits.max_body_bytes, "a body over the limit"
        hosts = head.fields.names.count(b"host")
        assert hosts == 1 or (hosts == 0 and head.minor_version == 0), f"{hosts} Host fields are accepted"
        assert not head.minor_version or head.host, "no host is accepted"
    else:
        check_section(b"Reason:%b\r\n" % head.reason)
    if message.is_complete and head.body is BodyKind.LENGTH:
        assert len(message.payload) == head.length, "a body of another length than was announced"
    if head.body is BodyKind.NONE:
        assert not message.payload, "a body where none was announced"


def _check_held(reading: Reading, pieces: list[bytes], input: RequestInput) -> None:
    """
    Fail if more is held than the limits allow: the head that is being read, or has been, with its names and its
    values; one that is remembered, the same; trailers; and what one arrival brought.
    """
    allowed = 4 * (input.max_head_bytes + MAX_REMEMBERED_BYTES) + MAX_TRAILER_BYTES + max(map(len, pieces), default=0)
    assert reading.most_held <= allowed, f"{reading.most_held:,} bytes are held, {allowed:,} are allowed"


def _shape(reading: Reading) -> Signature:
    """What a reading came to, without its bytes."""
    refusal = reading.refusal
    return (
        refusal.reason if refusal is not None else "",
        reading.state,
        *(_message_shape(message) for message in reading.messages[-2:]),
        min(len(reading.messages), 4),
    )


def _message_shape(message: Message) -> Signature:
    head = message.head
    if head is None:
        return (min(len(message.interim), 3),)
    return (
        head.body,
        head.minor_version,
        head.keep_alive,
        len(head.options) > 0,
        head.method in (b"GET", b"HEAD", b"OPTIONS") if isinstance(head, RequestHead) else head.status // 100,
        bool(head.upgrade) if isinstance(head, RequestHead) else head.status in (101, 204, 304),
        len(head.fields.names).bit_length(),
        len(message.payload).bit_length() // 2,
        bool(message.trailers),
        bool(message.tunnel),
        message.is_complete,
        min(len(message.interim), 3),
    )
