"""
What a request costs in memory, with everything of ours and nothing of the kernel's: `python -m bench.inmemory`.

Reactor, sockets' side of the transports, TLS, HTTP and pools are the program's own; only the poller and the sockets are
stand-ins. So it shows small steps that a run with its peers cannot, on a busy machine too, and valgrind can count it:
`valgrind --tool=callgrind python -m bench.inmemory --rounds 1`. What it prints is no claim about speed: those come from
`python -m bench`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import select
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from OpenSSL import SSL

from sidecar.certs import selfsigned
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.policy.access import access_of
from sidecar.proxy.cluster import Cluster
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.listener import Listener
from sidecar.proxy.reactor import DirectEPollReactor
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.routing import Router
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import SocketTransport
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import AccessLogFormat, ClientSettings, HostPort, HttpSettings, Limits, Timeouts, TlsPolicy
from sidecar.tls.context import build_context
from sidecar.tls.trust import ClientTrust
from sidecar.topology import ClusterSpec, Endpoint
from sidecar.wire.http1 import ClientCodec

CONNECTIONS: Final = 32
"""To clients, and to the app: as many as wrk has in the row `requests`."""

LOADS: Final = ("repeated", "varied", "logged")

_SAME: Final = b"GET / HTTP/1.1\r\nHost: localhost:8443\r\n\r\n"
_VARIED: Final = (
    b"GET /items/%d?page=2 HTTP/1.1\r\nHost: localhost:8443\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nCookie: theme=dark; visits=12\r\n\r\n"
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 19\r\nConnection: keep-alive\r\n\r\nhello from the app\n"
)
_FIRST_DESCRIPTOR: Final = 100_000
_COLLECTED_LINES: Final = 500


class _Poller:
    """Finds what it is told to find."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []

    def register(self, descriptor: int, mask: int) -> None: ...
    def modify(self, descriptor: int, mask: int) -> None: ...
    def unregister(self, descriptor: int) -> None: ...
    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        return self.events


class _Socket:
    """Takes everything; `inbox` is what comes next."""

    _numbers = itertools.count(_FIRST_DESCRIPTOR)

    def __init__(self) -> None:
        self.number = next(self._numbers)
        self.inbox = b""
        self.sent = b""
        self.keeps = True

    def fileno(self) -> int:
        return self.number

    def setblocking(self, is_blocking: bool) -> None: ...
    def setsockopt(self, level: int, option: int, value: int) -> None: ...
    def recv(self, size: int) -> bytes:
        return self.inbox

    def send(self, data: bytes) -> int:
        if self.keeps:
            self.sent += data
        return len(data)


