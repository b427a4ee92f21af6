"""
Ensures that who comes from Envoy changes one word of the command: the front proxy's file serves as it is, and what
cannot be carried over is said by every command, with its path and line.
"""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import Final

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, curl, request, s_client
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import intermediate, rsa_key
from tests.support.program import Neighbour, Port, Program, eventually, server_certificate, sidecar_command

NAME: Final = "service.example.com"
LINE: Final = "Hello from the service behind the proxy!\n"

FRONT_PROXY: Final = Template(Path(__file__).with_name("front-proxy.yaml").read_text())
REDIRECT: Final = Template(Path(__file__).with_name("redirect.yaml").read_text())
LEFTOVERS: Final = Template(Path(__file__).with_name("leftovers.yaml").read_text())


# -- the front proxy ---------------------------------------------------------------------------------------------


class WellKnownPort(Port):
    """A port that everybody knows, on 127.0.0.1; for who may listen on it, and if nobody else does: OSError if not."""

    def __init__(self, number: int) -> None:
        self.host = "127.0.0.1"
        self.number = number
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((self.host, number))
        except OSError:
            self._socket.close()
            raise


@attrs.frozen
class Ports:
    """What the file says."""

    service: Port
    app: Port
    admin: Port


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    """443, 8080 and 8081, as in the file; where they cannot be had, as without root, others in their place."""
    with ExitStack() as stack:
        yield Ports(*_ports_of_the_file(stack))


def _ports_of_the_file(stack: ExitStack) -> list[Port]:
    with ExitStack() as attempt:
        try:
            # Bound ports do not keep each other out as listening ones do: another run of these tests might have them.
            attempt.enter_context(socket.socket(socket.AF_UNIX)).bind("\0sidecar tests: front-proxy.yaml")
            found: list[Port] = [attempt.enter_context(WellKnownPort(number)) for number in (443, 8080, 8081)]
        except OSError:
            return [stack.enter_context(Port()) for _ in range(3)]
        stack.push(attempt.pop_all())
        return found


