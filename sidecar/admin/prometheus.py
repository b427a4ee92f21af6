"""A dump of the metrics in Prometheus' exposition format; built when scraped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sidecar.observe.histogram import BOUNDS
from sidecar.observe.metrics import FAMILIES, Dump, Family, Kind


def exposition(dump: Dump) -> tuple[bytes, str]:
    """Return the page and its content type."""
    # Imported at the first scrape: it takes a tenth of the start-up time, and some never scrape.
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(dump))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    """prometheus_client asks it for metric families."""

    def __init__(self, dump: Dump) -> None:
        self._dump = dump

    def collect(self) -> Iterable[Any]:
        for family in FAMILIES.values():
            yield _family(family, self._dump.get(family.name, ()))


def _family(family: Family, samples: Iterable[Any]) -> Any:
    from prometheus_client import core

    if family.kind is Kind.HISTOGRAM:
        histogram = core.HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, (counts, total) in samples:
            histogram.add_metric(labels, _cumulated(counts), total)
        return histogram
    make = core.CounterMetricFamily if family.kind is Kind.COUNTER else core.GaugeMetricFamily
    simple = make(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        simple.add_metric([_encodable(label) for label in labels], value)
    return simple


def _cumulated(counts: Iterable[int]) -> list[tuple[str, float]]:
    """The format counts in each bucket what is in those before it too."""
    buckets, total = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _encodable(label: str) -> str:
    return label.encode("utf-8", "backslashreplace").decode()
