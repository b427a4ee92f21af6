"""JSON <-> trees. Numbers stay as they are written."""

from __future__ import annotations

import json
import re
from typing import Any, Final, Never

from sidecar.inject.tree import FALSE, NULL, TRUE, Branch, InjectError, Plain, Tree

DEEPEST: Final = 100

_BLANKS = re.compile(r"[ \t\r\n]*")
_CONSTANTS = {None: NULL, True: TRUE, False: FALSE}


def read(text: str) -> list[Tree]:
    """
    Read JSON values that follow each other.

    Raises:
        InjectError: With the line, it is not JSON, or more than is taken.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_without_repeats, parse_int=Plain, parse_float=Plain, parse_constant=_refuse_constant
    )
    found: list[Tree] = []
    position = _after_blanks(text, 0)
    try:
        while position < len(text):
            value, end = decoder.raw_decode(text, position)
            found.append(_tree(value, 0))
            position = _after_blanks(text, end)
    except json.JSONDecodeError as error:
        raise InjectError(f"{error.msg} in column {error.colno}", "mend the JSON", f"line {error.lineno}") from None
    except RecursionError:
        raise _too_deep() from None
    return found


def write(node: Tree) -> str:
    """Write one value, indented as kubectl and the AWS CLI do it, with a line feed behind."""
    return "\n".join(_lines(node)) + "\n"


def write_short(node: Tree) -> str:
    """Write one value on one line."""
    if isinstance(node, dict):
        return "{" + ",".join(f"{_scalar(key)}:{write_short(value)}" for key, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ",".join(write_short(item) for item in node) + "]"
    return _scalar(node)


def _lines(node: Tree) -> list[str]:
    if isinstance(node, dict) and node:
        entries = [[f"{_scalar(key)}: {first}", *rest] for key, (first, *rest) in _pairs(node)]
        return ["{", *_indented(entries), "}"]
    if isinstance(node, list) and node:
        return ["[", *_indented([_lines(item) for item in node]), "]"]
    return ["{}" if isinstance(node, dict) else "[]" if isinstance(node, list) else _scalar(node)]


def _pairs(node: Branch) -> list[tuple[str | Plain, list[str]]]:
    return [(key, _lines(value)) for key, value in node.items()]


def _indented(entries: list[list[str]]) -> list[str]:
    """Entries of a collection, a comma behind each but the last."""
    for entry in entries[:-1]:
        entry[-1] += ","
    return [f"    {line}" for entry in entries for line in entry]


def _scalar(value: str | Plain) -> str:
    return value.text if isinstance(value, Plain) else json.dumps(value, ensure_ascii=False)


def _after_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    assert match is not None
    return match.end()


def _tree(value: Any, depth: int) -> Tree:  # whatever json.loads makes
    if depth == DEEPEST:
        raise _too_deep()
    if isinstance(value, dict):
        return {key: _tree(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_tree(item, depth + 1) for item in value]
    return value if isinstance(value, str | Plain) else _CONSTANTS[value]


def _too_deep() -> InjectError:
    return InjectError(f"nested deeper than {DEEPEST} levels", "take the manifest apart")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InjectError(f"the key {key[:60]!a} stands twice in one object", "keep one of them")
        found[key] = value
    return found


def _refuse_constant(text: str) -> Never:
    raise InjectError(f"{text} is not JSON", "write a number")
