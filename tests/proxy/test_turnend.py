"""`proxy.turnend`: what is put off to the end of the reactor's turn."""

from __future__ import annotations

from twisted.internet import task
from twisted.logger import LogEvent, globalLogPublisher

from sidecar.proxy.turnend import TurnEnd
from tests.support.ports import FakeReactor


class TestTurnEnd:
    def test_calls_are_made_in_order_and_once(self) -> None:
        """With one delayed call of the reactor, however many there are."""
        clock = task.Clock()
        made: list[int] = []
        turns = TurnEnd(clock)
        turns.call(lambda: made.append(1))
        turns.call(lambda: made.append(2))
        assert made == []
        assert len(clock.getDelayedCalls()) == 1
        clock.advance(0)
        clock.advance(1)
        assert made == [1, 2]

    def test_call_from_within_is_another_delayed_call(self) -> None:
        """It is not made among those of this turn, where one that always makes another would never let it end."""
        clock = FakeReactor()
        made: list[int] = []
        turns = TurnEnd(clock)

        def first() -> None:
            turns.call(lambda: made.append(2))
            made.append(clock.pending)

        turns.call(first)
        clock.advance(0)
        assert made == [1, 2]

    def test_one_that_fails_keeps_nobody_waiting(self) -> None:
        """It is a bug of ours, of one connection."""
        clock = task.Clock()
        made: list[int] = []
        events: list[LogEvent] = []
        turns = TurnEnd(clock)
        turns.call(lambda: print(1 // 0))
        turns.call(lambda: made.append(2))
        globalLogPublisher.addObserver(events.append)
        try:
            clock.advance(0)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert made == [2]
        assert any("log_failure" in event for event in events)
