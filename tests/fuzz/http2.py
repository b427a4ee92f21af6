"""
What must hold for HTTP/2 whatever a client sends: the oracle for `wire.http2`, and how its frames are changed.

The client's half of the rules is written down again, from the RFCs: what we send is read as a client would.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import attrs
from hpack import Decoder

from sidecar.wire.events import END, BodyKind, Data, RequestHead, Trailers
from sidecar.wire.grammar import FIELD_SECTION
from sidecar.wire.h2frames import ConnectionFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2streams import WRITABLE, Refused, Reset, StreamEvent
from sidecar.wire.head import parse_request_head
from sidecar.wire.http2 import ServerConnection
from tests.fuzz.inputs import FrameInput, segments
from tests.support import frames
from tests.support.frames import PREFACE, Frame

Signature = tuple[object, ...]

_LIMITS: Final = Http2Limits(window_growth=1)
_SMALL_LIMITS: Final = Http2Limits(
    streams=3,
    connection_window=65_535,
    window_growth=1,
    header_list_bytes=1024,
    fields=12,
    block_bytes=2048,
    continuations=3,
)

_ALL_PIECES: Final = 2000
_BODY: Final = b"x" * 3000


def judge_frames(input: FrameInput) -> Signature:
    """Hold *input* against every rule; return its signature."""
    pieces = segments(input.data, input.cuts)
    reading = _Reading(input)
    reading.run(pieces)
    few, rest = input.data[:_ALL_PIECES], input.data[_ALL_PIECES:]
    for other in ([input.data], [few[at : at + 1] for at in range(len(few))] + [rest]):
        again = _Reading(input)
        again.run(other)
        assert again.reason == reading.reason, "how it ends depends on the cuts"
        # What arrived together with an error of the connection is not told.
        count = min(len(again.events), len(reading.events)) if reading.reason else None
        assert again.events[:count] == reading.events[:count], "what is told depends on the cuts"
    served = _Reading(input, answers=True)
    served.run(pieces)
    kinds = {type(event).__name__ for _, event in reading.events}
    reasons = {event.reason for _, event in reading.events if isinstance(event, Reset)}
    return (
        *("frames", reading.reason, served.reason, tuple(sorted(kinds)), tuple(sorted(reasons))),
        *(len(reading.events).bit_length(), tuple(sorted({found.kind for found in served.sent}))),
    )


@attrs.define
class _Heard:
    """What was told of a stream, and what was sent on it."""

    head: RequestHead | None = None
    body: int = 0
    has_ended: bool = False
    is_over: bool = False
    held: int = 0
    is_answered: bool = False  # by a head
    unsent: bytes = b""
    is_closed: bool = False  # by a frame of ours


@attrs.define
class _Reading:
    """
    One connection fed with the input.

    Attributes:
        answers: Whether requests are answered as soon as they have ended.
        events: All that was told.
        reason: Why the connection ended; "" if it did not.
        sent: Frames of ours.
    """

    input: FrameInput
    answers: bool = False
    events: list[tuple[int, object]] = attrs.field(init=False, factory=list)
    reason: str = attrs.field(init=False, default="")
    sent: list[Frame] = attrs.field(init=False, factory=list)
    _streams: dict[int, _Heard] = attrs.field(init=False, factory=dict)
    _decoder: Decoder = attrs.field(init=False, factory=Decoder)
    _block: bytes = attrs.field(init=False, default=b"")

    def run(self, pieces: Sequence[bytes]) -> None:
        limits = _SMALL_LIMITS if self.input.has_small_limits else _LIMITS
        connection = frames.new(limits)
        self._decoder.max_allowed_table_size = 2**32
        for piece in pieces:
            try:
                events = connection.receive(piece, 0.0)
            except ConnectionFault as fault:
                self.reason = fault.reason
                self._take(connection.data_to_send())
                assert self.sent[-1].kind == frames.GOAWAY, "an error of the connection without GOAWAY"
                assert not connection.open_streams, "streams are open behind an error of the connection"
                return
            self._take(connection.data_to_send())
            connection.sent(0)
            for stream_id, event in events:
                self._tell(stream_id, event, limits)
                self.events.append((stream_id, _comparable(event)))
                if self.answers:
                    self._answer(connection, stream_id, event)
            self._take(connection.data_to_send())
            held = sum(heard.held for heard in self._streams.values())
            assert held <= limits.connection_window, "more is held than the connection's window"
            assert connection.open_streams <= limits.streams, "more streams are open than allowed"

    def _tell(self, stream_id: int, event: StreamEvent, limits: Http2Limits) -> None:
        """Fail unless *event* may come next on its stream."""
        heard = self._streams.setdefault(stream_id, _Heard())
        assert not heard.is_over, "an event behind the end of a stream"
        if isinstance(event, RequestHead):
            assert heard.head is None, "a second head"
            heard.head = event
            _check_head(event, limits)
        elif isinstance(event, Data):
            assert heard.head is not None, "a body without a head"
            assert not heard.has_ended, "a body behind its end"
            heard.body += len(event.payload)
            heard.held += len(event.payload)
            assert heard.held <= limits.stream_window, "more is held than the stream's window"
        elif isinstance(event, Trailers):
            assert FIELD_SECTION.fullmatch(event.fields.section), "trailers that are no lines"
        elif event is END:
            assert not heard.has_ended, "a second end"
            heard.has_ended = True
            head = heard.head
            assert head is not None, "an end without a head"
            if head.body is not BodyKind.CHUNKED and not head.upgrade:
                assert heard.body == head.length, "a body that is not as long as its head says"
        elif isinstance(event, Reset):
            heard.is_over = True
            heard.held = 0
        else:
            assert isinstance(event, Refused) or event is WRITABLE, f"an unknown event: {event}"

    def _answer(self, connection: ServerConnection, stream_id: int, event: StreamEvent) -> None:
        heard = self._streams[stream_id]
        if isinstance(event, Data):
            connection.acknowledge(stream_id, len(event.payload))
            heard.held = 0
        elif (event is END or isinstance(event, Refused)) and not heard.is_answered:
            heard.is_answered = True
            is_tunnel = heard.head is not None and bool(heard.head.upgrade)
            connection.send_head(stream_id, 101 if is_tunnel else 200, b"Content-Type: text/plain\r\nX-A: b\r\n")
            heard.unsent = _BODY
            self._send(connection, stream_id, heard)
        elif event is WRITABLE:
            self._send(connection, stream_id, heard)

    def _send(self, connection: ServerConnection, stream_id: int, heard: _Heard) -> None:
        taken = connection.send_data(stream_id, heard.unsent, end=True)
        heard.unsent = heard.unsent[taken:]

    def _take(self, data: bytes) -> None:
        """Read what we send as a client would."""
        for found in frames.parse(data):
            self.sent.append(found)
            assert len(found.payload) <= 16_384, "a frame that no client need take"
            if found.kind in (frames.HEADERS, frames.CONTINUATION):
                self._block += found.payload
                if found.flags & frames.END_HEADERS:
                    fields = frames.decoded(self._decoder, self._block)
                    assert fields[:1] == [(b":status", b"200")], "another head than was sent"
                    self._block = b""
            if found.kind in (frames.HEADERS, frames.DATA, frames.RST_STREAM):
                heard = self._streams.setdefault(found.stream_id, _Heard())
                assert not heard.is_closed or found.kind == frames.RST_STREAM, "a frame behind the end of its stream"
                ends = found.kind != frames.RST_STREAM and found.flags & frames.END_STREAM
                heard.is_closed = heard.is_closed or bool(ends) or found.kind == frames.RST_STREAM


def _comparable(event: StreamEvent) -> object:
    return (event.error.reason, event.error.status) if isinstance(event, Refused) else event


def _check_head(head: RequestHead, limits: Http2Limits) -> None:
    """Fail unless *head* is what HTTP/1.1 makes of the same request."""
    data = b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, head.target, head.fields.section)
    again = parse_request_head(data, limits.fields + 4)  # lines that we have added
    assert head == again, "the app would read another request"


# -- changes ----------------------------------------------------------------------------------------------------

_FIELDS: Final = (
    *((b":path", b"/x"), (b":path", b""), (b":authority", b"b"), (b":scheme", b"http"), (b":protocol", b"websocket")),
    *((b":method", b"CONNECT"), (b":method", b"OPTIONS"), (b":status", b"200"), (b"host", b"a.example")),
    *((b"host", b"b"), (b"cookie", b"a=1"), (b"te", b"trailers"), (b"connection", b"close"), (b"X", b"y")),
    *((b"content-length", b"5"), (b"content-length", b"0"), (b"transfer-encoding", b"chunked"), (b"a:b", b"c")),
    *((b"a", b"b\r\nc: d"), (b"a", b" b"), (b"a", b"\0"), (b"x-long", b"y" * 900), (b"a\r\nb", b"c"), (b"", b"")),
)

_BLOCKS: Final = (b"\x82", b"\x84", b"\x87", b"\xbe", b"\xbf", b"\x80", b"\x20", b"\x3f\xe1\x1f", b"\x40", b"\xff\xff")

_FLAGS: Final = (0x0, 0x1, 0x4, 0x5, 0x8, 0x9, 0xC, 0x20, 0x25, 0x2D)

_STREAMS: Final = (0, 1, 3, 5, 7, 9, 2, 101, 2**31 - 1, 2**31 + 1)

_NUMBERS: Final = (0, 1, 2, 100, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)


def change_frames(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Return *data* with one of its frames changed; lengths are mostly right. Parts may come from *other*."""
    preface = data[: len(PREFACE)] if data.startswith(PREFACE) else b""
    found, rest = _cut(data[len(preface) :])
    if not found or chance.random() < 0.05:
        at = chance.randrange(len(data) + 1)
        return data[:at] + bytes((chance.randrange(256),)) + data[at + chance.randint(0, 2) :]
    at = chance.randrange(len(found))
    found[at : at + 1] = chance.choice(_CHANGES)(chance, found[at])
    if chance.random() < 0.2:
        more, _ = _cut(other.removeprefix(PREFACE))
        found[at + 1 : at + 1] = more[:3]
    if chance.random() < 0.1:
        chance.shuffle(found)
    return preface + b"".join(found) + rest


