"""Ensures that the app sees what the client sent, byte for byte, but for the fields that a proxy answers for."""

from __future__ import annotations

import re

import pytest

from tests.scenarios.clients import HttpsClient, request
from tests.support.apps import App
from tests.support.program import Program

OURS = re.compile(r"(?i)X-Forwarded-(For|Proto|Port|Host)|X-Request-Id|traceparent")


def lines_at_app(program: Program, *lines: str, target: str = "/echo") -> list[str]:
    """Send a GET with these field *lines*; return those that the app saw."""
    with HttpsClient(program) as client:
        head: str = client.get(target, *lines).json()["head"]
    return head.split("\r\n")[1:-2]


def value(lines: list[str], name: str) -> str:
    """The one value of the field *name*."""
    values = [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}:")]
    assert len(values) == 1, lines
    return values[0]


class TestRequest:
    def test_fields_keep_their_case_order_and_blanks(self, program: Program) -> None:
        """Fields are forwarded as they are: odd case, repeats, order, blanks, bytes outside ASCII."""
        sent = [
            "X-zebra: 1",
            "ACCEPT: text/html;q=0.5",
            "x-Zebra:2",
            "Cookie: a=b; c=d",
            "X-Blank:   around   ",
            "X-Empty:",
            "X-Latin: \xe9\xff",
            "aCCept: */*",
            "Content-Type: application/x-thing",
        ]

        seen = lines_at_app(program, *sent)

        assert [line for line in seen if not OURS.match(line)] == ["Host: localhost", *sent]

    @pytest.mark.parametrize(
        "target", ["/echo?a=%2F%2e%2E&b=c%20d&&=", "/echo?x=/../y//z", "/echo?q=a;b|c^d`e{}", "/echo?\"'<>"]
    )
    def test_target_is_not_normalised(self, program: Program, target: str) -> None:
        """The target arrives as it was sent."""
        with HttpsClient(program) as client:
            head = client.get(target).json()["head"]

        assert head.split("\r\n")[0] == f"GET {target} HTTP/1.1"

    @pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PATCH", "PURGE", "M-SEARCH"])
    def test_methods_pass(self, program: Program, method: str) -> None:
        """A method that we do not know is the app's business."""
        with HttpsClient(program) as client:
            client.send(request("/echo", "Content-Length: 0", method=method))

            assert client.response().json()["head"].startswith(f"{method} /echo HTTP/1.1\r\n")

    def test_absolute_target_becomes_a_path(self, program: Program) -> None:
        """A target with scheme and host arrives as a path, and the host in Host."""
        with HttpsClient(program) as client:
            head = client.get("https://localhost/echo?a=1").json()["head"]

        assert head.startswith("GET /echo?a=1 HTTP/1.1\r\nHost: localhost\r\n")

    def test_hop_by_hop_fields_stay_here(self, program: Program) -> None:
        """Fields for the next hop, and those that Connection names, do not reach the app."""
        seen = lines_at_app(
            program,
            "Connection: keep-alive, X-Private",
            "Keep-Alive: timeout=5",
            "X-Private: 1",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic Zm9v",
            "TE: gzip",
            "X-Public: 2",
        )

        assert [line for line in seen if not OURS.match(line)] == ["Host: localhost", "X-Public: 2"]


class TestForwarding:
    def test_fields_say_who_asked_for_what_and_how(self, program: Program) -> None:
        """The app learns client, scheme, port, host, and a name for the request."""
        seen = lines_at_app(program)

        assert value(seen, "X-Forwarded-For") == "127.0.0.1"
        assert value(seen, "X-Forwarded-Proto") == "https"
        assert value(seen, "X-Forwarded-Port") == str(program.port)
        assert value(seen, "X-Forwarded-Host") == "localhost"
        assert re.fullmatch("[0-9a-f]{32}", value(seen, "X-Request-Id"))

    def test_what_a_client_claims_is_replaced(self, program: Program) -> None:
        """A client cannot say these things itself, however it spells them."""
        forged = [
            "X-Forwarded-For: 10.9.8.7",
            "x-forwarded-for: 10.9.8.7",
            "X-FORWARDED-PROTO: gopher",
            "X_Forwarded_For: 10.9.8.7",
            "X-Forwarded_Host: evil.example",
            "X-Forwarded-Port: 1",
            "X-Forwarded-Host: evil.example",
            "X-Request-Id: forged",
            "Forwarded: for=10.9.8.7",
            "X-Real-IP: 10.9.8.7",
            "X-Forwarded-Client-Cert: Subject=admin",
            "Client-Cert: :Zm9v:",
        ]

        seen = lines_at_app(program, *forged)

        assert not [line for line in seen if re.search("10.9.8.7|evil|gopher|forged|admin|Zm9v", line)]
        assert value(seen, "X-Forwarded-For") == "127.0.0.1"
        assert value(seen, "X-Request-Id") != "forged"

    def test_request_id_names_one_request_in_log_and_app(self, program: Program, app: App) -> None:
        """Each request gets its own id, which stands in the access log too."""
        with HttpsClient(program) as client:
            client.get("/named")
            client.get("/named-too")

        ids = [app.last(path).values("x-request-id")[0] for path in ("/named", "/named-too")]
        assert ids == [program.logged(path)["request_id"] for path in ("/named", "/named-too")]
        assert ids[0] != ids[1]

    def test_repeated_requests_of_one_connection_keep_their_fields(self, program: Program) -> None:
        """A client that sends the same head again gets the same treatment, but for the request id."""
        with HttpsClient(program) as client:
            heads = [client.get("/echo", "X-Forwarded-For: 6.6.6.6").json()["head"] for _ in range(5)]

        ids = {value(head.split("\r\n")[1:-2], "X-Request-Id") for head in heads}
        rest = {re.sub("(X-Request-Id: |traceparent: )[0-9a-f-]+", "", head) for head in heads}
        assert len(ids) == 5
        assert len(rest) == 1
        assert "6.6.6.6" not in heads[0]


class TestResponse:
    def test_hop_by_hop_fields_stay_here(self, program: Program, app: App) -> None:
        """What the app says to us is not passed on."""
        with HttpsClient(program) as client:
            response = client.get("/hop-by-hop")

            assert response.lines == ["X-Public: 2", "Content-Length: 3"]
            assert client.get("/hello").status == 200

    def test_connection_to_the_app_is_reused(self, program: Program) -> None:
        """Requests of different clients, one after another, share a connection to the app."""
        connections = set()
        for _ in range(5):
            with HttpsClient(program) as client:
                connections.add(client.get("/echo").json()["connection"])

        assert len(connections) == 1
