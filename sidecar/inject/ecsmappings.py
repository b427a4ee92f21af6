"""
Port mappings of ECS containers: that of the app's port goes, and comes back.

In awsvpc mode they open and close nothing; they are what load balancers and Service Connect may be led to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from sidecar.inject import h2c, jsonform, mark
from sidecar.inject.tree import Branch, InjectError, Tree, branch, branches_at, is_set, number, number_at, text_at

_SPAN = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII)


def first_port(container: Branch) -> int | None:
    """The first TCP port that a container maps by itself; None if there is none."""
    singles = (span[0] for span in spans(container) if len(span) == 1)
    return next(singles, None)


def spans(container: Branch) -> Iterator[range]:
    """The TCP ports that a container maps, in order; raises InjectError."""
    return (span for each in branches_at(container, "portMappings") if (span := _span(each)))


def is_h2c(container: Branch, port: int) -> bool:
    """Whether a mapping of a container says that HTTP/2 without TLS is spoken on *port*; raises InjectError."""
    return any(port in _span(each) and _says_h2c(each) for each in branches_at(container, "portMappings"))


def taken(root: Branch) -> dict[range, str]:
    """TCP ports -> the container that maps them; raises InjectError."""
    return {span: text_at(each, "name") for each in branches_at(root, "containerDefinitions") for span in spans(each)}


def take(app: Branch, port: int | None) -> list[object]:
    """
    Take *port* out of the mappings of the app, so that no balancer is led round the sidecar.

    Returns:
        For each mapping that changed: its place, itself, and what of a range is left in its stead; for `put_back`.

    Raises:
        InjectError: A mapping is no JSON, so that it could not be kept, or has a range that is none.
    """
    kept: list[Tree] = []
    noted: list[object] = []
    for place, mapping in enumerate(branches_at(app, "portMappings")):
        if port is None or port not in _span(mapping):
            kept.append(mapping)
            continue
        rest = _without(mapping, port)
        kept += rest
        noted.append([place, *(_as_json(each, app) for each in (mapping, *rest))])
    if noted:
        app["portMappings"] = kept
    return noted


def put_back(app: Branch, noted: object) -> None:
    """Undo `take`; raises InjectError if somebody has changed what was noted."""
    if not isinstance(noted, list):
        raise mark.changed_label()
    mappings: list[Tree] = list(branches_at(app, "portMappings"))
    for entry in noted:
        match entry:
            case [int(place), dict(mapping), *rest]:
                for span in [_span(_from_json(each)) for each in rest]:
                    _drop(mappings, place, span)
                mappings.insert(place, _from_json(mapping))
            case _:
                raise mark.changed_label()
    if noted:
        app["portMappings"] = mappings


def shown(span: range) -> str:
    """Ports for a message."""
    return str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}"


def _span(mapping: Branch) -> range:
    """Its ports; none if they are not of TCP."""
    if text_at(mapping, "protocol") not in ("", "tcp"):
        return range(0)
    if not is_set(mapping, "containerPortRange"):
        port = number_at(mapping, "containerPort")
        return range(0) if port is None else range(port, port + 1)
    text = text_at(mapping, "containerPortRange")
    match = _SPAN.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise InjectError(f"containerPortRange is {text[:60]!a}, which is no range", "write it as FIRST-LAST")
    return range(int(match[1]), int(match[2]) + 1)


def _says_h2c(mapping: Branch) -> bool:
    """By its protocol, which counts more than its name: a ``grpc-gateway`` with ``http`` is no gRPC server."""
    protocol = text_at(mapping, "appProtocol")
    return protocol in h2c.APP_PROTOCOLS if protocol else h2c.is_port_name(text_at(mapping, "name"))


def _without(mapping: Branch, port: int) -> list[Branch]:
    """What is left of a mapping; a name can be that of one mapping only, and goes."""
    span = _span(mapping)
    rest = [span[: span.index(port)], span[span.index(port) + 1 :]]
    protocol: dict[str, Tree] = {"protocol": "tcp"} if is_set(mapping, "protocol") else {}
    return [
        branch({"containerPort": number(each[0]), **protocol})
        if len(each) == 1
        else branch({"containerPortRange": shown(each), **protocol})
        for each in rest
        if each
    ]


def _drop(mappings: list[Tree], start: int, span: range) -> None:
    """By its ports: AWS tells more of a mapping than was registered."""
    for i in range(start, len(mappings)):
        mapping = mappings[i]
        if isinstance(mapping, dict) and _span(mapping) == span:
            del mappings[i]
            return


def _as_json(mapping: Branch, app: Branch) -> object:
    try:
        return json.loads(jsonform.write_short(mapping))
    except ValueError:
        fact = f"the portMappings of {text_at(app, 'name')!a} have a value that is no JSON"
        raise InjectError(fact, "write numbers in decimal, and texts in quotes") from None


def _from_json(mapping: object) -> Branch:
    if not isinstance(mapping, Mapping):
        raise mark.changed_label()
    [found] = jsonform.read(json.dumps(mapping))
    assert isinstance(found, dict)  # as it went in
    return found
