"""`tls.client`: TLS towards an upstream, which is a real OpenSSL server in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import error, task
from twisted.python import failure

from sidecar.errors import TlsError
from sidecar.settings import HostPort, TlsPolicy, UnixPath
from sidecar.tls import client as module
from sidecar.tls import fastpath
from sidecar.tls.client import (
    MAX_HANDSHAKE_BYTES,
    MAX_SESSION_AGE,
    MAX_SESSIONS,
    Address,
    TlsFailure,
    UpstreamSecurity,
    build_security,
)
from sidecar.tls.verify import is_resumed
from sidecar.topology import UpstreamTls
from tests.support.certs import CLIENT, DAY, NOW, Issued, authority, intermediate, other_authority, self_signed
from tests.support.forge import HANDSHAKE, ForgingClient
from tests.support.handshake import TLS12, TLS13, outgoing
from tests.support.ports import RecordingTransport

APP = HostPort("app.internal", 8443)
SPIFFE = "spiffe://prod/ns/web"

both_versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


def server_context(
    issued: Issued | None = None,
    *,
    version: int | None = None,
    asks: Sequence[x509.Certificate] = (),
    alpn: bytes | None = None,
) -> SSL.Context:
    """
    Make the context of an upstream.

    Args:
        issued: Its certificate; a good one for app.internal unless told.
        asks: CAs of the client certificate that it requires.
        alpn: What it chooses, whatever it is offered.
    """
    issued = issued or GOOD
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    context.use_certificate(issued.certificate)
    for certificate in issued.chain:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(issued.key)
    context.set_session_id(b"upstream")
    if asks:
        store = context.get_cert_store()
        assert store is not None
        for certificate in asks:
            store.add_cert(X509.from_cryptography(certificate))
            context.add_client_ca(certificate)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    if alpn is not None:
        context.set_alpn_select_callback(lambda connection, offered: alpn)
    context.set_tlsext_servername_callback(lambda connection: None)
    return context


def security(
    tls: UpstreamTls | None = None,
    own: Issued | None = None,
    policy: TlsPolicy = TlsPolicy.INTERMEDIATE,
    clock: Callable[[], datetime] = lambda: NOW,
) -> UpstreamSecurity:
    bundle = None if own is None else own.bundle
    return build_security(tls or UpstreamTls(), ([authority().certificate], bundle), policy, clock=clock)


GOOD = authority().issue("app.internal")


class Recorder:
    """What speaks through the connection: it notes what it is told; *on* runs something of its own at an event."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.reason: BaseException | None = None
        self.on: dict[str, Callable[[], object]] = {}

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.note("data")

    def eofReceived(self) -> None:
        self.note("eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        self.reason = reason.value
        self.note("lost")

    def pauseProducing(self) -> None:
        self.note("pause")

    def resumeProducing(self) -> None:
        self.note("resume")

    def note(self, event: str) -> None:
        assert "lost" not in self.events, f"{event} after the end"
        assert "failed" not in self.events, f"{event} after the failure"
        self.events.append(event)
        if event in self.on:
            self.on[event]()


class Connection:
    """A connection over a recording transport, and the upstream at its other end."""

    def __init__(
        self,
        ours: UpstreamSecurity | None = None,
        theirs: SSL.Context | SSL.Connection | None = None,
        address: Address = APP,
    ) -> None:
        self.clock = task.Clock()
        self.protocol = Recorder()
        self.failure: TlsFailure | None = None
        self.tls = (ours or security()).connect(address, self.protocol, self._established)
        self.transport = RecordingTransport(self.clock, self.tls.receiver)
        self.tls.transport = self.transport
        if isinstance(theirs, SSL.Connection):
            self.server = theirs
        else:
            self.server = SSL.Connection(theirs or server_context(), None)
            self.server.set_accept_state()
        self.server_error: list[str] = []
        self.is_server_done = False

    def _established(self, why: TlsFailure | None) -> None:
        self.failure = why
        self.protocol.note("failed" if why else "established")

    @property
    def events(self) -> list[str]:
        return self.protocol.events

    def shake_hands(self) -> Connection:
        self.tls.start()
        while self.transport.sent:
            data = self.server_answers()
            if data:
                self.transport.deliver(data)
        return self

    def server_answers(self) -> bytes:
        """Hand the server what was sent to it, and return what it says."""
        self.to_server()
        try:
            if self.is_server_done:
                self.server.recv(0)
            else:
                self.server.do_handshake()
                self.is_server_done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as problem:
            self.server_error += [entry[2] for entry in problem.args[0]]
        return outgoing(self.server)

    def to_server(self) -> None:
        if self.transport.sent:
            self.server.bio_write(self.transport.sent)
            self.transport.sent = b""

    def sealed(self, data: bytes) -> bytes:
        self.server.sendall(data)
        return outgoing(self.server)

    def server_sends(self, data: bytes) -> None:
        self.transport.deliver(self.sealed(data))

    def close_notify(self) -> bytes:
        self.server.shutdown()
        return outgoing(self.server)

    def server_reads(self) -> tuple[bytes, bool]:
        """Return what the server can read, and whether it was told that this is all."""
        self.to_server()
        data = b""
        try:
            while True:
                data += self.server.recv(65_536)
        except SSL.WantReadError:
            return data, False
        except SSL.ZeroReturnError:
            return data, True

    @property
    def token(self) -> str:
        """The reason for which there is no connection, or no more; "" if there is."""
        return "" if self.tls.last_error is None else self.tls.last_error.reason

    @property
    def words(self) -> str:
        assert self.tls.last_error is not None
        return self.tls.last_error.message


@pytest.fixture(params=[False, True], ids=["public calls", "direct calls"], autouse=True)
def records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to call OpenSSL obey one contract."""
    monkeypatch.setattr(fastpath, "IS_AVAILABLE", request.param)


@pytest.fixture(params=[TLS12, TLS13], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def started(version: int) -> Connection:
    connection = Connection(theirs=server_context(version=version))
    connection.tls.start()
    return connection


@pytest.fixture
def open_(version: int) -> Connection:
    connection = Connection(theirs=server_context(version=version)).shake_hands()
    assert connection.events == ["established"]
    return connection


class TestHandshake:
    def test_it_is_told_of_once(self, open_: Connection) -> None:
        """Whoever asked for the connection hears that it is there, once, and data flows both ways."""
        assert open_.failure is None
        open_.tls.write(b"question")
        assert open_.server_reads() == (b"question", False)
        open_.server_sends(b"answer")
        assert open_.protocol.received == b"answer"
        assert open_.events == ["established", "data"]

    def test_nothing_is_sent_before_the_start(self) -> None:
        """The owner says when: what goes before TLS, such as a PROXY header, goes before."""
        connection = Connection()
        assert connection.transport.sent == b""
        connection.tls.start()
        assert connection.transport.sent[:1] == b"\x16"
        assert not connection.tls.is_open

    def test_it_completes_byte_by_byte(self, started: Connection) -> None:
        """However the upstream's messages are split, the handshake gets on."""
        while started.transport.sent:
            for byte in started.server_answers():
                started.transport.deliver(bytes([byte]))
        started.server_sends(b"hello")
        assert started.events == ["established", "data"]

    def test_data_behind_it_comes_after_the_news(self) -> None:
        """An upstream that speaks first may do so in the packet that completes the handshake."""
        connection = Connection(theirs=server_context(version=TLS12))
        connection.tls.start()
        connection.transport.deliver(connection.server_answers())
        last_flight = connection.server_answers()
        connection.transport.deliver(last_flight + connection.sealed(b"220 hello\r\n"))
        assert connection.events == ["established", "data"]
        assert connection.protocol.received == b"220 hello\r\n"

    def test_request_may_be_written_at_once(self, started: Connection) -> None:
        """Who hears of the connection can use it in the same moment."""
        started.protocol.on["established"] = lambda: started.tls.write(b"question")
        while not started.is_server_done or not started.events:
            data = started.server_answers()
            if data:
                started.transport.deliver(data)
        assert started.server_reads() == (b"question", False)

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not_tls"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "not_tls"),
            (b"\x00", "not_tls"),
            (b"\x80" * 100_000, "not_tls"),
            (b"\x16\x03\x03\x00\x50\x02", ""),
            (b"\x16HTTP", "unsupported_version"),
            (b"\x16\x03\x03\x00\x05hello", "protocol_error"),
            (b"\x16\x03\x03\xff\xff", "protocol_error"),
            (b"\x15\x03\x03\x00\x02\x02\x28", "handshake_failed"),
            (b"\x15\x03\x03\x00\x02\x02\x70", "unrecognized_name"),
            (b"\x15\x03\x03\x00\x02\x02\x46", "unsupported_version"),
            (b"\x15\x03\x03\x00\x02\x02\x47", "handshake_failed"),
            (b"\x15\x03\x03\x00\x02\x01\x00", "protocol_error"),
        ],
        ids=lambda value: repr(value[:9]) if isinstance(value, bytes) else value or "wait",
    )
    def test_rubbish_fails(self, answer: bytes, reason: str) -> None:
        """What is no TLS, or ends it, is told apart as far as an operator can act on it."""
        connection = Connection()
        connection.tls.start()
        connection.transport.deliver(answer)
        assert connection.token == reason
        assert connection.events == (["failed"] if reason else [])
        assert connection.transport.is_closed is bool(reason)

    def test_only_the_first_byte_tells_that_it_is_no_tls(self, started: Connection) -> None:
        """Later packets begin anywhere in a message."""
        data = started.server_answers()
        started.transport.deliver(data[:3])
        started.transport.deliver(data[3:])
        assert started.token == ""

    def test_handshake_without_end_fails_at_the_limit(self) -> None:
        """An upstream makes us hold no more than `MAX_HANDSHAKE_BYTES`."""
        connection = Connection(theirs=server_context(version=TLS12))
        connection.tls.start()
        hello = connection.server_answers()
        hello = hello[: 5 + int.from_bytes(hello[3:5], "big")]
        certificates = b"\x0b" + (100_000).to_bytes(3, "big") + b"\x00" * 100_000
        records = b"".join(
            b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece
            for piece in (certificates[at : at + 16_000] for at in range(0, len(certificates), 16_000))
        )
        endless = hello + records
        connection.transport.deliver(endless[:MAX_HANDSHAKE_BYTES])
        assert connection.events == []
        connection.transport.deliver(endless[MAX_HANDSHAKE_BYTES : MAX_HANDSHAKE_BYTES + 1])
        assert connection.token == "handshake_too_large"
        assert connection.events == ["failed"]

    @pytest.mark.parametrize("end", [RecordingTransport.deliver_eof, RecordingTransport.reset], ids=["eof", "reset"])
    @pytest.mark.parametrize("is_answered", [False, True], ids=["before the answer", "in the middle"])
    def test_upstream_that_goes_away_is_told_of(
        self, started: Connection, end: Callable[[RecordingTransport], None], is_answered: bool
    ) -> None:
        """A connection that ends before it was established has failed, and nothing else is heard of it."""
        if is_answered:
            started.transport.deliver(started.server_answers()[:500])
        end(started.transport)
        started.clock.advance(0)
        assert started.token == "closed"
        assert started.events == ["failed"]

    def test_failure_is_the_last_that_is_heard(self) -> None:
        """Whatever comes behind a failure, nobody is bothered with it."""
        connection = Connection(theirs=server_context(other_authority().issue("app.internal"))).shake_hands()
        assert connection.events == ["failed"]
        receiver = connection.tls.receiver
        receiver.dataReceived(b"more")
        receiver.pauseProducing()
        receiver.resumeProducing()
        receiver.eofReceived()
        connection.tls.write(b"late")
        connection.tls.shut_down_writing()
        connection.tls.loseConnection()
        connection.clock.advance(0)
        assert connection.events == ["failed"]

    @both_versions
    def test_upstream_is_told_why(self, version: int) -> None:
        """An alert says what is wrong with its certificate, to those who look into its log."""
        theirs = server_context(other_authority().issue("app.internal"), version=version)
        connection = Connection(theirs=theirs).shake_hands()
        assert connection.server_error == ["tlsv1 alert unknown ca"]
        assert connection.transport.calls == ["loseConnection"]

    def test_failure_while_nothing_is_taken_aborts(self) -> None:
        """An upstream that reads nothing does not keep a failed connection."""
        connection = Connection()
        connection.transport.stop_taking()
        connection.tls.start()
        connection.transport.deliver(b"HTTP")
        assert connection.transport.calls == ["abortConnection"]

    def test_old_upstream_is_refused(self) -> None:
        """With the modern policy TLS 1.2 is not spoken."""
        ours = security(policy=TlsPolicy.MODERN)
        connection = Connection(ours, server_context(version=TLS12)).shake_hands()
        assert connection.token == "unsupported_version"

    def test_old_cipher_suites_are_not_offered(self) -> None:
        """Without forward secrecy and authenticated encryption there is no connection."""
        theirs = server_context(version=TLS12)
        theirs.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA256")
        connection = Connection(theirs=theirs).shake_hands()
        assert connection.token == "handshake_failed"
        assert "cipher suite" in connection.words


