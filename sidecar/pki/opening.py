"""What a command opens before it can issue or show anything: passwords in files, and the CA."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from sidecar.certs.authority import Authority
from sidecar.certs.cadir import CA_KEY, load_authority
from sidecar.certs.items import Password
from sidecar.certs.sources import is_exposed, read
from sidecar.errors import MaterialError
from sidecar.pki.outcome import quoted

MIN_PASSWORD_LENGTH = 8
"""Of what protects a key: the old encryption of PKCS#12 slows guessing down only a little."""

_MAX_PASSWORD_FILE = 64 * 1024


def password_in(file: Path | None) -> Password | None:
    """Read the first line of *file*; None if there is none. MaterialError if that cannot be, or is empty."""
    if file is None:
        return None
    lines = read(file, "passphrase", limit=_MAX_PASSWORD_FILE).data.splitlines()
    if not lines[0]:
        raise MaterialError("passphrase", f"the first line of {file} is empty", "write the password there")
    return Password(f"the password in {file}", "passphrase", lines[0])


def new_password_in(file: Path | None) -> bytes | None:
    """The same for something new, where a short one would be no protection."""
    password = password_in(file)
    if password is None:
        return None
    if len(password.secret) < MIN_PASSWORD_LENGTH:
        fact = f"{password.name} has {len(password.secret)} bytes, the least is {MIN_PASSWORD_LENGTH}"
        raise MaterialError("passphrase", fact, "write a longer one there")
    return password.secret


def load_ca(arguments: argparse.Namespace, now: datetime) -> tuple[Authority, list[str]]:
    """Load the CA that *arguments* name, and say in sentences what is odd about it."""
    loaded = load_authority(arguments.ca, password_in(arguments.ca_password_file), now)
    key_file = arguments.ca / CA_KEY
    exposed = f"others than its owner may read {key_file}; chmod 600 {quoted(key_file)}"
    return loaded, [exposed] if is_exposed(key_file) else []


def ca_option(directory: Path) -> str:
    """What names the CA in *directory* in a command to run next; nothing if it is the usual one."""
    return "" if directory == Path("ca") else f" --ca {quoted(directory)}"
