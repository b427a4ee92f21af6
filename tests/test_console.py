"""`console`: what operators are shown is what the parts know in that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from sidecar.admin.operator import CheckState, Connection, Operator
from sidecar.certs.material import ClientMaterial
from sidecar.config.load import load
from sidecar.console import Console
from sidecar.credentials import Credentials
from sidecar.errors import ConfigError, Problem
from sidecar.observe import logs
from sidecar.observe.metrics import Metrics
from sidecar.proxy.cluster import Cluster
from sidecar.proxy.downstream import DownstreamConnection
from sidecar.proxy.listener import Approach, Listener, Peer
from sidecar.proxy.rejecting import Rejecter
from sidecar.reloading import Reloader
from sidecar.settings import HostPort, Limits, LogLevel
from sidecar.topology import ClusterSpec, Endpoint, Topology, UpstreamProtocol
from sidecar.wire.proxyproto import ProxyHeader
from tests.support.certs import NOW, Issued, authority, intermediate, reveals, revocation_list
from tests.support.ports import FakeReactor, RecordingTransport

SERVER = intermediate().issue("app.example")
CRL = revocation_list(authority(), SERVER.certificate, next_update=NOW + timedelta(days=7))
PROBLEM = Problem("SIDECAR_TLS_KEY", "environment", "the key does not fit", "give the right one")
CLIENTS: dict[str, str] = {"client_cert": "optional", "client_ca": "/ca", "client_crl": "/crl"}


class FakeListener:
    """Stands for `proxy.listener.Listener`."""

    approach = Approach(name="main")

    def __init__(self) -> None:
        self.connections: list[tuple[Peer, DownstreamConnection | None]] = []

    def open(self) -> Iterator[tuple[Peer, DownstreamConnection | None]]:
        yield from self.connections

    def bytes_moved(self) -> tuple[int, int]:
        return 1000, 2000


class World:
    """The parts that the console asks; a test changes them."""

    def __init__(self, **flags: str) -> None:
        self.reactor = FakeReactor()
        self.now = NOW
        self.credentials = credentials(SERVER)
        self.draining = False
        self.stops = 0
        self.listener = FakeListener()
        spec = ClusterSpec(name="app", endpoints=(Endpoint(address=HostPort("127.0.0.1", 8080)),))
        self.cluster = Cluster(spec, limits=Limits(), connect_timeout=2.0, security=None, reactor=self.reactor)
        self.pool = self.cluster.endpoints[0].pool
        self.metrics = Metrics()
        self.loaded = load({"tls_cert": "/etc/tls/tls.crt", **flags}, {})
        self.problems: tuple[Problem, ...] = ()
        self.writer: Any = None
        self.console = self.make()

    def make(self) -> Console:
        return Console(
            metrics=self.metrics,
            clusters_by_name={"app": self.cluster},
            listeners=[cast(Listener, self.listener)],
            rejecter=Rejecter(self.metrics, self.reactor.seconds),
            reloader=Reloader(
                self.loaded,
                reread=lambda: self.loaded,
                load=self.load,
                apply=self.apply,
                clock=lambda: self.now.timestamp(),
                reactor=self.reactor,
            ),
            writer=self.writer,
            credentials=lambda: self.credentials,
            is_draining=lambda: self.draining,
            stop=self.stop,
            clock=self.clock,
            seconds=self.reactor.seconds,
        )

    def clock(self) -> datetime:
        return self.now

    def stop(self) -> None:
        self.stops += 1
        self.draining = True

    def load(self, loaded: object) -> Credentials:
        if self.problems:
            raise ConfigError(self.problems)
        return credentials(SERVER)

    def apply(self, loaded: object, credentials: Credentials) -> None:
        self.credentials = credentials


def credentials(*issued: Issued, clients: ClientMaterial | None = None) -> Credentials:
    """Credentials of which only the key material is looked at."""
    return Credentials(
        topology=Topology(listeners=(), clusters=()),
        bundles=tuple(each.bundle for each in issued),
        clients=clients or ClientMaterial(),
        keys={},
    )


@pytest.fixture
def world() -> World:
    return World()


def check(world: World, name: str) -> tuple[CheckState, str]:
    """The finding of one check."""
    (found,) = [each for each in world.console.readiness().checks if each.name == name]
    return found.state, found.text


class TestReadiness:
    def test_nothing_is_against_traffic_at_first(self, world: World) -> None:
        """Every check is good."""
        assert {found.state for found in world.console.readiness().checks} == {CheckState.OK}

    def test_failed_reload_is_a_warning_with_its_reason(self, world: World) -> None:
        """What was in force serves on; the warning goes with the first reload that works."""
        world.problems = (PROBLEM,)
        world.console.reload()
        state, text = check(world, "reload")
        assert state is CheckState.WARN
        assert str(PROBLEM) in text
        assert world.console.readiness().reasons == ()
        world.problems = ()
        world.console.reload()
        assert check(world, "reload")[0] is CheckState.OK

    @pytest.mark.parametrize(
        ("spoil", "name"),
        [
            (lambda world: setattr(world, "draining", True), "draining"),
            (lambda world: setattr(world, "now", NOW + timedelta(days=4000)), "certificates"),
            (lambda world: setattr(world.pool.statistics, "last_error", "Connection refused"), "app"),
        ],
        ids=["draining", "certificate expired", "app away"],
    )
    def test_what_clients_would_suffer_from_fails(
        self, world: World, spoil: Callable[[World], None], name: str
    ) -> None:
        """One thing is enough, and the metric says the same."""
        spoil(world)
        assert check(world, name)[0] is CheckState.FAIL
        assert len(world.console.readiness().reasons) == 1
        assert Metrics.load(world.console.figures()).ready == 0


class TestCertificates:
    def test_all_that_is_served_is_shown_with_its_source(self) -> None:
        """In the order of the setting; the PEM is leaf and chain of the default, and nothing of a key."""
        world = World(tls_cert="/a.pem,/b.pem")
        world.credentials = credentials(SERVER, authority().issue("other.example"))
        shown = world.console.certificates()
        assert [(each.source, each.leaf.subject) for each in shown.served] == [
            ("/a.pem", "CN=app.example"),
            ("/b.pem", "CN=other.example"),
        ]
        assert [link.subject for link in shown.served[0].chain] == [
            link.subject.rfc4514_string() for link in SERVER.chain
        ]
        assert shown.pem == SERVER.cert_pem
        assert b"PRIVATE" not in shown.pem

    def test_certificate_made_here_is_called_ephemeral(self) -> None:
        """It comes from no file."""
        assert [each.source for each in World(tls_cert="").console.certificates().served] == ["ephemeral"]

    def test_value_of_a_setting_is_no_source(self) -> None:
        """A certificate with its key in the setting itself is not repeated as the place it came from."""
        secret = (SERVER.cert_pem + SERVER.key_pem).decode()
        world = World(tls_cert=secret)
        assert world.console.certificates().served[0].source == "the value given"
        scalar = SERVER.key_pem.decode().splitlines()[2][:24]  # the lines before and after are public too
        assert not reveals(repr(world.console.certificates()), scalar)

    def test_what_clients_are_verified_with_is_shown(self) -> None:
        """CAs and revocation lists, with where they came from."""
        world = World(**CLIENTS)
        world.credentials = credentials(SERVER, clients=ClientMaterial((authority().certificate,), (CRL,)))
        shown = world.console.certificates()
        assert (shown.client_ca_source, len(shown.client_cas)) == ("/ca", 1)
        (crl,) = shown.crls
        assert (crl.source, crl.issuer) == ("/crl", CRL.issuer.rfc4514_string())
        assert (crl.this_update, crl.next_update, crl.revoked) == (CRL.last_update_utc, CRL.next_update_utc, 1)

    def test_description_is_made_once_but_of_this_moment(self, world: World) -> None:
        """A probe each second parses nothing anew, and days are counted from now all the same."""
        first = world.console.certificates()
        world.now += timedelta(days=1)
        second = world.console.certificates()
        assert second.served is first.served
        assert second.now - first.now == timedelta(days=1)

    def test_new_ones_are_shown_at_once(self, world: World) -> None:
        """After a reload nothing old is shown."""
        world.console.certificates()
        world.credentials = credentials(authority().issue("new.example"))
        assert world.console.certificates().served[0].leaf.subject == "CN=new.example"


class TestConfigLines:
    def test_settings_in_force_are_shown_without_secrets(self) -> None:
        """A password and a key that were given as values are not among them."""
        key = SERVER.key_pem.decode()
        lines = World(tls_key=key, tls_key_password="hunter2-and-more").console.config_lines()
        assert any(line.startswith("tls_cert: /etc/tls/tls.crt ") for line in lines)
        assert "hunter2" not in "\n".join(lines)
        assert not reveals("\n".join(lines), key)

    def test_reload_changes_them(self, world: World) -> None:
        """What is shown is in force, not what was once."""
        world.loaded = load({"tls_cert": "/etc/tls/tls.crt", "idle_timeout": "99s"}, {})
        assert not any("99s" in line for line in world.console.config_lines())
        world.console.reload()
        assert any(line.split()[:2] == ["idle_timeout:", "99s"] for line in world.console.config_lines())


class TestConnections:
    def peer(self, world: World, accepted_at: float) -> Peer:
        transport = RecordingTransport(world.reactor)
        transport.sent, transport.bytes_received = b"abc", 5
        peer = SimpleNamespace(host="192.0.2.7", via=None, proxied=None, accepted_at=accepted_at, transport=transport)
        return cast(Peer, peer)

    def test_connection_before_its_handshake_is_shown(self, world: World) -> None:
        """Whoever connects and says nothing must be seen too."""
        world.reactor.advance(10)
        world.listener.connections = [(self.peer(world, 4.0), None)]
        assert list(world.console.connections()) == [
            Connection(
                client="192.0.2.7",
                listener="main",
                age_seconds=6.0,
                state="handshake",
                requests=0,
                tls_version=None,
                server_name=None,
                principal="",
                bytes_received=5,
                bytes_sent=3,
            )
        ]

    def test_connection_is_shown_with_what_was_agreed_on(self, world: World) -> None:
        """Who the client is, what it does and how much it moved."""
        session = SimpleNamespace(version="TLSv1.3", server_name="app.example")
        served = SimpleNamespace(session=session, doing="request", requests=3, principal="spiffe://prod/web")
        world.listener.connections = [(self.peer(world, 0.0), cast(DownstreamConnection, served))]
        (shown,) = world.console.connections()
        assert attrs.asdict(shown) == {
            "client": "192.0.2.7",
            "via": "",
            "proxied": {},
            "listener": "main",
            "age_seconds": 0.0,
            "state": "request",
            "requests": 3,
            "tls_version": "TLSv1.3",
            "server_name": "app.example",
            "principal": "spiffe://prod/web",
            "bytes_received": 5,
            "bytes_sent": 3,
        }

    def test_connection_through_a_balancer_is_shown_with_what_that_said(self, world: World) -> None:
        """Who connected, and what is in the header beside addresses."""
        peer = self.peer(world, 0.0)
        peer.via = HostPort("10.0.0.1", 4000)
        peer.proxied = ProxyHeader(version=2, tlvs=((0x02, b"app.example"), (0xEA, b"\x01vpce-1")))
        world.listener.connections = [(peer, None)]
        (shown,) = world.console.connections()
        assert shown.via == "10.0.0.1:4000"
        assert shown.proxied == {"authority": "app.example", "vpc_endpoint_id": "vpce-1"}


class TestClusters:
    def test_the_one_there_is_shows_its_pool(self, world: World) -> None:
        """Counts, failures by reason, and the last error in words."""
        statistics = world.pool.statistics
        statistics.connects, statistics.last_error, statistics.keep_alive_seconds = 4, "refused", 5.0
        statistics.failures = {"upstream_connect_refused": 2}
        (cluster,) = world.console.clusters()
        assert attrs.asdict(cluster) == {
            "cluster": "app",
            "upstream": "127.0.0.1:8080",
            "protocol": "http/1.1",
            "weight": 1,
            "health": "healthy",
            "why": "",
            "active": 0,
            "ejections": 0,
            "open": 0,
            "idle": 0,
            "pending": 0,
            "connects": 4,
            "failures": {"upstream_connect_refused": 2},
            "last_error": "refused",
            "keep_alive_seconds": 5.0,
        }

    def test_protocol_is_shown(self, world: World) -> None:
        """Who looks for a gRPC app that does not answer wants to know what it was spoken to in."""
        world.cluster.spec = attrs.evolve(world.cluster.spec, protocol=UpstreamProtocol.H2C)
        assert [cluster.protocol for cluster in world.console.clusters()] == ["h2c"]


class TestFigures:
    def test_gauges_of_others_stand_beside_the_counters(self) -> None:
        """Bytes, pool, reloads, key material and the process."""
        world = World(**CLIENTS)
        world.writer = SimpleNamespace(dropped=7)
        world.console = world.make()
        world.credentials = credentials(SERVER, clients=ClientMaterial((authority().certificate,), (CRL,)))
        world.metrics.requests = 9
        world.pool.statistics.connects = 4
        world.pool.statistics.failures = {"upstream_timeout": 2}
        figures = Metrics.load(world.console.figures())
        assert (figures.requests, figures.ready, figures.draining, figures.access_log_dropped) == (9, 1, 0, 7)
        assert (figures.downstream_bytes_received, figures.downstream_bytes_sent) == (1000, 2000)
        assert (figures.upstream_connects, figures.upstream_connect_failures) == (4, {"upstream_timeout": 2})
        assert figures.upstream_healthy == {("app", "127.0.0.1:8080"): 1}
        assert [kind for kind, _, _ in figures.certificate_not_after] == ["leaf", "chain", "client_ca"]
        assert list(figures.crl_next_update.values()) == [(NOW + timedelta(days=7)).timestamp()]

    def test_reloads_are_counted_by_result(self, world: World) -> None:
        """The moment is that of the last that worked."""
        started = NOW.timestamp()
        world.now += timedelta(seconds=10)
        world.console.reload()
        world.now += timedelta(seconds=10)
        world.problems = (PROBLEM,)
        world.console.reload()
        figures = Metrics.load(world.console.figures())
        assert figures.reloads == {"ok": 1, "failed": 1}
        assert figures.reload_success_at == started + 10

    def test_no_access_log_drops_no_lines(self, world: World) -> None:
        """It may be off."""
        assert Metrics.load(world.console.figures()).access_log_dropped == 0


class TestChanges:
    def test_reload_says_what_is_wrong(self, world: World) -> None:
        """A line each; none, and the new set is in force."""
        before = world.credentials
        world.problems = (PROBLEM,)
        assert world.console.reload() == (str(PROBLEM),)
        assert world.credentials is before
        world.problems = ()
        assert world.console.reload() == ()
        assert world.credentials is not before

    def test_drain_is_begun_once(self, world: World) -> None:
        """Whoever asks twice does not begin the time anew."""
        world.console.drain()
        world.console.drain()
        assert world.stops == 1

    def test_log_level_is_in_force_at_once(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer says how long it stays."""
        levels: list[LogLevel] = []
        monkeypatch.setattr(logs, "set_level", levels.append)
        assert world.console.set_log_level(LogLevel.DEBUG) == "Logging from debug upwards, until the next reload."
        assert levels == [LogLevel.DEBUG]

    def test_console_is_what_the_pages_ask(self, world: World) -> None:
        """Nothing of what a page may ask for is missing."""
        operator: Operator = world.console
        names = [name for name in vars(Operator) if not name.startswith("_")]
        assert [name for name in names if not callable(getattr(operator, name, None))] == []
