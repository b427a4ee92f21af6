"""Durations, counted by size."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BOUNDS: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the buckets, in seconds; what took longer is in one more."""

_FIRST_BOUND: Final = BOUNDS[0]


class Histogram:
    """
    Durations by size.

    Attributes:
        counts: How many fell between each of `BOUNDS` and the one before it; the last: above all of them.
        sum: All of them together, in seconds.
    """

    # Written out: mypyc compiles no decorated class, and every request adds to one (bench row `requests`).
    __slots__ = ("counts", "sum")

    def __init__(self, counts: list[int] | None = None, sum: float = 0.0) -> None:
        self.counts = [0] * (len(BOUNDS) + 1) if counts is None else counts
        self.sum = sum

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts and self.sum == other.sum

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Histogram({self.counts}, {self.sum})"

    def add(self, seconds: float) -> None:
        # Most requests take less than the first bound, and are spared the search.
        self.counts[0 if seconds <= _FIRST_BOUND else bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds
