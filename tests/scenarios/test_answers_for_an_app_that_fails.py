"""Ensures that whatever the app does wrong, the client gets a true and timely answer, and the operator the reason."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.scenarios.clients import HttpsClient, curl, request
from tests.scenarios.conftest import Launch
from tests.support.apps import INVALID, App
from tests.support.program import Port, Program, eventually

CUT = (ConnectionResetError, ssl.SSLEOFError)
"""What a client sees of a connection that was cut on purpose: never an orderly end."""


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """Short waits, so that the tests need not wait for the long ones."""
    return {"upstream_timeout": "1s", "connect_timeout": "1s", "stream_timeout": "1s"}


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """The address of an app that accepts nobody, with a backlog so full that the kernel does not answer either."""
    waiting = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        try:
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
                waiting.append(sock)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for sock in waiting:
                sock.close()


class TestAppBusy:
    def test_request_over_the_limit_is_answered_with_503(self, launch: Launch, own_app: App) -> None:
        """With every allowed connection to the app in use, the next request is told so at once, and then served."""
        program = launch(upstream=own_app.upstream, max_upstream_connections="1")
        with HttpsClient(program) as busy, HttpsClient(program) as other, HttpsClient(program) as later:
            busy.send(request("/held-inside", "Connection: close"))
            busy.read_until(b"first ")

            assert other.get("/hello").status == 503
            line = program.logged("/hello")
            assert (line["status"], line["reason"]) == (503, "upstream_overflow")

            own_app.gate.set()
            busy.read_to_end()
            assert later.get("/hello").status == 200


class TestAppDown:
    @pytest.fixture
    def lonely(self, launch: Launch) -> Iterator[Program]:
        """A sidecar whose app is not there."""
        with Port() as port:
            yield launch(upstream=f"http://{port}")

    def test_app_that_went_away_is_502_at_once(self, launch: Launch) -> None:
        """A refused connection is answered with 502 and one line of text, and logged with its reason."""
        with App() as app:
            program = launch(upstream=app.upstream)
            assert curl(program, "-f", f"{program.url}/hello").returncode == 0
        done = curl(program, "-w", "%{http_code} %{content_type}", "--max-time", "2", f"{program.url}/down")

        assert done.stdout == ("The app behind this proxy does not accept connections.\n502 text/plain; charset=utf-8")
        line = program.logged("/down")
        assert (line["status"], line["reason"]) == (502, "upstream_connect_refused")

    def test_app_that_has_not_started_is_503_at_once(self, lonely: Program) -> None:
        """Until it first takes a connection, the answer says when to try again."""
        done = curl(lonely, "-i", "--max-time", "2", f"{lonely.url}/down")

        assert done.stdout.startswith("HTTP/2 503")
        assert "\nretry-after: 1" in done.stdout
        assert done.stdout.endswith("The app behind this proxy has not started yet.\n")
        line = lonely.logged("/down")
        assert (line["status"], line["reason"]) == (503, "upstream_not_started")
        address, _, why = line["detail"].partition(": ")
        assert address.startswith("127.0.0.1:")
        assert why == "Connection refused"

    def test_answer_is_json_for_who_accepts_it(self, lonely: Program) -> None:
        """A client that accepts JSON gets the same as JSON."""
        with HttpsClient(lonely) as client:
            response = client.get("/", "Accept: application/json")

        assert response.status == 503
        assert response.values("content-type") == ["application/json"]
        assert response.json() == {
            "status": 503,
            "reason": "upstream_not_started",
            "message": "The app behind this proxy has not started yet.",
        }

    def test_answer_to_head_has_no_body(self, lonely: Program) -> None:
        """The answer to HEAD is a head."""
        with HttpsClient(lonely) as client:
            response = client.get("/", method="HEAD")

            assert response.status == 503
            assert client.is_closed()

    def test_upload_is_answered_while_it_is_sent(self, lonely: Program) -> None:
        """A client in the middle of a large body can read the 503."""
        with HttpsClient(lonely) as client:
            client.send(request("/", "Content-Length: 10000000", method="POST", body=bytes(300_000)))

            assert client.response().status == 503

    def test_app_that_comes_back_is_served_again(self, launch: Launch) -> None:
        """Nothing is remembered of a failure: the next request tries anew."""
        with App() as first:
            upstream, port = first.upstream, first.port
        program = launch(upstream=upstream)
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 503
        with socket.create_server(("127.0.0.1", port)) as listener, HttpsClient(program) as client:
            client.send(request("/hello"))
            listener.settimeout(10)
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                assert client.response().status == 204

    def test_silent_network_is_answered_within_the_connect_timeout(self, launch: Launch, full_backlog: str) -> None:
        """A connection that is not answered at all costs SIDECAR_CONNECT_TIMEOUT, then 502."""
        program = launch(upstream=full_backlog, connect_timeout="500ms")
        with HttpsClient(program) as client:
            started_at = time.monotonic()
            response = client.get("/silent")
            elapsed = time.monotonic() - started_at

        assert response.status == 502
        assert 0.45 < elapsed < 2
        assert program.logged("/silent")["reason"] == "upstream_connect_timeout"


class TestAppSilent:
    def test_answer_is_504_after_the_timeout(self, program: Program) -> None:
        """An app that takes the request and says nothing costs SIDECAR_UPSTREAM_TIMEOUT, then 504."""
        with HttpsClient(program) as client:
            started_at = time.monotonic()
            response = client.get("/never/timed")
            elapsed = time.monotonic() - started_at

            assert response.status == 504
            assert 0.9 < elapsed < 3
            assert client.is_closed()
        assert program.logged("/never/timed")["reason"] == "upstream_timeout"

    def test_silence_inside_a_response_cuts_the_client(self, launch: Launch, own_app: App) -> None:
        """A response that stops in its middle is cut: what came must not pass for all."""
        program = launch(upstream=own_app.upstream, stream_timeout="1s")
        with HttpsClient(program) as client:
            client.send(request("/held-inside"))
            client.read_until(b"first ")
            with pytest.raises(CUT):
                client.read_to_end()

        assert program.logged("/held-inside")["reason"] == "upstream_stalled"

    def test_app_is_let_go(self, program: Program, app: App) -> None:
        """After a 504 the app's connection is closed, so that it need not go on."""
        with HttpsClient(program) as client:
            client.get("/never")

        eventually(lambda: program.metric("upstream_connections") == program.metric("upstream_connections_idle"),
                   "no connection to the app is in use")  # fmt: skip


