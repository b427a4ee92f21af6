"""
Ensures that the walk of an ECS task behind an Application Load Balancer works without the cloud: a Flask app that is
not touched, a certificate made with openssl, the sidecar in front, openssl s_client and curl as the judges.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, curl, openssl, request, s_client
from tests.support.program import Port, Program, environment, eventually

NAME = "service.example.com"
LINE = "Hello from the service behind the proxy!\n"


@attrs.frozen
class Castore:
    """What the openssl commands of the scenario leave behind."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def castore(tmp_path_factory: pytest.TempPathFactory) -> Castore:
    """A CA, a 2048-bit RSA key, a request, and a certificate signed by the CA."""
    directory = tmp_path_factory.mktemp("castore")
    (directory / "san.ext").write_text(
        f"subjectAltName = DNS:{NAME}\nbasicConstraints = critical, CA:FALSE\n"
        "keyUsage = critical, digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth\n"
    )
    for line in (
        "genrsa -out ca.key 2048",
        "req -x509 -new -key ca.key -sha256 -days 3650 -subj /O=Example/CN=Example-CA -out ca.pem",
        "genrsa -out service.key 2048",
        f"req -new -key service.key -subj /O=Example/CN={NAME} -out service.csr",
        "x509 -req -in service.csr -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 365 -extfile san.ext "
        "-out service.pem",
    ):
        subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True, timeout=60)
    return Castore(directory / "ca.pem", directory / "service.pem", directory / "service.key")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The Flask app as a process of its own; its address."""
    with Port() as port:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "flask_service", "run", "--port", str(port.number)],
            cwd=Path(__file__).parent,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: _accepts(port), "the Flask app listens", deadline_seconds=20)
            yield str(port)
        finally:
            process.terminate()
            process.wait(10)


def _accepts(port: Port) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((port.host, port.number)) == 0


@pytest.fixture(scope="module")
def sidecar(service: str, castore: Castore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The sidecar with the scenario's certificate."""
    with Program(
        tmp_path_factory.mktemp("sidecar"),
        upstream=f"http://{service}",
        tls_cert=str(castore.certificate),
        tls_key=str(castore.key),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def ephemeral(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The sidecar without a certificate of its own."""
    with Program(
        tmp_path_factory.mktemp("ephemeral"), upstream=f"http://{service}", tls_cert=None, tls_names=NAME
    ) as running:
        yield running


class TestCertificateFromFiles:
    def test_openssl_shows_and_verifies_the_certificate(self, sidecar: Program, castore: Castore) -> None:
        """`openssl s_client -showcerts` sees the certificate that the CA signed, and verifies it."""
        done = s_client(
            sidecar, "-showcerts", "-servername", NAME, "-CAfile", str(castore.ca), "-verify_hostname", NAME,
            input=request("/service", "Connection: close", host=NAME), trust=False,
        )  # fmt: skip

        assert done.returncode == 0
        assert "Verify return code: 0 (ok)" in done.stdout
        assert f"s:O = Example, CN = {NAME}" in done.stdout
        assert LINE in done.stdout

    def test_curl_with_the_ca_prints_the_line(self, sidecar: Program, castore: Castore) -> None:
        """`curl --cacert FILE https://NAME/service` prints the app's line."""
        done = curl(
            sidecar, "--cacert", str(castore.ca), "--resolve", f"{NAME}:{sidecar.port}:127.0.0.1",
            f"https://{NAME}:{sidecar.port}/service",
        )  # fmt: skip

        assert (done.returncode, done.stdout, done.stderr) == (0, LINE, "")

    def test_curl_without_the_ca_refuses(self, sidecar: Program) -> None:
        """A client that does not know the CA ends the handshake: it is no certificate of a public CA."""
        done = curl(
            sidecar, "--cacert", "/etc/ssl/certs/ca-certificates.crt",
            "--resolve", f"{NAME}:{sidecar.port}:127.0.0.1", f"https://{NAME}:{sidecar.port}/service",
        )  # fmt: skip

        assert done.returncode in (60, 77)

    def test_health_check_of_a_load_balancer_succeeds(self, sidecar: Program) -> None:
        """A client without SNI that verifies nothing and names us by address, as an ALB does, gets 200."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

        with HttpsClient(sidecar, context=context, server_name=None) as client:
            client.send(
                b"GET /service HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: ELB-HealthChecker/2.0\r\n"
                b"Connection: close\r\nAccept-Encoding: gzip, compressed\r\n\r\n" % sidecar.port
            )
            response = client.response()

        assert (response.status, response.body) == (200, LINE.encode())

    def test_openssl_without_sni_gets_the_certificate(self, sidecar: Program, castore: Castore) -> None:
        """The certificate does not depend on the name that is asked for."""
        done = s_client(
            sidecar, "-noservername", "-CAfile", str(castore.ca),
            input=request("/service", "Connection: close"), trust=False,
        )  # fmt: skip

        assert "Verify return code: 0 (ok)" in done.stdout
        assert LINE in done.stdout

    def test_access_log_names_the_request(self, sidecar: Program, castore: Castore) -> None:
        """One JSON line on standard output says who asked for what, over which TLS, and what came of it."""
        curl(
            sidecar, "--cacert", str(castore.ca), "--resolve", f"{NAME}:{sidecar.port}:127.0.0.1",
            f"https://{NAME}:{sidecar.port}/service/missing?token=secret",
        )  # fmt: skip

        line = sidecar.logged("/service/missing")
        assert line["status"] == 404
        assert line["client"] == "127.0.0.1"
        assert line["sni"] == NAME
        assert line["tls_version"] == "TLSv1.3"
        assert "secret" not in sidecar.stdout


class TestEphemeralCertificate:
    def test_curl_trusts_the_certificate_from_the_admin_page(self, ephemeral: Program, tmp_path: Path) -> None:
        """What /certs/server.pem gives is all that curl needs to verify us, by every name we were told."""
        status, pem = ephemeral.admin("/certs/server.pem")
        file = tmp_path / "server.pem"
        file.write_bytes(pem)

        assert status == 200
        for name in ("localhost", NAME):
            done = curl(
                ephemeral, "--cacert", str(file), "--resolve", f"{name}:{ephemeral.port}:127.0.0.1",
                f"https://{name}:{ephemeral.port}/service",
            )  # fmt: skip
            assert (done.returncode, done.stdout, done.stderr) == (0, LINE, "")

    def test_admin_page_describes_the_certificate(self, ephemeral: Program) -> None:
        """/certs says where the certificate came from."""
        status, page = ephemeral.admin("/certs")

        assert status == 200
        assert json.loads(page)["certificates"][0]["source"] == "ephemeral"

    def test_one_warning_line_is_logged(self, ephemeral: Program) -> None:
        """That there is no certificate is said once, with the name of the setting."""
        [line] = [line for line in ephemeral.stderr.splitlines() if " warn " in line]

        assert "SIDECAR_TLS_CERT" in line

    def test_certificate_is_sound_in_the_eyes_of_openssl(self, ephemeral: Program, tmp_path: Path) -> None:
        """Strict X.509 checks pass."""
        file = tmp_path / "server.pem"
        file.write_bytes(ephemeral.admin("/certs/server.pem")[1])

        done = openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(file), str(file))

        assert done.returncode == 0, done.stderr
