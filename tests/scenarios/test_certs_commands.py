"""
Ensures that the commands of the private CA replace the openssl lines that people copy: what they make is taken by the
sidecar, curl, openssl, Java and NSS, and `show` tells what a server has.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sidecar import cli_certs
from sidecar.pki import probe
from tests.scenarios.clients import curl, openssl
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import authority, intermediate
from tests.support.program import ROOT, Port, Program, environment, eventually

MAIN = "import sys; from sidecar.cli_certs import main; sys.exit(main(sys.argv[1:]))"
PASSWORD = "correct horse battery"

needs_java = pytest.mark.skipif(shutil.which("keytool") is None, reason="needs keytool of Java")
needs_nss = pytest.mark.skipif(
    shutil.which("pk12util") is None or shutil.which("certutil") is None, reason="needs pk12util and certutil of NSS"
)


def run(directory: Path, *arguments: str, status: int = 0) -> str:
    """Run a command as a process of its own in *directory*; its standard output."""
    environ = {**environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MAIN, *arguments],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an afternoon with the commands leaves behind."""
    directory = tmp_path_factory.mktemp("pki")
    (directory / "password").write_text(PASSWORD + "\n")
    run(directory, "ca", "--name", "Example CA")
    run(directory, "server", "localhost", "127.0.0.1", "::1", "--out", "srv")
    run(directory, "client", "ci", "ci@example.com", "--p12", "--password-file", "password")
    run(directory, "client", "new", "--p12-modern", "--password-file", "password")
    run(directory, "client", "gone")
    run(directory, "revoke", "gone/client.crt")
    return directory


@pytest.fixture
def program(launch: Launch, app: App, pki: Path) -> Program:
    """A sidecar with the files as they are, that demands client certificates."""
    return launch(
        upstream=app.upstream, tls_cert=str(pki / "srv"), client_cert="required", client_ca=str(pki / "ca" / "ca.crt")
    )


