"""`proxy.listener`: accepting, bounding, letting go; a listening socket on loopback, and no reactor but the test."""

from __future__ import annotations

import contextlib
import errno
import gc
import select
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from sidecar.errors import ListenError
from sidecar.policy.access import access_of
from sidecar.policy.forwarding import TrustedProxies
from sidecar.proxy import listener as module
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.downstream import DRAIN_IDLE_SECONDS, DownstreamConnection
from sidecar.proxy.listener import (
    ACCEPTS_AFTER_ASIDE,
    ASIDE_SECONDS,
    MOST_REFILLED,
    PROXY_HEADER_SECONDS,
    REFILL_SECONDS,
    Approach,
    Listener,
    Peer,
    Room,
    _usual_forwarding,
    listen,
)
from sidecar.proxy.sockets import MIN_PROGRESS_BYTES, READ_SIZE, SocketTransport
from sidecar.proxy.tunnel import Tunnel
from sidecar.settings import (
    ClientCertMode,
    ClientSettings,
    HostPort,
    IdentityDialect,
    Limits,
    ListenerMode,
    ProxyProtocol,
    ProxyProtocolMissing,
    ProxyProtocolOut,
    Seconds,
    Timeouts,
    TlsPolicy,
)
from sidecar.tls.context import build_context
from sidecar.tls.server import TlsServer
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import Verification
from sidecar.wire.events import RequestHead
from sidecar.wire.proxyproto import LOCAL_V2, SocketAddress, TlvType, encode_v1, encode_v2, make_tlvs
from tests.support.certs import CLIENT, Issued, authority, intermediate, other_authority
from tests.support.handshake import TLS12, TLS13, client_context, outgoing
from tests.support.ports import FakeCluster, FakePool, FakeReactor, RecordingTransport
from tests.support.pump import RecordedLog, make_service

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
TLS = Approach()


