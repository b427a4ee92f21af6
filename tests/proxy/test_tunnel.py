"""`proxy.tunnel`: a client's bytes to the app and back, in raw TCP mode, whichever side ends or breaks first."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from twisted.internet import error, task

from sidecar.policy.access import access_of
from sidecar.policy.authz import NO_CERTIFICATE, Admission, Decision, Presented, Rule, judge
from sidecar.policy.identity import identity_of
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.deadlines import NEVER, Deadlines
from sidecar.proxy.downstream import Peer
from sidecar.proxy.routing import Router
from sidecar.proxy.sockets import MAX_UPSTREAM_READ_SIZE
from sidecar.proxy.tunnel import LINGER_SECONDS, MAX_ENDPOINTS_TRIED, Tunnel
from sidecar.settings import ClientCertMode, ClientSettings, ProxyProtocolOut, Seconds, Timeouts
from sidecar.tls.session import TlsSession
from sidecar.tls.verify import Verification
from tests.support.certs import CLIENT, authority
from tests.support.ports import (
    FakeCluster,
    FakePeer,
    FakePool,
    RecordingSecureTransport,
    RecordingTransport,
    make_failure,
)
from tests.support.pump import ADMITTED, FORWARDING, SESSION, Ended, RecordedLog, make_service

TIMEOUTS = Timeouts(body=Seconds(3.0), stream=Seconds(20.0), tcp_idle=Seconds(50.0))
REFUSED = judge(Rule(name="default", mode=ClientCertMode.REQUIRED), NO_CERTIFICATE)
GOOD = identity_of(authority().issue("ci.example", purposes=CLIENT).certificate)


def header(version: ProxyProtocolOut, peer: Peer, session: TlsSession) -> bytes:
    return f"{version.value} for {peer.remote} with {session.version};".encode()


class Pipe:
    """
    A client and its app, in memory.

    Attributes:
        tls: What the client sees of its connection; `tls.sent` is what it has received.
        app: The connection to the app; there is none before `accept`.
        log: How it ended.
    """

    app: RecordingTransport

    def __init__(
        self,
        *,
        admission: Admission | Decision = ADMITTED,
        timeouts: Timeouts = TIMEOUTS,
        pools: int = 1,
        refusal: ConnectFailed | None = None,
        proxy_protocol: ProxyProtocolOut = ProxyProtocolOut.OFF,
        session: TlsSession = SESSION,
    ) -> None:
        self.clock = task.Clock()
        self.deadlines = Deadlines(self.clock)
        self.tls = RecordingSecureTransport()
        self.log = RecordedLog()
        self.pools = [FakePool(self.clock) for _ in range(pools)]
        self.cluster = FakeCluster(*self.pools)
        self.cluster.refusal = refusal
        self.cluster.proxy_protocol = proxy_protocol
        self.service = make_service(
            self.clock, router=Router.to(self.cluster, timeouts), timeouts=timeouts, access_log=self.log
        )
        self.peer = FakePeer(self, self.deadlines)
        self.tunnel = Tunnel(self.tls, self.peer, self.service, session, admission=admission, proxy_header=header)
        self.tls.owner = self.tunnel
        self._is_lost = False

    def accept(self, pool: int = 0) -> RecordingTransport:
        """Let the connection to the app be made."""
        self.app = self.pools[pool].accept_raw()
        return self.app

    def client_sends(self, data: bytes) -> None:
        assert self.peer.is_reading, "the client was asked for silence"
        self.tunnel.dataReceived(data)

    def client_ends(self, *, clean: bool = True) -> None:
        self.tunnel.eofReceived(clean)
        self.settle()

    def client_vanishes(self) -> None:
        self.tls.abort()
        self.settle()

    def received(self) -> bytes:
        """Return what the client got since the last call."""
        data, self.tls.sent = self.tls.sent, b""
        return data

    def app_received(self) -> bytes:
        """Return what the app got since the last call."""
        data, self.app.sent = self.app.sent, b""
        return data

    def settle(self) -> None:
        """Run what was put off, and tell a connection that was aborted of its end."""
        self.clock.advance(0)
        if self.tls.ending == "abort" and not self._is_lost:
            self._is_lost = True
            self.peer.deadline.end()
            self.tunnel.connectionLost(make_failure(error.ConnectionAborted()))
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    def deadline_passed(self) -> None:
        """As `TlsServer` hands it on: to the application while the connection is open, else it aborts."""
        if self.tls.ending:
            self.tls.abort()
        else:
            self.tunnel.deadline_passed()

    def abandon(self) -> None:
        raise AssertionError("a deadline failed")

    @property
    def active(self) -> list[int]:
        """Requests under way at each endpoint."""
        return [endpoint.active for endpoint in self.cluster.endpoints]


@pytest.fixture
def pipe() -> Pipe:
    pipe = Pipe()
    pipe.accept()
    return pipe


class TestConnecting:
    def test_client_is_not_read_from_before_there_is_a_connection(self) -> None:
        """What it sends waits in the kernel; TLS may hand over what had come with the end of the handshake."""
        pipe = Pipe()
        assert not pipe.peer.is_reading
        pipe.tunnel.dataReceived(b"a")
        pipe.tunnel.dataReceived(b"b")
        pipe.accept()
        assert pipe.app_received() == b"ab"
        assert pipe.peer.is_reading
        assert pipe.tunnel.bytes_received == 2

    def test_app_may_speak_first(self, pipe: Pipe) -> None:
        """As mail servers and databases do."""
        pipe.app.deliver(b"220 ready\r\n")
        assert pipe.received() == b"220 ready\r\n"

    def test_app_that_takes_nothing_at_once_keeps_the_client_paused(self) -> None:
        """Reading goes on in the order in which it is asked for: first on, then off again."""
        pipe = Pipe()
        pipe.tunnel.dataReceived(b"early")
        pipe.pools[0].stuck_from_the_start = True
        app = pipe.accept()
        assert not pipe.peer.is_reading
        app.take()
        assert pipe.peer.is_reading

    def test_client_that_is_stuck_keeps_the_app_paused(self) -> None:
        """What the app says first is not collected for a client that does not even take the handshake."""
        pipe = Pipe()
        pipe.tunnel.pauseProducing()
        assert not pipe.accept().is_reading
        pipe.tunnel.resumeProducing()
        assert pipe.app.is_reading

    def test_deadline_of_the_handshake_does_not_end_it(self) -> None:
        """Connections to the app have their own, and whoever makes them tells of it."""
        pipe = Pipe()
        pipe.peer.deadline.set(1.0)
        pipe.pass_time(1.2)
        assert not pipe.log.ended
        pipe.accept()
        pipe.client_sends(b"a")
        assert pipe.app_received() == b"a"

    @pytest.mark.parametrize("reason", ["upstream_connect_refused", "upstream_connect_timeout", "upstream_tls_failed"])
    def test_failure_goes_to_another_endpoint(self, reason: str) -> None:
        """The app has seen nothing yet; the endpoint is told of it, once."""
        pipe = Pipe(pools=2)
        pipe.tunnel.dataReceived(b"early")
        pipe.pools[0].refuse_raw(reason)
        assert pipe.active == [0, 1]
        pipe.accept(1)
        assert pipe.app_received() == b"early"
        assert pipe.tunnel.upstream == "127.0.0.1:8081"
        assert [endpoint.told for endpoint in pipe.cluster.endpoints] == [[reason], [""]]

    def test_no_more_than_three_endpoints_are_tried(self) -> None:
        """An outage is not multiplied; the last failure is what is told."""
        pipe = Pipe(pools=MAX_ENDPOINTS_TRIED + 1)
        for number in range(MAX_ENDPOINTS_TRIED):
            pipe.pools[number].refuse_raw(detail=f"refused by {number}")
        assert pipe.log.ended == [Ended(0, "upstream_connect_refused", "refused by 2")]
        assert not pipe.pools[MAX_ENDPOINTS_TRIED].raw
        assert pipe.active == [0] * (MAX_ENDPOINTS_TRIED + 1)
        assert pipe.tls.ending == "abort"

    def test_last_endpoint_that_fails_is_the_reason(self) -> None:
        """That there is no other says nothing."""
        pipe = Pipe()
        pipe.pools[0].refuse_raw("upstream_connect_timeout", "2 s")
        assert pipe.log.ended == [Ended(0, "upstream_connect_timeout", "2 s")]
        assert pipe.tls.ending == "abort"
        assert pipe.service.metrics.tunnels_ended == {"upstream_connect_timeout": 1}

    def test_limit_of_ours_is_no_fault_of_an_endpoint(self) -> None:
        """It was not even asked."""
        pipe = Pipe()
        pipe.pools[0].refuse_raw("upstream_overflow")
        assert pipe.cluster.endpoints[0].told == []
        assert pipe.log.ended[0].reason == "upstream_overflow"
        assert pipe.active == [0]

    def test_cluster_without_endpoints_ends_it_at_once(self) -> None:
        """The client is cut, and the log says why."""
        pipe = Pipe(refusal=ConnectFailed("no_healthy_upstream", "cluster app: none"))
        assert pipe.log.ended == [Ended(0, "no_healthy_upstream", "cluster app: none")]
        assert pipe.tls.ending == "abort"
        pipe.settle()
        assert len(pipe.log.ended) == 1

    def test_client_that_vanishes_meanwhile_gets_no_connection(self) -> None:
        """The one that is made for it after all is closed, and nobody is blamed."""
        pipe = Pipe()
        pipe.client_vanishes()
        assert pipe.log.ended == [Ended(0, "downstream_lost", "")]
        assert pipe.accept().calls == ["abortConnection"]
        pipe.settle()
        assert len(pipe.log.ended) == 1
        assert pipe.active == [0]
        assert pipe.cluster.endpoints[0].told == []

    def test_failure_after_the_client_vanished_changes_nothing(self) -> None:
        """No other endpoint is tried for nobody."""
        pipe = Pipe(pools=2)
        pipe.client_vanishes()
        pipe.pools[0].refuse_raw()
        assert len(pipe.log.ended) == 1
        assert not pipe.pools[1].raw
        assert pipe.active == [0, 0]

    def test_what_a_client_sends_before_it_ends_is_not_lost(self) -> None:
        """One that says all it has and its end in one segment, as senders of logs do, is heard like others."""
        pipe = Pipe()
        pipe.tunnel.dataReceived(b"one line\n")
        pipe.client_ends()
        assert not pipe.log.ended
        app = pipe.accept()
        assert app.sent == b"one line\n"
        assert app.calls == ["shut_down_writing"]
        app.deliver(b"thanks\n")
        assert pipe.received() == b"thanks\n"
        app.deliver_eof()
        assert pipe.log.ended == [Ended(0, "", "")]

    def test_client_that_ended_has_the_deadline_of_one_that_has(self) -> None:
        """From the connection on."""
        pipe = Pipe()
        pipe.client_ends()
        pipe.accept()
        pipe.pass_time(3.2)
        assert pipe.log.ended == [Ended(0, "half_closed_timeout", "")]

    def test_client_that_breaks_off_meanwhile_is_gone(self) -> None:
        """What it sent may not be all that it had to say."""
        pipe = Pipe()
        pipe.tunnel.dataReceived(b"half a li")
        pipe.client_ends(clean=False)
        assert pipe.log.ended == [Ended(0, "downstream_lost", "")]
        assert pipe.accept().sent == b""

    @pytest.mark.parametrize(
        ("version", "preface"),
        [
            (ProxyProtocolOut.OFF, b""),
            (ProxyProtocolOut.V1, b"v1 for 192.0.2.7:50000 with TLSv1.3;"),
            (ProxyProtocolOut.V2, b"v2 for 192.0.2.7:50000 with TLSv1.3;"),
        ],
        ids=["off", "v1", "v2"],
    )
    def test_connection_begins_with_the_header_that_the_cluster_wants(
        self, version: ProxyProtocolOut, preface: bytes
    ) -> None:
        """Each that is tried, in the client's name."""
        pipe = Pipe(pools=2, proxy_protocol=version)
        pipe.pools[0].refuse_raw()
        assert [pool.prefaces for pool in pipe.pools] == [[preface], [preface]]


class TestRelay:
    def test_bytes_go_both_ways_as_they_come(self, pipe: Pipe) -> None:
        """Whatever they look like, and each in one piece."""
        pipe.client_sends(b"GET / HTTP/1.1\r\n\r\n")
        assert pipe.app_received() == b"GET / HTTP/1.1\r\n\r\n"
        pipe.app.deliver(b"\x00\xff")
        pipe.app.deliver(b"PROXY UNKNOWN\r\n")
        assert pipe.received() == b"\x00\xffPROXY UNKNOWN\r\n"
        assert (pipe.tunnel.bytes_received, pipe.tunnel.bytes_sent) == (18, 17)

    def test_app_may_send_much_at_once(self, pipe: Pipe) -> None:
        """The client has nothing beside this one connection to the app."""
        assert pipe.app.read_limit == MAX_UPSTREAM_READ_SIZE

    def test_app_that_does_not_read_pauses_the_client(self, pipe: Pipe) -> None:
        """What is held for it is what was read at once."""
        pipe.app.stop_taking()
        pipe.client_sends(b"a")
        assert not pipe.peer.is_reading
        pipe.app.take()
        assert pipe.peer.is_reading

    def test_client_that_does_not_read_pauses_the_app(self, pipe: Pipe) -> None:
        """The same the other way round."""
        pipe.tls.stop_taking()
        pipe.app.deliver(b"a")
        assert not pipe.app.is_reading
        pipe.tls.take()
        assert pipe.app.is_reading

    def test_side_that_is_stuck_can_still_talk(self, pipe: Pipe) -> None:
        """Each direction is its own affair."""
        pipe.tls.stop_taking()
        pipe.app.deliver(b"a")
        pipe.client_sends(b"b")
        assert pipe.app_received() == b"b"

    def test_connection_counts_as_one_of_its_endpoint(self, pipe: Pipe) -> None:
        """For as long as it is open, so that balancing and limits see it."""
        assert pipe.active == [1]
        assert pipe.cluster.endpoints[0].told == [""]
        assert pipe.service.metrics.tunnels == 1


