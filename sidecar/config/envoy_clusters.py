"""Clusters of an Envoy bootstrap -> ours; what Envoy does unasked is written out where ours does otherwise."""

from __future__ import annotations

import re
from typing import Any, Final

from sidecar.config import envoy_http2, units
from sidecar.config.addresses import is_name
from sidecar.config.clusters import HEAVIEST
from sidecar.config.envoy_draft import Block, Draft
from sidecar.config.envoy_forms import address, address_of, duration, extension, host_of, seconds
from sidecar.config.envoy_nodes import Node
from sidecar.config.envoy_tls import tls_context, upstream_tls

_DISCOVERY: Final = {"STATIC": "static", "STRICT_DNS": "strict_dns", "LOGICAL_DNS": "logical_dns"}
_BALANCING: Final = {"ROUND_ROBIN": "round_robin", "LEAST_REQUEST": "least_request"}
_FAMILIES: Final = ("AUTO", "V4_ONLY", "V6_ONLY", "V4_PREFERRED", "ALL")

_NOT_HERE: Final = {
    "http3_protocol_options": "there is no HTTP/3",
    "per_connection_buffer_limit_bytes": "it is fixed here",
    "max_requests_per_connection": "connections are used as long as they are good",
    "upstream_connection_options": "connections are kept alive by the kernel's settings",
    "upstream_bind_config": "the kernel chooses the address",
    "dns_resolvers": "names are looked up by this system's resolver",
    "dns_resolution_config": "names are looked up by this system's resolver",
    "typed_dns_resolver_config": "names are looked up by this system's resolver",
    "use_tcp_for_dns_lookups": "names are looked up by this system's resolver",
    "dns_failure_refresh_rate": "it is fixed here",
    "dns_jitter": "it is fixed here",
    "respect_dns_ttl": "names are looked up every dns_refresh",
    "lb_subset_config": "endpoints have no metadata",
    "least_request_lb_config": "two endpoints are compared",
    "round_robin_lb_config": "endpoints are taken in turn",
    "load_balancing_policy": "there are round_robin and least_request",
    "track_timeout_budgets": "there is no such metric",
    "track_cluster_stats": "there is no such metric",
    "cleanup_interval": "it is fixed here",
    "ignore_health_on_host_removal": "an address that is no more in DNS gets no requests",
    "close_connections_on_host_health_failure": "requests under way are finished",
    "protocol_selection": "a cluster is spoken to in one version",
    "preconnect_policy": "connections are made when they are needed",
}

_SILENT: Final = ("alt_stat_name", "wait_for_warm_on_init", "metadata", "common_http_protocol_options")


GREATEST_LIMIT: Final = 1_000_000
"""What `limits` may say."""

MOST_RESULTS: Final = 100
"""What thresholds of health checks may say."""


def add_names(root: Node, draft: Draft) -> None:
    """Tell *draft* the names of ``clusters``, so that listeners can lead to them."""
    for node in root.mappings("clusters"):
        name = node.text("name")
        if name:
            draft.add_cluster(name, node)
        else:
            node.refuse("there is no name", "write name:")


def clusters(root: Node, draft: Draft) -> list[Block]:
    """Read ``clusters``, whose names were added."""
    return [Block(node.line, _cluster(node, draft)) for node in root.mappings("clusters") if node.text("name")]


def _cluster(node: Node, draft: Draft) -> dict[str, Any]:
    node.ignore(*_SILENT)
    for name, reason in _NOT_HERE.items():
        node.leave_out(name, reason)
    endpoints = _endpoints(node, draft)
    values: dict[str, Any] = {"name": draft.clusters[node.text("name")], "endpoints": endpoints}
    discovery = _discovery(node)
    if discovery != "static":
        values["discovery"] = discovery
        if refresh := duration(node, "dns_refresh_rate"):
            values["dns_refresh"] = refresh
    else:
        node.ignore("dns_refresh_rate")
    values |= _balancing(node)
    values["connect_timeout"] = duration(node, "connect_timeout") or "5s"
    transport = _transport(node, _addresses(endpoints), draft)
    protocol = envoy_http2.protocol(node, is_tls="tls" in transport, is_raw=values["name"] in draft.raw)
    values |= _health_check(node, is_h2c=bool(protocol))
    values["outlier_detection"] = _outlier_detection(node, draft)
    values["limits"] = _limits(node)
    values |= _common(node)
    _families(node, _addresses(endpoints))
    return values | transport | protocol


def _discovery(node: Node) -> str:
    if node.has("cluster_type"):
        node.refuse("clusters of other types are not served", "write type: STATIC, STRICT_DNS or LOGICAL_DNS")
        return "static"
    return _DISCOVERY.get(node.word("type", _DISCOVERY, "STATIC"), "static")


def _balancing(node: Node) -> dict[str, Any]:
    policy = node.text("lb_policy").upper() or "ROUND_ROBIN"
    if policy not in _BALANCING:
        node.leave_out("lb_policy", "there are round_robin and least_request; round_robin is used")
    return {"balancing": "least_request"} if policy == "LEAST_REQUEST" else {}


