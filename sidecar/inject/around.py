"""What stands in front of Services and pods, and stops working when they speak TLS unless somebody tells it."""

from __future__ import annotations

from sidecar.inject.tree import Branch, Tree, branch_at, branches_at, number_at, scalar_text, text_at


def asks(ingress: Branch, service: str) -> bool:
    """Whether an Ingress passes requests on to a Service of this name."""
    return _names(ingress.get("spec", []), service)


def shuts_out(policy: Branch, labels: Branch, port: int) -> bool:
    """
    Whether a NetworkPolicy keeps clients from *port* of pods with *labels*.

    Selectors with expressions count as about all pods: a warning too many costs less than one too few.
    """
    spec = branch_at(policy, "spec") or {}
    wanted = branch_at(branch_at(spec, "podSelector") or {}, "matchLabels") or {}
    if not all(scalar_text(labels.get(key)) == scalar_text(value) for key, value in wanted.items()):
        return False
    types = spec.get("policyTypes")
    if isinstance(types, list) and "Ingress" not in types:
        return False
    return not any(_lets_in(rule, port) for rule in branches_at(spec, "ingress"))


def _names(node: Tree, service: str) -> bool:
    if isinstance(node, list):
        return any(_names(each, service) for each in node)
    if not isinstance(node, dict):
        return False
    backend = node.get("service")
    if isinstance(backend, dict) and text_at(backend, "name") == service:
        return True
    return any(_names(each, service) for each in node.values())


def _lets_in(rule: Branch, port: int) -> bool:
    """A rule without ports is about all; one that names a port is not looked up: the sidecar's name is new to it."""
    ports = branches_at(rule, "ports")
    return not ports or any(_covers(each, port) for each in ports)


def _covers(entry: Branch, port: int) -> bool:
    if text_at(entry, "protocol") not in ("", "TCP"):
        return False
    first = number_at(entry, "port")
    last = number_at(entry, "endPort") or first
    return "port" not in entry or (first is not None and last is not None and first <= port <= last)
