"""Facts about the machine and its programs that stand above every table."""

from __future__ import annotations

import datetime
import os
import platform
import re
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.errors import CannotRunError
from bench.lab import Cores

QUERY_TIMEOUT_SECONDS = 20.0


def pick_cores() -> Cores:
    """
    Choose the first two cores this process may use: one for the proxy, one for the load.

    Raises:
        CannotRunError: There is only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CannotRunError("The benchmark needs two CPU cores: one for the proxy, one for the load.")
    return Cores(proxy=allowed[0], load=allowed[1])


def raise_open_files_limit() -> None:
    """Allow as many open files as we may; 1,000 idle connections need more than 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_model(cpuinfo: str) -> str:
    """Return the processor's name from the text of `/proc/cpuinfo`."""
    match = re.search(r"^(?:model name|Processor)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def machine_facts(python: str, generators: Mapping[str, str], cores: Cores) -> dict[str, str]:
    """Return facts by title, in the order to print them; *generators* are what is known of those of load."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "CPU": f"{cpu_model(Path('/proc/cpuinfo').read_text())}, {os.cpu_count()} cores",
        "cores used": f"proxy on {cores.proxy}, load generator and app on {cores.load}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python of sidecar": python_version(python),
        "python of the benchmark": platform.python_version(),
        **generators,
    }


def python_version(python: str) -> str:
    """Return implementation and version of an interpreter."""
    probe = "import platform as p; print(p.python_implementation(), p.python_version())"
    done = subprocess.run(
        [python, "-c", probe],
        capture_output=True,
        text=True,
        timeout=QUERY_TIMEOUT_SECONDS,
        check=False,
    )
    return done.stdout.strip() or "unknown"
