"""The filters of an Envoy listener that do its work: HttpConnectionManager and TcpProxy."""

from __future__ import annotations

from typing import Any, Final

from sidecar.config import envoy_logs
from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_forms import Extension, duration, extension, seconds
from sidecar.config.envoy_nodes import Node
from sidecar.config.envoy_routes import virtual_hosts
from sidecar.config.units import LONGEST_DURATION

_NOT_HERE: Final = {
    "use_remote_address": "clients are who connects, unless SIDECAR_TRUSTED_PROXIES has their network",
    "xff_num_trusted_hops": "write the networks of the proxies in front as SIDECAR_TRUSTED_PROXIES",
    "original_ip_detection_extensions": "write the networks of the proxies in front as SIDECAR_TRUSTED_PROXIES",
    "internal_address_config": "write the networks of the proxies in front as SIDECAR_TRUSTED_PROXIES",
    "skip_xff_append": "X-Forwarded-For is always written",
    "tracing": "traceparent is passed on; no spans are sent",
    "request_timeout": "there are header_timeout and body_timeout",
    "drain_timeout": "there is one drain_timeout for everything",
    "delayed_close_timeout": "it is fixed here",
    "server_name": "the Server field is the app's",
    "server_header_transformation": "the Server field is the app's",
    "add_user_agent": "User-Agent is the client's",
    "via": "there is no Via field",
    "local_reply_config": "answers from here are fixed",
    "http3_protocol_options": "there is no HTTP/3",
    "strip_matching_host_port": "hosts are compared without their port, and passed on with it",
    "strip_any_host_port": "hosts are compared without their port, and passed on with it",
    "strip_port_mode": "hosts are compared without their port, and passed on with it",
    "strip_trailing_host_dot": "hosts are passed on as they came",
    "preserve_external_request_id": "X-Request-Id is believed of SIDECAR_TRUSTED_PROXIES",
    "upgrade_configs": "WebSocket and other upgrades are passed on, CONNECT is not",
}

_BELIEVED: Final = (
    "X-Forwarded-* of whoever connects is replaced, where Envoy passes it on; of load balancers in front it is "
    "believed if SIDECAR_TRUSTED_PROXIES has their networks"
)

_SILENT: Final = ("stat_prefix", "proxy_100_continue", "http1_safe_max_connection_duration", "access_log_options")

# HTTP filters that keep nobody out, and whose absence an app may live with. Any other might be what protects it.
_HARMLESS: Final = frozenset(
    {"compressor", "gzip", "brotli", "decompressor", "cors", "fault", "grpc_web", "grpc_stats", "grpc_http1_bridge"}
    | {"grpc_json_transcoder", "health_check", "on_demand", "cache", "stateful_session", "tap", "dynamo", "squash"}
    | {"header_to_metadata"}
)


def connection_manager(config: Node, draft: Draft) -> dict[str, Any]:
    """Read a HttpConnectionManager: its ``virtual_hosts``. What holds for all listeners goes to *draft*."""
    config.ignore(*_SILENT)
    _websockets_are_passed_on(config)
    if not config.flag("use_remote_address"):
        draft.note(_BELIEVED)
    for name, reason in _NOT_HERE.items():
        config.leave_out(name, reason)
    _generates_ids(config)
    _timeouts(config, draft)
    _limits(config, draft)
    _strictness(config, draft)
    _identity(config, draft)
    _filters(config)
    envoy_logs.access_log(config, draft)
    return _routes(config, draft)


def _routes(config: Node, draft: Draft) -> dict[str, Any]:
    routes = config.mapping("route_config")
    if routes is None:
        node = config.get("rds") or config.get("scoped_routes") or config
        node.refuse("there are no routes in this file", "write route_config: nothing is fetched from a control plane")
        return {}
    return {"virtual_hosts": virtual_hosts(routes, draft)}


def _websockets_are_passed_on(config: Node) -> None:
    upgrades = config.mappings("upgrade_configs")
    if upgrades and all(node.text("upgrade_type").lower() == "websocket" for node in upgrades):
        config.ignore("upgrade_configs")


def _generates_ids(config: Node) -> None:
    if not config.flag("generate_request_id", default=True):
        config.leave_out("generate_request_id", "X-Request-Id is always written")


# -- settings ----------------------------------------------------------------------------------------------------


def _timeouts(config: Node, draft: Draft) -> None:
    common = config.mapping("common_http_protocol_options")
    for parent, name, setting in (
        (common, "idle_timeout", "idle_timeout"),
        (config, "idle_timeout", "idle_timeout"),  # where files for v2 have it
        (config, "request_headers_timeout", "header_timeout"),
        (config, "stream_idle_timeout", "stream_timeout"),
    ):
        text = duration(parent, name) if parent is not None else ""
        if not text or parent is None:
            continue
        node = parent.get(name)
        assert node is not None  # it has a text
        if seconds(text) or setting == "stream_timeout":
            draft.put(setting, text, node)
        elif setting == "idle_timeout":
            draft.put(setting, f"{LONGEST_DURATION}s", node)
            draft.note(f"{node.path}: idle connections are closed after a day at last")
        else:
            node.lose(f"{setting} cannot be off")


