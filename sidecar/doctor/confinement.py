"""What the process may do beyond what it needs: /proc/PID/status and the mount of the root directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sidecar.doctor.findings import Check, Finding, note, ok, warning
from sidecar.doctor.mounts import Mount, mount_of
from sidecar.doctor.platforms import Platform

_NAMES = {0: "CHOWN", 1: "DAC_OVERRIDE", 5: "KILL", 6: "SETGID", 7: "SETUID", 10: "NET_BIND_SERVICE", 12: "NET_ADMIN"}
_NAMES |= {13: "NET_RAW", 16: "SYS_MODULE", 18: "SYS_CHROOT", 19: "SYS_PTRACE", 21: "SYS_ADMIN", 27: "MKNOD"}

BIND = 1 << 10
"""CAP_NET_BIND_SERVICE, the one that may be needed."""

_MOST_NAMED = 3


def fields_of(status: str) -> dict[str, str]:
    """Read /proc/PID/status."""
    pairs = (line.partition(":") for line in status.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def confinement(
    status: Mapping[str, str], mounts: Sequence[Mount], platform: Platform, *, has_low_port: bool
) -> Iterator[Finding]:
    """
    Judge a process in a container.

    Args:
        status: From `fields_of`; what is missing there is not judged.
        mounts: Those of the container.
        platform: Where it runs: a Fargate task can say nothing about privileges gained and system calls.
        has_low_port: Whether it is to listen on a port that needs a capability.
    """
    is_root = status.get("Uid", "").split()[1:2] == ["0"]
    if is_root:
        fix = "run it as another user (user: 65532:65532, runAsNonRoot: true): nothing here needs root"
        yield warning(Check.USER, "what runs here runs as root", fix)
    elif "Uid" in status:
        yield ok(Check.USER, f"what runs here runs as user {status['Uid'].split()[1]}, which is not root")
    yield from _capabilities(status, is_root=is_root, has_low_port=has_low_port)
    if status.get("NoNewPrivs") == "0" and platform is not Platform.ECS:
        fix = "forbid it: security_opt no-new-privileges, or allowPrivilegeEscalation: false"
        yield note(Check.NO_NEW_PRIVILEGES, "the process may gain privileges by what it starts; it starts nothing", fix)
    if status.get("Seccomp") == "0" and platform is not Platform.ECS:
        fix = "leave the engine's default profile on; in Kubernetes seccompProfile: {type: RuntimeDefault}"
        yield note(Check.SECCOMP, "system calls are not filtered (seccomp is off)", fix)
    root = mount_of("/", mounts)
    if root is not None and not root.is_read_only:
        fix = "mount it read-only (read_only, readonlyRootFilesystem): the program writes no files"
        yield note(Check.ROOT_FILESYSTEM, "the container's root file system is writable", fix)
    elif root is not None:
        yield ok(Check.ROOT_FILESYSTEM, "the container's root file system is read-only")


def _capabilities(status: Mapping[str, str], *, is_root: bool, has_low_port: bool) -> Iterator[Finding]:
    held, bounding = _bits(status.get("CapEff")), _bits(status.get("CapBnd"))
    if held is None or bounding is None:
        return
    surplus = held & ~BIND if has_low_port else held
    fix = "drop all: cap_drop: [ALL], capabilities: {drop: [ALL]}"
    if surplus:
        yield warning(
            Check.CAPABILITIES, f"the process holds capabilities that it does not need: {_named(surplus)}", fix
        )
    elif bounding & ~BIND:
        fact = f"the container may hold capabilities that nothing in it needs: {_named(bounding & ~BIND)}"
        yield note(Check.CAPABILITIES, fact, fix)
    else:
        yield ok(Check.CAPABILITIES, "the process holds no capability that it does not need")


def _bits(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


def _named(capabilities: int) -> str:
    numbers = [number for number in range(capabilities.bit_length()) if capabilities >> number & 1]
    names = [_NAMES[number] for number in numbers if number in _NAMES]
    shown = names[-_MOST_NAMED:] if names else [f"number {number}" for number in numbers[:_MOST_NAMED]]
    more = len(numbers) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
