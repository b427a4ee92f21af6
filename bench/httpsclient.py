"""
A load client that knows which of its handshakes were full and which resumed.

Started by `bench.load` as `python -m bench.httpsclient` on the load generator's core. It talks
over its standard streams: prints `ready` when prepared, does its work for each line it gets,
prints one JSON object (`WorkDone`), and keeps its connections until its standard input is closed.
Its own CPU time is no figure of the benchmark; that of the proxy is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import attrs

LOOPBACK = "127.0.0.1"
TIMEOUT_SECONDS = 20.0
CHUNK_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_FAILURES_PER_WORKER = 5
SLOW_READS = 100
SLOW_READ_BYTES = 16 * 1024
SLOW_PAUSE_SECONDS = 0.02
"""A slow reader takes at most 0.8 MB/s, for two seconds, and then nothing."""

ROUND_CONNECTIONS = 32
"""Connections that `requests` asks on at once; as many as wrk has."""


class BadAnswerError(Exception):
    """The proxy answered with something else than what the app sends."""


@attrs.frozen(kw_only=True)
class Target:
    """
    Where to connect, what certificate to expect and to show, and what the app answers there.

    *client_path* is a PEM file with certificate and key; empty: no certificate is shown.
    """

    port: int
    certificate_path: str
    greeting: bytes
    transfer_bytes: int
    client_path: str = ""


@attrs.define(kw_only=True)
class WorkDone:
    """What was achieved; *resumed* counts handshakes the TLS library reports as resumed."""

    done: int = 0
    failed: int = 0
    resumed: int = 0
    moved_bytes: int = 0
    seconds: float = 0.0
    first_error: str = ""

    def add(self, other: WorkDone) -> None:
        """Take in the work of another worker; *seconds* is set by whoever holds the clock."""
        self.done += other.done
        self.failed += other.failed
        self.resumed += other.resumed
        self.moved_bytes += other.moved_bytes
        self.first_error = self.first_error or other.first_error


def client_context(target: Target) -> ssl.SSLContext:
    """Return a TLS 1.3 context that trusts only the run's certificate and offers X25519."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(target.certificate_path)
    if target.client_path:
        context.load_cert_chain(target.client_path)
    # Newer OpenSSLs also offer a post-quantum group, which only some of the peers know: those
    # that do would then do more work than the others. Where this call knows only older curves (OpenSSL 3.0 with
    # Python 3.11), X25519 is what OpenSSL offers first by itself.
    with contextlib.suppress(ssl.SSLError):
        context.set_ecdh_curve("X25519")
    return context