def _limits(config: Node, draft: Draft) -> None:
    kilobytes = config.number("max_request_headers_kb")
    if kilobytes:
        node = config.get("max_request_headers_kb")
        assert node is not None  # it has a number
        draft.put("max_header_bytes", f"{min(kilobytes, 1024)}KiB", node)
        if kilobytes > 1024:
            draft.note(f"{node.path}: {kilobytes} KiB is more than there can be here, 1024 KiB")
    common = config.mapping("common_http_protocol_options")
    if common is None:
        return
    common.leave_out("max_connection_duration", "there is max_requests_per_connection")
    common.leave_out("max_stream_duration", "there are upstream_timeout and stream_timeout")
    for name, setting in (
        ("max_headers_count", "max_headers"),
        ("max_requests_per_connection", "max_requests_per_connection"),
    ):
        number, node = common.number(name), common.get(name)
        if number and node is not None:
            draft.put(setting, str(number), node)


_UNDERSCORES: Final = {"ALLOW": "allow", "REJECT_REQUEST": "reject", "DROP_HEADER": "drop"}


def _strictness(config: Node, draft: Draft) -> None:
    common = config.mapping("common_http_protocol_options")
    action = common.word("headers_with_underscores_action", _UNDERSCORES) if common is not None else ""
    if common is not None and action:
        node = common.get("headers_with_underscores_action")
        assert node is not None  # it has a word
        draft.put("underscore_headers", _UNDERSCORES[action], node)
    _paths(config, draft)
    options = config.mapping("http_protocol_options")
    if options is not None:
        # HTTP/1.0, absolute targets and trailers are always taken.
        options.ignore("accept_http_10", "allow_absolute_url", "enable_trailers", "default_host_for_http_10")
        options.leave_out("header_key_format", "names of header fields are passed on as they came")
        if options.flag("allow_chunked_length"):
            options.leave_out("allow_chunked_length", "requests with two lengths are always refused")


def _paths(config: Node, draft: Draft) -> None:
    actions = ("IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT")
    action = config.word("path_with_escaped_slashes_action", (*actions, "UNESCAPE_AND_FORWARD"))
    if action.startswith("UNESCAPE"):
        config.leave_out("path_with_escaped_slashes_action", "paths with an encoded slash are refused or kept")
    wanted = [name for name in ("normalize_path", "merge_slashes") if config.flag(name)]
    if action == "REJECT_REQUEST":
        wanted.append("path_with_escaped_slashes_action")
    if wanted:
        node = config.get(wanted[0])
        assert node is not None  # it is on
        draft.put("normalize_path", "on", node)
        if "normalize_path" not in wanted or "merge_slashes" not in wanted:
            draft.note(
                "normalize_path resolves dot segments, merges slashes and refuses ambiguous paths, all or nothing"
            )


_DETAILS: Final = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")


def _identity(config: Node, draft: Draft) -> None:
    details = config.word("forward_client_cert_details", _DETAILS, "SANITIZE")
    if details in ("SANITIZE_SET", "APPEND_FORWARD"):
        node = config.get("forward_client_cert_details")
        assert node is not None  # it has a word
        draft.put("identity_headers", ["xfcc"], node)
    if details not in ("SANITIZE", "SANITIZE_SET"):
        reason = "X-Forwarded-Client-Cert of clients is always removed; identity_headers: xfcc writes a new one"
        config.leave_out("forward_client_cert_details", reason)
    config.ignore("set_current_client_cert_details")  # ours has all that the certificate says


def _filters(config: Node) -> None:
    for node in config.mappings("http_filters"):
        found = extension(node)
        if found.kind == "Router":
            _router(found)
        elif found.family in _HARMLESS:
            node.lose("there are no filters")
        else:
            fact = f"there is no filter like {(found.kind or found.family)[:60]!a} here"
            fix = "remove it if that is right; client_rules may say the same"
            node.refuse(f"{fact}, and requests would pass without it", fix)


def _router(found: Extension) -> None:
    found.config.ignore("dynamic_stats", "suppress_envoy_headers", "start_child_span")


# -- TCP ---------------------------------------------------------------------------------------------------------

ENVOYS_TCP_IDLE: Final = "1h"
"""After which a TcpProxy that says nothing else closes a silent connection."""


def tcp_proxy(config: Node, draft: Draft) -> dict[str, Any]:
    """Read a TcpProxy: its ``cluster``."""
    config.ignore("stat_prefix", "access_log_options", "access_log_flush_interval")
    config.leave_out("max_connect_attempts", "up to three endpoints are tried")
    config.leave_out("hash_policy", "endpoints are taken in turn, or by their load")
    config.leave_out("max_downstream_connection_duration", "connections last as long as they are used")
    text = duration(config, "idle_timeout") or ENVOYS_TCP_IDLE
    draft.put("tcp_idle_timeout", text, config.get("idle_timeout") or config)
    envoy_logs.access_log(config, draft)
    if config.has("tunneling_config") or not config.text("cluster"):
        config.refuse("there is no cluster that all bytes go to", "write cluster: NAME, and no tunneling_config")
        return {}
    cluster = draft.cluster(config)
    draft.raw.add(cluster)
    return {"mode": "tcp", "cluster": cluster}
