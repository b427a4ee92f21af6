"""What an operator has to know of the settings, whatever the platform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from sidecar.config.addresses import upstream_text
from sidecar.inject.options import Environment, Options
from sidecar.settings import ListenerMode, Settings

SPOKEN: Final = {
    1433: "SQL Server",
    1521: "Oracle",
    1883: "MQTT",
    2181: "ZooKeeper",
    3306: "MySQL",
    4222: "NATS",
    5432: "PostgreSQL",
    5672: "AMQP",
    6379: "Redis",
    9042: "Cassandra",
    9092: "Kafka",
    11211: "memcached",
    26257: "CockroachDB",
    27017: "MongoDB",
}
"""Port -> what is usually spoken there, and is not HTTP."""

GRPC: Final = 50051
"""The port of most gRPC servers."""


def front_of(app: str, environment: Environment) -> str:
    """What the sidecar stands in front of, for a message; *app* is the container that was found."""
    if not environment.is_app_behind:
        return f"{upstream_text(environment.settings.upstream)}, which is elsewhere"
    where = f"port {environment.app_port}" if environment.app_port is not None else "a socket"
    return f"container {app} on {where}{_spoken(environment.settings)}"


def other_ports(
    app: str, others: Sequence[str], options: Options, environment: Environment, *, wall: str
) -> Iterator[str]:
    """
    That one port of several was taken, which may be the wrong one; nothing if it was said which.

    Args:
        others: The ports of the container *app* that were not.
        wall: What keeps clients from them.
    """
    if others and not options.says_app_port:
        rest = ", ".join(others)
        fact = f"only port {environment.app_port} of {app} gets TLS, the first in its list, and {rest} none"
        fix = f"shut {rest} by {wall}, or let {app} listen there on 127.0.0.1 alone"
        yield f"{fact}: {fix}; and confirm or choose the port with --app-port"


def warnings(environment: Environment) -> list[str]:
    """What probably is not meant, a line each: what ``sidecar check`` says, and what only here is seen."""
    found = [*environment.warnings]
    upstream = environment.settings.upstream
    if environment.elsewhere and not upstream.tls:
        where = ", ".join(map(str, environment.elsewhere))
        fact = f"the upstream is elsewhere: requests go to {where} in plain text"
        other = "" if upstream.h2c else "https:// for it, or "
        found.append(f"{fact}: give {other}the port of the app here")
    elif environment.elsewhere and not environment.is_app_behind:
        found.append(f"the upstream is elsewhere: requests go to {upstream_text(upstream)}, and not to the app here")
    if environment.settings.downstream.mode is ListenerMode.HTTP and not upstream.h2c:
        found += _not_http1(environment)
    return found


def _spoken(settings: Settings) -> str:
    """In raw TCP mode whatever the client speaks."""
    if settings.downstream.mode is not ListenerMode.HTTP:
        return ""
    if settings.upstream.h2c:
        return ", in HTTP/2 without TLS (h2c)"
    return f", in HTTP/1.1{' with TLS' if settings.upstream.tls else ''}"


def _not_http1(environment: Environment) -> Iterator[str]:
    port, upstream = environment.app_port, environment.settings.upstream
    spoken = SPOKEN.get(port or 0)
    if spoken is not None:
        fact = f"port {port} is usually {spoken}, and the sidecar takes HTTP alone"
        yield f"{fact}: if it is not HTTP, give --set mode=tcp"
    if port == GRPC and not upstream.tls:
        fact = f"port {port} is usually gRPC, and requests go there in HTTP/1.1"
        yield f"{fact}: for gRPC, give --set upstream={upstream_text(attrs.evolve(upstream, h2c=True))}"
