"""Kubernetes objects in a stream: what they are, which of them have pods, and where their pod templates are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from sidecar.inject.tree import TRUE, Branch, InjectError, branch_at, branches_at, needed_branch, scalar_text, text_at

_TEMPLATE = ("spec", "template")

# Kind -> API group, and the way to its pod template. Other groups have kinds of the same names.
_KINDS: Final = {
    "Pod": ("", ()),
    "PodTemplate": ("", ("template",)),
    "ReplicationController": ("", _TEMPLATE),
    "Deployment": ("apps", _TEMPLATE),
    "StatefulSet": ("apps", _TEMPLATE),
    "DaemonSet": ("apps", _TEMPLATE),
    "ReplicaSet": ("apps", _TEMPLATE),
    "Job": ("batch", _TEMPLATE),
    "CronJob": ("batch", ("spec", "jobTemplate", "spec", "template")),
}

NETWORKING: Final = "networking.k8s.io"


@attrs.frozen(eq=False)
class Item:
    """
    One Kubernetes object; equal to itself only.

    Attributes:
        kind: Such as ``Deployment``.
        group: Such as ``apps``; "" for the core.
        name: It may be empty, where the cluster makes one.
        root: All of it.
    """

    kind: str
    group: str
    name: str
    root: Branch

    @property
    def title(self) -> str:
        """How messages call it."""
        name = self.name if self.name.isprintable() else ascii(self.name)
        return f"{self.kind} {name}".strip()

    @property
    def namespace(self) -> str:
        return text_at(branch_at(self.root, "metadata") or {}, "namespace")

    @property
    def has_pods(self) -> bool:
        return _KINDS.get(self.kind, ("?",))[0] == self.group

    @property
    def has_pods_unknown(self) -> bool:
        """Whether it looks as if it had pods, and is of a kind that is not known here."""
        spec = _inside(self.root, (*_TEMPLATE, "spec"))
        return not self.has_pods and isinstance(spec.get("containers"), list)

    @property
    def is_ingress(self) -> bool:
        return (self.group, self.kind) == (NETWORKING, "Ingress")

    @property
    def is_policy(self) -> bool:
        return (self.group, self.kind) == (NETWORKING, "NetworkPolicy")

    @property
    def is_service(self) -> bool:
        return (self.group, self.kind) == ("", "Service")

    @property
    def owner(self) -> str:
        """What made it, and makes it again; "" if a person did."""
        for each in branches_at(branch_at(self.root, "metadata") or {}, "ownerReferences"):
            if each.get("controller") == TRUE:
                return f"{text_at(each, 'kind')} {text_at(each, 'name')}"
        return ""

    def template(self) -> Branch:
        """The pod template; raises InjectError."""
        found = self.root
        try:
            for key in _KINDS[self.kind][1]:
                found = needed_branch(found, key)
        except InjectError as error:
            raise error.within(self.title) from None
        return found

    def pod_labels(self) -> frozenset[tuple[str, str]]:
        """The labels of its pods, without whatever is none; none at all if it has no pods."""
        labels = _inside(self.root, (*(_KINDS[self.kind][1] if self.has_pods else _TEMPLATE), "metadata", "labels"))
        return frozenset((scalar_text(key), scalar_text(value)) for key, value in labels.items())

    def is_named(self, wanted: str) -> bool:
        """Whether ``NAME`` or ``KIND/NAME`` means it."""
        kind, separator, name = wanted.rpartition("/")
        return name == self.name and (not separator or kind.lower() == self.kind.lower())


def is_object(root: Branch) -> bool:
    """Whether a document is a Kubernetes object."""
    return bool(text_at(root, "kind") and text_at(root, "apiVersion"))


def items(root: Branch) -> Iterator[Item]:
    """The object in a document, or all in it if it is a list; raises InjectError."""
    return _items(root, text_at(root, "kind"), text_at(root, "apiVersion"))


def _items(root: Branch, kind: str, version: str) -> Iterator[Item]:
    if kind.endswith("List") and isinstance(root.get("items"), list):
        for each in branches_at(root, "items"):
            # In lists of one kind, as the API gives them, the items do not say theirs.
            inner = text_at(each, "kind") or kind.removesuffix("List")
            yield from _items(each, inner, text_at(each, "apiVersion") or version)
    else:
        group = version.rpartition("/")[0]
        yield Item(kind, group, text_at(branch_at(root, "metadata") or {}, "name"), root)


def _inside(root: Branch, way: tuple[str, ...]) -> Branch:
    """The mapping that *way* leads to; an empty one if there is none."""
    found = root
    for key in way:
        value = found.get(key)
        if not isinstance(value, dict):
            return {}
        found = value
    return found
