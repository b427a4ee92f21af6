"""`sidecar.config.entries`: strict reading of structured settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config import entries
from sidecar.config.entries import Entry, Reader
from sidecar.config.load import Loaded
from sidecar.config.units import UnitError, parse_count
from sidecar.settings import Settings


def read(value: object, *keys: str) -> tuple[Entry, Reader]:
    reader = Reader(
        Loaded(Settings(), {"clusters": "a.yaml:1"}, {"clusters[0]": "a.yaml:2", "clusters[0].a": "a.yaml:3"})
    )
    return reader.entry("clusters[0]", value, keys or ("a", "b")), reader


def told(reader: Reader) -> list[tuple[str, str]]:
    return [(problem.setting, problem.source) for problem in reader.problems]


class TestReader:
    def test_problem_has_the_line_of_its_place(self) -> None:
        """Or of the nearest thing around it that stands in the file."""
        entry, reader = read({"a": {}})
        entry.refuse("a", "x", "y")
        entry.refuse("b", "x", "y")
        reader.refuse("clusters[1].a", "x", "y")
        assert told(reader) == [
            ("clusters[0].a", "a.yaml:3"),
            ("clusters[0].b", "a.yaml:2"),
            ("clusters[1].a", "a.yaml:1"),
        ]

    @pytest.mark.parametrize("value", [None, "text", [1], 5])
    def test_what_is_no_mapping_is_refused_with_its_keys(self, value: object) -> None:
        """And read as an empty one."""
        entry, reader = read(value)
        assert entry.values == {}
        assert reader.problems[0].fix.endswith("the keys are a, b")

    def test_every_unknown_key_is_refused(self) -> None:
        """With what was meant, or what there is; a key that is no word stands only in the fact, on one line."""
        _, reader = read({"interval": 1, "intrval": 2, "x\n\x1b[2J": 3}, "interval", "timeout")
        assert [problem.setting for problem in reader.problems] == ["clusters[0].intrval", "clusters[0]"]
        assert [problem.fix for problem in reader.problems] == [
            "did you mean interval?",
            "the keys are interval, timeout",
        ]
        assert all(str(problem).isprintable() for problem in reader.problems)

    def test_number_of_items_is_bounded(self) -> None:
        """As many as the limit are read; of more, none."""
        _, reader = read({})
        assert reader.listed("clusters", "[1,2]", 2) == [("clusters[0]", 1), ("clusters[1]", 2)]
        assert reader.listed("clusters", "[1,2,3]", 2) == []
        assert [problem.fact for problem in reader.problems] == ["there are 3 entries, limit 2"]


class TestEntry:
    @pytest.mark.parametrize("value", ["7", 7, " 7 "])
    def test_single_value_is_read_as_text(self, value: object) -> None:
        """JSON has numbers where a YAML file has texts."""
        entry, reader = read({"a": value})
        assert entry.get("a", parse_count, 1) == 7
        assert entry.is_sound
        assert not reader.problems

    @pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), ("on", True), ("OFF", False)])
    def test_switch_may_be_the_one_of_json(self, value: object, expected: bool) -> None:
        """True is on."""
        entry, _ = read({"a": value})
        assert entry.is_on("a", default=not expected) is expected

    @pytest.mark.parametrize("value", [None, "", " ", [], {}, ["7"], {"b": 7}, "x"])
    def test_anything_else_is_a_problem_and_read_as_the_default(self, value: object) -> None:
        """Null too: a key whose value is commented out means nothing that could be relied on."""
        entry, reader = read({"a": value})
        assert entry.get("a", parse_count, 1) == 1
        assert not entry.is_sound
        assert told(reader) == [("clusters[0].a", "a.yaml:3")]

    def test_key_that_is_missing_is_the_default(self) -> None:
        """Unless it is required."""
        entry, reader = read({})
        assert entry.get("a", parse_count, 1) == 1
        assert entry.is_sound
        entry.require("a", "write it")
        assert [problem.fact for problem in reader.problems] == ["there is no a"]

    @pytest.mark.parametrize("value", ["", " a\n", "a"])
    def test_text_keeps_its_blanks(self, value: str) -> None:
        """A body is what stands there."""
        entry, _ = read({"a": value})
        assert entry.text("a") == value

    def test_text_may_be_a_number_and_is_never_a_list(self) -> None:
        """JSON has numbers; what is no text is a problem."""
        entry, reader = read({"a": 5, "b": ["x"]})
        assert entry.text("a") == "5"
        assert entry.text("b", "usual") == "usual"
        assert [problem.setting for problem in reader.problems] == ["clusters[0].b"]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("off", True), (" OFF ", True), (False, True), ("on", False), ({}, False), (None, False)],
    )
    def test_word_may_stand_in_place_of_a_mapping(self, value: object, expected: bool) -> None:
        """Whatever else stands there is for others to judge."""
        entry, reader = read({"a": value})
        assert entry.is_word("a", "off") is expected
        assert not reader.problems

    def test_keys_are_known_whatever_is_behind_them(self) -> None:
        """Also null."""
        entry, _ = read({"b": None, "a": 1}, "a", "b", "c")
        assert [entry.has(key) for key in "abc"] == [True, True, False]
        assert entry.given("a", "b", "c") == ["a", "b"]

    def test_one_value_stands_for_a_list(self) -> None:
        """Those of a list have numbers in their places."""
        entry, reader = read({"a": ["1", "x", 3], "b": "2"})
        assert entry.several("a", parse_count, 3) == (1, 3)
        assert entry.several("b", parse_count, 3) == (2,)
        assert [problem.setting for problem in reader.problems] == ["clusters[0].a[1]"]

    @pytest.mark.parametrize("value", [[], ["1"] * 4], ids=["empty", "too many"])
    def test_length_of_a_list_is_bounded(self, value: list[str]) -> None:
        """An empty one is a slip: it would be read as if it were not there."""
        entry, reader = read({"a": value})
        assert entry.several("a", parse_count, 3) == ()
        assert told(reader) == [("clusters[0].a", "a.yaml:3")]

    def test_rows_are_a_list(self) -> None:
        """One mapping alone has no number by which problems could call it."""
        entry, reader = read({"a": {"b": 1}, "b": [{"a": 1}]})
        assert entry.rows("a", 3) == []
        assert entry.rows("b", 3) == [("clusters[0].b[0]", {"a": 1})]
        assert entry.rows("c", 3) == []
        assert told(reader) == [("clusters[0].a", "a.yaml:3")]

    def test_name_stands_behind_its_key(self) -> None:
        """Without one there is the default."""
        assert read({"name": "x"}, "name")[0].name("usual") == "x"
        assert read({}, "name")[0].name("usual") == "usual"

    def test_problem_inside_counts_for_what_is_around_it(self) -> None:
        """Nothing is used of an entry that has a problem anywhere."""
        entry, _ = read({"a": {"c": 1}})
        entry.inner("a", ("b",))
        assert not entry.is_sound


class TestParsers:
    @pytest.mark.parametrize(
        ("parse", "text", "value"),
        [
            (entries.parse_name, "a/b_c.d-1", "a/b_c.d-1"),
            (entries.parse_name, "a" * 60, "a" * 60),
            (entries.parse_switch, "on", True),
            (entries.count_within(1, 128), "128", 128),
            (entries.parse_wait, "1ms", 0.001),
            (entries.parse_part, "0.25", 0.25),
            (entries.parse_part, "1", 1.0),
            (entries.parse_statuses, "401", (401, 401)),
            (entries.parse_statuses, "200-299", (200, 299)),
        ],
    )
    def test_documented_form_is_read(self, parse: Callable[[str], Any], text: str, value: object) -> None:
        """Each in its own form."""
        assert parse(text) == value

    @pytest.mark.parametrize(
        ("parse", "text"),
        [
            *((entries.parse_name, text) for text in ("", "-a", "a b", "a\n", "a" * 61, "ä", "a[0]")),
            *((entries.count_within(1, 128), text) for text in ("0", "129", "-1", "1.0")),
            *((entries.parse_wait, text) for text in ("0", "25h", "soon")),
            *((entries.parse_part, text) for text in ("1.1", "-0.1", ".5", "1e-1", "50%", "0.12345")),
            *((entries.parse_statuses, text) for text in ("299-200", "600", "20", "200-", "2xx", "99-100")),
        ],
    )
    def test_other_form_is_refused_in_one_line(self, parse: Callable[[str], Any], text: str) -> None:
        """Nothing is guessed, rounded or cut off."""
        with pytest.raises(UnitError) as caught:
            parse(text)
        assert str(caught.value).isprintable()
