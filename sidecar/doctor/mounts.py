"""How the files of certificates come into the container, and what that means for renewals: /proc/self/mountinfo."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import attrs

from sidecar.doctor.findings import Check, Finding, note, ok, warning

_ESCAPE = re.compile(r"\\([0-7]{3})", re.ASCII)

# What kubelet mounts for a subPath: the file of the moment, inside the directory that it replaces at each update.
_SUBPATH = re.compile(r"/volume-subpaths/|/\.\.[0-9]{4}_[0-9]{2}_[0-9]{2}_", re.ASCII)

IMAGE_FILESYSTEMS = ("overlay", "aufs", "fuse.fuse-overlayfs", "btrfs", "zfs")
"""What container engines put images and the layer above them on."""


@attrs.frozen
class Mount:
    """
    One line of mountinfo (proc(5)).

    Attributes:
        point: Where it is mounted.
        root: What of its file system is.
        kind: Of file system.
    """

    point: str
    root: str
    kind: str
    is_read_only: bool


@attrs.frozen(kw_only=True)
class File:
    """
    A file or directory that the settings name, as found.

    Attributes:
        path: As named, absolute.
        real: The same without symbolic links.
        is_file: Not a directory.
        is_named: By a setting; else it is in a directory that is.
        has_key: Whether a private key is in it.
        is_swapped: Whether it is, or is in, a directory that Kubernetes swaps as a whole (``..data``).
        mode: Permissions.
        written_at: Seconds since 1970.
    """

    path: str
    real: str
    is_file: bool
    is_named: bool = True
    has_key: bool = False
    is_swapped: bool = False
    mode: int = 0o400
    written_at: float = 0.0


def parse(mountinfo: str) -> tuple[Mount, ...]:
    """Read the table; lines that are none are left out."""
    return tuple(mount for line in mountinfo.splitlines() if (mount := _mount(line)) is not None)


def _mount(line: str) -> Mount | None:
    left, _, right = line.partition(" - ")
    fields, own = left.split(), right.split()
    if len(fields) < 6 or len(own) < 2:
        return None
    is_read_only = "ro" in fields[5].split(",") or (len(own) > 2 and "ro" in own[2].split(","))
    return Mount(_unescaped(fields[4]), _unescaped(fields[3]), own[0], is_read_only)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return what *path*, absolute and without links, lies on; of several on one point the last, which is on top."""
    found = None
    for mount in mounts:
        is_above = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if is_above and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def mounted(file: File, mounts: Sequence[Mount]) -> Iterator[Finding]:
    """
    Judge how one of the files came into the container.

    Args:
        file: As found.
        mounts: Those of the container.
    """
    mount = mount_of(file.real, mounts)
    if mount is None:
        return
    if file.is_named or file.real == mount.point:
        yield from _renewals(file, mount)
    if not file.has_key:
        return
    if mount.point == "/" and mount.kind in IMAGE_FILESYSTEMS:
        fact = f"{file.path} is part of the image, or was copied into the container: whoever has the image has the key"
        yield warning(Check.KEY_FILE, fact, "leave it out of the image and mount it, as a secret or volume")
    elif mount.point != "/" and not mount.is_read_only:
        fact = f"{file.path} is on {mount.point}, which is mounted writable; the program only reads it"
        yield note(Check.KEY_FILE, fact, "mount it read-only")


def _renewals(file: File, mount: Mount) -> Iterator[Finding]:
    if _SUBPATH.search(mount.root):
        fact = f"{file.path} is mounted with subPath: what Kubernetes updates in the volume never comes here"
        yield warning(Check.MOUNT, fact, "mount the whole volume as a directory, without subPath, and name that")
    elif file.is_file and file.real == mount.point:
        fact = f"{file.path} is mounted as a single file: a renewal that replaces it on the outside is not seen here"
        yield note(Check.MOUNT, fact, "mount its directory, unless renewals restart the container or write in place")
    elif file.is_swapped:
        yield ok(Check.MOUNT, f"{file.path} is a volume that Kubernetes swaps as a whole: renewals are seen")


def permissions(file: File, *, in_container: bool) -> Iterator[Finding]:
    """
    Judge who may read and change the file of a key. The group is left alone: it is how a key is given to a user.

    Args:
        file: A key.
        in_container: Whether only what is in containers that mount it can get at it.
    """
    if file.mode & 0o002:
        fact = f"{file.path} holds the key, and every user may change it (mode {file.mode & 0o777:04o})"
        yield warning(Check.KEY_FILE, fact, "take that right away: chmod o-rwx")
    elif file.mode & 0o004 and in_container:
        fact = f"{file.path} holds the key, and every user of the container may read it (mode {file.mode & 0o777:04o})"
        fix = "chmod o-rwx and give it to the program's group; in Kubernetes defaultMode: 0440 with fsGroup"
        yield note(Check.KEY_FILE, fact, fix)
    elif file.mode & 0o004:
        fact = f"{file.path} holds the key, and every user may read it (mode {file.mode & 0o777:04o})"
        yield warning(Check.KEY_FILE, fact, "chmod o-rwx, and give it to the program's user or group")
    else:
        yield ok(Check.KEY_FILE, f"{file.path} is closed to other users (mode {file.mode & 0o777:04o})")
