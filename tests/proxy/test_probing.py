"""`proxy.probing`: asking an endpoint whether it is well."""

from __future__ import annotations

import socket
from typing import Any

import attrs
import pytest

from sidecar.proxy import probing as module
from sidecar.proxy.connect import Way
from sidecar.proxy.probing import MAX_BODY_BYTES, MAX_HEAD_BYTES, Prober
from sidecar.settings import HostPort, ProxyProtocolOut
from sidecar.topology import HealthCheck
from sidecar.wire import proxyproto
from tests.support.ports import FakeReactor, RecordingTransport
from tests.support.upstreams import FakeSecurity, FakeStreams

HTTP = HealthCheck(path="/healthz", interval=5.0, timeout=2.0, jitter=0.1, statuses=((200, 299), (401, 401)))
TCP = attrs.evolve(HTTP, path=None)

WAY = Way(target=HostPort("10.0.0.1", 8080), timeout_seconds=30.0)


class Looking:
    """A prober, the connections that it makes, and what it has found out."""

    def __init__(self, streams: FakeStreams, check: HealthCheck, way: Way = WAY) -> None:
        self.streams = streams
        self.reactor = FakeReactor()
        self.dice = 0.0
        self.results: list[str] = []
        self.proxy_protocol = ProxyProtocolOut.OFF
        self.prober = Prober(
            check,
            lambda: way,
            host="shop",
            proxy_protocol=lambda: self.proxy_protocol,
            reactor=self.reactor,
            random=lambda: self.dice,
            result=self.results.append,
        )
        self.prober.start()

    def accept(self) -> RecordingTransport:
        (opening,) = self.streams.waiting
        return opening.accept()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> FakeStreams:
    streams = FakeStreams()
    monkeypatch.setattr(module, "open_stream", streams.open_stream)
    return streams


@pytest.fixture
def http(streams: FakeStreams) -> Looking:
    return Looking(streams, HTTP)


@pytest.fixture
def tcp(streams: FakeStreams) -> Looking:
    return Looking(streams, TCP)


class TestTcp:
    def test_connection_is_enough(self, tcp: Looking) -> None:
        """It is closed in good order, and nothing is sent."""
        app = tcp.accept()
        assert tcp.results == [""]
        assert (app.sent, app.calls) == (b"", ["loseConnection"])

    def test_no_connection_is_told(self, tcp: Looking) -> None:
        """In the words of who tried."""
        tcp.streams.opened[0].refuse(detail="Connection refused")
        assert tcp.results == ["Connection refused"]

    def test_time_is_that_of_the_check_and_tls_that_of_the_cluster(self, streams: FakeStreams) -> None:
        """A cluster whose connections are slow may have quick checks."""
        way = attrs.evolve(WAY, security=FakeSecurity())
        Looking(streams, TCP, way)
        assert streams.opened[0].way == attrs.evolve(way, timeout_seconds=2.0)


class TestHttp:
    def test_request_is_a_plain_one(self, http: Looking) -> None:
        """It names us, so that the app can leave it out of its log."""
        assert http.accept().sent == (
            b"GET /healthz HTTP/1.1\r\nHost: shop\r\nUser-Agent: sidecar-health-check\r\nAccept: */*\r\n"
            b"Connection: close\r\n\r\n"
        )

    def test_host_may_be_given(self, streams: FakeStreams) -> None:
        """Apps that serve several."""
        sent = Looking(streams, attrs.evolve(HTTP, host="app.internal")).accept().sent
        assert b"\r\nHost: app.internal\r\n" in sent

    @pytest.mark.parametrize(
        ("status", "why"),
        [
            (200, ""),
            (204, ""),
            (299, ""),
            (401, ""),
            (300, "the answer to GET /healthz is 300"),
            (403, "the answer to GET /healthz is 403"),
            (503, "the answer to GET /healthz is 503"),
        ],
    )
    def test_status_decides(self, http: Looking, status: int, why: str) -> None:
        """Any of the ranges will do."""
        http.accept().deliver(b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % status)
        assert http.results == [why]

    @pytest.mark.parametrize(
        ("answer", "calls"),
        [
            ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"], ["loseConnection"]),
            ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"], ["loseConnection"]),
            (
                [b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 O", b"K\r\nContent-Length: 0\r\n\r\n"],
                ["loseConnection"],
            ),
            ([b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (MAX_BODY_BYTES + 1)], ["abortConnection"]),
        ],
        ids=["length", "chunked", "interim", "endless"],
    )
    def test_answer_is_read_to_its_end_within_limits(
        self, http: Looking, answer: list[bytes], calls: list[str]
    ) -> None:
        """The app does not see its connection break, unless it goes on for ever."""
        app = http.accept()
        for part in answer:
            assert http.results == []
            app.deliver(part)
        assert http.results == [""]
        assert app.calls == calls

    def test_answer_may_end_with_the_connection(self, http: Looking) -> None:
        """As HTTP/1.0 has it."""
        app = http.accept()
        app.deliver(b"HTTP/1.0 200 OK\r\n\r\nok")
        app.deliver_eof()
        assert http.results == [""]
        assert app.calls == ["loseConnection"]

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (b"SSH-2.0-OpenSSH_9.6\r\n", "what the app sends is not HTTP/1.x"),
            (b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_HEAD_BYTES, "response head is 16,404 bytes, limit 16,384"),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
             "the app switched to a protocol (101) that nobody asked for"),
        ],
        ids=["not-http", "too-large", "upgrade"],
    )  # fmt: skip
    def test_broken_answer_is_told(self, http: Looking, answer: bytes, why: str) -> None:
        """What is wrong with it."""
        app = http.accept()
        app.deliver(answer)
        assert http.results == [why]
        assert app.calls == ["abortConnection"]

    def test_end_without_an_answer_is_told(self, http: Looking) -> None:
        """An app that closes has not said that it is well."""
        http.accept().deliver_eof()
        assert http.results == ["the app closed the connection before its head was complete"]

    def test_break_without_an_answer_is_told(self, http: Looking) -> None:
        """The same of one that crashes."""
        http.accept().reset()
        assert http.results == ["the app broke the connection before it answered"]

    @pytest.mark.parametrize("end", ["reset", "eof", "silence"])
    def test_head_counts_if_the_body_is_cut(self, http: Looking, end: str) -> None:
        """The status has been said."""
        app = http.accept()
        app.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        if end == "reset":
            app.reset()
        elif end == "eof":
            app.deliver_eof()
        else:
            http.reactor.advance(2.0)
        assert http.results == [""]

    def test_silence_is_a_failure(self, http: Looking) -> None:
        """What the connection took is part of the time."""
        http.reactor.advance(1.5)
        app = http.accept()
        http.reactor.advance(0.4)
        assert http.results == []
        http.reactor.advance(0.1)
        assert http.results == ["no answer within 2 s"]
        assert app.calls == ["abortConnection"]


