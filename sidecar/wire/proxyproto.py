"""
The PROXY protocol, versions 1 and 2 (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt): what a balancer
says about the connection that it relays, ahead of the first byte of it.

`parse` reads what a connection begins with; `encode_v1` and `encode_v2` write what ours begin with. Who may be believed
is not known here: whoever can send a header can be anybody.

Rules that hold here:

- A verdict on some bytes stays the same whatever comes behind them, and is given at the last byte that it needs.
- Without a verdict there are fewer than `MAX_HEADER_BYTES`, and looking at them once more costs the same however many
  there are: nothing is decoded before all is there. So a peer that sends byte by byte gains nothing.
- An IPv4 address within an IPv6 one (``::ffff:192.0.2.1``) is given as the IPv4 address: one client, one name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs

from sidecar.errors import ProxyHeaderError
from sidecar.values import Value

MAX_LINE_BYTES: Final = 107
"""Of a header of version 1 with its CRLF (section 2.1: the longest there can be)."""

MAX_HEADER_BYTES: Final = 4096
"""
Of a whole header of version 2, which could be 65,551. Network Load Balancers send fewer than 200 bytes, HAProxy with
all its options fewer than 600; this leaves room for a client certificate, which some proxies add.
"""

MAX_TLVS: Final = 64
"""In a header, or inside the TLV about TLS. There are 16 types, and nobody sends more than a dozen."""

MAX_TEXT_BYTES: Final = 255
"""Of a name: the longest that DNS has, and more than any protocol, version or cipher takes."""

MAX_UNIQUE_ID_BYTES: Final = 128
"""Section 2.2.5."""

_V1_SIGNATURE: Final = b"PROXY "
_V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES: Final = 16

UNKNOWN_V1: Final = _V1_SIGNATURE + b"UNKNOWN\r\n"
"""A header that says nothing about a relayed connection: its client has no IP address."""

LOCAL_V2: Final = _V2_SIGNATURE + b"\x20\0\0\0"
"""
The same in version 2; also what our own connections begin with, such as health checks. In version 1 they take
`encode_v1` with their own two addresses, since some apps refuse `UNKNOWN_V1` (section 2.1).
"""

# Section 2.1: no leading zeros; IPv6 in groups of hexadecimal digits. Deviation: an IPv4 address within an IPv6 one may
# have dots, as the C library writes it, and so HAProxy on a socket for both families.
_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = _OCTET + rb"(?:\." + _OCTET + rb"){3}"
_IPV4_TEXT: Final = re.compile(_IPV4)
_IPV6_TEXT: Final = re.compile(rb"[0-9A-Fa-f:]{2,39}|::[Ff]{4}:" + _IPV4)
_PORT_TEXT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_PROXIED_LINE: Final = re.compile(rb"PROXY (TCP4|TCP6) ([^ \r\n]+) ([^ \r\n]+) ([^ \r\n]+) ([^ \r\n]+)\r\n")

# Section 2.1: whatever stands behind UNKNOWN is ignored. A CR or LF alone is not: others may end the line there.
_UNKNOWN_LINE: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*+)?\r\n")

_LOCAL: Final = 0
_PROXY: Final = 1

_TCP4: Final = 0x11
_TCP6: Final = 0x21

# Section 2.2, the 14th byte: family and protocol -> bytes of the addresses. Datagrams are none of ours, and what the
# section does not expect is refused. HAProxy writes 0x01 for a connection without addresses.
_ADDRESS_BYTES: Final = {0x00: 0, 0x01: 0, _TCP4: 12, _TCP6: 36, 0x31: 216}
_DATAGRAMS: Final = frozenset({0x02, 0x12, 0x22, 0x32})

_MAX_QUOTED: Final = 45

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"

_CRC32C_POLYNOMIAL: Final = 0x82F63B78  # RFC 4960 appendix B, reflected


Tlv = tuple[int, bytes]
"""Type and value of one of the things that may stand behind the addresses of a header of version 2."""


class TlvType(enum.IntEnum):
    """Types that mean something here (section 2.2)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    AWS = 0xEA


