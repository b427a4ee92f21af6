"""`sidecar.wire.fields`: field lines kept as they came."""

from __future__ import annotations

import pytest

from sidecar.wire.fields import Fields

SECTION = b"Host: a\r\nX-One:1\r\nEMPTY:\r\nx-one: \t2 : 3\t \r\nList: b , C,, d\r\n"


class TestNames:
    def test_names_are_in_order_and_lower_case(self) -> None:
        """Every line gives a name, in lower case, in order, repeated ones too."""
        assert Fields(SECTION).names == [b"host", b"x-one", b"empty", b"x-one", b"list"]

    def test_no_lines_give_no_names(self) -> None:
        """An empty section has no names."""
        assert Fields(b"").names == []

    def test_only_ascii_has_a_case(self) -> None:
        """Octets above 0x7f in values stay as they are."""
        fields = Fields(b"X: \xc4\xe4\r\n")
        assert fields.values(b"x") == [b"\xc4\xe4"]
        assert fields.section == b"X: \xc4\xe4\r\n"


class TestValues:
    def test_values_of_all_lines_come_without_blanks_around(self) -> None:
        """All lines of a name count, in order; blanks and tabs around a value are not part of it."""
        assert Fields(SECTION).values(b"x-one") == [b"1", b"2 : 3"]
        assert Fields(SECTION).values(b"empty") == [b""]

    def test_name_that_is_not_there_has_no_values(self) -> None:
        """A name without a line has no values."""
        assert Fields(SECTION).values(b"x-two") == []

    def test_octets_that_end_lines_elsewhere_end_none_here(self) -> None:
        """Only CRLF ends a line: the line separators of Unicode and Latin-1 are part of a value."""
        fields = Fields(b"X: a\x85b\xe2\x80\xa8c\r\nY: d\r\n")
        assert fields.values(b"x") == [b"a\x85b\xe2\x80\xa8c"]
        assert fields.values(b"y") == [b"d"]
        assert fields.without({b"x"}) == b"Y: d\r\n"

    @pytest.mark.parametrize(
        ("name", "value"), [(b"host", b" a"), (b"x-one", b"1"), (b"empty", b""), (b"list", b" b , C,, d")]
    )
    def test_first_is_everything_behind_the_colon(self, name: bytes, value: bytes) -> None:
        """The first line of a name gives what stands behind its colon, blanks included."""
        assert Fields(SECTION).first(name) == value


class TestWithout:
    def test_unwanted_lines_go_and_the_others_stay_as_they_are(self) -> None:
        """Taking lines away changes no byte of the others."""
        assert Fields(SECTION).without({b"x-one", b"absent"}) == b"Host: a\r\nEMPTY:\r\nList: b , C,, d\r\n"

    def test_nothing_unwanted_changes_nothing(self) -> None:
        """Taking nothing away gives the section itself."""
        assert Fields(SECTION).without(frozenset()) == SECTION


class TestTokens:
    @pytest.mark.parametrize(
        ("section", "tokens"),
        [
            (b"C: a\r\n", [b"a"]),
            (b"C: A , b,C\r\n", [b"a", b"b", b"c"]),
            (b"C: a\r\nD: x\r\nc: b\r\n", [b"a", b"b"]),
            (b"C:\r\n", []),
            (b"C: , ,,\r\n", []),
            (b"C: \t a \t,\r\n", [b"a"]),
            (b"D: a\r\n", []),
        ],
    )
    def test_lines_are_read_as_one_list(self, section: bytes, tokens: list[bytes]) -> None:
        """All lines of a name are one list, in lower case, without empty members."""
        assert Fields(section).tokens(b"c") == tokens

    @pytest.mark.parametrize("value", [b"a b", b"a;b", b"a=b", b'"a"', b"a, b c", b"\xa0a", b"a\x85", b"(a)"])
    def test_member_that_is_no_token_makes_the_list_unreadable(self, value: bytes) -> None:
        """One member that is not a token makes the whole list none."""
        assert Fields(b"C: " + value + b"\r\n").tokens(b"c") is None


class TestIdentity:
    def test_equal_sections_are_equal(self) -> None:
        """Sections are equal when their bytes are."""
        assert Fields(SECTION) == Fields(SECTION)
        assert Fields(SECTION) != Fields(SECTION.lower())
        assert Fields(b"") != b""

    def test_section_is_no_key(self) -> None:
        """A section cannot be hashed."""
        with pytest.raises(TypeError):
            hash(Fields(b""))

    def test_repr_shows_the_lines(self) -> None:
        """What a section holds can be seen in a debugger."""
        assert repr(Fields(b"X: y\r\n")) == r"Fields(b'X: y\r\n')"
