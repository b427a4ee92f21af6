"""
An Envoy bootstrap file as a tree that remembers which of its values were read.

Readers take from a `Node` what they carry over. At the end `Node.report` goes through the tree once more: what nobody
asked for is left out, and said to be, with its path. So a field that no reader has heard of is never dropped silently;
and in messages where every field narrows something down (`Node.must_be_whole`), it is refused.

Field names are taken as protobuf's JSON takes them, in snake_case and in lowerCamelCase.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.config import units
from sidecar.config.yamlfile import Loader
from sidecar.errors import ConfigError, Problem

LARGEST_FILE: Final = 1024 * 1024
"""Bytes. The longest bootstrap files that people write by hand have a few thousand lines."""

DEEPEST: Final = 64
"""Levels of nesting. A route's header matcher is about 25 deep; more would only serve to exhaust the stack."""

UNKNOWN: Final = "there is nothing like it here"
"""Why a field is left out that no reader knows."""

_ROOT: Final = "bootstrap"
"""What the file as a whole is called in problems, since its path is empty."""

_UNCHECKED: Final = "certificates would not be checked as they are there"

# Fields that keep somebody out, or something away from the app, wherever they stand.
_SAFEGUARDS: Final = {
    "rate_limits": "requests would not be limited",
    "rate_limit_per_route": "requests would not be limited",
    "request_headers_to_remove": "the app would get fields that it is not meant to see",
    "require_tls": "requests without TLS would be served",
    "internal_only_headers": "the app would get fields that only some may send",
    "early_header_mutation_extensions": "the app would get fields that it is not meant to see",
    "filter_chain_matcher": "connections would get another filter chain",
    "validation_context_sds_secret_config": _UNCHECKED,
    "combined_validation_context": _UNCHECKED,
    "validation_context_certificate_provider": _UNCHECKED,
    "validation_context_certificate_provider_instance": _UNCHECKED,
}

_SECRET: Final = re.compile(r"inline|password|secret|token|key", re.IGNORECASE)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@attrs.frozen
class LeftOut:
    """
    A part of the file that was not carried over.

    Attributes:
        path: Where it is, such as ``static_resources.listeners[0].name``.
        line: The line of its key, or of its value in a list.
        value: What stands there, shortened; never key material.
        reason: Why, and what to do in its place if there is something.
    """

    path: str
    line: int
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} (line {self.line}): {self.value}: {self.reason}"


@attrs.define
class Findings:
    """What becomes known while a file is read: what is wrong, what was left out, what to know about the rest."""

    source: str
    problems: list[Problem] = attrs.field(factory=list)
    left_out: list[LeftOut] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)


