"""
Where a body ends: choosing its framing, reading it, writing it (RFC 9112 sections 6 and 7).

Rules that hold here and nowhere else: a message with two framings has none we accept; a length is digits and stands
once; `chunked` stands alone; no tab stands around either, as parsers disagree whether it belongs to the value; a reader
never hands on a byte beyond what was framed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from sidecar.errors import ProtocolError, RequestError, ResponseError
from sidecar.wire import grammar
from sidecar.wire.events import BodyKind
from sidecar.wire.fields import Fields

MAX_CHUNK_LINE_BYTES: Final = 256
"""Chunk size and extensions. Extensions are dropped; nobody uses them but attackers."""


MAX_TRAILER_BYTES: Final = 8 * 1024
"""Trailer fields with the empty line after them."""

_FRAMING_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding"})


def request_body(fields: Fields, minor_version: int) -> tuple[BodyKind, int]:
    """
    Decide how the body of a request is framed (RFC 9112 section 6.3).

    Returns:
        Kind and, for LENGTH, the number of bytes. A request without framing fields has no body.

    Raises:
        RequestError: Both or repeated framing fields, a malformed length (400), or a coding other than chunked (501).
    """
    names = fields.names
    if _FRAMING_FIELDS.isdisjoint(names):
        return BodyKind.NONE, 0
    if b"transfer-encoding" in names:
        _check_transfer_encoding(fields, minor_version, RequestError)
        return BodyKind.CHUNKED, 0
    length = _content_length(fields, RequestError)
    return (BodyKind.LENGTH, length) if length else (BodyKind.NONE, 0)


def response_body(fields: Fields, status: int, request_method: bytes, minor_version: int) -> tuple[BodyKind, int]:
    """
    Decide how the body of a final response is framed (RFC 9112 section 6.3).

    Raises:
        ResponseError: Both or repeated framing fields, a malformed length or an unknown coding.
    """
    names = fields.names
    has_framing = not _FRAMING_FIELDS.isdisjoint(names)
    chunked = has_framing and b"transfer-encoding" in names
    if chunked:
        _check_transfer_encoding(fields, minor_version, ResponseError)
    length = _content_length(fields, ResponseError) if has_framing and not chunked else None
    # The fields of a response to HEAD and of a 304 describe the body that a GET would have had.
    if request_method == b"HEAD" or status in (204, 304) or status < 200:
        return BodyKind.NONE, 0
    if chunked:
        return BodyKind.CHUNKED, 0
    if length is None:
        return BodyKind.UNTIL_CLOSE, 0
    return (BodyKind.LENGTH, length) if length else (BodyKind.NONE, 0)


def announces_body(fields: Fields) -> bool:
    """Whether the fields of a response without a body speak of one all the same, as those of an answer to HEAD may."""
    names = fields.names
    if b"content-length" in names:
        return fields.first(b"content-length").strip(b" ") != b"0"
    return b"transfer-encoding" in names


def _check_transfer_encoding(fields: Fields, minor_version: int, error: type[ProtocolError]) -> None:
    if b"content-length" in fields.names:
        raise error("both_framings", "the message has both Content-Length and Transfer-Encoding")
    if minor_version == 0:
        raise error("framing_in_1_0", "an HTTP/1.0 message has Transfer-Encoding")
    value = fields.first(b"transfer-encoding").strip(b" ").lower()
    if value != b"chunked" or fields.names.count(b"transfer-encoding") != 1:
        # RFC 9112 section 6.1: a server that does not understand a coding answers 501.
        status = 501 if error is RequestError else None
        raise error("bad_transfer_encoding", "Transfer-Encoding is not exactly one «chunked»", status)


def _content_length(fields: Fields, error: type[ProtocolError]) -> int:
    count = fields.names.count(b"content-length")
    if count != 1:
        raise error("bad_content_length", f"Content-Length stands {count} times")
    value = fields.first(b"content-length").strip(b" ")
    if not grammar.CONTENT_LENGTH.fullmatch(value):
        raise error("bad_content_length", "Content-Length is not a number of at most 18 digits")
    return int(value)


# -- readers ----------------------------------------------------------------------------------------------------


class Reader(Protocol):
    """
    One body being read.

    Attributes:
        trailers: Set when a chunked body ended in trailer fields.
    """

    trailers: Fields | None

    def read(self, data: bytes) -> tuple[bytes, bytes | None]:
        """
        Take the next bytes of the connection.

        Returns:
            (payload, rest): body bytes found, and, once the body is complete, the bytes that follow it; `rest` is
            None while more is to come.

        Raises:
            ProtocolError: The framing is broken.
        """


class LengthReader:
    """A body of a known length (RFC 9112 section 6.2)."""

    __slots__ = ("remaining", "trailers")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.trailers: Fields | None = None

    def read(self, data: bytes) -> tuple[bytes, bytes | None]:
        size = len(data)
        remaining = self.remaining
        if size < remaining:
            self.remaining = remaining - size
            return data, None
        self.remaining = 0
        if size == remaining:
            return data, b""
        return data[:remaining], data[remaining:]


class UntilCloseReader:
    """A response body that ends with the connection (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ("trailers",)

    def __init__(self) -> None:
        self.trailers: Fields | None = None

    def read(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None


class ChunkedReader:
    """A chunked body (RFC 9112 section 7.1). Holds at most one unfinished line."""

    __slots__ = ("_error", "_line", "_remaining", "_step", "trailers")

    def __init__(self, error: type[ProtocolError]) -> None:
        """
        Args:
            error: RequestError or ResponseError: whose fault broken framing is.
        """
        self._error = error
        self._line = b""  # the unfinished line, or trailer section, so far
        self._remaining = 0  # bytes of the current chunk still to come
        # A plain function, not a bound method, which would be a reference cycle; None once the body is complete.
        self._step: _Step | None = ChunkedReader._size
        self.trailers: Fields | None = None

    def read(self, data: bytes) -> tuple[bytes, bytes | None]:
        payloads: list[bytes] = []
        position, size = 0, len(data)
        while position < size and (step := self._step) is not None:
            if step is ChunkedReader._size and not self._line:
                position = self._whole_chunks(data, position, payloads)
                if position == size:
                    break
            position = step(self, data, position, payloads)
        payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
        return payload, (data[position:] if self._step is None else None)

    @staticmethod
    def _whole_chunks(data: bytes, position: int, payloads: list[bytes]) -> int:
        """
        Take every chunk that has arrived whole and is in order; whatever else there is, the steps look at.

        A sender of one-byte chunks makes us do this 10,000 times for each 64 KiB.
        """
        match_line = grammar.CHUNK_LINE.match
        while (line := match_line(data, position)) is not None:
            start = line.end()
            size = int(line[1], 16)
            end = start + size
            if not size or start - position > MAX_CHUNK_LINE_BYTES or data[end : end + 2] != b"\r\n":
                break
            payloads.append(data[start:end])
            position = end + 2
        return position

    def _size(self, data: bytes, position: int, payloads: list[bytes]) -> int:
        """Read a chunk-size line."""
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE_BYTES + 1)
        line = self._line + data[position : end + 1 if end >= 0 else position + MAX_CHUNK_LINE_BYTES + 1]
        if len(line) > MAX_CHUNK_LINE_BYTES:
            raise self._error("bad_chunk", f"a chunk-size line is over {MAX_CHUNK_LINE_BYTES} bytes")
        if end < 0:
            self._line = line
            return len(data)
        self._line = b""
        match = grammar.CHUNK_LINE.fullmatch(line)
        if match is None:
            raise self._error("bad_chunk", "a chunk-size line is not hexadecimal digits, an extension and CRLF")
        self._remaining = int(match[1], 16)
        self._step = ChunkedReader._payload if self._remaining else ChunkedReader._trailer
        return end + 1

    def _payload(self, data: bytes, position: int, payloads: list[bytes]) -> int:
        piece = data[position : position + self._remaining]
        payloads.append(piece)
        self._remaining -= len(piece)
        if not self._remaining:
            self._step = ChunkedReader._after_payload
        return position + len(piece)

    def _after_payload(self, data: bytes, position: int, payloads: list[bytes]) -> int:
        """Read the CRLF that closes a chunk."""
        taken = data[position : position + 2 - len(self._line)]
        line = self._line + taken
        if line == b"\r\n":
            self._line = b""
            self._step = ChunkedReader._size
        elif line == b"\r":
            self._line = line
        else:
            raise self._error("bad_chunk", "a chunk does not end in CRLF where its size says")
        return position + len(taken)

    def _trailer(self, data: bytes, position: int, payloads: list[bytes]) -> int:
        """Read trailer fields and the empty line after them."""
        held = len(self._line)
        section = self._line + data[position : position + MAX_TRAILER_BYTES - held]
        # Search on where the last search stopped: a slow sender must not make each byte cost a look at all before it.
        last_line = 0 if section.startswith(b"\r\n") else section.find(b"\r\n\r\n", max(0, held - 3)) + 2
        complete = last_line != 1  # find() gave -1
        if not complete:
            # Refuse bare line ends at once: the empty line they pretend to be would never come.
            if grammar.BARE_CR_OR_LF.search(section, max(0, held - 1)):
                raise self._error("bad_trailer", "a trailer field holds a bare CR or LF")
            if len(section) == MAX_TRAILER_BYTES:
                raise self._error("trailers_too_large", f"the trailer section is over {MAX_TRAILER_BYTES:,} bytes")
            self._line = section
            return position + len(section) - held
        fields = section[:last_line]
        if not grammar.FIELD_SECTION.fullmatch(fields):
            raise self._error("bad_trailer", "a trailer field is malformed")
        self._line = b""
        self.trailers = Fields(fields) if fields else None
        self._step = None
        return position + last_line + 2 - held


_Step = Callable[[ChunkedReader, bytes, int, list[bytes]], int]


def reader_for(body: BodyKind, length: int, error: type[ProtocolError]) -> Reader | None:
    """Return the reader of a body, or None where there is no body."""
    if body is BodyKind.NONE:
        return None
    if body is BodyKind.LENGTH:
        return LengthReader(length)
    if body is BodyKind.CHUNKED:
        return ChunkedReader(error)
    return UntilCloseReader()


# -- writing ----------------------------------------------------------------------------------------------------


def chunk(payload: bytes) -> bytes:
    """Frame a piece of body, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last_chunk(trailers: bytes) -> bytes:
    """Frame the end of a chunked body; *trailers* are field lines with their CRLF, or empty."""
    return b"0\r\n%b\r\n" % trailers
