"""
Every setting, defined once: name, type, unit, default, help. Reads nothing.

Flags, environment variables, YAML keys, `sidecar config` and the README table derive from these classes:
the setting named ``tls_cert`` is ``--tls-cert``, ``SIDECAR_TLS_CERT`` and ``tls_cert:`` (or ``tls: {cert: …}``).
Modules receive the narrow class they need, never the whole of `Settings`.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, NewType

import attrs

from sidecar.values import Value

Seconds = NewType("Seconds", float)
"""A span of time. Written as ``10``, ``10s``, ``500ms``, ``2m`` or ``1h``."""

ByteCount = NewType("ByteCount", int)
"""A size in bytes. Written as ``61440``, ``60KiB`` or ``1MiB``."""

MatcherText = NewType("MatcherText", str)
"""An expression of `policy.matchers` that compiles; empty: none is given."""

DenyText = NewType("DenyText", str)
"""The same for a list that refuses."""

RulesText = NewType("RulesText", str)
"""A JSON list that `policy.rules` may read; empty: none is given."""

PathPatterns = NewType("PathPatterns", "tuple[str, ...]")
"""Patterns of `policy.conditions`."""

ListenersText = NewType("ListenersText", str)
"""A JSON list of listeners, see `config.topology`; empty: none is given."""

VirtualHostsText = NewType("VirtualHostsText", str)
"""The same of virtual hosts."""

ClustersText = NewType("ClustersText", str)
"""The same of clusters."""

Networks = NewType("Networks", "tuple[str, ...]")
"""IP networks in CIDR notation, without host bits, such as ``10.0.0.0/8``."""

TlsNames = NewType("TlsNames", "tuple[str, ...]")
"""Host names, IP addresses or URIs of which a server's certificate must have one."""

AlpnNames = NewType("AlpnNames", "tuple[str, ...]")
"""Names of protocols (RFC 7301), the best first: visible ASCII characters without commas, at most 255 each."""

HealthCheckText = NewType("HealthCheckText", str)
"""``tcp``, or a path that is asked for; empty: none is given."""

ServerName = NewType("ServerName", str)
"""A host name in lower case, as in SNI; empty: none is given."""

Authority = NewType("Authority", str)
"""What stands in a Host field: a host, perhaps with a port; empty: none is given."""


@attrs.frozen(eq=False, repr=False)
class HostPort(Value):
    """A TCP address. `host` is an IP address or a name, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(eq=False, repr=False)
class UnixPath(Value):
    """A Unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen(eq=False, repr=False)
class Inline(Value):
    """Key material that is itself the value of a setting, instead of the file that holds it. It is never shown."""

    text: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return "the value given"


@attrs.frozen(eq=False, repr=False)
class Upstream(Value):
    """
    Where the app is, in the small form.

    Attributes:
        endpoints: One or more, all alike.
        tls: Whether they speak TLS.
        h2c: Whether they speak HTTP/2 without TLS, from the first byte on; else it is HTTP/1.1. Never with *tls*.
    """

    endpoints: tuple[HostPort | UnixPath, ...]
    tls: bool = False
    h2c: bool = False

    def __str__(self) -> str:
        return ",".join(map(str, self.endpoints))


Source = Path | Inline
"""Where key material is: a file or directory, or in the setting itself."""


@attrs.frozen(eq=False, repr=False)
class Password(Value):
    """What opens an encrypted key: the content of a file, or the value of the setting itself. It is never shown."""

    source: Source


class ClientCertMode(enum.Enum):
    """Whether a client certificate is asked for, and must be there."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class CrlScope(enum.Enum):
    """Which certificates of a client's chain must not be revoked."""

    LEAF = "leaf"
    CHAIN = "chain"


class CrlPolicy(enum.Enum):
    """What becomes of clients whose revocation list is long out of date."""

    FAIL = "fail"
    WARN = "warn"


class ClientRefusal(enum.Enum):
    """How a client without an accepted certificate is refused."""

    HTTP = "http"
    HANDSHAKE = "handshake"


