"""`proxy.downstream`: one client's connection, request after request."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
import pytest

from sidecar.policy.access import access_of, default_rule
from sidecar.policy.authz import NO_CERTIFICATE, Decision, Presented, Refusal
from sidecar.policy.forwarding import Hop, TrustedProxies
from sidecar.policy.identity import identity_of
from sidecar.proxy.downstream import (
    DRAIN_IDLE_SECONDS,
    LINGER_SECONDS,
    UNVERIFIED_IDLE_SECONDS,
    DownstreamConnection,
)
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.routing import Destination, Router
from sidecar.proxy.sockets import MAX_READ_SIZE
from sidecar.settings import (
    ByteCount,
    ClientCertMode,
    ClientSettings,
    HostPort,
    HttpSettings,
    Limits,
    PathPatterns,
    RulesText,
    Seconds,
    Switch,
    Timeouts,
    UnderscoreHeaders,
)
from sidecar.tls.session import NO_TLS
from sidecar.tls.verify import Verification, VerifyReason
from sidecar.topology import (
    ClientRule,
    DirectResponse,
    Redirect,
    Route,
    RouteMatch,
    ToCluster,
    VirtualHost,
)
from sidecar.wire.head import parse_request_head
from tests.support.certs import CLIENT, authority
from tests.support.ports import FakeCluster, FakePool
from tests.support.pump import ADMITTED, FORWARDING, SESSION, Ended, Pump

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
REQUIRED = ClientCertMode.REQUIRED
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUTS = Timeouts(
    header=Seconds(1.0), idle=Seconds(2.0), body=Seconds(3.0), upstream=Seconds(40.0), stream=Seconds(50.0)
)


def refused(refusal: Refusal) -> Decision:
    """The decision that leads to *refusal*."""
    return Decision(
        is_allowed=False,
        status=refusal.status,
        reason=refusal.reason,
        message=refusal.message,
        reasons=(),
        rule="default",
    )


class TestPipelining:
    def test_requests_are_answered_in_order(self) -> None:
        """Each request waits for the response before it."""
        pump = Pump()
        pump.start_exchange(GET.replace(b"/x", b"/1") + GET.replace(b"/x", b"/2") + GET.replace(b"/x", b"/3"))
        for number in (b"1", b"2", b"3"):
            assert pump.app_receives().startswith(b"GET /%b " % number)
            pump.app_sends(OK.replace(b"ok", b"0" + number))
        assert pump.received() == b"".join(OK.replace(b"ok", b"0" + number) for number in (b"1", b"2", b"3"))
        assert len(pump.pool.opened) == 1

    def test_further_requests_pause_the_client(self) -> None:
        """What is held of later requests is bounded: their sender waits."""
        pump = Pump()
        pump.start_exchange()
        pump.client_sends(GET)
        assert not pump.peer.is_reading
        pump.app_sends(OK)
        assert pump.peer.is_reading

    def test_part_of_a_request_is_held(self) -> None:
        """A next head that has not fully arrived is completed later."""
        pump = Pump()
        pump.start_exchange(GET + GET[:10])
        pump.app_sends(OK)
        pump.app_receives()
        pump.client_sends(GET[10:])
        assert pump.app_receives().startswith(b"GET /x ")

    def test_malformed_second_request_is_refused_after_the_first_answer(self) -> None:
        """A good request is answered, whatever follows it; then the connection closes."""
        pump = Pump()
        pump.start_exchange(GET + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert pump.received() == b""
        pump.app_sends(OK)
        data = pump.received()
        assert data.startswith(OK + b"HTTP/1.1 400 Bad Request\r\n")
        assert [ended.status for ended in pump.log.ended] == [200, 400]
        assert pump.tls.ending == "linger"

    def test_body_and_next_request_in_one_piece_are_told_apart(self) -> None:
        """The end of a body is where its framing says."""
        pump = Pump()
        pump.start_exchange(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
        assert pump.app_receives().endswith(b"\r\n\r\nabc")
        pump.app_sends(OK)
        assert pump.app_receives().startswith(b"GET /x ")


class TestReadSize:
    HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\n"

    def upload(self, framing: bytes, *pieces: bytes) -> Pump:
        pump = Pump()
        pump.start_exchange(self.HEAD + framing + b"\r\n\r\n")
        for piece in pieces:
            pump.client_sends(piece)
        return pump

    @pytest.mark.parametrize(
        ("piece", "expected"),
        [(65_000, 130_000), (131_000, 262_000), (262_144, MAX_READ_SIZE), (5, 10)],
        ids=["large", "larger", "the most", "of tiny records"],
    )
    def test_body_of_known_length_is_read_in_larger_pieces(self, piece: int, expected: int) -> None:
        """While it flows, twice what came last may come next, up to a limit; tiny records let it shrink again."""
        pump = self.upload(b"Content-Length: 9000000", bytes(262_144), bytes(piece))
        assert pump.peer.read_size == expected

    def test_nothing_behind_the_body_is_read_with_it(self) -> None:
        """No more is asked for than the body has: what follows is a head, and costs as much to parse as any."""
        pump = self.upload(b"Content-Length: 150000", bytes(100_000))
        assert pump.peer.read_size == 50_000
        pump.client_sends(bytes(50_000))
        assert pump.peer.read_size == 0

    def test_chunks_are_read_in_small_pieces(self) -> None:
        """A chunked body has to be parsed: one turn takes a bounded part of it."""
        pump = self.upload(b"Transfer-Encoding: chunked", b"10000\r\n" + bytes(65_536) + b"\r\n")
        assert pump.peer.read_size == 0


class TestDeadlines:
    def test_silent_client_is_closed_at_the_idle_timeout(self) -> None:
        """Nothing was asked, so nothing is answered."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.pass_time(1.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "close"
        assert pump.received() == b""
        assert not pump.log.ended

    def test_idle_timeout_begins_with_the_answer(self) -> None:
        """Keep-alive lasts from response to request."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.pass_time(1.5)
        pump.start_exchange()
        pump.pass_time(1.5)
        pump.app_sends(OK)
        pump.pass_time(1.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "close"

    def test_slow_head_gets_408(self) -> None:
        """A head has the header timeout from its first byte, however it trickles."""
        pump = Pump(timeouts=TIMEOUTS)
        for byte in GET[:12]:
            pump.client_sends(bytes([byte]))
            pump.pass_time(0.08)
        assert not pump.tls.ending
        pump.pass_time(0.1)
        data = pump.received()
        assert data.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert data.endswith(b"\r\n\r\nThe request head did not arrive in time.\n")
        assert pump.last == Ended(408, "header_timeout", "The request head did not arrive in time.")

    def test_slow_second_head_gets_408(self) -> None:
        """The part of a pipelined head that is there already starts its deadline when its turn comes."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.start_exchange(GET + GET[:10])
        pump.app_sends(OK)
        pump.received()
        pump.pass_time(1.1)
        assert pump.received().startswith(b"HTTP/1.1 408 ")

    def test_empty_lines_do_not_keep_a_connection(self) -> None:
        """CRLF before a request is ignored, also by the idle timeout."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.client_sends(b"\r\n")
        pump.pass_time(1.9)
        pump.client_sends(b"\r\n")
        pump.pass_time(0.2)
        assert pump.tls.ending == "close"

    @pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["at first", "after a request"])
    def test_empty_lines_in_two_pieces_do_not_keep_a_connection(self, before: bytes) -> None:
        """The same where they come byte by byte: neither the idle timeout nor that of a head begins anew."""
        pump = Pump(timeouts=TIMEOUTS)
        if before:
            pump.start_exchange(before)
            pump.app_sends(OK)
        for _ in range(20):
            pump.client_sends(b"\r")
            pump.pass_time(0.05)
            pump.client_sends(b"\n")
            pump.pass_time(0.05)
            if pump.tls.ending:
                break
        else:
            pump.pass_time(0.1)
        assert pump.tls.ending == "close"
        assert pump.clock.seconds() < 2.2
        assert pump.log.ended == ([Ended(200, "", "")] if before else [])

    def test_head_behind_half_an_empty_line_has_its_timeout(self) -> None:
        """The first byte of a request starts the timeout of its head, whatever came before."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.client_sends(b"\r")
        pump.pass_time(1.5)
        pump.client_sends(b"\nG")
        pump.pass_time(0.9)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.received().startswith(b"HTTP/1.1 408 ")

    def test_closing_client_that_does_not_read_is_aborted(self) -> None:
        """Our last answer has the body timeout to be taken."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.tls.stop_taking()
        pump.client_sends(b"nonsense\r\n\r\n")
        pump.pass_time(2.9)
        assert pump.tls.ending == "linger"
        pump.pass_time(0.2)
        assert pump.tls.ending == "abort"

    def test_closing_client_that_does_not_close_is_aborted(self) -> None:
        """A client that has been told has two seconds to go."""
        pump = Pump(timeouts=TIMEOUTS)
        pump.client_sends(b"nonsense\r\n\r\n")
        pump.pass_time(1.9)
        assert pump.tls.ending == "linger"
        pump.pass_time(0.2)
        assert pump.tls.ending == "abort"


class TestRefusals:
    @pytest.mark.parametrize(
        ("request_bytes", "status", "reason"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, None),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, None),
            (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 20_000), 414, "uri_too_long"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 60_000), 431, "header_too_large"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "bad_transfer_encoding"),
            (
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
                "both_framings",
            ),
        ],
        ids=["no host", "bare LF", "version", "target", "head size", "coding", "two framings"],
    )
    def test_bad_head_is_answered_and_not_forwarded(
        self, request_bytes: bytes, status: int, reason: str | None
    ) -> None:
        """A client that breaks a rule is told which kind, and its connection closes."""
        pump = Pump(limits=Limits(header_bytes=ByteCount(32 * 1024)))
        pump.client_sends(request_bytes)
        assert pump.received().startswith(b"HTTP/1.1 %d " % status)
        assert pump.last.status == status
        assert reason is None or pump.last.reason == reason
        assert pump.tls.ending == "linger"
        assert not pump.pool.waiting
        assert pump.service.metrics.requests == 1

    @pytest.mark.parametrize(
        "refusal",
        [
            Refusal(400, "client_certificate_missing", "This server requires a client certificate; none was sent."),
            Refusal(403, "client_certificate_invalid", "Refused: the client certificate has expired."),
        ],
        ids=["400", "403"],
    )
    def test_refused_client_gets_a_readable_answer(self, refusal: Refusal) -> None:
        """A client without a good certificate is told in HTTP, and nothing reaches the app."""
        pump = Pump(admission=refused(refusal))
        pump.client_sends(GET)
        data = pump.received()
        assert data.startswith(b"HTTP/1.1 %d " % refusal.status)
        assert b"\r\nConnection: close\r\n" in data
        assert data.endswith(b"\r\n\r\n" + refusal.message.encode() + b"\n")
        assert pump.last == Ended(refusal.status, refusal.reason, "")
        assert not pump.pool.waiting
        assert pump.tls.ending == "close"

    def test_refused_client_that_is_still_sending_can_read_why(self) -> None:
        """The connection lingers while a body is under way."""
        pump = Pump(admission=refused(Refusal(403, "client_certificate_invalid", "Refused.")))
        pump.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
        assert pump.tls.ending == "linger"

    def test_head_is_answered_without_body(self) -> None:
        """An answer of ours to HEAD has the fields of the body and not the body."""
        pump = Pump()
        pump.client_sends(GET.replace(b"GET", b"HEAD"))
        pump.pool.refuse()
        data = pump.received()
        assert b"\r\nContent-Length: 55\r\n" in data
        assert data.endswith(b"\r\n\r\n")

    def test_json_is_sent_to_those_who_accept_it(self) -> None:
        """Programs get the reason as a token."""
        pump = Pump()
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
        pump.pool.refuse()
        body = json.loads(pump.received().partition(b"\r\n\r\n")[2])
        assert (body["status"], body["reason"]) == (502, "upstream_connect_refused")

    def test_bytes_after_a_refusal_are_ignored(self) -> None:
        """A closing connection hears nothing more."""
        pump = Pump()
        pump.client_sends(b"nonsense\r\n\r\n")
        pump.received()
        pump.client_sends(GET)
        assert pump.received() == b""
        assert len(pump.log.ended) == 1


class TestEndOfTheClient:
    def test_half_close_after_a_request_gets_the_answer(self) -> None:
        """A client that says it sends no more can still read; the answer is the last."""
        pump = Pump()
        pump.client_sends(GET)
        pump.client_half_closes()
        assert not pump.tls.ending
        pump.pool.accept()
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"

    def test_half_close_inside_the_response_gets_the_rest(self) -> None:
        """It is not too late to say so."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK[:-1])
        pump.client_half_closes()
        pump.app_sends(OK[-1:])
        assert pump.received() == OK
        assert pump.tls.ending == "close"

    def test_half_close_after_pipelined_requests_gets_every_answer(self) -> None:
        """Each request that arrived whole is answered; the last answer says that it is."""
        pump = Pump()
        pump.start_exchange()
        pump.client_sends(GET + GET)
        pump.client_half_closes()
        pump.app_sends(OK)
        assert pump.received() == OK
        assert not pump.tls.ending
        pump.app_sends(OK)
        assert pump.received() == OK
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"

    def test_half_close_inside_a_pipelined_request_drops_that_one(self) -> None:
        """What has not arrived whole is not begun."""
        pump = Pump()
        pump.start_exchange()
        pump.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        pump.client_half_closes()
        pump.app_sends(OK)
        assert pump.received() == OK
        assert pump.tls.ending == "close"
        assert len(pump.log.ended) == 1

    def test_half_close_inside_a_body_cancels(self) -> None:
        """The rest of the request will not come."""
        pump = Pump()
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        pump.client_half_closes()
        assert pump.tls.ending == "abort"
        assert pump.app.is_closed
        assert pump.last == Ended(0, "downstream_lost", "")

    @pytest.mark.parametrize("sent", [b"", GET[:10]], ids=["idle", "inside a head"])
    @pytest.mark.parametrize("end", ["client_half_closes", "client_cuts"])
    def test_end_without_a_request_closes(self, sent: bytes, end: str) -> None:
        """Nobody waits for anything."""
        pump = Pump()
        if sent:
            pump.client_sends(sent)
        getattr(pump, end)()
        assert pump.tls.ending == "close"
        assert not pump.log.ended

    def test_cut_cancels_the_exchange(self) -> None:
        """A connection that ends without close_notify may have been cut by anybody: the answer is not sent."""
        pump = Pump()
        pump.start_exchange()
        pump.client_cuts()
        assert pump.tls.ending == "abort"
        assert pump.app.is_closed
        assert pump.last == Ended(0, "downstream_lost", "")

    def test_loss_after_the_answer_is_no_event(self) -> None:
        """An idle client may go."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK)
        pump.client_vanishes()
        assert pump.log.ended == [Ended(200, "", "")]
        assert len(pump.pool.idle) == 1


class TestDrain:
    def test_idle_connection_closes_soon(self) -> None:
        """Nothing is in flight, but something may be on its way: what comes meanwhile is served, as the last."""
        pump = Pump()
        assert pump.downstream.is_idle
        pump.downstream.drain()
        pump.pass_time(DRAIN_IDLE_SECONDS - 0.1)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "close"

    def test_request_that_was_on_its_way_is_served(self) -> None:
        """A client that sends one request after the other loses none."""
        pump = Pump()
        pump.start_exchange(GET)
        pump.app_sends(OK)
        pump.received()
        pump.downstream.drain()
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"

    def test_exchange_in_flight_is_finished(self) -> None:
        """The answer says that it is the last, and the connection closes behind it."""
        pump = Pump()
        pump.start_exchange()
        assert not pump.downstream.is_idle
        pump.downstream.drain()
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"

    def test_response_that_streams_is_finished(self) -> None:
        """Its head is out already, and promises more: one more request is served, if it comes soon."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK[:-1])
        pump.downstream.drain()
        pump.app_sends(OK[-1:])
        assert pump.received() == OK
        assert not pump.tls.ending
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert b"\r\nConnection: close\r\n" in pump.received()
        assert pump.tls.ending == "close"

    def test_response_that_streamed_is_the_last_if_nothing_follows(self) -> None:
        """The promise of more is kept for a moment only."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK[:-1])
        pump.downstream.drain()
        pump.app_sends(OK[-1:])
        pump.pass_time(DRAIN_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "close"

    def test_unfinished_head_is_waited_for(self) -> None:
        """A request that has begun to arrive is answered."""
        pump = Pump()
        pump.client_sends(GET[:10])
        pump.downstream.drain()
        assert not pump.tls.ending
        pump.start_exchange(GET[10:])
        pump.app_sends(OK)
        assert b"\r\nConnection: close\r\n" in pump.received()
        assert pump.tls.ending == "close"

    def test_connection_made_while_draining_gets_one_answer(self) -> None:
        """Whoever got in just before the listener closed is served once."""
        pump = Pump()
        pump.service.is_draining = True
        late = Pump()
        late.service.is_draining = True
        late.downstream.is_closing = True
        late.start_exchange()
        late.app_sends(OK)
        assert late.tls.ending == "close"

    def test_connection_made_while_draining_must_ask_soon(self) -> None:
        """Whoever got in just before the listener closed and says nothing does not hold up the stop."""
        pump = Pump()
        pump.service.is_draining = True
        pump.downstream = DownstreamConnection(
            pump.tls, pump.peer, pump.service, SESSION, forwarding=FORWARDING, admission=ADMITTED
        )
        pump.tls.owner = pump.downstream
        pump.pass_time(LINGER_SECONDS - 0.1)
        assert not pump.tls.ending
        pump.pass_time(0.2)
        assert pump.tls.ending == "close"

    def test_end_answers_a_request_that_was_not_answered_yet(self) -> None:
        """A stop that waits no longer tells the client why, and the log which request it was."""
        pump = Pump()
        pump.start_exchange()
        pump.downstream.end()
        pump.settle()
        assert pump.received().startswith(b"HTTP/1.1 503 ")
        assert pump.tls.ending == "close"
        assert pump.app.is_closed
        assert pump.last == Ended(503, "drain_timeout", "")

    def test_end_cuts_a_response_that_has_begun(self) -> None:
        """What will not be finished must not look complete."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK[:-1])
        pump.downstream.end()
        pump.settle()
        assert pump.tls.ending == "abort"
        assert pump.last == Ended(200, "drain_timeout", "")

    def test_end_cuts_an_idle_connection(self) -> None:
        """There is nothing to say to it."""
        pump = Pump()
        pump.downstream.end()
        assert pump.tls.ending == "abort"


