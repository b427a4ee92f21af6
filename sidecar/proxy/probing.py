"""
Active health checks: asking an endpoint whether it is well while nobody else asks it for anything.

Each probe has a connection of its own, which counts to no limit: at the limit of a cluster, its endpoints are not ill.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.python import failure

from sidecar.errors import ResponseError
from sidecar.proxy.connect import ConnectFailed, Transport, Way, open_stream
from sidecar.settings import ProxyProtocolOut
from sidecar.topology import HealthCheck
from sidecar.wire.events import END, Data, ResponseEvent, ResponseHead
from sidecar.wire.http1 import ClientCodec, State
from sidecar.wire.proxyproto import LOCAL_V2, SocketAddress, encode_v1

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 100

MAX_BODY_BYTES: Final = 64 * 1024
"""An answer is read to its end, so that the app does not see its connection break; a longer one is not."""

_WELL: Final = ""


class Prober:
    """Looks at one endpoint again and again: one probe at a time, the next one an interval after its end."""

    def __init__(
        self,
        check: HealthCheck,
        way: Callable[[], Way],
        *,
        host: str,
        proxy_protocol: Callable[[], ProxyProtocolOut],
        reactor: Any,
        random: Callable[[], float],
        result: Callable[[str], None],
    ) -> None:
        """
        Args:
            way: Says how to get there now; its timeout does not count, the check has its own.
            host: What the Host field says if the check does not.
            proxy_protocol: Says what connections begin with now.
            random: Returns numbers from 0 up to 1.
            result: Told of each probe: "", or what is wrong.
        """
        self._check = check
        self._way = way
        self._request = _request(check.path, check.host or host) if check.path is not None else b""
        self._proxy_protocol = proxy_protocol
        self._reactor = reactor
        self._random = random
        self._result = result
        self._probe: _Probe | None = None
        self._call: Any = None  # the next probe, or None while one runs

    def start(self) -> None:
        """Look now."""
        self._call = None
        self._probe = _Probe(self._check, self._request, self._reactor, self._ended)
        self._probe.begin(attrs.evolve(self._way(), timeout_seconds=self._check.timeout), self._preface)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._probe is not None:
            self._probe.abandon()

    def _ended(self, why: str) -> None:
        self._probe = None
        check = self._check
        self._call = self._reactor.callLater(check.interval * (1 + check.jitter * self._random()), self.start)
        self._result(why)

    def _preface(self, sock: socket.socket) -> bytes:
        """A PROXY header that says: this connection is ours, nobody is behind it."""
        version = self._proxy_protocol()
        if version is ProxyProtocolOut.OFF:
            return b""
        if version is ProxyProtocolOut.V2:
            return LOCAL_V2
        if sock.family == socket.AF_UNIX:
            return encode_v1(None, None)
        ours, theirs = sock.getsockname(), sock.getpeername()
        return encode_v1(SocketAddress(*ours[:2]), SocketAddress(*theirs[:2]))


def _request(path: str, host: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sidecar-health-check\r\nAccept: */*\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


class _Probe:
    """One look: a connection, and if there is something to ask, its answer."""

    def __init__(self, check: HealthCheck, request: bytes, reactor: Any, ended: Callable[[str], None]) -> None:
        self._check = check
        self._request = request
        self._ended: Callable[[str], None] | None = ended
        self._codec = ClientCodec(MAX_HEAD_BYTES, MAX_HEADERS)
        self._transport: Transport | None = None
        self._reactor = reactor
        self._verdict: str | None = None  # what the head of the answer comes to
        self._body_bytes = 0
        self._until = reactor.seconds() + check.timeout
        self._late: Any = None

    def begin(self, way: Way, preface: Callable[[socket.socket], bytes]) -> None:
        open_stream(way, self, self._reactor, self._opened, preface)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        self._ended = None
        self._finish(_WELL)

    def _opened(self, outcome: Transport | ConnectFailed) -> None:
        if isinstance(outcome, ConnectFailed):
            self._finish(str(outcome))
            return
        self._transport = outcome
        if self._ended is None or not self._request:
            self._finish(_WELL)
        else:
            remaining = max(0.0, self._until - self._reactor.seconds())
            self._late = self._reactor.callLater(remaining, self._timed_out)
            self._codec.expect_response(b"GET", ())
            outcome.write(self._request)

    # -- from the transport --

    def dataReceived(self, data: bytes) -> None:
        try:
            self._read(self._codec.receive(data))
        except ResponseError as error:
            self._finish(str(error))

    def eofReceived(self) -> None:
        try:
            self._read(self._codec.receive_eof())
        except ResponseError as error:
            self._finish(str(error) if self._verdict is None else self._verdict)

    def connectionLost(self, reason: failure.Failure) -> None:
        self._transport = None
        self._finish("the app broke the connection before it answered" if self._verdict is None else self._verdict)

    def pauseProducing(self) -> None:
        """The request is short: it is not stuck."""

    def resumeProducing(self) -> None: ...

    # -- the answer --

    def _read(self, events: list[ResponseEvent]) -> None:
        for event in events:
            if isinstance(event, ResponseHead):
                self._verdict = self._judge(event.status)
            elif isinstance(event, Data):
                self._body_bytes += len(event.payload)
            elif event is END:
                assert self._verdict is not None
                self._finish(self._verdict)
                return
        if self._body_bytes > MAX_BODY_BYTES and self._verdict is not None:
            self._finish(self._verdict)

    def _judge(self, status: int) -> str:
        if any(first <= status <= last for first, last in self._check.statuses):
            return _WELL
        return f"the answer to GET {self._check.path} is {status}"

    def _timed_out(self) -> None:
        timeout = self._check.timeout
        self._finish(f"no answer within {timeout:g} s" if self._verdict is None else self._verdict)

    def _finish(self, why: str) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        transport, self._transport = self._transport, None
        if transport is not None:
            if self._codec.state is State.COMPLETE:
                transport.loseConnection()
            else:
                transport.abortConnection()  # of what is still to come, nobody would read the rest
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(why)
