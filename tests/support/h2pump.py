"""
Client frames <-> Http2Connection <-> streams and their exchanges <-> UpstreamConnections, in memory.

As `pump`, with a client that speaks HTTP/2: its frames are made by hand (`frames`), and what it gets is sorted by
stream. It gives no credit of its own accord.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from hpack import Decoder

from sidecar.policy.authz import Admission, Decision
from sidecar.proxy.h2downstream import Http2Connection
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.turnend import TurnEnd
from sidecar.tls.session import TlsSession
from sidecar.wire.h2limits import Http2Limits

from . import frames
from .frames import Field, Frame
from .ports import RecordingTransport, transport_of
from .pump import SESSION, Pump

SESSION_2 = attrs.evolve(SESSION, alpn="h2")

FIRST_WINDOW = 65_535
"""RFC 9113 section 6.9.2: of each stream and of the connection, until somebody says otherwise."""


@attrs.define
class Answer:
    """
    What the client got on a stream.

    Attributes:
        interim: Statuses of interim heads.
        status: 0 before the head.
        is_ended: Whether END_STREAM came.
        reset: Code of RST_STREAM; None if none came.
    """

    interim: list[int] = attrs.field(factory=list)
    status: int = 0
    fields: dict[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] | None = None
    is_ended: bool = False
    reset: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end; a RST_STREAM behind that asks only for no more of the request."""
        return self.is_ended and self.reset in (None, frames.NO_ERROR)


def fields(method: bytes = b"GET", path: bytes = b"/", *more: Field) -> list[Field]:
    """The fields of a request."""
    return [(b":method", method), *frames.GET[1:3], (b":path", path), *more]


class H2Pump(Pump):
    """
    One client of HTTP/2 and its app.

    Attributes:
        answers: What the client got, by stream.
        credit: What WINDOW_UPDATE brought it, by stream; 0 is the connection.
        goaways: Each GOAWAY it got, as (last stream, code).
        seen: Every frame it got, in order.
    """

    downstream: Http2Connection

    def __init__(
        self,
        *settings: tuple[int, int],
        http2: Http2Limits | None = None,
        session: TlsSession = SESSION_2,
        is_draining: bool = False,
        has_begun: bool = True,
        **pump: Any,
    ) -> None:
        """
        Args:
            settings: That the client sends.
            has_begun: Whether its preface has been sent.
        """
        self.answers: dict[int, Answer] = {}
        self.credit: dict[int, int] = {}
        self.goaways: list[tuple[int, int]] = []
        self.seen: list[Frame] = []
        self.next_id = 1
        self._decoder = Decoder()
        self._block: tuple[Frame, bytes] | None = None
        self._http2, self._session, self._is_draining = http2 or Http2Limits(window_growth=1), session, is_draining
        super().__init__(**pump)
        if has_begun:
            self.client_sends(frames.PREFACE + frames.settings(*settings) + frames.frame(frames.SETTINGS, frames.ACK))

    def make_downstream(self, forwarding: Forwarding, admission: Admission | Decision) -> Http2Connection:
        self.turns = TurnEnd(self.clock)
        self.service.http2 = self._http2
        self.service.is_draining = self._is_draining
        return Http2Connection(
            self.tls,
            self.peer,
            self.service,
            self._session,
            forwarding=forwarding,
            admission=admission,
            turns=self.turns,
        )

    # -- the client --

    def request(
        self, head: Iterable[Field] | None = None, body: bytes | None = None, *, ends: bool = True, then: bytes = b""
    ) -> int:
        """
        Send a request on a new stream, and return its number.

        Args:
            head: GET / if it is not given.
            body: None: the head is all there is.
            then: Frames in the same bytes, behind it.
        """
        stream_id, self.next_id = self.next_id, self.next_id + 2
        last = frames.END_STREAM if ends else 0
        data = frames.headers(stream_id, head or fields(), frames.END_HEADERS | (last if body is None else 0))
        if body is not None:
            data += frames.data(stream_id, body, last)
        self.client_sends(data + then)
        return stream_id

    def gives(self, stream_id: int, increment: int) -> None:
        """The client takes so many bytes more."""
        self.client_sends(frames.window_update(stream_id, increment))

    def resets(self, stream_id: int) -> None:
        self.client_sends(frames.rst_stream(stream_id))

    def answer(self, stream_id: int) -> Answer:
        return self.answers.setdefault(stream_id, Answer())

    # -- the app --

    def accept(self) -> RecordingTransport:
        """Let the connection be made that is longest waited for."""
        transport = self.pool.accept()
        self.settle()
        return transport

    def starts(
        self, head: Iterable[Field] | None = None, body: bytes | None = None, *, ends: bool = True
    ) -> tuple[int, RecordingTransport]:
        """Send a request and let a connection be made for it; return its stream and that."""
        stream_id = self.request(head, body, ends=ends)
        return stream_id, self.accept()

    def delivers(self, transport: RecordingTransport, data: bytes) -> None:
        """The app sends *data* there."""
        transport.deliver(data)
        self.settle()

    @property
    def apps(self) -> list[RecordingTransport]:
        """Every connection to the app, oldest first."""
        return [transport_of(upstream) for upstream in self.pool.opened]

    # -- what the client sees --

    def settle(self) -> None:
        super().settle()
        for frame in frames.parse(self.received()):
            self.seen.append(frame)
            self._see(frame)

    def _see(self, frame: Frame) -> None:
        answer = self.answer(frame.stream_id)
        if frame.kind in (frames.HEADERS, frames.CONTINUATION):
            first, block = self._block or (frame, b"")
            self._block = (first, block + frame.payload)
            if frame.flags & frames.END_HEADERS:
                self._block = None
                self._head(answer, first, block + frame.payload)
        elif frame.kind == frames.DATA:
            assert answer.status, "DATA before a head"
            assert not answer.is_ended, "DATA behind the end"
            answer.body += frame.payload
            answer.is_ended = bool(frame.flags & frames.END_STREAM)
        elif frame.kind == frames.RST_STREAM:
            assert answer.reset is None, "RST_STREAM twice"
            answer.reset = frame.code
        elif frame.kind == frames.WINDOW_UPDATE:
            self.credit[frame.stream_id] = self.credit.get(frame.stream_id, 0) + int.from_bytes(frame.payload, "big")
        elif frame.kind == frames.GOAWAY:
            self.goaways.append((int.from_bytes(frame.payload[:4], "big"), frame.code))

    def _head(self, answer: Answer, first: Frame, block: bytes) -> None:
        assert not answer.is_ended, "a head behind the end"
        assert answer.reset is None, "a head behind RST_STREAM"
        found = dict(frames.decoded(self._decoder, block))
        status = int(found.pop(b":status", b"0"))
        if status and status < 200:
            answer.interim.append(status)
            return
        if status:
            assert not answer.status, "a second head"
            answer.status, answer.fields = status, found
        else:
            assert answer.status, "trailers before a head"
            answer.trailers = found
        answer.is_ended = bool(first.flags & frames.END_STREAM)
