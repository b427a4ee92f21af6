"""The commands that make a CA, and certificates for servers and clients: ``ca``, ``server`` and ``client``."""

from __future__ import annotations

import argparse
import re
import secrets
import string
import sys
from datetime import datetime
from pathlib import Path

from cryptography import x509

from sidecar.certs.authority import KeyKind, certificates_pem, key_pem, make_authority
from sidecar.certs.cadir import CA_CERT, CA_KEY
from sidecar.certs.identities import Identity, Purpose, client_identity, server_identity
from sidecar.certs.newfiles import NewFile, check_free, make_directory, write_files
from sidecar.certs.pkcs12 import pkcs12_file
from sidecar.certs.register import REGISTER
from sidecar.pki.leaves import cap_lines, check_places, issue_recorded, names_of, validity_of, write_new
from sidecar.pki.opening import ca_option, load_ca, new_password_in
from sidecar.pki.outcome import Outcome, UsageError, naming, quoted


def make_ca(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Make a CA."""
    directory: Path = arguments.dir
    password = new_password_in(arguments.ca_password_file)
    cert_file, key_file = directory / CA_CERT, directory / CA_KEY
    fix = f"use the CA that is there with --ca {quoted(directory)}, or name another directory with --dir"
    check_free([cert_file, key_file, directory / REGISTER], fix)
    with naming():
        made = make_authority(arguments.name, KeyKind(arguments.key), now, arguments.days)
    make_directory(directory)
    key = NewFile(key_file, key_pem(made.private_key, password), is_secret=True)
    write_files([key, NewFile(cert_file, certificates_pem(made.certificate))], replace=False)
    option = ca_option(directory)
    secret = "encrypted" if password is not None else "not encrypted"
    return Outcome(
        [
            f"wrote {cert_file}: CA certificate {arguments.name}, {validity_of(made.certificate, now)}",
            f"wrote {key_file}: its key, {secret}; whoever has it can be anybody: keep it off servers and repositories",
            f"next, for a server: sidecar certs server NAME{option}",
            f"next, for a client: sidecar certs client NAME{option}",
        ]
    )


def issue_server(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Issue a certificate for a server, with its key."""
    with naming():
        identity = server_identity(arguments.names)
    issuer, warnings = load_ca(arguments, now)
    directory: Path = arguments.out or Path(_file_name(arguments.names[0]))
    files = [directory / name for name in ("tls.key", "tls.crt", "ca.crt")]
    check_places(files, arguments)
    key = KeyKind(arguments.key).generate()
    leaf = issue_recorded(arguments, issuer, Purpose.SERVER, identity, key.public_key(), now)
    contents = [key_pem(key), certificates_pem(leaf, *issuer.chain), certificates_pem(*issuer.anchors)]
    write_new(directory, files, contents, arguments)
    return Outcome(
        [
            f"wrote {files[1]}: server certificate for {names_of(identity)}, {validity_of(leaf, now)}",
            *cap_lines(leaf, arguments, now),
            f"wrote {files[0]}: its key; for the server alone",
            f"wrote {files[2]}: the CA; for clients, to check the server with",
            f"serve it: SIDECAR_TLS_CERT={quoted(directory.absolute())} sidecar run",
            f"try it: curl --cacert {quoted(files[2])} https://{_url_host(identity)}/",
        ],
        warnings,
    )


def issue_client(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Issue a certificate for a client, with its key."""
    with naming():
        identity = client_identity(arguments.names, arguments.org, arguments.ou)
    wants_p12 = arguments.p12 or arguments.p12_modern
    password, told = _p12_password(arguments) if wants_p12 else (b"", "")
    issuer, warnings = load_ca(arguments, now)
    directory: Path = arguments.out or Path(_file_name(arguments.names[0]))
    files = [directory / name for name in ("client.key", "client.crt", "client.p12")[: 3 if wants_p12 else 2]]
    check_places(files, arguments)
    key = KeyKind(arguments.key).generate()
    leaf = issue_recorded(arguments, issuer, Purpose.CLIENT, identity, key.public_key(), now)
    contents = [key_pem(key), certificates_pem(leaf, *issuer.chain)]
    if wants_p12:
        label = arguments.names[0]
        contents.append(pkcs12_file(label, leaf, key, issuer.chain, password, modern=arguments.p12_modern))
    write_new(directory, files, contents, arguments)
    ca_file = quoted(arguments.ca / CA_CERT)
    lines = [
        f"wrote {files[1]}: client certificate for {names_of(identity)}, {validity_of(leaf, now)}",
        *cap_lines(leaf, arguments, now),
        f"wrote {files[0]}: its key; for the client alone",
    ]
    if wants_p12:
        lines.append(f"wrote {files[2]}: both, to import into browsers, key chains and Java{told}")
    lines += [
        f"demand it: SIDECAR_CLIENT_CERT=required SIDECAR_CLIENT_CA={ca_file} sidecar run",
        f"use it: curl --cert {quoted(files[1])} --key {quoted(files[0])} --cacert {ca_file} https://HOST/",
    ]
    return Outcome(lines, warnings)


def _p12_password(arguments: argparse.Namespace) -> tuple[bytes, str]:
    """The password of a PKCS#12 file, and what to say about it: one that was made is shown once, to a person."""
    given = new_password_in(arguments.password_file)
    if given is not None:
        return given, ""
    if not (arguments.show_password or (sys.stdout is not None and sys.stdout.isatty())):
        raise UsageError(
            "client.p12 needs a password, and standard output, where one would be shown, is no terminal; "
            "give --password-file FILE, or --show-password"
        )
    made = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))  # 142 bits
    return made.encode(), f"; its password, shown only now: {made}"


def _file_name(name: str) -> str:
    """A name for a directory: no separators, no dot or dash first, not too long."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("*", "wildcard")).lstrip(".-_")
    return plain[:100] or "issued"


def _url_host(identity: Identity) -> str:
    for name in identity.names:
        if isinstance(name, x509.DNSName):
            return name.value.replace("*", "HOST")
        if isinstance(name, x509.IPAddress):
            return f"[{name.value}]" if ":" in str(name.value) else str(name.value)
    return "HOST"
