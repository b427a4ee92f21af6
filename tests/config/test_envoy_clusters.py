"""`sidecar.config.envoy_clusters`: clusters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.bootstraps import (
    UPSTREAM,
    Json,
    address,
    bootstrap,
    cluster,
    endpoints,
    extension,
    left_out,
    read,
    refusals,
)

PROXY_PROTOCOL = "t/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def defining(**fields: Any) -> Json:
    return bootstrap(clusters=[cluster(**fields)])


def made(**fields: Any) -> Any:
    return read(defining(**fields)).values["clusters"][0]


def weighted(*weights: int, **fields: Any) -> Json:
    """A load assignment whose endpoints have these weights."""
    items = [
        {"endpoint": {"address": address(port=80 + index)}, "load_balancing_weight": weight}
        for index, weight in enumerate(weights)
    ]
    return {"endpoints": [{"lb_endpoints": items, **fields}]}


class TestCluster:
    def test_defaults_are_envoys(self) -> None:
        """Where ours are others, the file says so."""
        assert made() == {
            "name": "app",
            "endpoints": ["127.0.0.1:8080"],
            "connect_timeout": "5s",
            "outlier_detection": "off",
            "limits": {"connections": "1024", "pending_requests": "1024", "requests": "1024"},
        }

    @pytest.mark.parametrize(
        ("fields", "ours"),
        [
            ({"type": "STRICT_DNS"}, {"discovery": "strict_dns"}),
            ({"type": "logical_dns", "dns_refresh_rate": "2s"}, {"discovery": "logical_dns", "dns_refresh": "2s"}),
            ({"lb_policy": "least_request"}, {"balancing": "least_request"}),
            ({"connect_timeout": "0.25s"}, {"connect_timeout": "250ms"}),
            ({"common_lb_config": {"healthy_panic_threshold": {"value": 12.5}}}, {"panic_threshold": "12"}),
            ({"common_lb_config": {"healthy_panic_threshold": {"value": 999}}}, {"panic_threshold": "100"}),
        ],
    )
    def test_option_is_written_as_ours(self, fields: Json, ours: Json) -> None:
        """In whatever case old files write their words."""
        assert ours.items() <= made(**fields).items()

    def test_refreshing_addresses_is_nothing(self) -> None:
        """Only names are looked up again."""
        assert "dns_refresh" not in made(type="STATIC", dns_refresh_rate="2s")
        assert left_out(defining(dns_refresh_rate="2s")) == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"type": "EDS"},
            {"type": "ORIGINAL_DST"},
            {"cluster_type": {"name": "envoy.clusters.redis"}},
            {"load_assignment": None},
            {"load_assignment": {"endpoints": []}},
            {"load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint_name": "x"}]}]}},
            {"transport_socket_matches": [{"name": "x"}]},
            {"common_lb_config": {"healthy_panic_threshold": {"value": "inf"}}},
            {"filters": [{"name": "x"}]},
            {"name": None},
        ],
    )
    def test_cluster_that_cannot_be_had_is_refused(self, fields: Json) -> None:
        """There is nothing else that requests could be sent to."""
        assert refusals(defining(**fields))

    def test_two_clusters_of_one_name_are_refused(self) -> None:
        """It would be chance which of them is meant."""
        assert list(refusals(bootstrap(clusters=[cluster(), cluster()]))) == ["clusters[1]"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"lb_policy": "RING_HASH"},
            {"protocol_selection": "USE_DOWNSTREAM_PROTOCOL"},
            {"respect_dns_ttl": True},
            {"upstream_connection_options": {"tcp_keepalive": {}}},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_what_is_otherwise_here_is_left_out(self, fields: Json) -> None:
        """With a reason."""
        (item,) = read(defining(**fields)).left_out

        assert item.path.endswith(next(iter(fields)))
        assert item.reason != "there is nothing like it here"

    @pytest.mark.parametrize(("host", "lost"), [("127.0.0.1", 0), ("::1", 0), ("app.internal", 1)])
    def test_family_matters_for_names_only(self, host: str, lost: int) -> None:
        """An address has its family."""
        assert len(left_out(defining(load_assignment=endpoints(host), dns_lookup_family="V4_ONLY"))) == lost


class TestEndpoints:
    def test_hosts_of_v2_are_endpoints(self) -> None:
        """As old files list them."""
        hosts = [address(), {"pipe": {"path": "/run/app.sock"}}]

        assert made(load_assignment=None, hosts=hosts)["endpoints"] == ["127.0.0.1:8080", "unix:/run/app.sock"]

    @pytest.mark.parametrize(
        ("given", "ours"),
        [((1, 3), (1, 3)), ((128, 1), (128, 1)), ((1000, 500, 1), (128, 64, 1)), ((1280, 10), (128, 1))],
    )
    def test_weights_stay_in_proportion(self, given: tuple[int, ...], ours: tuple[int, ...]) -> None:
        """Up to what there is here; none becomes nothing."""
        found = made(load_assignment=weighted(*given))["endpoints"]

        assert tuple(1 if isinstance(item, str) else int(item["weight"]) for item in found) == ours

    def test_endpoint_that_is_listed_twice_gets_twice_as_much(self) -> None:
        """Here it would be refused as a slip."""
        twice = endpoints("127.0.0.1", "127.0.0.1", "127.0.0.2")

        assert made(load_assignment=twice)["endpoints"] == [
            {"address": "127.0.0.1:8080", "weight": "2"},
            "127.0.0.2:8080",
        ]

    def test_spare_endpoints_are_left_out(self) -> None:
        """Those of lower priority must not get requests before they are needed."""
        assignment = {"endpoints": [*endpoints("127.0.0.1")["endpoints"], *weighted(1, priority=1)["endpoints"]]}

        assert made(load_assignment=assignment)["endpoints"] == ["127.0.0.1:8080"]
        assert left_out(defining(load_assignment=assignment)) == ["load_assignment.endpoints[1]"]


class TestHealthCheck:
    def test_http_check_is_written_as_ours(self) -> None:
        """Envoy expects 200 and adds no jitter, if it is not told."""
        check = {"timeout": "1s", "interval": "2s", "http_health_check": {"path": "/healthz"}}

        assert made(health_checks=[check])["health_check"] == {
            "path": "/healthz",
            "statuses": ["200"],
            "jitter": "0",
            "interval": "2s",
            "timeout": "1s",
        }

    @pytest.mark.parametrize(
        ("fields", "jitter"),
        [
            ({"interval_jitter_percent": 20}, "0.2"),
            ({"interval_jitter_percent": 200}, "1"),
            ({"interval_jitter": "1s"}, "0.1"),
            ({"interval_jitter": "60s"}, "1"),
            ({"interval_jitter": "1s", "interval": "0s"}, "0"),
        ],
    )
    def test_jitter_is_a_part_of_the_interval(self, fields: Json, jitter: str) -> None:
        """At most all of it."""
        check = {"interval": "10s", "tcp_health_check": {}} | fields

        assert made(health_checks=[check])["health_check"]["jitter"] == jitter

    def test_range_of_statuses_ends_before_its_end(self) -> None:
        """Envoy's ranges are half open, ours are not."""
        http = {"path": "/", "expected_statuses": [{"start": 200, "end": 300}, {"start": 401, "end": 402}]}

        assert made(health_checks=[{"http_health_check": http}])["health_check"]["statuses"] == ["200-299", "401"]

    def test_tcp_check_has_no_path(self) -> None:
        """What is sent and awaited is left out."""
        check = {"interval": "1s", "tcp_health_check": {"send": {"text": "00"}}}

        assert made(health_checks=[check])["health_check"] == {"jitter": "0", "interval": "1s"}
        assert left_out(defining(health_checks=[check])) == ["health_checks[0].tcp_health_check.send"]

    def test_other_requests_are_left_out(self) -> None:
        """Endpoints are asked with GET, and with nothing but Host."""
        http = {
            "path": "/",
            "method": "HEAD",
            "request_headers_to_add": [{"header": {"key": "authorization", "value": "x"}}],
            "request_headers_to_remove": ["user-agent"],
        }

        assert left_out(defining(health_checks=[{"http_health_check": http}])) == [
            "health_checks[0].http_health_check.method",
            "health_checks[0].http_health_check.request_headers_to_add",
        ]

    def test_other_checks_are_left_out(self) -> None:
        """One way of looking, with HTTP or TCP."""
        assert left_out(defining(health_checks=[{"grpc_health_check": {"x": 1}}])) == ["health_checks[0]"]
        assert left_out(defining(health_checks=[{"tcp_health_check": {}}] * 2)) == ["health_checks[1]"]


