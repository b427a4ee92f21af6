"""`sidecar.doctor.looking`: files in a directory of the test, and servers on loopback sockets."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.doctor import looking
from sidecar.doctor.app import Answer, Spoken
from sidecar.doctor.looking import Machine, inner_files, key_file
from sidecar.doctor.ports import Binding
from sidecar.settings import HostPort, UnixPath
from sidecar.wire.h2frames import ACK, PREFACE, SETTINGS, frame, goaway
from tests.support.certs import authority

Serve = Callable[[socket.socket], None]
Start = Callable[[Serve], HostPort]

HEAD = b"HTTP/1.1 200 OK\r\n"
HTTP2 = frame(SETTINGS, 0, 0, bytes((0, 5, 0, 0, 64, 0)))


@pytest.fixture
def start() -> Iterator[Start]:
    """Serve connections on loopback, each in its turn."""
    with ExitStack() as stack:

        def run(listener: socket.socket, serve: Serve) -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock, suppress(OSError):
                    serve(sock)

        def start(serve: Serve) -> HostPort:
            listener = socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=run, args=(listener, serve))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)  # wakes accept
            return HostPort("127.0.0.1", listener.getsockname()[1])

        yield start


@pytest.fixture
def closed() -> HostPort:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return HostPort("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "STEP_SECONDS", 0.2)


def saying(answer: bytes) -> Serve:
    """Take what comes first, say *answer*, close."""

    def serve(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(answer)

    return serve


def silent(sock: socket.socket) -> None:
    while sock.recv(65_536):
        pass


def tls_server(directory: Path, when_plain: bytes) -> Serve:
    """A server that says *when_plain* to who does not speak TLS."""
    authority().issue("localhost").write(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")

    def serve(sock: socket.socket) -> None:
        if sock.recv(1, socket.MSG_PEEK) != b"\x16":
            sock.recv(65_536)
            sock.sendall(when_plain)
            return
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)

    return serve


def of_two_protocols(to_http1: bytes, to_http2: bytes) -> Serve:
    """Answer a preface of HTTP/2 in one way, and what else comes in another; close."""

    def serve(sock: socket.socket) -> None:
        data = sock.recv(65_536)
        sock.sendall(to_http2 if data.startswith(PREFACE) else to_http1)

    return serve


def ask(
    address: HostPort | UnixPath, wanted: Spoken = Spoken.HTTP, *, is_http: bool = True, first: bytes = b""
) -> Answer:
    return Machine().ask(address, first, wanted, is_http=is_http)


class TestText:
    def test_text_is_read_below_the_root(self, tmp_path: Path) -> None:
        """What cannot be read is empty."""
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "x").write_bytes(b"a\xff")
        machine = Machine(tmp_path)
        assert machine.text("/proc/x") == "a\ufffd"
        assert machine.text("/proc/y") == ""
        assert (machine.exists("/proc/x"), machine.exists("/proc/y")) == (True, False)


class TestFile:
    def test_kubernetes_volume_is_seen_through_its_links(self, tmp_path: Path) -> None:
        """The directory that is swapped, and the file behind it."""
        (tmp_path / "..2026").mkdir()
        (tmp_path / "..2026" / "tls.crt").write_text("x")
        (tmp_path / "..data").symlink_to("..2026")
        (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
        directory, file = Machine().file(tmp_path), Machine().file(tmp_path / "tls.crt", is_named=False)
        assert directory is not None
        assert file is not None
        assert (directory.is_file, directory.is_swapped, directory.is_named) == (False, True, True)
        assert (file.is_file, file.is_swapped, file.is_named) == (True, True, False)
        assert file.real == os.path.realpath(tmp_path / "..2026" / "tls.crt")
        assert file.path == str(tmp_path / "tls.crt")

    @pytest.mark.parametrize("path", ["/nonexistent", "/\0"])
    def test_file_that_cannot_be_looked_at_is_none(self, path: str) -> None:
        """Loading it has said why."""
        assert Machine().file(Path(path)) is None


class TestKeyFile:
    def test_key_is_looked_for_as_the_program_does(self, tmp_path: Path) -> None:
        """Named, in the directory, beside the certificate, or inside it."""
        cert = tmp_path / "a.crt"
        assert key_file(cert, None) == cert
        (tmp_path / "a.key").write_text("x")
        assert key_file(cert, None) == tmp_path / "a.key"
        assert key_file(cert, tmp_path / "b.pem") == tmp_path / "b.pem"
        assert key_file(tmp_path, None) == tmp_path / "tls.key"
        (tmp_path / "keystore.p12").write_text("x")
        assert key_file(cert, tmp_path) == tmp_path / "keystore.p12"

    def test_files_of_a_directory_are_those_that_are_read(self, tmp_path: Path) -> None:
        """Whatever else lies there."""
        for name in ("tls.crt", "ca.crt", "notes.txt"):
            (tmp_path / name).write_text("x")
        assert {file.name for file in inner_files(tmp_path)} == {"tls.crt", "ca.crt"}


class TestForbiddenDirectory:
    def test_what_may_not_be_looked_for_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Loading it says so; nothing is raised."""

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "stat", refuse)  # tests may run as root, who may look everywhere
        assert Machine().exists("/x/y") is False
        assert inner_files(Path("/x")) == []
        assert key_file(Path("/x/a.crt"), None) == Path("/x/a.crt")


