"""Medians, spreads and paired ratios of repeated measurements; pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import attrs


@attrs.frozen
class Spread:
    """A median with the smallest and the largest of the values it stands for."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """Summarise values; None when there are none."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values))


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """
    Summarise the ratios of two proxies turn by turn.

    A machine that is slower for a while is so for all proxies of that turn, so the ratio within
    a turn holds where a ratio of two medians would not.

    Args:
        ours: Values by turn.
        theirs: Values by turn; turns that only one side has are left out, and zeros too.

    Returns:
        The spread of ours / theirs; None without a common turn.
    """
    turns = [turn for turn in ours if theirs.get(turn)]
    return spread([ours[turn] / theirs[turn] for turn in turns])
