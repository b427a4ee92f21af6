"""`sidecar.config.addresses`: texts to names and addresses, and back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import addresses
from sidecar.config.units import UnitError
from sidecar.settings import HostPort, UnixPath, Upstream

PARSERS: list[Callable[[str], Any]] = [
    addresses.parse_names,
    addresses.parse_tls_names,
    addresses.parse_server_name,
    addresses.parse_authority,
    addresses.parse_alpn,
    addresses.parse_health_check,
    addresses.parse_networks,
    addresses.parse_listener,
    addresses.parse_optional_listener,
    addresses.parse_upstream,
    addresses.parse_endpoint,
]


class TestEveryParser:
    @given(st.sampled_from(PARSERS), st.text() | st.text("0123456789.:[]/%-*smhKiBunxhtp@,+\n\0"))
    def test_any_text_parses_or_is_refused_in_one_line(self, parse: Callable[[str], Any], text: str) -> None:
        """Whatever the text, there is a value or a UnitError whose fact and fix fit on one line."""
        with suppress(UnitError):
            parse(text)
            return
        with pytest.raises(UnitError) as caught:
            parse(text)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("parse", PARSERS)
    def test_private_key_in_the_text_is_not_shown(self, parse: Callable[[str], Any]) -> None:
        """A refusal never shows PEM text, whichever setting it was given for."""
        with pytest.raises(UnitError) as caught:
            parse("-----BEGIN PRIVATE KEY-----\nMIIEsecret\n-----END PRIVATE KEY-----")

        assert "MIIE" not in str(caught.value)
        assert "BEGIN" not in str(caught.value)


class TestNames:
    def test_names_and_addresses_are_read_in_order_once(self) -> None:
        """DNS names come in lower case, addresses in their canonical form, blanks, gaps and repeats go."""
        text = " App.Example, *.example,, 10.0.0.1 ,2001:DB8::0:1,app.example,localhost,"

        assert addresses.parse_names(text) == ("app.example", "*.example", "10.0.0.1", "2001:db8::1", "localhost")

    @pytest.mark.parametrize(
        "name",
        [
            "a_b.example",
            "-a.example",
            "a-.example",
            "a..example",
            ".example",
            "example.",
            "*",
            "*.",
            "*.*.example",
            "a.*.example",
            "w*.example",
            "10.0.0.256",
            "10.0.0.0/8",
            "[::1]",
            "fe80::1%eth0",
            "münchen.example",
            "https://a.example",
            "a.example:443",
            "a b",
            "x" * 64,
            ".".join(["x" * 63] * 4),
        ],
    )
    def test_invalid_name_is_refused(self, name: str) -> None:
        """What a certificate cannot name is refused, also beside valid names."""
        with pytest.raises(UnitError, match="neither a DNS name nor an IP address"):
            addresses.parse_names(f"ok.example,{name}")

    def test_longest_name_is_read(self) -> None:
        """253 characters in labels of up to 63 are a name."""
        name = ".".join(["x" * 63, "x" * 63, "x" * 63, "x" * 61])

        assert addresses.parse_names(name) == (name,)


ADDRESSES = st.builds(
    HostPort,
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
    | st.sampled_from(["localhost", "my_app", "a.example"]),
    st.integers(1, 65535),
)


class TestListener:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:8443", HostPort("127.0.0.1", 8443)),
            ("[::]:443", HostPort("::", 443)),
            ("[2001:DB8::0]:443", HostPort("2001:db8::", 443)),
            ("[fe80::1%eth0]:443", HostPort("fe80::1%eth0", 443)),
            (":443", HostPort("0.0.0.0", 443)),
            ("443", HostPort("0.0.0.0", 443)),
            ("localhost:65535", HostPort("localhost", 65535)),
        ],
    )
    def test_documented_form_is_read(self, text: str, expected: HostPort) -> None:
        """HOST:PORT, with IPv6 in brackets; the host or both host and colon may be missing."""
        assert addresses.parse_listener(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ":",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "::1:443",
            "[127.0.0.1]:443",
            "[]:443",
            "[::1:443",
            "[::1]443",
            "*:443",
            "b@d:443",
            "10.0.0.256:443",
            "127.1:443",
            "010.0.0.1:443",
            "[fe80::1%a]b]:443",
            "host:-1",
            "host:0443x",
            "host:\uff14\uff14\uff13",
            "https://host:443",
            "host:443/",
        ],
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """A missing port, a wrong host, unbracketed IPv6 and URLs are refused, never read as every address."""
        with pytest.raises(UnitError):
            addresses.parse_listener(text)

    @pytest.mark.parametrize("port", ["0", "65536", "999999"])
    def test_port_out_of_range_is_refused(self, port: str) -> None:
        """A port is 1 to 65535, with or without a host."""
        for text in (port, f":{port}", f"127.0.0.1:{port}"):
            with pytest.raises(UnitError, match="not within 1 to 65535"):
                addresses.parse_listener(text)

    def test_unbracketed_ipv6_is_told_about_brackets(self) -> None:
        """The fix for `::1:443` says what is missing."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_listener("::1:443")

        assert "brackets" in caught.value.fix

    @given(ADDRESSES)
    def test_canonical_text_reads_back(self, address: HostPort) -> None:
        """The canonical text of an address parses to that address."""
        assert addresses.parse_listener(str(address)) == address

    @given(st.none() | ADDRESSES)
    def test_canonical_text_of_optional_listener_reads_back(self, address: HostPort | None) -> None:
        """The same holds where there may be no listener."""
        assert addresses.parse_optional_listener(addresses.optional_listener_text(address)) == address

    def test_off_is_no_listener_and_part_of_the_fix(self) -> None:
        """`off` is no listener, and who writes another word for it is told."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_optional_listener("none")

        assert caught.value.fix.endswith("or off")
        assert addresses.parse_optional_listener("OFF") is None


class TestUpstream:
    @pytest.mark.parametrize(
        ("text", "endpoints", "is_tls"),
        [
            ("http://127.0.0.1:8080", [HostPort("127.0.0.1", 8080)], False),
            ("http://127.0.0.1:8080/", [HostPort("127.0.0.1", 8080)], False),
            ("HTTP://my_app", [HostPort("my_app", 80)], False),
            ("http://[::1]", [HostPort("::1", 80)], False),
            ("localhost:3000", [HostPort("localhost", 3000)], False),
            ("unix:/run/app.sock", [UnixPath("/run/app.sock")], False),
            ("unix:/run/a@b://c", [UnixPath("/run/a@b://c")], False),
            ("https://app", [HostPort("app", 443)], True),
            ("HTTPS://app:8443/", [HostPort("app", 8443)], True),
            ("https+unix:/run/app.sock", [UnixPath("/run/app.sock")], True),
            ("http://a:1, b:2,,unix:/c", [HostPort("a", 1), HostPort("b", 2), UnixPath("/c")], False),
            ("https://a,https+unix:/c", [HostPort("a", 443), UnixPath("/c")], True),
        ],
    )
    def test_documented_form_is_read(self, text: str, endpoints: list[HostPort | UnixPath], is_tls: bool) -> None:
        """http or https with or without a port, HOST:PORT, and sockets; several of them with commas."""
        assert addresses.parse_upstream(text) == Upstream(tuple(endpoints), tls=is_tls)

    @pytest.mark.parametrize(
        ("text", "endpoints"),
        [
            ("h2c://127.0.0.1:50051", [HostPort("127.0.0.1", 50051)]),
            ("H2C://[::1]:50051/", [HostPort("::1", 50051)]),
            ("h2c+unix:/run/app.sock", [UnixPath("/run/app.sock")]),
            ("h2c://a:1, h2c+unix:/b", [HostPort("a", 1), UnixPath("/b")]),
        ],
    )
    def test_http2_without_tls_has_a_scheme(self, text: str, endpoints: list[HostPort | UnixPath]) -> None:
        """Nothing else says what an app speaks that is not asked."""
        assert addresses.parse_upstream(text) == Upstream(tuple(endpoints), h2c=True)

    def test_http2_has_no_usual_port(self) -> None:
        """Who leaves it out would be sent to 80, where no server of gRPC is."""
        with pytest.raises(UnitError, match="has no port"):
            addresses.parse_upstream("h2c://app")

    @pytest.mark.parametrize(
        ("text", "fact"),
        [
            ("http://a,https://b", "some are http and some are https"),
            ("a:1,https://b", "some are http and some are https"),
            ("unix:/a,https+unix:/b", "some are http and some are https"),
            ("h2c://a:1,a:2", "some are h2c and some are http"),
            ("https://a,h2c+unix:/b", "some are https and some are h2c"),
        ],
    )
    def test_mixed_schemes_are_refused(self, text: str, fact: str) -> None:
        """A hop that is believed to be encrypted must not be in the clear at every second request."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_upstream(text)
        assert caught.value.fact == fact

    @pytest.mark.parametrize(
        ("scheme", "fix"),
        [("h2", "over TLS is not spoken"), ("GRPCS", "over TLS is not spoken"), ("grpc", "write h2c://HOST:PORT")],
    )
    def test_other_scheme_of_http2_is_told_what_there_is(self, scheme: str, fix: str) -> None:
        """Over TLS, HTTP/1.1 is spoken with the app, which is said before anybody waits for it."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_upstream(f"{scheme}://app:50051")
        assert "scheme other than http, https and h2c" in caught.value.fact
        assert fix in caught.value.fix

    @pytest.mark.parametrize(
        "text", ["a:1,b:1,http://a:1", "http://App,http://app:80", "unix:/a,unix:/a", "[::1]:1,[0::1]:1"]
    )
    def test_endpoint_that_stands_there_twice_is_refused(self, text: str) -> None:
        """It would get twice its share; the same address in another form is the same."""
        with pytest.raises(UnitError, match="stands there twice"):
            addresses.parse_upstream(text)

    def test_number_of_endpoints_is_bounded(self) -> None:
        """256 are read, one more is refused."""
        texts = [f"10.0.{i // 256}.{i % 256}:80" for i in range(257)]
        assert len(addresses.parse_upstream(",".join(texts[:256])).endpoints) == 256
        with pytest.raises(UnitError, match="257 endpoints, limit 256"):
            addresses.parse_upstream(",".join(texts))

    @pytest.mark.parametrize(
        "text", ["http://user:hunter2@app:80", "user:hunter2@app:80", "https://user:hunter2@app", "a:1,hunter2@b:1"]
    )
    def test_password_is_refused_and_not_shown(self, text: str) -> None:
        """User information is refused, and the refusal does not repeat it."""
        for parse in (addresses.parse_upstream, addresses.parse_endpoint):
            with pytest.raises(UnitError) as caught:
                parse(text)
            assert "no place for a user name or password" in caught.value.fact
            assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "text", ["http://app/path", "http://app:80/?q", "https://app?q", "http://app#f", "http://app//"]
    )
    def test_path_or_query_is_refused(self, text: str) -> None:
        """Requests keep their own path; one in the upstream is refused, not ignored."""
        with pytest.raises(UnitError, match="has a path or query"):
            addresses.parse_upstream(text)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "app", "8080", ":8080", "http://", "http://:80", "http:app:80", "tcp://app:80", "http://a:0"),
            *("//a:80", "https:", "https+unix:", "http+unix:/a", ","),
        ],
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """A missing host, another scheme and port 0 are refused."""
        with pytest.raises(UnitError):
            addresses.parse_upstream(text)

    @pytest.mark.parametrize(
        "text", ["unix:", "unix:run/app.sock", "unix:@abstract", "unix:///run/app.sock", "unix:/a\nb"]
    )
    def test_unix_path_that_is_not_absolute_is_refused(self, text: str) -> None:
        """A socket has an absolute path on one line."""
        for whole in (text, f"https+{text}", f"h2c+{text}"):
            with pytest.raises(UnitError):
                addresses.parse_upstream(whole)

    def test_unix_url_is_told_the_right_form(self) -> None:
        """The fix for the URL form is the text to write."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_upstream("https+unix:///run/app.sock")

        assert caught.value.fix == "write https+unix:/run/app.sock"

    def test_unix_path_is_bounded_by_the_kernel(self) -> None:
        """107 bytes fit into a socket address, 108 do not."""
        assert addresses.parse_endpoint("unix:/" + "x" * 106) == UnixPath("/" + "x" * 106)
        with pytest.raises(UnitError, match="108 bytes, limit 107"):
            addresses.parse_upstream("unix:/" + "x" * 107)

    @given(
        st.lists(ADDRESSES | st.just(UnixPath("/run/a b.sock")), min_size=1, max_size=4, unique_by=str),
        st.sampled_from([{}, {"tls": True}, {"h2c": True}]),
    )
    def test_canonical_text_reads_back(self, endpoints: list[HostPort | UnixPath], spoken: dict[str, bool]) -> None:
        """The canonical text of an upstream parses to that upstream."""
        value = Upstream(tuple(endpoints), **spoken)

        assert addresses.parse_upstream(addresses.upstream_text(value)) == value


