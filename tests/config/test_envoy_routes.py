"""`sidecar.config.envoy_routes`: virtual hosts and routes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.bootstraps import (
    EVERYTHING,
    Json,
    bootstrap,
    chain,
    cluster,
    http,
    left_out,
    listener,
    read,
    refusals,
    virtual_hosts,
)

TO_APP: Json = {"cluster": "app", "timeout": "1s"}


def routing(*routes: Json, **fields: Any) -> Json:
    """A bootstrap with these routes in its one virtual host, which has these fields beside."""
    config = http(route_config=virtual_hosts(*routes, **fields))
    return bootstrap(listener(chain(config)), clusters=[cluster(), cluster("other")])


def host_of(values: Json) -> Any:
    return read(values).values["listeners"][0]["virtual_hosts"][0]


def routes_of(*routes: Json) -> Any:
    return host_of(routing(*routes))["routes"]


def match_of(match: Json) -> list[Json]:
    """What a match becomes, in one or two routes."""
    return [route.get("match", {}) for route in routes_of({"match": match, "route": TO_APP})]


def header(**fields: Any) -> list[Json]:
    """What a header matcher becomes."""
    (match,) = match_of({"prefix": "/", "headers": [{"name": "X-Version"} | fields]})
    headers: list[Json] = match["headers"]
    return headers


class TestDomains:
    @pytest.mark.parametrize(
        ("domain", "ours"),
        [
            ("*", "*"),
            ("Www.Example.org", "www.example.org"),
            ("*.example.org", "*.example.org"),
            ("example.*", "example.*"),
            ("example.org:8443", "example.org"),
            ("example.org:*", "example.org"),
        ],
    )
    def test_domain_is_written_as_ours(self, domain: str, ours: str) -> None:
        """Hosts are compared without case and port here."""
        assert host_of(routing(domains=[domain]))["domains"] == [ours]

    @pytest.mark.parametrize("domain", ["*-a.example.org", "a-*", "a.*.b"])
    def test_wildcard_inside_a_label_is_refused(self, domain: str) -> None:
        """It cannot be left out, as its routes would be for nobody or for everybody."""
        assert "route_config.virtual_hosts[0].domains[0]" in refusals(routing(domains=[domain]))

    def test_domain_with_several_ports_is_one(self) -> None:
        """Ports do not make a name another."""
        assert host_of(routing(domains=["a.b:80", "a.b:443", "a.b"]))["domains"] == ["a.b"]


class TestNames:
    def test_name_that_can_be_one_is_kept(self) -> None:
        """Names stand in logs; of two equal ones, or one with blanks, the place says more."""
        named = [{"match": {"path": f"/{name}"}, "route": TO_APP, "name": name} for name in ("a", "b c")]
        named.insert(1, EVERYTHING | {"name": "a"})
        host = host_of(routing(*named, name="web"))

        assert (host["name"], [route.get("name") for route in host["routes"]]) == ("web", ["a", None, None])


class TestMatch:
    @pytest.mark.parametrize(
        ("match", "ours"),
        [
            ({"prefix": "/"}, [{}]),
            ({"prefix": ""}, [{}]),
            ({"prefix": "/a"}, [{"prefix": "/a"}]),
            ({"path": "/a%20b"}, [{"path": "/a b"}]),
            ({"safe_regex": {"google_re2": {}, "regex": "/a.*"}}, [{"regex": "/a.*"}]),
            ({"path_separated_prefix": "/a"}, [{"path": "/a"}, {"prefix": "/a/"}]),
            ({"prefix": "/", "case_sensitive": True}, [{}]),
        ],
    )
    def test_path_is_compared_as_in_envoy(self, match: Json, ours: list[Json]) -> None:
        """A prefix that ends at a slash takes two routes."""
        assert match_of(match) == ours

    @pytest.mark.parametrize(
        "match",
        [
            {"prefix": "/", "case_sensitive": False},
            {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 1}}},
            {"prefix": "/", "query_parameters": [{"name": "x"}]},
            {"prefix": "/", "grpc": {}},
            {"prefix": "/", "tls_context": {"presented": True}},
            {"connect_matcher": {}},
            {"regex": "/.*"},
            {"safe_regex": {"regex": "/.*", "surprise": 1}},
        ],
    )
    def test_condition_that_cannot_be_carried_over_is_refused(self, match: Json) -> None:
        """Without it the route would be about other requests."""
        assert refusals(routing({"match": match, "route": TO_APP}))

    def test_route_that_is_never_reached_is_noted(self) -> None:
        """Of two routes with one match, Envoy takes the first; the second would be refused here as a mistake."""
        first = {"match": {"path": "/a"}, "route": TO_APP}
        second = {"match": {"path_separated_prefix": "/a"}, "route": TO_APP}
        values = routing(first, second)

        assert [route["match"] for route in host_of(values)["routes"]] == [{"path": "/a"}, {"prefix": "/a/"}]
        assert any("routes[1]" in note and "the same match" in note for note in read(values).notes)

    def test_route_without_match_is_refused(self) -> None:
        """Nobody knows what it is about."""
        assert refusals(routing({"route": TO_APP})) == {"route_config.virtual_hosts[0].routes[0]": "there is no match"}


class TestMethods:
    @pytest.mark.parametrize(
        ("matcher", "methods"),
        [
            ({"string_match": {"exact": "POST"}}, ["POST"]),
            ({"exact_match": "GET"}, ["GET"]),
            ({"string_match": {"safe_regex": {"regex": "GET|HEAD"}}}, ["GET", "HEAD"]),
        ],
    )
    def test_pseudo_field_is_a_list_of_methods(self, matcher: Json, methods: list[str]) -> None:
        """What :method is compared with are methods."""
        assert match_of({"prefix": "/", "headers": [{"name": ":method"} | matcher]}) == [{"methods": methods}]

    @pytest.mark.parametrize(
        "headers",
        [
            [{"name": ":method", "string_match": {"prefix": "P"}}],
            [{"name": ":method", "string_match": {"safe_regex": {"regex": "P.*"}}}],
            [{"name": ":method", "exact_match": "GET", "invert_match": True}],
            [{"name": ":method", "exact_match": "GET"}, {"name": ":method", "exact_match": "HEAD"}],
            [{"name": ":authority", "exact_match": "x"}],
            [{"name": ":path", "prefix_match": "/x"}],
            [{"exact_match": "x"}],
        ],
    )
    def test_other_pseudo_fields_are_refused(self, headers: list[Json]) -> None:
        """There are no such fields here, and methods are whole."""
        assert refusals(routing({"match": {"prefix": "/", "headers": headers}, "route": TO_APP}))


class TestHeaders:
    @pytest.mark.parametrize(
        ("matcher", "ours"),
        [
            ({"string_match": {"exact": "a"}}, {"exact": "a"}),
            ({"string_match": {"prefix": "a", "ignore_case": False}}, {"prefix": "a"}),
            ({"string_match": {"suffix": "a"}}, {"suffix": "a"}),
            ({"string_match": {"contains": "a"}}, {"contains": "a"}),
            ({"string_match": {"safe_regex": {"regex": "a+"}}}, {"regex": "a+"}),
            ({"exact_match": "a"}, {"exact": "a"}),
            ({"prefixMatch": "a"}, {"prefix": "a"}),
            ({"suffix_match": "a"}, {"suffix": "a"}),
            ({"contains_match": "a"}, {"contains": "a"}),
            ({"safe_regex_match": {"regex": "a", "google_re2": {}}}, {"regex": "a"}),
            ({"present_match": True}, {"present": "on"}),
            ({}, {"present": "on"}),
            ({"present_match": False}, {"present": "on", "invert": "on"}),
            ({"present_match": True, "invert_match": True}, {"present": "on", "invert": "on"}),
            ({"present_match": False, "invert_match": True}, {"present": "on"}),
            (
                {"exact_match": "a", "invert_match": True, "treat_missing_header_as_empty": True},
                {"exact": "a", "invert": "on"},
            ),
        ],
    )
    def test_matcher_is_written_as_ours(self, matcher: Json, ours: Json) -> None:
        """Both forms that Envoy has had."""
        assert header(**matcher) == [{"name": "x-version"} | ours]

    def test_inverted_matcher_wants_the_field(self) -> None:
        """In Envoy a field that is missing never fits, here it would fit what is inverted."""
        assert header(exact_match="a", invert_match=True) == [
            {"name": "x-version", "present": "on"},
            {"name": "x-version", "exact": "a", "invert": "on"},
        ]

    @pytest.mark.parametrize(
        "matcher",
        [
            {"range_match": {"start": 1, "end": 2}},
            {"regex_match": "a"},
            {"string_match": {"exact": "a", "ignore_case": True}},
            {"string_match": {"custom": {"x": 1}}},
            {"exact_match": "a", "treat_missing_header_as_empty": True},
            {"present_match": True, "surprise": 1},
        ],
    )
    def test_other_matcher_is_refused(self, matcher: Json) -> None:
        """Without it the route would be about other requests."""
        route = {"match": {"prefix": "/", "headers": [{"name": "x"} | matcher]}, "route": TO_APP}

        assert refusals(routing(route))


class TestToCluster:
    def test_rewrites_and_times_are_carried_over(self) -> None:
        """What is done with a request on its way."""
        action = {
            "cluster": "other",
            "prefix_rewrite": "/b",
            "host_rewrite_literal": "x.y",
            "timeout": "0s",
            "idle_timeout": "60s",
        }

        assert routes_of({"match": {"prefix": "/a"}, "route": action}) == [
            {
                "match": {"prefix": "/a"},
                "cluster": "other",
                "prefix_rewrite": "/b",
                "host_rewrite": "x.y",
                "timeout": "0s",
                "idle_timeout": "60s",
            }
        ]

    def test_prefix_that_ends_at_a_slash_is_rewritten_with_it(self) -> None:
        """/a/x becomes /b/x, and /a becomes /b."""
        route = {"match": {"path_separated_prefix": "/a"}, "route": TO_APP | {"prefix_rewrite": "/b"}}

        assert [each["prefix_rewrite"] for each in routes_of(route)] == ["/b", "/b/"]

    def test_redirect_of_what_is_below_a_slash_too(self) -> None:
        """The same where clients are sent: /a/x leads to /b/x, and not to /bx."""
        route = {"match": {"path_separated_prefix": "/a"}, "redirect": {"prefix_rewrite": "/b"}}

        assert [each["redirect"]["prefix_rewrite"] for each in routes_of(route)] == ["/b", "/b/"]

    def test_missing_timeout_is_envoys(self) -> None:
        """A route without a timeout has one of 15 seconds there, which is noted."""
        values = routing({"match": {"prefix": "/"}, "route": {"cluster": "app"}})

        assert host_of(values)["routes"] == [{"cluster": "app", "timeout": "15s"}]
        assert any("15s" in note for note in read(values).notes)

    def test_only_one_of_weighted_clusters_is_a_cluster(self) -> None:
        """A list of one is that one; a share of requests cannot be sent elsewhere."""
        one = {"weighted_clusters": {"clusters": [{"name": "other", "weight": 100}]}, "timeout": "1s"}
        nameless = {"weighted_clusters": {"clusters": [{"weight": 1}]}}
        two = {"weighted_clusters": {"clusters": [{"name": "app", "weight": 1}, {"name": "other", "weight": 1}]}}

        assert routes_of({"match": {"prefix": "/"}, "route": one}) == [{"cluster": "other", "timeout": "1s"}]
        for action in (two, nameless):
            assert refusals(routing({"match": {"prefix": "/"}, "route": action}))

    @pytest.mark.parametrize(
        "action", [{"cluster": "nowhere"}, {"cluster_header": "x"}, {}, {"inline_cluster_specifier_plugin": {"x": 1}}]
    )
    def test_route_to_nowhere_is_refused(self, action: Json) -> None:
        """Its cluster must be in the file."""
        assert refusals(routing({"match": {"prefix": "/"}, "route": action}))

    def test_what_is_not_done_is_left_out(self) -> None:
        """Retries, mirrors and rewrites by expression; the request still goes where it did."""
        action = TO_APP | {
            "retry_policy": {"num_retries": 3},
            "request_mirror_policies": [{"cluster": "other"}],
            "regex_rewrite": {"substitution": "x"},
            "hash_policy": [{}],
        }

        assert left_out(routing({"match": {"prefix": "/"}, "route": action})) == [
            f"route_config.virtual_hosts[0].routes[0].route.{name}"
            for name in ("retry_policy", "request_mirror_policies", "regex_rewrite", "hash_policy")
        ]


class TestSafeguards:
    @pytest.mark.parametrize(
        "fields",
        [
            {"rate_limits": [{"actions": []}]},
            {"require_tls": "ALL"},
            {"request_headers_to_remove": ["x-internal"]},
            {"request_headers_to_add": [{"header": {"key": "x-user", "value": ""}, "append": False}]},
            {
                "request_headers_to_add": [
                    {"header": {"key": "x-user", "value": ""}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                ]
            },
        ],
    )
    def test_what_protects_the_app_is_never_left_out(self, fields: Json) -> None:
        """Limits, and fields that clients must not set."""
        assert refusals(routing(EVERYTHING, **fields))

    def test_added_fields_are_left_out(self) -> None:
        """What is only added to is missed by nobody's safety."""
        fields = {
            "request_headers_to_add": [{"header": {"key": "x", "value": "y"}}],
            "response_headers_to_remove": ["server"],
            "require_tls": "NONE",
        }

        assert left_out(routing(EVERYTHING, **fields)) == [
            f"route_config.virtual_hosts[0].{name}" for name in list(fields)[:2]
        ]


