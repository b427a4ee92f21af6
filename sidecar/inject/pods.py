"""One pod template: the sidecar goes in, and out again without a trace."""

from __future__ import annotations

import math
from typing import Final

import attrs

from sidecar.config.names import did_you_mean
from sidecar.inject import container, mark
from sidecar.inject.options import Environment, Options, make_environment
from sidecar.inject.prior import Prior
from sidecar.inject.tree import (
    TRUE,
    Branch,
    InjectError,
    Tree,
    branch_at,
    branches_at,
    needed_branch,
    number_at,
    scalar_text,
    text_at,
)

GRACE: Final = 30
"""Seconds that a pod gets to stop if it says nothing else."""

STOP_MARGIN: Final = 5
"""Seconds from the end of draining to that of the process."""

_VOLUMES = (container.CERTS_VOLUME, container.CLIENT_CA_VOLUME)
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@attrs.frozen
class Front:
    """
    What stands where now.

    Attributes:
        app: The container behind the sidecar.
        app_port: Its port; None if it is reached by a socket.
        app_port_names: What that container calls the port.
        port: The sidecar's.
        notes: What the operator has to know.
    """

    app: str
    app_port: int | None
    app_port_names: frozenset[str]
    port: int
    notes: tuple[str, ...]


def add(template: Branch, options: Options) -> Front:
    """
    Put the sidecar into a pod template that has none.

    Raises:
        InjectError: The pod does not allow it.
        ConfigError: The settings do not work.
    """
    spec = needed_branch(template, "spec")
    _refuse_windows(spec)
    _refuse_names(spec)
    app = _app(template, spec, options)
    settings = container.settings(options, _app_port(app, options))
    environment = make_environment(options, settings, {}, _taken(spec))
    known = Prior()
    key = "containers" if options.classic else "initContainers"
    known.list_in(spec, key).append(container.container(options, environment))
    if volumes := container.volumes(options):
        known.list_in(spec, "volumes").extend(volumes)
    mark.annotate(template, {}, known)
    return Front(
        app=text_at(app, "name"),
        app_port=environment.app_port,
        app_port_names=_names_of(app, environment.app_port),
        port=environment.settings.listen.port,
        notes=tuple(_notes(spec, options, environment)),
    )


def remove(template: Branch) -> Branch | None:
    """
    Take our sidecar out of a pod template.

    Returns:
        The container that it was; None if there was none.

    Raises:
        InjectError: The annotation has been changed.
    """
    noted = mark.annotation_of(template)
    if noted is None:
        return None
    known = mark.prior_of(noted)
    spec = needed_branch(template, "spec")
    ours = sidecar_of(spec)
    for key in ("initContainers", "containers"):
        _drop(spec, key, (container.NAME,), known)
    _drop(spec, "volumes", _VOLUMES, known)
    mark.take_annotation(template, known)
    return ours


def _drop(spec: Branch, key: str, names: tuple[str, ...], known: Prior) -> None:
    """Take what has one of *names* out of the list behind *key*."""
    items = branches_at(spec, key)
    kept: list[Tree] = [item for item in items if text_at(item, "name") not in names]
    if len(kept) < len(items):
        spec[key] = kept
    known.shrink(spec, key)


# -- what is there --------------------------------------------------------------------------------------------------


def _containers(spec: Branch) -> list[Branch]:
    return [*branches_at(spec, "initContainers"), *branches_at(spec, "containers")]


def _app(template: Branch, spec: Branch, options: Options) -> Branch:
    """The container that is meant: by flag, by the annotation that kubectl goes by, or the first."""
    found = {text_at(each, "name"): each for each in branches_at(spec, "containers")}
    if not found:
        raise InjectError("the pod has no containers", "pipe in the manifest of an app")
    annotations = branch_at(branch_at(template, "metadata") or {}, "annotations") or {}
    if options.app is None:
        return found.get(text_at(annotations, _DEFAULT_CONTAINER)) or next(iter(found.values()))
    if options.app not in found:
        names = ", ".join(found)
        fix = did_you_mean(options.app, found, otherwise="name one of these, or leave this one out with --only")
        raise InjectError(f"there is no container {options.app!a}, only {names}", fix)
    return found[options.app]


