"""
HTTP/2 frames made and read by hand, also those that no library would send; and a connection that has begun.

Written from RFC 9113 and RFC 7541 alone: nothing here is shared with the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

import attrs
from hpack import Decoder

from sidecar.wire.h2connection import Connection
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.http2 import ServerConnection
from sidecar.wire.http2client import ClientConnection

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK = END_STREAM = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20
WHOLE: Final = END_HEADERS | END_STREAM

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL: Final = 8

Field = tuple[bytes, bytes]

GET: Final[tuple[Field, ...]] = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/"),
)
POST: Final[tuple[Field, ...]] = ((b":method", b"POST"), *GET[1:])
WEBSOCKET: Final[tuple[Field, ...]] = (
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/chat"),
    (b"sec-websocket-version", b"13"),
)

OK: Final[tuple[Field, ...]] = ((b":status", b"200"),)
"""The fields of a response."""

WEBSOCKET_KEY: Final = b"AAAAAAAAAAAAAAAAAAAAAA=="


@attrs.frozen
class Frame:
    """A frame as it was read."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code in a RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == RST_STREAM else self.payload[4:8], "big")


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """Make a frame; its *length* is the right one unless it is given."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def parse(data: bytes) -> list[Frame]:
    """Read frames; nothing may be left over."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + size, "a frame is cut short"
        found.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def integer(value: int, bits: int, flags: int = 0) -> bytes:
    """An integer of RFC 7541 section 5.1 with a prefix of *bits*."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((flags | value,))
    out = [flags | mask]
    value -= mask
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def literal(name: bytes, value: bytes, flags: int = 0x00) -> bytes:
    """A field with a literal name; *flags* 0x40: into the table, 0x10: never into one."""
    return bytes((flags,)) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Iterable[Field], flags: int = 0x00) -> bytes:
    """A header block of literals."""
    return b"".join(literal(name, value, flags) for name, value in fields)


def headers(stream_id: int, fields: Iterable[Field] = GET, flags: int = WHOLE) -> bytes:
    return frame(HEADERS, flags, stream_id, block(fields))


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def rst_stream(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HL", *pair) for pair in pairs))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def goaway(last_stream_id: int = 0, code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack("!LL", last_stream_id, code))


def priority(stream_id: int, depends_on: int = 0) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack("!LB", depends_on, 16))


def new(limits: Http2Limits | None = None) -> ServerConnection:
    """A connection of which nothing has arrived."""
    return ServerConnection(limits or Http2Limits(), lambda: WEBSOCKET_KEY)


def begun(limits: Http2Limits | None = None, *pairs: tuple[int, int]) -> ServerConnection:
    """A connection whose client has sent its preface and SETTINGS, of *pairs*, and has acknowledged ours."""
    connection = new(limits)
    assert connection.receive(PREFACE + settings(*pairs) + frame(SETTINGS, ACK), 0.0) == []
    connection.data_to_send()
    connection.sent(0)
    return connection


def client(limits: Http2Limits | None = None) -> ClientConnection:
    """A connection to an app of which nothing has arrived."""
    return ClientConnection(limits or Http2Limits())


def asking(
    *requests: bytes, pairs: Iterable[tuple[int, int]] = (), limits: Http2Limits | None = None, end: bool = True
) -> ClientConnection:
    """A connection whose app has sent its SETTINGS, of *pairs*, and has acknowledged ours; with *requests*: methods."""
    connection = client(limits)
    assert connection.receive(settings(*pairs) + frame(SETTINGS, ACK), 0.0) == []
    for method in requests:
        connection.open(method, b"/", b"Host: a.example\r\n", end=end)
    connection.data_to_send()
    connection.sent(0)
    return connection


def sent(connection: Connection[Any]) -> list[Frame]:
    """What the connection has to send, behind the preface."""
    return parse(connection.data_to_send().removeprefix(PREFACE))


def decoded(decoder: Decoder, block: bytes) -> list[Field]:
    """What a client reads in a header block."""
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
