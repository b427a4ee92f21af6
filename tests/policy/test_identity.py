"""`sidecar.policy.identity`: who a client is, by its certificate."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.policy.identity import LARGEST_CERTIFICATE, MOST_NAMES, IdentityError, PeerIdentity, identity_of
from tests.support.certs import DAY, NOW, authority, ecdsa_key

CN, OU, O, MAIL = (  # noqa: E741 - as they are called
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.EMAIL_ADDRESS,
)
HOSTILE = 'a\r\nX: b\0"\\,;+=<># é\u202e '


def rdn(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.RelativeDistinguishedName:
    return x509.RelativeDistinguishedName([x509.NameAttribute(oid, value) for oid, value in attributes])


def certificate(
    *subject: x509.RelativeDistinguishedName,
    names: Sequence[x509.GeneralName] = (),
    purposes: Sequence[str] = (),
    extra: bytes = b"",
    serial: int = 0x0A1B,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(list(subject)))
        .issuer_name(authority().certificate.subject)
        .public_key(ecdsa_key().public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    if purposes:
        oids = [x509.ObjectIdentifier(purpose) for purpose in purposes]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
    if extra:
        private = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(private, extra), critical=False)
    return builder.sign(authority().key, hashes.SHA256())


def edited(old: bytes, new: bytes, found: x509.Certificate) -> x509.Certificate:
    """*found* with other bytes of the same length in it, as only an attacker writes them."""
    der = found.public_bytes(Encoding.DER)
    assert der.count(old) == 1
    assert len(old) == len(new)
    return x509.load_der_x509_certificate(der.replace(old, new))


class TestIdentityOf:
    def test_every_kind_of_name_is_read(self) -> None:
        """Alternative names and attributes of the subject come in order, each in its kind; other kinds are left."""
        found = identity_of(
            certificate(
                rdn((O, "Example")),
                rdn((OU, "payments")),
                rdn((OU, "web")),
                rdn((CN, "ci")),
                names=[
                    x509.DNSName("b.example.org"),
                    x509.UniformResourceIdentifier("spiffe://prod/ns/a"),
                    x509.DNSName("*.a.example.org"),
                    x509.RFC822Name("ops@example.org"),
                    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
                    x509.IPAddress(ipaddress.ip_address("2001:DB8:0::1")),
                    x509.DirectoryName(x509.Name([rdn((CN, "other"))])),
                    x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                ],
            )
        )
        assert found.dns == ("b.example.org", "*.a.example.org")
        assert found.uri == ("spiffe://prod/ns/a",)
        assert found.email == ("ops@example.org",)
        assert found.ip == ("10.0.0.1", "2001:db8::1")
        assert found.common_names == ("ci",)
        assert found.organizational_units == ("payments", "web")
        assert found.organizations == ("Example",)
        assert found.subject == "CN=ci,OU=web,OU=payments,O=Example"
        assert found.issuer == "CN=Test Root CA"

    def test_numbers_and_dates_are_read(self) -> None:
        """Serial, fingerprints and validity are in the forms that the docstring promises."""
        cert = certificate(rdn((CN, "ci")))
        found = identity_of(cert)
        spki = cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert found.serial == "a1b"
        assert found.sha256 == cert.fingerprint(hashes.SHA256()).hex()
        assert found.spki_sha256 == hashlib.sha256(spki).hexdigest()
        assert (found.not_before, found.not_after) == (NOW.timestamp(), (NOW + DAY).timestamp())

    def test_purposes_have_names_or_numbers(self) -> None:
        """A purpose that is well known has its name, any other its number, in order."""
        oids = [ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string, "1.2.3.4", ExtendedKeyUsageOID.SERVER_AUTH.dotted_string]
        assert identity_of(certificate(purposes=oids)).purposes == ("clientAuth", "1.2.3.4", "serverAuth")

    def test_certificate_without_names_has_none(self) -> None:
        """What a certificate does not say is empty, not made up from something else."""
        found = identity_of(certificate())
        assert (found.dns, found.uri, found.email, found.ip, found.purposes) == ((), (), (), (), ())
        assert (found.common_names, found.subject, found.name) == ((), "", "")

    def test_sets_and_repeated_attributes_are_read(self) -> None:
        """Several attributes in one set, and one kind several times, all count."""
        found = identity_of(certificate(rdn((CN, "a"), (OU, "x")), rdn((CN, "b")), rdn((CN, "a"))))
        assert sorted(found.common_names) == ["a", "a", "b"]
        assert found.organizational_units == ("x",)
        assert found.subject.count("+") == 1

    def test_hostile_characters_are_kept(self) -> None:
        """A name is what the CA signed, whatever is in it: nothing is cut at a NUL or cleaned up."""
        ascii_part = HOSTILE.encode("ascii", "ignore").decode()
        names: list[x509.GeneralName] = [x509.DNSName(ascii_part), x509.UniformResourceIdentifier(ascii_part)]
        found = identity_of(certificate(rdn((CN, HOSTILE)), rdn((OU, HOSTILE)), names=names))
        assert found.common_names == found.organizational_units == (HOSTILE,)
        assert found.dns == found.uri == (ascii_part,)

    def test_separators_in_values_are_escaped_in_the_subject(self) -> None:
        """A comma in a value does not begin another attribute of the subject."""
        assert identity_of(certificate(rdn((CN, "a,OU=admin")))).subject == r"CN=a\,OU=admin"

    @pytest.mark.parametrize(
        ("kind", "what"),
        [("names", "alternative names"), ("purposes", "purposes"), ("subject", "attributes in its subject")],
    )
    def test_as_many_as_the_limit_are_read_and_one_more_is_not(self, kind: str, what: str) -> None:
        """A certificate with more names than the limit is refused whole: one that is not read might be denied."""

        def with_count(count: int) -> x509.Certificate:
            if kind == "names":
                return certificate(names=[x509.DNSName(f"n{i}") for i in range(count)])
            if kind == "purposes":
                return certificate(purposes=[f"1.2.{i}" for i in range(count)])
            return certificate(*(rdn((OU, f"n{i}")) for i in range(count)))

        assert identity_of(with_count(MOST_NAMES))
        with pytest.raises(IdentityError, match=f"has {MOST_NAMES + 1} {what}, limit {MOST_NAMES}"):
            identity_of(with_count(MOST_NAMES + 1))

    def test_ten_thousand_names_are_refused(self) -> None:
        """A certificate that is too large is refused before its names are looked at."""
        with pytest.raises(IdentityError, match=rf"is [67]\d,\d\d\d bytes, limit {LARGEST_CERTIFICATE:,}"):
            identity_of(certificate(names=[x509.DNSName(f"a{i}") for i in range(10_000)]))

    def test_large_certificate_with_few_names_is_read(self) -> None:
        """Size alone is no fault up to the limit."""
        assert identity_of(certificate(rdn((CN, "ci")), extra=bytes(60_000))).common_names == ("ci",)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            pytest.param(b"\x0c\x04name", b"\x14\x04\xe9\xe9me", id="T61String in the subject"),
            pytest.param(b"\x0c\x04name", b"\x03\x04\x00\x00me", id="BIT STRING in the subject"),
            pytest.param(b"\x0c\x04name", b"\x30\x04\x05\x00\x05\x00", id="SEQUENCE in the subject"),
            pytest.param(b"\x82\x04host", b"\x82\x04h\xf6st", id="DNS name that is not ASCII"),
            pytest.param(b"\x82\x04host", b"\x82\x05host", id="DNS name that ends too late"),
            pytest.param(b"\x87\x04\x0a\x00\x00\x01", b"\x87\x03\x0a\x00\x00\x01", id="address that ends too early"),
            pytest.param(b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a\x86\x48\xce\x3d\x03\x01\x7f", id="unknown curve"),
        ],
    )
    def test_unreadable_contents_are_our_error(self, old: bytes, new: bytes) -> None:
        """What cannot be parsed raises one error, which does not quote the certificate."""
        names: list[x509.GeneralName] = [
            x509.DNSName("host"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        ]
        cert = edited(old, new, certificate(rdn((CN, "name")), names=names))
        with pytest.raises(IdentityError, match=r"cannot be read \([A-Za-z]+\)\Z"):
            identity_of(cert)

    def test_any_changed_byte_gives_an_identity_or_our_error(self) -> None:
        """Whatever bytes a certificate that still loads is made of, nothing but our error comes out."""
        der = certificate(rdn((CN, "name")), names=[x509.DNSName("host")], purposes=["1.2.3"]).public_bytes(
            Encoding.DER
        )
        outcomes = {
            _outcome(der[:i] + bytes([der[i] ^ flip]) + der[i + 1 :]) for i in range(len(der)) for flip in (1, 0x80)
        }
        assert outcomes == {"not loaded", "read", "refused"}


def _outcome(der: bytes) -> str:
    try:
        cert = x509.load_der_x509_certificate(der)
    except Exception:
        return "not loaded"
    try:
        assert isinstance(identity_of(cert), PeerIdentity)
    except IdentityError:
        return "refused"
    return "read"


class TestName:
    @pytest.mark.parametrize(
        ("names", "name"),
        [
            ([x509.DNSName("d"), x509.UniformResourceIdentifier("spiffe://u"), x509.RFC822Name("e@e")], "spiffe://u"),
            ([x509.RFC822Name("e@e"), x509.DNSName("d"), x509.DNSName("d2")], "d"),
            ([x509.RFC822Name("e@e")], "e@e"),
            ([], "ci"),
        ],
        ids=["uri", "dns", "email", "cn"],
    )
    def test_most_specific_name_is_chosen(self, names: list[x509.GeneralName], name: str) -> None:
        """An identity is called by its URI, else its DNS name, mail address or common name."""
        assert identity_of(certificate(rdn((CN, "ci")), names=names)).name == name

    def test_subject_is_the_last_resort(self) -> None:
        """An identity with none of these is called by its subject."""
        assert identity_of(certificate(rdn((O, "Example")))).name == "O=Example"
