"""`sidecar.config.traffic`: rules about listeners and upstreams."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.config import topology, traffic
from sidecar.config.case import Case
from sidecar.config.load import Loaded, load
from sidecar.errors import Problem

CLUSTERS = [{"name": "shop", "endpoints": ["10.0.0.1:80", "shop.internal:80"]}]


def loaded(**settings: Any) -> Loaded:
    return load({name: v if isinstance(v, str) else json.dumps(v) for name, v in settings.items()}, {})


def told(resolve: Any = None, **settings: Any) -> list[Problem]:
    found = loaded(**settings)
    case = Case(found, datetime(2026, 1, 1, tzinfo=UTC), topology.read(found), resolve)
    assert case.reading.problems == ()
    problems = [problem for names, rule in traffic.RULES if case.has(*names) for problem in rule(case)]
    assert all(str(problem).isprintable() for problem in problems)
    return problems


def places(**settings: Any) -> list[str]:
    return [problem.setting for problem in told(**settings)]


def doubts(**settings: Any) -> list[str]:
    found = loaded(**settings)
    return [place for place, _ in traffic.doubts(found, topology.read(found))]


def listener(name: str = "l", address: str = ":443", **keys: Any) -> dict[str, Any]:
    return {"name": name, "address": address} | ({} if "virtual_hosts" in keys else {"cluster": "app"}) | keys


def routed(route: dict[str, Any]) -> list[Any]:
    return [{"routes": [route]}]


class TestAddresses:
    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"http_redirect": ":443"}, ["--http-redirect"]),
            ({"http_redirect": "127.0.0.1:8081"}, ["--admin"]),
            ({"http_redirect": ":80"}, []),
            ({"listeners": [listener("a"), listener("b", "127.0.0.1:443")]}, ["listeners[1].address"]),
            ({"listeners": [listener("a", ":8081")]}, ["--admin"]),
            ({"listeners": [listener("a"), listener("b", ":8443")], "health": ":8443"}, ["--health"]),
        ],
        ids=["redirect", "redirect and admin", "apart", "two of a list", "list and admin", "list and health"],
    )
    def test_every_listener_needs_an_address_of_its_own(self, settings: dict[str, Any], where: list[str]) -> None:
        """Whichever way it is described; the default of one is told in the words of the other."""
        found = [place.replace("SIDECAR_ADMIN", "--admin") for place in places(**settings)]
        assert found == where

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"upstream": "10.0.0.1:80,127.0.0.1:443"}, ["--upstream"]),
            ({"upstream": "127.0.0.1:80", "http_redirect": ":80"}, ["--upstream"]),
            (
                {
                    "clusters": [{"name": "a", "endpoints": ["10.0.0.1:1", "localhost:8443"]}],
                    "listeners": [listener("l", ":8443")],
                },
                ["clusters[0].endpoints[1]"],
            ),
            ({"clusters": [{"name": "a", "endpoints": "127.0.0.1:8081"}]}, ["clusters[0].endpoints[0]"]),
            ({"clusters": [{"name": "a", "endpoints": "127.0.0.1:8082"}]}, []),
        ],
        ids=["one of several", "redirect", "cluster", "admin", "elsewhere"],
    )
    def test_no_endpoint_is_the_sidecar_itself(self, settings: dict[str, Any], where: list[str]) -> None:
        """Requests would go round in circles, or reach pages that have no authentication."""
        assert places(**settings) == where

    def test_app_that_nobody_is_led_to_is_in_nobodys_way(self) -> None:
        """The default of the upstream is no mistake where it is not used."""
        assert places(listen=":8080", clusters=CLUSTERS, virtual_hosts=[{"routes": [{"cluster": "shop"}]}]) == []

    def test_names_without_address_are_told_once_each(self) -> None:
        """Only names are looked up, and each once."""
        asked: list[str] = []

        def resolve(host: str) -> bool:
            asked.append(host)
            return host == "good"

        clusters = [*CLUSTERS, {"name": "b", "endpoints": ["good:1", "good:2", "shop.internal:2", "unix:/a"]}]
        found = told(resolve, clusters=clusters, upstream="app:80")
        assert [problem.setting for problem in found] == [
            "clusters[0].endpoints[1]",
            "clusters[1].endpoints[2]",
            "--upstream",
        ]
        assert asked == ["shop.internal", "good", "app"]


class TestProxies:
    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"proxy_protocol": "trusted"}, ["--proxy-protocol"]),
            ({"proxy_protocol": "trusted", "http_redirect": ":80"}, ["--proxy-protocol"]),
            ({"proxy_protocol": "required"}, []),
            ({"proxy_protocol": "trusted", "trusted_proxies": "10.0.0.0/8"}, []),
            ({"listeners": [listener(proxy_protocol="trusted")]}, ["listeners[0].proxy_protocol"]),
        ],
    )
    def test_trusted_needs_somebody_to_trust(self, settings: dict[str, Any], where: list[str]) -> None:
        """Otherwise every connection of the balancer would be refused."""
        assert places(**settings) == where

    def test_missing_header_is_refused_only_where_it_may_be_missing(self) -> None:
        """Elsewhere it would be ignored."""
        refuse = {"proxy_protocol_missing": "refuse", "trusted_proxies": "10.0.0.0/8"}
        assert places(**refuse) == ["--proxy-protocol-missing"]
        assert places(**refuse, proxy_protocol="required") == ["--proxy-protocol-missing"]
        assert places(**refuse, proxy_protocol="trusted") == []
        assert places(**refuse, listeners=[listener(proxy_protocol="trusted")]) == []


class TestTcp:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("identity_headers", "xfcc"),
            ("client_cert_exempt", "/healthz"),
            ("virtual_hosts", [{"routes": [{"cluster": "app"}]}]),
            ("forwarded", "on"),
            ("upstream_host", "a"),
            ("max_body", "1MiB"),
            ("normalize_path", "on"),
            ("underscore_headers", "reject"),
            ("http2", "off"),
            ("http2_max_resets", "7"),
        ],
    )
    def test_what_is_about_requests_is_refused(self, name: str, value: Any) -> None:
        """Nobody should rely on it, unless another listener speaks HTTP."""
        (problem,) = told(mode="tcp", **{name: value})
        assert problem.setting == f"--{name.replace('_', '-')}"
        assert "it would be ignored: --mode is tcp" in problem.fact
        if name != "virtual_hosts":
            both = [listener("a"), listener("b", ":8443", mode="tcp")]
            assert told(listeners=both, **{name: value}) == []
            (problem,) = told(listeners=both[1:], **{name: value})
            assert "listeners[0].mode is tcp" in problem.fact

    def test_rules_look_at_certificates_only(self) -> None:
        """Who is kept out of a path would come in where there are none; also beside a listener with HTTP."""
        by_path, by_name = [{"path": "/admin/*", "allow": "cn=a"}], [{"allow": "cn=a"}]
        assert places(mode="tcp", client_rules=by_path) == ["--client-rules"]
        assert places(mode="tcp", client_rules=by_name) == []
        both = [listener("a"), listener("b", ":8443", mode="tcp")]
        assert places(listeners=both, client_rules=by_path) == ["--client-rules"]

    def test_rules_that_cannot_be_read_are_not_judged_here(self) -> None:
        """That is told elsewhere, once."""
        assert places(mode="tcp", client_rules=[{"path": "admin"}]) == []

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"alpn": "h2"}, ["--alpn"]),
            ({"alpn": "h2", "mode": "tcp", "listen_tls": "off"}, ["--alpn"]),
            ({"alpn": "h2", "mode": "tcp"}, []),
        ],
    )
    def test_protocols_are_agreed_on_inside_tls_alone(self, settings: dict[str, str], where: list[str]) -> None:
        """With HTTP it is known what they are."""
        assert places(**settings) == where


class TestHttp2:
    def test_limits_of_what_is_off_are_refused(self) -> None:
        """They would be ignored."""
        (problem,) = told(http2="off", http2_max_pings="7")
        assert (problem.setting, problem.fact) == ("--http2-max-pings", "it would be ignored: --http2 is off")
        assert places(http2="off") == places(http2_max_pings="7") == []

    @pytest.mark.parametrize("off", [{"http2": "off"}, {"listen_tls": "off"}], ids=["http2", "tls"])
    def test_limits_hold_for_apps_too(self, off: dict[str, str]) -> None:
        """Where HTTP/2 is spoken with one, they are of use without clients that speak it."""
        assert places(http2_max_streams="7", **off) == ["--http2-max-streams"]
        assert places(http2_max_streams="7", upstream="h2c://a:1", **off) == []
        shop = CLUSTERS[0] | {"protocol": "h2c"}
        assert places(http2_max_streams="7", clusters=[shop], virtual_hosts=routed({"cluster": "shop"}), **off) == []

    def test_one_request_may_not_have_more_than_all_together(self) -> None:
        """The window of the connection is at least that of a stream, whichever of the two was given."""
        (problem,) = told(http2_stream_window="2MiB")
        assert problem.setting == "--http2-stream-window"
        assert (
            problem.fact == "2MiB for one request is more than --http2-connection-window for all of a connection, 1MiB"
        )
        (problem,) = told(http2_connection_window="65535")
        assert problem.setting == "--http2-stream-window"
        assert problem.fix == "set it lower, or --http2-connection-window higher"
        assert places(http2_connection_window="64KiB") == []
        assert places(http2_connection_window="2MiB", http2_stream_window="2MiB") == []


class TestPlain:
    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"listen_tls": "off", "tls_cert": "/c"}, ["--tls-cert"]),
            ({"listeners": [listener(tls="off")], "tls_names": "a.example"}, ["--tls-names"]),
            ({"listeners": [listener(tls="off"), listener("b", ":1")], "tls_cert": "/c"}, []),
            ({"listen_tls": "off", "http_redirect": ":80"}, ["--http-redirect"]),
            ({"listen_tls": "off", "http2_max_streams": "7"}, ["--http2-max-streams"]),
            ({"listen_tls": "off", "http2": "off"}, []),
            ({"http_redirect": ":80", "tls_cert": "/c"}, []),
        ],
    )
    def test_what_is_about_tls_is_refused_without_it(self, settings: dict[str, Any], where: list[str]) -> None:
        """Nobody should believe that something is encrypted when it is not."""
        assert places(**settings) == where

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"listen_tls": "off"}, ["--listen-tls"]),
            ({"listen_tls": "off", "mode": "tcp"}, ["--listen-tls"]),
            ({"http_redirect": ":80"}, []),
            ({"listeners": [listener("a"), listener("b", ":1", tls="off")]}, ["listeners[1].tls"]),
            ({"listeners": [listener("a"), listener("b", ":1", tls="off", mode="tcp")]}, ["listeners[1].tls"]),
            ({"listeners": [listener(tls="off", virtual_hosts=routed({"cluster": "app", "client_cert": "none"}))]}, []),
            ({"listeners": [listener(tls="off", virtual_hosts=routed({"redirect": {"scheme": "https"}}))]}, []),
        ],
        ids=["http", "tcp", "redirect", "list", "list with tcp", "for everybody", "leads away"],
    )
    def test_certificates_need_tls(self, settings: dict[str, Any], where: list[str]) -> None:
        """Where one is asked for that nobody can show, nobody could come in, or everybody would."""
        assert places(client_cert="required", client_ca="/ca", **settings) == where

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("virtual_hosts", routed({"cluster": "app", "allow": "cn=a"})),
            ("client_rules", [{"path": "/admin/*", "allow": "cn=a"}]),
        ],
    )
    def test_rule_needs_tls_by_itself(self, name: str, value: Any) -> None:
        """Whatever holds elsewhere."""
        (problem,) = told(listen_tls="off", **{name: value})
        assert problem.setting == "--listen-tls"
        assert f"--{name.replace('_', '-')} asks for one" in problem.fact


class TestUpstreamTls:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("upstream_ca", "/ca"),
            ("upstream_names", "a.example"),
            ("upstream_sni", "a.example"),
            ("upstream_cert", "/c"),
            ("upstream_key", "/k"),
        ],
    )
    def test_settings_of_it_need_https(self, name: str, value: str) -> None:
        """Nobody should believe that the hop is verified when it is in the clear."""
        (problem,) = told(**{name: value})
        assert problem.setting == f"--{name.replace('_', '-')}"
        assert "--upstream is not https" in problem.fact
        extra = {"upstream_cert": "/c"} if name == "upstream_key" else {}
        assert told(upstream="https://10.0.0.1", **{name: value}, **extra) == []

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"upstream": "https://10.0.0.1", "upstream_key": "/k"}, ["--upstream-key"]),
            ({"upstream": "https+unix:/a"}, ["--upstream-names"]),
            ({"upstream": "https+unix:/a", "upstream_names": "a.example"}, []),
            ({"upstream": "unix:/a"}, []),
        ],
    )
    def test_what_is_missing_is_told(self, settings: dict[str, str], where: list[str]) -> None:
        """A key needs its certificate, a socket a name."""
        assert places(**settings) == where

    def test_settings_of_it_say_that_there_is_no_http2_over_it(self) -> None:
        """Else people would look for the scheme that does both."""
        (problem,) = told(upstream="h2c://10.0.0.1:1", upstream_ca="/ca")
        assert problem.setting == "--upstream-ca"
        assert "--upstream is not https" in problem.fact
        assert "HTTP/2 over TLS is not spoken with the app, HTTP/1.1 over TLS is" in problem.fix


class TestH2c:
    @pytest.mark.parametrize(
        ("name", "value", "fix"),
        [
            ("upstream_proxy_protocol", "v1", "X-Forwarded-For says who asks"),
            ("upstream_health_check", "/healthz", "write tcp"),
        ],
    )
    def test_what_it_cannot_have_is_refused(self, name: str, value: str, fix: str) -> None:
        """In the words of the setting; with HTTP/1.1 it can be had."""
        (problem,) = told(upstream="h2c://10.0.0.1:1", **{name: value})
        assert problem.setting == f"--{name.replace('_', '-')}"
        assert fix in problem.fix
        assert told(upstream="http://10.0.0.1:1", **{name: value}) == []

    def test_connections_may_be_looked_at(self) -> None:
        """As the fix says."""
        assert told(upstream="h2c://10.0.0.1:1", upstream_health_check="tcp") == []


class TestDoubts:
    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"listen_tls": "off"}, ["listen_tls"]),
            ({"listen_tls": "off", "listen": "127.0.0.1:80"}, []),
            ({"listen_tls": "off", "mode": "tcp"}, ["listen_tls"]),
            ({"http_redirect": ":80"}, []),
            ({"listeners": [listener(tls="off")]}, ["listeners[0].tls"]),
            ({"trusted_proxies": "10.0.0.0/8"}, []),
            ({"proxy_protocol": "required"}, ["proxy_protocol"]),
            ({"proxy_protocol": "required", "trusted_proxies": "10.0.0.0/8"}, []),
            (
                {"listeners": [listener("a"), listener("b", ":8443", proxy_protocol="required")]},
                ["listeners[1].proxy_protocol"],
            ),
            ({"listeners": [listener(proxy_protocol="required")], "trusted_proxies": "10.0.0.0/8"}, []),
            ({"trusted_proxies": "0.0.0.0/0,::/0"}, ["trusted_proxies"] * 2),
            ({"clusters": [CLUSTERS[0] | {"tls": {"verify": "off"}}]}, ["clusters[0].tls.verify", "clusters[0]"]),
            ({"upstream": "h2c://a:1"}, []),
            ({"upstream": "h2c://a:1", "http2": "off"}, ["http2"]),
            ({"clusters": CLUSTERS}, ["clusters[0]"]),
            ({"clusters": CLUSTERS, "listeners": [listener(cluster="shop")]}, []),
            ({"clusters": CLUSTERS, "listeners": [listener(cluster="shop")], "upstream": "a:1"}, ["upstream"]),
        ],
    )
    def test_what_is_probably_not_meant_is_told(self, settings: dict[str, Any], where: list[str]) -> None:
        """It works all the same."""
        assert doubts(**settings) == where
