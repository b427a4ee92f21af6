"""`certs.describe`: certificates in words."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from sidecar.certs.describe import as_json, days_left, describe, describe_key
from sidecar.certs.items import PrivateKey
from tests.support.certs import DAY, NOW, authority, der, ecdsa_key, ed25519_key, rsa_key, self_signed


class TestDescribe:
    def test_facts_are_the_certificates(self) -> None:
        """Each field says what the certificate says."""
        certificate = authority().issue("app.example", "127.0.0.1", "spiffe://td/app").certificate
        summary = describe(certificate)
        assert summary.subject == "CN=app.example"
        assert summary.issuer == "CN=Test Root CA"
        assert summary.sans == ("DNS:app.example", "IP:127.0.0.1", "URI:spiffe://td/app")
        assert int(summary.serial, 16) == certificate.serial_number
        assert (summary.not_before, summary.not_after) == (NOW - DAY, NOW + 90 * DAY)
        assert summary.sha256 == certificate.fingerprint(hashes.SHA256()).hex()
        assert summary.key == "ECDSA P-256"
        assert not summary.is_self_signed

    def test_root_is_self_signed(self) -> None:
        """A root and a self-signed leaf are their own issuers."""
        assert describe(authority().certificate).is_self_signed
        assert describe(self_signed("localhost").certificate).is_self_signed

    def test_no_names_are_empty(self) -> None:
        """A certificate without alternative names has none."""
        assert describe(authority().certificate).sans == ()

    def test_serial_number_of_zero_is_shown(self) -> None:
        """Some tools number their first certificate 0, which no CA may."""
        key, name = ecdsa_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 85, NOW, NOW + DAY)
        data = der(builder.sign(key, hashes.SHA256()))
        before, serial, after = data.partition(b"\xa0\x03\x02\x01\x02\x02\x01\x55")
        with pytest.warns(CryptographyDeprecationWarning, match="serial number"):
            zero = x509.load_der_x509_certificate(before + serial[:-1] + b"\0" + after)
        assert describe(zero).serial == "0"

    def test_rare_names_are_kept(self) -> None:
        """Every kind of alternative name leaves a trace."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a,b")])
        names = x509.SubjectAlternativeName(
            [
                x509.RFC822Name("me@app.example"),
                x509.DirectoryName(name),
                x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                x509.OtherName(x509.ObjectIdentifier("1.2.4"), b"\x05\x00"),
            ]
        )
        key = ecdsa_key()
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + DAY)
        summary = describe(builder.add_extension(names, critical=False).sign(key, hashes.SHA256()))
        assert summary.subject == "CN=a\\,b"
        assert summary.sans == ("email:me@app.example", "dirName:CN=a\\,b", "RID:1.2.3", "other:1.2.4")


class TestDescribeKey:
    @pytest.mark.parametrize(
        ("key", "words"),
        [
            (rsa_key(2048), "RSA 2048"),
            (ecdsa_key(ec.SECP384R1()), "ECDSA P-384"),
            (ecdsa_key(ec.SECP256K1()), "ECDSA secp256k1"),
            (ed25519_key(), "Ed25519"),
            (ed448.Ed448PrivateKey.generate(), "Ed448"),
        ],
    )
    def test_kind_and_size_are_named(self, key: PrivateKey, words: str) -> None:
        """Both halves of a pair are described alike."""
        assert describe_key(key) == describe_key(key.public_key()) == words


class TestAsJson:
    def test_result_is_json(self) -> None:
        """The result is what json.dumps takes, with times in RFC 3339."""
        fields = json.loads(json.dumps(as_json(describe(authority().issue("app").certificate), NOW)))
        assert fields["sans"] == ["DNS:app"]
        assert fields["not_after"] == f"{NOW + 90 * DAY:%Y-%m-%dT%H:%M:%SZ}"
        assert fields["days_left"] == 90


class TestDaysLeft:
    @pytest.mark.parametrize(
        ("later", "days"),
        [
            (timedelta(0), 90),
            (timedelta(seconds=1), 89),
            (90 * DAY, 0),
            (90 * DAY + timedelta(seconds=1), -1),
        ],
    )
    def test_days_are_rounded_down(self, later: timedelta, days: int) -> None:
        """Only whole days count, and an expired certificate has a negative number."""
        assert days_left(NOW + 90 * DAY, NOW + later) == days
