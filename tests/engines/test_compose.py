"""Ensures that the local stack does what README.md says of it, typed as it stands there, and fails readably."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, Self

import attrs
import pytest

from tests.support.engines import docker, lacking, run, tool
from tests.support.program import ROOT, Port, eventually, installed

README = ROOT / "README.md"
HEADING = "## docker compose"

SIDECARS = ("sidecar", "sidecar-mtls")
ALL = ("--profile", "mtls")
HEALTHY_SECONDS = 30.0
DEADLINE_SECONDS = 10.0

pytestmark = pytest.mark.usefixtures("image", "app_image")


@attrs.frozen
class Step:
    """A command of the README, and what it says comes out on standard output; a line ``...`` stands for any."""

    command: str
    output: str

    def is_met_by(self, output: str) -> bool:
        pattern = "".join(
            r"(?:.*\n)*?" if line == "...\n" else re.escape(line) for line in self.output.splitlines(keepends=True)
        )
        plain = re.sub(r" +$", "", output, flags=re.MULTILINE)  # curl ends the status line of HTTP/2 with a blank
        return re.fullmatch(pattern, plain) is not None


def steps_of(markdown: str, heading: str) -> list[Step]:
    """Return what the console blocks under a heading say."""
    section = markdown.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    found = [re.fullmatch(r"((?:.*\\\n)*.*)\n((?:.*\n)*)", step) for step in steps]
    return [Step(match[1], match[2]) for match in found if match]


class Stack:
    """
    A project of compose.yaml with ports of its own, for ``with``; whatever is left of it at the end is taken away.

    Attributes:
        directory: Where commands are run.
        port: Where TLS is served.
        mtls_port: Where a client certificate is demanded.
    """

    def __init__(self, directory: Path, program: str = "docker compose") -> None:
        """
        Args:
            program: ``docker compose`` or ``docker-compose``.
        """
        self.directory = directory
        self.name = f"sidecar-test-{uuid.uuid4().hex[:12]}"
        self._ports = (Port(), Port())
        self.port, self.mtls_port = (port.number for port in self._ports)
        self._program = program
        files = [ROOT / "compose.yaml"]
        self._is_first_generation = self("version", "--short", files=files).stdout.startswith("1.")
        if self._is_first_generation:
            files.append(self._engines_network_options())
        self._files = files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self(*ALL, "logs", "--no-color", statuses=range(256)).stdout)
        self(*ALL, "down", "--volumes", "--timeout", "1")
        for port in self._ports:
            port.close()

    def _engines_network_options(self) -> Path:
        """
        docker-compose 1 takes the options that an engine gives to every network for a change of the file, and refuses
        each command but the first; so they are put into the file.
        """
        bridge = json.loads(docker("network", "inspect", "bridge"))[0]["Options"]
        mtu = "com.docker.network.driver.mtu"
        file = self.directory / "network.json"
        file.write_text(json.dumps({"networks": {"default": {"driver_opts": {mtu: bridge.get(mtu, "1500")}}}}))
        return file

    # -- commands --

    def __call__(
        self, *words: str | Path, statuses: Sequence[int] = (0,), files: Sequence[Path] = ()
    ) -> CompletedProcess[str]:
        """Run a command of compose."""
        return run(
            *self._program.split(),
            *words,
            statuses=statuses,
            environ=self._environ(files or self._files),
            cwd=self.directory,
        )

    def type(self, command: str) -> str:
        """Run a command as it stands in the README, but for its ports; return its standard output."""
        command = command.replace("localhost:8443", f"localhost:{self.port}")
        command = command.replace("localhost:8444", f"localhost:{self.mtls_port}")
        if self._is_first_generation:
            command = command.replace(" --wait", "")
            command = re.sub(r"docker compose cp (\S+?):", r'docker cp "$(docker-compose ps -q \1)":', command)
        command = command.replace("docker compose", self._program)
        done = run("sh", "-c", command, environ=self._environ(self._files), cwd=self.directory)
        if self._is_first_generation and " up " in command:
            self.wait_until_healthy()
        return done.stdout

    def _environ(self, files: Sequence[Path]) -> dict[str, str]:
        return {
            "COMPOSE_FILE": ":".join(map(str, files)),
            "COMPOSE_PROJECT_NAME": self.name,
            "PORT": str(self.port),
            "MTLS_PORT": str(self.mtls_port),
            "NO_PROXY": "localhost",
            "no_proxy": "localhost",
        }

    # -- what the engine says --

    def wait_until_healthy(self) -> None:
        """Wait until every sidecar that runs is healthy."""

        def are_healthy() -> bool:
            found = [self.inspect(service) for service in SIDECARS if self.container(service)]
            return all(container["State"]["Health"]["Status"] == "healthy" for container in found)

        eventually(are_healthy, "the sidecars are healthy", HEALTHY_SECONDS)

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not; "" if it has none."""
        labels = (f"project={self.name}", f"service={service}", "oneoff=False")
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        return docker("ps", "--all", "--quiet", *filters)

    def inspect(self, service: str) -> dict[str, Any]:
        """Return all that the engine says of a service's container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)))[0]
        return found

    def remains(self) -> list[str]:
        """Return the containers, volumes and networks of this project."""
        mine = f"--filter=label=com.docker.compose.project={self.name}"
        listings = (("ps", "--all", "--quiet"), ("volume", "ls", "--quiet"), ("network", "ls", "--quiet"))
        return [name for words in listings for name in docker(*words, mine).splitlines()]

    # -- what clients see --

    def fetch_client_files(self) -> None:
        """Copy what a client needs, as the README says."""
        self("cp", "sidecar:/certs/ca.crt", ".")
        self("cp", "certs:/ca/client", ".")

    def context(self) -> ssl.SSLContext:
        """A client that trusts the stack's CA and has a certificate of it."""
        context = ssl.create_default_context(cafile=self.directory / "ca.crt")
        context.load_cert_chain(self.directory / "client" / "client.crt", self.directory / "client" / "client.key")
        return context

    def ask(self, port: int) -> int:
        """Ask for /service on a new connection; return the status."""
        connection = self.connection(port)
        try:
            return status_of(connection)
        finally:
            connection.close()

    def connection(self, port: int) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", port, timeout=DEADLINE_SECONDS, context=self.context())

    def serial(self, port: int) -> str:
        """Return the serial number of the certificate that is served."""
        with (
            socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            certificate = secured.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])

    def serials(self) -> list[str]:
        """Return those of both sidecars."""
        return [self.serial(port) for port in (self.port, self.mtls_port)]


