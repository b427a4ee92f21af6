"""
Processes of a run: started on one core, awaited, and always ended by their pids.

Callers are the app, the proxies and the clients; nothing else in the benchmark starts a process
that outlives the call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from bench.errors import StartError
from bench.procfs import process_tree, read_stat

LOOPBACK = "127.0.0.1"
START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0
IMPATIENT_SECONDS = 1.0
"""What a process of a run may take to end: one that drains for longer loses nothing that is measured."""

POLL_SECONDS = 0.001
CONNECT_TIMEOUT_SECONDS = 0.05
LOG_TAIL_LINES = 8


def free_port() -> int:
    """Return a TCP port on the loopback address that the kernel says is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def log_tail(log_path: Path) -> str:
    """Return the last lines of a log, for a message; says so when there are none."""
    text = log_path.read_text(errors="replace") if log_path.exists() else ""
    lines = text.strip().splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(f"    | {line}" for line in lines) or "    | (its log is empty)"


@contextlib.contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Run the block, and start what it starts, on one CPU core, or on some; children inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def logged_process(
    command: Sequence[str],
    *,
    cores: Collection[int],
    log_path: Path,
    environment: Mapping[str, str],
    folder: Path,
    output: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Keep a process running on *cores* for the length of the block; its output goes to a log.

    With *output*, an open descriptor, standard output goes there and only standard error to the log.

    It gets a session of its own: Ctrl-C reaches only the benchmark, which then ends it here.
    """
    with log_path.open("ab") as log, on_core(*cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log if output is None else output,
            stderr=log,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_process(process, timeout_seconds=IMPATIENT_SECONDS)


def end_process(process: subprocess.Popen[bytes], *, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
    """End a process politely, then by force; then whatever of its children is left."""
    children = {pid: read_stat(pid) for pid in process_tree(process.pid)[1:]}
    process.terminate()
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, seen in children.items():
        now = read_stat(pid)
        # The start time tells a child that stayed from a stranger that got its pid.
        if seen and now and now.started_at_ticks == seen.started_at_ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _connection(port: int) -> socket.socket:
    """Connect to a local port; on the loopback this takes no time, or is not worth waiting for."""
    return socket.create_connection((LOOPBACK, port), timeout=CONNECT_TIMEOUT_SECONDS)


def wait_until_listening(process: subprocess.Popen[bytes], *, name: str, port: int, log_path: Path) -> None:
    """
    Return as soon as *port* accepts a connection.

    Raises:
        StartError: The process ended, or did not listen within the time limit.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), _connection(port):
            return
        if process.poll() is not None:
            raise StartError(f"{name} ended with code {process.returncode} before it listened:\n{log_tail(log_path)}")
        time.sleep(POLL_SECONDS)
    raise StartError(f"{name} did not listen on port {port} in {START_TIMEOUT_SECONDS:.0f} s:\n{log_tail(log_path)}")
