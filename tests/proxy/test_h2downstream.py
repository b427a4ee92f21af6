"""`proxy.h2downstream`: HTTP/2 with one client, all its streams and what they share."""

from __future__ import annotations

import gc
import types
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.access import access_of
from sidecar.policy.authz import NO_CERTIFICATE
from sidecar.proxy import h2downstream
from sidecar.proxy.downstream import DRAIN_IDLE_SECONDS, LINGER_SECONDS, UNVERIFIED_IDLE_SECONDS
from sidecar.proxy.h2downstream import MAX_QUEUED_BYTES, MAX_REMEMBERED_HEADS
from sidecar.proxy.stream import Stream
from sidecar.settings import ClientCertMode, ClientSettings, Limits, Seconds, Timeouts
from sidecar.tls.verify import Verification, VerifyReason
from sidecar.wire.h2limits import Http2Limits
from tests.support import frames
from tests.support.h2pump import FIRST_WINDOW, SESSION_2, H2Pump, fields
from tests.support.ports import RecordingTransport
from tests.support.pump import Ended

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUTS = Timeouts(
    header=Seconds(1.0), idle=Seconds(2.0), body=Seconds(3.0), upstream=Seconds(40.0), stream=Seconds(50.0)
)
REFUSING = access_of(ClientSettings(cert=ClientCertMode.REQUIRED), "test").admit(NO_CERTIFICATE)
BEGUN = frames.PREFACE + frames.settings() + frames.frame(frames.SETTINGS, frames.ACK)
POST = fields(b"POST")
WIDE = (frames.INITIAL_WINDOW_SIZE, 2**20)


def is_over(pump: H2Pump) -> bool:
    """Whether nothing is left under way: no request that is counted, no deadline that could still pass."""
    before = list(pump.log.ended)
    pump.pass_time(10_000)
    assert pump.log.ended == before, "something ended later"
    return not pump.clock.getDelayedCalls() and not any(endpoint.active for endpoint in pump.cluster.endpoints)


def wide(**pump: Any) -> H2Pump:
    """A client with room for everything."""
    made = H2Pump(WIDE, **pump)
    made.gives(0, 2**24)
    return made


