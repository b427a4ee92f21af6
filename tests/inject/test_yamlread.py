"""`sidecar.inject.yamlread`: what is kept as it is written, and what is not taken."""

from __future__ import annotations

import pytest
import yaml

from sidecar.inject import yamlread
from sidecar.inject.tree import NULL, InjectError, Plain, Tree
from sidecar.inject.yamlread import DEEPEST, LARGEST_EXPANSION, read


@pytest.fixture(params=["SafeLoader", "CSafeLoader"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: which one there is depends on how it was built."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML is built without libyaml")
    monkeypatch.setattr(yamlread, "_LOADER", getattr(yaml, request.param))


class TestScalars:
    @pytest.mark.parametrize(
        "text", ["0644", "1e3", "on", "y", "1_000", "190:20:30", "2001-01-01", "0x1F", ".5", "=", "-c"]
    )
    def test_doubtful_ones_stay_as_they_are_written(self, text: str) -> None:
        """Readers differ in what these are; nothing is decided."""
        assert read(f"a: {text}") == [{"a": Plain(text)}]

    @pytest.mark.parametrize("text", ["0644", "1e3", "on", "null", "", "~"])
    def test_quoted_ones_are_text(self, text: str) -> None:
        """Quotes make text of everything."""
        assert read(f"a: '{text}'\nb: \"{text}\"") == [{"a": text, "b": text}]

    @pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
    def test_every_null_is_the_same(self, text: str) -> None:
        """All ways to write nothing are one."""
        assert read(f"a: {text}") == [{"a": NULL}]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            pytest.param("a: nginx:1.25", "nginx:1.25", id="word"),
            pytest.param("a: two\n  lines", "two lines", id="folded-plain"),
            pytest.param("a: 1\n\n  2", "1\n2", id="numbers-with-a-line-between"),
            pytest.param("a: |-\n  x\n   y", "x\n y", id="literal"),
            pytest.param("a: !!str 5", "5", id="text-tag"),
            pytest.param("a: ! 5", "5", id="text-by-an-exclamation-mark"),
        ],
    )
    def test_text_is_what_the_parser_makes_of_it(self, text: str, value: str) -> None:
        """Folding and escapes are done with when it is read."""
        assert read(text) == [{"a": value}]


class TestDocuments:
    def test_empty_documents_are_left_out(self) -> None:
        """Leading and doubled separators, and comments alone, are no documents."""
        assert read("---\n# nothing\n---\n---\na: b\n---\n") == [{"a": "b"}]

    def test_order_of_keys_stays(self) -> None:
        """Keys come as they are written."""
        [document] = read("z: 1\na: 2\nm: 3")
        assert isinstance(document, dict)
        assert [*document] == ["z", "a", "m"]


class TestAliases:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            pytest.param("a: &x {k: v}\nb: *x", {"a": {"k": "v"}, "b": {"k": "v"}}, id="mapping"),
            pytest.param("a: &x [v]\nb: *x", {"a": ["v"], "b": ["v"]}, id="list"),
            pytest.param("a: &x 1\nb: *x", {"a": Plain("1"), "b": Plain("1")}, id="scalar"),
            pytest.param(
                "a: &x {k: v, l: w}\nb:\n  <<: *x\n  k: own",
                {"a": {"k": "v", "l": "w"}, "b": {"l": "w", "k": "own"}},
                id="merge",
            ),
            pytest.param(
                "a: &x {k: v}\nb: &y {k: w, l: w}\nc: {<<: [*x, *y]}",
                {"a": {"k": "v"}, "b": {"k": "w", "l": "w"}, "c": {"k": "v", "l": "w"}},
                id="merge-of-several",
            ),
        ],
    )
    def test_they_are_written_out(self, text: str, value: Tree) -> None:
        """An alias is a copy of what it stands for, and a merge key the keys that are missing."""
        assert read(text) == [value]

    def test_copies_are_independent(self) -> None:
        """A sidecar that goes into one pod does not go into its twin."""
        [document] = read("a: &x {k: [v]}\nb: *x")
        assert isinstance(document, dict)
        assert document["a"] is not document["b"]

    def test_bomb_is_refused(self) -> None:
        """Ten lines that stand for ten thousand million values are an error before they are made."""
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
        with pytest.raises(InjectError, match=r"line \d+: its aliases stand for more than 1,048,576"):
            read("\n".join(lines))

    @pytest.mark.parametrize(("times", "fits"), [(1, True), (2, False)])
    def test_long_text_counts_by_its_length(self, times: int, fits: bool) -> None:
        """A large text behind an anchor is no way round the limit."""
        text = f"a: &a {'x' * (LARGEST_EXPANSION - 1)}\n" + "".join(f"b{i}: *a\n" for i in range(times))
        if fits:
            assert len(read(text)) == 1
        else:
            with pytest.raises(InjectError, match="aliases stand for more"):
                read(text)

    def test_anchors_end_with_their_document(self) -> None:
        """An alias means nothing of another document."""
        with pytest.raises(InjectError, match="line 3: the alias 'x' stands for what is nowhere above it"):
            read("a: &x 1\n---\nb: *x")


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands in line 1 already", id="key-twice"),
            pytest.param("a: 1\n'a': 3", "line 2: the key 'a' stands in line 1 already", id="key-twice-quoted"),
            pytest.param("1: x\n'1': y", "line 2: the key '1' stands in line 1 already", id="key-twice-as-number"),
            pytest.param("a: &x [*x]", "line 1: the alias 'x' stands for what it is in itself", id="alias-in-itself"),
            pytest.param(
                "a: {<<: 5}", "line 1: a merge key (<<) stands for what is no mapping", id="merge-of-a-number"
            ),
            pytest.param("a:\n  b: !Ref C", "line 2: the tag '!Ref' is not supported; render", id="local-tag"),
            pytest.param("a: !!binary aGk=", "line 1: the tag '!!binary' is not supported; write", id="binary"),
            pytest.param("a: !!python/name:os.system x", "the tag '!!python/name:os.system'", id="python"),
            pytest.param("? [a]\n: b", "line 1: a list or mapping stands where a key", id="list-as-key"),
            pytest.param("a: [}", "line 1: ", id="wrong-bracket"),
            pytest.param("a: b\n\tc: d", "line 2: ", id="tab"),
            pytest.param("{{- if .Values.x }}\na: b", "line 1: ", id="template"),
            pytest.param("a: \x07", "", id="control-character"),
        ],
    )
    def test_it_names_the_line(self, text: str, message: str) -> None:
        """An error is one printable line, with that of the input and what to do."""
        with pytest.raises(InjectError) as caught:
            read(text)
        assert message in str(caught.value)
        assert "; " in str(caught.value)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(("levels", "fits"), [(DEEPEST - 1, True), (DEEPEST, False), (100_000, False)])
    def test_nesting_is_bounded(self, levels: int, fits: bool) -> None:
        """One level over the limit is an error, and so are so many that they would exhaust the stack."""
        if fits:
            assert len(read("[" * levels + "x" + "]" * levels)) == 1
        else:
            with pytest.raises(InjectError, match="line 1: nested deeper than 100 levels"):
                read("[" * levels + "x" + "]" * levels)
