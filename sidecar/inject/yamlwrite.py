"""
Trees -> YAML, in one form only: block style as kubectl writes it, text over several lines as it reads.

Text is quoted wherever some reader (YAML 1.1, 1.2, Go's) could take it for something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sidecar.inject.tree import InjectError, Key, Plain, Tree

LONGEST_KEY: Final = 1000
"""Characters, as written. YAML has another form for keys over 1,024, which few readers know."""

_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_START = re.compile(r"[A-Za-z_/]", re.ASCII)

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write(documents: Iterable[Tree]) -> str:
    """Write documents, each ending with a line feed, with ``---`` between them; raises InjectError."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(document, 0)) for document in documents)


def is_certainly_text(text: str) -> bool:
    """Whether *text*, without quotes, is one and the same text to every reader of YAML."""
    return (
        _START.match(text) is not None
        and text.isprintable()
        and text.lower() not in _WORDS
        and ": " not in text
        and " #" not in text
        and text[-1] not in ": "
    )


def _lines(node: Tree, indent: int) -> list[str]:
    """The lines of a node that begins a line of its own."""
    margin = " " * indent
    if isinstance(node, dict) and node:
        return [line for key, value in node.items() for line in _entry(key, value, indent)]
    if isinstance(node, list) and node:
        return [line for item in node for line in _item(item, indent)]
    first, *rest = _inline(node, indent)
    return [margin + first, *rest]


def _entry(key: Key, value: Tree, indent: int) -> list[str]:
    name = key.text if isinstance(key, Plain) else _one_line(key)
    if len(name) > LONGEST_KEY:
        raise InjectError(f"a key has {len(name):,} characters, limit {LONGEST_KEY:,}", "shorten it")
    head = " " * indent + name + ":"
    if isinstance(value, dict) and value:
        return [head, *_lines(value, indent + 2)]
    if isinstance(value, list) and value:
        return [head, *_lines(value, indent)]
    first, *rest = _inline(value, indent)
    return [f"{head} {first}", *rest]


def _item(item: Tree, indent: int) -> list[str]:
    margin = " " * indent
    if isinstance(item, dict | list) and item:
        first, *rest = _lines(item, indent + 2)
        return [f"{margin}- {first[indent + 2 :]}", *rest]
    first, *rest = _inline(item, indent)
    return [f"{margin}- {first}", *rest]


def _inline(node: Tree, indent: int) -> list[str]:
    """A scalar or empty collection: what stands on the line that it begins on, then whole lines."""
    if isinstance(node, dict):
        return ["{}"]
    if isinstance(node, list):
        return ["[]"]
    if isinstance(node, Plain):
        return [node.text]
    return _literal(node, indent) if _reads_as_block(node) else [_one_line(node)]


def _reads_as_block(text: str) -> bool:
    lines = text.split("\n")
    return (
        len(lines) > 1
        and bool(text.strip("\n"))
        and all(line.replace("\t", "").isprintable() for line in lines)
        and not any(line.isspace() for line in lines)  # readers differ in what an indented empty line is
    )


def _literal(text: str, indent: int) -> list[str]:
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    chomping = "-" if ends == 0 else "" if ends == 1 else "+"
    # Without the number, readers take the blanks of the first line for indentation.
    width = "2" if text[0] in " \t\n" else ""
    margin = " " * (indent + 2)
    lines = [margin + line if line else "" for line in body.split("\n")]
    return [f"|{width}{chomping}", *lines, *[""] * (ends - 1)]


def _one_line(text: str) -> str:
    if is_certainly_text(text):
        return text
    if not text.isprintable():
        return '"' + "".join(_ESCAPES.get(char) or _escaped(char) for char in text) + '"'
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
