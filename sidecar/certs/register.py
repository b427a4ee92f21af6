"""
What a CA has issued and revoked: the file issued.txt in its directory, which one run at a time may change.

Revocation lists are made of it, so a line that cannot be read stops everything: a list without what was lost would
un-revoke it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
from cryptography import x509

from sidecar.certs.describe import rfc3339
from sidecar.certs.newfiles import NewFile, cannot_write, write_files
from sidecar.certs.sources import read
from sidecar.certs.traits import alternative_names
from sidecar.errors import MaterialError

REGISTER = "issued.txt"
_LOCK = ".lock"

MAX_REGISTER_BYTES = 16 * 1024 * 1024
"""About 100,000 certificates."""


@attrs.frozen
class Entry:
    """
    A certificate in the register.

    Attributes:
        serial: Its serial number.
        issued: When.
        expires: The end of its validity.
        revoked: When it was, or None.
        purpose: ``server`` or ``client``; ``unknown`` for one that was revoked without being in the register.
        name: For people, without control characters.
    """

    serial: int
    issued: datetime
    expires: datetime
    revoked: datetime | None
    purpose: str
    name: str

    def line(self) -> str:
        """As it stands in the file."""
        revoked = "-" if self.revoked is None else rfc3339(self.revoked)
        return f"{self.serial:040x} {rfc3339(self.issued)} {rfc3339(self.expires)} {revoked} {self.purpose} {self.name}"


@attrs.frozen
class Register:
    """
    What a CA has issued and revoked: the content of issued.txt.

    Attributes:
        entries: In the order of issue.
        crl_number: Of the newest CRL; 0 before the first.
    """

    entries: tuple[Entry, ...] = ()
    crl_number: int = 0

    @property
    def revoked(self) -> tuple[Entry, ...]:
        """Those that a CRL lists."""
        return tuple(entry for entry in self.entries if entry.revoked is not None)

    def find(self, serial: int) -> Entry | None:
        """The entry with that number."""
        return next((entry for entry in self.entries if entry.serial == serial), None)

    def add(self, certificate: x509.Certificate, purpose: str, now: datetime) -> Register:
        """With *certificate* as a new entry."""
        name = _register_name(certificate)
        expires = certificate.not_valid_after_utc
        entry = Entry(certificate.serial_number, now.replace(microsecond=0), expires, None, purpose, name)
        return attrs.evolve(self, entries=(*self.entries, entry))

    def revoke(self, serial: int, now: datetime) -> Register:
        """With the entry of that number revoked at *now*, unless it was before."""
        moment = now.replace(microsecond=0)
        entries = tuple(
            attrs.evolve(entry, revoked=moment) if entry.serial == serial and entry.revoked is None else entry
            for entry in self.entries
        )
        return attrs.evolve(self, entries=entries)

    def next_crl(self) -> Register:
        """With the number of one CRL more."""
        return attrs.evolve(self, crl_number=self.crl_number + 1)

    def text(self) -> str:
        """As it stands in the file."""
        head = [
            "# What this CA has issued; kept by `sidecar certs`. One certificate a line:",
            "# serial issued expires revoked-or-dash purpose name",
            f"crl-number {self.crl_number}",
        ]
        return "\n".join([*head, *(entry.line() for entry in self.entries)]) + "\n"


def load_register(directory: Path) -> Register:
    """Read the register in *directory*; an empty one if there is none; MaterialError (``ca``) if it is damaged."""
    file = directory / REGISTER
    if not file.exists():
        return Register()
    entries: list[Entry] = []
    crl_number: int | None = None
    lines = read(file, "ca", limit=MAX_REGISTER_BYTES).data.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            match line.split(" ", 5):
                case ["#", *_]:
                    pass
                case ["crl-number", value]:
                    crl_number = _number(value, 10)
                case [serial, issued, expires, revoked, purpose, name]:
                    gone = None if revoked == "-" else _moment(revoked)
                    entries.append(Entry(_serial(serial), _moment(issued), _moment(expires), gone, purpose, name))
                case _:
                    raise ValueError
        except ValueError:
            fact = f"line {number} of {file} cannot be read"
            raise MaterialError("ca", fact, "mend that line, or bring the file back from a backup") from None
    if crl_number is None:  # starting again at 1 would make lists that nobody takes
        fact = f"{file} has no line with the crl-number"
        raise MaterialError("ca", fact, "add the line, with the number of the newest CRL, or 0")
    return Register(tuple(entries), crl_number)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs from changing the register in *directory* meanwhile."""
    file = directory / _LOCK
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(file, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_revocable(serial: int) -> bool:
    """Whether a CRL can name a certificate of that number: positive, 20 octets (RFC 5280 section 4.1.2.2)."""
    return 0 < serial < 1 << 159


def save_register(directory: Path, register: Register) -> None:
    """Replace the register in *directory*, which must be `locked`, in one step."""
    write_files([NewFile(directory / REGISTER, register.text().encode())], replace=True)


def _register_name(certificate: x509.Certificate) -> str:
    name = certificate.subject.rfc4514_string()
    if not name:
        name = ", ".join(str(general.value) for general in alternative_names(certificate))
    return "".join(character if character.isprintable() else "?" for character in name)[:200] or "?"


def _serial(text: str) -> int:
    serial = _number(text, 16)
    if not is_revocable(serial):
        raise ValueError
    return serial


def _number(text: str, base: int) -> int:
    if not re.fullmatch(r"[0-9a-f]{1,40}", text, re.ASCII):
        raise ValueError
    return int(text, base)


def _moment(text: str) -> datetime:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if moment.year < 1950:  # the first that a CRL can hold, RFC 5280 section 5.1.2.4
        raise ValueError
    return moment
