"""
Where requests go while the program runs: routes of a listener, each with the cluster, timeouts and rule it comes to.

Made anew with every reload; an exchange keeps the `Destination` that it began with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import attrs

from sidecar.policy.authz import Rule
from sidecar.policy.routes import RouteTable, client_rule
from sidecar.policy.targets import location, rewritten_target
from sidecar.proxy.connect import ConnectFailed
from sidecar.settings import ProxyProtocolOut, Seconds, Timeouts
from sidecar.topology import DirectResponse, Redirect, Route, RouteMatch, ToCluster, VirtualHost
from sidecar.wire.events import RequestHead
from sidecar.wire.target import canonical


class Endpoint(Protocol):
    """One address of a cluster, as an exchange needs it."""

    @property
    def address(self) -> str: ...
    @property
    def pool(self) -> Any:  # Any: proxy.pool.Pool, or a fake of one
        ...
    def begin(self) -> None:
        """A request goes to it."""

    def end(self) -> None:
        """That request is over, in whatever way."""

    def failed(self, reason: str) -> None:
        """It did not do what it should."""

    def succeeded(self) -> None:
        """It has answered."""


class Cluster(Protocol):
    """An upstream service, as an exchange needs it."""

    @property
    def name(self) -> str: ...
    @property
    def proxy_protocol(self) -> ProxyProtocolOut: ...
    @property
    def is_multiplexed(self) -> bool:
        """Whether its connections have streams, each for an exchange."""

    def pick(self, exclude: Collection[Any] = ()) -> Endpoint | ConnectFailed:
        """Choose an endpoint that is not among *exclude*, or say why there is none."""


class Destination:
    """
    What becomes of requests of a route that leads to a cluster.

    Attributes:
        name: Of the route; "" if there is only one.
        timeouts: Those of the settings, but for what the route says otherwise.
        host: The Host that the app is told; b"": the client's.
        rule: What clients must show; None: what holds for the listener.
        rewriting: The route, if the app gets another path than the client sent.
    """

    # Written out: mypyc compiles no decorated class, and every request looks at one (bench row `requests`).
    def __init__(
        self,
        *,
        name: str,
        cluster: Cluster,
        timeouts: Timeouts,
        host: bytes = b"",
        rule: Rule | None = None,
        rewriting: Route | None = None,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.timeouts = timeouts
        self.host = host
        self.rule = rule
        self.rewriting = rewriting

    def rewritten(self, target: bytes) -> bytes:
        """Return the origin-form that the app gets for *target*; raises RequestError where that is not clear."""
        assert self.rewriting is not None
        plain = canonical(target)
        return rewritten_target(self.rewriting, plain, plain)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Answer:
    """What becomes of requests that are answered here."""

    name: str
    action: Redirect | DirectResponse
    match: RouteMatch
    rule: Rule | None = None

    def location(self, scheme: str, host: bytes, target: bytes) -> bytes:
        """Return the URL that a client is sent to; raises RequestError if *target* can be read in different ways."""
        assert isinstance(self.action, Redirect)
        return location(self.action, self.match, scheme.encode(), host, canonical(target))


Outcome = Destination | Answer


class Router:
    """
    The routes of one listener.

    Attributes:
        only: What becomes of every request, if that is the same for all; None if it has to be looked for.
        has_rules: Whether a route has rules of its own for clients.
    """

    def __init__(self, table: RouteTable | None, outcomes: Mapping[int, Outcome], only: Outcome | None) -> None:
        """
        Args:
            outcomes: By the identity of the route.
        """
        self.only = only
        self.has_rules = any(outcome.rule is not None for outcome in outcomes.values())
        self._table = table
        self._outcomes = outcomes

    @classmethod
    def to(cls, cluster: Cluster, timeouts: Timeouts) -> Router:
        """Send every request to *cluster*."""
        return cls(None, {}, Destination(name="", cluster=cluster, timeouts=timeouts))

    @classmethod
    def compile(
        cls, hosts: Sequence[VirtualHost], clusters: Mapping[str, Cluster], timeouts: Timeouts, default: Rule
    ) -> Router:
        """
        Args:
            clusters: By name; every one that a route names.
            timeouts: Where a route has none of its own.
            default: What holds for clients where a route says nothing.
        """
        table = RouteTable.compile(hosts)
        outcomes = {
            id(route): _outcome("" if route is table.only else route.name, route, clusters, timeouts, default)
            for host in hosts
            for route in host.routes
        }
        return cls(table, outcomes, None if table.only is None else outcomes[id(table.only)])

    @property
    def cluster(self) -> Cluster:
        """The one that everything goes to; there must be one."""
        assert isinstance(self.only, Destination)
        return self.only.cluster

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those of routes that have their own."""
        return tuple(outcome.rule for outcome in self._outcomes.values() if outcome.rule is not None)

    def tells_apart(self, host: str, other: str) -> bool:
        """Whether it makes a difference for which of two hosts, as `conditions.plain_host` makes them, a request is."""
        return self._table is not None and self._table.tells_apart(host, other)

    def find(self, head: RequestHead, host: bytes, path: bytes) -> Outcome | None:
        """
        Return what becomes of a request; None: no route is about it.

        Args:
            host: That it is for.
            path: Of its target, in one reading (`wire.target.readings`).
        """
        if self.only is not None:
            return self.only
        assert self._table is not None
        route = self._table.find(host, head.method, path, head.fields)
        return None if route is None else self._outcomes[id(route)]

    def find_carelessly(self, head: RequestHead, host: bytes, path: bytes) -> Outcome | None:
        """The same for the reading of a careless app, see `policy.conditions`."""
        if self.only is not None:
            return self.only
        assert self._table is not None
        route = self._table.find_carelessly(host, head.method, path, head.fields)
        return None if route is None else self._outcomes[id(route)]


def _outcome(name: str, route: Route, clusters: Mapping[str, Cluster], timeouts: Timeouts, default: Rule) -> Outcome:
    action, rule = route.action, client_rule(route, default)
    if not isinstance(action, ToCluster):
        return Answer(name=name, action=action, match=route.match, rule=rule)
    if action.timeout is not None:
        timeouts = attrs.evolve(timeouts, upstream=Seconds(action.timeout))
    if action.idle_timeout is not None:
        timeouts = attrs.evolve(timeouts, stream=Seconds(action.idle_timeout))
    return Destination(
        name=name,
        cluster=clusters[action.cluster],
        timeouts=timeouts,
        host=action.host_rewrite.encode("ascii"),
        rule=rule,
        rewriting=route if action.prefix_rewrite is not None else None,
    )
