"""
The addresses of a name, looked up again and again.

Rules that hold here: one look-up of a name at a time, however long the resolver takes; a look-up that fails changes
nothing, and is told once; the order of an answer is nothing new.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger

from sidecar.proxy.connect import Address, Locating, look_up
from sidecar.settings import HostPort

LOOK_UP_SECONDS: Final = 5.0
"""A look-up that takes longer has failed. What it finds in the end is used even so."""

FIRST_RETRY_SECONDS: Final = 1.0
"""Between look-ups as long as none has worked: requests wait for it, or are refused."""

JITTER: Final = 0.1
"""Greatest part of the interval that is added to it, lest many proxies ask at once."""

MAX_ADDRESSES: Final = 256
"""Of one name; more are left out."""

_LOOPBACK: Final = ("127.0.0.1", "::1")

_log = Logger()


class NameWatch:
    """
    One name of a cluster.

    Attributes:
        addresses: As last found, in the order of the resolver; empty: none yet.
        problem: Why the last look-up failed; "" if it did not.
    """

    def __init__(
        self,
        target: HostPort,
        *,
        cluster: str,
        refresh_seconds: float,
        reactor: Any,
        random: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            target: The name, and the port of its addresses.
            cluster: Whose it is, for the log.
            random: Returns numbers from 0 up to 1.
            changed: Called when there are other addresses than before, and when the first look-up has failed.
        """
        self.target = target
        self.addresses: tuple[Address, ...] = ()
        self.problem = ""
        self.refresh_seconds = refresh_seconds
        self._cluster = cluster
        self._reactor = reactor
        self._random = random
        self._changed = changed
        self._waiting: list[Locating] = []
        self._call: Any = None  # the next look-up, or the end of the time for this one
        self._is_stopped = False

    @property
    def is_open(self) -> bool:
        """Whether the first look-up still goes on."""
        return not self.addresses and not self.problem

    def start(self) -> None:
        """Look the name up, now and then again and again."""
        self._call = self._reactor.callLater(LOOK_UP_SECONDS, self._late)
        # AI_ADDRCONFIG: an address of a family that this machine has none of would be an endpoint that always fails.
        look_up(self.target, self._reactor, socket.AI_ADDRCONFIG).addCallbacks(self._found, self._failed)

    def stop(self) -> None:
        """Look no more; who waits is refused."""
        self._is_stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._answer_waiting()

    def locate(self, attempt: Locating) -> None:
        """Say where to connect: at once, or when the first look-up is over; see `connect.Locate`."""
        if self.is_open and not self._is_stopped:
            self._waiting.append(attempt)
        elif self.addresses:
            attempt.start(self.addresses)
        else:
            attempt.fail("no_healthy_upstream", self.problem or f"{self.target.host} is not looked up any more")

    def _found(self, addresses: Sequence[Address]) -> None:
        if self._is_stopped:
            return
        if not addresses:
            self._note_problem(f"{self.target.host} has no addresses")
        else:
            self._note(tuple(dict.fromkeys(addresses)))
        self._again()

    def _failed(self, why: Any) -> None:
        if not self._is_stopped:
            self._note_problem(f"{self.target.host} cannot be resolved: {why.getErrorMessage()}")
            self._again()

    def _late(self) -> None:
        """The look-up itself cannot be ended, so the next one waits for it."""
        self._note_problem(f"{self.target.host} cannot be resolved: no answer within {LOOK_UP_SECONDS:g} s")

    def _again(self) -> None:
        if self._call.active():
            self._call.cancel()
        pause = self.refresh_seconds if self.addresses else min(self.refresh_seconds, FIRST_RETRY_SECONDS)
        self._call = self._reactor.callLater(pause * (1 + JITTER * self._random()), self.start)

    def _note(self, addresses: tuple[Address, ...]) -> None:
        if self.problem:
            _log.info("cluster {cluster}: {host} can be resolved again", cluster=self._cluster, host=self.target.host)
        if len(addresses) > MAX_ADDRESSES:
            # Sorted first, or another choice of them would come and go with every look-up.
            addresses = tuple(sorted(addresses)[:MAX_ADDRESSES])
        are_new = set(addresses) != set(self.addresses)
        self.problem, self.addresses = "", addresses
        self._answer_waiting()
        if are_new:
            self._changed()

    def _note_problem(self, problem: str) -> None:
        was_open, is_new = self.is_open, not self.problem
        self.problem = problem
        if is_new:
            _log.warn(
                "cluster {cluster}: {problem}; {outcome}",
                cluster=self._cluster,
                problem=problem,
                outcome="its last addresses stay in use" if self.addresses else "it has none that could be used",
            )
        self._answer_waiting()
        if was_open:
            self._changed()

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for attempt in waiting:
            self.locate(attempt)


def endpoints_of(addresses: Sequence[Address]) -> list[tuple[Address, ...]]:
    """
    Return the addresses of each endpoint that an answer speaks of, in an order that is not the resolver's.

    Each is one of its own, except the two of this machine itself, as `localhost` has them: there, what listens is the
    same app, and mostly on one of them only.
    """
    here = tuple(sorted(address for address in addresses if address[1][0] in _LOOPBACK))
    others = [(address,) for address in addresses if address not in here]
    return sorted([*others, here] if here else others)