class TestOtherActions:
    @pytest.mark.parametrize(
        ("action", "ours"),
        [
            ({"https_redirect": True}, {"scheme": "https", "status": "301"}),
            ({"scheme_redirect": "https", "port_redirect": 8443}, {"scheme": "https", "port": "8443", "status": "301"}),
            ({"host_redirect": "a.b", "response_code": "FOUND"}, {"host": "a.b", "status": "302"}),
            ({"host_redirect": "a.b:8443"}, {"host": "a.b", "port": "8443", "status": "301"}),
            ({"host_redirect": "a.b:8443", "port_redirect": 1}, {"host": "a.b", "port": "1", "status": "301"}),
            ({"host_redirect": "[::1]:8443"}, {"host": "[::1]", "port": "8443", "status": "301"}),
            ({"host_redirect": "[::1]"}, {"host": "[::1]", "status": "301"}),
            (
                {"path_redirect": "/x", "response_code": "permanent_redirect", "strip_query": True},
                {"path": "/x", "status": "308", "strip_query": "on"},
            ),
            ({"prefix_rewrite": "/y", "response_code": 2}, {"prefix_rewrite": "/y", "status": "303"}),
        ],
    )
    def test_redirect_is_written_as_ours(self, action: Json, ours: Json) -> None:
        """With the status that Envoy would send."""
        assert routes_of({"match": {"prefix": "/"}, "redirect": action}) == [{"redirect": ours}]

    def test_redirect_to_a_scheme_notes_its_port(self) -> None:
        """Envoy keeps a port that the client wrote."""
        values = routing({"match": {"prefix": "/"}, "redirect": {"https_redirect": True}})

        assert any("redirects to https" in note for note in read(values).notes)

    @pytest.mark.parametrize(
        ("action", "ours"),
        [
            ({"status": 410}, {"status": "410"}),
            (
                {"status": 200, "body": {"inline_string": "ok\n"}},
                {"status": "200", "body": "ok\n", "content_type": "text/plain"},
            ),
        ],
    )
    def test_direct_response_is_written_as_ours(self, action: Json, ours: Json) -> None:
        """With the content type that Envoy would send."""
        assert routes_of({"match": {"prefix": "/"}, "direct_response": action}) == [{"direct_response": ours}]

    @pytest.mark.parametrize(
        "fields",
        [
            {"redirect": {"regex_rewrite": {"substitution": "x"}}},
            {"direct_response": {"status": 200, "body": {"filename": "/x"}}},
            {"filter_action": {}},
            {"non_forwarding_action": {}},
            {},
        ],
    )
    def test_route_that_does_nothing_here_is_refused(self, fields: Json) -> None:
        """A route must do what it did."""
        assert refusals(routing({"match": {"prefix": "/"}} | fields))
