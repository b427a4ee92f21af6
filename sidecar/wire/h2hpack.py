"""
Header blocks of HTTP/2 to fields and back (RFC 7541), with the `hpack` library behind the reading side.

Reading: what a block may cost is known before it is decoded. `hpack` copies the rest of the block for every literal in
it, and takes as many table size updates as it is sent; so a look over the block comes first, which expands nothing.

Writing is our own, since `hpack` looks through its whole table for every field, puts every field into it (cookies too)
and lets the peer say how large it gets. Here a field line enters the table when it is sent for the second time, if
there is room, and is never evicted: so an index is a subtraction, and what differs in every response costs nothing.
"""

from __future__ import annotations

from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Http2Limits

Field = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096
"""Of the dynamic table, either way: SETTINGS_HEADER_TABLE_SIZE as it is unless told otherwise."""

_FIELD_OVERHEAD: Final = 32  # RFC 7541 section 4.1
_STATIC_FIELDS: Final = 61

MAX_SIZE_UPDATES: Final = 2
"""RFC 7541 section 4.2: the smallest size since the last block, and the last one, are all that a block can tell."""

_SURELY_CHEAP_BYTES: Final = 128
"""Blocks up to this length are not looked over: whatever is in them, decoding costs less than a request does."""


# -- reading ----------------------------------------------------------------------------------------------------


class BlockDecoder:
    """
    The reading side of a connection's compression. Every block must be decoded, also that of a refused request.

    Attributes:
        changes: Blocks that have changed the table: between two equal values, equal blocks mean equal fields.
    """

    __slots__ = ("_decoder", "_max_fields", "_table_state", "changes")

    def __init__(self, limits: Http2Limits) -> None:
        self._decoder = Decoder(limits.hard_header_list_bytes)
        self._max_fields = limits.hard_fields
        self._table_state = self._look_at_table()
        self.changes = 0

    def decode(self, block: bytes) -> list[Field]:
        """
        Return the fields of *block*, a whole header block, in order; names and values are unchecked.

        Raises:
            ConnectionFault: The block is broken, or costs too much. The table is of no use any more.
        """
        try:
            if len(block) > _SURELY_CHEAP_BYTES:
                _look_over(block, self._max_fields)
            fields: list[Field] = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                "header_bomb",
                f"a header block expands to more than {self._decoder.max_header_list_size:,} bytes",
            ) from None
        except (HPACKError, IndexError):  # IndexError: a block that ends where a string should begin
            raise _broken() from None
        newest, count, size = self._look_at_table()
        if newest is not self._table_state[0] or (count, size) != self._table_state[1:]:
            self._table_state = newest, count, size
            self.changes += 1
        return fields

    def _look_at_table(self) -> tuple[Field | None, int, int]:
        """
        Return what no change leaves as it is: every entry that comes is another object, whatever it says, and entries
        that go make fewer of them.
        """
        entries = self._decoder.header_table.dynamic_entries
        return (entries[0] if entries else None), len(entries), self._decoder.header_table_size


def _look_over(block: bytes, max_fields: int) -> None:
    """
    Go over the representations in *block* (RFC 7541 section 6) without expanding anything.

    Raises:
        ConnectionFault: There are too many fields or size updates.
        IndexError: It ends in the middle of one.
    """
    at, size, fields, updates = 0, len(block), 0, 0
    while at < size:
        first = block[at]
        if first & 0x80:  # indexed
            _, at = _integer(block, at, 0x7F)
        elif first & 0x60 == 0x20:  # table size update
            updates += 1
            if updates > MAX_SIZE_UPDATES:
                raise ConnectionFault(
                    Code.ENHANCE_YOUR_CALM,
                    "table_size_flood",
                    f"a header block has over {MAX_SIZE_UPDATES} table size updates",
                )
            _, at = _integer(block, at, 0x1F)
            continue
        else:  # literal, with indexing (6 bits of index) or without (4)
            index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
            for _ in range(1 if index else 2):
                length, at = _integer(block, at, 0x7F)
                at += length
        fields += 1
        if fields > max_fields:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM, "header_bomb", f"a header block has over {max_fields:,} fields"
            )


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Read an integer (RFC 7541 section 5.1); return it with the position behind it."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in (0, 7, 14, 21):
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise _broken()


def _broken() -> ConnectionFault:
    return ConnectionFault(Code.COMPRESSION_ERROR, "bad_header_block", "a header block cannot be decompressed")


# -- writing ----------------------------------------------------------------------------------------------------

_STATIC_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_STATIC_STATUS: Final = {
    int(value): index for index, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1) if name == b":status"
}

_STATIC_FIELD: Final = {field: index for index, field in enumerate(HeaderTable.STATIC_TABLE, 1)}

# RFC 7541 section 7.1.3: nobody, also behind the peer, may put these where their size can be probed.
_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie", b"www-authenticate"})

