"""`proxy.listener`: accepting, bounding, letting go; a listening socket on loopback, and no reactor but the test."""

from __future__ import annotations

import errno
import gc
import select
import socket
import time
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from sidecar.errors import ListenError
from sidecar.policy.access import access_of
from sidecar.proxy import listener as module
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.downstream import DRAIN_IDLE_SECONDS, DownstreamConnection
from sidecar.proxy.listener import Listener, Peer, listen
from sidecar.proxy.sockets import MIN_PROGRESS_BYTES, READ_SIZE, SocketTransport
from sidecar.settings import (
    ClientCertMode,
    ClientSettings,
    HostPort,
    IdentityDialect,
    Limits,
    Seconds,
    Timeouts,
    TlsPolicy,
)
from sidecar.tls.context import build_context
from sidecar.tls.server import TlsServer
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import Verification
from tests.support.certs import CLIENT, Issued, authority, intermediate, other_authority
from tests.support.handshake import client_context, outgoing
from tests.support.ports import FakePool, FakeReactor, RecordingTransport
from tests.support.pump import RecordedLog, make_service

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Door:
    """A listener, and clients that come to it."""

    def __init__(self, limit: int, mode: ClientCertMode, dialects: tuple[IdentityDialect, ...] = ()) -> None:
        self.reactor = FakeReactor()
        self.log = RecordedLog()
        self.pool = FakePool(self.reactor)
        self.service = make_service(
            self.reactor,
            self.pool,
            limits=Limits(connections=limit),
            timeouts=Timeouts(handshake=Seconds(3.0)),
            access_log=self.log,
        )
        self.deadlines = Deadlines(self.reactor)
        trust = ClientTrust(mode, (authority().certificate,))
        access = access_of(ClientSettings(cert=mode, identity_headers=dialects), "test")
        context = build_context([authority().issue("localhost").bundle], trust, TlsPolicy.INTERMEDIATE)
        sock = listen(HostPort("127.0.0.1", 0))
        self.listener = Listener(sock, context, self.service, self.deadlines, access, trust, self.reactor)
        self.listener.start()
        self.clients: list[socket.socket] = []

    @property
    def is_accepting(self) -> bool:
        return self.listener in self.reactor.readers

    def client_comes(self) -> socket.socket:
        address = self.listener.address
        client = socket.create_connection((address.host, address.port))
        client.setblocking(False)
        self.clients.append(client)
        return client

    def turn(self) -> None:
        """Report input to everyone who wants it, as a poller does."""
        for reader in list(self.reactor.readers):
            if reader in self.reactor.readers:
                why = reader.doRead()
                if why is not None:
                    from tests.support.ports import make_failure

                    self.reactor.removeReader(reader)
                    self.reactor.removeWriter(reader)
                    reader.connectionLost(make_failure(why))
        self.reactor.turn()

    def close(self) -> None:
        self.listener.stop()
        self.listener.end_all()
        self.reactor.turn()
        self.deadlines.stop()
        for client in self.clients:
            client.close()


@pytest.fixture
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    door = Door(*getattr(request, "param", (10, ClientCertMode.NONE)))
    yield door
    door.close()


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def received(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65_536):
            data += piece
    except BlockingIOError:
        pass
    return data


def shake_hands(
    door: Door, identity: Issued | None = None, sock: socket.socket | None = None
) -> tuple[socket.socket, SSL.Connection]:
    sock = sock or door.client_comes()
    client = SSL.Connection(client_context(identity=identity), None)
    client.set_connect_state()
    door.turn()
    for _ in range(4):
        try:
            client.do_handshake()
        except SSL.WantReadError:
            pass
        sock.sendall(outgoing(client))
        door.turn()
        data = received(sock)
        if data:
            client.bio_write(data)
    return sock, client