class TestHalfClose:
    def test_end_of_the_client_goes_on_to_the_app(self, pipe: Pipe) -> None:
        """Which may still talk, and whose end is that of all."""
        pipe.client_sends(b"question")
        pipe.client_ends()
        assert pipe.app.calls == ["shut_down_writing"]
        assert not pipe.log.ended
        pipe.app.deliver(b"answer")
        assert pipe.received() == b"answer"
        pipe.app.deliver_eof()
        assert pipe.tls.ending == "linger"
        assert pipe.app.calls == ["shut_down_writing", "loseConnection"]
        assert pipe.log.ended == [Ended(0, "", "")]
        assert pipe.active == [0]
        assert pipe.service.metrics.tunnels_ended == {}

    def test_end_of_the_app_goes_on_to_the_client(self, pipe: Pipe) -> None:
        """The same the other way round."""
        pipe.app.deliver(b"hello")
        pipe.app.deliver_eof()
        assert pipe.tls.is_half_closed
        assert not pipe.tls.ending
        pipe.client_sends(b"last words")
        assert pipe.app_received() == b"last words"
        pipe.client_ends()
        assert pipe.tls.ending == "linger"
        assert pipe.app.calls == ["loseConnection"]
        assert pipe.log.ended == [Ended(0, "", "")]
        assert pipe.active == [0]

    @pytest.mark.parametrize("who", ["client", "app"])
    def test_other_side_has_the_body_timeout_for_each_piece(self, pipe: Pipe, who: str) -> None:
        """A side that has ended waits for one that talks on, and not for one that is silent."""
        pipe.client_ends() if who == "client" else pipe.app.deliver_eof()
        for _ in range(3):
            pipe.pass_time(2.5)
            pipe.app.deliver(b"x") if who == "client" else pipe.client_sends(b"x")
        assert not pipe.log.ended
        pipe.pass_time(3.2)
        assert pipe.log.ended == [Ended(0, "half_closed_timeout", "")]
        assert pipe.tls.ending == "abort"
        assert "abortConnection" in pipe.app.calls

    def test_backpressure_holds_after_the_end_of_the_client(self, pipe: Pipe) -> None:
        """The answer to a whole question is not collected either."""
        pipe.client_ends()
        pipe.tls.stop_taking()
        pipe.app.deliver(b"a")
        assert not pipe.app.is_reading
        pipe.pass_time(3.2)
        assert pipe.log.ended == [Ended(0, "downstream_stalled", "")]

    def test_last_bytes_are_waited_for(self, pipe: Pipe) -> None:
        """Both have ended, and the client takes what there still is within the body timeout."""
        pipe.client_ends()
        pipe.tls.stop_taking()
        pipe.app.deliver(b"the end")
        pipe.app.protocol.eofReceived()  # type: ignore[union-attr]
        assert pipe.tls.ending == "linger"
        assert pipe.log.ended == [Ended(0, "", "")]
        pipe.pass_time(2.8)
        assert pipe.tls.ending == "linger"
        pipe.pass_time(0.4)
        assert pipe.tls.ending == "abort"

    def test_client_that_does_not_close_is_aborted(self, pipe: Pipe) -> None:
        """With both sides at their ends, there is nothing to wait for but the client's FIN."""
        pipe.client_ends()
        pipe.app.deliver_eof()
        pipe.pass_time(LINGER_SECONDS - 0.2)
        assert pipe.tls.ending == "linger"
        pipe.pass_time(0.4)
        assert pipe.tls.ending == "abort"
        assert len(pipe.log.ended) == 1

    def test_end_without_close_notify_is_the_end_of_both(self, pipe: Pipe) -> None:
        """The app gets all that came, and the log says how it ended."""
        pipe.client_sends(b"quit\r\n")
        pipe.client_ends(clean=False)
        assert pipe.app_received() == b"quit\r\n"
        assert pipe.app.calls == ["loseConnection"]
        assert pipe.tls.ending == "abort"
        assert pipe.log.ended == [Ended(0, "closed_without_notify", "")]
        assert pipe.active == [0]


