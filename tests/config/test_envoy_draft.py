"""`sidecar.config.envoy_draft`: settings in the making."""

from __future__ import annotations

import pytest

from sidecar.config.envoy_draft import LONGEST_NAME, Block, Draft, is_name, lines, plain
from sidecar.config.envoy_nodes import Findings, Node, parse


@pytest.fixture
def draft() -> Draft:
    return Draft(Findings("x"))


def tree(draft: Draft, content: str) -> Node:
    return parse(content, draft.findings)


class TestBlock:
    def test_lines_are_those_of_the_nearest_block(self) -> None:
        """A value without a line of its own has that of what it is in."""
        value = [Block(3, {"a": "x", "b": Block(5, {"c": "y"})})]

        assert dict(lines(value, "clusters", 1)) == {
            "clusters": 1,
            "clusters[0]": 3,
            "clusters[0].a": 3,
            "clusters[0].b": 5,
            "clusters[0].b.c": 5,
        }

    def test_plain_has_mappings(self) -> None:
        """Blocks are for lines only."""
        assert plain([Block(1, {"a": ["x", Block(2, {})]}), "y"]) == [{"a": ["x", {}]}, "y"]


class TestPut:
    def test_first_value_holds(self, draft: Draft) -> None:
        """What a second listener says otherwise is left out, with the place of the first."""
        node = tree(draft, "a: 1\nb: 2\nc: 1")
        for name in ("a", "b", "c"):
            value = node.get(name)
            assert value is not None
            draft.put("idle_timeout", node.text(name), value)
        node.report()

        assert draft.settings["idle_timeout"].value == "1"
        assert [(item.path, item.reason) for item in draft.findings.left_out] == [
            ("b", "there is one idle_timeout for all listeners, and a has set it")
        ]


class TestClusters:
    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("local_service", "local_service"),
            ("outbound|80||shop.svc", "outbound-80-shop.svc"),
            ("_x", "x"),
            ("é", "cluster"),
            ("a" * 80, "a" * LONGEST_NAME),
        ],
    )
    def test_name_is_made_one_of_ours(self, draft: Draft, name: str, ours: str) -> None:
        """Characters that names cannot have here are replaced, and that is noted."""
        assert draft.add_cluster(name, tree(draft, "a: 1")) == ours
        assert is_name(ours)
        assert bool(draft.findings.notes) == (name != ours)

    def test_replaced_names_stay_apart(self, draft: Draft) -> None:
        """Two clusters never become one."""
        names = [draft.add_cluster(name, tree(draft, "a: 1")) for name in ("a|b", "a||b", "a-b", "a" * 80, "a" * 90)]

        assert len(set(names)) == 5
        assert all(map(is_name, names))

    def test_repeated_name_is_refused(self, draft: Draft) -> None:
        """It would be chance which of the two is meant."""
        for _ in range(2):
            draft.add_cluster("a", tree(draft, "name: a"))

        assert len(draft.findings.problems) == 1

    def test_cluster_that_is_not_there_is_refused(self, draft: Draft) -> None:
        """A route must not lead nowhere."""
        draft.add_cluster("a|b", tree(draft, "x: 1"))
        node = tree(draft, "cluster: a|b\nother: nowhere")

        assert (draft.cluster(node), draft.cluster(node, "other"), draft.cluster(node, "none")) == ("a-b", "", "")
        assert [problem.setting for problem in draft.findings.problems] == ["other"]
