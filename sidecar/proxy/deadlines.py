"""
Every wait of every connection, on one injected clock.

A connection has one deadline at a time, which moves with what it is waiting for. Moving it later, the common case, is
one attribute; only moving it before the moment it is next looked at costs a heap entry. So a keep-alive request does
not touch the clock's queue at all.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, Final, Protocol

from twisted.logger import Logger

NEVER: Final = math.inf

FORGOTTEN_PER_LOOK: Final = 100
"""Entries that nobody waits for any more, of those that come up next: some 50 us."""

_log = Logger()


class Clock(Protocol):
    """The part of IReactorTime that we use; Twisted's `Clock` is one in tests."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Any, *args: Any) -> Any: ...


class Waiting(Protocol):
    """Whoever has a deadline."""

    def deadline_passed(self) -> None:
        """The moment has come. No deadline is set any more."""

    def abandon(self) -> None:
        """`deadline_passed` failed by a bug of ours: end, without any ceremony that might fail again."""


class Deadline:
    """
    The deadline of one connection.

    Attributes:
        at: The moment on the clock, in seconds; NEVER if there is none.
        looked_at: When the clock's queue next looks at it; NEVER if it has no entry there.
        owner: Who is told; None once it is gone.
    """

    __slots__ = ("_deadlines", "_now", "at", "looked_at", "owner")

    def __init__(self, owner: Waiting, deadlines: Deadlines) -> None:
        self.owner: Waiting | None = owner
        self.at = NEVER
        self.looked_at = NEVER
        self._deadlines = deadlines
        self._now = deadlines.now

    def set(self, timeout_seconds: float) -> None:
        """Let it pass in *timeout_seconds* from now; 0 means never."""
        if timeout_seconds:
            at = self.at = self._now() + timeout_seconds
            if at < self.looked_at:
                self._deadlines.look_at(self)
        else:
            self.at = NEVER

    def another(self, owner: Waiting) -> Deadline:
        """Return one of *owner*, on the same clock."""
        return Deadline(owner, self._deadlines)

    def end(self) -> None:
        """The connection is gone: let go of it at once, although the entry stays until it comes up."""
        self.at = NEVER
        self.owner = None


class Deadlines:
    """All deadlines of a process."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.seconds
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._count = 0
        self._call: Any = None  # IDelayedCall, with cancel() and active(), untyped in Twisted

    def look_at(self, deadline: Deadline) -> None:
        """Look at *deadline* when it passes."""
        self._push(deadline)
        if self._heap[0][2] is deadline:
            self._schedule()

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._heap.clear()

    def _push(self, deadline: Deadline) -> None:
        deadline.looked_at = deadline.at
        self._count += 1  # entries of the same moment are not compared further
        heapq.heappush(self._heap, (deadline.at, self._count, deadline))

    def _schedule(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._clock.callLater(max(0.0, self._heap[0][0] - self.now()), self._look)

    def _forget_ended(self) -> None:
        """
        Drop what comes up next for nothing.

        Of many short connections each would else have the clock look at a deadline that has gone with it (bench row
        `connections-full`).
        """
        heap = self._heap
        for _ in range(min(FORGOTTEN_PER_LOOK, len(heap))):
            looked_at, _, deadline = heap[0]
            if deadline.looked_at == looked_at:
                if deadline.owner is not None and deadline.at != NEVER:
                    return
                deadline.looked_at = NEVER
            heapq.heappop(heap)

    def _look(self) -> None:
        now = self.now()
        passed: list[Deadline] = []
        while self._heap and self._heap[0][0] <= now:
            looked_at, _, deadline = heapq.heappop(self._heap)
            if deadline.looked_at != looked_at:
                continue  # an earlier look was asked for since, and has been
            deadline.looked_at = NEVER
            if deadline.owner is None or deadline.at == NEVER:
                continue
            if deadline.at <= now:
                deadline.at = NEVER
                passed.append(deadline)
            else:
                self._push(deadline)
        self._forget_ended()
        if self._heap:
            self._schedule()
        for deadline in passed:
            owner = deadline.owner
            if owner is None or deadline.at != NEVER:
                continue  # ended or moved by one before it
            try:
                owner.deadline_passed()
            except Exception:  # a bug of ours must not leave the others without their deadlines, nor this one for ever
                _log.failure("unexpected error at a deadline, closing one connection")
                owner.abandon()
