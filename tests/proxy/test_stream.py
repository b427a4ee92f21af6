"""`proxy.stream`: a request of an HTTP/2 client, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.observe.accesslog import AccessLog
from sidecar.policy.access import access_of, default_rule
from sidecar.policy.authz import NO_CERTIFICATE, Presented
from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.policy.identity import identity_of
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.routing import Router
from sidecar.proxy.sockets import MAX_READ_SIZE, MIN_PROGRESS_BYTES
from sidecar.settings import (
    AccessLogFormat,
    ByteCount,
    ClientCertMode,
    ClientSettings,
    HostPort,
    HttpSettings,
    Limits,
    MatcherText,
    PathPatterns,
    ProxyProtocolOut,
    Seconds,
    Timeouts,
    UnderscoreHeaders,
)
from sidecar.topology import DirectResponse, Redirect, Route, RouteMatch, ToCluster, VirtualHost
from sidecar.wire.events import RequestHead
from sidecar.wire.h2limits import Http2Limits
from tests.support import frames
from tests.support.certs import CLIENT, authority
from tests.support.h2pump import FIRST_WINDOW, H2Pump, fields
from tests.support.ports import FakeCluster, FakePool, RecordingTransport
from tests.support.pump import FORWARDING, Ended, Pump

REQUIRED = ClientCertMode.REQUIRED
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
TIMEOUTS = Timeouts(
    header=Seconds(1.0), idle=Seconds(2.0), body=Seconds(3.0), upstream=Seconds(40.0), stream=Seconds(50.0)
)
WINDOW = Http2Limits().stream_window
POST = fields(b"POST")
GRPC_ANSWER = OK.replace(b"Content-Length", b"Content-Type: application/grpc\r\nContent-Length")
GRPC = (*POST, (b"content-type", b"application/grpc+proto"), (b"te", b"trailers"))
NO_WINDOW = (frames.INITIAL_WINDOW_SIZE, 0)


def response(size: int, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A response whose body no two pieces of are the same."""
    head = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, head, size, pattern(size))


def pattern(size: int) -> bytes:
    return b"".join(b"%07d," % number for number in range(size // 8 + 1))[:size]


def body(stream_id: int, size: int, *, ends: bool = False) -> bytes:
    """DATA frames of `pattern(size)`."""
    content, made = pattern(size), b""
    for at in range(0, size, 16_384):
        is_last = ends and at + 16_384 >= size
        made += frames.data(stream_id, content[at : at + 16_384], frames.END_STREAM if is_last else 0)
    return made


def uploading(**pump: Any) -> tuple[H2Pump, int]:
    """A client that has begun a request, of which nothing but the head has come."""
    made = H2Pump(**pump)
    made.credit.clear()
    return made, made.request((*POST, (b"content-length", b"%d" % (8 * WINDOW))), ends=False)


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def exchange_id(request: bytes) -> bytes:
    """What X-Request-Id names *request*."""
    return request.partition(b"\r\nX-Request-Id: ")[2].partition(b"\r\n")[0]


class TestManyStreams:
    def test_answers_come_as_they_are_ready(self) -> None:
        """Each stream has a connection to the app of its own; nobody waits for anybody."""
        pump = H2Pump()
        ids = [pump.request(fields(path=b"/%d" % number)) for number in range(3)]
        apps = [pump.accept() for _ in ids]
        for number in (2, 0, 1):
            assert apps[number].sent.startswith(b"GET /%d HTTP/1.1\r\nhost: a.example\r\n" % number)
            pump.delivers(apps[number], OK.replace(b"ok", b"0%d" % number))
            assert pump.answer(ids[number]).body == b"0%d" % number
        assert all(pump.answer(stream_id).is_whole for stream_id in ids)
        assert pump.log.ended == [Ended(200, "", "")] * 3
        assert len(pump.pool.idle) == 3
        assert not pump.tls.ending

    def test_long_response_is_read_in_pieces_as_for_any_stream(self) -> None:
        """However it flows: a client with a hundred of them could have as many large pieces held."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 2**31 - 1))
        stream_id = pump.request()
        pump.gives(0, 2**31 - 1 - FIRST_WINDOW)
        app = pump.accept()
        pump.delivers(app, b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(3):
            pump.delivers(app, b"a" * MAX_READ_SIZE)
            assert app.is_reading
            assert app.read_limit == MAX_READ_SIZE
        assert len(pump.answer(stream_id).body) == 3 * MAX_READ_SIZE

    def test_kept_connections_serve_the_next_streams(self) -> None:
        """Pooled as for HTTP/1.1."""
        pump = H2Pump()
        for _ in range(2):
            ids = [pump.request() for _ in range(2)]
            while pump.pool.waiting:
                pump.accept()
            for app in pump.apps:
                pump.delivers(app, OK)
            assert [pump.answer(stream_id).body for stream_id in ids] == [b"ok", b"ok"]
        assert len(pump.apps) == 2

    def test_stream_for_which_there_is_no_connection_gets_503_alone(self) -> None:
        """Connections to the app are bounded; who finds none may come again, and the others go on."""
        pump = H2Pump()
        first, app = pump.starts()
        second = pump.request()
        pump.pool.refuse("upstream_overflow", "in use: all")
        pump.settle()
        assert pump.answer(second).status == 503
        assert pump.answer(second).fields[b"retry-after"] == b"1"
        assert pump.answer(second).is_whole
        assert pump.last == Ended(503, "upstream_overflow", "in use: all")
        pump.delivers(app, OK)
        assert pump.answer(first).body == b"ok"
        assert not pump.tls.ending

    def test_other_endpoint_is_tried(self) -> None:
        """As for HTTP/1.1, at no cost to the client."""
        pump = H2Pump(pools=2)
        stream_id = pump.request()
        pump.pool.refuse()
        app = pump.pools[1].accept()
        pump.delivers(app, OK)
        assert pump.answer(stream_id).body == b"ok"
        assert pump.service.metrics.upstream_retries == 1

    @pytest.mark.parametrize(
        ("head", "content", "status"), [(fields(), None, 200), (POST, b"abc", 502)], ids=["GET", "POST"]
    )
    def test_kept_connection_that_closes_is_replaced_where_that_is_safe(
        self, head: list[frames.Field], content: bytes | None, status: int
    ) -> None:
        """The app may have seen a request on a connection that it closed: only what may be repeated is."""
        pump = H2Pump()
        _, app = pump.starts()
        pump.delivers(app, OK)
        stream_id = pump.request(head, content)
        app.deliver_eof()
        pump.settle()
        if status == 200:
            pump.delivers(pump.accept(), OK)
        assert pump.answer(stream_id).status == status
        assert not pump.pool.waiting

    def test_same_head_is_judged_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was found out about a head that the codec hands out again holds, until rules or routes change."""
        hop = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), with_forwarded=True)
        pump = H2Pump(forwarding=Forwarding(b"", b"", hop))
        pump.request()
        judged: list[RequestHead] = []
        lines = Hop.lines  # which a judgement asks for; that itself cannot be replaced where it is compiled
        monkeypatch.setattr(Hop, "lines", lambda hop, head: judged.append(head) or lines(hop, head))
        pump.request()
        assert not judged
        pump.request(fields(path=b"/other"))
        assert len(judged) == 1
        pump.judge_again()
        pump.request()
        assert len(judged) == 2
        pump.service.router = Router.to(pump.cluster, pump.service.timeouts)
        pump.request()
        assert len(judged) == 3
        ids = {exchange_id(pump.accept().sent) for _ in range(5)}
        assert len(ids) == 5

    def test_client_in_front_of_us_says_whose_request_it_is(self) -> None:
        """A balancer sends those of many people on one connection; each stream has its own."""
        hop = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=True)
        pump = H2Pump(forwarding=Forwarding(b"", b"", hop, TrustedProxies(("192.0.2.0/24",))))
        one = fields(b"GET", b"/", (b"x-forwarded-for", b"203.0.113.9"), (b"x-request-id", b"one"))
        apps = [pump.starts(one)[1], pump.starts()[1]]
        for app in apps:
            pump.delivers(app, OK)
        assert [exchange.client for exchange in pump.log.exchanges] == ["203.0.113.9", ""]
        assert pump.log.exchanges[0].request_id == b"one"
        assert b"\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n" in apps[0].sent

    def test_each_stream_has_its_own_line(self) -> None:
        """What the access log remembers of a connection serves all its streams, and none gets the line of another."""
        pump = H2Pump()
        lines: list[str] = []
        pump.service.access_log = AccessLog(lines.append, AccessLogFormat.JSON)
        apps = [pump.starts(fields(path=path))[1] for path in (b"/a", b"/b", b"/a")]
        remembered: list[object] = []
        for app in apps:
            pump.delivers(app, OK)
            remembered.append(pump.downstream.logged)
        assert [json.loads(line)["path"] for line in lines] == ["/a", "/b", "/a"]
        assert remembered[0] is not None
        assert remembered == 3 * remembered[:1]

    def test_app_is_told_of_the_client_by_a_proxy_header_that_fits_its_connection(self) -> None:
        """It is spoken to in HTTP/1.1, so that is what the PROXY header says."""
        pump = H2Pump()
        pump.cluster.proxy_protocol = ProxyProtocolOut.V2
        pump.starts()
        (preface,) = pump.pool.prefaces
        assert b"http/1.1" in preface
        assert b"h2" not in preface


