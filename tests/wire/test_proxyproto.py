"""`wire.proxyproto`: headers of the PROXY protocol, read and written. Their grammar: tests/conformance."""

from __future__ import annotations

from ipaddress import IPv6Address

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import ProxyHeaderError
from sidecar.wire.proxyproto import (
    LOCAL_V2,
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    MAX_TEXT_BYTES,
    MAX_TLVS,
    MAX_UNIQUE_ID_BYTES,
    UNKNOWN_V1,
    Parsed,
    ProxyHeader,
    SocketAddress,
    SslFacts,
    TlvType,
    Unparsed,
    begins,
    encode_v1,
    encode_v2,
    make_tlvs,
    parse,
)
from tests.support import proxyheaders
from tests.support.proxyheaders import DESTINATION, DESTINATION_6, HELLO, INVALID, SIGNATURE, SOURCE, SOURCE_6, VALID

quick = settings(max_examples=250, deadline=None)

PRINTABLE = "äöü Ж 東京"


def header_of(case_id: str) -> ProxyHeader:
    (header,) = [case.expected for case in VALID if case.id == case_id]
    assert isinstance(header, ProxyHeader)
    return header


def with_tlv(kind: int, value: bytes) -> ProxyHeader:
    return ProxyHeader(version=2, tlvs=((kind, value),))


class TestBegins:
    @pytest.mark.parametrize("signature", [b"PROXY ", SIGNATURE], ids=["v1", "v2"])
    def test_it_is_told_at_the_end_of_the_signature(self, signature: bytes) -> None:
        """Less of it may still be something else; more of it changes nothing, be it valid or not."""
        assert [begins(signature[:size]) for size in range(len(signature))] == [None] * len(signature)
        assert begins(signature) is True
        assert begins(signature + b"\xff" * 9) is True

    @pytest.mark.parametrize("data", [b"\x16", b"POST", b"PRI ", b"PROXYX", b"\r\nG", b"\r\n\r\nGET", b"\0"])
    def test_anything_else_is_told_at_its_first_other_byte(self, data: bytes) -> None:
        """Methods that begin in the same way, and empty lines before a request, are no headers."""
        assert begins(data) is False
        assert data == b"\x16" or data == b"\0" or begins(data[:1]) is None


