"""`sidecar.wire.target`: the forms of a request target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# As it came -> as rules match it; every other column of the table is derived from it.
NORMAL = {
    b"/": b"/",
    b"*": b"*",
    b"/a": b"/a",
    b"/a/": b"/a/",
    b"/a?b=/../c%2f": b"/a",
    b"/a%20b": b"/a b",
    b"/%61%7E": b"/a~",
    b"/a%c3%bc": b"/a\xc3\xbc",
    b"/a%3Fb?c": b"/a?b",
    b"/a%25": b"/a%",
    b"/100%25x1": b"/100%x1",
    b"//": b"/",
    b"//a": b"/a",
    b"/a//b///": b"/a/b/",
    b"/.": b"/",
    b"/./": b"/",
    b"/a/.": b"/a/",
    b"/a/./b": b"/a/b",
    b"/a/..": b"/",
    b"/a/../": b"/",
    b"/a/b/..": b"/a/",
    b"/a/b/../c": b"/a/c",
    b"/a/b/../../c": b"/c",
    b"/a/%2e%2E/b": b"/b",
    b"/a/.%2e/b": b"/b",
    b"/...": b"/...",
    b"/.a/..b": b"/.a/..b",
    b"/a;x/b": b"/a;x/b",
    b"/a;/../b": b"/b",
    b"http://h": b"/",
    b"http://h?q": b"/",
    b"https://h:1/a/../b?q": b"/b",
    b"HTTP://h//a": b"/a",
}

AMBIGUOUS = {
    "encoded slash": b"/a%2fb",
    "encoded slash, upper case": b"/a%2Fb",
    "encoded backslash": b"/a%5cb",
    "encoded NUL": b"/a%00",
    "encoded LF": b"/a%0a",
    "encoded DEL": b"/a%7F",
    "backslash": b"/a\\..\\b",
    "encoding of an encoding": b"/a/%252e%252e/b",
    "encoding of an encoded slash": b"/a%252Fb",
    "encoding of an encoding in parts": b"/a/%25%32e/b",
    "broken encoding": b"/a%2",
    "encoding that is no number": b"/a%zz",
    "percent sign alone": b"/%",
    "above the root": b"/..",
    "above the root from below": b"/a/../../b",
    "above the root, encoded": b"/%2e%2e/a",
    "above the root, absolute-form": b"http://h/../a",
    "dots before a parameter": b"/a/..;/b",
    "dots before a parameter with a value": b"/a/..;x=1/b",
    "dots before an encoded parameter": b"/a/..%3b/b",
    "dot before a parameter": b"/a/.;/b",
    "encoded dots before a parameter": b"/a/%2e%2e;/b",
    "dots behind an empty segment": b"/a//../b",
    "dots somewhere behind an empty segment": b"//a/../b",
    "dots behind an empty segment with a parameter": b"/a/;/../b",
    "dots behind an empty segment with an encoded parameter": b"/a/%3B/../b",
    "overlong dots": b"/a/%c0%ae%c0%ae/b",
    "overlong slash": b"/a%e0%80%afb",
    "octet that is no UTF-8": b"/a%ff",
}


class TestNormalise:
    @pytest.mark.parametrize("value", NORMAL, ids=bytes.decode)
    def test_path_is_decoded_collapsed_and_resolved(self, value: bytes) -> None:
        """Rules see what a careful app would."""
        assert target.normalise(value) == NORMAL[value]

    @pytest.mark.parametrize("value", NORMAL, ids=bytes.decode)
    def test_normal_path_has_one_reading(self, value: bytes) -> None:
        """What is normal already is not changed again."""
        canonical = target.canonical(value)
        assert target.canonical(canonical) == canonical
        assert target.readings(canonical) == (NORMAL[value],)

    @pytest.mark.parametrize("value", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
    def test_path_that_programs_read_differently_is_refused(self, value: bytes) -> None:
        """What could slip past a rule is refused, not guessed at."""
        for function in (target.normalise, target.readings, target.canonical):
            with pytest.raises(RequestError) as caught:
                function(value)  # type: ignore[operator]
            assert (caught.value.status, caught.value.reason) == (400, "ambiguous_path")

    @given(st.lists(st.sampled_from([*b"/.%2eF5Cc;\\aA0"]).map(lambda octet: bytes((octet,))), max_size=24))
    def test_normal_form_is_final(self, pieces: list[bytes]) -> None:
        """Whatever is accepted has no dot segment, no empty segment and nothing that can be decoded to one."""
        try:
            path = target.normalise(b"/" + b"".join(pieces))
        except RequestError:
            return
        segments = path.split(b"/")[1:]
        assert path.startswith(b"/")
        assert b"" not in segments[:-1]
        assert not {b".", b".."} & {segment.partition(b";")[0] for segment in segments}
        assert b"\\" not in path


class TestReadings:
    @pytest.mark.parametrize(
        ("value", "readings"),
        [
            (b"/a/b?c", (b"/a/b",)),
            (b"/a%20b", (b"/a b",)),
            (b"/a/../b", (b"/b", b"/a/../b")),
            (b"//a", (b"/a", b"//a")),
            (b"/a/%2e/b", (b"/a/b", b"/a/./b")),
            (b"http://h//a", (b"/a", b"//a")),
        ],
    )
    def test_app_that_does_not_resolve_is_thought_of(self, value: bytes, readings: tuple[bytes, ...]) -> None:
        """Where resolving changes the path, it is also given as it came."""
        assert target.readings(value) == readings


class TestCanonical:
    @pytest.mark.parametrize(
        ("value", "canonical"),
        [
            (b"/a/../b?x=../%2e", b"/b?x=../%2e"),
            (b"/%7euser/%c3%a4%3B", b"/~user/%C3%A4%3B"),
            (b"/a//b/?", b"/a/b/?"),
            (b"http://h/a?b", b"/a?b"),
            (b"*", b"*"),
        ],
    )
    def test_what_is_sent_stays_encoded(self, value: bytes, canonical: bytes) -> None:
        """The app gets a path that means the same; the query is its own business."""
        assert target.canonical(value) == canonical
