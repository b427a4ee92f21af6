"""
Sockets of one thread: what they receive is handed on as it comes, and every wait is for a condition, with a deadline.

Client and origin of a proxy are served by one loop, so that what one of them has seen never depends on the scheduling
of threads.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

DEADLINE_SECONDS: Final = 20.0
"""For what takes milliseconds; only a proxy that hangs, or a machine that does, is waited for so long."""


class Loop:
    """A selector that calls. For ``with``."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._selector.close()

    def add(self, sock: socket.socket, when_readable: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, when_readable)

    def remove(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Serve the sockets until *condition* holds; return whether it did within `DEADLINE_SECONDS`."""
        until = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            left = until - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(left):
                key.data()
        return True


class Stream:
    """
    One connection of the loop's.

    Attributes:
        received: What has come and nobody has taken.
        is_closed: Whether the peer has closed it, in whatever way.
    """

    def __init__(self, loop: Loop, sock: socket.socket, when_received: Callable[[], None] | None = None) -> None:
        """
        Args:
            when_received: Called after bytes, or the end, have come.
        """
        self._loop = loop
        self._socket = sock
        self._when_received = when_received
        self._is_registered = True
        self.received = b""
        self.is_closed = False
        sock.setblocking(False)
        loop.add(sock, self._readable)

    def send(self, data: bytes) -> None:
        """Send all of it, waiting for the peer if need be; a peer that has closed takes nothing."""
        self._socket.settimeout(DEADLINE_SECONDS)
        with suppress(OSError):  # what a peer that refuses in the middle has answered is still read
            self._socket.sendall(data)
        self._socket.setblocking(False)

    def close(self) -> None:
        self._unregister()
        self._socket.close()

    def _readable(self) -> None:
        try:
            while data := self._socket.recv(65_536):  # TLS may hold more than the selector sees
                self.received += data
            self._end()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:  # a reset, or TLS without its close_notify
            self._end()
        if self._when_received is not None:
            self._when_received()

    def _end(self) -> None:
        self.is_closed = True
        self._unregister()

    def _unregister(self) -> None:
        if self._is_registered:
            self._is_registered = False
            self._loop.remove(self._socket)
