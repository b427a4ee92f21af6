"""What stands in front of Services and pods, and stops working when they speak TLS unless somebody tells it."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.inject.tree import Branch, Tree, branch_at, branches_at, is_set, number_at, text_at


def asked_by(ingress: Branch) -> set[str]:
    """The names of the Services that an Ingress passes requests on to."""
    return set(_names(ingress.get("spec", [])))


def selector_of(policy: Branch) -> Branch:
    """
    The labels of the pods that a NetworkPolicy is about; none: it is about all.

    Selectors with expressions count as about more than they are: a warning too many costs less than one too few.
    """
    return branch_at(branch_at(branch_at(policy, "spec") or {}, "podSelector") or {}, "matchLabels") or {}


def shuts_out(policy: Branch, port: int) -> bool:
    """Whether a NetworkPolicy keeps clients from *port* of its pods."""
    rules = _rules(policy)
    return rules is not None and not any(_lets_in(rule, port) for rule in rules)


def lets_in(policy: Branch, port: int, names: frozenset[str]) -> bool:
    """Whether a NetworkPolicy lets anybody in on *port* of its pods, which their container calls *names*."""
    return any(_lets_in(rule, port, names) for rule in _rules(policy) or ())


def _rules(policy: Branch) -> list[Branch] | None:
    """For what comes in; None if it says nothing about that."""
    spec = branch_at(policy, "spec") or {}
    types = spec.get("policyTypes")
    return None if isinstance(types, list) and "Ingress" not in types else branches_at(spec, "ingress")


def _names(node: Tree) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _names(each)
    elif isinstance(node, dict):
        backend = node.get("service")
        if isinstance(backend, dict):
            yield text_at(backend, "name")
        for each in node.values():
            yield from _names(each)


def _lets_in(rule: Branch, port: int, names: frozenset[str] = frozenset()) -> bool:
    """A rule without ports is about all; the sidecar's name is in no rule, since it is new to all of them."""
    ports = branches_at(rule, "ports")
    return not ports or any(_covers(each, port, names) for each in ports)


def _covers(entry: Branch, port: int, names: frozenset[str]) -> bool:
    if text_at(entry, "protocol") not in ("", "TCP"):
        return False
    first = number_at(entry, "port")
    last = number_at(entry, "endPort") or first
    if first is not None and last is not None:
        return first <= port <= last
    return not is_set(entry, "port") or text_at(entry, "port") in names
