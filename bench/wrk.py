"""Closed-loop HTTPS load by `wrk`: the command, and what its output says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import attrs

from bench.errors import MeasurementError
from bench.launch import LOOPBACK, on_core

CONNECTIONS = 32
GRACE_SECONDS = 20.0

VARIED_SCRIPT = Path(__file__).with_name("varied.lua")
"""Makes no two requests alike, with fields of the number and size that browsers send."""

MICROSECONDS_PER_UNIT = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
TOTAL_PATTERN = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
PERCENTILE_PATTERN = re.compile(r"^\s*(\d+)%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
SOCKET_ERRORS_PATTERN = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
BAD_STATUS_PATTERN = re.compile(r"Non-2xx or 3xx responses: (\d+)")


@attrs.frozen(kw_only=True)
class WrkReport:
    """What one run of wrk saw; its `requests` are those that were answered."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    socket_errors: int
    bad_statuses: int

    @property
    def requests_per_second(self) -> float:
        """Return the mean rate over the run."""
        return self.requests / self.seconds


def parse_report(text: str) -> WrkReport:
    """
    Parse the output of `wrk --latency`.

    Raises:
        MeasurementError: It holds no totals or no percentiles, so wrk did not finish a run.
    """
    total = TOTAL_PATTERN.search(text)
    percentiles = {
        int(percent): float(number) * MICROSECONDS_PER_UNIT[unit]
        for percent, number, unit in PERCENTILE_PATTERN.findall(text)
    }
    if total is None or not {50, 99} <= percentiles.keys():
        raise MeasurementError(f"wrk printed no totals: {text.strip()[-200:]!r}")
    errors = SOCKET_ERRORS_PATTERN.search(text)
    bad_statuses = BAD_STATUS_PATTERN.search(text)
    return WrkReport(
        requests=int(total[1]),
        seconds=float(total[2]) * MICROSECONDS_PER_UNIT[total[3]] / 1e6,
        p50_us=percentiles[50],
        p99_us=percentiles[99],
        socket_errors=sum(map(int, errors.groups())) if errors else 0,
        bad_statuses=int(bad_statuses[1]) if bad_statuses else 0,
    )


def check_report(report: WrkReport) -> WrkReport:
    """
    Return the report if every request was answered with success.

    Raises:
        MeasurementError: There were errors, or nothing was answered at all.
    """
    if report.socket_errors or report.bad_statuses or not report.requests:
        raise MeasurementError(
            f"wrk saw {report.requests:,} answers, {report.bad_statuses:,} of them not 2xx, "
            f"and {report.socket_errors:,} socket errors"
        )
    return report


def run_wrk(
    executable: str, *, port: int, seconds: int, core: int, folder: Path, script: Path | None = None
) -> WrkReport:
    """
    Load a proxy with keep-alive requests for *seconds*: all the same, or as *script* (Lua) makes them.

    Raises:
        MeasurementError: As `parse_report` and `check_report`, or wrk did not end in time.
    """
    command = [executable, "--latency", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s"]
    command += ["-s", str(script)] if script is not None else []
    with on_core(core):
        try:
            done = subprocess.run(
                [*command, f"https://{LOOPBACK}:{port}/"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"wrk did not end within {error.timeout:.0f} s") from error
    return check_report(parse_report(done.stdout + done.stderr))
