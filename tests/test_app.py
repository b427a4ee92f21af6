"""`app`: the composition, started in this process on ports of the kernel's choice, with a reactor turned by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.logger import LogEvent, globalLogPublisher

from sidecar import app as module
from sidecar.app import APP_LOOK_SECONDS, App, local_addresses
from sidecar.certs import selfsigned
from sidecar.config.load import Loaded, load
from sidecar.errors import ConfigError, ListenError, Problem
from sidecar.observe.metrics import Metrics
from sidecar.proxy.listener import listen
from sidecar.proxy.pool import Pool
from sidecar.settings import HostPort
from tests.support.certs import NOW, authority
from tests.support.handshake import client_context, outgoing
from tests.support.ports import FakeReactor, make_failure

FLAGS = {"listen": "127.0.0.1:8443", "admin": "127.0.0.1:8081", "access_log": "off", "lame_duck": "0"}
ROUTES = '[{"routes": [{"match": {"prefix": "%s"}, "cluster": "app"}]}]'


class Calendar:
    """The date, which a test can move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Program:
    """
    An app, its reactor and its calendar; listening sockets are bound to free ports, whatever was asked for.

    Attributes:
        wanted: The settings that a reload finds, beside `FLAGS`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reactor = FakeReactor()
        self.calendar = Calendar()
        self.apps: list[App] = []
        self.asked: list[HostPort] = []
        self.wanted: dict[str, str] = {}
        monkeypatch.setattr(module, "listen", self.listen_anywhere)
        monkeypatch.setattr(module, "local_addresses", lambda: ("192.0.2.7",))

    def listen_anywhere(self, address: HostPort) -> socket.socket:
        self.asked.append(address)
        return listen(HostPort("127.0.0.1", 0))

    def make(self, **flags: str) -> App:
        self.wanted = flags
        app = App(load({**FLAGS, **flags}, {}), self.reactor, self.calendar, reread=self.reread)
        self.apps.append(app)
        return app

    def reread(self) -> Loaded:
        return load({**FLAGS, **self.wanted}, {})

    def start(self, **flags: str) -> App:
        app = self.make(**flags)
        app.start()
        return app

    def turn(self) -> None:
        """Report input to everyone who wants it."""
        for reader in list(self.reactor.readers):
            if reader in self.reactor.readers:
                why = reader.doRead()
                if why is not None:
                    self.reactor.removeReader(reader)
                    reader.connectionLost(make_failure(why))
        self.reactor.turn()

    def close(self) -> None:
        for app in self.apps:
            for listener in app._listeners:
                listener.stop()
                app.force()
            app._close_pages()
        self.reactor.turn()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    program = Program(monkeypatch)
    monkeypatch.setattr(Pool, "connect_raw", lambda *arguments: None)  # there is no app to look for
    yield program
    program.close()


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def presented(program: Program, app: App) -> Any:
    """Shake hands over a socket; return the server's certificate."""
    address = app._listeners[0].address
    with socket.create_connection((address.host, address.port)) as sock:
        context = client_context()
        context.set_verify(SSL.VERIFY_NONE)  # OpenSSL looks at the real clock, and the test moves its own
        client = SSL.Connection(context, None)
        client.set_connect_state()
        program.turn()
        for _ in range(3):
            try:
                client.do_handshake()
            except SSL.WantReadError:
                pass
            data = outgoing(client)
            if data:
                sock.sendall(data)
            program.turn()
            sock.setblocking(False)
            try:
                client.bio_write(sock.recv(65_536))
            except BlockingIOError:
                pass
            sock.setblocking(True)
        certificate = client.get_peer_certificate(as_cryptography=True)
    program.turn()
    return certificate


def ask(program: Program, name: str, line: str) -> tuple[int, str]:
    """Ask the listener that the setting *name* is about; return status and body."""
    (app,) = program.apps
    pages = app._pages
    with socket.create_connection(pages[name]._socket.getsockname()) as client:
        client.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        program.turn()
        program.turn()
        data = b""
        while piece := client.recv(10_000):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


