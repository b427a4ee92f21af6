"""
Ensures that what the admin endpoint shows is what happened, that no web page can use it, and that the health check sees
what a client would.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.scenarios.clients import HttpsClient, curl
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import authority
from tests.support.program import ROOT, Port, Program, environment, eventually

HEALTHCHECK = "import os, sys; from sidecar import healthcheck; sys.exit(healthcheck.main(sys.argv[1:], os.environ))"


def ask(program: Program, head: str) -> tuple[int, str]:
    """Send the head of a request to the admin endpoint; return status and body."""
    with socket.create_connection(("127.0.0.1", program.admin_port), 10) as sock:
        sock.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while piece := sock.recv(65_536):
            data += piece
    head_bytes, _, body = data.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), body.decode()


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
        [sys.executable, "-c", HEALTHCHECK, *arguments],
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
