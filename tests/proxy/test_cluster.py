"""`proxy.cluster`: endpoints that come and go, and which of them requests go to."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.logger import capturedLogs, formatEvent

from sidecar.proxy import connect, probing, resolving
from sidecar.proxy.cluster import Cluster, Endpoint, EndpointHealth
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.multiplex import UpstreamStream
from sidecar.proxy.streampool import StreamPool
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.settings import HostPort, Limits, LoadBalancing, ProxyProtocolOut, UnixPath
from sidecar.topology import ClusterLimits, ClusterSpec, Discovery, HealthCheck, OutlierDetection, UpstreamProtocol
from sidecar.topology import Endpoint as EndpointSpec
from sidecar.wire import proxyproto
from tests.support import frames
from tests.support.h2app import H2App
from tests.support.ports import FakeReactor
from tests.support.upstreams import FakeLocating, FakeNames, FakeSecurity, FakeStreams

CHECK = HealthCheck(path="/healthz", interval=5.0, unhealthy_threshold=2, healthy_threshold=2)
OUTLIERS = OutlierDetection(consecutive_failures=2, base_ejection_time=30.0)


def spec_of(*addresses: str, port: int = 80, **more: Any) -> ClusterSpec:
    """Describe a cluster; an address is ``HOST`` or ``HOST*WEIGHT``."""
    endpoints = []
    for address in addresses:
        host, _, weight = address.partition("*")
        endpoints.append(EndpointSpec(address=HostPort(host, port), weight=int(weight or 1)))
    return ClusterSpec(name=more.pop("name", "shop"), endpoints=tuple(endpoints), outlier_detection=OUTLIERS, **more)


STRICT = spec_of("app.internal", discovery=Discovery.STRICT_DNS, dns_refresh=10.0)
LOGICAL = attrs.evolve(STRICT, discovery=Discovery.LOGICAL_DNS)


class World:
    """What clusters are in: a clock, a resolver, and connections that the test makes or refuses."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.names = FakeNames()
        self.traffic = FakeStreams()
        self.probes = FakeStreams()
        self.security: FakeSecurity | None = None
        self.clusters: list[Cluster] = []

    def make(self, spec: ClusterSpec) -> Cluster:
        cluster = Cluster(
            spec,
            limits=Limits(),
            connect_timeout=2.0,
            security=self.security,
            reactor=self.reactor,
            random=lambda: 0.0,
        )
        self.clusters.append(cluster)
        return cluster

    def update(self, cluster: Cluster, spec: ClusterSpec) -> None:
        cluster.update(spec, connect_timeout=2.0, security=self.security)

    def open(self, endpoint: Endpoint) -> UpstreamConnection:
        """Let a connection to *endpoint* be made."""
        outcomes: list[Any] = []
        endpoint.pool.connect(outcomes.append)
        self.traffic.opened[-1].accept()
        (upstream,) = outcomes
        assert isinstance(upstream, UpstreamConnection)
        return upstream

    def answer_probe(self, status: int, place: int = 0) -> None:
        """Answer the probe that is longest waited for, or the one at *place* among those that wait."""
        self.probes.waiting[place].accept().deliver(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(resolving, "look_up", world.names.look_up)
    monkeypatch.setattr(connect, "open_stream", world.traffic.open_stream)
    monkeypatch.setattr(probing, "open_stream", world.probes.open_stream)
    return world


def picked(cluster: Cluster, exclude: Any = ()) -> Endpoint:
    endpoint = cluster.pick(exclude)
    assert isinstance(endpoint, Endpoint), endpoint
    return endpoint


def picks(cluster: Cluster, times: int = 12) -> list[str]:
    """Hosts that get requests."""
    return sorted({picked(cluster).address.rpartition(":")[0] for _ in range(times)})


def refusal(cluster: Cluster, exclude: Any = ()) -> tuple[str, str]:
    why = cluster.pick(exclude)
    assert isinstance(why, ConnectFailed), why
    return why.reason, str(why)


def told(logs: list[Any]) -> list[str]:
    return [str(formatEvent(event)) for event in logs]


class TestPick:
    def test_one_endpoint_is_always_it(self, world: World) -> None:
        """The common case; however often it fails."""
        cluster = world.make(spec_of("10.0.0.1"))
        for _ in range(10):
            picked(cluster).failed("upstream_reset")
        assert picks(cluster) == ["10.0.0.1"]

    def test_several_take_turns(self, world: World) -> None:
        """By their weights."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2*3"))
        addresses = [picked(cluster).address for _ in range(8)]
        assert addresses.count("10.0.0.1:80") == 2

    def test_unix_path_is_an_endpoint(self, world: World) -> None:
        """As good as any."""
        spec = attrs.evolve(spec_of("10.0.0.1"), endpoints=(EndpointSpec(address=UnixPath("/run/app.sock")),))
        assert picked(world.make(spec)).address == str(UnixPath("/run/app.sock"))

    def test_what_was_tried_is_not_picked_again(self, world: World) -> None:
        """Until there is no other."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2"))
        first = picked(cluster)
        second = picked(cluster, [first])
        assert first is not second
        assert refusal(cluster, [first, second]) == (
            "no_healthy_upstream",
            "cluster shop: there is no other endpoint",
        )

    def test_alone_and_tried_there_is_no_other(self, world: World) -> None:
        """One endpoint is not connected to twice for the same request."""
        cluster = world.make(spec_of("10.0.0.1"))
        assert refusal(cluster, [picked(cluster)])[0] == "no_healthy_upstream"

    def test_requests_under_way_are_limited(self, world: World) -> None:
        """Those of all endpoints together; one that is over makes room."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", limits=ClusterLimits(requests=2)))
        busy = [picked(cluster), picked(cluster)]
        for endpoint in busy:
            endpoint.begin()
        assert refusal(cluster) == ("upstream_overflow", "cluster shop: 2 requests are under way, the limit")
        busy[0].end()
        assert picked(cluster)

    def test_load_is_what_is_under_way(self, world: World) -> None:
        """With least_request, whoever has more gets less."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", balancing=LoadBalancing.LEAST_REQUEST))
        busy = cluster.endpoints[0]
        busy.begin()
        assert picks(cluster) == ["10.0.0.2"]
        busy.end()
        assert (busy.active, cluster.active) == (0, 0)

    def test_connections_are_limited_over_all_endpoints(self, world: World) -> None:
        """The limit is the cluster's."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", limits=ClusterLimits(connections=1)))
        one, other = cluster.endpoints
        world.open(one)
        outcomes: list[Any] = []
        other.pool.connect(outcomes.append)
        world.reactor.turn()
        assert outcomes[0].reason == "upstream_overflow"

    def test_app_is_called_so(self, world: World) -> None:
        """Who has set one upstream has never heard of clusters."""
        cluster = world.make(spec_of("10.0.0.1", name="app", limits=ClusterLimits(requests=0)))
        assert refusal(cluster)[1].startswith("the app: ")


class TestOutliers:
    def test_failures_eject_for_a_while(self, world: World) -> None:
        """It is said when it goes and when it is back, once each."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2"))
        bad = cluster.endpoints[0]
        with capturedLogs() as logs:
            bad.failed("upstream_reset")
            bad.failed("status_503")
            assert picks(cluster) == ["10.0.0.2"]
            status = cluster.statuses()[0]
            assert (status.health, status.ejected_seconds, status.ejections) == (EndpointHealth.EJECTED, 30.0, 1)
            world.reactor.advance(30.0)
        assert picks(cluster) == ["10.0.0.1", "10.0.0.2"]
        assert cluster.statuses()[0].health is EndpointHealth.HEALTHY
        assert told(logs) == [
            "cluster shop: 10.0.0.1:80 gets no requests for 30 s after 2 failures in a row, the last: status_503",
            "cluster shop: 10.0.0.1:80 gets requests again",
        ]

    def test_success_in_between_is_a_new_beginning(self, world: World) -> None:
        """In a row is in a row."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2"))
        shaky = cluster.endpoints[0]
        for _ in range(5):
            shaky.failed("upstream_reset")
            shaky.succeeded()
        assert len(picks(cluster)) == 2

    @pytest.mark.parametrize("reason", ["upstream_overflow", "no_healthy_upstream"])
    def test_limits_and_resolvers_are_not_its_fault(self, world: World, reason: str) -> None:
        """It was not even asked."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2"))
        for _ in range(5):
            cluster.endpoints[0].failed(reason)
        assert len(picks(cluster)) == 2