# Two readers could take different ones of them.
_ONCE: Final = frozenset({TlvType.ALPN, TlvType.AUTHORITY, TlvType.CRC32C, TlvType.UNIQUE_ID, TlvType.SSL})
_ONCE_IN_SSL: Final = frozenset({TlvType.SSL_VERSION, TlvType.SSL_CN, TlvType.SSL_CIPHER})

_SSL_FIXED_BYTES: Final = 5
_CLIENT_SSL: Final = 0x01
_CLIENT_CERT_CONN: Final = 0x02
_CLIENT_CERT_SESS: Final = 0x04

_AWS_VPC_ENDPOINT_ID: Final = b"\x01"


@attrs.frozen(eq=False, repr=False)
class SocketAddress(Value):
    """
    One end of a TCP connection.

    Attributes:
        host: IPv4 or IPv6 address; one that was parsed is in its shortest form.
    """

    host: str
    port: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SslFacts(Value):
    """
    What is known of the client's TLS (section 2.2.6).

    Attributes:
        is_tls: Whether the client uses TLS at all.
        has_certificate: Whether it showed a certificate on this connection.
        had_certificate: Whether it did so at least once in the session that this connection belongs to.
        verify: What came of verifying it: 0 if it was shown and is good. Some balancers say 0 of no certificate, too.
        version: Of TLS, e.g. ``TLSv1.3``.
        common_name: Of the subject of its certificate.
        cipher: OpenSSL's name of it.
    """

    is_tls: bool = True
    has_certificate: bool = False
    had_certificate: bool = False
    verify: int = 0
    version: str = ""
    common_name: str = ""
    cipher: str = ""

    @property
    def is_verified(self) -> bool:
        """Whether there was a certificate, and it is good."""
        return (self.has_certificate or self.had_certificate) and self.verify == 0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProxyHeader(Value):
    """
    What a header says. Names in it are often a client's choice, so what is not fit to be shown is left out.

    Attributes:
        version: 1 or 2.
        is_local: Whether the balancer speaks for itself, as its health checks do.
        source: The client; None if it is not known, or has no IP address: then the real peer is to be taken for it.
        destination: Where the client connected to; None as above.
        tlvs: (type, value) as they came, without padding and checksum.
    """

    version: int
    is_local: bool = False
    source: SocketAddress | None = None
    destination: SocketAddress | None = None
    tlvs: tuple[Tlv, ...] = attrs.field(default=(), repr=False)

    @property
    def authority(self) -> str:
        """The host name that the client asked for, with TLS by SNI; empty if there is none."""
        return _word(self._value(TlvType.AUTHORITY))

    @property
    def alpn(self) -> bytes:
        """The protocol that the client agreed on; empty if there is none."""
        value = self._value(TlvType.ALPN)
        return value if len(value) <= MAX_TEXT_BYTES else b""

    @property
    def unique_id(self) -> bytes:
        """The balancer's name of the connection, any bytes; empty if there is none."""
        value = self._value(TlvType.UNIQUE_ID)
        return value if len(value) <= MAX_UNIQUE_ID_BYTES else b""

    @property
    def vpc_endpoint_id(self) -> str:
        """The endpoint of AWS PrivateLink that the client came through, e.g. ``vpce-0123``; empty if there is none."""
        for kind, value in self.tlvs:
            if kind == TlvType.AWS and value.startswith(_AWS_VPC_ENDPOINT_ID):
                return _word(value[len(_AWS_VPC_ENDPOINT_ID) :])
        return ""

    @property
    def ssl(self) -> SslFacts | None:
        """What the balancer knows of the client's TLS; None if it does not say."""
        value = self._value(TlvType.SSL)
        return _read_ssl(value) if value else None

    def _value(self, wanted: TlvType) -> bytes:
        return next((value for kind, value in self.tlvs if kind == wanted), b"")


@attrs.frozen(eq=False, repr=False)
class Parsed(Value):
    """
    Attributes:
        size: Bytes that the header takes; what is behind them belongs to the connection.
    """

    header: ProxyHeader
    size: int


class Unparsed(enum.Enum):
    """Why there is no header."""

    INCOMPLETE = "incomplete"  # it takes more bytes to tell
    ABSENT = "absent"  # what is there cannot be the beginning of one


# -- reading ----------------------------------------------------------------------------------------------------


