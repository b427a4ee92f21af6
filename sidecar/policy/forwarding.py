"""
Who the request comes from and how it came, as the app is told: X-Forwarded-*, Forwarded (RFC 7239), X-Request-Id.

What a client says of this itself is worth nothing and is replaced, unless it is a proxy that the operator trusts: then
it is believed as far as it is well-formed, and extended by what we see ourselves.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

import attrs

from sidecar.settings import HostPort
from sidecar.values import Value
from sidecar.wire.events import RequestHead
from sidecar.wire.fields import Fields

MOST_HOPS: Final = 50
"""Addresses of X-Forwarded-For that are looked at, from the right."""

_REMEMBERED: Final = 4096

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# An element of Forwarded (RFC 7239 section 4) is pairs of a token and a token or quoted string; several are separated
# by commas. Anything else could swallow, or be swallowed by, what we append.
_PAIR: Final = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++=(?:[A-Za-z0-9!#$%&'*+.^_`|~-]++|\"[^\"\\]*+(?:\\.[^\"\\]*+)*\")"
_ELEMENT: Final = _PAIR + rb"(?:[ \t]*+;[ \t]*+" + _PAIR + rb")*"
# Groups are not repeated possessively: up to Python 3.11.4 that takes part of a last round which does not fit. Nothing
# can be matched in two ways, so that going back costs no more than going forth did.
_FORWARDED: Final = re.compile(rb"[ \t]*+" + _ELEMENT + rb"(?:[ \t]*+,[ \t]*+" + _ELEMENT + rb")*[ \t]*+")


@attrs.frozen(eq=False, repr=False)
class TrustedProxies(Value):
    """
    The networks whose proxies are believed.

    Attributes:
        networks: In CIDR notation, without host bits.
    """

    networks: tuple[str, ...] = ()
    _parsed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(lambda self: _parse(self.networks), takes_self=True)
    )

    def trusts(self, host: str) -> bool:
        """Whether an address belongs to one of them; what is no address does not."""
        return bool(self._parsed) and _is_in(host, self._parsed)


def _parse(networks: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


@functools.lru_cache(_REMEMBERED)
def _is_in(host: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in networks)


NOBODY: Final = TrustedProxies()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Hop(Value):
    """
    The connection that requests came over.

    Attributes:
        peer: Address of the client, or of the proxy in front of us.
        local: Where it connected to.
        scheme: ``https`` or ``http``.
        is_trusted: Whether *peer* is a proxy that is believed.
        with_forwarded: Whether the app gets Forwarded too.
        extra: More field lines, which say what a PROXY header said.
    """

    peer: str
    local: HostPort
    scheme: str = "https"
    is_trusted: bool = False
    with_forwarded: bool = False
    extra: bytes = b""

    @property
    def is_the_same_for_all(self) -> bool:
        """Whether all requests of the connection get the same `lines`."""
        return not self.is_trusted and not self.with_forwarded

    @property
    def common_lines(self) -> bytes:
        """The lines of a client that is not believed, less those that depend on the request."""
        return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n%b" % (
            self.peer.encode(),
            self.scheme.encode(),
            self.local.port,
            self.extra,
        )

    def lines(self, head: RequestHead) -> bytes:
        """Return the field lines for one request, X-Forwarded-Host among them."""
        fields = head.fields
        said_for = said_host = said_proto = said_port = b""
        if self.is_trusted:
            said_for = b", ".join(value for value in fields.values(b"x-forwarded-for") if value)
            said_host = _only(fields, b"x-forwarded-host", _HOST)
            said_proto = _only(fields, b"x-forwarded-proto", _SCHEME).lower()
            said_port = _only(fields, b"x-forwarded-port", _PORT)
        host = said_host or head.host
        if not said_port and (said_host or said_proto):
            # Who speaks of another host or scheme than ours does not mean our port.
            said_port = _port_of(host) or b"%d" % _DEFAULT_PORTS[said_proto or self.scheme.encode()]
        lines = [
            b"X-Forwarded-For: %b\r\n" % (said_for + b", " * bool(said_for) + self.peer.encode()),
            b"X-Forwarded-Proto: %b\r\n" % (said_proto or self.scheme.encode()),
            b"X-Forwarded-Port: %b\r\n" % (said_port or b"%d" % self.local.port),
        ]
        if host:
            lines.append(b"X-Forwarded-Host: %b\r\n" % host)
        elements = self._said_elements(fields, said_for)
        if self.with_forwarded or elements:
            lines.append(b"Forwarded: %b\r\n" % b", ".join((*elements, self._element(head))))
        return b"".join(lines) + self.extra

    def _said_elements(self, fields: Fields, said_for: bytes) -> list[bytes]:
        """
        Return the elements of Forwarded that come before ours.

        A proxy that writes X-Forwarded-For may well pass on what its client said in Forwarded; so the former counts.
        """
        if not self.is_trusted:
            return []
        if said_for:
            members = (member.strip(b" \t") for member in said_for.split(b","))
            addresses = (_address(member) for member in members) if self.with_forwarded else ()
            return [b"for=%b" % _value(_node(address)) if address else b"for=unknown" for address in addresses]
        said = _said_forwarded(fields)
        return [said] if said else []

    def _element(self, head: RequestHead) -> bytes:
        """Return our own element of Forwarded (RFC 7239 section 4)."""
        pairs = [(b"by", _node(self.local.host)), (b"for", _node(self.peer))]
        if head.host:
            pairs.append((b"host", head.host))
        pairs.append((b"proto", self.scheme.encode()))
        return b";".join(b"%b=%b" % (name, _value(text)) for name, text in pairs)


_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}


def _port_of(host: bytes) -> bytes:
    """Return the port in an authority; b"" if there is none."""
    found = re.search(rb":([0-9]{1,5})\Z", host)
    return found[1] if found else b""


_SCHEME: Final = re.compile(rb"https?", re.IGNORECASE)


def _only(fields: Fields, name: bytes, pattern: re.Pattern[bytes]) -> bytes:
    """Return the value of the one field *name*, if it is well-formed; b"" else, also if there are several."""
    values = fields.values(name)
    return values[0] if len(values) == 1 and pattern.fullmatch(values[0]) else b""


def _said_forwarded(fields: Fields) -> bytes:
    said = b", ".join(fields.values(b"forwarded"))
    return said if _FORWARDED.fullmatch(said) else b""


def _node(host: str) -> bytes:
    """Return a node identifier (RFC 7239 section 6): an IPv6 address stands in brackets."""
    return f"[{host}]".encode() if ":" in host else host.encode()


def _value(text: bytes) -> bytes:
    """Return *text* as a value: quoted, unless it is a token."""
    return text if _TOKEN.fullmatch(text) else b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def claimed_request_id(fields: Fields) -> bytes:
    """Return the request id that a trusted proxy has given; b"" if there is none that could stand in a log."""
    return _only(fields, b"x-request-id", _REQUEST_ID)


def client_address(fields: Fields, peer: str, trusted: TrustedProxies) -> str:
    """
    Return the address of the client that a request comes from in the end.

    That is the last address of X-Forwarded-For that is no trusted proxy's: what stands left of it, it may have made
    up itself.

    Args:
        peer: Address of the trusted proxy that sent the request.
    """
    said = b",".join(fields.values(b"x-forwarded-for")).split(b",")
    client = peer
    for member in reversed(said[-MOST_HOPS:]):
        address = _address(member.strip(b" \t"))
        if not address:
            break
        client = address
        if not trusted.trusts(address):
            break
    return client


def _address(member: bytes) -> str:
    """Return the address in a member of X-Forwarded-For, which may have a port; "" if there is none."""
    text = member.decode("ascii", "replace")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:
        return ""  # an interface, which can be any text, and means nothing on another machine
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