class TestServerName:
    @pytest.mark.parametrize(
        ("address", "tls", "asked"),
        [
            (APP, UpstreamTls(), b"app.internal"),
            (HostPort("app.internal.", 1), UpstreamTls(), b"app.internal"),
            (APP, UpstreamTls(sni="other.example"), b"other.example"),
            (APP, UpstreamTls(names=(SPIFFE, "shop.example")), b"shop.example"),
            (APP, UpstreamTls(names=(SPIFFE,)), b"app.internal"),
            (HostPort("10.0.0.5", 1), UpstreamTls(names=("10.0.0.5", SPIFFE)), None),
            (HostPort("10.0.0.5", 1), UpstreamTls(names=("10.0.0.5", "b.example", "c.example")), b"b.example"),
            (HostPort("::1", 1), UpstreamTls(), None),
            (UnixPath("/run/app.sock"), UpstreamTls(names=("app.internal",)), b"app.internal"),
            (UnixPath("/run/app.sock"), UpstreamTls(names=(SPIFFE,)), None),
        ],
        ids=lambda value: str(value) if isinstance(value, HostPort | UnixPath) else "",
    )
    def test_it_is_the_first_host_name_there_is(self, address: Address, tls: UpstreamTls, asked: bytes | None) -> None:
        """What is configured goes first, then the names, then the address; an IP address is never asked for."""
        connection = Connection(security(tls), address=address)
        connection.tls.start()
        connection.server_answers()
        assert connection.server.get_servername() == asked


