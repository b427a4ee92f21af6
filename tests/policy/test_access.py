"""`policy.access`: the rules that settings make, and what they ask of the handshake."""

from __future__ import annotations

import json

import pytest

from sidecar.errors import ConfigError
from sidecar.policy import matchers
from sidecar.policy.access import DEFAULT_RULE, Access, access_of, default_rule
from sidecar.policy.authz import NO_CERTIFICATE, Admission, Decision, Presented, Rule, judge
from sidecar.policy.conditions import Request
from sidecar.policy.identity import identity_of
from sidecar.settings import ClientCertMode, ClientSettings, IdentityDialect, MatcherText, PathPatterns, RulesText
from tests.support.certs import CLIENT, authority

NONE, OPTIONAL, REQUIRED = ClientCertMode.NONE, ClientCertMode.OPTIONAL, ClientCertMode.REQUIRED

GOOD = Presented(identity_of(authority().issue("good.example", purposes=CLIENT).certificate))
BAD = Presented(GOOD.identity, "it has expired")

EXEMPT = PathPatterns(("/healthz",))
NOTHING_EXEMPT = PathPatterns(())
NO_LIST = MatcherText("")
ALLOW_GOOD = MatcherText("dns=good.example")
ALLOW_OTHER = MatcherText("dns=other.example")


def access(
    cert: ClientCertMode = REQUIRED,
    *,
    exempt: PathPatterns = NOTHING_EXEMPT,
    allow: MatcherText = NO_LIST,
    deny: MatcherText = NO_LIST,
    rules: object = None,
) -> Access:
    text = RulesText(json.dumps(rules)) if rules is not None else RulesText("")
    return access_of(ClientSettings(cert=cert, exempt=exempt, allow=allow, deny=deny, rules=text), "file:1")


def status(access: Access, presented: Presented, path: bytes = b"/") -> int:
    """What a request for *path* is answered with."""
    admitted = access.admit(presented)
    return (admitted if isinstance(admitted, Decision) else admitted.decide(Request(b"GET", b"a", path))).status


class TestAccessOf:
    def test_mode_is_the_rule_for_everything(self) -> None:
        """Without further settings the mode decides."""
        assert [status(access(NONE), shown) for shown in (NO_CERTIFICATE, BAD, GOOD)] == [200, 200, 200]
        assert [status(access(OPTIONAL), shown) for shown in (NO_CERTIFICATE, BAD, GOOD)] == [200, 403, 200]
        assert [status(access(REQUIRED), shown) for shown in (NO_CERTIFICATE, BAD, GOOD)] == [400, 403, 200]

    def test_clients_without_a_certificate_are_judged_once(self) -> None:
        """They are all alike, and who has shown one is not like them."""
        some = access(REQUIRED, exempt=EXEMPT)
        assert some.admit(NO_CERTIFICATE) is some.admit(NO_CERTIFICATE)
        assert [status(some, shown) for shown in (NO_CERTIFICATE, BAD, GOOD, NO_CERTIFICATE)] == [400, 403, 200, 400]
        assert status(some, NO_CERTIFICATE, b"/healthz") == 200

    def test_lists_decide_about_the_certificate(self) -> None:
        """Who is not allowed, or denied, is refused."""
        assert status(access(allow=ALLOW_GOOD), GOOD) == 200
        assert status(access(allow=ALLOW_OTHER), GOOD) == 403
        assert status(access(allow=ALLOW_GOOD, deny=ALLOW_GOOD), GOOD) == 403

    def test_exempt_paths_come_first(self) -> None:
        """A health check is served whatever the rules below say."""
        rules = [{"path": "/healthz", "client_cert": "required"}, {"path": "/open", "client_cert": "none"}]
        checked = access(exempt=EXEMPT, rules=rules)
        for path, expected in ((b"/healthz", 200), (b"/open", 200), (b"/", 400)):
            assert status(checked, NO_CERTIFICATE, path) == expected

    def test_broken_rules_are_all_told(self) -> None:
        """With their places and source."""
        with pytest.raises(ConfigError) as caught:
            access(rules=[{"path": "x"}, {"allow": "cn="}])
        assert [(problem.setting, problem.source) for problem in caught.value.problems] == [
            ("client_rules[0].path", "file:1"),
            ("client_rules[1].allow", "file:1"),
        ]

    def test_dialects_are_kept(self) -> None:
        """What the app is told is set beside who may come."""
        client = ClientSettings(identity_headers=(IdentityDialect.XFCC,))
        assert access_of(client, "").dialects == {IdentityDialect.XFCC}


