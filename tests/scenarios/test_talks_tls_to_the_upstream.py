"""
Ensures that an upstream with TLS is verified before it gets a request, and told who we are if it asks; and that an app
without TLS reaches another through two sidecars with mutual TLS between them, in all that HTTP can do.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, Response, curl, plain_socket, request
from tests.scenarios.conftest import Launch
from tests.support.apps import App, pattern, pattern_sha256
from tests.support.certs import CLIENT, DAY, NOW, Issued, authority, intermediate, other_authority, self_signed
from tests.support.program import ROOT, Neighbour, Port, Program, eventually

MIB = 1024 * 1024
LARGE_BYTES = 20 * MIB


# -- key material ------------------------------------------------------------------------------------------------


def server_context(directory: Path, issued: Issued, *, demands: bool = False) -> ssl.SSLContext:
    """The context of a server with this certificate; whether it *demands* one of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    directory.mkdir(exist_ok=True)
    issued.write(directory)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    if demands:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority().cert_pem.decode())
    return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our client certificate in ``client``, that of a wrong CA in ``wrong``, and the CA."""
    directory = tmp_path_factory.mktemp("files")
    for name, issuer in (("client", intermediate()), ("wrong", other_authority())):
        (directory / name).mkdir()
        issuer.issue("app-a", purposes=CLIENT).write(directory / name)
    (directory / "ca.crt").write_bytes(authority().cert_pem)
    return directory


# -- one upstream for each thing that can be right or wrong ------------------------------------------------------


@attrs.frozen
class Case:
    """
    An upstream, and what comes of a request to it.

    Attributes:
        issued: Its certificate; None: it speaks plain HTTP.
        host: That it is reached by.
        tls: What the cluster says of it beside our CA.
        why: What the log says; "": it answers.
        demands: Whether it demands our certificate.
        certificate: Common name of ours that it gets to see.
        sni: That it is asked for.
    """

    issued: Issued | None
    host: str = "localhost"
    tls: dict[str, Any] = attrs.field(factory=dict)
    why: str = ""
    demands: bool = False
    certificate: str = ""
    sni: str | None = "localhost"


def cases(files: Path) -> dict[str, Case]:
    client = {"cert": str(files / "client"), "key": str(files / "client" / "tls.key")}
    wrong = {"cert": str(files / "wrong"), "key": str(files / "wrong" / "tls.key")}
    internal = authority().issue("app.internal")
    return {
        "its host name": Case(authority().issue("localhost")),
        "intermediate CA": Case(intermediate().issue("localhost")),
        "its address": Case(authority().issue("web", "127.0.0.1"), host="127.0.0.1", sni=None),
        "name we were told": Case(internal, tls={"names": ["other.internal", "app.internal"]}, sni="other.internal"),
        "URI we were told": Case(
            authority().issue("web", "spiffe://prod/ns/web"), tls={"names": ["spiffe://prod/ns/web"]}
        ),
        "server name we were told": Case(internal, tls={"names": ["app.internal"], "sni": "front"}, sni="front"),
        "not verified": Case(self_signed("whoever"), tls={"verify": "off"}),
        "our certificate": Case(authority().issue("localhost"), tls=client, demands=True, certificate="app-a"),
        "wrong host name": Case(internal, why="app.internal"),
        "wrong address": Case(authority().issue("localhost"), host="127.0.0.1", why="127.0.0.1", sni=None),
        "wrong URI": Case(
            authority().issue("web", "spiffe://prod/ns/web/x"),
            tls={"names": ["spiffe://prod/ns/web"]},
            why="spiffe://prod/ns/web",
        ),
        "wrong CA": Case(other_authority().issue("localhost"), why="does not come from a CA"),
        "self-signed": Case(self_signed("localhost"), why="is self-signed"),
        "expired": Case(
            authority().issue("localhost", not_before=NOW - 9 * DAY, not_after=NOW - DAY), why="has expired"
        ),
        "for clients": Case(authority().issue("localhost", purposes=CLIENT), why="not for servers"),
        "plain HTTP": Case(None, why="the handshake was not done"),
        "our certificate is missing": Case(
            authority().issue("localhost"), demands=True, why="wants a client certificate"
        ),
        "our certificate is wrong": Case(
            authority().issue("localhost"), tls=wrong, demands=True, why="refused our certificate 'CN=app-a'"
        ),
    }


CASES = list(cases(Path()))


@attrs.frozen
class Upstreams:
    """All upstreams behind one sidecar; the first segment behind /hello says which is asked."""

    program: Program
    cases: dict[str, Case]
    apps: dict[str, App]
    asked: dict[str, list[str | None]]


def at(number: int) -> str:
    return f"/hello/{number}"


@pytest.fixture(scope="module")
def upstreams(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    """Start each."""
    directory = tmp_path_factory.mktemp("upstreams")
    found = cases(files)
    apps: dict[str, App] = {}
    asked: dict[str, list[str | None]] = {name: [] for name in found}
    with ExitStack() as stack:
        clusters, routes = [], []
        for number, (name, case) in enumerate(found.items()):
            context = None
            if case.issued is not None:
                context = server_context(directory / str(number), case.issued, demands=case.demands)
                context.sni_callback = lambda sock, sni, context, asked=asked[name]: asked.append(sni)
            app = apps[name] = stack.enter_context(App(tls=context))
            tls = {"ca": str(files / "ca.crt"), **case.tls}
            if case.tls.get("verify") == "off":
                del tls["ca"]
            clusters.append({"name": f"c{number}", "endpoints": f"{case.host}:{app.port}", "tls": tls})
            routes.append({"match": {"path": at(number)}, "cluster": f"c{number}"})
        text = {"clusters": clusters, "virtual_hosts": [{"routes": routes}]}
        file = directory / "sidecar.yaml"
        file.write_text(json.dumps(text))
        program = stack.enter_context(Program(directory / "sidecar", config=str(file)))
        eventually(lambda: b'"localhost:' not in program.admin("/clusters")[1], "names have become addresses")
        yield Upstreams(program, found, apps, asked)


class TestVerification:
    @pytest.mark.parametrize("name", CASES)
    def test_upstream_gets_requests_if_it_is_who_it_should_be(self, upstreams: Upstreams, name: str) -> None:
        """If not, the client reads 502, the log says why in words, and the upstream has seen no request."""
        program, case, app = upstreams.program, upstreams.cases[name], upstreams.apps[name]
        path = at(CASES.index(name))
        with HttpsClient(program) as client:
            response = client.get(path, "Accept: application/json")
        line = program.logged(path)

        if not case.why:
            assert (response.status, response.body) == (200, b"hello\n")
            assert app.last(path).certificate == case.certificate
            assert upstreams.asked[name] == [case.sni]
            assert "reason" not in line
            return
        # What a server thinks of our certificate, TLS 1.3 tells only after the handshake, when it seems to be in order.
        known = {"upstream_tls_failed", "upstream_reset"} if case.demands else {"upstream_tls_failed"}
        assert (response.status, response.json()["reason"] in known) == (502, True)
        assert line["reason"] == response.json()["reason"]
        assert case.why in line["detail"]
        assert case.why in program.stderr
        assert app.requests == []

    def test_connection_is_used_again(self, upstreams: Upstreams) -> None:
        """One handshake serves many requests."""
        name = "its host name"
        app = upstreams.apps[name]
        with HttpsClient(upstreams.program) as client:
            client.get(at(CASES.index(name)))
            before = app.connection_count
            statuses = [client.get(at(CASES.index(name))).status for _ in range(20)]

        assert statuses == [200] * 20
        assert app.connection_count == before


class TestSmallForm:
    def test_openssl_s_server_answers(self, launch: Launch, files: Path, tmp_path: Path) -> None:
        """SIDECAR_UPSTREAM=https://… with a CA and our certificate, in front of openssl s_server -WWW -Verify."""
        authority().issue("localhost").write(tmp_path)
        with Port() as port:
            own = ("-cert", str(tmp_path / "tls.crt"), "-key", str(tmp_path / "tls.key"))
            verify = ("-Verify", "2", "-verify_return_error", "-CAfile", str(files / "ca.crt"))
            command = ("openssl", "s_server", "-accept", str(port), *own, *verify, "-WWW", "-quiet")
            with Neighbour(tmp_path, port, *command):
                program = launch(
                    upstream=f"https://localhost:{port.number}",
                    upstream_ca=str(files / "ca.crt"),
                    upstream_cert=str(files / "client"),
                )
                done = curl(program, f"{program.url}/pyproject.toml")

        assert done.stdout == (ROOT / "pyproject.toml").read_text()

    def test_cas_of_the_system_are_not_ours(self, launch: Launch, tmp_path: Path) -> None:
        """Without SIDECAR_UPSTREAM_CA a private CA is not trusted, and the log says which one it is."""
        with App(tls=server_context(tmp_path, authority().issue("localhost"))) as app:
            program = launch(upstream=f"https://localhost:{app.port}")
            with HttpsClient(program) as client:
                assert client.get("/hello").status == 502

        assert "does not come from a CA that is trusted" in program.stderr
        assert "issued by 'CN=Test Root CA'" in program.stderr

    @pytest.mark.parametrize(("name", "health", "ready"), [("localhost", "healthy", 200), ("other", "unhealthy", 503)])
    def test_health_checks_verify_too(self, files: Path, tmp_path: Path, name: str, health: str, ready: int) -> None:
        """An upstream that is not who it should be is not healthy, and whoever looks learns why before any request."""
        with App(tls=server_context(tmp_path, authority().issue("localhost"))) as app:
            settings = {"upstream_ca": str(files / "ca.crt"), "upstream_names": name, "upstream_health_check": "/hello"}
            upstream = f"https://localhost:{app.port}"
            with closing(Program(tmp_path / "sidecar", upstream=upstream, **settings)) as program:
                program.wait_until_live()
                eventually(lambda: f'"health": "{health}"' in program.admin("/clusters")[1].decode(), "it has looked")
                status, body = program.admin("/ready")

        assert (status, "is not for other but for DNS:localhost" in body.decode()) == (ready, ready == 503)

    def test_host_that_the_upstream_is_told(self, launch: Launch, files: Path, tmp_path: Path) -> None:
        """SIDECAR_UPSTREAM_HOST and _SNI and _NAMES, each on its own."""
        context = server_context(tmp_path, authority().issue("app.internal"))
        asked: list[str | None] = []
        context.sni_callback = lambda sock, name, context: asked.append(name)
        with App(tls=context) as app:
            program = launch(
                upstream=app.upstream,
                upstream_ca=str(files / "ca.crt"),
                upstream_names="app.internal",
                upstream_sni="front.internal",
                upstream_host="shop.internal:8443",
            )
            with HttpsClient(program) as client:
                assert client.get("/hello").status == 200

        assert asked == ["front.internal"]
        assert app.last("/hello").values("host") == ["shop.internal:8443"]
        assert app.last("/hello").values("x-forwarded-host") == ["localhost"]