class TestVerification:
    @both_versions
    @pytest.mark.parametrize(
        ("issued", "reason"),
        [
            (authority().issue("app.internal", not_after=NOW - DAY / 2), "certificate_expired"),
            (authority().issue("app.internal", not_before=NOW + DAY), "certificate_not_yet_valid"),
            (other_authority().issue("app.internal"), "unknown_ca"),
            (attrs.evolve(intermediate().issue("app.internal"), chain=()), "unknown_ca"),
            (self_signed("app.internal"), "self_signed"),
            (authority().issue("app.internal", purposes=CLIENT), "wrong_purpose"),
            (authority().issue("other.internal"), "name_mismatch"),
            (authority().issue("app.internal.example"), "name_mismatch"),
            (authority().issue("*.app.internal"), "name_mismatch"),
        ],
        ids=["expired", "early", "other CA", "no chain", "self-signed", "client's", "other name", "longer", "wildcard"],
    )
    def test_wrong_certificate_is_refused(self, issued: Issued, reason: str, version: int) -> None:
        """Nothing goes to an upstream that does not prove that it is the one, and it says which certificate it was."""
        connection = Connection(theirs=server_context(issued, version=version)).shake_hands()
        assert connection.token == reason
        assert connection.events == ["failed"]
        assert issued.certificate.subject.rfc4514_string().removeprefix("CN=") in connection.words

    @pytest.mark.parametrize(
        ("issued", "tls", "address"),
        [
            (authority().issue("APP.internal"), UpstreamTls(), APP),
            (intermediate().issue("app.internal"), UpstreamTls(), APP),
            (authority().issue("*.internal.example"), UpstreamTls(), HostPort("app.internal.example", 443)),
            (authority().issue("x", "10.0.0.5"), UpstreamTls(), HostPort("10.0.0.5", 443)),
            (authority().issue("x", "fd00::5"), UpstreamTls(), HostPort("fd00:0::5", 443)),
            (authority().issue("x", SPIFFE), UpstreamTls(names=(SPIFFE,)), APP),
            (authority().issue("b.example"), UpstreamTls(names=("a.example", "b.example")), APP),
            (authority().issue("b.example"), UpstreamTls(names=("b.example",)), UnixPath("/run/app.sock")),
        ],
        ids=["case", "intermediate", "wildcard", "IPv4", "IPv6", "SPIFFE ID", "one of two", "Unix socket"],
    )
    def test_right_certificate_is_accepted(self, issued: Issued, tls: UpstreamTls, address: Address) -> None:
        """Every kind of name that a certificate can have will do."""
        connection = Connection(security(tls), server_context(issued), address).shake_hands()
        assert connection.events == ["established"]

    @pytest.mark.parametrize("address", [APP, UnixPath("/run/app.sock")], ids=str)
    def test_names_stand_in_place_of_the_host(self, address: Address) -> None:
        """With names in the cluster, that of its address does not count; without any, nobody is right."""
        tls = UpstreamTls(names=(SPIFFE,)) if address is APP else UpstreamTls()
        connection = Connection(security(tls), address=address).shake_hands()
        assert connection.token == "name_mismatch"

    def test_mismatch_names_both_sides(self) -> None:
        """The operator reads what was wanted, and what there is."""
        issued = authority().issue("other.internal", "10.0.0.7", "spiffe://prod/other")
        tls = UpstreamTls(names=("app.internal", SPIFFE))
        words = Connection(security(tls), server_context(issued)).shake_hands().words
        assert "not for app.internal or spiffe://prod/ns/web" in words
        assert "but for DNS:other.internal, IP:10.0.0.7, URI:spiffe://prod/other;" in words

    def test_wrong_name_learns_nothing_of_us(self) -> None:
        """With TLS 1.3 not even our certificate goes to somebody with the wrong name."""
        own = authority().issue("us", purposes=CLIENT)
        theirs = server_context(authority().issue("other"), version=TLS13, asks=[authority().certificate])
        connection = Connection(security(own=own), theirs)
        connection.tls.start()
        connection.transport.deliver(connection.server_answers())
        assert connection.token == "name_mismatch"
        assert connection.transport.sent == b""

    @both_versions
    @pytest.mark.parametrize(
        "issued",
        [other_authority().issue("other"), authority().issue("app.internal", not_after=NOW - DAY / 2)],
        ids=["nobody's", "expired"],
    )
    def test_without_verification_anybody_will_do(self, issued: Issued, version: int) -> None:
        """Who turns it off gets encryption, to whoever answers."""
        ours = security(UpstreamTls(verify=False))
        connection = Connection(ours, server_context(issued, version=version)).shake_hands()
        assert connection.events == ["established"]

    def test_unreadable_certificate_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """OpenSSL parses more leniently than we do: what cannot be read is no proof."""
        monkeypatch.setattr(module, "peer_certificate", lambda connection: None)
        connection = Connection().shake_hands()
        assert connection.token == "certificate_invalid"
        assert connection.events == ["failed"]

    def test_certificate_can_be_looked_at(self, open_: Connection) -> None:
        """Who watches the clusters sees what the upstream has shown."""
        assert open_.tls.peer_certificate is not None
        assert open_.tls.peer_certificate.subject == "CN=app.internal"
        assert open_.tls.peer_certificate.not_after == GOOD.certificate.not_valid_after_utc
        assert Connection().tls.peer_certificate is None

    def test_refused_certificate_can_be_looked_at(self) -> None:
        """So can one that was refused."""
        theirs = server_context(other_authority().issue("app.internal"))
        summary = Connection(theirs=theirs).shake_hands().tls.peer_certificate
        assert summary is not None
        assert summary.issuer == "CN=Other Root CA"


