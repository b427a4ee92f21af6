"""What sidecar is held to: `limits.toml`, read and checked, and how far a run came from each of its bounds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.errors import CannotRunError
from bench.peers import PEERS
from bench.ratios import Spread
from bench.record import Record
from bench.rows import ROWS, Figure, Row
from bench.table import figure_title, format_ratio

LIMITS_PATH = Path(__file__).with_name("limits.toml")
OURS = "sidecar"
GUARD_PROXIES = (OURS, "envoy", "nginx")
KEYS = {"figure", "at_most", "at_least", "of", "guard"}


@attrs.frozen(kw_only=True)
class Limit:
    """
    One bound of one figure.

    Attributes:
        figure: Its key.
        bound: How much of it is allowed: so many times what *reference* has, or of its own unit without one.
        is_least: Whether it is the least that must be, and not the most that may.
        is_guarded: Whether a short run judges it, too.
    """

    figure: str
    bound: float
    is_least: bool = False
    reference: str = ""
    is_guarded: bool = False

    def is_broken_by(self, value: float, noise: float) -> bool:
        """Return whether a value is beyond the bound by more than a part *noise* of it."""
        return value < self.bound / (1 + noise) if self.is_least else value > self.bound * (1 + noise)


@attrs.frozen(kw_only=True)
class Limits:
    """All of them, and the *noise* that a short run allows for: 0.1 is a tenth of each bound."""

    noise: float
    limits: tuple[Limit, ...]

    def guarded(self) -> Limits:
        """Return those that a short run judges."""
        return attrs.evolve(self, limits=tuple(limit for limit in self.limits if limit.is_guarded))

    def strict(self) -> Limits:
        """Return the same without any allowance for noise; the median of a long run's turns needs none."""
        return attrs.evolve(self, noise=0.0)

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Return those of *rows* that have a figure with a limit."""
        keys = {limit.figure for limit in self.limits}
        return [row for row in rows if keys & {figure.key for figure in row.figures}]


@attrs.frozen(kw_only=True)
class Verdict:
    """One limit, and how far below or above it the run came; the median over the turns decides."""

    figure: Figure
    limit: Limit
    noise: float
    measured: Spread

    @property
    def is_exceeded(self) -> bool:
        """Return whether sidecar takes more than it may, or does less than it must, noise allowed for."""
        return self.limit.is_broken_by(self.measured.median, self.noise)

    @property
    def word(self) -> str:
        """Return the verdict in a word or two."""
        if self.is_exceeded:
            return "EXCEEDED"
        return "within noise" if self.limit.is_broken_by(self.measured.median, 0.0) else "met"

    @property
    def allowed(self) -> str:
        """Return the bound in words."""
        return f"at {'least' if self.limit.is_least else 'most'} {self.limit.bound:.2f}"

    def __str__(self) -> str:
        """Return a line for the report."""
        times = f" x {self.limit.reference}" if self.limit.reference else ""
        return f"{figure_title(self.figure)}: {format_ratio(self.measured)}{times}, {self.allowed}: {self.word}"


def read_limits(path: Path = LIMITS_PATH) -> Limits:
    """
    Read the limits of the project.

    Raises:
        CannotRunError: The file cannot be read, or something in it is wrong; nothing of it is then judged.
    """
    try:
        return parse_limits(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CannotRunError(f"{path.name} cannot be used: {error}") from error


def parse_limits(content: Mapping[str, Any]) -> Limits:
    """
    Turn what stands in `limits.toml` into limits.

    Raises:
        ValueError: A key, figure or proxy in it is unknown, a bound is missing or there twice, or a figure is.
    """
    noise = content.get("noise")
    if content.keys() != {"noise", "limit"} or not isinstance(noise, float) or not 0 <= noise < 1:
        raise ValueError("it must have noise, from 0 to below 1, and limits, and nothing else")
    limits = tuple(_parse_limit(entry) for entry in content["limit"])
    names = [limit.figure for limit in limits]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"more than one limit for {', '.join(sorted(twice))}")
    return Limits(noise=noise, limits=limits)


def judge(limits: Limits, rows: Sequence[Row], record: Record) -> list[Verdict]:
    """Hold what was measured against the limits; one whose figures a run does not have is not judged."""
    figures = {figure.key: figure for row in rows for figure in row.figures}
    verdicts: list[Verdict] = []
    for limit in limits.limits:
        measured = _measured(limit, record)
        if limit.figure in figures and measured is not None:
            figure = figures[limit.figure]
            verdicts.append(Verdict(figure=figure, limit=limit, noise=limits.noise, measured=measured))
    return verdicts


def _parse_limit(entry: Mapping[str, Any]) -> Limit:
    """Turn one entry into a limit; raises ValueError as `parse_limits` does."""
    figure = entry.get("figure")
    if figure not in {figure.key for row in ROWS for figure in row.figures}:
        raise ValueError(f"no row has a figure {figure!r}")
    if unknown := entry.keys() - KEYS:
        raise ValueError(f"{figure}: unknown {', '.join(sorted(unknown))}")
    bounds = [key for key in ("at_most", "at_least") if key in entry]
    if len(bounds) != 1 or not isinstance(entry[bounds[0]], float) or entry[bounds[0]] <= 0:
        raise ValueError(f"{figure}: it must have at_most or at_least, a number above 0 with a point")
    reference = entry.get("of", "")
    if reference and (reference == OURS or reference not in {peer.name for peer in PEERS}):
        raise ValueError(f"{figure}: there is no peer {reference!r}")
    guarded = entry.get("guard", False)
    if not isinstance(guarded, bool) or (guarded and reference and reference not in GUARD_PROXIES):
        raise ValueError(f"{figure}: guard must be true or false; a guard measures only {', '.join(GUARD_PROXIES)}")
    return Limit(
        figure=figure,
        bound=entry[bounds[0]],
        is_least=bounds[0] == "at_least",
        reference=reference,
        is_guarded=guarded,
    )


def _measured(limit: Limit, record: Record) -> Spread | None:
    """Return what is held against a bound: a ratio of each turn, or the value itself."""
    if limit.reference:
        return record.ratio(limit.figure, OURS, limit.reference)
    return record.summary(limit.figure, OURS)
