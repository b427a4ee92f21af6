"""
Ensures that the program needs no shell or init above it: as process 1 of a container it loses no signal and leaves no
zombies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient
from tests.support.apps import App
from tests.support.program import Program, eventually

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")


def may_make_namespaces() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    )


pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs the right to make a process namespace")


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def process_one(program: Program) -> int:
    """The number outside of what is number 1 inside."""
    eventually(lambda: bool(children(program.pid)), "the namespace has a process 1")
    return children(program.pid)[0]


@pytest.mark.parametrize("workers", ["1", "2"])
class TestProcessOne:
    def test_signal_before_it_can_be_handled_is_not_lost(self, app: App, tmp_path: Path, workers: str) -> None:
        """The kernel drops what process 1 does not handle; a container that is stopped as it starts must not hang."""
        program = Program(tmp_path, prefix=NAMESPACE, upstream=app.upstream, workers=workers)
        pid = process_one(program)
        eventually(lambda: _blocks(pid, signal.SIGTERM), "its first lines have run")
        os.kill(pid, signal.SIGTERM)
        assert program.wait() == 0
        program.close()

    def test_orphans_are_buried(self, app: App, tmp_path: Path, workers: str) -> None:
        """One that ended before we could look, and one that ends while we serve."""
        flag = tmp_path / "flag"
        orphans = f'sh -c "sleep 0.05 & while [ ! -e {flag} ]; do sleep 0.05; done &"; exec "$@"'
        own = 0 if workers == "1" else int(workers)
        prefix = (*NAMESPACE, "sh", "-c", orphans, "sh")
        with Program(tmp_path, prefix=prefix, upstream=app.upstream, workers=workers) as program:
            pid = process_one(program)
            assert len(children(pid)) > own
            flag.touch()
            eventually(lambda: len(children(pid)) == own, "nothing is left of them")
            with HttpsClient(program) as client:
                assert client.get("/hello").status == 200
            os.kill(pid, signal.SIGTERM)
            assert program.wait() == 0


def _blocks(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
    return bool(mask >> (number - 1) & 1)
