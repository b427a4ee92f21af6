"""`proxy.multiplex`: one connection to an app that speaks HTTP/2, and the streams on it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sidecar.errors import ResponseError
from sidecar.proxy import multiplex
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.multiplex import FULL_SECONDS, STALE_SECONDS, Carrier, UpstreamStream
from sidecar.proxy.sockets import SocketTransport
from sidecar.proxy.turnend import TurnEnd
from sidecar.wire.events import Data, ResponseEvent, ResponseHead, Trailers
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.head import parse_request_head
from tests.support import frames
from tests.support.h2app import H2App, WritesNoted, answer, begun_answer, content, trailers
from tests.support.ports import FakeReactor

HEAD = b"POST /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX-A: b\r\n\r\n"
LIMITS = Http2Limits(streams=4).for_app()
PATIENCE = 2.0


class Lessee:
    """
    Notes what it is told, and gives the stream back at the end of the response, as an exchange does.

    Attributes:
        told: Statuses, what else has no content, and reasons, in order.
        body: Of the response.
        trailers: Field lines.
    """

    def __init__(self, stream: UpstreamStream) -> None:
        self.stream = stream
        self.told: list[Any] = []
        self.body = b""
        self.trailers = b""
        self.is_request_whole = True

    def response_events(self, events: list[ResponseEvent]) -> None:
        for event in events:
            if isinstance(event, Data):
                self.body += event.payload
            elif isinstance(event, Trailers):
                self.trailers = event.fields.section
            elif isinstance(event, ResponseHead):
                self.told.append(event.status)
            else:
                self.told.append(repr(event) if repr(event) == "END" else type(event).__name__)
        if self.told[-1] == "END":
            self.stream.release() if self.is_request_whole else self.stream.close()

    def response_failed(self, error: ResponseError) -> None:
        self.told.append(error.reason)

    def upstream_lost(self) -> None:
        self.told.append("refused" if self.stream.is_refused else "lost")

    def upstream_full(self) -> None:
        self.told.append("full")

    def upstream_drained(self) -> None:
        self.told.append("drained")


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.why: ConnectFailed | None = None

    def carrier_ready(self, carrier: Carrier) -> None:
        self.told.append("ready")

    def carrier_failed(self, carrier: Carrier, why: ConnectFailed) -> None:
        self.told.append("failed")
        self.why = why

    def stream_ended(self, carrier: Carrier) -> None:
        self.told.append("idle" if carrier.is_idle else "ended")

    def forget_carrier(self, carrier: Carrier) -> None:
        self.told.append("forget")


class World:
    """A connection, its app, and who uses it."""

    def __init__(self) -> None:
        self.clock = FakeReactor()
        self.owner = Owner()
        self.carrier = Carrier(LIMITS, self.owner, self.clock, TurnEnd(self.clock))
        self.transport = WritesNoted(self.clock)
        self.transport.protocol = self.carrier
        self.carrier.transport = cast(SocketTransport, self.transport)
        self.app = H2App(self.transport, self.clock.turn)
        self.carrier.begin(PATIENCE)
        self.clock.turn()

    def begun(self, *settings: tuple[int, int]) -> World:
        self.app.begins(*settings)
        assert self.owner.told == ["ready"]
        self.owner.told.clear()
        self.app.reads()
        return self

    def asks(self, body: bytes = b"", *, ends: bool = True, trailers: bytes = b"") -> Lessee:
        """Send a request; it leaves at the end of the turn."""
        assert self.carrier.room
        stream = UpstreamStream(self.carrier)
        lessee = Lessee(stream)
        lessee.is_request_whole = ends
        stream.begin(lessee, parse_request_head(HEAD, 100))
        stream.send(HEAD + body, ends, trailers)
        return lessee


@pytest.fixture
def world() -> World:
    """An app that takes four streams."""
    return World().begun()


def small(window: int) -> World:
    """An app that takes little of each request's body."""
    return World().begun((frames.INITIAL_WINDOW_SIZE, window))


