"""
Ensures that people's own HTTP/2 clients are served: curl, nghttp and h2load in front of an app that speaks HTTP/1.1
only, and curl in front of one that speaks nothing but HTTP/2.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.clients import HttpsClient, curl, openssl, plain_socket, root_file
from tests.scenarios.conftest import Launch
from tests.support.apps import App, pattern, pattern_sha256
from tests.support.certs import authority
from tests.support.grpcapp import GrpcApp, path
from tests.support.program import Neighbour, Port, Program, installed

DEADLINE_SECONDS = 60.0

LARGE = 20_000_000

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client that knows of HTTP/2 beforehand begins with: the preface, and empty SETTINGS (RFC 9113 section 3.4)."""


def run(*command: str) -> str:
    """Run a client of HTTP/2, which must end well; return what it prints."""
    installed(command[0])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curl2(program: Program, *arguments: str) -> str:
    """Run `curl --http2`, which must end well; return what it prints."""
    done = curl(program, "--http2", *arguments, deadline_seconds=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def head_of(program: Program, target: str, *arguments: str) -> list[str]:
    """The lines that curl shows of the heads and the trailers of an answer, whose body is dropped."""
    return curl2(program, "-D", "-", "-o", "/dev/null", *arguments, program.url + target).splitlines()


def echo(program: Program, *arguments: str, target: str = "/echo") -> dict[str, Any]:
    """What the app saw of a request of curl's."""
    return json.loads(curl2(program, *arguments, program.url + target))


def lines_of(seen: dict[str, Any], name: str) -> list[str]:
    """The lines of the field *name* in what `echo` gives."""
    return [line for line in seen["head"].split("\r\n")[1:] if line.lower().startswith(f"{name.lower()}:")]


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `LARGE` bytes."""
    file = tmp_path_factory.mktemp("large") / "file"
    file.write_bytes(b"".join(pattern(LARGE)))
    return file


class TestCurl:
    def test_get(self, program: Program) -> None:
        """`curl --http2` speaks HTTP/2, and so says the access log."""
        printed = curl2(program, "-w", "%{http_version} %{response_code}", f"{program.url}/hello/curl")

        assert printed == "hello\n2 200"
        line = program.logged("/hello/curl")
        assert (line["method"], line["status"], line["protocol"]) == ("GET", 200, "HTTP/2")

    def test_curl_chooses_http_2_by_itself(self, program: Program) -> None:
        """Nobody need ask for it."""
        done = curl(program, "-o", "/dev/null", "-w", "%{http_version}", f"{program.url}/hello")

        assert done.stdout == "2"

    def test_http_1_1_is_served_on_the_same_port(self, program: Program) -> None:
        """Who wants HTTP/1.1 gets it."""
        done = curl(program, "--http1.1", "-w", "%{http_version}", f"{program.url}/hello/old")

        assert done.stdout == "hello\n1.1"
        assert program.logged("/hello/old")["protocol"] == "HTTP/1.1"

    @pytest.mark.parametrize("target", ["/bytes", "/chunked", "/until-close"])
    @pytest.mark.parametrize("size", [0, 1, 16_384, 65_535, 65_536, LARGE])
    def test_download_is_whole(self, program: Program, tmp_path: Path, target: str, size: int) -> None:
        """However the app frames its answer, and whatever its size: it arrives, and the client sees its end."""
        file = tmp_path / "body"
        curl2(program, "-o", str(file), f"{program.url}{target}?n={size}")

        data = file.read_bytes() if size else b""  # curl makes no file for an empty body
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, pattern_sha256(size))

    def test_upload_is_whole(self, program: Program, large_file: Path) -> None:
        """A large file arrives with its length."""
        seen = echo(program, "--data-binary", f"@{large_file}")

        assert (seen["bytes"], seen["sha256"]) == (LARGE, pattern_sha256(LARGE))
        assert lines_of(seen, "content-length") == [f"content-length: {LARGE}"]

    def test_upload_without_a_length_is_whole(self, program: Program, large_file: Path) -> None:
        """Where the client does not say how much will come, the app gets chunks."""
        seen = echo(program, "-X", "POST", "-H", "Content-Length:", "-T", str(large_file))

        assert (seen["bytes"], seen["sha256"]) == (LARGE, pattern_sha256(LARGE))
        assert [line.lower() for line in lines_of(seen, "transfer-encoding")] == ["transfer-encoding: chunked"]
        assert lines_of(seen, "content-length") == []

    def test_upload_and_download_at_once(self, program: Program, large_file: Path, tmp_path: Path) -> None:
        """A body comes back as it went."""
        file = tmp_path / "body"
        curl2(program, "--data-binary", f"@{large_file}", "-o", str(file), f"{program.url}/mirror")

        assert file.read_bytes() == large_file.read_bytes()

    def test_head(self, program: Program) -> None:
        """HEAD gets the length of what it would have got, and nothing of it."""
        printed = curl2(program, "--head", "-w", "%{size_download}", f"{program.url}/hello")

        assert printed.startswith("HTTP/2 200 ")
        assert "\ncontent-length: 6\n" in printed
        assert printed.endswith("\n0")

    def test_no_content(self, program: Program) -> None:
        """204 has fields, and ends with them."""
        lines = head_of(program, "/no-content")

        assert lines[0].rstrip() == "HTTP/2 204"
        assert "x-kept: yes" in lines

    def test_not_modified_keeps_the_length(self, program: Program) -> None:
        """The length in a 304 is that of the body that does not come (RFC 9110 section 8.6)."""
        lines = head_of(program, "/not-modified")

        assert lines[0].rstrip() == "HTTP/2 304"
        assert "content-length: 1000" in lines

    def test_trailers(self, program: Program) -> None:
        """What the app sends after a chunked body comes as trailers."""
        lines = head_of(program, "/chunked?n=1000", "-H", "TE: trailers")

        end = lines.index("", 1)
        assert f"x-checksum: {pattern_sha256(1000)}" in lines[end:]
        assert "x-second: 2" in lines[end:]

    def test_early_hints(self, program: Program) -> None:
        """103 comes before the answer."""
        lines = head_of(program, "/hints")

        assert [line.rstrip() for line in lines if line.startswith("HTTP/")] == ["HTTP/2 103", "HTTP/2 200"]
        assert "link: </style.css>; rel=preload" in lines

    def test_fields_for_one_hop_stay_there(self, program: Program) -> None:
        """Connection and all that goes with it has no place in HTTP/2; clients end the stream over it."""
        lines = head_of(program, "/hop-by-hop")

        assert "x-public: 2" in lines
        names = {line.partition(":")[0] for line in lines}
        assert names.isdisjoint({"connection", "keep-alive", "x-private", "transfer-encoding"})

    def test_requests_share_a_connection(self, program: Program) -> None:
        """Fifty requests at once are fifty streams."""
        urls = [f"{program.url}/bytes/{number}?n=1000" for number in range(50)]
        outputs = [word for url in urls for word in ("-o", "/dev/null", url)]
        printed = curl2(
            program, "--parallel", "--parallel-max", "50", "-w", "%{num_connects} %{response_code}\n", *outputs
        )

        told = [line.split() for line in printed.splitlines()]
        assert [status for _, status in told] == ["200"] * 50
        assert sum(int(count) for count, _ in told) == 1

    def test_app_that_went_away_is_502(self, launch: Launch) -> None:
        """Our own answers are HTTP/2 as well."""
        with App() as app:
            program = launch(upstream=app.upstream)
            curl2(program, f"{program.url}/hello")
        printed = curl2(program, "-w", "%{http_version} %{response_code}", f"{program.url}/away")

        assert printed == "The app behind this proxy does not accept connections.\n2 502"
        assert program.logged("/away")["protocol"] == "HTTP/2"

    def test_answer_that_breaks_off_is_no_whole_one(self, program: Program) -> None:
        """Half an answer ends in an error of the stream; the next request on the connection is answered."""
        bad, good = f"{program.url}/close-inside", f"{program.url}/hello"
        done = curl(program, "--http2", "-o", "/dev/null", "-w", "%{exitcode} ", bad, good)

        assert done.stdout.split()[0] == "92"  # CURLE_HTTP2_STREAM


class TestWhatTheAppSees:
    def test_request_is_http_1_1(self, program: Program) -> None:
        """The head is in the form that the app knows, and nothing of HTTP/2 is left in it."""
        seen = echo(program, "-H", "X-Mixed: A", target="/echo/a%20b?c=d%3F")

        first, *rest = seen["head"].rstrip("\r\n").split("\r\n")
        assert first == "GET /echo/a%20b?c=d%3F HTTP/1.1"
        assert lines_of(seen, "host")[0].partition(": ")[2] == f"localhost:{program.port}"
        assert [line.lower() for line in lines_of(seen, "x-mixed")] == ["x-mixed: a"]
        assert not [line for line in rest if line.startswith(":")]
        for name in ("host", "content-length", "transfer-encoding", "connection", "upgrade", "http2-settings"):
            assert len(lines_of(seen, name)) == (name == "host")

    def test_request_says_where_it_came_from(self, program: Program) -> None:
        """X-Forwarded-* are as for HTTP/1.1, and a client's own count for nothing."""
        seen = echo(program, "-H", "X-Forwarded-For: 1.2.3.4", "-H", "X-Forwarded-Proto: http")

        told = [lines_of(seen, f"x-forwarded-{what}") for what in ("for", "proto", "port", "host")]
        assert [[line.partition(": ")[2] for line in lines] for lines in told] == [
            ["127.0.0.1"],
            ["https"],
            [str(program.port)],
            [f"localhost:{program.port}"],
        ]

    def test_cookies_are_one_line(self, program: Program) -> None:
        """HTTP/2 splits Cookie for its compression (RFC 9113 section 8.2.3); apps know one line only."""
        seen = echo(program, "-H", "Cookie: a=1", "-H", "Cookie: b=2", "-H", "Cookie: c=3")

        assert [line.partition(": ")[2] for line in lines_of(seen, "cookie")] == ["a=1; b=2; c=3"]

    def test_authority_that_the_client_chooses_is_the_host(self, program: Program) -> None:
        """`:authority` becomes Host."""
        seen = echo(program, "-H", "Host: shop.example")

        assert [line.partition(": ")[2] for line in lines_of(seen, "host")] == ["shop.example"]

    def test_streams_take_turns_on_pooled_connections(self, launch: Launch, own_app: App) -> None:
        """Requests one after the other need one connection to the app."""
        program = launch(upstream=own_app.upstream)
        urls = [word for number in range(20) for word in ("-o", "/dev/null", f"{program.url}/hello/{number}")]
        curl2(program, *urls)

        assert len(own_app.requests) == 20
        assert own_app.connection_count == 1


class TestLoad:
    def test_h2load(self, launch: Launch, own_app: App) -> None:
        """Two thousand requests, a hundred at a time, are answered over no more connections to the app than that."""
        program = launch(upstream=own_app.upstream)
        printed = run("h2load", "-n", "2000", "-c", "10", "-m", "10", f"{program.url}/hello")

        assert "Application protocol: h2" in printed
        assert "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout" in printed
        assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in printed
        assert own_app.connection_count <= 100

    def test_h2load_with_large_bodies(self, program: Program) -> None:
        """Streams of a connection share its window, and all of them come to their end."""
        printed = run("h2load", "-n", "100", "-c", "4", "-m", "10", f"{program.url}/bytes?n=1000000")

        assert "100 succeeded, 0 failed" in printed
        data = re.search(r"\((\d+)\) data$", printed, re.MULTILINE)
        assert data is not None
        assert int(data[1]) == 100_000_000

    def test_h2load_uploads(self, program: Program, tmp_path: Path) -> None:
        """The same in the other direction."""
        file = tmp_path / "upload"
        file.write_bytes(b"".join(pattern(1_000_000)))
        printed = run("h2load", "-n", "50", "-c", "2", "-m", "5", "-d", str(file), f"{program.url}/sink")

        assert "status codes: 50 2xx, 0 3xx, 0 4xx, 0 5xx" in printed

    def test_nghttp_gets_a_page_with_what_belongs_to_it(self, program: Program) -> None:
        """nghttp, which shows its frames, is offered what README says: 100 streams, and WebSocket."""
        printed = run("nghttp", "-v", "-n", *[f"{program.url}/bytes/{n}?n=70000" for n in range(5)])

        assert printed.count(":status: 200") == 5
        assert "[SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100]" in printed
        assert re.search(r"\[(SETTINGS_ENABLE_CONNECT_PROTOCOL|UNKNOWN)\(0x08\):1\]", printed)
        assert "GOAWAY" not in printed.partition("send GOAWAY")[0]


VERSIONS = pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])


