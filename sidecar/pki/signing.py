"""The command that signs a request that somebody else made: ``sign``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from sidecar.certs.authority import certificates_pem, check_public_key
from sidecar.certs.builders import PublicKey
from sidecar.certs.cadir import CA_CERT
from sidecar.certs.identities import Identity, Purpose, client_identity, requested_identity, server_identity
from sidecar.certs.parsed import read
from sidecar.errors import MaterialError
from sidecar.pki.leaves import cap_lines, check_places, issue_recorded, names_of, validity_of, write_new
from sidecar.pki.opening import load_ca
from sidecar.pki.outcome import Outcome, naming


def sign(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Issue a certificate for the key of a request."""
    file: Path = arguments.request
    request = _read_request(file)
    purpose: Purpose = arguments.purpose
    public_key, ignored = _check_request(request, file)
    identity = _request_identity(arguments, request)
    issuer, warnings = load_ca(arguments, now)
    out: Path = arguments.out or file.with_suffix(".crt")
    check_places([out], arguments)
    leaf = issue_recorded(arguments, issuer, purpose, identity, public_key, now)
    write_new(out.parent, [out], [certificates_pem(leaf, *issuer.chain)], arguments)
    lines = [
        f"wrote {out}: {purpose.value} certificate for {names_of(identity)}, {validity_of(leaf, now)}",
        *cap_lines(leaf, arguments, now),
        f"next: send it back to who made {file}, with {arguments.ca / CA_CERT}",
    ]
    return Outcome(lines, [*warnings, *ignored])


def _read_request(file: Path) -> x509.CertificateSigningRequest:
    requests = read(file).requests
    if len(requests) != 1:
        fact = f"{file} holds {len(requests)} certificate signing requests, one is wanted"
        raise MaterialError("cert", fact, "name a file with one CERTIFICATE REQUEST block")
    return requests[0]


def _check_request(request: x509.CertificateSigningRequest, file: Path) -> tuple[PublicKey, list[str]]:
    """Return the key of *request*, which must have signed it, and what it asks for in vain."""
    anew = "have it made anew by whoever has the key"
    if not request.is_signature_valid:
        raise MaterialError("cert", f"the request in {file} is not signed by the key that is in it", anew)
    try:
        public_key = check_public_key(request.public_key())
    except ValueError as error:
        raise MaterialError("cert", f"{file}: {error}", anew) from None
    return public_key, list(_ignored(request))


def _request_identity(arguments: argparse.Namespace, request: x509.CertificateSigningRequest) -> Identity:
    if not arguments.names:
        try:
            return requested_identity(request, arguments.purpose, arguments.org, arguments.ou)
        except ValueError as error:
            fact, _, fix = f"{arguments.request}: {error}".rpartition("; ")
            raise MaterialError("cert", fact, f"{fix}; --name gives other names") from None
    with naming():
        if arguments.purpose is Purpose.CLIENT:
            return client_identity(arguments.names, arguments.org, arguments.ou)
        return server_identity(arguments.names)


def _ignored(request: x509.CertificateSigningRequest) -> Iterator[str]:
    """Name what the request asks for and does not get, so that nobody counts on it."""
    for extension in request.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            yield "the request asks for a CA certificate; that was not granted"
        elif not isinstance(
            extension.value,
            x509.SubjectAlternativeName | x509.BasicConstraints | x509.KeyUsage | x509.ExtendedKeyUsage,
        ):
            yield f"the extension {extension.oid.dotted_string} of the request was left out"
