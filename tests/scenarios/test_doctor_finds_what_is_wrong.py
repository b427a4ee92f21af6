"""
Ensures that `sidecar doctor`, run as an operator would beside the real program, finds what is wrong with certificates,
ports, the app and a renewal that is not served, raises no alarm where all is well, and is done within five seconds.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import CLIENT, DAY, NOW, authority, intermediate, reveals
from tests.support.grpcapp import GrpcApp
from tests.support.program import ROOT, Port, environment, sidecar_command

DEADLINE_SECONDS = 5.0

OF_THE_PLACE = {
    *("user", "capabilities", "no-new-privileges", "seccomp", "root-filesystem"),
    *("descriptors", "memory", "cpu", "stop-timeout", "key-file", "mount"),
}
"""Checks whose findings depend on where the tests run."""


def doctor(*options: str, **settings: str | None) -> list[tuple[str, str, str]]:
    """Run it; return severity, check and fact of what it finds, worst first, which its exit status must fit."""
    done = sidecar_command("doctor", "--json", *options, **settings)
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    counts = answer["counts"]
    assert done.returncode == (78 if counts["error"] else 1 if counts["warning"] else 0)
    return [(each["severity"], each["check"], each["fact"]) for each in answer["findings"]]


def alarms(findings: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What is not well, but for what depends on the machine."""
    pairs = [(severity, check) for severity, check, _ in findings if check not in OF_THE_PLACE]
    return [pair for pair in pairs if pair[0] in ("error", "warning", "note")]


def wrong(findings: list[tuple[str, str, str]]) -> list[str]:
    """The checks with errors."""
    return [check for severity, check, _ in findings if severity == "error"]


class TestRunningProgram:
    def test_good_deployment_raises_no_alarm(self, launch: Launch, own_app: App, tmp_path: Path) -> None:
        """Certificate, ports, app and the program itself are as they should be."""
        cert = str(intermediate().issue("localhost", "app.example").write(tmp_path))
        settings = {"upstream": own_app.upstream, "tls_cert": cert}
        program = launch(**settings)
        addresses = {"listen": f"127.0.0.1:{program.port}", "admin": f"127.0.0.1:{program.admin_port}"}
        others = {"drain_timeout": "5s", "lame_duck": "0"}
        findings = doctor("--name", "app.example", "--balancer", "alb", **settings, **addresses, **others)
        assert [each for each in alarms(findings) if each != ("note", "balancer")] == []
        well = {check for severity, check, _ in findings if severity == "ok"}
        assert well >= {"running", "served", "same-settings", "port", "app", "app-exposed", "chain", "names", "expiry"}

    def test_renewal_that_is_not_served_is_found(self, launch: Launch, own_app: App, tmp_path: Path) -> None:
        """Here because nobody looks for changes; a reload mends it."""
        cert = str(authority().issue("localhost").write(tmp_path))
        settings = {"upstream": own_app.upstream, "tls_cert": cert, "reload_interval": "0"}
        program = launch(**settings)
        addresses = {"listen": f"127.0.0.1:{program.port}", "admin": f"127.0.0.1:{program.admin_port}"}
        authority().issue("localhost").write(tmp_path)
        assert wrong(doctor(**settings, **addresses)) == ["served"]

        request = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", program.admin_port), 10) as sock:
            sock.sendall(request)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert wrong(doctor(**settings, **addresses)) == []

    def test_app_that_went_away_is_found(self, launch: Launch, tmp_path: Path) -> None:
        """As an error, since clients notice."""
        with App() as app:
            upstream = app.upstream
            program = launch(upstream=upstream)
        addresses = {"listen": f"127.0.0.1:{program.port}", "admin": f"127.0.0.1:{program.admin_port}"}
        assert "app" in wrong(doctor(upstream=upstream, tls_cert=str(program.directory / "tls.crt"), **addresses))