class TestNegotiation:
    @VERSIONS
    @pytest.mark.parametrize(
        ("offered", "agreed"),
        [
            ("h2", "h2"),
            ("h2,http/1.1", "h2"),
            ("http/1.1,h2", "h2"),
            ("http/1.1", "http/1.1"),
            ("spdy/3,http/1.1", "http/1.1"),
        ],
    )
    def test_best_of_what_is_offered(self, program: Program, version: str, offered: str, agreed: str) -> None:
        """HTTP/2 where the client knows it, whatever it prefers."""
        done = negotiate(program, version, "-alpn", offered)

        assert f"ALPN protocol: {agreed}" in done.stdout

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_client_without_alpn_gets_http_1_1(self, program: Program, version: ssl.TLSVersion) -> None:
        """Who offers nothing is not spoken HTTP/2 to."""
        context = ssl.create_default_context(cadata=authority().cert_pem.decode())
        context.minimum_version = context.maximum_version = version
        with HttpsClient(program, context=context) as client:
            assert client.socket.selected_alpn_protocol() is None
            assert client.get("/hello").head.startswith(b"HTTP/1.1 200 ")

    @VERSIONS
    def test_switched_off(self, without: Program, version: str) -> None:
        """With SIDECAR_HTTP2=off, HTTP/1.1 is all there is."""
        done = negotiate(without, version, "-alpn", "h2,http/1.1")

        assert "ALPN protocol: http/1.1" in done.stdout

    @VERSIONS
    def test_switched_off_for_a_client_that_wants_nothing_else(self, without: Program, version: str) -> None:
        """It is told in the handshake (RFC 7301 section 3.2)."""
        done = negotiate(without, version, "-alpn", "h2")

        assert done.returncode != 0
        assert "alert no application protocol" in done.stderr

    def test_log_says_what_is_spoken(self, program: Program, without: Program) -> None:
        """In the line with which serving begins."""
        assert "serving https (HTTP/2, HTTP/1.1) on " in program.stderr
        assert "serving https (HTTP/1.1) on " in without.stderr

    def test_switched_off_curl_falls_back(self, without: Program) -> None:
        """`curl --http2` makes do."""
        assert curl2(without, "-w", "%{http_version}", f"{without.url}/hello") == "hello\n1.1"

    @pytest.mark.parametrize("version", ["--tls-max 1.2", "--tlsv1.3"])
    def test_curl_speaks_it_with_either_version_of_tls(self, program: Program, version: str) -> None:
        """TLS 1.2 does as well, with suites that RFC 9113 section 9.2.2 allows."""
        assert curl2(program, *version.split(), "-w", "%{http_version}", f"{program.url}/hello") == "hello\n2"


