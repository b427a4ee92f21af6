"""Ensures that listener and app may be on IPv4, IPv6 or, for the app, on a Unix socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.scenarios.clients import HttpsClient, curl
from tests.scenarios.conftest import Launch
from tests.support.apps import App


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


class TestUpstream:
    def test_unix_socket(self, launch: Launch, tmp_path: Path) -> None:
        """`unix:/path` reaches an app on a Unix socket, again and again."""
        with App(path=tmp_path / "app.sock") as app, HttpsClient(launch(upstream=app.upstream)) as client:
            seen = [client.get("/echo").json()["connection"] for _ in range(3)]

        assert seen == [1, 1, 1]

    def test_unix_socket_that_is_not_there(self, launch: Launch, tmp_path: Path) -> None:
        """A missing Unix socket is an app that has not started: 503, and when to ask again."""
        with HttpsClient(launch(upstream=f"unix:{tmp_path}/missing.sock")) as client:
            response = client.get("/")
        assert (response.status, response.values("retry-after")) == (503, ["1"])

    @IPV6
    def test_ipv6(self, launch: Launch) -> None:
        """`http://[::1]:PORT` reaches an app on IPv6."""
        with App("::1") as app, HttpsClient(launch(upstream=app.upstream)) as client:
            assert client.get("/hello").body == b"hello\n"

    def test_host_name(self, launch: Launch, own_app: App) -> None:
        """A host name is looked up, and its addresses are tried until one answers."""
        with HttpsClient(launch(upstream=f"http://localhost:{own_app.port}")) as client:
            assert client.get("/hello").body == b"hello\n"


class TestListener:
    @IPV6
    def test_ipv6(self, launch: Launch, own_app: App) -> None:
        """`[::1]:PORT` listens on IPv6, and the app learns the client's IPv6 address."""
        program = launch(host="::1", upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.get("/echo")

        assert own_app.last("/echo").values("x-forwarded-for") == ["::1"]

    @IPV6
    def test_wildcard_takes_both(self, launch: Launch, own_app: App) -> None:
        """`[::]:PORT` takes IPv4 clients too, whose address the app reads as an IPv4 address."""
        program = launch(host="::", upstream=own_app.upstream)

        done = curl(program, f"https://127.0.0.1:{program.port}/echo")

        assert done.returncode == 0
        assert own_app.last("/echo").values("x-forwarded-for") == ["127.0.0.1"]
