"""`proxy.pool`: which connection to the app is used, and how long it is kept."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet import error
from twisted.logger import LogLevel, capturedLogs
from twisted.python import failure

from sidecar.errors import TlsError
from sidecar.proxy import connect
from sidecar.proxy import pool as module
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.pool import IDLE_SECONDS, LOOK_SECONDS, MAX_IDLE_CONNECTIONS, Budget, Pool
from sidecar.proxy.sockets import MAX_READ_SIZE, SocketTransport
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import HostPort, Limits
from sidecar.topology import ClusterLimits
from sidecar.wire.http1 import ClientCodec
from tests.support.ports import FakeReactor, RecordingTransport, transport_of
from tests.support.upstreams import FakeSecurity, RecordingProtocol

TARGET = HostPort("127.0.0.1", 8080)


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def pool(reactor: FakeReactor) -> Pool:
    return Pool(TARGET, 2.0, Limits(), reactor)


@pytest.fixture
def connections(pool: Pool, reactor: FakeReactor) -> list[UpstreamConnection]:
    """Three connections in use."""
    return [make_upstream(pool, reactor) for _ in range(3)]


def make_upstream(pool: Pool, reactor: FakeReactor, preface: bytes = b"") -> UpstreamConnection:
    upstream = UpstreamConnection(ClientCodec(1024, 10), pool, preface)
    upstream.transport = cast(SocketTransport, RecordingTransport(reactor, upstream))
    pool._open.add(upstream)
    return upstream


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `connect.connect` was asked."""
    made: list[Any] = []
    monkeypatch.setattr(connect, "connect", lambda *args: made.append(args))
    return made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def is_closed(upstream: UpstreamConnection) -> bool:
    return transport_of(upstream).is_closed


