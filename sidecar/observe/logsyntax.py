"""
The syntax of access log formats, which is Envoy's: text with operators in it.

    format   = *( text / "%%" / operator )
    operator = "%" NAME [ "(" argument ")" ] [ ":" limit ] "%"

A format is one line; a newline at its end, also as ``\\n``, may be there or not.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from sidecar.errors import SidecarError
from sidecar.values import Value

LONGEST_FORMAT: Final = 4096
MOST_OPERATORS: Final = 64
LARGEST_LIMIT: Final = 1024
"""Bytes of one value. With `MOST_OPERATORS` and what escaping adds, no line is over 400 KiB."""

_OPERATOR: Final = re.compile(r"%(?:%|(?P<name>\w+)(?:\((?P<argument>[^)]*)\))?(?::(?P<limit>\w*))?%)", re.ASCII)

# What people put between values. A value must not hold one that stands beside it outside quotes.
_SEPARATORS: Final = frozenset("|;,'`<>()[]{}&~^")


class FormatError(SidecarError):
    """
    A text is no access log format.

    Attributes:
        position: Where in the text it is wrong, from 0.
        fact: What is wrong, with the position counted from 1.
        fix: What to write instead.
    """

    def __init__(self, position: int, fact: str, fix: str) -> None:
        self.position = position
        self.fact = f"at character {position + 1}: {fact}"
        self.fix = fix
        super().__init__(f"{self.fact}; {fix}")


@attrs.frozen(eq=False, repr=False)
class Command(Value):
    """
    An operator as it stands in a format.

    Attributes:
        name: As written.
        argument: What stands in its brackets; None without brackets.
        limit: Longest value to be shown, in bytes; None: the usual.
        position: Where it begins in the format, from 0.
        separators: Characters that end its value there; none between double quotes, which do that.
    """

    name: str
    argument: str | None
    limit: int | None
    position: int
    separators: str = ""

    def error(self, fact: str, fix: str, offset: int = 0) -> FormatError:
        """Make an error that points at the operator, or *offset* characters behind its first."""
        return FormatError(self.position + offset, fact, fix)


def parse(text: str) -> list[str | Command]:
    """
    Read a format.

    Returns:
        Its texts and operators in order; between two operators there is always a text, maybe an empty one, and so
        there is at both ends.

    Raises:
        FormatError: It is empty, not one line, too long, or has a percent sign that begins no operator.
    """
    text = text.removesuffix("\n").removesuffix("\\n")
    _check(text)
    parts: list[str | Command] = []
    literal = ""
    at = 0
    while (percent := text.find("%", at)) >= 0:
        literal += text[at:percent]
        match = _OPERATOR.match(text, percent)
        if match is None:
            raise FormatError(
                percent, "this % begins no operator", "write it as %NAME%, %NAME(…)% or %NAME(…):LIMIT%, or %% for a %"
            )
        at = match.end()
        if match["name"] is None:
            literal += "%"
        else:
            parts += literal, _command(match)
            literal = ""
    parts.append(literal + text[at:])
    if len(parts) > 2 * MOST_OPERATORS + 1:
        raise FormatError(0, f"the format has {len(parts) // 2} operators, limit {MOST_OPERATORS}", "leave some out")
    return _with_separators(parts)


def _check(text: str) -> None:
    if not text:
        raise FormatError(0, "the format is empty", "write operators such as %START_TIME%, or leave it out")
    if len(text) > LONGEST_FORMAT:
        raise FormatError(
            LONGEST_FORMAT, f"the format has {len(text):,} characters, limit {LONGEST_FORMAT:,}", "leave some out"
        )
    for position, character in enumerate(text):
        if not character.isprintable():
            raise FormatError(position, f"the format holds {character!a}", "write it on one line, with blanks for tabs")


def _command(match: re.Match[str]) -> Command:
    limit = None
    if match["limit"] is not None:
        written = match["limit"]
        if not re.fullmatch(r"[0-9]{1,4}", written, re.ASCII) or not 1 <= int(written) <= LARGEST_LIMIT:
            raise FormatError(
                match.start("limit"),
                f"{written[:20]!a} is no limit for a value",
                f"write a number of bytes from 1 to {LARGEST_LIMIT}",
            )
        limit = int(written)
    return Command(match["name"], match["argument"], limit, match.start())


def _with_separators(parts: list[str | Command]) -> list[str | Command]:
    """Say for each operator which characters would end its value."""
    in_quotes = False
    placed = list(parts)
    for index, part in enumerate(parts):
        if isinstance(part, str):
            in_quotes ^= part.count('"') % 2 == 1
        elif not in_quotes:
            before, after = parts[index - 1], parts[index + 1]
            assert isinstance(before, str)
            assert isinstance(after, str)
            beside = {before[-1:], after[:1]} & _SEPARATORS
            placed[index] = attrs.evolve(part, separators="".join([" ", *sorted(beside)]))
    return placed
