"""What an operator has to know of a pod that the sidecar was put into: ways round it, and how it ends."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from sidecar.inject import remarks
from sidecar.inject.options import Environment, Options
from sidecar.inject.tree import TRUE, Branch, branch_at, branches_at, number_at, text_at

GRACE: Final = 30
"""Seconds that a pod gets to stop if it says nothing else."""

STOP_MARGIN: Final = 5
"""Seconds from the end of draining to that of the process."""

_SHARING = ("shareProcessNamespace", "hostPID")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_LOOPBACK = "listens on 127.0.0.1 alone"


def notes(spec: Branch, app: Branch, options: Options, environment: Environment) -> list[str]:
    """
    All that is to be said, a line each; what begins with ``warning: `` is to be done something about.

    Args:
        spec: Of the pod, with the sidecar in it.
        app: The container that the sidecar stands in front of.
    """
    warnings = [*remarks.warnings(environment)]
    if environment.is_app_behind:
        warnings += [*_ways_round(spec, app, environment), *_ends_of_the_app(spec, app, options, environment)]
    warnings += [*_probes(app), *_other_ports(spec, app, options, environment)]
    warnings += _of_the_pod(spec, options, environment)
    return [*_stays_open(app, environment), *(f"warning: {each}" for each in warnings)]


def shares_processes(spec: Branch) -> bool:
    """Whether process 1, as the sidecar's container sees it, may be another than its own."""
    return any(spec.get(key) == TRUE for key in _SHARING)


def tcp_ports(container: Branch) -> Iterator[Branch]:
    """The TCP ports that a container names."""
    return (port for port in branches_at(container, "ports") if text_at(port, "protocol") in ("", "TCP"))


def _stays_open(app: Branch, environment: Environment) -> Iterator[str]:
    port, name = environment.app_port, text_at(app, "name")
    if ports := ", ".join(([str(port)] if port else []) + _not_taken(app, environment)):
        yield f"without TLS, the app stays open on {ports} to all who reach the pod, unless {name} {_LOOPBACK}"


def _not_taken(app: Branch, environment: Environment) -> list[str]:
    """The TCP ports that the app names, without that which the sidecar stands in front of."""
    named = {number for each in tcp_ports(app) if (number := number_at(each, "containerPort"))}
    return [str(each) for each in sorted(named - {environment.app_port})]


def _other_ports(spec: Branch, app: Branch, options: Options, environment: Environment) -> Iterator[str]:
    wall = "a firewall on every node" if spec.get("hostNetwork") == TRUE else "a NetworkPolicy"
    others = _not_taken(app, environment)
    return remarks.other_ports(text_at(app, "name"), others, options, environment, wall=wall)


def _probes(app: Branch) -> Iterator[str]:
    """Those by gRPC: the kubelet speaks it without TLS, so that they cannot be led through the sidecar instead."""
    name, found = text_at(app, "name"), defaultdict[int, list[str]](list)
    for key in _PROBES:
        asked = branch_at(branch_at(app, key) or {}, "grpc") or {}
        if (port := number_at(asked, "port")) is not None:
            found[port].append(key)
    for port, keys in found.items():
        fact = f"the {' and the '.join(keys)} of {name}: by grpc the kubelet asks port {port} at the pod's address"
        command = f"exec: {{command: [grpc_health_probe, -addr=127.0.0.1:{port}]}}"
        yield f"{fact}, in vain once {name} {_LOOPBACK}: ask by a command first, such as {command}"


def _ways_round(spec: Branch, app: Branch, environment: Environment) -> Iterator[str]:
    name = text_at(app, "name")
    if spec.get("hostNetwork") == TRUE:
        fact = "hostNetwork: whoever reaches a node reaches the app without TLS, and no NetworkPolicy applies"
        yield f"{fact}: see that {name} {_LOOPBACK}"
        return
    for each in tcp_ports(app):
        if (host_port := number_at(each, "hostPort")) and (port := number_at(each, "containerPort")):
            fact = f"hostPort {host_port} of every node leads to port {port} of {name}, round TLS"
            yield f"{fact}: take it out of {name}"


def _ends_of_the_app(spec: Branch, app: Branch, options: Options, environment: Environment) -> Iterator[str]:
    """A pod that is to end by itself has no requests to lose at a rollout."""
    if text_at(spec, "restartPolicy") not in ("", "Always"):
        return
    name, drain = text_at(app, "name"), environment.settings.timeouts.drain
    hook = branch_at(branch_at(app, "lifecycle") or {}, "preStop") or {}
    slept = number_at(branch_at(hook, "sleep") or {}, "seconds")
    seconds = math.ceil(drain)
    if not hook:
        since = "" if options.classic else " (Kubernetes 1.30)"
        sleep = f"sleep: {{seconds: {seconds}}}" if since else f'exec: {{command: [sleep, "{seconds}"]}}'
        fact = f"{name} has no preStop and may end before the sidecar, so that each rollout loses requests"
        yield f"{fact}: add to {name} lifecycle: {{preStop: {{{sleep}}}}}{since}"
    elif slept is not None and slept < drain:
        yield f"the preStop of {name} sleeps {slept} s, less than SIDECAR_DRAIN_TIMEOUT={drain:g}s: set it to {seconds}"
    if shares_processes(spec) and not options.classic:
        shared = " and ".join(key for key in _SHARING if spec.get(key) == TRUE)
        fact = f"{shared}: processes are shared, so that no hook can tell the sidecar that the pod ends"
        yield f"{fact}: each rollout loses requests on kept connections; do without it, or give --classic"


def _of_the_pod(spec: Branch, options: Options, environment: Environment) -> Iterator[str]:
    drain = environment.settings.timeouts.drain
    grace = number_at(spec, "terminationGracePeriodSeconds")
    if (GRACE if grace is None else grace) < drain + STOP_MARGIN:
        least = math.ceil(drain + STOP_MARGIN)
        stated = f"terminationGracePeriodSeconds is {GRACE if grace is None else grace}"
        yield f"{stated}, too short for SIDECAR_DRAIN_TIMEOUT={drain:g}s: set it to {least} or more"
    port = environment.settings.listen.port
    if port < 1024:
        yield f"port {port} needs net.ipv4.ip_unprivileged_port_start=0 on the node or in the pod's sysctls"
    if spec.get("hostNetwork") == TRUE:
        taken = ", ".join(str(each) for each in sorted(environment.ports))
        yield f"hostNetwork: the ports {taken} must be free on every node that it may run on"
    if options.secret is None and "tls_cert" not in options.settings:
        yield "no --secret: clients get a certificate made at start, which they cannot check"
