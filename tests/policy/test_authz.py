"""`sidecar.policy.authz`: who is served."""

from __future__ import annotations

import pytest

from sidecar.policy import matchers
from sidecar.policy.authz import (
    NO_CERTIFICATE,
    Admission,
    Presented,
    Refusal,
    Rule,
    Rules,
    authorize,
    decide,
    decides_per_connection,
    exempt,
    handshake_mode,
    judge,
)
from sidecar.policy.conditions import Condition, ConditionError, Request
from sidecar.policy.identity import PeerIdentity
from sidecar.policy.matchers import Matcher
from sidecar.settings import ClientCertMode

NONE, OPTIONAL, REQUIRED = ClientCertMode.NONE, ClientCertMode.OPTIONAL, ClientCertMode.REQUIRED
FLAW = "the certificate has expired"

MISSING = (400, "client_certificate_missing")
INVALID = (403, "client_certificate_invalid")
NOT_AUTHORIZED = (403, "client_not_authorized")
ALLOWED = (200, "allowed")


def identity(**names: tuple[str, ...]) -> PeerIdentity:
    return PeerIdentity(
        subject="CN=secret-name",
        issuer="CN=ca",
        serial="1",
        sha256="ab" * 32,
        spki_sha256="cd" * 32,
        not_before=0.0,
        not_after=1.0,
        **names,
    )


WEB = Presented(identity(common_names=("web",), organizational_units=("shop",), uri=("spiffe://prod/web",)))
ADMIN = Presented(identity(common_names=("admin",)))
EXPIRED = Presented(identity(common_names=("admin",)), FLAW)
UNREADABLE = Presented(None, FLAW)

ANYBODY = Rule(name="anybody", mode=NONE)
MAYBE = Rule(name="maybe", mode=OPTIONAL)
CLIENTS = Rule(name="clients", mode=REQUIRED)


def rule(
    *paths: str, mode: ClientCertMode = REQUIRED, allow: str | None = None, deny: str | None = None, **condition: str
) -> Rule:
    """A rule called by its first path."""
    conditions = {kind: (pattern,) for kind, pattern in condition.items()}
    return Rule(
        name=(paths or ("rule",))[0],
        condition=Condition(paths=paths, **conditions),
        mode=mode,
        allow=None if allow is None else matchers.compile(allow),
        deny=None if deny is None else matchers.compile(deny),
    )


def get(path: str, method: str = "GET", host: str = "a") -> Request:
    return Request(method.encode(), host.encode(), path.encode())


class TestAuthorize:
    @pytest.mark.parametrize(
        ("mode", "has_certificate", "flaw"),
        [
            (NONE, False, None),
            (NONE, True, None),
            (NONE, True, FLAW),
            (OPTIONAL, False, None),
            (OPTIONAL, True, None),
            (REQUIRED, True, None),
        ],
    )
    def test_client_that_meets_the_mode_is_served(
        self, mode: ClientCertMode, has_certificate: bool, flaw: str | None
    ) -> None:
        """A client is served if it showed as good a certificate as the listener demands."""
        assert authorize(mode, has_certificate=has_certificate, flaw=flaw) is None

    @pytest.mark.parametrize("mode", [OPTIONAL, REQUIRED])
    def test_unverifiable_certificate_is_refused_with_403(self, mode: ClientCertMode) -> None:
        """A certificate that cannot be verified is refused, also where none would have done, and the flaw is named."""
        refusal = authorize(mode, has_certificate=True, flaw=FLAW)
        assert refusal == Refusal(403, "client_certificate_invalid", "Refused: the certificate has expired.", FLAW)

    def test_missing_certificate_is_refused_with_400(self) -> None:
        """Where a certificate is required, a client without one is told so."""
        refusal = authorize(REQUIRED, has_certificate=False, flaw=None)
        assert refusal is not None
        assert (refusal.status, refusal.reason) == (400, "client_certificate_missing")
        assert "\n" not in refusal.message

    @pytest.mark.parametrize("mode", ClientCertMode)
    @pytest.mark.parametrize("has_certificate", [False, True])
    @pytest.mark.parametrize("flaw", [None, FLAW])
    def test_flaw_never_helps(self, mode: ClientCertMode, has_certificate: bool, flaw: str | None) -> None:
        """Whoever is refused without a flaw is refused with one, in every mode."""
        if authorize(mode, has_certificate=has_certificate, flaw=None) is not None:
            assert authorize(mode, has_certificate=has_certificate, flaw=flaw) is not None


