"""Whether the certificates are for the names that clients use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from cryptography import x509

from sidecar.certs.certificates import called
from sidecar.certs.describe import describe
from sidecar.certs.report import shorten
from sidecar.certs.traits import extension
from sidecar.doctor.findings import Check, Finding, error, note, ok, unchecked, warning
from sidecar.doctor.material import Own


def names(servers: Sequence[Own], expected: Sequence[str]) -> Iterator[Finding]:
    """
    Judge the certificates that are given.

    Args:
        servers: At least one.
        expected: Host names and IP addresses that clients use.
    """
    for own in servers:
        if extension(own.leaf, x509.SubjectAlternativeName) is None:
            fact = f"{own.source}: {called(own.leaf)} has no subject alternative name: clients do not look elsewhere"
            yield error(Check.NAMES, fact, "have it issued with its names in subjectAltName")
    for name in expected:
        fitting = next((own for own in servers if is_for(own.leaf, name)), None)
        if fitting is not None:
            yield ok(Check.NAMES, f"{fitting.source} is for {name}")
            continue
        held = [san for own in servers for san in describe(own.leaf).sans]
        fact = f"no certificate is for {name}; they are for {shorten(dict.fromkeys(held)) or 'nothing'}"
        yield error(Check.NAMES, fact, "have one issued for this name too, or use one of those")
    if not expected:
        fix = "say so with --name app.example, once for each"
        yield unchecked(Check.NAMES, "which names clients use is not known here", fix)


def names_of_self_made(own: Sequence[str], expected: Sequence[str]) -> Iterator[Finding]:
    """
    Judge the certificate that is made at start.

    Args:
        own: Names that it gets, as far as they are known here.
        expected: As for `names`.
    """
    fact = "no certificate is given, so one is made at each start; only peers that verify nothing accept it, as an ALB"
    yield note(Check.CERTIFICATE, fact, "if clients come here directly, give one: SIDECAR_TLS_CERT")
    for name in expected:
        if _covers(own, name):
            yield ok(Check.NAMES, f"the certificate made at start is for {name}")
        elif _address(name) is None:  # it gets the addresses of the machine too, wherever that is
            fact = f"the certificate made at start is not for {name}"
            yield warning(Check.NAMES, fact, "add the name to SIDECAR_TLS_NAMES")


def is_for(certificate: x509.Certificate, name: str) -> bool:
    """Whether clients take *certificate* for a server that they call *name* (RFC 9525 section 6)."""
    alternatives = extension(certificate, x509.SubjectAlternativeName)
    if alternatives is None:
        return False
    address = _address(name)
    if address is not None:
        return address in alternatives.get_values_for_type(x509.IPAddress)
    return _covers(alternatives.get_values_for_type(x509.DNSName), name)


def _covers(held: Iterable[str], name: str) -> bool:
    """Whether one of *held*, DNS names, is *name*; a wildcard stands for one label, the first."""
    wanted = name.lower().removesuffix(".")
    names = {each.lower().removesuffix(".") for each in held}
    _, _, parent = wanted.partition(".")
    return wanted in names or ("." in parent and f"*.{parent}" in names)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
