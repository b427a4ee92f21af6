"""Ensures that every kind of body passes whole, in both directions, and that the connection goes on after it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.scenarios.clients import HalfClosingClient, HttpsClient, curl, request
from tests.support.apps import App, pattern, pattern_sha256
from tests.support.program import Program, eventually

# Around the sizes of a TLS record (16,384) and of a read (65,536).
SIZES = pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1_000_000])


def body(size: int) -> bytes:
    return b"".join(pattern(size))


def chunked(data: bytes, piece: int, trailers: bytes = b"") -> bytes:
    """Frame *data* in chunks of *piece* bytes."""
    chunks = [data[start : start + piece] for start in range(0, len(data), piece)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


class TestLength:
    @SIZES
    def test_response_is_whole(self, program: Program, size: int) -> None:
        """A response with Content-Length arrives with it, and the next one follows on the same connection."""
        with HttpsClient(program) as client:
            response = client.get(f"/bytes?n={size}")

            assert response.values("content-length") == [str(size)]
            assert hashlib.sha256(response.body).hexdigest() == pattern_sha256(size)
            assert client.get("/hello").body == b"hello\n"

    @SIZES
    def test_request_is_whole(self, program: Program, size: int) -> None:
        """A request with Content-Length arrives with it, and the next one follows on the same connection."""
        with HttpsClient(program) as client:
            client.send(request("/echo", f"Content-Length: {size}", method="POST", body=body(size)))
            seen = client.response().json()

            assert (seen["bytes"], seen["sha256"]) == (size, pattern_sha256(size))
            assert f"\r\nContent-Length: {size}\r\n" in seen["head"]
            assert client.get("/hello").body == b"hello\n"

    @SIZES
    def test_body_comes_back_as_it_went(self, program: Program, size: int) -> None:
        """A body goes through and comes back byte for byte."""
        data = body(size)
        with HttpsClient(program) as client:
            client.send(request("/mirror", f"Content-Length: {size}", method="PUT", body=data))

            assert client.response().body == data

    def test_request_byte_by_byte(self, program: Program) -> None:
        """A client whose every byte is a record of its own is served like any other."""
        message = request("/mirror", "Content-Length: 6", method="POST", body=b"slowly")
        with HttpsClient(program) as client:
            for byte in message:
                client.send(bytes([byte]))

            assert client.response().body == b"slowly"


class TestChunked:
    @SIZES
    def test_response_is_whole_with_its_trailers(self, program: Program, size: int) -> None:
        """A chunked response arrives chunked, with its trailer fields if asked for, and the connection goes on."""
        with HttpsClient(program) as client:
            assert client.get(f"/chunked?n={size}").trailers == b""
            response = client.get(f"/chunked?n={size}", "TE: trailers")

            assert response.values("transfer-encoding") == ["chunked"]
            assert hashlib.sha256(response.body).hexdigest() == pattern_sha256(size)
            assert response.trailers == b"X-Checksum: %b\r\nX-Second: 2\r\n" % pattern_sha256(size).encode()
            assert client.get("/hello").body == b"hello\n"

    @pytest.mark.parametrize("piece", [1, 1000, 16_384, 70_000])
    def test_request_is_whole_with_its_trailers(self, program: Program, piece: int) -> None:
        """A chunked request arrives chunked, whatever the size of its chunks, with its trailer fields."""
        data = chunked(body(2 * piece + 1), piece, b"X-Checksum: abc\r\n")
        with HttpsClient(program) as client:
            client.send(request("/echo", "Transfer-Encoding: chunked", method="POST", body=data))
            seen = client.response().json()

            assert (seen["bytes"], seen["sha256"]) == (2 * piece + 1, pattern_sha256(2 * piece + 1))
            assert "\r\nTransfer-Encoding: chunked\r\n" in seen["head"]
            assert seen["trailers"] == ["X-Checksum: abc"]
            assert client.get("/hello").body == b"hello\n"

    def test_trailer_cannot_forge_what_we_set(self, program: Program) -> None:
        """Fields that only we may set do not come in through the back door."""
        data = chunked(b"abc", 3, b"X-Forwarded-For: 1.2.3.4\r\nX-Fine: 1\r\nContent-Length: 7\r\n")
        with HttpsClient(program) as client:
            client.send(request("/echo", "Transfer-Encoding: chunked", method="POST", body=data))

            assert client.response().json()["trailers"] == ["X-Fine: 1"]

    def test_curl_uploads_from_a_pipe(self, program: Program, tmp_path: Path) -> None:
        """`curl -T` of a file with chunked coding arrives whole."""
        file = tmp_path / "body"
        file.write_bytes(body(1_000_000))

        done = curl(program, "-H", "Transfer-Encoding: chunked", "-T", str(file), f"{program.url}/sink")

        assert f'"sha256": "{pattern_sha256(1_000_000)}"' in done.stdout


class TestUntilClose:
    @SIZES
    def test_response_is_whole_and_the_connection_goes_on(self, program: Program, size: int) -> None:
        """A response that ends with the app's connection is chunked for the client, who keeps its own."""
        with HttpsClient(program) as client:
            response = client.get(f"/until-close?n={size}")

            assert response.values("transfer-encoding") == ["chunked"]
            assert hashlib.sha256(response.body).hexdigest() == pattern_sha256(size)
            assert client.get("/hello").body == b"hello\n"

    def test_http_1_0_client_reads_until_close(self, program: Program) -> None:
        """A client that knows no chunks gets the bytes, and an orderly end."""
        with HttpsClient(program) as client:
            client.send(b"GET /until-close?n=100000 HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            response = client.response()

        assert response.values("transfer-encoding") == []
        assert response.values("connection") == ["close"]
        assert hashlib.sha256(response.body).hexdigest() == pattern_sha256(100_000)


class TestWithoutBody:
    def test_head_has_the_length_and_nothing_more(self, program: Program) -> None:
        """The answer to HEAD keeps its Content-Length; the next response follows at once."""
        with HttpsClient(program) as client:
            response = client.get("/hello", method="HEAD")

            assert (response.status, response.values("content-length")) == (200, ["6"])
            assert client.get("/hello").body == b"hello\n"

    @pytest.mark.parametrize(
        ("path", "status", "field"),
        [("/no-content", 204, "X-Kept: yes"), ("/not-modified", 304, "Content-Length: 1000")],
    )
    def test_status_without_body_does_not_wait_for_one(
        self, program: Program, path: str, status: int, field: str
    ) -> None:
        """204 and 304 end with their head, which passes unchanged."""
        with HttpsClient(program) as client:
            response = client.get(path)

            assert response.status == status
            assert field in response.lines
            assert response.values("transfer-encoding") == []
            assert client.get("/hello").body == b"hello\n"

    def test_get_and_head_of_one_path_do_not_mix(self, program: Program) -> None:
        """Whether there is a body depends on the request, also when the heads of the responses are the same."""
        with HttpsClient(program) as client:
            for _ in range(3):
                assert client.get("/hello", method="HEAD").body == b""
                assert client.get("/hello").body == b"hello\n"


class TestContinue:
    def test_curl_waits_for_100_and_gets_it_from_the_app(self, program: Program, tmp_path: Path) -> None:
        """The app's 100 reaches a client that asked for it, before it sends its body."""
        file = tmp_path / "body"
        file.write_bytes(body(100_000))

        done = curl(
            program, "--http1.1", "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--max-time", "10",
            "--data-binary", f"@{file}", f"{program.url}/echo",
        )  # fmt: skip

        assert done.returncode == 0
        assert "< HTTP/1.1 100 Continue" in done.stderr
        assert '"bytes": 100000' in done.stdout

    def test_refusal_before_the_body_reaches_the_client(self, program: Program) -> None:
        """An app that answers instead of 100 spares the client the body."""
        with HttpsClient(program) as client:
            client.send(request("/too-large", "Expect: 100-continue", "Content-Length: 1000000", method="POST"))
            response = client.response()

        assert (response.status, response.body) == (413, b"too large\n")

    def test_early_answer_reaches_a_client_that_is_sending(self, program: Program) -> None:
        """An app that answers in the middle of a large body is heard, not cut off by a reset."""
        with HttpsClient(program) as client:
            client.send(request("/too-large", "Content-Length: 10000000", method="POST", body=bytes(300_000)))
            response = client.response()

            assert (response.status, response.body) == (413, b"too large\n")

    def test_other_interim_responses_pass(self, program: Program) -> None:
        """103 reaches the client before the final response."""
        with HttpsClient(program) as client:
            client.send(request("/hints"))
            hints = client.response(interim=True)

            assert (hints.status, hints.values("link")) == (103, ["</style.css>; rel=preload"])
            assert client.response().body == b"hinted\n"

    def test_http_1_0_client_gets_no_interim_response(self, program: Program) -> None:
        """A client that does not know them is spared them (RFC 9110 section 15.2)."""
        with HttpsClient(program) as client:
            client.send(b"GET /hints HTTP/1.0\r\nHost: localhost\r\n\r\n")

            assert client.response(interim=True).status == 200


class TestOrder:
    def test_pipelined_requests_are_answered_in_order(self, program: Program) -> None:
        """Twenty requests in one piece get twenty answers, in the order of the requests."""
        targets = [f"/echo?number={number}" for number in range(20)]
        with HttpsClient(program) as client:
            client.send(b"".join(request(target) for target in targets))
            seen = [client.response().json()["head"].split(" ")[1] for _ in targets]

            assert seen == targets
            assert client.get("/hello").body == b"hello\n"

    def test_pipelined_bodies_are_answered_in_order(self, program: Program) -> None:
        """Requests with bodies that follow each other without a pause keep their own bodies."""
        sizes = [0, 1, 20_000, 70_000, 5, 16_384] * 3
        messages = [request("/echo", f"Content-Length: {size}", method="POST", body=body(size)) for size in sizes]
        with HttpsClient(program) as client:
            client.send(b"".join(messages))
            seen = [client.response().json()["sha256"] for _ in sizes]

        assert seen == [pattern_sha256(size) for size in sizes]

    def test_responses_of_many_clients_do_not_mix(self, program: Program, app: App) -> None:
        """Each of ten interleaved clients gets its own answers."""
        clients = [HttpsClient(program) for _ in range(10)]
        try:
            for turn in range(5):
                for number, client in enumerate(clients):
                    client.send(request(f"/echo?client={number}&turn={turn}"))
                for number, client in enumerate(clients):
                    head = client.response().json()["head"]
                    assert head.startswith(f"GET /echo?client={number}&turn={turn} HTTP/1.1\r\n")
        finally:
            for client in clients:
                client.socket.close()


class TestHalfClose:
    def test_client_that_has_said_all_gets_its_answer(self, program: Program) -> None:
        """A client may end its side after its request: it still reads the answer, which is the last one."""
        with HalfClosingClient(program) as client:
            client.end(request("/chunked?n=100000", "TE: trailers"))
            answer = client.read_until(b"0\r\nX-Checksum: ")

        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer.partition(b"\r\n\r\n")[0] + b"\r\n"

    def test_client_that_ends_later_gets_the_whole_answer(self, program: Program) -> None:
        """The same holds when the end comes while the answer is under way."""
        for _ in range(20):
            with HalfClosingClient(program) as client:
                client.send(request("/chunked?n=300000", "TE: trailers"))
                client.end()
                answer = client.read_until(b"0\r\nX-Checksum: ")

            assert len(answer) > 300_000

    def test_body_that_ends_too_early_is_no_request(self, program: Program, app: App) -> None:
        """A client that ends its side inside its body has not made a request: the app must not take it for one."""
        with HalfClosingClient(program) as client:
            client.send(request("/sink/half", "Content-Length: 1000", method="POST", body=b"half"))
            eventually(lambda: app.requests[-1].path == "/sink/half", "the app has the head")
            client.end()

            assert program.logged("/sink/half")["status"] == 0


class TestOldClients:
    def test_curl_http_1_0_closes_after_one(self, program: Program) -> None:
        """`curl -0` gets its answer, the length of it, and the end of the connection."""
        url = f"{program.url}/hello"
        done = curl(program, "-v", "-0", "-w", "%{num_connects}\n", url, url)

        assert done.stdout == "hello\n1\nhello\n1\n"
        assert "< Connection: close" in done.stderr

    def test_curl_http_1_0_with_keep_alive_goes_on(self, program: Program) -> None:
        """A 1.0 client that asks to keep the connection keeps it."""
        url = f"{program.url}/hello"
        done = curl(program, "-v", "-0", "-H", "Connection: keep-alive", "-w", "%{num_connects}\n", url, url)

        assert done.stdout == "hello\n1\nhello\n0\n"
        assert "< Connection: keep-alive" in done.stderr

    def test_chunked_response_is_unwrapped(self, program: Program) -> None:
        """A 1.0 client gets the bytes of a chunked response without the chunks."""
        done = curl(program, "-0", "-w", "%{size_download}", "-o", "/dev/null", f"{program.url}/chunked?n=100000")

        assert done.stdout == "100000"
