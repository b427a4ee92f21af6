"""`sidecar.inject.yamlwrite`: what is written reads back as the same, with every reader."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.inject import yamlread
from sidecar.inject.tree import NULL, TRUE, InjectError, Plain, Tree
from sidecar.inject.yamlwrite import LONGEST_KEY, is_certainly_text, write

# What YAML can hold; the parsers refuse other control characters even where they are escaped.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff")
TEXTS = st.text(CHARACTERS, max_size=30) | st.lists(st.text("ab \t#:-|'", max_size=6), max_size=6).map("\n".join)
PLAINS = st.sampled_from([NULL, TRUE, Plain("0644"), Plain("1e3"), Plain("on"), Plain("2001-01-01"), Plain("-c")])
KEYS = st.text(CHARACTERS, min_size=1, max_size=10)
TREES = st.recursive(
    TEXTS | PLAINS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
ROOTS = st.dictionaries(KEYS, TREES, max_size=4)

# What a person may write: in brackets and braces much is a word that is a mark elsewhere.
WRITTEN = st.recursive(
    st.sampled_from(["-", "--", "---", "--- a", "... a", "-c", "-1", "?", "a-", "0644", "1e3", "2001-01-01", "~", "on"])
    | st.text("-?:.#a1 ,'", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(inner, inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=8,
)


def resolved(text: str) -> str:
    """What PyYAML's own loader makes of a document, as text: there is a number that equals no number."""
    return repr(yaml.safe_load(text))


class TestRoundTrip:
    @given(st.lists(ROOTS.filter(bool), min_size=1, max_size=3))
    def test_tree_reads_back_as_it_was(self, roots: list[Tree]) -> None:
        """Writing and reading changes nothing, whatever the texts are."""
        assert yamlread.read(write(roots)) == roots

    @given(st.dictionaries(KEYS, TEXTS))
    def test_texts_are_texts_to_another_reader(self, root: dict[str, str]) -> None:
        """A reader of YAML 1.1 that resolves everything finds the same texts."""
        assert yaml.safe_load(write([{**root}])) == root

    @settings(deadline=None)
    @given(WRITTEN, st.sampled_from(["{{{}: x}}", "k: {}", "k: [{}]", "k: {{{}: x, v: {}}}", "k:\n- {}", "{}: x"]))
    def test_another_reader_finds_the_same_before_and_after(self, written: str, form: str) -> None:
        """Whatever is read here means the same once it is written, to a reader that resolves everything."""
        text = form.format(written, written)
        try:
            before, trees = resolved(text), yamlread.read(text)
        except (yaml.YAMLError, ValueError, InjectError):
            assume(False)
        assert resolved(write(trees)) == before

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("args: [apply, -f, -]", id="in-a-list"),
            pytest.param("x: {a: -}", id="as-a-value"),
            pytest.param("x: {-: a}", id="as-a-key"),
            pytest.param("{--- a: b}", id="document-mark-in-a-key"),
            pytest.param("{... a: b}", id="document-end-in-a-key"),
        ],
    )
    def test_word_that_is_a_mark_elsewhere_stays_a_word(self, text: str) -> None:
        """What is a word in brackets is quoted where it would be a mark."""
        assert resolved(write(yamlread.read(text))) == resolved(text)

    @given(ROOTS)
    def test_written_form_is_final(self, root: Tree) -> None:
        """What was written once is written the same again."""
        once = write([root])
        assert write(yamlread.read(once) or [{}]) == once


class TestScalars:
    @pytest.mark.parametrize(
        "text",
        [
            *("on", "Yes", "n", "true", "null", "~", "", "0644", "1e3", "0x1F", "0o7", "1_000", ".inf", "12:30:45"),
            *(
                "2001-01-01",
                "- a",
                "a: b",
                "a #b",
                "a:",
                " a",
                "a ",
                "*a",
                "&a",
                "!a",
                "%a",
                "@a",
                "`a",
                "=",
                "<<",
                "{a}",
            ),
            *("[a]", "---", "...", "? a", "| a", "> a", "'a'", '"a"', "\\a", "a\u2028b", "\u00a0", "\x85", "a\tb"),
        ],
    )
    def test_doubtful_texts_are_quoted(self, text: str) -> None:
        """What some reader could misread gets quotes."""
        [line] = write([{"k": text}]).splitlines()
        assert line[3] in "\"'"
        assert yaml.safe_load(line) == {"k": text}

    @pytest.mark.parametrize(
        "text", ["web", "nginx:1.25", "/bin/sh", "a.b-c", "http://127.0.0.1:8080", "two words", "né"]
    )
    def test_certain_texts_are_not(self, text: str) -> None:
        """A manifest full of quotes is hard to read."""
        assert write([{"k": text}]) == f"k: {text}\n"
        assert is_certainly_text(text)


class TestLines:
    @pytest.mark.parametrize(
        ("text", "written"),
        [
            pytest.param("a\nb\n", "k: |\n  a\n  b\n", id="one-line-feed"),
            pytest.param("a\nb", "k: |-\n  a\n  b\n", id="no-line-feed"),
            pytest.param("a\n\n\n", "k: |+\n  a\n\n\n", id="several-line-feeds"),
            pytest.param("a\n\n  b # c\n", "k: |\n  a\n\n    b # c\n", id="indented-and-empty"),
            pytest.param("a  \nb\n", "k: |\n  a  \n  b\n", id="trailing-blanks"),
            pytest.param("  a\nb\n", "k: |2\n    a\n  b\n", id="first-is-indented"),
            pytest.param("\na\n", "k: |2\n\n  a\n", id="first-is-empty"),
            pytest.param("\ta\nb\n", "k: |2\n  \ta\n  b\n", id="first-begins-with-a-tab"),
        ],
    )
    def test_text_over_several_lines_reads_as_it_is(self, text: str, written: str) -> None:
        """A script stays a script."""
        assert write([{"k": text}]) == written
        assert yaml.safe_load(written) == {"k": text}

    @pytest.mark.parametrize("text", ["\n", "a\n  \nb", "a\r\nb", "a\n\x07", "a\u2028\nb"])
    def test_what_no_block_can_hold_is_escaped(self, text: str) -> None:
        """Where readers would see other lines than these, it is one line with escapes."""
        [line] = write([{"k": text}]).splitlines()
        assert yaml.safe_load(line) == {"k": text}


class TestShape:
    def test_collections_look_as_kubectl_writes_them(self) -> None:
        """Lists stand under their key without indentation, empty ones on its line."""
        tree: Tree = {"a": [{"b": "c", "d": [["e"], "f"]}, {}], "g": [], "h": {"i": NULL}}
        assert write([tree]) == "a:\n- b: c\n  d:\n  - - e\n  - f\n- {}\ng: []\nh:\n  i: null\n"

    @pytest.mark.parametrize(("length", "fits"), [(LONGEST_KEY, True), (LONGEST_KEY + 1, False)])
    def test_keys_are_bounded(self, length: int, fits: bool) -> None:
        """A longer key would need a form that few readers know."""
        if fits:
            assert len(write([{"k" * length: "v"}])) == length + 4
        else:
            with pytest.raises(InjectError, match="1,001 characters, limit 1,000"):
                write([{"k" * length: "v"}])
