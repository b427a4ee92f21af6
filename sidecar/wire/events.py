"""
What a message consists of, for every version of HTTP.

A request is RequestHead, Data*, Trailers?, End; a response is InterimHead*, ResponseHead, Data*, Trailers?, End.
Codecs turn bytes into these and back; whatever routes and streams knows only these.
"""

from __future__ import annotations

import enum

import attrs

from sidecar.wire.fields import Fields

# Slotted but not frozen: attrs' frozen __init__ costs about three times as much, and these are made per message
# (bench row `requests`). Nothing changes them after creation; a head may serve several messages, see `wire.http1`.


class BodyKind(enum.Enum):
    """How the length of a body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


@attrs.define(eq=True)
class RequestHead:
    """
    The head of a request that passed every check.

    Attributes:
        method: Token, as sent.
        target: request-target, as sent.
        minor_version: 0 or 1.
        fields: Header section.
        host: Authority the request is for: of an absolute-form target, else the Host field; b"" only in HTTP/1.0.
        body: How its body is framed; never UNTIL_CLOSE.
        length: Body length in bytes when `body` is LENGTH, else 0.
        options: What Connection lists, in lower case.
        keep_alive: Whether the client allows another request on this connection.
        upgrade: Protocols offered in Upgrade, lower case, if Connection nominates it; else empty.
    """

    method: bytes
    target: bytes
    minor_version: int
    fields: Fields
    host: bytes
    body: BodyKind
    length: int
    options: tuple[bytes, ...]
    keep_alive: bool
    upgrade: tuple[bytes, ...]


@attrs.define(eq=True)
class ResponseHead:
    """
    The head of a final response (2xx-5xx, or 101 to a request that asked for it).

    Attributes:
        status: Status code.
        reason: Reason phrase as it came, with the blank before it; may be empty.
        minor_version: 0 or 1.
        fields: Header section.
        body: How its body is framed.
        length: Body length in bytes when `body` is LENGTH, else 0.
        options: What Connection lists, in lower case; empty if it is not readable as a list of tokens.
        keep_alive: Whether the server allows another request on this connection.
    """

    status: int
    reason: bytes
    minor_version: int
    fields: Fields
    body: BodyKind
    length: int
    options: tuple[bytes, ...]
    keep_alive: bool


@attrs.define(eq=True)
class InterimHead:
    """A 1xx response other than 101 (RFC 9110 section 15.2): the final one follows."""

    status: int
    reason: bytes
    fields: Fields


@attrs.define(eq=True)
class Data:
    """A piece of body, never empty."""

    payload: bytes


@attrs.define(eq=True)
class Trailers:
    """Fields after a chunked body."""

    fields: Fields


class End:
    """The message is complete."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()

RequestEvent = RequestHead | Data | Trailers | End
ResponseEvent = InterimHead | ResponseHead | Data | Trailers | End
