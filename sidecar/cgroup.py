"""
How much CPU time and memory the container may use: the limits of the control group, version 1 or 2.

They are what Docker's --cpus and --memory and the limits of Kubernetes and ECS come to. One holds for a group and all
below it, so the least on the way up to the root is what counts. Where nothing is readable there is none to go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

Read = Callable[[Path], str | None]
"""Returns the text of a file; None if it cannot be read."""

WORKER_BYTES: Final = 128 * 1024 * 1024
"""
Memory that each worker finds, in a container whose memory is limited: more than twice what one takes that serves
nobody, since thousands of connections and what is in flight for them come on top, and so does the supervisor.
"""

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
    quotas = [quota for directory in _directories("cpu", read) for quota in _quotas(directory, read)]
    return min(quotas, default=None)


def memory_limit(read: Read = read_text) -> int | None:
    """
    Return how many bytes of memory the process and its children may use; None if that is not limited.

    Where it is not, version 1 may also give a number that no machine has, close to 2**63.
    """
    limits = [limit for directory in _directories("memory", read) for limit in _limits(directory, read)]
    return min(limits, default=None)


def workers_for(quota: float | None, read: Read = read_text) -> int:
    """
    Return how many workers to start where the operator leaves it to us.

    As many as the quota of CPU time keeps busy, one without a quota, since the machine is not ours alone; of these no
    more than one for each `WORKER_BYTES` of the memory limit, if there is one. At least one.
    """
    busy = 1 if quota is None else math.floor(quota)
    memory = memory_limit(read)
    return max(1, busy if memory is None else min(busy, memory // WORKER_BYTES))


def _directories(controller: str, read: Read) -> Iterator[Path]:
    """
    Yield where the files of *controller* may be for our group and those above it, by cgroups(7).

    A container often sees the path that its group has on the host, and the group itself at the root of the mount: the
    way up leads there in either case.
    """
    for line in (read(_MEMBERSHIP) or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            roots = [_MOUNT, _MOUNT / "unified"]
        elif controller in controllers.split(","):
            roots = [_MOUNT / controllers, _MOUNT / controller]
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


def _limits(directory: Path, read: Read) -> Iterator[int]:
    text = read(directory / "memory.max") or read(directory / "memory.limit_in_bytes") or ""  # version 2, version 1
    if text.strip().isdecimal():  # else it is "max"
        yield int(text)