class TestRhythm:
    def test_next_one_comes_an_interval_and_some_chance_after_the_end(self, http: Looking) -> None:
        """So there is never more than one, however long it takes."""
        http.dice = 0.5
        http.reactor.advance(20.0)
        assert len(http.streams.opened) == 1
        http.accept().deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
        http.reactor.advance(5.24)
        assert len(http.streams.opened) == 1
        http.reactor.advance(0.02)
        assert len(http.streams.opened) == 2
        assert http.results == [""]

    def test_each_is_told_once(self, http: Looking) -> None:
        """An end, a loss and a deadline behind an answer change nothing."""
        app = http.accept()
        app.deliver(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        http.reactor.advance(3.0)
        assert len(http.results) == 1
        assert app.is_closed

    def test_stop_between_two_ends_it(self, tcp: Looking) -> None:
        """No timer is left."""
        tcp.accept()
        tcp.prober.stop()
        tcp.reactor.turn()
        assert not tcp.reactor.pending

    def test_stop_while_it_asks_closes_the_connection(self, http: Looking) -> None:
        """And tells nobody."""
        app = http.accept()
        http.prober.stop()
        http.reactor.turn()
        assert app.is_closed
        assert http.results == []
        assert not http.reactor.pending

    def test_stop_while_it_connects_closes_what_comes(self, http: Looking) -> None:
        """The connection may be made a moment later."""
        http.prober.stop()
        app = http.accept()
        http.reactor.turn()
        assert app.is_closed
        assert app.sent == b""
        assert http.results == []


class FakeSocket:
    """A connected socket, as far as its addresses go."""

    def __init__(self, family: int, ours: Any, theirs: Any) -> None:
        self.family = family
        self.getsockname = lambda: ours
        self.getpeername = lambda: theirs


V4 = FakeSocket(socket.AF_INET, ("10.0.0.9", 50_000), ("10.0.0.1", 8080))
V6 = FakeSocket(socket.AF_INET6, ("2001:db8::9", 50_000, 0, 0), ("2001:db8::1", 8080, 0, 0))
UNIX = FakeSocket(socket.AF_UNIX, "", "/run/app.sock")


class TestProxyHeader:
    @pytest.mark.parametrize(
        ("version", "sock", "header"),
        [
            (ProxyProtocolOut.OFF, V4, b""),
            (ProxyProtocolOut.V1, V4, b"PROXY TCP4 10.0.0.9 10.0.0.1 50000 8080\r\n"),
            (ProxyProtocolOut.V1, V6, b"PROXY TCP6 2001:db8::9 2001:db8::1 50000 8080\r\n"),
            (ProxyProtocolOut.V1, UNIX, b"PROXY UNKNOWN\r\n"),
            (ProxyProtocolOut.V2, V4, proxyproto.LOCAL_V2),
            (ProxyProtocolOut.V2, UNIX, proxyproto.LOCAL_V2),
        ],
        ids=["off", "v1", "v1-v6", "v1-unix", "v2", "v2-unix"],
    )
    def test_connection_says_that_it_is_ours(
        self, http: Looking, version: ProxyProtocolOut, sock: FakeSocket, header: bytes
    ) -> None:
        """An app that expects a header refuses connections without one; version 1 has no word for our own."""
        http.proxy_protocol = version
        assert http.streams.opened[0].preface(sock) == header
