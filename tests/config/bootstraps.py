"""Envoy bootstrap files for tests: small, complete, and with whatever a test is about."""

from __future__ import annotations

import json
from typing import Any

from sidecar.config.envoy import Imported, import_bootstrap
from sidecar.errors import ConfigError

Json = dict[str, Any]

_TYPES = "type.googleapis.com/envoy.extensions."
HTTP = f"{_TYPES}filters.network.http_connection_manager.v3.HttpConnectionManager"
TCP = f"{_TYPES}filters.network.tcp_proxy.v3.TcpProxy"
DOWNSTREAM = f"{_TYPES}transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM = f"{_TYPES}transport_sockets.tls.v3.UpstreamTlsContext"
FILE_LOG = f"{_TYPES}access_loggers.file.v3.FileAccessLog"
RBAC = f"{_TYPES}filters.http.rbac.v3.RBAC"
CORS = f"{_TYPES}filters.http.cors.v3.Cors"

EVERYTHING: Json = {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "1s"}}
CERTIFICATE: Json = {"certificate_chain": {"filename": "c.pem"}, "private_key": {"filename": "k.pem"}}


def extension(type_: str, **fields: Any) -> Json:
    return {"name": "any", "typed_config": {"@type": type_, **fields}}


def address(host: str = "127.0.0.1", port: int = 8080) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def endpoints(*hosts: str) -> Json:
    """A load assignment."""
    return {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host)}} for host in hosts]}]}


def cluster(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "load_assignment": endpoints("127.0.0.1")} | fields


def virtual_hosts(*routes: Json, **fields: Any) -> Json:
    """A route configuration with one virtual host."""
    return {"virtual_hosts": [{"domains": ["*"], "routes": list(routes or (EVERYTHING,))} | fields]}


def http(**fields: Any) -> Json:
    """A filter."""
    return extension(HTTP, **({"route_config": virtual_hosts()} | fields))


def chain(*filters: Json, tls: Json | None = None, **fields: Any) -> Json:
    socket = {} if tls is None else {"transport_socket": extension(DOWNSTREAM, **tls)}
    return {"filters": list(filters or (http(),))} | socket | fields


def listener(*chains: Json, port: int = 443, **fields: Any) -> Json:
    return {"address": address("0.0.0.0", port), "filter_chains": list(chains or (chain(),))} | fields


def bootstrap(*listeners: Json, clusters: list[Json] | None = None, **fields: Any) -> Json:
    resources = {"listeners": list(listeners or (listener(),)), "clusters": clusters or [cluster()]}
    return {"static_resources": resources} | fields


def read(values: Json) -> Imported:
    return import_bootstrap(json.dumps(values), "envoy.json")


def left_out(values: Json) -> list[str]:
    """Paths, shortened to what comes behind the listener, its filter, or the cluster."""
    return [_short(item.path) for item in read(values).left_out]


def refusals(values: Json) -> dict[str, str]:
    """Why a file is refused, by path."""
    try:
        got = read(values)
    except ConfigError as error:
        return {_short(problem.setting): problem.fact for problem in error.problems}
    raise AssertionError(f"nothing is refused, {got.left_out} is left out")


_PREFIXES = (
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.",
    "static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.",
    "static_resources.clusters[0].",
    "static_resources.listeners[0].",
    "static_resources.",
)


def _short(path: str) -> str:
    return next((path.removeprefix(prefix) for prefix in _PREFIXES if path.startswith(prefix)), path)
