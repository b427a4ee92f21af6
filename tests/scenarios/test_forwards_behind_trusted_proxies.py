"""
Ensures that a proxy in front is believed where the operator trusts it, and nobody else anywhere: in what the app is
told of the client and of the request, and in the log.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scenarios.clients import client_context, request
from tests.support.apps import App
from tests.support.program import WAIT_SECONDS, Program

PROXY = "127.0.0.9"
CLIENT = "127.0.0.2"
TRUSTED = f"{PROXY}/32,10.0.0.0/8,2001:db8::/32"

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"trusted_proxies": TRUSTED, "proxy_protocol": "trusted"}


@pytest.fixture(scope="module")
def with_forwarded(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar that tells the app Forwarded too."""
    directory: Path = tmp_path_factory.mktemp("forwarded")
    with Program(directory, upstream=app.upstream, trusted_proxies=TRUSTED, forwarded="on") as program:
        yield program


_numbers = itertools.count()


@attrs.frozen
class Seen:
    """What the app saw of a request, and what the log says of it."""

    fields: dict[str, list[str]]
    line: dict[str, Any]


def ask(program: Program, source: str, *lines: str, header: bytes = b"") -> Seen:
    """Send a request from the address *source*, on a connection that begins with *header*."""
    path = f"/echo/{next(_numbers)}"
    with socket.create_connection((program.host, program.port), WAIT_SECONDS, (source, 0)) as raw:
        raw.sendall(header)
        with client_context().wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(request(path, *lines, "Connection: close", host="app.example"))
            answer = b"".join(iter(lambda: tls.recv(65_536), b""))
    fields: dict[str, list[str]] = {}
    for line in json.loads(answer.partition(b"\r\n\r\n")[2])["head"].split("\r\n")[1:-2]:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return Seen(fields, program.logged(path))


@attrs.frozen
class Case:
    """
    What is said of a request, and what the app is told if it is believed, and if it is not.

    Attributes:
        client: What the log says, if it is believed.
    """

    said: tuple[str, ...]
    name: str
    believed: str
    replaced: str
    client: str = PROXY


CASES = {
    "nothing": Case((), "x-forwarded-for", PROXY, CLIENT),
    "client": Case(("X-Forwarded-For: 192.0.2.1",), "x-forwarded-for", f"192.0.2.1, {PROXY}", CLIENT, "192.0.2.1"),
    "client of several lines": Case(
        ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.1.1.1"),
        "x-forwarded-for",
        f"192.0.2.1, 10.1.1.1, {PROXY}",
        CLIENT,
        "192.0.2.1",
    ),
    "client that says it comes from another": Case(
        ("X-Forwarded-For: 127.0.0.1, 192.0.2.1, 10.1.1.1",),
        "x-forwarded-for",
        f"127.0.0.1, 192.0.2.1, 10.1.1.1, {PROXY}",
        CLIENT,
        "192.0.2.1",
    ),
    "client over IPv6": Case(
        ("X-Forwarded-For: 2001:db9::1, 2001:db8::2",),
        "x-forwarded-for",
        f"2001:db9::1, 2001:db8::2, {PROXY}",
        CLIENT,
        "2001:db9::1",
    ),
    "scheme": Case(("X-Forwarded-Proto: http",), "x-forwarded-proto", "http", "https"),
    "scheme that is none": Case(("X-Forwarded-Proto: gopher",), "x-forwarded-proto", "https", "https"),
    "two schemes": Case(("X-Forwarded-Proto: http", "X-Forwarded-Proto: https"), "x-forwarded-proto", "https", "https"),
    "host": Case(("X-Forwarded-Host: shop.example:8443",), "x-forwarded-host", "shop.example:8443", "app.example"),
    "host that is none": Case(("X-Forwarded-Host: a/b",), "x-forwarded-host", "app.example", "app.example"),
    "port": Case(("X-Forwarded-Port: 8443",), "x-forwarded-port", "8443", "ours"),
    "port that is none": Case(("X-Forwarded-Port: 8443x",), "x-forwarded-port", "ours", "ours"),
}


