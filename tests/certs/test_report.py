"""`certs.report`: facts and findings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sidecar.certs.report import Level, note, problem, shorten, time_left
from tests.support.certs import DAY, NOW


class TestFinding:
    def test_level_is_in_its_name(self) -> None:
        """Who writes one says how bad it is."""
        assert (problem("x").level, note("x").level) == (Level.PROBLEM, Level.NOTE)


class TestShorten:
    @pytest.mark.parametrize(
        ("count", "end"), [(0, ""), (1, "0"), (20, ", 19"), (21, ", 19, and 1 more"), (5_000, ", and 4980 more")]
    )
    def test_list_is_bounded(self, count: int, end: str) -> None:
        """Nobody reads more, and a hostile server may have more."""
        text = shorten(str(number) for number in range(count))
        assert text.endswith(end)
        assert len(text) < 100


class TestTimeLeft:
    @pytest.mark.parametrize(
        ("left", "words"),
        [
            (2 * DAY, "2 days left"),
            (DAY - timedelta(seconds=1), "0 days left"),
            (timedelta(0), "0 days left"),
            (timedelta(seconds=-1), "expired 1 days ago"),
        ],
    )
    def test_whole_days_count(self, left: timedelta, words: str) -> None:
        """What has begun is not left any more."""
        assert time_left(NOW + left, NOW) == words
