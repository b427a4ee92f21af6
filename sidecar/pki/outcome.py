"""What a command of ``sidecar certs`` has to say, and what is wrong with how it was called."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

EXIT_OK = 0
EXIT_TROUBLE = 1
"""`show --check` found a problem, or standard output takes no more."""
EXIT_USAGE = 2


@attrs.frozen
class Outcome:
    """
    What a command has to say.

    Attributes:
        lines: For standard output. May hold a password that was made for the reader, so it is never shown.
        warnings: For standard error.
        status: The exit status.
    """

    lines: Sequence[str] = attrs.field(repr=False)
    warnings: Sequence[str] = ()
    status: int = EXIT_OK


class UsageError(Exception):
    """The arguments mean nothing."""


@contextmanager
def naming() -> Iterator[None]:
    """Names come from the command line: what is wrong with them is wrong usage."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def quoted(path: Path) -> str:
    """Write *path* as a shell takes it."""
    return shlex.quote(str(path))
