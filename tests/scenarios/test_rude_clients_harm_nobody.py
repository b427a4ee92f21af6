"""Ensures that no client, however it behaves, costs another client anything, leaves anything behind, or hangs on."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from OpenSSL import SSL

from tests.scenarios.clients import (
    HttpsClient,
    client_context,
    curl,
    forging_client,
    in_parallel,
    plain_socket,
    request,
    reset,
)
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.forge import ForgingClient
from tests.support.handshake import TLS12, TLS13
from tests.support.program import Program, eventually


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """Short waits, so that the tests need not wait for the long ones."""
    return {"handshake_timeout": "1s", "header_timeout": "1s", "body_timeout": "2s"}


def client_hello() -> bytes:
    """The first flight of a real client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def read_to_end(sock: socket.socket) -> bytes:
    """Read until the sidecar closes."""
    data = b""
    while piece := sock.recv(65_536):
        data += piece
    return data


class TestNotTls:
    def test_plain_http_by_curl_is_told_so(self, program: Program) -> None:
        """`curl http://` on the TLS port reads 400 and what to do."""
        done = curl(program, "-w", "%{http_code}", f"http://localhost:{program.port}/")

        assert done.returncode == 0
        assert done.stdout.endswith("400")
        assert "https://" in done.stdout

    @pytest.mark.parametrize(
        "garbage",
        [
            pytest.param(b"\x00", id="nul"),
            pytest.param(b"\r\n\r\n", id="newlines"),
            pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
            pytest.param(bytes(range(256)) * 40, id="all-bytes"),
            pytest.param(b"\x16\x03\x01\xff\xff" + bytes(500), id="oversized-record"),
        ],
    )
    def test_garbage_is_cut_off(self, program: Program, garbage: bytes) -> None:
        """Bytes that are no TLS end the connection, and nothing else."""
        with plain_socket(program) as sock:
            sock.sendall(garbage)
            try:
                assert len(read_to_end(sock)) < 100
            except ConnectionResetError:
                pass  # unread bytes make it a reset
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200

    def test_garbage_after_the_handshake_is_cut_off(self, program: Program) -> None:
        """A record that is not authentic ends the connection."""
        with HttpsClient(program) as client:
            client.get("/hello")
            raw = socket.socket(fileno=client.socket.detach())
            with raw:
                raw.settimeout(10)
                raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
                try:
                    read_to_end(raw)
                except ConnectionResetError:
                    pass

    def test_random_clients_are_cut_off(self, program: Program) -> None:
        """A real ClientHello with flipped bytes ends in an alert or in a handshake, never in a hang."""
        hello, chance = client_hello(), random.Random(3)
        for _ in range(50):
            broken = bytearray(hello)
            for _ in range(3):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            with plain_socket(program) as sock:
                sock.sendall(broken)
                sock.shutdown(socket.SHUT_WR)
                try:
                    read_to_end(sock)
                except ConnectionResetError:
                    pass


