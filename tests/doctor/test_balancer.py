"""`sidecar.doctor.balancer`: settings beside what is in front."""

from __future__ import annotations

import json

import pytest

from sidecar.doctor.balancer import TRAITS, Balancer, balancer
from sidecar.doctor.findings import Check, Finding, Severity
from tests.doctor.settled import settled, severities

TRUSTED = {"trusted_proxies": "10.0.0.0/8"}
MTLS = {"client_cert": "required", "client_ca": "/certs/ca.crt", **TRUSTED}


def found(kind: Balancer, idle: float | None = None, **settings: str) -> list[Finding]:
    return list(balancer(settled(**settings), kind, idle))


class TestIdle:
    @pytest.mark.parametrize(
        ("kind", "idle", "ours", "severity"),
        [
            pytest.param(Balancer.ALB, None, "75s", "ok", id="alb"),
            pytest.param(Balancer.ALB, None, "60s", "warning", id="alb-as-long"),
            pytest.param(Balancer.ALB, 120, "75s", "warning", id="alb-longer"),
            pytest.param(Balancer.NGINX, None, "75s", "ok", id="nginx"),
            pytest.param(Balancer.ENVOY, None, "75s", "warning", id="envoy"),
            pytest.param(Balancer.ENVOY, 60, "75s", "ok", id="envoy-told"),
            pytest.param(Balancer.GCLB, None, "75s", "warning", id="gclb"),
            pytest.param(Balancer.GCLB, None, "620s", "ok", id="gclb-longer"),
            pytest.param(Balancer.CLOUDFRONT, None, "75s", "ok", id="cloudfront"),
            pytest.param(Balancer.HAPROXY, None, "75s", "unchecked", id="haproxy"),
            pytest.param(Balancer.HAPROXY, 60, "75s", "ok", id="haproxy-told"),
        ],
    )
    def test_ours_must_be_longer(self, kind: Balancer, idle: float | None, ours: str, severity: str) -> None:
        """Else a request may meet a connection that we close."""
        assert severities(found(kind, idle, idle_timeout=ours, **TRUSTED)) == [("balancer-idle", severity)]

    @pytest.mark.parametrize(
        ("settings", "severity"),
        [
            pytest.param({}, "ok", id="http"),
            pytest.param({"idle_timeout": "350s"}, "note", id="http-longer"),
            pytest.param({"mode": "tcp"}, "note", id="tcp"),
            pytest.param({"mode": "tcp", "tcp_idle_timeout": "0"}, "note", id="tcp-off"),
            pytest.param({"mode": "tcp", "tcp_idle_timeout": "5m"}, "ok", id="tcp-shorter"),
        ],
    )
    def test_behind_an_nlb_ours_must_be_shorter(self, settings: dict[str, str], severity: str) -> None:
        """It sends no requests of its own, and forgets silent connections."""
        given = {"proxy_protocol": "required", **settings}
        assert severities(found(Balancer.NLB, **given)) == [("balancer-idle", severity)]

    def test_raw_tcp_is_not_compared(self) -> None:
        """Idle times are those of what is spoken inside."""
        assert severities(found(Balancer.ALB, mode="tcp", **TRUSTED)) == [("balancer-idle", "unchecked")]


class TestProxyProtocol:
    @pytest.mark.parametrize("kind", TRAITS)
    def test_header_that_never_comes_must_not_be_required(self, kind: Balancer) -> None:
        """Every connection would be cut."""
        errors = [each for each in found(kind, proxy_protocol="required", **TRUSTED) if each.severity is Severity.ERROR]
        assert len(errors) == (not TRAITS[kind].speaks_proxy_protocol)

    def test_client_address_that_is_lost_is_a_note(self) -> None:
        """Behind an NLB without PROXY headers, behind an ALB that is not trusted."""
        assert severities(found(Balancer.NLB))[1:] == [("balancer", "note")]
        assert severities(found(Balancer.ALB))[1:] == [("balancer", "note")]

    def test_listeners_of_the_file_are_looked_at(self) -> None:
        """They stand in place of the settings for one; one in the clear is not what clients come to."""
        listeners = [
            {"name": "in", "address": "0.0.0.0:443", "mode": "tcp", "proxy_protocol": "required", "cluster": "app"},
            {"name": "out", "address": "127.0.0.1:5000", "tls": "off", "cluster": "app"},
        ]
        pairs = severities(found(Balancer.ALB, listeners=json.dumps(listeners), **TRUSTED))
        assert pairs == [("balancer-idle", "unchecked"), ("balancer", "error")]


class TestClientCertificate:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            pytest.param(MTLS, [("balancer", "error")], id="required"),
            pytest.param({**MTLS, "client_cert_exempt": "/service"}, [("balancer", "warning")], id="exempt"),
            pytest.param({**MTLS, "client_cert": "optional"}, [], id="optional"),
        ],
    )
    def test_alb_has_none_to_show(self, settings: dict[str, str], expected: list[tuple[str, str]]) -> None:
        """It ends TLS, so requests and health checks come without."""
        assert severities(found(Balancer.ALB, **settings))[1:] == expected

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            pytest.param({}, [("balancer", "note")], id="required"),
            pytest.param({"health": "0.0.0.0:8082"}, [], id="health-port"),
            pytest.param({"client_cert_exempt": "/service"}, [], id="exempt"),
        ],
    )
    def test_health_checks_of_an_nlb_have_none(self, settings: dict[str, str], expected: list[tuple[str, str]]) -> None:
        """Clients come through it with theirs."""
        given = {**MTLS, "proxy_protocol": "required", **settings}
        assert severities(found(Balancer.NLB, **given))[1:] == expected


class TestNone:
    def test_nothing_in_front_is_nothing_to_say(self) -> None:
        """None is assumed."""
        assert found(Balancer.NONE, idle_timeout="1s") == []

    def test_every_other_kind_says_something(self) -> None:
        """Whoever names one gets an answer."""
        assert all(
            Check.BALANCER_IDLE in {each.check for each in found(kind)}
            for kind in Balancer
            if kind is not Balancer.NONE
        )