# -- from app to app ---------------------------------------------------------------------------------------------


@attrs.frozen
class Pair:
    """Two sidecars back to back, and the app behind them."""

    egress: Program
    ingress: Program
    app: App
    cert: Path

    def ask(self, method: str, target: str, body: bytes = b"", **fields: str) -> Response:
        """As app A, which knows of no TLS: a request to the egress sidecar."""
        connection = http.client.HTTPConnection(self.egress.host, self.egress.port, timeout=30.0)
        try:
            connection.request(method, target, body or None, {"Host": "app-b.example", **fields})
            response = connection.getresponse()
            return Response(response.status, b"", response.read())
        finally:
            connection.close()


@contextmanager
def back_to_back(
    directory: Path, files: Path, *, ingress: dict[str, Any] | None = None, egress: dict[str, Any] | None = None
) -> Iterator[Pair]:
    """Start both; *ingress* and *egress* are more settings of each."""
    directory.mkdir(exist_ok=True)
    cert = directory / "client"
    cert.mkdir()
    authority().issue("app-a", purposes=CLIENT).write(cert)
    demands = {"client_cert": "required", "client_ca": str(files / "ca.crt"), "identity_headers": "xfcc"}
    with (
        App() as app,
        Program(directory / "ingress", upstream=app.upstream, **{**demands, **(ingress or {})}) as inside,
        Program(
            directory / "egress",
            listen_tls="off",
            tls_cert=None,
            upstream=f"https://localhost:{inside.port}",
            upstream_ca=str(files / "ca.crt"),
            upstream_cert=str(cert),
            reload_interval="100ms",
            **(egress or {}),
        ) as outside,
    ):
        yield Pair(outside, inside, app, cert)


