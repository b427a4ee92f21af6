"""
A downstream connection without TLS: the same surface as `tls.server.TlsServer`, with nothing in between.

For an app on this machine whose requests go out with TLS, and for a listener that only redirects to https.
"""

from __future__ import annotations

from typing import Protocol

from twisted.python import failure

from sidecar.tls.server import NO_TRANSPORT, Application, ByteTransport


class Acceptor(Protocol):
    """Who decides what speaks on the connection."""

    def opened(self, plain: PlainServer) -> Application:
        """Return what speaks on *plain* from now on."""

    def closed(self, plain: PlainServer) -> None:
        """The connection is gone. Called exactly once, last."""


class PlainServer:
    """
    One downstream connection in the clear.

    Attributes:
        transport: The socket below; set by whoever makes the connection, before `begin`.
        application: What speaks on it; None before `begin`.
    """

    __slots__ = ("__weakref__", "_acceptor", "_is_closed", "application", "transport")

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._is_closed = False
        self.application: Application | None = None
        self.transport: ByteTransport = NO_TRANSPORT

    def begin(self) -> None:
        """Let somebody speak on it."""
        self.application = self._acceptor.opened(self)

    # -- from the transport --

    def dataReceived(self, data: bytes) -> None:
        if self.application is not None and not self._is_closed:
            self.application.dataReceived(data)

    def eofReceived(self) -> None:
        if self.application is not None and not self._is_closed:
            # Without TLS nothing tells the end of all from that of a broken connection but the FIN itself.
            self.application.eofReceived(True)

    def connectionLost(self, reason: failure.Failure) -> None:
        self._is_closed = True
        application, self.application = self.application, None
        try:
            if application is not None:
                application.connectionLost(reason)
        finally:
            self._acceptor.closed(self)
            self.transport = NO_TRANSPORT  # no reference cycle is left behind

    def pauseProducing(self) -> None:
        if self.application is not None:
            self.application.pauseProducing()

    def resumeProducing(self) -> None:
        if self.application is not None:
            self.application.resumeProducing()

    def deadline_passed(self) -> None:
        """The deadline of the application's current wait, or of a peer that does not let go."""
        if self.application is None or self._is_closed:
            self.abort()
        else:
            self.application.deadline_passed()

    @property
    def is_silent(self) -> bool:
        """Whether nobody speaks on it yet."""
        return self.application is None

    # -- from the application --

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has taken everything written."""
        return self.transport.is_flushed

    def write(self, data: bytes) -> None:
        if not self._is_closed:
            self.transport.write(data)

    def write_last(self, data: bytes) -> None:
        """Write what `close` or `linger` follows: the end is the kernel's to say."""
        self.write(data)

    def shut_down_writing(self) -> None:
        """Say that no more will come, and go on reading."""
        if not self._is_closed:
            self.transport.shut_down_writing()

    def close(self) -> None:
        """Close once everything has been sent."""
        if not self._is_closed:
            self._is_closed = True
            self.transport.loseConnection()

    def linger(self) -> None:
        """Like `close`, for a peer that is still sending. The caller sets a deadline."""
        if not self._is_closed:
            self._is_closed = True
            self.transport.linger()

    def abort(self) -> None:
        """Cut the connection."""
        self._is_closed = True
        self.transport.abortConnection()
