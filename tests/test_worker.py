"""`worker`: signals to drains, and exit statuses."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import task

from sidecar import app as app_module
from sidecar import worker
from sidecar.config.load import load
from sidecar.errors import ConfigError, Problem
from sidecar.observe import logs
from tests.support.program import ROOT, Program

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class FakeApp:
    """Notes what it is told."""

    problems: tuple[Problem, ...] = ()
    made: list[FakeApp]

    def __init__(self, loaded: Any, reactor: Any, reread: Any) -> None:
        self.calls: list[str] = []
        self.waits: list[object] = []
        self.stopped: Callable[[int], None] = lambda cut: None
        type(self).made.append(self)

    def wait(self, paths: object) -> None:
        self.waits.append(paths)

    def start(self) -> None:
        self.calls.append("start")
        if self.problems:
            raise ConfigError(self.problems)

    def reload(self) -> None:
        self.calls.append("reload")

    def drain(self, stopped: Callable[[int], None]) -> None:
        self.calls.append("drain")
        self.stopped = stopped

    def force(self) -> None:
        self.calls.append("force")
        self.stopped(1)


class FakeReactor(task.Clock):
    """Runs what signals left for it when it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.at_run: list[Callable[[], object]] = []
        self.signals: list[int] = []
        self.notes: list[Callable[[], None]] = []

    def callFromThread(self, note: Callable[[], None]) -> None:
        self.notes.append(note)

    def run(self, *, installSignalHandlers: bool) -> None:  # noqa: N803  # Twisted's name
        assert not installSignalHandlers
        self.told.append("run")
        for step in self.at_run:
            step()
        for number in self.signals:
            signal.raise_signal(number)
            for note in self.notes:
                note()
            self.notes.clear()

    def stop(self) -> None:
        self.told.append("stop")


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeReactor]:
    reactor = FakeReactor()
    FakeApp.made = []
    monkeypatch.setattr(FakeApp, "problems", ())
    monkeypatch.setattr(worker, "_install_reactor", lambda: reactor)
    monkeypatch.setattr(app_module, "App", FakeApp)
    monkeypatch.setattr(logs, "start", lambda level, stream: None)
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    threshold = gc.get_threshold()
    yield reactor
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.set_threshold(*threshold)
    gc.unfreeze()


