"""
What is counted: plain attributes that the hot path adds to. Every metric is declared once, here, with its help.

`admin.prometheus` shows a dump of them; `merge` adds up the dumps of several processes. Every dictionary is bounded:
its keys are ours (status codes, reason tokens) or the operator's (certificates), and of clients there are at most
`MOST_CLIENTS` in each process, and as many again of all those that have ended.
"""

# ruff: noqa: RUF009 - the fields of `Metrics` are a table of calls, each of which makes a field

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Self

import attrs

from sidecar.observe.histogram import Histogram
from sidecar.values import Value

MOST_CLIENTS: Final = 100
"""Principals that are counted one by one: those seen last."""

OTHER: Final = "other"
"""The principal that stands for all that are not counted one by one any more."""

LONGEST_PRINCIPAL: Final = 256
"""Characters; what is longer is cut, since its holder may have chosen it."""

Dump = dict[str, list[Any]]
"""Family name -> [[label values, value], …]: lists, texts and numbers only, so that JSON can carry it."""


class Kind(enum.Enum):
    """A family's type in the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(enum.Enum):
    """What the values of several processes come to."""

    ADD = "add"
    LARGEST = "largest"
    LEAST = "least"


@attrs.frozen(eq=False, repr=False)
class Family(Value):
    """
    One metric.

    Attributes:
        name: As it is scraped, but for what the format adds to a histogram's.
        help: One sentence.
        labels: Names of its labels.
        merge: How processes come together.
        key: Makes a key of the attribute from the text of a label, if it has one label.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = Merge.ADD
    key: Callable[[str], Any] = str


def _counter(name: str, help: str, *labels: str, key: Callable[[str], Any] = str) -> Any:
    return _declared(Family(f"sidecar_{name}_total", Kind.COUNTER, help, labels, key=key))


def _gauge(name: str, help: str, *labels: str, merge: Merge = Merge.ADD) -> Any:
    return _declared(Family(f"sidecar_{name}", Kind.GAUGE, help, labels, merge))


def _histogram(name: str, help: str) -> Any:
    return attrs.field(factory=Histogram, metadata={Family: Family(f"sidecar_{name}", Kind.HISTOGRAM, help)})


def _declared(family: Family) -> Any:
    if family.labels:
        return attrs.field(factory=dict, metadata={Family: family})
    return attrs.field(default=0, metadata={Family: family})


