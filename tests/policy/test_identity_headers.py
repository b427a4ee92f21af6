"""`sidecar.policy.identity_headers`: what the app is told about its client, and that nobody can add to it."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.authz import NO_CERTIFICATE, Presented
from sidecar.policy.identity import PeerIdentity, identity_of
from sidecar.policy.identity_headers import (
    CLAIMED_FAMILIES,
    CLAIMED_NAMES,
    LARGEST_SECTION,
    LONGEST_LINE,
    IdentityLines,
    TlsFacts,
    escaped_dn,
    identity_lines,
)
from sidecar.settings import IdentityDialect as Dialect
from sidecar.wire.fields import Fields
from sidecar.wire.grammar import FIELD_SECTION
from tests.support.certs import CLIENT, intermediate, pem

XFCC, CLIENT_CERT, X_SSL, X_AMZN, TLS = Dialect
ALL = frozenset(Dialect)

ISSUED = intermediate().issue("ci", "spiffe://prod/ns/a", purposes=CLIENT)
DER = ISSUED.certificate.public_bytes(Encoding.DER)
CHAIN = [certificate.public_bytes(Encoding.DER) for certificate in ISSUED.chain]
CI = attrs.evolve(identity_of(ISSUED.certificate), serial="a1b")

FACTS = TlsFacts(
    version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    group="X25519MLKEM768",
    server_name="api.example.org",
    resumed=False,
)
FLAW = "the client certificate has expired"


def write(
    *dialects: Dialect,
    identity: PeerIdentity = CI,
    certificate: bytes = DER,
    chain: list[bytes] | None = None,
    tls: TlsFacts = FACTS,
) -> IdentityLines:
    chain = CHAIN if chain is None else chain
    return identity_lines(dialects, Presented(identity), tls, certificate=certificate, chain=chain)


def read(lines: IdentityLines) -> dict[str, str]:
    """The lines as our own parser reads them; names as they were written."""
    assert FIELD_SECTION.fullmatch(lines.section)
    fields = Fields(lines.section)
    assert len(set(fields.names)) == len(fields.names)
    names = [line.partition(b":")[0].decode() for line in lines.section.splitlines()]
    return {name: fields.values(name.lower().encode())[0].decode("ascii") for name in names}


def elements(value: str) -> list[tuple[str, str]]:
    """The pairs of one XFCC element, read as Envoy's documentation says."""
    pairs = re.findall(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)(?:;|\Z)', value)
    assert sum(len(key) + 1 + len(text) + 1 for key, text in pairs) == len(value) + 1
    return [(key, re.sub(r'\\"', '"', text[1:-1]) if text.startswith('"') else text) for key, text in pairs]


