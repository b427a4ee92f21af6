"""
The channel between the supervisor and a worker: a socket pair, with JSON messages behind their length.

Both ends are ours, but a worker speaks with the whole world: what it sends is bounded and checked as what a peer sends.
Neither end ever waits for the other here; what cannot be sent at once is kept, up to a limit, until the reactor says
that it can.
"""

from __future__ import annotations

import enum
import json
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python import failure
from zope.interface import implementer

from sidecar.errors import Problem

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The largest are settings with key material in the environment, and lists of connections: a few megabytes."""

_LENGTH: Final = struct.Struct("!I")
_READ_BYTES: Final = 256 * 1024

_log = Logger()


class Kind(enum.Enum):
    """What a message is about; who sends it."""

    START = "start"  # supervisor: a `Start`
    READY = "ready"  # worker: it serves
    FAILED = "failed"  # worker: it cannot start; the problems, as `pack_problems` does
    QUESTION = "question"  # supervisor: a `merged.Part`
    ANSWER = "answer"  # worker: to the question of the same id
    DRAIN = "drain"  # supervisor: whether another worker takes over
    FORCE = "force"  # supervisor: end now
    LOG_LEVEL = "log_level"  # supervisor: a `settings.LogLevel`
    FAREWELL = "farewell"  # worker: it ends; its last figures


@attrs.frozen
class Message:
    """
    Attributes:
        kind: What it is about.
        body: What JSON can carry. Settings may have secrets in them, so it is never shown.
        id: Of a question, and again of its answer.
    """

    kind: Kind
    body: Any = attrs.field(default=None, repr=False)
    id: int = 0


def encode(message: Message) -> bytes:
    """
    Return the bytes of *message*.

    Raises:
        ValueError: It is longer than `MAX_MESSAGE_BYTES`.
    """
    data = json.dumps([message.kind.value, message.id, message.body], separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(data):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
    return _LENGTH.pack(len(data)) + data


class Decoder:
    """Bytes to messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """
        Return the messages that are complete with *data*.

        Raises:
            ValueError: One is too long, or is none. The stream is of no use after that.
        """
        self._data += data
        messages = []
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length:,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
            end = _LENGTH.size + length
            if len(self._data) < end:
                break
            messages.append(_message(bytes(self._data[_LENGTH.size : end])))
            del self._data[:end]
        return messages


def _message(data: bytes) -> Message:
    try:
        kind, number, body = json.loads(data)
        if type(number) is not int:
            raise ValueError
        return Message(Kind(kind), body, number)
    except (ValueError, TypeError, RecursionError):
        # Neither the text nor its error: both may have settings in them.
        raise ValueError("a message that is none") from None


def receive(sock: socket.socket) -> Message:
    """
    Wait for one message on a blocking socket, and read not a byte more: what follows is for a `Channel`.

    Raises:
        OSError: The other end has closed, or the socket's timeout has passed.
        ValueError: It is no message.
    """
    decoder = Decoder()
    head = _exactly(sock, _LENGTH.size)
    messages = decoder.feed(head)
    return (messages or decoder.feed(_exactly(sock, *_LENGTH.unpack(head))))[0]


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), _READ_BYTES))
        if not piece:
            raise ConnectionResetError("the other process has ended")
        data += piece
    return bytes(data)


def pack_problems(problems: Sequence[Problem]) -> list[list[str]]:
    """Return *problems* as a message carries them."""
    return [[problem.setting, problem.source, problem.fact, problem.fix] for problem in problems]


def unpack_problems(packed: Any) -> tuple[Problem, ...]:
    """
    Return what `pack_problems` was given.

    Raises:
        TypeError: It has another shape.
    """
    return tuple(Problem(*fields) for fields in packed)


@implementer(IReadWriteDescriptor)
class Channel:
    """One end of the socket pair, in the reactor."""

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[Message], None],
        closed: Callable[[], None],
        reactor: Any,
    ) -> None:
        """
        Args:
            received: Takes each message.
            closed: Called once, when the other end has closed or has sent what is no message; not after `close`.
            reactor: IReactorFDSet.
        """
        self._socket = sock
        self._received = received
        self._other_closed = closed
        self._reactor = reactor
        self._decoder = Decoder()
        self._unsent = bytearray()
        self._is_open = True

    def start(self) -> None:
        """Read from now on."""
        self._socket.setblocking(False)
        self._reactor.addReader(self)

    def send(self, message: Message) -> None:
        """Send *message*, as soon as the other end takes it; nothing once the channel is closed."""
        if not self._is_open:
            return
        self._unsent += encode(message)
        if len(self._unsent) > 2 * MAX_MESSAGE_BYTES:
            self._lost("it takes no messages")
        else:
            self.doWrite()

    def close(self) -> None:
        """Send and read no more."""
        if self._is_open:
            self._is_open = False
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._socket.close()

    def read_rest(self) -> None:
        """Read everything that is there, and the end if the other end has closed."""
        while self._is_open and self._read():
            pass

    def flush(self, seconds: float) -> None:
        """Wait, at most *seconds*, until everything is sent: at the end of a process, when nobody else waits for it."""
        if not self._is_open:
            return
        self._socket.settimeout(seconds)
        try:
            self._socket.sendall(self._unsent)
        except OSError:
            pass  # it has gone, or does not read: nobody is left to be told
        self._unsent.clear()

    # -- called by the reactor, and by `pump` --

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "control"

    def doRead(self) -> None:
        self._read()

    def doWrite(self) -> None:
        try:
            sent = self._socket.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._unsent.clear()  # it has gone; what it sent before is still to be read
            sent = 0
        del self._unsent[:sent]
        if self._unsent:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: failure.Failure) -> None:
        """The other end has gone, which reading finds; or the reactor ends, which is no reason to close."""
        self.read_rest()

    @property
    def wants_to_write(self) -> bool:
        return bool(self._unsent)

    def _read(self) -> bool:
        """Read once; False if there was nothing, or an end."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._lost("")
            return False
        try:
            messages = self._decoder.feed(data)
        except ValueError as error:
            self._lost(str(error))
            return False
        for message in messages:
            self._received(message)
        return True

    def _lost(self, why: str) -> None:
        if self._is_open:
            if why:
                _log.error("the channel to another process of ours is of no use any more: {why}", why=why)
            self.close()
            self._other_closed()


def pump(channels: Sequence[Channel], seconds: float) -> None:
    """Wait, at most *seconds*, until at least one of *channels* has something; then let each do what it can."""
    by_number = {channel.fileno(): channel for channel in channels}
    poller = select.poll()
    for number, channel in by_number.items():
        poller.register(number, select.POLLIN | (select.POLLOUT if channel.wants_to_write else 0))
    for number, event in poller.poll(max(0.0, seconds) * 1000):
        if event & select.POLLOUT:
            by_number[number].doWrite()
        if event & ~select.POLLOUT:
            by_number[number].doRead()
