"""
The epoll reactor with a short way to our own sockets.

Stock dispatch wraps every event in a logging context and checks what `SocketTransport` guarantees. Here an event for
one of those goes straight to its `doRead` / `doWrite`; everything else, and everything unusual, takes the stock way.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

from sidecar.proxy.sockets import SocketTransport

_log = Logger()

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_PLAIN: Final = (_IN, _OUT)


class DirectEPollReactor(EPollReactor):
    """EPollReactor; the order of events and what a descriptor may rely on are the same."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most *timeout* seconds (None: for ever), and act on them."""
        selectables: dict[int, Any] = self._selectables
        # poll() restarts after a signal by itself (PEP 475).
        events = self._poller.poll(-1 if timeout is None else timeout, len(selectables))
        # An earlier event of this turn may close a descriptor, and its number may go to a new connection at once: an
        # event is for whoever had the descriptor when it was polled.
        owners = [selectables.get(descriptor) for descriptor, _ in events]
        for (descriptor, event), selectable in zip(events, owners, strict=True):
            if selectable is None or selectables.get(descriptor) is not selectable:
                continue
            if type(selectable) is SocketTransport and event in _PLAIN:
                try:
                    why = selectable.doRead() if event == _IN else selectable.doWrite()
                except Exception as error:  # a bug of ours must cost one connection, not the process
                    _log.failure("unexpected error, closing one connection")
                    why = error
                if why is not None:
                    self._guarded(self._disconnectSelectable, selectable, why, event == _IN)
            else:
                self._guarded(self._doReadOrWrite, selectable, descriptor, event)

    @staticmethod
    def _guarded(act: Any, *args: Any) -> None:
        try:
            act(*args)
        except Exception:
            _log.failure("unexpected error while closing a connection")

    doIteration = doPoll