class TestRequestBodies:
    def test_pieces_go_on_as_they_come(self) -> None:
        """Framed as HTTP/1.1 frames what has no length; trailers stay behind it."""
        pump = H2Pump()
        stream_id, app = pump.starts(POST, b"ab", ends=False)
        pump.client_sends(frames.data(stream_id, b"cde"))
        assert body_of(app.sent) == b"2\r\nab\r\n3\r\ncde\r\n"
        pump.client_sends(frames.headers(stream_id, [(b"x-sum", b"5")]))
        assert body_of(app.sent).endswith(b"0\r\nx-sum: 5\r\n\r\n")

    def test_no_credit_while_there_is_no_connection(self) -> None:
        """What came is still here; it leaves, and is given credit for, once there is a connection."""
        pump, stream_id = uploading()
        pump.client_sends(body(stream_id, WINDOW))
        assert pump.credit == {}
        app = pump.accept()
        assert body_of(app.sent) == pattern(WINDOW)
        assert pump.credit[stream_id] == WINDOW

    def test_no_credit_while_the_app_does_not_read(self) -> None:
        """A client is not asked for more than the app takes."""
        pump, stream_id = uploading()
        app = pump.accept()
        app.stop_taking()
        pump.client_sends(body(stream_id, WINDOW))
        assert pump.credit == {}
        app.take()
        pump.settle()
        assert pump.credit[stream_id] == WINDOW

    def test_no_credit_where_the_app_reads_nothing_from_the_start(self) -> None:
        """That there is a connection is not yet progress: what is held stays within one window."""
        pump, stream_id = uploading()
        pump.client_sends(body(stream_id, WINDOW))
        pump.pool.stuck_from_the_start = True
        app = pump.accept()
        assert pump.credit == {}
        assert app.queued >= WINDOW
        app.take()
        pump.settle()
        assert pump.credit[stream_id] == WINDOW

    def test_more_than_the_window_is_a_fault(self) -> None:
        """So what a client can make us hold is bounded, whatever the app does."""
        pump, stream_id = uploading()
        pump.client_sends(body(stream_id, WINDOW) + frames.data(stream_id, b"x"))
        assert pump.goaways == [(stream_id, frames.FLOW_CONTROL_ERROR)]
        assert pump.last == Ended(0, "downstream_lost", "")

    @pytest.mark.parametrize("how", ["refused", "reset", "early answer", "timeout", "connecting timeout", "app reset"])
    def test_everything_is_given_back_when_it_ends_early(self, how: str) -> None:
        """Another stream can have the whole of the connection's window then."""
        pump, stream_id = uploading(http2=Http2Limits(connection_window=WINDOW, window_growth=1), timeouts=TIMEOUTS)
        if how in ("early answer", "timeout", "app reset"):
            pump.accept().stop_taking()
        pump.client_sends(body(stream_id, WINDOW))
        assert pump.credit == {}
        if how == "refused":
            pump.pool.refuse()
            pump.settle()
        elif how == "reset":
            pump.resets(stream_id)
        elif how == "early answer":
            pump.app_sends(OK)
        elif how == "timeout":
            pump.pass_time(40.1)
        elif how == "app reset":
            pump.app_resets()
        else:
            pump.pass_time(3.1)
        assert len(pump.log.ended) == 1
        assert pump.credit[0] == WINDOW
        other = pump.request((*POST, (b"content-length", b"%d" % WINDOW)), ends=False)
        while pump.pool.waiting:  # the first may still be for the one that ended
            app = pump.accept()
        pump.client_sends(body(other, WINDOW, ends=True))
        assert body_of(app.sent) == pattern(WINDOW)
        pump.delivers(app, OK)
        assert pump.answer(other).body == b"ok"

    def test_rest_of_an_answered_request_is_not_wanted(self) -> None:
        """The whole answer is given: the stream ends by RST_STREAM, NO_ERROR, behind it."""
        pump, stream_id = uploading()
        app = pump.accept()
        pump.delivers(app, OK)
        answer = pump.answer(stream_id)
        assert (answer.status, answer.body, answer.is_ended, answer.reset) == (200, b"ok", True, frames.NO_ERROR)
        assert app.is_closed
        pump.client_sends(body(stream_id, WINDOW))
        assert not pump.goaways
        assert pump.last == Ended(200, "", "")

    def test_credit_is_given_for_the_rest_of_an_answered_request(self) -> None:
        """Also while the client has no room for the answer: it may be one that sends all before it reads."""
        pump = H2Pump(NO_WINDOW)
        stream_id = pump.request(POST, b"x", ends=False)
        pump.delivers(pump.accept(), OK)
        assert pump.log.ended == [Ended(200, "", "")]
        pump.credit.clear()
        pump.client_sends(body(stream_id, WINDOW // 2, ends=False))
        assert pump.credit[stream_id] >= WINDOW // 2
        pump.gives(stream_id, 2)
        assert pump.answer(stream_id).is_whole

    def test_client_that_stops_gets_408_alone(self) -> None:
        """A body has its timeout between two pieces; other streams are not concerned."""
        pump = H2Pump(timeouts=TIMEOUTS)
        slow, _ = pump.starts(POST, b"a", ends=False)
        other, app = pump.starts()
        pump.pass_time(2.0)
        pump.client_sends(frames.data(slow, b"b"))
        pump.pass_time(2.9)
        assert not pump.answer(slow).status
        pump.pass_time(0.2)
        assert pump.answer(slow).status == 408
        assert pump.last.reason == "body_timeout"
        pump.delivers(app, OK)
        assert pump.answer(other).body == b"ok"

    @pytest.mark.parametrize("where", ["with the head", "later"])
    def test_faulty_body_is_logged_as_such(self, where: str) -> None:
        """A client that breaks its promise of a length is reset, and the log says why, however its bytes arrive."""
        pump = H2Pump()
        head = (*POST, (b"content-length", b"2"))
        if where == "later":
            stream_id, app = pump.starts(head, ends=False)
            pump.client_sends(frames.data(stream_id, b"abc"))
            assert app.is_closed
        else:
            stream_id = pump.request(head, b"abc")
        assert pump.answer(stream_id).reset == frames.PROTOCOL_ERROR
        assert pump.last.reason == "bad_content_length"
        assert pump.service.metrics.requests == 1


class TestSmallWindows:
    def trailing(self) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
        )

    def test_byte_by_byte(self) -> None:
        """The head needs no room; each byte goes when there is some; trailers and the end come last."""
        pump = H2Pump(NO_WINDOW)
        stream_id, app = pump.starts((*fields(), (b"te", b"trailers")))
        pump.delivers(app, self.trailing())
        answer = pump.answer(stream_id)
        assert (answer.status, answer.body, answer.is_ended) == (200, b"", False)
        assert pump.log.ended == [Ended(200, "", "")], "the app is done"
        for count in range(1, 6):
            assert answer.trailers is None
            pump.gives(stream_id, 1)
            assert answer.body == b"abcde"[:count]
        assert answer.trailers == {b"x-sum": b"5"}
        assert answer.is_whole
        assert answer.reset is None
        assert pump.downstream.is_idle

    def test_end_without_trailers_comes_with_the_last_byte(self) -> None:
        """Nothing is left to wait for."""
        pump = H2Pump(NO_WINDOW)
        stream_id, app = pump.starts()
        pump.delivers(app, OK)
        pump.gives(stream_id, 1)
        assert not pump.answer(stream_id).is_ended
        pump.gives(stream_id, 1)
        assert pump.answer(stream_id).is_whole
        assert pump.seen[-1].payload == b"k"

    def test_empty_body_needs_no_room(self) -> None:
        """Neither does its end, nor trailers."""
        pump = H2Pump(NO_WINDOW)
        stream_id, app = pump.starts()
        pump.delivers(app, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert pump.answer(stream_id).is_whole

    def test_end_that_comes_alone_needs_no_room(self) -> None:
        """A chunked response may end long after its last byte."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 3))
        stream_id, app = pump.starts()
        pump.delivers(app, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        pump.delivers(app, b"0\r\n\r\n")
        assert pump.answer(stream_id).body == b"abc"
        assert pump.answer(stream_id).is_whole

    def test_window_of_the_connection_is_everybodys(self) -> None:
        """Who gets it first has it; more of it wakes all that wait."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 10 * WINDOW))
        one, first = pump.starts()
        two, second = pump.starts()
        pump.delivers(first, response(FIRST_WINDOW + 10))
        pump.delivers(second, response(10))
        assert pump.answer(one).body == pattern(FIRST_WINDOW)
        assert (pump.answer(two).status, pump.answer(two).body) == (200, b"")
        pump.gives(one, 100)
        assert len(pump.answer(one).body) == FIRST_WINDOW, "its own window was not what is full"
        pump.gives(0, 100)
        assert pump.answer(one).body == pattern(FIRST_WINDOW + 10)
        assert pump.answer(two).body == pattern(10)
        assert pump.answer(one).is_whole
        assert pump.answer(two).is_whole

    def test_settings_may_open_windows(self) -> None:
        """Of all streams at once (RFC 9113 section 6.9.2)."""
        pump = H2Pump(NO_WINDOW)
        stream_id, app = pump.starts()
        pump.delivers(app, OK)
        pump.client_sends(frames.settings((frames.INITIAL_WINDOW_SIZE, 100)))
        assert pump.answer(stream_id).body == b"ok"

    def test_app_waits_for_the_client(self) -> None:
        """What is held of a response is what had come when its window was full."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 10))
        stream_id, app = pump.starts()
        pump.delivers(app, response(100)[:-60])
        assert not app.is_reading
        pump.gives(stream_id, 5)
        assert not app.is_reading
        pump.gives(stream_id, 95)
        assert app.is_reading
        pump.delivers(app, pattern(100)[40:])
        assert pump.answer(stream_id).body == pattern(100)

    def test_connection_to_the_app_is_free_as_soon_as_it_is_done(self) -> None:
        """A client that reads slowly keeps none of the app's workers."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 10))
        stream_id, app = pump.starts()
        pump.delivers(app, response(1000))
        assert len(pump.pool.idle) == 1
        assert app.is_reading
        assert not pump.downstream.is_idle
        pump.gives(stream_id, 1000)
        assert pump.answer(stream_id).is_whole

    @pytest.mark.parametrize("is_whole", [False, True], ids=["app not done", "app done"])
    def test_client_that_takes_nothing_is_cut_alone(self, is_whole: bool) -> None:
        """Its stream ends with CANCEL at the body timeout, and others go on."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 10), timeouts=TIMEOUTS)
        (stalled, app), (other, second) = pump.starts(), pump.starts()
        pump.delivers(app, response(100)[: None if is_whole else -10])
        pump.pass_time(2.9)
        assert pump.answer(stalled).reset is None
        pump.pass_time(0.2)
        assert pump.answer(stalled).reset == frames.CANCEL
        assert app.is_closed is not is_whole
        assert pump.log.ended == [Ended(200, "" if is_whole else "downstream_stalled", "")]
        pump.delivers(second, OK)
        assert pump.answer(other).body == b"ok"
        assert not pump.tls.ending

    @pytest.mark.parametrize("is_whole", [False, True], ids=["app not done", "app done"])
    def test_client_that_takes_some_is_kept(self, is_whole: bool) -> None:
        """As long as it takes enough between two looks."""
        pump = H2Pump(NO_WINDOW, timeouts=TIMEOUTS)
        stream_id, app = pump.starts()
        pump.delivers(app, response(60_000)[: None if is_whole else -1000])
        for _ in range(10):
            pump.gives(stream_id, MIN_PROGRESS_BYTES)
            pump.pass_time(3.1)
            assert pump.answer(stream_id).reset is None
        pump.gives(stream_id, MIN_PROGRESS_BYTES - 1)
        pump.pass_time(3.1)
        assert pump.answer(stream_id).reset == frames.CANCEL

    def test_what_was_taken_long_ago_is_no_progress(self) -> None:
        """A stream that has flowed well has the same time as any other when it stalls."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 50_000), timeouts=TIMEOUTS)
        stream_id, app = pump.starts()
        pump.delivers(app, response(60_000)[:40_000])
        pump.delivers(app, pattern(60_000)[39_960:-1000])
        pump.pass_time(3.1)
        assert pump.answer(stream_id).reset == frames.CANCEL

    def test_reply_of_ours_waits_for_room_too(self) -> None:
        """And is given up like any other."""
        pump = H2Pump(NO_WINDOW, timeouts=TIMEOUTS)
        stream_id = pump.request()
        pump.pool.refuse()
        pump.settle()
        assert pump.answer(stream_id).status == 502
        assert not pump.answer(stream_id).is_ended
        pump.pass_time(3.1)
        assert pump.answer(stream_id).reset == frames.CANCEL
        assert pump.log.ended == [Ended(502, "upstream_connect_refused", "Connection refused")]


class TestResponseHeads:
    @pytest.mark.parametrize(
        ("method", "sent", "status"),
        [
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
            (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 5\r\n\r\n', 304),
            (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ],
        ids=["HEAD", "204", "304", "empty"],
    )
    def test_response_without_a_body_ends_with_its_head(self, method: bytes, sent: bytes, status: int) -> None:
        """One frame says it all; what it says of a body that GET would have stays."""
        pump = H2Pump()
        stream_id, app = pump.starts(fields(method))
        before = len(pump.seen)
        pump.delivers(app, sent)
        assert [(frame.kind, frame.flags) for frame in pump.seen[before:]] == [(frames.HEADERS, frames.WHOLE)]
        answer = pump.answer(stream_id)
        assert answer.status == status
        assert (b"content-length" in answer.fields) is (b"Content-Length" in sent)
        assert pump.downstream.is_idle

    def test_interim_heads_come_first(self) -> None:
        """100 and 103 as the app sends them, without what belongs to its connection."""
        pump = H2Pump()
        stream_id, app = pump.starts((*POST, (b"expect", b"100-continue")), ends=False)
        pump.delivers(app, b"HTTP/1.1 100 Continue\r\n\r\n")
        assert pump.answer(stream_id).interim == [100]
        pump.client_sends(frames.data(stream_id, b"abc", frames.END_STREAM))
        pump.delivers(app, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n" + OK)
        answer = pump.answer(stream_id)
        assert answer.interim == [100, 103]
        assert (answer.status, answer.body) == (200, b"ok")

    @pytest.mark.parametrize(
        "sent",
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nok",
        ],
        ids=["chunked", "until close"],
    )
    def test_framing_of_the_app_is_its_own_affair(self, sent: bytes) -> None:
        """HTTP/2 has its own, and no fields about connections."""
        pump = H2Pump()
        stream_id, app = pump.starts()
        pump.delivers(app, sent)
        if sent.startswith(b"HTTP/1.0"):
            app.deliver_eof()
            pump.settle()
        answer = pump.answer(stream_id)
        assert (answer.status, answer.body, answer.is_whole, answer.fields) == (200, b"ok", True, {})

    def test_trailers_that_are_all_dropped_end_the_stream(self) -> None:
        """What may not be in trailers is not; the end comes all the same."""
        pump = H2Pump()
        stream_id, app = pump.starts()
        pump.delivers(
            app,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 5\r\n\r\n",
        )
        assert pump.answer(stream_id).trailers is None
        assert pump.answer(stream_id).is_whole

    def test_log_says_what_the_client_spoke(self) -> None:
        """And how much went over."""
        pump = H2Pump()
        pump.delivers(pump.starts(POST, b"abc")[1], OK)
        (exchange,) = pump.log.exchanges
        assert (exchange.protocol, exchange.bytes_sent, exchange.bytes_received) == ("HTTP/2", 2, 3)


class TestClientResets:
    def test_while_connecting(self) -> None:
        """The connection that is made for nobody is kept for somebody else."""
        pump = H2Pump()
        stream_id = pump.request()
        pump.resets(stream_id)
        assert pump.log.ended == [Ended(0, "downstream_reset", "the client reset the stream, code 8")]
        app = pump.accept()
        assert app.sent == b""
        assert len(pump.pool.idle) == 1

    @pytest.mark.parametrize("sent", [b"", OK[:-1]], ids=["waiting", "streaming"])
    def test_cancels_the_request(self, sent: bytes) -> None:
        """The app sees its connection cut, and other streams nothing."""
        pump = H2Pump()
        stream_id, app = pump.starts()
        other, second = pump.starts()
        if sent:
            pump.delivers(app, sent)
        pump.resets(stream_id)
        assert app.is_closed
        assert pump.last == Ended(200 if sent else 0, "downstream_reset", "the client reset the stream, code 8")
        pump.delivers(second, OK)
        assert pump.answer(other).body == b"ok"
        assert len(pump.log.ended) == 2

    def test_while_the_rest_of_a_response_waits(self) -> None:
        """The exchange is over already; nothing is recorded again."""
        pump = H2Pump(NO_WINDOW)
        stream_id, app = pump.starts()
        pump.delivers(app, OK)
        pump.resets(stream_id)
        assert pump.log.ended == [Ended(200, "", "")]
        assert pump.downstream.is_idle

    def test_in_the_same_bytes_costs_the_app_nothing(self) -> None:
        """It is counted and never looked at."""
        pump = H2Pump()
        pump.request(then=frames.rst_stream(1))
        assert not pump.pool.waiting
        assert pump.service.metrics.requests == 1
        assert pump.service.metrics.reasons == {"downstream_reset": 1}
        assert pump.downstream.is_idle


class TestAppFailures:
    def test_before_the_head_gets_502(self) -> None:
        """As HTTP/1.1, in a whole response; the connection goes on."""
        pump = H2Pump()
        stream_id, app = pump.starts()
        app.deliver_eof()
        pump.settle()
        answer = pump.answer(stream_id)
        assert (answer.status, answer.is_whole) == (502, True)
        assert answer.body == b"The app behind this proxy closed the connection without a response.\n"
        assert pump.last.reason == "upstream_reset"
        assert not pump.tls.ending

    @pytest.mark.parametrize(
        ("then", "reason"),
        [
            (lambda pump: pump.app_resets(), "upstream_reset"),
            (lambda pump: pump.app_closes(), "upstream_reset"),
            (lambda pump: pump.pass_time(50.1), "upstream_stalled"),
        ],
        ids=["reset", "closed", "stalled"],
    )
    def test_inside_a_response_resets_the_stream(self, then: Any, reason: str) -> None:
        """What is not whole must not look whole; other streams go on."""
        pump = H2Pump(timeouts=TIMEOUTS)
        other, second = pump.starts((*POST, (b"content-length", b"3")), b"abc")
        pump.delivers(second, response(100)[:-50])
        stream_id, app = pump.starts()
        pump.pass_time(30.0)
        pump.delivers(second, pattern(100)[50:-10])
        pump.delivers(app, OK[:-1])
        then(pump)
        answer = pump.answer(stream_id)
        assert (answer.status, answer.is_ended, answer.reset) == (200, False, frames.INTERNAL_ERROR)
        assert Ended(200, reason, pump.last.detail) == pump.last
        if reason != "upstream_stalled":
            pump.delivers(second, pattern(100)[90:])
            assert pump.answer(other).body == pattern(100)

    def test_grpc_call_that_breaks_off_ends_with_a_status(self) -> None:
        """A client makes it again if it likes; RST_STREAM would be a bug of the app to it."""
        pump = H2Pump()
        stream_id, app = pump.starts(GRPC, b"abc")
        pump.delivers(app, GRPC_ANSWER[:-1])
        pump.app_resets()
        answer = pump.answer(stream_id)
        assert (answer.status, answer.is_ended) == (200, True)
        assert answer.trailers[b"grpc-status"] == b"14"
        assert b"(upstream_reset)" in answer.trailers[b"grpc-message"]
        assert pump.last.reason == "upstream_reset"
        assert pump.log.exchanges[-1].grpc_status == "14"
        assert pump.service.metrics.grpc_calls == {"14": 1}

    def test_grpc_call_whose_client_takes_nothing_is_reset(self) -> None:
        """There is no room for a status."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 1), timeouts=TIMEOUTS)
        stream_id, app = pump.starts(GRPC, b"abc")
        pump.delivers(app, GRPC_ANSWER.replace(b": 2", b": 9"))
        pump.pass_time(3.1)
        assert pump.answer(stream_id).reset == frames.CANCEL

    def test_nonsense_behind_a_head_resets_the_stream(self) -> None:
        """A chunk that is none."""
        pump = H2Pump()
        stream_id, app = pump.starts()
        pump.delivers(app, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        pump.delivers(app, b"zz\r\n")
        assert pump.answer(stream_id).reset == frames.INTERNAL_ERROR
        assert pump.last.reason == "upstream_invalid_response"

    def test_silence_gets_504(self) -> None:
        """At the upstream timeout of its own stream."""
        pump = H2Pump(timeouts=TIMEOUTS)
        first, _ = pump.starts()
        pump.pass_time(10)
        second, _ = pump.starts()
        pump.pass_time(30.1)
        assert pump.answer(first).status == 504
        assert not pump.answer(second).status
        pump.pass_time(10)
        assert pump.answer(second).status == 504

    def test_failure_while_the_client_takes_nothing_is_told_once_it_does(self) -> None:
        """The connection is full of other streams' answers: that is no reason to hide what became of this one."""
        pump = H2Pump((frames.INITIAL_WINDOW_SIZE, 2**20))
        pump.gives(0, 2**20)
        _, first = pump.starts()
        stream_id, second = pump.starts()
        pump.tls.stop_taking()
        pump.delivers(first, response(1000)[:-1])
        assert pump.downstream.is_full
        second.reset()
        pump.settle()
        pump.tls.take()
        pump.settle()
        assert pump.answer(stream_id).status == 502
        assert pump.answer(stream_id).is_whole
        assert pump.last.status == 502


def route(path: str, action: ToCluster | Redirect | DirectResponse, **more: Any) -> Route:
    """A route for a prefix, named by it."""
    return Route(name=path, match=RouteMatch(path=path), action=action, **more)


APP = ToCluster(cluster="app")
HELLO = DirectResponse(status=200, body="hello\n")


def routed(*routes: Route, **pump: Any) -> H2Pump:
    """A client of a listener with *routes*."""
    made = H2Pump(**pump)
    client = ClientSettings(cert=ClientCertMode.NONE)
    hosts = [VirtualHost(name="web", domains=("*",), routes=routes)]
    made.service.router = Router.compile(hosts, {"app": made.cluster}, made.service.timeouts, default_rule(client))
    made.judge_again(access_of(client, "test", made.service.router.rules).admit(NO_CERTIFICATE))
    return made


class TestRefusals:
    EXEMPT = ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz",)))

    def test_refused_client_gets_a_readable_answer(self) -> None:
        """Each request of it, and the connection goes on: another may be for an exempt path."""
        pump = H2Pump(admission=access_of(self.EXEMPT, "test").admit(NO_CERTIFICATE))
        stream_id = pump.request(fields(path=b"/secret"))
        assert pump.answer(stream_id).status == 400
        assert pump.answer(stream_id).is_whole
        assert pump.last == Ended(400, "client_certificate_missing", "rule default: the client showed no certificate")
        assert not pump.pool.waiting
        (event,) = pump.service.rejecter.rejections.as_json()
        assert (event["reason"], event["answer"]) == ("client_certificate_missing", "400")
        exempt, app = pump.starts(fields(path=b"/healthz"))
        pump.delivers(app, OK)
        assert pump.answer(exempt).body == b"ok"

    def test_client_that_is_somebody_else_gets_403(self) -> None:
        """Its certificate is good, and not for this."""
        web = Presented(identity_of(authority().issue("web.example", purposes=CLIENT).certificate))
        client = ClientSettings(cert=REQUIRED, allow=MatcherText("dns=ci.example"))
        pump = H2Pump(admission=access_of(client, "test").admit(web))
        stream_id = pump.request()
        assert pump.answer(stream_id).status == 403
        assert pump.last.reason == "client_not_authorized"

    def test_no_route(self) -> None:
        """404, and the connection goes on."""
        pump = routed(route("/shop/", APP))
        stream_id = pump.request()
        answer = pump.answer(stream_id)
        assert (answer.status, answer.body) == (404, b"No route of this proxy leads to what was asked for.\n")
        assert answer.is_whole
        assert pump.last == Ended(404, "no_route", "")
        assert pump.downstream.is_idle
        assert not pump.tls.ending

    @pytest.mark.parametrize("method", [b"GET", b"HEAD"], ids=bytes.decode)
    def test_answers_of_routes(self, method: bytes) -> None:
        """Whole, and with the fields alone for HEAD."""
        pump = routed(route("/hello", HELLO), route("/old", Redirect(path="/new", status=302)))
        hello, old = pump.request(fields(method, b"/hello")), pump.request(fields(method, b"/old"))
        assert pump.answer(hello).fields == {
            b"content-type": b"text/plain; charset=utf-8",
            b"content-length": b"6",
        }
        assert pump.answer(hello).body == (b"hello\n" if method == b"GET" else b"")
        assert pump.answer(old).status == 302
        assert pump.answer(old).fields[b"location"] == b"https://a.example/new"
        assert pump.answer(hello).is_whole
        assert pump.answer(old).is_whole
        assert pump.log.exchanges[0].bytes_sent == len(pump.answer(hello).body)
        assert [ended.reason for ended in pump.log.ended] == ["direct_response", "redirect"]

    def test_body_of_a_request_that_is_answered_here_is_nobodys(self) -> None:
        """The client is told by RST_STREAM, NO_ERROR, that it need not go on, and the window is whole again."""
        pump = routed(route("/", HELLO), http2=Http2Limits(connection_window=WINDOW, window_growth=1))
        for _ in range(5):
            stream_id = pump.request(POST, b"a" * 16_000, ends=False)
            assert pump.answer(stream_id).reset == frames.NO_ERROR
            assert pump.answer(stream_id).is_whole
        assert not pump.goaways

    def test_request_for_another_host_gets_421(self) -> None:
        """Where hosts differ, a connection that was made for one of them is no way to another."""
        pump = H2Pump()
        other = FakeCluster(FakePool(pump.clock), name="other")
        hosts = [
            VirtualHost(name=name, domains=(domain,), routes=(route("/", ToCluster(cluster=name)),))
            for name, domain in (("app", "localhost"), ("other", "a.example"))
        ]
        clusters = {"app": pump.cluster, "other": other}
        rule = default_rule(ClientSettings(cert=ClientCertMode.NONE))
        pump.service.router = Router.compile(hosts, clusters, pump.service.timeouts, rule)
        stream_id = pump.request()
        assert pump.answer(stream_id).status == 421
        assert pump.last.reason == "misdirected_request"
        assert not pump.tls.ending
        right = [*frames.GET[:2], (b":authority", b"localhost"), frames.GET[3]]
        stream_id, app = pump.starts(right)
        pump.delivers(app, OK)
        assert pump.answer(stream_id).body == b"ok"

    def test_program_gets_json(self) -> None:
        """Where it accepts it."""
        pump = H2Pump()
        stream_id = pump.request((*fields(), (b"accept", b"application/json")))
        pump.pool.refuse()
        pump.settle()
        said = json.loads(pump.answer(stream_id).body)
        assert (said["status"], said["reason"]) == (502, "upstream_connect_refused")

    def test_grpc_client_gets_its_own_kind(self) -> None:
        """200, and in the same frame its status and why."""
        pump = H2Pump()
        stream_id = pump.request(GRPC, b"\0\0\0\0\0")
        pump.pool.refuse()
        pump.settle()
        answer = pump.answer(stream_id)
        assert (answer.status, answer.is_whole, answer.body) == (200, True, b"")
        assert answer.fields[b"grpc-status"] == b"14"
        assert b"upstream_connect_refused" in answer.fields[b"grpc-message"]
        assert pump.last == Ended(200, "upstream_connect_refused", "Connection refused")

    def test_grpc_client_without_a_route_too(self) -> None:
        """12: there is no such method."""
        pump = routed(route("/shop/", APP))
        stream_id = pump.request(GRPC, b"")
        assert pump.answer(stream_id).fields[b"grpc-status"] == b"12"
        assert pump.last == Ended(200, "no_route", "")

    def test_underscore_is_refused_where_told_to(self) -> None:
        """A request that is refused by a setting does not end the connection."""
        pump = H2Pump(http=HttpSettings(underscore_headers=UnderscoreHeaders.REJECT))
        bad = (*fields(), (b"user_id", b"1"))
        for _ in range(2):
            stream_id = pump.request(bad)
            assert pump.answer(stream_id).status == 400
            assert b"'user_id'" in pump.answer(stream_id).body
            assert pump.last.reason == "underscore_in_name"
        assert not pump.tls.ending

    @pytest.mark.parametrize(
        ("head", "status", "reason"),
        [
            (fields(b"GET", b"/", (b"x", b"a" * 70_000)), 431, "header_too_large"),
            (fields(b"GET", b"/" + b"a" * 20_000), 414, "uri_too_long"),
        ],
        ids=["431", "414"],
    )
    def test_head_that_is_refused_is_answered(self, head: list[frames.Field], status: int, reason: str) -> None:
        """With the status that says why; the rest of the connection is not concerned."""
        pump = H2Pump()
        block = frames.block(head)
        cuts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        data = frames.frame(frames.HEADERS, frames.END_STREAM, 1, cuts[0])
        for number, piece in enumerate(cuts[1:], 2):
            data += frames.frame(frames.CONTINUATION, frames.END_HEADERS if number == len(cuts) else 0, 1, piece)
        pump.client_sends(data)
        assert pump.answer(1).status == status
        assert pump.answer(1).is_whole
        assert pump.last.status == status
        assert pump.last.reason == reason
        pump.next_id = 3
        stream_id, app = pump.starts()
        pump.delivers(app, OK)
        assert pump.answer(stream_id).body == b"ok"

    @pytest.mark.parametrize(
        "head",
        [
            [(b":method", b"GET")],
            [*fields(), (b"Upper", b"x")],
            [*fields(), (b"connection", b"close")],
            [*fields(), (b"x", b"a\r\nb")],
            [(b"host", b"b.example"), *fields()],
        ],
        ids=["no path", "upper case", "connection", "CR LF", "pseudo after regular"],
    )
    def test_malformed_head_is_no_request(self, head: list[frames.Field]) -> None:
        """Its stream is reset, and the log says why."""
        pump = H2Pump()
        stream_id = pump.request(head)
        assert pump.answer(stream_id).reset == frames.PROTOCOL_ERROR
        assert not pump.answer(stream_id).status
        (ended,) = pump.log.ended
        assert ended.status == 0
        assert ended.reason
        assert ended.detail
        assert pump.service.metrics.requests == 1
        assert pump.downstream.requests == 1
        assert not pump.pool.waiting


class TestMaxBody:
    LIMITS = Limits(body_bytes=ByteCount(4))

    def test_announced_body_over_the_limit_gets_413(self) -> None:
        """Nothing of such a request reaches the app."""
        pump = H2Pump(limits=self.LIMITS)
        stream_id = pump.request((*POST, (b"content-length", b"5")), ends=False)
        assert pump.answer(stream_id).status == 413
        assert pump.answer(stream_id).is_whole
        assert pump.last == Ended(413, "body_too_large", "")
        assert not pump.pool.waiting
        assert not pump.tls.ending

    @pytest.mark.parametrize("pieces", [(b"abcd", b"e"), (b"abcde",)], ids=["two", "one"])
    def test_sum_over_the_limit_gets_413(self, pieces: tuple[bytes, ...]) -> None:
        """The app gets what was within the limit, and sees its connection cut instead of an end."""
        pump = H2Pump(limits=self.LIMITS)
        stream_id = pump.request(POST, pieces[0], ends=False)
        if len(pieces) > 1:
            app = pump.accept()
            pump.client_sends(frames.data(stream_id, pieces[1], frames.END_STREAM))
            assert app.is_closed
            assert body_of(app.sent) == b"4\r\nabcd\r\n"
        assert pump.answer(stream_id).status == 413
        assert pump.last.reason == "body_too_large"

    def test_limit_itself_is_allowed(self) -> None:
        """Byte for byte."""
        pump = H2Pump(limits=self.LIMITS)
        stream_id, app = pump.starts((*POST, (b"content-length", b"4")), b"abcd")
        pump.delivers(app, OK)
        assert pump.answer(stream_id).body == b"ok"

    def test_response_that_has_begun_is_cut(self) -> None:
        """It is too late for another status."""
        pump = H2Pump(limits=self.LIMITS)
        stream_id, app = pump.starts(POST, b"abcd", ends=False)
        pump.delivers(app, OK[:-1])
        pump.client_sends(frames.data(stream_id, b"e"))
        assert pump.answer(stream_id).reset == frames.CANCEL
        assert pump.last == Ended(200, "body_too_large", "")

    def test_grpc_client_is_told_in_its_own_way(self) -> None:
        """8: over a limit."""
        pump = H2Pump(limits=self.LIMITS)
        stream_id = pump.request(GRPC, b"abcde")
        assert pump.answer(stream_id).fields[b"grpc-status"] == b"8"


class TestWebSocket:
    def test_end_of_the_app_waits_for_room(self) -> None:
        """A reset in its place would be a broken tunnel, of which the client may drop what it has not read."""
        pump, app = self.opened()
        pump.tls.stop_taking()
        app.deliver(b"x" * 1000)
        pump.settle()
        app.deliver_eof()
        pump.settle()
        pump.tls.take()
        pump.settle()
        answer = pump.answer(1)
        assert (answer.body, answer.is_ended) == (b"x" * 1000, True)

    def asked(self, *pairs: tuple[int, int], then: bytes = b"", **pump: Any) -> tuple[H2Pump, RecordingTransport]:
        """A client that has asked for a tunnel, and a connection to the app."""
        made = H2Pump(*pairs, **pump)
        made.credit.clear()
        made.request(frames.WEBSOCKET, ends=False, then=then)
        return made, made.accept()

    def opened(self, *pairs: tuple[int, int], **pump: Any) -> tuple[H2Pump, RecordingTransport]:
        """The same with the app having agreed."""
        made, app = self.asked(*pairs, **pump)
        app.sent = b""
        made.delivers(app, SWITCHING)
        assert made.answer(1).status == 200
        return made, app

    def test_app_sees_an_upgrade_and_the_client_200(self) -> None:
        """RFC 8441: what is 101 there is 200 here."""
        pump, app = self.asked()
        assert app.sent.startswith(b"GET /chat HTTP/1.1\r\n")
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in app.sent
        assert b"\r\nsec-websocket-key: " in app.sent.lower()
        pump.delivers(app, SWITCHING)
        answer = pump.answer(1)
        assert (answer.status, answer.is_ended, answer.reset) == (200, False, None)
        assert b"upgrade" not in answer.fields
        assert pump.log.ended == [Ended(101, "", "")]
        assert pump.downstream.doing == "request"

    def test_bytes_go_both_ways(self) -> None:
        """As they come."""
        pump, app = self.opened()
        pump.client_sends(frames.data(1, b"ping"))
        assert app.sent == b"ping"
        pump.delivers(app, b"pong")
        assert pump.answer(1).body == b"pong"

    def test_first_bytes_of_the_app_may_come_with_its_101(self) -> None:
        """They are the tunnel's."""
        pump, app = self.asked()
        pump.delivers(app, SWITCHING + b"hello")
        assert (pump.answer(1).status, pump.answer(1).body) == (200, b"hello")
        assert not pump.answer(1).is_ended

    def test_what_the_client_sends_ahead_waits_for_the_101(self) -> None:
        """An app that says no must not take it for another request."""
        pump, app = self.asked(then=frames.data(1, b"one"))
        head = app.sent
        assert head.endswith(b"\r\n\r\n")
        pump.client_sends(frames.data(1, b"two"))
        assert app.sent == head
        pump.delivers(app, SWITCHING)
        assert app.sent == head + b"onetwo"

    @pytest.mark.parametrize("when", ["while connecting", "before the 101"])
    def test_what_is_held_ahead_is_one_window(self, when: str) -> None:
        """That there is a connection to the app does not make room: it has taken none of it."""
        pump = H2Pump()
        pump.credit.clear()
        pump.request(frames.WEBSOCKET, ends=False)
        if when == "while connecting":
            pump.client_sends(body(1, WINDOW))
            app = pump.accept()
        else:
            app = pump.accept()
            pump.client_sends(body(1, WINDOW))
        assert pump.credit == {}
        pump.delivers(app, SWITCHING)
        assert app.sent.endswith(pattern(WINDOW))
        assert pump.credit[1] == WINDOW

    def test_app_that_reads_nothing_of_it_makes_no_room_either(self) -> None:
        """Not even by its 101."""
        pump, app = self.asked()
        pump.client_sends(body(1, WINDOW))
        app.stop_taking()
        pump.delivers(app, SWITCHING)
        assert pump.credit == {}
        app.take()
        pump.settle()
        assert pump.credit[1] == WINDOW

    def test_client_is_held_back_by_the_app(self) -> None:
        """And goes on when the app does."""
        pump, app = self.opened()
        app.stop_taking()
        pump.client_sends(body(1, WINDOW))
        assert pump.credit == {}
        app.take()
        pump.settle()
        assert pump.credit[1] == WINDOW
        assert app.sent == pattern(WINDOW)

    def test_app_is_held_back_by_the_client(self) -> None:
        """By its window."""
        pump, app = self.opened((frames.INITIAL_WINDOW_SIZE, 10))
        pump.delivers(app, pattern(100))
        assert not app.is_reading
        pump.gives(1, 90)
        assert app.is_reading
        assert pump.answer(1).body == pattern(100)

    def test_client_that_takes_nothing_is_cut(self) -> None:
        """At the body timeout."""
        pump, app = self.opened((frames.INITIAL_WINDOW_SIZE, 10), timeouts=TIMEOUTS)
        pump.delivers(app, pattern(100))
        pump.pass_time(3.1)
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed

    def test_silence_ends_it(self) -> None:
        """At the stream timeout, counted from the last byte of either side."""
        pump, app = self.opened(timeouts=TIMEOUTS)
        pump.pass_time(49)
        pump.client_sends(frames.data(1, b"x"))
        pump.pass_time(49)
        assert not app.is_closed
        pump.pass_time(2)
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed

    def test_client_that_has_said_all_can_still_hear(self) -> None:
        """END_STREAM is its half-close; the app's end is the end of all."""
        pump, app = self.opened()
        pump.client_sends(frames.data(1, b"bye", frames.END_STREAM))
        assert app.sent == b"bye"
        assert app.calls == ["shut_down_writing"]
        pump.delivers(app, b"farewell")
        app.deliver_eof()
        pump.settle()
        answer = pump.answer(1)
        assert (answer.body, answer.is_ended, answer.reset) == (b"farewell", True, None)
        assert pump.downstream.is_idle

    def test_client_that_has_said_all_before_the_101(self) -> None:
        """The app gets it, and the end behind it."""
        pump, app = self.asked(then=frames.data(1, b"bye", frames.END_STREAM))
        pump.delivers(app, SWITCHING)
        assert app.sent.endswith(b"bye")
        assert app.calls == ["shut_down_writing"]

    def test_app_that_ends_ends_it(self) -> None:
        """The client gets what is under way and the end, and need not send more."""
        pump, app = self.opened((frames.INITIAL_WINDOW_SIZE, 2))
        pump.delivers(app, b"last")
        pump.gives(1, 1)
        app.is_reading = True
        pump.delivers(app, b"!")
        app.deliver_eof()
        pump.settle()
        assert not pump.answer(1).is_ended
        pump.gives(1, 10)
        answer = pump.answer(1)
        assert (answer.body, answer.is_ended, answer.reset) == (b"last!", True, frames.NO_ERROR)
        assert pump.downstream.is_idle

    def test_app_that_breaks_cuts_it(self) -> None:
        """What the client has may not be all."""
        pump, app = self.opened()
        app.reset()
        pump.settle()
        assert pump.answer(1).reset == frames.CANCEL
        assert not pump.answer(1).is_ended

    def test_client_that_resets_cuts_the_app(self) -> None:
        """It is recorded once."""
        pump, app = self.opened()
        pump.resets(1)
        assert app.is_closed
        assert pump.log.ended == [Ended(101, "", "")]
        assert pump.downstream.is_idle

    def test_app_that_says_no_is_heard(self) -> None:
        """An ordinary answer to an ordinary request; what was sent ahead is nobody's."""
        pump, app = self.asked(then=frames.data(1, b"ahead"))
        pump.delivers(app, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        answer = pump.answer(1)
        assert (answer.status, answer.body, answer.is_whole) == (403, b"no", True)
        assert b"ahead" not in app.sent
        assert pump.last == Ended(403, "", "")

    def test_app_that_takes_no_notice_gets_the_client_502(self) -> None:
        """Its 200 would look like a tunnel."""
        pump, app = self.asked()
        pump.delivers(app, OK)
        answer = pump.answer(1)
        assert (answer.status, answer.is_whole) == (502, True)
        assert app.is_closed
        assert pump.last.reason == "upstream_invalid_response"
        assert "upgrade_ignored" in pump.last.detail

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (frames.WEBSOCKET, HELLO),
            (frames.WEBSOCKET, DirectResponse(status=204)),
            ((*frames.WEBSOCKET, (b"content-type", b"application/grpc")), None),
        ],
        ids=["direct 200", "direct 204", "gRPC without a route"],
    )
    def test_success_of_ours_never_looks_like_a_tunnel(
        self, head: tuple[frames.Field, ...], answer: DirectResponse | None
    ) -> None:
        """A 2xx to an extended CONNECT says that there is one (RFC 8441 section 5), so there is none."""
        pump = routed(route("/chat", answer) if answer is not None else route("/other", APP))
        stream_id = pump.request(head, ends=False)
        assert pump.answer(stream_id).status >= 400
        assert pump.answer(stream_id).is_whole
        (ended,) = pump.log.ended
        assert ended.status == pump.answer(stream_id).status
        assert pump.downstream.is_idle

    def test_failure_of_the_app_is_no_tunnel_for_a_grpc_client_either(self) -> None:
        """Whatever it says its content is."""
        pump = H2Pump()
        stream_id = pump.request((*frames.WEBSOCKET, (b"content-type", b"application/grpc")), ends=False)
        pump.pool.refuse()
        pump.settle()
        assert pump.answer(stream_id).status == 502
        assert pump.log.ended[0].status == 502

    def test_client_that_may_not_come_in_any_more_is_cut(self) -> None:
        """It will send no further request that could be refused."""
        pump, app = self.opened()
        pump.judge_again()
        assert pump.answer(1).reset is None
        pump.judge_again(access_of(ClientSettings(cert=REQUIRED), "test").admit(NO_CERTIFICATE))
        pump.settle()
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed
        assert len(pump.service.rejecter.rejections.as_json()) == 1

    def test_path_that_has_become_ambiguous_is_cut(self) -> None:
        """Under new rules nobody could say which of them holds for it."""
        pump = H2Pump()
        head = [field if field[0] != b":path" else (b":path", b"/a%2f..%2fb") for field in frames.WEBSOCKET]
        pump.request(head, ends=False)
        app = pump.accept()
        pump.delivers(app, SWITCHING)
        assert pump.answer(1).reset is None
        pump.judge_again(access_of(TestRefusals.EXEMPT, "test").admit(NO_CERTIFICATE))
        pump.settle()
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed

    def test_client_that_was_let_in_too_early_gets_no_tunnel(self) -> None:
        """The app took its time, and rules changed meanwhile."""
        pump, app = self.asked()
        pump.judge_again(access_of(ClientSettings(cert=REQUIRED), "test").admit(NO_CERTIFICATE))
        pump.delivers(app, SWITCHING)
        assert pump.answer(1).reset == frames.CANCEL
        assert app.is_closed

    def test_connection_that_half_closes_half_closes_it(self) -> None:
        """The app hears that no more will come, and may still answer."""
        pump, app = self.opened()
        pump.client_half_closes()
        assert app.calls == ["shut_down_writing"]
        pump.delivers(app, b"late")
        assert pump.answer(1).body == b"late"


def test_forwarded_fields_are_as_for_http1() -> None:
    """An app cannot tell the versions apart by what it is told of the client."""
    pump = H2Pump()
    pump.starts()
    old = Pump()
    old.start_exchange(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")

    def lines(request: bytes) -> list[bytes]:
        same = request.replace(b"Host: a.example", b"host: a.example")  # names are in lower case in HTTP/2
        return [line for line in same.split(b"\r\n") if not line.startswith((b"X-Request-Id", b"traceparent"))]

    assert lines(pump.app.sent) == lines(old.app.sent)
    assert FORWARDING.named in pump.app.sent
