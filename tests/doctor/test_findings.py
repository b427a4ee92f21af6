"""`sidecar.doctor.findings`: severities, their order, and what they come to."""

from __future__ import annotations

from pathlib import Path

import pytest

import sidecar
from sidecar.doctor.findings import (
    Check,
    Finding,
    Severity,
    counts,
    error,
    exit_status,
    note,
    ok,
    unchecked,
    warning,
    worst_first,
)

ERROR = error(Check.PORT, "a", "b")
WARNING = warning(Check.APP, "a", "b")
NOTE = note(Check.MOUNT, "a")
UNCHECKED = unchecked(Check.CLOCK, "a")
OK = ok(Check.CHAIN, "a")


class TestExitStatus:
    @pytest.mark.parametrize(
        ("findings", "status"),
        [
            pytest.param([], 0, id="nothing"),
            pytest.param([OK, NOTE, UNCHECKED], 0, id="notes"),
            pytest.param([OK, WARNING, NOTE], 1, id="warning"),
            pytest.param([WARNING, ERROR, OK], 78, id="error"),
        ],
    )
    def test_status_is_that_of_the_worst(self, findings: list[Finding], status: int) -> None:
        """Only errors and warnings show in the exit status."""
        assert exit_status(findings) == status


class TestWorstFirst:
    def test_findings_are_sorted_by_severity(self) -> None:
        """What has to be mended first is on top."""
        assert worst_first([OK, NOTE, ERROR, UNCHECKED, WARNING]) == [ERROR, WARNING, NOTE, UNCHECKED, OK]

    def test_order_of_checks_stays_and_repeats_go(self) -> None:
        """Two checks that find the same are one finding."""
        other = error(Check.APP, "c", "d")
        assert worst_first([other, ERROR, other]) == [other, ERROR]


class TestCounts:
    def test_every_severity_is_counted(self) -> None:
        """Those that do not occur count 0."""
        assert counts([ERROR, ERROR, OK]) == {
            Severity.ERROR: 2,
            Severity.WARNING: 0,
            Severity.NOTE: 0,
            Severity.UNCHECKED: 0,
            Severity.OK: 1,
        }


class TestChecks:
    @pytest.mark.parametrize("check", Check)
    def test_check_is_documented_and_used(self, check: Check) -> None:
        """docs/doctor.md has a row for each check, and some module makes findings of it."""
        package = Path(sidecar.__file__).parent
        assert f"| `{check.value}` |" in (package.parent / "docs" / "doctor.md").read_text()
        sources = (path.read_text() for path in (package / "doctor").glob("*.py"))
        assert any(f"Check.{check.name}" in source for source in sources)
