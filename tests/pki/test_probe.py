"""`pki.probe`: one look at a server. Real servers are looked at in the scenarios."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

import pytest
from cryptography import x509
from OpenSSL import SSL

from sidecar.pki import probe
from sidecar.pki.probe import Handshake, Seen
from tests.support.certs import Issued, der, intermediate

NAME = x509.DNSName("app.example")


class Server:
    """A socket with a TLS server behind it, in memory."""

    def __init__(self, issued: Issued, verify: int = SSL.VERIFY_NONE, version: int = SSL.TLS1_3_VERSION) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_verify(verify)
        context.use_privatekey(issued.key)
        context.use_certificate(issued.certificate)
        for other in issued.chain:
            context.add_extra_chain_cert(other)
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()

    @property
    def server_name(self) -> bytes | None:
        return self._connection.get_servername()

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= 5

    def sendall(self, data: bytes) -> None:
        self._connection.bio_write(data)
        try:
            self._connection.do_handshake()
        except SSL.Error:
            pass

    def recv(self, size: int) -> bytes:
        try:
            return self._connection.bio_read(size)
        except SSL.WantReadError:
            raise TimeoutError from None


class Script:
    """A socket that a server has sent these chunks to, and then closed."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = list(chunks)

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


def look(sock: Server | Script, name: x509.GeneralName = NAME) -> Seen:
    return Handshake(sock, time.monotonic() + 5).look(name)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def issued() -> Issued:
    return intermediate().issue("app.example")


class TestHandshake:
    @pytest.mark.parametrize(("version", "word"), [(SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")])
    def test_chain_is_as_sent(self, issued: Issued, version: int, word: str) -> None:
        """Nothing is checked, so nothing is hidden."""
        server = Server(issued, version=version)
        seen = look(server)
        assert seen.chain == (der(issued.certificate), *map(der, issued.chain))
        assert (seen.version, seen.error, seen.client_certificate) == (word, "", "not asked for")
        assert seen.cipher
        assert server.server_name == b"app.example"

    def test_address_is_no_server_name(self, issued: Issued) -> None:
        """RFC 6066 section 3 allows host names only."""
        server = Server(issued)
        look(server, x509.IPAddress(ipaddress.ip_address("10.0.0.1")))
        assert server.server_name is None

    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
    @pytest.mark.parametrize(
        ("verify", "words"),
        [
            pytest.param(SSL.VERIFY_PEER, "asked for (optional, or refused later)", id="optional"),
            pytest.param(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, "required", id="required"),
        ],
    )
    def test_demand_for_a_client_certificate_is_seen(
        self, issued: Issued, version: int, verify: int, words: str
    ) -> None:
        """Also where the server hangs up on those without one: the chain is shown all the same."""
        seen = look(Server(issued, verify, version))
        assert (seen.is_certificate_asked, seen.client_certificate) == (True, words)
        assert seen.chain[0] == der(issued.certificate)

    @pytest.mark.parametrize(
        ("chunks", "message"),
        [
            pytest.param([], "closed the connection during the TLS handshake", id="closed"),
            pytest.param([b"220 mail.example ESMTP\r\n"], "failed: wrong version number", id="no-tls"),
            pytest.param([b"\x15\x03\x03\x00\x02\x02\x28"], "handshake failure", id="alert"),
        ],
    )
    def test_server_without_a_certificate_is_a_reason(self, chunks: list[bytes], message: str) -> None:
        """The likely mistake is the wrong port."""
        with pytest.raises(OSError, match=message):
            look(Script(chunks))

    def test_endless_answer_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A record that is never whole fills no memory."""
        monkeypatch.setattr(probe, "MAX_HANDSHAKE_BYTES", 100)
        head = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"
        with pytest.raises(OSError, match="over 100 bytes and the TLS handshake is not done"):
            look(Script([head, *[bytes(10)] * 20]))

    def test_deadline_ends_it(self, issued: Issued) -> None:
        """It holds for all of the handshake, not for each step."""
        handshake = Handshake(Server(issued), time.monotonic())  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            handshake.look(NAME)