class TestEndpoint:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("app:80", HostPort("app", 80)),
            ("[::1]:80", HostPort("::1", 80)),
            ("unix:/run/app.sock", UnixPath("/run/app.sock")),
        ],
    )
    def test_address_is_read(self, text: str, expected: HostPort | UnixPath) -> None:
        """As in an upstream, but for the scheme."""
        assert addresses.parse_endpoint(text) == expected

    @pytest.mark.parametrize("text", ["http://app:80", "https://app"])
    def test_scheme_is_refused_in_words(self, text: str) -> None:
        """Whoever writes https must not get plain HTTP."""
        with pytest.raises(UnitError, match="said by the tls of the cluster"):
            addresses.parse_endpoint(text)

    @pytest.mark.parametrize(("host", "is_name"), [("app", True), ("127.0.0.1", False), ("fe80::1%eth0", False)])
    def test_name_is_told_from_address(self, host: str, is_name: bool) -> None:
        """Only names need a resolver."""
        assert addresses.is_name(host) is is_name


class TestNetworks:
    @pytest.mark.parametrize(
        ("text", "networks"),
        [
            ("10.0.0.0/8, fd00::/8", ("10.0.0.0/8", "fd00::/8")),
            ("192.0.2.7,2001:DB8::0:1", ("192.0.2.7/32", "2001:db8::1/128")),
            ("10.0.0.1,10.0.0.1/32,", ("10.0.0.1/32",)),
            ("0.0.0.0/0,::/0", ("0.0.0.0/0", "::/0")),
            ("none", ()),
        ],
    )
    def test_networks_are_read_once_each(self, text: str, networks: tuple[str, ...]) -> None:
        """Networks in CIDR notation, and single addresses."""
        assert addresses.parse_networks(text) == networks
        assert addresses.parse_networks(addresses.names_text(networks)) == networks

    @pytest.mark.parametrize(
        ("text", "fix"),
        [
            ("10.0.0.1/8", "write 10.0.0.0/8 for all of it, or 10.0.0.1 for this one"),
            ("fd00::1/8", "write fd00::/8 for all of it, or fd00::1 for this one"),
            ("10.0.0.0/255.0.0.0", "write 10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
            ("::ffff:10.0.0.1", "write 10.0.0.1/32"),
        ],
    )
    def test_slip_is_refused_with_what_was_meant(self, text: str, fix: str) -> None:
        """Host bits, masks and mapped addresses: nobody should trust more, or less, than was meant."""
        with pytest.raises(UnitError) as caught:
            addresses.parse_networks(f"192.0.2.1,{text}")

        assert caught.value.fix == fix

    @pytest.mark.parametrize(
        "text",
        ["10.0.0.0/33", "10.0.0.256", "fd00::/129", "10.1", "lan", "10.0.0.0/-1", "10.0.0.0/8/8", "fe80::1%eth0"],
    )
    def test_what_is_no_network_is_refused(self, text: str) -> None:
        """Names are none: trust does not depend on a resolver."""
        with pytest.raises(UnitError):
            addresses.parse_networks(text)

    def test_number_of_networks_is_bounded(self) -> None:
        """A thousand are read, one more is refused."""
        texts = [f"10.0.{i // 256}.{i % 256}" for i in range(1001)]
        assert len(addresses.parse_networks(",".join(texts[:1000]))) == 1000
        with pytest.raises(UnitError, match="1,001 networks, limit 1,000"):
            addresses.parse_networks(",".join(texts))


class TestTlsNames:
    def test_names_addresses_and_uris_are_read(self) -> None:
        """Names in lower case; a URI stays as it is, since only its scheme and host have no case."""
        text = "App.Internal, 10.0.0.1,spiffe://Prod/ns/Web,urn:uuid:1-2,app.internal"

        assert addresses.parse_tls_names(text) == ("app.internal", "10.0.0.1", "spiffe://Prod/ns/Web", "urn:uuid:1-2")
        assert addresses.parse_tls_names("none") == ()

    @pytest.mark.parametrize(
        "text",
        [
            *("*.internal", "app:443", "spiffe://", "spiffe:///ns", "spiffe://prod/ns?x", "spiffe://prod/*"),
            *("spiffe://u@prod/ns", "spiffe://prod/n\x85s", "https://" + "x" * 2048, "10.0.0.0/8", "urn:"),
        ],
    )
    def test_what_a_certificate_cannot_be_compared_with_is_refused(self, text: str) -> None:
        """Among them wildcards, which stand in certificates."""
        with pytest.raises(UnitError):
            addresses.parse_tls_names(f"ok.example,{text}")


class TestServerName:
    def test_name_is_read_in_lower_case(self) -> None:
        """As in SNI."""
        assert addresses.parse_server_name("App.Internal") == "app.internal"
        assert addresses.parse_server_name("none") == ""

    @pytest.mark.parametrize("text", ["10.0.0.1", "::1", "app:443", "a b", "a\nb", "*.internal", "x" * 64])
    def test_what_is_no_name_is_refused(self, text: str) -> None:
        """RFC 6066 knows no addresses."""
        with pytest.raises(UnitError, match="is no host name"):
            addresses.parse_server_name(text)


class TestAuthority:
    @pytest.mark.parametrize(
        ("text", "authority"),
        [
            ("App.Internal", "app.internal"),
            ("app:8080", "app:8080"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::0:1]:80", "[::1]:80"),
            ("[::1]", "[::1]"),
            ("none", ""),
        ],
    )
    def test_host_is_read_with_or_without_port(self, text: str, authority: str) -> None:
        """What is written into a Host field is well formed."""
        assert addresses.parse_authority(text) == authority

    @pytest.mark.parametrize(
        "text", ["a b", "a\r\nX: y", "http://a", "a/b", ":80", "a:0", "u@a", "[fe80::1%eth0]", "::1"]
    )
    def test_what_is_no_host_is_refused(self, text: str) -> None:
        """It would break requests."""
        with pytest.raises(UnitError):
            addresses.parse_authority(text)


class TestAlpn:
    def test_names_are_read_in_order_once(self) -> None:
        """The best first."""
        assert addresses.parse_alpn("h2, http/1.1,,h2") == ("h2", "http/1.1")
        assert addresses.parse_alpn("none") == ()
        assert addresses.parse_alpn("x" * 255) == ("x" * 255,)

    @pytest.mark.parametrize("text", ["x" * 256, "a b", "a\x7f", "ü", ",".join(map(str, range(17)))])
    def test_what_no_handshake_carries_is_refused(self, text: str) -> None:
        """One octet tells the length of a name."""
        with pytest.raises(UnitError):
            addresses.parse_alpn(text)


class TestHealthCheck:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("/healthz", "/healthz"), ("/h?a=b%20c", "/h?a=b%20c"), ("TCP", "tcp"), ("none", ""), ("off", "")],
    )
    def test_path_or_word_is_read(self, text: str, value: str) -> None:
        """What is asked for, or that a connection is enough."""
        assert addresses.parse_health_check(text) == value

    @pytest.mark.parametrize(
        "text", ["healthz", "http://a/b", "/a b", "/a\r\nb", "/ü", "/a#b", "/" + "x" * 1024, "udp"]
    )
    def test_what_cannot_be_asked_for_is_refused(self, text: str) -> None:
        """It would break the request, or ask for something else."""
        with pytest.raises(UnitError, match="is neither a path nor tcp"):
            addresses.parse_health_check(text)
