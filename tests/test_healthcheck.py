"""`sidecar.healthcheck`: against servers on loopback sockets, good ones and odd ones."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar import healthcheck
from sidecar.healthcheck import main
from sidecar.wire.h2frames import ACK, PREFACE, SETTINGS, frame, goaway
from sidecar.wire.proxyproto import LOCAL_V2, UNKNOWN_V1
from tests.support.certs import DAY, NOW, Issued, authority
from tests.support.program import ROOT, environment

Serve = Callable[[socket.socket], None]

GOOD = authority().issue("localhost")

HTTP2_HELLO = PREFACE + frame(SETTINGS, 0, 0)
HTTP2_ANSWER = frame(SETTINGS, 0, 0, bytes((0, 5, 0, 0, 64, 0)))
REFUSED_IN_HTTP1 = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Servers:
    """Servers on loopback, each with one answer for everybody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()

    def start(self, serve: Serve, path: Path | None = None) -> str:
        """Let *serve* have each connection; return the address."""
        if path is None:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
        thread = threading.Thread(target=self._run, args=(listener, serve))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(listener.close)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)  # wakes accept
        return f"127.0.0.1:{listener.getsockname()[1]}" if path is None else f"unix:{path}"

    @staticmethod
    def _run(listener: socket.socket, serve: Serve) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, suppress(OSError):
                serve(sock)

    def tls(self, issued: Issued = GOOD, *, wants_certificate: bool = False) -> str:
        """Start a TLS server; return its address."""
        issued.write(self._directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "tls.crt", self._directory / "tls.key")
        if wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=authority().cert_pem.decode())

        def serve(sock: socket.socket) -> None:
            with context.wrap_socket(sock, server_side=True) as tls:
                tls.recv(1)

        return self.start(serve)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.close()


@pytest.fixture
def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "DEADLINE_SECONDS", 0.2)


def check(capfd: pytest.CaptureFixture[str], *arguments: str, **settings: str) -> tuple[int, str]:
    """Return the exit status and the line, which stands on the stream that goes with the status."""
    status = main(arguments, environment(**settings))
    out, err = capfd.readouterr()
    line, nothing = (out, err) if status == 0 else (err, out)
    assert nothing == ""
    assert line.endswith("\n")
    assert line.count("\n") == 1
    return status, line


def answering(data: bytes) -> Serve:
    """Read the request, or a preface of HTTP/2, then send *data* and close."""

    def serve(sock: socket.socket) -> None:
        request = b""
        while not request.endswith((b"\r\n\r\n", HTTP2_HELLO)):
            request += sock.recv(4096)
        sock.sendall(data)

    return serve


def of_two_protocols(to_http1: bytes, to_http2: bytes) -> Serve:
    """Answer a request in one way, and a preface of HTTP/2 in another; then close."""

    def serve(sock: socket.socket) -> None:
        is_http2 = sock.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"PRI"
        answering(to_http2 if is_http2 else to_http1)(sock)

    return serve


def silent(sock: socket.socket) -> None:
    """Take whatever comes, and say nothing."""
    while sock.recv(4096):
        pass


