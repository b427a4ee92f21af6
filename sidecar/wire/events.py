"""
What a message consists of, for every version of HTTP.

A request is RequestHead, Data*, Trailers?, End; a response is InterimHead*, ResponseHead, Data*, Trailers?, End.
Codecs turn bytes into these and back; whatever routes and streams knows only these.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from sidecar.wire.fields import Fields

# Written out: mypyc compiles no decorated class, and these are made per message (bench rows `requests`, `varied`).
# Nothing changes them after creation; a head may serve several messages, see `wire.http1`.


class BodyKind(enum.Enum):
    """How the length of a body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class Event:
    """
    Part of a message; equal to one of the same class with the same content.

    Attributes:
        PARTS: Names of what it consists of.
    """

    __slots__ = ()

    PARTS: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.PARTS)

    __hash__ = None  # type: ignore[assignment]  # nothing keeps events as keys

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.PARTS)
        return f"{type(self).__name__}({parts})"


class RequestHead(Event):
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

    PARTS = (
        "method",
        "target",
        "minor_version",
        "fields",
        "host",
        "body",
        "length",
        "options",
        "keep_alive",
        "upgrade",
    )
    __slots__ = PARTS

    def __init__(
        self,
        method: bytes,
        target: bytes,
        minor_version: int,
        fields: Fields,
        host: bytes,
        body: BodyKind,
        length: int,
        options: tuple[bytes, ...],
        keep_alive: bool,
        upgrade: tuple[bytes, ...],
    ) -> None:
        self.method = method
        self.target = target
        self.minor_version = minor_version
        self.fields = fields
        self.host = host
        self.body = body
        self.length = length
        self.options = options
        self.keep_alive = keep_alive
        self.upgrade = upgrade


class ResponseHead(Event):
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

    PARTS = ("status", "reason", "minor_version", "fields", "body", "length", "options", "keep_alive")
    __slots__ = PARTS

    def __init__(
        self,
        status: int,
        reason: bytes,
        minor_version: int,
        fields: Fields,
        body: BodyKind,
        length: int,
        options: tuple[bytes, ...],
        keep_alive: bool,
    ) -> None:
        self.status = status
        self.reason = reason
        self.minor_version = minor_version
        self.fields = fields
        self.body = body
        self.length = length
        self.options = options
        self.keep_alive = keep_alive


class InterimHead(Event):
    """A 1xx response other than 101 (RFC 9110 section 15.2): the final one follows."""

    PARTS = ("status", "reason", "fields")
    __slots__ = PARTS

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields


class Data(Event):
    """A piece of body, never empty."""

    PARTS = ("payload",)
    __slots__ = PARTS

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Trailers(Event):
    """Fields after a chunked body."""

    PARTS = ("fields",)
    __slots__ = PARTS

    def __init__(self, fields: Fields) -> None:
        self.fields = fields


class End(Event):
    """The message is complete."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()

RequestEvent = RequestHead | Data | Trailers | End
ResponseEvent = InterimHead | ResponseHead | Data | Trailers | End
