"""
Ensures that no balancer, however it opens its connections, costs a client anything, leaves anything behind, or keeps
the program from a reload or its end.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.clients import client_context, in_parallel, request, reset
from tests.scenarios.conftest import Launch
from tests.support import proxyheaders
from tests.support.apps import App
from tests.support.program import WAIT_SECONDS, Program, eventually, sidecar_command

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
V2 = proxyheaders.v2(proxyheaders.IPV4)
CLIENT = "192.0.2.1"
"""Whom both headers name."""

HEADERS = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])

LATE_SECONDS = 5.0
"""When a connection without its whole header is cut."""

CROWD = 100


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"proxy_protocol": "required"}


@pytest.fixture
def descriptors(program: Program) -> Iterator[None]:
    """A test at whose end the program has no more descriptors than before."""
    speak(program, "/hello")  # and now it has its connection to the app
    before = len(program.descriptors())
    yield
    eventually(lambda: len(program.descriptors()) <= before, "all descriptors are back")


def connect(program: Program) -> socket.socket:
    sock = socket.create_connection((program.host, program.port), WAIT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def answer(tls: ssl.SSLSocket, path: str) -> bytes:
    """What comes back for a request, to the end of the connection."""
    tls.sendall(request(path, "Connection: close"))
    return b"".join(iter(lambda: tls.recv(65_536), b""))


def speak(program: Program, path: str, header: bytes = V1) -> bytes:
    """A good balancer: its header, and then what its client says."""
    with connect(program) as sock:
        sock.sendall(header)
        with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
            return answer(tls, path)


def is_cut(sock: socket.socket) -> bool:
    """Wait for the sidecar's next move; True if it closes without a byte."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def reasons(program: Program) -> dict[str, int]:
    """How many connections were turned away, by reason, as /handshakes says."""
    counted: dict[str, int] = {}
    for event in json.loads(program.admin("/handshakes")[1])["rejections"]:
        counted[event["reason"]] = counted.get(event["reason"], 0) + event["count"]
    return counted


def failures(program: Program, reason: str) -> int:
    """The counter of handshakes that came to nothing for *reason*."""
    return program.metric(f'tls_handshake_failures_total{{reason="{reason}"}}')


@pytest.mark.usefixtures("descriptors")
class TestPings:
    @pytest.mark.parametrize(
        "header",
        [b"", V1, V2, b"PROXY UNKNOWN\r\n", proxyheaders.v2(b"", 0, 0)],
        ids=["nothing", "v1", "v2", "v1 of nobody", "v2 of its own"],
    )
    @pytest.mark.parametrize("ends_with", ["close", "reset"])
    def test_five_hundred_are_no_news(self, program: Program, header: bytes, ends_with: str) -> None:
        """A balancer that connects, perhaps says who it is, and goes, is counted and otherwise ignored."""
        said, before = program.stderr, failures(program, "ping")
        for _ in range(500):
            sock = connect(program)
            if header:
                sock.sendall(header)
            if ends_with == "reset":
                reset(sock)
            else:
                sock.close()
        eventually(lambda: program.metric("downstream_connections_active") == 0, "all have gone")

        assert failures(program, "ping") - before == 500
        assert program.stderr == said
        after = f"/hello/after/{before}"  # is logged behind whatever the pings have left
        assert speak(program, after).startswith(b"HTTP/1.1 200 ")
        program.logged(after)
        assert {line.get("path", "")[:6] for line in program.access_log()} == {"/hello"}
        assert reasons(program) == {}


