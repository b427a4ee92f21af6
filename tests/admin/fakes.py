"""A program that the admin pages can look at: it answers with what a test gave it, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import attrs

from sidecar.admin.operator import (
    Certificates,
    Check,
    CheckState,
    Cluster,
    Connection,
    Readiness,
    RevocationList,
    ServedCertificate,
)
from sidecar.certs.describe import describe
from sidecar.observe.metrics import Dump, Metrics
from sidecar.settings import LogLevel
from tests.support.certs import NOW, authority, intermediate

ISSUED = intermediate().issue("localhost", "127.0.0.1")

CERTIFICATES = Certificates(
    now=NOW,
    served=(
        ServedCertificate(
            "/etc/tls/tls.crt", describe(ISSUED.certificate), tuple(describe(link) for link in ISSUED.chain)
        ),
    ),
    pem=ISSUED.cert_pem,
    client_ca_source="/etc/tls/ca.crt",
    client_cas=(describe(authority().certificate),),
    crls=(
        RevocationList(
            source="/etc/tls/ca.crl",
            issuer="CN=Root",
            this_update=NOW - timedelta(days=1),
            next_update=NOW + timedelta(days=6, hours=12),
            revoked=3,
        ),
    ),
)

GOOD = Check("draining", CheckState.OK, "not draining")
DOUBTFUL = Check("reload", CheckState.WARN, "the last reload failed")
BAD = Check("app", CheckState.FAIL, "the app cannot be reached: 10.0.0.7:8080: refused")

CLUSTER = Cluster(
    cluster="app",
    upstream="127.0.0.1:8080",
    open=3,
    idle=2,
    pending=1,
    connects=9,
    failures={"upstream_connect_refused": 4},
    last_error="refused",
    keep_alive_seconds=5.0,
)

RELOAD_FAILURE = "SIDECAR_TLS_KEY (environment): the key does not match; give the right one"


def connection(age: float, *, traffic: int = 0, server_name: str | None = "app.example") -> Connection:
    return Connection(
        client="192.0.2.1",
        age_seconds=age,
        state="idle",
        requests=2,
        tls_version="TLSv1.3",
        server_name=server_name,
        principal="spiffe://prod/web",
        bytes_received=traffic,
        bytes_sent=traffic,
    )


@attrs.define
class FakeOperator:
    """
    An `Operator`.

    Attributes:
        checks, open, metrics, reload_failure: What it answers with.
        asked: The names of the methods that were called, in order, with what they were given.
    """

    checks: tuple[Check, ...] = (GOOD,)
    open: Iterable[Connection] = ()
    metrics: Metrics = attrs.Factory(Metrics)
    reload_failure: tuple[str, ...] = ()
    asked: list[str] = attrs.Factory(list)

    def readiness(self) -> Readiness:
        self.asked.append("readiness")
        return Readiness(self.checks)

    def certificates(self) -> Certificates:
        self.asked.append("certificates")
        return CERTIFICATES

    def config_lines(self) -> Sequence[str]:
        self.asked.append("config_lines")
        return ["listen: 0.0.0.0:443  # default", "tls_key_password: ***  # environment"]

    def connections(self) -> Iterable[Connection]:
        self.asked.append("connections")
        return self.open

    def clusters(self) -> Sequence[Cluster]:
        self.asked.append("clusters")
        return [CLUSTER]

    def rejections(self) -> list[dict[str, Any]]:
        self.asked.append("rejections")
        return [{"reason": "expired"}]

    def figures(self) -> Dump:
        self.asked.append("figures")
        return self.metrics.dump()

    def reload(self) -> tuple[str, ...]:
        self.asked.append("reload")
        return self.reload_failure

    def drain(self) -> None:
        self.asked.append("drain")

    def set_log_level(self, level: LogLevel) -> str:
        self.asked.append(f"set_log_level {level.value}")
        return f"logging from {level.value} upwards"
