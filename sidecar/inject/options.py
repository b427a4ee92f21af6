"""What an operator asks for, and the settings that the sidecar gets for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from sidecar import __version__
from sidecar.config import check, hosts
from sidecar.config.load import Loaded, gather
from sidecar.config.names import ENVIRONMENT, PREFIX, SETTINGS, did_you_mean
from sidecar.config.units import quoted
from sidecar.errors import ConfigError, Problem
from sidecar.inject.tree import InjectError
from sidecar.settings import HostPort, ListenerMode, Settings

IMAGE: Final = f"tls-sidecar:{__version__}"

HEALTH: Final = "0.0.0.0:8082"
"""On all addresses: kubelets and load balancers ask from outside. `/live` and `/ready` tell nothing else."""

_SOURCE = "--set"
_WORKED_OUT = "from the other options"

# What a flag says already, and what it is called.
_FLAGS = {
    "listen": "port",
    "upstream": "app_port",
    "tls_cert": "certificate",
    "tls_key": "certificate",
    "client_ca": "client_ca",
}


@attrs.frozen(kw_only=True)
class Options:
    """
    Attributes:
        image: What the sidecar runs.
        app: Name of the container that it stands in front of; None: the one that is found.
        port: That it listens on; None: the usual one of the platform.
        app_port: That the app listens on; None: the first that its container names.
        secret: Kubernetes: the Secret with ``tls.crt`` and ``tls.key``; None: the ephemeral certificate.
        client_ca_secret: Kubernetes: the Secret with ``ca.crt``; None: no client certificates.
        cert_arn, key_arn, client_ca_arn: ECS: secrets whose values are certificate, key and CAs.
        classic: Kubernetes: a container among the app's, for clusters before 1.29.
        only: Names of the objects to change, also as KIND/NAME; none: all.
        settings: More settings, name -> text, each valid by itself.
    """

    image: str = IMAGE
    app: str | None = None
    port: int | None = None
    app_port: int | None = None
    secret: str | None = None
    client_ca_secret: str | None = None
    cert_arn: str | None = None
    key_arn: str | None = None
    client_ca_arn: str | None = None
    classic: bool = False
    only: tuple[str, ...] = ()
    settings: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def certificate(self) -> str | None:
        """What was given for the certificate."""
        return self.secret or self.cert_arn

    @property
    def client_ca(self) -> str | None:
        """What was given for the CAs of clients."""
        return self.client_ca_secret or self.client_ca_arn

    @property
    def says_app_port(self) -> bool:
        """Whether it is said where the app is, so that no port has to be found."""
        return self.app_port is not None or "upstream" in self.settings

    def upstream(self, port: int, *, is_h2c: bool) -> str:
        """The app behind *port*, as a setting; in raw TCP mode nobody but the client speaks with it."""
        is_raw = self.settings.get("mode", "").lower() == ListenerMode.TCP.value
        return f"{'h2c' if is_h2c and not is_raw else 'http'}://127.0.0.1:{port}"


@attrs.frozen
class Environment:
    """
    Attributes:
        variables: Variable -> text, for the container; without what comes from secrets.
        settings: What the program will make of them.
        warnings: What works but probably is not meant, as ``sidecar check`` says it, a line each.
    """

    variables: Mapping[str, str]
    settings: Settings
    warnings: Sequence[str] = ()

    @property
    def health_port(self) -> int:
        """Where probes go."""
        assert self.settings.health is not None
        return self.settings.health.port

    @property
    def ports(self) -> Mapping[int, str]:
        """Every port that the sidecar opens, with its setting."""
        opened = {
            "SIDECAR_LISTEN": self.settings.listen,
            "SIDECAR_HEALTH": self.settings.health,
            "SIDECAR_ADMIN": self.settings.admin,
            "SIDECAR_HTTP_REDIRECT": self.settings.downstream.http_redirect,
        }
        return {address.port: name for name, address in opened.items() if address is not None}

    @property
    def app_port(self) -> int | None:
        """The app's port; None if it is reached by a socket, or elsewhere."""
        first = self.settings.upstream.endpoints[0]
        return first.port if isinstance(first, HostPort) and hosts.is_local(first.host) else None

    @property
    def elsewhere(self) -> list[HostPort]:
        """The endpoints of the upstream that are not in this pod or task."""
        addresses = (each for each in self.settings.upstream.endpoints if isinstance(each, HostPort))
        return [each for each in addresses if not hosts.is_local(each.host)]

    @property
    def is_app_behind(self) -> bool:
        """Whether requests go to the app beside it at all."""
        return len(self.elsewhere) < len(self.settings.upstream.endpoints)


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """
    Read ``NAME=VALUE`` texts; the last of one name counts.

    Args:
        texts: With names as variables or in lower case: ``SIDECAR_IDLE_TIMEOUT=2m``, ``idle_timeout=2m``.

    Raises:
        ConfigError: With all that are no settings, or hold a secret.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for text in texts:
        written, separator, value = text.partition("=")
        name = written.strip().lower().replace("-", "_").removeprefix(PREFIX.lower())
        value = value.strip()
        if not separator or not value:
            shown = written.strip() if name in SETTINGS else quoted(written)
            problems.append(Problem(shown, _SOURCE, "it has no value", "write NAME=VALUE"))
        elif name not in SETTINGS:
            problems.append(_unknown(written, name))
        elif SETTINGS[name].may_be_secret(value):
            fact = "a secret in a manifest is none"
            fix = "keep it in a Secret, or for ECS behind an ARN; only paths may stand here"
            problems.append(Problem(SETTINGS[name].variable, _SOURCE, fact, fix))
        else:
            found[name] = value
    if problems:
        raise ConfigError(problems)
    return found


def make_environment(
    options: Options, given: Mapping[str, str], from_secrets: Mapping[str, str], taken: Mapping[range, str]
) -> Environment:
    """
    Put together what flags and ``--set`` say.

    Args:
        given: Setting name -> text, from flags and the document.
        from_secrets: Settings whose values the platform fills in, with any value that is valid.
        taken: TCP ports -> name of the container that listens there: they share localhost with the sidecar.

    Raises:
        ConfigError: The settings do not go together, or a flag and ``--set`` say the same thing.
        InjectError: A port is taken.
    """
    texts = {**given, **options.settings}
    variables = {SETTINGS[name].variable: text for name, text in texts.items()}
    loaded, problems = gather(
        {}, {**variables, **{SETTINGS[name].variable: text for name, text in from_secrets.items()}}
    )
    problems += [
        Problem(SETTINGS[name].variable, _SOURCE, "a flag says it already", "give one of the two")
        for name, flag in _FLAGS.items()
        if name in options.settings and getattr(options, flag) is not None
    ]
    if loaded.settings.health is None:
        problems.append(Problem("SIDECAR_HEALTH", _SOURCE, "probes need it", f"give an address, such as {HEALTH}"))
    _raise(problems, options)
    environment = Environment(variables, loaded.settings)
    _refuse_ports(environment, taken)
    _raise(check.check(loaded, datetime.now(UTC), with_material=False), options)
    return attrs.evolve(environment, warnings=_warnings(loaded, options))


def _warnings(loaded: Loaded, options: Options) -> list[str]:
    derived = {name: _WORKED_OUT if source == ENVIRONMENT else source for name, source in loaded.sources.items()}
    sources = {**derived, **dict.fromkeys(options.settings, _SOURCE)}
    # How long draining may take is known better here, where the platform's limit is in the document or written into it.
    drain = SETTINGS["drain_timeout"]
    settings = drain.put(loaded.settings, drain.default)
    return check.warnings(attrs.evolve(loaded, settings=settings, sources=sources))


def _raise(problems: Sequence[Problem], options: Options) -> None:
    if problems:
        given = {SETTINGS[name].variable for name in options.settings}
        raise ConfigError(
            [attrs.evolve(each, source=_SOURCE if each.setting in given else _WORKED_OUT) for each in problems]
        )


def _refuse_ports(environment: Environment, taken: Mapping[range, str]) -> None:
    owners = [(ports, f"the container {name!a}") for ports, name in taken.items()]
    if environment.app_port is not None:
        owners.append((range(environment.app_port, environment.app_port + 1), "the app"))
    for port, setting in environment.ports.items():
        owner = next((owner for ports, owner in owners if port in ports), None)
        if owner is not None:
            host = "127.0.0.1" if setting == "SIDECAR_ADMIN" else "0.0.0.0"  # noqa: S104 - an example
            other = "--port" if setting == "SIDECAR_LISTEN" else f"--set {setting}={host}:PORT"
            raise InjectError(f"{owner} has the port {port}, and so has {setting}", f"give another with {other}")


def _unknown(written: str, name: str) -> Problem:
    names = {setting: setting.upper() for setting in SETTINGS}
    fix = did_you_mean(name, names, otherwise="see sidecar --help")
    shown = written if written.isprintable() and len(written) <= 60 else quoted(written)
    return Problem(shown, _SOURCE, "there is no such setting", fix)
