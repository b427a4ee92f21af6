"""
HTTP/2 frames as they lie in the bytes (RFC 9113 sections 3.4 and 4.1): finding them, and writing the small ones.

Nothing of a frame is kept before its length is known to be allowed; what is kept is at most one unfinished frame.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

from sidecar.errors import RequestError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

MAX_FRAME_BYTES: Final = 16_384
"""Payload of a frame, either way: the least that SETTINGS_MAX_FRAME_SIZE can be, and one TLS record."""

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8

MAX_STREAM_ID: Final = 2**31 - 1

_HEAD: Final = struct.Struct("!HBBBL")  # length in two parts, type, flags, stream


class Code(enum.IntEnum):
    """Why a stream or connection ends (RFC 9113 section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})
_SIZES: Final = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


class StreamFault(RequestError):  # noqa: N818 - what the RFC calls a stream error
    """
    The peer broke a rule on one stream, which ends in RST_STREAM; its connection goes on (RFC 9113 section 5.4.2).

    Attributes:
        code: For RST_STREAM.
    """

    def __init__(self, code: Code, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.code = code


class ConnectionFault(RequestError):  # noqa: N818 - what the RFC calls a connection error
    """
    The peer broke a rule after which nothing on its connection can be trusted (RFC 9113 section 5.4.1), or a limit.

    Attributes:
        code: For GOAWAY.
        status: 400, or 502 if the peer is the app.
    """

    def __init__(self, code: Code, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Serialise a frame; *payload* is at most `MAX_FRAME_BYTES` long."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Serialise the head of a frame whose payload has *size* bytes."""
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Serialise RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_update(stream_id: int, increment: int) -> bytes:
    """Serialise WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def settings(pairs: list[tuple[int, int]]) -> bytes:
    """Serialise SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join([struct.pack("!HL", *pair) for pair in pairs]))


def goaway(last_stream_id: int, code: int, reason: str = "") -> bytes:
    """Serialise GOAWAY; *reason* is its debug data, for people."""
    return frame(GOAWAY, 0, 0, struct.pack("!LL", last_stream_id, code) + reason.encode())


def protocol_error(reason: str, message: str) -> ConnectionFault:
    """Return the most frequent fault of a connection."""
    return ConnectionFault(Code.PROTOCOL_ERROR, reason, message)


def bad_size(kind: int, size: int) -> ConnectionFault:
    """Return the fault of a frame whose payload has a *size* that its type cannot have."""
    return ConnectionFault(Code.FRAME_SIZE_ERROR, "frame_size", f"a frame of type {kind} has {size:,} bytes")


def check_shape(kind: int, stream_id: int, size: int) -> None:
    """
    Check what a frame of a known *kind* must be, wherever it comes (RFC 9113 section 6).

    Raises:
        ConnectionFault: It is for a stream that it cannot be for, or has a size that it cannot have. For PRIORITY,
            whose size is a matter of its stream, the caller looks.
    """
    if kind in _OF_CONNECTION:
        is_misplaced = stream_id != 0
    else:  # clients open odd streams only, and servers none that we have allowed
        is_misplaced = not stream_id & 1 and (kind != WINDOW_UPDATE if stream_id == 0 else kind != PRIORITY)
    if is_misplaced:
        raise protocol_error("bad_stream_id", f"a frame of type {kind} on stream {stream_id}")
    if (kind in _SIZES and size != _SIZES[kind]) or (kind == GOAWAY and size < 8) or (kind == SETTINGS and size % 6):
        raise bad_size(kind, size)


def without_frills(flags: int, payload: bytes) -> tuple[bytes, int, int]:
    """
    Take padding and priority off a payload (RFC 9113 sections 6.1 and 6.2).

    Returns:
        The payload without the padding, where its content begins, and the stream that it depends on, or -1.
    """
    start = (1 if flags & PADDED else 0) + (5 if flags & HAS_PRIORITY else 0)
    if len(payload) < start:
        raise bad_size(HEADERS if flags & HAS_PRIORITY else DATA, len(payload))
    padding = payload[0] if flags & PADDED else 0
    if padding > len(payload) - start:
        raise protocol_error("bad_padding", f"{padding} bytes of padding in a payload of {len(payload):,}")
    depends_on = -1
    if flags & HAS_PRIORITY:
        depends_on = int.from_bytes(payload[start - 5 : start - 1], "big") & MAX_STREAM_ID
    return payload[: len(payload) - padding], start, depends_on


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """
    Return the settings in a payload of whole settings, known or not, in order (RFC 9113 section 6.5.2).

    Raises:
        ConnectionFault: One has a value that it cannot have.
    """
    pairs: list[tuple[int, int]] = list(struct.iter_unpack("!HL", payload))
    for name, value in pairs:
        if name in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise protocol_error("bad_setting", f"setting {name} is {value:,}, neither 0 nor 1")
        if name == INITIAL_WINDOW_SIZE and value > MAX_STREAM_ID:
            message = f"the initial window is {value:,}, limit {MAX_STREAM_ID:,}"
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "bad_setting", message)
        if name == MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 2**24:
            raise protocol_error("bad_setting", f"the longest frame is {value:,}, which is not in 2^14 to 2^24-1")
    return pairs


