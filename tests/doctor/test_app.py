"""`sidecar.doctor.app`: whether the app is there, and who else reaches it."""

from __future__ import annotations

import pytest

from sidecar.doctor.app import Answer, Spoken, answer, exposure, hop
from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.listening import Listening
from sidecar.settings import HostPort, UnixPath
from tests.doctor.settled import only

APP = HostPort("127.0.0.1", 8080)


class TestExposure:
    @pytest.mark.parametrize(
        ("hosts", "severity"),
        [
            pytest.param(["127.0.0.1"], Severity.OK, id="loopback"),
            pytest.param(["127.0.0.1", "::1"], Severity.OK, id="both-loopbacks"),
            pytest.param(["0.0.0.0"], Severity.WARNING, id="all"),
            pytest.param(["::"], Severity.WARNING, id="all-of-both-kinds"),
            pytest.param(["127.0.0.1", "10.0.0.5"], Severity.WARNING, id="one-more"),
        ],
    )
    def test_app_that_others_reach_is_a_warning(self, hosts: list[str], severity: Severity) -> None:
        """TLS, client certificates and rules can be gone round there."""
        table = [Listening(host, 8080) for host in hosts]
        only(exposure(APP, table), severity, Check.APP_EXPOSED)

    @pytest.mark.parametrize("table", [[], [Listening("0.0.0.0", 8081)], [Listening("10.0.0.5", 8080)]])
    def test_without_an_app_there_is_nothing_to_say(self, table: list[Listening]) -> None:
        """Somebody else's listener on another address or port is not the app."""
        assert list(exposure(APP, table)) == []


class TestHop:
    def test_app_elsewhere_is_a_note(self) -> None:
        """It may be the next container on a private network."""
        only([hop(HostPort("app", 8080))], Severity.NOTE, Check.APP_EXPOSED)


class TestAnswer:
    @pytest.mark.parametrize(
        ("found", "wants_tls", "severity", "word"),
        [
            pytest.param(Answer(Spoken.HTTP, 404), False, Severity.OK, "answers 404", id="answers"),
            pytest.param(Answer(Spoken.HTTP, 200, keep_alive=5), False, Severity.OK, "200", id="keeps-alive"),
            pytest.param(Answer(Spoken.HTTP, 200, keep_alive=1), False, Severity.NOTE, "1 s", id="lets-go"),
            pytest.param(Answer(Spoken.TLS), True, Severity.OK, "speaks TLS", id="tls"),
            pytest.param(Answer(Spoken.ANYTHING), False, Severity.OK, "takes connections", id="tcp"),
            pytest.param(Answer(Spoken.TLS), False, Severity.ERROR, "says http", id="tls-for-http"),
            pytest.param(Answer(Spoken.HTTP, 400), True, Severity.ERROR, "says https", id="http-for-tls"),
            pytest.param(Answer(Spoken.OTHER), False, Severity.ERROR, "not HTTP/1.1", id="no-http"),
            pytest.param(Answer(Spoken.OTHER), True, Severity.ERROR, "does not speak TLS", id="no-tls"),
            pytest.param(Answer(Spoken.SILENCE), False, Severity.WARNING, "in time", id="silent"),
        ],
    )
    def test_what_is_spoken_must_fit(self, found: Answer, wants_tls: bool, severity: Severity, word: str) -> None:
        """Any status is an answer: which the app gives to HEAD / is its own affair."""
        finding = answer(APP, found, wants_tls=wants_tls, is_running=True)
        assert word in only([finding], severity, Check.APP).fact

    @pytest.mark.parametrize(("is_running", "severity"), [(True, Severity.ERROR), (False, Severity.WARNING)])
    def test_missing_app_is_an_error_once_clients_notice(self, is_running: bool, severity: Severity) -> None:
        """Before the start it may be yet to come."""
        found = Answer(Spoken.NOTHING, why="Connection refused")
        assert (
            "Connection refused"
            in only([answer(APP, found, wants_tls=False, is_running=is_running)], severity, Check.APP).fact
        )

    @pytest.mark.parametrize(
        ("address", "expected"), [(APP, True), (HostPort("app", 80), False), (UnixPath("/run/app"), False)]
    )
    def test_loopback_of_a_container_is_explained(self, address: HostPort | UnixPath, expected: bool) -> None:
        """The classic mistake: each container has its own."""
        fix = answer(address, Answer(Spoken.NOTHING), wants_tls=False, is_running=False).fix
        assert ("network_mode" in fix) is expected
