"""`observe.logsyntax`: access log formats are read as Envoy reads them, or refused with the place of the slip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.logsyntax import LARGEST_LIMIT, LONGEST_FORMAT, MOST_OPERATORS, Command, FormatError, parse


def commands(text: str) -> list[Command]:
    return [part for part in parse(text) if isinstance(part, Command)]


class TestParse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("%A%", Command("A", None, None, 0, " ")),
            ("%A()%", Command("A", "", None, 0, " ")),
            ("%REQ(X?Y):10%", Command("REQ", "X?Y", 10, 0, " ")),
            ("%START_TIME(%Y/%m %s.%3f)%", Command("START_TIME", "%Y/%m %s.%3f", None, 0, " ")),
            ("%REQ(:METHOD)%", Command("REQ", ":METHOD", None, 0, " ")),
            (f"%A:{LARGEST_LIMIT}%", Command("A", None, LARGEST_LIMIT, 0, " ")),
            ("%lower%", Command("lower", None, None, 0, " ")),
        ],
    )
    def test_operator_is_read(self, text: str, expected: Command) -> None:
        """Name, argument and limit, each as written."""
        assert parse(text) == ["", expected, ""]

    @pytest.mark.parametrize(
        ("text", "literals"),
        [
            ("plain", ["plain"]),
            ("%%", ["%"]),
            ("%%A%%", ["%A%"]),
            ("100%%%A%%%", ["100%", "%"]),
            ("a%A%b%B%", ["a", "b", ""]),
            ("%A%%B%", ["", "", ""]),
            ("é %A%", ["é ", ""]),
        ],
    )
    def test_text_around_operators_stays(self, text: str, literals: list[str]) -> None:
        """Two percent signs are one, and operators may touch."""
        assert [part for part in parse(text) if isinstance(part, str)] == literals

    @pytest.mark.parametrize("end", ["\n", "\\n"])
    def test_newline_at_the_end_is_optional(self, end: str) -> None:
        """Envoy's formats end in one, and an environment variable may hold it written out."""
        assert parse("%A%" + end) == parse("%A%")

    def test_position_is_that_of_the_percent_sign(self) -> None:
        """Errors found later point there too."""
        assert [command.position for command in commands('%A% "%B%"')] == [0, 5]


class TestSeparators:
    @pytest.mark.parametrize(
        ("text", "separators"),
        [
            pytest.param("%A%", [" "], id="bare"),
            pytest.param('"%A%"', [""], id="quoted"),
            pytest.param('"a %A% b %B%" %C%', ["", "", " "], id="several in quotes"),
            pytest.param('"" %A%', [" "], id="after empty quotes"),
            pytest.param("%A%|%B%|%C%", [" |", " |", " |"], id="columns"),
            pytest.param("[%A%] (%B%);%C%", [" []", " ()", " ;"], id="brackets"),
            pytest.param("a=%A% %B%/%C%", [" ", " ", " "], id="no separators"),
            pytest.param('{"a":"%A%","b":%B%}', ["", " }"], id="JSON"),
        ],
    )
    def test_what_ends_a_value_is_known(self, text: str, separators: list[str]) -> None:
        """Outside quotes a blank ends it, and what stands beside it; inside, only the quote does."""
        assert [command.separators for command in commands(text)] == separators


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "position", "fact"),
        [
            pytest.param("", 0, "the format is empty", id="empty"),
            pytest.param("\n", 0, "the format is empty", id="only a newline"),
            pytest.param("a %", 2, "this % begins no operator", id="percent sign at the end"),
            pytest.param("100% of %A%", 3, "this % begins no operator", id="percent sign for itself"),
            pytest.param("%A% %B", 4, "this % begins no operator", id="no end"),
            pytest.param("%REQ(X%", 0, "this % begins no operator", id="bracket without end"),
            pytest.param("%REQ(X))%", 0, "this % begins no operator", id="bracket too many"),
            pytest.param("%REQ(X)Y%", 0, "this % begins no operator", id="text behind the bracket"),
            pytest.param("%Ä%", 0, "this % begins no operator", id="no ASCII name"),
            pytest.param("%A:0%", 3, "'0' is no limit for a value", id="limit 0"),
            pytest.param("%A:%", 3, "'' is no limit for a value", id="empty limit"),
            pytest.param("%A:x%", 3, "'x' is no limit for a value", id="limit that is no number"),
            pytest.param(f"%A:{LARGEST_LIMIT + 1}%", 3, "'1025' is no limit for a value", id="limit too large"),
            pytest.param("%A%\n%B%", 3, "the format holds '\\n'", id="newline inside"),
            pytest.param("%A%\t%B%", 3, "the format holds '\\t'", id="tab"),
            pytest.param("\x1b[1m%A%", 0, "the format holds '\\x1b'", id="terminal escape"),
            pytest.param("%A%\n\n", 3, "the format holds '\\n'", id="two newlines at the end"),
            pytest.param("a" * (LONGEST_FORMAT + 1), LONGEST_FORMAT, "the format has 4,097 characters", id="long"),
            pytest.param("%A%" * (MOST_OPERATORS + 1), 0, "the format has 65 operators, limit 64", id="operators"),
        ],
    )
    def test_slip_is_pointed_at(self, text: str, position: int, fact: str) -> None:
        """The error says where it is, what it is and what to write."""
        with pytest.raises(FormatError) as caught:
            parse(text)
        assert caught.value.position == position
        assert caught.value.fact.startswith(f"at character {position + 1}: {fact}")
        assert caught.value.fix

    def test_errors_found_later_point_at_the_operator(self) -> None:
        """Or at a place in it."""
        (command,) = commands("a %REQ(X)%")
        assert str(command.error("this", "write that")) == "at character 3: this; write that"
        assert command.error("this", "write that", 5).position == 7

    def test_limits_themselves_are_allowed(self) -> None:
        """One less than too much is not too much."""
        assert len(commands("%A%" * MOST_OPERATORS)) == MOST_OPERATORS
        assert parse("a" * LONGEST_FORMAT) == ["a" * LONGEST_FORMAT]

    @given(st.text(alphabet=st.sampled_from('%AREQ(X?:9)" |\\n\n')))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """Texts and operators alternate, and no other error comes out."""
        try:
            parts = parse(text)
        except FormatError:
            return
        assert [isinstance(part, str) for part in parts] == [index % 2 == 0 for index in range(len(parts))]
