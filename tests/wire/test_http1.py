"""`sidecar.wire.http1`: the connection machine in either role."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sidecar.errors import RequestError, ResponseError
from sidecar.wire.events import END, BodyKind, Data, InterimHead, RequestHead, ResponseHead, Trailers
from sidecar.wire.http1 import (
    MAX_REMEMBERED_BYTES,
    ClientCodec,
    ServerCodec,
    State,
    body_bytes,
    response_bytes,
)
from tests.support.cases import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    WAYS,
    split_anywhere,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


def server(max_head_bytes: int = MAX_HEAD_BYTES, max_headers: int = MAX_HEADERS) -> ServerCodec:
    return ServerCodec(max_head_bytes, max_headers)


def client(method: bytes = b"GET", *, offered: tuple[bytes, ...] = ()) -> ClientCodec:
    codec = ClientCodec(MAX_HEAD_BYTES, MAX_HEADERS)
    codec.expect_response(method, offered)
    return codec


def merged(events: list[object]) -> list[object]:
    """Join neighbouring Data events: how a body was cut does not matter."""
    joined: list[object] = []
    for event in events:
        if isinstance(event, Data) and joined and isinstance(joined[-1], Data):
            joined[-1] = Data(joined[-1].payload + event.payload)
        else:
            joined.append(event)
    return joined


class TestServerCodec:
    def test_codec_after_a_refusal_refuses_everything(self) -> None:
        """Nothing that follows a refused request is read."""
        codec = server()
        with pytest.raises(RequestError):
            codec.receive(b"rubbish\r\n\r\n")
        with pytest.raises(RequestError) as caught:
            codec.receive(GET)
        assert caught.value.reason == "bytes_out_of_turn"
        assert codec.state is State.BROKEN

    def test_unfinished_head_is_not_idle(self) -> None:
        """From the first byte of a request on, a connection is not idle."""
        codec = server()
        assert codec.is_idle
        codec.receive(b"\r\n")
        assert codec.is_idle
        codec.receive(b"G")
        assert not codec.is_idle

    def test_half_an_empty_line_before_a_request_is_waited_for(self) -> None:
        """An empty line before a request may come in two pieces."""
        codec = server()
        assert codec.receive(b"\r") == []
        assert codec.receive(b"\n") == []
        assert codec.receive(GET)[-1] is END

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_empty_lines_are_no_request_however_they_are_cut(self, size: int) -> None:
        """A connection on which only empty lines arrive stays idle, also in the middle of one."""
        codec = server()
        lines = b"\r\n" * 30
        for position in range(0, len(lines), size):
            assert codec.receive(lines[position : position + size]) == []
            assert codec.is_idle
        codec.receive(b"G")
        assert not codec.is_idle

    def test_request_behind_half_an_empty_line_is_not_idle(self) -> None:
        """With the first byte of a request the connection is not idle, also in the piece that ends an empty line."""
        codec = server()
        codec.receive(b"\r")
        codec.receive(b"\nG")
        assert not codec.is_idle

    def test_no_bytes_change_nothing(self) -> None:
        """Receiving nothing gives no events, before the first request and after it."""
        codec = server()
        assert codec.receive(b"") == []
        assert codec.is_idle
        codec.receive(GET)
        assert codec.receive(b"") == []
        assert not codec.has_pipelined

    def test_limits_are_those_it_was_given(self) -> None:
        """A head of as many bytes as its codec allows is read, one of one byte more is refused with 431."""
        assert server(max_head_bytes=len(GET)).receive(GET)[-1] is END
        with pytest.raises(RequestError) as caught:
            server(max_head_bytes=len(GET) - 1).receive(GET)
        assert (caught.value.status, caught.value.reason) == (431, "header_too_large")

    def test_head_one_byte_at_a_time_costs_linear_time(self) -> None:
        """A client that sends its head in single bytes cannot make each byte cost a look at all before it."""
        head = b"GET / HTTP/1.1\r\nX: " + b"v" * 61_000
        codec = server()
        started_at = time.process_time()
        for i in range(len(head)):
            codec.receive(head[i : i + 1])
        assert time.process_time() - started_at < 2.0  # about 0.1; quadratic: over 20

    def test_trailers_one_byte_at_a_time_are_searched_once(self) -> None:
        """The same holds for trailers."""
        codec = server()
        codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        started_at = time.process_time()
        for _ in range(8000):
            codec.receive(b"v")
        assert time.process_time() - started_at < 0.3

    def test_body_before_an_error_in_one_piece_is_not_handed_on(self) -> None:
        """A request whose framing breaks in the very piece that its head came in is refused as a whole."""
        codec = server()
        with pytest.raises(RequestError) as caught:
            codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n")
        assert caught.value.reason == "bad_chunk"

    def test_body_pieces_are_handed_on_as_they_come(self) -> None:
        """What has arrived of a body is not held back."""
        codec = server()
        head, *rest = codec.receive(POST + b"he")
        assert isinstance(head, RequestHead)
        assert rest == [Data(b"he")]
        assert codec.receive(b"l") == [Data(b"l")]
        assert codec.receive(b"lo") == [Data(b"lo"), END]

    def test_awaited_bytes_are_those_of_a_known_length(self) -> None:
        """How much of a body is still to come is said where its length is, and nowhere else."""
        codec = server()
        assert codec.awaited_bytes == 0
        codec.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        assert codec.awaited_bytes == 3
        codec.receive(b"cde")
        assert codec.awaited_bytes == 0
        codec.next_request()
        codec.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        assert codec.awaited_bytes == 0


class TestPipelining:
    def test_nothing_held_gives_nothing(self) -> None:
        """The next request of a client that has not sent any is waited for."""
        codec = server()
        codec.receive(GET)
        assert codec.next_request() == []
        assert codec.is_idle
        assert codec.request is None

    @pytest.mark.parametrize("way", WAYS)
    def test_requests_held_come_one_at_a_time_in_order(self, way: str) -> None:
        """However many requests are held, each call gives the events of one, and their bodies stay apart."""
        second = b"PUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        third = b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n"
        fourth = b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
        for segments in WAYS[way](GET + second + third + fourth):
            codec = server()
            events: list[object] = []
            for segment in segments:
                events += codec.receive(segment)
            targets = []
            for _ in range(4):
                assert codec.is_complete
                assert codec.request is not None
                targets.append(codec.request.target)
                events += codec.next_request()
            assert targets == [b"/", b"/2", b"/3", b"/4"]
            assert codec.is_idle
            bodies = [e for e in events if isinstance(e, Data | Trailers)]
            assert [type(e) for e in bodies] == [Data, Data, Trailers]
            assert [e.payload for e in bodies[:2]] == [b"hello", b"x"]  # type: ignore[union-attr]

    def test_half_a_request_held_is_continued(self) -> None:
        """What is held may be the beginning of a request."""
        codec = server()
        codec.receive(GET + GET[:10])
        assert codec.has_pipelined
        assert codec.next_request() == []
        assert not codec.has_pipelined
        assert not codec.is_idle
        assert codec.receive(GET[10:])[-1] is END

    def test_empty_line_behind_a_body_is_ignored(self) -> None:
        """The CRLF that some clients send behind a body belongs to no request."""
        codec = server()
        codec.receive(POST + b"hello\r\n")
        assert codec.next_request() == []
        assert codec.receive(GET)[-1] is END

    def test_refused_request_behind_a_good_one_leaves_the_good_one(self) -> None:
        """A pipelined request that breaks a rule is refused in its turn, not before."""
        codec = server()
        assert codec.receive(GET + b"GET / HTTP/1.1\r\n\r\n" + GET)[-1] is END
        with pytest.raises(RequestError) as caught:
            codec.next_request()
        assert caught.value.reason == "bad_host"
        assert codec.state is State.BROKEN
        assert not codec.has_pipelined

    def test_upgrade_returns_what_came_ahead(self) -> None:
        """What a client sends behind a request that becomes a tunnel is the tunnel's, and is not parsed."""
        codec = server()
        codec.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\0ab")
        codec.receive(b"c")
        assert codec.upgrade() == b"\0abc"
        assert codec.state is State.TUNNEL
        assert not codec.has_pipelined

    def test_upgrade_declined_reads_on(self) -> None:
        """What a client sends behind an upgrade that the app declined is its next request."""
        codec = server()
        codec.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + GET)
        assert codec.next_request()[-1] is END


