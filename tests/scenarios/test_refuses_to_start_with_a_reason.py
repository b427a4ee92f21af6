"""
Ensures that what cannot work does not start: exit status 78, and for each problem one line on standard error that names
the setting, where its value came from, and what to do.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from tests.support.certs import DAY, NOW, Issued, authority
from tests.support.program import ROOT, Port, environment, run_to_end

LINE = re.compile(r"sidecar: (?P<setting>SIDECAR_[A-Z_]+) \((?P<source>environment)\): (?P<fact>.+); (?P<fix>.+)")

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """Addresses to listen on that are free."""
    with Port() as listen, Port() as admin:
        yield {"listen": str(listen), "admin": str(admin)}


def problems(done: subprocess.CompletedProcess[str]) -> list[re.Match[str]]:
    """Check what holds for every refusal; return the problems, one per line."""
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    found = [LINE.fullmatch(line) for line in done.stderr.splitlines()]
    assert found, "it says why"
    assert all(found), done.stderr
    return [match for match in found if match is not None]


def _missing(issued: Issued, cert: Path, key: Path) -> None:
    key.write_bytes(issued.key_pem)


def _missing_key(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.cert_pem)


def _empty(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(b"")
    key.write_bytes(issued.key_pem)


def _not_pem(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(b"certificate, honestly\n")
    key.write_bytes(issued.key_pem)


def _key_not_pem(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.cert_pem)
    key.write_bytes(bytes(range(256)))


def _swapped(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.key_pem)
    key.write_bytes(issued.cert_pem)


def _mismatch(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.cert_pem)
    key.write_bytes(authority().issue("localhost").key_pem)


def _encrypted(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.cert_pem)
    key.write_bytes(issued.encrypted_key_pem())


def _encrypted_traditional(issued: Issued, cert: Path, key: Path) -> None:
    cert.write_bytes(issued.cert_pem)
    key.write_bytes(issued.encrypted_key_pem(PrivateFormat.TraditionalOpenSSL))


def _expired(issued: Issued, cert: Path, key: Path) -> None:
    late = authority().issue("localhost", not_before=NOW - 30 * DAY, not_after=NOW - DAY)
    cert.write_bytes(late.cert_pem)
    key.write_bytes(late.key_pem)


def _not_yet_valid(issued: Issued, cert: Path, key: Path) -> None:
    early = authority().issue("localhost", not_before=NOW + DAY, not_after=NOW + 30 * DAY)
    cert.write_bytes(early.cert_pem)
    key.write_bytes(early.key_pem)


class TestKeyMaterial:
    @pytest.mark.parametrize(
        ("write", "setting", "fact"),
        [
            pytest.param(_missing, "TLS_CERT", "does not exist", id="certificate-missing"),
            pytest.param(_missing_key, "TLS_KEY", "does not exist", id="key-missing"),
            pytest.param(_empty, "TLS_CERT", "is empty", id="empty"),
            pytest.param(_not_pem, "TLS_CERT", "is not PEM", id="certificate-not-pem"),
            pytest.param(_key_not_pem, "TLS_KEY", "is not PEM", id="key-not-pem"),
            pytest.param(_mismatch, "TLS_KEY", "does not match the certificate", id="mismatch"),
            pytest.param(_encrypted, "TLS_KEY", "is encrypted", id="encrypted"),
            pytest.param(_encrypted_traditional, "TLS_KEY", "is encrypted", id="encrypted-traditional"),
            pytest.param(_expired, "TLS_CERT", r"expired on \d{4}-\d\d-\d\d", id="expired"),
            pytest.param(_not_yet_valid, "TLS_CERT", r"is not valid until \d{4}-\d\d-\d\d", id="not-yet-valid"),
        ],
    )
    def test_useless_pair_is_one_line(
        self,
        tmp_path: Path,
        addresses: dict[str, str],
        write: Callable[[Issued, Path, Path], None],
        setting: str,
        fact: str,
    ) -> None:
        """A certificate or key that cannot be used is one problem, of the setting that names it."""
        cert, key = tmp_path / "server.crt", tmp_path / "server.key"
        issued = authority().issue("localhost")
        write(issued, cert, key)

        done = run_to_end(tls_cert=str(cert), tls_key=str(key), **addresses)

        [problem] = problems(done)
        assert problem["setting"] == f"SIDECAR_{setting}"
        assert re.search(fact, problem["fact"])
        assert str(tmp_path) in problem["fact"]
        assert issued.key_pem.decode().splitlines()[1] not in done.stderr

    def test_swapped_files_are_a_problem_each(self, tmp_path: Path, addresses: dict[str, str]) -> None:
        """Both files are named, each with what it holds, and the likely mistake."""
        cert, key = tmp_path / "server.crt", tmp_path / "server.key"
        _swapped(authority().issue("localhost"), cert, key)

        done = run_to_end(tls_cert=str(cert), tls_key=str(key), **addresses)

        assert [problem["setting"] for problem in problems(done)] == ["SIDECAR_TLS_CERT", "SIDECAR_TLS_KEY"]
        assert done.stderr.count("swapped?") == 2

    def test_unreadable_file_names_the_user(self, tmp_path: Path, addresses: dict[str, str]) -> None:
        """A file that the program may not read is one problem that says who may not read it."""
        cert = authority().issue("localhost").write(tmp_path) / "tls.crt"
        cert.chmod(0o000)
        looks = "import sys, sidecar.cli, yaml, attrs; open(sys.argv[1]).close()"
        probe = subprocess.run(
            [*NOBODY, sys.executable, "-c", looks, str(cert)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
        if "PermissionError" not in probe.stderr:
            pytest.skip("this machine has no user who can run the program but not read the file")

        [problem] = problems(run_to_end(*NOBODY, tls_cert=str(cert), **addresses))

        assert problem["setting"] == "SIDECAR_TLS_CERT"
        assert "user 65534" in problem["fact"]
        assert "chmod" in problem["fix"]

    def test_client_ca_that_is_not_there_is_one_line(self, tmp_path: Path, addresses: dict[str, str]) -> None:
        """A missing CA bundle is a problem of SIDECAR_CLIENT_CA."""
        [problem] = problems(run_to_end(client_cert="required", client_ca=str(tmp_path / "ca.pem"), **addresses))

        assert problem["setting"] == "SIDECAR_CLIENT_CA"
        assert "does not exist" in problem["fact"]

    def test_required_without_client_ca_is_one_line(self, addresses: dict[str, str]) -> None:
        """Certificates cannot be required without a CA to check them with."""
        done = run_to_end(client_cert="required", **addresses)

        assert done.returncode == 78
        [line] = done.stderr.splitlines()
        assert line.startswith("sidecar: SIDECAR_CLIENT_CA (default): ")


class TestAddresses:
    def test_taken_port_is_one_line(self, tmp_path: Path) -> None:
        """A port that somebody listens on is a problem that says how to find out who."""
        cert = authority().issue("localhost").write(tmp_path) / "tls.crt"
        with socket.create_server(("127.0.0.1", 0)) as taken, Port() as admin:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            [problem] = problems(run_to_end(tls_cert=str(cert), listen=address, admin=str(admin)))

        assert problem["setting"] == "SIDECAR_LISTEN"
        assert address in problem["fact"]
        assert "ss -ltnp" in problem["fix"]

    def test_both_taken_ports_are_reported(self, tmp_path: Path) -> None:
        """Two taken ports are two problems of one round."""
        cert = authority().issue("localhost").write(tmp_path) / "tls.crt"
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            listen, admin = (f"127.0.0.1:{taken.getsockname()[1]}" for taken in (one, other))
            found = problems(run_to_end(tls_cert=str(cert), listen=listen, admin=admin))

        assert [problem["setting"] for problem in found] == ["SIDECAR_LISTEN", "SIDECAR_ADMIN"]

    def test_foreign_address_is_one_line(self, tmp_path: Path) -> None:
        """An address that this machine does not have is a problem."""
        cert = authority().issue("localhost").write(tmp_path) / "tls.crt"
        with Port() as admin:
            [problem] = problems(run_to_end(tls_cert=str(cert), listen="192.0.2.1:8443", admin=str(admin)))

        assert problem["setting"] == "SIDECAR_LISTEN"


class TestStatus:
    @pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
    def test_status_is_78_also_if_nobody_can_be_told(self, addresses: dict[str, str], redirection: str) -> None:
        """What supervises the program reads the status: it does not depend on standard error."""
        done = run_to_end("sh", "-c", f'exec "$@" {redirection}', "sh", bogus="1", **addresses)

        assert done.returncode == 78


class TestSettings:
    def test_unknown_variable_is_one_line_with_a_suggestion(self, addresses: dict[str, str]) -> None:
        """A misspelt variable is refused, and the right one named."""
        [problem] = problems(run_to_end(upstrem="http://127.0.0.1:1", **addresses))

        assert problem["setting"] == "SIDECAR_UPSTREM"
        assert "SIDECAR_UPSTREAM" in problem["fix"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("listen", "everywhere"),
            ("listen", "127.0.0.1:0"),
            ("listen", "127.0.0.1:99999"),
            ("upstream", "ftp://127.0.0.1:8443"),
            ("upstream", "127.0.0.1"),
            ("drain_timeout", "-1"),
            ("drain_timeout", "soon"),
            ("max_header_bytes", "60 Kilo"),
            ("max_connections", "0"),
            ("tls_policy", "ancient"),
            ("client_cert", "yes"),
            ("access_log", "xml"),
        ],
    )
    def test_value_that_cannot_be_is_one_line(self, addresses: dict[str, str], name: str, value: str) -> None:
        """A value out of its kind or bounds is a problem of its setting."""
        [problem] = problems(run_to_end(**{**addresses, name: value}))

        assert problem["setting"] == f"SIDECAR_{name.upper()}"

    def test_all_problems_are_reported_at_once(self, tmp_path: Path, addresses: dict[str, str]) -> None:
        """One round of mending is enough."""
        found = problems(
            run_to_end(
                tls_cert=str(tmp_path / "none.crt"),
                client_cert="optional",
                client_ca=str(tmp_path / "none.pem"),
                idle_timeot="1s",
                max_headers="many",
                **addresses,
            )
        )

        assert {problem["setting"] for problem in found} == {
            "SIDECAR_IDLE_TIMEOT",
            "SIDECAR_MAX_HEADERS",
            "SIDECAR_TLS_CERT",
            "SIDECAR_CLIENT_CA",
        }
        assert len(found) == 4


class TestArchitecture:
    """A compiled dependency that cannot be loaded is named, in one line."""

    @staticmethod
    def version_with(tmp_path: Path, library: bytes) -> subprocess.CompletedProcess[str]:
        """Run a command that needs pyOpenSSL, in whose place *library* is found."""
        (tmp_path / "OpenSSL.abi3.so").write_bytes(library)
        return subprocess.run(
            [sys.executable, "-m", "sidecar", "version"],
            env={**environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )

    @pytest.mark.parametrize(
        "library", [b"\x7fELF\x01\x01\x01" + bytes(57), b"MZ" + bytes(62)], ids=["32 bits", "no ELF"]
    )
    def test_library_of_another_machine_says_what_to_get(self, tmp_path: Path, library: bytes) -> None:
        """No restart helps."""
        done = self.version_with(tmp_path, library)
        assert (done.returncode, done.stdout) == (78, "")
        assert re.fullmatch(rf"sidecar: {tmp_path}/\S+\.so cannot be loaded \(.+\): .+; .+ linux/\w+\n", done.stderr)

    def test_library_that_fails_otherwise_is_not_blamed_on_that(self, tmp_path: Path) -> None:
        """What the system says stands there, and a restart may help."""
        done = self.version_with(tmp_path, b"\x7fELF\x02\x01\x01" + bytes(57))
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"sidecar: {tmp_path}/\S+\.so cannot be loaded \(.+\)\n", done.stderr)
