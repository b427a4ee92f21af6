"""
Recording fakes for what is below and around a cluster: TLS, the resolver, connections being made. No sockets, no
threads.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python import failure

from sidecar.proxy.connect import Address, ConnectFailed, Refusal, Target, Transport, Way
from sidecar.proxy.sockets import StreamProtocol

from .ports import FakeReactor, RecordingTransport


class RecordingProtocol:
    """
    A protocol that notes what it is told.

    Attributes:
        received: Everything that arrived.
        calls: What else it was told, in order.
    """

    def __init__(self) -> None:
        self.received = b""
        self.calls: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def eofReceived(self) -> None:
        self.calls.append("eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        self.calls.append("lost")

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")


@attrs.frozen
class FakeRefusal:
    """Why there is no TLS."""

    message: str


class FakeTls:
    """TLS on a socket, as `connect.SecureTransport`; what was done to it is in `calls`."""

    bytes_received = bytes_sent = 0
    is_flushed = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.transport: Any = None
        self.receiver: StreamProtocol = RecordingProtocol()
        self.is_open = True

    def start(self) -> None:
        assert self.transport is not None
        self.calls.append("start")

    def has_progressed(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.calls.append(f"write {data!r}")

    def loseConnection(self) -> None:
        self._close("lose")

    def shut_down_writing(self) -> None:
        self.calls.append("shut down")

    def abortConnection(self) -> None:
        self._close("abort")

    def _close(self, how: str) -> None:
        self.is_open = False
        self.calls.append(how)
        self.transport.abortConnection()

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...


class FakeSecurity:
    """
    TLS of a cluster, as `connect.Security`, for one connection.

    Attributes:
        asked: To which address, and for whom.
        established: To be called by the test.
    """

    def __init__(self) -> None:
        self.tls = FakeTls()
        self.asked: tuple[Target, StreamProtocol] | None = None
        self.established: Callable[[Refusal | None], None]

    def connect(
        self, address: Target, protocol: StreamProtocol, established: Callable[[Refusal | None], None]
    ) -> FakeTls:
        self.asked = address, protocol
        self.established = established
        return self.tls


class FakeNames:
    """
    The resolver, in place of `connect.look_up`.

    Attributes:
        asked: Which names were looked up, in order.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._waiting: list[Deferred[list[Address]]] = []

    def look_up(self, target: Any, reactor: Any, flags: int = 0) -> Any:
        self.asked.append(target.host)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    @property
    def waiting(self) -> int:
        """Look-ups under way."""
        return len(self._waiting)

    def answer(self, *hosts: str, port: int = 80) -> None:
        """Answer the oldest look-up with addresses."""
        self._waiting.pop(0).callback([address_of(host, port) for host in hosts])

    def fail(self, why: str = "Name or service not known") -> None:
        """Let the oldest look-up fail."""
        self._waiting.pop(0).errback(failure.Failure(socket.gaierror(-2, why)))  # type: ignore[no-untyped-call]


def address_of(host: str, port: int = 80) -> Address:
    """Return an address as the resolver has it."""
    return (socket.AF_INET6, (host, port, 0, 0)) if ":" in host else (socket.AF_INET, (host, port))


class FakeLocating:
    """Who waits for addresses, as `connect.Locating`; `told` is what it got."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, addresses: Any) -> None:
        self.told.append([address[1][0] for address in addresses])

    def fail(self, reason: str, detail: str) -> None:
        self.told.append((reason, detail))


@attrs.define
class Opening:
    """
    A connection being made.

    Attributes:
        preface: As it was given.
        is_over: Whether the test has decided it.
    """

    way: Way
    protocol: StreamProtocol
    preface: Any
    _done: Callable[[Transport | ConnectFailed], None]
    _reactor: FakeReactor
    is_over: bool = False

    def accept(self) -> RecordingTransport:
        """Let it be made."""
        transport = RecordingTransport(self._reactor, self.protocol)
        self.is_over = True
        self._done(transport)
        return transport

    def refuse(self, reason: str = "upstream_connect_refused", detail: str = "Connection refused") -> None:
        self.is_over = True
        self._done(ConnectFailed(reason, detail))


class FakeStreams:
    """Connections, in place of `connect.open_stream`; `opened` has all of them, the oldest first."""

    def __init__(self) -> None:
        self.opened: list[Opening] = []

    def open_stream(
        self,
        way: Way,
        protocol: StreamProtocol,
        reactor: FakeReactor,
        done: Callable[[Transport | ConnectFailed], None],
        preface: Any = b"",
    ) -> None:
        self.opened.append(Opening(way, protocol, preface, done, reactor))

    @property
    def waiting(self) -> list[Opening]:
        return [opening for opening in self.opened if not opening.is_over]
