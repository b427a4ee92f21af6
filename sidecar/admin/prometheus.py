"""The counters in Prometheus' exposition format; built when scraped, so that the hot path only adds integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from sidecar.certs.describe import CertSummary
from sidecar.observe.metrics import Metrics


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


def exposition(figures: Figures) -> tuple[bytes, str]:
    """Return the page and its content type."""
    # Imported at the first scrape: it takes a tenth of the start-up time, and some never scrape.
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    """prometheus_client asks it for metric families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Any]:
        figures, metrics = self._figures, self._figures.metrics
        yield _counter("downstream_connections", "Downstream connections accepted.", metrics.connections)
        yield _gauge("downstream_connections_active", "Downstream connections open.", metrics.connections_active)
        yield _by("tls_handshakes", "TLS handshakes completed.", "version", metrics.handshakes)
        yield _counter("tls_handshakes_resumed", "Handshakes that resumed a session.", metrics.handshakes_resumed)
        yield _by("tls_handshake_failures", "TLS handshakes that failed.", "reason", metrics.handshake_failures)
        rejections = metrics.client_rejections
        yield _by("client_rejections", "Requests refused for the client's certificate.", "reason", rejections)
        yield _counter("requests", "Requests whose head arrived, good or bad.", metrics.requests)
        responses = {str(status): count for status, count in metrics.responses.items()}
        yield _by("responses", "Exchanges that ended, by status; 0: nothing was answered.", "status", responses)
        yield _by("own_answers", "Answers made by the sidecar, and exchanges cut short.", "reason", metrics.reasons)
        yield _gauge("upstream_connections", "Connections to the app.", figures.upstream_connections)
        yield _gauge("upstream_connections_idle", "Connections to the app without a request.", figures.upstream_idle)
        yield _counter("upstream_connects", "Connections made to the app.", figures.upstream_connects)
        failures = figures.upstream_connect_failures
        yield _counter("upstream_connect_failures", "Connections to the app that failed.", failures)
        yield _counter("upstream_retries", "Requests repeated on a fresh connection.", metrics.upstream_retries)
        yield _counter("access_log_dropped", "Access log lines that nobody took.", figures.access_log_dropped)
        yield _gauge("ready", "1 if traffic should be sent here.", int(figures.is_ready))
        yield _certificate_expiry(figures.certificates)


def _counter(name: str, help: str, value: int) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"sidecar_{name}", help, value=value)


def _gauge(name: str, help: str, value: int) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"sidecar_{name}", help, value=value)


def _by(name: str, help: str, label: str, values: Mapping[str, int]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"sidecar_{name}", help, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _certificate_expiry(summaries: Iterable[CertSummary]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "sidecar_certificate_not_after_seconds",
        "End of a served certificate's validity, in seconds since 1970.",
        labels=["subject", "serial"],
    )
    for summary in summaries:
        family.add_metric([summary.subject, summary.serial], summary.not_after.timestamp())
    return family
