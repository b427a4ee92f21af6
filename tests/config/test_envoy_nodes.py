"""`sidecar.config.envoy_nodes`: a file as a tree that knows what was read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.config.envoy_nodes import DEEPEST, LARGEST_FILE, Findings, Node, parse
from sidecar.errors import ConfigError

Read = Callable[[Node], object]


def tree(content: str) -> Node:
    return parse(content, Findings("envoy.yaml"))


def report(node: Node) -> list[str]:
    """Paths of what was left out, and with an exclamation mark those of what was refused."""
    node.report()
    findings = node.findings
    return [item.path for item in findings.left_out] + [f"!{problem.setting}" for problem in findings.problems]


class TestParse:
    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            ("a: &x 1\nb: *x\n", "aliases are not supported"),
            ("[" * (DEEPEST + 1), f"nested deeper than {DEEPEST} levels"),
            ("a: " + "b" * LARGEST_FILE, "limit 1,048,576"),
            ("- a\n", "no mapping"),
            ("", "no mapping"),
            ("a: 'b", "found unexpected end of stream"),
            ("a: \x00", "special characters are not allowed"),
        ],
        ids=["alias", "depth", "size", "list", "nothing", "syntax", "control"],
    )
    def test_what_cannot_be_read_is_refused(self, content: str, fact: str) -> None:
        """A file that is no mapping of bounded size and depth has one problem."""
        with pytest.raises(ConfigError) as caught:
            tree(content)

        (problem,) = caught.value.problems
        assert fact in problem.fact

    def test_syntax_error_has_its_line(self) -> None:
        """Who mends the file is told where."""
        with pytest.raises(ConfigError) as caught:
            tree("a: 1\nb: 'x' y\n")

        assert caught.value.problems[0].source == "envoy.yaml:2"

    def test_deepest_nesting_is_read(self) -> None:
        """The limit itself is allowed."""
        assert tree("a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)).has("a")

    @pytest.mark.parametrize("content", ["a: 1\na: 2\n", "? [x]\n: 1\n", "a: !!binary x\nb: !x y\n"])
    def test_bad_key_or_tag_is_a_problem(self, content: str) -> None:
        """Repeated keys, keys that are no names, and tags are refused, not taken somehow."""
        assert tree(content).findings.problems

    def test_json_with_tabs_and_surrogates_is_read(self) -> None:
        """JSON may be indented with tabs, and write a character as two escapes."""
        assert tree('{\n\t"a": "\\ud83d\\ude00"\n}').text("a") == "😀"

    def test_flow_style_is_no_json(self) -> None:
        """YAML may begin with a brace too."""
        assert tree("{a: 1}").text("a") == "1"

    def test_path_and_line_are_those_of_the_file(self) -> None:
        """Fields are named as they are written; odd names in brackets."""
        items = tree("listenerFilters:\n- x:\n    envoy.tls: 1\n").items("listener_filters")

        mapping = items[0].mapping("x")
        assert mapping is not None
        (inner,) = mapping.entries
        assert (inner.path, inner.line) == ("listenerFilters[0].x['envoy.tls']", 3)


class TestFields:
    @pytest.mark.parametrize(
        ("written", "asked"),
        [("port_value", "port_value"), ("portValue", "port_value"), ("acceptHttp10", "accept_http_10")],
    )
    def test_both_spellings_are_found(self, written: str, asked: str) -> None:
        """Names in snake_case and in lowerCamelCase are the same field."""
        assert tree(f"{written}: 1").number(asked) == 1

    def test_field_in_both_spellings_is_refused(self) -> None:
        """It would be chance which of the two counts."""
        node = tree("port_value: 1\nportValue: 2")

        assert node.number("port_value") == 1
        assert report(node) == ["!portValue"]

    def test_null_is_as_good_as_nothing(self) -> None:
        """Protobuf takes null for the default."""
        node = tree("a: null\nb: ~\n")

        assert (node.get("a"), node.text("b", "x"), node.items("a"), node.mapping("a")) == (None, "x", [], None)

    @pytest.mark.parametrize(
        ("text", "value"), [("true", True), ("YES", True), ("on", True), ("false", False), ("n", False)]
    )
    def test_switch_is_read_as_envoy_does(self, text: str, value: bool) -> None:
        """YAML 1.1 has many words for true."""
        assert tree(f"a: {text}").flag("a", default=not value) is value

    @pytest.mark.parametrize(
        ("text", "word"), [("V2", "V2"), ("v2", "V2"), ("1", "V2"), ("0", "V1"), ("2", ""), ("V3", ""), ("²", "")]
    )
    def test_word_is_one_of_an_enumeration(self, text: str, word: str) -> None:
        """Words have no case in old files, and may be numbers; others are refused."""
        node = tree(f"a: '{text}'")

        assert node.word("a", ("V1", "V2")) == word
        assert report(node) == ([] if word else ["!a"])

    @pytest.mark.parametrize("text", ["-1", "1.5", "x", "1e3", "1234567890123", "²"])
    def test_number_is_whole_and_bounded(self, text: str) -> None:
        """What is no count is refused."""
        node = tree(f"a: '{text}'")

        assert node.number("a") is None
        assert report(node) == ["!a"]

    @pytest.mark.parametrize(
        ("content", "read"),
        [
            ("a: [1]", lambda node: node.text("a")),
            ("a: {b: 1}", lambda node: node.number("a")),
            ("a: 1", lambda node: node.mapping("a")),
            ("a: [1]", lambda node: node.mapping("a")),
            ("a: 1", lambda node: node.items("a")),
            ("a: {b: 1}", lambda node: node.items("a")),
            ("a: x", lambda node: node.flag("a")),
        ],
    )
    def test_value_of_another_shape_is_refused(self, content: str, read: Read) -> None:
        """A text is no list, and a list no mapping."""
        node = tree(content)

        assert not read(node)
        assert report(node) == ["!a"]

    def test_entries_of_another_shape_are_refused(self) -> None:
        """Lists hold mappings, or texts, not both."""
        node = tree("a: [x, {b: 1}]\nc: [x, {b: 1}]")

        assert (len(node.mappings("a")), len(node.texts("c"))) == (1, 1)
        assert [path for path in report(node) if path[0] == "!"] == ["!a[0]", "!c[1]"]


class TestReport:
    def test_what_was_read_is_not_reported(self) -> None:
        """A text that somebody asked for is carried over."""
        node = tree("a: 1\nb: {c: 2, d: 3}")
        node.text("a")
        inner = node.mapping("b")
        assert inner is not None
        inner.text("c")

        assert report(node) == ["b.d"]

    def test_field_that_was_not_read_is_reported_as_one(self) -> None:
        """What stands inside of it is not listed too."""
        assert report(tree("a: {b: {c: 1}}")) == ["a"]

    def test_asking_whether_it_is_there_is_not_reading(self) -> None:
        """Otherwise it would be dropped silently."""
        node = tree("a: 1")

        assert node.has("a")
        assert report(node) == ["a"]

    @pytest.mark.parametrize("content", ["a: []", "a: null"])
    def test_nothing_is_nothing_lost(self, content: str) -> None:
        """Null and empty lists say nothing."""
        assert report(tree(content)) == []

    def test_empty_mapping_is_reported(self) -> None:
        """That a message is there may be all that it says, as in http2_protocol_options: {}."""
        assert report(tree("a: {}")) == ["a"]

    def test_ignored_field_is_not_reported(self) -> None:
        """Its reader knows that it makes no difference."""
        node = tree("stat_prefix: {x: 1}")
        node.ignore("stat_prefix", "other")

        assert report(node) == []

    def test_reason_is_told(self) -> None:
        """What is left out knowingly has a reason."""
        node = tree("a: 1")
        node.leave_out("a", "because")
        node.report()

        assert str(node.findings.left_out[0]) == "a (line 1): '1': because"

    def test_nothing_of_a_whole_may_be_missing(self) -> None:
        """In a match, a field that nobody reads is refused, at any depth."""
        node = tree("match: {prefix: /, grpc: {x: 1}, headers: [{name: x, range: 1}]}")
        match = node.mapping("match")
        assert match is not None
        match.must_be_whole("more would match")
        match.text("prefix")
        match.items("headers")[0].text("name")

        assert report(node) == ["!match.grpc", "!match.headers[0].range"]
        assert "without it more would match" in node.findings.problems[0].fact

    @pytest.mark.parametrize("name", ["rate_limits", "rateLimits", "request_headers_to_remove", "internalOnlyHeaders"])
    def test_safeguard_is_refused_wherever_it_stands(self, name: str) -> None:
        """What keeps somebody out is never left out, even by those who say why."""
        node = tree(f"{name}: [x]")
        node.leave_out(name, "because")

        assert report(node) == [f"!{name}"]

    def test_refused_value_is_reported_once(self) -> None:
        """A problem is enough."""
        node = tree("a: {b: 1}")
        inner = node.get("a")
        assert inner is not None
        inner.refuse("wrong", "mend it")

        assert report(node) == ["!a"]


class TestShown:
    @pytest.mark.parametrize(
        ("content", "shown"),
        [
            ("a: x", "'x'"),
            ("a: [1]", "1 entry"),
            ("a: [1, 2]", "2 entries"),
            ("a: {}", "{}"),
            ("a: {b: 1, c: 2}", "'b, c'"),
            ("inline_string: hunter2", "not shown"),
            ("apiToken: hunter2", "not shown"),
            ("a: '-----BEGIN PRIVATE KEY-----'", "PEM text"),
        ],
    )
    def test_value_is_short_and_no_secret(self, content: str, shown: str) -> None:
        """Enough to find it, nothing that must not be seen."""
        assert tree(content).entries[0].shown() == shown