class IdentityDialect(enum.Enum):
    """Names and forms of the fields that tell an app who the client is."""

    XFCC = "xfcc"
    CLIENT_CERT = "client-cert"
    X_SSL = "x-ssl"
    X_AMZN = "x-amzn"
    TLS = "tls"


class TlsPolicy(enum.Enum):
    """Named sets of protocol versions and cipher suites."""

    INTERMEDIATE = "intermediate"
    MODERN = "modern"


class Switch(enum.Enum):
    OFF = "off"
    ON = "on"


class UnderscoreHeaders(enum.Enum):
    """What becomes of request fields with an underscore in their name, which an app may take for a hyphen."""

    DROP = "drop"
    REJECT = "reject"
    ALLOW = "allow"


class ListenerMode(enum.Enum):
    """What is spoken inside TLS."""

    HTTP = "http"
    TCP = "tcp"


class ProxyProtocol(enum.Enum):
    """Whether connections begin with a header of the PROXY protocol."""

    OFF = "off"
    REQUIRED = "required"
    TRUSTED = "trusted"


class ProxyProtocolMissing(enum.Enum):
    """What becomes of connections of trusted proxies without a PROXY header."""

    SERVE = "serve"
    REFUSE = "refuse"


class ProxyProtocolOut(enum.Enum):
    """What connections to the app begin with."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class LoadBalancing(enum.Enum):
    """How an endpoint of the upstream is chosen."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"


class AccessLogFormat(enum.Enum):
    JSON = "json"
    TEXT = "text"
    OFF = "off"


