"""
Who a client is, by its certificate: every name it carries, as plain values.

Called once per connection, when the certificate was verified or is to be named in a log. The holder of a certificate
may have chosen what stands in it, so the values are what the CA signed and nothing better: they can hold NUL, CR, LF
and any other character. `policy.matchers` never matches such names; whoever writes one somewhere must escape it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from sidecar.errors import SidecarError
from sidecar.values import Value

LARGEST_CERTIFICATE: Final = 64 * 1024
"""Bytes of DER. The largest signatures there are (SLH-DSA) take 50,000; OpenSSL lets a whole chain have 100 KiB."""

MOST_NAMES: Final = 100
"""Alternative names, purposes, or attributes of a subject; public CAs sign no more. Matching costs each of them."""

# Names as in OpenSSL's configuration files; every other purpose goes by its dotted number.
PURPOSES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}


class IdentityError(SidecarError):
    """
    A certificate's names cannot be read, or are too many. Its holder is to be refused: a part of them is no identity.

    The message says what is wrong, without quoting the certificate.
    """


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PeerIdentity(Value):
    """
    What a certificate says of its holder.

    Attributes:
        dns, uri, email, ip: Subject alternative names, in order; addresses as `ipaddress` writes them.
        common_names, organizational_units, organizations: Attributes of the subject, in order, repeated ones too.
        subject, issuer: RFC 4514 strings as `cryptography` writes them: the last attribute first, separators within
            values escaped, other characters as they are.
        serial: Lower-case hexadecimal without leading zeros.
        sha256: Fingerprint of the certificate, 64 lower-case hexadecimal digits.
        spki_sha256: The same of its public key (SubjectPublicKeyInfo), which outlives a renewal with the same key.
        purposes: Extended key usages: a name of `PURPOSES` or a dotted number each; empty if it does not say.
        not_before, not_after: First and last moment of validity, in seconds since the epoch.
    """

    dns: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    common_names: tuple[str, ...] = ()
    organizational_units: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    subject: str
    issuer: str
    serial: str
    sha256: str
    spki_sha256: str
    purposes: tuple[str, ...] = ()
    not_before: float
    not_after: float

    @property
    def name(self) -> str:
        """The one name to call it by where no rule named one: its first URI, DNS name, address, or its subject."""
        for names in (self.uri, self.dns, self.email, self.common_names):
            if names:
                return names[0]
        return self.subject


def identity_of(certificate: x509.Certificate) -> PeerIdentity:
    """
    Read the names of *certificate*.

    Raises:
        IdentityError: They cannot be read, or there is too much of them.
    """
    try:
        return _identity_of(certificate)
    except IdentityError:
        raise
    except Exception as error:  # parsed only now, and the peer chose the bytes: ValueError, TypeError, more
        raise IdentityError(f"the certificate cannot be read ({type(error).__name__})") from None


def _identity_of(certificate: x509.Certificate) -> PeerIdentity:
    der = certificate.public_bytes(Encoding.DER)
    if len(der) > LARGEST_CERTIFICATE:
        raise IdentityError(f"the certificate is {len(der):,} bytes, limit {LARGEST_CERTIFICATE:,}")
    subject = certificate.subject
    attributes = list(subject)
    _require_few(len(attributes), "attributes in its subject")
    names, purposes = _extensions(certificate.extensions)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PeerIdentity(
        dns=_alternative(names, x509.DNSName),
        uri=_alternative(names, x509.UniformResourceIdentifier),
        email=_alternative(names, x509.RFC822Name),
        ip=_alternative(names, x509.IPAddress),
        common_names=_values(attributes, NameOID.COMMON_NAME),
        organizational_units=_values(attributes, NameOID.ORGANIZATIONAL_UNIT_NAME),
        organizations=_values(attributes, NameOID.ORGANIZATION_NAME),
        subject=subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        sha256=hashlib.sha256(der).hexdigest(),
        spki_sha256=hashlib.sha256(key).hexdigest(),
        purposes=purposes,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _require_few(count: int, what: str) -> None:
    if count > MOST_NAMES:
        raise IdentityError(f"the certificate has {count:,} {what}, limit {MOST_NAMES}")


def _extensions(extensions: x509.Extensions) -> tuple[list[x509.GeneralName], tuple[str, ...]]:
    names: list[x509.GeneralName] = []
    purposes: tuple[str, ...] = ()
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as value:
                _require_few(len(value), "alternative names")
                names = list(value)
            case x509.ExtendedKeyUsage() as value:
                _require_few(len(value), "purposes")
                purposes = tuple(PURPOSES.get(oid.dotted_string, oid.dotted_string) for oid in value)
    return names, purposes


def _alternative(names: list[x509.GeneralName], kind: type[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(str(name.value) for name in names if isinstance(name, kind))


def _values(attributes: list[x509.NameAttribute[str | bytes]], oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    """The text values of one kind of attribute; what is a bit string is no name."""
    return tuple(a.value for a in attributes if a.oid == oid and isinstance(a.value, str))
