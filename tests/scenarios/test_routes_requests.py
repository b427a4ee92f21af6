"""
Ensures that requests go where virtual hosts and routes say, under what the route demands of clients; that routes change
without a lost request; and that what is wrong with them is told before anything is served, all at once.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, Response, client_context, curl, request, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App, Request
from tests.support.certs import CLIENT, authority, other_authority
from tests.support.program import WAIT_SECONDS, Port, Program, eventually, is_listening, sidecar_command

SETTINGS = """\
upstream: {app}
client: {{cert: none, ca: {ca}}}
clusters:
  - name: shop
    endpoints: {shop}
  - name: files
    endpoints: [{files}]
virtual_hosts:
  - name: shop
    domains: [shop.example, "*.shop.example"]
    routes:
      - name: beta
        match: {{prefix: /, headers: [{{name: x-version, exact: "2"}}, {{name: x-stable, invert: on}}]}}
        cluster: files
      - name: writes
        match: {{prefix: /hello/items, methods: [POST, PUT]}}
        cluster: app
      - name: item
        match: {{regex: "/hello/items/[0-9]+"}}
        cluster: files
      - name: static
        match: {{prefix: /static/}}
        cluster: files
        prefix_rewrite: /hello/
        host_rewrite: files.internal:8080
      - name: logo
        match: {{path: /logo.png}}
        cluster: files
        prefix_rewrite: /hello/logo
      - name: rest
        cluster: shop
  - name: answers
    domains: answers.example
    routes:
      - match: {{path: /health}}
        direct_response: {{status: 200, body: "fine\\n"}}
      - match: {{path: /gone}}
        direct_response: {{status: 410}}
      - match: {{prefix: /old/}}
        redirect: {{prefix_rewrite: /new/, status: 308}}
      - match: {{prefix: /away}}
        redirect: {{host: elsewhere.example, path: /here, strip_query: on}}
      - match: {{prefix: /plain}}
        redirect: {{scheme: http, host: plain.example, port: 8080, status: 302}}
      - match: {{prefix: /hello/slow}}
        cluster: app
      - match: {{prefix: /never}}
        cluster: app
        timeout: 300ms
  - name: guarded
    domains: guarded.example
    routes:
      - match: {{prefix: /hello/public}}
        cluster: app
      - match: {{prefix: /hello/admin}}
        cluster: app
        client_cert: required
        allow: [cn=root]
      - match: {{prefix: /hello/members}}
        cluster: app
        client_cert: required
  - name: default
    domains: "*"
    routes:
      - match: {{prefix: /hello}}
        cluster: app
"""


@attrs.frozen
class Apps:
    """The app, and two others."""

    app: App
    shop: App
    files: App

    def settings(self, directory: Path) -> str:
        """Write `SETTINGS` for them to a file; return its name."""
        (directory / "ca.crt").write_bytes(authority().cert_pem)
        addresses = {"app": self.app.upstream, "shop": self.shop.address, "files": self.files.address}
        file = directory / "sidecar.yaml"
        file.write_text(SETTINGS.format(ca=directory / "ca.crt", **addresses))
        return str(file)

    def found(self, mark: str) -> tuple[str, Request]:
        """Which app got the request with this *mark*, and what it saw of it."""
        [found] = [
            (app.name, seen)
            for app in (self.app, self.shop, self.files)
            for seen in app.requests
            if seen.values("user-agent") == [mark]
        ]
        return found


@pytest.fixture(scope="module")
def apps() -> Iterator[Apps]:
    with App(name="app") as app, App(name="shop") as shop, App(name="files") as files:
        yield Apps(app, shop, files)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("routes")


@pytest.fixture(scope="module")
def program(apps: Apps, directory: Path) -> Iterator[Program]:
    """A sidecar with `SETTINGS`."""
    with Program(directory / "sidecar", config=apps.settings(directory)) as running:
        yield running


_marks = itertools.count()


def ask(
    program: Program, target: str, *lines: str, host: str, method: str = "GET", identity: Path | None = None
) -> tuple[str, Response]:
    """Send one request; return the mark by which an app and the log know it, and the answer."""
    mark = f"mark-{next(_marks)}"
    body_lines = ("Content-Length: 0",) if method in ("POST", "PUT") else ()
    with HttpsClient(program, context=client_context(identity=identity)) as client:
        client.send(request(target, f"User-Agent: {mark}", *lines, *body_lines, method=method, host=host))
        return mark, client.response(method)


def logged(program: Program, mark: str) -> dict[str, Any]:
    """Wait for the access log line of the request with this *mark*."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [line for line in program.access_log() if line.get("user_agent") == mark]
        return bool(found)

    eventually(is_there, "the request is in the access log")
    return found[0]


