"""
Envoy and us with one bootstrap file: both run it at once, before the same apps, and are asked the same.

The files under ``envoy`` are templates. ``$listener_NAME`` is a port of the proxy's own, so that both can run;
``$app_NAME`` is that of an app and ``$certs`` a folder of certificates, the same for both. What comes of a request is
written down as facts, name -> text, so that whatever differs has a name.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import BadStatusLine, HTTPResponse, parse_headers
from pathlib import Path
from string import Template
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.launch import LOOPBACK, end_process, wait_until_listening
from sidecar.wire.proxyproto import SocketAddress, encode_v1, encode_v2
from tests.scenarios.clients import alert_of, client_context, write_identity
from tests.support.apps import App
from tests.support.certs import CLIENT, SERVER, Issued, authority, other_authority, revocation_list
from tests.support.program import Port, Program, eventually, is_listening

FOLDER: Final = Path(__file__).with_name("envoy")

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {"proxy_protocol": {"trusted_proxies": "127.0.0.0/8"}}
"""What our program is told beside the file: here, that the balancer is on this machine."""

DEADLINE_SECONDS: Final = 10.0

Facts = Mapping[str, str]

# -- apps --------------------------------------------------------------------------------------------------------


class Backend(App):
    """An app that answers every request with its name and what it was told."""

    def _talk(self, sock: socket.socket, number: int) -> None:
        came_from = ""
        with sock.makefile("rb") as file:
            while line := file.readline():
                if line.startswith(b"PROXY "):
                    came_from = line.split()[2].decode()
                    continue
                method, target, _ = line.decode("latin-1").split()
                fields = parse_headers(file)
                file.read(int(fields["content-length"] or 0))
                if target.startswith("/silent"):
                    file.readline()  # until the proxy goes
                    return
                told = {"app": self.name, "method": method, "target": target, "PROXY": came_from, **_of_tls(sock)}
                told |= {f"told {name.lower()}": value for name, value in fields.items()}
                body = b"" if method == "HEAD" else json.dumps(told).encode()
                length = b"Content-Length: %d\r\n" % len(body) if body else b""
                sock.sendall(b"HTTP/1.1 200 OK\r\nX-App: %b\r\n%b\r\n%b" % (self.name.encode(), length, body))


def _of_tls(sock: socket.socket) -> dict[str, str]:
    """What the proxy has said in its handshake."""
    if not isinstance(sock, ssl.SSLSocket):
        return {}
    certificate: Any = sock.getpeercert() or {}  # Any: as typeshed has it, it is no pairs
    names = [value for part in certificate.get("subject", ()) for _, value in part]
    return {"server name": sock.__dict__.get("asked_for") or "none", "shown": ", ".join(names) or "none"}


def _tls_of_app(certs: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "app.internal" / "tls.crt", certs / "app.internal" / "tls.key")
    context.load_verify_locations(certs / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.sni_callback = lambda sock, name, _: sock.__dict__.update(asked_for=name)
    return context


@attrs.frozen
class Surroundings:
    """
    What both proxies have in common.

    Attributes:
        variables: For the templates.
    """

    certs: Path
    variables: Mapping[str, str]


@contextmanager
def surroundings(directory: Path) -> Iterator[Surroundings]:
    """Make certificates and start the apps for the block."""
    certs = directory / "certs"
    _write_certificates(certs)
    with ExitStack() as stack:
        apps = {name: stack.enter_context(Backend(name=name)) for name in ("a", "b", "c")}
        apps["secure"] = stack.enter_context(Backend(name="secure", tls=_tls_of_app(certs)))
        ports = {f"app_{name}": str(app.port) for name, app in apps.items()}
        ports["app_nobody"] = str(stack.enter_context(Port()).number)
        yield Surroundings(certs, {"certs": str(certs), **ports, **_pins(certs)})


def _pins(certs: Path) -> dict[str, str]:
    """Fingerprints as Envoy writes them: of a certificate in hexadecimal, of a key in base64."""
    ci, shop = (x509.load_pem_x509_certificate((certs / f"{name}.pem").read_bytes()) for name in ("ci", "shop"))
    spki = shop.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "hash_ci": ci.fingerprint(SHA256()).hex(":"),
        "spki_shop": base64.b64encode(hashlib.sha256(spki).digest()).decode(),
    }


# -- certificates ------------------------------------------------------------------------------------------------

_SERVERS: Final = {
    "server": "localhost",
    "red": "red.example.org",
    "blue": "blue.example.org",
    "app.internal": "app.internal",
}

_CLIENTS: Final = {
    "shop": "spiffe://prod/ns/shop/sa/web",
    "shop-deeper": "spiffe://prod/ns/shop/",
    "shopping": "spiffe://prod/ns/shopping/sa/web",
    "pay": "spiffe://prod/ns/pay/sa/web",
    "pay-other": "spiffe://prod/ns/pay/sa/web2",
    "ci": "ci.example.org",
    "ops": "x.ops.example.org",
    "ops-deep": "a.b.ops.example.org",
    "ops-itself": "ops.example.org",
    "stranger": "stranger.example.org",
    "revoked": "ci.example.org",
    "for-servers": "ci.example.org",
    "stolen": "ci.example.org",
}
"""Who a client is -> the name in its certificate."""


def _write_certificates(folder: Path) -> None:
    for name, host in _SERVERS.items():
        (folder / name).mkdir(parents=True)
        authority().issue(host).write(folder / name)
    (folder / "proxy").mkdir()
    authority().issue("proxy.example.org", purposes=CLIENT).write(folder / "proxy")
    identities = {name: _identity(name, text) for name, text in _CLIENTS.items()}
    for name, issued in identities.items():
        write_identity(issued, folder / f"{name}.pem")
    (folder / "ca.pem").write_bytes(authority().cert_pem)
    (folder / "other-ca.pem").write_bytes(other_authority().cert_pem)
    revoked = revocation_list(authority(), identities["revoked"].certificate)
    (folder / "crl.pem").write_bytes(revoked.public_bytes(Encoding.PEM))


def _identity(name: str, text: str) -> Issued:
    issuer = other_authority() if name == "stolen" else authority()
    return issuer.issue(text, purposes=SERVER if name == "for-servers" else CLIENT)


# -- proxies -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Proxy:
    """
    One that runs.

    Attributes:
        listeners: Their ports, by name.
        certs: Where certificates of clients are.
    """

    listeners: Mapping[str, Port]
    certs: Path


def render(name: str, variables: Mapping[str, str], listeners: Mapping[str, Port]) -> str:
    """Fill in a template of `FOLDER`."""
    ports = {f"listener_{listener}": str(port.number) for listener, port in listeners.items()}
    return Template((FOLDER / f"{name}.yaml").read_text()).substitute(variables, **ports)


def listeners_of(name: str) -> list[str]:
    """The listeners of a template."""
    return re.findall(r"\$listener_(\w+)", (FOLDER / f"{name}.yaml").read_text())


@contextmanager
def pair(name: str, program: str, around: Surroundings, directory: Path) -> Iterator[tuple[Proxy, Proxy]]:
    """
    Run a template in both for the block.

    Args:
        program: Envoy's.
        directory: For their files; made here.

    Returns:
        Envoy, and ours.
    """
    directory.mkdir()
    with ExitStack() as stack:
        proxies = []
        for whose in ("envoy", "sidecar"):
            listeners = {listener: stack.enter_context(Port()) for listener in listeners_of(name)}
            (directory / f"{whose}.yaml").write_text(render(name, around.variables, listeners))
            proxies.append(Proxy(listeners, around.certs))
        settings = SETTINGS.get(name, {})
        ours = Program(
            directory / "sidecar", envoy=str(directory / "sidecar.yaml"), tls_cert=None, listen=None, **settings
        )
        stack.callback(ours.close)
        stack.enter_context(_envoy(program, proxies[0], directory))
        eventually(lambda: not ours.is_running or _listens(proxies[1]), "the sidecar listens")
        assert ours.is_running, ours.stderr
        yield proxies[0], proxies[1]


def _listens(proxy: Proxy) -> bool:
    return all(is_listening(proxy.listeners[name]) for name in proxy.listeners)


@contextmanager
def _envoy(program: str, proxy: Proxy, directory: Path) -> Iterator[None]:
    arguments = ["--config-path", str(directory / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    log_path = directory / "envoy.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [program, *arguments, "--log-level", "error"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        for port in proxy.listeners.values():
            wait_until_listening(process, name="envoy", port=port.number, log_path=log_path)
        yield
    finally:
        end_process(process)


# -- requests ----------------------------------------------------------------------------------------------------

FROM: Final = SocketAddress("198.51.100.7", 51234)
TO: Final = SocketAddress("203.0.113.9", 443)

PREFACES: Final = {
    "none": b"",
    "v1": encode_v1(FROM, TO),
    "v2": encode_v2(FROM, TO),
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v1-broken": b"PROXY TCP4 198.51.100.7 203.0.113.9 0x1 443\r\n",
}
"""What a balancer may send first."""


@attrs.frozen(kw_only=True)
class Ask:
    """
    One request on a connection of its own.

    Attributes:
        listener: Which begins with ``plain`` if it speaks no TLS.
        server_name: That is asked for in the handshake; None: none.
        identity: Whose certificate is shown; "": none.
        version: Of TLS, if only one is spoken.
        preface: Which of `PREFACES` comes first.
        waits: Whether nothing is sent, so that an alert behind the handshake is not lost to a reset.
    """

    target: str = "/"
    host: str = "shop.example.org"
    method: str = "GET"
    fields: tuple[str, ...] = ()
    listener: str = "plain"
    server_name: str | None = "localhost"
    identity: str = ""
    version: ssl.TLSVersion | None = None
    preface: str = "none"
    waits: bool = False

    @property
    def head(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", *self.fields, "", ""]
        return "\r\n".join(lines).encode("latin-1")


PLAIN: Final = frozenset({"plain", "maybe", "told", "nobody"})
"""Listeners without TLS."""


def facts_of(proxy: Proxy, ask: Ask) -> Facts:
    """Ask a proxy; ports of its own and other accidents are named, not told."""
    port = proxy.listeners[ask.listener].number
    try:
        with socket.create_connection((LOOPBACK, port), DEADLINE_SECONDS) as raw:
            raw.sendall(PREFACES[ask.preface])
            if ask.listener in PLAIN:
                facts = _answer(raw, ask)
            else:
                with _context(proxy, ask).wrap_socket(raw, server_hostname=ask.server_name) as sock:
                    facts = _certificate(sock) | _answer(sock, ask)
    except (ConnectionError, BadStatusLine, ssl.SSLEOFError):
        return {"end": "closed"}
    except ssl.SSLError as error:
        return {"end": f"alert {alert_of(error) or (error.reason or 'of nobody').lower()}"}
    return {name: _without_accidents(name, value, port) for name, value in facts.items()}


def _context(proxy: Proxy, ask: Ask) -> ssl.SSLContext:
    identity = proxy.certs / f"{ask.identity}.pem" if ask.identity else None
    context = client_context(version=ask.version, identity=identity)
    context.check_hostname = False  # which name it shows is one of the facts
    return context


def _certificate(sock: ssl.SSLSocket) -> dict[str, str]:
    certificate: Any = sock.getpeercert() or {}  # Any: as above
    return {"certificate": ", ".join(value for _, value in certificate.get("subjectAltName", ()))}


def _answer(sock: socket.socket, ask: Ask) -> dict[str, str]:
    if ask.waits:
        return {"end": "open" if sock.recv(1) else "closed"}
    sock.sendall(ask.head)
    response = HTTPResponse(sock, method=ask.method)
    response.begin()
    body = response.read()
    app = response.getheader("x-app") or ""
    facts = {f"field {name.lower()}": value for name, value in response.getheaders()}
    facts |= {"end": app or str(response.status), "status": str(response.status)}
    return facts | (_told(body) if app else {"body": body.decode("latin-1")})


def _told(body: bytes) -> dict[str, str]:
    """What an app was told; of the certificate of the client, each part for itself."""
    told = {name: str(value) for name, value in json.loads(body or b"{}").items() if value}
    parts = (part.partition("=") for part in told.pop("told x-forwarded-client-cert", "").split(";"))
    return told | {f"told {name} of the certificate": value for name, _, value in parts if value}


_ACCIDENTS: Final = {
    "field date": "a date",
    "field content-length": "a length",
    "field x-envoy-upstream-service-time": "a time",
    "told traceparent": "an id",
    "told x-request-id": "an id",
}

_ADDRESS: Final = re.compile(r"\b[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+\b")


def _without_accidents(name: str, value: str, port: int) -> str:
    if name.startswith("told"):
        # For clients on loopback, Envoy tells another address of the machine.
        value = _ADDRESS.sub(lambda found: "HERE" if _is_of_this_machine(found[0]) else found[0], value)
    return _ACCIDENTS.get(name) or re.sub(rf"\b{port}\b", "PORT", value)


@functools.cache
def _is_of_this_machine(address: str) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True
