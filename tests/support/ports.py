"""
Recording fakes for the ports of `sidecar.proxy`, `sidecar.tls` and `sidecar.admin`: no sockets, no time of their own.

Each fake obeys the contract of what it stands for: a writer pauses its protocol at the first write that is stuck and
not again, `connectionLost` comes in a later turn of the clock, and nothing is called after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

from twisted.internet import error, task
from twisted.python import failure

from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.deadlines import Deadline, Deadlines, Waiting
from sidecar.proxy.sockets import MAX_READ_SIZE, MIN_PROGRESS_BYTES, SocketTransport, StreamProtocol
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import HostPort, Limits, ProxyProtocolOut
from sidecar.wire.http1 import ClientCodec
from sidecar.wire.proxyproto import ProxyHeader

LIMITS = Limits()


def make_failure(why: Exception) -> failure.Failure:
    """Wrap *why* as a transport hands it to `connectionLost`."""
    return failure.Failure(why)  # type: ignore[no-untyped-call]


class FakeReactor(task.Clock):
    """
    A `Clock` that also keeps sets of who is registered for what; the test calls `doRead` and `doWrite`.

    Attributes:
        is_stopped: Whether somebody wanted it to end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_stopped = False
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        assert reader.fileno() >= 0, "a closed descriptor is registered for reading"
        self.readers.add(reader)

    def addWriter(self, writer: Any) -> None:
        assert writer.fileno() >= 0, "a closed descriptor is registered for writing"
        self.writers.add(writer)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def stop(self) -> None:
        self.is_stopped = True

    def turn(self) -> None:
        """Run what was put off to the next turn."""
        self.advance(0)

    @property
    def pending(self) -> int:
        """Delayed calls that are still to come."""
        return len(self.getDelayedCalls())


class RecordingTransport:
    """
    A byte transport, as `tls.server.ByteTransport` and as `UpstreamConnection` use one.

    Attributes:
        protocol: Who is told; None if nobody listens.
        sent: What the peer has taken.
        acknowledged: How often it was asked to acknowledge.
        calls: What else was done to it beside writing, in order.
        is_stuck: Set by `stop_taking`: the peer takes nothing more.
        in_kernel: What the kernel has of the bytes written, and the peer has not taken; the test sets it.
        is_reading: Whether the owner wants to hear more from the peer.
        read_limit: What may be read at once while a transfer flows.
        bytes_received: What the peer has sent.
        times_written: How often something was written.
    """

    def __init__(self, clock: task.Clock, protocol: StreamProtocol | None = None) -> None:
        self.protocol = protocol
        self.sent = b""
        self.times_written = 0
        self.acknowledged = 0
        self.calls: list[str] = []
        self.is_stuck = False
        self.in_kernel = 0
        self.is_reading = True
        self.read_limit = MAX_READ_SIZE
        self.bytes_received = 0
        self._clock = clock
        self._queue = b""
        self._pending_seen = 0
        self._ended = False
        self._flushing = False
        self._half_closed = False

    # -- for the owner --

    @property
    def is_open(self) -> bool:
        return not (self._ended or self._flushing or self._half_closed)

    @property
    def is_flushed(self) -> bool:
        return not self._queue

    @property
    def bytes_sent(self) -> int:
        return len(self.sent)

    def has_progressed(self) -> bool:
        pending = len(self._queue) + self.in_kernel
        progressed = self._pending_seen - pending >= min(MIN_PROGRESS_BYTES, self._pending_seen) > 0
        self._pending_seen = pending
        return progressed

    def write(self, data: bytes | memoryview) -> None:
        if not self.is_open or not data:
            return
        self.times_written += 1
        if self._queue:
            self._queue += data
            self._pending_seen += len(data)
        elif self.is_stuck:
            self._queue = bytes(data)
            self._pending_seen = len(data) + self.in_kernel
            if self.protocol is not None:
                self.protocol.pauseProducing()
        else:
            self.sent += data

    def acknowledge(self) -> None:
        self.acknowledged += 1

    def loseConnection(self) -> None:
        self.calls.append("loseConnection")
        self._flushing = True
        if not self._queue:
            self._end(error.ConnectionDone())

    def shut_down_writing(self) -> None:
        self.calls.append("shut_down_writing")
        self._half_closed = True

    def linger(self) -> None:
        self.calls.append("linger")
        self._flushing = True
        self.is_reading = True

    def abortConnection(self) -> None:
        self.calls.append("abortConnection")
        self._queue = b""
        self._end(error.ConnectionAborted())

    def pauseProducing(self) -> None:
        self.is_reading = False

    def resumeProducing(self) -> None:
        self.is_reading = True

    def read_up_to(self, size: int) -> None:
        self.read_limit = size

    # -- for the test --

    @property
    def queued(self) -> int:
        """Bytes that the owner had to hold for the peer."""
        return len(self._queue)

    @property
    def is_closed(self) -> bool:
        return self._ended

    def stop_taking(self) -> None:
        """The peer does not read: from the next write on, everything is queued."""
        self.is_stuck = True

    def take_some(self, count: int) -> None:
        """The peer reads a little of what is queued, too little for the poller to call the socket writable."""
        assert self.is_stuck
        assert 0 < count < len(self._queue)
        self.sent, self._queue = self.sent + self._queue[:count], self._queue[count:]

    def take(self) -> None:
        """The peer reads again, all of it."""
        self.is_stuck = False
        self._pending_seen = 0
        was_queued, self._queue, self.sent = bool(self._queue), b"", self.sent + self._queue
        if was_queued and self.protocol is not None and not self._ended:
            if self._flushing and "loseConnection" in self.calls:
                self._end(error.ConnectionDone())
            elif not self._flushing:
                self.protocol.resumeProducing()

    def deliver(self, data: bytes) -> None:
        """The peer sends *data*."""
        assert self.is_reading, "the owner has asked for silence"
        assert self.protocol is not None
        if not self._ended:
            self.bytes_received += len(data)
        if not self._ended and not self._flushing:
            self.protocol.dataReceived(data)

    def deliver_eof(self) -> None:
        """The peer closes its side."""
        assert self.protocol is not None
        if not self._ended:
            self.is_reading = False
            self.protocol.eofReceived()

    def reset(self) -> None:
        """The peer resets the connection."""
        if not self._ended:
            self._end(error.ConnectionLost())
            self._clock.advance(0)

    def _end(self, why: Exception) -> None:
        if not self._ended:
            self._ended = True
            if self.protocol is not None:
                self._clock.callLater(0, self.protocol.connectionLost, make_failure(why))


