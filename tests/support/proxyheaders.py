"""
Headers of the PROXY protocol as a table: what a connection begins with, and what reading it must give.

Rows that are said to be of HAProxy are what HAProxy 2.6 sent.
"""

from __future__ import annotations

from typing import Final

import attrs

from sidecar.wire.proxyproto import ProxyHeader, SocketAddress, Unparsed

MAX_HEADER_BYTES: Final = 4096
MAX_TLVS: Final = 64

SIGNATURE: Final = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"

HELLO: Final = bytes.fromhex("160301007b010000770303")
"""How a TLS client begins."""

HTTP: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

BEHIND: Final = (HELLO, HTTP, b"\r\n", b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\0\0\0")
"""What may come in the same segment as a header, and is no part of it."""


def checksum(data: bytes) -> int:
    """CRC32c, bit by bit as RFC 4960 appendix B has it, not reflected."""
    remainder = 0xFFFFFFFF
    for octet in data:
        remainder ^= int(f"{octet:08b}"[::-1], 2) << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x11EDC6F41 if remainder & 0x80000000 else 0)
    return int(f"{remainder ^ 0xFFFFFFFF:032b}"[::-1], 2)


def tlv(kind: int, value: bytes = b"") -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def v2(body: bytes, protocol: int = 0x11, command: int = 1, version: int = 2, length: int | None = None) -> bytes:
    """A header of version 2; its *length* is the right one unless it is given."""
    size = len(body) if length is None else length
    return SIGNATURE + bytes((version << 4 | command, protocol)) + size.to_bytes(2, "big") + body


def with_checksum(before: bytes, behind: bytes = b"", off_by: int = 0) -> bytes:
    """A header for IPv4 with *before*, its checksum and *behind*."""
    zeroed = v2(IPV4 + before + tlv(3, bytes(4)) + behind)
    at = 16 + len(IPV4) + len(before) + 3
    value = checksum(zeroed) ^ off_by
    return zeroed[:at] + value.to_bytes(4, "big") + zeroed[at + 4 :]


IPV4: Final = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + (56324).to_bytes(2, "big") + (443).to_bytes(2, "big")
IPV6: Final = bytes.fromhex("20010db800000000000000000000000120010db80000000000000000000000ffdc0401bb")
_MAPPED: Final = bytes.fromhex("00000000000000000000ffffc000020100000000000000000000ffffc6336402dc0401bb")
_MIXED: Final = bytes.fromhex("00000000000000000000ffffc000020120010db80000000000000000000000ffdc0401bb")
_UNIX: Final = b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")

SOURCE: Final = SocketAddress("192.0.2.1", 56324)
DESTINATION: Final = SocketAddress("198.51.100.2", 443)
SOURCE_6: Final = SocketAddress("2001:db8::1", 56324)
DESTINATION_6: Final = SocketAddress("2001:db8::ff", 443)

_BODIES: Final = (b"", IPV4, IPV6, _UNIX, b"")
"""By family; there is no fifth one."""

_SSL: Final = b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example")

_HAPROXY_TLS: Final = (
    SIGNATURE
    + b"!\x11\x00\x87\x7f\x00\x00\x01\x7f\x00\x00\x01\xae\x9cS\x9c\x03\x00\x04\x1a\r\xc9\xcd\x01\x00\x02h2\x02\x00\x0c"
    + b'shop.example\x05\x00\nid-26123-8 \x00P\x07\x00\x00\x00\x00!\x00\x07TLSv1.3"\x00\x0eclient.example%\x00\x07'
    + b"RSA2048$\x00\nRSA-SHA256#\x00\x16TLS_AES_256_GCM_SHA384"
)
_HAPROXY_SSL_VALUE: Final = _HAPROXY_TLS[-80:]


@attrs.frozen
class HeaderCase:
    """
    Attributes:
        expected: The header; or the reason why it is refused; or why there is none.
    """

    id: str
    data: bytes
    expected: ProxyHeader | str | Unparsed


def _v1(source: SocketAddress, destination: SocketAddress) -> ProxyHeader:
    return ProxyHeader(version=1, source=source, destination=destination)


def _over_ipv4(*tlvs: tuple[int, bytes]) -> ProxyHeader:
    return ProxyHeader(version=2, source=SOURCE, destination=DESTINATION, tlvs=tlvs)


def _at(host: str, port: int) -> SocketAddress:
    return SocketAddress(host, port)


