"""
Clusters as an operator writes them -> `topology.ClusterSpec`: those of ``clusters``, and the one of ``upstream``.

    clusters:
      - name: shop
        endpoints: [10.0.0.1:8080, {address: app.internal:8080, weight: 2}]
        health_check: /healthz
        tls: {names: [app.internal]}

Nothing is resolved or opened here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sidecar.config import addresses
from sidecar.config.entries import (
    Entry,
    Reader,
    count_within,
    parse_part,
    parse_statuses,
    parse_wait,
)
from sidecar.config.units import UnitError, parse_source, parse_word, quoted
from sidecar.settings import (
    Authority,
    ClustersText,
    HealthCheckText,
    HostPort,
    Inline,
    LoadBalancing,
    ProxyProtocolOut,
    Seconds,
    ServerName,
    Settings,
    Source,
    UnixPath,
)
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

APP = "app"
"""The cluster that the settings ``upstream`` and ``upstream_*`` describe."""

MOST_CLUSTERS = 256
MOST_STATUSES = 32
HEAVIEST = 128
"""Weight of an endpoint; Envoy's limit."""

_CLUSTER = (
    *("name", "endpoints", "discovery", "dns_refresh", "balancing", "connect_timeout", "health_check"),
    *("outlier_detection", "limits", "panic_threshold", "tls", "proxy_protocol", "protocol"),
)
_HEALTH_CHECK = (
    *("path", "host", "statuses", "interval", "timeout", "jitter", "healthy_threshold", "unhealthy_threshold"),
)
_OUTLIER_DETECTION = ("consecutive_failures", "base_ejection_time", "max_ejection_time", "max_ejection_percent")
_LIMITS = ("connections", "pending_requests", "requests")
_TLS = ("ca", "names", "verify", "sni", "alpn", "cert", "key")

_USUAL = ClusterSpec(name=APP, endpoints=())

_parse_percent = count_within(0, 100)
_parse_threshold = count_within(1, 100)
_parse_limit = count_within(1, 1_000_000)


def app_cluster(settings: Settings) -> ClusterSpec:
    """The cluster of the settings ``upstream`` and ``upstream_*``."""
    app, upstream = settings.app, settings.upstream
    probe = app.health_check
    tls = UpstreamTls(ca=app.ca, names=app.names, sni=app.sni, cert=app.cert, key=app.key)
    return ClusterSpec(
        name=APP,
        endpoints=tuple(Endpoint(address=address) for address in upstream.endpoints),
        discovery=_usual_discovery(upstream.endpoints),
        balancing=app.balancing,
        health_check=HealthCheck(path=None if probe == "tcp" else probe) if probe else None,
        limits=_usual_limits(settings),
        tls=tls if upstream.tls else None,
        proxy_protocol=app.proxy_protocol,
        protocol=UpstreamProtocol.H2C if upstream.h2c else UpstreamProtocol.HTTP1,
    )


def read_clusters(reader: Reader, text: ClustersText) -> list[tuple[str, str, ClusterSpec | None]]:
    """
    Read the setting ``clusters``.

    Returns:
        Place, name and value of each; "" for a name that is none, None for a value with problems.
    """
    found: list[tuple[str, str, ClusterSpec | None]] = []
    places: dict[str, str] = {}
    for place, value in reader.listed("clusters", text, MOST_CLUSTERS):
        entry = reader.entry(place, value, _CLUSTER)
        entry.require("name", "write name: NAME, by which routes call it")
        name = entry.name()
        if name in places:
            entry.refuse("name", f"{places[name]} is called {name} already", "call one of them otherwise")
        if name:
            places.setdefault(name, place)
        cluster = _cluster(entry, name)
        found.append((place, name, cluster if entry.is_sound else None))
    return found


