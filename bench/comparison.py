"""
The same load on two fresh instances of a proxy: one as in the other rows, one with something more to do.

The difference is small beside the drift of a shared machine, so the load is cut into slices that alternate between the
two, seconds apart and in changing order (A B B A).
"""

from __future__ import annotations

from contextlib import ExitStack

import attrs

from bench.clients import HttpsClient
from bench.lab import CLIENT_WORKERS, Lab, RunningProxy
from bench.placement import Setup

SLICES = 4


@attrs.define(kw_only=True)
class Side:
    """One of the two instances with its client, and what they have done so far; *resumed* counts handshakes."""

    proxy: RunningProxy
    client: HttpsClient
    run_ns: int = 0
    done: int = 0
    resumed: int = 0

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the proxy per unit of work."""
        return self.run_ns / 1000 / self.done

    def take_slice(self) -> None:
        """Let the client work once, and add up what that took; raises MeasurementError as the client does."""
        before = self.proxy.settled_cpu_time()
        done = self.client.work()
        self.run_ns += (self.proxy.settled_cpu_time() - before).run_ns
        self.done += done.done
        self.resumed += done.resumed


@attrs.frozen(kw_only=True)
class Comparison:
    """Both sides after the work."""

    plain: Side
    other: Side


def compare(
    lab: Lab,
    proxy: RunningProxy,
    setup: Setup,
    *,
    mode: str,
    count: int,
    workers: int = CLIENT_WORKERS,
) -> Comparison:
    """
    Put the same load on two fresh instances of *proxy*, in its mode.

    Args:
        setup: What the second one does; the first one does nothing beyond its mode.
        mode: Of `bench.httpsclient`.
        count: Units of work on each, at least `SLICES`; one slice more warms them up, and does not count.
        workers: Threads of each client.

    Raises:
        StartError: An instance does not start, or does not do what *setup* says.
        MeasurementError: A unit of work failed.
    """
    with ExitStack() as stack:

        def warmed_up(kind: Setup) -> Side:
            instance = stack.enter_context(lab.running(proxy.installed, kind))
            client = stack.enter_context(lab.client(instance, mode, count // SLICES, workers=workers))
            client.work()
            return Side(proxy=instance, client=client)

        sides = (warmed_up(Setup(mode=proxy.mode)), warmed_up(attrs.evolve(setup, mode=proxy.mode)))
        for index in range(SLICES):
            for one in sides if index % 2 == 0 else reversed(sides):
                one.take_slice()
    return Comparison(plain=sides[0], other=sides[1])
