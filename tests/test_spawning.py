"""`spawning`: real child processes, of which only the interpreter is needed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sidecar
from sidecar import spawning
from sidecar.control import Kind, receive
from sidecar.spawning import spawn

CHECKOUT = str(Path(sidecar.__file__).parent.parent)

REPORT = """
import os, socket, sys
from sidecar.control import Kind, Message, encode
channel = socket.socket(fileno=int(sys.argv[1]))
listener = socket.socket(fileno=int(sys.argv[2]))
blocked = next(line for line in open("/proc/self/status") if line.startswith("SigBlk"))
other = os.pread(int(os.environ["OTHER"]), 9, 0).decode()
report = [listener.getsockname()[1], dict(os.environ), int(blocked.split()[1], 16), other]
channel.sendall(encode(Message(Kind.ANSWER, report)))
"""


class Spawned:
    """What a child reported of itself, and what became of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
        popen = subprocess.Popen

        def run_report(command: list[str], **arguments: object) -> subprocess.Popen[bytes]:
            self.command = command
            return popen([sys.executable, "-c", REPORT, *command[-2:]], **arguments)  # type: ignore[call-overload,no-any-return]

        monkeypatch.setattr(subprocess, "Popen", run_report)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            other = os.memfd_create("other")
            os.write(other, b"inherited")
            process, sock = spawn([listener], environ | {"PYTHONPATH": CHECKOUT, "OTHER": str(other)}, [other])
            os.close(other)
        with sock:
            sock.settimeout(20)
            message = receive(sock)
        assert isinstance(process, popen)
        assert process.wait(20) == 0
        assert message.kind is Kind.ANSWER
        self.seen_port, self.environ, self.blocked, self.read_of_other = message.body


class TestSpawn:
    def test_child_gets_the_two_descriptors_and_no_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Settings come over the channel; the rest of the environment is that of the program."""
        spawned = Spawned(monkeypatch, {"SIDECAR_TLS_KEY": "secret", "container": "yes"})
        assert spawned.seen_port == spawned.port
        assert spawned.environ["container"] == "yes"
        assert not [name for name in spawned.environ if name.startswith("SIDECAR_")]
        assert spawned.command[-4:-2] == ["sidecar", "_worker"]

    def test_child_gets_other_descriptors_under_their_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told of them elsewhere."""
        assert Spawned(monkeypatch, {}).read_of_other == "inherited"

    def test_child_never_sees_the_signals_of_its_supervisor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A terminal sends its own to all; they stay blocked in the child, and come through here."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        spawned = Spawned(monkeypatch, {})
        numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
        assert all(spawned.blocked >> (number - 1) & 1 for number in numbers)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before

    def test_failure_leaves_nothing_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No descriptor stays open, no signal blocked."""

        def fail(command: list[str], **arguments: object) -> None:
            raise BlockingIOError(11, "no processes left")

        monkeypatch.setattr(subprocess, "Popen", fail)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with socket.socket() as listener:
            before = set(os.listdir("/proc/self/fd"))
            with pytest.raises(BlockingIOError):
                spawn([listener], {})
            assert set(os.listdir("/proc/self/fd")) == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


class TestInterpreter:
    def test_working_directory_is_searched_only_if_it_was_for_us(self) -> None:
        """From a checkout it is where the package is; installed, it may be anybody's."""
        assert spawning._interpreter(CHECKOUT) == [sys.executable]
        assert spawning._interpreter("/usr/local/bin") == [sys.executable, "-P"]


REAP = """
import os, sys
from sidecar.spawning import reap_strays

def ended_child():
    pid = os.fork()
    if not pid:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

def is_there(pid):
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False

children = [ended_child() for _ in range(int(sys.argv[1]))]
reap_strays(children[int(sys.argv[2]):])
print(*map(is_there, children))
"""


def reap(children: int, strays: int) -> list[str]:
    """Let a process have so many *children*, of which it does not know the first; return whether each is left."""
    done = subprocess.run(
        [sys.executable, "-c", REAP, str(children), str(strays)],
        env={"PYTHONPATH": CHECKOUT},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


class TestReapStrays:
    def test_those_of_nobody_are_reaped(self) -> None:
        """All that have ended."""
        assert reap(2, 2) == ["False", "False"]

    def test_those_of_somebody_are_left_to_it(self) -> None:
        """It wants to know how they ended."""
        assert reap(2, 1) == ["False", "True"]

    def test_no_child_is_no_error(self) -> None:
        """As for most programs, most of the time."""
        assert reap(0, 0) == []
