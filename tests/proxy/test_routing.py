"""`proxy.routing`: from the routes of the settings to what an exchange needs."""

from __future__ import annotations

import pytest

from sidecar.errors import RequestError
from sidecar.policy.authz import Rule
from sidecar.proxy.routing import Answer, Destination, Router
from sidecar.settings import ClientCertMode, Seconds, Timeouts
from sidecar.topology import (
    ClientRule,
    DirectResponse,
    PathMatch,
    Redirect,
    Route,
    RouteMatch,
    ToCluster,
    VirtualHost,
)
from sidecar.wire.events import RequestHead
from sidecar.wire.head import parse_request_head
from tests.support.ports import FakeCluster

APP, SHOP = FakeCluster(name="app"), FakeCluster(name="shop")
TIMEOUTS = Timeouts(upstream=Seconds(40.0), stream=Seconds(50.0))
DEFAULT = Rule(name="default", mode=ClientCertMode.REQUIRED)


def route(
    path: str,
    action: ToCluster | Redirect | DirectResponse,
    *,
    kind: PathMatch = PathMatch.PREFIX,
    client: ClientRule | None = None,
) -> Route:
    return Route(name=f"to {path}", match=RouteMatch(kind=kind, path=path), action=action, client=client)


def router(*routes: Route, domains: tuple[str, ...] = ("*",), default: Rule = DEFAULT) -> Router:
    host = VirtualHost(name="web", domains=domains, routes=routes)
    return Router.compile([host], {"app": APP, "shop": SHOP}, TIMEOUTS, default)


def head(target: bytes = b"/") -> RequestHead:
    return parse_request_head(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target, 10)


def destination(made: Router, path: bytes, host: bytes = b"a") -> Destination:
    outcome = made.find(head(), host, path)
    assert isinstance(outcome, Destination)
    return outcome


class TestCompile:
    def test_each_route_leads_to_its_cluster(self) -> None:
        """The first that fits; nothing where none does."""
        made = router(route("/shop/", ToCluster(cluster="shop")), route("/app/", ToCluster(cluster="app")))
        assert made.only is None
        assert destination(made, b"/shop/x").cluster is SHOP
        assert destination(made, b"/shop/x").name == "to /shop/"
        assert destination(made, b"/app/").cluster is APP
        assert made.find(head(), b"a", b"/other") is None

    def test_hosts_have_their_own_routes(self) -> None:
        """And a host that none is for has none."""
        hosts = [
            VirtualHost(name=name, domains=(name,), routes=(route("/", ToCluster(cluster=cluster)),))
            for name, cluster in (("a.example", "app"), ("b.example", "shop"))
        ]
        made = Router.compile(hosts, {"app": APP, "shop": SHOP}, TIMEOUTS, DEFAULT)
        assert destination(made, b"/", b"a.example:443").cluster is APP
        assert destination(made, b"/", b"B.EXAMPLE").cluster is SHOP
        assert made.find(head(), b"c.example", b"/") is None

    def test_same_outcome_is_the_same_object(self) -> None:
        """By that it is known whether two readings of a path lead to one place."""
        made = router(route("/shop/", ToCluster(cluster="shop")), route("/", ToCluster(cluster="app")))
        assert made.find(head(), b"a", b"/shop/x") is made.find(head(), b"a", b"/shop/y")
        assert made.find(head(), b"a", b"/shop/x") is not made.find(head(), b"a", b"/x")

    def test_one_route_for_everything_is_not_looked_for(self) -> None:
        """It has no name in the log, where it would say nothing."""
        made = router(route("/", ToCluster(cluster="shop", host_rewrite="shop.internal")))
        assert isinstance(made.only, Destination)
        assert (made.only.name, made.only.host, made.cluster) == ("", b"shop.internal", SHOP)
        assert made.find(head(), b"any", b"/x") is made.only
        assert made.find_carelessly(head(), b"any", b"/x") is made.only

    @pytest.mark.parametrize("domains", [("a.example",), ("*.example",)], ids=str)
    def test_one_route_for_one_host_is_looked_for(self, domains: tuple[str, ...]) -> None:
        """Others get none."""
        made = router(route("/", ToCluster(cluster="app")), domains=domains)
        assert made.only is None
        assert made.find(head(), b"b.test", b"/") is None
        assert destination(made, b"/", b"a.example").cluster is APP

    @pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
    def test_timeout_of_a_route_goes_before_that_of_the_settings(self, name: str) -> None:
        """Each by itself; 0 turns it off."""
        made = router(route("/a/", ToCluster(cluster="app", **{name: 0.0})), route("/", ToCluster(cluster="app")))
        timeouts = destination(made, b"/a/").timeouts
        assert (timeouts.upstream, timeouts.stream) == ((0.0, 50.0) if name == "timeout" else (40.0, 0.0))
        assert destination(made, b"/").timeouts == TIMEOUTS

    def test_host_and_path_stay_unless_told_otherwise(self) -> None:
        """An empty prefix to put in place is one, too: whether there is one decides, not what it is."""
        made = router(
            route("/old/", ToCluster(cluster="app", prefix_rewrite="/")), route("/", ToCluster(cluster="app"))
        )
        assert destination(made, b"/old/x").rewriting is not None
        assert (destination(made, b"/x").rewriting, destination(made, b"/x").host) == (None, b"")

    def test_what_is_answered_here_has_its_action(self) -> None:
        """A redirect or a response, with the name of its route."""
        made = router(
            route("/old", Redirect(path="/new")),
            route("/hi", DirectResponse(status=200, body="hi")),
            route("/", ToCluster(cluster="app")),
        )
        for path, kind in ((b"/old", Redirect), (b"/hi", DirectResponse)):
            outcome = made.find(head(), b"a", path)
            assert isinstance(outcome, Answer)
            assert isinstance(outcome.action, kind)
            assert outcome.name == f"to {path.decode()}"


