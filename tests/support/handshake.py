"""A TLS client and a TLS server in memory: real OpenSSL on both sides, no sockets."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509

from .certs import Issued, authority

TLS12 = SSL.TLS1_2_VERSION
TLS13 = SSL.TLS1_3_VERSION


@attrs.frozen
class Peers:
    """The two ends of one established connection."""

    server: SSL.Connection
    client: SSL.Connection

    def session(self) -> SSL.Session:
        """
        What the client can resume with. It counts the connection as closed from here on: OpenSSL lets nobody resume
        the session of a connection that went away without close_notify.
        """
        self.client.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        session = self.client.get_session()
        assert session is not None
        return session


def client_context(
    *,
    trusted: Sequence[x509.Certificate] | None = None,
    identity: Issued | None = None,
    version: int | None = None,
    alpn: Sequence[bytes] = (),
) -> SSL.Context:
    """
    Make the context of a client that verifies the server.

    Args:
        trusted: Roots; the test root unless told.
        identity: The certificate to show when asked, with its chain.
        version: The one TLS version to speak; None for what OpenSSL likes.
        alpn: Protocols to offer.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    store = context.get_cert_store()
    assert store is not None
    for certificate in (authority().certificate,) if trusted is None else trusted:
        store.add_cert(X509.from_cryptography(certificate))
    context.set_verify(SSL.VERIFY_PEER)
    if identity is not None:
        context.use_certificate(identity.certificate)
        for certificate in identity.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


def connect(
    server_context: SSL.Context,
    client: SSL.Context,
    *,
    server_name: str | None = "localhost",
    session: SSL.Session | None = None,
) -> Peers:
    """
    Shake hands and deliver the tickets.

    Raises:
        SSL.Error: What the end that failed first raised.
    """
    peers = Peers(SSL.Connection(server_context, None), SSL.Connection(client, None))
    peers.server.set_accept_state()
    peers.client.set_connect_state()
    if server_name is not None:
        peers.client.set_tlsext_host_name(server_name.encode())
    if session is not None:
        peers.client.set_session(session)
    pending = [peers.client, peers.server]
    while pending:
        pending = [end for end in pending if not _advance(end)]
        moved = pump(peers)
        assert moved or not pending, "both ends wait for each other"
    exchange(peers, b"ping")
    return peers


def exchange(peers: Peers, data: bytes) -> None:
    """Send *data* from the server to the client, which reads its session tickets on the way."""
    peers.server.sendall(data)
    pump(peers)
    received = b""
    while len(received) < len(data):
        received += peers.client.recv(65_536)
    assert received == data


def pump(peers: Peers) -> int:
    """Carry what each end has to send to the other; return the number of bytes."""
    return _carry(peers.client, peers.server) + _carry(peers.server, peers.client)


def outgoing(connection: SSL.Connection) -> bytes:
    """Take all ciphertext that *connection* has to send."""
    pieces = []
    try:
        while True:
            pieces.append(connection.bio_read(65_536))
    except SSL.WantReadError:
        return b"".join(pieces)


def _carry(source: SSL.Connection, sink: SSL.Connection) -> int:
    data = outgoing(source)
    if data:
        sink.bio_write(data)
    return len(data)


def _advance(end: SSL.Connection) -> bool:
    try:
        end.do_handshake()
    except SSL.WantReadError:
        return False
    return True
