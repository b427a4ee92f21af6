"""`proxy.service`: what is counted and logged of an exchange that is over."""

from __future__ import annotations

import attrs

from sidecar.errors import RequestError
from sidecar.policy.identity import identity_of
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.tunnel import Tunnel
from sidecar.tls.verify import Verification
from tests.support.certs import CLIENT, authority
from tests.support.pump import ADMITTED, SESSION, Ended, Pump


class TestRecord:
    def test_response_of_the_app_counts_by_its_status(self) -> None:
        """An exchange that went through has no reason."""
        pump = Pump()
        pump.start_exchange()
        pump.app_sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert pump.service.metrics.responses == {404: 1}
        assert pump.service.metrics.reasons == {}

    def test_own_answers_are_counted_twice_over(self) -> None:
        """By status like any other, and by reason; a head that could not be read has no duration."""
        pump = Pump()
        metrics = pump.service.metrics
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pump.pool.refuse()
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        assert metrics.responses == {502: 1, 400: 2}
        assert metrics.reasons == {"upstream_connect_refused": 1, "bad_host": 2}
        assert sum(metrics.request_duration.counts) == 1

    def test_log_may_be_off(self) -> None:
        """Without an access log everything is still counted."""
        pump = Pump()
        pump.service.access_log = None
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        pump.pool.refuse()
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        assert pump.service.metrics.responses == {502: 1, 400: 1}
        assert pump.service.metrics.reasons == {"upstream_connect_refused": 1, "bad_host": 1}

    def test_refused_head_counts_as_a_request(self) -> None:
        """Good or bad, it was one."""
        pump = Pump()
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "no"))
        assert pump.service.metrics.requests == 1
        assert pump.last == Ended(400, "bad_host", "no")

    def test_endpoint_has_one_request_less(self) -> None:
        """Whatever became of it; a request that went nowhere has none."""
        pump = Pump()
        pump.start_exchange()
        assert pump.cluster.endpoints[0].active == 1
        pump.app_resets()
        assert pump.cluster.endpoints[0].active == 0
        pump = Pump()
        pump.cluster.refusal = ConnectFailed("no_healthy_upstream", "none")
        pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert pump.cluster.endpoints[0].active == 0

    def test_client_was_seen_at_a_time_of_day(self) -> None:
        """Durations are another clock's, which nobody sets."""
        pump = Pump()
        pump.service.wall_clock = lambda: 1_700_000_000.5
        identity = identity_of(authority().issue("ci", purposes=CLIENT).certificate)
        pump.start_exchange()
        pump.downstream.principal = "ci"
        pump.downstream.session = attrs.evolve(SESSION, verification=Verification(None, None, identity))
        pump.app_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert pump.service.metrics.client_last_seen == {"ci": 1_700_000_000.5}


class TestRecordTunnel:
    def tunnel(self, pump: Pump) -> Tunnel:
        return Tunnel(
            pump.tls, pump.peer, pump.service, SESSION, admission=ADMITTED, proxy_header=lambda *arguments: b""
        )

    def test_cut_connection_is_counted_by_its_reason(self) -> None:
        """One that both sides ended has none; neither is a request."""
        pump = Pump()
        tunnel = self.tunnel(pump)
        metrics = pump.service.metrics
        pump.service.record_tunnel(tunnel, "upstream_reset", "")
        pump.service.record_tunnel(self.tunnel(pump), "", "")
        pump.service.record_tunnel(self.tunnel(pump), "upstream_reset", "")
        assert metrics.tunnels == 3
        assert metrics.tunnels_ended == {"upstream_reset": 2}
        assert (metrics.requests, metrics.responses, metrics.reasons) == (0, {}, {})

    def test_log_may_be_off(self) -> None:
        """Without an access log everything is still counted, clients with a name too."""
        pump = Pump()
        pump.service.access_log = None
        tunnel = self.tunnel(pump)
        identity = identity_of(authority().issue("ci", purposes=CLIENT).certificate)
        tunnel.principal = "ci"
        tunnel.session = attrs.evolve(SESSION, verification=Verification(None, None, identity))
        pump.service.record_tunnel(tunnel, "idle_timeout", "")
        assert pump.service.metrics.tunnels_ended == {"idle_timeout": 1}
        assert pump.service.metrics.client_requests == {"ci": 1}