class TestOutlierDetection:
    @pytest.mark.parametrize(
        ("fields", "failures"),
        [
            ({}, "5"),
            ({"consecutive_5xx": 3}, "3"),
            ({"consecutive_5xx": 0}, "0"),
            ({"enforcing_consecutive_5xx": 0}, "0"),
            ({"consecutive_gateway_failure": 2}, "5"),
            ({"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100}, "2"),
            (
                {
                    "enforcing_consecutive_5xx": 0,
                    "consecutive_gateway_failure": 7,
                    "enforcing_consecutive_gateway_failure": 100,
                },
                "7",
            ),
        ],
    )
    def test_failures_that_are_enforced_count(self, fields: Json, failures: str) -> None:
        """Those of gateways only if the file says so, as in Envoy."""
        found = made(outlier_detection={"interval": "10s"} | fields)["outlier_detection"]

        assert found == {"consecutive_failures": failures, "max_ejection_percent": "10"}

    def test_times_and_share_are_carried_over(self) -> None:
        """How long, and how many at once."""
        config = {"base_ejection_time": "10s", "max_ejection_time": "60s", "max_ejection_percent": 50}

        assert made(outlier_detection=config)["outlier_detection"] == {
            "consecutive_failures": "5",
            "max_ejection_percent": "50",
            "base_ejection_time": "10s",
            "max_ejection_time": "60s",
        }


class TestLimits:
    def test_thresholds_are_limits(self) -> None:
        """Those of usual priority; what is meant as none is the greatest there is."""
        thresholds = [
            {"priority": "HIGH", "max_connections": 1},
            {"max_connections": 10, "max_requests": 2**32 - 1, "max_retries": 3},
        ]
        values = defining(circuit_breakers={"thresholds": thresholds})

        assert read(values).values["clusters"][0]["limits"] == {
            "connections": "10",
            "pending_requests": "1024",
            "requests": "1000000",
        }
        assert left_out(values) == ["circuit_breakers.thresholds[0]"]


class TestTransport:
    @pytest.mark.parametrize(("config", "version"), [({"config": {"version": "V2"}}, "v2"), ({}, "v1")])
    def test_proxy_protocol_comes_before_tls(self, config: Json, version: str) -> None:
        """The socket inside is read too."""
        inner = {"transport_socket": extension(UPSTREAM, sni="a.b")}
        found = made(transport_socket=extension(PROXY_PROTOCOL, **config, **inner))

        assert (found["proxy_protocol"], found["tls"]) == (version, {"verify": "off", "sni": "a.b"})
