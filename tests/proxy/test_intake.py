"""`proxy.intake`: what becomes of a request, whoever asks."""

from __future__ import annotations

import attrs
import pytest

from sidecar.errors import RequestError
from sidecar.policy.access import access_of, default_rule
from sidecar.policy.authz import NO_CERTIFICATE, Decision, Presented
from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.policy.identity import identity_of
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.intake import Admitted, AnsweredHere, Forwarding, Intake, TurnedAway, Verdict
from sidecar.proxy.routing import Router
from sidecar.settings import ClientCertMode, ClientSettings, HostPort, HttpSettings, RulesText, Switch
from sidecar.tls.sni import ServedNames
from sidecar.topology import ClientRule, PathMatch, Redirect, Route, RouteMatch, ToCluster, VirtualHost
from sidecar.wire.events import RequestHead
from sidecar.wire.head import parse_request_head
from tests.support.certs import CLIENT, authority
from tests.support.pump import ADMITTED, FORWARDING, Pump

CI = Presented(identity_of(authority().issue("ci.example", purposes=CLIENT).certificate))
NAMED = Forwarding(b"X-Named: ci\r\n", b"X-Named: nobody\r\n")
EXEMPT = ClientSettings(
    cert=ClientCertMode.REQUIRED,
    rules=RulesText('[{"path": "/healthz", "client_cert": "none"}, {"path": "/never", "allow": []}]'),
)
REFUSED = Decision(
    is_allowed=False,
    status=403,
    reason="client_not_authorized",
    message="No.",
    reasons=("not on the list",),
    rule="default",
    principal="ci",
)
TO_APP = Route(name="rest", match=RouteMatch(), action=ToCluster(cluster="app"))
SHOP = Route(name="shop", match=RouteMatch(path="/shop"), action=ToCluster(cluster="app", prefix_rewrite="/"))
OLD = Route(name="old", match=RouteMatch(kind=PathMatch.EXACT, path="/old"), action=Redirect(path="/new"))
OPEN = attrs.evolve(SHOP, name="open", client=ClientRule(mode=ClientCertMode.NONE))


def head(target: str, *lines: str) -> RequestHead:
    """The head of a GET request for a.example."""
    text = "\r\n".join([f"GET {target} HTTP/1.1", "Host: a.example", *lines, "", ""])
    return parse_request_head(text.encode(), 100)


def altered(head: RequestHead, **parts: bytes) -> RequestHead:
    """Return *head* with other parts, also such as no codec lets through."""
    for name, part in parts.items():
        setattr(head, name, part)
    return head


class Case:
    """A client of a listener."""

    def __init__(
        self,
        *routes: Route,
        client: ClientSettings | None = None,
        presented: Presented = NO_CERTIFICATE,
        http: HttpSettings | None = None,
        forwarding: Forwarding = NAMED,
        decided: Decision | None = None,
    ) -> None:
        """
        Args:
            client: How clients are judged, each request by itself; None: by *decided*.
        """
        self.pump = pump = Pump(http=http)
        self.service = pump.service
        rules = ()
        if routes:
            hosts = [VirtualHost(name="web", domains=("*",), routes=routes)]
            timeouts = pump.service.timeouts
            default = default_rule(client or ClientSettings(cert=ClientCertMode.NONE))
            self.service.router = Router.compile(hosts, {"app": pump.cluster}, timeouts, default)
            rules = self.service.router.rules
        admission = (decided or ADMITTED) if client is None else access_of(client, "test", rules).admit(presented)
        self.intake = Intake(self.service, forwarding, admission)

    def judge(self, target: str, *lines: str) -> Verdict:
        return self.intake.judge(head(target, *lines))

    def admitted(self, target: str, *lines: str) -> Admitted:
        verdict = self.judge(target, *lines)
        assert isinstance(verdict, Admitted)
        return verdict


class TestOneForAll:
    def test_let_in(self) -> None:
        """Where nothing is asked, each request goes to the one cluster, with the lines about its client."""
        case = Case(decided=attrs.evolve(ADMITTED, principal="ci"))
        found = case.admitted("/x?y=1")
        assert found.prefix.startswith(b"GET /x?y=1 HTTP/1.1\r\n")
        assert b"\r\nX-Named: ci\r\n" in found.prefix
        assert not found.prefix.endswith(b"\r\n\r\n")
        assert found.destination is case.service.router.only
        assert (found.principal, found.trace_id, found.router) == ("ci", b"", case.service.router)

    @pytest.mark.parametrize("target", ["/x", "/healthz", "/%2e%2e/x", "*"])
    def test_turned_away(self, target: str) -> None:
        """One who may send nothing is refused before anything is looked at, and the log knows who it is."""
        verdict = Case(decided=REFUSED).intake.judge(altered(head("/x"), target=target.encode()))
        assert isinstance(verdict, TurnedAway)
        assert (verdict.refusal, verdict.principal) == (REFUSED.refusal, "ci")