class TestStalling:
    @pytest.mark.parametrize("size", [0, 1, 100], ids=["nothing", "one-byte", "half-a-hello"])
    def test_handshake_that_stalls_is_closed(self, program: Program, size: int) -> None:
        """A client that does not go on with its handshake is closed after SIDECAR_HANDSHAKE_TIMEOUT."""
        with plain_socket(program) as sock:
            started_at = time.monotonic()
            sock.sendall(client_hello()[:size])

            assert read_to_end(sock) == b""
        assert 0.8 < time.monotonic() - started_at < 3

    def test_head_that_stalls_is_answered_with_408(self, program: Program) -> None:
        """A client that does not finish its head is told so after SIDECAR_HEADER_TIMEOUT."""
        with HttpsClient(program) as client:
            started_at = time.monotonic()
            client.send(b"GET / HTTP/1.1\r\nHost: local")
            response = client.response()

            assert response.status == 408
            assert 0.9 < time.monotonic() - started_at < 3
            assert response.values("connection") == ["close"]
            assert client.is_closed()

    def test_head_that_drips_is_answered_with_408(self, program: Program) -> None:
        """Each further byte of a head does not buy more time."""
        with HttpsClient(program) as client:
            started_at = time.monotonic()
            client.send(b"GET / HTTP/1.1\r\nX-Slow: ")
            client.socket.settimeout(0.2)
            answer = b""
            while not answer:
                try:
                    answer = client.socket.recv(65_536)
                except TimeoutError:
                    assert time.monotonic() - started_at < 5, "no answer"
                    client.send(b"x")

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started_at < 3

    def test_second_head_that_stalls_is_answered_with_408(self, program: Program) -> None:
        """The same holds for a head that begins on a kept connection, or is pipelined."""
        for first in (True, False):
            with HttpsClient(program) as client:
                if first:
                    client.get("/hello")
                    client.send(b"GET / HT")
                else:
                    client.send(request("/hello") + b"GET / HT")
                    client.response()

                assert client.response().status == 408

    def test_body_that_stalls_is_answered_with_408(self, program: Program) -> None:
        """A client that does not finish its body is told so after SIDECAR_BODY_TIMEOUT."""
        with HttpsClient(program) as client:
            client.send(request("/mirror", "Content-Length: 1000", method="POST", body=b"begun"))

            assert client.response().status == 408

    def test_reader_that_stalls_is_cut(self, program: Program, app: App) -> None:
        """A client that does not take its response is cut after SIDECAR_BODY_TIMEOUT, and the app is let go."""
        before = app.open_connections
        with HttpsClient(program) as client:
            client.send(request("/endless/stalled"))
            client.read_until(b"\r\n\r\n")
            assert program.logged("/endless/stalled")["reason"] == "downstream_stalled"
        eventually(lambda: app.open_connections <= before, "the app's connection is closed")

    def test_idle_connection_is_closed_in_order(self, launch: Launch, own_app: App) -> None:
        """A kept connection without requests ends with close_notify after SIDECAR_IDLE_TIMEOUT."""
        program = launch(upstream=own_app.upstream, idle_timeout="1s")
        with HttpsClient(program) as client:
            client.get("/hello")
            started_at = time.monotonic()

            assert client.is_closed()
        assert 0.8 < time.monotonic() - started_at < 3

    @pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
    def test_empty_lines_do_not_hold_a_connection(self, launch: Launch, own_app: App, kept: bool) -> None:
        """Blank lines before a request are no request: neither timeout begins anew with them, however they are cut."""
        program = launch(upstream=own_app.upstream, idle_timeout="1s", header_timeout="1s")
        with HttpsClient(program) as client:
            if kept:
                client.get("/hello")
            started_at = time.monotonic()
            client.socket.settimeout(0.1)
            byte = b"\r"
            while True:
                assert time.monotonic() - started_at < 3, "still open"
                try:
                    client.send(byte)
                    byte = b"\n" if byte == b"\r" else b"\r"
                    assert client.is_closed()
                    break
                except TimeoutError:
                    pass
                except (ConnectionResetError, BrokenPipeError):
                    break  # it was closed while a byte was on its way

        assert time.monotonic() - started_at > 0.8


class TestFlooding:
    @pytest.mark.parametrize("is_begun", [False, True], ids=["idle", "in-a-body"])
    @pytest.mark.parametrize("version", [pytest.param(TLS12, id="1.2"), pytest.param(TLS13, id="1.3")])
    def test_client_that_only_asks_tls_for_answers_is_cut(
        self, program: Program, app: App, version: int, is_begun: bool
    ) -> None:
        """KeyUpdates and attempts to renegotiate are answered by TLS itself; whoever sends them without end is cut."""
        with forging_client(program, version) as (client, sock):
            if is_begun:
                sock.sendall(client.forge(request("/sink", "Content-Length: 9999", method="POST", body=b"x")))
            started_at = time.monotonic()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                _flood(client, sock)

            assert time.monotonic() - started_at < 1.8, "cut by a timeout"
        with HttpsClient(program) as polite:
            assert polite.get("/hello").status == 200

    def test_client_that_updates_its_keys_is_served(self, program: Program) -> None:
        """KeyUpdates among requests, however many in all, are nobody's fault."""
        with forging_client(program, TLS13) as (client, sock):
            for _ in range(60):
                questions = b"".join(client.forge_question() for _ in range(5))
                sock.sendall(questions + client.forge(request("/hello")))
                answer = b""
                while not answer.endswith(b"hello\n"):
                    try:
                        answer += client.connection.recv(65_536)
                    except SSL.WantReadError:
                        client.connection.bio_write(sock.recv(65_536))
                assert answer.startswith(b"HTTP/1.1 200 ")


