"""
What must hold for HTTP/2 whatever an app sends: the oracle for `wire.http2client`.

The app's half of the rules is written down again, from the RFCs: what we send is read as an app would. The frames are
changed as those of a client are, see `tests.fuzz.http2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from sidecar.wire.events import END, BodyKind, Data, InterimHead, ResponseHead, Trailers
from sidecar.wire.grammar import FIELD_SECTION
from sidecar.wire.h2frames import ConnectionFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2streams import WRITABLE, ClientStreamEvent, Reset
from sidecar.wire.head import parse_response_head
from sidecar.wire.http1 import MAX_INTERIM_RESPONSES, response_bytes
from sidecar.wire.http2client import ClientConnection
from tests.fuzz.inputs import AppFrameInput, segments
from tests.support import frames
from tests.support.frames import Frame

Signature = tuple[object, ...]

_LIMITS: Final = Http2Limits()
_SMALL_LIMITS: Final = Http2Limits(
    connection_window=65_535, header_list_bytes=1024, fields=12, block_bytes=2048, continuations=3
)

_ALL_PIECES: Final = 2000
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"GET")
_ASKING: Final = 5
"""The stream of the POST, whose body is still being sent."""


def judge_app_frames(input: AppFrameInput) -> Signature:
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
    used = _Reading(input, uses=True)
    used.run(pieces)
    kinds = {type(event).__name__ for _, event in reading.events}
    reasons = {event.reason for _, event in reading.events if isinstance(event, Reset)}
    return (
        *("app frames", reading.reason, used.reason, tuple(sorted(kinds)), tuple(sorted(reasons))),
        *(len(reading.events).bit_length(), tuple(sorted({found.kind for found in used.sent}))),
    )


@attrs.define
class _Heard:
    """What was told of a stream, and how it stands on our side."""

    interim_count: int = 0
    head: ResponseHead | None = None
    body: int = 0
    held: int = 0
    has_trailers: bool = False
    is_over: bool = False  # nothing but Writable may follow
    is_closed: bool = False  # by a frame of ours


@attrs.define
class _Reading:
    """
    One connection fed with the input, on which four requests were sent.

    Attributes:
        uses: Whether bodies are acknowledged, the POST is sent on, and new requests take the place of old ones.
        events: All that was told.
        reason: Why the connection ended; "" if it did not.
        sent: Frames of ours.
    """

    input: AppFrameInput
    uses: bool = False
    events: list[tuple[int, ClientStreamEvent]] = attrs.field(init=False, factory=list)
    reason: str = attrs.field(init=False, default="")
    sent: list[Frame] = attrs.field(init=False, factory=list)
    _streams: dict[int, _Heard] = attrs.field(init=False, factory=dict)

    def run(self, pieces: Sequence[bytes]) -> None:
        limits = _SMALL_LIMITS if self.input.has_small_limits else _LIMITS
        connection = frames.client(limits)
        for method in _METHODS:
            self._streams[connection.open(method, b"/", b"Host: a\r\n", end=method != b"POST")] = _Heard()
        self._take(connection.data_to_send().removeprefix(frames.PREFACE))
        for piece in pieces:
            try:
                events = connection.receive(piece, 0.0)
            except ConnectionFault as fault:
                self.reason = fault.reason
                self._take(connection.data_to_send())
                last = self.sent[-1]
                assert (last.kind, last.payload[:4]) == (frames.GOAWAY, bytes(4)), (
                    "an error of the connection, no GOAWAY"
                )
                assert not connection.open_streams, "streams are open behind an error of the connection"
                assert not connection.room, "there is room on a connection that has ended"
                return
            self._take(connection.data_to_send())
            connection.sent(0)
            for stream_id, event in events:
                self._tell(stream_id, event, limits)
                self.events.append((stream_id, event))
                if self.uses:
                    self._use(connection, stream_id, event)
            self._take(connection.data_to_send())
            held = sum(heard.held for heard in self._streams.values() if not heard.is_over)
            assert held <= limits.connection_window, "more is held than the connection's window"
            assert 0 <= connection.room <= limits.streams - connection.open_streams, "room that is none"

    def _tell(self, stream_id: int, event: ClientStreamEvent, limits: Http2Limits) -> None:
        """Fail unless *event* may come next on its stream."""
        heard = self._streams[stream_id]
        if event is WRITABLE:
            assert stream_id == _ASKING, "room for a body that nobody sends"
            return
        assert not heard.is_over, "an event behind the end of a stream"
        if isinstance(event, InterimHead):
            heard.interim_count += 1
            assert heard.head is None, "an interim head behind the final one"
            assert heard.interim_count <= MAX_INTERIM_RESPONSES, "too many interim heads"
            assert parse_response_head(_http1(event), limits.fields, b"GET") == event, (
                "another interim head in HTTP/1.1"
            )
        elif isinstance(event, ResponseHead):
            assert heard.head is None, "a second head"
            heard.head = event
            method = _METHODS[stream_id // 2] if stream_id < 8 else b"GET"
            assert parse_response_head(_http1(event), limits.fields + 1, method) == event, "another head in HTTP/1.1"
        elif isinstance(event, Data):
            assert heard.head is not None, "a body without a head"
            assert not heard.has_trailers, "a body behind its trailers"
            heard.body += len(event.payload)
            heard.held += len(event.payload)
            assert heard.held <= limits.stream_window, "more is held than the stream's window"
        elif isinstance(event, Trailers):
            assert not heard.has_trailers, "trailers twice"
            heard.has_trailers = True
            assert FIELD_SECTION.fullmatch(event.fields.section), "trailers that are no lines"
        elif event is END:
            heard.is_over = True
            assert heard.head is not None, "an end without a head"
            if heard.head.body is not BodyKind.CHUNKED:
                assert heard.body == heard.head.length, "a body that is not as long as its head says"
        else:
            assert isinstance(event, Reset), f"an unknown event: {event}"
            heard.is_over = True
            is_touched = heard.head is not None or heard.interim_count
            assert not (event.is_unprocessed and is_touched), "a request that was answered may be sent again"

    def _use(self, connection: ClientConnection, stream_id: int, event: ClientStreamEvent) -> None:
        heard = self._streams[stream_id]
        if isinstance(event, Data):
            connection.acknowledge(stream_id, len(event.payload))
            heard.held = 0
        elif event is WRITABLE or isinstance(event, InterimHead | ResponseHead):
            if stream_id == _ASKING:
                connection.send_data(stream_id, bytes(40_000))
        elif event is END or isinstance(event, Reset):
            connection.reset(stream_id, frames.CANCEL)
            if connection.room:
                self._streams[connection.open(b"GET", b"/", b"Host: a\r\n", end=True)] = _Heard()

    def _take(self, data: bytes) -> None:
        """Read what we send as an app would."""
        for found in frames.parse(data):
            self.sent.append(found)
            assert len(found.payload) <= 16_384, "a frame that no app need take"
            if found.kind in (frames.HEADERS, frames.DATA, frames.RST_STREAM):
                heard = self._streams.setdefault(found.stream_id, _Heard())
                is_reset = found.kind == frames.RST_STREAM
                assert is_reset or not heard.is_closed, "a frame behind the end of its stream"
                heard.is_closed = is_reset or bool(found.flags & frames.END_STREAM)


def _http1(head: InterimHead | ResponseHead) -> bytes:
    return response_bytes(head.status, head.reason, head.fields.section)
