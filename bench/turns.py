"""Runs the rows in turns (A B C A B C), with proxies that are started anew each turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from bench.disturbance import MAX_FOREIGN_SHARE, foreign_share, observe
from bench.errors import MeasurementError, StartError
from bench.lab import Lab, RunningProxy
from bench.peers import InstalledPeer
from bench.placement import Mode, Setup
from bench.record import Record
from bench.rows import Outcome, Row

MAX_ATTEMPTS = 3


@attrs.frozen(kw_only=True)
class Plan:
    """
    What to measure, on what, how often; and how often to try when others disturb a measurement.

    With *budget_seconds* no turn is begun that would end later if it took as long as the longest before it.
    """

    rows: Sequence[Row]
    peers: Sequence[InstalledPeer]
    turns: int
    attempts: int = MAX_ATTEMPTS
    budget_seconds: float = math.inf


@attrs.define(kw_only=True)
class Run:
    """
    One benchmark run.

    `ciphers` holds what each proxy negotiated with our client; a proxy in `left_out` failed to
    start once in that mode, and is not tried again in it.
    """

    plan: Plan
    lab: Lab
    tell: Callable[[str], None]
    record: Record = attrs.Factory(Record)
    ciphers: dict[str, str] = attrs.Factory(dict)
    left_out: set[tuple[str, Mode]] = attrs.Factory(set)
    now: Callable[[], float] = time.monotonic

    def take_all_turns(self) -> None:
        """Take every turn that there is time for, at least one; what fails is recorded, never raised."""
        started_at = turn_began_at = self.now()
        longest_seconds = 0.0
        for turn in range(1, self.plan.turns + 1):
            if turn > 1 and turn_began_at + longest_seconds - started_at > self.plan.budget_seconds:
                self.tell(f"no time for turn {turn}/{self.plan.turns}")
                break
            self._take_turn(turn)
            ended_at = self.now()
            longest_seconds = max(longest_seconds, ended_at - turn_began_at)
            turn_began_at = ended_at

    def _take_turn(self, turn: int) -> None:
        """Measure every row once."""
        self._take_solo_rows(turn)
        for mode in Mode:
            self._take_side_by_side_rows(turn, mode)

    def _take_solo_rows(self, turn: int) -> None:
        """Measure the rows that want a proxy fresh and alone: others would share its pages."""
        for row in self.plan.rows:
            for peer in self.plan.peers if row.is_solo else ():
                if peer.name in row.left_out:
                    continue
                with ExitStack() as stack:
                    if proxy := self._start(peer, row.mode, stack):
                        self._measure(turn, row, proxy)

    def _take_side_by_side_rows(self, turn: int, mode: Mode) -> None:
        """Measure row by row, so that what is compared lies seconds apart, not minutes."""
        rows = [row for row in self.plan.rows if row.mode is mode and not row.is_solo]
        peers = [peer for peer in self.plan.peers if any(peer.name not in row.left_out for row in rows)]
        with ExitStack() as stack:
            started = [self._start(peer, mode, stack) for peer in peers]
            proxies = [proxy for proxy in started if proxy and self._warm_up(proxy)]
            for row in rows:
                for proxy in proxies:
                    if proxy.name not in row.left_out:
                        self._measure(turn, row, proxy)

    def _start(self, peer: InstalledPeer, mode: Mode, stack: ExitStack) -> RunningProxy | None:
        """Start a proxy that runs until *stack* is closed; None when it cannot be used."""
        if (peer.name, mode) in self.left_out:
            return None
        try:
            proxy = stack.enter_context(self.lab.running(peer, Setup(mode=mode)))
        except StartError as error:
            self._leave_out(peer.name, mode, error)
            return None
        self.ciphers[peer.name] = proxy.cipher
        return proxy

    def _warm_up(self, proxy: RunningProxy) -> bool:
        """Load a proxy for a moment; False when it cannot stand that."""
        try:
            self.lab.warm_up(proxy)
        except MeasurementError as error:
            self._leave_out(proxy.name, proxy.mode, error)
            return False
        return True

    def _measure(self, turn: int, row: Row, proxy: RunningProxy) -> None:
        """Measure one row on one proxy and record what came of it."""
        try:
            outcome, share = self._measure_undisturbed(row, proxy)
        except (StartError, MeasurementError) as error:
            died = "" if proxy.is_alive else " (its process has ended)"
            self._fail(f"{proxy.name}, {row.name}: {error}{died}")
            return
        self.record.add(turn, proxy.name, outcome.values)
        if share > MAX_FOREIGN_SHARE:
            self.record.disturb(proxy.name, outcome.values, share)
        for warning in outcome.warnings:
            self.record.doubt(proxy.name, outcome.values, f"{proxy.name}, {row.name}: {warning}")
        first = row.figures[0]
        self.tell(
            f"turn {turn}/{self.plan.turns}  {row.name:<20} {proxy.name:<8} "
            f"{outcome.values[first.key]:>10,.{first.digits}f} {first.unit}"
        )

    def _measure_undisturbed(self, row: Row, proxy: RunningProxy) -> tuple[Outcome, float]:
        """
        Measure, and again if others used the cores meanwhile.

        Returns:
            The least disturbed outcome, and how much others used the cores (0 to 1). Solo rows
            are measured once, as a second time the proxy would not be fresh.
        """
        attempts: list[tuple[Outcome, float]] = []
        for _ in range(1 if row.is_solo else self.plan.attempts):
            before = observe(self.lab.cores.both)
            outcome = row.measure(self.lab, proxy)
            share = foreign_share(before, observe(self.lab.cores.both))
            attempts.append((outcome, share if row.is_about_time else 0.0))
            if attempts[-1][1] <= MAX_FOREIGN_SHARE:
                break
            self.tell(f"{proxy.name}, {row.name}: others used {share:.0%} of the cores")
        return min(attempts, key=lambda attempt: attempt[1])

    def _leave_out(self, name: str, mode: Mode, error: Exception) -> None:
        """Give up on a proxy in one mode for the rest of the run."""
        self.left_out.add((name, mode))
        self._fail(f"{name} is left out of the {mode.value} rows: {error}")

    def _fail(self, failure: str) -> None:
        """Record a failure and say so at once."""
        self.record.fail(failure)
        self.tell(failure)
