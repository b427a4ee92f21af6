"""Starts `bench.httpsclient` on the load generator's core and speaks with it."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import attrs

from bench.errors import MeasurementError
from bench.httpsclient import Target, WorkDone
from bench.launch import end_process, log_tail, on_core

REPOSITORY = Path(__file__).resolve().parent.parent
PREPARE_TIMEOUT_SECONDS = 60.0
WORK_TIMEOUT_SECONDS = 180.0


@attrs.frozen(kw_only=True)
class HttpsClient:
    """A prepared client; its connections stay open until the block that started it ends."""

    process: subprocess.Popen[bytes]
    log_path: Path

    def work(self) -> WorkDone:
        """
        Let it do its units of work, once more if it did before; return what it achieved.

        Raises:
            MeasurementError: It failed at any unit of work, or did not end in time.
        """
        _pipe(self.process.stdin).write(b"go\n")
        done = WorkDone(**json.loads(self.read_line(WORK_TIMEOUT_SECONDS)))
        if done.failed or not done.done:
            raise MeasurementError(f"{done.failed} of {done.failed + done.done} failed: {done.first_error}")
        return done

    def read_line(self, timeout_seconds: float) -> str:
        """
        Return the next line it prints.

        Raises:
            MeasurementError: It printed none in time, or ended; with the end of its log.
        """
        output = _pipe(self.process.stdout)
        readable, _, _ = select.select([output], [], [], timeout_seconds)
        line = output.readline() if readable else b""
        if not line:
            why = "ended early" if readable else f"said nothing for {timeout_seconds:.0f} s"
            raise MeasurementError(f"the client {why}:\n{log_tail(self.log_path)}")
        return line.decode()


@contextlib.contextmanager
def https_client(
    target: Target,
    *,
    mode: str,
    count: int,
    workers: int,
    core: int,
    log_path: Path,
    environment: Mapping[str, str],
) -> Iterator[HttpsClient]:
    """
    Keep a prepared client for the length of the block.

    Raises:
        MeasurementError: Its preparation failed.
    """
    options = {
        "--port": str(target.port),
        "--certificate": target.certificate_path,
        "--client": target.client_path,
        "--greeting": target.greeting.decode(),
        "--transfer-bytes": str(target.transfer_bytes),
        "--count": str(count),
        "--workers": str(workers),
    }
    command = [sys.executable, "-m", "bench.httpsclient", mode]
    command += [word for option in options.items() for word in option]
    with log_path.open("wb") as log, on_core(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            cwd=REPOSITORY,
            bufsize=0,
            start_new_session=True,
        )
    try:
        client = HttpsClient(process=process, log_path=log_path)
        client.read_line(PREPARE_TIMEOUT_SECONDS)
        yield client
    finally:
        end_process(process)
        _pipe(process.stdin).close()
        _pipe(process.stdout).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a stream that was asked for as a pipe, for the type checker's sake."""
    assert stream is not None
    return stream