class _Door(_Socket):
    """The listening socket."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[_Socket] = []

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8443

    def accept(self) -> tuple[_Socket, tuple[str, int]]:
        if not self.arrivals:
            raise BlockingIOError(11, "nobody is there")
        return self.arrivals.pop(), ("192.0.2.7", 40_000)


class World:
    """One proxy with all its connections, and both sides of them."""

    def __init__(self, load: str) -> None:
        self._load = load
        self._poller = _Poller()
        make: Any = DirectEPollReactor
        self._reactor = make()
        self._reactor._poller = self._poller
        self._numbers = itertools.count()
        self._lines: list[str] = []
        spec = ClusterSpec(name="app", endpoints=(Endpoint(address=HostPort("127.0.0.1", 8080)),))
        limits, timeouts, metrics = Limits(), Timeouts(), Metrics()
        self._metrics = metrics
        cluster = Cluster(spec, limits=limits, connect_timeout=5.0, security=None, reactor=self._reactor)
        self._service = Service(
            timeouts=timeouts,
            limits=limits,
            http=HttpSettings(),
            router=Router.to(cluster, timeouts),
            metrics=metrics,
            rejecter=Rejecter(metrics, self._reactor.seconds),
            access_log=AccessLog(self._write_line, AccessLogFormat.JSON) if load == "logged" else None,
            now=self._reactor.seconds,
        )
        self._apps = [_Socket() for _ in range(CONNECTIONS)]
        self._upstreams: list[UpstreamConnection] = []
        pool: Any = cluster.endpoints[0].pool
        for app in self._apps:
            app.keeps = False
            app.inbox = _ANSWER
            upstream = UpstreamConnection(ClientCodec(limits.header_bytes, limits.headers), pool)
            upstream.transport = SocketTransport(app, upstream, self._reactor)  # type: ignore[arg-type]
            self._upstreams.append(upstream)
            pool._open.add(upstream)
            pool.release(upstream)
        self._clients = list(self._connect())

    def _write_line(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= _COLLECTED_LINES:
            "".join(self._lines).encode()
            self._lines.clear()

    def _connect(self) -> Iterator[tuple[_Socket, SSL.Connection]]:
        """Let clients shake hands."""
        trust = ClientTrust()
        context = build_context([selfsigned.make(("localhost",), datetime.now(UTC))], trust, TlsPolicy.INTERMEDIATE)
        door: Any = _Door()
        deadlines, access = Deadlines(self._reactor), access_of(ClientSettings(), "bench")
        listener = Listener(door, context, self._service, deadlines, access, trust, self._reactor)
        theirs = SSL.Context(SSL.TLS_CLIENT_METHOD)
        for _ in range(CONNECTIONS):
            socket = _Socket()
            door.arrivals = [socket]
            listener.doRead()
            client = SSL.Connection(theirs, None)
            client.set_connect_state()
            while not self._shake(client, socket):
                pass
            socket.keeps = False
            yield socket, client

    def _shake(self, client: SSL.Connection, socket: _Socket) -> bool:
        """Let both sides go on with their handshake; return whether the client's is complete."""
        is_done = True
        try:
            client.do_handshake()
        except SSL.WantReadError:
            is_done = False
        socket.inbox = client.bio_read(65_536)
        self._turn([socket])
        if socket.sent:
            client.bio_write(socket.sent)
            socket.sent = b""
        return is_done

    def _turn(self, sockets: Sequence[_Socket]) -> None:
        """Have the reactor find these readable."""
        self._poller.events = [(socket.number, select.EPOLLIN) for socket in sockets]
        self._reactor.doPoll(0)

    def measure(self, rounds: int) -> float:
        """
        Make a request on each connection, *rounds* times.

        Returns:
            CPU microseconds per request.
        """
        sealed = [[self._sealed_request(client) for _, client in self._clients] for _ in range(rounds)]
        for upstream in self._upstreams:  # sealing may have taken longer than an app is trusted to wait
            upstream.usable_until = self._reactor.seconds() + 300.0
        clients = [socket for socket, _ in self._clients]
        before = self._metrics.responses.get(200, 0)
        start_ns = time.process_time_ns()
        for records in sealed:
            for client, record in zip(clients, records, strict=True):
                client.inbox = record
            self._turn(clients)
            self._turn(self._apps)
        used_ns = time.process_time_ns() - start_ns
        requests = rounds * CONNECTIONS
        assert self._metrics.responses[200] - before == requests, "not all were answered"
        return used_ns / 1000 / requests

    def _sealed_request(self, client: SSL.Connection) -> bytes:
        client.send(_VARIED % next(self._numbers) if self._load == "varied" else _SAME)
        return client.bio_read(65_536)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one load; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.inmemory", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--load", choices=LOADS, default="repeated", help="same head, no two alike, or with a JSON log")
    parser.add_argument("--rounds", type=int, default=100, help=f"of {CONNECTIONS} requests in a measurement")
    parser.add_argument("--measurements", type=int, default=10, help="the least of which is printed")
    options = parser.parse_args(arguments)
    world = World(options.load)
    # As the program does when it serves.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    world.measure(options.rounds)
    least = min(world.measure(options.rounds) for _ in range(options.measurements))
    print(f"{options.load}: {least:.2f} us per request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
