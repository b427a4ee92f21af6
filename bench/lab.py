"""
What a row of the benchmark works with: the run's folder, cores and app, and proxies to measure.

`Lab` starts proxies and puts load on them; `RunningProxy` is one of them, with its readings.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from bench import unary
from bench.app import GREETING, TRANSFER_BYTES, App
from bench.certificate import CLIENT_NAME, CertificateFiles
from bench.clients import REPOSITORY, HttpsClient, https_client
from bench.errors import StartError
from bench.h2load import H2loadReport, Load, run_h2load
from bench.httpsclient import BadAnswerError, Target, negotiated_cipher, told_client
from bench.launch import (
    START_TIMEOUT_SECONDS,
    free_port,
    log_tail,
    logged_process,
    wait_until_listening,
)
from bench.loads import unary_load
from bench.paced import PacedReport, run_paced
from bench.peers import InstalledPeer
from bench.placement import Mode, Placement, Setup, StartLine
from bench.procfs import CpuTime, read_alone_bytes, read_cpu_time, read_pss_bytes, read_thread_ns
from bench.sink import LineSink, line_sink
from bench.wrk import WrkReport, run_wrk

# A proxy may still be closing connections when the client already has its answers.
SETTLE_SECONDS = 0.1
RETRY_SECONDS = 0.002
CLIENT_WORKERS = 16
PLAIN = Setup()
CLIENT_ERRORS = (OSError, ssl.SSLError, BadAnswerError, ValueError)


@attrs.frozen(kw_only=True)
class Effort:
    """How much work each measurement is made of."""

    wrk_seconds: int = 4
    warm_up_seconds: int = 1
    warm_up_requests: int = 6_000
    connections: int = 2000
    requests: int = 60_000
    transfers: int = 4
    idle_connections: int = 1000
    open_connections: tuple[int, ...] = (10, 1_000, 10_000)
    paced_rate: int = 2_000
    paced_seconds: int = 5
    slow_readers: int = 100

    @property
    def many_connections(self) -> int:
        """Return the most connections that are open in any row."""
        return max(self.open_connections)

    starts: int = 3


@attrs.frozen(kw_only=True)
class Cores:
    """The two CPU cores in use: one for the proxy, one for everything else."""

    proxy: int
    load: int

    @property
    def both(self) -> tuple[int, int]:
        """Return the two cores."""
        return (self.proxy, self.load)


@attrs.frozen(kw_only=True)
class RunningProxy:
    """
    A proxy that listens and has answered one checked request.

    One that wants client certificates has also been seen to refuse clients, see `Lab.running`. What it logs, if it
    does, goes to *sink*.
    """

    installed: InstalledPeer
    setup: Setup
    target: Target
    process: subprocess.Popen[bytes]
    log_path: Path
    listening_seconds: float
    answering_seconds: float
    cipher: str
    sink: LineSink | None = None

    @property
    def mode(self) -> Mode:
        """Return what it makes of what is inside TLS."""
        return self.setup.mode

    @property
    def name(self) -> str:
        """Return the proxy's name."""
        return self.installed.name

    @property
    def is_alive(self) -> bool:
        """Return whether its main process still runs."""
        return self.process.poll() is None

    def settled_cpu_time(self) -> CpuTime:
        """Return its CPU time once it had a moment to finish what it was doing."""
        time.sleep(SETTLE_SECONDS)
        return read_cpu_time(self.process.pid)

    def thread_ns(self) -> dict[int, int]:
        """Return the run time of each of its threads, by thread id."""
        return read_thread_ns(self.process.pid)

    def pss_bytes(self) -> int:
        """Return the proportional set size of all its processes."""
        return read_pss_bytes(self.process.pid)

    def alone_bytes(self) -> int:
        """Return the memory of all its processes as if alone on the machine."""
        return read_alone_bytes(self.process.pid)


