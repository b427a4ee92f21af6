"""`admin.prometheus`: the page as Prometheus' own parser reads it."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.admin.prometheus import Figures, exposition
from sidecar.certs.describe import describe
from sidecar.observe.metrics import Metrics
from tests.support.certs import NOW, authority

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def make_figures(metrics: Metrics) -> Figures:
    return Figures(
        metrics=metrics,
        certificates=(describe(authority().issue("localhost", not_after=NOW + timedelta(days=5)).certificate),),
        upstream_connections=7,
        upstream_idle=3,
        upstream_connects=20,
        upstream_connect_failures=2,
        access_log_dropped=11,
        is_ready=True,
    )


def read(figures: Figures) -> Samples:
    text = exposition(figures)[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(connections=5, connections_active=2, requests=9, upstream_retries=1)
    metrics.handshake_done("TLSv1.3", resumed=True)
    metrics.handshake_done("TLSv1.2", resumed=False)
    metrics.handshake_failed("no_shared_cipher")
    metrics.count(200, "")
    metrics.count(502, "upstream_reset")
    metrics.count(0, "downstream_lost")
    return metrics


class TestExposition:
    @pytest.mark.parametrize(
        ("name", "labels", "value"),
        [
            ("sidecar_downstream_connections_total", (), 5),
            ("sidecar_downstream_connections_active", (), 2),
            ("sidecar_tls_handshakes_total", (("version", "TLSv1.3"),), 1),
            ("sidecar_tls_handshakes_resumed_total", (), 1),
            ("sidecar_tls_handshake_failures_total", (("reason", "no_shared_cipher"),), 1),
            ("sidecar_requests_total", (), 9),
            ("sidecar_responses_total", (("status", "200"),), 1),
            ("sidecar_responses_total", (("status", "0"),), 1),
            ("sidecar_own_answers_total", (("reason", "upstream_reset"),), 1),
            ("sidecar_upstream_connections", (), 7),
            ("sidecar_upstream_connections_idle", (), 3),
            ("sidecar_upstream_connects_total", (), 20),
            ("sidecar_upstream_connect_failures_total", (), 2),
            ("sidecar_upstream_retries_total", (), 1),
            ("sidecar_access_log_dropped_total", (), 11),
            ("sidecar_ready", (), 1),
        ],
        ids=str,
    )
    def test_each_figure_is_shown(
        self, metrics: Metrics, name: str, labels: tuple[tuple[str, str], ...], value: float
    ) -> None:
        """Every counter and gauge has a sample."""
        assert read(make_figures(metrics))[name, labels] == value

    def test_certificates_end_is_a_moment(self, metrics: Metrics) -> None:
        """An alert can be built on it."""
        figures = make_figures(metrics)
        labels = (("serial", figures.certificates[0].serial), ("subject", "CN=localhost"))
        moment = (NOW + timedelta(days=5)).timestamp()
        assert read(figures)["sidecar_certificate_not_after_seconds", labels] == moment

    def test_odd_subject_is_escaped(self, metrics: Metrics) -> None:
        """A subject with quotes, backslashes and line ends survives the format."""
        figures = make_figures(metrics)
        odd = 'CN=a"b\\c\nd{}'
        figures = attrs.evolve(figures, certificates=(attrs.evolve(figures.certificates[0], subject=odd),))
        subjects = [dict(labels).get("subject") for _, labels in read(figures)]
        assert odd in subjects

    def test_start_is_shown_too(self) -> None:
        """A process that has served nobody is readable, and not ready is 0."""
        samples = read(attrs.evolve(make_figures(Metrics()), is_ready=False))
        assert samples["sidecar_requests_total", ()] == 0
        assert samples["sidecar_ready", ()] == 0

    def test_every_family_has_help_and_type(self, metrics: Metrics) -> None:
        """Whoever reads the page knows what it counts, and a counter is called one."""
        text = exposition(make_figures(metrics))[0].decode()
        for family in text_string_to_metric_families(text):
            assert family.documentation
            assert family.name.startswith("sidecar_")
            assert family.type in ("counter", "gauge")
