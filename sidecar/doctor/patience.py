"""Deadlines for what has none: the resolver, and files on a server that does not answer, which no signal interrupts."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

FILE_SECONDS: Final = 2.0
"""For the file of settings, and again for those of key material; what is there takes milliseconds."""

SILENT_SECONDS: Final = 0.25
"""For finding out which of several files it was."""

_MOST_ASKED: Final = 32
"""Files, each by a thread."""

_Result = TypeVar("_Result")


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """
    Return what *call* returns, or raise what it raises.

    It runs in a thread that nobody waits for at exit, and goes on when its time is over.

    Raises:
        TimeoutError: It has not ended in time.
    """
    return _started(call).result(seconds)


def silent(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return those of *paths* that cannot be looked at and read within `SILENT_SECONDS`; all are asked at once."""
    asked = {path: _started(partial(_touch, path)) for path in paths[:_MOST_ASKED]}
    wait(asked.values(), SILENT_SECONDS)
    return tuple(path for path, answer in asked.items() if not answer.done())


def _started(call: Callable[[], _Result]) -> Future[_Result]:
    answer: Future[_Result] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as problem:  # whoever waits for the result gets it
            answer.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    return answer


def _touch(path: Path) -> None:
    """Ask the file system for *path*, and for its first byte where that takes nothing from anybody."""
    if stat.S_ISREG(os.stat(path).st_mode):
        with path.open("rb") as stream:
            stream.read(1)
