"""What is made of an Envoy bootstrap: our settings, while its parts are read one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from sidecar.config.entries import parse_name
from sidecar.config.envoy_nodes import Findings, Node
from sidecar.config.units import UnitError

LONGEST_NAME: Final = 60


def is_name(text: str) -> bool:
    """Whether clusters, listeners, virtual hosts and routes may be called so."""
    try:
        parse_name(text)
    except UnitError:
        return False
    return True


@attrs.frozen
class Block:
    """
    A mapping of ours, and the line of what it was made from.

    Attributes:
        values: Texts, and lists and further entries of them.
    """

    line: int
    values: Mapping[str, Any]


def plain(value: Any) -> Any:
    """*value* with mappings in place of entries."""
    if isinstance(value, Block):
        return {name: plain(inner) for name, inner in value.values.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def lines(value: Any, place: str, line: int) -> Iterator[tuple[str, int]]:
    """
    The lines of everything in a value.

    Args:
        place: Of *value*, such as ``clusters[0].tls``.
        line: For what no entry says better.
    """
    if isinstance(value, Block):
        line = value.line
        for name, inner in value.values.items():
            yield from lines(inner, f"{place}.{name}", line)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from lines(item, f"{place}[{index}]", line)
    yield place, line


@attrs.frozen
class Chosen:
    """The value of a setting, and from where in the file it came."""

    value: Any  # a text, a list of texts, or of entries
    node: Node


@attrs.define
class Draft:
    """
    Settings that hold for all of the program, and the clusters that there are.

    Attributes:
        settings: By name.
        clusters: Envoy's name -> ours.
        raw: Our names of clusters that get bytes, not requests.
    """

    findings: Findings
    settings: dict[str, Chosen] = attrs.field(factory=dict)
    clusters: dict[str, str] = attrs.field(factory=dict)
    raw: set[str] = attrs.field(factory=set)

    def put(self, name: str, value: Any, node: Node) -> None:
        """Choose a setting. If another listener has chosen otherwise before, *node* is left out."""
        chosen = self.settings.setdefault(name, Chosen(value, node))
        if chosen.value != value:
            node.lose(f"there is one {name} for all listeners, and {chosen.node.path} has set it")

    def has(self, name: str) -> bool:
        """Whether a setting is chosen."""
        return name in self.settings

    def note(self, text: str) -> None:
        """Tell the operator something about what was carried over."""
        self.findings.note(text)

    def add_cluster(self, name: str, node: Node) -> str:
        """Our name for a cluster of the file."""
        if name in self.clusters:
            node.refuse(f"there is a cluster {name!a} already", "give each its own name")
            return self.clusters[name]
        ours = _unique(name, set(self.clusters.values()))
        if ours != name:
            self.note(f"cluster {name!a} is called {ours} here: names have letters, digits and ._/- only")
        self.clusters[name] = ours
        return ours

    def cluster(self, parent: Node, field: str = "cluster") -> str:
        """Our name for the cluster that a field of *parent* names; "" if there is none, which is refused."""
        name = parent.text(field)
        if name and name not in self.clusters:
            node = parent.get(field)
            assert node is not None  # it has a text
            fix = "define it under static_resources.clusters: nothing is fetched from a control plane"
            node.refuse(f"there is no cluster {name[:60]!a} in this file", fix)
            return ""
        return self.clusters.get(name, "")


def _unique(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9._/-]+", "-", name).lstrip("._/-")[:LONGEST_NAME] or "cluster"
    ours, count = base, 1
    while ours in taken:
        count += 1
        ours = f"{base[: LONGEST_NAME - 5]}-{count}"
    return ours
