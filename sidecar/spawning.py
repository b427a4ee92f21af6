"""
Child processes: how a worker is started, and how those that have ended are taken leave of.

A worker is a new program, not a fork: it shares nothing with us but the descriptors it is given. Settings reach it over
its channel, so that no secret is ever in its arguments or its environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import sidecar
from sidecar.config.names import PREFIX

COMMAND: Final = "_worker"
"""The command of ours that a worker is started with; its arguments are descriptors: channel, listening sockets."""

_FOR_THE_SUPERVISOR: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
"""
Signals that a worker never sees. A terminal and systemd send theirs to every process of a service; a worker that acted
on them would do so twice, by itself and when the supervisor tells it.
"""


class Process(Protocol):
    """What `subprocess.Popen` is to a supervisor."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


def spawn(
    listeners: Sequence[socket.socket], environ: Mapping[str, str], others: Sequence[int] = ()
) -> tuple[Process, socket.socket]:
    """
    Start a worker.

    Args:
        listeners: What it accepts from, in the order in which it knows them.
        environ: Our environment, of which it gets all but the settings.
        others: Descriptors that it inherits too, under the same numbers; it is not told of them here.

    Returns:
        The process, and our end of its channel.

    Raises:
        OSError: There are no descriptors, processes or memory for it.
    """
    ours, theirs = socket.socketpair()
    numbers = (theirs.fileno(), *(listener.fileno() for listener in listeners))
    # A blocked signal stays blocked over fork and exec; those that come to us in this moment are delivered after it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_SUPERVISOR)
    try:
        process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
            [*_interpreter(sys.path[0]), "-m", "sidecar", COMMAND, *map(str, numbers)],
            pass_fds=(*numbers, *others),
            env={name: value for name, value in environ.items() if not name.startswith(PREFIX)},
        )
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, ours


def _interpreter(first_of_path: str) -> list[str]:
    """
    Return the command for a Python that finds this package where we found it.

    With -m the working directory is searched first. Where that is not how we were started, it must not be so for
    workers either: whoever can write to it would run code of theirs.
    """
    from_working_directory = first_of_path == str(Path(sidecar.__file__).parent.parent)
    return [sys.executable] if from_working_directory else [sys.executable, "-P"]


def reap_strays(known: Container[int]) -> None:
    """
    Take leave of ended children that are not among *known*: those whose parents have ended are given to process 1.

    Those that are known are their owner's: one that has ended since it looked ends this round, and brings a new signal.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in known:
            return
        os.waitpid(ended.si_pid, 0)
