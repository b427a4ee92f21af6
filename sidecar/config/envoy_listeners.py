"""
Listeners of an Envoy bootstrap -> ours.

Several filter chains are one listener here if they differ only in the certificate that they show for a server name:
which of them is shown, the certificates say themselves. Certificates and what clients must show are settings for all
listeners; where the file has several answers, it is refused.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from sidecar.config import envoy_http, envoy_http2, envoy_logs
from sidecar.config.envoy_draft import Block, Draft, is_name
from sidecar.config.envoy_forms import Extension, address, extension
from sidecar.config.envoy_nodes import Node
from sidecar.config.envoy_tls import ServerTls, server_tls, tls_context

_NOT_HERE: Final = {
    "additional_addresses": "write a listener for each address",
    "listener_filters_timeout": "it is fixed here",
    "per_connection_buffer_limit_bytes": "it is fixed here",
    "tcp_backlog_size": "it is fixed here",
    "socket_options": "they are fixed here",
    "max_connections_to_accept_per_socket_event": "it is fixed here",
    "connection_balance_config": "newcomers go to the worker with fewest connections",
}

_SILENT: Final = ("stat_prefix", "traffic_direction", "drain_type", "enable_reuse_port", "reuse_port", "metadata")

_KEYS: Final = ("name", "address", "tls", "mode", "proxy_protocol", "alpn", "cluster", "virtual_hosts")
"""Of a listener, in the order in which people look for them."""

_OTHER_CONNECTIONS: Final = "the chain would be about other connections"


@attrs.frozen
class _Shared:
    """What listeners say of that which is one for all here."""

    contexts: list[ServerTls] = attrs.field(factory=list)
    codecs: list[envoy_http2.Codec] = attrs.field(factory=list)


def listeners(root: Node, draft: Draft) -> list[Block]:
    """Read ``listeners``; certificates and what clients must show become settings."""
    found: list[Block] = []
    shared = _Shared()
    names: set[str] = set()
    for index, node in enumerate(root.mappings("listeners")):
        name = node.text("name")
        if not is_name(name) or name in names:
            name = f"listener_{index}"
        names.add(name)
        found.append(Block(node.line, {"name": name} | _listener(node, shared, draft)))
    _put_tls(shared.contexts, draft)
    envoy_http2.put(draft, shared.codecs)
    return found


def _listener(node: Node, shared: _Shared, draft: Draft) -> dict[str, Any]:
    node.ignore(*_SILENT)
    for name, reason in _NOT_HERE.items():
        node.leave_out(name, reason)
    if node.flag("use_original_dst") or not node.flag("bind_to_port", default=True):
        node.refuse("connections that were redirected by the kernel are not served", "write the address to listen on")
    values: dict[str, Any] = {"address": _address(node)}
    values |= _chains(node, shared, draft)
    proxy_protocol = _listener_filters(node, draft) or values.pop("proxy_protocol", "")
    if proxy_protocol:
        values["proxy_protocol"] = proxy_protocol
    envoy_logs.access_log(node, draft)
    return {key: values[key] for key in _KEYS if key in values}


def _address(node: Node) -> str:
    found = address(node)
    if found.startswith("unix:"):
        node.refuse("listeners have a TCP address", "write socket_address: {address: …, port_value: …}")
    return found


def _listener_filters(node: Node, draft: Draft) -> str:
    """What ``proxy_protocol`` is; "" without it."""
    result = ""
    for item in node.mappings("listener_filters"):
        found = extension(item)
        if found.kind in ("TlsInspector", "HttpInspector"):
            item.done()
        elif found.kind == "ProxyProtocol":
            result = _proxy_protocol(found, draft)
        else:
            fact = f"there is no listener filter like {(found.kind or found.family)[:60]!a} here"
            item.refuse(f"{fact}, and connections would pass without it", "remove it if that is right")
    return result


def _proxy_protocol(found: Extension, draft: Draft) -> str:
    found.config.ignore("stat_prefix")
    if not found.config.flag("allow_requests_without_proxy_protocol"):
        return "required"
    draft.note(
        f"{found.config.path}: in Envoy anybody may send a PROXY header or none; here those may whose networks are in "
        "SIDECAR_TRUSTED_PROXIES, and nobody else"
    )
    return "trusted"


# -- filter chains -----------------------------------------------------------------------------------------------


def _chains(node: Node, shared: _Shared, draft: Draft) -> dict[str, Any]:
    chains = node.mappings("filter_chains")
    default = node.mapping("default_filter_chain")
    if default is not None:
        chains = [default, *chains]  # its certificate is shown to those that name no other
    if not chains:
        node.refuse("there are no filter chains", "write filter_chains: with one of them")
        return {}
    kinds = [_of_chain(chain, shared.contexts, draft) for chain in chains]
    values = _of_filters(chains[0], kinds[0], shared, draft) | ({} if kinds[0] is not None else {"tls": "off"})
    for chain, tls in zip(chains[1:], kinds[1:], strict=True):
        _require_alike(chains[0], kinds[0], chain, tls)
    if len(chains) > 1 or chains[0].has("filter_chain_match"):
        draft.note(f"{node.path}: certificates are chosen by the names in them; for other names, the first is shown")
    if kinds[0] is not None and kinds[0].alpn and "mode" in values:
        values["alpn"] = [str(name.content) for name in kinds[0].alpn]
    if chains[0].flag("use_proxy_proto"):  # files for v2
        values["proxy_protocol"] = "required"
    return values


def _of_chain(chain: Node, contexts: list[ServerTls], draft: Draft) -> ServerTls | None:
    """What a chain says about TLS; None without it."""
    chain.must_be_known("connections may not be what was meant: there is no such field in Envoy, or it is new")
    chain.ignore("name", "metadata", "on_demand_configuration")
    chain.leave_out("transport_socket_connect_timeout", "there is handshake_timeout")
    match = chain.mapping("filter_chain_match")
    context = tls_context(chain)
    if match is not None:
        match.must_be_whole(_OTHER_CONNECTIONS)
        match.texts("server_names")
        if match.word("transport_protocol", ("tls", "raw_buffer"), "tls") == "raw_buffer" and context is not None:
            match.refuse("a chain with TLS cannot be for connections without", "write transport_protocol: tls")
    if context is None:
        return None
    tls = server_tls(context, draft)
    contexts.append(tls)
    return tls


def _require_alike(first: Node, first_tls: ServerTls | None, other: Node, tls: ServerTls | None) -> None:
    """Refuse a chain that is not about the same as the first, but for its certificate."""
    filters, others = first.get("filters"), other.get("filters")
    if others is None or filters is None or filters.plain() != others.plain():
        fix = "write one chain, with a virtual host for each name"
        other.refuse(f"its filters are others than those of {first.path}", fix)
        return
    others.done()
    if first.flag("use_proxy_proto") != other.flag("use_proxy_proto"):
        other.refuse("one listener either has PROXY headers or not", "write use_proxy_proto in all chains, or in none")
    if (first_tls is None) != (tls is None):
        other.refuse("one listener either speaks TLS or does not", "write a listener of its own for it")


def _of_filters(chain: Node, tls: ServerTls | None, shared: _Shared, draft: Draft) -> dict[str, Any]:
    """What is made of the one filter of a chain that does the work, of which there is nothing else beside."""
    values: dict[str, Any] = {}
    for node in chain.mappings("filters"):
        found = extension(node)
        if found.kind == "HttpConnectionManager" and not values:
            values = envoy_http.connection_manager(found.config, draft)
            codec = envoy_http2.codec(found.config, tls.alpn if tls else None, draft)
            if codec is not None:
                shared.codecs.append(codec)
        elif found.kind == "TcpProxy" and not values:
            values = envoy_http.tcp_proxy(found.config, draft)
        else:
            fact = f"there is no filter like {(found.kind or found.family)[:60]!a} here, beside others"
            node.refuse(f"{fact}, and connections would pass without it", "remove it if that is right")
    if not values:
        chain.refuse("there is no filter that does something", "write http_connection_manager or tcp_proxy")
    return values


# -- TLS ---------------------------------------------------------------------------------------------------------


def _put_tls(contexts: list[ServerTls], draft: Draft) -> None:
    """Make settings of all TLS contexts together: they must agree in all but the certificates."""
    if not contexts:
        return
    first = contexts[0]
    for other in contexts[1:]:
        if sorted(other.common) != sorted(first.common):
            fact = (
                f"versions and client certificates are the same on all listeners here, but not as in {first.node.path}"
            )
            other.node.refuse(fact, "make them alike, or run a second sidecar")
    for name, value in first.common:
        if (name, value) != ("tls_policy", "intermediate"):
            draft.put(name, value, first.node)
    _put_certificates(list(dict.fromkeys(cert for context in contexts for cert in context.certs)), first.node, draft)


def _put_certificates(certs: list[tuple[str, str, str]], node: Node, draft: Draft) -> None:
    passwords = list(dict.fromkeys(password for _, _, password in certs if password))
    if len(passwords) > 1:
        node.refuse("there is one password for all keys", "encrypt them with the same password")
    for name, values in (
        ("tls_cert", [cert for cert, _, _ in certs]),
        ("tls_key", [key for _, key, _ in certs]),
        ("tls_key_password", passwords[:1]),
    ):
        if len(values) > 1 and any("-----BEGIN" in value for value in values):
            node.refuse("several certificates must be in files", "write filename: with the paths of files")
        elif any(values) and all(values):
            draft.put(name, values if len(values) > 1 else values[0], node)
        elif any(values):
            node.refuse("a PKCS#12 beside other certificates has no place here", "convert it to PEM")
