"""The one certificate that every proxy of a run serves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import attrs
from cryptography.hazmat.primitives import serialization

from sidecar.certs import selfsigned


@attrs.frozen(kw_only=True)
class CertificateFiles:
    """PEM files: the self-signed certificate (also the clients' trust anchor), key, and both."""

    certificate_path: Path
    key_path: Path
    both_path: Path


def write_certificate(folder: Path) -> CertificateFiles:
    """Make an ECDSA P-256 certificate for 127.0.0.1 and localhost; write it into *folder*."""
    bundle = selfsigned.make(("localhost", "127.0.0.1"), datetime.now(UTC))
    key_pem = bundle.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate_pem = bundle.leaf.public_bytes(serialization.Encoding.PEM)
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
