"""`admin.server`: the pages over HTTP, on a fake transport."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from sidecar.admin.operator import Readiness
from sidecar.admin.pages import ADMIN, HEALTH, Surface
from sidecar.admin.server import IDLE_SECONDS, MAX_CONNECTIONS, AdminConnection, AdminListener
from tests.admin.fakes import FakeOperator
from tests.support.ports import FakeReactor, RecordingTransport


class Client:
    """One connection to the admin endpoint."""

    def __init__(self, operator: FakeOperator | None = None, surface: Surface = ADMIN) -> None:
        self.operator = operator or FakeOperator()
        self.reactor = FakeReactor()
        self.open: set[AdminConnection] = set()
        self.connection = AdminConnection(self.operator, surface, self.open, self.reactor)
        self.transport = RecordingTransport(self.reactor, self.connection)
        self.connection.transport = self.transport

    def asks(self, request: bytes) -> bytes:
        self.transport.deliver(request)
        return self.answer()

    def answer(self) -> bytes:
        data, self.transport.sent = self.transport.sent, b""
        return data


@pytest.fixture
def client() -> Client:
    return Client()


def get(path: bytes, method: bytes = b"GET", extra: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: localhost:8081\r\n%b\r\n" % (method, path, extra)


class TestAnswers:
    def test_page_is_a_whole_response(self, client: Client) -> None:
        """Status, type, length, and nothing is stored."""
        head, _, body = client.asks(get(b"/live")).partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/plain; charset=utf-8",
            b"Content-Length: 5",
            b"Cache-Control: no-store",
            b"X-Content-Type-Options: nosniff",
        ]
        assert body == b"live\n"

    def test_connection_is_kept(self, client: Client) -> None:
        """A scraper asks again on the same connection."""
        for _ in range(3):
            assert client.asks(get(b"/ready")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.transport.is_open

    def test_connection_is_closed_on_request(self, client: Client) -> None:
        """Who asks for one answer gets one."""
        assert b"\r\nConnection: close\r\n" in client.asks(get(b"/live", extra=b"Connection: close\r\n"))
        assert client.transport.calls == ["loseConnection"]

    def test_http10_is_closed(self, client: Client) -> None:
        """A probe that speaks HTTP/1.0 waits for the end."""
        assert client.asks(b"GET /live HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").endswith(b"live\n")
        assert client.transport.calls == ["loseConnection"]

    def test_head_has_no_body(self, client: Client) -> None:
        """The fields are those of GET."""
        data = client.asks(get(b"/live", b"HEAD"))
        assert b"Content-Length: 5\r\n" in data
        assert data.endswith(b"\r\n\r\n")

    def test_post_is_405_after_its_body(self, client: Client) -> None:
        """A body is read and dropped, however it is framed; the answer says what is allowed."""
        assert client.asks(get(b"/ready", b"POST", b"Content-Length: 3\r\n")) == b""
        data = client.asks(b"abc")
        assert data.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
        assert b"\r\nAllow: GET, HEAD\r\n" in data
        assert client.asks(get(b"/live")).endswith(b"live\n")

    def test_unknown_path_is_404(self, client: Client) -> None:
        """The answer lists what there is."""
        assert client.asks(get(b"/nope")).startswith(b"HTTP/1.1 404 Not Found\r\n")

    def test_query_is_ignored(self, client: Client) -> None:
        """Probes that add one are served."""
        assert client.asks(get(b"/live?x=1")).endswith(b"live\n")

    def test_absolute_form_is_understood(self, client: Client) -> None:
        """A server accepts it (RFC 9112 section 3.2.2)."""
        assert client.asks(get(b"http://localhost:8081/live")).endswith(b"live\n")

    def test_options_of_the_server_is_405(self, client: Client) -> None:
        """OPTIONS is not among what is allowed, whatever its target."""
        for target in (b"*", b"http://localhost:8081", b"/live"):
            assert client.asks(get(target, b"OPTIONS")).startswith(b"HTTP/1.1 40")

    def test_request_may_come_in_pieces(self, client: Client) -> None:
        """However slowly, within the deadline."""
        for byte in get(b"/live")[:-1]:
            assert client.asks(bytes([byte])) == b""
        assert client.asks(b"\n").endswith(b"live\n")

    def test_json_is_readable(self, client: Client) -> None:
        """What says JSON is JSON."""
        head, _, body = client.asks(get(b"/certs")).partition(b"\r\n\r\n")
        assert b"Content-Type: application/json" in head
        assert json.loads(body)["certificates"][0]["source"] == "/etc/tls/tls.crt"

    def test_page_that_fails_is_500(self) -> None:
        """A bug in one page costs one answer, and is in the log."""

        class Broken(FakeOperator):
            def readiness(self) -> Readiness:
                raise RuntimeError("a bug")

        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            client = Client(Broken())
            assert client.asks(get(b"/ready")).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert any("log_failure" in event for event in events)
        assert client.transport.is_open


class TestGuard:
    def test_page_under_a_name_of_its_own_gets_nothing(self, client: Client) -> None:
        """A name that was pointed at this machine is told why, and the program is not even asked."""
        data = client.asks(b"GET /config HTTP/1.1\r\nHost: evil.example:8081\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"'evil.example:8081'" in data
        assert client.operator.asked == []
        assert client.asks(get(b"/live")).endswith(b"live\n")

    @pytest.mark.parametrize("field", [b"Origin: https://evil.example\r\n", b"Sec-Fetch-Site: cross-site\r\n"])
    def test_form_of_a_page_changes_nothing(self, client: Client, field: bytes) -> None:
        """A browser sends it from anywhere; the fields that it adds give it away."""
        data = client.asks(get(b"/drain", b"POST", b"Content-Length: 3\r\n" + field) + b"a=b")
        assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert client.operator.asked == []

    def test_unknown_path_is_guarded_too(self, client: Client) -> None:
        """A name of a page's own cannot even find out what there is."""
        data = client.asks(b"GET /nope HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"/stats" not in data

    def test_post_of_a_program_works(self, client: Client) -> None:
        """`curl -X POST`, with its query."""
        data = client.asks(get(b"/logging?level=debug", b"POST"))
        assert data.endswith(b"logging from debug upwards\n")
        assert client.operator.asked == ["set_log_level debug"]

    @pytest.mark.parametrize("host", [b"sidecar.default.svc:8082", b"10.0.0.7:8082"])
    def test_probe_may_use_any_name(self, host: bytes) -> None:
        """A health listener is there for other machines, and has nothing to hide."""
        client = Client(surface=HEALTH)
        assert client.asks(b"GET /ready HTTP/1.1\r\nHost: %b\r\n\r\n" % host).startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.asks(b"GET /config HTTP/1.1\r\nHost: %b\r\n\r\n" % host).startswith(b"HTTP/1.1 404 ")
        assert client.operator.asked == ["readiness"]

    def test_probe_without_a_host_is_answered(self) -> None:
        """Simple balancers speak HTTP/1.0."""
        assert Client(surface=HEALTH).asks(b"GET /live HTTP/1.0\r\n\r\n").endswith(b"live\n")


class TestLimits:
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (get(b"/live", extra=b"X: %b\r\n" % (b"a" * 17_000)), 431),
            (get(b"/live", extra=b"X: a\r\n" * 101), 431),
            (get(b"/drain", b"POST", b"Content-Length: 65537\r\n"), 413),
            (b"\x16\x03\x01\x02\x00\x01", 400),
        ],
        ids=["nonsense", "no host", "large head", "many fields", "large body", "TLS"],
    )
    def test_malformed_request_is_answered_and_closes(self, client: Client, request_bytes: bytes, status: int) -> None:
        """Whoever breaks a rule is told, once."""
        data = client.asks(request_bytes)
        assert data.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close\r\n" in data
        assert client.transport.calls == ["loseConnection"]
        assert client.asks(get(b"/live")) == b""

    def test_pipelined_requests_get_one_answer(self, client: Client) -> None:
        """A thousand requests in one packet must not hold up those who are served: the first is the last."""
        data = client.asks(get(b"/stats/prometheus") * 1000)
        assert data.count(b"HTTP/1.1 200 OK") == 1
        assert b"\r\nConnection: close\r\n" in data
        assert client.transport.calls == ["loseConnection"]

    def test_client_that_does_not_read_is_not_read_from(self, client: Client) -> None:
        """What is held for it is one answer; then it is cut at its deadline."""
        client.transport.stop_taking()
        client.asks(get(b"/live"))
        assert not client.transport.is_reading
        client.reactor.advance(IDLE_SECONDS + 0.1)
        client.reactor.turn()
        assert client.transport.calls == ["abortConnection"]
        assert not client.open

    def test_client_that_reads_again_is_read_from(self, client: Client) -> None:
        """A slow client is served on."""
        client.transport.stop_taking()
        client.asks(get(b"/live"))
        client.transport.take()
        assert client.answer().endswith(b"live\n")
        assert client.asks(get(b"/live")).endswith(b"live\n")

    def test_silent_client_is_cut(self, client: Client) -> None:
        """From accept to the first whole request there is one deadline, however it trickles."""
        client.reactor.advance(IDLE_SECONDS - 1)
        client.asks(b"GET ")
        client.reactor.advance(1.1)
        client.reactor.turn()
        assert client.transport.calls == ["abortConnection"]
        assert not client.reactor.pending

    def test_answer_moves_the_deadline(self, client: Client) -> None:
        """A scraper that comes regularly keeps its connection."""
        for _ in range(4):
            client.reactor.advance(IDLE_SECONDS - 1)
            client.asks(get(b"/live"))
        assert client.transport.is_open

    def test_end_of_the_client_closes(self, client: Client) -> None:
        """Nothing is left of a client that has gone."""
        client.transport.deliver_eof()
        client.reactor.turn()
        assert not client.open
        assert not client.reactor.pending