@attrs.define(eq=False, repr=False)
class Node:
    """
    One value.

    Attributes:
        path: Where it is, as in `LeftOut`.
        name: Its key as written; "" in a list.
        line: Of its key, from 1.
        content: A text, or nodes: those of a mapping have names. None for null.
        is_list: Whether the nodes are those of a list.
    """

    path: str
    name: str
    line: int
    content: str | list[Node] | None
    is_list: bool
    findings: Findings
    _is_read: bool = False
    _is_done: bool = False
    _reason: str = ""
    _loss: str = ""
    _loss_of_unknown: str = ""

    # -- what it is --

    @property
    def is_nothing(self) -> bool:
        """Whether it is as good as not there: null or an empty list. An empty mapping may mean something by itself."""
        return self.content is None or (self.is_list and not self.content)

    @property
    def is_empty(self) -> bool:
        """Whether it is null, or a list or mapping without entries."""
        return self.content is None or self.content == []

    @property
    def entries(self) -> list[Node]:
        """The values of a mapping, or the entries of a list; all of them count as read."""
        nodes = self.content if isinstance(self.content, list) else []
        for node in nodes:
            node._is_read = True
        return nodes

    def plain(self) -> Any:
        """The whole of it as mappings, lists, texts and None; it does not count as read by that."""
        if not isinstance(self.content, list):
            return self.content
        if self.is_list:
            return [node.plain() for node in self.content]
        return {node.name: node.plain() for node in self.content}

    def has(self, name: str) -> bool:
        """Whether the mapping has a field, which does not count as read by that."""
        return self._find(name) is not None

    # -- fields of a mapping --

    def get(self, name: str) -> Node | None:
        """The value of a field, whatever it is; None if it is not there, or null."""
        node = self._find(name)
        if node is None:
            return None
        node._is_read = True
        return None if node.content is None else node

    def text(self, name: str, default: str = "") -> str:
        """A field that is a text."""
        node = self.get(name)
        if node is None:
            return default
        if isinstance(node.content, str):
            return node.content
        node.refuse("this is not a single value", f"write {name}: VALUE")
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        """A field that is true or false."""
        text = self.text(name)
        if not text or (value := _FLAGS.get(text.lower())) is None:
            if text:
                self._refuse(name, f"{units.quoted(text)} is neither true nor false", "write one of the two")
            return default
        return value

    def number(self, name: str) -> int | None:
        """A field that is a whole number, not below 0; None if it is not there."""
        text = self.text(name)
        if not text:
            return None
        if re.fullmatch(r"[0-9]{1,12}(?:\.0)?", text, re.ASCII) is None:
            self._refuse(name, f"{units.quoted(text)} is not a whole number", "write digits only, e.g. 100")
            return None
        return int(text.partition(".")[0])

    def word(self, name: str, words: Mapping[str, str] | tuple[str, ...], default: str = "") -> str:
        """A field that is one of several words, in whatever case, or the number of one in the enumeration."""
        text = self.text(name)
        if not text:
            return default
        known = list(words)
        found = next((word for word in known if word.lower() == text.lower()), None)
        if found is None and text.isdecimal() and int(text) < len(known):
            found = known[int(text)]
        if found is None:
            self._refuse(name, f"{units.quoted(text)} is not carried over", f"write one of {', '.join(known)}")
            return default
        return found

    def mapping(self, name: str) -> Node | None:
        """A field that is a mapping."""
        node = self.get(name)
        if node is None or (isinstance(node.content, list) and (not node.is_list or not node.content)):
            return node
        node.refuse("this is not a mapping", "write it as NAME: VALUE lines below")
        return None

    def items(self, name: str) -> list[Node]:
        """A field that is a list of mappings or texts."""
        node = self.get(name)
        if node is None:
            return []
        if not node.is_list and node.content != []:
            node.refuse("this is not a list", "write its entries as lines that begin with -")
            return []
        return node.entries

    def mappings(self, name: str) -> list[Node]:
        """A field that is a list of mappings; what else stands in it is refused."""
        nodes = self.items(name)
        for node in nodes:
            if node.is_list or isinstance(node.content, str):
                node.refuse("this is not a mapping", "write it as NAME: VALUE lines")
        return [node for node in nodes if not node.is_list and not isinstance(node.content, str)]

    def texts(self, name: str) -> list[Node]:
        """A field that is a list of texts; what else stands in it is refused."""
        nodes = self.items(name)
        for node in nodes:
            if not isinstance(node.content, str):
                node.refuse("this is not a single value", "write a text")
        return [node for node in nodes if isinstance(node.content, str)]

    # -- what becomes of it --

    def ignore(self, *names: str) -> None:
        """Fields whose loss makes no difference."""
        for name in names:
            node = self._find(name)
            if node is not None:
                node.done()

    def done(self) -> None:
        """Nothing in it needs to be reported."""
        self._is_read = self._is_done = True

    def leave_out(self, name: str, reason: str) -> None:
        """A field that is not carried over, if it is there."""
        node = self._find(name)
        if node is not None and not node.is_nothing:
            node.lose(reason)

    def lose(self, reason: str) -> None:
        """This is not carried over."""
        self._reason = reason

    def must_be_whole(self, loss: str) -> None:
        """
        Nothing in it can be left out: it is refused instead.

        Args:
            loss: What would be wrong without it.
        """
        self._loss = loss

    def must_be_known(self, loss: str) -> None:
        """
        A field in it that nobody here has heard of is refused: it may be one of those that keep somebody out, misspelt.

        Args:
            loss: As for `must_be_whole`.
        """
        self._loss_of_unknown = loss

    def refuse(self, fact: str, fix: str) -> None:
        """It cannot be carried over, and nothing works without it."""
        self.done()
        self.findings.problems.append(Problem(self.path or _ROOT, f"{self.findings.source}:{self.line}", fact, fix))

    def report(self, loss: str = "") -> None:
        """Tell about everything in it that was not read."""
        if self._is_done or (not self._is_read and self.is_nothing):
            return
        if self._reason or not self._is_read:
            loss = _SAFEGUARDS.get(_snake(self.name), loss)
            if loss:
                self.refuse(f"this cannot be carried over, and without it {loss}", "remove it if that is right")
            else:
                self.findings.left_out.append(LeftOut(self.path, self.line, self.shown(), self._reason or UNKNOWN))
            return
        for node in self.content if isinstance(self.content, list) else ():
            is_unknown = not node._is_read and not node._reason
            node.report(self._loss_of_unknown if is_unknown and self._loss_of_unknown else self._loss or loss)

    def shown(self) -> str:
        """What stands there, for people: a text, or the names of what is in it."""
        if not isinstance(self.content, list):
            return "not shown" if _SECRET.search(self.name) else units.quoted(self.content or "")
        if self.is_list:
            return "1 entry" if len(self.content) == 1 else f"{len(self.content)} entries"
        return units.quoted(", ".join(node.name for node in self.content)) if self.content else "{}"

    # -- small steps --

    def _find(self, name: str) -> Node | None:
        if self.is_list or not isinstance(self.content, list):
            return None
        found = [node for node in self.content if _folded(node.name) == _folded(name)]
        for other in found[1:]:
            if not other._is_done:
                other.refuse(f"the field stands in line {found[0].line} already", "keep one of them")
        return found[0] if found else None

    def _refuse(self, name: str, fact: str, fix: str) -> None:
        node = self._find(name)
        assert node is not None  # its text was looked at
        node.refuse(fact, fix)