class TestRules:
    def test_route_without_a_word_has_none(self) -> None:
        """What holds for the listener holds."""
        made = router(route("/a", ToCluster(cluster="app")), route("/", ToCluster(cluster="app")))
        assert not made.has_rules
        assert made.rules == ()
        assert destination(made, b"/a").rule is None

    def test_rule_goes_with_the_route_and_to_whoever_asks_for_all(self) -> None:
        """The very same object: what it says of a client is found out once."""
        made = router(
            route("/open", ToCluster(cluster="app"), client=ClientRule(mode=ClientCertMode.NONE)),
            route("/hi", DirectResponse(status=200), client=ClientRule(mode=ClientCertMode.OPTIONAL)),
            route("/", ToCluster(cluster="app")),
        )
        assert made.has_rules
        assert [rule.mode for rule in made.rules] == [ClientCertMode.NONE, ClientCertMode.OPTIONAL]
        assert destination(made, b"/open").rule is made.rules[0]

    def test_rule_of_the_only_route_counts(self) -> None:
        """That there is nothing to look for does not mean that there is nothing to show."""
        rule = ClientRule(mode=ClientCertMode.REQUIRED, allow="dns=ci.example")
        made = router(route("/", ToCluster(cluster="app"), client=rule))
        assert made.has_rules
        assert made.only is not None
        assert made.only.rule is made.rules[0]

    def test_careless_app_may_see_another_route(self) -> None:
        """`find_carelessly` is what its rule is looked up by."""
        made = router(
            route("/admin", ToCluster(cluster="app"), client=ClientRule()), route("/", ToCluster(cluster="app"))
        )
        strict, careless = made.find(head(), b"a", b"/ADMIN"), made.find_carelessly(head(), b"a", b"/ADMIN")
        assert strict is not careless
        assert careless is made.find(head(), b"a", b"/admin")
        assert made.find_carelessly(head(), b"a", b"/x") is made.find(head(), b"a", b"/x")


class TestTo:
    def test_everything_goes_to_one_cluster(self) -> None:
        """Without names, rules or rewriting."""
        made = Router.to(APP, TIMEOUTS)
        assert made.cluster is APP
        assert not made.has_rules
        assert made.find(head(), b"", b"*") is made.only


class TestDestination:
    @pytest.mark.parametrize(
        ("target", "rewritten"),
        [
            (b"/old/x?a=/old/", b"/new/x?a=/old/"),
            (b"http://a/old/x", b"/new/x"),
            (b"/x/../old//y", b"/new/y"),
            (b"/%6fld/x", b"/new/x"),
        ],
    )
    def test_path_is_rewritten_as_it_was_compared(self, target: bytes, rewritten: bytes) -> None:
        """However it was spelt."""
        made = router(
            route("/old/", ToCluster(cluster="app", prefix_rewrite="/new/")), route("/", ToCluster(cluster="app"))
        )
        assert destination(made, b"/old/x").rewritten(target) == rewritten

    def test_ambiguous_path_is_refused(self) -> None:
        """Nobody can say what it would be rewritten to."""
        made = router(
            route("/old", ToCluster(cluster="app", prefix_rewrite="/new/")), route("/", ToCluster(cluster="app"))
        )
        for target in (b"/old/%2e%2e%2fx", b"/old../x"):
            with pytest.raises(RequestError, match="path has"):
                destination(made, b"/old/x").rewritten(target)


class TestAnswer:
    def test_redirect_leads_to_a_whole_url(self) -> None:
        """With the host and path of the request where the redirect says nothing."""
        made = router(route("/", Redirect(scheme="https", status=308)))
        assert isinstance(made.only, Answer)
        assert made.only.location("http", b"a.example:8080", b"/x/../y?q") == b"https://a.example/y?q"

    def test_ambiguous_path_is_refused(self) -> None:
        """The client would be sent to what another program takes for another place."""
        made = router(route("/", Redirect(scheme="https")))
        assert isinstance(made.only, Answer)
        with pytest.raises(RequestError, match="backslash"):
            made.only.location("http", b"a", b"/a\\b")
