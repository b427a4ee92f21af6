"""`certs.traits`: what is so of a certificate."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sidecar.certs.traits import (
    alternative_names,
    extension,
    is_authority,
    is_for_tls,
    is_issued_by,
    is_self_issued,
    is_self_signed,
    weak_digest,
)
from tests.support.certs import (
    DAY,
    NOW,
    authority,
    der,
    ecdsa_key,
    intermediate,
    key_usage,
    make_root,
    revocation_list,
    rsa_key,
    self_signed,
    signing_request,
)

ROOT, ISSUER = authority().certificate, intermediate().certificate
LEAF = intermediate().issue("app.example").certificate


class TestExtension:
    def test_one_that_is_there_is_returned(self) -> None:
        """Of whatever is signed."""
        crl = revocation_list(authority(), number=7)
        assert extension(LEAF, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
        assert extension(crl, x509.CRLNumber) == x509.CRLNumber(7)

    def test_one_that_is_missing_is_none(self) -> None:
        """A request without any is the same."""
        assert extension(LEAF, x509.KeyUsage) is None
        assert extension(signing_request(), x509.KeyUsage) is None


class TestAlternativeNames:
    def test_they_are_in_order(self) -> None:
        """Without any there are none."""
        leaf = authority().issue("b.example", "a.example").certificate
        assert alternative_names(leaf) == (x509.DNSName("b.example"), x509.DNSName("a.example"))
        assert alternative_names(ROOT) == ()


class TestIsAuthority:
    @pytest.mark.parametrize(
        ("certificate", "expected"),
        [
            pytest.param(ROOT, True, id="root"),
            pytest.param(ISSUER, True, id="intermediate"),
            pytest.param(self_signed("a", ca=True).certificate, True, id="CA:TRUE without key usage"),
            pytest.param(self_signed("a").certificate, False, id="self-signed"),
            pytest.param(LEAF, False, id="leaf"),
        ],
    )
    def test_only_those_that_may_issue_are(self, certificate: x509.Certificate, expected: bool) -> None:
        """As OpenSSL decides it."""
        assert is_authority(certificate) is expected

    def test_usage_counts_as_well(self) -> None:
        """CA:TRUE with a key usage that does not allow to sign certificates is no issuer."""
        key = ecdsa_key()
        builder = x509.CertificateBuilder(ROOT.subject, ROOT.subject, key.public_key(), 1, NOW, NOW + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(key_usage("crl_sign"), critical=True)
        assert not is_authority(builder.sign(key, hashes.SHA256()))

    def test_first_version_counts_if_it_is_a_root(self) -> None:
        """Before there were extensions, a root was one because it was trusted; nothing else could be one."""
        assert is_authority(_of_version_1(_plain(ROOT.subject, ROOT.subject)))
        assert not is_authority(_of_version_1(_plain(ROOT.subject, LEAF.subject)))
        assert not is_authority(_plain(ROOT.subject, ROOT.subject))


def _plain(issuer: x509.Name, subject: x509.Name) -> x509.Certificate:
    """A certificate of version 3 without extensions."""
    builder = x509.CertificateBuilder(issuer, subject, ecdsa_key().public_key(), 1, NOW, NOW + DAY)
    return builder.sign(ecdsa_key(), hashes.SHA256())


def _of_version_1(certificate: x509.Certificate) -> x509.Certificate:
    """Take the version field out by hand, as `cryptography` writes version 3 only."""
    version = bytes.fromhex("a003020102")
    signed = certificate.tbs_certificate_bytes
    rest = der(certificate).partition(signed)[2]
    content = signed.partition(version)[2]
    return x509.load_der_x509_certificate(_sequence(_sequence(content) + rest))


def _sequence(content: bytes) -> bytes:
    assert 128 <= len(content) < 65_536
    size = b"\x81" + bytes([len(content)]) if len(content) < 256 else b"\x82" + len(content).to_bytes(2, "big")
    return b"\x30" + size + content


class TestIsSelfSigned:
    def test_same_names_are_not_enough(self) -> None:
        """Equal subject and issuer without the signature to prove it are self-issued, not self-signed."""
        namesake = authority().issue("Test Root CA").certificate
        assert (is_self_issued(namesake), is_self_signed(namesake)) == (True, False)
        assert (is_self_issued(ROOT), is_self_signed(ROOT)) == (True, True)


class TestIsIssuedBy:
    @pytest.mark.parametrize(
        ("issuer", "expected"),
        [
            pytest.param(ISSUER, True, id="issuer"),
            pytest.param(ROOT, False, id="issuer-of-the-issuer"),
            pytest.param(make_root("Test Intermediate CA").certificate, False, id="namesake"),
        ],
    )
    def test_name_and_signature_must_fit(self, issuer: x509.Certificate, expected: bool) -> None:
        """Anybody can take the name."""
        assert is_issued_by(LEAF, issuer) is expected


class TestIsForTls:
    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            pytest.param(None, True, id="none"),
            pytest.param(key_usage("digital_signature"), True, id="signature"),
            pytest.param(key_usage("key_encipherment"), True, id="encipherment"),
            pytest.param(key_usage("key_agreement"), True, id="agreement"),
            pytest.param(key_usage("key_cert_sign", "content_commitment"), False, id="others"),
        ],
    )
    def test_one_usage_of_tls_is_enough(self, usage: x509.KeyUsage | None, expected: bool) -> None:
        """None at all allows everything."""
        assert is_for_tls(authority().issue("a", usage=usage).certificate) is expected


class TestWeakDigest:
    def test_old_digest_is_named(self) -> None:
        """Its name is for the operator."""
        assert weak_digest(_signed_with_sha1(make_root("Old").certificate.subject)) == "SHA-1"
        assert weak_digest(LEAF) is None

    def test_root_may_have_any(self) -> None:
        """It is trusted for being there, not for its signature."""
        assert weak_digest(_signed_with_sha1(x509.Name([]))) is None


def _signed_with_sha1(issuer: x509.Name) -> x509.Certificate:
    """A certificate with an empty subject that says so of itself."""
    builder = x509.CertificateBuilder(issuer, x509.Name([]), ecdsa_key().public_key(), 1, NOW, NOW + DAY)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    return x509.load_der_x509_certificate(der(builder.sign(rsa_key(), hashes.SHA256())).replace(sha256, sha1))
