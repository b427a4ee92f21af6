"""The certificates of a run: the one that every proxy serves, and those that clients show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs import selfsigned

CLIENT_NAME = "loadclient"
"""The common name of the client that is to be accepted; the app must hear it from proxies that tell."""

_CLIENT_ALTERNATIVE_NAMES = (
    x509.UniformResourceIdentifier("spiffe://bench.example/loadclient"),
    x509.DNSName("loadclient.bench.example"),
)
_CLOCK_SKEW = timedelta(hours=1)
_LIFETIME = timedelta(days=1)


@attrs.frozen(kw_only=True)
class CertificateFiles:
    """
    PEM files of a run.

    Attributes:
        certificate_path: The proxies' self-signed certificate, also the clients' trust anchor.
        key_path: Its key.
        both_path: Both.
        client_ca_path: The CA that client certificates must come from.
        client_path: Certificate and key of a client that is to be accepted.
        stranger_path: Those of a client that is to be refused: of the same name, from a CA of the same name.
    """

    certificate_path: Path
    key_path: Path
    both_path: Path
    client_ca_path: Path
    client_path: Path
    stranger_path: Path


def write_certificates(folder: Path) -> CertificateFiles:
    """Make the certificates, all ECDSA P-256 and the proxies' for 127.0.0.1 and localhost; write them into *folder*."""
    now = datetime.now(UTC)
    bundle = selfsigned.make(("localhost", "127.0.0.1"), now)
    server_pem = bundle.leaf.public_bytes(Encoding.PEM)
    server_key_pem = _key_pem(bundle.private_key)
    authority, other = _ClientAuthority.make(now), _ClientAuthority.make(now)
    files = CertificateFiles(
        certificate_path=folder / "certificate.pem",
        key_path=folder / "key.pem",
        both_path=folder / "both.pem",
        client_ca_path=folder / "client-ca.pem",
        client_path=folder / "client.pem",
        stranger_path=folder / "stranger.pem",
    )
    files.certificate_path.write_bytes(server_pem)
    files.client_ca_path.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    for path, content in (
        (files.key_path, server_key_pem),
        (files.both_path, server_key_pem + server_pem),
        (files.client_path, authority.client_pem(now)),
        (files.stranger_path, other.client_pem(now)),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)
    return files


@attrs.frozen
class _ClientAuthority:
    """A CA for clients; all of them have one name, so that only their keys tell whose a certificate is."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)

    @staticmethod
    def make(now: datetime) -> _ClientAuthority:
        """Make a CA with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name("bench clients")
        builder = _builder(name, name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return _ClientAuthority(builder.sign(key, hashes.SHA256()), key)

    def client_pem(self, now: datetime) -> bytes:
        """Issue a client certificate; return its key and itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_common_name(CLIENT_NAME), self.certificate.subject, key.public_key(), now)
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.SubjectAlternativeName(_CLIENT_ALTERNATIVE_NAMES), False),
            (issuer_id, False),
        ):
            builder = builder.add_extension(extension, critical)
        return _key_pem(key) + builder.sign(self.private_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    """Begin a certificate with what all have."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_key_usage(is_authority=subject == issuer), critical=True)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    """Return what a key is for: to sign certificates, or to shake hands."""
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    """Return a subject that is a common name only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: PrivateKeyTypes) -> bytes:
    """Return a key as PKCS#8 PEM text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