def _common(node: Node) -> dict[str, Any]:
    config = node.mapping("common_lb_config")
    panic = config.mapping("healthy_panic_threshold") if config is not None else None
    if panic is None:
        return {}
    return {"panic_threshold": str(min(_percent(panic), 100))}


def _percent(node: Node) -> int:
    """A Percent, in whole ones."""
    text = node.text("value", "0")
    if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,9})?", text, re.ASCII) is None:
        node.refuse(f"{units.quoted(text)} is not a number of per cent", "write value: 50")
        return 0
    return round(float(text))


def _families(node: Node, hosts: list[str]) -> None:
    family = node.word("dns_lookup_family", _FAMILIES, "AUTO")
    has_names = any(host and is_name(host) for host in map(host_of, hosts))
    if family not in ("AUTO", "ALL") and has_names:
        node.leave_out("dns_lookup_family", "IPv4 and IPv6 addresses are both used")


# -- endpoints ---------------------------------------------------------------------------------------------------


def _endpoints(node: Node, draft: Draft) -> list[str | Block]:
    weights: dict[str, int] = {}
    found_lines: dict[str, int] = {}
    for text, weight, line in _listed(node):
        weights[text] = weights.get(text, 0) + weight  # an address that is listed twice gets twice as much
        found_lines.setdefault(text, line)
    greatest = max(weights.values(), default=1)
    if greatest > HEAVIEST:
        draft.note(f"{node.path}: weights are in proportion, but at most {HEAVIEST}")
    return [_weighted(text, _share(weight, greatest), found_lines[text]) for text, weight in weights.items() if text]


def _listed(node: Node) -> list[tuple[str, int, int]]:
    """Address, weight and line of each endpoint of a cluster; "" for an address that was refused."""
    assignment = node.mapping("load_assignment")
    if assignment is None:
        found = [(address_of(host), 1, host.line) for host in node.mappings("hosts")]  # files for v2
    else:
        assignment.ignore("cluster_name")
        found = [each for group in assignment.mappings("endpoints") for each in _of_group(group)]
    if not found:
        node.refuse("there are no endpoints", "write load_assignment: nothing is fetched from a control plane")
    return found


def _of_group(group: Node) -> list[tuple[str, int, int]]:
    """Address, weight and line of each endpoint of a locality."""
    group.ignore("locality", "load_balancing_weight", "metadata")
    if group.number("priority"):
        group.lose("endpoints for when others fail are not used; all of a cluster are alike")
        return []
    return [_of_endpoint(item) for item in group.mappings("lb_endpoints")]


def _of_endpoint(item: Node) -> tuple[str, int, int]:
    item.ignore("metadata")
    item.leave_out("health_status", "it is found out")
    weight = item.number("load_balancing_weight")
    endpoint = item.mapping("endpoint")
    if endpoint is None:
        item.refuse("there is no endpoint", "write endpoint: {address: …}")
        return "", 1, item.line
    endpoint.ignore("hostname")
    endpoint.leave_out("health_check_config", "endpoints are looked at where they get requests")
    endpoint.leave_out("additional_addresses", "write an endpoint for each address")
    return address(endpoint), weight or 1, item.line


def _share(weight: int, greatest: int) -> int:
    return weight if greatest <= HEAVIEST else max(1, round(weight * HEAVIEST / greatest))


def _weighted(text: str, weight: int, line: int) -> str | Block:
    return text if weight == 1 else Block(line, {"address": text, "weight": str(weight)})


def _addresses(endpoints: list[str | Block]) -> list[str]:
    return [item if isinstance(item, str) else str(item.values["address"]) for item in endpoints]


# -- health ------------------------------------------------------------------------------------------------------


def _health_check(node: Node, *, is_h2c: bool) -> dict[str, Any]:
    checks = node.mappings("health_checks")
    for other in checks[1:]:
        other.lose("endpoints are looked at in one way")
    if not checks:
        return {}
    check = checks[0]
    kind = _kind(check)
    if kind is None:
        check.lose("endpoints are looked at with HTTP or TCP")
        return {}
    if is_h2c and "path" in kind:
        check.leave_out("http_health_check", "with h2c, that a connection can be made is enough")
        kind = {}
    check.ignore("reuse_connection", "alt_port")
    for name in ("initial_jitter", "no_traffic_interval", "unhealthy_interval", "unhealthy_edge_interval"):
        check.leave_out(name, "there is one interval")
    for name in ("healthy_edge_interval", "no_traffic_healthy_interval"):
        check.leave_out(name, "there is one interval")
    for name in ("event_log_path", "event_logger", "always_log_health_check_failures"):
        check.leave_out(name, "changes are in the program's log")
    values = kind | {"jitter": _jitter(check)}
    for name in ("interval", "timeout"):
        if text := duration(check, name):
            values[name] = text
    for name in ("healthy_threshold", "unhealthy_threshold"):
        number = check.number(name)
        if number:
            values[name] = str(min(number, MOST_RESULTS))
    return {"health_check": Block(check.line, values)}


