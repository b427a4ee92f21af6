"""Pages for operators and probes on a plain socket: one answer per request, bounded in number, size and time."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python import failure
from zope.interface import implementer

from sidecar.admin import guard
from sidecar.admin.operator import Operator
from sidecar.admin.pages import TEXT, Page, Question, Surface, respond
from sidecar.errors import RequestError
from sidecar.wire.events import RequestHead
from sidecar.wire.http1 import ServerCodec
from sidecar.wire.target import origin_form

MAX_CONNECTIONS: Final = 64
IDLE_SECONDS: Final = 30.0
"""From accept, or from the last answer, to the end of the next request."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long to wait when a connection cannot be accepted for want of descriptors or memory."""

_PASSING: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR})

_MAX_HEAD_BYTES: Final = 16 * 1024
_MAX_HEADERS: Final = 100
_MAX_BODY_BYTES: Final = 64 * 1024
"""Of a request; nothing here looks at it."""

_log = Logger()

Transport = Callable[[socket.socket, "AdminConnection"], Any]
"""Makes the transport of an accepted connection: `proxy.sockets.SocketTransport` with its reactor."""


@implementer(IReadDescriptor)
class AdminListener:
    """Serves pages to operators and probes on a listening socket."""

    def __init__(
        self,
        sock: socket.socket,
        operator: Operator,
        make_transport: Transport,
        reactor: Any,
        surface: Surface,
    ) -> None:
        """
        Args:
            operator: The program.
            surface: `pages.ADMIN`, or `pages.HEALTH` for a listener that others than operators can reach.
        """
        self._socket = sock
        self._operator = operator
        self._surface = surface
        self._make_transport = make_transport
        self._reactor = reactor
        self._connections: set[AdminConnection] = set()
        self._resume_call: Any = None

    def start(self) -> None:
        self._reactor.addReader(self)

    def show(self, operator: Operator) -> None:
        """From now on the pages are those of *operator*; who is connected has to ask anew."""
        self._operator = operator
        for connection in list(self._connections):
            connection.transport.loseConnection()

    def stop(self) -> None:
        """Close the socket, and every connection once it has what it was sent: the answer to /drain is among that."""
        self._reactor.removeReader(self)
        if self._resume_call is not None and self._resume_call.active():
            self._resume_call.cancel()
        self._socket.close()
        for connection in list(self._connections):
            connection.transport.loseConnection()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "admin"

    def connectionLost(self, reason: failure.Failure) -> None:
        """Only the reactor's own shutdown ends up here."""

    def doRead(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError as problem:
            if problem.errno not in _PASSING:
                # No descriptors: the poller would ask again at once, and for nothing.
                self._reactor.removeReader(self)
                self._resume_call = self._reactor.callLater(ACCEPT_PAUSE_SECONDS, self.start)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            # A probe must get through, whoever holds connections open for nothing.
            min(self._connections, key=lambda connection: connection.expires_at).transport.abortConnection()
        sock.setblocking(False)
        connection = AdminConnection(self._operator, self._surface, self._connections, self._reactor)
        connection.transport = self._make_transport(sock, connection)


class AdminConnection:
    """One client of the admin endpoint."""

    def __init__(
        self, operator: Operator, surface: Surface, open_connections: set[AdminConnection], reactor: Any
    ) -> None:
        self.transport: Any
        self._operator = operator
        self._surface = surface
        self._open_connections = open_connections
        self._codec = ServerCodec(_MAX_HEAD_BYTES, _MAX_HEADERS, _MAX_BODY_BYTES)
        self._reactor = reactor
        self._timeout = reactor.callLater(IDLE_SECONDS, self._timed_out)
        open_connections.add(self)

    @property
    def expires_at(self) -> float:
        """When it is cut unless a request comes; the smallest is that of who was silent longest."""
        return float(self._timeout.getTime())

    def dataReceived(self, data: bytes) -> None:
        try:
            self._codec.receive(data)
        except RequestError as error:
            self._send(Page(error.status, TEXT, f"{error}\n".encode()), with_body=True, close=True)
            return
        request = self._codec.request
        if request is not None and self._codec.is_complete:
            self._answer(request)

    def _answer(self, request: RequestHead) -> None:
        # Pages cost milliseconds, and a read holds a thousand requests: whoever pipelines gets one answer, the last.
        close = not request.keep_alive or self._codec.has_pipelined
        self._send(self._page(request), with_body=request.method != b"HEAD", close=close)
        if not close:
            self._timeout.reset(IDLE_SECONDS)
            self._codec.next_request()

    def _page(self, request: RequestHead) -> Page:
        refused = guard.refusal(request) if self._surface.is_guarded else None
        if refused is not None:
            return Page(403, TEXT, f"{refused}\n".encode())
        target = origin_form(request.method, request.target).decode("ascii", "backslashreplace")
        path, _, query = target.partition("?")
        try:
            question = Question(request.method.decode("ascii"), path, dict(parse_qsl(query, keep_blank_values=True)))
            return respond(question, self._operator, self._surface)
        except Exception:
            _log.failure("the admin page {path} failed", path=path[:200])
            return Page(500, TEXT, b"This page failed; the program log says why.\n")

    def _send(self, page: Page, *, with_body: bool, close: bool) -> None:
        lines = [
            f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *([f"Allow: {page.allow}"] if page.allow else []),
            *(["Connection: close"] if close else []),
        ]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self.transport.write(head + page.body if with_body else head)
        if close:
            self.transport.loseConnection()

    def eofReceived(self) -> None:
        self.transport.loseConnection()

    def connectionLost(self, reason: failure.Failure) -> None:
        self._open_connections.discard(self)
        if self._timeout.active():
            self._timeout.cancel()

    def pauseProducing(self) -> None:
        """A client that does not read gets no further answers, and is cut at its deadline."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def _timed_out(self) -> None:
        self.transport.abortConnection()