class TestAppBreaksOff:
    @pytest.mark.parametrize("path", ["/reset-before", "/close-before"])
    def test_no_response_is_502(self, program: Program, path: str) -> None:
        """An app that closes instead of answering gives 502 with a reason."""
        with HttpsClient(program) as client:
            assert client.get(path).status == 502

        assert program.logged(path)["reason"] == "upstream_reset"

    def test_get_on_a_reused_connection_is_repeated_only_once(self, program: Program, app: App) -> None:
        """A GET that fails on a kept connection is tried on a new one; when that fails too, the client gets 502."""
        with HttpsClient(program) as client:
            client.get("/hello")
            before = len(app.requests)

            assert client.get("/close-before").status == 502
        assert len(app.requests) - before == 2

    def test_post_on_a_reused_connection_is_never_repeated(self, program: Program, app: App) -> None:
        """What may not be done twice is sent once."""
        with HttpsClient(program) as client:
            client.get("/hello")
            before = len(app.requests)
            client.send(request("/close-before", "Content-Length: 0", method="POST"))

            assert client.response().status == 502
        assert len(app.requests) - before == 1

    @pytest.mark.parametrize("path", ["/close-inside", "/close-inside-chunks"])
    def test_cut_response_is_cut_for_the_client(self, program: Program, path: str) -> None:
        """A response that ends too early ends for the client with an error, never in order."""
        with HttpsClient(program) as client:
            client.send(request(path))
            with pytest.raises(CUT):
                client.read_to_end()

        assert program.logged(path)["reason"] == "upstream_reset"

    @pytest.mark.parametrize("path", ["/close-inside", "/close-inside-chunks"])
    def test_curl_reports_a_cut_response(self, program: Program, path: str) -> None:
        """curl ends with an error, not with half a body and status 0, in either version."""
        assert curl(program, "--http1.1", f"{program.url}{path}").returncode in (18, 55, 56)
        assert curl(program, "--http2", f"{program.url}{path}").returncode == 92

    def test_reset_inside_a_response_cuts_the_client(self, launch: Launch, own_app: App) -> None:
        """An app that resets after half of its response: the client sees half, and an error."""
        program = launch(upstream=own_app.upstream)
        with HttpsClient(program) as client:
            client.send(request("/reset-inside"))
            client.read_until(b"\r\n\r\n")
            client.read(500)
            own_app.gate.set()
            with pytest.raises(CUT):
                client.read_to_end()

        assert program.logged("/reset-inside")["reason"] == "upstream_reset"

    def test_http_1_0_client_sees_a_cut_too(self, program: Program) -> None:
        """Where the end of the connection is the end of the body, a cut body must not end in order."""
        with HttpsClient(program) as client:
            client.send(b"GET /close-inside-chunks HTTP/1.0\r\nHost: localhost\r\n\r\n")
            with pytest.raises(CUT):
                client.read_to_end()


