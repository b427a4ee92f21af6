"""
An HTTP/2 connection in either role: what `wire.http2` and `wire.http2client` share, which is all but what streams begin
and end with (RFC 9113).

- `wire.h2frames` finds and writes frames; this module checks each that comes against the state of its stream, what it
  may cost, and the windows of both sides (section 5.2).
- Credit for what was received is given back when half of a window is due: one frame for many. The window of a stream
  grows while the caller acknowledges all that comes.
- A fault of one stream ends that stream, by RST_STREAM. What nothing can be trusted after ends the connection, by
  GOAWAY.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from sidecar.wire import h2frames
from sidecar.wire.events import END, Data, Trailers
from sidecar.wire.h2frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    PADDED,
    Code,
    ConnectionFault,
    FrameReader,
    StreamFault,
    frame,
)
from sidecar.wire.h2limits import Accounts, Http2Limits, Kind
from sidecar.wire.h2rules import SectionReader
from sidecar.wire.h2streams import WRITABLE, EndedStreams, HowEnded, Reading, Stream, Writing

# Globals are read faster than members.
_HEAD, _BODY, _DROPPING, _ENDED = Reading.HEAD, Reading.BODY, Reading.DROPPING, Reading.ENDED

DEFAULT_WINDOW: Final = 65_535
"""RFC 9113 section 6.9.2: every window begins with it, until somebody says otherwise."""

MAX_WINDOW: Final = 2**31 - 1

_Event = TypeVar("_Event")


class SectionWriter(Protocol):
    """Writes header blocks: what the two roles' writers have in common."""

    def set_table_bytes(self, size: int) -> None:
        """The peer sets the size of the table (SETTINGS_HEADER_TABLE_SIZE)."""

    def trailers(self, section: bytes) -> bytes:
        """Return the block of a trailer section; b"" if nothing of it can be sent."""


@attrs.define(eq=False, repr=False)
class _Block:
    """A header block whose END_HEADERS has not come."""

    stream_id: int
    ends_stream: bool
    depends_on: int
    pieces: list[bytes]
    size: int


