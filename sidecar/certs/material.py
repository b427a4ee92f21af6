"""
What we prove ourselves with, to clients and to upstreams, and what we verify them with: settings to checked snapshots.

`config.check` asks what is wrong, `app` loads; both go through here, so that they cannot disagree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509

from sidecar.certs.advice import expiry_level, warnings_of
from sidecar.certs.anchors import load_anchors, load_crls
from sidecar.certs.bundle import Bundle, load_bundles
from sidecar.certs.certificates import Purpose, called, certificates, date
from sidecar.certs.forms import parse
from sidecar.certs.sources import LAYOUT, read
from sidecar.errors import MaterialError
from sidecar.settings import ClientSettings, Password, Source, TlsSettings
from sidecar.values import Value


@attrs.frozen(eq=False, repr=False)
class Trouble(Value):
    """
    Something that cannot be used.

    Attributes:
        setting: Name of the setting to mend.
        error: What is wrong.
    """

    setting: str
    error: MaterialError


@attrs.frozen(eq=False, repr=False)
class ServerMaterial(Value):
    """
    Attributes:
        bundles: Server certificates, the default first; empty if none is given.
        warnings: What works but probably is not meant: (setting, sentence).
    """

    bundles: tuple[Bundle, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


@attrs.frozen(eq=False, repr=False)
class ClientMaterial(Value):
    """
    Attributes:
        anchors: CAs of clients.
        crls: Their revocation lists.
        warnings: As for the server.
    """

    anchors: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


@attrs.frozen(eq=False, repr=False)
class UpstreamMaterial(Value):
    """
    Attributes:
        anchors: CAs of the upstream; None: those of the system.
        bundle: Our client certificate; None: none.
        warnings: As for the server, with ``ca`` or ``cert`` in place of settings.
    """

    anchors: tuple[x509.Certificate, ...] | None = None
    bundle: Bundle | None = None
    warnings: tuple[tuple[str, str], ...] = ()


def load_server_material(
    tls: TlsSettings, now: datetime, anchors: Sequence[x509.Certificate] = ()
) -> tuple[ServerMaterial, list[Trouble]]:
    """
    Read the certificates and keys that *tls* names.

    Args:
        tls: The settings.
        now: Aware; what validity is judged by.
        anchors: CAs of clients, if there are any: a chain that ends below one of them is no cause for a warning.

    Returns:
        What was read, or nothing if there is any trouble; and all troubles.
    """
    if not tls.cert:
        return ServerMaterial(), []
    bundles, problems = load_bundles(tls.cert, tls.key, _source(tls.key_password), now)
    if problems:
        return ServerMaterial(), [Trouble(_setting_of(error.role, tls), error) for error in problems]
    roots = [*anchors, *(root for cert in tls.cert for root in _roots_beside(cert))]
    notes = [("tls_cert", text) for bundle in bundles for text in warnings_of(bundle, now, roots)]
    return ServerMaterial(bundles, tuple(notes)), []


def load_upstream_material(
    ca: Source | None, cert: Source | None, key: Source | None, now: datetime, key_password: Password | None = None
) -> tuple[UpstreamMaterial, list[Trouble]]:
    """
    Read what connections to an upstream are made with.

    Args:
        ca: CAs that its certificate must come from; None: those of the system, which are not read here.
        cert: Our client certificate; None: none.
        key: Its key; None: looked for beside or inside *cert*.
        now: Aware; what validity is judged by.
        key_password: That of all keys and keystores.

    Returns:
        As for `load_server_material`; `Trouble.setting` is ``ca``, ``cert`` or ``key``, which the caller knows by other
        names, or the setting of the password.
    """
    notes: list[tuple[str, str]] = []
    troubles: list[Trouble] = []
    anchors: tuple[x509.Certificate, ...] | None = None
    password = _source(key_password)
    if ca is not None:
        try:
            anchors = load_anchors(ca, now, passphrase=password, warn=lambda text: notes.append(("ca", text)))
        except MaterialError as error:
            troubles.append(Trouble(_PASSWORD if error.role == "passphrase" else "ca", error))
    certs, keys = () if cert is None else (cert,), () if key is None else (key,)
    bundles, problems = load_bundles(certs, keys, password, now, purpose=Purpose.CLIENT) if certs else ((), [])
    for problem in problems:
        part = "key" if problem.role == "key" and keys else "cert"
        troubles.append(Trouble(_PASSWORD if problem.role == "passphrase" else part, problem))
    if troubles:
        return UpstreamMaterial(), troubles
    notes += [("cert", text) for bundle in bundles for text in _expiry(bundle.leaf, now)]
    return UpstreamMaterial(anchors, next(iter(bundles), None), tuple(notes)), []


def load_client_material(
    client: ClientSettings, now: datetime, key_password: Password | None = None
) -> tuple[ClientMaterial, list[Trouble]]:
    """
    Read the CAs and revocation lists that *client* names.

    Args:
        client: The settings.
        now: Aware; what validity is judged by.
        key_password: That of the server's keys; opens an encrypted PKCS#12 truststore as well.

    Returns:
        As for `load_server_material`.
    """
    if client.ca is None:
        return ClientMaterial(), []
    notes: list[tuple[str, str]] = []
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    setting = "client_ca"
    try:
        anchors = load_anchors(
            client.ca, now, passphrase=_source(key_password), warn=lambda text: notes.append(("client_ca", text))
        )
        setting = "client_crl"
        if client.crl is not None:
            crls = load_crls(client.crl, anchors, now)
    except MaterialError as error:
        return ClientMaterial(), [Trouble(_PASSWORD if error.role == "passphrase" else setting, error)]
    notes += [("client_crl", text) for text in _crl_warnings(anchors, crls, now)]
    return ClientMaterial(anchors, crls, tuple(notes)), []


_PASSWORD = "tls_key_password"  # noqa: S105 - the name of a setting


def _source(password: Password | None) -> Source | None:
    return None if password is None else password.source


def _roots_beside(cert: Source) -> Sequence[x509.Certificate]:
    """The CAs in a certificate's directory; none if their file is damaged: it is not what was asked for."""
    if not isinstance(cert, Path) or not os.path.isfile(cert / LAYOUT["ca"][0]):
        return ()
    try:
        return certificates(parse(read(cert / LAYOUT["ca"][0], "ca")))
    except MaterialError:
        return ()


def _setting_of(role: str, tls: TlsSettings) -> str:
    """The setting that an operator has to look at."""
    if role == "passphrase":
        return _PASSWORD
    # A key that stands beside or inside the certificate file is a matter of the setting that names that file.
    return "tls_key" if role == "key" and tls.key else "tls_cert"


def _expiry(leaf: x509.Certificate, now: datetime) -> Iterator[str]:
    if expiry_level(leaf.not_valid_after_utc, now) is not None:
        yield f"{called(leaf)} expires on {date(leaf.not_valid_after_utc)}"


def _crl_warnings(
    anchors: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], now: datetime
) -> Iterator[str]:
    for crl in crls:
        end = crl.next_update_utc
        if end is not None and end < now:
            yield f"the revocation list of {crl.issuer.rfc4514_string()!r} was due for renewal on {end:%Y-%m-%d}"
    issuers = {crl.issuer for crl in crls}
    for anchor in anchors if crls else ():
        if anchor.subject not in issuers:
            yield f"there is no revocation list of {called(anchor)}: clients with certificates from it are refused"
