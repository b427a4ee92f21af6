"""What the settings of a listener say about its clients: the rules, and what they ask of the handshake."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from sidecar.policy import matchers
from sidecar.policy.authz import (
    NO_CERTIFICATE,
    Admission,
    Decision,
    Presented,
    Rule,
    Rules,
    decides_per_connection,
    exempt,
)
from sidecar.policy.authz import handshake_mode as mode_of
from sidecar.policy.rules import read_rules
from sidecar.settings import ClientCertMode, ClientSettings, IdentityDialect
from sidecar.values import Value

DEFAULT_RULE = "default"
"""Name of the rule that SIDECAR_CLIENT_CERT, SIDECAR_CLIENT_ALLOW and SIDECAR_CLIENT_DENY make."""


@attrs.frozen(eq=False, repr=False)
class Access(Value):
    """
    Who may use a listener.

    Attributes:
        rules: Every one of them.
        dialects: In which the app is told who the client is.
    """

    rules: Rules
    dialects: frozenset[IdentityDialect] = frozenset()
    _of_anonymous: Admission | Decision = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(lambda self: self._admit(NO_CERTIFICATE), takes_self=True),
    )

    @property
    def handshake_mode(self) -> ClientCertMode:
        """Whether the handshake asks for a certificate."""
        return mode_of(self.rules)

    @property
    def decides_per_connection(self) -> bool:
        """Whether no rule looks at the request."""
        return decides_per_connection(self.rules)

    def admit(self, presented: Presented) -> Admission | Decision:
        """
        Decide about a client: at once if every rule says the same of it, else request by request.

        A client that every rule lets in, as most do with their certificates, costs its requests nothing.
        """
        # Who shows nothing is like all others that do not (bench row `connections-full`).
        return self._of_anonymous if presented is NO_CERTIFICATE else self._admit(presented)

    def _admit(self, presented: Presented) -> Admission | Decision:
        admission = Admission(self.rules, presented)
        decisions = admission.decide_each()
        if self.decides_per_connection or all(decision.is_allowed for decision in decisions):
            return next((decision for decision in decisions if decision.principal), decisions[0])
        return admission


def default_rule(client: ClientSettings) -> Rule:
    """Return what holds where no other rule does; the texts compile, as `config.units` sees to."""
    return Rule(
        name=DEFAULT_RULE,
        mode=client.cert,
        allow=matchers.compile(client.allow) if client.allow else None,
        deny=matchers.compile(client.deny) if client.deny else None,
    )


def access_of(client: ClientSettings, source: str, of_routes: Iterable[Rule] = ()) -> Access:
    """
    Put the rules together: exempt paths first, then the listed rules, then what holds for everything else.

    Args:
        client: Its texts compile, as `config.units` sees to, except for the rules.
        source: Where the rules stand, for problems.
        of_routes: The rules that routes have, in place of these.

    Raises:
        ConfigError: With everything that is wrong with the rules.
    """
    default = default_rule(client)
    exempted = exempt(client.exempt, default).rules
    listed = read_rules(json.loads(client.rules), default, source, "client_rules").rules if client.rules else ()
    return Access(Rules((*exempted, *listed), default, tuple(of_routes)), frozenset(client.identity_headers))