class TestForwardedFor:
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
    def test_trusted_proxy_is_believed(self, program: Program, case: Case) -> None:
        """As far as what it says is well-formed; it is added itself, and the log names the client and it."""
        seen = ask(program, PROXY, *case.said)
        via = {} if case.client == PROXY else {"via": PROXY}

        assert seen.fields[case.name] == [case.believed.replace("ours", str(program.port))]
        assert {name: seen.line[name] for name in ("client", "via") if name in seen.line} == {
            "client": case.client,
            **via,
        }

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
    def test_nobody_else_is(self, program: Program, case: Case) -> None:
        """Whatever a client says of itself is replaced by what is seen of it."""
        seen = ask(program, CLIENT, *case.said)

        assert seen.fields[case.name] == [case.replaced.replace("ours", str(program.port))]
        assert (seen.line["client"], "via" in seen.line) == (CLIENT, False)

    def test_client_cannot_hide_behind_a_long_list(self, program: Program) -> None:
        """Of many addresses the log names one that a trusted proxy has written."""
        seen = ask(program, PROXY, "X-Forwarded-For: " + ", ".join(["127.0.0.1"] * 500 + ["192.0.2.1"]))

        assert seen.line["client"] == "192.0.2.1"

    def test_one_connection_carries_requests_of_many_clients(self, program: Program, app: App) -> None:
        """As that of a balancer does: each request has its own."""
        clients = [f"192.0.2.{number}" for number in range(1, 21)]
        with (
            socket.create_connection((program.host, program.port), WAIT_SECONDS, (PROXY, 0)) as raw,
            client_context().wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            for client in clients:
                tls.sendall(request(f"/hello/of/{client}", f"X-Forwarded-For: {client}"))
                assert tls.recv(65_536).startswith(b"HTTP/1.1 200 ")

        told = [app.last(f"/hello/of/{client}").values("x-forwarded-for") for client in clients]
        assert told == [[f"{client}, {PROXY}"] for client in clients]
        assert [program.logged(f"/hello/of/{client}")["client"] for client in clients] == clients


class TestForwarded:
    def test_own_element_is_added_to_what_a_trusted_proxy_says(self, with_forwarded: Program) -> None:
        """RFC 7239: one list, the nearest last."""
        seen = ask(with_forwarded, PROXY, 'Forwarded: for="[2001:db9::1]:4711";proto=http')

        assert seen.fields["forwarded"] == [
            f'for="[2001:db9::1]:4711";proto=http, by=127.0.0.1;for={PROXY};host=app.example;proto=https'
        ]

    @pytest.mark.parametrize("said", ["for=192.0.2.1", 'for="192.0.2.1', "for=192.0.2.1,,"])
    def test_others_are_replaced(self, with_forwarded: Program, said: str) -> None:
        """Well-formed or not."""
        seen = ask(with_forwarded, CLIENT, f"Forwarded: {said}")

        assert seen.fields["forwarded"] == [f"by=127.0.0.1;for={CLIENT};host=app.example;proto=https"]

    def test_one_that_would_swallow_ours_is_replaced(self, with_forwarded: Program) -> None:
        """Also that of a trusted proxy: an open quote would hide our element."""
        seen = ask(with_forwarded, PROXY, 'Forwarded: for="192.0.2.1')

        assert seen.fields["forwarded"] == [f"by=127.0.0.1;for={PROXY};host=app.example;proto=https"]

    def test_apps_are_told_of_it_only_if_asked_for(self, program: Program) -> None:
        """Without SIDECAR_FORWARDED an app gets none from clients, and ours only behind a proxy's that is believed."""
        assert "forwarded" not in ask(program, CLIENT, "Forwarded: for=192.0.2.1").fields
        assert "forwarded" not in ask(program, PROXY).fields


class TestNames:
    def test_request_id_of_a_trusted_proxy_is_kept(self, program: Program) -> None:
        """App and log call the request what the proxy calls it."""
        seen = ask(program, PROXY, "X-Request-Id: edge-42/a")

        assert (seen.fields["x-request-id"], seen.line["request_id"]) == (["edge-42/a"], "edge-42/a")

    @pytest.mark.parametrize(
        ("source", "said"),
        [(CLIENT, ("edge-42",)), (PROXY, ('a"b',)), (PROXY, ("a" * 129,)), (PROXY, ("one", "two"))],
        ids=["of a client", "with a quote", "too long", "two"],
    )
    def test_any_other_is_replaced(self, program: Program, source: str, said: tuple[str, ...]) -> None:
        """By one of ours."""
        seen = ask(program, source, *(f"X-Request-Id: {each}" for each in said))
        [name] = seen.fields["x-request-id"]

        assert (len(name), seen.line["request_id"]) == (32, name)

    def test_trace_of_a_trusted_proxy_goes_on(self, program: Program) -> None:
        """With its state, and the log names it."""
        seen = ask(program, PROXY, TRACEPARENT, "tracestate: a=1")

        assert seen.fields["traceparent"] == [TRACEPARENT.partition(": ")[2]]
        assert seen.fields["tracestate"] == ["a=1"]
        assert seen.line["trace_id"] == TRACE

    @pytest.mark.parametrize(
        ("source", "said"), [(CLIENT, TRACEPARENT), (PROXY, TRACEPARENT.replace("-00f0", "-00F0"))]
    )
    def test_any_other_is_replaced_by_a_new_one(self, program: Program, source: str, said: str) -> None:
        """Its state, which nobody could read then, is dropped."""
        seen = ask(program, source, said, "tracestate: a=1")
        [trace] = seen.fields["traceparent"]

        assert TRACE not in trace
        assert trace.split("-")[1] == seen.line["trace_id"] == seen.fields["x-request-id"][0]
        assert "tracestate" not in seen.fields


class TestBehindBoth:
    def test_client_that_a_balancer_names_is_not_believed(self, program: Program) -> None:
        """A TCP balancer is trusted to say who connects; what that one says is another matter."""
        header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n"
        seen = ask(program, PROXY, "X-Forwarded-For: 10.9.9.9", "X-Request-Id: mine", header=header)

        assert seen.fields["x-forwarded-for"] == ["192.0.2.7"]
        assert seen.fields["x-forwarded-port"] == ["443"]
        assert seen.fields["x-request-id"] != ["mine"]
        assert (seen.line["client"], seen.line["via"]) == ("192.0.2.7", PROXY)

    def test_proxy_that_a_balancer_names_is_believed(self, program: Program) -> None:
        """Of two trusted ones in a row, the one in front knows the client."""
        header = b"PROXY TCP4 10.0.0.7 127.0.0.1 4711 443\r\n"
        seen = ask(program, PROXY, "X-Forwarded-For: 192.0.2.1", header=header)

        assert seen.fields["x-forwarded-for"] == ["192.0.2.1, 10.0.0.7"]
        assert (seen.line["client"], seen.line["via"]) == ("192.0.2.1", PROXY)
