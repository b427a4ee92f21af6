"""
Looks whether files have changed, in a thread of its own: a file system that hangs must not hold up traffic.

Nothing but looking happens here, by content and at an interval: it is right for every way in which files are
replaced (links swapped, written in place, copied over, mounted anew, on network file systems without events), and costs
some 50 us a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger()


class Watcher:
    """Calls back in the reactor's thread whenever what it looks at differs from last time."""

    def __init__(
        self,
        look: Callable[[], bytes],
        last: bytes,
        changed: Callable[[], None],
        interval_seconds: float,
        reactor: Any,
    ) -> None:
        """
        Args:
            look: Called in the thread; returns what is compared.
            last: What it returned before what is in use was read, so that no change in between is missed.
            changed: Called in the reactor's thread.
            interval_seconds: Between two looks.
            reactor: IReactorThreads, from which only `callFromThread` is used.
        """
        self._look = look
        self._changed = changed
        self._interval_seconds = interval_seconds
        self._reactor = reactor
        self._stopped = threading.Event()
        self._last = last
        # A daemon: at the end of the process nobody waits for a look that hangs.
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; does not wait for a look that is under way."""
        self._stopped.set()

    def look_once(self) -> None:
        """Look now, in the thread that calls."""
        seen = self._look()
        if seen != self._last and not self._stopped.is_set():
            self._last = seen
            self._reactor.callFromThread(self._changed)

    def _run(self) -> None:
        is_failing = False
        while not self._stopped.wait(self._interval_seconds):
            try:
                self.look_once()
                is_failing = False
            except Exception:  # a file system can fail in many ways, and the next look may find it well
                if not is_failing:
                    _log.failure("cannot look whether files have changed; trying again")
                is_failing = True