ENDINGS: dict[str, tuple[Callable[[Pipe], object], str]] = {
    "the client resets": (Pipe.client_vanishes, "downstream_lost"),
    "the app resets": (lambda pipe: pipe.app.reset(), "upstream_reset"),
    "the app resets after the client's end": (
        lambda pipe: (pipe.client_ends(), pipe.app.reset()),
        "upstream_reset",
    ),
    "the client resets after the app's end": (
        lambda pipe: (pipe.app.deliver_eof(), pipe.client_vanishes()),
        "downstream_lost",
    ),
    "both are silent": (lambda pipe: pipe.pass_time(50.2), "idle_timeout"),
    "the client takes nothing": (
        lambda pipe: (pipe.tls.stop_taking(), pipe.app.deliver(b"a"), pipe.pass_time(3.2)),
        "downstream_stalled",
    ),
    "the app takes nothing": (
        lambda pipe: (pipe.app.stop_taking(), pipe.client_sends(b"a"), pipe.pass_time(20.2)),
        "upstream_stalled",
    ),
    "the process ends": (lambda pipe: pipe.tunnel.end(), "drain_timeout"),
    "the client is refused": (
        lambda pipe: pipe.tunnel.judge_again(SESSION, REFUSED, FORWARDING),
        "client_certificate_missing",
    ),
}