def begins(data: bytes) -> bool | None:
    """
    Tell whether *data*, the first bytes of a connection, begins with the signature of a header, valid or not.

    Returns:
        None if it takes more bytes to tell.
    """
    for signature in (_V1_SIGNATURE, _V2_SIGNATURE):
        if data.startswith(signature):
            return True
        if signature.startswith(data):
            return None
    return False


def parse(data: bytes) -> Parsed | Unparsed:
    """
    Read the header at the beginning of a connection.

    Args:
        data: All that has arrived so far.

    Raises:
        ProxyHeaderError: It is not valid, or over a limit.
    """
    has_begun = begins(data)
    if not has_begun:
        return Unparsed.INCOMPLETE if has_begun is None else Unparsed.ABSENT
    return _parse_v1(data) if data.startswith(_V1_SIGNATURE) else _parse_v2(data)


def _parse_v1(data: bytes) -> Parsed | Unparsed:
    size = data.find(b"\n", 0, MAX_LINE_BYTES) + 1
    if not size:
        if len(data) < MAX_LINE_BYTES:
            return Unparsed.INCOMPLETE
        raise ProxyHeaderError("line_too_long", f"the line does not end within {MAX_LINE_BYTES} bytes")
    line = data[:size]
    if _UNKNOWN_LINE.fullmatch(line):
        return Parsed(ProxyHeader(version=1), size)
    match = _PROXIED_LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError(
            "bad_line", "the line is neither «PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT» nor «PROXY UNKNOWN»"
        )
    family, source, destination, source_port, destination_port = match.groups()
    header = ProxyHeader(
        version=1,
        source=SocketAddress(_read_host("source", family, source), _read_port("source", source_port)),
        destination=SocketAddress(
            _read_host("destination", family, destination), _read_port("destination", destination_port)
        ),
    )
    return Parsed(header, size)


def _read_host(role: str, family: bytes, text: bytes) -> str:
    try:
        if family == b"TCP4" and _IPV4_TEXT.fullmatch(text):
            return _host(IPv4Address(text.decode()).packed)
        if family == b"TCP6" and _IPV6_TEXT.fullmatch(text):
            return _host(IPv6Address(text.decode()).packed)
    except ValueError:
        pass  # right characters, wrong number of groups
    raise ProxyHeaderError("bad_address", f"the {role} {_quoted(text)} is not an address of {family.decode()}")


def _read_port(role: str, text: bytes) -> int:
    if _PORT_TEXT.fullmatch(text) and int(text) <= 0xFFFF:
        return int(text)
    raise ProxyHeaderError("bad_port", f"the {role} port {_quoted(text)} is not a number from 0 to 65535")


def _parse_v2(data: bytes) -> Parsed | Unparsed:
    if len(data) < _FIXED_BYTES:
        return Unparsed.INCOMPLETE
    size = _FIXED_BYTES + int.from_bytes(data[14:16], "big")
    version, command = divmod(data[12], 16)
    if version != 2:
        raise ProxyHeaderError("bad_version", f"a binary header of version {version}, which must be 2")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("bad_command", f"the command is {command}, which must be 0 (LOCAL) or 1 (PROXY)")
    if command == _PROXY:
        _check_protocol(data[13], size)
    if size > MAX_HEADER_BYTES:
        raise ProxyHeaderError("header_too_large", f"the header is {size:,} bytes, limit {MAX_HEADER_BYTES:,}")
    if len(data) < size:
        return Unparsed.INCOMPLETE
    # Section 2.2: whatever a LOCAL header holds is discarded, unread.
    header = _read_proxied(data[:size]) if command == _PROXY else ProxyHeader(version=2, is_local=True)
    return Parsed(header, size)


def _check_protocol(protocol: int, size: int) -> None:
    if protocol in _DATAGRAMS:
        raise ProxyHeaderError("bad_protocol", f"the protocol is 0x{protocol:02x}, datagrams; only streams are served")
    needed = _ADDRESS_BYTES.get(protocol)
    if needed is None:
        raise ProxyHeaderError("bad_protocol", f"the family and protocol 0x{protocol:02x} do not exist")
    if size - _FIXED_BYTES < needed:
        raise ProxyHeaderError(
            "bad_length", f"{size - _FIXED_BYTES} bytes for addresses that take {needed} (family 0x{protocol:02x})"
        )