def _kind(check: Node) -> dict[str, Any] | None:
    """How endpoints are looked at; None for a way that there is not."""
    http, tcp = check.mapping("http_health_check"), check.mapping("tcp_health_check")
    if tcp is not None:
        for name in ("send", "receive"):
            tcp.leave_out(name, "a connection that can be made is enough")
        return {}
    if http is None:
        return None
    http.ignore("codec_client_type")
    http.ignore("request_headers_to_remove")  # of those that Envoy itself would send
    http.leave_out("request_headers_to_add", "endpoints are asked with Host only")
    http.leave_out("service_name_matcher", "the status decides")
    http.leave_out("retriable_statuses", "the status decides")
    if http.text("method", "GET") not in ("GET", "METHOD_UNSPECIFIED"):
        http.leave_out("method", "endpoints are asked with GET")
    values: dict[str, Any] = {"path": http.text("path") or "/"}
    if host := http.text("host"):
        values["host"] = host
    return values | {"statuses": [_statuses(node) for node in http.mappings("expected_statuses")] or ["200"]}


def _statuses(node: Node) -> str:
    start, end = node.number("start") or 200, node.number("end") or 201
    return str(start) if end - start <= 1 else f"{start}-{end - 1}"


def _jitter(check: Node) -> str:
    """The greatest part of the interval that is added at random: Envoy adds none unless it is told."""
    percent = check.number("interval_jitter_percent")
    if percent is not None:
        return f"{min(percent, 100) / 100:g}"
    jitter, interval = duration(check, "interval_jitter"), duration(check, "interval")
    if not jitter or not interval or not seconds(interval):
        return "0"
    return f"{min(seconds(jitter) / seconds(interval), 1):.3g}"


def _outlier_detection(node: Node, draft: Draft) -> str | Block:
    config = node.mapping("outlier_detection")
    if config is None:
        return "off"
    config.ignore("interval", "enforcing_consecutive_5xx", "enforcing_consecutive_gateway_failure")
    gateway = config.number("consecutive_gateway_failure")
    all_errors = config.number("consecutive_5xx")
    failures = 5 if all_errors is None else all_errors
    if config.number("enforcing_consecutive_5xx") == 0:
        failures = 0
    if gateway and config.number("enforcing_consecutive_gateway_failure"):
        failures = min(gateway, failures or gateway)
    elif failures:
        draft.note(f"{config.path}: of answers, 502, 503 and 504 count as failures here, not every 5xx")
    values: dict[str, Any] = {"consecutive_failures": str(failures), "max_ejection_percent": "10"}
    for name in ("base_ejection_time", "max_ejection_time"):
        if text := duration(config, name):
            values[name] = text
    percent = config.number("max_ejection_percent")
    if percent is not None:
        values["max_ejection_percent"] = str(percent)
    return Block(config.line, values)


def _limits(node: Node) -> Block:
    """Envoy's limits, which are 1024 each if nobody gives others."""
    values = {"connections": "1024", "pending_requests": "1024", "requests": "1024"}
    breakers = node.mapping("circuit_breakers")
    if breakers is None:
        return Block(node.line, values)
    breakers.leave_out("per_host_thresholds", "limits are for all endpoints together")
    for threshold in breakers.mappings("thresholds"):
        if threshold.word("priority", ("DEFAULT", "HIGH"), "DEFAULT") != "DEFAULT":
            threshold.lose("all requests have the same priority")
            continue
        threshold.ignore("max_retries", "track_remaining", "retry_budget", "max_connection_pools")
        for ours in values:
            number = threshold.number(f"max_{ours}")
            if number is not None:
                values[ours] = str(min(number, GREATEST_LIMIT))  # people who want none write a great number
    return Block(breakers.line, values)


# -- transport ---------------------------------------------------------------------------------------------------


def _transport(node: Node, hosts: list[str], draft: Draft) -> dict[str, Any]:
    """TLS and the PROXY protocol."""
    for name in ("transport_socket_matches", "filters"):
        inner = node.get(name)
        if inner is not None and not inner.is_empty:
            inner.refuse("all endpoints are connected to in the same way", "write transport_socket")
    values: dict[str, Any] = {}
    holder = node
    socket = node.mapping("transport_socket")
    if socket is not None:
        found = extension(socket)
        if found.kind == "ProxyProtocolUpstreamTransport":
            config = found.config.mapping("config")
            values["proxy_protocol"] = (config.word("version", ("V1", "V2"), "V1") if config else "V1").lower()
            holder = found.config
    context = tls_context(holder)
    if context is not None:
        values["tls"] = upstream_tls(context, hosts, draft, is_raw=draft.clusters[node.text("name")] in draft.raw)
    return values