class TestXfcc:
    def test_element_has_what_envoy_writes(self) -> None:
        """One element: Hash, Cert, Chain with the leaf, Subject in quotes, every URI, every DNS name."""
        identity = attrs.evolve(CI, dns=("a.example", "b.example"))
        fields = read(write(XFCC, identity=identity))
        assert list(fields) == ["X-Forwarded-Client-Cert"]
        pairs = elements(fields["X-Forwarded-Client-Cert"])
        assert [key for key, _ in pairs] == ["Hash", "Cert", "Chain", "Subject", "URI", "DNS", "DNS"]
        found = dict(pairs)
        assert found["Hash"] == CI.sha256
        assert unquote(found["Cert"]) == pem(ISSUED.certificate).decode()
        assert unquote(found["Chain"]) == pem(ISSUED.certificate, *ISSUED.chain).decode()
        assert 'Subject="CN=ci"' in fields["X-Forwarded-Client-Cert"]
        assert pairs[-3:] == [("URI", "spiffe://prod/ns/a"), ("DNS", "a.example"), ("DNS", "b.example")]

    def test_certificate_without_chain_and_names_has_no_keys_for_them(self) -> None:
        """A key without a value is not written, but for Subject, which Envoy always writes."""
        identity = attrs.evolve(CI, subject="", uri=(), dns=())
        fields = read(write(XFCC, identity=identity, chain=[]))
        keys = [key for key, _ in elements(fields["X-Forwarded-Client-Cert"])]
        assert keys == ["Hash", "Cert", "Subject"]

    @pytest.mark.parametrize(
        ("uri", "written"),
        [
            ("spiffe://a/b,c", 'URI="spiffe://a/b,c"'),
            ("spiffe://a/b;By=x", 'URI="spiffe://a/b;By=x"'),
            ("https://a?b=c", 'URI="https://a?b=c"'),
            ("spiffe://a/b c", 'URI="spiffe://a/b c"'),
        ],
    )
    def test_separators_are_quoted(self, uri: str, written: str) -> None:
        """A value with a separator stands in quotes."""
        value = read(write(XFCC, identity=attrs.evolve(CI, uri=(uri,))))["X-Forwarded-Client-Cert"]
        assert written in value
        assert ("URI", uri) in elements(value)

    @pytest.mark.parametrize("uri", ['a"', "a\\", 'a\\";Hash=x', "a\r\nX: y", "a\0", "é", " a", "", "a\t"])
    def test_value_that_has_no_safe_form_is_left_out(self, uri: str) -> None:
        """What readers might end elsewhere, or cannot see, is not written, and that is told."""
        lines = write(XFCC, identity=attrs.evolve(CI, uri=(uri, "spiffe://ok")))
        values = [value for key, value in elements(read(lines)["X-Forwarded-Client-Cert"]) if key == "URI"]
        assert values == ["spiffe://ok"]
        assert lines.left_out == ("X-Forwarded-Client-Cert URI: has characters that cannot be written",)

    def test_what_is_too_long_goes_in_order(self) -> None:
        """First the chain goes, then the certificate, then the names; the hash stays."""
        chain = [bytes(LONGEST_LINE)]
        lines = write(XFCC, chain=chain)
        assert [key for key, _ in elements(read(lines)["X-Forwarded-Client-Cert"])] == [
            "Hash",
            "Cert",
            "Subject",
            "URI",
            "DNS",
        ]
        assert lines.left_out == ("X-Forwarded-Client-Cert Chain: too long",)
        lines = write(XFCC, chain=chain, certificate=bytes(LONGEST_LINE))
        assert [key for key, _ in elements(read(lines)["X-Forwarded-Client-Cert"])] == ["Hash", "Subject", "URI", "DNS"]
        lines = write(XFCC, identity=attrs.evolve(CI, subject="CN=" + "a" * LONGEST_LINE))
        assert [key for key, _ in elements(read(lines)["X-Forwarded-Client-Cert"])] == ["Hash"]
        assert len(lines.left_out) == 5


class TestClientCert:
    def test_fields_are_byte_sequences(self) -> None:
        """RFC 9440: the certificate as a byte sequence, the chain as a list of them, without the certificate."""
        fields = read(write(CLIENT_CERT, chain=[*CHAIN, DER]))
        assert fields["Client-Cert"] == f":{base64.b64encode(DER).decode()}:"
        members = fields["Client-Cert-Chain"].split(", ")
        assert [base64.b64decode(member.strip(":"), validate=True) for member in members] == [*CHAIN, DER]
        assert all(re.fullmatch(":[A-Za-z0-9+/=]+:", member) for member in members)

    def test_no_chain_is_no_field(self) -> None:
        """An empty list is not written (RFC 8941 section 3.1)."""
        assert list(read(write(CLIENT_CERT, chain=[]))) == ["Client-Cert"]

    @pytest.mark.parametrize("certificate", [b"", bytes(LONGEST_LINE)], ids=["missing", "too long"])
    def test_no_certificate_is_no_chain(self, certificate: bytes) -> None:
        """RFC 9440 section 2.3: the chain is only sent with the certificate."""
        lines = write(CLIENT_CERT, certificate=certificate)
        assert lines.section == b""
        assert len(lines.left_out) == 1


class TestXSsl:
    def test_verified_certificate_is_told_as_by_nginx(self) -> None:
        """Names and forms are those of nginx's variables, but for the digest of the fingerprint."""
        fields = read(write(X_SSL))
        assert unquote(fields.pop("X-SSL-Client-Cert")) == pem(ISSUED.certificate).decode()
        assert fields == {
            "X-SSL-Client-Verify": "SUCCESS",
            "X-SSL-Client-S-DN": "CN=ci",
            "X-SSL-Client-I-DN": "CN=Test Intermediate CA",
            "X-SSL-Client-Serial": "0A1B",
            "X-SSL-Client-Fingerprint": CI.sha256,
        }

    def test_client_without_certificate_is_told(self) -> None:
        """An app can tell a client without certificate from one that was not asked about."""
        lines = identity_lines({X_SSL}, NO_CERTIFICATE, FACTS)
        assert lines.section == b"X-SSL-Client-Verify: NONE\r\n"

    @pytest.mark.parametrize("identity", [CI, None], ids=["readable", "unreadable"])
    def test_failed_certificate_is_told_without_its_names(self, identity: PeerIdentity | None) -> None:
        """Of a certificate that was not verified, the app learns why, and nothing that stands in it."""
        lines = identity_lines(ALL, Presented(identity, FLAW), FACTS, certificate=DER, chain=CHAIN)
        fields = read(lines)
        assert fields.pop("X-SSL-Client-Verify") == f"FAILED:{FLAW}"
        assert set(fields) == set(read(write(TLS)))

    @pytest.mark.parametrize("flaw", ["", "a\r\nX: y", "é", "a" * LONGEST_LINE], ids=["empty", "CRLF", "é", "long"])
    def test_flaw_that_cannot_be_written_is_told_without_it(self, flaw: str) -> None:
        """A failed certificate is never told as none, or not at all."""
        lines = identity_lines({X_SSL}, Presented(CI, flaw), FACTS)
        assert lines.section == b"X-SSL-Client-Verify: FAILED:invalid\r\n"

    @pytest.mark.parametrize(("serial", "written"), [("0", "00"), ("abc", "0ABC"), ("ff", "FF"), ("-5", None)])
    def test_serial_is_whole_bytes(self, serial: str, written: str | None) -> None:
        """A serial number has two digits for each byte; a negative one is not written."""
        lines = write(X_SSL, X_AMZN, identity=attrs.evolve(CI, serial=serial))
        assert read(lines).get("X-SSL-Client-Serial") == written
        assert read(lines).get("X-Amzn-Mtls-Clientcert-Serial-Number") == written
        assert len(lines.left_out) == (2 if written is None else 0)


