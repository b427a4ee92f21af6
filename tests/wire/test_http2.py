"""The HTTP/2 connection machine; single frames are in the table of tests/conformance/test_http2_frames.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from hpack import Decoder

from sidecar.errors import ResponseError
from sidecar.wire.events import END, BodyKind, Data, RequestHead, Trailers
from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Allowance, Http2Limits, Kind
from sidecar.wire.h2streams import MAX_ENDED, WRITABLE, Refused, Reset, StreamEvent
from sidecar.wire.http2 import ServerConnection
from tests.support import frames
from tests.support.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    POST,
    RST_STREAM,
    SETTINGS,
    WEBSOCKET,
    WHOLE,
    WINDOW_UPDATE,
    Frame,
    begun,
    data,
    decoded,
    headers,
    ping,
    rst_stream,
    sent,
    settings,
    window_update,
)

Events = Sequence[tuple[int, StreamEvent]]

SECTION = b"Content-Type: text/plain\r\n"
LARGE = frames.INITIAL_WINDOW_SIZE, 2**31 - 1


def told(events: Events, stream_id: int = 1) -> list[StreamEvent]:
    """What was told of a stream."""
    return [event for found, event in events if found == stream_id]


def posting(*pairs: tuple[int, int], limits: Http2Limits | None = None) -> ServerConnection:
    """A connection with one request, whose body is to come."""
    connection = begun(limits, *pairs)
    connection.receive(headers(1, POST, END_HEADERS), 0.0)
    return connection


def answering(*pairs: tuple[int, int]) -> ServerConnection:
    """A connection with one request that has arrived whole, and the head of whose response was sent."""
    connection = begun(None, *pairs)
    connection.receive(headers(1), 0.0)
    connection.send_head(1, 200, SECTION)
    connection.data_to_send()
    return connection


def fault_of(connection: ServerConnection, sent_by_client: bytes, now: float = 0.0) -> ConnectionFault:
    with pytest.raises(ConnectionFault) as caught:
        connection.receive(sent_by_client, now)
    return caught.value


class TestBeginning:
    def test_our_settings_are_the_first_frame(self) -> None:
        """The client learns of every limit at once, before anything else."""
        connection = frames.new(Http2Limits(streams=7, header_list_bytes=2048))
        first, window = sent(connection)
        pairs = {
            int.from_bytes(first.payload[at : at + 2], "big"): int.from_bytes(first.payload[at + 2 : at + 6], "big")
            for at in range(0, len(first.payload), 6)
        }
        assert (first.kind, first.flags, first.stream_id) == (SETTINGS, 0, 0)
        assert pairs[frames.MAX_CONCURRENT_STREAMS] == 7
        assert pairs[frames.INITIAL_WINDOW_SIZE] == 64 * 1024
        assert pairs[frames.MAX_HEADER_LIST_SIZE] == 2048
        assert pairs[frames.ENABLE_CONNECT_PROTOCOL] == 1
        assert (window.kind, window.stream_id) == (WINDOW_UPDATE, 0)
        assert int.from_bytes(window.payload, "big") == 1024 * 1024 - 65_535

    def test_state_of_the_beginning_is_known(self) -> None:
        """The caller can hold a client to a deadline until it has begun, and until it knows our limits."""
        connection = frames.new()
        connection.receive(frames.PREFACE, 0.0)
        assert not connection.is_begun
        connection.receive(settings(), 0.0)
        assert connection.is_begun
        assert not connection.are_settings_acknowledged
        connection.receive(frames.frame(SETTINGS, ACK), 0.0)
        assert connection.are_settings_acknowledged

    def test_settings_are_acknowledged_and_pings_answered(self) -> None:
        """RFC 9113 sections 6.5.3 and 6.7."""
        connection = begun()
        connection.receive(settings((4, 1000)) + ping(b"abcdefgh"), 0.0)
        answers = sent(connection)
        assert Frame(SETTINGS, ACK, 0, b"") in answers
        assert Frame(PING, ACK, 0, b"abcdefgh") in answers

    def test_broken_connection_hears_nothing_more(self) -> None:
        """After its GOAWAY it neither takes nor sends anything."""
        connection = answering()
        fault_of(connection, ping(b"1"))
        assert [found.kind for found in sent(connection)] == [GOAWAY]
        assert connection.receive(headers(3), 0.0) == []
        assert connection.send_data(1, b"x") == 0
        connection.send_head(1, 200, b"")
        connection.send_trailers(1, b"")
        connection.acknowledge(1, 1)
        connection.reset(1, 8)
        connection.announce_going_away()
        connection.go_away()
        assert sent(connection) == []

    def test_goaway_of_a_fault_names_the_last_stream(self) -> None:
        """The client learns which requests may have been acted on."""
        connection = begun()
        connection.receive(headers(1) + headers(9), 0.0)
        fault_of(connection, ping(b"1"))
        assert int.from_bytes(sent(connection)[-1].payload[:4], "big") == 9


class TestRequests:
    def test_whole_request_is_a_head_and_an_end(self) -> None:
        """As in HTTP/1.1."""
        events = begun().receive(headers(1), 0.0)
        head, end = told(events)
        assert isinstance(head, RequestHead)
        assert (head.method, head.target, head.host, end) == (b"GET", b"/", b"a.example", END)

    def test_body_and_trailers_are_told_as_they_come(self) -> None:
        """Padding is no part of a body, and an empty frame no event."""
        connection = posting()
        events = connection.receive(
            data(1, b"ab") + data(1) + data(1, b"\x02cd\0\0", PADDED) + headers(1, [(b"x-t", b"1")]), 0.0
        )
        first, second, trailers, end = told(events)
        assert (first, second, end) == (Data(b"ab"), Data(b"cd"), END)
        assert isinstance(trailers, Trailers)
        assert trailers.fields.section == b"x-t: 1\r\n"

    def test_request_of_no_length_waits_for_no_end(self) -> None:
        """Content-Length: 0 without END_STREAM is complete, as in HTTP/1.1; what follows is checked and dropped."""
        connection = begun()
        events = connection.receive(headers(1, (*POST, (b"content-length", b"0")), END_HEADERS), 0.0)
        head, end = told(events)
        assert isinstance(head, RequestHead)
        assert (head.body, end) == (BodyKind.NONE, END)
        assert connection.receive(data(1, b"", END_STREAM), 0.0) == []

    def test_body_behind_a_length_of_nothing_is_a_fault(self) -> None:
        """What the app was told is the truth, or the stream ends."""
        connection = begun()
        connection.receive(headers(1, (*POST, (b"content-length", b"0")), END_HEADERS), 0.0)
        (reset,) = told(connection.receive(data(1, b"x", END_STREAM), 0.0))
        assert isinstance(reset, Reset)
        assert (reset.code, reset.reason) == (Code.PROTOCOL_ERROR, "bad_content_length")

    def test_refused_request_is_answered_and_the_rest_of_it_dropped(self) -> None:
        """431 and its like are answers; what the client sends meanwhile costs nothing and stops nothing."""
        connection = begun()
        many = headers(1, (*POST, *[(b"x-%d" % n, b"") for n in range(101)]), END_HEADERS)
        (refused,) = told(connection.receive(many + data(1, b"x" * 16_000), 0.0))
        assert isinstance(refused, Refused)
        assert (refused.error.status, refused.error.reason) == (431, "too_many_headers")
        connection.receive(data(1, b"x" * 16_000) * 3, 0.0)
        assert [found for found in sent(connection) if found.kind == WINDOW_UPDATE]
        connection.send_head(1, 431, b"", end=True)
        head, reset = sent(connection)
        assert (head.kind, head.flags) == (HEADERS, WHOLE)
        assert (reset.kind, reset.code) == (RST_STREAM, NO_ERROR)
        assert connection.open_streams == 0

    def test_cookie_that_is_much_too_large_is_answered_too(self) -> None:
        """Whoever has collected too many cookies learns so, and loses no other request by it."""
        connection = begun()
        block = frames.block((*GET, (b"cookie", b"x" * 110_000)))
        pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        connection.receive(frames.frame(HEADERS, END_STREAM, 1, pieces[0]), 0.0)
        for piece in pieces[1:-1]:
            connection.receive(frames.frame(frames.CONTINUATION, 0, 1, piece), 0.0)
        (refused,) = told(connection.receive(frames.frame(frames.CONTINUATION, END_HEADERS, 1, pieces[-1]), 0.0))
        assert isinstance(refused, Refused)
        assert refused.error.status == 431

    def test_requests_over_the_limit_are_refused_and_cost_no_place(self) -> None:
        """REFUSED_STREAM lets the client send it again; when one ends, another may begin."""
        connection = begun(Http2Limits(streams=2))
        events = connection.receive(headers(1) + headers(3) + headers(5), 0.0)
        (reset,) = told(events, 5)
        assert isinstance(reset, Reset)
        assert (reset.code, reset.reason) == (Code.REFUSED_STREAM, "too_many_streams")
        connection.send_head(1, 204, b"", end=True)
        assert isinstance(told(connection.receive(headers(7), 0.0), 7)[0], RequestHead)
        assert connection.open_streams == 2

    def test_table_is_right_after_a_refused_request(self) -> None:
        """What a refused request put into the table of the compression can be named by the next."""
        connection = begun(Http2Limits(streams=1))
        block = frames.block(GET) + frames.literal(b"x-a", b"1", 0x40)
        connection.receive(headers(1) + frames.frame(HEADERS, WHOLE, 3, block), 0.0)
        connection.reset(1, 8)
        events = connection.receive(frames.frame(HEADERS, WHOLE, 5, frames.block(GET) + b"\xbe"), 0.0)
        head = told(events, 5)[0]
        assert isinstance(head, RequestHead)
        assert head.fields.values(b"x-a") == [b"1"]

    @pytest.mark.parametrize("limit", [1, 100])
    def test_late_trailers_are_read_and_dropped(self, limit: int) -> None:
        """They were on their way when we ended the stream: what they put into the table holds."""
        connection = posting(limits=Http2Limits(late=Allowance(limit)))
        connection.reset(1, 8)
        late = frames.frame(HEADERS, WHOLE, 1, frames.literal(b"x-a", b"1", 0x40))
        assert connection.receive(late, 0.0) == []
        events = connection.receive(frames.frame(HEADERS, WHOLE, 3, frames.block(GET) + b"\xbe"), 0.0)
        head = told(events, 3)[0]
        assert isinstance(head, RequestHead)
        assert head.fields.values(b"x-a") == [b"1"]
        if limit == 1:
            assert fault_of(connection, late).reason == "closed_stream_flood"

    def test_reset_by_the_client_is_told(self) -> None:
        """The stream is gone at once, whatever had arrived of it."""
        connection = posting()
        (reset,) = told(connection.receive(rst_stream(1, 8), 0.0))
        assert (reset, connection.open_streams) == (Reset(8, "client_reset", "the client reset the stream, code 8"), 0)

    def test_unfinished_head_is_known(self) -> None:
        """A client that never ends a header block, or a frame, has a deadline to keep."""
        connection = begun()
        assert not connection.is_head_unfinished
        connection.receive(headers(1, GET, END_STREAM), 0.0)
        assert connection.is_head_unfinished
        connection.receive(frames.frame(frames.CONTINUATION, END_HEADERS, 1), 0.0)
        assert not connection.is_head_unfinished
        connection.receive(b"\0", 0.0)
        assert connection.is_head_unfinished


class TestCredit:
    """Flow control towards the client: RFC 9113 section 5.2."""

    def test_no_credit_is_given_before_the_app_has_taken_anything(self) -> None:
        """A client can make us hold a stream's window, and not a byte more."""
        connection = posting()
        for _ in range(4):
            connection.receive(data(1, b"x" * 16_384), 0.0)
        assert sent(connection) == []
        assert fault_of(connection, data(1, b"x")).reason == "window_exceeded"

    def test_credit_is_given_for_what_was_acknowledged(self) -> None:
        """Over any time the client may send as much as has left."""
        connection = posting(limits=Http2Limits(window_growth=1))
        credit = {0: 0, 1: 0}
        for _ in range(200):
            connection.receive(data(1, b"x" * 16_384), 0.0)
            connection.acknowledge(1, 16_384)
            for found in sent(connection):
                assert found.kind == WINDOW_UPDATE
                credit[found.stream_id] += int.from_bytes(found.payload, "big")
        total = 200 * 16_384
        assert total - 64 * 1024 <= credit[1] <= total
        assert total - 1024 * 1024 <= credit[0] <= total

    def test_window_grows_while_all_is_acknowledged(self) -> None:
        """Up to four times what it was, and not over the connection's; each stream begins anew."""
        connection = posting()
        credit = 0
        for _ in range(200):
            connection.receive(data(1, b"x" * 16_384), 0.0)
            connection.acknowledge(1, 16_384)
            credit += sum(int.from_bytes(found.payload, "big") for found in sent(connection) if found.stream_id)
        ahead = 64 * 1024 + credit - 200 * 16_384
        assert 128 * 1024 <= ahead <= 256 * 1024
        connection.receive(headers(3, POST, END_HEADERS) + data(3, b"x" * 16_384) * 4, 0.0)
        assert fault_of(connection, data(3, b"x")).reason == "window_exceeded"

    def test_window_does_not_grow_while_something_is_held(self) -> None:
        """An app that is slow makes us hold no more than the window was."""
        connection = posting()
        connection.receive(data(1, b"x" * 16_384) * 4, 0.0)
        for _ in range(100):
            connection.acknowledge(1, 8_192)
            for found in sent(connection):
                if found.stream_id:
                    size = int.from_bytes(found.payload, "big")
                    assert size == 32_768
                    connection.receive(data(1, b"x" * 16_384) * 2, 0.0)
        connection.acknowledge(1, 0)
        assert fault_of(connection, data(1, b"x" * 16_384) * 4).reason == "window_exceeded"

    def test_streams_share_the_connection_window(self) -> None:
        """All bodies together are bounded too."""
        connection = begun(Http2Limits(connection_window=128 * 1024))
        for stream_id in (1, 3):
            connection.receive(headers(stream_id, POST, END_HEADERS) + data(stream_id, b"x" * 16_384) * 4, 0.0)
        connection.receive(headers(5, POST, END_HEADERS), 0.0)
        assert fault_of(connection, data(5, b"x")).code is Code.FLOW_CONTROL_ERROR

    def test_padding_is_credited_at_once(self) -> None:
        """Nobody holds it, so nobody will acknowledge it."""
        connection = posting()
        for _ in range(400):
            connection.receive(data(1, b"\xff" + b"x" * 256 + bytes(255), PADDED), 0.0)
            connection.acknowledge(1, 256)
        assert connection.open_streams == 1

    @pytest.mark.parametrize("how", ["by client", "by us", "by its answer", "by a fault"])
    def test_end_of_a_stream_gives_back_what_it_held(self, how: str) -> None:
        """The connection's window does not leak away by requests that are given up."""
        connection = begun(Http2Limits(connection_window=65_536))
        for stream_id in range(1, 61, 2):
            connection.receive(headers(stream_id, POST, END_HEADERS) + data(stream_id, b"x" * 16_384) * 3, 0.0)
            if how == "by client":
                connection.receive(rst_stream(stream_id), 0.0)
            elif how == "by us":
                connection.reset(stream_id, 8)
            elif how == "by its answer":
                connection.send_head(stream_id, 200, b"", end=True)
            else:
                connection.receive(window_update(stream_id, 0), 0.0)
            connection.acknowledge(stream_id, 49_152)  # too late, and harmless
            given = [found for found in sent(connection) if found.kind == WINDOW_UPDATE and not found.stream_id]
            assert sum(int.from_bytes(found.payload, "big") for found in given) == 49_152
            connection.sent(0)

    def test_data_behind_a_whole_exchange_is_refused(self) -> None:
        """RFC 9113 section 5.1: it can be no accident, and nobody knows what it belongs to."""
        connection = begun()
        connection.receive(headers(1), 0.0)
        connection.send_head(1, 204, b"", end=True)
        fault = fault_of(connection, data(1, b"x"))
        assert (fault.code, fault.reason) == (Code.STREAM_CLOSED, "stream_closed")

    def test_late_data_is_credited_and_dropped(self) -> None:
        """What was on its way when we ended a stream has used the connection's window."""
        connection = posting()
        connection.reset(1, 8)
        sent(connection)
        assert connection.receive(data(1, b"x" * 1000), 0.0) == []
        assert sent(connection) == frames.parse(window_update(0, 1000))