class TestHealth:
    def test_unhealthy_one_gets_nothing_until_it_is_well(self, world: World) -> None:
        """The first result counts at once, later ones by the thresholds; each change is said once, with the reason."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", health_check=CHECK))
        assert len(picks(cluster)) == 2
        with capturedLogs() as logs:
            world.answer_probe(500)
            world.answer_probe(200)
            assert picks(cluster) == ["10.0.0.2"]
            status = cluster.statuses()[0]
            assert (status.health, status.why) == (EndpointHealth.UNHEALTHY, "the answer to GET /healthz is 500")
            for _ in range(2):
                world.reactor.advance(5.0)
                assert picks(cluster) == ["10.0.0.2"]
                world.answer_probe(200)
                world.answer_probe(200)
        assert len(picks(cluster)) == 2
        assert told(logs) == [
            "cluster shop: 10.0.0.1:80 is unhealthy: the answer to GET /healthz is 500",
            "cluster shop: 10.0.0.1:80 is healthy again",
        ]

    def test_too_few_left_is_a_panic(self, world: World) -> None:
        """All are used, and it is said."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", health_check=CHECK))
        with capturedLogs() as logs:
            world.answer_probe(500)
            world.probes.waiting[0].refuse()
            world.update(cluster, cluster.spec)
        assert len(picks(cluster)) == 2
        assert told(logs)[2:] == [
            "cluster shop: 0 of 2 endpoints are available, under the panic_threshold of 50 %: requests go to all of "
            "them"
        ]

    def test_without_panic_nobody_is_left(self, world: World) -> None:
        """Who sets the threshold to 0 wants a refusal rather than an attempt, of one endpoint too."""
        cluster = world.make(spec_of("10.0.0.1", health_check=CHECK, panic_threshold=0))
        world.answer_probe(500)
        assert refusal(cluster) == (
            "no_healthy_upstream",
            "cluster shop: none of its endpoints is available, of 1",
        )
        assert cluster.problem == "the answer to GET /healthz is 500"

    def test_probe_is_made_as_requests_are(self, world: World) -> None:
        """With the cluster's TLS and PROXY header; the Host field has its name in a form that is one."""
        world.security = FakeSecurity()
        spec = spec_of("10.0.0.1", name="a/b", health_check=CHECK, proxy_protocol=ProxyProtocolOut.V2)
        world.make(spec)
        (probe,) = world.probes.opened
        assert probe.way.security is world.security
        assert probe.preface(None) == proxyproto.LOCAL_V2
        assert b"\r\nHost: a.b\r\n" in probe.accept().sent

    def test_other_check_begins_anew_and_keeps_what_is_known(self, world: World) -> None:
        """An endpoint that was ill is not well for the operator's changing a threshold."""
        spec = spec_of("10.0.0.1", "10.0.0.2", health_check=CHECK)
        cluster = world.make(spec)
        world.answer_probe(500)
        world.answer_probe(200)
        world.update(cluster, attrs.evolve(spec, health_check=attrs.evolve(CHECK, interval=1.0)))
        assert picks(cluster) == ["10.0.0.2"]
        world.answer_probe(200)
        assert len(picks(cluster)) == 2
        world.answer_probe(200)
        world.reactor.advance(5.0)
        assert len(world.probes.opened) == 6  # two of the old check, two and two of the new

    def test_without_checks_all_are_well(self, world: World) -> None:
        """What they said is of no account once they are off."""
        spec = spec_of("10.0.0.1", "10.0.0.2", health_check=CHECK)
        cluster = world.make(spec)
        world.answer_probe(500)
        world.update(cluster, attrs.evolve(spec, health_check=None))
        assert len(picks(cluster)) == 2
        world.reactor.advance(100.0)
        assert len(world.probes.opened) == 2


