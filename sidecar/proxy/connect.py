"""
Open a stream connection to an address: resolve, try in order, perhaps speak TLS, within one deadline.

`connect` ends with a socket; `open_stream` with a transport that is ready for what is to be said on it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs
from twisted.internet import threads
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python import failure
from zope.interface import implementer

from sidecar.proxy.sockets import MAX_READ_SIZE, SocketTransport, StreamProtocol
from sidecar.settings import HostPort, UnixPath
from sidecar.tls.server import StreamTransport
from sidecar.values import Value

Transport = StreamTransport
"""What a connection is written to; see `SocketTransport` for what each of its methods promises."""

Address = tuple[int, Any]
"""(address family, address as the socket module wants it)."""

Target = HostPort | UnixPath

_IN_PROGRESS: Final = frozenset({0, errno.EINPROGRESS})

UNIX_RETRY_SECONDS: Final = 0.02
"""When to ask again for a Unix socket whose backlog is full: the kernel does not say when it has room."""


class ConnectFailed(Exception):  # noqa: N818  # an outcome handed to a callback, not raised
    """
    No connection was made.

    Attributes:
        reason: Key of `replies.REPLIES`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


Done = Callable[["socket.socket | ConnectFailed"], None]


class Locating(Protocol):
    """Who waits for addresses: one of the two is called, once. A call that comes too late changes nothing."""

    def start(self, addresses: Sequence[Address]) -> None: ...

    def fail(self, reason: str, detail: str) -> None:
        """There are none, for a reason that is a key of `replies.REPLIES`."""


Locate = Callable[[Locating], None]
"""Says where to connect, at once or later."""


class Refusal(Protocol):
    """Why there is no TLS; see `tls.client.TlsFailure`."""

    @property
    def message(self) -> str: ...


class SecureTransport(Transport, Protocol):
    """
    TLS on a socket; see `tls.client.TlsClient`.

    Attributes:
        transport: The socket's, set before `start`. Any: what is asked of it is the other side's affair.
    """

    transport: Any

    @property
    def receiver(self) -> StreamProtocol:
        """What the socket's transport reports to."""

    def start(self) -> None:
        """Begin the handshake."""


class Security(Protocol):
    """How TLS is spoken with an upstream; see `tls.client.UpstreamSecurity`."""

    def connect(
        self, address: Target, protocol: StreamProtocol, established: Callable[[Refusal | None], None]
    ) -> SecureTransport:
        """
        Prepare the client's side of a connection to *address*, whose host is the name that is verified by default.

        *established* is called at most once: with None when the handshake is done and the peer is who it should be,
        before *protocol* hears of anything; else with what is wrong, and *protocol* never hears of anything.
        """


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Way(Value):
    """
    How an upstream is reached.

    Attributes:
        target: The address, as it was set; with TLS its host is the name that is verified by default.
        timeout_seconds: For all of it: look-up, TCP and TLS.
        locate: Who knows the addresses of *target*; None: they are looked up at each connect if it is a name.
        security: TLS; None: none.
    """

    target: Target
    timeout_seconds: float
    locate: Locate | None = None
    security: Security | None = None


def numeric_addresses(target: Target) -> list[Address] | None:
    """Return the addresses of *target* if that takes no name look-up, else None."""
    if isinstance(target, UnixPath):
        return [(socket.AF_UNIX, target.path)]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, target.host)
        except OSError:
            continue
        return [(family, (target.host, target.port))]
    return None


def look_up(target: HostPort, reactor: Any, flags: int = 0) -> Any:
    """Return a Deferred (untyped in Twisted, hence Any) of the addresses of *target*, looked up in a thread."""

    def addresses(found: list[Any]) -> list[Address]:
        return [(family, address) for family, _, _, _, address in found]

    return threads.deferToThreadPool(
        reactor,
        reactor.getThreadPool(),
        socket.getaddrinfo,
        target.host,
        target.port,
        type=socket.SOCK_STREAM,
        flags=flags,
    ).addCallback(addresses)


def connect(target: Target, timeout_seconds: float, reactor: Any, done: Done, locate: Locate | None = None) -> None:
    """
    Connect to *target*; call *done* once, later, with a connected non-blocking socket or with why there is none.

    Args:
        locate: Who knows its addresses. None: a name is looked up each time, in a thread: a container's peers move.
    """
    attempt = _Attempt(timeout_seconds, reactor, done)
    if locate is not None:
        locate(attempt)
        return
    addresses = numeric_addresses(target)
    if addresses is not None:
        attempt.start(addresses)
        return
    assert isinstance(target, HostPort)
    look_up(target, reactor).addCallbacks(
        attempt.start,
        lambda why: attempt.fail("upstream_unreachable", f"{target.host} cannot be resolved: {why.getErrorMessage()}"),
    )


def open_stream(
    way: Way,
    protocol: StreamProtocol,
    reactor: Any,
    done: Callable[[Transport | ConnectFailed], None],
    preface: bytes | Callable[[socket.socket], bytes] = b"",
) -> None:
    """
    Connect, send *preface*, and establish TLS if that is wanted; call *done* once, later.

    Args:
        protocol: Hears what happens once *done* was called with its transport.
        preface: What is sent before anything else, outside of TLS, a few hundred bytes at most; or who makes it for
            the socket it is sent on.
    """
    until = reactor.seconds() + way.timeout_seconds

    def connected(outcome: socket.socket | ConnectFailed) -> None:
        if isinstance(outcome, ConnectFailed):
            done(outcome)
            return
        first = preface(outcome) if callable(preface) else preface
        if way.security is None:
            transport = SocketTransport(outcome, protocol, reactor, MAX_READ_SIZE)
            transport.write(first)
            done(transport)
        else:
            _Securing(way, until - reactor.seconds(), reactor, done).begin(outcome, protocol, first)

    connect(way.target, way.timeout_seconds, reactor, connected, way.locate)


