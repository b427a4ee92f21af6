"""
What the admin endpoint knows of the program: one protocol that `console` implements, and the values it answers with.

Each method builds only what its page shows, and only when asked, so that a probe costs next to nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import attrs

from sidecar.certs.describe import CertSummary
from sidecar.observe.metrics import Dump
from sidecar.settings import LogLevel
from sidecar.values import Value


class CheckState(enum.Enum):
    """What a check came to. Only FAIL keeps traffic away."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@attrs.frozen(eq=False, repr=False)
class Check(Value):
    """
    One thing that was looked at.

    Attributes:
        name: What it is about, e.g. ``certificates``.
        text: The finding, in one sentence without a full stop.
    """

    name: str
    state: CheckState
    text: str


@attrs.frozen(eq=False, repr=False)
class Readiness(Value):
    """Whether traffic should be sent here, and why not."""

    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no traffic should be sent here; empty if it should."""
        return tuple(check.text for check in self.checks if check.state is CheckState.FAIL)


@attrs.frozen(eq=False, repr=False)
class ServedCertificate(Value):
    """
    A certificate that is served.

    Attributes:
        source: The file it came from; ``ephemeral`` for one that was made here.
        leaf, chain: It, and what is sent with it, its issuer first.
    """

    source: str
    leaf: CertSummary
    chain: tuple[CertSummary, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RevocationList(Value):
    """
    A revocation list in use.

    Attributes:
        source: The file it came from.
        issuer: RFC 4514 string.
        this_update, next_update: When it was made, and when the next is due; aware. None: it does not say.
        revoked: How many certificates are on it.
    """

    source: str
    issuer: str
    this_update: datetime
    next_update: datetime | None
    revoked: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Certificates(Value):
    """
    All key material in use, of which only what is public.

    Attributes:
        now: The moment that days are counted from; aware.
        served: The default first.
        pem: Leaf and chain of the default.
        client_ca_source: Where `client_cas` came from.
        client_cas: What clients are verified with.
        crls: What they are looked up in.
    """

    now: datetime
    served: tuple[ServedCertificate, ...]
    pem: bytes
    client_ca_source: str = ""
    client_cas: tuple[CertSummary, ...] = ()
    crls: tuple[RevocationList, ...] = ()

    def not_after(self) -> dict[tuple[str, ...], float]:
        """Return the ends as `Metrics.certificate_not_after` holds them."""
        kinds = [
            ("leaf", [each.leaf for each in self.served]),
            ("chain", [link for each in self.served for link in each.chain]),
            ("client_ca", self.client_cas),
        ]
        return {
            (kind, summary.subject, summary.serial): summary.not_after.timestamp()
            for kind, summaries in kinds
            for summary in summaries
        }

    def next_updates(self) -> dict[str, float]:
        """Return the dates as `Metrics.crl_next_update` holds them: of several lists of a CA, the first that is due."""
        found: dict[str, float] = {}
        for crl in self.crls:
            if crl.next_update is not None:
                moment = crl.next_update.timestamp()
                found[crl.issuer] = min(moment, found.get(crl.issuer, moment))
        return found


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Connection(Value):
    """
    A downstream connection that is open.

    Attributes:
        client: Address of the client.
        via: Who connected on its behalf; "" if it did itself.
        proxied: What a PROXY header said beside addresses.
        listener: Name of the listener.
        age_seconds: Since it was accepted.
        state: What it is doing: ``handshake``, ``idle``, ``request``, ``upgraded``, ``closing``.
        requests: Begun on it.
        tls_version, server_name: What the handshake agreed on; None before.
        principal: Who the client is; "" if nobody in particular.
        bytes_received, bytes_sent: On the wire.
    """

    client: str
    via: str = ""
    proxied: Mapping[str, str] = attrs.Factory(dict)
    listener: str = ""
    age_seconds: float
    state: str
    requests: int
    tls_version: str | None
    server_name: str | None
    principal: str
    bytes_received: int
    bytes_sent: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Cluster(Value):
    """
    One endpoint of a cluster.

    Attributes:
        cluster: Name of the cluster.
        upstream: Address of the endpoint.
        protocol: What requests are sent in: ``http/1.1`` or ``h2c``.
        weight: Its share.
        health: ``healthy``, ``unhealthy`` or ``ejected``.
        why: What is wrong with it; "" if it is healthy.
        active: Requests under way.
        open, idle: Connections, and those among them without a request.
        pending: Requests that wait for one.
        connects: Connections made.
        failures: Those that could not be made, by reason.
        ejections: How often it got no more requests for a while.
        last_error: In words; "" if there was none, or if a connection has been made since.
        keep_alive_seconds: How long the app promised to keep an idle one; None if it did not say.
    """

    cluster: str
    upstream: str
    protocol: str = "http/1.1"
    weight: int = 1
    health: str = "healthy"
    why: str = ""
    active: int = 0
    open: int = 0
    idle: int = 0
    pending: int = 0
    connects: int = 0
    failures: Mapping[str, int] = attrs.Factory(dict)
    ejections: int = 0
    last_error: str = ""
    keep_alive_seconds: float | None = None


class Operator(Protocol):
    """The program, as its operator looks at it and acts on it."""

    def readiness(self) -> Readiness: ...
    def certificates(self) -> Certificates: ...

    def config_lines(self) -> Sequence[str]:
        """Return the effective settings with their sources, secrets masked, as `config.show.effective` does."""

    def connections(self) -> Iterable[Connection]:
        """Return all that are open, the oldest first; it may be a generator, which is used up at once."""

    def clusters(self) -> Sequence[Cluster]: ...

    def rejections(self) -> list[dict[str, Any]]:
        """Return what `observe.handshakes.Rejections.as_json` does."""

    def figures(self) -> Dump:
        """Return the metrics, with the gauges as they are now."""

    def reload(self) -> Sequence[str]:
        """Read settings and key material again; return what is wrong, a line each, or nothing if all is in force."""

    def drain(self) -> None:
        """Begin to stop, as SIGTERM does, in the next turn: the answer goes out first. Nothing if it has begun."""

    def set_log_level(self, level: LogLevel) -> str:
        """Log from *level* upwards; return what was done, in a sentence."""
