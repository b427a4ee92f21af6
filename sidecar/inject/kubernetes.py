"""Which Kubernetes objects have pods, and what becomes of them and of the Services in front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from sidecar.inject import around, pods, services
from sidecar.inject.options import Options
from sidecar.inject.pods import Front
from sidecar.inject.tree import TRUE, Branch, InjectError, branch_at, branches_at, needed_branch, text_at

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

_NETWORKING = "networking.k8s.io"

_ENDING = ("Job", "CronJob")
_NOT_ASKED = ("", "none")


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


def add(found: Sequence[Item], options: Options) -> list[str]:
    """
    Put the sidecar into all that have pods, and change the Services that lead there.

    Returns:
        What the operator has to know, a line each.

    Raises:
        InjectError: It does not fit somewhere.
        ConfigError: The settings do not work.
    """
    _refuse_ecs_options(options)
    notes: list[str] = []
    fronts: list[tuple[Item, Front]] = []
    meant = _meant(found, options, notes)
    if not meant:
        raise InjectError("all that has pods here is made by something else", "pipe in what makes it")
    for item in meant:
        try:
            fronts.append((item, _add_to(item, options, notes)))
        except InjectError as error:
            raise error.within(item.title) from None
    return notes + _redirect_services(found, fronts)


def remove(found: Sequence[Item], options: Options) -> list[str]:
    """As `add`, but take the sidecar out."""
    notes: list[str] = []
    meant = _meant(found, options, notes)
    for item in (*meant, *_services_of(meant, found, everything=not options.only)):
        try:
            if item.is_service:
                services.restore(item.root)
            elif pods.remove(item.template()) is None:
                notes.append(f"{item.title}: there is no sidecar of ours in it")
        except InjectError as error:
            raise error.within(item.title) from None
    return notes


def _add_to(item: Item, options: Options, notes: list[str]) -> Front:
    if options.classic and item.kind in _ENDING:
        fact = "with a classic sidecar its pods would never end"
        raise InjectError(fact, "leave out --classic, or leave this one out with --only")
    template = item.template()
    before = pods.remove(template)
    front = pods.add(template, options)
    behind = f"port {front.app_port}" if front.app_port is not None else "a socket"
    notes.append(f"{item.title}: TLS on port {front.port}, in front of container {front.app} on {behind}")
    notes += [f"{item.title}: warning: {note}" for note in front.notes]
    asked = pods.client_certificates(before) if before else ""
    if asked not in _NOT_ASKED and pods.client_certificates(_ours(template)) in _NOT_ASKED:
        notes.append(f"{item.title}: warning: clients were asked for certificates ({asked}), and are not any more")
    if item.kind == "Pod" and branch_at(item.root, "status"):
        notes.append(f"{item.title}: warning: a running pod takes no containers: kubectl replace --force -f -")
    return front


def _ours(template: Branch) -> Branch:
    return pods.sidecar_of(needed_branch(template, "spec"))


def _meant(found: Sequence[Item], options: Options, notes: list[str]) -> list[Item]:
    """The objects with pods that the operator means, without those that something else makes again and again."""
    for wanted in options.only:
        if not any(item.has_pods and item.is_named(wanted) for item in found):
            names = ", ".join(item.title for item in found if item.has_pods) or "nothing"
            raise InjectError(f"--only {wanted!a}: there is none; what has pods is {names}", "correct the name")
    meant = []
    for item in found:
        if not item.has_pods or (options.only and not any(item.is_named(wanted) for wanted in options.only)):
            continue
        if item.owner:
            notes.append(f"{item.title}: left alone, since {item.owner} makes it")
        else:
            meant.append(item)
    return meant


def _refuse_ecs_options(options: Options) -> None:
    if options.cert_arn or options.key_arn or options.client_ca_arn:
        raise InjectError("an ARN means nothing to Kubernetes", "give --secret or --client-ca-secret")


# -- Services -------------------------------------------------------------------------------------------------------


def _redirect_services(found: Sequence[Item], fronts: Sequence[tuple[Item, Front]]) -> list[str]:
    notes: list[str] = []
    reached: list[Item] = []
    for service in (item for item in found if item.is_service):
        behind = [(item, front) for item, front in fronts if _leads_to(service, item)]
        if not behind:
            continue
        try:
            services.restore(service.root)
            ports = services.redirect(service.root, [front for _, front in behind])
        except InjectError as error:
            raise error.within(service.title) from None
        if ports:
            reached += [item for item, _ in behind]
            notes.append(f"{service.title}: {services.names(ports)} leads to the sidecar: clients must speak https")
            notes += _service_warnings(service, behind[0][1].port, [item for item, _ in behind], found)
    for policy in (item for item in found if (item.group, item.kind) == (_NETWORKING, "NetworkPolicy")):
        notes += _policy_warnings(policy, fronts)
    for item, front in fronts:
        if item not in reached:
            fact = "no Service that leads to it is in the input"
            notes.append(f"{item.title}: warning: {fact}: set targetPort: {front.port} where there is one")
    return notes


def _service_warnings(service: Item, port: int, behind: Sequence[Item], found: Sequence[Item]) -> Iterator[str]:
    if services.is_headless(service.root):
        yield f"{service.title}: warning: it is headless: clients have to ask for port {port} themselves"
    for other in found:
        if other.has_pods and other not in behind and _leads_to(service, other):
            yield f"{service.title}: warning: it leads to {other.title} too, which has no sidecar"
        is_ingress = (other.group, other.kind) == (_NETWORKING, "Ingress") and other.namespace == service.namespace
        if is_ingress and around.asks(other.root, service.name):
            fix = "tell its controller (ingress-nginx: annotation nginx.ingress.kubernetes.io/backend-protocol: HTTPS)"
            yield f"{other.title}: warning: it asks {service.title} over http: {fix}"


def _policy_warnings(policy: Item, fronts: Sequence[tuple[Item, Front]]) -> Iterator[str]:
    for item, front in fronts:
        labels = services.labels_of(item.template())
        if policy.namespace == item.namespace and around.shuts_out(policy.root, labels, front.port):
            yield f"{policy.title}: warning: it lets nobody in to {item.title} on port {front.port}: allow that"


def _services_of(owners: Sequence[Item], found: Sequence[Item], everything: bool = False) -> list[Item]:
    return [
        item for item in found if item.is_service and (everything or any(_leads_to(item, owner) for owner in owners))
    ]


def _leads_to(service: Item, owner: Item) -> bool:
    return service.namespace == owner.namespace and services.selects(service.root, services.labels_of(owner.template()))
