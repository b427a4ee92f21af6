"""The client role of HTTP/2; what both roles have in common is in test_h2connection.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hpack import Decoder

from sidecar.wire.events import END, BodyKind, Data, InterimHead, ResponseHead, Trailers
from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Allowance, Http2Limits
from sidecar.wire.h2streams import WRITABLE, ClientStreamEvent, Reset
from sidecar.wire.http1 import MAX_INTERIM_RESPONSES
from sidecar.wire.http2client import ClientConnection
from tests.support import frames
from tests.support.frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    NO_ERROR,
    OK,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WHOLE,
    WINDOW_UPDATE,
    Frame,
    asking,
    client,
    data,
    decoded,
    goaway,
    headers,
    rst_stream,
    sent,
    settings,
    window_update,
)

Events = Sequence[tuple[int, ClientStreamEvent]]

HOST = b"Host: a.example\r\n"
MAX_STREAMS = frames.MAX_CONCURRENT_STREAMS
INTERIM = headers(1, [(b":status", b"103")], END_HEADERS)
BEGIN = headers(1, OK, END_HEADERS)


def told(events: Events, stream_id: int = 1) -> list[ClientStreamEvent]:
    """What was told of a stream."""
    return [event for found, event in events if found == stream_id]


def reset_of(events: Events, stream_id: int = 1) -> Reset:
    """The Reset of a stream, which is the last that was told of it."""
    last = told(events, stream_id)[-1]
    assert isinstance(last, Reset)
    return last


def kinds(events: Events, stream_id: int = 1) -> list[str]:
    return [type(event).__name__ for event in told(events, stream_id)]


def fault_of(connection: ClientConnection, sent_by_app: bytes) -> ConnectionFault:
    with pytest.raises(ConnectionFault) as caught:
        connection.receive(sent_by_app, 0.0)
    return caught.value


class TestBeginning:
    def test_preface_and_settings_come_first(self) -> None:
        """The app learns at once of our windows, and that we want no push."""
        connection = client(Http2Limits(header_list_bytes=2048, stream_window=70_000))
        out = connection.data_to_send()
        assert out.startswith(frames.PREFACE)
        first, window = frames.parse(out.removeprefix(frames.PREFACE))
        pairs = {
            int.from_bytes(first.payload[at : at + 2], "big"): int.from_bytes(first.payload[at + 2 : at + 6], "big")
            for at in range(0, len(first.payload), 6)
        }
        assert (first.kind, first.flags, first.stream_id) == (SETTINGS, 0, 0)
        assert pairs[frames.ENABLE_PUSH] == 0
        assert pairs[frames.INITIAL_WINDOW_SIZE] == 70_000
        assert pairs[frames.MAX_HEADER_LIST_SIZE] == 2048
        assert window == Frame(WINDOW_UPDATE, 0, 0, (1024 * 1024 - 65_535).to_bytes(4, "big"))

    def test_request_need_not_wait_for_settings(self) -> None:
        """RFC 9113 section 3.4: a client may send at once, by the windows that every connection begins with."""
        connection = client()
        assert connection.open(b"POST", b"/", HOST, end=False) == 1
        assert connection.send_data(1, bytes(100_000)) == 65_535
        assert [found.kind for found in sent(connection)] == [SETTINGS, WINDOW_UPDATE, HEADERS, *[DATA] * 4]
        assert not connection.is_begun
        connection.receive(settings() + frames.frame(SETTINGS, ACK), 0.0)
        assert connection.is_begun
        assert connection.are_settings_acknowledged

    def test_app_of_http_1_is_known_by_its_first_bytes(self) -> None:
        """Whoever says h2c of an app that does not speak it gets an error, not silence."""
        assert fault_of(client(), b"HTTP/1.1 400 Bad Request\r\n\r\n").code is Code.FRAME_SIZE_ERROR

    @pytest.mark.parametrize("first", [frames.ping(), frames.frame(SETTINGS, ACK), headers(1, OK)])
    def test_first_frame_of_the_app_is_settings(self, first: bytes) -> None:
        """RFC 9113 section 3.4."""
        connection = client()
        connection.open(b"GET", b"/", HOST, end=True)
        assert fault_of(connection, first).reason == "no_settings"


class TestRequests:
    def test_request_is_head_data_and_trailers(self) -> None:
        """The app reads what was given."""
        connection = asking()
        connection.open(b"POST", b"/p.S/C", HOST + b"TE: trailers\r\nTransfer-Encoding: chunked\r\n", end=False)
        assert connection.send_data(1, b"hello") == 5
        connection.send_trailers(1, b"X-Sum: 1\r\n")
        head, body, trailers = sent(connection)
        decoder = Decoder()
        assert decoded(decoder, head.payload) == [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
            (b":path", b"/p.S/C"),
            (b"te", b"trailers"),
        ]
        assert (head.flags, body) == (END_HEADERS, Frame(DATA, 0, 1, b"hello"))
        assert (decoded(decoder, trailers.payload), trailers.flags) == ([(b"x-sum", b"1")], WHOLE)

    def test_streams_have_odd_numbers_that_rise(self) -> None:
        """RFC 9113 section 5.1.1."""
        connection = asking()
        assert [connection.open(b"GET", b"/", HOST, end=True) for _ in range(3)] == [1, 3, 5]
        assert [(found.stream_id, found.flags) for found in sent(connection)] == [(1, WHOLE), (3, WHOLE), (5, WHOLE)]
        assert connection.open_streams == 3

    def test_long_head_is_cut_into_frames(self) -> None:
        """No frame is longer than any server takes."""
        connection = asking()
        connection.open(b"GET", b"/", HOST + b"X: %b\r\n" % (b"y" * 40_000), end=True)
        assert [found.flags for found in sent(connection)] == [END_STREAM, 0, END_HEADERS]


class TestRoom:
    def test_app_says_how_many_requests_it_takes(self) -> None:
        """100 until it has said something, then what it says, never more than our limit."""
        connection = client(Http2Limits(streams=200))
        assert connection.room == 100
        connection.receive(settings((MAX_STREAMS, 150)), 0.0)
        assert connection.room == 150
        connection.receive(settings((MAX_STREAMS, 2), (MAX_STREAMS, 3)), 0.0)
        assert connection.room == 3
        connection.receive(settings((MAX_STREAMS, 2**32 - 1)), 0.0)
        assert connection.room == 200

    def test_app_that_has_no_limit_gets_what_ours_allows(self) -> None:
        """SETTINGS that do not name one leave it as it is: unlimited at first."""
        connection = client(Http2Limits(streams=200))
        connection.receive(settings(), 0.0)
        assert connection.room == 200
        connection.receive(settings((MAX_STREAMS, 7)) + settings(), 0.0)
        assert connection.room == 7

    def test_limit_that_falls_below_what_is_open_leaves_no_room(self) -> None:
        """What is open goes on; there is room again when enough has ended."""
        connection = asking(b"GET", b"GET", b"GET")
        connection.receive(settings((MAX_STREAMS, 2)), 0.0)
        assert connection.room == 0
        connection.receive(headers(1, OK) + headers(5, OK), 0.0)
        assert connection.room == 1

    @pytest.mark.parametrize("how", ["goaway", "our goaway", "fault"])
    def test_nothing_is_opened_on_a_connection_that_ends(self, how: str) -> None:
        """Whichever side says so."""
        connection = asking()
        if how == "goaway":
            connection.receive(goaway(), 0.0)
        elif how == "our goaway":
            connection.go_away()
        else:
            fault_of(connection, frames.ping(b"1"))
        assert connection.room == 0
        with pytest.raises(AssertionError):
            connection.open(b"GET", b"/", HOST, end=True)

    def test_numbers_run_out(self) -> None:
        """The last stream is 2^31-1; behind it there is no room for good."""
        connection = asking()
        connection.last_stream_id = 2**31 - 5
        assert connection.room == 2
        assert connection.open(b"GET", b"/", HOST, end=True) == 2**31 - 3
        assert connection.open(b"GET", b"/", HOST, end=True) == 2**31 - 1
        assert connection.room == 0


class TestResponses:
    def test_response_is_head_data_trailers_and_end(self) -> None:
        """As in HTTP/1.1, with padding left out and empty frames no event."""
        connection = asking(b"GET")
        head, *rest = told(
            connection.receive(
                INTERIM
                + BEGIN
                + data(1, b"ab")
                + data(1)
                + data(1, b"\x02cd\0\0", frames.PADDED)
                + headers(1, [(b"grpc-status", b"0")]),
                0.0,
            )
        )
        assert isinstance(head, InterimHead)
        final, first, second, trailers, end = rest
        assert isinstance(final, ResponseHead)
        assert (final.status, final.reason, final.body) == (200, b" OK", BodyKind.CHUNKED)
        assert (first, second, end) == (Data(b"ab"), Data(b"cd"), END)
        assert isinstance(trailers, Trailers)
        assert trailers.fields.section == b"grpc-status: 0\r\n"
        assert connection.open_streams == 0

    def test_head_of_trailers_only_comes_with_its_end(self) -> None:
        """A gRPC server that refuses sends one block: whoever gets both in one list can do the same."""
        connection = asking(b"POST", end=False)
        head, end = told(connection.receive(headers(1, (*OK, (b"grpc-status", b"12"))), 0.0))
        assert isinstance(head, ResponseHead)
        assert (head.fields.values(b"grpc-status"), head.body, end) == ([b"12"], BodyKind.CHUNKED, END)

    def test_response_without_a_body_ends_when_its_stream_does(self) -> None:
        """An answer to HEAD whose END_STREAM comes alone has one END, and then."""
        connection = asking(b"HEAD")
        (head,) = told(connection.receive(headers(1, (*OK, (b"content-length", b"5")), END_HEADERS), 0.0))
        assert isinstance(head, ResponseHead)
        assert head.body is BodyKind.NONE
        assert told(connection.receive(data(1, b"", END_STREAM), 0.0)) == [END]

    def test_length_is_the_sum_of_all_data(self) -> None:
        """RFC 9113 section 8.1.1, for a response that keeps to it."""
        connection = asking(b"GET")
        events = connection.receive(headers(1, (*OK, (b"content-length", b"3")), END_HEADERS), 0.0)
        events += connection.receive(data(1, b"ab") + data(1, b"c") + data(1, b"", END_STREAM), 0.0)
        assert kinds(events) == ["ResponseHead", "Data", "Data", "End"]

    LENGTH = headers(1, (*OK, (b"content-length", b"3")), END_HEADERS)
    TRAILERS = headers(1, [(b"x", b"y")])

    FAULTS: tuple[tuple[str, bytes, bytes, str], ...] = (
        ("DATA before the head", b"GET", data(1, b"x"), "body_before_head"),
        ("DATA behind an interim head", b"GET", INTERIM + data(1, b"x", END_STREAM), "body_before_head"),
        ("two final heads", b"GET", BEGIN + BEGIN, "bad_pseudo_field"),
        ("two final heads, one whole", b"GET", BEGIN + headers(1, OK), "bad_pseudo_field"),
        ("trailers that do not end", b"GET", BEGIN + headers(1, [(b"x", b"y")], END_HEADERS), "bad_trailer"),
        ("interim head behind the final one", b"GET", BEGIN + INTERIM, "bad_pseudo_field"),
        ("interim head that ends", b"GET", headers(1, [(b":status", b"103")]), "bad_interim"),
        ("101", b"GET", headers(1, [(b":status", b"101")], END_HEADERS), "bad_status"),
        ("no status", b"GET", headers(1, [(b"x", b"y")]), "bad_status"),
        ("interim heads without end", b"GET", INTERIM * (MAX_INTERIM_RESPONSES + 1), "too_many_interim"),
        ("more than its length", b"GET", LENGTH + data(1, b"abcd"), "bad_content_length"),
        ("less than its length", b"GET", LENGTH + data(1, b"ab", END_STREAM), "bad_content_length"),
        ("less than its length, trailers", b"GET", LENGTH + data(1, b"ab") + TRAILERS, "bad_content_length"),
        ("body for HEAD", b"HEAD", BEGIN + data(1, b"x"), "bad_content_length"),
        ("body of 204", b"GET", headers(1, [(b":status", b"204")], END_HEADERS) + data(1, b"x"), "bad_content_length"),
        ("body of 304", b"GET", headers(1, [(b":status", b"304")], END_HEADERS) + data(1, b"x"), "bad_content_length"),
        ("upper case", b"GET", headers(1, (*OK, (b"X", b"y"))), "bad_header"),
        ("line in a trailer", b"GET", BEGIN + headers(1, [(b"x", b"y\r\nz: 1")]), "bad_header"),
        ("connection", b"GET", headers(1, (*OK, (b"connection", b"close"))), "connection_field"),
        ("many fields", b"GET", headers(1, (*OK, *[(b"x", b"")] * 101)), "too_many_headers"),
        ("many trailers", b"GET", BEGIN + headers(1, [(b"x", b"")] * 101), "trailers_too_large"),
        (
            "depends on itself",
            b"GET",
            frames.frame(HEADERS, WHOLE | frames.HAS_PRIORITY, 1, b"\0\0\0\x01\xff" + frames.block(OK)),
            "bad_priority",
        ),
        ("window by nothing", b"GET", window_update(1, 0), "zero_increment"),
        ("window over 2^31-1", b"GET", window_update(1, 2**31 - 1), "window_overflow"),
    )

    @pytest.mark.parametrize("end", [True, False], ids=["asked", "asking"])
    @pytest.mark.parametrize(
        ("method", "answer", "reason"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
    )
    def test_response_that_is_none_ends_its_stream_alone(
        self, method: bytes, answer: bytes, reason: str, end: bool
    ) -> None:
        """RST_STREAM for the app, Reset with the rule for the caller; the request may have been acted on."""
        connection = asking(method, b"GET", end=end)
        reset = reset_of(connection.receive(answer, 0.0))
        assert (reset.reason, reset.is_unprocessed) == (reason, False)
        assert [found.code for found in sent(connection) if found.kind == RST_STREAM] == [reset.code]
        assert connection.open_streams == 1
        assert kinds(connection.receive(headers(3, OK), 0.0), 3) == ["ResponseHead", "End"]

    def test_most_interim_heads_are_passed_on(self) -> None:
        """The limit itself is allowed."""
        connection = asking(b"GET")
        events = connection.receive(INTERIM * MAX_INTERIM_RESPONSES + headers(1, OK), 0.0)
        assert kinds(events) == [*["InterimHead"] * MAX_INTERIM_RESPONSES, "ResponseHead", "End"]

    def test_credit_of_a_body_that_nobody_reads_is_given_back(self) -> None:
        """DATA that comes too soon has used the connection's window all the same."""
        connection = asking(b"GET")
        connection.receive(data(1, b"x" * 1000), 0.0)
        assert Frame(WINDOW_UPDATE, 0, 0, (1000).to_bytes(4, "big")) in sent(connection)


