"""
What listeners prove themselves with and judge their clients by, and what upstreams are verified with: one immutable
set, read whole and swapped whole.

`app` loads one at start and at each reload; until a new one is found good, the last good one serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.certs.material import (
    ClientMaterial,
    Trouble,
    UpstreamMaterial,
    load_client_material,
    load_server_material,
    load_upstream_material,
)
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.config.topology import read as read_topology
from sidecar.config.topology import topology_of
from sidecar.config.upstreams import part_of, tls_of
from sidecar.errors import ConfigError, MaterialError, Problem
from sidecar.policy.access import Access, access_of, default_rule
from sidecar.policy.authz import Decision, Presented
from sidecar.policy.identity import identity_of
from sidecar.policy.routes import client_rule
from sidecar.settings import ClientCertMode, ClientRefusal, ClientSettings, ListenerMode, Settings, Switch
from sidecar.tls.context import HTTP2_PROTOCOL, HTTP_PROTOCOLS
from sidecar.tls.sni import NO_NAMES, ServedNames, build_contexts
from sidecar.tls.trust import ClientTrust
from sidecar.topology import ListenerSpec, Topology
from sidecar.values import Value

if TYPE_CHECKING:
    from sidecar.tls.client import UpstreamSecurity


@attrs.frozen(eq=False, repr=False)
class Keys(Value):
    """
    What one listener has of the set.

    Attributes:
        access: Who may come in.
        trust: How certificates of clients are verified.
        context: What new connections shake hands with; None without TLS.
        names: Of the certificates in it.
    """

    access: Access
    trust: ClientTrust
    context: SSL.Context | None
    names: ServedNames = NO_NAMES


@attrs.frozen(eq=False, repr=False)
class Secured(Value):
    """
    TLS towards one cluster.

    Attributes:
        digest: The same for two that are made of the same: then connections made with one serve on with the other.
    """

    security: UpstreamSecurity
    digest: bytes


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Credentials(Value):
    """
    Attributes:
        topology: What is listened on, and where requests go.
        bundles: Server certificates, the default first; empty where no listener speaks TLS and none is given.
        clients: CAs of clients and their revocation lists.
        keys: By the name of the listener.
        upstreams: TLS towards clusters that speak it, by their names.
        warnings: What can be used but probably is not meant: (setting, sentence).
    """

    topology: Topology
    bundles: tuple[Bundle, ...]
    clients: ClientMaterial
    keys: Mapping[str, Keys]
    upstreams: Mapping[str, Secured] = attrs.field(factory=dict)
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def trusts(self) -> list[bytes]:
        """What tells this set's trust in clients from another's."""
        return [keys.trust.digest() for keys in self.keys.values()]


def load_credentials(loaded: Loaded, ephemeral: Callable[[], Bundle], clock: Callable[[], datetime]) -> Credentials:
    """
    Read rules and key material, check them, and build what connections shake hands with.

    Args:
        loaded: The settings.
        ephemeral: Makes, or gives again, the certificate that is served where none is given.
        clock: The time, aware.

    Raises:
        ConfigError: With everything that cannot be used.
    """
    settings = loaded.settings
    topology = topology_of(loaded)
    access = {spec.name: _access(spec, loaded) for spec in topology.listeners}
    clients, client_troubles = ClientMaterial(), list[Trouble]()
    if any(each.handshake_mode is not ClientCertMode.NONE for each in access.values()):
        clients, client_troubles = load_client_material(settings.client, clock(), settings.tls.key_password)
    server, server_troubles = load_server_material(settings.tls, clock(), clients.anchors)
    upstreams, problems = _load_upstreams(loaded, clock())
    problems += [problem(loaded, trouble.setting, trouble.error) for trouble in (*server_troubles, *client_troubles)]
    if problems:
        raise ConfigError(problems)
    speaks_tls = any(spec.tls for spec in topology.listeners)
    bundles = server.bundles or ((ephemeral(),) if speaks_tls else ())
    keys = {spec.name: _keys(spec, access[spec.name], bundles, clients, loaded, clock) for spec in topology.listeners}
    return Credentials(
        topology=topology,
        bundles=bundles,
        clients=clients,
        keys=keys,
        upstreams=_secure(loaded, upstreams, clock),
        warnings=(*server.warnings, *clients.warnings),
    )


def _load_upstreams(loaded: Loaded, now: datetime) -> tuple[dict[str, UpstreamMaterial], list[Problem]]:
    """Read what clusters that speak TLS are verified with, by the place where they are written."""
    found: dict[str, UpstreamMaterial] = {}
    problems: list[Problem] = []
    for place, tls in tls_of(read_topology(loaded)):
        password = loaded.settings.tls.key_password
        found[place], troubles = load_upstream_material(tls.ca, tls.cert, tls.key, now, password)
        for trouble in troubles:
            name = part_of(place, trouble.setting)
            problems.append(problem(loaded, name, trouble.error))
    return found, problems


def _secure(
    loaded: Loaded, material: Mapping[str, UpstreamMaterial], clock: Callable[[], datetime]
) -> dict[str, Secured]:
    reading, secured = read_topology(loaded), dict[str, Secured]()
    if not material:
        return secured
    from sidecar.tls.client import build_security  # most have an upstream without TLS

    for place, tls in tls_of(reading):
        of_place = material[place]
        try:
            security = build_security(tls, (of_place.anchors, of_place.bundle), loaded.settings.tls.policy, clock=clock)
        except MaterialError as error:
            raise ConfigError([problem(loaded, part_of(place, error.role), error)]) from None
        digest = _digest(repr((tls, loaded.settings.tls.policy)), of_place)
        secured[reading.clusters[place].name] = Secured(security, digest)
    return secured


def _digest(words: str, material: UpstreamMaterial) -> bytes:
    digest = hashlib.sha256(words.encode())
    own = (material.bundle.leaf, *material.bundle.chain) if material.bundle is not None else ()
    for certificate in (*(material.anchors or ()), *own):
        digest.update(certificate.fingerprint(hashes.SHA256()))
    return digest.digest()


def asked_of_clients(spec: ListenerSpec, settings: Settings) -> ClientSettings:
    """
    Return what holds for clients of a listener where a route does not say otherwise.

    Without TLS nobody can show a certificate; `config.check` sees to it that nothing is forwarded there that asks for
    one.
    """
    return settings.client if spec.tls else ClientSettings()


def _access(spec: ListenerSpec, loaded: Loaded) -> Access:
    client = asked_of_clients(spec, loaded.settings)
    default = default_rule(client)
    routes = [route for host in spec.virtual_hosts for route in host.routes]
    rules = [rule for route in routes if (rule := client_rule(route, default)) is not None]
    return access_of(client, loaded.sources["client_rules"], rules)


def _keys(
    spec: ListenerSpec,
    access: Access,
    bundles: tuple[Bundle, ...],
    clients: ClientMaterial,
    loaded: Loaded,
    clock: Callable[[], datetime],
) -> Keys:
    settings = loaded.settings
    is_tcp = spec.mode is ListenerMode.TCP
    # Bytes that are nobody's protocol cannot carry a reason: there a client is refused by an alert.
    refusal = ClientRefusal.HANDSHAKE if is_tcp else settings.client.refusal
    trust = _trust(settings, access, clients, refusal, clock)
    if not spec.tls:
        return Keys(access, trust, None)
    try:
        http = (HTTP2_PROTOCOL, *HTTP_PROTOCOLS) if settings.http2.enabled is Switch.ON else HTTP_PROTOCOLS
        protocols = spec.alpn if is_tcp else http
        context = build_contexts(bundles, trust, settings.tls.policy, protocols)
    except MaterialError as error:
        raise ConfigError([problem(loaded, "tls_cert", error)]) from None
    return Keys(access, trust, context, ServedNames.of(bundles))


def problem(loaded: Loaded, name: str, error: MaterialError) -> Problem:
    """Say what *error* means for the setting or place *name*, as the operator wrote it."""
    source = loaded.source_of(name)
    written = SETTINGS[name].written_in(source) if name in SETTINGS else name
    return Problem(written, source, error.fact, error.fix)


def _trust(
    settings: Settings, access: Access, clients: ClientMaterial, refusal: ClientRefusal, clock: Callable[[], datetime]
) -> ClientTrust:
    client = settings.client

    def admits(certificate: x509.Certificate) -> bool:
        admission = access.admit(Presented(identity_of(certificate)))
        return not isinstance(admission, Decision) or admission.is_allowed

    return ClientTrust(
        access.handshake_mode,
        clients.anchors,
        crls=clients.crls,
        crl_scope=client.crl_scope,
        crl_policy=client.crl_policy,
        depth=client.depth,
        refusal=refusal,
        admits=admits if refusal is ClientRefusal.HANDSHAKE else None,
        clock=clock,
    )
