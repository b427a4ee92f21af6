"""Rules of `bench.guard`: what a short run shows."""

from __future__ import annotations

from bench.guard import render_guard
from bench.limits import Limit, Verdict
from bench.ratios import Spread
from bench.record import Record
from bench.rows import Figure

CPU = Figure("cpu", "CPU", "us")
GROWTH = Figure("growth", "growth", "ratio", is_comparison=True)


class TestRenderGuard:
    """`render_guard` writes one line per limit."""

    def test_line_has_both_ratios_the_limit_and_the_verdict(self) -> None:
        """A figure that is itself a proportion has none to others."""
        record = Record()
        for proxy, value in (("sidecar", 6.0), ("envoy", 10.0), ("nginx", 5.0)):
            record.add(1, proxy, {"cpu": value, "growth": value})
        verdicts = [
            Verdict(
                figure=CPU,
                limit=Limit(figure="cpu", bound=0.5, reference="envoy"),
                noise=0.1,
                measured=Spread(0.6, 0.6, 0.6),
            ),
            Verdict(
                figure=GROWTH, limit=Limit(figure="growth", bound=1.15), noise=0.1, measured=Spread(1.16, 1.1, 1.2)
            ),
        ]
        header, _, *lines = render_guard(verdicts, record, 0.1).splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines[:2])]
        assert cells == [
            ["figure", "limit", "x envoy", "x nginx", "verdict"],
            ["CPU (us)", "at most 0.50 x envoy", "0.60", "1.20", "EXCEEDED"],
            ["growth (ratio)", "at most 1.15", "-", "-", "within noise"],
        ]
        assert lines[-1] == "A limit counts as exceeded when the median is beyond it by more than 10%."
