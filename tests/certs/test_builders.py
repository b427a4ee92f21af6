"""`certs.builders`: what every certificate that is made has in common."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sidecar.certs.builders import certificate_builder, key_usage
from sidecar.certs.traits import extension
from tests.support.certs import DAY, NOW, authority, ecdsa_key

NAME = authority().certificate.subject
KEY = ecdsa_key()


def made(lifetime: timedelta = DAY) -> x509.Certificate:
    start = NOW + timedelta(microseconds=1)
    return certificate_builder(NAME, NAME, KEY.public_key(), start, NOW + lifetime).sign(KEY, hashes.SHA256())


class TestCertificateBuilder:
    def test_validity_is_in_whole_seconds(self) -> None:
        """As certificates have it."""
        certificate = made(timedelta(seconds=9.5))
        assert certificate.not_valid_before_utc == NOW
        assert certificate.not_valid_after_utc == NOW + timedelta(seconds=9)

    def test_key_has_its_identifier(self) -> None:
        """Strict verifiers want it."""
        expected = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
        assert extension(made(), x509.SubjectKeyIdentifier) == expected

    def test_serial_numbers_are_random(self) -> None:
        """Nobody can foresee one; each is positive and fits in 20 octets."""
        numbers = {made().serial_number for _ in range(8)}
        assert len(numbers) == 8
        assert all(0 < number < 1 << 159 for number in numbers)
        assert max(numbers) > 1 << 140


class TestKeyUsage:
    def test_only_what_is_given_is_allowed(self) -> None:
        """Each bit is off unless it is asked for."""
        usage = key_usage(key_cert_sign=True)
        allowed = (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, usage.key_encipherment)
        assert allowed == (True, False, False, False)