class LogLevel(enum.Enum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


WAIT = (0.001, 86_400.0)
"""Bounds of a timeout, in seconds: one millisecond to one day."""


def setting(
    name: str,
    default: Any,
    help: str,
    unit: str | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    zero_is_off: bool = False,
    secret: bool = False,
) -> Any:
    """
    Declare one setting.

    Args:
        name: Its one public name in lower case, e.g. ``tls_cert``.
        default: A value of the field's type.
        help: One sentence for ``--help`` and the README.
        unit: ``seconds`` or ``bytes`` for quantities.
        bounds: The least and the greatest value that is accepted.
        zero_is_off: 0 is accepted although it is below the bounds, and turns the thing off.
        secret: The value is never printed.
    """
    metadata = {
        "name": name,
        "help": help,
        "unit": unit,
        "bounds": bounds,
        "zero_is_off": zero_is_off,
        "secret": secret,
    }
    return attrs.field(default=default, metadata=metadata)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TlsSettings(Value):
    """The server side of TLS."""

    cert: tuple[Source, ...] = setting(
        "tls_cert",
        (),
        "certificate with its chain: a file or directory (tls.crt, tls.key), several of them comma-separated for "
        "several names, or the value itself (PEM, base64, PKCS#12 in base64, JSON); none: one is made in memory",
    )
    key: tuple[Source, ...] = setting(
        "tls_key",
        (),
        "private key: a file, several in the order of tls_cert, or the value itself; none: looked for beside or inside "
        "tls_cert",
    )
    key_password: Password | None = setting(
        "tls_key_password",
        None,
        "password of an encrypted key or PKCS#12, also one given as client_ca: a file whose path begins with / or ./, "
        "or the password itself",
        secret=True,
    )
    names: tuple[str, ...] = setting(
        "tls_names", (), "more host names or IP addresses for the certificate made at start, comma-separated"
    )
    policy: TlsPolicy = setting(
        "tls_policy",
        TlsPolicy.INTERMEDIATE,
        "intermediate: TLS 1.2 and 1.3 with ECDHE AEAD suites; modern: TLS 1.3 only; the names of AWS policies with "
        "the same meaning are taken too, such as ELBSecurityPolicy-TLS13-1-2-Res-2021-06",
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClientSettings(Value):
    """Client certificates (mutual TLS)."""

    cert: ClientCertMode = setting(
        "client_cert",
        ClientCertMode.NONE,
        "whether clients are asked for a certificate: none, optional or required (they must show one)",
    )
    ca: Source | None = setting(
        "client_ca",
        None,
        "CAs that client certificates must come from: a PEM bundle, a directory with ca.crt, or the value itself",
    )
    crl: Source | None = setting(
        "client_crl",
        None,
        "revocation lists of those CAs: a file or directory (ca.crl), or the value itself; a certificate that none of "
        "them speaks of is refused",
    )
    crl_scope: CrlScope = setting(
        "client_crl_scope",
        CrlScope.LEAF,
        "whose list there must be: leaf: the issuer's; chain: every CA's up to the root",
    )
    crl_policy: CrlPolicy = setting(
        "crl_policy",
        CrlPolicy.FAIL,
        "a revocation list over its date by more than 24 h: fail (its clients get 403) or warn (it is used on)",
    )
    depth: int = setting(
        "client_depth", 10, "CA certificates between a client's certificate and its root", bounds=(0, 100)
    )
    refusal: ClientRefusal = setting(
        "client_refusal",
        ClientRefusal.HTTP,
        "http: clients without an accepted certificate are told why with 400 or 403; handshake: they get a TLS alert, "
        "as they always do with mode=tcp",
    )
    exempt: PathPatterns = setting(
        "client_cert_exempt",
        PathPatterns(()),
        "paths that anybody may ask for, such as /service,/healthz: exactly these, or with /* what is below",
    )
    allow: MatcherText = setting(
        "client_allow",
        MatcherText(""),
        "who may come in, by what their certificate says, such as uri=spiffe://prod/ns/*/sa/web, ou=payments; none: "
        "every verified client",
    )
    deny: DenyText = setting("client_deny", DenyText(""), "who may not, whatever client_allow says")
    rules: RulesText = setting(
        "client_rules",
        RulesText(""),
        "rules by path, method and host, in order, the first match decides; a list in the YAML file, or JSON",
    )
    identity_headers: tuple[IdentityDialect, ...] = setting(
        "identity_headers",
        (),
        "how the app is told who the client is, comma-separated: xfcc, client-cert, x-ssl, x-amzn, tls",
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DownstreamSettings(Value):
    """Listeners, and proxies in front of them."""

    mode: ListenerMode = setting(
        "mode",
        ListenerMode.HTTP,
        "http; or tcp: whatever is inside TLS is passed on byte for byte, for databases and MQTT",
    )
    tls: Switch = setting(
        "listen_tls", Switch.ON, "off: plain HTTP or TCP on the listener, for an app whose requests go out with TLS"
    )
    alpn: AlpnNames = setting(
        "alpn",
        AlpnNames(()),
        "with mode=tcp: protocols that clients may agree on (ALPN), the best first, such as h2, comma-separated",
    )
    http_redirect: HostPort | None = setting(
        "http_redirect", None, "a plain-HTTP listener that redirects to https, HOST:PORT, or off"
    )
    trusted_proxies: Networks = setting(
        "trusted_proxies",
        Networks(()),
        "networks whose PROXY headers, X-Forwarded-*, Forwarded, X-Request-Id and traceparent are believed, such as "
        "10.0.0.0/8, comma-separated; everybody else's are replaced",
    )
    proxy_protocol: ProxyProtocol = setting(
        "proxy_protocol",
        ProxyProtocol.OFF,
        "PROXY protocol v1 and v2 of a balancer in front: off; required: every connection begins with it; trusted: "
        "those of trusted_proxies may, and those of others must not",
    )
    proxy_protocol_missing: ProxyProtocolMissing = setting(
        "proxy_protocol_missing",
        ProxyProtocolMissing.SERVE,
        "with proxy_protocol=trusted, connections of trusted proxies without a header: serve (health checks) or refuse",
    )
    forwarded: Switch = setting("forwarded", Switch.OFF, "on: the app gets Forwarded (RFC 7239) too")
    listeners: ListenersText = setting(
        "listeners", ListenersText(""), "listeners in place of listen: a list in the YAML file, or JSON"
    )
    virtual_hosts: VirtualHostsText = setting(
        "virtual_hosts",
        VirtualHostsText(""),
        "which requests go where: virtual hosts with routes; a list in the YAML file, or JSON",
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UpstreamSettings(Value):
    """The app, or another service behind us."""

    balancing: LoadBalancing = setting(
        "upstream_balancing", LoadBalancing.ROUND_ROBIN, "with several endpoints: round_robin or least_request"
    )
    health_check: HealthCheckText = setting(
        "upstream_health_check",
        HealthCheckText(""),
        "look at the endpoints of the upstream all the time: a path that is asked for, such as /healthz, or tcp; none: "
        "only at what becomes of requests",
    )
    ca: Source | None = setting(
        "upstream_ca",
        None,
        "with an https upstream: CAs that its certificate must come from; none: those of the system",
    )
    names: TlsNames = setting(
        "upstream_names",
        TlsNames(()),
        "with an https upstream: names of which its certificate must have one, such as app.internal or "
        "spiffe://prod/ns/web, comma-separated; none: the host it is reached by",
    )
    sni: ServerName = setting(
        "upstream_sni", ServerName(""), "with an https upstream: server name to ask for (SNI); none: its host name"
    )
    cert: Source | None = setting(
        "upstream_cert", None, "with an https upstream that wants one: our client certificate with its chain"
    )
    key: Source | None = setting(
        "upstream_key", None, "its private key; none: looked for beside or inside upstream_cert"
    )
    host: Authority = setting(
        "upstream_host", Authority(""), "Host that the upstream is told, HOST or HOST:PORT; none: what the client said"
    )
    proxy_protocol: ProxyProtocolOut = setting(
        "upstream_proxy_protocol",
        ProxyProtocolOut.OFF,
        "PROXY protocol header that connections to the app begin with: off, v1 or v2 (with what TLS found out)",
    )
    clusters: ClustersText = setting(
        "clusters", ClustersText(""), "named upstream services for routes; a list in the YAML file, or JSON"
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Timeouts(Value):
    """Every wait, in seconds. 0 turns off only those that say so."""

    handshake: Seconds = setting(
        "handshake_timeout", Seconds(10.0), "TLS handshake, from accept", "seconds", bounds=WAIT
    )
    header: Seconds = setting(
        "header_timeout", Seconds(10.0), "request head, from its first byte to its last", "seconds", bounds=WAIT
    )
    idle: Seconds = setting(
        "idle_timeout",
        Seconds(75.0),
        "downstream keep-alive between requests; longer than the 60 s of an ALB",
        "seconds",
        bounds=WAIT,
    )
    body: Seconds = setting(
        "body_timeout",
        Seconds(60.0),
        "a client that neither sends the rest of its request body nor takes the response",
        "seconds",
        bounds=WAIT,
    )
    connect: Seconds = setting("connect_timeout", Seconds(2.0), "connection to the app", "seconds", bounds=WAIT)
    upstream: Seconds = setting(
        "upstream_timeout",
        Seconds(60.0),
        "first byte of the app's response, after the request was sent; 0: off",
        "seconds",
        bounds=WAIT,
        zero_is_off=True,
    )
    stream: Seconds = setting(
        "stream_timeout",
        Seconds(300.0),
        "silence of the app inside a response body, and of both sides of an upgraded connection; 0: off",
        "seconds",
        bounds=WAIT,
        zero_is_off=True,
    )
    tcp_idle: Seconds = setting(
        "tcp_idle_timeout",
        Seconds(3600.0),
        "with mode=tcp: silence of both sides; 0: off",
        "seconds",
        bounds=WAIT,
        zero_is_off=True,
    )
    drain: Seconds = setting(
        "drain_timeout", Seconds(20.0), "time to finish requests in flight after SIGTERM", "seconds", bounds=WAIT
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Limits(Value):
    """Every bound on what a peer can make us hold."""

    connections: int = setting("max_connections", 10_000, "downstream connections open at once", bounds=(1, 1_000_000))
    upstream_connections: int = setting(
        "max_upstream_connections",
        10_000,
        "connections to the app open at once; requests that would need one more get 503",
        bounds=(1, 1_000_000),
    )
    header_bytes: ByteCount = setting(
        "max_header_bytes",
        ByteCount(60 * 1024),
        "head of a request or response, start line included",
        "bytes",
        bounds=(1024, 1024 * 1024),
    )
    headers: int = setting("max_headers", 100, "fields in the head of a request or response", bounds=(1, 10_000))
    body_bytes: ByteCount = setting(
        "max_body",
        ByteCount(0),
        "body of a request; longer ones get 413; 0: off",
        "bytes",
        bounds=(1, 1024**4),
        zero_is_off=True,
    )
    requests_per_connection: int = setting(
        "max_requests_per_connection",
        0,
        "requests on one downstream connection, which then ends, by Connection: close or GOAWAY; 0: off",
        bounds=(1, 1_000_000_000),
        zero_is_off=True,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpSettings(Value):
    """How strictly requests are read, beyond HTTP/1.1 itself."""

    underscore_headers: UnderscoreHeaders = setting(
        "underscore_headers",
        UnderscoreHeaders.DROP,
        "request fields with an underscore in their name, which many apps cannot tell from a hyphen: drop, reject "
        "(400) or allow",
    )
    normalize_path: Switch = setting(
        "normalize_path",
        Switch.OFF,
        "on: the app gets the path with dot segments resolved, slashes merged and needless encodings undone, and what "
        "could be read in two ways is refused (400); off: the path as it came",
    )


WINDOW = (65_535, 2**31 - 1)
"""Bounds of a window of HTTP/2, in bytes (RFC 9113 section 6.9.2)."""

BURST = (1, 1_000_000)
"""Bounds of a number of frames."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Http2Settings(Value):
    """
    HTTP/2, with clients and with apps that speak h2c.

    What good peers send now and then is allowed in a number at once, and again with time and with every answer: a
    setting is that number, and what comes again is in proportion to it (`wire.h2limits.Allowance`).
    """

    enabled: Switch = setting(
        "http2", Switch.ON, "on: clients may agree on HTTP/2 (ALPN h2, http/1.1); off: on HTTP/1.1 alone"
    )
    streams: int = setting(
        "http2_max_streams",
        100,
        "requests at a time on one HTTP/2 connection; further ones may be sent again",
        bounds=(1, 1000),
    )
    stream_window: ByteCount = setting(
        "http2_stream_window",
        ByteCount(64 * 1024),
        "bytes of a request body that an HTTP/2 client may send ahead of the app",
        "bytes",
        bounds=WINDOW,
    )
    connection_window: ByteCount = setting(
        "http2_connection_window",
        ByteCount(1024 * 1024),
        "the same for all requests of a connection together; at least http2_stream_window",
        "bytes",
        bounds=WINDOW,
    )
    continuations: int = setting(
        "http2_max_continuations", 16, "CONTINUATION frames in a header block (CVE-2024-27316)", bounds=(0, 1000)
    )
    control_bytes: ByteCount = setting(
        "http2_max_control_bytes",
        ByteCount(16 * 1024),
        "our replies to control frames that a client has not taken (CVE-2019-9512, -9515)",
        "bytes",
        bounds=(256, 16 * 1024 * 1024),
    )
    resets: int = setting(
        "http2_max_resets",
        200,
        "requests at once that a client takes back before their answer, or that it makes us reset (CVE-2023-44487, "
        "CVE-2025-8671)",
        bounds=BURST,
    )
    settings_frames: int = setting("http2_max_settings", 20, "SETTINGS frames at once (CVE-2019-9515)", bounds=BURST)
    pings: int = setting("http2_max_pings", 100, "PING frames at once (CVE-2019-9512)", bounds=BURST)
    priorities: int = setting("http2_max_priorities", 200, "PRIORITY frames at once (CVE-2019-9513)", bounds=BURST)
    window_updates: int = setting(
        "http2_max_window_updates", 1000, "WINDOW_UPDATE frames at once (CVE-2019-9511, -9517)", bounds=BURST
    )
    empty_data: int = setting(
        "http2_max_empty_data", 100, "DATA frames without content at once (CVE-2019-9518)", bounds=BURST
    )
    padded: int = setting(
        "http2_max_padded_data", 200, "DATA frames with more padding than content at once", bounds=BURST
    )
    unknown: int = setting(
        "http2_max_unknown_frames", 100, "frames of unknown types at once, such as PRIORITY_UPDATE", bounds=BURST
    )
    late: int = setting("http2_max_late_frames", 20_000, "frames at once for requests that are over", bounds=BURST)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LifeSettings(Value):
    """Start, reload and stop."""

    wait: Seconds = setting(
        "wait",
        Seconds(10.0),
        "at start, for certificates and other files that are not there yet; 0: off",
        "seconds",
        bounds=WAIT,
        zero_is_off=True,
    )
    reload_interval: Seconds = setting(
        "reload_interval",
        Seconds(1.0),
        "between two looks whether certificates, keys, CAs, revocation lists or passwords have changed; 0: off",
        "seconds",
        bounds=(0.1, 86_400.0),
        zero_is_off=True,
    )
    recheck: Switch = setting(
        "recheck",
        Switch.ON,
        "on: clients of open connections are judged again when trust or rules change, and when their certificate or a "
        "revocation list runs out",
    )
    lame_duck: Seconds | None = setting(
        "lame_duck",
        None,
        "after SIGTERM, time in which readiness fails but everything is served, so that balancers can take notice; "
        "part of drain_timeout; auto: 5s in a container, at most half of drain_timeout, else 0",
        "seconds",
        bounds=WAIT,
        zero_is_off=True,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogSettings(Value):
    """What is written where."""

    access: AccessLogFormat = setting(
        "access_log", AccessLogFormat.JSON, "access log on standard output: json, text or off"
    )
    format: str = setting(
        "access_log_format",
        "",
        "format of the text access log, with Envoy's command operators such as %REQ(:PATH)% and %RESPONSE_CODE%; none: "
        "its own",
    )
    level: LogLevel = setting("log_level", LogLevel.INFO, "program log on standard error: debug, info, warn, error")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Settings(Value):
    """Everything, as one immutable value."""

    listen: HostPort = setting("listen", HostPort("0.0.0.0", 443), "TLS listener, HOST:PORT")
    upstream: Upstream = setting(
        "upstream",
        Upstream((HostPort("127.0.0.1", 8080),)),
        "the app: http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT (HTTP/2 without TLS, for gRPC), unix:/path, "
        "https+unix:/path or h2c+unix:/path; several are comma-separated",
    )
    admin: HostPort | None = setting(
        "admin", HostPort("127.0.0.1", 8081), "admin listener, HOST:PORT, or off; it has no authentication"
    )
    health: HostPort | None = setting(
        "health",
        None,
        "listener for probes of kubelets and load balancers, HOST:PORT, or off: /live and /ready over plain HTTP, "
        "nothing else",
    )
    workers: int | None = setting(
        "workers",
        None,
        "processes that serve; auto: the CPU quota of the container, rounded down, at most one for each 128 MiB of its "
        "memory limit, and 1 without a quota",
        bounds=(1, 256),
    )
    downstream: DownstreamSettings = DownstreamSettings()
    tls: TlsSettings = TlsSettings()
    client: ClientSettings = ClientSettings()
    app: UpstreamSettings = UpstreamSettings()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    http: HttpSettings = HttpSettings()
    http2: Http2Settings = Http2Settings()
    life: LifeSettings = LifeSettings()
    log: LogSettings = LogSettings()
