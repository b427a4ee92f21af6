"""What is put off to the end of the reactor's turn, so that answers of many streams leave in one system call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger()


class TurnEnd:
    """Calls that are made once what happens now has been looked at to its end."""

    __slots__ = ("_reactor", "_waiting")

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: IReactorTime: it makes delayed calls that are due before it polls again.
        """
        self._reactor = reactor
        self._waiting: list[Callable[[], None]] = []

    def call(self, act: Callable[[], None]) -> None:
        """Have *act* called before the reactor polls again; it must not fail, or only by a bug."""
        if not self._waiting:
            self._reactor.callLater(0, self._run)
        self._waiting.append(act)

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            try:
                act()
            except Exception:  # a bug of ours must not keep the others waiting
                _log.failure("unexpected error at the end of a turn")
