"""
What becomes of a request: whether its sender may send it, where it goes, and what the app is told of the sender.

For every version of HTTP: it knows heads, and nothing of connections or streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import RequestError
from sidecar.policy.authz import Admission, Decision, Refusal
from sidecar.policy.conditions import Request, plain_host
from sidecar.policy.forwarding import NOBODY, Hop, TrustedProxies, claimed_request_id, client_address
from sidecar.policy.rewrite import DEFAULT_HOST
from sidecar.policy.tracing import client_trace_id
from sidecar.proxy import replies
from sidecar.proxy.exchange import Exchange, request_prefix
from sidecar.proxy.routing import Answer, Destination, Outcome, Router
from sidecar.settings import Switch
from sidecar.topology import DirectResponse
from sidecar.wire.events import RequestHead
from sidecar.wire.target import normalise, readings

if TYPE_CHECKING:
    from sidecar.proxy.service import Service
    from sidecar.tls.sni import ServedNames


# Written out: mypyc compiles no decorated class, and of these one is made for each request whose head is new on its
# connection (bench row `varied`). Nothing changes them.


class Forwarding:
    """
    The field lines that all requests of a connection get: who sent them and how they came.

    Attributes:
        named: With what is known of the client by its certificate.
        anonymous: Without; for requests that a rule lets in without looking at certificates.
        hop: Makes the lines that depend on the request, which are then not in the others; None: none do.
        trusted: Whose word counts about clients behind them; with a hop that is trusted.
        is_trusted: Whether the client is a proxy whose word counts.
    """

    __slots__ = ("anonymous", "hop", "is_trusted", "named", "trusted")

    def __init__(
        self, named: bytes, anonymous: bytes, hop: Hop | None = None, trusted: TrustedProxies = NOBODY
    ) -> None:
        self.named = named
        self.anonymous = anonymous
        self.hop = hop
        self.trusted = trusted
        self.is_trusted = hop is not None and hop.is_trusted


class Admitted:
    """
    A request that goes to the app.

    Attributes:
        prefix: Its head for the app, as `request_prefix` makes it.
        trace_id: Of the trace that goes on; b"": a new one is started.
        principal: Who the client is, for the log; "" if nobody in particular.
        router: That has found the destination; after a reload there is another one.
    """

    __slots__ = ("destination", "prefix", "principal", "router", "trace_id")

    def __init__(
        self, prefix: bytes, trace_id: bytes, destination: Destination, principal: str, router: Router
    ) -> None:
        self.prefix = prefix
        self.trace_id = trace_id
        self.destination = destination
        self.principal = principal
        self.router = router


class TurnedAway:
    """A request whose sender may not send it."""

    __slots__ = ("principal", "refusal")

    def __init__(self, refusal: Refusal, principal: str) -> None:
        self.refusal = refusal
        self.principal = principal


class AnsweredHere:
    """A request that goes nowhere; *answer* is None where no route is about it."""

    __slots__ = ("answer", "principal")

    def __init__(self, answer: Answer | None, principal: str) -> None:
        self.answer = answer
        self.principal = principal

    def reply(self, scheme: str, head: RequestHead) -> tuple[str, replies.Reply]:
        """
        Return what the log calls the answer, and the answer.

        Args:
            scheme: Of the connection that the request came over.

        Raises:
            RequestError: It is a redirect, and the path can be read in different ways.
        """
        if self.answer is None:
            status, message = replies.REPLIES["no_route"]
            return "no_route", replies.refusal(status, "no_route", message, as_json=replies.wants_json(head.fields))
        action = self.answer.action
        if isinstance(action, DirectResponse):
            return "direct_response", replies.direct(action)
        return "redirect", replies.redirect(action.status, self.answer.location(scheme, head.host, head.target))


Verdict = Admitted | TurnedAway | AnsweredHere


class Intake:
    """
    Judges the requests of one client, by what is known of it.

    Attributes:
        forwarding: The fields that all its requests get.
        refusal: Of every request; None: they are judged one by one, or all let in.
        principal: Who the client is, if that is the same for all requests.
    """

    __slots__ = ("_admission", "_service", "forwarding", "principal", "refusal")

    def __init__(self, service: Service, forwarding: Forwarding, admission: Admission | Decision) -> None:
        """
        Args:
            admission: What is decided about all requests, or who decides about each.
        """
        self._service = service
        self.forwarding = forwarding
        self._admission: Admission | None = None
        self.refusal: Refusal | None = None
        self.principal = ""
        if isinstance(admission, Decision):
            self.refusal, self.principal = admission.refusal, admission.principal
        else:
            self._admission = admission

    def judge(self, head: RequestHead) -> Verdict:
        """
        Find out what becomes of a request.

        Raises:
            RequestError: It is refused by the settings, or its path or host can be read in different ways, and a rule
                or route would have to match it.
        """
        if self.refusal is not None:
            return TurnedAway(self.refusal, self.principal)
        router = self._service.router
        decision: Decision | None = None
        outcome: Outcome | None = router.only
        principal = self.principal
        if self._admission is not None or outcome is None:
            decision, outcome = self._decide(head, router)
            if decision is not None:
                principal = decision.principal
                if decision.refusal is not None:
                    return TurnedAway(decision.refusal, principal)
        if not isinstance(outcome, Destination):
            return AnsweredHere(outcome, principal)
        forwarding, hop = self.forwarding, self.forwarding.hop
        looks_at_nobody = decision is not None and not principal
        lines = forwarding.anonymous if looks_at_nobody else forwarding.named
        if hop is not None:
            lines = hop.lines(head) + lines
        # Where a trace begins, and how, is for those to say who are believed.
        trace_id = client_trace_id(head) if forwarding.is_trusted else b""
        prefix = request_prefix(head, lines, self._service.http, trace_id, outcome, hop is not None)
        return Admitted(prefix, trace_id, outcome, principal, router)

    def check_authority(self, head: RequestHead, server_name: str | None, names: ServedNames) -> None:
        """
        Refuse a request on a connection that was made for another host, if that makes a difference (RFC 9110 section
        7.4): a client may reuse a connection only for names of the certificate that it was shown.

        Args:
            server_name: That the client has asked for, as it sent it; None: it asked for none.
            names: Of the certificates.

        Raises:
            RequestError: 421, after which the client makes a connection for the other host.
        """
        if server_name is None:
            return
        host, asked = plain_host(head.host), plain_host(server_name.encode("ascii", "backslashreplace"))
        if host == asked or names.belong_together(asked, host):
            return
        rules = self._admission.rules if self._admission is not None else None
        if self._service.router.tells_apart(host, asked) or (rules is not None and rules.tell_apart(host, asked)):
            text = "the certificate of this connection is not for the host that was asked for; make another connection"
            raise RequestError("misdirected_request", text, 421)

    def refusal_of(self, head: RequestHead) -> Refusal | None:
        """
        Return why a request that was let in would not be now; None if it would.

        Raises:
            RequestError: Under other settings, its path has become ambiguous.
        """
        if self.refusal is not None or self._admission is None:
            return self.refusal
        decision, _ = self._decide(head, self._service.router)
        return decision.refusal if decision is not None else None

    def believe(self, exchange: Exchange, host: str) -> None:
        """
        Take from the client, if its word counts, who sent a request, and what that is called.

        Args:
            host: The client's own address.
        """
        if not self.forwarding.is_trusted:
            return
        fields = exchange.head.fields
        client = client_address(fields, host, self.forwarding.trusted)
        if client != host:
            exchange.client = client
        claimed = claimed_request_id(fields)
        if claimed:
            exchange.request_id = claimed
            exchange.is_named_by_us = False

    def _decide(self, head: RequestHead, router: Router) -> tuple[Decision | None, Outcome | None]:
        """
        Decide about a request, and where it goes.

        Returns:
            The decision, None if it was decided about all requests; and what becomes of it, None if no route says.

        Raises:
            RequestError: Its path or host can be read in different ways, and a rule or route would have to match it.
        """
        admission = self._admission
        if b"%" in head.host:
            raise RequestError("ambiguous_host", "the host has an encoded character, which programs read differently")
        host = head.host or DEFAULT_HOST
        is_rewritten = self._service.http.normalize_path is Switch.ON
        decision: Decision | None = None
        outcomes: list[Outcome | None] = []
        for path in (normalise(head.target),) if is_rewritten else readings(head.target):
            outcome = router.find(head, host, path)
            if admission is not None:
                careless = router.find_carelessly(head, host, path) if router.has_rules else outcome
                decision = _decide(admission, Request(head.method, host, path), outcome, careless)
                if not decision.is_allowed:
                    return decision, outcome
            outcomes.append(outcome)
        if any(outcome is not outcomes[0] for outcome in outcomes):
            raise RequestError("ambiguous_path", "the path has dots or slashes by which different routes would match")
        return decision, outcomes[0]


def _decide(admission: Admission, request: Request, strict: Outcome | None, careless: Outcome | None) -> Decision:
    """
    Decide about one reading of a request, by the rule of its route if that has one.

    Where a careless app would see the path of another route, the rule of that must allow it too.
    """
    decision = _by_rule(admission, request, strict)
    if not decision.is_allowed or careless is strict:
        return decision
    second = _by_rule(admission, request, careless)
    return decision if second.is_allowed else second


def _by_rule(admission: Admission, request: Request, outcome: Outcome | None) -> Decision:
    if outcome is None or outcome.rule is None:
        return admission.decide(request)
    return admission.judge(outcome.rule)