class TestRememberedRequest:
    HEAD = b"GET /p HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"

    def test_repeated_head_gives_equal_events(self) -> None:
        """A head that repeats the last one byte for byte gives the very same events."""
        codec = server()
        first = codec.receive(self.HEAD)
        codec.next_request()
        second = codec.receive(self.HEAD)
        assert second == first
        assert codec.request is second[0]
        assert codec.is_complete

    @pytest.mark.parametrize("between", [GET, POST + b"hello"], ids=["without a body", "with a body"])
    def test_head_repeated_after_another_gives_equal_events(self, between: bytes) -> None:
        """Another request between two equal ones changes neither."""
        codec = server()
        first = list(codec.receive(self.HEAD))
        codec.next_request()
        codec.receive(between)
        codec.next_request()
        assert codec.receive(self.HEAD) == first

    def test_head_that_differs_in_one_byte_is_parsed_anew(self) -> None:
        """Whichever byte of a head changes, it is read as if it were the first on its connection."""
        for i in range(len(self.HEAD)):
            for byte in (b"Z", b" ", b"\n", bytes([self.HEAD[i] ^ 0x20])):
                changed = self.HEAD[:i] + byte + self.HEAD[i + 1 :]
                codec = server()
                codec.receive(self.HEAD)
                codec.next_request()
                assert outcome(codec.receive, changed) == outcome(server().receive, changed)

    @pytest.mark.parametrize("behind", [b"G", GET, HEAD, b"\r\n", b"\0"])
    def test_bytes_behind_a_repeated_head_are_held(self, behind: bytes) -> None:
        """A repeated head is found also when a further request follows it in the same piece."""
        codec = server()
        first = list(codec.receive(self.HEAD))
        codec.next_request()
        assert codec.receive(self.HEAD + behind) == first
        assert codec.upgrade() == behind

    def test_repeated_head_cut_anywhere_gives_equal_events(self) -> None:
        """A repeated head that comes in pieces is the same request."""
        for segments in split_anywhere(self.HEAD):
            codec = server()
            first = list(codec.receive(self.HEAD))
            codec.next_request()
            assert [event for segment in segments for event in codec.receive(segment)] == first

    def test_repeated_head_behind_half_a_head_is_no_head(self) -> None:
        """The bytes of a remembered head in the middle of another one are fields of that."""
        codec = server()
        codec.receive(self.HEAD)
        codec.next_request()
        codec.receive(b"GET / HTTP/1.1\r\nHost: a\r\n")
        with pytest.raises(RequestError) as caught:
            codec.receive(self.HEAD)
        assert caught.value.reason == "bad_header"

    def test_repeated_head_as_a_body_is_a_body(self) -> None:
        """The bytes of a remembered head inside a body are body."""
        codec = server()
        codec.receive(self.HEAD)
        codec.next_request()
        codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(self.HEAD))
        assert codec.receive(self.HEAD) == [Data(self.HEAD), END]

    def test_long_head_is_not_remembered(self) -> None:
        """No more than one short head is kept per connection."""
        codec = server()
        head = GET[:-2] + b"X: " + b"v" * MAX_REMEMBERED_BYTES + b"\r\n\r\n"
        first = codec.receive(head)
        codec.next_request()
        second = codec.receive(head)
        assert second == first
        assert second[0] is not first[0]

    def test_head_with_a_body_reads_its_body_each_time(self) -> None:
        """A repeated head with a body has a body of its own each time."""
        codec = server()
        for payload in (b"hello", b"world"):
            assert codec.receive(POST + payload)[1:] == [Data(payload), END]
            codec.next_request()