class TestXAmzn:
    def test_verified_certificate_is_told_as_by_an_alb(self) -> None:
        """Names and forms are those of an Application Load Balancer in verify mode."""
        identity = attrs.evolve(CI, not_before=1695261017.0, not_after=1726797017.5)
        fields = read(write(X_AMZN, identity=identity))
        leaf = fields.pop("X-Amzn-Mtls-Clientcert-Leaf")
        assert unquote(leaf) == pem(ISSUED.certificate).decode()
        assert leaf.startswith("-----BEGIN%20CERTIFICATE-----%0A")
        assert not set(leaf) & set(" \n")
        assert set(leaf) & set("+/=")
        assert fields == {
            "X-Amzn-Mtls-Clientcert-Serial-Number": "0A1B",
            "X-Amzn-Mtls-Clientcert-Issuer": "CN=Test Intermediate CA",
            "X-Amzn-Mtls-Clientcert-Subject": "CN=ci",
            "X-Amzn-Mtls-Clientcert-Validity": "NotBefore=2023-09-21T01:50:17Z;NotAfter=2024-09-20T01:50:17Z",
        }

    @given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)))
    def test_dates_are_those_of_the_calendar(self, moment: datetime) -> None:
        """Every date that a certificate can have is written right."""
        seconds = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
        fields = read(write(X_AMZN, identity=attrs.evolve(CI, not_before=seconds)))
        # isoformat keeps the zeros of early years, which strftime does not everywhere.
        expected = datetime(1970, 1, 1) + timedelta(seconds=seconds // 1)
        assert f"NotBefore={expected.isoformat()}Z;" in fields["X-Amzn-Mtls-Clientcert-Validity"]


class TestTls:
    def test_facts_have_the_names_of_nginx(self) -> None:
        """The app is told about the connection whether or not there is a certificate."""
        assert read(identity_lines([TLS], NO_CERTIFICATE, FACTS)) == {
            "X-SSL-Protocol": "TLSv1.3",
            "X-SSL-Cipher": "TLS_AES_256_GCM_SHA384",
            "X-SSL-Curve": "X25519MLKEM768",
            "X-SSL-Server-Name": "api.example.org",
            "X-SSL-Session-Reused": ".",
        }

    def test_unknown_facts_are_not_told(self) -> None:
        """A fact that is not known is no line, and not missing either."""
        lines = write(TLS, tls=attrs.evolve(FACTS, group=None, server_name=None, resumed=True))
        assert list(read(lines)) == ["X-SSL-Protocol", "X-SSL-Cipher", "X-SSL-Session-Reused"]
        assert read(lines)["X-SSL-Session-Reused"] == "r"
        assert not lines.left_out

    @pytest.mark.parametrize("name", ["a\r\nX: y", "a b", "", "\\xe9", "a" * 256])
    def test_server_name_that_is_none_is_left_out(self, name: str) -> None:
        """The client chooses the server name; only what a host name can have is passed on."""
        lines = write(TLS, tls=attrs.evolve(FACTS, server_name=name))
        assert "X-SSL-Server-Name" not in read(lines)
        assert lines.left_out[0].startswith("X-SSL-Server-Name: ")


class TestIdentityLines:
    @pytest.mark.parametrize(
        ("value", "why"), [("a\r\nX: y", "has characters that cannot be written"), ("", "empty")], ids=["CRLF", "empty"]
    )
    def test_value_of_any_origin_is_checked(self, value: str, why: str) -> None:
        """Also a value that nobody hostile should have chosen is only written if it can be."""
        lines = write(TLS, tls=attrs.evolve(FACTS, cipher=value))
        assert "X-SSL-Cipher" not in read(lines)
        assert lines.left_out == (f"X-SSL-Cipher: {why}",)

    def test_name_without_utf8_is_left_out_everywhere(self) -> None:
        """A subject that cannot be written is missing from each dialect, and each time told."""
        lines = write(*Dialect, identity=attrs.evolve(CI, subject="CN=\ud800"))
        assert [what for what in lines.left_out if "Subject" in what or "S-DN" in what] == [
            f"{name}: has characters that cannot be written"
            for name in ("X-Forwarded-Client-Cert Subject", "X-SSL-Client-S-DN", "X-Amzn-Mtls-Clientcert-Subject")
        ]

    def test_dialects_stand_beside_each_other(self) -> None:
        """Several dialects are written together, each as if alone."""
        alone = b"".join(write(dialect).section for dialect in Dialect)
        assert write(*Dialect).section == alone
        assert identity_lines((), Presented(CI), FACTS, certificate=DER) == IdentityLines(b"")

    @pytest.mark.parametrize("dialect", [XFCC, CLIENT_CERT, X_AMZN])
    def test_unverified_client_is_not_mentioned(self, dialect: Dialect) -> None:
        """These dialects are silent about whoever has no verified certificate."""
        for presented in (NO_CERTIFICATE, Presented(CI, FLAW), Presented(None, FLAW)):
            assert identity_lines([dialect], presented, FACTS, certificate=DER, chain=CHAIN).section == b""

    @pytest.mark.parametrize("size", range(5))
    def test_line_as_long_as_the_limit_is_written_and_one_byte_more_is_not(self, size: int) -> None:
        """A line that is too long is left out whole, and the caller is told."""
        room = LONGEST_LINE - len("X-SSL-Client-S-DN: CN=\r\n")
        lines = write(X_SSL, identity=attrs.evolve(CI, subject="CN=" + "a" * (room - 2 + size)))
        assert ("X-SSL-Client-S-DN" in read(lines)) is (size <= 2)
        assert lines.left_out == (() if size <= 2 else ("X-SSL-Client-S-DN: too long",))

    def test_section_is_bounded(self) -> None:
        """Lines for which there is no room are left out whole; shorter ones after them still have room."""
        identity = attrs.evolve(CI, subject="CN=" + "a" * 5000, issuer="CN=" + "b" * 5000)
        lines = write(*Dialect, identity=identity)
        assert LARGEST_SECTION - 5000 < len(lines.section) <= LARGEST_SECTION
        assert "X-SSL-Client-I-DN: too long" in lines.left_out
        assert "X-SSL-Session-Reused" in read(lines)


# What the writer of a certificate may try. The long ones are longer than all limits.
HOSTILE = (
    *("\r\nX-Evil: 1", "a\nb", "a\rb", "\0", '"', "\\", '\\"', ",", ";", "=", ";Hash=0;By=x", ', Hash=0;Subject="'),
    *("é", "\u202e", "\u2028", "\U0001f600", " ", "#", "+", "<>", "%0d%0a", "\x7f", "\x85", "a" * 100_000, ""),
)
hostile = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=4), max_size=4).map("".join)


