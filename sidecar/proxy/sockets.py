"""
A stream socket as a Twisted transport that writes through.

Stock transports queue every write and ask the poller for writability: two system calls and a loop turn for what a
direct `send` does. This one sends at once while nothing is queued, and asks the poller only after a short write. It is
an ordinary reactor citizen (IReadDescriptor, IWriteDescriptor), so any Twisted reactor can run it.

Rules that hold here: `connectionLost` of the protocol is called exactly once, never from inside `write`,
`loseConnection` or `abortConnection`; after it, nothing is called.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from typing import Any, Final, Protocol

from twisted.internet import error, main
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python import failure
from zope.interface import classImplements

READ_SIZE: Final = 65_536
"""Most bytes read at once, so also about what a side holds for a peer that reads slowly."""

MIN_PROGRESS_BYTES: Final = 4_096
"""What a slow but steady peer has to take between two looks, if it has not taken all."""

MAX_READ_SIZE: Final = 262_144
"""
The same while a transfer flows: a peer that takes all it is sent gets more at once, which spares system calls and
wake-ups (bench row `download`). The first pause ends it.
"""

MAX_UPSTREAM_READ_SIZE: Final = 524_288
"""
The same of an app, for a client that asks for one thing at a time: one with many streams could have as much held for
each of them. Of clients it would gain nothing (bench rows `download` and `upload`).
"""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
# One of each for all connections: nobody raises them (bench row `connections-full`).
_DONE: Final = failure.Failure(error.ConnectionDone())  # type: ignore[no-untyped-call]
_LOST: Final = failure.Failure(error.ConnectionLost())  # type: ignore[no-untyped-call]
_ABORTED: Final = failure.Failure(error.ConnectionAborted())  # type: ignore[no-untyped-call]
_RETRY: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})


class StreamProtocol(Protocol):
    """What a `SocketTransport` calls: IProtocol, and the two callbacks of a push producer."""

    def dataReceived(self, data: bytes) -> None: ...

    def eofReceived(self) -> None:
        """The peer will send no more. Reading has stopped; writing goes on until this side closes."""

    def connectionLost(self, reason: failure.Failure) -> None: ...

    def pauseProducing(self) -> None:
        """What was written is stuck: write no more until `resumeProducing`."""

    def resumeProducing(self) -> None: ...


class _State(enum.Enum):
    OPEN = "open"
    HALF_CLOSED = "half-closed"  # we send no more; what the peer sends is still delivered
    FLUSHING = "flushing"  # closes once everything written has been sent; what the peer sends is dropped
    BROKEN = "broken"  # the peer takes no more; what it had sent is still delivered, then the connection is lost
    LINGERING = "lingering"  # we send no more; what the peer sends is dropped until it closes
    ENDED = "ended"


_OPEN: Final = _State.OPEN
_DELIVERING: Final = (_State.OPEN, _State.HALF_CLOSED, _State.BROKEN)


class _Nobody:
    """
    Stands for the protocol of a connection that is gone, so that the two keep each other alive no longer, and of one
    that is made only to see whether it can be.
    """

    def dataReceived(self, data: bytes) -> None: ...
    def eofReceived(self) -> None: ...
    def connectionLost(self, reason: failure.Failure) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


NOBODY: Final = _Nobody()


class SocketTransport:
    """
    One connected socket.

    Attributes:
        protocol: Who is told what happens.
        bytes_received, bytes_sent: Since it was connected; sent is what the kernel has taken.
    """

    __slots__ = (
        "_eof_seen",
        "_max_read_size",
        "_paused",
        "_pending_seen",
        "_queue",
        "_reactor",
        "_read_size",
        "_recv",
        "_send",
        "_socket",
        "_state",
        "bytes_received",
        "bytes_sent",
        "fileno",
        "protocol",
    )

    def __init__(
        self, sock: socket.socket, protocol: StreamProtocol, reactor: Any, max_read_size: int = READ_SIZE
    ) -> None:
        """
        Args:
            sock: Connected and non-blocking.
            protocol: Hears of everything that happens.
            reactor: IReactorFDSet and IReactorTime.
            max_read_size: Most bytes to read at once while a transfer flows. Above `READ_SIZE` only for a peer that is
                trusted not to send what costs much to parse: it is all parsed in one turn. See also `read_up_to`.
        """
        self._max_read_size = max_read_size
        self._socket = sock
        self._recv = sock.recv
        self._send = sock.send
        self.fileno = sock.fileno
        self._reactor = reactor
        self.protocol: StreamProtocol = protocol
        self._state = _OPEN
        self._paused = False
        self._read_size = READ_SIZE
        self._eof_seen = False
        self._queue: deque[bytes] = deque()
        self._pending_seen = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        reactor.addReader(self)

    # -- towards the peer --

    @property
    def is_open(self) -> bool:
        """Whether writing still makes sense."""
        return self._state is _OPEN

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has taken everything written."""
        return not self._queue

    def has_progressed(self) -> bool:
        """
        Whether the peer has taken some of what was written since this was last asked, or since writing got stuck.

        The poller calls a socket writable only once a good part of the kernel's buffer is free, which for a slow but
        steady reader can be minutes; so who is about to give a peer up asks the kernel instead.
        """
        pending = self._pending_bytes()
        progressed = self._pending_seen - pending >= min(MIN_PROGRESS_BYTES, self._pending_seen) > 0
        self._pending_seen = pending
        return progressed

    def write(self, data: bytes | memoryview) -> None:
        """
        Send *data*, in order. If the kernel does not take all of it, the protocol is paused until it has.

        What has to wait is copied, if it is not bytes already: whose memory *data* is may use it again afterwards.
        """
        if self._state is not _OPEN or not data:
            return
        if self._queue:
            self._queue.append(bytes(data))
            self._pending_seen += len(data)
            return
        try:
            sent = self._send(data)
        except OSError as problem:
            if problem.errno not in _RETRY:
                self._write_failed()
                return
            sent = 0
        self.bytes_sent += sent
        if sent < len(data):
            self._queue.append(bytes(data[sent:]))
            self._pending_seen = self._pending_bytes()
            self._reactor.addWriter(self)
            self.protocol.pauseProducing()

    def acknowledge(self) -> None:
        """Let the peer know at once that what it sent has arrived (tcp(7), TCP_QUICKACK)."""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            pass  # it is gone already, or no TCP

    def loseConnection(self) -> None:
        """Close once everything written has been sent."""
        if self._state in (_State.OPEN, _State.HALF_CLOSED):
            self._state = _State.FLUSHING
            if not self._queue:
                self._end_soon(_DONE)
        elif self._state is _State.BROKEN:
            self._end_soon(_LOST)

    def shut_down_writing(self) -> None:
        """Tell the peer that no more will come, once everything written has been sent; go on reading."""
        if self._state is _OPEN:
            self._state = _State.HALF_CLOSED
            if not self._queue:
                self._shut_down()

    def linger(self) -> None:
        """
        Close in a way that lets the peer read what was written although it is still sending: say that no more will
        come, and drop what arrives until the peer closes too. The caller sets the deadline, and aborts.
        """
        if self._state in (_State.OPEN, _State.HALF_CLOSED):
            if self._eof_seen:
                self.loseConnection()
                return
            self._state = _State.LINGERING
            self.resumeProducing()
            if not self._queue:
                self._shut_down()
        elif self._state is _State.BROKEN:
            self._end_soon(_LOST)

    def abortConnection(self) -> None:
        """Close at once with a reset: the peer must not take what it has for all there is."""
        if self._state is not _State.ENDED:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # already disconnected: nothing to reset
            self._end_soon(_ABORTED)

    # -- from the peer --

    def pauseProducing(self) -> None:
        """Read no more for now: the peer will notice."""
        if not self._paused:
            self._paused = True
            self._read_size = READ_SIZE
            self._reactor.removeReader(self)
            if self._state is _State.BROKEN:
                self._end_soon(_LOST)

    def resumeProducing(self) -> None:
        if self._paused and not self._eof_seen and self._state is not _State.ENDED:
            self._paused = False
            self._reactor.addReader(self)

    def read_up_to(self, size: int) -> None:
        """Read at most *size* bytes at once from now on while a transfer flows, but `READ_SIZE` in any case."""
        self._max_read_size = max(size, READ_SIZE)
        self._read_size = min(self._read_size, self._max_read_size)

    # -- called by the reactor --

    def doRead(self) -> Exception | None:
        try:
            data = self._recv(self._read_size)
        except OSError as problem:
            return None if problem.errno in _RETRY else main.CONNECTION_LOST
        if not data:
            return self._read_eof()
        self.bytes_received += len(data)
        if self._state is _OPEN or self._state in _DELIVERING:
            self.protocol.dataReceived(data)
            if len(data) >= READ_SIZE and not self._paused:
                self._read_size = min(2 * len(data), self._max_read_size)
        return None

    def doWrite(self) -> Exception | None:
        data = self._queue.popleft() if len(self._queue) == 1 else b"".join(self._queue)
        self._queue.clear()
        try:
            sent = self._send(data)
        except OSError as problem:
            if problem.errno not in _RETRY:
                return main.CONNECTION_LOST
            sent = 0
        self.bytes_sent += sent
        if sent < len(data):
            self._queue.append(data[sent:])
            return None
        self._reactor.removeWriter(self)
        self._pending_seen = 0
        if self._state is _OPEN:
            self.protocol.resumeProducing()
        elif self._state is _State.FLUSHING:
            return main.CONNECTION_DONE
        else:
            self._shut_down()
            if self._state is _State.HALF_CLOSED:
                self.protocol.resumeProducing()
        return None

    def connectionLost(self, reason: failure.Failure) -> None:
        if self._state is not _State.ENDED:
            self._close()
            self._tell(reason)

    def logPrefix(self) -> str:
        return type(self.protocol).__name__

    def _pending_bytes(self) -> int:
        """What was written and has not been acknowledged by the peer's system."""
        if self._state is _State.ENDED:
            return 0
        try:
            in_kernel = fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return sum(map(len, self._queue)) + int.from_bytes(in_kernel, sys.byteorder)

    # -- endings --

    def _read_eof(self) -> Exception | None:
        self._eof_seen = True
        # A closed side stays readable for ever: stop listening to it.
        if self._state is _State.BROKEN:
            return main.CONNECTION_LOST
        self.pauseProducing()
        if self._state is _State.LINGERING:
            return main.CONNECTION_DONE
        if self._state is _OPEN or self._state is _State.HALF_CLOSED:
            self.protocol.eofReceived()
        return None

    def _write_failed(self) -> None:
        """
        The peer takes no more. It may have answered before it closed (413 to a large upload), so reading goes on to its
        end, which is near; a connection that is not being read is over.
        """
        if self._paused:
            self._end_soon(_LOST)
        else:
            self._state = _State.BROKEN

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has reset the connection: reading will tell

    def _end_soon(self, reason: failure.Failure) -> None:
        """Close now, tell the protocol in the next turn: it may be in the middle of something."""
        self._close()
        self._reactor.callLater(0, self._tell, reason)

    def _tell(self, reason: failure.Failure) -> None:
        protocol, self.protocol = self.protocol, NOBODY
        protocol.connectionLost(reason)

    def _close(self) -> None:
        self._state = _State.ENDED
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._queue.clear()
        self._socket.close()


# Not as a decorator, which would keep the class from being compiled as one.
classImplements(SocketTransport, IReadWriteDescriptor)
