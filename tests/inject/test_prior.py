"""`sidecar.inject.prior`: nothing is left of what was made."""

from __future__ import annotations

import pytest

from sidecar.inject.prior import Prior, read
from sidecar.inject.tree import NULL, Branch, InjectError, Tree

KINDS = pytest.mark.parametrize(
    "original",
    [
        pytest.param({"a": "b"}, id="absent"),
        pytest.param({"key": NULL, "a": "b"}, id="null"),
        pytest.param({"key": [], "a": "b"}, id="empty"),
        pytest.param({"key": [{"own": "x"}], "a": "b"}, id="filled"),
    ],
)


class TestPrior:
    @KINDS
    def test_list_becomes_what_it_was(self, original: Branch) -> None:
        """Absent, null and empty are three things, and each comes back in its place."""
        parent, known = dict(original), Prior()
        if "key" in parent and isinstance(parent["key"], list):
            parent["key"] = [*parent["key"]]
        ours: Tree = {"ours": "x"}

        known.list_in(parent, "key").append(ours)
        again = read(known.noted())
        known.list_in(parent, "key").remove(ours)
        again.shrink(parent, "key")

        assert parent == original
        assert [*parent] == [*original]

    def test_what_somebody_put_there_since_stays(self) -> None:
        """A list that we made and others use is not ours to take away."""
        parent: Branch = {}
        known = Prior()
        known.list_in(parent, "key").append({"theirs": "x"})
        known.shrink(parent, "key")
        assert parent == {"key": [{"theirs": "x"}]}

    @pytest.mark.parametrize("value", ["text", {"a": "b"}, ["text"]], ids=["text", "mapping", "texts"])
    def test_wrong_shape_is_refused(self, value: Tree) -> None:
        """Nothing is put into what is no list of mappings."""
        with pytest.raises(InjectError):
            Prior().list_in({"key": value}, "key")

    @pytest.mark.parametrize("noted", [{"absent": "x"}, {"null": [1]}, {"absent": None}])
    def test_changed_note_is_refused(self, noted: dict[str, object]) -> None:
        """A note that was edited is not guessed at."""
        with pytest.raises(InjectError, match="not as it was written"):
            read(noted)
