"""`sidecar.policy.route_problems`: everything that is wrong with routes, at once."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.route_problems import LARGEST_BODY, RouteProblem, problems
from sidecar.policy.routes import RouteTable
from sidecar.topology import (
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
from sidecar.wire.fields import Fields

APP = ToCluster(cluster="app")
Action = ToCluster | Redirect | DirectResponse


def prefix(path: str, *methods: str, headers: tuple[HeaderCondition, ...] = ()) -> RouteMatch:
    return RouteMatch(path=path, methods=methods, headers=headers)


def exact(path: str, *methods: str) -> RouteMatch:
    return RouteMatch(kind=PathMatch.EXACT, path=path, methods=methods)


def regex(text: str) -> RouteMatch:
    return RouteMatch(kind=PathMatch.REGEX, path=text)


def virtual_host(*routes: tuple[RouteMatch, Action], domains: tuple[str, ...] = ("*",)) -> VirtualHost:
    made = tuple(Route(name=f"r{i}", match=match, action=action) for i, (match, action) in enumerate(routes))
    return VirtualHost(name="v", domains=domains, routes=made)


def found(*routes: tuple[RouteMatch, Action], domains: tuple[str, ...] = ("*",)) -> list[RouteProblem]:
    return problems([virtual_host(*routes, domains=domains)])


def only(*routes: tuple[RouteMatch, Action], domains: tuple[str, ...] = ("*",)) -> RouteProblem:
    """The one problem of some routes, which is on one line."""
    [problem] = found(*routes, domains=domains)
    assert "\n" not in problem.fact + problem.fix
    assert problem.fix
    return problem


HEADER = HeaderCondition(name="x-v", match=HeaderMatch.EXACT, value="1")


class TestDomains:
    @pytest.mark.parametrize(
        ("domains", "place", "hint"),
        [
            ([("*", "*")], "[0].domains[1]", "'*' stands in virtual_hosts[0].domains[0] already"),
            ([("*",), ("*",)], "[1].domains[0]", "'*' stands in virtual_hosts[0].domains[0] already"),
            ([("a.example",), ("b.example", "A.EXAMPLE")], "[1].domains[1]", "'a.example' stands in"),
            ([("*.Example",), ("*.example",)], "[1].domains[0]", "'*.example' stands in"),
            ([("::1",), ("[0::1]",)], "[1].domains[0]", "'::1' stands in"),
            ([("a.example:443",)], "[0].domains[0]", "is no host"),
            ([("a.*.example",)], "[0].domains[0]", "a * where none can be"),
            ([()], "[0].domains", "the list is empty"),
        ],
    )
    def test_domain_is_one_and_stands_once(self, domains: list[tuple[str, ...]], place: str, hint: str) -> None:
        """A host must not belong to two virtual hosts, however it is spelt."""
        [problem] = problems([virtual_host((prefix("/"), APP), domains=each) for each in domains])
        assert problem.place == f"virtual_hosts{place}"
        assert hint in problem.fact

    def test_same_routes_for_other_domains_are_no_problem(self) -> None:
        """Only routes of one virtual host are looked at together."""
        hosts = [virtual_host((prefix("/"), APP), domains=(domain,)) for domain in ("a.example", "*.example", "*")]
        assert problems(hosts) == []


class TestPaths:
    @pytest.mark.parametrize(
        ("match", "key", "hint"),
        [
            (prefix("api"), "prefix", "begin it with /"),
            (prefix(""), "prefix", "begin it with /"),
            (exact("api"), "path", "begin it with /"),
            (prefix("/a%20b"), "prefix", "percent-encoded"),
            (exact("/a?b"), "path", "never compared"),
            (prefix("/a#b"), "prefix", "never compared"),
            (prefix("/a/../b"), "prefix", "never compared"),
            (prefix("/a/.."), "prefix", "never compared"),
            (prefix("//a"), "prefix", "never compared"),
            (exact("/a;b"), "path", "never compared"),
            (exact("/a\\b"), "path", "never compared"),
            (exact("/a\nb"), "path", "never compared"),
            (prefix("/api/*"), "prefix", "would mean itself"),
            (exact("/*"), "path", "would mean itself"),
            (exact("/\udcff"), "path", "no path has"),
            (regex(""), "regex", "is empty"),
            (regex("/(a"), "regex", "missing ): /(a"),
            (regex("/(?!admin).*"), "regex", "no lookaround"),
            (regex("/(a+)+"), "regex", "(a+)+ or (.*)*"),
            (regex("/" + "a" * 1024), "regex", "limit 1,024"),
            (regex("api/.*"), "regex", "begin it with /"),
        ],
    )
    def test_path_that_no_request_could_fit_is_refused(self, match: RouteMatch, key: str, hint: str) -> None:
        """What is never compared, or is no safe expression, is said with its place."""
        problem = only((match, APP))
        assert problem.place == f"virtual_hosts[0].routes[0].match.{key}"
        assert hint in problem.fact + problem.fix

    @pytest.mark.parametrize(
        "match", [prefix("/"), prefix("/a b/"), prefix("/.well-known/"), exact("/é"), regex("(?i)/a"), regex(".*")]
    )
    def test_ordinary_path_is_no_problem(self, match: RouteMatch) -> None:
        """Paths are written decoded."""
        assert found((match, APP)) == []

    def test_unknown_method_is_refused(self) -> None:
        """A method that there is not makes a route that is never taken."""
        problem = only((prefix("/", "GET", "post"), APP))
        assert problem.place == "virtual_hosts[0].routes[0].match.methods[1]"
        assert problem.fix == "did you mean POST?"


class TestHeaders:
    @pytest.mark.parametrize(
        ("condition", "key", "hint"),
        [
            (HeaderCondition(name=""), "name", "is no name of a field"),
            (HeaderCondition(name="X-V"), "name", "in lower case"),
            (HeaderCondition(name="x v"), "name", "is no name of a field"),
            (HeaderCondition(name="x-v\n"), "name", "is no name of a field"),
            (HeaderCondition(name=":method"), "name", "methods and domains have keys of their own"),
            (HeaderCondition(name="a", value="x"), "present", "compared with nothing"),
            (HeaderCondition(name="a", match=HeaderMatch.EXACT, value="a\r\nb"), "exact", "control characters"),
            (HeaderCondition(name="a", match=HeaderMatch.EXACT, value=" a"), "exact", "blanks at an end"),
            (HeaderCondition(name="a", match=HeaderMatch.SUFFIX, value="a\t"), "suffix", "blanks at an end"),
            (HeaderCondition(name="a", match=HeaderMatch.CONTAINS, value="\ud800"), "contains", "no value has"),
            (HeaderCondition(name="a", match=HeaderMatch.PREFIX), "prefix", "write present: on"),
            (HeaderCondition(name="a", match=HeaderMatch.REGEX), "regex", "is empty"),
            (HeaderCondition(name="a", match=HeaderMatch.REGEX, value="(.*)*"), "regex", "(a+)+ or (.*)*"),
        ],
    )
    def test_condition_that_says_nothing_is_refused(self, condition: HeaderCondition, key: str, hint: str) -> None:
        """A name must be that of a field, and a value one that a field can have."""
        problem = only((prefix("/", headers=(HEADER, condition)), APP))
        assert problem.place == f"virtual_hosts[0].routes[0].match.headers[1].{key}"
        assert hint in problem.fact + problem.fix

    @pytest.mark.parametrize(
        "name",
        [
            *("x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-client-cert", "forwarded"),
            *("x-ssl-client-verify", "client-cert", "x_real_ip", "x_forwarded-proto", "x-proxy-protocol-authority"),
        ],
    )
    @pytest.mark.parametrize("match", [HeaderMatch.PRESENT, HeaderMatch.EXACT])
    def test_field_that_is_ours_is_refused(self, name: str, match: HeaderMatch) -> None:
        """What a client claims of itself opens no route; an app would read an underscore as a hyphen."""
        problem = only((prefix("/", headers=(HEADER, HeaderCondition(name=name, match=match))), APP))
        assert problem.place == "virtual_hosts[0].routes[0].match.headers[1].name"
        assert problem.fact.startswith(f"{name} is what a client only claims")
        assert "client certificates" in problem.fix

    @pytest.mark.parametrize("name", ["x-real", "x-version", "user-agent", "cookie", "forwarded-x", "x_version"])
    def test_other_field_can_be_asked_for(self, name: str) -> None:
        """Also one whose name only resembles ours."""
        assert found((prefix("/", headers=(HeaderCondition(name=name),)), APP)) == []

    @pytest.mark.parametrize("match", [HeaderMatch.EXACT, HeaderMatch.CONTAINS, HeaderMatch.REGEX])
    def test_value_of_any_characters_is_no_problem(self, match: HeaderMatch) -> None:
        """Blanks and tabs within a value are kept, and an expression about a field need not begin with a slash."""
        condition = HeaderCondition(name="a", match=match, value="é b\tc")
        assert found((prefix("/", headers=(condition,)), APP)) == []

    def test_empty_value_can_be_asked_for(self) -> None:
        """A field may be there and have no value."""
        condition = HeaderCondition(name="a", match=HeaderMatch.EXACT)
        assert found((prefix("/", headers=(condition,)), APP)) == []


class TestToCluster:
    @pytest.mark.parametrize(
        ("match", "rewrite", "hint"),
        [
            (regex("/a"), "/b", "an expression has no prefix"),
            (prefix("/a"), "b", "begin it with /"),
            (prefix("/a"), "", "begin it with /"),
            (prefix("/a"), "/b c", "percent-encoded"),
            (prefix("/a"), "/é", "percent-encoded"),
            (prefix("/a"), "/b%2", "percent-encoded"),
            (prefix("/a"), "/b?x", "percent-encoded"),
            (prefix("/a"), "/b\r\nX: y", "percent-encoded"),
            (prefix("/a"), "//b", "which programs read in different ways"),
            (prefix("/a"), "/b/../c", "which programs read in different ways"),
            (prefix("/a"), "/b/.", "which programs read in different ways"),
            (prefix("/a"), "/b/..;x", "which programs read in different ways"),
            (prefix("/a/"), "/b", "'/a/x' would become '/bx'"),
            (prefix("/"), "/b", "'/x' would become '/bx'"),
        ],
    )
    def test_rewrite_that_would_make_an_odd_path_is_refused(self, match: RouteMatch, rewrite: str, hint: str) -> None:
        """What stands in place of a prefix is a path as it is sent, and keeps the slash that parts segments."""
        problem = only((match, ToCluster(cluster="app", prefix_rewrite=rewrite)))
        assert problem.place == "virtual_hosts[0].routes[0].prefix_rewrite"
        assert hint in problem.fact + problem.fix

    @pytest.mark.parametrize(
        ("match", "rewrite"),
        [(prefix("/a"), "/"), (prefix("/a/"), "/"), (prefix("/a"), "/b"), (exact("/a/"), "/b"), (prefix("/a"), "/%20")],
    )
    def test_ordinary_rewrite_is_no_problem(self, match: RouteMatch, rewrite: str) -> None:
        """A slash may be lost where the whole path is replaced, and one more is merged."""
        assert found((match, ToCluster(cluster="app", prefix_rewrite=rewrite))) == []


class TestRedirect:
    @pytest.mark.parametrize(
        ("redirect", "key", "hint"),
        [
            (Redirect(scheme="ftp"), "scheme", "write http or https"),
            (Redirect(scheme="https", host="a\r\nb"), "host", "is no host"),
            (Redirect(scheme="https", host="a.example:80"), "host", "without scheme, port and path"),
            (Redirect(scheme="https", host="a.example/x"), "host", "without scheme, port and path"),
            (Redirect(port=0), "port", "1 to 65535"),
            (Redirect(port=65536), "port", "1 to 65535"),
            (Redirect(scheme="https", status=200), "status", "301, 302, 303, 307, 308"),
            (Redirect(scheme="https", status=304), "status", "301, 302, 303, 307, 308"),
            (Redirect(scheme="https", path="x"), "path", "begin it with /"),
            (Redirect(scheme="https", path="//evil.example"), "path", "read in different ways"),
            (Redirect(scheme="https", path="/x\r\nSet-Cookie: a"), "path", "percent-encoded"),
            (Redirect(scheme="https", path="/x?a b"), "path", "no query has"),
            (Redirect(scheme="https", path="/x?a\nb"), "path", "no query has"),
            (Redirect(scheme="https", path="/x?a#b"), "path", "no fragment"),
            (Redirect(scheme="https", path="/x", prefix_rewrite="/y"), "prefix_rewrite", "one of the two"),
            (Redirect(scheme="https", prefix_rewrite="y"), "prefix_rewrite", "begin it with /"),
            (Redirect(scheme="https", prefix_rewrite="/y"), "prefix_rewrite", "would become"),
        ],
    )
    def test_redirect_that_would_be_no_url_is_refused(self, redirect: Redirect, key: str, hint: str) -> None:
        """Each part of the URL is checked by itself."""
        problem = only((prefix("/a/"), redirect))
        assert problem.place == f"virtual_hosts[0].routes[0].redirect.{key}"
        assert hint in problem.fact + problem.fix

    @pytest.mark.parametrize(
        ("match", "redirect"),
        [
            (prefix("/"), Redirect()),
            (prefix("/"), Redirect(strip_query=True)),
            (prefix("/"), Redirect(path="/x?y=1")),
            (prefix("/"), Redirect(prefix_rewrite="/x/")),
            (prefix("/a"), Redirect(prefix_rewrite="/a/b")),
            (exact("/a"), Redirect(path="/a")),
            (exact("/a"), Redirect(prefix_rewrite="/a")),
            (regex("/a/.*"), Redirect(path="/a/b")),
            (prefix("/", "GET"), Redirect()),
            (prefix("/", "POST"), Redirect(status=307)),
            (prefix("/"), Redirect(host="a.example")),
            (prefix("/"), Redirect(host="A.Example")),
        ],
    )
    def test_redirect_to_the_same_route_is_refused(self, match: RouteMatch, redirect: Redirect) -> None:
        """A client that follows it would never arrive."""
        problem = only((match, redirect), domains=("*", "a.example"))
        assert problem.place == "virtual_hosts[0].routes[0].redirect"
        assert "without end" in problem.fact

    @pytest.mark.parametrize(
        ("match", "redirect"),
        [
            (prefix("/"), Redirect(scheme="https")),
            (prefix("/"), Redirect(port=8443)),
            (prefix("/"), Redirect(host="b.example")),
            (prefix("/a"), Redirect(path="/b")),
            (prefix("/a"), Redirect(prefix_rewrite="/b")),
            (prefix("/a/b"), Redirect(prefix_rewrite="/a")),
            (prefix("/"), Redirect(path="/above/x")),
            (prefix("/above"), Redirect(path="/above/")),
            (prefix("/", "POST"), Redirect(status=303)),
            (prefix("/", headers=(HEADER,)), Redirect()),
        ],
    )
    def test_redirect_that_may_lead_elsewhere_is_no_problem(self, match: RouteMatch, redirect: Redirect) -> None:
        """What another listener, another route or another method answers is no circle."""
        assert found((prefix("/above/"), APP), (match, redirect), domains=("*", "a.example")) == []

    def test_redirect_that_is_never_reached_leads_nowhere(self) -> None:
        """One slip is one problem."""
        assert only((prefix("/"), APP), (prefix("/"), Redirect())).place == "virtual_hosts[0].routes[1]"

    def test_redirect_that_leaves_the_path_is_refused_below_a_route_for_some_paths(self) -> None:
        """That the prefix itself goes elsewhere does not help those who ask for something below it."""
        problem = only((exact("/a"), APP), (prefix("/a"), Redirect(prefix_rewrite="/a")))
        assert problem.place == "virtual_hosts[0].routes[1].redirect"


class TestDirectResponse:
    @pytest.mark.parametrize(
        ("response", "key", "hint"),
        [
            (DirectResponse(status=199), "status", "200 to 599"),
            (DirectResponse(status=101), "status", "200 to 599"),
            (DirectResponse(status=600), "status", "200 to 599"),
            (DirectResponse(status=200, body="x" * (LARGEST_BODY + 1)), "body", "65,537 bytes, limit 65,536"),
            (DirectResponse(status=200, body="é" * (LARGEST_BODY // 2 + 1)), "body", "65,538 bytes, limit 65,536"),
            (DirectResponse(status=200, body="\ud800"), "body", "characters that there are not"),
            (DirectResponse(status=204, body="x"), "body", "status 204 has none"),
            (DirectResponse(status=304, body="x"), "body", "status 304 has none"),
            (DirectResponse(status=200, content_type="text/plain\r\nX: y"), "content_type", "is no content type"),
            (DirectResponse(status=200, content_type=""), "content_type", "is no content type"),
            (DirectResponse(status=200, content_type="text"), "content_type", "is no content type"),
        ],
    )
    def test_response_that_cannot_be_sent_is_refused(self, response: DirectResponse, key: str, hint: str) -> None:
        """Status, body and type are those of a final response."""
        problem = only((prefix("/"), response))
        assert problem.place == f"virtual_hosts[0].routes[0].direct_response.{key}"
        assert hint in problem.fact + problem.fix

    @pytest.mark.parametrize(
        "response",
        [
            DirectResponse(status=200, body="x" * LARGEST_BODY),
            DirectResponse(status=599),
            DirectResponse(status=204),
            DirectResponse(status=200, body="{}", content_type="application/problem+json"),
        ],
        ids=["largest body", "largest status", "no content", "type"],
    )
    def test_response_within_the_limits_is_no_problem(self, response: DirectResponse) -> None:
        """As much as the limit is taken."""
        assert found((prefix("/"), response)) == []


class TestOrder:
    @pytest.mark.parametrize(
        ("above", "below"),
        [
            (prefix("/"), prefix("/a")),
            (prefix("/"), exact("/a")),
            (prefix("/"), regex(".*")),
            (prefix("/"), prefix("/", "GET", headers=(HEADER,))),
            (prefix("/a"), prefix("/a/b")),
            (prefix("/a"), exact("/ab")),
            (prefix("/a"), regex("/a/[0-9]+")),
            (prefix("/a"), regex(r"^/a\.b")),
            (prefix("/a", "GET", "POST"), exact("/a", "POST")),
            (prefix("/a", "GET"), exact("/a", "HEAD")),
            (prefix("/a", headers=(HEADER,)), prefix("/a/", headers=(HEADER, HeaderCondition(name="b")))),
            (exact("/a"), exact("/a", "GET")),
            (regex("/a/[0-9]+"), exact("/a/1")),
            (regex("/a(b|c)"), regex("/a(b|c)")),
            (regex(".*"), prefix("/")),
            (regex("/.*"), prefix("/a")),
            (regex("/.*"), exact("/")),
            (regex("/.*"), regex("/a+b")),
        ],
    )
    def test_route_that_is_never_reached_is_refused(self, above: RouteMatch, below: RouteMatch) -> None:
        """A route must be about some request that no single route above it is about."""
        problem = only((above, APP), (below, APP))
        assert problem.place == "virtual_hosts[0].routes[1]"
        assert problem.fact.startswith("it is never reached: virtual_hosts[0].routes[0] above it is about ")

    @pytest.mark.parametrize(
        ("above", "below"),
        [
            (prefix("/a"), prefix("/")),
            (prefix("/a/"), exact("/a")),
            (prefix("/a/"), prefix("/a")),
            (prefix("/a"), exact("/A")),
            (exact("/a"), prefix("/a")),
            (exact("/a"), regex("/a")),
            (prefix("/", "GET"), prefix("/")),
            (prefix("/", "GET"), prefix("/", "GET", "POST")),
            (prefix("/", "HEAD"), prefix("/", "GET")),
            (prefix("/", headers=(HEADER,)), prefix("/")),
            (prefix("/", headers=(HEADER,)), prefix("/", headers=(attrs.evolve(HEADER, invert=True),))),
            (prefix("/a"), regex("/a|/b")),
            (prefix("/ab"), regex("/ab?")),
            (regex("/a/[0-9]+"), exact("/a/x")),
            (regex("/a.*"), prefix("/a")),
            (regex("/.*"), prefix("/")),
            (regex("/.*"), regex(".*")),
        ],
    )
    def test_route_that_may_be_reached_is_no_problem(self, above: RouteMatch, below: RouteMatch) -> None:
        """Order tells routes apart that share some requests."""
        assert found((above, APP), (below, APP)) == []

    def test_same_match_is_called_so(self) -> None:
        """A route that was written twice is a slip of another kind than one in the wrong place."""
        problem = only((prefix("/a"), APP), (prefix("/a"), DirectResponse(status=404)))
        assert problem == RouteProblem(
            "virtual_hosts[0].routes[1]",
            "it is never reached: virtual_hosts[0].routes[0] above it is about the same requests",
            "move it up, or remove it",
        )

    PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/A")
    ROUTES = st.builds(
        lambda kind, path, text, methods: RouteMatch(
            kind=kind, path=text if kind is PathMatch.REGEX else path, methods=tuple(methods)
        ),
        st.sampled_from(PathMatch),
        st.sampled_from(PATHS),
        st.sampled_from(["/.*", ".*", "/a/?", "/a|/A", "/a.+", "/ab*"]),
        st.one_of(st.just([]), st.lists(st.sampled_from(["GET", "HEAD", "POST"]), max_size=2, unique=True)),
    )

    @settings(max_examples=300, deadline=None)
    @given(st.lists(ROUTES, min_size=1, max_size=5))
    def test_route_that_takes_a_request_is_not_called_unreachable(self, matches: list[RouteMatch]) -> None:
        """A problem is only said of what is so: a table is not refused for a route that a request takes."""
        host = virtual_host(*((match, APP) for match in matches))
        table = RouteTable.compile([host])
        refused = {problem.place for problem in problems([host])}
        for method in (b"GET", b"HEAD", b"POST", b"OPTIONS"):
            for path in (*self.PATHS, "/a/b/c", "/abb", "/b", "*"):
                route = table.find(b"a", method, path.encode(), Fields(b""))
                assert route is None or f"virtual_hosts[0].routes[{route.name[1:]}]" not in refused


class TestAllAtOnce:
    def test_every_problem_is_found(self) -> None:
        """One round of mending is enough, and what has a problem is not compared with others."""
        hosts = [
            virtual_host(
                (prefix("x", "BREW"), ToCluster(cluster="app", prefix_rewrite="y")),
                (regex("("), DirectResponse(status=100)),
                (prefix("/"), APP),
                (prefix("/a"), DirectResponse(status=600)),
                domains=("a b", "*"),
            ),
            virtual_host((prefix("/"), Redirect(port=0)), domains=("*",)),
        ]
        assert [problem.place for problem in problems(hosts, "listeners[1].virtual_hosts")] == [
            "listeners[1].virtual_hosts[0].domains[0]",
            "listeners[1].virtual_hosts[0].routes[0].match.prefix",
            "listeners[1].virtual_hosts[0].routes[0].match.methods[0]",
            "listeners[1].virtual_hosts[0].routes[0].prefix_rewrite",
            "listeners[1].virtual_hosts[0].routes[1].match.regex",
            "listeners[1].virtual_hosts[0].routes[1].direct_response.status",
            "listeners[1].virtual_hosts[0].routes[3]",
            "listeners[1].virtual_hosts[0].routes[3].direct_response.status",
            "listeners[1].virtual_hosts[1].domains[0]",
            "listeners[1].virtual_hosts[1].routes[0].redirect.port",
        ]
