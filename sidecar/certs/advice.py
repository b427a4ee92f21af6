"""What works with a certificate but probably is not meant, or not for long. Pure: it looks at the bundle alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from sidecar.certs.bundle import Bundle
from sidecar.certs.certificates import called, date
from sidecar.certs.traits import extension, is_issued_by, is_self_issued

ExpiryLevel = Literal[30, 7, 1, 0]
"""Days left at most; 0: it has expired."""

_LEVELS: tuple[Literal[1, 7, 30], ...] = (1, 7, 30)


def expiry_level(not_after: datetime, now: datetime) -> ExpiryLevel | None:
    """Say which alarm is due for a certificate that is valid up to and including *not_after*; None: none yet."""
    left = not_after - now
    if left < timedelta(0):
        return 0
    return next((level for level in _LEVELS if left <= timedelta(days=level)), None)


def warnings_of(bundle: Bundle, now: datetime, roots: Sequence[x509.Certificate] = ()) -> tuple[str, ...]:
    """
    List in sentences what an operator should know of *bundle* although it can serve.

    Args:
        bundle: From `load_bundles`.
        now: Aware; what days left are counted from.
        roots: CAs that peers are known to have: a chain may end below them.
    """
    leaf = bundle.leaf
    found = []
    level = expiry_level(leaf.not_valid_after_utc, now)
    if level == 0:
        found.append(f"{called(leaf)} expired on {date(leaf.not_valid_after_utc)}: clients refuse it")
    elif level is not None:
        days = (leaf.not_valid_after_utc - now).days
        left = f"in {days} days" if days > 1 else "in 1 day" if days else "in less than a day"
        found.append(f"{called(leaf)} expires {left}, on {date(leaf.not_valid_after_utc)}")
    if extension(leaf, x509.SubjectAlternativeName) is None:
        found.append(f"{called(leaf)} has no subject alternative name: clients ignore the common name and refuse it")
    if _is_probably_incomplete(bundle, roots):
        found.append(
            f"the chain of {called(leaf)} may be incomplete: its issuer, {leaf.issuer.rfc4514_string()!r}, is not with "
            "it; if that is an intermediate CA, append its certificate, or many clients will refuse the server"
        )
    if bundle.extras:
        names = ", ".join(map(called, bundle.extras[:5])) + (", …" if len(bundle.extras) > 5 else "")
        found.append(f"certificates that do not belong to the chain of {called(leaf)} are not sent: {names}")
    return tuple(found)


def _is_probably_incomplete(bundle: Bundle, roots: Sequence[x509.Certificate]) -> bool:
    """
    Whether an intermediate CA seems to be missing.

    Only of a leaf without any issuer that says where to fetch one: so do the leaves of public CAs, which come from
    intermediates. A private CA is mostly one root, whose leaves need nothing with them.
    """
    leaf = bundle.leaf
    if bundle.chain or is_self_issued(leaf) or not _has_issuer_address(leaf):
        return False
    return not any(is_issued_by(leaf, root) for root in roots)


def _has_issuer_address(leaf: x509.Certificate) -> bool:
    access = extension(leaf, x509.AuthorityInformationAccess) or ()
    return any(description.access_method == AuthorityInformationAccessOID.CA_ISSUERS for description in access)
