"""Rules of `bench.rows`: what a measurement must return, and on what it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench import rows
from bench.app import TRANSFER_BYTES, App
from bench.errors import MeasurementError
from bench.h2load import H2loadReport, Load
from bench.httpsclient import WorkDone
from bench.lab import Effort, Lab, RunningProxy
from bench.logged import IDENTITY_MEMBERS, MEMBERS
from bench.paced import PacedReport
from bench.placement import Mode, Setup
from bench.procfs import CpuTime
from bench.rows import ROWS, Row, measure_paced_requests, measure_start
from bench.sink import LineSink
from bench.wrk import WrkReport

HTTP2_LOADS = ("http2", "http2-varied", "http2-bulk", "grpc-unary")
LOADS = ("requests", "requests-varied", "connections-full", "connections-resumed", "download", "upload")
TCP_LOADS = ("requests", "download", "upload")
ROW_OF = {row.name: row for row in ROWS}
REQUESTS = 1_000
CPU_NS = 4_000_000
LINE = {member.name: "CN=loadclient" for member in (*MEMBERS, *IDENTITY_MEMBERS)}
FULL_LOG = LineSink(-1, lines=10_000_000, last_line=json.dumps(LINE).encode())


@attrs.define
class FakeProxy:
    """A proxy that uses 4 ms of CPU time between two looks at it."""

    setup: Setup = attrs.field(factory=Setup)
    installed: object = None
    listening_seconds: float = 0.1
    answering_seconds: float = 0.2
    used_ns: int = 0
    sink: object = None
    name: str = "envoy"

    @property
    def mode(self) -> Mode:
        """Return its mode."""
        return self.setup.mode

    def pss_bytes(self) -> int:
        """Return what has grown with it."""
        return self.used_ns

    def alone_bytes(self) -> int:
        """Return twice that."""
        return 2 * self.used_ns

    def thread_ns(self) -> dict[int, int]:
        """Return a single thread's time."""
        return {1: self.settled_cpu_time().run_ns}

    def settled_cpu_time(self) -> CpuTime:
        """Return what it has used so far."""
        self.used_ns += CPU_NS
        return CpuTime(run_ns=self.used_ns, user_ticks=0, system_ticks=0)


@attrs.define
class FakeLab:
    """Reports a thousand requests or connections, or 2 MB, and does nothing; *modes* are of what it started."""

    modes: list[Mode] = attrs.Factory(list)
    effort: Effort = attrs.Factory(Effort)
    app: App = attrs.field(factory=lambda: App(port=1, grpc_port=2, transfer_path=Path("download")))
    call_path: Path = Path("call")
    late: int = 0

    def wrk(self, _proxy: object, *, seconds: int, script: object = None) -> WrkReport:
        """Report a run of wrk."""
        return WrkReport(requests=REQUESTS, seconds=seconds, p50_us=1, p99_us=2, socket_errors=0, bad_statuses=0)

    def h2load(self, _proxy: object, *loads: Load) -> H2loadReport:
        """Report that all was done, in a second."""
        requests = sum(load.requests for load in loads)
        return H2loadReport(protocol="h2", seconds=1.0, successes=requests, data_bytes=0)

    @contextmanager
    def client(self, _proxy: object, mode: str, _count: int, *, workers: int = 16) -> Iterator[SimpleNamespace]:
        """Prepare a client whose work is done at once."""
        done = WorkDone(done=REQUESTS, moved_bytes=2_000_000, resumed=REQUESTS if mode == "resumed" else 0)
        yield SimpleNamespace(work=lambda: done)

    @contextmanager
    def running(self, _installed: object, setup: Setup) -> Iterator[FakeProxy]:
        """Start a proxy."""
        self.modes.append(setup.mode)
        yield FakeProxy(setup=setup, sink=FULL_LOG if setup.is_logging else None)

    def warm_up(self, _proxy: object) -> None:
        """Load a proxy for no time."""

    def paced(self, _proxy: object) -> PacedReport:
        """Report a thousand paced requests, of 1 to 1,000 us; of each hundred, *late* were sent too late."""
        delays = [2_000.0 if index % 100 < self.late else 0.0 for index in range(REQUESTS)]
        return PacedReport(latencies_us=[float(us) for us in range(1, REQUESTS + 1)], own_delays_us=delays)


def values_of(row: Row) -> dict[str, float]:
    """Measure a row once, on fakes; nothing about it may be doubtful."""
    outcome = row.measure(cast(Lab, FakeLab()), cast(RunningProxy, FakeProxy(setup=Setup(mode=row.mode))))
    assert outcome.warnings == []
    return outcome.values


