"""
Tells operators of clients that were turned away by TLS or by their certificates: remembered, counted, logged.

Under a flood the same line would come with every client, so each reason is logged at most every `PAUSE_SECONDS`, with
the number of those in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs
from twisted.logger import Logger

from sidecar.observe.handshakes import Rejection, Rejections, ShownCertificate
from sidecar.observe.metrics import Metrics
from sidecar.policy.authz import Refusal
from sidecar.tls.hello import read_client_hello
from sidecar.tls.server import TlsServer
from sidecar.tls.session import TlsSession
from sidecar.tls.verify import Verification, refused_verification
from sidecar.wire.proxyproto import begins

PAUSE_SECONDS: Final = 10.0

_QUIET: Final = frozenset({"closed_by_peer", "ping"})
"""Load balancers and scanners connect and leave all day long."""

_log = Logger()


@attrs.define(eq=False, repr=False)
class _Noted:
    at: float
    since: int = 0


@attrs.define(eq=False, repr=False)
class Rejecter:
    """
    Attributes:
        metrics: Where they are counted, by reason.
        now: The clock, in seconds.
        rejections: What is remembered.
    """

    metrics: Metrics
    now: Callable[[], float]
    rejections: Rejections = attrs.field(factory=Rejections)
    _noted: dict[str, _Noted] = attrs.field(factory=dict, init=False)

    def handshake_failed(self, client: str, tls: TlsServer, reason: str, message: str) -> None:
        """A handshake came to nothing; *reason* is that of a `TlsError`, or of the connection."""
        verification = refused_verification(tls.connection)
        if verification is not None and verification.reason is not None:
            reason, message = verification.reason.value, verification.reason.sentence
        if reason == "closed_by_peer" and not tls.early_bytes:
            reason = "ping"
        elif begins(tls.early_bytes):
            reason = "proxy_header_unexpected"
            message = "the connection begins with a PROXY header, which is not looked for here"
        self.metrics.handshake_failed(reason)
        if reason in _QUIET:
            return
        hello = read_client_hello(tls.early_bytes)
        self._add(
            Rejection(
                client=client,
                reason=reason,
                message=message,
                answer="400" if reason == "plain_http" else "alert",
                server_name=hello.server_name if hello is not None else None,
                versions=hello.versions if hello is not None else (),
                certificate=_shown(verification),
            )
        )

    def connection_refused(self, client: str, reason: str, message: str) -> None:
        """A connection was cut before its handshake, for what it began with."""
        self.metrics.handshake_failed(reason)
        self._add(Rejection(client=client, reason=reason, message=message, answer="reset"))

    def http2_broken(self, client: str, session: TlsSession, reason: str, message: str) -> None:
        """A client's HTTP/2 connection was ended for a rule or limit that it broke."""
        self._add(
            Rejection(
                client=client,
                reason=reason,
                message=message,
                answer="GOAWAY",
                server_name=session.server_name,
                versions=(session.version,),
                certificate=_shown(session.verification),
            )
        )

    def request_refused(self, client: str, session: TlsSession, refusal: Refusal, path: str = "") -> None:
        """A client's certificate, or the lack of one, was the reason for *refusal* of a request for *path*."""
        verification = session.verification
        flaw = verification.reason
        reason = refusal.reason if flaw is None else flaw.value
        self.metrics.client_rejected(reason)
        self._add(
            Rejection(
                client=client,
                reason=reason,
                message=refusal.detail or refusal.message,
                answer=str(refusal.status),
                server_name=session.server_name,
                versions=(session.version,),
                certificate=_shown(verification),
            ),
            path,
        )

    def _add(self, event: Rejection, path: str = "") -> None:
        self.rejections.add(event, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), path)
        now = self.now()
        noted = self._noted.get(event.reason)
        if noted is not None and now - noted.at < PAUSE_SECONDS:
            noted.since += 1
            return
        self._noted[event.reason] = _Noted(now)
        since = (
            f"; {noted.since} more since the last line, see /handshakes" if noted is not None and noted.since else ""
        )
        _log.warn("{event}{since}", event=_line(event, path), since=since)


def _line(event: Rejection, path: str) -> str:
    certificate = event.certificate
    facts = {
        "path": path,
        "reason": event.reason,
        "answer": event.answer,
        "sni": event.server_name,
        "offered": ",".join(event.versions),
    }
    if certificate is not None:
        facts |= {
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "sans": ",".join(certificate.sans),
            "serial": certificate.serial,
            "not_after": certificate.not_after,
        }
    written = " ".join(f"{name}={value!r}" for name, value in facts.items() if value)
    hint = f"; {event.hint}" if event.hint else ""
    return f"client {event.client} was turned away: {event.message} [{written}]{hint}"


def _shown(verification: Verification | None) -> ShownCertificate | None:
    identity = verification.identity if verification is not None else None
    if identity is None:
        return None
    kinds = (("DNS", identity.dns), ("URI", identity.uri), ("email", identity.email), ("IP", identity.ip))
    return ShownCertificate(
        subject=identity.subject,
        issuer=identity.issuer,
        sans=tuple(f"{kind}:{name}" for kind, names in kinds for name in names),
        serial=identity.serial,
        not_after=_rfc3339(identity.not_after),
    )


def _rfc3339(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    except (OverflowError, ValueError, OSError):
        return f"{moment:.0f}"  # a year that the C library has no name for