@pytest.fixture(scope="module")
def without(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar with HTTP/2 switched off."""
    with Program(tmp_path_factory.mktemp("without"), upstream=app.upstream, http2="off") as running:
        yield running


def negotiate(program: Program, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Shake hands by openssl s_client, and leave."""
    address = f"{program.host}:{program.port}"
    return openssl("s_client", "-connect", address, "-CAfile", str(root_file(program)), *arguments)


class TestCleartext:
    def test_prior_knowledge_on_the_tls_port(self, program: Program) -> None:
        """Who speaks HTTP/2 without TLS gets no HTTP/2: the answer to plain HTTP, or nothing."""
        with plain_socket(program) as sock:
            sock.sendall(PREFACE)
            reply = b"".join(iter(lambda: sock.recv(65_536), b""))

        assert reply == b"" or reply.startswith(b"HTTP/1.1 ")

    def test_curl_with_prior_knowledge_fails(self, program: Program) -> None:
        """The same by curl, and the app learns nothing of it."""
        done = curl(program, "--http2-prior-knowledge", f"http://localhost:{program.port}/hello/plain")

        assert done.returncode != 0

    def test_upgrade_to_h2c_is_not_passed_on(self, program: Program, app: App) -> None:
        """An app that took the offer would speak HTTP/2 past the proxy (RFC 9113 section 3.1 withdrew it)."""
        with HttpsClient(program) as client:
            offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
            response = client.get("/echo/h2c", *offer)

        assert response.status == 200
        seen = app.last("/echo/h2c")
        assert (seen.values("upgrade"), seen.values("http2-settings")) == ([], [])

    def test_preface_inside_tls_that_agreed_on_http_1_1(self, program: Program) -> None:
        """ALPN decides; a preface where HTTP/1.1 was agreed on is a bad request."""
        with HttpsClient(program) as client:
            client.send(PREFACE)
            response = client.response()

        assert response.status in (400, 405, 501, 505)


class TestAppThatSpeaksHttp2:
    @pytest.fixture
    def program(self, launch: Launch, tmp_path: Path) -> Iterator[Program]:
        """A sidecar in front of nghttpd, which serves a file, and echoes what is sent."""
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "file").write_bytes(b"".join(pattern(LARGE)))
        command = ("nghttpd", "--no-tls", "--echo-upload", "-a", "127.0.0.1", "-d", str(tmp_path / "root"))
        with Port() as port, Neighbour(tmp_path, port, *command, str(port.number)):
            yield launch(upstream=f"h2c://{port}")

    @pytest.mark.parametrize("version", ["--http1.1", "--http2"])
    def test_download(self, program: Program, tmp_path: Path, version: str) -> None:
        """It makes no difference to clients what the app speaks."""
        file = tmp_path / "file"
        done = curl(program, version, "-o", str(file), "-w", "%{http_version} %{response_code}", f"{program.url}/file")

        assert done.stdout == f"{version.removeprefix('--http').removesuffix('.0')} 200"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == pattern_sha256(LARGE)

    @pytest.mark.parametrize("version", ["--http1.1", "--http2"])
    @pytest.mark.parametrize("framing", ["length", "none"])
    def test_upload(self, program: Program, large_file: Path, tmp_path: Path, version: str, framing: str) -> None:
        """Bodies pass with a length and without one, there and back."""
        file = tmp_path / "echo"
        unframed = ("-H", "Content-Length:", "-H", "Transfer-Encoding: chunked")
        fields = unframed if (framing, version) == ("none", "--http1.1") else ()
        curl(program, version, "-X", "POST", *fields, "-T", str(large_file), "-o", str(file), f"{program.url}/")

        assert file.read_bytes() == large_file.read_bytes()

    def test_keep_alive_of_an_old_client_goes_on(self, program: Program) -> None:
        """An HTTP/1.1 connection survives its requests, though each is a stream behind."""
        with HttpsClient(program) as client:
            first, head, missing = client.get("/file"), client.get("/file", method="HEAD"), client.get("/missing")

        assert [response.status for response in (first, head, missing)] == [200, 200, 404]
        assert (len(first.body), head.values("content-length")) == (LARGE, [str(LARGE)])


class TestGrpcAppWithAnOldClient:
    def test_call_over_http_1_1(self, launch: Launch, tmp_path: Path) -> None:
        """What the h2c app says in trailers comes as trailers of a chunked answer."""
        message = tmp_path / "message"
        message.write_bytes(b"\0\0\0\0\5hello")
        with GrpcApp(tmp_path / "app") as app:
            program = launch(upstream=app.upstream)
            done = curl(
                program,
                *("--http1.1", "-D", "-", "--data-binary", f"@{message}"),
                *("-H", "Content-Type: application/grpc", "-H", "TE: trailers"),
                program.url + path("Echo"),
            )

        assert done.stdout.startswith("HTTP/1.1 200 ")
        assert "\0\0\0\0\5hello" in done.stdout
        assert "grpc-status: 0" in done.stdout.lower()
