"""Whom a certificate is for: from names on the command line, or out of a request."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID

from sidecar.certs.altnames import general_name, name_text
from sidecar.certs.builders import MAX_COMMON_NAME
from sidecar.certs.traits import alternative_names

MAX_NAMES = 100
"""In one certificate; a handshake carries it each time."""


class Purpose(enum.Enum):
    """What a certificate is for; each has one purpose, so that a stolen one serves no other."""

    SERVER = "server"
    CLIENT = "client"


@attrs.frozen
class Identity:
    """
    Who a certificate is for.

    Attributes:
        subject: May be empty if there are alternative names.
        names: Alternative names, without duplicates.
    """

    subject: x509.Name
    names: tuple[x509.GeneralName, ...]


def server_identity(names: Sequence[str]) -> Identity:
    """
    Make the identity of a server from DNS names (also wildcards and those of other scripts), addresses and URIs.

    Raises:
        ValueError: No name, too many, or one that no client could match; the message is a sentence for the operator.
    """
    found = _unique([_server_name(name) for name in names])
    if not found:
        raise ValueError("a server certificate needs at least one name; give the names that clients connect to")
    return Identity(subject_name(_first_text(found)), found)


def client_identity(names: Sequence[str], organization: str = "", unit: str = "") -> Identity:
    """
    Make the identity of a client.

    Args:
        names: At most one plain name such as ``ci`` or ``Alice Example``, which becomes the common name; the others are
            e-mail addresses, DNS names, IP addresses or URIs such as a SPIFFE ID, and become alternative names. Without
            a plain name the first one is the common name as well.
        organization: For the subject; empty: none.
        unit: The same.

    Raises:
        ValueError: No name, too many, or one that is malformed; the message is a sentence for the operator.
    """
    if not all(names):
        raise ValueError("an empty name says nothing about who a client is; give its name")
    plain = [name for name in names if _is_plain(name)]
    return _client([*plain], [general_name(name) for name in names if name not in plain], organization, unit)


def requested_identity(
    request: x509.CertificateSigningRequest, purpose: Purpose, organization: str = "", unit: str = ""
) -> Identity:
    """
    Take the names out of *request*, and nothing else; each must be one that could have been asked for directly.

    Raises:
        ValueError: As for `server_identity` and `client_identity`, and for kinds of names that are not issued here.
    """
    names = [_as_typed(name) for name in alternative_names(request)]
    commons = [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if purpose is Purpose.SERVER:
        return server_identity([name_text(name) for name in names] or commons)
    if not names:
        return client_identity(commons, organization, unit)
    # A common name that looks technical is left to the alternative names, where it would have to be right.
    return _client([common for common in commons if _is_plain(common)], names, organization, unit)


def subject_name(common_name: str, organization: str = "", unit: str = "") -> x509.Name:
    """
    Make a subject of what is not empty.

    Raises:
        ValueError: One of them has more than 64 characters, or some that nobody can see; the message is a sentence.
    """
    attributes = [
        (NameOID.ORGANIZATION_NAME, _checked_text(organization, "the organization")),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, _checked_text(unit, "the unit")),
        (NameOID.COMMON_NAME, _checked_text(common_name, "the name")),
    ]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes if value])


def _server_name(text: str) -> x509.GeneralName:
    if "@" in text and "://" not in text:
        raise ValueError(f"{text!r} is an e-mail address, which no server has; name the host")
    return general_name(text)


def _client(plain: list[str], names: list[x509.GeneralName], organization: str, unit: str) -> Identity:
    plain, found = list(dict.fromkeys(plain)), _unique(names)
    if not plain and not found:
        raise ValueError("a client certificate needs a name; give one such as ci, an e-mail address or a SPIFFE ID")
    if len(plain) > 1:
        raise ValueError(f"{plain[0]!r} and {plain[1]!r} are both plain names, a certificate has one; drop one")
    texts = [name_text(name) for name in found]
    if any(text.startswith("*") for text in texts):
        raise ValueError("a wildcard says nothing about who a client is; give its name")
    if sum(text.startswith("spiffe:") for text in texts) > 1:
        raise ValueError("there are two SPIFFE IDs, a certificate may have one; issue two certificates")
    common_name = plain[0] if plain else _first_text(found)
    return Identity(subject_name(common_name, organization, unit), found)


def _as_typed(name: x509.GeneralName) -> x509.GeneralName:
    """Return *name* as it would have been typed. One that claims to be of another kind would match other rules."""
    text = name_text(name)
    checked = general_name(text)
    if type(checked) is not type(name):
        raise ValueError(f"{text!r} is not what its kind, {type(name).__name__}, says; correct the request")
    return checked


def _is_plain(name: str) -> bool:
    """Whether it is meant for people. What looks technical must be right: a typo must not end as a common name."""
    return " " in name or not set("@.:*") & set(name)


def _first_text(names: Sequence[x509.GeneralName]) -> str:
    """The first name, if it is short enough for a common name: clients look at the alternative names anyway."""
    text = name_text(names[0])
    return text if len(text) <= MAX_COMMON_NAME else ""


def _unique(names: Sequence[x509.GeneralName]) -> tuple[x509.GeneralName, ...]:
    found = tuple(dict.fromkeys(names))
    if len(found) > MAX_NAMES:
        raise ValueError(f"there are {len(found)} names, a certificate may have {MAX_NAMES}; issue several")
    return found


def _checked_text(text: str, what: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"{what} {text!r} has control characters, or blanks at an end; leave them out")
    if len(text) > MAX_COMMON_NAME:
        raise ValueError(f"{what} {text!r} has {len(text)} characters, the limit is {MAX_COMMON_NAME}; shorten it")
    return text
