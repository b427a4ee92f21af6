"""
What TLS towards an upstream is done with and what its certificate is held against: the OpenSSL context of a cluster,
the names that a certificate must have, and what failed, in words.

OpenSSL verifies the chain inside the handshake; the names are compared here, after it. `tls.client` makes connections.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import lib as _lib
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern, verify_service_identity

from sidecar.certs.altnames import is_host_name
from sidecar.certs.bundle import Bundle
from sidecar.certs.certificates import called, date
from sidecar.certs.describe import describe
from sidecar.certs.parsing import PARSE_ERRORS, load_certificate
from sidecar.certs.traits import alternative_names
from sidecar.errors import MaterialError, TlsError
from sidecar.settings import TlsPolicy
from sidecar.tls.context import TLS12_CIPHERS
from sidecar.tls.verify import VerifyReason, reason_of

# SSL_MODE_* of openssl/ssl.h that pyOpenSSL does not name.
_MODE_ENABLE_PARTIAL_WRITE: Final = 0x1
_MODE_NO_AUTO_CHAIN: Final = 0x8

_MOST_NAMED: Final = 5
"""Names of a certificate in a message."""


@attrs.frozen
class TlsFailure:
    """
    Why there is no TLS connection to an upstream, or no longer.

    Attributes:
        reason: Short token for logs and metrics, e.g. ``name_mismatch``.
        message: A sentence for operators.
    """

    reason: str
    message: str


# -- context ----------------------------------------------------------------------------------------------------


def build_client_context(
    anchors: Sequence[x509.Certificate] | None,
    bundle: Bundle | None,
    policy: TlsPolicy,
    *,
    verify: bool = True,
    alpn: Sequence[str] = (),
) -> SSL.Context:
    """
    Build the context of the connections to one cluster; it never changes.

    Args:
        anchors: CAs that the certificates of servers must come from; None: those of this system.
        bundle: Our client certificate, for servers that ask for one.
        policy: Versions and suites, the same as towards clients.
        verify: False: whatever certificate a server shows will do.
        alpn: Protocols to offer, the best first. OpenSSL ends the handshake if the server chooses another.

    Raises:
        MaterialError: With role ``ca`` or ``cert``: OpenSSL refuses something in the material.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION if policy is TlsPolicy.MODERN else SSL.TLS1_2_VERSION)
    context.set_cipher_list(TLS12_CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # One `send` seals everything it is given, idle connections cost no record buffers, and our own chain is what was
    # configured, not what OpenSSL finds among the anchors.
    context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    if alpn:
        context.set_alpn_protos([protocol.encode() for protocol in alpn])
    if verify:
        context.set_verify(SSL.VERIFY_PEER)  # as servers': OpenSSL looks at the purpose too
        _trust(context, anchors)
    if bundle is not None:
        _use_bundle(context, bundle)
    return context


def _trust(context: SSL.Context, anchors: Sequence[x509.Certificate] | None) -> None:
    if anchors is None:
        try:
            context.set_default_verify_paths()
        except SSL.Error as error:
            fact = f"OpenSSL cannot read the CA certificates of this system: {_text_of(error)}"
            raise MaterialError("ca", fact, "repair them, or give the CAs in a file") from None
        return
    store = context.get_cert_store()
    assert store is not None
    for anchor in anchors:
        store.add_cert(X509.from_cryptography(anchor))


def _use_bundle(context: SSL.Context, bundle: Bundle) -> None:
    try:
        context.use_certificate(bundle.leaf)
        for certificate in bundle.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(bundle.private_key)
        context.check_privatekey()
    except SSL.Error as error:
        fact = f"OpenSSL refuses the client certificate {called(bundle.leaf)}: {_text_of(error)}"
        raise MaterialError("cert", fact, "have it issued again with a current key and signature") from None


def _text_of(error: SSL.Error) -> str:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[2] for entry in entries) or "no reason given"


# -- names ------------------------------------------------------------------------------------------------------

# RFC 3986: scheme, authority, and the rest, of which not a letter is changed.
_URI: Final = re.compile(r"([^:/?#]+):(?://([^/?#]*))?(.*)", re.DOTALL)


