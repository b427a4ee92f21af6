"""
Ensures that what the admin endpoint shows is what happened, that it does what it is told, that no web page can use it,
and that probes and the health check see what a client would.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.scenarios.clients import HttpsClient, client_context, curl, plain_socket, request, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import CLIENT, Issued, authority, reveals
from tests.support.program import ROOT, WAIT_SECONDS, Port, Program, environment, eventually

PAGES = ("/", "/certs", "/certs/server.pem", "/clusters", "/config", "/connections", "/handshakes", "/ready", "/stats")
HEALTH_PAGES = {"/live", "/ready"}


def ask(program: Program, head: str, port: int | None = None) -> tuple[int, str]:
    """Send the head of a request to the admin endpoint, or to another *port*; return status and body."""
    with socket.create_connection(("127.0.0.1", port or program.admin_port), WAIT_SECONDS) as sock:
        sock.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while piece := sock.recv(65_536):
            data += piece
    head_bytes, _, body = data.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), body.decode()


def post(program: Program, path: str) -> tuple[int, str]:
    """Send a POST without a body, as curl does it."""
    return ask(program, f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0")


def page(program: Program, path: str) -> Any:
    """A page that is JSON."""
    status, body = program.admin(path)
    assert status == 200, body
    return json.loads(body)


def readiness(program: Program) -> tuple[int, list[str]]:
    """Status of /ready, and its reasons."""
    status, body = program.admin("/ready")
    return status, json.loads(body)["reasons"]


def identity(directory: Path, name: str) -> tuple[Issued, ssl.SSLContext]:
    """A client certificate for *name*, and a context that shows it."""
    issued = authority().issue(name, purposes=CLIENT)
    return issued, client_context(identity=write_identity(issued, directory / f"{name}.pem"))


class CountingClient:
    """A TLS connection that counts the bytes of its records. For ``with``."""

    def __init__(self, program: Program, context: ssl.SSLContext) -> None:
        self.sent = self.received = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._socket = socket.create_connection((program.host, program.port), WAIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def get(self, target: str) -> bytes:
        """Ask for *target* on the connection, which is made with the first; return head and body."""
        self._until_done(self._tls.do_handshake)
        self._tls.write(request(target))
        data = b""
        while not data.endswith(b"hello\n"):
            data += self._until_done(lambda: self._tls.read(65_536))
        return data

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._socket.recv(65_536)
                assert data, "closed by the sidecar"
                self.received += len(data)
                self._incoming.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        data = self._outgoing.read()
        self.sent += len(data)
        self._socket.sendall(data)


def samples(program: Program) -> dict[str, float]:
    """The metrics, as Prometheus' own parser reads them: name and label values -> value."""
    text = program.admin("/stats/prometheus")[1].decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def healthcheck(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "healthcheck", *arguments],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


