"""Rules of `bench.scaling`: what is open beside the load, and who bears how much of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bench.httpsclient import ROUND_CONNECTIONS, WorkDone
from bench.lab import Effort, Lab, RunningProxy
from bench.placement import Mode, Setup
from bench.procfs import CpuTime
from bench.scaling import (
    IDLE_NS,
    MOST_LOOKS,
    SLICES,
    cost_by_open_connections,
    share_among_workers,
    wait_until_idle,
)

REQUESTS = 1_000


@attrs.define
class FakeInstance:
    """A proxy whose requests cost 1 us and 1 ns for each connection held; its threads share them as *shares* say."""

    setup: Setup
    shares: tuple[float, ...] = (1.0,)
    held: int = 0
    used_ns: int = 0

    def settled_cpu_time(self) -> CpuTime:
        """Return what it has used so far."""
        return CpuTime(run_ns=self.used_ns, user_ticks=0, system_ticks=0)

    def thread_ns(self) -> dict[int, int]:
        """Return what each thread has used, and one that does nothing."""
        return {0: 0, **{number: round(self.used_ns * share) for number, share in enumerate(self.shares, 1)}}


@attrs.define
class FakeLab:
    """Starts fake instances, and notes their setups and the order in which they work."""

    shares: tuple[float, ...] = (0.5, 0.5)
    effort: Effort = attrs.Factory(Effort)
    setups: list[Setup] = attrs.Factory(list)
    held: list[int] = attrs.Factory(list)
    order: list[int] = attrs.Factory(list)

    @contextmanager
    def running(self, _installed: object, setup: Setup) -> Iterator[FakeInstance]:
        """Start one."""
        self.setups.append(setup)
        yield FakeInstance(setup, self.shares if setup.workers > 1 else (1.0,))

    def warm_up(self, instance: FakeInstance) -> None:
        """Warm one up, which does not count."""
        instance.used_ns += 10**9

    def wrk(self, instance: FakeInstance, *, seconds: int) -> SimpleNamespace:
        """Load one."""
        assert seconds == self.effort.wrk_seconds
        instance.used_ns += REQUESTS * (1_000 + instance.held)
        return SimpleNamespace(requests=REQUESTS)

    @contextmanager
    def client(self, instance: FakeInstance, mode: str, count: int, *, workers: int = 1) -> Iterator[SimpleNamespace]:
        """Prepare a client that holds connections, or loads them."""

        def hold() -> WorkDone:
            self.held.append(count)
            instance.held += count
            return WorkDone(done=count)

        def ask() -> WorkDone:
            self.order.append(instance.setup.workers)
            instance.used_ns += count * ROUND_CONNECTIONS * 1_000 * (100 if len(self.order) <= 2 else 1)
            return WorkDone(done=count)

        assert workers == (1 if mode == "hold" else 4)
        yield SimpleNamespace(work=hold if mode == "hold" else ask)


def proxy_in(mode: Mode) -> RunningProxy:
    """Return a proxy of which fresh instances are to be started."""
    return cast(RunningProxy, SimpleNamespace(installed=None, setup=Setup(mode=mode)))


def no_sleep(_seconds: float) -> None:
    """Wait for nothing: fake instances are idle."""


class TestCostByOpenConnections:
    """`cost_by_open_connections` adds idle connections between its looks at one instance."""

    def test_as_many_are_open_as_it_says(self) -> None:
        """wrk's are among them, where there are more than wrk's; those held before stay open."""
        lab = FakeLab()
        costs = cost_by_open_connections(cast(Lab, lab), proxy_in(Mode.HTTP))
        assert lab.held == [10, 968 - 10, 9_968 - 968]
        assert costs == pytest.approx([1.010, 1.968, 10.968])

    def test_instance_has_room_for_all(self) -> None:
        """One that refuses the last of them would be cheaper."""
        lab = FakeLab()
        cost_by_open_connections(cast(Lab, lab), proxy_in(Mode.TCP))
        assert lab.setups == [Setup(mode=Mode.TCP, connections=11_000)]


@attrs.define
class FakeStart:
    """A proxy that uses CPU as its workers start, so many nanoseconds from look to look."""

    uses: list[int]
    used_ns: int = 10**9

    def thread_ns(self) -> dict[int, int]:
        """Return what its one thread has used."""
        return {1: self.used_ns}

    def sleep(self, _seconds: float) -> None:
        """Let it go on starting."""
        self.used_ns += self.uses.pop(0)


class TestWaitUntilIdle:
    """`wait_until_idle` waits for workers that are still starting."""

    @pytest.mark.parametrize(
        ("uses", "left"),
        [
            pytest.param([0, 1], 1, id="started"),
            pytest.param([IDLE_NS, IDLE_NS, IDLE_NS - 1, 1], 1, id="starting"),
            pytest.param([IDLE_NS] * (MOST_LOOKS + 1), 1, id="never idle"),
        ],
    )
    def test_it_ends_with_the_first_quiet_look(self, uses: list[int], left: int) -> None:
        """A proxy that is never quiet is measured as it is."""
        start = FakeStart(list(uses))
        wait_until_idle(cast(RunningProxy, start), start.sleep)
        assert len(start.uses) == left


class TestShareAmongWorkers:
    """`share_among_workers` compares one worker with two, under the same conditions."""

    @pytest.mark.parametrize(("shares", "busiest"), [((0.5, 0.5), 0.5), ((0.75, 0.25), 0.75)], ids=["even", "uneven"])
    def test_busiest_worker_bounds_the_gain(self, shares: tuple[float, ...], busiest: float) -> None:
        """Two that share badly cost no more in all, and serve less; the warm-up does not count."""
        one, two = share_among_workers(cast(Lab, FakeLab(shares)), proxy_in(Mode.HTTP), no_sleep)
        assert (one.cpu_us, two.cpu_us) == pytest.approx((1.0, 1.0))
        assert (one.busiest_us, two.busiest_us) == pytest.approx((1.0, busiest))

    def test_slices_alternate_in_changing_order(self) -> None:
        """After the warm-up the order is A B B A, so that drift falls on both alike."""
        lab = FakeLab()
        share_among_workers(cast(Lab, lab), proxy_in(Mode.HTTP), no_sleep)
        assert lab.order == [1, 2] + [1, 2, 2, 1] * (SLICES // 2)

    def test_instances_differ_in_their_workers_only(self) -> None:
        """One that may use one core would differ in more than that from one that may use two."""
        lab = FakeLab()
        share_among_workers(cast(Lab, lab), proxy_in(Mode.HTTP), no_sleep)
        assert [attrs.evolve(setup, workers=0) for setup in lab.setups] == [Setup(workers=0, is_spread=True)] * 2
