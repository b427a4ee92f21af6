"""Whether a connection may be served, given what its client certificate was worth."""

from __future__ import annotations

import attrs

from sidecar.settings import ClientCertMode


@attrs.frozen
class Refusal:
    """
    Why requests of a connection are refused.

    Attributes:
        status: What they are answered with: 400 for no certificate (as nginx does), 403 for one that does not do.
        reason: Token for logs and metrics.
        message: One sentence for the client.
        detail: What the operator is told beside the reason.
    """

    status: int
    reason: str
    message: str
    detail: str = ""


def authorize(mode: ClientCertMode, *, has_certificate: bool, flaw: str | None) -> Refusal | None:
    """
    Decide about a connection after its handshake.

    Args:
        mode: What the listener demands.
        has_certificate: Whether the client showed a certificate.
        flaw: Why that certificate could not be verified, as a sentence; None if it could.

    Returns:
        None if its requests are to be forwarded.
    """
    if mode is ClientCertMode.NONE:
        return None
    if flaw is not None:
        return Refusal(403, "client_certificate_invalid", f"Refused: {flaw}.", flaw)
    if mode is ClientCertMode.REQUIRED and not has_certificate:
        return Refusal(400, "client_certificate_missing", "This server requires a client certificate; none was sent.")
    return None
