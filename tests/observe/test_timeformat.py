"""`observe.timeformat`: moments as text, in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.timeformat import RFC3339, TimeFormat, TimeFormatError

MOMENT = 1527590590.528125
"""2018-05-29 10:43:10 UTC, and what a float makes of a fraction of a second."""


@pytest.fixture(params=["UTC", "America/New_York"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("time_zone")
class TestTimeFormat:
    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            (RFC3339, "2018-05-29T10:43:10.528Z"),
            ("%Y/%m/%dT%H:%M:%S%z %s", "2018/05/29T10:43:10+0000 1527590590"),
            ("%s.%3f", "1527590590.528"),
            ("%s.%6f", "1527590590.528125"),
            ("%s.%9f", "1527590590.528125047"),
            ("%f", "528125047"),
            ("%1f|%2f|%3f", "5|52|528"),
            ("%d/%b/%Y:%T", "29/May/2018:10:43:10"),
            ("100%% %s%%", "100% 1527590590%"),
            ("%%s %%3f %3f%%", "%s %3f 528%"),
            ("constant", "constant"),
            ("", ""),
        ],
    )
    def test_moment_is_written_in_utc(self, pattern: str, text: str) -> None:
        """Whatever the machine's time zone."""
        assert TimeFormat(pattern)(MOMENT) == text

    def test_other_second_is_written_anew(self) -> None:
        """What is kept from the last moment is of its second alone, back and forth."""
        write = TimeFormat("%S.%3f %s")
        moments = (0.0, 0.25, 1.0, 59.999, 0.5, 0.5)
        assert [write(moment) for moment in moments] == ["00.000 0", "00.250 0", "01.000 1", "59.999 59"] + 2 * [
            "00.500 0"
        ]

    def test_other_part_of_a_second_is_written_anew(self) -> None:
        """What is kept of the last moment is one part of one second: not the same part of another."""
        write = TimeFormat("%s.%3f")
        moments = (0.0, 0.0004, 0.25, 0.2504, 1.25, 1.0, 0.0)
        assert [write(moment) for moment in moments] == [
            *("0.000", "0.000", "0.250", "0.250"),
            *("1.250", "1.000", "0.000"),
        ]


class TestFraction:
    @given(st.floats(min_value=0, max_value=4e9))
    def test_fraction_has_its_digits(self, moment: float) -> None:
        """It is cut, not rounded: no moment is shown in the next second."""
        second, _, fraction = TimeFormat("%s.%3f")(moment).partition(".")
        assert int(second) == int(moment)
        assert len(fraction) == 3


class TestUnknownCode:
    @pytest.mark.parametrize(
        ("pattern", "code", "position"),
        [
            ("%H:%Q", "'%Q'", 3),
            ("%", "'%'", 0),
            ("%Y %", "'%'", 3),
            ("%0f", "'%0'", 0),
            ("%10f", "'%1'", 0),
            ("%Ey", "'%E'", 0),
            ("%n", "'%n'", 0),
            ("%t", "'%t'", 0),
            ("%\n", "'%\\n'", 0),
            ("%é", "'%\\xe9'", 0),
        ],
    )
    def test_error_points_at_it(self, pattern: str, code: str, position: int) -> None:
        """Codes that there are not, or that would end the line, are found when the format is read."""
        with pytest.raises(TimeFormatError) as caught:
            TimeFormat(pattern)
        assert caught.value.position == position
        assert caught.value.fact == f"there is no time format {code}"
        assert str(caught.value).startswith(f"at character {position + 1}: there is no time format")
