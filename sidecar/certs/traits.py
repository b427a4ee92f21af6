"""What is so or not so of a certificate, by itself or beside another; each was parsed wholly before."""

from __future__ import annotations

from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import SignatureAlgorithmOID

from sidecar.certs.parsing import PARSE_ERRORS

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

Signed = x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList

_WEAK_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "SHA-1",
}


def extension(signed: Signed, kind: type[_Extension]) -> _Extension | None:
    """Return the extension of this kind, if there is one."""
    try:
        return signed.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def alternative_names(signed: Signed) -> tuple[x509.GeneralName, ...]:
    """Return the subject alternative names in order."""
    return tuple(extension(signed, x509.SubjectAlternativeName) or ())


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL takes it as an issuer: CA:TRUE, or a root from before there were extensions (version 1)."""
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is not None:
        return constraints.ca
    return certificate.version is x509.Version.v1 and is_self_issued(certificate)


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Whether it names itself as its issuer, as roots do."""
    return certificate.issuer == certificate.subject


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether it names itself as its issuer and its own key verifies its signature."""
    return is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer* has the name that *certificate* gives, and its key verifies the signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*PARSE_ERRORS, InvalidSignature):
        return False
    return True


def is_for_tls(certificate: x509.Certificate) -> bool:
    """Whether its key usage, if it has one, allows a peer of TLS to prove itself (RFC 5280 section 4.2.1.3)."""
    usage = extension(certificate, x509.KeyUsage)
    return usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement


def weak_digest(certificate: x509.Certificate) -> str | None:
    """Name the digest of its signature if peers refuse it; None also for roots, whose signature nobody verifies."""
    return None if is_self_issued(certificate) else _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