class TestListener:
    @pytest.fixture
    def reactor(self) -> FakeReactor:
        return FakeReactor()

    @pytest.fixture
    def accepted(self) -> list[RecordingTransport]:
        return []

    @pytest.fixture
    def listener(self, reactor: FakeReactor, accepted: list[RecordingTransport]) -> Iterator[AdminListener]:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.clients: list[socket.socket] = []

        def make_transport(accepted_socket: socket.socket, connection: AdminConnection) -> RecordingTransport:
            assert not accepted_socket.getblocking()
            self.clients.append(accepted_socket)
            accepted.append(RecordingTransport(reactor, connection))
            return accepted[-1]

        listener = AdminListener(sock, FakeOperator(), make_transport, reactor, ADMIN)
        listener.start()
        self.address = sock.getsockname()
        yield listener
        listener.stop()
        reactor.turn()
        for client in self.clients:
            client.close()

    def come(self) -> None:
        self.clients.append(socket.create_connection(self.address))

    def test_client_is_served(
        self, listener: AdminListener, reactor: FakeReactor, accepted: list[RecordingTransport]
    ) -> None:
        """A newcomer gets a connection of its own."""
        self.come()
        listener.doRead()
        accepted[0].deliver(get(b"/live"))
        assert accepted[0].sent.endswith(b"live\n")

    def test_number_is_bounded(
        self, listener: AdminListener, accepted: list[RecordingTransport], reactor: FakeReactor
    ) -> None:
        """Each newcomer above the limit costs one connection; whoever leaves makes room."""
        for _ in range(MAX_CONNECTIONS + 2):
            self.come()
            listener.doRead()
            reactor.turn()
        assert [transport.is_closed for transport in accepted].count(False) == MAX_CONNECTIONS
        accepted[-1].reset()
        self.come()
        listener.doRead()
        reactor.turn()
        assert [transport.is_closed for transport in accepted].count(False) == MAX_CONNECTIONS

    def test_newcomer_takes_the_place_of_who_was_silent_longest(
        self, listener: AdminListener, accepted: list[RecordingTransport], reactor: FakeReactor
    ) -> None:
        """Whoever holds connections open for nothing does not keep a probe out, and one that asks keeps its place."""
        for _ in range(MAX_CONNECTIONS):
            self.come()
            listener.doRead()
            reactor.advance(0.1)
        accepted[0].deliver(get(b"/live"))
        for expected in (1, 2, 3):
            self.come()
            listener.doRead()
            reactor.turn()
            assert [index for index, transport in enumerate(accepted) if transport.is_closed] == [
                *range(1, expected + 1)
            ]
            accepted[-1].deliver(get(b"/live"))
            assert accepted[-1].sent.endswith(b"live\n")
        assert accepted[1].calls == ["abortConnection"]

    def test_spurious_event_is_nothing(self, listener: AdminListener, accepted: list[RecordingTransport]) -> None:
        """A client may be gone before it is accepted."""
        listener.doRead()
        assert accepted == []

    def test_want_of_descriptors_backs_off(
        self, listener: AdminListener, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without descriptors the poller is not asked again at once: that would be a busy loop."""

        class Empty:
            def accept(self) -> None:
                raise OSError(errno.EMFILE, "none left")

        real = listener._socket
        monkeypatch.setattr(listener, "_socket", Empty())
        listener.doRead()
        monkeypatch.setattr(listener, "_socket", real)
        assert listener not in reactor.readers
        reactor.advance(0.2)
        assert listener in reactor.readers

    def test_stop_ends_all_and_stays(
        self,
        listener: AdminListener,
        reactor: FakeReactor,
        accepted: list[RecordingTransport],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """After a stop nothing is open and nothing starts again; what was answered still reaches its client."""
        self.come()
        listener.doRead()
        listener.stop()
        reactor.advance(60.0)
        assert accepted[0].calls == ["loseConnection"]
        assert listener not in reactor.readers
        assert not reactor.pending
