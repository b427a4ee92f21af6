"""`sidecar.inject.jsonform`: JSON in, the same JSON out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.inject.jsonform import DEEPEST, read, write, write_short
from sidecar.inject.tree import FALSE, NULL, TRUE, InjectError, Plain

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


class TestRoundTrip:
    @given(VALUES)
    def test_values_stay_what_they_are(self, value: object) -> None:
        """What is written means what was read, over several lines or on one."""
        [tree] = read(json.dumps(value))
        assert json.loads(write(tree)) == value
        assert json.loads(write_short(tree)) == value

    @pytest.mark.parametrize("number", ["1.0", "1e400", "-0", "123456789012345678901234567890", "0.10"])
    def test_numbers_stay_as_they_are_written(self, number: str) -> None:
        """No number goes through a float."""
        assert read(number) == [Plain(number)]
        assert write(Plain(number)) == f"{number}\n"

    def test_words_are_those_of_yaml(self) -> None:
        """The same tree comes of both forms."""
        assert read("[null, true, false]") == [[NULL, TRUE, FALSE]]

    def test_it_looks_as_the_tools_write_it(self) -> None:
        """Four blanks a level, as kubectl and the AWS CLI have them, and nothing escaped that can be read."""
        text = '{"a": [1, {"b": {"c": "d"}}], "é": "ü"}'
        [tree] = read(text)
        assert write(tree) == json.dumps(json.loads(text), indent=4, ensure_ascii=False) + "\n"
        assert write({"a": [], "b": {}}) == '{\n    "a": [],\n    "b": {}\n}\n'

    def test_several_values_are_several_documents(self) -> None:
        """Objects that follow each other, as some tools print them, are read one by one."""
        assert read('{"a": 1}\n\n{"a": 2}\n') == [{"a": Plain("1")}, {"a": Plain("2")}]


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param('{"a": 1, "a": 1}', "the key 'a' stands twice in one object", id="key-twice"),
            pytest.param('{\n"a": \n}', "line 3: Expecting value in column 1", id="value"),
            pytest.param('{"a": "\n"}', "line 1: Invalid control character", id="line-feed-in-text"),
            pytest.param('{"a": NaN}', "NaN is not JSON", id="nan"),
            pytest.param('{"a": 1} x', "line 1: Expecting value", id="rest"),
        ],
    )
    def test_it_says_where(self, text: str, message: str) -> None:
        """An error names the line if the parser knows it."""
        with pytest.raises(InjectError) as caught:
            read(text)
        assert message in str(caught.value)

    @pytest.mark.parametrize(("levels", "fits"), [(DEEPEST - 1, True), (DEEPEST, False), (100_000, False)])
    def test_nesting_is_bounded(self, levels: int, fits: bool) -> None:
        """One level over the limit is an error, and so are so many that they would exhaust the stack."""
        text = "[" * levels + "1" + "]" * levels
        if fits:
            assert len(read(text)) == 1
        else:
            with pytest.raises(InjectError, match="nested deeper than 100 levels"):
                read(text)
