"""Whether the settings fit the load balancer in front."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

import attrs

from sidecar.config import topology
from sidecar.config.load import Loaded
from sidecar.config.units import duration_text
from sidecar.doctor.configured import written
from sidecar.doctor.findings import Check, Finding, error, note, ok, unchecked, warning
from sidecar.settings import ClientCertMode, ListenerMode, ProxyProtocol, Seconds
from sidecar.topology import ListenerSpec


class Balancer(enum.Enum):
    """What may be in front."""

    ALB = "alb"
    NLB = "nlb"
    NGINX = "nginx"
    ENVOY = "envoy"
    HAPROXY = "haproxy"
    CLOUDFRONT = "cloudfront"
    GCLB = "gclb"
    NONE = "none"


@attrs.frozen
class Traits:
    """
    How a balancer behaves.

    Attributes:
        name: For messages.
        idle: Seconds that it keeps an idle connection to us and may send a request on it, by default; None: it has no
            such default.
        speaks_proxy_protocol: Whether its connections can begin with a PROXY header.
    """

    name: str
    idle: float | None
    speaks_proxy_protocol: bool


TRAITS: Final = {
    Balancer.ALB: Traits("an ALB", 60, False),
    Balancer.NGINX: Traits("nginx", 60, True),
    Balancer.ENVOY: Traits("Envoy", 3600, True),
    Balancer.HAPROXY: Traits("HAProxy", None, True),
    Balancer.CLOUDFRONT: Traits("CloudFront", 5, False),
    Balancer.GCLB: Traits("a Google Cloud application load balancer", 600, False),
}
"""Of those that speak HTTP with us."""

NLB_IDLE: Final = 350.0
"""Seconds after which an NLB forgets a silent connection, without a word to either side."""


def balancer(loaded: Loaded, kind: Balancer, idle: float | None) -> Iterator[Finding]:
    """
    Judge the settings beside a balancer.

    Args:
        loaded: Settings without problems.
        kind: Which it is.
        idle: Its idle timeout in seconds, if it was told; None: its default.
    """
    if kind is Balancer.NONE:
        return
    if kind is Balancer.NLB:
        yield from _nlb(loaded, NLB_IDLE if idle is None else idle)
        return
    traits = TRAITS[kind]
    if _is_tcp(loaded):
        fact = f"{traits.name} speaks HTTP, and the listener passes bytes on: idle times are the app's"
        yield unchecked(Check.BALANCER_IDLE, fact)
    else:
        yield _idle(loaded, traits, idle)
    yield from _proxy_protocol(loaded, traits)
    if kind is Balancer.ALB:
        yield from _alb_certificate(loaded)


def _idle(loaded: Loaded, traits: Traits, told: float | None) -> Finding:
    theirs = traits.idle if told is None else told
    ours = loaded.settings.timeouts.idle
    if theirs is None:
        fact = f"{traits.name} has no default for how long it keeps idle connections to us"
        return unchecked(Check.BALANCER_IDLE, fact, "say what is configured with --balancer-idle 60s")
    default = "" if told is not None else " unless told otherwise"
    fact = f"idle connections: ours close after {_text(ours)}, those of {traits.name} after {_text(theirs)}{default}"
    if ours > theirs:
        return ok(Check.BALANCER_IDLE, fact)
    fix = f"set SIDECAR_IDLE_TIMEOUT above {_text(theirs)}, or its own lower (then say --balancer-idle)"
    return warning(Check.BALANCER_IDLE, f"{fact}: a request sent as we close is lost, mostly as a 502", fix)


def _proxy_protocol(loaded: Loaded, traits: Traits) -> Iterator[Finding]:
    required = all(spec.proxy_protocol is ProxyProtocol.REQUIRED for spec in _entrances(loaded))
    if required and not traits.speaks_proxy_protocol:
        fact = f"a PROXY header is required, and {traits.name} sends none: every connection is cut"
        fix = "set SIDECAR_PROXY_PROTOCOL=off; such a balancer tells the client's address in X-Forwarded-For"
        yield error(Check.BALANCER, fact, fix)
        return
    if traits.speaks_proxy_protocol or _is_tcp(loaded):
        return
    if not loaded.settings.downstream.trusted_proxies:
        fact = f"X-Forwarded-For of {traits.name} is replaced: the app sees the balancer's address as the client's"
        yield note(Check.BALANCER, fact, "name the balancer's networks in SIDECAR_TRUSTED_PROXIES")


def _alb_certificate(loaded: Loaded) -> Iterator[Finding]:
    """An ALB ends TLS: it has no client certificate to show, neither for requests nor for health checks."""
    client = loaded.settings.client
    if client.cert is not ClientCertMode.REQUIRED:
        return
    what = written(loaded, "client_cert")
    if client.exempt or client.rules:
        fact = f"{what}: required, and an ALB shows no certificate: only exempt paths are served through it"
        yield warning(Check.BALANCER, fact, "for mutual TLS with clients use an NLB, which passes TLS through")
    else:
        fact = f"{what}: required, and an ALB shows no certificate: every request through it is refused"
        yield error(Check.BALANCER, fact, "for mutual TLS with clients use an NLB, which passes TLS through")


def _nlb(loaded: Loaded, forgets: float) -> Iterator[Finding]:
    """It passes connections through, so whether a request meets a closing one is between the client and us."""
    settings = loaded.settings
    name, ours = "idle_timeout", settings.timeouts.idle
    if _is_tcp(loaded):
        name, ours = "tcp_idle_timeout", settings.timeouts.tcp_idle
    fact = f"{written(loaded, name)}: {_text(ours) if ours else 'off'}; an NLB forgets a silent connection after"
    if 0 < ours < forgets:
        yield ok(Check.BALANCER_IDLE, f"{fact} {_text(forgets)}, later")
    else:
        fix = f"set it below {_text(forgets)}, or have clients send TCP keep-alives"
        yield note(Check.BALANCER_IDLE, f"{fact} {_text(forgets)}, and the next bytes on it meet a reset", fix)
    if all(spec.proxy_protocol is ProxyProtocol.OFF for spec in _entrances(loaded)):
        fact = "PROXY headers are off: behind an NLB with IP targets the client's address is lost"
        fix = "turn on proxy_protocol_v2.enabled of the target group and SIDECAR_PROXY_PROTOCOL=required, both at once"
        yield note(Check.BALANCER, fact, fix)
    client = settings.client
    if client.cert is ClientCertMode.REQUIRED and not (client.exempt or client.rules) and settings.health is None:
        fact = f"{written(loaded, 'client_cert')}: required: health checks by HTTPS have no certificate and get 400"
        fix = "check by TCP, or set SIDECAR_HEALTH and check /ready there, or exempt a path: SIDECAR_CLIENT_CERT_EXEMPT"
        yield note(Check.BALANCER, fact, fix)


def _entrances(loaded: Loaded) -> list[ListenerSpec]:
    """The listeners that a balancer sends clients to: those with TLS, if there are any."""
    listeners = list(topology.read(loaded).listeners.values())
    return [spec for spec in listeners if spec.tls] or listeners


def _is_tcp(loaded: Loaded) -> bool:
    return all(spec.mode is ListenerMode.TCP for spec in _entrances(loaded))


def _text(seconds: float) -> str:
    return duration_text(Seconds(seconds))
