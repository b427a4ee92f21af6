"""
The server role's fields of HTTP/2: requests to the heads that all versions share, and responses back (RFC 9113
section 8). What holds for the fields of every message is in `wire.h2rules`.

Nobody behind this module can tell a request that came by HTTP/2: it has a Host field, one Cookie field, its framing in
fields, and the extended CONNECT of RFC 8441 is the GET with Upgrade that it stands for. What is refused:

- A request that is malformed by RFC 9113 raises `StreamFault`: such a message is no message.
- One that is good HTTP/2 but that we would refuse in HTTP/1.1 too raises a plain `RequestError` with its status.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sidecar.errors import RequestError
from sidecar.wire import grammar
from sidecar.wire.events import BodyKind, RequestHead
from sidecar.wire.fields import Fields
from sidecar.wire.h2hpack import Field, FieldEncoder
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2rules import (
    CONNECTION_SPECIFIC,
    FIELD_OVERHEAD,
    MAX_REMEMBERED_BYTES,
    SectionReader,
    check_field,
    connection_specific,
    content_length,
    malformed,
    message_fields,
    quote,
    split,
)
from sidecar.wire.head import REFUSED_METHODS
from sidecar.wire.target import MAX_TARGET_BYTES

_METHOD: Final = re.compile(grammar.TCHAR + rb"{1,32}+")
_PATH: Final = re.compile(grammar.TARGET_OCTET + rb"++")

_PSEUDO_FIELDS: Final = frozenset({b":authority", b":method", b":path", b":protocol", b":scheme"})

_SCHEMES: Final = frozenset({b"http", b"https"})

# What is not a line of its own in the section: one is rewritten, the others are looked at.
_SPECIAL: Final = CONNECTION_SPECIFIC | {b"content-length", b"cookie", b"host", b"te"}

_UPGRADE_LINES: Final = b"connection: Upgrade\r\nupgrade: websocket\r\n"


class RequestReader(SectionReader[RequestHead]):
    """Reads the header blocks of one client's requests."""

    __slots__ = ("_websocket_key",)

    def __init__(self, limits: Http2Limits, websocket_key: Callable[[], bytes]) -> None:
        """
        Args:
            websocket_key: Makes a value for Sec-WebSocket-Key, which HTTP/2 has none of and an app wants to see: 16
                random bytes in base64.
        """
        super().__init__(limits)
        self._websocket_key = websocket_key

    def request(self, block: bytes, is_whole: bool) -> RequestHead:
        """
        Return the head of a request.

        Args:
            is_whole: Whether the request has nothing but a head.

        Raises:
            ConnectionFault: The block cannot be decompressed, or must not.
            StreamFault: The request is malformed.
            RequestError: It is refused with a status.
        """
        key = block, is_whole, b""
        head = self._heads.get(key)
        if head is not None:
            return head
        changes = self._changes
        head = request_head(self._decode(block), is_whole, self._limits, self._websocket_key)
        if self._changes == changes and not head.upgrade:
            self._remember(key, head, len(head.fields.section))
        return head


def request_head(
    fields: list[Field], is_whole: bool, limits: Http2Limits, websocket_key: Callable[[], bytes]
) -> RequestHead:
    """
    Make the head of a request of its *fields*, as they were sent.

    Args:
        is_whole: Whether the request has nothing but a head.
        websocket_key: See `RequestReader`.

    Raises:
        StreamFault: The request is malformed (RFC 9113 section 8.1.1).
        RequestError: It is refused with a status: too large (431, 414), a method (405) or protocol (501) that is not
            proxied.
    """
    pseudo, regular = split(fields, _PSEUDO_FIELDS)
    method = pseudo.get(b":method")
    if method is None or not _METHOD.fullmatch(method):
        raise malformed("bad_pseudo_field", "the request has no method, or a malformed one")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        raise _plain_connect(pseudo)
    if protocol is not None and method != b"CONNECT":
        raise malformed("bad_pseudo_field", "a request that is no CONNECT has :protocol")
    target = _target(method, pseudo)
    _check_size(fields, limits)
    section = _Section(regular)
    host = _host(pseudo.get(b":authority"), section.hosts)
    if section.count > limits.fields:
        raise RequestError("too_many_headers", f"head has {section.count} fields, limit {limits.fields}", 431)
    if protocol is not None:
        return _websocket(protocol, target, host, section, websocket_key)
    if method.upper() in REFUSED_METHODS:
        raise RequestError("method_refused", f"method {method.decode('ascii')} is not proxied", 405)
    if len(target) > MAX_TARGET_BYTES:
        raise RequestError("uri_too_long", f"target is {len(target):,} bytes, limit {MAX_TARGET_BYTES:,}", 414)
    body, length = _body(section.lengths, is_whole)
    lines = section.with_host(host)
    if body is BodyKind.CHUNKED:
        lines += b"transfer-encoding: chunked\r\n"
    return RequestHead(method, target, 1, Fields(lines), host, body, length, (), True, ())


