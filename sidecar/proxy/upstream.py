"""One connection to the app: the client codec on a socket, leased to one exchange at a time."""

from __future__ import annotations

from typing import Protocol

from twisted.python import failure

from sidecar.errors import ResponseError
from sidecar.proxy.sockets import SocketTransport
from sidecar.wire.events import ResponseEvent, ResponseHead
from sidecar.wire.http1 import ClientCodec


class Lessee(Protocol):
    """Who has leased the connection: an exchange."""

    def response_events(self, events: list[ResponseEvent]) -> None: ...
    def response_failed(self, error: ResponseError) -> None:
        """What the app sends breaks a rule, or was cut short; the connection is closing."""

    def upstream_lost(self) -> None:
        """The connection broke."""

    def upstream_full(self) -> None:
        """The app does not take more of the request for now."""

    def upstream_drained(self) -> None: ...


class Owner(Protocol):
    """The pool."""

    def forget(self, upstream: UpstreamConnection) -> None:
        """The connection is gone."""


class UpstreamConnection:
    """
    A connection to the app.

    Attributes:
        lessee: Whose exchange runs on it; None while it is idle.
        remembered_head, remembered_bytes: The last response head whose codec may hand it out again, and what a client
            was sent for it.
        transport: Its socket; set right after creation.
        usable_until: While it is idle: the moment from which on the app may be closing it.
    """

    __slots__ = (
        "_owner",
        "codec",
        "lessee",
        "remembered_bytes",
        "remembered_head",
        "transport",
        "usable_until",
    )

    transport: SocketTransport

    def __init__(self, codec: ClientCodec, owner: Owner) -> None:
        self.codec = codec
        self._owner = owner
        self.lessee: Lessee | None = None
        self.usable_until = 0.0
        self.remembered_head: ResponseHead | None = None
        self.remembered_bytes = b""

    def lease(self, lessee: Lessee) -> None:
        """Let *lessee* have the connection until it releases or closes it."""
        self.lessee = lessee

    def close(self) -> None:
        """Give the connection up, whatever is on it."""
        self.lessee = None
        self.transport.abortConnection()

    def retire(self) -> None:
        """Close the connection, which is idle, in good order."""
        self.lessee = None
        self.transport.loseConnection()

    # -- from the transport --

    def dataReceived(self, data: bytes) -> None:
        lessee = self.lessee
        if lessee is None:
            # Nobody asked. Whatever it is (a 408 before closing, or worse), it is not an answer to the next request.
            self._owner.forget(self)
            self.close()
            return
        try:
            events = self.codec.receive(data)
        except ResponseError as error:
            self.close()
            lessee.response_failed(error)
            return
        if events:
            lessee.response_events(events)

    def eofReceived(self) -> None:
        lessee = self.lessee
        if lessee is None:
            self._owner.forget(self)
            self.retire()
            return
        if not self.codec.has_response_bytes:
            self.close()
            lessee.upstream_lost()
            return
        try:
            events = self.codec.receive_eof()
        except ResponseError as error:
            self.close()
            lessee.response_failed(error)
            return
        lessee.response_events(events)

    def connectionLost(self, reason: failure.Failure) -> None:
        self._owner.forget(self)
        lessee, self.lessee = self.lessee, None
        if lessee is not None:
            lessee.upstream_lost()

    def pauseProducing(self) -> None:
        if self.lessee is not None:
            self.lessee.upstream_full()

    def resumeProducing(self) -> None:
        if self.lessee is not None:
            self.lessee.upstream_drained()