class SecureOwner(Protocol):
    """What a secure transport tells its owner of its own accord."""

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


class RecordingSecureTransport:
    """
    The TLS connection below a `DownstreamConnection`, as `downstream.SecureTransport`.

    A last write reaches the client with the end, and not at all without one.

    Attributes:
        owner: Who is paused when a write is stuck.
        sent: Plaintext that the client has taken.
        ending: How it was ended: ``close``, ``linger`` or ``abort``; empty while it is open.
        is_half_closed: Whether the owner has said that no more will come.
        writes: How often something was written.
    """

    def __init__(self) -> None:
        self.owner: SecureOwner | None = None
        self.sent = b""
        self.writes = 0
        self.ending = ""
        self.is_half_closed = False
        self.is_stuck = False
        self._queue = b""
        self._last = b""

    @property
    def is_flushed(self) -> bool:
        return not self._queue

    def write(self, data: bytes) -> None:
        assert not self._last, "written behind the last"
        assert not self.is_half_closed, "written behind the end"
        if self.ending:
            return
        self.writes += 1
        if self._queue:
            self._queue += data
        elif self.is_stuck:
            self._queue = data
            if self.owner is not None:
                self.owner.pauseProducing()
        else:
            self.sent += data

    def write_last(self, data: bytes) -> None:
        assert not self.is_half_closed, "written behind the end"
        self._last = data

    def shut_down_writing(self) -> None:
        self._write_held()
        self.is_half_closed = True

    def close(self) -> None:
        self._write_held()
        self.ending = self.ending or "close"

    def linger(self) -> None:
        self._write_held()
        self.ending = self.ending or "linger"

    def _write_held(self) -> None:
        data, self._last = self._last, b""
        if data:
            self.write(data)

    def abort(self) -> None:
        self.ending = "abort"
        self._queue = b""

    @property
    def queued(self) -> int:
        """Bytes that are held for the client."""
        return len(self._queue)

    def stop_taking(self) -> None:
        """The client does not read: from the next write on, everything is queued."""
        self.is_stuck = True

    def take(self) -> None:
        """The client reads again, all of it."""
        self.is_stuck = False
        self.take_once()

    def take_once(self) -> None:
        """The client reads what is queued, and from the next write on nothing again."""
        was_queued, self._queue, self.sent = bool(self._queue), b"", self.sent + self._queue
        if was_queued and not self.ending and self.owner is not None:
            self.owner.resumeProducing()


class FakePeer:
    """The socket side of a client, as `downstream.Peer`."""

    def __init__(self, owner: Waiting, deadlines: Deadlines, host: str = "192.0.2.7") -> None:
        self.host = host
        self.remote = HostPort(host, 50_000)
        self.local = HostPort("192.0.2.1", 443)
        self.via: HostPort | None = None
        self.proxied: ProxyHeader | None = None
        self.deadline = Deadline(owner, deadlines)
        self.is_reading = True
        self.read_size = 0  # what was asked for last

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def read_up_to(self, size: int) -> None:
        self.read_size = size