@attrs.frozen
class Case:
    """
    A request, and where it ends up.

    Attributes:
        app: Name of the app that gets it.
        target: What that is asked for, if something else than was asked of us.
        sees_host: The Host it sees, if another.
        route: What the log says.
    """

    target: str
    app: str
    route: str
    host: str = "shop.example"
    lines: tuple[str, ...] = ()
    method: str = "GET"
    sees: str = ""
    sees_host: str = ""


FILES_HOST = "files.internal:8080"

CASES = {
    "last route": Case("/hello", "shop", "rest"),
    "host in capitals": Case("/hello", "shop", "rest", host="SHOP.Example"),
    "host with a port": Case("/hello", "shop", "rest", host="shop.example:8443"),
    "host below": Case("/hello", "shop", "rest", host="a.b.shop.example"),
    "host that only ends so": Case("/hello", "app", "virtual_hosts[3].routes[0]", host="myshop.example"),
    "no host of ours": Case("/hello", "app", "virtual_hosts[3].routes[0]", host="other.example"),
    "prefix is rewritten": Case("/static/a/b?x=/static/", "files", "static", sees="/hello/a/b?x=/static/"),
    "prefix in other writing": Case("/%73tatic/a%20b", "files", "static", sees="/hello/a%20b"),
    "prefix without its end": Case("/static", "shop", "rest"),
    "path": Case("/logo.png?v=2", "files", "logo", sees="/hello/logo?v=2"),
    "path with more behind it": Case("/logo.png/x", "shop", "rest"),
    "expression": Case("/hello/items/42", "files", "item"),
    "expression is about all of the path": Case("/hello/items/42/x", "shop", "rest"),
    "method": Case("/hello/items/42", "app", "writes", method="POST"),
    "another method": Case("/hello/items/42", "files", "item", method="HEAD"),
    "header": Case("/hello", "files", "beta", lines=("X-Version: 2",)),
    "header with another value": Case("/hello", "shop", "rest", lines=("X-Version: 20",)),
    "header and one that must not be": Case("/hello", "shop", "rest", lines=("X-Version: 2", "X-Stable: 1")),
    "order decides": Case("/hello/items/42", "files", "beta", lines=("X-Version: 2",), method="POST"),
}


class TestRoutes:
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
    def test_request_goes_where_its_route_leads(self, program: Program, apps: Apps, case: Case) -> None:
        """The first route that fits in the virtual host that fits best; the log names it."""
        mark, _ = ask(program, case.target, *case.lines, host=case.host, method=case.method)
        name, seen = apps.found(mark)

        assert name == case.app
        assert seen.target == (case.sees or case.target)
        assert seen.values("host") == [FILES_HOST if case.route == "static" else case.host]
        assert seen.values("x-forwarded-host") == [case.host]
        line = logged(program, mark)
        assert (line["route"], line["cluster"]) == (case.route, case.app)

    def test_routes_are_for_each_request_of_a_connection(self, program: Program, apps: Apps) -> None:
        """One after the other on one connection, also without waiting for the answers."""
        targets = ("/hello", "/static/x", "/logo.png", "/hello") * 3
        with HttpsClient(program) as client:
            client.send(b"".join(request(target, host="shop.example") for target in targets))
            statuses = [client.response().status for _ in targets]
            seen = [len(app.requests) for app in (apps.shop, apps.files)]
            client.send(request("/hello", "X-Version: 2", host="shop.example"))
            assert client.response().status == 200

        assert statuses == [200] * len(targets)
        assert [len(app.requests) for app in (apps.shop, apps.files)] == [seen[0], seen[1] + 1]

    @pytest.mark.parametrize(
        "target", ["/x/../static/a", "/static/../hello", "//static/a", "/static%2fa", "/static/..%5cx"]
    )
    def test_path_that_leads_to_two_routes_is_refused(self, program: Program, apps: Apps, target: str) -> None:
        """What programs read in different ways, and routes too, goes nowhere."""
        mark, response = ask(program, target, "Accept: application/json", host="shop.example")

        assert (response.status, response.json()["reason"]) == (400, "ambiguous_path")
        with pytest.raises(ValueError, match="not enough values"):
            apps.found(mark)

    @pytest.mark.parametrize(("host", "target"), [("other.example", "/nowhere"), ("answers.example", "/")])
    def test_no_route_is_told(self, program: Program, host: str, target: str) -> None:
        """With 404, in words, and with the reason in the log; the connection goes on."""
        _, response = ask(program, target, "Accept: application/json", host=host)

        assert (response.status, response.json()["reason"]) == (404, "no_route")
        assert program.logged(target)["reason"] == "no_route"

    def test_timeout_of_the_route_counts(self, program: Program) -> None:
        """A route may be more impatient than the rest."""
        _, response = ask(program, "/never", host="answers.example")

        assert response.status == 504