class TestBeginning:
    def test_we_speak_first_and_wait_for_settings(self) -> None:
        """The preface leaves at once; no request does before the app has said how many it takes."""
        world = World()
        kinds = [frame.kind for frame in world.app.reads()]
        assert kinds == [frames.SETTINGS, frames.WINDOW_UPDATE]
        assert (world.carrier.room, world.owner.told) == (0, [])
        world.app.begins((frames.MAX_CONCURRENT_STREAMS, 3))
        assert (world.carrier.room, world.owner.told) == (3, ["ready"])
        world.clock.advance(PATIENCE)
        assert world.transport.is_open

    def test_settings_may_come_in_pieces(self) -> None:
        """And the app is told of as ready once."""
        world = World()
        data = frames.settings((frames.MAX_CONCURRENT_STREAMS, 1))
        for i in range(len(data)):
            assert world.owner.told == []
            world.app.sends(data[i : i + 1])
        world.app.sends(frames.settings())
        assert world.owner.told == ["ready"]

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "octets"),
            (frames.ping(), "the first frame is not SETTINGS"),
            (frames.goaway(0, frames.ENHANCE_YOUR_CALM), "the first frame is not SETTINGS"),
        ],
        ids=["HTTP/1.1", "PING", "GOAWAY"],
    )
    def test_anything_else_is_no_http2(self, data: bytes, says: str) -> None:
        """The connection is aborted, and the owner hears why, once."""
        world = World()
        world.app.sends(data)
        world.app.vanishes()
        assert world.owner.told == ["forget", "failed"]
        assert world.owner.why is not None
        assert world.owner.why.reason == "upstream_not_http2"
        assert str(world.owner.why).startswith("it does not speak HTTP/2 without TLS: ")
        assert world.transport.calls == ["abortConnection"]
        assert not world.clock.pending

    @pytest.mark.parametrize("end", ["closes", "vanishes"])
    def test_end_is_no_http2(self, end: str) -> None:
        """Many a server of HTTP/1.1 just closes."""
        world = World()
        getattr(world.app, end)()
        assert world.owner.told == ["forget", "failed"]
        assert "it closed the connection" in str(world.owner.why)
        assert not world.clock.pending

    def test_silence_is_no_http2(self) -> None:
        """Others wait for the rest of a request."""
        world = World()
        world.clock.advance(PATIENCE - 0.01)
        assert world.owner.told == []
        world.clock.advance(0.01)
        assert world.owner.told == ["forget", "failed"]
        assert "it has said nothing in time" in str(world.owner.why)
        assert world.transport.calls == ["abortConnection"]


