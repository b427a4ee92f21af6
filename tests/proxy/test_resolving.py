"""`proxy.resolving`: the addresses of a name, as time goes by."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from sidecar.proxy import resolving as module
from sidecar.proxy.resolving import FIRST_RETRY_SECONDS, JITTER, LOOK_UP_SECONDS, MAX_ADDRESSES, NameWatch, endpoints_of
from sidecar.settings import HostPort
from tests.support.ports import FakeReactor
from tests.support.upstreams import FakeLocating, FakeNames, address_of

REFRESH = 10.0


class Watch:
    """A watch on a name, its resolver, and how often it said that something has changed."""

    def __init__(self, names: FakeNames) -> None:
        self.names = names
        self.reactor = FakeReactor()
        self.dice = 0.0
        self.changes = 0
        self.watch = NameWatch(
            HostPort("app.internal", 80),
            cluster="shop",
            refresh_seconds=REFRESH,
            reactor=self.reactor,
            random=lambda: self.dice,
            changed=self.note,
        )
        self.watch.start()

    def note(self) -> None:
        self.changes += 1

    @property
    def hosts(self) -> list[str]:
        return [address[1][0] for address in self.watch.addresses]

    def answer(self, *hosts: str) -> None:
        self.names.answer(*hosts)

    def next(self) -> None:
        self.reactor.advance(REFRESH)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    names = FakeNames()
    monkeypatch.setattr(module, "look_up", names.look_up)
    return Watch(names)


def told(logs: list[Any]) -> list[str]:
    return [formatEvent(event) for event in logs]


class TestAnswers:
    def test_first_one_makes_a_change(self, watch: Watch) -> None:
        """Both families count."""
        assert watch.watch.is_open
        watch.answer("10.0.0.1", "2001:db8::1")
        assert watch.hosts == ["10.0.0.1", "2001:db8::1"]
        assert (watch.changes, watch.watch.is_open) == (1, False)

    def test_other_order_is_no_change(self, watch: Watch) -> None:
        """Name servers rotate their answers; what came last is kept, for who goes by the order."""
        watch.answer("10.0.0.1", "10.0.0.2")
        watch.next()
        watch.answer("10.0.0.2", "10.0.0.1", "10.0.0.2")
        assert watch.changes == 1
        assert watch.hosts == ["10.0.0.2", "10.0.0.1"]

    def test_addresses_that_come_and_go_are_changes(self, watch: Watch) -> None:
        """Each time."""
        watch.answer("10.0.0.1")
        for hosts in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]):
            watch.next()
            watch.answer(*hosts)
            assert watch.hosts == hosts
        assert watch.changes == 3

    def test_number_of_addresses_is_limited(self, watch: Watch) -> None:
        """Whoever answers for the name cannot make any number of endpoints, nor others with each look-up."""
        hosts = [f"10.0.{i // 250}.{i % 250}" for i in range(MAX_ADDRESSES + 50)]
        watch.answer(*hosts)
        watch.next()
        watch.answer(*reversed(hosts))
        assert len(watch.hosts) == MAX_ADDRESSES
        assert watch.changes == 1

    def test_next_look_up_comes_after_the_interval_and_some_chance(self, watch: Watch) -> None:
        """Many proxies do not ask at once."""
        watch.dice = 0.5
        watch.answer("10.0.0.1")
        watch.reactor.advance(REFRESH * (1 + JITTER / 2) - 0.01)
        assert watch.names.waiting == 0
        watch.reactor.advance(0.02)
        assert watch.names.waiting == 1


class TestFailures:
    def test_last_answer_stays_and_it_is_said_once(self, watch: Watch) -> None:
        """A resolver that is away for a while takes no endpoint with it; an empty answer is no answer."""
        watch.answer("10.0.0.1")
        with capturedLogs() as logs:
            watch.next()
            watch.names.fail("Temporary failure in name resolution")
            watch.next()
            watch.answer()
            watch.next()
            watch.answer("10.0.0.1")
            watch.next()
            watch.answer("10.0.0.1")
        assert watch.hosts == ["10.0.0.1"]
        assert watch.changes == 1
        assert told(logs) == [
            "cluster shop: app.internal cannot be resolved: [Errno -2] Temporary failure in name resolution; its last "
            "addresses stay in use",
            "cluster shop: app.internal can be resolved again",
        ]

    def test_first_failure_is_told_and_tried_again_soon(self, watch: Watch) -> None:
        """Without any address requests are refused: it should not last for a whole interval."""
        watch.names.fail()
        assert (watch.changes, watch.watch.is_open) == (1, False)
        assert "cannot be resolved" in watch.watch.problem
        watch.reactor.advance(FIRST_RETRY_SECONDS)
        watch.names.fail()
        assert watch.changes == 1
        watch.reactor.advance(FIRST_RETRY_SECONDS)
        watch.answer("10.0.0.1")
        assert (watch.changes, watch.watch.problem) == (2, "")

    def test_name_without_addresses_has_a_problem(self, watch: Watch) -> None:
        """It says so."""
        watch.answer()
        assert watch.watch.problem == "app.internal has no addresses"

    def test_slow_look_up_has_failed_until_it_answers(self, watch: Watch) -> None:
        """It cannot be ended, so no second one is begun; its answer is as good as any."""
        watch.reactor.advance(LOOK_UP_SECONDS)
        assert watch.watch.problem == "app.internal cannot be resolved: no answer within 5 s"
        watch.reactor.advance(100 * REFRESH)
        assert watch.names.asked == ["app.internal"]
        watch.answer("10.0.0.1")
        assert (watch.hosts, watch.watch.problem) == (["10.0.0.1"], "")
        watch.next()
        assert watch.names.waiting == 1


class TestLocate:
    def test_who_comes_first_waits_for_the_first_answer(self, watch: Watch) -> None:
        """Then all who wait are told, and later ones at once."""
        early, late = FakeLocating(), FakeLocating()
        watch.watch.locate(early)
        assert early.told == []
        watch.answer("10.0.0.2", "10.0.0.1")
        watch.watch.locate(late)
        assert early.told == late.told == [["10.0.0.2", "10.0.0.1"]]

    @pytest.mark.parametrize("end", ["fails", "is slow", "stops"])
    def test_who_waits_in_vain_is_refused(self, watch: Watch, end: str) -> None:
        """With a reason that asks clients to try again, and only once."""
        attempt = FakeLocating()
        watch.watch.locate(attempt)
        if end == "fails":
            watch.names.fail()
        elif end == "is slow":
            watch.reactor.advance(LOOK_UP_SECONDS)
        else:
            watch.watch.stop()
        ((reason, detail),) = attempt.told
        assert reason == "no_healthy_upstream"
        assert detail.startswith("app.internal ")

    def test_last_answer_is_used_while_look_ups_fail(self, watch: Watch) -> None:
        """New connections go where they went."""
        watch.answer("10.0.0.1")
        watch.next()
        watch.names.fail()
        attempt = FakeLocating()
        watch.watch.locate(attempt)
        assert attempt.told == [["10.0.0.1"]]


class TestStop:
    @pytest.mark.parametrize("how", ["between", "found", "failed"])
    def test_nothing_happens_any_more(self, watch: Watch, how: str) -> None:
        """Neither a look-up nor a change, even if one is under way."""
        if how == "between":
            watch.answer("10.0.0.1")
        before = watch.changes
        watch.watch.stop()
        if how == "found":
            watch.answer("10.0.0.9")
        elif how == "failed":
            watch.names.fail()
        watch.reactor.advance(1000.0)
        assert len(watch.names.asked) == 1
        assert watch.changes == before
        assert not watch.reactor.pending


class TestEndpointsOf:
    @pytest.mark.parametrize(
        ("hosts", "endpoints"),
        [
            (["10.0.0.2", "10.0.0.1"], [["10.0.0.1"], ["10.0.0.2"]]),
            (["2001:db8::1", "10.0.0.1"], [["10.0.0.1"], ["2001:db8::1"]]),
            (["::1", "127.0.0.1"], [["127.0.0.1", "::1"]]),
            (["127.0.0.1", "::1"], [["127.0.0.1", "::1"]]),
            (["127.0.0.2", "127.0.0.3"], [["127.0.0.2"], ["127.0.0.3"]]),
            (["::1", "10.0.0.1"], [["10.0.0.1"], ["::1"]]),
            (["::1", "10.0.0.1", "127.0.0.1"], [["10.0.0.1"], ["127.0.0.1", "::1"]]),
            ([], []),
        ],
        ids=["two", "families", "localhost", "localhost-turned", "others-here", "one-here", "mixed", "none"],
    )
    def test_each_address_is_one_but_for_localhost(self, hosts: list[str], endpoints: list[list[str]]) -> None:
        """An app on localhost listens on one of its two addresses; half of the requests must not go to the other."""
        found = endpoints_of([address_of(host) for host in hosts])
        assert [[address[1][0] for address in each] for each in found] == endpoints
