"""
The streams of an HTTP/2 connection, in either role: what is known of each, and what is told of them.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from sidecar.errors import RequestError
from sidecar.wire.events import RequestEvent, ResponseEvent

MAX_ENDED: Final = 256
"""Streams whose end is remembered: what arrives late for them must be told from what is wrong."""


# -- events -----------------------------------------------------------------------------------------------------


@attrs.define(eq=True)
class Reset:
    """
    The stream is gone, by the peer or since it broke a rule: nothing can be sent on it, nothing more will come.

    Attributes:
        code: Of RST_STREAM, as sent or received, or of GOAWAY; any number if it was received.
        reason: Token for logs: ``client_reset``, ``app_reset``, ``app_gone_away``, or which rule it was.
        message: For people.
        is_unprocessed: Whether the server says that it has not looked at the request: it may be sent again, whatever
            its method (RFC 9113 section 8.7).
    """

    code: int
    reason: str
    message: str
    is_unprocessed: bool = False


@attrs.define(eq=False)
class Refused:
    """A request that cannot be served, to be answered with ``error.status`` on its stream; no other event comes."""

    error: RequestError


class Writable:
    """The peer takes more of the stream, for which `send_data` had found no room."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "WRITABLE"


WRITABLE: Final = Writable()

StreamEvent = RequestEvent | Refused | Reset | Writable
"""In the server role."""

ClientStreamEvent = ResponseEvent | Reset | Writable
"""In the client role."""


# -- states -----------------------------------------------------------------------------------------------------


class Reading(enum.Enum):
    HEAD = "head"
    BODY = "body"
    DROPPING = "dropping"
    ENDED = "ended"


class Writing(enum.Enum):
    HEAD = "head"
    BODY = "body"
    ENDED = "ended"


class HowEnded(enum.Enum):
    """How a stream ended."""

    WHOLE = "whole"
    BY_PEER = "by peer"
    BY_US = "by us"


@attrs.define(eq=False, repr=False)
class Stream:
    """
    A request and its response.

    Attributes:
        missing: Bytes of the body that Content-Length promises and that have not come; None: it promises nothing.
        held: Body bytes that the caller has been given and has not acknowledged.
        is_tunnel: Whether it was opened by an extended CONNECT.
        window: What the peer takes on it.
        size: Of the window for what the peer sends.
        credit: What is left of that.
        due: Credit that is still to be given back.
        is_blocked: Whether the caller wants to send and the peer's windows do not let it.
        wanted: How many bytes it wanted to send then.
        method: Of the request; the server role has no use for it.
        interim_count: Interim heads that have come before the response.
    """

    missing: int | None
    reading: Reading
    is_tunnel: bool = False
    writing: Writing = Writing.HEAD
    held: int = 0
    window: int = 0
    size: int = 0
    credit: int = 0
    due: int = 0
    is_blocked: bool = False
    wanted: int = 0
    method: bytes = b""
    interim_count: int = 0


class EndedStreams:
    """
    How the streams that ended last did so; of older ones nothing is known.

    Attributes:
        has_forgotten: Whether there are older ones.
    """

    __slots__ = ("_hows", "has_forgotten")

    def __init__(self) -> None:
        self._hows: dict[int, HowEnded] = {}  # in the order of their ends
        self.has_forgotten = False

    def add(self, stream_id: int, how: HowEnded) -> None:
        """Remember an end, and forget the oldest if there are too many."""
        self._hows[stream_id] = how
        if len(self._hows) > MAX_ENDED:
            del self._hows[next(iter(self._hows))]
            self.has_forgotten = True

    def how(self, stream_id: int) -> HowEnded | None:
        """Return how a stream ended; None if that was long ago, or never."""
        return self._hows.get(stream_id)
