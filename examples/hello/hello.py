"""
An app that knows nothing of TLS: plain HTTP on localhost, answers with what it was asked.

`hello.py check` asks it for /healthz and ends with 0 if it answers, for the health check of a container.
"""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import sys
import threading

HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "8080"))


class Hello(http.server.BaseHTTPRequestHandler):
    """/service is a line of text, /healthz too; anything else is the request as it came."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: the second of two would wait for the first one's acknowledgement

    def answer(self) -> None:
        received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path in ("/service", "/healthz"):
            body = f"Hello from {socket.gethostname()}\n".encode()
        else:
            body = f"{self.requestline}\n{self.headers}".encode().rstrip(b"\n") + b"\n" + received
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the sidecar's access log is the one to look at."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def check() -> int:
    """Return 0 if the app answers."""
    connection = http.client.HTTPConnection("127.0.0.1" if HOST == "0.0.0.0" else HOST, PORT, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def main() -> int:
    """Serve until SIGTERM."""
    server = Server((HOST, PORT), Hello)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["check"] else main())
