"""What a certificate may be used for, in words."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.report import shorten
from sidecar.certs.traits import extension, is_authority, is_self_signed

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
    ExtendedKeyUsageOID.CODE_SIGNING: "code signing",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "e-mail",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP signing",
}


def kind_of(certificate: x509.Certificate) -> str:
    """Say what *certificate* is for, e.g. ``server certificate``."""
    if is_authority(certificate):
        return "root CA certificate" if is_self_signed(certificate) else "intermediate CA certificate"
    usage = extension(certificate, x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return "certificate for any purpose"
    kinds = [
        _PURPOSES[oid] for oid in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH) if oid in usage
    ]
    return f"{' and '.join(kinds)} certificate" if kinds else "certificate that is neither for servers nor clients"


def purposes(certificate: x509.Certificate) -> str:
    """List the extended key usage, and what a CA may issue."""
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        depth = "any depth" if constraints.path_length is None else f"{constraints.path_length} further CAs below it"
        return f"issuing certificates, {depth}"
    usage = extension(certificate, x509.ExtendedKeyUsage)
    if usage is None:
        return "any (no extended key usage)"
    return shorten([_PURPOSES.get(oid, oid.dotted_string) for oid in usage])