class TestResponses:
    def test_response_is_head_data_and_end(self) -> None:
        """The client reads what the app has said."""
        connection = begun()
        connection.receive(headers(1), 0.0)
        connection.send_head(1, 200, b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\nX-Y: z\r\n")
        assert connection.send_data(1, b"hello") == 5
        assert connection.send_data(1, b"!", end=True) == 1
        head, first, last = sent(connection)
        assert decoded(Decoder(), head.payload) == [
            (b":status", b"200"),
            (b"content-type", b"text/plain"),
            (b"x-y", b"z"),
        ]
        assert head.flags == END_HEADERS
        assert (first, last) == (Frame(DATA, 0, 1, b"hello"), Frame(DATA, END_STREAM, 1, b"!"))
        assert connection.open_streams == 0

    def test_interim_responses_come_first(self) -> None:
        """100 and 103 are heads without an end."""
        connection = begun()
        connection.receive(headers(1), 0.0)
        decoder = Decoder()
        connection.send_head(1, 103, b"Link: </a.css>\r\n")
        connection.send_head(1, 204, b"", end=True)
        early, final = sent(connection)
        assert decoded(decoder, early.payload) == [(b":status", b"103"), (b"link", b"</a.css>")]
        assert (early.flags, final.flags) == (END_HEADERS, WHOLE)
        assert decoded(decoder, final.payload) == [(b":status", b"204")]

    @pytest.mark.parametrize(
        "section", [b"Grpc-Status: 0\r\n", b"", b"Connection: close\r\n"], ids=["some", "", "none"]
    )
    def test_trailers_end_a_response(self, section: bytes) -> None:
        """With or without fields that may be sent."""
        connection = answering()
        connection.send_trailers(1, section)
        (last,) = sent(connection)
        assert last.flags & END_STREAM
        assert last.kind == (HEADERS if section.startswith(b"Grpc") else DATA)
        assert connection.open_streams == 0

    def test_long_head_is_cut_into_frames(self) -> None:
        """No frame is longer than any client takes."""
        connection = begun()
        connection.receive(headers(1), 0.0)
        connection.send_head(1, 200, b"X: %b\r\n" % (b"y" * 40_000), end=True)
        found = sent(connection)
        assert [one.kind for one in found] == [HEADERS, frames.CONTINUATION, frames.CONTINUATION]
        assert [one.flags for one in found] == [END_STREAM, 0, END_HEADERS]
        assert decoded(Decoder(), b"".join(one.payload for one in found))[1] == (b"x", b"y" * 40_000)

    def test_data_is_cut_into_frames(self) -> None:
        """A frame is at most 16 KiB, whatever the client would take: others have their turn."""
        connection = answering(LARGE, (frames.MAX_FRAME_SIZE, 2**20))
        assert connection.send_data(1, b"x" * 40_000, end=True) == 40_000
        assert [(len(one.payload), one.flags) for one in sent(connection)] == [(16_384, 0), (16_384, 0), (7232, 1)]

    def test_answer_before_the_end_of_the_request_ends_both(self) -> None:
        """RFC 9113 section 8.1: NO_ERROR tells the client that the answer is whole."""
        connection = posting()
        connection.send_head(1, 413, b"", end=True)
        assert [(one.kind, one.code) for one in sent(connection)[1:]] == [(RST_STREAM, NO_ERROR)]
        assert connection.open_streams == 0
        assert connection.receive(data(1, b"x", END_STREAM), 0.0) == []

    def test_stream_that_is_gone_takes_nothing(self) -> None:
        """The client may reset a stream at any moment: the caller need not ask before it sends."""
        connection = answering()
        connection.receive(rst_stream(1), 0.0)
        assert connection.send_data(1, b"x", end=True) == 0
        assert connection.writable(1) == 0
        connection.send_trailers(1, b"")
        connection.reset(1, 8)
        assert sent(connection) == []


class TestWindows:
    """Flow control by the client."""

    def test_no_more_is_sent_than_the_stream_takes(self) -> None:
        """The rest stays with the caller, who is told when there is room."""
        connection = answering((frames.INITIAL_WINDOW_SIZE, 10))
        assert connection.writable(1) == 10
        assert connection.send_data(1, b"x" * 30, end=True) == 10
        assert connection.blocked_streams == [1]
        assert [len(one.payload) for one in sent(connection)] == [10]
        assert connection.receive(window_update(1, 15), 0.0) == [(1, WRITABLE)]
        assert connection.blocked_streams == []
        assert connection.send_data(1, b"x" * 20, end=True) == 15
        assert connection.receive(window_update(1, 5), 0.0) == [(1, WRITABLE)]
        assert connection.send_data(1, b"x" * 5, end=True) == 5
        assert connection.open_streams == 0

    def test_no_more_is_sent_than_the_connection_takes(self) -> None:
        """One window for all streams; when it opens, all that wait are told."""
        connection = answering((frames.INITIAL_WINDOW_SIZE, 2**30))
        connection.receive(headers(3), 0.0)
        connection.send_head(3, 200, b"")
        assert connection.send_data(1, b"x" * 100_000) == 65_535
        assert connection.send_data(3, b"x") == 0
        assert connection.receive(window_update(3, 1), 0.0) == []
        assert connection.receive(window_update(0, 10), 0.0) == [(3, WRITABLE), (1, WRITABLE)]

    def test_window_may_shrink_below_nothing(self) -> None:
        """RFC 9113 section 6.9.2: then nothing is sent until it has grown again."""
        connection = answering()
        connection.send_data(1, b"x" * 60_000)
        connection.receive(settings((frames.INITIAL_WINDOW_SIZE, 100)), 0.0)
        assert connection.writable(1) == 0
        assert connection.send_data(1, b"x") == 0
        assert connection.receive(window_update(1, 59_900), 0.0) == []
        assert connection.receive(settings((frames.INITIAL_WINDOW_SIZE, 101)), 0.0) == [(1, WRITABLE)]
        assert connection.writable(1) == 1

    def test_end_needs_no_room(self) -> None:
        """An empty frame fits into a window of nothing."""
        connection = answering((frames.INITIAL_WINDOW_SIZE, 0))
        assert connection.send_data(1, b"", end=True) == 0
        assert sent(connection) == [Frame(DATA, END_STREAM, 1, b"")]


class TestWithAnotherClient:
    def test_bodies_go_both_ways_at_once(self) -> None:
        """A client of other making, with its own windows, sends and gets ten bodies of a megabyte, all at a time."""
        size, ids = 1_000_000, range(1, 21, 2)
        client, connection = Client(ids, size), frames.new()
        answered: set[int] = set()
        received, left = dict.fromkeys(ids, 0), dict.fromkeys(ids, size)
        while client.unfinished:
            for stream_id, event in connection.receive(client.data_to_send(), 0.0):
                if isinstance(event, Data):
                    received[stream_id] += len(event.payload)
                    connection.acknowledge(stream_id, len(event.payload))
                if event is END:
                    connection.send_head(stream_id, 200, b"Content-Length: %d\r\n" % size)
                    answered.add(stream_id)
            for stream_id in answered:
                if left[stream_id]:
                    left[stream_id] -= connection.send_data(stream_id, bytes(left[stream_id]), end=True)
            client.receive(connection.data_to_send())
            connection.sent(0)
        assert received == client.received == dict.fromkeys(ids, size)
        assert connection.open_streams == 0
        assert connection.blocked_streams == []


class Client:
    """The `h2` library in the other role, sending a body on each stream and counting what comes back."""

    def __init__(self, ids: Sequence[int], size: int) -> None:
        self._library = H2Connection(H2Configuration(client_side=True))
        self._library.initiate_connection()
        self._left = dict.fromkeys(ids, size)
        self.received = dict.fromkeys(ids, 0)
        self.unfinished = set(ids)
        for stream_id in ids:
            self._library.send_headers(stream_id, [*POST, (b"content-length", b"%d" % size)])

    def data_to_send(self) -> bytes:
        library = self._library
        for stream_id, left in self._left.items():
            while left and (room := min(left, library.local_flow_control_window(stream_id), 16_384)):
                left -= room
                library.send_data(stream_id, bytes(room), end_stream=not left)
            self._left[stream_id] = left
        return library.data_to_send()

    def receive(self, sent_by_us: bytes) -> None:
        for event in self._library.receive_data(sent_by_us):
            if isinstance(event, DataReceived):
                self.received[event.stream_id] += len(event.data)
                self._library.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.unfinished.discard(event.stream_id)


class TestTunnel:
    """WebSocket over HTTP/2 (RFC 8441)."""

    def opened(self) -> ServerConnection:
        connection = begun()
        head, *rest = told(connection.receive(headers(1, WEBSOCKET, END_HEADERS), 0.0))
        assert isinstance(head, RequestHead)
        assert (head.method, head.upgrade, rest) == (b"GET", (b"websocket",), [])
        return connection

    def test_switching_protocols_is_a_200(self) -> None:
        """What belongs to HTTP/1.1 stays there."""
        connection = self.opened()
        section = (
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: y\r\n"
        )
        connection.send_head(1, 101, section)
        (head,) = sent(connection)
        assert decoded(Decoder(), head.payload) == [(b":status", b"200"), (b"sec-websocket-protocol", b"y")]
        assert head.flags == END_HEADERS

    def test_bytes_go_both_ways_and_each_side_ends_alone(self) -> None:
        """A tunnel is a byte stream in each direction; the end of one is not that of the other."""
        connection = self.opened()
        connection.send_head(1, 101, b"")
        assert connection.receive(data(1, b"in"), 0.0) == [(1, Data(b"in"))]
        connection.send_data(1, b"out", end=True)
        assert [one.kind for one in sent(connection)] == [HEADERS, DATA]
        assert connection.receive(data(1, b"more", END_STREAM), 0.0) == [(1, Data(b"more")), (1, END)]
        assert connection.open_streams == 0

    @pytest.mark.parametrize("status", [200, 204])
    def test_success_without_switching_is_not_passed_on(self, status: int) -> None:
        """The client would take an app's page for WebSocket frames."""
        connection = self.opened()
        with pytest.raises(ResponseError) as caught:
            connection.send_head(1, status, b"")
        assert caught.value.reason == "upgrade_ignored"
        connection.send_head(1, 502, b"", end=True)
        assert [one.kind for one in sent(connection)] == [HEADERS, RST_STREAM]

    def test_refusal_makes_it_an_ordinary_request(self) -> None:
        """An app that does not switch answers as it likes, and what the client sends is dropped."""
        connection = self.opened()
        connection.send_head(1, 403, b"")
        assert connection.receive(data(1, b"x"), 0.0) == []
        connection.send_data(1, b"no", end=True)
        assert [one.kind for one in sent(connection)] == [HEADERS, DATA, RST_STREAM]


class TestDrain:
    def test_first_goaway_lets_streams_begin(self) -> None:
        """A request that was on its way when we began to drain is served."""
        connection = begun()
        connection.announce_going_away()
        assert sent(connection) == frames.parse(frames.goaway(2**31 - 1))
        assert isinstance(told(connection.receive(headers(1), 0.0))[0], RequestHead)

    def test_second_goaway_names_the_last_and_later_ones_are_dropped(self) -> None:
        """What was opened before is served to its end; what came later was never looked at."""
        connection = begun()
        connection.receive(headers(1, POST, END_HEADERS), 0.0)
        connection.announce_going_away()
        connection.go_away()
        assert sent(connection)[-1] == frames.parse(frames.goaway(1))[0]
        later = frames.block(GET) + frames.literal(b"x-a", b"1", 0x40)
        assert connection.receive(frames.frame(HEADERS, END_HEADERS, 3, later) + data(3, b"xyz"), 0.0) == []
        assert sent(connection) == frames.parse(window_update(0, 3))
        assert connection.receive(data(1, b"x", END_STREAM), 0.0) == [(1, Data(b"x")), (1, END)]
        connection.send_head(1, 200, b"", end=True)
        assert connection.open_streams == 0

    def test_requests_behind_the_last_goaway_have_an_end(self) -> None:
        """They are decoded only to be dropped: no client may have us do that without end."""
        connection = begun(Http2Limits(late=Allowance(3)))
        connection.go_away()
        connection.receive(headers(1) + headers(3) + headers(5), 0.0)
        assert fault_of(connection, headers(7)).reason == "closed_stream_flood"

    def test_client_that_goes_away_is_still_answered(self) -> None:
        """GOAWAY of a client is about streams that we would open: its requests are as good as before."""
        connection = begun()
        connection.receive(headers(1), 0.0)
        connection.send_head(1, 200, SECTION)
        connection.receive(frames.goaway(), 0.0)
        assert connection.has_client_gone_away
        connection.send_data(1, b"x", end=True)
        assert [one.kind for one in sent(connection)] == [HEADERS, DATA]


def requests_taken_back(n: int) -> bytes:
    return headers(2 * n + 1) + rst_stream(2 * n + 1)


def requests_that_we_reset(n: int) -> bytes:
    return headers(2 * n + 1) + window_update(2 * n + 1, 0)


def malformed_requests(n: int) -> bytes:
    return headers(2 * n + 1, GET[1:])


def requests_over_the_limit(n: int) -> bytes:
    return headers(2 * n + 1)


FLOODS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "rapid reset (CVE-2023-44487)": (requests_taken_back, "reset_flood"),
    "made you reset (CVE-2025-8671)": (requests_that_we_reset, "reset_flood"),
    "malformed requests": (malformed_requests, "reset_flood"),
    "requests over the limit": (requests_over_the_limit, "reset_flood"),
    "PING (CVE-2019-9512)": (lambda n: ping(), "ping_flood"),
    "PING with ACK": (lambda n: ping(flags=ACK), "ping_flood"),
    "SETTINGS (CVE-2019-9515)": (lambda n: settings((4, n)), "settings_flood"),
    "SETTINGS with ACK": (lambda n: frames.frame(SETTINGS, ACK), "settings_flood"),
    "GOAWAY": (lambda n: frames.goaway(), "settings_flood"),
    "PRIORITY (CVE-2019-9513)": (lambda n: frames.priority(2 * n + 1), "priority_flood"),
    "WINDOW_UPDATE (CVE-2019-9517)": (lambda n: window_update(0, 1), "window_update_flood"),
    "empty DATA (CVE-2019-9518)": (lambda n: headers(1, POST, END_HEADERS) if not n else data(1), "empty_data_flood"),
    "padding": (
        lambda n: headers(1, POST, END_HEADERS) if not n else data(1, b"\x02x\0\0", PADDED),
        "padding_flood",
    ),
    "unknown frames": (lambda n: frames.frame(0x20, 0, 0, bytes(100)), "unknown_frame_flood"),
    "RST_STREAM of a closed stream": (
        lambda n: requests_taken_back(n) if not n else rst_stream(1),
        "closed_stream_flood",
    ),
    "DATA on a closed stream": (lambda n: requests_taken_back(n) if not n else data(1, b"x"), "closed_stream_flood"),
}


