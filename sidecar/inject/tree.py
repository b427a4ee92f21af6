"""
Documents as trees of texts, plain scalars, lists and mappings, and safe ways to look into what somebody else wrote.

What is no text stays as it is written: ``0644`` and ``1e3`` mean different numbers to different readers of YAML, and
none of them is to be decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from sidecar.errors import SidecarError


@attrs.frozen
class Plain:
    """
    A scalar that is no text, or that some reader takes for none.

    Attributes:
        text: As it is written, without quotes: a number, a date, ``true``, ``null``.
    """

    text: str


Key: TypeAlias = str | Plain
Tree: TypeAlias = "str | Plain | list[Tree] | dict[Key, Tree]"
Branch: TypeAlias = dict[Key, Tree]

NULL: Final = Plain("null")
TRUE: Final = Plain("true")
FALSE: Final = Plain("false")

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


class InjectError(SidecarError):
    """
    A document cannot be read, or the sidecar cannot be put into it.

    Attributes:
        fact: What is wrong, with the value and the limit.
        fix: What to do about it.
        about: Which document or line; "" if it is none of them.
    """

    def __init__(self, fact: str, fix: str, about: str = "") -> None:
        super().__init__(f"{about}: {fact}; {fix}" if about else f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix
        self.about = about

    def within(self, about: str) -> InjectError:
        """The same, of *about*."""
        return InjectError(self.fact, self.fix, self.about or about)


def number(value: int) -> Plain:
    """The scalar for a whole number."""
    return Plain(str(value))


def branch(value: Mapping[str, Tree]) -> Branch:
    """A mapping that can stand in a tree: mypy takes no ``dict[str, ...]`` for one whose keys may be more."""
    return dict(value.items())


def scalar_text(value: Tree | None) -> str:
    """The text of a scalar, however it is written; "" for anything else, and for null."""
    if isinstance(value, Plain):
        return "" if value == NULL else value.text
    return value if isinstance(value, str) else ""


def text_at(parent: Branch, key: str) -> str:
    """As `scalar_text`, of what is behind *key*."""
    return scalar_text(parent.get(key))


def number_at(parent: Branch, key: str) -> int | None:
    """The whole number behind *key*, also one in quotes; None if there is none."""
    text = text_at(parent, key)
    return int(text) if _NUMBER.fullmatch(text) else None


def is_set(parent: Branch, key: str) -> bool:
    """Whether there is something behind *key*; null is nothing."""
    return parent.get(key, NULL) != NULL


def branch_at(parent: Branch, key: str) -> Branch | None:
    """
    The mapping behind *key*; None if there is nothing.

    Raises:
        InjectError: Something else is there.
    """
    value = parent.get(key, NULL)
    if value == NULL:
        return None
    if not isinstance(value, dict):
        raise InjectError(f"{key} is {_kind(value)}, not a mapping", "correct it")
    return value


def needed_branch(parent: Branch, key: str) -> Branch:
    """As `branch_at`, but there must be one."""
    value = branch_at(parent, key)
    if value is None:
        raise InjectError(f"there is no {key}", "add it")
    return value


def branches_at(parent: Branch, key: str) -> list[Branch]:
    """
    The mappings in the list behind *key*; none if there is nothing.

    Raises:
        InjectError: It is no list, or one of something else.
    """
    value = parent.get(key, NULL)
    if value == NULL:
        return []
    if not isinstance(value, list):
        raise InjectError(f"{key} is {_kind(value)}, not a list", "correct it")
    found = [item for item in value if isinstance(item, dict)]
    if len(found) < len(value):
        raise InjectError(f"{key} has an entry that is no mapping", "correct it")
    return found


def _kind(value: Tree) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a single value"
