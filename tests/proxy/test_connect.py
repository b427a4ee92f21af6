"""`proxy.connect`: to an address, or why not; loopback sockets and a reactor that the test turns by hand."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python import failure

from sidecar.proxy import connect as module
from sidecar.proxy.connect import UNIX_RETRY_SECONDS, ConnectFailed, Way, connect, numeric_addresses, open_stream
from sidecar.settings import HostPort, UnixPath
from tests.support.ports import FakeReactor
from tests.support.upstreams import FakeRefusal, FakeSecurity, RecordingProtocol


class Outcomes(list[Any]):
    """What `done` was called with; closes the sockets."""

    def close(self) -> None:
        for outcome in self:
            if isinstance(outcome, socket.socket):
                outcome.close()


@pytest.fixture
def outcomes() -> Iterator[Outcomes]:
    outcomes = Outcomes()
    yield outcomes
    outcomes.close()


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def address_of(server: socket.socket) -> HostPort:
    return HostPort(*server.getsockname()[:2])


def report_writable(reactor: FakeReactor) -> None:
    for attempt in list(reactor.writers):
        attempt.doWrite()
    reactor.turn()


class FakeThreads:
    """Resolves names at once, in place of `deferToThreadPool`."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def deferToThreadPool(self, reactor: Any, pool: Any, call: Any, *args: Any, **named: Any) -> Any:
        from twisted.internet.defer import maybeDeferred

        self.asked.append(args)
        return maybeDeferred(self.answer)


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch, reactor: FakeReactor) -> Callable[[Callable[[], Any]], FakeThreads]:
    def use(answer: Callable[[], Any]) -> FakeThreads:
        fake = FakeThreads(answer)
        monkeypatch.setattr(module, "threads", fake)
        monkeypatch.setattr(reactor, "getThreadPool", lambda: None, raising=False)
        return fake

    return use


def found(*addresses: tuple[str, int]) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]


class Doors:
    """Three listening sockets at whose addresses an attempt can be silent; they notice that it was made."""

    def __init__(self) -> None:
        self._servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self._came: list[socket.socket] = []
        for server in self._servers:
            server.setblocking(False)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [server.getsockname() for server in self._servers]

    def tried(self) -> int:
        """How many attempts there have been; each server has at most one, in order."""
        while len(self._came) < len(self._servers):
            try:
                self._came.append(self._servers[len(self._came)].accept()[0])
            except BlockingIOError:
                break
        return len(self._came)

    def close(self) -> None:
        for sock in (*self._servers, *self._came):
            sock.close()


@pytest.fixture
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    doors.close()


class FullDoor:
    """A Unix socket whose backlog is full."""

    def __init__(self, path: Path) -> None:
        self.path = UnixPath(str(path))
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path.path)
        self._server.listen(0)
        self._server.setblocking(False)
        self._sockets = [self._server]
        while True:
            self._sockets.append(socket.socket(socket.AF_UNIX))
            self._sockets[-1].setblocking(False)
            if self._sockets[-1].connect_ex(self.path.path):
                break

    def accept(self) -> None:
        """Make room for one."""
        self._sockets.append(self._server.accept()[0])

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[FullDoor]:
    full = FullDoor(tmp_path / "app.sock")
    yield full
    full.close()


class TestUnixBacklog:
    def test_full_backlog_is_tried_again(self, reactor: FakeReactor, outcomes: Outcomes, full: FullDoor) -> None:
        """An app that is busy for a moment costs a moment: the attempt is repeated until there is room."""
        connect(full.path, 2.0, reactor, outcomes.append)
        for _ in range(5):
            reactor.advance(UNIX_RETRY_SECONDS)
            assert not reactor.writers
            assert outcomes == []
        full.accept()
        reactor.advance(UNIX_RETRY_SECONDS)
        report_writable(reactor)
        assert outcomes[0].getpeername() == full.path.path
        reactor.advance(3.0)
        assert len(outcomes) == 1
        assert not reactor.pending

    def test_backlog_that_stays_full_is_a_timeout(
        self, reactor: FakeReactor, outcomes: Outcomes, full: FullDoor
    ) -> None:
        """An app that never accepts is given up in time, and nothing goes on trying."""
        connect(full.path, 2.0, reactor, outcomes.append)
        reactor.pump([UNIX_RETRY_SECONDS] * 99)
        assert outcomes == []
        reactor.pump([UNIX_RETRY_SECONDS] * 3)
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_timeout"]
        full.accept()
        reactor.advance(1.0)
        assert len(outcomes) == 1
        assert not reactor.pending
        assert not reactor.writers

    def test_app_that_goes_away_meanwhile_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, full: FullDoor
    ) -> None:
        """A backlog that closes while we wait for it is a refusal, at once."""
        connect(full.path, 2.0, reactor, outcomes.append)
        full.close()
        reactor.advance(UNIX_RETRY_SECONDS)
        reactor.turn()
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_refused"]
        assert not reactor.pending

    def test_no_descriptor_is_held_while_waiting(
        self, reactor: FakeReactor, outcomes: Outcomes, full: FullDoor
    ) -> None:
        """Who waits for room holds no socket meanwhile."""
        before = len(os.listdir("/proc/self/fd"))
        connect(full.path, 2.0, reactor, outcomes.append)
        assert len(os.listdir("/proc/self/fd")) == before
        reactor.advance(5.0)


