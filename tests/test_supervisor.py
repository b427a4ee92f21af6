"""`supervisor`: what of it needs no processes; the scenarios run the rest."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.logger import capturedLogs

from sidecar import supervisor as module
from sidecar.certs import selfsigned
from sidecar.config.load import Loaded, load
from sidecar.control import Channel
from sidecar.crew import Crew
from sidecar.errors import ConfigError, Problem
from sidecar.member import receive_start
from tests.support import ports
from tests.support.certs import NOW
from tests.support.program import Port

PROBLEM = Problem("SIDECAR_TLS_CERT", "environment", "is missing", "put it there")
LISTENERS = '[{"name":"a","address":"127.0.0.1:%d","cluster":"app"}]'


class TestCurrent:
    def test_reload_takes_over_what_needs_no_restart(self) -> None:
        """As workers do: the pages show what is in force."""
        old, new = load({"listen": ":1443"}, {}), load({"listen": ":2443", "max_headers": "50"}, {})
        current = module._Current(old, lambda: new)
        current.reload()
        assert (current.loaded.settings.listen.port, current.loaded.settings.limits.headers) == (1443, 50)
        assert any("1443" in line for line in current.lines())

    @pytest.mark.parametrize(
        "after",
        [{"listeners": LISTENERS % 2443}, {"listen": ":1443"}],
        ids=["another address", "back to the small form"],
    )
    def test_other_listeners_change_nothing(self, after: dict[str, str]) -> None:
        """Workers refuse such a set whole, so one that is started later must not get half of it."""
        old = load({"listeners": LISTENERS % 1443}, {})
        current = module._Current(old, lambda: load({**after, "max_headers": "50"}, {}))
        with capturedLogs() as log:
            current.reload()
        assert current.loaded is old
        problems = [event["problem"] for event in log if "problem" in event]
        assert [problem.fix for problem in problems] == ["restart to change them, or undo it"]
        assert "a on 127.0.0.1:1443" in problems[0].fact

    def test_same_listeners_may_change_otherwise(self) -> None:
        """What workers put in force, the next of them is started with."""
        new = load({"listeners": (LISTENERS % 1443).replace("}", ',"proxy_protocol":"required"}')}, {})
        current = module._Current(load({"listeners": LISTENERS % 1443}, {}), lambda: new)
        current.reload()
        assert current.loaded.settings.downstream.listeners == new.settings.downstream.listeners

    def test_settings_that_cannot_work_change_nothing(self) -> None:
        """What is wrong is logged here too: it may be that no worker serves that could say it."""

        def refuse() -> Loaded:
            raise ConfigError([PROBLEM])

        old = load({}, {})
        current = module._Current(old, refuse)
        with capturedLogs() as log:
            current.reload()
        assert current.loaded is old
        assert [event["problem"] for event in log] == [PROBLEM]


class TestLauncher:
    def test_worker_gets_what_is_in_force(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Not what the file says by now, which nobody has put in force; after a reload, what that has found."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("max_headers: 50\nlisten: 1443\n")
        flags = {"config": str(file)}
        current = module._Current(load(flags, {}), lambda: load(flags, {}))
        file.write_text("max_headers: 60\nlisten: 2443\n")
        assert started_with(monkeypatch, current, flags) == (50, 1443)
        current.reload()
        assert started_with(monkeypatch, current, flags) == (60, 1443)
        file.write_text("max_headers: [\n")
        current.reload()
        assert started_with(monkeypatch, current, flags) == (60, 1443)

    def test_each_worker_gets_a_place_of_its_own(self, launched: Launched) -> None:
        """It inherits the memory under the number that it is told."""
        places = [launched.start(), launched.start()]
        assert None not in places
        assert len(set(places)) == 2
        assert {place[0] for place in places if place} == set(launched.inherited)

    def test_place_is_free_again_when_its_worker_has_gone(self, launched: Launched) -> None:
        """Whatever ended it: its end of the channel is closed."""
        place = launched.start()
        launched.theirs[0].close()
        launched.channels[0].doRead()
        assert launched.closed == 1
        assert launched.start() == place

    def test_worker_that_cannot_be_started_keeps_no_place(self, launched: Launched) -> None:
        """It is tried again and again."""
        launched.error = OSError("no processes left")
        for _ in range(10 * module.PLACES_PER_WORKER):
            with pytest.raises(OSError, match="no processes left"):
                launched.start()
        launched.error = None
        assert launched.start() is not None

    def test_system_without_shared_memory_gets_workers_without_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They accept as it comes, and a line says so."""

        def refuse(name: str) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(os, "memfd_create", refuse)
        with capturedLogs() as log:
            tally = module._tally(2)
        assert (tally.take(), tally.descriptors) == (None, ())
        assert [event["why"] for event in log] == ["Function not implemented"]


