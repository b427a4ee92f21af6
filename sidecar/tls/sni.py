"""
Several certificates on one listener: the server name that a client asks for chooses the context.

A client that asks for no name, or for one that nobody has, gets the first certificate: load balancers send none. `app`
builds the contexts of a snapshot here, all at once. They share their trust, and so their sessions: OpenSSL resumes what
was made under one name under another too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.settings import TlsPolicy
from sidecar.tls.context import HTTP_PROTOCOLS, build_context
from sidecar.tls.trust import ClientTrust


def build_contexts(
    bundles: Sequence[Bundle], trust: ClientTrust, policy: TlsPolicy, protocols: Sequence[str] = HTTP_PROTOCOLS
) -> SSL.Context:
    """
    Build the context that a listener shakes hands with; it moves connections to others by the name they ask for.

    Bundles for the same name with keys of different kinds (RSA and ECDSA) share a context, and OpenSSL chooses by what
    the client can verify. Of several with the same kind of key the first serves.

    Args:
        bundles: At least one; the first is the default.
        trust, policy, protocols: As for `build_context`.

    Raises:
        MaterialError: OpenSSL refuses something in a bundle.
    """
    groups = _group_by_name(bundles)
    first = next((group for group in groups.values() if group[0] is bundles[0]), (bundles[0],))
    default = build_context(first, trust, policy, bundles, protocols)
    contexts = {first: default}
    by_name: dict[str, SSL.Context] = {}
    for name, group in groups.items():
        if group not in contexts:
            contexts[group] = build_context(group, trust, policy, bundles, protocols)
        by_name[name] = contexts[group]
    if len(contexts) > 1:
        default.set_tlsext_servername_callback(lambda connection: _choose(connection, by_name))
    return default


def server_names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names that *leaf* serves, lower case, wildcards as they are; its common name if it has no SAN."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = [str(attribute.value) for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(dict.fromkeys(name.lower().removesuffix(".") for name in found))


@attrs.frozen
class ServedNames:
    """
    The names of the certificates of a listener, as wildcards where they are.

    Attributes:
        default: Of the certificate for clients that ask for none of them.
        by_name: Of the certificates that a client gets for each.
    """

    default: frozenset[str] = frozenset()
    by_name: Mapping[str, frozenset[str]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, bundles: Sequence[Bundle]) -> ServedNames:
        """Args: as of `build_contexts`."""
        names = {
            name: frozenset(other for bundle in group for other in server_names(bundle.leaf))
            for name, group in _group_by_name(bundles).items()
        }
        return cls(frozenset(server_names(bundles[0].leaf)), names)

    def belong_together(self, asked: str, host: str) -> bool:
        """Whether the certificate that a client gets who asks for one name is for another, too; both in lower case."""
        names = self.by_name.get(asked) or self.by_name.get(_wildcard(asked)) or self.default
        return host in names or _wildcard(host) in names


NO_NAMES: Final = ServedNames()


def _wildcard(name: str) -> str:
    """Return the wildcard that stands for *name*: for exactly one label, the leftmost (RFC 9525 section 6.3)."""
    return "*." + name.partition(".")[2]


def _group_by_name(bundles: Sequence[Bundle]) -> dict[str, tuple[Bundle, ...]]:
    groups: dict[str, tuple[Bundle, ...]] = {}
    for bundle in bundles:
        for name in server_names(bundle.leaf):
            group = groups.get(name, ())
            if all(type(bundle.private_key) is not type(other.private_key) for other in group):
                groups[name] = (*group, bundle)
    return groups


def _choose(connection: SSL.Connection, by_name: dict[str, SSL.Context]) -> None:
    asked = connection.get_servername()
    if asked is None:
        return
    name = asked.decode("ascii", "replace").lower().removesuffix(".")
    context = by_name.get(name) or by_name.get(_wildcard(name))
    if context is not None:
        connection.set_context(context)
