"""
What several workers know, as one `admin.operator.Operator`: what a worker answers, and what the answers come to.

An answer is what JSON can carry. The supervisor serves no traffic, so it may wait for answers, with a deadline; the
workers never wait.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Protocol

import attrs

from sidecar.admin.operator import (
    Certificates,
    Check,
    CheckState,
    Cluster,
    Connection,
    Operator,
    Readiness,
    RevocationList,
    ServedCertificate,
)
from sidecar.admin.pages import MOST_CONNECTIONS, PartlyReloaded
from sidecar.certs.describe import CertSummary
from sidecar.observe.handshakes import MOST_EVENTS
from sidecar.observe.metrics import Dump, merge
from sidecar.settings import LogLevel


class Part(enum.Enum):
    """What a worker can be asked."""

    READINESS = "readiness"
    CERTIFICATES = "certificates"
    CONNECTIONS = "connections"
    CLUSTERS = "clusters"
    REJECTIONS = "rejections"
    FIGURES = "figures"
    RELOAD = "reload"


# -- in the worker ----------------------------------------------------------------------------------------------


def answer(operator: Operator, part: Part) -> Any:
    """Return what *operator* says to *part*, for `json.dumps`."""
    match part:
        case Part.READINESS:
            return [[check.name, check.state.value, check.text] for check in operator.readiness().checks]
        case Part.CERTIFICATES:
            return _pack(attrs.asdict(operator.certificates()))
        case Part.CONNECTIONS:
            return [attrs.asdict(connection) for connection in _few(operator.connections())]
        case Part.CLUSTERS:
            return [{**attrs.asdict(cluster), "failures": dict(cluster.failures)} for cluster in operator.clusters()]
        case Part.REJECTIONS:
            return operator.rejections()
        case Part.FIGURES:
            return operator.figures()
        case Part.RELOAD:
            return list(operator.reload())


_ORDERS: Final[tuple[Callable[[Connection], float], ...]] = (
    attrgetter("age_seconds"),
    lambda connection: -connection.age_seconds,
    lambda connection: connection.bytes_received + connection.bytes_sent,
)


def _few(connections: Iterable[Connection]) -> list[Connection]:
    """Return those that the admin page can show, in whichever of its orders."""
    found = list(connections)
    if len(found) <= MOST_CONNECTIONS:
        return found
    shown = {id(each): each for order in _ORDERS for each in heapq.nlargest(MOST_CONNECTIONS, found, key=order)}
    return list(shown.values())


def _pack(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.decode("ascii")
        case dict():
            return {name: _pack(each) for name, each in value.items()}
        case list() | tuple():
            return [_pack(each) for each in value]
        case _:
            return value


# -- in the supervisor ------------------------------------------------------------------------------------------


class Workers(Protocol):
    """The workers, as the supervisor knows them."""

    def ask(self, part: Part) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Return the answers, by the names of those that gave one, the oldest first; and the names of the others."""

    def figures(self) -> list[Dump]:
        """Return the figures of all there are, and what is kept of those that have gone."""

    def state(self) -> Check:
        """Say whether the workers that there should be are there."""

    @property
    def is_draining(self) -> bool: ...
    def drain(self) -> None: ...
    def set_log_level(self, level: LogLevel) -> None: ...


class MergedOperator:
    """An `Operator` for several workers."""

    def __init__(
        self, workers: Workers, config_lines: Callable[[], Sequence[str]], now: Callable[[], datetime]
    ) -> None:
        """
        Args:
            config_lines: The effective settings, as `config.show.effective` gives them.
            now: The calendar.
        """
        self._workers = workers
        self._config_lines = config_lines
        self._now = now
        self._certificates: Certificates | None = None

    def readiness(self) -> Readiness:
        answers, silent = self._workers.ask(Part.READINESS)
        checks = [_with_silent(self._workers.state(), silent)]
        if self._workers.is_draining:
            checks.append(Check("draining", CheckState.FAIL, "draining"))
        return Readiness((*checks, *_worst(answers.values())))

    def certificates(self) -> Certificates:
        """Return those of the longest-serving worker; if none answers, those that were in use before."""
        answers, _ = self._workers.ask(Part.CERTIFICATES)
        if answers:
            self._certificates = _certificates(next(iter(answers.values())))
        if self._certificates is None:
            return Certificates(now=self._now(), served=(), pem=b"")
        return attrs.evolve(self._certificates, now=self._now())

    def config_lines(self) -> Sequence[str]:
        return self._config_lines()

    def connections(self) -> Iterable[Connection]:
        answers, _ = self._workers.ask(Part.CONNECTIONS)
        found = [Connection(**each) for one in answers.values() for each in one]
        return sorted(found, key=lambda connection: -connection.age_seconds)

    def clusters(self) -> Sequence[Cluster]:
        answers, _ = self._workers.ask(Part.CLUSTERS)
        found: dict[tuple[str, str], Cluster] = {}
        for each in (Cluster(**each) for one in answers.values() for each in one):
            name = (each.cluster, each.upstream)
            found[name] = _sum(found[name], each) if name in found else each
        return list(found.values())

    def rejections(self) -> list[dict[str, Any]]:
        answers, _ = self._workers.ask(Part.REJECTIONS)
        return _rejections([event for one in answers.values() for event in one])

    def figures(self) -> Dump:
        is_ready = not self.readiness().reasons
        self._workers.ask(Part.FIGURES)
        dump = merge(self._workers.figures())
        # A worker that is being replaced is draining; the program is not.
        dump["sidecar_ready"] = [[[], int(is_ready)]]
        dump["sidecar_draining"] = [[[], int(self._workers.is_draining)]]
        return dump

    def reload(self) -> Sequence[str]:
        if self._workers.is_draining:
            return ["the workers are draining, and reload no more; start the program again for what is new"]
        answers, silent = self._workers.ask(Part.RELOAD)
        if not answers and not silent:
            return PartlyReloaded([f"no worker serves now; those to come will have what can be used of it; {_SEE}"])
        if silent or (any(answers.values()) and not all(answers.values())):
            told = [f"{name}: {line}" for name, lines in answers.items() for line in _outcome(lines)]
            return PartlyReloaded([*told, *(f"{name}: no answer yet; {_SEE}" for name in silent)])
        return list(dict.fromkeys(line for lines in answers.values() for line in lines))

    def drain(self) -> None:
        self._workers.drain()

    def set_log_level(self, level: LogLevel) -> str:
        self._workers.set_log_level(level)
        return f"Logging from {level.value} upwards, in all workers."


