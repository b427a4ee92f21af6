"""
Ensures that behind a balancer that passes TCP through, here HAProxy, clients are judged by their certificates and known
by their addresses, whichever version of the PROXY protocol it speaks; that its health checks are no news; and that
nobody else can say who he is.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, curl, in_parallel, write_identity
from tests.scenarios.conftest import Launch
from tests.support import proxyheaders
from tests.support.apps import App
from tests.support.certs import CLIENT, authority, intermediate, keystore, other_authority, rsa_key, truststore
from tests.support.program import Neighbour, Port, Program, eventually, sidecar_command

CLIENT_ADDRESS = "127.0.0.2"
BALANCER_ADDRESS = "127.0.0.9"

MODES = {"true": "required", "want": "optional", "false": "none"}
"""Tomcat's clientAuth, and what we call it."""

VARIANTS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2 with options": "send-proxy-v2 proxy-v2-options ssl,unique-id,crc32c",
}
"""How the balancer says who the client is, in its own words."""

CHECKS = {
    "with a header": ("send-proxy-v2 check", ()),
    "with a header of version 1": ("send-proxy check", ()),
    "connects and closes": ("send-proxy-v2 check", ("option tcp-check", "tcp-check connect")),
    "with a handshake": ("send-proxy-v2 check check-ssl verify none", ()),
}
"""How the balancer looks after its server: options of the server, and lines beside it."""


# -- the balancer ------------------------------------------------------------------------------------------------


def haproxy(directory: Path, port: Port, server: Program, options: str, lines: tuple[str, ...] = ()) -> Neighbour:
    """HAProxy in mode tcp on *port*, in front of *server*; *options* are those of its server line."""
    lines = ("mode tcp", "unique-id-format conn-%ci-%cp", *lines)
    return haproxy_in_front_of(directory, port, address(server), f"source {BALANCER_ADDRESS} {options}", lines)


def haproxy_in_front_of(
    directory: Path, port: Port, server: str, options: str, lines: tuple[str, ...], bind: str = ""
) -> Neighbour:
    """HAProxy on *port*, in front of what is at the address *server*; *lines* are of its one section."""
    text = [
        "defaults",
        "timeout connect 5s",
        "timeout client 30s",
        "timeout server 30s",
        "listen sidecar",
        f"bind {port} {bind}",
        *lines,
        f"server server {server} {options}",
    ]
    file = directory / f"haproxy-{port.number}.cfg"
    file.write_text("\n".join(text) + "\n")
    return Neighbour(directory, port, "haproxy", "-db", "-f", str(file))


@attrs.frozen
class Balanced:
    """A sidecar, and where the balancer in front of it listens."""

    program: Program
    port: Port

    def curl(self, path: str, *arguments: str) -> str:
        """What a client on `CLIENT_ADDRESS` is answered through the balancer, and with which status."""
        url = f"https://localhost:{self.port.number}{path}"
        options = ("--ipv4", "--interface", CLIENT_ADDRESS, "--resolve", f"localhost:{self.port.number}:127.0.0.1")
        return curl(self.program, *options, "-w", "\n%{http_code}", *arguments, url).stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("balanced")


@pytest.fixture(scope="module")
def settings(directory: Path) -> dict[str, str]:
    """Key material as Tomcat has it: a keystore and a truststore with several roots, one password for both."""
    server = intermediate().issue("localhost", key=rsa_key())
    (directory / "keystore.p12").write_bytes(keystore(server))
    (directory / "truststore.p12").write_bytes(truststore(authority().certificate, intermediate().certificate))
    (directory / "password").write_text("secret\n")
    return {
        "tls_cert": str(directory / "keystore.p12"),
        "tls_key_password": str(directory / "password"),
        "trusted_proxies": f"{BALANCER_ADDRESS}/32",
        "identity_headers": "xfcc",
    }


@pytest.fixture(scope="module")
def trust(directory: Path) -> str:
    return str(directory / "truststore.p12")


@pytest.fixture(scope="module")
def balanced(app: App, settings: dict[str, str], trust: str, directory: Path) -> Iterator[dict[str, Balanced]]:
    """A sidecar for each mode, each behind a balancer that speaks version 2."""
    with ExitStack() as stack:

        def start(mode: str) -> Balanced:
            certificates = {} if mode == "none" else {"client_ca": trust}
            program = stack.enter_context(
                Program(
                    directory / mode,
                    upstream=app.upstream,
                    client_cert=mode,
                    proxy_protocol="trusted",
                    **certificates,
                    **settings,
                )
            )
            port = stack.enter_context(Port())
            stack.enter_context(haproxy(directory, port, program, VARIANTS["v2"]))
            return Balanced(program, port)

        started = in_parallel([partial(start, mode) for mode in MODES.values()])
        yield dict(zip(MODES, started, strict=True))


@pytest.fixture(scope="module")
def identities(directory: Path) -> dict[str, tuple[str, ...]]:
    """What curl is told of each client's certificate."""
    right = write_identity(authority().issue("alice", purposes=CLIENT), directory / "right.pem")
    wrong = write_identity(other_authority().issue("mallory", purposes=CLIENT), directory / "wrong.pem")
    return {"none": (), "invalid": ("--cert", str(wrong)), "valid": ("--cert", str(right))}


