"""
From bytes to items, in every form that people have key material in.

Told apart by content: DER, PEM (with line breaks, with ``\\n`` written out, or with blanks or nothing in their place),
base64 of any form, and JSON objects as secret managers keep them. Forms may be nested (a JSON field with base64 of
PEM), up to `MAX_LAYERS`. What is damaged inside an item shows when it is parsed: it may be one that nobody needs.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator

import attrs

from sidecar.certs.items import Contents, Item, Kind, Password, der_item, der_size, is_der
from sidecar.certs.sources import Given, may_be_secret
from sidecar.errors import MaterialError
from sidecar.values import Value

MAX_LAYERS = 5
"""Forms inside each other. The deepest in use is base64 of JSON with base64 of PEM in a field; people encode twice."""

MAX_JSON_DEPTH = 4
"""Objects inside each other. What Vault and kubectl print has its fields in the second."""

_MAX_NAMES = 12
"""Field names in a message."""


def parse(given: Given) -> Contents:
    """
    Find the items of *given*.

    Of JSON, only the fields that stand for its role are looked at, those of the certificate for the key inside too.

    Raises:
        MaterialError: With its role: it is of no known form, cut short, or without anything for the role.
    """
    file = "FILE" if given.file is None else str(given.file)
    place = _Place(given, file)
    found = _found(given.data, place, MAX_LAYERS)
    if found is None:
        raise _unknown(given.data, place)
    return Contents(given.role, given.name, file, found.items, found.password)


def password_field(data: bytes) -> bytes | None:
    """Return the password that *data* holds in a field if it is a JSON object; None if it is not, or holds none."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        return _password_in(_fields_of(data))
    except ValueError:
        return None


@attrs.frozen(eq=False, repr=False)
class _Found(Value):
    items: tuple[Item, ...]
    password: Password | None = None


@attrs.frozen(eq=False, repr=False)
class _Place(Value):
    """Where bytes come from: a whole file or value, or a field of it."""

    given: Given
    file: str
    field: str = ""

    @property
    def name(self) -> str:
        return f"{self.given.name} (field {self.field})" if self.field else self.given.name

    def error(self, fact: str, fix: str) -> MaterialError:
        return MaterialError(self.given.role, f"{self.name} {fact}", fix)