class TestParse:
    @pytest.mark.parametrize("case", [*VALID, *INVALID], ids=lambda case: case.id)
    def test_table(self, case: proxyheaders.HeaderCase) -> None:
        """Each row of the table is read as it must be, and with a handshake behind it the same."""
        for behind in (b"", HELLO):
            if isinstance(case.expected, str):
                with pytest.raises(ProxyHeaderError) as caught:
                    parse(case.data + behind)
                assert caught.value.reason == case.expected
            else:
                assert parse(case.data + behind) == Parsed(header_of(case.id), len(case.data))

    @pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
    def test_header_that_is_not_whole_is_waited_for(self, case: proxyheaders.HeaderCase) -> None:
        """Nothing is read, and nothing refused, before the last byte of a good header."""
        assert {parse(case.data[:size]) for size in range(len(case.data))} == {Unparsed.INCOMPLETE}

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "the source '192.0.2.01' is not an address of TCP4"),
            (b"PROXY TCP6 ::1 \x1b[2J\xff 1 2\r\n", r"the destination '\x1b[2J\\xff' is not an address of TCP6"),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "the destination port '65536' is not a number from 0 to 65535"),
            (proxyheaders.v2(b"", length=4081), "the header is 4,097 bytes, limit 4,096"),
            (proxyheaders.v2(proxyheaders.IPV4 + b"\x02\0\x09a"), "the TLV of type 0x02 goes beyond the end"),
            (proxyheaders.v2(bytes(12), 0x12), "the protocol is 0x12, datagrams; only streams are served"),
        ],
    )
    def test_refusal_names_value_and_limit(self, data: bytes, text: str) -> None:
        """The operator reads what is wrong; bytes of the peer cannot break the line they stand in."""
        with pytest.raises(ProxyHeaderError) as caught:
            parse(data)
        assert str(caught.value) == text

    def test_long_value_is_not_repeated_whole(self) -> None:
        """A refusal has no more of a peer's bytes than an address takes."""
        with pytest.raises(ProxyHeaderError) as caught:
            parse(b"PROXY TCP4 %b 2.2.2.2 1 2\r\n" % (b"7" * 80))
        assert str(caught.value).count("7") == 45

    @pytest.mark.parametrize("start", [b"PROXY ", b"PROXY UNKNOWN "])
    def test_line_is_refused_at_its_limit(self, start: bytes) -> None:
        """Nothing more than the longest line is held while its end does not come."""
        assert parse(start.ljust(MAX_LINE_BYTES - 1, b"x")) is Unparsed.INCOMPLETE
        with pytest.raises(ProxyHeaderError, match="within 107 bytes"):
            parse(start.ljust(MAX_LINE_BYTES, b"x"))

    def test_length_over_the_limit_is_refused_before_it_has_come(self) -> None:
        """Whoever announces too much is not waited for."""
        announced = MAX_HEADER_BYTES - 16
        assert parse(proxyheaders.v2(b"", 0x11, length=announced)) is Unparsed.INCOMPLETE
        with pytest.raises(ProxyHeaderError) as caught:
            parse(proxyheaders.v2(b"", 0x11, length=announced + 1))
        assert caught.value.reason == "header_too_large"

    def test_limits_are_those_of_the_table(self) -> None:
        """The table is written with numbers of its own."""
        assert (MAX_HEADER_BYTES, MAX_TLVS) == (proxyheaders.MAX_HEADER_BYTES, proxyheaders.MAX_TLVS)

    @quick
    @given(st.binary(max_size=40) | st.binary(max_size=300).map(lambda tail: SIGNATURE + b"\x21\x11" + tail))
    @example(SIGNATURE + b"\x21\x11\0\x0d" + bytes(13))
    def test_anything_is_read_or_refused(self, data: bytes) -> None:
        """No bytes raise anything but our own error, and no more is taken than has come."""
        try:
            found = parse(data)
        except ProxyHeaderError:
            return
        assert isinstance(found, Unparsed) or 0 < found.size <= len(data)