@pytest.mark.usefixtures("descriptors")
class TestPieces:
    @HEADERS
    def test_header_may_come_byte_by_byte(self, program: Program, header: bytes) -> None:
        """And so may what follows it."""
        with connect(program) as sock:
            for octet in header:
                sock.send(bytes((octet,)))
            with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                assert answer(tls, "/hello/bytes").endswith(b"\r\n\r\nhello\n")

        assert program.logged("/hello/bytes")["client"] == CLIENT

    @HEADERS
    def test_header_and_hello_may_come_as_one(self, program: Program, header: bytes) -> None:
        """Wherever the segments end: nothing of the handshake is lost to the header, nor the other way round."""
        for cut in (1, len(header) // 2, len(header) - 1, len(header), len(header) + 1, len(header) + 5):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
            with connect(program) as sock:
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                data = header + outgoing.read()
                sock.sendall(data[:cut])
                sock.sendall(data[cut:])
                while True:
                    incoming.write(sock.recv(65_536))
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        pass
                assert tls.version() == "TLSv1.3"


class TestGarbage:
    @pytest.mark.parametrize("case", proxyheaders.INVALID, ids=[case.id for case in proxyheaders.INVALID])
    def test_header_that_is_not_valid_is_refused(self, program: Program, case: proxyheaders.HeaderCase) -> None:
        """The connection is cut without a byte; who comes next is served."""
        before = failures(program, "proxy_header_invalid")
        with connect(program) as sock:
            sock.sendall(case.data)
            assert is_cut(sock)

        assert failures(program, "proxy_header_invalid") == before + 1
        assert speak(program, "/hello").startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (proxyheaders.HELLO, "proxy_header_missing"),
            (proxyheaders.HTTP, "proxy_header_missing"),
            (bytes(100), "proxy_header_missing"),
            (V1 + V1, "proxy_header_unexpected"),
            (V2 + V1 + proxyheaders.HELLO, "proxy_header_unexpected"),
            (V1 + bytes(100), "unsupported_version"),
        ],
        ids=["hello", "http", "zeros", "two headers", "two headers of both kinds", "zeros behind a header"],
    )
    def test_what_is_no_header_or_no_handshake_is_refused(self, program: Program, data: bytes, reason: str) -> None:
        """A second header is none of ours to believe: what stands behind the first one is TLS, or nothing."""
        before = reasons(program).get(reason, 0)
        with connect(program) as sock:
            sock.sendall(data)
            assert is_cut(sock)

        eventually(lambda: reasons(program).get(reason, 0) == before + 1, "it is told")
        assert speak(program, "/hello").startswith(b"HTTP/1.1 200 ")

    @HEADERS
    def test_header_that_nobody_expects_is_known_for_one(self, launch: Launch, app: App, header: bytes) -> None:
        """Where the balancer speaks the protocol and the sidecar was not told, the log names the setting."""
        program = launch(upstream=app.upstream)
        with connect(program) as sock:
            sock.sendall(header + proxyheaders.HELLO)
            assert is_cut(sock)

        eventually(lambda: "turned away" in program.stderr, "the log tells of it")
        assert "SIDECAR_PROXY_PROTOCOL" in program.stderr

    def test_log_is_not_flooded(self, launch: Launch, app: App) -> None:
        """A hundred bad headers are one line, which says what to look at, and a count."""
        program = launch(upstream=app.upstream, proxy_protocol="required")
        for _ in range(100):
            with connect(program) as sock:
                sock.sendall(b"PROXY TCP4 nonsense\r\n")
                assert is_cut(sock)

        assert reasons(program) == {"proxy_header_invalid": 100}
        assert program.stderr.count("proxy_header_invalid") == 1


class TestHalfHeaders:
    def test_half_a_header_is_waited_for_and_costs_nobody(self, launch: Launch, app: App) -> None:
        """
        A hundred connections with half a header, a hundred without a byte: all are cut after five seconds, the former
        with a reason, and others are served meanwhile.
        """
        program = launch(upstream=app.upstream, proxy_protocol="required")
        assert speak(program, "/hello").startswith(b"HTTP/1.1 200 ")
        before = len(program.descriptors())
        with ExitStack() as stack:
            began_at = time.monotonic()
            crowd = [stack.enter_context(connect(program)) for _ in range(2 * CROWD)]
            for number, sock in enumerate(crowd[:CROWD]):
                header = V1 if number % 2 else V2
                sock.sendall(header[: 1 + number % (len(header) - 1)])
            assert [speak(program, "/hello")[:13] for _ in range(20)] == [b"HTTP/1.1 200 "] * 20
            assert time.monotonic() - began_at < LATE_SECONDS, "the machine is too slow for this test"
            assert program.metric("downstream_connections_active") == 2 * CROWD
            assert in_parallel([lambda sock=sock: is_cut(sock) for sock in crowd]) == [True] * 2 * CROWD
            took = time.monotonic() - began_at

        assert LATE_SECONDS - 0.5 < took < 2 * LATE_SECONDS
        assert reasons(program) == {"proxy_header_timeout": CROWD}
        assert failures(program, "ping") == CROWD
        eventually(lambda: len(program.descriptors()) <= before, "all descriptors are back")

    @HEADERS
    def test_header_that_drips_is_late_too(self, launch: Launch, app: App, header: bytes) -> None:
        """A byte now and then does not buy time; SIDECAR_HANDSHAKE_TIMEOUT is the limit if it is less."""
        program = launch(upstream=app.upstream, proxy_protocol="required", handshake_timeout="500ms")
        with connect(program) as sock:
            sock.settimeout(0.1)
            began_at = time.monotonic()
            for octet in header[:-1]:
                try:
                    sock.send(bytes((octet,)))
                    assert sock.recv(1) == b""
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    pass  # cut while a byte was on its way
                break
            took = time.monotonic() - began_at

        assert 0.4 < took < LATE_SECONDS
        assert reasons(program) == {"proxy_header_timeout": 1}


