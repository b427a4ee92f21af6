"""Ensures that traffic does not depend on anybody reading the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient, request
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import eventually

REQUESTS = 4000
"""Their lines fill the pipe, which holds 64 KiB, and the queue behind it, which holds 1 MiB, several times."""


class TestAccessLog:
    def test_full_pipe_costs_lines_but_no_request(self, launch: Launch, own_app: App) -> None:
        """If nobody reads standard output, requests are served, lines are dropped and counted, and SIGTERM works."""
        read_end, write_end = os.pipe()
        try:
            program = launch(upstream=own_app.upstream, access_log="json", stdout=write_end)
            with HttpsClient(program) as client:
                for _ in range(REQUESTS // 40):
                    client.send(request("/hello") * 40)
                    assert [client.response().status for _ in range(40)] == [200] * 40
            assert program.metric("access_log_dropped_total") > 0

            assert program.stop(4) == 0
        finally:
            os.close(read_end)
            os.close(write_end)

    def test_reader_that_went_away_costs_nothing(self, launch: Launch, own_app: App) -> None:
        """A broken pipe is no reason to stop."""
        read_end, write_end = os.pipe()
        program = launch(upstream=own_app.upstream, stdout=write_end)
        os.close(write_end)
        os.close(read_end)
        with HttpsClient(program) as client:
            assert [client.get("/hello").status for _ in range(20)] == [200] * 20
        eventually(lambda: program.metric("access_log_dropped_total") == 20, "the lines are counted as dropped")

    @pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"], ids=["stdout", "stderr", "all"])
    def test_closed_descriptors_are_not_mistaken_for_the_log(self, launch: Launch, own_app: App, closing: str) -> None:
        """Started without standard descriptors, it writes its log nowhere: least of all into a socket."""
        prefix = ("sh", "-c", f'exec "$@" {closing}', "sh")
        program = launch(upstream=own_app.upstream, prefix=prefix)
        for _ in range(3):
            with HttpsClient(program) as client:
                assert [client.get("/hello").body for _ in range(20)] == [b"hello\n"] * 20

        eventually(lambda: program.metric("downstream_connections_active") == 0, "no connection is active")
        assert {request.path for request in own_app.requests} == {"/hello"}
        assert program.stop() == 0

    def test_text_format_is_one_line_per_request(self, launch: Launch, own_app: App, tmp_path: Path) -> None:
        """`SIDECAR_ACCESS_LOG=text` is for people."""
        program = launch(upstream=own_app.upstream, access_log="text")
        with HttpsClient(program) as client:
            client.get("/hello?secret=1", 'User-Agent: a\\"b c')

        eventually(lambda: "/hello" in program.stdout, "the line is there")
        assert program.stdout.count("\n") == 1
        assert '"GET /hello HTTP/1.1" 200 ' in program.stdout
        assert "secret" not in program.stdout

    def test_off_writes_nothing(self, launch: Launch, own_app: App) -> None:
        """`SIDECAR_ACCESS_LOG=off` leaves standard output alone."""
        program = launch(upstream=own_app.upstream, access_log="off")
        with HttpsClient(program) as client:
            client.get("/hello")
        program.stop()

        assert program.stdout == ""

    def test_last_lines_are_written_before_the_exit(self, launch: Launch, own_app: App) -> None:
        """A request that was answered right before SIGTERM is in the log."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.get("/hello?last")
        program.stop()

        assert program.logged("/hello")["status"] == 200