# What yaml-cpp takes for true and false, and Envoy with it.
_FLAGS: Final = dict.fromkeys(("true", "yes", "on", "y"), True) | dict.fromkeys(("false", "no", "off", "n"), False)


def _folded(name: str) -> str:
    """What snake_case and lowerCamelCase of one name have in common; ``accept_http_10`` is ``acceptHttp10``."""
    return name.replace("_", "").lower()


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)


# -- from text -------------------------------------------------------------------------------------------------


def parse(content: str, findings: Findings) -> Node:
    """
    Read YAML or JSON.

    Returns:
        The root, which is a mapping. What is wrong with single keys, *findings* tell.

    Raises:
        ConfigError: It is too large, neither of the two, or no mapping.
    """
    size = len(content.encode("utf-8", "surrogatepass"))
    if size > LARGEST_FILE:
        raise _unreadable(findings.source, f"the file has {size:,} bytes, limit {LARGEST_FILE:,}", "split it")
    try:
        root = _compose(content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source = f"{findings.source}:{mark.line + 1}" if mark else findings.source
        raise _unreadable(source, _one_line(error.problem or error.context), "mend the YAML") from None
    except yaml.YAMLError as error:
        raise _unreadable(findings.source, _one_line(str(error)), "mend the YAML") from None
    if not isinstance(root, yaml.MappingNode):
        fix = "give a file that begins with static_resources: or admin:"
        raise _unreadable(findings.source, "this is not an Envoy bootstrap: it is no mapping", fix)
    node = _node(root, "", "", root.start_mark.line + 1, findings)
    node._is_read = True
    return node


def _unreadable(source: str, fact: str, fix: str) -> ConfigError:
    return ConfigError([Problem(_ROOT, source, fact, fix)])


def _compose(content: str) -> Any:
    # YAML takes tabs between tokens for mistakes; in JSON they cannot be anything but blanks.
    loader = Loader(content.replace("\t", " ") if _is_json(content) else content, DEEPEST)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _is_json(content: str) -> bool:
    if not content.lstrip().startswith("{"):
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if words.isprintable() else ascii(words)


_NULL: Final = "tag:yaml.org,2002:null"
_STANDARD: Final = "tag:yaml.org,2002:"


def _node(node: Any, path: str, name: str, line: int, findings: Findings) -> Node:
    if isinstance(node, yaml.SequenceNode):
        items: list[Node] = [
            _node(item, f"{path}[{index}]", "", item.start_mark.line + 1, findings)
            for index, item in enumerate(node.value)
        ]
        return Node(path, name, line, items, True, findings)
    made = Node(path, name, line, None, False, findings)
    if isinstance(node, yaml.MappingNode):
        made.content = list(_fields(node, path, findings))
    elif not node.tag.startswith(_STANDARD):
        made.refuse(f"the tag {units.quoted(node.tag)} is not supported", "write the value without it")
    elif node.tag != _NULL:
        made.content = _joined(str(node.value))
    return made


def _joined(text: str) -> str:
    """*text* with the character that two escapes of JSON mean together, which YAML takes for two characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fields(mapping: Any, path: str, findings: Findings) -> Iterator[Node]:
    seen: dict[str, int] = {}
    for key, value in mapping.value:
        name, line = str(key.value) if isinstance(key, yaml.ScalarNode) else "", key.start_mark.line + 1
        node = _node(value, _below(path, name), name, line, findings)
        if not name:
            node.refuse("this is not the name of a field", "write NAME: VALUE")
        elif name in seen:
            node.refuse(f"the field stands in line {seen[name]} already", "keep one of them")
        else:
            seen[name] = line
            yield node


def _below(path: str, name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return f"{path}.{name}" if path else name
    return f"{path}[{units.quoted(name)}]"
