"""
The port from which on everybody may listen, a setting of the network that all containers of an ECS task share.

Each container may set it, and the one that starts last wins: so they all have to say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.inject import mark
from sidecar.inject.tree import Branch, InjectError, branch, branches_at, number_at, text_at

NAMESPACE: Final = "net.ipv4.ip_unprivileged_port_start"

PRIVILEGED: Final = 1024
"""The first port that everybody may listen on anyway."""


def allow(root: Branch, app: Branch, port: int) -> tuple[list[Branch], list[list[str]]]:
    """
    Let everybody listen on *port*, and on whatever a container has asked for already.

    Args:
        root: A task definition without the sidecar; what is too high in it is lowered, in place.
        app: What starts before the sidecar: what it sets is enough.

    Returns:
        The ``systemControls`` of the sidecar; and of each that was lowered the container, the value that it had and the
        one that it has now, for `restore`.

    Raises:
        InjectError: One that is there is no number.
    """
    if port >= PRIVILEGED:
        return [], []
    controls = [(each, control) for each in branches_at(root, "containerDefinitions") for control in _controls(each)]
    lowest = min([port, *(_value(each, control) for each, control in controls)])
    noted: list[list[str]] = []
    for each, control in controls:
        if _value(each, control) > lowest:
            noted.append([text_at(each, "name"), text_at(control, "value"), str(lowest)])
            control["value"] = str(lowest)
    ours = [] if any(True for _ in _controls(app)) else [branch({"namespace": NAMESPACE, "value": str(lowest)})]
    return ours, noted


def restore(root: Branch, noted: object) -> None:
    """Undo what `allow` lowered, but for what has been changed since; raises InjectError."""
    for entry in noted if isinstance(noted, list) else [noted]:
        match entry:
            case [str(name), str(original), str(lowered)]:
                _put_back(root, name, original, lowered)
            case _:
                raise mark.changed_label()


def _put_back(root: Branch, name: str, original: str, lowered: str) -> None:
    for each in branches_at(root, "containerDefinitions"):
        for control in _controls(each):
            if text_at(each, "name") == name and text_at(control, "value") == lowered:
                control["value"] = original
                return


def _controls(container: Branch) -> Iterator[Branch]:
    return (each for each in branches_at(container, "systemControls") if text_at(each, "namespace") == NAMESPACE)


def _value(container: Branch, control: Branch) -> int:
    value = number_at(control, "value")
    if value is None:
        fact = f"the systemControls of {text_at(container, 'name')!a} have {text_at(control, 'value')[:60]!a}"
        raise InjectError(f"{fact} for {NAMESPACE}, which is no port", "write a number in quotes")
    return value
