"""`sidecar.config.topology`: what the settings describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import Loaded, gather, load
from sidecar.config.topology import Reading, read, topology_of
from sidecar.config.virtualhosts import everything_to, everything_to_https
from sidecar.errors import ConfigError
from sidecar.policy.access import default_rule
from sidecar.policy.routes import RouteTable, client_rule
from sidecar.settings import ClientSettings, HostPort, ListenerMode, ProxyProtocol
from sidecar.topology import ClusterSpec, Endpoint, ListenerSpec, Topology

DEFAULT = default_rule(ClientSettings())
SHOP = {"name": "shop", "endpoints": "10.0.0.1:80"}
ROUTES = [{"routes": [{"cluster": "shop"}]}]


ODD = st.sampled_from(
    (
        *(None, True, False, 0, 1, 200, 1.5, -1, "", " ", "on", "off", "tcp", "a", "app", "a b", ":1", "10.0.0.1:80"),
        *("/", "/a", "unix:/a", "200-299", "1s", "cn=a", "*", "\0", "\ud800", "(", "a.example", "none", "required"),
        *("strict_dns", [], {}, [None], ["a"], ["/a", 200], {"path": "/a"}, {"names": ["a"]}, [{"name": "x"}]),
    )
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mappings with some of these keys, or something else."""
    return ODD | st.fixed_dictionaries({}, optional={name: ODD | value for name, value in keys.items()})


def keyed(*keys: str) -> st.SearchStrategy[Any]:
    return some(**dict.fromkeys(keys, ODD))


NAMES = st.sampled_from(["a", "b", "app"])
MATCH = some(
    prefix=ODD, path=ODD, regex=ODD, methods=ODD, headers=st.lists(keyed("name", "exact", "present", "invert"))
)
ROUTE = some(
    cluster=NAMES,
    match=MATCH,
    redirect=keyed("scheme", "host", "port", "path", "prefix_rewrite", "status"),
    direct_response=keyed("status", "body", "content_type"),
    **dict.fromkeys(("name", "prefix_rewrite", "host_rewrite", "timeout", "client_cert", "allow", "deny"), ODD),
)
VIRTUAL_HOSTS = st.lists(some(name=NAMES, domains=ODD, routes=st.lists(ROUTE, max_size=3)), max_size=2)
CLUSTERS = st.lists(
    some(
        name=NAMES,
        endpoints=st.lists(keyed("address", "weight"), max_size=2),
        health_check=keyed("path", "host", "statuses", "interval", "jitter"),
        outlier_detection=keyed("consecutive_failures", "base_ejection_time", "max_ejection_time"),
        tls=keyed("ca", "names", "verify", "sni", "alpn", "cert", "key"),
        **dict.fromkeys(("discovery", "dns_refresh", "balancing", "limits", "panic_threshold", "proxy_protocol"), ODD),
    ),
    max_size=2,
)
LISTENERS = st.lists(
    some(
        name=NAMES,
        address=ODD,
        tls=ODD,
        mode=ODD,
        proxy_protocol=ODD,
        alpn=ODD,
        cluster=NAMES,
        virtual_hosts=VIRTUAL_HOSTS,
    ),
    max_size=2,
)


def loaded(**settings: Any) -> Loaded:
    """What is given as a list is given as JSON."""
    flags = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return load(flags, {})


def reading(**settings: Any) -> Reading:
    return read(loaded(**settings))


def told(**settings: Any) -> list[tuple[str, str]]:
    """Places and facts of problems."""
    found = reading(**settings)
    assert (found.topology is None) == bool(found.problems)
    assert all(str(problem).isprintable() for problem in found.problems)
    return [(problem.setting, problem.fact) for problem in found.problems]


def places(**settings: Any) -> list[str]:
    return [place for place, _ in told(**settings)]


RAW = {"name": "raw", "address": ":8443", "mode": "tcp", "cluster": "shop"}


