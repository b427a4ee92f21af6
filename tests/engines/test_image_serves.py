"""Ensures that the image serves as the scenarios need it: read-only, without capabilities, as nobody, on port 443."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.certs import CLIENT, Issued, authority
from tests.support.engines import Container, docker, run
from tests.support.program import eventually, installed

LIFETIME_SECONDS = 20.0


def curl(address: str, path: str, *options: str | Path, statuses: tuple[int, ...] = (0,)) -> str:
    """Ask as a user would; status line, fields and body."""
    return run(
        installed("curl"), "--silent", "--show-error", "--include", "--max-time", "10", *options,
        f"https://{address}{path}", statuses=statuses,
    ).stdout  # fmt: skip


def readable(directory: Path, issued: Issued) -> Path:
    """Write certificate, key and CA so that the image's user can read them."""
    directory.mkdir(exist_ok=True)
    issued.write(directory)
    (directory / "ca.crt").write_bytes(authority().cert_pem)
    for file in directory.iterdir():
        file.chmod(0o644)
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def app(app_image: str) -> Iterator[Container]:
    """An app that listens on localhost alone."""
    with Container(app_image, hardened=False) as running:
        running.wait_until_healthy()
        yield running


def beside(app: Container, *options: str | Path) -> list[str | Path]:
    """Options of a container that shares localhost with the app."""
    return ["--network", f"container:{app.name}", *options]


class TestEncryptedHop:
    def test_one_container_more_is_all_it_takes(self, image: str, app: Container) -> None:
        """S1: no setting, no certificate; what a balancer that does not check certificates asks for is answered."""
        with Container(image, options=beside(app)) as sidecar:
            sidecar.wait_until_it_says("serving https")
            answer = curl(app.address, "/service", "--insecure")
            assert answer.startswith("HTTP/2 200 \n")
            assert answer.endswith(f"\n\nHello from {app.execute('hostname')}\n")
            process = json.loads(docker("inspect", sidecar.name))[0]["HostConfig"]
            assert (process["ReadonlyRootfs"], process["CapDrop"], process["CapAdd"]) == (True, ["ALL"], None)
            status = sidecar.execute("python", "-c", "print(open('/proc/1/status').read())")
            assert re.search(r"^Uid:\t65532\t65532", status, re.MULTILINE)
            assert re.search(r"^CapEff:\t0{16}$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
            assert sidecar.stop() == 0

    @pytest.mark.parametrize("version", ["1.2", "1.3"])
    def test_name_and_chain_are_right(self, image: str, app: Container, tmp_path: Path, version: str) -> None:
        """With a certificate mounted, curl with the CA is content, in both TLS versions."""
        certs = readable(tmp_path, authority().issue("app.example"))
        with Container(
            image, options=beside(app, "--volume", f"{certs}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs")
        ) as sidecar:
            sidecar.wait_until_it_says("serving https")
            only = ("--tlsv" + version, "--tls-max", version)
            resolve = ("--resolve", f"app.example:443:{app.address}", "--cacert", certs / "ca.crt")
            assert curl("app.example", "/service", *only, *resolve).startswith("HTTP/2 200 \n")


class TestClientCertificates:
    def test_refusal_is_readable_and_a_certificate_lets_in(self, image: str, app: Container, tmp_path: Path) -> None:
        """S4: the handshake succeeds and 400 says why; with key and certificate 200, and the connection stays."""
        certs = readable(tmp_path / "server", authority().issue("app.example"))
        client = readable(tmp_path / "client", authority().issue("billing", purposes=CLIENT))
        options = beside(
            app, "--volume", f"{certs}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs",
            "--env", "SIDECAR_CLIENT_CERT=required", "--env", "SIDECAR_CLIENT_CA=/certs/ca.crt",
        )  # fmt: skip
        with Container(image, options=options) as sidecar:
            sidecar.wait_until_it_says("serving https")
            refused = curl(app.address, "/service", "--http1.1", "--insecure", "--head")
            let_in = curl(
                app.address,
                "/service",
                "--http1.1",
                "--insecure",
                "--head",
                "--key",
                client / "tls.key",
                "--cert",
                client / "tls.crt",
            )

        assert refused.startswith("HTTP/1.1 400 Bad Request\n")
        assert "connection: close" in refused.lower()
        assert let_in.startswith("HTTP/1.1 200 OK\n")
        assert "connection: close" not in let_in.lower()


class TestStop:
    def test_docker_stop_under_load_loses_nothing(self, image: str, app: Container) -> None:
        """
        From the first request to the last connection that is accepted, each request has its answer.

        Four clients ask without a pause, each on a new connection every few requests, until they are refused: that is
        allowed only once the listener is closed, after the lame-duck time.
        """
        answers: list[str] = []
        lost: list[str] = []

        def ask() -> None:
            while True:
                urls = [part for _ in range(5) for part in ("--output", "/dev/null", f"https://{app.address}/service")]
                form = "%{http_code} %{exitcode}\n"
                options = ("--silent", "--insecure", "--max-time", "20", "--write-out", form)
                done = run(installed("curl"), *options, *urls, statuses=range(256))
                for line in done.stdout.splitlines():
                    status, code = line.split()
                    if (status, code) == ("200", "0"):
                        answers.append(line)
                    elif code == "7":  # connection refused
                        return
                    else:
                        lost.append(line)
                        return

        options = beside(app, "--env", "SIDECAR_LAME_DUCK=1s")
        with Container(image, options=options) as sidecar:
            sidecar.wait_until_it_says("serving https")
            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            eventually(lambda: len(answers) >= 100, "the clients are at work", 30)
            status = sidecar.stop()
            for client in clients:
                client.join(30)
            log = sidecar.log

        assert (status, lost) == (0, [])
        assert len(answers) > 100
        assert log.count('"status":200') == len(answers), "each answer is in the access log"


class TestHealthCheck:
    def test_it_turns_healthy_and_with_an_expired_certificate_unhealthy(
        self, image: str, app: Container, tmp_path: Path
    ) -> None:
        """The image's own health check, asked every second."""
        expires_at = datetime.now(UTC) + timedelta(seconds=LIFETIME_SECONDS)
        expires_at = expires_at.replace(microsecond=0)  # as it will stand in the certificate
        certs = readable(tmp_path, authority().issue("app.example", not_after=expires_at))
        options = beside(
            app, "--volume", f"{certs}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs",
            "--health-interval", "1s", "--health-retries", "1",
        )  # fmt: skip
        with Container(image, options=options) as sidecar:
            sidecar.wait_until_healthy()
            assert datetime.now(UTC) < expires_at, "the machine is too slow for this test"
            eventually(lambda: sidecar.health == "unhealthy", "it turns unhealthy", 2 * LIFETIME_SECONDS)
            assert datetime.now(UTC) >= expires_at
            said = sidecar.state["Health"]["Log"][-1]["Output"]

        assert re.match(r"unhealthy: .*expired", said)