@attrs.frozen(kw_only=True)
class Lab:
    """
    Everything of a run that does not change from measurement to measurement.

    *programs* are the load generators of the rows to measure, by name; *call_path* is a file with a gRPC request.
    """

    folder: Path
    cores: Cores
    app: App
    call_path: Path
    certificate: CertificateFiles
    effort: Effort
    programs: Mapping[str, str]
    environment: dict[str, str]
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False)

    @contextlib.contextmanager
    def running(self, installed: InstalledPeer, setup: Setup = PLAIN) -> Iterator[RunningProxy]:
        """
        Keep a fresh instance of a proxy for the length of the block.

        Raises:
            StartError: It did not start, does not forward to the app correctly (requests, and gRPC calls in
                that mode), or does less about client certificates than *setup* says.
        """
        place = self._place(installed.name, setup)
        target = self._target(place)
        start = installed.peer.prepare(place)
        log_path = place.folder / "log"
        started_at = time.monotonic()
        with self._sink(setup) as sink, self._process(installed, setup, start, log_path, sink) as process:
            wait_until_listening(process, name=installed.name, port=place.port, log_path=log_path)
            listening_seconds = time.monotonic() - started_at
            cipher = self._first_answer(installed.name, target, log_path)
            answering_seconds = time.monotonic() - started_at
            check_clients(installed.name, place, target)
            if setup.mode is Mode.GRPC:
                self._check_call(installed.name, place.port)
            yield RunningProxy(
                installed=installed,
                setup=setup,
                target=target,
                process=process,
                log_path=log_path,
                listening_seconds=listening_seconds,
                answering_seconds=answering_seconds,
                cipher=cipher,
                sink=sink,
            )

    def warm_up(self, proxy: RunningProxy) -> None:
        """Load a proxy as the first rows of its mode do, for a moment; raises MeasurementError on any error."""
        if proxy.mode is Mode.GRPC:
            self.h2load(proxy, unary_load(self.effort.warm_up_requests, self.call_path))
        else:
            self.wrk(proxy, seconds=self.effort.warm_up_seconds)

    def wrk(self, proxy: RunningProxy, *, seconds: int, script: Path | None = None) -> WrkReport:
        """Load a proxy with keep-alive requests; raises MeasurementError on any error."""
        return run_wrk(
            self.programs["wrk"],
            port=proxy.target.port,
            seconds=seconds,
            core=self.cores.load,
            folder=self.folder,
            script=script,
        )

    def paced(self, proxy: RunningProxy) -> PacedReport:
        """Ask at a fixed rate, whatever the answers take; raises MeasurementError on any error."""
        # We are on the load generator's core ourselves.
        return run_paced(proxy.target, rate=self.effort.paced_rate, seconds=self.effort.paced_seconds)

    def h2load(self, proxy: RunningProxy, *loads: Load) -> H2loadReport:
        """Put *loads* on a proxy at the same time; raises MeasurementError on any error."""
        return run_h2load(
            self.programs["h2load"], loads, port=proxy.target.port, core=self.cores.load, folder=self.folder
        )

    def client(
        self, proxy: RunningProxy, mode: str, count: int, *, workers: int = CLIENT_WORKERS
    ) -> AbstractContextManager[HttpsClient]:
        """Prepare a client (see `bench.httpsclient`) that will do *count* units of work."""
        return https_client(
            proxy.target,
            mode=mode,
            count=count,
            workers=workers,
            core=self.cores.load,
            log_path=self.folder / f"client-{next(self._numbers)}.log",
            environment=self.environment,
        )

    def _place(self, name: str, setup: Setup) -> Placement:
        """Make room for one more instance of a proxy."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        return Placement(
            folder=folder,
            port=free_port(),
            admin_port=free_port(),
            app_port=self.app.grpc_port if setup.mode is Mode.GRPC else self.app.port,
            certificate=self.certificate,
            setup=setup,
        )

    def _sink(self, setup: Setup) -> AbstractContextManager[LineSink | None]:
        """Return a reader for the lines of a proxy that logs."""
        return line_sink() if setup.is_logging else contextlib.nullcontext()

    def _process(
        self, installed: InstalledPeer, setup: Setup, start: StartLine, log_path: Path, sink: LineSink | None
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Start a proxy's program on the proxies' core, or on both."""
        return logged_process(
            [*installed.program, *start.arguments],
            cores=self.cores.both if setup.is_spread else (self.cores.proxy,),
            log_path=log_path,
            environment={**self.environment, **start.environment},
            folder=REPOSITORY,
            output=sink.descriptor if sink else None,
        )

    def _first_answer(self, name: str, target: Target, log_path: Path) -> str:
        """Wait for a correct answer through the proxy; return the cipher suite in use."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                return negotiated_cipher(target)
            except CLIENT_ERRORS as error:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"{name} listens but does not answer correctly: {error}\n{log_tail(log_path)}"
                    ) from error
            time.sleep(RETRY_SECONDS)

    def _check_call(self, name: str, port: int) -> None:
        """Check that a gRPC call comes back with its trailers."""
        unary.call_once(self.programs["nghttp"], name=name, port=port, request_path=self.call_path)

    def _target(self, place: Placement) -> Target:
        """Return what a client needs to know of a proxy."""
        return Target(
            port=place.port,
            certificate_path=str(self.certificate.certificate_path),
            greeting=GREETING.encode(),
            transfer_bytes=TRANSFER_BYTES,
            client_path=str(self.certificate.client_path) if place.are_clients_verified else "",
        )


def check_clients(name: str, place: Placement, target: Target) -> None:
    """
    Check that a proxy refuses the clients it is to refuse, and tells the app whom it is to tell it of.

    Args:
        name: The proxy's, for the message.
        place: What it does about client certificates; nothing is checked if that is nothing.
        target: The proxy, for a client that it accepts.

    Raises:
        StartError: It does less than that, so its figures would be those of less work.
    """
    if place.are_clients_verified:
        for whose, path in (("no certificate", ""), ("a stranger's certificate", str(place.certificate.stranger_path))):
            with contextlib.suppress(*CLIENT_ERRORS):
                negotiated_cipher(attrs.evolve(target, client_path=path))
                raise StartError(f"{name} is to verify client certificates, but serves a client with {whose}.")
    if place.are_clients_told:
        try:
            told = told_client(target)
        except CLIENT_ERRORS as error:
            raise StartError(f"{name} does not answer what the app is told of its client: {error}") from error
        if CLIENT_NAME not in told:
            raise StartError(f"{name} is to tell the app of {CLIENT_NAME}, but told it {told!r}.")


def clean_environment() -> dict[str, str]:
    """
    Return the environment that all processes of a run get.

    Variables of Python and of our own proxy are dropped: a developer's `PYTHONDEVMODE`,
    `PYTHONDONTWRITEBYTECODE` or `SIDECAR_LOG` would change what is measured.
    """
    dropped = ("PYTHON", "SIDECAR_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
