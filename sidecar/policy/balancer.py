"""
Which endpoint of a cluster a request goes to, and which ones get none for a while. Pure: the moment and the dice are
handed in.

Endpoints are used that are healthy, as far as active checks know, and not ejected for what became of requests. If too
few are left, all of them are: most likely the checks are wrong then, and the few would break down under the load.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Final, Generic, TypeVar

import attrs

from sidecar.settings import LoadBalancing
from sidecar.topology import HealthCheck, OutlierDetection

NEVER: Final = -math.inf


class EndpointState:
    """
    What is known of an endpoint.

    Attributes:
        weight: Its share of the requests, in relation to those of the others.
        active: Requests under way.
        is_healthy: What active checks say; True without any.
        failures: In a row.
        ejected_until: Moment up to which it gets no requests; NEVER if it was not ejected.
        ejections: How often in a row it was ejected: with each, it takes longer.
        ejected_count: How often it was ejected at all.
    """

    __slots__ = ("active", "ejected_count", "ejected_until", "ejections", "failures", "is_healthy", "weight")

    def __init__(self, weight: int = 1) -> None:
        self.weight = weight
        self.active = 0
        self.is_healthy = True
        self.failures = 0
        self.ejected_until = NEVER
        self.ejections = 0
        self.ejected_count = 0

    def is_available(self, now: float) -> bool:
        """Whether nothing speaks against it."""
        return self.is_healthy and now >= self.ejected_until


E = TypeVar("E", bound=EndpointState)


class Balancer(Generic[E]):
    """
    Chooses among the endpoints of one cluster.

    Attributes:
        endpoints: All of them.
        is_panicking: Whether so few are available that all are used.
    """

    def __init__(
        self,
        balancing: LoadBalancing,
        outliers: OutlierDetection,
        panic_threshold: int,
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            panic_threshold: If fewer per cent of the endpoints than this are available, all are used.
            random: Returns numbers from 0 up to, not including, 1.
        """
        self.endpoints: tuple[E, ...] = ()
        self.is_panicking = False
        self._balancing = balancing
        self._outliers = outliers
        self._panic_threshold = panic_threshold
        self._random = random
        self._changes_at = math.inf  # when an ejection ends
        self._choice: _Turns[E] | _LeastLoaded[E] = _Turns((), random)

    def configure(self, balancing: LoadBalancing, outliers: OutlierDetection, panic_threshold: int) -> None:
        """Go by other settings from the next `refresh` on."""
        self._balancing = balancing
        self._outliers = outliers
        self._panic_threshold = panic_threshold

    def use(self, endpoints: Sequence[E], now: float) -> None:
        """Choose among *endpoints* from now on. One that is alone is not ejected, whatever it was ejected for."""
        self.endpoints = tuple(endpoints)
        if len(self.endpoints) == 1:
            only = self.endpoints[0]
            only.ejected_until = min(only.ejected_until, now)
        self.refresh(now)

    def refresh(self, now: float) -> None:
        """The health or the weight of an endpoint has changed, or an ejection has ended."""
        available = [endpoint for endpoint in self.endpoints if endpoint.is_available(now)]
        enough = len(self.endpoints) * self._panic_threshold / 100
        self.is_panicking = len(available) < enough
        usable = self.endpoints if self.is_panicking else tuple(available)
        ends = (endpoint.ejected_until for endpoint in self.endpoints if endpoint.ejected_until > now)
        self._changes_at = min(ends, default=math.inf)
        by_load = self._balancing is LoadBalancing.LEAST_REQUEST
        self._choice = _LeastLoaded(usable, self._random) if by_load else _Turns(usable, self._random)

    def choose(self, now: float, exclude: Collection[EndpointState] = ()) -> E | None:
        """Return whose turn it is, or None: there is none beside *exclude*."""
        if now >= self._changes_at:
            self.refresh(now)
        return self._choice.other_than(exclude) if exclude else self._choice.next()

    def only(self, now: float) -> E | None:
        """Return the endpoint that every choice comes to until the next `refresh`, or None if it depends."""
        return self.choose(now) if len(self.endpoints) == 1 else None

    def succeeded(self, endpoint: E) -> None:
        """A request to *endpoint* went well."""
        endpoint.failures = 0

    def failed(self, endpoint: E, now: float) -> float:
        """
        A request to *endpoint* did not.

        Returns:
            For how many seconds it is ejected for that; 0: it is not.
        """
        outliers = self._outliers
        endpoint.failures += 1
        if not outliers.consecutive_failures or endpoint.failures < outliers.consecutive_failures:
            return 0.0
        if not self._may_eject(endpoint, now):
            return 0.0
        if endpoint.ejections:  # what it was ejected for is forgotten as slowly as it was punished
            well_for = now - endpoint.ejected_until
            endpoint.ejections = max(0, endpoint.ejections - int(well_for / outliers.base_ejection_time))
        endpoint.failures = 0
        endpoint.ejections += 1
        endpoint.ejected_count += 1
        lasts = min(outliers.base_ejection_time * endpoint.ejections, outliers.max_ejection_time)
        endpoint.ejected_until = now + lasts
        self.refresh(now)
        return lasts

    def _may_eject(self, endpoint: E, now: float) -> bool:
        """Never an endpoint that is (it may be used in a panic), that is the last available one, or one too many."""
        if now < endpoint.ejected_until or endpoint not in self.endpoints:
            return False
        others = [other for other in self.endpoints if other is not endpoint]
        if not any(other.is_available(now) for other in others):
            return False
        ejected = sum(now < other.ejected_until for other in others)
        return ejected < max(1, len(self.endpoints) * self._outliers.max_ejection_percent // 100)


class _Turns(Generic[E]):
    """
    Weighted round robin.

    Each endpoint has the moment of its next turn on a clock of its own making, on which its turns are 1/weight apart;
    the earliest is next. So the turns of a heavy one lie between those of the others, and the cost of a choice hardly
    grows with their number. All begin at random, or several workers would all turn to the same one first.
    """

    def __init__(self, usable: Sequence[E], random: Callable[[], float]) -> None:
        self._random = random
        self._heap = [(random() / endpoint.weight, place, endpoint) for place, endpoint in enumerate(usable)]
        heapq.heapify(self._heap)

    def next(self) -> E | None:
        if not self._heap:
            return None
        at, place, endpoint = self._heap[0]
        heapq.heapreplace(self._heap, (at + 1 / endpoint.weight, place, endpoint))
        return endpoint

    def other_than(self, exclude: Collection[EndpointState]) -> E | None:
        """
        By the dice, and without touching the turns: whoever stood in would lag behind in those for it, and an endpoint
        that fails would get all the more.
        """
        left = [endpoint for _, _, endpoint in self._heap if endpoint not in exclude]
        if not left:
            return None
        ends = list(itertools.accumulate(endpoint.weight for endpoint in left))
        return left[bisect.bisect_right(ends, int(self._random() * ends[-1]))]


class _LeastLoaded(Generic[E]):
    """
    Of two endpoints at random, the one with fewer requests under way for its weight.

    Heavy ones are drawn more often, and the first one drawn wins a tie: without load, shares are as the weights say.
    """

    def __init__(self, usable: Sequence[E], random: Callable[[], float]) -> None:
        self._usable = usable
        self._ends = list(itertools.accumulate(endpoint.weight for endpoint in usable))
        self._random = random

    def next(self) -> E | None:
        usable, ends = self._usable, self._ends
        if len(usable) < 2:
            return usable[0] if usable else None
        first = bisect.bisect_right(ends, int(self._random() * ends[-1]))
        one = usable[first]
        # The other is drawn from what is left of the line if the first one's piece is cut out.
        at = int(self._random() * (ends[-1] - one.weight))
        if at >= ends[first] - one.weight:
            at += one.weight
        other = usable[bisect.bisect_right(ends, at)]
        return other if other.active * one.weight < one.active * other.weight else one

    def other_than(self, exclude: Collection[EndpointState]) -> E | None:
        left = [endpoint for endpoint in self._usable if endpoint not in exclude]
        return _LeastLoaded(left, self._random).next()


@attrs.define(eq=False, repr=False)
class Health:
    """
    What the results of active checks make of an endpoint.

    Attributes:
        is_healthy: What it is taken for.
        why: Of the last check that failed; "" while it is healthy.
    """

    check: HealthCheck
    is_healthy: bool = True
    why: str = ""
    _streak: int = 0  # results in a row that say otherwise
    _is_first: bool = True

    def note(self, why: str) -> bool:
        """
        Take a result in: "" or what is wrong.

        Returns:
            Whether the endpoint is now taken for something else than before.
        """
        is_first, self._is_first = self._is_first, False
        if why and not self.is_healthy:
            self.why = why
        if self.is_healthy == (not why):
            self._streak = 0
            return False
        self._streak += 1
        needed = self.check.unhealthy_threshold if self.is_healthy else self.check.healthy_threshold
        if not is_first and self._streak < needed:
            return False
        self.is_healthy, self.why, self._streak = not why, why, 0
        return True
