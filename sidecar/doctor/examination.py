"""All checks, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs

import sidecar
from sidecar.certs import files
from sidecar.config import topology
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.doctor import configured, patience
from sidecar.doctor.balancer import Balancer, balancer
from sidecar.doctor.chain import chain
from sidecar.doctor.clock import Past, clock, compare
from sidecar.doctor.dates import clients, expiry
from sidecar.doctor.findings import Check, Finding, Severity, unchecked
from sidecar.doctor.looking import Machine
from sidecar.doctor.material import Material, load_in_time
from sidecar.doctor.names import names, names_of_self_made
from sidecar.doctor.platforms import Platform, platform_of
from sidecar.doctor.stopping import stop_timeout
from sidecar.doctor.surroundings import surroundings
from sidecar.errors import Problem
from sidecar.settings import HostPort

_OF_MATERIAL = [name for name in SETTINGS if name.startswith(("tls_", "client_", "upstream_"))]
"""Settings that decide which files are read, and how."""

_LATEST = 2**33
"""In the year 2242: file systems can say what `datetime` cannot."""


@attrs.frozen(kw_only=True)
class Options:
    """
    What the operator says beside the settings.

    Attributes:
        names: That clients use; empty: those of ``tls_names``.
        balancer: What is in front.
        balancer_idle: Seconds that it keeps idle connections; None: its default.
        stop_timeout: Seconds from SIGTERM to SIGKILL; None: the platform's default.
        clock: A web server whose clock the one here is compared with; None: none.
        is_outside: The program runs elsewhere: only settings and files are looked at.
    """

    names: tuple[str, ...] = ()
    balancer: Balancer = Balancer.NONE
    balancer_idle: float | None = None
    stop_timeout: float | None = None
    clock: HostPort | None = None
    is_outside: bool = False


@attrs.frozen
class Examination:
    """What was found, and where."""

    platform: Platform
    findings: tuple[Finding, ...]


def examine(
    loaded: Loaded, problems: Sequence[Problem], options: Options, environ: Mapping[str, str], machine: Machine
) -> Examination:
    """
    Check everything.

    Args:
        loaded: What could be read of the settings.
        problems: What could not.
        options: What else the operator says.
        environ: The environment, which tells the platform.
        machine: What is looked at.
    """
    now = datetime.now(UTC)
    platform = Platform.HOST if options.is_outside else platform_of(environ, machine.exists)
    case = _Case(loaded, options, machine, now)
    knows_balancer = options.balancer is not Balancer.NONE
    found = configured.settings(loaded, problems, now, knows_balancer=knows_balancer)
    found += [*configured.admin(loaded), *configured.secrets(loaded)]
    material = Material()
    if all(name in loaded.sources for name in _OF_MATERIAL):
        material = load_in_time(loaded, now)
        found += [*material.findings, *(case.certificates(material) if material.has_come else ())]
    else:
        fact = "certificates, keys and CAs: which they are depends on settings that cannot be read"
        found.append(unchecked(Check.CERTIFICATE, fact, "mend the settings first"))
    found += case.clocks(material)
    if any(each.severity is Severity.ERROR and each.check is Check.SETTINGS for each in found):
        fact = "ports, the app, limits and the balancer: what they should be depends on settings that are wrong"
        found.append(unchecked(Check.MACHINE, fact, "mend the settings first"))
        return Examination(platform, tuple(found))
    found += balancer(loaded, options.balancer, options.balancer_idle)
    found.append(stop_timeout(loaded, platform, options.stop_timeout))
    if options.is_outside:
        fact = "nothing of this machine was looked at, as --outside says: ports, app, mounts, rights, limits"
        found.append(unchecked(Check.MACHINE, fact, "run the doctor in the container too"))
    else:
        found += surroundings(loaded, material.servers, platform, machine, with_files=material.has_come)
    return Examination(platform, tuple(found))


@attrs.frozen
class _Case:
    """What all steps know."""

    loaded: Loaded
    options: Options
    machine: Machine
    now: datetime

    def certificates(self, material: Material) -> Iterator[Finding]:
        """What they are worth to clients, and how long."""
        settings = self.loaded.settings
        expected = self.options.names or settings.tls.names
        roots = material.clients.anchors
        for own in material.servers:
            yield from chain(own, roots, self.now)
        if material.servers:
            yield from names(material.servers, expected)
        elif not settings.tls.cert and any(spec.tls for spec in topology.read(self.loaded).listeners.values()):
            hostname = self.machine.text("/proc/sys/kernel/hostname").strip()
            yield from names_of_self_made(("localhost", hostname, *settings.tls.names), self.options.names)
        yield from expiry(material, self.now)
        yield from clients(material.clients, settings.client.crl_policy, self.now)

    def clocks(self, material: Material) -> Iterator[Finding]:
        """What the clock can be compared with."""
        installed = self._past(Path(sidecar.__file__), "this program was installed")
        written: list[Past] = []
        if material.has_come:
            with suppress(TimeoutError):
                written = patience.within(patience.FILE_SECONDS, self._written)
        yield from clock(self.now, installed, written, (*material.servers, *material.upstreams))
        if self.options.clock is not None:
            told = self.machine.clock(self.options.clock)
            yield compare(datetime.now(UTC), told, str(self.options.clock))

    def _written(self) -> list[Past]:
        found = (self._past(path, f"{path} was written") for path in files.named(self.loaded.settings))
        return [past for past in found if past is not None]

    def _past(self, path: Path, fact: str) -> Past | None:
        file = self.machine.file(path)
        if file is None or not 0 <= file.written_at < _LATEST:
            return None
        return Past(fact, datetime.fromtimestamp(file.written_at, UTC))