class TestBinding:
    def test_free_and_taken_ports_are_told_apart(self, closed: HostPort) -> None:
        """As the program would find them, which may follow a listener that has just ended."""
        assert Machine().binding(closed) is Binding.FREE
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert Machine().binding(HostPort("127.0.0.1", port)) is Binding.TAKEN
            assert Machine().binding(HostPort("0.0.0.0", port)) is Binding.TAKEN

    def test_address_of_another_machine_is_absent(self) -> None:
        """192.0.2.0/24 is nobody's."""
        assert Machine().binding(HostPort("192.0.2.1", 0)) is Binding.ABSENT

    def test_port_that_is_forbidden_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the error that the kernel gives."""

        def bind(self: socket.socket, address: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket, "socket", type("Refused", (socket.socket,), {"bind": bind}))
        assert Machine().binding(HostPort("127.0.0.1", 443)) is Binding.FORBIDDEN


class TestPage:
    def test_body_is_returned_whatever_the_status(self, start: Start) -> None:
        """/ready says 503 with its reasons."""
        address = start(saying(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n{}"))
        assert Machine().page(address, "/ready") == b"{}"

    def test_wildcard_is_asked_on_loopback(self, start: Start) -> None:
        """One listens there, and connects elsewhere."""
        address = start(saying(HEAD + b"\r\nx"))
        assert Machine().page(HostPort("0.0.0.0", address.port), "/") == b"x"

    @pytest.mark.usefixtures("impatient")
    def test_nobody_and_strangers_have_no_page(self, start: Start, closed: HostPort) -> None:
        """Nor has who says nothing."""
        assert Machine().page(closed, "/") is None
        assert Machine().page(start(saying(b"SSH-2.0-x\r\n\r\n")), "/") is None
        assert Machine().page(start(silent), "/") is None


class TestAsk:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            pytest.param(HEAD + b"\r\n", Answer(Spoken.HTTP, 200), id="answer"),
            pytest.param(
                b"HTTP/1.0 404 No\r\nkeep-alive: max=3, timeout=7\r\n\r\n",
                Answer(Spoken.HTTP, 404, keep_alive=7),
                id="keep-alive",
            ),
            pytest.param(b"HTTP/1.1 400 Bad\r\n\r\n", Answer(Spoken.HTTP, 400), id="refusal"),
            pytest.param(b"220 mail\r\n\r\n", Answer(Spoken.OTHER), id="mail"),
            pytest.param(b"", Answer(Spoken.OTHER), id="closed"),
        ],
    )
    def test_answer_is_understood(self, start: Start, answer: bytes, expected: Answer) -> None:
        """By its first line, and what it says of idle connections."""
        assert ask(start(saying(answer))) == expected

    @pytest.mark.parametrize(
        "when_plain",
        [
            pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="refused-in-http"),
            pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="alert"),
            pytest.param(b"", id="closed"),
        ],
    )
    def test_tls_is_found_behind_every_refusal(self, start: Start, tmp_path: Path, when_plain: bytes) -> None:
        """Servers say in many ways that they wanted it."""
        assert ask(start(tls_server(tmp_path, when_plain))).spoken is Spoken.TLS

    def test_tls_that_is_wanted_is_found(self, start: Start, tmp_path: Path) -> None:
        """The handshake need not end."""
        assert ask(start(tls_server(tmp_path, b"")), Spoken.TLS).spoken is Spoken.TLS

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", HEAD + b"\r\n"])
    def test_http_where_tls_is_wanted_is_found(self, start: Start, answer: bytes) -> None:
        """It answers the handshake, or the question after it."""
        assert ask(start(saying(answer)), Spoken.TLS).spoken is Spoken.HTTP

    def test_old_server_that_takes_a_handshake_for_a_request_is_found(self, start: Start) -> None:
        """To what is no request it answers without a head."""

        def serve(sock: socket.socket) -> None:
            sock.sendall(HEAD + b"\r\n" if sock.recv(65_536).startswith(b"HEAD ") else b"<html>")

        assert ask(start(serve), Spoken.TLS).spoken is Spoken.HTTP
        assert ask(start(serve), Spoken.TLS, is_http=False).spoken is Spoken.OTHER

    def test_proxy_header_goes_first(self, start: Start) -> None:
        """Else an app that wants one would not answer."""
        seen: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            seen.append(sock.recv(65_536))
            sock.sendall(HEAD + b"\r\n")

        ask(start(serve), first=b"PROXY UNKNOWN\r\n")
        assert seen[0].startswith(b"PROXY UNKNOWN\r\nHEAD / HTTP/1.1\r\n")

    def test_http2_begins_with_preface_and_settings(self, start: Start) -> None:
        """Who speaks it answers with its own; one is not waited for until it closes."""
        seen: list[bytes] = []

        def serve(sock: socket.socket) -> None:
            seen.append(sock.recv(65_536))
            sock.sendall(HTTP2)
            silent(sock)

        assert ask(start(serve), Spoken.H2C) == Answer(Spoken.H2C)
        assert seen == [PREFACE + frame(SETTINGS, 0, 0)]

    @pytest.mark.parametrize(
        "to_http1",
        [
            pytest.param(HTTP2 + goaway(0, 1), id="refused-in-frames"),
            pytest.param(b"", id="closed"),
            pytest.param(HTTP2[:8], id="cut"),
        ],
    )
    def test_http2_is_found_where_http1_is_wanted(self, start: Start, to_http1: bytes) -> None:
        """However such a server takes a request, and a handshake of TLS after it."""
        assert ask(start(of_two_protocols(to_http1, HTTP2))) == Answer(Spoken.H2C)

    @pytest.mark.parametrize(
        "to_http2",
        [
            pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="refused"),
            pytest.param(b"HTTP/1.1 505 Version\r\n\r\n", id="refused-for-the-version"),
            pytest.param(b"<!DOCTYPE HTML>\r\n\r\n", id="without-a-head"),
            pytest.param(b"", id="closed"),
        ],
    )
    def test_http1_is_found_where_http2_is_wanted(self, start: Start, to_http2: bytes) -> None:
        """However such a server takes the preface."""
        assert ask(start(of_two_protocols(HEAD + b"\r\n", to_http2)), Spoken.H2C).spoken is Spoken.HTTP

    @pytest.mark.parametrize("when_plain", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["refused", "closed"])
    def test_tls_is_found_where_http2_is_wanted(self, start: Start, tmp_path: Path, when_plain: bytes) -> None:
        """Its refusal may be in HTTP/1.1, which it does not speak without TLS."""
        assert ask(start(tls_server(tmp_path, when_plain)), Spoken.H2C).spoken is Spoken.TLS

    def test_http2_is_found_where_tls_is_wanted(self, start: Start) -> None:
        """It takes a handshake for a preface that is wrong."""
        assert ask(start(of_two_protocols(HTTP2 + goaway(0, 1), HTTP2)), Spoken.TLS).spoken is Spoken.H2C

    @pytest.mark.parametrize(
        "data", [frame(SETTINGS, ACK, 0), frame(SETTINGS, 0, 1), goaway(0, 1)], ids=["ack", "on-a-stream", "goaway"]
    )
    def test_other_frame_than_settings_is_no_answer(self, start: Start, data: bytes) -> None:
        """A server begins with them, or speaks something else."""
        assert ask(start(saying(data)), Spoken.H2C) == Answer(Spoken.OTHER)

    @pytest.mark.usefixtures("impatient")
    def test_question_that_meets_silence_is_not_the_last(self, start: Start) -> None:
        """A server of HTTP/2 may wait for the rest of what is a handshake of TLS."""

        def serve(sock: socket.socket) -> None:
            data = sock.recv(65_536)
            if data.startswith(PREFACE):
                sock.sendall(HTTP2)
            elif not data.startswith(b"HEAD"):
                silent(sock)

        assert ask(start(serve)) == Answer(Spoken.H2C)

    def test_raw_tcp_is_only_connected_to(self, start: Start) -> None:
        """What is spoken there nobody knows."""
        assert ask(start(silent), Spoken.ANYTHING, is_http=False) == Answer(Spoken.ANYTHING)

    def test_missing_app_is_told_with_the_reason(self, closed: HostPort, tmp_path: Path) -> None:
        """On sockets of both kinds, and by a name that has no address."""
        assert ask(closed) == Answer(Spoken.NOTHING, why="Connection refused")
        assert ask(UnixPath(str(tmp_path / "none"))).why == "No such file or directory"
        assert "no address" in ask(HostPort("a..invalid", 80)).why

    @pytest.mark.usefixtures("impatient")
    def test_silence_ends_with_the_deadline(self, start: Start) -> None:
        """Also where a byte comes now and then."""
        dripping = threading.Event()

        def drip(sock: socket.socket) -> None:
            while not dripping.wait(0.05):
                sock.sendall(b"H")

        begin = time.monotonic()
        assert ask(start(silent)).spoken is Spoken.SILENCE
        address = start(drip)
        try:
            assert ask(address).spoken is Spoken.SILENCE
        finally:
            dripping.set()
        assert time.monotonic() - begin < 3

    @pytest.mark.usefixtures("impatient")
    def test_resolver_that_hangs_ends_with_the_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has no deadline of its own."""
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(10) and [])
        try:
            assert "resolver" in ask(HostPort("app", 80)).why
        finally:
            release.set()

    def test_all_waits_together_have_an_end(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are."""
        monkeypatch.setattr(looking, "TOTAL_SECONDS", 0.1)
        machine, begin = Machine(), time.monotonic()
        address = start(silent)
        for _ in range(10):
            machine.ask(address, b"", Spoken.HTTP, is_http=True)
        assert time.monotonic() - begin < 3


class TestClock:
    def test_date_is_read(self, start: Start) -> None:
        """Of any answer."""
        address = start(saying(b"HTTP/1.1 301 x\r\ndate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\r\n"))
        assert Machine().clock(address) == datetime(1994, 11, 15, 8, 12, 31, tzinfo=UTC)

    @pytest.mark.parametrize(
        "answer", [b"", HEAD + b"\r\n", b"date: tomorrow\r\n\r\n", b"HTTP/1.1 200\r\ndate: \xff\r\n\r\n"]
    )
    def test_server_without_a_date_tells_why(self, start: Start, answer: bytes) -> None:
        """It is no web server, or a modest one."""
        assert Machine().clock(start(saying(answer))) == "it is no web server, or sends no Date"

    def test_missing_server_is_told(self, closed: HostPort) -> None:
        """With the system's reason."""
        assert Machine().clock(closed) == "Connection refused"
