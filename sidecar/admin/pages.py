"""What the admin endpoint answers: path and a snapshot of the program to status, type and body. Pure; read-only."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import attrs

from sidecar.admin import prometheus
from sidecar.certs import describe

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
PEM: Final = "application/x-pem-file"


@attrs.frozen(kw_only=True)
class Snapshot:
    """
    The program as it is now.

    Attributes:
        now: The moment; has a time zone.
        figures: Counters and the served certificate.
        certificate_sources: Where each certificate came from; ``ephemeral`` for one that was made here.
        rejections: As `observe.handshakes.Rejections.as_json` gives them.
        certificate_pem: Leaf and chain of the default; public by nature.
        not_ready: Why no traffic should be sent here; empty if it should.
    """

    now: datetime
    figures: prometheus.Figures
    certificate_sources: tuple[str, ...]
    certificate_pem: bytes
    rejections: list[dict[str, Any]]
    not_ready: tuple[str, ...]


@attrs.frozen
class Page:
    """An answer; `allow` names the methods where the one used is not among them."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""


_PATHS: Final = {
    "/": "this list",
    "/live": "200 while the process answers",
    "/ready": "200 if traffic should be sent here, else 503 with the reasons",
    "/stats/prometheus": "metrics",
    "/handshakes": "the last 100 clients that were turned away by TLS or for their certificates, and why, as JSON",
    "/certs": "the certificates being served, as JSON",
    "/certs/server.pem": "the default one as PEM: what `curl --cacert` wants for a self-made certificate",
}


def respond(method: str, path: str, snapshot: Snapshot) -> Page:
    """
    Answer a request.

    Args:
        method: Only GET and HEAD are allowed.
        path: Without query string.
        snapshot: What there is to show.
    """
    if path not in _PATHS:
        return _text(404, f"There is no {path[:200]!r} here. Known: {', '.join(_PATHS)}\n")
    if method not in ("GET", "HEAD"):
        return attrs.evolve(_text(405, "This endpoint is read-only.\n"), allow="GET, HEAD")
    if path == "/live":
        return _text(200, "live\n")
    if path == "/ready":
        return _ready(snapshot)
    if path == "/stats/prometheus":
        return _metrics(snapshot)
    if path == "/handshakes":
        return _json(200, {"rejections": snapshot.rejections})
    if path == "/certs":
        return _certs(snapshot)
    if path == "/certs/server.pem":
        return Page(200, PEM, snapshot.certificate_pem)
    return _text(200, "".join(f"{known:<20} {meaning}\n" for known, meaning in _PATHS.items()))


def _metrics(snapshot: Snapshot) -> Page:
    try:
        body, content_type = prometheus.exposition(snapshot.figures)
    except OSError as error:  # at the first scrape a library is loaded, and there may be no descriptor left for it
        return _text(503, f"The metrics cannot be made now: {error.strerror}.\n")
    return Page(200, content_type, body)


def _ready(snapshot: Snapshot) -> Page:
    reasons = snapshot.not_ready
    return _json(503 if reasons else 200, {"ready": not reasons, "reasons": list(reasons)})


def _certs(snapshot: Snapshot) -> Page:
    served = zip(snapshot.certificate_sources, snapshot.figures.certificates, strict=True)
    certificates = [{"source": source, **describe.as_json(summary, snapshot.now)} for source, summary in served]
    return _json(200, {"certificates": certificates})


def _text(status: int, text: str) -> Page:
    return Page(status, TEXT, text.encode())


def _json(status: int, value: Any) -> Page:
    return Page(status, JSON, json.dumps(value, indent=2).encode() + b"\n")