class TestAppBreaksRules:
    @pytest.mark.parametrize("kind", INVALID)
    def test_invalid_response_is_502(self, program: Program, kind: str) -> None:
        """Nothing of a response whose framing is in doubt reaches the client."""
        with HttpsClient(program) as client:
            response = client.get(f"/invalid?kind={kind}")

        assert response.status == 502
        assert response.body == b"The app behind this proxy sent an invalid response.\n"

    def test_reason_and_detail_are_logged(self, program: Program) -> None:
        """The operator reads which rule was broken."""
        with HttpsClient(program) as client:
            client.get("/invalid?kind=both-framings")

        eventually(
            lambda: any("both_framings" in line.get("detail", "") for line in program.access_log()), "the detail"
        )

    def test_next_client_is_not_affected(self, program: Program) -> None:
        """The connection to the app on which it happened is not used again."""
        with HttpsClient(program) as client:
            client.get("/invalid?kind=two-lengths")
        with HttpsClient(program) as client:
            assert client.get("/hello").body == b"hello\n"


class TestAppSendsABodyTooLate:
    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n", id="head"),
            pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="head-chunked"),
            pytest.param("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 55\r\n\r\n", id="204"),
            pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n", id="304"),
        ],
    )
    def test_it_never_reaches_another_client(self, launch: Launch, method: str, answer: bytes) -> None:
        """An answer without a body that speaks of one may be followed by it: nobody else uses that connection."""
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(5)
            program = launch(upstream=f"http://127.0.0.1:{listener.getsockname()[1]}")
            client, other = (stack.enter_context(HttpsClient(program)) for _ in range(2))
            client.send(request("/", method=method))
            app = stack.enter_context(listener.accept()[0])
            assert _asked(app)
            app.sendall(answer)
            assert client.response(method).head.startswith(answer[:12])
            other.send(request("/"))
            if _asked(app):
                app.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\nfor somebody else")
            else:
                app = stack.enter_context(listener.accept()[0])
                assert _asked(app)
                app.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")

            assert other.response().body == b"mine"


def _asked(connection: socket.socket) -> bool:
    """Whether a request comes on *connection* of the app, and not its end."""
    connection.settimeout(5)
    try:
        return connection.recv(65_536) != b""
    except ConnectionResetError:
        return False


class TestFickleApp:
    def test_closing_kept_connections_at_random_costs_no_get(self, program: Program) -> None:
        """200 GETs get 200 answers from an app that closes kept connections whenever it likes."""
        with HttpsClient(program) as client:
            statuses = [client.get("/fickle").status for _ in range(200)]

        assert statuses == [200] * 200
        assert program.metric("upstream_retries_total") > 0
