"""
Whether the clock can be right.

Without the network nobody can tell that it is. What can be told is that it is wrong: nothing that exists was made later
than now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import attrs

from sidecar.certs.certificates import called, date
from sidecar.doctor.dates import span
from sidecar.doctor.findings import Check, Finding, error, note, ok, unchecked, warning
from sidecar.doctor.material import Own

TOLERANCE = timedelta(minutes=5)
"""Clocks of machines that work together differ, but rarely by more."""

BUILT_TOLERANCE = timedelta(days=1)
"""The program's files may come from an image that another machine has built, with a clock of its own."""

NEAR = timedelta(days=1)
"""A certificate that begins later than this was most likely made to."""

CLOSE = timedelta(seconds=30)
"""To a web server's clock, which tells whole seconds and takes its time to answer."""


@attrs.frozen
class Past:
    """Something that lies in the past if the clock is right: a sentence such as ``FILE was written``, and when."""

    fact: str
    at: datetime


def clock(now: datetime, installed: Past | None, written: Sequence[Past], shown: Sequence[Own]) -> list[Finding]:
    """
    Compare the clock with what is known.

    Args:
        now: What the clock says; aware.
        installed: When the files of the program were.
        written: When files of certificates were.
        shown: Our certificates.
    """
    found = [*_from_the_future(now, installed, written), *_not_yet(now, shown)]
    if found:
        return found
    fact = f"{date(now)} is possible: no file here is from later"
    return [ok(Check.CLOCK, f"{fact}; whether it is right, --clock HOST:PORT finds out from a web server")]


def _from_the_future(now: datetime, installed: Past | None, written: Sequence[Past]) -> Iterator[Finding]:
    if installed is not None and installed.at - now > BUILT_TOLERANCE:
        fact = f"the clock says {date(now)}, and {installed.fact} on {date(installed.at)}: it is slow"
        yield error(Check.CLOCK, fact, "set the clock of this machine; certificates are judged by it")
    latest = max(written, key=lambda past: past.at, default=None)
    if latest is not None and latest.at - now > TOLERANCE:
        fact = (
            f"the clock says {date(now)}, and {latest.fact} on {date(latest.at)}: the clock is slow, or was fast then"
        )
        yield note(Check.CLOCK, fact, "compare the clocks of both machines")


def _not_yet(now: datetime, shown: Sequence[Own]) -> Iterator[Finding]:
    for own in shown:
        begin = own.leaf.not_valid_before_utc
        if now < begin <= now + NEAR:
            fact = f"{own.source}: {called(own.leaf)} becomes valid in {span(begin - now)}"
            yield warning(Check.CLOCK, f"{fact}: the clock here may be slow", "compare it with the CA's, or wait")


def compare(now: datetime, told: datetime | str, where: str) -> Finding:
    """
    Compare the clock with that of a web server.

    Args:
        now: What the clock here says; aware.
        told: What the other one says, or why it says nothing.
        where: How messages call it.
    """
    if isinstance(told, str):
        return unchecked(Check.CLOCK, f"{where} did not tell the time: {told}", "name a web server that is reachable")
    difference = abs(told - now)
    if difference <= CLOSE:
        return ok(Check.CLOCK, f"the clock agrees with that of {where}")
    fact = f"the clock is {span(difference)} {'behind' if told > now else 'ahead of'} that of {where}"
    fix = "set the clock of the one that is wrong (NTP); certificates are judged by it"
    return warning(Check.CLOCK, fact, fix)
