"""`proxy.exchange`: one request to its response, over fakes on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs

from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.deadlines import NEVER
from sidecar.proxy.exchange import MAX_ENDPOINTS_TRIED, MAX_REPEATED_BYTES
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.sockets import MAX_READ_SIZE, MAX_UPSTREAM_READ_SIZE, MIN_PROGRESS_BYTES, READ_SIZE
from sidecar.settings import HostPort, ProxyProtocolOut, Seconds, Timeouts
from sidecar.wire.h2limits import LEAST_WINDOW
from tests.support import frames
from tests.support.h2app import Backend, H2App, answer, begun_answer, content, trailers
from tests.support.h2pump import H2Pump, fields
from tests.support.pump import Ended, Pump

TRUSTED = Forwarding(
    b"",
    b"",
    Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=True),
    TrustedProxies(("192.0.2.0/24",)),
)
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
TIMEOUTS = Timeouts(
    header=Seconds(1.0), idle=Seconds(2.0), body=Seconds(3.0), upstream=Seconds(4.0), stream=Seconds(5.0)
)


def post(size: int, sent: bytes = b"", extra: bytes = b"") -> bytes:
    return b"POST /x HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (extra, size, sent)


T = TypeVar("T")


class TestConnecting:
    def test_request_is_sent_once_there_is_a_connection(self) -> None:
        """The head goes out with our forwarding fields when the connection is ready."""
        pump = Pump()
        pump.client_sends(GET)
        assert not pump.pool.opened
        pump.pool.accept()
        head = pump.app_receives()
        assert head.startswith(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n")
        lines = head.split(b"\r\n")
        request_id = lines[-4].removeprefix(b"X-Request-Id: ")
        assert int(request_id, 16) >= 0
        assert lines[-3] == b"traceparent: 00-%b-%b-00" % (request_id, request_id[16:])
        assert lines[-2:] == [b"", b""]

    def test_trace_of_a_trusted_proxy_goes_on(self) -> None:
        """A valid one as it came; any other is replaced by one of our own, with its tracestate."""
        trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n"
        pump = Pump(forwarding=TRUSTED)
        pump.start_exchange(GET.replace(b"\r\n\r\n", b"\r\n" + trace + b"\r\n"))
        head = pump.app_receives()
        assert trace in head
        assert head.count(b"traceparent") == 1
        pump = Pump(forwarding=TRUSTED)
        pump.start_exchange(GET.replace(b"\r\n\r\n", b"\r\n" + trace.replace(b"00-0a", b"ff-0a") + b"\r\n"))
        head = pump.app_receives()
        assert b"tracestate" not in head
        assert head.count(b"traceparent: 00-") == 1

    def test_trace_of_anybody_else_is_replaced(self) -> None:
        """Where a trace begins is not for a client to say, unless it is believed."""
        trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n"
        pump = Pump()
        pump.start_exchange(GET.replace(b"\r\n\r\n", b"\r\n" + trace + b"\r\n"))
        head = pump.app_receives()
        assert b"0af7651916cd43dd8448eb211c80319c" not in head
        assert b"tracestate" not in head
        assert head.count(b"traceparent: 00-") == 1

    def test_idle_connection_is_used_at_once(self) -> None:
        """A kept connection needs no new one."""
        pump = Pump()
        pump.reuse_connection()
        pump.client_sends(GET)
        assert not pump.pool.waiting
        assert pump.app_receives().startswith(b"GET /x ")

    @pytest.mark.parametrize(
        "reason", ["upstream_connect_refused", "upstream_connect_timeout", "upstream_unreachable"], ids=str
    )
    def test_failure_is_answered_with_502(self, reason: str) -> None:
        """A client hears that there is no connection to the app, and why is logged."""
        pump = Pump()
        pump.client_sends(GET)
        pump.pool.refuse(reason, "the detail")
        assert pump.received().startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert pump.last == Ended(502, reason, "the detail")
        assert pump.tls.ending == "close"

    def test_body_that_arrives_meanwhile_pauses_the_client(self) -> None:
        """What is held for a connection that is not there yet is bounded: the client waits."""
        pump = Pump()
        pump.client_sends(post(100_000, b"a" * 1000))
        pump.client_sends(b"b" * 1000)
        assert not pump.peer.is_reading
        pump.pool.accept()
        assert pump.peer.is_reading
        assert pump.app_receives().endswith(b"\r\n\r\n" + b"a" * 1000 + b"b" * 1000)

    def test_app_that_reads_nothing_keeps_the_client_paused(self) -> None:
        """A connection that is full from its first write does not let the client go on."""
        pump = Pump()
        pump.pool.stuck_from_the_start = True
        pump.client_sends(post(100_000, b"a" * 1000))
        pump.client_sends(b"b" * 1000)
        pump.pool.accept()
        assert not pump.peer.is_reading
        pump.app.take()
        assert pump.peer.is_reading

    def test_client_that_leaves_gives_the_connection_to_the_pool(self) -> None:
        """A connection made for nobody is kept, unused."""
        pump = Pump()
        pump.client_sends(GET)
        pump.client_vanishes()
        assert pump.last == Ended(0, "downstream_lost", "")
        pump.pool.accept()
        assert pump.app_receives() == b""
        assert len(pump.pool.idle) == 1

    def test_failure_after_the_client_left_changes_nothing(self) -> None:
        """An exchange is recorded once, whatever comes afterwards."""
        pump = Pump()
        pump.client_sends(GET)
        pump.client_vanishes()
        pump.pool.refuse()
        assert len(pump.log.ended) == 1

    def test_client_that_sends_no_body_meanwhile_gets_408(self) -> None:
        """The body deadline runs while the connection is made."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.client_sends(post(10))
        pump.pass_time(3.1)
        assert pump.last.reason == "body_timeout"
        pump.pool.accept()
        assert pump.app_receives() == b""


class TestRequestBody:
    def test_pieces_are_sent_on_as_they_come(self) -> None:
        """A body is never collected."""
        pump = Pump()
        pump.start_exchange(post(6, b"ab"))
        pump.app_receives()
        pump.client_sends(b"cd")
        assert pump.app_receives() == b"cd"
        pump.client_sends(b"ef")
        assert pump.app_receives() == b"ef"

    def test_chunks_are_framed_anew_with_their_trailers(self) -> None:
        """A chunked body ends with its last chunk and the trailers that may pass."""
        pump = Pump()
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        pump.app_receives()
        pump.client_sends(b"3;x=y\r\nabc\r\n0\r\nChecksum: 1\r\nX-Forwarded-For: evil\r\n\r\n")
        assert pump.app_receives() == b"3\r\nabc\r\n0\r\nChecksum: 1\r\n\r\n"

    def test_app_that_does_not_read_pauses_the_client(self) -> None:
        """Backpressure reaches the client, and is released with it."""
        pump = Pump()
        pump.start_exchange(post(100))
        pump.app.stop_taking()
        pump.client_sends(b"a" * 10)
        assert not pump.peer.is_reading
        pump.app.take()
        assert pump.peer.is_reading

    def test_pipelined_body_that_gets_stuck_keeps_the_client_paused(self) -> None:
        """A next request that fills the app's connection pauses the client although its turn has just begun."""
        pump = Pump()
        pump.start_exchange()
        pump.client_sends(post(1000, b"a" * 10))
        pump.app.stop_taking()
        # It takes nothing more, but answers what it has.
        pump.app_sends(NO_CONTENT)
        assert pump.app.queued
        assert not pump.peer.is_reading

    def test_broken_framing_is_answered_and_closes_the_app_connection(self) -> None:
        """A client that breaks its chunks gets 400; the app must not take the request for a whole one."""
        pump = Pump()
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        pump.client_sends(b"zz\r\n")
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.app.is_closed
        assert pump.last == Ended(400, "bad_chunk", "")
        assert pump.tls.ending == "linger"

    def test_broken_framing_inside_a_response_cuts_it(self) -> None:
        """Two answers to one request would mix: the connection is aborted, and the log has the status that was sent."""
        pump = Pump()
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        pump.received()
        pump.client_sends(b"zz\r\n")
        assert pump.received() == b""
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(200, "bad_chunk", "")
        assert len(pump.log.ended) == 1


