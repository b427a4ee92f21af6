"""
The private CA: its certificate, what it issues and what it revokes.

The commands of ``sidecar certs`` call it; a running proxy never does. What is issued is what was asked for on the
command line and nothing more: a request's extensions are never copied.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.builders import CLOCK_SKEW, PublicKey, certificate_builder, key_usage
from sidecar.certs.describe import describe_key
from sidecar.certs.identities import Identity, Purpose, subject_name
from sidecar.certs.items import PrivateKey
from sidecar.certs.keys import MIN_RSA_BITS, SUPPORTED_CURVES
from sidecar.certs.register import Entry
from sidecar.certs.traits import extension, is_self_issued

_MAX_RSA_BITS = 16_384  # OpenSSL verifies no larger ones

_PURPOSE_IDS = {
    Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


class KeyKind(enum.Enum):
    """The kinds of key that are made here."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"

    def generate(self) -> PrivateKey:
        """Make a new key."""
        match self:
            case KeyKind.P256:
                return ec.generate_private_key(ec.SECP256R1())
            case KeyKind.P384:
                return ec.generate_private_key(ec.SECP384R1())
            case KeyKind.RSA2048:
                return rsa.generate_private_key(public_exponent=65537, key_size=2048)
            case KeyKind.RSA4096:
                return rsa.generate_private_key(public_exponent=65537, key_size=4096)
            case KeyKind.ED25519:
                return ed25519.Ed25519PrivateKey.generate()


@attrs.frozen
class Authority:
    """
    A CA that can issue.

    Attributes:
        certificate: Its own.
        others: What else its ca.crt holds, e.g. the root that it comes from.
        private_key: Never shown, and not compared: it follows from the certificate.
    """

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]
    private_key: PrivateKey = attrs.field(repr=False, eq=False)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What goes with a leaf: itself and its issuers, without roots, which peers have."""
        return tuple(cert for cert in (self.certificate, *self.others) if not is_self_issued(cert))

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """What those who trust this CA need."""
        return (self.certificate, *self.others)


def make_authority(name: str, kind: KeyKind, now: datetime, lifetime: timedelta) -> Authority:
    """
    Make a root CA that issues leaves, but no further CAs.

    Raises:
        ValueError: *name* is empty or not fit for a common name.
    """
    if not name:
        raise ValueError("the CA needs a name; give one, people see it in their browsers")
    key = kind.generate()
    public_key = key.public_key()
    subject = subject_name(name)
    builder = certificate_builder(subject, subject, public_key, now - CLOCK_SKEW, now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    own_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    builder = builder.add_extension(own_id, critical=False)
    return Authority(builder.sign(key, _hash_for(key)), (), key)


def issue(
    authority: Authority,
    purpose: Purpose,
    identity: Identity,
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """
    Issue a leaf. It never outlives its CA: the end of its validity is the earlier of the two.

    Args:
        authority: In date at *now*.
        purpose: What it is for.
        identity: Whom it is for.
        public_key: One that `check_public_key` takes.
        now: Aware; the leaf is valid from an hour earlier, but not before its CA.
        lifetime: From *now* to its end.
    """
    issuer = authority.certificate
    start = max(now - CLOCK_SKEW, issuer.not_valid_before_utc)
    end = min(now + lifetime, issuer.not_valid_after_utc)
    builder = certificate_builder(identity.subject, issuer.subject, public_key, start, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usage = key_usage(digital_signature=True, key_encipherment=isinstance(public_key, rsa.RSAPublicKey))
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_PURPOSE_IDS[purpose]]), critical=False)
    if identity.names:
        is_only_name = not identity.subject.rdns  # RFC 5280 section 4.2.1.6
        builder = builder.add_extension(x509.SubjectAlternativeName(identity.names), critical=is_only_name)
    builder = builder.add_extension(_issuer_id(issuer), critical=False)
    return builder.sign(authority.private_key, _hash_for(authority.private_key))


def check_public_key(key: object) -> PublicKey:
    """Return *key* if a certificate for it can be used; ValueError with a sentence if not."""
    match key:
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            return key
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, SUPPORTED_CURVES):
            return key
        case ed25519.Ed25519PublicKey():
            return key
    fix = f"use ECDSA P-256 or P-384, Ed25519, or RSA of {MIN_RSA_BITS} bits or more"
    raise ValueError(f"a key of the kind {describe_key(key)} is not signed here; {fix}")


def make_crl(
    authority: Authority, revoked: Sequence[Entry], number: int, now: datetime, lifetime: timedelta
) -> x509.CertificateRevocationList:
    """Sign the list of all *revoked* certificates; *number* must grow from one list to the next."""
    start = max(now - CLOCK_SKEW, authority.certificate.not_valid_before_utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(start)
        .next_update(now + lifetime)
        .add_extension(_issuer_id(authority.certificate), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in revoked:
        assert entry.revoked is not None
        revocation = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.revoked)
        builder = builder.add_revoked_certificate(revocation.build())
    return builder.sign(authority.private_key, _hash_for(authority.private_key))


def certificates_pem(*certificates: x509.Certificate) -> bytes:
    """PEM text, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def crl_pem(crl: x509.CertificateRevocationList) -> bytes:
    """PEM text."""
    return crl.public_bytes(Encoding.PEM)


def key_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """PKCS#8 PEM text, encrypted if there is a *password*."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _issuer_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What the issuer calls its key, which need not be the hash that we would take."""
    own_id = extension(issuer, x509.SubjectKeyIdentifier)
    if own_id is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(check_public_key(issuer.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    match key:
        case ed25519.Ed25519PrivateKey():
            return None
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return hashes.SHA384()
        case ec.EllipticCurvePrivateKey(curve=ec.SECP521R1()):
            return hashes.SHA512()
    return hashes.SHA256()