class Launched:
    """
    Workers of a launcher, without their processes.

    Attributes:
        launcher: What starts them.
        theirs: The workers' ends of their channels.
        inherited: What the last was given besides listening sockets.
        closed: How many are known to have gone.
        error: Why no process can be started.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "spawn", self._spawn)
        self.theirs: list[socket.socket] = []
        self.channels: list[Channel] = []
        self.inherited: Sequence[int] = ()
        self.closed = 0
        self.error: OSError | None = None
        given = module.Given(flags={}, environ={}, reread=lambda: load({}, {}))
        current = module._Current(load({}, {}), given.reread)
        self.launcher = module._Launcher(given, current, 2, [], ports.FakeReactor())

    def start(self) -> tuple[int, int] | None:
        """Start one; return the place that it is told."""
        _, channel = self.launcher(lambda message: None, self._gone)
        self.channels.append(channel)
        return receive_start(self.theirs[-1]).place

    def close(self) -> None:
        for channel, sock in zip(self.channels, self.theirs, strict=True):
            channel.close()
            sock.close()

    def _spawn(self, listeners: object, environ: object, others: Sequence[int]) -> tuple[Any, socket.socket]:
        if self.error is not None:
            raise self.error
        ours, theirs = socket.socketpair()
        self.theirs.append(theirs)
        self.inherited = others
        return None, ours

    def _gone(self) -> None:
        self.closed += 1


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    launched = Launched(monkeypatch)
    yield launched
    launched.close()


def started_with(monkeypatch: pytest.MonkeyPatch, current: module._Current, flags: dict[str, str]) -> tuple[int, int]:
    """Start a worker; return its `max_headers` and the port that it listens on."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(module, "spawn", lambda listeners, environ, others: (None, ours))
    given = module.Given(flags=flags, environ={}, reread=lambda: current.loaded)
    launcher = module._Launcher(given, current, 2, [theirs], ports.FakeReactor())
    _, channel = launcher(lambda message: None, lambda: None)
    with theirs:
        settings = receive_start(theirs).loaded.settings
    channel.close()
    return settings.limits.headers, settings.listen.port


class TestCertificate:
    def test_successor_is_made_in_time_wherever_the_time_of_day_goes(
        self, launched: Launched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All workers get it by being replaced; and so it goes on."""
        moment, crew, clock = NOW, FakeCrew(), ports.FakeReactor()
        monkeypatch.setattr(module, "_now", lambda: moment)
        loaded = load({"tls_names": "app.example"}, {})
        module._Certificate(loaded, launched.launcher, cast(Crew, crew), clock).make()
        served = [launched.launcher.ephemeral]
        clock.advance(selfsigned.LOOK_SECONDS)
        assert crew.told == []
        for _ in range(3):
            moment += selfsigned.LIFETIME  # set by somebody
            clock.advance(selfsigned.LOOK_SECONDS)
            served.append(launched.launcher.ephemeral)
        assert crew.told == ["roll"] * 3
        assert len({bundle.leaf.serial_number for bundle in served if bundle is not None}) == 4

    def test_nothing_is_made_where_certificates_are_given(self, launched: Launched) -> None:
        """Nor is anything planned."""
        clock = ports.FakeReactor()
        loaded = load({"tls_cert": "/certs/tls.crt"}, {})
        module._Certificate(loaded, launched.launcher, cast(Crew, FakeCrew()), clock).make()
        assert launched.launcher.ephemeral is None
        assert not clock.pending


class TestOpen:
    def test_every_listener_is_opened_by_its_name(self) -> None:
        """Those that are off are not."""
        with Port() as listen, Port() as health:
            sockets = module._open(load({"listen": str(listen), "admin": "off", "health": str(health)}, {}))
            for sock in sockets.values():
                sock.close()
        assert set(sockets) == {"listener main", "health"}

    def test_all_that_are_taken_are_told_at_once(self) -> None:
        """And those that are not are closed again."""
        with Port() as free, Port() as one, Port() as other, listening(one), listening(other):
            before = len(os.listdir("/proc/self/fd"))
            flags = {"listen": str(one), "admin": str(free), "health": str(other)}
            with pytest.raises(ConfigError) as caught:
                module._open(load(flags, {}))
            assert len(os.listdir("/proc/self/fd")) == before
        assert [problem.setting for problem in caught.value.problems] == ["--listen", "--health"]


def listening(port: Port) -> socket.socket:
    """Take *port*; for ``with``."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((port.host, port.number))
    sock.listen()
    return sock


class FakeCrew:
    """Notes what it is told."""

    pids: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.told: list[str] = []

    def stop(self) -> None:
        self.told.append("stop")

    def reload(self) -> None:
        self.told.append("reload")

    def roll(self) -> None:
        self.told.append("roll")

    def reap(self) -> None:
        self.told.append("reap")


class FakeReactor:
    """Keeps what signal handlers leave for the next turn."""

    def __init__(self) -> None:
        self.notes: list[Callable[[], None]] = []

    def callFromThread(self, note: Callable[[], None]) -> None:
        self.notes.append(note)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the handlers of signals back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
class TestSignals:
    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (signal.SIGTERM, "stop"),
            (signal.SIGINT, "stop"),
            (signal.SIGHUP, "reload"),
            (signal.SIGUSR2, "roll"),
            (signal.SIGCHLD, "reap"),
        ],
    )
    def test_each_is_acted_on_in_the_next_turn(self, number: signal.Signals, told: str) -> None:
        """Nothing happens between two bytecodes of whatever was running."""
        crew, reactor = FakeCrew(), FakeReactor()
        module._Signals(crew, reactor).install()  # type: ignore[arg-type]
        signal.raise_signal(number)
        assert crew.told == []
        for note in reactor.notes:
            note()
        assert crew.told == [told]

    def test_signal_to_open_logs_anew_does_nothing(self) -> None:
        """A habit from other proxies; by default it would end the program."""
        crew, reactor = FakeCrew(), FakeReactor()
        module._Signals(crew, reactor).install()  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN

    @pytest.mark.parametrize(("pid", "expected"), [(1, [frozenset()]), (7, [])])
    def test_strays_are_reaped_by_process_one_only(
        self, pid: int, expected: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody else is given any."""
        reaped: list[object] = []
        monkeypatch.setattr(module, "reap_strays", reaped.append)
        monkeypatch.setattr(os, "getpid", lambda: pid)
        signals = module._Signals(FakeCrew(), FakeReactor())  # type: ignore[arg-type]
        signals._reap()
        assert reaped == expected
