"""What a handshake agreed on: all that upper layers may know of TLS."""

from __future__ import annotations

from typing import Final

import attrs
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from sidecar.settings import ClientCertMode
from sidecar.tls.trust import trust_of
from sidecar.tls.verify import NO_CERTIFICATE, Verification, is_resumed, verification


@attrs.frozen
class TlsSession:
    """
    One established session, as plain values; it holds nothing of OpenSSL.

    Attributes:
        version: ``TLSv1.2`` or ``TLSv1.3``; "" without TLS, see `NO_TLS`.
        cipher: OpenSSL's name of the suite, e.g. ``TLS_AES_256_GCM_SHA384``.
        group: Of the key exchange, e.g. ``X25519MLKEM768``; None if OpenSSL does not tell.
        alpn: The protocol agreed on; None if the client offered none.
        server_name: The name asked for, as the client sent it (any case; bytes outside ASCII escaped); None if
            it sent none. Chosen by the peer.
        resumed: It continues an earlier session, whose verification it keeps.
        verification: The client's certificate; `NO_CERTIFICATE` when none was asked for.
    """

    version: str
    cipher: str
    group: str | None
    alpn: str | None
    server_name: str | None
    resumed: bool
    verification: Verification


NO_TLS: Final = TlsSession(
    version="", cipher="", group=None, alpn=None, server_name=None, resumed=False, verification=NO_CERTIFICATE
)
"""Of a connection in the clear."""


def read_session(connection: SSL.Connection) -> TlsSession:
    """Read what the handshake of *connection*, a server's which is done, agreed on."""
    trust = trust_of(connection)
    server_name = connection.get_servername()
    alpn = connection.get_alpn_proto_negotiated()
    return TlsSession(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        group=connection.get_group_name(),
        alpn=alpn.decode("ascii") if alpn else None,
        server_name=None if server_name is None else server_name.decode("ascii", "backslashreplace"),
        resumed=is_resumed(connection),
        verification=NO_CERTIFICATE if trust.mode is ClientCertMode.NONE else verification(connection, trust),
    )


def verified_chain(connection: SSL.Connection) -> tuple[bytes, ...]:
    """
    Return the CA certificates between the client's and its root, its issuer first, in DER.

    Empty for a resumed session: OpenSSL keeps the client's own certificate alone.
    """
    chain = connection.get_verified_chain(as_cryptography=True) or []
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain[1:-1])