@attrs.define(repr=False)
class Metrics:
    """
    Counters since start, and gauges.

    Those who count add to the attributes. The gauges of others (the pool, certificates, readiness) are set by `console`
    right before a dump.
    """

    # -- downstream --
    connections: int = _counter("downstream_connections", "Downstream connections accepted.")
    connections_active: int = _gauge("downstream_connections_active", "Downstream connections open.")
    downstream_bytes_received: int = _counter("downstream_received_bytes", "Bytes of TLS received from clients.")
    downstream_bytes_sent: int = _counter("downstream_sent_bytes", "Bytes of TLS sent to clients.")
    proxy_headers: int = _counter("proxy_headers", "Connections whose PROXY header was believed.")
    handshakes: dict[str, int] = _counter("tls_handshakes", "TLS handshakes completed.", "version")
    handshakes_resumed: int = _counter("tls_handshakes_resumed", "Those among them that resumed a session.")
    handshake_failures: dict[str, int] = _counter("tls_handshake_failures", "TLS handshakes that failed.", "reason")
    client_rejections: dict[str, int] = _counter(
        "client_rejections", "Requests refused for the client's certificate, or the lack of one.", "reason"
    )

    # -- raw TCP mode --
    tunnels: int = _counter("tcp_connections", "Connections relayed in raw TCP mode.")
    tunnels_ended: dict[str, int] = _counter(
        "tcp_connections_cut", "Those among them that were cut, by either side or by us.", "reason"
    )

    # -- requests --
    requests: int = _counter("requests", "Requests whose head arrived, good or bad.")
    responses: dict[int, int] = _counter(
        "responses", "Exchanges that ended, by status; 0: nothing was answered.", "status", key=int
    )
    reasons: dict[str, int] = _counter("own_answers", "Answers of our own, and exchanges cut short.", "reason")
    request_duration: Histogram = _histogram(
        "request_duration_seconds", "From a request's head to the end of its response."
    )

    # -- HTTP/2 --
    grpc_calls: dict[str, int] = _counter("grpc_calls", "gRPC calls that ended with a status.", "grpc_status")
    http2_connections: int = _counter("http2_connections", "Downstream connections that agreed on HTTP/2.")
    http2_limited_frames: dict[str, int] = _counter(
        "http2_limited_frames", "Frames of kinds that are limited, on connections that have ended.", "kind"
    )
    http2_faults: dict[str, int] = _counter(
        "http2_faults", "HTTP/2 connections that were ended for a rule or limit that the client broke.", "reason"
    )

    # -- upstream --
    upstream_open: int = _gauge("upstream_connections", "Connections to the app.")
    upstream_idle: int = _gauge("upstream_connections_idle", "Those among them without a request.")
    upstream_waiting: int = _gauge("upstream_requests_waiting", "Requests waiting for a connection to the app.")
    upstream_connects: int = _counter("upstream_connects", "Connections made to the app.")
    upstream_connect_failures: dict[str, int] = _counter(
        "upstream_connect_failures", "Connections to the app that could not be made.", "reason"
    )
    upstream_retries: int = _counter("upstream_retries", "Requests repeated on a fresh connection.")
    upstream_healthy: dict[tuple[str, ...], int] = _gauge(
        "upstream_endpoint_healthy",
        "1 if an endpoint gets requests; of several processes, the least.",
        *("cluster", "endpoint"),
        merge=Merge.LEAST,
    )
    upstream_ejections: dict[str, int] = _counter(
        "upstream_ejections", "Endpoints that got no more requests for a while, for failures in a row.", "cluster"
    )
    upstream_bytes_received: int = _counter("upstream_received_bytes", "Bytes received from the app.")
    upstream_bytes_sent: int = _counter("upstream_sent_bytes", "Bytes sent to the app.")

    # -- clients by their certificates --
    client_requests: dict[str, int] = _counter(
        "client_requests",
        f"Requests by principal; {OTHER}: those not among the last {MOST_CLIENTS} of their worker.",
        "principal",
    )
    client_not_after: dict[str, float] = _gauge(
        "client_certificate_not_after_timestamp_seconds",
        "End of the certificate that a principal showed last.",
        "principal",
        merge=Merge.LARGEST,
    )
    client_last_seen: dict[str, float] = _gauge(
        "client_last_seen_timestamp_seconds",
        "When a principal last asked for something.",
        "principal",
        merge=Merge.LARGEST,
    )

    # -- key material --
    certificate_not_after: dict[tuple[str, ...], float] = _gauge(
        "certificate_not_after_timestamp_seconds",
        "End of a certificate; kind: leaf and chain are served, client_ca is what clients are verified with.",
        *("kind", "subject", "serial"),
        merge=Merge.LEAST,
    )
    crl_next_update: dict[str, float] = _gauge(
        "crl_next_update_timestamp_seconds",
        "When a revocation list is to be followed by the next.",
        "issuer",
        merge=Merge.LEAST,
    )
    reloads: dict[str, int] = _counter("reloads", "Reloads of key material, by result: ok or failed.", "result")
    reload_success_at: float = _gauge(
        "reload_last_success_timestamp_seconds",
        "When the key material in use was loaded; of several processes, the oldest.",
        merge=Merge.LEAST,
    )

    # -- the process --
    ready: int = _gauge("ready", "1 if traffic should be sent here.", merge=Merge.LEAST)
    draining: int = _gauge("draining", "1 while connections are let go before the end.", merge=Merge.LARGEST)
    access_log_dropped: int = _counter("access_log_dropped", "Access log lines that nobody took.")
    started_at: float = _gauge(
        "start_timestamp_seconds", "When it was started; of several processes, the last.", merge=Merge.LARGEST
    )
    build_info: dict[tuple[str, ...], int] = _gauge(
        "build_info", "1; the versions are in the labels.", "version", "python", "openssl", merge=Merge.LARGEST
    )

    # -- counting --

    def handshake_failed(self, reason: str) -> None:
        self.handshake_failures[reason] = self.handshake_failures.get(reason, 0) + 1

    def client_rejected(self, reason: str) -> None:
        self.client_rejections[reason] = self.client_rejections.get(reason, 0) + 1

    def handshake_done(self, version: str, *, resumed: bool) -> None:
        self.handshakes[version] = self.handshakes.get(version, 0) + 1
        self.handshakes_resumed += resumed

    def client_request(self, principal: str, not_after: float, now: float) -> None:
        """
        Count a request of a verified client.

        Args:
            principal: Who it is; "" is nobody, and not counted.
            not_after: End of its certificate, in seconds since 1970.
            now: The same for this moment.
        """
        if not principal:
            return
        principal = principal[:LONGEST_PRINCIPAL]
        requests, seen = self.client_requests, self.client_last_seen
        if principal == OTHER:
            requests[OTHER] = requests.get(OTHER, 0) + 1
            return
        if seen.pop(principal, None) is None:
            requests[principal] = 0
            if len(seen) >= MOST_CLIENTS:
                self._fold(next(iter(seen)))
        seen[principal] = now  # at the end: dictionaries keep the order in which keys came
        requests[principal] += 1
        self.client_not_after[principal] = not_after

    def _fold(self, principal: str) -> None:
        """Count *principal* among the others from now on."""
        del self.client_last_seen[principal]
        del self.client_not_after[principal]
        self.client_requests[OTHER] = self.client_requests.get(OTHER, 0) + self.client_requests.pop(principal)

    # -- dumps --

    def dump(self) -> Dump:
        """Return everything as plain values."""
        return {family.name: list(_samples(getattr(self, name))) for name, family in _DECLARED.items()}

    @classmethod
    def load(cls, dump: Dump) -> Self:
        """Return what *dump* was made of; of a merged one, what all of them together have counted."""
        metrics = cls()
        for name, family in _DECLARED.items():
            for labels, value in dump.get(family.name, ()):
                if family.kind is Kind.HISTOGRAM:
                    setattr(metrics, name, Histogram(list(value[0]), value[1]))
                elif not family.labels:
                    setattr(metrics, name, value)
                else:
                    key = family.key(labels[0]) if len(family.labels) == 1 else tuple(labels)
                    getattr(metrics, name)[key] = value
        return metrics


