"""
Moments as text, in UTC, by formats like those of strftime.

Beside strftime's own there are ``%s``, the seconds since the epoch, and ``%3f``, the fraction of the second in so many
digits (1 to 9; ``%f``: 9). Codes that end a line are not taken.
"""

from __future__ import annotations

import re
import time
from typing import Final

from sidecar.errors import SidecarError

RFC3339: Final = "%Y-%m-%dT%H:%M:%S.%3fZ"

_CODE: Final = re.compile(
    r"%(?:(?P<plain>[aAbBcCdDeFgGhHIjmMprRSTuUVwWxXyYzZ%])|(?P<epoch>s)|(?P<digits>[1-9]?)f|(?P<unknown>.?))", re.DOTALL
)

_EPOCH: Final = "\0"
"""Stands for the seconds since the epoch: strftime would take the moment for one in local time."""


class TimeFormatError(SidecarError):
    """
    A text is no format for moments.

    Attributes:
        position: Where in the text it is wrong, from 0.
        fact: What is wrong.
        fix: What to write instead.
    """

    def __init__(self, position: int, fact: str, fix: str) -> None:
        super().__init__(f"at character {position + 1}: {fact}; {fix}")
        self.position = position
        self.fact = fact
        self.fix = fix


class TimeFormat:
    """Writes moments. All but the fraction is written once a second: a log asks for the same second again and again."""

    def __init__(self, pattern: str = RFC3339) -> None:
        """
        Raises:
            TimeFormatError: *pattern* has a code that there is not.
        """
        self._pieces = [""]  # for strftime; between two of them stands a fraction
        self._digits: list[int] = []
        end = 0
        for match in _CODE.finditer(pattern):
            self._pieces[-1] += pattern[end : match.start()]
            end = match.end()
            self._add(match)
        self._pieces[-1] += pattern[end:]
        self._scales: list[int] = [10**digits for digits in self._digits]
        self._second: int | None = None
        self._template = ""
        self._part = 0
        self._text = ""

    def __call__(self, moment: float) -> str:
        """Return *moment*, in seconds since the epoch, as text."""
        second = int(moment)
        if second != self._second:
            self._template = self._written(second)
            self._second = second
            self._text = ""
        fraction = moment - second
        if len(self._scales) == 1:  # as in RFC 3339: a busy log asks for the same millisecond again and again
            part = int(fraction * self._scales[0])
            if part != self._part or not self._text:
                self._part = part
                self._text = self._template % part
            return self._text
        return self._template % tuple([fraction * scale for scale in self._scales])

    def _add(self, match: re.Match[str]) -> None:
        if match["unknown"] is not None:
            raise TimeFormatError(
                match.start(),
                f"there is no time format {match[0]!a}",
                "write codes of strftime such as %Y-%m-%dT%H:%M:%S, %3f for milliseconds, %% for a percent sign",
            )
        if match["digits"] is not None:
            self._digits.append(int(match["digits"] or 9))
            self._pieces.append("")
        else:
            self._pieces[-1] += match[0] if match["plain"] else _EPOCH

    def _written(self, second: int) -> str:
        """Return the text of a second, with a conversion for each fraction in it."""
        broken_down = time.gmtime(second)
        first, *rest = [
            time.strftime(piece.replace(_EPOCH, str(second)), broken_down).replace("%", "%%") for piece in self._pieces
        ]
        return first + "".join(f"%0{digits}d{text}" for digits, text in zip(self._digits, rest, strict=True))