def has_one_of(certificate: x509.Certificate, names: Sequence[str]) -> bool:
    """
    Whether *certificate* is for one of *names*, by its alternative names alone (RFC 9525).

    Host names (also against wildcards) and IP addresses are compared by `service_identity`. URIs are compared here,
    letter by letter but for the case of scheme and host: that library knows no paths, which SPIFFE IDs are told apart
    by.

    Args:
        certificate: Parsed wholly.
        names: Host names, IP addresses, URIs with their scheme. One that no certificate can have fits none.
    """
    shown = alternative_names(certificate)
    # Each by itself: one name that the library does not take spoils no other, as it would in its own reader.
    patterns = [*_patterns(shown)]
    uris = {_uri_key(each.value) for each in shown if isinstance(each, x509.UniformResourceIdentifier)}
    return any(_fits(name, patterns, uris) for name in names)


def server_name(host: str) -> str | None:
    """Return *host* as it is asked for in SNI (RFC 6066 section 3); None if it is no host name."""
    name = host.removesuffix(".")
    return name if is_host_name(name) else None


_UriKey = tuple[str, str, str]


def _fits(name: str, patterns: Sequence[DNSPattern | IPAddressPattern], uris: set[_UriKey]) -> bool:
    try:
        wanted = _identity(name)
        if wanted is None:
            return _uri_key(name) in uris
        verify_service_identity(patterns, [wanted], [])
    except (ValueError, CertificateError, VerificationError):
        return False
    return True


def _identity(name: str) -> DNS_ID | IPAddress_ID | None:
    """What the library calls *name*; None for a URI; ValueError if it is nothing."""
    try:
        return IPAddress_ID(name)
    except ValueError:
        pass
    if ":" in name:
        return None
    if server_name(name) is None:
        raise ValueError("neither a host name nor an address nor a URI")
    return DNS_ID(name.removesuffix("."))


def _patterns(shown: Sequence[x509.GeneralName]) -> Iterator[DNSPattern | IPAddressPattern]:
    for name in shown:
        if isinstance(name, x509.IPAddress):
            yield IPAddressPattern(name.value)  # type: ignore[arg-type]  # a network is equal to no address
        elif isinstance(name, x509.DNSName):
            try:
                yield DNSPattern.from_bytes(name.value.encode())
            except CertificateError:
                continue  # such as a wildcard for a whole top-level domain


def _uri_key(uri: str) -> _UriKey:
    """What is equal of two URIs that are taken for the same."""
    match = _URI.fullmatch(uri)
    if match is None:
        return "", "", uri
    scheme, authority, rest = match[1], match[2] or "", match[3]
    user, at, host = authority.rpartition("@")
    return scheme.lower(), user + at + host.lower(), ("" if match[2] is None else "//") + rest


# -- certificates -----------------------------------------------------------------------------------------------


def peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    """Return the server's certificate, parsed wholly; None before it came, or if it cannot be parsed."""
    shown = connection.get_peer_certificate()
    if shown is None:  # OpenSSL has it only once it is verified, but the chain from the beginning
        chain = connection.get_peer_cert_chain() or []
        if not chain:
            return None
        shown = chain[0]
    der = dump_certificate(FILETYPE_ASN1, shown)
    try:
        return _load_known(der) if len(der) <= _MAX_KNOWN_BYTES else load_certificate(der)
    except PARSE_ERRORS:
        return None


_MAX_KNOWN_BYTES: Final = 8 * 1024
_load_known: Final = functools.lru_cache(maxsize=128)(load_certificate)
"""Endpoints show the same at each connection."""


def _in_words(certificate: x509.Certificate) -> str:
    summary = describe(certificate)
    dates = f"valid from {date(summary.not_before)} to {date(summary.not_after)}"
    return f"{called(certificate)}, issued by {summary.issuer!r}, {dates}"


def _names_in_words(certificate: x509.Certificate) -> str:
    names = [_short(name) for name in describe(certificate).sans]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more or "no name at all (a common name does not count)"


def _short(text: str) -> str:
    """*text*, which a peer chose, as one short line."""
    text = text if len(text) <= 100 else text[:100] + "…"
    return text if text.isprintable() else repr(text)


# -- failures ---------------------------------------------------------------------------------------------------

_CA_SETTING: Final = "SIDECAR_UPSTREAM_CA, tls.ca"

