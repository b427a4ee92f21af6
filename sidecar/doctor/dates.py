"""What runs out, and when. What has run out already, loading it has said, unless it still works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from sidecar.certs.certificates import called, date
from sidecar.certs.material import ClientMaterial
from sidecar.doctor.findings import Check, Finding, Severity, error, note, ok, warning
from sidecar.doctor.material import Material
from sidecar.settings import CrlPolicy

SOON = timedelta(days=14)
"""People need the days to renew a certificate."""

LATE_PART = 3
"""Of certificates with short lives the last third counts: by then whoever renews them should have done so."""

CRL_GRACE = timedelta(hours=24)
"""How long the program uses a list that is overdue."""


def expiry(material: Material, now: datetime) -> Iterator[Finding]:
    """Judge the certificates and CAs that are in date."""
    for own in material.servers:
        yield from _end(own.leaf, f"{own.source}: {called(own.leaf)}", Check.EXPIRY, now)
    for own in material.upstreams:
        yield from _end(own.leaf, f"{own.source}: {called(own.leaf)}, ours for upstreams,", Check.EXPIRY, now)
    yield from _of_anchors(material.clients.anchors, "clients", Check.CLIENT_CA, now)
    yield from _of_anchors(material.upstream_anchors, "upstreams", Check.UPSTREAM_CA, now)


def _of_anchors(anchors: Sequence[x509.Certificate], whose: str, check: Check, now: datetime) -> Iterator[Finding]:
    """Only those that run out are told one by one: a bundle may hold hundreds."""
    found = [each for ca in anchors for each in _end(ca, f"{called(ca)}, a CA of {whose},", check, now)]
    late = [each for each in found if each.severity is not Severity.OK]
    yield from late
    if anchors and not late:
        first = min(ca.not_valid_after_utc for ca in anchors)
        yield ok(check, f"CAs of {whose}: {len(anchors)}, valid until {date(first)} at least")


def _end(certificate: x509.Certificate, what: str, check: Check, now: datetime) -> Iterator[Finding]:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= now <= end:
        return
    if end - now < min(SOON, (end - start) / LATE_PART):
        yield warning(check, f"{what} expires in {span(end - now)}, on {date(end)}", "renew it now")
    else:
        yield ok(check, f"{what} is valid until {date(end)}, {span(end - now)} from now")


def clients(material: ClientMaterial, policy: CrlPolicy, now: datetime) -> Iterator[Finding]:
    """Judge the CAs of clients that are left out, and the revocation lists."""
    for name, text in material.warnings:
        if name == "client_ca":
            yield note(Check.CLIENT_CA, text, "remove it from the bundle")
    for crl in material.crls:
        yield from _due(crl, policy, now)
    issuers = {crl.issuer for crl in material.crls}
    for anchor in material.anchors if material.crls else ():
        if anchor.subject not in issuers:
            fact = f"there is no revocation list of {called(anchor)}, so clients whose certificate it issued get 403"
            yield warning(
                Check.CLIENT_CRL, fact, "add its list to SIDECAR_CLIENT_CRL, unless it issues none to clients"
            )


def _due(crl: x509.CertificateRevocationList, policy: CrlPolicy, now: datetime) -> Iterator[Finding]:
    what, end = f"the revocation list of {crl.issuer.rfc4514_string()!r}", crl.next_update_utc
    if end is None or end - now >= (end - crl.last_update_utc) / 10:
        yield ok(Check.CLIENT_CRL, f"{what} is in force" + ("" if end is None else f" until {date(end)}"))
    elif end >= now:
        yield note(
            Check.CLIENT_CRL, f"{what} is due for renewal in {span(end - now)}", "see that it is fetched in time"
        )
    elif now - end <= CRL_GRACE or policy is CrlPolicy.WARN:
        fact = f"{what} was due for renewal on {date(end)}, and is still used"
        yield warning(Check.CLIENT_CRL, fact, "fetch the new one from the CA")
    else:
        fact = f"{what} was due for renewal on {date(end)}: its clients get 403"
        yield error(Check.CLIENT_CRL, fact, "fetch the new one from the CA, or set SIDECAR_CRL_POLICY=warn until then")


def span(time: timedelta) -> str:
    """Write a length of time as a person would: ``90 days``, ``5 hours``, ``1 minute``."""
    for unit, size in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        count = time // size
        if count > 1 or (count == 1 and unit == "minute"):
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
