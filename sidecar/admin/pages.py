"""
What the admin endpoint answers: a question and the program to status, type and body.

A page asks the program for what it shows and for nothing else. What changes something is a POST, everything else is
read-only.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import attrs

from sidecar.admin import prometheus
from sidecar.admin.operator import CheckState, Connection, Operator, RevocationList, ServedCertificate
from sidecar.certs import describe
from sidecar.observe.metrics import FAMILIES, Dump, Kind
from sidecar.settings import LogLevel
from sidecar.values import Value

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
PEM: Final = "application/x-pem-file"

MOST_CONNECTIONS: Final = 1000
"""As many are listed. All of them could be a hundred thousand, and the page is made while others wait."""

_READING: Final = ("GET", "HEAD")
_CHANGING: Final = ("POST",)


@attrs.frozen(eq=False, repr=False)
class Question(Value):
    """
    What is asked for.

    Attributes:
        method: Of the request.
        path: Without query string.
        query: Name -> last value, which may be "".
    """

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict)


class PartlyReloaded(tuple[str, ...]):
    """What `Operator.reload` returns where not all workers stay as they were: what is true of each, a line each."""

    __slots__ = ()


@attrs.frozen(eq=False, repr=False)
class Page(Value):
    """An answer; `allow` names the methods where the one used is not among them."""

    status: int
    content_type: str
    body: bytes
    allow: str = ""


@attrs.frozen(eq=False, repr=False)
class Route(Value):
    """
    One path.

    Attributes:
        meaning: For the list of paths.
        answer: Makes the page.
        methods: Those that are allowed.
    """

    meaning: str
    answer: Callable[[Question, Operator], Page]
    methods: tuple[str, ...] = _READING


@attrs.frozen(eq=False, repr=False)
class Surface(Value):
    """
    What a listener serves.

    Attributes:
        routes: By path.
        is_guarded: Whether `admin.guard` looks at each request. Probes from elsewhere come by any name.
    """

    routes: Mapping[str, Route]
    is_guarded: bool = True


def respond(question: Question, operator: Operator, surface: Surface) -> Page:
    """Answer *question* out of *surface*."""
    route = surface.routes.get(question.path)
    if route is None:
        return _text(404, f"There is no {question.path[:200]!r} here. Known: {', '.join(surface.routes)}\n")
    if question.method not in route.methods:
        allow = ", ".join(route.methods)
        method = question.method[:40]
        return attrs.evolve(_text(405, f"{question.path} takes {allow}, not {method!r}.\n"), allow=allow)
    return route.answer(question, operator)


# -- is it well? ------------------------------------------------------------------------------------------------


def _live(question: Question, operator: Operator) -> Page:
    return _text(200, "live\n")


def _ready(question: Question, operator: Operator) -> Page:
    readiness = operator.readiness()
    reasons = readiness.reasons
    answer: dict[str, Any] = {"ready": not reasons, "reasons": list(reasons)}
    if "verbose" in question.query:
        answer["warnings"] = [check.text for check in readiness.checks if check.state is CheckState.WARN]
        answer["checks"] = [{**attrs.asdict(check), "state": check.state.value} for check in readiness.checks]
    return _json(503 if reasons else 200, answer)


def _ready_in_short(question: Question, operator: Operator) -> Page:
    """Which checks failed, but not how: that names hosts and files, and anybody may reach a health port."""
    failed = [check.name for check in operator.readiness().checks if check.state is CheckState.FAIL]
    return _json(503 if failed else 200, {"ready": not failed, "reasons": failed})


# -- numbers ----------------------------------------------------------------------------------------------------


def _stats(question: Question, operator: Operator) -> Page:
    return _text(200, "".join(f"{name}: {value}\n" for name, value in _plain(operator.figures())))


def _plain(dump: Dump) -> Iterable[tuple[str, str]]:
    """Name, with its labels, and value of each sample; of a histogram, its count and sum."""
    for family in FAMILIES.values():
        for labels, value in dump.get(family.name, ()):
            pairs = zip(family.labels, labels, strict=True)
            inside = ",".join(f"{name}={json.dumps(label)}" for name, label in pairs)
            shown = f"{{{inside}}}" if inside else ""
            if family.kind is Kind.HISTOGRAM:
                counts, total = value
                yield f"{family.name}_count{shown}", str(sum(counts))
                yield f"{family.name}_sum{shown}", f"{total:.6f}"
            else:
                yield f"{family.name}{shown}", f"{value:.15g}"


def _metrics(question: Question, operator: Operator) -> Page:
    try:
        body, content_type = prometheus.exposition(operator.figures())
    except OSError as error:  # at the first scrape a library is loaded, and there may be no descriptor left for it
        return _text(503, f"The metrics cannot be made now: {error.strerror}.\n")
    return Page(200, content_type, body)


# -- what is in use ---------------------------------------------------------------------------------------------


def _certs(question: Question, operator: Operator) -> Page:
    certificates = operator.certificates()
    now, source = certificates.now, certificates.client_ca_source
    answer = {
        "certificates": [_served(each, now) for each in certificates.served],
        "client_cas": [{"source": source, **describe.as_json(each, now)} for each in certificates.client_cas],
        "revocation_lists": [_revocation_list(crl, now) for crl in certificates.crls],
    }
    return _json(200, answer)


def _served(served: ServedCertificate, now: datetime) -> dict[str, object]:
    chain = [describe.as_json(link, now) for link in served.chain]
    shown = ("subject", "issuer", "serial", "not_after", "days_left")
    links = [{name: link[name] for name in shown} for link in chain]
    return {"source": served.source, **describe.as_json(served.leaf, now), "chain": links}


def _revocation_list(crl: RevocationList, now: datetime) -> dict[str, object]:
    due = crl.next_update
    return {
        "source": crl.source,
        "issuer": crl.issuer,
        "this_update": describe.rfc3339(crl.this_update),
        "next_update": None if due is None else describe.rfc3339(due),
        "days_left": None if due is None else math.floor((due - now) / timedelta(days=1)),
        "revoked": crl.revoked,
    }


def _pem(question: Question, operator: Operator) -> Page:
    pem = operator.certificates().pem
    return Page(200, PEM, pem) if pem else _text(404, "No certificate is served.\n")


def _config(question: Question, operator: Operator) -> Page:
    return _text(200, "".join(f"{line}\n" for line in operator.config_lines()))


# -- who is there -----------------------------------------------------------------------------------------------

_ORDERS: Final[dict[str, Callable[[Connection], Any]]] = {
    "newest": lambda connection: -connection.age_seconds,
    "oldest": attrgetter("age_seconds"),
    "busiest": lambda connection: connection.bytes_received + connection.bytes_sent,
}


def _connections(question: Question, operator: Operator) -> Page:
    order = _ORDERS.get(question.query.get("sort", "newest"))
    if order is None:
        return _text(400, f"sort is one of {', '.join(_ORDERS)}.\n")
    found = list(operator.connections())
    shown = heapq.nlargest(MOST_CONNECTIONS, found, key=order)
    # A line for each, by the fast encoder, which cannot indent.
    lines = ",\n".join(json.dumps(_connection(connection)) for connection in shown)
    body = f'{{"total": {len(found)}, "shown": {len(shown)}, "connections": [\n{lines}\n]}}\n'
    return Page(200, JSON, body.encode())


def _connection(connection: Connection) -> dict[str, Any]:
    return {**attrs.asdict(connection), "age_seconds": round(connection.age_seconds, 3)}


def _clusters(question: Question, operator: Operator) -> Page:
    found = [{**attrs.asdict(cluster), "failures": dict(cluster.failures)} for cluster in operator.clusters()]
    return _json(200, {"clusters": found})


def _handshakes(question: Question, operator: Operator) -> Page:
    return _json(200, {"rejections": operator.rejections()})


# -- changes ----------------------------------------------------------------------------------------------------


def _reload(question: Question, operator: Operator) -> Page:
    problems = operator.reload()
    if problems:
        lines = "".join(f"{problem}\n" for problem in problems)
        if isinstance(problems, PartlyReloaded):
            return _text(409, f"Not all workers have reloaded:\n{lines}")
        return _text(409, f"Nothing was changed; what was in force before still is:\n{lines}")
    return _text(200, "Reloaded: what the settings and files say now is in force.\n")


def _drain(question: Question, operator: Operator) -> Page:
    operator.drain()
    return _text(202, "Draining: no new connections; those that are open end after what is in flight.\n")


def _logging(question: Question, operator: Operator) -> Page:
    names = [level.value for level in LogLevel]
    name = question.query.get("level", "")
    if name not in names:
        return _text(400, f"Say from which level to log: POST /logging?level={'|'.join(names)}\n")
    return _text(200, f"{operator.set_log_level(LogLevel(name))}\n")


# -- which path is which ----------------------------------------------------------------------------------------


def _with_index(routes: Mapping[str, Route]) -> Mapping[str, Route]:
    def index(question: Question, operator: Operator) -> Page:
        rows = [f"{route.methods[0]:<5} {path:<20} {route.meaning}\n" for path, route in listed.items()]
        return _text(200, "".join(rows))

    listed = {"/": Route("this list", index), **routes}
    return listed


_PAGES: Final = {
    "/live": Route("200 while the process answers", _live),
    "/ready": Route("200 if traffic should be sent here, else 503 with the reasons; ?verbose: every check", _ready),
    "/stats": Route("metrics, a line each", _stats),
    "/stats/prometheus": Route("metrics, as Prometheus reads them", _metrics),
    "/certs": Route("certificates, client CAs and revocation lists in use, with their dates, as JSON", _certs),
    "/certs/server.pem": Route("the default certificate as PEM: what `curl --cacert` wants for a self-made one", _pem),
    "/config": Route("the settings in force and where each comes from, without secrets", _config),
    "/connections": Route(
        f"clients that are connected, up to {MOST_CONNECTIONS:,}; ?sort=newest|oldest|busiest, as JSON",
        _connections,
    ),
    "/clusters": Route("endpoints of the app and of other clusters, their health and connections, as JSON", _clusters),
    "/handshakes": Route(
        "the last 100 clients that were turned away by TLS or for their certificates, and why, as JSON", _handshakes
    ),
    "/reload": Route("read settings, certificates, keys, CAs and revocation lists again", _reload, _CHANGING),
    "/drain": Route("stop in good order, as SIGTERM does", _drain, _CHANGING),
    "/logging": Route("?level=debug|info|warn|error: log from there upwards", _logging, _CHANGING),
}

ADMIN: Final = Surface(_with_index(_PAGES))
"""Everything, for those on this machine."""

HEALTH: Final = Surface(
    {
        "/live": Route("200 while the process answers", _live),
        "/ready": Route("200 if traffic should be sent here, else 503 with the names of what failed", _ready_in_short),
    },
    is_guarded=False,
)
"""For kubelets and load balancers."""


def _text(status: int, text: str) -> Page:
    return Page(status, TEXT, text.encode("utf-8", "backslashreplace"))


def _json(status: int, value: Any) -> Page:
    return Page(status, JSON, json.dumps(value, indent=2).encode() + b"\n")
