"""
Equality, hash and text of frozen values, written once instead of generated for each class.

For attrs classes that are made of settings and rarely compared: what attrs generates is source, compiled anew at each
start, and without these three methods that costs half as much (bench row `start`). Comparing is slower by some
microseconds, so classes that are compared or hashed for each request let attrs do it.

    @attrs.frozen(eq=False, repr=False)
    class HostPort(Value): ...
"""

from __future__ import annotations

from typing import Any

import attrs


class Value:
    """Base of attrs classes without methods of their own for this; fields count as their `eq` and `repr` say."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _compared(self) == _compared(other)

    def __hash__(self) -> int:
        return hash((type(self), _compared(self)))

    def __repr__(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in _fields(self) if field.repr)
        return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(shown)})"


def _fields(value: object) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(type(value))  # type: ignore[arg-type]  # of subclasses
    return fields


def _compared(value: object) -> tuple[object, ...]:
    return tuple(getattr(value, field.name) for field in _fields(value) if field.eq)
