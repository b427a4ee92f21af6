"""Ensures that a signal ends the program as a load balancer wants it: no request lost, no wait without an end."""

from __future__ import annotations

import signal
import socket
import ssl
import time

import pytest

from tests.scenarios.clients import HttpsClient, request
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import Program, eventually

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


def wait_for_request(app: App) -> None:
    eventually(lambda: bool(app.requests), "the app has the request")


def wait_until_draining(program: Program) -> None:
    """Wait until /ready says that no more traffic should be sent."""
    eventually(lambda: program.admin("/ready") [0] == 503, "it says that it is not ready")  # fmt: skip


class TestDrain:
    @SIGNALS
    def test_idle_program_ends_at_once(self, launch: Launch, own_app: App, number: signal.Signals) -> None:
        """With nothing in flight the exit is immediate, with status 0."""
        program = launch(upstream=own_app.upstream)
        program.signal(number)

        assert program.wait(3) == 0

    @SIGNALS
    def test_request_in_flight_is_answered(self, launch: Launch, own_app: App, number: signal.Signals) -> None:
        """A request that the app is working on gets its answer, with Connection: close, before the exit with 0."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/held"))
            wait_for_request(own_app)
            program.signal(number)
            wait_until_draining(program)
            own_app.gate.set()
            response = client.response()

            assert (response.status, response.body) == (200, b"at last\n")
            assert response.values("connection") == ["close"]
            assert client.is_closed()
        assert program.wait() == 0

    def test_response_in_flight_is_finished(self, launch: Launch, own_app: App) -> None:
        """A response that has begun reaches its end; then the connection closes in order."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/held-inside"))
            client.read_until(b"first ")
            program.signal()
            wait_until_draining(program)
            own_app.gate.set()

            assert client.read(6) == b"second"
            assert client.is_closed()
        assert program.wait() == 0

    def test_upload_in_flight_is_finished(self, launch: Launch, own_app: App) -> None:
        """A client in the middle of its body may send the rest."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/mirror", "Content-Length: 10", method="POST", body=b"first"))
            wait_for_request(own_app)
            program.signal()
            wait_until_draining(program)
            client.send(b" last")
            response = client.response()

            assert response.body == b"first last"
            assert response.values("connection") == ["close"]
        assert program.wait() == 0

    def test_idle_connection_is_closed_in_order(self, launch: Launch, own_app: App) -> None:
        """A kept connection without a request ends with close_notify while others are still served."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as idle, HttpsClient(program) as busy:
            idle.get("/hello")
            own_app.requests.clear()
            busy.send(request("/held"))
            wait_for_request(own_app)
            program.signal()

            assert idle.is_closed()
            own_app.gate.set()
            assert busy.response().status == 200
        assert program.wait() == 0

    def test_new_connections_are_refused(self, launch: Launch, own_app: App) -> None:
        """While it drains nobody new is accepted, and the admin pages say why."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/held"))
            wait_for_request(own_app)
            program.signal()
            wait_until_draining(program)

            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((program.host, program.port), 5)
            assert b"draining" in program.admin("/ready")[1]
            assert program.admin("/live")[0] == 200
            own_app.gate.set()
            client.response()
        assert program.wait() == 0

    def test_half_a_head_is_not_cut(self, launch: Launch, own_app: App) -> None:
        """A request whose head has begun to arrive counts as in flight."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.get("/hello")
            client.send(b"GET /echo HTTP/1.1\r\nHo")
            with HttpsClient(program) as other:
                other.get("/hello")  # by now the half has arrived
            program.signal()
            wait_until_draining(program)
            client.send(b"st: localhost\r\n\r\n")

            assert client.response().status == 200
        assert program.wait() == 0


class TestDeadline:
    def test_endless_exchange_is_cut(self, launch: Launch, own_app: App) -> None:
        """What does not end within SIDECAR_DRAIN_TIMEOUT is cut, and the exit status is 0 even so."""
        program = launch(upstream=own_app.upstream, drain_timeout="1s")
        with HttpsClient(program) as client:
            client.send(request("/held-inside"))
            client.read_until(b"first ")
            started_at = time.monotonic()
            program.signal()
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                client.read_to_end()

            assert program.wait(3) == 0
            assert time.monotonic() - started_at > 0.9
        assert "exchanges cut: 1" in program.stderr

    def test_request_without_an_answer_yet_gets_503(self, launch: Launch, own_app: App) -> None:
        """A client that has been sent nothing is told why it waited in vain, and the log says which request it was."""
        program = launch(upstream=own_app.upstream, drain_timeout="500ms")
        with HttpsClient(program) as client:
            client.send(request("/never"))
            wait_for_request(own_app)
            program.signal()

            assert client.response().status == 503
            assert program.wait(3) == 0
        line = program.logged("/never")
        assert (line["status"], line["reason"]) == (503, "drain_timeout")

    def test_upgraded_connection_is_cut(self, launch: Launch, own_app: App) -> None:
        """A pipe, which knows no end of an exchange, lasts until the deadline."""
        program = launch(upstream=own_app.upstream, drain_timeout="1s")
        with HttpsClient(program) as client:
            client.get("/upgrade", "Connection: Upgrade", "Upgrade: echo")
            program.signal()
            wait_until_draining(program)
            client.read(8)
            client.send(b"still here")
            assert client.read(10) == b"still here"

            assert program.wait(3) == 0

    @SIGNALS
    def test_second_signal_forces(self, launch: Launch, own_app: App, number: signal.Signals) -> None:
        """A second signal cuts what the first one waits for."""
        program = launch(upstream=own_app.upstream, drain_timeout="1h")
        with HttpsClient(program) as client:
            client.send(request("/never"))
            wait_for_request(own_app)
            program.signal(number)
            wait_until_draining(program)
            program.signal(number)

            assert program.wait(3) == 0

    def test_hang_up_is_ignored(self, launch: Launch, own_app: App) -> None:
        """SIGHUP does not end the program."""
        program = launch(upstream=own_app.upstream)
        program.signal(signal.SIGHUP)
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200

    def test_silent_connection_does_not_hold_up_the_exit(self, launch: Launch, own_app: App) -> None:
        """A client that has connected but said nothing, as browsers and balancers do in advance, is not waited for."""
        program = launch(upstream=own_app.upstream, drain_timeout="8s")
        with socket.create_connection((program.host, program.port), 10):
            eventually(lambda: program.metric("downstream_connections_active") == 1, "it is accepted")
            program.signal()

            assert program.wait(4) == 0
