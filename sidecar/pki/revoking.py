"""The commands that revoke certificates and renew the list of the revoked ones: ``revoke`` and ``crl``."""

from __future__ import annotations

import argparse
import os
import re
from datetime import datetime
from pathlib import Path

from sidecar.certs.authority import Authority, crl_pem, make_crl
from sidecar.certs.cadir import CA_CRL
from sidecar.certs.describe import rfc3339
from sidecar.certs.newfiles import NewFile, write_files
from sidecar.certs.parsed import read
from sidecar.certs.register import Register, is_revocable, load_register, locked, save_register
from sidecar.certs.traits import is_issued_by
from sidecar.errors import MaterialError
from sidecar.pki.opening import ca_option, load_ca
from sidecar.pki.outcome import Outcome, quoted


def revoke(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Revoke certificates, and sign the new list."""
    issuer, warnings = load_ca(arguments, now)
    lines = []
    with locked(arguments.ca):
        register = load_register(arguments.ca)
        for target in arguments.targets:
            serial, register = _find_revoked(target, arguments, issuer, register, now)
            before = register.find(serial)
            assert before is not None
            register = register.revoke(serial, now)
            when = "revoked" if before.revoked is None else f"was revoked on {rfc3339(before.revoked)}:"
            lines.append(f"{when} {serial:x} ({before.purpose}, {before.name})")
        lines += _sign_crl(arguments, issuer, register, now)
    return Outcome(lines, warnings)


def renew_crl(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Sign a new list."""
    issuer, warnings = load_ca(arguments, now)
    with locked(arguments.ca):
        lines = _sign_crl(arguments, issuer, load_register(arguments.ca), now)
    return Outcome(lines, warnings)


def _find_revoked(
    target: str, arguments: argparse.Namespace, issuer: Authority, register: Register, now: datetime
) -> tuple[int, Register]:
    """Find the number of *target*, and the register with an entry for it."""
    if os.path.exists(target):
        certificate = next(iter(read(Path(target)).certificates), None)
        if certificate is None or not is_issued_by(certificate, issuer.certificate):
            fact = f"{target} is not a certificate of the CA in {arguments.ca}"
            raise MaterialError("cert", fact, "name one that it issued, or its CA with --ca")
        if certificate == issuer.certificate:
            fact = f"{target} is the CA itself, which no list of its own can revoke"
            raise MaterialError("cert", fact, "take it out of whatever trusts it")
        serial = certificate.serial_number
        if not is_revocable(serial):
            fact = f"the serial number of {target}, {serial:x}, is not between 1 and 20 octets, so no list can name it"
            raise MaterialError("cert", fact, "take its issuer out of whatever trusts it")
        return serial, register if register.find(serial) else register.add(certificate, "unknown", now)
    digits = target.replace(":", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{1,40}", digits):
        fact = f"{target!r} is neither a file nor a serial number in hexadecimal"
        raise MaterialError("cert", fact, "name the certificate's file, or a number out of issued.txt")
    if register.find(int(digits, 16)) is None:
        fact = f"the CA in {arguments.ca} has issued nothing with the serial number {digits}"
        raise MaterialError("cert", fact, "look into its issued.txt, or name the certificate's file")
    return int(digits, 16), register


def _sign_crl(arguments: argparse.Namespace, issuer: Authority, register: Register, now: datetime) -> list[str]:
    """Record the number before it is used: a crash between the two skips one, which is allowed; reuse is not."""
    register = register.next_crl()
    save_register(arguments.ca, register)
    crl = make_crl(issuer, register.revoked, register.crl_number, now, arguments.days)
    file = arguments.ca / CA_CRL
    write_files([NewFile(file, crl_pem(crl))], replace=True)
    due = rfc3339(now + arguments.days)
    return [
        f"wrote {file}: list number {register.crl_number}, revoked certificates: {len(register.revoked)}",
        f"check it: SIDECAR_CLIENT_CRL={quoted(file)}, and the like wherever this CA is trusted",
        f"next: renew it before {due}, or peers that check it refuse everybody: "
        f"sidecar certs crl{ca_option(arguments.ca)}",
    ]
