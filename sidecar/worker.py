"""
One serving process: installs the reactor, runs the app, turns signals into drains. Nobody else uses the global reactor.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.internet import main
from twisted.logger import Logger

from sidecar.certs import files
from sidecar.certs.bundle import Bundle
from sidecar.config.check import warnings
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.errors import ConfigError
from sidecar.observe import logs
from sidecar.settings import Settings
from sidecar.values import Value

if TYPE_CHECKING:
    from sidecar.proxy.tally import Place

_log = Logger()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Inherited(Value):
    """
    What a worker has of its supervisor.

    Attributes:
        channel: To it; a `Start` has been read.
        listeners: What to accept from, in the order of `Topology.listeners`.
        ephemeral: The certificate to serve where none is given.
        place: Where it tells the others how many connections it has; None: they do not share them out.
    """

    channel: socket.socket
    listeners: Sequence[socket.socket]
    ephemeral: Bundle | None
    place: Place | None = None


def run(loaded: Loaded, reread: Callable[[], Loaded] | None = None, inherited: Inherited | None = None) -> int:
    """
    Serve until told to stop.

    Args:
        reread: Reads the settings anew for a reload; raises ConfigError. None: they stay as they are.
        inherited: Of a supervisor, which is obeyed in place of signals. None: there is none.

    Returns:
        Exit status: 0, after a stop on request.

    Raises:
        ConfigError: It could not start.
    """
    reactor = prepare(loaded)
    if inherited is None:
        warn(loaded)
    from sidecar.app import App

    if inherited is None:
        app = App(loaded, reactor, reread=reread)
        start = _Start(app, loaded.settings, reactor)
        _Signals(app, start, reactor).install()
    else:
        from sidecar.member import Member

        app = App(
            loaded,
            reactor,
            reread=reread,
            listeners=inherited.listeners,
            ephemeral=inherited.ephemeral,
            place=inherited.place,
        )
        member = Member(inherited.channel, app, reactor)
        start = _Start(app, loaded.settings, reactor, lambda: member.serves(app.console))
        member.start()
    with logs.unblocked():
        start.attempt()
        settle_garbage_collector()
        _keep_freed_memory()
        reactor.run(installSignalHandlers=False)
    if start.error is not None:
        raise start.error
    return 0


def prepare(loaded: Loaded) -> Any:
    """Make the process fit to serve, or to supervise those that do; return the reactor."""
    _fill_standard_descriptors()
    reactor = _install_reactor()
    logs.start(loaded.settings.log.level, sys.stderr)
    _forget_secrets()
    return reactor


def warn(loaded: Loaded) -> None:
    """Log what is odd about the settings."""
    for warning in (*loaded.notes, *warnings(loaded)):
        _log.warn("{warning}", warning=warning)


def settle_garbage_collector() -> None:
    """
    Take everything made so far out of the garbage collector's sight, turn it on, and let it look less often.

    Connections and requests leave no reference cycles behind, so it finds next to nothing, and its pauses are the
    latency of some request. What is garbage by now (1.7 MB, of making classes) stays: to look for it costs as much CPU
    time as a tenth of the start, at a moment when clients can connect already.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


WAIT_LOOK_SECONDS: Final = 0.5
WAIT_LINE_SECONDS: Final = 5.0
"""How often a start that waits for files looks for them, and says so."""


class _Start:
    """
    Starts the app, as soon as the files that it needs are there.

    Attributes:
        is_done: Whether it serves.
        error: Why it gave up, if it did.
    """

    def __init__(self, app: Any, settings: Settings, reactor: Any, done: Callable[[], None] = lambda: None) -> None:
        self._done = done
        self.is_done = False
        self.error: ConfigError | None = None
        self._app = app
        self._settings = settings
        self._reactor = reactor
        self._until = reactor.seconds() + settings.life.wait
        self._say_at = reactor.seconds()

    def attempt(self) -> None:
        """
        Start, or plan another attempt.

        Raises:
            ConfigError: It failed for another reason than missing files.
        """
        missing = files.missing(self._settings)
        now = self._reactor.seconds()
        if missing and now < self._until:
            self._app.wait(missing)
            if now >= self._say_at:
                self._say_at = now + WAIT_LINE_SECONDS
                _log.info(
                    "waiting for {paths}, for {left:.0f} s more (SIDECAR_WAIT)",
                    paths=", ".join(map(str, missing)),
                    left=self._until - now,
                )
            self._reactor.callLater(WAIT_LOOK_SECONDS, self._again)
            return
        self._app.start()
        self.is_done = True
        self._done()

    def _again(self) -> None:
        if self.error is not None or self.is_done:
            return
        try:
            self.attempt()
        except ConfigError as error:
            self.error = error
            self._reactor.stop()


def _fill_standard_descriptors() -> None:
    """Let nothing of ours get the number of a standard descriptor that was closed before we started."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _forget_secrets() -> None:
    """
    Take key material and passwords out of the environment, where child processes and /proc would show them.

    `os.environ` has copies; the kernel shows the strings that the process was started with, so those are overwritten.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.strlen.argtypes = [ctypes.c_void_p]
    for setting in SETTINGS.values():
        # Also what a flag has overridden, which is in force nowhere but still stands there.
        if setting.may_be_secret(os.environ.get(setting.variable, "")):
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
_KEPT_BYTES: Final = 2 * 1024 * 1024


def _keep_freed_memory() -> None:
    """
    Let malloc keep up to two mebibytes of what it freed last.

    By default glibc gives the end of the heap back from 128 KiB on: a transfer then gets and returns the same pages
    for every piece it moves, which more than doubles its cost (bench rows `download`, `http2-bulk`). Other C libraries
    have no mallopt, and nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _inherit_strays() -> None:
    """As process 1 we become the parent of every orphan in the container: let the kernel bury them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # those that ended before
            pass


class _Signals:
    """SIGTERM and SIGINT drain; a second one forces. SIGHUP reloads."""

    def __init__(self, app: Any, start: _Start, reactor: Any) -> None:
        self._app = app
        self._start = start
        self._reactor = reactor
        self._asked = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._caught)
        signal.signal(signal.SIGINT, self._caught)
        signal.signal(signal.SIGHUP, self._hung_up)
        # What means something to others, or to us with several workers, must not end us.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, self._cannot_replace)
        if os.getpid() == 1:
            _inherit_strays()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))

    def _caught(self, number: int, frame: object) -> None:
        # Between two bytecodes of whatever is running: only leave a note, and wake the poller.
        self._reactor.callFromThread(self._stop)

    def _hung_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _cannot_replace(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._explain)

    def _explain(self) -> None:
        _log.warn("SIGUSR2 replaces workers, and there is one process (SIDECAR_WORKERS); SIGHUP reloads")

    def _reload(self) -> None:
        if self._start.is_done and not self._asked:
            self._app.reload()

    def _stop(self) -> None:
        if not self._start.is_done:
            self._reactor.stop()
            return
        if self._asked:
            self._app.force()
            return
        self._asked = True
        self._app.drain(lambda cut: self._reactor.stop())
