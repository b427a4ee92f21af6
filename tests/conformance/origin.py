"""
The app behind a compared proxy: it keeps every byte, reads requests as `strict` does, and answers each one.

A request for `PROBE_PREFIX` comes from the comparison itself: it is answered with its own target, so that whoever sent
it can tell whether the answer is the one to its request, and it is not kept.
"""

from __future__ import annotations

import socket
from typing import Final, Self

import attrs

from tests.conformance.loop import Loop, Stream
from tests.conformance.strict import MalformedError, Message, read_one

PROBE_PREFIX: Final = b"/probe/"

BODY: Final = b"ok"


@attrs.frozen
class Seen:
    """
    What came from a proxy, on all connections.

    Attributes:
        requests: Those that came whole, in the order of their last bytes.
        unfinished: The beginnings of requests whose rest did not come.
        malformed: What no request begins with, and what had come behind it; the connection ended there.
    """

    requests: tuple[Message, ...] = ()
    unfinished: tuple[bytes, ...] = ()
    malformed: tuple[bytes, ...] = ()


class Origin:
    """
    A listening socket on 127.0.0.1 and its connections. For ``with``.

    Attributes:
        port: Given by the kernel.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        loop.add(self._listener, self._accept)
        self._connections: list[_Connection] = []
        self._requests: list[Message] = []
        self._malformed: list[bytes] = []
        self._cut: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.remove(self._listener)
        self._listener.close()
        for connection in self._connections:
            connection.stream.close()

    @property
    def is_between_requests(self) -> bool:
        """Whether no connection is inside a request."""
        return not any(connection.stream.received for connection in self._connections)

    @property
    def kept_bytes(self) -> int:
        """How many bytes there are to be seen: grows with every byte that is not a probe's."""
        kept = [*(message.raw for message in self._requests), *self._malformed, *self._cut]
        return sum(map(len, kept)) + sum(len(connection.stream.received) for connection in self._connections)

    def seen(self) -> Seen:
        """What has come since the last `forget`."""
        held = [connection.stream.received for connection in self._connections if connection.stream.received]
        return Seen(tuple(self._requests), (*self._cut, *held), tuple(self._malformed))

    def forget(self) -> None:
        """Begin anew; connections that are inside a request are closed."""
        for connection in [connection for connection in self._connections if connection.stream.received]:
            connection.stream.close()
            self._connections.remove(connection)
        self._requests.clear()
        self._malformed.clear()
        self._cut.clear()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(self)
        connection.stream = Stream(self._loop, sock, connection.received)
        self._connections.append(connection)

    def request_arrived(self, message: Message) -> None:
        """Keep a request."""
        self._requests.append(message)

    def malformed_arrived(self, data: bytes) -> None:
        """Keep what is no request."""
        self._malformed.append(data)

    def connection_ended(self, connection: _Connection) -> None:
        """Let go of a connection; what it held is kept."""
        if connection.stream.received:
            self._cut.append(connection.stream.received)
        connection.stream.close()
        self._connections.remove(connection)


@attrs.define(eq=False)
class _Connection:
    origin: Origin
    stream: Stream = attrs.field(init=False)

    def received(self) -> None:
        stream = self.stream
        while stream.received:
            try:
                message = read_one(stream.received)
            except MalformedError:
                self.origin.malformed_arrived(stream.received)
                stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                stream.received = b""
                self.origin.connection_ended(self)
                return
            if message is None:
                break
            stream.received = stream.received[len(message.raw) :]
            self._answer(message)
        if stream.is_closed:
            self.origin.connection_ended(self)

    def _answer(self, message: Message) -> None:
        extra = b""
        if message.path.startswith(PROBE_PREFIX):
            extra = b"X-Probe: %b\r\n" % message.path
        else:
            self.origin.request_arrived(message)
        body = b"" if message.method == b"HEAD" else BODY
        self.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(BODY), extra, body))
