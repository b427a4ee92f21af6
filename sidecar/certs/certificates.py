"""
Certificates: parsed wholly, judged by themselves, and put in order.

Each check raises for what would fail every handshake anyway, so that it fails the start instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from sidecar.certs.items import Contents, Item, Kind
from sidecar.certs.keys import MIN_RSA_BITS, PARSE_ERRORS
from sidecar.errors import MaterialError

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_SERVER_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

_WEAK_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "SHA-1",
}


# -- parsing ----------------------------------------------------------------------------------------------------


def certificates(contents: Contents) -> tuple[x509.Certificate, ...]:
    """
    Parse the certificates of *contents*, in which keystores are open; each once, in their order.

    Raises:
        MaterialError: With the role of *contents*: there is none, or one is damaged.
    """
    items = contents.of(Kind.CERTIFICATE)
    if not items:
        raise _no_certificate(contents)
    return tuple(dict.fromkeys(_certificate(item, number, contents) for number, item in enumerate(items, 1)))


def _certificate(item: Item, number: int, contents: Contents) -> x509.Certificate:
    """Parse *item* wholly: `cryptography` parses late, and what is damaged must show here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd but working encodings; OpenSSL has the last word
            loaded = item.loaded
            certificate = loaded if isinstance(loaded, x509.Certificate) else x509.load_der_x509_certificate(item.data)
            _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
    except PARSE_ERRORS:
        fact = f"certificate {number} in {contents.where(item)} is damaged or of an unknown kind"
        raise contents.error(fact, f"look at it with: openssl x509 -in {contents.file} -noout -text") from None
    return certificate


def _no_certificate(contents: Contents) -> MaterialError:
    fact = f"{contents.name} holds no certificate, only: {contents.labels()}"
    if contents.has(Kind.PRIVATE_KEY):
        return contents.error(fact, "name the certificate file here (are certificate and key swapped?)")
    if contents.has(Kind.REQUEST):
        return contents.error(fact, "a request must be signed: name the certificate that the CA sent back")
    labels = {item.label for item in contents.items}
    if "TRUSTED CERTIFICATE" in labels:
        return contents.error(fact, f"convert it: openssl x509 -in {contents.file} -out NEW.pem")
    if "PKCS7" in labels:
        return contents.error(fact, f"convert it: openssl pkcs7 -in {contents.file} -print_certs -out NEW.pem")
    return contents.error(fact, "give what has a -----BEGIN CERTIFICATE----- block")


# -- judging ----------------------------------------------------------------------------------------------------


def check_dates(leaf: x509.Certificate, name: str, now: datetime) -> None:
    """Refuse a server certificate out of date. Only of the leaf: chains with an expired cross-signature work."""
    if now > leaf.not_valid_after_utc:
        fact = f"the certificate in {name} expired on {date(leaf.not_valid_after_utc)}"
        raise MaterialError("cert", fact, "renew it")
    if now < leaf.not_valid_before_utc:
        fact = (
            f"the certificate in {name} is not valid until {date(leaf.not_valid_before_utc)}, "
            f"and the clock says {date(now)}"
        )
        raise MaterialError("cert", fact, "correct the clock of this machine, or wait")


def check_purpose(leaf: x509.Certificate, name: str) -> None:
    """
    Refuse what no client would take from a server (RFC 5280 sections 4.2.1.3 and 4.2.1.12).

    CA:TRUE alone is no reason: `openssl req -x509` makes such certificates, and people develop with them.
    """
    purposes = extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and _SERVER_PURPOSES.isdisjoint(purposes):
        fact = f"the certificate in {name} is not for servers: its extended key usage lacks serverAuth"
        raise MaterialError("cert", fact, "get one issued for server authentication")
    usage = extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.key_encipherment or usage.key_agreement):
        kind = "a CA's" if usage.key_cert_sign else "not a server's"
        fact = f"the certificate in {name} is {kind}: its key usage does not allow TLS"
        raise MaterialError("cert", fact, "issue a server certificate, with key usage digitalSignature")


def check_strength(chain: Iterable[x509.Certificate], name: str) -> None:
    """Refuse what OpenSSL's default security level would refuse, some of it only during each handshake."""
    for certificate in chain:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            fact = f"{called(certificate)} in {name} has an RSA key of {key.key_size} bits, the least is {MIN_RSA_BITS}"
            raise MaterialError("cert", fact, "replace it")
        digest = _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
        if digest is not None and certificate.issuer != certificate.subject:
            fact = f"{called(certificate)} in {name} is signed with {digest}, which clients refuse"
            raise MaterialError("cert", fact, "have it issued again with SHA-256")


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


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """Return the extension of this kind, if there is one."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# -- order ------------------------------------------------------------------------------------------------------


def leaf_for(given: Sequence[x509.Certificate], key: PublicKeyTypes, now: datetime) -> x509.Certificate | None:
    """
    Return the certificate that belongs to *key*, wherever it stands; None if there is none.

    Of several, as a renewal with the same key leaves behind, the first that is in date.
    """
    fitting = [certificate for certificate in given if certificate.public_key() == key]
    in_date = (one for one in fitting if one.not_valid_before_utc <= now <= one.not_valid_after_utc)
    return next(in_date, next(iter(fitting), None))


def chain_of(leaf: x509.Certificate, given: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """
    Return the issuers of *leaf* among *given*, each after the one that it issued, as far as they go.

    A root that was given is at the end. Of two issuers of the same name and key, the first given is taken.
    """
    chain: list[x509.Certificate] = []
    rest = [certificate for certificate in given if certificate != leaf]
    last = leaf
    while not is_self_issued(last):
        issuer = next((candidate for candidate in rest if _is_issued_by(last, candidate)), None)
        if issuer is None:
            break
        rest.remove(issuer)
        chain.append(issuer)
        last = issuer
    return tuple(chain)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*PARSE_ERRORS, InvalidSignature):
        return False
    return True


# -- words ------------------------------------------------------------------------------------------------------


def called(certificate: x509.Certificate) -> str:
    """How messages call a certificate: its subject in quotes, or the start of its fingerprint if it has none."""
    subject = certificate.subject.rfc4514_string()
    return repr(subject) if subject else f"the certificate {certificate.fingerprint(hashes.SHA256()).hex()[:16]}"


def date(moment: datetime) -> str:
    """Write an aware *moment* for messages."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
