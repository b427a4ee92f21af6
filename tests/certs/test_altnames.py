"""`certs.altnames`: names from text, and back."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509

from sidecar.certs.altnames import general_name, ip_address, is_host_name, name_text


class TestGeneralName:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            pytest.param("API.example.com", x509.DNSName("api.example.com"), id="dns"),
            pytest.param("*.example.com", x509.DNSName("*.example.com"), id="wildcard"),
            pytest.param("my_app", x509.DNSName("my_app"), id="container"),
            pytest.param("0:0::1", x509.IPAddress(ipaddress.ip_address("::1")), id="address"),
            pytest.param("A.b@EX.org", x509.RFC822Name("A.b@ex.org"), id="email"),
            pytest.param("http://a.example/b?c", x509.UniformResourceIdentifier("http://a.example/b?c"), id="uri"),
        ],
    )
    def test_kinds_are_told_apart(self, text: str, name: x509.GeneralName) -> None:
        """Each in the one spelling that duplicates are found by."""
        assert general_name(text) == name

    @pytest.mark.parametrize(
        ("name", "encoded"),
        [
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("例え.jp", "xn--r8jz45g.jp"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ],
    )
    def test_other_scripts_get_their_a_labels(self, name: str, encoded: str) -> None:
        """Certificates hold the xn-- form."""
        assert general_name(name) == x509.DNSName(encoded)

    @pytest.mark.parametrize(
        "name",
        ["a" * 64 + "ü.example", "straße.example", "σίγμας.example", "a\u200db.example", "a。example", "ﬁ.example"],
    )
    def test_name_with_two_forms_is_refused(self, name: str) -> None:
        """What IDNA 2003 maps to another name could become somebody else's name."""
        with pytest.raises(ValueError, match=r"no certain xn-- form; write that form"):
            general_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            *["", " ", "a b", "-a", "a-", "a..b", "a.", ".a", "a\n", "a" * 64, "a." * 127, "*", "a.*.b", "a*.b.c"],
            *["*.*.b.c", "1.2.3", "10.0.0.256", "[::1]", "a:443", "10.0.0.0/8", "*.10.0.0.1"],
        ],
    )
    def test_bad_name_is_refused(self, name: str) -> None:
        """What no client could match is no name."""
        with pytest.raises(ValueError, match=r"neither a DNS name nor an IP address; write it like"):
            general_name(name)

    def test_zone_of_an_address_is_refused(self) -> None:
        """It means something on one machine only."""
        with pytest.raises(ValueError, match="a zone, which a certificate cannot carry; leave the zone out"):
            general_name("fe80::1%eth0")


class TestIpAddress:
    @pytest.mark.parametrize("text", ["", "a.example", "1.2.3", "10.0.0.0/8", "[::1]"])
    def test_something_else_is_none(self, text: str) -> None:
        """What is no address may still be a name."""
        assert ip_address(text) is None

    def test_zone_is_refused(self) -> None:
        """It is an address, but not one for a certificate."""
        with pytest.raises(ValueError, match="a zone"):
            ip_address("fe80::1%eth0")


class TestIsHostName:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("a" * 63 + ".Example", True, id="longest-label"),
            pytest.param("a" * 64, False, id="longer-label"),
            pytest.param(".".join(["a" * 63] * 3 + ["b" * 61]), True, id="longest"),
            pytest.param(".".join(["a" * 63] * 3 + ["b" * 62]), False, id="longer"),
            pytest.param("*.a.example", False, id="wildcard"),
            pytest.param("\u212a.example", False, id="kelvin"),  # its small letter is k
            pytest.param("a\n", False, id="line"),
        ],
    )
    def test_only_names_of_hosts_are(self, text: str, expected: bool) -> None:
        """In any case, and in ASCII."""
        assert is_host_name(text) is expected


class TestNameText:
    @pytest.mark.parametrize("text", ["a.example", "::1", "a@ex.org", "spiffe://ex.org/a"])
    def test_it_is_what_was_typed(self, text: str) -> None:
        """Back and forth."""
        assert name_text(general_name(text)) == text

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(x509.DirectoryName(x509.Name([])), id="directory"),
            pytest.param(x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")), id="network"),
        ],
    )
    def test_kind_that_is_not_issued_is_refused(self, name: x509.GeneralName) -> None:
        """The sentence says what else to do."""
        with pytest.raises(ValueError, match=f"of the kind {type(name).__name__} is not issued here; leave it out"):
            name_text(name)