class TestHandshakeMode:
    @pytest.mark.parametrize(
        ("checked", "mode"),
        [
            (access(NONE), NONE),
            (access(OPTIONAL), OPTIONAL),
            (access(REQUIRED), REQUIRED),
            (access(REQUIRED, exempt=EXEMPT), OPTIONAL),
            (access(NONE, rules=[{"path": "/a", "client_cert": "required"}]), OPTIONAL),
        ],
        ids=["none", "optional", "required", "exempt", "rule"],
    )
    def test_handshake_asks_if_any_rule_could_want_it(self, checked: Access, mode: ClientCertMode) -> None:
        """The handshake ends before the path is known."""
        assert checked.handshake_mode is mode


class TestRulesOfRoutes:
    OPEN, ADMINS = Rule(name="open", mode=NONE), Rule(name="admins", mode=REQUIRED, allow=matchers.compile("cn=nobody"))

    def access(self, cert: ClientCertMode, *rules: Rule) -> Access:
        return access_of(ClientSettings(cert=cert), "file:1", rules)

    def test_they_count_for_the_handshake(self) -> None:
        """A route may need what nothing else does, or not need what all else does."""
        assert self.access(NONE, self.ADMINS).handshake_mode is OPTIONAL
        assert self.access(REQUIRED, self.OPEN).handshake_mode is OPTIONAL
        assert self.access(REQUIRED).handshake_mode is REQUIRED

    @pytest.mark.parametrize("presented", [NO_CERTIFICATE, BAD], ids=["none", "bad"])
    def test_client_that_a_route_lets_in_is_not_refused_at_once(self, presented: Presented) -> None:
        """Which route it is about decides."""
        assert isinstance(self.access(REQUIRED, self.OPEN).admit(presented), Admission)

    def test_client_that_a_route_refuses_is_not_let_in_at_once(self) -> None:
        """Nor the other way round."""
        assert isinstance(self.access(NONE, self.ADMINS).admit(GOOD), Admission)

    def test_client_that_all_let_in_is_decided_about_once(self) -> None:
        """By its name, as far as any rule looks at that."""
        admitted = self.access(REQUIRED, self.OPEN).admit(GOOD)
        assert isinstance(admitted, Decision)
        assert admitted.principal == "good.example"


class TestDefaultRule:
    def test_it_is_what_the_settings_say(self) -> None:
        """Mode and lists, under a name that operators find in the log."""
        rule = default_rule(ClientSettings(cert=OPTIONAL, allow=ALLOW_GOOD, deny=ALLOW_OTHER))
        assert (rule.name, rule.mode) == (DEFAULT_RULE, OPTIONAL)
        assert judge(rule, GOOD).is_allowed
        assert default_rule(ClientSettings(cert=OPTIONAL)).allow is None


class TestAdmit:
    def test_client_that_every_rule_lets_in_is_decided_about_once(self) -> None:
        """A good client costs its requests nothing, also where there are exempt paths."""
        admitted = access(exempt=EXEMPT).admit(GOOD)
        assert isinstance(admitted, Decision)
        assert admitted.is_allowed
        assert admitted.principal == "good.example"

    @pytest.mark.parametrize("presented", [NO_CERTIFICATE, BAD], ids=["none", "bad"])
    def test_other_clients_are_decided_about_by_request(self, presented: Presented) -> None:
        """What they may do depends on the path."""
        assert isinstance(access(exempt=EXEMPT).admit(presented), Admission)

    def test_refusal_of_all_is_decided_once(self) -> None:
        """Where no rule looks at requests, one decision is enough."""
        admitted = access().admit(NO_CERTIFICATE)
        assert isinstance(admitted, Decision)
        assert admitted.status == 400