def _app_port(app: Branch, options: Options) -> int | None:
    if options.app_port is not None:
        return options.app_port
    if "upstream" in options.settings:
        return None
    ports = (number_at(port, "containerPort") for port in branches_at(app, "ports") if _is_tcp(port))
    found = next((port for port in ports if port is not None), None)
    if found is None:
        fact = f"the container {text_at(app, 'name')!a} names no containerPort"
        raise InjectError(fact, "give --app-port, or leave this one out with --only")
    return found


def _names_of(app: Branch, port: int | None) -> frozenset[str]:
    if port is None:
        return frozenset()
    ports = (each for each in branches_at(app, "ports") if number_at(each, "containerPort") == port and _is_tcp(each))
    return frozenset(text_at(each, "name") for each in ports) - {""}


def _is_tcp(port: Branch) -> bool:
    return text_at(port, "protocol") in ("", "TCP")


def _refuse_windows(spec: Branch) -> None:
    system = text_at(branch_at(spec, "os") or {}, "name")
    selected = text_at(branch_at(spec, "nodeSelector") or {}, "kubernetes.io/os")
    if "windows" in (system, selected):
        raise InjectError("the pod runs on Windows", "leave it out: the sidecar runs on Linux")


def _refuse_names(spec: Branch) -> None:
    for each in _containers(spec):
        if text_at(each, "name") == container.NAME:
            fact = f"there is a container {container.NAME} already, and {mark.ANNOTATION} does not say that it is ours"
            raise InjectError(fact, "rename it, or remove it if it was put there by hand")
    for volume in branches_at(spec, "volumes"):
        if (name := text_at(volume, "name")) in _VOLUMES:
            raise InjectError(
                f"there is a volume {name} already", "rename it, or remove it if it was put there by hand"
            )


def _taken(spec: Branch) -> dict[int, str]:
    """TCP port -> the container that names it."""
    return {
        number_at(port, "containerPort") or 0: text_at(each, "name")
        for each in _containers(spec)
        for port in branches_at(each, "ports")
        if _is_tcp(port)
    }


def _notes(spec: Branch, options: Options, environment: Environment) -> list[str]:
    found = []
    drain = environment.settings.timeouts.drain
    grace = number_at(spec, "terminationGracePeriodSeconds")
    if (GRACE if grace is None else grace) < drain + STOP_MARGIN:
        least = math.ceil(drain + STOP_MARGIN)
        stated = f"terminationGracePeriodSeconds is {GRACE if grace is None else grace}"
        found.append(f"{stated}, too short for SIDECAR_DRAIN_TIMEOUT={drain:g}s: set it to {least} or more")
    port = environment.settings.listen.port
    if port < 1024:
        found.append(f"port {port} needs net.ipv4.ip_unprivileged_port_start=0 on the node or in the pod's sysctls")
    if spec.get("hostNetwork") == TRUE:
        taken = ", ".join(str(each) for each in sorted(environment.ports))
        found.append(f"hostNetwork: the ports {taken} must be free on every node that it may run on")
    if options.secret is None and "tls_cert" not in options.settings:
        found.append("no --secret: clients get a certificate made at start, which they cannot check")
    return found


def sidecar_of(spec: Branch) -> Branch:
    """Our container in a pod; an empty one if there is none."""
    return next((each for each in _containers(spec) if text_at(each, "name") == container.NAME), {})


def client_certificates(ours: Branch) -> str:
    """What a container of ours that was taken out asked of clients."""
    values = {text_at(each, "name"): scalar_text(each.get("value")) for each in branches_at(ours, "env")}
    return values.get("SIDECAR_CLIENT_CERT", "")