class TestWait:
    PATHS = (Path("/certs/tls.crt"),)

    def test_probes_are_answered_before_anything_is_served(self, program: Program) -> None:
        """Alive, so that nobody restarts it; not ready, and why."""
        app = program.make(health="127.0.0.1:8082")
        app.wait(self.PATHS)
        app.wait(self.PATHS)
        assert ask(program, "health", "GET /live")[0] == 200
        assert ask(program, "health", "GET /ready")[0] == 503
        assert "/certs/tls.crt" in ask(program, "admin", "GET /ready")[1]
        app.start()
        assert ask(program, "health", "GET /ready")[0] == 200
        assert len(program.asked) == 4  # that for TLS once more, to be told at once of a port that is taken

    def test_port_that_is_taken_is_told_at_once(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not only when the files have come; and nothing stays open."""

        def fail(address: HostPort) -> socket.socket:
            raise ListenError(f"{address} is taken", "free it")

        monkeypatch.setattr(module, "listen", fail)
        with pytest.raises(ConfigError) as caught:
            program.make().wait(self.PATHS)
        assert len(caught.value.problems) == 2
        assert not program.reactor.readers

    def test_drain_gives_up(self, program: Program) -> None:
        """As a signal does."""
        program.make().wait(self.PATHS)
        assert ask(program, "admin", "POST /drain")[0] == 202
        program.reactor.advance(0.1)
        assert program.reactor.is_stopped


class TestStart:
    def test_both_listeners_serve(self, program: Program) -> None:
        """TLS where it was asked for, and the admin pages beside it."""
        app = program.start()
        assert program.asked == [HostPort("127.0.0.1", 8443), HostPort("127.0.0.1", 8081)]
        assert {type(reader).__name__ for reader in program.reactor.readers} == {"Listener", "AdminListener"}
        assert presented(program, app) == app._credentials.bundles[0].leaf

    def test_admin_may_be_off(self, program: Program) -> None:
        """Then nothing listens for it."""
        program.start(admin="off")
        assert len(program.asked) == 1

    def test_files_are_served(self, program: Program, tmp_path: Path) -> None:
        """A certificate from files needs no renewal of ours."""
        issued = authority().issue("localhost")
        issued.write(tmp_path)
        app = program.start(tls_cert=str(tmp_path / "tls.crt"), tls_key=str(tmp_path / "tls.key"))
        assert app._credentials.bundles[0].leaf == issued.certificate
        assert [served.source for served in app.console.certificates().served] == [str(tmp_path / "tls.crt")]
        assert "renewal" not in app._calls

    def test_all_problems_come_at_once(self, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A missing certificate does not hide a taken port; each names its setting and source."""
        with listen(HostPort("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            monkeypatch.setattr(module, "listen", listen)
            app = program.make(
                listen=f"127.0.0.1:{port}", admin=f"127.0.0.1:{port}", tls_cert=str(tmp_path / "none.crt")
            )
            with pytest.raises(ConfigError) as caught:
                app.start()
        assert [problem.setting for problem in caught.value.problems] == ["--tls-cert", "--listen", "--admin"]
        assert not program.reactor.readers

    def test_failed_start_leaves_nothing_open(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        """A socket that was opened before the problem is closed, and nothing is left on the clock."""
        with listen(HostPort("127.0.0.1", 0)) as taken:
            sockets: list[socket.socket] = []

            def first_only(address: HostPort) -> socket.socket:
                if sockets:
                    return listen(HostPort("127.0.0.1", taken.getsockname()[1]))
                sockets.append(listen(HostPort("127.0.0.1", 0)))
                return sockets[0]

            monkeypatch.setattr(module, "listen", first_only)
            with pytest.raises(ConfigError):
                program.make().start()
        assert sockets[0].fileno() == -1
        assert not program.reactor.pending


class TestEphemeralCertificate:
    def test_it_is_announced_with_its_names(self, program: Program, log: list[LogEvent]) -> None:
        """One warning says that clients cannot know who we are, and what helps."""
        app = program.start(tls_names="app.example")
        (warning,) = [event for event in log if "made one in memory" in event["log_format"]]
        assert "app.example" in warning["names"]
        assert "192.0.2.7" in warning["names"]
        assert [served.source for served in app.console.certificates().served] == ["ephemeral"]

    def test_renewal_is_for_newcomers(self, program: Program) -> None:
        """Before it expires a new one takes its place: listener, admin page and metrics show it."""
        app = program.start()
        first = app._credentials.bundles[0].leaf
        wait = selfsigned.renew_at(app._credentials.bundles[0]) - program.calendar.now
        program.calendar.now += wait
        program.reactor.advance(wait.total_seconds())
        renewed = app._credentials.bundles[0].leaf
        assert renewed != first
        assert renewed.not_valid_after_utc > first.not_valid_after_utc
        assert presented(program, app) == renewed
        shown = app.console.certificates()
        assert shown.served[0].leaf.serial == f"{renewed.serial_number:x}"
        assert shown.pem == renewed.public_bytes(Encoding.PEM)
        assert [serial for _, _, serial in shown.not_after()] == [f"{renewed.serial_number:x}"]
        assert program.reactor.pending

    def test_next_renewal_is_planned(self, program: Program) -> None:
        """A process that runs for months renews again and again."""
        app = program.start()
        seen = {app._credentials.bundles[0].leaf.serial_number}
        for _ in range(3):
            wait = selfsigned.renew_at(app._credentials.bundles[0]) - program.calendar.now
            program.calendar.now += wait
            program.reactor.advance(wait.total_seconds())
            seen.add(app._credentials.bundles[0].leaf.serial_number)
        assert len(seen) == 4

    def test_time_of_day_that_is_set_forward_is_noticed(self, program: Program) -> None:
        """Timers go on as they were; what has run out meanwhile is replaced at the next look."""
        app = program.start()
        first = app._credentials.bundles[0].leaf
        program.reactor.advance(selfsigned.LOOK_SECONDS)
        assert app._credentials.bundles[0].leaf == first
        program.calendar.now += selfsigned.LIFETIME
        program.reactor.advance(selfsigned.LOOK_SECONDS)
        assert app._credentials.bundles[0].leaf != first

    def test_renewal_that_failed_once_is_followed_by_others(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What kept it from being served, other key material, may be mended; then it goes on as before."""
        app = program.start()
        first = app._credentials.bundles[0].leaf
        load, problems = app._load, [Problem("--tls-key", "flag", "it is not there", "put it there")]

        def refuse(loaded: Loaded) -> Any:
            load(loaded)
            raise ConfigError(problems)

        monkeypatch.setattr(app, "_load", refuse)
        program.calendar.now += selfsigned.LIFETIME
        program.reactor.advance(selfsigned.LOOK_SECONDS)
        assert app._credentials.bundles[0].leaf == first
        monkeypatch.setattr(app, "_load", load)
        program.reactor.advance(module.RENEWAL_RETRY_SECONDS)
        second = app._credentials.bundles[0].leaf
        assert second != first
        program.calendar.now += selfsigned.LIFETIME
        program.reactor.advance(selfsigned.LOOK_SECONDS)
        assert app._credentials.bundles[0].leaf not in (first, second)


class TestReload:
    def reload(self, program: Program, app: App, monkeypatch: pytest.MonkeyPatch, **flags: str) -> list[str]:
        """Put other settings in force; return the names of the listeners whose clients are looked at again."""
        judged: list[str] = []
        for listener in app._listeners:
            monkeypatch.setattr(listener, "judge_all_again", lambda name=listener.approach.name: judged.append(name))
        program.wanted = flags
        assert app.reload() == ()
        return judged

    @pytest.mark.parametrize(
        ("recheck", "looked_at"), [("on", ["main", "redirect"]), ("off", [])], ids=["recheck", "none"]
    )
    def test_new_routes_make_clients_be_judged_again(
        self, program: Program, monkeypatch: pytest.MonkeyPatch, recheck: str, looked_at: list[str]
    ) -> None:
        """An upgraded connection asks no further question: the route that it was made on may be closed to it now."""
        flags = {"http_redirect": "127.0.0.1:8080", "upstream": "127.0.0.1:9", "recheck": recheck}
        app = program.start(**flags, virtual_hosts=ROUTES % "/a")
        assert self.reload(program, app, monkeypatch, **flags, virtual_hosts=ROUTES % "/b") == looked_at

    def test_nobody_is_judged_again_for_what_is_about_nobody(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A verification costs time, and there may be thousands of clients."""
        app = program.start(virtual_hosts=ROUTES % "/a")
        assert self.reload(program, app, monkeypatch, virtual_hosts=ROUTES % "/a", idle_timeout="99s") == []
        assert app._listeners[0].service.timeouts.idle == 99


class TestConsole:
    def test_ready_after_start(self, program: Program) -> None:
        """With a valid certificate, an app that nobody missed yet and no drain there is nothing against traffic."""
        app = program.start()
        assert app.console.readiness().reasons == ()
        assert Metrics.load(app.console.figures()).ready == 1

    def test_expired_certificate_is_not_ready(self, program: Program, tmp_path: Path) -> None:
        """Nobody could use it."""
        authority().issue("localhost", not_after=NOW + timedelta(days=1)).write(tmp_path)
        app = program.start(tls_cert=str(tmp_path))
        program.calendar.now += timedelta(days=2)
        (reason,) = app.console.readiness().reasons
        assert reason.startswith("a certificate has expired: CN=localhost, ")
        assert Metrics.load(app.console.figures()).ready == 0

    def test_app_that_is_away_is_looked_for(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not ready, it gets no request that would find the app again; while the app is there, nobody asks for it."""
        app = program.start()
        looked: list[object] = []
        pool = app._clusters["app"].endpoints[0].pool
        monkeypatch.setattr(pool, "connect_raw", lambda *arguments: looked.append(arguments))
        pool.statistics.connects = 1
        program.reactor.advance(APP_LOOK_SECONDS)
        assert looked == []
        pool.statistics.last_error = "refused"
        (reason,) = app.console.readiness().reasons
        assert reason == "the app cannot be reached: refused"
        program.reactor.pump([APP_LOOK_SECONDS, APP_LOOK_SECONDS])
        assert len(looked) == 2

    def test_app_that_nobody_has_asked_yet_is_looked_for(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrong port makes the program unready before it costs a request; once there was a connection, that is it."""
        app = program.start()
        looked: list[object] = []
        pool = app._clusters["app"].endpoints[0].pool
        monkeypatch.setattr(pool, "connect_raw", lambda *arguments: looked.append(arguments))
        program.reactor.pump([APP_LOOK_SECONDS, APP_LOOK_SECONDS])
        assert len(looked) == 2
        pool.statistics.connects = 1
        program.reactor.advance(APP_LOOK_SECONDS)
        assert len(looked) == 2

    def test_admin_pages_show_it(self, program: Program) -> None:
        """The endpoint is connected to this very program."""
        program.start()
        status, body = ask(program, "admin", "GET /ready")
        assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
        status, body = ask(program, "admin", "GET /config")
        assert status == 200
        assert "listen: 127.0.0.1:8443 " in body

    def test_health_listener_has_two_pages(self, program: Program) -> None:
        """Others than operators can reach it."""
        program.start(health="127.0.0.1:8082", admin="off")
        assert ask(program, "health", "GET /live") == (200, "live\n")
        assert ask(program, "health", "GET /ready")[0] == 200
        assert ask(program, "health", "GET /config")[0] == 404
        assert ask(program, "health", "POST /drain")[0] == 404

    def test_drain_is_asked_for_and_answered(self, program: Program) -> None:
        """The answer goes out before the end, which stops the process."""
        program.start()
        status, body = ask(program, "admin", "POST /drain")
        assert (status, body.partition(":")[0]) == (202, "Draining")
        assert program.reactor.is_stopped
        assert not program.reactor.readers
        assert not program.reactor.pending


class TestDrain:
    def test_nothing_in_flight_stops_at_once(self, program: Program) -> None:
        """All is closed, and nothing is left on the clock."""
        app, stopped = program.start(), []
        app.drain(stopped.append)
        program.turn()
        assert stopped == [0]
        assert not program.reactor.readers
        assert not program.reactor.pending
        assert app.console.readiness().reasons == ("draining",)

    def test_admin_answers_while_draining(self, program: Program) -> None:
        """A load balancer must be able to see it."""
        app, stopped = program.start(), []
        address = app._listeners[0].address
        with socket.create_connection((address.host, address.port)) as client:
            program.turn()
            client.sendall(b"\x16")
            program.turn()
            app.drain(stopped.append)
            assert stopped == []
            assert ask(program, "admin", "GET /ready")[0] == 503
            assert ask(program, "admin", "GET /live")[0] == 200
        program.turn()
        program.reactor.advance(0.1)
        assert stopped == [0]

    def test_lame_duck_of_a_container_leaves_half_of_the_time(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Five seconds that nobody asked for must not be all there is for finishing requests."""
        monkeypatch.setattr(module, "is_in_container", lambda *arguments: True)
        app = program.start(drain_timeout="4", lame_duck="auto")
        app.drain(lambda cut: None)
        program.reactor.advance(1.9)
        assert app._listeners[0]._is_accepting
        program.reactor.advance(0.2)
        assert not app._listeners[0]._is_accepting

    def test_deadline_cuts(self, program: Program) -> None:
        """The drain timeout is the most that it takes; what had nothing in flight is not counted."""
        app, stopped = program.start(drain_timeout="1"), []
        address = app._listeners[0].address
        with socket.create_connection((address.host, address.port)) as client:
            program.turn()
            client.sendall(b"\x16")
            program.turn()
            app.drain(stopped.append)
            program.reactor.pump([0.05] * 18)
            assert stopped == []
            program.reactor.pump([0.05] * 4)
            assert stopped == [0]

    def test_force_does_not_wait(self, program: Program, log: list[LogEvent]) -> None:
        """A second signal cuts at once, and the end is told once."""
        app, stopped = program.start(), []
        address = app._listeners[0].address
        with socket.create_connection((address.host, address.port)) as client:
            program.turn()
            client.sendall(b"\x16")
            program.turn()
            app.drain(stopped.append)
            app.force()
            assert stopped == [0]
            program.reactor.pump([0.05] * 5)
        assert stopped == [0]
        assert len([event for event in log if event["log_format"].startswith("stopped")]) == 1


class TestLocalAddresses:
    def test_addresses_are_this_machines(self) -> None:
        """Whatever it finds is an address, and a machine without network has none."""
        for address in local_addresses():
            assert socket.getaddrinfo(address, 1, flags=socket.AI_NUMERICHOST)
