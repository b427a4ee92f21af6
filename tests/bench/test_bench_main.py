"""Rules of `bench.__main__`: what is done about a load generator that is not installed."""

from __future__ import annotations

import pytest

from bench import __main__ as command
from bench.errors import CannotRunError
from bench.limits import GUARD_PROXIES, read_limits
from bench.rows import ROWS

NAMES = ("wrk", "h2load", "nghttp")
ROWS_OF_H2LOAD = {"http2", "http2-varied", "http2-bulk", "grpc-unary"}


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend a machine that has these programs."""
    monkeypatch.setattr(command, "find_executable", lambda name: f"/usr/bin/{name}" if name in names else None)


class TestFindPrograms:
    """`find_programs` looks for what the chosen rows need."""

    def test_absent_wrk_ends_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every proxy is warmed up with it."""
        install(monkeypatch, "h2load", "nghttp")
        with pytest.raises(CannotRunError, match="wrk is not installed"):
            command.find_programs(ROWS)

    def test_program_is_looked_for_only_where_a_row_needs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run of other rows says nothing of it."""
        install(monkeypatch, *NAMES)
        assert command.find_programs([row for row in ROWS if row.name == "requests"]) == {"wrk": "/usr/bin/wrk"}


class TestSplitRows:
    """`split_rows` leaves out what cannot be measured here, and says so."""

    @pytest.mark.parametrize(
        ("here", "left_out"),
        [(NAMES, set()), (("wrk", "h2load"), {"grpc-unary"}), (("wrk",), ROWS_OF_H2LOAD)],
        ids=["all", "no-nghttp", "neither"],
    )
    def test_row_is_left_out_with_a_note(
        self, monkeypatch: pytest.MonkeyPatch, here: tuple[str, ...], left_out: set[str]
    ) -> None:
        """No row disappears without a line, and no other row is touched."""
        install(monkeypatch, *here)
        able, notes = command.split_rows(ROWS, command.find_programs(ROWS))
        assert {row.name for row in ROWS} - {row.name for row in able} == left_out
        assert len(notes) == len(left_out)
        assert all(any(f"(row {name})" in note for note in notes) for name in left_out)

    def test_run_of_nothing_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty table would look like a result."""
        install(monkeypatch, "wrk")
        rows = [row for row in ROWS if row.name == "grpc-unary"]
        with pytest.raises(CannotRunError, match=r"Not installed: h2load and nghttp \(row grpc-unary\)"):
            command.split_rows(rows, command.find_programs(rows))


class TestGuard:
    """`--guard` measures what has a limit that a short run can judge."""

    def test_every_guarded_limit_is_measured_on_what_it_is_set_beside(self) -> None:
        """A limit that the guard never sees guards nothing."""
        guarded = read_limits().guarded()
        keys = {figure.key for row in guarded.rows(ROWS) for figure in row.figures}
        assert {limit.figure for limit in guarded.limits} <= keys
        assert {limit.reference for limit in guarded.limits} <= set(GUARD_PROXIES)

    def test_rows_without_a_guarded_limit_end_the_run(self) -> None:
        """A run that judges nothing would look like one that found nothing."""
        with pytest.raises(CannotRunError, match="None of the chosen rows has a limit"):
            command.measure(command.parse_options(["--guard", "--rows", "requests-varied"]))
