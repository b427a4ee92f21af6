"""Rules of `bench.bars`: when sidecar is over what it may take."""

from __future__ import annotations

import pytest

from bench.bars import judge_bars
from bench.lab import Lab, RunningProxy
from bench.record import Record
from bench.rows import ROWS, Figure, Outcome, Row


def measure_nothing(_lab: Lab, _proxy: RunningProxy) -> Outcome:
    """Stand in for a measurement that a bar never makes."""
    return Outcome({})


ROW = Row(
    name="http2",
    measure=measure_nothing,
    figures=(Figure("cpu", "CPU", "us", bar=3.0), Figure("rate", "rate", "1/s")),
)


def record_of(*ratios: float) -> Record:
    """Return a record with a turn for each ratio of sidecar to envoy."""
    record = Record()
    for turn, ratio in enumerate(ratios):
        for key in ("cpu", "rate"):
            record.add(turn, "sidecar", {key: 10.0 * ratio})
            record.add(turn, "envoy", {key: 10.0})
    return record


class TestJudgeBars:
    """`judge_bars` holds sidecar's figures against the peer of reference."""

    @pytest.mark.parametrize(
        ("ratios", "is_exceeded"),
        [((3.0,), False), ((3.01,), True), ((2.0, 2.9, 9.0), False), ((2.0, 3.1, 3.2), True)],
        ids=["at-the-bar", "just-over", "one-turn-over", "most-turns-over"],
    )
    def test_median_of_the_turns_decides(self, ratios: tuple[float, ...], is_exceeded: bool) -> None:
        """A single disturbed turn breaks no bar, and saves nobody."""
        (bar,) = judge_bars([ROW], record_of(*ratios))
        assert bar.is_exceeded is is_exceeded
        assert ("EXCEEDED" in str(bar)) is is_exceeded

    def test_line_has_fact_and_limit(self) -> None:
        """Whoever reads it need not look for the figure, nor for the bar."""
        (bar,) = judge_bars([ROW], record_of(2.5))
        assert str(bar) == "CPU (us): 2.50 x envoy, at most 3.00: met"

    def test_figure_that_was_not_measured_on_both_is_not_judged(self) -> None:
        """A run without Envoy says nothing about what is stated in multiples of Envoy."""
        record = Record()
        record.add(1, "sidecar", {"cpu": 10.0})
        assert judge_bars([ROW], record) == []

    def test_bars_are_those_that_the_project_states(self) -> None:
        """To move a bar is to change what is promised."""
        bars = {figure.key: figure.bar for row in ROWS for figure in row.figures if figure.bar is not None}
        assert bars == {"http2_request_cpu_us": 3.0, "http2_download_cpu_ms": 1.5, "http2_upload_cpu_ms": 1.5}
