"""`sidecar.policy.expressions`: regular expressions that no request can make slow."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.policy.conditions import ConditionError
from sidecar.policy.expressions import (
    LARGEST_PROGRAM,
    LONGEST_EXPRESSION,
    Expression,
    check_repetitions,
    literal_start,
)


class TestFits:
    @pytest.mark.parametrize(
        ("text", "path", "fits", "fits_without_case"),
        [
            ("/a/[0-9]+", b"/a/12", True, True),
            ("/a/[0-9]+", b"/a/12/x", False, False),
            ("/a/[0-9]+", b"x/a/12", False, False),
            ("/a/[0-9]+", b"/A/12", False, True),
            ("/Admin", b"/aDMIN", False, True),
            ("/a|/ab", b"/ab", True, True),
            ("/é.", "/éü".encode(), True, True),
            ("/é", "/É".encode(), False, True),
            ("/.", "/é".encode(), True, True),
            ("/.", b"/\xff", True, True),
            ("/a.c", b"/a\xffc", True, True),
            ("/a", b"/a\n", False, False),
        ],
    )
    def test_all_of_a_text_is_compared(self, text: str, path: bytes, fits: bool, fits_without_case: bool) -> None:
        """An expression fits a text as a whole; its characters are those of UTF-8, and odd octets are one each."""
        expression = Expression(text)
        assert (expression.fits(path), expression.fits_without_case(path)) == (fits, fits_without_case)

    def test_expressions_with_the_same_text_are_equal(self) -> None:
        """An expression is a value."""
        assert Expression("/a") == Expression("/a")
        assert repr(Expression("/a")) == "Expression(text='/a')"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("", "is empty"),
            ("/(a", "missing ): /(a"),
            ("/a)", "unexpected )"),
            ("/[z-a]", "invalid character class range: z-a"),
            ("/(?=a)", "no lookaround"),
            (r"/(a)\1", "no backreferences"),
            ("/a{1001}", "invalid repetition size"),
            ("/a\ud800", "characters that there are not"),
            ("/(\n", "does not compile"),
            (r"/\p{L}{20}", "instructions, limit 1,500"),
            (r"/\p{L}{900}", "too large"),
            ("/(a+)+", "(a+)+ or (.*)*"),
        ],
    )
    def test_what_is_no_safe_expression_is_refused(self, text: str, hint: str) -> None:
        """An expression that RE2 does not take, or that is too large, is an error, on one line, that says why."""
        with pytest.raises(ConditionError) as caught:
            Expression(text)
        assert hint in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_length_is_bounded(self) -> None:
        """An expression as long as the limit is taken, one character more is not."""
        longest = "/" + "a" * (LONGEST_EXPRESSION - 1)
        assert Expression(longest).fits(longest.encode())
        with pytest.raises(ConditionError, match="1,025 characters, limit 1,024"):
            Expression(longest + "a")

    def test_nothing_is_written_beside_the_log(self, capfd: pytest.CaptureFixture[str]) -> None:
        """RE2's own messages about wrong expressions stay unsaid: the error has them."""
        with pytest.raises(ConditionError):
            Expression("/(not seen before")
        assert capfd.readouterr() == ("", "")

    def test_segment_of_any_word_characters_is_not_too_large(self) -> None:
        """The largest expressions that operators have reason to write are within the limit."""
        assert Expression(r"/[\w.-]{1,255}").fits(b"/" + b"a" * 255)
        assert LARGEST_PROGRAM < 2000


class TestRepetitions:
    @pytest.mark.parametrize(
        "text",
        [
            "(a+)+",
            "(a*)*",
            "(.*)*",
            "(?:a+)*",
            "(?P<name>a+)*",
            "(?<name>a+)*",
            "((a+))+",
            "(a+?)+?",
            "(a{2,})+",
            "(a+){2,}",
            "(a*b*)*",
            "(a+b?)+",
            "(b?a+)*",
            "(x|a+)*",
            "(a+|)*",
            "([a-z]+\\.?)*",
            "([]a]+)*",
            "([[:alpha:])]+)*",
            r"(\w+\s?)*",
            r"(\x{61}+)*",
            r"(\p{L}+)*",
            r"(\pL+)*",
            r"(^a+$)*",
            r"(\ba+\b)*",
            r"(\Qa\E+)*",
            "a(^)*(b+)*",
            "(.*/)*",
            "(/.*)*",
            "(/.*x)+",
            "/a/((b|c+)+d)?",
            "((a+)?)*",
            "(?i)(a+)+",
            "((?i)a+)+",
        ],
    )
    def test_repetition_of_a_repetition_is_refused(self, text: str) -> None:
        """What is repeated endlessly must not be an endless repetition, whatever is around it that may be missing."""
        with pytest.raises(ConditionError, match="repeats endlessly what is repeated endlessly"):
            Expression(text)

    @pytest.mark.parametrize(
        "text",
        [
            "/.*",
            "(/[a-z]+)*",
            "([a-z]+/)+",
            "(?:/[^/]+)+/x",
            "/(a+)/(b+)",
            "(a+)?",
            "(a+){1,3}",
            "(a+){3}",
            "(.*){2}",
            "(ab*)+",
            "(a|b)+",
            "(a?)*",
            "/[(a+)+]+",
            r"/\(a+\)+",
            r"/(\Qa+\E)+",
            r"/(\Qab\E+)+",
            "/(^*a)+",
            "(?)/a(?i)+",
            "/a+b+",
            r"(a\+)+",
        ],
    )
    def test_other_repetitions_are_taken(self, text: str) -> None:
        """Segments in a row, bounded repetitions, and characters that only look like repetitions are ordinary."""
        assert Expression(text).text == text

    @given(st.text(alphabet="ab.*+?|(){}[]^$,\\2QE:i/", max_size=12))
    def test_every_expression_of_re2_can_be_looked_at(self, text: str) -> None:
        """Whatever RE2 accepts, looking at it ends in our error, or in nothing."""
        try:
            Expression(text)
        except ConditionError:
            return
        check_repetitions(text)
        assert len(literal_start(text)) <= len(text)


class TestLiteralStart:
    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("/api/.*", "/api/"),
            ("/api", "/api"),
            ("^/api/[0-9]", "/api/"),
            (r"\A/api", "/api"),
            (r"/a\.b/.*", "/a.b/"),
            ("/apis?", "/api"),
            ("/apis*", "/api"),
            ("/apis+", "/api"),
            ("/apis{2}", "/api"),
            ("/a(b)", "/a"),
            ("/a|/b", ""),
            ("/a(b|c)", ""),
            ("(?i)/a", ""),
            ("/ab(?i)*", "/a"),
            (r"/ab\Q\E*", "/a"),
            (r"/\x61", "/"),
            (".*", ""),
            ("/é/x", "/é/x"),
        ],
    )
    def test_start_is_what_is_plain(self, text: str, start: str) -> None:
        """Characters count as long as each of them must be there as it is."""
        assert literal_start(text) == start

    @given(
        st.lists(
            st.sampled_from(["/", "a", "b", ".", "\\.", "a?", "b*", "(a)", "[ab]", "a{2}", "^", "$", "(?i)", "*"]),
            max_size=6,
        ),
        st.text(alphabet="/ab.", max_size=6),
    )
    def test_whatever_fits_begins_with_it(self, pieces: list[str], path: str) -> None:
        """No text that does not begin with the start fits the expression."""
        text = "".join(pieces)
        assume(text)
        try:
            fits = Expression(text).fits(path.encode())
        except ConditionError:
            return
        assert not fits or path.startswith(literal_start(text))
