"""
A second reader of HTTP/1.1 requests, to judge ours and every peer's by: RFC 9112 read strictly, on whole buffers.

It shares nothing with `sidecar.wire`, so that a misreading there does not excuse itself here. Where the RFC lets a
recipient repair a message, this reader refuses it; where it only permits a refusal (the size of a head, the wish for a
tunnel), this reader accepts.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!\"$-~]+) HTTP/1\.([0-9])")
_FIELD_LINE: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t -~\x80-\xff]*)?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)(.*)", re.IGNORECASE)
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")

Field = tuple[bytes, bytes]


class MalformedError(Exception):
    """The bytes are no request, whatever follows them."""


@attrs.frozen
class Message:
    """
    One request.

    Attributes:
        framing: How its body is framed: «none», «length» or «chunks».
        fields: Names in lower case and values, in order.
        trailers: The same, of the fields behind a body in chunks.
        raw: Its bytes.
    """

    method: bytes
    target: bytes
    minor_version: int
    fields: tuple[Field, ...]
    framing: str
    body: bytes
    trailers: tuple[Field, ...]
    raw: bytes = attrs.field(repr=False)

    @property
    def path(self) -> bytes:
        """The target in origin-form (RFC 9112 section 3.2.1), however it was written."""
        absolute = _ABSOLUTE.fullmatch(self.target)
        if absolute is None:
            return self.target
        if not absolute[2] and self.method == b"OPTIONS":
            return b"*"
        return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]

    @property
    def host(self) -> bytes:
        """Whom it is for (RFC 9112 section 3.3): the authority of the target, else Host, in lower case."""
        absolute = _ABSOLUTE.fullmatch(self.target)
        return (absolute[1] if absolute else b"".join(v for name, v in self.fields if name == b"host")).lower()


def read_one(data: bytes) -> Message | None:
    """
    Read the request that *data* begins with.

    Returns:
        The request, or None while it is not complete.

    Raises:
        MalformedError: It is none.
    """
    start = 0
    while data.startswith(b"\r\n", start):  # RFC 9112 section 2.2: empty lines before a request line are ignored
        start += 2
    end = data.find(b"\r\n\r\n", start)
    if _BARE_LINE_END.search(data, start, end if end >= 0 else len(data)):
        raise MalformedError("a line of the head ends in a bare CR or LF")
    if end < 0:
        return None
    first, *lines = data[start:end].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise MalformedError(f"request line {first[:80]!r}")
    fields = _fields(lines)
    minor_version = int(line[3])
    _check_host(fields, minor_version)
    body = _body(data, end + 4, fields, minor_version)
    if body is None:
        return None
    framing, payload, trailers, stop = body
    return Message(line[1], line[2], minor_version, fields, framing, payload, trailers, data[:stop])


def read_all(data: bytes) -> list[Message]:
    """Read requests until *data* ends, or one of them is malformed or not complete."""
    messages: list[Message] = []
    while data:
        try:
            message = read_one(data)
        except MalformedError:
            break
        if message is None:
            break
        messages.append(message)
        data = data[len(message.raw) :]
    return messages


def _fields(lines: list[bytes]) -> tuple[Field, ...]:
    matches = [_FIELD_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise MalformedError(f"field line {lines[matches.index(None)][:80]!r}")
    return tuple((match[1].lower(), match[2]) for match in matches if match is not None)


def _check_host(fields: tuple[Field, ...], minor_version: int) -> None:
    """RFC 9112 section 3.2: exactly one Host; in HTTP/1.0 at most one."""
    count = sum(name == b"host" for name, _ in fields)
    if count > 1 or (not count and minor_version):
        raise MalformedError(f"{count} Host fields")


def _body(
    data: bytes, start: int, fields: tuple[Field, ...], minor_version: int
) -> tuple[str, bytes, tuple[Field, ...], int] | None:
    """Return framing, payload, trailers and where the message ends (RFC 9112 section 6.3); None: not complete."""
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if codings:
        if codings != [b"chunked"] or lengths or not minor_version:
            raise MalformedError(f"transfer codings {codings}, lengths {lengths}, HTTP/1.{minor_version}")
        return _chunks(data, start)
    if not lengths:
        return "none", b"", (), start
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]):
        raise MalformedError(f"lengths {lengths}")
    stop = start + int(lengths[0])
    return ("length", data[start:stop], (), stop) if len(data) >= stop else None


def _chunks(data: bytes, start: int) -> tuple[str, bytes, tuple[Field, ...], int] | None:
    """RFC 9112 section 7.1."""
    payload = b""
    while True:
        end = data.find(b"\r\n", start)
        line = data[start:] if end < 0 else data[start:end]
        match = _CHUNK_LINE.fullmatch(line)
        if match is None and (end >= 0 or _BARE_LINE_END.search(line)):
            raise MalformedError(f"chunk size {line[:80]!r}")
        if match is None or end < 0:
            return None
        start = end + 2
        size = int(match[1], 16)
        if not size:
            break
        payload += data[start : start + size]
        if not b"\r\n".startswith(data[start + size : start + size + 2]):
            raise MalformedError("a chunk that does not end where its size says")
        start += size + 2
    trailers = _trailers(data, start)
    return None if trailers is None else ("chunks", payload, *trailers)


def _trailers(data: bytes, start: int) -> tuple[tuple[Field, ...], int] | None:
    """RFC 9112 section 7.1.2."""
    if data.startswith(b"\r\n", start):
        return (), start + 2
    end = data.find(b"\r\n\r\n", start)
    if _BARE_LINE_END.search(data, start, end if end >= 0 else len(data)):
        raise MalformedError("a line of the trailers ends in a bare CR or LF")
    return None if end < 0 else (_fields(data[start:end].split(b"\r\n")), end + 4)
