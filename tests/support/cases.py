"""
HTTP/1.1 on the wire as tables: what a peer sends, and what reading it must give.

A row is written once and read in every way that bytes can arrive: whole, byte by byte, cut in two at every place, and
with more bytes behind. `check_request` and `check_response` do that; a new rule needs only a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from sidecar.errors import RequestError, ResponseError
from sidecar.wire.events import BodyKind, Data, End, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.framing import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES
from sidecar.wire.http1 import MAX_INTERIM_RESPONSES, ClientCodec, ServerCodec, State
from sidecar.wire.target import MAX_TARGET_BYTES

MAX_HEAD_BYTES: Final = 61_440
MAX_HEADERS: Final = 100

BEHIND: Final = b"GET /behind HTTP/1.1\r\nHost: b\r\n\r\n"
"""What is sent after a case, to see that none of it is taken for a part of it."""

# -- ways to arrive ---------------------------------------------------------------------------------------------


def whole(data: bytes) -> Iterable[list[bytes]]:
    yield [data]


def byte_by_byte(data: bytes) -> Iterable[list[bytes]]:
    yield [data[i : i + 1] for i in range(len(data))]


def split_anywhere(data: bytes) -> Iterable[list[bytes]]:
    """Cut in two at every place; long data only here and there."""
    step = 1 if len(data) < 600 else len(data) // 97
    for i in range(1, len(data), step):
        yield [data[:i], data[i:]]


WAYS: Final[dict[str, Callable[[bytes], Iterable[list[bytes]]]]] = {
    "whole": whole,
    "byte by byte": byte_by_byte,
    "split anywhere": split_anywhere,
}

# -- rows -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Refusal:
    """
    The bytes break a rule.

    Attributes:
        status: What a client is answered with.
        reasons: The reason of the error; several where it depends on how much had arrived which rule was seen broken.
    """

    status: int
    reasons: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Request:
    """What a good request is read as."""

    method: bytes = b"GET"
    target: bytes = b"/"
    minor_version: int = 1
    host: bytes = b"a"
    body: BodyKind = BodyKind.NONE
    payload: bytes = b""
    trailers: bytes = b""
    keep_alive: bool = True
    options: tuple[bytes, ...] = ()
    upgrade: tuple[bytes, ...] = ()
    is_complete: bool = True


@attrs.frozen(kw_only=True)
class Response:
    """What a good response is read as; `tunnel` is what came behind a 101."""

    status: int = 200
    interim: tuple[int, ...] = ()
    body: BodyKind = BodyKind.NONE
    payload: bytes = b""
    trailers: bytes = b""
    keep_alive: bool = True
    is_reusable: bool = True
    tunnel: bytes = b""
    is_complete: bool = True


@attrs.frozen
class RequestCase:
    """
    Attributes:
        has_end: Whether the data is a whole message, so that what comes behind it is no part of it.
    """

    id: str
    data: bytes
    expected: Request | Refusal
    has_end: bool = True


@attrs.frozen(kw_only=True)
class ResponseCase:
    """
    Attributes:
        method: Of the request that is answered.
        offered: The protocols that it offered to switch to.
        eof: Whether the app closes its side after the bytes.
    """

    id: str
    data: bytes
    expected: Response | Refusal
    method: bytes = b"GET"
    offered: tuple[bytes, ...] = ()
    eof: bool = False


@attrs.frozen
class ChunkedCase:
    """A chunked body alone, for either direction; `expected` is (payload, trailers), or the reason of the error."""

    id: str
    data: bytes
    expected: tuple[bytes, bytes] | str


# -- reading ----------------------------------------------------------------------------------------------------


def read_request(segments: Sequence[bytes]) -> tuple[Request | Refusal, bytes]:
    """
    Feed one request to a new codec.

    Returns:
        What it is read as, and the bytes that the codec holds for later.
    """
    codec = ServerCodec(MAX_HEAD_BYTES, MAX_HEADERS)
    events: list[object] = []
    try:
        for segment in segments:
            events += codec.receive(segment)
    except RequestError as error:
        return Refusal(error.status, (error.reason,)), b""
    payload, trailers, is_complete = _body(events[1:])
    head = events[0] if events else None
    if not isinstance(head, RequestHead):
        return Request(method=b"", host=b"", target=b"", is_complete=False), b""
    assert codec.request is head
    assert codec.is_complete is is_complete
    read = Request(
        method=head.method,
        target=head.target,
        minor_version=head.minor_version,
        host=head.host,
        body=head.body,
        payload=payload,
        trailers=trailers,
        keep_alive=head.keep_alive,
        options=head.options,
        upgrade=head.upgrade,
        is_complete=is_complete,
    )
    if not is_complete:
        return read, b""
    held = codec.has_pipelined
    behind = codec.upgrade()
    assert held is bool(behind)
    return read, behind


def read_response(case: ResponseCase, segments: Sequence[bytes]) -> Response | Refusal:
    """Feed one response to a new codec; more bytes after its end are left out, as the caller closes then."""
    codec = ClientCodec(MAX_HEAD_BYTES, MAX_HEADERS)
    codec.expect_response(case.method, case.offered)
    events: list[object] = []
    tunnel = b""
    try:
        for segment in segments:
            if _is_over(events):
                if _status(events) != 101:
                    codec.is_reusable = False  # so does whoever is given bytes on a connection nobody waits for
                    break
                if codec.state is State.COMPLETE:
                    codec.upgrade()
                tunnel += b"".join(event.payload for event in codec.receive(segment) if isinstance(event, Data))
            else:
                events += codec.receive(segment)
        if case.eof and not _is_over(events):
            events += codec.receive_eof()
    except ResponseError as error:
        return Refusal(error.status, (error.reason,))
    if events and isinstance(events[-1], Data) and _is_over(events[:-1]):
        tunnel = events.pop().payload + tunnel  # type: ignore[attr-defined]  # Data, behind END
    interim = [event for event in events if isinstance(event, InterimHead)]
    rest = events[len(interim) :]
    head = rest[0] if rest else None
    if not isinstance(head, ResponseHead):
        return Response(status=0, interim=tuple(event.status for event in interim), is_complete=False)
    payload, trailers, is_complete = _body(rest[1:])
    return Response(
        status=head.status,
        interim=tuple(event.status for event in interim),
        body=head.body,
        payload=payload,
        trailers=trailers,
        keep_alive=head.keep_alive,
        is_reusable=codec.is_reusable,
        tunnel=tunnel,
        is_complete=is_complete,
    )


def _is_over(events: Sequence[object]) -> bool:
    return any(isinstance(event, End) for event in events)


def _status(events: Sequence[object]) -> int:
    return next(event.status for event in events if isinstance(event, ResponseHead))


def _body(events: Sequence[object]) -> tuple[bytes, bytes, bool]:
    """Put together what follows a head, which is in order: Data, never empty; Trailers at most once; END."""
    payload = trailers = b""
    order = 0
    for event in events:
        if isinstance(event, Data):
            assert event.payload
            assert order == 0
            payload += event.payload
        elif isinstance(event, Trailers):
            assert order == 0
            order = 1
            trailers = event.fields.section
        else:
            assert isinstance(event, End)
            assert order < 2
            order = 2
    return payload, trailers, order == 2


def check_request(case: RequestCase, way: str) -> None:
    """Assert that *case* is read as it must be, alone and with bytes behind it, when it arrives in the *way* named."""
    for segments in WAYS[way](case.data):
        read, behind = read_request(segments)
        _compare(read, case.expected, segments)
        assert behind == b"", len(segments[0])
    if not case.has_end:
        return
    for segments in WAYS[way](case.data + BEHIND):
        read, behind = read_request(segments)
        _compare(read, case.expected, segments)
        if isinstance(case.expected, Request):
            assert behind == BEHIND, len(segments[0])


def check_response(case: ResponseCase, way: str) -> None:
    """The same for a response. With bytes behind it, it is still good, but its connection is not."""
    for segments in WAYS[way](case.data):
        _compare(read_response(case, segments), case.expected, segments)
    expected = case.expected
    if not isinstance(expected, Response) or not expected.is_complete or expected.body is BodyKind.UNTIL_CLOSE:
        return
    if expected.status == 101:
        expected = attrs.evolve(expected, tunnel=expected.tunnel + BEHIND)
    else:
        expected = attrs.evolve(expected, is_reusable=False)
    for segments in WAYS[way](case.data + BEHIND):
        _compare(read_response(case, segments), expected, segments)


def _compare(read: object, expected: object, segments: Sequence[bytes]) -> None:
    cut_at = len(segments[0])
    if isinstance(expected, Refusal):
        assert isinstance(read, Refusal), (read, cut_at)
        assert read.status == expected.status, (read, cut_at)
        assert set(read.reasons) <= set(expected.reasons), (read, cut_at)
    else:
        assert read == expected, cut_at


# -- chunked bodies, either direction ---------------------------------------------------------------------------


def _trailer_of(size: int) -> bytes:
    """A trailer section of *size* bytes with its empty line."""
    return b"X: " + b"t" * (size - 7) + b"\r\n\r\n"


def _chunk_line_of(size: int) -> bytes:
    """A chunk-size line of *size* bytes with its CRLF."""
    return b"1;" + b"e" * (size - 4) + b"\r\n"


CHUNKED: Final = (
    ChunkedCase("no data", b"0\r\n\r\n", (b"", b"")),
    ChunkedCase("one chunk", b"5\r\nhello\r\n0\r\n\r\n", (b"hello", b"")),
    ChunkedCase("two chunks", b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", (b"hello", b"")),
    ChunkedCase("hexadecimal size", b"a\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", b"")),
    ChunkedCase("upper-case size", b"A\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", b"")),
    ChunkedCase("leading zeros", b"0005\r\nhello\r\n000\r\n\r\n", (b"hello", b"")),
    ChunkedCase("payload of line ends", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", (b"\r\n\r\n", b"")),
    ChunkedCase("payload like a last chunk", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", (b"0\r\n\r\n", b"")),
    ChunkedCase("extension", b"5;name=value\r\nhello\r\n0;last\r\n\r\n", (b"hello", b"")),
    ChunkedCase("quoted extension", b'5 ; a="b;c"\r\nhello\r\n0\r\n\r\n', (b"hello", b"")),
    ChunkedCase("extension of only its mark", b"5;\r\nhello\r\n0;\r\n\r\n", (b"hello", b"")),
    ChunkedCase("extension with high bytes", b"5;a=\xe9\r\nhello\r\n0\r\n\r\n", (b"hello", b"")),
    ChunkedCase("extension like a chunk", b"5;3\r\nhello\r\n0;5\r\n\r\n", (b"hello", b"")),
    ChunkedCase("line at the limit", _chunk_line_of(MAX_CHUNK_LINE_BYTES) + b"x\r\n0\r\n\r\n", (b"x", b"")),
    ChunkedCase("trailer", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", (b"hello", b"X-Sum: 1\r\nY: 2\r\n")),
    ChunkedCase("trailers at the limit", b"0\r\n" + _trailer_of(MAX_TRAILER_BYTES), (b"", _trailer_of(8192)[:-2])),
    ChunkedCase("line over the limit", _chunk_line_of(MAX_CHUNK_LINE_BYTES + 1) + b"x\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("line without end", b"1;" + b"e" * 1000, "bad_chunk"),
    ChunkedCase("empty size", b"\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("extension without size", b";a\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size of 15 digits is read", b"000000000000005\r\nhello\r\n0\r\n\r\n", (b"hello", b"")),
    ChunkedCase("size of 16 digits", b"0000000000000005\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size over 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size with plus", b"+5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("negative size", b"-5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size with underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size with letters", b"5g\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("blank before size", b" 5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("blank after size", b"5 \r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("tab after size", b"5\t\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("vertical tab after size", b"5\x0b\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("NUL after size", b"5\0\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("comma after size", b"5,a\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size in other digits", b"\xd9\xa5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("two sizes", b"5 5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size with point", b"5.0\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size in quotes", b'"5"\r\nhello\r\n0\r\n\r\n', "bad_chunk"),
    ChunkedCase("last chunk with 0x", b"0x0\r\n\r\n", "bad_chunk"),
    ChunkedCase("last chunk negative", b"-0\r\n\r\n", "bad_chunk"),
    ChunkedCase("last chunk with a blank behind", b"0 \r\n\r\n", "bad_chunk"),
    ChunkedCase("last chunk with bare LF", b"0\n\r\n", "bad_chunk"),
    ChunkedCase("last chunk with bare LF twice", b"0\n\n", "bad_chunk"),
    ChunkedCase("size line with bare LF", b"5\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("size line with bare CR", b"5\rhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("bare LF in extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("bare CR in extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("quoted CRLF in extension", b'5;a="\r\nhello"\r\n0\r\n\r\n', "bad_chunk"),
    ChunkedCase("extension ended by bare LF", b"5;a\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("extension ended by bare LF, last chunk", b"5\r\nhello\r\n0;a\n\r\n", "bad_chunk"),
    ChunkedCase("NUL in extension", b"5;a\0\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("CR doubled", b"5\r\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk without CRLF", b"5\r\nhello0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk longer than its size", b"5\r\nhello!\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk shorter than its size", b"5\r\nhell\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by bare LF", b"5\r\nhello\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by bare CR", b"5\r\nhello\r0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by LF CR", b"5\r\nhello\n\r0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by CR CR LF", b"5\r\nhello\r\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by two other bytes", b"5\r\nhelloXX0\r\n\r\n", "bad_chunk"),
    ChunkedCase("chunk closed by two line ends", b"5\r\nhello\r\n\r\n0\r\n\r\n", "bad_chunk"),
    ChunkedCase("trailers over the limit", b"0\r\n" + _trailer_of(MAX_TRAILER_BYTES + 1), "trailers_too_large"),
    ChunkedCase("trailers without end", b"0\r\nX: " + b"t" * 9000, "trailers_too_large"),
    ChunkedCase("trailer without colon", b"0\r\nnonsense\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer without name", b"0\r\n: v\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer with blank before colon", b"0\r\nX : v\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer folded", b"0\r\nX: v\r\n w\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer with NUL", b"0\r\nX: \0\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer with bare LF", b"0\r\nX: v\nY: w\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer with bare CR", b"0\r\nX: v\rY: w\r\n\r\n", "bad_trailer"),
    ChunkedCase("last chunk closed by bare LF", b"0\r\n\n", "bad_trailer"),
    ChunkedCase("last chunk closed by CR CR LF", b"0\r\n\r\r\n", "bad_trailer"),
    ChunkedCase("trailer with tab before colon", b"0\r\nX\t: v\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer section begins with a blank", b"0\r\n X: v\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer with high byte in its name", b"0\r\nX\xff: v\r\n\r\n", "bad_trailer"),
    ChunkedCase("trailer like a request", b"0\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n", "bad_trailer"),
)

# -- requests ---------------------------------------------------------------------------------------------------

_GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n"
_POST: Final = b"POST / HTTP/1.1\r\nHost: a\r\n"
_TE: Final = b"Transfer-Encoding: chunked\r\n"
_CHUNKED_BODY: Final = b"5\r\nhello\r\n0\r\n\r\n"


def _good(id: str, data: bytes, **expected: Any) -> RequestCase:
    request = Request(**expected)
    return RequestCase(id, data, request, has_end=request.is_complete)


def _bad(id: str, data: bytes, *reasons: str, status: int = 400, has_end: bool = True) -> RequestCase:
    return RequestCase(id, data, Refusal(status, reasons), has_end)


def _get(line: bytes) -> bytes:
    """A request with one more field line."""
    return _GET + line + b"\r\n\r\n"


def _post(line: bytes, body: bytes = b"hello") -> bytes:
    return _POST + line + b"\r\n\r\n" + body


def _head_of(size: int) -> bytes:
    """A request head of *size* bytes, in lines of which none is very long."""
    lines = b"".join(b"X: " + b"v" * 995 + b"\r\n" for _ in range((size - len(_GET)) // 1000 - 1))
    return _GET + lines + b"Y: " + b"v" * (size - len(_GET) - len(lines) - 7) + b"\r\n\r\n"


def _target_of(size: int) -> bytes:
    return b"/" + b"t" * (size - 1)


_LENGTH: Final[dict[str, Any]] = {"method": b"POST", "body": BodyKind.LENGTH, "payload": b"hello"}
_IN_CHUNKS: Final[dict[str, Any]] = {"method": b"POST", "body": BodyKind.CHUNKED, "payload": b"hello"}

_REQUEST_LINES: Final = (
    _good("plain", _GET + b"\r\n"),
    _good("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", minor_version=0, host=b"", keep_alive=False),
    _good("higher minor version is read as 1.1", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    _good("highest minor version is read as 1.1", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n"),
    _good("method in lower case is another", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", method=b"get"),
    _good("unusual method", b"M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n", method=b"M-SEARCH!#$%&'*+.^_`|~"),
    _good("method of 32 bytes", b"M" * 32 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", method=b"M" * 32),
    _good("empty line before", b"\r\n" + _GET + b"\r\n"),
    _good("empty lines before", b"\r\n\r\n\r\n" + _GET + b"\r\n"),
    _good("only empty lines", b"\r\n\r\n", method=b"", target=b"", host=b"", is_complete=False),
    _good("unfinished line", b"GET / HT", method=b"", target=b"", host=b"", is_complete=False),
    _good("unfinished head", _GET, method=b"", target=b"", host=b"", is_complete=False),
    _bad("method over 32 bytes", b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("endless method", b"M" * 20_000, "bad_request_line"),
    _bad("bare LF before", b"\n" + _GET + b"\r\n", "bad_request_line", "bare_line_end"),
    _bad("bare CR before", b"\r" + _GET + b"\r\n", "bad_request_line", "bare_line_end"),
    _bad("CR CR LF before", b"\r\r\n" + _GET + b"\r\n", "bad_request_line", "bare_line_end"),
    _bad("blank before method", b" " + _GET + b"\r\n", "bad_request_line"),
    _bad("no method", b"/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("no version", b"GET /\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("HTTP/0.9", b"GET /\r\n\r\n", "bad_request_line"),
    _bad("two blanks before target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("two blanks before version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("blank after version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("tab for a blank", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("vertical tab for a blank", b"GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("blank in target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("bare CR after version", b"GET / HTTP/1.1\rHost: a\r\n\r\n", "bad_request_line", "bare_line_end"),
    _bad("bare CR in target", b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line", "bare_line_end"),
    _bad("bare LF after version", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "bad_request_line", "bare_line_end"),
    _bad("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", "bad_request_line", "bare_line_end"),
    _bad("NUL in target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("DEL in target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("non-ASCII target", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("separator in method", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("non-ASCII method", b"G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version of two digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version with leading zero", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version without minor", b"GET / HTTP/1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("another protocol", b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version of three numbers", b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version with comma", b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version with blank inside", b"GET / HTTP/1. 1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version with blank for its slash", b"GET / HTTP 1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("version negative", b"GET / HTTP/-1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("NUL after version", b"GET / HTTP/1.1\0\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("tab after version", b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("two versions", b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("only a method", b"GET\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("method with colon", b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("method in brackets", b"[GET] / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("NUL in method", b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("NUL before method", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("byte order mark before method", b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("request line folded", b"GET /\r\n HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "bad_request_line"),
    _bad("TLS instead", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, "bad_request_line"),
    _bad("version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "unsupported_version", status=505),
    _bad("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "unsupported_version", status=505),
    _bad("version 3.0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "unsupported_version", status=505),
    _bad("version 0.0", b"GET / HTTP/0.0\r\nHost: a\r\n\r\n", "unsupported_version", status=505),
    _bad("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unsupported_version", status=505),
    _bad("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "method_refused", status=405),
    _bad("CONNECT to a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "method_refused", status=405),
    _bad("connect in lower case", b"connect a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "method_refused", status=405),
    _bad("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "method_refused", status=405),
    _bad("trace in lower case", b"trace / HTTP/1.1\r\nHost: a\r\n\r\n", "method_refused", status=405),
)

_TARGETS: Final = (
    _good("query", b"GET /p?q=1&r=%20 HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/p?q=1&r=%20"),
    _good("two slashes", b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", target=b"//b/c"),
    _good("dots in path", b"GET /a/../b/./c HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a/../b/./c"),
    _good("dots above the root", b"GET /../../etc HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/../../etc"),
    _good("encoded dots", b"GET /%2e%2e/%2E HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/%2e%2e/%2E"),
    _good("encoded slashes", b"GET /a%2fb%5Cc HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a%2fb%5Cc"),
    _good("encoded line end", b"GET /a%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a%0d%0aX:%20y"),
    _good("encoded fragment", b"GET /a%23b HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a%23b"),
    _good("encoded NUL", b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a%00b"),
    _good("broken percent-encoding", b"GET /a%zz%1 HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a%zz%1"),
    _good("backslash", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/a\\b"),
    _good("URL in path", b"GET /http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", target=b"/http://b/"),
    _good("absolute-form", b"GET http://a/p HTTP/1.1\r\nHost: a\r\n\r\n", target=b"http://a/p"),
    _good("absolute-form without path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", target=b"http://a"),
    _good("absolute-form, case of Host", b"GET HTTP://A/ HTTP/1.1\r\nHost: a\r\n\r\n", target=b"HTTP://A/", host=b"A"),
    _good("absolute-form, https", b"GET https://a?q HTTP/1.1\r\nHost: a\r\n\r\n", target=b"https://a?q"),
    _good(
        "absolute-form in HTTP/1.0 names the host",
        b"GET http://a:1/ HTTP/1.0\r\n\r\n",
        target=b"http://a:1/",
        host=b"a:1",
        minor_version=0,
        keep_alive=False,
    ),
    _good("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", method=b"OPTIONS", target=b"*"),
    _good(
        "absolute-form in IPv6",
        b"GET http://[::1]:8080/ HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
        target=b"http://[::1]:8080/",
        host=b"[::1]:8080",
    ),
    _good(
        "absolute-form without path of OPTIONS",
        b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        method=b"OPTIONS",
        target=b"http://a",
    ),
    _good(
        "target at the limit",
        b"GET " + _target_of(MAX_TARGET_BYTES) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        target=_target_of(MAX_TARGET_BYTES),
    ),
    _bad(
        "target over the limit",
        b"GET " + _target_of(MAX_TARGET_BYTES + 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "uri_too_long",
        status=414,
    ),
    _bad("target without end", b"GET " + _target_of(20_000), "uri_too_long", status=414, has_end=False),
    _bad("asterisk-form of another method", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("asterisk-form in lower case", b"options * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("asterisk with more behind", b"OPTIONS */a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("query without path", b"GET ?q HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("backslash for a slash", b"GET \\a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("target begins with @", b"GET @b/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("fragment of an absolute-form", b"GET http://a/#f HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("absolute-form of a WebSocket", b"GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form with one slash", b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", "bad_host"),
    _bad("absolute-form with large port", b"GET http://a:65536/ HTTP/1.1\r\nHost: a:65536\r\n\r\n", "bad_host"),
    _bad("authority-form", b"GET a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "bad_target"),
    _bad("relative path", b"GET p HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("fragment", b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    _bad("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("scheme without slashes", b"GET http:a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form with user", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form without host", b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form with only a port", b"GET http://:80/ HTTP/1.0\r\n\r\n", "bad_target"),
    _bad("absolute-form with backslash", b"GET http://a\\@b/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    _bad("absolute-form with bad port", b"GET http://a:b/ HTTP/1.1\r\nHost: a:b\r\n\r\n", "bad_host"),
    _bad("absolute-form of another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "host_mismatch"),
    _bad("absolute-form of another port", b"GET http://a:1/ HTTP/1.1\r\nHost: a:2\r\n\r\n", "host_mismatch"),
    _bad("absolute-form, HTTP/1.0, another host", b"GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n", "host_mismatch"),
)


def _with_host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"


_HOSTS: Final = (
    _good("host without blank", _with_host(b"a")),
    _good("host with blanks around", _with_host(b"  a\t ")),
    _good("host with port", _with_host(b" a.example:8443"), host=b"a.example:8443"),
    _good("host with empty port", _with_host(b" a:"), host=b"a:"),
    _good("host in IPv4", _with_host(b" 127.0.0.1:80"), host=b"127.0.0.1:80"),
    _good("host in IPv6", _with_host(b" [::1]:80"), host=b"[::1]:80"),
    _good("host with underscore", _with_host(b" a_b"), host=b"a_b"),
    _good("host with percent-encoding", _with_host(b" a%2db"), host=b"a%2db"),
    _good("host with dot at its end", _with_host(b" a."), host=b"a."),
    _good("host with commas", _with_host(b" a,b"), host=b"a,b"),
    _good("host with the highest port", _with_host(b" a:65535"), host=b"a:65535"),
    _good("host in another field too", _get(b"X-Host: b\r\nX-Forwarded-Host: c")),
    _bad("host missing", b"GET / HTTP/1.1\r\n\r\n", "bad_host"),
    _bad("host missing, other fields there", b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", "bad_host"),
    _bad("host twice", _get(b"Host: b"), "bad_host"),
    _bad("host twice, the same", _get(b"Host: a"), "bad_host"),
    _bad("host twice in other case", _get(b"hOST: a"), "bad_host"),
    _bad("host twice in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "bad_host"),
    _bad("host twice, one empty", _get(b"Host:"), "bad_host"),
    _bad("host twice, one with blank before colon", _get(b"Host : b"), "bad_header"),
    _bad("host twice, one folded", _get(b" Host: b"), "bad_header"),
    _bad("host twice, one behind bare CR", _get(b"X: y\rHost: b"), "bad_header", "bare_line_end"),
    _bad("host folded", b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "bad_header"),
    _bad("host empty", _with_host(b""), "bad_host"),
    _bad("host blank", _with_host(b" \t "), "bad_host"),
    _bad("host empty in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: \r\n\r\n", "bad_host"),
    _bad("host of only a port", _with_host(b" :80"), "bad_host"),
    _bad("host of two", _with_host(b" a b"), "bad_host"),
    _bad("host with user", _with_host(b" u@a"), "bad_host"),
    _bad("host with path", _with_host(b" a/b"), "bad_host"),
    _bad("host with query", _with_host(b" a?b"), "bad_host"),
    _bad("host with backslash", _with_host(b" a\\b"), "bad_host"),
    _bad("host with scheme", _with_host(b" http://a"), "bad_host"),
    _bad("host with letters in port", _with_host(b" a:b"), "bad_host"),
    _bad("host with long port", _with_host(b" a:123456"), "bad_host"),
    _bad("host with port over 65,535", _with_host(b" a:65536"), "bad_host"),
    _bad("host with negative port", _with_host(b" a:-1"), "bad_host"),
    _bad("host with blank before port", _with_host(b" a: 80"), "bad_host"),
    _bad("host with fragment", _with_host(b" a#b"), "bad_host"),
    _bad("host of two with comma", _with_host(b" a, b"), "bad_host"),
    _bad("host with tab inside", _with_host(b" a\tb"), "bad_host"),
    _bad("host with NUL", _with_host(b" a\0b"), "bad_header"),
    _bad("host with braces", _with_host(b" {a}"), "bad_host"),
    _bad("host with two ports", _with_host(b" a:1:2"), "bad_host"),
    _bad("host in IPv6 without brackets", _with_host(b" ::1"), "bad_host"),
    _bad("host in IPv6 not closed", _with_host(b" [::1"), "bad_host"),
    _bad("host in IPv6 with more behind", _with_host(b" [::1]a"), "bad_host"),
    _bad("host in IPv6 with a zone", _with_host(b" [fe80::1%25eth0]"), "bad_host"),
    _bad("host in empty brackets", _with_host(b" []"), "bad_host"),
    _bad("host of a future IP version", _with_host(b" [v1.a]"), "bad_host"),
    _bad("host non-ASCII", _with_host(b" \xc3\xa9"), "bad_host"),
    _bad("host with broken percent-encoding", _with_host(b" a%zz"), "bad_host"),
    _bad("host with quotes", _with_host(b' "a"'), "bad_host"),
)

_FIELDS: Final = (
    _good("value empty", _get(b"X:")),
    _good("value with tabs and blanks", _get(b"X: \t a \t b \t ")),
    _good("value with high bytes", _get(b"X: \x80\xff")),
    _good("name of all token characters", _get(b"!#$%&'*+-.^_`|~09AZaz: v")),
    _good("value with colons", _get(b"X::: v")),
    _good("framing fields in other spellings are none", _get(b"Content_Length: 5\r\nTransfer_Encoding: chunked")),
    _good("field that asks for a coding of the answer", _get(b"TE: chunked")),
    _good("field that announces trailers", _get(b"Trailer: X")),
    _good("expectation", _post(b"Expect: 100-continue\r\nContent-Length: 5"), **_LENGTH),
    _good("close", _get(b"Connection: close"), keep_alive=False, options=(b"close",)),
    _good("close among others", _get(b"Connection: a, CLOSE ,"), keep_alive=False, options=(b"a", b"close")),
    _good(
        "close on a second line",
        _get(b"Connection: a\r\nConnection: close"),
        keep_alive=False,
        options=(b"a", b"close"),
    ),
    _good(
        "HTTP/1.0 keep-alive",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
        minor_version=0,
        options=(b"keep-alive",),
    ),
    _good(
        "HTTP/1.0 keep-alive and close",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
        minor_version=0,
        options=(b"keep-alive", b"close"),
        keep_alive=False,
    ),
    _good("as many fields as allowed", _GET + b"X: v\r\n" * (MAX_HEADERS - 1) + b"\r\n"),
    _good("Connection empty", _get(b"Connection:")),
    _good("Connection of empty elements", _get(b"Connection: , ,")),
    _good(
        "Connection names fields that frame",
        _post(b"Connection: content-length, transfer-encoding, host\r\nContent-Length: 5"),
        **_LENGTH,
        options=(b"content-length", b"transfer-encoding", b"host"),
    ),
    _good(
        "close wins over keep-alive",
        _get(b"Connection: keep-alive, close"),
        keep_alive=False,
        options=(b"keep-alive", b"close"),
    ),
    _good("head at the limit", _head_of(MAX_HEAD_BYTES)),
    _good(
        "upgrade",
        _get(b"Connection: Upgrade\r\nUpgrade: WebSocket"),
        options=(b"upgrade",),
        upgrade=(b"websocket",),
    ),
    _good(
        "upgrade to one of two",
        _get(b"Connection: Upgrade\r\nUpgrade: websocket, , foo/2"),
        options=(b"upgrade",),
        upgrade=(b"websocket", b"foo/2"),
    ),
    _good("upgrade not nominated", _get(b"Upgrade: websocket")),
    _good("upgrade without protocol", _get(b"Connection: upgrade"), options=(b"upgrade",)),
    _good("upgrade to h2c", _get(b"Connection: Upgrade\r\nUpgrade: h2c"), options=(b"upgrade",)),
    _good(
        "upgrade to H2C in disguise",
        _get(b"Connection: Upgrade\r\nUpgrade: \xa0H2C, \x85h2c, h2c/2, /h2c"),
        options=(b"upgrade",),
    ),
    _good(
        "upgrade in HTTP/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        minor_version=0,
        options=(b"upgrade",),
        keep_alive=False,
    ),
    _good(
        "upgrade with a body is an ordinary request",
        _post(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5"),
        **_LENGTH,
        options=(b"upgrade",),
    ),
    _bad("one field too many", _GET + b"X: v\r\n" * MAX_HEADERS + b"\r\n", "too_many_headers", status=431),
    _bad("head one byte over the limit", _head_of(MAX_HEAD_BYTES + 1), "header_too_large", status=431),
    _bad("head without end", _head_of(MAX_HEAD_BYTES + 5)[:-4], "header_too_large", status=431, has_end=False),
    _bad("Connection not a list", _get(b"Connection: a b"), "bad_connection"),
    _bad("Connection with high bytes", _get(b"Connection: \xa0close"), "bad_connection"),
    _bad("Connection with a parameter", _get(b"Connection: close;x"), "bad_connection"),
    _bad("Connection in quotes", _get(b'Connection: "close"'), "bad_connection"),
    _bad("name empty", _get(b": v"), "bad_header"),
    _bad("name missing", _get(b"v"), "bad_header"),
    _bad("blank before colon", _get(b"X : v"), "bad_header"),
    _bad("tab before colon", _get(b"X\t: v"), "bad_header"),
    _bad("blank in name", _get(b"X Y: v"), "bad_header"),
    _bad("name with high byte", _get(b"X\xff: v"), "bad_header"),
    _bad("name with NUL", _get(b"X\0: v"), "bad_header"),
    _bad("name with separator", _get(b"X(Y): v"), "bad_header"),
    _bad("name in quotes", _get(b'"X": v'), "bad_header"),
    _bad("name with bare CR", _get(b"X\r: v"), "bad_header", "bare_line_end"),
    _bad("name with bare LF", _get(b"X\n: v"), "bad_header", "bare_line_end"),
    _bad("name behind bare CR", _get(b"\rX: v"), "bad_header", "bare_line_end"),
    _bad("name behind NUL", _get(b"\0X: v"), "bad_header"),
    _bad("first line folded", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "bad_header"),
    _bad("folded with blank", _get(b"X: v\r\n w"), "bad_header"),
    _bad("folded with tab", _get(b"X: v\r\n\tw"), "bad_header"),
    _bad("folded to nothing", _get(b"X: v\r\n "), "bad_header"),
    _bad("value with NUL", _get(b"X: a\0b"), "bad_header"),
    _bad("value with escape", _get(b"X: a\x1bb"), "bad_header"),
    _bad("value with DEL", _get(b"X: a\x7fb"), "bad_header"),
    _bad("value with vertical tab", _get(b"X: \x0bv"), "bad_header"),
    _bad("value with form feed", _get(b"X: \x0cv"), "bad_header"),
    _bad("value with bare CR", _get(b"X: a\rb"), "bad_header", "bare_line_end"),
    _bad("value with bare LF", _get(b"X: a\nY: b"), "bad_header", "bare_line_end"),
    _bad("line ended by LF CR", _get(b"X: a\n\rY: b"), "bad_header", "bare_line_end"),
    _bad("line ended by CR CR LF", _get(b"X: a\r\r\nY: b"), "bad_header", "bare_line_end"),
    _bad("head ended by LF", _GET + b"\n", "bare_line_end", "bad_header"),
    _bad("head ended by LF LF", _GET[:-2] + b"\n\n", "bare_line_end", "bad_header"),
)


def _length(value: bytes) -> bytes:
    return _post(b"Content-Length:" + value)


def _coding(value: bytes) -> bytes:
    return _post(b"Transfer-Encoding:" + value, _CHUNKED_BODY)


_FRAMINGS: Final = (
    _good("length", _length(b" 5"), **_LENGTH),
    _good("length without blank", _length(b"5"), **_LENGTH),
    _good("length with blanks around", _length(b"  5  "), **_LENGTH),
    _good("length with leading zeros", _length(b" 0005"), **_LENGTH),
    _good("length of 18 digits is read", _length(b" 000000000000000005"), **_LENGTH),
    _good("length zero", _post(b"Content-Length: 0", b""), method=b"POST"),
    _good("length of a GET", _get(b"Content-Length: 5") + b"hello", body=BodyKind.LENGTH, payload=b"hello"),
    _good("length, body unfinished", _post(b"Content-Length: 6"), **_LENGTH, is_complete=False),
    _good("length over 32 bits does not wrap", _length(b" 4294967301"), **_LENGTH, is_complete=False),
    _good(
        "chunk size over 32 bits does not wrap",
        _post(_TE[:-2], b"100000005\r\nhello"),
        **_IN_CHUNKS,
        is_complete=False,
    ),
    _good("chunked, body unfinished", _post(_TE[:-2], b"5\r\nhello\r\n0\r\n"), **_IN_CHUNKS, is_complete=False),
    _good("chunked GET", _get(_TE[:-2]) + _CHUNKED_BODY, body=BodyKind.CHUNKED, payload=b"hello"),
    _good(
        "length of a HEAD",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        method=b"HEAD",
        body=BodyKind.LENGTH,
        payload=b"hello",
    ),
    _good(
        "length in HTTP/1.0",
        b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        **_LENGTH,
        host=b"",
        minor_version=0,
        keep_alive=False,
    ),
    _bad("length twice, differing", _post(b"Content-Length: 5\r\nContent-Length: 6"), "bad_content_length"),
    _bad("length twice, the same", _post(b"Content-Length: 5\r\nContent-Length: 5"), "bad_content_length"),
    _bad("length twice in other case", _post(b"Content-Length: 5\r\ncontent-length: 5"), "bad_content_length"),
    _bad("length as a list", _length(b" 5, 5"), "bad_content_length"),
    _bad("length as a list with a gap", _length(b" 5,"), "bad_content_length"),
    _bad("length as a list that begins with a gap", _length(b" ,5"), "bad_content_length"),
    _bad("length with a parameter", _length(b" 5;5"), "bad_content_length"),
    _bad("length twice, one zero", _post(b"Content-Length: 0\r\nContent-Length: 5"), "bad_content_length"),
    _bad("length twice, one empty", _post(b"Content-Length: 5\r\nContent-Length:"), "bad_content_length"),
    _bad("length twice, zero both", _post(b"Content-Length: 0\r\nContent-Length: 0", b""), "bad_content_length"),
    _bad("length twice, one with blank", _post(b"Content-Length: 5\r\nContent-Length : 6"), "bad_header"),
    _bad("length empty", _length(b""), "bad_content_length"),
    _bad("length blank", _length(b" "), "bad_content_length"),
    _bad("length with plus", _length(b" +5"), "bad_content_length"),
    _bad("length with minus", _length(b" -5"), "bad_content_length"),
    _bad("length of minus zero", _length(b" -0"), "bad_content_length"),
    _bad("length in octal", _length(b" 0o5"), "bad_content_length"),
    _bad("length in binary", _length(b" 0b101"), "bad_content_length"),
    _bad("length with vertical tab", _length(b" \x0b5"), "bad_header"),
    _bad("length with form feed", _length(b" 5\x0c"), "bad_header"),
    _bad("length with tab behind", _length(b" 5\t"), "bad_content_length"),
    _bad("length in hexadecimal", _length(b" 0x5"), "bad_content_length"),
    _bad("length with letters", _length(b" 5a"), "bad_content_length"),
    _bad("length with point", _length(b" 5.0"), "bad_content_length"),
    _bad("length with exponent", _length(b" 5e0"), "bad_content_length"),
    _bad("length with underscore", _length(b" 1_0"), "bad_content_length"),
    _bad("length with blank inside", _length(b" 5 5"), "bad_content_length"),
    _bad("length with tab", _length(b"\t5"), "bad_content_length"),
    _bad("length in quotes", _length(b' "5"'), "bad_content_length"),
    _bad("length with no-break space", _length(b" \xa05"), "bad_content_length"),
    _bad("length in other digits", _length(b" \xd9\xa5"), "bad_content_length"),
    _bad("length of 19 digits", _length(b" 0000000000000000005"), "bad_content_length"),
    _bad("length over 64 bits", _length(b" 18446744073709551621"), "bad_content_length"),
    _bad("length with NUL", _length(b" 5\0"), "bad_header"),
    _bad("length with blank before colon", _post(b"Content-Length : 5"), "bad_header"),
    _bad("length with tab before colon", _post(b"Content-Length\t: 5"), "bad_header"),
    _bad("length with NUL before colon", _post(b"Content-Length\0: 5"), "bad_header"),
    _bad("length behind bare CR", _post(b"X: y\rContent-Length: 5"), "bad_header", "bare_line_end"),
    _bad("length behind bare LF", _post(b"X: y\nContent-Length: 5"), "bad_header", "bare_line_end"),
    _bad("length as a folded line", _post(b"X: y\r\n Content-Length: 5"), "bad_header"),
    _bad("length folded", _length(b"\r\n 5"), "bad_header"),
    _good("chunked", _coding(b" chunked"), **_IN_CHUNKS),
    _good("chunked without blank", _coding(b"chunked"), **_IN_CHUNKS),
    _good("chunked in capitals", _coding(b" CHUNKED"), **_IN_CHUNKS),
    _good("chunked with more blanks", _coding(b"  chunked "), **_IN_CHUNKS),
    _good("chunked in other case", _coding(b" chUnKeD"), **_IN_CHUNKS),
    _good("chunked in a name of other case", _post(b"tRANSFER-eNCODING: chunked", _CHUNKED_BODY), **_IN_CHUNKS),
    _bad("both framings", _post(_TE + b"Content-Length: 5", _CHUNKED_BODY), "both_framings"),
    _bad("both framings, length first", _post(b"Content-Length: 5\r\n" + _TE[:-2], _CHUNKED_BODY), "both_framings"),
    _bad("both framings, length zero", _post(b"Content-Length: 0\r\n" + _TE[:-2], _CHUNKED_BODY), "both_framings"),
    _bad("both framings, other coding", _post(b"Content-Length: 5\r\nTransfer-Encoding: x"), "both_framings"),
    _bad("both framings, coding empty", _post(b"Content-Length: 5\r\nTransfer-Encoding:"), "both_framings"),
    _bad("both framings, length malformed", _post(_TE + b"Content-Length: x", _CHUNKED_BODY), "both_framings"),
    _bad(
        "both framings in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n" + _TE + b"\r\n" + _CHUNKED_BODY,
        "both_framings",
    ),
    _bad(
        "identity in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "framing_in_1_0",
    ),
    *(
        _bad(f"chunked and {other}", _post(lines, _CHUNKED_BODY), "bad_transfer_encoding", status=501)
        for other, lines in (
            ("identity behind", _TE + b"Transfer-Encoding: identity"),
            ("identity before", b"Transfer-Encoding: identity\r\n" + _TE[:-2]),
            ("a cow behind", _TE + b"Transfer-Encoding: cow"),
            ("a cow before", b"Transfer-Encoding: cow\r\n" + _TE[:-2]),
            ("nothing behind", _TE + b"Transfer-Encoding:"),
            ("nothing before", b"Transfer-Encoding:\r\n" + _TE[:-2]),
            ("chunked in another case", _TE + b"transfer-encoding: chunked"),
        )
    ),
    _bad("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\n" + _TE + b"\r\n" + _CHUNKED_BODY, "framing_in_1_0"),
    _bad("chunked twice", _post(_TE + _TE[:-2], _CHUNKED_BODY), "bad_transfer_encoding", status=501),
    _bad("chunked with blank before colon", _post(b"Transfer-Encoding : chunked", _CHUNKED_BODY), "bad_header"),
    *(
        _bad(f"chunked in disguise {line!r}", _post(line, _CHUNKED_BODY), "bad_header", "bare_line_end")
        for line in (
            b"Transfer-Encoding\t: chunked",
            b"Transfer-Encoding\0: chunked",
            b"Transfer-Encoding\x0b: chunked",
            b"Transfer-Encoding\xa0: chunked",
            b"Transfer-Encoding\r: chunked",
            b"Transfer-Encoding\n: chunked",
            b"Transfer-Encoding\r\n : chunked",
            b"Transfer\x0bEncoding: chunked",
            b"Transfer Encoding: chunked",
            b"Transfer-Encoding=chunked",
            b"Transfer-Encoding chunked",
            b" Transfer-Encoding: chunked",
            b"\tTransfer-Encoding: chunked",
            b"\rTransfer-Encoding: chunked",
            b"\0Transfer-Encoding: chunked",
            b":Transfer-Encoding: chunked",
            b'"Transfer-Encoding": chunked',
            b"X: y\rTransfer-Encoding: chunked",
            b"X: y\r\n Transfer-Encoding: chunked",
            b"X:\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\n",
            b"Transfer-Encoding:\rchunked",
            b"Transfer-Encoding: \0chunked",
            b"Transfer-Encoding: chunked\0",
            b"Transfer-Encoding: chunked\x0b",
            b"Transfer-Encoding: \x0cchunked",
            b"Transfer-Encoding: chun\x08ked",
            b"Transfer-Encoding: chunked\r\n\t, identity",
            b"Transfer-Encoding:\r\n\tchunked",
        )
    ),
    _bad("chunked folded", _coding(b"\r\n chunked"), "bad_header"),
    _bad("chunked behind vertical tab", _coding(b" \x0bchunked"), "bad_header"),
    _bad("chunked behind bare LF", _post(b"X: y\nTransfer-Encoding: chunked"), "bad_header", "bare_line_end"),
    *(
        _bad(f"coding {value!r}", _coding(value), "bad_transfer_encoding", status=501)
        for value in (
            b"",
            b" chunked, chunked",
            b" gzip, chunked",
            b" chunked, gzip",
            b" gzip",
            b" identity",
            b" chunked, identity",
            b" ,chunked",
            b" chunked,",
            b" chunked;q=1",
            b' "chunked"',
            b" 'chunked'",
            b" xchunked",
            b" chunked x",
            b" chunke",
            b" \xa0chunked",
            b" chunked\x85",
            b"\tchunked",
            b" chunked\t",
            b" c hunked",
            b" identity, chunked",
            b" deflate, chunked",
            b" chunked;",
            b" chunked; x",
            b" chunked,,",
            b" chunkedchunked",
            b" chunked, chunked, chunked",
            b' "chunked',
            b" chunk",
            b" chunked-false",
            b" x\tchunked",
            b" ch\xc3\xbcnked",
            b" \xefchunked",
            b" [chunked]",
            b" chunked:",
            b" trailers",
            b" ,",
        )
    ),
)

REQUESTS: Final = (
    *_REQUEST_LINES,
    *_TARGETS,
    *_HOSTS,
    *_FIELDS,
    *_FRAMINGS,
    *(
        RequestCase(
            f"chunked: {case.id}",
            _POST + _TE + b"\r\n" + case.data,
            Refusal(400, (case.expected,))
            if isinstance(case.expected, str)
            else Request(method=b"POST", body=BodyKind.CHUNKED, payload=case.expected[0], trailers=case.expected[1]),
        )
        for case in CHUNKED
    ),
)

# -- responses --------------------------------------------------------------------------------------------------

_OK: Final = b"HTTP/1.1 200 OK\r\n"


def _answer(
    id: str,
    data: bytes,
    *,
    method: bytes = b"GET",
    offered: tuple[bytes, ...] = (),
    eof: bool = False,
    **expected: Any,
) -> ResponseCase:
    return ResponseCase(
        id=id,
        data=data,
        method=method,
        offered=offered,
        eof=eof,
        expected=Response(**expected),
    )


def _broken(
    id: str,
    data: bytes,
    *reasons: str,
    method: bytes = b"GET",
    offered: tuple[bytes, ...] = (),
    eof: bool = False,
) -> ResponseCase:
    return ResponseCase(
        id=id,
        data=data,
        method=method,
        offered=offered,
        eof=eof,
        expected=Refusal(502, reasons),
    )


_LENGTH_5: Final = b"Content-Length: 5\r\n"
_HELLO: Final[dict[str, Any]] = {"body": BodyKind.LENGTH, "payload": b"hello"}
_TO_THE_END: Final[dict[str, Any]] = {"body": BodyKind.UNTIL_CLOSE, "payload": b"hello"}

RESPONSES: Final = (
    _answer("length", _OK + _LENGTH_5 + b"\r\nhello", **_HELLO),
    _answer("length zero", _OK + b"Content-Length: 0\r\n\r\n"),
    _answer("length with leading zeros", _OK + b"Content-Length: 0005\r\n\r\nhello", **_HELLO),
    _answer("length over 32 bits", _OK + b"Content-Length: 4294967301\r\n\r\nhello", **_HELLO, is_complete=False),
    _answer(
        "chunked in capitals",
        _OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + _CHUNKED_BODY,
        body=BodyKind.CHUNKED,
        payload=b"hello",
    ),
    _answer("higher minor version is read as 1.1", b"HTTP/1.2 200 OK\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO),
    _answer("length unfinished", _OK + b"Content-Length: 6\r\n\r\nhello", **_HELLO, is_complete=False),
    _answer("until close", _OK + b"\r\nhello", eof=True, **_TO_THE_END),
    _answer("until close, nothing", _OK + b"\r\n", eof=True, body=BodyKind.UNTIL_CLOSE),
    _answer("until close, not closed yet", _OK + b"\r\nhello", **_TO_THE_END, is_complete=False),
    _answer("close", _OK + b"Connection: close\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO, keep_alive=False),
    _answer(
        "unreadable Connection",
        _OK + b"Connection: a b\r\n" + _LENGTH_5 + b"\r\nhello",
        **_HELLO,
        keep_alive=False,
    ),
    _answer("HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO, keep_alive=False),
    _answer(
        "HTTP/1.0 keep-alive",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + _LENGTH_5 + b"\r\nhello",
        **_HELLO,
    ),
    _answer("HTTP/1.0 until close", b"HTTP/1.0 200 OK\r\n\r\nhello", eof=True, **_TO_THE_END, keep_alive=False),
    _answer("no reason phrase", b"HTTP/1.1 200 \r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO),
    _answer("no blank after the status", b"HTTP/1.1 200\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO),
    _answer("reason phrase with high bytes", b"HTTP/1.1 200 D\xe9j\xe0\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO),
    _answer("unusual status", b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", status=599),
    _answer("to HEAD", _OK + _LENGTH_5 + b"\r\n", method=b"HEAD", is_reusable=False),
    _answer("to HEAD, chunked", _OK + _TE + b"\r\n", method=b"HEAD", is_reusable=False),
    _answer("to HEAD, length 0", _OK + b"Content-Length: 0\r\n\r\n", method=b"HEAD"),
    _answer("to HEAD, length 00", _OK + b"Content-Length: 00\r\n\r\n", method=b"HEAD", is_reusable=False),
    _answer("to HEAD, no framing", _OK + b"\r\n", method=b"HEAD"),
    _answer("to HEAD with a body", _OK + _LENGTH_5 + b"\r\nhello", method=b"HEAD", is_reusable=False),
    _answer("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    _answer("204 with a length", b"HTTP/1.1 204 No Content\r\n" + _LENGTH_5 + b"\r\n", status=204, is_reusable=False),
    _answer("204 with a length of 0", b"HTTP/1.1 204 No Content\r\ncontent-LENGTH:0 \r\n\r\n", status=204),
    _answer("204, chunked", b"HTTP/1.1 204 No Content\r\n" + _TE + b"\r\n", status=204, is_reusable=False),
    _answer("204 with a body", b"HTTP/1.1 204 No Content\r\n\r\nhello", status=204, is_reusable=False),
    _answer("304", b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", status=304),
    _answer("304 with a length", b"HTTP/1.1 304 Not Modified\r\n" + _LENGTH_5 + b"\r\n", status=304, is_reusable=False),
    _answer("304, chunked", b"HTTP/1.1 304 Not Modified\r\n" + _TE + b"\r\n", status=304, is_reusable=False),
    _answer(
        "304 with a body",
        b"HTTP/1.1 304 Not Modified\r\n" + _LENGTH_5 + b"\r\nhello",
        status=304,
        is_reusable=False,
    ),
    _answer("205 has a body as others", b"HTTP/1.1 205 Reset\r\n" + _LENGTH_5 + b"\r\nhello", **_HELLO, status=205),
    _answer("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + _LENGTH_5 + b"\r\nhello", **_HELLO, interim=(100,)),
    _answer(
        "100 with a length has no body",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\n" + _OK + _LENGTH_5 + b"\r\nhello",
        **_HELLO,
        interim=(100,),
    ),
    _answer("only 100", b"HTTP/1.1 100 Continue\r\n\r\n", status=0, interim=(100,), is_complete=False),
    _answer(
        "chunked 103 has no body",
        b"HTTP/1.1 103 Early Hints\r\n" + _TE + b"\r\n" + _OK + _LENGTH_5 + b"\r\nhello",
        **_HELLO,
        interim=(103,),
    ),
    _answer(
        "different interim responses",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.0 199 Odd\r\n\r\n"
        + _OK
        + _LENGTH_5
        + b"\r\nhello",
        **_HELLO,
        interim=(100, 102, 199),
    ),
    _answer(
        "as many interim responses as allowed",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * MAX_INTERIM_RESPONSES + _OK + b"Content-Length: 0\r\n\r\n",
        interim=(103,) * MAX_INTERIM_RESPONSES,
    ),
    _broken("too many interim responses", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17, "too_many_interim"),
    _answer(
        "101",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        status=101,
        offered=(b"websocket",),
    ),
    _answer(
        "101 with bytes behind",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
        status=101,
        offered=(b"websocket",),
        tunnel=b"\x81\x05hello",
    ),
    _answer(
        "101 with a length is followed by the tunnel",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" + _LENGTH_5 + b"\r\n\x81\x05hello",
        status=101,
        offered=(b"websocket",),
        tunnel=b"\x81\x05hello",
    ),
    _answer("upgrade declined", _OK + _LENGTH_5 + b"\r\nhello", **_HELLO, offered=(b"websocket",)),
    _broken("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "unasked_upgrade"),
    *(
        _answer(
            f"101 to {choice}",
            b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n",
            status=101,
            offered=(b"websocket", b"x/1", b"y"),
        )
        for choice, fields in (
            ("the last of those offered", b"Upgrade: y\r\n"),
            ("one with its version", b"Upgrade: x/1\r\n"),
            ("one in another case", b"UPGRADE: WebSocket\r\n"),
            ("one between blanks", b"Upgrade: \t websocket \t\r\n"),
            ("two of those offered", b"Upgrade: y, x/1\r\n"),
            ("two in two fields", b"Upgrade: y\r\nUpgrade: x/1\r\n"),
            ("one twice", b"Upgrade: y, y\r\n"),
            ("one among empty elements", b"Upgrade: , y,, \r\n"),
        )
    ),
    *(
        _broken(
            f"101 to {choice}",
            b"HTTP/1.%d 101 Switching Protocols\r\n" % minor + fields + b"\r\n",
            "unasked_upgrade",
            offered=(b"websocket", b"x/1", b"y"),
        )
        for choice, minor, fields in (
            ("nothing", 1, b""),
            ("an empty list", 1, b"Upgrade:\r\n"),
            ("empty elements", 1, b"Upgrade: , ,\r\n"),
            ("another", 1, b"Upgrade: z\r\n"),
            ("h2c", 1, b"Upgrade: h2c\r\n"),
            ("another version", 1, b"Upgrade: x/2\r\n"),
            ("no version", 1, b"Upgrade: x\r\n"),
            ("a version that was not asked for", 1, b"Upgrade: websocket/13\r\n"),
            ("a part of a name", 1, b"Upgrade: web\r\n"),
            ("one offered and another", 1, b"Upgrade: websocket, z\r\n"),
            ("another in a second field", 1, b"Upgrade: websocket\r\nUpgrade: z\r\n"),
            ("one in quotes", 1, b'Upgrade: "websocket"\r\n'),
            ("one behind a no-break space", 1, b"Upgrade: \xa0websocket\r\n"),
            ("two without a comma", 1, b"Upgrade: websocket y\r\n"),
            ("one offered, in HTTP/1.0", 0, b"Upgrade: websocket\r\n"),
        )
    ),
    _answer("as many fields as allowed", _OK + b"Content-Length: 0\r\n" + b"X: v\r\n" * 99 + b"\r\n"),
    _broken("one field too many", _OK + b"X: v\r\n" * 101 + b"\r\n", "too_many_headers"),
    _answer("head at the limit", _OK + b"Content-Length: 0\r\n" + b"X: " + b"v" * (61_440 - 43) + b"\r\n\r\n"),
    _broken(
        "head over the limit",
        _OK + b"Content-Length: 0\r\n" + b"X: " + b"v" * (61_441 - 43) + b"\r\n\r\n",
        "response_header_too_large",
    ),
    _broken("head without end", _OK + b"X: " + b"v" * 61_441, "response_header_too_large"),
    _broken("both framings", _OK + _LENGTH_5 + _TE + b"\r\n" + _CHUNKED_BODY, "both_framings"),
    _broken("both framings to HEAD", _OK + _LENGTH_5 + _TE + b"\r\n", "both_framings", method=b"HEAD"),
    _broken("length twice, differing", _OK + _LENGTH_5 + b"Content-Length: 6\r\n\r\nhello", "bad_content_length"),
    _broken("length twice, the same", _OK + _LENGTH_5 + _LENGTH_5 + b"\r\nhello", "bad_content_length"),
    _broken("length as a list", _OK + b"Content-Length: 5, 5\r\n\r\nhello", "bad_content_length"),
    _broken("length negative", _OK + b"Content-Length: -5\r\n\r\nhello", "bad_content_length"),
    _broken("length with plus", _OK + b"Content-Length: +5\r\n\r\nhello", "bad_content_length"),
    _broken("length empty", _OK + b"Content-Length:\r\n\r\nhello", "bad_content_length"),
    _broken("length behind a tab", _OK + b"Content-Length:\t5\r\n\r\nhello", "bad_content_length"),
    _broken("length with blank inside", _OK + b"Content-Length: 5 5\r\n\r\nhello", "bad_content_length"),
    _broken("length with a list of one", _OK + b"Content-Length: 5,\r\n\r\nhello", "bad_content_length"),
    _broken("length to HEAD twice", _OK + _LENGTH_5 + _LENGTH_5 + b"\r\n", "bad_content_length", method=b"HEAD"),
    _broken("length of a 204 malformed", b"HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n", "bad_content_length"),
    _broken("length in hexadecimal", _OK + b"Content-Length: 0x5\r\n\r\nhello", "bad_content_length"),
    _broken("length over 64 bits", _OK + b"Content-Length: 18446744073709551621\r\n\r\n", "bad_content_length"),
    _broken("length of a 304 malformed", b"HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n", "bad_content_length"),
    _broken("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + _TE + b"\r\n" + _CHUNKED_BODY, "framing_in_1_0"),
    _broken("chunked twice", _OK + _TE + _TE + b"\r\n" + _CHUNKED_BODY, "bad_transfer_encoding"),
    _broken("coding gzip, chunked", _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "bad_transfer_encoding"),
    _broken("coding identity", _OK + b"Transfer-Encoding: identity\r\n\r\n", "bad_transfer_encoding"),
    _broken("coding chunked, gzip", _OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "bad_transfer_encoding"),
    _broken("coding empty", _OK + b"Transfer-Encoding:\r\n\r\n", "bad_transfer_encoding"),
    _broken("coding with a parameter", _OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n", "bad_transfer_encoding"),
    _broken("coding in quotes", _OK + b'Transfer-Encoding: "chunked"\r\n\r\n', "bad_transfer_encoding"),
    _broken("coding behind vertical tab", _OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n", "bad_response_head"),
    _broken("coding folded", _OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n", "bad_response_head"),
    _broken("coding with blank before colon", _OK + b"Transfer-Encoding : chunked\r\n\r\n", "bad_response_head"),
    _broken("coding behind a tab", _OK + b"Transfer-Encoding:\tchunked\r\n\r\n", "bad_transfer_encoding"),
    _broken("empty line before", b"\r\n" + _OK + _LENGTH_5 + b"\r\nhello", "bad_response_head"),
    _broken("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", "bad_response_head"),
    _broken("HTTP/0.9", b"<html>hello</html>", "bad_response_head"),
    _broken("version 2", b"HTTP/2.0 200 OK\r\n\r\n", "bad_response_head"),
    _broken("version in lower case", b"http/1.1 200 OK\r\n\r\n", "bad_response_head"),
    _broken("version of two digits", b"HTTP/1.10 200 OK\r\n\r\n", "bad_response_head"),
    _broken("version 0.9", b"HTTP/0.9 200 OK\r\n\r\n", "bad_response_head"),
    _broken("blank before version", b" HTTP/1.1 200 OK\r\n\r\n", "bad_response_head"),
    _broken("status with letters", b"HTTP/1.1 2OO OK\r\n\r\n", "bad_response_head"),
    _broken("status with sign", b"HTTP/1.1 +200 OK\r\n\r\n", "bad_response_head"),
    _broken("status behind a tab", b"HTTP/1.1\t200 OK\r\n\r\n", "bad_response_head"),
    _broken("status without a phrase but a tab", b"HTTP/1.1 200\tOK\r\n\r\n", "bad_response_head"),
    _broken("status of 101 in HTTP/1.0, unasked", b"HTTP/1.0 101 Switching Protocols\r\n\r\n", "unasked_upgrade"),
    _broken("no status", b"HTTP/1.1 OK\r\n\r\n", "bad_response_head"),
    _broken("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", "bad_response_head"),
    _broken("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", "bad_response_head"),
    _broken("status below 100", b"HTTP/1.1 099 Low\r\n\r\n", "bad_response_head"),
    _broken("status above 599", b"HTTP/1.1 600 High\r\n\r\n", "bad_status"),
    _broken("two blanks before status", b"HTTP/1.1  200 OK\r\n\r\n", "bad_response_head"),
    _broken("control character in the phrase", b"HTTP/1.1 200 \x1b[0m\r\n\r\n", "bad_response_head"),
    _broken("bare CR in the phrase", b"HTTP/1.1 200 O\rK\r\n\r\n", "bad_response_head"),
    _broken("NUL in the phrase", b"HTTP/1.1 200 O\0K\r\n\r\n", "bad_response_head"),
    _broken("line without colon", _OK + b"nonsense\r\n\r\n", "bad_response_head"),
    _broken("name empty", _OK + b": v\r\n\r\n", "bad_response_head"),
    _broken("name with high byte", _OK + b"X\xff: v\r\n\r\n", "bad_response_head"),
    _broken("first line folded", b"HTTP/1.1 200 OK\r\n X: v\r\n\r\n", "bad_response_head"),
    _broken("interim response malformed", b"HTTP/1.1 103 Hints\r\nX : v\r\n\r\n" + _OK + b"\r\n", "bad_response_head"),
    _broken("bare LF everywhere", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bad_response_head"),
    _broken("splitting by bare CR", _OK + b"X: a\rSet-Cookie: b\r\n\r\n", "bad_response_head"),
    _broken("splitting by bare LF", _OK + b"X: a\nSet-Cookie: b\r\n\r\n", "bad_response_head"),
    _broken("folded", _OK + b"X: a\r\n b\r\n\r\n", "bad_response_head"),
    _broken("blank before colon", _OK + b"Content-Length : 5\r\n\r\nhello", "bad_response_head"),
    _broken("NUL", _OK + b"X: a\0\r\n\r\n", "bad_response_head"),
    _broken("nothing", b"H", "response_cut", eof=True),
    _broken("cut in its status line", b"HTTP/1.1 2", "response_cut", eof=True),
    _broken("cut in its head", _OK + _LENGTH_5, "response_cut", eof=True),
    _broken("cut before its body", _OK + _LENGTH_5 + b"\r\n", "response_cut", eof=True),
    _broken("cut in its body", _OK + _LENGTH_5 + b"\r\nhell", "response_cut", eof=True),
    _broken("cut after 100", b"HTTP/1.1 100 Continue\r\n\r\n", "response_cut", eof=True),
    *(
        _broken(f"chunked, cut after {size}", (_OK + _TE + b"\r\n" + _CHUNKED_BODY)[:-size], "response_cut", eof=True)
        for size in range(1, len(_CHUNKED_BODY) + 1)
    ),
    *(
        ResponseCase(
            id=f"chunked: {case.id}",
            data=_OK + _TE + b"\r\n" + case.data,
            expected=Refusal(502, (case.expected,))
            if isinstance(case.expected, str)
            else Response(body=BodyKind.CHUNKED, payload=case.expected[0], trailers=case.expected[1]),
        )
        for case in CHUNKED
    ),
)
