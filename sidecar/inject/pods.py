"""One pod template: the sidecar goes in, and out again without a trace."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from sidecar.config.names import did_you_mean
from sidecar.inject import container, h2c, mark, podnotes, remarks
from sidecar.inject.options import Options, make_environment
from sidecar.inject.prior import Prior
from sidecar.inject.tree import (
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
        is_h2c: Whether HTTP/2 without TLS is spoken with the app.
        behind: What it stands in front of, for messages.
        other_names: What that container calls its other TCP ports.
        foreign: Numbers and names of the TCP ports of all other containers, the sidecar among them.
        notes: What the operator has to know.
    """

    app: str
    app_port: int | None
    app_port_names: frozenset[str]
    port: int
    behind: str = ""
    other_names: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    is_h2c: bool = False

    @property
    def is_named_h2c(self) -> bool:
        """Whether the container's own name for the port says so, too."""
        return any(map(h2c.is_port_name, self.app_port_names))


def add(template: Branch, options: Options, h2c_targets: Collection[str] = ()) -> Front:
    """
    Put the sidecar into a pod template that has none.

    Args:
        h2c_targets: Names and numbers of ports on which the app speaks HTTP/2 without TLS, as Services say.

    Raises:
        InjectError: The pod does not allow it.
        ConfigError: The settings do not work.
    """
    spec = needed_branch(template, "spec")
    _refuse_windows(spec)
    _refuse_names(spec)
    app = _app(template, spec, options)
    app_port = _app_port(app, options)
    is_h2c = app_port is not None and _speaks_h2c(app, app_port, h2c_targets)
    settings = container.settings(options, app_port, is_h2c=is_h2c)
    environment = make_environment(options, settings, {}, _taken(spec))
    known = Prior()
    key = "containers" if options.classic else "initContainers"
    shares_processes = podnotes.shares_processes(spec)
    ours = container.container(options, environment, shares_processes=shares_processes)
    known.list_in(spec, key).append(ours)
    if volumes := container.volumes(options):
        known.list_in(spec, "volumes").extend(volumes)
    mark.annotate(template, {}, known)
    name, names = text_at(app, "name"), _names_of(app, environment.app_port)
    return Front(
        app=name,
        app_port=environment.app_port,
        app_port_names=names,
        port=environment.settings.listen.port,
        behind=remarks.front_of(name, environment),
        other_names=frozenset(text_at(each, "name") for each in podnotes.tcp_ports(app)) - names - {""},
        foreign=_ports_of([each for each in _containers(spec) if each is not app]),
        notes=tuple(podnotes.notes(spec, app, options, environment)),
        is_h2c=environment.settings.upstream.h2c,
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
    if options.says_app_port:
        return options.app_port
    ports = (number_at(port, "containerPort") for port in podnotes.tcp_ports(app))
    found = next((port for port in ports if port is not None), None)
    if found is None:
        fact = f"the container {text_at(app, 'name')!a} names no containerPort"
        raise InjectError(fact, "give --app-port, or leave this one out with --only")
    return found


def _speaks_h2c(app: Branch, port: int, targets: Collection[str]) -> bool:
    names = _names_of(app, port)
    return any(map(h2c.is_port_name, names)) or not names.isdisjoint(targets) or str(port) in targets


def _names_of(app: Branch, port: int | None) -> frozenset[str]:
    if port is None:
        return frozenset()
    ports = (each for each in podnotes.tcp_ports(app) if number_at(each, "containerPort") == port)
    return frozenset(text_at(each, "name") for each in ports) - {""}


def _ports_of(containers: list[Branch]) -> frozenset[str]:
    """Numbers and names of TCP ports."""
    ports = [port for each in containers for port in podnotes.tcp_ports(each)]
    return frozenset(text_at(port, key) for port in ports for key in ("containerPort", "name")) - {""}


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


def _taken(spec: Branch) -> dict[range, str]:
    """TCP port -> the container that names it."""
    return {
        range(number, number + 1): text_at(each, "name")
        for each in _containers(spec)
        for port in podnotes.tcp_ports(each)
        if (number := number_at(port, "containerPort")) is not None
    }


def sidecar_of(spec: Branch) -> Branch:
    """Our container in a pod; an empty one if there is none."""
    return next((each for each in _containers(spec) if text_at(each, "name") == container.NAME), {})


def client_certificates(ours: Branch) -> str:
    """What a container of ours that was taken out asked of clients."""
    values = {text_at(each, "name"): scalar_text(each.get("value")) for each in branches_at(ours, "env")}
    return values.get("SIDECAR_CLIENT_CERT", "")