def _cut(data: bytes) -> tuple[list[bytes], bytes]:
    found = []
    while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
        end = 9 + int.from_bytes(data[:3], "big")
        found.append(data[:end])
        data = data[end:]
    return found, data


def _kind(chance: random.Random, one: bytes) -> list[bytes]:
    return [one[:3] + bytes((chance.choice((*range(11), 0xFF)),)) + one[4:]]


def _flags(chance: random.Random, one: bytes) -> list[bytes]:
    return [one[:4] + bytes((chance.choice(_FLAGS),)) + one[5:]]


def _stream(chance: random.Random, one: bytes) -> list[bytes]:
    return [one[:5] + chance.choice(_STREAMS).to_bytes(4, "big") + one[9:]]


def _repeat(chance: random.Random, one: bytes) -> list[bytes]:
    return [one] * chance.choice((2, 2, 3, 5, 20, 120))


def _drop(chance: random.Random, one: bytes) -> list[bytes]:
    return []


def _further(chance: random.Random, one: bytes) -> list[bytes]:
    """The same on the next stream too."""
    stream_id = int.from_bytes(one[5:9], "big")
    return [one, one[:5] + ((stream_id + 2) & 0xFFFFFFFF).to_bytes(4, "big") + one[9:]]


def _split(chance: random.Random, one: bytes) -> list[bytes]:
    """A header block in two frames."""
    at = chance.randint(9, len(one))
    stream_id = int.from_bytes(one[5:9], "big")
    return [
        frames.frame(one[3], one[4] & ~frames.END_HEADERS, stream_id, one[9:at]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, one[at:]),
    ]


