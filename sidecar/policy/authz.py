"""
Who may do what: whether a request may be served, given what its client's certificate was worth.

Rules are ordered, and the first that is about a request decides; one without conditions comes last. They decide twice,
on both readings of a request (see `policy.conditions`), and both must allow it. Nothing here is asked for a reason to
let somebody in that it could not give: what cannot be told is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from sidecar.policy.conditions import (
    ALWAYS,
    Condition,
    ConditionError,
    Reading,
    Request,
    read_carelessly,
    read_strictly,
)
from sidecar.policy.identity import PeerIdentity
from sidecar.policy.matchers import Matcher
from sidecar.settings import ClientCertMode
from sidecar.values import Value


@attrs.frozen(eq=False, repr=False)
class Refusal(Value):
    """
    Why requests of a connection are refused.

    Attributes:
        status: What they are answered with: 400 for no certificate (as nginx does), 403 for one that does not do.
        reason: Token for logs and metrics.
        message: One sentence for the client.
        detail: What the operator is told beside the reason.
    """

    status: int
    reason: str
    message: str
    detail: str = ""


MISSING = "This server requires a client certificate; none was sent."
NOT_AUTHORIZED = "Refused: this client certificate is not authorized here."
"""All that a client is told: not whether a list lacks it or names it, nor what stands in one."""


def authorize(mode: ClientCertMode, *, has_certificate: bool, flaw: str | None) -> Refusal | None:
    """
    Decide about a connection after its handshake.

    Args:
        mode: What the listener demands.
        has_certificate: Whether the client showed a certificate.
        flaw: Why that certificate could not be verified, as a sentence; None if it could.

    Returns:
        None if its requests are to be forwarded.
    """
    if mode is ClientCertMode.NONE:
        return None
    if flaw is not None:
        return Refusal(403, "client_certificate_invalid", f"Refused: {flaw}.", flaw)
    if mode is ClientCertMode.REQUIRED and not has_certificate:
        return Refusal(400, "client_certificate_missing", MISSING)
    return None


@attrs.frozen(eq=False, repr=False)
class Presented(Value):
    """
    What a client presented in the handshake.

    Attributes:
        identity: Of its certificate; None if it showed none, or one whose names cannot be read.
        flaw: Why that certificate is not to be believed, as a sentence; None if it is, or if there is none.
    """

    identity: PeerIdentity | None = None
    flaw: str | None = None

    @property
    def has_certificate(self) -> bool:
        """Whether it showed one, of whatever worth."""
        return self.identity is not None or self.flaw is not None

    @property
    def verified(self) -> PeerIdentity | None:
        """The identity, if it is to be believed."""
        return self.identity if self.flaw is None else None


NO_CERTIFICATE = Presented()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Rule(Value):
    """
    What clients must show for some requests.

    Attributes:
        name: For the log.
        condition: Which requests it is about.
        mode: NONE: anybody is served, and a certificate, even an invalid one, is not looked at; health checks need it.
            OPTIONAL: who shows a certificate must show one that is valid and allowed; who shows none is served as
            nobody in particular. REQUIRED: only valid and allowed certificates.
        allow: Whom it lets in; None: every verified client.
        deny: Whom it refuses all the same; None: nobody.
    """

    name: str
    condition: Condition = ALWAYS
    mode: ClientCertMode
    allow: Matcher | None = None
    deny: Matcher | None = None


@attrs.frozen(eq=False, repr=False)
class Rules(Value):
    """
    Every rule of a listener.

    Attributes:
        rules: In order.
        default: For requests that none of them is about; its own condition is not looked at.
        of_routes: Those that routes have, in place of the others; who has found the route asks `Admission.judge`.
    """

    rules: tuple[Rule, ...]
    default: Rule
    of_routes: tuple[Rule, ...] = ()

    def strictly(self, reading: Reading) -> Rule:
        """The rule for a strict reading."""
        return next((rule for rule in self.rules if rule.condition.fits_strictly(reading)), self.default)

    def tell_apart(self, host: str, other: str) -> bool:
        """Whether it makes a difference for which of two hosts a request is."""
        return any(rule.condition.fits_host(host) is not rule.condition.fits_host(other) for rule in self.rules)

    def carelessly(self, reading: Reading) -> Rule:
        """The rule for a careless reading."""
        return next((rule for rule in self.rules if rule.condition.fits_carelessly(reading)), self.default)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Decision(Value):
    """
    What becomes of a request.

    Attributes:
        is_allowed: Whether it is forwarded.
        status: What it is answered with otherwise; 200 if it is forwarded.
        reason: Token for logs and metrics: ``allowed``, ``client_certificate_missing``,
            ``client_certificate_invalid`` or ``client_not_authorized``.
        message: One sentence for the client; empty if it is forwarded.
        reasons: For the log: each a sentence, together all that was decided.
        rule: Name of the rule that decided.
        principal: Who the client is: the name that the allow-list matched, or else the first that it has. Empty
            for one without a verified certificate, or if the rule does not look at it. It is as it stands in the
            certificate, so it is to be escaped wherever it is written.
    """

    is_allowed: bool
    status: int
    reason: str
    message: str
    reasons: tuple[str, ...]
    rule: str
    principal: str = ""

    @property
    def refusal(self) -> Refusal | None:
        """The same as what the proxy answers with; None if the request is forwarded."""
        if self.is_allowed:
            return None
        return Refusal(self.status, self.reason, self.message, "; ".join(self.reasons))


def judge(rule: Rule, presented: Presented) -> Decision:
    """Decide about every request that *rule* is about, of a client that showed *presented*."""
    refusal = authorize(rule.mode, has_certificate=presented.has_certificate, flaw=presented.flaw)
    if refusal is not None:
        fact = presented.flaw or "the client showed no certificate"
        return _refused(rule, refusal.status, refusal.reason, refusal.message, fact)
    if rule.mode is ClientCertMode.NONE:
        return _allowed(rule, "it asks for no certificate")
    identity = presented.verified
    if identity is None:
        return _allowed(rule, "the client showed no certificate, and need not")
    if rule.deny is not None and rule.deny.may_match(identity):
        return _not_authorized(rule, identity, "the deny list matches, or cannot rule the certificate out")
    if rule.allow is None:
        return _allowed(rule, "the certificate is valid", identity.name)
    if not rule.allow.matches(identity):
        fact = "nothing on the allow list matches" if rule.allow.terms else "the allow list is empty"
        return _not_authorized(rule, identity, fact)
    return _allowed(rule, "the allow list matches", rule.allow.name(identity) or identity.name)


def _allowed(rule: Rule, fact: str, principal: str = "") -> Decision:
    return Decision(
        is_allowed=True,
        status=200,
        reason="allowed",
        message="",
        reasons=(f"rule {rule.name}: {fact}",),
        rule=rule.name,
        principal=principal,
    )


def _refused(rule: Rule, status: int, reason: str, message: str, fact: str, principal: str = "") -> Decision:
    return Decision(
        is_allowed=False,
        status=status,
        reason=reason,
        message=message,
        reasons=(f"rule {rule.name}: {fact}",),
        rule=rule.name,
        principal=principal,
    )


def _not_authorized(rule: Rule, identity: PeerIdentity, fact: str) -> Decision:
    return _refused(rule, 403, "client_not_authorized", NOT_AUTHORIZED, fact, identity.name)


_CARELESSLY = "it is about the request if case, path parameters and further slashes are ignored"


@attrs.define(eq=False, repr=False)
class Admission:
    """Decides about the requests of one connection; what a rule makes of its client is found out once."""

    rules: Rules
    presented: Presented
    _judged: dict[int, Decision] = attrs.field(factory=dict, init=False, repr=False)

    def decide(self, request: Request) -> Decision:
        """
        Decide about *request*: both readings must be allowed.

        Returns:
            The decision of the rule for the strict reading, unless only that for the careless one refuses.
        """
        strict = read_strictly(request)
        rule = self.rules.strictly(strict)
        decision = self.judge(rule)
        if not decision.is_allowed:
            return decision
        other = self.rules.carelessly(read_carelessly(strict))
        if other is rule:
            return decision
        second = self.judge(other)
        if second.is_allowed:
            return decision
        return attrs.evolve(second, reasons=(*decision.reasons, *second.reasons, f"rule {other.name}: {_CARELESSLY}"))

    def decide_each(self) -> tuple[Decision, ...]:
        """
        Decide by each rule that is ever asked, in order; the default, if it is, and those of routes come last.

        If `decides_per_connection`, that is one decision, and good for every request; if all of them allow, no request
        can be refused.
        """
        return tuple(map(self.judge, _reachable(self.rules)))

    def judge(self, rule: Rule) -> Decision:
        """Decide by *rule*, whatever it is about."""
        decision = self._judged.get(id(rule))
        if decision is None:
            decision = self._judged[id(rule)] = judge(rule, self.presented)
        return decision


def decide(rules: Rules, request: Request, presented: Presented) -> Decision:
    """Decide about one request; for several of a connection, keep an `Admission`."""
    return Admission(rules, presented).decide(request)


# -- what follows from the rules as a whole ----------------------------------------------------------------------


def _reachable(rules: Rules) -> list[Rule]:
    """The rules up to and including the first that is about every request, and those of routes."""
    found = []
    for rule in rules.rules:
        found.append(rule)
        if rule.condition.is_always_true:
            return [*found, *rules.of_routes]
    return [*found, rules.default, *rules.of_routes]


def handshake_mode(rules: Rules) -> ClientCertMode:
    """
    The mode that the handshake must ask with, since it ends before the path is known.

    REQUIRED only if every request needs a certificate, NONE only if none could use one; else OPTIONAL.
    """
    modes = {rule.mode for rule in _reachable(rules)}
    return modes.pop() if len(modes) == 1 else ClientCertMode.OPTIONAL


def decides_per_connection(rules: Rules) -> bool:
    """Whether no rule looks at the request, so that one decision is good for a whole connection."""
    return len(_reachable(rules)) == 1


def exempt(paths: Iterable[str], default: Rule) -> Rules:
    """
    Rules that ask for no certificate on some paths, and apply *default* to all else.

    Args:
        paths: As in `Condition.paths`: ``/service`` is that path alone, ``/service/*`` or ``/service/`` what is
            below it, ``/`` the root alone.

    Raises:
        ConditionError: One of them is no path, or is about every request.
    """
    condition = Condition(paths=tuple(paths))
    if condition.paths and condition.is_always_true:
        raise ConditionError("'/*' exempts every request", "ask for no client certificates at all, or list the paths")
    if not condition.paths:
        return Rules((), default)
    return Rules((Rule(name="exempt", condition=condition, mode=ClientCertMode.NONE),), default)
