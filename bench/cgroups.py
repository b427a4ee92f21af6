"""
What the kernel counts of a container, by its control group: CPU time, and memory without the page cache.

Both versions: of the older one the directory is named after the controller, of the newer there is one for all.
"""

from __future__ import annotations

from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def directory(memberships: str, controller: str, mount: Path = MOUNT) -> Path:
    """
    Return where a process's control group is.

    Args:
        memberships: The text of `/proc/PID/cgroup`.
        controller: `cpuacct` or `memory`, as version 1 names them.
        mount: Where control groups are mounted.

    Raises:
        ValueError: There is none.
    """
    paths = {names: path for _, names, path in (line.split(":", 2) for line in memberships.splitlines())}
    for names, path in paths.items():
        if controller in names.split(","):
            return mount / controller / path.lstrip("/")
    if "" in paths:
        return mount / paths[""].lstrip("/")
    raise ValueError(f"no control group for {controller} in {memberships!r}")


def of_process(pid: int, controller: str) -> Path:
    """Return where the control group of a running process is; raises OSError if it has gone."""
    return directory((PROC / str(pid) / "cgroup").read_text(), controller)


def cpu_seconds(group: Path) -> float:
    """Return the CPU time of all that ever ran in a group, ended processes included; from its `cpuacct` directory."""
    usage = group / "cpuacct.usage"
    if usage.exists():
        return int(usage.read_text()) / 1e9
    return parse_amounts((group / "cpu.stat").read_text())["usage_usec"] / 1e6


def used_bytes(group: Path) -> int:
    """Return the memory charged to a group less the page cache, which is given back when asked for."""
    amounts = parse_amounts((group / "memory.stat").read_text())
    old = group / "memory.usage_in_bytes"
    if old.exists():
        return int(old.read_text()) - amounts["total_cache"]
    return int((group / "memory.current").read_text()) - amounts["file"]


def parse_amounts(text: str) -> dict[str, int]:
    """Parse lines of a name and a number."""
    return {name: int(amount) for name, amount in (line.split() for line in text.splitlines())}