# -- what is sent without a balancer -----------------------------------------------------------------------------


def answer_to(program: Program, data: bytes, source: str = "127.0.0.1") -> bytes:
    """What comes back for *data* as the first bytes of a connection from *source*; b"" for a cut one."""
    with socket.create_connection((program.host, program.port), 10.0, (source, 0)) as sock:
        sock.sendall(data)
        try:
            return sock.recv(65_536)
        except ConnectionResetError:
            return b""


def reasons(program: Program) -> dict[str, str]:
    """Why connections were turned away, each with the client's address, as /handshakes says."""
    page = json.loads(program.admin("/handshakes")[1])
    return {event["reason"]: event["client"] for event in page["rejections"]}


def address(program: Program) -> str:
    return f"{program.host}:{program.port}"


# -- tests -------------------------------------------------------------------------------------------------------


class TestClientAuth:
    @pytest.mark.parametrize(
        ("client_auth", "client", "status"),
        [
            ("true", "none", 400),
            ("true", "invalid", 403),
            ("true", "valid", 200),
            ("want", "none", 200),
            ("want", "invalid", 403),
            ("want", "valid", 200),
            ("false", "none", 200),
            ("false", "invalid", 200),
            ("false", "valid", 200),
        ],
    )
    def test_answer_is_what_the_certificate_deserves(
        self,
        balanced: dict[str, Balanced],
        identities: dict[str, tuple[str, ...]],
        client_auth: str,
        client: str,
        status: int,
    ) -> None:
        """True, want and false answer as in Tomcat, and the log knows the client whatever the answer is."""
        path = f"/hello/{client_auth}/{client}"
        answer = balanced[client_auth].curl(path, *identities[client])

        assert answer.endswith(f"\n{status}"), answer
        line = balanced[client_auth].program.logged(path)
        assert (line["status"], line["client"], line["via"]) == (status, CLIENT_ADDRESS, BALANCER_ADDRESS)
        is_known = client == "valid" and client_auth != "false"
        assert line.get("client_subject") == ("CN=alice" if is_known else None)


class TestHeader:
    @pytest.mark.parametrize("policy", ["trusted", "required"])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_app_and_log_know_address_and_name(
        self,
        launch: Launch,
        app: App,
        settings: dict[str, str],
        trust: str,
        tmp_path: Path,
        identities: dict[str, tuple[str, ...]],
        variant: str,
        policy: str,
    ) -> None:
        """Of the client, not of the balancer; what else the balancer says of the connection is told too."""
        program = launch(
            upstream=app.upstream, client_cert="required", client_ca=trust, proxy_protocol=policy, **settings
        )
        with Port() as port, haproxy(tmp_path, port, program, VARIANTS[variant]):
            answer = Balanced(program, port).curl("/echo/known", *identities["valid"], "-H", "X-Forwarded-For: 6.6.6.6")
        line = program.logged("/echo/known")
        seen = app.last("/echo/known")

        assert answer.endswith("\n200")
        assert seen.values("x-forwarded-for") == [CLIENT_ADDRESS]
        assert seen.values("x-forwarded-port") == [str(port.number)]
        assert 'Subject="CN=alice"' in seen.values("x-forwarded-client-cert")[0]
        assert (line["client"], line["via"]) == (CLIENT_ADDRESS, BALANCER_ADDRESS)
        assert line["client_subject"] == "CN=alice"
        unique_ids = seen.values("x-proxy-protocol-unique-id")
        if "unique-id" in VARIANTS[variant]:
            assert [each.startswith(f"conn-{CLIENT_ADDRESS}-") for each in unique_ids] == [True]
            assert bytes.fromhex(line["proxy_unique_id"]).decode() == unique_ids[0]
        else:
            assert (unique_ids, "proxy_unique_id" in line) == ([], False)

    def test_one_who_forges_a_header_is_refused(self, balanced: dict[str, Balanced]) -> None:
        """A client that is no trusted proxy, this machine included, cannot say that it is somebody else."""
        program = balanced["false"].program
        before = len(program.access_log())
        for header in (b"PROXY TCP4 10.1.2.3 127.0.0.1 1 443\r\n", proxyheaders.v2(proxyheaders.IPV4)):
            assert answer_to(program, header + proxyheaders.HELLO) == b""

        assert reasons(program) == {"proxy_header_untrusted": "127.0.0.1"}
        assert "SIDECAR_TRUSTED_PROXIES" in program.stderr or "trusted proxy" in program.stderr
        assert len(program.access_log()) == before

    def test_client_that_comes_directly_is_itself(self, balanced: dict[str, Balanced]) -> None:
        """Where a header may be and is not, the client is who connects; what it says of itself is not believed."""
        program = balanced["false"].program
        with HttpsClient(program) as client:
            seen = client.get("/echo/direct", "X-Forwarded-For: 6.6.6.6").json()["head"]

        assert "X-Forwarded-For: 127.0.0.1\r\n" in seen
        assert "6.6.6.6" not in seen
        line = program.logged("/echo/direct")
        assert (line["client"], "via" in line) == ("127.0.0.1", False)

    def test_header_that_is_required_is_missed(self, launch: Launch, app: App, settings: dict[str, str]) -> None:
        """Whoever comes without one is cut; the log names the remedy."""
        program = launch(upstream=app.upstream, proxy_protocol="required", **settings)

        assert answer_to(program, proxyheaders.HELLO, BALANCER_ADDRESS) == b""
        assert reasons(program) == {"proxy_header_missing": BALANCER_ADDRESS}
        assert "proxy_protocol_v2.enabled" in program.stderr

    def test_balancer_without_a_header_is_refused_if_told(
        self, launch: Launch, app: App, settings: dict[str, str]
    ) -> None:
        """SIDECAR_PROXY_PROTOCOL_MISSING=refuse: of the balancer alone a header is demanded."""
        program = launch(upstream=app.upstream, proxy_protocol="trusted", proxy_protocol_missing="refuse", **settings)

        assert answer_to(program, proxyheaders.HELLO, BALANCER_ADDRESS) == b""
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200
        assert reasons(program) == {"proxy_header_missing": BALANCER_ADDRESS}