@pytest.fixture(scope="module")
def pair(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with back_to_back(tmp_path_factory.mktemp("pair"), files) as running:
        yield running


class TestAppToApp:
    def test_app_is_reached_and_told_who_asks(self, pair: Pair) -> None:
        """By plain HTTP on both ends; the other app knows by XFCC which app it is, and both logs name the request."""
        response = pair.ask("GET", "/echo/who", **{"X-Forwarded-Client-Cert": "By=forged", "X-Request-Id": "a-1"})
        seen = pair.app.last("/echo/who")

        assert response.status == 200
        assert ['Subject="CN=app-a"' in value for value in seen.values("x-forwarded-client-cert")] == [True]
        assert "forged" not in seen.head.decode()
        assert seen.values("host") == ["app-b.example"]
        assert seen.values("x-forwarded-proto") == ["https"]
        assert pair.ingress.logged("/echo/who")["client_subject"] == "CN=app-a"
        line = pair.egress.logged("/echo/who")
        assert (line["request_id"], line["upstream"].rpartition(":")[2]) == ("a-1", str(pair.ingress.port))
        assert "tls_version" not in line

    @pytest.mark.parametrize("size", [0, 1, LARGE_BYTES])
    def test_bodies_pass_both_ways(self, pair: Pair, size: int) -> None:
        """Of any size, whole."""
        body = b"".join(pattern(size))
        up = pair.ask("PUT", "/sink", body, **{"Content-Length": str(size)})
        down = pair.ask("GET", f"/bytes?n={size}")
        chunked = pair.ask("GET", f"/chunked?n={size}")

        assert json.loads(up.body) == {"bytes": size, "sha256": pattern_sha256(size)}
        assert down.body == body
        assert chunked.body == body

    def test_upgraded_connection_is_a_pipe_through_both(self, pair: Pair) -> None:
        """As that of a WebSocket; its end passes too."""
        data = b"".join(pattern(2 * MIB))
        with plain_socket(pair.egress) as sock:
            sock.sendall(request("/upgrade", "Connection: Upgrade", "Upgrade: echo"))
            stream = sock.makefile("rb")
            assert stream.readline().startswith(b"HTTP/1.1 101 ")
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(8) == b"welcome;"
            for start in range(0, len(data), 65_536):
                piece = data[start : start + 65_536]
                sock.sendall(piece)
                assert stream.read(len(piece)) == piece
            sock.shutdown(socket.SHUT_WR)
            assert stream.read() == b";bye"
            stream.close()

    def test_response_that_breaks_off_does_not_look_whole(self, pair: Pair) -> None:
        """The cut passes through both."""
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            pair.ask("GET", "/close-inside")

    def test_curl_over_plain_http_works(self, pair: Pair) -> None:
        """What a developer types on the machine of app A."""
        done = curl(pair.egress, f"http://127.0.0.1:{pair.egress.port}/hello")

        assert done.stdout == "hello\n"

    def test_raw_tcp_passes_both(self, files: Path, tmp_path: Path) -> None:
        """With mode tcp on both sides whatever app A says reaches app B, and its end too."""
        inside = {"mode": "tcp", "identity_headers": None}
        body = b"".join(pattern(5 * MIB))
        with (
            back_to_back(tmp_path / "pair", files, ingress=inside, egress={"mode": "tcp"}) as pair,
            plain_socket(pair.egress) as sock,
        ):
            sock.sendall(request("/sink", f"Content-Length: {len(body)}", method="PUT", body=body))
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(65_536), b""))
            line = pair.ingress.access_log

            assert json.loads(answer.partition(b"\r\n\r\n")[2])["sha256"] == pattern_sha256(len(body))
            eventually(lambda: bool(line()), "it is in the log")
            assert (line()[0]["client_subject"], "reason" in line()[0]) == ("CN=app-a", False)

    def test_refusal_of_the_other_side_is_readable(self, files: Path, tmp_path: Path) -> None:
        """A client that the ingress does not let in gets its 403, which says why."""
        with back_to_back(tmp_path / "pair", files, ingress={"client_allow": "cn=app-c"}) as pair:
            response = pair.ask("GET", "/hello")

        assert (response.status, b"not authorized" in response.body) == (403, True)

    def test_alert_of_the_other_side_is_told(self, files: Path, tmp_path: Path) -> None:
        """One that refuses in the handshake: 502, and the log of the egress names our certificate."""
        refusing = {"client_allow": "cn=app-c", "client_refusal": "handshake"}
        with back_to_back(tmp_path / "pair", files, ingress=refusing) as pair:
            response = pair.ask("GET", "/hello")
            line = pair.egress.logged("/hello")

        assert (response.status, line["reason"] in ("upstream_tls_failed", "upstream_reset")) == (502, True)
        assert "certificate" in line["detail"]

    def test_address_passes_with_a_header_of_the_proxy_protocol(self, files: Path, tmp_path: Path) -> None:
        """Ahead of TLS, from one sidecar to the other: the app knows who asked the first one."""
        inside = {"proxy_protocol": "trusted", "trusted_proxies": "127.0.0.1/32"}
        with back_to_back(tmp_path / "pair", files, ingress=inside, egress={"upstream_proxy_protocol": "v2"}) as pair:
            url = f"http://127.0.0.1:{pair.egress.port}/hello"
            done = curl(pair.egress, "--interface", "127.0.0.3", url)
            line = pair.ingress.logged("/hello")

        assert done.stdout == "hello\n"
        assert pair.app.last("/hello").values("x-forwarded-for")[-1].split(", ")[-1] == "127.0.0.3"
        assert (line["client"], line["via"]) == ("127.0.0.3", "127.0.0.1")


