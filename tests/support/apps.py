"""
An app to put behind the sidecar: HTTP/1.1 on raw sockets, one thread per connection, one behaviour per path,
of which the first segment decides.

It can misbehave in ways that no framework would let it. It is written for well-formed requests only, which is what a
proxy sends. What waits, waits for an event that the test sets, or for the peer.

``python -m tests.support.apps PORT NAME`` is such an app as a process of its own, which a test can kill.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl

import attrs

_PATTERN: Final = random.Random(7).randbytes(1_000_003)
"""Its length is prime, so that no buffer size divides it: lost, doubled or swapped blocks change the checksum."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_PIECE_BYTES: Final = 65_536


def pattern(size: int) -> Iterator[bytes]:
    """Yield *size* bytes that are the same in each call, in pieces of at most 64 KiB."""
    position = 0
    while position < size:
        start = position % len(_PATTERN)
        piece = _PATTERN[start : start + min(_PIECE_BYTES, size - position)]
        position += len(piece)
        yield piece


def pattern_sha256(size: int) -> str:
    """The checksum of ``pattern(size)``."""
    digest = hashlib.sha256()
    for piece in pattern(size):
        digest.update(piece)
    return digest.hexdigest()


class Pace:
    """Holds a reader or writer to so many bytes a second."""

    def __init__(self, bytes_per_second: float) -> None:
        """
        Args:
            bytes_per_second: 0 for no limit.
        """
        self._rate = bytes_per_second
        self._started_at = time.monotonic()
        self._count = 0

    def moved(self, count: int) -> None:
        """Say that *count* more bytes have been moved; returns when it is time to move more."""
        self._count += count
        if self._rate:
            time.sleep(max(0.0, self._started_at + self._count / self._rate - time.monotonic()))


@attrs.frozen
class Request:
    """
    What arrived.

    Attributes:
        head: Every byte up to and including the empty line.
        connection: Number of the connection it came on, from 1.
        certificate: Common name in the certificate that the proxy has shown; "" for none.
    """

    head: bytes
    connection: int
    certificate: str = ""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def behaviour(self) -> str:
        """The first segment of the path. The rest is free, for a test to give its request a name of its own."""
        return "/" + self.path.split("/")[1]

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))

    @property
    def lines(self) -> list[str]:
        """The field lines as they came."""
        return self.head.decode("latin-1").split("\r\n")[1:-2]

    def values(self, name: str) -> list[str]:
        """All values of the field *name*."""
        pairs = [line.partition(":") for line in self.lines]
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]

    def size(self, name: str, default: int = 0) -> int:
        """A number in the query."""
        return int(self.query.get(name, default))


class _Stream:
    """A connection with a read buffer."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.trailers: list[str] = []
        self._buffer = b""

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def reset(self) -> None:
        """Let the close that follows be a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def read_head(self) -> bytes:
        """The next request's head; b"" at the end."""
        return self._read_until(b"\r\n\r\n")

    def read_any(self) -> bytes:
        """Whatever comes next; b"" at the end."""
        data, self._buffer = self._buffer, b""
        return data or self.socket.recv(_PIECE_BYTES)

    def read_to_end(self) -> None:
        while self.read_any():
            pass

    def body(self, request: Request) -> Iterator[bytes]:
        """Yield the body of *request* as it comes; fills `trailers`."""
        self.trailers = []
        if request.values("transfer-encoding"):
            while size := int(self._read_until(b"\r\n").partition(b";")[0], 16):
                yield from self._take(size)
                self._read_until(b"\r\n")
            while (line := self._read_until(b"\r\n")) != b"\r\n":
                self.trailers.append(line.decode("latin-1").rstrip("\r\n"))
        else:
            yield from self._take(int((request.values("content-length") or ["0"])[0]))

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.read_any()
            if not data:
                raise ConnectionError("the peer closed inside a body")
            piece, self._buffer = data[:size], data[size:]
            size -= len(piece)
            yield piece

    def _read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            data = self.socket.recv(_PIECE_BYTES)
            if not data:
                return b""
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(end)
        return head + end


