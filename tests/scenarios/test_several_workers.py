"""
Ensures that several workers look like one program: none is missed when it dies or is replaced, signals reach all of
them, and the admin pages tell the truth about all of them together.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient, client_context, request
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import authority
from tests.support.program import Port, Program, eventually, run_to_end

ROLLS = 10
NEW, KEPT = 2, 2
"""Clients with a new connection for each request, and on one that they keep."""


class Load:
    """Clients that ask without a pause, and count what they were answered."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.failures: list[Exception] = []
        self.statuses: collections.Counter[int] = collections.Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(self._renew,)) for _ in range(NEW)]
        self._threads += [threading.Thread(target=self._run, args=(self._keep,)) for _ in range(KEPT)]

    @property
    def requests(self) -> int:
        return self.statuses.total()

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(30.0)

    def go_on(self, count: int) -> None:
        """Wait for *count* more answers."""
        wanted = self.requests + count
        eventually(lambda: self.requests >= wanted, f"{count} more requests are answered")

    def _run(self, ask: Callable[[], None]) -> None:
        while not self._ended.is_set():
            try:
                ask()
            except (OSError, AssertionError) as failure:  # judged by the test
                self.failures.append(failure)

    def _keep(self) -> None:
        with HttpsClient(self.program) as client:
            while not self._ended.is_set():
                if self._ask(client) == ["close"]:
                    break

    def _renew(self) -> None:
        with HttpsClient(self.program) as client:
            self._ask(client)

    def _ask(self, client: HttpsClient) -> list[str]:
        response = client.get("/hello")
        with self._lock:
            self.statuses[response.status] += 1
        return response.values("connection")


