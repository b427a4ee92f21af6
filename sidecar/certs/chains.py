"""
What is wrong or odd with a certificate, and with how others lead on from it.

Looser than `certs.certificates`, which refuses what cannot serve: this says all that there is to say, of any chain.
What a certificate says is passed on as it is, control characters included; whoever prints it has to escape it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sidecar.certs.describe import describe, rfc3339
from sidecar.certs.keys import MIN_RSA_BITS
from sidecar.certs.parsing import quiet
from sidecar.certs.purposes import kind_of, purposes
from sidecar.certs.report import Finding, Report, note, problem, shorten, time_left
from sidecar.certs.traits import extension, is_authority, is_for_tls, is_issued_by, is_self_signed, weak_digest

SOON = timedelta(days=14)
"""A certificate that ends within this time is worth a note: people need the days to renew it."""

_MAX_PUBLIC_DAYS = 398
"""What browsers took from public CAs until March 2026; Apple takes 825 days from private ones."""


def examine_chain(
    certificates: Sequence[x509.Certificate],
    where: str,
    now: datetime,
    anchors: Sequence[x509.Certificate] | None = None,
    *,
    has_judge: bool = False,
) -> Report:
    """
    Describe the first of *certificates*, and how the others lead on from it.

    Args:
        certificates: At least one; in the order of the file, or as sent.
        where: What the title calls their place.
        now: Aware; what validity is judged by.
        anchors: CAs that the chain should lead to; None: unknown.
        has_judge: The caller finds out by itself whether the chain leads to a CA that is trusted.
    """
    with quiet():
        return _chain_report(certificates, where, now, anchors, has_judge=has_judge)


def _chain_report(
    certificates: Sequence[x509.Certificate],
    where: str,
    now: datetime,
    anchors: Sequence[x509.Certificate] | None,
    *,
    has_judge: bool,
) -> Report:
    leaf = certificates[0]
    summary = describe(leaf)
    left = time_left(summary.not_after, now)
    facts = [
        ("subject", summary.subject or "(empty)"),
        ("names", shorten(summary.sans) or "(none)"),
        ("issuer", summary.issuer),
        ("serial", summary.serial),
        ("valid", f"{rfc3339(summary.not_before)} to {rfc3339(summary.not_after)} ({left})"),
        ("key", summary.key),
        ("SHA-256", summary.sha256),
        ("purposes", purposes(leaf)),
    ]
    findings = [*_leaf_findings(leaf, now)]
    if not (is_authority(leaf) and len(certificates) > 1):
        facts += _chain_facts(certificates)
        findings += _chain_findings(certificates, now, anchors)
        findings += [] if has_judge else _trust_findings(certificates, anchors)
    else:  # a bundle of CAs is no chain
        facts += [("also", f"{_subject_of(ca)} ({time_left(ca.not_valid_after_utc, now)})") for ca in certificates[1:]]
    return Report(f"{where}: {kind_of(leaf)}", tuple(facts), tuple(findings))


def _subject_of(certificate: x509.Certificate) -> str:
    """The subject of *certificate*, or the first alternative name if that is empty."""
    return certificate.subject.rfc4514_string() or next(iter(describe(certificate).sans), "(no name)")


# -- the certificate itself -------------------------------------------------------------------------------------


def _leaf_findings(leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now > end:
        yield problem(f"it expired on {rfc3339(end)}: renew it")
    elif now < start:
        yield problem(f"it is not valid before {rfc3339(start)}, and the clock says {rfc3339(now)}")
    elif end - now < SOON and not is_authority(leaf):
        yield note("it ends soon: renew it")
    yield from _strength_findings(leaf)
    if is_authority(leaf):
        return
    serves = kind_of(leaf) in ("server certificate", "server and client certificate", "certificate for any purpose")
    if serves and extension(leaf, x509.SubjectAlternativeName) is None:
        yield problem("it has no alternative names: clients do not look at the common name")
    if not is_for_tls(leaf):
        yield problem("its key usage allows no TLS: it lacks digitalSignature")
    if kind_of(leaf).endswith("clients"):
        yield problem("its extended key usage has neither serverAuth nor clientAuth: TLS peers refuse it")
    days = (end - start) // timedelta(days=1)
    if serves and days > _MAX_PUBLIC_DAYS:
        yield note(
            f"it is valid for {days} days: browsers refuse more than {_MAX_PUBLIC_DAYS} from public CAs, "
            "and Apple's more than 825 from any"
        )


def _strength_findings(certificate: x509.Certificate) -> Iterator[Finding]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        yield problem(f"its RSA key has {key.key_size} bits, peers take no less than {MIN_RSA_BITS}")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 256:
        yield problem(f"its key is on the curve {key.curve.name}, which peers refuse")
    digest = weak_digest(certificate)
    if digest is not None:
        yield problem(f"it is signed with {digest}, which peers refuse")


# -- the chain --------------------------------------------------------------------------------------------------


def _chain_facts(certificates: Sequence[x509.Certificate]) -> Iterator[tuple[str, str]]:
    for number, (below, above) in enumerate(itertools.pairwise(certificates), 1):
        verdict = "signed by" if is_issued_by(below, above) else "NOT signed by"
        yield f"chain {number}", f"{_subject_of(below)} is {verdict} {_subject_of(above)}"


def _chain_findings(
    certificates: Sequence[x509.Certificate], now: datetime, anchors: Sequence[x509.Certificate] | None
) -> Iterator[Finding]:
    for number, (below, above) in enumerate(itertools.pairwise(certificates), 2):
        if not is_issued_by(below, above):
            yield _broken_link(certificates, number, anchors)
            return
        if not is_authority(above):
            yield problem(f"certificate {number} of the chain, {_subject_of(above)}, is no CA certificate")
        elif not above.not_valid_before_utc <= now <= above.not_valid_after_utc:
            start, end = rfc3339(above.not_valid_before_utc), rfc3339(above.not_valid_after_utc)
            yield problem(f"certificate {number} of the chain, {_subject_of(above)}, is valid {start} to {end}")
        for finding in _strength_findings(above):
            yield problem(f"certificate {number} of the chain, {_subject_of(above)}: {finding.text}")
    leaf, last = certificates[0], certificates[-1]
    if last != leaf and is_self_signed(last) and is_authority(last):
        yield note("the root is in the chain: peers have it anyway, leaving it out saves bytes in each handshake")


def _broken_link(
    certificates: Sequence[x509.Certificate], number: int, anchors: Sequence[x509.Certificate] | None
) -> Finding:
    below, above = certificates[number - 2], certificates[number - 1]
    issuers = [place for place, other in enumerate(certificates, 1) if other != below and is_issued_by(below, other)]
    if issuers:
        return problem(
            f"wrong order: certificate {number - 1} is signed by certificate {issuers[0]}, which must come next"
        )
    if below.issuer == above.subject:
        return problem(f"certificate {number} has the name of the issuer of {number - 1} but did not sign it")
    if is_self_signed(below) or any(is_issued_by(below, anchor) for anchor in anchors or ()):
        return note(f"certificate {number}, {_subject_of(above)}, does not belong to the chain")
    return problem(
        f"the chain is incomplete: {below.issuer.rfc4514_string()}, which signed certificate {number - 1}, is missing"
    )


def _trust_findings(
    certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate] | None
) -> Iterator[Finding]:
    if any(not is_issued_by(below, above) for below, above in itertools.pairwise(certificates)):
        return  # said before
    leaf, last = certificates[0], certificates[-1]
    if anchors is not None:
        if last not in anchors and not any(is_issued_by(last, anchor) for anchor in anchors):
            yield problem(f"the chain does not lead to a CA that is trusted: {_missing_issuer(last)}")
    elif is_self_signed(last):
        if not is_authority(leaf) and len(certificates) == 1:
            yield note("it is self-signed: each peer has to be given this very certificate")
    else:
        yield note(
            f"peers must know the issuer, {last.issuer.rfc4514_string()}; if that is an intermediate, its certificate "
            "is missing here (--ca FILE checks that)"
        )


def _missing_issuer(last: x509.Certificate) -> str:
    if is_self_signed(last):
        return f"{_subject_of(last)} is not among them"
    return f"the issuer {last.issuer.rfc4514_string()} is not among them, or an intermediate is missing"
