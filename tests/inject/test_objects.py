"""`sidecar.inject.objects`: what an object is, and where its pods are."""

from __future__ import annotations

import pytest

from sidecar.inject import yamlread
from sidecar.inject.objects import Item, is_object, items
from tests.inject.manifests import SERVICE, deployment, pod


def found(text: str) -> list[Item]:
    [root] = yamlread.read(text)
    assert isinstance(root, dict)
    return [*items(root)]


class TestItems:
    def test_lists_are_taken_apart(self) -> None:
        """In lists of one kind the items do not say theirs."""
        text = "apiVersion: apps/v1\nkind: DeploymentList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]"
        assert [(item.kind, item.group, item.name) for item in found(text)] == [
            ("Deployment", "apps", "a"),
            ("Deployment", "apps", "b"),
        ]

    @pytest.mark.parametrize("text", ["kind: Pod", "apiVersion: v1", "a: b"])
    def test_document_without_kind_or_version_is_none(self, text: str) -> None:
        """Something else than Kubernetes wrote it."""
        [root] = yamlread.read(text)
        assert isinstance(root, dict)
        assert not is_object(root)


class TestPods:
    @pytest.mark.parametrize(
        ("text", "known", "unknown"),
        [
            pytest.param(deployment(), True, False, id="known"),
            pytest.param(deployment().replace("apps/v1", "example.com/v1"), False, True, id="another-group"),
            pytest.param(SERVICE, False, False, id="without-pods"),
        ],
    )
    def test_kind_and_group_say_what_is_known(self, text: str, known: bool, unknown: bool) -> None:
        """What looks like a pod template in an unknown kind is seen, and not touched."""
        [item] = found(text)
        assert (item.has_pods, item.has_pods_unknown) == (known, unknown)

    @pytest.mark.parametrize(
        ("text", "labels"),
        [
            pytest.param(pod(), {("app", "web")}, id="pod"),
            pytest.param(deployment(), {("app", "web")}, id="template"),
            pytest.param(deployment().replace("apps/v1", "example.com/v1"), {("app", "web")}, id="unknown-kind"),
            pytest.param("apiVersion: v1\nkind: Pod\nmetadata: {labels: {1: true}}", {("1", "true")}, id="no-texts"),
            pytest.param("apiVersion: v1\nkind: Pod\nmetadata: {labels: x}", set(), id="no-mapping"),
            pytest.param("apiVersion: apps/v1\nkind: Deployment", set(), id="no-template"),
        ],
    )
    def test_labels_are_those_of_the_pods(self, text: str, labels: set[tuple[str, str]]) -> None:
        """However they are written, and whatever else stands there."""
        [item] = found(text)
        assert item.pod_labels() == labels
