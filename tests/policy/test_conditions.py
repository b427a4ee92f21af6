"""`sidecar.policy.conditions`: which requests a rule is about, in both readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.conditions import (
    ALWAYS,
    METHODS,
    MOST_PATTERNS,
    Condition,
    ConditionError,
    Request,
    check_method,
    check_path,
    compile_host,
    plain_host,
    read_carelessly,
    read_strictly,
)


def fits(condition: Condition, path: str = "/", method: bytes = b"GET", host: bytes = b"a") -> tuple[bool, bool]:
    """Whether a condition is about a request: in its strict reading, and in its careless one."""
    strict = read_strictly(Request(method, host, path.encode("utf-8", "surrogateescape")))
    return condition.fits_strictly(strict), condition.fits_carelessly(read_carelessly(strict))


BOTH, STRICT, CARELESS, NEITHER = (True, True), (True, False), (False, True), (False, False)


class TestPaths:
    @pytest.mark.parametrize(
        ("pattern", "path", "result"),
        [
            ("/service", "/service", BOTH),
            ("/service", "/service/admin", NEITHER),
            ("/service", "/services", NEITHER),
            ("/service", "/", NEITHER),
            ("/service", "/Service", CARELESS),
            ("/Service", "/service", CARELESS),
            ("/Service", "/Service", BOTH),
            ("/service", "/service/", CARELESS),
            ("/service", "/service;x=1", CARELESS),
            ("/service", "/service;x/", CARELESS),
            ("/service", "//service", CARELESS),
            ("/a/b", "/a;x/b;y", CARELESS),
            ("/a/b", "/a/;x/b", CARELESS),
            ("/api/*", "/api/x", BOTH),
            ("/api/*", "/api/x/y", BOTH),
            ("/api/*", "/api/", BOTH),
            ("/api/*", "/api", CARELESS),
            ("/api/*", "/apix", NEITHER),
            ("/api/*", "/API/x", CARELESS),
            ("/api/*", "/api;v=1/x", CARELESS),
            ("/api/", "/api/x", BOTH),
            ("/api/", "/api", CARELESS),
            ("/", "/", BOTH),
            ("/", "/x", NEITHER),
            ("/", "/;x", CARELESS),
            ("/", "*", NEITHER),
            ("/*", "/", BOTH),
            ("/*", "/x/y", BOTH),
            ("/*", "*", BOTH),
            ("/a b", "/a b", BOTH),
            ("/straße", "/straße", BOTH),
            ("/straße", "/STRASSE", CARELESS),
            ("/keys", "/\u212aeys", CARELESS),
            ("/admin", "/adm\u0131n", CARELESS),
            ("/admin", "/adm\udcffn", NEITHER),
        ],
    )
    def test_pattern_is_about_a_path_in_these_readings(
        self, pattern: str, path: str, result: tuple[bool, bool]
    ) -> None:
        """The strict reading takes a path as it is; the careless one as the most careless app does."""
        assert fits(Condition(paths=(pattern,)), path) == result

    def test_one_of_several_patterns_is_enough(self) -> None:
        """Paths alone and whole branches stand beside each other."""
        condition = Condition(paths=("/service", "/healthz", "/static/*"))
        assert [fits(condition, path) for path in ("/healthz", "/static/x", "/other")] == [BOTH, BOTH, NEITHER]

    @pytest.mark.parametrize(
        ("pattern", "hint"),
        [
            ("service", "begin it with /"),
            ("", "begin it with /"),
            ("*", "begin it with /"),
            ("/a*", "not the end of /*"),
            ("/*/a", "not the end of /*"),
            ("/a/**", "not the end of /*"),
            ("/a%20b", "write the character itself"),
            ("/a//b", "as it is after normalisation"),
            ("//*", "as it is after normalisation"),
            ("/a/../b", "as it is after normalisation"),
            ("/a/..", "as it is after normalisation"),
            ("/./*", "as it is after normalisation"),
            ("/a?x", "as it is after normalisation"),
            ("/a#x", "as it is after normalisation"),
            ("/a;x", "as it is after normalisation"),
            ("/a\\b", "as it is after normalisation"),
            ("/a\nb", "as it is after normalisation"),
        ],
    )
    def test_pattern_that_no_path_could_fit_is_refused(self, pattern: str, hint: str) -> None:
        """A pattern that would never be about a request is an error, on one line, that says what to write."""
        with pytest.raises(ConditionError) as caught:
            check_path(pattern)
        assert hint in caught.value.fix + caught.value.fact
        assert "\n" not in str(caught.value)
        with pytest.raises(ConditionError):
            Condition(paths=(pattern,))

    def test_names_that_begin_with_dots_are_ordinary(self) -> None:
        """Only the segments . and .. are dot segments."""
        assert fits(Condition(paths=("/.well-known/*", "/..a")), "/.well-known/x") == BOTH

    @given(st.lists(st.sampled_from(["/", "a", "A", "b", ";", "é", "\udcff"]), max_size=8).map("".join))
    def test_strict_fit_is_a_careless_fit(self, tail: str) -> None:
        """No request gets out of a rule by the careless reading alone: what fits strictly fits carelessly too."""
        condition = Condition(paths=("/", "/a", "/a/b", "/b/*", "/A/é"))
        path = "/" + tail
        strict, careless = fits(condition, path)
        assert not strict or careless


class TestMethods:
    @pytest.mark.parametrize(
        ("pattern", "method", "result"),
        [
            ("POST", b"POST", BOTH),
            ("POST", b"post", CARELESS),
            ("POST", b"GET", NEITHER),
            ("GET", b"HEAD", BOTH),
            ("HEAD", b"GET", NEITHER),
            ("GET", b"BREW", NEITHER),
        ],
    )
    def test_method_fits_in_these_readings(self, pattern: str, method: bytes, result: tuple[bool, bool]) -> None:
        """Methods have a case, which not every app heeds; HEAD is a GET."""
        assert fits(Condition(methods=(pattern,)), method=method) == result

    @pytest.mark.parametrize(
        ("pattern", "fix"), [("get", "did you mean GET?"), ("BREW", "write one of GET, HEAD, POST"), ("", "write one")]
    )
    def test_unknown_method_is_refused(self, pattern: str, fix: str) -> None:
        """A method that there is not is an error at load, not a rule that is never about anything."""
        with pytest.raises(ConditionError) as caught:
            check_method(pattern)
        assert fix in caught.value.fix

    @pytest.mark.parametrize("method", METHODS)
    def test_every_known_method_can_be_named(self, method: str) -> None:
        """Each method of the list is accepted."""
        assert fits(Condition(methods=(method,)), method=method.encode()) == BOTH


class TestHosts:
    @pytest.mark.parametrize(
        ("host", "plain"),
        [
            (b"API.Example.org", "api.example.org"),
            (b"api.example.org:8443", "api.example.org"),
            (b"api.example.org:", "api.example.org"),
            (b"api.example.org.:443", "api.example.org"),
            (b"[2001:DB8:0::1]:443", "2001:db8::1"),
            (b"[::1]", "::1"),
            (b"192.0.2.1:80", "192.0.2.1"),
            (b"[1:2]", ""),
            (b"", ""),
        ],
    )
    def test_plain_host_has_no_case_port_and_dot(self, host: bytes, plain: str) -> None:
        """What never makes a difference between hosts is taken away."""
        assert plain_host(host) == plain

    @pytest.mark.parametrize(
        ("pattern", "host", "result"),
        [
            ("api.example.org", b"API.example.org.:8443", BOTH),
            ("API.example.org", b"api.example.org", BOTH),
            ("*.example.org", b"api.example.org", BOTH),
            ("*.example.org", b"example.org", NEITHER),
            ("*.example.org", b"a.b.example.org", NEITHER),
            ("api.example.org", b"", NEITHER),
            ("2001:db8:0::1", b"[2001:DB8::1]:443", BOTH),
            ("[::1]", b"[::1]", BOTH),
            ("192.0.2.1", b"192.0.2.1:443", BOTH),
        ],
    )
    def test_host_fits(self, pattern: str, host: bytes, result: tuple[bool, bool]) -> None:
        """Hosts fit as host names in certificates do; addresses exactly."""
        assert fits(Condition(hosts=(pattern,)), host=host) == result

    def test_one_of_several_hosts_is_enough(self) -> None:
        """A rule may be about several hosts."""
        condition = Condition(hosts=("a.example", "*.b.example"))
        hosts = (b"a.example", b"x.b.example", b"c.example")
        assert [fits(condition, host=host) for host in hosts] == [BOTH, BOTH, NEITHER]

    @pytest.mark.parametrize("pattern", ["", "api.example.org:443", "https://a", "a/b", "bücher.example", "a\0b", "a."])
    def test_what_is_no_host_is_refused(self, pattern: str) -> None:
        """A pattern that no host could fit is an error."""
        with pytest.raises(ConditionError, match="without port"):
            compile_host(pattern)


class TestCondition:
    def test_every_kind_must_fit(self) -> None:
        """A condition is about requests that fit one pattern of each kind it has."""
        condition = Condition(paths=("/a",), methods=("POST",), hosts=("h",))
        assert fits(condition, "/a", b"POST", b"h") == BOTH
        assert fits(condition, "/b", b"POST", b"h") == NEITHER
        assert fits(condition, "/a", b"PUT", b"h") == NEITHER
        assert fits(condition, "/a", b"POST", b"i") == NEITHER

    @pytest.mark.parametrize(
        ("condition", "result"),
        [
            (ALWAYS, True),
            (Condition(paths=("/*",)), True),
            (Condition(paths=("/a", "/*")), True),
            (Condition(paths=("/",)), False),
            (Condition(methods=("GET",)), False),
            (Condition(paths=("/*",), hosts=("a",)), False),
        ],
        ids=["nothing", "all paths", "all paths beside one", "root", "method", "host"],
    )
    def test_whether_it_is_always_true_is_known(self, condition: Condition, result: bool) -> None:
        """A condition is always true if no request could fail it."""
        assert condition.is_always_true is result
        assert (fits(condition, "*", b"BREW", b"") == BOTH) is result

    def test_conditions_with_the_same_patterns_are_equal(self) -> None:
        """A condition is a value: what it was compiled to does not tell it from another."""
        patterns = (("/a", "/b/*"), ("GET",), ("*.example.org",))
        assert Condition(*patterns) == Condition(*patterns)
        assert Condition(*patterns) != Condition(("/a",), *patterns[1:])
        assert "lambda" not in repr(Condition(*patterns))

    @pytest.mark.parametrize("kind", ["paths", "methods", "hosts"])
    def test_patterns_are_bounded(self, kind: str) -> None:
        """As many patterns as the limit are taken, one more is not."""
        pattern = {"paths": "/a", "methods": "GET", "hosts": "a"}[kind]
        assert Condition(**{kind: (pattern,) * MOST_PATTERNS})
        with pytest.raises(ConditionError, match="1,001 patterns, limit 1,000"):
            Condition(**{kind: (pattern,) * (MOST_PATTERNS + 1)})


class TestOddCharacters:
    def test_path_that_is_no_text_is_refused(self) -> None:
        """JSON can hold half a character."""
        with pytest.raises(ConditionError):
            check_path("/\ud800")

    @pytest.mark.parametrize("host", [b"a.example", b"A.example.", b"a.example..", b"a.example:443", b"a.example.:1"])
    def test_spellings_of_a_host_are_one(self, host: bytes) -> None:
        """Case, port and final dots make no difference."""
        assert plain_host(host) == "a.example"
