"""`sidecar.config.envoy_http`: the filters that do a listener's work."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.bootstraps import (
    CORS,
    FILE_LOG,
    RBAC,
    TCP,
    Json,
    bootstrap,
    chain,
    extension,
    http,
    left_out,
    listener,
    read,
    refusals,
)


def serving(**fields: Any) -> Json:
    """A bootstrap whose HTTP filter has these fields."""
    return bootstrap(listener(chain(http(**fields))))


def common(**fields: Any) -> Json:
    return serving(common_http_protocol_options=fields)


def forwarding(**fields: Any) -> Json:
    """A bootstrap whose TCP filter has these fields."""
    return bootstrap(listener(chain(extension(TCP, **({"cluster": "app"} | fields)))))


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "name", "value"),
        [
            (common(idle_timeout="60s"), "idle_timeout", "60s"),
            (serving(idle_timeout="60s"), "idle_timeout", "60s"),
            (common(idle_timeout="0s"), "idle_timeout", "86400s"),
            (serving(request_headers_timeout="5s"), "header_timeout", "5s"),
            (serving(stream_idle_timeout="0s"), "stream_timeout", "0s"),
            (serving(max_request_headers_kb=96), "max_header_bytes", "96KiB"),
            (serving(max_request_headers_kb=8192), "max_header_bytes", "1024KiB"),
            (common(max_headers_count=50), "max_headers", "50"),
            (common(max_requests_per_connection=7), "max_requests_per_connection", "7"),
            (common(headers_with_underscores_action="ALLOW"), "underscore_headers", "allow"),
            (common(headers_with_underscores_action="DROP_HEADER"), "underscore_headers", "drop"),
            (serving(normalize_path=True), "normalize_path", "on"),
            (serving(merge_slashes=True), "normalize_path", "on"),
            (serving(path_with_escaped_slashes_action="REJECT_REQUEST"), "normalize_path", "on"),
            (serving(forward_client_cert_details="SANITIZE_SET"), "identity_headers", ["xfcc"]),
        ],
    )
    def test_option_becomes_a_setting(self, values: Json, name: str, value: object) -> None:
        """What Envoy says of one listener, is said of all here."""
        got = read(values)

        assert got.values[name] == value
        assert got.left_out == ()

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"stat_prefix": "x", "codec_type": "AUTO", "generate_request_id": True, "proxy_100_continue": True},
            {"normalize_path": False, "merge_slashes": False, "forward_client_cert_details": "SANITIZE"},
            {"path_with_escaped_slashes_action": "KEEP_UNCHANGED"},
            {"http_protocol_options": {"accept_http_10": True}},
            {"upgrade_configs": [{"upgrade_type": "websocket"}]},
            {"http_filters": [{"name": "envoy.filters.http.router"}]},
            {"http_filters": [{"name": "envoy.router", "config": {"dynamic_stats": False}}]},
        ],
    )
    def test_what_is_the_case_anyway_is_silent(self, fields: Json) -> None:
        """Fields that make no difference become no settings and are no loss."""
        got = read(serving(**fields))

        assert set(got.values) == {"listeners", "clusters", "access_log"}
        assert got.left_out == ()

    @pytest.mark.parametrize("kilobytes", [1024, 1025])
    def test_larger_heads_than_there_can_be_are_noted(self, kilobytes: int) -> None:
        """The limit here is 1 MiB."""
        notes = read(serving(max_request_headers_kb=kilobytes)).notes

        assert any("1024 KiB" in note for note in notes) == (kilobytes > 1024)

    def test_different_options_of_two_listeners_are_left_out(self) -> None:
        """The first holds for both."""
        first, second = (chain(http(request_headers_timeout=text)) for text in ("5s", "6s"))
        values = bootstrap(listener(first), listener(second, port=444))

        assert read(values).values["header_timeout"] == "5s"
        assert left_out(values) == ["listeners[1].filter_chains[0].filters[0].typed_config.request_headers_timeout"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"use_remote_address": True},
            {"xff_num_trusted_hops": 1},
            {"request_headers_timeout": "0s"},
            {"codec_type": "HTTP2"},
            {"forward_client_cert_details": "FORWARD_ONLY"},
            {"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
            {"http2_protocol_options": {"max_concurrent_streams": 10}},
            {"upgrade_configs": [{"upgrade_type": "CONNECT"}]},
            {"generate_request_id": False},
            {"http_protocol_options": {"allow_chunked_length": True}},
            {"server_name": "x"},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_what_is_otherwise_here_is_left_out(self, fields: Json) -> None:
        """It is listed with a reason."""
        (item,) = read(serving(**fields)).left_out

        assert next(iter(fields)) in item.path
        assert item.reason != "there is nothing like it here"

    def test_trust_in_proxies_names_its_setting(self) -> None:
        """Nobody is left to guess where hops have gone."""
        (item,) = read(serving(xff_num_trusted_hops=2)).left_out

        assert "SIDECAR_TRUSTED_PROXIES" in item.reason

    @pytest.mark.parametrize("is_direct", [True, False])
    def test_lost_word_of_proxies_is_noted(self, is_direct: bool) -> None:
        """Envoy takes X-Forwarded-For from anybody unless it is told that clients connect to it directly."""
        notes = read(serving(use_remote_address=is_direct)).notes

        assert any(note.startswith("X-Forwarded-*") for note in notes) != is_direct

    @pytest.mark.parametrize("fields", [{"rds": {"route_config_name": "x"}}, {"scoped_routes": {"name": "x"}}, {}])
    def test_routes_from_elsewhere_are_refused(self, fields: Json) -> None:
        """Without routes nothing can be served."""
        assert refusals(serving(route_config=None, **fields))


class TestFilters:
    @pytest.mark.parametrize(
        "filter_",
        [
            extension(RBAC, rules={}),
            {"name": "envoy.filters.http.cors", "typed_config": {"@type": RBAC}},
            {"name": "envoy.ext_authz", "config": {}},
            {"name": "envoy.filters.http.jwt_authn"},
            {"name": "envoy.filters.http.local_ratelimit"},
            {"name": "envoy.filters.http.bandwidth_limit"},
            {"name": "envoy.filters.http.lua"},
            {"name": "envoy.filters.http.ip_tagging"},
            {"name": "x", "config_discovery": {}},
        ],
        ids=lambda filter_: filter_["name"],
    )
    def test_filter_that_may_refuse_requests_is_refused(self, filter_: Json) -> None:
        """Whatever is not known to be harmless might be what protects the app."""
        assert list(refusals(serving(http_filters=[filter_, {"name": "envoy.filters.http.router"}]))) == [
            "http_filters[0]"
        ]

    @pytest.mark.parametrize("filter_", [extension(CORS), {"name": "envoy.gzip", "config": {}}])
    def test_harmless_filter_is_left_out(self, filter_: Json) -> None:
        """The app goes without."""
        assert left_out(serving(http_filters=[filter_])) == ["http_filters[0]"]


class TestTcp:
    def test_bytes_go_to_the_cluster(self) -> None:
        """A listener in mode tcp, whose silence lasts as long as in Envoy."""
        values = read(forwarding(stat_prefix="x")).values

        assert values["listeners"][0] == {
            "name": "listener_0",
            "address": "0.0.0.0:443",
            "tls": "off",
            "mode": "tcp",
            "cluster": "app",
        }
        assert values["tcp_idle_timeout"] == "1h"

    def test_options_are_carried_over(self) -> None:
        """The timeout and the log."""
        log = extension(FILE_LOG, path="/dev/stdout", format="%DURATION%")
        values = read(forwarding(idle_timeout="60s", access_log=[log])).values

        assert (values["tcp_idle_timeout"], values["access_log_format"]) == ("60s", "%DURATION%")

    @pytest.mark.parametrize(
        "fields",
        [
            {"tunneling_config": {"hostname": "x"}},
            {"cluster": None, "weighted_clusters": {"clusters": [{"name": "app"}]}},
            {"cluster": "nowhere"},
        ],
    )
    def test_filter_without_one_cluster_is_refused(self, fields: Json) -> None:
        """All bytes go to one place, as they are."""
        assert refusals(forwarding(**fields))