class App:
    """
    A listening app, for ``with``.

    Attributes:
        upstream: Where it listens, as SIDECAR_UPSTREAM says it.
        name: What it answers under /who.
        requests: Heads in the order in which they came.
        connection_count: Connections accepted so far.
        gate: What the paths under /held wait for.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        path: Path | None = None,
        *,
        port: int = 0,
        name: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            host: Address to listen on.
            path: Listen on this Unix socket instead.
            port: 0: one from the kernel.
            tls: What connections begin with; None: none.
        """
        self.name = name
        self._tls = tls
        self.requests: list[Request] = []
        self.connection_count = 0
        self.gate = threading.Event()
        self._random = random.Random(11)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        if path is not None:
            self.upstream = f"unix:{path}"
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(path))
            self._socket.listen(512)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=512)
            self.port: int = self._socket.getsockname()[1]
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
            self.upstream = f"{'http' if tls is None else 'https'}://{self.address}"
        self._acceptor = threading.Thread(target=self._accept, name="app-acceptor")
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def last(self, path: str) -> Request:
        """The last request for *path*."""
        return next(request for request in reversed(self.requests) if request.path == path)

    def close(self) -> None:
        """Listen no more, cut what is open, wait for all threads."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._socket.close()
        self.gate.set()
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster
        for thread in self._threads:
            thread.join()

    # -- inside --

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return  # closed
            if self._tls is not None:  # its own thread shakes hands
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self.connection_count += 1
                number = self.connection_count
                self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, number), name=f"app-connection-{number}")
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            self._talk(sock, number)
        except OSError:
            pass  # the proxy cut the connection, as some tests want it to
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _talk(self, sock: socket.socket, number: int) -> None:
        stream, certificate = _Stream(sock), _shown_name(sock)
        while head := stream.read_head():
            request = Request(head, number, certificate)
            self.requests.append(request)
            if not _BEHAVIOURS.get(request.behaviour, _not_found)(self, request, stream):
                break

    def shuffle(self) -> float:
        """A random number from 0 to 1, from a fixed seed."""
        with self._lock:
            return self._random.random()


class RawApp(App):
    """An app that speaks no HTTP: what it does with a connection, *talk* does, until it returns."""

    def __init__(self, talk: Callable[[socket.socket], object]) -> None:
        self._say = talk
        super().__init__()

    def _talk(self, sock: socket.socket, number: int) -> None:
        self._say(sock)


def _shown_name(sock: socket.socket) -> str:
    """The common name of the peer's verified certificate; "" if there is none."""
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    subject: Any = certificate.get("subject", ()) if certificate else ()  # Any: as typeshed has it, it is no pairs
    return next((value for part in subject for key, value in part if key == "commonName"), "")


# -- behaviours: each answers one request, and says whether the connection goes on -------------------------------

_Behaviour = Callable[[App, Request, _Stream], bool]
_BEHAVIOURS: dict[str, _Behaviour] = {}


def _on(path: str) -> Callable[[_Behaviour], _Behaviour]:
    def register(behaviour: _Behaviour) -> _Behaviour:
        _BEHAVIOURS[path] = behaviour
        return behaviour

    return register