class TestRun:
    def test_term_drains_and_exits_with_0(self, reactor: FakeReactor) -> None:
        """The first signal lets everything finish; the reactor stops when the app has."""
        reactor.signals = [signal.SIGTERM]
        assert worker.run(load({}, {})) == 0
        (app,) = FakeApp.made
        assert app.calls == ["start", "drain"]
        assert reactor.told == ["run"]
        app.stopped(0)
        assert reactor.told == ["run", "stop"]

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=str)
    def test_second_signal_forces(self, reactor: FakeReactor, second: int) -> None:
        """Whoever asks twice does not want to wait."""
        reactor.signals = [signal.SIGINT, second]
        assert worker.run(load({}, {})) == 0
        assert FakeApp.made[0].calls == ["start", "drain", "force"]
        assert reactor.told == ["run", "stop"]

    def test_hang_up_reloads(self, reactor: FakeReactor) -> None:
        """As every operator expects; a service that is stopping stays as it is."""
        reactor.signals = [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
        worker.run(load({}, {}))
        assert FakeApp.made[0].calls == ["start", "reload", "drain"]

    @pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2], ids=str)
    def test_signals_of_other_programs_end_nothing(self, reactor: FakeReactor, number: signal.Signals) -> None:
        """By default they would kill: what reopens the logs of one server, or replaces the workers of another."""
        reactor.signals = [number, signal.SIGTERM]
        assert worker.run(load({}, {})) == 0
        assert FakeApp.made[0].calls == ["start", "drain"]

    def test_missing_files_are_waited_for(
        self, reactor: FakeReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A start without its files is tried again until they are there."""
        cert = tmp_path / "tls.crt"
        reactor.at_run = [lambda: reactor.advance(1.0), cert.touch, lambda: reactor.advance(1.0)]
        worker.run(load({"tls_cert": str(cert)}, {}))
        assert FakeApp.made[0].calls == ["start"]
        assert set(FakeApp.made[0].waits) == {(cert,)}

    def test_wait_ends(self, reactor: FakeReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then what is missing is told as ever."""
        monkeypatch.setattr(FakeApp, "problems", (Problem("--tls-cert", "flag", "is missing", "put it there"),))
        reactor.at_run = [lambda: reactor.advance(1.0)] * 4
        with pytest.raises(ConfigError):
            worker.run(load({"tls_cert": str(tmp_path / "tls.crt"), "wait": "3"}, {}))
        assert FakeApp.made[0].calls == ["start"]
        assert reactor.told.count("stop") == 1

    def test_stop_ends_the_wait(self, reactor: FakeReactor, tmp_path: Path) -> None:
        """Nothing is served yet, so nothing is to be drained."""
        reactor.signals = [signal.SIGTERM]
        assert worker.run(load({"tls_cert": str(tmp_path / "tls.crt")}, {})) == 0
        assert FakeApp.made[0].calls == []
        assert "stop" in reactor.told

    def test_problems_are_the_command_lines_to_print(
        self, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A start that cannot work raises all that is wrong, and the reactor never runs."""
        problems = tuple(Problem(f"--{name}", "flag", "is wrong", "mend it") for name in ("a", "b"))
        monkeypatch.setattr(FakeApp, "problems", problems)
        with pytest.raises(ConfigError) as caught:
            worker.run(load({}, {}))
        assert caught.value.problems == problems
        assert capsys.readouterr().err == ""
        assert reactor.told == []


class TestGarbageCollector:
    def test_it_works_again_once_the_start_is_over(self, reactor: FakeReactor) -> None:
        """The command turns it off for the start; before anything is served it is on, and spares what was loaded."""
        seen: list[tuple[bool, bool]] = []
        reactor.at_run = [lambda: seen.append((gc.isenabled(), gc.get_freeze_count() > 0))]
        gc.disable()
        try:
            worker.run(load({}, {}))
        finally:
            gc.enable()
        assert seen == [(True, True)]

    def test_it_works_while_files_are_waited_for(self, reactor: FakeReactor, tmp_path: Path) -> None:
        """That may be for hours, and the health port answers meanwhile."""
        seen: list[bool] = []
        reactor.at_run = [lambda: seen.append(gc.isenabled())]
        gc.disable()
        try:
            worker.run(load({"tls_cert": str(tmp_path / "tls.crt")}, {}))
        finally:
            gc.enable()
        assert seen == [True]


REPORT = """
import os, sys
from sidecar import worker
worker._fill_standard_descriptors()
first = os.open(os.devnull, os.O_RDONLY)
links = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
with open(sys.argv[1], "w") as report:
    print(first > 2, *links, file=report)
"""


class TestStandardDescriptors:
    @pytest.mark.parametrize(
        "closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=lambda closed: str(closed)
    )
    def test_those_that_were_closed_lead_nowhere(self, closed: tuple[int, ...], tmp_path: Path) -> None:
        """Each standard descriptor that was closed at the start is /dev/null; the others stay what they were."""
        there, report = tmp_path / "there", tmp_path / "report"
        there.touch()
        redirections = " ".join(f"{number}>&-" if number in closed else f"{number}<>$THERE" for number in range(3))
        subprocess.run(
            ["sh", "-c", f'exec "$0" -c "$REPORT" "$TO" {redirections}', sys.executable],
            env={"REPORT": REPORT, "TO": str(report), "THERE": str(there)},
            cwd=ROOT,
            check=True,
            timeout=60,
        )
        expected = ["/dev/null" if number in closed else str(there) for number in range(3)]
        assert report.read_text().split() == ["True", *expected]

    def test_service_started_without_them_serves(self, tmp_path: Path) -> None:
        """No connection gets the number of a standard descriptor, so no log line ever goes to a client."""
        prefix = ("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh")
        with Program(tmp_path, prefix=prefix, access_log="json") as program:
            links = [os.readlink(f"/proc/{program.pid}/fd/{number}") for number in range(3)]
            assert links == ["/dev/null"] * 3
            assert program.admin("/live")[0] == 200
            with socket.create_connection((program.host, program.port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                answer = client.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1") == 1


class TestInstallReactor:
    def test_direct_reactor_is_preferred(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is epoll, ours runs."""
        installed: list[Any] = []

        class Made:
            pass

        import sidecar.proxy.reactor as module

        monkeypatch.setattr(module, "DirectEPollReactor", Made)
        monkeypatch.setattr(worker.main, "installReactor", installed.append)
        assert worker._install_reactor() is installed[0]
        assert isinstance(installed[0], Made)
        assert "sidecar.proxy.reactor" in sys.modules
