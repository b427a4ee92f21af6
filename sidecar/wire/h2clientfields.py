"""
The client role's fields of HTTP/2: requests from the lines of HTTP/1.1, and responses to the heads that all versions
share (RFC 9113 section 8). What holds for the fields of every message is in `wire.h2rules`.

Nobody behind this module can tell a response that came by HTTP/2: it has a reason phrase, and its framing in fields. A
response that is malformed by RFC 9113, or over a limit, raises `StreamFault`: such a message is no message.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from sidecar.wire.events import BodyKind, InterimHead, ResponseHead
from sidecar.wire.fields import Fields
from sidecar.wire.h2frames import Code, StreamFault
from sidecar.wire.h2hpack import Field, FieldEncoder
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2rules import (
    CONNECTION_SPECIFIC,
    FIELD_OVERHEAD,
    SectionReader,
    check_field,
    connection_specific,
    content_length,
    malformed,
    message_fields,
    split,
)

_PSEUDO_FIELDS: Final = frozenset({b":status"})

_STATUS: Final = re.compile(rb"[1-5][0-9][0-9]")

# RFC 9112 section 4: the blank behind the code is there even if the phrase is not.
_REASONS: Final = {status.value: b" " + status.phrase.encode() for status in HTTPStatus}
_NO_REASON: Final = b" "

_BODILESS: Final = frozenset({204, 304})


# -- responses --------------------------------------------------------------------------------------------------


class ResponseReader(SectionReader[ResponseHead]):
    """Reads the header blocks of one server's responses."""

    __slots__ = ()

    def response(self, block: bytes, is_whole: bool, method: bytes) -> ResponseHead | InterimHead:
        """
        Return the head of a response, or an interim one.

        Args:
            is_whole: Whether nothing follows.
            method: Of the request that is answered.

        Raises:
            ConnectionFault: The block cannot be decompressed, or must not.
            StreamFault: The response is malformed, or its head is over a limit.
        """
        key = block, is_whole, method
        head = self._heads.get(key)
        if head is not None:
            return head
        changes = self._changes
        made = response_head(self._decode(block), is_whole, method, self._limits)
        if self._changes == changes and isinstance(made, ResponseHead):
            self._remember(key, made, len(made.fields.section))
        return made


def response_head(
    fields: list[Field], is_whole: bool, method: bytes, limits: Http2Limits
) -> ResponseHead | InterimHead:
    """
    Make the head of a response of its *fields*, as they were sent.

    A head behind which nothing follows and that gives no length has a chunked body, which is empty: that is how a
    client of HTTP/1.1 learns of its end.

    Args:
        is_whole: Whether nothing follows.
        method: Of the request that is answered.

    Raises:
        StreamFault: It is malformed (RFC 9113 section 8.1.1), or over a limit.
    """
    pseudo, regular = split(fields, _PSEUDO_FIELDS)
    status = _status(pseudo.get(b":status", b""))
    _check_size(fields, limits)
    lengths = []
    for name, value in regular:
        check_field(name, value)
        if name in CONNECTION_SPECIFIC:
            raise connection_specific(name)
        if name == b"content-length":
            lengths.append(value)
    lines = b"".join([b"%b: %b\r\n" % field for field in regular])
    reason = _REASONS.get(status, _NO_REASON)
    if status < 200:
        if is_whole:
            raise malformed("bad_interim", f"an interim response ({status}) ends its stream")
        return InterimHead(status, reason, Fields(lines))
    body, length = _body(lengths, status, is_whole, method)
    if body is BodyKind.CHUNKED:
        lines += b"transfer-encoding: chunked\r\n"
    return ResponseHead(status, reason, 1, Fields(lines), body, length, (), True)


def _status(value: bytes) -> int:
    if not _STATUS.fullmatch(value):
        raise malformed("bad_status", "the response has no :status, or one that is not in 100 to 599")
    if value == b"101":
        # RFC 9113 section 8.6.
        raise malformed("bad_status", "the app switched to a protocol (101), which HTTP/2 has no way to do")
    return int(value)


def _check_size(fields: list[Field], limits: Http2Limits) -> None:
    count = len(fields) - 1  # :status is none
    if count > limits.fields:
        reason, message = "too_many_headers", f"response head has {count} fields, limit {limits.fields}"
        raise StreamFault(Code.ENHANCE_YOUR_CALM, reason, message)
    size = sum([len(name) + len(value) + FIELD_OVERHEAD for name, value in fields])
    if size > limits.header_list_bytes:
        message = f"the header list of the response is {size:,} bytes, limit {limits.header_list_bytes:,}"
        raise StreamFault(Code.ENHANCE_YOUR_CALM, "response_header_too_large", message)


def _body(lengths: list[bytes], status: int, is_whole: bool, method: bytes) -> tuple[BodyKind, int]:
    """As `framing.response_body` decides it, with the end of the stream for that of the connection."""
    length = content_length(lengths) if lengths else None
    if method == b"HEAD" or status in _BODILESS:
        return BodyKind.NONE, 0
    if length is None:
        return BodyKind.CHUNKED, 0
    if is_whole and length:
        raise malformed("bad_content_length", f"Content-Length is {length:,}, and the response has no body")
    return (BodyKind.LENGTH if length else BodyKind.NONE), length


# -- requests ---------------------------------------------------------------------------------------------------


class RequestWriter:
    """Writes the header blocks of requests to one server, which must be sent in the order in which they are made."""

    __slots__ = ("_encoder",)

    def __init__(self) -> None:
        self._encoder = FieldEncoder()

    def set_table_bytes(self, size: int) -> None:
        """The server sets the size of the table (SETTINGS_HEADER_TABLE_SIZE)."""
        self._encoder.set_table_bytes(size)

    def head(self, method: bytes, target: bytes, section: bytes) -> bytes:
        """
        Return the block of a request head.

        Args:
            target: In origin-form or asterisk-form.
            section: Field lines as for HTTP/1.1.
        """
        authority, fields = request_fields(section)
        return self._encoder.request(method, authority, target) + self._encoder.fields(fields)

    def trailers(self, section: bytes) -> bytes:
        """Return the block of a trailer section; b"" if nothing of it can be sent."""
        return self._encoder.fields(message_fields(section))


def request_fields(section: bytes) -> tuple[bytes, list[Field]]:
    """
    Return the fields of an HTTP/1.1 request's header *section* that passed its checks, as HTTP/2 has them.

    Returns:
        The authority that Host names, b"" if there is no Host, and the other fields; TE only if it allows trailers.
    """
    authority = b""
    fields: list[Field] = []
    for field in message_fields(section):
        name, value = field
        if name == b"host":
            authority = value
        elif name != b"te":
            fields.append(field)
        elif b"trailers" in [member.strip(b" \t") for member in value.lower().split(b",")]:
            fields.append((b"te", b"trailers"))
    return authority, fields