def status_of(connection: http.client.HTTPSConnection) -> int:
    """Ask for /service, and read the answer whole; return the status."""
    connection.request("GET", "/service")
    response = connection.getresponse()
    assert response.read() == b"Hello from app\n"
    return response.status


def programs_lines(text: str) -> list[str]:
    """Return the lines of the sidecar itself, without those of compose about containers."""
    return [line for line in text.splitlines() if re.match(r"sidecar( certs)?: ", line)]


class TestReadme:
    @pytest.mark.parametrize("program", ["docker compose", "docker-compose"])
    def test_commands_answer_as_it_says(self, tmp_path: Path, program: str) -> None:
        """Both profiles answer what the README shows, whatever compose is called; the last command leaves nothing."""
        tool(program.split()[0])
        installed("curl")
        steps = steps_of(README.read_text(encoding="utf-8"), HEADING)
        commands = " ".join(step.command for step in steps)
        assert all(word in commands for word in ("localhost:8443", "localhost:8444", "certs renew")), (
            f"{HEADING}: {commands}"
        )
        with Stack(tmp_path, program) as stack:
            for step in steps:
                output = stack.type(step.command)
                assert step.is_met_by(output), f"$ {step.command}\n{output}\ninstead of\n{step.output}"
            assert stack.remains() == []