class TestProxyHeader:
    def test_facts_of_a_balancer_are_read(self) -> None:
        """What HAProxy says with all its options is there."""
        header = header_of("v2 of HAProxy with all options")
        assert (header.authority, header.alpn, header.unique_id) == ("shop.example", b"h2", b"id-26123-8")
        assert header.ssl == SslFacts(
            has_certificate=True,
            had_certificate=True,
            version="TLSv1.3",
            common_name="client.example",
            cipher="TLS_AES_256_GCM_SHA384",
        )

    def test_endpoint_of_private_link_is_read(self) -> None:
        """AWS puts it behind a type of its own."""
        assert header_of("v2 of AWS PrivateLink").vpc_endpoint_id == "vpce-08d2bf15fac5001c9"

    def test_what_is_not_said_is_empty(self) -> None:
        """A bare header has none of it."""
        header = header_of("v1 unknown")
        assert (header.authority, header.alpn, header.unique_id, header.vpc_endpoint_id) == ("", b"", b"", "")
        assert header.ssl is None

    @pytest.mark.parametrize(
        ("value", "authority"),
        [
            (b"a.example", "a.example"),
            ("b\u00fccher.example".encode(), "b\u00fccher.example"),
            (b"a" * MAX_TEXT_BYTES, "a" * MAX_TEXT_BYTES),
            (b"a" * (MAX_TEXT_BYTES + 1), ""),
            (b"", ""),
            (b"a b", ""),
            (b"a\r\nX-Admin: 1", ""),
            (b"a\0", ""),
            (b"a\x7f", ""),
            (b"a\t", ""),
            (b"\xff", ""),
            (b"\xc0\xaf", ""),
            ("a\u202eb".encode(), ""),
            ("a\u2028b".encode(), ""),
            ("a\u0085b".encode(), ""),
            ("a\u00a0b".encode(), ""),
        ],
    )
    def test_authority_that_cannot_be_shown_is_none(self, value: bytes, authority: str) -> None:
        """The client chose it: what could break a line, hide or pass for something else is left out."""
        assert with_tlv(TlvType.AUTHORITY, value).authority == authority

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (b"\x01vpce-1", "vpce-1"),
            (b"\x01vpce 1", ""),
            (b"\x01\n", ""),
            (b"\x02vpce-1", ""),
            (b"\x01", ""),
            (b"", ""),
        ],
    )
    def test_endpoint_is_a_plain_word_of_its_subtype(self, value: bytes, found: str) -> None:
        """Other subtypes of AWS say something else."""
        assert with_tlv(TlvType.AWS, value).vpc_endpoint_id == found

    def test_endpoint_stands_behind_another_subtype(self) -> None:
        """AWS may say more than one thing."""
        header = ProxyHeader(version=2, tlvs=((0xEA, b"\x02x"), (0xEA, b"\x01vpce-1")))
        assert header.vpc_endpoint_id == "vpce-1"

    def test_overlong_values_are_none(self) -> None:
        """A unique id has 128 bytes at most, and no protocol more than 255."""
        for size, expected in ((MAX_UNIQUE_ID_BYTES, b"\xff" * MAX_UNIQUE_ID_BYTES), (MAX_UNIQUE_ID_BYTES + 1, b"")):
            assert with_tlv(TlvType.UNIQUE_ID, b"\xff" * size).unique_id == expected
        for size, expected in ((MAX_TEXT_BYTES, b"h" * MAX_TEXT_BYTES), (MAX_TEXT_BYTES + 1, b"")):
            assert with_tlv(TlvType.ALPN, b"h" * size).alpn == expected

    def test_repr_shows_no_values(self) -> None:
        """They may hold a certificate."""
        assert "secret" not in repr(with_tlv(0xE0, b"secret"))


class TestSslFacts:
    @pytest.mark.parametrize(
        ("facts", "is_verified"),
        [
            (SslFacts(has_certificate=True), True),
            (SslFacts(had_certificate=True), True),
            (SslFacts(has_certificate=True, verify=18), False),
            (SslFacts(), False),
            (SslFacts(is_tls=False), False),
        ],
    )
    def test_nothing_is_verified_without_a_certificate(self, facts: SslFacts, is_verified: bool) -> None:
        """HAProxy says 0 too where there was nothing to verify."""
        assert facts.is_verified is is_verified

    def test_unknown_flags_and_parts_are_ignored(self) -> None:
        """Later versions may say more."""
        value = b"\xf8\0\0\0\x01" + proxyheaders.tlv(0x2F, b"x") + proxyheaders.tlv(0x22, b"Ann Example")
        assert with_tlv(TlvType.SSL, value).ssl == SslFacts(is_tls=False, verify=1, common_name="Ann Example")

    def test_name_that_cannot_be_shown_is_left_out(self) -> None:
        """The client's CA chose it."""
        value = b"\x07\0\0\0\0" + proxyheaders.tlv(0x22, b"a\r\nb")
        assert with_tlv(TlvType.SSL, value).ssl == SslFacts(has_certificate=True, had_certificate=True)


