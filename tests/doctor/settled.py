"""What the tests of the checks share: settings as they would be loaded, and what findings come to."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.config.load import Loaded, load
from sidecar.doctor.findings import Check, Finding, Severity


def settled(**settings: str) -> Loaded:
    """Settings from variables, named as in the YAML file."""
    return load({}, {f"SIDECAR_{name.upper()}": value for name, value in settings.items()})


def severities(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Check and severity of each, in order."""
    return [(finding.check.value, finding.severity.value) for finding in findings]


def only(findings: Iterable[Finding], severity: Severity, check: Check) -> Finding:
    """The one finding there is, which must be of this severity and check, and say what to do if it is bad."""
    (finding,) = findings
    assert (finding.severity, finding.check) == (severity, check), finding
    assert finding.fix or severity in (Severity.OK, Severity.NOTE), finding
    return finding