@st.composite
def identities(draw: st.DrawFn) -> PeerIdentity:
    """An identity as `identity_of` could return it, with the worst in every name."""

    def name() -> str:
        attributes = draw(st.lists(st.tuples(st.sampled_from([NameOID.ORGANIZATION_NAME]), hostile), max_size=2))
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes if text]).rfc4514_string()

    several = st.lists(hostile, max_size=3).map(tuple)
    return attrs.evolve(CI, subject=name(), issuer=name(), uri=draw(several), dns=draw(several))


class TestHostileCertificates:
    @settings(deadline=None)
    @given(identities(), st.sets(st.sampled_from(Dialect)), hostile)
    def test_nothing_gets_out_of_its_value(self, identity: PeerIdentity, dialects: set[Dialect], sni: str) -> None:
        """Whatever stands in a certificate, our parser reads the expected names, once each, in visible ASCII."""
        lines = identity_lines(
            dialects, Presented(identity), attrs.evolve(FACTS, server_name=sni), certificate=DER, chain=CHAIN
        )
        fields = read(lines)
        expected = read(write(*dialects))
        assert set(fields) <= set(expected)
        assert set(expected) - set(fields) <= {missing.partition(":")[0] for missing in lines.left_out}
        assert len(lines.section) <= LARGEST_SECTION
        for value in fields.values():
            assert re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value)

    @settings(deadline=None)
    @given(identities())
    def test_element_has_no_pairs_of_the_certificate_s_making(self, identity: PeerIdentity) -> None:
        """A reader of XFCC finds the pairs that were written, with the values of the certificate."""
        pairs = elements(read(write(XFCC, identity=identity))["X-Forwarded-Client-Cert"])
        assert [value for key, value in pairs if key == "Hash"] == [CI.sha256]
        assert not [key for key, _ in pairs if key == "By"]
        assert {value for key, value in pairs if key == "URI"} <= set(identity.uri)
        assert {value for key, value in pairs if key == "DNS"} <= set(identity.dns)

    @settings(deadline=None)
    @given(identities())
    def test_names_have_as_many_attributes_as_in_the_certificate(self, identity: PeerIdentity) -> None:
        """Also a reader that splits at every comma, knowing no escapes, finds no attribute that is not there."""
        fields = read(write(X_SSL, identity=identity))
        if "X-SSL-Client-S-DN" in fields:
            attributes = fields["X-SSL-Client-S-DN"].split(",")
            assert len(attributes) == len(x509.Name.from_rfc4514_string(identity.subject).rdns)
            assert all(attribute.startswith("O=") for attribute in attributes)


