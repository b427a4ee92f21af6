"""The program as its operator sees it: what the admin pages show, asked of the parts that know, when a page asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

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
from sidecar.proxy.listener import Listener
from sidecar.proxy.pool import Pool
from sidecar.proxy.rejecting import Rejecter
from sidecar.reloading import Reloader
from sidecar.settings import LogLevel


@attrs.define(kw_only=True)
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
    pool: Pool
    listener: Listener
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
                app_error=self.pool.statistics.last_error,
            )
        )

    def certificates(self) -> Certificates:
        credentials = self.credentials()
        if self._described is None or self._described[0] is not credentials:
            self._described = (credentials, self._describe(credentials))
        return attrs.evolve(self._described[1], now=self.clock())

    def _describe(self, credentials: Credentials) -> Certificates:
        settings = self.reloader.loaded.settings
        sources = tuple(map(str, settings.tls.cert)) or ("ephemeral",)
        first = credentials.bundles[0]
        return Certificates(
            now=self.clock(),
            served=tuple(
                ServedCertificate(source, describe(bundle.leaf), tuple(map(describe, bundle.chain)))
                for source, bundle in zip(sources, credentials.bundles, strict=True)
            ),
            pem=b"".join(each.public_bytes(Encoding.PEM) for each in (first.leaf, *first.chain)),
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
        for peer, served in self.listener.open():
            session = served.session if served is not None else None
            yield Connection(
                client=peer.host,
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
        pool = self.pool
        return [
            Cluster(
                upstream=str(pool.target),
                open=pool.open_count,
                idle=pool.idle_count,
                pending=pool.pending_count,
                connects=pool.statistics.connects,
                failures=pool.statistics.failures,
                last_error=pool.statistics.last_error,
                keep_alive_seconds=pool.statistics.keep_alive_seconds,
            )
        ]

    def rejections(self) -> list[dict[str, Any]]:
        return self.rejecter.rejections.as_json()

    def figures(self) -> Dump:
        metrics, pool, state = self.metrics, self.pool, self.reloader.state
        certificates = self.certificates()
        metrics.downstream_bytes_received, metrics.downstream_bytes_sent = self.listener.bytes_moved()
        metrics.upstream_bytes_received, metrics.upstream_bytes_sent = pool.bytes_moved()
        metrics.upstream_open, metrics.upstream_idle = pool.open_count, pool.idle_count
        metrics.upstream_waiting = pool.pending_count
        metrics.upstream_connects = pool.statistics.connects
        metrics.upstream_connect_failures = dict(pool.statistics.failures)
        metrics.reloads = {"ok": state.succeeded, "failed": state.failed}
        metrics.reload_success_at = state.last_success
        metrics.certificate_not_after = certificates.not_after()
        metrics.crl_next_update = certificates.next_updates()
        metrics.ready = int(not self.readiness().reasons)
        metrics.draining = int(self.is_draining())
        metrics.access_log_dropped = self.writer.dropped if self.writer is not None else 0
        return metrics.dump()

    def reload(self) -> Sequence[str]:
        return self.reloader.reload()

    def drain(self) -> None:
        if not self.is_draining():
            self.stop()

    def set_log_level(self, level: LogLevel) -> str:
        logs.set_level(level)
        return f"Logging from {level.value} upwards, until the next reload."
