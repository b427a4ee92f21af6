"""
The program itself as a child process: start it, wait until it is ready, look at it from outside, stop it.

Used by the scenario tests. Nothing here sleeps in the hope that something has happened by then: every wait is for a
condition, with a deadline.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

import sidecar
from tests.support.certs import authority, rsa_key

ROOT = Path(sidecar.__file__).parent.parent

COMMAND = (sys.executable, "-m", "sidecar", "run")

READY_SECONDS = 10.0
STOP_SECONDS = 10.0
WAIT_SECONDS = 10.0

_LOOK_SECONDS = 0.02


def eventually(condition: Callable[[], bool], what: str, deadline_seconds: float = WAIT_SECONDS) -> None:
    """Wait until *condition* holds; fail, naming *what* was waited for, if it does not in time."""
    until = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < until, f"not within {deadline_seconds:g} s: {what}"
        time.sleep(_LOOK_SECONDS)


class Port:
    """
    A TCP port from the kernel, kept free for one process.

    The socket is bound but never listens: the kernel gives the port to nobody who asks for any port, lets a server
    that sets SO_REUSEADDR listen on it, and refuses connections while none does.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.number}" if ":" in self.host else f"{self.host}:{self.number}"

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def installed(tool: str) -> str:
    """Return *tool* if the machine has it; skip the test if not, unless TESTS_REQUIRE_TOOLS is set: then it fails."""
    if shutil.which(tool) is None and not os.environ.get("TESTS_REQUIRE_TOOLS"):
        pytest.skip(f"the program {tool} is not installed")
    return tool


class Neighbour:
    """Another program that serves on this machine, a balancer or an app, for ``with``; it must not end by itself."""

    def __init__(self, directory: Path, port: Port, *command: str) -> None:
        """
        Args:
            directory: For what it writes to its standard outputs, into a file named after its port.
            port: What it listens on.
            command: What runs it in the foreground.
        """
        self.port = port
        self._command = command
        self._output = directory / f"neighbour-{port.number}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        has_ended_by_itself = self._process is not None and not self.is_running
        self.kill()
        assert not has_ended_by_itself, self.output

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        return self._output.read_text()

    def start(self) -> None:
        """Start it, anew too, and wait until it listens."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [installed(self._command[0]), *self._command[1:]],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

        def listens() -> bool:
            assert self.is_running, self.output
            return is_listening(self.port)

        try:
            eventually(listens, f"{self._command[0]} listens", READY_SECONDS)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a crash would, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def is_listening(port: Port) -> bool:
    """Whether somebody listens on *port*; he is not connected to, so that he counts no client that is none."""
    table = Path("/proc/net/tcp6" if ":" in port.host else "/proc/net/tcp").read_text()
    rows = (line.split() for line in table.splitlines()[1:])
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port.number for row in rows)


def environment(**settings: str | None) -> dict[str, str]:
    """Our environment with exactly these *settings*, named as in the YAML file: ``tls_cert`` is SIDECAR_TLS_CERT."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    environ |= {f"SIDECAR_{name.upper()}": value for name, value in settings.items() if value is not None}
    return environ


def server_certificate(directory: Path) -> Path:
    """Write a certificate for localhost from `certs.authority()`, and its key, to *directory*; return the former."""
    issued = authority().issue("localhost", "127.0.0.1", "::1", key=rsa_key())
    return issued.write(directory) / "tls.crt"


