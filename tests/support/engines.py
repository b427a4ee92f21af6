"""
Container engines: run what a user types, look at containers from outside, take them away at the end.

What an engine test needs and the machine lacks is named; the test is skipped then, but fails where
SIDECAR_REQUIRE_ENGINES is set, as it is in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.program import ROOT, eventually

IMAGE = "tls-sidecar:0.1.0"
"""What the manifests name."""

APP_IMAGE = "hello-app:0.1.0"

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""How the image is to be run: no file system to write to, no capability, nothing to gain any by."""

ENVIRONMENTS = {".venv-deploy": "deploy-tools", ".venv-kube": "kube-tools"}
"""Virtual environment -> target of the Makefile."""

START_SECONDS = 30.0
COMMAND_SECONDS = 600.0


def lacking(what: str) -> None:
    """The machine lacks *what*: skip the test, or fail it where nothing may be lacking."""
    if os.environ.get("SIDECAR_REQUIRE_ENGINES"):
        pytest.fail(f"SIDECAR_REQUIRE_ENGINES is set, and this machine lacks {what}")
    pytest.skip(f"this machine lacks {what}")


def tool(name: str, environment: str = "") -> str:
    """
    Return the path of a program, of the machine or of a virtual environment that the Makefile makes for such tests.

    Args:
        environment: Its name, one of `ENVIRONMENTS`; "": it is a program of the machine.
    """
    path = str(ROOT / environment / "bin" / name) if environment else shutil.which(name)
    if path is None or not os.access(path, os.X_OK):
        where = f" in {environment} (make {ENVIRONMENTS[environment]})" if environment else ""
        lacking(f"the program {name}{where}")
    assert path is not None
    return path


def script(name: str) -> str:
    """Return the path of one of the scripts that run pods and tasks: in CONTAINER_SCRIPTS or beside the checkout."""
    path = Path(os.environ.get("CONTAINER_SCRIPTS") or ROOT.parent / "shared" / "container") / name
    if not path.is_file():
        lacking(f"the script {name} (looked for {path}; CONTAINER_SCRIPTS names another directory)")
    return str(path)


def run(
    *command: str | Path,
    stdin: str | None = None,
    statuses: Sequence[int] = (0,),
    environ: dict[str, str] | None = None,
    cwd: Path = ROOT,
    seconds: float = COMMAND_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in time; its exit status must be one of *statuses*."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=cwd,
        env=None if environ is None else {**os.environ, **environ},
        check=False,
    )
    assert done.returncode in statuses, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def docker(*arguments: str | Path, stdin: str | None = None, statuses: Sequence[int] = (0,)) -> str:
    """Run ``docker``; return what it prints on standard output, without the last line break."""
    return run("docker", *arguments, stdin=stdin, statuses=statuses).stdout.rstrip("\n")


def require_docker() -> None:
    """Find a Docker engine, or the test ends here."""
    if shutil.which("docker") is None:
        lacking("the program docker")
    if run("docker", "version", statuses=range(256)).returncode != 0:
        lacking("a running Docker engine (docker version fails)")


class Container:
    """A container for ``with``: started with ``docker run --detach``, and gone at the end."""

    def __init__(self, image: str, *command: str, options: Sequence[str | Path] = (), hardened: bool = True) -> None:
        """
        Args:
            command: What is handed to the image's entrypoint.
            options: Further ones of ``docker run``.
            hardened: Whether with `HARDENED`.
        """
        self.name = f"sidecar-test-{uuid.uuid4().hex[:12]}"
        harden = HARDENED if hardened else ()
        self._command = ("run", "--detach", "--name", self.name, *harden, *options, image, *command)

    def __enter__(self) -> Self:
        try:
            docker(*self._command)
        except BaseException:
            docker("rm", "--force", "--volumes", self.name, statuses=(0, 1))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"log of {self.name}:\n{self.log}")
        docker("rm", "--force", "--volumes", self.name)

    @property
    def log(self) -> str:
        """Standard output and standard error so far."""
        done = run("docker", "logs", self.name)
        return done.stdout + done.stderr

    @property
    def state(self) -> dict[str, Any]:
        """What the engine says: ``Status``, ``ExitCode``, ``Health`` and more."""
        state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", self.name))
        return state

    @property
    def health(self) -> str:
        """``starting``, ``healthy`` or ``unhealthy``; "" without a health check."""
        return str((self.state.get("Health") or {}).get("Status", ""))

    @property
    def address(self) -> str:
        """Its IPv4 address on the engine's default bridge."""
        return docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name)

    def execute(self, *command: str, statuses: Sequence[int] = (0,)) -> str:
        """Run a command inside; return its standard output."""
        return docker("exec", self.name, *command, statuses=statuses)

    def wait_until_it_says(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait for *text* in the log; fail at once if the container has ended without it."""

        def has_said() -> bool:
            running = self.state["Status"] == "running"
            if text in self.log:
                return True
            assert running, f"{self.name} ended with {self.state['ExitCode']}:\n{self.log}"
            return False

        eventually(has_said, f"{self.name} says {text!r}", seconds)

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Wait for the health check's first success."""
        eventually(lambda: self.health == "healthy", f"{self.name} is healthy, {self.log}", seconds)

    def stop(self) -> int:
        """End it as ``docker stop`` does; return its exit status."""
        docker("stop", self.name)
        return int(self.state["ExitCode"])
