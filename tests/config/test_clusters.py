"""`sidecar.config.clusters`: clusters as they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from sidecar.config.clusters import app_cluster, read_clusters
from sidecar.config.entries import Reader
from sidecar.config.load import load
from sidecar.errors import Problem
from sidecar.settings import HostPort, LoadBalancing, ProxyProtocolOut, UnixPath
from sidecar.topology import (
    ClusterLimits,
    ClusterSpec,
    Discovery,
    Endpoint,
    HealthCheck,
    OutlierDetection,
    UpstreamProtocol,
    UpstreamTls,
)

ADDRESS = "10.0.0.1:80"

SECRET = "c2VjcmV0"
KEY_MATERIAL = {
    "PEM": f"-----BEGIN CERTIFICATE-----\n{SECRET * 8}\n-----END CERTIFICATE-----\n",
    "PEM behind text": f"the certificate: -----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n",
    "base64 PKCS#12": "MIIJ" + SECRET * 8,
    "base64 PEM": "LS0tLS1C" + SECRET * 8,
    "JSON": json.dumps({"PrivateKey": SECRET}),
}


def read(*clusters: dict[str, Any], **settings: str) -> tuple[list[ClusterSpec | None], list[Problem]]:
    loaded = load({"clusters": json.dumps(clusters), **settings}, {})
    reader = Reader(loaded)
    return [cluster for _, _, cluster in read_clusters(reader, loaded.settings.app.clusters)], reader.problems


def cluster(**keys: Any) -> ClusterSpec:
    """One that has no problems; with an endpoint unless others are given."""
    (found,), problems = read({"name": "shop", "endpoints": ADDRESS} | keys)
    assert problems == []
    assert found is not None
    return found


def places(**keys: Any) -> list[str]:
    """Where one has problems."""
    (found,), problems = read({"name": "shop", "endpoints": ADDRESS} | keys)
    assert found is None
    assert all(problem.source == "flag" and str(problem).isprintable() for problem in problems)
    return [problem.setting.removeprefix("clusters[0].") for problem in problems]


class TestCluster:
    def test_least_that_can_be_written_is_a_name_and_an_endpoint(self) -> None:
        """Everything else has the defaults of the values."""
        assert cluster() == ClusterSpec(name="shop", endpoints=(Endpoint(address=HostPort("10.0.0.1", 80)),))

    def test_everything_that_can_be_written_is_read(self) -> None:
        """Each key where it belongs."""
        found = cluster(
            endpoints=[{"address": "app.internal:8080", "weight": 2}, "unix:/run/a.sock"],
            discovery="strict_dns",
            dns_refresh="1m",
            balancing="least_request",
            connect_timeout="500ms",
            health_check={"path": "/h", "host": "x", "statuses": ["200-299", 401], "interval": "1s", "jitter": 0.5},
            outlier_detection={"consecutive_failures": 1, "base_ejection_time": "1s", "max_ejection_percent": 10},
            limits={"connections": 1, "pending_requests": 2, "requests": 3},
            panic_threshold=0,
            tls={"ca": "/ca", "names": "spiffe://a/b", "sni": "X.y", "alpn": ["http/1.1"], "cert": "/c", "key": "/k"},
            proxy_protocol="v2",
        )
        assert found == ClusterSpec(
            name="shop",
            endpoints=(
                Endpoint(address=HostPort("app.internal", 8080), weight=2),
                Endpoint(address=UnixPath("/run/a.sock")),
            ),
            discovery=Discovery.STRICT_DNS,
            dns_refresh=60.0,
            balancing=LoadBalancing.LEAST_REQUEST,
            connect_timeout=0.5,
            health_check=HealthCheck(path="/h", host="x", statuses=((200, 299), (401, 401)), interval=1.0, jitter=0.5),
            outlier_detection=OutlierDetection(consecutive_failures=1, base_ejection_time=1.0, max_ejection_percent=10),
            limits=ClusterLimits(connections=1, pending_requests=2, requests=3),
            panic_threshold=0,
            tls=UpstreamTls(
                ca=Path("/ca"),
                names=("spiffe://a/b",),
                sni="x.y",
                alpn=("http/1.1",),
                cert=Path("/c"),
                key=Path("/k"),
            ),
            proxy_protocol=ProxyProtocolOut.V2,
        )

    @pytest.mark.parametrize("name", [None, "", "a b", "-a", "x" * 61, {}])
    def test_name_must_fit_into_logs(self, name: object) -> None:
        """It is a label of metrics, too."""
        assert places(name=name) == ["name"]

    def test_names_are_unique(self) -> None:
        """The second of them is refused, with the place of the first."""
        (first, second), problems = read(*[{"name": "a", "endpoints": ADDRESS}] * 2)
        assert first is not None
        assert second is None
        assert [(problem.setting, problem.fact) for problem in problems] == [
            ("clusters[1].name", "clusters[0] is called a already")
        ]

    def test_every_problem_is_told(self) -> None:
        """What is wrong in one cluster, or in one of its keys, hides nothing else."""
        _, problems = read({"endpoints": "x", "colour": 1}, {"name": "b"}, {"name": "c", "endpoints": []})
        assert [problem.setting for problem in problems] == [
            "clusters[0].colour",
            "clusters[0]",
            "clusters[0].endpoints",
            "clusters[1]",
            "clusters[2].endpoints",
        ]

    def test_number_is_bounded(self) -> None:
        """256 are read, one more is refused."""
        many = [{"name": f"c{i}", "endpoints": ADDRESS} for i in range(257)]
        assert len(read(*many[:256])[0]) == 256
        _, problems = read(*many)
        assert [problem.fact for problem in problems] == ["there are 257 entries, limit 256"]


class TestEndpoints:
    @pytest.mark.parametrize(
        ("endpoints", "where"),
        [
            (["a"], "endpoints[0]"),
            ([ADDRESS, "http://b:1"], "endpoints[1]"),
            ([{"weight": 2}], "endpoints[0]"),
            ([{"address": ADDRESS, "wieght": 2}], "endpoints[0].wieght"),
            ([{"address": ADDRESS, "weight": 0}], "endpoints[0].weight"),
            ([{"address": ADDRESS, "weight": 129}], "endpoints[0].weight"),
            ([ADDRESS, "a:1", {"address": ADDRESS}], "endpoints[2]"),
            ([f"10.0.{i // 256}.{i % 256}:1" for i in range(257)], "endpoints"),
        ],
        ids=["port", "scheme", "address", "key", "no weight", "weight", "twice", "many"],
    )
    def test_problem_names_the_endpoint(self, endpoints: list[object], where: str) -> None:
        """By its number in the list."""
        assert places(endpoints=endpoints) == [where]


class TestDiscovery:
    @pytest.mark.parametrize(
        ("endpoints", "expected"),
        [
            ([ADDRESS, "[::1]:80", "unix:/a"], Discovery.STATIC),
            ([ADDRESS, "app:80"], Discovery.STRICT_DNS),
            (["localhost:80"], Discovery.STRICT_DNS),
        ],
    )
    def test_names_are_resolved_unless_something_else_is_said(self, endpoints: list[str], expected: Discovery) -> None:
        """Addresses need no resolver."""
        assert cluster(endpoints=endpoints).discovery is expected
        assert cluster(endpoints=["app:80"], discovery="logical_dns").discovery is Discovery.LOGICAL_DNS

    @pytest.mark.parametrize(
        ("keys", "where"),
        [
            ({"endpoints": "app:80", "discovery": "static"}, "discovery"),
            ({"endpoints": ["a:80", "b:80"], "discovery": "logical_dns"}, "discovery"),
            ({"dns_refresh": "5s"}, "dns_refresh"),
            ({"discovery": "eds"}, "discovery"),
        ],
        ids=["static name", "two logical", "refresh of nothing", "unknown"],
    )
    def test_what_cannot_be_is_refused(self, keys: dict[str, Any], where: str) -> None:
        """A name that is never looked up would never be reached."""
        assert places(**keys) == [where]


class TestHealth:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("/healthz", HealthCheck(path="/healthz")),
            ("tcp", HealthCheck()),
            ("off", None),
            (False, None),
            ({}, HealthCheck()),
            ({"path": "tcp", "interval": "1s"}, HealthCheck(interval=1.0)),
        ],
    )
    def test_short_forms_are_read(self, value: object, expected: HealthCheck | None) -> None:
        """A path or a word is enough for most."""
        assert cluster(health_check=value).health_check == expected

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            ("healthz", "health_check"),
            ({"path": "x"}, "health_check.path"),
            ({"statuses": [200]}, "health_check.statuses"),
            ({"host": "x"}, "health_check.host"),
            ({"path": "/", "jitter": 2}, "health_check.jitter"),
            ({"path": "/", "interval": 0}, "health_check.interval"),
            ({"path": "/", "healthy_threshold": 0}, "health_check.healthy_threshold"),
            ({"path": "/", "statuses": ["2xx"]}, "health_check.statuses[0]"),
        ],
    )
    def test_what_cannot_be_is_refused(self, value: object, where: str) -> None:
        """Also what would be ignored."""
        assert places(health_check=value) == [where]

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            ("on", "outlier_detection"),
            ({"base_ejection_time": "10m", "max_ejection_time": "5m"}, "outlier_detection.max_ejection_time"),
            ({"max_ejection_percent": 101}, "outlier_detection.max_ejection_percent"),
        ],
    )
    def test_ejection_that_cannot_be_is_refused(self, value: object, where: str) -> None:
        """The longest time is not shorter than the first."""
        assert places(outlier_detection=value) == [where]

    def test_ejection_can_be_off_or_longer_than_usual(self) -> None:
        """The usual longest time gives way to a longer first one."""
        assert cluster(outlier_detection="off").outlier_detection.consecutive_failures == 0
        longer = cluster(outlier_detection={"base_ejection_time": "10m"}).outlier_detection
        assert (longer.base_ejection_time, longer.max_ejection_time) == (600.0, 600.0)


class TestTls:
    @pytest.mark.parametrize(("value", "expected"), [("on", UpstreamTls()), (True, UpstreamTls()), ("off", None)])
    def test_switch_is_enough(self, value: object, expected: UpstreamTls | None) -> None:
        """Turned on, it is verified with the CAs of the system and the host of the address."""
        assert cluster(tls=value).tls == expected

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            ({"verify": "off", "ca": "/ca"}, "tls.ca"),
            ({"verify": False, "names": ["a"]}, "tls.names"),
            ({"key": "/k"}, "tls.key"),
            ({"names": ["*.internal"]}, "tls.names[0]"),
            ({"sni": "10.0.0.1"}, "tls.sni"),
            ({"alpn": ["a b"]}, "tls.alpn[0]"),
            ({"verfy": "on"}, "tls.verfy"),
            ("yes", "tls"),
            (None, "tls"),
        ],
    )
    def test_what_would_be_ignored_or_cannot_be_is_refused(self, value: object, where: str) -> None:
        """Nobody should believe that something is verified when it is not."""
        assert places(tls=value) == [where]

    @pytest.mark.parametrize("key", ["cert", "key"])
    @pytest.mark.parametrize("value", KEY_MATERIAL.values(), ids=KEY_MATERIAL)
    def test_key_material_itself_is_refused(self, key: str, value: str) -> None:
        """The list is shown whole at /config, so it names files; what is told of it does not repeat the value."""
        tls = {"cert": "/c", "key": "/k"} | {key: value}
        (found,), problems = read({"name": "shop", "endpoints": ADDRESS, "tls": tls})
        assert found is None
        (problem,) = problems
        assert problem.setting == f"clusters[0].tls.{key}"
        assert "not a path" in problem.fact
        assert problem.fix == "write it to a file"
        assert SECRET not in str(problem) + repr(problem)

    def test_socket_needs_names(self) -> None:
        """It has none of its own, unless nothing is verified."""
        assert places(endpoints="unix:/a", tls="on") == ["tls"]
        assert cluster(endpoints="unix:/a", tls={"names": "a.example"}).tls is not None
        assert cluster(endpoints="unix:/a", tls={"verify": "off"}).tls is not None


class TestProtocol:
    @pytest.mark.parametrize(
        ("value", "expected"), [("h2c", UpstreamProtocol.H2C), ("HTTP/1.1", UpstreamProtocol.HTTP1)]
    )
    def test_what_is_spoken_is_a_word(self, value: str, expected: UpstreamProtocol) -> None:
        """HTTP/1.1 if nobody says otherwise."""
        assert cluster(protocol=value).protocol is expected
        assert cluster().protocol is UpstreamProtocol.HTTP1

    @pytest.mark.parametrize("value", ["h2", "http/2", "grpc", ""])
    def test_other_word_is_refused(self, value: str) -> None:
        """HTTP/2 over TLS, for one, is not spoken."""
        assert places(protocol=value) == ["protocol"]

    @pytest.mark.parametrize(
        ("key", "value", "fact"),
        [
            ("tls", "on", "over TLS, requests are sent in HTTP/1.1 alone"),
            ("tls", {"names": ["a.example"]}, "over TLS, requests are sent in HTTP/1.1 alone"),
            ("proxy_protocol", "v2", "v2: a header is about one client"),
            ("health_check", "/healthz", "'/healthz' would be asked for in HTTP/1.1"),
            ("health_check", {"path": "/healthz"}, "'/healthz' would be asked for in HTTP/1.1"),
        ],
        ids=["tls", "tls with names", "proxy_protocol", "health_check", "health_check in full"],
    )
    def test_what_h2c_cannot_have_is_refused(self, key: str, value: object, fact: str) -> None:
        """Each would be done otherwise than was asked for; in HTTP/1.1 it is done."""
        given = {"name": "shop", "endpoints": ADDRESS, key: value}
        (found,), (problem,) = read(given | {"protocol": "h2c"})
        assert found is None
        assert problem.setting == f"clusters[0].{key}"
        assert fact in problem.fact
        assert read(given)[1] == []

    def test_connections_are_a_check_that_h2c_can_have(self) -> None:
        """Whatever is spoken on them."""
        assert cluster(protocol="h2c", health_check="tcp").health_check == HealthCheck()
        assert cluster(protocol="h2c", tls="off", proxy_protocol="off").protocol is UpstreamProtocol.H2C


class TestApp:
    def test_settings_of_the_upstream_make_a_cluster(self) -> None:
        """Its connections are limited by the setting for all of them."""
        flags = {
            "upstream": "https://app:8443,https+unix:/a",
            "upstream_balancing": "least_request",
            "upstream_health_check": "/healthz",
            "upstream_names": "app.internal",
            "upstream_proxy_protocol": "v1",
            "max_upstream_connections": "7",
        }
        assert app_cluster(load(flags, {}).settings) == ClusterSpec(
            name="app",
            endpoints=(Endpoint(address=HostPort("app", 8443)), Endpoint(address=UnixPath("/a"))),
            discovery=Discovery.STRICT_DNS,
            balancing=LoadBalancing.LEAST_REQUEST,
            health_check=HealthCheck(path="/healthz"),
            limits=ClusterLimits(connections=7),
            tls=UpstreamTls(names=("app.internal",)),
            proxy_protocol=ProxyProtocolOut.V1,
        )

    def test_scheme_says_that_it_speaks_http2(self) -> None:
        """Nothing else is different."""
        usual, h2c = (app_cluster(load({"upstream": f"{scheme}://a:1"}, {}).settings) for scheme in ("http", "h2c"))
        assert h2c == attrs.evolve(usual, protocol=UpstreamProtocol.H2C)

    @pytest.mark.parametrize(("text", "expected"), [("tcp", HealthCheck()), ("none", None)])
    def test_health_check_may_be_a_connection_or_nothing(self, text: str, expected: HealthCheck | None) -> None:
        """Nothing is asked for unless somebody says so."""
        assert app_cluster(load({"upstream_health_check": text}, {}).settings).health_check == expected

    def test_limit_of_connections_is_that_of_other_clusters_too(self) -> None:
        """Unless they have their own."""
        own = {"name": "own", "endpoints": "b:1", "limits": {"connections": 5}}
        found, _ = read({"name": "a", "endpoints": ADDRESS}, own, max_upstream_connections="7")
        assert [each.limits.connections for each in found if each is not None] == [7, 5]
