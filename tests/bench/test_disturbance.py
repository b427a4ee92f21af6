"""Rules of `bench.disturbance`: what counts as somebody else's use of the cores."""

from __future__ import annotations

import pytest

from bench.disturbance import CoreTicks, Observation, foreign_share, parse_core_ticks
from bench.procfs import NANOSECONDS_PER_TICK

STAT = """\
cpu  30 0 30 300 3 0 0 6 5 5
cpu0 10 0 10 100 1 0 0 2 5 5
cpu1 10 0 10 100 1 0 0 2 0 0
cpu2 10 0 10 100 1 0 0 2 0 0
intr 12345
"""


class TestParseCoreTicks:
    """`parse_core_ticks` reads /proc/stat."""

    def test_only_the_cores_in_use_count(self) -> None:
        """Idle and waiting for disks is not busy, steal is; guest time is not counted twice."""
        assert parse_core_ticks(STAT, (0, 2)) == CoreTicks(total=246, busy=44)


class TestForeignShare:
    """`foreign_share` compares two observations."""

    def test_our_own_time_is_not_foreign(self) -> None:
        """Of 200 ticks on the cores 150 were busy, 110 of them ours: 40 are foreign."""
        before = Observation(CoreTicks(total=1000, busy=500), own_ns=7)
        after = Observation(CoreTicks(total=1200, busy=650), own_ns=7 + 110 * NANOSECONDS_PER_TICK)
        assert foreign_share(before, after) == pytest.approx(0.2)

    def test_rounding_never_makes_it_negative(self) -> None:
        """Ticks are coarse: when our time comes out above the cores', nothing is foreign."""
        before = Observation(CoreTicks(total=1000, busy=500), own_ns=0)
        after = Observation(CoreTicks(total=1100, busy=550), own_ns=51 * NANOSECONDS_PER_TICK)
        assert foreign_share(before, after) == 0.0

    @pytest.mark.parametrize("ticks", [0, 3], ids=["none", "few"])
    def test_too_few_ticks_have_no_share(self, ticks: int) -> None:
        """Two observations within a few ticks say nothing."""
        before = Observation(CoreTicks(total=1000, busy=500), own_ns=0)
        after = Observation(CoreTicks(total=1000 + ticks, busy=500 + ticks), own_ns=0)
        assert foreign_share(before, after) == 0.0
