"""
Ensures that in raw TCP mode whatever is inside TLS passes byte for byte, here Redis and apps that speak nothing known;
that who may come in is decided in the handshake and after it; and that no tunnel is cut without need.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.wire.proxyproto import Parsed, parse
from tests.scenarios.clients import (
    HalfClosingClient,
    HttpsClient,
    client_context,
    openssl,
    plain_socket,
    root_file,
    s_client,
    write_identity,
)
from tests.scenarios.conftest import Launch
from tests.support.apps import RawApp, pattern, pattern_sha256
from tests.support.certs import CLIENT, authority, other_authority
from tests.support.program import Neighbour, Port, Program, eventually, installed

MIB = 1024 * 1024
VALUE_BYTES = 50_000_000
LARGE_BYTES = 64 * MIB

STUCK_SECONDS = 1.0
"""A sender that is not relieved of a byte for so long is stuck."""

CUT = (ssl.SSLEOFError, ConnectionResetError, BrokenPipeError)


# -- apps --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """A Redis, which keeps nothing."""
    directory = tmp_path_factory.mktemp("redis")
    with Port() as port:
        options = ("--bind", port.host, "--port", str(port.number), "--dir", str(directory))
        with Neighbour(directory, port, "redis-server", *options, "--save", "", "--appendonly", "no"):
            yield port


@contextmanager
def raw(talk: Callable[[socket.socket], object]) -> Iterator[RawApp]:
    """Run an app that does *talk* with each connection."""
    with RawApp(talk) as app:
        yield app


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65_536):
        sock.sendall(data)


@pytest.fixture(scope="module")
def echo_app() -> Iterator[RawApp]:
    with raw(echo) as app:
        yield app


# -- clients -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of clients with their keys: right.pem, and wrong.pem of a CA that is not trusted."""
    directory = tmp_path_factory.mktemp("files")
    write_identity(authority().issue("alice", purposes=CLIENT), directory / "right.pem")
    write_identity(other_authority().issue("mallory", purposes=CLIENT), directory / "wrong.pem")
    (directory / "ca.crt").write_bytes(authority().cert_pem)
    return directory


def demanding(files: Path) -> dict[str, str]:
    """Settings that demand a certificate."""
    return {"client_cert": "required", "client_ca": str(files / "ca.crt")}


def redis_cli(program: Program, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run Redis' own client through the sidecar."""
    to = ("-h", "localhost", "-p", str(program.port), "--tls", "--sni", "localhost")
    command = [installed("redis-cli"), *to, "--cacert", str(root_file(program)), *arguments]
    return subprocess.run(command, capture_output=True, timeout=60.0, **options)


def tunnel_line(program: Program) -> dict[str, Any]:
    """Wait for the one line that a tunnel leaves in the access log."""
    eventually(lambda: bool(program.access_log()), "the tunnel is in the access log")
    [line] = program.access_log()
    return line


# -- tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["server only", "mutual"])
def tunnel(
    request: pytest.FixtureRequest, redis: Port, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Program, tuple[str, ...]]]:
    """A sidecar in front of Redis, and what redis-cli is told of certificates."""
    is_mutual = request.param == "mutual"
    settings = demanding(files) if is_mutual else {}
    identity = ("--cert", str(files / "right.pem"), "--key", str(files / "right.pem")) if is_mutual else ()
    directory = tmp_path_factory.mktemp("sidecar")
    with Program(directory, upstream=f"http://{redis}", mode="tcp", **settings) as program:
        yield program, identity


class TestRedis:
    def test_its_own_client_works(self, tunnel: tuple[Program, tuple[str, ...]]) -> None:
        """Commands and answers pass; the log has one line for all of the connection."""
        program, identity = tunnel
        before = len(program.access_log())
        assert redis_cli(program, *identity, "SET", "greeting", "hello").stdout == b"OK\n"
        assert redis_cli(program, *identity, "GET", "greeting").stdout == b"hello\n"
        eventually(lambda: len(program.access_log()) == before + 2, "each connection has its line")
        line = program.access_log()[-1]

        assert (line["protocol"], line["status"]) == ("tcp", 0)
        assert line["reason"] == "closed_without_notify"  # as redis-cli does
        assert line["bytes_received"] > 0 < line["bytes_sent"]
        assert line.get("client_subject") == ("CN=alice" if identity else None)

    def test_large_value_is_the_same_both_ways(self, tunnel: tuple[Program, tuple[str, ...]]) -> None:
        """50 MB pass byte for byte to Redis, and back."""
        program, identity = tunnel
        stored = redis_cli(program, *identity, "-x", "SET", "large", input=b"".join(pattern(VALUE_BYTES)))
        assert stored.stdout == b"OK\n"
        found = redis_cli(program, *identity, "--raw", "GET", "large").stdout

        assert len(found) == VALUE_BYTES + 1  # redis-cli ends it with a line feed
        assert hashlib.sha256(found[:-1]).hexdigest() == pattern_sha256(VALUE_BYTES)


