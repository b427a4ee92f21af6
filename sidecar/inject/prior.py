"""What was not there before the sidecar came, so that it is not there either when the sidecar has gone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sidecar.inject.tree import NULL, Branch, InjectError, Tree, branch_at, branches_at


@attrs.define
class Prior:
    """
    Attributes:
        absent: Keys that there were not.
        null: Keys behind which there was null.
    """

    absent: list[str] = attrs.field(factory=list)
    null: list[str] = attrs.field(factory=list)

    def mapping_in(self, parent: Branch, key: str) -> Branch:
        """The mapping behind *key*, made if there is none; raises InjectError."""
        branch_at(parent, key)  # refuses what is no mapping
        found = self._grown(parent, key, {})
        assert isinstance(found, dict)
        return found

    def list_in(self, parent: Branch, key: str) -> list[Tree]:
        """The list of mappings behind *key*, made if there is none; raises InjectError."""
        branches_at(parent, key)
        found = self._grown(parent, key, [])
        assert isinstance(found, list)
        return found

    def shrink(self, parent: Branch, key: str) -> None:
        """Undo what was made for *key*, unless somebody else has put something there."""
        if parent.get(key) in ({}, []):
            if key in self.absent:
                del parent[key]
            elif key in self.null:
                parent[key] = NULL

    def _grown(self, parent: Branch, key: str, empty: Tree) -> Tree:
        if parent.get(key, NULL) == NULL:
            (self.null if key in parent else self.absent).append(key)
            parent[key] = empty
        return parent[key]

    def noted(self) -> dict[str, object]:
        """As JSON has it; `read` takes it."""
        return {name: keys for name, keys in (("absent", self.absent), ("null", self.null)) if keys}


def read(noted: Mapping[str, object]) -> Prior:
    """Read what `Prior.noted` wrote; raises InjectError if somebody has changed it."""
    return Prior(_keys(noted.get("absent", [])), _keys(noted.get("null", [])))


def _keys(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise InjectError("its mark is not as it was written", "take the sidecar out by hand, with its mark")
    return list(value)
