"""
Certificates: parsed wholly, judged by themselves, and put in order.

Each check raises for what would fail every handshake anyway, so that it fails the start instead.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.items import Contents, Item, Kind
from sidecar.certs.keys import MIN_RSA_BITS
from sidecar.certs.parsing import PARSE_ERRORS, load_certificate, whole
from sidecar.certs.traits import extension, is_for_tls, is_issued_by, is_self_issued, weak_digest
from sidecar.errors import MaterialError


class Purpose(enum.Enum):
    """What a certificate of ours is shown as."""

    SERVER = "server"
    CLIENT = "client"


_EXTENDED_USAGE = {
    Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
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
    try:
        return whole(item.loaded) if isinstance(item.loaded, x509.Certificate) else load_certificate(item.data)
    except PARSE_ERRORS:
        fact = f"certificate {number} in {contents.where(item)} is damaged or of an unknown kind"
        raise contents.error(fact, f"look at it with: openssl x509 -in {contents.file} -noout -text") from None


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
    """Refuse a certificate out of date. Only of the leaf: chains with an expired cross-signature work."""
    if now > leaf.not_valid_after_utc:
        fact = f"the certificate in {name} expired on {date(leaf.not_valid_after_utc)}"
        raise MaterialError("cert", fact, "renew it")
    if now < leaf.not_valid_before_utc:
        fact = (
            f"the certificate in {name} is not valid until {date(leaf.not_valid_before_utc)}, "
            f"and the clock says {date(now)}"
        )
        raise MaterialError("cert", fact, "correct the clock of this machine, or wait")


def check_purpose(leaf: x509.Certificate, name: str, purpose: Purpose = Purpose.SERVER) -> None:
    """
    Refuse what no peer would take for its *purpose* (RFC 5280 sections 4.2.1.3 and 4.2.1.12).

    CA:TRUE alone is no reason: `openssl req -x509` makes such certificates, and people develop with them.
    """
    word = purpose.value
    usages = extension(leaf, x509.ExtendedKeyUsage)
    fitting = {_EXTENDED_USAGE[purpose], ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usages is not None and fitting.isdisjoint(usages):
        fact = f"the certificate in {name} is not for {word}s: its extended key usage lacks {word}Auth"
        raise MaterialError("cert", fact, f"get one issued for {word} authentication")
    if not is_for_tls(leaf):
        usage = extension(leaf, x509.KeyUsage)
        kind = "a CA's" if usage is not None and usage.key_cert_sign else f"not a {word}'s"
        fact = f"the certificate in {name} is {kind}: its key usage does not allow TLS"
        raise MaterialError("cert", fact, f"issue a {word} certificate, with key usage digitalSignature")


def check_strength(chain: Iterable[x509.Certificate], name: str) -> None:
    """Refuse what OpenSSL's default security level would refuse, some of it only during each handshake."""
    for certificate in chain:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            fact = f"{called(certificate)} in {name} has an RSA key of {key.key_size} bits, the least is {MIN_RSA_BITS}"
            raise MaterialError("cert", fact, "replace it")
        digest = weak_digest(certificate)
        if digest is not None:
            fact = f"{called(certificate)} in {name} is signed with {digest}, which clients refuse"
            raise MaterialError("cert", fact, "have it issued again with SHA-256")


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
        issuer = next((candidate for candidate in rest if is_issued_by(last, candidate)), None)
        if issuer is None:
            break
        rest.remove(issuer)
        chain.append(issuer)
        last = issuer
    return tuple(chain)


# -- words ------------------------------------------------------------------------------------------------------


def called(certificate: x509.Certificate) -> str:
    """How messages call a certificate: its subject in quotes, or the start of its fingerprint if it has none."""
    subject = certificate.subject.rfc4514_string()
    return repr(subject) if subject else f"the certificate {certificate.fingerprint(hashes.SHA256()).hex()[:16]}"


def date(moment: datetime) -> str:
    """Write an aware *moment* for messages."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
