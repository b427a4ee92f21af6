"""`policy.balancer`: whose turn it is, and who gets none for a while."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.balancer import NEVER, Balancer, EndpointState, Health
from sidecar.settings import LoadBalancing
from sidecar.topology import HealthCheck, OutlierDetection

ROUND_ROBIN, LEAST_REQUEST = LoadBalancing.ROUND_ROBIN, LoadBalancing.LEAST_REQUEST

OUTLIERS = OutlierDetection(
    consecutive_failures=3, base_ejection_time=10.0, max_ejection_time=25.0, max_ejection_percent=50
)

quick = settings(max_examples=200, deadline=None)

weights_of_several = st.lists(st.integers(1, 128), min_size=2, max_size=12)
dice = st.integers(0, 2**32).map(lambda seed: random.Random(seed).random)
kinds = st.sampled_from(LoadBalancing)


def make(
    weights: Sequence[int],
    balancing: LoadBalancing = ROUND_ROBIN,
    outliers: OutlierDetection = OUTLIERS,
    panic_threshold: int = 50,
    dice: Callable[[], float] | None = None,
) -> Balancer[EndpointState]:
    balancer: Balancer[EndpointState] = Balancer(balancing, outliers, panic_threshold, dice or random.Random(1).random)
    balancer.use([EndpointState(weight) for weight in weights], 0.0)
    return balancer


def fail(balancer: Balancer[EndpointState], endpoint: EndpointState, times: int = 3, now: float = 0.0) -> float:
    return max(balancer.failed(endpoint, now) for _ in range(times))


def chosen(balancer: Balancer[EndpointState], times: int = 60, now: float = 0.0) -> set[int]:
    """Places of the endpoints that get requests."""
    return {balancer.endpoints.index(balancer.choose(now)) for _ in range(times)}  # type: ignore[arg-type]


class TestShares:
    @quick
    @given(weights_of_several, dice)
    def test_turns_are_as_the_weights_say(self, weights: list[int], dice: Callable[[], float]) -> None:
        """Round robin: at any moment each endpoint has had its share, give or take a turn or so."""
        balancer = make(weights, dice=dice)
        counts: Counter[Any] = Counter()
        for turn in range(1, 3 * sum(weights) + 1):
            counts[balancer.choose(0.0)] += 1
            if turn % sum(weights) == 0:
                for endpoint in balancer.endpoints:
                    share = turn * endpoint.weight / sum(weights)
                    assert abs(counts[endpoint] - share) <= 1 + len(weights) * endpoint.weight / sum(weights)

    def test_turns_of_a_heavy_one_lie_around_those_of_the_others(self) -> None:
        """A heavy endpoint does not get all of its share first."""
        balancer = make([5, 1, 1], dice=lambda: 0.5)
        turns = "".join("abc"[balancer.endpoints.index(balancer.choose(0.0))] for _ in range(7))  # type: ignore[arg-type]
        assert turns == "aaabcaa"

    def test_first_turn_is_left_to_chance(self) -> None:
        """Several workers do not all turn to the same endpoint first."""
        first = {chosen(make([1, 1, 1], dice=random.Random(seed).random), 1).pop() for seed in range(50)}
        assert first == {0, 1, 2}

    def test_least_request_without_load_is_as_the_weights_say(self) -> None:
        """Where nothing is under way, there is nothing to choose by but the weights."""
        balancer = make([1, 3, 6], LEAST_REQUEST)
        counts = Counter(balancer.choose(0.0) for _ in range(20_000))
        assert [round(counts[endpoint] / 2000) for endpoint in balancer.endpoints] == [1, 3, 6]

    @quick
    @given(weights_of_several, dice)
    def test_least_request_levels_the_load(self, weights: list[int], dice: Callable[[], float]) -> None:
        """Of two endpoints, the one with less under way for its weight: requests that never end are spread by it."""
        balancer = make(weights[:2], LEAST_REQUEST, dice=dice)
        for _ in range(10 * sum(weights[:2])):
            balancer.choose(0.0).active += 1  # type: ignore[union-attr]
        one, other = balancer.endpoints
        assert abs(one.active / one.weight - other.active / other.weight) <= 1 / min(one.weight, other.weight)

    def test_least_request_avoids_the_one_that_hangs(self) -> None:
        """An endpoint that answers nothing gets little more, however many there are: only if it is drawn twice."""
        balancer = make([1] * 5, LEAST_REQUEST)
        balancer.endpoints[2].active = 1000
        assert chosen(balancer, 500) == {0, 1, 3, 4}


@pytest.mark.parametrize("balancing", LoadBalancing)
class TestExclude:
    @quick
    @given(data=st.data(), weights=weights_of_several, dice=dice)
    def test_excluded_one_is_never_chosen(
        self, balancing: LoadBalancing, data: st.DataObject, weights: list[int], dice: Callable[[], float]
    ) -> None:
        """Whoever could not be connected to is not tried again for the same request; if all were, there is none."""
        balancer = make(weights, balancing, dice=dice)
        tried = data.draw(st.sets(st.sampled_from(range(len(weights)))))
        exclude = tuple(balancer.endpoints[place] for place in tried)
        for _ in range(20):
            choice = balancer.choose(0.0, exclude)
            assert choice not in exclude
            assert (choice is None) == (len(tried) == len(weights))

    def test_endpoint_that_fails_gets_no_more_than_its_share(self, balancing: LoadBalancing) -> None:
        """Those that take its requests over do so beside their own, each by its weight."""
        balancer = make([2, 1, 1, 2], balancing)
        bad, *others = balancer.endpoints
        first: Counter[Any] = Counter()
        second: Counter[Any] = Counter()
        for _ in range(12_000):
            choice = balancer.choose(0.0)
            first[choice] += 1
            if choice is bad:
                second[balancer.choose(0.0, (bad,))] += 1
        assert [round(first[endpoint] / 1000) for endpoint in balancer.endpoints] == [4, 2, 2, 4]
        assert [round(second[endpoint] / 500) for endpoint in others] == [2, 2, 4]


class TestAvailability:
    @pytest.mark.parametrize("balancing", LoadBalancing)
    def test_unhealthy_one_gets_nothing(self, balancing: LoadBalancing) -> None:
        """Enough of the others are well."""
        balancer = make([1, 100, 1], balancing)
        balancer.endpoints[1].is_healthy = False
        balancer.refresh(0.0)
        assert chosen(balancer) == {0, 2}
        assert not balancer.is_panicking

    @pytest.mark.parametrize(
        ("threshold", "well", "panics"),
        [(50, 2, False), (50, 1, True), (25, 1, False), (100, 3, True), (1, 0, True), (0, 0, False)],
        ids=["half", "below", "quarter", "all-wanted", "none-left", "off"],
    )
    def test_too_few_well_ones_mean_that_all_are_used(self, threshold: int, well: int, panics: bool) -> None:
        """Below the threshold the checks are likelier wrong than the endpoints; a threshold of 0 is never reached."""
        balancer = make([1] * 4, panic_threshold=threshold)
        for endpoint in balancer.endpoints[well:]:
            endpoint.is_healthy = False
        balancer.refresh(0.0)
        assert balancer.is_panicking == panics
        if panics:
            assert chosen(balancer) == {0, 1, 2, 3}
        elif well:
            assert chosen(balancer) == set(range(well))
        else:
            assert balancer.choose(0.0) is None

    @pytest.mark.parametrize("balancing", LoadBalancing)
    def test_nobody_is_chosen_of_nobody(self, balancing: LoadBalancing) -> None:
        """A name may have no addresses."""
        balancer = make([], balancing)
        assert balancer.choose(0.0) is None
        assert balancer.only(0.0) is None
        assert not balancer.is_panicking

    def test_only_one_is_told_if_it_is_one(self) -> None:
        """The common case needs no choice."""
        one = make([1])
        assert one.only(0.0) is one.endpoints[0]
        one.endpoints[0].is_healthy = False
        one.refresh(0.0)
        assert one.only(0.0) is one.endpoints[0]  # in a panic
        one.configure(ROUND_ROBIN, OUTLIERS, 0)
        one.refresh(0.0)
        assert one.only(0.0) is None
        assert make([1, 1]).only(0.0) is None

    def test_other_balancing_holds_from_the_next_look_on(self) -> None:
        """A reload changes how is chosen."""
        balancer = make([1, 1])
        balancer.endpoints[0].active = 5
        balancer.configure(LEAST_REQUEST, OUTLIERS, 50)
        balancer.refresh(0.0)
        assert chosen(balancer) == {1}


class TestEjection:
    def test_failures_in_a_row_eject(self) -> None:
        """At the third, not before; and a success in between begins the count anew."""
        balancer = make([1, 1, 1])
        bad = balancer.endpoints[0]
        assert fail(balancer, bad, 2) == 0
        balancer.succeeded(bad)
        assert fail(balancer, bad, 2) == 0
        assert balancer.failed(bad, 0.0) == 10.0
        assert chosen(balancer) == {1, 2}
        assert (bad.ejections, bad.ejected_count, bad.failures) == (1, 1, 0)

    def test_ejected_one_is_back_when_its_time_is_over(self) -> None:
        """Exactly then, without anybody's help."""
        balancer = make([1, 1, 1])
        fail(balancer, balancer.endpoints[0], now=5.0)
        assert chosen(balancer, now=14.99) == {1, 2}
        assert chosen(balancer, now=15.0) == {0, 1, 2}

    def test_each_ejection_takes_longer_up_to_the_limit(self) -> None:
        """Backing off: once, twice, thrice the base, but not over the maximum."""
        balancer = make([1, 1, 1])
        bad, now, lasted = balancer.endpoints[0], 0.0, []
        for _ in range(4):
            lasted.append(fail(balancer, bad, now=now))
            now += lasted[-1]
        assert lasted == [10.0, 20.0, 25.0, 25.0]

    def test_time_in_which_it_is_well_is_counted_in_its_favour(self) -> None:
        """Each base time without another ejection takes one off, and never more than there are."""
        balancer = make([1, 1, 1])
        bad = balancer.endpoints[0]
        fail(balancer, bad, now=0.0)
        fail(balancer, bad, now=10.0)  # until 30
        assert fail(balancer, bad, now=49.0) == 20.0  # one forgotten, one on top
        assert fail(balancer, bad, now=10_000.0) == 10.0

    def test_failures_while_it_is_ejected_change_nothing(self) -> None:
        """Requests that were under way, or that come in a panic, do not make it longer."""
        balancer = make([1, 1, 1])
        bad = balancer.endpoints[0]
        fail(balancer, bad)
        until = bad.ejected_until
        assert fail(balancer, bad, 10, now=5.0) == 0
        assert bad.ejected_until == until

    def test_alone_it_is_never_ejected(self) -> None:
        """There is nobody else to turn to; and who was ejected in company is used when it is alone."""
        balancer = make([1], panic_threshold=0)
        assert fail(balancer, balancer.endpoints[0], 100) == 0
        two = make([1, 1], panic_threshold=0)
        fail(two, two.endpoints[0])
        two.use(two.endpoints[:1], 1.0)
        assert two.choose(1.0) is two.endpoints[0]

    @pytest.mark.parametrize(
        ("count", "percent", "most"),
        [(2, 50, 1), (2, 100, 1), (3, 10, 1), (3, 0, 1), (4, 50, 2), (10, 30, 3), (5, 100, 4)],
    )
    def test_no_more_than_so_many_at_once(self, count: int, percent: int, most: int) -> None:
        """The percentage of all, at least one of several, never all."""
        balancer = make([1] * count, outliers=attrs.evolve(OUTLIERS, max_ejection_percent=percent))
        ejected = [fail(balancer, endpoint) for endpoint in balancer.endpoints]
        assert sum(map(bool, ejected)) == most

    def test_last_available_one_is_not_ejected(self) -> None:
        """Those that active checks hold for ill are no help."""
        balancer = make([1, 1, 1], outliers=attrs.evolve(OUTLIERS, max_ejection_percent=100))
        balancer.endpoints[1].is_healthy = balancer.endpoints[2].is_healthy = False
        balancer.refresh(0.0)
        assert fail(balancer, balancer.endpoints[0], 10) == 0

    def test_one_that_was_kept_for_want_of_others_goes_when_there_are_some(self) -> None:
        """Its failures are not forgotten."""
        balancer = make([1, 1])
        first, second = balancer.endpoints
        fail(balancer, second)
        assert fail(balancer, first, 5) == 0
        assert balancer.failed(first, 10.0) == 10.0

    def test_off_is_off(self) -> None:
        """Zero failures in a row never happen."""
        balancer = make([1, 1], outliers=attrs.evolve(OUTLIERS, consecutive_failures=0))
        assert fail(balancer, balancer.endpoints[0], 100) == 0

    def test_endpoint_that_has_gone_is_not_ejected(self) -> None:
        """Its last requests may end after it was retired."""
        balancer = make([1, 1, 1])
        gone = balancer.endpoints[0]
        balancer.use(balancer.endpoints[1:], 0.0)
        assert fail(balancer, gone, 10) == 0
        assert gone.ejected_until == NEVER

    @quick
    @given(
        weights_of_several,
        st.integers(0, 100),
        st.integers(0, 100),
        kinds,
        st.lists(
            st.tuples(st.integers(0, 11), st.sampled_from(["fail", "succeed", "ill", "well", "wait"])), max_size=80
        ),
        dice,
    )
    def test_there_is_always_somebody(
        self,
        weights: list[int],
        percent: int,
        panic_threshold: int,
        balancing: LoadBalancing,
        events: list[tuple[int, str]],
        dice: Callable[[], float],
    ) -> None:
        """
        Whatever happens to requests, never all are ejected; without active checks there is always one to choose; and
        nobody is chosen who is not available, unless in a panic.
        """
        balancer = make(weights, balancing, attrs.evolve(OUTLIERS, max_ejection_percent=percent), panic_threshold, dice)
        now = 0.0
        for place, event in events:
            endpoint = balancer.endpoints[place % len(weights)]
            if event == "fail":
                fail(balancer, endpoint, now=now)
            elif event == "succeed":
                balancer.succeeded(endpoint)
            elif event == "wait":
                now += 7.0
            else:
                endpoint.is_healthy = event == "well"
                balancer.refresh(now)
            ejected = [each for each in balancer.endpoints if now < each.ejected_until]
            assert len(ejected) <= max(1, len(weights) * percent // 100)
            assert len(ejected) < len(weights)
            choice = balancer.choose(now)
            if all(each.is_healthy for each in balancer.endpoints):
                assert choice is not None
            assert choice is None or balancer.is_panicking or choice.is_available(now)


class TestHealth:
    CHECK = HealthCheck(healthy_threshold=2, unhealthy_threshold=3)

    @pytest.mark.parametrize(
        ("results", "changes"),
        [
            ("-", "!"),
            ("+", "."),
            ("+---", "...!"),
            ("+--+--", "......"),
            ("-+", "!."),
            ("-++", "!.!"),
            ("-+-++", "!...!"),
            ("-++---", "!.!..!"),
            ("+-----", "...!.."),
        ],
    )
    def test_results_in_a_row_change_what_it_is_taken_for(self, results: str, changes: str) -> None:
        """As many as the thresholds say; but the very first counts at once."""
        health = Health(self.CHECK)
        told = "".join("!" if health.note("" if result == "+" else "503") else "." for result in results)
        assert told == changes

    def test_why_is_that_of_the_last_failure(self) -> None:
        """It is what operators look for; an endpoint that is healthy has none."""
        health = Health(self.CHECK)
        health.note("refused")
        health.note("timeout")
        assert (health.is_healthy, health.why) == (False, "timeout")
        health.note("")
        assert health.why == "timeout"
        health.note("")
        assert (health.is_healthy, health.why) == (True, "")
        health.note("once")
        assert health.why == ""