class TestCut:
    @pytest.mark.parametrize(("ending", "reason"), ENDINGS.values(), ids=ENDINGS)
    def test_neither_side_takes_it_for_an_end(self, pipe: Pipe, ending: Callable[[Pipe], object], reason: str) -> None:
        """Both are cut with a reset; it is logged and counted once, and its endpoint has one connection less."""
        pipe.client_sends(b"half a")
        ending(pipe)
        pipe.settle()
        assert pipe.tls.ending == "abort"
        assert pipe.app.is_closed
        assert "loseConnection" not in pipe.app.calls
        assert [ended.reason for ended in pipe.log.ended] == [reason]
        assert pipe.active == [0]
        assert pipe.service.metrics.tunnels_ended == {reason: 1}
        assert pipe.tunnel.is_idle

    @pytest.mark.parametrize(("ending", "reason"), ENDINGS.values(), ids=ENDINGS)
    def test_nothing_happens_afterwards(self, pipe: Pipe, ending: Callable[[Pipe], object], reason: str) -> None:
        """Whatever else comes of either side is too late: no second record, no deadline, no refusal."""
        ending(pipe)
        pipe.settle()
        tunnel = pipe.tunnel
        pipe.received()
        events = len(pipe.service.rejecter.rejections.as_json())
        tunnel.dataReceived(b"late")
        tunnel.eofReceived(True)
        tunnel.eofReceived(False)
        tunnel.app_ended()
        tunnel.app_lost()
        tunnel.end()
        tunnel.judge_again(SESSION, REFUSED, FORWARDING)
        pipe.pass_time(100.0)
        assert [ended.reason for ended in pipe.log.ended] == [reason]
        assert pipe.received() == b""
        assert pipe.active == [0]
        assert len(pipe.service.rejecter.rejections.as_json()) == events

    def test_every_byte_moves_the_deadline(self, pipe: Pipe) -> None:
        """Of either side."""
        for step in (pipe.client_sends, pipe.app.deliver) * 3:
            pipe.pass_time(45.0)
            step(b"x")
        assert not pipe.log.ended
        pipe.pass_time(50.2)
        assert pipe.log.ended == [Ended(0, "idle_timeout", "")]

    def test_silence_may_last_for_ever_if_told_so(self) -> None:
        """0 is off."""
        pipe = Pipe(timeouts=attrs.evolve(TIMEOUTS, tcp_idle=Seconds(0.0)))
        pipe.accept()
        assert pipe.peer.deadline.at == NEVER

    def test_stuck_client_is_not_saved_by_an_app_that_has_more(self, pipe: Pipe) -> None:
        """What was under way from the app when it was paused does not move the deadline."""
        pipe.tls.stop_taking()
        pipe.app.deliver(b"a")
        pipe.pass_time(2.0)
        pipe.tunnel.from_app(b"b")
        pipe.pass_time(1.2)
        assert pipe.log.ended == [Ended(0, "downstream_stalled", "")]

    def test_app_that_takes_nothing_has_the_stream_timeout(self, pipe: Pipe) -> None:
        """Its client is not read from meanwhile, so nobody would notice that it has left."""
        pipe.pass_time(40.0)
        pipe.app.stop_taking()
        pipe.client_sends(b"a")
        pipe.pass_time(19.8)
        assert not pipe.log.ended
        pipe.pass_time(0.4)
        assert pipe.log.ended == [Ended(0, "upstream_stalled", "")]

    def test_app_that_takes_again_has_the_idle_timeout_again(self, pipe: Pipe) -> None:
        """From then on, the whole of it."""
        pipe.app.stop_taking()
        pipe.client_sends(b"a")
        pipe.pass_time(19.0)
        pipe.app.take()
        pipe.pass_time(49.8)
        assert not pipe.log.ended
        pipe.pass_time(0.4)
        assert pipe.log.ended == [Ended(0, "idle_timeout", "")]

    def test_app_that_takes_nothing_may_still_talk(self, pipe: Pipe) -> None:
        """A connection on which bytes move is not stalled."""
        pipe.app.stop_taking()
        pipe.client_sends(b"a")
        for _ in range(3):
            pipe.pass_time(19.0)
            pipe.app.deliver(b"x")
        assert not pipe.log.ended
        pipe.pass_time(20.2)
        assert pipe.log.ended == [Ended(0, "upstream_stalled", "")]

    def test_app_that_takes_nothing_from_the_start_is_no_exception(self) -> None:
        """What had come before there was a connection is too much for it already."""
        pipe = Pipe()
        pipe.tunnel.dataReceived(b"early")
        pipe.pools[0].stuck_from_the_start = True
        pipe.accept()
        pipe.pass_time(20.2)
        assert pipe.log.ended == [Ended(0, "upstream_stalled", "")]

    def test_without_stream_timeout_the_idle_timeout_bounds_it(self) -> None:
        """0 is off for an app that answers slowly, not for a connection that nobody uses."""
        pipe = Pipe(timeouts=attrs.evolve(TIMEOUTS, stream=Seconds(0.0)))
        pipe.accept()
        pipe.app.stop_taking()
        pipe.client_sends(b"a")
        pipe.pass_time(49.8)
        assert not pipe.log.ended
        pipe.pass_time(0.4)
        assert pipe.log.ended == [Ended(0, "upstream_stalled", "")]

    def test_where_neither_side_takes_anything_the_client_is_to_blame(self, pipe: Pipe) -> None:
        """It has the shorter time."""
        pipe.app.stop_taking()
        pipe.tls.stop_taking()
        pipe.client_sends(b"a")
        pipe.app.deliver(b"b")
        pipe.pass_time(3.2)
        assert pipe.log.ended == [Ended(0, "downstream_stalled", "")]


