"""
The HTTP/2 connection machine in the client role: requests out, events of their responses in, no I/O, no clock
(RFC 9113). It is for connections to an app that is known to speak HTTP/2 (section 3.3), which many requests share.

`ClientConnection` is to HTTP/2 what `http1.ClientCodec` is to HTTP/1.1. Its responses have the same events, made by
`wire.h2clientfields`, with the number of their stream. What both roles have in common is in `wire.h2connection`; here
is what begins and ends a stream:

- A response that is malformed, or over a limit, ends its stream, by RST_STREAM; the others go on.
- Behind END nothing more is told of a stream but WRITABLE: whatever the app sends on it, or however it ends it, it has
  said all. The request may still be under way then: the caller ends it, or resets the stream.
- Credit for body bytes that the caller holds is given back when it acknowledges them, and all that is left of it when
  the stream ends. So the caller holds at most a stream's window for each response, and for all streams that are open
  the connection's.
- Nothing that the app has touched is said to be unprocessed: neither a promise of RST_STREAM nor one of GOAWAY counts
  behind a head.
- Resets and malformed responses have no limit of their own, as those of a client have: there is one for each request
  that we sent.

The states of the reading side of a stream; the writing side goes BODY, ENDED:

    HEAD -- 1xx -----------------------------> HEAD
    HEAD -- head ----------------------------> BODY
    HEAD, BODY -- END_STREAM ----------------> ENDED
    any  -- RST_STREAM, from either side ----> (gone)        so it is when both sides have ENDED
    HEAD, BODY -- GOAWAY for lower streams --> (gone)
"""

from __future__ import annotations

import struct
from typing import Final

from sidecar.errors import ResponseError
from sidecar.wire import h2frames
from sidecar.wire.events import END, BodyKind, InterimHead, ResponseHead
from sidecar.wire.h2clientfields import RequestWriter, ResponseReader
from sidecar.wire.h2connection import Connection, closed, self_dependent
from sidecar.wire.h2frames import MAX_STREAM_ID, Code, ConnectionFault, FrameReader, StreamFault
from sidecar.wire.h2limits import Http2Limits, Kind
from sidecar.wire.h2rules import malformed
from sidecar.wire.h2streams import ClientStreamEvent, HowEnded, Reading, Reset, Stream, Writing
from sidecar.wire.http1 import MAX_INTERIM_RESPONSES

STREAMS_UNTIL_TOLD: Final = 100
"""Requests that may be under way before the app has said how many it takes: the least that RFC 9113 section 6.5.2
recommends to allow."""

_HEAD, _BODY, _ENDED = Reading.HEAD, Reading.BODY, Reading.ENDED  # globals are read faster than members


