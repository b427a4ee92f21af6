"""
What holds for the fields of every HTTP/2 message, whoever sends it (RFC 9113 section 8).

A value can hold no CR, LF or NUL and a name no colon or blank when this has let them through, so what is written for an
HTTP/1.1 peer has as many lines as the message has fields.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from sidecar.wire import grammar
from sidecar.wire.fields import Fields
from sidecar.wire.h2frames import Code, StreamFault
from sidecar.wire.h2hpack import BlockDecoder, Field
from sidecar.wire.h2limits import Http2Limits

MAX_REMEMBERED_HEADS: Final = 8
"""Different heads that a peer may send over and over at little cost to us."""

MAX_REMEMBERED_BYTES: Final = 2048
"""Of each, compressed or not; as for HTTP/1.1."""

MAX_TRAILER_BYTES: Final = 8 * 1024
"""As for HTTP/1.1."""

FIELD_OVERHEAD: Final = 32
"""RFC 9113 section 6.5.2: what a field counts for in a header list beside its name and value."""

# RFC 9113 section 8.2.2. Upgrade is among them, though a peer could mean no harm by it.
CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)

# RFC 9113 section 8.2.1: names are tokens in lower case.
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")

# RFC 9113 section 8.2.1, and RFC 9110 section 5.5 beyond it: no control characters at all, no blanks around.
_VALUE: Final = re.compile(rb"(?![\t ])[\t\x20-\x7e\x80-\xff]*+(?<![\t ])")

_Head = TypeVar("_Head")


class SectionReader(Generic[_Head]):
    """
    Reads the header blocks that one peer sends.

    A block that leaves the table of the compression alone and comes again while nobody else changes it means the same
    message: it is neither decompressed nor checked again.
    """

    __slots__ = ("_decoder", "_heads", "_limits")

    def __init__(self, limits: Http2Limits) -> None:
        self._limits = limits
        self._decoder = BlockDecoder(limits)
        # Good while the table is as it is. By block, whether that is the whole message, and what else decides.
        self._heads: dict[tuple[bytes, bool, bytes], _Head] = {}

    def trailers(self, block: bytes) -> Fields | None:
        """
        Return the fields behind a body; None if there are none.

        Raises:
            ConnectionFault: The block cannot be decompressed, or must not.
            StreamFault: They are malformed or too many.
        """
        fields = self._decode(block)
        return trailer_fields(fields, self._limits) if fields else None

    def skip(self, block: bytes) -> None:
        """
        Take note of a block of which nobody wants to know.

        Raises:
            ConnectionFault: As for `trailers`.
        """
        self._decode(block)

    @property
    def _changes(self) -> int:
        return self._decoder.changes

    def _decode(self, block: bytes) -> list[Field]:
        changes = self._decoder.changes
        fields = self._decoder.decode(block)
        if self._decoder.changes != changes:
            self._heads.clear()
        return fields

    def _remember(self, key: tuple[bytes, bool, bytes], head: _Head, section_bytes: int) -> None:
        """Remember the head of a block that has changed nothing, unless it is long."""
        if max(len(key[0]), section_bytes) > MAX_REMEMBERED_BYTES:
            return
        if len(self._heads) >= MAX_REMEMBERED_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[key] = head


def split(fields: list[Field], known: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[Field]]:
    """
    Take the pseudo-fields off (RFC 9113 section 8.3): *known* ones, once each, before all others.

    Raises:
        StreamFault: They are otherwise.
    """
    pseudo: dict[bytes, bytes] = {}
    first_regular = len(fields)
    for index, (name, value) in enumerate(fields):
        if name[:1] != b":":
            first_regular = index
            break
        if name not in known:
            raise malformed("bad_pseudo_field", f"the message has the pseudo-field {quote(name)}")
        if name in pseudo:
            raise malformed("bad_pseudo_field", f"{quote(name)} stands more than once")
        pseudo[name] = value
    regular = fields[first_regular:]
    if any(name[:1] == b":" for name, _ in regular):
        raise malformed("bad_pseudo_field", "a pseudo-field stands behind a regular field")
    return pseudo, regular


def check_field(name: bytes, value: bytes) -> None:
    """
    Check a regular field, as it was sent.

    Raises:
        StreamFault: Its name or value has characters that it may not have.
    """
    if not _NAME.fullmatch(name):
        raise malformed("bad_header", f"the field name {quote(name)} has characters that a name may not have")
    if not _VALUE.fullmatch(value):
        raise malformed("bad_header", f"the value of {quote(name)} has a control character, or blanks around it")


def content_length(values: list[bytes]) -> int:
    """
    Return what all *values* of Content-Length, at least one, say.

    Raises:
        StreamFault: It is not one number.
    """
    if len(values) > 1 or not grammar.CONTENT_LENGTH.fullmatch(values[0]):
        raise malformed("bad_content_length", "Content-Length is not one number of at most 18 digits")
    return int(values[0])


def trailer_fields(fields: list[Field], limits: Http2Limits) -> Fields:
    """
    Make a trailer section.

    Raises:
        StreamFault: It is malformed, or over a limit: by then nobody can be answered any more.
    """
    size = sum(len(name) + len(value) + 4 for name, value in fields)
    if len(fields) > limits.fields or size > MAX_TRAILER_BYTES:
        raise StreamFault(
            Code.ENHANCE_YOUR_CALM,
            "trailers_too_large",
            f"the trailer section has {len(fields)} fields and {size:,} bytes, limits {limits.fields} and "
            f"{MAX_TRAILER_BYTES:,}",
        )
    for name, value in fields:
        if name[:1] == b":":
            raise malformed("bad_pseudo_field", "a trailer section has a pseudo-field")
        check_field(name, value)
        if name in CONNECTION_SPECIFIC:
            raise connection_specific(name)
    return Fields(b"".join([b"%b: %b\r\n" % field for field in fields]))


def message_fields(section: bytes) -> list[Field]:
    """Return the fields of an HTTP/1.1 header or trailer *section* that passed its checks, as HTTP/2 has them."""
    fields: list[Field] = []
    for line in section.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name and name not in CONNECTION_SPECIFIC:
            fields.append((name, value.strip(b" \t")))
    return fields


def malformed(reason: str, message: str) -> StreamFault:
    """Return the fault of a message that is none (RFC 9113 section 8.1.1)."""
    return StreamFault(Code.PROTOCOL_ERROR, reason, message)


def connection_specific(name: bytes) -> StreamFault:
    """Return the fault of a message with the field *name*, which is about a connection of HTTP/1.1."""
    return malformed("connection_field", f"the field {quote(name)} has no place in HTTP/2")


def quote(data: bytes) -> str:
    """Show at most 40 bytes of a name, escaped; values may be secret."""
    return repr(data[:40])[1:]
