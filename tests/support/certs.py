"""
A public key infrastructure for tests, made in memory on first use.

`authority()` is the trusted root and `intermediate()` comes from it; `other_authority()` is nobody's. Everything else
is issued by a call: `authority().issue("localhost")` is a good server certificate, `…issue("ci", purposes=CLIENT)` a
good client certificate, and each keyword makes it bad in one way.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs.bundle import Bundle
from sidecar.certs.items import PrivateKey

NOW = datetime.now(UTC).replace(microsecond=0)
"""The moment of this run: OpenSSL judges dates by the real clock."""

DAY = timedelta(days=1)

SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@attrs.frozen
class Issued:
    """
    A certificate with its key.

    Attributes:
        chain: The intermediates up to its root, its issuer first, the root left out.
    """

    certificate: x509.Certificate
    key: PrivateKey = attrs.field(repr=False, eq=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def bundle(self) -> Bundle:
        return Bundle(leaf=self.certificate, chain=self.chain, private_key=self.key)

    @property
    def cert_pem(self) -> bytes:
        """The certificate, then the chain."""
        return pem(self.certificate, *self.chain)

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self.key, PrivateFormat.PKCS8, NoEncryption())

    @property
    def traditional_key_pem(self) -> bytes:
        """``BEGIN RSA PRIVATE KEY`` or ``BEGIN EC PRIVATE KEY``."""
        return _key_pem(self.key, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def encrypted_key_pem(self, format: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        return _key_pem(self.key, format, BestAvailableEncryption(b"secret"))

    def write(self, directory: Path, cert: str = "tls.crt", key: str = "tls.key") -> Path:
        """Write both files into *directory* and return it."""
        (directory / cert).write_bytes(self.cert_pem)
        (directory / key).write_bytes(self.key_pem)
        return directory


@attrs.frozen
class Authority(Issued):
    """A certificate that issues others."""

    def issue(
        self,
        *names: str,
        purposes: Sequence[x509.ObjectIdentifier] | None = SERVER,
        not_before: datetime = NOW - DAY,
        not_after: datetime = NOW + 90 * DAY,
        key: PrivateKey | None = None,
        usage: x509.KeyUsage | None = None,
        digest: hashes.HashAlgorithm | None = None,
        subject: x509.Name | None = None,
    ) -> Issued:
        """
        Issue a leaf for *names*; the first is its common name as well, unless there is a *subject*. *purposes* None:
        no such extension.
        """
        own_key = key or ecdsa_key()
        builder = _builder(subject or _name(names[0]), self.certificate.subject, own_key, not_before, not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_names(names), critical=False)
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        certificate = _sign(builder, own_key, self, digest)
        return Issued(certificate, own_key, self._chain_below())

    def delegate(self, name: str, not_after: datetime = NOW + 365 * DAY) -> Authority:
        """Issue an intermediate CA."""
        return _make_authority(name, self, not_after=not_after)

    def _chain_below(self) -> tuple[x509.Certificate, ...]:
        is_root = self.certificate.issuer == self.certificate.subject
        return () if is_root else (self.certificate, *self.chain)


@functools.cache
def authority() -> Authority:
    """The root that the tests trust."""
    return make_root("Test Root CA")


@functools.cache
def intermediate() -> Authority:
    """A CA that comes from `authority()`."""
    return authority().delegate("Test Intermediate CA")


@functools.cache
def other_authority() -> Authority:
    """A root that nobody trusts."""
    return make_root("Other Root CA")


def make_root(name: str, not_before: datetime = NOW - DAY, not_after: datetime = NOW + 365 * DAY) -> Authority:
    return _make_authority(name, None, not_before, not_after)


def self_signed(
    name: str,
    *,
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    ca: bool = False,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 90 * DAY,
) -> Issued:
    """Make a certificate that is its own issuer."""
    key = ecdsa_key()
    builder = _builder(_name(name), _name(name), key, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(_names([name]), critical=False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    return Issued(_sign(builder, key, None), key)


def ecdsa_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A new key; P-256 unless told."""
    return ec.generate_private_key(curve or ec.SECP256R1())


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """The one RSA key of the run of that size: they are slow to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def key_usage(*allowed: str) -> x509.KeyUsage:
    """A key usage extension with exactly the *allowed* bits, e.g. ``digital_signature``."""
    bits = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{bit: bit in allowed for bit in bits})


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def keystore(
    issued: Issued,
    password: bytes | None = b"secret",
    others: Sequence[x509.Certificate] | None = None,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    """A PKCS#12 keystore of *issued* with its chain, or with *others* in place of that; password None: unencrypted."""
    if encryption is None:
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    chain = issued.chain if others is None else others
    return pkcs12.serialize_key_and_certificates(b"server", issued.key, issued.certificate, chain, encryption)


def truststore(*certificates: x509.Certificate, password: bytes | None = b"secret") -> bytes:
    """A PKCS#12 keystore without a key."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return pkcs12.serialize_key_and_certificates(None, None, None, certificates, encryption)


def signing_request(name: str = "app.example") -> x509.CertificateSigningRequest:
    """A request that no CA has answered yet."""
    return x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(ecdsa_key(), hashes.SHA256())


def revocation_list(
    issuer: Issued,
    *revoked: x509.Certificate,
    number: int | None = 1,
    last_update: datetime = NOW - DAY,
    next_update: datetime = NOW + 7 * DAY,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.CertificateRevocationList:
    """A list of *revoked* certificates; *extensions* are added, each with whether it is critical."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(last_update)
        .next_update(next_update)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(last_update)
        builder = builder.add_revoked_certificate(entry.build())
    algorithm = None if isinstance(issuer.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer.key, algorithm)


def der(item: x509.Certificate | x509.CertificateRevocationList | x509.CertificateSigningRequest) -> bytes:
    return item.public_bytes(Encoding.DER)


def reveals(message: str, secret: str, length: int = 20) -> bool:
    """Whether *message* has *length* consecutive characters of *secret*."""
    return any(secret[at : at + length] in message for at in range(len(secret) - length + 1))


def _make_authority(
    name: str,
    issuer: Authority | None,
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 365 * DAY,
) -> Authority:
    key = ecdsa_key()
    issuer_name = _name(name) if issuer is None else issuer.certificate.subject
    builder = _builder(_name(name), issuer_name, key, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
    chain = () if issuer is None else issuer._chain_below()
    return Authority(_sign(builder, key, issuer), key, chain)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder,
    own_key: PrivateKey,
    issuer: Issued | None,
    digest: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    key = own_key if issuer is None else issuer.key
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = builder.add_extension(issuer_id, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm)  # type: ignore[arg-type]  # any hash, also weak ones


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in names])


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: PrivateKey, format: PrivateFormat, encryption: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, format, encryption)
