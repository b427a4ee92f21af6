"""Rules of `bench.h2load`: what it is told to do, and what its output means."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bench.errors import MeasurementError
from bench.h2load import H2loadReport, Load, check_report, h2load_command, merge, parse_report

OUTPUT = """\
starting benchmark...
spawning thread #0: 10 total client(s). 6000 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_256_GCM_SHA384
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 240.15ms, 24984.38 req/s, 1.06MB/s
requests: 6000 total, 6000 started, 6000 done, 6000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 6000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 261.93KB (268217) total, 76.29KB (78117) headers (space savings 90.82%), 111.33KB (114000) data
                     min         max         mean         sd        +/- sd
time for request:      417us     10.88ms      3.80ms      1.32ms    77.10%
"""
LOAD = Load(paths=["/"], requests=6_000, answer_bytes=19)


class TestParseReport:
    """`parse_report` reads the output of h2load."""

    def test_clean_run_is_read(self) -> None:
        """Units are converted, and bytes are those of bodies only."""
        assert parse_report(OUTPUT) == H2loadReport(protocol="h2", seconds=0.24015, successes=6_000, data_bytes=114_000)

    @pytest.mark.parametrize(
        ("said", "says"),
        [("6000 succeeded, 0 failed", "5990 succeeded, 10 failed"), ("6000 2xx, 0 3xx", "5990 2xx, 10 3xx")],
        ids=["reset-behind-its-status", "redirected"],
    )
    def test_answer_counts_only_if_it_is_whole_and_2xx(self, said: str, says: str) -> None:
        """The smaller of two counts is believed, as each of them includes what the other does not."""
        assert parse_report(OUTPUT.replace(said, says)).successes == 5_990

    @pytest.mark.parametrize(
        "text",
        ["", "[ERROR] Could not connect to the host\n", OUTPUT.partition("traffic:")[0]],
        ids=["empty", "refused", "cut-short"],
    )
    def test_output_without_totals_is_refused(self, text: str) -> None:
        """A run that did not finish is no measurement."""
        with pytest.raises(MeasurementError, match="no totals"):
            parse_report(text)

    def test_rate_is_answers_over_time(self) -> None:
        """The rate is computed from the totals."""
        assert parse_report(OUTPUT).requests_per_second == pytest.approx(24_984.4, abs=0.1)


class TestCheckReport:
    """`check_report` lets nobody win by failing, or by doing other work."""

    @pytest.mark.parametrize(
        ("said", "says", "why"),
        [
            ("protocol: h2", "protocol: http/1.1", "agreed on http/1.1, not on h2"),
            ("Application protocol: h2\n", "No protocol negotiated.\n", "agreed on nothing"),
            ("6000 2xx, 0 3xx, 0 4xx", "5999 2xx, 0 3xx, 1 4xx", "5,999 answers with 2xx to 6,000 requests"),
            ("(114000) data", "(113999) data", "113,999 bytes, not 114,000"),
        ],
        ids=["http/1.1", "no-alpn", "refused-one", "short-by-a-byte"],
    )
    def test_other_work_fails_the_measurement(self, said: str, says: str, why: str) -> None:
        """One wrong answer is enough, and so is a missing byte."""
        text = OUTPUT.replace(said, says)
        assert text != OUTPUT
        with pytest.raises(MeasurementError, match=why):
            check_report(parse_report(text), LOAD)

    def test_clean_report_is_returned(self) -> None:
        """A clean report passes unchanged."""
        report = parse_report(OUTPUT)
        assert check_report(report, LOAD) is report


class TestMerge:
    """`merge` adds up what ran at the same time."""

    def test_work_is_added_and_time_is_not(self) -> None:
        """The slowest one says how long it took."""
        report = parse_report(OUTPUT)
        assert merge([report, attrs.evolve(report, seconds=0.5)]) == attrs.evolve(
            report, seconds=0.5, successes=12_000, data_bytes=228_000
        )


class TestH2loadCommand:
    """`h2load_command` says how a load is made."""

    def test_nothing_but_h2_and_one_suite_is_offered(self) -> None:
        """A connection over HTTP/1.1, or with a cheaper cipher, would be other work under the same name."""
        command = h2load_command("h2load", LOAD, Path("uris"))
        assert {"--npn-list=h2", "--tls13-ciphers=TLS_AES_256_GCM_SHA384"} <= set(command)

    def test_load_is_told_in_full(self) -> None:
        """Its size, its fields and its body are all on the command line."""
        load = attrs.evolve(LOAD, connections=2, streams=3, fields=("te: trailers",), body_path=Path("body"))
        command = h2load_command("h2load", load, Path("uris"))
        assert {"-iuris", "-n6000", "-c2", "-m3", "-dbody"} <= set(command)
        assert command[command.index("-H") + 1] == "te: trailers"
