"""
The proxies that are compared, each with TLS towards its clients, and in front of an origin.

The peers are set up to differ from us in nothing but their reading of HTTP/1.1: heads of our size, HTTP/1.0, WebSockets
and unusual methods are allowed, bodies and trailers are streamed, and no version but HTTP/1 is spoken. All else is
their default.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from bench.app import nginx_preamble, nginx_storage
from bench.launch import LOOPBACK, end_process, wait_until_listening
from bench.peers import PEERS, find_program, look_up
from tests.conformance.loop import DEADLINE_SECONDS
from tests.scenarios.clients import client_context
from tests.support.program import Port, Program, server_certificate

Connect = Callable[[], socket.socket]
"""Opens a connection to a proxy, TLS and all."""


@attrs.frozen(kw_only=True)
class _Place:
    """Where a peer is to run."""

    directory: Path
    port: int
    origin_port: int
    certificate: Path
    key: Path


@attrs.frozen
class Installed:
    """A peer that is here."""

    name: str
    program: str
    version: str


PEER_NAMES: Final = ("nginx", "haproxy", "envoy")
NAMES: Final = ("sidecar", *PEER_NAMES)

_TYPES: Final = "type.googleapis.com/envoy.extensions"


def find(name: str) -> Installed | None:
    """Find a peer on this machine; Envoy may stand beside the interpreter."""
    peer = next(peer for peer in PEERS if peer.name == name)
    beside = Path(sys.executable).with_name(name)
    program = str(beside) if beside.exists() else next(iter(find_program(name)("") or []), None)
    if program is None:
        return None
    installed = look_up(attrs.evolve(peer, find=lambda _: [program]), sys.executable)
    assert installed is not None
    return Installed(name, program, installed.version)


@contextmanager
def running(name: str, program: str, origin_port: int, directory: Path) -> Iterator[Connect]:
    """
    Keep a proxy running before the origin for the block.

    Args:
        name: One of `NAMES`.
        program: Of a peer; ours needs none.
        directory: For its files; made here.
    """
    directory.mkdir(parents=True)
    context = client_context()
    if name == "sidecar":
        with Program(directory, upstream=f"http://{LOOPBACK}:{origin_port}", access_log="off") as ours:
            yield lambda: context.wrap_socket(_connected(ours.port), server_hostname="localhost")
        return
    certificate = server_certificate(directory)
    with Port() as port:
        place = _Place(
            directory=directory,
            port=port.number,
            origin_port=origin_port,
            certificate=certificate,
            key=certificate.with_name("tls.key"),
        )
        command = [program, *_ARGUMENTS[name](place)]
        log_path = directory / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
        try:
            wait_until_listening(process, name=name, port=port.number, log_path=log_path)
            yield lambda: context.wrap_socket(_connected(port.number), server_hostname="localhost")
        finally:
            end_process(process)


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection((LOOPBACK, port), DEADLINE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _nginx(place: _Place) -> list[str]:
    config = place.directory / "nginx.conf"
    config.write_text(
        f"""{nginx_preamble(connections=1024)}
master_process off;
http {{
{nginx_storage(place.directory)}
  access_log off;
  keepalive_requests 1000000;
  large_client_header_buffers 8 128k;
  client_max_body_size 0;
  map $http_host $host_or_default {{ "" $host; default $http_host; }}
  upstream origin {{ server {LOOPBACK}:{place.origin_port}; keepalive 16; keepalive_requests 1000000; }}
  server {{
    listen {LOOPBACK}:{place.port} ssl;
    server_name localhost;
    ssl_certificate {place.certificate};
    ssl_certificate_key {place.key};
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $host_or_default;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
    )
    return ["-p", str(place.directory), "-e", "stderr", "-c", str(config)]


def _haproxy(place: _Place) -> list[str]:
    both = place.directory / "both.pem"
    both.write_bytes(place.certificate.read_bytes() + place.key.read_bytes())
    config = place.directory / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread 1
  maxconn 1000
  tune.bufsize 131072
  tune.http.maxhdr 256
defaults
  mode http
  timeout connect 60s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend ingress
  bind {LOOPBACK}:{place.port} ssl crt {both} alpn http/1.1 proto h1
  option forwardfor
  default_backend app
backend app
  server app {LOOPBACK}:{place.origin_port}
"""
    )
    return ["-db", "-f", str(config)]


def _envoy(place: _Place) -> list[str]:
    config = place.directory / "envoy.json"
    config.write_text(json.dumps(_envoy_bootstrap(place), indent=1))
    arguments = ["--config-path", str(config), "--concurrency", "1", "--disable-hot-restart"]
    return [*arguments, "--log-level", "error"]


def _envoy_bootstrap(place: _Place) -> dict[str, Any]:
    transport = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(place.certificate)},
                        "private_key": {"filename": str(place.key)},
                    }
                ],
            },
        },
    }
    listener = {
        "name": "ingress",
        "address": _envoy_address(place.port),
        "enable_reuse_port": False,
        "filter_chains": [{"transport_socket": transport, "filters": [_envoy_filter()]}],
    }
    endpoint = {"endpoint": {"address": _envoy_address(place.origin_port)}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    trailers = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
    cluster = {
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "60s",
        "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **trailers}},
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _envoy_filter() -> dict[str, Any]:
    """Return Envoy's HTTP connection manager."""
    route = {"match": {"prefix": ""}, "route": {"cluster": "app", "timeout": "0s"}}  # «*» is a target too
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
    }
    settings = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "delayed_close_timeout": "0s",
        "max_request_headers_kb": 128,
        "common_http_protocol_options": {"max_headers_count": 256},
        "http_protocol_options": {
            "accept_http_10": True,
            "default_host_for_http_10": "localhost",
            "enable_trailers": True,
            "allow_custom_methods": True,
        },
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": settings}


def _envoy_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


_ARGUMENTS: Final[dict[str, Callable[[_Place], list[str]]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
}
