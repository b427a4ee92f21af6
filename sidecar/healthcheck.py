"""
`sidecar healthcheck`: looks at the running program from outside, as a client would. For containers, whose image has
neither a shell nor curl.

It runs every few seconds beside the program, perhaps on a quarter of a CPU: it imports little, and what costs most only
where it is needed.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sidecar.config import flags
from sidecar.config.load import Loaded, gather
from sidecar.errors import ConfigError, SidecarError
from sidecar.settings import (
    ClientRefusal,
    HostPort,
    ListenerMode,
    ProxyProtocol,
    ProxyProtocolOut,
    Switch,
    UnixPath,
)
from sidecar.topology import ClusterSpec, Endpoint, ListenerSpec, Topology, UpstreamProtocol, UpstreamTls
from sidecar.wire.proxyproto import LOCAL_V2 as LOCAL_HEADER
from sidecar.wire.proxyproto import UNKNOWN_V1 as UNKNOWN_HEADER

if TYPE_CHECKING:
    import ssl

DEADLINE_SECONDS: Final = 3.0
"""For all of it together; less than any orchestrator's timeout, so that the line with the reason still comes."""

EXIT_HEALTHY: Final = 0
EXIT_UNHEALTHY: Final = 1
"""Also for settings that cannot be read: Docker knows no other status."""

USAGE: Final = """\
usage: sidecar healthcheck [--app] [--NAME VALUE ...]

Exits with 0 if the TLS listener completes a handshake and its certificate is in date, else with 1, and says why in one
line. With --app the app must answer HTTP too, or HTTP/2 if it is one of h2c://. It reads the settings where
`sidecar run` does: give it the same flags.
"""

_STDOUT: Final = 1
_STDERR: Final = 2

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked for, not listened on

_LARGEST_READ: Final = 65_536
_LONGEST_STATUS_LINE: Final = 4096
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: |\r?\n)")

# What clients and servers begin HTTP/2 with, a preface and SETTINGS of at most 16 KiB (RFC 9113 section 3.4); written
# out, since the modules that speak it take longer to import than all that is done here.
_HTTP2_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_ANSWER: Final = re.compile(rb"\x00[\x00-\x40].\x04\x00\x00\x00\x00\x00", re.DOTALL)


class UnhealthyError(SidecarError):
    """Something is not as it should be; the text says what, in one line."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Check the program that the settings describe, and print the finding as one line.

    Args:
        argv: ``--app`` and flags, as for ``run``.
        environ: The environment.

    Returns:
        The exit status.
    """
    given, problems = flags.parse(flags.make_parser("", ""), [argument for argument in argv if argument != "--app"])
    if flags.HELP in given:
        return _say(_STDOUT, USAGE, EXIT_HEALTHY)
    loaded, more = gather(given, environ)
    problems += more
    try:
        if problems:
            others = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            raise UnhealthyError(f"{problems[0]}{others}")
        findings = _check(loaded, "--app" in argv, time.monotonic() + DEADLINE_SECONDS)
    except UnhealthyError as error:
        return _say(_STDERR, f"unhealthy: {error}\n", EXIT_UNHEALTHY)
    return _say(_STDOUT, f"healthy: {'; '.join(findings)}\n", EXIT_HEALTHY)


def _say(descriptor: int, text: str, status: int) -> int:
    """Print *text*; return *status*, which counts whether anybody reads the text or not."""
    try:
        os.write(descriptor, text.encode("utf-8", "backslashreplace"))
    except OSError:  # closed, full, or its reader went away
        pass
    return status


def _check(loaded: Loaded, wants_app: bool, until: float) -> list[str]:
    settings = loaded.settings
    listener, is_http = _listener(loaded)
    host = _ANY_ADDRESS.get(listener.address.host, listener.address.host)
    address = HostPort(host, listener.address.port)
    # Our word about ourselves is taken from this machine, whatever else is demanded of headers.
    first = b"" if listener.proxy_protocol is ProxyProtocol.OFF else LOCAL_HEADER
    if listener.tls:
        in_silence = settings.client.refusal is ClientRefusal.HANDSHAKE or not is_http
        findings = [f"{address} {_check_tls(address, until, first, in_silence, datetime.now(UTC))}"]
    else:
        findings = [f"{address} {_check_open(address, until, 'SIDECAR_LISTEN')}"]
    if wants_app:
        findings += [_check_cluster(cluster, is_http, until) for cluster in _clusters(loaded)]
    return findings


def _clusters(loaded: Loaded) -> Sequence[ClusterSpec]:
    """Return where requests go: to the app, or to the clusters that routes lead to."""
    settings = loaded.settings
    if settings.app.clusters or settings.downstream.virtual_hosts or settings.downstream.listeners:
        return _topology(loaded).clusters
    return (
        ClusterSpec(
            name="app",
            endpoints=tuple(Endpoint(address=address) for address in settings.upstream.endpoints),
            tls=UpstreamTls() if settings.upstream.tls else None,
            proxy_protocol=settings.app.proxy_protocol,
            protocol=UpstreamProtocol.H2C if settings.upstream.h2c else UpstreamProtocol.HTTP1,
        ),
    )


def _topology(loaded: Loaded) -> Topology:
    from sidecar.config.topology import topology_of  # few have more than the small form

    try:
        return topology_of(loaded)
    except ConfigError as error:
        raise UnhealthyError(str(error.problems[0])) from None


def _listener(loaded: Loaded) -> tuple[ListenerSpec, bool]:
    """Return the listener that is asked: of several, the first with TLS; and whether HTTP is spoken on it."""
    settings = loaded.settings
    downstream = settings.downstream
    if not downstream.listeners:
        spec = ListenerSpec(
            name="main",
            address=settings.listen,
            tls=downstream.tls is Switch.ON,
            mode=downstream.mode,
            proxy_protocol=downstream.proxy_protocol,
        )
    else:
        listeners = _topology(loaded).listeners
        spec = next((each for each in listeners if each.tls), listeners[0])
    return spec, spec.mode is ListenerMode.HTTP


# -- the TLS listener -------------------------------------------------------------------------------------------


def _check_tls(address: HostPort, until: float, first: bytes, in_silence: bool, now: datetime) -> str:
    version, certificate = _shake_hands(address, until, first, in_silence)
    try:
        from cryptography import x509

        parsed = x509.load_der_x509_certificate(certificate)
        begin, end = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    except ValueError:
        raise UnhealthyError(f"{address} serves a certificate that cannot be read") from None
    if now > end:
        raise UnhealthyError(f"the certificate served on {address} expired on {end:%Y-%m-%d %H:%M} UTC; renew it")
    if now < begin:
        fact = f"the certificate served on {address} is valid from {begin:%Y-%m-%d %H:%M} UTC only"
        raise UnhealthyError(f"{fact}, and it is {now:%Y-%m-%d %H:%M}; compare the clocks")
    return f"speaks {version}, certificate until {end:%Y-%m-%d} ({(end - now).days} days left)"


def _shake_hands(address: HostPort, until: float, first: bytes, in_silence: bool) -> tuple[str, bytes]:
    """
    Return the version agreed on and the certificate, in DER. Clients verify it; what is asked here is its date.

    Args:
        first: What goes ahead of the handshake.
        in_silence: Leave before the server learns that we have no certificate: where it refuses such clients with an
            alert, it would note each check as one of them.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    try:
        with _connect(address, until) as sock:
            sock.sendall(first)
            while not _is_done(tls):
                sock.sendall(outgoing.read())
                sock.settimeout(_left(until))
                data = sock.recv(_LARGEST_READ)
                if not data:
                    raise OSError("the connection was closed in the middle of it")
                incoming.write(data)
            if not in_silence:
                sock.sendall(outgoing.read())
    except OSError as error:
        raise UnhealthyError(f"no TLS handshake with {address} (SIDECAR_LISTEN): {_why(error)}") from None
    return tls.version() or "", tls.getpeercert(binary_form=True) or b""


def _is_done(tls: ssl.SSLObject) -> bool:
    """Go on with the handshake; False: it needs more of the server. True: our own last words may still be unsent."""
    from ssl import SSLWantReadError

    try:
        tls.do_handshake()
    except SSLWantReadError:
        return False
    return True


# -- the app ----------------------------------------------------------------------------------------------------


def _check_open(address: HostPort | UnixPath, until: float, setting: str) -> str:
    try:
        _connect(address, until).close()
    except OSError as error:
        raise UnhealthyError(f"no connection to {address} ({setting}): {_why(error)}") from None
    return "accepts connections"


def _check_cluster(cluster: ClusterSpec, is_http: bool, until: float) -> str:
    """Say how the first endpoint answers that does; raise UnhealthyError if none does."""
    problems = []
    # With TLS it is enough to know that it is there: only the program itself has what it takes to ask more.
    asks = is_http and cluster.tls is None
    for endpoint in cluster.endpoints:
        address = endpoint.address
        try:
            found = _check_app(cluster, address, until) if asks else _check_open(address, until, "SIDECAR_UPSTREAM")
        except UnhealthyError as error:
            problems.append(str(error))
        else:
            return f"the app at {address} {found}"
    raise UnhealthyError("; ".join(problems))


def _check_app(cluster: ClusterSpec, upstream: HostPort | UnixPath, until: float) -> str:
    is_h2c = cluster.protocol is UpstreamProtocol.H2C
    try:
        answer = _ask(cluster, upstream, until, in_http2=is_h2c)
    except OSError as error:
        raise UnhealthyError(f"no answer of the app at {upstream} (SIDECAR_UPSTREAM): {_why(error)}") from None
    if is_h2c and _HTTP2_ANSWER.match(answer):
        return "speaks HTTP/2"
    status = _STATUS_LINE.match(answer)
    if status is not None and not is_h2c:
        return f"answers {status[1].decode()}"
    fact = _mistake(cluster, upstream, until, answer)
    raise UnhealthyError(f"the app at {upstream} (SIDECAR_UPSTREAM) {fact}")


def _mistake(cluster: ClusterSpec, upstream: HostPort | UnixPath, until: float, answer: bytes) -> str:
    """What is wrong with an answer. Of what an app makes of a wrong protocol, to ask in the right one is surer."""
    is_h2c = cluster.protocol is UpstreamProtocol.H2C
    expected = _STATUS_LINE if is_h2c else _HTTP2_ANSWER
    is_other = expected.match(answer) is not None
    if not is_other:
        with suppress(OSError):
            is_other = expected.match(_ask(cluster, upstream, until, in_http2=not is_h2c)) is not None
    if is_other and is_h2c:
        return "does not speak HTTP/2 without TLS: for an HTTP/1.1 app write http://, or leave out protocol: h2c"
    if is_other:
        return "speaks HTTP/2, and no HTTP/1.1: write h2c://, or protocol: h2c for a cluster"
    if not answer:
        return "closes the connection without an answer"
    return f"answers with something that is not {'HTTP/2' if is_h2c else 'HTTP/1.1'}"


def _ask(cluster: ClusterSpec, upstream: HostPort | UnixPath, until: float, *, in_http2: bool) -> bytes:
    """Return how the app's answer begins; empty if it closes the connection. Raises OSError: there is none in time."""
    first = {ProxyProtocolOut.V1: UNKNOWN_HEADER, ProxyProtocolOut.V2: LOCAL_HEADER}
    host = "localhost" if isinstance(upstream, UnixPath) else str(upstream)
    head = f"HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sidecar-healthcheck\r\nConnection: close\r\n\r\n"
    with _connect(upstream, until) as sock:
        try:
            sock.sendall(first.get(cluster.proxy_protocol, b"") + (_HTTP2_HELLO if in_http2 else head.encode()))
        except ConnectionError:
            pass  # it may have said something before it hung up
        return _beginning(sock, until)


def _beginning(sock: socket.socket, until: float) -> bytes:
    """Read a line, or the head of a first frame; less if the peer closes."""
    data = b""
    while b"\n" not in data and not _HTTP2_ANSWER.match(data) and len(data) < _LONGEST_STATUS_LINE:
        sock.settimeout(_left(until))
        try:
            piece = sock.recv(_LONGEST_STATUS_LINE)
        except ConnectionError:
            break
        if not piece:
            break
        data += piece
    return data


# -- sockets ----------------------------------------------------------------------------------------------------


def _connect(address: HostPort | UnixPath, until: float) -> socket.socket:
    """Connect to the first address that a name has and that takes it; raises OSError."""
    problem = OSError("the name has no address")
    for family, target in _targets(address):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(until))
            sock.connect(target)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _targets(address: HostPort | UnixPath) -> list[tuple[socket.AddressFamily, Any]]:
    """Families and addresses as each writes them."""
    if isinstance(address, UnixPath):
        return [(socket.AF_UNIX, address.path)]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, target) for family, _, _, _, target in found]


def _left(until: float) -> float:
    """The seconds that are left; never 0, which would make a socket non-blocking."""
    return max(0.001, until - time.monotonic())


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {DEADLINE_SECONDS:g} s"
    return error.strerror or str(error) or type(error).__name__