class TestEachByItself:
    def test_exempt_path_is_open_and_tells_nobody(self) -> None:
        """What anybody may ask for is asked by nobody in particular, whatever certificate was shown."""
        found = Case(client=EXEMPT, presented=CI).admitted("/healthz")
        assert b"X-Named: nobody" in found.prefix
        assert found.principal == ""

    def test_good_certificate_is_let_in_by_name(self) -> None:
        """And the app is told of it."""
        found = Case(client=EXEMPT, presented=CI).admitted("/x")
        assert b"X-Named: ci" in found.prefix
        assert found.principal == "ci.example"

    def test_without_a_certificate_only_exempt_paths_are_open(self) -> None:
        """Each request has its own verdict, whatever the one before had."""
        case = Case(client=EXEMPT)
        assert isinstance(case.judge("/x"), TurnedAway)
        assert isinstance(case.judge("/healthz"), Admitted)
        assert isinstance(case.judge("/x"), TurnedAway)

    @pytest.mark.parametrize("target", ["/healthz/../x", "/x/../healthz", "//healthz", "/HEALTHZ"])
    def test_path_that_apps_read_differently_is_not_exempt(self, target: str) -> None:
        """Every reading has to be open."""
        assert isinstance(Case(client=EXEMPT).judge(target), TurnedAway)

    def test_path_that_cannot_be_judged_is_refused(self) -> None:
        """No rule could be about an encoded slash."""
        with pytest.raises(RequestError) as caught:
            Case(client=EXEMPT).judge("/healthz%2f..%2fx")
        assert caught.value.reason == "ambiguous_path"

    def test_encoded_host_is_refused(self) -> None:
        """Programs read it differently, so no rule could be about it."""
        with pytest.raises(RequestError) as caught:
            Case(client=EXEMPT).intake.judge(altered(head("/x"), host=b"a%2eexample"))
        assert caught.value.reason == "ambiguous_host"


class TestRoutes:
    def test_route_leads_to_its_cluster_with_its_path(self) -> None:
        """The app gets the path that the route says."""
        found = Case(SHOP, TO_APP).admitted("/shop/cart")
        assert found.prefix.startswith(b"GET /cart HTTP/1.1\r\n")
        assert found.destination.name == "shop"

    def test_answer_of_ours_is_told(self) -> None:
        """A redirect is for the caller to send."""
        verdict = Case(OLD, TO_APP).judge("/old")
        assert isinstance(verdict, AnsweredHere)
        assert verdict.answer is not None
        assert verdict.answer.name == "old"

    def test_request_without_a_route_has_no_answer(self) -> None:
        """Nor is it let in."""
        verdict = Case(SHOP).judge("/x")
        assert isinstance(verdict, AnsweredHere)
        assert verdict.answer is None

    def test_path_of_two_routes_is_refused(self) -> None:
        """It depends on the reader which one it is of."""
        with pytest.raises(RequestError) as caught:
            Case(SHOP, TO_APP).judge("/shop/../x")
        assert caught.value.reason == "ambiguous_path"

    def test_normalised_path_has_one_reading(self) -> None:
        """With `normalize_path` the app gets what was judged."""
        found = Case(SHOP, TO_APP, http=HttpSettings(normalize_path=Switch.ON)).admitted("/shop/../x")
        assert found.prefix.startswith(b"GET /x HTTP/1.1\r\n")
        assert found.destination.name == "rest"

    def test_open_route_tells_of_nobody(self) -> None:
        """A route that looks at no certificate gives its app no name."""
        case = Case(OPEN, TO_APP, client=EXEMPT, presented=CI)
        assert b"X-Named: nobody" in case.admitted("/shop/x").prefix
        assert b"X-Named: ci" in case.admitted("/x").prefix

    def test_other_routes_after_a_reload(self) -> None:
        """The verdict names the router that it is from, so that a caller can tell whether it still holds."""
        case = Case(SHOP, TO_APP)
        before = case.admitted("/shop/x")
        case.service.router = Router.to(case.pump.cluster, case.service.timeouts)
        after = case.admitted("/shop/x")
        assert before.router is not after.router
        assert after.prefix.startswith(b"GET /shop/x HTTP/1.1\r\n")


