"""Ensures that an upgraded connection, as of a WebSocket, is a pipe in both directions."""

from __future__ import annotations

import pytest

from tests.scenarios.clients import HalfClosingClient, HttpsClient, request
from tests.support.apps import App, pattern
from tests.support.program import Program, eventually

UPGRADE = ("Connection: Upgrade", "Upgrade: echo")


class TestUpgrade:
    def test_bytes_pass_in_both_directions(self, program: Program) -> None:
        """After 101 each side gets what the other sends, and the app may speak first."""
        with HttpsClient(program) as client:
            response = client.get("/upgrade", *UPGRADE)

            assert response.status == 101
            assert response.values("upgrade") == ["echo"]
            assert [value.lower() for value in response.values("connection")] == ["upgrade"]
            assert client.read(8) == b"welcome;"
            for message in (b"ping", b"\x00\xff" * 1000, b"GET / HTTP/1.1\r\n\r\n"):
                client.send(message)
                assert client.read(len(message)) == message

    def test_app_sees_the_offer(self, program: Program, app: App) -> None:
        """Connection and Upgrade, which are for one hop, are made anew for the next."""
        with HttpsClient(program) as client:
            client.get("/upgrade", "Connection: keep-alive, Upgrade", "Upgrade: echo")

        seen = app.last("/upgrade")
        assert seen.values("connection") == ["Upgrade"]
        assert seen.values("upgrade") == ["echo"]

    def test_bytes_sent_ahead_arrive(self, program: Program) -> None:
        """What a client sends before it has seen the 101 is not lost, and not taken for a request."""
        with HttpsClient(program) as client:
            client.send(request("/upgrade", *UPGRADE) + b"too early")

            assert client.response().status == 101
            assert client.read(17) == b"welcome;too early"

    def test_large_volume_both_ways(self, program: Program) -> None:
        """Megabytes echo whole while the client reads and writes in turns."""
        data = b"".join(pattern(4_000_000))
        with HttpsClient(program) as client:
            client.get("/upgrade", *UPGRADE)
            client.read(8)
            received = b""
            for start in range(0, len(data), 100_000):
                client.send(data[start : start + 100_000])
                received += client.read(100_000)

        assert received == data

    def test_end_of_client_reaches_the_app_and_its_last_words_the_client(self, program: Program) -> None:
        """A client that says close_notify half-closes the pipe: the app may still answer."""
        with HalfClosingClient(program) as client:
            client.send(request("/upgrade", *UPGRADE))
            client.read_until(b"welcome;")
            client.send(b"last words")
            client.end()

            assert client.read_until(b";bye") == b"last words;bye"

    def test_client_that_vanishes_ends_the_app_side(self, program: Program, app: App) -> None:
        """A reset of the client closes the app's connection."""
        eventually(lambda: app.open_connections <= 1, "earlier pipes are closed")
        client = HttpsClient(program)
        client.get("/upgrade", *UPGRADE)
        client.read(8)
        client.reset()

        eventually(lambda: program.metric("downstream_connections_active") == 0, "the client is forgotten")
        eventually(lambda: app.open_connections <= 1, "the app's side of the pipe is closed")

    def test_declined_upgrade_is_an_ordinary_exchange(self, program: Program) -> None:
        """An app that answers 200 to the offer keeps the connection an HTTP one."""
        with HttpsClient(program) as client:
            assert client.get("/hello", *UPGRADE).body == b"hello\n"
            assert client.get("/hello").body == b"hello\n"

    @pytest.mark.parametrize("lines", [(), ("Upgrade: echo",)], ids=["no-offer", "not-nominated"])
    def test_upgrade_nobody_asked_for_is_refused(self, program: Program, lines: tuple[str, ...]) -> None:
        """A 101 without an offer is an invalid response."""
        with HttpsClient(program) as client:
            assert client.get("/upgrade", *lines).status == 502