class TestTowardsTheApp:
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_haproxy_as_the_app_understands_our_header(
        self, launch: Launch, app: App, tmp_path: Path, version: str
    ) -> None:
        """SIDECAR_UPSTREAM_PROXY_PROTOCOL: it knows the client by it, request by request, and passes our checks."""
        lines = ("mode http", "http-request set-header X-Seen %[src]")
        with Port() as port, haproxy_in_front_of(tmp_path, port, app.address, "", lines, bind="accept-proxy"):
            program = launch(upstream=f"http://{port}", upstream_proxy_protocol=version, upstream_health_check="/hello")
            url = f"https://localhost:{program.port}/echo/seen"
            seen = []
            for source in ("127.0.0.1", CLIENT_ADDRESS, "127.0.0.1"):
                assert curl(program, "--ipv4", "--interface", source, url).returncode == 0
                seen += app.last("/echo/seen").values("x-seen")
            clusters = json.loads(program.admin("/clusters")[1])["clusters"]

        assert seen == ["127.0.0.1", CLIENT_ADDRESS, "127.0.0.1"]
        assert [cluster["health"] for cluster in clusters] == ["healthy"]


class TestChecks:
    @pytest.mark.parametrize("policy", ["trusted", "required"])
    def test_checks_of_the_balancer_are_no_news(
        self, launch: Launch, app: App, settings: dict[str, str], tmp_path: Path, policy: str
    ) -> None:
        """Whichever way it looks, the server is up for it, nothing is logged, and nobody is turned away."""
        program = launch(upstream=app.upstream, proxy_protocol=policy, **settings)
        said = program.stderr
        with ExitStack() as stack:
            balancers = []
            for options, lines in CHECKS.values():
                port = stack.enter_context(Port())
                options = f"{options} inter 50ms"
                balancers.append(stack.enter_context(haproxy(tmp_path, port, program, options, lines)))
            wanted = 20 * len(CHECKS)
            eventually(lambda: program.metric("downstream_connections_total") >= wanted, "it has looked often")
            up = ["is DOWN" not in balancer.output for balancer in balancers]
            for balancer in balancers:
                assert Balanced(program, balancer.port).curl("/hello").endswith("\n200")

        assert up == [True] * len(CHECKS)
        eventually(lambda: len(program.access_log()) >= len(CHECKS), "what clients asked for is logged")
        assert [line["path"] for line in program.access_log()] == ["/hello"] * len(CHECKS)
        assert reasons(program) == {}
        assert program.stderr == said


class TestHealthcheck:
    @pytest.mark.parametrize(
        "policy",
        [
            {"proxy_protocol": "off"},
            {"proxy_protocol": "trusted"},
            {"proxy_protocol": "trusted", "proxy_protocol_missing": "refuse"},
            {"proxy_protocol": "required"},
        ],
        ids=["off", "trusted", "trusted and not missing", "required"],
    )
    def test_own_check_passes(self, launch: Launch, app: App, settings: dict[str, str], policy: dict[str, str]) -> None:
        """`sidecar healthcheck` with the same settings finds the program well, and is no news either."""
        same = {**settings, "upstream": app.upstream, **policy}
        program = launch(**same)
        done = sidecar_command("healthcheck", "--app", listen=address(program), **same)

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"healthy: {address(program)} speaks TLSv1.3")
        assert reasons(program) == {}
        assert program.access_log() == []

    def test_healthcheck_of_raw_tcp_passes(self, launch: Launch, app: App, settings: dict[str, str]) -> None:
        """Likewise where no HTTP is spoken."""
        same = {**settings, "upstream": app.upstream, "proxy_protocol": "required", "mode": "tcp"}
        del same["identity_headers"]
        program = launch(**same)
        done = sidecar_command("healthcheck", listen=address(program), **same)

        assert (done.returncode, done.stderr) == (0, "")
        eventually(lambda: program.metric("downstream_connections_active") == 0, "it has left")
        assert reasons(program) == {}
        assert program.access_log() == []
