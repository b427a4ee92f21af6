"""
What is around the program: whoever answers on its ports, its app, mounts, rights and limits.

Looks by `looking.Machine`, and hands what it sees to those who judge it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from sidecar import cgroup
from sidecar.certs import files
from sidecar.config import hosts, topology
from sidecar.config.load import Loaded
from sidecar.config.upstreams import files_of
from sidecar.doctor import app, confinement, limits, mounts, patience, ports, running
from sidecar.doctor.app import Spoken
from sidecar.doctor.configured import written
from sidecar.doctor.findings import Check, Finding, unchecked
from sidecar.doctor.listening import Listening, listening
from sidecar.doctor.looking import Machine, inner_files, key_file
from sidecar.doctor.material import Own
from sidecar.doctor.platforms import Platform
from sidecar.doctor.ports import Running
from sidecar.settings import HostPort, ListenerMode, ProxyProtocolOut, UnixPath
from sidecar.topology import ClusterSpec, UpstreamProtocol
from sidecar.wire.proxyproto import LOCAL_V2, UNKNOWN_V1

MOST_ENDPOINTS = 4
"""Of the app that are asked; the first tell enough, and each may take a second."""

_PREFACES = {ProxyProtocolOut.V1: UNKNOWN_V1, ProxyProtocolOut.V2: LOCAL_V2}


def surroundings(
    loaded: Loaded, servers: Sequence[Own], platform: Platform, machine: Machine, *, with_files: bool = True
) -> Iterator[Finding]:
    """
    Check everything that is not in the settings and their files.

    Args:
        loaded: Settings without problems.
        servers: Our certificates in the files.
        platform: Where we are.
        machine: What is looked at.
        with_files: Whether to look at the files that the settings name; not if nobody answers for them.
    """
    case = _Case(loaded, platform, machine)
    table = listening(machine.text("/proc/net/tcp"), machine.text("/proc/net/tcp6"))
    state, ready = case.running()
    yield from running.readiness(ready)
    if state is Running.NO:
        yield unchecked(Check.RUNNING, "the program does not run here", "run the doctor again when it does")
    config = case.admin_page("/config") if state is Running.YES else None
    others = () if config is None else running.differing(config, loaded)
    if config is not None:
        yield running.same_settings(others)
        yield from running.served(case.admin_page("/certs") or b"", servers)
    yield from case.ports(state, table, others)
    yield from case.apps(state is Running.YES and "upstream" not in others, table)
    if with_files:
        yield from _in_time(case.files)
    yield from case.rights()
    yield from case.limits()


def _in_time(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What *look* finds at files, which may lie where nobody answers."""
    try:
        return patience.within(patience.FILE_SECONDS, lambda: list(look()))
    except TimeoutError:
        fact = f"how key files are mounted and who may read them: looking takes longer than {patience.FILE_SECONDS:g} s"
        return [unchecked(Check.MOUNT, fact, "look whether the server behind their volume is alive")]


