"""`waiting`: a program that is not there yet says so, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.admin.operator import Operator
from sidecar.admin.pages import ADMIN, Question, respond
from sidecar.config.load import load
from sidecar.observe import logs
from sidecar.observe.metrics import Metrics
from sidecar.settings import LogLevel
from sidecar.waiting import Waiting
from tests.support.certs import NOW

FILE = Path("/certs/tls.crt")


@pytest.fixture
def stops() -> list[str]:
    return []


@pytest.fixture
def waiting(stops: list[str]) -> Waiting:
    loaded = load({"tls_cert": str(FILE)}, {})
    stop = lambda: stops.append("stop")  # noqa: E731
    return Waiting(loaded=loaded, metrics=Metrics(), stop=stop, clock=lambda: NOW, paths=(FILE,))


class TestWaiting:
    def test_every_page_can_be_shown(self, waiting: Waiting) -> None:
        """An operator who looks why nothing is served finds the pages as ever."""
        operator: Operator = waiting
        for path in ADMIN.routes:
            status = respond(Question("GET", path, {}), operator, ADMIN).status
            assert status == {
                "/ready": 503,
                "/certs/server.pem": 404,
                **dict.fromkeys(("/reload", "/drain", "/logging"), 405),
            }.get(path, 200), path

    def test_it_is_not_ready_and_says_why(self, waiting: Waiting) -> None:
        """With the names of what is missing."""
        assert waiting.readiness().reasons == ("waiting for /certs/tls.crt",)
        assert waiting.reload() == ("waiting for /certs/tls.crt",)
        assert any(str(FILE) in line for line in waiting.config_lines())

    def test_it_can_be_given_up(self, waiting: Waiting, stops: list[str]) -> None:
        """A drain has nothing to wait for."""
        waiting.drain()
        assert stops == ["stop"]

    def test_log_level_is_set(self, waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
        """As later."""
        levels: list[LogLevel] = []
        monkeypatch.setattr(logs, "set_level", levels.append)
        assert "error" in waiting.set_log_level(LogLevel.ERROR)
        assert levels == [LogLevel.ERROR]
