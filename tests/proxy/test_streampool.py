"""`proxy.streampool`: on which connection to the app a request goes, and when one is made, kept or closed."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.logger import LogLevel, capturedLogs

from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.multiplex import STALE_SECONDS, UpstreamStream
from sidecar.proxy.pool import LONGEST_IDLE_SECONDS, MAX_IDLE_CONNECTIONS, Budget
from sidecar.proxy.streampool import StreamPool
from sidecar.proxy.upstream import Upstream
from sidecar.topology import ClusterLimits
from sidecar.wire.events import ResponseEvent
from sidecar.wire.head import parse_request_head
from sidecar.wire.http2client import STREAMS_UNTIL_TOLD
from tests.support import frames
from tests.support.h2app import TARGET, Backend, H2App
from tests.support.ports import FakeReactor
from tests.support.upstreams import FakeSecurity

HEAD = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 100)


def most(streams: int) -> tuple[int, int]:
    """A setting: how many streams the app takes."""
    return frames.MAX_CONCURRENT_STREAMS, streams


class User:
    """
    One request, which is whole when it is sent; its stream goes back at the end of the response.

    Attributes:
        is_reused: Whether it did not have to wait.
        refusals: Why there was no connection for it.
        told: What became of it on its stream: ``answered``, ``lost``, or which rule the app broke.
    """

    def __init__(self, pool: StreamPool) -> None:
        self._pool = pool
        self.stream: UpstreamStream | None = None
        self.refusals: list[str] = []
        self.told: list[str] = []
        stream = pool.take()
        self.is_reused = stream is not None
        self.connected(stream) if stream is not None else pool.connect(self.connected)

    def connected(self, outcome: Upstream | ConnectFailed) -> None:
        assert self.stream is None
        assert not self.refusals
        if isinstance(outcome, ConnectFailed):
            self.refusals.append(outcome.reason)
            return
        assert isinstance(outcome, UpstreamStream)
        self.stream = outcome
        outcome.begin(cast(Any, self), HEAD)
        outcome.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, b"")

    def response_events(self, events: list[ResponseEvent]) -> None:
        assert self.stream is not None
        self.told.append("answered")
        self._pool.release(self.stream)

    def response_failed(self, error: Exception) -> None:
        self.told.append(str(error))

    def upstream_lost(self) -> None:
        self.told.append("lost")

    def upstream_full(self) -> None: ...

    def upstream_drained(self) -> None: ...


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def backend(reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return Backend(reactor, monkeypatch)


def users(backend: Backend, count: int) -> list[User]:
    return [User(backend.pool) for _ in range(count)]


def counts(pool: StreamPool) -> tuple[int, int, int]:
    """Open, idle, pending."""
    return pool.open_count, pool.idle_count, pool.pending_count


def answer_all(*apps: H2App) -> None:
    for app in apps:
        for stream_id in app.unanswered:
            app.answers(stream_id)


def idle_ones(backend: Backend, count: int) -> list[H2App]:
    """Make connections, by requests at the same time, and answer those."""
    made = []
    for _ in range(count):
        User(backend.pool)
        made.append(backend.accepts(most(1)))
    answer_all(*made)
    return made


class TestWaiting:
    def test_those_that_come_meanwhile_share_the_connection(self, backend: Backend) -> None:
        """Until it is made, and until its app has said how many it takes; then all leave at once."""
        first = users(backend, 3)
        assert len(backend.waiting) == 1
        app = backend.connects()
        later = users(backend, 2)
        assert backend.waiting == []
        assert counts(backend.pool) == (1, 0, 5)
        assert [frame.kind for frame in app.reads()] == [frames.SETTINGS, frames.WINDOW_UPDATE]
        app.begins()
        assert counts(backend.pool) == (1, 0, 0)
        answer_all(app)
        assert [user.told for user in (*first, *later)] == [["answered"]] * 5
        assert counts(backend.pool) == (1, 1, 0)

    def test_no_more_share_it_than_it_is_likely_to_take(self, backend: Backend) -> None:
        """What that is, is a guess at first, and afterwards what the app said last."""
        users(backend, STREAMS_UNTIL_TOLD)
        assert len(backend.waiting) == 1
        users(backend, 1)
        assert len(backend.waiting) == 2
        backend.accepts()
        backend.accepts(most(2))
        assert counts(backend.pool) == (2, 0, 0)
        assert [user.is_reused for user in users(backend, 4)] == [True, False, False, False]
        assert len(backend.waiting) == 2

    def test_app_that_takes_few_gets_more_connections(self, backend: Backend) -> None:
        """Those that have found no room wait on, for the next, or for one that ends."""
        waiting = users(backend, 5)
        first = backend.accepts(most(2))
        assert [user.stream is not None for user in waiting] == [True, True, False, False, False]
        assert len(backend.waiting) == 1
        first.answers(1)
        assert [user.stream is not None for user in waiting] == [True, True, True, False, False]
        second = backend.accepts(most(2))
        answer_all(first, second)
        assert [user.told for user in waiting] == [["answered"]] * 5
        assert counts(backend.pool) == (2, 2, 0)

    def test_limit_that_is_raised_is_used(self, backend: Backend) -> None:
        """And one that is lowered is kept to."""
        users(backend, 1)
        app = backend.accepts(most(1))
        assert backend.pool.take() is None
        app.sends(frames.settings(most(2)))
        assert User(backend.pool).is_reused
        app.sends(frames.settings(most(1)))
        app.answers(1)
        assert backend.pool.take() is None
        app.answers(3)
        assert User(backend.pool).is_reused

    @pytest.mark.parametrize(
        ("settings", "then"), [([most(0)], b""), ([], frames.goaway(0))], ids=["no streams", "going away"]
    )
    def test_app_that_takes_none_is_not_asked_for_ever(
        self, backend: Backend, reactor: FakeReactor, settings: list[tuple[int, int]], then: bytes
    ) -> None:
        """One connection after the other would be made, for nothing; the next request may try."""
        waiting = users(backend, 2)
        app = backend.connects()
        app.begins(*settings, then=then)
        assert [user.refusals for user in waiting] == [["upstream_connect_refused"]] * 2
        assert (backend.waiting, app.transport.is_closed) == ([], True)
        assert "allows no streams" in backend.pool.statistics.last_error
        reactor.turn()
        assert counts(backend.pool) == (0, 0, 0)
        (later,) = users(backend, 1)
        answer_all(backend.accepts())
        assert later.told == ["answered"]

    def test_who_has_gone_meanwhile_costs_nothing(self, backend: Backend) -> None:
        """An exchange that is over takes no stream, and the connection is there for others."""

        def gone(outcome: Upstream | ConnectFailed) -> None:
            assert isinstance(outcome, UpstreamStream)
            backend.pool.release(outcome)

        backend.pool.connect(gone)
        app = backend.accepts(most(1))
        assert app.asked == {}
        assert counts(backend.pool) == (1, 1, 0)
        assert User(backend.pool).is_reused


class TestNoHttp2:
    def test_all_that_wait_are_told_and_it_is_counted_once(self, backend: Backend) -> None:
        """The log has it once too, with what to look for; the next request finds out anew."""
        waiting = users(backend, 3)
        with capturedLogs() as logs:
            backend.connects().sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert [user.refusals for user in waiting] == [["upstream_not_http2"]] * 3
        statistics = backend.pool.statistics
        assert statistics.failures == {"upstream_not_http2": 1}
        (warning,) = [event for event in logs if event["log_level"] is LogLevel.warn]
        assert warning["why"] == statistics.last_error
        assert warning["why"].startswith("it does not speak HTTP/2 without TLS: ")
        assert counts(backend.pool) == (0, 0, 0)
        users(backend, 1)
        assert len(backend.waiting) == 1

    def test_who_came_first_is_told_first(self, backend: Backend) -> None:
        """Each may go elsewhere then, where it may have to wait again."""
        order: list[int] = []
        for i in range(3):
            backend.pool.connect(lambda outcome, i=i: order.append(i))  # type: ignore[misc]
        backend.refuses()
        assert order == [0, 1, 2]

    def test_silence_ends_with_the_connect_timeout(self, backend: Backend, reactor: FakeReactor) -> None:
        """An app that accepts and says nothing must not hold requests for ever."""
        (user,) = users(backend, 1)
        app = backend.connects()
        reactor.advance(2.0)
        assert user.refusals == ["upstream_not_http2"]
        reactor.turn()
        assert app.transport.is_closed
        assert (counts(backend.pool), reactor.pending) == ((0, 0, 0), 0)

    def test_connection_that_is_not_made_is_told_to_all(self, backend: Backend) -> None:
        """As with any pool."""
        waiting = users(backend, 2)
        backend.refuses()
        assert [user.refusals for user in waiting] == [["upstream_not_started"]] * 2
        assert backend.pool.statistics.failures == {"upstream_connect_refused": 1}
        assert counts(backend.pool) == (0, 0, 0)


class TestLimits:
    def test_waiting_requests_are_limited(self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> None:
        """One over the limit is refused, later; the others are served."""
        backend = Backend(reactor, monkeypatch, limits=ClusterLimits(pending_requests=2))
        first, second, third = users(backend, 3)
        assert third.refusals == []
        reactor.turn()
        assert third.refusals == ["upstream_overflow"]
        assert backend.pool.statistics.failures == {"upstream_overflow": 1}
        answer_all(backend.accepts())
        assert (first.told, second.told) == (["answered"], ["answered"])

    def test_one_connection_too_many_costs_only_those_it_was_for(
        self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those that another connection will take are not refused for the sake of the last that came."""
        backend = Backend(reactor, monkeypatch, limits=ClusterLimits(connections=1))
        waiting = users(backend, STREAMS_UNTIL_TOLD + 2)
        reactor.turn()
        assert [bool(user.refusals) for user in waiting] == [False] * STREAMS_UNTIL_TOLD + [True] * 2
        assert backend.pool.pending_count == STREAMS_UNTIL_TOLD
        answer_all(backend.accepts())
        assert [user.told for user in waiting[:-2]] == [["answered"]] * STREAMS_UNTIL_TOLD

    def test_connection_whose_app_is_to_begin_is_not_idle(
        self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not closed to make room for another: requests wait for it."""
        budget = Budget(ClusterLimits(connections=1))
        backend = Backend(reactor, monkeypatch, budget=budget)
        (waiting,) = users(backend, 1)
        app = backend.connects()
        other = StreamPool(TARGET, 2.0, backend.pool._limits, reactor, budget=budget)
        refused = User(other)
        reactor.turn()
        assert refused.refusals == ["upstream_overflow"]
        app.begins()
        answer_all(app)
        assert waiting.told == ["answered"]

    def test_full_connections_are_the_limit(self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then a request is refused at once, as with HTTP/1.1; one that ends makes room."""
        backend = Backend(reactor, monkeypatch, limits=ClusterLimits(connections=1))
        users(backend, 1)
        app = backend.accepts(most(1))
        refused = User(backend.pool)
        reactor.turn()
        assert refused.refusals == ["upstream_overflow"]
        app.answers(1)
        assert User(backend.pool).is_reused

    def test_idle_connection_makes_room_for_another_endpoint(
        self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one that has been so for longest is closed, with a word."""
        budget = Budget(ClusterLimits(connections=2))
        backend = Backend(reactor, monkeypatch, budget=budget)
        users(backend, 2)
        newer = backend.accepts(most(1))
        older = backend.accepts(most(1))
        older.answers(1)
        reactor.advance(1)
        newer.answers(1)
        other = StreamPool(TARGET, 2.0, backend.pool._limits, reactor, budget=budget)
        User(other)
        reactor.turn()
        assert [app.transport.is_closed for app in (newer, older)] == [False, True]
        assert older.reads()[-1].kind == frames.GOAWAY
        assert (other.pending_count, budget.connections) == (1, 2)


class TestLook:
    def test_app_that_speaks_http2_is_known_and_its_connection_kept(self, backend: Backend) -> None:
        """The first request finds it made."""
        backend.pool.look()
        assert backend.pool.statistics.last_error == ""
        backend.accepts()
        assert (backend.pool.idle_count, backend.pool.pending_count) == (1, 0)
        assert backend.pool.take() is not None

    def test_connection_alone_says_nothing(self, backend: Backend) -> None:
        """An HTTP/1.1 app takes it too."""
        backend.pool.look()
        backend.connects().closes()
        assert "does not speak HTTP/2" in backend.pool.statistics.last_error
        assert backend.pool.open_count == 0


class TestIdle:
    def test_it_is_kept_for_long_and_then_closed(self, backend: Backend, reactor: FakeReactor) -> None:
        """In good order; no timer is left."""
        (app,) = idle_ones(backend, 1)
        reactor.pump([10.0] * int(LONGEST_IDLE_SECONDS / 10 - 1))
        assert app.transport.is_open
        reactor.pump([10.0])
        assert app.reads()[-1].kind == frames.GOAWAY
        assert app.transport.calls == ["loseConnection"]
        reactor.turn()
        assert (counts(backend.pool), reactor.pending) == ((0, 0, 0), 0)

    def test_use_makes_it_young_again(self, backend: Backend, reactor: FakeReactor) -> None:
        """What counts is since when nothing is on it."""
        (app,) = idle_ones(backend, 1)
        reactor.pump([10.0] * 29)
        User(backend.pool)
        reactor.pump([10.0] * 5)
        answer_all(app)
        reactor.pump([10.0] * 29)
        assert app.transport.is_open
        reactor.pump([10.0])
        assert not app.transport.is_open

    def test_connection_that_was_never_used_is_closed_too(self, backend: Backend, reactor: FakeReactor) -> None:
        """Whoever wanted it may have left."""
        backend.pool.connect(lambda outcome: None)
        app = backend.accepts()
        reactor.pump([10.0] * 30)
        assert not app.transport.is_open

    def test_surplus_is_closed(self, backend: Backend, reactor: FakeReactor) -> None:
        """Their number is bounded."""
        made = idle_ones(backend, MAX_IDLE_CONNECTIONS + 2)
        assert sum(app.transport.is_open for app in made) == MAX_IDLE_CONNECTIONS
        assert backend.pool.idle_count == MAX_IDLE_CONNECTIONS

    @pytest.mark.parametrize("end", ["closes", "vanishes"])
    def test_one_that_the_app_ends_is_forgotten(self, backend: Backend, end: str) -> None:
        """It costs no request."""
        (app,) = idle_ones(backend, 1)
        getattr(app, end)()
        assert counts(backend.pool) == (0, 0, 0)
        assert backend.pool.take() is None

    def test_one_that_the_app_is_leaving_is_not_used(self, backend: Backend) -> None:
        """GOAWAY: the next request has a new connection."""
        (app,) = idle_ones(backend, 1)
        app.sends(frames.goaway(1))
        assert counts(backend.pool) == (0, 0, 0)
        (user,) = users(backend, 1)
        answer_all(backend.accepts())
        assert user.told == ["answered"]

    def test_stale_one_is_closed_behind_its_last_stream(self, backend: Backend, reactor: FakeReactor) -> None:
        """New requests have a new connection meanwhile."""
        gone, patient = users(backend, 2)
        app = backend.accepts()
        reactor.advance(STALE_SECONDS)
        assert gone.stream is not None
        gone.stream.close()
        reactor.turn()
        assert app.transport.is_open
        assert not User(backend.pool).is_reused
        app.answers(3)
        assert patient.told == ["answered"]
        assert not app.transport.is_open


class TestStop:
    def test_idle_ones_close_and_those_in_use_on_their_return(self, backend: Backend, reactor: FakeReactor) -> None:
        """No timer is left."""
        users(backend, 2)
        idle, busy = backend.accepts(most(1)), backend.accepts(most(1))
        idle.answers(1)
        backend.pool.stop()
        assert [app.transport.is_open for app in (idle, busy)] == [False, True]
        answer_all(busy)
        assert not busy.transport.is_open
        reactor.turn()
        assert (counts(backend.pool), reactor.pending) == ((0, 0, 0), 0)

    @pytest.mark.parametrize("is_connected", [False, True])
    def test_those_that_wait_are_served(self, backend: Backend, reactor: FakeReactor, is_connected: bool) -> None:
        """Their endpoint may be gone from the next moment on, and they were sent to it before."""
        (user,) = users(backend, 1)
        if is_connected:
            app = backend.connects()
            backend.pool.stop()
        else:
            backend.pool.stop()
            app = backend.connects()
        app.begins()
        answer_all(app)
        assert user.told == ["answered"]
        reactor.turn()
        assert (counts(backend.pool), reactor.pending) == ((0, 0, 0), 0)
        assert app.transport.is_closed


class TestSecure:
    def test_other_trust_ends_what_rests_on_the_old(self, backend: Backend) -> None:
        """Idle connections close at once, those in use take nothing more, and close behind their last stream."""
        users(backend, 2)
        idle, busy = backend.accepts(most(1)), backend.accepts(most(1))
        idle.answers(1)
        backend.pool.secure(FakeSecurity())
        assert [app.transport.is_open for app in (idle, busy)] == [False, True]
        busy.sends(frames.settings(most(10)))
        assert backend.pool.take() is None
        answer_all(busy)
        assert not busy.transport.is_open

    @pytest.mark.parametrize("is_connected", [False, True])
    def test_those_that_wait_get_a_new_one(self, backend: Backend, is_connected: bool) -> None:
        """What was begun with the old trust is closed unused, and spoils no estimate."""
        waiting = users(backend, 2)
        if is_connected:
            old = backend.connects()
            backend.pool.secure(FakeSecurity())
        else:
            backend.pool.secure(FakeSecurity())
            old = backend.connects()
        old.begins()
        assert (old.asked, old.transport.is_open) == ({}, False)
        assert len(backend.waiting) == 1
        answer_all(backend.accepts())
        assert [user.told for user in waiting] == [["answered"]] * 2

    def test_same_trust_changes_nothing(self, backend: Backend) -> None:
        """A reload that is about something else costs no connections."""
        (app,) = idle_ones(backend, 1)
        backend.pool.secure(None)
        assert app.transport.is_open
        assert User(backend.pool).is_reused


class TestBytesMoved:
    def test_bytes_of_what_is_gone_still_count(self, backend: Backend, reactor: FakeReactor) -> None:
        """A counter never goes back, and counts nothing twice."""
        idle, busy = idle_ones(backend, 2)
        everything = backend.pool.bytes_moved()
        assert everything[1] == len(idle.transport.sent) + len(busy.transport.sent)
        assert everything[0] == idle.transport.bytes_received + busy.transport.bytes_received > 0
        busy.vanishes()
        assert backend.pool.bytes_moved() == everything
        backend.pool.stop()
        reactor.turn()
        assert backend.pool.bytes_moved() == (everything[0], everything[1] + 17)  # GOAWAY
        assert backend.pool.open_count == 0
