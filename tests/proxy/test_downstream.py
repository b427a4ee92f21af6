"""`proxy.downstream`: one client's connection, request after request."""

from __future__ import annotations

import json

import attrs
import pytest

from sidecar.policy.access import access_of
from sidecar.policy.authz import NO_CERTIFICATE, Decision, Presented, Refusal
from sidecar.policy.identity import identity_of
from sidecar.proxy.downstream import (
    DRAIN_IDLE_SECONDS,
    LINGER_SECONDS,
    UNVERIFIED_IDLE_SECONDS,
    DownstreamConnection,
    Forwarding,
)
from sidecar.settings import (
    ByteCount,
    ClientCertMode,
    ClientSettings,
    HttpSettings,
    Limits,
    PathPatterns,
    RulesText,
    Seconds,
    Switch,
    Timeouts,
    UnderscoreHeaders,
)
from sidecar.tls.verify import Verification, VerifyReason
from tests.support.certs import CLIENT, authority
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
        pump.downstream.forwarding = Forwarding(b"X-Named: ci\r\n", b"X-Named: nobody\r\n")
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
