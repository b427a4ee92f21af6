"""
Ensures that a browser gets a page with all that belongs to it over HTTP/2, and a WebSocket beside it on the same
connection (RFC 8441), while the app behind speaks HTTP/1.1 and knows of none of it.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import pytest

from tests.scenarios.conftest import Launch
from tests.support.certs import authority
from tests.support.program import Program

DEADLINE_SECONDS = 60.0

PARTS = 12

PAGE = """<!doctype html><title>page</title>
<script>
const socket = new WebSocket(`wss://${location.host}/socket`);
socket.onopen = () => socket.send("hello");
socket.onmessage = (event) => {
  document.body.dataset.echoed = event.data;
  socket.send("seen");
};
socket.onerror = () => fetch("/socket-failed");
</script>
<body>
%s
<script src="/after-the-socket"></script>
<script>
onload = () => {
  const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const protocols = entries.map((entry) => [new URL(entry.name).pathname, entry.nextHopProtocol]);
  document.body.dataset.protocols = btoa(JSON.stringify(protocols));
};
</script>
"""
"""Says in its attributes what it saw. Its load is not over before the WebSocket is."""

TEXT, CLOSE = 0x1, 0x8


class PageApp(http.server.ThreadingHTTPServer):
    """
    An app with a page, for ``with``.

    Attributes:
        heads: Of the requests, by path.
        is_over: Set once the browser has seen what the WebSocket echoed, or that it failed.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.heads: dict[str, Any] = {}
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.is_over.set()
        super().__exit__(*exc_info)


class _Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = DEADLINE_SECONDS
    server: PageApp

    def do_GET(self) -> None:
        self.server.heads[self.path] = self.headers
        if self.path == "/":
            parts = "\n".join(f'<img src="/part/{number}">' for number in range(PARTS))
            self._answer("text/html", (PAGE % parts).encode())
        elif self.path == "/socket":
            self._talk()
        elif self.path == "/after-the-socket":
            self.server.is_over.wait(DEADLINE_SECONDS)
            self._answer("text/javascript", b"")
        elif self.path == "/socket-failed":
            self.server.is_over.set()
            self._answer("text/plain", b"")
        else:
            self._answer("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _talk(self) -> None:
        """Be a WebSocket that echoes once, and ends when its peer does (RFC 6455)."""
        key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        _, message = _read_message(self.rfile)
        self.wfile.write(bytes([0x80 | TEXT, len(message)]) + message)
        if _read_message(self.rfile) == (TEXT, b"seen"):
            self.server.is_over.set()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: standard error is pytest's."""


def _read_message(stream: BinaryIO) -> tuple[int, bytes]:
    """Read a short message of a browser; return its opcode and what it says."""
    first, second, mask = struct.unpack("!BB4s", stream.read(6))
    data = stream.read(second & 0x7F)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


@attrs.frozen
class Browser:
    """A headless Chromium that trusts the test root; it keeps everything below *home*."""

    home: Path

    def prepare(self) -> None:
        """Make its HOME."""
        database = self.home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        root = self.home / "root.pem"
        root.write_bytes(authority().cert_pem)
        self._run("certutil", "-N", "-d", f"sql:{database}", "--empty-password")
        self._run("certutil", "-A", "-d", f"sql:{database}", "-t", "C,,", "-n", "root", "-i", str(root))

    def page(self, program: Program) -> str:
        """Open the app's page; return what is shown once it has loaded, as HTML."""
        return self._run(
            "chromium",
            "--headless=new",
            "--dump-dom",
            "--no-sandbox",  # which root has not, and most containers neither
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
            f"--user-data-dir={self.home}/profile",
            f"{program.url}/",
        )

    def _run(self, *command: str) -> str:
        environ = {**os.environ, "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        environ["XDG_CACHE_HOME"] = str(self.home / ".cache")
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A browser that has not been anywhere."""
    browser = Browser(tmp_path / "home")
    browser.prepare()
    return browser


@pytest.fixture
def page_app() -> Iterator[PageApp]:
    """The app of one test."""
    with PageApp() as running:
        yield running


class TestBrowser:
    @pytest.mark.parametrize(("http2", "protocol", "logged"), [("on", "h2", "HTTP/2"), ("off", "http/1.1", "HTTP/1.1")])
    def test_page_with_all_that_belongs_to_it(
        self, browser: Browser, page_app: PageApp, launch: Launch, http2: str, protocol: str, logged: str
    ) -> None:
        """The page and its parts come over what was agreed on, and its WebSocket is answered on it as well."""
        program = launch(upstream=page_app.upstream, http2=http2)
        page = browser.page(program)

        protocols = re.search(r'data-protocols="([^"]*)"', page)
        assert protocols is not None, page
        seen = dict(json.loads(base64.b64decode(protocols[1])))
        assert seen == dict.fromkeys(("/", "/after-the-socket", *(f"/part/{n}" for n in range(PARTS))), protocol)
        assert 'data-echoed="hello"' in page
        assert {program.logged(path)["protocol"] for path in ("/", "/part/0", "/socket")} == {logged}

    def test_socket_of_http_2_is_an_upgrade_to_the_app(
        self, browser: Browser, page_app: PageApp, launch: Launch
    ) -> None:
        """The app gets the request of RFC 6455, whatever the browser said, with where it came from."""
        browser.page(launch(upstream=page_app.upstream))

        head = page_app.heads["/socket"]
        assert (head["Upgrade"].lower(), head["Connection"].lower()) == ("websocket", "upgrade")
        assert head["Sec-WebSocket-Version"] == "13"
        assert len(base64.b64decode(head["Sec-WebSocket-Key"], validate=True)) == 16
        assert head["Origin"].startswith("https://localhost:")
        assert head["X-Forwarded-Proto"] == "https"
