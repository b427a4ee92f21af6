"""
What key material consists of: items of a kind, told apart by what they are and never by the name of a file.

`certs.forms` finds them in files and values, `certs.keys` and `certs.certificates` parse them. Their bytes may be a
key, so nothing here shows them.
"""

from __future__ import annotations

import enum

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.errors import MaterialError
from sidecar.values import Value

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of key that a server can prove itself with."""


class Kind(enum.Enum):
    """What an item is, in words."""

    CERTIFICATE = "certificate"
    PRIVATE_KEY = "private key"
    PKCS12 = "PKCS#12 keystore"
    CRL = "certificate revocation list"
    REQUEST = "certificate request"
    PUBLIC_KEY = "public key"
    OTHER = "something else"


@attrs.frozen(eq=False, repr=False)
class Item(Value):
    """
    One piece of key material.

    Attributes:
        kind: What it is, or claims to be.
        label: What it calls itself, for messages: the label of its PEM block, or e.g. ``DER certificate``.
        data: DER; the PEM text of a key that OpenSSL's traditional form encrypts; empty if the base64 is damaged.
        is_encrypted: It is a private key that takes a password.
        field: The JSON field it stands in; empty if in none.
        loaded: What it was parsed to already, as those from a keystore are.
    """

    kind: Kind
    label: str
    data: bytes = attrs.field(repr=False)
    is_encrypted: bool = False
    field: str = ""
    loaded: x509.Certificate | PrivateKey | None = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen(eq=False, repr=False)
class Password(Value):
    """
    A password for keys and keystores.

    Attributes:
        name: How messages call it, e.g. ``the password in /run/secrets/passphrase``.
        role: Whose fault it is if it opens nothing: of the setting ``passphrase``, or of the JSON that it came in.
    """

    name: str
    role: str
    secret: bytes = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class Contents(Value):
    """
    What one file or value holds.

    Attributes:
        role: What it was given as: ``cert``, ``key``, ``ca`` or ``crl``.
        name: How messages call it: its path, or e.g. ``the value given as key``.
        file: What stands for it in the commands that messages propose.
        items: In their order.
        password: One that came with it, in JSON.
    """

    role: str
    name: str
    file: str
    items: tuple[Item, ...]
    password: Password | None = None

    def of(self, kind: Kind) -> list[Item]:
        """The items of one kind."""
        return [item for item in self.items if item.kind is kind]

    def has(self, kind: Kind) -> bool:
        """Whether there are items of *kind*."""
        return any(item.kind is kind for item in self.items)

    def labels(self) -> str:
        """What the items call themselves, each label once."""
        return ", ".join(dict.fromkeys(item.label for item in self.items)) or "nothing"

    def where(self, item: Item) -> str:
        """How messages call the place of *item*."""
        return f"{self.name} (field {item.field})" if item.field else self.name

    def error(self, fact: str, fix: str) -> MaterialError:
        """A problem with what was given for this role."""
        return MaterialError(self.role, fact, fix)


# -- DER --------------------------------------------------------------------------------------------------------

_INTEGER, _OID, _SEQUENCE, _CONTEXT_0, _TIMES = 0x02, 0x06, 0x30, 0xA0, {0x17, 0x18}

# Password-based encryption: PKCS #5 (1.2.840.113549.1.5) and PKCS #12 (1.2.840.113549.1.12.1).
_PASSWORD_BASED = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))


@attrs.frozen(eq=False, repr=False)
class _Element(Value):
    """A header of X.690 section 8.1: its tag, and where its content starts and ends; it may end beyond the data."""

    tag: int
    start: int
    end: int


def is_der(data: bytes) -> bool:
    """Whether *data* starts as every form of key material in DER does: a SEQUENCE, and no text."""
    return data[:1] == b"\x30" and any(byte < 9 or 13 < byte < 32 or byte > 126 for byte in data[1:8])


def der_size(data: bytes) -> int | None:
    """How many bytes the element at the start of *data* should have; None if it does not say."""
    outer = _element(data, 0)
    return None if outer is None or data[1] == 0x80 else outer.end


def der_item(data: bytes, field: str = "") -> Item:
    """Tell by its outer structure what *data* is."""
    kind, is_encrypted = _kind_of(data)
    label = "PKCS#12" if kind is Kind.PKCS12 else f"DER {kind.value}"
    return Item(kind, label, data, is_encrypted, field)


def _kind_of(data: bytes) -> tuple[Kind, bool]:
    outer = _element(data, 0)
    first = _element(data, outer.start) if outer is not None else None
    if first is None:
        return Kind.OTHER, False
    if first.tag == _INTEGER:  # a version: 3 in PKCS#12 (RFC 7292 section 4), 0 or 1 in all forms of private keys
        is_keystore = data[first.start : first.end] == b"\x03"
        return (Kind.PKCS12 if is_keystore else Kind.PRIVATE_KEY), False
    if first.tag != _SEQUENCE:
        return Kind.OTHER, False
    inner = _element(data, first.start)
    if inner is not None and inner.tag == _OID:
        is_encrypted = data[inner.start : inner.end].startswith(_PASSWORD_BASED)
        return (Kind.PRIVATE_KEY if is_encrypted else Kind.PUBLIC_KEY), is_encrypted
    return _kind_of_signed(_tags(data, first)), False


def _kind_of_signed(tags: list[int]) -> Kind:
    """Tell certificates, CRLs and requests apart by the start of what is signed (RFC 5280 4.1, 5.1, RFC 2986 4.1)."""
    if not _TIMES.isdisjoint(tags):
        return Kind.CRL
    if tags[:1] == [_INTEGER] and (len(tags) == 3 or tags[3:] == [_CONTEXT_0]):
        return Kind.REQUEST
    return Kind.CERTIFICATE


def _tags(data: bytes, parent: _Element) -> list[int]:
    """The tags of the first four elements in *parent*."""
    tags: list[int] = []
    at = parent.start
    while at < parent.end and len(tags) < 4 and (element := _element(data, at)) is not None:
        tags.append(element.tag)
        at = element.end
    return tags


def _element(data: bytes, at: int) -> _Element | None:
    header = data[at : at + 6]
    if len(header) < 2:
        return None
    tag, length = header[0], header[1]
    if length < 0x80:
        return _Element(tag, at + 2, at + 2 + length)
    if length == 0x80:  # BER: the end is marked; some keystores are written so
        return _Element(tag, at + 2, len(data))
    size = length & 0x7F
    if size > 4:
        return None
    start = at + 2 + size
    return _Element(tag, start, start + int.from_bytes(header[2 : 2 + size], "big"))