class TestNumbers:
    def test_everything_that_happened_is_counted_once(self, launch: Launch, app: App) -> None:
        """Requests, statuses, handshakes and connections of a known run are those of the scrape."""
        program = launch(upstream=app.upstream)
        for _ in range(2):
            with HttpsClient(program) as client:
                for path in ("/hello", "/hello", "/nowhere"):
                    client.get(path)
        with HttpsClient(program) as client:
            client.get("/close-before", method="POST")
        eventually(lambda: program.metric("downstream_connections_active") == 0, "all have left")

        found = samples(program)

        assert found["sidecar_requests_total"] == 7
        assert found["sidecar_responses_total 200"] == 4
        assert found["sidecar_responses_total 404"] == 2
        assert found["sidecar_responses_total 502"] == 1
        assert found["sidecar_own_answers_total upstream_reset"] == 1
        assert found["sidecar_tls_handshakes_total TLSv1.3"] == 3
        assert found["sidecar_downstream_connections_total"] == 3
        assert found["sidecar_ready"] == 1

    def test_lines_and_scrape_agree(self, program: Program) -> None:
        """What a person reads at /stats is what a machine reads at /stats/prometheus."""
        lines = dict(line.rsplit(": ", 1) for line in program.admin("/stats")[1].decode().splitlines())
        scraped = samples(program)
        assert float(lines["sidecar_requests_total"]) == scraped["sidecar_requests_total"]
        assert float(lines["sidecar_downstream_connections_total"]) == scraped["sidecar_downstream_connections_total"]
        assert lines["sidecar_ready"] == "1"

    def test_requests_are_timed_and_counted_by_client(self, launch: Launch, own_app: App, tmp_path: Path) -> None:
        """The histogram holds each request once, as long as its client waited; each client has what it asked for."""
        program = launch(upstream=own_app.upstream, client_cert="optional", client_ca=authority().cert_pem.decode())
        alice, alices = identity(tmp_path, "alice")
        _, bobs = identity(tmp_path, "bob")
        began, began_at = time.monotonic(), time.time()
        with HttpsClient(program, context=alices) as client:
            for _ in range(3):
                client.get("/hello")
        with HttpsClient(program, context=bobs) as client:
            client.send(request("/held"))
            eventually(lambda: own_app.requests[-1].path == "/held", "the app has the request")
            held_from = time.monotonic()
            eventually(lambda: time.monotonic() - held_from > 0.06, "the request has been held for a while")
            own_app.gate.set()
            client.response()
            held = time.monotonic() - held_from
        with HttpsClient(program) as nobody:
            nobody.get("/hello")
        took = time.monotonic() - began
        eventually(lambda: program.metric("downstream_connections_active") == 0, "all have left")

        found = samples(program)

        name = "sidecar_request_duration_seconds"
        assert found[f"{name}_count"] == found[f"{name}_bucket +Inf"] == found["sidecar_requests_total"] == 5
        assert 0.06 < held <= found[f"{name}_sum"] + 0.05
        assert found[f"{name}_sum"] <= took
        assert found[f"{name}_bucket 0.05"] <= 4
        buckets = [value for key, value in found.items() if key.startswith(f"{name}_bucket ")]
        assert buckets == sorted(buckets)
        clients = {key: value for key, value in found.items() if key.startswith("sidecar_client_requests_total")}
        assert clients == {"sidecar_client_requests_total alice": 3, "sidecar_client_requests_total bob": 1}
        assert began_at - 1 <= found["sidecar_client_last_seen_timestamp_seconds alice"] <= time.time()
        expires_at = found["sidecar_client_certificate_not_after_timestamp_seconds alice"]
        assert expires_at == alice.certificate.not_valid_after_utc.timestamp()


class TestConfig:
    def test_settings_in_force_are_shown_and_no_secret_is(self, launch: Launch, app: App) -> None:
        """A key and its password that were given as values are on no page, and their settings say so."""
        issued = authority().issue("localhost", "127.0.0.1")
        key = issued.encrypted_key_pem().decode()
        program = launch(
            upstream=app.upstream,
            tls_cert=issued.cert_pem.decode(),
            tls_key=key,
            tls_key_password="secret",
            idle_timeout="99s",
        )

        lines = dict(line.split(": ", 1) for line in program.admin("/config")[1].decode().splitlines())
        assert lines["idle_timeout"].split() == ["99s", "#", "environment"]
        assert lines["listen"].startswith(f"127.0.0.1:{program.port} ")
        assert "secret" not in lines["tls_key_password"]
        body = "".join(key.splitlines()[1:-1])
        for path in (*PAGES, "/stats/prometheus"):
            status, shown = program.admin(path)
            assert status == 200
            assert not reveals(shown.decode().replace("\\n", ""), body), path
            assert b"PRIVATE KEY" not in shown
        assert page(program, "/certs")["certificates"][0]["source"] == "the value given"


