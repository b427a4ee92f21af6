"""What there is to say about something that was examined: facts, and findings about what is wrong or odd with it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime

import attrs

from sidecar.certs.describe import days_left

MAX_SHOWN = 20
"""Names or serial numbers in one line; a hostile server may send thousands."""


class Level(enum.Enum):
    """How bad a finding is."""

    PROBLEM = "problem"
    NOTE = "note"


@attrs.frozen
class Finding:
    """
    Something to know about what was examined.

    Attributes:
        level: A problem keeps somebody from using it; a note may be as it should be.
        text: A sentence.
    """

    level: Level
    text: str


@attrs.frozen
class Report:
    """
    One thing that was examined.

    Attributes:
        title: What it is and where.
        facts: Labels and values in order.
        findings: What is wrong or odd with it.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...] = ()


def problem(text: str) -> Finding:
    """Something that keeps somebody from using it."""
    return Finding(Level.PROBLEM, text)


def note(text: str) -> Finding:
    """Something that may be as it should be."""
    return Finding(Level.NOTE, text)


def shorten(values: Iterable[str]) -> str:
    """Join *values*, up to a number that is for people to read."""
    listed = list(values)
    more = [f"and {len(listed) - MAX_SHOWN} more"] if len(listed) > MAX_SHOWN else []
    return ", ".join([*listed[:MAX_SHOWN], *more])


def time_left(not_after: datetime, now: datetime) -> str:
    """Say how many whole days there are until *not_after*, or have been since."""
    days = days_left(not_after, now)
    return f"{days} days left" if days >= 0 else f"expired {-days} days ago"