class TestNumericAddresses:
    @pytest.mark.parametrize(
        ("target", "addresses"),
        [
            (HostPort("127.0.0.1", 80), [(socket.AF_INET, ("127.0.0.1", 80))]),
            (HostPort("::1", 80), [(socket.AF_INET6, ("::1", 80))]),
            (UnixPath("/run/app.sock"), [(socket.AF_UNIX, "/run/app.sock")]),
            (HostPort("localhost", 80), None),
            (HostPort("127.1", 80), None),
        ],
        ids=["IPv4", "IPv6", "unix", "name", "short form"],
    )
    def test_only_names_take_a_look_up(self, target: HostPort | UnixPath, addresses: Any) -> None:
        """An address is known as it stands; anything else is a name."""
        assert numeric_addresses(target) == addresses


class TestConnect:
    def test_connected_socket_is_handed_over(
        self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket
    ) -> None:
        """The outcome is a connected, non-blocking socket that nobody polls, and no timer is left."""
        connect(address_of(server), 2.0, reactor, outcomes.append)
        report_writable(reactor)
        (sock,) = outcomes
        assert sock.getpeername() == server.getsockname()
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not reactor.writers
        assert not reactor.pending

    def test_done_is_never_called_from_inside(
        self, reactor: FakeReactor, outcomes: Outcomes, tmp_path: Path, closed_port: int
    ) -> None:
        """Also what fails at once is told in a later turn."""
        connect(UnixPath(str(tmp_path / "none")), 2.0, reactor, outcomes.append)
        connect(HostPort("127.0.0.1", closed_port), 2.0, reactor, outcomes.append)
        assert outcomes == []
        report_writable(reactor)
        assert len(outcomes) == 2

    def test_refused_is_told(self, reactor: FakeReactor, outcomes: Outcomes, closed_port: int) -> None:
        """Nobody listens."""
        connect(HostPort("127.0.0.1", closed_port), 2.0, reactor, outcomes.append)
        report_writable(reactor)
        assert outcomes[0].reason == "upstream_connect_refused"
        assert str(outcomes[0]) == "Connection refused"
        assert not reactor.pending

    def test_hang_up_reported_by_the_poller_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, closed_port: int
    ) -> None:
        """A poller that reports a failed connect as a lost connection has the same outcome."""
        connect(HostPort("127.0.0.1", closed_port), 2.0, reactor, outcomes.append)
        for attempt in list(reactor.writers):
            reactor.removeWriter(attempt)
            attempt.connectionLost(failure.Failure(ConnectionLost()))
        reactor.turn()
        assert outcomes[0].reason == "upstream_connect_refused"

    def test_missing_unix_socket_is_refused(self, reactor: FakeReactor, outcomes: Outcomes, tmp_path: Path) -> None:
        """A path without a socket is an app that does not run."""
        connect(UnixPath(str(tmp_path / "none")), 2.0, reactor, outcomes.append)
        reactor.turn()
        assert outcomes[0].reason == "upstream_connect_refused"
        assert str(outcomes[0]) == "No such file or directory"

    def test_unix_socket_is_connected(self, reactor: FakeReactor, outcomes: Outcomes, tmp_path: Path) -> None:
        """A Unix socket is an address like any other."""
        path = str(tmp_path / "app.sock")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            connect(UnixPath(path), 2.0, reactor, outcomes.append)
            report_writable(reactor)
        assert outcomes[0].getpeername() == path

    def test_too_long_unix_path_is_told(self, reactor: FakeReactor, outcomes: Outcomes) -> None:
        """A path that the kernel cannot take costs a 502, not a traceback."""
        connect(UnixPath("/" + "x" * 200), 2.0, reactor, outcomes.append)
        reactor.turn()
        assert outcomes[0].reason == "upstream_unreachable"

    def test_silence_is_a_timeout(self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket) -> None:
        """An address that does not answer is given up in time, and its socket is closed."""
        connect(address_of(server), 2.0, reactor, outcomes.append)
        (attempt,) = reactor.writers
        reactor.advance(1.9)
        assert outcomes == []
        reactor.advance(0.2)
        reactor.turn()
        assert outcomes[0].reason == "upstream_connect_timeout"
        assert str(outcomes[0]) == "no connection within 2 s"
        assert attempt.fileno() == -1
        assert not reactor.writers

    def test_no_descriptor_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Running out of descriptors costs this request a 502."""

        def none_left(*args: Any) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(module.socket, "socket", none_left)
        connect(HostPort("127.0.0.1", 1), 2.0, reactor, outcomes.append)
        monkeypatch.undo()
        reactor.turn()
        assert outcomes[0].reason == "upstream_unreachable"
        assert str(outcomes[0]) == "Too many open files"

    def test_socket_that_cannot_be_polled_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A poller that takes no more costs this request a 502, and leaves no descriptor open."""
        made: list[socket.socket] = []

        def refuse(writer: Any) -> None:
            made.append(writer._socket)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(reactor, "addWriter", refuse)
        connect(address_of(server), 2.0, reactor, outcomes.append)
        reactor.turn()
        assert [outcome.reason for outcome in outcomes] == ["upstream_unreachable"]
        assert [sock.fileno() for sock in made] == [-1]
        assert not reactor.pending