_SEE: Final = "see /ready?verbose and the program log"


def _outcome(problems: Sequence[str]) -> list[str]:
    """What came of a reload in one worker, in lines."""
    if not problems:
        return ["reloaded, what the settings and files say now is in force"]
    return [f"nothing was changed: {problem}" for problem in problems]


def _with_silent(check: Check, silent: Sequence[str]) -> Check:
    if not silent:
        return check
    state = CheckState.WARN if check.state is CheckState.OK else check.state
    return Check(check.name, state, f"{check.text}; no answer from {', '.join(silent)}")


_SEVERITY: Final = (CheckState.OK, CheckState.WARN, CheckState.FAIL)


def _worst(answers: Iterable[Any]) -> list[Check]:
    """Of each check, what the worker says where it came out worst."""
    found: dict[str, Check] = {}
    for name, state, text in (each for one in answers for each in one):
        check = Check(name, CheckState(state), text)
        if name not in found or _SEVERITY.index(check.state) > _SEVERITY.index(found[name].state):
            found[name] = check
    return list(found.values())


def _sum(one: Cluster, other: Cluster) -> Cluster:
    reasons = {*one.failures, *other.failures}
    promised = [each.keep_alive_seconds for each in (one, other) if each.keep_alive_seconds is not None]
    worse = max((one, other), key=lambda each: _HEALTH.index(each.health))
    return Cluster(
        cluster=one.cluster,
        upstream=one.upstream,
        protocol=one.protocol,
        weight=one.weight,
        health=worse.health,
        why=worse.why,
        active=one.active + other.active,
        ejections=one.ejections + other.ejections,
        open=one.open + other.open,
        idle=one.idle + other.idle,
        pending=one.pending + other.pending,
        connects=one.connects + other.connects,
        failures={reason: one.failures.get(reason, 0) + other.failures.get(reason, 0) for reason in sorted(reasons)},
        last_error=one.last_error or other.last_error,
        keep_alive_seconds=min(promised, default=None),
    )


_HEALTH: Final = ("healthy", "ejected", "unhealthy")
"""What workers may say of an endpoint, the best first."""

_OF_EACH_WORKER: Final = ("first", "last", "count", "path")


def _rejections(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Count equal ones of different workers together; the last first."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        key = repr({name: value for name, value in event.items() if name not in _OF_EACH_WORKER})
        known = found.get(key)
        if known is None:
            found[key] = dict(event)
        else:
            newer = max(known, event, key=lambda each: str(each["last"]))
            first = min(known["first"], event["first"])
            found[key] = {**newer, "first": first, "count": known["count"] + event["count"]}
    return sorted(found.values(), key=lambda event: str(event["last"]), reverse=True)[:MOST_EVENTS]


def _certificates(packed: Mapping[str, Any]) -> Certificates:
    return Certificates(
        now=datetime.fromisoformat(packed["now"]),
        served=tuple(
            ServedCertificate(each["source"], _summary(each["leaf"]), tuple(map(_summary, each["chain"])))
            for each in packed["served"]
        ),
        pem=packed["pem"].encode("ascii"),
        client_ca_source=packed["client_ca_source"],
        client_cas=tuple(map(_summary, packed["client_cas"])),
        crls=tuple(map(_revocation_list, packed["crls"])),
    )


def _summary(packed: Mapping[str, Any]) -> CertSummary:
    moments = {name: datetime.fromisoformat(packed[name]) for name in ("not_before", "not_after")}
    return CertSummary(**{**packed, **moments, "sans": tuple(packed["sans"])})


def _revocation_list(packed: Mapping[str, Any]) -> RevocationList:
    due = packed["next_update"]
    moments = {
        "this_update": datetime.fromisoformat(packed["this_update"]),
        "next_update": None if due is None else datetime.fromisoformat(due),
    }
    return RevocationList(**{**packed, **moments})