class TestClientCertificate:
    @both_versions
    def test_it_is_shown_with_its_chain(self, version: int) -> None:
        """An upstream that trusts the root alone can verify it."""
        own = intermediate().issue("us", purposes=CLIENT)
        theirs = server_context(version=version, asks=[authority().certificate])
        connection = Connection(security(own=own), theirs).shake_hands()
        assert connection.events == ["established"]
        assert connection.server_error == []
        shown = connection.server.get_peer_certificate(as_cryptography=True)
        assert shown == own.certificate

    @both_versions
    def test_missing_one_is_named(self, version: int) -> None:
        """The operator reads that one is wanted: at once in TLS 1.2, when the connection is lost in TLS 1.3."""
        connection = Connection(theirs=server_context(version=version, asks=[authority().certificate])).shake_hands()
        connection.clock.advance(0)
        assert connection.token == "client_certificate_required"
        assert "wants a client certificate" in connection.words
        assert connection.events == (["failed"] if version == TLS12 else ["established", "lost"])

    @both_versions
    @pytest.mark.parametrize(
        ("own", "why"),
        [
            (other_authority().issue("us", purposes=CLIENT), "unknown ca"),
            (authority().issue("us", purposes=CLIENT, not_after=NOW - DAY / 2), "certificate expired"),
            (authority().issue("us"), "unsupported certificate"),
        ],
        ids=["other CA", "expired", "server's"],
    )
    def test_refused_one_is_named(self, own: Issued, why: str, version: int) -> None:
        """The operator reads that it was ours that was refused, and why."""
        theirs = server_context(version=version, asks=[authority().certificate])
        connection = Connection(security(own=own), theirs).shake_hands()
        connection.clock.advance(0)
        assert connection.token == "client_certificate_refused"
        assert connection.words == f"the upstream refused our certificate 'CN=us': {why}"
        assert connection.events == (["failed"] if version == TLS12 else ["established", "lost"])

    @both_versions
    def test_certificate_that_nobody_verifies_is_not_blamed(self, version: int) -> None:
        """Without verification a wrong certificate of the upstream is not what a failure comes from."""
        theirs = server_context(other_authority().issue("x"), version=version, asks=[authority().certificate])
        connection = Connection(security(UpstreamTls(verify=False)), theirs).shake_hands()
        assert connection.token == "client_certificate_required"

    def test_late_refusal_is_the_reason_of_the_loss(self) -> None:
        """With TLS 1.3 the refusal comes behind the handshake: whoever waits for the answer is told."""
        theirs = server_context(version=TLS13, asks=[authority().certificate])
        connection = Connection(theirs=theirs).shake_hands()
        connection.clock.advance(0)
        assert isinstance(connection.protocol.reason, TlsError)
        assert connection.protocol.reason.reason == "client_certificate_required"
        assert str(connection.protocol.reason) == connection.words


