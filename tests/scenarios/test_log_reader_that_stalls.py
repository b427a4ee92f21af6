"""Ensures that traffic, signals and new workers do not depend on anybody reading the program log."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import Program, eventually

DRAIN_SECONDS = 5.0
"""The drain timeout of `Program`."""

FILLING = b"~" * 4096
"""A pipe of one page, the smallest there is, is full of it."""

workers = pytest.mark.parametrize("workers", ["1", "2"])


class LogPipe:
    """What standard error leads to: a FIFO that holds one page, and is read when the test says so."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, len(FILLING))
        self.text = ""

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that leads the standard error of another there."""
        return ("sh", "-c", f'exec "$@" 2>"{self.path}"', "sh")

    def read(self) -> str:
        """Return all that has been written to it."""
        try:
            while data := os.read(self._reading, len(FILLING)):
                self.text += data.decode()
        except BlockingIOError:
            pass
        return self.text

    def fill(self) -> None:
        """Leave no room for a single byte."""
        self.read()
        writing = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            size = len(FILLING)
            while size:
                try:
                    os.write(writing, FILLING[:size])
                except BlockingIOError:
                    size //= 2
        finally:
            os.close(writing)

    def close(self) -> None:
        os.close(self._reading)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[LogPipe]:
    pipe = LogPipe(tmp_path / "log")
    yield pipe
    pipe.close()


def start(launch: Launch, app: App, pipe: LogPipe, count: str) -> Program:
    """Start a sidecar whose log is read until it serves, and not any more from then on."""
    program = launch(upstream=app.upstream, prefix=pipe.prefix, workers=count)
    if count != "1":
        eventually(lambda: pipe.read().count(" serves") == int(count), "all workers serve")
    pipe.fill()
    return program


def talk_in_the_log(program: Program, count: str) -> None:
    """Let each process of it log something: reloads, and clients that speak no TLS, of which one tells per worker."""
    program.signal(signal.SIGHUP)
    for _ in range(20 * int(count)):
        with socket.create_connection((program.host, program.port)) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            probe.settimeout(5)
            probe.recv(4096)


def statuses(program: Program) -> set[int]:
    """Ask on some new connections, so that each worker gets some."""
    found = set()
    for _ in range(20):
        with HttpsClient(program) as client:
            found.add(client.get("/hello").status)
    return found


def children(program: Program) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


class TestStalledReader:
    @workers
    def test_traffic_goes_on_and_a_stop_is_obeyed(
        self, launch: Launch, own_app: App, pipe: LogPipe, workers: str
    ) -> None:
        """Lines that nobody reads hold up neither requests nor SIGTERM, which ends it with 0 in time."""
        program = start(launch, own_app, pipe, workers)
        talk_in_the_log(program, workers)
        assert statuses(program) == {200}
        assert program.admin("/live")[0] == 200
        before = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - before < DRAIN_SECONDS

    @workers
    def test_reader_that_comes_back_is_told_all(
        self, launch: Launch, own_app: App, pipe: LogPipe, workers: str
    ) -> None:
        """What was logged meanwhile comes then, and what is logged from then on after it, to the last line."""
        program = start(launch, own_app, pipe, workers)
        talk_in_the_log(program, workers)
        assert statuses(program) == {200}
        pipe.text = ""
        eventually(lambda: pipe.read().count("reloaded") == int(workers), "the reload is in the log")
        assert program.stop() == 0
        lines = pipe.read().lstrip("~").splitlines()
        assert all(line[19:21] == "Z " for line in lines)
        assert "stopped; exchanges cut: 0" in lines[-1] or "has ended" in lines[-1]

    def test_new_worker_serves(self, launch: Launch, own_app: App, pipe: LogPipe) -> None:
        """A worker that takes the place of a dead one starts and serves, whoever does not read that it does."""
        program = start(launch, own_app, pipe, "2")
        old = children(program)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert statuses(program) == {200}
        eventually(lambda: not set(old) & set(children(program)), "the dead workers are replaced")
        assert program.stop() == 0
