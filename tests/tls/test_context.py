"""`tls.context`: what the listener agrees to, with real OpenSSL on both sides."""

from __future__ import annotations

import pytest
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from sidecar.errors import MaterialError
from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.failures import translate
from sidecar.tls.session import read_session
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import VerifyReason, is_resumed
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    Issued,
    authority,
    ed25519_key,
    intermediate,
    other_authority,
    rsa_key,
    self_signed,
)
from tests.support.handshake import TLS12, TLS13, client_context, connect, exchange, outgoing, pump

NONE, OPTIONAL, REQUIRED = ClientCertMode.NONE, ClientCertMode.OPTIONAL, ClientCertMode.REQUIRED

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


def server_context(
    issued: Issued | None = None,
    *,
    mode: ClientCertMode = NONE,
    policy: TlsPolicy = TlsPolicy.INTERMEDIATE,
) -> SSL.Context:
    issued = issued or authority().issue("localhost")
    return build_context([issued.bundle], ClientTrust(mode, (authority().certificate,)), policy)


class TestVersionsAndSuites:
    def test_default_client_gets_tls13(self) -> None:
        """Clients that speak TLS 1.3 get it."""
        assert connect(server_context(), client_context()).server.get_protocol_version_name() == "TLSv1.3"

    def test_tls12_is_served(self) -> None:
        """The intermediate policy serves TLS 1.2 too."""
        peers = connect(server_context(), client_context(version=TLS12))
        assert peers.server.get_protocol_version_name() == "TLSv1.2"

    def test_tls11_is_refused(self) -> None:
        """Nothing below TLS 1.2 is served."""
        client = client_context()
        client.set_cipher_list(b"ALL:@SECLEVEL=0")
        client.set_min_proto_version(SSL.TLS1_1_VERSION)
        client.set_max_proto_version(SSL.TLS1_1_VERSION)
        with pytest.raises(SSL.Error):
            connect(server_context(), client)

    def test_modern_refuses_tls12(self) -> None:
        """The modern policy serves TLS 1.3 alone."""
        context = server_context(policy=TlsPolicy.MODERN)
        assert connect(context, client_context()).server.get_protocol_version_name() == "TLSv1.3"
        with pytest.raises(SSL.Error) as caught:
            connect(context, client_context(version=TLS12))
        assert translate(caught.value).reason == "unsupported_version"

    @pytest.mark.parametrize("key", ["ecdsa", "rsa"])
    @pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
    def test_forward_secret_aead_suite_is_served(self, key: str, suite: str) -> None:
        """Each of the three ciphers works in TLS 1.2 with each kind of key."""
        issued = authority().issue("localhost", key=rsa_key() if key == "rsa" else None)
        name = f"ECDHE-{key.upper()}-{suite}"
        client = client_context(version=TLS12)
        client.set_cipher_list(name.encode())
        assert connect(server_context(issued), client).server.get_cipher_name() == name

    @pytest.mark.parametrize("suite", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "DHE"])
    def test_other_suite_is_refused(self, suite: str) -> None:
        """CBC, static RSA and finite-field DH are not served."""
        client = client_context(version=TLS12)
        client.set_cipher_list(suite.encode())
        with pytest.raises(SSL.Error) as caught:
            connect(server_context(authority().issue("localhost", key=rsa_key())), client)
        assert translate(caught.value).reason == "no_shared_cipher"

    def test_client_order_wins(self) -> None:
        """Among equally strong suites the client knows best what its processor is fast at."""
        client = client_context(version=TLS12)
        client.set_cipher_list(b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
        name = connect(server_context(), client).server.get_cipher_name()
        assert name == "ECDHE-ECDSA-CHACHA20-POLY1305"

    def test_ed25519_is_served(self) -> None:
        """An Ed25519 certificate serves."""
        connect(server_context(authority().issue("localhost", key=ed25519_key())), client_context())

    @pytest.mark.skipif(SSL.OPENSSL_VERSION_NUMBER < 0x30500000, reason="OpenSSL 3.5 brought ML-KEM")
    def test_hybrid_group_is_on(self) -> None:
        """The post-quantum hybrid group is agreed on by default."""
        assert connect(server_context(), client_context()).server.get_group_name() == "X25519MLKEM768"

    def test_renegotiation_is_refused(self) -> None:
        """A TLS 1.2 client cannot renegotiate."""
        peers = connect(server_context(), client_context(version=TLS12))
        peers.client.renegotiate()
        with pytest.raises(SSL.WantReadError):
            peers.client.do_handshake()
        pump(peers)
        with pytest.raises(SSL.WantReadError):
            peers.server.recv(1)
        pump(peers)
        with pytest.raises(SSL.Error, match="no renegotiation"):
            peers.client.do_handshake()

    def test_weak_material_is_refused_by_openssl(self) -> None:
        """What OpenSSL's own security level refuses is a MaterialError, not a traceback."""
        with pytest.raises(MaterialError) as caught:
            server_context(authority().issue("localhost", key=rsa_key(1024)))
        assert caught.value.role == "cert"
        assert "ee key too small" in caught.value.fact


class TestSending:
    @both_versions
    def test_large_write_is_sealed_at_once(self, version: int) -> None:
        """One call takes 256 KiB, sixteen records of it."""
        peers = connect(server_context(), client_context(version=version))
        assert peers.server.send(b"x" * 262_144) == 262_144
        assert len(outgoing(peers.server)) > 262_144

    def test_chain_is_sent(self) -> None:
        """A client that knows only the root is shown the way to it."""
        peers = connect(server_context(intermediate().issue("localhost")), client_context())
        chain = peers.client.get_peer_cert_chain(as_cryptography=True)
        assert chain is not None
        assert chain[1:] == [intermediate().certificate]

    def test_anchors_are_not_sent_as_chain(self) -> None:
        """The CAs of client certificates are not made part of our own chain."""
        peers = connect(server_context(mode=OPTIONAL), client_context())
        chain = peers.client.get_peer_cert_chain(as_cryptography=True)
        assert chain is not None
        assert len(chain) == 1


class TestAlpn:
    @both_versions
    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ([], b""),
            ([b"http/1.1"], b"http/1.1"),
            ([b"h2", b"http/1.1"], b"http/1.1"),
            ([b"http/1.0", b"http/1.1"], b"http/1.1"),
            ([b"http/1.0"], b"http/1.0"),
        ],
    )
    def test_http1_is_chosen(self, version: int, offered: list[bytes], chosen: bytes) -> None:
        """HTTP/1.1 is chosen wherever it stands; no offer needs no answer."""
        peers = connect(server_context(), client_context(version=version, alpn=offered))
        assert peers.server.get_alpn_proto_negotiated() == chosen
        assert peers.client.get_alpn_proto_negotiated() == chosen

    @both_versions
    def test_other_protocols_are_refused_with_alert(self, version: int) -> None:
        """A client that offers no HTTP/1 gets the alert of RFC 7301 section 3.2, and we a reason."""
        client_side, context = client_context(version=version, alpn=[b"h2", b"spdy/3"]), server_context()
        server, client = SSL.Connection(context, None), SSL.Connection(client_side, None)
        server.set_accept_state()
        client.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        server.bio_write(outgoing(client))
        with pytest.raises(SSL.Error) as refused:
            server.do_handshake()
        assert translate(refused.value).reason == "no_shared_alpn"
        client.bio_write(outgoing(server))
        with pytest.raises(SSL.Error, match="alert no application protocol"):
            client.do_handshake()

    def test_refusal_leaves_others_alone(self) -> None:
        """The refusal of one connection does not surface in the next of the same context."""
        context = server_context()
        with pytest.raises(SSL.Error):
            connect(context, client_context(alpn=[b"h2"]))
        connect(context, client_context(alpn=[b"http/1.1"]))

    @both_versions
    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [([b"mqtt", b"x"], b"x"), ([b"mqtt"], b"mqtt"), ([], b"")],
        ids=["both", "one", "none"],
    )
    def test_protocols_of_a_listener_are_agreed_to_in_its_order(
        self, version: int, offered: list[bytes], chosen: bytes
    ) -> None:
        """In raw TCP mode they are the operator's; a client that offers none is served."""
        context = build_context(
            [authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE, protocols=["x", "mqtt"]
        )
        peers = connect(context, client_context(version=version, alpn=offered))
        assert peers.client.get_alpn_proto_negotiated() == chosen
        with pytest.raises(SSL.Error):
            connect(context, client_context(version=version, alpn=[b"http/1.1"]))

    @both_versions
    def test_listener_without_protocols_does_not_look(self, version: int) -> None:
        """Whatever is offered, nothing is agreed on, and nobody is refused."""
        context = build_context(
            [authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE, protocols=[]
        )
        peers = connect(context, client_context(version=version, alpn=[b"h2", b"mqtt"]))
        assert peers.client.get_alpn_proto_negotiated() == b""


class TestResumption:
    @both_versions
    def test_session_resumes_by_ticket(self, version: int) -> None:
        """A session resumes, and again from there, though the server keeps no cache."""
        context, client = server_context(), client_context(version=version)
        assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
        first = connect(context, client)
        assert not is_resumed(first.server)
        second = connect(context, client, session=first.session())
        assert is_resumed(second.server)
        assert is_resumed(connect(context, client, session=second.session()).server)

    @both_versions
    @pytest.mark.parametrize("mode", [NONE, REQUIRED])
    def test_resumed_session_carries_data(self, version: int, mode: ClientCertMode) -> None:
        """A resumed session works, also where clients show certificates."""
        identity = authority().issue("ci", purposes=CLIENT)
        context, client = server_context(mode=mode), client_context(version=version, identity=identity)
        peers = connect(context, client, session=connect(context, client).session())
        assert is_resumed(peers.server)
        exchange(peers, b"x" * 100_000)

    @both_versions
    @pytest.mark.parametrize("mode", [NONE, REQUIRED])
    def test_other_context_does_not_resume(self, version: int, mode: ClientCertMode) -> None:
        """A session of another context falls back to a full handshake."""
        client = client_context(version=version, identity=authority().issue("ci", purposes=CLIENT))
        session = connect(server_context(mode=mode), client).session()
        assert not is_resumed(connect(server_context(mode=mode), client, session=session).server)

    @both_versions
    def test_session_from_before_certificates_does_not_resume(self, version: int) -> None:
        """A session made where nobody was asked for a certificate is worth nothing where one is."""
        issued, client = authority().issue("localhost"), client_context(version=version)
        session = connect(server_context(issued), client).session()
        assert not is_resumed(connect(server_context(issued, mode=REQUIRED), client, session=session).server)


BAD_CLIENTS = {
    "wrong CA": (other_authority().issue("ci", purposes=CLIENT), VerifyReason.UNKNOWN_CA),
    "self-signed": (self_signed("ci", purposes=CLIENT), VerifyReason.SELF_SIGNED),
    "expired": (
        authority().issue("ci", purposes=CLIENT, not_before=NOW - 9 * DAY, not_after=NOW - DAY),
        VerifyReason.EXPIRED,
    ),
    "not yet valid": (authority().issue("ci", purposes=CLIENT, not_before=NOW + DAY), VerifyReason.NOT_YET_VALID),
    "server only": (authority().issue("ci"), VerifyReason.WRONG_PURPOSE),
}


class TestClientCertificates:
    def test_none_does_not_ask(self) -> None:
        """Without client certificates a client that has one is not asked for it."""
        client = client_context(identity=authority().issue("ci", purposes=CLIENT))
        assert connect(server_context(), client).server.get_peer_certificate(as_cryptography=True) is None

    @both_versions
    @pytest.mark.parametrize("mode", [OPTIONAL, REQUIRED])
    def test_accepted_names_are_advertised(self, version: int, mode: ClientCertMode) -> None:
        """The request names the CAs, so that browsers offer the right certificates."""
        peers = connect(server_context(mode=mode), client_context(version=version))
        [name] = peers.client.get_client_ca_list(as_cryptography=True)
        assert name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Test Root CA"

    @both_versions
    @pytest.mark.parametrize("mode", [OPTIONAL, REQUIRED])
    def test_no_certificate_completes(self, version: int, mode: ClientCertMode) -> None:
        """A client without a certificate completes the handshake: the answer is HTTP's."""
        peers = connect(server_context(mode=mode), client_context(version=version))
        assert read_session(peers.server).verification.certificate is None

    @both_versions
    @pytest.mark.parametrize("mode", [OPTIONAL, REQUIRED])
    @pytest.mark.parametrize("purposes", [CLIENT, None], ids=["clientAuth", "no EKU"])
    def test_good_certificate_is_accepted(
        self, version: int, mode: ClientCertMode, purposes: tuple[object, ...] | None
    ) -> None:
        """A certificate from the CA, through its intermediate, is accepted, first and resumed."""
        identity = intermediate().issue("ci", purposes=purposes)  # type: ignore[arg-type]
        context, client = server_context(mode=mode), client_context(version=version, identity=identity)
        first = connect(context, client)
        second = connect(context, client, session=first.session())
        for peers in (first, second):
            verification = read_session(peers.server).verification
            assert verification.certificate == identity.certificate
            assert verification.is_accepted

    @both_versions
    @pytest.mark.parametrize(("identity", "reason"), BAD_CLIENTS.values(), ids=BAD_CLIENTS.keys())
    def test_bad_certificate_completes_and_stays_bad(
        self, version: int, identity: Issued, reason: VerifyReason
    ) -> None:
        """A client refused for its certificate stays refused however often it resumes."""
        context, client = server_context(mode=REQUIRED), client_context(version=version, identity=identity)
        peers = connect(context, client)
        for expect_resumed in (False, True, True):
            session = read_session(peers.server)
            assert session.resumed is expect_resumed
            assert session.verification.certificate == identity.certificate
            assert session.verification.reason is reason
            peers = connect(context, client, session=peers.session())

    @both_versions
    def test_missing_intermediate_is_unknown(self, version: int) -> None:
        """A client that leaves out its intermediate cannot be verified."""
        identity = intermediate().issue("ci", purposes=CLIENT)
        alone = Issued(identity.certificate, identity.key)
        peers = connect(server_context(mode=REQUIRED), client_context(version=version, identity=alone))
        assert read_session(peers.server).verification.reason is VerifyReason.UNKNOWN_CA

    def test_intermediate_as_anchor_is_no_root(self) -> None:
        """A chain that ends at an intermediate among the anchors is not complete."""
        identity = intermediate().issue("ci", purposes=CLIENT)
        bundle = authority().issue("localhost").bundle
        context = build_context([bundle], ClientTrust(REQUIRED, (intermediate().certificate,)), TlsPolicy.INTERMEDIATE)
        peers = connect(context, client_context(identity=identity))
        assert read_session(peers.server).verification.reason is VerifyReason.UNKNOWN_CA

    @pytest.mark.parametrize("length", [10, 11])
    def test_chain_has_a_longest(self, length: int) -> None:
        """Ten intermediates are accepted; eleven are refused, by an alert, since there is so much to go on with."""
        issuer = authority()
        for number in range(length):
            issuer = issuer.delegate(f"Intermediate {number}")
        client = client_context(identity=issuer.issue("ci", purposes=CLIENT))
        if length == 10:
            assert read_session(connect(server_context(mode=REQUIRED), client).server).verification.is_accepted
        else:
            with pytest.raises(SSL.Error, match="certificate verify failed"):
                connect(server_context(mode=REQUIRED), client)

    def test_first_of_several_errors_counts(self) -> None:
        """A foreign certificate that has expired as well is foremost foreign."""
        identity = other_authority().issue("ci", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        peers = connect(server_context(mode=REQUIRED), client_context(identity=identity))
        assert read_session(peers.server).verification.reason is VerifyReason.UNKNOWN_CA

    def test_errors_of_one_client_do_not_touch_the_next(self) -> None:
        """Each connection has its own result."""
        context = server_context(mode=REQUIRED)
        bad, _ = BAD_CLIENTS["expired"]
        good = authority().issue("ci", purposes=CLIENT)
        for identity, accepted in ((bad, False), (good, True), (bad, False), (good, True)):
            peers = connect(context, client_context(identity=identity))
            assert read_session(peers.server).verification.is_accepted is accepted