class TestAlpn:
    @both_versions
    def test_one_of_ours_is_agreed_on(self, version: int) -> None:
        """What is configured is offered, in its order."""
        theirs = server_context(version=version, alpn=b"http/1.1")
        connection = Connection(security(UpstreamTls(alpn=("h2", "http/1.1"))), theirs).shake_hands()
        assert connection.tls.connection.get_alpn_proto_negotiated() == b"http/1.1"
        assert connection.events == ["established"]

    @both_versions
    def test_another_one_fails(self, version: int) -> None:
        """An upstream does not choose what was not offered."""
        theirs = server_context(version=version, alpn=b"h2")
        connection = Connection(security(UpstreamTls(alpn=("http/1.1",))), theirs).shake_hands()
        assert connection.events == ["failed"]
        assert connection.token

    def test_upstream_without_it_will_do(self) -> None:
        """Many servers do not know of ALPN."""
        connection = Connection(security(UpstreamTls(alpn=("http/1.1",)))).shake_hands()
        assert connection.events == ["established"]

    def test_upstream_that_shares_none_is_named(self) -> None:
        """A server that refuses says so in an alert of its own."""
        connection = Connection(security(UpstreamTls(alpn=("h2",))))
        connection.tls.start()
        connection.transport.deliver(b"\x15\x03\x03\x00\x02\x02\x78")
        assert connection.token == "no_shared_alpn"


