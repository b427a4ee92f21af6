"""
Responses that we originate: one table, one rendering for each version of HTTP.

The body says what happened in one sentence, as text or, for clients that accept it, as JSON; details stay in the log.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

import attrs

from sidecar.topology import DirectResponse
from sidecar.values import Value
from sidecar.wire.fields import Fields

RETRY_AFTER_SECONDS: Final = 1

_CONTENT_TYPE: Final = b"Content-Type: %b\r\n"
_CONTENT_LENGTH: Final = b"Content-Length: %d\r\n"

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
    "upstream_not_http1": (502, "The app behind this proxy speaks HTTP/2 where HTTP/1.1 was expected."),
    "upstream_not_http2": (502, "The app behind this proxy does not speak HTTP/2 without TLS (h2c)."),
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


@attrs.frozen(eq=False, repr=False)
class Reply(Value):
    """
    A whole response of ours.

    Attributes:
        fields: Field lines, Content-Length among them where there may be a body.
        body: b"" where the status has none.
    """

    status: int
    fields: bytes
    body: bytes

    def http1(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """
        Return it as HTTP/1.1.

        Args:
            keep_alive: Whether the connection goes on after it.
            with_body: False for the answer to HEAD: its fields without its body.
        """
        try:
            phrase = HTTPStatus(self.status).phrase.encode()
        except ValueError:  # one of an operator's own
            phrase = b""
        closing = b"" if keep_alive else b"Connection: close\r\n"
        body = self.body if with_body else b""
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (self.status, phrase, self.fields, closing, body)


def refusal(status: int, reason: str, message: str, *, as_json: bool = False) -> Reply:
    """
    Return the response that says why there is no other. A 503 says when it is worth trying again.

    Args:
        reason: Token for programs; also in the JSON body.
        message: One sentence.
        as_json: Whether the body is JSON.
    """
    if as_json:
        body = json.dumps({"status": status, "reason": reason, "message": message}).encode() + b"\n"
        content_type = b"application/json"
    else:
        body = f"{message}\n".encode()
        content_type = b"text/plain; charset=utf-8"
    fields = [_CONTENT_TYPE % content_type, _CONTENT_LENGTH % len(body), b"Cache-Control: no-store\r\n"]
    if status == 503:
        fields.append(b"Retry-After: %d\r\n" % RETRY_AFTER_SECONDS)
    return Reply(status, b"".join(fields), body)


def direct(response: DirectResponse) -> Reply:
    """Return the response of a route that answers by itself."""
    fields = _CONTENT_TYPE % response.content_type.encode() if response.body else b""
    return _whole(response.status, fields, response.body.encode())


def redirect(status: int, location: bytes) -> Reply:
    """Return the response that sends a client to *location*, an absolute URL."""
    fields = b"Location: %b\r\n" % location + _CONTENT_TYPE % b"text/plain; charset=utf-8"
    return _whole(status, fields, b"See %b\n" % location)


def _whole(status: int, fields: bytes, body: bytes) -> Reply:
    if status in (204, 304):  # which have no body, RFC 9110 sections 15.3.5 and 15.4.5
        return Reply(status, fields, b"")
    return Reply(status, fields + _CONTENT_LENGTH % len(body), body)


# -- gRPC -------------------------------------------------------------------------------------------------------

# What a gRPC client makes of an HTTP status that has no grpc-status with it; so ours says the same, and why.
_GRPC_STATUS: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_GRPC_UNKNOWN: Final = 2

# Over a limit of ours the usual code says more than «unknown».
_GRPC_RESOURCE_EXHAUSTED: Final = 8
_TOO_LARGE: Final = frozenset({413, 414, 431})

_GRPC_UNAVAILABLE: Final = 14
_GRPC_BY_REASON: Final = {"client_certificate_missing": 16}  # UNAUTHENTICATED: 400 would be INTERNAL, a bug of the app


def is_grpc(fields: Fields) -> bool:
    """Whether a request is a gRPC call, by its Content-Type; gRPC-Web is none, its clients read HTTP statuses."""
    if b"content-type" not in fields.names:
        return False
    content_type = fields.first(b"content-type").strip(b" \t").lower()
    return content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+", b";")


def grpc_refusal(status: int, reason: str, message: str) -> Reply:
    """
    Return the same as `refusal` for a gRPC client, who looks for grpc-status: a response of trailers only.

    Args:
        status: That other clients get.
    """
    code = _GRPC_RESOURCE_EXHAUSTED if status in _TOO_LARGE else _GRPC_STATUS.get(status, _GRPC_UNKNOWN)
    code = _GRPC_BY_REASON.get(reason, code)
    return Reply(200, b"Content-Type: application/grpc\r\n" + _grpc_lines(code, reason, message), b"")


def grpc_trailers(reason: str) -> bytes:
    """Return the trailers that end a call whose answer had begun, and will not go on: it can be made again."""
    message = REPLIES[reason][1] if reason in REPLIES else "The answer of the app behind this proxy broke off."
    return _grpc_lines(_GRPC_UNAVAILABLE, reason, message)


def _grpc_lines(code: int, reason: str, message: str) -> bytes:
    text = "".join(c if " " <= c <= "~" and c != "%" else _percent(c) for c in f"{message} ({reason})")
    return b"grpc-status: %d\r\ngrpc-message: %b\r\n" % (code, text.encode())


def _percent(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())