def _payload(chance: random.Random, one: bytes) -> list[bytes]:
    payload = bytearray(one[9:])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(payload) + 1)
        payload[at : at + chance.randint(0, 2)] = chance.choice(
            (bytes((chance.randrange(256),)), b"", *_BLOCKS, frames.literal(*chance.choice(_FIELDS)))
        )
    return [_with(one, bytes(payload))]


def _octet(chance: random.Random, one: bytes) -> list[bytes]:
    """An octet more, or another one, in a name or value of a header block that has only literals."""
    fields = _literals(one[9:])
    if not fields:
        return [one]
    at = chance.randrange(len(fields))
    parts = list(fields[at][1:])
    which = chance.choice((0, 1, 1, 1))
    place = chance.randrange(len(parts[which]) + 1)
    awkward = bytes((chance.choice(b" \t\r\n\0:@#%,/_A\x7f\xff"),))
    parts[which] = parts[which][:place] + awkward + parts[which][place + chance.randint(0, 1) :]
    fields[at] = fields[at][0], parts[0], parts[1]
    return [_with(one, b"".join(frames.literal(name, value, flags) for flags, name, value in fields))]


def _literals(block: bytes) -> list[tuple[int, bytes, bytes]]:
    """The fields of a block: flags, name and value; none if it has anything but short literals."""
    found = []
    while block:
        name_size = block[1] if len(block) > 1 else 127
        value_size = block[2 + name_size] if len(block) > 2 + name_size else 127
        end = 3 + name_size + value_size
        if block[0] not in (0x00, 0x10, 0x40) or max(name_size, value_size) > 126 or end > len(block):
            return []
        found.append((block[0], block[2 : 2 + name_size], block[3 + name_size : end]))
        block = block[end:]
    return found


def _field(chance: random.Random, one: bytes) -> list[bytes]:
    """One more field, in front or behind."""
    more = frames.literal(*chance.choice(_FIELDS), chance.choice((0x00, 0x10, 0x40)))
    more *= chance.choice((1, 1, 1, 2, 15, 300))
    return [_with(one, (more + one[9:] if chance.random() < 0.3 else one[9:] + more)[:16_384])]


def _number(chance: random.Random, one: bytes) -> list[bytes]:
    return [_with(one, one[9:-4] + chance.choice(_NUMBERS).to_bytes(4, "big"))]


def _body(chance: random.Random, one: bytes) -> list[bytes]:
    return [_with(one, b"x" * chance.choice((0, 1, 5, 300, 16_384)))]


def _length(chance: random.Random, one: bytes) -> list[bytes]:
    return [chance.choice((0, 1, 4, 8, 16_384, 16_385, 2**24 - 1)).to_bytes(3, "big") + one[3:]]


def _with(one: bytes, payload: bytes) -> bytes:
    return frames.frame(one[3], one[4], int.from_bytes(one[5:9], "big"), payload)


_CHANGES: Final[tuple[Callable[[random.Random, bytes], list[bytes]], ...]] = (
    *(_kind, _flags, _stream, _repeat, _drop, _further, _further, _split, _payload, _octet, _octet),
    *(_field, _field, _field, _number, _body, _length),
)
