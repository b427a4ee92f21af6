"""`sidecar.policy.routes`: which route a request takes, in both readings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy import matchers
from sidecar.policy.authz import Rule
from sidecar.policy.conditions import ConditionError
from sidecar.policy.matchers import MatcherError
from sidecar.policy.routes import RouteTable, client_rule, problems
from sidecar.settings import ClientCertMode
from sidecar.topology import (
    ClientRule,
    DirectResponse,
    HeaderCondition,
    HeaderMatch,
    PathMatch,
    Route,
    RouteMatch,
    VirtualHost,
)
from sidecar.wire.fields import Fields

NO_FIELDS = Fields(b"")
ACTION = DirectResponse(status=200)


def prefix(path: str, *methods: str, headers: tuple[HeaderCondition, ...] = ()) -> RouteMatch:
    return RouteMatch(path=path, methods=methods, headers=headers)


def exact(path: str, *methods: str) -> RouteMatch:
    return RouteMatch(kind=PathMatch.EXACT, path=path, methods=methods)


def regex(text: str) -> RouteMatch:
    return RouteMatch(kind=PathMatch.REGEX, path=text)


def host(*matches: RouteMatch, domains: tuple[str, ...] = ("*",), name: str = "") -> VirtualHost:
    """A virtual host whose routes are named by their place in it, behind its own name."""
    routes = tuple(Route(name=f"{name}{i}", match=match, action=ACTION) for i, match in enumerate(matches))
    return VirtualHost(name=name, domains=domains, routes=routes)


def table(*matches: RouteMatch) -> RouteTable:
    return RouteTable.compile([host(*matches)])


def found(table: RouteTable, path: str = "/", method: bytes = b"GET", host: bytes = b"a", fields: bytes = b"") -> str:
    """The name of the route that a request takes; "-" if there is none."""
    route = table.find(host, method, path.encode(), Fields(fields))
    return "-" if route is None else route.name


def found_carelessly(table: RouteTable, path: str = "/", method: bytes = b"GET", fields: bytes = b"") -> str:
    route = table.find_carelessly(b"a", method, path.encode(), Fields(fields))
    return "-" if route is None else route.name


class TestPaths:
    @pytest.mark.parametrize(
        ("match", "path", "strict", "careless"),
        [
            (prefix("/admin"), "/admin", True, True),
            (prefix("/admin"), "/admin/x", True, True),
            (prefix("/admin"), "/administrator", True, True),
            (prefix("/admin"), "/Admin/x", False, True),
            (prefix("/admin"), "/adm", False, False),
            (prefix("/admin"), "/adm;in", False, False),
            (prefix("/Admin"), "/admin", False, True),
            (prefix("/admin/"), "/admin/x", True, True),
            (prefix("/admin/"), "/admin", False, True),
            (prefix("/admin/"), "/ADMIN", False, True),
            (prefix("/admin/"), "/admin;x", False, True),
            (prefix("/admin/"), "/admin;x/y", False, True),
            (prefix("/admin/"), "/administrator", False, False),
            (prefix("/a/b/"), "/a;v=1/b", False, True),
            (prefix("/a/b/"), "/a//b/c", False, True),
            (prefix("/"), "/", True, True),
            (prefix("/"), "/x", True, True),
            (prefix("/"), "*", True, True),
            (prefix("/x"), "*", False, False),
            (prefix("/straße"), "/STRASSE/x", False, True),
            (prefix("/é"), "/éa", True, True),
            (exact("/admin"), "/admin", True, True),
            (exact("/admin"), "/admin/", False, True),
            (exact("/admin"), "/admin;x", False, True),
            (exact("/admin"), "/aDmin", False, True),
            (exact("/admin"), "/admin/x", False, False),
            (exact("/Admin/"), "/Admin/", True, True),
            (exact("/Admin/"), "/admin", False, True),
            (exact("/"), "/", True, True),
            (exact("/"), "/;x", False, True),
            (exact("/"), "*", False, False),
            (regex("/a/[0-9]+"), "/a/1", True, True),
            (regex("/a/[0-9]+"), "/A/1", False, True),
            (regex("/a/[0-9]+"), "/a/1/", False, True),
            (regex("/a/[0-9]+"), "/a/1;x", False, True),
            (regex("/a/[0-9]+"), "/a/x", False, False),
            (regex("/a/.*"), "/a/", True, True),
            (regex("/a/.*"), "/A", False, True),
            (regex("/a/.*"), "/A/", False, True),
            (regex("/a;v=[0-9]/b"), "/a;v=1/b", True, True),
            (regex("/a;v=[0-9]/b"), "/A;V=1/b", False, True),
            (regex("/straße"), "/Straße", False, True),
            (regex(".*"), "*", True, True),
            (regex("/.*"), "*", False, False),
        ],
    )
    def test_path_fits_in_these_readings(self, match: RouteMatch, path: str, strict: bool, careless: bool) -> None:
        """The strict reading takes a path as it is; the careless one as the most careless app does."""
        routes = table(match)
        assert (found(routes, path), found_carelessly(routes, path)) == (
            "0" if strict else "-",
            "0" if careless else "-",
        )

    def test_first_route_that_fits_is_taken(self) -> None:
        """Order decides, not how much of a path a route names."""
        routes = table(exact("/a/b"), regex("/a/[a-c]"), prefix("/a/"), exact("/a/x"), prefix("/a"), prefix("/"))
        paths = ("/a/b", "/a/c", "/a/x", "/ab", "/b")
        assert [found(routes, path) for path in paths] == ["0", "1", "2", "4", "5"]

    def test_careless_reading_takes_the_route_that_it_would_be_talked_past(self) -> None:
        """However /admin is spelt, one of the two readings takes its route."""
        routes = table(prefix("/admin/"), prefix("/"))
        for path in ("/admin", "/Admin", "/ADMIN/x", "/admin;/x", "/admin//"):
            assert found_carelessly(routes, path) == "0"


class TestMethods:
    @pytest.mark.parametrize(
        ("methods", "method", "strict", "careless"),
        [
            (("POST",), b"POST", True, True),
            (("POST",), b"post", False, True),
            (("POST", "PUT"), b"PUT", True, True),
            (("POST",), b"GET", False, False),
            (("GET",), b"HEAD", True, True),
            (("HEAD",), b"GET", False, False),
            ((), b"BREW", True, True),
        ],
    )
    def test_method_fits_in_these_readings(
        self, methods: tuple[str, ...], method: bytes, strict: bool, careless: bool
    ) -> None:
        """Methods have a case, which not every app heeds; HEAD is a GET; a route without methods is about all."""
        routes = table(prefix("/", *methods))
        assert (found(routes, method=method) != "-", found_carelessly(routes, method=method) != "-") == (
            strict,
            careless,
        )


def condition(match: HeaderMatch, value: str = "", *, invert: bool = False) -> HeaderCondition:
    return HeaderCondition(name="x-v", match=match, value=value, invert=invert)


class TestHeaders:
    @pytest.mark.parametrize(
        ("condition", "fields", "fits"),
        [
            (condition(HeaderMatch.PRESENT), b"X-V: 1\r\n", True),
            (condition(HeaderMatch.PRESENT), b"X-V:\r\n", True),
            (condition(HeaderMatch.PRESENT), b"X-VV: 1\r\n", False),
            (condition(HeaderMatch.EXACT, "2"), b"x-v: \t2 \r\n", True),
            (condition(HeaderMatch.EXACT, "2"), b"x-v: 22\r\n", False),
            (condition(HeaderMatch.EXACT, "a,b"), b"x-v: a\r\nx-w: c\r\nX-V: b\r\n", True),
            (condition(HeaderMatch.EXACT, "a"), b"x-v: a\r\nX-V: b\r\n", False),
            (condition(HeaderMatch.EXACT, ""), b"x-v: \r\n", True),
            (condition(HeaderMatch.EXACT, ""), b"", False),
            (condition(HeaderMatch.EXACT, "A"), b"x-v: a\r\n", False),
            (condition(HeaderMatch.EXACT, "é"), "x-v: é\r\n".encode(), True),
            (condition(HeaderMatch.PREFIX, "ab"), b"x-v: abc\r\n", True),
            (condition(HeaderMatch.PREFIX, "ab"), b"x-v: cab\r\n", False),
            (condition(HeaderMatch.SUFFIX, "ab"), b"x-v: cab\r\n", True),
            (condition(HeaderMatch.SUFFIX, "ab"), b"x-v: abc\r\n", False),
            (condition(HeaderMatch.CONTAINS, "ab"), b"x-v: cabc\r\n", True),
            (condition(HeaderMatch.CONTAINS, "b,c"), b"x-v: ab\r\nx-v: cd\r\n", True),
            (condition(HeaderMatch.CONTAINS, "ab"), b"x-v: a b\r\n", False),
            (condition(HeaderMatch.REGEX, "[0-9]+"), b"x-v: 12\r\n", True),
            (condition(HeaderMatch.REGEX, "[0-9]+"), b"x-v: 12a\r\n", False),
            (condition(HeaderMatch.REGEX, "[0-9]+"), b"", False),
            (condition(HeaderMatch.REGEX, ".*", invert=True), b"x-v: \xff\r\n", False),
            (condition(HeaderMatch.EXACT, "2", invert=True), b"x-v: 2\r\n", False),
            (condition(HeaderMatch.EXACT, "2", invert=True), b"x-v: 3\r\n", True),
            (condition(HeaderMatch.EXACT, "2", invert=True), b"", True),
            (condition(HeaderMatch.PRESENT, invert=True), b"", True),
            (condition(HeaderMatch.PRESENT, invert=True), b"x-v:\r\n", False),
        ],
    )
    def test_field_fits(self, condition: HeaderCondition, fields: bytes, fits: bool) -> None:
        """Lines of a name are one value, joined by commas, without blanks around each; inverted is whatever else."""
        routes = table(prefix("/", headers=(condition,)))
        assert (found(routes, fields=fields) == "0") is fits
        assert (found_carelessly(routes, fields=fields) == "0") is fits

    def test_every_condition_must_fit(self) -> None:
        """A route is about requests that fit all that it says."""
        conditions = (condition(HeaderMatch.PREFIX, "a"), condition(HeaderMatch.SUFFIX, "b"))
        routes = table(prefix("/x", "POST", headers=conditions))
        assert found(routes, "/x", b"POST", fields=b"x-v: ab\r\n") == "0"
        assert found(routes, "/x", b"POST", fields=b"x-v: a\r\n") == "-"
        assert found(routes, "/x", b"GET", fields=b"x-v: ab\r\n") == "-"
        assert found(routes, "/y", b"POST", fields=b"x-v: ab\r\n") == "-"


class TestDomains:
    ROUTES = RouteTable.compile(
        [
            host(prefix("/"), domains=("*",), name="any"),
            host(prefix("/"), domains=("*.example", "[::1]"), name="suffix"),
            host(prefix("/only"), domains=("A.example",), name="whole"),
        ]
    )

    @pytest.mark.parametrize(
        ("host", "path", "name"),
        [
            (b"A.Example.:8443", "/only", "whole0"),
            (b"a.example", "/other", "-"),
            (b"b.example", "/only", "suffix0"),
            (b"[0::1]:443", "/", "suffix0"),
            (b"example", "/", "any0"),
            (b"", "/", "any0"),
        ],
    )
    def test_routes_are_those_of_the_domain_that_fits_best(self, host: bytes, path: str, name: str) -> None:
        """A virtual host that has no route for a request does not pass it on to another."""
        assert found(self.ROUTES, path, host=host) == name

    def test_host_may_come_in_its_plain_form(self) -> None:
        """Who has a reading of the request already need not have the host read again."""
        route = self.ROUTES.find("a.example", b"GET", b"/only", NO_FIELDS)
        assert route is not None
        assert route.name == "whole0"

    def test_host_without_virtual_host_has_no_route(self) -> None:
        """Without a star there are hosts that nothing is for."""
        routes = RouteTable.compile([host(prefix("/"), domains=("a.example",))])
        assert found(routes, host=b"b.example") == "-"
        assert routes.find_carelessly(b"b.example", b"GET", b"/", NO_FIELDS) is None

    def test_empty_table_has_no_route(self) -> None:
        """Without virtual hosts nothing is found."""
        routes = RouteTable.compile([])
        assert (found(routes), found_carelessly(routes), routes.only) == ("-", "-", None)


class TestWhatItLooksAt:
    @pytest.mark.parametrize(
        ("virtual_hosts", "only"),
        [
            ([host(prefix("/"))], True),
            ([host(prefix("/"), domains=("a.example", "*"))], True),
            ([host(prefix("/"), domains=("a.example",))], False),
            ([host(prefix("/x"))], False),
            ([host(prefix("/", "GET"))], False),
            ([host(prefix("/", headers=(HeaderCondition(name="a"),)))], False),
            ([host(exact("/x"), prefix("/"))], False),
            ([host(prefix("/")), host(prefix("/"), domains=("a",))], False),
            ([host()], False),
        ],
    )
    def test_route_of_every_request_is_known(self, virtual_hosts: list[VirtualHost], only: bool) -> None:
        """If there is but one possible answer, nobody has to look for it."""
        assert RouteTable.compile(virtual_hosts).only == (virtual_hosts[0].routes[0] if only else None)

    @pytest.mark.parametrize(
        ("match", "result"),
        [
            (prefix("/"), False),
            (prefix("/", "GET", headers=(HeaderCondition(name="a"),)), False),
            (prefix("/x"), True),
            (exact("/"), True),
            (regex("/.*"), True),
        ],
    )
    def test_whether_paths_make_a_difference_is_known(self, match: RouteMatch, result: bool) -> None:
        """A caller need not normalise what no route is about."""
        assert RouteTable.compile([host(prefix("/")), host(match, domains=("a",))]).looks_at_path is result


class TestCompile:
    @pytest.mark.parametrize(
        "virtual_host", [host(prefix("/"), domains=("a b",)), host(regex("(a+)+"))], ids=["domain", "expression"]
    )
    def test_what_has_problems_does_not_compile(self, virtual_host: VirtualHost) -> None:
        """A table that was not checked is not served in part."""
        assert problems([virtual_host])
        with pytest.raises(ConditionError):
            RouteTable.compile([virtual_host])


# -- against a reference -----------------------------------------------------------------------------------------


def refers(match: RouteMatch, method: str, path: str, fields: list[tuple[str, str]]) -> bool:
    """Whether a request fits, told in the plainest way."""
    if match.methods and method not in match.methods and not (method == "HEAD" and "GET" in match.methods):
        return False
    for header in match.headers:
        values = [value for name, value in fields if name == header.name]
        value = ",".join(values)
        fits = (
            bool(values)
            and {
                HeaderMatch.PRESENT: True,
                HeaderMatch.EXACT: value == header.value,
                HeaderMatch.PREFIX: value.startswith(header.value),
                HeaderMatch.SUFFIX: value.endswith(header.value),
                HeaderMatch.CONTAINS: header.value in value,
                HeaderMatch.REGEX: re.fullmatch(header.value, value) is not None,
            }[header.match]
        )
        if fits == header.invert:
            return False
    if match.kind is PathMatch.PREFIX:
        return match.path == "/" or path.startswith(match.path)
    return path == match.path if match.kind is PathMatch.EXACT else re.fullmatch(match.path, path) is not None


def reference(
    virtual_hosts: list[VirtualHost], host: str, method: str, path: str, fields: list[tuple[str, str]]
) -> str:
    """The name of the route, found by trying all in the order of the contract."""
    order = [
        *[host] * bool(host),
        *(f"*{host[i:]}" for i in range(1, len(host)) if host[i] == "."),
        *(f"{host[: i + 1]}*" for i in range(len(host) - 2, 0, -1) if host[i] == "."),
        "*",
    ]
    for domain in order:
        for virtual_host in virtual_hosts:
            if domain in virtual_host.domains:
                fitting = (route.name for route in virtual_host.routes if refers(route.match, method, path, fields))
                return next(fitting, "-")
    return "-"


PATHS = ("/", "/a", "/A", "/a/", "/a/b", "/a/B/", "/ab", "/a/b/c", "/é", "/É/x")
EXPRESSIONS = ("/a/[a-z]+", "/.*", ".*", "/A.?", "/a(/b)*/?", "/é.*")
DOMAINS = ("*", "a.example", "*.example", "*.a.example", "a.*", "b.a.*", "b.example")

conditions = st.builds(
    HeaderCondition,
    name=st.sampled_from(["x-a", "x-b"]),
    match=st.sampled_from(HeaderMatch),
    value=st.sampled_from(["1", "2", "1,2"]),
    invert=st.booleans(),
)
matches = st.builds(
    lambda kind, plain, text, methods, headers: RouteMatch(
        kind=kind, path=text if kind is PathMatch.REGEX else plain, methods=tuple(methods), headers=tuple(headers)
    ),
    st.sampled_from(PathMatch),
    st.sampled_from(PATHS),
    st.sampled_from(EXPRESSIONS),
    st.one_of(st.just([]), st.lists(st.sampled_from(["GET", "HEAD", "POST"]), max_size=2, unique=True)),
    st.one_of(st.just([]), st.lists(conditions, max_size=2)),
)


@st.composite
def tables(draw: st.DrawFn) -> list[VirtualHost]:
    """Virtual hosts that share no domain; whether every route is ever reached does not matter."""
    domains = draw(st.lists(st.sampled_from(DOMAINS), min_size=1, unique=True))
    cut = draw(st.integers(0, len(domains)))
    parts = [tuple(part) for part in (domains[:cut], domains[cut:]) if part]
    return [host(*draw(st.lists(matches, max_size=8)), domains=part, name=f"v{i}-") for i, part in enumerate(parts)]


hosts = st.sampled_from(["a.example", "b.a.example", "b.example", "x.y.example", "a.org", "b.a.org", "example", ""])
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "get"])
paths = st.one_of(
    st.sampled_from([*PATHS, "*"]),
    st.lists(st.sampled_from(["a", "A", "b", "/", "//", ";x", ";", "é", "É", "ß"]), max_size=6).map(
        lambda pieces: "/" + "".join(pieces)
    ),
)
field_lists = st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["1", "2", "12"])), max_size=3)


def section(fields: list[tuple[str, str]]) -> Fields:
    return Fields("".join(f"{name}: {value} \r\n" for name, value in fields).encode())


class TestGenerated:
    @settings(max_examples=400, deadline=None)
    @given(tables(), hosts, methods, paths, field_lists)
    def test_route_is_that_of_the_reference(
        self, virtual_hosts: list[VirtualHost], host: str, method: str, path: str, fields: list[tuple[str, str]]
    ) -> None:
        """The indexed table finds what trying one route after the other finds."""
        expected = reference(virtual_hosts, host, method, path, fields)
        route = RouteTable.compile(virtual_hosts).find(host.encode(), method.encode(), path.encode(), section(fields))
        assert (route.name if route else "-") == expected

    @settings(max_examples=400, deadline=None)
    @given(tables(), hosts, methods, paths, field_lists)
    def test_careless_route_is_that_of_the_strict_reading_or_one_above_it(
        self, virtual_hosts: list[VirtualHost], host: str, method: str, path: str, fields: list[tuple[str, str]]
    ) -> None:
        """The careless reading is never less strict than promised: it takes no route below that of the strict one."""
        request = (host.encode(), method.encode(), path.encode(), section(fields))
        compiled = RouteTable.compile(virtual_hosts)
        strict, careless = compiled.find(*request), compiled.find_carelessly(*request)
        if strict is not None:
            assert careless is not None
            routes = next(each.routes for each in virtual_hosts if strict in each.routes)
            assert routes.index(careless) <= routes.index(strict)

    @settings(max_examples=200, deadline=None)
    @given(tables(), st.sampled_from(PATHS), st.data())
    def test_spelling_makes_no_difference_to_the_careless_reading(
        self, virtual_hosts: list[VirtualHost], path: str, data: st.DataObject
    ) -> None:
        """However a client spells a path that a careless app takes for a plain one, no route above it is got past."""
        segments = path.strip("/").split("/")
        spelt = [
            data.draw(st.sampled_from([segment, segment.upper(), f"{segment};x=1", f"{segment};"]))
            for segment in segments
        ]
        other = data.draw(st.sampled_from(["/", "//"])) + "/".join(spelt) + data.draw(st.sampled_from(["", "/", "//"]))
        compiled = RouteTable.compile(
            [
                VirtualHost(name=each.name, domains=each.domains, routes=tuple(without_expressions(each.routes)))
                for each in virtual_hosts
            ]
        )
        plain = compiled.find_carelessly(b"a.example", b"GET", path.encode(), NO_FIELDS)
        assert compiled.find_carelessly(b"a.example", b"get", other.encode(), NO_FIELDS) == plain


def without_expressions(routes: tuple[Route, ...]) -> list[Route]:
    """Expressions may be about parameters and slashes themselves."""
    return [route for route in routes if route.match.kind is not PathMatch.REGEX]


# -- clients -----------------------------------------------------------------------------------------------------


def route_for(client: ClientRule | None) -> Route:
    return Route(name="r", match=prefix("/"), action=ACTION, client=client)


class TestClientRule:
    DEFAULT = Rule(
        name="default",
        mode=ClientCertMode.OPTIONAL,
        allow=matchers.compile("cn=web"),
        deny=matchers.compile("serial=0a"),
    )
    BARE = Rule(name="default", mode=ClientCertMode.NONE)

    def test_route_that_says_nothing_has_none(self) -> None:
        """What holds for the listener holds on."""
        assert client_rule(route_for(None), self.DEFAULT) is None

    @pytest.mark.parametrize(
        ("client", "mode", "allow", "deny"),
        [
            (ClientRule(), ClientCertMode.REQUIRED, "cn=web", "serial=a"),
            (ClientRule(allow="cn=b"), ClientCertMode.REQUIRED, "cn=b", "serial=a"),
            (ClientRule(allow=""), ClientCertMode.REQUIRED, "", "serial=a"),
            (ClientRule(deny="cn=old"), ClientCertMode.REQUIRED, "cn=web", "cn=old, serial=a"),
            (ClientRule(mode=ClientCertMode.OPTIONAL), ClientCertMode.OPTIONAL, "cn=web", "serial=a"),
            (ClientRule(mode=ClientCertMode.NONE), ClientCertMode.NONE, None, None),
        ],
    )
    def test_default_allow_is_inherited_and_default_deny_added(
        self, client: ClientRule, mode: ClientCertMode, allow: str | None, deny: str | None
    ) -> None:
        """A route replaces whom the default allows, and never whom it denies, unless it looks at no certificate."""
        rule = client_rule(route_for(client), self.DEFAULT)
        assert rule is not None
        lists = [None if each is None else str(each) for each in (rule.allow, rule.deny)]
        assert (rule.name, rule.mode, *lists) == ("r", mode, allow, deny)

    def test_lists_that_nobody_gave_are_none(self) -> None:
        """Without any list every verified client is let in."""
        assert client_rule(route_for(ClientRule()), self.BARE) == Rule(name="r", mode=ClientCertMode.REQUIRED)

    def test_list_that_is_none_is_refused(self) -> None:
        """A text that is no matcher never becomes a rule."""
        with pytest.raises(MatcherError):
            client_rule(route_for(ClientRule(deny="cn")), self.BARE)
