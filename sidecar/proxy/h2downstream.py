"""
HTTP/2 with one client: a stream for each request, all on one TLS connection.

What streams send is collected until the end of the turn (`proxy.turnend`), so that many answers leave in one record.

The connection has one deadline, of the first of these that holds:

- the client does not take what was written: the body timeout, for as long as it takes nothing
- its preface, or a frame or header block that has begun: the header timeout; beside requests, the body timeout
- no request: the idle timeout

What else the client sends moves none of them: neither PING nor WINDOW_UPDATE keeps a connection.

It ends in two steps (RFC 9113 section 6.8): GOAWAY that lets the requests come that are on their way, then, half a
second later, one that says which was the last; what is on it is finished.
"""

from __future__ import annotations

import base64
import enum
import secrets
from collections.abc import Callable
from typing import Final

from twisted.python import failure

from sidecar.errors import RequestError
from sidecar.observe.jsonline import Remembered
from sidecar.policy.authz import Admission, Decision
from sidecar.proxy.deadlines import Deadline
from sidecar.proxy.downstream import (
    DRAIN_IDLE_SECONDS,
    LINGER_SECONDS,
    UNVERIFIED_IDLE_SECONDS,
    Peer,
    SecureTransport,
)
from sidecar.proxy.intake import Admitted, Forwarding, Intake
from sidecar.proxy.service import Service
from sidecar.proxy.stream import Stream
from sidecar.proxy.turnend import TurnEnd
from sidecar.tls.session import TlsSession
from sidecar.tls.sni import NO_NAMES, ServedNames
from sidecar.wire.events import RequestEvent, RequestHead
from sidecar.wire.h2frames import ConnectionFault
from sidecar.wire.h2streams import WRITABLE, Refused, Reset, StreamEvent, Writable
from sidecar.wire.http2 import ServerConnection

MAX_REMEMBERED_HEADS: Final = 8
"""Heads of which it is remembered what was found out: as many as the codec may hand out again."""

MAX_QUEUED_BYTES: int = 256 * 1024  # not Final: tests lower it, also where this module is compiled
"""
What of bodies is collected until it is written. Also the answers that may be written while the client takes nothing;
over that, nothing more is read from it either.
"""


class _Wait(enum.Enum):
    """What the connection's deadline is for."""

    ROOM = "room"  # for what was written
    FRAME = "frame"  # that has begun, or the preface
    NOTHING = "nothing"  # streams have deadlines of their own
    REQUEST = "request"