class TestSmallForm:
    def test_defaults_are_one_listener_and_one_cluster(self) -> None:
        """Every request goes to the app."""
        assert topology_of(loaded()) == Topology(
            listeners=(
                ListenerSpec(name="main", address=HostPort("0.0.0.0", 443), virtual_hosts=everything_to("app", "app")),
            ),
            clusters=(ClusterSpec(name="app", endpoints=(Endpoint(address=HostPort("127.0.0.1", 8080)),)),),
        )

    def test_tcp_goes_to_the_app_byte_for_byte(self) -> None:
        """There are no routes."""
        (listener,) = topology_of(loaded(mode="tcp", alpn="mqtt,h2", listen=":8883", listen_tls="off")).listeners
        assert listener == ListenerSpec(
            name="main",
            address=HostPort("0.0.0.0", 8883),
            tls=False,
            mode=ListenerMode.TCP,
            cluster="app",
            alpn=("mqtt", "h2"),
        )

    def test_redirect_is_a_listener_of_its_own(self) -> None:
        """Behind the same balancer as the other."""
        main, redirect = topology_of(
            loaded(http_redirect=":8000", listen=":8443", proxy_protocol="trusted", trusted_proxies="10.0.0.0/8")
        ).listeners
        assert main.proxy_protocol is ProxyProtocol.TRUSTED
        assert redirect == ListenerSpec(
            name="redirect",
            address=HostPort("0.0.0.0", 8000),
            tls=False,
            proxy_protocol=ProxyProtocol.TRUSTED,
            virtual_hosts=everything_to_https(8443, "redirect"),
        )

    def test_host_of_the_settings_is_told_to_the_app(self) -> None:
        """On the route that nobody wrote."""
        (listener,) = topology_of(loaded(upstream_host="told.example")).listeners
        assert listener.virtual_hosts == everything_to("app", "app", "told.example")

    def test_routes_may_lead_to_other_clusters_and_to_the_app(self) -> None:
        """What nobody is led to is not there."""
        found = topology_of(loaded(clusters=[SHOP], virtual_hosts=ROUTES))
        assert [cluster.name for cluster in found.clusters] == ["shop"]
        both = [{"routes": [{"match": {"prefix": "/a"}, "cluster": "app"}, {"cluster": "shop"}]}]
        found = topology_of(loaded(clusters=[SHOP], virtual_hosts=both))
        assert [cluster.name for cluster in found.clusters] == ["shop", "app"]

    def test_app_may_be_one_of_the_clusters(self) -> None:
        """In place of the settings of the upstream."""
        found = topology_of(loaded(clusters=[SHOP | {"name": "app"}]))
        assert [cluster.endpoints[0].address for cluster in found.clusters] == [HostPort("10.0.0.1", 80)]

    @pytest.mark.parametrize("name", ["upstream", "upstream_health_check", "upstream_host"])
    def test_app_is_described_once(self, name: str) -> None:
        """Nobody knows which of the two was meant."""
        values = {"upstream": "127.0.0.1:8080", "upstream_health_check": "tcp", "upstream_host": "a"}
        assert told(clusters=[SHOP | {"name": "app"}], **{name: values[name]}) == [
            (f"--{name.replace('_', '-')}", "it would be ignored: clusters[0] describes the cluster app")
        ]

    def test_timeout_of_responses_is_no_setting_of_the_app(self) -> None:
        """It holds for every cluster."""
        assert places(clusters=[SHOP | {"name": "app"}], upstream_timeout="5s") == []

    @pytest.mark.parametrize("name", ["virtual_hosts", "listeners"])
    def test_empty_list_is_refused(self, name: str) -> None:
        """It would serve nobody."""
        assert told(**{name: []}) == [(name, "the list is empty")]


class TestClusterNames:
    @pytest.mark.parametrize(("name", "fix"), [("shp", "did you mean shop?"), ("xyzzy", "the clusters are shop, app")])
    def test_cluster_that_there_is_not_is_refused(self, name: str, fix: str) -> None:
        """With what was probably meant."""
        (problem,) = reading(clusters=[SHOP], virtual_hosts=[{"routes": [{"cluster": name}]}]).problems
        assert (problem.setting, problem.fact, problem.fix) == (
            "virtual_hosts[0].routes[0].cluster",
            f"there is no cluster {name}",
            fix,
        )

    def test_cluster_with_problems_is_still_one(self) -> None:
        """One mistake is one problem."""
        assert places(clusters=[SHOP | {"weight": 1}], virtual_hosts=ROUTES) == ["clusters[0].weight"]

    def test_nothing_is_missed_among_clusters_that_were_refused(self) -> None:
        """They may be there."""
        found, problems = gather({"clusters": "{", "virtual_hosts": json.dumps(ROUTES)}, {})
        assert len(problems) == 1
        assert read(found).problems == ()

    def test_unused_clusters_are_told(self) -> None:
        """They work, and probably are not meant."""
        assert reading(clusters=[SHOP]).unused == ("clusters[0]",)
        assert reading(clusters=[SHOP], virtual_hosts=ROUTES).unused == ()
        used = reading(clusters=[SHOP], virtual_hosts=ROUTES, upstream="a:1", upstream_host="b")
        assert used.unused == ("upstream", "upstream_host")
        assert "upstream" not in used.clusters

    def test_requests_are_not_sent_to_who_expects_http2(self) -> None:
        """An upstream that may choose it would not understand them; as bytes they may be anything."""
        tls = {"alpn": ["h2", "http/1.1"]}
        assert places(clusters=[SHOP | {"tls": tls}], virtual_hosts=ROUTES) == ["clusters[0].tls.alpn"]
        listener = {"name": "a", "address": ":1", "mode": "tcp", "cluster": "shop"}
        assert places(clusters=[SHOP | {"tls": tls}], listeners=[listener]) == []

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({"mode": "tcp", "upstream": "h2c://a:1"}, "--upstream"),
            ({"listeners": [RAW | {"cluster": "app"}], "upstream": "h2c://a:1"}, "--upstream"),
            ({"listeners": [RAW], "clusters": [SHOP | {"protocol": "h2c"}]}, "clusters[0].protocol"),
            (
                {"listeners": [{"name": "in", "address": ":1", "cluster": "shop"}, RAW]}
                | {"clusters": [SHOP | {"protocol": "h2c"}]},
                "clusters[0].protocol",
            ),
        ],
        ids=["small", "app", "cluster", "beside HTTP"],
    )
    def test_bytes_are_not_made_http2(self, settings: dict[str, Any], where: str) -> None:
        """Whoever wrote it would believe that something is translated."""
        ((place, fact),) = told(**settings)
        assert place == where
        assert "has mode tcp, and passes bytes on as they come" in fact


