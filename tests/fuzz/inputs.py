"""
What the fuzzer feeds to the program, as values: their repr is a literal that makes them again, which is what a failure
is reported as.
"""

from __future__ import annotations

from typing import Final

import attrs

from tests.support import frames
from tests.support.cases import MAX_HEAD_BYTES, MAX_HEADERS, REQUESTS, RESPONSES
from tests.support.proxyheaders import BEHIND, INVALID, NONE, SIGNATURE, VALID

SMALL_HEAD_BYTES: Final = 1024
"""The least that can be set: mutated heads reach it, and seldom reach the default."""

SMALL_HEADERS: Final = 12

SMALL_BODY_BYTES: Final = 300


@attrs.frozen(kw_only=True)
class RequestInput:
    """
    What a client sends.

    Attributes:
        cuts: Where the data is cut into the pieces that arrive.
        has_small_limits: Whether small limits hold for it, rather than the default ones.
        is_hasty: Whether the client goes on without waiting for answers, for as long as it may.
    """

    data: bytes
    cuts: tuple[int, ...] = ()
    has_small_limits: bool = False
    is_hasty: bool = False

    @property
    def max_head_bytes(self) -> int:
        return SMALL_HEAD_BYTES if self.has_small_limits else MAX_HEAD_BYTES

    @property
    def max_headers(self) -> int:
        return SMALL_HEADERS if self.has_small_limits else MAX_HEADERS

    @property
    def max_body_bytes(self) -> int:
        """Of a request; 0: any."""
        return SMALL_BODY_BYTES if self.has_small_limits else 0


@attrs.frozen(kw_only=True)
class ResponseInput(RequestInput):
    """
    What an app sends.

    Attributes:
        method: Of the request that it answers.
        minor_version: Of that request.
        offered: The protocols that the request offers to switch to.
        is_closed: Whether the app closes its side afterwards.
    """

    method: bytes = b"GET"
    minor_version: int = 1
    offered: tuple[bytes, ...] = ()
    is_closed: bool = False


@attrs.frozen(kw_only=True)
class HeaderInput(RequestInput):
    """
    What a connection begins with where there may be a header of the PROXY protocol.

    Attributes:
        is_required: Whether there must be one.
        is_trusted: Whether one is believed.
    """

    is_required: bool = False
    is_trusted: bool = True


@attrs.frozen(kw_only=True)
class FrameInput(RequestInput):
    """What a client sends that has agreed on HTTP/2."""


@attrs.frozen(kw_only=True)
class AppFrameInput(FrameInput):
    """What an app sends that speaks HTTP/2, to which four requests were sent: GET, HEAD, a POST without end, GET."""