class TestReload:
    def test_new_client_certificate_is_shown_without_a_lost_request(self, files: Path, tmp_path: Path) -> None:
        """Under load, five times: no request fails, and the other side gets to know each certificate."""
        failures: list[BaseException] = []
        statuses: list[int] = []
        ended = threading.Event()
        with back_to_back(tmp_path / "pair", files) as pair:

            def load() -> None:
                try:
                    while not ended.is_set():
                        statuses.append(pair.ask("GET", "/hello/load").status)
                except BaseException as failure:  # told in the main thread
                    failures.append(failure)

            def is_known(name: str) -> bool:
                pair.ask("GET", "/hello/known")
                [told] = pair.app.last("/hello/known").values("x-forwarded-client-cert")
                return f'Subject="CN={name}"' in told

            thread = threading.Thread(target=load)
            thread.start()
            try:
                for number in range(5):
                    authority().issue(f"app-a-{number}", purposes=CLIENT).write(pair.cert)
                    eventually(lambda: is_known(f"app-a-{number}"), "it is known by its new name")  # noqa: B023
            finally:
                ended.set()
                thread.join(30.0)

        assert failures == []
        assert len(statuses) > 20
        assert set(statuses) == {200}

    def test_bad_client_certificate_changes_nothing(self, files: Path, tmp_path: Path) -> None:
        """The log says so, and the last good one is shown."""
        with back_to_back(tmp_path / "pair", files) as pair:
            (pair.cert / "tls.key").write_bytes(authority().issue("app-a", purposes=CLIENT).key_pem)
            pair.egress.signal(signal.SIGHUP)  # without it, the rest of the pair is waited for
            eventually(lambda: "does not match" in pair.egress.stderr, "the log says so")
            assert pair.ask("GET", "/hello").status == 200

    def test_other_ca_counts_for_the_next_request(self, launch: Launch, files: Path, tmp_path: Path) -> None:
        """Connections that rest on a CA which is no longer trusted serve no further request."""
        trusted = tmp_path / "ca.crt"
        trusted.write_bytes(authority().cert_pem)
        with App(tls=server_context(tmp_path / "app", authority().issue("localhost"))) as app:
            program = launch(
                upstream=f"https://localhost:{app.port}", upstream_ca=str(trusted), reload_interval="100ms"
            )
            with HttpsClient(program) as client:
                assert client.get("/hello").status == 200
                trusted.write_bytes(other_authority().cert_pem)
                eventually(lambda: "reloaded" in program.stderr, "the new CA is in force")
                assert client.get("/hello").status == 502