class _Securing:
    """A handshake under way."""

    def __init__(
        self,
        way: Way,
        remaining_seconds: float,
        reactor: Any,
        done: Callable[[Transport | ConnectFailed], None],
    ) -> None:
        self._way = way
        self._reactor = reactor
        self._done: Callable[[Transport | ConnectFailed], None] | None = done
        self._tls: SecureTransport | None = None
        self._late = reactor.callLater(max(0.0, remaining_seconds), self._timed_out)

    def begin(self, sock: socket.socket, protocol: StreamProtocol, preface: bytes) -> None:
        security = self._way.security
        assert security is not None
        self._tls = tls = security.connect(self._way.target, protocol, self._established)
        transport = SocketTransport(sock, tls.receiver, self._reactor, MAX_READ_SIZE)
        tls.transport = transport
        transport.write(preface)
        tls.start()

    def _established(self, refusal: Refusal | None) -> None:
        tls, self._tls = self._tls, None
        if tls is not None and refusal is None:
            self._finish(tls)
        elif refusal is not None:
            self._finish(ConnectFailed("upstream_tls_failed", f"TLS: {refusal.message}"))

    def _timed_out(self) -> None:
        tls, self._tls = self._tls, None
        timeout = self._way.timeout_seconds
        self._finish(ConnectFailed("upstream_tls_failed", f"TLS: the handshake was not done within {timeout:g} s"))
        if tls is not None:
            tls.abortConnection()

    def _finish(self, outcome: Transport | ConnectFailed) -> None:
        done, self._done = self._done, None
        if self._late.active():
            self._late.cancel()
        if done is not None:
            done(outcome)


@implementer(IReadWriteDescriptor)
class _Attempt:
    """One connection being made; waits for the socket to become writable."""

    def __init__(self, timeout_seconds: float, reactor: Any, done: Done) -> None:
        self._reactor = reactor
        self._done: Done | None = done
        self._addresses: list[Address] = []
        self._socket: socket.socket | None = None
        self._timeout_seconds = timeout_seconds
        self._until = reactor.seconds() + timeout_seconds
        self._timeout = reactor.callLater(timeout_seconds, self._timed_out)
        self._last_error = ConnectFailed("upstream_unreachable", "the name has no addresses")

    def start(self, addresses: Sequence[Address]) -> None:
        self._addresses = list(addresses)
        self._try_next()

    def fail(self, reason: str, detail: str) -> None:
        self._finish(ConnectFailed(reason, detail))

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "connect"

    def doRead(self) -> None:
        raise AssertionError("not registered for reading")

    def doWrite(self) -> None:
        """The outcome is known."""
        assert self._socket is not None
        self._outcome(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def connectionLost(self, reason: failure.Failure) -> None:
        """The poller reports a failed connect as a hang-up."""
        if self._socket is not None:
            self._outcome(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNREFUSED)

    def _try_next(self) -> None:
        if self._done is None:
            return  # the deadline passed while the name was looked up
        if not self._addresses:
            self._finish(self._last_error)
            return
        family, address = self._addresses.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            if family != socket.AF_UNIX:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self._socket.connect_ex(address)
            if number in _IN_PROGRESS:
                self._reactor.addWriter(self)
        except OSError as problem:  # out of descriptors, or a family that this machine lacks
            self._drop()
            self._remember(problem.errno or errno.EIO)
            self._try_next()
            return
        if number in _IN_PROGRESS:
            # An address that does not answer leaves those behind it their share of the time.
            self._timeout.reset(max(0.0, self._until - self._reactor.seconds()) / (len(self._addresses) + 1))
        elif number == errno.EAGAIN and family == socket.AF_UNIX:
            self._drop()
            self._addresses.insert(0, (family, address))
            self._reactor.callLater(UNIX_RETRY_SECONDS, self._try_next)
        else:
            self._outcome(number)

    def _outcome(self, number: int) -> None:
        assert self._socket is not None
        if number == 0:
            self._reactor.removeWriter(self)
            connected, self._socket = self._socket, None
            self._finish(connected)
            return
        self._drop()
        self._remember(number)
        self._try_next()

    def _remember(self, number: int) -> None:
        refused = number in (errno.ECONNREFUSED, errno.ENOENT)
        reason = "upstream_connect_refused" if refused else "upstream_unreachable"
        self._last_error = ConnectFailed(reason, os.strerror(number))

    def _timed_out(self) -> None:
        self._drop()
        late = ConnectFailed("upstream_connect_timeout", f"no connection within {self._timeout_seconds:g} s")
        remaining = self._until - self._reactor.seconds()
        if self._addresses and remaining > 0:
            self._last_error = late
            self._timeout = self._reactor.callLater(remaining, self._timed_out)
            self._try_next()
        else:
            self._finish(late)

    def _drop(self) -> None:
        if self._socket is not None:
            self._reactor.removeWriter(self)
            self._socket.close()
            self._socket = None

    def _finish(self, outcome: socket.socket | ConnectFailed) -> None:
        done, self._done = self._done, None
        if self._timeout.active():
            self._timeout.cancel()
        if done is not None:
            # Never from inside connect(): the caller has not put its own affairs in order yet.
            self._reactor.callLater(0, done, outcome)