def _read_proxied(header: bytes) -> ProxyHeader:
    protocol, at = header[13], _FIXED_BYTES
    source = destination = None
    if protocol in (_TCP4, _TCP6):
        middle, ports = (at + 4, at + 8) if protocol == _TCP4 else (at + 16, at + 32)
        source = SocketAddress(_host(header[at:middle]), int.from_bytes(header[ports : ports + 2], "big"))
        destination = SocketAddress(_host(header[middle:ports]), int.from_bytes(header[ports + 2 : ports + 4], "big"))
    tlvs = []
    for kind, start, end in _split(header, at + _ADDRESS_BYTES[protocol], _ONCE):
        value = header[start:end]
        if kind == TlvType.CRC32C:
            _check_checksum(header, start, end)
        elif kind != TlvType.NOOP:
            tlvs.append((kind, value))
        if kind == TlvType.SSL:
            _read_ssl(value)
    return ProxyHeader(version=2, source=source, destination=destination, tlvs=tuple(tlvs))


def _split(data: bytes, at: int, once: frozenset[TlvType]) -> Iterator[tuple[int, int, int]]:
    """Find type, start and end of each value in *data* from *at* on; types in *once* may not come twice."""
    seen: list[int] = []
    while at < len(data):
        if len(seen) == MAX_TLVS:
            raise ProxyHeaderError("too_many_tlvs", f"more than {MAX_TLVS} TLVs")
        start = at + 3
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if end > len(data):
            raise ProxyHeaderError("bad_tlv", f"the TLV of type 0x{data[at]:02x} goes beyond the end")
        kind = data[at]
        if kind in once and kind in seen:
            raise ProxyHeaderError("repeated_tlv", f"the TLV of type 0x{kind:02x} comes twice")
        seen.append(kind)
        yield kind, start, end
        at = end


def _read_ssl(value: bytes) -> SslFacts:
    if len(value) < _SSL_FIXED_BYTES:
        raise ProxyHeaderError("bad_tlv", f"the TLV about TLS has {len(value)} bytes, at least {_SSL_FIXED_BYTES}")
    parts = {kind: value[start:end] for kind, start, end in _split(value, _SSL_FIXED_BYTES, _ONCE_IN_SSL)}
    return SslFacts(
        is_tls=bool(value[0] & _CLIENT_SSL),
        has_certificate=bool(value[0] & _CLIENT_CERT_CONN),
        had_certificate=bool(value[0] & _CLIENT_CERT_SESS),
        verify=int.from_bytes(value[1:_SSL_FIXED_BYTES], "big"),
        version=_text(parts.get(TlvType.SSL_VERSION, b"")),
        common_name=_text(parts.get(TlvType.SSL_CN, b"")),
        cipher=_text(parts.get(TlvType.SSL_CIPHER, b"")),
    )


def _check_checksum(header: bytes, start: int, end: int) -> None:
    """Section 2.2.3: it is that of the whole header with the checksum itself all zeros."""
    if end - start != 4:
        raise ProxyHeaderError("bad_tlv", f"the checksum has {end - start} bytes, which must be 4")
    found = int.from_bytes(header[start:end], "big")
    computed = _crc32c(header[:start] + bytes(4) + header[end:])
    if found != computed:
        raise ProxyHeaderError("bad_checksum", f"the checksum is 0x{found:08x}, that of the bytes is 0x{computed:08x}")


def _crc32c(data: bytes) -> int:
    checksum = 0xFFFFFFFF
    for octet in data:
        checksum = _CRC32C[(checksum ^ octet) & 0xFF] ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


def _crc32c_of_octet(octet: int) -> int:
    for _ in range(8):
        octet = (octet >> 1) ^ (_CRC32C_POLYNOMIAL if octet & 1 else 0)
    return octet


_CRC32C: Final = tuple(map(_crc32c_of_octet, range(256)))


def _host(packed: bytes) -> str:
    packed = packed.removeprefix(_MAPPED)
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _text(value: bytes) -> str:
    """Decode a name; empty if it is too long, or has anything but printable characters of UTF-8."""
    if len(value) > MAX_TEXT_BYTES:
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _word(value: bytes) -> str:
    """The same for names without blanks."""
    text = _text(value)
    return text if " " not in text else ""


