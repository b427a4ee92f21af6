"""
Envoy's bootstrap for the benchmark.

In raw TCP mode it offers no ALPN, as hitch and stunnel do not.
"""

from __future__ import annotations

from typing import Any

from bench.launch import LOOPBACK
from bench.logged import envoy_format, members
from bench.placement import Mode, Placement


def envoy_bootstrap(place: Placement) -> dict[str, Any]:
    """Return Envoy's bootstrap: one listener, one cluster, no admin interface."""
    listener = {
        "name": "ingress",
        "address": _address(place.port),
        "filter_chains": [
            {
                "transport_socket": _tls(place),
                "filters": [_tcp_filter() if place.is_relay else _http_filter(place)],
            }
        ],
    }
    endpoint = {"endpoint": {"address": _address(place.app_port)}}
    cluster = {
        "name": "app",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "app",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        **(_http2_to_app() if place.mode is Mode.GRPC else {}),
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    """Return a loopback address in Envoy's form."""
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _http2_to_app() -> dict[str, Any]:
    """Return a cluster's setting for HTTP/2 in the clear."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{name}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {"typed_extension_protocol_options": {name: options}}


def _tls(place: Placement) -> dict[str, Any]:
    """Return Envoy's downstream TLS settings: TLS 1.3, our certificate, and whether clients need one."""
    certificate = place.certificate
    alpn = {} if place.is_relay else {"alpn_protocols": ["h2", "http/1.1"]}
    anchors: dict[str, Any] = {}
    requirement: dict[str, Any] = {}
    if place.are_clients_verified:
        anchors = {"validation_context": {"trusted_ca": {"filename": str(certificate.client_ca_path)}}}
        requirement = {"require_client_certificate": True}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                **alpn,
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(certificate.certificate_path)},
                        "private_key": {"filename": str(certificate.key_path)},
                    }
                ],
                **anchors,
            },
            **requirement,
        },
    }


def _http_filter(place: Placement) -> dict[str, Any]:
    """Return Envoy's HTTP connection manager: everything goes to the app, without a deadline."""
    identity_fields: dict[str, Any] = {}
    if place.are_clients_told:
        identity_fields = {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},  # Hash is always there
        }
    access_log: dict[str, Any] = {"access_log": [_access_log(place)]} if place.is_logging else {}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network."
            "http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ingress",
            "use_remote_address": True,
            "route_config": {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router],
            **identity_fields,
            **access_log,
        },
    }


def _access_log(place: Placement) -> dict[str, Any]:
    """Return Envoy's access log, of JSON on standard output."""
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": envoy_format(members(are_clients_told=place.are_clients_told))},
        },
    }


def _tcp_filter() -> dict[str, Any]:
    """Return Envoy's TCP proxy: every connection gets one to the app."""
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "ingress",
            "cluster": "app",
        },
    }
