"""The report of a guard run: ratios only, each with its limit, since a short run says nothing of absolute times."""

from __future__ import annotations

from collections.abc import Sequence

from bench.limits import GUARD_PROXIES, OURS, Verdict
from bench.record import Record
from bench.table import ABSENT, align, figure_title, format_ratio

PEERS = tuple(name for name in GUARD_PROXIES if name != OURS)


def render_guard(verdicts: Sequence[Verdict], record: Record, noise: float) -> str:
    """Render a line per verdict: sidecar's figure in proportion to each peer's, what is allowed, and whether it is."""
    lines = [["figure", "limit", *(f"x {name}" for name in PEERS), "verdict"]]
    for verdict in verdicts:
        key = verdict.figure.key
        ratios = [ABSENT if verdict.figure.is_comparison else format_ratio(record.ratio(key, OURS, n)) for n in PEERS]
        limit = f"{verdict.allowed} {'x ' + verdict.limit.reference if verdict.limit.reference else ''}".rstrip()
        lines.append([figure_title(verdict.figure), limit, *ratios, verdict.word])
    return f"{align(lines)}\n\nA limit counts as exceeded when the median is beyond it by more than {noise:.0%}."
