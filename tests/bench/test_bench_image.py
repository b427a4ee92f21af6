"""Rules of `bench.image`: what is made of starts, and of the engine's times."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from bench.image import FIGURES, LIMITS, Size, Start, moment, render

START = Start(since_run=1.5, since_started=1.3, cpu=0.3, used_bytes=36_000_000, resident_bytes=54_000_000)


def cells(report: str) -> dict[tuple[str, str], list[str]]:
    """The cells of the table's lines, by figure and image."""
    found = {}
    figure = ""
    for line in report.splitlines():
        if line.startswith("| "):
            title, name, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            figure = title or figure
            found[figure, name] = rest
    return found


class TestRender:
    def test_shows_medians_spreads_and_ratios_of_the_same_turn(self) -> None:
        """The machine is slower in the second turn, for both: the ratio is the same in each."""
        ours = {1: START, 2: attrs.evolve(START, cpu=0.6), 3: attrs.evolve(START, cpu=0.36)}
        theirs = {turn: attrs.evolve(start, cpu=start.cpu / 2) for turn, start in ours.items()}
        table = cells(render({}, {"sidecar": ours, "envoy": theirs}, {}))
        assert table["CPU until then (ms)", "sidecar"] == ["360", "300 - 600", "2.00"]
        assert table["CPU until then (ms)", "envoy"] == ["180", "150 - 300", "1.00"]

    def test_shows_every_figure_in_its_unit(self) -> None:
        """Times in milliseconds, memory in megabytes of 1,000,000 bytes."""
        table = cells(render({}, {"sidecar": {1: START}}, {}))
        assert [table[figure.title, "sidecar"][0] for figure in FIGURES] == ["1,500", "1,300", "300", "36.0", "54.0"]

    def test_without_a_reference_there_are_no_ratios(self) -> None:
        """Envoy may not be installed."""
        table = cells(render({}, {"sidecar": {1: START}}, {"sidecar": Size(85_000_000, 31_000_000)}))
        assert table["CPU until then (ms)", "sidecar"][-1] == "-"
        assert table["size unpacked (MB)", "sidecar"] == ["85", "", "-"]

    def test_sizes_are_beside_the_references(self) -> None:
        """Each image has one size, whatever it was started with."""
        sizes = {"sidecar": Size(80_000_000, 30_000_000), "envoy": Size(160_000_000, 40_000_000)}
        table = cells(render({}, {name: {1: START} for name in sizes}, sizes))
        assert table["size unpacked (MB)", "sidecar"] == ["80", "", "0.50"]
        assert table["size compressed (MB)", "sidecar"] == ["30", "", "0.75"]

    def test_says_how_it_came_about(self) -> None:
        """A figure without its machine and its limits says nothing."""
        report = render({"CPU": "one"}, {"sidecar": {1: START}}, {})
        assert "- CPU: one" in report
        assert " ".join(LIMITS) in report


class TestMoment:
    @pytest.mark.parametrize(
        ("text", "microsecond"),
        [
            ("2026-11-23T13:35:32.431560098Z", 431560),
            ("2026-11-23T13:35:32.5Z", 500000),
            ("2026-11-23T13:35:32Z", 0),
        ],
        ids=["nanoseconds", "trailing zeros cut", "whole seconds"],
    )
    def test_reads_the_engines_times(self, text: str, microsecond: int) -> None:
        """They have as many digits as they need."""
        expected = datetime(2026, 11, 23, 13, 35, 32, microsecond, tzinfo=UTC).timestamp()
        assert moment(text) == pytest.approx(expected, abs=1e-6)