class TestPresented:
    @pytest.mark.parametrize(
        ("presented", "has_certificate", "is_verified"),
        [(NO_CERTIFICATE, False, False), (WEB, True, True), (EXPIRED, True, False), (UNREADABLE, True, False)],
        ids=["none", "valid", "flawed", "unreadable"],
    )
    def test_only_an_identity_without_flaw_is_verified(
        self, presented: Presented, has_certificate: bool, is_verified: bool
    ) -> None:
        """A certificate with a flaw was shown, and its names are nobody's."""
        assert presented.has_certificate is has_certificate
        assert (presented.verified is not None) is is_verified


class TestJudge:
    @pytest.mark.parametrize(
        ("mode", "allow", "deny", "presented", "result"),
        [
            pytest.param(REQUIRED, None, None, WEB, ALLOWED, id="valid"),
            pytest.param(REQUIRED, "cn=web", None, WEB, ALLOWED, id="allowed"),
            pytest.param(REQUIRED, "cn=web", None, ADMIN, NOT_AUTHORIZED, id="not allowed"),
            pytest.param(REQUIRED, "", None, WEB, NOT_AUTHORIZED, id="empty allow list"),
            pytest.param(REQUIRED, "cn=web", "uri=spiffe://prod/**", WEB, NOT_AUTHORIZED, id="allowed and denied"),
            pytest.param(REQUIRED, None, "cn=web", ADMIN, ALLOWED, id="not denied"),
            pytest.param(REQUIRED, None, "", ADMIN, ALLOWED, id="empty deny list"),
            pytest.param(REQUIRED, None, "not(ou=shop)", ADMIN, NOT_AUTHORIZED, id="denied for what it lacks"),
            pytest.param(REQUIRED, "not(ou=shop)", None, ADMIN, NOT_AUTHORIZED, id="not allowed for what it lacks"),
            pytest.param(REQUIRED, "cn=admin", None, EXPIRED, INVALID, id="allowed but invalid"),
            pytest.param(REQUIRED, None, None, UNREADABLE, INVALID, id="unreadable"),
            pytest.param(REQUIRED, "cn=web", None, NO_CERTIFICATE, MISSING, id="none where required"),
            pytest.param(OPTIONAL, "cn=web", None, NO_CERTIFICATE, ALLOWED, id="none where optional"),
            pytest.param(OPTIONAL, "", None, NO_CERTIFICATE, ALLOWED, id="none where optional and nobody is allowed"),
            pytest.param(OPTIONAL, "cn=web", None, ADMIN, NOT_AUTHORIZED, id="not allowed though optional"),
            pytest.param(OPTIONAL, None, "cn=admin", ADMIN, NOT_AUTHORIZED, id="denied though optional"),
            pytest.param(OPTIONAL, None, None, EXPIRED, INVALID, id="invalid though optional"),
            pytest.param(NONE, None, None, NO_CERTIFICATE, ALLOWED, id="none needed"),
            pytest.param(NONE, None, None, EXPIRED, ALLOWED, id="invalid but not looked at"),
            pytest.param(NONE, None, None, WEB, ALLOWED, id="valid but not looked at"),
        ],
    )
    def test_status_follows_from_mode_lists_and_certificate(
        self,
        mode: ClientCertMode,
        allow: str | None,
        deny: str | None,
        presented: Presented,
        result: tuple[int, str],
    ) -> None:
        """Deny goes before allow, a flaw before both; an allow list is for those who show a certificate."""
        decision = judge(rule(mode=mode, allow=allow, deny=deny), presented)
        assert (decision.status, decision.reason) == result
        assert decision.is_allowed is (result is ALLOWED)
        assert decision.rule == "rule"
        assert decision.reasons

    @pytest.mark.parametrize(
        ("allow", "presented", "principal"),
        [
            ("cn=web", WEB, "web"),
            ("all(ou=shop, uri=spiffe://prod/**)", WEB, "spiffe://prod/web"),
            ("ou=shop", WEB, "spiffe://prod/web"),
            (None, WEB, "spiffe://prod/web"),
            ("cn=web", ADMIN, "admin"),
        ],
    )
    def test_principal_is_the_name_that_matched(self, allow: str | None, presented: Presented, principal: str) -> None:
        """Who was let in is known by the name that the list has, else by its first; so is who was not."""
        assert judge(rule(allow=allow), presented).principal == principal

    @pytest.mark.parametrize("presented", [NO_CERTIFICATE, EXPIRED, UNREADABLE])
    def test_unverified_client_has_no_principal(self, presented: Presented) -> None:
        """Names in a certificate that was not verified are nobody's, and not taken for a client's."""
        assert judge(rule(mode=OPTIONAL), presented).principal == ""
        assert judge(ANYBODY, WEB).principal == ""

    @pytest.mark.parametrize("lists", [{"deny": "cn=admin"}, {"allow": "cn=web"}, {"allow": ""}], ids=str)
    def test_client_is_not_told_the_rules(self, lists: dict[str, str]) -> None:
        """The sentence for who is not authorized is the same for every list, and has no name of list or client."""
        decision = judge(rule("/secret-place", **lists), ADMIN)
        assert decision.message == "Refused: this client certificate is not authorized here."
        assert "/secret-place" in decision.reasons[0]

    @pytest.mark.parametrize(
        ("presented", "fact"), [(NO_CERTIFICATE, "the client showed no certificate"), (EXPIRED, FLAW)]
    )
    def test_log_is_told_why_the_mode_refuses(self, presented: Presented, fact: str) -> None:
        """The reasons name the rule, and the flaw or that there was nothing to have one."""
        assert judge(CLIENTS, presented).reasons == (f"rule clients: {fact}",)

    def test_refusal_says_what_the_proxy_answers(self) -> None:
        """A decision against a request is also a refusal, with the reasons for the log; one for it is none."""
        decision = judge(rule(allow=""), WEB)
        assert decision.refusal == Refusal(
            403, "client_not_authorized", decision.message, "rule rule: the allow list is empty"
        )
        assert judge(CLIENTS, WEB).refusal is None

    def test_refusals_without_rules_are_the_same(self) -> None:
        """A rule without lists answers as a listener of its mode does."""
        for mode in ClientCertMode:
            for presented in (NO_CERTIFICATE, EXPIRED, WEB):
                plain = authorize(mode, has_certificate=presented.has_certificate, flaw=presented.flaw)
                refusal = judge(rule(mode=mode), presented).refusal
                assert (refusal and refusal.message) == (plain and plain.message)
                assert (refusal and refusal.reason) == (plain and plain.reason)