class ClientConnection(Connection[ClientStreamEvent]):
    """
    HTTP/2 with one app. Requests may be opened at once, before it has said anything (RFC 9113 section 3.4).

    A stream is over after a Reset, or when both END has come and an end was sent.

    Attributes:
        has_server_gone_away: Whether the app said GOAWAY: nothing more can be opened, what is open goes on.
    """

    _peer = "app"

    def __init__(self, limits: Http2Limits) -> None:
        """
        Args:
            limits: What the app may cost; see `Http2Limits.for_app`.
        """
        self._responses = ResponseReader(limits)
        self._requests = RequestWriter()
        frames = FrameReader(begins_with_preface=False)
        super().__init__(limits, frames, self._responses, self._requests, [(h2frames.ENABLE_PUSH, 0)])
        self._out.insert(0, h2frames.PREFACE)
        self.has_server_gone_away = False
        self._accepts_up_to = 0  # streams of the app: we have not allowed PUSH_PROMISE
        self._opens_up_to = MAX_STREAM_ID  # 0 when there is no more to be opened
        self._most_streams = min(limits.streams, STREAMS_UNTIL_TOLD)

    @property
    def room(self) -> int:
        """How many more streams may be opened now; 0 for good once either side has gone away."""
        numbers = (self._opens_up_to - self.last_stream_id + 1) // 2
        return max(0, min(self._most_streams - len(self._streams), numbers))

    # -- to the app --

    def open(self, method: bytes, target: bytes, section: bytes, *, end: bool) -> int:
        """
        Send the head of a request; there must be `room`.

        Args:
            target: In origin-form or asterisk-form.
            section: Field lines as for HTTP/1.1. Host becomes :authority, and what belongs to a connection is left out,
                but for a TE that allows trailers.
            end: Whether there is no body.

        Returns:
            The number of its stream.
        """
        assert self.room, "there is no room for a stream"
        stream_id = self.last_stream_id = (self.last_stream_id + 1) | 1
        writing = Writing.ENDED if end else Writing.BODY
        self._streams[stream_id] = Stream(
            None,
            _HEAD,
            writing=writing,
            window=self._initial_window,
            size=self.limits.stream_window,
            credit=self.limits.stream_window,
            method=method,
        )
        self._send_block(stream_id, self._requests.head(method, target, section), end)
        return stream_id

    def go_away(self, code: Code = Code.NO_ERROR) -> None:
        """Say that nothing more will be opened; what is open goes on to its end."""
        self._opens_up_to = 0
        super().go_away(code)

    # -- from the app --

    def receive(self, data: bytes, now: float) -> list[tuple[int, ClientStreamEvent]]:
        """Take bytes from the app: see `Connection.receive`."""
        try:
            return super().receive(data, now)
        except ConnectionFault as fault:
            self._opens_up_to = 0
            fault.status = ResponseError.status
            raise

    def _whole_block(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._late_block(stream_id, block)
        elif stream.reading is _HEAD:
            self._response(stream_id, stream, ends_stream, depends_on, block)
        else:
            self._trailers(stream_id, stream, ends_stream, depends_on, block)

    def _late_block(self, stream_id: int, block: bytes) -> None:
        self._check_not_idle("HEADERS", stream_id)
        self._late_data(stream_id)
        self._reader.skip(block)

    def _late_data(self, stream_id: int) -> None:
        """It may be on its way for long after we have reset its stream, when that is no longer remembered."""
        if self._ended.how(stream_id) is HowEnded.WHOLE:
            raise closed(stream_id)
        self._accounts.charge(Kind.LATE, self._now)

    def _response(self, stream_id: int, stream: Stream, ends_stream: bool, depends_on: int, block: bytes) -> None:
        try:
            head = self._responses.response(block, ends_stream, stream.method)
            if depends_on == stream_id:
                raise self_dependent(stream_id)
            if isinstance(head, InterimHead):
                _count_interim(stream)
        except StreamFault as fault:
            self._end_by_fault(stream_id, fault)
            return
        self._events.append((stream_id, head))
        if isinstance(head, ResponseHead):
            self._response_begun(stream_id, stream, ends_stream, head)

    def _response_begun(self, stream_id: int, stream: Stream, ends_stream: bool, head: ResponseHead) -> None:
        if ends_stream:
            self._events.append((stream_id, END))
            self._reading_ended(stream_id, stream)
        else:
            stream.reading = _BODY
            stream.missing = None if head.body is BodyKind.CHUNKED else head.length

    def _heed(self, pairs: list[tuple[int, int]]) -> None:
        if (h2frames.ENABLE_PUSH, 1) in pairs:
            # RFC 9113 section 6.5.2.
            raise h2frames.protocol_error("bad_setting", "the app allows us to push to it, which no server may")
        told = [value for name, value in pairs if name == h2frames.MAX_CONCURRENT_STREAMS]
        if told:
            self._most_streams = min(self.limits.streams, told[-1])
        elif not self.is_begun:
            self._most_streams = self.limits.streams  # it has no limit of its own
        super()._heed(pairs)

    # -- ends --

    def _went_away(self, payload: bytes) -> None:
        self.has_server_gone_away = True
        self._opens_up_to = 0
        last, code = struct.unpack_from("!LL", payload)
        last &= MAX_STREAM_ID
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last]:
            stream = self._forget(stream_id, HowEnded.BY_PEER)
            message = f"the app went away and will not look at the stream, code {code}"
            self._tell(stream_id, stream, Reset(code, "app_gone_away", message, _is_untouched(stream)))

    def _was_reset(self, stream_id: int, stream: Stream, code: int) -> None:
        is_unprocessed = code == Code.REFUSED_STREAM and _is_untouched(stream)
        reset = Reset(code, "app_reset", f"the app reset the stream, code {code}", is_unprocessed)
        self._tell(stream_id, stream, reset)

    def _was_faulty(self, stream_id: int, stream: Stream, fault: StreamFault) -> None:
        self._tell(stream_id, stream, Reset(fault.code, fault.reason, str(fault)))

    def _tell(self, stream_id: int, stream: Stream, reset: Reset) -> None:
        if stream.reading is not _ENDED:
            self._events.append((stream_id, reset))

    def _reading_ended(self, stream_id: int, stream: Stream) -> None:
        self._accounts.answers += 1
        super()._reading_ended(stream_id, stream)

    def _writing_ended(self, stream_id: int, stream: Stream) -> None:
        stream.writing = Writing.ENDED
        if stream.reading is _ENDED:
            self._forget(stream_id, HowEnded.WHOLE)


def _is_untouched(stream: Stream) -> bool:
    return stream.reading is _HEAD and not stream.interim_count


def _count_interim(stream: Stream) -> None:
    stream.interim_count += 1
    if stream.interim_count > MAX_INTERIM_RESPONSES:
        raise malformed("too_many_interim", f"the app sent over {MAX_INTERIM_RESPONSES} interim responses")
