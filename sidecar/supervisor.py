"""
One process that serves nobody, and the workers that do: `crew` put together with real processes, sockets and signals.

The listening socket is opened once, here, and inherited: a taken port is told before any worker starts, and while
workers come and go connections wait in it instead of being refused.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from twisted.logger import Logger

from sidecar import worker
from sidecar.admin.pages import ADMIN, HEALTH
from sidecar.admin.server import AdminConnection, AdminListener
from sidecar.app import LISTENER, in_words, listen_problem, local_addresses
from sidecar.certs import selfsigned
from sidecar.certs.bundle import Bundle
from sidecar.config import show
from sidecar.config.load import Loaded
from sidecar.config.topology import topology_of
from sidecar.control import Channel, Kind, Message
from sidecar.crew import Crew
from sidecar.errors import ConfigError, ListenError, Problem
from sidecar.member import Start
from sidecar.merged import MergedOperator
from sidecar.observe import logs
from sidecar.proxy.listener import listen
from sidecar.proxy.sockets import SocketTransport
from sidecar.proxy.tally import Tally
from sidecar.reloading import keep_what_needs_a_restart
from sidecar.spawning import Process, reap_strays, spawn

PLACES_PER_WORKER: Final = 4
"""In the tally: a worker that is replaced keeps its own until it has ended. One that finds none accepts as it comes."""

_log = Logger()


@attrs.frozen(kw_only=True)
class Given:
    """
    What the operator gave, for workers to read their settings from at a reload.

    Attributes:
        flags, environ: As of `config.load.gather`.
        reread: Reads the settings anew, checked; raises ConfigError.
    """

    flags: Mapping[str, str] = attrs.field(repr=False)
    environ: Mapping[str, str] = attrs.field(repr=False)
    reread: Callable[[], Loaded]


def run(loaded: Loaded, given: Given, count: int) -> int:
    """
    Serve with *count* workers until told to stop.

    Returns:
        Exit status: 0, after a stop on request.

    Raises:
        ConfigError: An address cannot be listened on, or no worker could start.
    """
    reactor = worker.prepare(loaded)
    worker.warn(loaded)
    sockets = _open(loaded)
    listeners = [sockets[LISTENER + spec.name] for spec in topology_of(loaded).listeners]
    current = _Current(loaded, given.reread)
    launcher = _Launcher(given, current, count, listeners, reactor)
    crew = Crew(
        count,
        launch=launcher,
        settings=lambda: current.loaded.settings,
        reloaded=current.reload,
        close_listeners=lambda: _close(listeners),
        stopped=reactor.stop,
        reactor=reactor,
    )
    _Certificate(loaded, launcher, crew, reactor).make()
    operator = MergedOperator(crew, current.lines, _now)
    pages = [
        AdminListener(sockets[name], operator, _transport(reactor), reactor, surface)
        for name, surface in (("admin", ADMIN), ("health", HEALTH))
        if name in sockets
    ]
    for each in pages:
        each.start()
    _Signals(crew, reactor).install()
    with logs.unblocked():
        _log.info(
            "{count} workers, {what}; admin: {admin}",
            count=count,
            what="; ".join(in_words(topology_of(loaded), loaded.settings.http2.enabled)),
            admin=loaded.settings.admin or "off",
        )
        crew.start()
        worker.settle_garbage_collector()
        reactor.run(installSignalHandlers=False)
    for each in pages:
        each.stop()
    if crew.problems:
        raise ConfigError(crew.problems)
    return 0


def _open(loaded: Loaded) -> dict[str, socket.socket]:
    """Open every listening socket, by the name of its setting; raise ConfigError with all that cannot be."""
    settings = loaded.settings
    problems: list[Problem] = []
    sockets: dict[str, socket.socket] = {}
    for name, address in (
        *((LISTENER + spec.name, spec.address) for spec in topology_of(loaded).listeners),
        ("admin", settings.admin),
        ("health", settings.health),
    ):
        if address is not None:
            try:
                sockets[name] = listen(address)
            except ListenError as error:
                problems.append(listen_problem(loaded, name, error))
    if problems:
        for sock in sockets.values():
            sock.close()
        raise ConfigError(problems)
    return sockets


def _close(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


class _Current:
    """The settings in force, as far as the supervisor can know."""

    def __init__(self, loaded: Loaded, reread: Callable[[], Loaded]) -> None:
        self.loaded = loaded
        self._reread = reread

    def reload(self) -> None:
        try:
            self.loaded = keep_what_needs_a_restart(self._reread(), self.loaded)
        except ConfigError as error:
            # Workers find the same and say so, but it may be that none serves, and then this is all there is to read.
            for problem in error.problems:
                _log.error("reload failed, new workers get what was in force before: {problem}", problem=problem)
            return
        logs.set_level(self.loaded.settings.log.level)

    def lines(self) -> Sequence[str]:
        return tuple(show.effective(self.loaded.settings, self.loaded.sources))


class _Launcher:
    """
    Starts workers, with the settings in force: what the file says by now, nobody may have looked over yet.

    Attributes:
        ephemeral: What they serve where no certificate is given.
    """

    def __init__(
        self, given: Given, current: _Current, count: int, listeners: Sequence[socket.socket], reactor: Any
    ) -> None:
        self.ephemeral: Bundle | None = None
        self._tally = _tally(count)
        self._given = given
        self._current = current
        self._count = count
        self._listeners = listeners
        self._reactor = reactor

    def __call__(self, received: Callable[[Message], None], closed: Callable[[], None]) -> tuple[Process, Channel]:
        place = self._tally.take()

        def gone() -> None:
            self._tally.leave(place)
            closed()

        try:
            process, sock = spawn(self._listeners, os.environ, self._tally.descriptors)
        except OSError:
            self._tally.leave(place)
            raise
        channel = Channel(sock, received, gone, self._reactor)
        channel.start()
        start = Start(
            loaded=self._current.loaded,
            flags=self._given.flags,
            environ=self._given.environ,
            workers=self._count,
            ephemeral=self.ephemeral,
            place=place,
        )
        channel.send(Message(Kind.START, start.pack()))
        return process, channel


def _tally(count: int) -> Tally:
    """Return what tells workers how many connections each has; one without places if the system cannot have that."""
    try:
        return Tally(PLACES_PER_WORKER * count)
    except OSError as problem:
        _log.warn("chance decides how connections are shared out among workers: {why}", why=problem.strerror)
        return Tally(0)


class _Certificate:
    """The certificate that is served where none is given: made here, so that all workers have the same."""

    def __init__(self, loaded: Loaded, launcher: _Launcher, crew: Crew, reactor: Any) -> None:
        self._tls = loaded.settings.tls
        self._is_needed = any(spec.tls for spec in topology_of(loaded).listeners) and not self._tls.cert
        self._launcher = launcher
        self._crew = crew
        self._reactor = reactor

    def make(self) -> None:
        """Make it, and plan its successor, with which new workers are started."""
        if not self._is_needed:
            return
        names = selfsigned.default_names(socket.gethostname(), local_addresses(), self._tls.names)
        bundle = self._launcher.ephemeral = selfsigned.make(names, _now())
        self._plan_renewal(bundle)

    def _plan_renewal(self, bundle: Bundle) -> None:
        self._reactor.callLater(selfsigned.seconds_to_look(bundle, _now()), self._look_at_renewal, bundle)

    def _look_at_renewal(self, bundle: Bundle) -> None:
        if selfsigned.renew_at(bundle) <= _now():
            self.make()
            self._crew.roll()
        else:
            self._plan_renewal(bundle)


class _Signals:
    """
    SIGTERM and SIGINT drain, a second one forces; SIGHUP reloads; SIGUSR2 replaces; SIGCHLD is a worker's end.

    SIGUSR1 does nothing: other proxies open their log files anew at it, and habit must not end the program.
    """

    def __init__(self, crew: Crew, reactor: Any) -> None:
        self._crew = crew
        self._reactor = reactor
        self._acts: Mapping[int, Callable[[], None]] = {
            signal.SIGTERM: crew.stop,
            signal.SIGINT: crew.stop,
            signal.SIGHUP: crew.reload,
            signal.SIGUSR2: crew.roll,
            signal.SIGCHLD: self._reap,
        }

    def install(self) -> None:
        for number in self._acts:
            signal.signal(number, self._caught)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._acts)

    def _caught(self, number: int, frame: object) -> None:
        # Between two bytecodes of whatever is running: only leave a note, and wake the poller.
        self._reactor.callFromThread(self._acts[number])

    def _reap(self) -> None:
        self._crew.reap()
        if os.getpid() == 1:
            reap_strays(self._crew.pids)


def _transport(reactor: Any) -> Callable[[socket.socket, AdminConnection], SocketTransport]:
    return lambda sock, connection: SocketTransport(sock, connection, reactor)


def _now() -> datetime:
    return datetime.now(UTC)