class TestNames:
    def test_addresses_are_tried_in_order(
        self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket, closed_port: int, resolve: Any
    ) -> None:
        """One address that refuses does not keep the next from being tried."""
        fake = resolve(lambda: found(("127.0.0.1", closed_port), server.getsockname()))
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append)
        report_writable(reactor)
        report_writable(reactor)
        assert outcomes[0].getpeername() == server.getsockname()
        assert fake.asked == [("app", 80)]

    def test_last_failure_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, closed_port: int, resolve: Any
    ) -> None:
        """Where none answers, the last one says why."""
        resolve(lambda: found(("127.0.0.1", closed_port), ("127.0.0.1", closed_port)))
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append)
        report_writable(reactor)
        report_writable(reactor)
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_refused"]

    def test_deadline_is_for_all_addresses(
        self, reactor: FakeReactor, outcomes: Outcomes, doors: Doors, resolve: Any
    ) -> None:
        """Addresses that are silent share the time, in order and evenly; more of them do not take more of it."""
        resolve(lambda: found(*doors.addresses))
        connect(HostPort("app", 80), 3.0, reactor, outcomes.append)
        for count in (1, 2, 3):
            assert doors.tried() == count
            reactor.advance(0.9)
            assert doors.tried() == count
            assert len(reactor.writers) == 1
            assert outcomes == []
            reactor.advance(0.1)
        reactor.turn()
        assert [(outcome.reason, str(outcome)) for outcome in outcomes] == [
            ("upstream_connect_timeout", "no connection within 3 s")
        ]
        assert not reactor.writers
        assert not reactor.pending

    def test_silent_address_leaves_the_next_its_share(
        self, reactor: FakeReactor, outcomes: Outcomes, doors: Doors, resolve: Any
    ) -> None:
        """A second address that answers late in its share is connected, and the first one's socket is closed."""
        resolve(lambda: found(*doors.addresses[:2]))
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append)
        (attempt,) = reactor.writers
        silent = attempt._socket
        reactor.advance(1.0)
        assert silent.fileno() == -1
        reactor.advance(0.9)
        report_writable(reactor)
        assert outcomes[0].getpeername() == doors.addresses[1]
        assert not reactor.pending

    def test_time_that_an_address_did_not_use_is_the_others(
        self, reactor: FakeReactor, outcomes: Outcomes, doors: Doors, closed_port: int, resolve: Any
    ) -> None:
        """An address that refuses at once leaves all of its share."""
        resolve(lambda: found(("127.0.0.1", closed_port), *doors.addresses[:2]))
        connect(HostPort("app", 80), 3.0, reactor, outcomes.append)
        report_writable(reactor)
        reactor.advance(1.4)
        assert doors.tried() == 1
        reactor.advance(0.2)
        assert doors.tried() == 2
        reactor.advance(1.3)
        report_writable(reactor)
        assert outcomes[0].getpeername() == doors.addresses[1]

    def test_time_of_the_look_up_is_shared_too(
        self, reactor: FakeReactor, outcomes: Outcomes, doors: Doors, resolve: Any
    ) -> None:
        """What a slow resolver took is not added to the deadline."""
        from twisted.internet.defer import Deferred

        answer: Deferred[Any] = Deferred()
        resolve(lambda: answer)
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append)
        reactor.advance(1.0)
        answer.callback(found(*doors.addresses[:2]))
        reactor.advance(0.4)
        assert doors.tried() == 1
        reactor.advance(0.2)
        assert doors.tried() == 2
        reactor.advance(0.5)
        reactor.turn()
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_timeout"]
        assert not reactor.pending

    def test_refusal_behind_a_silent_address_is_told(
        self, reactor: FakeReactor, outcomes: Outcomes, doors: Doors, closed_port: int, resolve: Any
    ) -> None:
        """Where none answers, the last one says why, also behind one that was given up."""
        resolve(lambda: found(doors.addresses[0], ("127.0.0.1", closed_port)))
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append)
        reactor.advance(1.0)
        report_writable(reactor)
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_refused"]
        assert not reactor.pending

    def test_unknown_name_is_told(self, reactor: FakeReactor, outcomes: Outcomes, resolve: Any) -> None:
        """A name that cannot be resolved is in the log, with the resolver's reason."""

        def unknown() -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        resolve(unknown)
        connect(HostPort("nowhere", 80), 2.0, reactor, outcomes.append)
        reactor.turn()
        assert outcomes[0].reason == "upstream_unreachable"
        assert str(outcomes[0]).startswith("nowhere cannot be resolved: ")

    def test_name_without_addresses_is_told(self, reactor: FakeReactor, outcomes: Outcomes, resolve: Any) -> None:
        """An empty answer is no answer."""
        resolve(list)
        connect(HostPort("empty", 80), 2.0, reactor, outcomes.append)
        reactor.turn()
        assert isinstance(outcomes[0], ConnectFailed)
        assert str(outcomes[0]) == "the name has no addresses"

    @pytest.mark.parametrize("late", ["found", "failed"])
    def test_late_answer_is_ignored(self, reactor: FakeReactor, outcomes: Outcomes, resolve: Any, late: str) -> None:
        """A resolver that answers after the deadline changes nothing."""
        from twisted.internet.defer import Deferred

        answer: Deferred[Any] = Deferred()
        resolve(lambda: answer)
        connect(HostPort("slow", 80), 2.0, reactor, outcomes.append)
        reactor.advance(2.1)
        reactor.turn()
        if late == "found":
            answer.callback(found(("127.0.0.1", 1)))
        else:
            answer.errback(failure.Failure(socket.gaierror(-3, "try again")))
        reactor.turn()
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_timeout"]
        assert not reactor.writers


