"""The password of keys and keystores, from a file or a value."""

from __future__ import annotations

from sidecar.certs.forms import password_field
from sidecar.certs.items import Password
from sidecar.certs.sources import read
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source

MAX_PASSWORD_BYTES = 1024
"""What OpenSSL takes (PEM_BUFSIZE). Longer ones are other files."""


def read_password(source: Source) -> Password:
    """
    Read a password: a file's content less one line break at its end, or a value as it is.

    JSON with a field ``passphrase`` or ``password`` stands for what is in the field.

    Raises:
        MaterialError: With role ``passphrase``.
    """
    given = read(source, "passphrase")
    data = given.data
    secret = password_field(data)
    if secret is None and given.file is None:
        secret = data
    elif secret is None:
        secret = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
    if len(secret) > MAX_PASSWORD_BYTES:
        fact = f"{given.name} has {len(secret):,} bytes, a password has at most {MAX_PASSWORD_BYTES:,}"
        raise MaterialError("passphrase", fact, "name the file that holds nothing but the password")
    name = "the password given" if isinstance(source, Inline) else f"the password in {given.name}"
    return Password(name, "passphrase", secret)