_DECLARED: Final[dict[str, Family]] = {field.name: field.metadata[Family] for field in attrs.fields(Metrics)}
"""By attribute."""

FAMILIES: Final[dict[str, Family]] = {family.name: family for family in _DECLARED.values()}
"""Every metric there is, by name."""


def _samples(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, Histogram):
        yield [[], [list(value.counts), value.sum]]
    elif isinstance(value, dict):
        for key, number in value.items():
            labels = key if isinstance(key, tuple) else (key,)
            yield [[str(label) for label in labels], number]
    else:
        yield [[], value]


def merge(dumps: Iterable[Dump]) -> Dump:
    """
    Bring the dumps of several processes together: counters add up exactly, gauges as their family says.

    The clients are all of theirs. Those of a process that lives must not be counted among the others here: the next
    merge would have them one by one again, and what was counted for the others would go back.
    """
    dumps = list(dumps)
    merged = {
        name: _merge_family(family, [sample for dump in dumps for sample in dump.get(name, ())])
        for name, family in FAMILIES.items()
    }
    return Metrics.load(merged).dump()


_OF_CLIENTS: Final = frozenset(_DECLARED[name].name for name in ("client_not_after", "client_last_seen"))


def keep(gone: Dump, ended: Dump) -> Dump:
    """
    Return what remains of processes that have ended: counters, histograms, and what is known of their clients.

    Merged with the dumps of those that live, it keeps the sums from going back. However many processes have ended, it
    has `MOST_CLIENTS` clients at most, those seen last; the requests of the rest are those of others, for good.

    Args:
        gone: What was kept before; empty at first.
        ended: The last dump of one more.
    """
    kept = Metrics.load(merge([gone, ended]))
    for principal in sorted(kept.client_last_seen, key=kept.client_last_seen.__getitem__)[:-MOST_CLIENTS]:
        kept._fold(principal)
    return {
        name: samples
        for name, samples in kept.dump().items()
        if FAMILIES[name].kind is not Kind.GAUGE or name in _OF_CLIENTS
    }


def _merge_family(family: Family, samples: list[Any]) -> list[Any]:
    found: dict[tuple[str, ...], list[Any]] = {}
    for labels, value in samples:
        found.setdefault(tuple(labels), []).append(value)
    combine = _add_histograms if family.kind is Kind.HISTOGRAM else _COMBINE[family.merge]
    return [[list(labels), combine(values)] for labels, values in found.items()]


def _add_histograms(values: list[Any]) -> list[Any]:
    counts = [sum(column) for column in zip(*(counts for counts, _ in values), strict=True)]
    return [counts, math.fsum(total for _, total in values)]


_COMBINE: Final[dict[Merge, Callable[[list[Any]], Any]]] = {Merge.ADD: sum, Merge.LARGEST: max, Merge.LEAST: min}


def markdown_table() -> str:
    """The table of all metrics for the documentation; ends with a newline."""
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in FAMILIES.values():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{family.name}` | {family.kind.value} | {labels} | {family.help} |")
    return "\n".join(lines) + "\n"
