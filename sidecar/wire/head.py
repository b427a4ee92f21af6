"""
Bytes of a complete head to `RequestHead` / `ResponseHead`, or a refusal that says which rule was broken.

One pattern decides whether a head is well-formed; only when it is not, a slower second look finds out why.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import RequestError, ResponseError
from sidecar.wire import framing, grammar, target
from sidecar.wire.events import BodyKind, InterimHead, RequestHead, ResponseHead
from sidecar.wire.fields import Fields

# RFC 9110 section 9.3.6 and 9.3.8: CONNECT makes a tunnel, TRACE echoes what we added. Neither is for the app.
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})

_TIMEOUT: Final = re.compile(rb"[ \t]*+timeout[ \t]*+=[ \t]*+\"?([0-9]{1,9})\"?[ \t]*+", re.IGNORECASE)


def parse_request_head(head: bytes, max_headers: int) -> RequestHead:
    """
    Parse the head of a request (RFC 9112 sections 3 and 5).

    Args:
        head: Everything up to and including the empty line; its size was checked by the caller.
        max_headers: Most field lines allowed.

    Raises:
        RequestError: The head is malformed or ambiguous (400), has too many fields (431), a version that is not
            1.x (505), a method that is not proxied (405) or a transfer coding we do not forward (501).
    """
    match = grammar.REQUEST_HEAD.fullmatch(head)
    if match is None:
        raise _explain_request(head)
    method, request_target, major, minor = match.groups()
    if major != b"1":
        raise RequestError("unsupported_version", f"version is {_text(major)}.{_text(minor)}, we speak 1.1", 505)
    fields = Fields(head[match.end(4) + 2 : -2])
    names = fields.names
    if len(names) > max_headers:
        raise RequestError("too_many_headers", f"head has {len(names)} fields, limit {max_headers}", 431)
    if method.upper() in REFUSED_METHODS:  # methods have a case, but not every app heeds it
        raise RequestError("method_refused", f"method {_text(method)} is not proxied", 405)
    minor_version = 0 if minor == b"0" else 1
    host = _host(method, request_target, minor_version, fields)
    body, length = framing.request_body(fields, minor_version)
    keep_alive = minor_version == 1
    options: tuple[bytes, ...] = ()
    upgrade: tuple[bytes, ...] = ()
    if b"connection" in names:
        tokens = fields.tokens(b"connection")
        if tokens is None:
            raise RequestError("bad_connection", "the Connection field is not a list of tokens")
        options = tuple(tokens)
        keep_alive = _keep_alive(minor_version, options)
        # RFC 9110 section 7.8: only in HTTP/1.1, and only if Connection nominates it. A request with a body goes on as
        # an ordinary one, as the RFC allows: nobody could tell where its body ends and the new protocol begins.
        if b"upgrade" in options and minor_version == 1 and body is BodyKind.NONE:
            upgrade = _upgrade(fields)
    return RequestHead(method, request_target, minor_version, fields, host, body, length, options, keep_alive, upgrade)


def parse_response_head(head: bytes, max_headers: int, request_method: bytes) -> ResponseHead | InterimHead:
    """
    Parse the head of a response (RFC 9112 sections 4 and 5).

    Args:
        head: Everything up to and including the empty line.
        max_headers: Most field lines allowed.
        request_method: Method of the request being answered; decides whether there is a body.

    Raises:
        ResponseError: The head is malformed or ambiguous, or has too many fields.
    """
    match = grammar.RESPONSE_HEAD.fullmatch(head)
    if match is None:
        raise ResponseError("bad_response_head", "the response head is malformed: " + _first_bad_line(head))
    minor, code, reason = match.groups()
    fields = Fields(head[match.end(3) + 2 : -2])
    names = fields.names
    if len(names) > max_headers:
        raise ResponseError("too_many_headers", f"response head has {len(names)} fields, limit {max_headers}")
    status = int(code)
    if status > 599:
        raise ResponseError("bad_status", f"status is {status}, limit 599")
    if status < 200 and status != 101:
        return InterimHead(status, reason, fields)
    minor_version = 0 if minor == b"0" else 1
    body, length = framing.response_body(fields, status, request_method, minor_version)
    keep_alive = minor_version == 1
    options: tuple[bytes, ...] = ()
    if b"connection" in names:
        tokens = fields.tokens(b"connection")
        # An unreadable Connection field of the app: its other fields are still good, its connection is not reused.
        options = tuple(tokens or ())
        keep_alive = tokens is not None and _keep_alive(minor_version, options)
    return ResponseHead(status, reason, minor_version, fields, body, length, options, keep_alive)


def keep_alive_seconds(fields: Fields) -> int | None:
    """
    Return what a Keep-Alive field promises: ``Keep-Alive: timeout=5, max=100`` (RFC 2068 section 19.7.1.1).

    The least, if there are several; None if there is no readable one.
    """
    found = [_TIMEOUT.fullmatch(member) for value in fields.values(b"keep-alive") for member in value.split(b",")]
    return min((int(match[1]) for match in found if match is not None), default=None)


def _keep_alive(minor_version: int, options: tuple[bytes, ...]) -> bool:
    """RFC 9112 section 9.3: close wins; 1.1 persists by default, 1.0 only when asked."""
    if b"close" in options:
        return False
    return minor_version == 1 or b"keep-alive" in options


def _host(method: bytes, request_target: bytes, minor_version: int, fields: Fields) -> bytes:
    """
    Check Host and the form of the target; return the authority (RFC 9112 sections 3.2 and 3.2.2).

    Raises:
        RequestError: Host is missing, repeated or malformed, or contradicts an absolute-form target.
    """
    count = fields.names.count(b"host")
    if count != 1 and (count or minor_version == 1):
        raise RequestError("bad_host", f"a request needs exactly one Host field, this one has {count}")
    host = fields.first(b"host").strip(b" \t") if count else b""
    if count and not grammar.HOST.fullmatch(host):
        raise RequestError("bad_host", "the Host field is not a host name or address with an optional port")
    authority = target.check(method, request_target)
    if authority is None:
        return host
    if count and authority.lower() != host.lower():
        raise RequestError("host_mismatch", "the Host field differs from the authority in the request target")
    return authority


def _upgrade(fields: Fields) -> tuple[bytes, ...]:
    """
    Return the offered protocols, lower case, less h2c (RFC 9113 section 3.1 took its upgrade away) and what is no
    protocol: an app may read h2c where we do not, as when octets above 0x7f around it are blanks to it.
    """
    offered = [p.strip(b" \t").lower() for value in fields.values(b"upgrade") for p in value.split(b",")]
    return tuple(p for p in offered if grammar.PROTOCOL.fullmatch(p) and p.partition(b"/")[0] != b"h2c")


def _explain_request(head: bytes) -> RequestError:
    """Find the rule that *head*, which did not match as a whole, breaks."""
    line = grammar.REQUEST_LINE.match(head)
    if line is None:
        first = head.partition(b"\r\n")[0]
        if re.search(rb"HTTP/[0-9]\.[0-9]$", first) is None:
            return RequestError("bad_request_line", "the request line does not end in an HTTP version")
        return RequestError("bad_request_line", "the request line is malformed: " + _quote(first))
    return RequestError("bad_header", "a header line is malformed: " + _first_bad_line(head))


def _first_bad_line(head: bytes) -> str:
    """
    Name what is wrong with the first malformed line; only the *name* of a field is quoted, its value may be secret.
    """
    for line in head[:-2].split(b"\r\n")[1:]:
        if line and not re.fullmatch(grammar.FIELD_LINE, line + b"\r\n"):
            return _explain_line(line)
    return "the first line"


def _explain_line(line: bytes) -> str:
    name, colon, value = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return "a line that begins with a blank (obs-fold)"
    if not colon:
        return "a line without a colon"
    if not grammar.TOKEN.fullmatch(name):
        return f"the field name {_quote(name)} has characters that a name may not have"
    if b"\n" in value or b"\r" in value:
        return f"the value of {_quote(name)} holds a bare CR or LF"
    return f"the value of {_quote(name)} holds a control character"


def _quote(data: bytes) -> str:
    """Show at most 40 bytes of a peer's data, escaped."""
    return repr(data[:40])[1:]


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")
