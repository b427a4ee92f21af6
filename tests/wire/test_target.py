"""`sidecar.wire.target`: the forms of a request target."""

from __future__ import annotations

import pytest

from sidecar.errors import RequestError
from sidecar.wire import target
from sidecar.wire.target import MAX_TARGET_BYTES


class TestCheck:
    @pytest.mark.parametrize("value", [b"/", b"/a?b", b"//a", b"/\\", b"/" + b"a" * (MAX_TARGET_BYTES - 1)])
    def test_origin_form_has_no_authority(self, value: bytes) -> None:
        """A path names no host, also when it begins with two slashes."""
        assert target.check(b"GET", value) is None

    def test_asterisk_form_is_for_options_only(self) -> None:
        """«*» is a target of OPTIONS and of nothing else."""
        assert target.check(b"OPTIONS", b"*") is None
        for method in (b"GET", b"options", b"POST"):
            with pytest.raises(RequestError) as caught:
                target.check(method, b"*")
            assert caught.value.status == 400

    @pytest.mark.parametrize(
        ("value", "authority"),
        [
            (b"http://a", b"a"),
            (b"http://a/", b"a"),
            (b"HTTPS://A:1/b", b"A:1"),
            (b"http://a?b", b"a"),
            (b"http://a?b/c@d", b"a"),
            (b"http://a/@b", b"a"),
            (b"http://[::1]:1/", b"[::1]:1"),
        ],
    )
    def test_absolute_form_names_its_authority(self, value: bytes, authority: bytes) -> None:
        """The authority of a URL ends at its path or query, and is returned as it came."""
        assert target.check(b"GET", value) == authority

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"a",
            b"a:1",
            b"*",
            b"**",
            b"?a",
            b"http:",
            b"http:/a",
            b"http://",
            b"http:///a",
            b"http://?a",
            b"http://:1",
            b"http://u@a/",
            b"http://u:p@a/",
            b"http://a\\b/",
            b"http://a:b/",
            b"http://a b/",
            b"httpx://a/",
            b"xhttp://a/",
            b"ws://a/",
            b"http://[::1/",
            b"http://%zz/",
            b"\\a",
            b".",
            b"../a",
        ],
    )
    def test_anything_else_is_refused(self, value: bytes) -> None:
        """A target that is neither a path nor an http(s) URL with a good host is refused with 400."""
        with pytest.raises(RequestError) as caught:
            target.check(b"GET", value)
        assert (caught.value.status, caught.value.reason) == (400, "bad_target")

    @pytest.mark.parametrize("start", [b"/", b"http://a/", b"*"])
    def test_long_target_is_refused_as_such(self, start: bytes) -> None:
        """A target of one byte over the limit is refused with 414, whatever its form."""
        with pytest.raises(RequestError) as caught:
            target.check(b"GET", start + b"a" * (MAX_TARGET_BYTES + 1 - len(start)))
        assert (caught.value.status, caught.value.reason) == (414, "uri_too_long")


class TestOriginForm:
    @pytest.mark.parametrize(
        ("value", "sent"),
        [
            (b"/", b"/"),
            (b"/a?b", b"/a?b"),
            (b"//a/b", b"//a/b"),
            (b"/http://a/", b"/http://a/"),
            (b"http://a/", b"/"),
            (b"http://a?b", b"/?b"),
            (b"http://a?", b"/?"),
            (b"HTTPS://a:1//b/../c?d", b"//b/../c?d"),
            (b"http://a/http://b/", b"/http://b/"),
            (b"http://a/*", b"/*"),
        ],
    )
    @pytest.mark.parametrize("method", [b"GET", b"OPTIONS"], ids=bytes.decode)
    def test_app_is_sent_a_path(self, method: bytes, value: bytes, sent: bytes) -> None:
        """A URL loses its scheme and authority; nothing else of a target changes."""
        assert target.origin_form(method, value) == sent

    @pytest.mark.parametrize("method", [b"GET", b"POST", b"options", b"OPTION", b"OPTIONSX"], ids=bytes.decode)
    def test_url_without_path_is_the_root(self, method: bytes) -> None:
        """A URL that ends with its authority asks for «/»; methods have a case."""
        assert target.origin_form(method, b"http://a") == b"/"

    @pytest.mark.parametrize("value", [b"*", b"http://a", b"HTTPS://a:1", b"http://[::1]", b"http://a:"])
    def test_options_without_path_is_about_the_server(self, value: bytes) -> None:
        """OPTIONS with a URL that has neither path nor query is sent on as «*» (RFC 9112 section 3.2.4)."""
        assert target.check(b"OPTIONS", value) != b""
        assert target.origin_form(b"OPTIONS", value) == b"*"
