"""`policy.forwarding`: who the request comes from, as the app is told; believed of trusted proxies alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.forwarding import (
    MOST_HOPS,
    Hop,
    TrustedProxies,
    claimed_request_id,
    client_address,
)
from sidecar.policy.rewrite import request_section
from sidecar.settings import HostPort
from sidecar.wire.events import RequestHead
from sidecar.wire.fields import Fields
from sidecar.wire.head import parse_request_head

PROXIES = TrustedProxies(("10.0.0.0/8", "2001:db8:aa::/48"))

PEER = "10.0.0.9"
LOCAL = HostPort("10.0.0.1", 443)


def head_with(*lines: bytes, host: bytes = b"a.example") -> RequestHead:
    section = b"".join(line + b"\r\n" for line in lines)
    return parse_request_head(b"GET / HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (host, section), 100)


def hop(*, is_trusted: bool = True, with_forwarded: bool = False, peer: str = PEER, extra: bytes = b"") -> Hop:
    return Hop(peer=peer, local=LOCAL, is_trusted=is_trusted, with_forwarded=with_forwarded, extra=extra)


def told(head: RequestHead, by: Hop) -> dict[str, str]:
    """The lines that *by* makes for *head*, by name; each name comes once."""
    lines = by.lines(head)
    assert lines.endswith(b"\r\n")
    pairs = [line.decode("latin-1").split(": ", 1) for line in lines[:-2].split(b"\r\n")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict((name, value) for name, value in pairs)  # noqa: C402 - the pairs are lists


class TestTrustedProxies:
    @pytest.mark.parametrize(
        ("host", "trusted"),
        [
            ("10.0.0.0", True),
            ("10.255.255.255", True),
            ("11.0.0.0", False),
            ("9.255.255.255", False),
            ("2001:db8:aa::", True),
            ("2001:db8:aa:ffff:ffff:ffff:ffff:ffff", True),
            ("2001:db8:ab::", False),
            ("::ffff:10.1.2.3", True),
            ("::ffff:a01:203", True),
            ("::ffff:11.1.2.3", False),
            ("::10.1.2.3", False),
            ("", False),
            ("10.0.0", False),
            ("10.0.0.1:80", False),
            ("10.0.0.01", False),
            ("proxy.example", False),
            ("unix", False),
        ],
    )
    def test_address_of_a_network_is_trusted(self, host: str, trusted: bool) -> None:
        """From the first to the last of it; an IPv4 address within an IPv6 one is the IPv4 address."""
        assert PROXIES.trusts(host) is trusted

    def test_interface_makes_no_difference(self) -> None:
        """A link-local address is one whichever interface it came by."""
        assert TrustedProxies(("fe80::/10",)).trusts("fe80::1%eth0")

    def test_one_address_is_a_network(self) -> None:
        """Without a length it is that address alone."""
        one = TrustedProxies(("192.0.2.1/32",))
        assert one.trusts("192.0.2.1")
        assert not one.trusts("192.0.2.2")

    @pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "::1", ""])
    def test_nobody_is_trusted_without_networks(self, host: str) -> None:
        """Not even this machine."""
        assert not TrustedProxies().trusts(host)

    def test_two_lists_do_not_share_what_they_remember(self) -> None:
        """The same address is judged anew under other networks, as after a reload."""
        assert PROXIES.trusts("10.9.9.9")
        assert not TrustedProxies(("192.0.2.0/24",)).trusts("10.9.9.9")
        assert PROXIES.trusts("10.9.9.9")


class TestClientAddress:
    def of(self, *values: bytes) -> str:
        return client_address(Fields(b"".join(b"X-Forwarded-For: %b\r\n" % v for v in values)), PEER, PROXIES)

    @pytest.mark.parametrize(
        ("value", "client"),
        [
            (b"192.0.2.7", "192.0.2.7"),
            (b"192.0.2.7, 10.0.0.2", "192.0.2.7"),
            (b"192.0.2.7, 10.0.0.2, ::ffff:10.0.0.3", "192.0.2.7"),
            (b"203.0.113.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
            (b"10.0.0.5, 192.0.2.7", "192.0.2.7"),
            (b"10.0.0.5", "10.0.0.5"),
            (b"10.0.0.4, 10.0.0.5", "10.0.0.4"),
            (b"192.0.2.7:1234", "192.0.2.7"),
            (b"[2001:db8::7]:1234", "2001:db8::7"),
            (b"[2001:db8::7]", "2001:db8::7"),
            (b"2001:DB8:0::7", "2001:db8::7"),
            (b" \t192.0.2.7\t ,\t10.0.0.2 ", "192.0.2.7"),
            (b"192.0.2.7,10.0.0.2", "192.0.2.7"),
        ],
    )
    def test_rightmost_that_is_no_proxy_wins(self, value: bytes, client: str) -> None:
        """What stands left of it, it may have made up itself; if all are proxies, the first of them asks for itself."""
        assert self.of(value) == client

    @pytest.mark.parametrize(
        ("value", "client"),
        [
            (b"", PEER),
            (b"unknown", PEER),
            (b"192.0.2.7, unknown", PEER),
            (b"192.0.2.7, unknown, 10.0.0.2", "10.0.0.2"),
            (b"192.0.2.7,, 10.0.0.2", "10.0.0.2"),
            (b"192.0.2.7,", PEER),
            (b"_secret", PEER),
            (b"300.0.0.1", PEER),
            (b"192.0.2", PEER),
            (b"192.0.2.07", PEER),
            (b"0x7f000001", PEER),
            (b"3232235777", PEER),
            (b'"192.0.2.7"', PEER),
            (b"for=192.0.2.7", PEER),
            (b"[]", PEER),
            (b"[2001:db8::7", "2001:db8::7"),
            (b"192.0.2.7 10.0.0.2", PEER),
            ("١٩٢.0.2.7".encode(), PEER),
            (b"\xff\xfe", PEER),
            (b"fe80::1%eth0", PEER),
            (b"fe80::1%" + b"x" * 10_000, PEER),
            (b'fe80::1%" forged', PEER),
        ],
    )
    def test_member_that_is_no_address_ends_the_search(self, value: bytes, client: str) -> None:
        """Whoever wrote it is the last that is known; what stands left of it is not guessed at."""
        assert self.of(value) == client

    def test_lines_are_read_as_one(self) -> None:
        """A client's own line stands before the proxy's."""
        assert self.of(b"203.0.113.1", b"192.0.2.7, 10.0.0.2") == "192.0.2.7"

    def test_no_line_is_the_peer_itself(self) -> None:
        """A proxy that says nothing speaks for itself."""
        assert self.of() == PEER

    @pytest.mark.parametrize(("hops", "seen"), [(MOST_HOPS - 1, True), (MOST_HOPS, False)], ids=["50", "51"])
    def test_search_is_bounded(self, hops: int, seen: bool) -> None:
        """Behind more proxies than anybody has, the client is the one farthest away that was looked at."""
        chain = b", ".join([b"192.0.2.7", *(b"10.0.%d.%d" % (i, i) for i in range(hops))])
        assert self.of(chain) == ("192.0.2.7" if seen else "10.0.0.0")

    @given(forged=st.binary(max_size=200).filter(lambda data: not set(data) & set(b"\r\n\0")))
    def test_client_cannot_change_what_a_proxy_appends(self, forged: bytes) -> None:
        """Whatever stands left of the address that a trusted proxy has seen makes no difference."""
        assert self.of(forged + b", 192.0.2.7, 10.0.0.2") == "192.0.2.7"


class TestUntrusted:
    CLAIMS = (
        b"X-Forwarded-For: 203.0.113.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: evil.example",
        b"X-Forwarded-Port: 1",
        b"Forwarded: for=203.0.113.1",
    )

    @pytest.mark.parametrize("with_forwarded", [False, True], ids=["without", "with"])
    def test_claims_are_worth_nothing(self, with_forwarded: bool) -> None:
        """The lines are ours alone, the same as for a client that claims nothing."""
        by = hop(is_trusted=False, with_forwarded=with_forwarded, peer="192.0.2.7")
        assert by.lines(head_with(*self.CLAIMS)) == by.lines(head_with())

    def test_lines_say_what_we_see(self) -> None:
        """Who connected, how, where to, and what it asked for."""
        assert told(head_with(host=b"a.example:8443"), hop(is_trusted=False, peer="192.0.2.7")) == {
            "X-Forwarded-For": "192.0.2.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Host": "a.example:8443",
        }

    def test_common_lines_are_the_same_less_the_host(self) -> None:
        """So that they can be made once for a connection."""
        by = Hop(peer="2001:db8::7", local=HostPort("::1", 8080), scheme="http", extra=b"X-Proxy-Protocol-Alpn: h2\r\n")
        assert by.is_the_same_for_all
        host = b"X-Forwarded-Host: a.example\r\n"
        assert by.lines(head_with()).replace(host, b"") == by.common_lines
        assert by.common_lines == (
            b"X-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\n"
            b"X-Proxy-Protocol-Alpn: h2\r\n"
        )

    @pytest.mark.parametrize(
        ("is_trusted", "with_forwarded"),
        [(True, False), (False, True), (True, True)],
        ids=["trusted", "forwarded", "both"],
    )
    def test_lines_that_depend_on_the_request_are_not_common(self, is_trusted: bool, with_forwarded: bool) -> None:
        """They are made for each request."""
        assert not hop(is_trusted=is_trusted, with_forwarded=with_forwarded).is_the_same_for_all

    @given(
        names=st.lists(st.sampled_from([claim.partition(b":")[0] for claim in CLAIMS]), min_size=1, max_size=6),
        value=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60),
        with_forwarded=st.booleans(),
    )
    def test_whatever_it_sends_the_lines_are_ours_alone(
        self, names: list[bytes], value: str, with_forwarded: bool
    ) -> None:
        """In the head that the app gets there is nothing of a claim, and every field of this family once."""
        marked = b"zz" + value.encode("latin-1")
        head = head_with(*(b"%b: %b" % (name, marked) for name in names))
        by = hop(is_trusted=False, with_forwarded=with_forwarded, peer="192.0.2.7")
        section = request_section(head, by.lines(head), says_host=True)
        assert marked not in section
        sent = [line.partition(b":")[0].lower() for line in section.split(b"\r\n")[:-1]]
        family = [name for name in sent if b"forwarded" in name]
        expected = [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-host"]
        assert family == expected + [b"forwarded"] * with_forwarded


class TestTrusted:
    @pytest.mark.parametrize(
        ("values", "told_for"),
        [
            ((), PEER),
            ((b"",), PEER),
            ((b"192.0.2.7",), f"192.0.2.7, {PEER}"),
            ((b"203.0.113.1, 192.0.2.7",), f"203.0.113.1, 192.0.2.7, {PEER}"),
            ((b"203.0.113.1", b"192.0.2.7"), f"203.0.113.1, 192.0.2.7, {PEER}"),
            ((b"", b"192.0.2.7", b""), f"192.0.2.7, {PEER}"),
        ],
        ids=["none", "empty", "one", "list", "two lines", "empty lines"],
    )
    def test_list_is_extended(self, values: tuple[bytes, ...], told_for: str) -> None:
        """By the proxy's own address, behind all that it said."""
        head = head_with(*(b"X-Forwarded-For: " + value for value in values))
        assert told(head, hop())["X-Forwarded-For"] == told_for

    @pytest.mark.parametrize(
        ("name", "value", "kept"),
        [
            ("X-Forwarded-Proto", "http", "http"),
            ("X-Forwarded-Proto", "HTTPS", "https"),
            ("X-Forwarded-Proto", "ws", "https"),
            ("X-Forwarded-Proto", "http, https", "https"),
            ("X-Forwarded-Proto", "javascript", "https"),
            ("X-Forwarded-Proto", "", "https"),
            ("X-Forwarded-Port", "8443", "8443"),
            ("X-Forwarded-Port", "65535", "65535"),
            ("X-Forwarded-Port", "-1", "443"),
            ("X-Forwarded-Port", "123456", "443"),
            ("X-Forwarded-Port", "80, 443", "443"),
            ("X-Forwarded-Port", "0x50", "443"),
            ("X-Forwarded-Host", "shop.example", "shop.example"),
            ("X-Forwarded-Host", "shop.example:8443", "shop.example:8443"),
            ("X-Forwarded-Host", "[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("X-Forwarded-Host", "shop.example, evil.example", "a.example"),
            ("X-Forwarded-Host", "user@evil.example", "a.example"),
            ("X-Forwarded-Host", "evil.example/path", "a.example"),
            ("X-Forwarded-Host", "evil.example:port", "a.example"),
            ("X-Forwarded-Host", "[evil]", "a.example"),
            ("X-Forwarded-Host", 'a"b', "a.example"),
            ("X-Forwarded-Host", "é.example", "a.example"),
            ("X-Forwarded-Host", "", "a.example"),
        ],
    )
    def test_value_is_kept_if_it_is_well_formed(self, name: str, value: str, kept: str) -> None:
        """Else it is what we see ourselves."""
        assert told(head_with(f"{name}: {value}".encode()), hop())[name] == kept

    @pytest.mark.parametrize(
        ("name", "value", "ours"),
        [
            ("X-Forwarded-Proto", "http", "https"),
            ("X-Forwarded-Port", "8443", "443"),
            ("X-Forwarded-Host", "shop.example", "a.example"),
        ],
    )
    def test_two_lines_say_nothing(self, name: str, value: str, ours: str) -> None:
        """One of them may be the client's; two readers could take different ones."""
        line = f"{name}: {value}".encode()
        assert told(head_with(line, line), hop())[name] == ours

    def test_request_without_host_names_none(self) -> None:
        """HTTP/1.0 may leave it out."""
        head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n", 100)
        assert "X-Forwarded-Host" not in told(head, hop())
        assert told(head, hop(with_forwarded=True))["Forwarded"] == f"by={LOCAL.host};for={PEER};proto=https"

    def test_extra_lines_come_last(self) -> None:
        """What a PROXY header said goes with every request."""
        assert (
            hop(extra=b"X-Proxy-Protocol-Alpn: h2\r\n")
            .lines(head_with())
            .endswith(b"\r\nX-Proxy-Protocol-Alpn: h2\r\n")
        )


class TestForwarded:
    OURS = f"by={LOCAL.host};for={PEER};host=a.example;proto=https"

    def of(self, *values: bytes, with_forwarded: bool = True) -> str | None:
        head = head_with(*(b"Forwarded: " + value for value in values))
        return told(head, hop(with_forwarded=with_forwarded)).get("Forwarded")

    @pytest.mark.parametrize(
        ("peer", "local", "host", "element"),
        [
            ("192.0.2.7", "10.0.0.1", b"a.example", "by=10.0.0.1;for=192.0.2.7;host=a.example;proto=https"),
            (
                "2001:db8::7",
                "::1",
                b"a.example:8443",
                'by="[::1]";for="[2001:db8::7]";host="a.example:8443";proto=https',
            ),
            ("192.0.2.7", "10.0.0.1", b"[2001:db8::1]", 'by=10.0.0.1;for=192.0.2.7;host="[2001:db8::1]";proto=https'),
        ],
        ids=["tokens", "IPv6 and port", "IPv6 host"],
    )
    def test_what_is_no_token_is_quoted(self, peer: str, local: str, host: bytes, element: str) -> None:
        """An IPv6 address stands in brackets and quotes, a host with a port in quotes (RFC 7239 section 4)."""
        by = Hop(peer=peer, local=HostPort(local, 443), with_forwarded=True)
        assert told(head_with(host=host), by)["Forwarded"] == element

    @pytest.mark.parametrize(
        "said",
        [
            b"for=192.0.2.7",
            b"For=192.0.2.7;Proto=http;By=203.0.113.43",
            b'for="[2001:db8:cafe::17]:4711"',
            b"for=192.0.2.43, for=198.51.100.17",
            b'for=192.0.2.43,for="[2001:db8:cafe::17]";proto=https',
            b"for=unknown;by=_hidden",
            rb'for="a\"b"',
            b'for=""',
            b'for="a, b;c=d"',
            b"for=1 ; by=2",
        ],
        ids=bytes.decode,
    )
    @pytest.mark.parametrize("with_forwarded", [False, True], ids=["off", "on"])
    def test_well_formed_one_is_extended(self, said: bytes, with_forwarded: bool) -> None:
        """By an element of ours, also where the app would not get one otherwise: half a chain says nothing."""
        assert self.of(said, with_forwarded=with_forwarded) == f"{said.decode()}, {self.OURS}"

    @pytest.mark.parametrize(
        "said",
        [
            b'for="_gazonk',
            b'for="a\\"',
            b'for=x;by="',
            b"for=",
            b"for",
            b"=x",
            b"for=x;",
            b"for=x,",
            b",for=x",
            b"for=x,,for=y",
            b"for=[2001:db8::1]",
            b"for=192.0.2.7:80",
            b"for = x",
            b"for=x y",
            b"for=x;;by=y",
            b'for="a"b',
            b'fo r="a"',
            b"for=\xe9",
            b"",
        ],
    )
    def test_malformed_one_is_replaced(self, said: bytes) -> None:
        """An unterminated quote, or anything else, could swallow what we append."""
        assert self.of(said) == self.OURS
        assert self.of(said, with_forwarded=False) is None

    def test_lines_are_one_list(self) -> None:
        """In their order."""
        assert self.of(b"for=1", b"for=2") == f"for=1, for=2, {self.OURS}"

    @pytest.mark.parametrize(
        "values", [(b'for="a', b"for=b"), (b"for=a", b'for="b'), (b"for=a", b"")], ids=["first", "second", "empty"]
    )
    def test_one_bad_line_spoils_all(self, values: tuple[bytes, ...]) -> None:
        """What it is a part of cannot be told."""
        assert self.of(*values) == self.OURS

    @given(
        said=st.lists(
            st.text(st.sampled_from('";,= \\\tabfor[]:.0é'), max_size=40).map(lambda text: text.encode("latin-1")),
            max_size=3,
        )
    )
    def test_element_of_ours_is_always_the_last(self, said: list[bytes]) -> None:
        """However a reader goes about quotes, commas and semicolons, what we say stands by itself at the end."""
        value = self.of(*said)
        assert value is not None
        assert elements(value)[-1] == self.OURS

    def test_long_list_takes_no_time(self) -> None:
        """Neither a well-formed one nor one that fails at its end makes the pattern go back and forth."""
        member = b'for="' + b"\\a" * 500 + b'"'
        for said in (b", ".join([member] * 50), b", ".join([member] * 50) + b'"', b'for="' + b"a\\" * 20_000):
            assert (self.of(said) or "").endswith(self.OURS)


def elements(value: str) -> list[str]:
    """The members of a list, as a reader sees them that knows quoted strings."""
    found = re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+', value)
    assert ",".join(found) == value, "a quote is not closed"
    return [member.strip() for member in found]


class TestClaimedRequestId:
    @pytest.mark.parametrize(
        "value",
        [
            b"a",
            b"0af7651916cd43dd8448eb211c80319c",
            b"Root=1-67891233-abcdef012345678912345678",
            b"a/b+c=@:~._-",
            b"x" * 128,
        ],
        ids=["short", "hexadecimal", "of a balancer", "all characters", "longest"],
    )
    def test_plain_one_is_taken(self, value: bytes) -> None:
        """What could stand in a log as it is."""
        assert claimed_request_id(Fields(b"X-Request-Id: %b\r\n" % value)) == value

    @pytest.mark.parametrize(
        "section",
        [
            b"",
            b"X-Request-Id:\r\n",
            b"X-Request-Id: %b\r\n" % (b"x" * 129),
            b"X-Request-Id: a b\r\n",
            b"X-Request-Id: a,b\r\n",
            b'X-Request-Id: a"b\r\n',
            b"X-Request-Id: a%0Ab\r\n",
            b"X-Request-Id: <script>\r\n",
            b"X-Request-Id: \xc3\xa9\r\n",
            b"X-Request-Id: a\r\nX-Request-Id: a\r\n",
        ],
        ids=["none", "empty", "too long", "blank", "list", "quote", "percent", "markup", "not ASCII", "two"],
    )
    def test_other_one_is_not(self, section: bytes) -> None:
        """A log line is not for others to shape."""
        assert claimed_request_id(Fields(section)) == b""


class TestTwoWaysToSayIt:
    def test_forwarded_of_a_proxy_that_writes_the_other_is_not_believed(self) -> None:
        """It may have come from the client: many proxies write X-Forwarded-For and pass on everything else."""
        head = head_with(b"X-Forwarded-For: 203.0.113.9", b"Forwarded: for=6.6.6.6;host=evil.example")
        assert "Forwarded" not in told(head, hop())
        element = told(head, hop(with_forwarded=True))["Forwarded"]
        assert element.startswith("for=203.0.113.9, by=")
        assert "6.6.6.6" not in element

    def test_forwarded_is_made_of_what_the_other_says(self) -> None:
        """Each address is an element; what is none is unknown."""
        head = head_with(b'X-Forwarded-For: 2001:db8::1, foo"bar, 203.0.113.9:80')
        element = told(head, hop(with_forwarded=True))["Forwarded"]
        assert element.startswith('for="[2001:db8::1]", for=unknown, for=203.0.113.9, by=')

    @pytest.mark.parametrize(
        ("said", "port"),
        [
            ((b"X-Forwarded-Proto: https",), "8443"),
            ((b"X-Forwarded-Proto: http", b"X-Forwarded-Host: shop.example"), "80"),
            ((b"X-Forwarded-Host: shop.example",), "443"),
            ((b"X-Forwarded-Host: shop.example:444",), "444"),
            ((b"X-Forwarded-Host: shop.example", b"X-Forwarded-Port: 9"), "9"),
        ],
        ids=["that of Host", "that of the scheme", "that of our scheme", "that of the host", "as said"],
    )
    def test_port_goes_with_the_host_that_is_said(self, said: tuple[bytes, ...], port: str) -> None:
        """Ours would lead to another place than the rest."""
        assert told(head_with(*said, host=b"a.example:8443"), hop())["X-Forwarded-Port"] == port
