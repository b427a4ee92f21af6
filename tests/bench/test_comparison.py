"""Rules of `bench.comparison`: two instances, the same work, in alternation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench.comparison import SLICES, Comparison, compare
from bench.httpsclient import WorkDone
from bench.lab import Lab, RunningProxy
from bench.placement import ClientCertificates, Mode, Setup
from bench.procfs import CpuTime


@attrs.define
class FakeInstance:
    """A proxy that uses *cost_ns* for each unit of work."""

    clients: ClientCertificates
    cost_ns: int
    used_ns: int = 0

    def settled_cpu_time(self) -> CpuTime:
        """Return what it has used so far."""
        return CpuTime(run_ns=self.used_ns, user_ticks=0, system_ticks=0)


@attrs.define
class FakeClient:
    """A client that loads one instance, and notes when; its first work costs the proxy much more."""

    instance: FakeInstance
    count: int
    order: list[ClientCertificates]

    def work(self) -> WorkDone:
        """Do the units of work, each over a resumed connection."""
        is_first = self.instance.clients not in self.order
        self.order.append(self.instance.clients)
        self.instance.used_ns += self.count * self.instance.cost_ns * (100 if is_first else 1)
        return WorkDone(done=self.count, resumed=self.count)


@attrs.define
class FakeLab:
    """Starts fake instances; those that verify clients cost more."""

    order: list[ClientCertificates] = attrs.field(factory=list)
    modes: list[Mode] = attrs.field(factory=list)

    @contextmanager
    def running(self, _installed: object, setup: Setup) -> Iterator[FakeInstance]:
        """Start an instance."""
        self.modes.append(setup.mode)
        yield FakeInstance(setup.clients, cost_ns=2_000 if setup.clients is ClientCertificates.NONE else 3_000)

    @contextmanager
    def client(self, instance: FakeInstance, _mode: str, count: int, *, workers: int) -> Iterator[FakeClient]:
        """Prepare a client."""
        assert workers == 16
        yield FakeClient(instance, count, self.order)


@pytest.fixture
def lab() -> FakeLab:
    """Make a lab of fakes."""
    return FakeLab()


def run_comparison(lab: FakeLab, mode: Mode = Mode.HTTP) -> Comparison:
    """Compare handshakes over 400 connections."""
    proxy = cast(RunningProxy, SimpleNamespace(installed=None, mode=mode))
    return compare(cast(Lab, lab), proxy, Setup(clients=ClientCertificates.REQUIRED), mode="full", count=400)


class TestCompare:
    """`compare` measures both instances under the same conditions."""

    def test_slices_alternate_in_changing_order(self, lab: FakeLab) -> None:
        """After the warm-up the order is A B B A, so that drift falls on both alike."""
        run_comparison(lab)
        plain, mutual = ClientCertificates.NONE, ClientCertificates.REQUIRED
        assert lab.order[2:] == [plain, mutual, mutual, plain] * (SLICES // 2)

    @pytest.mark.parametrize("mode", Mode)
    def test_both_instances_are_in_the_mode_of_the_proxy(self, lab: FakeLab, mode: Mode) -> None:
        """The difference between the two is client certificates, and nothing else."""
        run_comparison(lab, mode)
        assert lab.modes == [mode, mode]

    def test_warm_up_does_not_count(self, lab: FakeLab) -> None:
        """The figure is that of the counted slices only, however much the first work took."""
        both = run_comparison(lab)
        assert (both.plain.cpu_us, both.other.cpu_us) == (2.0, 3.0)
        assert (both.plain.done, both.other.done, both.other.resumed) == (400, 400, 400)
