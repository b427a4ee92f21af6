"""`watching`: changes are seen once each, in the thread of the reactor."""

from __future__ import annotations

import threading
from collections.abc import Callable

from twisted.logger import LogEvent, globalLogPublisher

from sidecar.watching import Watcher


class FakeReactor:
    """Keeps what threads want done."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.asked = threading.Event()

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
        self.asked.set()


class TestWatcher:
    def test_each_change_is_told_once(self) -> None:
        """What stays the same is no news, and every difference from last time is."""
        reactor, seen = FakeReactor(), [b"a"]
        changes: list[bytes] = []
        watcher = Watcher(lambda: seen[0], b"a", lambda: changes.append(seen[0]), 3600.0, reactor)
        for content in (b"a", b"b", b"b", b"c", b"a"):
            seen[0] = content
            watcher.look_once()
            while reactor.calls:
                reactor.calls.pop()()
        assert changes == [b"b", b"c", b"a"]

    def test_change_before_the_first_look_is_told(self) -> None:
        """What was in use when it began is what it is given."""
        reactor = FakeReactor()
        Watcher(lambda: b"new", b"old", lambda: None, 3600.0, reactor).look_once()
        assert len(reactor.calls) == 1

    def test_look_that_fails_is_not_the_last(self) -> None:
        """A file system can fail in ways that nobody foresaw; it is told once, and looking goes on."""
        reactor, failures = FakeReactor(), iter([OSError(), OSError(), ValueError()])
        events: list[LogEvent] = []

        def look() -> bytes:
            for failure in failures:
                raise failure
            return b"well again"

        globalLogPublisher.addObserver(events.append)
        try:
            watcher = Watcher(look, b"", lambda: None, 0.001, reactor)
            watcher.start()
            assert reactor.asked.wait(10.0)
            watcher.stop()
            watcher._thread.join(10.0)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert len(events) == 1

    def test_thread_looks_until_it_is_stopped(self) -> None:
        """It looks by itself, ends when told to, and never holds up the end of the process."""
        reactor, looks = FakeReactor(), iter(range(1_000_000))
        watcher = Watcher(lambda: b"%d" % next(looks), b"", lambda: None, 0.001, reactor)
        watcher.start()
        assert reactor.asked.wait(10.0)
        assert watcher._thread.daemon
        watcher.stop()
        watcher._thread.join(10.0)
        assert not watcher._thread.is_alive()
        count = len(reactor.calls)
        watcher.look_once()
        assert len(reactor.calls) == count