class HttpsConnection:
    """One TLS connection that makes HTTP/1.1 requests one after another."""

    def __init__(self, target: Target, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        """Connect and shake hands, offering *session* for resumption if there is one."""
        plain = socket.create_connection((LOOPBACK, target.port), timeout=TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = context.wrap_socket(plain, server_hostname=LOOPBACK, session=session)
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> HttpsConnection:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.socket.close()

    def send_head(self, method: str, path: str, *fields: str) -> None:
        """Send a request head with a Host field and the given `Name: value` fields."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def receive(self, *, keep_bytes: int = MAX_HEAD_BYTES) -> tuple[int, bytes]:
        """
        Receive one response.

        Args:
            keep_bytes: How much of the body to keep; the rest is counted and dropped.

        Returns:
            The body's length, and its first *keep_bytes*.

        Raises:
            BadAnswerError: The status is not 200, the length is not given, or the body is cut short.
        """
        head, start = self.receive_head()
        length = content_length(head)
        kept = bytearray(start[:keep_bytes])
        received = len(start)
        chunk = bytearray(CHUNK_BYTES)
        while received < length:
            count = self.socket.recv_into(chunk)
            if not count:
                raise BadAnswerError(f"body ended after {received:,} of {length:,} bytes")
            if len(kept) < keep_bytes:
                kept += chunk[:count]
            received += count
        return received, bytes(kept)

    def receive_greeting(self, target: Target) -> None:
        """Receive one response and check that it is what the app answers for `/`."""
        _, body = self.receive()
        if body != target.greeting:
            raise BadAnswerError(f"body is {body[:80]!r} instead of {target.greeting!r}")

    def wait_for_close(self) -> None:
        """Wait until the proxy closes, as a client does that asked for it."""
        while self.socket.recv(CHUNK_BYTES):
            pass

    def receive_head(self) -> tuple[bytes, bytes]:
        """Receive a response head; return it, and what came of the body with it."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(CHUNK_BYTES)
            if not piece:
                raise BadAnswerError(f"connection closed within the head: {data[:80]!r}")
            data += piece
            if len(data) > MAX_HEAD_BYTES + CHUNK_BYTES:
                raise BadAnswerError("the response head has no end")
        head, _, start = data.partition(b"\r\n\r\n")
        return head, start


def content_length(head: bytes) -> int:
    """Check that a response head says 200, and return its Content-Length."""
    status_line, *lines = head.split(b"\r\n")
    if status_line.split(b" ")[1:2] != [b"200"]:
        raise BadAnswerError(f"status line is {status_line[:80]!r}")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise BadAnswerError("the response has no Content-Length")


def get_greeting(connection: HttpsConnection, target: Target, *fields: str) -> None:
    """Ask for `/` once and check the answer."""
    connection.send_head("GET", "/", *fields)
    connection.receive_greeting(target)


def negotiated_cipher(target: Target) -> str:
    """Make one checked request over a new connection; return the cipher suite it used."""
    with HttpsConnection(target, client_context(target)) as connection:
        get_greeting(connection, target)
        cipher = connection.socket.cipher()
        return cipher[0] if cipher else "unknown"


def told_client(target: Target) -> str:
    """Return what the app is told of our client certificate; empty when it is told nothing."""
    with HttpsConnection(target, client_context(target)) as connection:
        connection.send_head("GET", "/client")
        _, body = connection.receive()
        return body.decode().strip()


class Worker:
    """
    One thread's share of the work.

    `prepare` runs before the clock starts, `work` while it runs; connections that are to stay
    open are kept in `held`.
    """

    def __init__(self, target: Target, mode: str, count: int) -> None:
        """Take a share of *count* units: connections, transfers, or rounds of requests."""
        self.target = target
        self.mode = mode
        self.count = count
        self.context = client_context(target)
        self.session: ssl.SSLSession | None = None
        self.held: list[HttpsConnection] = []

    def prepare(self) -> None:
        """Warm up: one full handshake (which yields a ticket), one whole transfer, or one round."""
        if self.mode in ("download", "upload"):
            self.held.append(HttpsConnection(self.target, self.context))
            self._transfer(WorkDone())
        elif self.mode == "requests":
            self.held.extend(HttpsConnection(self.target, self.context) for _ in range(ROUND_CONNECTIONS))
            self._ask_on_all(WorkDone())
        elif self.mode not in ("hold", "slow"):
            self._connect_once(WorkDone())

    def work(self) -> WorkDone:
        """Do the share; stops early after a few failures."""
        unit: dict[str, Callable[[WorkDone], None]] = {
            "full": self._connect_once,
            "resumed": self._connect_once,
            "hold": self._connect_and_hold,
            "slow": self._download_slowly,
            "download": self._transfer,
            "upload": self._transfer,
            "requests": self._ask_on_all,
        }
        done = WorkDone()
        for _ in range(self.count):
            try:
                unit[self.mode](done)
                done.done += 1
            except (OSError, BadAnswerError, ValueError) as error:
                done.failed += 1
                done.first_error = done.first_error or f"{type(error).__name__}: {error}"
                if done.failed >= MAX_FAILURES_PER_WORKER:
                    break
        return done

    def _connect_once(self, done: WorkDone) -> None:
        """Open a connection, make one request, see it closed."""
        session = self.session if self.mode == "resumed" else None
        with HttpsConnection(self.target, self.context, session) as connection:
            get_greeting(connection, self.target, "Connection: close")
            connection.wait_for_close()
            done.resumed += bool(connection.socket.session_reused)
            # In TLS 1.3 the tickets arrive with the first data, so only now is there one.
            self.session = connection.socket.session

    def _connect_and_hold(self, _done: WorkDone) -> None:
        """Open a connection, make one request, leave it open and idle."""
        connection = HttpsConnection(self.target, self.context)
        self.held.append(connection)
        get_greeting(connection, self.target)

    def _download_slowly(self, done: WorkDone) -> None:
        """Open a connection and ask for the file; read a little of it, in small pieces, then leave the rest waiting."""
        connection = HttpsConnection(self.target, self.context)
        self.held.append(connection)
        connection.send_head("GET", "/download")
        head, start = connection.receive_head()
        if content_length(head) != self.target.transfer_bytes:
            raise BadAnswerError(f"the file has {content_length(head):,} bytes, not {self.target.transfer_bytes:,}")
        done.moved_bytes += len(start)
        for _ in range(SLOW_READS):
            time.sleep(SLOW_PAUSE_SECONDS)
            piece = connection.socket.recv(SLOW_READ_BYTES)
            if not piece:
                raise BadAnswerError("the file was cut short while it was read slowly")
            done.moved_bytes += len(piece)

    def _ask_on_all(self, _done: WorkDone) -> None:
        """
        Make one request on each open connection: send all, then read and check all answers.

        A proxy so meets as many at a time as under wrk, and what it meets does not hang on the pace of this program.
        """
        for connection in self.held:
            connection.send_head("GET", "/")
        for connection in self.held:
            connection.receive_greeting(self.target)

    def _transfer(self, done: WorkDone) -> None:
        """Move one file over the connection that is open already."""
        if self.mode == "download":
            self._download(self.held[0])
        else:
            self._upload(self.held[0])
        done.moved_bytes += self.target.transfer_bytes

    def _download(self, connection: HttpsConnection) -> None:
        """Fetch the file and check its length."""
        connection.send_head("GET", "/download")
        length, _ = connection.receive(keep_bytes=0)
        if length != self.target.transfer_bytes:
            raise BadAnswerError(f"downloaded {length:,} bytes, not {self.target.transfer_bytes:,}")

    def _upload(self, connection: HttpsConnection) -> None:
        """Send a file; the app says how many bytes of it (and of the head) it has read."""
        size = self.target.transfer_bytes
        connection.send_head("PUT", "/upload", f"Content-Length: {size}")
        chunk = memoryview(bytes(CHUNK_BYTES))
        for offset in range(0, size, CHUNK_BYTES):
            connection.socket.sendall(chunk[: min(CHUNK_BYTES, size - offset)])
        _, body = connection.receive()
        if int(body) < size:
            raise BadAnswerError(f"the app read {int(body):,} of {size:,} bytes")


def run_workers(workers: list[Worker], pool: ThreadPoolExecutor) -> WorkDone:
    """Let all workers do their shares at the same time; return the sum."""
    total = WorkDone()
    started_at = time.monotonic()
    for done in pool.map(Worker.work, workers):
        total.add(done)
    total.seconds = time.monotonic() - started_at
    return total


def shares(count: int, workers: int) -> list[int]:
    """Divide *count* units among at most *workers*, nobody with nothing to do."""
    used = max(1, min(count, workers))
    return [count // used + (index < count % used) for index in range(used)]


def main(arguments: list[str]) -> None:
    """Prepare; work and report whenever told to; hold on until told to go."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("full", "resumed", "hold", "slow", "download", "upload", "requests"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--client", default="")
    parser.add_argument("--greeting", required=True)
    parser.add_argument("--transfer-bytes", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args(arguments)
    target = Target(
        port=options.port,
        certificate_path=options.certificate,
        greeting=options.greeting.encode(),
        transfer_bytes=options.transfer_bytes,
        client_path=options.client,
    )
    workers = [Worker(target, options.mode, n) for n in shares(options.count, options.workers)]
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(Worker.prepare, workers))
        print("ready", flush=True)
        while sys.stdin.readline():
            print(json.dumps(attrs.asdict(run_workers(workers, pool))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
