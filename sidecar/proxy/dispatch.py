"""Events of the poller to the descriptors that they are for."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from sidecar.proxy.sockets import SocketTransport

_log = Logger()

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT

Disconnect = Callable[[Any, Exception, bool], None]
Other = Callable[[Any, int, int], None]


def dispatch(events: list[tuple[int, int]], selectables: dict[int, Any], disconnect: Disconnect, other: Other) -> None:
    """
    Act on what the poller has found, in its order.

    Args:
        events: Descriptors, each with its event mask.
        selectables: Who has which descriptor.
        disconnect: Ends a socket of ours: which, why, and whether that came from reading.
        other: Takes what is not for a socket of ours, and what is unusual: for whom, descriptor and mask.
    """
    # An earlier event of this turn may close a descriptor, and its number may go to a new connection at once: an event
    # is for whoever had the descriptor when it was polled.
    owners = [selectables.get(descriptor) for descriptor, _ in events]
    for (descriptor, event), selectable in zip(events, owners, strict=True):
        if selectable is None or selectables.get(descriptor) is not selectable:
            continue
        is_input = event == _IN
        if type(selectable) is SocketTransport and (is_input or event == _OUT):
            try:
                why = selectable.doRead() if is_input else selectable.doWrite()
            except Exception as error:  # a bug of ours must cost one connection, not the process
                _log.failure("unexpected error, closing one connection")
                why = error
            if why is not None:
                disconnect(selectable, why, is_input)
        else:
            other(selectable, descriptor, event)
