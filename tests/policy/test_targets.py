"""`sidecar.policy.targets`: what the app is asked for, and where redirects lead."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import RequestError
from sidecar.policy.targets import location, rewritten_target
from sidecar.topology import DirectResponse, PathMatch, Redirect, Route, RouteMatch, ToCluster
from sidecar.wire.target import canonical, normalise


def prefix(path: str) -> RouteMatch:
    return RouteMatch(path=path)


def exact(path: str) -> RouteMatch:
    return RouteMatch(kind=PathMatch.EXACT, path=path)


def rewritten(match: RouteMatch, rewrite: str | None, target: bytes) -> bytes:
    route = Route(name="r", match=match, action=ToCluster(cluster="app", prefix_rewrite=rewrite))
    return rewritten_target(route, target, canonical(target))


class TestRewrittenTarget:
    @pytest.mark.parametrize(
        ("match", "rewrite", "target", "result"),
        [
            (prefix("/api"), "/v1", b"/api/x", b"/v1/x"),
            (prefix("/api"), "/v1", b"/api", b"/v1"),
            (prefix("/api"), "/v1", b"/apix", b"/v1x"),
            (prefix("/api"), "/", b"/api/x", b"/x"),
            (prefix("/api"), "/", b"/api", b"/"),
            (prefix("/api"), "/", b"/api?q=/api", b"/?q=/api"),
            (prefix("/api/"), "/", b"/api/x", b"/x"),
            (prefix("/api/"), "/", b"/api/", b"/"),
            (prefix("/api"), "/v1/", b"/api/x", b"/v1/x"),
            (prefix("/api/"), "/v1/", b"/api/x/", b"/v1/x/"),
            (prefix("/"), "/v1/", b"/", b"/v1/"),
            (prefix("/"), "/v1/", b"/x", b"/v1/x"),
            (prefix("/api"), "/v1", b"/api/x?a=b?c", b"/v1/x?a=b?c"),
            (prefix("/api"), "/v1", b"/api/x?", b"/v1/x?"),
            (prefix("/api"), "/v1", b"//api//x", b"/v1/x"),
            (prefix("/api"), "/v1", b"/%61pi/x%2d%2a", b"/v1/x-%2A"),
            (prefix("/a b/"), "/", b"/a%20b/c", b"/c"),
            (prefix("/stra\xdfe/"), "/", b"/stra%c3%9fe/c", b"/c"),
            (prefix("/a!b/"), "/", b"/a!b/c", b"/c"),
            (prefix("/a!b/"), "/", b"/a%21b/c", b"/c"),
            (prefix("/api"), "/%20", b"/api/x", b"/%20/x"),
            (prefix("/api"), "/v1", b"http://a.example/api/x", b"/v1/x"),
            (exact("/api"), "/v1", b"/api?q", b"/v1?q"),
            (exact("/a b"), "/v1/", b"/a%20b", b"/v1/"),
            (prefix("/"), "/v1/", b"*", b"*"),
            (prefix("/api"), None, b"//api/%61", b"//api/%61"),
        ],
    )
    def test_prefix_is_replaced_and_the_query_stays(
        self, match: RouteMatch, rewrite: str | None, target: bytes, result: bytes
    ) -> None:
        """What matched is replaced literally, with one slash at the seam; without a rewrite the target stays."""
        assert rewritten(match, rewrite, target) == result

    @pytest.mark.parametrize(
        ("path", "rewrite", "target"),
        [
            ("/files", "/srv/", b"/files../etc"),
            ("/files", "/srv/", b"/files.."),
            ("/files", "/srv/", b"/files."),
            ("/files", "/srv/", b"/files..?x"),
            ("/files", "/srv/", b"/files..;x/etc"),
            ("/files", "/srv/", b"/files..%3Bx/etc"),
            ("/files", "/srv/", b"/files.%2e/etc"),
        ],
    )
    def test_path_that_would_leave_the_new_prefix_is_refused(self, path: str, rewrite: str, target: bytes) -> None:
        """Dots that were part of a name must not become a segment of their own."""
        with pytest.raises(RequestError) as caught:
            rewritten(prefix(path), rewrite, target)
        assert (caught.value.reason, caught.value.status) == ("ambiguous_path", 400)

    @pytest.mark.parametrize("target", [b"/ap", b"/Api/x", b"/x", b"/%41pi"])
    def test_path_without_the_prefix_is_refused(self, target: bytes) -> None:
        """Nothing is cut off a path that the route is not about."""
        with pytest.raises(RequestError, match="does not begin with the prefix") as caught:
            rewritten(prefix("/api"), "/v1", target)
        assert caught.value.reason == "ambiguous_path"

    def test_other_actions_leave_the_target(self) -> None:
        """Only a request to a cluster is rewritten."""
        route = Route(name="r", match=prefix("/a"), action=DirectResponse(status=200))
        assert rewritten_target(route, b"/a", b"/a") == b"/a"

    @given(
        st.lists(st.sampled_from(["/", "a", ".", "..", "!", "%21", "%20", "é", ";", "%3B", "?"]), max_size=8),
        st.sampled_from(["/a", "/a/", "/", "/a!", "/é", "/a "]),
        st.sampled_from(["/", "/v1/", "/v1"]),
    )
    def test_result_is_canonical_and_below_the_new_prefix(self, pieces: list[str], path: str, rewrite: str) -> None:
        """Whatever the client sends, the app is asked for a canonical path that begins as the operator wrote it."""
        target = b"/" + "".join(pieces).replace("é", "%C3%A9").encode()
        try:
            whole = canonical(target)
            if not normalise(target).startswith(path.encode()):
                return
            result = rewritten(prefix(path), rewrite, target)
            assert canonical(result) == result
        except RequestError as error:
            assert error.reason == "ambiguous_path"  # noqa: PT017 - either outcome is right
            return
        assert result.startswith(rewrite.encode())
        assert result.partition(b"?")[1:] == whole.partition(b"?")[1:]


def redirected(
    redirect: Redirect,
    target: bytes = b"/a/b?q=1",
    match: RouteMatch = RouteMatch(),  # noqa: B008 - a value
    scheme: bytes = b"http",
    host: bytes = b"a.example:8080",
) -> bytes:
    return location(redirect, match, scheme, host, canonical(target))


class TestLocation:
    @pytest.mark.parametrize(
        ("redirect", "result"),
        [
            (Redirect(), b"http://a.example:8080/a/b?q=1"),
            (Redirect(scheme="http"), b"http://a.example:8080/a/b?q=1"),
            (Redirect(scheme="https"), b"https://a.example/a/b?q=1"),
            (Redirect(scheme="https", port=443), b"https://a.example/a/b?q=1"),
            (Redirect(scheme="https", port=8443), b"https://a.example:8443/a/b?q=1"),
            (Redirect(scheme="https", port=80), b"https://a.example:80/a/b?q=1"),
            (Redirect(port=80), b"http://a.example/a/b?q=1"),
            (Redirect(port=81), b"http://a.example:81/a/b?q=1"),
            (Redirect(host="b.example"), b"http://b.example/a/b?q=1"),
            (Redirect(host="b.example", port=81), b"http://b.example:81/a/b?q=1"),
            (Redirect(host="2001:db8::1", port=81), b"http://[2001:db8::1]:81/a/b?q=1"),
            (Redirect(host="[2001:db8::1]"), b"http://[2001:db8::1]/a/b?q=1"),
            (Redirect(path="/x"), b"http://a.example:8080/x?q=1"),
            (Redirect(path="/x", strip_query=True), b"http://a.example:8080/x"),
            (Redirect(path="/x?y=2"), b"http://a.example:8080/x?y=2"),
            (Redirect(path="/x?y=2", strip_query=True), b"http://a.example:8080/x?y=2"),
            (Redirect(strip_query=True), b"http://a.example:8080/a/b"),
            (Redirect(prefix_rewrite="/x"), b"http://a.example:8080/x/b?q=1"),
            (Redirect(prefix_rewrite="/", strip_query=True), b"http://a.example:8080/b"),
        ],
    )
    def test_redirect_changes_what_it_names(self, redirect: Redirect, result: bytes) -> None:
        """What a redirect does not name stays as the client asked for it; a port goes with its scheme and host."""
        assert redirected(redirect, match=prefix("/a")) == result

    @pytest.mark.parametrize(
        ("target", "result"),
        [
            (b"//evil.example/x", b"https://a.example/evil.example/x"),
            (b"///evil.example", b"https://a.example/evil.example"),
            (b"/%09/evil", None),
            (b"/\\evil.example", None),
            (b"http://evil.example/x", b"https://a.example/x"),
            (b"/@evil.example", b"https://a.example/@evil.example"),
            (b"/.evil.example", b"https://a.example/.evil.example"),
            (b"*", b"https://a.example/"),
            (b"/?", b"https://a.example/?"),
        ],
    )
    def test_no_target_leads_to_another_host(self, target: bytes, result: bytes | None) -> None:
        """The URL names the host of the request, whatever the path looks like."""
        if result is None:
            with pytest.raises(RequestError, match="which programs read in different ways"):
                redirected(Redirect(scheme="https"), target)
        else:
            assert redirected(Redirect(scheme="https"), target) == result

    def test_ipv6_host_loses_its_port_only(self) -> None:
        """The colons of an address are no ports."""
        assert redirected(Redirect(scheme="https"), b"/", host=b"[::1]:80") == b"https://[::1]/"
        assert redirected(Redirect(scheme="https"), b"/", host=b"[::1]") == b"https://[::1]/"

    @pytest.mark.parametrize("host", [b"", b":80"])
    def test_request_without_host_cannot_be_redirected_to_its_own(self, host: bytes) -> None:
        """An empty host is refused: browsers take the first segment of the path for it."""
        with pytest.raises(RequestError) as caught:
            redirected(Redirect(scheme="https"), b"/evil.example/", host=host)
        assert (caught.value.reason, caught.value.status) == ("bad_host", 400)
        assert redirected(Redirect(host="b.example"), b"/x", host=host) == b"http://b.example/x"

    def test_dots_behind_the_prefix_are_refused(self) -> None:
        """What would be resolved by the client leads elsewhere than the operator wrote."""
        with pytest.raises(RequestError, match="dots where its prefix ends"):
            redirected(Redirect(prefix_rewrite="/x/"), b"/a../b", match=prefix("/a"))

    @given(
        st.lists(st.sampled_from(["/", "a", "evil.example", "@", ":", ".", "%2e", "?", "#", "//"]), max_size=8),
        st.sampled_from([Redirect(scheme="https"), Redirect(path="/x"), Redirect(prefix_rewrite="/x/")]),
    )
    def test_host_is_that_of_the_request(self, pieces: list[str], redirect: Redirect) -> None:
        """Generated targets lead nowhere else, and end no line."""
        try:
            result = redirected(redirect, b"/" + "".join(pieces).encode())
        except RequestError as error:
            assert error.reason == "ambiguous_path"  # noqa: PT017 - either outcome is right
            return
        assert urlsplit(result).hostname == b"a.example"
        assert not {0x0A, 0x0D, 0x20} & set(result)
