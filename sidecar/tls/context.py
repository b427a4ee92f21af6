"""
The OpenSSL context of a listener: versions, suites, ALPN, resumption, client certificates.

A context belongs to one snapshot of key material and never changes; a reload builds a new one. `app` builds them,
`tls.server` makes connections from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.errors import MaterialError
from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.trust import ClientTrust, ask_for_certificate

TLS12_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""
The forward-secret AEAD suites of Mozilla's "intermediate". All are strong, so the client's order wins: it knows
whether its processor is faster at AES or at ChaCha20. TLS 1.3 suites and the groups (X25519MLKEM768 first) are
OpenSSL's defaults.
"""

# SSL_MODE_* of openssl/ssl.h that pyOpenSSL does not name.
_MODE_ENABLE_PARTIAL_WRITE = 0x1
_MODE_NO_AUTO_CHAIN = 0x8


HTTP_PROTOCOLS = ("http/1.1", "http/1.0")

HTTP2_PROTOCOL = "h2"
"""HTTP/2 as ALPN calls it (RFC 9113 section 3.1)."""


def build_context(
    bundles: Sequence[Bundle],
    trust: ClientTrust,
    policy: TlsPolicy,
    others: Sequence[Bundle] = (),
    protocols: Sequence[str] = HTTP_PROTOCOLS,
) -> SSL.Context:
    """
    Build the context that serves *bundles*.

    With OPTIONAL and REQUIRED alike a client is asked for a certificate, but unless *trust* says so, neither a missing
    nor an invalid one ends the handshake: `tls.verify` reads the result, and the proxy answers in HTTP.

    Args:
        bundles: One or more for the same names, with keys of different kinds: OpenSSL chooses by what a client can
            verify.
        trust: Whether and how client certificates are verified.
        policy: Versions and suites.
        others: What other contexts of the same snapshot serve, between which a connection may be moved (`tls.sni`).
        protocols: What clients may agree on (ALPN), the best first; empty: what they offer is not looked at.

    Raises:
        MaterialError: OpenSSL refuses something in a bundle, e.g. for its own security level.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _set_protocol(context, policy)
    _set_modes(context)
    for bundle in bundles:
        _use_bundle(context, bundle)
    _set_resumption(context, (*bundles, *others), trust)
    if protocols:
        context.set_alpn_select_callback(_select_among([protocol.encode("ascii") for protocol in protocols]))
    context.set_tlsext_servername_callback(_keep_server_name)
    if trust.mode is not ClientCertMode.NONE:
        ask_for_certificate(context, trust)
    return context


def _set_protocol(context: SSL.Context, policy: TlsPolicy) -> None:
    modern = policy is TlsPolicy.MODERN
    context.set_min_proto_version(SSL.TLS1_3_VERSION if modern else SSL.TLS1_2_VERSION)
    context.set_cipher_list(TLS12_CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)


def _set_modes(context: SSL.Context) -> None:
    """
    Make one `send` seal everything it is given, and idle connections cost no record buffers.

    Without NO_AUTO_CHAIN, OpenSSL would look for our own issuers among the anchors of client certificates, in each
    handshake, and send them.
    """
    context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)


def _use_bundle(context: SSL.Context, bundle: Bundle) -> None:
    try:
        _use_chain(context, bundle)
        context.use_privatekey(bundle.private_key)
        context.check_privatekey()
    except SSL.Error as error:
        subject = bundle.leaf.subject.rfc4514_string()
        fact = f"OpenSSL refuses the certificate {subject!r}: {_reasons(error)}"
        raise MaterialError("cert", fact, "have it issued again with a current key and signature") from None


def _use_chain(context: SSL.Context, bundle: Bundle) -> None:
    """
    Load the certificate with its own chain.

    Only the call that reads a file keeps a chain for each certificate; the others share one in a context. The file
    is in memory, and public.
    """
    if not bundle.chain:
        context.use_certificate(bundle.leaf)
        return
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (bundle.leaf, *bundle.chain))
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.use_certificate_chain_file(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _reasons(error: SSL.Error) -> str:
    """The text of OpenSSL's error queue, for people."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[2] for entry in entries) or "no reason given"


def _set_resumption(context: SSL.Context, bundles: Sequence[Bundle], trust: ClientTrust) -> None:
    """
    Resume by tickets only, so that sessions cost us no memory, and only under the same trust.

    OpenSSL makes the ticket keys per context. The session id context says the same in the session itself, so it
    stays true if contexts ever share ticket keys: no session outlives a change of certificate or trust.
    """
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    digest = hashlib.sha256(trust.digest())
    for fingerprint in sorted({bundle.leaf.fingerprint(hashes.SHA256()) for bundle in bundles}):
        digest.update(fingerprint)
    context.set_session_id(digest.digest())


def _keep_server_name(connection: SSL.Connection) -> None:
    """Do nothing: without a callback OpenSSL leaves the name out of the session, and TLS 1.2 resumes without it."""


def _select_among(protocols: Sequence[bytes]) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    """
    Return what chooses the first of *protocols* that a client offers.

    A client that offers only others is refused with no_application_protocol (RFC 7301 section 3.2). An exception is
    pyOpenSSL's one way to a fatal alert; NO_OVERLAPPING_PROTOCOLS would go on without ALPN. The alert is then in the
    outgoing BIO, and `do_handshake` raises this in place of OpenSSL's own error, so it has its shape.
    """

    def select(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        raise SSL.Error([("SSL routines", "", "no application protocol")])

    return select