class TestSessions:
    class Chain:
        """One connection after another to the same upstream."""

        def __init__(self, version: int, issued: Issued | None = None) -> None:
            self.now = NOW
            self.ours = security(clock=lambda: self.now)
            self.theirs = server_context(issued, version=version)

        def use(self, address: Address = APP, end: str = "loseConnection") -> bool:
            """Shake hands, read an answer, end; return whether the connection resumed an earlier session."""
            connection = Connection(self.ours, self.theirs, address).shake_hands()
            assert connection.events == ["established"]
            connection.server_sends(b"answer")
            assert connection.tls.peer_certificate is not None
            resumed = is_resumed(connection.tls.connection)
            getattr(connection.tls, end)()
            connection.clock.advance(0)
            assert connection.events == ["established", "data", "lost"]
            return resumed

    @pytest.fixture
    def chain(self, version: int) -> Chain:
        return self.Chain(version)

    @pytest.mark.parametrize("end", ["loseConnection", "abortConnection"])
    def test_next_connection_resumes(self, chain: Chain, end: str) -> None:
        """A second handshake is cheap for both sides, however the connection before ended."""
        assert [chain.use(end=end) for _ in range(3)] == [False, True, True]

    def test_several_at_once_resume_the_same(self, chain: Chain) -> None:
        """A burst of connections resumes one session, and none of them spoils it."""
        chain.use()
        burst = [Connection(chain.ours, chain.theirs).shake_hands() for _ in range(3)]
        for connection in burst:
            assert is_resumed(connection.tls.connection)
            connection.server_sends(b"answer")
            connection.tls.abortConnection()
            connection.clock.advance(0)
        del burst, connection
        gc.collect()
        assert chain.use()

    def test_connection_without_an_answer_leaves_what_there_is(self, chain: Chain) -> None:
        """One that was never used takes nothing away."""
        chain.use()
        unused = Connection(chain.ours, chain.theirs).shake_hands()
        unused.tls.abortConnection()
        unused.clock.advance(0)
        del unused
        gc.collect()
        assert chain.use()

    def test_other_endpoints_begin_anew(self, chain: Chain) -> None:
        """A session belongs to whom it was made with."""
        chain.use()
        assert not chain.use(HostPort(APP.host, APP.port + 1))

    def test_it_does_not_outlive_its_age(self, chain: Chain) -> None:
        """However often it was resumed since, the certificate is asked for again in time."""
        chain.use()
        chain.now += MAX_SESSION_AGE - timedelta(seconds=1)
        assert chain.use()
        chain.now += timedelta(seconds=1)
        assert not chain.use()
        assert chain.use()

    def test_age_begins_with_a_whole_handshake(self, chain: Chain, version: int) -> None:
        """A session that was offered and not taken says nothing of the one that came in its place."""
        chain.use()
        chain.now += MAX_SESSION_AGE / 2
        chain.theirs = server_context(version=version)
        assert not chain.use()
        chain.now += MAX_SESSION_AGE / 2
        assert chain.use()

    def test_it_does_not_outlive_its_chain(self, version: int) -> None:
        """A certificate that has expired is not believed for the sake of an earlier handshake."""
        now = datetime.now(UTC).replace(microsecond=0)  # OpenSSL goes by the real time, however long a run takes
        chain = self.Chain(version, authority().issue("app.internal", not_after=now + timedelta(minutes=10)))
        chain.now = now
        chain.use()
        chain.now += timedelta(minutes=10, seconds=-1)
        assert chain.use()
        chain.now += timedelta(seconds=1)
        assert not chain.use()

    def test_it_does_not_outlive_its_issuer(self, version: int) -> None:
        """The same with every certificate above it."""
        now = datetime.now(UTC).replace(microsecond=0)  # as above
        issuer = authority().delegate("Short CA", not_after=now + timedelta(minutes=10))
        chain = self.Chain(version, issuer.issue("app.internal"))
        chain.now = now
        chain.use()
        chain.now += timedelta(minutes=10)
        assert not chain.use()

    def test_broken_connection_takes_it_along(self, chain: Chain) -> None:
        """After a forged record everything is agreed on anew."""
        chain.use()
        connection = Connection(chain.ours, chain.theirs).shake_hands()
        connection.transport.deliver(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        connection.clock.advance(0)
        assert not chain.use()

    def test_failed_handshake_takes_it_along(self, chain: Chain) -> None:
        """A session that an upstream stumbles over is not offered again."""
        chain.use()
        connection = Connection(chain.ours, chain.theirs)
        connection.tls.start()
        connection.transport.deliver_eof()
        assert not chain.use()

    def test_unverified_ones_are_not_kept(self, version: int) -> None:
        """Nobody's word is taken for later."""
        ours, theirs = security(UpstreamTls(verify=False)), server_context(version=version)
        for _ in range(2):
            connection = Connection(ours, theirs).shake_hands()
            connection.server_sends(b"answer")
            assert not is_resumed(connection.tls.connection)

    def test_refused_ones_are_not_kept(self, version: int) -> None:
        """Who had the wrong name once has it always."""
        ours, theirs = security(), server_context(authority().issue("other"), version=version)
        assert [Connection(ours, theirs).shake_hands().token for _ in range(2)] == ["name_mismatch"] * 2

    def test_upstream_that_forgets_is_verified_again(self, chain: Chain) -> None:
        """A restart of the upstream costs a whole handshake, with its certificate."""
        chain.use()
        chain.theirs = server_context(version=TLS13)
        assert not chain.use()
        chain.theirs = server_context(other_authority().issue("app.internal"))
        assert Connection(chain.ours, chain.theirs).shake_hands().token == "unknown_ca"

    def test_no_more_than_the_limit_are_kept(self, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
        """Endpoints come and go; the one that was longest not connected to is forgotten."""
        assert MAX_SESSIONS >= 100
        monkeypatch.setattr(module, "MAX_SESSIONS", 2)
        first, second, third = (HostPort(APP.host, port) for port in (1, 2, 3))
        assert [chain.use(each) for each in (first, second, first, third)] == [False, False, True, False]
        assert [chain.use(each) for each in (first, third, second)] == [True, True, False]


class TestOpen:
    @pytest.mark.parametrize("size", [1, 16_385, 147_000, 300_000])
    def test_all_of_it_goes_both_ways(self, open_: Connection, size: int) -> None:
        """Of any size, in order."""
        data = bytes(range(256)) * (size // 256 + 1)
        open_.tls.write(data)
        assert open_.server_reads() == (data, False)
        open_.server_sends(data)
        assert open_.protocol.received == data

    def test_nothing_is_sent_for_nothing(self, open_: Connection) -> None:
        """An empty write is none."""
        open_.tls.write(b"")
        assert open_.transport.sent == b""

    def test_half_close_of_ours(self, open_: Connection) -> None:
        """We have said everything, and read the whole answer."""
        open_.tls.write(b"question")
        open_.tls.shut_down_writing()
        assert open_.server_reads() == (b"question", True)
        assert open_.transport.calls == ["shut_down_writing"]
        assert not open_.tls.is_open
        open_.tls.write(b"late")
        open_.tls.shut_down_writing()
        open_.server_sends(b"answer")
        open_.transport.deliver(open_.sealed(b", the rest") + open_.close_notify())
        assert open_.protocol.received == b"answer, the rest"
        assert open_.events == ["established", "data", "data", "eof"]
        assert open_.transport.calls == ["shut_down_writing"]
        open_.tls.loseConnection()
        assert open_.transport.calls == ["shut_down_writing", "loseConnection"]

    def test_half_close_of_theirs(self, open_: Connection) -> None:
        """The upstream has said everything, and still reads."""
        open_.transport.deliver(open_.sealed(b"last") + open_.close_notify())
        assert open_.events == ["established", "data", "eof"]
        assert open_.tls.is_open
        open_.transport.deliver_eof()
        open_.tls.write(b"more")
        assert open_.server_reads() == (b"more", False)
        open_.tls.shut_down_writing()
        assert open_.server_reads() == (b"", True)
        open_.tls.loseConnection()
        open_.clock.advance(0)
        assert open_.events == ["established", "data", "eof", "lost"]
        assert open_.tls.last_error is None

    def test_nothing_behind_the_end_is_delivered(self, open_: Connection) -> None:
        """What follows close_notify is nobody's."""
        open_.transport.deliver(open_.close_notify())
        open_.transport.deliver(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        assert open_.events == ["established", "eof"]
        assert open_.tls.last_error is None

    @pytest.mark.parametrize("is_half_closed", [False, True], ids=["open", "after our end"])
    def test_truncation_does_not_look_like_an_end(self, open_: Connection, is_half_closed: bool) -> None:
        """A connection that just ends may have been cut: it is lost, not complete."""
        open_.server_sends(b"HTTP/1.0 200 OK\r\n\r\npart")
        if is_half_closed:
            open_.tls.shut_down_writing()
        open_.transport.deliver_eof()
        open_.clock.advance(0)
        assert open_.events == ["established", "data", "lost"]
        assert isinstance(open_.protocol.reason, TlsError)
        assert open_.protocol.reason.reason == "truncated" == open_.token

    def test_truncation_inside_a_record_is_one(self, open_: Connection) -> None:
        """Half a record is handed to nobody."""
        open_.transport.deliver(open_.sealed(b"answer")[:-1])
        open_.transport.deliver_eof()
        open_.clock.advance(0)
        assert open_.events == ["established", "lost"]

    def test_reset_is_passed_on(self, open_: Connection) -> None:
        """The reason of the socket is that of the connection."""
        open_.transport.reset()
        assert open_.events == ["established", "lost"]
        assert isinstance(open_.protocol.reason, error.ConnectionLost)

    def test_forged_record_ends_it(self, open_: Connection) -> None:
        """Nothing of it is delivered, the upstream gets an alert and a reset, and the reason is told."""
        open_.transport.deliver(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        assert open_.transport.sent
        assert open_.transport.calls == ["abortConnection"]
        open_.clock.advance(0)
        assert open_.events == ["established", "lost"]
        assert isinstance(open_.protocol.reason, TlsError)
        assert open_.token == "protocol_error"

    def test_write_that_cannot_be_sealed_ends_it(self, open_: Connection) -> None:
        """What OpenSSL does not send is not silently left out."""
        open_.tls.connection.shutdown()
        open_.tls.write(b"late")
        assert open_.transport.calls == ["abortConnection"]
        open_.clock.advance(0)
        assert open_.events == ["established", "lost"]
        assert open_.token == "protocol_error"

    def test_close_says_so(self, open_: Connection) -> None:
        """The upstream has everything, and knows it."""
        open_.tls.write(b"last")
        open_.tls.loseConnection()
        assert open_.server_reads() == (b"last", True)
        assert open_.transport.calls == ["loseConnection"]
        open_.clock.advance(0)
        assert open_.events == ["established", "lost"]
        assert isinstance(open_.protocol.reason, error.ConnectionDone)

    def test_close_from_inside_is_the_end(self, open_: Connection) -> None:
        """Who closes while data is delivered hears of no end of the upstream."""
        open_.protocol.on["data"] = open_.tls.loseConnection
        open_.transport.deliver(open_.sealed(b"data") + open_.close_notify())
        open_.clock.advance(0)
        assert open_.events == ["established", "data", "lost"]

    def test_refusal_at_once_is_the_end(self, started: Connection) -> None:
        """An owner that aborts when it hears of the connection hears of its loss, later, and nothing else."""
        started.protocol.on["established"] = started.tls.abortConnection
        while not started.transport.is_closed:
            data = started.server_answers()
            if started.is_server_done:
                data += started.sealed(b"greeting")
            started.transport.deliver(data)
        assert started.events == ["established"]
        started.clock.advance(0)
        assert started.events == ["established", "lost"]

    def test_surface_is_that_of_the_socket(self, open_: Connection) -> None:
        """Counters, the look at what is queued, the pause and what is read at once are those of the socket below."""
        open_.transport.bytes_received = 5_000
        assert open_.tls.bytes_received == 5_000
        assert open_.tls.bytes_sent == open_.transport.bytes_sent
        open_.tls.pauseProducing()
        assert not open_.transport.is_reading
        open_.tls.resumeProducing()
        assert open_.transport.is_reading
        open_.tls.read_up_to(500_000)
        assert open_.transport.read_limit == 500_000

    def test_nothing_is_kept_of_it(self, open_: Connection) -> None:
        """A connection that is gone keeps neither what spoke on it nor itself."""
        open_.tls.abortConnection()
        open_.clock.advance(0)
        gone = weakref.ref(open_.protocol), weakref.ref(open_.tls)
        gc.disable()
        try:
            del open_.protocol
            assert gone[0]() is None
            open_.transport.protocol = None
            del open_.tls
            assert gone[1]() is None
        finally:
            gc.enable()


class TestBackpressure:
    def test_stuck_write_pauses_and_goes_on(self, open_: Connection) -> None:
        """Whoever writes is told when the upstream takes no more, and when it does again."""
        open_.transport.stop_taking()
        open_.tls.write(b"x" * 100_000)
        open_.tls.write(b"y")
        assert open_.events == ["established", "pause"]
        assert not open_.tls.is_flushed
        assert not open_.tls.has_progressed()
        open_.transport.take_some(50_000)
        assert open_.tls.has_progressed()
        open_.transport.take()
        assert open_.events == ["established", "pause", "resume"]
        assert open_.tls.is_flushed
        assert open_.server_reads() == (b"x" * 100_000 + b"y", False)

    def test_handshake_that_is_stuck_pauses_nobody(self) -> None:
        """Before the connection is there, nobody writes."""
        connection = Connection()
        connection.transport.stop_taking()
        connection.tls.start()
        connection.transport.take()
        assert connection.events == []

    def test_stuck_at_the_start_pauses_at_once(self, started: Connection) -> None:
        """The socket tells once that it is stuck; if that was in the handshake, it still holds for whoever writes."""
        while not started.events:
            data = started.server_answers()
            started.transport.stop_taking()
            started.transport.deliver(data)
            if not started.events:
                started.transport.take()
        # In TLS 1.2 our last message is one before the last of the upstream, and has been taken by then.
        is_stuck = not started.transport.is_flushed
        assert started.events == (["established", "pause"] if is_stuck else ["established"])
        assert is_stuck is (started.tls.connection.get_protocol_version() == TLS13)
        if is_stuck:
            started.transport.take()
            assert started.events == ["established", "pause", "resume"]

    def test_end_is_told_behind_what_is_stuck(self, open_: Connection) -> None:
        """Our end waits in the queue behind the data."""
        open_.transport.stop_taking()
        open_.tls.write(b"x" * 100_000)
        open_.tls.loseConnection()
        assert not open_.transport.is_closed
        open_.transport.take()
        assert open_.transport.is_closed
        assert open_.server_reads() == (b"x" * 100_000, True)


class TestEveryState:
    STATES = ("new", "handshake", "failed", "open", "we done", "peer done", "both done", "closed", "lost")
    INPUTS: tuple[tuple[str, Callable[[Connection], object]], ...] = (
        ("data", lambda c: c.tls.receiver.dataReceived(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)),
        ("end", lambda c: c.tls.receiver.eofReceived()),
        ("stuck", lambda c: c.tls.receiver.pauseProducing()),
        ("free", lambda c: c.tls.receiver.resumeProducing()),
        ("write", lambda c: c.tls.write(b"data")),
        ("half-close", lambda c: c.tls.shut_down_writing()),
        ("close", lambda c: c.tls.loseConnection()),
        ("pause", lambda c: c.tls.pauseProducing()),
        ("resume", lambda c: c.tls.resumeProducing()),
        ("abort", lambda c: c.tls.abortConnection()),
    )

    @staticmethod
    def reach(state: str) -> Connection:
        connection = Connection()
        if state == "new":
            return connection
        if state in ("handshake", "failed"):
            connection.tls.start()
            if state == "failed":
                connection.transport.deliver(b"HTTP")
            return connection
        connection.shake_hands()
        if state in ("we done", "both done"):
            connection.tls.shut_down_writing()
        if state in ("peer done", "both done"):
            connection.transport.deliver(connection.close_notify())
        if state in ("closed", "lost"):
            connection.tls.loseConnection()
        if state == "lost":
            connection.clock.advance(0)
        return connection

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize(("name", "input_"), INPUTS, ids=[name for name, _ in INPUTS])
    def test_abort_ends_it_whatever_came_before(
        self, state: str, name: str, input_: Callable[[Connection], object]
    ) -> None:
        """After any input in any state an abort closes the socket; who heard of the connection hears of its loss."""
        connection = self.reach(state)
        if state != "new" or name not in ("data", "end"):
            input_(connection)
        connection.tls.abortConnection()
        assert connection.transport.is_closed
        connection.clock.advance(0)
        assert (connection.events[0:1] == ["established"]) is (connection.events[-1:] == ["lost"])
        assert connection.events.count("lost") <= 1
        sent = connection.transport.sent
        for _, late in self.INPUTS:
            late(connection)
        assert connection.transport.sent == sent

    @pytest.mark.parametrize("end", ["abortConnection", "loseConnection"])
    @pytest.mark.parametrize("state", ["new", "handshake"])
    def test_giving_up_before_it_is_there_is_told_to_nobody(self, state: str, end: str) -> None:
        """Who gives up knows that: neither a failure nor a loss is reported."""
        connection = self.reach(state)
        getattr(connection.tls, end)()
        assert connection.transport.calls == ["abortConnection"]
        connection.clock.advance(0)
        assert connection.events == []


class ForgingServer(ForgingClient):
    """The same at the other end: an upstream that asks for answers which OpenSSL gives by itself."""

    def __init__(self, version: int) -> None:
        context = server_context(version=version)
        if version == TLS12:
            context.set_cipher_list(b"ECDHE+AESGCM")
        context.set_keylog_callback(self._note_secret)
        self.connection = SSL.Connection(context, None)
        self.connection.set_accept_state()
        self._version = version
        self._secret = b""
        self._aead = None
        self._salt = b""
        self._count = 0

    def forge_question(self) -> bytes:
        """Return a KeyUpdate, or (in TLS 1.2) a HelloRequest."""
        return self.forge(b"\x00\x00\x00\x00", HANDSHAKE) if self._version == TLS12 else super().forge_question()

    def _note_secret(self, connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split(b" ")
        if label == b"SERVER_TRAFFIC_SECRET_0":
            self._secret = bytes.fromhex(secret.decode())

    def _take_keys(self) -> None:
        if self._version == TLS13:
            super()._take_keys()
            self._count = 2  # tickets were the first
            return
        seed = b"key expansion" + (self.connection.server_random() or b"") + (self.connection.client_random() or b"")
        size = self._key_size()
        block = self._prf(self.connection.master_key() or b"", seed, 2 * size + 8)
        self._aead = AESGCM(block[size : 2 * size])
        self._salt = block[2 * size + 4 :][:4]
        self._count = 1  # Finished was the first


class TestFloods:
    @pytest.fixture
    def forged(self, version: int) -> tuple[Connection, ForgingServer]:
        server = ForgingServer(version)
        connection = Connection(theirs=server.connection).shake_hands()
        connection.transport.deliver(server.forge(b"hello"))
        assert connection.protocol.received == b"hello"
        return connection, server

    @pytest.mark.parametrize("with_data", [False, True], ids=["alone", "with data"])
    def test_questions_without_end_end_it(
        self, forged: tuple[Connection, ForgingServer], with_data: bool, version: int
    ) -> None:
        """An upstream that updates keys or wants to renegotiate for ever makes us hold a bounded number of answers."""
        connection, server = forged
        for _ in range(2_000):
            connection.transport.deliver(server.forge_question() + (server.forge(b"x") if with_data else b""))
            if connection.transport.is_closed:
                break
        assert connection.token == "control_flood"
        assert len(connection.transport.sent) < 2 * 4_096

    def test_answers_go_out_with_data(self, forged: tuple[Connection, ForgingServer], version: int) -> None:
        """A few are answered in order, and cost nobody the connection."""
        connection, server = forged
        for number in range(5):
            connection.transport.deliver(server.forge_question() + server.forge(b"%d" % number))
            connection.tls.write(b"=%d" % number)
        assert connection.protocol.received == b"hello01234"
        assert connection.tls.last_error is None
