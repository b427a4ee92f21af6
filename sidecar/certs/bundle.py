"""
Key material to what a server proves its identity with: certificates with their chains and keys.

What leaves this module can serve: it is parsed, in date, fit for its purpose and strong enough for OpenSSL. What
cannot serve is refused with a sentence of its own. `app` calls it at start and at each reload; nothing here logs, and
no message ever holds bytes of a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import attrs
from cryptography import x509

from sidecar.certs.certificates import (
    Purpose,
    certificates,
    chain_of,
    check_dates,
    check_purpose,
    check_strength,
    leaf_for,
)
from sidecar.certs.forms import parse
from sidecar.certs.items import Contents, Kind, Password, PrivateKey
from sidecar.certs.keys import open_keystores, private_key
from sidecar.certs.passwords import read_password
from sidecar.certs.sources import LAYOUT, read
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from sidecar.values import Value

_Result = TypeVar("_Result")


@attrs.frozen(eq=False, repr=False)
class Bundle(Value):
    """
    What a server proves its identity with.

    Attributes:
        leaf: The server's certificate.
        chain: The further certificates to send, the leaf's issuer first; may be empty.
        private_key: The leaf's key. Never shown, and not compared: it follows from the leaf.
        extras: Certificates that were given with it and are none of its issuers; they are not sent.
    """

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = attrs.field(repr=False, eq=False)
    extras: tuple[x509.Certificate, ...] = ()


def load_bundles(
    certs: Sequence[Source],
    keys: Sequence[Source],
    passphrase: Source | None,
    now: datetime,
    *,
    purpose: Purpose = Purpose.SERVER,
) -> tuple[tuple[Bundle, ...], list[MaterialError]]:
    """
    Load certificates of ours, each with its chain and its key.

    The leaf is the certificate that the key belongs to, and its issuers follow in order, however they were given.

    Args:
        certs: Each a value, a file, or a directory in the ``kubernetes.io/tls`` layout (tls.crt and tls.key, or
            keystore.p12).
        keys: One for each certificate in the same order, or none: then tls.key of the directory, or the key inside the
            certificate's file or value, or the file beside it with the ending ``.key``.
        passphrase: Opens all keys and keystores that are encrypted and did not come with a password in JSON.
        now: Aware; what validity is judged by.
        purpose: What they are shown as.

    Returns:
        What can serve, in the order of *certs*; and everything that is wrong with the others, with role ``cert``,
        ``key`` or ``passphrase``. If nothing is wrong there is a bundle for each of *certs*.
    """
    if keys and len(keys) != len(certs):
        fact = f"the numbers of keys, {len(keys)}, and of certificates, {len(certs)}, differ"
        fix = "give one key for each certificate in the same order, or none if each stands beside or inside its own"
        return (), [MaterialError("key", fact, fix)]
    try:
        passwords = () if passphrase is None else (read_password(passphrase),)
    except MaterialError as error:  # all that it should open would be one more problem
        return (), [error]
    bundles: list[Bundle] = []
    found: list[MaterialError] = []
    for index, cert in enumerate(certs):
        case = _Case(now, passwords, purpose)
        bundle = _assemble(cert, keys[index] if keys else None, index + 1 if len(certs) > 1 else None, case)
        if bundle is not None and not case.found:
            bundles.append(bundle)
        found += case.found
    return tuple(bundles), found


# -- assembling -------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class _Case(Value):
    """What all steps for one certificate know; a step that fails leaves its reason in `found`."""

    now: datetime
    passwords: tuple[Password, ...]
    purpose: Purpose
    found: list[MaterialError] = attrs.field(factory=list)

    def attempt(self, step: Callable[..., _Result], *args: object) -> _Result | None:
        try:
            return step(*args)
        except MaterialError as error:
            self.found.append(error)
            return None

    def passwords_for(self, *contents: Contents) -> list[Password]:
        """The passwords that came with *contents*, then those for everything."""
        return [*(each.password for each in contents if each.password is not None), *self.passwords]


def _assemble(cert: Source, key: Source | None, position: int | None, case: _Case) -> Bundle | None:
    """Build one; it must not serve if something was found."""
    contents = case.attempt(_contents, cert, "cert", position, (), case)
    given = None if contents is None else case.attempt(certificates, contents)
    key_contents = None
    if contents is not None or key is not None:
        key_contents = case.attempt(_key_contents, cert, key, contents, position, case)
    own_key = None
    if key_contents is not None:
        beside = () if contents is None else (contents,)
        own_key = case.attempt(private_key, key_contents, case.passwords_for(key_contents, *beside))
    if contents is None or given is None:
        return None
    leaf = None
    if key_contents is not None and own_key is not None:
        leaf = case.attempt(_leaf, given, own_key, contents.name, key_contents.name, case.now)
    judged = given[0] if leaf is None else leaf
    chain = chain_of(judged, given)
    case.attempt(check_dates, judged, contents.name, case.now)
    case.attempt(check_purpose, judged, contents.name, case.purpose)
    case.attempt(check_strength, (judged, *chain), contents.name)
    if own_key is None or leaf is None:
        return None
    return Bundle(leaf, chain, own_key, tuple(one for one in given if one not in (leaf, *chain)))


def _leaf(
    given: Sequence[x509.Certificate], key: PrivateKey, name: str, key_name: str, now: datetime
) -> x509.Certificate:
    leaf = leaf_for(given, key.public_key(), now)
    if leaf is None:
        fact = f"the private key in {key_name} does not match the certificate in {name}"
        raise MaterialError("key", fact, "name the key that this certificate was made for")
    return leaf


def _contents(source: Source, role: str, position: int | None, beside: Sequence[Contents], case: _Case) -> Contents:
    contents = parse(read(source, role, position))
    return open_keystores(contents, case.passwords_for(contents, *beside))


def _key_contents(
    cert: Source, key: Source | None, contents: Contents | None, position: int | None, case: _Case
) -> Contents:
    """Find what holds the key of the certificate in *contents*, which is None only if *key* is not."""
    beside = () if contents is None else (contents,)
    if key is not None:
        return _contents(key, "key", position, beside, case)
    assert contents is not None
    has_key = contents.has(Kind.PRIVATE_KEY)
    if isinstance(cert, Inline):
        if has_key:
            return attrs.evolve(contents, role="key")
        raise MaterialError("key", f"no private key: {contents.name} holds none", "give the key, too")
    if os.path.isdir(cert):
        own = cert / LAYOUT["key"][0]
        is_pair = contents.name == str(cert / LAYOUT["cert"][0])
        if has_key and not (is_pair and own.exists()):
            return attrs.evolve(contents, role="key")
        return _contents(cert, "key", position, beside, case)
    if has_key:
        return attrs.evolve(contents, role="key")
    own = cert.with_suffix(".key")
    if os.path.isfile(own):
        return _contents(own, "key", position, beside, case)
    fact = f"no private key: {cert} holds none, and there is no {own}"
    raise MaterialError("key", fact, "name the file of the key")
