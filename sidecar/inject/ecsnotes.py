"""What an operator has to know of a task definition that the sidecar was put into."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.inject import ecscontrols, ecsmappings, remarks
from sidecar.inject.options import Environment, Options
from sidecar.inject.tree import Branch, branches_at, number_at, text_at

MEMORY: Final = 64
"""MiB that are reserved; there is no limit but the task's."""

LONGEST_STOP: Final = 120
"""Seconds that Fargate waits at most."""

STOP_MARGIN: Final = 10
"""Seconds from the end of draining to the moment when the container is killed."""

_MEMORY = re.compile(r"([0-9]{1,7}|[0-9]{0,4}\.[0-9]{1,4}) ?(GB|MB)?", re.ASCII | re.IGNORECASE)


def notes(
    root: Branch,
    app: Branch,
    options: Options,
    environment: Environment,
    *,
    has_taken: bool,
    lowered: Sequence[Sequence[str]],
) -> list[str]:
    """
    All that is to be said, a line each; what begins with ``warning: `` is to be done something about.

    Args:
        root: The task definition, with the sidecar in it.
        app: The container that the sidecar stands in front of.
        has_taken: Whether a port mapping of the app went.
        lowered: As `ecscontrols.allow` has it.
    """
    port, name = environment.settings.listen.port, text_at(app, "name")
    found = [
        f"TLS on port {port}, in front of {remarks.front_of(name, environment)}",
        f"in the service, loadBalancers must name containerName sidecar and containerPort {port}",
    ]
    if environment.settings.upstream.h2c:
        found.append("gRPC comes through an ALB only if the target group has the protocol version GRPC, or HTTP2")
    if has_taken:
        found.append(f"the portMappings of {name} for {environment.app_port} are gone: no balancer can be led there")
    for container, original, value in lowered:
        found.append(f"{ecscontrols.NAMESPACE} of {container} is {value} now, not {original}")
    found += _stays_open(app, environment)
    others = [ecsmappings.shown(span) for span in ecsmappings.spans(app)]
    warnings = [
        *remarks.warnings(environment),
        *remarks.other_ports(name, others, options, environment, wall="the security group"),
        *_too_long(environment),
        *_too_much_memory(root),
    ]
    if options.cert_arn is None and "tls_cert" not in options.settings:
        warnings.append("no --cert-arn: the certificate is made at start; an ALB takes it, clients cannot check it")
    return [*found, *(f"warning: {each}" for each in warnings)]


def lost(before: Branch, ours: Branch) -> list[str]:
    """What the container of ours that was there did, and that of now does not."""
    asked = _client_certificates(before)
    if asked in ("", "none") or _client_certificates(ours) not in ("", "none"):
        return []
    return [f"warning: clients were asked for certificates ({asked}), and are not any more"]


def _stays_open(app: Branch, environment: Environment) -> Iterator[str]:
    # A mapping that is gone closes nothing: in awsvpc mode whatever is listened on is open at the task's own address.
    port, name = environment.app_port, text_at(app, "name")
    mapped = [ecsmappings.shown(span) for span in ecsmappings.spans(app)]
    if ports := ", ".join(([str(port)] if port else []) + mapped):
        who = f"to all whom the security group lets in, unless {name} listens on 127.0.0.1 alone"
        yield f"without TLS, the app stays open on {ports} {who}"


def _too_long(environment: Environment) -> Iterator[str]:
    if (drain := environment.settings.timeouts.drain) > LONGEST_STOP - STOP_MARGIN:
        fact = (
            f"SIDECAR_DRAIN_TIMEOUT={drain:g}s is longer than Fargate's stopTimeout of at most {LONGEST_STOP} s allows"
        )
        yield f"{fact}: set it to {LONGEST_STOP - STOP_MARGIN}s or less"


def _too_much_memory(root: Branch) -> Iterator[str]:
    """AWS refuses containers that reserve more than the task has."""
    total = _mebibytes(text_at(root, "memory"))
    reserved = sum(
        number_at(each, "memoryReservation") or number_at(each, "memory") or 0
        for each in branches_at(root, "containerDefinitions")
    )
    if total is not None and reserved > total:
        fact = f"the containers reserve {reserved} MiB, {MEMORY} of it for the sidecar, and the task has {total}"
        yield f"{fact}: lower memoryReservation or memory of the others, or raise that of the task"


def _mebibytes(text: str) -> int | None:
    """Memory of a task: a number of MiB, or as in ``0.5GB`` and ``1 GB``; None if it is neither."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        return None
    return int(float(match[1]) * (1024 if (match[2] or "").upper() == "GB" else 1))


def _client_certificates(container: Branch) -> str:
    values = {text_at(each, "name"): text_at(each, "value") for each in branches_at(container, "environment")}
    return values.get("SIDECAR_CLIENT_CERT", "")