class Program:
    """
    A running sidecar.

    Attributes:
        directory: For its files, and what belongs to it.
        port: Where it serves TLS, on `host`.
        admin_port: Where it serves its admin pages, on 127.0.0.1.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        stdout: int | IO[bytes] | None = None,
        may_log_traceback: bool = False,
        exit_status: int = 0,
        **settings: str | None,
    ) -> None:
        """
        Start it. `wait_until_ready` is the caller's, or that of ``with``.

        Args:
            directory: Made if it is not there.
            host: Address to listen on.
            prefix: A command that runs it.
            stdout: Where its standard output goes; None: to where the attribute `stdout` reads it.
            may_log_traceback: Whether a traceback on standard error is no failure.
            exit_status: What it is to end with.
            settings: As for `environment`. Without ``tls_cert`` it gets one for localhost; None leaves one out.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._may_log_traceback = may_log_traceback
        self._exit_status = exit_status
        self._ports = (Port(host), Port())
        self.host = host
        self.port = self._ports[0].number
        self.admin_port = self._ports[1].number
        if "tls_cert" not in settings:
            settings["tls_cert"] = str(server_certificate(directory))
        settings.setdefault("listen", str(self._ports[0]))
        settings.setdefault("admin", str(self._ports[1]))
        settings.setdefault("drain_timeout", "5s")
        settings.setdefault("lame_duck", "0")  # the tests may run in a container
        self._stdout = directory / "stdout"
        self._stderr = directory / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [*prefix, *COMMAND],
                env=environment(**settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
            )

    # -- life --

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait_until_ready(self) -> None:
        """Wait until the admin page /ready says 200."""
        self._wait_for_page("/ready", "the sidecar is ready")

    def wait_until_live(self) -> None:
        """Wait until it serves, ready or not."""
        self._wait_for_page("/live", "the sidecar is alive")
        eventually(lambda: "serving " in self.stderr, "it serves")

    def _wait_for_page(self, path: str, what: str) -> None:
        def answers() -> bool:
            assert self.is_running, f"it ended with status {self._process.returncode}: {self.stderr}"
            try:
                return self.admin(path)[0] == 200
            except ConnectionError:
                return False

        eventually(answers, what, READY_SECONDS)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze it for the block: what happens meanwhile, it learns all at once afterwards."""
        self.signal(signal.SIGSTOP)
        try:
            eventually(lambda: self._status("State").startswith("T"), "the process is stopped")
            yield
        finally:
            self.signal(signal.SIGCONT)

    def wait(self, deadline_seconds: float = STOP_SECONDS) -> int:
        """Wait until it has ended; return its exit status."""
        return self._process.wait(deadline_seconds)

    def stop(self, deadline_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and wait until it has ended; return its exit status."""
        self.signal()
        return self.wait(deadline_seconds)

    def close(self) -> None:
        """End it if it still runs, whatever it takes; then judge how it ended and what it wrote."""
        try:
            if self.is_running:
                self.stop()
        finally:
            self._kill()
        assert self._process.returncode == self._exit_status, self.stderr
        assert self._may_log_traceback or "Traceback" not in self.stderr, self.stderr

    def _kill(self) -> None:
        if self.is_running:
            self._process.kill()
            self._process.wait()
        for port in self._ports:
            port.close()

    # -- what it looks like from outside --

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def access_log(self) -> list[dict[str, Any]]:
        """The access log so far, if its format is JSON."""
        return [json.loads(line) for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]

    def logged(self, path: str) -> dict[str, Any]:
        """Wait for the access log line of a request for *path*; return the last one."""
        lines: list[dict[str, Any]] = []

        def found() -> bool:
            lines[:] = [line for line in self.access_log() if line.get("path") == path]
            return bool(lines)

        eventually(found, f"{path} is in the access log")
        return lines[-1]

    def admin(self, path: str) -> tuple[int, bytes]:
        """Return status and body of an admin page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metric(self, name: str) -> int:
        """Return the value of a metric, labels and all in *name*, less its prefix; 0 if it is not there."""
        for line in self.admin("/stats/prometheus")[1].decode().splitlines():
            if line.startswith(f"sidecar_{name} "):
                return int(float(line.rpartition(" ")[2]))
        return 0

    def descriptors(self) -> list[str]:
        """What its open descriptors are, sorted: ``socket``, ``pipe``, ``anon_inode``, or the path of a file."""
        found = []
        for descriptor in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(FileNotFoundError):  # closed in this moment
                found.append(os.readlink(f"/proc/{self.pid}/fd/{descriptor}").partition(":")[0])
        return sorted(found)

    def resident_bytes(self) -> int:
        return int(self._status("VmRSS").split()[0]) * 1024

    def _status(self, name: str) -> str:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith(f"{name}:")).partition(":")[2].strip()


def sidecar_command(*words: str, **settings: str | None) -> subprocess.CompletedProcess[str]:
    """Run ``sidecar`` with *words* such as ``check``, to its end; *settings* as for `environment`."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environment(**settings),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
    )


def run_to_end(*prefix: str, **settings: str | None) -> subprocess.CompletedProcess[str]:
    """
    Start the program where it cannot serve; return how it ended.

    Args:
        prefix: A command that runs it.
        settings: As for `environment`.
    """
    return subprocess.run(
        [*prefix, *COMMAND],
        env=environment(**{"wait": "0", **settings}),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
    )
