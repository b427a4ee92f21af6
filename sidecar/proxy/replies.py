"""
Responses that we originate: one table, one rendering.

The body says what happened in one sentence, as text or, for clients that accept it, as JSON; details stay in the log.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from sidecar.topology import DirectResponse
from sidecar.wire.fields import Fields

RETRY_AFTER_SECONDS: Final = 1

# Reason token -> (status, sentence for the client). Reasons of `ProtocolError`s bring their own status and sentence.
REPLIES: Final = {
    "header_timeout": (408, "The request head did not arrive in time."),
    "body_timeout": (408, "The request body did not arrive in time."),
    "plain_http": (400, "This port speaks HTTPS; the request came as plain HTTP. Use https:// in the URL."),
    "upstream_connect_refused": (502, "The app behind this proxy does not accept connections."),
    "upstream_connect_timeout": (502, "The app behind this proxy did not accept the connection in time."),
    "upstream_unreachable": (502, "The app behind this proxy cannot be reached."),
    "upstream_not_started": (503, "The app behind this proxy has not started yet."),
    "upstream_reset": (502, "The app behind this proxy closed the connection without a response."),
    "upstream_invalid_response": (502, "The app behind this proxy sent an invalid response."),
    "upstream_timeout": (504, "The app behind this proxy did not respond in time."),
    "drain_timeout": (503, "This proxy is shutting down."),
    "upstream_overflow": (503, "Too many connections to the app behind this proxy are in use."),
    "upstream_tls_failed": (502, "The connection to the app behind this proxy could not be secured."),
    "no_healthy_upstream": (503, "No instance of the app behind this proxy is available."),
    "no_route": (404, "No route of this proxy leads to what was asked for."),
}


def wants_json(fields: Fields | None) -> bool:
    """Whether a client asked for JSON: it named application/json, and did not name text before it."""
    if fields is None or b"accept" not in fields.names:
        return False
    accept = b",".join(fields.values(b"accept")).lower()
    json_at = accept.find(b"application/json")
    text_at = accept.find(b"text/")
    return json_at >= 0 and (text_at < 0 or json_at < text_at)


def render(
    status: int,
    reason: str,
    message: str,
    *,
    as_json: bool = False,
    with_body: bool = True,
) -> bytes:
    """
    Return a whole response.

    Args:
        status: Status code.
        reason: Token for programs; also in the JSON body.
        message: One sentence.
        as_json: Whether the body is JSON.
        with_body: False for the answer to HEAD: its fields without its body.

    The connection ends after it. A 503 says when it is worth trying again.
    """
    if as_json:
        body = json.dumps({"status": status, "reason": reason, "message": message}).encode() + b"\n"
        content_type = b"application/json"
    else:
        body = f"{message}\n".encode()
        content_type = b"text/plain; charset=utf-8"
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%b\r\n" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type,
        len(body),
        b"Retry-After: %d\r\nConnection: close\r\n" % RETRY_AFTER_SECONDS
        if status == 503
        else b"Connection: close\r\n",
    )
    return head + body if with_body else head


def direct(response: DirectResponse, *, keep_alive: bool) -> bytes:
    """Return the response of a route that answers by itself."""
    fields = [b"Content-Type: %b\r\n" % response.content_type.encode()] if response.body else []
    return _whole(response.status, fields, response.body.encode(), keep_alive)


def redirect(status: int, location: bytes, *, keep_alive: bool) -> bytes:
    """Return the response that sends a client to *location*, an absolute URL."""
    body = b"See %b\n" % location
    fields = [b"Location: %b\r\n" % location, b"Content-Type: text/plain; charset=utf-8\r\n"]
    return _whole(status, fields, body, keep_alive)


def _whole(status: int, fields: list[bytes], body: bytes, keep_alive: bool) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:  # one of an operator's own
        phrase = b""
    if status not in (204, 304):  # which have no body, RFC 9110 sections 15.3.5 and 15.4.5
        fields = [*fields, b"Content-Length: %d\r\n" % len(body)]
    else:
        body = b""
    closing = b"" if keep_alive else b"Connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (status, phrase, b"".join(fields), closing, body)
