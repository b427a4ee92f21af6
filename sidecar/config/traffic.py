"""Rules about listeners, the proxies in front of them, and upstreams, for `config.check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import attrs

from sidecar.config import hosts
from sidecar.config.addresses import is_name
from sidecar.config.case import Case, Rule
from sidecar.config.clusters import refused_with_h2c
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.config.topology import Reading
from sidecar.config.units import size_text
from sidecar.errors import ConfigError, Problem
from sidecar.settings import (
    ClientCertMode,
    ClientSettings,
    HostPort,
    ListenerMode,
    PathPatterns,
    ProxyProtocol,
    ProxyProtocolMissing,
    Switch,
    UnixPath,
)
from sidecar.topology import ListenerSpec, Route, ToCluster, UpstreamProtocol

if TYPE_CHECKING:
    from sidecar.policy.access import Access

# -- addresses ---------------------------------------------------------------------------------------------------


def _listening(case: Case) -> list[tuple[str, str, HostPort]]:
    """Everything that is listened on: where it is written, what it is for, its address."""
    settings = case.loaded.settings
    found = [(place, _kind(place, listener), listener.address) for place, listener in case.reading.listeners.items()]
    for name, address in (("admin", settings.admin), ("health", settings.health)):
        if address is not None and case.has(name):
            found.append((name, name, address))
    return found


def _kind(place: str, listener: ListenerSpec) -> str:
    if place == "listen":
        return "TLS" if listener.tls else "main"
    return listener.name


def _listeners_differ(case: Case) -> Iterator[Problem]:
    for (first, kind, taken), (second, _, address) in combinations(_listening(case), 2):
        if taken.port == address.port and hosts.collide(taken.host, address.host):
            fact = f"{address} is taken by the {kind} listener, {taken}"
            yield case.problem(second, fact, "choose another port for one of them", beside=first)


def _upstream_is_elsewhere(case: Case) -> Iterator[Problem]:
    for place, cluster in case.reading.clusters.items():
        for i, endpoint in enumerate(cluster.endpoints):
            target = endpoint.address
            if isinstance(target, UnixPath):
                continue
            where = place if place == "upstream" else f"{place}[{i}]"
            for name, _, listener in _listening(case):
                if target.port == listener.port and hosts.reaches(target.host, listener.host):
                    fact = f"{target} is the sidecar itself ({case.written(name, where)} is {listener})"
                    fix = "give the address of the app; if it is right, move the sidecar to another port"
                    yield case.problem(where, fact, fix, beside=name)


def _upstream_resolves(case: Case) -> Iterator[Problem]:
    for place, host in unresolved(case.reading, case.resolve):
        fix = "correct the name, or check the resolver: run starts without it, and asks again"
        yield case.problem(place, f"{host} has no address", fix)


# -- proxies in front --------------------------------------------------------------------------------------------


def _trusted_proxies_are_named(case: Case) -> Iterator[Problem]:
    if case.loaded.settings.downstream.trusted_proxies:
        return
    for place, listener in case.reading.listeners.items():
        if listener.proxy_protocol is ProxyProtocol.TRUSTED and place != "http_redirect":
            where = "proxy_protocol" if place == "listen" else _beside(place, "proxy_protocol")
            written = case.written("trusted_proxies", where)
            fact = f"trusted, but nobody is: {written} is empty"
            yield case.problem(where, fact, f"set {written} to the networks of the balancer, or write required")


def _missing_header_is_decided_on(case: Case) -> Iterator[Problem]:
    listeners = case.reading.listeners.values()
    is_trusted = any(listener.proxy_protocol is ProxyProtocol.TRUSTED for listener in listeners)
    if case.loaded.settings.downstream.proxy_protocol_missing is ProxyProtocolMissing.REFUSE and not is_trusted:
        written = case.written("proxy_protocol", "proxy_protocol_missing")
        fact = f"it would be ignored: {written} is not trusted anywhere"
        yield case.problem("proxy_protocol_missing", fact, f"set {written} to trusted, or remove this")


# -- what is spoken ----------------------------------------------------------------------------------------------

_ONLY_HTTP = (
    *("virtual_hosts", "client_cert_exempt", "identity_headers", "forwarded", "upstream_host", "normalize_path"),
    *("underscore_headers", "max_body", "max_requests_per_connection", "http2"),
)

_OF_HTTP2 = tuple(name for name in SETTINGS if name.startswith("http2_"))
"""Limits of HTTP/2 with clients, and with apps that speak h2c."""

_ONLY_TLS = ("tls_cert", "tls_names")


_REMOVE_ONE = "remove one of the two"


def _settings_are_about_requests(case: Case) -> Iterator[Problem]:
    """Nobody should rely on what a relay of bytes cannot do."""
    modes = {listener.mode for place, listener in case.reading.listeners.items() if place != "http_redirect"}
    if modes == {ListenerMode.TCP}:
        for name in filter(case.is_given, (*_ONLY_HTTP, *_OF_HTTP2)):
            fact = f"it would be ignored: {_mode(case, name)}, where bytes are passed on and no requests are read"
            yield case.problem(name, fact, "remove it, or set the mode to http")
    if ListenerMode.TCP in modes and case.has("client_rules") and _rules_look_at_requests(case):
        fact = f"a rule is about requests, and {_mode(case, 'client_rules')}, where none are read"
        fix = f"use {case.written('client_allow', 'client_rules')}, or rules without path, method and host"
        yield case.problem("client_rules", fact, fix)


def _mode(case: Case, name: str) -> str:
    listener = next(place for place, listener in case.reading.listeners.items() if listener.mode is ListenerMode.TCP)
    return f"{case.written('mode' if listener == 'listen' else _beside(listener, 'mode'), name)} is tcp"


def _rules_look_at_requests(case: Case) -> bool:
    access = _access(attrs.evolve(case.loaded.settings.client, exempt=PathPatterns(())))
    return access is not None and not access.decides_per_connection


def _access(client: ClientSettings) -> Access | None:
    """What the settings say of clients; None if something is wrong with the rules, which is told elsewhere."""
    from sidecar.policy.access import access_of  # compiles expressions; warnings do without

    try:
        return access_of(client, "")
    except ConfigError:
        return None


def _protocols_are_agreed_on(case: Case) -> Iterator[Problem]:
    downstream = case.loaded.settings.downstream
    if downstream.alpn and not downstream.listeners:
        written = case.written("mode", "alpn")
        if downstream.mode is ListenerMode.HTTP:
            fact, fix = f"it would be ignored: {written} is http, which says what can be agreed on", "remove it"
            yield case.problem("alpn", fact, f"set {written} to tcp, or {fix}")
        elif downstream.tls is Switch.OFF:
            fact = f"it would be ignored: {case.written('listen_tls', 'alpn')} is off, and TLS is where it is agreed on"
            yield case.problem("alpn", fact, _REMOVE_ONE)


def _http2_is_spoken(case: Case) -> Iterator[Problem]:
    """Nobody should rely on limits of what is not spoken, neither with clients nor with an app."""
    listeners = [each for place, each in case.reading.listeners.items() if place != "http_redirect"]
    if any(cluster.protocol is UpstreamProtocol.H2C for cluster in case.reading.clusters.values()):
        return
    for name in filter(case.is_given, _OF_HTTP2):
        if case.loaded.settings.http2.enabled is Switch.OFF:
            yield case.problem(name, f"it would be ignored: {case.written('http2', name)} is off", _REMOVE_ONE)
        elif listeners and not any(listener.tls for listener in listeners):
            fact = "it would be ignored: clients agree on HTTP/2 inside TLS, which no listener speaks"
            yield case.problem(name, fact, "remove it, or the setting that turns TLS off")


def _windows_fit(case: Case) -> Iterator[Problem]:
    http2 = case.loaded.settings.http2
    if http2.stream_window > http2.connection_window:
        given = next(filter(case.is_given, ("http2_connection_window", "http2_stream_window")))
        whole = case.written("http2_connection_window", given)
        fact = (
            f"{size_text(http2.stream_window)} for one request is more than {whole} for all of a connection, "
            f"{size_text(http2.connection_window)}"
        )
        yield case.problem("http2_stream_window", fact, f"set it lower, or {whole} higher", beside=given)


def _tls_is_spoken(case: Case) -> Iterator[Problem]:
    """Nobody should believe that something is encrypted when it is not."""
    downstream, listeners = case.loaded.settings.downstream, case.reading.listeners
    if listeners and not any(listener.tls for listener in listeners.values()):
        for name in filter(case.is_given, _ONLY_TLS):
            fact = "it would be ignored: no listener speaks TLS"
            yield case.problem(name, fact, "remove it, or the setting that turns TLS off")
    if downstream.http_redirect is not None and downstream.tls is Switch.OFF and case.has("http_redirect"):
        fact = f"it leads to https, and {case.written('listen_tls', 'http_redirect')} is off"
        yield case.problem("http_redirect", fact, _REMOVE_ONE)


def _certificates_can_be_shown(case: Case) -> Iterator[Problem]:
    """Without TLS no client has a certificate: where one is asked for, nobody would ever come in."""
    access = _access(case.loaded.settings.client)
    is_usual = access is not None and access.handshake_mode is not ClientCertMode.NONE
    for place, listener in case.reading.listeners.items():
        if not listener.tls and _wants_certificates(listener, is_usual=is_usual):
            where = "listen_tls" if place == "listen" else _beside(place, "tls")
            asks = case.written(case.asking, where)
            fact = f"off: without TLS no client can show a certificate, and {asks} asks for one"
            fix = "turn TLS on, or write client_cert: none into the routes that are for everybody"
            yield case.problem(where, fact, fix)


def _wants_certificates(listener: ListenerSpec, *, is_usual: bool) -> bool:
    """Whether something that a listener forwards looks at certificates, as is *usual* where no route says otherwise."""
    if listener.mode is ListenerMode.TCP:
        return is_usual
    return any(
        is_usual and isinstance(route.action, ToCluster)
        if route.client is None
        else route.client.mode is not ClientCertMode.NONE
        for route in _routes(listener)
    )


def _routes(listener: ListenerSpec) -> Iterator[Route]:
    return (route for virtual_host in listener.virtual_hosts for route in virtual_host.routes)


# -- upstreams ---------------------------------------------------------------------------------------------------

_ONLY_HTTPS = ("upstream_ca", "upstream_names", "upstream_sni", "upstream_cert", "upstream_key")


def _upstream_tls_fits(case: Case) -> Iterator[Problem]:
    settings = case.loaded.settings
    if "upstream" not in case.reading.clusters:
        return
    if not settings.upstream.tls:
        for name in filter(case.is_given, _ONLY_HTTPS):
            written, also = case.written("upstream", name), ""
            if settings.upstream.h2c:
                also = ": HTTP/2 over TLS is not spoken with the app, HTTP/1.1 over TLS is"
            fact = f"it would be ignored: {written} is not https, so nothing is encrypted or verified"
            yield case.problem(name, fact, f"write {written} with https://, or remove this{also}")
        return
    if settings.app.key is not None and settings.app.cert is None and case.has("upstream_key", "upstream_cert"):
        fix = f"set {case.written('upstream_cert', 'upstream_key')} too, or remove this"
        yield case.problem("upstream_key", "there is a key but no certificate", fix)
    is_nameless = any(isinstance(endpoint, UnixPath) for endpoint in settings.upstream.endpoints)
    if is_nameless and not settings.app.names and case.has("upstream_names"):
        fact = "a Unix socket has no name that its certificate could be compared with"
        yield case.problem("upstream_names", fact, "set it to a name that the certificate has", beside="upstream")


def _h2c_fits(case: Case) -> Iterator[Problem]:
    """As `config.clusters` has it of clusters in a list."""
    cluster = case.reading.clusters.get("upstream")
    if cluster is None or cluster.protocol is not UpstreamProtocol.H2C:
        return
    for part, fact, fix in refused_with_h2c(cluster):
        if case.has(f"upstream_{part}"):
            yield case.problem(f"upstream_{part}", fact, fix, beside="upstream")


# -- warnings ----------------------------------------------------------------------------------------------------


def doubts(loaded: Loaded, reading: Reading) -> Iterator[tuple[str, str]]:
    """What works but probably is not meant: a setting or place, and why."""
    for place, listener in reading.listeners.items():
        forwards = listener.cluster or any(isinstance(route.action, ToCluster) for route in _routes(listener))
        if not listener.tls and forwards and not hosts.is_local(listener.address.host):
            where = "listen_tls" if place == "listen" else _beside(place, "tls")
            yield where, f"{listener.address} is reachable from other machines, and nothing is encrypted on it"
    for place, listener in reading.listeners.items():
        if listener.proxy_protocol is ProxyProtocol.REQUIRED and not loaded.settings.downstream.trusted_proxies:
            where = "proxy_protocol" if place == "listen" else _beside(place, "proxy_protocol")
            yield where, "everybody's header is believed: name the networks of your balancers in trusted_proxies"
    raw = {listener.cluster for listener in reading.listeners.values() if listener.mode is ListenerMode.TCP}
    for place, cluster in reading.clusters.items():
        if cluster.name in raw and cluster.health_check is not None and cluster.health_check.path is not None:
            where = "upstream_health_check" if place == "upstream" else _beside(place, "health_check")
            yield where, "answers of HTTP are looked for, and its bytes are passed on in raw TCP mode: tcp may be meant"
    for network in loaded.settings.downstream.trusted_proxies:
        if network.endswith("/0"):
            yield "trusted_proxies", f"{network} is everybody: any client can say to be another"
    for place, cluster in reading.clusters.items():
        if cluster.tls is not None and not cluster.tls.verify:
            fact = "the certificate is not verified: requests are encrypted to whoever answers"
            yield _beside(place, "tls.verify"), fact
    h2c = next((each.name for each in reading.clusters.values() if each.protocol is UpstreamProtocol.H2C), None)
    if h2c is not None and loaded.settings.http2.enabled is Switch.OFF:
        yield "http2", f"{h2c} speaks HTTP/2 and clients cannot: no gRPC comes in"
    for place in reading.unused:
        yield place, "nothing leads to this cluster"


def unresolved(reading: Reading, resolve: Callable[[str], bool] | None) -> Iterator[tuple[str, str]]:
    """Places and hosts of endpoints that *resolve* finds no address of; each host is asked for once."""
    if resolve is None:
        return
    known: dict[str, bool] = {}
    for place, cluster in reading.clusters.items():
        for i, endpoint in enumerate(cluster.endpoints):
            address = endpoint.address
            if isinstance(address, UnixPath) or not is_name(address.host):
                continue
            if address.host not in known:
                known[address.host] = resolve(address.host)
            if not known[address.host]:
                yield (place if place == "upstream" else f"{place}[{i}]"), address.host


def _beside(place: str, key: str) -> str:
    """``listeners[0].address`` -> ``listeners[0].tls``."""
    return f"{place.rpartition('.')[0]}.{key}"


RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    ((), _listeners_differ),
    ((), _upstream_is_elsewhere),
    (("trusted_proxies", "proxy_protocol"), _trusted_proxies_are_named),
    (("proxy_protocol_missing", "proxy_protocol", "listeners"), _missing_header_is_decided_on),
    (("mode", "listeners"), _settings_are_about_requests),
    (("mode", "alpn", "listen_tls", "listeners"), _protocols_are_agreed_on),
    (("http2", "listen_tls", "listeners", "upstream", "clusters"), _http2_is_spoken),
    (("http2_stream_window", "http2_connection_window"), _windows_fit),
    (("listen_tls", "listeners"), _tls_is_spoken),
    (("client_cert", "client_rules", "listen_tls"), _certificates_can_be_shown),
    (("upstream",), _upstream_tls_fits),
    (("upstream",), _h2c_fits),
    ((), _upstream_resolves),
)
"""The settings that a rule cannot do without, and the rule."""