class TestFaultsOfTheConnection:
    CASES: tuple[tuple[str, bytes, int], ...] = (
        ("PUSH_PROMISE", frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02"), PROTOCOL_ERROR),
        ("HEADERS on a stream of the app", headers(2, OK), PROTOCOL_ERROR),
        ("HEADERS on a stream that nobody opened", headers(5, OK), PROTOCOL_ERROR),
        ("DATA on a stream that nobody opened", data(5, b"x"), PROTOCOL_ERROR),
        ("RST_STREAM on a stream that nobody opened", rst_stream(5), PROTOCOL_ERROR),
        ("WINDOW_UPDATE on a stream that nobody opened", window_update(5, 1), PROTOCOL_ERROR),
        ("ENABLE_PUSH of 1", settings((frames.ENABLE_PUSH, 1)), PROTOCOL_ERROR),
        ("ENABLE_PUSH of 2", settings((frames.ENABLE_PUSH, 2)), PROTOCOL_ERROR),
        ("DATA behind a whole exchange", headers(1, OK) + data(1, b"x"), STREAM_CLOSED),
        ("HEADERS behind a whole exchange", headers(1, OK) + headers(1, OK), STREAM_CLOSED),
        ("trailers behind trailers", BEGIN + headers(1, [(b"x", b"y")]) * 2, STREAM_CLOSED),
        ("window of a stream exceeded", BEGIN + data(1, bytes(16_384)) * 5, frames.FLOW_CONTROL_ERROR),
        ("broken block", frames.frame(HEADERS, WHOLE, 1, b"\x80"), frames.COMPRESSION_ERROR),
        ("interrupted block", headers(1, OK, 0) + frames.ping(), PROTOCOL_ERROR),
        ("preface", frames.PREFACE, frames.FRAME_SIZE_ERROR),
    )

    @pytest.mark.parametrize(("answer", "code"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
    @pytest.mark.parametrize("size", [1 << 20, 1], ids=["whole", "byte by byte"])
    def test_fault_ends_all(self, answer: bytes, code: int, size: int) -> None:
        """GOAWAY that names no stream, since the app has opened none; what is wrong is the app's doing: 502."""
        connection = asking(b"GET", b"GET")
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        with pytest.raises(ConnectionFault) as caught:
            [connection.receive(piece, 0.0) for piece in pieces]
        assert (caught.value.code, caught.value.status) == (code, 502)
        last = sent(connection)[-1]
        assert (last.kind, last.payload[:4], last.code) == (GOAWAY, bytes(4), code)
        assert (connection.open_streams, connection.room) == (0, 0)
        assert connection.receive(headers(3, OK), 0.0) == []

    def test_connection_window_is_held_to(self) -> None:
        """All bodies together are bounded too."""
        connection = asking(b"GET", b"GET", limits=Http2Limits(connection_window=65_535))
        connection.receive(BEGIN + data(1, bytes(16_384)) * 3 + headers(3, OK, END_HEADERS), 0.0)
        fault = fault_of(connection, data(3, bytes(16_384)))
        assert fault.reason == "window_exceeded"


class TestResets:
    def test_refused_request_may_be_sent_again(self) -> None:
        """RFC 9113 section 8.7: the app says that it has not looked at it."""
        connection = asking(b"POST")
        assert told(connection.receive(rst_stream(1, REFUSED_STREAM), 0.0)) == [
            Reset(REFUSED_STREAM, "app_reset", "the app reset the stream, code 7", is_unprocessed=True)
        ]

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (b"", CANCEL),
            (b"", NO_ERROR),
            (b"", INTERNAL_ERROR),
            (INTERIM, REFUSED_STREAM),
            (BEGIN, REFUSED_STREAM),
            (BEGIN + data(1, b"x"), CANCEL),
        ],
        ids=["cancelled", "no error", "error", "refused behind an interim head", "refused behind a head", "in a body"],
    )
    def test_other_reset_says_nothing_of_the_kind(self, answer: bytes, code: int) -> None:
        """Whatever the app has begun to answer it has looked at."""
        reset = reset_of(asking(b"POST").receive(answer + rst_stream(1, code), 0.0))
        assert (reset.code, reset.reason, reset.is_unprocessed) == (code, "app_reset", False)

    AFTER_END: tuple[tuple[str, bytes], ...] = (
        ("NO_ERROR", rst_stream(1, NO_ERROR)),
        ("CANCEL", rst_stream(1, CANCEL)),
        ("DATA", data(1, b"x")),
        ("HEADERS", headers(1, [(b"x", b"y")])),
        ("window by nothing", window_update(1, 0)),
        ("window over 2^31-1", window_update(1, 2**31 - 1)),
        ("GOAWAY", goaway(0)),
    )

    @pytest.mark.parametrize("rest", [row[1] for row in AFTER_END], ids=[row[0] for row in AFTER_END])
    def test_nothing_is_told_behind_the_end(self, rest: bytes) -> None:
        """The response is whole, however its stream goes on while the request is still being sent."""
        connection = asking(b"POST", end=False)
        assert kinds(connection.receive(headers(1, OK) + rest, 0.0)) == ["ResponseHead", "End"]
        assert connection.open_streams == 0
        assert connection.send_data(1, b"x", end=True) == 0

    @pytest.mark.parametrize("code", [CANCEL, NO_ERROR])
    def test_caller_ends_a_request_whose_response_is_whole(self, code: int) -> None:
        """Early answers need no more of the request."""
        connection = asking(b"POST", end=False)
        connection.receive(headers(1, OK), 0.0)
        assert connection.open_streams == 1
        connection.reset(1, code)
        assert [(found.kind, found.code) for found in sent(connection)] == [(RST_STREAM, code)]
        assert connection.open_streams == 0

    def test_request_may_go_on_behind_the_response(self) -> None:
        """The stream is over when both sides have ended it, without a word to the app."""
        connection = asking(b"POST", end=False, pairs=[(frames.INITIAL_WINDOW_SIZE, 2)])
        connection.receive(headers(1, OK), 0.0)
        assert connection.send_data(1, b"abc", end=True) == 2
        assert connection.receive(window_update(1, 1), 0.0) == [(1, WRITABLE)]
        assert connection.send_data(1, b"c", end=True) == 1
        assert [found.kind for found in sent(connection)] == [DATA, DATA]
        assert connection.open_streams == 0

    @pytest.mark.parametrize("late", [data(1, b"x" * 100), headers(1, OK), rst_stream(1), window_update(1, 1)])
    def test_what_was_on_its_way_is_dropped(self, late: bytes) -> None:
        """The app cannot know yet that we have reset the stream."""
        connection = asking(b"GET", b"GET")
        connection.reset(1, CANCEL)
        assert connection.receive(late, 0.0) == []
        assert kinds(connection.receive(headers(3, OK), 0.0), 3) == ["ResponseHead", "End"]

    def test_table_is_right_behind_a_response_that_nobody_reads(self) -> None:
        """What it put into the table of the compression can be named by the next."""
        connection = asking(b"GET", b"GET")
        connection.reset(1, CANCEL)
        late = frames.frame(HEADERS, WHOLE, 1, frames.block(OK) + frames.literal(b"x-a", b"1", 0x40))
        (head, _) = told(connection.receive(late + frames.frame(HEADERS, WHOLE, 3, frames.block(OK) + b"\xbe"), 0.0), 3)
        assert isinstance(head, ResponseHead)
        assert head.fields.values(b"x-a") == [b"1"]

    def test_stream_of_small_messages_that_is_cancelled_ends_nothing_else(self) -> None:
        """Thousands of frames may be under way, also when nobody remembers the stream; all their credit comes back."""
        connection = asking(b"GET", limits=Http2Limits().for_app())
        connection.reset(1, CANCEL)
        for _ in range(300):
            connection.reset(connection.open(b"GET", b"/", HOST, end=True), CANCEL)
        sent(connection)
        assert connection.receive(data(1, b"x") * 5000, 0.0) == []
        assert sent(connection) == [Frame(WINDOW_UPDATE, 0, 0, (5000).to_bytes(4, "big"))]

    def test_late_frames_have_an_end(self) -> None:
        """An app that goes on for good on a stream that is over does not keep us busy."""
        connection = asking(b"GET", limits=Http2Limits(late=Allowance(10)))
        connection.reset(1, CANCEL)
        connection.receive(data(1, b"x") * 10, 0.0)
        assert fault_of(connection, headers(1, OK)).reason == "closed_stream_flood"


class TestGoingAway:
    def test_streams_that_the_app_will_not_look_at_are_told(self) -> None:
        """They may be sent elsewhere; those up to its last go on to their end."""
        connection = asking(b"GET", b"POST", b"GET")
        events = connection.receive(goaway(3, INTERNAL_ERROR), 0.0)
        message = "the app went away and will not look at the stream, code 2"
        assert events == [(5, Reset(INTERNAL_ERROR, "app_gone_away", message, is_unprocessed=True))]
        assert connection.has_server_gone_away
        assert kinds(connection.receive(headers(3, OK) + headers(1, OK), 0.0), 3) == ["ResponseHead", "End"]
        assert connection.open_streams == 0

    def test_goaway_in_two_steps(self) -> None:
        """RFC 9113 section 6.8: the first resets nothing and stops what is new; the second names the last stream."""
        connection = asking(b"GET", b"GET")
        assert connection.receive(goaway(2**31 - 1), 0.0) == []
        assert (connection.open_streams, connection.room) == (2, 0)
        reset = reset_of(connection.receive(goaway(1 | 1 << 31), 0.0), 3)
        assert reset.is_unprocessed
        assert connection.open_streams == 1

    def test_stream_that_was_answered_is_not_unprocessed(self) -> None:
        """An app that contradicts itself is not believed where a request would be made twice."""
        connection = asking(b"POST", b"POST")
        events = connection.receive(BEGIN + headers(3, [(b":status", b"103")], END_HEADERS) + goaway(0), 0.0)
        assert [reset_of(events, stream_id).is_unprocessed for stream_id in (1, 3)] == [False, False]

    def test_nothing_is_sent_on_a_stream_that_will_not_be_looked_at(self) -> None:
        """To the app it was never opened."""
        connection = asking(b"POST", end=False)
        connection.receive(goaway(0), 0.0)
        assert connection.send_data(1, b"x", end=True) == 0
        connection.reset(1, CANCEL)
        assert sent(connection) == []

    def test_we_go_away(self) -> None:
        """What is open goes on to its end."""
        connection = asking(b"GET")
        connection.go_away()
        assert sent(connection) == frames.parse(goaway(0))
        assert kinds(connection.receive(headers(1, OK), 0.0)) == ["ResponseHead", "End"]


class TestCredit:
    def test_credit_is_given_for_what_was_acknowledged(self) -> None:
        """A client that does not read stops the app, at the window of its stream."""
        connection = asking(b"GET")
        connection.receive(BEGIN + data(1, bytes(16_384)) * 4, 0.0)
        assert sent(connection) == []
        connection.acknowledge(1, 65_536)
        assert {found.stream_id for found in sent(connection) if found.kind == WINDOW_UPDATE} >= {1}
        assert connection.receive(data(1, bytes(16_384)), 0.0) == [(1, Data(bytes(16_384)))]

    @pytest.mark.parametrize("how", ["whole", "by app", "by us", "by goaway", "by a fault"])
    def test_end_of_a_stream_gives_back_what_it_held(self, how: str) -> None:
        """The connection's window does not leak away, whatever the caller still holds."""
        connection = asking(limits=Http2Limits(connection_window=65_536))
        for _ in range(1 if how == "by goaway" else 30):
            stream_id = connection.open(b"GET", b"/", HOST, end=True)
            connection.receive(headers(stream_id, OK, END_HEADERS) + data(stream_id, bytes(16_384)) * 3, 0.0)
            sent(connection)
            if how == "whole":
                connection.receive(data(stream_id, b"", END_STREAM), 0.0)
            elif how == "by app":
                connection.receive(rst_stream(stream_id), 0.0)
            elif how == "by us":
                connection.reset(stream_id, CANCEL)
            elif how == "by goaway":
                connection.receive(goaway(0), 0.0)
            else:
                connection.receive(window_update(stream_id, 0), 0.0)
            connection.acknowledge(stream_id, 49_152)  # too late, and harmless
            given = [found for found in sent(connection) if found.kind == WINDOW_UPDATE and not found.stream_id]
            assert sum(int.from_bytes(found.payload, "big") for found in given) == 49_152
            connection.sent(0)

    def test_slow_clients_do_not_stop_the_others(self) -> None:
        """With the limits for an app, all streams but one may be full and that one still has room."""
        connection = asking(*[b"GET"] * 100, limits=Http2Limits().for_app())
        for stream_id in range(1, 201, 2):
            events = connection.receive(headers(stream_id, OK, END_HEADERS) + data(stream_id, bytes(16_384)) * 4, 0.0)
            assert len(told(events, stream_id)) == 5


class TestLargeHeads:
    def test_it_costs_its_own_request_alone(self) -> None:
        """An app that reflects what it was sent into a field must not end the requests of others."""
        connection = asking(limits=Http2Limits().for_app())
        first, second = (connection.open(b"GET", b"/", HOST, end=True) for _ in range(2))
        block = frames.block([*OK, *[(b"x-%d" % n, b"y" * 4000) for n in range(50)]])
        pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        data = frames.frame(HEADERS, END_STREAM, first, pieces[0])
        for piece in pieces[1:-1]:
            data += frames.frame(CONTINUATION, 0, first, piece)
        events = connection.receive(data + frames.frame(CONTINUATION, END_HEADERS, first, pieces[-1]), 0.0)
        ((stream_id, reset),) = events
        assert (stream_id, reset.code) == (first, Code.ENHANCE_YOUR_CALM)
        assert [event for _, event in connection.receive(headers(second, OK), 0.0)][-1] is END


class TestManyStreams:
    def test_app_may_refuse_as_often_as_we_ask(self) -> None:
        """Each reset is one of a request that we have sent: no flood, however many there are."""
        connection = asking()
        for _ in range(1000):
            stream_id = connection.open(b"GET", b"/", HOST, end=True)
            assert reset_of(connection.receive(rst_stream(stream_id, REFUSED_STREAM), 0.0), stream_id).is_unprocessed
            connection.data_to_send()
        assert connection.room == 100

    def test_malformed_responses_do_not_add_up(self) -> None:
        """Each costs its own request, not the connection."""
        connection = asking()
        for _ in range(3000):
            stream_id = connection.open(b"GET", b"/", HOST, end=True)
            connection.receive(headers(stream_id, [(b"x", b"y")]), 0.0)
            connection.data_to_send()
            connection.sent(0)
        assert connection.open_streams == 0

    def test_streams_that_ended_are_not_kept(self) -> None:
        """A connection that has served many requests holds no more than one that has served few."""
        connection = asking()
        for _ in range(3000):
            stream_id = connection.open(b"GET", b"/", HOST, end=True)
            connection.receive(headers(stream_id, OK), 0.0)
            connection.data_to_send()
        assert connection._streams == {}


class TestWithAnotherServer:
    def test_bodies_go_both_ways_at_once(self) -> None:
        """A server of other making, with its own windows, gets and sends ten bodies of a megabyte, all at a time."""
        size, ids = 1_000_000, range(1, 21, 2)
        server, connection = Server(size), client()
        for _ in ids:
            connection.open(b"POST", b"/", HOST + b"Content-Length: %d\r\n" % size, end=False)
        left, received = dict.fromkeys(ids, size), dict.fromkeys(ids, 0)
        while connection.open_streams:
            for stream_id in ids:
                if left[stream_id]:
                    left[stream_id] -= connection.send_data(stream_id, bytes(left[stream_id]), end=True)
            for stream_id, event in connection.receive(server.answer(connection.data_to_send()), 0.0):
                if isinstance(event, Data):
                    received[stream_id] += len(event.payload)
                    connection.acknowledge(stream_id, len(event.payload))
            connection.sent(0)
        assert received == server.received == dict.fromkeys(ids, size)
        assert connection.open_streams == 0
        assert connection.blocked_streams == []


class Server:
    """The `h2` library in the other role, sending a body on each stream and counting what comes."""

    def __init__(self, size: int) -> None:
        self._library = H2Connection(H2Configuration(client_side=False))
        self._library.initiate_connection()
        self._size = size
        self._left: dict[int, int] = {}
        self.received: dict[int, int] = {}

    def answer(self, sent_by_us: bytes) -> bytes:
        library = self._library
        for event in library.receive_data(sent_by_us):
            if isinstance(event, RequestReceived):
                self._left[event.stream_id], self.received[event.stream_id] = self._size, 0
                fields = [(b":status", b"200"), (b"content-length", b"%d" % self._size)]
                library.send_headers(event.stream_id, fields)
            elif isinstance(event, DataReceived):
                self.received[event.stream_id] += len(event.data)
                library.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                assert not isinstance(event, StreamEnded) or self.received[event.stream_id] == self._size
        for stream_id, left in self._left.items():
            while left and (room := min(left, library.local_flow_control_window(stream_id), 16_384)):
                left -= room
                library.send_data(stream_id, bytes(room), end_stream=not left)
            self._left[stream_id] = left
        return library.data_to_send()
