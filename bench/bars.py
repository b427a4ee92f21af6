"""The bars that sidecar is held to: a figure may be at most so many times that of the peer one would use instead."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from bench.ratios import Spread
from bench.record import Record
from bench.rows import Figure, Row
from bench.table import REFERENCES, figure_title, format_ratio

OURS = "sidecar"


@attrs.frozen(kw_only=True)
class Bar:
    """One bar, and how far below or above it the run came; the median over the turns decides."""

    figure: Figure
    limit: float
    reference: str
    ratio: Spread

    @property
    def is_exceeded(self) -> bool:
        """Return whether sidecar takes more than it may."""
        return self.ratio.median > self.limit

    def __str__(self) -> str:
        """Return a line for the report."""
        verdict = "EXCEEDED" if self.is_exceeded else "met"
        return (
            f"{figure_title(self.figure)}: {format_ratio(self.ratio)} x {self.reference}, "
            f"at most {self.limit:.2f}: {verdict}"
        )


def judge_bars(rows: Sequence[Row], record: Record) -> list[Bar]:
    """Hold what was measured against the bars of *rows*; a ratio that a run does not have is not judged."""
    bars: list[Bar] = []
    for row in rows:
        reference = REFERENCES[row.mode][0]
        for figure in row.figures:
            ratio = record.ratio(figure.key, OURS, reference)
            if figure.bar is not None and ratio is not None:
                bars.append(Bar(figure=figure, limit=figure.bar, reference=reference, ratio=ratio))
    return bars
