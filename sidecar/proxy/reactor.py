"""
The epoll reactor with a short way to our own sockets.

Stock dispatch wraps every event in a logging context and checks what `SocketTransport` guarantees. Here an event for
one of those goes straight to its `doRead` / `doWrite`; everything else, and everything unusual, takes the stock way.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

from sidecar.proxy.dispatch import dispatch

_log = Logger()


class DirectEPollReactor(EPollReactor):
    """EPollReactor; the order of events and what a descriptor may rely on are the same."""

    # Twisted's is the time of day: where somebody sets that back, every deadline would be as much later.
    seconds = staticmethod(time.monotonic)

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most *timeout* seconds (None: for ever), and act on them."""
        selectables: dict[int, Any] = self._selectables
        # poll() restarts after a signal by itself (PEP 475).
        events = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        dispatch(events, selectables, self._disconnect, self._take)

    def _disconnect(self, selectable: Any, why: Exception, is_reading: bool) -> None:
        self._guarded(self._disconnectSelectable, selectable, why, is_reading)

    def _take(self, selectable: Any, descriptor: int, event: int) -> None:
        self._guarded(self._doReadOrWrite, selectable, descriptor, event)

    @staticmethod
    def _guarded(act: Any, *args: Any) -> None:
        try:
            act(*args)
        except Exception:
            _log.failure("unexpected error while closing a connection")

    doIteration = doPoll