class TestDecide:
    def test_first_rule_that_is_about_the_request_decides(self) -> None:
        """Rules are tried in order, whatever their modes; the default is for the rest."""
        rules = Rules((rule("/a/*", mode=NONE), rule("/a/b"), rule("/c", mode=OPTIONAL)), CLIENTS)
        assert [decide(rules, get(path), NO_CERTIFICATE).rule for path in ("/a/b", "/c", "/d")] == [
            "/a/*",
            "/c",
            "clients",
        ]

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/healthz", "allowed"),
            ("/HEALTHZ", "client_certificate_missing"),
            ("/healthz/", "client_certificate_missing"),
            ("/healthz;x", "client_certificate_missing"),
            ("/healthz/admin", "client_certificate_missing"),
            ("/healthzz", "client_certificate_missing"),
        ],
    )
    def test_exemption_is_for_the_exact_path(self, path: str, reason: str) -> None:
        """What only a careless app takes for an exempt path is not exempt."""
        assert decide(exempt(["/healthz"], CLIENTS), get(path), NO_CERTIFICATE).reason == reason

    @pytest.mark.parametrize("path", ["/admin", "/admin/x", "/ADMIN", "/Admin/x", "/admin/", "/admin;x=1/y", "//admin"])
    def test_protection_is_for_every_reading(self, path: str) -> None:
        """What a careless app takes for a protected path is protected."""
        rules = Rules((rule("/admin/*", allow="cn=admin"), rule("/admin", allow="cn=admin")), ANYBODY)
        assert decide(rules, get(path), WEB).reason == "client_not_authorized"
        assert decide(rules, get(path), ADMIN).is_allowed

    def test_refusal_by_the_careless_reading_says_so(self) -> None:
        """The log has both rules, and why the second was asked."""
        decision = decide(Rules((rule("/admin", allow="cn=admin"),), ANYBODY), get("/ADMIN"), WEB)
        assert decision.rule == "/admin"
        assert len(decision.reasons) == 3
        assert "anybody" in decision.reasons[0]
        assert "case" in decision.reasons[2]

    def test_refusal_by_the_strict_reading_is_the_one_that_counts(self) -> None:
        """A careless reading that would be allowed does not help."""
        rules = Rules((rule("/open", mode=NONE),), CLIENTS)
        decision = decide(rules, get("/OPEN"), NO_CERTIFICATE)
        assert (decision.rule, decision.is_allowed) == ("clients", False)

    def test_methods_and_hosts_choose_rules_too(self) -> None:
        """A rule may be about some methods or hosts only; another spelling of a method does not get round it."""
        rules = Rules((rule(methods="POST", allow="cn=admin"), rule(hosts="*.internal", allow="cn=web")), MAYBE)
        assert not decide(rules, get("/", "POST"), WEB).is_allowed
        assert not decide(rules, get("/", "post"), WEB).is_allowed
        assert decide(rules, get("/", host="A.internal:443"), WEB).is_allowed
        assert not decide(rules, get("/", host="a.INTERNAL."), ADMIN).is_allowed
        assert decide(rules, get("/", host="a.external"), ADMIN).is_allowed

    @pytest.mark.parametrize("path", ["/a", "/A", "/a/", "/b", "/b/x", "*"])
    @pytest.mark.parametrize("names", [{}, {"common_names": ("web",)}, {"common_names": ("x\0",)}], ids=str)
    def test_flaw_never_helps(self, path: str, names: dict[str, tuple[str, ...]]) -> None:
        """Whoever is refused with a good certificate is refused with the same one flawed."""
        rules = Rules((rule("/a", allow="cn=web"), rule("/b/*", mode=OPTIONAL, deny="cn=web")), CLIENTS)
        good, bad = Presented(identity(**names)), Presented(identity(**names), FLAW)
        assert decide(rules, get(path), good).is_allowed >= decide(rules, get(path), bad).is_allowed


