"""Rules of `bench.turns`: which proxies a row is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench.lab import Cores, Effort, Lab, RunningProxy
from bench.peers import InstalledPeer
from bench.rows import Figure, Outcome, Row
from bench.turns import Plan, Run


@attrs.frozen
class FakeLab:
    """Starts proxies that have a name and nothing else."""

    cores: Cores = attrs.field(factory=lambda: Cores(proxy=0, load=0))
    effort: Effort = attrs.Factory(Effort)

    @contextmanager
    def running(self, installed: InstalledPeer) -> Iterator[SimpleNamespace]:
        """Start one."""
        yield SimpleNamespace(name=installed.name, installed=installed, cipher="", is_alive=True)

    def wrk(self, _proxy: object, *, seconds: int) -> None:
        """Warm one up, in no time."""


class TestTakeAllTurns:
    """`Run.take_all_turns` measures each row on the proxies that can do it."""

    @pytest.mark.parametrize("is_solo", [False, True], ids=["side-by-side", "solo"])
    def test_proxy_that_a_row_leaves_out_is_not_measured(self, is_solo: bool) -> None:
        """What cannot work is not tried, and is no failure."""
        measured: list[str] = []

        def measure(_lab: Lab, proxy: RunningProxy) -> Outcome:
            measured.append(proxy.name)
            return Outcome({"cpu": 1.0})

        figures = (Figure("cpu", "CPU", "us"),)
        row = Row(name="row", measure=measure, figures=figures, is_solo=is_solo, left_out={"hitch": "cannot"})
        peers = [cast(InstalledPeer, SimpleNamespace(name=name)) for name in ("hitch", "nginx")]
        run = Run(plan=Plan(rows=[row], peers=peers, turns=1), lab=cast(Lab, FakeLab()), tell=lambda _line: None)
        run.take_all_turns()
        assert set(measured) == {"nginx"}
        assert run.record.failures == []
