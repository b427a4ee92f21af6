"""
What a listener proves itself with and judges its clients by: one immutable set, read whole and swapped whole.

`app` loads one at start and at each reload; until a new one is found good, the last good one serves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs
from cryptography import x509
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.certs.material import ClientMaterial, Trouble, load_client_material, load_server_material
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.errors import ConfigError, MaterialError, Problem
from sidecar.policy.access import Access, access_of
from sidecar.policy.authz import Decision, Presented
from sidecar.policy.identity import identity_of
from sidecar.settings import ClientCertMode, ClientRefusal, Settings
from sidecar.tls.sni import build_contexts
from sidecar.tls.trust import ClientTrust


@attrs.frozen
class Credentials:
    """
    Attributes:
        bundles: Server certificates, the default first.
        clients: CAs of clients and their revocation lists.
        access: Who may come in.
        trust: How certificates of clients are verified.
        context: What new connections shake hands with.
        warnings: What can be used but probably is not meant: (setting, sentence).
    """

    bundles: tuple[Bundle, ...]
    clients: ClientMaterial
    access: Access
    trust: ClientTrust
    context: SSL.Context
    warnings: tuple[tuple[str, str], ...] = ()


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
    access = access_of(settings.client, loaded.sources["client_rules"])
    clients, client_troubles = ClientMaterial(), list[Trouble]()
    if access.handshake_mode is not ClientCertMode.NONE:
        clients, client_troubles = load_client_material(settings.client, clock(), settings.tls.key_password)
    server, server_troubles = load_server_material(settings.tls, clock(), clients.anchors)
    troubles = [*server_troubles, *client_troubles]
    if troubles:
        raise ConfigError([problem(loaded, trouble.setting, trouble.error) for trouble in troubles])
    bundles = server.bundles or (ephemeral(),)
    trust = _trust(settings, access, clients, clock)
    try:
        context = build_contexts(bundles, trust, settings.tls.policy)
    except MaterialError as error:
        raise ConfigError([problem(loaded, "tls_cert", error)]) from None
    return Credentials(bundles, clients, access, trust, context, (*server.warnings, *clients.warnings))


def problem(loaded: Loaded, name: str, error: MaterialError) -> Problem:
    """Say what *error* means for the setting *name*, as the operator wrote it."""
    source = loaded.sources[name]
    return Problem(SETTINGS[name].written_in(source), source, error.fact, error.fix)


def _trust(settings: Settings, access: Access, clients: ClientMaterial, clock: Callable[[], datetime]) -> ClientTrust:
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
        refusal=client.refusal,
        admits=admits if client.refusal is ClientRefusal.HANDSHAKE else None,
        clock=clock,
    )
