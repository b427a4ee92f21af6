"""`certs.advice`: sentences about what works, but not well or not for long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from sidecar.certs.advice import expiry_level, warnings_of
from sidecar.certs.bundle import Bundle
from sidecar.certs.selfsigned import make
from tests.support.certs import DAY, NOW, authority, ecdsa_key, intermediate, other_authority, self_signed

SECOND = timedelta(seconds=1)
_AT = x509.UniformResourceIdentifier("http://ca.example/ca.crt")
ISSUER_ADDRESS = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, _AT)]
)
RESPONDER = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, _AT)])
NAMES = x509.SubjectAlternativeName([x509.DNSName("app.example")])


def name_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def issuer_of_issuer(name: str) -> x509.AuthorityKeyIdentifier:
    """What openssl's ``authorityKeyIdentifier=keyid,issuer:always`` writes."""
    return x509.AuthorityKeyIdentifier(b"1", [x509.DirectoryName(name_of(name))], 1)


def alone(issuer: str, *extensions: x509.ExtensionType) -> Bundle:
    """A leaf without a chain."""
    key = ecdsa_key()
    builder = x509.CertificateBuilder(name_of(issuer), name_of("app"), key.public_key(), 1, NOW - DAY, NOW + 90 * DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Bundle(builder.sign(ecdsa_key(), hashes.SHA256()), (), key)


class TestExpiryLevel:
    @pytest.mark.parametrize(
        ("left", "level"),
        [
            (31 * DAY, None),
            (30 * DAY + SECOND, None),
            (30 * DAY, 30),
            (7 * DAY + SECOND, 30),
            (7 * DAY, 7),
            (DAY + SECOND, 7),
            (DAY, 1),
            (timedelta(0), 1),
            (-SECOND, 0),
            (-90 * DAY, 0),
        ],
    )
    def test_alarm_is_that_of_the_time_left(self, left: timedelta, level: int | None) -> None:
        """30, 7 and 1 days before the end, and after it; the last moment is valid."""
        assert expiry_level(NOW + left, NOW) == level


class TestWarningsOf:
    def test_good_certificate_has_none(self) -> None:
        """A certificate with its chain, names and time left needs no words; nor does one of one's own."""
        assert warnings_of(intermediate().issue("app").bundle, NOW) == ()
        assert warnings_of(self_signed("localhost").bundle, NOW) == ()
        assert warnings_of(make(["localhost"], NOW, timedelta(days=40)), NOW) == ()

    @pytest.mark.parametrize(
        ("left", "words"),
        [
            (30 * DAY, "'CN=app' expires in 30 days, on "),
            (2 * DAY - SECOND, "'CN=app' expires in 1 day, on "),
            (DAY - SECOND, "'CN=app' expires in less than a day, on "),
            (-SECOND, "'CN=app' expired on "),
        ],
    )
    def test_end_is_announced(self, left: timedelta, words: str) -> None:
        """The days that are left, rounded down, and the moment."""
        (warning,) = warnings_of(intermediate().issue("app", not_after=NOW + 60 * DAY).bundle, NOW + 60 * DAY - left)
        assert warning.startswith(f"{words}{NOW + 60 * DAY:%Y-%m-%d %H:%M:%S} UTC")

    def test_missing_names_are_told(self) -> None:
        """Clients have not looked at common names for years."""
        (warning,) = warnings_of(alone("Root"), NOW)
        assert warning == "'CN=app' has no subject alternative name: clients ignore the common name and refuse it"

    @pytest.mark.parametrize(
        ("bundle", "is_suspected"),
        [
            pytest.param(alone("My CA", NAMES), True, id="issuer of unknown rank"),
            pytest.param(alone("My Issuing CA", NAMES, ISSUER_ADDRESS), True, id="issuer to fetch"),
            pytest.param(alone("Root of Roots", NAMES, ISSUER_ADDRESS), True, id="root to fetch"),
            pytest.param(alone("My CA", NAMES, issuer_of_issuer("Top")), True, id="issuer has an issuer"),
            pytest.param(alone("My Root", NAMES, issuer_of_issuer("Top")), True, id="so has this one"),
            pytest.param(alone("My CA", NAMES, issuer_of_issuer("My CA")), False, id="issuer is its own issuer"),
            pytest.param(alone("My Root CA", NAMES), False, id="called root"),
            pytest.param(alone("my root", NAMES, RESPONDER), False, id="called root, with a responder"),
            pytest.param(alone("Grootbank CA", NAMES), True, id="not called root"),
        ],
    )
    def test_chain_without_issuer_is_suspected(self, bundle: Bundle, is_suspected: bool) -> None:
        """A leaf alone is suspected unless its issuer seems to be a root."""
        warnings = warnings_of(bundle, NOW)
        assert len(warnings) == is_suspected
        assert all("'CN=app' may be incomplete" in warning for warning in warnings)

    def test_known_root_ends_the_suspicion(self) -> None:
        """A CA that clients come from as well is known to be a root; an intermediate is not."""
        leaf = intermediate().issue("app")
        bundle = Bundle(leaf.certificate, (), leaf.key)
        assert len(warnings_of(bundle, NOW, [authority().certificate, intermediate().certificate])) == 1
        root = self_signed("My CA", ca=True).certificate
        assert warnings_of(alone("My CA", NAMES), NOW, [root]) == ()

    def test_extras_are_told(self) -> None:
        """What is not sent is said, in bounded length."""
        issued = intermediate().issue("app")
        extras = (other_authority().certificate, *(authority().issue(f"x{n}").certificate for n in range(20)))
        (warning,) = warnings_of(Bundle(issued.certificate, issued.chain, issued.key, extras), NOW)
        assert warning == (
            "certificates that do not belong to the chain of 'CN=app' are not sent: "
            "'CN=Other Root CA', 'CN=x0', 'CN=x1', 'CN=x2', 'CN=x3', …"
        )

    def test_all_are_told_at_once(self) -> None:
        """One look is enough."""
        bundle = alone("My CA")
        bundle = Bundle(bundle.leaf, (), bundle.private_key, (other_authority().certificate,))
        assert len(warnings_of(bundle, NOW + 89 * DAY)) == 4
