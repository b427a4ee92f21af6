"""
The OpenSSL context of a listener: versions, suites, ALPN, resumption, client certificates.

A context belongs to one snapshot of key material and never changes; a reload builds a new one. `app` builds them,
`tls.server` makes connections from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib
from OpenSSL.crypto import X509

from sidecar.certs.bundle import Bundle
from sidecar.errors import MaterialError
from sidecar.settings import ClientCertMode, TlsPolicy

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

MAX_CLIENT_CHAIN_DEPTH = 10
"""CA certificates between a client's certificate and its root."""

# SSL_MODE_* of openssl/ssl.h that pyOpenSSL does not name.
_MODE_ENABLE_PARTIAL_WRITE = 0x1
_MODE_NO_AUTO_CHAIN = 0x8


def build_context(
    bundle: Bundle, anchors: Sequence[x509.Certificate], mode: ClientCertMode, policy: TlsPolicy
) -> SSL.Context:
    """
    Build the context that serves *bundle*.

    With OPTIONAL and REQUIRED alike a client is asked for a certificate, but neither a missing nor an invalid one
    ends the handshake: `tls.verify` reads the result, and the proxy answers in HTTP.

    Args:
        bundle: From `certs.bundle` or `certs.selfsigned`.
        anchors: CAs that client certificates must come from; not looked at when *mode* is NONE.
        mode: Whether to ask for a client certificate.
        policy: Versions and suites.

    Raises:
        MaterialError: OpenSSL refuses something in *bundle*, e.g. for its own security level.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _set_protocol(context, policy)
    _set_modes(context)
    _use_bundle(context, bundle)
    _set_resumption(context, bundle, anchors, mode)
    context.set_alpn_select_callback(_select_protocol)
    context.set_tlsext_servername_callback(_keep_server_name)
    if mode is not ClientCertMode.NONE:
        _ask_for_certificate(context, anchors)
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
        context.use_certificate(bundle.leaf)
        for certificate in bundle.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(bundle.private_key)
        context.check_privatekey()
    except SSL.Error as error:
        subject = bundle.leaf.subject.rfc4514_string()
        fact = f"OpenSSL refuses the certificate {subject!r}: {_reasons(error)}"
        raise MaterialError("cert", fact, "have it issued again with a current key and signature") from None


def _reasons(error: SSL.Error) -> str:
    """The text of OpenSSL's error queue, for people."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[2] for entry in entries) or "no reason given"


def _set_resumption(
    context: SSL.Context, bundle: Bundle, anchors: Sequence[x509.Certificate], mode: ClientCertMode
) -> None:
    """
    Resume by tickets only, so that sessions cost us no memory, and only under the same trust.

    OpenSSL makes the ticket keys per context. The session id context says the same in the session itself, so it
    stays true if contexts ever share ticket keys: no session outlives a change of certificate, anchors or mode.
    """
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    trust = hashlib.sha256(mode.value.encode())
    for certificate in (bundle.leaf, *anchors):
        trust.update(certificate.fingerprint(hashes.SHA256()))
    context.set_session_id(trust.digest())


def _keep_server_name(connection: SSL.Connection) -> None:
    """Do nothing: without a callback OpenSSL leaves the name out of the session, and TLS 1.2 resumes without it."""


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """
    Choose HTTP/1.1. A client that offers only others is refused with no_application_protocol (RFC 7301 section 3.2).

    An exception is pyOpenSSL's one way to a fatal alert; NO_OVERLAPPING_PROTOCOLS would go on without ALPN. The alert
    is then in the outgoing BIO, and `do_handshake` raises this in place of OpenSSL's own error, so it has its shape.
    """
    for protocol in (b"http/1.1", b"http/1.0"):
        if protocol in offered:
            return protocol
    raise SSL.Error([("SSL routines", "", "no application protocol")])


# -- client certificates ----------------------------------------------------------------------------------------
#
# pyOpenSSL's own wrapper of the verify callback erases the error of every certificate that the callback accepts,
# in the session too. A resumed session would then pass for a verified one. So the callback is set below pyOpenSSL.


def _ask_for_certificate(context: SSL.Context, anchors: Sequence[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for anchor in anchors:
        store.add_cert(X509.from_cryptography(anchor))
        context.add_client_ca(anchor)
    context.set_verify_depth(MAX_CLIENT_CHAIN_DEPTH)
    _lib.SSL_CTX_set_verify(context._context, SSL.VERIFY_PEER, _VERIFY_CALLBACK)


_first_errors: WeakKeyDictionary[SSL.Connection, int] = WeakKeyDictionary()


def _note_first_error(ok: int, store_context: Any) -> int:  # Any: a cffi pointer
    """
    Go on after every error, keeping the first as the result of the verification.

    OpenSSL keeps the last by itself; but a self-signed certificate that has also expired is foremost self-signed.
    """
    if not ok:
        index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
        connection = SSL.Connection._reverse_mapping[_lib.X509_STORE_CTX_get_ex_data(store_context, index)]
        error = _lib.X509_STORE_CTX_get_error(store_context)
        _lib.X509_STORE_CTX_set_error(store_context, _first_errors.setdefault(connection, error))
    return 1


# It lives as long as the module, as OpenSSL keeps its address. If it raises, cffi answers 0: the handshake ends.
_VERIFY_CALLBACK = _ffi.callback("int (*)(int, X509_STORE_CTX *)", _note_first_error, error=0)