@attrs.frozen
class _Case:
    """What all steps know."""

    loaded: Loaded
    platform: Platform
    machine: Machine

    @property
    def in_container(self) -> bool:
        return self.platform is not Platform.HOST

    def running(self) -> tuple[Running, bytes]:
        """Whether the program runs, and what its /ready says; b"" if it does not."""
        settings = self.loaded.settings
        addresses = [address for address in (settings.admin, settings.health) if address is not None]
        for address in addresses:
            ready = self.machine.page(address, "/ready?verbose")
            if ready is not None and running.is_ours(ready):
                return Running.YES, ready
        return Running.NO if addresses else Running.UNKNOWN, b""

    def admin_page(self, path: str) -> bytes | None:
        """The body of an admin page of the running program; None if it has none."""
        address = self.loaded.settings.admin
        return None if address is None else self.machine.page(address, path)

    def ports(self, state: Running, table: Sequence[Listening], others: Sequence[str]) -> Iterator[Finding]:
        """Each address that is listened on; of *others* the running program has different ones."""
        settings = self.loaded.settings
        addresses = [(place, spec.address) for place, spec in topology.read(self.loaded).listeners.items()]
        pages = (("admin", settings.admin), ("health", settings.health))
        addresses += [(name, address) for name, address in pages if address is not None]
        for name, address in addresses:
            if name.partition("[")[0] in others:
                yield unchecked(Check.PORT, f"{written(self.loaded, name)}: the running program has another address")
                continue
            binding = ports.Binding.UNKNOWN if state is Running.YES else self.machine.binding(address)
            yield ports.port(written(self.loaded, name), address, state, binding, table)

    def apps(self, is_running: bool, table: Sequence[Listening]) -> Iterator[Finding]:
        reading = topology.read(self.loaded)
        modes = {spec.cluster: spec.mode for spec in reading.listeners.values() if spec.cluster}
        for cluster in reading.clusters.values():
            is_http = modes.get(cluster.name) is not ListenerMode.TCP
            for endpoint in cluster.endpoints[:MOST_ENDPOINTS]:
                yield from self._app(cluster, endpoint.address, table, is_http=is_http, is_running=is_running)

    def _app(
        self,
        cluster: ClusterSpec,
        address: HostPort | UnixPath,
        table: Sequence[Listening],
        *,
        is_http: bool,
        is_running: bool,
    ) -> Iterator[Finding]:
        wanted = _wanted(cluster, is_http=is_http)
        answer = self.machine.ask(address, _PREFACES.get(cluster.proxy_protocol, b""), wanted, is_http=is_http)
        yield app.answer(address, answer, wanted, is_running=is_running)
        if isinstance(address, HostPort):
            if hosts.is_local(address.host):
                yield from app.exposure(address, table)
            elif cluster.tls is None:
                yield app.hop(address)

    def files(self) -> Iterator[Finding]:
        table = mounts.parse(self.machine.text("/proc/self/mountinfo"))
        for file in self._named_files():
            if file.has_key:
                yield from mounts.permissions(file, in_container=self.in_container)
            if self.in_container:
                yield from mounts.mounted(file, table)

    def _named_files(self) -> Iterator[mounts.File]:
        """Files and directories of key material, each once, and the files within the latter."""
        tls, upstream = self.loaded.settings.tls, self.loaded.settings.app
        pairs = [(cert, tls.key[at] if at < len(tls.key) else None) for at, cert in enumerate(tls.cert)]
        pairs += [(upstream.cert, upstream.key)] if upstream.cert is not None else []
        keys = {
            key_file(cert, key if isinstance(key, Path) else None)
            for cert, key in pairs
            if isinstance(cert, Path) and (key is None or isinstance(key, Path))
        }
        named = [*files.named(self.loaded.settings), *self._files_of_clusters()]
        inner = [file for path in named if os.path.isdir(path) for file in inner_files(path)]
        for path in dict.fromkeys((*named, *inner, *keys)):
            file = self.machine.file(path, is_named=path in named, has_key=path in keys)
            if file is not None:
                yield file

    def _files_of_clusters(self) -> Sequence[Path]:
        whole = topology.read(self.loaded).topology
        return () if whole is None else [path for path in files_of(whole) if os.path.exists(path)]

    def rights(self) -> Iterator[Finding]:
        if not self.in_container:
            fact = "this is no container: what the program may do is a matter of how it is started"
            yield unchecked(Check.USER, fact, "run the doctor in the container, by its engine's exec")
            return
        status = confinement.fields_of(self.machine.text(f"/proc/{self._process()}/status"))
        table = mounts.parse(self.machine.text("/proc/self/mountinfo"))
        first_free = self.machine.text("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
        lowest = min(spec.address.port for spec in topology.read(self.loaded).listeners.values())
        needs = first_free.isdecimal() and lowest < int(first_free)
        yield from confinement.confinement(status, table, self.platform, has_low_port=needs)

    def limits(self) -> Iterator[Finding]:
        given = self.loaded.settings.workers
        quota, memory = cgroup.cpu_quota(self._text_of), cgroup.memory_limit(self._text_of)
        workers = cgroup.workers_for(quota, self._text_of) if given is None else given
        process = self._process()
        open_files = limits.open_files(self.machine.text(f"/proc/{process}/limits"))
        yield limits.descriptors(self.loaded, workers, open_files, is_known=self.in_container)
        yield limits.memory(self.loaded, workers, memory)
        yield from limits.cpu(self.loaded, workers, quota, memory)

    def _text_of(self, path: Path) -> str | None:
        """`cgroup.Read`."""
        return self.machine.text(str(path)) or None

    def _process(self) -> str:
        """The program itself if it is process 1; else this command, which has the same rights in a container."""
        words = self.machine.text("/proc/1/cmdline").split("\0")
        return "1" if "run" in words and any(os.path.basename(word) == "sidecar" for word in words) else "self"


def _wanted(cluster: ClusterSpec, *, is_http: bool) -> Spoken:
    """What is spoken with the endpoints of a cluster."""
    if cluster.tls is not None:
        return Spoken.TLS
    if cluster.protocol is UpstreamProtocol.H2C:
        return Spoken.H2C
    return Spoken.HTTP if is_http else Spoken.ANYTHING
