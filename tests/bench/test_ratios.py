"""Rules of `bench.ratios` and `bench.record`: medians, spreads, and ratios within a turn."""

from __future__ import annotations

import pytest

from bench.ratios import Spread, paired_ratio, spread
from bench.record import Record


class TestSpread:
    """`spread` summarises repeated values."""

    def test_median_low_and_high(self) -> None:
        """One outlier moves the spread, not the median."""
        assert spread([3.0, 1.0, 100.0]) == Spread(3.0, 1.0, 100.0)

    def test_nothing_has_no_spread(self) -> None:
        """Without values there is no summary."""
        assert spread([]) is None


class TestPairedRatio:
    """`paired_ratio` compares two proxies turn by turn."""

    def test_drift_of_the_machine_cancels(self) -> None:
        """A machine that gets slower changes both sides of a turn and leaves the ratio alone."""
        ours = {1: 10.0, 2: 20.0, 3: 40.0}
        theirs = {1: 20.0, 2: 40.0, 3: 80.0}
        assert paired_ratio(ours, theirs) == Spread(0.5, 0.5, 0.5)

    @pytest.mark.parametrize("theirs", [{}, {2: 5.0}, {1: 0.0}], ids=["never-measured", "other-turn", "zero"])
    def test_turn_that_one_side_lacks_is_left_out(self, theirs: dict[int, float]) -> None:
        """A ratio needs both values of one turn, and something to divide by."""
        assert paired_ratio({1: 10.0}, theirs) is None


class TestRecord:
    """`Record` keeps values by turn and notes once."""

    def test_ratio_uses_the_values_of_each_turn(self) -> None:
        """Values added by turn are paired by turn."""
        record = Record()
        record.add(1, "sidecar", {"cpu": 2.0})
        record.add(1, "envoy", {"cpu": 4.0})
        record.add(2, "sidecar", {"cpu": 9.0})
        assert record.ratio("cpu", "sidecar", "envoy") == Spread(0.5, 0.5, 0.5)
        assert record.summary("cpu", "sidecar") == Spread(5.5, 2.0, 9.0)

    def test_repeated_note_is_kept_once(self) -> None:
        """The same trouble in every turn is one line of the report."""
        record = Record()
        for _ in range(3):
            record.doubt("nginx", {"cpu": 1.0}, "nginx resumed nothing")
            record.fail("hitch did not start")
        assert record.warnings == ["nginx resumed nothing"]
        assert record.failures == ["hitch did not start"]
