"""`observe.escaping`: what a client chose stays inside its place, and can be read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.escaping import MAX_VALUE_BYTES, escape, quoted, quoted_repeating, shown

HOSTILE = 'a" b\\ \n\r\t\0\x1b[31m\x7f\x85\N{LINE SEPARATOR}\N{RIGHT-TO-LEFT OVERRIDE}\ud800é\N{PILE OF POO}|'


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            pytest.param(b"plain", "plain", id="ASCII"),
            pytest.param("é".encode(), "é", id="UTF-8"),
            pytest.param(b"\xff\x80a", "\\xff\\x80a", id="not UTF-8"),
            pytest.param("é".encode() * 200, "é" * 128, id="cut between characters"),
            pytest.param(b"a" + "é".encode() * 200, "a" + "é" * 127 + "\\xc3", id="cut inside a character"),
        ],
    )
    def test_bytes_become_text(self, value: bytes, text: str) -> None:
        """Every byte is accounted for, up to the limit."""
        assert shown(value) == text

    def test_limit_is_in_bytes(self) -> None:
        """Exactly so many are shown, and not one more."""
        assert shown(b"z" * MAX_VALUE_BYTES) == "z" * MAX_VALUE_BYTES
        assert shown(b"z" * (MAX_VALUE_BYTES + 1)) == "z" * MAX_VALUE_BYTES
        assert shown(b"abc", 2) == "ab"


class TestQuoted:
    @given(st.text())
    def test_json_reads_the_value_back(self, text: str) -> None:
        """One line of printable ASCII holds any text."""
        written = quoted(text)
        assert json.loads(written) == text
        assert written.isascii()
        assert written.isprintable()

    @given(st.binary(max_size=40))
    def test_repeating_values_are_written_the_same(self, value: bytes) -> None:
        """To remember a value changes nothing."""
        assert quoted_repeating(value) == quoted(shown(value)) == quoted_repeating(value)


class TestEscape:
    @given(st.text())
    def test_value_stays_between_its_quotes(self, text: str) -> None:
        """Between double quotes, a value is the inside of a JSON string."""
        written = escape("")(text)
        assert json.loads(f'"{written}"') == text
        assert '"' not in written.replace('\\"', "")

    @given(st.text(alphabet=st.sampled_from(HOSTILE) | st.characters()))
    def test_value_stays_in_its_column(self, text: str) -> None:
        """Outside quotes, a value holds none of the characters that end it there, and still reads back."""
        written = escape(" |")(text)
        assert not set(written) & {" ", "|"}
        assert json.loads(f'"{written}"') == text
        assert written.isascii()
        assert written.isprintable()
