"""One connection to the app: the client codec on a socket, leased to one exchange at a time; or a raw one."""

from __future__ import annotations

from typing import Protocol

from twisted.python import failure

from sidecar.errors import ResponseError, TlsError
from sidecar.proxy.connect import Transport
from sidecar.proxy.sockets import StreamProtocol
from sidecar.wire.events import END, Data, RequestHead, ResponseEvent, ResponseHead
from sidecar.wire.http1 import ClientCodec


class Lessee(Protocol):
    """Who has leased the connection: an exchange, or what an upgrade made of one."""

    __slots__ = ()

    def response_events(self, events: list[ResponseEvent]) -> None:
        """Parts of the response have arrived."""

    def whole_response(self, head: ResponseHead, body: bytes) -> None:
        """All of the response has arrived at once, and its length was announced."""
        self.response_events([head, Data(body), END])

    def response_failed(self, error: ResponseError) -> None:
        """What the app sends breaks a rule, or was cut short; the connection is closing."""

    def upstream_lost(self) -> None:
        """The connection broke."""

    def upstream_full(self) -> None:
        """The app does not take more of the request for now."""

    def upstream_drained(self) -> None: ...


class Flow(Protocol):
    """The way to the app, as an exchange needs it: how its two directions stand."""

    def pauseProducing(self) -> None:
        """Nobody takes more of the response for now."""

    def resumeProducing(self) -> None: ...
    def read_up_to(self, size: int) -> None:
        """Read at most *size* bytes of the response at once while it flows, where that is for this request alone."""

    def has_progressed(self) -> bool:
        """Whether the app has taken any of the request since this was last asked."""


class Upstream:
    """
    What an exchange leases: a connection to the app, or a stream of one (`proxy.multiplex`).

    Attributes:
        broken_by: What ended it, in words, if TLS did, for example an upstream that refuses our certificate; else "".
        is_refused: Whether the app has said that it has not looked at the request.
        is_lost: Whether its end is that of the connection.
        remembered_head, remembered_bytes: The last response head whose codec may hand it out again, and what a client
            was sent for it.
    """

    # No protocol, which mypyc would look up by name each time (bench row `requests`).
    __slots__ = ("broken_by", "is_lost", "is_refused", "remembered_bytes", "remembered_head")

    def __init__(self, *, is_lost: bool) -> None:
        self.broken_by = ""
        self.is_refused = False
        self.is_lost = is_lost
        self.remembered_head: ResponseHead | None = None
        self.remembered_bytes = b""

    @property
    def has_response_bytes(self) -> bool:
        """Whether anything of the response has arrived."""
        raise NotImplementedError

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow."""
        raise NotImplementedError

    def flow(self) -> Flow:
        """Return how its two directions stand."""
        raise NotImplementedError

    def begin(self, lessee: Lessee, head: RequestHead) -> None:
        """Let *lessee* have it, for the request *head*, until it releases or closes it."""
        raise NotImplementedError

    def send(self, data: bytes, is_whole: bool, trailers: bytes) -> None:
        """
        Send some of the request.

        Args:
            data: The first begins with the head as for HTTP/1.1. The body is framed as there on a connection, and not
                at all on a stream.
            is_whole: Whether that was all of it.
            trailers: On a stream: field lines behind it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give it up, whatever is on it."""
        raise NotImplementedError


class Owner(Protocol):
    """The pool."""

    def forget(self, upstream: UpstreamConnection) -> None:
        """The connection is gone."""


class RawOwner(Protocol):
    """The pool, of connections that it never holds."""

    def forget_raw(self, raw: RawConnection) -> None:
        """The connection is gone."""


class UpstreamConnection(Upstream):
    """
    A connection to the app.

    Attributes:
        lessee: Whose exchange runs on it; None while it is idle.
        preface: What it began with, before the first request.
        transport: Its socket, or TLS on it; set before it is handed out.
        usable_until: While it is idle: the moment from which on the app may be closing it; 0 if it never was.
    """

    __slots__ = (
        "_owner",
        "codec",
        "lessee",
        "preface",
        "transport",
        "usable_until",
    )

    transport: Transport

    def __init__(self, codec: ClientCodec, owner: Owner, preface: bytes = b"") -> None:
        super().__init__(is_lost=True)
        self.codec = codec
        self.preface = preface
        self._owner = owner
        self.lessee: Lessee | None = None
        self.usable_until = 0.0

    @property
    def has_response_bytes(self) -> bool:
        return self.codec.has_response_bytes

    @property
    def is_reusable(self) -> bool:
        return self.codec.is_reusable

    def flow(self) -> Flow:
        return self.transport

    def begin(self, lessee: Lessee, head: RequestHead) -> None:
        self.lessee = lessee
        self.codec.expect_response(head.method, head.upgrade)

    def lease(self, lessee: Lessee) -> None:
        """Let *lessee* have the connection until it releases or closes it."""
        self.lessee = lessee

    def send(self, data: bytes, is_whole: bool, trailers: bytes) -> None:
        self.transport.write(data)

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
        codec = self.codec
        body = codec.receive_repeated(data)
        if body is not None:
            lessee.whole_response(codec.response, body)  # type: ignore[arg-type]  # there is one, since it was repeated
            return
        try:
            events = codec.receive(data)
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
        if isinstance(reason.value, TlsError):
            self.broken_by = str(reason.value)
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


class RawConnection:
    """
    A connection to the app whose bytes are somebody else's affair.

    Attributes:
        protocol: Hears what happens; None while the connection is being made, of which it hears nothing.
        transport: Its socket, or TLS on it; set before the protocol is.
    """

    __slots__ = ("_owner", "protocol", "transport")

    transport: Transport

    def __init__(self, owner: RawOwner) -> None:
        self._owner = owner
        self.protocol: StreamProtocol | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.protocol is not None:
            self.protocol.dataReceived(data)

    def eofReceived(self) -> None:
        if self.protocol is not None:
            self.protocol.eofReceived()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._owner.forget_raw(self)
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)

    def pauseProducing(self) -> None:
        if self.protocol is not None:
            self.protocol.pauseProducing()

    def resumeProducing(self) -> None:
        if self.protocol is not None:
            self.protocol.resumeProducing()
