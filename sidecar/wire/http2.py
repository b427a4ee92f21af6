"""
The HTTP/2 connection machine in the server role: bytes in, events of its streams out, no I/O, no clock (RFC 9113).

`ServerConnection` is to HTTP/2 what `http1.ServerCodec` is to HTTP/1.1. Its requests have the same events, made by
`wire.h2fields`, with the number of their stream. Who does what:

- `wire.h2frames` finds frames; this module checks each against the state of its stream, and what it may cost, before
  the `h2` library sees it. `h2` keeps the windows and the states in which frames may be sent, and writes them.
- `h2` (`wire.h2library`) ends the connection over every fault of a message, keeps each setting that a client makes up,
  forgets what is unsent when a client says GOAWAY and can say no more itself after its own. So it is given no field of
  a request, no setting but one, and no GOAWAY, PING, PRIORITY or unknown frame; and never a frame that is wrong where
  it stands.
- A fault of one stream ends that stream, by RST_STREAM; a request that is refused with a status is left to the caller
  to answer, and the rest of it dropped. What nothing can be trusted after ends the connection, by GOAWAY.

What a connection holds, with the default limits, beside the body bytes that the caller holds (at most the connection's
window, 1 MiB, and 64 KiB for each stream):

   120 KiB  of an unfinished header block, and 16 KiB of an unfinished frame
   120 KiB  of a header list while it is read
   100 KiB  for the remembered heads, and the two tables of the compression with their overhead
    16 KiB  of replies to control frames; what else is to be sent is taken by the caller after each call
   100 KiB  for the states of 100 streams, here and in `h2`, and the numbers of those that ended last
    20 KiB  for itself: so much an idle connection has

The states of the reading side of a stream; the writing side goes HEAD, BODY, ENDED:

    BODY -- END_STREAM ----------------------> ENDED
    BODY -- refused with a status -----------> DROPPING      what still comes is acknowledged and dropped
    DROPPING -- END_STREAM ------------------> ENDED
    any  -- RST_STREAM, from either side ----> (gone)        so it is when both sides have ENDED
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import attrs

from sidecar.errors import RequestError, ResponseError
from sidecar.wire import h2frames
from sidecar.wire.events import END, BodyKind, Data, RequestHead, Trailers
from sidecar.wire.h2fields import RequestReader, ResponseWriter
from sidecar.wire.h2frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    MAX_STREAM_ID,
    PADDED,
    Code,
    ConnectionFault,
    FrameReader,
    StreamFault,
    frame,
)
from sidecar.wire.h2library import Library
from sidecar.wire.h2limits import Accounts, Http2Limits, Kind
from sidecar.wire.h2streams import (
    WRITABLE,
    EndedStreams,
    HowEnded,
    Reading,
    Refused,
    Reset,
    Stream,
    StreamEvent,
    Writing,
)

_BODY, _DROPPING, _ENDED = Reading.BODY, Reading.DROPPING, Reading.ENDED  # globals are read faster than members


@attrs.define
class _Block:
    """A header block whose END_HEADERS has not come."""

    stream_id: int
    ends_stream: bool
    depends_on: int
    pieces: list[bytes]
    size: int


# -- the connection ---------------------------------------------------------------------------------------------


class ServerConnection:
    """
    HTTP/2 with one client. Not to be used from within itself: no method calls the caller back.

    After each call, what `data_to_send` returns is to be written. For a stream that is gone, every method that sends
    does nothing: the client may reset it at any moment.

    Attributes:
        limits: What the client may cost.
        counts: Frames of limited kinds so far, by kind; for metrics.
        is_begun: Whether the client's preface and SETTINGS have arrived; until then there is a deadline to hold.
        are_settings_acknowledged: Whether the client has seen our limits.
        has_client_gone_away: Whether the client said GOAWAY: it will open no further stream.
        last_stream_id: The highest stream that the client has opened.
    """

    def __init__(self, limits: Http2Limits, websocket_key: Callable[[], bytes]) -> None:
        """
        Args:
            websocket_key: Makes a value for Sec-WebSocket-Key: 16 random bytes in base64.
        """
        self.limits = limits
        self._accounts = Accounts(limits)
        self.counts = self._accounts.counts
        self.is_begun = False
        self.are_settings_acknowledged = False
        self.has_client_gone_away = False
        self.last_stream_id = 0
        self._frames = FrameReader()
        self._requests = RequestReader(limits, websocket_key)
        self._responses = ResponseWriter()
        self._block: _Block | None = None
        self._streams: dict[int, Stream] = {}
        self._ended = EndedStreams()
        self._accepts_up_to = MAX_STREAM_ID  # less once the second GOAWAY is sent
        self._is_broken = False
        self._now = 0.0
        self._events: list[tuple[int, StreamEvent]] = []
        self._out: list[bytes] = []
        self._control_bytes = 0
        self._library = Library(limits)
        self._out.append(self._library.data_to_send())

    # -- what there is to know --

    @property
    def open_streams(self) -> int:
        """Requests that are not over, refused ones that are still to be answered included."""
        return len(self._streams)

    @property
    def is_head_unfinished(self) -> bool:
        """Whether part of a header block, or of a frame, has arrived: the rest has a deadline to keep."""
        return self._block is not None or not self._frames.is_between_frames

    @property
    def blocked_streams(self) -> list[int]:
        """Streams on which the client keeps us from sending: its windows are full. They have a deadline to keep."""
        return [stream_id for stream_id, stream in self._streams.items() if stream.is_blocked]

    def writable(self, stream_id: int) -> int:
        """Return how many bytes `send_data` would take now."""
        if stream_id not in self._streams:
            return 0
        return self._library.window(stream_id)

    # -- from the client --

    def receive(self, data: bytes, now: float) -> list[tuple[int, StreamEvent]]:
        """
        Take bytes from the client.

        Args:
            now: Seconds on a clock that never goes back.

        Returns:
            The events they complete, each with its stream. A stream begins with a RequestHead or Refused and is over
            after a Reset, or when both END has come and an end was sent.

        Raises:
            ConnectionFault: The client broke a rule or a limit of the connection. All its streams are over, without
                events; GOAWAY is among `data_to_send`, after which it is to be closed.
        """
        if self._is_broken:
            return []
        self._now = now
        events = self._events = []
        try:
            for kind, flags, stream_id, payload in self._frames.frames(data):
                self._frame(kind, flags, stream_id, payload)
        except ConnectionFault as fault:
            self._break(fault.code)
            raise
        return events

    def sent(self, unsent: int) -> None:
        """The caller's transport has *unsent* bytes left of all that it was given."""
        self._control_bytes = min(self._control_bytes, unsent)

    def _break(self, code: Code) -> None:
        self._is_broken = True
        self._library.clear_outbound_data_buffer()  # it may hold a GOAWAY of its own
        self._streams.clear()
        self._block = None
        self._out.append(h2frames.goaway(min(self.last_stream_id, self._accepts_up_to), code))

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

    def _whole_block(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream_id > self.last_stream_id:
            self.last_stream_id = stream_id
            self._open(stream_id, ends_stream, depends_on, block)
        elif stream is not None:
            self._trailers(stream_id, stream, ends_stream, depends_on, block)
        else:
            how = self._ended.how(stream_id)
            if how is None:
                raise h2frames.protocol_error("bad_stream_id", f"stream {stream_id} was passed over, or ended long ago")
            if how is not HowEnded.BY_US:
                raise _closed(stream_id)
            self._requests.skip(block)
            self._accounts.charge(Kind.LATE, self._now)

    def _open(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        if stream_id > self._accepts_up_to:
            self._requests.skip(block)
            self._ended.add(stream_id, HowEnded.BY_US)
            self._accounts.charge(Kind.LATE, self._now)
            return
        head: RequestHead | RequestError
        try:
            head = self._requests.request(block, ends_stream)
        except ConnectionFault:
            raise
        except RequestError as error:
            head = error
        if depends_on == stream_id:
            head = _self_dependent(stream_id)
        elif len(self._streams) >= self.limits.streams:
            limit = f"over {self.limits.streams:,} requests at a time"
            head = StreamFault(Code.REFUSED_STREAM, "too_many_streams", limit)
        if isinstance(head, StreamFault):
            self._end_unopened(stream_id, head)
            return
        self._library.take(h2frames.HEADERS, END_HEADERS | ends_stream, stream_id)  # for it, a request without fields
        if isinstance(head, RequestHead):
            self._opened(stream_id, ends_stream, head)
        else:
            self._streams[stream_id] = Stream(None, _ENDED if ends_stream else _DROPPING, False)
            self._events.append((stream_id, Refused(head)))

    def _opened(self, stream_id: int, ends_stream: bool, head: RequestHead) -> None:
        events = self._events
        events.append((stream_id, head))
        is_tunnel = bool(head.upgrade)
        if ends_stream:
            self._streams[stream_id] = Stream(None, _ENDED, is_tunnel)
            events.append((stream_id, END))
        elif head.body is BodyKind.NONE and not is_tunnel:
            # Content-Length: 0, and END_STREAM is still to come: as in HTTP/1.1, nobody waits for it.
            self._streams[stream_id] = Stream(0, _DROPPING, False)
            events.append((stream_id, END))
        else:
            missing = head.length if head.body is BodyKind.LENGTH else None
            self._streams[stream_id] = Stream(missing, _BODY, is_tunnel)

    def _end_unopened(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream of which neither the library nor the caller has heard; it has cost neither anything."""
        self._reply(h2frames.rst_stream(stream_id, fault.code))
        self._ended.add(stream_id, HowEnded.BY_US)
        self._was_faulty(stream_id, fault)

    def _trailers(self, stream_id: int, stream: Stream, ends_stream: bool, depends_on: int, block: bytes) -> None:
        if stream.reading is _ENDED:
            self._requests.skip(block)
            self._end_by_fault(stream_id, _half_closed(stream_id))
            return
        try:
            fields = self._requests.trailers(block)
            if depends_on == stream_id:
                raise _self_dependent(stream_id)
            if not ends_stream or stream.is_tunnel:
                raise StreamFault(Code.PROTOCOL_ERROR, "bad_trailer", "a second header block does not end the request")
            self._check_missing(stream, 0, ends_stream=True)
        except StreamFault as fault:
            self._end_by_fault(stream_id, fault)
            return
        self._library.take(h2frames.HEADERS, END_HEADERS | END_STREAM, stream_id)
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
        if stream is None or stream.reading is _ENDED:
            self._late_data(stream_id, stream, size)
            return
        self._library.take(h2frames.DATA, flags & END_STREAM, stream_id, payload)
        try:
            self._check_missing(stream, len(content), ends_stream)
        except StreamFault as fault:
            stream.held += size
            self._end_by_fault(stream_id, fault)
            return
        if stream.reading is _DROPPING:
            self._credit(stream_id, size)
        else:
            self._content(stream_id, stream, content, size)
            if ends_stream:
                self._events.append((stream_id, END))
        if ends_stream:
            self._reading_ended(stream_id, stream)

    def _content(self, stream_id: int, stream: Stream, content: bytes, size: int) -> None:
        if size > len(content):
            self._credit(stream_id, size - len(content))  # padding: nobody holds it
        if content:
            stream.held += len(content)
            self._events.append((stream_id, Data(content)))

    def _late_data(self, stream_id: int, stream: Stream | None, size: int) -> None:
        """DATA for a request that is over: it has taken its part of the connection's window all the same."""
        self._check_not_idle("DATA", stream_id)
        if size:
            self._reply(h2frames.window_update(0, size))
        if stream is not None:
            self._end_by_fault(stream_id, _half_closed(stream_id))
            return
        self._accounts.charge(Kind.LATE, self._now)
        how = self._ended.how(stream_id)
        if how is HowEnded.WHOLE:
            raise _closed(stream_id)
        if how is not HowEnded.BY_US:
            self._reply(h2frames.rst_stream(stream_id, Code.STREAM_CLOSED))

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
        """*size* body bytes of the stream, given as `Data`, have left towards the app: the client may send as many."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # what it had was given back when it ended
        assert 0 <= size <= stream.held, (size, stream.held)
        stream.held -= size
        self._credit(stream_id, size)

    def _credit(self, stream_id: int, size: int) -> None:
        self._library.acknowledge_received_data(size, stream_id)

    # -- the other frames --

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._check_not_idle("RST_STREAM", stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._accounts.charge(Kind.LATE, self._now)
            return
        if stream.writing is Writing.HEAD:
            # Behind the head, it is a download or a gRPC stream that ends: the app has done what it was asked for.
            self._accounts.charge(Kind.RESET, self._now)
        self._library.take(h2frames.RST_STREAM, 0, stream_id, payload)
        code = int.from_bytes(payload, "big")
        self._events.append((stream_id, Reset(code, "client_reset", f"the client reset the stream, code {code}")))
        self._forget(stream_id, HowEnded.BY_CLIENT)

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._accounts.charge(Kind.WINDOW_UPDATE, self._now)
        increment = int.from_bytes(payload, "big") & MAX_STREAM_ID
        if stream_id:
            self._check_not_idle("WINDOW_UPDATE", stream_id)
            if stream_id in self._streams:
                self._stream_window_update(stream_id, increment)
            return
        if not increment:
            raise h2frames.protocol_error("zero_increment", "the connection's window is to grow by nothing")
        self._library.take(h2frames.WINDOW_UPDATE, 0, 0, increment.to_bytes(4, "big"))
        self._wake()

    def _stream_window_update(self, stream_id: int, increment: int) -> None:
        if not increment:
            fault = StreamFault(Code.PROTOCOL_ERROR, "zero_increment", "the stream's window is to grow by nothing")
            self._end_by_fault(stream_id, fault)
            return
        if not self._library.take(h2frames.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big")):
            fault = StreamFault(Code.FLOW_CONTROL_ERROR, "window_overflow", "the stream's window grows over 2^31-1")
            self._forget(stream_id, HowEnded.BY_US)
            self._was_faulty(stream_id, fault)
        elif self._streams[stream_id].is_blocked:
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
        self.is_begun = True
        self._count_reply(9)  # the library acknowledges
        pairs = h2frames.read_settings(payload)
        sizes = [value for name, value in pairs if name == h2frames.HEADER_TABLE_SIZE]
        if sizes:
            self._responses.set_table_bytes(min(sizes))  # of several, the smallest holds in any order
        windows = [struct.pack("!HL", *pair) for pair in pairs if pair[0] == h2frames.INITIAL_WINDOW_SIZE]
        self._library.take(h2frames.SETTINGS, 0, 0, b"".join(windows))  # it keeps whatever setting it is told of
        self._wake()

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
            fault = _self_dependent(stream_id)
        if stream_id in self._streams:
            self._end_by_fault(stream_id, fault)
        elif stream_id > self.last_stream_id:
            raise ConnectionFault(fault.code, fault.reason, str(fault))  # there is no stream that could be reset

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._accounts.charge(Kind.SETTINGS, self._now)
        self.has_client_gone_away = True

    def _unexpected(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise h2frames.protocol_error(
            "unexpected_frame", "CONTINUATION of nothing, or PUSH_PROMISE, which no client may send"
        )

    def _check_not_idle(self, name: str, stream_id: int) -> None:
        if stream_id > self.last_stream_id:
            raise h2frames.protocol_error("idle_stream", f"{name} on stream {stream_id}, which was never opened")

    def _reply(self, data: bytes) -> None:
        self._count_reply(len(data))
        self._out.append(data)

    def _count_reply(self, size: int) -> None:
        """Count a reply to what the client can send without end, of *size* bytes, which it may never read."""
        self._control_bytes += size
        if self._control_bytes > self.limits.control_bytes:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                "unread_replies",
                f"the client does not read {self._control_bytes:,} bytes of replies to its frames, limit "
                f"{self.limits.control_bytes:,}",
            )

    def _wake(self) -> None:
        for stream_id, stream in self._streams.items():
            if stream.is_blocked and self._library.window(stream_id):
                stream.is_blocked = False
                self._events.append((stream_id, WRITABLE))

    # -- to the client --

    def send_head(self, stream_id: int, status: int, section: bytes, *, end: bool = False) -> None:
        """
        Send the head of a response, or (1xx) of an interim one.

        Args:
            status: 101 answers an extended CONNECT only, for which it becomes 200 (RFC 8441 section 5).
            section: Field lines as for HTTP/1.1; what belongs to a connection is left out.
            end: Whether there is no body.

        Raises:
            ResponseError: An app that was to switch protocols answers as if it had not been asked: its 2xx would tell
                the client that the tunnel stands. Nothing was sent.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        assert stream.writing is Writing.HEAD, stream.writing
        assert status >= 200 or not end, status
        is_tunnel = stream.is_tunnel
        if is_tunnel:
            status = self._tunnel_status(stream, status)
        block = self._responses.head(status, section, is_tunnel=is_tunnel)
        self._library.send_block(stream_id, block, is_interim=status < 200, end=end)
        if status >= 200:
            stream.writing = Writing.BODY
        if end:
            self._writing_ended(stream_id, stream)

    def _tunnel_status(self, stream: Stream, status: int) -> int:
        if status == 101:
            return 200
        if 200 <= status < 300:
            raise ResponseError("upgrade_ignored", f"the app answered a WebSocket request with {status}, not with 101")
        if status >= 300:  # it is an ordinary request, and an answered one
            stream.is_tunnel = False
            if stream.reading is _BODY:
                stream.reading = _DROPPING
        return status

    def send_data(self, stream_id: int, data: bytes, *, end: bool = False) -> int:
        """
        Send as much of a response's body as the client's windows allow.

        Args:
            end: Whether *data* is the rest of the body; the end goes out with its last byte.

        Returns:
            How many bytes were taken. If not all, `Writable` comes when the client takes more.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        assert stream.writing is Writing.BODY, stream.writing
        size = len(data)
        taken = min(size, self._library.window(stream_id))
        ends = end and taken == size
        frames = self._library.send_body(stream_id, data if taken == size else data[:taken], end=ends)
        self._accounts.data_frames += frames
        stream.is_blocked = taken < size
        if ends:
            self._writing_ended(stream_id, stream)
        return taken

    def send_trailers(self, stream_id: int, section: bytes) -> None:
        """End a response, with trailer fields (lines as for HTTP/1.1), or none if *section* is empty."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        assert stream.writing is Writing.BODY, stream.writing
        block = self._responses.trailers(section)
        if block:
            self._library.send_block(stream_id, block, is_interim=False, end=True)
        else:
            self._library.send_body(stream_id, b"", end=True)
        self._writing_ended(stream_id, stream)

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream at once, without its response or with what was sent of it."""
        if stream_id in self._streams:
            self._library.reset_stream(stream_id, code)
            self._forget(stream_id, HowEnded.BY_US)

    def announce_going_away(self) -> None:
        """
        The first step of a drain (RFC 9113 section 6.8): the client is to open no further stream; those that are on
        their way are still served. `go_away` follows a round trip or so later.
        """
        self._write(h2frames.goaway(MAX_STREAM_ID, Code.NO_ERROR))

    def go_away(self, code: Code = Code.NO_ERROR) -> None:
        """
        The second step: what was opened until now is served to its end, anything else is dropped unread, and the client
        may send it elsewhere.
        """
        self._accepts_up_to = min(self._accepts_up_to, self.last_stream_id)
        self._write(h2frames.goaway(self._accepts_up_to, code))

    def data_to_send(self) -> bytes:
        """Return the bytes to write now; they are not kept."""
        self._pull()
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _write(self, data: bytes) -> None:
        if not self._is_broken:
            self._pull()
            self._out.append(data)

    def _pull(self) -> None:
        """Put what the library has to send behind what we have."""
        data = self._library.data_to_send()
        if data:
            self._out.append(data)

    # -- ends --

    def _end_by_fault(self, stream_id: int, fault: StreamFault) -> None:
        self._library.reset_stream(stream_id, fault.code)
        self._count_reply(13)
        self._forget(stream_id, HowEnded.BY_US)
        self._was_faulty(stream_id, fault)

    def _was_faulty(self, stream_id: int, fault: StreamFault) -> None:
        """The client made us reset a stream, which costs us as much as if it had done so itself."""
        self._events.append((stream_id, Reset(fault.code, fault.reason, str(fault))))
        self._accounts.charge(Kind.RESET, self._now)

    def _reading_ended(self, stream_id: int, stream: Stream) -> None:
        stream.reading = _ENDED
        if stream.writing is Writing.ENDED:
            self._forget(stream_id, HowEnded.WHOLE)

    def _writing_ended(self, stream_id: int, stream: Stream) -> None:
        stream.writing = Writing.ENDED
        self._accounts.answers += 1
        if stream.reading is _ENDED:
            self._forget(stream_id, HowEnded.WHOLE)
        elif not stream.is_tunnel:
            # RFC 9113 section 8.1: the whole answer is given, the rest of the request would be read for nothing.
            self._library.reset_stream(stream_id, Code.NO_ERROR)
            self._forget(stream_id, HowEnded.BY_US)

    def _forget(self, stream_id: int, how: HowEnded) -> None:
        stream = self._streams.pop(stream_id)
        if stream.held:
            self._credit(stream_id, stream.held)  # the caller drops what it holds of a stream that is over
        self._ended.add(stream_id, how)


_STEPS: Final[dict[int, Callable[[ServerConnection, int, int, bytes], None]]] = {
    h2frames.DATA: ServerConnection._data,
    h2frames.HEADERS: ServerConnection._headers,
    h2frames.PRIORITY: ServerConnection._priority,
    h2frames.RST_STREAM: ServerConnection._rst_stream,
    h2frames.SETTINGS: ServerConnection._settings,
    h2frames.PUSH_PROMISE: ServerConnection._unexpected,
    h2frames.PING: ServerConnection._ping,
    h2frames.GOAWAY: ServerConnection._goaway,
    h2frames.WINDOW_UPDATE: ServerConnection._window_update,
    h2frames.CONTINUATION: ServerConnection._unexpected,
}


def _closed(stream_id: int) -> ConnectionFault:
    return ConnectionFault(Code.STREAM_CLOSED, "stream_closed", f"a frame on stream {stream_id}, which is over")


def _half_closed(stream_id: int) -> StreamFault:
    return StreamFault(Code.STREAM_CLOSED, "stream_closed", f"a frame behind the end of request {stream_id}")


def _self_dependent(stream_id: int) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, "bad_priority", f"stream {stream_id} depends on itself")
