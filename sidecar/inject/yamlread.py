"""
YAML documents -> trees. Takes what kubectl takes, but neither tags nor a key twice.

Built from the parser's events rather than by a loader, since a loader resolves what is to stay as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.inject.tree import NULL, Branch, InjectError, Key, Plain, Tree
from sidecar.inject.yamlwrite import is_certainly_text

DEEPEST: Final = 100
"""Levels of nesting; a CRD has about thirty."""

LARGEST_EXPANSION: Final = 1024 * 1024
"""Nodes and characters that all aliases of a stream may stand for. A few lines of aliases of aliases make billions."""

# The one written in C is ten times as fast; PyYAML can be built without it.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = ("!", f"{_TAG}str")
_NO_TEXT = frozenset({"", "~", "null", "Null", "NULL"})

# Words in brackets and braces that would be marks where a line of a block begins. Nobody takes them for anything but
# text, so that they can be quoted.
_MARKS = re.compile(r"[-?:]|(---|\.\.\.)(\s.*)?|[-?:]\s.*", re.DOTALL)


def read(text: str) -> list[Tree]:
    """
    Read a stream of YAML documents, without the empty ones.

    Raises:
        InjectError: With the line, it is not YAML, or more than is taken.
    """
    builder = _Builder(text)
    try:
        return [document for document in builder.documents() if document != NULL]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _at(mark.line if mark else 0, _one_line(error.problem or error.context), "mend the YAML") from None
    except yaml.YAMLError as error:
        raise InjectError(_one_line(str(error)), "mend the YAML") from None


class _Builder:
    """Makes trees of events, and copies what has an anchor where it is asked for."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Tree | None] = {}
        self._expanded = 0

    def documents(self) -> Iterator[Tree]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._node(next(self._events), 0)

    def _node(self, event: Any, depth: int) -> Tree:
        if isinstance(event, yaml.AliasEvent):
            return self._copy(event)
        if depth == DEEPEST:
            raise _refusal(event, f"nested deeper than {DEEPEST} levels", "take the manifest apart")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # not complete: an alias inside would have no end
        node: Tree
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            _refuse_tag(event, f"{_TAG}seq")
            node = list(self._items(yaml.SequenceEndEvent, depth))
        else:
            _refuse_tag(event, f"{_TAG}map")
            node = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _items(self, end: type, depth: int) -> Iterator[Tree]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _mapping(self, depth: int) -> Branch:
        found: Branch = {}
        merged: Branch = {}
        seen: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, str | Plain):
                raise _refusal(event, "a list or mapping stands where a key is expected", "write a single word")
            value_event = next(self._events)
            value = self._node(value_event, depth + 1)
            if key == Plain("<<"):
                merged = _merge(merged, value, value_event)
                continue
            text = _text(key)
            if text in seen:
                raise _refusal(event, f"the key {_shown(text)} stands in line {seen[text]} already", "keep one of them")
            seen[text] = event.start_mark.line + 1
            found[key] = value
        return {**{key: value for key, value in merged.items() if _text(key) not in seen}, **found}

    def _copy(self, event: Any) -> Tree:
        node = self._anchors.get(event.anchor)
        if node is None:
            why = "it is in itself" if event.anchor in self._anchors else "is nowhere above it"
            raise _refusal(event, f"the alias {_shown(event.anchor)} stands for what {why}", "write it out")
        return self._copied(node, event)

    def _copied(self, node: Tree, event: Any) -> Tree:
        # Counted while copying, so that what is too much is never made.
        self._expanded += 1 + (len(_text(node)) if isinstance(node, str | Plain) else 0)
        if self._expanded > LARGEST_EXPANSION:
            fact = f"its aliases stand for more than {LARGEST_EXPANSION:,} nodes and characters"
            raise _refusal(event, fact, "write out what is needed")
        if isinstance(node, list):
            return [self._copied(item, event) for item in node]
        if isinstance(node, dict):
            return {key: self._copied(value, event) for key, value in node.items()}
        return node


def _scalar(event: Any) -> str | Plain:
    text = str(event.value)
    if event.tag in _TEXT_TAGS:
        return text
    _refuse_tag(event)
    if event.style not in (None, "") or is_certainly_text(text) or "\n" in text or _MARKS.fullmatch(text):
        return text
    return NULL if text in _NO_TEXT else Plain(text)


def _merge(merged: Branch, value: Tree, event: Any) -> Branch:
    """*merged* and the mappings that a merge key asks for: the first that has a key counts."""
    sources = value if isinstance(value, list) else [value]
    for source in sources:
        if not isinstance(source, dict):
            raise _refusal(event, "a merge key (<<) stands for what is no mapping", "write out what is meant")
        merged = {**source, **merged}
    return merged


def _refuse_tag(event: Any, allowed: str = "") -> None:
    if event.tag not in (None, "!", allowed):
        fact = f"the tag {_shown(event.tag.replace(_TAG, '!!'))} is not supported"
        fix = "render the template first" if event.tag.startswith("!") else "write the value without it"
        raise _refusal(event, fact, fix)


def _text(key: Key) -> str:
    return key.text if isinstance(key, Plain) else key


def _refusal(event: Any, fact: str, fix: str) -> InjectError:
    return _at(event.start_mark.line, fact, fix)


def _at(line: int, fact: str, fix: str) -> InjectError:
    return InjectError(fact, fix, f"line {line + 1}")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")


def _one_line(text: str) -> str:
    """What the parser says, which may show a piece of the document, for one line of output."""
    words = " ".join(text.split())
    return words if words.isprintable() else ascii(words)
