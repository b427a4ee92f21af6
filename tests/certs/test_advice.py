"""`certs.advice`: sentences about what works, but not well or not for long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from sidecar.certs.advice import expiry_level, warnings_of
from sidecar.certs.bundle import Bundle
from sidecar.certs.items import PrivateKey
from sidecar.certs.selfsigned import make
from tests.support.certs import DAY, NOW, authority, ecdsa_key, intermediate, make_root, other_authority, self_signed

SECOND = timedelta(seconds=1)
_AT = x509.UniformResourceIdentifier("http://ca.example/ca.crt")
ISSUER_ADDRESS = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, _AT)]
)
RESPONDER = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, _AT)])
NAMES = x509.SubjectAlternativeName([x509.DNSName("app.example")])


def name_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def alone(issuer: str, *extensions: x509.ExtensionType, key: PrivateKey | None = None) -> Bundle:
    """A leaf without a chain, signed with *key*."""
    signing_key = key or ecdsa_key()
    key = ecdsa_key()
    builder = x509.CertificateBuilder(name_of(issuer), name_of("app"), key.public_key(), 1, NOW - DAY, NOW + 90 * DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Bundle(builder.sign(signing_key, hashes.SHA256()), (), key)


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
            pytest.param(alone("Public CA", NAMES, ISSUER_ADDRESS), True, id="issuer to fetch"),
            pytest.param(alone("Public CA", NAMES, RESPONDER), False, id="responder only"),
            pytest.param(alone("My CA", NAMES), False, id="one private root"),
            pytest.param(alone("app", NAMES, ISSUER_ADDRESS), False, id="its own issuer"),
        ],
    )
    def test_leaf_with_an_issuer_to_fetch_is_suspected(self, bundle: Bundle, is_suspected: bool) -> None:
        """Public CAs say where their intermediates are; a private CA is mostly one root, and says nothing."""
        warnings = warnings_of(bundle, NOW)
        assert len(warnings) == is_suspected
        assert all("'CN=app' may be incomplete" in warning for warning in warnings)

    def test_issuer_with_it_ends_the_suspicion(self) -> None:
        """What lies above, peers have."""
        bundle = alone("Public CA", NAMES, ISSUER_ADDRESS)
        bundle = Bundle(bundle.leaf, (intermediate().certificate,), bundle.private_key)
        assert warnings_of(bundle, NOW) == ()

    def test_known_issuer_ends_the_suspicion(self) -> None:
        """A CA that peers have may sign leaves directly; one that only has its name did not sign this one."""
        root, namesake = make_root("Test CA"), make_root("Test CA")
        bundle = alone("Test CA", NAMES, ISSUER_ADDRESS, key=root.key)
        assert warnings_of(bundle, NOW, [authority().certificate, root.certificate]) == ()
        assert len(warnings_of(bundle, NOW, [namesake.certificate])) == 1

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
        bundle = alone("My CA", ISSUER_ADDRESS)
        bundle = Bundle(bundle.leaf, (), bundle.private_key, (other_authority().certificate,))
        assert len(warnings_of(bundle, NOW + 89 * DAY)) == 4
