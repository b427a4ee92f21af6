"""
Which apps speak HTTP/2 without TLS, as their manifests say it: gRPC servers, mostly.

What is said is believed, since a port cannot be asked; ``--set upstream=http://…`` says otherwise.
"""

from __future__ import annotations

from typing import Final

APP_PROTOCOLS: Final = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc"})
"""
Values of ``appProtocol``, of a Service's port and of an ECS port mapping.

Whoever goes by that of a Service may take each of them for a word against TLS: two say so, and meshes such as Istio
read the others like that.
"""

_PORT_NAMES = ("grpc", "h2c")


def is_port_name(name: str) -> bool:
    """
    Whether the name of a container's port says so: ``grpc`` or ``h2c``, perhaps with a suffix behind a hyphen.

    Not gRPC-Web, which is for HTTP/1.1; nor ``http2``, which may be the second port for HTTP.
    """
    return name.partition("-")[0] in _PORT_NAMES and not f"{name}-".startswith("grpc-web-")
