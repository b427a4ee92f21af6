"""
A small app on plain HTTP with the sidecar in front of it, until Ctrl-C: what `make run` starts.

The app knows nothing of TLS; it answers with what it was sent, so that the fields the sidecar adds can be seen.
"""

from __future__ import annotations

import argparse
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

CERTIFICATE = Path(".demo/server.pem")
START_SECONDS = 10.0


class DemoApp(http.server.BaseHTTPRequestHandler):
    """Answers every request with its own head, as text."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        received = self.rfile.read(length)
        body = f"Hello from the app. It was asked, over plain HTTP:\n\n{self.requestline}\n{self.headers}".encode()
        body = body.rstrip(b"\n") + b"\n" + (b"\n" + received if received else b"")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the sidecar's access log is the one to look at."""


def main() -> int:
    """Start both, print what to type, wait."""
    options = _options()
    taken = _ports_taken(options)
    if taken:
        print("\n".join(taken), file=sys.stderr)
        return 1
    app = http.server.ThreadingHTTPServer(("127.0.0.1", options.app_port), DemoApp)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    environment |= {
        "SIDECAR_LISTEN": f"127.0.0.1:{options.port}",
        "SIDECAR_UPSTREAM": f"http://127.0.0.1:{options.app_port}",
        "SIDECAR_ADMIN": f"127.0.0.1:{options.admin_port}",
    }
    # Ctrl-C reaches the whole foreground group; the sidecar drains on it, and we wait for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sidecar.terminate())
    sidecar = subprocess.Popen([sys.executable, "-m", "sidecar", "run"], env=environment, preexec_fn=_heed_ctrl_c)
    if _save_certificate(sidecar, options.admin_port):
        _print_what_to_type(options)
    return sidecar.wait()


def _ports_taken(options: argparse.Namespace) -> list[str]:
    """Say for each port that cannot be had which variable of `make run` chooses another."""
    problems = []
    for variable, port in (("APP_PORT", options.app_port), ("PORT", options.port), ("ADMIN_PORT", options.admin_port)):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as problem:
                other = f"make run {variable}={port % 55_000 + 1000}"
                problems.append(f"demo: cannot listen on 127.0.0.1:{port}: {problem.strerror}; choose another: {other}")
    return problems


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A demo app behind the sidecar.")
    parser.add_argument("--app-port", type=int, default=8080)
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--admin-port", type=int, default=8081)
    return parser.parse_args()


def _save_certificate(sidecar: subprocess.Popen[bytes], admin_port: int) -> bool:
    """Fetch the certificate made at start, so that curl can be told to trust it; False if there is none to be had."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and sidecar.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/certs/server.pem", timeout=1) as answer:
                CERTIFICATE.parent.mkdir(exist_ok=True)
                CERTIFICATE.write_bytes(answer.read())
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def _print_what_to_type(options: argparse.Namespace) -> None:
    print(
        f"""
The app listens on http://127.0.0.1:{options.app_port}, the sidecar on https://localhost:{options.port}.
Try, in another terminal:

    curl --cacert {CERTIFICATE} https://localhost:{options.port}/
    curl http://127.0.0.1:{options.admin_port}/certs

Ctrl-C ends both.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
