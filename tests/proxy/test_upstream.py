"""`proxy.upstream`: one connection to the app, leased or idle."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet import task

from sidecar.errors import ResponseError, TlsError
from sidecar.proxy.sockets import SocketTransport
from sidecar.proxy.upstream import RawConnection, UpstreamConnection
from sidecar.wire.events import END, Data, ResponseHead
from sidecar.wire.http1 import ClientCodec
from tests.support.ports import RecordingTransport, make_failure
from tests.support.upstreams import RecordingProtocol


class Lessee:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def response_events(self, events: list[Any]) -> None:
        self.told += [type(event).__name__ for event in events]

    def whole_response(self, head: ResponseHead, body: bytes) -> None:
        self.told.append((head.status, body))

    def response_failed(self, error: ResponseError) -> None:
        self.told.append(error.reason)

    def upstream_lost(self) -> None:
        self.told.append("lost")

    def upstream_full(self) -> None:
        self.told.append("full")

    def upstream_drained(self) -> None:
        self.told.append("drained")


class Owner:
    """Notes what it is to forget."""

    def __init__(self) -> None:
        self.forgotten: list[UpstreamConnection] = []

    def forget(self, upstream: UpstreamConnection) -> None:
        self.forgotten.append(upstream)


class Connection:
    def __init__(self) -> None:
        self.clock = task.Clock()
        self.owner = Owner()
        self.lessee = Lessee()
        self.upstream = UpstreamConnection(ClientCodec(1024, 10), self.owner)
        self.transport = RecordingTransport(self.clock, self.upstream)
        self.upstream.transport = cast(SocketTransport, self.transport)

    def lease(self) -> Connection:
        self.upstream.lease(self.lessee)
        self.upstream.codec.expect_response(b"GET", ())
        return self


@pytest.fixture
def leased() -> Connection:
    return Connection().lease()


@pytest.fixture
def idle() -> Connection:
    return Connection()


class TestLeased:
    def test_events_are_handed_on(self, leased: Connection) -> None:
        """What the codec reads is the lessee's."""
        leased.transport.deliver(b"HTTP/1.1 200 OK\r\nContent-Le")
        assert leased.lessee.told == []
        leased.transport.deliver(b"ngth: 2\r\n\r\na")
        leased.transport.deliver(b"b")
        assert leased.lessee.told == ["ResponseHead", "Data", "Data", "End"]

    def test_repeated_response_is_handed_on_whole(self, leased: Connection) -> None:
        """An answer that differs from the last one in its body alone is not taken apart."""
        for body in (b"a", b"b"):
            leased.transport.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
            leased.upstream.codec.expect_response(b"GET", ())
        assert leased.lessee.told == ["ResponseHead", "Data", "End", (200, b"b")]

    def test_broken_response_closes_first_then_tells(self, leased: Connection) -> None:
        """The lessee is told once, of a connection that is closed already."""
        leased.transport.deliver(b"rubbish\r\n\r\n")
        leased.clock.advance(0)
        assert len(leased.lessee.told) == 1
        assert leased.transport.is_closed
        assert leased.owner.forgotten == [leased.upstream]

    def test_end_before_a_response_is_a_loss(self, leased: Connection) -> None:
        """An app that closes without a byte has not answered."""
        leased.transport.deliver_eof()
        leased.clock.advance(0)
        assert leased.lessee.told == ["lost"]

    def test_end_inside_a_response_is_a_cut(self, leased: Connection) -> None:
        """A length that is not reached is told as such."""
        leased.transport.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        leased.transport.deliver_eof()
        leased.clock.advance(0)
        assert leased.lessee.told[-1] == "response_cut"
        assert leased.transport.is_closed

    def test_end_of_a_close_delimited_body_is_its_end(self, leased: Connection) -> None:
        """The connection's end ends the message."""
        leased.transport.deliver(b"HTTP/1.1 200 OK\r\n\r\na")
        leased.transport.deliver_eof()
        assert leased.lessee.told == ["ResponseHead", "Data", "End"]

    def test_loss_is_told_once(self, leased: Connection) -> None:
        """A reset ends the lease."""
        leased.transport.reset()
        assert leased.lessee.told == ["lost"]
        assert leased.upstream.lessee is None
        assert leased.owner.forgotten == [leased.upstream]

    def test_backpressure_is_handed_on(self, leased: Connection) -> None:
        """The lessee hears when the app does not read, and when it does again."""
        leased.transport.stop_taking()
        leased.transport.write(b"a")
        leased.transport.take()
        assert leased.lessee.told == ["full", "drained"]

    def test_what_broke_tls_is_kept(self, leased: Connection) -> None:
        """Of a socket there is nothing to say that the reason does not; TLS knows why the app refuses us."""
        leased.upstream.connectionLost(make_failure(TlsError("certificate_refused", "the app refused it")))
        assert leased.upstream.broken_by == "the app refused it"
        assert leased.lessee.told == ["lost"]

    def test_close_tells_nobody(self, leased: Connection) -> None:
        """Who gives a connection up needs no word of it."""
        leased.upstream.close()
        leased.clock.advance(0)
        assert leased.lessee.told == []
        assert leased.owner.forgotten == [leased.upstream]

    def test_tunnel_is_not_framed(self, leased: Connection) -> None:
        """After an upgrade bytes are data, and the end is the end."""
        codec = leased.upstream.codec
        codec.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        codec.upgrade()
        assert codec.receive(b"raw") == [Data(b"raw")]
        assert codec.receive_eof() == [END]


class TestIdle:
    def test_bytes_close_it(self, idle: Connection) -> None:
        """Nobody asked: whatever it is, it is not the answer to the next request."""
        idle.transport.deliver(b"HTTP/1.1 200 OK\r\n\r\n")
        assert idle.transport.is_closed
        assert idle.owner.forgotten == [idle.upstream]

    def test_end_closes_it(self, idle: Connection) -> None:
        """The app may close what it does not need."""
        idle.transport.deliver_eof()
        idle.clock.advance(0)
        assert idle.transport.is_closed
        assert set(idle.owner.forgotten) == {idle.upstream}

    def test_backpressure_is_nobodys(self, idle: Connection) -> None:
        """A late drain finds no lessee."""
        idle.upstream.pauseProducing()
        idle.upstream.resumeProducing()
        assert idle.lessee.told == []


class RawOwner:
    """Notes what it is to forget."""

    def __init__(self) -> None:
        self.forgotten: list[RawConnection] = []

    def forget_raw(self, raw: RawConnection) -> None:
        self.forgotten.append(raw)


class TestRaw:
    def test_everything_is_handed_on(self) -> None:
        """Bytes, the end, backpressure and the loss, which the owner hears of first."""
        clock, owner, protocol = task.Clock(), RawOwner(), RecordingProtocol()
        raw = RawConnection(owner)
        raw.protocol = protocol
        transport = RecordingTransport(clock, raw)
        transport.deliver(b"\x00raw")
        transport.stop_taking()
        transport.write(b"a")
        transport.take()
        transport.deliver_eof()
        transport.reset()
        assert protocol.received == b"\x00raw"
        assert protocol.calls == ["pause", "resume", "eof", "lost"]
        assert owner.forgotten == [raw]
        assert raw.protocol is None

    def test_nothing_is_heard_before_it_is_handed_out(self) -> None:
        """Nobody knows of it yet; the owner does."""
        owner = RawOwner()
        raw = RawConnection(owner)
        raw.dataReceived(b"a")
        raw.eofReceived()
        raw.pauseProducing()
        raw.resumeProducing()
        raw.connectionLost(make_failure(ConnectionError()))
        assert owner.forgotten == [raw]