class TestLocate:
    """Where somebody else knows the addresses."""

    def test_addresses_may_come_later(
        self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket, closed_port: int
    ) -> None:
        """They are tried in order, in what is left of the time."""
        waiting: list[Any] = []
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append, waiting.append)
        reactor.advance(1.9)
        assert outcomes == []
        closed = (socket.AF_INET, ("127.0.0.1", closed_port))
        waiting[0].start([closed, (socket.AF_INET, server.getsockname())])
        report_writable(reactor)
        report_writable(reactor)
        assert outcomes[0].getpeername() == server.getsockname()
        assert not reactor.pending

    def test_they_count_even_for_an_address_that_needs_no_look_up(
        self, reactor: FakeReactor, outcomes: Outcomes, server: socket.socket
    ) -> None:
        """Who knows, knows better."""
        address = (socket.AF_INET, server.getsockname())
        connect(HostPort("192.0.2.1", 80), 2.0, reactor, outcomes.append, lambda attempt: attempt.start([address]))
        report_writable(reactor)
        assert outcomes[0].getpeername() == server.getsockname()

    def test_nobody_knows(self, reactor: FakeReactor, outcomes: Outcomes) -> None:
        """The reason is theirs; it comes in a later turn."""
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append, lambda attempt: attempt.fail("none", "no address"))
        assert outcomes == []
        reactor.turn()
        assert [(outcome.reason, str(outcome)) for outcome in outcomes] == [("none", "no address")]

    def test_answer_that_comes_too_late_changes_nothing(self, reactor: FakeReactor, outcomes: Outcomes) -> None:
        """Who waits has heard already."""
        waiting: list[Any] = []
        connect(HostPort("app", 80), 2.0, reactor, outcomes.append, waiting.append)
        reactor.advance(2.0)
        reactor.turn()
        waiting[0].fail("none", "no address")
        reactor.turn()
        assert [outcome.reason for outcome in outcomes] == ["upstream_connect_timeout"]


