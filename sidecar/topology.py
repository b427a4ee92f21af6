"""
What is listened on and where requests go, as one immutable value: listeners, virtual hosts, routes, clusters.

The terms are Envoy's. `config.topology` makes the value from settings, `policy.routes` compiles its routes, `proxy`
serves it. Nothing here is compiled, resolved or read from files; what is wrong with a value, `config` has said.
"""

from __future__ import annotations

import enum

import attrs

from sidecar.settings import (
    ClientCertMode,
    HostPort,
    ListenerMode,
    LoadBalancing,
    ProxyProtocol,
    ProxyProtocolOut,
    Source,
    UnixPath,
)
from sidecar.values import Value

Address = HostPort | UnixPath


# -- clusters ----------------------------------------------------------------------------------------------------


class Discovery(enum.Enum):
    """How the addresses of a cluster's endpoints become known."""

    STATIC = "static"  # addresses that need no resolver
    STRICT_DNS = "strict_dns"  # every address of every name is an endpoint
    LOGICAL_DNS = "logical_dns"  # one endpoint; each new connection goes to what its name says then


class UpstreamProtocol(enum.Enum):
    """What requests are sent in."""

    HTTP1 = "http/1.1"
    H2C = "h2c"  # HTTP/2 without TLS, from the first byte on (RFC 9113 section 3.3)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Endpoint(Value):
    """
    Attributes:
        address: Where it is; its host may be a name.
        weight: Its share of the requests, 1 to 128.
    """

    address: Address
    weight: int = 1


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HealthCheck(Value):
    """
    How endpoints are looked at when nobody asks for anything.

    Attributes:
        path: What is asked for with GET; None: a TCP connection that can be made is enough.
        host: Host field of the request; "": the name of the cluster.
        statuses: Ranges of status codes, each from and up to, of a healthy endpoint.
        interval, timeout: In seconds.
        jitter: Greatest part of the interval, 0 to 1, that is added to it at random.
        healthy_threshold, unhealthy_threshold: How many results in a row change what an endpoint is taken for. The
            first result of all counts at once.
    """

    path: str | None = None
    host: str = ""
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    interval: float = 5.0
    timeout: float = 2.0
    jitter: float = 0.1
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OutlierDetection(Value):
    """
    When an endpoint gets no requests for a while, for what became of those that it got.

    Attributes:
        consecutive_failures: Connections that failed or broke, and answers of 502, 503 and 504, in a row; 0: off.
        base_ejection_time: In seconds; the n-th ejection in a row lasts n times as long.
        max_ejection_time: In seconds.
        max_ejection_percent: Of all endpoints, how many may be ejected at once, at least one of several; never all.
    """

    consecutive_failures: int = 5
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 50


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClusterLimits(Value):
    """
    Beyond each of them, requests get 503.

    Attributes:
        connections: To all endpoints together.
        pending_requests: That wait for a connection.
        requests: Under way at once.
    """

    connections: int = 10_000
    pending_requests: int = 10_000
    requests: int = 100_000


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UpstreamTls(Value):
    """
    TLS to the endpoints of a cluster.

    Attributes:
        ca: What their certificates must come from; None: the CAs of this system.
        names: Of which their certificate must have one: a host name, an IP address, or a URI with its scheme. Empty:
            the host of the endpoint's address.
        verify: Whether it is verified at all. False encrypts to whoever answers.
        sni: Server name that is asked for; "": the first host name of *names*, or of the address; none for others.
        alpn: Protocols that are offered, the best first.
        cert, key: Ours, if they want to know who we are.
    """

    ca: Source | None = None
    names: tuple[str, ...] = ()
    verify: bool = True
    sni: str = ""
    alpn: tuple[str, ...] = ()
    cert: Source | None = None
    key: Source | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClusterSpec(Value):
    """
    An upstream service.

    Attributes:
        name: In routes, logs and metrics.
        dns_refresh: Seconds between two look-ups of names.
        connect_timeout: Seconds, TLS included; None: that of the settings.
        panic_threshold: If fewer per cent of the endpoints than this are healthy, all are used.
        proxy_protocol: What connections begin with.
        protocol: What requests are sent in. With H2C there is neither *tls* nor *proxy_protocol*, no path is asked for
            by *health_check*, and no bytes of a TCP listener are sent.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    discovery: Discovery = Discovery.STATIC
    dns_refresh: float = 5.0
    balancing: LoadBalancing = LoadBalancing.ROUND_ROBIN
    connect_timeout: float | None = None
    health_check: HealthCheck | None = None
    outlier_detection: OutlierDetection = OutlierDetection()
    limits: ClusterLimits = ClusterLimits()
    panic_threshold: int = 50
    tls: UpstreamTls | None = None
    proxy_protocol: ProxyProtocolOut = ProxyProtocolOut.OFF
    protocol: UpstreamProtocol = UpstreamProtocol.HTTP1


# -- routes ------------------------------------------------------------------------------------------------------


class PathMatch(enum.Enum):
    """How a path is compared. Paths are compared normalised, decoded and without their query (`wire.target`)."""

    PREFIX = "prefix"  # the path begins with it, wherever in a segment it ends, as Envoy's prefix
    EXACT = "path"
    REGEX = "regex"  # all of it


class HeaderMatch(enum.Enum):
    """How the value of a field is compared."""

    PRESENT = "present"
    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"  # all of it


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HeaderCondition(Value):
    """
    Attributes:
        name: In lower case.
        value: What it is compared with; "" for PRESENT.
        invert: True: the route is about requests that do not fit.
    """

    name: str
    match: HeaderMatch = HeaderMatch.PRESENT
    value: str = ""
    invert: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouteMatch(Value):
    """
    Which requests a route is about: those that fit all of it.

    Attributes:
        path: What the path is compared with.
        methods: In upper case; empty: all.
        headers: Each must fit.
    """

    kind: PathMatch = PathMatch.PREFIX
    path: str = "/"
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderCondition, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ToCluster(Value):
    """
    Send requests to a cluster.

    Attributes:
        cluster: Its name.
        prefix_rewrite: What stands in place of the prefix or path that matched; None: it stays.
        host_rewrite: The Host that the app is told; "": the client's.
        timeout: Seconds to the first byte of the response, 0: off; None: that of the settings.
        idle_timeout: Seconds of silence inside a response, 0: off; None: that of the settings.
    """

    cluster: str
    prefix_rewrite: str | None = None
    host_rewrite: str = ""
    timeout: float | None = None
    idle_timeout: float | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Redirect(Value):
    """
    Answer with another place to ask.

    Attributes:
        scheme, host: "": that of the request.
        port: None: that of the request if scheme and host stay as they are; else none, the scheme's own.
        path: In place of the whole path; "" leaves it.
        prefix_rewrite: In place of the prefix that matched; None leaves it.
        status: 301, 302, 303, 307 or 308.
        strip_query: Whether the query is left out.
    """

    scheme: str = ""
    host: str = ""
    port: int | None = None
    path: str = ""
    prefix_rewrite: str | None = None
    status: int = 301
    strip_query: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DirectResponse(Value):
    """
    Answer from here.

    Attributes:
        status: 200 to 599.
        body: Text; "" for none.
        content_type: Of the body.
    """

    status: int
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClientRule(Value):
    """
    What clients must show on a route, in place of what holds for the listener; see `policy.rules` for the words.

    Attributes:
        mode: Whether they must show a certificate.
        allow: An expression of `policy.matchers`; None: that of the settings; "": nobody.
        deny: Likewise; whom the settings deny is denied in any case.
    """

    mode: ClientCertMode = ClientCertMode.REQUIRED
    allow: str | None = None
    deny: str = ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Route(Value):
    """
    Attributes:
        name: In logs; by default its place, such as ``virtual_hosts[0].routes[2]``.
        client: None: what holds for the listener.
    """

    name: str
    match: RouteMatch
    action: ToCluster | Redirect | DirectResponse
    client: ClientRule | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VirtualHost(Value):
    """
    Routes for some hosts; the first that fits a request is its route.

    Attributes:
        domains: Host names in lower case, without port: whole; ``*.example.org`` (any name below it, and not it);
            ``example.*`` ; or ``*``. The whole name is looked for first, then the longest ``*.suffix``, then the
            longest ``prefix.*``, then ``*``: Envoy's order.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]


# -- listeners ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ListenerSpec(Value):
    """
    Attributes:
        tls: Whether TLS is spoken on it.
        mode: What is spoken inside.
        virtual_hosts: With HTTP.
        cluster: With TCP: where the bytes go; "" with HTTP.
        alpn: With TCP: protocols that are agreed to, the best first; empty: none is.
    """

    name: str
    address: HostPort
    tls: bool = True
    mode: ListenerMode = ListenerMode.HTTP
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    virtual_hosts: tuple[VirtualHost, ...] = ()
    cluster: str = ""
    alpn: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Topology(Value):
    """Everything; every cluster that is named in it is in it, each name once."""

    listeners: tuple[ListenerSpec, ...]
    clusters: tuple[ClusterSpec, ...]