class TestEncodeV1:
    @pytest.mark.parametrize(
        ("source", "destination", "line"),
        [
            (SOURCE, DESTINATION, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
            (SOURCE_6, DESTINATION_6, b"PROXY TCP6 2001:db8::1 2001:db8::ff 56324 443\r\n"),
            (SOURCE, DESTINATION_6, b"PROXY TCP6 ::ffff:c000:201 2001:db8::ff 56324 443\r\n"),
            (SOURCE_6, SocketAddress("10.0.0.0", 1), b"PROXY TCP6 2001:db8::1 ::ffff:a00:0 56324 1\r\n"),
            (SocketAddress("::ffff:192.0.2.1", 5), DESTINATION, b"PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n"),
            (SocketAddress("fe80::1%eth0", 0), DESTINATION_6, b"PROXY TCP6 fe80::1 2001:db8::ff 0 443\r\n"),
            (None, None, b"PROXY UNKNOWN\r\n"),
            (SOURCE, None, b"PROXY UNKNOWN\r\n"),
            (None, DESTINATION, b"PROXY UNKNOWN\r\n"),
        ],
    )
    def test_line_is_as_section_2_1_has_it(
        self, source: SocketAddress | None, destination: SocketAddress | None, line: bytes
    ) -> None:
        """One family for both addresses, no dots in IPv6, and UNKNOWN where there are no addresses."""
        assert encode_v1(source, destination) == line

    def test_longest_line_is_within_the_limit(self) -> None:
        """What we write, everybody must be able to read."""
        longest = SocketAddress("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
        assert len(encode_v1(longest, longest)) <= MAX_LINE_BYTES


class TestEncodeV2:
    @pytest.mark.parametrize(
        ("source", "destination", "header"),
        [
            (SOURCE, DESTINATION, b"\x21\x11\0\x0c" + proxyheaders.IPV4),
            (SOURCE_6, DESTINATION_6, b"\x21\x21\0\x24" + proxyheaders.IPV6),
            (
                SOURCE,
                DESTINATION_6,
                b"\x21\x21\0\x24" + bytes(10) + b"\xff\xff" + proxyheaders.IPV4[:4] + proxyheaders.IPV6[16:],
            ),
            (SOURCE, None, b"\x20\0\0\0"),
            (None, DESTINATION, b"\x20\0\0\0"),
        ],
        ids=["IPv4", "IPv6", "both families", "no destination", "no source"],
    )
    def test_block_is_as_section_2_2_has_it(
        self, source: SocketAddress | None, destination: SocketAddress | None, header: bytes
    ) -> None:
        """Fixed part, addresses, ports; LOCAL where there are no addresses."""
        assert encode_v2(source, destination) == SIGNATURE + header

    def test_tlvs_follow_the_addresses(self) -> None:
        """In order, and counted in the length; LOCAL has none, since nobody would read them."""
        tlvs = ((1, b"h2"), (0xE0, b""))
        data = encode_v2(SOURCE, DESTINATION, tlvs)
        assert (data[14:16], data[28:]) == (b"\0\x14", b"\x01\0\x02h2\xe0\0\0")
        assert encode_v2(None, None, tlvs) == LOCAL_V2

    def test_own_connections_are_local(self) -> None:
        """A health check is nobody's connection but ours."""
        assert parse(LOCAL_V2) == Parsed(ProxyHeader(version=2, is_local=True), 16)
        assert parse(UNKNOWN_V1) == Parsed(ProxyHeader(version=1), 15)


class TestMakeTlvs:
    def test_all_that_there_is_to_say_is_said(self) -> None:
        """What was made is read again as it was."""
        facts = SslFacts(
            has_certificate=True, version="TLSv1.3", common_name=PRINTABLE, cipher="AES", verify=0xFFFFFFFF
        )
        tlvs = make_tlvs(alpn=b"h2", authority="a.example", unique_id=b"\0\xff", ssl=facts)
        header = ProxyHeader(version=2, tlvs=tlvs)

        assert [kind for kind, _ in tlvs] == [1, 2, 5, 0x20]
        assert (header.alpn, header.authority, header.unique_id) == (b"h2", "a.example", b"\0\xff")
        assert header.ssl == facts

    def test_nothing_to_say_is_nothing(self) -> None:
        """Neither are empty values sent."""
        assert make_tlvs() == ()
        assert make_tlvs(ssl=SslFacts(is_tls=False)) == ((0x20, bytes(5)),)

    @pytest.mark.parametrize(
        "name",
        ["a" * (MAX_TEXT_BYTES + 1), "a\n", "a b", "\udcff", "a\0"],
        ids=["too long", "line end", "blank", "lone surrogate", "NUL"],
    )
    def test_name_that_is_not_fit_is_left_out(self, name: str) -> None:
        """A client that chooses such a name is forwarded without it, and never with a part of it."""
        assert make_tlvs(authority=name) == ()
        assert make_tlvs(ssl=SslFacts(common_name=name.replace(" ", "\x1b"))) == ((0x20, b"\x01\0\0\0\0"),)

    def test_value_over_its_limit_is_left_out(self) -> None:
        """One byte more is too much."""
        assert len(make_tlvs(alpn=b"h" * MAX_TEXT_BYTES, unique_id=bytes(MAX_UNIQUE_ID_BYTES))) == 2
        assert make_tlvs(alpn=b"h" * (MAX_TEXT_BYTES + 1), unique_id=bytes(MAX_UNIQUE_ID_BYTES + 1)) == ()

    def test_all_at_once_is_a_header_that_anybody_takes(self) -> None:
        """The longest that we can write is far below our own limit."""
        long = "x" * MAX_TEXT_BYTES
        tlvs = make_tlvs(
            alpn=long.encode(),
            authority=long,
            unique_id=bytes(MAX_UNIQUE_ID_BYTES),
            ssl=SslFacts(version=long, common_name=long, cipher=long),
        )
        assert len(encode_v2(SOURCE_6, DESTINATION_6, tlvs)) < MAX_HEADER_BYTES / 2


hosts = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
addresses = st.builds(SocketAddress, hosts, st.integers(0, 65535))
foreign_tlvs = st.lists(st.tuples(st.integers(0xE0, 0xEF), st.binary(max_size=40)), max_size=8).map(tuple)


def canonical(end: SocketAddress) -> SocketAddress:
    """As it is read: IPv4 within IPv6 is IPv4."""
    mapped = IPv6Address(end.host).ipv4_mapped if ":" in end.host else None
    return attrs.evolve(end, host=str(mapped)) if mapped else end


class TestRoundTrip:
    @quick
    @given(addresses, addresses)
    @example(SocketAddress("::ffff:0.0.0.0", 0), SocketAddress("::", 65535))
    def test_line_says_what_was_meant(self, source: SocketAddress, destination: SocketAddress) -> None:
        """Any two addresses, of whichever families, are read as they were written."""
        data = encode_v1(source, destination)
        header = ProxyHeader(version=1, source=canonical(source), destination=canonical(destination))
        assert parse(data + HELLO) == Parsed(header, len(data))

    @quick
    @given(addresses, addresses, foreign_tlvs)
    def test_block_says_what_was_meant(
        self, source: SocketAddress, destination: SocketAddress, tlvs: tuple[tuple[int, bytes], ...]
    ) -> None:
        """The same in version 2, with whatever there is behind the addresses."""
        data = encode_v2(source, destination, tlvs)
        header = ProxyHeader(version=2, source=canonical(source), destination=canonical(destination), tlvs=tlvs)
        assert parse(data + HELLO) == Parsed(header, len(data))

    @quick
    @given(st.binary(max_size=300), st.text(max_size=300), st.binary(max_size=200), st.text(max_size=300))
    def test_anything_said_is_read_or_left_out(self, alpn: bytes, authority: str, unique_id: bytes, name: str) -> None:
        """Whatever a client has chosen, what we write is a valid header, and its values are whole or not there."""
        facts = SslFacts(common_name=name)
        found = parse(
            encode_v2(SOURCE, DESTINATION, make_tlvs(alpn=alpn, authority=authority, unique_id=unique_id, ssl=facts))
        )

        assert isinstance(found, Parsed)
        header = found.header
        assert header.ssl is not None
        assert header.alpn in (alpn, b"")
        assert header.authority in (authority, "")
        assert header.unique_id in (unique_id, b"")
        assert header.ssl.common_name in (name, "")