def flood(connection: ServerConnection, sent_by_client: Callable[[int], bytes]) -> None:
    """Send 10,000 of them a second, read what comes back, and go on for as long as the longest account lasts."""
    for n in range(25_000):
        connection.receive(sent_by_client(n), n / 10_000)
        connection.data_to_send()
        connection.sent(0)


class TestFloods:
    @pytest.mark.parametrize(("sent_by_client", "reason"), FLOODS.values(), ids=FLOODS)
    def test_flood_ends_the_connection(self, sent_by_client: Callable[[int], bytes], reason: str) -> None:
        """Whatever a client may send without being served, it may not send without end."""
        connection = begun()
        with pytest.raises(ConnectionFault) as caught:
            flood(connection, sent_by_client)
        assert (caught.value.code, caught.value.reason) == (Code.ENHANCE_YOUR_CALM, reason)
        assert sent(connection)[-1].code == Code.ENHANCE_YOUR_CALM

    @pytest.mark.parametrize("every", [1, 2])
    def test_client_that_is_served_may_take_some_back(self, every: int) -> None:
        """A browser that cancels, or a gRPC client with deadlines, does not lose its connection for as many resets
        as it has answers."""
        connection = begun()
        for n in range(0, 4000, 2):
            served, taken_back = 2 * n + 1, 2 * n + 3
            connection.receive(headers(served), 0.0)
            connection.send_head(served, 204, b"", end=True)
            if n % every == 0:
                connection.receive(headers(taken_back) + rst_stream(taken_back), 0.0)
            connection.data_to_send()
        assert connection.counts[Kind.RESET] >= 1000

    def test_answer_that_is_cut_short_is_no_rapid_reset(self) -> None:
        """A player that seeks, or a gRPC client that has heard enough, may end as many answers as it was given."""
        connection = begun()
        for stream_id in range(1, 2001, 2):
            connection.receive(headers(stream_id), 0.0)
            connection.send_head(stream_id, 200, SECTION)
            connection.receive(rst_stream(stream_id), 0.0)
            connection.data_to_send()
        assert Kind.RESET not in connection.counts

    def test_download_pays_for_window_updates_and_pings(self) -> None:
        """A client that reads fast tells us so often, and measures its line with PING."""
        connection = answering(LARGE)
        for _ in range(3000):
            connection.send_data(1, b"x" * 1000)
            connection.receive(window_update(1, 1000) + window_update(0, 1000) + ping(), 0.0)
            connection.data_to_send()
            connection.sent(0)
        assert connection.counts[Kind.WINDOW_UPDATE] == 6000

    def test_replies_that_nobody_reads_have_an_end(self) -> None:
        """CVE-2019-9512 and its like, by a client within its allowance: what it makes us say is bounded."""
        connection = begun(Http2Limits(control_bytes=1700, pings=Allowance(10_000)))
        for _ in range(100):
            connection.receive(ping(), 0.0)
        assert fault_of(connection, ping()).reason == "unread_replies"

    def test_replies_that_are_read_do_not_add_up(self) -> None:
        """What the transport says it has left is all that counts."""
        connection = begun(Http2Limits(control_bytes=1700, pings=Allowance(10_000)))
        for _ in range(1000):
            connection.receive(ping(), 0.0)
            connection.data_to_send()
            connection.sent(1683)
        assert connection.counts[Kind.PING] == 1000

    def test_settings_in_one_frame_are_bounded(self) -> None:
        """A frame of 16 KiB could set 2,730 things."""
        assert fault_of(begun(), settings(*[(0x100 + n, 1) for n in range(33)])).reason == "settings_flood"

    def test_table_of_responses_has_our_size(self) -> None:
        """A client that allows a table of gigabytes does not make us keep one."""
        connection = begun(None, (frames.HEADER_TABLE_SIZE, 2**32 - 1))
        for n in range(300):
            for stream_id in (4 * n + 1, 4 * n + 3):
                connection.receive(headers(stream_id), 0.0)
                connection.send_head(stream_id, 200, b"X-%d: %b\r\n" % (n, b"y" * 100), end=True)
                connection.data_to_send()
        assert len(connection._writer._encoder._entries) < 40

    def test_header_block_without_end_is_bounded_in_bytes(self) -> None:
        """CVE-2024-27316: nothing beyond the limit is kept, nor waited for."""
        connection = begun()
        connection.receive(headers(1, GET, END_STREAM), 0.0)
        piece = frames.frame(frames.CONTINUATION, 0, 1, bytes(16_384))
        connection.receive(piece * 7, 0.0)
        fault = fault_of(connection, piece)
        assert (fault.code, fault.reason) == (Code.ENHANCE_YOUR_CALM, "continuation_flood")

    def test_end_that_is_forgotten_is_no_fault_of_others(self) -> None:
        """Trailers may be on their way for a request that was answered long before, in the count of streams."""
        connection = begun()
        connection.receive(headers(1, POST, END_HEADERS), 0.0)
        connection.send_head(1, 404, SECTION, end=True)
        for stream_id in range(3, 2 * MAX_ENDED + 5, 2):
            connection.receive(headers(stream_id), 0.0)
            connection.send_head(stream_id, 200, SECTION, end=True)
            connection.data_to_send()
        assert connection.receive(headers(1, [(b"x-sum", b"1")]), 0.0) == []

    def test_streams_that_ended_are_not_kept(self) -> None:
        """A connection that has served many requests holds no more than one that has served few."""
        connection = begun()
        for stream_id in range(1, 6001, 2):
            connection.receive(headers(stream_id), 0.0)
            connection.send_head(stream_id, 200, SECTION, end=True)
            connection.data_to_send()
        assert connection._streams == {}