def _answer(stream: _Stream, body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bool:
    lines = b"".join(field + b"\r\n" for field in fields)
    stream.send(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (status, lines, len(body)), body)
    return True


def _not_found(app: App, request: Request, stream: _Stream) -> bool:
    return _answer(stream, b"no such path\n", status=b"404 Not Found")


@_on("/hello")
def _hello(app: App, request: Request, stream: _Stream) -> bool:
    """One line, whatever the method; nothing but the head for HEAD."""
    body = b"hello\n"
    return _answer_head(stream, len(body)) if request.method == "HEAD" else _answer(stream, body)


def _answer_head(stream: _Stream, length: int) -> bool:
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    return True


@_on("/who")
def _who(app: App, request: Request, stream: _Stream) -> bool:
    """The app's name."""
    return _answer(stream, app.name.encode())


@_on("/echo")
def _echo(app: App, request: Request, stream: _Stream) -> bool:
    """The request as JSON; says 100 first if asked."""
    if request.values("expect"):
        stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest, size = hashlib.sha256(), 0
    for piece in stream.body(request):
        digest.update(piece)
        size += len(piece)
    seen = {
        "head": request.head.decode("latin-1"),
        "bytes": size,
        "sha256": digest.hexdigest(),
        "trailers": stream.trailers,
        "connection": request.connection,
    }
    return _answer(stream, json.dumps(seen).encode(), b"Content-Type: application/json")


@_on("/mirror")
def _mirror(app: App, request: Request, stream: _Stream) -> bool:
    """The request's body, once it is whole."""
    return _answer(stream, b"".join(stream.body(request)))


@_on("/sink")
def _sink(app: App, request: Request, stream: _Stream) -> bool:
    """Takes the body, ?rate= bytes a second; answers with its size and checksum."""
    pace, digest, size = Pace(request.size("rate")), hashlib.sha256(), 0
    for piece in stream.body(request):
        digest.update(piece)
        size += len(piece)
        pace.moved(len(piece))
    return _answer(stream, json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode())


@_on("/bytes")
def _bytes(app: App, request: Request, stream: _Stream) -> bool:
    """?n= bytes with their length."""
    size = request.size("n")
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for piece in pattern(size):
        stream.send(piece)
    return True


@_on("/chunked")
def _chunked(app: App, request: Request, stream: _Stream) -> bool:
    """?n= bytes in chunks, with two trailer fields."""
    stream.send(b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n\r\n")
    size = request.size("n")
    for piece in pattern(size):
        stream.send(b"%x\r\n" % len(piece), piece, b"\r\n")
    stream.send(b"0\r\nX-Checksum: %b\r\nX-Second: 2\r\n\r\n" % pattern_sha256(size).encode())
    return True


@_on("/until-close")
def _until_close(app: App, request: Request, stream: _Stream) -> bool:
    """?n= bytes that end with the connection."""
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")
    for piece in pattern(request.size("n")):
        stream.send(piece)
    return False


@_on("/no-content")
def _no_content(app: App, request: Request, stream: _Stream) -> bool:
    stream.send(b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n")
    return True


@_on("/not-modified")
def _not_modified(app: App, request: Request, stream: _Stream) -> bool:
    """304, with the length that the body would have."""
    stream.send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 1000\r\n\r\n')
    return True


@_on("/hints")
def _hints(app: App, request: Request, stream: _Stream) -> bool:
    stream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    return _answer(stream, b"hinted\n")


@_on("/too-large")
def _too_large(app: App, request: Request, stream: _Stream) -> bool:
    """Refuses before it has read any of the body, then reads and drops it, as polite servers do."""
    _answer(stream, b"too large\n", b"Connection: close", status=b"413 Content Too Large")
    stream.socket.shutdown(socket.SHUT_WR)
    stream.read_to_end()
    return False


@_on("/hop-by-hop")
def _hop_by_hop(app: App, request: Request, stream: _Stream) -> bool:
    """A response with fields that are for the next hop only, and one that its Connection field names."""
    fields = (b"Keep-Alive: timeout=5", b"Connection: keep-alive, X-Private", b"X-Private: 1", b"X-Public: 2")
    return _answer(stream, b"ok\n", *fields)


@_on("/never")
def _never(app: App, request: Request, stream: _Stream) -> bool:
    """Takes the request and says nothing until the proxy goes."""
    stream.read_to_end()
    return False


@_on("/held")
def _held(app: App, request: Request, stream: _Stream) -> bool:
    """Answers once the gate is open."""
    app.gate.wait()
    return _answer(stream, b"at last\n")


@_on("/held-inside")
def _held_inside(app: App, request: Request, stream: _Stream) -> bool:
    """Half of its answer; the other half once the gate is open."""
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ")
    app.gate.wait()
    stream.send(b"second")
    return True


@_on("/endless")
def _endless(app: App, request: Request, stream: _Stream) -> bool:
    """Sends for as long as somebody takes it."""
    stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        stream.send(b"1000\r\n", bytes(4096), b"\r\n")


@_on("/reset-before")
def _reset_before(app: App, request: Request, stream: _Stream) -> bool:
    stream.reset()
    return False


@_on("/close-before")
def _close_before(app: App, request: Request, stream: _Stream) -> bool:
    return False


@_on("/reset-inside")
def _reset_inside(app: App, request: Request, stream: _Stream) -> bool:
    """Half of its answer, then a reset as soon as the test has seen that half."""
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", bytes(500))
    app.gate.wait()
    stream.reset()
    return False


@_on("/close-inside")
def _close_inside(app: App, request: Request, stream: _Stream) -> bool:
    """Half of its answer, then an orderly close."""
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", bytes(500))
    return False


@_on("/close-inside-chunks")
def _close_inside_chunks(app: App, request: Request, stream: _Stream) -> bool:
    """Chunks without the last one, then an orderly close."""
    stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    return False


INVALID: Final = {
    "not-http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "both-framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length-not-a-number": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "unknown-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "bad-header": b"HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
    "bare-line-ends": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "unasked-upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "too-large": b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
}
"""Responses that break a rule, by what ?kind= of /invalid asks for."""


@_on("/invalid")
def _invalid(app: App, request: Request, stream: _Stream) -> bool:
    stream.send(INVALID[request.query["kind"]])
    return False


@_on("/fickle")
def _fickle(app: App, request: Request, stream: _Stream) -> bool:
    """
    Promises to keep the connection, and often closes it: at once, or when the next request arrives, unread.
    """
    chance = app.shuffle()
    _answer(stream, b"ok\n")
    if chance < 0.3:
        stream.socket.recv(1, socket.MSG_PEEK)
        return False  # closing with unread bytes resets
    return chance > 0.6


@_on("/upgrade")
def _upgrade(app: App, request: Request, stream: _Stream) -> bool:
    """Switches protocols, greets, and echoes bytes until the peer ends; then says so and ends too."""
    stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome;")
    while data := stream.read_any():
        stream.send(data)
    stream.send(b";bye")
    return False


def main(port: int, name: str) -> None:
    """Serve until SIGTERM."""
    signals = (signal.SIGTERM,)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with App(port=port, name=name):
        signal.sigwait(signals)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
