"""Rules of `bench.wrk`: what the output of wrk means."""

from __future__ import annotations

import pytest

from bench.errors import MeasurementError
from bench.wrk import WrkReport, check_report, parse_report

OUTPUT = """\
Running 4s test @ https://127.0.0.1:40001/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.52ms  301.11us   9.77ms   92.30%
    Req/Sec    21.08k   601.50    21.90k    80.00%
  Latency Distribution
     50%  480.00us
     75%    1.57ms
     90%    1.69ms
     99%    2.38ms
  83872 requests in 4.00s, 13.28MB read
Requests/sec:  20967.30
Transfer/sec:      3.32MB
"""

TROUBLE = """\
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 12
"""


class TestParseReport:
    """`parse_report` reads the output of `wrk --latency`."""

    def test_clean_run_has_no_errors(self) -> None:
        """Units are converted; lines about trouble are absent from a clean run."""
        assert parse_report(OUTPUT) == WrkReport(
            requests=83872,
            seconds=4.0,
            p50_us=480.0,
            p99_us=2380.0,
            socket_errors=0,
            bad_statuses=0,
        )

    def test_trouble_is_counted(self) -> None:
        """All kinds of socket errors are added up."""
        report = parse_report(OUTPUT + TROUBLE)
        assert (report.socket_errors, report.bad_statuses) == (10, 12)

    @pytest.mark.parametrize(
        "text",
        ["", "unable to connect to 127.0.0.1:1 Connection refused\n", OUTPUT.partition("99%")[0]],
        ids=["empty", "refused", "cut-short"],
    )
    def test_output_without_totals_is_refused(self, text: str) -> None:
        """A run that did not finish is no measurement."""
        with pytest.raises(MeasurementError, match="no totals"):
            parse_report(text)

    def test_rate_is_requests_over_time(self) -> None:
        """The rate is computed from the totals."""
        assert parse_report(OUTPUT).requests_per_second == pytest.approx(20968)


class TestCheckReport:
    """`check_report` lets nobody win by failing."""

    def test_errors_fail_the_measurement(self) -> None:
        """One wrong answer is enough."""
        with pytest.raises(MeasurementError, match="12 of them not 2xx, and 10 socket errors"):
            check_report(parse_report(OUTPUT + TROUBLE))

    def test_clean_report_is_returned(self) -> None:
        """A clean report passes unchanged."""
        report = parse_report(OUTPUT)
        assert check_report(report) is report
