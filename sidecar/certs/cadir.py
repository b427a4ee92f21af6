"""The directory of a CA: its certificate and its key, as ``sidecar certs ca`` makes it, or of another origin."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509

from sidecar.certs.authority import Authority
from sidecar.certs.certificates import called, certificates
from sidecar.certs.describe import rfc3339
from sidecar.certs.forms import parse
from sidecar.certs.items import Contents, Kind, Password, PrivateKey
from sidecar.certs.keys import private_key
from sidecar.certs.sources import read
from sidecar.certs.traits import is_authority
from sidecar.errors import MaterialError

CA_CERT, CA_KEY, CA_CRL = "ca.crt", "ca.key", "ca.crl"


def load_authority(directory: Path, password: Password | None, now: datetime) -> Authority:
    """
    Load the CA in *directory*: ca.crt, whose first certificate is the CA's own, and ca.key.

    Args:
        directory: As made by ``sidecar certs ca``; files of another origin do as well.
        password: Of ca.key, if that is encrypted.
        now: Aware; what validity is judged by.

    Raises:
        MaterialError: With role ``ca``, or that of *password* if it does not open the key.
    """
    cert_file, key_file = directory / CA_CERT, directory / CA_KEY
    if not cert_file.exists():
        fix = "make a CA with: sidecar certs ca, or name its directory with --ca"
        raise MaterialError("ca", f"there is no CA in {directory}: {cert_file} is missing", fix)
    certificate, *others = certificates(parse(read(cert_file, "ca")))
    _check_may_issue(certificate, cert_file, now)
    own_key = _own_key(parse(read(key_file, "ca")), password)
    if own_key.public_key() != certificate.public_key():
        fact = f"{key_file} is not the key of {cert_file}"
        raise MaterialError("ca", fact, "put the two that belong together there")
    return Authority(certificate, tuple(others), own_key)


def _check_may_issue(certificate: x509.Certificate, file: Path, now: datetime) -> None:
    if not is_authority(certificate):
        fact = f"{called(certificate)} in {file} is not a CA certificate"
        raise MaterialError("ca", fact, "put the certificate of the CA first")
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now < end:
        fact = f"the CA in {file} is valid from {rfc3339(start)} to {rfc3339(end)}, and the clock says {rfc3339(now)}"
        raise MaterialError("ca", fact, "correct the clock, or make a new CA in another directory")


def _own_key(contents: Contents, password: Password | None) -> PrivateKey:
    """Parse the key; a password that is missing, or there for nothing, is a matter of the option that gives it."""
    is_encrypted = any(item.is_encrypted for item in contents.of(Kind.PRIVATE_KEY))
    if is_encrypted and password is None:
        fix = "name the file of its password with --ca-password-file"
        raise contents.error(f"{contents.name} is encrypted", fix)
    if password is not None and not is_encrypted:
        fact = f"{contents.name} is not encrypted, but there is a password for it"
        raise contents.error(fact, "leave --ca-password-file out")
    return private_key(contents, [] if password is None else [password])