class TestForwarding:
    def test_same_head_is_rewritten_the_same(self) -> None:
        """Only the request id differs between two requests with the same head."""
        pump = Pump()
        heads = []
        pump.start_exchange()
        for _ in range(2):
            head, _, request_id = pump.app_receives().partition(b"X-Request-Id: ")
            heads.append((head, request_id))
            pump.app_sends(OK)
            pump.client_sends(GET.replace(b"/x", b"/"))
        assert heads[0][0] == heads[1][0]
        assert heads[0][1] != heads[1][1]

    def test_memory_of_a_response_is_not_shared_between_kinds_of_clients(self) -> None:
        """A remembered response head serves only clients that get the same one."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(OK)
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert pump.received() == OK + OK
        pump.client_sends(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"


class TestRules:
    """Requests that rules look at."""

    def pump(self, client: ClientSettings, presented: Presented = NO_CERTIFICATE, **settings: Switch) -> Pump:
        return Pump(admission=access_of(client, "test").admit(presented), http=HttpSettings(**settings))

    def ask(self, pump: Pump, target: bytes, method: bytes = b"GET") -> int:
        """The status of the answer; 200 if the app was asked."""
        pump.client_sends(b"%b %b HTTP/1.1\r\nHost: a\r\n\r\n" % (method, target))
        if pump.pool.waiting:
            return 200
        return int(pump.received().split()[1])

    @pytest.mark.parametrize(
        ("target", "status"),
        [
            (b"/healthz", 200),
            (b"/healthz?probe=1", 200),
            (b"http://a/healthz", 200),
            (b"/static/a/b", 200),
            (b"/", 400),
            (b"/healthz/", 400),
            (b"/healthz/x", 400),
            (b"/HEALTHZ", 400),
            (b"//healthz", 400),
            (b"/x/../healthz", 400),
            (b"/%68ealthz", 200),
            (b"/healthz;x", 400),
            (b"/healthz%2f..%2fadmin", 400),
            (b"/static/../admin", 400),
            (b"/static/%2e%2e/admin", 400),
            (b"/static/..;/admin", 400),
            (b"/static/..%5cadmin", 400),
            (b"/static/%252e%252e/admin", 400),
            (b"/static%00/../admin", 400),
            (b"/static//../../admin", 400),
            (b"/admin?/healthz", 400),
            (b"http://a/static/../admin", 400),
        ],
    )
    @pytest.mark.parametrize("normalize", Switch)
    def test_exemption_cannot_be_stretched(self, target: bytes, status: int, normalize: Switch) -> None:
        """Only what means an exempt path to every app is let in without a certificate."""
        client = ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz", "/static/*")))
        pump = self.pump(client, normalize_path=normalize)
        if normalize is Switch.ON and target in (b"//healthz", b"/x/../healthz"):
            status = 200  # the app gets it as /healthz
        assert self.ask(pump, target) == status

    @pytest.mark.parametrize(
        "target",
        [b"/admin", b"/ADMIN", b"//admin", b"/admin/", b"/x/../admin", b"/admin;x", b"/%61dmin", b"http://a/admin"],
        ids=bytes.decode,
    )
    def test_restriction_cannot_be_slipped_past(self, target: bytes) -> None:
        """What means a restricted path to any app needs what the rule asks for."""
        client = ClientSettings(
            cert=ClientCertMode.NONE, rules=RulesText('[{"path": "/admin", "client_cert": "required"}]')
        )
        assert self.ask(self.pump(client), target) == 400
        assert self.ask(self.pump(client), b"/open") == 200

    def test_each_request_is_judged(self) -> None:
        """One connection may ask for both; a refusal ends it, and operators see why."""
        pump = self.pump(ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz",))))
        pump.start_exchange(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        pump.app_sends(OK)
        assert pump.received() == OK
        assert self.ask(pump, b"/secret") == 400
        assert [ended.status for ended in pump.log.ended] == [200, 400]

    @pytest.mark.parametrize("target", [b"/healthz", b"/other"])
    def test_app_is_told_of_a_client_only_where_it_is_looked_at(self, target: bytes) -> None:
        """What an exempt path is asked for by is nobody's business, and nobody's merit."""
        rules = RulesText('[{"path": "/healthz", "client_cert": "none"}, {"path": "/never", "allow": []}]')
        good = Presented(identity_of(authority().issue("ci", purposes=CLIENT).certificate))
        admission = access_of(ClientSettings(cert=REQUIRED, rules=rules), "test").admit(good)
        pump = Pump(admission=admission)
        pump.judge_again(forwarding=Forwarding(b"X-Named: ci\r\n", b"X-Named: nobody\r\n"))
        pump.start_exchange(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        expected = b"nobody" if target == b"/healthz" else b"ci"
        assert b"\r\nX-Named: %b\r\n" % expected in pump.app_receives()

    @pytest.mark.parametrize(
        ("head", "reason"),
        [
            (b"GET /x HTTP/1.0\r\n\r\n", "client_certificate_missing"),
            (b"GET /x HTTP/1.1\r\nHost: localhost..\r\n\r\n", "client_certificate_missing"),
            (b"GET /x HTTP/1.1\r\nHost: LOCALHOST:1\r\n\r\n", "client_certificate_missing"),
            (b"GET /x HTTP/1.1\r\nHost: %6cocalhost\r\n\r\n", "ambiguous_host"),
        ],
    )
    def test_rule_about_a_host_judges_the_host_that_the_app_gets(self, head: bytes, reason: str) -> None:
        """Also the one that we fill in for HTTP/1.0."""
        rules = RulesText('[{"host": "localhost", "client_cert": "required"}]')
        pump = self.pump(ClientSettings(cert=ClientCertMode.NONE, rules=rules))
        pump.client_sends(head)
        assert pump.last.reason == reason

    def test_refusal_is_remembered_for_operators(self) -> None:
        """With the rule that refused."""
        pump = self.pump(ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz",))))
        assert self.ask(pump, b"/secret") == 400
        assert pump.last == Ended(400, "client_certificate_missing", "rule default: the client showed no certificate")
        (event,) = pump.service.rejecter.rejections.as_json()
        assert (event["reason"], event["answer"]) == ("client_certificate_missing", "400")

    def test_ambiguous_path_is_refused_before_it_is_matched(self) -> None:
        """It is nobody's certificate that is missing."""
        pump = self.pump(ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz",))))
        assert self.ask(pump, b"/healthz%2f") == 400
        assert pump.last.reason == "ambiguous_path"

    def test_client_that_every_rule_lets_in_may_send_such_a_path(self) -> None:
        """Nothing is decided by it, so nothing is refused."""
        client = ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/healthz",)))
        good = Presented(identity_of(authority().issue("ci", purposes=CLIENT).certificate))
        pump = self.pump(client, good)
        assert self.ask(pump, b"/a%2fb/../..") == 200
        assert pump.downstream.principal == "ci"


UPGRADE = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


class TestJudgedAgain:
    """What becomes of a connection whose client is worth something else now."""

    REFUSED = refused(Refusal(403, "client_certificate_invalid", "Refused: the client certificate has been revoked."))
    EXEMPT = ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/x",)))
    FLAWED = Presented(None, "the client certificate has expired")

    def test_next_request_is_refused(self) -> None:
        """Also one that repeats the last head byte for byte; the connection ends."""
        pump = Pump()
        pump.start_exchange(GET)
        pump.app_sends(OK)
        assert pump.received() == OK
        pump.downstream.judge_again(SESSION, self.REFUSED, FORWARDING)
        pump.client_sends(GET)
        assert pump.received().startswith(b"HTTP/1.1 403 ")
        assert pump.tls.ending

    def test_request_under_way_is_finished(self) -> None:
        """The decision about it has been made."""
        pump = Pump()
        pump.start_exchange(GET)
        pump.downstream.judge_again(SESSION, self.REFUSED, FORWARDING)
        pump.app_sends(OK)
        assert pump.received() == OK

    def test_upgraded_connection_ends_at_once(self) -> None:
        """It will send no further request that could be refused; operators are told."""
        pump = Pump()
        pump.start_exchange(UPGRADE)
        pump.app_sends(SWITCHING)
        pump.downstream.judge_again(SESSION, ADMITTED, FORWARDING)
        assert not pump.tls.ending
        pump.downstream.judge_again(SESSION, self.REFUSED, FORWARDING)
        assert pump.tls.ending == "abort"
        assert len(pump.service.rejecter.rejections.as_json()) == 1

    def test_upgrade_that_the_app_answers_too_late_ends_at_once(self) -> None:
        """The client was let in when it asked, and is not any more when the app switches."""
        pump = Pump()
        pump.start_exchange(UPGRADE)
        pump.downstream.judge_again(SESSION, self.REFUSED, FORWARDING)
        pump.app_sends(SWITCHING)
        assert pump.tls.ending == "abort"

    def test_upgraded_connection_is_judged_by_the_rule_for_its_request(self) -> None:
        """The path that it was made on may be closed to its client now."""
        pump = Pump()
        pump.start_exchange(UPGRADE)
        pump.app_sends(SWITCHING)
        for path, ending in (("/x", ""), ("/y", "abort")):
            client = ClientSettings(cert=REQUIRED, exempt=PathPatterns((path,)))
            pump.downstream.judge_again(SESSION, access_of(client, "test").admit(NO_CERTIFICATE), FORWARDING)
            assert pump.tls.ending == ending
        assert len(pump.service.rejecter.rejections.as_json()) == 1

    def upgraded(self, pump: Pump) -> Pump:
        """Let the app switch protocols for a client whose certificate is not accepted."""
        verification = Verification(None, VerifyReason.EXPIRED)
        pump.downstream.session = attrs.evolve(SESSION, verification=verification)
        pump.start_exchange(UPGRADE)
        pump.app_sends(SWITCHING)
        return pump

    @pytest.mark.parametrize("where", ["open route", "exempt path", "everywhere"])
    def test_upgrade_that_needs_no_certificate_is_not_cut_for_a_bad_one(self, where: str) -> None:
        """Neither when the app switches nor when its client is looked at again: nobody asks for a certificate there."""
        if where == "open route":
            pump = routed(
                route("/x", APP, client=OPEN),
                route("/", APP),
                client=ClientSettings(cert=REQUIRED),
                presented=self.FLAWED,
            )
        elif where == "exempt path":
            pump = Pump(admission=access_of(self.EXEMPT, "test").admit(self.FLAWED))
        else:
            pump = Pump()
        self.upgraded(pump)
        assert not pump.tls.ending
        pump.judge_again()
        assert not pump.tls.ending
        pump.client_sends(b"ping")
        assert pump.app_receives().endswith(b"ping")
        assert pump.service.rejecter.rejections.as_json() == []

    def test_upgrade_with_a_bad_certificate_ends_where_one_is_needed_now(self) -> None:
        """The path is exempt no more; operators are told once."""
        pump = self.upgraded(Pump(admission=access_of(self.EXEMPT, "test").admit(self.FLAWED)))
        admission = access_of(ClientSettings(cert=REQUIRED), "test").admit(self.FLAWED)
        pump.downstream.judge_again(pump.downstream.session, admission, FORWARDING)
        assert pump.tls.ending == "abort"
        (event,) = pump.service.rejecter.rejections.as_json()
        assert event["reason"] == "expired"

    def test_rules_decide_about_the_next_request(self) -> None:
        """A connection may lose its general admission and keep some paths."""
        pump = Pump()
        pump.start_exchange(GET)
        pump.app_sends(OK)
        pump.received()
        client = ClientSettings(cert=REQUIRED, exempt=PathPatterns(("/x",)))
        pump.downstream.judge_again(SESSION, access_of(client, "test").admit(NO_CERTIFICATE), FORWARDING)
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert pump.received() == OK
        pump.client_sends(GET.replace(b"/x", b"/y"))
        assert pump.received().startswith(b"HTTP/1.1 400 ")


class TestMaxBody:
    LIMITS = Limits(body_bytes=ByteCount(4))

    def test_announced_body_over_the_limit_gets_413(self) -> None:
        """Nothing of such a request reaches the app, not even a client's wish to be told to go on."""
        pump = Pump(limits=self.LIMITS)
        pump.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert pump.received().startswith(b"HTTP/1.1 413 ")
        assert pump.last == Ended(413, "body_too_large", "the request body is 5 bytes or more, limit 4")
        assert pump.tls.ending == "linger"
        assert not pump.pool.waiting

    def test_chunks_over_the_limit_get_413(self) -> None:
        """The app gets what was within the limit, and sees its connection cut instead of an end."""
        pump = Pump(limits=self.LIMITS)
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        pump.app_receives()
        pump.client_sends(b"1\r\ne\r\n0\r\n\r\n")
        assert pump.received().startswith(b"HTTP/1.1 413 ")
        assert pump.app_receives() == b""
        assert pump.app.is_closed
        assert pump.last.reason == "body_too_large"

    def test_chunks_over_the_limit_cut_a_response_that_has_begun(self) -> None:
        """It is too late for another status."""
        pump = Pump(limits=self.LIMITS)
        pump.start_exchange(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
        pump.app_sends(OK[:-1])
        pump.client_sends(b"1\r\ne\r\n0\r\n\r\n")
        assert pump.tls.ending == "abort"


class TestMaxRequests:
    def test_last_request_of_a_connection_is_told_so(self) -> None:
        """After as many requests as are allowed the connection closes in good order."""
        pump = Pump(limits=Limits(requests_per_connection=2))
        pump.start_exchange(GET)
        pump.app_sends(OK)
        assert pump.received() == OK
        pump.client_sends(GET)
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "close"

    def test_pipelined_requests_behind_the_last_are_not_begun(self) -> None:
        """Also where the client has half-closed: the limit holds."""
        pump = Pump(limits=Limits(requests_per_connection=1))
        pump.start_exchange(GET + GET)
        pump.client_half_closes()
        pump.app_sends(OK)
        assert pump.received() == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert pump.tls.ending == "linger"
        assert len(pump.log.ended) == 1


class TestStricterRules:
    def test_underscore_is_refused_where_told_to(self) -> None:
        """The client learns which field it is; nothing reaches the app."""
        pump = Pump(http=HttpSettings(underscore_headers=UnderscoreHeaders.REJECT))
        pump.client_sends(GET.replace(b"Host", b"User_Id: 1\r\nHost"))
        data = pump.received()
        assert data.startswith(b"HTTP/1.1 400 ")
        assert b"'user_id'" in data
        assert pump.last.reason == "underscore_in_name"
        assert not pump.pool.waiting
        assert pump.tls.ending == "close"

    def test_refused_request_is_refused_again(self) -> None:
        """A head that was refused is not remembered as one that may pass."""
        pump = Pump(http=HttpSettings(underscore_headers=UnderscoreHeaders.REJECT))
        pump.start_exchange(GET)
        pump.app_sends(OK)
        bad = GET.replace(b"Host", b"a_b: 1\r\nHost")
        pump.client_sends(bad + bad)
        assert [ended.status for ended in pump.log.ended] == [200, 400]
        assert pump.tls.ending

    def test_body_of_a_refused_request_is_nobodys(self) -> None:
        """A client that is still sending gets time to read why."""
        pump = Pump(http=HttpSettings(underscore_headers=UnderscoreHeaders.REJECT))
        pump.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\na_b: 1\r\nContent-Length: 9\r\n\r\nabc")
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.tls.ending == "linger"

    @pytest.mark.parametrize(
        ("normalize", "sent"), [(Switch.OFF, b"/a/%2e%2e/b?x=/../"), (Switch.ON, b"/b?x=/../")], ids=["off", "on"]
    )
    def test_path_is_normalised_on_request_only(self, normalize: Switch, sent: bytes) -> None:
        """What is forwarded is what came, unless the operator wants it otherwise."""
        pump = Pump(http=HttpSettings(normalize_path=normalize))
        pump.start_exchange(GET.replace(b"/x", b"/a/%2e%2e/b?x=/../"))
        assert pump.app_receives().startswith(b"GET %b HTTP/1.1\r\n" % sent)

    def test_ambiguous_path_is_refused_where_paths_are_normalised(self) -> None:
        """What cannot be normalised safely is not forwarded."""
        pump = Pump(http=HttpSettings(normalize_path=Switch.ON))
        pump.client_sends(GET.replace(b"/x", b"/a%2fb"))
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.last == Ended(400, "ambiguous_path", "")


class TestUnverifiedClient:
    def test_first_request_has_to_come_soon(self) -> None:
        """A client whose certificate is not accepted does not keep it here for long."""
        pump = Pump()
        verification = Verification(None, VerifyReason.INVALID)
        session = attrs.evolve(SESSION, verification=verification)
        downstream = DownstreamConnection(
            pump.tls, pump.peer, pump.service, session, forwarding=FORWARDING, admission=ADMITTED
        )
        pump.tls.owner = pump.downstream = downstream
        pump.pass_time(UNVERIFIED_IDLE_SECONDS + 0.1)
        assert pump.tls.ending == "close"


def route(path: str, action: ToCluster | Redirect | DirectResponse, **more: Any) -> Route:
    """A route for a prefix, named by it."""
    return Route(name=path, match=RouteMatch(path=path), action=action, **more)


APP = ToCluster(cluster="app")
HELLO = DirectResponse(status=200, body="hello\n")
OPEN = ClientRule(mode=ClientCertMode.NONE)
CI = identity_of(authority().issue("ci.example", purposes=CLIENT).certificate)
JSON = b"GET /x HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n"


def routed(
    *routes: Route, client: ClientSettings | None = None, presented: Presented = NO_CERTIFICATE, **pump: Any
) -> Pump:
    """A client of a listener with *routes*, whose clients need no certificate unless *client* says so."""
    client = client or ClientSettings(cert=ClientCertMode.NONE)
    made = Pump(**pump)
    shop = FakeCluster(FakePool(made.clock), name="shop")
    timeouts = made.service.timeouts
    hosts = [VirtualHost(name="web", domains=("*",), routes=routes)]
    made.service.router = Router.compile(hosts, {"app": made.cluster, "shop": shop}, timeouts, default_rule(client))
    access = access_of(client, "test", made.service.router.rules)
    made.judge_again(access.admit(presented))
    return made


def get(target: bytes, *lines: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a.example:8443\r\n%b\r\n" % (target, b"".join(line + b"\r\n" for line in lines))


def pool_of(pump: Pump, target: bytes) -> FakePool:
    """The pool that a request for *target* waits for."""
    destination = pump.service.router.find(parse_request_head(get(target), 100), b"a", target)
    assert isinstance(destination, Destination)
    pool: FakePool = destination.cluster.endpoints[0].pool  # type: ignore[attr-defined]
    return pool


class TestRoutes:
    def test_request_goes_where_its_route_says(self) -> None:
        """One connection's requests to different clusters, each with the route's host, path and timeouts."""
        shop = ToCluster(cluster="shop", prefix_rewrite="/", host_rewrite="shop.internal", timeout=7.0)
        pump = routed(route("/shop/", shop), route("/", APP), timeouts=TIMEOUTS)
        pump.client_sends(get(b"/shop/cart?id=1"))
        transport = pool_of(pump, b"/shop/cart").accept()
        assert transport.sent.startswith(b"GET /cart?id=1 HTTP/1.1\r\nHost: shop.internal\r\n")
        assert transport.sent.count(b"Host: ") == 2
        assert b"\r\nX-Forwarded-Host: a.example:8443\r\n" in transport.sent
        transport.deliver(OK)
        assert pump.received() == OK
        pump.start_exchange(get(b"/x"))
        assert pump.app_receives().startswith(b"GET /x HTTP/1.1\r\nHost: a.example:8443\r\n")
        pump.app_sends(OK)
        assert [exchange.destination.name for exchange in pump.log.exchanges if exchange.destination] == ["/shop/", "/"]

    def test_timeouts_of_a_route_are_used(self) -> None:
        """In place of those of the settings: to the first byte, and inside the response."""
        quick = ToCluster(cluster="app", timeout=7.0, idle_timeout=8.0)
        pump = routed(route("/quick", quick), route("/", APP), timeouts=TIMEOUTS)
        pump.start_exchange(get(b"/quick"))
        pump.pass_time(7.2)
        assert pump.last.reason == "upstream_timeout"
        pump = routed(route("/quick", quick), route("/", APP), timeouts=TIMEOUTS)
        pump.start_exchange(get(b"/quick"))
        pump.app_sends(OK[:-1])
        pump.pass_time(8.2)
        assert pump.last.reason == "upstream_stalled"

    def test_request_without_a_route_gets_404(self) -> None:
        """And is the last of its connection, as all that we have to refuse."""
        pump = routed(route("/shop/", APP))
        pump.client_sends(get(b"/other"))
        data = pump.received()
        assert data.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"\r\nConnection: close\r\n" in data
        assert data.endswith(b"\r\n\r\nNo route of this proxy leads to what was asked for.\n")
        assert pump.last == Ended(404, "no_route", "")
        assert pump.tls.ending == "close"
        assert pump.service.metrics.reasons == {"no_route": 1}

    def test_program_gets_404_as_json(self) -> None:
        """As it does every answer of ours."""
        pump = routed(route("/shop/", APP))
        pump.client_sends(JSON)
        assert json.loads(pump.received().partition(b"\r\n\r\n")[2])["reason"] == "no_route"

    @pytest.mark.parametrize(
        "target", [b"/shop/../admin", b"/x/..//shop/", b"/shop//x", b"/./shop/x"], ids=bytes.decode
    )
    def test_path_that_two_routes_could_be_for_is_refused(self, target: bytes) -> None:
        """An app that resolves dots and one that does not would be asked for different things."""
        pump = routed(route("/shop/x", APP), route("/shop/", ToCluster(cluster="shop")), route("/", APP))
        pump.client_sends(get(target))
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.last.reason == "ambiguous_path"
        assert not pump.pool.waiting

    def test_path_that_leads_to_one_route_either_way_is_served(self) -> None:
        """It goes on as it came, which is the app's affair."""
        pump = routed(route("/shop/", ToCluster(cluster="shop")), route("/", APP))
        pump.start_exchange(get(b"/a/../b//c"))
        assert pump.app_receives().startswith(b"GET /a/../b//c HTTP/1.1\r\n")

    def test_normalised_path_is_one_reading(self) -> None:
        """What is forwarded in its normal form is routed by that alone."""
        pump = routed(
            route("/shop/", ToCluster(cluster="shop")), route("/", APP), http=HttpSettings(normalize_path=Switch.ON)
        )
        pump.start_exchange(get(b"/shop/../b"))
        assert pump.app_receives().startswith(b"GET /b HTTP/1.1\r\n")

    def test_path_that_cannot_be_rewritten_is_refused(self) -> None:
        """Rather than to lead out of where the operator put it."""
        pump = routed(route("/files", ToCluster(cluster="app", prefix_rewrite="/srv/")), route("/", APP))
        pump.client_sends(get(b"/files../secret"))
        assert pump.last.reason == "ambiguous_path"
        assert not pump.pool.waiting

    @pytest.mark.parametrize("host", [b"%61.example", b"a.example%2f"], ids=bytes.decode)
    def test_encoded_host_is_refused(self, host: bytes) -> None:
        """A route could be chosen by it."""
        pump = routed(route("/shop/", ToCluster(cluster="shop")), route("/", APP))
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert pump.last.reason == "ambiguous_host"

    def test_new_routes_are_for_the_next_request(self) -> None:
        """Also for one that is the same as the last, on a connection that is kept."""
        pump = routed(route("/", APP))
        pump.start_exchange(GET)
        pump.app_sends(OK)
        shop = FakeCluster(FakePool(pump.clock), name="shop")
        pump.service.router = Router.to(shop, pump.service.timeouts)
        pump.client_sends(GET)
        assert len(shop.endpoints[0].pool.waiting) == 1
        assert pump.cluster.endpoints[0].active == 0


class TestRulesOfRoutes:
    """Routes that say what their clients must show."""

    def status(self, pump: Pump, target: bytes) -> int:
        """The status of the answer; 200 if an app was asked."""
        pump.client_sends(get(target))
        received = pump.received()
        return int(received.split()[1]) if received else 200

    def both(self, presented: Presented = NO_CERTIFICATE, cert: ClientCertMode = REQUIRED) -> Pump:
        return routed(
            route("/open/", APP, client=OPEN),
            route("/admin", APP, client=ClientRule(allow="dns=ci.example")),
            route("/", APP),
            client=ClientSettings(cert=cert),
            presented=presented,
        )

    @pytest.mark.parametrize(
        ("target", "status"), [(b"/open/x", 200), (b"/admin", 400), (b"/x", 400), (b"/open/../x", 400)], ids=str
    )
    def test_rule_holds_in_place_of_that_of_the_listener(self, target: bytes, status: int) -> None:
        """On its route, and nowhere else."""
        assert self.status(self.both(), target) == status

    def test_names_are_looked_at_by_the_rule_of_the_route(self) -> None:
        """A client that may ask for everything else may not ask for this."""
        other = Presented(identity_of(authority().issue("web.example", purposes=CLIENT).certificate))
        pump = self.both(other)
        assert self.status(pump, b"/admin") == 403
        assert pump.last.reason == "client_not_authorized"
        assert self.status(self.both(other), b"/x") == 200
        assert self.status(self.both(Presented(CI)), b"/admin") == 200

    @pytest.mark.parametrize("target", [b"/ADMIN", b"/admin;x", b"//admin", b"/Admin/x", b"/x/../admin", b"/%61dmin"])
    def test_restriction_cannot_be_slipped_past(self, target: bytes) -> None:
        """However an app may read the path: the rule of each route that it could be for must let the client in."""
        assert self.status(self.both(cert=ClientCertMode.NONE), target) == 400
        assert self.status(self.both(cert=ClientCertMode.NONE), b"/x") == 200

    @pytest.mark.parametrize("target", [b"/OPEN/x", b"/open", b"//open/x", b"/x/../open/x", b"/open/..;/x"])
    def test_exemption_cannot_be_stretched(self, target: bytes) -> None:
        """Only what means the open route to every app is let in without a certificate."""
        assert self.status(self.both(), target) == 400

    @pytest.mark.parametrize(("target", "named"), [(b"/open/x", b"nobody"), (b"/x", b"web")], ids=["open", "other"])
    def test_app_is_told_of_a_client_only_where_it_is_looked_at(self, target: bytes, named: bytes) -> None:
        """As with other rules."""
        web = Presented(identity_of(authority().issue("web.example", purposes=CLIENT).certificate))
        pump = self.both(web)
        pump.judge_again(forwarding=Forwarding(b"X-Named: web\r\n", b"X-Named: nobody\r\n"))
        pump.start_exchange(get(target))
        assert b"\r\nX-Named: %b\r\n" % named in pump.app_receives()

    @pytest.mark.parametrize(
        ("remembered", "between", "expected"),
        [(b"/x", b"/hello", "web.example"), (b"/open/x", b"/closed", "")],
        ids=["named, nobody, named", "nobody, named, nobody"],
    )
    def test_client_that_is_logged_is_that_of_the_request(
        self, remembered: bytes, between: bytes, expected: str
    ) -> None:
        """A head that is remembered brings its client along, whatever rule the request before it was judged by."""
        web = Presented(identity_of(authority().issue("web.example", purposes=CLIENT).certificate))
        pump = routed(
            route("/open/", APP, client=OPEN),
            route("/hello", HELLO, client=OPEN),
            route("/closed", HELLO),
            route("/admin", APP, client=ClientRule(allow="dns=ci.example")),
            route("/", APP),
            client=ClientSettings(cert=REQUIRED),
            presented=web,
        )
        pump.start_exchange(get(remembered))
        pump.app_sends(OK)
        assert pump.downstream.principal == expected
        # With a body, for only heads without one are remembered, and this one must not take the other's place.
        pump.client_sends(get(between, b"Content-Length: 3").replace(b"GET", b"POST") + b"abc")
        assert pump.received().endswith(b"hello\n")
        assert pump.downstream.principal != expected
        pump.client_sends(get(remembered))
        pump.app_sends(OK)
        assert pump.downstream.principal == expected

    def test_rule_of_the_only_route_counts(self) -> None:
        """Where there is nothing to look for, there may still be something to show."""
        pump = routed(route("/", APP, client=ClientRule()))
        assert self.status(pump, b"/x") == 400
        assert pump.last.detail == "rule /: the client showed no certificate"

    def test_redirect_may_need_a_certificate_too(self) -> None:
        """Where a redirect leads may be nobody's business."""
        pump = routed(route("/old", Redirect(path="/secret"), client=ClientRule()), route("/", APP))
        assert self.status(pump, b"/old") == 400
        assert pump.last.reason == "client_certificate_missing"

    def test_nothing_is_said_of_routes_to_those_who_may_not_come_in(self) -> None:
        """Whether there is a route is told to those whom the rule for everything else lets in."""
        pump = routed(route("/open/", APP, client=OPEN), client=ClientSettings(cert=REQUIRED))
        assert self.status(pump, b"/hidden") == 400
        assert pump.last.reason == "client_certificate_missing"


class TestAnswers:
    """Routes that answer by themselves."""

    MOVED = Redirect(scheme="https", status=308)

    def pump(self, **more: Any) -> Pump:
        return routed(
            route("/hello", HELLO),
            route("/empty", DirectResponse(status=204)),
            route("/teapot", DirectResponse(status=418, body="short and stout", content_type="text/html")),
            route("/odd", DirectResponse(status=299, body="x")),
            route("/old", Redirect(prefix_rewrite="/new", status=302)),
            route("/", APP),
            **more,
        )

    @pytest.mark.parametrize(
        ("target", "answer"),
        [
            (
                b"/hello",
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\r\nhello\n",
            ),
            (b"/empty", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (
                b"/teapot",
                b"HTTP/1.1 418 I'm a Teapot\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\nshort and stout",
            ),
            (b"/odd", b"HTTP/1.1 299 \r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1\r\n\r\nx"),
            (
                b"/old/x?q=1",
                b"HTTP/1.1 302 Found\r\nLocation: https://a.example:8443/new/x?q=1\r\n"
                b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\n\r\n"
                b"See https://a.example:8443/new/x?q=1\n",
            ),
        ],
        ids=["text", "no content", "another type", "a status of theirs", "redirect"],
    )
    def test_answer_is_whole_and_the_connection_goes_on(self, target: bytes, answer: bytes) -> None:
        """Nobody has to be asked for it, twice in a row like once."""
        pump = self.pump()
        for _ in range(2):
            pump.client_sends(get(target))
            assert pump.received() == answer
        assert not pump.tls.ending
        pump.start_exchange(GET)
        pump.app_sends(OK)
        assert pump.received() == OK

    @pytest.mark.parametrize("target", [b"/hello", b"/old", b"/empty", b"/missing"], ids=bytes.decode)
    def test_head_gets_the_fields_alone(self, target: bytes) -> None:
        """With the length that GET would have."""
        pump = routed(route("/hello", HELLO), route("/empty", DirectResponse(status=204)), route("/old", self.MOVED))
        pump.client_sends(get(target))
        whole = pump.received()
        pump = routed(route("/hello", HELLO), route("/empty", DirectResponse(status=204)), route("/old", self.MOVED))
        pump.client_sends(get(target).replace(b"GET", b"HEAD", 1))
        assert pump.received() == whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert pump.log.exchanges[-1].bytes_sent == 0

    @pytest.mark.parametrize(
        ("request_bytes", "ending"),
        [
            (get(b"/hello", b"Connection: close"), "close"),
            (b"GET /hello HTTP/1.0\r\nHost: a\r\n\r\n", "close"),
            (b"GET /hello HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "close"),
            (get(b"/hello") + get(b"/hello"), "linger"),
            (b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", "linger"),
            (b"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "linger"),
        ],
        ids=["close", "HTTP/1.0", "HTTP/1.0 keep-alive", "pipelined", "body", "chunks"],
    )
    def test_connection_ends_where_it_cannot_go_on(self, request_bytes: bytes, ending: str) -> None:
        """The client is told so, and one that is still sending gets to read it."""
        pump = self.pump()
        pump.client_sends(request_bytes)
        data = pump.received()
        assert data.endswith(b"\r\nConnection: close\r\n\r\nhello\n")
        assert data.count(b"HTTP/1.1") == 1
        assert pump.tls.ending == ending
        assert pump.last == Ended(200, "direct_response", "/hello")

    def test_request_with_a_whole_body_goes_on(self) -> None:
        """It has been read to its end, whatever it was."""
        pump = self.pump()
        pump.client_sends(b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert b"close" not in pump.received()
        pump.client_sends(get(b"/hello"))
        assert pump.received().endswith(b"hello\n")

    def test_answer_while_draining_is_the_last(self) -> None:
        """Like every other."""
        pump = self.pump()
        pump.downstream.drain()
        pump.client_sends(get(b"/hello"))
        assert b"\r\nConnection: close\r\n" in pump.received()
        assert pump.tls.ending == "close"

    def test_answers_count_as_requests_of_a_connection(self) -> None:
        """The last of them is told so."""
        pump = self.pump(limits=Limits(requests_per_connection=2))
        pump.client_sends(get(b"/hello"))
        assert b"close" not in pump.received()
        pump.client_sends(get(b"/hello"))
        assert b"\r\nConnection: close\r\n" in pump.received()

    def test_half_closed_client_gets_its_answer(self) -> None:
        """It can still read."""
        pump = self.pump()
        pump.start_exchange(GET)
        pump.client_sends(get(b"/hello"))
        pump.client_half_closes()
        pump.app_sends(OK)
        assert pump.received().startswith(OK + b"HTTP/1.1 200 OK\r\n")
        assert pump.tls.ending == "close"

    def test_idle_timeout_begins_with_the_answer(self) -> None:
        """As after one of the app."""
        pump = self.pump(timeouts=TIMEOUTS)
        pump.pass_time(1.5)
        pump.client_sends(get(b"/hello"))
        pump.pass_time(1.5)
        assert not pump.tls.ending
        pump.pass_time(0.7)
        assert pump.tls.ending == "close"

    def test_client_that_takes_no_answers_is_not_read_from(self) -> None:
        """Answers are not collected for it: after the first that it does not take, it waits, and then is cut."""
        pump = self.pump(timeouts=TIMEOUTS)
        pump.tls.stop_taking()
        pump.client_sends(get(b"/hello"))
        assert not pump.peer.is_reading
        pump.pass_time(3.2)
        assert pump.tls.ending == "abort"

    def test_client_that_takes_them_at_last_goes_on(self) -> None:
        """With its next request, whose turn it is."""
        pump = self.pump(timeouts=TIMEOUTS)
        pump.tls.stop_taking()
        pump.client_sends(get(b"/hello"))
        pump.pass_time(2.5)
        pump.tls.take()
        assert pump.peer.is_reading
        pump.client_sends(get(b"/hello"))
        assert pump.received().count(b"hello\n") == 2

    def test_redirect_without_a_host_needs_one(self) -> None:
        """HTTP/1.0 may name none; then nobody knows where a URL would lead."""
        pump = routed(route("/", self.MOVED))
        pump.client_sends(b"GET /x HTTP/1.0\r\n\r\n")
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.last.reason == "bad_host"

    def test_redirect_of_an_ambiguous_path_is_refused(self) -> None:
        """A client that resolves it otherwise would come to another place."""
        pump = routed(route("/", self.MOVED))
        pump.client_sends(get(b"/a%2f..%2fb"))
        assert pump.received().startswith(b"HTTP/1.1 400 ")
        assert pump.last.reason == "ambiguous_path"

    def test_client_in_the_clear_is_sent_to_its_own_scheme(self) -> None:
        """Where the redirect names none."""
        pump = routed(route("/", Redirect(path="/new")))
        pump.downstream.session = NO_TLS
        pump.client_sends(get(b"/x"))
        assert b"\r\nLocation: http://a.example:8443/new\r\n" in pump.received()

    def test_no_endpoint_is_counted(self) -> None:
        """Nobody was asked."""
        pump = self.pump()
        pump.client_sends(get(b"/hello"))
        assert pump.log.exchanges[-1].endpoint is None
        assert pump.service.metrics.requests == 1
        assert pump.service.metrics.responses == {200: 1}


def behind_a_proxy(**hop: Any) -> Forwarding:
    """What requests get that come through a proxy which is believed."""
    made = Hop(peer="192.0.2.7", local=HostPort("192.0.2.1", 443), is_trusted=True, **hop)
    return Forwarding(b"", b"", made, TrustedProxies(("192.0.2.0/24",)))


class TestBehindATrustedProxy:
    def head(self, *lines: bytes, **hop: Any) -> tuple[Pump, bytes]:
        pump = Pump(forwarding=behind_a_proxy(**hop))
        pump.start_exchange(get(b"/x", *lines))
        return pump, pump.app_receives()

    def test_app_gets_the_whole_way(self) -> None:
        """What the proxy says, extended by what we see; each field once."""
        _, head = self.head(
            b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Host: shop.example", b"Forwarded: for=203.0.113.9"
        )
        assert b"\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n" in head
        assert b"\r\nX-Forwarded-Host: shop.example\r\n" in head
        assert b"\r\nForwarded: " not in head, "who says it in both may have said one of them itself"
        for name in (b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Forwarded-Port"):
            assert head.lower().count(b"\r\n%b: " % name.lower()) == 1

    def test_client_is_the_one_behind_the_proxy(self) -> None:
        """In the log; not where the proxy speaks for itself."""
        pump, _ = self.head(b"X-Forwarded-For: 198.51.100.1, 203.0.113.9")
        pump.app_sends(OK)
        assert pump.log.exchanges[-1].client == "203.0.113.9"
        pump, _ = self.head()
        pump.app_sends(OK)
        assert pump.log.exchanges[-1].client == ""

    def test_name_of_the_request_is_the_proxys(self) -> None:
        """So that its log and ours can be put together; one that could not stand in a log is replaced."""
        pump, head = self.head(b"X-Request-Id: Root=1-5e1b4151")
        assert b"\r\nX-Request-Id: Root=1-5e1b4151\r\n" in head
        assert head.count(b"X-Request-Id") == 1
        pump.app_sends(OK)
        assert pump.log.exchanges[-1].request_id == b"Root=1-5e1b4151"
        _, head = self.head(b"X-Request-Id: a b")
        assert b"a b" not in head
        assert re.search(rb"\r\nX-Request-Id: [0-9a-f]{32}\r\n", head)

    def test_trace_has_a_name_of_its_own_then(self) -> None:
        """The proxy's name for the request is no trace-id."""
        _, head = self.head(b"X-Request-Id: abc")
        assert re.search(rb"\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\r\n", head)

    def test_next_request_is_somebody_elses(self) -> None:
        """A proxy sends those of many clients on one connection."""
        pump, _ = self.head(b"X-Forwarded-For: 203.0.113.9", b"X-Request-Id: one")
        pump.app_sends(OK)
        pump.client_sends(get(b"/x"))
        pump.app_sends(OK)
        first, second = pump.log.exchanges
        assert (first.client, second.client) == ("203.0.113.9", "")
        assert second.request_id != b"one"

    def test_same_head_is_believed_the_same(self) -> None:
        """What is remembered of a head is not what it was called."""
        pump, _ = self.head(b"X-Forwarded-For: 203.0.113.9")
        pump.app_sends(OK)
        pump.client_sends(get(b"/x", b"X-Forwarded-For: 203.0.113.9"))
        assert b"203.0.113.9, 192.0.2.7" in pump.app_receives()
        pump.app_sends(OK)
        first, second = pump.log.exchanges
        assert first.client == second.client == "203.0.113.9"
        assert first.request_id != second.request_id

    @pytest.mark.parametrize("what", ["refused", "no route", "redirect"])
    def test_client_of_an_answer_of_ours_is_known_too(self, what: str) -> None:
        """Who was turned away, or sent elsewhere, is what operators look for."""
        required = ClientSettings(cert=REQUIRED) if what == "refused" else None
        action = Redirect(path="/new") if what == "redirect" else APP
        pump = routed(route("/a", action), client=required, forwarding=behind_a_proxy())
        target = b"/other" if what == "no route" else b"/a"
        pump.client_sends(get(target, b"X-Forwarded-For: 203.0.113.9", b"X-Request-Id: one"))
        (exchange,) = pump.log.exchanges
        assert exchange.client == "203.0.113.9"
        assert exchange.request_id == b"one"

    def test_anybody_elses_word_is_worth_nothing(self) -> None:
        """Neither who it is nor what the request is called."""
        pump = Pump()
        pump.start_exchange(get(b"/x", b"X-Forwarded-For: 203.0.113.9", b"X-Request-Id: one", b"Forwarded: for=x"))
        head = pump.app_receives()
        assert b"203.0.113.9" not in head
        assert b"Forwarded: for" not in head
        assert b"X-Request-Id: one" not in head
        pump.app_sends(OK)
        assert pump.log.exchanges[-1].client == ""
