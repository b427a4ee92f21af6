"""What a run has measured so far, turn by turn, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from bench.ratios import Spread, paired_ratio, spread


@attrs.define
class Record:
    """
    Values by (figure key, proxy) and turn; `warnings` are doubts, `failures` missing values.

    A warning or failure that repeats over the turns is kept once. `foreign_shares` has an entry
    for each measurement during which others used the cores too much.
    """

    values: dict[tuple[str, str], dict[int, float]] = attrs.Factory(dict)
    warnings: list[str] = attrs.Factory(list)
    failures: list[str] = attrs.Factory(list)
    doubted: set[tuple[str, str]] = attrs.Factory(set)
    foreign_shares: list[float] = attrs.Factory(list)

    def add(self, turn: int, proxy: str, values: Mapping[str, float]) -> None:
        """Take the values of one measurement, by figure key."""
        for key, value in values.items():
            self.values.setdefault((key, proxy), {})[turn] = value

    def doubt(self, proxy: str, keys: Mapping[str, float], warning: str) -> None:
        """Mark the figures of one measurement as doubtful, and say why."""
        self.doubted.update((key, proxy) for key in keys)
        _append_once(self.warnings, warning)

    def disturb(self, proxy: str, keys: Mapping[str, float], share: float) -> None:
        """Mark the figures of one measurement as taken while others used *share* of the cores."""
        self.doubted.update((key, proxy) for key in keys)
        self.foreign_shares.append(share)

    def fail(self, failure: str) -> None:
        """Note that something could not be measured."""
        _append_once(self.failures, failure)

    def summary(self, key: str, proxy: str) -> Spread | None:
        """Return a figure of a proxy over all turns; None when it was never measured."""
        return spread(list(self.values.get((key, proxy), {}).values()))

    def ratio(self, key: str, proxy: str, reference: str) -> Spread | None:
        """Return a figure of a proxy as a multiple of the reference's, paired by turn."""
        theirs = self.values.get((key, reference), {})
        return paired_ratio(self.values.get((key, proxy), {}), theirs)


def _append_once(notes: list[str], note: str) -> None:
    """Append a note unless it is there already."""
    if note not in notes:
        notes.append(note)
