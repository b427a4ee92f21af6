"""
Ensures that two backends share the requests behind mutual TLS, that one of them can crash under load without harm to
more than the requests that were on it, and that it gets its share again once it is back.
"""

from __future__ import annotations

import collections
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, client_context, curl, openssl, request, sidecar_certs
from tests.scenarios.conftest import Launch
from tests.support.program import Neighbour, Port, Program, eventually

CLIENTS = 6
REQUESTS = 300


# -- backends ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Pair:
    """Two apps, each a process of its own, called a and b."""

    a: Neighbour
    b: Neighbour

    @property
    def upstream(self) -> str:
        return f"http://{self.a.port},http://{self.b.port}"

    def cluster(self, **more: Any) -> str:
        """Both as the cluster ``app`` of a settings file, with *more* of its keys."""
        spec = {"name": "app", "endpoints": [str(self.a.port), str(self.b.port)], **more}
        return json.dumps([spec])


@contextmanager
def backend(directory: Path, name: str) -> Iterator[Neighbour]:
    """Run an app of this *name*."""
    with Port() as port:
        command = (sys.executable, "-m", "tests.support.apps", str(port.number), name)
        with Neighbour(directory, port, *command) as neighbour:
            yield neighbour


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with backend(tmp_path, "a") as a, backend(tmp_path, "b") as b:
        yield Pair(a, b)


# -- key material ------------------------------------------------------------------------------------------------


@attrs.frozen
class Material:
    """What mutual TLS takes: settings of the sidecar, and files of a client."""

    settings: dict[str, str]
    ca: Path
    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A client's, with its certificate."""
        context = client_context(trusted=self.ca.read_text())
        context.load_cert_chain(self.cert, self.key)
        return context


