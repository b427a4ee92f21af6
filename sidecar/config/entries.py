"""
Reading structured settings: lists of mappings as a YAML file or JSON has them -> values, or all problems at once.

An `Entry` is one mapping. Whoever reads it names its keys first, so that none is overlooked, then asks for the value
behind each. What is wrong is noted with its place, and something harmless is read in its stead: nothing that was noted
for may be used, which is for the caller to see to (`Entry.is_sound`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

from sidecar.config.load import Loaded
from sidecar.config.names import did_you_mean
from sidecar.config.units import UnitError, parse_count, parse_duration, parse_word, quoted
from sidecar.errors import Problem
from sidecar.settings import WAIT, Seconds, Switch

T = TypeVar("T")

# It stands in log lines and metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,59}")


@attrs.define(eq=False, repr=False)
class Reader:
    """
    What all entries share.

    Attributes:
        loaded: Says where each place stands.
        problems: Found so far.
    """

    loaded: Loaded
    problems: list[Problem] = attrs.field(factory=list)

    def refuse(self, place: str, fact: str, fix: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(place, self.loaded.source_of(place), fact, fix))

    def listed(self, place: str, text: str, most: int) -> list[tuple[str, object]]:
        """The items of a setting that is a JSON list, each with its place."""
        items = json.loads(text) if text else []
        if len(items) > most:
            self.refuse(place, f"there are {len(items):,} entries, limit {most:,}", "leave some out")
            return []
        return [(f"{place}[{i}]", item) for i, item in enumerate(items)]

    def entry(self, place: str, value: object, keys: Sequence[str]) -> Entry:
        """The mapping at *place*, which may have these *keys*; without any if it is none."""
        is_mapping = isinstance(value, Mapping)
        entry = Entry(self, place, value if isinstance(value, Mapping) else {}, is_mapping, len(self.problems))
        if not is_mapping:
            fact = f"{_shown(value)} stands where keys and values are expected"
            self.refuse(place, fact, f"write KEY: VALUE lines; the keys are {', '.join(keys)}")
        for key in entry.values:
            if key not in keys:
                fix = did_you_mean(key.replace("-", "_"), keys, otherwise=f"the keys are {', '.join(keys)}")
                where = f"{place}.{key}" if _NAME.fullmatch(key) else place
                self.refuse(where, f"there is no key {quoted(key)}", fix)
        return entry

    def value(self, place: str, value: object, parse: Callable[[str], T], default: T) -> T:
        """What *parse* makes of the single value at *place*; *default* if it was refused."""
        text = _text_of(value)
        if text is None or not text.strip():
            fact = f"{_shown(value)} stands where a value is expected"
            self.refuse(place, fact, "write one, or remove the key")
            return default
        try:
            return parse(text.strip())
        except UnitError as error:
            self.refuse(place, error.fact, error.fix)
            return default


@attrs.define(eq=False, repr=False)
class Entry:
    """
    One mapping under reading.

    Attributes:
        place: Such as ``clusters[0]``.
        values: As they stand there.
        is_mapping: Whether it is one; else what it lacks is no further problem.
    """

    reader: Reader
    place: str
    values: Mapping[str, object]
    is_mapping: bool
    _problems_before: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong in it, or in anything read since, so far."""
        return len(self.reader.problems) == self._problems_before

    def at(self, key: str) -> str:
        """The place of a key."""
        return f"{self.place}.{key}"

    def refuse(self, key: str, fact: str, fix: str) -> None:
        """Note a problem with the value behind *key*."""
        self.reader.refuse(self.at(key), fact, fix)

    def refuse_whole(self, fact: str, fix: str) -> None:
        """Note a problem with what it lacks, or with keys that do not go together."""
        if self.is_mapping:
            self.reader.refuse(self.place, fact, fix)

    def has(self, key: str) -> bool:
        """Whether it is there, whatever is behind it."""
        return key in self.values

    def require(self, key: str, fix: str) -> None:
        """Note a problem if *key* is not there."""
        if key not in self.values:
            self.refuse_whole(f"there is no {key}", fix)

    def given(self, *keys: str) -> list[str]:
        """Those among *keys* that are there."""
        return [key for key in keys if key in self.values]

    def get(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """What *parse* makes of the text behind *key*; *default* without it, or if it was refused."""
        return self.reader.value(self.at(key), self.values[key], parse, default) if key in self.values else default

    def text(self, key: str, default: str = "") -> str:
        """The text behind *key* as it stands there, with its blanks; it may be empty."""
        value = self.values.get(key, default)
        if isinstance(value, str):
            return value
        return self.reader.value(self.at(key), value, str, default)

    def name(self, default: str = "") -> str:
        """The text behind ``name``."""
        return self.get("name", parse_name, default)

    def is_on(self, key: str, *, default: bool) -> bool:
        """The switch behind *key*."""
        return self.get(key, parse_switch, default)

    def items(self, key: str, most: int) -> list[tuple[str, object]]:
        """One value, or those of a list, each with its place; no empty list, and none longer than *most*."""
        if key not in self.values:
            return []
        value = self.values[key]
        if not isinstance(value, list):
            return [(self.at(key), value)]
        if not value:
            self.refuse(key, "the list is empty", "remove it, or fill it in")
        elif len(value) > most:
            self.refuse(key, f"there are {len(value):,} entries, limit {most:,}", "leave some out")
            return []
        return [(f"{self.at(key)}[{i}]", item) for i, item in enumerate(value)]

    def rows(self, key: str, most: int) -> list[tuple[str, object]]:
        """As `items`, but there must be a list: places of what is in it have a number."""
        if key in self.values and not isinstance(self.values[key], list):
            self.refuse(key, "this is not a list", "write each entry behind a hyphen")
            return []
        return self.items(key, most)

    def several(self, key: str, parse: Callable[[str], T], most: int) -> tuple[T, ...]:
        """What *parse* makes of each value behind *key*, without those that were refused."""
        found = (self.reader.value(place, item, parse, None) for place, item in self.items(key, most))
        return tuple(value for value in found if value is not None)

    def inner(self, key: str, keys: Sequence[str]) -> Entry:
        """The mapping behind *key*, an empty one without it."""
        return self.reader.entry(self.at(key), self.values.get(key, {}), keys)

    def is_word(self, key: str, *words: str) -> bool:
        """Whether one of these *words* stands behind *key*, in place of a mapping."""
        text = _text_of(self.values.get(key))
        return text is not None and text.strip().lower() in words


def _text_of(value: object) -> str | None:
    """A single value as a YAML file would have it; None if it is none. JSON has numbers and switches of its own."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, str | int | float) else None


def _shown(value: object) -> str:
    text = _text_of(value)
    if text is not None and text.strip():
        return quoted(text)
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "nothing"


# -- parsers -----------------------------------------------------------------------------------------------------


def parse_name(text: str) -> str:
    """A name that can stand in logs and metrics."""
    if _NAME.fullmatch(text) is None:
        fix = "write up to 60 letters, digits, points, slashes, hyphens, underscores, the first a letter or digit"
        raise UnitError(f"{quoted(text)} is no name", fix)
    return text


def parse_switch(text: str) -> bool:
    """``on`` or ``off``."""
    return parse_word(Switch, text) is Switch.ON


def count_within(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        value = parse_count(text)
        if not low <= value <= high:
            raise UnitError(f"{value} is out of bounds", f"write a number from {low} to {high:,}")
        return value

    return parse


def parse_wait(text: str) -> Seconds:
    """A span of time that is not 0."""
    value = parse_duration(text)
    if value < WAIT[0]:
        raise UnitError(f"{quoted(text)} is no time", "write a value from 1ms to 24h")
    return value


def parse_part(text: str) -> float:
    """``0.1``: a part of something, from 0 to 1."""
    if re.fullmatch(r"(?:0(?:\.[0-9]{1,4})?|1(?:\.0{1,4})?)", text, re.ASCII) is None:
        raise UnitError(f"{quoted(text)} is not a number from 0 to 1", "write one such as 0.1")
    return float(text)


def parse_statuses(text: str) -> tuple[int, int]:
    """``200`` or ``200-299``: a range of status codes, both ends in it."""
    match = re.fullmatch(r"([1-5][0-9]{2})(?: ?- ?([1-5][0-9]{2}))?", text, re.ASCII)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise UnitError(f"{quoted(text)} is no range of status codes", "write one such as 200 or 200-299")
    return int(match[1]), int(match[2] or match[1])