def segments(data: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """Cut *data* at the places of *cuts* that lie inside it; no piece is empty."""
    ends = [*sorted({place for place in cuts if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


_MANY: Final = 64 * 1024
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"

_ENDLESS_BODIES: Final = (
    b"0\r\nX: " + b"t" * _MANY,
    b"0\r\n" + b"X: y\r\n" * (_MANY // 6),
    b"1;" + b"e" * _MANY,
    b"0" * _MANY,
    b"1\r\na\r\n" * (_MANY // 6),
)
"""Chunked bodies that do not end where somebody waits for an end."""

_ENDLESS_REQUESTS: Final = (
    b"\r\n" * (_MANY // 2),
    b"G" * _MANY,
    b"GET /" + b"a" * _MANY,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * _MANY,
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (_MANY // 6),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (_MANY // 29),
    *(b"POST / HTTP/1.1\r\nHost: a\r\n" + _CHUNKED + body for body in _ENDLESS_BODIES),
)

_ENDLESS_RESPONSES: Final = (
    b"HTTP/1.1 200 " + b"K" * _MANY,
    b"HTTP/1.1 200 OK\r\nX: " + b"v" * _MANY,
    b"HTTP/1.1 103 Early Hints\r\n\r\n" * (_MANY // 28),
    *(b"HTTP/1.1 200 OK\r\n" + _CHUNKED + body for body in _ENDLESS_BODIES),
)

REQUEST_SEEDS: Final[tuple[RequestInput, ...]] = (
    *(RequestInput(data=case.data) for case in REQUESTS),
    *(RequestInput(data=data, has_small_limits=True) for data in _ENDLESS_REQUESTS),
)

RESPONSE_SEEDS: Final[tuple[ResponseInput, ...]] = (
    *(
        ResponseInput(data=case.data, method=case.method, offered=case.offered, is_closed=case.eof)
        for case in RESPONSES
    ),
    *(ResponseInput(data=data, has_small_limits=True) for data in _ENDLESS_RESPONSES),
)

_ENDLESS_HEADERS: Final = (
    b"PROXY " * (_MANY // 6),
    b"PROXY UNKNOWN " + b"x" * _MANY,
    SIGNATURE + b"\x21\x11\xff\xff" + bytes(_MANY),
    SIGNATURE + b"\x20\x00\x0f\xf0" + b"\x04\0\0" * (_MANY // 3),
)

HEADER_SEEDS: Final[tuple[HeaderInput, ...]] = (
    *(HeaderInput(data=case.data) for case in (*VALID, *INVALID, *NONE)),
    *(HeaderInput(data=case.data + behind) for case in VALID for behind in BEHIND),
    *(HeaderInput(data=data) for data in _ENDLESS_HEADERS),
)

_BEGIN: Final = frames.PREFACE + frames.settings()
_POST: Final = _BEGIN + frames.headers(1, frames.POST, frames.END_HEADERS)
_LENGTH: Final = frames.headers(1, (*frames.POST, (b"content-length", b"5")), frames.END_HEADERS)
_INDEXED: Final = frames.frame(frames.HEADERS, frames.WHOLE, 1, frames.block(frames.GET, 0x40))

FRAME_SEEDS: Final[tuple[FrameInput, ...]] = tuple(
    FrameInput(data=data)
    for data in (
        _BEGIN + frames.headers(1) + frames.headers(3),
        _BEGIN
        + frames.headers(1, (*frames.GET[:3], (b":path", b"/a/path/with/many/octets"), (b"cookie", b"a=1; b=2"))),
        _BEGIN + _INDEXED + frames.frame(frames.HEADERS, frames.WHOLE, 3, b"\xc1\xc0\xbf\xbe"),
        _BEGIN
        + _INDEXED
        + frames.headers(3)
        + frames.headers(5, frames.POST, frames.END_HEADERS)
        + frames.data(5, b"x"),
        _POST + frames.data(1, b"hello") + frames.headers(1, [(b"x-sum", b"1")]),
        _POST + frames.data(1, b"\x02hi\0\0", frames.PADDED) + frames.data(1, b"", frames.END_STREAM),
        _BEGIN + _LENGTH + frames.data(1, b"hello", frames.END_STREAM),
        _BEGIN + _LENGTH + frames.data(1, b"he") + frames.data(1, b"llo") + frames.data(1, b"", frames.END_STREAM),
        _BEGIN + frames.headers(1, frames.WEBSOCKET, frames.END_HEADERS) + frames.data(1, b"\x89\0"),
        _BEGIN + frames.headers(1) + frames.rst_stream(1) + frames.headers(3),
        _BEGIN + frames.settings((4, 10), (1, 0)) + frames.headers(1) + frames.window_update(1, 5000),
        _POST + frames.window_update(0, 100_000) + frames.ping() + frames.priority(3, 1) + frames.goaway(),
        _POST + frames.frame(frames.PUSH_PROMISE, 4, 1) + frames.frame(0x20, 0, 1, b"x"),
        _BEGIN + frames.headers(1, (*frames.GET, *[(b"x-%d" % n, b"") for n in range(101)])),
        _BEGIN + frames.ping() * 200,
        _BEGIN + b"".join(frames.headers(n) for n in range(1, 411, 2)),
        _POST + frames.data(1, b"x" * 16_384) * 5,
    )
)

_SAYS: Final = frames.settings()
_HEAD: Final = frames.headers(1, frames.OK, frames.END_HEADERS)
_OF_LENGTH: Final = (*frames.OK, (b"content-length", b"5"))

APP_FRAME_SEEDS: Final[tuple[AppFrameInput, ...]] = tuple(
    AppFrameInput(data=_SAYS + data)
    for data in (
        frames.headers(1, frames.OK) + frames.headers(3, frames.OK) + frames.headers(5, frames.OK),
        _HEAD + frames.data(1, b"hello") + frames.headers(1, [(b"grpc-status", b"0")]),
        _HEAD + frames.data(1, b"\x02hi\0\0", frames.PADDED) + frames.data(1, b"", frames.END_STREAM),
        frames.headers(1, _OF_LENGTH, frames.END_HEADERS) + frames.data(1, b"hello", frames.END_STREAM),
        frames.headers(3, _OF_LENGTH) + frames.headers(5, _OF_LENGTH, frames.END_HEADERS) + frames.data(5, b"hello"),
        frames.headers(1, [(b":status", b"103"), (b"link", b"x")], frames.END_HEADERS) * 3 + _HEAD,
        frames.headers(1, [(b":status", b"204")]) + frames.headers(7, [(b":status", b"304")], frames.END_HEADERS),
        frames.frame(frames.HEADERS, frames.WHOLE, 1, frames.block(frames.OK, 0x40))
        + frames.frame(frames.HEADERS, frames.WHOLE, 7, b"\xbe"),
        frames.headers(5, frames.OK) + frames.rst_stream(5, frames.NO_ERROR) + frames.rst_stream(1, 7),
        _HEAD + frames.rst_stream(7, 7) + frames.rst_stream(1, 7),
        frames.settings((4, 10), (3, 2)) + frames.window_update(5, 5000) + frames.window_update(0, 100_000),
        frames.goaway(2**31 - 1) + _HEAD + frames.goaway(3) + frames.headers(3, frames.OK),
        frames.ping() + frames.priority(3, 1) + frames.frame(0x20, 0, 1, b"x") + _HEAD,
        frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\x02" + frames.block(frames.GET)),
        frames.headers(1, (*frames.OK, *[(b"x-%d" % n, b"") for n in range(101)])),
        _HEAD + frames.data(1, b"x" * 16_384) * 5,
    )
)