class Http2Connection:
    """
    HTTP/2 with one client, after the handshake in which it was agreed on.

    Attributes:
        service: What all connections share.
        session: What the handshake agreed on.
        peer: Where the client is.
        intake: What becomes of its requests.
        principal: Who the client is, for the log; "" if nobody in particular.
        logged: What the access log remembers of the client; None at first.
        requests: Begun on it.
        is_full: Whether the client does not take what was written.
    """

    __slots__ = (
        "_admitted",
        "_closing",
        "_codec",
        "_idle_seconds",
        "_is_closed",
        "_is_flush_due",
        "_is_half_closed",
        "_is_last_said",
        "_is_reading_paused",
        "_is_receiving",
        "_names",
        "_queued",
        "_quiet_since",
        "_requests_left",
        "_spare",
        "_streams",
        "_tls",
        "_turns",
        "_unflushed",
        "_waits_for",
        "intake",
        "is_full",
        "logged",
        "peer",
        "principal",
        "requests",
        "service",
        "session",
    )

    def __init__(
        self,
        tls: SecureTransport,
        peer: Peer,
        service: Service,
        session: TlsSession,
        *,
        forwarding: Forwarding,
        admission: Admission | Decision,
        names: ServedNames = NO_NAMES,
        turns: TurnEnd,
    ) -> None:
        """
        Args:
            admission: What is decided about all its requests, or who decides about each.
            names: Of the certificates that clients of the listener get.
            turns: Of the reactor that everything runs on.
        """
        self._tls = tls
        self.peer = peer
        self.service = service
        self.session = session
        self.logged: Remembered | None = None
        self.intake = Intake(service, forwarding, admission)
        self.principal = self.intake.principal
        self.requests = 0
        self.is_full = False
        self._codec = ServerConnection(service.http2, _websocket_key)
        self._names = names
        self._turns = turns
        self._streams: dict[int, Stream] = {}
        self._spare: list[Deadline] = []  # of streams that are over; their entries in the queue serve the next
        self._admitted: dict[int, tuple[RequestHead, Admitted]] = {}  # by the identity of the head
        self._requests_left = service.limits.requests_per_connection  # never reaches 0 where that is off
        self._closing: _SecondStep | None = None
        self._is_last_said = False  # which request was the last, by GOAWAY
        self._is_closed = False
        self._is_half_closed = False
        self._is_receiving = False
        self._is_flush_due = False
        self._is_reading_paused = False
        self._queued = 0  # bytes written since the client took nothing more
        self._unflushed = 0  # bytes of bodies that are still to be written
        self._waits_for = _Wait.FRAME
        self._quiet_since = service.now()  # there is no request
        self._idle_seconds: float = service.timeouts.idle
        if session.verification.reason is not None:
            # Its certificate, of up to 32 KiB, is kept by OpenSSL for as long as it is connected.
            self._idle_seconds = min(self._idle_seconds, UNVERIFIED_IDLE_SECONDS)
        service.metrics.http2_connections += 1
        peer.deadline.set(service.timeouts.header)
        self._flush()
        if service.is_draining:
            self.drain()

    # -- from the TLS connection --

    def dataReceived(self, data: bytes) -> None:
        codec = self._codec
        if self._tls.is_flushed:
            codec.sent(0)
        try:
            events = codec.receive(data, self.service.now())
        except ConnectionFault as fault:
            self._broken(fault)
            return
        if events:
            self._is_receiving = True
            self._take(events)
            self._is_receiving = False
        self._flush()
        # What is no request is none, however often it comes.
        self._settle(is_progress=any(not isinstance(event, Reset) for _, event in events))

    def eofReceived(self, clean: bool) -> None:
        if not self._streams:
            self._close()
        elif clean:
            # Half-closed after whole requests: the client may still read their answers.
            self._is_half_closed = True
            self._for_each(Stream.client_ended)
            self._flush()
            self._settle()
        else:
            self._tls.abort()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._is_closed = True
        if self._closing is not None:
            self._closing.deadline.end()
        self._lose_streams()
        frames = self.service.metrics.http2_limited_frames
        for kind, count in self._codec.counts.items():
            name = kind.name.lower()
            frames[name] = frames.get(name, 0) + count

    def pauseProducing(self) -> None:
        self.is_full = True
        self._queued = 0
        self._waits_for = _Wait.NOTHING  # if it was for room, it has taken what there was then
        self._for_each(Stream.full)
        self._settle()

    def resumeProducing(self) -> None:
        self.is_full = False
        if self._is_reading_paused:
            self._is_reading_paused = False
            self.peer.resume_reading()
        self._codec.sent(0)
        for stream_id, stream in list(self._streams.items()):
            if stream_id in self._streams:
                self._streams[stream_id] = self._streams.pop(stream_id)  # it is the others' turn next time
            stream.writable()
            self._flush()
            if self.is_full:
                return
        self._settle()

    def deadline_passed(self) -> None:
        if self.is_full:
            self._tls.abort()
        elif self._waits_for is _Wait.FRAME:
            self._count_fault("header_timeout")
            self._lose_streams()
            self._close()
        elif not self._streams:
            self._close()

    # -- from the listener --

    def drain(self) -> None:
        """Take no more requests than those that are on their way, finish what is here, then close."""
        if self._closing is None and not self._is_closed:
            self._codec.announce_going_away()
            self._flush()
            self._closing = _SecondStep(self)

    def say_last(self) -> None:
        """The second step of `drain`."""
        self._is_last_said = True
        self._codec.go_away()
        self._flush()
        self._settle()

    def judge_again(self, session: TlsSession, admission: Admission | Decision, forwarding: Forwarding) -> None:
        """
        From now on its client is worth what *admission* says; requests under way are finished.

        A tunnel ends at once if its client may not come in any more: it will send no further request.
        """
        self.session = session
        self.intake = Intake(self.service, forwarding, admission)
        self.principal = self.intake.principal
        self._admitted.clear()
        self._for_each(Stream.judge_again)
        self._flush()
        self._settle()

    @property
    def doing(self) -> str:
        """What it is about, in a word for operators."""
        if self._streams:
            return "request"
        return "closing" if self._closing is not None else "idle"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost by closing now."""
        return not self._streams

    def end(self) -> None:
        """End now: requests that have no answer yet are answered with 503, whatever else there is is cut."""
        self._for_each(Stream.end)
        self._close()

    # -- from streams --

    def lend_deadline(self, stream: Stream) -> Deadline:
        """Return a deadline of the stream's own, until `stream_ended`."""
        if not self._spare:
            return self.peer.deadline.another(stream)
        deadline = self._spare.pop()
        deadline.owner = stream
        return deadline

    def stream_ended(self, stream: Stream, deadline: Deadline) -> None:
        """The stream is over, and its deadline is of no use to it any more."""
        deadline.end()
        self._spare.append(deadline)
        self._streams.pop(stream.id, None)
        if not self._streams:
            self._quiet_since = self.service.now()
            self._flush_soon()  # and see what there is to wait for

    def admitted(self, head: RequestHead) -> Admitted | None:
        """Return what was found out about the very same head before, if that still holds."""
        known = self._admitted.get(id(head))
        if known is not None and known[0] is head and known[1].router is self.service.router:
            return known[1]
        return None

    def remember(self, head: RequestHead, admitted: Admitted) -> None:
        """Keep what was found out about *head*: the codec hands out the same one for a request that is the same."""
        if len(self._admitted) >= MAX_REMEMBERED_HEADS:
            del self._admitted[next(iter(self._admitted))]
        self._admitted[id(head)] = head, admitted

    def check_authority(self, head: RequestHead) -> None:
        """Raise RequestError, 421, for a request that is not for whom the client has connected to."""
        self.intake.check_authority(head, self.session.server_name, self._names)

    def at_turn_end(self, act: Callable[[], None]) -> None:
        """Have *act* called when all that happens now has happened."""
        self._turns.call(act)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Give credit for *size* bytes of a request's body."""
        self._codec.acknowledge(stream_id, size)
        self._flush_soon()

    def send_head(self, stream_id: int, status: int, section: bytes, *, ends: bool) -> None:
        self._codec.send_head(stream_id, status, section, end=ends)
        self._flush_soon()

    def send_data(self, stream_id: int, data: bytes, *, ends: bool) -> int:
        """Send as much as the client has room for; return how much that is."""
        taken = self._codec.send_data(stream_id, data, end=ends)
        self._unflushed += taken
        if self._unflushed >= MAX_QUEUED_BYTES:
            self._flush()  # which may pause the others
        else:
            self._flush_soon()
        return taken

    def send_trailers(self, stream_id: int, section: bytes) -> None:
        self._codec.send_trailers(stream_id, section)
        self._flush_soon()

    def reset(self, stream_id: int, code: int) -> None:
        self._codec.reset(stream_id, code)
        self._flush_soon()

    def abandon(self) -> None:
        """End without any ceremony that might fail again."""
        self._tls.abort()

    # -- inside --

    def _take(self, events: list[tuple[int, StreamEvent]]) -> None:
        """Hand events on, those of a stream at once."""
        by_stream: dict[int, list[StreamEvent]] = {}
        for stream_id, event in events:
            by_stream.setdefault(stream_id, []).append(event)
        for stream_id, of_stream in by_stream.items():
            self._of_stream(stream_id, of_stream)

    def _of_stream(self, stream_id: int, events: list[StreamEvent]) -> None:
        last = events[-1]
        reset = last if isinstance(last, Reset) else None
        if isinstance(events[0], (RequestHead, Refused)):
            self._count_request()
            if reset is None:
                self._begin(stream_id, events)
            elif reset.reason == "client_reset":
                # Taken back before anybody has looked at it, and so often that it must not cost an answer.
                self.service.metrics.requests += 1
                self.service.count(0, "downstream_reset")
            else:
                self._record_faulty(reset)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if reset is not None:  # it was faulty from the start
                self._count_request()
                self._record_faulty(reset)
            return
        if any(event is WRITABLE for event in events):
            stream.writable()
        body: list[RequestEvent] = [e for e in events if not isinstance(e, (Refused, Reset, Writable))]
        if body and not stream.is_over:
            stream.receive(body)
        if reset is not None and not stream.is_over:
            stream.was_reset(reset)

    def _record_faulty(self, reset: Reset) -> None:
        """A stream broke a rule before there was anything to be done about it but to say so."""
        self.service.record_refused(self, RequestError(reset.reason, reset.message, 0))

    def _count_request(self) -> None:
        self.requests += 1
        self._requests_left -= 1
        if not self._requests_left:
            self.drain()

    def _begin(self, stream_id: int, events: list[StreamEvent]) -> None:
        stream = self._streams[stream_id] = Stream(self, stream_id)
        first = events[0]
        if isinstance(first, Refused):
            stream.refuse(first.error)
        elif isinstance(first, RequestHead):
            stream.begin(first, events)  # type: ignore[arg-type] # what follows a head is of its request
        if self.is_full:
            stream.full()

    def _broken(self, fault: ConnectionFault) -> None:
        """The client broke a rule after which nothing of it can be trusted, or a limit: it is told which by GOAWAY."""
        self._count_fault(fault.reason)
        self.service.rejecter.http2_broken(self.peer.host, self.session, fault.reason, str(fault))
        self._lose_streams()
        self._close()

    def _count_fault(self, reason: str) -> None:
        faults = self.service.metrics.http2_faults
        faults[reason] = faults.get(reason, 0) + 1

    def _lose_streams(self) -> None:
        self._for_each(Stream.connection_lost)

    def _for_each(self, act: Callable[[Stream], None]) -> None:
        for stream in list(self._streams.values()):
            act(stream)

    def _settle(self, *, is_progress: bool = False) -> None:
        """
        Set the deadline of what is now waited for, or close if that is nothing.

        Args:
            is_progress: Whether something that had begun to arrive is whole.
        """
        if self._is_closed:
            return
        if not self._streams and (self._is_last_said or self._is_half_closed):
            self._close()
            return
        waits_for = self._what_is_due()
        if waits_for is self._waits_for is not _Wait.REQUEST and not (is_progress and waits_for is _Wait.FRAME):
            return  # only that is reckoned from another moment than now
        self._waits_for = waits_for
        deadline, timeouts = self.peer.deadline, self.service.timeouts
        if waits_for is _Wait.ROOM or (waits_for is _Wait.FRAME and self._streams):
            deadline.set(timeouts.body)
            return
        if waits_for is _Wait.NOTHING:
            deadline.set(0)
            return
        if waits_for is _Wait.FRAME:
            deadline.set(timeouts.header)
        elif (left := self._quiet_since + self._idle_seconds - self.service.now()) > 0:
            deadline.set(left)
        else:
            self._close()

    def _what_is_due(self) -> _Wait:
        codec = self._codec
        if self.is_full:
            return _Wait.ROOM
        if not codec.is_begun or (codec.is_head_unfinished and not self._is_half_closed):
            return _Wait.FRAME
        return _Wait.NOTHING if self._streams else _Wait.REQUEST

    def _flush_soon(self) -> None:
        if not self._is_flush_due and not self._is_receiving:
            self._is_flush_due = True
            self._turns.call(self._flush_late)

    def _flush_late(self) -> None:
        if self._is_flush_due:
            self._flush()
            if not self._streams:
                self._settle()

    def _flush(self) -> None:
        self._is_flush_due = False
        self._unflushed = 0
        data = b"" if self._is_closed else self._codec.data_to_send()
        if data:
            was_full = self.is_full
            self._tls.write(data)
            if was_full:
                self._queued += len(data)
                if self._queued > MAX_QUEUED_BYTES and not self._is_reading_paused:
                    self._is_reading_paused = True
                    self.peer.pause_reading()

    def _close(self) -> None:
        """Say which request was the last, unless that is said, and close; the client gets time to read it."""
        if self._is_closed:
            return
        if not self._is_last_said:
            self._codec.go_away()
        self._flush()
        self._is_closed = True
        self._tls.linger()
        self.peer.deadline.set(LINGER_SECONDS if self._tls.is_flushed else self.service.timeouts.body)


class _SecondStep:
    """What is due a moment after the first GOAWAY."""

    __slots__ = ("_connection", "deadline")

    def __init__(self, connection: Http2Connection) -> None:
        self._connection = connection
        self.deadline = connection.peer.deadline.another(self)
        self.deadline.set(DRAIN_IDLE_SECONDS)

    def deadline_passed(self) -> None:
        self._connection.say_last()

    def abandon(self) -> None:
        self._connection.abandon()


def _websocket_key() -> bytes:
    """Return a value for Sec-WebSocket-Key (RFC 6455 section 4.1): 16 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(16))
