"""
Apps that speak HTTP/2 in the clear, in memory: frames by hand on recording transports, and the pool that leads to them.

An app reads what has been sent to it whenever it is asked for it, and never more than its transport took. It gives no
credit of its own accord.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import attrs
import pytest
from hpack import Decoder
from twisted.internet import task

from sidecar.proxy import connect
from sidecar.proxy.pool import Budget
from sidecar.proxy.streampool import StreamPool
from sidecar.settings import HostPort, Limits
from sidecar.topology import ClusterLimits

from . import frames
from .frames import Field, Frame
from .ports import FakePool, RecordingTransport
from .pump import Pump
from .upstreams import FakeStreams, Opening

TARGET = HostPort("127.0.0.1", 50_051)

_FRAME_BYTES = 16_384
"""RFC 9113 section 6.5.2: until somebody says otherwise."""


@attrs.define
class Asked:
    """
    What the app got on a stream.

    Attributes:
        fields: Of its head, pseudo-fields too.
        trailers: None: none came.
        is_ended: Whether END_STREAM came.
        reset: Code of RST_STREAM; None if none came.
    """

    fields: dict[bytes, bytes]
    body: bytes = b""
    trailers: dict[bytes, bytes] | None = None
    is_ended: bool = False
    reset: int | None = None


class WritesNoted(RecordingTransport):
    """Notes, beside the rest, each piece that was written."""

    def __init__(self, clock: task.Clock) -> None:
        super().__init__(clock)
        self.writes: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        self.writes.append(bytes(data))
        super().write(data)


class H2App:
    """
    One connection to an app, seen from there.

    Attributes:
        transport: As the sidecar has it.
        credit: What WINDOW_UPDATE brought the app, by stream; 0 is the connection.
        goaways: Codes.
    """

    def __init__(self, transport: RecordingTransport, settle: Callable[[], object]) -> None:
        self.transport = transport
        self.credit: dict[int, int] = {}
        self.goaways: list[int] = []
        self._settle = settle
        self._asked: dict[int, Asked] = {}
        self._answered: set[int] = set()
        self._decoder = Decoder()
        self._read = 0
        self._block: tuple[Frame, bytes] | None = None

    # -- what it got --

    def reads(self) -> list[Frame]:
        """Return the frames that have come since the last call."""
        new = self.transport.sent[self._read :]
        if not self._read and new:
            assert new.startswith(frames.PREFACE)
            self._read = len(frames.PREFACE)
            new = new[self._read :]
        self._read += len(new)
        found = frames.parse(new)
        for frame in found:
            self._see(frame)
        return found

    @property
    def asked(self) -> dict[int, Asked]:
        """All requests, by stream."""
        self.reads()
        return self._asked

    @property
    def unanswered(self) -> list[int]:
        """Streams that the app has not answered, and nobody has given up."""
        return [each for each, asked in self.asked.items() if asked.reset is None and each not in self._answered]

    def _see(self, frame: Frame) -> None:
        if frame.kind in (frames.HEADERS, frames.CONTINUATION):
            first, block = self._block or (frame, b"")
            self._block = first, block + frame.payload
            if frame.flags & frames.END_HEADERS:
                self._block = None
                self._see_block(first, block + frame.payload)
        elif frame.kind == frames.DATA:
            asked = self._asked[frame.stream_id]
            assert not asked.is_ended, "DATA behind the end"
            assert asked.reset is None, "DATA behind RST_STREAM"
            asked.body += frame.payload
            asked.is_ended = bool(frame.flags & frames.END_STREAM)
        elif frame.kind == frames.RST_STREAM:
            asked = self._asked[frame.stream_id]
            assert asked.reset is None, "RST_STREAM twice"
            asked.reset = frame.code
        elif frame.kind == frames.WINDOW_UPDATE:
            self.credit[frame.stream_id] = self.credit.get(frame.stream_id, 0) + int.from_bytes(frame.payload, "big")
        elif frame.kind == frames.GOAWAY:
            self.goaways.append(frame.code)

    def _see_block(self, first: Frame, block: bytes) -> None:
        found = dict(frames.decoded(self._decoder, block))
        asked = self._asked.get(first.stream_id)
        if asked is None:
            asked = self._asked[first.stream_id] = Asked(found)
        else:
            assert asked.trailers is None, "trailers twice"
            assert not asked.is_ended, "trailers behind the end"
            asked.trailers = found
        asked.is_ended = bool(first.flags & frames.END_STREAM)

    # -- what it does --

    def sends(self, *data: bytes) -> None:
        """Send frames, all in one piece."""
        self.transport.deliver(b"".join(data))
        self._settle()

    def begins(self, *settings: tuple[int, int], then: bytes = b"") -> None:
        """Say what it is: SETTINGS, and *then*."""
        self.sends(frames.settings(*settings), frames.frame(frames.SETTINGS, frames.ACK), then)

    def answers(self, stream_id: int, body: bytes = b"", *more: Field, status: bytes = b"200") -> None:
        """Send a whole response, with *more* fields."""
        self._answered.add(stream_id)
        self.sends(answer(stream_id, body, *more, status=status))

    def gives(self, stream_id: int, increment: int) -> None:
        """Take so many bytes more."""
        self.sends(frames.window_update(stream_id, increment))

    def closes(self) -> None:
        self.transport.deliver_eof()
        self._settle()

    def vanishes(self) -> None:
        self.transport.reset()
        self._settle()

    def takes(self) -> None:
        """Read again, all of it."""
        self.transport.take()
        self._settle()


def answer(stream_id: int, body: bytes = b"", *more: Field, status: bytes = b"200") -> bytes:
    """Return the frames of a whole response."""
    if not body:
        return frames.headers(stream_id, [(b":status", status), *more])
    return begun_answer(stream_id, *more, status=status) + content(stream_id, body, ends=True)


def begun_answer(stream_id: int, *more: Field, status: bytes = b"200") -> bytes:
    """Return the frame of a response's head, behind which something is to come."""
    return frames.headers(stream_id, [(b":status", status), *more], frames.END_HEADERS)


