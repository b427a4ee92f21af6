"""Clients for the scenarios: TLS on a plain socket for precise cases, and the user's own curl and openssl."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs
from OpenSSL import SSL

from tests.support.certs import Issued, authority
from tests.support.forge import ForgingClient
from tests.support.handshake import outgoing
from tests.support.program import ROOT, WAIT_SECONDS, Program, environment

_T = TypeVar("_T")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def client_context(
    *, version: ssl.TLSVersion | None = None, identity: Path | None = None, trusted: str | None = None
) -> ssl.SSLContext:
    """
    Make the context of a client that trusts the test root.

    Args:
        version: The one version to speak.
        identity: PEM file of a client certificate with its key.
        trusted: PEM of the roots to trust instead.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted or authority().cert_pem.decode())
    context.set_alpn_protocols(["http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def alert_of(error: ssl.SSLError) -> str:
    """The alert that ended a connection, in the words of RFC 8446 section 6.2; empty if *error* is another."""
    return (error.reason or "").partition("_ALERT_")[2].lower()


def write_identity(issued: Issued, file: Path) -> Path:
    """Write a client certificate, its chain and its key into one PEM *file*, as curl --cert and openssl want it."""
    file.write_bytes(issued.cert_pem + issued.key_pem)
    return file


@attrs.frozen
class Response:
    """A response as it came."""

    status: int
    head: bytes
    body: bytes
    trailers: bytes = b""

    @property
    def lines(self) -> list[str]:
        return self.head.decode("latin-1").split("\r\n")[1:-2]

    def values(self, name: str) -> list[str]:
        pairs = [line.partition(":") for line in self.lines]
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)


class _Responses(ABC):
    """Reads responses from what `_receive` returns."""

    _buffer = b""

    def response(self, method: str = "GET", *, interim: bool = False) -> Response:
        """
        Read the next response.

        Args:
            method: Of its request.
            interim: Whether a 1xx is wanted, rather than skipped.
        """
        while True:
            head = self.read_until(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status >= 200 or status == 101 or interim:
                break
        response = Response(status, head, b"")
        if method == "HEAD" or status in (204, 304) or status < 200:
            return response
        if response.values("transfer-encoding"):
            body, trailers = self._chunks()
            return Response(status, head, body, trailers)
        lengths = response.values("content-length")
        return Response(status, head, self.read(int(lengths[0])) if lengths else self.read_to_end())

    def read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(end)
        return head + end

    def read(self, size: int) -> bytes:
        pieces = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            pieces.append(self._receive())
            missing -= len(pieces[-1])
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]

    @abstractmethod
    def _receive(self) -> bytes:
        """Return what comes next; raise AssertionError if that is the end."""

    @abstractmethod
    def read_to_end(self) -> bytes:
        """Read until close_notify."""

    def _chunks(self) -> tuple[bytes, bytes]:
        pieces = []
        while size := int(self.read_until(b"\r\n"), 16):
            pieces.append(self.read(size))
            assert self.read(2) == b"\r\n"
        trailers = b""
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            trailers += line
        return b"".join(pieces), trailers


class HttpsClient(_Responses):
    """
    One TLS connection to the sidecar, for ``with``. An end without close_notify raises ssl.SSLEOFError or
    ConnectionResetError: it must not pass for the end of a response.
    """

    def __init__(
        self,
        program: Program,
        *,
        context: ssl.SSLContext | None = None,
        server_name: str | None = "localhost",
        session: ssl.SSLSession | None = None,
        timeout_seconds: float = WAIT_SECONDS,
    ) -> None:
        raw = socket.create_connection((program.host, program.port), timeout_seconds)
        try:
            self.socket = (context or client_context()).wrap_socket(
                raw, server_hostname=server_name, suppress_ragged_eofs=False, session=session
            )
        except BaseException:
            raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str, *lines: str, method: str = "GET") -> Response:
        """Send a request without a body; return the response."""
        self.send(request(target, *lines, method=method))
        return self.response(method)

    def read_to_end(self) -> bytes:
        """Read until close_notify."""
        pieces = [self._buffer]
        while data := self.socket.recv(65_536):
            pieces.append(data)
        self._buffer = b""
        return b"".join(pieces)

    def is_closed(self) -> bool:
        """Wait for the sidecar's next move; True if it closes in order, without another byte."""
        return self.read_to_end() == b""

    def reset(self) -> None:
        """Close with a reset."""
        reset(self.socket)

    def _receive(self) -> bytes:
        data = self.socket.recv(65_536)
        assert data, f"closed by the sidecar after {self._buffer[:200]!r}"
        return data


