"""Rules of `bench.turns`: which proxies a row is measured on, and in which mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench.errors import StartError
from bench.lab import Cores, Effort, Lab, RunningProxy
from bench.peers import InstalledPeer
from bench.placement import Mode, Setup
from bench.rows import Figure, Outcome, Row
from bench.turns import Plan, Run

FIGURES = (Figure("cpu", "CPU", "us"),)
KINDS = pytest.mark.parametrize("is_solo", [False, True], ids=["side-by-side", "solo"])


@attrs.define
class FakeLab:
    """Starts proxies that have a name and a mode and nothing else; those in *broken* do not start."""

    broken: tuple[str, Mode] | None = None
    started: list[tuple[str, Mode]] = attrs.Factory(list)
    cores: Cores = attrs.field(factory=lambda: Cores(proxy=0, load=0))
    effort: Effort = attrs.Factory(Effort)

    @contextmanager
    def running(self, installed: InstalledPeer, setup: Setup) -> Iterator[SimpleNamespace]:
        """Start one."""
        mode = setup.mode
        self.started.append((installed.name, mode))
        if self.started[-1] == self.broken:
            raise StartError("it ended at once")
        yield SimpleNamespace(name=installed.name, installed=installed, mode=mode, cipher="", is_alive=True)

    def warm_up(self, _proxy: object) -> None:
        """Warm one up, in no time."""


@attrs.define
class Measurements:
    """Rows that note on which proxy they were measured, and its mode."""

    made: list[tuple[str, str, Mode]] = attrs.Factory(list)

    def row(self, name: str, mode: Mode = Mode.HTTP, *, is_solo: bool, left_out: str = "") -> Row:
        """Return a row that the proxy *left_out* cannot do."""

        def measure(_lab: Lab, proxy: RunningProxy) -> Outcome:
            self.made.append((name, proxy.name, proxy.mode))
            return Outcome({"cpu": 1.0})

        reasons = {left_out: "cannot"} if left_out else {}
        return Row(name=name, measure=measure, figures=FIGURES, mode=mode, is_solo=is_solo, left_out=reasons)


def run_on(lab: FakeLab, rows: list[Row], *names: str, turns: int = 1) -> Run:
    """Take all turns of *rows* on proxies of these names."""
    peers = [cast(InstalledPeer, SimpleNamespace(name=name)) for name in names]
    run = Run(plan=Plan(rows=rows, peers=peers, turns=turns), lab=cast(Lab, lab), tell=lambda _line: None)
    run.take_all_turns()
    return run


class TestTakeAllTurns:
    """`Run.take_all_turns` measures each row on the proxies that can do it, in its mode."""

    @KINDS
    def test_proxy_that_a_row_leaves_out_is_not_measured(self, is_solo: bool) -> None:
        """What cannot work is not tried, and is no failure."""
        made = Measurements()
        run = run_on(FakeLab(), [made.row("row", is_solo=is_solo, left_out="hitch")], "hitch", "nginx")
        assert {proxy for _, proxy, _ in made.made} == {"nginx"}
        assert run.record.failures == []

    @KINDS
    def test_row_is_measured_on_a_proxy_in_its_mode(self, is_solo: bool) -> None:
        """Whatever the order of the rows, each gets the work it is about."""
        made = Measurements()
        rows = [made.row(f"{mode.value}-row", mode, is_solo=is_solo) for mode in reversed(Mode)]
        run_on(FakeLab(), rows, "haproxy")
        assert set(made.made) == {(f"{mode.value}-row", "haproxy", mode) for mode in Mode}

    @KINDS
    def test_proxy_is_not_started_in_a_mode_that_no_row_measures_it_in(self, is_solo: bool) -> None:
        """It may not be able to start in it, and that would be reported as a failure."""
        made, lab = Measurements(), FakeLab()
        rows = [made.row("http", is_solo=is_solo), made.row("tcp", Mode.TCP, is_solo=is_solo, left_out="nginx")]
        run_on(lab, rows, "nginx")
        assert lab.started == [("nginx", Mode.HTTP)]

    @pytest.mark.parametrize(
        ("budget_seconds", "turns"), [(29.0, 2), (30.0, 3), (5.0, 1)], ids=["too-short", "just-enough", "for-nothing"]
    )
    def test_turn_that_would_take_too_long_is_not_begun(self, budget_seconds: float, turns: int) -> None:
        """Each turn takes ten seconds here; the first is taken in any case."""
        made, moments = Measurements(), iter(range(0, 100, 10))
        peers = [cast(InstalledPeer, SimpleNamespace(name="nginx"))]
        plan = Plan(rows=[made.row("row", is_solo=True)], peers=peers, turns=3, budget_seconds=budget_seconds)
        said: list[str] = []
        run = Run(plan=plan, lab=cast(Lab, FakeLab()), tell=said.append, now=lambda: float(next(moments)))
        run.take_all_turns()
        assert len(made.made) == turns
        assert any("no time for turn" in line for line in said) is (turns < 3)

    @KINDS
    def test_proxy_that_fails_in_one_mode_is_measured_in_the_others(self, is_solo: bool) -> None:
        """It is tried once in the mode in which it fails, and in each turn in the others."""
        made, lab = Measurements(), FakeLab(broken=("envoy", Mode.TCP))
        rows = [made.row(mode.value, mode, is_solo=is_solo) for mode in Mode]
        run = run_on(lab, rows, "envoy", turns=2)
        assert sorted(mode.value for _, mode in lab.started) == ["grpc", "grpc", "http", "http", "tcp"]
        assert run.record.values == {("cpu", "envoy"): {1: 1.0, 2: 1.0}}
        assert run.record.failures == ["envoy is left out of the tcp rows: it ended at once"]