def _quoted(text: bytes) -> str:
    return repr(text[:_MAX_QUOTED].decode("ascii", "backslashreplace"))


# -- writing ----------------------------------------------------------------------------------------------------


def encode_v1(source: SocketAddress | None, destination: SocketAddress | None) -> bytes:
    """
    Write a header of version 1.

    Args:
        source, destination: Of the connection that is relayed, as IP addresses; an interface behind one
            (``fe80::1%eth0``) is left out. If they are of two families, both become IPv6. None if there are none.
    """
    if source is None or destination is None:
        return UNKNOWN_V1
    first, second = _packed_pair(source, destination)
    family = "TCP4" if len(first) == 4 else "TCP6"
    line = f"{family} {_written(first)} {_written(second)} {source.port} {destination.port}\r\n"
    return _V1_SIGNATURE + line.encode()


def encode_v2(source: SocketAddress | None, destination: SocketAddress | None, tlvs: tuple[Tlv, ...] = ()) -> bytes:
    """
    Write a header of version 2.

    Args:
        source, destination: As in `encode_v1`. Without them the header is `LOCAL_V2`, which everybody has to accept: a
            relayed connection of no family may be refused (section 2.2), and HAProxy does refuse it.
        tlvs: From `make_tlvs`, or such as were parsed.
    """
    if source is None or destination is None:
        return LOCAL_V2
    first, second = _packed_pair(source, destination)
    protocol = _TCP4 if len(first) == 4 else _TCP6
    ports = source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    body = first + second + ports + _join(tlvs)
    return _V2_SIGNATURE + bytes((0x20 | _PROXY, protocol)) + len(body).to_bytes(2, "big") + body


def make_tlvs(
    *, alpn: bytes = b"", authority: str = "", unique_id: bytes = b"", ssl: SslFacts | None = None
) -> tuple[Tlv, ...]:
    """
    Make the TLVs for `encode_v2` of what there is to say.

    What is longer than its limit, or not fit to be shown, is left out and not shortened: it is a client's choice, and
    half a name may be somebody else's.
    """
    tlvs = [
        (TlvType.ALPN, alpn if len(alpn) <= MAX_TEXT_BYTES else b""),
        (TlvType.AUTHORITY, _word(authority.encode(errors="surrogatepass")).encode()),
        (TlvType.UNIQUE_ID, unique_id if len(unique_id) <= MAX_UNIQUE_ID_BYTES else b""),
        (TlvType.SSL, b"" if ssl is None else _ssl_value(ssl)),
    ]
    return tuple((kind.value, value) for kind, value in tlvs if value)


def _ssl_value(facts: SslFacts) -> bytes:
    flags = (
        (_CLIENT_SSL if facts.is_tls else 0)
        | (_CLIENT_CERT_CONN if facts.has_certificate else 0)
        | (_CLIENT_CERT_SESS if facts.had_certificate else 0)
    )
    texts = (
        (TlvType.SSL_VERSION, facts.version),
        (TlvType.SSL_CN, facts.common_name),
        (TlvType.SSL_CIPHER, facts.cipher),
    )
    parts = [(kind.value, _text(text.encode(errors="surrogatepass")).encode()) for kind, text in texts]
    return bytes((flags,)) + facts.verify.to_bytes(4, "big") + _join(tuple(part for part in parts if part[1]))


def _join(tlvs: tuple[Tlv, ...]) -> bytes:
    return b"".join(bytes((kind,)) + len(value).to_bytes(2, "big") + value for kind, value in tlvs)


def _packed_pair(source: SocketAddress, destination: SocketAddress) -> tuple[bytes, bytes]:
    first, second = (ip_address(end.host).packed.removeprefix(_MAPPED) for end in (source, destination))
    if len(first) == len(second):
        return first, second
    # A header has one family. HAProxy does the same.
    return (first, _MAPPED + second) if len(second) == 4 else (_MAPPED + first, second)


def _written(packed: bytes) -> str:
    """Section 2.1 has no dots in IPv6; whether Python writes them depends on its version."""
    if packed.startswith(_MAPPED):
        return f"::ffff:{packed[12:14].hex().lstrip('0') or '0'}:{packed[14:].hex().lstrip('0') or '0'}"
    return _host(packed)