@pytest.fixture(scope="module")
def strict(echo_app: RawApp, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar that demands certificates."""
    directory = tmp_path_factory.mktemp("sidecar")
    with Program(directory, upstream=echo_app.upstream, mode="tcp", **demanding(files)) as running:
        yield running


class TestHandshake:
    @pytest.mark.parametrize(
        ("version", "identity", "alert"),
        [
            ("-tls1_2", None, "alert handshake failure"),
            ("-tls1_3", None, "alert certificate required"),
            ("-tls1_2", "wrong.pem", "alert unknown ca"),
            ("-tls1_3", "wrong.pem", "alert unknown ca"),
        ],
    )
    def test_refused_client_gets_an_alert(
        self, strict: Program, echo_app: RawApp, files: Path, version: str, identity: str | None, alert: str
    ) -> None:
        """Without HTTP there is no other way to say it; the app never hears of such a client."""
        before = echo_app.connection_count
        shown = () if identity is None else ("-cert", str(files / identity), "-key", str(files / identity))
        done = s_client(strict, version, *shown, input=b"let me in\n")

        assert done.returncode != 0
        assert alert in done.stderr
        assert "let me in" not in done.stdout
        assert echo_app.connection_count == before

    def test_accepted_client_speaks_with_the_app(self, strict: Program, files: Path) -> None:
        """One that shows a certificate of a trusted CA, in both versions of TLS."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(version=version, identity=files / "right.pem")
            with HttpsClient(strict, context=context) as client:
                client.send(b"\x00not HTTP")
                assert client.read(9) == b"\x00not HTTP"

    def test_protocol_is_agreed_on_as_told(self, launch: Launch, echo_app: RawApp) -> None:
        """SIDECAR_ALPN: the first of ours that the client offers; who offers none of them is not served."""
        program = launch(upstream=echo_app.upstream, mode="tcp", alpn="h2,mqtt")
        context = client_context()
        context.set_alpn_protocols(["mqtt", "h2"])
        with HttpsClient(program, context=context) as client:
            assert client.socket.selected_alpn_protocol() == "h2"
        with pytest.raises(ssl.SSLError, match=r"(?i)no application protocol"):
            HttpsClient(program)  # offers http/1.1


class TestHalfClose:
    def test_app_answers_a_client_that_has_ended(self, launch: Launch) -> None:
        """close_notify of the client ends what the app reads, and nothing else."""

        def answer(sock: socket.socket) -> None:
            sock.sendall(hashlib.sha256(read_to_end(sock)).hexdigest().encode() + b";")

        with raw(answer) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            with HalfClosingClient(program) as client:
                for piece in pattern(3 * MIB):
                    client.send(piece)
                client.end()
                digest = client.read_until(b";")

            assert digest.decode() == pattern_sha256(3 * MIB) + ";"
            assert "reason" not in tunnel_line(program)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_client_that_says_all_at_once_is_heard(self, launch: Launch, version: ssl.TLSVersion) -> None:
        """What comes with the end of the handshake, and an end behind it, waits for the app's connection."""
        heard = []
        with raw(lambda sock: heard.append(read_to_end(sock))) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context(version=version).wrap_bio(incoming, outgoing, server_hostname="localhost")
            with plain_socket(program) as sock:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        incoming.write(sock.recv(65_536))
                tls.write(b"all at once")
                with suppress(ssl.SSLWantReadError):  # it would wait for the other side's
                    tls.unwrap()
                sock.sendall(outgoing.read())
                eventually(lambda: heard == [b"all at once"], "the app has heard it")

    def test_client_answers_an_app_that_has_ended(self, launch: Launch) -> None:
        """The end of the app reaches the client as close_notify; what it still says reaches the app, to its end."""
        heard = []

        def greet(sock: socket.socket) -> None:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            heard.append(read_to_end(sock))

        with raw(greet) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            with HttpsClient(program) as client:
                assert client.read_to_end() == b"hello"
                client.send(b"last words")
                client.socket.unwrap()
            eventually(lambda: heard == [b"last words"], "the app has heard them")
            assert "reason" not in tunnel_line(program)

    def test_openssl_that_says_its_piece_and_goes_is_heard(self, launch: Launch) -> None:
        """s_client sends what it is given and leaves; the app gets it whole."""
        heard = []
        with raw(lambda sock: heard.append(read_to_end(sock))) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            to = ("-connect", f"{program.host}:{program.port}", "-CAfile", str(root_file(program)))
            openssl("s_client", *to, "-quiet", "-no_ign_eof", input=b"a line\n")
            eventually(lambda: heard == [b"a line\n"], "the app has heard it")

    def test_openssl_waits_for_the_end_of_the_app(self, launch: Launch) -> None:
        """With -ign_eof it stays until the app ends, and has read all of it."""
        with raw(lambda sock: sock.sendall(b"".join(pattern(MIB)))) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            done = s_client(program, "-quiet", input=b"")

        assert hashlib.sha256(done.stdout.encode("latin-1")).hexdigest() == pattern_sha256(MIB)
        assert done.returncode == 0

    def test_app_that_breaks_off_cuts_the_client(self, launch: Launch) -> None:
        """A reset of the app must not look like its end."""

        def break_off(sock: socket.socket) -> None:
            sock.sendall(b"half")
            sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        with raw(break_off) as app:
            program = launch(upstream=app.upstream, mode="tcp")
            with HttpsClient(program) as client:
                assert client.read(4) == b"half"
                client.send(b".")
                with pytest.raises(CUT):
                    client.read_to_end()
            assert tunnel_line(program)["reason"] == "upstream_reset"


class Stuck:
    """
    Sends `LARGE_BYTES` on connections until nobody takes any more, and the rest once it is released.

    Attributes:
        count: Connections on which it is stuck.
    """

    def __init__(self) -> None:
        self.count = 0
        self._released = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, sock: socket.socket) -> None:
        sock.settimeout(STUCK_SECONDS)
        for piece in pattern(LARGE_BYTES):
            self._send(sock, piece)

    def _send(self, sock: socket.socket, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[sock.send(piece) :]
            except TimeoutError:
                with self._lock:
                    self.count += 1
                self._released.wait()
                sock.settimeout(30.0)

    def release(self) -> None:
        self._released.set()


def take_little(sock: socket.socket) -> None:
    """Keep the kernel from taking tens of megabytes for whoever reads from *sock*."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)


class TestBounds:
    def test_readers_that_do_not_read_cost_little(self, launch: Launch) -> None:
        """Five clients that take nothing of 64 MiB cost less than 8 MiB together, and get all of it in the end."""
        stuck = Stuck()
        with raw(stuck) as app, ExitStack() as stack:
            stack.callback(stuck.release)
            program = launch(upstream=app.upstream, mode="tcp")
            before = program.resident_bytes()
            clients = [stack.enter_context(HttpsClient(program)) for _ in range(5)]
            for client in clients:
                take_little(client.socket)
            eventually(lambda: stuck.count == len(clients), "each is stuck", 30.0)
            grown = program.resident_bytes() - before
            stuck.release()
            received = clients[0].read_to_end()

        assert grown < 8 * MIB
        assert hashlib.sha256(received).hexdigest() == pattern_sha256(LARGE_BYTES)

    def test_apps_that_do_not_read_cost_little(self, launch: Launch) -> None:
        """The same the other way round."""
        digests: list[str] = []
        may_read = threading.Event()

        def read_late(sock: socket.socket) -> None:
            take_little(sock)
            may_read.wait()
            digests.append(hashlib.sha256(read_to_end(sock)).hexdigest())

        stuck = Stuck()
        with raw(read_late) as app, ExitStack() as stack:
            stack.callback(may_read.set)
            program = launch(upstream=app.upstream, mode="tcp")
            before = program.resident_bytes()
            with HttpsClient(program) as client:
                sender = threading.Thread(target=stuck, args=(client.socket,))
                sender.start()
                eventually(lambda: stuck.count == 1, "it is stuck", 30.0)
                grown = program.resident_bytes() - before
                may_read.set()
                stuck.release()
                sender.join()
                client.socket.unwrap()
            eventually(lambda: bool(digests), "the app has read all of it", 30.0)

        assert grown < 4 * MIB
        assert digests == [pattern_sha256(LARGE_BYTES)]

    def test_silence_ends_a_tunnel(self, launch: Launch, echo_app: RawApp) -> None:
        """SIDECAR_TCP_IDLE_TIMEOUT without a byte of either side; the log says so."""
        program = launch(upstream=echo_app.upstream, mode="tcp", tcp_idle_timeout="300ms")
        with HttpsClient(program) as client:
            client.send(b"ping")
            assert client.read(4) == b"ping"
            with pytest.raises(CUT):
                client.read_to_end()

        assert tunnel_line(program)["reason"] == "idle_timeout"

    def test_two_hundred_tunnels_do_not_mix(self, launch: Launch, echo_app: RawApp) -> None:
        """Each gets its own bytes back; once they have gone, so have their descriptors."""
        program = launch(upstream=echo_app.upstream, mode="tcp", access_log="off")
        before = len(program.descriptors())
        with ExitStack() as stack:
            clients = [stack.enter_context(HttpsClient(program)) for _ in range(200)]
            for number, client in enumerate(clients):
                client.send(b"%06d" % number * 1000)
            answers = [client.read(6000) for client in clients]
            active = program.metric("downstream_connections_active")

        assert answers == [b"%06d" % number * 1000 for number in range(200)]
        assert active == 200
        eventually(lambda: len(program.descriptors()) <= before, "all descriptors are back")

    def test_app_that_is_not_there_is_told_to_operators(self, launch: Launch) -> None:
        """The client's connection ends, and the log says why."""
        with Port() as nobody:
            program = launch(upstream=f"http://{nobody}", mode="tcp")
            with HttpsClient(program) as client, pytest.raises(CUT):
                client.read_to_end()
            line = tunnel_line(program)

        assert line["reason"] == "upstream_not_started"
        assert str(nobody) in line["detail"]

    def test_app_is_told_of_the_client(self, launch: Launch, files: Path) -> None:
        """SIDECAR_UPSTREAM_PROXY_PROTOCOL: address, name and version of TLS come ahead of the client's bytes."""
        heard: list[bytes] = []
        with raw(lambda sock: heard.append(read_to_end(sock))) as app:
            program = launch(
                upstream=app.upstream, mode="tcp", upstream_proxy_protocol="v2", alpn="http/1.1", **demanding(files)
            )
            with HttpsClient(program, context=client_context(identity=files / "right.pem")) as client:
                port = client.socket.getsockname()[1]
                client.send(b"and so on")
                client.socket.unwrap()
            eventually(lambda: bool(heard), "the app has heard it")
        parsed = parse(heard[0])

        assert isinstance(parsed, Parsed)
        assert heard[0][parsed.size :] == b"and so on"
        header = parsed.header
        assert header.source is not None
        assert (header.source.host, header.source.port) == ("127.0.0.1", port)
        assert (header.authority, header.alpn) == ("localhost", b"http/1.1")
        assert header.ssl is not None
        assert (header.ssl.common_name, header.ssl.version) == ("alice", "TLSv1.3")


class TestDrain:
    def test_open_tunnel_goes_on_until_it_ends(self, launch: Launch, echo_app: RawApp) -> None:
        """After SIGTERM nobody new is let in; who is in goes on, and the program ends with the last one."""
        program = launch(upstream=echo_app.upstream, mode="tcp", drain_timeout="20s")
        with HttpsClient(program) as client:
            client.send(b"before")
            assert client.read(6) == b"before"
            program.signal()
            eventually(lambda: "draining for" in program.stderr, "it drains")
            with pytest.raises(ConnectionRefusedError):
                HttpsClient(program)
            client.send(b"after")
            assert client.read(5) == b"after"
            assert program.is_running
            client.socket.unwrap()

        assert program.wait(5.0) == 0
        assert "reason" not in tunnel_line(program)

    def test_drain_timeout_cuts_what_does_not_end(self, launch: Launch, echo_app: RawApp) -> None:
        """Bounded; the log says why the tunnel was cut, and the exit is a good one."""
        program = launch(upstream=echo_app.upstream, mode="tcp", drain_timeout="500ms")
        with HttpsClient(program) as client:
            client.send(b"before")
            assert client.read(6) == b"before"
            program.signal()
            with pytest.raises(CUT):
                client.read_to_end()

        assert program.wait(5.0) == 0
        assert tunnel_line(program)["reason"] == "drain_timeout"
        assert "exchanges cut: 1" in program.stderr


class TestReload:
    def test_client_that_may_not_come_in_any_more_is_cut(
        self, launch: Launch, echo_app: RawApp, files: Path, tmp_path: Path
    ) -> None:
        """When its CA is trusted no longer; the tunnels of others go on."""
        trusted = tmp_path / "ca.crt"
        trusted.write_bytes(authority().cert_pem + other_authority().cert_pem)
        program = launch(
            upstream=echo_app.upstream,
            mode="tcp",
            client_cert="required",
            client_ca=str(trusted),
            reload_interval="100ms",
        )
        stays, goes = (client_context(identity=files / name) for name in ("right.pem", "wrong.pem"))
        with HttpsClient(program, context=stays) as one, HttpsClient(program, context=goes) as other:
            for client in (one, other):
                client.send(b"before")
                assert client.read(6) == b"before"
            trusted.write_bytes(authority().cert_pem)
            with pytest.raises(CUT):
                other.read_to_end()
            one.send(b"after")
            assert one.read(5) == b"after"
        eventually(lambda: len(program.access_log()) == 2, "both are in the log")

        assert program.access_log()[0]["reason"] == "client_certificate_invalid"
        assert program.access_log()[0]["client_unverified_subject"] == "CN=mallory"