class TestTake:
    def test_empty_pool_has_none(self, pool: Pool) -> None:
        """Nothing was handed back yet."""
        assert pool.take() is None

    def test_newest_is_used_first(self, pool: Pool, connections: list[UpstreamConnection]) -> None:
        """So that surplus connections age."""
        for upstream in connections:
            pool.release(upstream)
        assert [pool.take() for _ in range(4)] == [*reversed(connections), None]

    def test_nothing_older_than_the_limit_is_used(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An app may close it in that moment: it is closed instead, with all that are older."""
        monkeypatch.setattr(module, "_SWEEP_SECONDS", 1000.0)
        for upstream in connections:
            pool.release(upstream)
        reactor.advance(IDLE_SECONDS)
        assert pool.take() is None
        assert all(is_closed(upstream) for upstream in connections)
        assert pool.idle_count == 0

    def test_just_below_the_limit_is_used(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """The limit is exact."""
        pool.release(connections[0])
        reactor.advance(IDLE_SECONDS - 0.01)
        assert pool.take() is connections[0]


class TestPromise:
    """What the app says in Keep-Alive."""

    def promise(self, upstream: UpstreamConnection, seconds: int) -> None:
        upstream.codec.keep_alive_seconds = seconds

    @pytest.mark.parametrize(("promised", "usable"), [(5, 4.0), (2, 1.0), (60, 59.0), (301, 300.0), (86400, 300.0)])
    def test_connection_is_used_for_a_second_less_than_promised(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection], promised: int, usable: float
    ) -> None:
        """Longer or shorter than by default, never longer than five minutes."""
        first, second, _ = connections
        self.promise(first, promised)
        self.promise(second, promised)
        pool.release(first)
        assert pool.statistics.keep_alive_seconds == promised
        reactor.advance(usable - 0.01)
        assert pool.take() is first
        pool.release(second)
        reactor.advance(usable)
        assert pool.take() is None
        assert is_closed(second)

    @pytest.mark.parametrize("promised", [0, 1])
    def test_connection_that_closes_at_once_is_not_kept(
        self, pool: Pool, connections: list[UpstreamConnection], promised: int
    ) -> None:
        """There is no moment in which it could be used safely."""
        self.promise(connections[0], promised)
        pool.release(connections[0])
        assert pool.take() is None
        assert is_closed(connections[0])

    def test_older_one_with_a_longer_promise_is_used(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """Each goes by its own promise."""
        self.promise(connections[0], 60)
        pool.release(connections[0])
        pool.release(connections[1])
        reactor.advance(IDLE_SECONDS)
        assert pool.take() is connections[0]


class TestPreface:
    """Connections that began with a PROXY header: what they say about the client must be true of the next request."""

    def test_only_requests_with_the_same_one_get_it(self, pool: Pool, reactor: FakeReactor) -> None:
        """Neither those of other clients, nor those that have none."""
        ours, plain = make_upstream(pool, reactor, b"PROXY ours"), make_upstream(pool, reactor)
        pool.release(ours)
        pool.release(plain)
        assert pool.idle_count == 2
        assert pool.take(b"PROXY another") is None
        assert pool.take() is plain
        assert pool.take() is None
        assert pool.take(b"PROXY ours") is ours
        assert pool.idle_count == 0

    def test_newest_fresh_one_is_used(self, pool: Pool, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> None:
        """As with the others; one that is too old is not."""
        monkeypatch.setattr(module, "_SWEEP_SECONDS", 1000.0)
        first, second = (make_upstream(pool, reactor, b"PROXY") for _ in range(2))
        pool.release(first)
        pool.release(second)
        assert pool.take(b"PROXY") is second
        reactor.advance(IDLE_SECONDS)
        assert pool.take(b"PROXY") is None

    def test_surplus_is_the_oldest(self, pool: Pool, reactor: FakeReactor) -> None:
        """Its client is the likeliest to have left, and nobody else can use it."""
        all_of_them = [make_upstream(pool, reactor, b"PROXY %d" % i) for i in range(MAX_IDLE_CONNECTIONS + 1)]
        for upstream in all_of_them:
            pool.release(upstream)
        assert [is_closed(upstream) for upstream in all_of_them].index(False) == 1
        assert pool.idle_count == MAX_IDLE_CONNECTIONS

    def test_they_age_are_forgotten_and_stopped_as_the_others(self, pool: Pool, reactor: FakeReactor) -> None:
        """None of them stays behind."""
        aged, lost, stopped = (make_upstream(pool, reactor, b"PROXY %d" % i) for i in range(3))
        pool.release(aged)
        reactor.pump([1.0] * 4)
        assert is_closed(aged)
        pool.release(lost)
        pool.release(stopped)
        transport_of(lost).reset()
        assert pool.idle_count == 1
        pool.stop()
        reactor.turn()
        assert is_closed(stopped)
        assert (pool.open_count, pool.idle_count, reactor.pending) == (0, 0, 0)

    def test_new_connection_begins_with_it(
        self, pool: Pool, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """Before anything else."""
        outcomes: list[Any] = []
        pool.connect(outcomes.append, b"PROXY UNKNOWN\r\n")
        made[0][3](pair[0])
        outcomes[0].transport.write(b"GET")
        assert pair[1].recv(100) == b"PROXY UNKNOWN\r\nGET"
        assert outcomes[0].preface == b"PROXY UNKNOWN\r\n"


class TestRelease:
    def test_aged_ones_are_swept(self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]) -> None:
        """Without any request, idle connections go in time, each by its own age."""
        pool.release(connections[0])
        reactor.advance(2.5)
        pool.release(connections[1])
        reactor.pump([0.5, 1.0, 1.0])
        assert [is_closed(upstream) for upstream in connections] == [True, False, False]
        reactor.pump([1.0, 1.0, 1.0])
        assert is_closed(connections[1])
        assert pool.idle_count == 0
        assert pool.open_count == 1
        assert not reactor.pending

    def test_surplus_is_closed(self, pool: Pool, reactor: FakeReactor) -> None:
        """The number of idle connections is bounded."""
        for _ in range(MAX_IDLE_CONNECTIONS):
            pool.release(make_upstream(pool, reactor))
        surplus = make_upstream(pool, reactor)
        pool.release(surplus)
        assert is_closed(surplus)
        assert pool.idle_count == MAX_IDLE_CONNECTIONS

    def test_closed_one_is_not_kept(self, pool: Pool, connections: list[UpstreamConnection]) -> None:
        """A connection that broke in its last moment is not handed out."""
        connections[0].transport.loseConnection()
        pool.release(connections[0])
        assert pool.idle_count == 0

    def test_idle_one_that_the_app_closes_is_forgotten(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """The app may close what nobody uses."""
        for upstream in connections:
            pool.release(upstream)
        transport_of(connections[2]).deliver_eof()
        assert pool.take() is connections[1]
        transport_of(connections[0]).reset()
        assert pool.take() is None
        reactor.turn()
        assert pool.open_count == 1

    def test_idle_one_that_says_something_is_closed(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """Bytes that answer nothing must not answer the next request."""
        pool.release(connections[0])
        transport_of(connections[0]).deliver(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert is_closed(connections[0])
        assert pool.take() is None


class Nobody:
    def upstream_lost(self) -> None: ...


class TestSecure:
    """TLS to the app, and what a reload makes of it."""

    def test_connection_is_made_with_it(
        self, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """What is handed out is the TLS connection, once it is established."""
        security = FakeSecurity()
        pool = Pool(TARGET, 2.0, Limits(), reactor, security=security)
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        made[0][3](pair[0])
        assert (outcomes, pool.pending_count, pool.open_count) == ([], 1, 0)
        security.established(None)
        assert [outcome.transport for outcome in outcomes] == [security.tls]
        assert (pool.pending_count, pool.open_count) == (0, 1)

    def test_other_trust_ends_what_rests_on_the_old(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """Idle connections close at once, those in use after their exchange."""
        in_use, idle, _ = connections
        pool.release(idle)
        pool.secure(FakeSecurity())
        assert is_closed(idle)
        assert not is_closed(in_use)
        pool.release(in_use)
        assert is_closed(in_use)
        assert pool.idle_count == 0

    def test_same_trust_changes_nothing(self, pool: Pool, connections: list[UpstreamConnection]) -> None:
        """A reload that is about something else costs no connections."""
        pool.release(connections[0])
        pool.secure(None)
        assert pool.take() is connections[0]

    def test_connection_that_was_begun_with_the_old_serves_once(
        self, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """It is handed to whoever waits for it, and not kept."""
        old = FakeSecurity()
        pool = Pool(TARGET, 2.0, Limits(), reactor, security=old)
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        made[0][3](pair[0])
        pool.secure(FakeSecurity())
        old.established(None)
        pool.release(outcomes[0])
        assert pool.idle_count == 0
        assert old.tls.calls[-1] == "lose"


class TestRaw:
    def test_it_counts_and_is_forgotten(
        self, pool: Pool, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """It is open, moves bytes, is never idle; and its protocol hears everything."""
        protocol, outcomes = RecordingProtocol(), list[Any]()
        pool.connect_raw(protocol, outcomes.append, b"PROXY")
        assert pool.pending_count == 1
        made[0][3](pair[0])
        (transport,) = outcomes
        transport.write(b" raw")
        pair[1].sendall(b"hello")
        transport.doRead()
        assert protocol.received == b"hello"
        assert pair[1].recv(100) == b"PROXY raw"
        assert (pool.open_count, pool.idle_count, pool.bytes_moved()) == (1, 0, (5, 9))
        transport.abortConnection()
        reactor.turn()
        assert protocol.calls == ["lost"]
        assert (pool.open_count, pool.bytes_moved()) == (0, (5, 9))

    def test_failure_is_told_as_that_of_any_other(self, pool: Pool, made: list[Any]) -> None:
        """With the address; the protocol hears of nothing."""
        protocol, outcomes = RecordingProtocol(), list[Any]()
        pool.connect_raw(protocol, outcomes.append)
        made[0][3](ConnectFailed("upstream_unreachable", "no route"))
        assert [str(outcome) for outcome in outcomes] == [f"{TARGET}: no route"]
        assert protocol.calls == []


class TestLook:
    SETTINGS = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"

    def look(self, pool: Pool, made: list[Any], sock: socket.socket) -> SocketTransport:
        pool.look()
        made[-1][3](sock)
        (connection,) = pool._open
        assert isinstance(connection.transport, SocketTransport)
        return connection.transport

    def test_connection_is_enough(self, pool: Pool, made: list[Any], pair: tuple[socket.socket, socket.socket]) -> None:
        """An app that serves one client at a time is not kept waiting by us."""
        assert not self.look(pool, made, pair[0]).is_open
        assert pool.statistics.last_error == ""

    def test_app_that_still_speaks_http2_is_still_wrong(
        self, pool: Pool, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """A connection alone would make it look well again."""
        pool.misfits(ConnectFailed("upstream_not_http1", "it speaks HTTP/2"))
        assert pool.statistics.last_error
        transport = self.look(pool, made, pair[0])
        assert transport.is_open
        pair[1].sendall(self.SETTINGS)
        transport.doRead()
        assert "write h2c://" in pool.statistics.last_error
        assert not transport.is_open
        assert pool.statistics.failures == {"upstream_not_http1": 2}
        reactor.advance(LOOK_SECONDS)

    @pytest.mark.parametrize("says", [b"", b"220 smtp\r\n"], ids=["nothing", "something else"])
    def test_app_that_says_nothing_of_the_kind_is_believed(
        self, pool: Pool, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket], says: bytes
    ) -> None:
        """It was replaced by one that speaks HTTP/1.1, for all we know."""
        pool.misfits(ConnectFailed("upstream_not_http1", "it speaks HTTP/2"))
        transport = self.look(pool, made, pair[0])
        if says:
            pair[1].sendall(says)
            transport.doRead()
        reactor.advance(LOOK_SECONDS)
        reactor.turn()
        assert not transport.is_open
        assert (pool.statistics.last_error, pool.open_count) == ("", 0)


class TestBytesMoved:
    def test_bytes_of_what_is_gone_still_count(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """A counter never goes back, and counts nothing twice."""
        for upstream in connections:
            transport_of(upstream).write(b"request")
            transport_of(upstream).bytes_received = 100
        assert pool.bytes_moved() == (300, 21)
        transport_of(connections[0]).reset()
        reactor.turn()
        pool.forget(connections[0])
        assert pool.open_count == 2
        assert pool.bytes_moved() == (300, 21)
        transport_of(connections[1]).write(b"more")
        assert pool.bytes_moved() == (300, 25)


class TestStop:
    def test_idle_ones_close_and_no_timer_is_left(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """A pool that is stopped holds nothing."""
        pool.release(connections[0])
        pool.stop()
        pool.stop()
        reactor.turn()
        assert is_closed(connections[0])
        assert not reactor.pending

    def test_others_do_not_look_to_it_for_room(self, reactor: FakeReactor) -> None:
        """A cluster whose endpoints come and go does not collect their pools."""
        budget = Budget(ClusterLimits())
        pools = [Pool(TARGET, 2.0, Limits(), reactor, budget=budget) for _ in range(3)]
        pools[1].stop()
        pools[1].stop()
        assert budget.pools == [pools[0], pools[2]]

    def test_leased_ones_close_on_their_return(self, pool: Pool, connections: list[UpstreamConnection]) -> None:
        """What runs is finished first."""
        pool.stop()
        assert not is_closed(connections[0])
        pool.release(connections[0])
        assert is_closed(connections[0])


class TestConnect:
    def test_connection_is_counted_and_open(
        self, pool: Pool, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """A made connection is polled, counted, and handed over."""
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        target, timeout, _, done, locate = made[0]
        assert (target, timeout, locate) == (TARGET, 2.0, None)
        done(pair[0])
        (upstream,) = outcomes
        assert reactor.readers == {upstream.transport}
        assert upstream.transport._max_read_size == MAX_READ_SIZE
        assert (pool.open_count, pool.idle_count, pool.statistics.connects) == (1, 0, 1)
        upstream.close()
        reactor.turn()
        assert pool.open_count == 0

    def test_failure_is_counted(self, pool: Pool, made: list[Any]) -> None:
        """A failed attempt is handed over with the address that it was for."""
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        why = ConnectFailed("upstream_unreachable", "no route")
        made[0][3](why)
        assert [(failed.reason, str(failed)) for failed in outcomes] == [(why.reason, f"{pool.target}: no route")]
        assert (pool.open_count, pool.statistics.connect_failures) == (0, 1)

    def test_failures_are_told_by_reason_until_one_works(
        self, pool: Pool, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """The counts stay; the last error goes, for the app is back."""
        for reason in ("upstream_unreachable", "upstream_timeout", "upstream_timeout"):
            pool.connect(lambda outcome: None)
            assert pool.pending_count == 1
            made[-1][3](ConnectFailed(reason, f"{reason} in words"))
        statistics = pool.statistics
        assert statistics.failures == {"upstream_unreachable": 1, "upstream_timeout": 2}
        assert (statistics.last_error, pool.pending_count) == ("upstream_timeout in words", 0)
        pool.connect(lambda outcome: None)
        made[-1][3](pair[0])
        assert statistics.last_error == ""
        assert statistics.connect_failures == 3

    def test_app_that_never_answered_has_not_started(
        self, pool: Pool, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """Clients may try again soon; once it has taken a connection, a refusal is a failure."""
        outcomes: list[Any] = []
        refused = ConnectFailed("upstream_connect_refused", "Connection refused")
        for outcome in (refused, pair[0], refused):
            pool.connect(outcomes.append)
            made[-1][3](outcome)
        assert [outcomes[0].reason, outcomes[2].reason] == ["upstream_not_started", "upstream_connect_refused"]

    def test_limit_counts_open_ones_and_attempts(
        self, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """One connection over the limit is refused, later and without an attempt; one that ends makes room."""
        pool = Pool(TARGET, 2.0, Limits(upstream_connections=2), reactor)
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        pool.connect(outcomes.append)
        pool.connect(outcomes.append)
        assert len(made) == 2
        assert outcomes == []
        reactor.turn()
        assert outcomes.pop().reason == "upstream_overflow"
        assert pool.statistics.failures == {"upstream_overflow": 1}
        assert pool.statistics.last_error == ""  # the app can be reached
        made[0][3](pair[0])
        made[1][3](ConnectFailed("upstream_unreachable", "no route"))
        pool.connect(outcomes.append)
        assert len(made) == 3
        outcomes[0].close()
        reactor.turn()
        pool.connect(outcomes.append)
        assert len(made) == 4

    def test_limits_are_those_of_all_pools_together(
        self, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """The endpoints of a cluster share them; what a failed attempt and a closed connection had is free again."""
        budget = Budget(ClusterLimits(connections=2, pending_requests=10))
        one, other = (Pool(TARGET, 2.0, Limits(), reactor, budget=budget, name="cluster x") for _ in range(2))
        outcomes: list[Any] = []
        for pool in (one, other, one):
            pool.connect(outcomes.append)
        reactor.turn()
        assert [str(outcome) for outcome in outcomes] == ["cluster x: 2 connections are open, the limit"]
        made[0][3](pair[0])
        made[1][3](ConnectFailed("upstream_unreachable", "no route"))
        assert (budget.connections, budget.pending) == (1, 0)
        outcomes[1].close()
        reactor.turn()
        assert budget.connections == 0

    def test_requests_that_wait_are_limited(self, reactor: FakeReactor, made: list[Any]) -> None:
        """A cluster that accepts nothing does not hold any number of them."""
        budget = Budget(ClusterLimits(connections=10, pending_requests=1))
        pool = Pool(TARGET, 2.0, Limits(), reactor, budget=budget)
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        pool.connect(outcomes.append)
        reactor.turn()
        assert [(outcome.reason, str(outcome)) for outcome in outcomes] == [
            ("upstream_overflow", "the app: 1 requests wait for a connection, the limit")
        ]

    def test_idle_connection_makes_room_for_another_endpoint(
        self, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """Whose turn it is must not fail for connections that nobody uses, wherever they lead."""
        budget = Budget(ClusterLimits(connections=1))
        idle, needy = (Pool(TARGET, 2.0, Limits(), reactor, budget=budget) for _ in range(2))
        outcomes: list[Any] = []
        idle.connect(outcomes.append)
        made[0][3](pair[0])
        idle.release(outcomes.pop())
        needy.connect(outcomes.append)
        assert len(made) == 2
        assert (idle.idle_count, idle.open_count, budget.connections) == (0, 0, 1)
        reactor.turn()
        assert outcomes == []
        assert budget.connections == 1

    def test_tls_that_breaks_before_the_first_answer_is_told(
        self, pool: Pool, reactor: FakeReactor, connections: list[UpstreamConnection]
    ) -> None:
        """A TLS 1.3 server refuses our certificate only then; later, and while idle, connections may end as they do."""
        refused = failure.Failure(TlsError("certificate_refused", "the upstream refused our certificate"))
        first, reused, idle = connections
        for each in (reused, idle):
            pool.release(each)
        pool.take()
        pool.take()
        pool.release(idle)
        with capturedLogs() as logs:
            for each in (first, reused):
                each.lease(cast(Any, Nobody()))
                each.codec.expect_response(b"GET", ())
                each.connectionLost(refused)
            idle.connectionLost(refused)
        assert pool.statistics.failures == {"upstream_tls_failed": 1}
        assert pool.statistics.last_error == first.broken_by == "the upstream refused our certificate"
        assert [event["why"] for event in logs if event["log_level"] is LogLevel.warn] == [first.broken_by]

    def test_nothing_is_kept_of_a_connection_that_ended(
        self, pool: Pool, reactor: FakeReactor, made: list[Any], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """No reference cycle is left for the collector."""
        outcomes: list[Any] = []
        pool.connect(outcomes.append)
        made.pop()[3](pair[0].dup())
        pool.release(outcomes[0])
        outcomes[0].transport.connectionLost(failure.Failure(error.ConnectionLost()))
        gone = weakref.ref(outcomes[0].transport._socket)  # which it alone keeps, and itself has no weak references
        pool.stop()
        gc.disable()
        try:
            outcomes.clear()
            assert gone() is None
        finally:
            gc.enable()
