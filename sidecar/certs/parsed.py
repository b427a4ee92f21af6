"""
What a file holds, parsed, whatever it is and whatever it is good for.

Files are read by the same code as the server's. Private keys are looked at to see whose they are and dropped at once:
nothing here returns or holds one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from cryptography import x509

from sidecar.certs.anchors import revocation_list
from sidecar.certs.certificates import certificates
from sidecar.certs.describe import describe_key
from sidecar.certs.forms import parse
from sidecar.certs.items import Contents, Item, Kind, Password
from sidecar.certs.keys import open_key, open_keystores
from sidecar.certs.parsing import PARSE_ERRORS, load_certificate, load_request
from sidecar.certs.sources import read as read_source
from sidecar.errors import MaterialError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

MAX_FILES = 50
"""Files of one directory; more are not for a person to read."""

_SUFFIXES = frozenset({".cer", ".crl", ".crt", ".csr", ".der", ".key", ".p12", ".pem", ".pfx"})


@attrs.frozen
class KeyFile:
    """
    A private key, as far as it may be known.

    Attributes:
        public_key: Its other half; None if the key is encrypted and no password was given.
        is_encrypted: Whether a password protects it.
    """

    public_key: PublicKeyTypes | None
    is_encrypted: bool

    @property
    def kind(self) -> str:
        """E.g. ``ECDSA P-256``, or ``unknown``."""
        return "unknown" if self.public_key is None else describe_key(self.public_key)


@attrs.frozen
class Parsed:
    """
    What a file holds.

    Attributes:
        file: Which.
        certificates: In the order of the file, each once.
        keys: Private keys.
        requests: Certificate signing requests.
        crls: Revocation lists.
    """

    file: Path
    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[KeyFile, ...] = ()
    requests: tuple[x509.CertificateSigningRequest, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()


def read(file: Path, password: Password | None = None) -> Parsed:
    """
    Find out what *file* is and parse it.

    Args:
        file: Of any of the forms that `certs.forms` knows.
        password: For PKCS#12 and encrypted keys; such keys are left closed without one, PKCS#12 is refused.

    Raises:
        MaterialError: With role ``cert``, or that of a password that opens nothing: it is of no known form, or damaged.
    """
    contents = parse(read_source(file, "cert"))
    passwords = [each for each in (contents.password, password) if each is not None]
    contents = _opened(contents, passwords)
    return Parsed(
        file,
        certificates(contents) if contents.has(Kind.CERTIFICATE) else (),
        tuple(_key_file(item, contents, passwords) for item in contents.of(Kind.PRIVATE_KEY)),
        tuple(_request(item, contents) for item in contents.of(Kind.REQUEST)),
        tuple(revocation_list(item, number, contents) for number, item in enumerate(contents.of(Kind.CRL), 1)),
    )


def parse_chain(chain: Sequence[bytes], where: str) -> tuple[x509.Certificate, ...]:
    """Parse certificates in DER, as a peer sent them; MaterialError with role ``cert`` if one is damaged."""
    try:
        return tuple(load_certificate(der) for der in chain)
    except PARSE_ERRORS:
        fact = f"{where} sent a certificate that is damaged or of an unknown kind"
        raise MaterialError("cert", fact, "replace the certificate there") from None


def list_files(directory: Path) -> list[Path]:
    """
    List the files in *directory* that are named like something that can be read, by name.

    Raises:
        MaterialError: With role ``cert``: there is none, there are too many, or the directory cannot be read.
    """
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as error:
        raise MaterialError("cert", f"{directory} cannot be read: {error.strerror}", "correct the path") from None
    if not found:
        fact = f"{directory} holds no file with one of the endings {', '.join(sorted(_SUFFIXES))}"
        raise MaterialError("cert", fact, "name a file")
    if len(found) > MAX_FILES:
        raise MaterialError("cert", f"{directory} holds {len(found)} such files, the limit is {MAX_FILES}", "name one")
    return found


def _opened(contents: Contents, passwords: Sequence[Password]) -> Contents:
    try:
        return open_keystores(contents, passwords)
    except MaterialError as error:
        if passwords:
            raise
        raise contents.error(error.fact, "name the file of its password with --password-file") from None


def _key_file(item: Item, contents: Contents, passwords: Sequence[Password]) -> KeyFile:
    if item.loaded is not None:
        assert not isinstance(item.loaded, x509.Certificate)  # by its kind
        return KeyFile(item.loaded.public_key(), is_encrypted=True)
    if item.is_encrypted and not passwords:
        return KeyFile(None, is_encrypted=True)
    return KeyFile(open_key(item, contents, passwords).public_key(), item.is_encrypted)


def _request(item: Item, contents: Contents) -> x509.CertificateSigningRequest:
    try:
        return load_request(item.data)
    except PARSE_ERRORS:
        fact = f"the certificate request in {contents.where(item)} is damaged or of an unknown kind"
        raise contents.error(fact, "copy it again, or have it made anew") from None
