"""`proxy.tally`: the supervisor's side and those of workers, in one process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from sidecar.proxy.tally import Place, Tally


class Workers:
    """A tally, and workers that have places in it."""

    def __init__(self, places: int) -> None:
        self.tally = Tally(places)

    def starts(self) -> tuple[Place, tuple[int, int]]:
        """Return the place of a new worker as it has it, and as the supervisor does."""
        taken = self.tally.take()
        assert taken is not None
        descriptor, index = taken
        return Place(os.dup(descriptor), index), taken  # inherited, it is another descriptor

    def close(self) -> None:
        for descriptor in self.tally.descriptors:
            os.close(descriptor)


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(3)
    yield workers
    workers.close()


class TestPlace:
    def test_worker_that_has_more_than_another_is_fullest(self, workers: Workers) -> None:
        """One connection more is enough; with as many as the others, newcomers are anybody's."""
        (one, _), (other, _) = workers.starts(), workers.starts()
        one.note(1)
        other.note(1)
        assert (one.is_fullest(), other.is_fullest()) == (False, False)
        one.note(2)
        assert (one.is_fullest(), other.is_fullest()) == (True, False)

    def test_emptiest_of_three_decides(self, workers: Workers) -> None:
        """Whoever is between leaves newcomers to it, too."""
        places = [workers.starts()[0] for _ in range(3)]
        for place, connections in zip(places, (5, 3, 4), strict=True):
            place.note(connections)
        assert [place.is_fullest() for place in places] == [True, False, True]

    def test_worker_without_connections_counts(self, workers: Workers) -> None:
        """None is a number, too: it is the one that should get the next."""
        (one, _), (other, _) = workers.starts(), workers.starts()
        one.note(1)
        other.note(0)
        assert one.is_fullest()

    def test_worker_that_is_away_is_left_nothing(self, workers: Workers) -> None:
        """One that has not begun to accept, or has ended it."""
        (one, _), (other, _) = workers.starts(), workers.starts()
        one.note(9)
        assert not one.is_fullest()
        other.note(0)
        other.note_away()
        assert not one.is_fullest()

    def test_descriptor_is_closed(self, workers: Workers) -> None:
        """The memory stays, and the worker hands down nothing of it to children of its own."""
        taken = workers.tally.take()
        assert taken is not None
        descriptor = os.dup(taken[0])
        place = Place(descriptor, taken[1])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        place.note(1)


class TestTally:
    def test_worker_that_has_gone_is_left_nothing(self, workers: Workers) -> None:
        """Its last number would be there for ever: it was killed."""
        (one, _), (killed, taken) = workers.starts(), workers.starts()
        one.note(9)
        killed.note(0)
        workers.tally.leave(taken)
        assert not one.is_fullest()

    def test_place_is_given_to_one_at_a_time(self, workers: Workers) -> None:
        """When all are taken there is none, until somebody leaves."""
        taken = [workers.tally.take() for _ in range(3)]
        assert len(set(taken)) == 3
        assert workers.tally.take() is None
        workers.tally.leave(taken[1])
        assert workers.tally.take() == taken[1]

    def test_tally_without_places_has_nothing_to_inherit(self) -> None:
        """Nobody gets a place, and nobody has one to leave."""
        tally = Tally(0)
        assert (tally.descriptors, tally.take()) == ((), None)
        tally.leave(None)

    def test_system_without_such_memory_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As one that refuses it."""
        monkeypatch.delattr(os, "memfd_create")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
            Tally(1)

    def test_memory_that_cannot_be_had_leaves_no_descriptor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was opened for it is closed again."""

        def refuse(descriptor: int, length: int) -> None:
            raise OSError(errno.ENOMEM, "none left")

        monkeypatch.setattr(os, "ftruncate", refuse)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="none left"):
            Tally(1)
        assert len(os.listdir("/proc/self/fd")) == before