@pytest.fixture(scope="module")
def front_proxy(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, beside it the certificate that an intermediate CA has signed, with its chain, and the key."""
    directory = tmp_path_factory.mktemp("front-proxy")
    intermediate().issue(NAME, key=rsa_key()).write(directory, "service.pem", "service.key")
    file = directory / "front-proxy.yaml"
    numbers = {"port": ports.service.number, "app_port": ports.app.number, "admin_port": ports.admin.number}
    file.write_text(FRONT_PROXY.substitute(numbers, certs=directory))
    return file


@pytest.fixture(scope="module")
def service(ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbour]:
    """The Flask app on 8080."""
    app = str(Path(__file__).with_name("flask_service.py"))
    command = (sys.executable, "-m", "flask", "--app", app, "run", "--port", str(ports.app.number))
    with Neighbour(tmp_path_factory.mktemp("app"), ports.app, *command) as running:
        yield running


def run_with(directory: Path, arguments: str, ports: Ports) -> Program:
    """Start ``sidecar run`` with *arguments*; what it listens on, they say, and no variable does."""
    prefix = ("sh", "-c", f'exec "$@" {arguments}', "sh")
    program = Program(directory, prefix=prefix, tls_cert=None, listen=None, admin=None)
    program.port, program.admin_port = ports.service.number, ports.admin.number
    return program


@pytest.fixture(scope="module", params=["unchanged", "imported"])
def sidecar(
    request: pytest.FixtureRequest,
    front_proxy: Path,
    ports: Ports,
    service: Neighbour,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    """``sidecar run --envoy FILE --strict``; and ``sidecar run --config`` with what ``import-envoy`` prints of it."""
    directory = tmp_path_factory.mktemp("sidecar")
    arguments = f"--envoy {front_proxy} --strict"
    if request.param == "imported":
        (directory / "sidecar.yaml").write_text(sidecar_command("import-envoy", str(front_proxy), "--strict").stdout)
        arguments = f"--config {directory / 'sidecar.yaml'}"
    with run_with(directory, arguments, ports) as running:
        yield running


class TestFrontProxy:
    def test_nothing_of_it_is_left_out(self, front_proxy: Path) -> None:
        """`check --strict` finds all that it says here too; what it means otherwise are warnings."""
        done = sidecar_command("check", "--envoy", str(front_proxy), "--strict")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("configuration ok\n")
        assert "not carried over" not in done.stdout
        assert "it has no authentication" in done.stdout

    def test_openssl_shows_and_verifies_the_chain(self, sidecar: Program) -> None:
        """`openssl s_client -showcerts -servername NAME` gets the whole chain file, and verifies it."""
        done = s_client(
            sidecar, "-showcerts", "-servername", NAME, "-verify_hostname", NAME,
            input=request("/service", "Connection: close", host=NAME),
        )  # fmt: skip

        assert done.returncode == 0
        assert "Verify return code: 0 (ok)" in done.stdout
        assert done.stdout.count("BEGIN CERTIFICATE") == 2
        assert LINE in done.stdout

    def test_curl_with_the_ca_prints_the_line(self, sidecar: Program) -> None:
        """`curl --cacert FILE https://NAME/service` prints the app's line, with the port only where it has to."""
        port = "" if sidecar.port == 443 else f":{sidecar.port}"
        resolve = f"{NAME}:{sidecar.port}:127.0.0.1"

        done = curl(sidecar, "--resolve", resolve, f"https://{NAME}{port}/service")

        assert (done.returncode, done.stdout, done.stderr) == (0, LINE, "")

    def test_health_check_of_a_load_balancer_succeeds(self, sidecar: Program) -> None:
        """A client without SNI that verifies nothing and names us by address, as an ALB does, gets 200."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

        with HttpsClient(sidecar, context=context, server_name=None) as client:
            response = client.get("/service", "User-Agent: ELB-HealthChecker/2.0")

        assert (response.status, response.body) == (200, LINE.encode())

    def test_admin_listener_is_where_the_file_has_it(self, sidecar: Program) -> None:
        """It tells of the cluster by its name, and where its endpoint is."""
        status, page = sidecar.admin("/clusters")
        [cluster] = json.loads(page)["clusters"]

        assert status == 200
        assert cluster["upstream"] == "127.0.0.1:8080" or sidecar.port != 443
        assert "local_service" in page.decode()

    def test_access_log_is_off(self, sidecar: Program) -> None:
        """As in the file, requests leave no line."""
        with HttpsClient(sidecar, server_name=NAME) as client:
            assert client.get("/service").status == 200

        assert sidecar.stdout == ""


# -- what is left out --------------------------------------------------------------------------------------------

RBAC: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"

INGRESS: Final = "static_resources.listeners[0]"
HTTP: Final = f"{INGRESS}.filter_chains[0].filters[0].typed_config"
HOST: Final = f"{HTTP}.route_config.virtual_hosts[0]"

LEFT_OUT: Final = {
    f"{INGRESS}.tcp_backlog_size": 6,
    f"{HTTP}.add_user_agent": 20,
    f"{HOST}.surprise": 26,
    f"{HOST}.routes[1].route.hash_policy": 31,
    "static_resources.overload": 40,
}
"""Path -> line of what of the file above is not carried over."""

DANGEROUS: Final = {
    "filter": ({"filters": f"{{name: rbac, typed_config: {{'@type': {RBAC}}}}}"}, 21),
    "condition": ({"condition": "query_parameters: [{name: admin}]"}, 28),
    "limit": ({"action": "rate_limits: [{actions: [{remote_address: {}}]}]"}, 31),
    "removal": ({"action": "request_headers_to_remove: [x-user]"}, 31),
}
"""What would let somebody in, or something through, without it -> what the file says, and its line."""


@attrs.frozen
class Leftovers:
    """A file of which some is left out, before an app that answers /hello."""

    directory: Path
    port: Port
    app: App

    def write(self, **more: str) -> Path:
        """Write it, with *more* where the template has a place for that."""
        file = self.directory / "envoy.yaml"
        known = {"filters": "", "condition": "", "action": "", "text": "fixed", "certs": str(self.directory)}
        file.write_text(LEFTOVERS.substitute(known | more, port=self.port.number, app=self.app.port))
        return file


@pytest.fixture
def leftovers(own_app: App, tmp_path: Path) -> Iterator[Leftovers]:
    """Its certificate beside it; what it listens on is the kernel's choice."""
    server_certificate(tmp_path)
    with Port() as port:
        yield Leftovers(tmp_path, port, own_app)


@pytest.fixture
def run(launch: Launch, leftovers: Leftovers) -> Callable[[Path], Program]:
    """Start ``sidecar run`` with a file of `leftovers`, which a variable names."""

    def start(file: Path) -> Program:
        program = launch(envoy=str(file), tls_cert=None, listen=None)
        program.port = leftovers.port.number
        return program

    return start


def command(name: str, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sidecar_command(name, "--envoy", str(file), *arguments)


COMMANDS: Final = ("check", "run", "import-envoy")


class TestLeftOut:
    def test_check_lists_all_of_it_with_lines(self, leftovers: Leftovers) -> None:
        """`check` passes, and warns of each with its path and line."""
        file = leftovers.write()
        done = command("check", file)
        start = f"warning: {file}: not carried over: "
        told = [line.removeprefix(start) for line in done.stdout.splitlines() if line.startswith(start)]

        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split(":")[0] for line in told] == [f"{path} (line {line})" for path, line in LEFT_OUT.items()]

    def test_import_puts_it_at_the_top(self, leftovers: Leftovers) -> None:
        """What `import-envoy` prints begins with it, in comments."""
        done = command("import-envoy", leftovers.write())
        told = [line for line in done.stdout.splitlines() if line.startswith("# - static_resources.")]

        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split(":")[0] for line in told] == [f"# - {path} (line {line})" for path, line in LEFT_OUT.items()]

    def test_run_warns_of_it_and_serves(self, leftovers: Leftovers, run: Callable[[Path], Program]) -> None:
        """Each is a warning in the log, and the rest does what the file says."""
        file = leftovers.write()
        program = run(file)
        with HttpsClient(program) as client:
            answers = client.get("/hello").body, client.get("/fixed").body
        told = [line for line in program.stderr.splitlines() if " warn " in line and "not carried over: " in line]

        assert answers == (b"hello\n", b"fixed")
        assert [line.partition("carried over: ")[2].split(":")[0] for line in told] == [
            f"{path} (line {line})" for path, line in LEFT_OUT.items()
        ]

    @pytest.mark.parametrize("name", COMMANDS)
    def test_strict_makes_errors_of_it(self, leftovers: Leftovers, name: str) -> None:
        """With `--strict` no command does anything but say what is left out, with file and line, and exit with 78."""
        file = leftovers.write()
        done = command(name, file, "--strict")
        told = [line.removeprefix("sidecar: ").split(": ")[0] for line in done.stderr.splitlines()]

        assert (done.returncode, done.stdout) == (78, "")
        assert told == [f"{path} ({file}:{line})" for path, line in LEFT_OUT.items()]

    @pytest.mark.parametrize("what", DANGEROUS)
    @pytest.mark.parametrize("name", COMMANDS)
    def test_safeguard_is_never_left_out(self, leftovers: Leftovers, name: str, what: str) -> None:
        """What keeps somebody out, or something away from the app, is an error without `--strict` too."""
        more, number = DANGEROUS[what]
        file = leftovers.write(**more)
        done = command(name, file)

        assert (done.returncode, done.stdout) == (78, "")
        [line] = done.stderr.splitlines()
        assert f"({file}:{number}): " in line
        assert "without it" in line


