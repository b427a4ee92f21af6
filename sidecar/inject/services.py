"""Services in front of a pod: their ports lead to the sidecar, and back to the app when it has gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sidecar.inject import h2c, mark
from sidecar.inject.pods import Front
from sidecar.inject.prior import Prior
from sidecar.inject.tree import (
    NULL,
    Branch,
    InjectError,
    Plain,
    branch_at,
    branches_at,
    number,
    number_at,
    text_at,
)

_TARGET = "targetPort"


def selector_of(service: Branch) -> Branch:
    """The labels of the pods that it leads to; none if it leads to none."""
    return branch_at(branch_at(service, "spec") or {}, "selector") or {}


def is_headless(service: Branch) -> bool:
    """Whether its clients connect to the pods themselves, by whatever port they choose."""
    return text_at(branch_at(service, "spec") or {}, "clusterIP") == "None"


def h2c_targets(service: Branch) -> set[str]:
    """The ports of pods, by name or number, on which it says that HTTP/2 without TLS is spoken."""
    return {
        text_at(port, _TARGET) or text_at(port, "port")
        for port in branches_at(branch_at(service, "spec") or {}, "ports")
        if text_at(port, "protocol") in ("", "TCP") and text_at(port, "appProtocol") in h2c.APP_PROTOCOLS
    }


def said_without_tls(service: Branch, ports: Collection[int]) -> dict[int, str]:
    """Those of *ports*, the Service's own, with an ``appProtocol`` that is read as HTTP/2 without TLS, and that."""
    return {
        own: protocol
        for port in branches_at(branch_at(service, "spec") or {}, "ports")
        if (own := number_at(port, "port")) is not None
        and own in ports
        and text_at(port, "protocol") in ("", "TCP")
        and (protocol := text_at(port, "appProtocol")) in h2c.APP_PROTOCOLS
    }


def redirect(service: Branch, fronts: Sequence[Front]) -> list[int]:
    """
    Lead the ports that led to an app to its sidecar.

    By number: a name of a port of a native sidecar is unknown to Services before Kubernetes 1.33.

    Args:
        fronts: In the pods that it selects; one or more, all with the same port.

    Returns:
        The numbers of those ports of the Service.

    Raises:
        InjectError: It is no Service.
    """
    targets: dict[str, object] = {}
    changed: list[int] = []
    for port in branches_at(branch_at(service, "spec") or {}, "ports"):
        own = number_at(port, "port")
        if (
            own is not None
            and text_at(port, "protocol") in ("", "TCP")
            and any(_leads_to_app(port, front) for front in fronts)
        ):
            targets[str(own)] = _noted(port)
            port[_TARGET] = number(fronts[0].port)
            changed.append(own)
    if targets:
        mark.annotate(service, {"port": fronts[0].port, "targets": targets}, Prior())
    return changed


def plain(service: Branch, fronts: Sequence[Front]) -> list[int]:
    """
    The numbers of TCP ports that lead round the sidecar to an app.

    Args:
        service: As `redirect` leaves it.
        fronts: In the pods that it selects.
    """
    return [
        own
        for port in branches_at(branch_at(service, "spec") or {}, "ports")
        if (own := number_at(port, "port")) is not None
        and text_at(port, "protocol") in ("", "TCP")
        and any(_leads_round(port, front) for front in fronts)
    ]


def outside(service: Branch) -> str:
    """What makes it reachable from outside the cluster: its type, or ``externalIPs``; "" if nothing does."""
    spec = branch_at(service, "spec") or {}
    if (kind := text_at(spec, "type")) in ("LoadBalancer", "NodePort"):
        return kind
    return "externalIPs" if spec.get("externalIPs", NULL) not in (NULL, []) else ""


def restore(service: Branch) -> bool:
    """
    Undo `redirect`, but for ports that somebody has changed since.

    Returns:
        Whether there was something to undo.

    Raises:
        InjectError: The mark has been changed.
    """
    noted = mark.annotation_of(service)
    if noted is None:
        return False
    targets, known = noted.get("targets"), mark.prior_of(noted)
    if not isinstance(targets, Mapping):
        raise InjectError("its mark is not as it was written", "set its targetPort by hand, and remove the mark")
    for port in branches_at(branch_at(service, "spec") or {}, "ports"):
        original = targets.get(text_at(port, "port"))
        if original is not None and text_at(port, _TARGET) == str(noted.get("port")):
            _put_back(port, original)
    mark.take_annotation(service, known)
    return True


def _leads_to_app(port: Branch, front: Front) -> bool:
    target = port.get(_TARGET, NULL)
    if target == NULL:
        return number_at(port, "port") == front.app_port
    if isinstance(target, str) and target in front.app_port_names:
        return True
    return front.app_port is not None and number_at(port, _TARGET) == front.app_port


def _leads_round(port: Branch, front: Front) -> bool:
    """A number that no container names may be the app's all the same; a name that none has leads nowhere."""
    target = text_at(port, _TARGET) or text_at(port, "port")
    if target in front.foreign:
        return False
    return target in front.other_names | front.app_port_names or target.isdigit()


def _noted(port: Branch) -> list[object]:
    """What a Service port leads to: a name or number; empty if it says nothing, null if it says that."""
    if _TARGET not in port:
        return []
    value = port[_TARGET]
    return [value if isinstance(value, str) else number_at(port, _TARGET)]


def _put_back(port: Branch, original: object) -> None:
    match original:
        case []:
            port.pop(_TARGET, None)
        case [str(name)]:
            port[_TARGET] = name
        case [int(value)]:
            port[_TARGET] = Plain(str(value))
        case [None]:
            port[_TARGET] = NULL
        case _:
            raise InjectError("its mark is not as it was written", "set its targetPort by hand, and remove the mark")


def lead(ports: list[int]) -> str:
    """Port numbers and their verb, for a message."""
    return f"port {ports[0]} leads" if len(ports) == 1 else f"ports {', '.join(map(str, ports))} lead"
