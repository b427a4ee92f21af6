"""What we say in PROXY headers to the app, and what those of a balancer say to the app in fields and to operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.settings import HostPort, ProxyProtocolOut
from sidecar.tls.session import TlsSession
from sidecar.wire.proxyproto import (
    LOCAL_V2,
    UNKNOWN_V1,
    ProxyHeader,
    SocketAddress,
    SslFacts,
    encode_v1,
    encode_v2,
    make_tlvs,
)

if TYPE_CHECKING:
    from sidecar.proxy.downstream import Peer

_UNSPECIFIED_ERROR: Final = 1
"""
What `verify` says unless a certificate was shown and accepted, as section 2.2.6 has it: X509_V_ERR_UNSPECIFIED. An app
that looks at nothing else must not take somebody without a certificate for authenticated.
"""


def proxy_header(version: ProxyProtocolOut, peer: Peer, session: TlsSession) -> bytes:
    """Return the header that a connection to the app begins with, on behalf of the client *peer*."""
    source, destination = _address(peer.remote), _address(peer.local)
    if version is ProxyProtocolOut.V1:
        return encode_v1(source, destination)
    header = peer.proxied
    ssl = _ssl(session) if session.version else None
    tlvs = make_tlvs(
        alpn=(session.alpn or "").encode(),
        authority=session.server_name or "",
        unique_id=header.unique_id if header is not None else b"",
        ssl=ssl,
    )
    return encode_v2(source, destination, tlvs)


def local_header(version: ProxyProtocolOut) -> bytes:
    """Return the header of a connection that we make for ourselves; b"" if there is to be none."""
    if version is ProxyProtocolOut.OFF:
        return b""
    return UNKNOWN_V1 if version is ProxyProtocolOut.V1 else LOCAL_V2


def _address(address: HostPort) -> SocketAddress:
    return SocketAddress(address.host, address.port)


def _ssl(session: TlsSession) -> SslFacts:
    verification = session.verification
    has_certificate = verification.certificate is not None or verification.reason is not None
    identity = verification.identity if verification.reason is None else None
    names = identity.common_names if identity is not None else ()
    return SslFacts(
        has_certificate=has_certificate and not session.resumed,
        had_certificate=has_certificate,
        verify=0 if identity is not None else _UNSPECIFIED_ERROR,
        version=session.version,
        common_name=names[0] if len(names) == 1 else "",
        cipher=session.cipher,
    )


def facts_of(header: ProxyHeader | None) -> dict[str, str]:
    """Return what a balancer says beside addresses, by name, without what it does not say."""
    if header is None:
        return {}
    facts = {
        "authority": header.authority,
        "alpn": header.alpn.decode("ascii", "backslashreplace"),
        "unique_id": _printable(header.unique_id),
        "vpc_endpoint_id": header.vpc_endpoint_id,
    }
    return {name: value for name, value in facts.items() if value}


def field_lines(header: ProxyHeader | None) -> bytes:
    """Return the same as field lines for the app: X-Proxy-Protocol-Authority and the like."""
    lines = [
        f"X-Proxy-Protocol-{name.replace('_', '-').title()}: {value}\r\n"
        for name, value in facts_of(header).items()
        if value.isascii() and value.isprintable()
    ]
    return "".join(lines).encode()


def _printable(unique_id: bytes) -> str:
    """As text if it is visible ASCII, else in hexadecimal digits."""
    text = unique_id.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() and " " not in text else unique_id.hex()
