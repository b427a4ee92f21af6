"""Rules of `bench.limits`: what may stand in the file, and when sidecar is beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import CannotRunError
from bench.lab import Lab, RunningProxy
from bench.limits import Limit, Limits, judge, parse_limits, read_limits
from bench.record import Record
from bench.rows import Figure, Outcome, Row

ENVOY_CPU = Limit(figure="cpu", bound=3.0, reference="envoy")
STATED = {
    "request_cpu_us": "at most 0.5 x envoy",
    "request_logged_mtls_cpu_us": "at most 0.6 x envoy",
    "full_connection_cpu_us": "at most 1.2 x envoy",
    "resumed_connection_cpu_us": "at most 1.2 x envoy",
    "download_cpu_ms": "at most 1.1 x envoy",
    "upload_cpu_ms": "at most 1.1 x envoy",
    "http2_request_cpu_us": "at most 3.0 x envoy",
    "http2_download_cpu_ms": "at most 1.5 x envoy",
    "http2_upload_cpu_ms": "at most 1.5 x envoy",
    "tcp_request_cpu_us": "at most 1.0 x stunnel",
    "paced_p50_us": "at most 1.0 x envoy",
    "paced_p99_us": "at most 1.0 x envoy",
    "memory_start_alone_mb": "at most 1.0 x envoy",
    "slow_readers_alone_mb": "at most 1.0 x envoy",
    "idle_connection_kb": "at most 1.0 x hitch",
    "idle_many_connection_kb": "at most 52.0",
    "start_answering_ms": "at most 2.0 x envoy",
    "workers_gain": "at least 1.8",
    "open_growth": "at most 1.15",
}


def measure_nothing(_lab: Lab, _proxy: RunningProxy) -> Outcome:
    """Stand in for a measurement that a limit never makes."""
    return Outcome({})


ROW = Row(name="http2", measure=measure_nothing, figures=(Figure("cpu", "CPU", "us"), Figure("gain", "gain", "ratio")))


def record_of(*ratios: float) -> Record:
    """Return a record with a turn for each ratio of sidecar to envoy; sidecar's gain is that ratio."""
    record = Record()
    for turn, ratio in enumerate(ratios):
        record.add(turn, "sidecar", {"cpu": 10.0 * ratio, "gain": ratio})
        record.add(turn, "envoy", {"cpu": 10.0})
    return record


def limits_of(*limits: Limit, noise: float = 0.0) -> Limits:
    """Return some limits."""
    return Limits(noise=noise, limits=limits)


class TestJudge:
    """`judge` holds sidecar's figures against their limits."""

    @pytest.mark.parametrize(
        ("ratios", "is_exceeded"),
        [((3.0,), False), ((3.01,), True), ((2.0, 2.9, 9.0), False), ((2.0, 3.1, 3.2), True)],
        ids=["at-the-limit", "just-over", "one-turn-over", "most-turns-over"],
    )
    def test_median_of_the_turns_decides(self, ratios: tuple[float, ...], is_exceeded: bool) -> None:
        """A single disturbed turn breaks no limit, and saves nobody."""
        (verdict,) = judge(limits_of(ENVOY_CPU), [ROW], record_of(*ratios))
        assert verdict.is_exceeded is is_exceeded
        assert ("EXCEEDED" in str(verdict)) is is_exceeded

    @pytest.mark.parametrize(
        ("value", "word"),
        [(3.0, "met"), (3.01, "within noise"), (3.29, "within noise"), (3.31, "EXCEEDED")],
    )
    def test_noise_is_a_part_of_the_most_that_may_be(self, value: float, word: str) -> None:
        """What is beyond the limit is said even where it is let pass."""
        (verdict,) = judge(limits_of(ENVOY_CPU, noise=0.1), [ROW], record_of(value))
        assert verdict.word == word

    @pytest.mark.parametrize(
        ("value", "word"),
        [(1.8, "met"), (1.79, "within noise"), (1.64, "within noise"), (1.63, "EXCEEDED")],
    )
    def test_noise_is_a_part_of_the_least_that_must_be(self, value: float, word: str) -> None:
        """A bound from below is missed by less, not by more."""
        limit = Limit(figure="gain", bound=1.8, is_least=True)
        (verdict,) = judge(limits_of(limit, noise=0.1), [ROW], record_of(value))
        assert verdict.word == word

    def test_line_has_fact_and_limit(self) -> None:
        """Whoever reads it need not look for the figure, nor for the limit."""
        limits = limits_of(ENVOY_CPU, Limit(figure="gain", bound=1.8, is_least=True))
        assert [str(verdict) for verdict in judge(limits, [ROW], record_of(2.5))] == [
            "CPU (us): 2.50 x envoy, at most 3.00: met",
            "gain (ratio): 2.50, at least 1.80: met",
        ]

    def test_figure_that_was_not_measured_on_both_is_not_judged(self) -> None:
        """A run without Envoy says nothing about what is stated in multiples of Envoy."""
        record = Record()
        record.add(1, "sidecar", {"cpu": 10.0})
        assert judge(limits_of(ENVOY_CPU), [ROW], record) == []


class TestReadLimits:
    """`read_limits` reads what the project states."""

    def test_limits_are_those_that_the_project_states(self) -> None:
        """To move a limit is to change what is promised."""
        found = {
            limit.figure: f"at {'least' if limit.is_least else 'most'} {limit.bound}"
            + (f" x {limit.reference}" if limit.reference else "")
            for limit in read_limits().limits
        }
        assert found == STATED

    @pytest.mark.parametrize("text", [None, "noise = ", "noise = 2.0\nlimit = []"], ids=["absent", "broken", "wrong"])
    def test_file_that_cannot_be_used_ends_the_run(self, tmp_path: Path, text: str | None) -> None:
        """A run without limits would find everything met."""
        path = tmp_path / "limits.toml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(CannotRunError, match=r"limits\.toml cannot be used"):
            read_limits(path)

    def test_long_run_allows_for_no_noise(self) -> None:
        """The median of its turns is what the promise is about."""
        assert read_limits().noise > 0
        assert read_limits().strict().noise == 0.0


class TestParseLimits:
    """`parse_limits` takes nothing for granted: a limit that is misread judges nothing."""

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"figure": "nonsense", "at_most": 1.0}, "no row has a figure 'nonsense'"),
            ({"at_most": 1.0}, "no row has a figure None"),
            ({"figure": "request_cpu_us"}, "at_most or at_least"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "at_least": 1.0}, "at_most or at_least"),
            ({"figure": "request_cpu_us", "at_most": "1"}, "a number above 0"),
            ({"figure": "request_cpu_us", "at_most": 0.0}, "a number above 0"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "off": "envoy"}, "unknown off"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "of": "apache"}, "no peer 'apache'"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "of": "sidecar"}, "no peer 'sidecar'"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "guard": "yes"}, "guard must be"),
            ({"figure": "request_cpu_us", "at_most": 1.0, "of": "hitch", "guard": True}, "a guard measures only"),
        ],
    )
    def test_entry_that_makes_no_sense_is_refused(self, entry: dict[str, Any], message: str) -> None:
        """The message names the figure and what is wrong with it."""
        with pytest.raises(ValueError, match=message):
            parse_limits({"noise": 0.1, "limit": [entry]})

    def test_second_limit_for_a_figure_is_refused(self) -> None:
        """One of them would be forgotten when the other is moved."""
        entry = {"figure": "request_cpu_us", "at_most": 1.0}
        with pytest.raises(ValueError, match="more than one limit for request_cpu_us"):
            parse_limits({"noise": 0.1, "limit": [entry, entry]})