class HalfClosingClient(_Responses):
    """
    A TLS connection whose client can end its side and read on, and can read while it sends: the socket of the ssl
    module can do neither (two threads on one mix up their errors). For ``with``.
    """

    def __init__(self, program: Program) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.socket = socket.create_connection((program.host, program.port), WAIT_SECONDS)
        try:
            self._wait_for(self._tls.do_handshake)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def start_sending(self, data: bytes) -> threading.Thread:
        """Send *data* in a thread of its own, which is returned; it may take as long as this client's timeout."""
        self._tls.write(data)
        thread = threading.Thread(target=self.socket.sendall, args=(self._outgoing.read(),))
        thread.start()
        return thread

    def end(self, data: bytes = b"") -> None:
        """Send *data* and close_notify, in one piece."""
        if data:
            self._tls.write(data)
        with suppress(ssl.SSLWantReadError):  # it would wait for the other side's
            self._tls.unwrap()
        self._flush()

    def read_to_end(self) -> bytes:
        data = self._buffer
        self._buffer = b""
        with suppress(ssl.SSLZeroReturnError):
            while True:
                data += self._receive()
        return data

    def _receive(self) -> bytes:
        return self._wait_for(lambda: self._tls.read(65_536))

    def _wait_for(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65_536)
                assert data, "closed by the sidecar"
                self._incoming.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if sealed := self._outgoing.read():  # to send nothing waits for room, too
            self.socket.sendall(sealed)


@contextmanager
def forging_client(program: Program, version: int) -> Iterator[tuple[ForgingClient, socket.socket]]:
    """A client that has shaken hands in this *version* and forges its records, and its socket."""
    client = ForgingClient(version)
    with plain_socket(program) as sock:
        while True:
            try:
                client.connection.do_handshake()
                break
            except SSL.WantReadError:
                sock.sendall(outgoing(client.connection))
                client.connection.bio_write(sock.recv(65_536))
        sock.sendall(outgoing(client.connection))
        yield client, sock


def request(target: str, *lines: str, method: str = "GET", body: bytes = b"", host: str = "localhost") -> bytes:
    """Return the bytes of a request; framing fields are among *lines* if there are any."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *lines])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def reset(sock: socket.socket) -> None:
    """Close *sock* with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


@contextmanager
def plain_socket(program: Program) -> Iterator[socket.socket]:
    """A TCP connection to the TLS port, without TLS."""
    with socket.create_connection((program.host, program.port), WAIT_SECONDS) as sock:
        yield sock


def curl(program: Program, *arguments: str, deadline_seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run curl, trusting the test root unless the arguments say otherwise; silent but for errors."""
    trust = [] if {"-k", "--cacert"} & set(arguments) else ["--cacert", str(root_file(program))]
    return subprocess.run(
        ["curl", "--disable", "-sS", "--noproxy", "*", *trust, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline_seconds,
    )


def root_file(program: Program) -> Path:
    """The test root as a file."""
    file = program.directory / "root.pem"
    if not file.exists():
        file.write_bytes(authority().cert_pem)
    return file


def openssl(
    *arguments: str, input: bytes = b"", directory: Path | None = None, deadline_seconds: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run openssl in *directory*; its output as text."""
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, input=input, capture_output=True, timeout=deadline_seconds
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
    )


def sidecar_certs(directory: Path, *arguments: str) -> str:
    """Run ``sidecar certs`` in *directory*, where it must succeed without a warning; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "certs", *arguments],
        cwd=directory,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30.0,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def s_client(
    program: Program, *arguments: str, input: bytes | None = None, trust: bool = True
) -> subprocess.CompletedProcess[str]:
    """
    Run openssl s_client against *program* until the sidecar closes.

    Args:
        arguments: More of them.
        input: What it sends; a request for /hello that asks to close unless told.
        trust: Whether it knows the test root.
    """
    address = f"{program.host}:{program.port}"
    known = ["-CAfile", str(root_file(program))] if trust else []
    sent = request("/hello", "Connection: close") if input is None else input
    return openssl("s_client", "-connect", address, "-ign_eof", *known, *arguments, input=sent)


def in_parallel(jobs: Sequence[Callable[[], object]]) -> list[Any]:
    """Run *jobs* at once, each in a thread; return their results in order, or raise what the first one raised."""
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
