"""
The HTTP/2 connection machine in the server role: bytes in, events of its streams out, no I/O, no clock (RFC 9113).

`ServerConnection` is to HTTP/2 what `http1.ServerCodec` is to HTTP/1.1. Its requests have the same events, made by
`wire.h2fields`, with the number of their stream. What both roles have in common is in `wire.h2connection`; here is what
begins and ends a stream. A request that is refused with a status is left to the caller to answer, and the rest of it
dropped; one that is no request ends its stream.

What a connection holds, with the default limits, beside the body bytes that the caller holds (at most the connection's
window, 1 MiB, and 64 KiB for each stream):

   120 KiB  of an unfinished header block, and 16 KiB of an unfinished frame
   120 KiB  of a header list while it is read
   100 KiB  for the remembered heads, and the two tables of the compression with their overhead
    16 KiB  of replies to control frames; what else is to be sent is taken by the caller after each call
    40 KiB  for the states of 100 streams, and the numbers of those that ended last
     4 KiB  for itself: so much an idle connection has

The states of the reading side of a stream; the writing side goes HEAD, BODY, ENDED:

    BODY -- END_STREAM ----------------------> ENDED
    BODY -- refused with a status -----------> DROPPING      what still comes is acknowledged and dropped
    DROPPING -- END_STREAM ------------------> ENDED
    any  -- RST_STREAM, from either side ----> (gone)        so it is when both sides have ENDED
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import RequestError, ResponseError
from sidecar.wire import h2frames
from sidecar.wire.events import END, BodyKind, RequestHead
from sidecar.wire.h2connection import Connection, closed, self_dependent
from sidecar.wire.h2fields import RequestReader, ResponseWriter
from sidecar.wire.h2frames import (
    MAX_STREAM_ID,
    Code,
    ConnectionFault,
    FrameReader,
    StreamFault,
)
from sidecar.wire.h2limits import Http2Limits, Kind
from sidecar.wire.h2streams import HowEnded, Reading, Refused, Reset, Stream, StreamEvent, Writing

_BODY, _DROPPING, _ENDED = Reading.BODY, Reading.DROPPING, Reading.ENDED  # globals are read faster than members


class ServerConnection(Connection[StreamEvent]):
    """
    HTTP/2 with one client.

    A stream begins with a RequestHead or Refused and is over after a Reset, or when both END has come and an end was
    sent. Until `is_begun` there is a deadline to hold.

    Attributes:
        has_client_gone_away: Whether the client said GOAWAY: it will open no further stream.
    """

    _peer = "client"

    def __init__(self, limits: Http2Limits, websocket_key: Callable[[], bytes]) -> None:
        """
        Args:
            websocket_key: Makes a value for Sec-WebSocket-Key: 16 random bytes in base64.
        """
        self._requests = RequestReader(limits, websocket_key)
        self._responses = ResponseWriter()
        super().__init__(
            limits,
            FrameReader(),
            self._requests,
            self._responses,
            [(h2frames.MAX_CONCURRENT_STREAMS, limits.streams), (h2frames.ENABLE_CONNECT_PROTOCOL, 1)],
        )
        self.has_client_gone_away = False

    # -- header blocks --

    def _whole_block(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream_id > self.last_stream_id:
            self.last_stream_id = stream_id
            self._open(stream_id, ends_stream, depends_on, block)
        elif stream is not None:
            self._trailers(stream_id, stream, ends_stream, depends_on, block)
        else:
            how = self._ended.how(stream_id)
            if how is None and self._ended.has_forgotten:
                how = HowEnded.BY_US  # perhaps; it is no reason to end all that is beside it
            if how is None:
                raise h2frames.protocol_error("bad_stream_id", f"stream {stream_id} was passed over, or ended long ago")
            if how is not HowEnded.BY_US:
                raise closed(stream_id)
            self._reader.skip(block)
            self._accounts.charge(Kind.LATE, self._now)

    def _open(self, stream_id: int, ends_stream: bool, depends_on: int, block: bytes) -> None:
        if stream_id > self._accepts_up_to:
            self._reader.skip(block)
            self._ended.add(stream_id, HowEnded.BY_US)
            self._accounts.charge(Kind.LATE, self._now)
            return
        head: RequestHead | RequestError
        if len(self._streams) >= self.limits.streams:
            self._reader.skip(block)
            limit = f"over {self.limits.streams:,} requests at a time"
            self._end_unopened(stream_id, StreamFault(Code.REFUSED_STREAM, "too_many_streams", limit))
            return
        try:
            head = self._requests.request(block, ends_stream)
        except ConnectionFault:
            raise
        except RequestError as error:
            # Kept with its frames, which hold it and the header block, it would wait for the garbage collector.
            head = error.with_traceback(None)
            head.__context__ = None
        if depends_on == stream_id:
            head = self_dependent(stream_id)
        if isinstance(head, StreamFault):
            self._end_unopened(stream_id, head)
            return
        if isinstance(head, RequestHead):
            self._opened(stream_id, ends_stream, head)
        else:
            self._add(stream_id, None, _ENDED if ends_stream else _DROPPING, False)
            self._events.append((stream_id, Refused(head)))

    def _opened(self, stream_id: int, ends_stream: bool, head: RequestHead) -> None:
        events = self._events
        events.append((stream_id, head))
        is_tunnel = bool(head.upgrade)
        if ends_stream:
            self._add(stream_id, None, _ENDED, is_tunnel)
            events.append((stream_id, END))
        elif head.body is BodyKind.NONE and not is_tunnel:
            # Content-Length: 0, and END_STREAM is still to come: as in HTTP/1.1, nobody waits for it.
            self._add(stream_id, 0, _DROPPING, False)
            events.append((stream_id, END))
        else:
            missing = head.length if head.body is BodyKind.LENGTH else None
            self._add(stream_id, missing, _BODY, is_tunnel)

    def _add(self, stream_id: int, missing: int | None, reading: Reading, is_tunnel: bool) -> None:
        size = self.limits.stream_window
        self._streams[stream_id] = Stream(
            missing, reading, is_tunnel, window=self._initial_window, size=size, credit=size
        )

    def _end_unopened(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream of which the caller has not heard; it has cost nothing."""
        self._reply(h2frames.rst_stream(stream_id, fault.code))
        self._ended.add(stream_id, HowEnded.BY_US)
        self._made_us_reset(stream_id, fault)

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
        self._send_block(stream_id, block, end)
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

    def announce_going_away(self) -> None:
        """
        The first step of a drain (RFC 9113 section 6.8): the client is to open no further stream; those that are on
        their way are still served. `go_away` follows a round trip or so later.
        """
        self._write(h2frames.goaway(MAX_STREAM_ID, Code.NO_ERROR))

    # -- ends --

    def _was_reset(self, stream_id: int, stream: Stream, code: int) -> None:
        self._events.append((stream_id, Reset(code, "client_reset", f"the client reset the stream, code {code}")))
        if stream.writing is Writing.HEAD:
            # Behind the head, it is a download or a gRPC stream that ends: the app has done what it was asked for.
            self._accounts.charge(Kind.RESET, self._now)

    def _was_faulty(self, stream_id: int, stream: Stream, fault: StreamFault) -> None:
        self._made_us_reset(stream_id, fault)

    def _made_us_reset(self, stream_id: int, fault: StreamFault) -> None:
        """The client made us reset a stream, which costs us as much as if it had done so itself."""
        self._events.append((stream_id, Reset(fault.code, fault.reason, str(fault))))
        self._accounts.charge(Kind.RESET, self._now)

    def _writing_ended(self, stream_id: int, stream: Stream) -> None:
        stream.writing = Writing.ENDED
        self._accounts.answers += 1
        if stream.reading is _ENDED:
            self._forget(stream_id, HowEnded.WHOLE)
        elif not stream.is_tunnel:
            # RFC 9113 section 8.1: the whole answer is given, the rest of the request would be read for nothing.
            self._out.append(h2frames.rst_stream(stream_id, Code.NO_ERROR))
            self._forget(stream_id, HowEnded.BY_US)

    def _went_away(self, payload: bytes) -> None:
        self.has_client_gone_away = True