class TestListeners:
    def test_each_is_described_by_itself(self) -> None:
        """In place of the settings of the one."""
        found = topology_of(
            loaded(
                clusters=[SHOP],
                listeners=[
                    {"name": "in", "address": "[::]:443", "cluster": "shop", "proxy_protocol": "required"},
                    {"name": "db", "address": "127.0.0.1:5432", "tls": "off", "mode": "tcp", "cluster": "app"},
                    {"name": "tcp", "address": ":8443", "mode": "tcp", "cluster": "app", "alpn": ["h2", "mqtt"]},
                    {"name": "out", "address": "127.0.0.1:80", "tls": False, "virtual_hosts": ROUTES},
                ],
            )
        )
        routed = found.listeners[3].virtual_hosts[0]
        assert found.listeners == (
            ListenerSpec(
                name="in",
                address=HostPort("::", 443),
                proxy_protocol=ProxyProtocol.REQUIRED,
                virtual_hosts=everything_to("shop", "shop"),
            ),
            ListenerSpec(
                name="db", address=HostPort("127.0.0.1", 5432), tls=False, mode=ListenerMode.TCP, cluster="app"
            ),
            ListenerSpec(
                name="tcp",
                address=HostPort("0.0.0.0", 8443),
                mode=ListenerMode.TCP,
                cluster="app",
                alpn=("h2", "mqtt"),
            ),
            ListenerSpec(name="out", address=HostPort("127.0.0.1", 80), tls=False, virtual_hosts=(routed,)),
        )
        assert routed.routes[0].name == "listeners[3].virtual_hosts[0].routes[0]"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("listen", ":443"),
            ("mode", "http"),
            ("listen_tls", "on"),
            ("alpn", "h2"),
            ("http_redirect", ":80"),
            ("proxy_protocol", "off"),
            ("virtual_hosts", json.dumps(ROUTES)),
        ],
    )
    def test_settings_of_the_one_listener_are_refused_beside_them(self, name: str, value: str) -> None:
        """Whoever set them would believe in them; also if it is the default."""
        listeners = [{"name": "in", "address": ":443", "cluster": "app"}]
        found = told(listeners=listeners, clusters=[SHOP], **{name: value})
        assert found == [(f"--{name.replace('_', '-')}", "it would be ignored: listeners describes them all")]

    @pytest.mark.parametrize(
        ("keys", "where"),
        [
            ({"name": "a b"}, ".name"),
            ({"address": "443x"}, ".address"),
            ({"address": None}, ".address"),
            ({"tls": "yes"}, ".tls"),
            ({"mode": "udp"}, ".mode"),
            ({"proxy_protocol": "v2"}, ".proxy_protocol"),
            ({"cluster": "nowhere"}, ".cluster"),
            ({"virtual_hosts": ROUTES}, ""),
            ({"virtual_host": ROUTES}, ".virtual_host"),
            ({"alpn": ["h2"]}, ".alpn"),
            ({"mode": "tcp", "tls": "off", "alpn": ["h2"]}, ".alpn"),
            ({"mode": "tcp", "alpn": ["a b"]}, ".alpn[0]"),
            ({"mode": "tcp", "virtual_hosts": ROUTES}, ".virtual_hosts"),
        ],
    )
    def test_what_cannot_be_is_refused_at_its_place(self, keys: dict[str, Any], where: str) -> None:
        """One problem each."""
        listener = {"name": "in", "address": ":443", "cluster": "app"} | keys
        assert places(listeners=[listener], clusters=[SHOP]) == [f"listeners[0]{where}"]

    @pytest.mark.parametrize(
        ("listener", "facts"),
        [
            ({}, ["there is no name", "there is no address", "it does not say where requests go"]),
            ({"name": "a", "address": ":1", "mode": "tcp"}, ["it does not say where the bytes go"]),
            ("a", ["'a' stands where keys and values are expected"]),
            ({"name": "a", "address": ":1", "virtual_hosts": {}}, ["this is not a list"]),
        ],
        ids=["empty", "tcp", "text", "mapping"],
    )
    def test_what_is_missing_is_told(self, listener: object, facts: list[str]) -> None:
        """All of it."""
        assert [fact for _, fact in told(listeners=[listener])] == facts

    def test_names_are_unique(self) -> None:
        """They stand in logs and metrics."""
        listeners = [{"name": "a", "address": f":{port}", "cluster": "app"} for port in (1, 2)]
        assert told(listeners=listeners) == [("listeners[1].name", "listeners[0] is called a already")]

    def test_number_is_bounded(self) -> None:
        """Sixteen are read, one more is refused."""
        many = [{"name": f"l{i}", "address": f":{i + 1}", "cluster": "app"} for i in range(17)]
        assert len(topology_of(loaded(listeners=many[:16])).listeners) == 16
        assert told(listeners=many) == [("listeners", "there are 17 entries, limit 16")]

    def test_number_of_routes_is_bounded_in_all(self) -> None:
        """However they are divided among listeners."""
        routes = [{"match": {"path": f"/{i}"}, "cluster": "app"} for i in range(501)]
        listeners = [
            {"name": f"l{port}", "address": f":{port}", "virtual_hosts": [{"routes": routes}]} for port in (1, 2)
        ]
        assert told(listeners=listeners) == [("listeners", "there are 1,002 routes, limit 1,000")]

    def test_problems_of_routes_have_the_place_of_their_listener(self) -> None:
        """Those of their meaning, too."""
        hosts = [{"routes": [{"match": {"prefix": "x"}, "cluster": "app"}, {"cluster": "b", "wait": 1}]}]
        listeners = [{"name": "a", "address": ":1", "virtual_hosts": hosts}]
        assert places(listeners=listeners) == [
            "listeners[0].virtual_hosts[0].routes[1].wait",
            "listeners[0].virtual_hosts[0].routes[0].match.prefix",
            "listeners[0].virtual_hosts[0].routes[1].cluster",
        ]