class TestTls:
    def test_good_certificate_is_healthy(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """The line says what was seen."""
        address = servers.tls()
        status, line = check(capfd, listen=address)
        end = GOOD.certificate.not_valid_after_utc
        assert status == 0
        assert line.startswith(f"healthy: {address} speaks TLSv1.3, certificate until {end:%Y-%m-%d} (")

    def test_listener_on_every_address_is_asked_on_loopback(
        self, servers: Servers, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """0.0.0.0 is where one listens, not where one connects to."""
        port = servers.tls().rpartition(":")[2]
        status, line = check(capfd, listen=f"0.0.0.0:{port}")
        assert status == 0
        assert f" 127.0.0.1:{port} " in line

    def test_client_certificate_is_not_needed(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """Who requires one of clients completes the handshake first."""
        assert check(capfd, listen=servers.tls(wants_certificate=True))[0] == 0

    @pytest.mark.parametrize(
        ("begin", "end", "why"),
        [
            pytest.param(-30 * DAY, -DAY, "expired on", id="expired"),
            pytest.param(DAY, 30 * DAY, "compare the clocks", id="not yet valid"),
        ],
    )
    def test_certificate_out_of_date_is_unhealthy(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], begin: timedelta, end: timedelta, why: str
    ) -> None:
        """Clients would refuse it, whatever else works."""
        issued = authority().issue("localhost", not_before=NOW + begin, not_after=NOW + end)
        status, line = check(capfd, listen=servers.tls(issued))
        assert status == 1
        assert why in line

    def test_nobody_listening_is_unhealthy(self, closed_address: str, capfd: pytest.CaptureFixture[str]) -> None:
        """The line names the address and its setting."""
        status, line = check(capfd, listen=closed_address)
        expected = f"unhealthy: no TLS handshake with {closed_address} (SIDECAR_LISTEN): Connection refused\n"
        assert (status, line) == (1, expected)

    @pytest.mark.usefixtures("short_deadline")
    def test_silent_listener_is_unhealthy_in_time(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """A program that hangs accepts connections all the same: the kernel does."""
        status, line = check(capfd, listen=servers.start(silent))
        assert status == 1
        assert line.endswith("nothing came within 0.2 s\n")

    @pytest.mark.parametrize("data", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 100], ids=repr)
    def test_listener_without_tls_is_unhealthy(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], data: bytes
    ) -> None:
        """Whatever it says instead."""

        def serve(sock: socket.socket) -> None:
            sock.recv(4096)
            sock.sendall(data)

        assert check(capfd, listen=servers.start(serve))[0] == 1


class TestApp:
    @pytest.mark.parametrize("status", ["200 OK", "204", "301 Moved", "401 Unauthorized", "404 Not Found", "500 Oops"])
    def test_any_answer_is_healthy(self, servers: Servers, capfd: pytest.CaptureFixture[str], status: str) -> None:
        """What the app thinks of HEAD / is its own matter."""
        address = servers.start(answering(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))
        exit_status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"http://{address}")
        assert exit_status == 0
        assert line.endswith(f"; the app at {address} answers {status[:3]}\n")

    def test_answer_may_come_in_pieces(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """A status line is one however it is cut."""

        def serve(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"HTTP/1.0 200 OK\r\n":
                sock.send(bytes((byte,)))
            silent(sock)

        assert check(capfd, "--app", listen=servers.tls(), upstream=servers.start(serve))[0] == 0

    def test_unix_socket_is_asked(self, servers: Servers, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """An app may listen on a file."""
        upstream = servers.start(answering(b"HTTP/1.1 200 OK\r\n\r\n"), tmp_path / "app.sock")
        assert check(capfd, "--app", listen=servers.tls(), upstream=upstream)[0] == 0

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "closes the connection without an answer"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "answers with something that is not HTTP/1.1"),
            (b"HTTP/1.1 abc\r\n", "answers with something that is not HTTP/1.1"),
            (b"HTTP/1.1 200", "answers with something that is not HTTP/1.1"),
            (b"H" * 100_000, "answers with something that is not HTTP/1.1"),
        ],
        ids=["nothing", "ssh", "no status", "cut", "endless line"],
    )
    def test_what_is_no_answer_is_unhealthy(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], data: bytes, why: str
    ) -> None:
        """The line says that it is the app, and which address was asked; nothing of what it sent."""
        address = servers.start(answering(data))
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=address)
        assert (status, line) == (1, f"unhealthy: the app at {address} (SIDECAR_UPSTREAM) {why}\n")

    @pytest.mark.usefixtures("short_deadline")
    def test_silent_app_is_unhealthy_in_time(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """The deadline is one for all."""
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=servers.start(silent))
        assert status == 1
        assert line.endswith("(SIDECAR_UPSTREAM): nothing came within 0.2 s\n")

    def test_app_is_left_alone_unless_asked_for(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], closed_address: str
    ) -> None:
        """A restart of the sidecar would not help an app that is down."""
        listen = servers.tls()
        assert check(capfd, listen=listen, upstream=closed_address)[0] == 0
        assert check(capfd, "--app", listen=listen, upstream=closed_address)[0] == 1


