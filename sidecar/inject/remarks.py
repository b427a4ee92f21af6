"""What an operator has to know of the settings, whatever the platform."""

from __future__ import annotations

from typing import Final

from sidecar.inject.options import Environment
from sidecar.settings import ListenerMode

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


def front_of(app: str, environment: Environment) -> str:
    """What the sidecar stands in front of, for a message; *app* is the container that was found."""
    if not environment.is_app_behind:
        return f"{environment.settings.upstream}, which is elsewhere"
    where = f"port {environment.app_port}" if environment.app_port is not None else "a socket"
    return f"container {app} on {where}"


def warnings(environment: Environment) -> list[str]:
    """What probably is not meant, a line each: what ``sidecar check`` says, and what only here is seen."""
    found = [*environment.warnings]
    upstream = environment.settings.upstream
    if environment.elsewhere and not upstream.tls:
        where = ", ".join(map(str, environment.elsewhere))
        fact = f"the upstream is elsewhere: requests go to {where} in plain text"
        found.append(f"{fact}: give https:// for it, or the port of the app here")
    elif environment.elsewhere and not environment.is_app_behind:
        found.append(f"the upstream is elsewhere: requests go to {upstream}, and not to the app here")
    spoken = SPOKEN.get(environment.app_port or 0)
    if spoken is not None and environment.settings.downstream.mode is ListenerMode.HTTP:
        fact = f"port {environment.app_port} is usually {spoken}, and the sidecar takes HTTP alone"
        found.append(f"{fact}: if it is not HTTP, give --set mode=tcp")
    return found