class TestWaiting:
    def test_final_head_begins_the_response(self) -> None:
        """Head, body and end pass, and the connection goes back to the pool."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK)
        assert pump.received() == OK
        assert pump.last == Ended(200, "", "")
        assert len(pump.pool.idle) == 1
        assert not pump.tls.ending

    def test_interim_responses_pass(self) -> None:
        """A 103 goes to the client; the exchange waits on."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n")
        assert pump.received() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        pump.app_sends(OK)
        assert pump.received() == OK

    def test_interim_responses_stay_away_from_http10(self) -> None:
        """HTTP/1.0 knows no 1xx."""
        pump = Pump()
        pump.start_exchange(b"GET / HTTP/1.0\r\n\r\n")
        pump.app_sends(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert pump.received() == b""

    def test_failure_after_an_interim_response_is_answered(self) -> None:
        """A 1xx is no answer yet: ours can follow."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        pump.received()
        pump.app_resets()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_reset"

    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    def test_lost_connection_is_answered_with_502(self, end: str) -> None:
        """An app that closes without a response costs the client a 502."""
        pump = Pump()
        pump.start_exchange()
        getattr(pump, end)()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_reset"

    def test_unfinished_head_is_answered_with_502(self) -> None:
        """An app that closes inside its head has not answered."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-")
        pump.app_closes()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_reset"
        assert pump.last.detail.startswith("response_cut: ")

    def test_invalid_response_is_answered_with_502(self) -> None:
        """What is not HTTP never reaches the client, and its connection is closed."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"SSH-2.0-OpenSSH\r\n\r\n")
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_invalid_response"
        assert pump.app.is_closed

    def test_silent_app_is_answered_with_504(self) -> None:
        """No first byte within the upstream timeout is a 504."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange()
        pump.pass_time(3.9)
        assert pump.received() == b""
        pump.pass_time(0.2)
        assert pump.received().startswith(b"HTTP/1.1 504 ")
        assert pump.last.reason == "upstream_timeout"
        assert pump.app.is_closed

    def test_zero_timeout_waits_for_ever(self) -> None:
        """An upstream timeout of 0 is none."""
        pump = Pump(timeouts=Timeouts(upstream=Seconds(0.0)))
        pump.start_exchange()
        assert pump.peer.deadline.at == NEVER
        pump.pass_time(1e6)
        pump.app_sends(OK)
        assert pump.received() == OK

    def test_slow_body_is_the_clients_fault(self) -> None:
        """A client that stops inside its body gets 408, and the app's connection is closed."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(10, b"abc"))
        pump.pass_time(3.1)
        assert pump.received().startswith(b"HTTP/1.1 408 ")
        assert pump.last.reason == "body_timeout"
        assert pump.app.is_closed
        assert pump.tls.ending == "linger"

    def test_each_piece_of_body_moves_the_deadline(self) -> None:
        """A client that goes on sending is not cut."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(3))
        for _ in range(3):
            pump.pass_time(2.9)
            pump.client_sends(b"a")
        pump.pass_time(2.9)
        pump.app_sends(OK)
        assert pump.received() == OK

    def test_app_that_does_not_read_the_body_is_answered_with_504(self) -> None:
        """A request that is stuck waits for the app, not for the client."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(100))
        pump.app.stop_taking()
        pump.client_sends(b"a" * 10)
        pump.pass_time(3.9)
        assert not pump.log.ended
        pump.pass_time(0.2)
        assert pump.last == Ended(504, "upstream_timeout", "")

    def test_client_that_leaves_closes_the_app_connection(self) -> None:
        """Nobody waits for the answer any more."""
        pump = Pump()
        pump.start_exchange()
        pump.client_vanishes()
        assert pump.app.is_closed
        assert pump.last == Ended(0, "downstream_lost", "")


class TestSlowUpload:
    SIZE = 3 * READ_SIZE

    def stuck(self) -> Pump:
        """The last part of an upload has arrived, and the app has not taken it."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(self.SIZE, b"a" * READ_SIZE))
        pump.app.stop_taking()
        pump.client_sends(b"b" * 2 * READ_SIZE)
        return pump

    def handed_over(self) -> Pump:
        """All of an upload is in the kernel, and the app has taken none of it yet."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.pool.in_kernel_from_the_start = self.SIZE
        pump.start_exchange(post(self.SIZE, b"a" * READ_SIZE))
        pump.client_sends(b"b" * 2 * READ_SIZE)
        return pump

    def assert_cut(self, pump: Pump) -> None:
        """One more upstream timeout without progress is the end, and not before."""
        pump.pass_time(3.9)
        assert not pump.log.ended
        pump.pass_time(0.2)
        assert pump.last == Ended(504, "upstream_timeout", "")
        assert pump.app.is_closed

    def test_app_that_reads_slowly_is_waited_for(self) -> None:
        """As long as the app takes something within each upstream timeout, its answer is not late."""
        pump = self.stuck()
        for _ in range(5):
            pump.pass_time(3.9)
            pump.app.take_some(MIN_PROGRESS_BYTES)
            pump.pass_time(0.2)
            assert not pump.log.ended
        self.assert_cut(pump)

    def test_app_that_reads_slowly_may_answer_at_last(self) -> None:
        """The answer that comes after all reaches the client."""
        pump = self.stuck()
        pump.pass_time(3.9)
        pump.app.take_some(MIN_PROGRESS_BYTES)
        pump.pass_time(3.9)
        pump.app.take()
        pump.pass_time(3.9)
        pump.app_sends(OK)
        assert pump.received() == OK
        assert len(pump.pool.idle) == 1

    def test_app_that_stops_reading_is_cut(self) -> None:
        """One that takes nothing at all has one timeout, not two."""
        self.assert_cut(self.stuck())

    def test_app_that_reads_next_to_nothing_is_cut(self) -> None:
        """A few bytes for each timeout are no reading."""
        pump = self.stuck()
        pump.pass_time(2.0)
        pump.app.take_some(MIN_PROGRESS_BYTES - 1)
        pump.pass_time(1.9)
        assert not pump.log.ended
        pump.pass_time(0.2)
        assert pump.last == Ended(504, "upstream_timeout", "")

    def test_bytes_in_the_kernel_are_waited_for_too(self) -> None:
        """What the kernel took at once the app still has to read."""
        pump = self.handed_over()
        for _ in range(3):
            pump.pass_time(3.9)
            pump.app.in_kernel -= READ_SIZE // 2
            pump.pass_time(0.2)
            assert not pump.log.ended
        self.assert_cut(pump)

    def test_bytes_in_the_kernel_that_stay_there_are_cut(self) -> None:
        """The first timeout counts from when the kernel had it all."""
        self.assert_cut(self.handed_over())

    def test_rest_that_the_kernel_took_is_waited_for(self) -> None:
        """A socket that drained leaves a buffer full of bytes, which the app reads as slowly."""
        pump = self.stuck()
        pump.app.in_kernel = READ_SIZE
        pump.app.take()
        pump.pass_time(3.9)
        pump.app.in_kernel -= MIN_PROGRESS_BYTES
        pump.pass_time(0.2)
        assert not pump.log.ended
        self.assert_cut(pump)

    def test_upload_that_came_before_its_connection_is_waited_for(self) -> None:
        """It goes out in one piece once the connection is there."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.pool.in_kernel_from_the_start = self.SIZE
        pump.start_exchange(post(self.SIZE, b"a" * self.SIZE))
        pump.pass_time(3.9)
        pump.app.in_kernel -= READ_SIZE
        pump.pass_time(0.2)
        assert not pump.log.ended
        self.assert_cut(pump)

    def test_upload_in_the_middle_of_its_body_is_waited_for(self) -> None:
        """The same while the client, which is paused, has more to send."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(self.SIZE))
        pump.app.stop_taking()
        pump.client_sends(b"b" * READ_SIZE)
        for _ in range(3):
            pump.pass_time(3.9)
            pump.app.take_some(MIN_PROGRESS_BYTES)
            pump.pass_time(0.2)
            assert not pump.log.ended
        self.assert_cut(pump)

    def test_small_body_does_not_move_the_deadline(self) -> None:
        """That the app's system acknowledges a small request does not say that the app reads."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.pool.in_kernel_from_the_start = 500
        pump.start_exchange(post(2, b"a"))
        pump.client_sends(b"b")
        pump.app.in_kernel = 0
        self.assert_cut(pump)

    def test_upload_does_not_move_the_deadline_of_the_next_request(self) -> None:
        """What was read of one request is no progress of the next on the same connection."""
        pump = self.handed_over()
        pump.app_sends(OK)
        pump.app.in_kernel = 0
        ended = len(pump.log.ended)
        pump.client_sends(GET)
        pump.pass_time(3.9)
        assert len(pump.log.ended) == ended
        pump.pass_time(0.2)
        assert pump.last == Ended(504, "upstream_timeout", "")

    def test_upload_does_not_move_the_deadline_of_the_next_upload(self) -> None:
        """The same if the next is an upload, of which the app reads nothing."""
        pump = self.handed_over()
        pump.app_sends(OK)
        pump.app.in_kernel = 10
        pump.log.ended.clear()
        pump.client_sends(post(self.SIZE, b"a" * self.SIZE))
        self.assert_cut(pump)


class TestRepeating:
    def repeat(self, request: bytes) -> Pump:
        """Send *request* on a kept connection, which the app then closes."""
        pump = Pump()
        pump.reuse_connection()
        pump.client_sends(request)
        return pump

    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"], ids=bytes.decode)
    def test_idempotent_request_is_repeated_once(self, method: bytes, end: str) -> None:
        """A kept connection that the app closed in that moment costs nothing but a new connection."""
        pump = self.repeat(GET.replace(b"GET", method))
        first = pump.app_receives()
        getattr(pump, end)()
        assert pump.received() == b""
        pump.pool.accept()
        assert pump.app_receives() == first
        pump.app_sends(NO_CONTENT)
        assert pump.received() == NO_CONTENT
        assert pump.service.metrics.upstream_retries == 1

    def test_unused_connection_of_the_pool_is_a_kept_one(self) -> None:
        """A connection that came too late for its own request is as old as others when the next one takes it."""
        pump = Pump()
        pump.pool.idle.append(pump.pool.open())
        pump.client_sends(GET)
        pump.app_closes()
        pump.pool.accept()
        pump.app_sends(NO_CONTENT)
        assert pump.received() == NO_CONTENT
        assert pump.service.metrics.upstream_retries == 1

    def test_new_connection_is_never_a_kept_one(self) -> None:
        """A connection that was made for this request and is lost is an app that fails: nothing is repeated."""
        pump = Pump()
        pump.reuse_connection()
        pump.pool.idle.clear()
        pump.start_exchange(GET)
        pump.app_closes()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert not pump.pool.waiting
        assert pump.service.metrics.upstream_retries == 0

    def test_second_loss_is_answered(self) -> None:
        """A request is sent twice at most."""
        pump = self.repeat(GET)
        pump.app_closes()
        pump.pool.accept()
        pump.app_closes()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert not pump.pool.waiting

    @pytest.mark.parametrize(
        "request_bytes",
        [
            GET.replace(b"GET", b"POST"),
            GET.replace(b"GET", b"PATCH"),
            post(2, b"ab"),
            post(2, b"a"),
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            post(MAX_REPEATED_BYTES, b"a" * MAX_REPEATED_BYTES).replace(b"POST", b"PUT"),
        ],
        ids=[
            "POST",
            "PATCH",
            "POST with a body",
            "POST with a part",
            "POST with an empty body",
            "PUT too long to keep",
        ],
    )
    def test_other_requests_are_not_repeated(self, request_bytes: bytes) -> None:
        """What the app may have acted on already, or what is not held any more, is not sent again."""
        pump = self.repeat(request_bytes)
        pump.app_closes()
        assert not pump.pool.waiting
        assert pump.received().startswith(b"HTTP/1.1 502 ")

    @pytest.mark.parametrize(
        "parts",
        [
            [post(2, b"ab").replace(b"POST", b"PUT")],
            [post(2, b"").replace(b"POST", b"PUT"), b"a", b"b"],
            [b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"0\r\n\r\n"],
        ],
        ids=["in one piece", "in pieces", "chunked"],
    )
    def test_idempotent_request_is_repeated_with_its_body(self, parts: list[bytes]) -> None:
        """A body that is short enough is kept until the app answers."""
        pump = self.repeat(parts[0])
        for part in parts[1:]:
            pump.client_sends(part)
        first = pump.app_receives()
        pump.app_resets()
        pump.pool.accept()
        assert pump.app_receives() == first
        pump.app_sends(NO_CONTENT)
        assert pump.received() == NO_CONTENT

    def test_rest_of_the_body_follows_on_the_new_connection(self) -> None:
        """A connection may be lost in the middle of the request."""
        pump = self.repeat(post(4, b"ab").replace(b"POST", b"PUT"))
        pump.app_resets()
        pump.client_sends(b"c")
        pump.pool.accept()
        pump.client_sends(b"d")
        assert pump.app_receives().endswith(b"\r\n\r\nabcd")

    @pytest.mark.parametrize("method", [b"POST", b"PATCH"], ids=bytes.decode)
    def test_request_whose_body_is_still_to_come_is_repeated(self, method: bytes) -> None:
        """Whatever its method: the app cannot have acted on a request that it has not got."""
        pump = self.repeat(post(2, b"").replace(b"POST", method))
        pump.app_resets()
        pump.pool.accept()
        pump.client_sends(b"ab")
        assert pump.app_receives().endswith(b"\r\n\r\nab")

    def test_stuck_request_goes_on_after_the_repeat(self) -> None:
        """A lost connection that took nothing more does not leave the client paused."""
        pump = Pump()
        pump.reuse_connection()
        pump.app.is_stuck = True
        pump.client_sends(post(4, b"ab").replace(b"POST", b"PUT"))
        assert not pump.peer.is_reading
        pump.app_resets()
        pump.pool.accept()
        pump.client_sends(b"cd")
        assert pump.app_receives().endswith(b"\r\n\r\nabcd")
        pump.app_sends(NO_CONTENT)
        assert pump.received() == NO_CONTENT

    def test_first_use_of_a_connection_is_not_repeated(self) -> None:
        """An app that closes a fresh connection means it."""
        pump = Pump()
        pump.start_exchange()
        pump.app_closes()
        assert not pump.pool.waiting

    @pytest.mark.parametrize(
        "sent", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
    )
    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    def test_nothing_is_repeated_after_a_byte_of_the_response(self, sent: bytes, end: str) -> None:
        """An app that has begun to answer has seen the request."""
        pump = self.repeat(GET)
        pump.app_sends(sent)
        getattr(pump, end)()
        assert not pump.pool.waiting
        assert len(pump.log.ended) == 2

    def test_client_that_leaves_meanwhile_ends_it(self) -> None:
        """A repeat whose client is gone is not sent."""
        pump = self.repeat(GET)
        pump.app_closes()
        pump.client_vanishes()
        pump.pool.accept()
        assert pump.app_receives() == b""

    def test_failed_connection_for_a_repeat_is_answered(self) -> None:
        """An app that restarts is a 502 like any other."""
        pump = self.repeat(GET)
        pump.app_closes()
        pump.pool.refuse()
        assert pump.received().startswith(b"HTTP/1.1 502 ")