class Connection(abc.ABC, Generic[_Event]):
    """
    HTTP/2 with one peer. Not to be used from within itself: no method calls the caller back.

    After each call, what `data_to_send` returns is to be written. For a stream that is gone, every method that sends
    does nothing: the peer may reset it at any moment.

    Attributes:
        limits: What the peer may cost.
        counts: Frames of limited kinds so far, by kind; for metrics.
        is_begun: Whether the peer's SETTINGS have arrived, behind the preface of a client.
        are_settings_acknowledged: Whether the peer has seen our limits.
        last_stream_id: The highest stream that was opened.
    """

    _peer: str  # what it is called in messages

    def __init__(
        self,
        limits: Http2Limits,
        frames: FrameReader,
        reader: SectionReader[Any],
        writer: SectionWriter,
        settings: list[tuple[int, int]],
    ) -> None:
        """
        Args:
            reader: Of the peer's header blocks, with heads of either role, hence Any.
            settings: What the peer is told of the role, beside the limits that both have.
        """
        self.limits = limits
        self._reader = reader
        self._writer = writer
        self._accounts = Accounts(limits)
        self.counts = self._accounts.counts
        self.is_begun = False
        self.are_settings_acknowledged = False
        self.last_stream_id = 0
        self._frames = frames
        self._block: _Block | None = None
        self._streams: dict[int, Stream] = {}
        self._ended = EndedStreams()
        self._accepts_up_to = MAX_STREAM_ID  # of the peer's streams; less once the last GOAWAY is sent
        self._is_broken = False
        self._now = 0.0
        self._events: list[tuple[int, Any]] = []  # of either role, hence Any
        self._out: list[bytes | memoryview] = []
        self._control_bytes = 0
        self._late_bytes = 0  # of DATA for streams that are over: credit that is still to be given back
        self._window = self._initial_window = DEFAULT_WINDOW  # what the peer takes: on all streams, on a new one
        self._credit = limits.connection_window  # what it may send, on all streams
        self._due = 0  # credit that is still to be given back
        self._connection_share = limits.connection_window // 2
        self._largest_window = limits.largest_stream_window
        self._out.append(
            h2frames.settings(
                [
                    *settings,
                    (h2frames.INITIAL_WINDOW_SIZE, limits.stream_window),
                    (h2frames.MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
                ]
            )
        )
        if limits.connection_window > DEFAULT_WINDOW:
            self._out.append(h2frames.window_update(0, limits.connection_window - DEFAULT_WINDOW))

    # -- what there is to know --

    @property
    def open_streams(self) -> int:
        """Streams that are not over, refused requests that are still to be answered included."""
        return len(self._streams)

    @property
    def is_head_unfinished(self) -> bool:
        """Whether part of a header block, or of a frame, has arrived: the rest has a deadline to keep."""
        return self._block is not None or not self._frames.is_between_frames

    @property
    def blocked_streams(self) -> list[int]:
        """Streams on which the peer keeps us from sending: its windows are full. They have a deadline to keep."""
        return [stream_id for stream_id, stream in self._streams.items() if stream.is_blocked]

    def writable(self, stream_id: int) -> int:
        """Return how many bytes `send_data` would take now."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else self._room(stream)

    def _room(self, stream: Stream) -> int:
        return max(0, min(self._window, stream.window))  # that of a stream may be below 0, by a later SETTINGS

    # -- from the peer --

    def receive(self, data: bytes, now: float) -> list[tuple[int, _Event]]:
        """
        Take bytes from the peer.

        Args:
            now: Seconds on a clock that never goes back.

        Returns:
            The events they complete, each with its stream.

        Raises:
            ConnectionFault: The peer broke a rule or a limit of the connection. All its streams are over, without
                events; GOAWAY is among `data_to_send`, after which it is to be closed.
        """
        if self._is_broken:
            return []
        self._now = now
        events = self._events = []
        try:
            for kind, flags, stream_id, payload in self._frames.frames(data):
                self._frame(kind, flags, stream_id, payload)
            if self._late_bytes:
                self._credit_late()
        except ConnectionFault as fault:
            self._break(fault)
            raise
        return events

    def sent(self, unsent: int) -> None:
        """The caller's transport has *unsent* bytes left of all that it was given."""
        self._control_bytes = min(self._control_bytes, unsent)

    def _break(self, fault: ConnectionFault) -> None:
        self._is_broken = True
        self._streams.clear()
        self._block = None
        self._out.append(h2frames.goaway(min(self.last_stream_id, self._accepts_up_to), fault.code, fault.reason))

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != h2frames.CONTINUATION or stream_id != self._block.stream_id:
                raise h2frames.protocol_error("bad_continuation", "a header block is interrupted by another frame")
            self._continuation(self._block, flags, payload)
        elif not self.is_begun and (kind != h2frames.SETTINGS or flags & ACK):
            raise h2frames.protocol_error("no_settings", "the first frame is not SETTINGS")
        elif (step := _STEPS.get(kind)) is not None:
            h2frames.check_shape(kind, stream_id, len(payload))
            step(self, flags, stream_id, payload)
        else:
            self._accounts.charge(Kind.UNKNOWN, self._now)  # RFC 9113 section 5.5: ignored

    # -- what the roles differ in --

    @abc.abstractmethod
    def _whole_block(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        """A header block has arrived; whatever it is, it must be read."""

    @abc.abstractmethod
    def _was_reset(self, stream_id: int, stream: Stream, code: int) -> None:
        """The peer has ended a stream, which is forgotten."""

    @abc.abstractmethod
    def _was_faulty(self, stream_id: int, stream: Stream, fault: StreamFault) -> None:
        """The peer has broken a rule on a stream, which was reset and is forgotten."""

    @abc.abstractmethod
    def _writing_ended(self, stream_id: int, stream: Stream) -> None:
        """Our half of a stream has ended."""

    @abc.abstractmethod
    def _went_away(self, payload: bytes) -> None:
        """The peer has said GOAWAY."""

    # -- header blocks --

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        start, depends_on = 0, -1
        if flags & (PADDED | HAS_PRIORITY):
            payload, start, depends_on = h2frames.without_frills(flags, payload)
        block = payload[start:] if start else payload
        ends_stream = bool(flags & END_STREAM)
        self._check_block(len(block), 1)
        if flags & END_HEADERS:
            self._whole_block(stream_id, ends_stream, depends_on, block)
        else:
            self._block = _Block(stream_id, ends_stream, depends_on, [block], len(block))

    def _check_block(self, size: int, frames: int) -> None:
        limits = self.limits
        if size > limits.block_bytes or frames > limits.continuations + 1:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                "continuation_flood",
                f"a header block of {size:,} bytes in {frames} frames, limits {limits.block_bytes:,} and "
                f"{limits.continuations + 1}",
            )

    def _continuation(self, block: _Block, flags: int, payload: bytes) -> None:
        block.pieces.append(payload)
        block.size += len(payload)
        self._check_block(block.size, len(block.pieces))
        if flags & END_HEADERS:
            self._block = None
            self._whole_block(block.stream_id, block.ends_stream, block.depends_on, b"".join(block.pieces))

    def _trailers(self, stream_id: int, stream: Stream, ends_stream: bool, depends_on: int, block: bytes) -> None:
        if stream.reading is _ENDED:
            self._reader.skip(block)
            self._end_by_fault(stream_id, _half_closed(stream_id))
            return
        try:
            fields = self._reader.trailers(block)
            if depends_on == stream_id:
                raise self_dependent(stream_id)
            if not ends_stream or stream.is_tunnel:
                raise StreamFault(Code.PROTOCOL_ERROR, "bad_trailer", "a second header block does not end its stream")
            self._check_missing(stream, 0, ends_stream=True)
        except StreamFault as fault:
            self._end_by_fault(stream_id, fault)
            return
        if stream.reading is _BODY:
            if fields is not None:
                self._events.append((stream_id, Trailers(fields)))
            self._events.append((stream_id, END))
        self._reading_ended(stream_id, stream)

    # -- bodies --

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        content = payload
        if flags & PADDED:
            content, start, _ = h2frames.without_frills(PADDED, payload)
            content = content[start:]
            if size - len(content) > len(content):
                self._accounts.charge(Kind.PADDING, self._now)
        ends_stream = bool(flags & END_STREAM)
        if not content and not ends_stream:
            self._accounts.charge(Kind.EMPTY_DATA, self._now)
        stream = self._streams.get(stream_id)
        if stream is None or stream.reading is _ENDED or stream.reading is _HEAD:
            self._misplaced_data(stream_id, stream, size)
            return
        self._spend(stream, size)
        try:
            self._check_missing(stream, len(content), ends_stream)
        except StreamFault as fault:
            stream.held += size
            self._end_by_fault(stream_id, fault)
            return
        if stream.reading is _DROPPING:
            self._give_back(stream_id, stream, size)
        else:
            self._content(stream_id, stream, content, size)
            if ends_stream:
                self._events.append((stream_id, END))
        if ends_stream:
            self._reading_ended(stream_id, stream)

    def _spend(self, stream: Stream, size: int) -> None:
        self._credit -= size
        stream.credit -= size
        if self._credit < 0 or stream.credit < 0:
            message = f"the {self._peer} sent more than a window allows"
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window_exceeded", message)

    def _content(self, stream_id: int, stream: Stream, content: bytes, size: int) -> None:
        if size > len(content):
            self._give_back(stream_id, stream, size - len(content))  # padding: nobody holds it
        if content:
            stream.held += len(content)
            self._events.append((stream_id, Data(content)))

    def _misplaced_data(self, stream_id: int, stream: Stream | None, size: int) -> None:
        """DATA where nobody reads a body: it has taken its part of the connection's window all the same."""
        self._check_not_idle("DATA", stream_id)
        self._late_bytes += size
        if stream is not None:
            self._end_by_fault(stream_id, _half_closed(stream_id) if stream.reading is _ENDED else _headless(stream_id))
        else:
            self._late_data(stream_id)

    def _late_data(self, stream_id: int) -> None:
        self._accounts.charge(Kind.LATE, self._now)
        how = self._ended.how(stream_id)
        if how is HowEnded.WHOLE:
            raise closed(stream_id)
        if how is not HowEnded.BY_US:
            self._reply(h2frames.rst_stream(stream_id, Code.STREAM_CLOSED))

    def _credit_late(self) -> None:
        """Once for all that has arrived together: a stream that is over may have had thousands of frames under way."""
        size, self._late_bytes = self._late_bytes, 0
        self._reply(h2frames.window_update(0, size))

    def _check_missing(self, stream: Stream, size: int, ends_stream: bool) -> None:
        """RFC 9113 section 8.1.1: Content-Length is the sum of all DATA."""
        if stream.missing is None:
            return
        stream.missing -= size
        if stream.missing < 0 or (ends_stream and stream.missing):
            how = "less" if stream.missing > 0 else "more"
            raise StreamFault(
                Code.PROTOCOL_ERROR, "bad_content_length", f"the body has {how} bytes than Content-Length says"
            )

    def acknowledge(self, stream_id: int, size: int) -> None:
        """*size* body bytes of the stream, given as `Data`, have left: the peer may send as many."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # what it had was given back when it ended
        assert 0 <= size <= stream.held, (size, stream.held)
        stream.held -= size
        self._give_back(stream_id, stream, size)

    def _give_back(self, stream_id: int, stream: Stream, size: int) -> None:
        self._give_back_of_all(size)
        if stream.reading is _ENDED:
            return  # nothing more may come on it
        stream.due += size
        if stream.due >= stream.size // 2:
            increment = stream.due
            if not stream.held and stream.size < self._largest_window:
                # All of it was taken at once: larger pieces cost less, and a path that is long needs more.
                grown = min(2 * stream.size, self._largest_window)
                increment += grown - stream.size
                stream.size = grown
            self._out.append(h2frames.window_update(stream_id, increment))
            stream.credit += increment
            stream.due = 0

    def _give_back_of_all(self, size: int) -> None:
        """Give back what all streams share, also when the one that had it is over."""
        self._due += size
        # While streams hold most of the window, what is left of it must not wait for half of it.
        if self._due >= min(self._connection_share, self._credit):
            self._out.append(h2frames.window_update(0, self._due))
            self._credit += self._due
            self._due = 0

    # -- the other frames --

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_not_idle("RST_STREAM", stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._accounts.charge(Kind.LATE, self._now)
            return
        self._forget(stream_id, HowEnded.BY_PEER)
        self._was_reset(stream_id, stream, int.from_bytes(payload, "big"))

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._accounts.charge(Kind.WINDOW_UPDATE, self._now)
        increment = int.from_bytes(payload, "big") & MAX_STREAM_ID
        if stream_id:
            self._check_not_idle("WINDOW_UPDATE", stream_id)
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._stream_window_update(stream_id, stream, increment)
            return
        if not increment:
            raise h2frames.protocol_error("zero_increment", "the connection's window is to grow by nothing")
        self._window += increment
        if self._window > MAX_WINDOW:
            message = "the connection's window grows over 2^31-1"
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window_overflow", message)
        self._wake()

    def _stream_window_update(self, stream_id: int, stream: Stream, increment: int) -> None:
        if not increment:
            fault = StreamFault(Code.PROTOCOL_ERROR, "zero_increment", "the stream's window is to grow by nothing")
            self._end_by_fault(stream_id, fault)
            return
        stream.window += increment
        if stream.window > MAX_WINDOW:
            fault = StreamFault(Code.FLOW_CONTROL_ERROR, "window_overflow", "the stream's window grows over 2^31-1")
            self._end_by_fault(stream_id, fault)
        elif stream.is_blocked:
            self._wake()

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK and payload:
            raise h2frames.bad_size(h2frames.SETTINGS, len(payload))
        if len(payload) > 6 * self.limits.settings:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                "settings_flood",
                f"{len(payload) // 6:,} settings in a frame, limit {self.limits.settings}",
            )
        self._accounts.charge(Kind.SETTINGS, self._now)
        if flags & ACK:
            self.are_settings_acknowledged = True
            return
        self._heed(h2frames.read_settings(payload))
        self._reply(frame(h2frames.SETTINGS, ACK, 0))
        self.is_begun = True
        self._wake()

    def _heed(self, pairs: list[tuple[int, int]]) -> None:
        sizes = [value for name, value in pairs if name == h2frames.HEADER_TABLE_SIZE]
        if sizes:
            self._writer.set_table_bytes(min(sizes))  # of several, the smallest holds in any order
        for name, value in pairs:
            if name == h2frames.INITIAL_WINDOW_SIZE:
                self._change_windows(value)

    def _change_windows(self, initial: int) -> None:
        """RFC 9113 section 6.9.2: the windows of all streams change with the one that they begin with."""
        change, self._initial_window = initial - self._initial_window, initial
        for stream in self._streams.values():
            stream.window += change
            if stream.window > MAX_WINDOW:
                message = "the window of a stream grows over 2^31-1 by SETTINGS"
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "window_overflow", message)

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._accounts.charge(Kind.PING, self._now)
        if not flags & ACK:
            self._reply(frame(h2frames.PING, ACK, 0, payload))

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Not heeded: RFC 9113 section 5.3.2 deprecates it."""
        self._accounts.charge(Kind.PRIORITY, self._now)
        if len(payload) == 5 and int.from_bytes(payload[:4], "big") & MAX_STREAM_ID != stream_id:
            return
        if len(payload) != 5:
            fault = StreamFault(Code.FRAME_SIZE_ERROR, "frame_size", f"PRIORITY of {len(payload)} bytes")
        else:
            fault = self_dependent(stream_id)
        if stream_id in self._streams:
            self._end_by_fault(stream_id, fault)
        elif stream_id > self.last_stream_id:
            raise ConnectionFault(fault.code, fault.reason, str(fault))  # there is no stream that could be reset

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._accounts.charge(Kind.SETTINGS, self._now)
        self._went_away(payload)

    def _unexpected(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise h2frames.protocol_error(
            "unexpected_frame", f"CONTINUATION of nothing, or PUSH_PROMISE, which no {self._peer} may send"
        )

    def _check_not_idle(self, name: str, stream_id: int) -> None:
        if stream_id > self.last_stream_id:
            raise h2frames.protocol_error("idle_stream", f"{name} on stream {stream_id}, which was never opened")

    def _reply(self, data: bytes) -> None:
        self._count_reply(len(data))
        self._out.append(data)

    def _count_reply(self, size: int) -> None:
        """Count a reply to what the peer can send without end, of *size* bytes, which it may never read."""
        self._control_bytes += size
        if self._control_bytes > self.limits.control_bytes:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                "unread_replies",
                f"the {self._peer} does not read {self._control_bytes:,} bytes of replies to its frames, limit "
                f"{self.limits.control_bytes:,}",
            )

    def _wake(self) -> None:
        room = self._window
        for stream_id, stream in self._streams.items():
            if room <= 0:
                return
            if stream.is_blocked and stream.window > 0:
                stream.is_blocked = False
                room -= min(stream.wanted, stream.window)
                self._events.append((stream_id, WRITABLE))

    # -- to the peer --

    def send_data(self, stream_id: int, data: bytes, *, end: bool = False) -> int:
        """
        Send as much of a body as the peer's windows allow.

        Args:
            end: Whether *data* is the rest of the body; the end goes out with its last byte.

        Returns:
            How many bytes were taken. If not all, `Writable` comes when the peer takes more.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        assert stream.writing is Writing.BODY, stream.writing
        size = len(data)
        taken = min(size, self._room(stream))
        ends = end and taken == size
        self._send_body(stream_id, data if taken == size else data[:taken], ends)
        self._window -= taken
        stream.window -= taken
        if taken < size:
            stream.is_blocked = True
            stream.wanted = size - taken
            if taken:
                self._streams[stream_id] = self._streams.pop(stream_id)  # it is the others' turn
        if ends:
            self._writing_ended(stream_id, stream)
        return taken

    def send_trailers(self, stream_id: int, section: bytes) -> None:
        """End a message, with trailer fields (lines as for HTTP/1.1), or none if *section* is empty."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        assert stream.writing is Writing.BODY, stream.writing
        block = self._writer.trailers(section)
        if block:
            self._send_block(stream_id, block, True)
        else:
            self._send_body(stream_id, b"", True)
        self._writing_ended(stream_id, stream)

    def _send_block(self, stream_id: int, block: bytes, ends_stream: bool) -> None:
        """Send a header block, in as many frames as it takes."""
        flags = END_STREAM if ends_stream else 0
        if len(block) <= MAX_FRAME_BYTES:
            self._out.append(frame(h2frames.HEADERS, flags | END_HEADERS, stream_id, block))
            return
        kind, at = h2frames.HEADERS, 0
        while at < len(block):
            piece = block[at : at + MAX_FRAME_BYTES]
            at += len(piece)
            self._out.append(frame(kind, flags | (END_HEADERS if at == len(block) else 0), stream_id, piece))
            kind, flags = h2frames.CONTINUATION, 0

    def _send_body(self, stream_id: int, data: bytes, ends_stream: bool) -> None:
        """Send *data*, for which there is room, in as many frames as it takes."""
        size = len(data)
        count = -(-size // MAX_FRAME_BYTES)
        if count > 1:
            # Views: the pieces are copied once, when all that is to be sent is put together.
            view, last = memoryview(data), (count - 1) * MAX_FRAME_BYTES
            head = h2frames.head(MAX_FRAME_BYTES, h2frames.DATA, 0, stream_id)
            for at in range(0, last, MAX_FRAME_BYTES):
                self._out.append(head)
                self._out.append(view[at : at + MAX_FRAME_BYTES])
            self._out.append(h2frames.head(size - last, h2frames.DATA, END_STREAM if ends_stream else 0, stream_id))
            self._out.append(view[last:])
        elif size or ends_stream:
            self._out.append(frame(h2frames.DATA, END_STREAM if ends_stream else 0, stream_id, data))
        self._accounts.sent_data(count, size)

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream at once, with what was sent of it."""
        if stream_id in self._streams:
            self._out.append(h2frames.rst_stream(stream_id, code))
            self._forget(stream_id, HowEnded.BY_US)

    def go_away(self, code: Code = Code.NO_ERROR) -> None:
        """
        Say that what was opened until now goes on to its end, and nothing else: what the peer opens from now on is
        dropped unread, and it may send that elsewhere. For a server it is the second step of a drain.
        """
        self._accepts_up_to = min(self._accepts_up_to, self.last_stream_id)
        self._write(h2frames.goaway(self._accepts_up_to, code))

    def data_to_send(self) -> bytes:
        """Return the bytes to write now; they are not kept."""
        out = self._out
        if not out:
            return b""
        first = out[0]
        data = first if len(out) == 1 and isinstance(first, bytes) else b"".join(out)
        out.clear()
        return data

    def _write(self, data: bytes) -> None:
        if not self._is_broken:
            self._out.append(data)

    # -- ends --

    def _end_by_fault(self, stream_id: int, fault: StreamFault) -> None:
        self._reply(h2frames.rst_stream(stream_id, fault.code))
        self._was_faulty(stream_id, self._forget(stream_id, HowEnded.BY_US), fault)

    def _reading_ended(self, stream_id: int, stream: Stream) -> None:
        stream.reading = _ENDED
        if stream.writing is Writing.ENDED:
            self._forget(stream_id, HowEnded.WHOLE)

    def _forget(self, stream_id: int, how: HowEnded) -> Stream:
        stream = self._streams.pop(stream_id)
        if stream.held:
            self._give_back_of_all(stream.held)  # the caller drops what it holds of a stream that is over
        self._ended.add(stream_id, how)
        return stream


_STEPS: Final[dict[int, Callable[[Connection[Any], int, int, bytes], None]]] = {
    h2frames.DATA: Connection._data,
    h2frames.HEADERS: Connection._headers,
    h2frames.PRIORITY: Connection._priority,
    h2frames.RST_STREAM: Connection._rst_stream,
    h2frames.SETTINGS: Connection._settings,
    h2frames.PUSH_PROMISE: Connection._unexpected,
    h2frames.PING: Connection._ping,
    h2frames.GOAWAY: Connection._goaway,
    h2frames.WINDOW_UPDATE: Connection._window_update,
    h2frames.CONTINUATION: Connection._unexpected,
}


def closed(stream_id: int) -> ConnectionFault:
    """Return the fault of a frame on a stream that both sides have ended."""
    return ConnectionFault(Code.STREAM_CLOSED, "stream_closed", f"a frame on stream {stream_id}, which is over")


def _half_closed(stream_id: int) -> StreamFault:
    return StreamFault(Code.STREAM_CLOSED, "stream_closed", f"a frame behind the end of stream {stream_id}")


def _headless(stream_id: int) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, "body_before_head", f"DATA on stream {stream_id} before the head")


def self_dependent(stream_id: int) -> StreamFault:
    """Return the fault of a priority that makes a stream wait for itself."""
    return StreamFault(Code.PROTOCOL_ERROR, "bad_priority", f"stream {stream_id} depends on itself")
