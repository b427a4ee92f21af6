"""`proxy.rejecting`: operators are told of clients that were turned away, and not more often than they can read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from OpenSSL import SSL
from twisted.internet import task
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from sidecar.observe.metrics import Metrics
from sidecar.policy.authz import Refusal
from sidecar.proxy.rejecting import PAUSE_SECONDS, Rejecter
from sidecar.settings import ClientCertMode, ClientRefusal, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.fastpath import records_for
from sidecar.tls.server import Application, TlsServer
from sidecar.tls.session import read_session
from sidecar.tls.trust import ClientTrust
from tests.support.certs import CLIENT, DAY, NOW, Issued, authority
from tests.support.handshake import TLS12, TLS13, client_context, connect, outgoing
from tests.support.ports import RecordingTransport

EXPIRED = authority().issue("ci.example", purposes=CLIENT, not_before=NOW - 5 * DAY, not_after=NOW - DAY)

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


@pytest.fixture
def clock() -> task.Clock:
    return task.Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def rejecter(clock: task.Clock, metrics: Metrics) -> Rejecter:
    return Rejecter(metrics, clock.seconds)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def trust(refusal: ClientRefusal) -> ClientTrust:
    return ClientTrust(ClientCertMode.REQUIRED, (authority().certificate,), refusal=refusal)


class Door:
    """Accepts one connection; its handshake is to fail."""

    def __init__(self, rejecter: Rejecter, context: SSL.Context) -> None:
        self.rejecter = rejecter
        self.tls = TlsServer(records_for(context), self)
        self.tls.transport = RecordingTransport(task.Clock(), self.tls)

    def established(self, tls: TlsServer, connection: SSL.Connection) -> Application:
        raise AssertionError("the handshake went through")

    def handshake_failed(self, tls: TlsServer, reason: str, message: str) -> None:
        self.rejecter.handshake_failed("192.0.2.1", tls, reason, message)

    def plaintext_reply(self, data: bytes) -> bytes:
        return b""

    def closed(self, tls: TlsServer) -> None: ...

    def shake_hands(self, client: SSL.Connection) -> None:
        """Carry what both say until the server has had enough."""
        transport = self.tls.transport
        assert isinstance(transport, RecordingTransport)
        seen = 0
        for _ in range(4):
            try:
                client.do_handshake()
            except SSL.Error:
                pass
            data = outgoing(client)
            if data:
                self.tls.dataReceived(data)
            client.bio_write(transport.sent[seen:]) if transport.sent[seen:] else None
            seen = len(transport.sent)


def client(version: int, identity: Issued | None = None) -> SSL.Connection:
    connection = SSL.Connection(client_context(version=version, identity=identity), None)
    connection.set_connect_state()
    connection.set_tlsext_host_name(b"app.example")
    return connection


def server_context(refusal: ClientRefusal, policy: TlsPolicy = TlsPolicy.INTERMEDIATE) -> SSL.Context:
    return build_context([authority().issue("localhost").bundle], trust(refusal), policy)


class TestHandshakeFailed:
    @both_versions
    def test_certificate_that_was_refused_is_shown(
        self, rejecter: Rejecter, metrics: Metrics, log: list[str], version: int
    ) -> None:
        """Who it was, what was wrong and what to do, though OpenSSL forgets the certificate."""
        Door(rejecter, server_context(ClientRefusal.HANDSHAKE)).shake_hands(client(version, EXPIRED))
        (event,) = rejecter.rejections.as_json()
        assert (event["reason"], event["answer"], event["server_name"]) == ("expired", "alert", "app.example")
        assert event["certificate"]["subject"] == "CN=ci.example"
        assert event["certificate"]["issuer"] == "CN=Test Root CA"
        assert event["certificate"]["sans"] == ("DNS:ci.example",)
        assert event["hint"] == "renew the client's certificate"
        assert metrics.handshake_failures == {"expired": 1}
        (line,) = log
        assert line.startswith("client 192.0.2.1 was turned away: the client certificate or one of its issuers has exp")
        assert "sni='app.example'" in line
        assert line.endswith("; renew the client's certificate")

    @both_versions
    def test_missing_certificate_is_a_reason(self, rejecter: Rejecter, version: int) -> None:
        """Nothing was shown, so nothing is said of it."""
        Door(rejecter, server_context(ClientRefusal.HANDSHAKE)).shake_hands(client(version))
        (event,) = rejecter.rejections.as_json()
        assert (event["reason"], event["certificate"]) == ("client_certificate_missing", None)

    def test_offer_that_cannot_be_met_is_shown(self, rejecter: Rejecter) -> None:
        """Old clients are told by the versions that they offer."""
        Door(rejecter, server_context(ClientRefusal.HTTP, TlsPolicy.MODERN)).shake_hands(client(TLS12))
        (event,) = rejecter.rejections.as_json()
        assert event["reason"] == "unsupported_version"
        assert event["versions"] == ("TLSv1.2", "TLSv1.1", "TLSv1.0", "SSLv3")

    def test_client_that_just_leaves_is_counted_only(
        self, rejecter: Rejecter, metrics: Metrics, log: list[str]
    ) -> None:
        """Load balancers connect and leave all day long."""
        Door(rejecter, server_context(ClientRefusal.HTTP)).tls.eofReceived()
        assert metrics.handshake_failures == {"ping": 1}
        assert rejecter.rejections.as_json() == []
        assert log == []

    @pytest.mark.parametrize("early", [b"\x16", b"\x16\x03\x01"], ids=["byte", "header"])
    def test_client_that_leaves_in_the_middle_is_no_ping(
        self, rejecter: Rejecter, metrics: Metrics, log: list[str], early: bytes
    ) -> None:
        """It wanted something; that is counted apart, and not logged either."""
        door = Door(rejecter, server_context(ClientRefusal.HTTP))
        door.tls.dataReceived(early)
        door.tls.eofReceived()
        assert metrics.handshake_failures == {"closed_by_peer": 1}
        assert log == []


class TestConnectionRefused:
    def test_it_is_counted_remembered_and_logged(self, rejecter: Rejecter, metrics: Metrics, log: list[str]) -> None:
        """A connection that was cut for what it began with has neither TLS nor a certificate to show."""
        rejecter.connection_refused("192.0.2.1", "proxy_header_untrusted", "it may not")
        (event,) = rejecter.rejections.as_json()
        assert (event["client"], event["reason"], event["answer"]) == ("192.0.2.1", "proxy_header_untrusted", "reset")
        assert event["certificate"] is None
        assert metrics.handshake_failures == {"proxy_header_untrusted": 1}
        (line,) = log
        assert line.startswith(
            "client 192.0.2.1 was turned away: it may not [reason='proxy_header_untrusted' answer='reset']; "
        )
        assert "SIDECAR_TRUSTED_PROXIES" in line

    def test_flood_is_logged_once_in_a_while(self, rejecter: Rejecter, log: list[str], metrics: Metrics) -> None:
        """Every newcomer could bring one."""
        for number in range(20):
            rejecter.connection_refused(f"192.0.2.{number}", "proxy_header_missing", "it has none")
        assert len(log) == 1
        assert metrics.handshake_failures == {"proxy_header_missing": 20}


class TestRequestRefused:
    def test_flaw_of_the_certificate_is_the_reason(self, rejecter: Rejecter, metrics: Metrics) -> None:
        """A 403 says that a certificate is invalid; operators see in which way."""
        peers = connect(server_context(ClientRefusal.HTTP), client_context(identity=EXPIRED))
        refusal = Refusal(403, "client_certificate_invalid", "Refused.", "rule default: it has expired")
        rejecter.request_refused("192.0.2.1", read_session(peers.server), refusal, "/secret")
        (event,) = rejecter.rejections.as_json()
        assert event["path"] == "/secret"
        assert (event["reason"], event["answer"], event["message"]) == ("expired", "403", refusal.detail)
        assert event["certificate"]["serial"] == f"{EXPIRED.certificate.serial_number:x}"
        assert metrics.client_rejections == {"expired": 1}

    def test_flood_is_logged_once_in_a_while(
        self, rejecter: Rejecter, clock: task.Clock, log: list[str], metrics: Metrics
    ) -> None:
        """Each reason has a line of its own at most every ten seconds; the next one counts those in between."""
        session = read_session(connect(server_context(ClientRefusal.HTTP), client_context()).server)
        missing = Refusal(400, "client_certificate_missing", "None was sent.")
        for number in range(20):
            rejecter.request_refused(f"192.0.2.{number}", session, missing)
        rejecter.request_refused("192.0.2.1", session, Refusal(403, "client_not_authorized", "Refused."))
        assert len(log) == 2
        clock.advance(PAUSE_SECONDS)
        rejecter.request_refused("192.0.2.1", session, missing)
        assert log[-1].endswith("; 19 more since the last line, see /handshakes")
        assert len(rejecter.rejections.as_json()) == 21
        assert metrics.client_rejections == {"client_certificate_missing": 21, "client_not_authorized": 1}

    def test_line_cannot_be_forged(self, rejecter: Rejecter, log: list[str]) -> None:
        """What a client chose is quoted."""
        hostile = authority().issue("a\nb", purposes=CLIENT)
        session = read_session(connect(server_context(ClientRefusal.HTTP), client_context(identity=hostile)).server)
        rejecter.request_refused("192.0.2.1", session, Refusal(403, "client_not_authorized", "Refused."))
        assert "\n" not in log[0]
