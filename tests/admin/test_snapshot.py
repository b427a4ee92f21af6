"""`admin.snapshot`: what pages can be made of a snapshot."""

from __future__ import annotations

import attrs
import pytest

from sidecar.admin.snapshot import Figures, Snapshot, SnapshotOperator
from sidecar.certs.describe import describe
from sidecar.observe.metrics import Metrics
from tests.admin.fakes import ISSUED
from tests.support.certs import NOW


@pytest.fixture
def snapshot() -> Snapshot:
    figures = Figures(
        metrics=Metrics(requests=9),
        certificates=(describe(ISSUED.certificate),),
        upstream_connections=7,
        upstream_idle=3,
        upstream_connects=20,
        upstream_connect_failures=2,
        access_log_dropped=11,
        is_ready=True,
    )
    return Snapshot(
        now=NOW,
        figures=figures,
        certificate_sources=("tls.crt",),
        certificate_pem=b"PEM",
        rejections=[{"reason": "expired"}],
        not_ready=(),
    )


class TestSnapshotOperator:
    def test_figures_become_metrics(self, snapshot: Snapshot) -> None:
        """The gauges of a snapshot stand beside its counters."""
        metrics = Metrics.load(SnapshotOperator(lambda: snapshot).figures())
        assert (metrics.requests, metrics.ready) == (9, 1)
        assert (metrics.upstream_open, metrics.upstream_idle, metrics.upstream_connects) == (7, 3, 20)
        assert metrics.upstream_connect_failures == {"any": 2}
        assert metrics.access_log_dropped == 11
        assert list(metrics.certificate_not_after.values()) == [ISSUED.certificate.not_valid_after_utc.timestamp()]

    def test_reasons_become_checks(self, snapshot: Snapshot) -> None:
        """Whatever is against traffic fails."""
        operator = SnapshotOperator(lambda: attrs.evolve(snapshot, not_ready=("draining",)))
        assert operator.readiness().reasons == ("draining",)

    def test_certificates_keep_their_sources(self, snapshot: Snapshot) -> None:
        """Each is shown with where it came from."""
        certificates = SnapshotOperator(lambda: snapshot).certificates()
        assert [(served.source, served.leaf.subject) for served in certificates.served] == [("tls.crt", "CN=localhost")]
        assert (certificates.now, certificates.pem) == (NOW, b"PEM")

    def test_rejections_are_passed_on(self, snapshot: Snapshot) -> None:
        """They are JSON already."""
        assert SnapshotOperator(lambda: snapshot).rejections() == [{"reason": "expired"}]