class TestSeveralWorkers:
    def test_each_worker_reads_headers(self, launch: Launch, app: App) -> None:
        """Two workers behind a balancer that pings: the log names clients, and the own health check passes."""
        settings: dict[str, Any] = {"upstream": app.upstream, "proxy_protocol": "required", "workers": "2"}
        program = launch(**settings)
        for _ in range(100):
            connect(program).close()
        answers = in_parallel([lambda: speak(program, "/hello/by-worker", V2)] * 20)
        check = sidecar_command("healthcheck", listen=f"{program.host}:{program.port}", **settings)

        assert [each[:13] for each in answers] == [b"HTTP/1.1 200 "] * 20
        assert check.returncode == 0, check.stderr
        eventually(lambda: len(program.access_log()) == 20, "all of them are logged")
        assert {line["client"] for line in program.access_log()} == {CLIENT}
        assert reasons(program) == {}
        eventually(lambda: failures(program, "ping") == 100, "the pings of both are counted together")


class TestLife:
    def test_reload_in_the_middle_of_a_header(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """Who came before goes by what held then; who comes after by what holds now."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("proxy_protocol: trusted\ntrusted_proxies: 127.0.0.0/8\n")
        program = launch(upstream=app.upstream, config=str(file))
        with connect(program) as sock:
            sock.sendall(V1[:20])
            eventually(lambda: program.metric("downstream_connections_active") == 1, "it is accepted")
            file.write_text("proxy_protocol: trusted\ntrusted_proxies: 10.0.0.0/8\n")
            program.signal(signal.SIGHUP)
            eventually(lambda: "reloaded" in program.stderr, "the new settings are in force")
            with connect(program) as other:
                other.sendall(V1)
                assert is_cut(other)
            sock.sendall(V1[20:])
            with client_context().wrap_socket(sock, server_hostname="localhost") as tls:
                assert answer(tls, "/hello/before").startswith(b"HTTP/1.1 200 ")

        assert program.logged("/hello/before")["client"] == CLIENT
        assert reasons(program) == {"proxy_header_untrusted": 1}

    @pytest.mark.parametrize("sent", [b"", V1[:20], V2[:20], V1], ids=["nothing", "half of v1", "half of v2", "v1"])
    def test_drain_does_not_wait_for_who_has_said_nothing(self, launch: Launch, app: App, sent: bytes) -> None:
        """Neither for a header nor for the handshake behind it; requests in flight are."""
        program = launch(upstream=app.upstream, proxy_protocol="required", drain_timeout="20s")
        with connect(program) as sock:
            sock.sendall(sent)
            eventually(lambda: program.metric("downstream_connections_active") == 1, "it is accepted")
            began_at = time.monotonic()
            program.signal()
            assert program.wait(WAIT_SECONDS) == 0
            took = time.monotonic() - began_at

        assert took < LATE_SECONDS

    def test_drain_under_pings_and_clients_loses_nothing(self, launch: Launch, own_app: App) -> None:
        """What was asked for before the end is answered, whoever else connects and goes."""
        program = launch(upstream=own_app.upstream, proxy_protocol="required")
        with ExitStack() as stack:
            clients = []
            for _ in range(10):
                sock = stack.enter_context(connect(program))
                sock.sendall(V2)
                tls = stack.enter_context(client_context().wrap_socket(sock, server_hostname="localhost"))
                tls.sendall(request("/held"))
                clients.append(tls)
            eventually(lambda: len(own_app.requests) == 10, "the app has all requests")
            for _ in range(100):
                connect(program).close()
            halves = [stack.enter_context(connect(program)) for _ in range(10)]
            for sock in halves:
                sock.sendall(V1[:10])
            program.signal()
            eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
            own_app.gate.set()
            answers = [b"".join(iter(lambda tls=tls: tls.recv(65_536), b"")) for tls in clients]

        assert [each.endswith(b"\r\n\r\nat last\n") for each in answers] == [True] * 10
        assert program.wait() == 0
