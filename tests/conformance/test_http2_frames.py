"""
HTTP/2 by a table in the order of h2spec's sections (generic, RFC 9113, RFC 7541): what a client sends by hand, and what
must come of it. Each case is sent whole and byte by byte, which must make no difference.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs
import pytest
from hpack import Decoder

from sidecar.wire.events import RequestHead
from sidecar.wire.h2frames import ConnectionFault
from sidecar.wire.http2 import ServerConnection
from tests.support import frames
from tests.support.frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WHOLE,
    WINDOW_UPDATE,
    Frame,
    block,
    data,
    frame,
    goaway,
    headers,
    integer,
    literal,
    ping,
    priority,
    rst_stream,
    settings,
    window_update,
)


@attrs.frozen
class Ends:
    """The connection ends, by GOAWAY with this code."""

    code: int


@attrs.frozen
class Resets:
    """This stream ends, by RST_STREAM with this code; the connection goes on."""

    stream_id: int
    code: int


@attrs.frozen
class Serves:
    """So many requests begin, and nothing is wrong."""

    requests: int


IGNORES: Final = Serves(0)

PROMISE: Final = struct.pack("!L", 2) + block(GET)
BEGIN: Final = PREFACE + settings()
OPEN: Final = headers(1, POST, END_HEADERS)
DONE: Final = headers(1)
"""A request that is answered at once: its stream is closed."""

LONG: Final = frames.block([(b"x", b"y" * 15_000)])


def pseudo(**values: bytes) -> tuple[frames.Field, ...]:
    """The fields of a GET with other pseudo-fields."""
    return tuple((name, values.get(name[1:].decode(), value)) for name, value in GET)


def plus(*fields: frames.Field, of: tuple[frames.Field, ...] = GET) -> bytes:
    return headers(1, (*of, *fields))


Outcome = Ends | Resets | Serves
Row = tuple[str, bytes, Outcome]

GENERIC: tuple[Row, ...] = (
    ("1 preface", BEGIN, IGNORES),
    ("2.1 idle: PRIORITY", BEGIN + priority(1), IGNORES),
    ("2.2 half-closed: WINDOW_UPDATE", BEGIN + DONE + window_update(1, 1), Serves(1)),
    ("2.3 half-closed: PRIORITY", BEGIN + DONE + priority(1), Serves(1)),
    ("2.4 half-closed: RST_STREAM", BEGIN + DONE + rst_stream(1), Serves(1)),
    ("2.5 closed: PRIORITY", BEGIN + OPEN + rst_stream(1) + priority(1), Serves(1)),
    ("3.1 DATA", BEGIN + OPEN + data(1, b"test", END_STREAM), Serves(1)),
    ("3.1 several DATA", BEGIN + OPEN + data(1, b"a") + data(1, b"b", END_STREAM), Serves(1)),
    ("3.1 padded DATA", BEGIN + OPEN + data(1, b"\x03abc\0\0\0", END_STREAM | PADDED), Serves(1)),
    ("3.2 HEADERS", BEGIN + DONE, Serves(1)),
    ("3.2 padded HEADERS", BEGIN + frame(HEADERS, WHOLE | PADDED, 1, b"\x02" + block(GET) + b"\0\0"), Serves(1)),
    (
        "3.2 HEADERS with priority",
        BEGIN + frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0\0\0\0\xff" + block(GET)),
        Serves(1),
    ),
    ("3.3 PRIORITY", BEGIN + priority(1) + priority(1, 3), IGNORES),
    ("3.4 RST_STREAM", BEGIN + OPEN + rst_stream(1, 8), Serves(1)),
    ("3.5 SETTINGS", BEGIN + settings((3, 100)), IGNORES),
    ("3.7 PING", BEGIN + ping(), IGNORES),
    ("3.8 GOAWAY", BEGIN + goaway(), IGNORES),
    ("3.8 GOAWAY, then a request that was on its way", BEGIN + goaway() + DONE, Serves(1)),
    ("3.9 WINDOW_UPDATE of the connection", BEGIN + window_update(0, 1), IGNORES),
    ("3.9 WINDOW_UPDATE of a stream", BEGIN + OPEN + window_update(1, 1), Serves(1)),
    (
        "3.10 CONTINUATION",
        BEGIN
        + frame(HEADERS, END_STREAM, 1, block(GET))
        + frame(CONTINUATION, 0, 1, block([(b"a", b"1")]))
        + frame(CONTINUATION, END_HEADERS, 1, block([(b"b", b"1")])),
        Serves(1),
    ),
    ("4 HEAD", BEGIN + headers(1, pseudo(method=b"HEAD")), Serves(1)),
    ("4 POST with trailers", BEGIN + OPEN + data(1, b"x") + headers(1, [(b"x-t", b"1")]), Serves(1)),
    ("5 HPACK: indexed", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87" + literal(b":authority", b"a")), Serves(1)),
    ("5 HPACK: literal with indexing", BEGIN + frame(HEADERS, WHOLE, 1, block(GET, 0x40)), Serves(1)),
    ("5 HPACK: literal never indexed", BEGIN + frame(HEADERS, WHOLE, 1, block(GET, 0x10)), Serves(1)),
    ("5 HPACK: indexed name", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87\x41\x01a"), Serves(1)),
    ("5 HPACK: Huffman", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87\x41\x81\x1f"), Serves(1)),
    ("5 HPACK: size update", BEGIN + frame(HEADERS, WHOLE, 1, b"\x20\x3f\xe1\x1f" + block(GET)), Serves(1)),
)

CONNECTION: tuple[Row, ...] = (
    ("3.4 no preface", b"INVALID CONNECTION PREFACE\r\n\r\n", Ends(PROTOCOL_ERROR)),
    ("3.4 HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ends(PROTOCOL_ERROR)),
    ("3.4 other frame than SETTINGS first", PREFACE + ping(), Ends(PROTOCOL_ERROR)),
    ("3.4 request before SETTINGS", PREFACE + DONE + settings(), Ends(PROTOCOL_ERROR)),
    ("3.4 acknowledgement before SETTINGS", PREFACE + frame(SETTINGS, ACK), Ends(PROTOCOL_ERROR)),
    ("3.4 unknown frame before SETTINGS", PREFACE + frame(0x20) + settings(), Ends(PROTOCOL_ERROR)),
    ("4.1 unknown type", BEGIN + frame(0x16, 0, 0, b"12345678"), IGNORES),
    ("4.1 unknown type on an idle stream", BEGIN + frame(0xFF, 0xFF, 7, b"12345678"), IGNORES),
    ("4.1 undefined flags", BEGIN + ping(flags=0x16), IGNORES),
    ("4.1 reserved bit", BEGIN + frame(PING, 0, 1 << 31, b"12345678"), IGNORES),
    ("4.2 DATA of 2^14", BEGIN + OPEN + data(1, b"x" * 2**14, END_STREAM), Serves(1)),
    ("4.2 DATA over 2^14", BEGIN + OPEN + data(1, b"x" * (2**14 + 1)), Ends(FRAME_SIZE_ERROR)),
    ("4.2 HEADERS over 2^14", BEGIN + frame(HEADERS, WHOLE, 1, block(GET) + LONG + LONG), Ends(FRAME_SIZE_ERROR)),
    ("4.2 unknown type over 2^14", BEGIN + frame(0x16, 0, 0, bytes(2**14 + 1)), Ends(FRAME_SIZE_ERROR)),
    ("4.3 broken block", BEGIN + frame(HEADERS, WHOLE, 1, b"\x40"), Ends(COMPRESSION_ERROR)),
    ("4.3 PRIORITY in a block", BEGIN + headers(1, GET, END_STREAM) + priority(1), Ends(PROTOCOL_ERROR)),
    ("4.3 HEADERS in a block", BEGIN + headers(1, GET, END_STREAM) + headers(3), Ends(PROTOCOL_ERROR)),
    ("4.3 unknown type in a block", BEGIN + headers(1, GET, END_STREAM) + frame(0x16, 0, 1), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: DATA", BEGIN + data(1, b"x", END_STREAM), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: RST_STREAM", BEGIN + rst_stream(1), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: WINDOW_UPDATE", BEGIN + window_update(1, 100), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: CONTINUATION", BEGIN + frame(CONTINUATION, END_HEADERS, 1, block(GET)), Ends(PROTOCOL_ERROR)),
    ("5.1 half-closed: DATA", BEGIN + DONE + data(1, b"x", END_STREAM), Resets(1, STREAM_CLOSED)),
    ("5.1 half-closed: HEADERS", BEGIN + DONE + DONE, Resets(1, STREAM_CLOSED)),
    ("5.1 half-closed: CONTINUATION", BEGIN + DONE + frame(CONTINUATION, END_HEADERS, 1), Ends(PROTOCOL_ERROR)),
    ("5.1 closed by RST_STREAM: DATA", BEGIN + OPEN + rst_stream(1) + data(1, b"x"), Resets(1, STREAM_CLOSED)),
    ("5.1 closed by RST_STREAM: HEADERS", BEGIN + OPEN + rst_stream(1) + DONE, Ends(STREAM_CLOSED)),
    (
        "5.1 closed by RST_STREAM: CONTINUATION",
        BEGIN + OPEN + rst_stream(1) + frame(CONTINUATION, END_HEADERS, 1),
        Ends(PROTOCOL_ERROR),
    ),
    ("5.1.1 even stream", BEGIN + headers(2), Ends(PROTOCOL_ERROR)),
    ("5.1.1 stream 0", BEGIN + headers(0), Ends(PROTOCOL_ERROR)),
    ("5.1.1 lower stream", BEGIN + headers(5) + headers(3), Ends(PROTOCOL_ERROR)),
    ("5.1.2 too many streams", BEGIN + b"".join(headers(n) for n in range(1, 203, 2)), Resets(201, REFUSED_STREAM)),
    (
        "5.3.1 HEADERS that depends on itself",
        BEGIN + frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0\0\0\x01\xff" + block(GET)),
        Resets(1, PROTOCOL_ERROR),
    ),
    (
        "5.3.1 trailers that depend on themselves",
        BEGIN + OPEN + frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0\0\0\x01\xff" + block([(b"x", b"y")])),
        Resets(1, PROTOCOL_ERROR),
    ),
    ("5.3.1 PRIORITY that depends on itself", BEGIN + OPEN + priority(1, 1), Resets(1, PROTOCOL_ERROR)),
    ("5.3.1 PRIORITY of an idle stream on itself", BEGIN + priority(1, 1), Ends(PROTOCOL_ERROR)),
    ("5.4.1 GOAWAY with an unknown code", BEGIN + goaway(code=0xFFFF), IGNORES),
    ("5.5 unknown setting", BEGIN + settings((0xFF, 1), (0x7, 2**32 - 1)), IGNORES),
    ("6.1 DATA on stream 0", BEGIN + OPEN + data(0, b"x"), Ends(PROTOCOL_ERROR)),
    ("6.1 DATA on an even stream", BEGIN + OPEN + data(2, b"x"), Ends(PROTOCOL_ERROR)),
    ("6.1 padding over the payload", BEGIN + OPEN + data(1, b"\x06abc\0\0", PADDED), Ends(PROTOCOL_ERROR)),
    ("6.1 padding without its length", BEGIN + OPEN + data(1, b"", PADDED), Ends(FRAME_SIZE_ERROR)),
    ("6.2 no END_HEADERS, then PRIORITY", BEGIN + headers(1, GET, 0) + priority(1), Ends(PROTOCOL_ERROR)),
    ("6.2 no END_HEADERS, then another HEADERS", BEGIN + headers(1, GET, 0) + headers(1), Ends(PROTOCOL_ERROR)),
    (
        "6.2 padding over the payload",
        BEGIN + frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(GET)),
        Ends(PROTOCOL_ERROR),
    ),
    ("6.2 priority cut short", BEGIN + frame(HEADERS, WHOLE | HAS_PRIORITY, 1, b"\0\0\0"), Ends(FRAME_SIZE_ERROR)),
    ("6.3 PRIORITY on stream 0", BEGIN + priority(0), Ends(PROTOCOL_ERROR)),
    ("6.3 PRIORITY of 4 bytes", BEGIN + OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\0"), Resets(1, FRAME_SIZE_ERROR)),
    ("6.4 RST_STREAM on stream 0", BEGIN + rst_stream(0), Ends(PROTOCOL_ERROR)),
    ("6.4 RST_STREAM of 3 bytes", BEGIN + OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0"), Ends(FRAME_SIZE_ERROR)),
    ("6.4 RST_STREAM of a closed stream", BEGIN + OPEN + rst_stream(1) * 2, Serves(1)),
    ("6.5 acknowledgement with a payload", BEGIN + frame(SETTINGS, ACK, 0, bytes(6)), Ends(FRAME_SIZE_ERROR)),
    ("6.5 SETTINGS on a stream", BEGIN + frame(SETTINGS, 0, 1), Ends(PROTOCOL_ERROR)),
    ("6.5 SETTINGS of 3 bytes", BEGIN + frame(SETTINGS, 0, 0, bytes(3)), Ends(FRAME_SIZE_ERROR)),
    ("6.5.2 ENABLE_PUSH of 2", BEGIN + settings((frames.ENABLE_PUSH, 2)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 ENABLE_PUSH of 1", BEGIN + settings((frames.ENABLE_PUSH, 1)), IGNORES),
    (
        "6.5.2 INITIAL_WINDOW_SIZE over 2^31-1",
        BEGIN + settings((frames.INITIAL_WINDOW_SIZE, 2**31)),
        Ends(FLOW_CONTROL_ERROR),
    ),
    ("6.5.2 MAX_FRAME_SIZE under 2^14", BEGIN + settings((frames.MAX_FRAME_SIZE, 16_383)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 MAX_FRAME_SIZE over 2^24-1", BEGIN + settings((frames.MAX_FRAME_SIZE, 2**24)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 MAX_FRAME_SIZE of 2^24-1", BEGIN + settings((frames.MAX_FRAME_SIZE, 2**24 - 1)), IGNORES),
    ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2", BEGIN + settings((8, 2)), Ends(PROTOCOL_ERROR)),
    ("6.5.3 SETTINGS that say a thing twice", BEGIN + settings((4, 1), (4, 2)), IGNORES),
    ("6.6 PUSH_PROMISE", BEGIN + OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, PROMISE), Ends(PROTOCOL_ERROR)),
    ("6.7 PING with ACK", BEGIN + ping(flags=ACK), IGNORES),
    ("6.7 PING on a stream", BEGIN + frame(PING, 0, 1, b"12345678"), Ends(PROTOCOL_ERROR)),
    ("6.7 PING of 6 bytes", BEGIN + ping(b"123456"), Ends(FRAME_SIZE_ERROR)),
    ("6.8 GOAWAY on a stream", BEGIN + frame(GOAWAY, 0, 1, bytes(8)), Ends(PROTOCOL_ERROR)),
    ("6.8 GOAWAY of 7 bytes", BEGIN + frame(GOAWAY, 0, 0, bytes(7)), Ends(FRAME_SIZE_ERROR)),
    ("6.9 WINDOW_UPDATE by nothing", BEGIN + window_update(0, 0), Ends(PROTOCOL_ERROR)),
    ("6.9 WINDOW_UPDATE by nothing but the reserved bit", BEGIN + window_update(0, 1 << 31), Ends(PROTOCOL_ERROR)),
    ("6.9 WINDOW_UPDATE of a stream by nothing", BEGIN + OPEN + window_update(1, 0), Resets(1, PROTOCOL_ERROR)),
    ("6.9 WINDOW_UPDATE of 3 bytes", BEGIN + frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), Ends(FRAME_SIZE_ERROR)),
    ("6.9.1 connection's window over 2^31-1", BEGIN + window_update(0, 2**31 - 1) * 2, Ends(FLOW_CONTROL_ERROR)),
    ("6.9.1 stream's window over 2^31-1", BEGIN + OPEN + window_update(1, 2**31 - 1), Resets(1, FLOW_CONTROL_ERROR)),
    (
        "6.9.2 initial window takes a stream's over 2^31-1",
        BEGIN + OPEN + window_update(1, 2**31 - 1 - 65_535) + settings((4, 65_536)),
        Ends(FLOW_CONTROL_ERROR),
    ),
    ("6.9.1 more DATA than the stream's window", BEGIN + OPEN + data(1, b"x" * 2**14) * 5, Ends(FLOW_CONTROL_ERROR)),
    ("6.10 CONTINUATION of nothing", BEGIN + frame(CONTINUATION, END_HEADERS, 1), Ends(PROTOCOL_ERROR)),
    ("6.10 CONTINUATION on stream 0", BEGIN + frame(CONTINUATION, END_HEADERS, 0), Ends(PROTOCOL_ERROR)),
    (
        "6.10 CONTINUATION of another stream",
        BEGIN + headers(1, GET, END_STREAM) + frame(CONTINUATION, END_HEADERS, 3),
        Ends(PROTOCOL_ERROR),
    ),
    (
        "6.10 CONTINUATION behind END_HEADERS",
        BEGIN + DONE + frame(CONTINUATION, END_HEADERS, 1, block([(b"a", b"1")])),
        Ends(PROTOCOL_ERROR),
    ),
    (
        "6.10 CONTINUATION without end",
        BEGIN + headers(1, GET, END_STREAM) + frame(CONTINUATION, 0, 1) * 17,
        Ends(ENHANCE_YOUR_CALM),
    ),
    ("7 RST_STREAM with an unknown code", BEGIN + OPEN + rst_stream(1, 0xFF), Serves(1)),
)

MESSAGES: tuple[Row, ...] = (
    ("8.1 second HEADERS without END_STREAM", BEGIN + OPEN + OPEN, Resets(1, PROTOCOL_ERROR)),
    ("8.1 DATA behind trailers", BEGIN + OPEN + headers(1, [(b"x", b"y")]) + data(1), Resets(1, STREAM_CLOSED)),
    ("8.1.1 Content-Length over the DATA", BEGIN + headers(1, (*POST, (b"content-length", b"2")), END_HEADERS)
     + data(1, b"x", END_STREAM), Resets(1, PROTOCOL_ERROR)),
    ("8.1.1 Content-Length under the DATA", BEGIN + headers(1, (*POST, (b"content-length", b"1")), END_HEADERS)
     + data(1, b"xy"), Resets(1, PROTOCOL_ERROR)),
    ("8.1.1 Content-Length over the DATA, with trailers", BEGIN
     + headers(1, (*POST, (b"content-length", b"2")), END_HEADERS) + data(1, b"x") + headers(1, [(b"x", b"y")]),
     Resets(1, PROTOCOL_ERROR)),
    ("8.1.1 Content-Length without DATA", BEGIN + headers(1, (*POST, (b"content-length", b"1"))),
     Resets(1, PROTOCOL_ERROR)),
    ("8.1.1 Content-Length of the DATA", BEGIN + headers(1, (*POST, (b"content-length", b"2")), END_HEADERS)
     + data(1, b"x") + data(1, b"y") + data(1, b"", END_STREAM), Serves(1)),
    ("8.2 upper case", BEGIN + plus((b"X-TEST", b"ok")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.1 CR LF in a value", BEGIN + plus((b"x", b"a\r\nb: c")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.1 NUL in a value", BEGIN + plus((b"x", b"a\0")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.1 blank before a value", BEGIN + plus((b"x", b" a")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.1 colon in a name", BEGIN + plus((b"x:y", b"a")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.2 Connection", BEGIN + plus((b"connection", b"keep-alive")), Resets(1, PROTOCOL_ERROR)),
    ("8.2.2 TE other than trailers", BEGIN + plus((b"trailers", b"test"), (b"te", b"trailers, deflate")),
     Resets(1, PROTOCOL_ERROR)),
    ("8.2.2 TE: trailers", BEGIN + plus((b"te", b"trailers")), Serves(1)),
    ("8.3 unknown pseudo-field", BEGIN + plus((b":test", b"ok")), Resets(1, PROTOCOL_ERROR)),
    ("8.3 pseudo-field of responses", BEGIN + plus((b":status", b"200")), Resets(1, PROTOCOL_ERROR)),
    ("8.3 pseudo-field in trailers", BEGIN + OPEN + headers(1, [(b":method", b"200")]), Resets(1, PROTOCOL_ERROR)),
    ("8.3 pseudo-field behind a field", BEGIN + headers(1, (*GET[:3], (b"x", b"ok"), GET[3])),
     Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 empty :path", BEGIN + headers(1, pseudo(path=b"")), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 no :method", BEGIN + headers(1, GET[1:]), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 no :scheme", BEGIN + headers(1, (GET[0], *GET[2:])), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 no :path", BEGIN + headers(1, GET[:3]), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 :method twice", BEGIN + headers(1, (GET[0], *GET)), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 :scheme twice", BEGIN + headers(1, (GET[1], *GET)), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 :path twice", BEGIN + headers(1, (GET[3], *GET)), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 no field at all", BEGIN + headers(1, ()), Resets(1, PROTOCOL_ERROR)),
    ("8.3.1 Host other than :authority", BEGIN + plus((b"host", b"b.example")), Resets(1, PROTOCOL_ERROR)),
    ("8.5 CONNECT with :path", BEGIN + headers(1, pseudo(method=b"CONNECT")), Resets(1, PROTOCOL_ERROR)),
    ("8.5 CONNECT", BEGIN + headers(1, ((b":method", b"CONNECT"), GET[2])), Serves(0)),
    ("RFC 8441 4 :protocol without CONNECT", BEGIN + plus((b":protocol", b"websocket")), Resets(1, PROTOCOL_ERROR)),
    ("RFC 8441 5 WebSocket", BEGIN + headers(1, frames.WEBSOCKET, END_HEADERS) + data(1, b"\x89\0"), Serves(1)),
    ("RFC 8441 5 trailers in a WebSocket", BEGIN + headers(1, frames.WEBSOCKET, END_HEADERS) + headers(1, ()),
     Resets(1, PROTOCOL_ERROR)),
)  # fmt: skip

HPACK: tuple[Row, ...] = (
    ("2.3.3 index of no entry", BEGIN + frame(HEADERS, WHOLE, 1, block(GET) + b"\xbe"), Ends(COMPRESSION_ERROR)),
    ("4.2 size update behind a field", BEGIN + frame(HEADERS, WHOLE, 1, block(GET) + b"\x20"), Ends(COMPRESSION_ERROR)),
    ("5.2 Huffman padding over 7 bits", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87\x41\x82\x1f\xff"),
     Ends(COMPRESSION_ERROR)),
    ("5.2 Huffman padding of zeros", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87\x41\x81\x18"),
     Ends(COMPRESSION_ERROR)),
    ("5.2 Huffman end of string", BEGIN + frame(HEADERS, WHOLE, 1, b"\x82\x84\x87\x41\x84\xff\xff\xff\xff"),
     Ends(COMPRESSION_ERROR)),
    ("6.1 index 0", BEGIN + frame(HEADERS, WHOLE, 1, block(GET) + b"\x80"), Ends(COMPRESSION_ERROR)),
    ("6.2 name of no entry", BEGIN + frame(HEADERS, WHOLE, 1, block(GET) + b"\x7e\x01a"), Ends(COMPRESSION_ERROR)),
    ("6.3 table over the limit", BEGIN + frame(HEADERS, WHOLE, 1, integer(4097, 5, 0x20) + block(GET)),
     Ends(COMPRESSION_ERROR)),
    ("broken block in a request that is refused anyway", BEGIN + frame(HEADERS, WHOLE, 1, literal(b"X", b"") + b"\x80"),
     Ends(COMPRESSION_ERROR)),
    ("broken trailers", BEGIN + OPEN + frame(HEADERS, WHOLE, 1, b"\x80"), Ends(COMPRESSION_ERROR)),
)  # fmt: skip

ROWS = (*GENERIC, *CONNECTION, *MESSAGES, *HPACK)

WAYS = {"whole": 1 << 20, "byte by byte": 1}


@attrs.define
class Played:
    """What came of a case."""

    connection: ServerConnection
    requests: int
    sent: list[Frame]
    fault: ConnectionFault | None


def play(sent: bytes, size: int) -> Played:
    """Send *sent* in pieces of *size* and take what comes back after each."""
    connection = frames.new()
    played = Played(connection, 0, frames.sent(connection), None)
    for at in range(0, len(sent), size):
        try:
            events = connection.receive(sent[at : at + size], 0.0)
            played.requests += sum(isinstance(event, RequestHead) for _, event in events)
        except ConnectionFault as fault:
            played.fault = fault
            played.sent += frames.sent(connection)
            break
        played.sent += frames.sent(connection)
        connection.sent(0)
    return played


def goes_on(connection: ServerConnection) -> None:
    """Fail unless the connection still answers PING, and a request."""
    stream_id = (connection.last_stream_id + 1) | 1
    events = connection.receive(ping(b"goes on?") + headers(stream_id + 2), 0.0)
    assert [type(event) for found, event in events if found == stream_id + 2][:1] == [RequestHead]
    connection.send_head(stream_id + 2, 204, b"", end=True)
    answers = frames.sent(connection)
    assert Frame(PING, ACK, 0, b"goes on?") in answers
    assert (answers[-1].kind, answers[-1].stream_id, answers[-1].flags) == (HEADERS, stream_id + 2, WHOLE)
    assert frames.decoded(Decoder(), answers[-1].payload) == [(b":status", b"204")]


@pytest.mark.parametrize("size", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("sent", "outcome"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
class TestFrames:
    def test_outcome_is_that_of_the_rfc(self, sent: bytes, outcome: Outcome, size: int) -> None:
        """An error of the connection ends it; one of a stream ends that; what is no error changes nothing."""
        played = play(sent, size)
        last = played.sent[-1]
        resets = [(found.stream_id, found.code) for found in played.sent if found.kind == RST_STREAM]
        if isinstance(outcome, Ends):
            assert played.fault is not None
            assert (last.kind, last.stream_id, last.code) == (GOAWAY, 0, outcome.code)
            assert played.connection.open_streams == 0
            return
        assert played.fault is None
        if isinstance(outcome, Resets):
            assert resets == [(outcome.stream_id, outcome.code)]
            if outcome.code == REFUSED_STREAM:
                played.connection.reset(1, NO_ERROR)  # make room for another
                frames.sent(played.connection)
        else:
            assert (resets, played.requests) == ([], outcome.requests)
        assert GOAWAY not in {found.kind for found in played.sent}
        goes_on(played.connection)


class TestTable:
    def test_every_type_of_frame_is_in_it(self) -> None:
        """No type was forgotten."""
        kinds = set()
        for _, sent, _ in ROWS:
            if sent.startswith(PREFACE):
                rest = sent[len(PREFACE) :]
                while len(rest) >= 9:
                    kinds.add(rest[3])
                    rest = rest[9 + int.from_bytes(rest[:3], "big") :]
        assert set(range(DATA, CONTINUATION + 1)) <= kinds
