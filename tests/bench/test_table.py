"""Rules of `bench.table`: how a record becomes a table."""

from __future__ import annotations

import attrs
import pytest

from bench.lab import Lab, RunningProxy
from bench.peers import PEERS
from bench.placement import Mode
from bench.ratios import Spread
from bench.record import Record
from bench.rows import ROWS, Figure, Outcome, Row
from bench.table import REFERENCES, align, figure_title, format_ratio, render_table, render_tables


def measure_nothing(_lab: Lab, _proxy: RunningProxy) -> Outcome:
    """Stand in for a measurement that a table never makes."""
    return Outcome({})


ENVOY_NGINX = ("envoy", "nginx")
ROW = Row(name="requests", measure=measure_nothing, figures=(Figure("cpu", "CPU", "us"),))


def make_record() -> Record:
    """Return two turns of sidecar and envoy."""
    record = Record()
    for turn, ours, theirs in ((1, 30.0, 60.0), (2, 33.0, 60.0)):
        record.add(turn, "sidecar", {"cpu": ours})
        record.add(turn, "envoy", {"cpu": theirs})
    return record


def cells_of(table: str) -> list[list[str]]:
    """Return the cells of a rendered table, stripped."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


class TestRenderTable:
    """`render_table` writes one line per figure and proxy."""

    def test_values_stand_with_spread_and_ratios(self) -> None:
        """Median, spread, ratio to each reference; a dash where there is no reference."""
        lines = cells_of(render_table([ROW], ["sidecar", "envoy"], make_record(), ENVOY_NGINX))
        assert lines[0] == ["figure", "proxy", "median", "min - max", "x envoy", "x nginx"]
        assert lines[2:] == [
            ["CPU (us)", "sidecar", "31.5", "30.0 - 33.0", "0.53 (0.50-0.55)", "-"],
            ["", "envoy", "60.0", "60.0 - 60.0", "1.00", "-"],
        ]

    def test_missing_value_is_a_dash(self) -> None:
        """A proxy that could not be measured keeps its line."""
        lines = cells_of(render_table([ROW], ["hitch"], make_record(), ENVOY_NGINX))
        assert lines[2] == ["CPU (us)", "hitch", "-", "-", "-", "-"]

    def test_proxy_that_a_row_leaves_out_has_no_line(self) -> None:
        """The title moves to the first proxy that was measured; other rows are not affected."""
        row = attrs.evolve(ROW, left_out={"sidecar": "cannot"})
        lines = cells_of(render_table([row, ROW], ["sidecar", "envoy"], make_record(), ENVOY_NGINX))
        assert [line[:2] for line in lines[2:]] == [["CPU (us)", "envoy"], ["CPU (us)", "sidecar"], ["", "envoy"]]

    def test_comparison_has_no_ratios(self) -> None:
        """A ratio of differences says nothing, least of all when one is negative."""
        row = attrs.evolve(ROW, figures=(Figure("cpu", "difference", "us", is_comparison=True),))
        lines = cells_of(render_table([row], ["sidecar", "envoy"], make_record(), ENVOY_NGINX))
        assert [line[-2:] for line in lines[2:]] == [["-", "-"], ["-", "-"]]

    def test_doubtful_value_is_marked(self) -> None:
        """A value with a warning cannot be read without seeing that."""
        record = make_record()
        record.doubt("envoy", {"cpu": 60.0}, "envoy: nothing resumed")
        lines = cells_of(render_table([ROW], ["sidecar", "envoy"], record, ENVOY_NGINX))
        assert [line[2] for line in lines[2:]] == ["31.5", "60.0 (!)"]


class TestRenderTables:
    """`render_tables` keeps apart what cannot be compared."""

    def test_each_mode_has_a_table_with_its_own_references(self) -> None:
        """Who forwards requests is set beside who forwards requests, who moves bytes beside who moves bytes."""
        record = make_record()
        record.add(1, "stunnel", {"cpu": 40.0})
        relayed = attrs.evolve(ROW, name="tcp-requests", mode=Mode.TCP)
        tables = [cells_of(table) for table in render_tables([relayed, ROW], ["sidecar", "envoy"], record)]
        assert [table[0][-2:] for table in tables] == [["x envoy", "x nginx"], ["x stunnel", "x hitch"]]
        assert [table[2][-2:] for table in tables] == [["0.53 (0.50-0.55)", "-"], ["0.75", "-"]]

    def test_mode_without_rows_has_no_table(self) -> None:
        """A table of nothing but its header would say that something is missing."""
        assert len(render_tables([ROW], ["sidecar"], make_record())) == 1


class TestAlign:
    """`align` pads cells into a Markdown table."""

    def test_all_lines_have_one_width(self) -> None:
        """Text is flush left, numbers flush right, and all bars stand in columns."""
        assert align([["a", "proxy", "n"], ["long", "x", "1,000"]]).splitlines() == [
            "| a    | proxy |     n |",
            "| ---- | ----- | ----: |",
            "| long | x     | 1,000 |",
        ]


class TestFormatRatio:
    """`format_ratio` shows a ratio with its spread."""

    @pytest.mark.parametrize(
        ("ratio", "expected"),
        [
            (None, "-"),
            (Spread(1.0, 1.0, 1.0), "1.00"),
            (Spread(0.525, 0.5, 0.56), "0.53 (0.50-0.56)"),
        ],
        ids=["absent", "no-spread", "spread"],
    )
    def test_ratio_is_formatted(self, ratio: Spread | None, expected: str) -> None:
        """Two digits; a spread only where there is one."""
        assert format_ratio(ratio) == expected


class TestFigures:
    """The catalogue of rows is consistent."""

    def test_keys_and_names_are_unique(self) -> None:
        """Two figures with one key would overwrite each other's values."""
        keys = [figure.key for row in ROWS for figure in row.figures]
        names = [row.name for row in ROWS]
        assert len(set(keys)) == len(keys)
        assert len(set(names)) == len(names)

    def test_proxies_left_out_are_known(self) -> None:
        """A name that is no proxy's would leave nobody out."""
        left_out = {name for row in ROWS for name in row.left_out}
        assert left_out
        assert left_out <= {peer.name for peer in PEERS}

    def test_references_are_measured(self) -> None:
        """A reference that is no proxy's name, or that rows leave out, would leave a column empty."""
        for mode, names in REFERENCES.items():
            rows = [row for row in ROWS if row.mode is mode]
            assert set(names) <= {peer.name for peer in PEERS}
            assert not any(name in row.left_out for row in rows for name in names)

    def test_title_says_when_more_is_better(self) -> None:
        """Less is better unless the title says otherwise."""
        assert figure_title(Figure("k", "rate", "1/s", is_more_better=True)) == ("rate (1/s, more is better)")