class _Section:
    """
    The regular fields of a request, each checked.

    Attributes:
        hosts: Values of Host.
        lengths: Values of Content-Length.
        lines: Field lines, without Host and with one Cookie, where the first crumb of it was.
        count: Fields, of which Cookie is one.
    """

    __slots__ = ("_crumbs", "_lines", "count", "hosts", "lengths")

    def __init__(self, fields: list[Field]) -> None:
        self.hosts: list[bytes] = []
        self.lengths: list[bytes] = []
        self._crumbs: list[bytes] = []
        self._lines: list[bytes] = []
        for name, value in fields:
            check_field(name, value)
            if name not in _SPECIAL or self._is_line(name, value):
                self._lines.append(b"%b: %b\r\n" % (name, value))
        self.count = len(self._lines) + len(self.hosts)
        if self._crumbs:
            # RFC 9113 section 8.2.3. The line of the first stands for all.
            first = self._lines.index(b"")
            self._lines[first] = b"cookie: %b\r\n" % b"; ".join([crumb for crumb in self._crumbs if crumb])

    def _is_line(self, name: bytes, value: bytes) -> bool:
        """Look at a field that is not like others; return whether it goes into the section as it is."""
        if name in CONNECTION_SPECIFIC:
            raise connection_specific(name)
        if name == b"cookie":
            if not self._crumbs:
                self._lines.append(b"")  # its place
            self._crumbs.append(value)
            return False
        if name == b"host":
            self.hosts.append(value)
            return False
        if name == b"content-length":
            self.lengths.append(value)
        elif value.lower() != b"trailers":
            raise malformed("bad_te", "TE says something other than «trailers»")
        return True

    def with_host(self, host: bytes) -> bytes:
        """Return all lines, Host first."""
        return b"host: %b\r\n%b" % (host, b"".join(self._lines))

    def has(self, name: bytes) -> bool:
        """Whether a line is called *name*."""
        return any(line.startswith(name + b":") for line in self._lines)


def _check_size(fields: list[Field], limits: Http2Limits) -> None:
    """Look at the size before the fields: a table lets a client send large ones for a byte each."""
    size = sum([len(name) + len(value) + FIELD_OVERHEAD for name, value in fields])
    if size > limits.header_list_bytes:
        limit = f"limit {limits.header_list_bytes:,}"
        raise RequestError("header_too_large", f"the header list is {size:,} bytes, {limit}", 431)


def _target(method: bytes, pseudo: dict[bytes, bytes]) -> bytes:
    """Check :scheme and :path (RFC 9113 section 8.3.1); return the path."""
    # Which of the two schemes it is says nothing: proxies before us tell what their own client used.
    if pseudo.get(b":scheme") not in _SCHEMES:
        raise malformed("bad_pseudo_field", "the request has no :scheme, or one other than http and https")
    path = pseudo.get(b":path", b"")
    is_path = path.startswith(b"/") or (path == b"*" and method == b"OPTIONS")
    if not is_path or not _PATH.fullmatch(path):
        raise malformed("bad_target", "the request has no :path, or a malformed one")
    return path


def _host(authority: bytes | None, hosts: list[bytes]) -> bytes:
    """Return whom the request is for; Host may say so too, but nothing else (RFC 9113 section 8.3.1)."""
    if len(hosts) > 1 or (authority is None and not hosts):
        raise malformed("bad_host", f"the request has no :authority and {len(hosts)} Host fields")
    host = hosts[0] if authority is None else authority
    if not grammar.HOST.fullmatch(host):
        raise malformed("bad_host", "the authority is not a host name or address with an optional port")
    if hosts and hosts[0].lower() != host.lower():
        raise malformed("host_mismatch", "the Host field differs from :authority")
    return host


