"""
A connection to an app that speaks HTTP/2 in the clear, which carries a stream for each exchange.

To an exchange a stream is what an HTTP/1.1 connection is. Credit for a response's body is given back as the client
takes it; what the app's windows have no room for of a request stays here, while the client is paused.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.python import failure

from sidecar.errors import ResponseError
from sidecar.proxy.connect import ConnectFailed, Transport
from sidecar.proxy.turnend import TurnEnd
from sidecar.proxy.upstream import Flow, Lessee, Upstream
from sidecar.wire.events import Data, RequestHead, ResponseEvent
from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2streams import WRITABLE, ClientStreamEvent, Reset, Writable
from sidecar.wire.http2client import ClientConnection

STALE_SECONDS: Final = 5.0
"""How long an app may say nothing at all to requests, until one that is given up ends the use of its connection."""

# Not Final, so that tests can change it also where this module is compiled.
FULL_SECONDS: float = 60.0
"""How long an app may read nothing, until its connection is cut."""

_BY_APP: Final = frozenset({"app_reset", "app_gone_away"})
"""Reasons for which the app ended a stream; all others are rules that it broke."""


class Owner(Protocol):
    """The pool."""

    def carrier_ready(self, carrier: Carrier) -> None:
        """The app speaks HTTP/2, and has said how many streams it takes."""

    def carrier_failed(self, carrier: Carrier, why: ConnectFailed) -> None:
        """That did not come: the connection is gone."""

    def stream_ended(self, carrier: Carrier) -> None:
        """A stream of the connection is over; it may be the last, or make room for another."""

    def forget_carrier(self, carrier: Carrier) -> None:
        """The connection is gone or going."""


class Carrier:
    """
    A connection with streams.

    Attributes:
        transport: Its socket; set before `begin`.
        idle_since: When its last stream ended.
        is_last: Whether what is on it is the last that it carries.
    """

    __slots__ = (
        "_clock",
        "_codec",
        "_full_call",
        "_is_flush_due",
        "_is_gone",
        "_is_receiving",
        "_owner",
        "_patience",
        "_streams",
        "_turns",
        "_unheard_since",
        "idle_since",
        "is_full",
        "is_last",
        "transport",
    )

    transport: Transport

    def __init__(self, limits: Http2Limits, owner: Owner, reactor: Any, turns: TurnEnd) -> None:
        """
        Args:
            limits: What the app may cost.
            reactor: IReactorTime.
            turns: Of the same.
        """
        self._codec = ClientConnection(limits)
        self._owner = owner
        self._clock = reactor
        self._patience: Any = None  # IDelayedCall, while the app has said nothing
        self._full_call: Any = None  # IDelayedCall, while it does not read
        self._unheard_since: float | None = None  # when the first request was sent to which it has said nothing
        self._turns = turns
        self._streams: dict[int, UpstreamStream] = {}
        self._is_flush_due = False
        self._is_receiving = False
        self._is_gone = False
        self.idle_since = reactor.seconds()
        self.is_full = False
        self.is_last = False

    @property
    def room(self) -> int:
        """How many more streams it takes now; 0 before it is ready, and while the app does not read."""
        if self.is_last or self.is_full or self._patience is not None or not self.transport.is_open:
            return 0
        return self._codec.room

    @property
    def is_idle(self) -> bool:
        return not self._streams

    def begin(self, timeout_seconds: float) -> None:
        """
        The connection is made: say what we are, and see what the app is.

        Args:
            timeout_seconds: How long it may take to its SETTINGS.
        """
        self._patience = self._clock.callLater(timeout_seconds, self._silent)
        self._flush_soon()

    def _silent(self) -> None:
        self._break(ResponseError("no_settings", "it has said nothing in time"))

    def retire(self) -> None:
        """Close it in good order once nothing is under way any more."""
        self.is_last = True
        if not self._streams and not self._is_gone:
            self._codec.go_away()
            self._flush()
            self._go()
            self.transport.loseConnection()

    # -- from the transport --

    def dataReceived(self, data: bytes) -> None:
        if self._is_gone:
            return
        self._unheard_since = None
        if self.transport.is_flushed:
            self._codec.sent(0)
        try:
            events = self._codec.receive(data, self._clock.seconds())
        except ConnectionFault as fault:
            self._flush()
            is_http1 = self._patience is not None and data.startswith(b"HTTP/1.")
            why = "it answers in HTTP/1.1; for such an app write http://" if is_http1 else str(fault)
            self._break(ResponseError(fault.reason, why))
            return
        self._is_receiving = True
        if self._patience is not None and self._codec.is_begun:
            self._patience.cancel()
            self._patience = None
            self._owner.carrier_ready(self)
        if events:
            self._take(events)
        self._is_receiving = False
        self._flush()
        if self._codec.has_server_gone_away:
            self.retire()

    def eofReceived(self) -> None:
        self._break(None)

    def connectionLost(self, reason: failure.Failure) -> None:
        self._break(None)

    def pauseProducing(self) -> None:
        self.is_full = True
        self._full_call = self._clock.callLater(FULL_SECONDS, self._still_full)
        for stream in list(self._streams.values()):
            stream.full()

    def _still_full(self) -> None:
        self._full_call = None
        if self.transport.has_progressed():
            self._full_call = self._clock.callLater(FULL_SECONDS, self._still_full)
        else:
            self._break(ResponseError("app_stalled", f"the app has read nothing for {FULL_SECONDS:g} s"))

    def resumeProducing(self) -> None:
        self.is_full = False
        self._end_full_call()
        self._codec.sent(0)
        for stream in list(self._streams.values()):
            if self.is_full:
                return
            if stream.id in self._streams:
                self._streams[stream.id] = self._streams.pop(stream.id)  # it is the others' turn next time
            stream.writable()
            self._flush()
        if self._patience is None:
            self._owner.stream_ended(self)  # there is room again

    def _end_full_call(self) -> None:
        call, self._full_call = self._full_call, None
        if call is not None and call.active():
            call.cancel()

    # -- from streams --

    def open(self, stream: UpstreamStream, method: bytes, target: bytes, section: bytes, *, ends: bool) -> int:
        """Open a stream, for which there is `room`; return its number."""
        stream_id = self._codec.open(method, target, section, end=ends)
        self._streams[stream_id] = stream
        if self._unheard_since is None:
            self._unheard_since = self._clock.seconds()
        self._flush_soon()
        return stream_id

    def send(self, stream_id: int, data: bytes, *, ends: bool) -> int:
        """Send as much as the app has room for; return how much that is."""
        taken = self._codec.send_data(stream_id, data, end=ends)
        self._flush_soon()
        return taken

    def send_trailers(self, stream_id: int, section: bytes) -> None:
        self._codec.send_trailers(stream_id, section)
        self._flush_soon()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Give credit for *size* bytes of a response's body."""
        self._codec.acknowledge(stream_id, size)
        self._flush_soon()

    def leave(self, stream_id: int, code: int | None) -> None:
        """
        The stream's exchange wants no more of it.

        Args:
            code: For RST_STREAM, if it is not over.
        """
        if code is not None:
            self._codec.reset(stream_id, code)
            since = self._unheard_since
            if since is not None and self._clock.seconds() - since >= STALE_SECONDS:
                self.is_last = True
        if self._streams.pop(stream_id, None) is not None:
            self._owner.stream_ended(self)
        self._flush_soon()

    # -- inside --

    def _take(self, events: list[tuple[int, ClientStreamEvent]]) -> None:
        by_stream: dict[int, list[ClientStreamEvent]] = {}
        for stream_id, event in events:
            by_stream.setdefault(stream_id, []).append(event)
        for stream_id, of_stream in by_stream.items():
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._of_stream(stream, of_stream)

    def _of_stream(self, stream: UpstreamStream, events: list[ClientStreamEvent]) -> None:
        response: list[ResponseEvent] = [e for e in events if not isinstance(e, (Reset, Writable))]
        if len(response) < len(events) and any(event is WRITABLE for event in events):
            stream.writable()
        if response:
            stream.receive(response)
        last = events[-1]
        if isinstance(last, Reset):
            was_here = self._streams.pop(stream.id, None) is not None
            stream.was_reset(last)
            if was_here:
                self._owner.stream_ended(self)

    def _break(self, error: ResponseError | None) -> None:
        """The connection is of no use any more: the app ended it, or (*error*) it broke a rule."""
        if self._is_gone:
            return
        was_ready = self._patience is None
        self._go()
        if error is None:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
        if not was_ready:
            why = f"it does not speak HTTP/2 without TLS: {error or 'it closed the connection'}"
            self._owner.carrier_failed(self, ConnectFailed("upstream_not_http2", why))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.connection_lost(error)

    def _go(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None
        self._end_full_call()
        self._is_gone = True
        self.is_last = True
        self._owner.forget_carrier(self)

    def _flush_soon(self) -> None:
        if not self._is_flush_due and not self._is_receiving:
            self._is_flush_due = True
            self._turns.call(self._flush_late)

    def _flush_late(self) -> None:
        if self._is_flush_due:
            self._flush()

    def _flush(self) -> None:
        self._is_flush_due = False
        data = b"" if self._is_gone else self._codec.data_to_send()
        if data:
            self.transport.write(data)


class UpstreamStream(Upstream):
    """
    A stream, as an exchange leases it.

    Attributes:
        id: Its number; 0 before the request was sent.
    """

    __slots__ = (
        "_carrier",
        "_ends",
        "_has_response_bytes",
        "_is_stuck",
        "_is_withholding",
        "_lessee",
        "_owed",
        "_rest",
        "_taken",
        "_trailers",
        "id",
    )

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(is_lost=False)
        self._carrier = carrier
        self._lessee: Lessee | None = None
        self._rest = b""  # of the request, for which the app has no room
        self._ends = False
        self._trailers = b""
        self._is_stuck = False
        self._is_withholding = False
        self._owed = 0
        self._taken = 0
        self._has_response_bytes = False
        self.id = 0

    # -- from the exchange --

    @property
    def has_response_bytes(self) -> bool:
        return self._has_response_bytes

    @property
    def is_reusable(self) -> bool:
        return True

    def flow(self) -> Flow:
        return self

    def begin(self, lessee: Lessee, head: RequestHead) -> None:
        self._lessee = lessee

    def send(self, data: bytes, is_whole: bool, trailers: bytes) -> None:
        if not self.id:
            head, _, data = data.partition(b"\r\n\r\n")
            line, _, section = head.partition(b"\r\n")
            method, target, _ = line.split(b" ")
            ends = is_whole and not data and not trailers
            self.id = self._carrier.open(self, method, target, section + b"\r\n", ends=ends)
            if ends or not (data or is_whole):
                return
        self._rest += data
        self._ends = is_whole
        self._trailers = trailers
        if not self._send_rest() and not self._is_stuck:
            self._be_stuck()

    def pauseProducing(self) -> None:
        """Give no credit for now: the app will have sent its window full, and stop."""
        self._is_withholding = True

    def resumeProducing(self) -> None:
        self._is_withholding = False
        owed, self._owed = self._owed, 0
        if owed:
            self._carrier.acknowledge(self.id, owed)

    def read_up_to(self, size: int) -> None:
        """What is read at once is for all streams of the connection: none of them has a say in it."""

    def has_progressed(self) -> bool:
        taken, self._taken = self._taken, 0
        return bool(taken)

    def close(self) -> None:
        """Give the stream up, whatever is on it."""
        self._leave(Code.CANCEL)

    def release(self) -> None:
        """Both sides have said all."""
        self._leave(None)

    # -- from the connection --

    def receive(self, events: list[ResponseEvent]) -> None:
        """More of the response has come."""
        if self._lessee is None:
            return
        self._has_response_bytes = True
        size = sum([len(event.payload) for event in events if isinstance(event, Data)])
        self._lessee.response_events(events)
        if self._is_withholding:
            self._owed += size
        elif size:
            self._carrier.acknowledge(self.id, size)

    def writable(self) -> None:
        """The app takes more."""
        if self._lessee is None or not self._is_stuck or not self._send_rest():
            return
        self._is_stuck = False
        self._lessee.upstream_drained()

    def full(self) -> None:
        """The app takes nothing more, on any stream."""
        if not self._is_stuck:
            self._be_stuck()

    def was_reset(self, reset: Reset) -> None:
        """The stream is gone."""
        lessee = self._end()
        if lessee is None:
            return
        self.is_refused = reset.is_unprocessed
        if reset.reason in _BY_APP:
            lessee.upstream_lost()
        else:
            lessee.response_failed(ResponseError(reset.reason, reset.message))

    def connection_lost(self, error: ResponseError | None) -> None:
        """The connection is gone, and the stream with it; *error*: for a rule that the app broke."""
        lessee = self._end()
        if lessee is None:
            return
        if error is None:
            self.is_lost = True
            lessee.upstream_lost()
        else:
            lessee.response_failed(error)

    # -- inside --

    def _be_stuck(self) -> None:
        self._is_stuck = True
        self._taken = 0
        if self._lessee is not None:
            self._lessee.upstream_full()

    def _send_rest(self) -> bool:
        """Send what there is room for; return whether that was all."""
        rest, ends, trailers = self._rest, self._ends, self._trailers
        if self._carrier.is_full and (rest or ends):
            return False
        if rest or (ends and not trailers):
            taken = self._carrier.send(self.id, rest, ends=ends and not trailers)
            self._taken += taken
            self._rest = rest[taken:]
            if self._rest:
                return False
        if ends and trailers:
            self._carrier.send_trailers(self.id, trailers)
        self._ends = False
        return True

    def _leave(self, code: int | None) -> None:
        if self._end() is not None and self.id:
            self._carrier.leave(self.id, code)

    def _end(self) -> Lessee | None:
        """Return whose it was until now."""
        lessee, self._lessee = self._lessee, None
        self._rest = b""
        return lessee