class TestClients:
    def test_refused_client_gets_nothing(self) -> None:
        """It is cut before anybody connects to the app; operators see who and why."""
        pipe = Pipe(admission=REFUSED)
        assert pipe.tls.ending == "abort"
        assert not pipe.pools[0].raw
        assert pipe.log.ended == [Ended(0, "client_certificate_missing", "")]
        (event,) = pipe.service.rejecter.rejections.as_json()
        assert (event["client"], event["reason"]) == ("192.0.2.7", "client_certificate_missing")
        assert pipe.active == [0]
        pipe.tunnel.dataReceived(b"early")
        pipe.settle()
        assert len(pipe.log.ended) == 1

    def test_rules_that_would_look_at_requests_do_not_let_in(self) -> None:
        """There are none: what holds for everything else decides, and it is not the exempt path."""
        rules = access_of(ClientSettings(cert=ClientCertMode.REQUIRED), "test").rules
        open_ = attrs.evolve(rules, of_routes=(Rule(name="open", mode=ClientCertMode.NONE),))
        pipe = Pipe(admission=Admission(open_, NO_CERTIFICATE))
        assert pipe.log.ended[0].reason == "client_certificate_missing"

    def test_client_with_a_name_is_counted_by_it(self) -> None:
        """Once, when it ends."""
        decision = judge(Rule(name="default", mode=ClientCertMode.REQUIRED), Presented(GOOD))
        session = attrs.evolve(SESSION, verification=Verification(None, None, GOOD))
        pipe = Pipe(admission=decision, session=session)
        pipe.accept()
        assert pipe.tunnel.principal == "ci.example"
        assert pipe.service.metrics.client_requests == {}
        pipe.client_vanishes()
        assert pipe.service.metrics.client_requests == {"ci.example": 1}

    def test_client_that_may_stay_is_left_alone(self, pipe: Pipe) -> None:
        """A reload that changes nothing for it does nothing to it."""
        other = attrs.evolve(SESSION, server_name="other")
        pipe.tunnel.judge_again(other, ADMITTED, FORWARDING)
        assert pipe.tunnel.session is other
        pipe.client_sends(b"a")
        assert pipe.app_received() == b"a"

    def test_client_that_may_not_stay_is_cut_while_connecting_too(self) -> None:
        """The connection that is made for it is closed."""
        pipe = Pipe()
        pipe.tunnel.judge_again(SESSION, REFUSED, FORWARDING)
        assert pipe.tls.ending == "abort"
        assert pipe.accept().calls == ["abortConnection"]
        assert pipe.active == [0]


class TestDrain:
    def test_drain_waits_for_both_ends(self, pipe: Pipe) -> None:
        """Only they know when it is over; nothing is said to either."""
        pipe.tunnel.drain()
        assert not pipe.tunnel.is_idle
        pipe.client_sends(b"a")
        pipe.app.deliver(b"b")
        assert (pipe.app_received(), pipe.received()) == (b"a", b"b")

    def test_end_does_not_wait_for_a_client_to_let_go(self, pipe: Pipe) -> None:
        """Both sides have ended, so that nothing is lost, and there is nothing more to record."""
        pipe.client_ends()
        pipe.app.deliver_eof()
        assert pipe.tls.ending == "linger"
        pipe.tunnel.end()
        assert pipe.tls.ending == "abort"
        assert pipe.log.ended == [Ended(0, "", "")]

    def test_operators_see_what_it_is(self, pipe: Pipe) -> None:
        """In a word, and where it goes."""
        tunnel = pipe.tunnel
        assert (tunnel.doing, tunnel.cluster, tunnel.upstream, tunnel.requests) == (
            "tunnel",
            "app",
            "127.0.0.1:8080",
            1,
        )