def _cluster(entry: Entry, name: str) -> ClusterSpec:
    endpoints = _endpoints(entry)
    hosts = tuple(endpoint.address for endpoint in endpoints)
    tls = _tls(entry)
    if tls is not None and tls.verify and not tls.names and any(isinstance(host, UnixPath) for host in hosts):
        fact = "a Unix socket has no name that its certificate could be compared with"
        entry.refuse("tls", fact, "write names: [NAME] into it")
    cluster = ClusterSpec(
        name=name,
        endpoints=endpoints,
        discovery=_discovery(entry, hosts),
        dns_refresh=entry.get("dns_refresh", parse_wait, Seconds(_USUAL.dns_refresh)),
        balancing=entry.get("balancing", partial(parse_word, LoadBalancing), _USUAL.balancing),
        connect_timeout=entry.get("connect_timeout", parse_wait, None),
        health_check=_health_check(entry),
        outlier_detection=_outlier_detection(entry),
        limits=_limits(entry),
        panic_threshold=entry.get("panic_threshold", _parse_percent, _USUAL.panic_threshold),
        tls=tls,
        proxy_protocol=entry.get("proxy_protocol", partial(parse_word, ProxyProtocolOut), _USUAL.proxy_protocol),
        protocol=entry.get("protocol", partial(parse_word, UpstreamProtocol), _USUAL.protocol),
    )
    if cluster.protocol is UpstreamProtocol.H2C:
        for part, fact, fix in refused_with_h2c(cluster):
            entry.refuse(part, fact, fix)
    return cluster


def refused_with_h2c(cluster: ClusterSpec) -> Iterator[tuple[str, str, str]]:
    """What a cluster that is spoken to in h2c cannot have: ``tls`` and the like, the fact, and what to do."""
    if cluster.tls is not None:
        fact = "h2c is HTTP/2 without TLS; over TLS, requests are sent in HTTP/1.1 alone"
        yield "tls", fact, "remove it, or write protocol: http/1.1"
    if cluster.proxy_protocol is not ProxyProtocolOut.OFF:
        fact = f"{cluster.proxy_protocol.value}: a header is about one client, and connections with h2c are of many"
        yield "proxy_protocol", fact, "remove it: X-Forwarded-For says who asks"
    if cluster.health_check is not None and cluster.health_check.path is not None:
        fact = f"{quoted(cluster.health_check.path)} would be asked for in HTTP/1.1, and the cluster speaks h2c"
        yield "health_check", fact, "write tcp"


# -- endpoints ---------------------------------------------------------------------------------------------------


def _endpoints(entry: Entry) -> tuple[Endpoint, ...]:
    entry.require("endpoints", "write endpoints: [HOST:PORT]")
    found: dict[str, Endpoint] = {}
    for place, value in entry.items("endpoints", addresses.MOST_ENDPOINTS):
        address, weight = _endpoint(entry.reader, place, value)
        if address is None:
            continue
        plain = addresses.plain_address(address)
        if plain in found:
            entry.reader.refuse(place, f"{address} stands in the list already", "keep one of them, or give it a weight")
        found[plain] = Endpoint(address=address, weight=weight)
    return tuple(found.values())


def _endpoint(reader: Reader, place: str, value: object) -> tuple[HostPort | UnixPath | None, int]:
    if not isinstance(value, dict):
        return reader.value(place, value, addresses.parse_endpoint, None), 1
    own = reader.entry(place, value, ("address", "weight"))
    own.require("address", "write address: HOST:PORT")
    return own.get("address", addresses.parse_endpoint, None), own.get("weight", count_within(1, HEAVIEST), 1)


def _discovery(entry: Entry, hosts: tuple[HostPort | UnixPath, ...]) -> Discovery:
    usual = _usual_discovery(hosts)
    discovery = entry.get("discovery", partial(parse_word, Discovery), usual)
    if discovery is Discovery.STATIC and usual is not Discovery.STATIC:
        name = next(str(host) for host in hosts if _is_named(host))
        fact = f"static: {name} is a name, which has to be resolved"
        entry.refuse("discovery", fact, "write strict_dns, or addresses")
    if discovery is Discovery.LOGICAL_DNS and len(hosts) > 1:
        entry.refuse("discovery", f"logical_dns: there are {len(hosts)} endpoints", "write strict_dns, or one endpoint")
    if discovery is Discovery.STATIC and entry.has("dns_refresh"):
        entry.refuse("dns_refresh", "it would be ignored: no endpoint has a name", "remove it")
    return discovery


def _usual_discovery(hosts: tuple[HostPort | UnixPath, ...]) -> Discovery:
    return Discovery.STRICT_DNS if any(map(_is_named, hosts)) else Discovery.STATIC


def _is_named(host: HostPort | UnixPath) -> bool:
    return isinstance(host, HostPort) and addresses.is_name(host.host)


# -- health ------------------------------------------------------------------------------------------------------