def upgraded(pump: H2Pump) -> RecordingTransport:
    """Open a tunnel on the next stream, and return its connection to the app."""
    pump.request(frames.WEBSOCKET, ends=False)
    app = pump.accept()
    pump.delivers(app, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    return app


def big(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)


class TestTurns:
    def test_answers_of_one_turn_leave_in_one_write(self) -> None:
        """However many streams they are of: one TLS record, one system call."""
        pump = H2Pump()
        ids = [pump.request() for _ in range(20)]
        apps = [pump.accept() for _ in ids]
        before = pump.tls.writes
        for app in apps:
            app.deliver(OK)
        assert pump.tls.writes == before
        pump.settle()
        assert pump.tls.writes == before + 1
        assert all(pump.answer(stream_id).body == b"ok" for stream_id in ids)

    def test_answers_of_ours_leave_with_the_bytes_that_asked(self) -> None:
        """There is nothing to wait for."""
        pump = H2Pump(admission=REFUSING)
        before = pump.tls.writes
        pump.downstream.dataReceived(frames.headers(1) + frames.headers(3) + frames.ping())
        assert pump.tls.writes == before + 1
        pump.settle()
        assert pump.tls.writes == before + 1
        assert pump.answer(1).status == pump.answer(3).status == 400

    def test_settings_go_out_first(self) -> None:
        """Before the client has said anything (RFC 9113 section 3.4)."""
        pump = H2Pump(has_begun=False)
        pump.settle()
        assert pump.seen[0].kind == frames.SETTINGS
        assert pump.service.metrics.http2_connections == 1


class TestDeadlines:
    @pytest.mark.parametrize("said", [b"", frames.PREFACE[:10], frames.PREFACE], ids=["nothing", "part", "no SETTINGS"])
    def test_preface_has_to_come(self, said: bytes) -> None:
        """Within the header timeout, however it trickles."""
        pump = H2Pump(has_begun=False, timeouts=TIMEOUTS)
        for byte in said:
            pump.client_sends(bytes((byte,)))
            pump.pass_time(0.03)
        pump.pass_time(0.95 - 0.03 * len(said))
        assert not pump.tls.ending
        pump.pass_time(0.1)
        assert pump.tls.ending == "linger"
        assert pump.service.metrics.http2_faults == {"header_timeout": 1}

    def test_idle_client_is_let_go(self) -> None:
        """It is told which request was the last: none."""
        pump = H2Pump(timeouts=TIMEOUTS)
        pump.pass_time(1.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "linger"
        assert pump.goaways == [(0, frames.NO_ERROR)]
        assert not pump.log.ended

    def test_idle_time_begins_with_the_last_answer(self) -> None:
        """Of all streams; while there is one, it does not run."""
        pump = H2Pump(timeouts=TIMEOUTS)
        (_, first), (_, second) = pump.starts(), pump.starts()
        pump.delivers(first, OK)
        pump.pass_time(10)
        pump.delivers(second, OK)
        pump.pass_time(1.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "linger"

    def test_idle_time_begins_with_an_answer_of_ours_too(self) -> None:
        """Although nothing was ever waited for in between."""
        pump = H2Pump(timeouts=TIMEOUTS, admission=REFUSING)
        for _ in range(5):
            pump.pass_time(1.5)
            stream_id = pump.request()
            assert pump.answer(stream_id).is_whole
        pump.pass_time(1.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "linger"

    @pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "in two pieces"])
    @pytest.mark.parametrize(
        "frame",
        [frames.ping(), frames.window_update(0, 1), frames.settings(), frames.priority(1)],
        ids=["PING", "WINDOW_UPDATE", "SETTINGS", "PRIORITY"],
    )
    def test_frames_without_a_request_do_not_keep_a_connection(self, frame: bytes, pieces: int) -> None:
        """The idle time runs on; nor does it begin anew behind a frame that came in pieces."""
        pump = H2Pump(timeouts=TIMEOUTS)
        for _ in range(8):
            if pump.tls.ending:
                break
            pump.client_sends(frame[:4] if pieces == 2 else frame)
            pump.pass_time(0.2)
            if pieces == 2 and not pump.tls.ending:
                pump.client_sends(frame[4:])
            pump.pass_time(0.2)
        assert pump.tls.ending == "linger"
        assert pump.clock.seconds() < 2.5
        assert not pump.service.metrics.http2_faults

    def test_requests_that_are_none_do_not_keep_a_connection(self) -> None:
        """Malformed heads, and something behind each that does not end."""
        pump = H2Pump(timeouts=TIMEOUTS)
        while not pump.tls.ending:
            assert pump.clock.seconds() < 3
            pump.client_sends(frames.headers(pump.next_id, POST[1:]) + frames.ping()[:5])
            pump.next_id += 2
            pump.pass_time(0.5)
            if not pump.tls.ending:
                pump.client_sends(frames.ping()[5:])

    def test_client_without_a_good_certificate_has_to_ask_soon(self) -> None:
        """Its certificate is kept in memory for as long as it is here; PING is no request."""
        session = attrs.evolve(SESSION_2, verification=Verification(None, VerifyReason.INVALID))
        pump = H2Pump(session=session)
        for _ in range(4):
            pump.pass_time(UNVERIFIED_IDLE_SECONDS / 4 - 0.01)
            pump.client_sends(frames.ping())
        assert not pump.tls.ending
        pump.pass_time(0.1)
        assert pump.tls.ending == "linger"

    def test_slow_header_block_ends_the_connection(self) -> None:
        """Nothing else can come before its end (RFC 9113 section 4.3)."""
        pump = H2Pump(timeouts=TIMEOUTS)
        pump.pass_time(1.5)
        block = frames.block(fields())
        pump.client_sends(frames.frame(frames.HEADERS, frames.END_STREAM, 1, block[:5]))
        for at in range(5, 10):
            pump.pass_time(0.19)
            pump.client_sends(frames.frame(frames.CONTINUATION, 0, 1, block[at : at + 1]))
        assert not pump.tls.ending
        pump.pass_time(0.1)
        assert pump.tls.ending == "linger"
        assert pump.service.metrics.http2_faults == {"header_timeout": 1}
        assert pump.goaways == [(0, frames.NO_ERROR)]

    def test_slow_frame_beside_requests_has_the_body_timeout(self) -> None:
        """It may be part of a body; then all that waits behind it is over, each recorded once."""
        pump = H2Pump(timeouts=TIMEOUTS)
        ids = [pump.starts()[0] for _ in range(3)]
        pump.client_sends(frames.ping()[:9])
        pump.pass_time(2.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "linger"
        assert pump.log.ended == [Ended(0, "downstream_lost", "")] * len(ids)
        assert pump.goaways == [(5, frames.NO_ERROR)]
        assert all(app.is_closed for app in pump.apps)

    def test_body_that_comes_in_odd_pieces_is_no_slow_frame(self) -> None:
        """What had begun is whole, and the next has begun: its time begins then."""
        pump = H2Pump(timeouts=TIMEOUTS)
        stream_id, app = pump.starts(POST, b"a", ends=False)
        data = frames.data(stream_id, b"abcdef") * 6
        for at in range(0, len(data), 10):
            pump.client_sends(data[at : at + 10])
            pump.pass_time(1.4)
        assert not pump.tls.ending
        assert app.sent.count(b"abcdef") == 6

    def test_streams_have_deadlines_of_their_own(self) -> None:
        """One that passes concerns nobody else."""
        pump = H2Pump(timeouts=TIMEOUTS)
        ids = []
        for _ in range(3):
            ids.append(pump.starts()[0])
            pump.pass_time(10)
        for passed in range(1, 4):
            pump.pass_time(10.001)
            assert [pump.answer(stream_id).status for stream_id in ids] == [504] * passed + [0] * (3 - passed)
        assert not pump.tls.ending

    def test_deadline_of_a_stream_that_is_over_fires_on_no_other(self) -> None:
        """What is lent to the next stream has forgotten the one before."""
        pump = H2Pump(timeouts=TIMEOUTS)
        _, app = pump.starts()
        pump.pass_time(39)
        pump.delivers(app, OK)
        stream_id = pump.request()
        pump.pass_time(39)
        assert not pump.answer(stream_id).status, "the time of the first would have passed by now"
        pump.pass_time(1.1)
        assert pump.answer(stream_id).status == 504
        assert len(pump.log.ended) == 2

    def test_stream_that_is_over_moves_nobodys_deadline(self) -> None:
        """A splice still wants to wait when its stream has ended and its deadline is another's."""
        pump = H2Pump(timeouts=TIMEOUTS)
        app = upgraded(pump)
        app.deliver_eof()  # the stream ends before the splice is done
        pump.settle()
        stream_id, _ = pump.starts()
        pump.pass_time(LINGER_SECONDS + 0.1)
        assert not pump.answer(stream_id).status
        pump.pass_time(40)
        assert pump.answer(stream_id).status == 504


class TestFullConnection:
    """The client does not take what was written."""

    def full(self, **pump: Any) -> tuple[H2Pump, list[int]]:
        """A connection that is full by the first of three streams."""
        made = wide(**pump)
        ids = [made.request() for _ in range(3)]
        apps = [made.accept() for _ in ids]
        made.tls.stop_taking()
        made.delivers(apps[0], big(50_000)[:-10_000])
        assert made.downstream.is_full
        return made, ids

    def test_all_apps_wait(self) -> None:
        """Nothing more is read for a client that takes nothing, on any stream; and all go on when it does."""
        pump, ids = self.full()
        assert [app.is_reading for app in pump.apps] == [False] * 3
        pump.tls.take()
        pump.settle()
        assert [app.is_reading for app in pump.apps] == [True] * 3
        pump.delivers(pump.apps[0], b"x" * 10_000)
        for app in pump.apps[1:]:
            pump.delivers(app, OK)
        assert [len(pump.answer(stream_id).body) for stream_id in ids] == [50_000, 2, 2]
        assert all(pump.answer(stream_id).is_whole for stream_id in ids)

    def test_request_that_comes_meanwhile_waits_too(self) -> None:
        """It is sent on; no more of its answer is fetched than has come at once."""
        pump, _ = self.full()
        stream_id = pump.request()
        app = pump.accept()
        assert app.sent
        queued = pump.tls.queued
        pump.delivers(app, big(50_000)[:-1])
        assert not app.is_reading
        assert pump.tls.queued - queued < 100, "the head alone"
        pump.tls.take()
        pump.settle()
        pump.delivers(app, b"x")
        assert pump.answer(stream_id).body == b"x" * 50_000

    def test_what_may_be_queued_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that asks on and takes nothing is not read from any more."""
        monkeypatch.setattr(h2downstream, "MAX_QUEUED_BYTES", 4096)
        pump, _ = self.full()
        before = pump.tls.queued
        pump.judge_again(REFUSING)
        asked = 0
        while pump.peer.is_reading:
            assert asked < 10_000
            pump.request(fields(b"HEAD"))  # the answer of which is a head, that no window holds back
            asked += 1
        assert 4096 < pump.tls.queued - before < 4096 + 200
        pump.tls.take()
        pump.settle()
        assert pump.peer.is_reading
        pump.request(fields(b"HEAD"))
        assert pump.answer(pump.next_id - 2).status == 400

    def test_bodies_of_a_turn_are_not_collected_without_bound(self) -> None:
        """A client that takes everything gets it before the apps of a hundred streams have been read."""
        pump = wide()
        apps = [pump.accept() for _ in [pump.request() for _ in range(12)]]
        before = pump.tls.writes
        for app in apps:
            app.deliver(big(60_000))
        assert pump.tls.writes == before + 2, "two of over 256 KiB, and the rest at the end of the turn"
        pump.settle()
        assert pump.tls.writes == before + 3

    def test_less_than_that_stops_nobody_from_asking(self) -> None:
        """What a request brings, such as credit, may be what everything waits for."""
        pump, _ = self.full()
        assert 0 < pump.tls.queued < MAX_QUEUED_BYTES
        assert pump.peer.is_reading

    def test_requests_that_are_answered_here_wait_as_streams(self) -> None:
        """There are as many as streams may be; further ones are told to come again, and too many are a fault."""
        pump, _ = self.full()
        pump.judge_again(REFUSING)
        while not pump.tls.ending:
            assert pump.next_id < 2000
            pump.request()
        assert pump.tls.queued < MAX_QUEUED_BYTES
        assert pump.service.metrics.http2_faults == {"reset_flood": 1}

    def test_answers_of_ours_go_out_once_there_is_room(self) -> None:
        """Whole, and in the order in which they were asked for."""
        pump, _ = self.full()
        pump.judge_again(REFUSING)
        ids = [pump.request() for _ in range(20)]
        pump.tls.take()
        pump.settle()
        assert [pump.answer(stream_id).status for stream_id in ids] == [400] * 20
        assert all(pump.answer(stream_id).is_whole for stream_id in ids)
        ends = [frame.stream_id for frame in pump.seen if frame.kind == frames.DATA and frame.flags]
        assert ends == ids

    @pytest.mark.parametrize("says", ["nothing", "WINDOW_UPDATE", "pieces of frames"])
    def test_client_that_never_takes_it_is_cut(self, says: str) -> None:
        """At the body timeout, whatever else it sends meanwhile: that is no sign that it reads."""
        pump, ids = self.full(timeouts=TIMEOUTS)
        update = frames.window_update(0, 1)
        for step in range(29):
            if says == "WINDOW_UPDATE":
                pump.client_sends(update)
            elif says == "pieces of frames":
                pump.client_sends((update * 29)[step * 12 : step * 12 + 12])
            pump.pass_time(0.1)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "abort"
        assert [ended.reason for ended in pump.log.ended] == ["downstream_lost"] * len(ids)
        assert is_over(pump)

    def test_streams_do_not_end_by_themselves_while_it_is_full(self) -> None:
        """That the client takes nothing has one deadline, the connection's."""
        pump, ids = self.full(timeouts=attrs.evolve(TIMEOUTS, body=Seconds(5.0), upstream=Seconds(4.0)))
        pump.pass_time(4.5)
        pump.tls.take()
        pump.settle()
        assert [pump.answer(stream_id).reset for stream_id in ids] == [None] * 3
        for app in pump.apps[1:]:
            pump.delivers(app, OK)
        assert [pump.answer(stream_id).status for stream_id in ids] == [200] * 3

    def test_filled_again_and_again_it_goes_on_in_order(self) -> None:
        """A slow client gets every stream's bytes as they were sent."""
        pump = wide()
        ids = [pump.request() for _ in range(3)]
        apps = [pump.accept() for _ in ids]
        bodies = [bytes((65 + number,)) * 40 + b"%06d" % number for number in range(3)]
        for app, body in zip(apps, bodies, strict=True):
            pump.delivers(app, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * len(body)))
        for round_ in range(10):
            pump.tls.stop_taking()
            for app, body in zip(apps, bodies, strict=True):
                if app.is_reading:
                    app.deliver(body)
            pump.settle()
            assert pump.downstream.is_full, round_
            pump.tls.take()
            pump.settle()
        for stream_id, body in zip(ids, bodies, strict=True):
            assert pump.answer(stream_id).body == body * 10
            assert pump.answer(stream_id).is_whole

    def test_client_that_takes_little_gets_one_stream_after_the_other(self) -> None:
        """What it has room for goes out, and no more; those behind keep their place."""
        pump, _ = self.full(timeouts=TIMEOUTS)
        ids = [pump.request() for _ in range(3)]
        for app in [pump.accept() for _ in ids]:
            pump.delivers(app, OK)
        for count in range(1, 5):
            pump.pass_time(2.9)  # each time it has the body timeout anew
            pump.tls.take_once()
            pump.settle()
            assert [pump.answer(stream_id).body for stream_id in ids] == [b"ok"] * (count - 1) + [b""] * (4 - count)

    def test_tunnel_waits_too(self) -> None:
        """Its app is paused, and goes on with the others."""
        pump = wide()
        tunnel = upgraded(pump)
        _, app = pump.starts()
        pump.tls.stop_taking()
        pump.delivers(app, big(1000))
        assert not tunnel.is_reading
        pump.tls.take()
        assert tunnel.is_reading
        pump.delivers(tunnel, b"on")
        assert pump.answer(1).body == b"on"

    def test_connection_that_is_full_at_its_end_gets_time_to_be_read(self) -> None:
        """Whatever ends it: the last answers may still be taken."""
        pump = H2Pump(timeouts=TIMEOUTS)
        pump.tls.stop_taking()
        pump.downstream.drain()
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "linger"
        pump.pass_time(2.8)
        assert pump.tls.ending == "linger"
        pump.pass_time(0.3)
        assert pump.tls.ending == "abort"
        assert is_over(pump)


class TestDrain:
    def test_goes_in_two_steps(self) -> None:
        """What is on its way between them is served, what comes later is not (RFC 9113 section 6.8)."""
        pump = H2Pump()
        first, app = pump.starts()
        pump.downstream.drain()
        pump.downstream.drain()
        pump.settle()
        assert pump.goaways == [(2**31 - 1, frames.NO_ERROR)]
        pump.pass_time(DRAIN_IDLE_SECONDS - 0.1)
        second, other = pump.starts()
        pump.pass_time(0.2)
        assert pump.goaways[1:] == [(second, frames.NO_ERROR)]
        late = pump.request()
        assert not pump.pool.waiting
        assert not pump.answer(late).status
        pump.delivers(other, OK)
        assert not pump.tls.ending
        pump.delivers(app, OK)
        assert pump.answer(first).is_whole
        assert pump.answer(second).is_whole
        assert pump.tls.ending == "linger"
        assert len(pump.goaways) == 2, "a third has nothing to say"
        assert is_over(pump)

    def test_idle_connection_closes_after_the_second(self) -> None:
        """A request may be on its way, half a second long."""
        pump = H2Pump()
        assert pump.downstream.is_idle
        assert pump.downstream.doing == "idle"
        pump.downstream.drain()
        assert pump.downstream.doing == "closing"
        pump.pass_time(DRAIN_IDLE_SECONDS - 0.1)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "linger"
        assert pump.goaways == [(2**31 - 1, frames.NO_ERROR), (0, frames.NO_ERROR)]

    def test_request_that_ends_before_the_second_is_not_the_last(self) -> None:
        """The client was promised that what is on its way is served."""
        pump = H2Pump()
        _, app = pump.starts()
        pump.downstream.drain()
        pump.delivers(app, OK)
        assert not pump.tls.ending
        stream_id = pump.request()
        pump.delivers(app, OK)
        assert pump.answer(stream_id).is_whole
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "linger"

    def test_connection_that_is_made_meanwhile_drains_at_once(self) -> None:
        """Whoever got in just before the listener closed may ask, for a moment."""
        pump = H2Pump(is_draining=True)
        stream_id, app = pump.starts()
        assert pump.goaways == [(2**31 - 1, frames.NO_ERROR)]
        pump.delivers(app, OK)
        assert pump.answer(stream_id).is_whole
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "linger"

    def test_tunnel_is_waited_for(self) -> None:
        """As for any other stream; who waits no longer calls `end`."""
        pump = H2Pump()
        app = upgraded(pump)
        pump.downstream.drain()
        pump.pass_time(5)
        pump.delivers(app, b"still here")
        assert pump.answer(1).body == b"still here"
        pump.downstream.end()
        pump.settle()
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed
        assert pump.tls.ending == "linger"

    def test_end_answers_what_has_no_answer_yet(self) -> None:
        """And cuts the rest; each is recorded once, for what became of it."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 60))
        (asked, _), (begun, second), (done, third) = (pump.starts() for _ in range(3))
        connecting = pump.request()
        pump.delivers(second, big(10)[:-1])
        pump.delivers(third, big(100))
        pump.downstream.end()
        pump.settle()
        assert [pump.answer(stream_id).status for stream_id in (asked, begun, done, connecting)] == [503, 200, 200, 503]
        assert pump.answer(asked).is_whole
        assert pump.answer(begun).reset == frames.INTERNAL_ERROR
        assert pump.answer(done).reset == frames.CANCEL
        assert sorted(pump.log.ended, key=str) == [
            Ended(200, "", ""),
            Ended(200, "drain_timeout", ""),
            Ended(503, "drain_timeout", ""),
            Ended(503, "drain_timeout", ""),
        ]
        assert pump.tls.ending == "linger"
        assert is_over(pump)

    def test_second_step_of_a_connection_that_is_gone_does_nothing(self) -> None:
        """Neither after its loss nor after its close."""
        pump = H2Pump()
        pump.downstream.drain()
        pump.client_vanishes()
        assert is_over(pump)
        pump = H2Pump()
        pump.downstream.drain()
        pump.downstream.end()
        pump.downstream.end()
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert len(pump.goaways) == 2

    def test_as_many_requests_as_are_allowed(self) -> None:
        """The last of them begins the drain; those on their way are served all the same."""
        pump = H2Pump(limits=Limits(requests_per_connection=2))
        pump.delivers(pump.starts()[1], OK)
        assert not pump.goaways
        ids = [pump.request(), pump.request()]
        assert pump.goaways == [(2**31 - 1, frames.NO_ERROR)]
        pump.accept()
        for app in pump.apps:
            pump.delivers(app, OK)
        assert all(pump.answer(stream_id).is_whole for stream_id in ids)
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "linger"
        assert pump.downstream.requests == 3


class TestJudgedAgain:
    def test_next_request_is_refused(self) -> None:
        """Also one that repeats the last byte for byte; those under way are finished."""
        pump = H2Pump()
        first, app = pump.starts()
        pump.judge_again(REFUSING)
        second = pump.request()
        assert pump.answer(second).status == 400
        pump.delivers(app, OK)
        assert pump.answer(first).body == b"ok"
        assert not pump.tls.ending


class TestEndOfTheClient:
    def test_half_close_gets_the_answers(self) -> None:
        """To whole requests; one that is not whole never will be."""
        pump = H2Pump()
        whole, app = pump.starts()
        part, other = pump.starts(POST, b"abc", ends=False)
        pump.client_half_closes()
        assert not pump.tls.ending
        assert pump.answer(part).reset == frames.CANCEL
        assert other.is_closed
        pump.delivers(app, OK)
        assert pump.answer(whole).is_whole
        assert pump.tls.ending == "linger"
        assert pump.log.ended == [Ended(0, "downstream_lost", ""), Ended(200, "", "")]

    def test_half_close_inside_a_frame_gets_the_answers_too(self) -> None:
        """What has begun will not come, and is not waited for."""
        pump = H2Pump(timeouts=TIMEOUTS)
        stream_id, app = pump.starts()
        pump.client_sends(frames.ping()[:9])
        pump.client_half_closes()
        pump.pass_time(30)
        pump.delivers(app, OK)
        assert pump.answer(stream_id).is_whole
        assert not pump.service.metrics.http2_faults

    def test_half_close_while_an_answer_waits_for_room(self) -> None:
        """There will be none; the body timeout ends it."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 1), timeouts=TIMEOUTS)
        pump.delivers(pump.starts()[1], OK)
        pump.client_half_closes()
        assert not pump.tls.ending
        pump.pass_time(3.1)
        assert pump.answer(1).reset == frames.CANCEL
        assert pump.tls.ending == "linger"

    @pytest.mark.parametrize("end", ["client_half_closes", "client_cuts"])
    def test_end_without_requests_closes(self, end: str) -> None:
        """Nobody waits for anything."""
        pump = H2Pump()
        getattr(pump, end)()
        assert pump.tls.ending == "linger"
        assert is_over(pump)

    def test_cut_cancels_everything(self) -> None:
        """Without close_notify, anybody may have ended it."""
        pump = H2Pump()
        pump.starts()
        pump.client_cuts()
        assert pump.tls.ending == "abort"
        assert pump.log.ended == [Ended(0, "downstream_lost", "")]
        assert is_over(pump)

    def test_loss_with_everything_under_way(self) -> None:
        """Each exchange is told once, each connection to the app is given up, nothing keeps waiting."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 10), timeouts=TIMEOUTS)
        tunnel = upgraded(pump)
        (_, waiting), (_, streaming), (_, stalled), (_, done), (_, uploading) = (
            pump.starts(),
            pump.starts(),
            pump.starts(),
            pump.starts(),
            pump.starts(POST, b"a" * 10, ends=False),
        )
        pump.request()
        pump.request(POST, b"b", ends=False)
        pump.delivers(streaming, big(5)[:-1])
        pump.delivers(stalled, big(100)[:-1])
        pump.delivers(done, big(100))
        pump.downstream.drain()
        pump.client_vanishes()
        assert all(app.is_closed for app in (tunnel, waiting, streaming, stalled, uploading))
        assert not done.is_closed, "it is the pool's again"
        reasons = sorted(ended.reason for ended in pump.log.ended)
        assert reasons == ["", ""] + ["downstream_lost"] * 6
        assert pump.downstream.is_idle
        while pump.pool.waiting:
            pump.accept()
        assert is_over(pump)

    def test_frames_that_are_limited_are_counted_at_the_end(self) -> None:
        """For operators who wonder what a client does all day."""
        pump = H2Pump()
        pump.client_sends(frames.ping() * 3)
        pump.client_vanishes()
        assert pump.service.metrics.http2_limited_frames["ping"] == 3


class TestFaults:
    @pytest.mark.parametrize(
        ("data", "code", "reason"),
        [
            (frames.data(9, b"x"), frames.PROTOCOL_ERROR, "idle_stream"),
            (frames.window_update(0, 0), frames.PROTOCOL_ERROR, "zero_increment"),
            (frames.settings() * 50, frames.ENHANCE_YOUR_CALM, "settings_flood"),
            (frames.frame(frames.DATA, 0, 1, b"", length=20_000), frames.FRAME_SIZE_ERROR, "frame_too_large"),
        ],
        ids=["idle stream", "zero increment", "flood", "frame size"],
    )
    def test_client_is_told_by_goaway_and_operators_by_name(self, data: bytes, code: int, reason: str) -> None:
        """All its requests are over, each recorded once; it gets time to read why."""
        pump = H2Pump()
        (_, first), (last, second) = pump.starts(), pump.starts()
        pump.delivers(first, OK[:-1])
        pump.client_sends(data)
        assert pump.goaways == [(last, code)]
        assert pump.tls.ending == "linger"
        assert [ended.reason for ended in pump.log.ended] == ["downstream_lost"] * 2
        assert second.is_closed
        assert pump.service.metrics.http2_faults == {reason: 1}
        (event,) = pump.service.rejecter.rejections.as_json()
        assert (event["reason"], event["answer"]) == (reason, "GOAWAY")
        pump.client_vanishes()
        assert len(pump.log.ended) == 2
        assert is_over(pump)

    def test_no_preface_is_no_client(self) -> None:
        """HTTP/1.1 on a connection that agreed on HTTP/2."""
        pump = H2Pump(has_begun=False)
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [code for _, code in pump.goaways] == [frames.PROTOCOL_ERROR]
        assert pump.tls.ending == "linger"

    def test_resets_without_end_are_a_fault(self) -> None:
        """CVE-2023-44487: what was taken back before anybody looked has cost the app nothing."""
        pump = H2Pump()
        data = b"".join(frames.headers(2 * n + 1) + frames.rst_stream(2 * n + 1) for n in range(300))
        pump.client_sends(data)
        assert [code for _, code in pump.goaways] == [frames.ENHANCE_YOUR_CALM]
        assert pump.service.metrics.http2_faults == {"reset_flood": 1}
        assert not pump.pool.waiting
        assert is_over(pump)

    def test_too_many_streams_are_refused_alone(self) -> None:
        """By REFUSED_STREAM: the client may ask again."""
        pump = H2Pump(http2=Http2Limits(streams=2))
        ids = [pump.request() for _ in range(3)]
        assert pump.answer(ids[2]).reset == frames.REFUSED_STREAM
        assert len(pump.pool.waiting) == 2
        assert pump.last.reason == "too_many_streams"
        assert not pump.tls.ending


NUMBERS = b"".join(b"%07d," % number for number in range(200_000))


def pattern(stream_id: int, size: int) -> bytes:
    """The first bytes of a stream; no two of its pieces are the same, nor those of two streams."""
    return NUMBERS[8 * stream_id : 8 * stream_id + size]


def unchunked(data: bytes) -> bytes:
    """What chunks carry, as far as they have come."""
    found, at = b"", 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        found += data[end + 2 : end + 2 + size]
        at = end + size + 4
    return found


class Story:
    """A client, its app and time, doing whatever they are told, within the rules of HTTP/2."""

    SIZE = 30_000
    """Bytes of each response."""

    def __init__(self) -> None:
        self.pump = H2Pump(timeouts=TIMEOUTS)
        self.granted = self.pump.credit[0]
        self.sent: dict[int, int] = {}  # body bytes, by stream
        self.open: set[int] = set()  # requests that have not been ended by the client
        self.taken_back: set[int] = set()
        self.answered: dict[int, int] = {}  # bytes of responses that apps have sent

    # -- what can happen --

    def asks(self, number: int, size: int) -> None:
        if len(self.open) < 10 and self.may_send:
            stream_id = self.pump.next_id
            self.open.add(stream_id)
            self.sent[stream_id] = 0
            self.pump.request(fields(b"POST", b"/%d" % stream_id), ends=False)

    def sends(self, number: int, size: int) -> None:
        stream_id = self.pick(self.open, number)
        if stream_id and self.may_send:
            room = Http2Limits().stream_window + self.pump.credit.get(stream_id, 0) - self.sent[stream_id]
            room = min(room, FIRST_WINDOW + self.pump.credit[0] - sum(self.sent.values()), size, 16_384)
            if room > 0:
                at = self.sent[stream_id]
                self.sent[stream_id] += room
                self.pump.client_sends(frames.data(stream_id, pattern(stream_id, at + room)[at:]))

    def ends(self, number: int, size: int) -> None:
        stream_id = self.pick(self.open, number)
        if stream_id and self.may_send:
            self.open.discard(stream_id)
            self.pump.client_sends(frames.data(stream_id, b"", frames.END_STREAM))

    def resets(self, number: int, size: int) -> None:
        stream_id = self.pick(self.open, number)
        if stream_id and self.may_send:
            self.open.discard(stream_id)
            self.taken_back.add(stream_id)
            self.pump.resets(stream_id)

    def gives(self, number: int, size: int) -> None:
        stream_id = self.pick({0, *self.sent}, number)
        if self.may_send and size:
            self.pump.gives(stream_id, size)

    def sets_windows(self, number: int, size: int) -> None:
        if self.may_send:
            self.pump.client_sends(frames.settings((frames.INITIAL_WINDOW_SIZE, (0, 10, FIRST_WINDOW)[number % 3])))

    def stops_reading(self, number: int, size: int) -> None:
        self.pump.tls.stop_taking()

    def reads_on(self, number: int, size: int) -> None:
        self.pump.tls.take()
        self.pump.settle()

    def connects(self, number: int, size: int) -> None:
        self.pump.pool.stuck_from_the_start = number == 0
        if self.pump.pool.waiting:
            self.pump.accept()

    def refuses(self, number: int, size: int) -> None:
        if self.pump.pool.waiting:
            self.pump.pool.refuse()
            self.pump.settle()

    def answers(self, number: int, size: int) -> None:
        at = self.pick(range(1, len(self.pump.apps) + 1), number)
        upstream = self.pump.pool.opened[at - 1] if at else None
        if upstream is None or not self.pump.apps[at - 1].is_reading or upstream.lessee is None:
            return
        stream_id = upstream.lessee.downstream.id  # type: ignore[attr-defined] # of an exchange on a stream
        begun = stream_id in self.answered
        done = self.answered.get(stream_id, 0)
        now = self.answered[stream_id] = min(done + size, self.SIZE)
        head = b"" if begun else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.SIZE
        if head or now > done:
            self.pump.delivers(self.pump.apps[at - 1], head + pattern(stream_id, now)[done:])
        if len(self.pump.answer(stream_id).body) < now < self.SIZE:
            assert not self.pump.apps[at - 1].is_reading, "more is fetched than the client takes"

    def takes_nothing(self, number: int, size: int) -> None:
        for app in self.pump.apps[number : number + 1]:
            app.stop_taking()

    def takes_it_all(self, number: int, size: int) -> None:
        for app in self.pump.apps[number : number + 1]:
            app.take()
        self.pump.settle()

    def breaks(self, number: int, size: int) -> None:
        for app in self.pump.apps[number : number + 1]:
            app.reset()
        self.pump.settle()

    def closes(self, number: int, size: int) -> None:
        for app in self.pump.apps[number : number + 1]:
            app.deliver_eof()
        self.pump.settle()

    def waits(self, number: int, size: int) -> None:
        self.pump.pass_time((0.1, 0.5, 1.0, 2.9, 3.1, 20.0, 41.0, 51.0)[number])

    def judges_again(self, number: int, size: int) -> None:
        self.pump.judge_again()
        self.pump.settle()

    def drains(self, number: int, size: int) -> None:
        self.pump.downstream.drain()
        self.pump.settle()

    # -- what must hold --

    @property
    def may_send(self) -> bool:
        return not self.pump.tls.ending and self.pump.peer.is_reading

    def pick(self, among: Any, number: int) -> int:
        """One of *among*, 0 if there is none; streams that the proxy has ended are not among them."""
        self.open -= {stream_id for stream_id in self.open if self.pump.answer(stream_id).reset is not None}
        found = sorted(among)
        return found[number % len(found)] if found else 0

    def check(self) -> None:
        pump = self.pump
        assert not pump.service.metrics.http2_faults, "the client has broken no rule"
        assert pump.credit[0] - self.granted <= sum(self.sent.values())
        for stream_id, sent in self.sent.items():
            assert pump.credit.get(stream_id, 0) <= sent
            answer = pump.answer(stream_id)
            if answer.status == 200:
                assert pattern(stream_id, self.SIZE).startswith(answer.body)
                assert not answer.is_ended or len(answer.body) == self.SIZE
        for app in pump.apps:
            head, _, body = app.sent[app.sent.rfind(b"POST /") :].partition(b"\r\n\r\n")
            if head:
                stream_id = int(head.split()[1][1:])
                assert pattern(stream_id, self.sent[stream_id]).startswith(unchunked(body))
            assert app.queued < 5 * Http2Limits().stream_window, "chunks of few bytes, and what a window holds"

    def finish(self) -> None:
        """Let everybody do what everybody waits for, and no time pass."""
        for _ in range(40):
            self.reads_on(0, 0)
            for number in range(len(self.pump.apps)):
                self.takes_it_all(number, 0)
                self.answers(number, self.SIZE)
            self.connects(1, 0)
            for stream_id in sorted({0, *self.sent}):
                if self.may_send:
                    self.pump.gives(stream_id, self.SIZE)
            self.ends(0, 0)
            self.check()


OFTEN = ["asks", "asks", "connects", "connects", "sends", "answers"]
SELDOM = ["ends", "resets", "gives", "sets_windows", "stops_reading", "reads_on", "judges_again", "drains", "waits"]
OF_APPS = ["refuses", "takes_nothing", "takes_it_all", "breaks", "closes"]


class TestAnything:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(3 * OFTEN + SELDOM + OF_APPS),
                st.integers(0, 7),
                st.sampled_from([1, 100, 5_000, 40_000]),
            ),
            min_size=20,
            max_size=80,
        ),
        st.booleans(),
    )
    def test_every_request_comes_to_one_end(self, steps: list[tuple[str, int, int]], ends_well: bool) -> None:
        """Whatever happens in whatever order: bodies arrive whole and in order or not at all, and nothing is left."""
        story = Story()
        for name, number, size in steps:
            getattr(story, name)(number, size)
            story.check()
        pump = story.pump
        if ends_well:
            story.finish()
            assert pump.downstream.is_idle
            for stream_id in served(pump) - story.taken_back:
                answer = pump.answer(stream_id)
                assert answer.is_whole or answer.reset or pump.tls.ending, stream_id
        pump.client_vanishes()
        while pump.pool.waiting:
            pump.accept()
        assert len(pump.log.ended) == pump.downstream.requests
        assert is_over(pump)


def served(pump: H2Pump) -> set[int]:
    """The streams that have had an exchange."""
    return {exchange.downstream.id for exchange in pump.log.exchanges}  # type: ignore[attr-defined]


class TestBugsOfOurs:
    @pytest.mark.parametrize("is_of_drain", [True, False], ids=["second step of a drain", "stream"])
    def test_deadline_that_fails_ends_the_connection(self, is_of_drain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rather than to leave somebody without a deadline; the log says what happened."""

        def fail(*args: object) -> None:
            raise AssertionError("a bug")

        pump = H2Pump(timeouts=TIMEOUTS)
        pump.starts()
        pump.downstream.drain()
        if is_of_drain:
            monkeypatch.setattr(pump.tls, "write", fail)
        else:
            monkeypatch.setattr(Stream, "deadline_passed", fail)
        for _ in range(2):
            pump.pass_time(21)
        assert pump.tls.ending == "abort"
        assert pump.log.ended == [Ended(0, "downstream_lost", "")]
        assert is_over(pump)


class TestManyRequests:
    def test_nothing_grows(self) -> None:
        """After a thousand requests of every kind, as much is kept as after ten."""
        pump = H2Pump(admission=access_of(ClientSettings(cert=ClientCertMode.NONE), "test").admit(NO_CERTIFICATE))
        pump.gives(0, 2**24)

        def some(number: int) -> None:
            ids = [
                pump.request(),
                pump.request(fields(path=b"/%d" % number)),
                pump.request(POST, b"abc"),
                pump.request([(b":method", b"GET")]),
                pump.request(then=b""),
            ]
            while pump.pool.waiting:
                pump.accept()
            pump.resets(ids[0])
            for app in pump.apps:
                if not app.is_closed and app.is_reading and app.sent:
                    app.sent = b""
                    app.deliver(OK)
            pump.settle()
            pump.pass_time(0.1)

        for number in range(3):
            some(number)
        queued = len(pump.clock.getDelayedCalls())
        sizes = _sizes(pump.downstream)
        for number in range(200):
            some(number)
        assert pump.service.metrics.requests == 203 * 5
        assert not pump.goaways
        assert pump.downstream.is_idle
        assert len(pump.clock.getDelayedCalls()) <= queued
        for name, size in _sizes(pump.downstream).items():
            assert size <= max(sizes[name], MAX_REMEMBERED_HEADS, 5), name

    def test_streams_that_are_over_are_let_go(self) -> None:
        """No deadline, pool or callback keeps one alive."""
        pump = H2Pump()
        for _ in range(20):
            pump.request()
        while pump.pool.waiting:
            pump.delivers(pump.accept(), OK)
        assert len(self.streams_of(pump)) == 20
        pump.log.exchanges.clear()
        gc.collect()
        assert not self.streams_of(pump)

    def streams_of(self, pump: H2Pump) -> list[Stream]:
        return [made for made in gc.get_objects() if isinstance(made, Stream) and made.peer is pump.peer]


# Slots of a class, and attributes of one that is compiled.
_ATTRIBUTES = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _sizes(connection: object) -> dict[str, int]:
    """How many things each collection of *connection* holds."""
    names = [name for name, kind in vars(type(connection)).items() if isinstance(kind, _ATTRIBUTES)]
    values = {name: getattr(connection, name, None) for name in names}
    sizes = {name: len(value) for name, value in values.items() if isinstance(value, (dict, list))}
    assert sizes, "these are not all"
    return sizes