class TestEscapedDn:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ("Acme, Inc.", r"O=Acme\2C Inc."),
            ('a"b\\c', r"O=a\22b\5Cc"),
            ("a+b;c<d>e", r"O=a\2Bb\3Bc\3Cd\3Ee"),
            ("#a ", r"O=\23a\20"),
            ("a\0b", r"O=a\00b"),
            ("a\r\n", r"O=a\0D\0A"),
            ("é", r"O=\C3\A9"),
            ("a=b", "O=a=b"),
            ("00", "O=00"),
            ("\\00", r"O=\5C00"),
        ],
    )
    def test_special_characters_become_hexadecimal(self, value: str, written: str) -> None:
        """A name that `cryptography` wrote is written with hexadecimal escapes only."""
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, value)])
        assert escaped_dn(name.rfc4514_string()) == written

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
    def test_name_is_the_same_to_a_reader(self, value: str) -> None:
        """A reader of RFC 4514 strings gets the name that stands in the certificate."""
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, value)])
        written = escaped_dn(name.rfc4514_string())
        assert written is not None
        assert x509.Name.from_rfc4514_string(written) == name

    @pytest.mark.parametrize("name", ['CN=a"b', "CN=a;b", "CN=a\\"])
    def test_what_should_have_been_escaped_is(self, name: str) -> None:
        """A quote, semicolon or last backslash never stands there as such, wherever the name comes from."""
        written = escaped_dn(name)
        assert written is not None
        assert not set(written) & set('";')
        assert re.fullmatch(r"CN=a\\[0-9A-F]{2}b?", written)

    def test_what_is_no_utf8_is_not_written(self) -> None:
        """Half a surrogate pair has no bytes to write."""
        assert escaped_dn("CN=\ud800") is None


class TestClaims:
    def test_whatever_we_write_clients_may_not_claim(self) -> None:
        """Every field of every dialect is claimed, so that a client's own is taken away also where ours is not set."""
        written = {name.lower().encode() for name in read(write(*Dialect))}
        assert [n for n in written if n not in CLAIMED_NAMES and not n.startswith(CLAIMED_FAMILIES)] == []

    @pytest.mark.parametrize(
        "name",
        [
            "x-amzn-mtls-clientcert",
            "x-amzn-tls-version",
            "ssl-client-cert",
            "ssl-client-subject-dn",
            "ssl-session-id",
            "x-forwarded-tls-client-cert-info",
            "x-client-cert-present",
            "x-client-certificate",
            "l5d-client-id",
            "x-remote-extra-groups",
            "-wscc",
        ],
    )
    def test_fields_of_others_are_claimed(self, name: str) -> None:
        """What apps take for verified because another proxy sets it is claimed too."""
        assert name.encode() in CLAIMED_NAMES or name.encode().startswith(CLAIMED_FAMILIES)

    def test_claims_are_in_the_form_that_is_compared(self) -> None:
        """Claims are lower case, with hyphens for every other character that names may have."""
        assert all(re.fullmatch(rb"[a-z0-9-]+", claim) for claim in (*CLAIMED_NAMES, *CLAIMED_FAMILIES))
        assert not [name for name in CLAIMED_NAMES if name.startswith(CLAIMED_FAMILIES)]