class TestRefusalOf:
    def test_nothing_has_changed(self) -> None:
        """Who is let in stays so."""
        assert Case().intake.refusal_of(head("/x")) is None
        assert Case(client=EXEMPT, presented=CI).intake.refusal_of(head("/x")) is None

    def test_nobody_is_let_in_any_more(self) -> None:
        """It says why."""
        assert Case(decided=REFUSED).intake.refusal_of(head("/x")) == REFUSED.refusal

    def test_path_needs_a_certificate_now(self) -> None:
        """Rules are asked anew about that very request."""
        refusal = Case(client=EXEMPT).intake.refusal_of(head("/x"))
        assert refusal is not None
        assert refusal.reason == "client_certificate_missing"
        assert Case(client=EXEMPT).intake.refusal_of(head("/healthz")) is None

    def test_path_has_become_ambiguous(self) -> None:
        """The caller decides what that means."""
        with pytest.raises(RequestError):
            Case(SHOP, TO_APP, client=EXEMPT, presented=CI).intake.refusal_of(head("/shop/../x"))


class TestBelieve:
    TRUSTED = TrustedProxies(("192.0.2.0/24",))

    def believed(self, is_trusted: bool, *lines: str) -> Exchange:
        """The exchange of a request after what its client says of it was taken, or not."""
        hop = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=is_trusted)
        case = Case(forwarding=Forwarding(b"", b"", hop, self.TRUSTED))
        exchange = Exchange(case.pump.downstream, head("/x", *lines))
        case.intake.believe(exchange, "192.0.2.7")
        return exchange

    def test_trusted_proxy_says_who_and_what(self) -> None:
        """The last address that is no trusted proxy's is the client; the name of the request stays."""
        exchange = self.believed(True, "X-Forwarded-For: 203.0.113.8, 192.0.2.9", "X-Request-Id: abc-1")
        assert (exchange.client, exchange.request_id, exchange.is_named_by_us) == ("203.0.113.8", b"abc-1", False)

    def test_others_say_nothing(self) -> None:
        """Their words change nothing here."""
        exchange = self.believed(False, "X-Forwarded-For: 203.0.113.8", "X-Request-Id: abc-1")
        assert (exchange.client, exchange.is_named_by_us) == ("", True)
        assert exchange.request_id != b"abc-1"

    def test_silent_proxy_is_the_client(self) -> None:
        """As where there is none."""
        exchange = self.believed(True)
        assert (exchange.client, exchange.is_named_by_us) == ("", True)


def test_forwarding_trusts_whom_its_hop_trusts() -> None:
    """Without a hop nobody is believed."""
    assert not FORWARDING.is_trusted
    assert not Forwarding(
        b"", b"", Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=False)
    ).is_trusted


class TestCheckAuthority:
    NAMES = ServedNames(frozenset({"one.example", "also.example"}))
    SPLIT = (
        VirtualHost(name="one", domains=("one.example",), routes=(TO_APP,)),
        VirtualHost(name="rest", domains=("*",), routes=(attrs.evolve(TO_APP, name="rest"),)),
    )

    def check(self, case: Case, asked: str | None, host: str) -> None:
        for_host = altered(head("/"), host=host.encode())
        case.intake.check_authority(for_host, asked, self.NAMES)

    def split(self) -> Case:
        """Two virtual hosts: that of one.example, and that of all others."""
        case = Case()
        service = case.service
        default = default_rule(ClientSettings())
        service.router = Router.compile(self.SPLIT, {"app": case.pump.cluster}, service.timeouts, default)
        return case

    @pytest.mark.parametrize(
        ("asked", "host"), [("one.example", "two.example"), ("ONE.example.", "two.example:443"), ("one.example", "")]
    )
    def test_other_virtual_host_is_misdirected(self, asked: str, host: str) -> None:
        """The client was shown no certificate for it, so it may not reuse its connection."""
        with pytest.raises(RequestError) as caught:
            self.check(self.split(), asked, host)
        assert (caught.value.status, caught.value.reason) == (421, "misdirected_request")

    @pytest.mark.parametrize(
        ("asked", "host"),
        [
            ("one.example", "ONE.example:8443"),
            ("one.example", "also.example"),
            ("two.example", "two.example"),
            ("two.example", "three.example"),
            (None, "two.example"),
        ],
        ids=["the same host", "a name of the certificate", "the same, unknown", "the same rules", "no name asked for"],
    )
    def test_whatever_makes_no_difference_is_served(self, asked: str | None, host: str) -> None:
        """The names are the same, or the certificate's, or lead to the same."""
        self.check(self.split(), asked, host)

    def test_one_route_for_all_tells_nobody_apart(self) -> None:
        """Behind most sidecars there is one app, whatever its clients call it."""
        self.check(Case(), "one.example", "two.example")

    def test_client_rules_that_differ_by_host_count(self) -> None:
        """Else a connection for a host with weak rules would be judged by those of another that was never verified."""
        rules = RulesText('[{"host": "two.example", "client_cert": "none"}]')
        case = Case(client=ClientSettings(cert=ClientCertMode.REQUIRED, rules=rules))
        with pytest.raises(RequestError, match="make another connection"):
            self.check(case, "one.example", "two.example")
        self.check(case, "one.example", "three.example")
