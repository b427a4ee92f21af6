"""Closed-loop HTTP/2 load over TLS by `h2load`: the command, and what its output says."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from bench.errors import MeasurementError
from bench.launch import LOOPBACK, end_process, on_core

CONNECTIONS = 10
STREAMS = 10
WINDOW_BITS = 22
"""Flow control windows of 4 MiB, about those of browsers and of Go; h2load's own 1 GiB would switch it off."""

CIPHER = "TLS_AES_256_GCM_SHA384"
"""The suite that all proxies choose with the other clients; h2load would put a shorter key first."""

TIMEOUT_SECONDS = 120.0

PROTOCOL_PATTERN = re.compile(r"^Application protocol: (\S+)$", re.MULTILINE)
FINISHED_PATTERN = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
SUCCEEDED_PATTERN = re.compile(r"^requests: .* (\d+) succeeded,", re.MULTILINE)
STATUS_PATTERN = re.compile(r"^status codes: (\d+) 2xx,", re.MULTILINE)
DATA_PATTERN = re.compile(r"^traffic: .* \((\d+)\) data$", re.MULTILINE)
SECONDS_PER_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@attrs.frozen(kw_only=True)
class Load:
    """
    What one h2load does: *requests* in all, each connection going through *paths* in order, again and again.

    *answer_bytes* is the length of the body that the app answers each with. *fields* are `name: value`,
    the same in every request. With a *body_path* every request is a POST of that file.
    """

    paths: Sequence[str]
    requests: int
    answer_bytes: int
    connections: int = CONNECTIONS
    streams: int = STREAMS
    fields: tuple[str, ...] = ()
    body_path: Path | None = None


@attrs.frozen(kw_only=True)
class H2loadReport:
    """
    What one run of h2load saw: answers with 2xx, and the bytes of their bodies.

    *protocol* is what ALPN agreed on; empty if on nothing.
    """

    protocol: str
    seconds: float
    successes: int
    data_bytes: int

    @property
    def requests_per_second(self) -> float:
        """Return the mean rate over the run."""
        return self.successes / self.seconds


def parse_report(text: str) -> H2loadReport:
    """
    Parse the output of h2load.

    Raises:
        MeasurementError: It holds no totals, so h2load did not finish a run.
    """
    finished, data = FINISHED_PATTERN.search(text), DATA_PATTERN.search(text)
    succeeded, statuses = SUCCEEDED_PATTERN.search(text), STATUS_PATTERN.search(text)
    if finished is None or data is None or succeeded is None or statuses is None:
        raise MeasurementError(f"h2load printed no totals: {text.strip()[-200:]!r}")
    protocol = PROTOCOL_PATTERN.search(text)
    return H2loadReport(
        protocol=protocol[1] if protocol else "",
        seconds=float(finished[1]) * SECONDS_PER_UNIT[finished[2]],
        # Neither says it alone: a stream may be reset behind its status, and an answer with 3xx succeeds.
        successes=min(int(succeeded[1]), int(statuses[1])),
        data_bytes=int(data[1]),
    )


def check_report(report: H2loadReport, load: Load) -> H2loadReport:
    """
    Return the report if all of *load* was done over HTTP/2, every answer 2xx and of the right length.

    Raises:
        MeasurementError: It was not.
    """
    if report.protocol != "h2":
        raise MeasurementError(f"ALPN agreed on {report.protocol or 'nothing'}, not on h2")
    if report.successes != load.requests:
        raise MeasurementError(f"h2load saw {report.successes:,} answers with 2xx to {load.requests:,} requests")
    expected_bytes = load.requests * load.answer_bytes
    if report.data_bytes != expected_bytes:
        raise MeasurementError(f"the bodies of all answers have {report.data_bytes:,} bytes, not {expected_bytes:,}")
    return report


def run_h2load(executable: str, loads: Sequence[Load], *, port: int, core: int, folder: Path) -> H2loadReport:
    """
    Put all *loads* on a proxy at the same time, each by an h2load of its own; return what they saw together.

    Raises:
        MeasurementError: As `parse_report` and `check_report`, or one did not end in time.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with ExitStack() as stack:
        # All lists of addresses are written before the first one starts.
        files = [stack.enter_context(_uris_file(load, port, folder)) for load in loads]
        commands = [h2load_command(executable, load, path) for load, path in zip(loads, files, strict=True)]
        processes = [stack.enter_context(_process(command, core, folder)) for command in commands]
        outputs = [_output_of(process, deadline) for process in processes]
    return merge([check_report(parse_report(text), load) for text, load in zip(outputs, loads, strict=True)])


def h2load_command(executable: str, load: Load, uris_path: Path) -> list[str]:
    """Return the command that puts *load* on the addresses in a file."""
    # With h2 alone on offer there is no falling back to HTTP/1.1, on no connection.
    command = [executable, "--npn-list=h2", f"--tls13-ciphers={CIPHER}", f"-i{uris_path}", f"-n{load.requests}"]
    command += [f"-c{load.connections}", f"-m{load.streams}", f"-w{WINDOW_BITS}", f"-W{WINDOW_BITS}"]
    command += [word for field in load.fields for word in ("-H", field)]
    return [*command, f"-d{load.body_path}"] if load.body_path else command


def merge(reports: Sequence[H2loadReport]) -> H2loadReport:
    """Add up what several saw that ran at the same time, all over one protocol."""
    return H2loadReport(
        protocol=reports[0].protocol,
        seconds=max(report.seconds for report in reports),
        successes=sum(report.successes for report in reports),
        data_bytes=sum(report.data_bytes for report in reports),
    )


@contextmanager
def _uris_file(load: Load, port: int, folder: Path) -> Iterator[Path]:
    """Keep a file with the addresses of *load* for the length of the block."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="uris-") as uris:
        uris.writelines(f"https://{LOOPBACK}:{port}{path}\n" for path in load.paths)
        uris.flush()
        yield Path(uris.name)


@contextmanager
def _process(command: Sequence[str], core: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Keep an h2load running for the length of the block, or until it is done."""
    with on_core(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                end_process(process)


def _output_of(process: subprocess.Popen[bytes], deadline: float) -> str:
    """Return all that an h2load prints; it is less than a pipe holds, so nobody waits for us to read it."""
    try:
        output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"h2load did not end within {TIMEOUT_SECONDS:.0f} s") from error
    return output.decode(errors="replace")
