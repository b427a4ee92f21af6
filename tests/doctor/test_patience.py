"""`sidecar.doctor.patience`: what takes too long is left to itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.doctor import patience
from sidecar.doctor.patience import silent, within


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that comes when the test has ended."""
    event = threading.Event()
    yield event
    event.set()


class TestWithin:
    def test_result_is_returned(self) -> None:
        """As if it had been called."""
        assert within(10, lambda: 3) == 3

    def test_what_is_raised_is_raised(self) -> None:
        """Here, and not in the thread."""
        with pytest.raises(ZeroDivisionError):
            within(10, lambda: 1 // 0)

    def test_time_that_is_over_ends_the_wait(self, never: threading.Event) -> None:
        """Whatever the thread waits for."""
        with pytest.raises(TimeoutError):
            within(0.01, never.wait)

    def test_thread_keeps_nobody_from_exiting(self) -> None:
        """A process with a file that is not there for ever must end all the same."""
        assert within(10, lambda: threading.current_thread().daemon)


class TestSilent:
    def test_those_that_do_not_answer_are_returned(
        self, tmp_path: Path, never: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is missing, a directory, or a pipe, answers; nothing is taken from a pipe."""
        monkeypatch.setattr(patience, "SILENT_SECONDS", 0.2)
        real, dead = os.stat, tmp_path / "dead"
        monkeypatch.setattr(os, "stat", lambda path: never.wait(10) if path == dead else real(path))
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "file").touch()
        assert silent([tmp_path / "missing", tmp_path, tmp_path / "pipe", tmp_path / "file", dead]) == (dead,)
