"""
Private keys and keystores, opened with the passwords that there are.

A message says which password does not open what; neither is ever shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from sidecar.certs.describe import describe_key
from sidecar.certs.items import Contents, Item, Kind, Password, PrivateKey, der_size
from sidecar.certs.parsing import PARSE_ERRORS, quiet
from sidecar.errors import MaterialError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.serialization import pkcs12

MIN_RSA_BITS = 2048
"""NIST SP 800-57 part 1: 112 bits of security, the least that OpenSSL's default security level takes."""

SUPPORTED_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SUPPORTED_KEYS = "RSA of 2048 bits or more, ECDSA P-256, P-384 or P-521, or Ed25519"


def private_key(contents: Contents, passwords: Sequence[Password]) -> PrivateKey:
    """
    Parse the first private key of *contents*, in which keystores are open.

    Raises:
        MaterialError: With the role of *contents*, or of the password that does not open it.
    """
    item = next(iter(contents.of(Kind.PRIVATE_KEY)), None)
    if item is None:
        raise _no_key(contents)
    if isinstance(item.loaded, PrivateKey):
        return item.loaded
    return _supported(open_key(item, contents, passwords), contents.where(item), contents)


def open_key(item: Item, contents: Contents, passwords: Sequence[Password]) -> PrivateKeyTypes:
    """
    Parse *item*, a private key of *contents* that is not from a keystore, whatever its kind and size.

    Raises:
        MaterialError: As for `private_key`.
    """
    if item.label == "OPENSSH PRIVATE KEY":
        fix = f"convert it: ssh-keygen -p -m PEM -f {contents.file}"
        raise contents.error(f"the private key in {contents.where(item)} is in OpenSSH's form", fix)
    is_locked = item.is_encrypted and _is_whole(item.data)
    return _unlocked(item, contents, passwords) if is_locked else _plain(item, contents)


def open_keystores(contents: Contents, passwords: Sequence[Password]) -> Contents:
    """
    Replace the PKCS#12 keystores of *contents* by the keys and certificates in them.

    Of a keystore with several keys, the first counts. Without a password, and with an empty one, they are tried too.

    Raises:
        MaterialError: With the role of *contents*, or of the password that does not open it.
    """
    if not contents.has(Kind.PKCS12):
        return contents
    items: list[Item] = []
    for item in contents.items:
        items += _opened(item, contents, passwords) if item.kind is Kind.PKCS12 else [item]
    return attrs.evolve(contents, items=tuple(items))


# -- keys -------------------------------------------------------------------------------------------------------


def _plain(item: Item, contents: Contents) -> PrivateKeyTypes:
    try:
        with quiet():
            return load_der_private_key(item.data, password=None)
    except PARSE_ERRORS:
        fact = f"the private key in {contents.where(item)} is damaged or of an unknown kind"
        raise contents.error(fact, f"look at it with: openssl pkey -in {contents.file} -noout -text_pub") from None


def _is_whole(data: bytes) -> bool:
    """Whether it is worth trying passwords: one that fails on what is cut short would be blamed for it."""
    return data.startswith(b"-----BEGIN ") or der_size(data) == len(data)


def _unlocked(item: Item, contents: Contents, passwords: Sequence[Password]) -> PrivateKeyTypes:
    load = load_pem_private_key if item.data.startswith(b"-----BEGIN ") else load_der_private_key
    what = f"the private key in {contents.where(item)}"
    if not passwords:
        raise contents.error(
            f"{what} is encrypted, and no password is given", "give its password as SIDECAR_TLS_KEY_PASSWORD"
        )
    for password in passwords:
        try:
            with quiet():
                return load(item.data, password=password.secret)
        except PARSE_ERRORS:
            continue
    fix = (
        f"give the password of this key; if it is right, encrypt the key anew: openssl pkey -aes256 -in {contents.file}"
    )
    raise _refused(passwords, what, f"{fix} -out NEW")


def _supported(key: PrivateKeyTypes, where: str, contents: Contents) -> PrivateKey:
    match key:
        case rsa.RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return key
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, SUPPORTED_CURVES):
            return key
        case ed25519.Ed25519PrivateKey():
            return key
    fact = f"the private key in {where} is {describe_key(key)}, which is not supported"
    raise contents.error(fact, f"use {_SUPPORTED_KEYS}")


def _no_key(contents: Contents) -> MaterialError:
    fact = f"{contents.name} holds no private key, only: {contents.labels()}"
    if contents.has(Kind.CERTIFICATE):
        return contents.error(fact, "name the key file here (are certificate and key swapped?)")
    if contents.has(Kind.PUBLIC_KEY):
        return contents.error(fact, "give the private key that this public key was made from")
    if contents.has(Kind.REQUEST):
        return contents.error(fact, "give the private key that this request was made with")
    return contents.error(fact, "give what has a -----BEGIN PRIVATE KEY----- block")


# -- keystores --------------------------------------------------------------------------------------------------


def _opened(item: Item, contents: Contents, passwords: Sequence[Password]) -> Iterator[Item]:
    from cryptography.hazmat.primitives.serialization import pkcs12  # costs time at start, and few need it

    is_refused = False
    for secret in (*(password.secret for password in passwords), None, b""):
        try:
            with quiet():
                store = pkcs12.load_pkcs12(item.data, secret)
        except UnsupportedAlgorithm:
            is_refused = True
        except PARSE_ERRORS:
            continue
        else:
            yield from _items_of(store, item, contents)
            return
    what = f"the PKCS#12 keystore in {contents.where(item)}"
    if is_refused:
        command = f"openssl pkcs12 -legacy -in {contents.file} -nodes | openssl pkcs12 -export -out NEW.p12"
        raise contents.error(f"{what} is encrypted in a way that is no longer supported", f"convert it: {command}")
    if not passwords:
        fact = f"{what} is encrypted, and no password is given"
        raise contents.error(fact, "give its password as SIDECAR_TLS_KEY_PASSWORD; if it has none, the file is damaged")
    raise _refused(passwords, what, "give the password it was exported with; if it is right, the file is damaged")


def _items_of(store: pkcs12.PKCS12KeyAndCertificates, item: Item, contents: Contents) -> Iterator[Item]:
    if store.key is not None:
        key = _supported(store.key, contents.where(item), contents)
        yield Item(Kind.PRIVATE_KEY, "PKCS#12 private key", b"", field=item.field, loaded=key)
    own = [] if store.cert is None else [store.cert]
    for entry in (*own, *store.additional_certs):
        certificate = entry.certificate
        yield Item(Kind.CERTIFICATE, "PKCS#12 certificate", b"", field=item.field, loaded=certificate)


def _refused(passwords: Sequence[Password], what: str, fix: str) -> MaterialError:
    names = list(dict.fromkeys(password.name for password in passwords))
    fact = f"{names[0]} does not open {what}"
    if len(names) > 1:
        fact = f"neither {' nor '.join(names)} opens {what}"
    return MaterialError(passwords[-1].role, fact, fix)
