"""
One serving process: installs the reactor, runs the app, turns signals into drains. Nobody else uses the global reactor.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from typing import Any, Final

from twisted.internet import main
from twisted.logger import Logger

from sidecar.config.check import warnings
from sidecar.config.load import Loaded
from sidecar.config.names import ENVIRONMENT, SETTINGS
from sidecar.observe import logs

_log = Logger()


def run(loaded: Loaded) -> int:
    """
    Serve until told to stop.

    Returns:
        Exit status: 0, after a stop on request.

    Raises:
        ConfigError: It could not start.
    """
    _fill_standard_descriptors()
    reactor = _install_reactor()
    logs.start(loaded.settings.log.level, sys.stderr)
    _forget_secrets(loaded)
    for warning in warnings(loaded):
        _log.warn("{warning}", warning=warning)

    from sidecar.app import App

    app = App(loaded, reactor)
    app.start()
    _Signals(app, reactor).install()
    _keep_freed_memory()
    _settle_garbage_collector()
    reactor.run(installSignalHandlers=False)
    return 0


def _fill_standard_descriptors() -> None:
    """Let nothing of ours get the number of a standard descriptor that was closed before we started."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _forget_secrets(loaded: Loaded) -> None:
    """
    Take key material and passwords out of the environment, where child processes and /proc would show them.

    `os.environ` has copies; the kernel shows the strings that the process was started with, so those are overwritten.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.strlen.argtypes = [ctypes.c_void_p]
    for name, setting in SETTINGS.items():
        if loaded.sources[name] == ENVIRONMENT and setting.holds_secret(setting.of(loaded.settings)):
            value = libc.getenv(setting.variable.encode())
            if value is not None:
                ctypes.memset(value, 0, libc.strlen(value))
            os.environ.pop(setting.variable, None)


def _install_reactor() -> Any:
    try:
        from sidecar.proxy.reactor import DirectEPollReactor
    except ImportError:  # no epoll on this system: any reactor of Twisted's will do
        from twisted.internet import reactor

        return reactor
    make: Any = DirectEPollReactor  # untyped in Twisted, like installReactor
    install: Any = main.installReactor
    reactor = make()
    install(reactor)
    return reactor


# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1024 * 1024


def _keep_freed_memory() -> None:
    """
    Let malloc keep up to a mebibyte of what it freed last.

    By default glibc gives the end of the heap back from 128 KiB on: a transfer then gets and returns the same pages
    for every piece it moves, which more than doubles its cost (bench row `download`). Other C libraries have no
    mallopt, and nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _settle_garbage_collector() -> None:
    """
    Take everything made so far out of the garbage collector's sight, and let it look less often.

    Connections and requests leave no reference cycles behind, so it finds next to nothing, and its pauses are the
    latency of some request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class _Signals:
    """SIGTERM and SIGINT drain; a second one forces. SIGHUP does nothing, rather than kill."""

    def __init__(self, app: Any, reactor: Any) -> None:
        self._app = app
        self._reactor = reactor
        self._asked = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._caught)
        signal.signal(signal.SIGINT, self._caught)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _caught(self, number: int, frame: object) -> None:
        # Between two bytecodes of whatever is running: only leave a note, and wake the poller.
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        if self._asked:
            self._app.force()
            return
        self._asked = True
        self._app.drain(lambda cut: self._reactor.stop())