class TestListen:
    def test_socket_listens_without_blocking(self) -> None:
        """Port 0 lets the kernel choose."""
        with listen(HostPort("127.0.0.1", 0)) as sock:
            assert not sock.getblocking()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    def test_accepted_sockets_inherit_their_options(self) -> None:
        """A client that vanished without a word is found out by its kernel's silence, and nothing waits for more."""
        with listen(HostPort("127.0.0.1", 0)) as sock, socket.create_connection(sock.getsockname()):
            select.select([sock], [], [], 2.0)
            with sock.accept()[0] as accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def test_taken_port_is_told_with_its_remedy(self) -> None:
        """The operator learns which address, why, and how to find out who."""
        with listen(HostPort("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            with pytest.raises(ListenError) as caught:
                listen(HostPort("127.0.0.1", port))
        assert caught.value.fact == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert "ss -ltnp" in caught.value.fix

    @pytest.mark.parametrize(
        ("number", "part"),
        [
            (errno.EACCES, "net.ipv4.ip_unprivileged_port_start=443"),
            (errno.EPERM, "CAP_NET_BIND_SERVICE"),
            (errno.EADDRNOTAVAIL, "choose an address of this machine"),
            (errno.EINVAL, "give an IP address of this machine"),
        ],
        ids=["EACCES", "EPERM", "EADDRNOTAVAIL", "other"],
    )
    def test_each_refusal_has_its_remedy(self, monkeypatch: pytest.MonkeyPatch, number: int, part: str) -> None:
        """What to do depends on why."""

        class Refusing(socket.socket):
            def bind(self, address: Any) -> None:
                raise OSError(number, "refused")

        monkeypatch.setattr(module.socket, "socket", Refusing)
        with pytest.raises(ListenError) as caught:
            listen(HostPort("192.0.2.1", 443))
        assert part in caught.value.fix

    def test_missing_address_family_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine without IPv6 is no traceback."""

        def refuse(*args: Any) -> socket.socket:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

        monkeypatch.setattr(module.socket, "socket", refuse)
        with pytest.raises(ListenError, match="Address family not supported"):
            listen(HostPort("::", 443))

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70 + ".example"], ids=["unknown", "impossible"])
    def test_name_that_does_not_resolve_is_told(self, host: str) -> None:
        """A name is looked up once; what fails names the address."""
        with pytest.raises(ListenError, match=host):
            listen(HostPort(host, 443))


class TestAccept:
    def test_connections_are_counted(self, door: Door) -> None:
        """Each newcomer is one, until it has gone."""
        client = door.client_comes()
        door.turn()
        metrics = door.service.metrics
        assert (door.listener.open_connections, metrics.connections, metrics.connections_active) == (1, 1, 1)
        client.close()
        door.turn()
        assert (door.listener.open_connections, metrics.connections, metrics.connections_active) == (0, 1, 0)
        assert metrics.handshake_failures == {"closed_by_peer": 1}

    @pytest.mark.parametrize("door", [(2, ClientCertMode.NONE)], indirect=True)
    def test_limit_stops_accepting_until_one_goes(self, door: Door, log: list[LogEvent]) -> None:
        """At the limit newcomers wait in the kernel's backlog."""
        clients = [door.client_comes() for _ in range(4)]
        door.turn()
        assert door.listener.open_connections == 2
        assert not door.is_accepting
        clients[0].close()
        door.turn()
        assert door.is_accepting
        door.turn()
        assert door.listener.open_connections == 2
        assert not door.is_accepting

    @pytest.mark.parametrize("door", [(1, ClientCertMode.NONE)], indirect=True)
    def test_limit_is_not_logged_for_each_newcomer(self, door: Door, log: list[LogEvent]) -> None:
        """A flood must not fill the log as well."""
        for _ in range(20):
            client = door.client_comes()
            door.turn()
            client.close()
            door.turn()
            door.turn()
        assert len([event for event in log if "newcomers wait" in event["log_format"]]) == 1
        door.reactor.advance(60.0)
        door.client_comes()
        door.turn()
        assert len([event for event in log if "newcomers wait" in event["log_format"]]) == 2

    @pytest.mark.parametrize(
        "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get
    )
    def test_want_of_resources_backs_off(self, door: Door, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Without descriptors the poller is not asked again at once: that would be a busy loop."""
        door.client_comes()

        class Empty:
            def accept(self) -> None:
                raise OSError(number, "none left")

        real = door.listener._socket
        monkeypatch.setattr(door.listener, "_socket", Empty())
        door.listener.doRead()
        monkeypatch.setattr(door.listener, "_socket", real)
        assert not door.is_accepting
        door.reactor.advance(0.09)
        assert not door.is_accepting
        door.reactor.advance(0.02)
        assert door.is_accepting
        door.turn()
        assert door.listener.open_connections == 1

    def test_newcomer_that_cannot_be_polled_is_closed(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        """A poller without room (ENOSPC) costs that client its connection; those behind it wait, and are served."""
        first, _ = door.client_comes(), door.client_comes()
        add = door.reactor.addReader

        def no_room(reader: Any) -> None:
            if isinstance(reader, SocketTransport):
                raise OSError(errno.ENOSPC, "No space left on device")
            add(reader)

        monkeypatch.setattr(door.reactor, "addReader", no_room)
        door.listener.doRead()
        assert not door.is_accepting
        assert door.listener.open_connections == 0
        assert door.service.metrics.connections == 0
        assert first.recv(1) == b""
        monkeypatch.undo()
        door.reactor.advance(0.11)
        assert door.is_accepting
        door.turn()
        assert door.listener.open_connections == 1

    def test_client_that_is_gone_again_costs_nobody(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        """ECONNABORTED is one client's; those behind it are accepted in the same turn."""
        real = door.listener._socket
        door.client_comes()

        class FirstIsGone:
            calls = 0

            def accept(self) -> Any:
                self.calls += 1
                if self.calls == 1:
                    raise OSError(errno.ECONNABORTED, "gone")
                return real.accept()

        monkeypatch.setattr(door.listener, "_socket", FirstIsGone())
        door.listener.doRead()
        monkeypatch.setattr(door.listener, "_socket", real)
        assert door.listener.open_connections == 1
        assert door.is_accepting

    def test_handshake_deadline_runs_from_accept(self, door: Door) -> None:
        """A client that says nothing is closed in time, and cut a second later if it stays."""
        client = door.client_comes()
        door.turn()
        door.reactor.advance(3.1)
        assert door.service.metrics.handshake_failures == {"handshake_timeout": 1}
        assert received(client) == b""
        door.reactor.advance(1.1)
        door.reactor.turn()
        assert door.listener.open_connections == 0

    def test_failed_handshake_is_remembered(self, door: Door) -> None:
        """Operators see who failed and why."""
        client = door.client_comes()
        door.turn()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        door.turn()
        (event,) = door.service.rejecter.rejections.as_json()
        assert (event["client"], event["reason"], event["answer"]) == ("127.0.0.1", "plain_http", "400")

    def test_connections_that_just_leave_are_not_logged(self, door: Door, log: list[LogEvent]) -> None:
        """Load balancers connect and leave all day long."""
        client = door.client_comes()
        door.turn()
        client.close()
        door.turn()
        assert door.service.metrics.handshake_failures == {"closed_by_peer": 1}
        assert not [event for event in log if event["log_level"] is LogLevel.warn]
        assert door.service.rejecter.rejections.as_json() == []

    def test_plain_http_gets_a_readable_answer(self, door: Door) -> None:
        """The answer names the mistake, and is counted."""
        client = door.client_comes()
        client.sendall(GET)
        door.turn()
        door.turn()
        data = received(client)
        assert data.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"This port speaks HTTPS" in data
        assert door.service.metrics.reasons == {"plain_http": 1}
        assert door.service.metrics.handshake_failures == {"plain_http": 1}

    @pytest.mark.parametrize(
        ("data", "answered"),
        [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", True),
            (b"\x05\x01\x00", False),
            (b"GETTING", False),
            (b"\x00", False),
        ],
        ids=["HTTP/2", "OPTIONS", "SOCKS", "no method", "zero"],
    )
    def test_only_http_is_answered(self, door: Door, data: bytes, answered: bool) -> None:
        """Other protocols would not understand it."""
        assert bool(door.listener.plaintext_reply(data)) is answered

    def test_mapped_address_is_shown_as_ipv4(self, door: Door) -> None:
        """A dual-stack socket must not hide who the client is."""
        ours, theirs = socket.socketpair()
        door.clients.append(theirs)
        door.listener._accepted(ours, ("::ffff:192.0.2.9", 1234, 0, 0))
        (peer,) = door.listener._peers.values()
        assert peer.host == "192.0.2.9"

    @pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 1, 1]], ids=str)
    @pytest.mark.parametrize("method", [b"GET", b"PUT", b"POST", b"DELETE"], ids=bytes.decode)
    def test_plain_http_in_tiny_pieces_gets_it_too(self, door: Door, method: bytes, sizes: list[int]) -> None:
        """A client that sends its method letter by letter gets the same answer, once."""
        client = door.client_comes()
        request = GET.replace(b"GET", method)
        for size in sizes:
            client.sendall(request[:size])
            request = request[size:]
            door.turn()
            door.turn()
            assert received(client) == b""
        client.sendall(request)
        door.turn()
        door.turn()
        assert received(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert door.service.metrics.reasons == {"plain_http": 1}

    def test_letters_then_rubbish_get_no_http(self, door: Door) -> None:
        """Three letters that go on as something else are a failed handshake like others."""
        client = door.client_comes()
        client.sendall(b"GET")
        door.turn()
        door.turn()
        client.sendall(b"\x00\x01\x02")
        door.turn()
        assert b"HTTP" not in received(client)
        assert "plain_http" not in door.service.metrics.handshake_failures
        assert sum(door.service.metrics.handshake_failures.values()) == 1


class DeadlineCounter:
    """Stands for the TLS connection of a peer; counts the deadlines that reach it."""

    def __init__(self) -> None:
        self.count = 0

    def deadline_passed(self) -> None:
        self.count += 1


class TestPeer:
    PATIENCE = 3.0

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def tls(self) -> DeadlineCounter:
        return DeadlineCounter()

    @pytest.fixture
    def transport(self, clock: Clock) -> RecordingTransport:
        return RecordingTransport(clock)

    @pytest.fixture
    def peer(self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport) -> Iterator[Peer]:
        deadlines = Deadlines(clock)
        peer = Peer(
            HostPort("192.0.2.7", 1), HostPort("192.0.2.1", 443), cast(TlsServer, tls), deadlines, self.PATIENCE
        )
        peer.transport = cast(SocketTransport, transport)
        yield peer
        deadlines.stop()

    def still_moves(self, peer: Peer, pending: int) -> bool:
        """Whether the two kernels are still passing on what was read."""
        time.sleep(0.1)
        return peer.transport._pending_bytes() != pending

    def fill(self, transport: RecordingTransport) -> None:
        transport.stop_taking()
        transport.write(b"x" * 25 * MIN_PROGRESS_BYTES)

    def test_slow_steady_reader_is_left_alone(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """Whoever takes something before each deadline gets another, of the patience given, without end."""
        self.fill(transport)
        peer.deadline.set(self.PATIENCE)
        for _ in range(20):
            transport.take_some(MIN_PROGRESS_BYTES)
            clock.advance(self.PATIENCE)
            assert tls.count == 0
            assert peer.deadline.at <= clock.seconds() + self.PATIENCE
        clock.advance(2 * self.PATIENCE)
        assert tls.count == 1

    def test_reader_that_stops_is_cut_at_the_next_deadline(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """Having read once earns one more wait, not all of them."""
        self.fill(transport)
        peer.deadline.set(1.0)
        transport.take_some(MIN_PROGRESS_BYTES)
        clock.advance(1.2)
        assert tls.count == 0
        clock.advance(self.PATIENCE - 0.4)
        assert tls.count == 0
        clock.advance(0.8)
        assert tls.count == 1

    def test_reader_of_a_few_bytes_is_cut(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """Whoever takes next to nothing, only to be seen, is no steady reader."""
        self.fill(transport)
        peer.deadline.set(1.0)
        transport.take_some(MIN_PROGRESS_BYTES - 1)
        clock.advance(1.2)
        assert tls.count == 1

    def test_failing_deadline_ends_the_connection(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer, log: list[LogEvent]
    ) -> None:
        """A bug in what a deadline sets off costs the connection, which nothing would end otherwise."""

        def fail() -> None:
            raise KeyError("a bug")

        tls.deadline_passed = fail  # type: ignore[method-assign]
        peer.deadline.set(1.0)
        clock.advance(1.2)
        assert transport.calls == ["abortConnection"]
        assert any("log_failure" in event for event in log)

    def test_dead_reader_is_cut_at_once(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """Whoever has taken nothing since writing got stuck gets no second wait."""
        self.fill(transport)
        peer.deadline.set(1.0)
        clock.advance(1.2)
        assert tls.count == 1

    def test_more_that_is_written_is_not_what_is_taken(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """What is queued meanwhile neither saves a dead reader nor condemns a steady one."""
        self.fill(transport)
        transport.write(b"y" * 5000)
        peer.deadline.set(1.0)
        transport.take_some(MIN_PROGRESS_BYTES)
        clock.advance(1.2)
        assert tls.count == 0
        transport.write(b"z" * 5000)
        clock.advance(self.PATIENCE + 0.2)
        assert tls.count == 1

    def test_client_that_owes_us_bytes_is_not_saved(
        self, clock: Clock, tls: DeadlineCounter, transport: RecordingTransport, peer: Peer
    ) -> None:
        """With nothing queued for it, a deadline is about what the client does not send, whatever it acknowledges."""
        transport.in_kernel = 1000
        transport.has_progressed()
        transport.in_kernel = 0
        peer.deadline.set(1.0)
        clock.advance(1.2)
        assert tls.count == 1

    def test_download_to_a_slow_client_is_not_cut(self, door: Door) -> None:
        """From the app to a real socket: while the client reads on, nothing is cut; once it stops, it is."""
        sock, client = shake_hands(door)
        # Of a large buffer, a client's system tells of room only once a sixteenth is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        app = door.pool.accept()
        size = 16_000_000
        app.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while app.is_reading and left:
            piece = min(left, 1_000_000)
            app.deliver(b"x" * piece)
            left -= piece
        assert not app.is_reading
        ((_, peer),) = door.listener._peers.items()
        patience = door.service.timeouts.body
        for _ in range(4):
            door.reactor.advance(patience - 1.0)
            before = peer.transport._pending_bytes()
            taken = 0
            while taken < 200_000:
                assert select.select([sock], [], [], 2.0)[0]
                taken += len(sock.recv(200_000 - taken))
            until = time.monotonic() + 10.0
            while (pending := peer.transport._pending_bytes()) == before or self.still_moves(peer, pending):
                assert time.monotonic() < until, "what the client has read is acknowledged"
            door.reactor.advance(1.0)
            door.reactor.turn()
            assert door.listener.open_connections == 1
            assert not door.log.ended
        door.reactor.advance(patience + 1.0)
        door.reactor.turn()
        assert door.listener.open_connections == 0
        assert [ended.reason for ended in door.log.ended] == ["downstream_stalled"]


class TestReadSize:
    def test_client_is_never_read_more_than_64_kib_at_once(self, door: Door) -> None:
        """What a client sends may cost much to parse, so one turn takes a bounded part of it, however it flows."""
        door.client_comes()
        door.turn()
        (peer,) = door.listener._peers.values()
        assert peer.transport._max_read_size == READ_SIZE


class TestEstablished:
    def test_request_reaches_the_app(self, door: Door) -> None:
        """From the socket through TLS to the pool, and back."""
        sock, client = shake_hands(door)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        app = door.pool.accept()
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in app.sent
        assert b"X-Forwarded-Port: %d\r\n" % door.listener.address.port in app.sent
        app.deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        client.bio_write(received(sock))
        assert client.recv(1000) == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert door.service.metrics.handshakes == {"TLSv1.3": 1}

    @pytest.mark.parametrize("door", [(10, ClientCertMode.REQUIRED)], indirect=True)
    @pytest.mark.parametrize(("who", "status"), [("nobody", b"400"), ("stranger", b"403"), ("friend", None)], ids=str)
    def test_client_certificate_decides(self, door: Door, who: str, status: bytes | None) -> None:
        """No certificate is 400, a bad one 403, both readable; a good one is served."""
        identity = {
            "nobody": None,
            "stranger": other_authority().issue("x", purposes=CLIENT),
            "friend": authority().issue("x", purposes=CLIENT),
        }[who]
        sock, client = shake_hands(door, identity)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        assert len(door.pool.waiting) == (status is None)
        if status is not None:
            client.bio_write(received(sock))
            assert client.recv(1000).startswith(b"HTTP/1.1 " + status)
            # The operator is told as much as the client.
            assert ("trusted here" in door.log.ended[-1].detail) == (who == "stranger")

    @pytest.mark.parametrize(
        "door", [(10, ClientCertMode.OPTIONAL, tuple(IdentityDialect))], indirect=True, ids=["all dialects"]
    )
    @pytest.mark.parametrize("who", ["nobody", "friend", "friend of a friend"])
    def test_app_is_told_who_the_client_is(self, door: Door, who: str) -> None:
        """The fields of every dialect, whatever the client claims itself."""
        issuer = {"friend": authority(), "friend of a friend": intermediate()}.get(who)
        identity = issuer.issue("ci.example", purposes=CLIENT) if issuer is not None else None
        sock, client = shake_hands(door, identity)
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nX-SSL-Client-S-DN: CN=evil\r\nX-SSL-Protocol: none\r\n\r\n"))
        sock.sendall(outgoing(client))
        door.turn()
        sent = door.pool.accept().sent
        assert b"evil" not in sent
        assert b"\r\nX-SSL-Protocol: TLSv1.3\r\n" in sent
        if identity is None:
            assert b"\r\nX-SSL-Client-Verify: NONE\r\n" in sent
            assert b"Client-Cert:" not in sent
        else:
            assert b"\r\nX-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-S-DN: CN=ci.example\r\n" in sent
            assert b"\r\nX-Forwarded-Client-Cert: Hash=" in sent
            assert b"\r\nX-Amzn-Mtls-Clientcert-Subject: CN=ci.example\r\n" in sent
            assert b"\r\nClient-Cert: :" in sent
            assert (b"\r\nClient-Cert-Chain: :" in sent) is (who == "friend of a friend")

    @pytest.mark.parametrize("door", [(10, ClientCertMode.REQUIRED)], indirect=True)
    def test_connection_from_before_a_reload_meets_the_new_trust(self, door: Door) -> None:
        """A handshake that began under the old trust ends under the new one; so does who is connected already."""
        identity = authority().issue("ci", purposes=CLIENT)
        early = door.client_comes()
        door.turn()  # accepted, with the old context
        old, old_client = shake_hands(door, identity)
        trust = ClientTrust(ClientCertMode.REQUIRED, (other_authority().certificate,))
        door.listener.trust = trust
        door.listener.context = build_context([authority().issue("localhost").bundle], trust, TlsPolicy.INTERMEDIATE)
        door.listener.judge_all_again()
        late, late_client = shake_hands(door, identity, early)
        for sock, client in ((old, old_client), (late, late_client)):
            client.sendall(GET)
            sock.sendall(outgoing(client))
            door.turn()
            client.bio_write(received(sock))
            assert client.recv(1000).startswith(b"HTTP/1.1 403 ")

    def test_client_that_cannot_be_looked_at_is_closed(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever goes wrong with one client, it loses its connection, and the others are looked at."""
        shake_hands(door)
        shake_hands(door)
        looked_at: list[object] = []

        def verify_again(connection: object, *arguments: object) -> Verification:
            looked_at.append(connection)
            raise ValueError("unforeseen")

        monkeypatch.setattr(module, "verify_again", verify_again)
        door.listener.judge_all_again()
        door.reactor.turn()
        assert len(looked_at) == 2
        assert door.listener.open_connections == 0

    def test_new_context_is_for_newcomers(self, door: Door) -> None:
        """A swap changes who comes, not who is there."""
        _, old = shake_hands(door)
        renewed = authority().issue("localhost")
        door.listener.context = build_context([renewed.bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)
        _, new = shake_hands(door)
        assert new.get_peer_certificate(as_cryptography=True) == renewed.certificate
        assert old.get_peer_certificate(as_cryptography=True) != renewed.certificate


class TestStop:
    def test_idle_connections_close_and_busy_ones_finish(self, door: Door) -> None:
        """A stop waits for what is in flight only."""
        shake_hands(door)
        sock, client = shake_hands(door)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        door.service.is_draining = True
        door.listener.stop()
        door.listener.stop()
        door.reactor.advance(DRAIN_IDLE_SECONDS + 0.1)
        door.reactor.turn()
        assert door.listener.open_connections == 1
        assert not door.is_accepting
        door.pool.accept().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        client.bio_write(received(sock))
        assert b"Connection: close" in client.recv(1000)
        door.reactor.turn()
        assert door.listener.open_connections == 0
        assert not door.is_accepting

    def test_client_that_has_said_nothing_is_not_waited_for(self, door: Door) -> None:
        """Connections are opened in advance; one inside its handshake may finish."""
        door.client_comes()
        begun = door.client_comes()
        door.turn()
        begun.sendall(b"\x16")
        door.turn()
        door.listener.stop()
        door.reactor.turn()
        assert door.listener.open_connections == 2
        door.reactor.advance(DRAIN_IDLE_SECONDS)
        door.reactor.turn()
        assert door.listener.open_connections == 1

    def test_client_that_waits_to_be_accepted_is_let_in(self, door: Door) -> None:
        """To the client it is connected: closing the listener under it would be a reset."""
        door.client_comes()
        door.listener.stop()
        assert door.listener.open_connections == 1

    def test_nothing_is_accepted_afterwards(self, door: Door) -> None:
        """Neither an end nor a back-off starts it again."""
        client = door.client_comes()
        door.turn()
        door.listener._back_off(OSError(errno.EMFILE, "none left"))
        door.listener.stop()
        client.close()
        door.turn()
        door.reactor.advance(1.0)
        assert not door.is_accepting
        assert door.listener.open_connections == 0

    def test_end_counts_what_was_in_flight(self, door: Door) -> None:
        """Only connections with something in flight lose anything."""
        door.client_comes()
        shake_hands(door)
        sock, client = shake_hands(door)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        assert all(
            isinstance(tls.application, DownstreamConnection) or tls.application is None for tls in door.listener._peers
        )
        assert door.listener.end_all() == 1
        door.reactor.turn()
        assert door.listener.open_connections == 0
        assert door.log.ended[-1].reason == "drain_timeout"


class TestMemory:
    def test_connection_that_was_served_leaves_nothing_for_the_collector(self, door: Door) -> None:
        """From socket to exchange, everything is freed by reference counting alone."""
        sock, client = shake_hands(door)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        door.pool.accept().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        (tls,) = door.listener._peers
        gone = [weakref.ref(tls), weakref.ref(door.listener._peers[tls].transport), weakref.ref(door.log.exchanges[0])]
        door.log.exchanges.clear()
        sock.close()
        gc.collect()
        gc.disable()
        try:
            del tls
            door.turn()
            assert door.listener.open_connections == 0
            assert [ref() for ref in gone] == [None, None, None]
        finally:
            gc.enable()