_FULL_GROUPS: Final = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
_NOTHING_V1: Final = ProxyHeader(version=1)
_NOTHING_V2: Final = ProxyHeader(version=2)
_LOCAL: Final = ProxyHeader(version=2, is_local=True)

VALID: Final = (
    HeaderCase("v1 IPv4", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", _v1(SOURCE, DESTINATION)),
    HeaderCase("v1 IPv6", b"PROXY TCP6 2001:db8::1 2001:DB8::ff 56324 443\r\n", _v1(SOURCE_6, DESTINATION_6)),
    HeaderCase(
        "v1 IPv6 in full",
        b"PROXY TCP6 2001:0db8:0:0:0:0:0:1 2001:db8:0::ff 56324 443\r\n",
        _v1(SOURCE_6, DESTINATION_6),
    ),
    HeaderCase(
        "v1 longest IPv4",
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        _v1(_at("255.255.255.255", 65535), _at("255.255.255.255", 65535)),
    ),
    HeaderCase(
        "v1 longest IPv6",
        f"PROXY TCP6 {_FULL_GROUPS} {_FULL_GROUPS} 65535 65535\r\n".encode(),
        _v1(_at(_FULL_GROUPS, 65535), _at(_FULL_GROUPS, 65535)),
    ),
    HeaderCase("v1 zeros", b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", _v1(_at("0.0.0.0", 0), _at("0.0.0.0", 0))),
    HeaderCase("v1 shortest IPv6", b"PROXY TCP6 :: ::1 1 2\r\n", _v1(_at("::", 1), _at("::1", 2))),
    HeaderCase(
        "v1 of HAProxy on a socket for both families",
        b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 38680 21402\r\n",
        _v1(_at("127.0.0.1", 38680), _at("127.0.0.1", 21402)),
    ),
    HeaderCase(
        "v1 IPv4 in IPv6 as groups",
        b"PROXY TCP6 ::FFFF:7f00:1 ::1 1 2\r\n",
        _v1(_at("127.0.0.1", 1), _at("::1", 2)),
    ),
    HeaderCase("v1 unknown", b"PROXY UNKNOWN\r\n", _NOTHING_V1),
    HeaderCase("v1 unknown with addresses", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", _NOTHING_V1),
    HeaderCase("v1 unknown with anything", b"PROXY UNKNOWN  \0\xff\x1b TCP4\r\n", _NOTHING_V1),
    HeaderCase("v1 unknown at the limit", b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", _NOTHING_V1),
    HeaderCase("v2 IPv4", v2(IPV4), _over_ipv4()),
    HeaderCase("v2 IPv6", v2(IPV6, 0x21), ProxyHeader(version=2, source=SOURCE_6, destination=DESTINATION_6)),
    HeaderCase("v2 IPv4 in IPv6", v2(_MAPPED, 0x21), _over_ipv4()),
    HeaderCase("v2 of both families", v2(_MIXED, 0x21), attrs.evolve(_over_ipv4(), destination=DESTINATION_6)),
    HeaderCase("v2 unspecified", v2(b"", 0x00), _NOTHING_V2),
    HeaderCase(
        "v2 unspecified stream with TLVs", v2(tlv(5, b"id"), 0x01), attrs.evolve(_NOTHING_V2, tlvs=((5, b"id"),))
    ),
    HeaderCase("v2 Unix socket", v2(_UNIX, 0x31), _NOTHING_V2),
    HeaderCase(
        "v2 Unix socket with TLVs", v2(_UNIX + tlv(5, b"id"), 0x31), attrs.evolve(_NOTHING_V2, tlvs=((5, b"id"),))
    ),
    HeaderCase("v2 local", v2(b"", 0x00, command=0), _LOCAL),
    HeaderCase("v2 local with addresses", v2(IPV4, 0x11, command=0), _LOCAL),
    HeaderCase("v2 local of no known family", v2(b"\xff" * 50, 0xF7, command=0), _LOCAL),
    HeaderCase("v2 local with datagrams", v2(IPV4, 0x12, command=0), _LOCAL),
    HeaderCase(
        "v2 local of HAProxy on a Unix socket",
        SIGNATURE + b" \x00\x00\x12\x03\x00\x04\x95^j\x00\x05\x00\x00 \x00\x05\x00\x00\x00\x00\x00",
        _LOCAL,
    ),
    HeaderCase("v2 unknown TLVs", v2(IPV4 + tlv(0xEE, b"x") + tlv(0)), _over_ipv4((0xEE, b"x"), (0, b""))),
    HeaderCase("v2 unknown TLV twice", v2(IPV4 + tlv(0xEE, b"x") * 2), _over_ipv4((0xEE, b"x"), (0xEE, b"x"))),
    HeaderCase("v2 padding", v2(IPV4 + tlv(4, b"\xff" * 9) + tlv(4) + tlv(1, b"h2")), _over_ipv4((1, b"h2"))),
    HeaderCase(
        "v2 of AWS PrivateLink",
        v2(IPV4 + tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9")),
        _over_ipv4((0xEA, b"\x01vpce-08d2bf15fac5001c9")),
    ),
    HeaderCase("v2 checksum alone", with_checksum(b""), _over_ipv4()),
    HeaderCase("v2 checksum amid TLVs", with_checksum(tlv(1, b"h2"), tlv(4)), _over_ipv4((1, b"h2"))),
    HeaderCase("v2 TLS", v2(IPV4 + tlv(0x20, _SSL)), _over_ipv4((0x20, _SSL))),
    HeaderCase(
        "v2 of HAProxy with all options",
        _HAPROXY_TLS,
        ProxyHeader(
            version=2,
            source=_at("127.0.0.1", 44700),
            destination=_at("127.0.0.1", 21404),
            tlvs=((1, b"h2"), (2, b"shop.example"), (5, b"id-26123-8"), (0x20, _HAPROXY_SSL_VALUE)),
        ),
    ),
    HeaderCase("v2 as many TLVs as may be", v2(IPV4 + tlv(0xE0) * MAX_TLVS), _over_ipv4(*[(0xE0, b"")] * MAX_TLVS)),
    HeaderCase(
        "v2 as long as may be",
        v2(IPV4 + tlv(0xE0, bytes(MAX_HEADER_BYTES - 31))),
        _over_ipv4((0xE0, bytes(MAX_HEADER_BYTES - 31))),
    ),
    HeaderCase("v2 local as long as may be", v2(bytes(MAX_HEADER_BYTES - 16), 0, command=0), _LOCAL),
)


def _line(id: str, rest: bytes, reason: str = "bad_line") -> HeaderCase:
    return HeaderCase(f"v1 {id}", b"PROXY " + rest, reason)


def _sources(family: bytes, other: bytes, **sources: bytes) -> list[HeaderCase]:
    return [
        _line(
            f"{family.decode()} {name.replace('_', ' ')}", b"%b %b %b 1 2\r\n" % (family, source, other), "bad_address"
        )
        for name, source in sources.items()
    ]


def _ports(**ports: bytes) -> list[HeaderCase]:
    return [
        _line(f"port {name.replace('_', ' ')}", b"TCP4 192.0.2.1 192.0.2.2 1 %b\r\n" % port, "bad_port")
        for name, port in ports.items()
    ]


INVALID: Final = (
    _line("nothing", b"\r\n"),
    _line("two blanks", b" TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    _line("two blanks within", b"TCP4 192.0.2.1  192.0.2.2 1 2\r\n"),
    _line("blank at the end", b"TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"),
    _line("tab", b"TCP4\t192.0.2.1 192.0.2.2 1 2\r\n"),
    _line("no port", b"TCP4 192.0.2.1 192.0.2.2 1\r\n"),
    _line("no addresses", b"TCP4\r\n"),
    _line("six fields", b"TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"),
    _line("UDP4", b"UDP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    _line("small letters", b"tcp4 192.0.2.1 192.0.2.2 1 2\r\n"),
    _line("TCP", b"TCP 192.0.2.1 192.0.2.2 1 2\r\n"),
    _line("a request", b"/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    _line("LF alone", b"TCP4 192.0.2.1 192.0.2.2 1 2\n"),
    _line("LF alone, later CRLF", b"TCP4 192.0.2.1 192.0.2.2 1 2\nGET / HTTP/1.1\r\n"),
    _line("CR alone, later CRLF", b"TCP4 192.0.2.1 192.0.2.2 1 2\rGET / HTTP/1.1\r\n"),
    _line("two CR", b"TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n"),
    _line("unknown and more", b"UNKNOWNX\r\n"),
    _line("unknown with LF alone", b"UNKNOWN\n"),
    _line("unknown with LF alone, later CRLF", b"UNKNOWN x\nGET / HTTP/1.1\r\n"),
    _line("unknown with CR alone", b"UNKNOWN x\ry\r\n"),
    _line("of 108 bytes", b"UNKNOWN " + b"x" * 92 + b"\r\n", "line_too_long"),
    _line("without an end", b"TCP4 192.0.2.1 " + b"1" * 200, "line_too_long"),
    _line("before a TLS hello without an end", b"TCP4 192.0.2.1 192.0.2.2 1 2" + HELLO + bytes(90), "line_too_long"),
    *_sources(
        b"TCP4",
        b"192.0.2.2",
        leading_zero=b"192.0.2.01",
        zeros=b"00.0.0.0",
        over_255=b"192.0.2.256",
        long_number=b"192.0.2.1000",
        three_numbers=b"192.0.2",
        five_numbers=b"192.0.2.1.1",
        one_number=b"3221225985",
        hexadecimal=b"0xc0.0.2.1",
        negative=b"192.0.2.-1",
        empty_number=b"192.0..1",
        dot_at_the_end=b"192.0.2.1.",
        name=b"localhost",
        NUL=b"192.0.2.1\0",
        other_digits="١٩٢.0.2.1".encode(),
        no_UTF_8=b"\xff\xfe",
        IPv6=b"2001:db8::1",
        IPv4_in_IPv6=b"::ffff:192.0.2.1",
        a_port=b"192.0.2.1:80",
        a_network=b"192.0.2.1/32",
    ),
    *_sources(
        b"TCP6",
        b"::1",
        IPv4=b"192.0.2.1",
        interface=b"fe80::1%eth0",
        brackets=b"[::1]",
        two_gaps=b"1::2::3",
        nine_groups=b"1:2:3:4:5:6:7:8:9",
        seven_groups=b"1:2:3:4:5:6:7",
        gap_of_nothing=b"1:2:3:4::5:6:7:8",
        long_group=b"00001::",
        no_digit=b"g::1",
        colon_at_the_end=b"1:2:3:4:5:6:7:",
        colon_at_the_beginning=b":1:2:3:4:5:6:7",
        three_colons=b":::",
        dots_elsewhere=b"::192.0.2.1",
        dots_behind_a_fifth_group=b"::ffff:12:192.0.2.1",
        dots_with_leading_zero=b"::ffff:192.0.2.01",
        dots_behind_groups=b"0:0:0:0:0:ffff:192.0.2.1",
        blank_address=b"::ffff:",
    ),
    _line("destination of another family", b"TCP4 192.0.2.1 ::1 1 2\r\n", "bad_address"),
    *_ports(
        over_65535=b"65536",
        of_six_digits=b"000080",
        leading_zero=b"080",
        two_zeros=b"00",
        plus=b"+1",
        minus=b"-1",
        underscore=b"1_0",
        hexadecimal=b"0x50",
        name=b"https",
        other_digits="٨٠".encode(),
    ),
    _line("source port over 65535", b"TCP4 192.0.2.1 192.0.2.2 70000 2\r\n", "bad_port"),
    HeaderCase("v2 version 1", v2(IPV4, version=1), "bad_version"),
    HeaderCase("v2 version 3", v2(IPV4, version=3), "bad_version"),
    HeaderCase("v2 version 0", v2(b"", 0, command=0, version=0), "bad_version"),
    HeaderCase("v2 command 2", v2(IPV4, command=2), "bad_command"),
    HeaderCase("v2 command 15", v2(IPV4, command=15), "bad_command"),
    *(
        HeaderCase(f"v2 protocol 0x{protocol:02x}", v2(_BODIES[protocol >> 4], protocol), "bad_protocol")
        for protocol in (0x02, 0x03, 0x10, 0x12, 0x13, 0x1F, 0x20, 0x22, 0x30, 0x32, 0x40, 0x41)
    ),
    HeaderCase("v2 IPv4 without addresses", v2(b""), "bad_length"),
    HeaderCase("v2 IPv4 one byte short", v2(IPV4[:-1]), "bad_length"),
    HeaderCase("v2 IPv6 with addresses of IPv4", v2(IPV4, 0x21), "bad_length"),
    HeaderCase("v2 IPv6 one byte short", v2(IPV6[:-1], 0x21), "bad_length"),
    HeaderCase("v2 Unix socket one byte short", v2(_UNIX[:-1], 0x31), "bad_length"),
    HeaderCase("v2 IPv4 with addresses of IPv6", v2(IPV6), "bad_tlv"),
    HeaderCase("v2 one byte over the limit", v2(IPV4 + tlv(0xE0, bytes(MAX_HEADER_BYTES - 30))), "header_too_large"),
    HeaderCase("v2 of the greatest length", v2(b"", length=0xFFFF), "header_too_large"),
    HeaderCase("v2 local over the limit", v2(bytes(MAX_HEADER_BYTES - 15), 0, command=0), "header_too_large"),
    HeaderCase("v2 one byte behind the addresses", v2(IPV4 + b"\x01"), "bad_tlv"),
    HeaderCase("v2 two bytes behind the addresses", v2(IPV4 + b"\x01\0"), "bad_tlv"),
    HeaderCase("v2 TLV beyond the end", v2(IPV4 + b"\x01\0\x03h2"), "bad_tlv"),
    HeaderCase("v2 unknown TLV beyond the end", v2(IPV4 + b"\xee\xff\xff" + b"h2"), "bad_tlv"),
    HeaderCase("v2 padding beyond the end", v2(IPV4 + b"\x04\0\x01"), "bad_tlv"),
    HeaderCase("v2 unspecified with rubbish", v2(b"\xff" * 12, 0), "bad_tlv"),
    HeaderCase("v2 too many TLVs", v2(IPV4 + tlv(0xE0) * (MAX_TLVS + 1)), "too_many_tlvs"),
    HeaderCase("v2 too many TLVs of padding", v2(IPV4 + tlv(4) * (MAX_TLVS + 1)), "too_many_tlvs"),
    *(
        HeaderCase(f"v2 TLV 0x{kind:02x} twice", v2(IPV4 + tlv(kind, value) * 2), "repeated_tlv")
        for kind, value in ((1, b"h2"), (2, b"a"), (5, b"1"), (0x20, _SSL))
    ),
    HeaderCase("v2 checksum twice", with_checksum(b"", tlv(3, bytes(4))), "repeated_tlv"),
    HeaderCase("v2 wrong checksum", with_checksum(b"", off_by=1), "bad_checksum"),
    HeaderCase("v2 checksum of zeros", v2(IPV4 + tlv(3, bytes(4))), "bad_checksum"),
    HeaderCase("v2 checksum of three bytes", v2(IPV4 + tlv(3, bytes(3))), "bad_tlv"),
    HeaderCase("v2 checksum of five bytes", v2(IPV4 + tlv(3, bytes(5))), "bad_tlv"),
    HeaderCase("v2 empty checksum", v2(IPV4 + tlv(3)), "bad_tlv"),
    HeaderCase("v2 TLS without facts", v2(IPV4 + tlv(0x20, b"\x01\0\0\0")), "bad_tlv"),
    HeaderCase("v2 empty TLS", v2(IPV4 + tlv(0x20)), "bad_tlv"),
    HeaderCase("v2 TLV in TLS beyond its end", v2(IPV4 + tlv(0x20, _SSL[:-1]) + tlv(4)), "bad_tlv"),
    HeaderCase("v2 too many TLVs in TLS", v2(IPV4 + tlv(0x20, bytes(5) + tlv(0x2F) * 65)), "too_many_tlvs"),
    HeaderCase("v2 name twice in TLS", v2(IPV4 + tlv(0x20, _SSL + tlv(0x22, b"other"))), "repeated_tlv"),
)

NONE: Final = tuple(
    HeaderCase(name, data, Unparsed.ABSENT)
    for name, data in {
        "TLS": HELLO,
        "HTTP": HTTP,
        "POST": b"POST / HTTP/1.1\r\n",
        "PROPFIND": b"PROPFIND / HTTP/1.1\r\n",
        "PROXYING": b"PROXYING / HTTP/1.1\r\n",
        "PROXY with a tab": b"PROXY\tTCP4",
        "PROXY and the end of a line": b"PROXY\r\n",
        "PROXY in small letters": b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
        "blank before it": b" PROXY UNKNOWN\r\n",
        "empty line before it": b"\r\nPROXY UNKNOWN\r\n",
        "empty lines before HTTP": b"\r\n\r\nGET / HTTP/1.1\r\n",
        "NUL": b"\0",
        "another signature": SIGNATURE[:-1] + b"\r\x21\x11\0\0",
    }.items()
)
