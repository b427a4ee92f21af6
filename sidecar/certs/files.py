"""
The files that settings name for key material: which there are, whether they are there, whether they have changed.

Needs nothing of `cryptography`, so that it can be asked before anything is loaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.certs.sources import MAX_FILE_BYTES, content_of, may_be_secret
from sidecar.settings import Settings, Source

_MOUNTS = Path("/proc/self/mountinfo")

_OCTAL = re.compile(r"\\([0-7]{3})")
"""How blanks and the like are written there."""

_MOST_FILES = 100
"""Of a directory that are looked at for changes."""


def named(settings: Settings) -> tuple[Path, ...]:
    """Return every file and directory that *settings* name for key material."""
    tls, client, app = settings.tls, settings.client, settings.app
    password = tls.key_password.source if tls.key_password is not None else None
    sources: tuple[Source | None, ...] = (
        *(*tls.cert, *tls.key, password, client.ca, client.crl),
        *(app.ca, app.cert, app.key),
    )
    return tuple(dict.fromkeys(source for source in sources if isinstance(source, Path)))


def missing(settings: Settings) -> tuple[Path, ...]:
    """
    Return those among them that are not there, or not yet; an empty directory is a volume that is not filled yet.

    Without what will never be there: what may be key material that was taken for a path, and what nobody can put where
    it should be, in a container whose file system is read-only.
    """
    paths = (path for path in named(settings) if not may_be_secret(str(path)))
    absent = (path for path in paths if not os.path.exists(path) or _is_empty_directory(path))
    return tuple(path for path in absent if not _cannot_come(path))


def _cannot_come(path: Path) -> bool:
    """Whether *path* leads to the root file system, which is read-only, and into no volume."""
    place = os.path.realpath(path)
    while not os.path.exists(place) and place != "/":
        place = os.path.dirname(place)
    try:
        is_read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
        return is_read_only and not any(_is_in(place, point) for point in _mount_points() if point != "/")
    except OSError:
        return False  # whoever waits has a deadline


def _mount_points() -> list[str]:
    """Return where something is mounted (proc(5), mountinfo); raises OSError."""
    lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), line.split(" ")[4]) for line in lines]


def _is_in(place: str, directory: str) -> bool:
    return place == directory or place.startswith(f"{directory}/")


def _is_empty_directory(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False  # there is something, and loading it will tell what is wrong


def watched(settings: Settings) -> tuple[Path, ...]:
    """Return what to look at for changes: the same, and the keys that are looked for beside certificates."""
    tls = settings.tls
    beside = (path.with_suffix(".key") for path in tls.cert if isinstance(path, Path) and not tls.key)
    return tuple(dict.fromkeys((*named(settings), *beside)))


def fingerprint(paths: tuple[Path, ...]) -> bytes:
    """
    Return what changes when the content behind *paths* does, however it was put there.

    Links are followed, so that the swap of a directory behind them counts; a file that cannot be read counts as such.
    Reads everything: times and sizes lie on some file systems, and the files are small.
    """
    seen = hashlib.sha256()
    for path in paths:
        for file in _files(path):
            seen.update(repr(str(file)).encode())
            try:
                if stat.S_ISREG(os.stat(file).st_mode):  # what a pipe gives, it gives once
                    seen.update(hashlib.sha256(content_of(file, MAX_FILE_BYTES + 1)).digest())
            except (OSError, ValueError) as error:
                seen.update(repr(getattr(error, "errno", None)).encode())
    return seen.digest()


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or the files of a directory; Kubernetes' own (``..data`` and the like) are behind the links."""
    try:
        if not path.is_dir():
            yield path
            return
        names = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".."))
    except OSError:
        yield path
        return
    yield from (file for file in names[:_MOST_FILES] if not _is_directory(file))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # whatever it is, it cannot be read either: a change when it can
        return False
