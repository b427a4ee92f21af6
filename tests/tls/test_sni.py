"""`tls.sni`: which certificate a client gets."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from sidecar.settings import ClientCertMode, TlsPolicy
from sidecar.tls.session import read_session
from sidecar.tls.sni import ServedNames, build_contexts, server_names
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import VerifyReason, is_resumed
from tests.support.certs import CLIENT, Issued, authority, intermediate, other_authority, rsa_key
from tests.support.handshake import TLS12, TLS13, Peers, client_context, connect

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])

FIRST = authority().issue("first.example", "*.wild.example")
SECOND = authority().issue("second.example", "both.example")
SECOND_RSA = intermediate().issue("second.example", key=rsa_key())
THIRD = authority().issue("second.example", "third.example")


def contexts(*issued: Issued, trust: ClientTrust | None = None) -> SSL.Context:
    return build_contexts([one.bundle for one in issued], trust or ClientTrust(), TlsPolicy.INTERMEDIATE)


def shown(peers: Peers) -> object:
    return peers.client.get_peer_certificate(as_cryptography=True)


class TestServerNames:
    def test_alternative_names_count(self) -> None:
        """What a client would accept is in the SAN, in any case."""
        assert server_names(authority().issue("A.example", "*.B.example", "10.0.0.1").certificate) == (
            "a.example",
            "*.b.example",
        )

    def test_common_name_is_the_last_resort(self) -> None:
        """A certificate without a SAN has nothing else."""
        assert server_names(other_authority().certificate) == ("other root ca",)


class TestBuildContexts:
    @both_versions
    @pytest.mark.parametrize(
        ("name", "served"),
        [
            ("first.example", FIRST),
            ("second.example", SECOND),
            ("SECOND.example", SECOND),
            ("third.example", THIRD),
            ("unknown.example", FIRST),
            (None, FIRST),
        ],
    )
    def test_name_chooses(self, name: str | None, served: Issued, version: int) -> None:
        """Of several certificates for a name the first serves; a client that names nobody gets the default."""
        context = contexts(FIRST, SECOND, THIRD)
        assert shown(connect(context, client_context(version=version), server_name=name)) == served.certificate

    @pytest.mark.parametrize(
        ("name", "served"), [("a.wild.example", FIRST), ("a.b.wild.example", SECOND), ("wild.example", SECOND)]
    )
    def test_wildcard_is_one_label(self, name: str, served: Issued) -> None:
        """A wildcard is not for names below its label, nor for its own domain."""
        assert shown(connect(contexts(SECOND, FIRST), client_context(), server_name=name)) == served.certificate

    @pytest.mark.parametrize("name", ["second.example", None], ids=["by name", "as default"])
    def test_kind_of_key_is_the_clients_choice(self, name: str | None) -> None:
        """RSA and ECDSA for one name: each client gets what it can verify, with that certificate's own chain."""
        context = contexts(SECOND, SECOND_RSA, FIRST)
        for kind, served in (("RSA", SECOND_RSA), ("ECDSA", SECOND)):
            client = client_context(version=TLS12)
            client.set_cipher_list(f"ECDHE-{kind}-AES128-GCM-SHA256".encode())
            peers = connect(context, client, server_name=name)
            assert shown(peers) == served.certificate
            assert len(peers.client.get_peer_cert_chain() or []) == 1 + len(served.chain)

    @both_versions
    @pytest.mark.parametrize("name", ["first.example", "second.example"])
    def test_session_is_resumed(self, name: str, version: int) -> None:
        """Every name resumes, not the default alone."""
        context, client = contexts(FIRST, SECOND), client_context(version=version)
        session = connect(context, client, server_name=name).session()
        assert is_resumed(connect(context, client, server_name=name, session=session).server)

    @both_versions
    def test_session_keeps_its_verification_under_another_name(self, version: int) -> None:
        """A refused client is refused under whatever name it resumes."""
        trust = ClientTrust(ClientCertMode.REQUIRED, (authority().certificate,))
        context = contexts(FIRST, SECOND, trust=trust)
        bad = client_context(version=version, identity=other_authority().issue("ci", purposes=CLIENT))
        session = connect(context, bad, server_name="first.example").session()
        peers = connect(context, bad, server_name="second.example", session=session)
        assert read_session(peers.server).verification.reason is VerifyReason.UNKNOWN_CA

    @both_versions
    @pytest.mark.parametrize("name", ["first.example", "second.example"])
    def test_clients_are_verified_under_every_name(self, name: str, version: int) -> None:
        """No name leads around the client certificate."""
        trust = ClientTrust(ClientCertMode.REQUIRED, (authority().certificate,))
        context = contexts(FIRST, SECOND, trust=trust)
        good = client_context(version=version, identity=authority().issue("ci", purposes=CLIENT))
        bad = client_context(version=version, identity=other_authority().issue("ci", purposes=CLIENT))
        verification = read_session(connect(context, good, server_name=name).server).verification
        assert verification.is_accepted
        verification = read_session(connect(context, bad, server_name=name).server).verification
        assert verification.reason is VerifyReason.UNKNOWN_CA


class TestServedNames:
    @pytest.mark.parametrize(
        ("asked", "host", "expected"),
        [
            ("first.example", "first.example", True),
            ("first.example", "x.wild.example", True),
            ("x.wild.example", "first.example", True),
            ("x.wild.example", "y.wild.example", True),
            ("first.example", "x.y.wild.example", False),
            ("first.example", "wild.example", False),
            ("first.example", "second.example", False),
            ("second.example", "both.example", True),
            ("second.example", "third.example", False),
            ("third.example", "third.example", True),
            ("both.example", "third.example", False),
            ("unknown.example", "first.example", True),
            ("unknown.example", "unknown.example", False),
            ("first.example", "", False),
            ("", "first.example", True),
        ],
    )
    def test_certificate_that_was_asked_for_counts(self, asked: str, host: str, expected: bool) -> None:
        """Not all that the listener has, and for a name that nobody has it is the default."""
        names = ServedNames.of([FIRST.bundle, SECOND.bundle, THIRD.bundle])
        assert names.belong_together(asked, host) is expected
