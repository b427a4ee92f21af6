"""
The YAML file -> what was given for which setting, with its line.

Values stay the texts that stand in the file: ``off`` is *off* and not *false*, ``10s`` and ``443`` go through the same
parsers as a variable. Imported only when there is a file, since yaml costs time and memory at start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.certs import sources
from sidecar.config import units
from sidecar.config.names import SEE_HELP, SETTINGS, Given, did_you_mean, is_group
from sidecar.errors import Problem

LARGEST_FILE = 1024 * 1024
"""Bytes. All settings together need about two thousand."""

MOST_PLACES = 20_000
"""Places in one setting whose lines are kept; problems with others have the line of what is around them."""

_DEEPEST = units.DEEPEST
"""Levels of nesting; more would only serve to exhaust the stack."""

_LONGEST_SHOWN = 120
"""Characters of a key, or of a place within a structured setting, in a message."""

_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "timestamp", "value"))
_NULL = "tag:yaml.org,2002:null"


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """Composes nodes without aliases, which a file of settings can do without and an alias bomb can not."""

    def __init__(self, content: str, deepest: int = _DEEPEST) -> None:
        """
        Args:
            deepest: How many levels may be nested.
        """
        super().__init__(content)
        self._deepest = deepest
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not supported", problem_mark=mark)
        if self._depth == self._deepest:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {self._deepest} levels", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def read(file: Given) -> tuple[dict[str, Given], list[Problem]]:
    """
    Settings given in a file, by name; and a problem for everything in it that is none.

    Args:
        file: The path, and where it was given; problems with the file as a whole name that.
    """
    try:
        root = _compose(content_of(file.text))
    except units.UnitError as error:
        return {}, [Problem(file.written, file.source, error.fact, error.fix)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source = f"{file.text}:{mark.line + 1}" if mark else file.text
        return {}, [Problem(file.written, source, _one_line(error.problem or error.context), "mend the YAML")]
    except yaml.YAMLError as error:
        return {}, [Problem(file.written, file.text, _one_line(str(error)), "mend the YAML")]
    reader = _Reader(file.text)
    if isinstance(root, yaml.MappingNode):
        reader.read_mapping(root, prefix="")
    elif root is not None and not _is_null(root):
        reader.refuse(file.written, root, "the file is not a mapping", "write it as NAME: VALUE lines")
    return reader.given, reader.problems


def content_of(path_text: str) -> str:
    """Return the text of a file of bounded size; raises UnitError."""
    path = units.parse_path(path_text) or Path("none")
    try:
        content = sources.content_of(path, LARGEST_FILE + 1)
    except sources.FileKindError as error:
        raise units.UnitError(f"{path} {error.fact}", error.fix) from None
    except OSError as error:
        raise units.UnitError(f"{path}: {error.strerror}", "give the path of a readable YAML file") from None
    if len(content) > LARGEST_FILE:
        raise units.UnitError(f"{path} is larger than 1MiB", "give the path of a file of settings")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise units.UnitError(f"{path} is not UTF-8 in line {line}", "save it as UTF-8") from None


def _compose(content: str) -> Any:
    loader = Loader(content)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _one_line(text: str) -> str:
    """What the YAML parser says, which may show a piece of the file, for one line of output."""
    words = " ".join(text.split())
    return words if words.isprintable() else ascii(words)


@attrs.define
class _Reader:
    """Collects settings and problems while walking the nodes of one file."""

    file: str
    given: dict[str, Given] = attrs.field(factory=dict)
    problems: list[Problem] = attrs.field(factory=list)

    def refuse(self, name: str, node: Any, fact: str, fix: str) -> None:
        self.problems.append(Problem(name, self._source(node), fact, fix))

    def _source(self, node: Any) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def read_mapping(self, mapping: Any, prefix: str) -> None:
        """Read ``NAME: VALUE`` pairs whose names continue *prefix*."""
        for word, key, value in self._entries(mapping):
            name = prefix + word
            if name in SETTINGS:
                self._read_setting(name, key, value)
            elif is_group(name, SETTINGS) and isinstance(value, yaml.MappingNode):
                self.read_mapping(value, f"{name}_")
            elif is_group(name, SETTINGS):
                if not _is_null(value):  # a group whose settings are all commented out is no mistake
                    fact = "this is a group of settings, not a setting"
                    self.refuse(name, key, fact, f"nest settings under it, as in {name}: {{NAME: VALUE}}")
            else:
                meant = name.lower().replace("-", "_").removeprefix("sidecar_")
                fix = did_you_mean(meant, SETTINGS)
                self.refuse(_shown(name), key, "there is no such setting", fix)

    def _entries(self, mapping: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
        """The word, key and value of each pair of a mapping, without those whose key is none or a duplicate."""
        seen: dict[str, Any] = {}
        for key, value in mapping.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self.refuse("key", key, "this is not the name of a setting", SEE_HELP)
            elif key.value in seen:
                first = self._source(seen[key.value])
                self.refuse(_shown(prefix + key.value), key, f"the key stands in {first} already", "keep one of them")
            else:
                seen[key.value] = key
                yield key.value, key, value

    def _read_setting(self, name: str, key: Any, value: Any) -> None:
        if name in self.given:
            self.refuse(name, key, f"the setting stands in {self.given[name].source} already", "keep one of them")
            return
        if SETTINGS[name].is_structured and isinstance(value, yaml.SequenceNode):
            places: dict[str, str] = {}
            text = json.dumps(self._plain(name, value, places))
            self.given[name] = Given(text, name, self._source(key), places)
            return
        nodes = value.value if isinstance(value, yaml.SequenceNode) and SETTINGS[name].is_list else [value]
        texts = [self._scalar(name, node) for node in nodes]
        text = ",".join(text for text in texts if text)
        if text:
            self.given[name] = Given(text, name, self._source(key))

    def _plain(self, place: str, node: Any, places: dict[str, str]) -> Any:
        """Lists, mappings and texts as they stand in the file; notes in *places* where that is."""
        if isinstance(node, yaml.SequenceNode):
            return [self._noted(f"{place}[{i}]", item, item, places) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            entries = self._entries(node, f"{place}.")
            return {word: self._noted(f"{place}.{word}", key, value, places) for word, key, value in entries}
        return None if _is_null(node) else self._text(_shown(place), node)

    def _noted(self, place: str, mark: Any, node: Any, places: dict[str, str]) -> Any:
        if len(places) < MOST_PLACES:
            places[place] = self._source(mark)
        return self._plain(place, node, places)

    def _scalar(self, name: str, node: Any) -> str:
        """The text of a scalar; empty for null and for what was refused."""
        if _is_null(node):
            return ""
        if not isinstance(node, yaml.ScalarNode):
            several = ", or a list of them" if SETTINGS[name].is_list else ""
            self.refuse(name, node, "this is not a single value", f"write {name}: VALUE{several}")
            return ""
        return self._text(name, node).strip()

    def _text(self, name: str, node: Any) -> str:
        """The text of a scalar, with the blanks that quotes keep; empty for what was refused."""
        if node.tag not in _SCALARS:
            self.refuse(name, node, f"the tag {units.quoted(node.tag)} is not supported", "write the value without it")
            return ""
        return str(node.value)


def _is_null(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _shown(name: str) -> str:
    """A key as it may stand at the start of a problem: as written if it is a plain word."""
    return name if name.isprintable() and len(name) <= _LONGEST_SHOWN else units.quoted(name)
