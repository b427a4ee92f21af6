"""The program as its operator sees it: what the admin pages show, asked of the parts that know, when a page asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.admin.operator import Certificates, Cluster, Connection, Readiness, RevocationList, ServedCertificate
from sidecar.admin.readiness import Facts, judge
from sidecar.certs.describe import describe
from sidecar.config.show import effective
from sidecar.credentials import Credentials
from sidecar.observe import logs
from sidecar.observe.metrics import Dump, Metrics
from sidecar.observe.writer import LineWriter
from sidecar.proxy.cluster import Cluster as UpstreamCluster
from sidecar.proxy.cluster import ClusterTotals, EndpointHealth
from sidecar.proxy.listener import Listener
from sidecar.proxy.proxyheader import facts_of
from sidecar.proxy.rejecting import Rejecter
from sidecar.reloading import Reloader
from sidecar.settings import LogLevel

MOST_PROBLEMS: Final = 3
"""Clusters of which readiness says why they cannot be used."""


@attrs.define(kw_only=True, eq=False, repr=False)
class Console:
    """
    An `admin.operator.Operator`.

    Attributes:
        credentials: Those in force.
        is_draining: Whether the program is stopping.
        stop: Begins to stop it, as SIGTERM does.
        clock: The time, aware.
        seconds: The clock of connections.
    """

    metrics: Metrics
    clusters_by_name: Mapping[str, UpstreamCluster]
    listeners: Sequence[Listener]
    rejecter: Rejecter
    reloader: Reloader
    writer: LineWriter | None
    credentials: Callable[[], Credentials]
    is_draining: Callable[[], bool]
    stop: Callable[[], None]
    clock: Callable[[], datetime]
    seconds: Callable[[], float]
    _described: tuple[Credentials, Certificates] | None = attrs.field(default=None, init=False)

    def readiness(self) -> Readiness:
        return judge(
            Facts(
                certificates=self.certificates(),
                draining=self.is_draining(),
                reload_error="; ".join(self.reloader.state.alarms),
                app_error=self._app_error(),
            )
        )

    def _app_error(self) -> str:
        """Why no request could be answered by an app; "" as long as one cluster does."""
        problems = [cluster.problem for cluster in self.clusters_by_name.values()]
        return "; ".join(problems[:MOST_PROBLEMS]) if all(problems) else ""

    def certificates(self) -> Certificates:
        credentials = self.credentials()
        if self._described is None or self._described[0] is not credentials:
            self._described = (credentials, self._describe(credentials))
        return attrs.evolve(self._described[1], now=self.clock())

    def _describe(self, credentials: Credentials) -> Certificates:
        settings = self.reloader.loaded.settings
        sources = tuple(map(str, settings.tls.cert)) or ("ephemeral",)
        chain = [(first.leaf, *first.chain) for first in credentials.bundles[:1]]
        return Certificates(
            now=self.clock(),
            served=tuple(
                ServedCertificate(source, describe(bundle.leaf), tuple(map(describe, bundle.chain)))
                for source, bundle in zip(sources, credentials.bundles, strict=bool(credentials.bundles))
            ),
            pem=b"".join(each.public_bytes(Encoding.PEM) for certificates in chain for each in certificates),
            client_ca_source=str(settings.client.ca or ""),
            client_cas=tuple(map(describe, credentials.clients.anchors)),
            crls=tuple(
                RevocationList(
                    source=str(settings.client.crl or ""),
                    issuer=crl.issuer.rfc4514_string(),
                    this_update=crl.last_update_utc,
                    next_update=crl.next_update_utc,
                    revoked=len(crl),
                )
                for crl in credentials.clients.crls
            ),
        )

    def config_lines(self) -> Sequence[str]:
        loaded = self.reloader.loaded
        return effective(loaded.settings, loaded.sources)

    def connections(self) -> Iterable[Connection]:
        now = self.seconds()
        for listener in self.listeners:
            for peer, served in listener.open():
                session = served.session if served is not None else None
                yield Connection(
                    client=peer.host,
                    via=str(peer.via) if peer.via is not None else "",
                    proxied=facts_of(peer.proxied),
                    listener=listener.approach.name,
                    age_seconds=now - peer.accepted_at,
                    state=served.doing if served is not None else "handshake",
                    requests=served.requests if served is not None else 0,
                    tls_version=session.version if session is not None else None,
                    server_name=session.server_name if session is not None else None,
                    principal=served.principal if served is not None else "",
                    bytes_received=peer.transport.bytes_received,
                    bytes_sent=peer.transport.bytes_sent,
                )

    def clusters(self) -> Sequence[Cluster]:
        return [
            Cluster(
                cluster=name,
                upstream=status.address,
                protocol=cluster.spec.protocol.value,
                weight=status.weight,
                health=status.health.value,
                why=status.why,
                active=status.active,
                open=status.open,
                idle=status.idle,
                pending=status.pending,
                connects=status.connects,
                failures=status.failures,
                ejections=status.ejections,
                last_error=status.last_error,
                keep_alive_seconds=status.keep_alive_seconds,
            )
            for name, cluster in self.clusters_by_name.items()
            for status in cluster.statuses()
        ]

    def rejections(self) -> list[dict[str, Any]]:
        return self.rejecter.rejections.as_json()

    def figures(self) -> Dump:
        metrics, state = self.metrics, self.reloader.state
        certificates = self.certificates()
        moved = [listener.bytes_moved() for listener in self.listeners]
        metrics.downstream_bytes_received = sum(received for received, _ in moved)
        metrics.downstream_bytes_sent = sum(sent for _, sent in moved)
        self._count_upstreams()
        metrics.reloads = {"ok": state.succeeded, "failed": state.failed}
        metrics.reload_success_at = state.last_success
        metrics.certificate_not_after = certificates.not_after()
        metrics.crl_next_update = certificates.next_updates()
        metrics.ready = int(not self.readiness().reasons)
        metrics.draining = int(self.is_draining())
        metrics.access_log_dropped = self.writer.dropped if self.writer is not None else 0
        return metrics.dump()

    def _count_upstreams(self) -> None:
        metrics, totals = self.metrics, [cluster.totals() for cluster in self.clusters_by_name.values()]
        metrics.upstream_bytes_received = sum(each.bytes_received for each in totals)
        metrics.upstream_bytes_sent = sum(each.bytes_sent for each in totals)
        metrics.upstream_open = sum(each.open for each in totals)
        metrics.upstream_idle = sum(each.idle for each in totals)
        metrics.upstream_waiting = sum(each.pending for each in totals)
        metrics.upstream_connects = sum(each.connects for each in totals)
        metrics.upstream_connect_failures = _added_up(totals)
        metrics.upstream_ejections = {
            name: cluster.totals().ejections for name, cluster in self.clusters_by_name.items()
        }
        metrics.upstream_healthy = {
            (name, status.address): int(status.health is EndpointHealth.HEALTHY)
            for name, cluster in self.clusters_by_name.items()
            for status in cluster.statuses()
        }

    def reload(self) -> Sequence[str]:
        return self.reloader.reload()

    def drain(self) -> None:
        if not self.is_draining():
            self.stop()

    def set_log_level(self, level: LogLevel) -> str:
        logs.set_level(level)
        return f"Logging from {level.value} upwards, until the next reload."


def _added_up(totals: Iterable[ClusterTotals]) -> dict[str, int]:
    failures: dict[str, int] = {}
    for each in totals:
        for reason, count in each.failures.items():
            failures[reason] = failures.get(reason, 0) + count
    return failures
