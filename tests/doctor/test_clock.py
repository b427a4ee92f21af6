"""`sidecar.doctor.clock`: nothing that exists was made later than now."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.doctor.clock import Past, clock, compare
from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.material import Own
from tests.doctor.settled import only
from tests.support.certs import DAY, NOW, authority

MINUTE = timedelta(minutes=1)


def starting(at: timedelta) -> Own:
    return Own("/certs", authority().issue("a", not_before=NOW + at, not_after=NOW + 90 * DAY).certificate)


class TestClock:
    def test_clock_before_the_installation_is_an_error(self) -> None:
        """A machine without a battery starts in 1970."""
        found = only(clock(NOW, Past("this was installed", NOW + 2 * DAY), (), ()), Severity.ERROR, Check.CLOCK)
        assert "slow" in found.fact

    def test_file_from_the_future_is_a_note(self) -> None:
        """Of several the latest is named."""
        written = (Past("a was written", NOW + 6 * MINUTE), Past("b was written", NOW + 7 * MINUTE))
        assert "b was written" in only(clock(NOW, None, written, ()), Severity.NOTE, Check.CLOCK).fact

    @pytest.mark.parametrize(
        ("begin", "severity"),
        [
            pytest.param(5 * MINUTE, Severity.WARNING, id="minutes"),
            pytest.param(DAY, Severity.WARNING, id="a-day"),
            pytest.param(DAY + MINUTE, Severity.OK, id="next-month"),
            pytest.param(-MINUTE, Severity.OK, id="begun"),
        ],
    )
    def test_certificate_that_begins_soon_speaks_against_the_clock(self, begin: timedelta, severity: Severity) -> None:
        """One that begins much later was made to."""
        only(clock(NOW, None, (), (starting(begin),)), severity, Check.CLOCK)

    def test_clocks_of_other_machines_may_differ_a_little(self) -> None:
        """What is possible is no more than that, and the text says so."""
        found = clock(NOW, Past("x", NOW + DAY), (Past("y", NOW + 5 * MINUTE),), (starting(-DAY),))
        assert "--clock" in only(found, Severity.OK, Check.CLOCK).fact


class TestCompare:
    @pytest.mark.parametrize(
        ("difference", "severity", "word"),
        [
            pytest.param(timedelta(seconds=30), Severity.OK, "agrees", id="near"),
            pytest.param(timedelta(seconds=31), Severity.WARNING, "behind", id="slow"),
            pytest.param(-2 * DAY, Severity.WARNING, "2 days ahead", id="fast"),
        ],
    )
    def test_difference_is_told_with_its_direction(self, difference: timedelta, severity: Severity, word: str) -> None:
        """Which of the two is wrong nobody knows."""
        assert word in only([compare(NOW, NOW + difference, "x:80")], severity, Check.CLOCK).fact

    def test_server_that_tells_nothing_is_no_finding_about_the_clock(self) -> None:
        """It was not checked, and why."""
        assert "refused" in only([compare(NOW, "refused", "x:80")], Severity.UNCHECKED, Check.CLOCK).fact
