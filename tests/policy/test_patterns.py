"""`sidecar.policy.patterns`: which names a pattern fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.patterns import FIELDS, WILD, PatternError, is_tainted


def fits(field: str, pattern: str, name: str) -> bool | None:
    return FIELDS[field].compile(pattern.replace("*", WILD))[1](name)


class TestDns:
    @pytest.mark.parametrize(
        ("pattern", "name"),
        [
            ("web.example.org", "web.example.org"),
            ("Web.Example.ORG", "wEB.example.org"),
            ("*.example.org", "web.example.org"),
            ("*.example.org", "WEB.example.org"),
            ("web-*.example.org", "web-.example.org"),
            ("web-*-*.example.org", "web-1-2.example.org"),
            ("a.*.org", "a.b.org"),
            ("*", "localhost"),
            ("_svc.example.org", "_svc.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ],
    )
    def test_same_name_fits(self, pattern: str, name: str) -> None:
        """A host name fits label by label; a wildcard stays within its label."""
        assert fits("dns", pattern, name)

    @pytest.mark.parametrize(
        ("pattern", "name"),
        [
            pytest.param("*.example.org", "example.org", id="no label for the wildcard"),
            pytest.param("*.example.org", ".example.org", id="empty label for the wildcard"),
            pytest.param("*.example.org", "a.b.example.org", id="two labels for the wildcard"),
            pytest.param("*.example.org", "*.example.org", id="wildcard certificate"),
            pytest.param("*.example.org", "web.example.org.", id="final dot"),
            pytest.param("*.example.org", "web.example.org.evil", id="more behind"),
            pytest.param("example.org", "evil-example.org", id="more in front"),
            pytest.param("*.example.org", "wéb.example.org", id="not ASCII"),
            pytest.param("*.example.org", "a/b.example.org", id="no host name"),
            pytest.param("*.example.org", "web.example.oRG\u200b", id="zero-width space"),
            pytest.param("k.example", "\u212a.example", id="Kelvin sign"),
            pytest.param("*.example", "\u212a.example", id="Kelvin sign for the wildcard"),
            pytest.param("ab*ba.example", "aba.example", id="pieces that would overlap"),
            pytest.param("*", "", id="empty name"),
        ],
    )
    def test_other_name_does_not_fit(self, pattern: str, name: str) -> None:
        """A host name that differs in anything but the case of ASCII letters does not fit."""
        assert not fits("dns", pattern, name)


class TestUri:
    @pytest.mark.parametrize(
        ("pattern", "name"),
        [
            ("spiffe://prod/ns/a/sa/web", "spiffe://prod/ns/a/sa/web"),
            ("SPIFFE://Prod/ns", "spiffe://pROD/ns"),
            ("spiffe://prod/ns/*/sa/web", "spiffe://prod/ns/a/sa/web"),
            ("spiffe://prod/ns/team-*/sa/*", "spiffe://prod/ns/team-x/sa/web"),
            ("spiffe://prod/**", "spiffe://prod/ns"),
            ("spiffe://prod/**", "spiffe://prod/ns/a/sa/web"),
            ("spiffe://prod/*/x/**", "spiffe://prod/ns/x/y"),
            ("spiffe://prod/a%2Fb", "spiffe://prod/a%2Fb"),
            ("urn:uuid:f81d", "URN:uuid:f81d"),
            ("https://a.example:8443/x?y#z", "https://A.example:8443/x?y#z"),
        ],
    )
    def test_same_uri_fits(self, pattern: str, name: str) -> None:
        """A URI fits segment by segment; scheme and trust domain have no case."""
        assert fits("uri", pattern, name)

    @pytest.mark.parametrize(
        ("pattern", "name"),
        [
            pytest.param("spiffe://prod/ns/A", "spiffe://prod/ns/a", id="case of the path"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/a/b", id="two segments for the wildcard"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/", id="empty segment for the wildcard"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/..", id="dot segment for the wildcard"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/%2e%2e", id="encoded dot segment for the wildcard"),
            pytest.param("spiffe://prod/ns/*/sa/web", "spiffe://prod/ns/x?/sa/web", id="query within"),
            pytest.param("spiffe://prod/ns/*/sa/web", "spiffe://prod/ns/x#/sa/web", id="fragment within"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/a\\b", id="backslash for the wildcard"),
            pytest.param("spiffe://prod/ns/*", "spiffe://prod/ns/é", id="not ASCII"),
            pytest.param("spiffe://prod/**", "spiffe://prod", id="no rest"),
            pytest.param("spiffe://prod/**", "spiffe://prod/", id="empty rest"),
            pytest.param("spiffe://prod/ns/**", "spiffe://prod/ns/../admin", id="dot segment in the rest"),
            pytest.param("spiffe://prod/ns/**", "spiffe://prod/ns/a%2F..", id="encoding in the rest"),
            pytest.param("spiffe://prod/ns/**", "spiffe://prod/ns/a//b", id="empty segment in the rest"),
            pytest.param("spiffe://prod/ns/**", "spiffe://prod/nsx/a", id="longer segment before the rest"),
            pytest.param("spiffe://prod/**", "spiffe://prod.evil/x", id="longer trust domain"),
            pytest.param("spiffe://prod/**", "spiffe://prod@evil/x", id="user part"),
            pytest.param("spiffe://prod/**", "spiffe://evil/prod/x", id="other trust domain"),
            pytest.param("spiffe://prod/**", "spiffe:/prod/x", id="no authority"),
            pytest.param("spiffe://prod/**", "prod/x", id="no scheme"),
            pytest.param("spiffe://k/**", "spiffe://\u212a/x", id="Kelvin sign"),
            pytest.param("spiffe://prod/a%2Fb", "spiffe://prod/a/b", id="decoded"),
            pytest.param("spiffe://prod/a%2Fb", "spiffe://prod/a%2fb", id="other spelling of an encoding"),
        ],
    )
    def test_other_uri_does_not_fit(self, pattern: str, name: str) -> None:
        """A URI that another program could read as one outside the pattern does not fit."""
        assert not fits("uri", pattern, name)


class TestOtherFields:
    @pytest.mark.parametrize(
        ("field", "pattern", "name", "result"),
        [
            ("email", "ops@example.org", "ops@Example.ORG", True),
            ("email", "ops@example.org", "OPS@example.org", False),
            ("email", "*@example.org", "ops+x@example.org", True),
            ("email", "*@*.example.org", "ops@a.example.org", True),
            ("email", "*@example.org", "@example.org", None),
            ("email", "*@example.org", '"a@evil"@example.org', None),
            ("email", "*@example.org", "ops@evil@example.org", None),
            ("email", "*@example.org", "ops", False),
            ("ip", "10.0.0.0/8", "10.255.0.1", True),
            ("ip", "10.0.0.0/8", "11.0.0.1", False),
            ("ip", "10.0.0.0/8", "::ffff:10.0.0.1", None),
            ("ip", "10.0.0.0/8", "10.0.0.0/9", None),
            ("ip", "10.0.0.1", "10.0.0.1", True),
            ("ip", "2001:DB8::/32", "2001:db8::1", True),
            ("ip", "2001:db8:0:0::1", "2001:db8::1", True),
            ("cn", "web", "web", True),
            ("cn", "web", "Web", False),
            ("cn", "web-*", "web-", True),
            ("cn", "*-web", "a b,c-web", True),
            ("cn", "a", "\u0430", False),
            ("cn", "é", "e\u0301", False),
            ("ou", "pay*ments", "payment", False),
            ("o", "*a*b*", "xaxbx", True),
            ("o", "*a*b*", "xbxax", False),
            ("subject", "CN=web,O=Acme", "CN=web,O=Acme", True),
            ("subject", "CN=web*,O=Acme", "CN=web-1,O=Acme", True),
            ("subject", "CN=web*,O=Acme", "CN=web,OU=x,O=Acme", False),
            ("subject", "CN=web*,O=Acme", r"CN=web\,O=Acme", False),
            ("subject", "CN=web*,O=Acme", r"CN=web\,O=Acme,O=Acme", True),
            ("subject", "CN=web*,O=Acme", "CN=web+OU=x,O=Acme", False),
            ("subject", "CN=*", "CN=a+OU=b", False),
            ("subject", r"CN=a\,b", r"CN=a\,b", True),
            ("issuer", "CN=* CA,O=Acme", "CN=Root CA,O=Acme", True),
            ("serial", "0A:1B", "a1b", True),
            ("serial", "00", "0", True),
            ("serial", "a1b", "a1bc", False),
            ("sha256", "AB:" * 31 + "AB", "ab" * 32, True),
            ("spki", "ab" * 32, "ab" * 32, True),
            ("spki", "ab" * 32, "ba" * 32, False),
            ("eku", "clientAuth", "clientAuth", True),
            ("eku", "CLIENTauth", "clientAuth", True),
            ("eku", "1.3.6.1.5.5.7.3.2", "clientAuth", True),
            ("eku", "1.2.3", "1.2.3", True),
            ("eku", "1.2.3", "1.2.3.4", False),
        ],
    )
    def test_name_fits_or_not(self, field: str, pattern: str, name: str, result: bool) -> None:
        """Each field compares in its own way: exactly, but for what the table of the language says."""
        assert fits(field, pattern, name) is result


class TestWrongPatterns:
    @pytest.mark.parametrize(
        ("field", "pattern", "hint"),
        [
            ("dns", "web..example", "not a host name"),
            ("dns", "web.example.", "not a host name"),
            ("dns", "bücher.example", "xn--"),
            ("dns", "a b", "not a host name"),
            ("dns", "https://a", "not a host name"),
            ("dns", "a" * 254, "not a host name"),
            ("uri", "web.example.org", "not a URI"),
            ("uri", "spiffe://*/ns", "wildcards stand in the path only"),
            ("uri", "spiffe://a@b/ns", "plain host name"),
            ("uri", "spiffe://prod/**/x", "the rest of the path"),
            ("uri", "spiffe://prod/a**", "the rest of the path"),
            ("uri", "spiffe://prod/***", "the rest of the path"),
            ("uri", "*://prod", "not a URI"),
            ("uri", "urn:**", "the rest of the path"),
            ("email", "example.org", "not a mail address"),
            ("email", "@example.org", "not a mail address"),
            ("email", "a@b@", "not a host name"),
            ("ip", "10.0.0.1/8", "write 10.0.0.0/8 for all of it"),
            ("ip", "10.0.0.256", "not an address or network"),
            ("ip", "web", "not an address or network"),
            ("subject", "web", "not a distinguished name"),
            ("subject", "CN=a,b", "not a distinguished name"),
            ("subject", "CN=a\\", "not a distinguished name"),
            ("issuer", "*=a", "not a distinguished name"),
            ("serial", "0x1b", "not a serial number"),
            ("serial", "1b-", "not a serial number"),
            ("sha256", "ab" * 20, "not a SHA-256 value"),
            ("sha256", "xy" * 32, "not a SHA-256 value"),
            ("spki", "a" * 63 + "x", "not a SHA-256 value"),
            ("eku", "client", "not a purpose"),
            ("eku", "1..2", "not a purpose"),
            ("eku", "1.2.3x", "not a purpose"),
        ],
    )
    def test_is_refused_with_a_hint(self, field: str, pattern: str, hint: str) -> None:
        """A pattern that could never fit, or not as meant, is an error that says what to write."""
        with pytest.raises(PatternError) as caught:
            FIELDS[field].compile(pattern.replace("*", WILD))
        assert hint in str(caught.value)
        assert caught.value.fix


class TestCompile:
    @pytest.mark.parametrize(
        ("field", "pattern", "canonical"),
        [
            ("dns", "Web.Example", "web.example"),
            ("uri", "SPIFFE://Prod/NS", "spiffe://prod/NS"),
            ("email", "Ops@Example.ORG", "Ops@example.org"),
            ("ip", "2001:DB8:0::1", "2001:db8::1"),
            ("ip", "10.0.0.1/32", "10.0.0.1"),
            ("serial", "00:FF", "ff"),
            ("sha256", "AB" * 32, "ab" * 32),
            ("eku", "1.3.6.1.5.5.7.3.1", "serverAuth"),
        ],
    )
    def test_text_is_canonical(self, field: str, pattern: str, canonical: str) -> None:
        """Two spellings of one pattern become the same text."""
        assert FIELDS[field].compile(pattern)[0] == canonical

    def test_host_name_may_be_as_long_as_dns_has_them(self) -> None:
        """A name of 253 characters, the most that DNS has, is a pattern."""
        name = "a." * 126 + "a"
        assert fits("dns", name, name)

    def test_many_wildcards_are_compared_without_going_back(self) -> None:
        """A pattern of many wildcards on a long name that nearly fits is told at once."""
        assert not fits("cn", "a*" * 200 + "b", "a" * 50_000)
        assert not fits("uri", "spiffe://p/" + "a*" * 200 + "b", "spiffe://p/" + "a" * 50_000)
        assert not fits("subject", "CN=" + "a*" * 200 + "b", "CN=" + "a\\," * 20_000)

    @given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
    def test_wildcards_mean_what_a_definition_by_cases_says(self, pattern: str, name: str) -> None:
        """A wildcard fits any run of characters, an empty one too."""

        def slow(pattern: str, name: str) -> bool:
            if not pattern:
                return not name
            if pattern[0] == "*":
                return slow(pattern[1:], name) or (bool(name) and slow(pattern, name[1:]))
            return bool(name) and name[0] == pattern[0] and slow(pattern[1:], name[1:])

        assert fits("cn", pattern, name) == slow(pattern, name)

    @given(st.text(max_size=30))
    def test_any_name_is_answered(self, name: str) -> None:
        """No name, however odd, makes a test of any field raise."""
        patterns = {"dns": "*.a", "uri": "a://b/*/**", "email": "*@a", "ip": "10.0.0.0/8", "cn": "a*b"} | {
            "subject": "CN=*,O=x",
            "serial": "ff",
            "eku": "clientAuth",
        }
        assert {fits(field, pattern, name) for field, pattern in patterns.items()} <= {True, False, None}


class TestDoubt:
    """Names that may mean what a pattern means to whoever else reads them: no list lets them in, or past it."""

    @pytest.mark.parametrize(
        ("field", "pattern", "name"),
        [
            ("dns", "*.example.org", "*.example.org"),
            ("dns", "web.example.org", "web.example.org."),
            ("dns", "*.example.org", "web.example.org."),
            ("dns", "*.example.org", "a b.example.org"),
            ("uri", "spiffe://prod/ns/bad/*", "spiffe://prod/ns/bad/x%41"),
            ("uri", "spiffe://prod/ns/bad/*", "spiffe://prod/ns/bad/x?y"),
            ("uri", "spiffe://prod/ns/**", "spiffe://prod/ns/bad/%2e"),
            ("email", "*@evil.org", '"a b"@evil.org'),
            ("email", "a@evil.org", "a@evil.org."),
            ("ip", "10.0.0.0/8", "10.1.0.0/16"),
            ("ip", "10.0.0.0/8", "::ffff:10.0.0.1"),
        ],
    )
    def test_doubtful_name_cannot_be_told(self, field: str, pattern: str, name: str) -> None:
        """Neither yes nor no: see `matchers.Matcher.may_match`."""
        assert fits(field, pattern, name) is None


class TestFields:
    def test_wildcards_are_for_names(self) -> None:
        """Numbers, addresses and purposes are written out."""
        fields = {name for name, field in FIELDS.items() if field.has_wildcards}
        assert fields == {"dns", "uri", "email", "cn", "ou", "o", "subject", "issuer"}

    def test_holder_is_named_by_names_of_its_own(self) -> None:
        """A department, an issuer or a number does not name a client in a log."""
        fields = {name for name, field in FIELDS.items() if field.names_holder}
        assert fields == {"dns", "uri", "email", "cn", "subject"}

    def test_names_with_commas_are_quoted(self) -> None:
        """Distinguished names have commas of their own."""
        assert {name for name, field in FIELDS.items() if field.is_dn} == {"subject", "issuer"}


class TestIsTainted:
    @pytest.mark.parametrize("name", ["a\0", "\r", "a\nb", "\x1b[0m", "a\x7f", "\x85", r"CN=a\00b"])
    def test_control_characters_taint(self, name: str) -> None:
        """A name with a control character, or a NUL as RFC 4514 writes it, is tainted."""
        assert is_tainted(name)

    @pytest.mark.parametrize("name", ["", "web.example.org", "a b, c", "é", r"CN=a\,b"])
    def test_others_do_not(self, name: str) -> None:
        """Everything else can be compared."""
        assert not is_tainted(name)
