"""
Changes to messages that know what messages are made of: lines, numbers, line ends, fields.

Everything is drawn from one `random.Random`, so that a seed gives the same inputs again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from tests.fuzz.http2 import change_frames
from tests.fuzz.inputs import FrameInput, HeaderInput, RequestInput, ResponseInput
from tests.support.proxyheaders import SIGNATURE, checksum

MAX_DATA_BYTES: Final = 96 * 1024
"""Half as much again as the largest limit on anything that is held."""

_LONG_BYTES: Final = 4096
"""Longer inputs cost so much that they are bred from seldom."""

_MOST_CHANGES: Final = 4

_COMMANDS: Final = (0x20, 0x21, 0x21, 0x21, 0x22, 0x11)
_FAMILIES: Final = (*(0x00, 0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22), *(0x30, 0x31, 0x32, 0x41, 0xFF))

_FIXED_BYTES: Final = 16
"""Of a binary PROXY header, with its length at the end."""

_AWKWARD: Final = (
    *(b"\r", b"\n", b"\0", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b" ", b"\t", b":", b",", b";", b"="),
    *(b"\x0b", b"\x0c", b"\x1b", b"\x7f", b"\x80", b"\x85", b"\xa0", b"\xff", b'"', b"\\", b"@", b"#", b"%", b"_"),
)

_FRAGMENTS: Final = (
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:6\r\n", b"Content_Length: 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:CHUNKED\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Transfer_Encoding: chunked\r\n", b"Trailer: X-Sum\r\n", b"TE: trailers\r\n", b"Expect: 100-continue\r\n"),
    *(b"Host: a\r\n", b"Host: b:80\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
    *(b"Connection: content-length, host\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Upgrade: x\r\n"),
    *(
        b"X-Forwarded-For: 6.6.6.6\r\n",
        b"X_Request_Id: 1\r\n",
        b"X: y\r\n",
        b"X:\r\n",
        b"Set-Cookie: a=b\r\n",
        b"Keep-Alive: timeout=5\r\n",
    ),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n", b"0\r\nX-Sum: 1\r\n\r\n", b"0\r\nContent-Length: 3\r\n\r\n"),
    *(b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b" HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"http://a", b"*"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"),
    *(b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 304 X\r\n", b"HTTP/1.1 103 X\r\nLink: a\r\n\r\n"),
)

_NUMBERS: Final = (
    *(b"0", b"00", b"1", b"5", b"6", b"05", b"+5", b"-1", b"0x5", b"5,5", b"1_0", b"a", b"A", b"ff", b"255", b"256"),
    *(b"101", b"100", b"199", b"204", b"304", b"599", b"600", b"65535", b"65536", b"8192", b"16384"),
    *(b"999999999999999999", b"9999999999999999999", b"fffffffffffffff", b"ffffffffffffffff", b"18446744073709551616"),
)

_FLOODS: Final = (b"a", b" ", b"\r\n", b"X: y\r\n", b"X: %b\r\n" % (b"y" * 500), b"1\r\na\r\n", b";a", b"0", b"/")

_NUMBER: Final = re.compile(rb"[0-9]+|(?<=\r\n)[0-9A-Fa-f]+(?=[;\r])")

_METHODS: Final = (b"GET", b"GET", b"HEAD", b"POST")
_OFFERS: Final[tuple[tuple[bytes, ...], ...]] = ((), (), (b"websocket",), (b"websocket", b"x"))

_Change = Callable[["Mutator", bytes], bytes]


@attrs.define
class Mutator:
    """Breeds inputs from others."""

    chance: random.Random
    _others: Sequence[RequestInput] = ()

    def child(self, parent: RequestInput, corpus: Sequence[RequestInput]) -> RequestInput:
        """Return a changed copy of *parent*; parts of it may come from others in the *corpus*."""
        self._others = corpus
        data = parent.data
        for _ in range(self.chance.randint(1, _MOST_CHANGES)):
            if isinstance(parent, FrameInput):
                data = change_frames(self.chance, data, self.chance.choice(corpus).data)[:MAX_DATA_BYTES]
            else:
                data = self.chance.choice(_CHANGES)(self, data)[:MAX_DATA_BYTES]
        child = attrs.evolve(
            parent,
            data=data,
            cuts=self._cuts(data),
            has_small_limits=self.chance.random() < 0.5,
            is_hasty=self.chance.random() < 0.5,
        )
        if isinstance(child, ResponseInput):
            return self._other_exchange(child)
        if isinstance(child, HeaderInput):
            return self._other_header(child)
        return child

    def choose(self, corpus: Sequence[RequestInput]) -> RequestInput:
        """Choose a parent: any, but seldom a long one."""
        for _ in range(4):
            parent = self.chance.choice(corpus)
            if len(parent.data) <= _LONG_BYTES:
                break
        return parent

    def _other_exchange(self, child: ResponseInput) -> ResponseInput:
        if self.chance.random() < 0.7:
            return child
        minor_version = self.chance.choice((0, 1, 1))
        return attrs.evolve(
            child,
            method=self.chance.choice(_METHODS),
            minor_version=minor_version,
            offered=self.chance.choice(_OFFERS) if minor_version else (),  # RFC 9110 section 7.8
            is_closed=self.chance.random() < 0.5,
        )

    def _other_header(self, child: HeaderInput) -> HeaderInput:
        """
        Another listener, and numbers that fit again, mostly: a change in a binary header would otherwise seldom be
        refused for anything but its length.
        """
        data = child.data
        if data.startswith(SIGNATURE) and len(data) >= _FIXED_BYTES:
            if self.chance.random() < 0.7:
                length = min(len(data), _LONG_BYTES) - _FIXED_BYTES - self.chance.choice((0, 0, 0, 1, 12))
                data = data[:14] + max(0, length).to_bytes(2, "big") + data[_FIXED_BYTES:]
            if self.chance.random() < 0.2:
                data = data[:12] + bytes((self.chance.choice(_COMMANDS), self.chance.choice(_FAMILIES))) + data[14:]
            if self.chance.random() < 0.7:
                data = _with_checksum(data)
        return attrs.evolve(
            child,
            data=data,
            is_required=self.chance.random() < 0.5,
            is_trusted=self.chance.random() < 0.9,
        )

    def _cuts(self, data: bytes) -> tuple[int, ...]:
        """Cut anywhere, or about line ends, where parsers have most to remember."""
        cuts: list[int] = []
        for _ in range(self.chance.choice((0, 1, 1, 2, 3, 8))):
            place, where = self._place(data), self.chance.random()
            if where < 0.3:
                place = data.find(b"\r\n", place) + self.chance.randint(0, 3)
            elif where < 0.6:
                place = data.find(b"\r\n\r\n", place) + 4
            cuts.append(place)
        return tuple(sorted(set(cuts)))

    def _place(self, data: bytes) -> int:
        return self.chance.randint(0, len(data))

    def _slice(self, data: bytes) -> tuple[int, int]:
        start = self._place(data)
        return start, min(len(data), start + self.chance.choice((1, 2, 8, 64, len(data))))

    def _number_in(self, data: bytes) -> re.Match[bytes] | None:
        """Find a number at a random place, or else the first one."""
        return _NUMBER.search(data, self._place(data)) or _NUMBER.search(data)


def _with_checksum(data: bytes) -> bytes:
    """Make what looks like a checksum right."""
    end = _FIXED_BYTES + int.from_bytes(data[14:_FIXED_BYTES], "big")
    header, at = data[:end], data.find(b"\x03\0\x04", _FIXED_BYTES, end) + 3
    if at < _FIXED_BYTES or at + 4 > end:
        return data
    value = checksum(header[:at] + bytes(4) + header[at + 4 :])
    return data[:at] + value.to_bytes(4, "big") + data[at + 4 :]


def _insert_awkward(mutator: Mutator, data: bytes) -> bytes:
    at = mutator._place(data)
    return data[:at] + mutator.chance.choice(_AWKWARD) + data[at:]


def _insert_line_end_trouble(mutator: Mutator, data: bytes) -> bytes:
    """Put something awkward beside a line end, or in its place."""
    at = data.find(b"\r\n", mutator._place(data))
    if at < 0:
        return data
    taken = mutator.chance.choice((0, 1, 2))
    return data[: at + mutator.chance.randint(0, 2)] + mutator.chance.choice(_AWKWARD) + data[at + taken :]


def _insert_fragment(mutator: Mutator, data: bytes) -> bytes:
    """Put a fragment where a line begins, mostly."""
    at = mutator._place(data)
    if mutator.chance.random() < 0.8:
        at = data.find(b"\r\n", at) + 2 if data.find(b"\r\n", at) >= 0 else 0
    return data[:at] + mutator.chance.choice(_FRAGMENTS) + data[at:]


def _change_byte(mutator: Mutator, data: bytes) -> bytes:
    at = mutator._place(data)
    return data[:at] + bytes([mutator.chance.randrange(256)]) + data[at + 1 :]


def _change_number(mutator: Mutator, data: bytes) -> bytes:
    """Another number, or one that differs by one, or in one digit."""
    found = mutator._number_in(data)
    if found is None:
        return data
    number, kind = found[0], mutator.chance.randrange(4)
    if kind == 0:
        changed = mutator.chance.choice(_NUMBERS)
    elif kind == 1 and number.isdigit():
        changed = b"%d" % max(0, int(number[:18]) + mutator.chance.choice((-1, 1)))
    elif kind == 2:
        changed = number[::-1]
    else:
        changed = mutator.chance.choice((b"0", b" ", b"+", b"\t")) + number
    return data[: found.start()] + changed + data[found.end() :]


def _change_case(mutator: Mutator, data: bytes) -> bytes:
    start, end = mutator._slice(data)
    return data[:start] + data[start:end].swapcase() + data[end:]


def _change_lines(mutator: Mutator, data: bytes) -> bytes:
    """Repeat, drop or swap lines."""
    lines = data.split(b"\r\n")
    first, second = mutator.chance.randrange(len(lines)), mutator.chance.randrange(len(lines))
    kind = mutator.chance.randrange(3)
    if kind == 0:
        lines.insert(second, lines[first])
    elif kind == 1:
        del lines[first]
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"\r\n".join(lines)


def _drop_slice(mutator: Mutator, data: bytes) -> bytes:
    start, end = mutator._slice(data)
    return data[:start] + data[end:]


def _repeat_slice(mutator: Mutator, data: bytes) -> bytes:
    start, end = mutator._slice(data)
    return data[:end] + data[start:end] * mutator.chance.choice((1, 1, 2, 12)) + data[end:]


def _flood(mutator: Mutator, data: bytes) -> bytes:
    """Seldom, since it costs most: so much of something that it is longer than anything that may be held."""
    if mutator.chance.random() > 0.05:
        return data
    at = data.find(b"\r\n", mutator._place(data)) + mutator.chance.choice((0, 2))
    piece = mutator.chance.choice(_FLOODS)
    return data[:at] + piece * (MAX_DATA_BYTES // len(piece)) + data[at:]


def _cut_short(mutator: Mutator, data: bytes) -> bytes:
    return data[: mutator._place(data)]


def _splice(mutator: Mutator, data: bytes) -> bytes:
    """Go on as another one does, from where one of its lines begins or from anywhere."""
    other = mutator.choose(mutator._others).data
    at, other_at = mutator._place(data), mutator._place(other)
    if mutator.chance.random() < 0.6:
        at, other_at = data.find(b"\r\n", at) + 2, other.find(b"\r\n", other_at) + 2
    return data[:at] + other[other_at:]


def _append(mutator: Mutator, data: bytes) -> bytes:
    """Put another one behind, or the same again, as a client that pipelines does."""
    return data + (data if mutator.chance.random() < 0.5 else mutator.choose(mutator._others).data)


_CHANGES: Final[tuple[_Change, ...]] = (
    _insert_awkward,
    _insert_line_end_trouble,
    _insert_fragment,
    _insert_fragment,
    _change_byte,
    _change_number,
    _change_number,
    _change_case,
    _change_lines,
    _change_lines,
    _drop_slice,
    _repeat_slice,
    _flood,
    _cut_short,
    _splice,
    _append,
)
