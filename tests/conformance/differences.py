"""
The table in `differences.md`: in what the proxies differ, and why.

An input that no row names is treated alike by all of them. One that a row names is treated as the row says, word for
word (`matrix.word`): so an explanation that is not true any more is found out as a difference that has none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.conformance.proxies import NAMES

FILE: Final = Path(__file__).with_name("differences.md")

ALONE: Final = "Alone:"
"""How the reason begins where we forward what two peers refuse."""


@attrs.frozen
class Row:
    """
    One kind of difference.

    Attributes:
        patterns: Ids of inputs; «*» stands for anything.
        words: What each proxy does, by name; several where it is not always the same.
        reason: Why ours is right.
    """

    patterns: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    reason: str

    @property
    def is_alone(self) -> bool:
        """Whether it excuses us for forwarding what two peers refuse."""
        return self.reason.startswith(ALONE)


@attrs.frozen
class Table:
    """
    All of it.

    Attributes:
        versions: Of the peers, by name, that the rows were made with.
    """

    rows: tuple[Row, ...]
    versions: Mapping[str, str]

    def rows_for(self, input_id: str) -> list[Row]:
        """The rows that name an input."""
        return [row for row in self.rows if any(matches(pattern, input_id) for pattern in row.patterns)]

    def unused_patterns(self, ids: Collection[str]) -> list[str]:
        """What names no input."""
        patterns = [pattern for row in self.rows for pattern in row.patterns]
        return [pattern for pattern in patterns if not any(matches(pattern, input_id) for input_id in ids)]


def read(text: str) -> Table:
    """
    Read the Markdown: a line «- nginx 1.2.3» per peer, and a table row per difference.

    A row has ids in backquotes, then the words of each proxy, joined by «or» if there are several, then the reason,
    which may be «as above».
    """
    versions = dict(re.findall(r"^- (\w+) (\S+)$", text, re.MULTILINE))
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert all(len(cells) == len(NAMES) + 2 for cells in lines), "a row of differences.md has another number of cells"
    rows: list[Row] = []
    for ids, *words, reason in lines:
        row = Row(
            patterns=tuple(re.findall(r"`([^`]+)`", ids)),
            words=dict(zip(NAMES, (tuple(cell.strip().split(" or ")) for cell in words), strict=True)),
            reason=rows[-1].reason if reason.strip() == "as above" else reason.strip(),
        )
        rows.append(row)
    return Table(tuple(rows), versions)


def matches(pattern: str, input_id: str) -> bool:
    """Whether a pattern of ids names *input_id*; «*» stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), input_id) is not None