def _found(data: bytes, place: _Place, layers: int) -> _Found | None:
    """Take off one form after the other, *layers* at most; None if what is left is of no known form."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes text
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if is_der(data):
        return _Found((_der(data, place),))
    if data.startswith(_JAVA_KEYSTORES):
        raise place.error("is a Java keystore (JKS)", _KEYTOOL.format(file=place.file))
    text = _unquoted(data.strip())
    if text.startswith(b"{") and layers:
        return _json(text, place, layers - 1)
    text = _WRITTEN_BREAK.sub(b"\n", text)
    if b"-----BEGIN " in text:
        return _Found(_pem(text, place))
    decoded = _base64(text) if layers else None
    return None if decoded is None else _found(decoded, place, layers - 1)


def _unknown(data: bytes, place: _Place) -> MaterialError:
    text = _WRITTEN_BREAK.sub(b"\n", _unquoted(data.strip()))
    if place.given.file is None and not place.field and _PATH.fullmatch(text):
        fix = "correct the path if the file is elsewhere, or give the text of the file"
        return place.error("is no key material; it looks like a path", fix)
    if text.startswith(_ENCODED_STARTS) and _base64(text) is None:
        fix = "copy it whole: letters, digits, + and / only, with = at the end if need be"
        return place.error("is not PEM; it looks like base64 that is damaged", fix)
    fix = "give what starts with -----BEGIN …-----, or one of the other forms"
    return place.error("is not PEM, DER, PKCS#12 or JSON, nor base64 of one", fix)


# -- DER --------------------------------------------------------------------------------------------------------

_JAVA_KEYSTORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
_KEYTOOL = "convert it: keytool -importkeystore -srckeystore {file} -destkeystore NEW.p12 -deststoretype PKCS12"


def _der(data: bytes, place: _Place) -> Item:
    size = der_size(data)
    item = der_item(data[:size], place.field)
    if size is not None and size > len(data):
        raise place.error(f"is {item.label} that is cut short: it has {len(data)} of {size} bytes", "copy it again")
    if size is not None and data[size:].strip():
        raise place.error(f"is {item.label} that is damaged: more follows after its end", "copy it again")
    return item


# -- PEM --------------------------------------------------------------------------------------------------------

_WRITTEN_BREAK = re.compile(rb"\\{1,4}[rn]")  # bounded, so that backslashes only cost linear time

# RFC 7468. The body stops at the next dashes, so a file of BEGIN lines only costs linear time.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9# ]{1,40})-----((?:(?!-----).)*)-----END \1-----", re.DOTALL)

# RFC 1421 section 4.6, as OpenSSL's traditional form of encrypted keys has them, whatever their line breaks became.
_ENCRYPTION_HEADERS = re.compile(
    rb"\s*Proc-Type:\s*4,\s*ENCRYPTED\s+DEK-Info:\s*([A-Z0-9-]{1,32}),([0-9A-Fa-f]{1,64})\s+", re.ASCII
)

_KINDS = {
    "CERTIFICATE": Kind.CERTIFICATE,
    "X509 CERTIFICATE": Kind.CERTIFICATE,
    "X509 CRL": Kind.CRL,
    "CRL": Kind.CRL,
    "CERTIFICATE REQUEST": Kind.REQUEST,
    "NEW CERTIFICATE REQUEST": Kind.REQUEST,
    "PKCS12": Kind.PKCS12,
}


def _pem(text: bytes, place: _Place) -> tuple[Item, ...]:
    blocks = list(_BLOCK.finditer(text))
    if text.count(b"-----BEGIN ") > len(blocks):
        fact = "is cut short or damaged: a BEGIN line in it has no matching END line"
        raise place.error(fact, "copy the whole file again")
    return tuple(_block(block[1].decode("ascii"), block[2], place.field) for block in blocks)


def _block(label: str, body: bytes, field: str) -> Item:
    kind = _KINDS.get(label, Kind.OTHER)
    if label.endswith("PRIVATE KEY"):
        kind = Kind.PRIVATE_KEY
    elif label.endswith("PUBLIC KEY"):
        kind = Kind.PUBLIC_KEY
    headers = _ENCRYPTION_HEADERS.match(body)
    data = _strict_base64(b"".join((body if headers is None else body[headers.end() :]).split())) or b""
    if headers is not None and data:
        return Item(kind, label, _encrypted_text(label, headers, data), True, field)
    return Item(kind, label, data, label.startswith("ENCRYPTED "), field)


def _encrypted_text(label: str, headers: re.Match[bytes], der: bytes) -> bytes:
    """Write the block as OpenSSL does: only this form needs its headers to be read."""
    lines = [binascii.b2a_base64(der[at : at + 48]) for at in range(0, len(der), 48)]
    marker = label.encode("ascii")
    head = b"-----BEGIN %b-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: %b,%b\n\n" % (marker, headers[1], headers[2])
    return head + b"".join(lines) + b"-----END %b-----\n" % marker


# -- base64 and text --------------------------------------------------------------------------------------------

# Base64 of «-----BEGIN», of DER of the usual lengths, and of JSON.
_ENCODED_STARTS = (b"LS0tLS1", b"MI", b"eyJ", b"ewog")

_PATH = re.compile(rb"(?:file:|~|\.{0,2}/|[A-Za-z]:\\)\S{1,250}|\S{1,250}\.(?:pem|crt|cer|key|p12|pfx|der|crl|json)")


def _base64(text: bytes) -> bytes | None:
    joined = b"".join(text.split())
    return _strict_base64(joined + b"=" * (-len(joined) % 4))  # variables lose the = at their end


def _strict_base64(text: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


def _unquoted(text: bytes) -> bytes:
    """Take off the quotes that `docker --env-file` and some YAML templates leave around a value."""
    is_quoted = len(text) > 1 and text[:1] == text[-1:] and text[:1] in (b'"', b"'")
    return text[1:-1].strip() if is_quoted else text


# -- JSON -------------------------------------------------------------------------------------------------------

# What the fields of secret managers are called, in small letters without separators.
_NAMES = {
    "cert": {"certificate", "cert", "crt", "tlscrt", "tlscert", "fullchain", "certificatebody"},
    "chain": {"certificatechain", "certchain", "chain", "cachain", "issuingca", "ca", "cacrt", "cacert"},
    "key": {"privatekey", "key", "tlskey"},
    "keystore": {"p12", "pkcs12", "pfx", "keystore", "keystorep12"},
    "truststore": {"truststore", "truststorep12"},
    "crl": {"crl", "crls", "cacrl", "crlpem"},
    "password": {"passphrase", "password", "keypassphrase", "keypassword", "keystorepassword"},
}
_MEANINGS = {name: meaning for meaning, names in _NAMES.items() for name in names}

# For each role the meanings to take, if there is a field of the first of them. A Vault answer has the certificate and
# its CA, so as client CA only the latter is meant; one with PEM and a keystore has the same twice.
_TAKEN = {
    "cert": (("cert", "chain", "key"), ("keystore",), ("chain", "key")),
    "key": (("key",), ("keystore",)),
    "ca": (("chain",), ("truststore",), ("keystore",), ("cert",)),
    "crl": (("crl",),),
}
_EXAMPLES = {"cert": "certificate", "key": "private_key", "ca": "ca", "crl": "crl"}


@attrs.frozen(eq=False, repr=False)
class _Field(Value):
    """A text in a JSON object; what it means is empty if nothing to us."""

    name: str
    meaning: str
    text: str = attrs.field(repr=False)


def _json(text: bytes, place: _Place, layers: int) -> _Found:
    try:
        fields = _fields_of(text)
    except ValueError:
        raise place.error("is JSON that is damaged", "copy it again, with its quotes and backslashes") from None
    role = place.given.role
    by_meaning: dict[str, list[_Field]] = {}
    for field in fields:
        by_meaning.setdefault(field.meaning, []).append(field)
    taken = next((meanings for meanings in _TAKEN[role] if meanings[0] in by_meaning), None)
    if taken is None:
        fact = f"is JSON without a field for this; its fields with text: {_listed(fields)}"
        raise place.error(fact, f"call the field {_EXAMPLES[role]}")
    items: list[Item] = []
    for field in (field for meaning in taken for field in by_meaning.get(meaning, ())):
        inner = attrs.evolve(place, field=_showable(field.name))
        data = field.text.encode("utf-8", "replace")
        found = _found(data, inner, layers)
        if found is None:
            raise _unknown(data, inner)
        items += found.items
    secret = _password_in(fields)
    password = None if secret is None else Password(f"the password in {place.given.name}", role, secret)
    return _Found(tuple(items), password)


def _fields_of(text: bytes) -> list[_Field]:
    """Read what starts as a JSON object; ValueError if it does not go on as one."""
    import json  # costs time at start, and few need it

    try:
        # Not strict: PEM is pasted into JSON with its line breaks.
        top = json.loads(text, strict=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    assert isinstance(top, dict)  # the text starts with a brace
    return list(_walk(top, MAX_JSON_DEPTH))


def _walk(fields: dict[str, object], depth: int) -> Iterator[_Field]:
    for name, value in fields.items():
        if isinstance(value, dict) and depth > 1:
            yield from _walk(value, depth - 1)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                yield _Field(name, _MEANINGS.get(re.sub(r"[-_. ]", "", name).lower(), ""), text)


def _password_in(fields: list[_Field]) -> bytes | None:
    text = next((field.text for field in fields if field.meaning == "password"), None)
    return None if text is None else text.encode("utf-8", "replace")


def _listed(fields: list[_Field]) -> str:
    """The names, of which there may be many."""
    names = list(dict.fromkeys(_showable(field.name) for field in fields))
    more = ", …" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more if names else "none"


def _showable(name: str) -> str:
    """A field's name, unless it may be a value that a missing quote made a name."""
    return "(not shown)" if may_be_secret(name) or len(name) > 40 else repr(name)