def workers(program: Program) -> list[int]:
    """Return the process ids of its workers."""
    return [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


def is_full(program: Program) -> bool:
    """Whether two workers serve, and nothing is wrong with them."""
    status, body = program.admin("/ready?verbose")
    checks = {check["name"]: check for check in json.loads(body)["checks"]}
    return status == 200 and checks["workers"]["state"] == "ok" and len(workers(program)) == 2


def samples(program: Program, name: str) -> dict[str, float]:
    """Return the values of a metric by its labels, as they are written."""
    lines = [line.rpartition(" ") for line in program.admin("/stats/prometheus")[1].decode().splitlines()]
    return {
        sample.partition("{")[2].rstrip("}"): float(value)
        for sample, _, value in lines
        if sample.partition("{")[0] == f"sidecar_{name}"
    }


def directory(parent: Path) -> Path:
    """Make one for a certificate."""
    made = parent / "certs"
    made.mkdir()
    return made


@pytest.fixture
def pair(launch: Launch, app: App) -> Program:
    """A sidecar with two workers, both of which serve."""
    program = launch(upstream=app.upstream, workers="2")
    eventually(lambda: is_full(program), "both workers serve")
    return program


class TestDeath:
    def test_killed_worker_costs_only_its_own_connections(self, pair: Program) -> None:
        """Each client loses at most its connection of that moment, and service is back within a second."""
        load = Load(pair)
        with load.running():
            load.go_on(100)
            os.kill(workers(pair)[0], signal.SIGKILL)
            killed_at = time.monotonic()
            with HttpsClient(pair) as client:
                assert client.get("/hello").status == 200
            assert time.monotonic() - killed_at < 1.0
            eventually(lambda: is_full(pair), "the dead worker is replaced")
            load.go_on(100)

        assert len(load.failures) <= NEW + KEPT
        assert set(load.statuses) == {200}
        assert "was ended by SIGKILL" in pair.stderr

    def test_service_comes_back_when_all_have_died(self, pair: Program) -> None:
        """Connections wait in the listening socket for the next worker; none is refused."""
        for pid in workers(pair):
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        with HttpsClient(pair) as client:
            assert client.get("/hello").status == 200
        assert time.monotonic() - killed_at < 2.0

    def test_counters_never_go_back(self, pair: Program) -> None:
        """What a killed worker has been seen to count is kept."""
        for _ in range(20):
            with HttpsClient(pair) as client:
                client.get("/hello")
        before = samples(pair, "requests_total")
        for pid in workers(pair):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: is_full(pair), "the dead workers are replaced")

        assert samples(pair, "requests_total") == before == {"": 20}

    def test_workers_outlive_a_killed_supervisor_only_for_what_is_in_flight(self, tmp_path: Path, own_app: App) -> None:
        """A request in flight is answered, then nobody listens any more, and no process is left."""
        program = Program(tmp_path / "sidecar", upstream=own_app.upstream, workers="2", exit_status=-signal.SIGKILL)
        with program, HttpsClient(program) as client:
            eventually(lambda: is_full(program), "both workers serve")
            left = workers(program)
            client.send(request("/held"))
            eventually(lambda: bool(own_app.requests), "the app has the request")
            program.signal(signal.SIGKILL)
            program.wait()
            eventually(lambda: "the supervisor has gone" in program.stderr, "the workers know")
            own_app.gate.set()

            assert client.response().status == 200
            eventually(lambda: not any(map(is_alive, left)), "the workers have ended")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((program.host, program.port), 5)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but that nobody has taken leave of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def held_by(pid: int, program: Program) -> int:
    """Return how many clients' connections a process holds."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{line[9]}]" for line in lines if line[3] == "01" and line[1].endswith(f":{program.port:04X}")}
    return sum(os.readlink(file) in ours for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink())


class TestSharing:
    def test_newcomers_go_to_whoever_has_fewest(self, pair: Program) -> None:
        """Clients that stay are shared out, those of a worker that has come later included."""
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                for _ in range(20):
                    stack.enter_context(HttpsClient(pair)).get("/hello")
                counts = [held_by(pid, pair) for pid in workers(pair)]
                assert min(counts) >= 5, counts
                os.kill(workers(pair)[0], signal.SIGKILL)
                eventually(lambda: is_full(pair), "the dead worker is replaced")


class TestSettings:
    @pytest.mark.parametrize(
        "edited",
        [
            pytest.param("upstream: 127.0.0.1:1\nclient_cert: required\n", id="other settings"),
            pytest.param("upstream: [\n", id="settings that cannot work"),
        ],
    )
    def test_replaced_workers_have_what_is_in_force(
        self, launch: Launch, app: App, tmp_path: Path, edited: str
    ) -> None:
        """Nobody has put in force what a file says by now: it changes nothing, one worker or all being new."""
        file = tmp_path / "sidecar.yaml"
        file.write_text(f"upstream: {app.upstream}\n")
        program = launch(config=str(file), workers="2")
        eventually(lambda: is_full(program), "both workers serve")
        file.write_text(edited)
        for _ in range(2):
            old = workers(program)
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            eventually(lambda old=old: not set(old) & set(workers(program)) and is_full(program), "all are new")
            for _ in range(10):
                with HttpsClient(program) as client:
                    assert client.get("/hello").status == 200

    def test_service_survives_files_that_cannot_be_used(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """It is down while no worker can start, says why, and comes back by itself when the file is mended."""
        issued = authority().issue("localhost")
        cert = issued.write(directory(tmp_path))
        program = launch(upstream=app.upstream, workers="2", tls_cert=str(cert), reload_interval="0")
        eventually(lambda: is_full(program), "both workers serve")
        (cert / "tls.crt").write_text("garbage")
        for pid in workers(program):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: "none serves; trying again" in program.stderr, "it is told")
        assert program.admin("/ready")[0] == 503
        issued.write(cert)
        eventually(lambda: is_full(program), "both workers serve again", 30)


class TestRolling:
    @pytest.mark.slow
    def test_ten_rolling_replacements_lose_nothing(self, pair: Program) -> None:
        """Under load, with new connections and kept ones: no request fails, and all is counted exactly once."""
        load = Load(pair)
        with load.running():
            for _ in range(ROLLS):
                load.go_on(20)
                old = set(workers(pair))
                pair.signal(signal.SIGUSR2)
                eventually(lambda old=old: not old & set(workers(pair)) and is_full(pair), "all workers are new", 30)

        assert load.failures == []
        assert set(load.statuses) == {200}
        expected = {f'status="{status}"': float(count) for status, count in load.statuses.items()}
        eventually(lambda: samples(pair, "responses_total") == expected, "the program counts what the clients do")
        assert samples(pair, "requests_total") == {"": load.requests}

    def test_long_request_is_finished_by_the_worker_that_has_it(self, launch: Launch, own_app: App) -> None:
        """The replaced worker stays until its request is answered."""
        program = launch(upstream=own_app.upstream, workers="2")
        eventually(lambda: is_full(program), "both workers serve")
        with HttpsClient(program) as client:
            client.send(request("/held"))
            eventually(lambda: bool(own_app.requests), "the app has the request")
            old = set(workers(program))
            program.signal(signal.SIGUSR2)
            eventually(lambda: len(set(workers(program)) - old) >= 1, "a new worker is there")
            own_app.gate.set()

            assert client.response().status == 200
        eventually(lambda: not old & set(workers(program)), "all workers are new")

    def test_one_that_cannot_start_stops_the_replacement(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """The old workers go on, and the readiness page says what is wrong."""
        issued = authority().issue("localhost")
        cert = issued.write(directory(tmp_path))
        program = launch(upstream=app.upstream, workers="2", tls_cert=str(cert), reload_interval="0")
        eventually(lambda: is_full(program), "both workers serve")
        old = workers(program)
        (cert / "tls.crt").write_text("garbage")
        program.signal(signal.SIGUSR2)
        eventually(lambda: b"could not start" in program.admin("/ready?verbose")[1], "it is told")

        assert program.admin("/ready")[0] == 200
        assert set(old) <= set(workers(program))
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200


class TestPages:
    def test_metrics_are_the_sum_over_all_workers(self, pair: Program) -> None:
        """What clients count and what one scrape says are the same, to the last request."""
        load = Load(pair)
        with load.running():
            load.go_on(300)

        expected = {f'status="{status}"': float(count) for status, count in load.statuses.items()}
        eventually(lambda: samples(pair, "responses_total") == expected, "the program counts what the clients do")
        assert samples(pair, "requests_total") == {"": load.requests}
        assert samples(pair, "ready") == {"": 1}
        eventually(lambda: len(pair.access_log()) == load.requests, "each request has a line of its own")

    def test_worker_that_hangs_is_named(self, pair: Program) -> None:
        """It is missed once for a second, then the pages come at once, and say whose answer is missing."""
        pid = workers(pair)[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            pair.admin("/ready")
            asked_at = time.monotonic()
            body = pair.admin("/ready?verbose")[1].decode()
            assert time.monotonic() - asked_at < 0.5
            assert f"no answer from worker 1 (process {pid})" in body
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: is_full(pair), "it answers again")

    @pytest.mark.parametrize(
        "path", ["/certs", "/certs/server.pem", "/config", "/connections", "/handshakes", "/stats"]
    )
    def test_every_page_is_served(self, pair: Program, path: str) -> None:
        """What one worker has, several have."""
        status, body = pair.admin(path)
        assert status == 200
        assert body

    def test_certificate_that_is_made_here_is_the_same_in_all_workers(self, launch: Launch, app: App) -> None:
        """A client that trusts what the page gives is served by whichever worker takes it, and by their successors."""
        program = launch(upstream=app.upstream, workers="2", tls_cert=None)
        eventually(lambda: is_full(program), "both workers serve")
        context = client_context(trusted=program.admin("/certs/server.pem")[1].decode())
        for _ in range(2):
            old = set(workers(program))
            for _ in range(10):
                with HttpsClient(program, context=context) as client:
                    assert client.get("/hello").status == 200
            program.signal(signal.SIGUSR2)
            eventually(lambda old=old: not old & set(workers(program)) and is_full(program), "all workers are new")


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_drain_reaches_all_workers(self, launch: Launch, own_app: App, number: signal.Signals) -> None:
        """Requests in flight are answered, newcomers refused, and the exit status is 0."""
        program = launch(upstream=own_app.upstream, workers="2")
        eventually(lambda: is_full(program), "both workers serve")
        with HttpsClient(program) as client:
            client.send(request("/held"))
            eventually(lambda: bool(own_app.requests), "the app has the request")
            program.signal(number)
            eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
            eventually(lambda: not accepts(program), "nobody listens any more")
            assert b"draining" in program.admin("/ready")[1]
            own_app.gate.set()

            assert client.response().values("connection") == ["close"]
        assert program.wait() == 0

    def test_lame_duck_is_waited_for_once(self, launch: Launch, app: App) -> None:
        """All workers serve on for that time, together."""
        program = launch(upstream=app.upstream, workers="2", lame_duck="1s")
        eventually(lambda: is_full(program), "both workers serve")
        told_at = time.monotonic()
        program.signal()
        eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200

        assert program.wait() == 0
        assert 0.9 < time.monotonic() - told_at < 2.5

    def test_signal_to_open_logs_anew_does_nothing(self, pair: Program) -> None:
        """A habit from other proxies must not end the service."""
        pair.signal(signal.SIGUSR1)
        with HttpsClient(pair) as client:
            assert client.get("/hello").status == 200
        assert is_full(pair)

    def test_second_signal_forces(self, launch: Launch, own_app: App) -> None:
        """It cuts what the first one waits for, in all workers."""
        program = launch(upstream=own_app.upstream, workers="2", drain_timeout="1h")
        eventually(lambda: is_full(program), "both workers serve")
        with HttpsClient(program) as client:
            client.send(request("/never"))
            eventually(lambda: bool(own_app.requests), "the app has the request")
            program.signal()
            eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
            program.signal()

            assert program.wait(3) == 0

    def test_reload_reaches_all_workers(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """After SIGHUP every new connection gets the new certificate."""
        first, second = authority().issue("localhost"), authority().issue("localhost", "second.example")
        cert = first.write(directory(tmp_path))
        program = launch(upstream=app.upstream, workers="2", tls_cert=str(cert), reload_interval="0")
        eventually(lambda: is_full(program), "both workers serve")
        second.write(cert)
        program.signal(signal.SIGHUP)
        eventually(lambda: program.stderr.count("reloaded; serving") == 2, "both workers have reloaded")

        serials = {peer_serial(program) for _ in range(20)}
        assert serials == {second.certificate.serial_number}

    def test_failed_reload_is_an_alarm(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """It stays on the readiness page until a reload succeeds; the service goes on."""
        issued = authority().issue("localhost")
        cert = issued.write(directory(tmp_path))
        program = launch(upstream=app.upstream, workers="2", tls_cert=str(cert), reload_interval="0")
        eventually(lambda: is_full(program), "both workers serve")
        (cert / "tls.crt").write_text("garbage")
        program.signal(signal.SIGHUP)
        eventually(lambda: "tls.crt" in ready_text(program, "reload"), "the failed reload is told")
        assert program.admin("/ready")[0] == 200
        issued.write(cert)
        program.signal(signal.SIGHUP)
        eventually(lambda: "tls.crt" not in ready_text(program, "reload"), "the alarm has gone")


def ready_text(program: Program, name: str) -> str:
    checks = json.loads(program.admin("/ready?verbose")[1])["checks"]
    return next((check["text"] for check in checks if check["name"] == name), "")


def accepts(program: Program) -> bool:
    try:
        socket.create_connection((program.host, program.port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def peer_serial(program: Program) -> int:
    with HttpsClient(program) as client:
        certificate = client.socket.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


class TestSecrets:
    def test_no_worker_shows_key_material(self, launch: Launch, app: App) -> None:
        """It reaches workers neither by arguments nor by the environment, though it was given in ours."""
        issued = authority().issue("localhost")
        program = launch(
            upstream=app.upstream, workers="2", tls_cert=issued.cert_pem.decode(), tls_key=issued.key_pem.decode()
        )
        eventually(lambda: is_full(program), "both workers serve")
        for pid in workers(program):
            for file in ("cmdline", "environ"):
                shown = Path(f"/proc/{pid}/{file}").read_bytes()
                assert b"SIDECAR_" not in shown
                assert b"PRIVATE KEY" not in shown


class TestStart:
    def test_taken_port_is_told_once(self, app: App) -> None:
        """Before any worker starts: status 78, and one line that names the address."""
        with Port() as taken, socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((taken.host, taken.number))
            other.listen()
            done = run_to_end(upstream=app.upstream, listen=str(taken), admin="off", workers="2")

        assert done.returncode == 78
        assert done.stderr.count("cannot listen on") == 1
        assert "Traceback" not in done.stderr

    def test_workers_that_cannot_start_end_the_whole(self, app: App, tmp_path: Path) -> None:
        """What only a worker finds is told by the supervisor: status 78, each problem once."""
        with Port() as port:
            done = run_to_end(
                upstream=app.upstream, listen=str(port), admin="off", workers="2", wait="500ms",
                tls_cert=str(tmp_path / "none"),
            )  # fmt: skip

        assert done.returncode == 78
        assert done.stderr.count("sidecar: SIDECAR_TLS_CERT") == 1
        assert "Traceback" not in done.stderr

    def test_one_worker_needs_no_supervisor(self, launch: Launch, app: App) -> None:
        """The program is the worker."""
        assert workers(launch(upstream=app.upstream, workers="1")) == []