class TestStreams:
    def test_answers_come_in_any_order(self, world: World) -> None:
        """Each to whom it is for, whatever else arrives with it."""
        first, second, third = (world.asks() for _ in range(3))
        world.clock.turn()
        assert list(world.app.asked) == [1, 3, 5]
        world.app.sends(
            begun_answer(3),
            answer(5, b"fifth"),
            frames.data(3, b"th"),
            answer(1, b"", status=b"404"),
            frames.data(3, b"ird", frames.END_STREAM),
        )
        assert (first.told, second.told, third.told) == ([404, "END"], [200, "END"], [200, "END"])
        assert (second.body, third.body) == (b"third", b"fifth")
        assert world.owner.told == ["ended", "ended", "idle"]
        assert world.carrier.room == 4

    def test_request_is_that_of_http1(self, world: World) -> None:
        """Its lines become fields; what belongs to a connection is left out, and an end comes with the head."""
        world.asks()
        world.clock.turn()
        (head,) = world.app.reads()
        assert head.flags == frames.WHOLE
        assert world.app.asked[1].fields == {
            b":method": b"POST",
            b":scheme": b"http",
            b":authority": b"a.example",
            b":path": b"/x",
            b"x-a": b"b",
        }

    def test_writes_of_one_turn_leave_in_one_piece(self, world: World) -> None:
        """Many small requests cost one system call; so do the replies to all that arrives together."""
        world.transport.writes.clear()
        for _ in range(4):
            world.asks(b"body")
        assert world.transport.writes == []
        world.clock.turn()
        assert len(world.transport.writes) == 1
        assert [asked.body for asked in world.app.asked.values()] == [b"body"] * 4
        world.app.sends(frames.ping(), answer(1, b"a" * 40_000), begun_answer(3), content(3, b"b" * 40_000))
        assert len(world.transport.writes) == 2
        world.app.reads()
        assert world.app.credit[3] == 40_000
        assert world.transport.is_open

    def test_room_is_what_the_app_says_now(self, world: World) -> None:
        """Never over our own limit; an app may take streams back that it never had."""
        for _ in range(3):
            world.asks()
        world.clock.turn()
        assert world.carrier.room == 1
        for most, room in ((2, 0), (0, 0), (3, 0), (4, 1), (1000, 1)):
            world.app.sends(frames.settings((frames.MAX_CONCURRENT_STREAMS, most)))
            assert world.carrier.room == room
        world.app.answers(1)
        assert world.carrier.room == 2

    def test_malformed_response_ends_its_stream_only(self, world: World) -> None:
        """The app is told so, and the others go on."""
        bad, good = world.asks(), world.asks()
        world.clock.turn()
        world.app.sends(frames.headers(1, [(b":status", b"200"), (b"Upper", b"x")]), answer(3, b"ok"))
        assert good.body == b"ok"
        assert bad.told == ["bad_header"]
        assert world.app.asked[1].reset == frames.PROTOCOL_ERROR
        assert world.owner.told == ["ended", "idle"]

    def test_broken_connection_ends_all(self, world: World) -> None:
        """Each is told which rule the app broke, once, and nothing of what came with it; the app is told too."""
        lessees = [world.asks() for _ in range(3)]
        world.clock.turn()
        world.app.sends(begun_answer(1), frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)))
        world.app.vanishes()
        assert [lessee.told for lessee in lessees] == [["zero_increment"]] * 3
        assert world.owner.told == ["forget"]
        assert world.app.reads()[-1].kind == frames.GOAWAY
        assert (world.carrier.room, world.transport.calls) == (0, ["abortConnection"])

    @pytest.mark.parametrize("end", ["closes", "vanishes"])
    def test_lost_connection_is_told_to_all(self, world: World, end: str) -> None:
        """None of them is said to be unprocessed: nobody knows."""
        waiting, streaming = world.asks(), world.asks(b"a", ends=False)
        world.clock.turn()
        world.app.sends(begun_answer(3))
        getattr(world.app, end)()
        assert (waiting.told, streaming.told) == (["lost"], [200, "lost"])
        assert world.owner.told == ["forget"]

    def test_interim_heads_and_trailers_are_told(self, world: World) -> None:
        """A response has all its parts."""
        lessee = world.asks()
        world.clock.turn()
        assert not lessee.stream.has_response_bytes
        world.app.sends(frames.headers(1, [(b":status", b"103")], frames.END_HEADERS))
        world.app.sends(begun_answer(1), frames.data(1, b"x"), trailers(1, [(b"grpc-status", b"0")]))
        assert lessee.told == ["InterimHead", 200, "END"]
        assert lessee.stream.has_response_bytes
        assert (lessee.body, lessee.trailers) == (b"x", b"grpc-status: 0\r\n")

    def test_app_that_does_not_read_gets_no_more(self, world: World) -> None:
        """Heads of further requests, of clients that come and go, would pile up; then the connection is cut."""
        lessee = world.asks(b"x", ends=False)
        world.clock.turn()
        world.transport.stop_taking()
        lessee.stream.send(b"x", False, b"")
        world.clock.turn()
        assert world.carrier.room == 0
        world.clock.advance(FULL_SECONDS + 1)
        assert not world.transport.is_open
        assert lessee.told == ["full", "app_stalled"]

    def test_app_that_reads_again_has_room_again(self, world: World) -> None:
        """Who waits for it is told."""
        world.transport.stop_taking()
        world.asks()
        world.clock.turn()
        world.transport.take()
        assert world.carrier.room
        assert world.owner.told == ["ended"]
        world.clock.advance(2 * FULL_SECONDS)
        assert world.transport.is_open

    def test_clients_that_come_and_go_show_that_an_app_is_stale(self, world: World) -> None:
        """None of their requests waits for as long as that; all of them together do."""
        for _ in range(int(STALE_SECONDS)):
            assert not world.carrier.is_last
            lessee = world.asks()
            world.clock.advance(1)
            lessee.stream.close()
        assert world.carrier.is_last

    def test_replies_are_limited_where_nobody_reads_them(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """An app that asks and asks and takes no answer does not fill our memory; what it took is forgotten."""
        monkeypatch.setattr(multiplex, "FULL_SECONDS", 1000.0)
        lessee = world.asks()
        replies = 0
        while replies < 2 * LIMITS.control_bytes:
            replies += len(frames.ping())
            world.clock.advance(0.1)
            world.app.sends(frames.ping())
        assert world.transport.is_open
        world.transport.stop_taking()
        while world.transport.is_open and world.transport.queued < 2 * LIMITS.control_bytes:
            world.clock.advance(0.1)
            world.app.sends(frames.ping())
        assert lessee.told == ["full", "unread_replies"]

    def test_connection_that_is_closing_has_no_room(self, world: World) -> None:
        """Its end is told in a later turn."""
        world.transport.abortConnection()
        assert (world.carrier.room, world.owner.told) == (0, [])

    def test_stream_that_was_left_meanwhile_has_ended_once(self, world: World) -> None:
        """The exchange may leave at its first event, and the rest of what came is nobody's."""
        lessee = world.asks()
        world.clock.turn()
        lessee.response_events = lambda events: lessee.stream.close()  # type: ignore[method-assign]
        world.app.sends(begun_answer(1), content(1, b"a"), frames.rst_stream(1))
        assert world.owner.told == ["idle"]


class TestGoingAway:
    def test_streams_above_the_last_are_refused_and_those_below_go_on(self, world: World) -> None:
        """Nothing more is opened, and the connection closes behind the last answer, with a word."""
        below, above = world.asks(), world.asks(b"body", ends=False)
        world.clock.turn()
        world.app.sends(frames.goaway(1))
        assert (below.told, above.told) == ([], ["refused"])
        assert (world.carrier.room, world.carrier.is_last) == (0, True)
        world.app.answers(1, b"ok")
        assert below.told == [200, "END"]
        world.carrier.retire()
        world.clock.turn()
        assert world.app.reads()[-1].kind == frames.GOAWAY
        assert (world.transport.calls, world.owner.told[-1]) == (["loseConnection"], "forget")

    def test_idle_connection_closes_at_once(self, world: World) -> None:
        """There is nothing to wait for."""
        world.app.sends(frames.goaway(0))
        assert world.transport.calls == ["loseConnection"]
        assert world.owner.told == ["forget"]

    def test_second_goaway_takes_back_more(self, world: World) -> None:
        """A drain in two steps: first the highest number there is, then what was really looked at."""
        first, second = world.asks(), world.asks()
        world.clock.turn()
        world.app.sends(frames.goaway(2**31 - 1))
        assert (first.told, second.told) == ([], [])
        world.app.sends(frames.goaway(1))
        assert (first.told, second.told) == ([], ["refused"])

    @pytest.mark.parametrize(
        ("code", "before", "told"),
        [
            (frames.REFUSED_STREAM, b"", ["refused"]),
            (frames.CANCEL, b"", ["lost"]),
            (frames.REFUSED_STREAM, begun_answer(1), [200, "lost"]),
            (frames.NO_ERROR, begun_answer(1), [200, "lost"]),
        ],
        ids=["refused", "cancelled", "refused behind the head", "ended behind the head"],
    )
    def test_reset_tells_whether_the_request_was_looked_at(
        self, world: World, code: int, before: bytes, told: list[Any]
    ) -> None:
        """Only an app that has said nothing can say that it has done nothing; the connection goes on."""
        lessee = world.asks()
        world.clock.turn()
        world.app.sends(before, frames.rst_stream(1, code))
        assert lessee.told == told
        assert world.owner.told == ["idle"]
        assert world.carrier.room == 4


class TestRequestBody:
    def test_what_the_app_has_no_room_for_waits(self) -> None:
        """The client is paused once and let go once, and nothing is lost or doubled."""
        world = small(10)
        lessee = world.asks(b"0123456789abc", ends=False)
        world.clock.turn()
        assert world.app.asked[1].body == b"0123456789"
        assert lessee.told == ["full"]
        world.app.gives(1, 2)
        assert (world.app.asked[1].body, lessee.told) == (b"0123456789ab", ["full"])
        world.app.gives(1, 20)
        assert (world.app.asked[1].body, lessee.told) == (b"0123456789abc", ["full", "drained"])
        lessee.stream.send(b"def", True, b"")
        world.clock.turn()
        assert world.app.asked[1].body == b"0123456789abcdef"
        assert world.app.asked[1].is_ended

    def test_what_still_comes_queues_behind_it(self) -> None:
        """A client that was paused has bytes on their way."""
        world = small(1)
        lessee = world.asks(b"ab", ends=False)
        lessee.stream.send(b"cd", False, b"")
        lessee.stream.send(b"ef", True, b"Checksum: 1\r\n")
        world.clock.turn()
        assert world.app.asked[1].body == b"a"
        world.app.gives(1, 100)
        asked = world.app.asked[1]
        assert (asked.body, asked.trailers, asked.is_ended) == (b"abcdef", {b"checksum": b"1"}, True)

    def test_trailers_need_no_room(self) -> None:
        """They are no part of what windows count."""
        world = small(0)
        lessee = world.asks(trailers=b"Checksum: 1\r\n")
        world.clock.turn()
        assert world.app.asked[1].trailers == {b"checksum": b"1"}
        assert lessee.told == []

    def test_progress_is_what_the_app_took(self) -> None:
        """It is asked for by deadlines, and each byte counts once."""
        world = small(1)
        stream = world.asks(b"abc", ends=False).stream
        assert not stream.has_progressed()
        world.app.gives(1, 1)
        assert stream.has_progressed()
        assert not stream.has_progressed()

    def test_window_of_the_connection_is_shared(self, world: World) -> None:
        """Who waits for it goes on when it grows."""
        first, second = world.asks(b"a" * 65_535, ends=False), world.asks(b"b")
        world.clock.turn()
        assert (first.told, second.told) == ([], ["full"])
        world.app.gives(0, 1)
        assert second.told == ["full", "drained"]
        assert world.app.asked[3].body == b"b"

    def test_app_that_takes_nothing_stops_all_and_all_go_on(self, world: World) -> None:
        """A socket that is full is everybody's, and so is the one that has room again."""
        lessees = [world.asks(b"a", ends=False) for _ in range(3)]
        world.clock.turn()
        world.transport.stop_taking()
        lessees[0].stream.send(b"b", False, b"")
        world.clock.turn()
        assert [lessee.told for lessee in lessees] == [["full"]] * 3
        lessees[1].stream.send(b"c", True, b"")
        assert world.transport.queued < 20
        world.app.takes()
        assert [lessee.told[:2] for lessee in lessees] == [["full", "drained"]] * 3
        assert [asked.body for asked in world.app.asked.values()] == [b"ab", b"ac", b"a"]
        assert world.app.asked[3].is_ended
        world.transport.stop_taking()
        world.app.sends(frames.ping())
        world.app.takes()
        assert [lessee.told for lessee in lessees] == [["full", "drained"] * 2] * 3
        assert [frame.kind for frame in world.app.reads()] == [frames.PING]

    def test_stream_that_both_stop_goes_on_behind_both(self) -> None:
        """Neither the window nor the socket alone lets it go on."""
        world = small(1)
        lessee = world.asks(b"ab")
        world.transport.stop_taking()
        world.clock.turn()
        assert lessee.told == ["full"]
        world.app.gives(1, 1)
        assert lessee.told == ["full"]
        world.app.takes()
        assert lessee.told == ["full", "drained"]
        assert world.app.asked[1].body == b"ab"

    def test_response_may_end_before_the_request(self) -> None:
        """What is left of the request is dropped, and the app told so."""
        world = small(1)
        lessee = world.asks(b"abc", ends=False)
        world.clock.turn()
        world.app.answers(1, b"no", status=b"413")
        assert lessee.told == ["full", 413, "END"]
        assert (world.app.asked[1].reset, world.owner.told) == (frames.CANCEL, ["idle"])
        world.app.gives(1, 10)
        assert world.app.asked[1].body == b"a"

    def test_reset_behind_a_whole_response_is_no_failure(self, world: World) -> None:
        """So a server says that it does not need the rest (RFC 9113 section 8.1)."""
        lessee = world.asks(b"a", ends=False)
        world.clock.turn()
        world.app.sends(answer(1, b"enough"), frames.rst_stream(1, frames.NO_ERROR))
        assert (lessee.told, lessee.body) == ([200, "END"], b"enough")
        assert (world.app.asked[1].reset, world.owner.told) == (None, ["idle"])


class TestResponseBody:
    def test_credit_comes_back_as_the_client_takes_it(self, world: World) -> None:
        """While it takes nothing, there is none; all of it comes at once when it does again."""
        lessee = world.asks()
        world.clock.turn()
        world.app.reads()
        world.app.sends(begun_answer(1), content(1, b"a" * 40_000))
        world.app.reads()
        given = world.app.credit[1]
        lessee.stream.pauseProducing()
        world.app.sends(content(1, b"b" * 40_000))
        world.app.sends(content(1, b"c" * (given - 14_464)))
        world.app.reads()
        assert world.app.credit[1] == given == 40_000
        lessee.stream.resumeProducing()
        world.clock.turn()
        world.app.reads()
        assert world.app.credit[1] == 40_000 + 65_536

    def test_no_stream_has_a_say_in_what_is_read_at_once(self, world: World) -> None:
        """That is for all of them."""
        lessee = world.asks()
        before = world.transport.read_limit
        lessee.stream.read_up_to(1_000_000)
        assert world.transport.read_limit == before

    def test_unread_response_does_not_stop_the_others(self, world: World) -> None:
        """Its window is its own, and the connection's has room for those of all streams."""
        unread, *others = (world.asks() for _ in range(4))
        unread.stream.pauseProducing()
        world.clock.turn()
        world.app.sends(begun_answer(1), content(1, bytes(65_536)))
        for _ in range(40):  # over what the connection's window would be by itself
            for stream_id in (3, 5, 7):
                world.app.sends(
                    begun_answer(stream_id) if not others[stream_id // 2 - 1].told else b"",
                    frames.data(stream_id, bytes(16_384)),
                )
        assert [len(other.body) for other in others] == [40 * 16_384] * 3
        assert world.transport.is_open

    def test_credit_of_an_unread_response_comes_back_with_its_end(self, world: World) -> None:
        """Else a connection that lives for long would run out of it, one stalled client after the other."""
        for i in range(70):
            stream_id = 2 * i + 1
            lessee = world.asks()
            lessee.stream.pauseProducing()
            world.clock.turn()
            world.app.sends(begun_answer(stream_id), content(stream_id, bytes(65_536)))
            lessee.stream.close()
            world.clock.turn()
        world.app.reads()
        assert world.transport.is_open
        assert world.app.credit[0] >= 70 * 65_536 - LIMITS.connection_window // 2

    def test_resume_behind_the_end_gives_nothing_twice(self, world: World) -> None:
        """The last of a response may be with the client long after its stream is over."""
        lessee = world.asks()
        lessee.stream.pauseProducing()
        world.clock.turn()
        world.app.sends(begun_answer(1), content(1, b"a"))
        lessee.stream.resumeProducing()
        lessee.stream.resumeProducing()
        lessee.stream.pauseProducing()
        world.app.sends(content(1, b"a" * 1000, ends=True))
        lessee.stream.resumeProducing()
        world.clock.turn()
        assert lessee.told == [200, "END"]
        assert world.carrier.is_idle


class TestGivingUp:
    def test_app_is_told(self, world: World) -> None:
        """RST_STREAM, CANCEL; what still comes is dropped, and the others go on."""
        given_up, other = world.asks(), world.asks()
        world.clock.turn()
        given_up.stream.close()
        world.clock.turn()
        assert world.app.asked[1].reset == frames.CANCEL
        world.app.sends(answer(1, b"late"), answer(3, b"ok"))
        assert (given_up.told, other.body) == ([], b"ok")
        assert world.owner.told == ["ended", "idle"]

    def test_stream_that_was_never_opened_is_nothing_to_the_app(self, world: World) -> None:
        """A client may leave before its request was sent."""
        stream = UpstreamStream(world.carrier)
        stream.begin(Lessee(stream), parse_request_head(HEAD, 100))
        stream.close()
        stream.release()
        world.clock.turn()
        assert world.app.reads() == []
        assert (world.owner.told, world.carrier.room) == ([], 4)

    def test_twice_is_once(self, world: World) -> None:
        """Who gives a stream up after its end changes nothing."""
        lessee = world.asks()
        world.clock.turn()
        lessee.stream.close()
        lessee.stream.close()
        lessee.stream.release()
        world.clock.turn()
        assert [frame.kind for frame in world.app.reads()] == [frames.HEADERS, frames.RST_STREAM]
        assert world.owner.told == ["idle"]

    def test_connection_that_says_nothing_is_not_used_again(self, world: World) -> None:
        """Its app may be gone for good; the requests that are on it have their own deadlines."""
        given_up, other = world.asks(), world.asks()
        world.clock.advance(STALE_SECONDS)
        given_up.stream.close()
        assert (world.carrier.room, world.carrier.is_last) == (0, True)
        world.app.answers(3)
        assert other.told == [200, "END"]

    def test_connection_that_says_anything_is(self, world: World) -> None:
        """A request that takes long is not the connection's fault, nor is one that was given up soon."""
        slow, quick = world.asks(), None
        world.clock.advance(STALE_SECONDS - 0.01)
        world.app.sends(frames.ping())
        world.clock.advance(STALE_SECONDS - 0.01)
        slow.stream.close()
        assert not world.carrier.is_last
        world.clock.advance(STALE_SECONDS)
        quick = world.asks()
        world.clock.advance(STALE_SECONDS - 0.01)
        quick.stream.close()
        assert not world.carrier.is_last


class TestRetiring:
    def test_what_is_on_it_is_finished(self, world: World) -> None:
        """It takes no more; who retires it again when that has ended closes it."""
        lessee = world.asks()
        world.clock.turn()
        world.carrier.retire()
        assert (world.carrier.room, world.transport.calls) == (0, [])
        world.app.answers(1)
        assert lessee.told == [200, "END"]
        world.carrier.retire()
        world.carrier.retire()
        assert world.transport.calls == ["loseConnection"]
        assert world.owner.told == ["idle", "forget"]

    def test_nothing_is_heard_behind_it(self, world: World) -> None:
        """Not even what breaks a rule."""
        world.carrier.retire()
        world.carrier.dataReceived(b"nonsense that is longer than a frame's head")
        world.carrier.eofReceived()
        world.clock.turn()
        assert world.owner.told == ["forget"]
        assert world.transport.calls == ["loseConnection"]