class TestRow:
    """`Row.measure` fills the figures of its row."""

    @pytest.mark.parametrize("name", [row.name for row in ROWS if row.name not in ("memory", "start")])
    def test_values_are_those_of_the_figures(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """A figure without a value is an empty line, and a value without a figure is not shown."""
        monkeypatch.setattr(rows.time, "sleep", lambda _seconds: None)
        row = ROW_OF[name]
        assert list(values_of(row)) == [figure.key for figure in row.figures]

    @pytest.mark.parametrize("load", TCP_LOADS)
    def test_relayed_load_is_that_of_the_http_row(self, load: str) -> None:
        """What HTTP costs on top of a relay can be read off the two rows."""
        relayed = {f"tcp_{key}": value for key, value in values_of(ROW_OF[load]).items()}
        assert values_of(ROW_OF[f"tcp-{load}"]) == relayed

    @pytest.mark.parametrize(("name", "expected"), [("tcp-requests", 4.0), ("tcp-download", 2.0), ("tcp-upload", 2.0)])
    def test_first_figure_is_cpu_time_per_unit(self, name: str, expected: float) -> None:
        """4 ms are 4 us for each of a thousand requests, and 2 ms for each of two megabytes."""
        assert next(iter(values_of(ROW_OF[name]).values())) == pytest.approx(expected)

    @pytest.mark.parametrize("name", ["http2", "http2-varied", "grpc-unary"])
    def test_cpu_time_over_http2_is_per_answer(self, name: str) -> None:
        """The 4 ms are divided by the requests of the measurement, and not by those of the warm-up."""
        assert next(iter(values_of(ROW_OF[name]).values())) == pytest.approx(CPU_NS / 1000 / Effort().requests)

    def test_cpu_time_of_http2_transfers_is_per_megabyte(self) -> None:
        """Each direction has its 4 ms, and its own 4 x 100 MB."""
        megabytes = Effort().transfers * TRANSFER_BYTES / 1e6
        assert list(values_of(ROW_OF["http2-bulk"]).values()) == pytest.approx([4 / megabytes] * 2)

    @pytest.mark.parametrize("name", HTTP2_LOADS)
    def test_relays_are_left_out_of_http2(self, name: str) -> None:
        """They cannot turn it into what the app speaks, or do not look at it."""
        assert set(ROW_OF[name].left_out) == {"hitch", "stunnel"}

    def test_relayed_rows_are_measured_in_raw_tcp_mode(self) -> None:
        """In the other mode they would repeat figures of HTTP under another name."""
        assert {row.name for row in ROWS if row.mode is Mode.TCP} == {f"tcp-{load}" for load in TCP_LOADS}


class TestMeasureLoggedRequests:
    """`measure_logged_requests` counts only a proxy that logs."""

    @pytest.mark.parametrize("name", ["requests-logged", "requests-logged-mtls"])
    def test_missing_lines_fail_the_measurement(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """A log that drops lines is cheaper than one that does not."""
        monkeypatch.setattr(FULL_LOG, "lines", 10)
        with pytest.raises(MeasurementError, match="logged 10 lines"):
            values_of(ROW_OF[name])


class TestMeasurePacedRequests:
    """`measure_paced_requests` doubts figures that are not the proxy's alone."""

    @pytest.mark.parametrize(("late", "warnings"), [(1, 0), (2, 1)], ids=["at-the-limit", "over"])
    def test_late_loader_is_a_warning(self, late: int, warnings: int) -> None:
        """What the benchmark sends too late, the proxy is blamed for."""
        outcome = measure_paced_requests(cast(Lab, FakeLab(late=late)), cast(RunningProxy, FakeProxy()))
        assert outcome.values == {"paced_p50_us": 500.0, "paced_p99_us": 990.0}
        assert len(outcome.warnings) == warnings


class TestMeasureStart:
    """`measure_start` starts more instances of the proxy it is given."""

    @pytest.mark.parametrize("mode", Mode)
    def test_instances_are_in_the_mode_of_the_proxy(self, mode: Mode) -> None:
        """The median of several starts is one of the same thing."""
        lab = FakeLab()
        measure_start(cast(Lab, lab), cast(RunningProxy, FakeProxy(setup=Setup(mode=mode))))
        assert lab.modes == [mode] * (lab.effort.starts - 1)
