"""Rules of `bench.report`: what stands around the table."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest

from bench.lab import Effort, Lab, RunningProxy
from bench.limits import Limit, Limits
from bench.peers import InstalledPeer
from bench.report import Report
from bench.rows import Figure, Outcome, Row
from bench.turns import Plan, Run

LIMITS = Limits(noise=0.0, limits=(Limit(figure="cpu", bound=3.0, reference="envoy"),))


def measure_nothing(_lab: Lab, _proxy: RunningProxy) -> Outcome:
    """Stand in for a measurement that a report never makes."""
    return Outcome({})


def report_on(*names: str) -> Report:
    """Return the report of a run on some proxies, of a row that hitch cannot do and that has a limit."""
    row = Row(
        name="requests-mtls",
        measure=measure_nothing,
        figures=(Figure("cpu", "CPU", "us"),),
        left_out={"hitch": "cannot"},
    )
    peers = [cast(InstalledPeer, SimpleNamespace(name=name, version="1.0")) for name in names]
    run = Run(
        plan=Plan(rows=[row], peers=peers, turns=1),
        lab=cast(Lab, SimpleNamespace(effort=Effort())),
        tell=lambda _line: None,
    )
    return Report(facts={}, absent=[], run=run, limits=LIMITS)


def report_with(*, ours: float) -> Report:
    """Return the report of a run in which Envoy needed 10 us."""
    report = report_on("sidecar", "envoy")
    report.run.record.add(1, "sidecar", {"cpu": ours})
    report.run.record.add(1, "envoy", {"cpu": 10.0})
    return report


class TestAsText:
    """`Report.as_text` says what the table does not show."""

    @pytest.mark.parametrize(
        ("names", "is_said"),
        [(("sidecar", "hitch"), True), (("sidecar",), False)],
        ids=["in-the-run", "not-in-the-run"],
    )
    def test_proxy_that_a_row_leaves_out_is_named_with_the_reason(self, names: tuple[str, ...], is_said: bool) -> None:
        """Nobody disappears from a table without a line, and nobody is mentioned who was not to be measured."""
        assert ("- requests-mtls: hitch cannot\n" in report_on(*names).as_text()) is is_said

    @pytest.mark.parametrize(("ours", "verdict"), [(30.0, "met"), (30.1, "EXCEEDED")], ids=["met", "exceeded"])
    def test_limit_stands_with_its_verdict(self, ours: float, verdict: str) -> None:
        """Nobody has to hold a table against a promise by hand."""
        assert f"at most 3.00: {verdict}\n" in report_with(ours=ours).as_text()

    def test_run_without_limits_has_no_list_of_them(self) -> None:
        """What was not measured on both is not judged."""
        assert "Limits" not in report_on("sidecar").as_text()


class TestAsJson:
    """`Report.as_json` has all that a program would judge by."""

    def test_limit_is_given_with_its_numbers(self) -> None:
        """The ratio that was measured, and the one that is allowed."""
        (limit,) = json.loads(report_with(ours=25.0).as_json())["limits"]
        assert limit == {
            "figure": "cpu",
            "reference": "envoy",
            "measured": 2.5,
            "bound": 3.0,
            "is_least": False,
            "is_exceeded": False,
        }


class TestAsGuardText:
    """`Report.as_guard_text` says what a short run can say."""

    def test_only_ratios_and_failures_are_shown(self) -> None:
        """An absolute time from a short run would be quoted."""
        report = report_with(ours=25.0)
        report.run.record.fail("nginx ended")
        text = report.as_guard_text()
        assert "| at most 3.00 x envoy |    2.50 |" in text
        assert "25.0" not in text
        assert text.endswith("Failed:\n- nginx ended\n")


class TestIsBad:
    """`Report.is_bad` decides the exit code."""

    @pytest.mark.parametrize(("ours", "is_bad"), [(30.0, False), (30.1, True)], ids=["met", "exceeded"])
    def test_exceeded_limit_is_bad(self, ours: float, is_bad: bool) -> None:
        """A limit that fails nothing is none."""
        assert report_with(ours=ours).is_bad is is_bad

    def test_failure_is_bad(self) -> None:
        """A figure that is missing is no success, however good the others are."""
        report = report_with(ours=1.0)
        report.run.record.fail("envoy ended")
        assert report.is_bad
