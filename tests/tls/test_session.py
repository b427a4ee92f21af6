"""`tls.session`: what a handshake agreed on."""

from __future__ import annotations

import gc
import weakref

import pytest
from OpenSSL import SSL

from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.session import NO_TLS, TlsSession, read_session
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import NO_CERTIFICATE
from tests.support.certs import CLIENT, authority
from tests.support.handshake import TLS12, TLS13, client_context, connect

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


def server_context(mode: ClientCertMode = ClientCertMode.NONE) -> SSL.Context:
    anchors = [authority().certificate]
    return build_context(
        [authority().issue("localhost").bundle], ClientTrust(mode, tuple(anchors)), TlsPolicy.INTERMEDIATE
    )


class TestNoTls:
    def test_connection_in_the_clear_agreed_on_nothing(self) -> None:
        """Whoever asks for a version gets none, and there is nobody behind it."""
        assert NO_TLS.version == NO_TLS.cipher == ""
        assert NO_TLS.verification == NO_CERTIFICATE
        assert (NO_TLS.server_name, NO_TLS.alpn, NO_TLS.resumed) == (None, None, False)


class TestReadSession:
    def test_all_facts_are_read(self) -> None:
        """The session says what was agreed on."""
        client = client_context(version=TLS13, alpn=[b"http/1.1"])
        session = read_session(connect(server_context(), client).server)
        assert session == TlsSession(
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            group=session.group,
            alpn="http/1.1",
            server_name="localhost",
            resumed=False,
            verification=NO_CERTIFICATE,
        )

    def test_what_the_client_leaves_out_is_none(self) -> None:
        """Neither ALPN nor a server name is needed."""
        peers = connect(server_context(), client_context(version=TLS12), server_name=None)
        session = read_session(peers.server)
        assert session.version == "TLSv1.2"
        assert session.alpn is None
        assert session.server_name is None

    @both_versions
    def test_resumed_session_keeps_its_name(self, version: int) -> None:
        """The server name is known after a resumption too."""
        context, client = server_context(), client_context(version=version)
        peers = connect(context, client, session=connect(context, client).session())
        session = read_session(peers.server)
        assert session.resumed
        assert session.server_name == "localhost"

    def test_odd_server_name_is_escaped(self) -> None:
        """Bytes outside ASCII in the name do not raise."""
        client = SSL.Connection(client_context(), None)
        client.set_tlsext_host_name("b\xfccher".encode("latin-1"))
        server = SSL.Connection(server_context(), None)
        server.set_accept_state()
        client.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        server.bio_write(client.bio_read(65_536))
        with pytest.raises(SSL.WantReadError):
            server.do_handshake()
        assert read_session(server).server_name == "b\\xfccher"

    def test_certificate_is_read_when_asked_for(self) -> None:
        """With client certificates the session carries the verification."""
        identity = authority().issue("ci", purposes=CLIENT)
        server = connect(server_context(ClientCertMode.OPTIONAL), client_context(identity=identity)).server
        assert read_session(server).verification.certificate == identity.certificate

    def test_connection_is_not_kept(self) -> None:
        """A session that outlives its connection keeps nothing of OpenSSL alive."""
        peers = connect(server_context(), client_context())
        session = read_session(peers.server)
        gone = weakref.ref(peers.server)
        del peers
        gc.collect()
        assert gone() is None
        assert session.version == "TLSv1.3"
