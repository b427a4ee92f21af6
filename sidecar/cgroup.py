"""
How much CPU time the container may use: the quota of the control group, version 1 or 2.

A quota is what Docker's --cpus and the limits of Kubernetes and ECS come to. It holds for a group and all below it, so
the least on the way up to the root is what counts. Where nothing is readable there is no quota to go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

Read = Callable[[Path], str | None]
"""Returns the text of a file; None if it cannot be read."""

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_MOUNT: Final = Path("/sys/fs/cgroup")


def read_text(path: Path) -> str | None:
    """`Read` of the real file system."""
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return None


def cpu_quota(read: Read = read_text) -> float | None:
    """Return how many CPUs' worth of time the process may use; None if that is not limited."""
    quotas = [quota for directory in _directories(read(_MEMBERSHIP) or "") for quota in _quotas(directory, read)]
    return min(quotas, default=None)


def workers_for(quota: float | None) -> int:
    """Return how many workers such a quota keeps busy: one without a quota, since the machine is not ours alone."""
    return 1 if quota is None else max(1, math.floor(quota))


def _directories(membership: str) -> Iterator[Path]:
    """
    Yield where the files of our group and of those above it may be, by cgroups(7).

    A container often sees the path that its group has on the host, and the group itself at the root of the mount: the
    way up leads there in either case.
    """
    for line in membership.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            roots = [_MOUNT, _MOUNT / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [_MOUNT / controllers, _MOUNT / "cpu"]
        else:
            continue
        parts = PurePosixPath(path).parts[1:]
        if ".." in parts:  # our group is outside of what is mounted here
            parts = ()
        for root in dict.fromkeys(roots):
            for length in range(len(parts), -1, -1):
                yield root.joinpath(*parts[:length])


def _quotas(directory: Path, read: Read) -> Iterator[float]:
    both = (read(directory / "cpu.max") or "").split()  # version 2: "max 100000", "150000 100000"
    if not both:
        both = [(read(directory / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]  # version 1
    if len(both) == 2 and all(number.isdecimal() for number in both) and int(both[0]) and int(both[1]):
        yield int(both[0]) / int(both[1])
