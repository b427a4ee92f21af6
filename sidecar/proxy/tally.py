"""
How many connections each worker has, in memory that all of them see: newcomers are left to whoever has fewest.

Workers accept from one listening socket. Left to chance, the one that wakes up first takes a whole burst of newcomers,
and keeps them as long as they stay.

Rules that hold here: each worker writes its own number and nobody else's; there is no lock, and none to be left behind
by a worker that dies. A number is advice. Whoever goes by it must come to the same end, a little later, if it is wrong
or never changes again.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Final

_WIDTH: Final = 8
_FORMAT: Final = "q"
_AWAY: Final = 0
"""In place of a number: the worker accepts nobody. Numbers of connections are one more than they are."""


class Place:
    """Where one worker's number stands, beside those of the others."""

    def __init__(self, descriptor: int, index: int) -> None:
        """
        Args:
            descriptor, index: Of `Tally.take`. The descriptor, inherited, is closed here.

        Raises:
            OSError: There is no memory for it.
        """
        try:
            self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast(_FORMAT)
        finally:
            os.close(descriptor)
        self._index = index

    def note(self, connections: int) -> None:
        """Say that this worker accepts, and how many connections it has."""
        self._numbers[self._index] = connections + 1

    def note_away(self) -> None:
        """Say that it accepts nobody, so that others do not leave newcomers to it."""
        self._numbers[self._index] = _AWAY

    def is_fullest(self) -> bool:
        """Whether a worker that accepts has fewer connections than this one."""
        numbers = self._numbers.tolist()
        ours = numbers[self._index]
        return any(_AWAY < number < ours for number in numbers)


class Tally:
    """
    The numbers of all workers, as their supervisor keeps them.

    Attributes:
        descriptors: What workers have to inherit.
    """

    def __init__(self, places: int) -> None:
        """
        Make it, for at most so many workers at a time; with 0, nobody ever gets a place.

        Raises:
            OSError: The system has no memory for processes to share.
        """
        self.descriptors: tuple[int, ...] = ()
        self._free = list(range(places))
        if not places:
            return
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        descriptor = os.memfd_create("sidecar-tally")
        try:
            os.ftruncate(descriptor, places * _WIDTH)
            self._numbers = memoryview(mmap.mmap(descriptor, 0)).cast(_FORMAT)
        except OSError:
            os.close(descriptor)
            raise
        self.descriptors = (descriptor,)

    def take(self) -> tuple[int, int] | None:
        """Return a place that nobody has, for a `Place` to be made of in the worker; None if there is none."""
        return (self.descriptors[0], self._free.pop()) if self._free else None

    def leave(self, place: tuple[int, int] | None) -> None:
        """The worker that had *place* has gone: nobody leaves newcomers to it any more."""
        if place is not None:
            _, index = place
            self._numbers[index] = _AWAY
            self._free.append(index)
