"""
Header blocks of HTTP/2 to fields and back (RFC 7541), with Huffman codes and the static table of the `hpack` library.

Reading: the limits hold while a block is read, so that nothing is expanded beyond them. The last strings of a
connection are remembered as they were decoded, which in Python is the larger part of the work.

Writing: a field line enters the table when it is sent for the second time, if there is room, and is never evicted: so
an index is a subtraction, what differs in every response costs nothing, and secrets never get there.
"""

from __future__ import annotations

from typing import Final

from hpack import HPACKError
from hpack.huffman_table import decode_huffman
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

# -- reading ----------------------------------------------------------------------------------------------------

_STATIC: Final[tuple[Field, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
"""By index, which begins with 1."""

MAX_REMEMBERED_STRINGS: Final = 16
_REMEMBERED_BYTES: Final = 64
"""Longer strings are not: with two tables of 4 KiB they would be most of what a connection holds."""


class BlockDecoder:
    """
    The reading side of a connection's compression. Every block must be decoded, also that of a refused request.

    Attributes:
        changes: Blocks that have changed the table: between two equal values, equal blocks mean equal fields.
    """

    __slots__ = ("_entries", "_left", "_max_bytes", "_max_fields", "_strings", "_table_bytes", "changes")

    def __init__(self, limits: Http2Limits) -> None:
        self._max_bytes = limits.hard_header_list_bytes
        self._max_fields = limits.hard_fields
        self._entries: list[Field] = []  # newest last
        self._strings: dict[bytes, bytes] = {}  # as they came -> decoded; of this connection, which may be secret
        self._table_bytes = self._left = TABLE_BYTES
        self.changes = 0

    def decode(self, block: bytes) -> list[Field]:
        """
        Return the fields of *block*, a whole header block, in order; names and values are unchecked.

        Raises:
            ConnectionFault: The block is broken, or costs too much. The table is of no use any more.
        """
        try:
            return self._decode(block)
        except (HPACKError, IndexError):  # IndexError: it ends in the middle of something, or names an empty place
            raise _broken() from None

    def _decode(self, block: bytes) -> list[Field]:
        fields: list[Field] = []
        at = self._size_updates(block)
        size, total, most = len(block), 0, self._max_bytes
        has_changed = at > 0
        while at < size:
            first = block[at]
            at += 1
            if first & 0x80:  # indexed, RFC 7541 section 6.1
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _long_integer(block, at, index)
                field = self._field(index)
            else:
                is_indexed = first & 0x40
                if first & 0x60 == 0x20:
                    raise _broken()  # section 4.2: the size of the table changes before all fields
                mask = 0x3F if is_indexed else 0x0F
                index = first & mask
                if index == mask:
                    index, at = _long_integer(block, at, mask)
                if index:
                    name = self._field(index)[0]
                else:
                    name, at = self._string(block, at)
                value, at = self._string(block, at)
                field = name, value
                if is_indexed:
                    self._add(field)
                    has_changed = True
            fields.append(field)
            total += len(field[0]) + len(field[1]) + _FIELD_OVERHEAD
            if total > most or len(fields) > self._max_fields:
                raise self._bomb()
        self.changes += has_changed
        return fields

    def _bomb(self) -> ConnectionFault:
        limits = f"{self._max_bytes:,} bytes or {self._max_fields:,} fields"
        return ConnectionFault(Code.ENHANCE_YOUR_CALM, "header_bomb", f"a header block expands to more than {limits}")

    def _field(self, index: int) -> Field:
        """RFC 7541 section 2.3.3; raises IndexError where there is none."""
        if index <= _STATIC_FIELDS:
            if not index:
                raise _broken()
            return _STATIC[index]
        return self._entries[_STATIC_FIELDS - index]

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        """Read a string (RFC 7541 section 5.2); return it with the position behind it."""
        first = block[at]
        at += 1
        length = first & 0x7F
        if length == 0x7F:
            length, at = _long_integer(block, at, length)
        end = at + length
        string = block[at:end]
        if len(string) < length:
            raise _broken()
        if first & 0x80:
            decoded = self._strings.get(string)
            string = self._decode_string(string) if decoded is None else decoded
        return string, end

    def _decode_string(self, string: bytes) -> bytes:
        decoded = decode_huffman(string)
        if len(string) <= _REMEMBERED_BYTES:
            strings = self._strings
            if len(strings) >= MAX_REMEMBERED_STRINGS:
                del strings[next(iter(strings))]
            strings[string] = decoded
        return decoded

    def _add(self, field: Field) -> None:
        """RFC 7541 section 4.4: the oldest make room; what is larger than the table empties it."""
        self._left -= len(field[0]) + len(field[1]) + _FIELD_OVERHEAD
        self._entries.append(field)
        if self._left < 0:
            self._evict()

    def _evict(self) -> None:
        gone = 0
        entries, left = self._entries, self._left
        while left < 0:
            name, value = entries[gone]
            left += len(name) + len(value) + _FIELD_OVERHEAD
            gone += 1
        del entries[:gone]
        self._left = left

    def _size_updates(self, block: bytes) -> int:
        """Take the changes of the table's size that a block begins with; return where they end."""
        at = updates = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = _long_integer(block, at, size)
            updates += 1
            if updates > MAX_SIZE_UPDATES:
                raise ConnectionFault(
                    Code.ENHANCE_YOUR_CALM,
                    "table_size_flood",
                    f"a header block has over {MAX_SIZE_UPDATES} table size updates",
                )
            if size > TABLE_BYTES:
                raise _broken()
            self._left += size - self._table_bytes
            self._table_bytes = size
            if self._left < 0:
                self._evict()
        return at


def _long_integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Read the rest of an integer (RFC 7541 section 5.1) that begins with *value*; return it with the position."""
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
