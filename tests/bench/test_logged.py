"""Rules of `bench.logged`: what peers log, and what shows that they did."""

from __future__ import annotations

import json

import pytest

from bench.errors import MeasurementError
from bench.logged import BUFFERED_BYTES, check_log, envoy_format, haproxy_format, members, nginx_format
from bench.sink import LineSink

TOLD = pytest.mark.parametrize("are_clients_told", [False, True], ids=["plain", "mtls"])


def line_of(*, subject: str = "") -> bytes:
    """Return a line as it should be."""
    names = [member.name for member in members(are_clients_told=bool(subject))]
    return json.dumps({name: subject if name == "client_subject" else "x" for name in names}).encode()


class TestFormats:
    """Each peer's format is a JSON object with the same members."""

    @TOLD
    def test_all_have_the_same_members_in_the_same_order(self, are_clients_told: bool) -> None:
        """A shorter line would be cheaper."""
        chosen = members(are_clients_told=are_clients_told)
        names = list(envoy_format(chosen))
        for text in (nginx_format(chosen), haproxy_format(chosen)):
            positions = [text.index(f'"{name}":') for name in names]
            assert positions == sorted(positions)
            assert text.count('":') == len(names)

    @TOLD
    def test_value_is_quoted_unless_it_is_a_number(self, are_clients_told: bool) -> None:
        """haproxy quotes by itself what may have quotes in it."""
        chosen = members(are_clients_told=are_clients_told)
        text = haproxy_format(chosen)
        assert '"status":%ST,' in text
        assert '"method":"%HM"' in text
        assert ('"client_subject":%{+Q}[ssl_c_s_dn]' in text) is are_clients_told


class TestCheckLog:
    """`check_log` lets nobody win by logging less."""

    @pytest.mark.parametrize(
        ("line", "subject", "message"),
        [
            (b"GET / 200", "", "logs no JSON"),
            (b"", "", "logs no JSON"),
            (b'{"status": 200}', "", "does not log time, client, tls_version"),
            (line_of(), "loadclient", "does not log client_subject, client_serial"),
            (line_of(subject="CN=other"), "loadclient", "without 'loadclient'"),
        ],
        ids=["text", "nothing", "few-members", "no-client", "another-client"],
    )
    def test_line_that_says_less_fails(self, line: bytes, subject: str, message: str) -> None:
        """Its figures would be those of less work."""
        with pytest.raises(MeasurementError, match=message):
            check_log("envoy", LineSink(-1, lines=1_000, last_line=line), requests=1_000, subject=subject)

    @pytest.mark.parametrize("missing", [0, 1])
    def test_only_what_may_be_buffered_may_be_missing(self, missing: int) -> None:
        """At the limit it passes, and one line below it fails."""
        line = line_of(subject="CN=loadclient")
        lines = 100_000 - BUFFERED_BYTES // (len(line) + 1) - missing
        sink = LineSink(-1, lines=lines, last_line=line)
        if missing:
            with pytest.raises(MeasurementError, match="lines for 100,000 requests"):
                check_log("envoy", sink, requests=100_000, subject="loadclient")
        else:
            check_log("envoy", sink, requests=100_000, subject="loadclient")
