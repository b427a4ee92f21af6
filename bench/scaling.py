"""
How the cost of a request grows: with connections that are open beside it, and with workers that share the load.

Both measure fresh instances of their own, which may be set up for more than those of the other rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import attrs

from bench.clients import HttpsClient
from bench.httpsclient import ROUND_CONNECTIONS
from bench.lab import Lab, RunningProxy
from bench.placement import Setup
from bench.wrk import CONNECTIONS

SPARE_CONNECTIONS = 1_000
"""What those that are set up for many connections can hold beyond them."""

WORKERS = 2
CLIENT_THREADS = 4
"""Each has 32 connections: with few, chance alone gives one worker much more to do than the other."""

SLICES = 4

LOOK_SECONDS = 0.3
IDLE_NS = 5_000_000
MOST_LOOKS = 50
"""A proxy that used less CPU than that between two looks has started; how often to look until it is believed anyway."""


def many_connections(lab: Lab, proxy: RunningProxy) -> Setup:
    """Return a proxy's setup with room for as many connections as the rows about many have."""
    return attrs.evolve(proxy.setup, connections=lab.effort.many_connections + SPARE_CONNECTIONS)


def cost_by_open_connections(lab: Lab, proxy: RunningProxy) -> list[float]:
    """
    Measure one instance while more and more idle connections are open beside wrk's busy ones.

    Returns:
        CPU microseconds per request at each of `Effort.open_connections`; wrk's are among them, except in the first.

    Raises:
        StartError: The instance does not start.
        MeasurementError: A connection could not be opened, or a request failed.
    """
    costs: list[float] = []
    held = 0
    with ExitStack() as stack:
        fresh = stack.enter_context(lab.running(proxy.installed, many_connections(lab, proxy)))
        lab.warm_up(fresh)
        for count in lab.effort.open_connections:
            idle = count - CONNECTIONS if count > CONNECTIONS else count
            stack.enter_context(lab.client(fresh, "hold", idle - held)).work()
            held = idle
            before = fresh.settled_cpu_time()
            report = lab.wrk(fresh, seconds=lab.effort.wrk_seconds)
            costs.append((fresh.settled_cpu_time() - before).run_ns / 1000 / report.requests)
    return costs


@attrs.define(kw_only=True)
class Crew:
    """One instance under load: what each of its threads has used, and what they have answered together."""

    proxy: RunningProxy
    client: HttpsClient
    thread_ns: dict[int, int] = attrs.Factory(dict)
    requests: int = 0

    def take_slice(self) -> None:
        """Let the client work once, and add up what that took; raises MeasurementError as the client does."""
        before = self.proxy.thread_ns()
        done = self.client.work()
        for thread, now_ns in self.proxy.thread_ns().items():
            self.thread_ns[thread] = self.thread_ns.get(thread, 0) + now_ns - before.get(thread, 0)
        self.requests += done.done * ROUND_CONNECTIONS

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request."""
        return sum(self.thread_ns.values()) / 1000 / self.requests

    @property
    def busiest_us(self) -> float:
        """CPU microseconds per request of the thread that has used most: with a core for each, it bounds the rate."""
        return max(self.thread_ns.values()) / 1000 / self.requests


def wait_until_idle(proxy: RunningProxy, sleep: Callable[[float], None]) -> None:
    """
    Wait until all workers of a proxy have started.

    It answers as soon as one of them does. One that starts later than the load would get none of its connections.
    """
    used_ns = -IDLE_NS
    for _ in range(MOST_LOOKS):
        before_ns, used_ns = used_ns, sum(proxy.thread_ns().values())
        if used_ns - before_ns < IDLE_NS:
            break
        sleep(LOOK_SECONDS)


def share_among_workers(
    lab: Lab, proxy: RunningProxy, sleep: Callable[[float], None] = time.sleep
) -> tuple[Crew, Crew]:
    """
    Put the same load on an instance with one worker and on one with two, in slices that alternate (A B B A).

    Each connection has the same number of requests to make, however fast those of others are answered. With wrk, a
    worker that has a core for itself would answer more than one that shares it with the load, and look overburdened.

    Raises:
        StartError: An instance does not start.
        MeasurementError: A request failed.
    """
    rounds = lab.effort.requests // ROUND_CONNECTIONS
    with ExitStack() as stack:

        def crew(workers: int) -> Crew:
            setup = attrs.evolve(proxy.setup, workers=workers, is_spread=True)
            fresh = stack.enter_context(lab.running(proxy.installed, setup))
            wait_until_idle(fresh, sleep)
            client = stack.enter_context(lab.client(fresh, "requests", rounds // SLICES, workers=CLIENT_THREADS))
            client.work()
            return Crew(proxy=fresh, client=client)

        crews = (crew(1), crew(WORKERS))
        for index in range(SLICES):
            for one in crews if index % 2 == 0 else reversed(crews):
                one.take_slice()
    return crews