class FrameReader:
    """
    Finds the preface, if there is to be one, and then frames in what arrives, in whatever pieces.

    Attributes:
        has_preface: Whether the whole preface has arrived, or none is to come.
    """

    __slots__ = ("_begun", "_have", "_need", "_pieces", "has_preface")

    def __init__(self, *, begins_with_preface: bool = True) -> None:
        self._begun: tuple[int, int, int] | None = None  # type, flags and stream of the frame whose payload is coming
        self._pieces: list[bytes] = []  # joined only when there is enough: a slow sender costs no copies
        self._have = 0
        self._need = len(PREFACE) if begins_with_preface else 9  # of the preface, the head of a frame, or its payload
        self.has_preface = not begins_with_preface

    @property
    def is_between_frames(self) -> bool:
        """Whether no part of an unfinished frame, or preface, is held."""
        return not self._have and self._begun is None

    def frames(self, data: bytes) -> Iterator[Frame]:
        """
        Yield every frame that *data* completes.

        Raises:
            ConnectionFault: What arrives is no preface, or a frame is too long.
        """
        if not self.has_preface:
            self._check_preface(data)
        if self._have + len(data) < self._need:
            self._keep(data)
            return
        at = 0
        if self._begun is not None:
            # Only what belongs to it is copied together: reads end inside frames more often than not.
            at = self._need - self._have
            frame = *self._begun, self._take(data[:at])
            self._begun = None
            yield frame
        elif self._have:
            data = self._take(data)
        if not self.has_preface:
            self.has_preface = True
            at = len(PREFACE)
        size = len(data)
        while size - at >= 9:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_FRAME_BYTES:
                # RFC 9113 section 4.2. Before any of its payload is kept.
                raise ConnectionFault(
                    Code.FRAME_SIZE_ERROR,
                    "frame_too_large",
                    f"a frame is {length:,} bytes, limit {MAX_FRAME_BYTES:,}",
                )
            at += 9
            end = at + length
            if end > size:
                self._begun = kind, flags, stream_id & MAX_STREAM_ID
                self._need = length
                break
            yield kind, flags, stream_id & MAX_STREAM_ID, data[at:end]
            at = end
        else:
            self._need = 9
        if at < size:
            self._keep(data[at:])

    def _take(self, rest: bytes) -> bytes:
        """Return what is held with *rest* behind it, and hold nothing."""
        whole = b"".join((*self._pieces, rest))
        self._pieces.clear()
        self._have = 0
        return whole

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._have += len(data)

    def _check_preface(self, data: bytes) -> None:
        """Refuse the first byte that is none of the preface: of HTTP/1.1 and noise nothing is kept."""
        expected = PREFACE[self._have :]
        if data[: len(expected)] != expected[: len(data)]:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "bad_preface", "the connection does not begin with the HTTP/2 preface"
            )
