"""`sidecar.config.virtualhosts`: virtual hosts and routes as they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.config.entries import Reader
from sidecar.config.load import load
from sidecar.config.virtualhosts import VirtualHosts, everything_to, everything_to_https, read_virtual_hosts
from sidecar.errors import Problem
from sidecar.settings import ClientCertMode
from sidecar.topology import (
    ClientRule,
    DirectResponse,
    HeaderCondition,
    HeaderMatch,
    PathMatch,
    Redirect,
    Route,
    RouteMatch,
    ToCluster,
    VirtualHost,
)


def read(virtual_hosts: list[Any], host: str = "") -> tuple[VirtualHosts, list[Problem]]:
    reader = Reader(load({"virtual_hosts": json.dumps(virtual_hosts)}, {}))
    items = [(f"virtual_hosts[{i}]", each) for i, each in enumerate(virtual_hosts)]
    return read_virtual_hosts(reader, items, "virtual_hosts", host), reader.problems


def routes(*entries: dict[str, Any], host: str = "") -> tuple[Route, ...]:
    """Of one virtual host without problems."""
    found, problems = read([{"routes": list(entries)}], host)
    assert problems == []
    return found.values[0].routes


def places(*entries: Any) -> list[str]:
    """Where routes of one virtual host have problems."""
    _, problems = read([{"routes": list(entries)}])
    assert all(str(problem).isprintable() for problem in problems)
    return [problem.setting.removeprefix("virtual_hosts[0].") for problem in problems]


class TestVirtualHost:
    def test_domains_are_all_unless_some_are_given(self) -> None:
        """In lower case; the name is the place unless one is given."""
        found, problems = read(
            [
                {"name": "web", "domains": ["Example.org", "*.EXAMPLE.net"], "routes": [{"cluster": "a"}]},
                {"routes": [{"cluster": "b"}]},
            ]
        )
        assert problems == []
        assert [(each.name, each.domains) for each in found.values] == [
            ("web", ("example.org", "*.example.net")),
            ("virtual_hosts[1]", ("*",)),
        ]
        assert found.clusters == [
            ("virtual_hosts[0].routes[0].cluster", "a"),
            ("virtual_hosts[1].routes[0].cluster", "b"),
        ]

    @pytest.mark.parametrize(
        ("keys", "where"),
        [
            ({"routes": []}, "virtual_hosts[0].routes"),
            ({"routes": {"cluster": "a"}}, "virtual_hosts[0].routes"),
            ({}, "virtual_hosts[0]"),
            ({"routes": [{"cluster": "a"}], "domains": []}, "virtual_hosts[0].domains"),
            ({"routes": [{"cluster": "a"}], "domains": [None]}, "virtual_hosts[0].domains[0]"),
            ({"routes": [{"cluster": "a"}], "domain": "x"}, "virtual_hosts[0].domain"),
            ({"routes": [{"cluster": "a"}], "name": "a b"}, "virtual_hosts[0].name"),
        ],
        ids=["no route", "no list", "nothing", "no domain", "null domain", "slip", "name"],
    )
    def test_what_is_missing_or_unknown_is_refused(self, keys: dict[str, Any], where: str) -> None:
        """One problem each."""
        assert [problem.setting for problem in read([keys])[1]] == [where]

    def test_names_are_unique(self) -> None:
        """They stand in logs."""
        _, problems = read([{"name": "a", "domains": f"{i}.example", "routes": [{"cluster": "a"}]} for i in "bc"])
        assert [problem.setting for problem in problems] == ["virtual_hosts[1].name"]
        assert places({"name": "r", "match": {"path": "/a"}, "cluster": "a"}, {"name": "r", "cluster": "a"}) == [
            "routes[1].name"
        ]

    def test_number_of_routes_is_bounded_in_all(self) -> None:
        """A thousand are read, one more is refused."""
        many = [{"match": {"path": f"/{i}"}, "cluster": "a"} for i in range(500)]
        hosts = [{"domains": f"{name}.example", "routes": many} for name in "ab"]
        assert read(hosts)[1] == []
        hosts += [{"routes": many[:1]}]
        assert [problem.fact for problem in read(hosts)[1]] == ["there are 1,001 routes, limit 1,000"]


class TestRoute:
    def test_everything_that_can_be_written_is_read(self) -> None:
        """Each key where it belongs."""
        (found,) = routes(
            {
                "name": "static",
                "match": {"prefix": "/static/", "methods": ["GET"], "headers": [{"name": "X-Version", "exact": "2"}]},
                "cluster": "shop",
                "prefix_rewrite": "/",
                "host_rewrite": "Shop.Internal:80",
                "timeout": "15s",
                "idle_timeout": 0,
                "client_cert": "optional",
                "allow": ["cn=a", "ou=b"],
                "deny": "cn=c",
            }
        )
        assert found == Route(
            name="static",
            match=RouteMatch(
                path="/static/",
                methods=("GET",),
                headers=(HeaderCondition(name="x-version", match=HeaderMatch.EXACT, value="2"),),
            ),
            action=ToCluster(
                cluster="shop", prefix_rewrite="/", host_rewrite="shop.internal:80", timeout=15.0, idle_timeout=0.0
            ),
            client=ClientRule(mode=ClientCertMode.OPTIONAL, allow="cn=a, ou=b", deny="cn=c"),
        )

    def test_least_is_where_requests_go(self) -> None:
        """All of them, and its place is its name."""
        assert routes({"cluster": "a"}) == (
            Route(name="virtual_hosts[0].routes[0]", match=RouteMatch(), action=ToCluster(cluster="a")),
        )

    def test_other_actions_are_read(self) -> None:
        """Their bodies and texts as they stand."""
        redirect, answer = routes(
            {
                "match": {"path": "/old"},
                "redirect": {"scheme": "https", "host": "New.Example", "port": 8443, "path": "/new", "status": 308}
                | {"strip_query": True},
            },
            {"direct_response": {"status": 404, "body": " gone\n", "content_type": "text/html"}},
        )
        assert redirect.action == Redirect(
            scheme="https", host="new.example", port=8443, path="/new", status=308, strip_query=True
        )
        assert answer.action == DirectResponse(status=404, body=" gone\n", content_type="text/html")

    @pytest.mark.parametrize(
        ("route", "where"),
        [
            ({}, "routes[0]"),
            ({"cluster": "a", "redirect": {"path": "/"}}, "routes[0]"),
            ({"cluster": "a b"}, "routes[0].cluster"),
            ({"cluster": "a", "timeout": "-1s"}, "routes[0].timeout"),
            ({"cluster": "a", "tiemout": "1s"}, "routes[0].tiemout"),
            ({"cluster": "a", "host_rewrite": "a b"}, "routes[0].host_rewrite"),
            ({"cluster": "a", "match": {"prefix": "/a", "path": "/b"}}, "routes[0].match.path"),
            ({"cluster": "a", "match": "/a"}, "routes[0].match"),
            ({"cluster": "a", "match": {"path": None}}, "routes[0].match.path"),
            ({"redirect": {}}, "routes[0].redirect"),
            ({"redirect": {"status": 200, "path": "/x"}}, "routes[0].redirect.status"),
            ({"redirect": {"port": 0}}, "routes[0].redirect.port"),
            ({"redirect": {"host": "a"}, "timeout": "1s"}, "routes[0].timeout"),
            ({"direct_response": {"body": "x"}}, "routes[0].direct_response"),
            ({"direct_response": {"status": 100}}, "routes[0].direct_response.status"),
            ({"direct_response": 200}, "routes[0].direct_response"),
            ("x", "routes[0]"),
        ],
    )
    def test_what_cannot_be_read_is_refused_at_its_place(self, route: Any, where: str) -> None:
        """Nothing is guessed, and nothing left out in silence."""
        assert set(places(route)) == {where}

    def test_meaning_is_judged_in_the_same_round(self) -> None:
        """A route that cannot be read hides no problem of others, and is in the way of none."""
        assert places(
            {"cluster": "a", "tiemout": 1},
            {"match": {"regex": "/("}, "cluster": "a"},
            {"match": {"prefix": "/b"}, "cluster": "a"},
            {"match": {"path": "/b/c"}, "cluster": "a"},
            "nothing",
        ) == ["routes[0].tiemout", "routes[4]", "routes[1].match.regex", "routes[3]"]

    def test_domain_that_cannot_be_read_hides_nothing_below(self) -> None:
        """It is not reported twice, either."""
        _, problems = read([{"domains": [{}], "routes": [{"match": {"path": "x"}, "cluster": "a"}]}])
        assert [problem.setting for problem in problems] == [
            "virtual_hosts[0].domains[0]",
            "virtual_hosts[0].routes[0].match.path",
        ]

    def test_host_of_the_settings_is_that_of_the_app_alone(self) -> None:
        """And a route may have another."""
        found = routes(
            {"match": {"path": "/a"}, "cluster": "app"},
            {"match": {"path": "/b"}, "cluster": "app", "host_rewrite": "own"},
            {"cluster": "shop"},
            host="told",
        )
        hosts = [route.action.host_rewrite for route in found if isinstance(route.action, ToCluster)]
        assert hosts == ["told", "own", ""]


class TestHeaders:
    @pytest.mark.parametrize(
        ("keys", "match", "value", "invert"),
        [
            ({}, HeaderMatch.PRESENT, "", False),
            ({"present": True}, HeaderMatch.PRESENT, "", False),
            ({"present": "off"}, HeaderMatch.PRESENT, "", True),
            ({"present": "off", "invert": "on"}, HeaderMatch.PRESENT, "", False),
            ({"exact": ""}, HeaderMatch.EXACT, "", False),
            ({"contains": "a b", "invert": True}, HeaderMatch.CONTAINS, "a b", True),
            ({"regex": "a.*"}, HeaderMatch.REGEX, "a.*", False),
        ],
    )
    def test_comparison_is_read(self, keys: dict[str, Any], match: HeaderMatch, value: str, invert: bool) -> None:
        """Not to be there is to be there, inverted."""
        (found,) = routes({"match": {"headers": [{"name": "x"} | keys]}, "cluster": "a"})
        assert found.match.headers == (HeaderCondition(name="x", match=match, value=value, invert=invert),)

    @pytest.mark.parametrize(
        ("headers", "where"),
        [
            ([{"exact": "x"}], "[0]"),
            ([{"name": "x", "exact": "a", "regex": "b"}], "[0].regex"),
            ([{"name": "x", "invert": "y"}], "[0].invert"),
            ([{"name": "x", "is": "y"}], "[0].is"),
            ({"name": "x"}, ""),
            ([{"name": "x"}] * 33, ""),
        ],
        ids=["no name", "two", "switch", "key", "no list", "many"],
    )
    def test_what_cannot_be_read_is_refused_at_its_place(self, headers: object, where: str) -> None:
        """One problem each."""
        assert places({"cluster": "a", "match": {"headers": headers}}) == [f"routes[0].match.headers{where}"]

    @pytest.mark.parametrize("kind", list(PathMatch))
    def test_path_is_compared_as_is_said(self, kind: PathMatch) -> None:
        """One of three ways."""
        (found,) = routes({"match": {kind.value: "/a"}, "cluster": "a"})
        assert found.match == RouteMatch(kind=kind, path="/a")


class TestClient:
    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({}, None),
            ({"client_cert": "none"}, ClientRule(mode=ClientCertMode.NONE)),
            ({"allow": "cn=a"}, ClientRule(allow="cn=a")),
            ({"allow": []}, ClientRule(allow="")),
            ({"deny": ["serial=0A"]}, ClientRule(deny="serial=a")),
        ],
    )
    def test_rule_is_read(self, keys: dict[str, Any], expected: ClientRule | None) -> None:
        """Whoever writes a list thinks of clients that show a certificate; an empty one lets in nobody."""
        assert routes({"cluster": "a"} | keys)[0].client == expected

    @pytest.mark.parametrize(
        ("keys", "where"),
        [
            ({"client_cert": "requierd"}, "client_cert"),
            ({"allow": "cm=a"}, "allow"),
            ({"allow": ["cn=a", ""]}, "allow[1]"),
            ({"allow": None}, "allow"),
            ({"deny": "sha256=" + "0" * 64}, "deny"),
            ({"client_cert": "none", "allow": "cn=a"}, "allow"),
            ({"allow": ", ".join(["cn=a"] * 600), "deny": "cn=b"}, None),
            ({"allow": [", ".join(f"cn={i}" for i in range(600)), ", ".join(f"ou={i}" for i in range(600))]}, "allow"),
        ],
        ids=["mode", "field", "empty", "null", "fingerprint", "ignored", "many", "too many"],
    )
    def test_rule_that_cannot_be_is_refused(self, keys: dict[str, Any], where: str | None) -> None:
        """Each at its key."""
        assert places({"cluster": "a"} | keys) == ([f"routes[0].{where}"] if where else [])


class TestEverything:
    def test_one_cluster_gets_all(self) -> None:
        """With another Host if there is one to be told."""
        ((host,),) = [everything_to("shop", "x", "told")]
        assert host == VirtualHost(
            name="x",
            domains=("*",),
            routes=(Route(name="x", match=RouteMatch(), action=ToCluster(cluster="shop", host_rewrite="told")),),
        )

    @pytest.mark.parametrize(("port", "expected"), [(443, None), (8443, 8443)])
    def test_https_is_at_its_port(self, port: int, expected: int | None) -> None:
        """Which is left out if it is the usual one; methods and bodies stay with 308."""
        (host,) = everything_to_https(port, "redirect")
        assert host.routes[0].action == Redirect(scheme="https", port=expected, status=308)
