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

Seconds = NewType("Seconds", float)
"""A span of time. Written as ``10``, ``10s``, ``500ms``, ``2m`` or ``1h``."""

ByteCount = NewType("ByteCount", int)
"""A size in bytes. Written as ``61440``, ``60KiB`` or ``1MiB``."""


@attrs.frozen
class HostPort:
    """A TCP address. `host` is an IP address or a name, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixPath:
    """A Unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class Inline:
    """Key material that is itself the value of a setting, instead of the file that holds it. It is never shown."""

    text: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return "the value given"


Source = Path | Inline
"""Where key material is: a file or directory, or in the setting itself."""


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


@attrs.frozen(kw_only=True)
class TlsSettings:
    """The server side of TLS."""

    cert: Path | None = setting(
        "tls_cert",
        None,
        "PEM file of the certificate chain (leaf first), or a directory with tls.crt and tls.key; "
        "none: a certificate is made in memory at start",
    )
    key: Path | None = setting(
        "tls_key", None, "PEM file of the private key; none: looked for beside or inside tls_cert"
    )
    names: tuple[str, ...] = setting(
        "tls_names", (), "more host names or IP addresses for the certificate made at start, comma-separated"
    )
    policy: TlsPolicy = setting(
        "tls_policy",
        TlsPolicy.INTERMEDIATE,
        "intermediate: TLS 1.2 and 1.3 with ECDHE AEAD suites; modern: TLS 1.3 only",
    )


@attrs.frozen(kw_only=True)
class ClientSettings:
    """Client certificates (mutual TLS)."""

    cert: ClientCertMode = setting(
        "client_cert",
        ClientCertMode.NONE,
        "whether clients are asked for a certificate: none, optional or required (they must show one)",
    )
    ca: Path | None = setting(
        "client_ca",
        None,
        "PEM bundle of the CAs that client certificates must come from, or a directory with ca.crt",
    )


@attrs.frozen(kw_only=True)
class Timeouts:
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
    drain: Seconds = setting(
        "drain_timeout", Seconds(20.0), "time to finish requests in flight after SIGTERM", "seconds", bounds=WAIT
    )


@attrs.frozen(kw_only=True)
class Limits:
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
        "requests on one downstream connection, the last answered with Connection: close; 0: off",
        bounds=(1, 1_000_000_000),
        zero_is_off=True,
    )


@attrs.frozen(kw_only=True)
class HttpSettings:
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


@attrs.frozen(kw_only=True)
class LogSettings:
    """What is written where."""

    access: AccessLogFormat = setting(
        "access_log", AccessLogFormat.JSON, "access log on standard output: json, text or off"
    )
    level: LogLevel = setting("log_level", LogLevel.INFO, "program log on standard error: debug, info, warn, error")


@attrs.frozen(kw_only=True)
class Settings:
    """Everything, as one immutable value."""

    listen: HostPort = setting("listen", HostPort("0.0.0.0", 443), "TLS listener, HOST:PORT")
    upstream: HostPort | UnixPath = setting(
        "upstream", HostPort("127.0.0.1", 8080), "the app: http://HOST:PORT or unix:/path"
    )
    admin: HostPort | None = setting(
        "admin", HostPort("127.0.0.1", 8081), "admin listener, HOST:PORT, or off; it has no authentication"
    )
    tls: TlsSettings = TlsSettings()
    client: ClientSettings = ClientSettings()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
