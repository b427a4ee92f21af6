"""Renders a record as Markdown tables, one per mode, whose columns also line up on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bench.placement import Mode
from bench.ratios import Spread
from bench.record import Record
from bench.rows import Figure, Row

REFERENCES = {Mode.HTTP: ("envoy", "nginx"), Mode.GRPC: ("envoy", "nginx"), Mode.TCP: ("stunnel", "hitch")}
"""Whose figures all others are set in proportion to: those of what one would use instead."""

DOUBT_MARK = " (!)"
ABSENT = "-"


def render_tables(rows: Sequence[Row], proxies: Sequence[str], record: Record) -> list[str]:
    """Render a table for each mode that *rows* have, each with the ratios that mean something there."""
    groups = ((mode, [row for row in rows if row.mode is mode]) for mode in Mode)
    return [render_table(group, proxies, record, REFERENCES[mode]) for mode, group in groups if group]


def render_table(rows: Sequence[Row], proxies: Sequence[str], record: Record, references: Sequence[str]) -> str:
    """
    Render all figures of *rows*, one line per figure and proxy.

    Returns:
        A Markdown table, with a column of ratios for each of *references*. A figure's title stands
        on its first line only; doubtful values are marked, missing ones are a dash. A proxy that a
        row leaves out has no lines there.
    """
    lines = [["figure", "proxy", "median", "min - max", *(f"x {name}" for name in references)]]
    for row in rows:
        measured = [proxy for proxy in proxies if proxy not in row.left_out]
        for figure in row.figures:
            for index, proxy in enumerate(measured):
                title = figure_title(figure) if index == 0 else ""
                lines.append([title, *_figure_cells(figure, proxy, record, references)])
    return align(lines)


def figure_title(figure: Figure) -> str:
    """Return a figure's title with its unit, and its direction where that is not 'less'."""
    better = ", more is better" if figure.is_more_better else ""
    return f"{figure.title} ({figure.unit}{better})"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Render cells as a Markdown table, the first line as its header; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rendered = [_line(cells, widths) for cells in lines]
    marks = ["-" * width for width in widths[:2]]
    marks += ["-" * (width - 1) + ":" for width in widths[2:]]
    rendered.insert(1, _line(marks, widths))
    return "\n".join(rendered)


def format_ratio(ratio: Spread | None) -> str:
    """Format a ratio as `0.53 (0.51-0.56)`; without a spread when there is none."""
    if ratio is None:
        return ABSENT
    if ratio.low == ratio.high:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _figure_cells(figure: Figure, proxy: str, record: Record, references: Sequence[str]) -> list[str]:
    """Return a line's cells after the title."""
    ratios = [_ratio_cell(figure, proxy, name, record) for name in references]
    values = record.summary(figure.key, proxy)
    if values is None:
        return [proxy, ABSENT, ABSENT, *ratios]
    median, low, high = (f"{value:,.{figure.digits}f}" for value in (values.median, values.low, values.high))
    mark = DOUBT_MARK if (figure.key, proxy) in record.doubted else ""
    return [proxy, median + mark, f"{low} - {high}", *ratios]


def _ratio_cell(figure: Figure, proxy: str, reference: str, record: Record) -> str:
    """Return a figure's proportion to that of *reference*; a dash where that says nothing."""
    return ABSENT if figure.is_comparison else format_ratio(record.ratio(figure.key, proxy, reference))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Render one line; the first two columns are text, the others numbers."""
    padded = [
        cell.ljust(width) if index < 2 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
