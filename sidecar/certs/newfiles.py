"""
New files, all of them or none, and never half of one.

What is a key is for its owner alone from its first byte on, and nothing leads it elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from sidecar.errors import MaterialError


@attrs.frozen
class NewFile:
    """
    A file to write.

    Attributes:
        path: Where.
        data: Never shown: it may be a key.
        is_secret: Whether only the owner may read it.
    """

    path: Path
    data: bytes = attrs.field(repr=False)
    is_secret: bool = False


def make_directory(directory: Path) -> None:
    """Make *directory* for its owner alone, unless it is there; MaterialError (``cert``) if that fails."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(directory, error) from None


def check_free(paths: Sequence[Path], fix: str) -> None:
    """Raise MaterialError (``cert``) if one of *paths* is there already."""
    taken = [str(path) for path in paths if os.path.lexists(path)]
    if taken:
        raise MaterialError("cert", f"already there, and not overwritten: {', '.join(taken)}", fix)


def write_files(files: Sequence[NewFile], *, replace: bool) -> None:
    """
    Write all of *files* or none.

    Each is complete under another name before any gets its own. With *replace* a crash between two of the last steps
    can leave a new file beside an old one; readers that check the pair, as the proxy does, wait for the second.

    Raises:
        MaterialError: With role ``cert``: one is there already and *replace* is not set, or the system refuses.
    """
    drafts: list[Path] = []
    reserved: list[Path] = []
    current = files[0].path
    try:
        for file in files:
            current = file.path
            drafts.append(_draft(file))
        for file, draft in zip(files, drafts, strict=True):
            current = file.path
            if not replace:  # a hard link would do it in one step, but many shared file systems have none
                os.close(os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                reserved.append(file.path)
            os.replace(draft, file.path)
    except OSError as error:
        for path in reserved:
            path.unlink()
        raise cannot_write(current, error) from None
    finally:
        for draft in drafts:
            with suppress(FileNotFoundError):  # renamed
                draft.unlink()


def cannot_write(path: Path, error: OSError) -> MaterialError:
    """Say what *error* means for the file *path*; role ``cert``."""
    if isinstance(error, FileExistsError):
        fact = f"{path} is already there, and not overwritten"
        return MaterialError("cert", fact, "choose another place, or move it away")
    by = f" by user {os.geteuid()}" if isinstance(error, PermissionError) else ""
    fix = "name a directory that this user can write to, on a file system with space left"
    return MaterialError("cert", f"{path} cannot be written{by}: {error.strerror}", fix)


def _draft(file: NewFile) -> Path:
    """Write and sync *file* beside its place; `mkstemp` creates it for the owner only and follows no links."""
    descriptor, name = tempfile.mkstemp(prefix=".sidecar-", dir=file.path.parent)
    draft = Path(name)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(file.data)
            stream.flush()
            if not file.is_secret:
                os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft
