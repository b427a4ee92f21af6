"""
Texts an operator writes <-> values: host names, listeners, upstreams, networks.

Under the contract of `units`: each ``parse_x`` takes a text without surrounding blanks and raises only `UnitError`, and
each ``x_text`` is its inverse. Resolves no names.
"""

from __future__ import annotations

import ipaddress
import os
import re

from sidecar.config.units import UnitError, plain_path, quoted
from sidecar.settings import (
    AlpnNames,
    Authority,
    HealthCheckText,
    HostPort,
    Networks,
    ServerName,
    TlsNames,
    UnixPath,
    Upstream,
)

LONGEST_UNIX_PATH = 107
"""Bytes: ``sun_path`` of unix(7) has 108, one of them the closing NUL."""

MOST_ENDPOINTS = 256
"""Of one cluster. Each has connections, counters and rows of its own."""

MOST_NETWORKS = 1000
"""Each is compared with the address of every connection. Content networks publish some two hundred."""

MOST_TLS_NAMES = 100

MOST_ALPN_NAMES = 16

LONGEST_URI = 2048
"""Characters. A SPIFFE ID has at most as many bytes."""

LONGEST_PROBE = 1024
"""Characters of the path that health checks ask for."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label of a DNS name is never a number (RFC 3696 section 2): 10.0.0.256 is a wrong address, not a name.
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+$){_LABEL}", re.ASCII)
_LONGEST_NAME = 253
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,6}))?", re.ASCII)

_LISTENER_FIX = "write HOST:PORT, e.g. 0.0.0.0:443, [::]:443 or :443"
_UPSTREAM_FIX = "write http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/path, e.g. http://127.0.0.1:8080"
_ENDPOINT_FIX = "write HOST:PORT or unix:/path, e.g. 127.0.0.1:8080"


# -- names ------------------------------------------------------------------------------------------------------


def parse_names(text: str) -> tuple[str, ...]:
    """``a.example, *.b.example, 10.0.0.1`` -> DNS names in lower case and IP addresses, in order, each once."""
    return tuple(dict.fromkeys(map(_certificate_name, _parts(text))))


def names_text(value: tuple[str, ...]) -> str:
    """Names, comma-separated."""
    return ",".join(value)


def _parts(text: str) -> list[str]:
    """What stands between commas, without blanks and gaps."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _certificate_name(text: str) -> str:
    address = _ip_address(text)
    if address is not None and "%" not in address:
        return address
    bare = text.removeprefix("*.")
    if len(text) > _LONGEST_NAME or _DNS_NAME.fullmatch(bare) is None:
        fix = "write names as app.example or *.example (international names as xn--…) and addresses as 10.0.0.1 or ::1"
        raise UnitError(f"{quoted(text)} is neither a DNS name nor an IP address", fix)
    return text.lower()


def parse_tls_names(text: str) -> TlsNames:
    """``app.internal, 10.0.0.1, spiffe://prod/ns/web`` -> names as a certificate has them, each once; or ``none``."""
    parts = [] if text == "none" else _parts(text)
    return TlsNames(_bounded(tuple(dict.fromkeys(map(parse_tls_name, parts))), MOST_TLS_NAMES, "names"))


# RFC 3986 less what no name has: user information, query and fragment. A URN has no authority.
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@*]+(?:/[^\s?#*]*)?|urn:[^\s?#*]+)", re.ASCII)


def parse_tls_name(text: str) -> str:
    """A host name in lower case, an IP address, or a URI with its scheme, of which a certificate may be."""
    if "*" in text:
        fact = f"{quoted(text)} has a *; wildcards stand in certificates, and they are honoured there"
        raise UnitError(fact, "write the whole name")
    if "://" in text or text.startswith("urn:"):
        if len(text) > LONGEST_URI or not text.isprintable() or _URI.fullmatch(text) is None:
            raise UnitError(f"{quoted(text)} is no URI of a certificate", "write one like spiffe://prod/ns/default/web")
        return text
    return _certificate_name(text)


def parse_server_name(text: str) -> ServerName:
    """``App.Internal`` -> a host name in lower case; ``none`` is none. Addresses are no server names (RFC 6066)."""
    if text == "none":
        return ServerName("")
    host = _host(text)
    if host is None or _ip_address(text) is not None:
        raise UnitError(f"{quoted(text)} is no host name", "write a name without port, such as app.internal")
    return ServerName(host.lower())


def parse_authority(text: str) -> Authority:
    """``app.internal``, ``10.0.0.1:8080`` or ``[::1]`` -> what stands in a Host field; ``none`` is nothing."""
    if text == "none":
        return Authority("")
    fix = "write HOST or HOST:PORT, such as app.internal"
    address = _address(text, text, fix=fix, default_port=1)
    has_port = re.search(r":[0-9]+\Z", text.rpartition("]")[2], re.ASCII) is not None
    host = f"[{address.host}]" if ":" in address.host else address.host.lower()
    if "%" in host:
        raise UnitError(f"{quoted(text)} has a zone, which means nothing to others", fix)
    return Authority(f"{host}:{address.port}" if has_port else host)


def parse_alpn(text: str) -> AlpnNames:
    """``h2, http/1.1`` -> names of protocols in order, each once; ``none`` is none."""
    names = [] if text == "none" else _parts(text)
    for name in names:
        if len(name) > 255 or not name.isascii() or not name.isprintable() or " " in name:
            fix = "write visible ASCII characters, at most 255, such as h2 or http/1.1"
            raise UnitError(f"{quoted(name)} is no name of a protocol", fix)
    return AlpnNames(_bounded(tuple(dict.fromkeys(names)), MOST_ALPN_NAMES, "protocols"))


def parse_health_check(text: str) -> HealthCheckText:
    """``/healthz``, a path with or without query; ``tcp``; ``none`` or ``off`` is none."""
    word = text.lower()
    if word in ("none", "off"):
        return HealthCheckText("")
    if word == "tcp":
        return HealthCheckText("tcp")
    is_target = text.isascii() and text.isprintable() and not {" ", "#"} & set(text)
    if not text.startswith("/") or not is_target or len(text) > LONGEST_PROBE:
        raise UnitError(f"{quoted(text)} is neither a path nor tcp", "write a path such as /healthz, or tcp, or none")
    return HealthCheckText(text)


def _bounded(values: tuple[str, ...], most: int, what: str) -> tuple[str, ...]:
    if len(values) > most:
        raise UnitError(f"there are {len(values):,} {what}, limit {most:,}", "leave some out")
    return values


# -- networks ---------------------------------------------------------------------------------------------------

_IPV4_IN_IPV6 = ipaddress.IPv6Network("::ffff:0:0/96")


def parse_networks(text: str) -> Networks:
    """``10.0.0.0/8, 192.0.2.1, fd00::/8`` -> networks, each once, single addresses as /32 or /128; or ``none``."""
    parts = [] if text == "none" else _parts(text)
    return Networks(_bounded(tuple(dict.fromkeys(map(_network, parts))), MOST_NETWORKS, "networks"))


def _network(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        fact = f"{quoted(text)} is not a network or an address"
        raise UnitError(fact, "write one like 10.0.0.0/8, 192.0.2.7 or fd00::/8") from None
    if re.fullmatch(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?", text, re.ASCII) is None:  # zones, and netmasks in dots
        raise UnitError(f"{quoted(text)} is not a network in CIDR notation", f"write {meant.with_prefixlen}")
    if isinstance(meant, ipaddress.IPv6Network) and meant.subnet_of(_IPV4_IN_IPV6):
        inner = ipaddress.IPv4Network((int(meant.network_address) & 0xFFFF_FFFF, meant.prefixlen - 96))
        raise UnitError(f"{quoted(text)} is an IPv4 network in the form of IPv6", f"write {inner}")
    address = text.partition("/")[0]
    if ipaddress.ip_address(address) != meant.network_address:
        fix = f"write {meant} for all of it, or {address} for this one"
        raise UnitError(f"{quoted(text)} is an address within a network", fix)
    return str(meant)


# -- listeners --------------------------------------------------------------------------------------------------


def parse_listener(text: str) -> HostPort:
    """``HOST:PORT``, ``[::]:443``, ``:443`` or ``443``; without a host, every IPv4 address."""
    if re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        text = f":{text}"
    return _address(text, text, fix=_LISTENER_FIX, default_host="0.0.0.0")  # noqa: S104 - what `:443` means everywhere


def parse_optional_listener(text: str) -> HostPort | None:
    """As `parse_listener`; ``off`` is no listener."""
    if text.lower() == "off":
        return None
    try:
        return parse_listener(text)
    except UnitError as error:
        raise UnitError(error.fact, f"{error.fix}; or off") from None


def optional_listener_text(value: HostPort | None) -> str:
    """``HOST:PORT``, or ``off``."""
    return "off" if value is None else str(value)


# -- upstreams --------------------------------------------------------------------------------------------------

_UNIX_SCHEMES = {"unix:": "http", "https+unix:": "https", "h2c+unix:": "h2c"}
_PORTS = {"http": 80, "https": 443, "h2c": None}
"""The port of each scheme that has a usual one: apps with gRPC are anywhere but on 80."""

_H2C_FIX = "write h2c://HOST:PORT for HTTP/2 without TLS, as servers of gRPC speak it"
_SCHEME_FIXES = {"grpc": _H2C_FIX, "http2": _H2C_FIX} | dict.fromkeys(
    ("grpcs", "h2", "h2s"), f"HTTP/2 over TLS is not spoken with the app: write https:// for HTTP/1.1, or {_H2C_FIX}"
)


def parse_upstream(text: str) -> Upstream:
    """
    One or more of ``http://HOST[:PORT]`` (port 80 if none), ``HOST:PORT``, ``unix:/absolute/path``; or else of
    ``https://HOST[:PORT]`` (port 443 if none), ``https+unix:/absolute/path``; or else of ``h2c://HOST:PORT``,
    ``h2c+unix:/absolute/path``; comma-separated.
    """
    parts = _parts(text) or [text]
    read = [_upstream_endpoint(part) for part in parts]
    schemes = list(dict.fromkeys(scheme for _, scheme in read))
    if len(schemes) > 1:
        fact = f"some are {schemes[0]} and some are {schemes[1]}"
        raise UnitError(fact, "write all of them alike, or use SIDECAR_CLUSTERS")
    if len(read) > MOST_ENDPOINTS:
        raise UnitError(f"there are {len(read):,} endpoints, limit {MOST_ENDPOINTS}", "put a load balancer before them")
    endpoints = {plain_address(endpoint): endpoint for endpoint, _ in reversed(read)}
    if len(endpoints) < len(read):
        again = next(address for address, _ in read if address is not endpoints[plain_address(address)])
        raise UnitError(f"{quoted(str(again))} stands there twice", "keep one of them")
    return Upstream(tuple(endpoint for endpoint, _ in read), tls=schemes[0] == "https", h2c=schemes[0] == "h2c")


def upstream_text(value: Upstream) -> str:
    """``http://HOST:PORT`` or ``unix:/path``, or both with https or h2c, comma-separated."""
    scheme = "https" if value.tls else "h2c" if value.h2c else "http"
    unix = "" if scheme == "http" else f"{scheme}+"
    return ",".join(f"{unix}{each}" if isinstance(each, UnixPath) else f"{scheme}://{each}" for each in value.endpoints)


def plain_address(address: HostPort | UnixPath) -> str:
    """What the same address in another form has in common with *address*: names have no case."""
    return str(address).lower() if isinstance(address, HostPort) else str(address)


_SAID_BY_TLS = "whether TLS is spoken is said by the tls"


def parse_endpoint(text: str) -> HostPort | UnixPath:
    """``HOST:PORT``, ``[::1]:8080`` or ``unix:/absolute/path``: an address without a scheme."""
    if text.startswith("unix:"):
        return _unix_path(text, "unix:")
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in _PORTS and "@" not in rest:
        key = "that HTTP/2 is spoken is said by protocol: h2c" if scheme.lower() == "h2c" else _SAID_BY_TLS
        raise UnitError(f"{quoted(text)} has a scheme; {key} of the cluster", _ENDPOINT_FIX)
    _refuse_user(text)
    return _address(text, text, fix=_ENDPOINT_FIX)


def _upstream_endpoint(text: str) -> tuple[HostPort | UnixPath, str]:
    """An address, and the scheme that says what is spoken there: http, https or h2c."""
    for prefix, scheme in _UNIX_SCHEMES.items():
        if text.startswith(prefix):
            return _unix_path(text, prefix), scheme
    _refuse_user(text)
    given, separator, authority = text.partition("://")
    if not separator:
        return _address(text, text, fix=_UPSTREAM_FIX), "http"
    scheme = given.lower()
    if scheme not in _PORTS:
        fact = f"{quoted(text)} has a scheme other than http, https and h2c"
        raise UnitError(fact, _SCHEME_FIXES.get(scheme, _UPSTREAM_FIX))
    authority = authority.removesuffix("/")
    if any(char in authority for char in "/?#"):
        fact = f"{quoted(text)} has a path or query; requests keep their own"
        raise UnitError(fact, _UPSTREAM_FIX)
    return _address(authority, text, fix=_UPSTREAM_FIX, default_port=_PORTS[scheme]), scheme


def _refuse_user(text: str) -> None:
    if "@" in text:
        raise UnitError("the upstream has no place for a user name or password", _UPSTREAM_FIX)


def _unix_path(text: str, prefix: str) -> UnixPath:
    path = plain_path(text.removeprefix(prefix))
    if path.startswith("//"):
        raise UnitError(f"{quoted(text)} is not a path", f"write {prefix}/{path.lstrip('/')}")
    if not path.startswith("/"):
        raise UnitError(f"{quoted(text)} is not an absolute path", f"write {prefix}/path, e.g. {prefix}/run/app.sock")
    length = len(os.fsencode(path))
    if length > LONGEST_UNIX_PATH:
        raise UnitError(f"the socket path is {length} bytes, limit {LONGEST_UNIX_PATH}", "use a shorter path")
    return UnixPath(path)


# -- addresses --------------------------------------------------------------------------------------------------


def is_name(host: str) -> bool:
    """Whether *host*, of an address that was read here, is a name that somebody has to resolve."""
    return _ip_address(host) is None


def _address(
    text: str, whole: str, *, fix: str, default_host: str | None = None, default_port: int | None = None
) -> HostPort:
    """``HOST:PORT`` in *text*; messages show *whole*, what the operator wrote, and end in *fix*."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        fix = f"an IPv6 address needs brackets: {fix}" if text.count(":") > 1 and "[" not in text else fix
        raise UnitError(f"{quoted(whole)} is not an address", fix)
    port = int(match["port"]) if match["port"] else default_port
    if port is None:
        raise UnitError(f"{quoted(whole)} has no port", fix)
    if not 1 <= port <= 65535:
        raise UnitError(f"port {port} is not within 1 to 65535", fix)
    host = default_host if match["v6"] is None else _ip_v6(match["v6"])
    if match["host"]:
        host = _host(match["host"])
    if host is None:
        raise UnitError(f"{quoted(whole)} has no valid host", fix)
    return HostPort(host, port)


def _host(text: str) -> str | None:
    """An IPv4 address or a name. Underscores pass: container networks hand out such names, and DNS answers them."""
    if ":" in text or (address := _ip_address(text)) is None:
        valid = len(text) <= _LONGEST_NAME and _DNS_NAME.fullmatch(text.replace("_", "x"))
        return text if valid else None
    return address


def _ip_v6(text: str) -> str | None:
    return _ip_address(text) if ":" in text else None


def _ip_address(text: str) -> str | None:
    """The canonical form of an IP address; None if *text* is none. A zone (``fe80::1%eth0``) is an interface name."""
    if "%" in text and re.fullmatch(r"[^%]+%[A-Za-z0-9._-]{1,15}", text, re.ASCII) is None:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