class TestAdmission:
    def test_each_rule_is_judged_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests of one connection that fall under one rule share its decision; lists are gone through once."""
        asked: list[Matcher] = []

        def matches(self: Matcher, identity: PeerIdentity) -> bool:
            asked.append(self)
            return True

        monkeypatch.setattr(Matcher, "matches", matches)
        admission = Admission(Rules((rule("/a", allow="cn=web"),), rule(allow="cn=x")), WEB)
        for path in ("/a", "/b", "/a", "/b", "/c"):
            assert admission.decide(get(path)).is_allowed
        assert asked == [matchers.compile("cn=web"), matchers.compile("cn=x")]

    def test_every_rule_can_be_asked_at_once(self) -> None:
        """The decisions of all rules that are ever asked are known without a request, the default's last."""
        rules = Rules((rule("/a", mode=NONE), rule("/b", allow="cn=x")), rule("/c"))
        admission = Admission(rules, WEB)
        decisions = admission.decide_each()
        assert [decision.rule for decision in decisions] == ["/a", "/b", "/c"]
        assert [decision.is_allowed for decision in decisions] == [True, False, True]
        assert [admission.decide(get(path)) for path in ("/a", "/b", "/x")] == list(decisions)

    def test_rule_that_is_never_reached_is_not_asked(self) -> None:
        """Behind a rule about every request, none has a say, not even the default."""
        assert [found.rule for found in Admission(Rules((CLIENTS, ANYBODY), MAYBE), WEB).decide_each()] == ["clients"]


