"""Ensures that TLS is what the policy says, and that clients can resume their sessions."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient, client_context, s_client
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import Program

NAMES = {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}


class TestResumption:
    @pytest.mark.parametrize("version", NAMES)
    def test_openssl_resumes_and_the_metrics_count_it(self, program: Program, tmp_path: Path, version: str) -> None:
        """`openssl s_client -sess_out` and then `-sess_in` says Reused; so does the metric."""
        session = str(tmp_path / "session")
        counters = ("tls_handshakes_resumed_total", f'tls_handshakes_total{{version="{NAMES[version]}"}}')
        before = [program.metric(name) for name in counters]

        first = s_client(program, version, "-sess_out", session)
        second = s_client(program, version, "-sess_in", session)

        assert f"\nNew, {NAMES[version]}" in first.stdout
        assert f"\nReused, {NAMES[version]}" in second.stdout
        assert "HTTP/1.1 200 OK" in second.stdout
        resumed, handshakes = (program.metric(name) - was for name, was in zip(counters, before, strict=True))
        assert (resumed, handshakes) == (1, 2)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_session_survives_many_resumptions(self, program: Program, version: ssl.TLSVersion) -> None:
        """A client that resumes from connection to connection is served each time."""
        context = client_context(version=version)
        session, reused = None, []
        for _ in range(5):
            with HttpsClient(program, context=context, session=session) as client:
                assert client.get("/hello").body == b"hello\n"
                session = client.socket.session
                reused.append(client.socket.session_reused)
                client.socket.unwrap()

        assert reused == [False, True, True, True, True]

    def test_session_of_another_sidecar_is_not_resumed(self, program: Program, launch: Launch, app: App) -> None:
        """A ticket of a process whose keys we do not have leads to a full handshake, not to an error."""
        context = client_context(version=ssl.TLSVersion.TLSv1_3)
        with HttpsClient(program, context=context) as client:
            client.get("/hello")
            session = client.socket.session
            client.socket.unwrap()
        with HttpsClient(launch(upstream=app.upstream), context=context, session=session) as client:
            assert client.get("/hello").status == 200
            assert not client.socket.session_reused


class TestFirstRequest:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_client_that_gathers_small_packets_does_not_wait(self, program: Program, version: ssl.TLSVersion) -> None:
        """
        Without TCP_NODELAY a request that follows the handshake is held back until that is acknowledged: at once, not
        by the kernel's delayed acknowledgement, which takes 40 ms and more.
        """
        context = client_context(version=version)
        taken = []
        for _ in range(10):
            with HttpsClient(program, context=context) as client:
                assert not client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                start = time.monotonic()
                client.get("/hello")
                taken.append(time.monotonic() - start)

        assert min(taken) < 0.035


class TestPolicy:
    @pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
    def test_old_versions_are_refused(self, program: Program, version: str) -> None:
        """TLS 1.0 and 1.1 get the alert that names the reason."""
        done = s_client(program, version, "-cipher", "ALL:@SECLEVEL=0")

        assert done.returncode != 0
        assert "alert protocol version" in done.stderr

    @pytest.mark.parametrize("version", NAMES)
    def test_intermediate_takes_both_versions(self, program: Program, version: str) -> None:
        """The default policy serves TLS 1.2 and 1.3."""
        done = s_client(program, version)

        assert done.returncode == 0
        assert f"\nNew, {NAMES[version]}" in done.stdout

    def test_modern_refuses_tls_1_2(self, launch: Launch, app: App) -> None:
        """SIDECAR_TLS_POLICY=modern serves TLS 1.3 only."""
        program = launch(upstream=app.upstream, tls_policy="modern")

        old = s_client(program, "-tls1_2")
        new = s_client(program, "-tls1_3")

        assert old.returncode != 0
        assert "alert protocol version" in old.stderr
        assert "HTTP/1.1 200 OK" in new.stdout
        assert program.metric('tls_handshake_failures_total{reason="unsupported_version"}') == 1

    @pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "NULL"])
    def test_weak_suites_of_tls_1_2_are_refused(self, program: Program, cipher: str) -> None:
        """Suites without forward secrecy or without authenticated encryption have no chance."""
        done = s_client(program, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")

        assert done.returncode != 0
        assert "alert handshake failure" in done.stderr

    @pytest.mark.parametrize(("offered", "agreed"), [("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")])
    def test_alpn_agrees_on_the_newest(self, program: Program, offered: str, agreed: str) -> None:
        """Whatever order a client offers them in."""
        done = s_client(program, "-alpn", offered)

        assert f"ALPN protocol: {agreed}" in done.stdout

    def test_client_of_another_protocol_is_refused(self, program: Program) -> None:
        """A client that offers only what we do not speak is told so."""
        done = s_client(program, "-alpn", "h3")

        assert "alert no application protocol" in done.stderr

    def test_client_without_alpn_is_served(self, program: Program) -> None:
        """ALPN is not needed."""
        done = s_client(program)

        assert "No ALPN negotiated" in done.stdout
        assert "HTTP/1.1 200 OK" in done.stdout