def content(stream_id: int, body: bytes, *, ends: bool = False) -> bytes:
    """Return the frames of some of a body, none longer than we allow."""
    pieces = [body[at : at + _FRAME_BYTES] for at in range(0, len(body), _FRAME_BYTES)]
    flags = [0] * (len(pieces) - 1) + [frames.END_STREAM if ends else 0]
    return b"".join(frames.data(stream_id, *each) for each in zip(pieces, flags, strict=True))


def trailers(stream_id: int, fields: Iterable[Field]) -> bytes:
    """Return the frame that ends a response with trailers."""
    return frames.headers(stream_id, fields, frames.WHOLE)


class Backend:
    """
    The apps of one address, and the pool of connections to them.

    Attributes:
        pool: What is tested.
        apps: Every connection that was made, oldest first.
    """

    def __init__(
        self,
        clock: task.Clock,
        patch: pytest.MonkeyPatch,
        *,
        limits: ClusterLimits | None = None,
        budget: Budget | None = None,
        settle: Callable[[], object] | None = None,
        **pool: Any,
    ) -> None:
        """
        Args:
            patch: Puts `connect.open_stream` back in the end.
            settle: Runs what was put off to the end of a turn.
            pool: More for the `StreamPool`.
        """
        self._streams = FakeStreams()
        patch.setattr(connect, "open_stream", self._streams.open_stream)
        self._settle = settle or (lambda: clock.advance(0))
        self.apps: list[H2App] = []
        budget = budget or Budget(limits or ClusterLimits())
        self.pool = StreamPool(TARGET, 2.0, Limits(), clock, budget=budget, **pool)

    def serves(self, pump: Pump) -> None:
        """Stand behind *pump*, in place of its pool of connections."""
        pump.cluster.is_multiplexed = True
        pump.cluster.endpoints[0].pool = cast(FakePool, self.pool)  # of which the exchange asks nothing else

    @property
    def waiting(self) -> list[Opening]:
        """Connections that are being made."""
        return self._streams.waiting

    def connects(self) -> H2App:
        """Let the connection be made that is longest waited for; its app says nothing yet."""
        app = H2App(self.waiting[0].accept(), self._settle)
        self.apps.append(app)
        self._settle()
        return app

    def accepts(self, *settings: tuple[int, int]) -> H2App:
        """The same, with an app that says at once what it is."""
        app = self.connects()
        app.begins(*settings)
        return app

    def refuses(self, reason: str = "upstream_connect_refused", detail: str = "Connection refused") -> None:
        self.waiting[0].refuse(reason, detail)
        self._settle()