def get(*lines: bytes) -> bytes:
    """A request with more field lines."""
    return GET[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


class Door:
    """A listener, and clients that come to it."""

    def __init__(
        self,
        limit: int = 10,
        mode: ClientCertMode = ClientCertMode.NONE,
        dialects: tuple[IdentityDialect, ...] = (),
        approach: Approach = TLS,
        room: Room | None = None,
    ) -> None:
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
        bundles = [authority().issue("localhost").bundle]
        context = build_context(bundles, trust, TlsPolicy.INTERMEDIATE) if approach.tls else None
        sock = listen(HostPort("127.0.0.1", 0))
        self.listener = Listener(
            sock, context, self.service, self.deadlines, access, trust, self.reactor, approach, room
        )
        self.listener.start()
        self.clients: list[socket.socket] = []

    @property
    def is_accepting(self) -> bool:
        return self.listener in self.reactor.readers

    def client_comes(self) -> socket.socket:
        address = self.listener.address
        client = socket.create_connection((address.host, address.port))
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece is there when the next turn reads
        self.clients.append(client)
        return client

    def client_from(self, host: str) -> socket.socket:
        """Let a client come whose address is *host*."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.clients.append(theirs)
        self.listener._accepted(ours, (host, 1234))
        return theirs

    @property
    def peer(self) -> Peer:
        """The one client that there is."""
        ((peer, _),) = self.listener.open()
        return peer

    def app_asked(self) -> RecordingTransport:
        """Let the connection that is waited for be made, and return it."""
        return self.pool.accept()

    @property
    def failures(self) -> dict[str, int]:
        return self.service.metrics.handshake_failures

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
        assert metrics.handshake_failures == {"ping": 1}

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
        assert door.service.metrics.handshake_failures == {"ping": 1}
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


class TestRoom:
    """The limit of connections is one for all listeners together."""

    @pytest.fixture
    def doors(self) -> Iterator[tuple[Door, Door]]:
        room = Room()
        doors = Door(2, room=room), Door(2, room=room)
        yield doors
        for door in doors:
            door.close()

    def test_listeners_share_the_limit(self, doors: tuple[Door, Door]) -> None:
        """Whoever comes to the second finds the connections of the first counted."""
        one, other = doors
        for door in (one, other, other):
            door.client_comes()
            door.turn()
        assert (one.listener.open_connections, other.listener.open_connections) == (1, 1)
        one.client_comes()
        one.turn()
        assert one.listener.open_connections == 1
        assert not one.is_accepting
        assert not other.is_accepting

    def test_end_on_one_lets_the_other_accept(self, doors: tuple[Door, Door]) -> None:
        """Who waits at a listener without connections of its own would wait for ever otherwise."""
        one, other = doors
        clients = [one.client_comes() for _ in range(2)]
        one.turn()
        other.client_comes()
        other.turn()
        assert (other.listener.open_connections, other.is_accepting) == (0, False)
        clients[0].close()
        one.turn()
        assert other.is_accepting
        other.turn()
        assert (one.listener.open_connections, other.listener.open_connections) == (1, 1)

    def test_place_goes_to_one_of_those_who_wait(self, doors: tuple[Door, Door]) -> None:
        """All are woken, and whoever comes too late waits again, for the next end."""
        one, other = doors
        clients = [one.client_comes() for _ in range(3)]
        one.turn()
        other.client_comes()
        other.turn()
        clients[0].close()
        one.turn()
        one.turn()
        assert one.listener.open_connections == 2
        other.turn()
        assert (other.listener.open_connections, other.is_accepting) == (0, False)
        clients[1].close()
        one.turn()
        other.turn()
        assert other.listener.open_connections == 1

    def test_listener_that_has_stopped_is_not_started_again(self, doors: tuple[Door, Door]) -> None:
        """Its socket is closed; a connection that ends elsewhere must not bring it back to the poller."""
        one, other = doors
        client, _ = one.client_comes(), one.client_comes()
        one.turn()
        other.client_comes()
        other.turn()
        other.listener.stop()
        client.close()
        one.turn()
        assert one.listener.open_connections == 1
        assert not other.is_accepting


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
    def test_client_is_read_64_kib_at_once_unless_more_is_asked_for(self, door: Door) -> None:
        """What a client sends may cost much to parse, so one turn takes a bounded part of it, however it flows."""
        door.client_comes()
        door.turn()
        (peer,) = door.listener._peers.values()
        assert peer.transport._max_read_size == READ_SIZE
        peer.read_up_to(100_000)
        assert peer.transport._max_read_size == 100_000


class TestUsualForwarding:
    def test_clients_of_one_address_share_their_lines(self) -> None:
        """What an app is told of most clients is made once for each address, port and scheme."""
        told = _usual_forwarding("192.0.2.7", "192.0.2.1", 443, "https")
        assert told.named == b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
        assert told.anonymous == told.named
        assert _usual_forwarding("192.0.2.7", "192.0.2.1", 443, "https") is told
        others = [("192.0.2.8", "192.0.2.1", 443, "https"), ("192.0.2.7", "192.0.2.1", 8443, "https")]
        assert all(_usual_forwarding(*other).named != told.named for other in others)


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


class FakePlace:
    """
    Where a worker says how many connections it has.

    Attributes:
        noted: What it says; None while it accepts nobody.
        others: How many each of the others has.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.others = 1000

    def note(self, connections: int) -> None:
        self.noted = connections

    def note_away(self) -> None:
        self.noted = None

    def is_fullest(self) -> bool:
        return self.noted is not None and self.noted > self.others


class TestSharing:
    """Workers accept from one socket, and newcomers are left to the one that has fewest connections."""

    @pytest.fixture
    def place(self) -> FakePlace:
        return FakePlace()

    @pytest.fixture
    def door(self, place: FakePlace) -> Iterator[Door]:
        door = Door(200, approach=Approach(tls=False), room=Room(cast(Any, place)))
        yield door
        door.close()

    def test_others_see_how_many_there_are(self, door: Door, place: FakePlace) -> None:
        """From the moment at which it accepts, whoever comes or goes."""
        assert place.noted == 0
        clients = [door.client_comes() for _ in range(3)]
        door.turn()
        assert place.noted == 3
        clients[0].close()
        door.turn()
        assert place.noted == 2

    def test_burst_is_not_taken_whole(self, door: Door, place: FakePlace) -> None:
        """As soon as it has more than another, the rest is left to that one."""
        place.others = 2
        for _ in range(8):
            door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 3
        assert door.listener in door.reactor.readers

    def test_fullest_steps_aside(self, door: Door, place: FakePlace) -> None:
        """The poller would report the newcomers again and again."""
        place.others = -1
        door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 0
        assert door.listener not in door.reactor.readers
        assert place.noted == 0

    def test_newcomers_that_nobody_takes_are_let_in(self, door: Door, place: FakePlace) -> None:
        """A worker with fewer connections may be busy or hang: each look lets in a few, until none waits."""
        place.others = -1
        for _ in range(ACCEPTS_AFTER_ASIDE + 1):
            door.client_comes()
        door.listener.doRead()
        door.reactor.advance(ASIDE_SECONDS)
        assert door.listener.open_connections == ACCEPTS_AFTER_ASIDE
        assert door.listener in door.reactor.readers
        door.listener.doRead()
        door.reactor.advance(ASIDE_SECONDS)
        assert door.listener.open_connections == ACCEPTS_AFTER_ASIDE + 1

    def test_newcomers_that_another_took_cost_nothing(self, door: Door, place: FakePlace) -> None:
        """There is nobody left to let in, and the next is looked at as ever."""
        place.others = -1
        door.listener.doRead()
        door.reactor.advance(ASIDE_SECONDS)
        place.others = 0
        door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 1

    def test_place_of_one_that_has_just_gone_is_filled_again(self, door: Door, place: FakePlace) -> None:
        """Where clients come and go, a worker does not wait for others to take each; it gets no fuller by that."""
        clients = [door.client_comes() for _ in range(4)]
        door.turn()
        place.others = 0
        clients[0].close()
        door.turn()
        for _ in range(3):
            door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 4

    def test_place_that_has_been_empty_for_a_while_is_not_filled(self, door: Door, place: FakePlace) -> None:
        """What comes then is no successor of what went."""
        clients = [door.client_comes() for _ in range(4)]
        door.turn()
        place.others = 0
        clients[0].close()
        door.turn()
        door.reactor.advance(2 * REFILL_SECONDS)
        door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 3

    def test_exodus_is_not_made_up_for(self, door: Door, place: FakePlace) -> None:
        """When a balancer opens all its connections anew, those who come back are shared out like any others."""
        clients = [door.client_comes() for _ in range(MOST_REFILLED + 10)]
        while door.listener.open_connections < len(clients):
            door.turn()
        place.others = 0
        for client in clients[1:]:
            client.close()
        door.turn()
        assert door.listener.open_connections == 1
        for _ in range(MOST_REFILLED + 10):
            door.client_comes()
        door.listener.doRead()
        assert door.listener.open_connections == 1 + MOST_REFILLED

    def test_full_worker_is_left_nothing(self, place: FakePlace) -> None:
        """At its limit it says that it accepts nobody, until a connection has ended."""
        door = Door(2, approach=Approach(tls=False), room=Room(cast(Any, place)))
        clients = [door.client_comes() for _ in range(2)]
        door.turn()
        assert (door.listener.open_connections, place.noted) == (2, None)
        clients[0].close()
        door.turn()
        assert (door.listener.open_connections, place.noted) == (1, 1)
        door.close()

    def test_limit_holds_for_those_whom_nobody_takes(self, place: FakePlace) -> None:
        """Those let in after a moment aside count like others."""
        door = Door(2, approach=Approach(tls=False), room=Room(cast(Any, place)))
        place.others = -1
        for _ in range(3):
            door.client_comes()
        door.listener.doRead()
        door.reactor.advance(ASIDE_SECONDS)
        assert (door.listener.open_connections, place.noted, door.is_accepting) == (2, None, False)
        door.close()

    def test_stop_ends_the_moment_aside(self, door: Door, place: FakePlace) -> None:
        """Who has connected is let in, others are told that nobody accepts here, and nothing is left to come."""
        place.others = -1
        door.client_comes()
        door.listener.doRead()
        door.listener.stop()
        assert (door.listener.open_connections, place.noted) == (1, None)
        door.reactor.advance(ASIDE_SECONDS)
        assert door.listener not in door.reactor.readers

    def test_worker_that_has_stopped_says_nothing_more(self, door: Door, place: FakePlace) -> None:
        """Its place may be another's by the time its last connections end."""
        client = door.client_comes()
        door.turn()
        door.listener.stop()
        client.close()
        door.turn()
        assert (door.listener.open_connections, place.noted) == (0, None)

    def test_worker_serves_as_long_as_one_listener_accepts(self, place: FakePlace) -> None:
        """The number is of all its listeners together."""
        room = Room(cast(Any, place))
        one, other = (Door(10, approach=Approach(tls=False), room=room) for _ in range(2))
        one.client_comes()
        one.turn()
        one.listener.stop()
        assert place.noted == 1
        other.listener.stop()
        assert place.noted is None
        one.close()
        other.close()


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


def count_of(kind: type) -> int:
    """Return how many objects of *kind* there are, for one that has no weak references."""
    return sum(type(each) is kind for each in gc.get_objects())


class TestMemory:
    def test_connection_that_was_served_leaves_nothing_for_the_collector(self, door: Door) -> None:
        """From socket to exchange, everything is freed by reference counting alone."""
        sock, client = shake_hands(door)
        client.sendall(GET)
        sock.sendall(outgoing(client))
        door.turn()
        door.pool.accept().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        (tls,) = door.listener._peers
        # What they alone keep stands for them: neither has weak references where it is compiled.
        gone = [weakref.ref(tls.connection), weakref.ref(door.listener._peers[tls].transport._socket)]
        door.log.exchanges.clear()
        sock.close()
        gc.collect()
        heads = count_of(RequestHead)
        gc.disable()
        try:
            del tls
            door.turn()
            assert door.listener.open_connections == 0
            assert [ref() for ref in gone] == [None, None]
            assert count_of(RequestHead) == heads - 1
        finally:
            gc.enable()


OFF, REQUIRED, TRUSTED = ProxyProtocol.OFF, ProxyProtocol.REQUIRED, ProxyProtocol.TRUSTED
SERVE, REFUSE = ProxyProtocolMissing.SERVE, ProxyProtocolMissing.REFUSE
BALANCERS = ("10.0.0.0/8",)
BALANCER, STRANGER, OURSELVES = "10.0.0.9", "192.0.2.9", "127.0.0.1"

CLIENT_ENDS = SocketAddress("203.0.113.9", 50_000), SocketAddress("198.51.100.1", 8443)
NAMED = encode_v1(*CLIENT_ENDS)
NAMED_V2 = encode_v2(*CLIENT_ENDS, make_tlvs(authority="a.example", unique_id=b"id-1"))

_V2_PROXY = NAMED_V2[:12] + b"\x21"

# Headers of a balancer that relays a client and does not say which.
NAMELESS: dict[str, bytes] = {
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
    "UNKNOWN with addresses": b"PROXY UNKNOWN 203.0.113.9 198.51.100.1 50000 8443\r\n",
    "AF_UNSPEC": _V2_PROXY + b"\x00\0\0",
    "AF_UNIX": _V2_PROXY + b"\x31" + (216).to_bytes(2, "big") + b"/run/app.sock".ljust(216, b"\0"),
}


def behind(
    proxy_protocol: ProxyProtocol,
    networks: tuple[str, ...] = BALANCERS,
    missing: ProxyProtocolMissing = SERVE,
    **more: Any,
) -> Approach:
    return Approach(proxy_protocol=proxy_protocol, missing=missing, trusted=TrustedProxies(networks), **more)


@pytest.fixture
def made() -> Iterator[Callable[..., Door]]:
    """Makes doors, and closes them."""
    doors: list[Door] = []

    def make(approach: Approach = TLS, **more: Any) -> Door:
        doors.append(Door(approach=approach, **more))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


# What is set, whose connection it is, what it begins with -> the client that the app is told of, or why it was refused.
WELCOMES: dict[str, tuple[Approach, str, bytes, str]] = {
    "required, no networks, header": (behind(REQUIRED, ()), STRANGER, NAMED, "203.0.113.9"),
    "required, no networks, none": (behind(REQUIRED, ()), STRANGER, b"", "proxy_header_missing"),
    "required, no networks, LOCAL": (behind(REQUIRED, ()), STRANGER, LOCAL_V2, STRANGER),
    "required, no networks, UNKNOWN": (behind(REQUIRED, ()), STRANGER, b"PROXY UNKNOWN\r\n", STRANGER),
    "required, balancer, header": (behind(REQUIRED), BALANCER, NAMED, "203.0.113.9"),
    "required, balancer, version 2": (behind(REQUIRED), BALANCER, NAMED_V2, "203.0.113.9"),
    "required, balancer, LOCAL": (behind(REQUIRED), BALANCER, LOCAL_V2, BALANCER),
    "required, balancer, none": (behind(REQUIRED), BALANCER, b"", "proxy_header_missing"),
    "required, balancer, nonsense": (behind(REQUIRED), BALANCER, b"PROXY me\r\n", "proxy_header_invalid"),
    "required, stranger, header": (behind(REQUIRED), STRANGER, NAMED, "proxy_header_untrusted"),
    "required, stranger, LOCAL": (behind(REQUIRED), STRANGER, LOCAL_V2, "proxy_header_untrusted"),
    "required, stranger, none": (behind(REQUIRED), STRANGER, b"", "proxy_header_missing"),
    "required, ourselves, LOCAL": (behind(REQUIRED), OURSELVES, LOCAL_V2, OURSELVES),
    "required, ourselves, header": (behind(REQUIRED), OURSELVES, NAMED, "proxy_header_untrusted"),
    "required, ourselves, UNKNOWN": (behind(REQUIRED), OURSELVES, b"PROXY UNKNOWN\r\n", "proxy_header_untrusted"),
    "required, ourselves, none": (behind(REQUIRED), OURSELVES, b"", "proxy_header_missing"),
    "required, ourselves trusted, header": (behind(REQUIRED, ("127.0.0.0/8",)), OURSELVES, NAMED, "203.0.113.9"),
    "trusted, balancer, header": (behind(TRUSTED), BALANCER, NAMED, "203.0.113.9"),
    "trusted, balancer, LOCAL": (behind(TRUSTED), BALANCER, LOCAL_V2, BALANCER),
    "trusted, balancer, none, serve": (behind(TRUSTED), BALANCER, b"", BALANCER),
    "trusted, balancer, none, refuse": (behind(TRUSTED, missing=REFUSE), BALANCER, b"", "proxy_header_missing"),
    "trusted, balancer, nonsense": (behind(TRUSTED), BALANCER, b"PROXY me\r\n", "proxy_header_invalid"),
    "trusted, stranger, header": (behind(TRUSTED), STRANGER, NAMED, "proxy_header_untrusted"),
    "trusted, stranger, version 2": (behind(TRUSTED), STRANGER, NAMED_V2, "proxy_header_untrusted"),
    "trusted, stranger, none": (behind(TRUSTED), STRANGER, b"", STRANGER),
    "trusted, stranger, none, refuse": (behind(TRUSTED, missing=REFUSE), STRANGER, b"", STRANGER),
    "trusted, ourselves, LOCAL": (behind(TRUSTED), OURSELVES, LOCAL_V2, OURSELVES),
    "trusted, ourselves, header": (behind(TRUSTED), OURSELVES, NAMED, "proxy_header_untrusted"),
    "trusted, ourselves, none": (behind(TRUSTED, missing=REFUSE), OURSELVES, b"", OURSELVES),
    "trusted, mapped balancer, header": (behind(TRUSTED), "::ffff:10.0.0.9", NAMED, "203.0.113.9"),
    "trusted, no networks, header": (behind(TRUSTED, ()), STRANGER, NAMED, "proxy_header_untrusted"),
    "trusted, no networks, none": (behind(TRUSTED, ()), STRANGER, b"", STRANGER),
}


class TestProxyHeader:
    @pytest.mark.parametrize(("approach", "host", "begins", "outcome"), WELCOMES.values(), ids=WELCOMES)
    def test_who_may_say_whose_connection_it_is(
        self, made: Callable[..., Door], approach: Approach, host: str, begins: bytes, outcome: str
    ) -> None:
        """Only balancers that are believed; whoever else tries is refused, with a reason, and reaches nobody."""
        door = made(attrs.evolve(approach, tls=False))
        client = door.client_from(host)
        client.sendall(begins + GET)
        door.turn()
        if outcome.startswith("proxy_"):
            assert door.failures == {outcome: 1}
            assert not door.pool.waiting
            assert door.listener.open_connections == 0
            assert client.recv(100) == b""
            (event,) = door.service.rejecter.rejections.as_json()
            assert (event["client"], event["reason"], event["answer"]) == (
                host.removeprefix("::ffff:"),
                outcome,
                "reset",
            )
        else:
            assert b"\r\nX-Forwarded-For: %b\r\n" % outcome.encode() in door.app_asked().sent
            assert door.failures == {}
            assert door.service.metrics.proxy_headers == bool(begins)

    def test_header_is_not_looked_for_where_it_is_off(self, made: Callable[..., Door]) -> None:
        """There it is a broken request like any other."""
        door = made(behind(OFF, tls=False))
        client = door.client_from(BALANCER)
        client.sendall(NAMED + GET)
        door.turn()
        assert received(client).startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize("header", [NAMED, NAMED_V2], ids=["v1", "v2"])
    @pytest.mark.parametrize("size", [1, 7, 4096], ids=["byte by byte", "pieces", "one segment"])
    def test_tls_begins_behind_it(self, made: Callable[..., Door], header: bytes, size: int) -> None:
        """However the bytes fall, and though the first of the handshake come with the last of the header."""
        door = made(behind(REQUIRED))
        sock = door.client_from(BALANCER)
        client = SSL.Connection(client_context(), None)
        client.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        data = header + outgoing(client)
        for position in range(0, len(data), size):
            sock.sendall(data[position : position + size])
            door.turn()
        client.bio_write(received(sock))
        sock, client = finish_handshake(door, sock, client)
        ask(door, sock, client)
        sent = door.app_asked().sent
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in sent
        assert b"\r\nX-Forwarded-Port: 8443\r\n" in sent
        assert b"\r\nX-Forwarded-Proto: https\r\n" in sent

    def test_client_is_who_the_header_names(self, made: Callable[..., Door]) -> None:
        """For all that comes after: rules, log, operators; who really connected is not forgotten."""
        door = made(behind(REQUIRED))
        sock = door.client_from(BALANCER)
        assert door.peer.remote == HostPort(BALANCER, 1234)
        sock.sendall(NAMED_V2)
        door.turn()
        peer = door.peer
        assert (peer.host, peer.remote) == ("203.0.113.9", HostPort("203.0.113.9", 50_000))
        assert peer.local == HostPort("198.51.100.1", 8443)
        assert peer.via == HostPort(BALANCER, 1234)
        assert peer.proxied is not None
        assert peer.preface is None

    def test_balancer_that_speaks_for_itself_is_the_client(self, made: Callable[..., Door]) -> None:
        """Its health checks come from nobody else."""
        door = made(behind(REQUIRED))
        door.client_from(BALANCER).sendall(LOCAL_V2)
        door.turn()
        assert (door.peer.host, door.peer.via) == (BALANCER, None)

    def test_app_is_told_what_else_the_header_says(self, made: Callable[..., Door]) -> None:
        """In fields that a client cannot send."""
        door = made(behind(REQUIRED, tls=False))
        forged = get(b"X-Proxy-Protocol-Authority: evil", b"x_proxy_protocol_alpn: evil")
        door.client_from(BALANCER).sendall(NAMED_V2 + forged)
        door.turn()
        sent = door.app_asked().sent
        assert b"\r\nX-Proxy-Protocol-Authority: a.example\r\nX-Proxy-Protocol-Unique-Id: id-1\r\n" in sent
        assert b"evil" not in sent

    def test_app_gets_a_header_of_its_own_about_the_client(self, made: Callable[..., Door]) -> None:
        """As the balancer's named it, not the balancer."""
        door = made(behind(REQUIRED, tls=False))
        cast(FakeCluster, door.service.router.cluster).proxy_protocol = ProxyProtocolOut.V1
        door.client_from(BALANCER).sendall(NAMED_V2 + GET)
        door.turn()
        assert door.pool.prefaces == [NAMED]

    def test_check_by_connecting_is_no_news(self, made: Callable[..., Door], log: list[LogEvent]) -> None:
        """Balancers open and close connections to see whether anybody listens: counted as such, logged never."""
        door = made(behind(REQUIRED))
        for _ in range(3):
            door.client_from(BALANCER).close()
        door.turn()
        assert door.failures == {"ping": 3}
        assert door.service.rejecter.rejections.as_json() == []
        assert not [event for event in log if event["log_level"] is LogLevel.warn]
        assert (door.listener.open_connections, door.service.metrics.connections_active) == (0, 0)

    def test_client_that_leaves_in_the_middle_is_no_check(self, made: Callable[..., Door]) -> None:
        """It had something to say."""
        door = made(behind(REQUIRED))
        client = door.client_from(BALANCER)
        client.sendall(NAMED[:10])
        client.close()
        door.turn()
        door.turn()
        assert door.failures == {"closed_by_peer": 1}
        assert door.listener.open_connections == 0

    def test_ping_behind_a_header_is_one_too(self, made: Callable[..., Door]) -> None:
        """A balancer that relays a check sends a header ahead of nothing."""
        door = made(behind(REQUIRED))
        client = door.client_from(BALANCER)
        client.sendall(NAMED)
        client.close()
        door.turn()
        door.turn()
        assert door.failures == {"ping": 1}
        assert door.listener.open_connections == 0

    @pytest.mark.parametrize(
        ("sent", "reason"), [(b"", "ping"), (NAMED[:10], "proxy_header_timeout")], ids=["nothing", "a part"]
    )
    def test_header_has_its_own_deadline(self, made: Callable[..., Door], sent: bytes, reason: str) -> None:
        """A client that keeps us waiting loses its place; bytes one by one do not move it."""
        door = made(behind(REQUIRED))
        door.service.timeouts = Timeouts(handshake=Seconds(30.0))
        client = door.client_from(BALANCER)
        for byte in sent:
            door.reactor.advance(0.1)
            client.sendall(bytes([byte]))
            door.turn()
        door.reactor.advance(PROXY_HEADER_SECONDS - 0.1 * len(sent) - 0.2)
        assert door.listener.open_connections == 1
        door.reactor.advance(0.4)
        assert door.failures == {reason: 1}
        assert door.listener.open_connections == 0

    def test_handshake_has_its_deadline_from_the_header_on(self, made: Callable[..., Door]) -> None:
        """A header that came late takes nothing from it."""
        door = made(behind(REQUIRED))
        client = door.client_from(BALANCER)
        door.reactor.advance(2.5)
        client.sendall(NAMED)
        door.turn()
        door.reactor.advance(2.8)
        assert door.failures == {}
        door.reactor.advance(0.4)
        assert door.failures == {"handshake_timeout": 1}

    def test_shorter_handshake_timeout_holds_for_the_header(self, made: Callable[..., Door]) -> None:
        """Whoever wants newcomers to be quick means all of them."""
        door = made(behind(REQUIRED))
        door.client_from(BALANCER)
        door.reactor.advance(3.2)
        assert door.listener.open_connections == 0

    @pytest.mark.parametrize("sent", [b"", NAMED[:10], NAMED], ids=["nothing", "a part", "whole"])
    def test_stop_does_not_wait_for_one(self, made: Callable[..., Door], sent: bytes) -> None:
        """Nothing was on its way; all connections are counted off."""
        door = made(behind(REQUIRED))
        client = door.client_from(BALANCER)
        client.sendall(sent)
        door.turn()
        door.listener.stop()
        door.reactor.advance(DRAIN_IDLE_SECONDS + 0.1)
        door.reactor.turn()
        assert door.listener.open_connections == 0
        assert door.service.metrics.connections_active == 0

    def test_end_of_all_ends_it_too(self, made: Callable[..., Door]) -> None:
        """And nothing was in flight."""
        door = made(behind(REQUIRED))
        door.client_from(BALANCER)
        assert door.listener.end_all() == 0
        door.reactor.turn()
        assert door.listener.open_connections == 0

    def test_refused_connection_makes_room(self, made: Callable[..., Door]) -> None:
        """At the limit, whoever waits is let in when one is refused."""
        door = made(behind(REQUIRED), limit=1)
        client = door.client_comes()
        door.turn()
        assert not door.is_accepting
        client.sendall(NAMED)
        door.turn()
        assert door.failures == {"proxy_header_untrusted": 1}
        assert door.is_accepting

    def test_operators_are_told_what_to_do(self, made: Callable[..., Door]) -> None:
        """A balancer that is not on the list is the usual mistake."""
        door = made(behind(TRUSTED))
        door.client_from(STRANGER).sendall(NAMED)
        door.turn()
        (event,) = door.service.rejecter.rejections.as_json()
        assert "SIDECAR_TRUSTED_PROXIES" in event["message"]


def finish_handshake(door: Door, sock: socket.socket, client: SSL.Connection) -> tuple[socket.socket, SSL.Connection]:
    """Go on with a handshake that the client has begun."""
    for _ in range(3):
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


def ask(door: Door, sock: socket.socket, client: SSL.Connection, data: bytes = GET) -> None:
    client.sendall(data)
    sock.sendall(outgoing(client))
    door.turn()


class TestTrustedProxy:
    """Proxies whose X-Forwarded-For is believed."""

    CLAIM = get(b"X-Forwarded-For: 203.0.113.1")

    @pytest.mark.parametrize(
        ("host", "told"), [(BALANCER, b"203.0.113.1, 10.0.0.9"), (STRANGER, b"192.0.2.9")], ids=["trusted", "stranger"]
    )
    def test_word_of_a_trusted_one_counts(self, made: Callable[..., Door], host: str, told: bytes) -> None:
        """And nobody else's."""
        door = made(behind(OFF, tls=False))
        door.client_from(host).sendall(self.CLAIM)
        door.turn()
        assert b"\r\nX-Forwarded-For: %b\r\n" % told in door.app_asked().sent

    def test_whom_a_header_names_is_who_must_be_trusted(self, made: Callable[..., Door]) -> None:
        """Behind a balancer that relays anybody, a client's claim is worth no more than without it."""
        door = made(behind(REQUIRED, tls=False))
        door.client_from(BALANCER).sendall(NAMED + self.CLAIM)
        door.turn()
        assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in door.app_asked().sent

    def test_proxy_behind_a_balancer_is_trusted(self, made: Callable[..., Door]) -> None:
        """It is the one that the header names."""
        door = made(behind(REQUIRED, tls=False))
        header = encode_v1(SocketAddress("10.0.0.50", 1), CLIENT_ENDS[1])
        door.client_from(BALANCER).sendall(header + self.CLAIM)
        door.turn()
        assert b"\r\nX-Forwarded-For: 203.0.113.1, 10.0.0.50\r\n" in door.app_asked().sent

    @pytest.mark.parametrize("protocol", [REQUIRED, TRUSTED], ids=["required", "trusted"])
    @pytest.mark.parametrize("header", NAMELESS.values(), ids=NAMELESS)
    def test_whoever_is_not_named_is_not_believed(
        self, made: Callable[..., Door], protocol: ProxyProtocol, header: bytes
    ) -> None:
        """A balancer that relays somebody is not that somebody: it is served, and its claims are anybody's."""
        door = made(behind(protocol, tls=False))
        door.client_from(BALANCER).sendall(header + get(b"X-Forwarded-For: 203.0.113.1", b"X-Request-Id: theirs"))
        door.turn()
        sent = door.app_asked().sent
        assert b"\r\nX-Forwarded-For: 10.0.0.9\r\n" in sent
        assert b"203.0.113.1" not in sent
        assert b"theirs" not in sent
        assert door.failures == {}

    @pytest.mark.parametrize("header", [LOCAL_V2, b""], ids=["LOCAL", "none"])
    def test_balancer_that_speaks_for_itself_is_believed(self, made: Callable[..., Door], header: bytes) -> None:
        """Then it is the one that is trusted, relaying nobody's bytes."""
        door = made(behind(TRUSTED, tls=False))
        door.client_from(BALANCER).sendall(header + self.CLAIM)
        door.turn()
        assert b"\r\nX-Forwarded-For: 203.0.113.1, 10.0.0.9\r\n" in door.app_asked().sent

    def test_app_gets_forwarded_if_it_wants_it(self, made: Callable[..., Door]) -> None:
        """From every client, beside the other fields."""
        door = made(Approach(tls=False, with_forwarded=True))
        door.client_from(STRANGER).sendall(get(b"Forwarded: for=x"))
        door.turn()
        sent = door.app_asked().sent
        assert sent.count(b"Forwarded: ") == 1
        assert b"\r\nForwarded: by=127.0.0.1;for=192.0.2.9;host=a;proto=http\r\n" in sent

    def test_identity_of_a_client_goes_with_it(self, made: Callable[..., Door]) -> None:
        """Fields about its certificate stand beside those that depend on the request."""
        door = made(Approach(with_forwarded=True), mode=ClientCertMode.OPTIONAL, dialects=(IdentityDialect.XFCC,))
        sock, client = shake_hands(door, authority().issue("ci.example", purposes=CLIENT))
        ask(door, sock, client)
        sent = door.app_asked().sent
        assert b"\r\nForwarded: by=" in sent
        assert b"\r\nX-Forwarded-Client-Cert: Hash=" in sent


class TestPlain:
    """A listener without TLS."""

    @pytest.fixture
    def plain(self, made: Callable[..., Door]) -> Door:
        return made(Approach(tls=False))

    def test_request_reaches_the_app(self, plain: Door) -> None:
        """And the app is told how it came."""
        client = plain.client_comes()
        plain.turn()
        client.sendall(GET)
        plain.turn()
        app = plain.app_asked()
        assert b"\r\nX-Forwarded-Proto: http\r\n" in app.sent
        app.deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert received(client) == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert plain.service.metrics.handshakes == {}

    def test_claims_of_a_client_are_stripped_all_the_same(self, made: Callable[..., Door]) -> None:
        """Without TLS there is no certificate, and nobody may say otherwise."""
        door = made(Approach(tls=False), dialects=(IdentityDialect.XFCC, IdentityDialect.CLIENT_CERT))
        client = door.client_comes()
        door.turn()
        client.sendall(get(b"X-Forwarded-Client-Cert: Hash=1", b"Client-Cert: :x:"))
        door.turn()
        sent = door.app_asked().sent
        assert b"Client-Cert" not in sent

    def test_rule_that_needs_a_certificate_refuses(self, made: Callable[..., Door]) -> None:
        """There can be none."""
        door = made(Approach(tls=False), mode=ClientCertMode.REQUIRED)
        client = door.client_comes()
        door.turn()
        client.sendall(GET)
        door.turn()
        assert received(client).startswith(b"HTTP/1.1 400 ")
        assert door.log.ended[-1].reason == "client_certificate_missing"

    def test_silent_client_is_closed_at_the_idle_timeout(self, plain: Door) -> None:
        """That of requests, there being no handshake."""
        client = plain.client_comes()
        plain.turn()
        plain.reactor.advance(plain.service.timeouts.idle + 0.2)
        plain.reactor.turn()
        assert received(client) == b""
        assert plain.listener.open_connections == 0
        assert plain.failures == {}

    def test_half_closed_client_gets_its_answer(self, plain: Door) -> None:
        """As one that sends close_notify does."""
        client = plain.client_comes()
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        for _ in range(3):
            plain.turn()
        plain.app_asked().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert received(client) == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"

    def test_new_rules_hold_for_clients_that_are_there(self, plain: Door) -> None:
        """A reload looks at them again, and has no certificate to verify."""
        client = plain.client_comes()
        plain.turn()
        plain.listener.access = access_of(ClientSettings(cert=ClientCertMode.REQUIRED), "test")
        plain.listener.judge_all_again()
        client.sendall(GET)
        plain.turn()
        assert received(client).startswith(b"HTTP/1.1 400 ")

    def test_idle_connections_close_at_a_stop(self, plain: Door) -> None:
        """Like those with TLS."""
        plain.client_comes()
        plain.turn()
        plain.listener.stop()
        plain.reactor.advance(DRAIN_IDLE_SECONDS + 0.2)
        plain.reactor.turn()
        assert plain.listener.open_connections == 0

    def test_connection_leaves_nothing_for_the_collector(self, plain: Door) -> None:
        """Everything is freed by reference counting alone."""
        client = plain.client_comes()
        plain.turn()
        client.sendall(GET)
        plain.turn()
        plain.app_asked().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        (server,) = plain.listener._peers
        gone = [weakref.ref(server), weakref.ref(plain.peer.transport._socket)]  # a transport has none of its own
        plain.log.exchanges.clear()
        client.close()
        gc.collect()
        gc.disable()
        try:
            del server
            plain.turn()
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


versions = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


class TestTcp:
    """A listener in raw TCP mode."""

    @pytest.fixture
    def tcp(self, made: Callable[..., Door]) -> Door:
        return made(Approach(mode=ListenerMode.TCP))

    def connect(self, door: Door, identity: Issued | None = None, version: int | None = None) -> tuple[Any, ...]:
        """Shake hands, and let the connection to the app be made."""
        sock = door.client_comes()
        client = SSL.Connection(client_context(identity=identity, version=version), None)
        client.set_connect_state()
        door.turn()
        finish_handshake(door, sock, client)
        finish_handshake(door, sock, client)
        return sock, client, door.pool.accept_raw()

    @versions
    def test_bytes_inside_tls_go_both_ways(self, tcp: Door, version: int) -> None:
        """Whatever they are."""
        sock, client, app = self.connect(tcp, version=version)
        app.deliver(b"220 ready\r\n")
        client.bio_write(received(sock))
        assert client.recv(100) == b"220 ready\r\n"
        ask(tcp, sock, client, b"\x00\xff")
        assert app.sent == b"\x00\xff"
        ((_, served),) = tcp.listener.open()
        assert isinstance(served, Tunnel)
        assert tcp.service.metrics.tunnels == 1

    @versions
    def test_client_may_go_on_after_the_end_of_the_app(self, tcp: Door, version: int) -> None:
        """It reads that there is no more, and what it still sends arrives."""
        sock, client, app = self.connect(tcp, version=version)
        app.deliver(b"bye")
        app.deliver_eof()
        client.bio_write(received(sock))
        assert client.recv(100) == b"bye"
        with pytest.raises(SSL.ZeroReturnError):
            client.recv(100)
        ask(tcp, sock, client, b"last words")
        assert app.sent == b"last words"
        client.shutdown()
        sock.sendall(outgoing(client))
        tcp.turn()
        assert app.calls == ["loseConnection"]
        assert [(ended.reason, ended.status) for ended in tcp.log.ended] == [("", 0)]
        sock.close()
        tcp.turn()
        assert tcp.listener.open_connections == 0

    @versions
    def test_app_may_go_on_after_the_end_of_the_client(self, tcp: Door, version: int) -> None:
        """The same the other way round."""
        sock, client, app = self.connect(tcp, version=version)
        client.sendall(b"question")
        client.shutdown()
        sock.sendall(outgoing(client))
        tcp.turn()
        assert app.sent == b"question"
        assert app.calls == ["shut_down_writing"]
        app.deliver(b"answer")
        app.deliver_eof()
        client.bio_write(received(sock))
        assert client.recv(100) == b"answer"
        with pytest.raises(SSL.ZeroReturnError):
            client.recv(100)
        assert [ended.reason for ended in tcp.log.ended] == [""]

    @versions
    def test_client_that_says_all_at_once_is_heard(self, tcp: Door, version: int) -> None:
        """Its last message of the handshake, all it has and its end come in one segment."""
        sock = tcp.client_comes()
        client = SSL.Connection(client_context(version=version), None)
        client.set_connect_state()
        tcp.turn()
        for _ in range(2 if version == TLS12 else 1):
            with pytest.raises(SSL.WantReadError):
                client.do_handshake()
            sock.sendall(outgoing(client))
            tcp.turn()
            client.bio_write(received(sock))
        client.do_handshake()
        client.sendall(b"one line\n")
        client.shutdown()
        sock.sendall(outgoing(client))
        tcp.turn()
        app = tcp.pool.accept_raw()
        tcp.turn()  # with TLS 1.2, whose handshake the server ends, it comes on its own and waits in the kernel
        assert app.sent == b"one line\n"
        assert app.calls == ["shut_down_writing"]
        assert tcp.log.ended == []

    def test_client_that_just_goes_ends_it(self, tcp: Door) -> None:
        """The log says that it did not say so."""
        sock, client, app = self.connect(tcp)
        ask(tcp, sock, client, b"quit\r\n")
        sock.close()
        tcp.turn()
        assert app.sent == b"quit\r\n"
        assert [ended.reason for ended in tcp.log.ended] == ["closed_without_notify"]
        assert tcp.listener.open_connections == 0

    def test_app_that_breaks_off_cuts_the_client(self, tcp: Door) -> None:
        """With a reset, which nobody takes for an end."""
        sock, _, app = self.connect(tcp)
        app.reset()
        tcp.reactor.turn()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        assert [ended.reason for ended in tcp.log.ended] == ["upstream_reset"]

    def test_client_is_not_read_from_before_the_app_is_there(self, tcp: Door) -> None:
        """What it sends stays in the kernel."""
        sock, client = shake_hands(tcp)
        ask(tcp, sock, client, b"early")
        assert tcp.peer.transport not in tcp.reactor.readers
        app = tcp.pool.accept_raw()
        tcp.turn()
        assert app.sent == b"early"

    @pytest.mark.parametrize("who", ["nobody", "stranger"])
    def test_client_without_a_good_certificate_is_cut(self, made: Callable[..., Door], who: str) -> None:
        """There is nobody to tell it why in HTTP; operators are told."""
        door = made(Approach(mode=ListenerMode.TCP), mode=ClientCertMode.REQUIRED)
        identity = other_authority().issue("x", purposes=CLIENT) if who == "stranger" else None
        sock = door.client_comes()
        client = SSL.Connection(client_context(identity=identity), None)
        client.set_connect_state()
        door.turn()
        for _ in range(2):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            sock.sendall(outgoing(client))
            door.turn()
            with contextlib.suppress(ConnectionResetError):
                client.bio_write(received(sock))
        door.turn()
        assert not door.pool.raw
        assert door.listener.open_connections == 0
        assert len(door.service.rejecter.rejections.as_json()) == 1
        assert len(door.log.ended) == 1

    def test_new_trust_cuts_who_may_not_stay(self, made: Callable[..., Door]) -> None:
        """At once: it will send no further request."""
        door = made(Approach(mode=ListenerMode.TCP), mode=ClientCertMode.REQUIRED)
        _, _, app = self.connect(door, authority().issue("ci", purposes=CLIENT))
        door.listener.trust = ClientTrust(ClientCertMode.REQUIRED, (other_authority().certificate,))
        door.listener.judge_all_again()
        door.reactor.turn()
        assert app.is_closed
        assert door.listener.open_connections == 0
        assert [ended.reason for ended in door.log.ended] == ["client_certificate_invalid"]

    def test_stop_waits_for_it_and_end_cuts_it(self, tcp: Door) -> None:
        """Nobody can tell whether something is in flight."""
        sock, client, app = self.connect(tcp)
        tcp.listener.stop()
        tcp.reactor.advance(DRAIN_IDLE_SECONDS + 0.2)
        ask(tcp, sock, client, b"still here")
        assert app.sent == b"still here"
        assert tcp.listener.end_all() == 1
        tcp.reactor.turn()
        assert tcp.listener.open_connections == 0
        assert [ended.reason for ended in tcp.log.ended] == ["drain_timeout"]

    def test_client_that_cannot_be_served_is_cut_alone(
        self, made: Callable[..., Door], monkeypatch: pytest.MonkeyPatch, log: list[LogEvent]
    ) -> None:
        """In the clear a client is served in the turn that accepts it, so an error could reach the accept loop."""
        door = made(Approach(tls=False, mode=ListenerMode.TCP))
        with monkeypatch.context() as broken:
            broken.setattr(Listener, "opened", lambda *_: 1 / 0)
            unlucky = door.client_comes()
            door.turn()
        assert [event["log_failure"].type for event in log if "log_failure" in event] == [ZeroDivisionError]
        with pytest.raises(ConnectionResetError):
            unlucky.recv(1)
        assert (door.is_accepting, door.listener.open_connections) == (True, 0)
        door.client_comes()
        door.turn()
        assert door.listener.open_connections == 1

    def test_in_the_clear_it_is_the_same(self, made: Callable[..., Door]) -> None:
        """Bytes behind a PROXY header, both ends, and the header for the app."""
        door = made(behind(REQUIRED, tls=False, mode=ListenerMode.TCP))
        cast(FakeCluster, door.service.router.cluster).proxy_protocol = ProxyProtocolOut.V2
        client = door.client_from(BALANCER)
        client.sendall(NAMED_V2 + b"early")
        door.turn()
        app = door.pool.accept_raw()
        (preface,) = door.pool.prefaces
        assert preface == encode_v2(*CLIENT_ENDS, ((TlvType.UNIQUE_ID.value, b"id-1"),))
        assert app.sent == b"early"
        client.shutdown(socket.SHUT_WR)
        door.turn()
        assert app.calls == ["shut_down_writing"]
        app.deliver(b"answer")
        app.deliver_eof()
        assert received(client) == b"answer"
        assert [ended.reason for ended in door.log.ended] == [""]
