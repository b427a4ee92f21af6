"""
Whether traffic should be sent here: facts to checks. Pure; `console` gathers the facts, `admin.pages` shows the checks.

A check fails only if clients are better off elsewhere. What needs an operator but still works is a warning; so is a
revocation list that is overdue, since the other replicas have the same one and clients would be told less by a load
balancer that has nobody left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from sidecar.admin.operator import Certificates, Check, CheckState, Readiness, RevocationList, ServedCertificate
from sidecar.certs.describe import CertSummary, rfc3339
from sidecar.values import Value

SOON: Final = timedelta(days=7)
"""What has less left than this, and less than a tenth of its whole life, should have been renewed by now."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Facts(Value):
    """
    What readiness is judged by.

    Attributes:
        certificates: With the moment to judge at.
        draining: Whether the program is stopping.
        reload_error: Why the last reload failed; "" if it did not.
        app_error: Why the app cannot be reached; "" if it can, or if nobody has tried. Whoever sets it must keep
            trying: without traffic, nothing else would find out that the app is back.
    """

    certificates: Certificates
    draining: bool
    reload_error: str = ""
    app_error: str = ""


def judge(facts: Facts) -> Readiness:
    """Return every check with its state."""
    now = facts.certificates.now
    return Readiness(
        (
            _draining(facts.draining),
            _certificates(facts.certificates.served, now),
            _reload(facts.reload_error),
            _revocation_lists(facts.certificates.crls, now),
            _app(facts.app_error),
        )
    )


def _draining(draining: bool) -> Check:
    name = "draining"
    return Check(name, CheckState.FAIL, "draining") if draining else Check(name, CheckState.OK, "not draining")


def _certificates(served: Sequence[ServedCertificate], now: datetime) -> Check:
    name = "certificates"
    if not served:
        return Check(name, CheckState.OK, "no listener speaks TLS")
    first = min((each.leaf for each in served), key=lambda leaf: leaf.not_after)
    if first.not_after <= now:
        return Check(name, CheckState.FAIL, f"a certificate has expired: {_name(first)}, {rfc3339(first.not_after)}")
    early = max((each.leaf for each in served), key=lambda leaf: leaf.not_before)
    if early.not_before > now:
        text = f"a certificate is not valid yet: {_name(early)}, from {rfc3339(early.not_before)}"
        return Check(name, CheckState.FAIL, text)
    left = first.not_after - now
    state = CheckState.WARN if left < min(SOON, (first.not_after - first.not_before) / 10) else CheckState.OK
    return Check(name, state, f"the first to expire is {_name(first)}, {rfc3339(first.not_after)}")


def _name(summary: CertSummary) -> str:
    return summary.subject or ", ".join(summary.sans) or f"serial {summary.serial}"


def _reload(error: str) -> Check:
    name = "reload"
    if error:
        return Check(name, CheckState.WARN, f"the last reload failed, what was loaded before is in use: {error}")
    return Check(name, CheckState.OK, "what was given last is in use")


def _revocation_lists(crls: Sequence[RevocationList], now: datetime) -> Check:
    name = "revocation lists"
    due = [(crl.next_update, crl.issuer) for crl in crls if crl.next_update is not None]
    if not due:
        return Check(name, CheckState.OK, "none is in use" if not crls else "none says when the next is due")
    moment, issuer = min(due)
    if moment <= now:
        return Check(name, CheckState.WARN, f"the list of {issuer} was due for renewal on {rfc3339(moment)}")
    return Check(name, CheckState.OK, f"the first to be renewed is that of {issuer}, {rfc3339(moment)}")


def _app(error: str) -> Check:
    name = "app"
    if error:
        return Check(name, CheckState.FAIL, f"the app cannot be reached: {error}")
    return Check(name, CheckState.OK, "no attempt to reach the app has failed since the last that worked")