def _flood(client: ForgingClient, sock: socket.socket) -> None:
    for _ in range(100):
        sock.sendall(b"".join(client.forge_question() for _ in range(30)))
    read_to_end(sock)


class TestLeaving:
    def test_reset_in_a_download_lets_the_app_go(self, program: Program, app: App) -> None:
        """When a client resets in the middle of a response, the app's connection is closed too."""
        before = app.open_connections
        client = HttpsClient(program)
        client.send(request("/endless/reset"))
        client.read_until(b"\r\n\r\n")
        client.reset()

        assert program.logged("/endless/reset")["reason"] == "downstream_lost"
        eventually(lambda: app.open_connections <= before, "the app's connection is closed")

    def test_reset_in_an_upload_lets_the_app_go(self, program: Program, app: App) -> None:
        """When a client resets in the middle of a request, the app never takes it for a whole one."""
        client = HttpsClient(program)
        client.send(request("/sink/reset", "Content-Length: 1000000", method="POST", body=bytes(100_000)))
        eventually(lambda: app.requests[-1].path == "/sink/reset", "the app has the request")
        client.reset()

        assert program.logged("/sink/reset")["reason"] == "downstream_lost"
        eventually(
            lambda: program.metric("upstream_connections") == program.metric("upstream_connections_idle"),
            "no connection to the app is in use",
        )

    @pytest.mark.parametrize("path", ["/never", "/held"])
    def test_leaving_before_the_answer_lets_the_app_go(self, launch: Launch, own_app: App, path: str) -> None:
        """A client that goes while the app works is forgotten."""
        program = launch(upstream=own_app.upstream)
        client = HttpsClient(program)
        client.send(request(path))
        eventually(lambda: len(own_app.requests) == 1, "the app has the request")
        client.reset()

        eventually(lambda: program.metric("downstream_connections_active") == 0, "the client is forgotten")
        eventually(lambda: program.metric("upstream_connections") == 0, "the app's connection is closed")
        own_app.gate.set()


class TestReusedDescriptor:
    def test_event_of_a_closed_connection_is_not_taken_for_one_of_its_successor(self, launch: Launch) -> None:
        """
        When a client resets, its connection to the app is closed, and its descriptors go to the next connections to the
        app: what the poller had still to say about the old ones is not about them. Stopping the process in between puts
        all of it into one turn of its loop.
        """
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(10)
            program = launch(upstream=f"http://127.0.0.1:{listener.getsockname()[1]}")
            rude = stack.enter_context(HttpsClient(program))
            rude.send(request("/"))
            first = stack.enter_context(listener.accept()[0])
            first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ")
            rude.read_until(b"first ")
            polite = [stack.enter_context(HttpsClient(program)) for _ in range(2)]
            eventually(
                lambda: program.metric('tls_handshakes_total{version="TLSv1.3"}') == 3, "all handshakes are done"
            )

            with program.stopped():
                rude.reset()
                for client in polite:
                    client.send(request("/"))
                first.sendall(b"second")
            for _ in polite:
                sock = stack.enter_context(listener.accept()[0])
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

            assert [client.response().status for client in polite] == [204, 204]


def _leave(program: Program) -> None:
    with plain_socket(program):
        pass


def _leave_with_a_reset(program: Program) -> None:
    with plain_socket(program) as sock:
        sock.sendall(b"\x16")
        reset(sock)


