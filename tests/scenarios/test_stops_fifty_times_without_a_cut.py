"""
Ensures that a stop cuts nothing that could finish: fifty times, under load, with keep-alive requests, downloads and
upgraded connections, the program ends with 0 and every client has what it asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient
from tests.support.apps import App
from tests.support.program import Program

STOPS = 50
DOWNLOAD_BYTES = 3_000_000


class Load:
    """Clients that are in the middle of something whenever the stop comes."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.failures: list[str] = []
        self.requests = 0
        self.downloads = 0
        self.echoes = 0
        self.is_asked_to_stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(each,)) for each in (self._ask, self._load, self._talk)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20.0)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failure:  # told in the main thread
            self.failures.append(f"{work.__name__}: {failure!r}")

    def _ask(self) -> None:
        """One request after the other, until an answer says that it is the last."""
        with HttpsClient(self.program) as client:
            while True:
                response = client.get("/hello")
                assert response.status == 200
                self.requests += 1
                if response.values("connection") == ["close"]:
                    return

    def _load(self) -> None:
        """Downloads, the last of which is under way when the stop comes."""
        with HttpsClient(self.program) as client:
            while True:
                response = client.get(f"/bytes?n={DOWNLOAD_BYTES}")
                assert len(response.body) == DOWNLOAD_BYTES
                self.downloads += 1
                if response.values("connection") == ["close"]:
                    return

    def _talk(self) -> None:
        """An upgraded connection that the client ends by itself, in time."""
        with HttpsClient(self.program) as client:
            assert client.get("/upgrade", "Connection: Upgrade", "Upgrade: echo").status == 101
            assert client.read(8) == b"welcome;"
            while not self.is_asked_to_stop.is_set() or self.echoes < 3:
                client.send(b"ping")
                assert client.read(4) == b"ping"
                self.echoes += 1


@pytest.mark.slow
def test_fifty_stops_cut_nothing(app: App, tmp_path: Path) -> None:
    """Each stop comes at another moment of the load."""
    for number in range(STOPS):
        program = Program(tmp_path / str(number), upstream=app.upstream, access_log="off")
        program.wait_until_ready()
        load = Load(program)
        load.start()
        time.sleep(0.02 + 0.006 * number)  # another moment each time; nothing is waited for here
        program.signal()
        load.is_asked_to_stop.set()
        load.join()
        assert load.failures == [], f"stop {number}"
        assert (load.requests > 0, load.downloads > 0, load.echoes > 2) == (True, True, True)
        assert program.wait() == 0
        assert "exchanges cut: 0" in program.stderr
        program.close()
