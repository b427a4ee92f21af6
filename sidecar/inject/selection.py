"""Which objects a selector means, found by labels: comparing all with all takes too long for a stream of a cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sidecar.inject.objects import Item
from sidecar.inject.tree import Branch, scalar_text


class Selection:
    """Objects that have pods, in their order, to be asked for by the labels of these pods."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._labels: dict[Item, frozenset[tuple[str, str]]] = {}
        self._by_namespace: dict[str, list[Item]] = defaultdict(list)
        self._by_label: dict[tuple[str, tuple[str, str]], list[Item]] = defaultdict(list)
        for item in items:
            self._labels[item] = item.pod_labels()
            self._by_namespace[item.namespace].append(item)
            for label in self._labels[item]:
                self._by_label[item.namespace, label].append(item)

    def of(self, namespace: str, wanted: Branch) -> list[Item]:
        """Those in *namespace* whose pods have all labels that are *wanted*; all of them if none is."""
        pairs = frozenset((scalar_text(key), scalar_text(value)) for key, value in wanted.items())
        if not pairs:
            return [*self._by_namespace.get(namespace, ())]
        fewest = min((self._by_label.get((namespace, pair), []) for pair in pairs), key=len)
        return [item for item in fewest if pairs <= self._labels[item]]