def outcome(receive: Callable[[bytes], list[object]], data: bytes) -> object:
    """What *receive* does with *data*: its events, or its refusal."""
    try:
        return list(receive(data))
    except (RequestError, ResponseError) as error:
        return error.reason, error.status


class TestClientCodec:
    def test_bytes_before_a_request_are_refused(self) -> None:
        """An app that speaks before it was asked is not believed."""
        codec = ClientCodec(MAX_HEAD_BYTES, MAX_HEADERS)
        with pytest.raises(ResponseError) as caught:
            codec.receive(OK)
        assert caught.value.reason == "bytes_after_response"

    def test_bytes_after_a_response_are_refused(self) -> None:
        """Bytes that come after the end of a response answer nothing."""
        codec = client()
        codec.receive(OK + b"hello")
        with pytest.raises(ResponseError):
            codec.receive(OK + b"hello")
        assert codec.state is State.BROKEN

    def test_bytes_behind_a_response_make_the_connection_unusable(self) -> None:
        """A response with bytes behind it in the same piece is good; its connection is not reused."""
        codec = client()
        events = codec.receive(OK + b"hello" + OK)
        assert merged(events)[1:] == [Data(b"hello"), END]
        assert not codec.is_reusable

    @pytest.mark.parametrize(
        "response",
        [OK + b"hello", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    )
    def test_second_response_to_one_request_is_not_read(self, response: bytes) -> None:
        """Bytes behind a response are never taken for the answer to the next request."""
        codec = client()
        codec.receive(response)
        codec.expect_response(b"GET", ())
        codec.receive(response + OK + b"other")
        assert not codec.is_reusable

    def test_response_bytes_are_known_from_the_first_one(self) -> None:
        """Whether any byte of the response has come decides whether its request may be sent again."""
        codec = client()
        assert not codec.has_response_bytes
        codec.receive(b"H")
        assert codec.has_response_bytes
        codec = client()
        codec.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert codec.has_response_bytes

    def test_interim_responses_are_counted_per_request(self) -> None:
        """The limit of interim responses begins anew with each request."""
        codec = client()
        for _ in range(3):
            for _ in range(16):
                (event,) = codec.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                assert isinstance(event, InterimHead)
            codec.receive(OK + b"hello")
            codec.expect_response(b"GET", ())

    @pytest.mark.parametrize("size", range(1, len(OK) + 5))
    def test_response_cut_anywhere_is_refused(self, size: int) -> None:
        """A response with a length that is cut at any byte before its end is an error, never a shorter response."""
        codec = client()
        codec.receive((OK + b"hello")[:size])
        with pytest.raises(ResponseError) as caught:
            codec.receive_eof()
        assert caught.value.reason == "response_cut"

    def test_until_close_ends_with_the_connection(self) -> None:
        """A response without framing is complete when its connection ends, and only then."""
        codec = client()
        codec.receive(b"HTTP/1.1 200 OK\r\n\r\nhello")
        assert codec.state is State.BODY
        assert codec.receive_eof() == [END]
        assert codec.state is State.COMPLETE

    def test_tunnel_passes_bytes_as_they_come(self) -> None:
        """After a 101 nothing is framed, and the end of the connection is the end of the tunnel."""
        codec = client(offered=(b"x", b"websocket"))
        head, *rest = codec.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nab")
        assert isinstance(head, ResponseHead)
        assert rest == [END, Data(b"ab")]
        codec.upgrade()
        assert codec.receive(OK) == [Data(OK)]
        assert codec.receive_eof() == [END]

    def test_bytes_after_an_upgrade_keep_the_connection(self) -> None:
        """Bytes behind a 101 are the tunnel's, not a second response."""
        codec = client(offered=(b"x", b"websocket"))
        codec.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nab")
        assert codec.is_reusable


def read_quickly(codec: ClientCodec, data: bytes) -> list[Any]:
    """As connections to the app do: a whole response with the last head is taken without a look at its parts."""
    body = codec.receive_repeated(data)
    return codec.receive(data) if body is None else [codec.response, Data(body), END]


Read = Callable[[ClientCodec, bytes], list[Any]]


@pytest.mark.parametrize("read", [ClientCodec.receive, read_quickly], ids=["by parts", "quickly"])
class TestRememberedResponse:
    def test_repeated_head_gives_the_same_head(self, read: Read) -> None:
        """A head that repeats the last one gives the same head, with the body that came this time."""
        codec = client()
        first, *_ = read(codec, OK + b"hello")
        codec.expect_response(b"GET", ())
        assert read(codec, OK + b"world") == [first, Data(b"world"), END]

    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
    @pytest.mark.parametrize("before", [b"GET", b"HEAD", b"POST"])
    @pytest.mark.parametrize("offered", [(), (b"x",), (b"y",)], ids=["none", "x", "y"])
    @pytest.mark.parametrize(
        "data",
        [
            OK + b"hello",
            OK,
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + OK + b"hello",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ],
    )
    def test_repeated_bytes_are_read_for_the_request_that_they_answer(
        self, data: bytes, before: bytes, method: bytes, offered: tuple[bytes, ...], read: Read
    ) -> None:
        """The same bytes after another request give what a new connection would give for that request."""
        codec = client(before)
        outcome(partial(read, codec), OK + (b"" if before == b"HEAD" else b"hello"))
        for expected_method, expected_offer in ((before, ()), (method, offered)):
            if codec.state is not State.COMPLETE:
                return
            codec.expect_response(expected_method, expected_offer)
            fresh = client(expected_method, offered=expected_offer)
            assert outcome(partial(read, codec), data) == outcome(fresh.receive, data)
            assert codec.state is fresh.state

    def test_body_of_a_repeated_head_may_be_cut_anywhere(self, read: Read) -> None:
        """A repeated head with a body in pieces reads that body whole, and nothing behind it."""
        for segments in split_anywhere(OK + b"world"):
            codec = client()
            first, *_ = read(codec, OK + b"hello")
            codec.expect_response(b"GET", ())
            events = [event for segment in segments for event in read(codec, segment)]
            assert merged(events) == [first, Data(b"world"), END]
            assert codec.is_reusable

    def test_body_of_a_repeated_head_cut_by_eof_is_refused(self, read: Read) -> None:
        """A repeated head does not make its body complete."""
        for size in range(len(OK), len(OK) + 5):
            codec = client()
            read(codec, OK + b"hello")
            codec.expect_response(b"GET", ())
            read(codec, (OK + b"world")[:size])
            with pytest.raises(ResponseError):
                codec.receive_eof()

    def test_bytes_behind_a_repeated_response_make_the_connection_unusable(self, read: Read) -> None:
        """Also a remembered response ends where its length says."""
        codec = client()
        first, *_ = read(codec, OK + b"hello")
        codec.expect_response(b"GET", ())
        assert read(codec, OK + b"world!") == [first, Data(b"world"), END]
        assert not codec.is_reusable

    def test_head_that_differs_in_one_byte_is_parsed_anew(self, read: Read) -> None:
        """Whichever byte of a response head changes, it is read as if it were the first on its connection."""
        for i in range(len(OK)):
            for byte in (b"1", b" ", b"\n", bytes([OK[i] ^ 0x20])):
                changed = OK[:i] + byte + OK[i + 1 :] + b"hello"
                codec = client()
                read(codec, OK + b"hello")
                codec.expect_response(b"GET", ())
                fresh = client()
                assert outcome(partial(read, codec), changed) == outcome(fresh.receive, changed)
                assert (codec.state, codec.is_reusable) == (fresh.state, fresh.is_reusable)

    def test_repeated_head_behind_an_interim_one_is_found(self, read: Read) -> None:
        """An interim response before a repeated head stays an event of its own."""
        codec = client()
        first, *_ = read(codec, OK + b"hello")
        codec.expect_response(b"GET", ())
        interim, *rest = read(codec, b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"hello")
        assert isinstance(interim, InterimHead)
        assert rest == [first, Data(b"hello"), END]

    def test_long_head_is_not_remembered(self, read: Read) -> None:
        """No more than one short head is kept per connection."""
        head = OK[:-2] + b"X: " + b"v" * MAX_REMEMBERED_BYTES + b"\r\n\r\n"
        codec = client()
        first, *_ = read(codec, head + b"hello")
        codec.expect_response(b"GET", ())
        second, *_ = read(codec, head + b"hello")
        assert second == first
        assert second is not first


class TestReceiveRepeated:
    def test_whole_response_with_the_last_head_gives_its_body(self) -> None:
        """That is what it is for; the response is then complete, and the next may be asked for."""
        codec = client()
        first, *_ = codec.receive(OK + b"hello")
        for body in (b"world", b"again"):
            codec.expect_response(b"GET", ())
            assert codec.receive_repeated(OK + body) == body
            assert (codec.state, codec.is_reusable) == (State.COMPLETE, True)
            assert codec.response is first

    @pytest.mark.parametrize(
        "data",
        [b"", OK, OK + b"hell", OK + b"hello!", OK.replace(b"200", b"201") + b"hello", b"hello" + OK],
        ids=["nothing", "head", "part", "more", "another head", "moved"],
    )
    def test_anything_else_is_not_taken(self, data: bytes) -> None:
        """What is no whole response with that head is left for `receive`, whatever its size."""
        codec = client()
        codec.receive(OK + b"hello")
        codec.expect_response(b"GET", ())
        assert codec.receive_repeated(data) is None
        assert codec.receive(OK + b"world")[1:] == [Data(b"world"), END]

    @pytest.mark.parametrize("state", [state for state in State if state is not State.HEAD], ids=lambda s: s.value)
    def test_nothing_is_taken_where_no_response_is_due(self, state: State) -> None:
        """Bytes that answer nothing are not taken for an answer because they look like the last one."""
        codec = client()
        codec.receive(OK + b"hello")
        codec.state = state
        assert codec.receive_repeated(OK + b"hello") is None

    def test_nothing_is_taken_behind_half_a_head(self) -> None:
        """What stands before a response is of its head."""
        codec = client()
        codec.receive(OK + b"hello")
        codec.expect_response(b"GET", ())
        codec.receive(b"HTTP/1.1 200")
        assert codec.receive_repeated(OK + b"hello") is None

    def test_response_to_another_method_is_not_taken(self) -> None:
        """The same head has no body if it answers HEAD."""
        codec = client()
        codec.receive(OK + b"hello")
        codec.expect_response(b"HEAD", ())
        assert codec.receive_repeated(OK + b"hello") is None


# -- every state meets every input ------------------------------------------------------------------------------


def _server_in(state: State) -> ServerCodec:
    codec = server()
    if state is State.BODY:
        codec.receive(POST)
    elif state in (State.COMPLETE, State.TUNNEL):
        codec.receive(GET)
        if state is State.TUNNEL:
            codec.upgrade()
    elif state is State.BROKEN:
        with pytest.raises(RequestError):
            codec.receive(b"\0")
    assert codec.state is state
    return codec


def _client_in(state: State) -> ClientCodec:
    codec = client(offered=(b"x", b"websocket"))
    if state is State.BODY:
        codec.receive(OK)
    elif state is State.COMPLETE:
        codec.receive(OK + b"hello")
    elif state is State.TUNNEL:
        codec.receive(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        codec.upgrade()
    elif state is State.BROKEN:
        with pytest.raises(ResponseError):
            codec.receive(b"\0")
    assert codec.state is state
    return codec


SERVER_INPUTS: dict[str, Callable[[ServerCodec], object]] = {
    "head": lambda codec: codec.receive(GET),
    "head with body": lambda codec: codec.receive(POST),
    "part": lambda codec: codec.receive(b"PO"),
    "last bytes": lambda codec: codec.receive(b"hello"),
    "control": lambda codec: codec.receive(b"\0"),
    "nothing": lambda codec: codec.receive(b""),
    "next_request": ServerCodec.next_request,
    "upgrade": ServerCodec.upgrade,
}

# The state that follows; what is not listed is refused.
SERVER_STEPS = {
    (State.HEAD, "head"): State.COMPLETE,
    (State.HEAD, "head with body"): State.BODY,
    (State.HEAD, "part"): State.HEAD,
    (State.HEAD, "last bytes"): State.HEAD,
    (State.HEAD, "nothing"): State.HEAD,
    (State.BODY, "head"): State.COMPLETE,  # its first five bytes are the body, and so below
    (State.BODY, "head with body"): State.COMPLETE,
    (State.BODY, "part"): State.BODY,
    (State.BODY, "last bytes"): State.COMPLETE,
    (State.BODY, "control"): State.BODY,
    (State.BODY, "nothing"): State.BODY,
    (State.COMPLETE, "head"): State.COMPLETE,
    (State.COMPLETE, "head with body"): State.COMPLETE,
    (State.COMPLETE, "part"): State.COMPLETE,
    (State.COMPLETE, "last bytes"): State.COMPLETE,
    (State.COMPLETE, "control"): State.COMPLETE,
    (State.COMPLETE, "nothing"): State.COMPLETE,
    (State.COMPLETE, "next_request"): State.HEAD,
    (State.COMPLETE, "upgrade"): State.TUNNEL,
}

CLIENT_INPUTS: dict[str, Callable[[ClientCodec], object]] = {
    "head": lambda codec: codec.receive(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "head with body": lambda codec: codec.receive(OK),
    "interim": lambda codec: codec.receive(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "part": lambda codec: codec.receive(b"HTT"),
    "last bytes": lambda codec: codec.receive(b"hello"),
    "nothing": lambda codec: codec.receive(b""),
    "eof": ClientCodec.receive_eof,
    "expect_response": lambda codec: codec.expect_response(b"GET", ()),
    "upgrade": ClientCodec.upgrade,
}

CLIENT_STEPS = {
    (State.HEAD, "head"): State.COMPLETE,
    (State.HEAD, "head with body"): State.BODY,
    (State.HEAD, "interim"): State.HEAD,
    (State.HEAD, "part"): State.HEAD,
    (State.HEAD, "nothing"): State.HEAD,
    (State.BODY, "head"): State.COMPLETE,  # its first five bytes are the body, and so below
    (State.BODY, "head with body"): State.COMPLETE,
    (State.BODY, "interim"): State.COMPLETE,
    (State.BODY, "part"): State.BODY,
    (State.BODY, "last bytes"): State.COMPLETE,
    (State.BODY, "nothing"): State.BODY,
    (State.COMPLETE, "expect_response"): State.HEAD,
    (State.COMPLETE, "upgrade"): State.TUNNEL,
    (State.TUNNEL, "head"): State.TUNNEL,
    (State.TUNNEL, "head with body"): State.TUNNEL,
    (State.TUNNEL, "interim"): State.TUNNEL,
    (State.TUNNEL, "part"): State.TUNNEL,
    (State.TUNNEL, "last bytes"): State.TUNNEL,
    (State.TUNNEL, "nothing"): State.TUNNEL,
    (State.TUNNEL, "eof"): State.TUNNEL,
}


@pytest.mark.parametrize("state", State)
class TestEveryState:
    @pytest.mark.parametrize("what", SERVER_INPUTS)
    def test_server_codec_follows_its_table(self, state: State, what: str) -> None:
        """Each input in each state leads where the table says, and is refused where it says nothing."""
        codec = _server_in(state)
        follows = SERVER_STEPS.get((state, what))
        if follows is None:
            with pytest.raises((RequestError, AssertionError)):
                SERVER_INPUTS[what](codec)
        else:
            SERVER_INPUTS[what](codec)
            assert codec.state is follows

    @pytest.mark.parametrize("what", CLIENT_INPUTS)
    def test_client_codec_follows_its_table(self, state: State, what: str) -> None:
        """Each input in each state leads where the table says, and is refused where it says nothing."""
        codec = _client_in(state)
        follows = CLIENT_STEPS.get((state, what))
        if follows is None:
            with pytest.raises((ResponseError, AssertionError)):
                CLIENT_INPUTS[what](codec)
        else:
            CLIENT_INPUTS[what](codec)
            assert codec.state is follows


class TestWriting:
    def test_response_head_keeps_the_phrase(self) -> None:
        """A response head is written with the phrase as it came, blank and all."""
        assert response_bytes(200, b" OK", b"X: y\r\n") == b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
        assert response_bytes(404, b"", b"") == b"HTTP/1.1 404\r\n\r\n"

    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            (BodyKind.CHUNKED, b"5\r\nhello\r\n"),
            (BodyKind.LENGTH, b"hello"),
            (BodyKind.UNTIL_CLOSE, b"hello"),
            (BodyKind.NONE, b"hello"),
        ],
    )
    def test_body_is_written_in_its_framing(self, kind: BodyKind, data: bytes) -> None:
        """Only a chunked body gets anything around it."""
        assert body_bytes(b"hello", kind) == data


def receive_all(codec: ServerCodec, pieces: list[bytes]) -> None:
    for piece in pieces:
        codec.receive(piece)


class TestMaxBody:
    def server(self, limit: int) -> ServerCodec:
        return ServerCodec(MAX_HEAD_BYTES, MAX_HEADERS, limit)

    def test_announced_body_over_the_limit_is_refused_at_once(self) -> None:
        """Nobody has to wait for a body that is too long by its own word."""
        codec = self.server(4)
        with pytest.raises(RequestError, match="5 bytes or more, limit 4") as caught:
            codec.receive(POST)
        assert (caught.value.status, caught.value.reason) == (413, "body_too_large")
        assert codec.state is State.BROKEN

    def test_announced_body_of_the_limit_passes(self) -> None:
        """The limit is exact."""
        events = self.server(5).receive(POST + b"12345")
        assert events[1:] == [Data(b"12345"), END]

    @pytest.mark.parametrize("way", WAYS)
    def test_chunked_body_is_refused_where_it_passes_the_limit(self, way: str) -> None:
        """Chunks are counted as they come; chunk framing does not count."""
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b"3;x=yyyyyyyyy\r\nabc\r\n2\r\nde\r\n"
        for pieces in WAYS[way](body + b"0\r\n\r\n"):
            codec = self.server(5)
            codec.receive(head)
            receive_all(codec, pieces)
            assert codec.is_complete
        for pieces in WAYS[way](body + b"1\r\nf\r\n0\r\n\r\n"):
            codec = self.server(5)
            codec.receive(head)
            with pytest.raises(RequestError) as caught:
                receive_all(codec, pieces)
            assert caught.value.status == 413

    def test_each_request_is_counted_by_itself(self) -> None:
        """A connection may carry more than the limit, in several requests."""
        codec = self.server(3)
        chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for _ in range(3):
            codec.receive(chunked)
            codec.next_request()


class TestKeepAliveSeconds:
    @pytest.mark.parametrize(
        ("field", "seconds"),
        [
            (b"", None),
            (b"Keep-Alive: timeout=5\r\n", 5),
            (b"keep-alive: max=100, Timeout = 65 \r\n", 65),
            (b'Keep-Alive: timeout="15"\r\n', 15),
            (b"Keep-Alive: timeout=9, timeout=3\r\nKeep-Alive: timeout=7\r\n", 3),
            (b"Keep-Alive: timeout=0\r\n", 0),
            (b"Keep-Alive: timeout=-1\r\n", None),
            (b"Keep-Alive: timeout=1e3\r\n", None),
            (b"Keep-Alive: timeout=9999999999\r\n", None),
            (b"Keep-Alive: xtimeout=5\r\n", None),
            (b"Keep-Alive: 300\r\n", None),
        ],
    )
    def test_what_the_app_promises_is_read(self, field: bytes, seconds: int | None) -> None:
        """The least of all readable promises counts; anything else promises nothing."""
        codec = client()
        codec.receive(b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % field)
        assert codec.keep_alive_seconds == seconds

    def test_promise_holds_for_responses_without_one(self) -> None:
        """An app that has said it once need not repeat it."""
        codec = client()
        codec.receive(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n")
        codec.expect_response(b"GET", ())
        codec.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert codec.keep_alive_seconds == 5