class TestRulesOfRoutes:
    """Rules that stand in place of the others on some routes."""

    ROUTES = (rule(mode=NONE), rule(mode=REQUIRED, allow="cn=admin"))

    def test_they_are_asked_by_whoever_finds_the_route(self) -> None:
        """Never for a request of itself, since their own conditions are about all."""
        rules = Rules((), CLIENTS, self.ROUTES)
        assert decide(rules, Request(b"GET", b"a", b"/"), NO_CERTIFICATE).status == 400

    def test_all_of_them_are_asked_at_once(self) -> None:
        """Behind the others, also where those end with one about every request."""
        admission = Admission(Rules((rule("/*", mode=OPTIONAL),), CLIENTS, self.ROUTES), WEB)
        assert [decision.status for decision in admission.decide_each()] == [200, 200, 403]
        admission = Admission(Rules((), CLIENTS, self.ROUTES), WEB)
        assert [decision.status for decision in admission.decide_each()] == [200, 200, 403]

    def test_judging_by_one_is_remembered(self) -> None:
        """A connection asks for the same route again and again."""
        admission = Admission(Rules((), CLIENTS, self.ROUTES), ADMIN)
        first = admission.judge(self.ROUTES[1])
        assert first.principal == "admin"
        assert admission.judge(self.ROUTES[1]) is first

    @pytest.mark.parametrize(
        ("default", "route", "mode"),
        [(NONE, REQUIRED, OPTIONAL), (REQUIRED, NONE, OPTIONAL), (REQUIRED, REQUIRED, REQUIRED), (NONE, NONE, NONE)],
        ids=str,
    )
    def test_handshake_asks_for_what_a_route_may_need(
        self, default: ClientCertMode, route: ClientCertMode, mode: ClientCertMode
    ) -> None:
        """The route is not known yet."""
        assert handshake_mode(Rules((), rule(mode=default), (rule(mode=route),))) is mode

    def test_they_need_requests(self) -> None:
        """Nothing is decided before a route is known."""
        assert not decides_per_connection(Rules((), CLIENTS, self.ROUTES[:1]))


class TestHandshakeMode:
    @pytest.mark.parametrize(
        ("rules", "default", "mode"),
        [
            ((), ANYBODY, NONE),
            ((), MAYBE, OPTIONAL),
            ((), CLIENTS, REQUIRED),
            ((rule("/a"),), CLIENTS, REQUIRED),
            ((rule("/a", mode=NONE),), CLIENTS, OPTIONAL),
            ((rule("/a"),), ANYBODY, OPTIONAL),
            ((rule("/a", mode=NONE),), ANYBODY, NONE),
            ((rule("/a", mode=OPTIONAL), rule("/b")), ANYBODY, OPTIONAL),
            ((CLIENTS, rule("/a", mode=NONE)), ANYBODY, REQUIRED),
        ],
    )
    def test_handshake_asks_for_what_some_request_may_need(
        self, rules: tuple[Rule, ...], default: Rule, mode: ClientCertMode
    ) -> None:
        """It demands a certificate only if every request that can be needs one; unreachable rules do not count."""
        assert handshake_mode(Rules(rules, default)) is mode


class TestDecidesPerConnection:
    @pytest.mark.parametrize(
        ("rules", "result"),
        [
            ((), True),
            ((CLIENTS,), True),
            ((rule("/*"),), True),
            ((rule("/a"),), False),
            ((rule(methods="GET"),), False),
            ((rule(hosts="a"),), False),
        ],
        ids=["default", "always", "every path", "path", "method", "host"],
    )
    def test_only_rules_about_requests_need_requests(self, rules: tuple[Rule, ...], result: bool) -> None:
        """One decision is good for a connection if the first rule is about every request."""
        assert decides_per_connection(Rules(rules, ANYBODY)) is result


class TestExempt:
    def test_paths_need_no_certificate_and_the_rest_is_as_the_default(self) -> None:
        """An exempt path is served without certificate and with an invalid one."""
        rules = exempt(["/service", "/static/*"], CLIENTS)
        for presented in (NO_CERTIFICATE, EXPIRED, UNREADABLE, WEB):
            assert decide(rules, get("/service"), presented).is_allowed
            assert decide(rules, get("/static/x"), presented).is_allowed
        assert decide(rules, get("/"), NO_CERTIFICATE).reason == "client_certificate_missing"
        assert decide(rules, get("/static"), NO_CERTIFICATE).reason == "client_certificate_missing"

    def test_root_is_the_root_alone(self) -> None:
        """A load balancer that checks / by default can be exempted without exempting all else."""
        rules = exempt(["/"], CLIENTS)
        assert decide(rules, get("/"), NO_CERTIFICATE).is_allowed
        assert not decide(rules, get("/x"), NO_CERTIFICATE).is_allowed

    def test_no_paths_are_no_rule(self) -> None:
        """Without paths, nothing is exempt."""
        assert exempt([], CLIENTS) == Rules((), CLIENTS)

    @pytest.mark.parametrize("path", ["/*", "service", "/a%2Fb"])
    def test_wrong_path_is_refused(self, path: str) -> None:
        """A path that is none, or that would exempt every request, is an error."""
        with pytest.raises(ConditionError):
            exempt(["/a", path], CLIENTS)
