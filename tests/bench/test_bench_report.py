"""Rules of `bench.report`: what stands around the table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from bench.lab import Effort, Lab, RunningProxy
from bench.peers import InstalledPeer
from bench.report import Report
from bench.rows import Figure, Outcome, Row
from bench.turns import Plan, Run


def measure_nothing(_lab: Lab, _proxy: RunningProxy) -> Outcome:
    """Stand in for a measurement that a report never makes."""
    return Outcome({})


def report_on(*names: str) -> str:
    """Return the report of a run on some proxies, of a row that hitch cannot do."""
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
    return Report(facts={}, absent=[], run=run).as_text()


class TestAsText:
    """`Report.as_text` says what the table does not show."""

    @pytest.mark.parametrize(
        ("names", "is_said"),
        [(("sidecar", "hitch"), True), (("sidecar",), False)],
        ids=["in-the-run", "not-in-the-run"],
    )
    def test_proxy_that_a_row_leaves_out_is_named_with_the_reason(self, names: tuple[str, ...], is_said: bool) -> None:
        """Nobody disappears from a table without a line, and nobody is mentioned who was not to be measured."""
        assert ("- requests-mtls: hitch cannot\n" in report_on(*names)) is is_said