class Streams:
    """Streams being opened to one address, and what became of them."""

    def __init__(self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reactor = reactor
        self.security = FakeSecurity()
        self.protocol = RecordingProtocol()
        self.outcomes: list[Any] = []
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self._connected: list[Any] = []
        monkeypatch.setattr(module, "connect", lambda *args: self._connected.append(args))

    def open(self, *, secure: bool, preface: Any = b"") -> None:
        way = Way(target=HostPort("app", 443), timeout_seconds=2.0, security=self.security if secure else None)
        open_stream(way, self.protocol, self.reactor, self.outcomes.append, preface)

    def connected(self, outcome: Any = None) -> None:
        self._connected[0][3](outcome or self.ours)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def streams(reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    streams = Streams(reactor, monkeypatch)
    yield streams
    streams.close()


class TestOpenStream:
    def test_plain_one_is_ready_when_it_is_connected(self, streams: Streams) -> None:
        """What it begins with has been sent by then, before anything that is written on it."""
        streams.open(secure=False, preface=b"PROXY ")
        streams.connected()
        (transport,) = streams.outcomes
        transport.write(b"GET")
        assert streams.theirs.recv(100) == b"PROXY GET"
        assert transport.protocol is streams.protocol
        assert not streams.reactor.pending

    def test_what_it_begins_with_may_depend_on_the_socket(self, streams: Streams) -> None:
        """Its own address is not known earlier."""
        asked: list[Any] = []
        streams.open(secure=False, preface=lambda sock: asked.append(sock) or b"from here")
        streams.connected()
        assert streams.theirs.recv(100) == b"from here"
        assert asked == [streams.ours]

    @pytest.mark.parametrize("secure", [False, True])
    def test_failed_connection_is_handed_on(self, streams: Streams, secure: bool) -> None:
        """As it is; TLS is not begun."""
        why = ConnectFailed("upstream_unreachable", "no route")
        streams.open(secure=secure)
        streams.connected(why)
        assert streams.outcomes == [why]
        assert streams.security.asked is None

    def test_tls_begins_behind_the_preface(self, streams: Streams) -> None:
        """A PROXY header is for whoever is in front of TLS; the name is the one that was set."""
        streams.open(secure=True, preface=b"PROXY ")
        streams.connected()
        assert streams.security.asked == (HostPort("app", 443), streams.protocol)
        assert streams.theirs.recv(100) == b"PROXY "
        assert streams.security.tls.calls == ["start"]
        assert streams.security.tls.transport.protocol is streams.security.tls.receiver
        assert streams.outcomes == []

    def test_established_tls_is_the_transport(self, streams: Streams) -> None:
        """From then on there is no deadline."""
        streams.open(secure=True)
        streams.connected()
        streams.security.established(None)
        assert streams.outcomes == [streams.security.tls]
        assert not streams.reactor.pending

    def test_refused_tls_says_why(self, streams: Streams) -> None:
        """With a reason of its own: the app is there."""
        streams.open(secure=True)
        streams.connected()
        streams.security.established(FakeRefusal("the certificate is for b.internal, not for app"))
        (why,) = streams.outcomes
        assert (why.reason, str(why)) == (
            "upstream_tls_failed",
            "TLS: the certificate is for b.internal, not for app",
        )
        assert not streams.reactor.pending

    def test_deadline_is_for_tcp_and_tls_together(self, streams: Streams) -> None:
        """A server that accepts and says nothing costs no more than one that does not accept."""
        streams.open(secure=True)
        streams.reactor.advance(1.5)
        streams.connected()
        streams.reactor.advance(0.4)
        assert streams.outcomes == []
        streams.reactor.advance(0.1)
        (why,) = streams.outcomes
        assert (why.reason, str(why)) == ("upstream_tls_failed", "TLS: the handshake was not done within 2 s")
        assert streams.security.tls.calls == ["start", "abort"]

    @pytest.mark.parametrize("refusal", [None, FakeRefusal("too late")])
    def test_nothing_is_told_after_the_deadline(self, streams: Streams, refusal: FakeRefusal | None) -> None:
        """The outcome is one."""
        streams.open(secure=True)
        streams.connected()
        streams.reactor.advance(2.0)
        streams.security.established(refusal)
        assert len(streams.outcomes) == 1