# Seldom twice the same: in the table they would be in the way.
_FLEETING: Final = frozenset(
    {b"age", b"content-length", b"content-range", b"date", b"etag", b"expires", b"last-modified", b"location"}
)

_MAX_SEEN: Final = 128
"""Lines that may be waiting to be sent for the second time."""

_MAX_SEEN_BYTES: Final = 256
"""Longer lines never enter the table: sixteen of them would fill it."""


class FieldEncoder:
    """
    The writing side of a connection's compression.

    The blocks must be sent in the order in which they are made.

    Attributes:
        changes: Of its state so far: between two equal values, the same fields make the same block.
    """

    __slots__ = ("_entries", "_is_size_due", "_left", "_limit", "_seen", "changes")

    def __init__(self) -> None:
        self._entries: dict[Field, int] = {}  # -> the how manieth to enter the table
        self._limit = self._left = TABLE_BYTES
        self._is_size_due = False
        self.changes = 0
        self._seen: set[int] = set()  # hashes of lines that were sent once; a wrong one costs a place in the table

    def set_table_bytes(self, size: int) -> None:
        """
        The peer allows a table of *size* bytes (SETTINGS_HEADER_TABLE_SIZE).

        We use no more than `TABLE_BYTES`, whatever it allows: it is our memory too.
        """
        limit = min(size, TABLE_BYTES)
        if limit == self._limit:
            return
        self._limit = self._left = limit
        self._entries.clear()
        self._is_size_due = True
        self.changes += 1

    def status(self, status: int) -> bytes:
        """Return the beginning of a response's header block: its :status."""
        index = _STATIC_STATUS.get(status)
        start = self._size_updates() if self._is_size_due else b""
        return start + (bytes((0x80 | index,)) if index else b"\x08\x03%d" % status)

    def request(self, method: bytes, authority: bytes, path: bytes) -> bytes:
        """Return the beginning of a request's header block: its pseudo-fields; no :authority if that is empty."""
        pieces = [self._size_updates()] if self._is_size_due else []
        pieces.append(self._pseudo((b":method", method)))
        pieces.append(self._pseudo((b":scheme", b"http")))
        if authority:
            pieces.append(self._pseudo((b":authority", authority)))
        # A query is seldom twice the same, and may hold a secret.
        pieces.append(_literal((b":path", path), 0x00, 0x0F) if b"?" in path else self._pseudo((b":path", path)))
        return b"".join(pieces)

    def _pseudo(self, field: Field) -> bytes:
        index = _STATIC_FIELD.get(field)
        return self.fields([field]) if index is None else bytes((0x80 | index,))

    def fields(self, fields: list[Field]) -> bytes:
        """Return *fields*, with names in lower case, as a header block, or the rest of one."""
        pieces = [self._size_updates()] if self._is_size_due else []
        entries = self._entries
        for field in fields:
            entry = entries.get(field)
            if entry is None:
                pieces.append(self._literal(field))
            else:
                index = _STATIC_FIELDS + len(entries) - entry
                pieces.append(bytes((0x80 | index,)) if index < 0x7F else _prefixed(index, 0x7F, 0x80))
        return b"".join(pieces)

    def _literal(self, field: Field) -> bytes:
        name, value = field
        if name in _SECRET:
            return _literal(field, 0x10, 0x0F)
        size = len(name) + len(value) + _FIELD_OVERHEAD
        if name in _FLEETING or size > min(self._left, _MAX_SEEN_BYTES) or not self._is_seen(field):
            return _literal(field, 0x00, 0x0F)
        self.changes += 1
        self._left -= size
        self._entries[field] = len(self._entries)
        return _literal(field, 0x40, 0x3F)

    def _is_seen(self, field: Field) -> bool:
        """Whether *field* was sent before; from now on it was."""
        key = hash(field)
        if key in self._seen:
            return True
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(key)
        self.changes += 1
        return False

    def _size_updates(self) -> bytes:
        """Empty the peer's table, then give it the size that it may have from now on (RFC 7541 section 4.2)."""
        self._is_size_due = False
        self.changes += 1
        return b"\x20" + _prefixed(self._limit, 0x1F, 0x20) if self._limit else b"\x20"


def _literal(field: Field, flags: int, mask: int) -> bytes:
    name, value = field
    index = _STATIC_NAMES.get(name)
    if index is not None:
        return _prefixed(index, mask, flags) + _string(value)
    return bytes((flags,)) + _string(name) + _string(value)


def _string(data: bytes) -> bytes:
    # Not Huffman: in pure Python it costs more than the fifth of the bytes that it saves is worth.
    return _prefixed(len(data), 0x7F, 0) + data


def _prefixed(value: int, mask: int, flags: int) -> bytes:
    """Write an integer (RFC 7541 section 5.1)."""
    if value < mask:
        return bytes((flags | value,))
    octets = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