@pytest.fixture(scope="module")
def stack(image: str, app_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, serving."""
    if run("docker", "compose", "version", statuses=range(256)).returncode != 0:
        lacking("docker compose")
    with Stack(tmp_path_factory.mktemp("compose")) as running:
        running(*ALL, "up", "--detach", "--wait")
        running.fetch_client_files()
        yield running


class TestContainers:
    @pytest.mark.parametrize("service", ["app", *SIDECARS, "ca", "certs"])
    def test_runs_with_nothing_to_gain(self, stack: Stack, service: str) -> None:
        """The engine has been told: not root, read-only, no capability, no new privileges."""
        container = stack.inspect(service)
        assert container["Config"]["User"] == ("65533:65533" if service == "app" else "65532:65532")
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert not container["HostConfig"]["CapAdd"]
        assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]

    @pytest.mark.parametrize("service", SIDECARS)
    def test_sidecar_has_the_certificates_and_no_other_key(self, stack: Stack, service: str) -> None:
        """Its one mount is read-only and holds neither the CA's key nor the client's."""
        mounts = [(mount["Name"], mount["Destination"], mount["RW"]) for mount in stack.inspect(service)["Mounts"]]
        assert mounts == [(f"{stack.name}_certs", "/certs", False)]
        stack("cp", f"{service}:/certs", f"seen-by-{service}")
        seen = {path.name for path in (stack.directory / f"seen-by-{service}").iterdir()}
        assert seen == {"tls.crt", "tls.key", "ca.crt"}

    @pytest.mark.parametrize("service", SIDECARS)
    def test_is_given_thirty_seconds_to_stop(self, stack: Stack, service: str) -> None:
        """The engine's own are ten, half of what the sidecar takes at most."""
        assert stack.inspect(service)["Config"]["StopTimeout"] == 30

    def test_only_this_machine_gets_in(self, stack: Stack) -> None:
        """Ports are published on the loopback address, and the app's own is not among them."""
        ports = stack.inspect("app")["NetworkSettings"]["Ports"]
        published = {
            port: [(at["HostIp"], at["HostPort"]) for at in places] for port, places in ports.items() if places
        }
        assert published == {
            "443/tcp": [("127.0.0.1", str(stack.port))],
            "8444/tcp": [("127.0.0.1", str(stack.mtls_port))],
        }


class TestCertificates:
    def test_renewal_under_load_loses_nothing(self, stack: Stack) -> None:
        """
        One command makes new ones; they are served soon, and each request meanwhile has its answer. The CA stays, so
        client certificates from before and from after both let in.
        """
        before = stack.serials()
        ended = threading.Event()

        def ask_on_new_connections() -> list[int]:
            statuses = []
            while not ended.is_set():
                statuses.append(stack.ask(stack.port))
            return statuses

        def ask_on_one_connection() -> list[int]:
            connection, statuses = stack.connection(stack.mtls_port), []
            connection.connect()
            connection.auto_open = 0  # no second connection in silence
            while not ended.is_set():
                statuses.append(status_of(connection))
            connection.close()
            return statuses

        with ThreadPoolExecutor() as pool:
            clients = [pool.submit(ask_on_new_connections), pool.submit(ask_on_one_connection)]
            try:
                stack("run", "--rm", "certs", "renew")
                eventually(lambda: not set(before) & set(stack.serials()), "the new certificates are served")
            finally:
                ended.set()
        answers = [client.result() for client in clients]
        assert min(map(len, answers)) >= 5
        assert {status for statuses in answers for status in statuses} == {200}

        old = (stack.directory / "client" / "client.crt").read_bytes()
        assert stack.ask(stack.mtls_port) == 200
        stack.fetch_client_files()
        assert (stack.directory / "client" / "client.crt").read_bytes() != old
        assert stack.ask(stack.mtls_port) == 200

    def test_what_is_no_longer_good_is_made_anew_by_up(self, stack: Stack) -> None:
        """A certificate that does not pass, here a torn file, is replaced at the next start."""
        before = stack.serials()
        torn = stack.directory / "tls.crt"
        torn.write_text("-----BEGIN CERTIFICATE-----\n")
        stack("cp", "tls.crt", "certs:/certs/tls.crt")
        stack(*ALL, "up", "--detach", "--wait")
        eventually(lambda: not set(before) & set(stack.serials()), "the new certificate is served")
        assert stack.ask(stack.mtls_port) == 200


class TestLife:
    def test_app_that_was_restarted_alone_is_found_again(self, stack: Stack) -> None:
        """Its network ended with it; the README's command joins the sidecars to the new one."""
        stack("restart", "--timeout", "1", "app")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            stack.ask(stack.port)
        stack(*ALL, "up", "--detach", "--wait", "--force-recreate")
        assert [stack.ask(port) for port in (stack.port, stack.mtls_port)] == [200, 200]

    def test_stop_kills_nobody_and_the_next_up_keeps_the_certificates(self, stack: Stack) -> None:
        """Each service ends by itself, the sidecars before the app, and the stack goes on as it was."""
        before = stack.serials()
        stack(*ALL, "stop")
        ends = [stack.inspect(service)["State"] for service in (*SIDECARS, "app")]
        assert [end["ExitCode"] for end in ends] == [0, 0, 0]
        *sidecars, app = [datetime.fromisoformat(end["FinishedAt"]) for end in ends]
        assert max(sidecars) <= app
        stack(*ALL, "up", "--detach", "--wait")
        assert stack.serials() == before


class TestWhatGoesWrong:
    @pytest.fixture
    def fresh(self, tmp_path: Path, stack: Stack) -> Iterator[Stack]:
        """A stack of which nothing has been made yet, beside the other."""
        with Stack(tmp_path) as one:
            yield one

    def test_no_certificates_are_one_line_and_78(self, fresh: Stack) -> None:
        """An empty volume, and nobody who fills it: the sidecar says so, and ends at once with the status for that."""
        fresh("up", "--detach", "app")
        ended = fresh("run", "--rm", "--no-deps", "sidecar", statuses=(78,))
        (line,) = programs_lines(ended.stdout + ended.stderr)
        assert "SIDECAR_TLS_CERT" in line
        assert "/certs is a directory without tls.crt" in line

    def test_failed_starts_are_readable_and_no_hindrance(self, fresh: Stack, stack: Stack) -> None:
        """Renewing what was never made is refused in one line, a taken port is named; then `up` just works."""
        refused = fresh("run", "--rm", "--no-deps", "certs", "renew", statuses=(78,))
        (line,) = programs_lines(refused.stdout + refused.stderr)
        assert "there is no CA in /ca" in line

        free, fresh.port = fresh.port, stack.port
        failed = fresh("up", "--detach", "--wait", statuses=(1,))
        assert re.search(rf"127\.0\.0\.1:{stack.port}\b.*already", failed.stderr), failed.stderr

        fresh.port = free
        fresh("up", "--detach", "--wait")
        fresh.fetch_client_files()
        assert fresh.ask(fresh.port) == 200


class TestBothPrograms:
    @pytest.mark.parametrize("program", ["docker compose", "docker-compose"])
    def test_file_is_valid_without_a_warning(self, program: str, tmp_path: Path) -> None:
        """`config --quiet` has nothing to say: no unknown key, no obsolete one, no variable without a value."""
        tool(program.split()[0])
        done = run(
            *program.split(), "--profile", "mtls", "--file", ROOT / "compose.yaml", "config", "--quiet", cwd=tmp_path
        )
        assert (done.stdout, done.stderr) == ("", "")