def _body(lengths: list[bytes], is_whole: bool) -> tuple[BodyKind, int]:
    if not lengths:
        return (BodyKind.NONE if is_whole else BodyKind.CHUNKED), 0
    length = content_length(lengths)
    if is_whole and length:
        raise malformed("bad_content_length", f"Content-Length is {length:,}, and the request has no body")
    return (BodyKind.LENGTH if length else BodyKind.NONE), length


def _plain_connect(pseudo: dict[bytes, bytes]) -> RequestError:
    """Return what is wrong with a CONNECT for a tunnel (RFC 9113 section 8.5): at the least, that we make none."""
    if b":scheme" in pseudo or b":path" in pseudo or not grammar.HOST.fullmatch(pseudo.get(b":authority", b"")):
        return malformed("bad_pseudo_field", "a CONNECT has more or less than an :authority")
    return RequestError("method_refused", "method CONNECT is not proxied", 405)


def _websocket(
    protocol: bytes, target: bytes, host: bytes, section: _Section, websocket_key: Callable[[], bytes]
) -> RequestHead:
    """Make of an extended CONNECT (RFC 8441 sections 4 and 5) the request that opens a WebSocket in HTTP/1.1."""
    if protocol.lower() != b"websocket":
        raise RequestError("unsupported_protocol", f"CONNECT for the protocol {quote(protocol)} is not proxied", 501)
    if section.lengths:
        raise malformed("bad_content_length", "a CONNECT has Content-Length")
    lines = section.with_host(host) + _UPGRADE_LINES
    if not section.has(b"sec-websocket-key"):
        lines += b"sec-websocket-key: %b\r\n" % websocket_key()
    upgrade = (b"websocket",)
    return RequestHead(b"GET", target, 1, Fields(lines), host, BodyKind.NONE, 0, (b"upgrade",), True, upgrade)


# -- responses --------------------------------------------------------------------------------------------------


class ResponseWriter:
    """
    Writes the header blocks of the responses to one client, which must be sent in the order in which they are made.

    A head that is sent once more just as it was is not compressed again.
    """

    __slots__ = ("_encoder", "_remembered", "_remembered_at", "_remembered_of")

    def __init__(self) -> None:
        self._encoder = FieldEncoder()
        self._remembered_of: tuple[int, bytes, bool] | None = None
        self._remembered_at = 0  # the state of the table in which it is good
        self._remembered = b""

    def set_table_bytes(self, size: int) -> None:
        """The client sets the size of the table (SETTINGS_HEADER_TABLE_SIZE)."""
        self._encoder.set_table_bytes(size)

    def head(self, status: int, section: bytes, *, is_tunnel: bool) -> bytes:
        """
        Return the block of a response head, or an interim one.

        Args:
            section: Field lines as for HTTP/1.1.
            is_tunnel: Whether it answers an extended CONNECT.
        """
        encoder = self._encoder
        key = status, section, is_tunnel
        if key == self._remembered_of and encoder.changes == self._remembered_at:
            return self._remembered
        changes = encoder.changes
        block = encoder.status(status) + encoder.fields(response_fields(section, is_tunnel=is_tunnel))
        if encoder.changes == changes and len(section) <= MAX_REMEMBERED_BYTES:
            self._remembered_of, self._remembered_at, self._remembered = key, changes, block
        return block

    def trailers(self, section: bytes) -> bytes:
        """Return the block of a trailer section; b"" if nothing of it can be sent."""
        return self._encoder.fields(response_fields(section))


def response_fields(section: bytes, *, is_tunnel: bool = False) -> list[Field]:
    """
    Return the fields of an HTTP/1.1 header or trailer *section* that passed its checks, as HTTP/2 has them.

    Args:
        is_tunnel: Whether it answers an extended CONNECT: RFC 8441 section 5 has no Sec-WebSocket-Accept.
    """
    fields = message_fields(section)
    return [field for field in fields if field[0] != b"sec-websocket-accept"] if is_tunnel else fields