class TestStrictDns:
    def test_each_address_is_an_endpoint(self, world: World) -> None:
        """New ones come, old ones go, with every look-up; TLS still goes by the name."""
        cluster = world.make(STRICT)
        world.names.answer("10.0.0.1", "10.0.0.2")
        assert picks(cluster) == ["10.0.0.1", "10.0.0.2"]
        stays = cluster.endpoints[1]
        world.reactor.advance(10.0)
        world.names.answer("10.0.0.3", "10.0.0.2")
        assert picks(cluster) == ["10.0.0.2", "10.0.0.3"]
        assert cluster.endpoints[0] is stays
        assert stays.pool.target == HostPort("app.internal", 80)
        attempt = FakeLocating()
        stays.pool.way().locate(attempt)  # type: ignore[misc]
        assert attempt.told == [["10.0.0.2"]]

    def test_one_that_goes_finishes_what_it_has(self, world: World) -> None:
        """Its idle connections close at once, those in use on their return; its counts stay in the totals."""
        cluster = world.make(STRICT)
        world.names.answer("10.0.0.1", "10.0.0.2")
        goes = cluster.endpoints[0]
        idle, busy = world.open(goes), world.open(goes)
        goes.pool.release(idle)
        goes.begin()
        world.reactor.advance(10.0)
        world.names.answer("10.0.0.2")
        assert not idle.transport.is_open
        assert busy.transport.is_open
        world.reactor.turn()
        assert (cluster.totals().open, cluster.totals().connects) == (1, 2)
        goes.pool.release(busy)
        goes.end()
        world.reactor.turn()
        assert not busy.transport.is_open
        for _ in range(2):
            totals = cluster.totals()
            assert (totals.open, totals.connects) == (0, 2)
        assert cluster.active == 0

    def test_requests_wait_for_the_first_answer(self, world: World) -> None:
        """As for a connection, within its time; nobody is refused for coming early, and nobody is probed."""
        cluster = world.make(attrs.evolve(STRICT, health_check=CHECK))
        endpoint = picked(cluster)
        assert endpoint.address == "app.internal:80"
        endpoint.pool.connect(lambda outcome: None)
        attempt = FakeLocating()
        world.traffic.opened[0].way.locate(attempt)  # type: ignore[misc]
        assert attempt.told == []
        assert world.probes.opened == []
        world.names.answer("10.0.0.1", "10.0.0.2")
        assert attempt.told == [["10.0.0.1", "10.0.0.2"]]
        assert len(world.probes.opened) == 2

    def test_name_that_cannot_be_resolved_has_no_endpoints(self, world: World) -> None:
        """Requests are refused, with the resolver's reason, and operators see it; until it can."""
        cluster = world.make(STRICT)
        world.names.fail()
        reason, detail = refusal(cluster)
        assert reason == "no_healthy_upstream"
        assert detail == "cluster shop: app.internal cannot be resolved: [Errno -2] Name or service not known"
        assert cluster.problem == detail.removeprefix("cluster shop: ")
        (status,) = cluster.statuses()
        assert (status.address, status.health) == ("app.internal:80", EndpointHealth.UNHEALTHY)
        assert status.why == cluster.problem
        world.reactor.advance(1.0)
        world.names.answer("10.0.0.1")
        assert picks(cluster) == ["10.0.0.1"]
        assert [status.address for status in cluster.statuses()] == ["10.0.0.1:80"]

    def test_one_name_of_several_may_fail(self, world: World) -> None:
        """The others serve."""
        cluster = world.make(spec_of("a.internal", "b.internal", discovery=Discovery.STRICT_DNS))
        world.names.fail()
        world.names.answer("10.0.0.1")
        assert picks(cluster) == ["10.0.0.1"]
        assert [status.address for status in cluster.statuses()] == ["10.0.0.1:80", "a.internal:80"]

    def test_addresses_need_no_look_up(self, world: World) -> None:
        """Names and addresses may be mixed."""
        cluster = world.make(spec_of("10.0.0.9", "app.internal", discovery=Discovery.STRICT_DNS))
        assert world.names.asked == ["app.internal"]
        world.names.answer("10.0.0.1")
        assert picks(cluster) == ["10.0.0.1", "10.0.0.9"]

    def test_localhost_is_one_endpoint(self, world: World) -> None:
        """Both of its addresses are tried, in order."""
        cluster = world.make(spec_of("localhost", discovery=Discovery.STRICT_DNS))
        world.names.answer("::1", "127.0.0.1")
        (endpoint,) = cluster.endpoints
        attempt = FakeLocating()
        endpoint.pool.way().locate(attempt)  # type: ignore[misc]
        assert attempt.told == [["127.0.0.1", "::1"]]

    def test_static_name_is_looked_up_at_each_connect(self, world: World) -> None:
        """Nobody watches it."""
        cluster = world.make(attrs.evolve(STRICT, discovery=Discovery.STATIC))
        assert world.names.asked == []
        assert picked(cluster).pool.way().locate is None