class TestConnections:
    def test_open_client_is_shown_with_its_name_and_bytes(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """Who it is, what it agreed on and asked for, and every byte in both directions, as the client counted them."""
        program = launch(upstream=app.upstream, client_cert="optional", client_ca=authority().cert_pem.decode())
        _, context = identity(tmp_path, "alice")
        with CountingClient(program, context) as client:
            for _ in range(3):
                client.get("/hello")

            (shown,) = page(program, "/connections")["connections"]

            assert 0 <= shown.pop("age_seconds") < WAIT_SECONDS
            assert shown == {
                "client": "127.0.0.1",
                "via": "",
                "proxied": {},
                "listener": "main",
                "state": "idle",
                "requests": 3,
                "tls_version": "TLSv1.3",
                "server_name": "localhost",
                "principal": "alice",
                "bytes_received": client.sent,
                "bytes_sent": client.received,
            }
        eventually(lambda: page(program, "/connections")["total"] == 0, "it has left")
        found = samples(program)
        assert found["sidecar_downstream_received_bytes_total"] == client.sent
        assert found["sidecar_downstream_sent_bytes_total"] >= client.received

    def test_client_that_says_nothing_is_shown(self, launch: Launch, app: App) -> None:
        """Whoever holds connections open must be seen."""
        program = launch(upstream=app.upstream)
        with plain_socket(program):
            eventually(lambda: page(program, "/connections")["total"] == 1, "it is accepted")
            (shown,) = page(program, "/connections")["connections"]
        assert (shown["state"], shown["tls_version"], shown["requests"]) == ("handshake", None, 0)


class TestClusters:
    def test_connections_to_the_app_are_counted(self, launch: Launch) -> None:
        """Open and idle ones as the app has them; once it has gone, why none can be made."""
        with ExitStack() as stack:
            app = stack.enter_context(App())
            program = launch(upstream=app.upstream)
            one, other = (stack.enter_context(HttpsClient(program)) for _ in range(2))
            for client in (one, other):
                client.send(request("/held"))
            eventually(lambda: len(app.requests) == 2, "the app has both requests")
            (busy,) = page(program, "/clusters")["clusters"]
            app.gate.set()
            for client in (one, other):
                client.response()
            (idle,) = page(program, "/clusters")["clusters"]
        with HttpsClient(program) as client:
            assert client.get("/hello", method="POST").status in (502, 503)
        (gone,) = page(program, "/clusters")["clusters"]

        shown = ("open", "idle", "connects", "failures", "last_error")
        assert [busy[name] for name in shown] == [2, 0, 2, {}, ""]
        assert [idle[name] for name in shown] == [2, 2, 2, {}, ""]
        assert (gone["open"], gone["idle"]) == (0, 0)
        assert gone["failures"]["upstream_connect_refused"] >= 1
        assert "refused" in gone["last_error"]
        assert busy["upstream"] == f"127.0.0.1:{app.port}"


class TestCertificates:
    def test_shown_certificate_is_the_served_one(self, program: Program) -> None:
        """The fingerprint that /certs shows is that of the handshake, and its days are counted."""
        with HttpsClient(program) as client:
            der = client.socket.getpeercert(binary_form=True)
        assert der is not None
        (served,) = json.loads(program.admin("/certs")[1])["certificates"]
        assert served["sha256"] == hashlib.sha256(der).hexdigest()
        assert served["source"] == str(program.directory / "tls.crt")
        assert served["days_left"] in (89, 90)


class TestReload:
    def test_reload_is_done_before_it_is_answered(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """The next handshake has the new certificate; a set that cannot be used changes nothing but what is told."""
        certs = tmp_path / "certs"
        certs.mkdir()
        first, second = (authority().issue("localhost") for _ in range(2))
        first.write(certs)
        program = launch(upstream=app.upstream, tls_cert=str(certs), reload_interval="0")

        second.write(certs)
        assert self.served(program) == first.certificate.serial_number
        assert post(program, "/reload")[0] == 200
        assert self.served(program) == second.certificate.serial_number
        assert page(program, "/certs")["certificates"][0]["serial"] == f"{second.certificate.serial_number:x}"

        (certs / "tls.key").write_bytes(first.key_pem)
        status, body = post(program, "/reload")
        assert (status, body.splitlines()[0]) == (409, "Nothing was changed; what was in force before still is:")
        assert "SIDECAR_TLS_" in body
        assert self.served(program) == second.certificate.serial_number
        (warning,) = page(program, "/ready?verbose")["warnings"]
        assert warning.startswith("the last reload failed")

        second.write(certs)
        assert post(program, "/reload")[0] == 200
        assert page(program, "/ready?verbose")["warnings"] == []
        assert {result: program.metric(f'reloads_total{{result="{result}"}}') for result in ("ok", "failed")} == {
            "ok": 2,
            "failed": 1,
        }

    def served(self, program: Program) -> int:
        with HttpsClient(program) as client:
            certificate = client.socket.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


class TestLogging:
    def test_level_is_in_force_at_once(self, launch: Launch, app: App) -> None:
        """What is below it is not logged, and what is not below it is, without a restart."""
        program = launch(upstream=app.upstream)
        assert post(program, "/logging?level=error")[0] == 200
        self.be_turned_away(program, b"GET / HTTP/1.1\r\n\r\n")
        assert "turned away" not in program.stderr

        status, body = post(program, "/logging?level=debug")
        assert (status, body.split(",")[0]) == (200, "Logging from debug upwards")
        self.be_turned_away(program, b"nonsense\r\n" * 10)
        eventually(lambda: "turned away" in program.stderr, "it is logged")
        assert post(program, "/logging?level=loud")[0] == 400

    def be_turned_away(self, program: Program, data: bytes) -> None:
        """Send what is no TLS, and wait until it is remembered; each kind is logged once, so two need two."""
        known = len(page(program, "/handshakes")["rejections"])
        with plain_socket(program) as sock:
            sock.sendall(data)
            eventually(lambda: len(page(program, "/handshakes")["rejections"]) > known, "it is remembered")


class TestDrain:
    @pytest.mark.parametrize("with_signal", [False, True], ids=["alone", "then SIGTERM"])
    def test_drain_finishes_what_runs_and_ends(self, launch: Launch, own_app: App, with_signal: bool) -> None:
        """As a preStop hook asks for it: answered, not ready any more, nobody new, nothing cut, status 0."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/held"))
            eventually(lambda: bool(own_app.requests), "the app has the request")

            assert post(program, "/drain")[0] == 202
            eventually(lambda: readiness(program) == (503, ["draining"]), "it says that it drains")
            if with_signal:
                program.signal()
            assert post(program, "/drain")[0] == 202
            with pytest.raises(ConnectionRefusedError), plain_socket(program):
                pass
            assert program.metric("draining") == 1
            own_app.gate.set()
            assert client.response().status == 200
        assert program.wait() == 0
        assert program.stderr.count("draining for at most") == 1


class TestHealth:
    def test_app_that_goes_away_and_comes_back_is_noticed(self, launch: Launch, tmp_path: Path) -> None:
        """Not ready while it is away, with the reason for operators and its name for all; ready without a request."""
        path = tmp_path / "app.sock"
        with Port() as port:
            with App(path=path) as app:
                program = launch(upstream=app.upstream, health=str(port))
                with HttpsClient(program) as client:
                    assert client.get("/hello").status == 200
            with HttpsClient(program) as client:
                assert client.get("/hello", method="POST").status in (502, 503)
            status, (reason,) = readiness(program)
            assert status == 503
            assert reason.startswith("the app cannot be reached: ")
            assert program.metric("ready") == 0
            assert self.probe(program, port, "/ready") == (503, {"ready": False, "reasons": ["app"]})
            assert self.probe(program, port, "/live")[0] == 200

            os.unlink(path)
            with App(path=path) as back:
                eventually(lambda: readiness(program) == (200, []), "it has noticed that the app is back")
                assert self.probe(program, port, "/ready") == (200, {"ready": True, "reasons": []})
                assert back.requests == []

    def test_health_listener_serves_two_pages(self, launch: Launch, app: App) -> None:
        """By whatever name a probe comes; nothing else is there, and nothing can be changed."""
        with Port() as port:
            program = launch(upstream=app.upstream, health=str(port))
            for path in (*PAGES, "/live", "/stats/prometheus"):
                status, _ = ask(program, f"GET {path} HTTP/1.1\r\nHost: probed.example", port.number)
                assert status == (200 if path in HEALTH_PAGES else 404), path
            for path in ("/drain", "/reload", "/logging?level=debug"):
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0"
                assert ask(program, head, port.number)[0] == 404
            assert readiness(program) == (200, [])

    def probe(self, program: Program, port: Port, path: str) -> tuple[int, Any]:
        status, body = ask(program, f"GET {path} HTTP/1.1\r\nHost: probed.example", port.number)
        return status, json.loads(body) if path == "/ready" else body


class TestGuard:
    @pytest.mark.parametrize("path", ["/", "/live", "/certs", "/stats/prometheus", "/handshakes"])
    def test_page_under_a_name_of_its_own_learns_nothing(self, program: Program, path: str) -> None:
        """A site that points its own name at 127.0.0.1 and reads us as itself gets 403, in words."""
        status, body = ask(program, f"GET {path} HTTP/1.1\r\nHost: rebound.example:{program.admin_port}")
        assert status == 403
        assert "'rebound.example" in body
        assert "IP address or localhost" in body

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
    def test_operator_of_this_machine_is_served(self, program: Program, host: str) -> None:
        """By address or as localhost, whatever the port: it may be a forwarded one."""
        assert ask(program, f"GET /live HTTP/1.1\r\nHost: {host}:18081") == (200, "live\n")

    @pytest.mark.parametrize("field", ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"])
    @pytest.mark.parametrize("path", ["/drain", "/reload", "/logging?level=debug", "/live"])
    def test_form_of_a_page_changes_nothing(self, program: Program, path: str, field: str) -> None:
        """A page can send a form to localhost; it is turned away before anything is looked at."""
        fields = f"Host: localhost:{program.admin_port}\r\n{field}\r\nContent-Length: 0"
        status, body = ask(program, f"POST {path} HTTP/1.1\r\n{fields}")
        assert status == 403
        assert "web page" in body
        assert program.admin("/ready")[0] == 200

    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("DELETE", "/certs", 405)])
    def test_what_is_not_there_is_said_in_words(self, program: Program, method: str, path: str, status: int) -> None:
        """Whoever guesses learns what would have worked."""
        done = curl(program, "-i", "-X", method, f"http://127.0.0.1:{program.admin_port}{path}")
        assert done.stdout.startswith(f"HTTP/1.1 {status} ")
        assert ("/stats/prometheus" if status == 404 else "Allow: GET, HEAD") in done.stdout


class TestHealthcheck:
    def listen(self, program: Program) -> str:
        return f"127.0.0.1:{program.port}"

    def test_running_program_is_healthy_and_hardly_notices(self, launch: Launch, app: App) -> None:
        """One line and status 0; nothing stands in the logs or among the rejections for it."""
        program = launch(upstream=app.upstream)
        done = healthcheck("--app", listen=self.listen(program), upstream=app.upstream)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"healthy: {self.listen(program)} speaks TLSv1.3, certificate until ")
        assert done.stdout.count("\n") == 1
        eventually(lambda: program.metric("downstream_connections_active") == 0, "it has left")
        assert program.access_log() == []
        assert "turned away" not in program.stderr
        assert json.loads(program.admin("/handshakes")[1]) == {"rejections": []}

    @pytest.mark.parametrize("refusal", ["http", "handshake"])
    def test_required_client_certificate_does_not_matter(self, launch: Launch, app: App, refusal: str) -> None:
        """The check has none and needs none: the server has shown its own by then. It is not noted as a rejection."""
        ca = authority().cert_pem.decode()
        program = launch(upstream=app.upstream, client_cert="required", client_ca=ca, client_refusal=refusal)
        before = program.metric("downstream_connections_total")

        done = healthcheck(listen=self.listen(program), client_refusal=refusal)

        assert done.returncode == 0
        assert program.metric("downstream_connections_total") == before + 1
        eventually(lambda: program.metric("downstream_connections_active") == 0, "it has left")
        assert "turned away" not in program.stderr
        assert json.loads(program.admin("/handshakes")[1]) == {"rejections": []}

    def test_stopped_program_is_unhealthy(self, launch: Launch, app: App) -> None:
        """A port that nobody listens on, and a process that hangs."""
        program = launch(upstream=app.upstream)
        with program.stopped():
            hanging = healthcheck(listen=self.listen(program))
        program.stop()
        gone = healthcheck(listen=self.listen(program))
        assert (hanging.returncode, gone.returncode) == (1, 1)
        assert hanging.stderr.endswith("nothing came within 3 s\n")
        assert gone.stderr.endswith("Connection refused\n")

    def test_app_that_is_down_is_unhealthy_only_if_asked_for(self, program: Program) -> None:
        """With --app the line names the app and where it was looked for."""
        with Port() as nobody:
            settings: dict[str, Any] = {"listen": self.listen(program), "upstream": str(nobody)}
            assert healthcheck(**settings).returncode == 0
            done = healthcheck("--app", **settings)
        assert done.returncode == 1
        assert done.stderr.startswith(f"unhealthy: no answer of the app at {nobody} (SIDECAR_UPSTREAM): ")
