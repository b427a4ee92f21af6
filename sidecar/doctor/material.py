"""
The certificates, keys, CAs and revocation lists that the settings name: loaded as the program would, and looked at even
where it would refuse them.

No private key leaves this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509

from sidecar.certs import files
from sidecar.certs.bundle import Bundle
from sidecar.certs.certificates import certificates, chain_of
from sidecar.certs.forms import parse
from sidecar.certs.keys import open_keystores
from sidecar.certs.material import (
    ClientMaterial,
    Trouble,
    load_client_material,
    load_server_material,
    load_upstream_material,
)
from sidecar.certs.passwords import read_password
from sidecar.certs.report import shorten
from sidecar.certs.sources import LAYOUT, may_be_secret, read
from sidecar.certs.traits import is_authority
from sidecar.config import topology
from sidecar.config.load import Loaded
from sidecar.config.upstreams import files_of, part_of, tls_of
from sidecar.doctor import patience
from sidecar.doctor.configured import written
from sidecar.doctor.findings import Check, Finding, error, unchecked
from sidecar.doctor.patience import within
from sidecar.errors import MaterialError
from sidecar.settings import Password, Source


@attrs.frozen
class Own:
    """
    A certificate of ours.

    Attributes:
        source: Where it is from, as the admin page /certs calls it: a path, or that it was given itself.
        leaf: The certificate; if its key could not be used, the first given that is no CA's.
        chain: Its issuers in order, as far as they were given.
        extras: Others that were given with it.
        roots: CAs that stand beside it, in its directory.
    """

    source: str
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    extras: tuple[x509.Certificate, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()


@attrs.frozen(kw_only=True)
class Material:
    """
    What the settings name.

    Attributes:
        servers: Certificates shown to clients.
        upstreams: Certificates shown to upstreams.
        clients: What clients are verified with.
        upstream_anchors: CAs of upstreams, but for those of the system.
        findings: What the program would refuse.
        has_come: Whether the files could be read in time; else nothing is known, and nobody should look at them again.
    """

    servers: tuple[Own, ...] = ()
    upstreams: tuple[Own, ...] = ()
    clients: ClientMaterial = attrs.field(factory=ClientMaterial)
    upstream_anchors: tuple[x509.Certificate, ...] = ()
    findings: tuple[Finding, ...] = ()
    has_come: bool = True


def load_in_time(loaded: Loaded, now: datetime) -> Material:
    """As `load_material`; files that nobody answers for, as on a server that is gone, are findings."""
    try:
        return within(patience.FILE_SECONDS, lambda: load_material(loaded, now))
    except TimeoutError:
        return Material(findings=tuple(_late(loaded)), has_come=False)


def _late(loaded: Loaded) -> Iterator[Finding]:
    whole = topology.read(loaded).topology
    named = dict.fromkeys((*files.named(loaded.settings), *(() if whole is None else files_of(whole))))
    paths = [path for path in named if not may_be_secret(str(path))]
    limit = f"within {patience.FILE_SECONDS:g} s"
    fix = "look whether the server behind its volume is alive, or what writes to it if it is a pipe"
    dead = patience.silent(paths)
    for path in dead:
        yield unchecked(Check.CERTIFICATE, f"{path} cannot be looked at {limit}, so no certificate is", fix)
    if not dead:
        yield unchecked(Check.CERTIFICATE, f"{shorten(map(str, paths))}: they could not all be read {limit}", fix)


def load_material(loaded: Loaded, now: datetime) -> Material:
    """Read everything that *loaded* names, judged at *now*; reads files and nothing else."""
    settings = loaded.settings
    password = settings.tls.key_password
    clients, troubles = load_client_material(settings.client, now, password)
    server, more = load_server_material(settings.tls, now, clients.anchors)
    findings = [_finding(loaded, each.setting, each, _CHECKS) for each in (*troubles, *more)]
    servers = _own(settings.tls.cert, server.bundles, password)
    upstreams: list[Own] = []
    anchors: list[x509.Certificate] = []
    for place, tls in tls_of(topology.read(loaded)):
        upstream, problems = load_upstream_material(tls.ca, tls.cert, tls.key, now, password)
        findings += [_finding(loaded, part_of(place, each.setting), each, _UPSTREAM_CHECKS) for each in problems]
        anchors += upstream.anchors or ()
        if tls.cert is not None:
            upstreams += _own((tls.cert,), () if upstream.bundle is None else (upstream.bundle,), password)
    return Material(
        servers=servers,
        upstreams=tuple(upstreams),
        clients=clients,
        upstream_anchors=tuple(anchors),
        findings=tuple(findings),
    )


_CHECKS = {
    "cert": Check.CERTIFICATE,
    "key": Check.KEY,
    "ca": Check.CLIENT_CA,
    "crl": Check.CLIENT_CRL,
    "passphrase": Check.PASSWORD,
}
_UPSTREAM_CHECKS = {**_CHECKS, "cert": Check.UPSTREAM_CERTIFICATE, "ca": Check.UPSTREAM_CA}


def _finding(loaded: Loaded, name: str, trouble: Trouble, checks: dict[str, Check]) -> Finding:
    problem = trouble.error
    return error(checks[problem.role], f"{written(loaded, name)}: {problem.fact}", problem.fix)


def _own(sources: Sequence[Source], bundles: Sequence[Bundle], password: Password | None) -> tuple[Own, ...]:
    if len(bundles) == len(sources):
        pairs = zip(sources, bundles, strict=True)
        return tuple(Own(str(source), each.leaf, each.chain, each.extras, _roots(source)) for source, each in pairs)
    looked_at = (_look_at(source, password) for source in sources)
    return tuple(own for own in looked_at if own is not None)


def _look_at(source: Source, password: Password | None) -> Own | None:
    """Find the certificates in *source*, whatever they are worth; None if there are none."""
    try:
        passwords = () if password is None else (read_password(password.source),)
        contents = parse(read(source, "cert"))
        inside = () if contents.password is None else (contents.password,)
        given = certificates(open_keystores(contents, [*inside, *passwords]))
    except MaterialError:
        return None  # what loading it for use said is in the findings
    leaf = _first_leaf(given)
    chain = chain_of(leaf, given)
    extras = tuple(each for each in given if each not in (leaf, *chain))
    return Own(str(source), leaf, chain, extras, _roots(source))


def _roots(source: Source) -> tuple[x509.Certificate, ...]:
    if not isinstance(source, Path) or not os.path.isfile(source / LAYOUT["ca"][0]):
        return ()
    try:
        return certificates(parse(read(source / LAYOUT["ca"][0], "ca")))
    except MaterialError:
        return ()  # nobody has asked for it


def _first_leaf(given: Iterable[x509.Certificate]) -> x509.Certificate:
    first, *others = given
    return next((each for each in (first, *others) if not is_authority(each)), first)