class TestLogicalDns:
    def test_one_endpoint_goes_where_its_name_says_now(self, world: World) -> None:
        """It keeps its connections; new ones go to the addresses of the last look-up."""
        cluster = world.make(LOGICAL)
        endpoint = picked(cluster)
        for host in ("10.0.0.1", "10.0.0.2"):
            world.names.answer(host)
            assert picked(cluster) is endpoint
            attempt = FakeLocating()
            endpoint.pool.way().locate(attempt)  # type: ignore[misc]
            assert attempt.told == [[host]]
            world.reactor.advance(10.0)

    def test_unresolved_it_is_none(self, world: World) -> None:
        """As with strict DNS."""
        cluster = world.make(LOGICAL)
        world.names.fail()
        assert refusal(cluster)[0] == "no_healthy_upstream"
        world.reactor.advance(1.0)
        world.names.answer("10.0.0.1")
        assert picks(cluster) == ["app.internal"]

    def test_it_is_looked_over_once_it_is_known_where(self, world: World) -> None:
        """A slow resolver at start does not make it ill."""
        world.make(attrs.evolve(LOGICAL, health_check=CHECK))
        assert world.probes.opened == []
        world.names.answer("10.0.0.1")
        assert len(world.probes.opened) == 1


class TestUpdate:
    def test_endpoints_that_stay_keep_everything(self, world: World) -> None:
        """Connections, ejections, counts; weights are those of the new settings."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        first, second, third = cluster.endpoints
        idle = world.open(first)
        first.pool.release(idle)
        for _ in range(2):
            second.failed("upstream_reset")
        world.update(cluster, spec_of("10.0.0.4", "10.0.0.2*5", "10.0.0.1"))
        assert cluster.endpoints[1:] == (second, first)
        assert first.pool.take() is idle
        assert second.weight == 5
        assert third not in cluster.endpoints
        assert picks(cluster) == ["10.0.0.1", "10.0.0.4"]

    def test_new_settings_hold_for_old_endpoints(self, world: World) -> None:
        """Limits, timeouts, what connections begin with."""
        cluster = world.make(spec_of("10.0.0.1"))
        endpoint = picked(cluster)
        world.update(
            cluster,
            spec_of(
                "10.0.0.1",
                connect_timeout=7.0,
                proxy_protocol=ProxyProtocolOut.V1,
                limits=ClusterLimits(connections=0, requests=1),
            ),
        )
        assert picked(cluster) is endpoint
        assert endpoint.pool.way().timeout_seconds == 7.0
        assert cluster.proxy_protocol is ProxyProtocolOut.V1
        outcomes: list[Any] = []
        endpoint.pool.connect(outcomes.append)
        world.reactor.turn()
        assert outcomes[0].reason == "upstream_overflow"
        endpoint.begin()
        assert refusal(cluster)[0] == "upstream_overflow"

    def test_new_key_material_ends_old_connections(self, world: World) -> None:
        """They rest on what was trusted before."""
        cluster = world.make(spec_of("10.0.0.1"))
        endpoint = picked(cluster)
        idle = world.open(endpoint)
        endpoint.pool.release(idle)
        world.security = FakeSecurity()
        world.update(cluster, cluster.spec)
        assert not idle.transport.is_open
        assert endpoint.pool.way().security is world.security

    def test_names_that_stay_are_not_looked_up_again(self, world: World) -> None:
        """And those that go, no more."""
        cluster = world.make(STRICT)
        world.names.answer("10.0.0.1")
        (endpoint,) = cluster.endpoints
        world.update(cluster, attrs.evolve(STRICT, dns_refresh=3.0))
        assert cluster.endpoints == (endpoint,)
        assert world.names.waiting == 0
        world.reactor.advance(10.0)
        world.names.answer("10.0.0.1")
        world.reactor.advance(3.0)
        assert world.names.waiting == 1
        world.update(cluster, spec_of("10.0.0.9"))
        world.names.answer("10.0.0.2")
        world.reactor.advance(100.0)
        assert world.names.waiting == 0
        assert picks(cluster) == ["10.0.0.9"]

    def test_choice_goes_by_the_new_settings(self, world: World) -> None:
        """When endpoints are ejected, and how one is chosen."""
        spec = spec_of("10.0.0.1", "10.0.0.2")
        cluster = world.make(spec)
        outliers = attrs.evolve(OUTLIERS, consecutive_failures=1)
        world.update(cluster, attrs.evolve(spec, outlier_detection=outliers, balancing=LoadBalancing.LEAST_REQUEST))
        first, second = cluster.endpoints
        first.begin()
        assert picks(cluster) == ["10.0.0.2"]
        second.failed("upstream_reset")
        assert picks(cluster) == ["10.0.0.1"]

    def test_last_of_several_that_stays_is_used_at_once(self, world: World) -> None:
        """An ejection is for clusters that have others."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", panic_threshold=0))
        for _ in range(2):
            cluster.endpoints[0].failed("upstream_reset")
        world.update(cluster, spec_of("10.0.0.1", panic_threshold=0))
        assert picks(cluster) == ["10.0.0.1"]