def _health_check(entry: Entry) -> HealthCheck | None:
    if not isinstance(entry.values.get("health_check"), dict):
        word = entry.get("health_check", addresses.parse_health_check, HealthCheckText(""))
        return HealthCheck(path=None if word == "tcp" else word) if word else None
    own = entry.inner("health_check", _HEALTH_CHECK)
    usual = HealthCheck()
    path = own.get("path", addresses.parse_health_check, None)
    if path == "tcp":
        path = None
    for key in own.given("host", "statuses") if path is None else ():
        fix = "write path: /PATH for a check with HTTP, or remove this"
        own.refuse(key, "it would be ignored: without a path, a connection is all that is asked for", fix)
    interval = own.get("interval", parse_wait, Seconds(usual.interval))
    return HealthCheck(
        path=path or None,
        host=own.get("host", addresses.parse_authority, Authority("")),
        statuses=own.several("statuses", parse_statuses, MOST_STATUSES) or usual.statuses,
        interval=interval,
        timeout=own.get("timeout", parse_wait, Seconds(usual.timeout)),
        jitter=own.get("jitter", parse_part, usual.jitter),
        healthy_threshold=own.get("healthy_threshold", _parse_threshold, usual.healthy_threshold),
        unhealthy_threshold=own.get("unhealthy_threshold", _parse_threshold, usual.unhealthy_threshold),
    )


def _outlier_detection(entry: Entry) -> OutlierDetection:
    if entry.is_word("outlier_detection", "off"):
        return OutlierDetection(consecutive_failures=0)
    own = entry.inner("outlier_detection", _OUTLIER_DETECTION)
    usual = OutlierDetection()
    base = own.get("base_ejection_time", parse_wait, Seconds(usual.base_ejection_time))
    longest = own.get("max_ejection_time", parse_wait, Seconds(max(usual.max_ejection_time, base)))
    if longest < base:
        fact = f"{longest:g} s is less than base_ejection_time, {base:g} s"
        own.refuse("max_ejection_time", fact, "write a longer time")
    return OutlierDetection(
        consecutive_failures=own.get("consecutive_failures", count_within(0, 1000), usual.consecutive_failures),
        base_ejection_time=base,
        max_ejection_time=longest,
        max_ejection_percent=own.get("max_ejection_percent", _parse_percent, usual.max_ejection_percent),
    )


def _limits(entry: Entry) -> ClusterLimits:
    own = entry.inner("limits", _LIMITS)
    usual = _usual_limits(entry.reader.loaded.settings)
    return ClusterLimits(
        connections=own.get("connections", _parse_limit, usual.connections),
        pending_requests=own.get("pending_requests", _parse_limit, usual.pending_requests),
        requests=own.get("requests", _parse_limit, usual.requests),
    )


def _usual_limits(settings: Settings) -> ClusterLimits:
    return ClusterLimits(connections=settings.limits.upstream_connections)


# -- TLS ---------------------------------------------------------------------------------------------------------


def _tls(entry: Entry) -> UpstreamTls | None:
    if not entry.has("tls") or entry.is_word("tls", "off"):
        return None
    if entry.is_word("tls", "on"):
        return UpstreamTls()
    own = entry.inner("tls", _TLS)
    verify = own.is_on("verify", default=True)
    for key in own.given("ca", "names") if not verify else ():
        own.refuse(key, "it would be ignored: verify is off", "remove one of the two; to be sure who answers, verify")
    if own.has("key") and not own.has("cert"):
        own.refuse("key", "there is a key but no certificate", "write cert: PATH too, or remove this")
    return UpstreamTls(
        ca=own.get("ca", parse_source, None),
        names=own.several("names", addresses.parse_tls_name, addresses.MOST_TLS_NAMES),
        verify=verify,
        sni=own.get("sni", addresses.parse_server_name, ServerName("")),
        alpn=own.several("alpn", _parse_protocol, addresses.MOST_ALPN_NAMES),
        cert=own.get("cert", _parse_file, None),
        key=own.get("key", _parse_file, None),
    )


def _parse_file(text: str) -> Source | None:
    """A path. Such lists are shown whole, at /config and by ``sidecar config``, so no key may stand in one."""
    source = parse_source(text)
    if isinstance(source, Inline):
        raise UnitError("this is not a path, and what stands in a list of clusters is shown", "write it to a file")
    return source


def _parse_protocol(text: str) -> str:
    (name,) = addresses.parse_alpn(text) or ("",)
    return name