class TestProblems:
    def test_all_of_them_are_raised_with_their_lines(self, tmp_path: Path) -> None:
        """Each is found at once in the file."""
        file = tmp_path / "sidecar.yaml"
        file.write_text(
            "clusters:\n  - name: shop\n    endpoints:\n      - 10.0.0.1:80\n      - 10.0.0.1\n"
            "virtual_hosts:\n  - routes:\n      - match:\n          prefix: static\n        cluster: shop\n"
            "      - cluster: shpo\n"
        )
        with pytest.raises(ConfigError) as caught:
            topology_of(load({"config": str(file)}, {}))
        assert [(problem.setting, problem.source.removeprefix(str(file))) for problem in caught.value.problems] == [
            ("clusters[0].endpoints[1]", ":5"),
            ("virtual_hosts[0].routes[0].match.prefix", ":9"),
            ("virtual_hosts[0].routes[1].cluster", ":11"),
        ]

    @given(CLUSTERS, VIRTUAL_HOSTS, LISTENERS)
    def test_any_structure_is_read_or_reported(self, clusters: Any, virtual_hosts: Any, listeners: Any) -> None:
        """Whatever stands where, the answer is problems on one line each, or a topology whose routes compile."""
        for others in ({"virtual_hosts": virtual_hosts}, {"listeners": listeners}):
            settings = {"clusters": clusters} | {name: value for name, value in others.items() if value}
            if told(**settings):
                continue
            for listener in topology_of(loaded(**settings)).listeners:
                RouteTable.compile(listener.virtual_hosts)
                for virtual_host in listener.virtual_hosts:
                    for route in virtual_host.routes:
                        client_rule(route, DEFAULT)

    @pytest.mark.parametrize("flags", [{"listen": "x"}, {"upstream": "x"}, {"virtual_hosts": "{"}, {"listeners": "{"}])
    def test_setting_that_was_refused_is_not_judged_again(self, flags: dict[str, str]) -> None:
        """It is one problem already."""
        assert read(gather(flags, {})[0]).problems == ()

    def test_address_that_was_refused_is_nowhere(self) -> None:
        """Neither the default in its place nor anything else."""
        found = read(gather({"listen": "x", "upstream": "y", "http_redirect": ":80"}, {})[0])
        assert list(found.listeners) == ["http_redirect"]
        assert found.clusters == {}