class FakePool:
    """
    A pool of upstream connections over recording transports.

    Attributes:
        opened: Every connection ever made, oldest first.
        idle: Those handed back and not taken again.
        waiting: Who waits for a connection to be made.
        raw: The protocols of raw connections that were asked for.
        raw_waiting: Who waits for them.
        prefaces: What each connection that was asked for is to begin with.
        in_kernel_from_the_start: What the kernel is to hold back of what is written on new connections.
    """

    def __init__(self, clock: task.Clock, limits: Limits = LIMITS) -> None:
        self.address = "127.0.0.1:8080"
        self.opened: list[UpstreamConnection] = []
        self.idle: list[UpstreamConnection] = []
        self.waiting: list[Callable[[UpstreamConnection | ConnectFailed], None]] = []
        self.raw: list[StreamProtocol] = []
        self.raw_waiting: list[Callable[[Any], None]] = []
        self.prefaces: list[bytes] = []
        self.stuck_from_the_start = False
        self.in_kernel_from_the_start = 0
        self.misfit: ConnectFailed | None = None
        self._clock = clock
        self._limits = limits

    # -- as the exchange uses it --

    def take(self, preface: bytes = b"") -> UpstreamConnection | None:
        fitting = [upstream for upstream in self.idle if upstream.preface == preface]
        if not fitting:
            return None
        self.idle.remove(fitting[-1])
        return fitting[-1]

    def connect(self, ready: Callable[[UpstreamConnection | ConnectFailed], None], preface: bytes = b"") -> None:
        self.waiting.append(ready)
        self.prefaces.append(preface)

    def connect_raw(self, protocol: StreamProtocol, ready: Callable[[Any], None], preface: bytes = b"") -> None:
        self.raw.append(protocol)
        self.raw_waiting.append(ready)
        self.prefaces.append(preface)

    def misfits(self, why: ConnectFailed) -> None:
        self.misfit = why

    def release(self, upstream: UpstreamConnection) -> None:
        transport = transport_of(upstream)
        assert transport.is_flushed, "handed back with bytes under way"
        assert transport.is_reading, "handed back without being read from"
        assert transport.read_limit == MAX_READ_SIZE, "handed back with more to be read at once than for anybody"
        upstream.lessee = None
        self.idle.append(upstream)

    def forget(self, upstream: UpstreamConnection) -> None:
        if upstream in self.idle:
            self.idle.remove(upstream)

    def stop(self) -> None:
        self.idle.clear()

    # -- for the test --

    def open(self) -> UpstreamConnection:
        """Make a connection that nobody has asked for yet."""
        preface = self.prefaces[-1] if self.prefaces else b""
        upstream = UpstreamConnection(ClientCodec(self._limits.header_bytes, self._limits.headers), self, preface)
        transport = RecordingTransport(self._clock, upstream)
        transport.is_stuck = self.stuck_from_the_start
        transport.in_kernel = self.in_kernel_from_the_start
        upstream.transport = cast(SocketTransport, transport)
        self.opened.append(upstream)
        return upstream

    def accept(self) -> RecordingTransport:
        """Let the connection that is longest waited for be made; return its transport."""
        upstream = self.open()
        self.waiting.pop(0)(upstream)
        return transport_of(upstream)

    def accept_raw(self) -> RecordingTransport:
        """Let the raw connection that was asked for last be made; return its transport."""
        transport = RecordingTransport(self._clock, self.raw[-1])
        transport.is_stuck = self.stuck_from_the_start
        self.raw_waiting.pop(0)(transport)
        return transport

    def refuse_raw(self, reason: str = "upstream_connect_refused", detail: str = "Connection refused") -> None:
        """Let the raw connection that is longest waited for fail."""
        self.raw_waiting.pop(0)(ConnectFailed(reason, detail))

    def refuse(self, reason: str = "upstream_connect_refused", detail: str = "Connection refused") -> None:
        """Let the connection that is longest waited for fail."""
        self.waiting.pop(0)(ConnectFailed(reason, detail))


class FakeEndpoint:
    """
    One endpoint of a `FakeCluster`.

    Attributes:
        pool: Its connections.
        active: Requests under way.
        told: What became of requests: a reason for each failure, "" for each success.
    """

    def __init__(self, pool: FakePool, address: str = "127.0.0.1:8080") -> None:
        self.pool = pool
        self.address = address
        self.active = 0
        self.told: list[str] = []

    def begin(self) -> None:
        self.active += 1

    def end(self) -> None:
        self.active -= 1
        assert self.active >= 0, "ended more often than begun"

    def failed(self, reason: str) -> None:
        self.told.append(reason)

    def succeeded(self) -> None:
        self.told.append("")


class FakeCluster:
    """
    A cluster, as an exchange uses one.

    Attributes:
        endpoints: Picked in their order; those that are excluded are passed over.
        refusal: Why there is none to be had.
    """

    def __init__(self, *pools: FakePool, name: str = "app") -> None:
        self.name = name
        self.proxy_protocol = ProxyProtocolOut.OFF
        self.is_multiplexed = False
        self.endpoints = [FakeEndpoint(pool, f"127.0.0.1:{8080 + i}") for i, pool in enumerate(pools)]
        self.refusal: ConnectFailed | None = None

    def pick(self, exclude: Collection[Any] = ()) -> FakeEndpoint | ConnectFailed:
        if self.refusal is not None:
            return self.refusal
        none = ConnectFailed("no_healthy_upstream", "there is no other endpoint")
        return next((endpoint for endpoint in self.endpoints if endpoint not in exclude), none)


def transport_of(upstream: UpstreamConnection) -> RecordingTransport:
    """Return the recording transport below *upstream*."""
    return cast(RecordingTransport, upstream.transport)