class TestStatus:
    def test_everything_is_to_be_seen(self, world: World) -> None:
        """Per endpoint: what it has, what it does, what went wrong."""
        cluster = world.make(spec_of("10.0.0.1*7"))
        (endpoint,) = cluster.endpoints
        upstream = world.open(endpoint)
        upstream.codec.keep_alive_seconds = 5
        endpoint.pool.release(upstream)
        world.open(endpoint)
        endpoint.begin()
        endpoint.pool.connect(lambda outcome: None)
        endpoint.pool.connect(lambda outcome: None)
        world.traffic.waiting[0].refuse("upstream_connect_timeout", "no connection within 2 s")
        (status,) = cluster.statuses()
        assert attrs.asdict(status) == {
            "address": "10.0.0.1:80",
            "weight": 7,
            "health": EndpointHealth.HEALTHY,
            "why": "",
            "ejected_seconds": 0.0,
            "active": 1,
            "open": 2,
            "idle": 1,
            "pending": 1,
            "connects": 2,
            "failures": {"upstream_connect_timeout": 1},
            "ejections": 0,
            "last_error": "no connection within 2 s",
            "keep_alive_seconds": 5,
        }
        totals = cluster.totals()
        assert (totals.open, totals.idle, totals.pending, totals.connects) == (2, 1, 1, 2)
        assert totals.failures == {"upstream_connect_timeout": 1}

    def test_problem_is_one_of_all_endpoints(self, world: World) -> None:
        """As long as one can be connected to, requests get through."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2"))
        for endpoint in cluster.endpoints:
            assert cluster.problem == ""
            endpoint.pool.connect(lambda outcome: None)
            world.traffic.waiting[0].refuse(detail="Connection refused")
        assert cluster.problem == "Connection refused"
        world.open(cluster.endpoints[1])
        assert cluster.problem == ""


class TestStreams:
    """Clusters whose endpoints speak HTTP/2."""

    def wait_for(self, endpoint: Endpoint, count: int) -> list[Any]:
        """Ask for streams; return where they will be put, or why there are none."""
        outcomes: list[Any] = []
        for _ in range(count):
            endpoint.pool.connect(outcomes.append)
        return outcomes

    def accept(self, world: World, *settings: tuple[int, int]) -> H2App:
        app = H2App(world.traffic.waiting[0].accept(), world.reactor.turn)
        app.begins(*settings)
        return app

    def counts(self, cluster: Cluster) -> list[tuple[int, int, int]]:
        """Open, idle and pending: of each endpoint, and of all."""
        return [(each.open, each.idle, each.pending) for each in (*cluster.statuses(), cluster.totals())]

    def test_connections_are_counted_and_streams_are_not(self, world: World) -> None:
        """What waits for them is pending; in the end all is 0 but what counts since start."""
        cluster = world.make(spec_of("10.0.0.1", protocol=UpstreamProtocol.H2C))
        assert cluster.is_multiplexed
        (endpoint,) = cluster.endpoints
        outcomes = self.wait_for(endpoint, 3)
        assert self.counts(cluster) == [(0, 0, 3)] * 2
        app = self.accept(world)
        assert all(isinstance(stream, UpstreamStream) for stream in outcomes)
        assert self.counts(cluster) == [(1, 1, 0)] * 2  # none of them has sent anything
        app.vanishes()
        assert self.counts(cluster) == [(0, 0, 0)] * 2
        totals = cluster.totals()
        assert (totals.connects, totals.bytes_received, totals.bytes_sent) == (1, 18, len(app.transport.sent))

    @pytest.mark.parametrize("after", [UpstreamProtocol.HTTP1, UpstreamProtocol.H2C])
    def test_other_protocol_means_other_endpoints(self, world: World, after: UpstreamProtocol) -> None:
        """Connections of one would be sent what is framed for the other, which an app may read as more requests."""
        (before,) = set(UpstreamProtocol) - {after}
        cluster = world.make(spec_of("10.0.0.1", protocol=before))
        (old,) = cluster.endpoints
        cluster.update(spec_of("10.0.0.1", protocol=after), connect_timeout=2.0, security=None)
        (new,) = cluster.endpoints
        assert new is not old
        assert isinstance(new.pool, StreamPool) is cluster.is_multiplexed is (after is UpstreamProtocol.H2C)

    def test_connections_are_limited_over_all_endpoints(self, world: World) -> None:
        """An idle one makes room, and one that is needed does not."""
        limits = ClusterLimits(connections=1)
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", protocol=UpstreamProtocol.H2C, limits=limits))
        first, second = cluster.endpoints
        self.wait_for(first, 1)
        refused = self.wait_for(second, 1)
        world.reactor.turn()
        assert [outcome.reason for outcome in refused] == ["upstream_overflow"]
        app = self.accept(world)
        self.wait_for(second, 1)
        assert app.reads()[-1].kind == frames.GOAWAY
        assert self.counts(cluster) == [(0, 0, 0), (0, 0, 1), (0, 0, 1)]

    def test_one_that_does_not_speak_http2_is_seen(self, world: World) -> None:
        """By its status, and by what is wrong with the whole."""
        cluster = world.make(spec_of("10.0.0.1", protocol=UpstreamProtocol.H2C))
        (endpoint,) = cluster.endpoints
        outcomes = self.wait_for(endpoint, 2)
        H2App(world.traffic.waiting[0].accept(), world.reactor.turn).sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert [outcome.reason for outcome in outcomes] == ["upstream_not_http2"] * 2
        (status,) = cluster.statuses()
        assert status.failures == {"upstream_not_http2": 1}
        assert status.last_error == cluster.problem
        assert "does not speak HTTP/2 without TLS" in status.last_error

    def test_one_that_goes_serves_who_waits_for_it(self, world: World) -> None:
        """As it finishes what it has; then nothing is left of it but its counts."""
        cluster = world.make(spec_of("10.0.0.1", "10.0.0.2", protocol=UpstreamProtocol.H2C))
        outcomes = self.wait_for(cluster.endpoints[0], 1)
        world.update(cluster, spec_of("10.0.0.2", protocol=UpstreamProtocol.H2C))
        assert (cluster.totals().pending, len(cluster.statuses())) == (1, 1)
        self.accept(world)
        assert isinstance(outcomes[0], UpstreamStream)
        world.reactor.turn()
        totals = cluster.totals()
        assert (totals.open, totals.pending, totals.connects) == (0, 0, 1)


class TestStop:
    def test_nothing_goes_on(self, world: World) -> None:
        """No look-up, no probe, no timer; idle connections are closed, those in use on their return."""
        cluster = world.make(attrs.evolve(STRICT, health_check=CHECK))
        world.names.answer("10.0.0.1", "10.0.0.2")
        endpoint = cluster.endpoints[0]
        idle, busy = world.open(endpoint), world.open(endpoint)
        endpoint.pool.release(idle)
        for _ in range(2):
            endpoint.failed("upstream_reset")
        world.answer_probe(200)
        cluster.stop()
        endpoint.pool.release(busy)
        world.reactor.turn()
        assert cluster.totals().open == 0
        assert not world.reactor.pending
