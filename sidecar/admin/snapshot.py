"""
A snapshot of the program, for a composition root that is no `Operator` itself: what it holds, and the pages that can be
made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs

from sidecar.admin.operator import Certificates, Check, CheckState, Readiness, ServedCertificate
from sidecar.certs.describe import CertSummary
from sidecar.observe.metrics import Dump, Metrics


@attrs.frozen(kw_only=True)
class Figures:
    """
    What a scrape shows.

    Attributes:
        metrics: The counters.
        certificates: Those being served, the default first.
        upstream_connections: Open now, to the app.
        upstream_idle: Those among them that wait for a request.
        upstream_connects, upstream_connect_failures: Since start.
        access_log_dropped: Lines lost because nobody read them.
        is_ready: Whether traffic should be sent here.
    """

    metrics: Metrics
    certificates: tuple[CertSummary, ...]
    upstream_connections: int
    upstream_idle: int
    upstream_connects: int
    upstream_connect_failures: int
    access_log_dropped: int
    is_ready: bool


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
    figures: Figures
    certificate_sources: tuple[str, ...]
    certificate_pem: bytes
    rejections: list[dict[str, Any]]
    not_ready: tuple[str, ...]


class SnapshotOperator:
    """The part of an `Operator` that snapshots are enough for."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def readiness(self) -> Readiness:
        return Readiness(tuple(Check("program", CheckState.FAIL, reason) for reason in self._take().not_ready))

    def certificates(self) -> Certificates:
        snapshot = self._take()
        served = zip(snapshot.certificate_sources, snapshot.figures.certificates, strict=True)
        return Certificates(
            now=snapshot.now,
            served=tuple(ServedCertificate(source, summary) for source, summary in served),
            pem=snapshot.certificate_pem,
        )

    def rejections(self) -> list[dict[str, Any]]:
        return self._take().rejections

    def figures(self) -> Dump:
        figures = self._take().figures
        metrics = figures.metrics
        metrics.upstream_open = figures.upstream_connections
        metrics.upstream_idle = figures.upstream_idle
        metrics.upstream_connects = figures.upstream_connects
        metrics.upstream_connect_failures = {"any": figures.upstream_connect_failures}
        metrics.access_log_dropped = figures.access_log_dropped
        metrics.ready = int(figures.is_ready)
        metrics.certificate_not_after = self.certificates().not_after()
        return metrics.dump()