class TestAnswers:
    @pytest.mark.parametrize(
        ("target", "status", "location"),
        [
            ("/old/a%20b?q=1", 308, "https://answers.example/new/a%20b?q=1"),
            ("/old/../old//x", 308, "https://answers.example/new/x"),
            ("/away?q=1", 301, "https://elsewhere.example/here"),
            ("/plain/x?q=1", 302, "http://plain.example:8080/plain/x?q=1"),
        ],
    )
    def test_redirect(self, program: Program, target: str, status: int, location: str) -> None:
        """The client is told where to ask instead."""
        _, response = ask(program, target, host="answers.example")

        assert (response.status, response.values("location")) == (status, [location])

    def test_redirect_keeps_the_port_that_was_asked(self, program: Program) -> None:
        """Scheme and host stay as they are, and so does the port."""
        _, response = ask(program, "/old/x", host="answers.example:8443")

        assert response.values("location") == ["https://answers.example:8443/new/x"]

    @pytest.mark.parametrize(
        ("target", "method", "status", "body"),
        [("/health", "GET", 200, b"fine\n"), ("/health", "HEAD", 200, b""), ("/gone", "GET", 410, b"")],
    )
    def test_direct_response(self, program: Program, target: str, method: str, status: int, body: bytes) -> None:
        """Answered from here, on a connection that goes on."""
        with HttpsClient(program) as client:
            for _ in range(2):
                client.send(request(target, host="answers.example", method=method))
                response = client.response(method)
                assert (response.status, response.body) == (status, body)

    def test_body_sent_to_a_direct_response_is_not_taken_for_a_request(self, program: Program) -> None:
        """Nobody wants it, and nothing in it is answered."""
        smuggled = request("/gone", host="answers.example")
        with HttpsClient(program) as client:
            head = request("/health", f"Content-Length: {len(smuggled)}", host="answers.example", method="POST")
            client.send(head + smuggled + request("/health", "Connection: close", host="answers.example"))
            statuses = re.findall(rb"HTTP/1\.1 (\d+)", client.read_to_end())

        assert set(statuses) == {b"200"}


class TestCertificates:
    @pytest.fixture
    def identities(self, tmp_path: Path) -> dict[str, Path | None]:
        issued = {
            "root": authority().issue("root", purposes=CLIENT),
            "alice": authority().issue("alice", purposes=CLIENT),
            "mallory": other_authority().issue("root", purposes=CLIENT),
        }
        files = {name: write_identity(each, tmp_path / f"{name}.pem") for name, each in issued.items()}
        return {"nobody": None, **files}

    @pytest.mark.parametrize(
        ("path", "statuses"),
        [
            ("/hello/public", {"nobody": 200, "root": 200, "alice": 200, "mallory": 200}),
            ("/hello/members", {"nobody": 400, "root": 200, "alice": 200, "mallory": 403}),
            ("/hello/admin", {"nobody": 400, "root": 200, "alice": 403, "mallory": 403}),
            ("/hello/x/../admin", {"nobody": 400, "root": 400, "alice": 403, "mallory": 403}),
            ("/hello/%61dmin", {"nobody": 400, "root": 200, "alice": 403, "mallory": 403}),
        ],
    )
    def test_route_says_who_may_come_in(
        self, program: Program, identities: dict[str, Path | None], path: str, statuses: dict[str, int]
    ) -> None:
        """However the path is written that leads to it; what leads to different routes is nobody's."""
        found = {
            name: ask(program, path, host="guarded.example", identity=identity)[1].status
            for name, identity in identities.items()
        }

        assert found == statuses

    def test_route_of_another_host_is_no_way_in(self, program: Program, apps: Apps) -> None:
        """What one virtual host demands, another's Host field on the same connection does not undo."""
        with HttpsClient(program) as client:
            client.send(request("/hello/admin", host="other.example"))
            assert client.response().status == 200
            client.send(request("/hello/admin", host="guarded.example"))
            assert client.response().status == 400


# -- listeners ---------------------------------------------------------------------------------------------------


