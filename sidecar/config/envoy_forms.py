"""Shapes that recur all over an Envoy bootstrap: durations, addresses, data sources, extensions."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import attrs

from sidecar.config import addresses, units
from sidecar.config.envoy_nodes import Node
from sidecar.settings import Seconds

_DURATION: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?s", re.ASCII)


def duration(parent: Node, name: str) -> str:
    """
    A field that is a duration, as ours are written: ``0.5s`` or ``{seconds: 0, nanos: 500000000}`` -> ``500ms``.

    What is finer than a millisecond is rounded up, what is longer than a day is a day. "" if it is not there.
    """
    node = parent.get(name)
    if node is None:
        return ""
    if isinstance(node.content, str):
        match = _DURATION.fullmatch(node.content)
        nanoseconds = int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0")) if match else None
    else:
        nanoseconds = (node.number("seconds") or 0) * 10**9 + (node.number("nanos") or 0)
    if nanoseconds is None:
        node.refuse(f"{node.shown()} is not a duration", "write seconds as in 0.5s")
        return ""
    milliseconds = min(-(-nanoseconds // 10**6), units.LONGEST_DURATION * 1000)
    return units.duration_text(Seconds(milliseconds / 1000))


def seconds(text: str) -> float:
    """Seconds of a duration that `duration` gave."""
    return units.parse_duration(text)


# -- addresses ---------------------------------------------------------------------------------------------------


def address(parent: Node, name: str = "address") -> str:
    """
    A field that is an Address: ``HOST:PORT``, ``[::1]:PORT`` or ``unix:/path``.

    "" if there is none that can be carried over, which is refused.
    """
    node = parent.mapping(name)
    if node is None:
        parent.refuse(f"there is no {name}", "write one with socket_address: {address: …, port_value: …}")
        return ""
    return address_of(node)


def address_of(node: Node) -> str:
    """As `address`, of an Address itself."""
    node.must_be_whole("it is another address")
    pipe, socket = node.mapping("pipe"), node.mapping("socket_address")
    if pipe is not None:
        pipe.ignore("mode")
        path = pipe.text("path")
        if path.startswith("/"):
            return f"unix:{path}"
        pipe.refuse(f"{units.quoted(path)} is not an absolute path", "write path: /run/app.sock")
        return ""
    if socket is None:
        node.refuse("this is no address of a kind that there is here", "use socket_address or pipe")
        return ""
    socket.ignore("ipv4_compat", "resolver_name")
    if socket.word("protocol", ("TCP", "UDP"), "TCP") == "UDP":
        socket.refuse("UDP is not served", "remove it, or keep it in Envoy")
        return ""
    host, port = socket.text("address"), socket.number("port_value")
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return str(addresses.parse_endpoint(text))
    except units.UnitError as error:
        socket.refuse(error.fact, "write address: and port_value:")
        return ""


def host_of(text: str) -> str:
    """The host of an address that `address` gave; "" for a Unix socket."""
    return "" if text.startswith("unix:") else text.rpartition(":")[0].strip("[]")


# -- data sources ------------------------------------------------------------------------------------------------


def source(parent: Node, name: str) -> str:
    """A field that is a DataSource: a path, or what is in it; "" if it is not there or cannot be carried over."""
    node = parent.mapping(name)
    if node is None:
        return ""
    node.ignore("watched_directory")  # files are watched anyway
    node.must_be_whole(f"there is no {name}")
    if path := node.text("filename"):
        return _path(node, path)
    if text := node.text("inline_string"):
        return text
    if encoded := node.text("inline_bytes"):
        return _decoded(node, encoded)
    if node.has("environment_variable"):
        node.refuse("variables are not looked up for this", "write filename: with the path of a file")
    elif not node.is_empty:
        node.refuse("this names neither a file nor what is in it", "write filename: with the path of a file")
    return ""


def _path(node: Node, path: str) -> str:
    if "," in path or path == "none" or path != path.strip():
        node.refuse(f"the path {units.quoted(path)} cannot be written in a setting", "rename the file")
        return ""
    return path


def _decoded(node: Node, encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        node.refuse("inline_bytes is not the base64 of a text", "write filename: with the path of a file")
        return ""


# -- extensions --------------------------------------------------------------------------------------------------


@attrs.frozen
class Extension:
    """
    A filter, transport socket or access log.

    Attributes:
        kind: Name of its message, such as ``HttpConnectionManager``; "" if there is none that is known.
        family: What it is for, such as ``http_connection_manager``: of its type, since with one names are free.
        config: Its fields; a node without any if there are none.
    """

    kind: str
    family: str
    config: Node


_KINDS: Final = {
    "http_connection_manager": "HttpConnectionManager",
    "tcp_proxy": "TcpProxy",
    "router": "Router",
    "file": "FileAccessLog",
    "file_access_log": "FileAccessLog",
    "stdout": "StdoutAccessLog",
    "stderr": "StderrAccessLog",
    "proxy_protocol": "ProxyProtocol",
    "tls_inspector": "TlsInspector",
    "http_inspector": "HttpInspector",
    "original_dst": "OriginalDst",
    "tls": "TlsContext",
    "raw_buffer": "RawBuffer",
    "upstream_proxy_protocol": "ProxyProtocolUpstreamTransport",
}
"""Last word of an extension's name -> its message: files for v2 name no type."""


def extension(node: Node) -> Extension:
    """What *node* is, which has a name and perhaps ``typed_config`` or, in files for v2, ``config``."""
    name = node.text("name").rpartition(".")[2]
    node.ignore("is_optional")
    none = Node(node.path, "", node.line, None, False, node.findings)
    config = node.mapping("typed_config") or node.mapping("config") or none
    # Of envoy.extensions.filters.http.cors.v3.Cors, the family is cors.
    *_, family, _, kind = ["", "", "", *config.text("@type").rpartition("/")[2].split(".")]
    return Extension(kind or _KINDS.get(name, ""), family if kind else name, config)
