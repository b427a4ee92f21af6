"""
The ephemeral certificate of a run without files: made in memory, never written anywhere.

It is a leaf (CA:FALSE) that is its own issuer, so a client that is given this one certificate as its CA file can
verify it, and nobody can issue anything with it. `app` makes it at start and again at `renew_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs.altnames import ip_address, is_host_name
from sidecar.certs.builders import CLOCK_SKEW, MAX_COMMON_NAME, certificate_builder, key_usage
from sidecar.certs.bundle import Bundle

LIFETIME = timedelta(days=30)
"""Long enough that nobody re-imports it weekly, short enough that nobody builds on it."""

LOOK_SECONDS: Final = 3_600.0


def make(names: Sequence[str], now: datetime, lifetime: timedelta = LIFETIME) -> Bundle:
    """
    Make a key and a self-signed server certificate for *names*.

    Args:
        names: At least one DNS name (a leading ``*.`` is allowed) or IP address; duplicates are dropped.
        now: Aware; the certificate is valid from an hour earlier.
        lifetime: From *now* to its end.

    Returns:
        A bundle with an ECDSA P-256 key and no chain.

    Raises:
        ValueError: No name, or one that is neither a DNS name nor an IP address.
    """
    canonical = _unique(_canonical(name) for name in names)
    if not canonical:
        raise ValueError("a certificate needs at least one name")
    key = ec.generate_private_key(ec.SECP256R1())
    # A name over the limit is in the alternative names, which is where clients look.
    common_name = canonical[0] if len(canonical[0]) <= MAX_COMMON_NAME else "sidecar"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = certificate_builder(subject, subject, key.public_key(), now - CLOCK_SKEW, now + lifetime)
    for extension, critical in _extensions(canonical, key.public_key()):
        builder = builder.add_extension(extension, critical)
    return Bundle(leaf=builder.sign(key, hashes.SHA256()), chain=(), private_key=key)


def default_names(hostname: str, addresses: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """
    List the names that clients may use for this machine, in a stable order without duplicates.

    Args:
        hostname: What the system calls itself; left out when it is not a valid DNS name.
        addresses: IP addresses of this machine; those with a zone (``fe80::1%eth0``) are left out, as no
            certificate can carry it.
        extra: What the operator asked for in addition.

    Raises:
        ValueError: A name in *extra* is neither a DNS name nor an IP address.
    """
    found = [name for name in (hostname, *addresses) if _is_valid(name)]
    return _unique(_canonical(name) for name in ("localhost", "127.0.0.1", "::1", *found, *extra))


def renew_at(bundle: Bundle) -> datetime:
    """When the successor of *bundle* is due: after two thirds of its validity."""
    start, end = bundle.leaf.not_valid_before_utc, bundle.leaf.not_valid_after_utc
    return start + (end - start) * 2 / 3


def seconds_to_look(bundle: Bundle, now: datetime) -> float:
    """
    How long to wait until it is looked whether the successor of *bundle* is due.

    Not until then in one piece: timers do not heed it when the time of day is set.
    """
    return min(max(1.0, (renew_at(bundle) - now).total_seconds()), LOOK_SECONDS)


def _extensions(names: Sequence[str], key: ec.EllipticCurvePublicKey) -> list[tuple[x509.ExtensionType, bool]]:
    """
    List extensions with their criticality, beside that with the identifier of the key.

    Python 3.13 verifies with X509_V_FLAG_X509_STRICT, which wants the identifiers of RFC 5280 sections 4.2.1.1 and
    4.2.1.2, here of the same key.
    """
    return [
        (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False),
    ]


def _general_name(name: str) -> x509.GeneralName:
    address = ip_address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _canonical(name: str) -> str:
    """Bring *name* to the one spelling that duplicates are found by; ValueError if it is not a name."""
    address = ip_address(name)
    if address is not None:
        return str(address)
    if len(name) > 253 or not is_host_name(name.removeprefix("*.")):
        raise ValueError(f"{name!r} is neither a DNS name (xn-- form for other scripts) nor an IP address")
    return name.lower()


def _is_valid(name: str) -> bool:
    try:
        _canonical(name)
    except ValueError:
        return False
    return True


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