class TestListeners:
    def test_plain_http_is_redirected(self, launch: Launch, app: App) -> None:
        """SIDECAR_HTTP_REDIRECT answers whatever is asked with the same URL under https, and forwards nothing."""
        with Port() as plain:
            program = launch(upstream=app.upstream, http_redirect=str(plain))
            before = len(app.requests)
            for method, path in (("GET", "/a%20b?q=1"), ("POST", "/"), ("HEAD", "/x")):
                connection = http.client.HTTPConnection(plain.host, plain.number, timeout=WAIT_SECONDS)
                connection.request(method, path, headers={"Host": f"shop.example:{plain.number}"})
                response = connection.getresponse()
                location = response.headers["Location"]
                connection.close()
                assert response.status == 308 if method == "POST" else response.status in (301, 308)
                assert location == f"https://shop.example:{program.port}{path}"

        assert len(app.requests) == before

    def test_curl_follows_it(self, launch: Launch, app: App) -> None:
        """From http:// to the app's answer with -L."""
        with Port() as plain:
            program = launch(upstream=app.upstream, http_redirect=str(plain))
            done = curl(program, "-L", f"http://localhost:{plain.number}/hello")

        assert done.stdout == "hello\n"

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_several_listeners_have_each_their_own_way(
        self, launch: Launch, apps: Apps, tmp_path: Path, workers: str
    ) -> None:
        """One program: TLS with routes, TLS to one cluster, and plain HTTP on loopback."""
        with Port() as first, Port() as second, Port() as plain:
            text = {
                "clusters": [
                    {"name": "shop", "endpoints": apps.shop.address},
                    {"name": "files", "endpoints": apps.files.address},
                ],
                "listeners": [
                    {
                        "name": "first",
                        "address": str(first),
                        "virtual_hosts": [{"routes": [{"match": {"path": "/who"}, "cluster": "shop"}]}],
                    },
                    {"name": "second", "address": str(second), "cluster": "files"},
                    {"name": "plain", "address": str(plain), "tls": "off", "cluster": "shop"},
                ],
            }
            file = tmp_path / "sidecar.yaml"
            file.write_text(json.dumps(text))
            program = launch(config=str(file), listen=None, workers=workers)
            urls = [f"https://localhost:{first.number}", f"https://localhost:{second.number}", f"http://{plain}"]
            answers = [curl(program, f"{url}/who").stdout for url in urls]
            missing = curl(program, "-o", "/dev/null", "-w", "%{http_code}", f"{urls[0]}/other").stdout

        assert answers == ["shop", "files", "shop"]
        assert missing == "404"

    def test_healthcheck_asks_the_app_that_there_is(self, launch: Launch, apps: Apps, tmp_path: Path) -> None:
        """`sidecar healthcheck --app` looks where requests go, also if no SIDECAR_UPSTREAM says where that is."""
        file = tmp_path / "sidecar.yaml"
        clusters = [{"name": "shop", "endpoints": apps.shop.address}]
        file.write_text(json.dumps({"clusters": clusters, "virtual_hosts": [{"routes": [{"cluster": "shop"}]}]}))
        program = launch(config=str(file))
        done = sidecar_command("healthcheck", "--app", config=str(file), listen=f"{program.host}:{program.port}")

        assert (done.returncode, done.stderr) == (0, "")
        assert apps.shop.address in done.stdout


# -- reload ------------------------------------------------------------------------------------------------------