_CHAIN_FAILURES: Final = {
    VerifyReason.EXPIRED: ("certificate_expired", "has expired, or one of its issuers has"),
    VerifyReason.NOT_YET_VALID: ("certificate_not_yet_valid", "or one of its issuers is not valid yet"),
    VerifyReason.UNKNOWN_CA: (
        "unknown_ca",
        "does not come from a CA that is trusted for it (SIDECAR_UPSTREAM_CA, tls.ca)",
    ),
    VerifyReason.SELF_SIGNED: ("self_signed", "is self-signed and not trusted for it (SIDECAR_UPSTREAM_CA, tls.ca)"),
    VerifyReason.WRONG_PURPOSE: ("wrong_purpose", "or one of its issuers is not for servers"),
    VerifyReason.CHAIN_TOO_LONG: ("chain_too_long", "has too long a chain"),
    VerifyReason.BAD_SIGNATURE: ("bad_signature", "or one of its issuers has a wrong signature"),
    VerifyReason.TOO_WEAK: ("too_weak", "or one of its issuers has too weak a key or signature"),
}

# What OpenSSL calls alerts, over its versions: "tlsv13 alert certificate required", "sslv3 alert bad certificate",
# "tls alert bad certificate", "tlsv1 unrecognized name".
_ALERT: Final = re.compile(r"\S+ alert (.+)|tlsv1 (.+)")

_CERTIFICATE_REFUSED: Final = frozenset(
    {
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate required",
        "certificate revoked",
        "certificate unknown",
        "unknown ca",
        "unsupported certificate",
    }
)
"""Alerts about the client certificate; several servers send `bad certificate` where there is none."""

_ALERTS: Final = {
    "no application protocol": ("no_shared_alpn", "the upstream speaks none of the protocols that are offered (ALPN)"),
    "protocol version": ("unsupported_version", "the upstream speaks none of the TLS versions that are allowed here"),
    "unrecognized name": ("unrecognized_name", "the upstream does not know the server name that is asked for (SNI)"),
    "handshake failure": (
        "handshake_failed",
        "the upstream ended the handshake without a reason: perhaps it shares no cipher suite, or wants a client "
        "certificate",
    ),
}


def no_certificate_to_read() -> TlsFailure:
    """Return the failure of a server whose certificate we cannot parse."""
    return TlsFailure("certificate_invalid", "the certificate of the upstream cannot be read")


def name_mismatch(certificate: x509.Certificate, names: Sequence[str]) -> TlsFailure:
    """Return the failure of a server whose *certificate*, parsed wholly, has none of *names*."""
    wanted = " or ".join(map(_short, names)) or "any name, as none is configured"
    message = (
        f"the certificate of the upstream is not for {wanted} but for {_names_in_words(certificate)}; "
        "name one of those (SIDECAR_UPSTREAM_NAMES, tls.names), or have the certificate issued for the other"
    )
    return TlsFailure("name_mismatch", message)


def chain_failure(connection: SSL.Connection) -> TlsFailure | None:
    """Return why OpenSSL did not take the certificate of a *connection* that is verified; None if it did."""
    code = _lib.SSL_get_verify_result(connection._ssl)  # pyOpenSSL has no public call for it (26.4)
    if code == SSL.X509VerificationCodes.OK:
        return None
    reason, fact = _CHAIN_FAILURES.get(reason_of(code), ("certificate_invalid", "is not valid"))
    certificate = peer_certificate(connection)
    which = "" if certificate is None else f": {_in_words(certificate)}"
    return TlsFailure(reason, f"the certificate of the upstream {fact}{which}")


def peer_failure(error: TlsError, connection: SSL.Connection, own: x509.Certificate | None) -> TlsFailure:
    """
    Return what *error* means of a *connection* to an upstream.

    With TLS 1.3 a server judges our certificate after our side of the handshake is done: what it says then comes with
    the first bytes.

    Args:
        own: The client certificate that it could be shown.
    """
    match = _ALERT.fullmatch(str(error))
    if match is None:
        return TlsFailure(error.reason, f"TLS with the upstream failed: {error}")
    alert = match[1] or match[2]
    # In TLS 1.2 there is no alert for a certificate that is missing.
    is_asked = alert == "handshake failure" and bool(connection.get_client_ca_list())
    if own is None and (alert in _CERTIFICATE_REFUSED or is_asked):
        message = f"the upstream wants a client certificate, and there is none for it ({alert})"
        message += "; name one (SIDECAR_UPSTREAM_CERT, tls.cert)"
        return TlsFailure("client_certificate_required", message)
    if own is not None and alert in _CERTIFICATE_REFUSED:
        message = f"the upstream refused our certificate {called(own)}: {alert}"
        return TlsFailure("client_certificate_refused", message)
    return TlsFailure(*_ALERTS.get(alert, ("handshake_failed", f"the upstream sent the alert {alert!r}")))
