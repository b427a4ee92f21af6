"""
Virtual hosts as an operator writes them -> `topology.VirtualHost`.

    virtual_hosts:
      - domains: ["*"]
        routes:
          - match: {prefix: /static/, methods: [GET]}
            cluster: shop
          - redirect: {host: www.example.org}

What stands in them is read here, and its meaning is judged by `policy.routes.problems`. That asks for whole values:
what cannot be read has something in its place about which there is nothing to say, so that everything else is judged
in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import attrs

from sidecar.config.addresses import parse_authority
from sidecar.config.clusters import APP
from sidecar.config.entries import Entry, Reader, count_within, parse_name
from sidecar.config.units import UnitError, parse_duration, parse_word
from sidecar.settings import Authority, ClientCertMode
from sidecar.topology import (
    ClientRule,
    DirectResponse,
    HeaderCondition,
    HeaderMatch,
    PathMatch,
    Redirect,
    Route,
    RouteMatch,
    ToCluster,
    VirtualHost,
)

MOST_VIRTUAL_HOSTS = 256
MOST_DOMAINS = 256
MOST_ROUTES = 1000
"""In all virtual hosts of a listener."""
MOST_METHODS = 32
MOST_HEADERS = 32
MOST_MATCHERS = 1000

_VIRTUAL_HOST = ("name", "domains", "routes")
_ACTIONS = ("cluster", "redirect", "direct_response")
_ONLY_WITH_CLUSTER = ("prefix_rewrite", "host_rewrite", "timeout", "idle_timeout")
_CLIENT = ("client_cert", "allow", "deny")
_ROUTE = ("name", "match", *_ACTIONS, *_ONLY_WITH_CLUSTER, *_CLIENT)
_PATHS = tuple(kind.value for kind in PathMatch)
_MATCH = (*_PATHS, "methods", "headers")
_COMPARISONS = tuple(match.value for match in HeaderMatch)
_HEADER = ("name", *_COMPARISONS, "invert")
_REDIRECT = ("scheme", "host", "port", "path", "prefix_rewrite", "status", "strip_query")
_DIRECT_RESPONSE = ("status", "body", "content_type")


@attrs.define(eq=False, repr=False)
class VirtualHosts:
    """
    The virtual hosts of one listener.

    Attributes:
        values: As they were read, each at its index; those with problems hold fillers.
        clusters: Place and name of every cluster that a route names.
    """

    values: tuple[VirtualHost, ...] = ()
    clusters: list[tuple[str, str]] = attrs.field(factory=list)


def everything_to(cluster: str, name: str, host: str = "") -> tuple[VirtualHost, ...]:
    """Virtual hosts that send every request to one cluster, with *host* as Host unless that is empty."""
    route = Route(name=name, match=RouteMatch(), action=ToCluster(cluster=cluster, host_rewrite=host))
    return (VirtualHost(name=name, domains=("*",), routes=(route,)),)


def everything_to_https(port: int, name: str) -> tuple[VirtualHost, ...]:
    """Virtual hosts that redirect every request to https on *port*."""
    action = Redirect(scheme="https", port=None if port == 443 else port, status=308)
    return (VirtualHost(name=name, domains=("*",), routes=(Route(name=name, match=RouteMatch(), action=action),)),)


def read_virtual_hosts(reader: Reader, items: list[tuple[str, object]], place: str, host: str) -> VirtualHosts:
    """
    Read the virtual hosts of one listener, and note everything that is wrong with them.

    Args:
        items: The entries with their places.
        place: That of the list.
        host: What the upstream of the settings is told as Host, if a route says nothing else.
    """
    reading = _Reading(reader, host)
    for where, value in items:
        reading.virtual_host(where, value)
    if reading.routes > MOST_ROUTES:
        reader.refuse(place, f"there are {reading.routes:,} routes, limit {MOST_ROUTES:,}", "leave some out")
        return reading.found
    from sidecar.policy.routes import problems  # compiles regular expressions; most runs have no routes

    for problem in problems(reading.found.values, place):
        if not _is_within(problem.place, reading.fillers):
            reader.refuse(problem.place, problem.fact, problem.fix)
    return reading.found


def _is_within(place: str, others: Collection[str]) -> bool:
    return any(place == other or place.startswith((f"{other}.", f"{other}[")) for other in others)


@attrs.define(eq=False, repr=False)
class _Reading:
    """
    Attributes:
        routes: How many there have been.
        fillers: Places of what was not read as it stands.
        names: Of virtual hosts and routes, with their places.
    """

    reader: Reader
    host: str
    found: VirtualHosts = attrs.field(factory=VirtualHosts)
    routes: int = 0
    fillers: list[str] = attrs.field(factory=list)
    names: dict[tuple[str, str], str] = attrs.field(factory=dict)

    def virtual_host(self, place: str, value: object) -> None:
        entry = self.reader.entry(place, value, _VIRTUAL_HOST)
        name = self.name(entry, "virtual host")
        domains = entry.several("domains", _lower, MOST_DOMAINS) if entry.has("domains") else ("*",)
        entry.require("routes", "write routes: and under it what becomes of requests")
        if not entry.is_sound:
            self.fillers.append(entry.at("domains"))
        items = entry.rows("routes", MOST_ROUTES)
        self.routes += len(items)
        routes = tuple(self.route(where, item) for where, item in items) if self.routes <= MOST_ROUTES else ()
        self.found.values += (VirtualHost(name=name, domains=domains, routes=routes),)

    def name(self, entry: Entry, kind: str) -> str:
        """What it is called: by default its place."""
        name = entry.get("name", parse_name, entry.place)
        if (kind, name) in self.names:
            entry.refuse("name", f"{self.names[kind, name]} is called {name} already", "call one of them otherwise")
        self.names.setdefault((kind, name), entry.place)
        return name

    def route(self, place: str, value: object) -> Route:
        entry = self.reader.entry(place, value, _ROUTE)
        name = self.name(entry, "route")
        match = _match(entry)
        action = self.action(entry)
        client = _client(entry)
        if entry.is_sound and action is not None:
            return Route(name=name, match=match, action=action, client=client)
        self.fillers.append(place)
        # About a path that no other route is about, and not above any.
        filler = RouteMatch(kind=PathMatch.EXACT, path=f"/{place}".replace("[", "/").replace("]", ""))
        return Route(name=name, match=filler, action=DirectResponse(status=500))

    def action(self, entry: Entry) -> ToCluster | Redirect | DirectResponse | None:
        given = entry.given(*_ACTIONS)
        if len(given) != 1:
            fact = f"it has {' and '.join(given)}" if given else "it does not say what becomes of requests"
            entry.refuse_whole(fact, f"write one of {', '.join(_ACTIONS)}")
            return None
        if given != ["cluster"]:
            for key in entry.given(*_ONLY_WITH_CLUSTER):
                fix = f"write it into {given[0]}, or remove it" if key in _REDIRECT else "remove it"
                entry.refuse(key, "it would be ignored: it goes with cluster", fix)
            return _redirect(entry) if given == ["redirect"] else _direct_response(entry)
        cluster = entry.get("cluster", parse_name, "")
        if cluster:
            self.found.clusters.append((entry.at("cluster"), cluster))
        return ToCluster(
            cluster=cluster,
            prefix_rewrite=entry.get("prefix_rewrite", str, None),
            host_rewrite=entry.get("host_rewrite", parse_authority, Authority(self.host if cluster == APP else "")),
            timeout=entry.get("timeout", parse_duration, None),
            idle_timeout=entry.get("idle_timeout", parse_duration, None),
        )


def _lower(text: str) -> str:
    return text.lower() if text.isascii() else text


def _match(entry: Entry) -> RouteMatch:
    own = entry.inner("match", _MATCH)
    given = own.given(*_PATHS)
    if len(given) > 1:
        own.refuse(given[1], f"{given[0]} stands beside it", "write one of the two")
    kind = PathMatch(given[0]) if given else PathMatch.PREFIX
    return RouteMatch(
        kind=kind,
        path=own.get(kind.value, str, "/"),
        methods=own.several("methods", str, MOST_METHODS),
        headers=tuple(_header(own.reader, where, value) for where, value in own.rows("headers", MOST_HEADERS)),
    )


def _header(reader: Reader, place: str, value: object) -> HeaderCondition:
    own = reader.entry(place, value, _HEADER)
    own.require("name", "write name: NAME of the field")
    given = own.given(*_COMPARISONS)
    if len(given) > 1:
        own.refuse(given[1], f"{given[0]} stands beside it", "write one of the two")
    match = HeaderMatch(given[0]) if given else HeaderMatch.PRESENT
    is_present = own.is_on("present", default=True)
    invert = own.is_on("invert", default=False)
    return HeaderCondition(
        name=own.get("name", _lower, "x"),
        match=match,
        value="" if match is HeaderMatch.PRESENT else own.text(match.value),
        invert=invert is is_present,
    )


def _redirect(entry: Entry) -> Redirect:
    own = entry.inner("redirect", _REDIRECT)
    if not own.values:
        entry.refuse("redirect", "it does not say where to", "write scheme, host, port, path or prefix_rewrite into it")
    return Redirect(
        scheme=own.get("scheme", _lower, ""),
        host=own.get("host", _lower, ""),
        port=own.get("port", count_within(1, 65535), None),
        path=own.get("path", str, ""),
        prefix_rewrite=own.get("prefix_rewrite", str, None),
        status=own.get("status", count_within(300, 399), 301),
        strip_query=own.is_on("strip_query", default=False),
    )


def _direct_response(entry: Entry) -> DirectResponse:
    own = entry.inner("direct_response", _DIRECT_RESPONSE)
    own.require("status", "write status: 200, or another")
    return DirectResponse(
        status=own.get("status", count_within(200, 599), 200),
        body=own.text("body"),
        content_type=own.text("content_type", DirectResponse(status=200).content_type),
    )


def _client(entry: Entry) -> ClientRule | None:
    if not entry.given(*_CLIENT):
        return None
    mode = entry.get("client_cert", partial(parse_word, ClientCertMode), ClientCertMode.REQUIRED)
    for key in entry.given("allow", "deny") if mode is ClientCertMode.NONE else ():
        fact = "it would be ignored: client_cert is none, so no certificate is looked at"
        entry.refuse(key, fact, "set client_cert to optional or required, or remove this")
    return ClientRule(mode=mode, allow=_matcher(entry, "allow"), deny=_matcher(entry, "deny") or "")


def _matcher(entry: Entry, key: str) -> str | None:
    """The matchers behind *key* as one expression; None without the key. An empty list matches nobody."""
    if not entry.has(key):
        return None
    if entry.values[key] == []:
        return ""
    parse = _parse_for(key)
    listed = ", ".join(entry.several(key, parse, MOST_MATCHERS))
    try:
        return parse(listed) if listed else ""
    except UnitError as error:  # each was good, and together they are too many
        entry.refuse(key, error.fact, error.fix)
        return ""


def _parse_for(key: str) -> Callable[[str], str]:
    from sidecar.policy import matchers

    def parse(text: str) -> str:
        try:
            matcher = matchers.compile(text)
        except matchers.MatcherError as error:
            raise UnitError(error.fact, error.fix) from None
        if key == "deny" and matcher.has_field("sha256"):
            raise UnitError(matchers.NO_FINGERPRINTS_TO_DENY, "write serial and issuer, or spki")
        return str(matcher)

    return parse
