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
        ("found", "wanted", "severity", "word"),
        [
            pytest.param(Answer(Spoken.HTTP, 404), Spoken.HTTP, Severity.OK, "answers 404", id="answers"),
            pytest.param(Answer(Spoken.HTTP, 200, keep_alive=5), Spoken.HTTP, Severity.OK, "200", id="keeps-alive"),
            pytest.param(Answer(Spoken.HTTP, 200, keep_alive=1), Spoken.HTTP, Severity.NOTE, "1 s", id="lets-go"),
            pytest.param(Answer(Spoken.H2C), Spoken.H2C, Severity.OK, "speaks HTTP/2", id="h2c"),
            pytest.param(Answer(Spoken.TLS), Spoken.TLS, Severity.OK, "speaks TLS", id="tls"),
            pytest.param(Answer(Spoken.ANYTHING), Spoken.ANYTHING, Severity.OK, "takes connections", id="tcp"),
            pytest.param(Answer(Spoken.OTHER), Spoken.HTTP, Severity.ERROR, "not HTTP/1.1", id="no-http"),
            pytest.param(Answer(Spoken.OTHER), Spoken.H2C, Severity.ERROR, "not HTTP/2", id="no-http2"),
            pytest.param(Answer(Spoken.OTHER), Spoken.TLS, Severity.ERROR, "does not speak TLS", id="no-tls"),
            pytest.param(Answer(Spoken.SILENCE), Spoken.HTTP, Severity.WARNING, "in time", id="silent"),
        ],
    )
    def test_what_is_spoken_must_fit(self, found: Answer, wanted: Spoken, severity: Severity, word: str) -> None:
        """Any status is an answer: which the app gives to HEAD / is its own affair."""
        finding = answer(APP, found, wanted, is_running=True)
        assert word in only([finding], severity, Check.APP).fact

    @pytest.mark.parametrize(
        ("spoken", "wanted", "fact", "fix"),
        [
            pytest.param(Spoken.TLS, Spoken.HTTP, "speaks TLS, and SIDECAR_UPSTREAM says http", "https://", id="tls"),
            pytest.param(Spoken.TLS, Spoken.H2C, "speaks TLS, and SIDECAR_UPSTREAM says h2c", "https://", id="h2-tls"),
            pytest.param(Spoken.HTTP, Spoken.TLS, "plain HTTP, and SIDECAR_UPSTREAM says https", "http://", id="http"),
            pytest.param(Spoken.HTTP, Spoken.H2C, "does not speak HTTP/2 without TLS", "http://", id="http1-for-h2c"),
            pytest.param(Spoken.H2C, Spoken.HTTP, "speaks HTTP/2 without TLS", "h2c://", id="h2c-for-http1"),
            pytest.param(Spoken.H2C, Spoken.TLS, "SIDECAR_UPSTREAM says https", "h2c://", id="h2c-for-tls"),
        ],
    )
    def test_other_protocol_is_an_error_with_what_to_write(
        self, spoken: Spoken, wanted: Spoken, fact: str, fix: str
    ) -> None:
        """The classic mistakes are mended by one word, even where the app answered with a status of its own."""
        finding = only([answer(APP, Answer(spoken, 400), wanted, is_running=False)], Severity.ERROR, Check.APP)
        assert fact in finding.fact
        assert f"{fix} there" in finding.fix

    @pytest.mark.parametrize(("is_running", "severity"), [(True, Severity.ERROR), (False, Severity.WARNING)])
    def test_missing_app_is_an_error_once_clients_notice(self, is_running: bool, severity: Severity) -> None:
        """Before the start it may be yet to come."""
        found = Answer(Spoken.NOTHING, why="Connection refused")
        finding = answer(APP, found, Spoken.HTTP, is_running=is_running)
        assert "Connection refused" in only([finding], severity, Check.APP).fact

    @pytest.mark.parametrize(
        ("address", "expected"), [(APP, True), (HostPort("app", 80), False), (UnixPath("/run/app"), False)]
    )
    def test_loopback_of_a_container_is_explained(self, address: HostPort | UnixPath, expected: bool) -> None:
        """The classic mistake: each container has its own."""
        fix = answer(address, Answer(Spoken.NOTHING), Spoken.HTTP, is_running=False).fix
        assert ("network_mode" in fix) is expected
