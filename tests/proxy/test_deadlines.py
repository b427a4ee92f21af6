"""`proxy.deadlines`: many moving deadlines on one clock."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from sidecar.proxy.deadlines import FORGOTTEN_PER_LOOK, NEVER, Deadline, Deadlines


class Owner:
    """Notes the moments at which it was told."""

    def __init__(self, clock: Clock, name: str = "", told: list[str] | None = None) -> None:
        self.clock = clock
        self.name = name
        self.told = told if told is not None else []
        self.moments: list[float] = []
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1

    def deadline_passed(self) -> None:
        self.moments.append(self.clock.seconds())
        self.told.append(self.name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(clock)


@pytest.fixture
def owner(clock: Clock) -> Owner:
    return Owner(clock)


class TestSet:
    def test_it_passes_in_time(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """The owner is told once, at the moment."""
        Deadline(owner, deadlines).set(5.0)
        clock.pump([4.9, 0.1, 10.0])
        assert owner.moments == [5.0]

    def test_later_costs_no_entry(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """Moving a deadline later touches neither the heap nor the clock."""
        deadline = Deadline(owner, deadlines)
        deadline.set(5.0)
        for _ in range(1000):
            clock.advance(0.001)
            deadline.set(5.0)
        assert len(deadlines._heap) == 1
        assert len(clock.getDelayedCalls()) == 1
        clock.pump([4.9, 0.2])
        assert owner.moments == [pytest.approx(6.1)]

    def test_earlier_passes_in_time(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """Moving a deadline earlier is kept, also when it was moved later before."""
        deadline = Deadline(owner, deadlines)
        deadline.set(50.0)
        deadline.set(100.0)
        deadline.set(1.0)
        clock.pump([1.0, 49.0, 50.0])
        assert owner.moments == [1.0]

    def test_back_to_the_same_moment_passes_once(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """Two entries for one moment are one deadline."""
        deadline = Deadline(owner, deadlines)
        deadline.set(10.0)
        deadline.set(5.0)
        deadline.set(10.0)
        clock.pump([5.0, 5.0, 5.0])
        assert owner.moments == [10.0]

    def test_zero_is_never(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """A timeout of 0 takes back what was set."""
        deadline = Deadline(owner, deadlines)
        deadline.set(5.0)
        deadline.set(0)
        clock.advance(1000.0)
        assert owner.moments == []
        assert deadline.at == NEVER
        deadline.set(3.0)
        clock.advance(3.0)
        assert owner.moments == [1003.0]

    def test_owner_may_set_it_again_when_told(self, clock: Clock, deadlines: Deadlines) -> None:
        """A deadline that passed can be set anew from inside."""

        class Again(Owner):
            def deadline_passed(self) -> None:
                super().deadline_passed()
                if len(self.moments) < 3:
                    deadline.set(2.0)

        owner = Again(clock)
        deadline = Deadline(owner, deadlines)
        deadline.set(1.0)
        clock.pump([1.0, 2.0, 2.0, 2.0])
        assert owner.moments == [1.0, 3.0, 5.0]

    def test_stop_tells_nobody(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """After a stop nothing is left on the clock."""
        Deadline(owner, deadlines).set(1.0)
        deadlines.stop()
        deadlines.stop()
        assert not clock.getDelayedCalls()
        clock.advance(2.0)
        assert owner.moments == []


class TestEnd:
    def test_ended_one_is_not_told(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """A connection that is gone hears nothing."""
        deadline = Deadline(owner, deadlines)
        deadline.set(1.0)
        deadline.end()
        clock.advance(2.0)
        assert owner.moments == []

    def test_owner_is_let_go_at_once(self, clock: Clock, deadlines: Deadlines) -> None:
        """A gone connection is not kept until its deadline would have passed."""
        owner = Owner(clock)
        gone = weakref.ref(owner)
        deadline = Deadline(owner, deadlines)
        deadline.set(1000.0)
        deadline.end()
        gc.disable()
        try:
            del owner
            assert gone() is None
        finally:
            gc.enable()

    def test_end_by_another_in_the_same_moment_is_kept(self, clock: Clock, deadlines: Deadlines) -> None:
        """Of two that pass together, the first may end the second."""

        class Ending(Owner):
            def deadline_passed(self) -> None:
                second.end()

        victim = Owner(clock)
        first, second = Deadline(Ending(clock), deadlines), Deadline(victim, deadlines)
        first.set(1.0)
        second.set(1.0)
        clock.advance(1.0)
        assert victim.moments == []


class TestMany:
    def test_order_is_that_of_the_moments(self, clock: Clock, deadlines: Deadlines) -> None:
        """What passes first is told first, also within one look; equal moments in the order they were set."""
        told: list[str] = []
        for name, seconds in (("c", 3.0), ("a", 1.0), ("d", 3.0), ("b", 2.0)):
            Deadline(Owner(clock, name, told), deadlines).set(seconds)
        clock.advance(5.0)
        assert told == ["a", "b", "c", "d"]

    def test_random_moves_pass_exactly_when_due(self, clock: Clock, deadlines: Deadlines) -> None:
        """Whatever moves, each passes in its time: never early, at most a look late, and once."""
        chance = random.Random(7)
        owners = [Owner(clock) for _ in range(200)]
        all_of_them = [Deadline(owner, deadlines) for owner in owners]
        due: dict[int, float] = {}
        for _ in range(3000):
            index = chance.randrange(200)
            told_before = len(owners[index].moments)
            timeout = chance.choice([0, 0.5, 1.0, 5.0, 20.0])
            all_of_them[index].set(timeout)
            due[index] = clock.seconds() + timeout if timeout else NEVER
            clock.advance(chance.random() * 0.05)
            assert len(owners[index].moments) == told_before
            for other, moment in list(due.items()):
                if owners[other].moments:
                    assert moment - 1e-9 <= owners[other].moments.pop() <= clock.seconds()
                    del due[other]
                else:
                    assert moment > clock.seconds() - 1e-9
        assert len(deadlines._heap) < 2000
        clock.advance(30.0)
        assert all(len(owners[index].moments) == (moment != NEVER) for index, moment in due.items())
        assert not clock.getDelayedCalls()

    def test_ended_ones_are_not_looked_at_one_by_one(self, clock: Clock, deadlines: Deadlines, owner: Owner) -> None:
        """What short connections leave behind goes many at a time, and is in nobody's way."""
        for _ in range(3 * FORGOTTEN_PER_LOOK):
            deadline = Deadline(Owner(clock), deadlines)
            deadline.set(1.0)
            deadline.end()
            clock.advance(0.001)
        Deadline(owner, deadlines).set(1.0)
        moved = Deadline(owner, deadlines)
        moved.set(0.95)
        moved.set(0)
        looks = 0
        while clock.getDelayedCalls():
            (call,) = clock.getDelayedCalls()
            clock.advance(call.getTime() - clock.seconds())
            looks += 1
        assert looks == 4, "three for the ended ones, and one for the one that passes"
        assert owner.moments == [pytest.approx(1.3)]
        moved.set(1.0)
        clock.advance(1.0)
        assert owner.moments == [pytest.approx(1.3), pytest.approx(2.3)]

    def test_exception_costs_only_its_owner(self, clock: Clock, deadlines: Deadlines) -> None:
        """A bug in one connection does not keep the others waiting for ever."""

        class Broken(Owner):
            def deadline_passed(self) -> None:
                raise RuntimeError("a bug")

        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            broken, owner = Broken(clock), Owner(clock)
            for each in (broken, owner):
                Deadline(each, deadlines).set(1.0)
            clock.advance(1.0)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert (owner.moments, owner.abandoned) == ([1.0], 0)
        assert broken.abandoned == 1
        assert any("log_failure" in event for event in events)

    def test_exception_of_an_owner_that_ended_itself_costs_only_it(self, clock: Clock, deadlines: Deadlines) -> None:
        """The same where the owner had let go of its deadline before it failed."""

        class Broken(Owner):
            def deadline_passed(self) -> None:
                deadline.end()
                raise RuntimeError("a bug")

        broken, owner = Broken(clock), Owner(clock)
        deadline = Deadline(broken, deadlines)
        deadline.set(1.0)
        Deadline(owner, deadlines).set(1.0)
        clock.advance(1.0)
        assert (broken.abandoned, owner.moments) == (1, [1.0])
