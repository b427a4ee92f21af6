"""
What a certificate says, as plain values for the admin page, metrics and logs.

Public facts only: nothing here ever sees a private key.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.certs.parsing import quiet
from sidecar.certs.traits import alternative_names, is_self_signed
from sidecar.values import Value

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@attrs.frozen(eq=False, repr=False)
class CertSummary(Value):
    """
    One certificate in words.

    Attributes:
        subject: RFC 4514 string, e.g. ``CN=localhost``.
        issuer: The same for the issuer.
        sans: Subject alternative names in order: ``DNS:x``, ``IP:y``, ``URI:z``, ``email:e``, ``other:OID``.
        serial: Lower-case hexadecimal.
        not_before: First moment of validity, aware, UTC.
        not_after: Last moment of validity, aware, UTC.
        sha256: Fingerprint of the whole certificate, lower-case hexadecimal.
        key: Kind and size of its public key, e.g. ``ECDSA P-256``, ``RSA 2048``.
        is_self_signed: It is signed by its own key.
    """

    subject: str
    issuer: str
    sans: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    sha256: str
    key: str
    is_self_signed: bool


def describe(cert: x509.Certificate) -> CertSummary:
    """Summarise *cert*, which was parsed wholly or made here."""
    return CertSummary(
        subject=cert.subject.rfc4514_string(),
        issuer=cert.issuer.rfc4514_string(),
        sans=tuple(_general_name(name) for name in alternative_names(cert)),
        serial=f"{_serial_number(cert):x}",
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        sha256=cert.fingerprint(hashes.SHA256()).hex(),
        key=describe_key(cert.public_key()),
        is_self_signed=is_self_signed(cert),
    )


def as_json(summary: CertSummary, now: datetime) -> dict[str, object]:
    """
    Turn *summary* into what `json.dumps` takes: times as RFC 3339 in UTC, and ``days_left``.

    ``days_left`` is as the function of that name says.
    """
    fields: dict[str, object] = attrs.asdict(summary)
    return {
        **fields,
        "sans": list(summary.sans),
        "not_before": rfc3339(summary.not_before),
        "not_after": rfc3339(summary.not_after),
        "days_left": days_left(summary.not_after, now),
    }


def days_left(not_after: datetime, now: datetime) -> int:
    """Count the whole days from *now* to *not_after*, rounded down; negative once that is over."""
    return math.floor((not_after - now) / timedelta(days=1))


def describe_key(key: object) -> str:
    """Name the kind and size of *key*, a public or private key object of `cryptography`; never its value."""
    match key:
        case rsa.RSAPublicKey() | rsa.RSAPrivateKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
        case ed25519.Ed25519PublicKey() | ed25519.Ed25519PrivateKey():
            return "Ed25519"
        case _:
            return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")


def rfc3339(moment: datetime) -> str:
    """Write an aware *moment* as ``2026-01-31T12:00:00Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _serial_number(cert: x509.Certificate) -> int:
    with quiet():  # RFC 5280 wants it positive; certificates with 0 are in honest use
        return cert.serial_number


def _general_name(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
        case x509.DirectoryName():
            return f"dirName:{name.value.rfc4514_string()}"
        case x509.RegisteredID():
            return f"RID:{name.value.dotted_string}"
        case x509.OtherName():
            return f"other:{name.type_id.dotted_string}"
        case _:
            return f"other:{type(name).__name__}"
