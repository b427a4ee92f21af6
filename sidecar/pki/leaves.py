"""What the commands that issue have in common: where a certificate goes, and what is said of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from sidecar.certs.altnames import name_text
from sidecar.certs.authority import Authority, issue
from sidecar.certs.builders import PublicKey
from sidecar.certs.identities import Identity, Purpose
from sidecar.certs.newfiles import NewFile, check_free, make_directory, write_files
from sidecar.certs.register import load_register, locked, save_register
from sidecar.certs.report import shorten, time_left


def check_places(files: Sequence[Path], arguments: argparse.Namespace) -> None:
    """Refuse to overwrite any of *files*, unless that is asked for; MaterialError."""
    if not arguments.replace:
        check_free(files, "renew it with --replace, or name another place with --out")


def issue_recorded(
    arguments: argparse.Namespace,
    issuer: Authority,
    purpose: Purpose,
    identity: Identity,
    public_key: PublicKey,
    now: datetime,
) -> x509.Certificate:
    """Issue, and record it before it is written: what is not in the register cannot be revoked by its number."""
    leaf = issue(issuer, purpose, identity, public_key, now, arguments.days)
    with locked(arguments.ca):
        save_register(arguments.ca, load_register(arguments.ca).add(leaf, purpose.value, now))
    return leaf


def write_new(directory: Path, files: Sequence[Path], contents: Sequence[bytes], arguments: argparse.Namespace) -> None:
    """Write *contents*, one for each of *files*, all or none; MaterialError if that cannot be."""
    make_directory(directory)
    new = [
        NewFile(file, content, is_secret=file.suffix in (".key", ".p12"))
        for file, content in zip(files, contents, strict=True)
    ]
    write_files(new, replace=arguments.replace)


def names_of(identity: Identity) -> str:
    """List whom a certificate is for."""
    commons = [str(attribute.value) for attribute in identity.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return shorten(dict.fromkeys([*commons, *map(name_text, identity.names)]))


def validity_of(certificate: x509.Certificate, now: datetime) -> str:
    """Say how long *certificate* can be used."""
    return f"until {certificate.not_valid_after_utc:%Y-%m-%d} ({time_left(certificate.not_valid_after_utc, now)})"


def cap_lines(leaf: x509.Certificate, arguments: argparse.Namespace, now: datetime) -> list[str]:
    """Say so if *leaf* ends earlier than was asked for."""
    if leaf.not_valid_after_utc >= (now + arguments.days).replace(microsecond=0):
        return []
    return [f"note: it ends with its CA, earlier than the {arguments.days.days} days asked for; make a new CA soon"]
