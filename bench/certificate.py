"""The one certificate that every proxy of a run serves."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@attrs.frozen(kw_only=True)
class CertificateFiles:
    """PEM files: the self-signed certificate (also the clients' trust anchor), key, and both."""

    certificate_path: Path
    key_path: Path
    both_path: Path


def write_certificate(folder: Path) -> CertificateFiles:
    """Make an ECDSA P-256 certificate for 127.0.0.1 and localhost; write it into *folder*."""
    key = ec.generate_private_key(ec.SECP256R1())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate_pem = _self_signed(key).public_bytes(serialization.Encoding.PEM)
    files = CertificateFiles(
        certificate_path=folder / "certificate.pem",
        key_path=folder / "key.pem",
        both_path=folder / "both.pem",
    )
    files.certificate_path.write_bytes(certificate_pem)
    for path, content in ((files.key_path, key_pem), (files.both_path, key_pem + certificate_pem)):
        path.touch(mode=0o600)
        path.write_bytes(content)
    return files


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Sign a certificate with the extensions that strict verification (Python 3.13) asks for."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    public_key = key.public_key()
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(days=2),
    )
    builder = (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _key_usage() -> x509.KeyUsage:
    """Allow the key to sign handshakes, and the certificate to be its own trust anchor."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
