"""
What a client offered, read from the first message of its handshake (RFC 8446 section 4.1.2, RFC 6066 section 3).

Only for telling why a handshake failed: OpenSSL does not say. The bytes are a peer's, so whatever is odd ends the
reading; nothing is decided by them.
"""

from __future__ import annotations

from typing import Final

import attrs

MAX_HELLO_BYTES: Final = 16 * 1024
"""What is kept of a handshake for this. A ClientHello with post-quantum key shares takes about 1,800 bytes."""

_HANDSHAKE_RECORD: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43
_MAX_SHOWN: Final = 16

_VERSIONS: Final = {0x0300: "SSLv3", 0x0301: "TLSv1.0", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


@attrs.frozen
class ClientHello:
    """
    Attributes:
        server_name: The name asked for; None if there is none. Bytes outside ASCII are escaped.
        versions: What the client speaks, e.g. ``("TLSv1.3", "TLSv1.2")``; placeholders (RFC 8701) left out.
        alpn: Protocols it offers, escaped in the same way.
    """

    server_name: str | None
    versions: tuple[str, ...]
    alpn: tuple[str, ...]


def read_client_hello(data: bytes) -> ClientHello | None:
    """
    Read the ClientHello at the beginning of a connection.

    Args:
        data: The first bytes of the client, as many as there are.

    Returns:
        None if it is not whole, or none.
    """
    try:
        return _read_hello(_Cursor(_message(data)))
    except _Odd:
        return None


class _Odd(Exception):
    """The bytes are not what they should be, or end too early."""


class _Cursor:
    """Reads big-endian numbers and length-prefixed vectors (RFC 8446 section 3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _Odd
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """What stands behind a length of *size* bytes."""
        return self.take(self.number(size))


def _message(data: bytes) -> bytes:
    """The body of the ClientHello, which may be spread over several records."""
    records = _Cursor(data)
    message = b""
    while True:
        if records.number(1) != _HANDSHAKE_RECORD:
            raise _Odd
        records.take(2)  # legacy_record_version
        message += records.vector(2)
        if len(message) >= 4:
            if message[0] != _CLIENT_HELLO:
                raise _Odd
            length = int.from_bytes(message[1:4], "big")
            if len(message) >= 4 + length:
                return message[4 : 4 + length]


def _read_hello(hello: _Cursor) -> ClientHello:
    legacy_version = hello.number(2)
    hello.take(32)  # random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    extensions = _Cursor(hello.vector(2) if hello else b"")
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    versions = tuple(name for number, name in reversed(_VERSIONS.items()) if number <= legacy_version)
    while extensions:
        kind, body = extensions.number(2), _Cursor(extensions.vector(2))
        if kind == _SERVER_NAME:
            server_name = _host_name(_Cursor(body.vector(2)))
        elif kind == _ALPN:
            alpn = _protocols(_Cursor(body.vector(2)))
        elif kind == _SUPPORTED_VERSIONS:
            versions = _supported(body.vector(1))
    return ClientHello(server_name, versions, alpn)


def _host_name(names: _Cursor) -> str:
    names.take(1)  # name_type: host_name is the only one there is
    return _shown(names.vector(2))


def _protocols(names: _Cursor) -> tuple[str, ...]:
    found: list[str] = []
    while names and len(found) < _MAX_SHOWN:
        found.append(_shown(names.vector(1)))
    return tuple(found)


def _supported(versions: bytes) -> tuple[str, ...]:
    numbers = [int.from_bytes(versions[at : at + 2], "big") for at in range(0, len(versions) - 1, 2)]
    return tuple(_VERSIONS[number] for number in numbers if number in _VERSIONS)[:_MAX_SHOWN]


def _shown(data: bytes) -> str:
    return data[:255].decode("ascii", "backslashreplace")