class TestSidecar:
    def test_curl_gets_through_with_the_client_certificate(self, program: Program, pki: Path) -> None:
        """The three directories fit together without another step."""
        url = f"https://localhost:{program.port}/hello"
        trust = ["--cacert", str(pki / "srv" / "ca.crt")]
        pair = ["--cert", str(pki / "ci/client.crt"), "--key", str(pki / "ci/client.key")]
        done = curl(program, "-f", *trust, *pair, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert "requires a client certificate" in curl(program, *trust, url).stdout

    @pytest.mark.parametrize("name", ["ci", "new"])
    def test_curl_takes_the_pkcs12_file(self, program: Program, pki: Path, name: str) -> None:
        """With either encryption."""
        packed = ["--cert-type", "P12", "--cert", f"{pki / name / 'client.p12'}:{PASSWORD}"]
        url = f"https://127.0.0.1:{program.port}/hello"
        done = curl(program, "-f", "--cacert", str(pki / "srv" / "ca.crt"), *packed, url)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("kind", ["p384", "rsa2048", "ed25519"])
    def test_each_kind_of_key_serves(self, launch: Launch, app: App, tmp_path: Path, kind: str) -> None:
        """A CA and a server of that kind are good for a handshake."""
        run(tmp_path, "ca", "--key", kind)
        run(tmp_path, "server", "localhost", "--key", kind)
        program = launch(upstream=app.upstream, tls_cert=str(tmp_path / "localhost"))
        done = curl(program, "-f", "--cacert", str(tmp_path / "ca/ca.crt"), f"https://localhost:{program.port}/hello")
        assert (done.returncode, done.stderr) == (0, "")

    def test_serving_imports_none_of_it(self) -> None:
        """The start of the proxy does not pay for what it does not use."""
        lines = "import json, sys, sidecar.cli, sidecar.worker, sidecar.app; print(json.dumps(list(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, check=True, timeout=60)
        unused = {"sidecar.cli_certs", "sidecar.pki", "sidecar.certs.authority", "sidecar.certs.examine"}
        assert unused.isdisjoint(json.loads(done.stdout))


class TestOpenssl:
    @pytest.mark.parametrize(
        ("file", "purpose", "names"),
        [
            ("srv/tls.crt", "sslserver", ["-verify_hostname", "localhost"]),
            ("srv/tls.crt", "sslserver", ["-verify_ip", "::1"]),
            ("ci/client.crt", "sslclient", ["-verify_email", "ci@example.com"]),
        ],
    )
    def test_chain_verifies_strictly(self, pki: Path, file: str, purpose: str, names: list[str]) -> None:
        """For its purpose and its names, and with the revocation list."""
        done = openssl(
            *["verify", "-x509_strict", "-purpose", purpose, *names, "-crl_check"],
            *["-CRLfile", str(pki / "ca/ca.crl"), "-CAfile", str(pki / "ca/ca.crt"), str(pki / file)],
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_revoked_certificate_is_refused(self, pki: Path) -> None:
        """The list is read as it was meant."""
        done = openssl(
            *["verify", "-crl_check", "-CRLfile", str(pki / "ca/ca.crl"), "-CAfile", str(pki / "ca/ca.crt")],
            str(pki / "gone/client.crt"),
        )
        assert done.returncode != 0
        assert "certificate revoked" in done.stderr

    def test_list_is_signed_by_the_ca(self, pki: Path) -> None:
        """And has its number."""
        done = openssl(
            *["crl", "-in", str(pki / "ca/ca.crl"), "-CAfile", str(pki / "ca/ca.crt"), "-noout", "-text"],
        )
        assert "verify OK" in done.stdout + done.stderr
        assert "X509v3 CRL Number" in done.stdout

    @pytest.mark.parametrize("serial", ["0", "0x80" + "00" * 19])
    def test_number_that_no_list_can_hold_is_a_sentence(
        self, pki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], serial: str
    ) -> None:
        """Such certificates come from openssl lines that people copied."""
        request, certificate = str(tmp_path / "a.csr"), str(tmp_path / "a.crt")
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a", "-keyout", str(tmp_path / "a.key")]
        openssl(*new, "-out", request)
        issuer = ["-CA", str(pki / "ca/ca.crt"), "-CAkey", str(pki / "ca/ca.key")]
        openssl("x509", "-req", "-in", request, *issuer, "-set_serial", serial, "-out", certificate)
        assert cli_certs.main(["show", certificate]) == 0
        assert cli_certs.main(["revoke", certificate, "--ca", str(pki / "ca")]) == 78
        assert "is not between 1 and 20 octets, so no list can name it" in capsys.readouterr().err

    @pytest.mark.parametrize(("name", "scheme"), [("ci", "pbeWithSHA1And3-KeyTripleDES-CBC"), ("new", "AES-256-CBC")])
    def test_pkcs12_file_opens_without_the_legacy_provider(self, pki: Path, name: str, scheme: str) -> None:
        """OpenSSL 3 takes the old encryption as it is, too."""
        file, password = str(pki / name / "client.p12"), f"pass:{PASSWORD}"
        done = openssl("pkcs12", "-in", file, "-passin", password, "-nokeys", "-info")
        assert done.returncode == 0
        assert scheme in done.stderr
        assert f"friendlyName: {name}" in done.stdout

    def test_request_of_openssl_is_signed(self, pki: Path, tmp_path: Path) -> None:
        """Its key never leaves whoever made it; what it must not ask for it does not get."""
        done = openssl(
            *[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/O=Any/CN=web.example",
            ],
            *["-addext", "subjectAltName=DNS:web.example,IP:192.0.2.1", "-keyout", str(tmp_path / "web.key")],
            *["-out", str(tmp_path / "web.csr")],
        )
        assert done.returncode == 0, done.stderr
        run(pki, "sign", str(tmp_path / "web.csr"))
        text = openssl("x509", "-in", str(tmp_path / "web.crt"), "-noout", "-text").stdout
        assert "DNS:web.example, IP Address:192.0.2.1" in text
        assert "TLS Web Server Authentication\n" in text
        assert "O = Any" not in text
        assert "web.key fits" in run(pki, "show", str(tmp_path / "web.crt"))


class TestImport:
    @needs_java
    @pytest.mark.parametrize("name", ["ci", "new"])
    def test_java_lists_the_entry(self, pki: Path, name: str) -> None:
        """As a key with its certificate, under its name."""
        file = str(pki / name / "client.p12")
        done = subprocess.run(
            ["keytool", "-list", "-storetype", "PKCS12", "-keystore", file, "-storepass", PASSWORD],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout
        assert f"{name}, " in done.stdout
        assert "PrivateKeyEntry" in done.stdout

    @needs_nss
    @pytest.mark.parametrize("name", ["ci", "new"])
    def test_nss_imports_it(self, pki: Path, tmp_path: Path, name: str) -> None:
        """As Firefox and Chromium on Linux do."""
        database = f"sql:{tmp_path}"
        subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True, timeout=60)
        done = subprocess.run(
            ["pk12util", "-i", str(pki / name / "client.p12"), "-d", database, "-W", PASSWORD],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "IMPORT SUCCESSFUL" in done.stdout


@contextmanager
def s_server(pki: Path, *arguments: str) -> Iterator[Port]:
    """openssl s_server with the certificate of the server."""
    with Port() as port:
        pair = ["-cert", str(pki / "srv/tls.crt"), "-key", str(pki / "srv/tls.key")]
        process = subprocess.Popen(
            ["openssl", "s_server", "-accept", str(port), *pair, "-quiet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: _accepts(port), "openssl s_server listens")
            yield port
        finally:
            process.kill()
            process.wait(10)


def _accepts(port: Port) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((port.host, port.number)) == 0


@contextmanager
def listener(greeting: bytes = b"") -> Iterator[str]:
    """The address of a server that sends *greeting* to its first client, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def greet() -> None:
            client = stack.enter_context(server.accept()[0])
            client.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


class TestShowServer:
    def test_good_server_is_described(self, program: Program, pki: Path) -> None:
        """Version, cipher, chain, and what a client that checks would say."""
        out = run(pki, "show", f"localhost:{program.port}", "--ca", "ca", "--check")
        assert f"localhost:{program.port}: server certificate\n" in out
        assert "connection   TLSv1.3, TLS_" in out
        assert "client cert  asked for" in out
        assert "sent         1 certificate;" in out
        assert "connected without checks; checked since: leads to ca and is for localhost\n" in out
        assert "problem" not in out

    def test_what_a_client_would_refuse_is_a_problem(self, program: Program, pki: Path, tmp_path: Path) -> None:
        """An unknown CA and a wrong name, each by itself."""
        run(tmp_path, "ca")
        target = f"127.0.0.1:{program.port}"
        out = run(pki, "show", target, "--ca", str(tmp_path / "ca"), "--name", "other.example", "--check", status=1)
        assert "refuses the chain: unable to get local issuer certificate" in out
        assert "refuses the name: the certificate is not for other.example" in out
        assert out.count("problem: ") == 2

    def test_client_certificate_on_a_server_is_a_problem(self, pki: Path) -> None:
        """Its chain is good, but its purpose is another."""
        files = ["-cert", str(pki / "ci/client.crt"), "-key", str(pki / "ci/client.key")]
        with s_server(pki, *files) as port:
            out = run(pki, "show", str(port), "--ca", "ca", "--check", status=1)
        assert "refuses the purpose: the certificate is not for servers" in out
        assert "refuses the chain" not in out

    def test_system_trusts_no_private_ca(self, program: Program, pki: Path) -> None:
        """Without --ca it is judged as a browser would."""
        out = run(pki, "show", f"localhost:{program.port}", "--check", status=1)
        assert "a client that trusts the CAs of this system refuses the chain" in out

    @pytest.mark.parametrize(
        ("arguments", "asked"),
        [
            pytest.param([], "not asked for", id="none"),
            pytest.param(["-verify", "1"], "asked for (optional", id="optional"),
            pytest.param(["-Verify", "1"], "required", id="required"),
            pytest.param(["-Verify", "1", "-no_tls1_3"], "required", id="required-in-1.2"),
        ],
    )
    def test_demand_for_client_certificates_is_seen(self, pki: Path, arguments: list[str], asked: str) -> None:
        """Also where the server hangs up on those without one: the chain is shown all the same."""
        with s_server(pki, *arguments) as port:
            out = run(pki, "show", str(port), "--ca", "ca", "--check")
        assert f"client cert  {asked}" in out
        assert "names        DNS:localhost" in out

    def test_chain_is_shown_link_by_link(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """The intermediate is judged as well."""
        intermediate().issue("localhost").write(tmp_path)
        (tmp_path / "root.crt").write_bytes(authority().cert_pem)
        program = launch(upstream=app.upstream, tls_cert=str(tmp_path))
        out = run(tmp_path, "show", f"localhost:{program.port}", "--ca", "root.crt", "--check")
        assert "sent         2 certificates;" in out
        assert "CN=localhost is signed by CN=Test Intermediate CA" in out

    def test_server_without_tls_is_a_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The likely mistake is the wrong port."""
        with listener(b"220 mail.example ESMTP\r\n") as address:
            assert cli_certs.main(["show", address]) == 78
        assert "the TLS handshake failed: wrong version number" in capsys.readouterr().err

    def test_refused_connection_is_a_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody listens there."""
        with Port() as port:
            assert cli_certs.main(["show", str(port)]) == 78
        assert "Connection refused; check the address" in capsys.readouterr().err

    def test_silent_server_costs_no_more_than_the_deadline(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that accepts and says nothing is given up on."""
        monkeypatch.setattr(probe, "CONNECT_SECONDS", 0.3)
        begin = time.monotonic()
        with listener() as address:
            assert cli_certs.main(["show", address]) == 78
        assert 0.3 <= time.monotonic() - begin < 5
        assert "no answer within 0.3 s" in capsys.readouterr().err

    def test_talkative_server_is_cut_off(
        self, program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is read of a handshake is bounded."""
        monkeypatch.setattr(probe, "MAX_HANDSHAKE_BYTES", 100)
        assert cli_certs.main(["show", f"127.0.0.1:{program.port}"]) == 78
        assert "sent over 100 bytes and the TLS handshake is not done" in capsys.readouterr().err

    def test_bad_sni_is_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Found before anything is connected to."""
        assert cli_certs.main(["show", "127.0.0.1:1", "--name", "a b"]) == 2
        assert "'a b' is neither a DNS name" in capsys.readouterr().err