def _garbage(program: Program) -> None:
    with plain_socket(program) as sock:
        sock.sendall(bytes(range(256)))


def _plain_http(program: Program) -> None:
    with plain_socket(program) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_to_end(sock)


def _half_a_hello(program: Program) -> None:
    with plain_socket(program) as sock:
        sock.sendall(client_hello()[:100])


def _leave_inside_the_handshake(program: Program) -> None:
    with plain_socket(program) as sock:
        sock.sendall(client_hello())
        sock.recv(100)
        reset(sock)


def _distrust(program: Program) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError), HttpsClient(program, context=context):
        pass


def _say_nothing(program: Program) -> None:
    with HttpsClient(program):
        pass


def _bad_request(program: Program) -> None:
    with HttpsClient(program) as client:
        client.send(b"\x00\x01 nonsense\r\n\r\n")
        assert client.response().status == 400


def _half_a_head(program: Program) -> None:
    client = HttpsClient(program)
    client.send(b"GET / HTTP/1.1\r\nHo")
    client.reset()


def _reset_in_a_download(program: Program) -> None:
    client = HttpsClient(program)
    client.send(request("/endless"))
    client.read_until(b"\r\n\r\n")
    client.reset()


def _reset_in_an_upload(program: Program) -> None:
    client = HttpsClient(program)
    client.send(request("/sink", "Content-Length: 1000000", method="POST", body=bytes(70_000)))
    client.reset()


def _pipeline_and_leave(program: Program) -> None:
    client = HttpsClient(program)
    client.send(request("/hello") * 50)
    client.reset()


def _upgrade_and_leave(program: Program) -> None:
    client = HttpsClient(program)
    client.get("/upgrade", "Connection: Upgrade", "Upgrade: echo")
    client.reset()


def _leave_without_close_notify(program: Program) -> None:
    with HttpsClient(program) as client:
        client.send(request("/never"))


RUDE: list[Callable[[Program], None]] = [
    _leave,
    _leave_with_a_reset,
    _garbage,
    _plain_http,
    _half_a_hello,
    _leave_inside_the_handshake,
    _distrust,
    _say_nothing,
    _bad_request,
    _half_a_head,
    _reset_in_a_download,
    _reset_in_an_upload,
    _pipeline_and_leave,
    _upgrade_and_leave,
    _leave_without_close_notify,
]

STORM = 300
AT_ONCE = 20


class TestStorm:
    def test_nothing_is_left_and_nobody_is_hurt(self, launch: Launch, own_app: App, settings: dict[str, Any]) -> None:
        """
        Through 300 rude clients of every kind a polite one is served each time; afterwards the sidecar has the
        descriptors it had before, no connection, and no traceback in its log.
        """
        program = launch(upstream=own_app.upstream, **settings)
        program.metric("downstream_connections_active")
        eventually(lambda: program.descriptors().count("socket") == 2, "only the two listeners are open")
        before = program.descriptors()
        over = threading.Event()

        def polite() -> list[int]:
            statuses = []
            with HttpsClient(program) as kept:
                while not over.is_set():
                    with HttpsClient(program) as fresh:
                        statuses += [kept.get("/hello").status, fresh.get("/hello").status]
            return statuses

        def storm() -> None:
            try:
                work = iter([RUDE[number % len(RUDE)] for number in range(STORM)])
                lock = threading.Lock()

                def take() -> None:
                    while True:
                        with lock:
                            client = next(work, None)
                        if client is None:
                            return
                        client(program)

                in_parallel([take] * AT_ONCE)
            finally:
                over.set()

        statuses, _ = in_parallel([polite, storm])

        assert statuses
        assert set(statuses) == {200}
        eventually(lambda: program.metric("downstream_connections_active") == 0, "no connection is active")
        eventually(lambda: program.metric("upstream_connections") == 0, "no connection to the app is open")
        eventually(lambda: program.descriptors() == before, "the descriptors are those from before")