def by_openssl(directory: Path) -> Material:
    """A root, a server key of 4096 bits, and a client from an intermediate CA, with its chain."""

    def run(*arguments: str) -> None:
        done = openssl(*arguments, directory=directory)
        assert done.returncode == 0, done.stderr

    def signed(name: str, issuer: str, days: int, extensions: str, *key: str) -> None:
        (directory / f"{name}.ext").write_text(extensions)
        names = ("-subj", f"/O=Example/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        run("req", "-newkey", *key, "-nodes", *names)
        by = ("-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        run("x509", "-req", "-in", f"{name}.csr", *by, "-days", str(days), "-sha256", "-out", f"{name}.crt")

    ecdsa = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    root = ("-subj", "/O=Example/CN=root", "-keyout", "root.key", "-out", "root.crt", "-days", "3650")
    run("req", "-x509", "-newkey", *ecdsa, "-nodes", *root, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signed("localhost", "root", 3650, "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n", "rsa:4096")
    issuing = "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
    signed("intermediate", "root", 365, issuing, *ecdsa)
    signed("client", "intermediate", 30, "extendedKeyUsage=clientAuth\n", *ecdsa)
    (directory / "chain.crt").write_text((directory / "client.crt").read_text())
    with (directory / "chain.crt").open("a") as chain:
        chain.write((directory / "intermediate.crt").read_text())
    settings = {
        "tls_cert": str(directory / "localhost.crt"),
        "tls_key": str(directory / "localhost.key"),
        "client_cert": "required",
        "client_ca": str(directory / "root.crt"),
    }
    return Material(settings, directory / "root.crt", directory / "chain.crt", directory / "client.key")


def by_sidecar(directory: Path) -> Material:
    """The same in three commands."""
    sidecar_certs(directory, "ca")
    sidecar_certs(directory, "server", "localhost", "--out", "server")
    sidecar_certs(directory, "client", "client", "--out", "client")
    settings = {
        "tls_cert": str(directory / "server"),
        "client_cert": "required",
        "client_ca": str(directory / "ca" / "ca.crt"),
    }
    client = directory / "client"
    return Material(settings, directory / "ca" / "ca.crt", client / "client.crt", client / "client.key")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return by_sidecar(tmp_path_factory.mktemp("material"))


# -- clients -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What became of a request: its status, 0 if the connection broke, and who answered."""

    began_at: float
    status: int
    name: str


class Load:
    """Clients that ask without a pause, each on a connection that it keeps for as long as it may."""

    def __init__(self, program: Program, context: ssl.SSLContext) -> None:
        self._program = program
        self._context = context
        self.outcomes: list[Outcome] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

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

    def go_on(self, count: int = REQUESTS) -> list[Outcome]:
        """Wait for *count* more answers to requests that are sent from now on; return them."""
        now = time.monotonic()
        found: list[Outcome] = []

        def enough() -> bool:
            found[:] = self.since(now)
            return len(found) >= count

        eventually(enough, f"{count} more requests are answered", 30.0)
        return found

    def since(self, moment: float) -> list[Outcome]:
        """What became of requests that were sent after *moment*."""
        return [outcome for outcome in self.outcomes if outcome.began_at > moment]

    def _run(self) -> None:
        while not self._ended.is_set():
            with HttpsClient(self._program, context=self._context) as client:
                while not self._ended.is_set():
                    outcome = self._ask(client)
                    self.outcomes.append(outcome)
                    if outcome.status != 200:
                        break

    @staticmethod
    def _ask(client: HttpsClient) -> Outcome:
        began_at = time.monotonic()
        try:
            response = client.get("/who")
        except (OSError, AssertionError):
            return Outcome(began_at, 0, "")
        return Outcome(began_at, response.status, response.body.decode() if response.status == 200 else "")


def endpoints(program: Program) -> dict[str, dict[str, Any]]:
    """What /clusters says of each endpoint, by its address."""
    clusters = json.loads(program.admin("/clusters")[1])["clusters"]
    return {cluster["upstream"]: cluster for cluster in clusters}


def is_taken_for(program: Program, backend: Neighbour, health: str) -> Callable[[], bool]:
    return lambda: endpoints(program)[str(backend.port)]["health"] == health


def names(outcomes: list[Outcome]) -> collections.Counter[str]:
    return collections.Counter(outcome.name for outcome in outcomes)


def failed(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.status != 200]


# -- tests -------------------------------------------------------------------------------------------------------


class TestTurns:
    @pytest.mark.parametrize("make", [by_openssl, by_sidecar])
    def test_curl_gets_answers_of_both(
        self, launch: Launch, pair: Pair, tmp_path: Path, make: Callable[[Path], Material]
    ) -> None:
        """With its certificate a client is answered by one backend after the other; without, by neither."""
        material = make(tmp_path)
        program = launch(upstream=pair.upstream, **material.settings)
        trust, shown = ("--cacert", str(material.ca)), ("--cert", str(material.cert), "--key", str(material.key))
        answers = [curl(program, *trust, *shown, f"{program.url}/who").stdout for _ in range(6)]
        refused = curl(program, *trust, "-o", "/dev/null", "-w", "%{http_code}", f"{program.url}/who").stdout

        assert answers in (["a", "b"] * 3, ["b", "a"] * 3)
        assert refused == "400"

    def test_requests_of_one_connection_are_shared_too(self, launch: Launch, pair: Pair, material: Material) -> None:
        """It is requests that are distributed, not connections; /clusters says how many connections that took."""
        program = launch(upstream=pair.upstream, **material.settings)
        with HttpsClient(program, context=material.context()) as client:
            answers = [client.get("/who").body for _ in range(20)]

        assert answers[:2] * 10 == answers
        assert sorted(answers[:2]) == [b"a", b"b"]
        assert [each["connects"] for each in endpoints(program).values()] == [1, 1]

    def test_heavier_backend_gets_more(self, launch: Launch, pair: Pair, material: Material) -> None:
        """A weight of 3 gets three requests of four."""
        spec = [{"address": str(pair.a.port), "weight": 3}, str(pair.b.port)]
        program = launch(
            virtual_hosts=json.dumps([{"routes": [{"cluster": "shop"}]}]),
            clusters=json.dumps([{"name": "shop", "endpoints": spec}]),
            **material.settings,
        )
        with HttpsClient(program, context=material.context()) as client:
            answers = collections.Counter(client.get("/who").body for _ in range(40))

        assert answers == {b"a": 30, b"b": 10}


class TestRawTcp:
    def test_connections_are_shared_and_find_who_is_left(self, launch: Launch, pair: Pair, material: Material) -> None:
        """As a balancer of SSL over TCP does it: one after the other; with one dead, nobody notices."""
        program = launch(upstream=pair.upstream, mode="tcp", **material.settings)
        context = material.context()

        def ask() -> bytes:
            with HttpsClient(program, context=context) as client:
                return client.get("/who").body

        answers = [ask() for _ in range(6)]
        pair.a.kill()
        left = {ask() for _ in range(10)}

        assert answers in ([b"a", b"b"] * 3, [b"b", b"a"] * 3)
        assert left == {b"b"}
        assert endpoints(program)[str(pair.a.port)]["failures"] == {"upstream_connect_refused": 5}


class TestCrash:
    def test_only_the_request_that_was_on_it_fails(self, launch: Launch, pair: Pair, material: Material) -> None:
        """It is answered with 502; the one on the other backend goes on."""
        program = launch(upstream=pair.upstream, **material.settings)
        context = material.context()
        with HttpsClient(program, context=context) as one, HttpsClient(program, context=context) as other:
            for client in (one, other):
                client.send(request("/never"))
            eventually(lambda: [each["active"] for each in endpoints(program).values()] == [1, 1], "each has one")
            pair.a.kill()
            eventually(lambda: bool(program.access_log()), "one is answered")
            active = {address: each["active"] for address, each in endpoints(program).items()}
            [line] = program.access_log()

        assert active == {str(pair.a.port): 0, str(pair.b.port): 1}
        assert (line["upstream"], line["status"], line["reason"]) == (str(pair.a.port), 502, "upstream_reset")

    def test_without_checks_nobody_notices(self, launch: Launch, pair: Pair, material: Material) -> None:
        """
        Requests that meet a dead backend go to the other; after some it gets none for a while; when that is over and it
        is back, it gets its share again.
        """
        clusters = pair.cluster(outlier_detection={"base_ejection_time": "2s"})
        program = launch(
            virtual_hosts=json.dumps([{"routes": [{"cluster": "app"}]}]), clusters=clusters, **material.settings
        )
        load = Load(program, material.context())
        with load.running():
            assert set(names(load.go_on())) == {"a", "b"}
            pair.a.kill()
            killed_at = time.monotonic()
            eventually(is_taken_for(program, pair.a, "ejected"), "/clusters says that it is ejected")
            assert set(names(load.go_on())) == {"b"}
            pair.a.start()
            eventually(lambda: "a" in names(load.go_on(20)), "it is asked again")
            eventually(is_taken_for(program, pair.a, "healthy"), "/clusters says that it is healthy")
            shares = names(load.go_on())
        since = load.since(killed_at)

        assert abs(shares["a"] - shares["b"]) <= CLIENTS
        assert failed(since) == []
        assert len(failed(load.outcomes)) <= CLIENTS
        assert {outcome.status for outcome in load.outcomes} <= {200, 502}
        assert "gets no requests for 2 s after 5 failures in a row" in program.stderr

    def test_with_checks_it_is_out_until_it_is_well(self, launch: Launch, pair: Pair, material: Material) -> None:
        """The health check finds out that it is dead, and that it is back; /clusters says why it gets nothing."""
        check = {"path": "/hello", "interval": "100ms", "jitter": 0}
        clusters = pair.cluster(health_check=check, outlier_detection="off")
        program = launch(
            virtual_hosts=json.dumps([{"routes": [{"cluster": "app"}]}]), clusters=clusters, **material.settings
        )
        load = Load(program, material.context())
        with load.running():
            assert set(names(load.go_on())) == {"a", "b"}
            pair.a.kill()
            killed_at = time.monotonic()
            eventually(is_taken_for(program, pair.a, "unhealthy"), "/clusters says that it is unhealthy")
            assert endpoints(program)[str(pair.a.port)]["why"]
            assert set(names(load.go_on())) == {"b"}
            pair.a.start()
            eventually(is_taken_for(program, pair.a, "healthy"), "/clusters says that it is healthy")
            shares = names(load.go_on())
        since = load.since(killed_at)

        assert abs(shares["a"] - shares["b"]) <= CLIENTS
        assert failed(since) == []
        assert len(failed(load.outcomes)) <= CLIENTS
        assert f"{pair.a.port} is healthy again" in program.stderr

    def test_both_dead_is_told_and_ends_by_itself(self, launch: Launch, pair: Pair, material: Material) -> None:
        """Without any backend the answer is 502 or 503, readiness fails and says why, until one is back."""
        program = launch(upstream=pair.upstream, **material.settings)
        with HttpsClient(program, context=material.context()) as client:
            assert client.get("/who").status == 200
        pair.a.kill()
        pair.b.kill()
        with HttpsClient(program, context=material.context()) as client:
            assert client.get("/who").status in (502, 503)
        status, body = program.admin("/ready")
        assert (status, "refuse" in body.decode()) == (503, True)
        pair.b.start()
        eventually(lambda: program.admin("/ready")[0] == 200, "it is ready again")
        with HttpsClient(program, context=material.context()) as client:
            assert client.get("/who").body == b"b"


class TestSmallForm:
    @pytest.mark.parametrize("check", ["/hello", "tcp"])
    def test_health_check_knows_at_once(self, launch: Launch, pair: Pair, material: Material, check: str) -> None:
        """SIDECAR_UPSTREAM_HEALTH_CHECK: a backend that is not there when the first check looks gets no request."""
        pair.a.kill()
        program = launch(upstream=pair.upstream, upstream_health_check=check, **material.settings)
        eventually(is_taken_for(program, pair.a, "unhealthy"), "the first check counts")
        with HttpsClient(program, context=material.context()) as client:
            answers = {client.get("/who").body for _ in range(10)}

        assert answers == {b"b"}
        assert endpoints(program)[str(pair.a.port)]["last_error"] == ""

    def test_wrong_answer_to_the_check_counts(self, pair: Pair, material: Material, tmp_path: Path) -> None:
        """
        A path that the apps do not know makes both unhealthy, and readiness says so; being all there is, they are used
        even so.
        """
        settings = {"upstream": pair.upstream, "upstream_health_check": "/nowhere", **material.settings}
        with closing(Program(tmp_path / "sidecar", **settings)) as program:
            program.wait_until_live()
            eventually(is_taken_for(program, pair.a, "unhealthy"), "the first check counts")
            eventually(is_taken_for(program, pair.b, "unhealthy"), "the other's too")
            with HttpsClient(program, context=material.context()) as client:
                answers = {client.get("/who").body for _ in range(2)}
            why = endpoints(program)[str(pair.a.port)]["why"]
            status, body = program.admin("/ready")

        assert answers == {b"a", b"b"}
        assert why == "the answer to GET /nowhere is 404"
        assert (status, why in body.decode()) == (503, True)
        assert "under the panic_threshold of 50 %" in program.stderr
