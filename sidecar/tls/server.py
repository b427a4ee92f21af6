"""
TLS in the server role as a Twisted protocol over memory BIOs: a sibling of Twisted's TLSMemoryBIOProtocol.

Below it is a byte transport, above it an application protocol that is made once the handshake is complete. What is
written goes out in the same turn; no data is queued here, so backpressure is the transport's alone.

    NEW       -- TLS record -------------> HANDSHAKE
    NEW       -- plain HTTP, EOF, ... ---> CLOSED
    HANDSHAKE -- Finished ---------------> OPEN
    HANDSHAKE -- error, deadline, EOF ---> CLOSED      the client hears an alert, or why plain HTTP is wrong
    OPEN      -- close_notify -----------> PEER_DONE   the client sends no more, but still reads
    OPEN      -- shut_down_writing() ----> DONE        we send no more, but still read
    DONE      -- close_notify -----------> CLOSED      the application is told, and lets go
    OPEN      -- close(), linger() ------> CLOSED      after our close_notify; also from PEER_DONE
    OPEN      -- abort(), broken record -> CLOSED      without it: what was sent must not look complete

In TLS 1.3 the session tickets follow the handshake; they go out with the first that is written, not by themselves. What
they would have acknowledged on their way is acknowledged without them.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from OpenSSL import SSL
from twisted.python import failure

from sidecar.errors import TlsError
from sidecar.tls.hello import MAX_HELLO_BYTES
from sidecar.tls.records import Records

_CLIENT_HELLO: Final = 0x16
"""First byte of a TLS handshake record (RFC 8446 section 5.1)."""

# Of the limits below, those that tests lower are not Final: that would be for good where this module is compiled.
MAX_HANDSHAKE_BYTES: int = 32 * 1024
"""
All that a client may send until its handshake is complete. A ClientHello takes some 2 KB, a client's chain with the
largest keys in use 10 KB, with post-quantum ones about 20; OpenSSL alone would take 100 KiB of certificates, and keeps
many times their size of what stands in them.
"""

_MAX_HELD: Final = 16 * 1024
"""The most of a last write that is worth a copy, so that the end goes out with it: a record."""

_MAX_HELD_TICKETS: int = 4_096
"""
The most of session tickets that a connection keeps until something is written. Two take some 550 bytes, and with a
client's certificate, which is in each, usually 3 KB; larger ones leave at once.
"""

_ENOUGH_TO_TELL: Final = 4
"""Bytes by which plain HTTP is recognised."""


class ByteTransport(Protocol):
    """What TLS needs of the socket below it."""

    @property
    def is_flushed(self) -> bool: ...
    def write(self, data: bytes | memoryview) -> None:
        """Send *data*, and keep no view of it: once this returns, its memory is used for something else."""

    def acknowledge(self) -> None:
        """Let the peer know at once that what it sent has arrived, though there is nothing to say yet."""

    def loseConnection(self) -> None: ...
    def shut_down_writing(self) -> None: ...
    def linger(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


class StreamTransport(Protocol):
    """What a connection to an upstream is to what speaks on it: a socket, or TLS on one."""

    @property
    def is_open(self) -> bool: ...
    @property
    def is_flushed(self) -> bool: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def bytes_sent(self) -> int: ...
    def has_progressed(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def shut_down_writing(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def read_up_to(self, size: int) -> None: ...


class SocketStream(StreamTransport, Protocol):
    """The socket itself, below TLS towards an upstream."""

    def write(self, data: bytes | memoryview) -> None:
        """As `ByteTransport.write`."""


class Application(Protocol):
    """What speaks through an established TLS connection."""

    def dataReceived(self, data: bytes) -> None: ...

    def eofReceived(self, clean: bool) -> None:
        """
        The peer will send no more.

        Args:
            clean: It said so (close_notify). False: its connection just ended, perhaps cut by somebody else.
        """

    def connectionLost(self, reason: failure.Failure) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def deadline_passed(self) -> None: ...


class Acceptor(Protocol):
    """Who decides what happens before and after a handshake."""

    def established(self, tls: TlsServer, connection: SSL.Connection) -> Application:
        """The handshake is complete: return what speaks on *tls* from now on."""

    def handshake_failed(self, tls: TlsServer, reason: str, message: str) -> None:
        """The handshake came to nothing; the connection is closing. Called at most once."""

    def plaintext_reply(self, data: bytes) -> bytes:
        """Return what to answer a client that sends *data* without TLS, or b""."""

    def closed(self, tls: TlsServer) -> None:
        """The connection is gone. Called exactly once, last."""


class _State(enum.Enum):
    NEW = "new"
    HANDSHAKE = "handshake"
    OPEN = "open"
    PEER_DONE = "peer done"
    DONE = "done"
    CLOSED = "closed"


_OPEN: Final = _State.OPEN
_READING: Final = (_State.OPEN, _State.DONE)
_BEFORE: Final = (_State.NEW, _State.HANDSHAKE)
_WRITABLE: Final = (_State.OPEN, _State.PEER_DONE)


class _NoTransport:
    """Stands below a connection that is gone: whoever still writes finds the state CLOSED first."""

    is_flushed = True

    def write(self, data: bytes | memoryview) -> None: ...
    def acknowledge(self) -> None: ...
    def loseConnection(self) -> None: ...
    def shut_down_writing(self) -> None: ...
    def linger(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


NO_TRANSPORT: Final = _NoTransport()


class TlsServer:
    """
    One downstream TLS connection.

    `transport` is set by whoever makes the connection, before the first byte.

    Attributes:
        transport: The socket below.
        application: What speaks on the connection; None until the handshake is complete.
    """

    __slots__ = (
        "_acceptor",
        "_early",
        "_handshake_room",
        "_held",
        "_records",
        "_state",
        "application",
        "transport",
    )

    def __init__(self, records: Records, acceptor: Acceptor) -> None:
        self._records = records
        self._handshake_room = MAX_HANDSHAKE_BYTES
        self._held = b""  # sealed, and goes out ahead of what is written next
        self._acceptor = acceptor
        self._state = _State.NEW
        self._early = b""  # what came until it was clear whether it is TLS, and then of the handshake
        self.application: Application | None = None
        self.transport: ByteTransport = NO_TRANSPORT

    # -- from the transport --

    def dataReceived(self, data: bytes) -> None:
        if self._state is _OPEN:
            self._receive(data)
        elif self._state is _State.HANDSHAKE:
            self._shake_hands(data)
        elif self._state is _State.NEW:
            self._first_bytes(data)
        elif self._state is _State.DONE:
            self._receive(data)

    def eofReceived(self) -> None:
        if self._state in _READING:
            assert self.application is not None
            self.application.eofReceived(False)
        elif self._state in _BEFORE:
            self._fail("closed_by_peer", "the client closed the connection before the handshake was complete")

    def connectionLost(self, reason: failure.Failure) -> None:
        if self._state in _BEFORE:
            self._fail("closed_by_peer", "the connection was lost before the handshake was complete")
        self._state = _State.CLOSED
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
        """The deadline that the acceptor set: of the handshake, or of the application's current wait."""
        if self._state in _BEFORE:
            self._fail("handshake_timeout", "the handshake was not complete in time")
        elif self.application is not None and self._state is not _State.CLOSED:
            self.application.deadline_passed()
        else:
            self.transport.abortConnection()

    @property
    def connection(self) -> SSL.Connection:
        return self._records.connection

    @property
    def early_bytes(self) -> bytes:
        """What the client has sent in a handshake that failed: at most `MAX_HELLO_BYTES`, for `tls.hello`."""
        return self._early

    @property
    def is_silent(self) -> bool:
        """Whether the client has sent nothing by which TLS could be told from anything else."""
        return self._state is _State.NEW

    # -- from the application --

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has taken everything written."""
        return self.transport.is_flushed

    def write(self, data: bytes) -> None:
        """Encrypt and send *data*."""
        if self._state in _WRITABLE and data:
            try:
                sealed = self._records.seal(data)
            except TlsError:
                self.abort()
                return
            if self._held:
                sealed, self._held = self._held + sealed, b""
            self.transport.write(sealed)

    def write_last(self, data: bytes) -> None:
        """Write *data*, behind which the caller calls `close` or `linger` at once: they go out as one."""
        if len(data) > _MAX_HELD:
            self.write(data)
        elif self._state in _WRITABLE and data:
            try:
                self._held += self._records.seal(data)
            except TlsError:
                self.abort()

    def shut_down_writing(self) -> None:
        """Say that no more will come (close_notify), and go on reading."""
        if self._state is _OPEN:
            self._state = _State.DONE
            self._write_end()

    def close(self) -> None:
        """Say that this was all, and close once it has been sent."""
        if self._state in _WRITABLE:
            self._state = _State.CLOSED
            self._write_end()
            self.transport.loseConnection()
        elif self._state is _State.DONE:
            self._state = _State.CLOSED
            self.transport.loseConnection()

    def linger(self) -> None:
        """Like `close`, for a peer that is still sending: it gets to read the answer. The caller sets a deadline."""
        if self._state in _WRITABLE:
            self._state = _State.CLOSED
            self._write_end()
            self.transport.linger()
        elif self._state is _State.DONE:
            self._state = _State.CLOSED
            self.transport.linger()

    def abort(self) -> None:
        """Cut the connection so that the peer cannot take what it has for all there is."""
        self._state = _State.CLOSED
        self.transport.abortConnection()

    # -- inside --

    def _write_end(self) -> None:
        self._write_sealed(self._records.close())

    def _write_sealed(self, sealed: bytes) -> None:
        """Send *sealed*, with what has been sealed before it and was held."""
        held, self._held = self._held, b""
        self.transport.write(held + sealed)

    def _receive(self, data: bytes) -> bool:
        """Hand on what is in *data*; return whether that was anything."""
        try:
            plaintext, ended = self._records.open(data)
        except TlsError:
            self._write_sealed(self._records.take())  # the alert
            self.abort()
            return True
        application = self.application
        assert application is not None
        if plaintext:
            application.dataReceived(plaintext)
        if ended and self._state in _READING:
            if self._state is _OPEN:
                self._state = _State.PEER_DONE
            application.eofReceived(True)
        return ended or plaintext != b""

    def _first_bytes(self, data: bytes) -> None:
        data = self._early + data
        if data[0] != _CLIENT_HELLO:
            if len(data) < _ENOUGH_TO_TELL and data.isalpha():
                self._early = data
                return
            reply = self._acceptor.plaintext_reply(data)
            if reply:
                self.transport.write(reply)
                self._fail("plain_http", "the client speaks plain HTTP on the TLS port")
                return
        self._state = _State.HANDSHAKE
        self._early = b""
        self._shake_hands(data)

    def _shake_hands(self, data: bytes) -> None:
        records = self._records
        if len(self._early) < MAX_HELLO_BYTES:
            self._early += data[:MAX_HELLO_BYTES]
        self._handshake_room -= len(data)
        behind = b""
        if self._handshake_room < 0:
            data, behind = data[: self._handshake_room], data[self._handshake_room :]
            self._handshake_room = 0
        try:
            done = records.handshake(data)
        except TlsError as error:
            self.transport.write(records.take())
            self._fail(error.reason, str(error))
            return
        flight = records.take()
        if done and self._may_wait(flight):
            self._held = flight
        else:
            self.transport.write(flight)
        if done and self._state is _State.HANDSHAKE:
            self._state = _OPEN
            self._early = b""
            self.application = self._acceptor.established(self, records.connection)
            # To ask OpenSSL for what has not come yet costs much, and most clients wait for our answer.
            has_heard = (behind or records.may_hold_more()) and self._receive(behind)
            if self._held and not has_heard:
                # A client whose system gathers small packets (no TCP_NODELAY) holds its request until then, and ours
                # would take 40 ms.
                self.transport.acknowledge()
        elif behind and self._state is _State.HANDSHAKE:
            text = f"the client sent over {MAX_HANDSHAKE_BYTES:,} bytes in its handshake"
            self._fail("handshake_too_large", text)

    def _may_wait(self, flight: bytes) -> bool:
        """
        Whether our last *flight* is nothing but tickets, for which no client waits (RFC 8446 section 4.6.1).

        Sent with what comes next they cost no system call and no wake-up (bench row `connections-full`).
        """
        is_tls13 = self._records.connection.get_protocol_version() >= SSL.TLS1_3_VERSION
        return is_tls13 and len(flight) <= _MAX_HELD_TICKETS

    def _fail(self, reason: str, message: str) -> None:
        self._state = _State.CLOSED
        self._acceptor.handshake_failed(self, reason, message)
        self.transport.linger()