class TestReload:
    def test_changed_file_is_in_force_and_a_bad_one_is_not(
        self, leftovers: Leftovers, run: Callable[[Path], Program]
    ) -> None:
        """SIGHUP reads the file again; what cannot be carried over changes nothing, and the log has its line."""
        file = leftovers.write(text="before")
        program = run(file)

        def answer() -> bytes:
            with HttpsClient(program) as client:
                return client.get("/fixed").body

        assert answer() == b"before"
        leftovers.write(text="after")
        program.signal(signal.SIGHUP)
        eventually(lambda: answer() == b"after", "the file is read again")
        leftovers.write(text="never", condition="query_parameters: [{name: admin}]")
        program.signal(signal.SIGHUP)
        eventually(lambda: "reload failed" in program.stderr, "the log says what is wrong")

        assert f"{file}:28" in program.stderr
        assert answer() == b"after"


class TestPlainListener:
    def test_program_without_tls_is_ready(self, tmp_path: Path) -> None:
        """A file whose only listener sends clients to https needs no certificate, and a balancer may look at /ready."""
        file = tmp_path / "redirect.yaml"
        with Port() as port:
            file.write_text(REDIRECT.substitute(port=port.number))
            program = Program(tmp_path, envoy=str(file), tls_cert=None, listen=None, may_log_traceback=True)
            try:
                eventually(lambda: "serving plain http" in program.stderr, "it serves")
                status, body = program.admin("/ready")
            finally:
                program.close()

        assert (status, "Traceback" in program.stderr) == (200, False), body
