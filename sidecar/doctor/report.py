"""Findings as lines for people, without control characters, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sidecar import __version__
from sidecar.certs.sources import may_be_secret
from sidecar.config.units import quoted
from sidecar.doctor.findings import Finding, Severity, counts
from sidecar.doctor.platforms import Platform

MAX_LINE = 2_000
"""Characters. A certificate may have a name of 64 KiB."""

_PLURALS = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.NOTE: "notes"}


def text(platform: Platform, findings: Sequence[Finding]) -> list[str]:
    """Return a line for each finding and one below it for what to do; the last line has the counts."""
    return [*(line for finding in findings for line in _lines(finding)), summary(platform, findings)]


def _lines(finding: Finding) -> Iterator[str]:
    yield printable(f"{finding.severity.value}: {finding.check.value}: {finding.fact}")
    if finding.fix:
        yield printable(f"    {finding.fix}")


def summary(platform: Platform, findings: Sequence[Finding]) -> str:
    """Say how many there are of each severity, and where that was."""
    found = counts(findings)
    parts = [f"{found[each]} {_PLURALS[each] if found[each] != 1 else each.value}" for each in _PLURALS]
    parts += [f"{found[Severity.UNCHECKED]} unchecked", f"{found[Severity.OK]} ok"]
    return f"{', '.join(parts)} (platform: {platform.value})"


def as_json(platform: Platform, findings: Sequence[Finding]) -> str:
    """Return one object: version, platform, findings, counts."""
    listed = [
        {"severity": each.severity.value, "check": each.check.value, "fact": each.fact, "fix": each.fix}
        for each in findings
    ]
    found = {severity.value: count for severity, count in counts(findings).items()}
    answer = {"version": __version__, "platform": platform.name.lower(), "findings": listed, "counts": found}
    return json.dumps(answer, indent=2).replace("\x7f", "\\u007f")  # all else that is not printable ASCII is escaped


def echoed(text: str) -> str:
    """Show an argument in a message: shortened, and not if it may be a secret that was put in the wrong place."""
    return "a value that may be key material" if is_hidden(text) else quoted(text)


def is_hidden(text: str) -> bool:
    """Whether an argument is not to be shown."""
    return may_be_secret(text)


def printable(line: str) -> str:
    """Escape what could steer a terminal: files and peers choose much of what is printed."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line[:MAX_LINE])
    return shown if len(line) <= MAX_LINE else f"{shown}..."
