"""Whether descriptors, memory and CPU time are enough for the connections that the settings allow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from sidecar.cgroup import WORKER_BYTES
from sidecar.config.load import Loaded
from sidecar.config.names import DEFAULT
from sidecar.doctor.configured import written
from sidecar.doctor.findings import Check, Finding, note, ok, unchecked, warning

PER_CONNECTION = 2
"""Descriptors: one to the client, one to the app."""

OF_A_WORKER = 64
"""Descriptors that each process has for itself, generously: listeners, logs, the event loop, files it reads."""

WORKER_START_BYTES = 56 * 1024 * 1024
"""As measured (bench/results.md): a process that serves nobody yet."""

IDLE_CONNECTION_BYTES = 27_000
"""Likewise: a TLS connection with nothing in flight. Requests in flight take more, up to some 64 KiB a side."""

_MIB = 1024 * 1024


def open_files(limits: str) -> int | None:
    """Read the soft limit from the text of /proc/PID/limits; None if it is not there, 2**31 for unlimited."""
    match = re.search(r"^Max open files\s+(\d+|unlimited)\s", limits, re.MULTILINE | re.ASCII)
    if match is None:
        return None
    return 2**31 if match[1] == "unlimited" else int(match[1])


def descriptors(loaded: Loaded, workers: int, limit: int | None, *, is_known: bool) -> Finding:
    """
    Compare the limit of descriptors with the connections that are allowed.

    Args:
        loaded: The settings.
        workers: How many processes serve; they share the connections.
        limit: Of one process; None: it cannot be read.
        is_known: Whether it is the program's own, or that of a container that it will run in.
    """
    if limit is None:
        return unchecked(Check.DESCRIPTORS, "the limit of open files cannot be read here")
    connections = loaded.settings.limits.connections
    needed = PER_CONNECTION * math.ceil(connections / workers) + OF_A_WORKER
    fact = f"{connections:,} connections need up to {needed:,} descriptors in each process, the limit is {limit:,}"
    if limit >= needed:
        return ok(Check.DESCRIPTORS, fact)
    if not is_known:
        fix = "run the doctor where the program runs; there, raise the limit or lower SIDECAR_MAX_CONNECTIONS"
        return note(Check.DESCRIPTORS, f"{fact} for this command", fix)
    served = max(0, (limit - OF_A_WORKER) // PER_CONNECTION) * workers
    fix = (
        f"raise it (`ulimits: nofile` on ECS and in compose.yaml, --ulimit nofile={needed}), or set "
        f"SIDECAR_MAX_CONNECTIONS to {max(1, served):,} or less"
    )
    return _too_low(loaded, Check.DESCRIPTORS, f"{fact}: from about {served:,} on, newcomers wait", fix)


def memory(loaded: Loaded, workers: int, limit: int | None) -> Finding:
    """Compare the memory limit of the container in bytes, None if there is none, with what idle connections take."""
    if limit is None or limit >= 2**60:
        return ok(Check.MEMORY, "memory is not limited")
    connections = loaded.settings.limits.connections
    needed = workers * WORKER_START_BYTES + connections * IDLE_CONNECTION_BYTES
    fact = (
        f"{connections:,} connections take about {needed // _MIB} MiB even when idle, the limit is {limit // _MIB} MiB"
    )
    if limit >= needed:
        return ok(Check.MEMORY, fact)
    affordable = (limit - workers * WORKER_START_BYTES) // IDLE_CONNECTION_BYTES // 2
    fix = f"raise it to {-(-needed // _MIB)} MiB or more: the kernel kills what goes over"
    if affordable > 0:
        fix += f"; or set SIDECAR_MAX_CONNECTIONS, to {affordable:,} say"
    return _too_low(loaded, Check.MEMORY, fact, fix)


def _too_low(loaded: Loaded, check: Check, fact: str, fix: str) -> Finding:
    """Whoever set the number of connections counts on it; the default is a ceiling that few come near."""
    is_meant = loaded.source_of("max_connections") != DEFAULT
    return warning(check, fact, fix) if is_meant else note(check, fact, fix)


def cpu(loaded: Loaded, workers: int, quota: float | None, limit: int | None) -> Iterator[Finding]:
    """
    Judge the number of workers.

    Args:
        loaded: The settings.
        workers: How many serve.
        quota: CPUs' worth of time that the container has; None: no limit.
        limit: Of memory, in bytes; None: none.
    """
    share = "not limited" if quota is None else f"{quota:g} CPU{'s' if quota > 1 else ''}"
    plural = "s" if workers > 1 else ""
    fact = f"{written(loaded, 'workers')}: {workers} worker{plural}, CPU time: {share}"
    if loaded.settings.workers is None or workers == 1:
        yield ok(Check.CPU, fact)
        return
    if quota is not None and workers > math.ceil(quota):
        yield note(
            Check.CPU, fact, "leave SIDECAR_WORKERS on auto: more workers than CPUs cost memory and gain nothing"
        )
    if limit is not None and workers > max(1, limit // WORKER_BYTES):
        fact = f"{workers} workers have {limit // _MIB} MiB between them, each wants {WORKER_BYTES // _MIB}"
        yield warning(Check.MEMORY, fact, "leave SIDECAR_WORKERS on auto, or raise the memory limit")
