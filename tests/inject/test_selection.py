"""`sidecar.inject.selection`: labels decide which pods are meant."""

from __future__ import annotations

import pytest

from sidecar.inject.objects import Item
from sidecar.inject.selection import Selection
from sidecar.inject.tree import Branch, Plain


def item(name: str, labels: Branch, namespace: str = "") -> Item:
    return Item("Pod", "", name, {"metadata": {"namespace": namespace, "labels": labels}})


ITEMS = [
    item("a", {"app": "web", "tier": "front"}),
    item("b", {"app": "web"}),
    item("c", {"app": Plain("5")}),
    item("d", {}),
    item("e", {"app": "web"}, "other"),
    item("f", {"app": "db", "tier": "front"}),
]


class TestOf:
    @pytest.mark.parametrize(
        ("namespace", "wanted", "names"),
        [
            pytest.param("", {"app": "web"}, "ab", id="one-label"),
            pytest.param("", {"app": "web", "tier": "front"}, "a", id="all-labels-must-fit"),
            pytest.param("", {"app": "web", "tier": "back"}, "", id="one-does-not"),
            pytest.param("", {"app": "5"}, "c", id="written-otherwise"),
            pytest.param("", {"app": ""}, "", id="empty-is-not-missing"),
            pytest.param("", {}, "abcdf", id="none-wanted"),
            pytest.param("other", {"app": "web"}, "e", id="elsewhere"),
            pytest.param("nowhere", {}, "", id="nowhere"),
        ],
    )
    def test_those_with_all_labels_are_found(self, namespace: str, wanted: Branch, names: str) -> None:
        """In their order, and in that namespace alone."""
        assert "".join(each.name for each in Selection(ITEMS).of(namespace, wanted)) == names