class Load:
    """Clients that ask for /who without a pause, one of them on a connection that it keeps."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.answers: list[tuple[int, bytes]] = []
        self.failures: list[BaseException] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(most,)) for most in (1, 10, 1_000_000)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(30.0)

    def _run(self, most: int) -> None:
        try:
            while not self._ended.is_set():
                with HttpsClient(self._program) as client:
                    for _ in range(most):
                        response = client.get("/who")
                        self.answers.append((response.status, response.body))
                        if self._ended.is_set():
                            break
        except BaseException as failure:  # told in the main thread
            self.failures.append(failure)


class TestReload:
    def test_routes_change_without_a_lost_request(self, launch: Launch, apps: Apps, tmp_path: Path) -> None:
        """Twenty times under load, by SIGHUP: each request is answered by the one or the other."""
        file = tmp_path / "sidecar.yaml"

        def lead_to(app: App) -> None:
            text: dict[str, Any] = {
                "clusters": [{"name": app.name, "endpoints": app.address}],
                "virtual_hosts": [{"routes": [{"cluster": app.name}]}],
            }
            file.write_text(json.dumps(text))

        lead_to(apps.shop)
        program = launch(config=str(file))
        load = Load(program)
        with load.running():
            for number in range(20):
                app = apps.files if number % 2 == 0 else apps.shop
                lead_to(app)
                program.signal(signal.SIGHUP)
                with HttpsClient(program) as client:
                    eventually(lambda: client.get("/who").body == app.name.encode(), "the new route is in force")  # noqa: B023

        assert load.failures == []
        assert len(load.answers) > 100
        assert set(load.answers) == {(200, b"shop"), (200, b"files")}

    def test_listener_that_is_new_waits_for_a_restart(self, launch: Launch, apps: Apps, tmp_path: Path) -> None:
        """The log says so, and where it is written; those that there are go on."""
        file = tmp_path / "sidecar.yaml"

        def write(*ports: Port) -> None:
            listeners = [
                {"name": f"l{place}", "address": str(port), "cluster": "shop"} for place, port in enumerate(ports)
            ]
            clusters = [{"name": "shop", "endpoints": apps.shop.address}]
            file.write_text(json.dumps({"clusters": clusters, "listeners": listeners}))

        with Port() as first, Port() as second:
            write(first)
            program = launch(config=str(file), listen=None)
            write(first, second)
            program.signal(signal.SIGHUP)
            eventually(lambda: "reload failed" in program.stderr, "the log says so")

            assert re.search(
                rf"listeners \({re.escape(str(file))}:1\): .*{second}.*; restart to change", program.stderr
            )
            assert curl(program, f"https://localhost:{first.number}/who").stdout == "shop"
            assert not is_listening(second)
            assert program.admin("/ready")[0] == 200

    def test_bad_routes_change_nothing(self, launch: Launch, apps: Apps, tmp_path: Path) -> None:
        """The log says what is wrong, with its place; requests go where they went."""
        file = tmp_path / "sidecar.yaml"
        good = {"virtual_hosts": [{"routes": [{"cluster": "app"}]}]}
        file.write_text(json.dumps(good))
        program = launch(config=str(file), upstream=apps.app.upstream)
        file.write_text("virtual_hosts:\n- routes:\n  - cluster: nobody\n")
        program.signal(signal.SIGHUP)
        eventually(lambda: "reload failed" in program.stderr, "the log says so")

        assert f"virtual_hosts[0].routes[0].cluster ({file}:3): there is no cluster nobody" in program.stderr
        with HttpsClient(program) as client:
            assert client.get("/who").body == b"app"


# -- check -------------------------------------------------------------------------------------------------------

BAD = """\
upstream: http://127.0.0.1:8080
trusted_proxies: [10.0.0.0/8, 10.1.2.3/8]
clusters:
  - name: shop
    endpoints:
      - 127.0.0.1:8080
      - nowhere.invalid:8080
virtual_hosts:
  - domains: [shop.example, "*.example"]
    routes:
      - cluster: shop
      - match: {prefix: /static/}
        cluster: app
  - domains: [SHOP.example]
    routes:
      - match: {regex: "/(a+)+x"}
        cluster: shop
      - match: {path: /a, prefix: /b}
        cluster: shop
      - match: {path: /c}
        cluster: nobody
      - match: {path: /d}
        cluster: shop
        redirect: {path: /e}
"""


class TestCheck:
    def test_everything_that_is_wrong_is_told_at_once(self, tmp_path: Path) -> None:
        """Each with its place in the file, by name and by line, and what is wrong in so many words."""
        file = tmp_path / "sidecar.yaml"
        file.write_text(BAD)
        done = sidecar_command("check", config=str(file))
        lines = re.findall(rf"^(\S+) \({re.escape(str(file))}:(\d+)\): (.+)$", done.stderr, re.MULTILINE)
        found = {(place, int(line)): text for place, line, text in lines}

        assert (done.returncode, done.stdout) == (78, "")
        assert len(lines) == done.stderr.count("\n")
        expected = {
            ("trusted_proxies", 2): "10.0.0.0/8",
            ("clusters[0].endpoints[1]", 7): "nowhere.invalid has no address",
            ("virtual_hosts[0].routes[1]", 12): "it is never reached: virtual_hosts[0].routes[0] above it",
            ("virtual_hosts[1].domains[0]", 14): "stands in virtual_hosts[0].domains[0] already",
            ("virtual_hosts[1].routes[0].match.regex", 16): "repeats endlessly what is repeated endlessly within",
            ("virtual_hosts[1].routes[1].match.path", 18): "prefix stands beside it",
            ("virtual_hosts[1].routes[2].cluster", 21): "there is no cluster nobody",
            ("virtual_hosts[1].routes[3]", 22): "redirect",
        }
        assert {key: text for key, text in expected.items() if text not in found.get(key, "")} == {}
        assert found.keys() == expected.keys()

    def test_good_routes_are_good(self, apps: Apps, tmp_path: Path) -> None:
        """What the other tests here serve passes."""
        done = sidecar_command("check", config=apps.settings(tmp_path))

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("configuration ok")
