"""
How much other programs use the two cores while we measure on them.

On a shared machine somebody else's test run makes a figure wrong without any error; `bench.turns`
repeats a measurement that was disturbed, and marks it when it stays so.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import attrs

from bench.procfs import NANOSECONDS_PER_TICK, read_cpu_time

MAX_FOREIGN_SHARE = 0.1
MIN_TICKS = 40  # below this the coarseness of ticks alone looks like a disturbance


@attrs.frozen
class CoreTicks:
    """Clock ticks of some cores since the machine started: all, and those not idle."""

    total: int
    busy: int


@attrs.frozen
class Observation:
    """The cores, and the CPU time of this benchmark with all it started, at one moment."""

    ticks: CoreTicks
    own_ns: int


def parse_core_ticks(text: str, cores: Collection[int]) -> CoreTicks:
    """
    Add up the lines of `/proc/stat` for *cores*.

    Time that a hypervisor gave to others (steal) counts as busy: it is not ours to measure with.
    """
    names = {f"cpu{core}" for core in cores}
    lines = [fields for line in text.splitlines() if (fields := line.split()) and fields[0] in names]
    # user nice system idle iowait irq softirq steal; guest time is contained in user and nice.
    counts = [[int(field) for field in fields[1:9]] for fields in lines]
    total = sum(map(sum, counts))
    return CoreTicks(total=total, busy=total - sum(count[3] + count[4] for count in counts))


def observe(cores: Collection[int]) -> Observation:
    """Look at the cores now."""
    ticks = parse_core_ticks(Path("/proc/stat").read_text(), cores)
    return Observation(ticks, read_cpu_time(os.getpid()).run_ns)


def foreign_share(before: Observation, after: Observation) -> float:
    """
    Return the part of the cores' time that others used between two observations, 0 to 1.

    Observations less than `MIN_TICKS` of the cores apart say nothing and give 0.
    """
    total = after.ticks.total - before.ticks.total
    busy = after.ticks.busy - before.ticks.busy
    own = (after.own_ns - before.own_ns) / NANOSECONDS_PER_TICK
    return max(0.0, (busy - own) / total) if total >= MIN_TICKS else 0.0
