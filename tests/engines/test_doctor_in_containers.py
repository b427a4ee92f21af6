"""Ensures that `sidecar doctor` sees in a container what is to be seen there, and nothing that is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certs import authority
from tests.support.engines import Container, run

SIDECAR = {"SIDECAR_TLS_CERT": "/certs", "SIDECAR_LAME_DUCK": "0"}


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A certificate for app.example that the image's user can read, as a volume."""
    authority().issue("app.example").write(tmp_path)
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="module")
def app(app_image: str) -> Iterator[Container]:
    """An app that listens on localhost alone."""
    with Container(app_image, hardened=False) as running:
        running.wait_until_healthy()
        yield running


def serve(image: str, app: Container, certs: Path, *options: str, hardened: bool = True) -> Container:
    """The sidecar beside *app*."""
    settings = [part for name, value in SIDECAR.items() for part in ("--env", f"{name}={value}")]
    beside = ["--network", f"container:{app.name}", "--volume", f"{certs}:/certs:ro", *settings, *options]
    return Container(image, options=beside, hardened=hardened)


def examine(sidecar: Container, *options: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The doctor's exit status, and what it found by severity, in the running container."""
    sidecar.wait_until_it_says("serving https")
    done = run("docker", "exec", sidecar.name, "sidecar", "doctor", "--json", *options, statuses=(0, 1, 78))
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(done.stdout)["findings"]:
        found.setdefault(each["severity"], []).append(each)
    return done.returncode, found


def checks(findings: list[dict[str, Any]]) -> set[str]:
    return {each["check"] for each in findings}


class TestDoctor:
    def test_good_container_is_found_good(self, image: str, app: Container, certs: Path) -> None:
        """Hardened, with a certificate that clients can check, beside an app on localhost: nothing to warn of."""
        with serve(image, app, certs) as sidecar:
            status, found = examine(sidecar, "--name", "app.example", "--stop-timeout", "30s")
        assert status == 0, found
        assert "error" not in found
        assert "warning" not in found
        expected = {"names", "expiry", "app", "app-exposed", "capabilities", "root-filesystem", "user", "stop-timeout"}
        assert expected <= checks(found["ok"])

    def test_app_for_everybody_is_found(self, image: str, app_image: str, certs: Path) -> None:
        """An app on all addresses can be asked without TLS, as the doctor says."""
        with Container(app_image, options=["--env", "HOST=0.0.0.0"], hardened=False) as app:
            app.wait_until_healthy()
            with serve(image, app, certs) as sidecar:
                status, found = examine(sidecar)
                plain = run("curl", "--silent", f"http://{app.address}:8080/service").stdout
        assert plain.startswith("Hello")
        assert status == 1
        assert "app-exposed" in checks(found["warning"])

    def test_soft_container_is_found_soft(self, image: str, app: Container, certs: Path) -> None:
        """Root, with capabilities and a file system to write to."""
        with serve(image, app, certs, "--user", "0", hardened=False) as sidecar:
            status, found = examine(sidecar)
        assert status == 1
        assert {"user", "capabilities"} <= checks(found["warning"])
        assert {"root-filesystem", "no-new-privileges"} <= checks(found["note"])

    def test_renewal_of_a_single_file_that_is_not_seen(self, image: str, app: Container, certs: Path) -> None:
        """A file that is mounted by itself stays what it was when it is replaced outside: noted before it matters."""
        with Container(
            image,
            options=[
                *("--network", f"container:{app.name}", "--env", "SIDECAR_TLS_CERT=/tls.crt"),
                *("--volume", f"{certs}/tls.crt:/tls.crt:ro", "--volume", f"{certs}/tls.key:/tls.key:ro"),
            ],
        ) as sidecar:
            _, found = examine(sidecar)
        assert "mount" in checks(found["note"])