class TestHttp2App:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(HTTP2_ANSWER + frame(SETTINGS, ACK, 0), id="settings"),
            pytest.param(frame(SETTINGS, 0, 0), id="no settings"),
            pytest.param(frame(SETTINGS, 0, 0, bytes(16_380)), id="many settings"),
        ],
    )
    def test_settings_are_an_answer(self, servers: Servers, capfd: pytest.CaptureFixture[str], data: bytes) -> None:
        """With them a server begins, whatever it serves."""
        address = servers.start(answering(data))
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"h2c://{address}")
        assert status == 0, line
        assert line.endswith(f"; the app at {address} speaks HTTP/2\n")

    def test_answer_may_come_in_pieces(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """A head of nine bytes is one however it is cut; what follows is not waited for."""

        def serve(sock: socket.socket) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in HTTP2_ANSWER[:9]:
                sock.send(bytes((byte,)))
            silent(sock)

        assert check(capfd, "--app", listen=servers.tls(), upstream=f"h2c://{servers.start(serve)}")[0] == 0

    def test_it_is_asked_as_the_protocol_begins(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """By a preface and SETTINGS, on sockets of both kinds."""
        seen: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            seen.append(sock.recv(len(HTTP2_HELLO) + 1))
            sock.sendall(HTTP2_ANSWER)

        upstream = f"h2c+{servers.start(serve, tmp_path / 'app.sock')}"
        assert check(capfd, "--app", listen=servers.tls(), upstream=upstream)[0] == 0
        assert seen == [HTTP2_HELLO]

    @pytest.mark.parametrize("to_http1", [b"HTTP/1.1 200 OK\r\n\r\n", REFUSED_IN_HTTP1], ids=["served", "refused"])
    @pytest.mark.parametrize(
        "to_http2", [REFUSED_IN_HTTP1, b"", b"<!DOCTYPE HTML>\n"], ids=["refused", "closed", "without a head"]
    )
    def test_app_of_http1_is_told_from_one_of_h2c(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], to_http1: bytes, to_http2: bytes
    ) -> None:
        """However it takes the preface; the line says what to write instead."""
        address = servers.start(of_two_protocols(to_http1, to_http2))
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"h2c://{address}")
        assert status == 1
        assert f"the app at {address} (SIDECAR_UPSTREAM) does not speak HTTP/2 without TLS" in line
        assert "write http://" in line

    @pytest.mark.parametrize(
        "to_http1",
        [
            pytest.param(HTTP2_ANSWER + goaway(0, 1), id="refused in frames"),
            pytest.param(b"", id="closed"),
            pytest.param(b"\x00\x00", id="cut"),
        ],
    )
    def test_app_of_h2c_is_told_from_one_of_http1(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], to_http1: bytes
    ) -> None:
        """However it takes the request; nothing of what it sent is shown."""
        address = servers.start(of_two_protocols(to_http1, HTTP2_ANSWER))
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"http://{address}")
        assert status == 1
        assert f"the app at {address} (SIDECAR_UPSTREAM) speaks HTTP/2, and no HTTP/1.1: write h2c://" in line

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            pytest.param(b"", "closes the connection without an answer", id="nothing"),
            pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "answers with something that is not HTTP/2", id="ssh"),
            pytest.param(HTTP2_ANSWER[:8], "answers with something that is not HTTP/2", id="cut"),
            pytest.param(frame(SETTINGS, ACK, 0), "answers with something that is not HTTP/2", id="ack first"),
            pytest.param(frame(SETTINGS, 0, 1), "answers with something that is not HTTP/2", id="on a stream"),
            pytest.param(goaway(0, 1), "answers with something that is not HTTP/2", id="goaway first"),
            pytest.param(b"\x00" * 100_000, "answers with something that is not HTTP/2", id="endless"),
        ],
    )
    def test_what_is_neither_is_unhealthy(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], data: bytes, why: str
    ) -> None:
        """Nothing is advised where nobody knows what is spoken."""
        address = servers.start(answering(data))
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"h2c://{address}")
        assert (status, line) == (1, f"unhealthy: the app at {address} (SIDECAR_UPSTREAM) {why}\n")

    def test_app_that_resets_the_connection_is_asked_once_more(
        self, servers: Servers, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Who closes with a request unread resets, and its last words may be lost."""

        def serve(sock: socket.socket) -> None:
            if sock.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"PRI":
                sock.sendall(HTTP2_ANSWER)
                silent(sock)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        status, line = check(capfd, "--app", listen=servers.tls(), upstream=servers.start(serve))
        assert (status, "speaks HTTP/2" in line) == (1, True)

    @pytest.mark.usefixtures("short_deadline")
    def test_silent_app_is_unhealthy_in_time(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """The deadline is one for all, and is not waited for twice."""
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=f"h2c://{servers.start(silent)}")
        assert status == 1
        assert line.endswith("(SIDECAR_UPSTREAM): nothing came within 0.2 s\n")

    def test_cluster_of_h2c_is_asked_in_it(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """As one that SIDECAR_UPSTREAM names."""
        cluster = {"name": "greeter", "endpoints": servers.start(answering(HTTP2_ANSWER)), "protocol": "h2c"}
        listener = {"name": "in", "address": servers.tls(), "cluster": "greeter"}
        status, line = check(capfd, "--app", clusters=json.dumps([cluster]), listeners=json.dumps([listener]))
        assert status == 0, line
        assert line.endswith(" speaks HTTP/2\n")


class TestOtherListeners:
    def test_header_goes_ahead_where_one_is_looked_for(
        self, servers: Servers, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Of ourselves, which says nothing of clients: without it a listener that requires one would refuse us."""
        seen: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            seen.append(sock.recv(len(LOCAL_V2), socket.MSG_WAITALL))

        status, _ = check(capfd, listen=servers.start(serve), proxy_protocol="required")
        assert status == 1  # it has hung up
        assert seen == [LOCAL_V2]

    def test_listener_in_the_clear_has_only_to_be_there(
        self, servers: Servers, closed_address: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """There is no certificate that could be out of date."""
        status, line = check(capfd, listen=servers.start(silent), listen_tls="off")
        assert (status, "accepts connections" in line) == (0, True)
        status, line = check(capfd, listen=closed_address, listen_tls="off")
        assert status == 1
        assert "(SIDECAR_LISTEN)" in line

    def test_of_several_the_first_with_tls_is_asked(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """That is where clients come in."""
        listeners = [
            {"name": "out", "address": "127.0.0.1:1", "tls": "off", "cluster": "app"},
            {"name": "in", "address": servers.tls(), "cluster": "app"},
        ]
        status, line = check(capfd, listeners=json.dumps(listeners))
        assert status == 0, line

    def test_lists_that_cannot_be_are_unhealthy(self, capfd: pytest.CaptureFixture[str]) -> None:
        """It says what is wrong with them, in one line."""
        status, line = check(capfd, listeners='[{"name":"in","address":"127.0.0.1:1","cluster":"nobody"}]')
        assert status == 1
        assert "listeners[0].cluster" in line


class TestSeveralApps:
    def test_one_that_answers_is_enough(
        self, servers: Servers, closed_address: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The others are looked after by the program itself."""
        good = servers.start(answering(b"HTTP/1.1 200 OK\r\n\r\n"))
        upstream = f"{closed_address},{good}"
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=upstream)
        assert (status, "answers 200" in line) == (0, True)

    def test_none_that_answers_is_unhealthy(
        self, servers: Servers, closed_address: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Each is named."""
        upstream = f"{closed_address},{servers.start(lambda sock: None)}"
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=upstream)
        assert status == 1
        assert all(address in line for address in upstream.split(","))

    def test_app_that_wants_a_header_gets_one(self, servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:
        """It would take our request for a header otherwise."""

        def serve(sock: socket.socket) -> None:
            header = sock.recv(len(UNKNOWN_V1), socket.MSG_WAITALL)
            answering(b"HTTP/1.1 200 OK\r\n\r\n" if header == UNKNOWN_V1 else b"?")(sock)

        status, line = check(
            capfd, "--app", listen=servers.tls(), upstream=servers.start(serve), upstream_proxy_protocol="v1"
        )
        assert status == 0, line

    @pytest.mark.parametrize("settings", [{"mode": "tcp"}, {}], ids=["tcp", "https"])
    def test_app_that_speaks_something_else_has_only_to_be_there(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], settings: dict[str, str]
    ) -> None:
        """Nobody here knows its language."""
        upstream = servers.start(silent)
        upstream = upstream if settings else f"https://{upstream}"
        status, line = check(capfd, "--app", listen=servers.tls(), upstream=upstream, **settings)
        assert (status, "accepts connections" in line) == (0, True)


class TestMain:
    def test_flags_win_over_variables(
        self, servers: Servers, capfd: pytest.CaptureFixture[str], closed_address: str
    ) -> None:
        """The settings are read as `run` reads them."""
        assert check(capfd, "--listen", servers.tls(), listen=closed_address)[0] == 0

    def test_settings_that_cannot_be_read_are_unhealthy(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Status 1 and not 78: Docker reserves the others. The first problem stands for all, and none shows a key."""
        pem = "-----BEGIN PRIVATE KEY-----\nMIIEsecret\n-----END PRIVATE KEY-----\n"
        status, line = check(capfd, "--lisen=x", listen=pem, max_headers="0")
        assert status == 1
        assert line.startswith("unhealthy: --lisen (flag): there is no such flag; did you mean --listen?")
        assert line.endswith(" (and 2 more)\n")
        assert "MIIE" not in line

    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_is_short(self, capfd: pytest.CaptureFixture[str], flag: str) -> None:
        """What it checks, and with which settings."""
        assert main([flag], {}) == 0
        assert capfd.readouterr().out == healthcheck.USAGE

    def test_closed_output_changes_no_status(self, closed_address: str) -> None:
        """The status is for programs, and counts whether anybody reads the line or not."""
        reader, writer = os.pipe()
        os.close(reader)
        done = run(f"--listen={closed_address}", stderr=writer)
        os.close(writer)
        assert (done.returncode, done.stdout) == (1, b"")

    def test_little_is_imported(self, servers: Servers) -> None:
        """It runs every few seconds: no event loop, YAML, HTTP/2, nor what makes certificates, is loaded for it."""
        heavy = {"twisted", "OpenSSL", "yaml", "prometheus_client", "asyncio", "h2", "hpack"}
        code = f"sys.stdout.write(str({heavy} & {{*sys.modules}}))"
        done = run(f"--listen={servers.tls()}", then=code)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(b"set()")


def run(*arguments: str, then: str = "", stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    """Run it in a process of its own; *then* is done before the end."""
    code = f"import os, sys; from sidecar import healthcheck; s = healthcheck.main(sys.argv[1:], os.environ); {then}"
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nsys.exit(s)", *arguments],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=30,
    )