class TestStreaming:
    @pytest.fixture
    def pump(self) -> Pump:
        """A response of 100 bytes that has begun."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        pump.received()
        return pump

    def test_pieces_are_sent_on_as_they_come(self, pump: Pump) -> None:
        """A response is never collected."""
        pump.app_sends(b"a" * 40)
        assert pump.received() == b"a" * 40
        pump.app_sends(b"b" * 60)
        assert pump.received() == b"b" * 60
        assert pump.log.exchanges[-1].bytes_sent == 100

    def test_client_that_does_not_read_pauses_the_app(self, pump: Pump) -> None:
        """Backpressure reaches the app, and is released with it."""
        pump.tls.stop_taking()
        pump.app_sends(b"a" * 40)
        assert not pump.app.is_reading
        pump.tls.take()
        assert pump.app.is_reading

    def test_long_response_that_flows_is_read_in_larger_pieces(self) -> None:
        """As long as it is: the connection goes back as it was."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * READ_SIZE)
        assert pump.app.read_limit == MAX_READ_SIZE
        for size in (MAX_READ_SIZE, MAX_UPSTREAM_READ_SIZE):
            pump.app_sends(b"a" * size)
            assert pump.app.read_limit == MAX_UPSTREAM_READ_SIZE
        pump.app_sends(b"a" * (1_000_000 - READ_SIZE - MAX_READ_SIZE - MAX_UPSTREAM_READ_SIZE))
        assert pump.pool.idle == [pump.pool.opened[0]]
        assert pump.app.read_limit == MAX_READ_SIZE

    def test_long_response_that_comes_at_once_changes_nothing(self) -> None:
        """Its end is reached before more could be read."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_READ_SIZE + b"a" * MAX_READ_SIZE)
        assert pump.pool.idle == [pump.pool.opened[0]]
        assert pump.app.read_limit == MAX_READ_SIZE

    def test_for_a_client_that_is_stuck_no_more_is_read(self) -> None:
        """What is held for it is what had been read for anybody."""
        pump = Pump()
        pump.start_exchange()
        pump.tls.stop_taking()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"a" * MAX_READ_SIZE)
        assert not pump.app.is_reading
        assert pump.app.read_limit == MAX_READ_SIZE

    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    def test_cut_response_aborts_the_client(self, pump: Pump, end: str) -> None:
        """A part must not look like the whole."""
        pump.app_sends(b"a" * 40)
        getattr(pump, end)()
        assert pump.tls.ending == "abort"
        assert pump.last.status == 200
        assert pump.last.reason == "upstream_reset"
        assert len(pump.log.ended) == 1

    def test_silent_app_aborts_the_client(self, pump: Pump) -> None:
        """Silence inside a response ends at the stream timeout."""
        pump.pass_time(5.1)
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(200, "upstream_stalled", "")
        assert pump.app.is_closed

    def test_client_that_never_reads_is_aborted(self, pump: Pump) -> None:
        """A client that takes nothing for the body timeout loses its connection, and the app's is closed."""
        pump.tls.stop_taking()
        pump.app_sends(b"a" * 40)
        pump.pass_time(3.1)
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(200, "downstream_stalled", "")
        assert pump.app.is_closed

    def test_client_that_leaves_closes_the_app_connection(self, pump: Pump) -> None:
        """The rest of the response is nobody's."""
        pump.client_vanishes()
        assert pump.app.is_closed
        assert pump.last == Ended(200, "downstream_lost", "")

    def test_end_while_the_client_is_stuck_hands_back_a_reading_connection(self, pump: Pump) -> None:
        """A connection goes back to the pool as it came: read from."""
        pump.tls.stop_taking()
        pump.app_sends(b"a" * 40)
        pump.tls.take()
        pump.tls.stop_taking()
        pump.app_sends(b"a" * 60)
        assert pump.pool.idle == [pump.pool.opened[0]]
        assert pump.app.is_reading

    def test_bytes_behind_the_response_close_the_app_connection(self, pump: Pump) -> None:
        """What answers nothing must not answer the next request."""
        pump.app_sends(b"a" * 100 + b"HTTP/1.1 200 OK\r\n\r\n")
        assert pump.received() == b"a" * 100
        assert not pump.pool.idle
        assert pump.app.is_closed

    def test_close_delimited_body_is_chunked_for_http11(self) -> None:
        """The client keeps its connection although the app closes its own."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\n\r\nabc")
        pump.app_closes()
        assert pump.received() == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        assert not pump.tls.ending
        assert not pump.pool.idle

    def test_close_delimited_body_that_breaks_is_cut(self) -> None:
        """A reset is no end of a body."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\n\r\nabc")
        pump.app_resets()
        assert pump.tls.ending == "abort"

    def test_chunked_body_is_close_delimited_for_http10(self) -> None:
        """HTTP/1.0 gets no chunks; the end of the connection is the end of the body."""
        pump = Pump()
        pump.start_exchange(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        pump.app_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert pump.received() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
        assert pump.tls.ending == "close"

    @pytest.mark.parametrize("te", [b"", b"TE: gzip\r\n"], ids=["no TE", "another TE"])
    def test_trailers_are_dropped_for_a_client_that_did_not_ask(self, te: bytes) -> None:
        """A client that did not say that it keeps trailers gets the body without them."""
        pump = Pump()
        pump.start_exchange(GET.replace(b"\r\n\r\n", b"\r\n%b\r\n" % te))
        pump.app_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSum: 1\r\n\r\n")
        assert pump.received().endswith(b"\r\n\r\n0\r\n\r\n")

    def test_trailers_pass(self) -> None:
        """Trailer fields of the app reach a client that wants them, less those that may not."""
        pump = Pump()
        pump.start_exchange(GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\n\r\n"))
        pump.app_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSum: 1\r\nSet-Cookie: a\r\n\r\n")
        assert pump.received().endswith(b"\r\n\r\n0\r\nSum: 1\r\n\r\n")

    def test_app_that_wants_to_close_is_not_kept(self) -> None:
        """`Connection: close` of the app is between it and us."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        assert pump.received() == OK
        assert pump.app.is_closed
        assert not pump.tls.ending


class TestInterimResponseThatIsStuck:
    @pytest.fixture
    def pump(self) -> Pump:
        """A client that has not taken a 103; the final head is still to come."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange()
        pump.tls.stop_taking()
        pump.app_sends(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        return pump

    def test_client_that_never_reads_is_cut(self, pump: Pump) -> None:
        """No answer of ours could reach it, so it gets none; the exchange is recorded, and the app let go."""
        pump.pass_time(3.1)
        assert pump.tls.ending == "abort"
        assert pump.received() == b""
        assert pump.last == Ended(0, "downstream_stalled", "")
        assert pump.app.is_closed
        assert len(pump.log.ended) == 1

    def test_failure_meanwhile_cuts_too(self, pump: Pump) -> None:
        """What else goes wrong is not answered either."""
        pump.app_resets()
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(0, "upstream_reset", "")

    def test_client_that_reads_at_last_is_answered(self, pump: Pump) -> None:
        """Once it has taken the 103, all is as ever."""
        pump.pass_time(2.9)
        pump.tls.take()
        pump.app_sends(OK)
        assert pump.received().endswith(OK)
        assert pump.last == Ended(200, "", "")

    def test_failure_after_it_was_taken_is_answered(self, pump: Pump) -> None:
        """So is a failure that comes then."""
        pump.tls.take()
        pump.received()
        pump.app_resets()
        assert pump.received().startswith(b"HTTP/1.1 502 ")


class TestBodilessResponse:
    @pytest.mark.parametrize(
        ("request_bytes", "answer"),
        [
            (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n"),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n"),
        ],
        ids=["HEAD", "HEAD, chunked", "204", "304"],
    )
    def test_connection_whose_app_may_still_send_the_body_is_not_kept(
        self, request_bytes: bytes, answer: bytes
    ) -> None:
        """A body that comes late would be the answer to another request; the client's own connection stays."""
        pump = Pump()
        pump.start_exchange(request_bytes)
        pump.app_sends(answer)
        assert pump.app.is_closed
        assert not pump.pool.idle
        assert not pump.tls.ending
        assert pump.received()
        pump.start_exchange()
        pump.app_sends(OK)
        assert pump.received() == OK

    def test_connection_of_a_plain_answer_is_kept(self) -> None:
        """Where no body is spoken of, none can come."""
        pump = Pump()
        pump.start_exchange(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert len(pump.pool.idle) == 1


class TestEarlyResponse:
    def test_answer_is_sent_and_both_connections_close(self) -> None:
        """A response ahead of the request's end is the last one: the client may still be sending."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(post(1000, b"a" * 10))
        pump.app_sends(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n")
        assert pump.received().endswith(b"\r\n\r\nno\n")
        assert pump.last == Ended(413, "", "")
        assert pump.app.is_closed
        assert pump.tls.ending == "linger"
        pump.pass_time(2.1)
        assert pump.tls.ending == "abort"

    def test_body_goes_on_while_the_response_streams(self) -> None:
        """An app may answer while it reads."""
        pump = Pump()
        pump.start_exchange(post(4))
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        pump.app_receives()
        pump.client_sends(b"cdef")
        assert pump.app_receives() == b"cdef"
        pump.app_sends(b"cd")
        assert not pump.tls.ending
        assert len(pump.pool.idle) == 1

    def test_request_that_is_stuck_closes_the_app_connection(self) -> None:
        """A connection with bytes under way is not handed to another request."""
        pump = Pump()
        pump.start_exchange(post(10))
        pump.app.stop_taking()
        pump.client_sends(b"a" * 10)
        pump.app_sends(OK)
        assert pump.received() == OK
        assert not pump.pool.idle
        assert not pump.tls.ending
        assert pump.peer.is_reading


class TestResponseThatIsStuckAtItsEnd:
    def stuck(self, further: bytes = b"") -> Pump:
        """One response that the client does not take, and *further* requests behind its own."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(GET + further)
        pump.tls.stop_taking()
        pump.app_sends(OK)
        assert pump.tls.queued == len(OK)
        return pump

    def test_next_request_waits(self) -> None:
        """A client that asks on without reading is not answered on: what is held for it stays bounded."""
        pump = self.stuck(GET)
        assert not pump.peer.is_reading
        assert pump.app_receives().count(b"GET /x") == 1
        pump.tls.take()
        assert pump.app_receives().count(b"GET /x") == 1
        pump.app_sends(OK)
        assert pump.received() == OK + OK

    def test_reading_goes_on_once_it_is_taken(self) -> None:
        """A client that reads again is read from again."""
        pump = self.stuck()
        assert not pump.peer.is_reading
        pump.tls.take()
        assert pump.peer.is_reading
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert pump.received() == OK + OK

    def test_client_that_never_reads_is_aborted(self) -> None:
        """It has the body timeout to take the answer."""
        pump = self.stuck()
        pump.pass_time(3.1)
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(200, "", "")

    def test_drain_waits_until_it_is_taken(self) -> None:
        """The client has the body timeout for it, and the request behind it is the last."""
        pump = self.stuck(GET + GET)
        pump.downstream.drain()
        pump.pass_time(2.0)
        assert not pump.tls.ending
        assert not pump.downstream.is_idle
        pump.tls.take()
        pump.app_sends(OK)
        assert b"\r\nConnection: close\r\n" in pump.received()
        assert pump.tls.ending
        assert pump.app_receives().count(b"GET /x") == 2

    def test_half_close_closes_behind_it(self) -> None:
        """A client that says it sends no more still gets the rest."""
        pump = self.stuck()
        pump.client_half_closes()
        assert pump.tls.ending == "close"


class TestSwitchingProtocols:
    REQUEST = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def test_bytes_are_relayed_both_ways(self) -> None:
        """After a 101 both sides hear each other."""
        pump = Pump()
        pump.start_exchange(self.REQUEST)
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in pump.app_receives()
        pump.app_sends(self.ANSWER)
        assert pump.received() == self.ANSWER
        assert pump.last == Ended(101, "", "")
        pump.client_sends(b"\x81\x01a")
        assert pump.app_receives() == b"\x81\x01a"
        pump.app_sends(b"\x81\x01b")
        assert pump.received() == b"\x81\x01b"

    def test_client_that_wants_no_further_request_hears_the_101(self) -> None:
        """An upgrade is not the last that is sent, whatever the client says of its connection."""
        pump = Pump()
        pump.start_exchange(self.REQUEST.replace(b"Connection: ", b"Connection: close, "))
        pump.app_sends(self.ANSWER)
        assert pump.received().startswith(b"HTTP/1.1 101 ")
        assert not pump.tls.ending

    def test_bytes_behind_the_101_are_not_lost(self) -> None:
        """What the app sends in the same packet belongs to the tunnel."""
        pump = Pump()
        pump.start_exchange(self.REQUEST)
        pump.app_sends(self.ANSWER + b"hello")
        assert pump.received() == self.ANSWER + b"hello"

    def test_bytes_ahead_of_the_101_are_not_lost(self) -> None:
        """What the client sends before the answer is sent on after it."""
        pump = Pump()
        pump.start_exchange(self.REQUEST + b"early")
        pump.app_receives()
        pump.client_sends(b"bird")
        assert pump.app_receives() == b""
        pump.app_sends(self.ANSWER)
        assert pump.app_receives() == b"earlybird"
        assert pump.peer.is_reading

    def test_refused_upgrade_is_an_ordinary_answer(self) -> None:
        """An app may answer with anything else."""
        pump = Pump()
        pump.start_exchange(self.REQUEST)
        pump.app_sends(OK)
        assert pump.received() == OK
        pump.client_sends(GET)
        assert pump.app_receives().endswith(b"\r\n\r\n")

    def test_unasked_101_is_an_invalid_response(self) -> None:
        """Nobody asked for another protocol."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(self.ANSWER)
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_invalid_response"

    def test_101_inside_the_request_body_is_an_invalid_response(self) -> None:
        """A tunnel cannot begin in the middle of a request."""
        pump = Pump()
        pump.start_exchange(post(10, b"abc", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
        pump.app_sends(self.ANSWER)
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.app.is_closed

    def test_client_that_is_stuck_stays_stuck(self) -> None:
        """A client that does not take the 101 holds back the app's first bytes."""
        pump = Pump()
        pump.start_exchange(self.REQUEST)
        pump.tls.stop_taking()
        pump.app_sends(self.ANSWER)
        assert not pump.app.is_reading
        pump.tls.take()
        assert pump.app.is_reading

    def test_half_closed_client_is_told_on(self) -> None:
        """A client that sent close_notify before the 101 has ended its side of the tunnel."""
        pump = Pump()
        pump.start_exchange(self.REQUEST)
        pump.client_half_closes()
        pump.app_sends(self.ANSWER)
        assert pump.app.calls == ["shut_down_writing"]


class TestRecord:
    def test_bytes_and_moments_are_measured(self) -> None:
        """An exchange knows how much and how long."""
        pump = Pump()
        pump.start_exchange(post(5, b"abc"))
        pump.pass_time(1.5)
        pump.client_sends(b"de")
        pump.app_sends(OK)
        exchange = pump.log.exchanges[0]
        assert (exchange.bytes_received, exchange.bytes_sent) == (5, 2)
        assert exchange.first_byte_at == exchange.started_at + 1.5


class TestOtherEndpoints:
    """A connection that cannot be made costs the app nothing: it has seen none of the request."""

    POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"

    @pytest.mark.parametrize("request_bytes", [GET, POST], ids=["GET", "POST"])
    def test_request_goes_to_another(self, request_bytes: bytes) -> None:
        """Also one that is not safe to repeat, whole and once."""
        pump = Pump(pools=2)
        pump.client_sends(request_bytes)
        pump.pools[0].refuse("upstream_connect_timeout")
        second = pump.pools[1].accept()
        assert second.sent.startswith(request_bytes[:9])
        assert second.sent.endswith(b"\r\n\r\n" + request_bytes.partition(b"\r\n\r\n")[2])
        second.deliver(OK)
        pump.settle()
        assert pump.received() == OK
        assert [endpoint.told for endpoint in pump.cluster.endpoints] == [["upstream_connect_timeout"], [""]]
        assert pump.log.exchanges[-1].endpoint is pump.cluster.endpoints[1]
        assert pump.service.metrics.upstream_retries == 1

    def test_no_more_than_three_are_tried(self) -> None:
        """An outage is not multiplied, and the last failure is the answer."""
        pump = Pump(pools=MAX_ENDPOINTS_TRIED + 1)
        pump.client_sends(GET)
        for number in range(MAX_ENDPOINTS_TRIED):
            pump.pools[number].refuse(detail=f"refused by {number}")
        pump.settle()
        assert pump.last == Ended(502, "upstream_connect_refused", "refused by 2")
        assert not pump.pools[MAX_ENDPOINTS_TRIED].waiting
        assert [endpoint.told for endpoint in pump.cluster.endpoints] == [["upstream_connect_refused"]] * 3 + [[]]
        assert pump.service.metrics.upstream_retries == 2

    def test_client_waits_meanwhile(self) -> None:
        """Its body is not collected for the next endpoint."""
        pump = Pump(pools=2)
        pump.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        pump.client_sends(b"c")
        pump.pools[0].refuse()
        assert not pump.peer.is_reading
        second = pump.pools[1].accept()
        assert pump.peer.is_reading
        pump.client_sends(b"d")
        assert second.sent.endswith(b"\r\n\r\nabcd")

    def test_all_of_them_have_one_deadline(self) -> None:
        """That of the response begins with the request, not with each attempt."""
        pump = Pump(pools=3, timeouts=Timeouts(upstream=Seconds(5.0)))
        pump.client_sends(GET)
        pump.pass_time(2.0)
        pump.pools[0].refuse()
        pump.pass_time(2.0)
        pump.pools[1].refuse()
        pump.pass_time(1.2)
        assert pump.last.reason == "upstream_timeout"
        pump.pools[2].accept()
        pump.settle()
        assert len(pump.log.ended) == 1

    def test_nothing_is_sent_elsewhere_once_it_was_sent(self) -> None:
        """The app may have acted on it."""
        pump = Pump(pools=2)
        pump.client_sends(GET)
        pump.pool.accept()
        pump.app_resets()
        assert pump.last.reason == "upstream_reset"
        assert not pump.pools[1].waiting

    def test_client_that_left_sends_nobody_elsewhere(self) -> None:
        """The endpoint failed all the same, and hears of it."""
        pump = Pump(pools=2)
        pump.client_sends(GET)
        pump.client_vanishes()
        pump.pools[0].refuse()
        pump.settle()
        assert not pump.pools[1].waiting
        assert pump.cluster.endpoints[0].told == ["upstream_connect_refused"]

    def test_limit_of_ours_is_no_fault_of_an_endpoint(self) -> None:
        """It was not even asked; another may have room."""
        pump = Pump(pools=2)
        pump.client_sends(GET)
        pump.pools[0].refuse("upstream_overflow")
        assert len(pump.pools[1].waiting) == 1
        assert pump.cluster.endpoints[0].told == []

    @pytest.mark.parametrize(("reason", "status"), [("no_healthy_upstream", 503), ("upstream_overflow", 503)], ids=str)
    def test_cluster_that_has_none_answers_at_once(self, reason: str, status: int) -> None:
        """The client is told in a word, the operator in many."""
        pump = Pump()
        pump.cluster.refusal = ConnectFailed(reason, "cluster app: none")
        pump.client_sends(GET)
        assert pump.received().startswith(b"HTTP/1.1 %d " % status)
        assert pump.last == Ended(status, reason, "cluster app: none")
        assert pump.log.exchanges[-1].endpoint is None

    def test_repeat_that_cannot_connect_goes_elsewhere(self) -> None:
        """A kept connection was lost, and its endpoint with it."""
        pump = Pump(pools=2)
        pump.reuse_connection()
        pump.client_sends(GET)
        pump.app_resets()
        pump.pools[0].refuse()
        second = pump.pools[1].accept()
        assert second.sent.startswith(b"GET /x ")
        second.deliver(OK)
        pump.settle()
        assert pump.last == Ended(200, "", "")


def request(pump: Pump) -> None:
    pump.start_exchange()
    assert pump.cluster.endpoints[0].active == 1


OUTCOMES: dict[str, tuple[Callable[[Pump], object], list[str]]] = {
    "answer": (lambda pump: pump.app_sends(OK), [""]),
    "answer that says no": (lambda pump: pump.app_sends(OK.replace(b"200 OK", b"404 Not Found")), [""]),
    "500": (lambda pump: pump.app_sends(OK.replace(b"200 OK", b"500 Oh No")), [""]),
    "502": (lambda pump: pump.app_sends(OK.replace(b"200 OK", b"502 Oh No")), ["status_502"]),
    "503": (lambda pump: pump.app_sends(OK.replace(b"200 OK", b"503 Oh No")), ["status_503"]),
    "504": (lambda pump: pump.app_sends(OK.replace(b"200 OK", b"504 Oh No")), ["status_504"]),
    "reset": (Pump.app_resets, ["upstream_reset"]),
    "end without a word": (Pump.app_closes, ["upstream_reset"]),
    "nonsense": (lambda pump: pump.app_sends(b"220 ready\r\n\r\n"), ["upstream_invalid_response"]),
    "silence": (lambda pump: pump.pass_time(60.2), ["upstream_timeout"]),
    "cut answer": (lambda pump: (pump.app_sends(OK[:-1]), pump.app_resets()), ["upstream_reset"]),
    "ended inside an answer": (lambda pump: (pump.app_sends(OK[:-1]), pump.app_closes()), ["upstream_reset"]),
    "silence inside an answer": (lambda pump: (pump.app_sends(OK[:-1]), pump.pass_time(300.2)), ["upstream_stalled"]),
    "503 that breaks off": (
        lambda pump: (pump.app_sends(OK[:-1].replace(b"200", b"503")), pump.app_resets()),
        ["status_503"],
    ),
    "client that leaves before": (Pump.client_vanishes, []),
    "client that leaves inside": (lambda pump: (pump.app_sends(OK[:-1]), pump.client_vanishes()), []),
    "client that takes nothing": (
        lambda pump: (pump.tls.stop_taking(), pump.app_sends(OK[:-1]), pump.pass_time(60.2)),
        [],
    ),
    "end of the process": (lambda pump: pump.downstream.end(), []),
}


class TestEndpointIsTold:
    @pytest.mark.parametrize(("happens", "told"), OUTCOMES.values(), ids=OUTCOMES)
    def test_what_became_of_a_request_once(self, happens: Callable[[Pump], object], told: list[str]) -> None:
        """A request speaks for its endpoint or against it, or, where that was the client's affair, not at all."""
        pump = Pump()
        request(pump)
        happens(pump)
        pump.settle()
        endpoint = pump.cluster.endpoints[0]
        assert endpoint.told == told
        assert endpoint.active == 0
        assert len(pump.log.ended) == 1

    def test_answer_is_not_praised_before_its_end(self) -> None:
        """One that always breaks off in the middle would never have failed twice in a row."""
        pump = Pump()
        request(pump)
        pump.app_sends(OK[:-1])
        assert pump.cluster.endpoints[0].told == []
        pump.app_sends(OK[-1:])
        assert pump.cluster.endpoints[0].told == [""]

    def test_request_that_the_client_breaks_is_over(self) -> None:
        """Its endpoint has one less, and is not to blame."""
        pump = Pump()
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        pump.client_sends(b"nonsense\r\n")
        assert (pump.cluster.endpoints[0].active, pump.cluster.endpoints[0].told) == (0, [])

    def test_upgrade_is_an_answer(self) -> None:
        """The request is over with it, whatever becomes of the relay."""
        pump = Pump()
        pump.start_exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        pump.app_sends(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert (pump.cluster.endpoints[0].active, pump.cluster.endpoints[0].told) == (0, [""])

    def test_repeated_request_speaks_once(self) -> None:
        """That a kept connection was closed is nobody's fault."""
        pump = Pump()
        pump.reuse_connection()
        pump.cluster.endpoints[0].told.clear()
        pump.client_sends(GET)
        pump.app_resets()
        pump.pool.accept()
        pump.app_sends(OK)
        assert pump.cluster.endpoints[0].told == [""]

    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    def test_loss_of_a_kept_connection_is_no_failure_of_it(self, end: str) -> None:
        """An app may close one in the moment that it is used; what cannot be repeated is answered, and that is all."""
        pump = Pump()
        pump.reuse_connection()
        endpoint = pump.cluster.endpoints[0]
        endpoint.told.clear()
        pump.client_sends(post(3, b"abc"))
        getattr(pump, end)()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_reset"
        assert not pump.pool.waiting
        assert (endpoint.told, endpoint.active) == ([], 0)

    @pytest.mark.parametrize("end", ["app_closes", "app_resets"])
    def test_loss_of_a_fresh_connection_is_a_failure(self, end: str) -> None:
        """Also for a request that was sent on a kept one before: whoever breaks off twice is not in a race."""
        pump = Pump()
        pump.start_exchange(post(3, b"abc"))
        getattr(pump, end)()
        assert pump.cluster.endpoints[0].told == ["upstream_reset"]
        pump = Pump()
        pump.reuse_connection()
        pump.cluster.endpoints[0].told.clear()
        pump.client_sends(GET)
        pump.app_resets()
        pump.pool.accept()
        getattr(pump, end)()
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.cluster.endpoints[0].told == ["upstream_reset"]

    @pytest.mark.parametrize(
        ("happens", "reason"),
        [
            (lambda pump: (pump.app_sends(OK[:-1]), pump.app_resets()), "upstream_reset"),
            (lambda pump: pump.app_sends(b"220 ready\r\n\r\n"), "upstream_invalid_response"),
            (lambda pump: pump.pass_time(60.2), "upstream_timeout"),
        ],
        ids=["cut answer", "nonsense", "silence"],
    )
    def test_other_failures_on_a_kept_connection_count(self, happens: Callable[[Pump], object], reason: str) -> None:
        """An app that has begun to answer, or does not, has seen the request."""
        pump = Pump()
        pump.reuse_connection()
        pump.cluster.endpoints[0].told.clear()
        pump.client_sends(post(3, b"abc"))
        happens(pump)
        assert pump.last.reason == reason
        assert pump.cluster.endpoints[0].told == [reason]


class TestProxyHeader:
    """Clusters whose connections begin with a header in the client's name."""

    def pump(self, version: ProxyProtocolOut = ProxyProtocolOut.V1) -> Pump:
        pump = Pump()
        pump.cluster.proxy_protocol = version
        return pump

    def test_connection_is_asked_for_with_the_clients_name(self) -> None:
        """Both ends as the client has them."""
        pump = self.pump()
        pump.start_exchange()
        assert pump.pool.prefaces == [b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n"]

    def test_no_cluster_gets_one_unasked(self) -> None:
        """It would take it for a broken request."""
        pump = self.pump(ProxyProtocolOut.OFF)
        pump.start_exchange()
        assert pump.pool.prefaces == [b""]

    def test_same_client_uses_its_connection_again(self) -> None:
        """The app knows it by that."""
        pump = self.pump()
        pump.reuse_connection()
        pump.client_sends(GET)
        assert len(pump.pool.opened) == 1
        assert pump.app_receives().startswith(b"GET /x ")

    @pytest.mark.parametrize("what", ["another port", "another client", "another version"])
    def test_nobody_else_does(self, what: str) -> None:
        """The app would take one client for the other."""
        pump = self.pump()
        pump.reuse_connection()
        if what == "another version":
            pump.cluster.proxy_protocol = ProxyProtocolOut.V2
        else:
            pump.peer.remote = (
                HostPort("192.0.2.7", 50_001) if what == "another port" else HostPort("192.0.2.8", 50_000)
            )
        pump.client_sends(GET)
        assert len(pump.pool.waiting) == 1
        assert pump.pool.prefaces[1] != pump.pool.prefaces[0]
        assert len(pump.pool.idle) == 1

    def test_connection_without_one_is_not_for_it(self) -> None:
        """Nor the other way round."""
        pump = self.pump(ProxyProtocolOut.OFF)
        pump.reuse_connection()
        pump.cluster.proxy_protocol = ProxyProtocolOut.V1
        pump.client_sends(GET)
        assert len(pump.pool.waiting) == 1

    def test_repeat_has_it_too(self) -> None:
        """Every connection that is made for a request."""
        pump = self.pump()
        pump.reuse_connection()
        pump.client_sends(GET)
        pump.app_resets()
        assert len(pump.pool.prefaces) == 2
        assert pump.pool.prefaces[0] == pump.pool.prefaces[1] != b""


CHUNKED_POST = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class OnStreams:
    """A client of HTTP/1.1, and an app that is spoken to in HTTP/2; most requests are the second on a connection."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pump = Pump(timeouts=TIMEOUTS)
        self.backend = Backend(self.pump.clock, patch, settle=self.pump.settle)
        self.backend.serves(self.pump)

    def begun(self, *settings: tuple[int, int]) -> H2App:
        """Run one exchange, so that there is a connection; return its app."""
        self.pump.client_sends(GET)
        app = self.backend.accepts(*settings)
        app.answers(1)
        assert self.pump.received().endswith(b"\r\n\r\n0\r\n\r\n")
        assert self.pump.last == Ended(200, "", "")
        return app

    @property
    def told(self) -> list[str]:
        """What the endpoint was told, behind its first answer."""
        endpoint = self.pump.cluster.endpoints[0]
        assert endpoint.active == 0
        return endpoint.told[1:]


@pytest.fixture
def on_streams(monkeypatch: pytest.MonkeyPatch) -> OnStreams:
    return OnStreams(monkeypatch)


class TestOnAStream:
    """HTTP/1.1 in front of an app that speaks HTTP/2."""

    def test_exchanges_follow_each_other_on_one_connection(self, on_streams: OnStreams) -> None:
        """The client's connection and the app's are both kept."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        asked = app.asked[3]
        assert (asked.fields[b":authority"], asked.fields[b":path"], asked.is_ended) == (b"a", b"/x", True)
        assert asked.fields[b"x-forwarded-for"] == b"192.0.2.7"
        assert {b"connection", b"host"}.isdisjoint(asked.fields)
        app.answers(3, b"ok", (b"content-length", b"2"))
        assert on_streams.pump.received() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        assert (on_streams.pump.last, on_streams.told) == (Ended(200, "", ""), [""])
        assert on_streams.backend.waiting == []

    def test_body_without_length_is_chunked(self, on_streams: OnStreams) -> None:
        """Trailers pass to a client that asked for them."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\nConnection: TE\r\n\r\n"))
        assert app.asked[3].fields[b"te"] == b"trailers"
        app.sends(begun_answer(3), content(3, b"ab"), trailers(3, [(b"checksum", b"1")]))
        received = on_streams.pump.received()
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n2\r\nab\r\n0\r\nchecksum: 1\r\n\r\n")

    def test_trailers_are_dropped_for_a_client_that_did_not_ask(self, on_streams: OnStreams) -> None:
        """It might take them for a part of the body."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        app.sends(begun_answer(3), content(3, b"ab"), trailers(3, [(b"checksum", b"1")]))
        assert on_streams.pump.received().endswith(b"2\r\nab\r\n0\r\n\r\n")

    def test_http10_gets_its_end_with_that_of_the_connection(self, on_streams: OnStreams) -> None:
        """It knows no chunks."""
        on_streams.pump.client_sends(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        on_streams.backend.accepts().answers(1, b"ab")
        assert on_streams.pump.received().endswith(b"\r\n\r\nab")
        assert on_streams.pump.tls.ending == "close"

    @pytest.mark.parametrize(
        ("method", "status", "field"),
        [(b"HEAD", b"200", b"1000"), (b"GET", b"204", None), (b"GET", b"304", b"1000")],
        ids=["HEAD", "204", "304"],
    )
    @pytest.mark.parametrize("is_split", [False, True], ids=["end with the head", "end in DATA"])
    def test_response_without_body_ends_with_its_head(
        self, on_streams: OnStreams, method: bytes, status: bytes, field: bytes | None, is_split: bool
    ) -> None:
        """Whatever length it tells of; the next response is not mixed up with it."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET.replace(b"GET", method))
        more = [(b"content-length", field)] if field else []
        if is_split:
            app.sends(begun_answer(3, *more, status=status), frames.data(3, b"", frames.END_STREAM))
        else:
            app.answers(3, b"", *more, status=status)
        received = on_streams.pump.received()
        assert received.startswith(b"HTTP/1.1 %b " % status)
        assert received.endswith(b"\r\n\r\n")
        assert b"chunked" not in received
        assert on_streams.pump.last == Ended(int(status), "", "")
        on_streams.pump.client_sends(GET)
        assert 5 in app.asked

    def test_chunked_body_and_its_trailers_go_on_unframed(self, on_streams: OnStreams) -> None:
        """The frames of HTTP/2 take the place of chunks; fields that are ours to write are dropped."""
        app = on_streams.begun()
        on_streams.pump.client_sends(CHUNKED_POST)
        assert b"transfer-encoding" not in app.asked[3].fields
        on_streams.pump.client_sends(b"3\r\nabc\r\n")
        assert (app.asked[3].body, app.asked[3].is_ended) == (b"abc", False)
        on_streams.pump.client_sends(b"3\r\ndef\r\n0\r\nChecksum: 1\r\nX-Forwarded-For: evil\r\n\r\n")
        asked = app.asked[3]
        assert (asked.body, asked.trailers, asked.is_ended) == (b"abcdef", {b"checksum": b"1"}, True)

    def test_trailers_that_none_may_pass_end_the_request_all_the_same(self, on_streams: OnStreams) -> None:
        """The app must not wait for more."""
        app = on_streams.begun()
        on_streams.pump.client_sends(CHUNKED_POST + b"1\r\na\r\n0\r\nX-Forwarded-For: evil\r\n\r\n")
        asked = app.asked[3]
        assert (asked.body, asked.trailers, asked.is_ended) == (b"a", None, True)

    def test_app_without_room_pauses_the_client(self, on_streams: OnStreams) -> None:
        """Its windows are what backpressure is on a connection of its own."""
        app = on_streams.begun((frames.INITIAL_WINDOW_SIZE, 4))
        on_streams.pump.client_sends(post(10, b"0123456"))
        assert app.asked[3].body == b"0123"
        assert not on_streams.pump.peer.is_reading
        app.gives(3, 2)
        assert not on_streams.pump.peer.is_reading
        app.gives(3, 100)
        assert on_streams.pump.peer.is_reading
        on_streams.pump.client_sends(b"789")
        assert (app.asked[3].body, app.asked[3].is_ended) == (b"0123456789", True)

    def test_app_that_gives_credit_slowly_is_waited_for(self, on_streams: OnStreams) -> None:
        """As long as it takes any of the request within the timeout; then the client is told."""
        app = on_streams.begun((frames.INITIAL_WINDOW_SIZE, 0))
        on_streams.pump.client_sends(post(10, b"0123456789"))
        for _ in range(5):
            on_streams.pump.pass_time(3.9)
            app.gives(3, 1)
        on_streams.pump.pass_time(3.9)
        assert len(on_streams.pump.log.ended) == 1
        on_streams.pump.pass_time(4.2)
        assert on_streams.pump.last == Ended(504, "upstream_timeout", "")
        assert app.asked[3].reset == frames.CANCEL

    def test_client_that_does_not_read_costs_the_app_its_window(self, on_streams: OnStreams) -> None:
        """No more than that is held for it; credit comes back when it reads again."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        on_streams.pump.tls.stop_taking()
        app.sends(begun_answer(3), content(3, b"a"))
        app.reads()
        before = app.credit.get(3, 0)
        app.sends(content(3, b"b" * (LEAST_WINDOW - 1)))
        app.reads()
        assert app.credit.get(3, 0) == before
        on_streams.pump.tls.take()
        on_streams.pump.settle()
        app.reads()
        assert app.credit[3] >= LEAST_WINDOW - 1
        app.sends(content(3, b"c", ends=True))
        assert on_streams.pump.log.exchanges[-1].bytes_sent == LEAST_WINDOW + 1

    def test_early_response_ends_both_sides(self, on_streams: OnStreams) -> None:
        """The app need not take the rest of a request that it has answered; its connection goes on."""
        app = on_streams.begun()
        on_streams.pump.client_sends(post(10, b"abc"))
        app.sends(answer(3, b"no", status=b"413"), frames.rst_stream(3, frames.NO_ERROR))
        assert on_streams.pump.received().startswith(b"HTTP/1.1 413 ")
        assert (on_streams.pump.last, on_streams.told) == (Ended(413, "", ""), [""])
        assert app.transport.is_open

    @pytest.mark.parametrize("data", [b"", begun_answer(3)], ids=["waiting", "streaming"])
    def test_client_that_leaves_cancels_its_request(self, on_streams: OnStreams, data: bytes) -> None:
        """The app hears of it, and is not blamed; its connection goes on."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        app.sends(data)
        on_streams.pump.client_vanishes()
        assert app.asked[3].reset == frames.CANCEL
        assert on_streams.pump.last == Ended(200 if data else 0, "downstream_lost", "")
        assert (on_streams.told, app.transport.is_open) == ([], True)

    def test_client_that_leaves_before_there_is_a_connection_asks_nothing(self, on_streams: OnStreams) -> None:
        """The connection is there for others."""
        on_streams.pump.client_sends(GET)
        on_streams.pump.client_vanishes()
        app = on_streams.backend.accepts()
        assert app.asked == {}
        assert on_streams.pump.last == Ended(0, "downstream_lost", "")
        assert on_streams.backend.pool.idle_count == 1

    def test_malformed_response_is_answered_with_502(self, on_streams: OnStreams) -> None:
        """What is no HTTP never reaches the client; the detail says which rule it broke."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        app.sends(begun_answer(3, (b"connection", b"close")))
        assert on_streams.pump.received().startswith(b"HTTP/1.1 502 ")
        assert on_streams.pump.last.reason == "upstream_invalid_response"
        assert on_streams.pump.last.detail
        assert (on_streams.told, app.asked[3].reset) == (["upstream_invalid_response"], frames.PROTOCOL_ERROR)

    def test_app_that_does_not_speak_http2_is_answered_with_502(self, on_streams: OnStreams) -> None:
        """The client and the log hear what to set right."""
        on_streams.pump.client_sends(GET)
        on_streams.backend.connects().sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert b"does not speak HTTP/2 without TLS (h2c)" in on_streams.pump.received()
        assert (on_streams.pump.last.status, on_streams.pump.last.reason) == (502, "upstream_not_http2")
        assert on_streams.pump.cluster.endpoints[0].told == ["upstream_not_http2"]

    @pytest.mark.parametrize("end", ["closes", "vanishes", "resets"])
    def test_response_that_breaks_off_is_cut(self, on_streams: OnStreams, end: str) -> None:
        """It must not look whole, and is not asked for again."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        app.sends(begun_answer(3), content(3, b"ab"))
        app.sends(frames.rst_stream(3, frames.NO_ERROR)) if end == "resets" else getattr(app, end)()
        assert on_streams.pump.tls.ending == "abort"
        assert on_streams.pump.received().endswith(b"2\r\nab\r\n")
        assert on_streams.pump.last == Ended(200, "upstream_reset", "")
        assert on_streams.backend.waiting == []


# What the app says, and where the request turns up again: the number of the connection, and the stream.
REFUSALS = {"went away": (frames.goaway(1), 1, 1), "refused": (frames.rst_stream(3, frames.REFUSED_STREAM), 0, 5)}


class TestOtherVersion:
    def test_app_that_speaks_http2_is_told_as_such(self) -> None:
        """A gRPC server behind http:// begins with SETTINGS; operators learn what to write."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64")
        assert pump.received().startswith(b"HTTP/1.1 502 ")
        assert pump.last.reason == "upstream_not_http1"
        assert "h2c://" in pump.last.detail
        assert "h2c://" in str(pump.pool.misfit)


class TestRepeatingOnStreams:
    @pytest.mark.parametrize(("refusal", "number", "stream_id"), REFUSALS.values(), ids=REFUSALS)
    @pytest.mark.parametrize("request_bytes", [GET, post(3, b"abc")], ids=["GET", "POST"])
    def test_what_the_app_has_not_looked_at_is_sent_again(
        self, on_streams: OnStreams, refusal: bytes, number: int, stream_id: int, request_bytes: bytes
    ) -> None:
        """Whatever its method, with its body; the endpoint is not to blame."""
        first = on_streams.begun()
        on_streams.pump.client_sends(request_bytes)
        first.sends(refusal)
        on_streams.pump.settle()
        if number:
            on_streams.backend.accepts()
        assert on_streams.backend.waiting == []  # one that refuses has room for it, when it has ended others
        again = on_streams.backend.apps[number]
        assert again.asked[stream_id] == first.asked[3]
        again.answers(stream_id)
        assert (on_streams.pump.last, on_streams.told) == (Ended(200, "", ""), [""])
        assert on_streams.pump.service.metrics.upstream_retries == 1

    @pytest.mark.parametrize("second", ["goaway", "refused"])
    def test_second_refusal_is_answered(self, on_streams: OnStreams, second: str) -> None:
        """An app that never takes it must not be asked for ever."""
        app = on_streams.begun()
        on_streams.pump.client_sends(post(3, b"abc"))
        app.sends(frames.goaway(1))
        app = on_streams.backend.accepts()
        assert app.unanswered == [1]
        app.sends(frames.goaway(0) if second == "goaway" else frames.rst_stream(1, frames.REFUSED_STREAM))
        assert on_streams.pump.received().startswith(b"HTTP/1.1 502 ")
        assert on_streams.pump.last == Ended(502, "upstream_reset", "")
        assert (on_streams.told, on_streams.backend.waiting) == (["upstream_reset"], [])
        assert len(on_streams.pump.log.ended) == 2

    @pytest.mark.parametrize("end", ["closes", "vanishes"])
    def test_lost_connection_costs_only_what_is_not_safe_to_repeat(self, on_streams: OnStreams, end: str) -> None:
        """The app may have acted on it."""
        app = on_streams.begun()
        on_streams.pump.client_sends(GET)
        getattr(app, end)()
        app = on_streams.backend.accepts()
        app.answers(1, b"again")
        assert on_streams.pump.last == Ended(200, "", "")
        on_streams.pump.received()
        on_streams.pump.client_sends(post(3, b"abc"))
        getattr(app, end)()
        assert on_streams.pump.received().startswith(b"HTTP/1.1 502 ")
        assert on_streams.pump.last == Ended(502, "upstream_reset", "")
        assert on_streams.backend.waiting == []

    @pytest.mark.parametrize("code", [frames.INTERNAL_ERROR, frames.CANCEL], ids=["INTERNAL_ERROR", "CANCEL"])
    @pytest.mark.parametrize("request_bytes", [GET, post(3, b"abc")], ids=["GET", "POST"])
    def test_stream_that_the_app_ends_alone_is_its_failure(
        self, on_streams: OnStreams, request_bytes: bytes, code: int
    ) -> None:
        """It has looked at the request, on a connection that is well: nothing is repeated, and it counts against it."""
        app = on_streams.begun()
        on_streams.pump.client_sends(request_bytes)
        app.sends(frames.rst_stream(3, code))
        assert on_streams.pump.received().startswith(b"HTTP/1.1 502 ")
        assert on_streams.pump.last == Ended(502, "upstream_reset", "")
        assert on_streams.told[-1] == "upstream_reset"
        assert on_streams.backend.waiting == []

    def test_lost_connection_costs_whom_it_was_made_for(self, on_streams: OnStreams) -> None:
        """An app that fails at once would be asked for ever."""
        on_streams.pump.client_sends(GET)
        on_streams.backend.accepts().vanishes()
        assert on_streams.pump.last == Ended(502, "upstream_reset", "")
        assert on_streams.backend.waiting == []

    def test_rest_of_the_body_follows_on_the_new_connection(self, on_streams: OnStreams) -> None:
        """The app gets all of it, in order, also what it had no room for."""
        app = on_streams.begun((frames.INITIAL_WINDOW_SIZE, 2))
        on_streams.pump.client_sends(CHUNKED_POST + b"3\r\nabc\r\n")
        assert not on_streams.pump.peer.is_reading
        app.sends(frames.goaway(1))
        app = on_streams.backend.accepts((frames.INITIAL_WINDOW_SIZE, 4))
        assert on_streams.pump.peer.is_reading
        on_streams.pump.client_sends(b"3\r\ndef\r\n0\r\nChecksum: 1\r\n\r\n")
        app.gives(1, 100)
        asked = app.asked[1]
        assert (asked.body, asked.trailers, asked.is_ended) == (b"abcdef", {b"checksum": b"1"}, True)
        app.answers(1)
        assert on_streams.pump.last == Ended(200, "", "")

    @pytest.mark.parametrize(("size", "status"), [(60_000, 200), (MAX_REPEATED_BYTES, 502)])
    def test_long_request_is_not_kept(self, on_streams: OnStreams, size: int, status: int) -> None:
        """What would have to be held for all of them is bounded."""
        app = on_streams.begun()
        on_streams.pump.client_sends(post(size, bytes(size)))
        app.sends(frames.goaway(1))
        if on_streams.backend.waiting:
            on_streams.backend.accepts().answers(1)
        assert on_streams.pump.last.status == status


class TestManyOnOneConnection:
    """Clients of HTTP/2 in front of such an app."""

    @pytest.fixture
    def pump(self) -> H2Pump:
        """A client that takes little of each response."""
        return H2Pump((frames.INITIAL_WINDOW_SIZE, 10))

    @pytest.fixture
    def backend(self, pump: H2Pump, monkeypatch: pytest.MonkeyPatch) -> Backend:
        backend = Backend(pump.clock, monkeypatch, settle=pump.settle)
        backend.serves(pump)
        return backend

    def test_answers_come_in_any_order(self, pump: H2Pump, backend: Backend) -> None:
        """Each to its own stream, with its trailers."""
        asked = [pump.request(fields(b"GET", b"/%d" % i)) for i in range(20)]
        app = backend.accepts()
        assert [each.fields[b":path"] for each in app.asked.values()] == [b"/%d" % i for i in range(20)]
        for stream_id in reversed(app.unanswered):
            body = app.asked[stream_id].fields[b":path"]
            app.sends(begun_answer(stream_id), content(stream_id, body), trailers(stream_id, [(b"grpc-status", b"0")]))
        for i, stream_id in enumerate(asked):
            got = pump.answer(stream_id)
            assert (got.body, got.trailers, got.is_whole) == (b"/%d" % i, {b"grpc-status": b"0"}, True)
        assert pump.log.ended == [Ended(200, "", "")] * 20
        assert (backend.pool.open_count, backend.pool.idle_count) == (1, 1)

    def test_unread_response_does_not_stop_the_others(self, pump: H2Pump, backend: Backend) -> None:
        """The app stops with that one when it has sent its window full."""
        unread, read = pump.request(), pump.request()
        app = backend.accepts()
        app.sends(begun_answer(1), content(1, bytes(65_536)))
        app.sends(begun_answer(3), content(3, b"a" * 10))
        app.reads()
        assert pump.answer(unread).body == bytes(10)
        assert pump.answer(read).body == b"a" * 10
        assert 1 not in app.credit
        pump.gives(0, 100_000)
        pump.gives(unread, 100_000)
        app.reads()
        assert len(pump.answer(unread).body) == app.credit[1] == 65_536

    def test_client_gets_credit_as_its_bytes_leave(self, pump: H2Pump, backend: Backend) -> None:
        """What the app does not take, the client cannot send more of."""
        stream_id = pump.request(fields(b"POST"), b"", ends=False)
        app = backend.accepts((frames.INITIAL_WINDOW_SIZE, 1000))
        for _ in range(4):
            pump.client_sends(frames.data(stream_id, bytes(16_000)))
        assert len(app.asked[1].body) == 1000
        assert pump.credit.get(stream_id, 0) <= 16_000
        app.gives(1, 63_000)
        assert len(app.asked[1].body) == 64_000
        assert pump.credit[stream_id] >= 48_000

    def test_app_that_goes_away_keeps_some_and_gives_back_the_others(self, pump: H2Pump, backend: Backend) -> None:
        """Those share one new connection."""
        asked = [pump.request(fields(b"POST", b"/%d" % i), b"x") for i in range(6)]
        old = backend.accepts()
        old.sends(frames.goaway(5))
        assert len(backend.waiting) == 1
        new = backend.accepts()
        assert [each.fields[b":path"] for each in new.asked.values()] == [b"/3", b"/4", b"/5"]
        for app, stream_ids in ((new, (1, 3, 5)), (old, (1, 3, 5))):
            for stream_id in stream_ids:
                app.answers(stream_id)
        assert all(pump.answer(stream_id).is_whole for stream_id in asked)
        assert pump.log.ended == [Ended(200, "", "")] * 6
        assert (old.transport.is_open, new.transport.is_open) == (False, True)


@attrs.define
class _Ask:
    """
    A request of a client of HTTP/2, and how far it has come; its path is its number.

    Attributes:
        body: What it is to consist of; b"": it has none.
        sent: How many bytes of that have left.
    """

    stream_id: int
    body: bytes
    sent: int = 0
    is_whole: bool = False
    is_reset: bool = False


class _Chaos:
    """
    Clients, the proxy and apps that do anything that HTTP/2 lets them do, in any order.

    An answer's body is the request's number, over and over; how far each has come is known by its connection and
    stream, so that a request that is sent again is answered anew.
    """

    ANSWER_BYTES = 300

    def __init__(self, patch: pytest.MonkeyPatch, client_window: int) -> None:
        self.pump = H2Pump((frames.INITIAL_WINDOW_SIZE, client_window))
        self.backend = Backend(self.pump.clock, patch, settle=self.pump.settle)
        self.backend.serves(self.pump)
        self.asks: list[_Ask] = []
        self.answered: dict[tuple[int, int], int] = {}  # bytes of each answer that was begun
        self.over: set[tuple[int, int]] = set()
        self.gone_away: dict[int, int] = {}

    # -- the client --

    def ask(self, size: int) -> None:
        body = b"".join(b"%d," % i for i in range(size))[:size]
        path = b"/%d" % len(self.asks)
        method = b"POST" if size % 2 else b"PUT"
        stream_id = self.pump.request(fields(method, path), b"" if body else None, ends=not body)
        self.asks.append(_Ask(stream_id, body, is_whole=not body))

    def send_more(self, which: int) -> None:
        for ask in self._some(self.asks, which):
            if not ask.is_whole and not ask.is_reset and self.pump.answer(ask.stream_id).reset is None:
                piece = ask.body[ask.sent : ask.sent + 70]
                ask.sent += len(piece)
                ask.is_whole = ask.sent == len(ask.body)
                end = frames.END_STREAM if ask.is_whole else 0
                self.pump.client_sends(frames.data(ask.stream_id, piece, end))

    def leave(self, which: int) -> None:
        for ask in self._some(self.asks, which):
            answer = self.pump.answer(ask.stream_id)
            if not (ask.is_reset or answer.is_ended or answer.reset is not None):
                ask.is_reset = True
                self.pump.resets(ask.stream_id)

    def take(self, which: int) -> None:
        for ask in self._some(self.asks, which):
            answer = self.pump.answer(ask.stream_id)
            if not (ask.is_reset or answer.is_ended or answer.reset is not None):
                self.pump.gives(ask.stream_id, 90)

    # -- the app --

    def connect(self, which: int) -> None:
        if self.backend.waiting:
            self.backend.accepts((frames.MAX_CONCURRENT_STREAMS, which % 4), (frames.INITIAL_WINDOW_SIZE, which * 9))

    def refuse(self, which: int) -> None:
        if self.backend.waiting:
            self.backend.connects().sends(b"HTTP/1.1 400 Bad Request\r\n\r\n") if which % 2 else self.backend.refuses()

    def reply(self, which: int) -> None:
        for number, app, stream_id in self._some(self._open_streams(), which):
            self._reply(number, app, stream_id, 110)

    def _reply(self, number: int, app: H2App, stream_id: int, most: int) -> None:
        at = self.answered.get((number, stream_id))
        if at is None:
            self.answered[number, stream_id] = 0
            app.sends(begun_answer(stream_id))
            return
        piece = _answer_to(app.asked[stream_id].fields[b":path"])[at : at + most]
        self.answered[number, stream_id] = at + len(piece)
        is_last = at + len(piece) == self.ANSWER_BYTES
        if is_last:
            self.over.add((number, stream_id))
        app.sends(content(stream_id, piece, ends=is_last and bool(at % 4)))
        if is_last and not at % 4:
            app.sends(trailers(stream_id, [(b"checksum", b"1")]))

    def give(self, which: int) -> None:
        for _, app, stream_id in self._some(self._open_streams(), which):
            app.gives(stream_id, 60)

    def cancel(self, which: int) -> None:
        for number, app, stream_id in self._some(self._open_streams(), which):
            self.over.add((number, stream_id))
            app.sends(frames.rst_stream(stream_id, (frames.REFUSED_STREAM, frames.CANCEL, frames.NO_ERROR)[which % 3]))

    def go_away(self, which: int) -> None:
        for number, app in self._some(self._open_apps(), which):
            last = min(self.gone_away.get(number, 1000), max(app.asked, default=0) - which % 3 * 2)
            self.gone_away[number] = max(0, last)
            self.over |= {(number, stream_id) for stream_id in app.asked if stream_id > last}
            app.sends(frames.goaway(max(0, last)))

    def set_room(self, which: int) -> None:
        for _, app in self._some(self._open_apps(), which):
            app.sends(frames.settings((frames.MAX_CONCURRENT_STREAMS, which % 5)))

    def lose(self, which: int) -> None:
        for _, app in self._some(self._open_apps(), which):
            app.closes() if which % 2 else app.vanishes()

    def stop_taking(self, which: int) -> None:
        for _, app in self._some(self._open_apps(), which):
            app.transport.stop_taking()

    def take_again(self, which: int) -> None:
        for _, app in self._some(self._open_apps(), which):
            app.takes()

    def wait(self, which: int) -> None:
        self.pump.pass_time(which % 3 * 0.9)

    # -- the end --

    def finish(self) -> None:
        """Everybody does what is to be done, until nothing is."""
        for _ in range(400):
            if len(self.pump.log.ended) == len(self.asks) and all(map(self._is_over, self.asks)):
                return
            self._do_all()
        raise AssertionError("it does not come to an end")

    def _do_all(self) -> None:
        if self.backend.waiting:
            self.backend.accepts((frames.INITIAL_WINDOW_SIZE, 10_000))
        for _, app in self._open_apps():
            app.takes()
        for number, app, stream_id in self._open_streams():
            app.gives(0, 1000)
            app.gives(stream_id, 1000)
            if (number, stream_id) in self._open_ids():
                self._reply(number, app, stream_id, 1000)
        for which in range(len(self.asks)):
            self.send_more(which)
            self.take(which)
        self.pump.gives(0, 1000)
        self.pump.settle()

    def _is_over(self, ask: _Ask) -> bool:
        answer = self.pump.answer(ask.stream_id)
        return ask.is_reset or answer.is_ended or answer.reset is not None

    def _open_apps(self) -> list[tuple[int, H2App]]:
        return [
            (i, app) for i, app in enumerate(self.backend.apps) if app.transport.is_open and app.transport.is_reading
        ]

    def _open_ids(self) -> set[tuple[int, int]]:
        return {(number, stream_id) for number, _, stream_id in self._open_streams()}

    def _open_streams(self) -> list[tuple[int, H2App, int]]:
        return [
            (number, app, stream_id)
            for number, app in self._open_apps()
            for stream_id in app.unanswered
            if (number, stream_id) not in self.over
        ]

    @staticmethod
    def _some(things: list[T], which: int) -> list[T]:
        return [things[which % len(things)]] if things else []


def _answer_to(path: bytes) -> bytes:
    return (path * _Chaos.ANSWER_BYTES)[: _Chaos.ANSWER_BYTES]


ACTIONS = (
    [_Chaos.ask] * 3 + [_Chaos.reply] * 4 + [_Chaos.send_more] * 3 + [_Chaos.connect, _Chaos.give, _Chaos.take] * 2
)
ACTIONS += [_Chaos.cancel, _Chaos.go_away, _Chaos.lose, _Chaos.refuse, _Chaos.leave, _Chaos.set_room, _Chaos.wait]
ACTIONS += [_Chaos.stop_taking, _Chaos.take_again]


class TestAnythingOnStreams:
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 300)), min_size=5, max_size=60),
        st.sampled_from([0, 7, 100, 65_535]),
    )
    def test_each_is_recorded_once_and_no_byte_is_lost_or_doubled(
        self, actions: list[tuple[Callable[[_Chaos, int], None], int]], client_window: int
    ) -> None:
        """Whatever happens in whatever order; in the end nothing is counted any more."""
        with pytest.MonkeyPatch.context() as patch, capturedLogs() as logs:
            chaos = _Chaos(patch, client_window)
            for act, which in actions:
                act(chaos, which)
            chaos.finish()
            pump, pool = chaos.pump, chaos.backend.pool
            assert [event for event in logs if event["log_level"] >= LogLevel.error] == []
            assert pump.cluster.endpoints[0].active == 0
            for number, ask in enumerate(chaos.asks):
                got = pump.answer(ask.stream_id)
                if got.status == 200:
                    assert _answer_to(b"/%d" % number).startswith(got.body)
                    assert not got.is_whole or len(got.body) == _Chaos.ANSWER_BYTES
                else:
                    assert got.status in (0, 502, 503)
            for app in chaos.backend.apps:
                for asked in app.asked.values():
                    ask = chaos.asks[int(asked.fields[b":path"][1:])]
                    assert ask.body.startswith(asked.body)
                    assert not asked.is_ended or asked.body == ask.body
            pool.stop()
            while chaos.backend.waiting:
                chaos.backend.refuses()
            for app in chaos.backend.apps:
                app.takes()
            pump.pass_time(2.0)
            assert (pool.open_count, pool.idle_count, pool.pending_count) == (0, 0, 0)
