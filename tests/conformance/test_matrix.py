"""`matrix` and `differences`: the words that verdicts are put in, and the table that they are compared with."""

from __future__ import annotations

import pytest

from tests.conformance import differences, matrix
from tests.conformance.lab import Verdict
from tests.conformance.origin import Seen
from tests.conformance.strict import read_all
from tests.support.cases import BEHIND

SENT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + BEHIND
EVIL = b"GET / HTTP/1.1\r\nHost: a\r\nX: evil\r\n\r\n"


def verdict(
    got: bytes = b"",
    *statuses: int,
    unfinished: tuple[bytes, ...] = (),
    malformed: tuple[bytes, ...] = (),
    is_closed: bool = False,
    next_client_is_well: bool = True,
) -> Verdict:
    return Verdict(
        seen=Seen(tuple(read_all(got)), unfinished, malformed),
        statuses=statuses,
        is_closed=is_closed,
        next_client_is_well=next_client_is_well,
        has_let_go=True,
    )


class TestWord:
    @pytest.mark.parametrize(
        ("word", "given"),
        [
            ("forwards", verdict(SENT, 200, 200)),
            ("forwards", verdict(SENT.replace(b" / ", b" http://a/ "), 200, 200)),
            ("forwards 1 of 2", verdict(SENT[: -len(BEHIND)], 200, is_closed=True)),
            ("refuses", verdict(b"", 400, is_closed=True)),
            ("refuses", verdict(is_closed=True)),
            ("cuts", verdict(b"", 400, unfinished=(b"GET",), is_closed=True)),
            ("waits", verdict()),
            ("waits", verdict(unfinished=(b"GET",))),
            ("answers", verdict(b"", 200)),
            ("mends", verdict(SENT + BEHIND, 200, 200, 200)),
            ("passes on", verdict(BEHIND, 400, 200, malformed=(b"rubbish",))),
            ("skips", verdict(BEHIND, 404, 200)),
            ("alters", verdict(SENT.replace(b"Host: a", b"Host: c"), 200, 200)),
            ("alters", verdict(SENT.replace(b" / ", b" /c "), 200, 200)),
            ("forwards 1 of 2 with evil", verdict(EVIL, 200, is_closed=True)),
            ("forwards, harms the next", verdict(SENT, 200, 200, next_client_is_well=False)),
        ],
    )
    def test_verdict_has_the_word_of_what_was_done(self, word: str, given: Verdict) -> None:
        """Each word stands for one way to treat what was sent."""
        assert matrix.word(given, SENT) == word

    def test_request_that_was_not_sent_is_mended(self) -> None:
        """Whatever is forwarded of bytes that are no request, the proxy has made of them."""
        assert matrix.word(verdict(SENT, 200, 200), b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n" + BEHIND) == "mends"


class TestPieces:
    @pytest.mark.parametrize(
        ("data", "pieces"),
        [
            (b"GET / HTTP/1.1\r\n\r\nhello", (b"GET / HTTP/1.1\r\n\r\n", b"hello")),
            (b"GET / HTTP/1.1\r\n\r\n", (b"GET / HTT", b"P/1.1\r\n\r\n")),
            (b"rubbish!", (b"rubb", b"ish!")),
        ],
    )
    def test_input_is_cut_behind_its_head(self, data: bytes, pieces: tuple[bytes, ...]) -> None:
        """The two pieces are the first head and the rest; where there is not both, two halves."""
        assert matrix.behind_head(data) == pieces


class TestTable:
    TEXT = """
- nginx 1.2.3

| Inputs | sidecar | nginx | haproxy | envoy | Why |
|---|---|---|---|---|---|
| `one` `coding b' ,'` | refuses | forwards | cuts or waits | refuses | Alone: for a reason. |
| `two*` | refuses | refuses | refuses | mends | as above |
"""

    def test_row_has_patterns_words_and_a_reason(self) -> None:
        """A row names inputs, the words of each proxy, and why, which may be what the row above it says."""
        table = differences.read(self.TEXT)

        assert table.versions == {"nginx": "1.2.3"}
        assert [row.patterns for row in table.rows] == [("one", "coding b' ,'"), ("two*",)]
        assert table.rows[0].words["haproxy"] == ("cuts", "waits")
        assert [(row.reason, row.is_alone) for row in table.rows] == [("Alone: for a reason.", True)] * 2

    def test_pattern_names_whole_ids(self) -> None:
        """Only a star stands for more than itself."""
        table = differences.read(self.TEXT)

        named = [input_id for input_id in ("one", "one more", "two", "two more") if table.rows_for(input_id)]
        assert named == ["one", "two", "two more"]
        assert table.unused_patterns(["one", "two more"]) == ["coding b' ,'"]

    def test_row_with_a_cell_too_few_is_found_out(self) -> None:
        """A row that cannot be read is no row that is passed over."""
        with pytest.raises(AssertionError):
            differences.read("| `one` | refuses | forwards | refuses | why |")