class TestBeforeTheStart:
    def test_everything_wrong_with_certificates_comes_at_once(self, tmp_path: Path) -> None:
        """Expired, with the key of another, for other names, below a CA that is no root, and no key is shown."""
        old = authority().issue("old.example", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
        old.write(tmp_path)
        key = authority().issue("another").key_pem
        (tmp_path / "tls.key").write_bytes(key)
        client = authority().issue("us", purposes=CLIENT)
        (tmp_path / "ca.crt").write_bytes(client.cert_pem)
        done = sidecar_command(
            *("doctor", "--outside", "--name", "app.example"),
            tls_cert=str(tmp_path),
            client_cert="required",
            client_ca=str(tmp_path / "ca.crt"),
        )
        assert done.returncode == 78
        lines = done.stdout.splitlines()
        beginnings = [" ".join(line.split()[:2]) for line in lines if line.startswith("error: ")]
        assert beginnings == ["error: client-ca:", "error: key:", "error: certificate:", "error: names:"]
        assert lines[-1].startswith("4 errors, ")
        assert not reveals(done.stdout, key.decode().splitlines()[2])

    def test_ports_of_others_are_found(self, tmp_path: Path) -> None:
        """The listener's and the admin page's alike."""
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            one.listen()
            findings = doctor(
                listen=f"127.0.0.1:{one.getsockname()[1]}", admin=f"127.0.0.1:{other.getsockname()[1]}", health="off"
            )
        assert wrong(findings) == ["port", "port"]

    def test_app_on_every_address_is_found(self) -> None:
        """Whoever reaches the machine goes round TLS."""
        with Port() as listen, Port() as admin, socket.create_server(("0.0.0.0", 0)) as app:
            number = app.getsockname()[1]
            findings = doctor(
                "--stop-timeout=60s", listen=str(listen), admin=str(admin), upstream=f"127.0.0.1:{number}", mode="tcp"
            )
        assert ("warning", "app-exposed") in alarms(findings)

    def test_app_that_speaks_tls_is_found(self, launch: Launch, own_app: App) -> None:
        """Another sidecar in its place does."""
        behind = launch(upstream=own_app.upstream)
        with Port() as listen, Port() as admin:
            findings = doctor(listen=str(listen), admin=str(admin), upstream=f"127.0.0.1:{behind.port}")
        assert wrong(findings) == ["app"]
        assert any("speaks TLS" in fact for _, _, fact in findings)

    def test_grpc_server_and_web_app_are_told_apart(self, launch: Launch, own_app: App, tmp_path: Path) -> None:
        """Each is well where it is expected, and known where the other is."""
        web_app = launch(
            upstream=own_app.upstream, listen_tls="off", tls_cert=None
        )  # another sidecar, which speaks HTTP/1.1
        with GrpcApp(tmp_path / "grpc") as grpc_app:
            facts = [said_of_app(grpc_app.upstream), said_of_app(f"http://{grpc_app.address}")]
        facts.append(said_of_app(f"h2c://127.0.0.1:{web_app.port}"))
        assert [severity for severity, _ in facts] == ["ok", "error", "error"]
        assert facts[0][1] == f"the app at {grpc_app.address} speaks HTTP/2"
        assert "speaks HTTP/2 without TLS, and SIDECAR_UPSTREAM says http" in facts[1][1]
        assert "does not speak HTTP/2 without TLS but HTTP/1.1" in facts[2][1]


def said_of_app(upstream: str) -> tuple[str, str]:
    """Severity and fact of what the doctor finds at the app, while the sidecar does not run."""
    with Port() as listen, Port() as admin:
        findings = doctor(listen=str(listen), admin=str(admin), upstream=upstream)
    return next((severity, fact) for severity, check, fact in findings if check == "app")


class TestCost:
    def test_nobody_can_hold_it_up(self) -> None:
        """Whoever is asked and says nothing, in every place, costs less than five seconds together."""
        with Port() as listen, socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            begin = time.monotonic()
            done = sidecar_command(
                *("doctor", "--clock", address),
                listen=str(listen),
                admin=address,
                health=f"127.0.0.2:{silent.getsockname()[1]}",
                upstream=f"{address},127.0.0.1:1,127.0.0.1:2,127.0.0.1:3",
            )
        assert time.monotonic() - begin < DEADLINE_SECONDS
        assert done.stdout.splitlines()[-1].endswith(")")

    def test_it_loads_neither_the_event_loop_nor_openssl_for_servers(self) -> None:
        """On a quarter of a CPU that would take longer than all it does."""
        code = "import sys; from sidecar.cli import main; main(['doctor', '--outside'])\n"
        code += "print(sorted({'twisted', 'OpenSSL', 'yaml', 'prometheus_client', 're2'} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS * 2,
        )
        assert done.stdout.splitlines()[-1] == "[]", done.stderr
