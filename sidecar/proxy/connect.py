"""Open a stream connection to an address: resolve, try in order, within one deadline."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet import threads
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python import failure
from zope.interface import implementer

from sidecar.settings import HostPort, UnixPath

Address = tuple[int, Any]
"""(address family, address as the socket module wants it)."""

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


def numeric_addresses(target: HostPort | UnixPath) -> list[Address] | None:
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


def connect(target: HostPort | UnixPath, timeout_seconds: float, reactor: Any, done: Done) -> None:
    """
    Connect to *target*; call *done* once, later, with a connected non-blocking socket or with why there is none.

    A name is looked up each time, in a thread: a container's peers move.
    """
    attempt = _Attempt(timeout_seconds, reactor, done)
    addresses = numeric_addresses(target)
    if addresses is not None:
        attempt.start(addresses)
        return
    assert isinstance(target, HostPort)
    threads.deferToThreadPool(
        reactor, reactor.getThreadPool(), socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM
    ).addCallbacks(
        lambda found: attempt.start([(family, address) for family, _, _, _, address in found]),
        lambda why: attempt.fail("upstream_unreachable", f"{target.host} cannot be resolved: {why.getErrorMessage()}"),
    )


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
