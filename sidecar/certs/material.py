"""
What a listener proves itself with, and what it verifies clients with: settings to checked snapshots.

`config.check` asks what is wrong, `app` loads; both go through here, so that they cannot disagree.
"""

from __future__ import annotations

from datetime import datetime

import attrs
from cryptography import x509

from sidecar.certs.advice import warnings_of
from sidecar.certs.anchors import load_anchors, load_crls
from sidecar.certs.bundle import Bundle, find_all_problems, load_bundles
from sidecar.errors import MaterialError
from sidecar.settings import ClientSettings, TlsSettings


@attrs.frozen
class Trouble:
    """
    Something that cannot be used.

    Attributes:
        setting: Name of the setting to mend.
        error: What is wrong.
    """

    setting: str
    error: MaterialError


@attrs.frozen
class ServerMaterial:
    """
    Attributes:
        bundles: Server certificates, the default first; empty if none is given.
        warnings: What works but probably is not meant: (setting, sentence).
    """

    bundles: tuple[Bundle, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class ClientMaterial:
    """
    Attributes:
        anchors: CAs of clients.
        crls: Their revocation lists.
        warnings: As for the server.
    """

    anchors: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


def load_server_material(tls: TlsSettings, now: datetime) -> tuple[ServerMaterial, list[Trouble]]:
    """
    Read the certificates and keys that *tls* names.

    Args:
        now: Aware; what validity is judged by.

    Returns:
        What could be read, and everything that could not.
    """
    if not tls.cert:
        return ServerMaterial(), []
    password = tls.key_password.source if tls.key_password is not None else None
    problems = find_all_problems(tls.cert, tls.key, password, now)
    if problems:
        return ServerMaterial(), [Trouble(_setting_of(error.role, tls), error) for error in problems]
    bundles = load_bundles(tls.cert, tls.key, password, now)
    notes = [("tls_cert", text) for bundle in bundles for text in warnings_of(bundle, now)]
    return ServerMaterial(bundles, tuple(notes)), []


def load_client_material(client: ClientSettings, now: datetime) -> tuple[ClientMaterial, list[Trouble]]:
    """As `load_server_material`, for the CAs and revocation lists that *client* names."""
    if client.ca is None:
        return ClientMaterial(), []
    notes: list[tuple[str, str]] = []
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    setting = "client_ca"
    try:
        anchors = load_anchors(client.ca, now, warn=lambda text: notes.append(("client_ca", text)))
        setting = "client_crl"
        if client.crl is not None:
            crls = load_crls(client.crl, anchors, now)
    except MaterialError as error:
        return ClientMaterial(), [Trouble(setting, error)]
    notes += [("client_crl", text) for text in _crl_warnings(anchors, crls, now)]
    return ClientMaterial(anchors, crls, tuple(notes)), []


def _setting_of(role: str, tls: TlsSettings) -> str:
    """The setting that an operator has to look at."""
    if role == "passphrase":
        return "tls_key_password"
    # A key that stands beside or inside the certificate file is a matter of the setting that names that file.
    return "tls_key" if role == "key" and tls.key else "tls_cert"


def _crl_warnings(
    anchors: tuple[x509.Certificate, ...], crls: tuple[x509.CertificateRevocationList, ...], now: datetime
) -> list[str]:
    found = []
    for crl in crls:
        end = crl.next_update_utc
        if end is not None and end < now:
            found.append(
                f"the revocation list of {crl.issuer.rfc4514_string()!r} was due for renewal on {end:%Y-%m-%d}"
            )
    if crls:
        issuers = {crl.issuer for crl in crls}
        for anchor in anchors:
            if anchor.subject not in issuers:
                subject = anchor.subject.rfc4514_string()
                found.append(
                    f"there is no revocation list of {subject!r}: clients with certificates from it are refused"
                )
    return found
