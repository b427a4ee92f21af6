"""Ensures that SIDECAR_MAX_CONNECTIONS holds, and that those above it wait instead of being turned away."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from tests.scenarios.clients import HttpsClient, client_context, in_parallel
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import eventually


class TestLimit:
    def test_sixth_of_five_waits_and_is_served(self, launch: Launch, own_app: App) -> None:
        """The one above the limit waits in the backlog, and is served once another one closes."""
        program = launch(upstream=own_app.upstream, max_connections="5")
        with ExitStack() as stack:
            clients = [stack.enter_context(HttpsClient(program)) for _ in range(5)]
            assert [client.get("/hello").status for client in clients] == [200] * 5
            sixth = stack.enter_context(socket.create_connection((program.host, program.port), 10))
            assert program.metric("downstream_connections_total") == 5
            assert [client.get("/hello").status for client in clients] == [200] * 5
            assert program.metric("downstream_connections_active") == 5

            clients[0].socket.close()
            with client_context().wrap_socket(sixth, server_hostname="localhost") as tls:
                tls.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert tls.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert program.metric("downstream_connections_total") == 6

    def test_many_above_the_limit_are_all_served(self, launch: Launch, own_app: App) -> None:
        """Forty clients at once get through a limit of three."""
        program = launch(upstream=own_app.upstream, max_connections="3")

        def visit() -> int:
            with HttpsClient(program, timeout_seconds=20) as client:
                return client.get("/hello").status

        assert in_parallel([visit] * 40) == [200] * 40
        eventually(lambda: program.metric("downstream_connections_active") == 0, "no connection is active")

    def test_limit_is_reported_in_the_log(self, launch: Launch, own_app: App) -> None:
        """The program log names the limit and its setting."""
        program = launch(upstream=own_app.upstream, max_connections="1")
        with HttpsClient(program):
            eventually(lambda: "SIDECAR_MAX_CONNECTIONS" in program.stderr, "the limit is named")
