"""
The last clients that were turned away by TLS, each with what an operator needs to know: a bounded memory of events.

The listener adds to it, the log takes what is new from it, the admin endpoint shows it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import attrs

from sidecar.values import Value

MOST_EVENTS: Final = 100
"""Older ones are forgotten."""

_MOST_SANS: Final = 8
_LONGEST_VALUE: Final = 256
"""Characters of a value that a client chose."""


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"


def _cut_all(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_cut(value) for value in values[:_MOST_SANS])


@attrs.frozen(eq=False, repr=False)
class ShownCertificate(Value):
    """
    The certificate that a client showed. Public facts, chosen by whoever made it.

    Attributes:
        subject, issuer: RFC 4514 strings.
        sans: As `certs.describe` writes them; the first few.
        serial: Lower-case hexadecimal.
        not_after: RFC 3339.
    """

    subject: str = attrs.field(converter=_cut)
    issuer: str = attrs.field(converter=_cut)
    sans: tuple[str, ...] = attrs.field(converter=_cut_all)
    serial: str = attrs.field(converter=_cut)
    not_after: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Rejection(Value):
    """
    A client that was turned away.

    Attributes:
        client: Its address.
        reason: Token, as in the metrics.
        message: The same in words.
        answer: How the client heard of it: ``alert``, or the HTTP status.
        server_name: What it asked for; None if nothing, or if it did not come so far.
        versions: TLS versions that it offered; empty if it did not come so far.
        certificate: What it showed, if anything readable.
    """

    client: str
    reason: str
    message: str = attrs.field(converter=_cut)
    answer: str
    server_name: str | None = attrs.field(default=None, converter=attrs.converters.optional(_cut))
    versions: tuple[str, ...] = ()
    certificate: ShownCertificate | None = None

    @property
    def hint(self) -> str:
        """What an operator can do about it."""
        return HINTS.get(self.reason, "")


@attrs.define(eq=False, repr=False)
class _Repeated:
    event: Rejection
    first: str
    last: str
    last_path: str
    count: int = 1


class Rejections:
    """The last `MOST_EVENTS` different ones. Equal ones are counted, whenever they come."""

    def __init__(self) -> None:
        self._events: OrderedDict[Rejection, _Repeated] = OrderedDict()

    def add(self, event: Rejection, moment: str, path: str = "") -> int:
        """
        Take note of *event*.

        Args:
            moment: Now, as RFC 3339.
            path: What was asked for, without query; only the last is kept of an event that comes again.

        Returns:
            How often it has come, this time included: 1 for something new.
        """
        known = self._events.get(event)
        if known is not None:
            known.count += 1
            known.last, known.last_path = moment, _cut(path)
            self._events.move_to_end(event)
            return known.count
        if len(self._events) >= MOST_EVENTS:
            self._events.popitem(last=False)
        self._events[event] = _Repeated(event, moment, moment, _cut(path))
        return 1

    def as_json(self) -> list[dict[str, Any]]:
        """Return the events for `json.dumps`, the last first."""
        return [
            {
                "first": known.first,
                "last": known.last,
                "count": known.count,
                "path": known.last_path,
                **attrs.asdict(known.event),
                "hint": known.event.hint,
            }
            for known in reversed(self._events.values())
        ]


_RENEW: Final = "renew the client's certificate"
_TRUST: Final = "add its issuer to SIDECAR_CLIENT_CA, or give the client a certificate from a CA that is in it"
_OURS: Final = "give the client the CA of our certificate, or serve one from a CA that it knows (see /certs)"

HINTS: Final = {
    "proxy_header_missing": (
        "switch the PROXY protocol on in what is in front (NLB: proxy_protocol_v2.enabled of the target group; "
        "haproxy: send-proxy-v2), or do without it (SIDECAR_PROXY_PROTOCOL, SIDECAR_PROXY_PROTOCOL_MISSING)"
    ),
    "proxy_header_untrusted": "if it is your balancer, add its addresses to SIDECAR_TRUSTED_PROXIES",
    "proxy_header_unexpected": (
        "set SIDECAR_PROXY_PROTOCOL and SIDECAR_TRUSTED_PROXIES, or switch the PROXY protocol off in the balancer"
    ),
    "expired": _RENEW,
    "not_yet_valid": "compare the clocks of the client's CA and of this machine",
    "unknown_ca": f"{_TRUST}; if that name is there already, the CA was made anew with another key",
    "self_signed": _TRUST,
    "wrong_purpose": "let the client show a certificate with extended key usage clientAuth, not a server's or a CA's",
    "revoked": "expected after a revocation; else look at the revocation list",
    "chain_too_long": "let the client use a shorter chain, or raise SIDECAR_CLIENT_DEPTH",
    "bad_signature": "the certificate was changed after its CA signed it, or names the wrong issuer",
    "too_weak": "issue it again with RSA of 2048 bits or more, or ECDSA P-256, and SHA-256",
    "no_crl": "add the revocation list of its CA to SIDECAR_CLIENT_CRL",
    "crl_overdue": "fetch a current revocation list",
    "crl_invalid": "fetch the revocation list again, and compare the clocks",
    "client_certificate_missing": "give the client a certificate; health checks can be let in by path "
    "(SIDECAR_CLIENT_CERT_EXEMPT, with SIDECAR_CLIENT_REFUSAL=http)",
    "client_not_authorized": "add the client to SIDECAR_CLIENT_ALLOW or to the rules, if it is to be let in",
    "unsupported_version": "update the client, which speaks no TLS version that is served here",
    "no_shared_cipher": "update the client, which offers no cipher suite that is served here",
    "no_shared_group": "update the client, which offers no key exchange that is served here",
    "no_shared_alpn": "let the client offer http/1.1 or h2; gRPC, which offers h2 alone, needs SIDECAR_HTTP2=on",
    "plain_http": "use https:// in the client's URL",
    "client_rejects_our_ca": _OURS,
    "client_rejects_our_certificate": _OURS,
    **{
        reason: f"if it is a client of yours, raise SIDECAR_HTTP2_MAX_{setting}"
        for reason, setting in {
            "continuation_flood": "CONTINUATIONS",
            "reset_flood": "RESETS",
            "unread_replies": "CONTROL_BYTES",
            "settings_flood": "SETTINGS",
            "ping_flood": "PINGS",
            "priority_flood": "PRIORITIES",
            "window_update_flood": "WINDOW_UPDATES",
            "empty_data_flood": "EMPTY_DATA",
            "padding_flood": "PADDED_DATA",
            "unknown_frame_flood": "UNKNOWN_FRAMES",
            "closed_stream_flood": "LATE_FRAMES",
        }.items()
    },
    "header_bomb": "if it is a client of yours, raise SIDECAR_MAX_HEADER_BYTES or SIDECAR_MAX_HEADERS",
    "handshake_timeout": "look at what is between us; a client that connects in advance needs no mending",
}
"""What an operator can do, by reason."""
