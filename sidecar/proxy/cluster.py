"""
A named upstream service: its endpoints, each with a pool, and which of them a request goes to.

Endpoints come and go with look-ups and reloads. One that stays keeps its connections, its health and its counts; one
that goes gets no more requests, and those it has are finished.
"""

from __future__ import annotations

import enum
import random as dice
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs
from twisted.logger import Logger

from sidecar.policy.balancer import Balancer, EndpointState, Health
from sidecar.proxy.connect import Address, ConnectFailed, Locate, Security, Target, numeric_addresses
from sidecar.proxy.pool import Budget, Pool
from sidecar.proxy.probing import Prober
from sidecar.proxy.resolving import NameWatch, endpoints_of
from sidecar.proxy.streampool import StreamPool
from sidecar.settings import HostPort, Limits
from sidecar.topology import ClusterSpec, Discovery, UpstreamProtocol

APP: Final = "app"
"""The cluster that the settings of the app make; in the log it is what operators know it as."""

_NOT_ITS_FAULT: Final = frozenset({"no_healthy_upstream", "upstream_overflow"})

_log = Logger()


class EndpointHealth(enum.Enum):
    """What an endpoint is taken for."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    EJECTED = "ejected"


@attrs.frozen(kw_only=True)
class EndpointStatus:
    """
    What is to be seen of an endpoint.

    Attributes:
        address: Its own, or that of a name which has none yet.
        why: "" if it is healthy, else what is wrong with it.
        ejected_seconds: For how long it still gets no requests; 0: it is not ejected.
        active: Requests under way.
        open, idle, pending: Connections, those of them without a request, and those that are being made.
        connects, ejections: Connections made, and ejections, since start.
        failures: Connections that could not be made, by reason.
        last_error: Why the last connection could not be made; "" once one could.
        keep_alive_seconds: How long it last promised to keep an idle connection; None: it did not.
    """

    address: str
    weight: int
    health: EndpointHealth
    why: str = ""
    ejected_seconds: float = 0.0
    active: int = 0
    open: int = 0
    idle: int = 0
    pending: int = 0
    connects: int = 0
    failures: Mapping[str, int] = attrs.Factory(dict)
    ejections: int = 0
    last_error: str = ""
    keep_alive_seconds: float | None = None


@attrs.define(kw_only=True)
class ClusterTotals:
    """
    Counts over all endpoints, those that have gone included.

    Attributes:
        open, idle, pending: Connections, those of them without a request, and those that are being made.
        connects: Connections made, since start.
        failures: Such as could not be made, by reason.
        bytes_received, bytes_sent: From and to the endpoints.
        ejections: Since start.
    """

    open: int = 0
    idle: int = 0
    pending: int = 0
    connects: int = 0
    failures: dict[str, int] = attrs.Factory(dict)
    bytes_received: int = 0
    bytes_sent: int = 0
    ejections: int = 0

    def add(self, endpoint: Endpoint) -> None:
        pool = endpoint.pool
        received, sent = pool.bytes_moved()
        self.open += pool.open_count
        self.idle += pool.idle_count
        self.pending += pool.pending_count
        self.connects += pool.statistics.connects
        for reason, count in pool.statistics.failures.items():
            self.failures[reason] = self.failures.get(reason, 0) + count
        self.bytes_received += received
        self.bytes_sent += sent
        self.ejections += endpoint.ejected_count


@attrs.frozen
class _Place:
    """
    What makes an endpoint the same one: what was set, and which of the addresses of a name it is.

    Attributes:
        protocol: What is spoken to it: connections of one serve none of another.
        addresses: None: whatever *target* says at each connect.
    """

    target: Target
    protocol: UpstreamProtocol
    addresses: tuple[Address, ...] | None = None

    @property
    def shown(self) -> str:
        if self.addresses is None:
            return str(self.target)
        host, port = self.addresses[0][1][:2]
        return str(HostPort(host, port))


class Endpoint(EndpointState):
    """
    One address of a cluster.

    Attributes:
        address: In words.
        pool: Its connections.
        health: What active checks say of it; None without any.
    """

    __slots__ = ("_cluster", "address", "health", "pool", "prober", "return_call")

    def __init__(self, cluster: Cluster, pool: Pool) -> None:
        super().__init__()
        self._cluster = cluster
        self.pool = pool
        self.address = pool.address
        self.health: Health | None = None
        self.prober: Prober | None = None
        self.return_call: Any = None  # IDelayedCall: the end of an ejection

    def begin(self) -> None:
        """A request goes to it."""
        self.active += 1
        self._cluster.active += 1

    def end(self) -> None:
        """That request is over, in whatever way."""
        self.active -= 1
        self._cluster.active -= 1

    def succeeded(self) -> None:
        """It has answered, and well."""
        self.failures = 0

    def failed(self, reason: str) -> None:
        """It could not be connected to, broke off, or answered that it fails."""
        if reason not in _NOT_ITS_FAULT:
            self._cluster.note_failure(self, reason)


class Cluster:
    """
    The endpoints of one `ClusterSpec`.

    Attributes:
        name: As in the specification.
        spec: What is in force.
        proxy_protocol: What its connections begin with; who picks an endpoint hands the header to its pool.
        endpoints: Those that there are now.
        active: Requests under way, of all endpoints.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        *,
        limits: Limits,
        connect_timeout: float,
        security: Security | None,
        reactor: Any,
        random: Callable[[], float] = dice.random,
    ) -> None:
        """
        Begin at once to look names up and endpoints over. Requests that come before the first answer of the resolver
        wait for it, as long as for a connection.

        Args:
            limits: For the heads of responses.
            connect_timeout: Seconds, where the specification has none.
            security: TLS; None: none.
            random: Returns numbers from 0 up to, not including, 1.
        """
        self.name = spec.name
        self.active = 0
        self.endpoints: tuple[Endpoint, ...] = ()
        self._limits = limits
        self._reactor = reactor
        self._now = reactor.seconds
        self._random = random
        self._title = "the app" if spec.name == APP else f"cluster {spec.name}"
        self._budget = Budget(spec.limits)
        self._balancer: Balancer[Endpoint] = Balancer(
            spec.balancing, spec.outlier_detection, spec.panic_threshold, random
        )
        self._by_place: dict[_Place, Endpoint] = {}
        self._watches: dict[HostPort, NameWatch] = {}
        self._gone: list[Endpoint] = []  # with connections that are still in use
        self._gone_totals = ClusterTotals()
        self._only: Endpoint | None = None
        self._was_panicking = False
        self._is_stopped = False
        self._adopt(spec, connect_timeout, security)

    # -- for requests --

    def pick(self, exclude: Collection[EndpointState] = ()) -> Endpoint | ConnectFailed:
        """
        Choose an endpoint, or say why there is none.

        Args:
            exclude: Endpoints that the request has been to already.
        """
        if self.active >= self._max_requests:
            return ConnectFailed(
                "upstream_overflow", f"{self._title}: {self._max_requests:,} requests are under way, the limit"
            )
        if self._only is not None and not exclude:
            return self._only
        chosen = self._balancer.choose(self._now(), exclude)
        if chosen is None:
            return ConnectFailed("no_healthy_upstream", f"{self._title}: {self._why_none(exclude)}")
        return chosen

    def _why_none(self, exclude: Collection[EndpointState]) -> str:
        if exclude:
            return "there is no other endpoint"
        problems = [watch.problem for watch in self._watches.values() if watch.problem]
        if self.endpoints or not problems:
            return f"none of its endpoints is available, of {len(self.endpoints)}"
        return "; ".join(problems[:3])

    def note_failure(self, endpoint: Endpoint, reason: str) -> None:
        """Count a failure of *endpoint*, which may be one too many."""
        seconds = self._balancer.failed(endpoint, self._now())
        if seconds:
            _log.warn(
                "cluster {cluster}: {address} gets no requests for {seconds:g} s after {count} failures in a row, the "
                "last: {reason}",
                cluster=self.name,
                address=endpoint.address,
                seconds=seconds,
                count=self.spec.outlier_detection.consecutive_failures,
                reason=reason,
            )
            endpoint.return_call = self._reactor.callLater(seconds, self._ejection_over, endpoint)
            self._changed()

    # -- for operators --

    def statuses(self) -> list[EndpointStatus]:
        """Return what is to be seen of each endpoint, and of each name that has none."""
        shown = [self._status(endpoint) for endpoint in self.endpoints]
        return shown + [
            EndpointStatus(address=str(each.address), weight=each.weight, health=EndpointHealth.UNHEALTHY, why=why)
            for each in self.spec.endpoints
            if (why := self._problem_without_endpoints(each.address))
        ]

    def _problem_without_endpoints(self, target: Target) -> str:
        if any(endpoint.pool.target == target for endpoint in self.endpoints):
            return ""
        watch = self._watches.get(target) if isinstance(target, HostPort) else None
        return watch.problem if watch is not None else ""

    def _status(self, endpoint: Endpoint) -> EndpointStatus:
        pool, remaining = endpoint.pool, max(0.0, endpoint.ejected_until - self._now())
        health, why = EndpointHealth.HEALTHY, ""
        if endpoint.health is not None and not endpoint.is_healthy:
            health, why = EndpointHealth.UNHEALTHY, endpoint.health.why
        elif remaining:
            health, why = EndpointHealth.EJECTED, "too many failures in a row"
        return EndpointStatus(
            address=endpoint.address,
            weight=endpoint.weight,
            health=health,
            why=why,
            ejected_seconds=remaining,
            active=endpoint.active,
            open=pool.open_count,
            idle=pool.idle_count,
            pending=pool.pending_count,
            connects=pool.statistics.connects,
            failures=dict(pool.statistics.failures),
            ejections=endpoint.ejected_count,
            last_error=pool.statistics.last_error,
            keep_alive_seconds=pool.statistics.keep_alive_seconds,
        )

    def totals(self) -> ClusterTotals:
        """Return the counts; none of those since start ever goes back."""
        self._forget_gone()
        totals = attrs.evolve(self._gone_totals, failures=dict(self._gone_totals.failures))
        for endpoint in (*self.endpoints, *self._gone):
            totals.add(endpoint)
        return totals

    @property
    def problem(self) -> str:
        """Why requests fail now, for all that is known; "" if there is an endpoint that they should get through to."""
        if not self.endpoints:
            return self._why_none(())
        problems = [
            endpoint.pool.statistics.last_error or (endpoint.health.why if endpoint.health is not None else "")
            for endpoint in self.endpoints
        ]
        return problems[0] if all(problems) else ""

    # -- changes --

    def update(self, spec: ClusterSpec, *, connect_timeout: float, security: Security | None) -> None:
        """Go by *spec*, of the same name, from now on; see `__init__`."""
        assert spec.name == self.name
        self._adopt(spec, connect_timeout, security)

    def stop(self) -> None:
        """Look nothing up and nobody over any more; close what is idle, and what is in use on its return."""
        self._is_stopped = True
        for watch in self._watches.values():
            watch.stop()
        for endpoint in self.endpoints:
            self._halt(endpoint)

    def _adopt(self, spec: ClusterSpec, connect_timeout: float, security: Security | None) -> None:
        self.spec = spec
        self.proxy_protocol = spec.proxy_protocol
        self.is_multiplexed = spec.protocol is UpstreamProtocol.H2C
        self._connect_timeout = connect_timeout if spec.connect_timeout is None else spec.connect_timeout
        self._security = security
        self._budget.limits = spec.limits
        self._max_requests = spec.limits.requests
        self._balancer.configure(spec.balancing, spec.outlier_detection, spec.panic_threshold)
        self._watch_names()
        for endpoint in self.endpoints:
            endpoint.pool.secure(security)
            endpoint.pool.connect_timeout_seconds = self._connect_timeout
        self._arrange()

    def _watch_names(self) -> None:
        """Have a watch on each name whose addresses are looked up; it may begin to find at once."""
        old, self._watches = self._watches, {}
        new: list[NameWatch] = []
        for each in self.spec.endpoints:
            target = each.address
            if self.spec.discovery is Discovery.STATIC or numeric_addresses(target) is not None:
                continue
            assert isinstance(target, HostPort)
            watch = old.pop(target, None)
            if watch is None:
                watch = NameWatch(
                    target,
                    cluster=self.name,
                    refresh_seconds=self.spec.dns_refresh,
                    reactor=self._reactor,
                    random=self._random,
                    changed=self._arrange,
                )
                new.append(watch)
            watch.refresh_seconds = self.spec.dns_refresh
            self._watches[target] = watch
        for watch in old.values():
            watch.stop()
        for watch in new:
            watch.start()

    def _places(self) -> dict[_Place, tuple[int, Locate | None]]:
        """Return which endpoints there are to be: the weight of each, and who knows where it is."""
        places: dict[_Place, tuple[int, Locate | None]] = {}
        protocol = self.spec.protocol
        for each in self.spec.endpoints:
            watch = self._watches.get(each.address) if isinstance(each.address, HostPort) else None
            if watch is None:
                places[_Place(each.address, protocol)] = each.weight, None
            elif not watch.addresses and not watch.is_open:
                continue
            elif watch.is_open or self.spec.discovery is Discovery.LOGICAL_DNS:
                places[_Place(each.address, protocol)] = each.weight, watch.locate
            else:
                for addresses in endpoints_of(watch.addresses):
                    places[_Place(each.address, protocol, addresses)] = each.weight, _at(addresses)
        return places

    def _arrange(self) -> None:
        """Make, keep and retire endpoints until they are those that there are to be."""
        if self._is_stopped:
            return
        places = self._places()
        for place in self._by_place.keys() - places.keys():
            self._retire(self._by_place.pop(place))
        for place, (weight, locate) in places.items():
            endpoint = self._by_place.get(place)
            if endpoint is None:
                endpoint = self._by_place[place] = self._make(place)
            endpoint.weight = weight
            endpoint.pool.locate = locate
            self._look_over(endpoint)
        self.endpoints = tuple(self._by_place[place] for place in places)
        self._balancer.use(self.endpoints, self._now())
        self._changed()

    def _make(self, place: _Place) -> Endpoint:
        make = StreamPool if self.is_multiplexed else Pool
        pool = make(
            place.target,
            self._connect_timeout,
            self._limits,
            self._reactor,
            name=self._title,
            address=place.shown,
            security=self._security,
            budget=self._budget,
        )
        return Endpoint(self, pool)

    def _retire(self, endpoint: Endpoint) -> None:
        self._halt(endpoint)
        self._gone.append(endpoint)
        self._forget_gone()

    def _halt(self, endpoint: Endpoint) -> None:
        if endpoint.prober is not None:
            endpoint.prober.stop()
            endpoint.prober = None
        if endpoint.return_call is not None and endpoint.return_call.active():
            endpoint.return_call.cancel()
        endpoint.pool.stop()

    def _forget_gone(self) -> None:
        """Keep only the counts of retired endpoints whose last connection has ended."""
        ended = [each for each in self._gone if not (each.pool.open_count or each.pool.pending_count or each.active)]
        for endpoint in ended:
            self._gone_totals.add(endpoint)
            self._gone.remove(endpoint)

    # -- health --

    def _look_over(self, endpoint: Endpoint) -> None:
        """Probe *endpoint* as the specification wants it; if it is not clear yet where it is, do not."""
        target = endpoint.pool.target
        watch = self._watches.get(target) if isinstance(target, HostPort) else None
        check = None if watch is not None and watch.is_open else self.spec.health_check
        if endpoint.health is not None and check == endpoint.health.check:
            return
        if endpoint.prober is not None:
            endpoint.prober.stop()
            endpoint.prober = None
        if check is None:
            endpoint.health, endpoint.is_healthy = None, True
            return
        why = endpoint.health.why if endpoint.health is not None else ""
        endpoint.health = Health(check, endpoint.is_healthy, why)
        endpoint.prober = Prober(
            check,
            endpoint.pool.way,
            host=self.name.replace("/", "."),  # which no host name has
            proxy_protocol=lambda: self.proxy_protocol,
            reactor=self._reactor,
            random=self._random,
            result=lambda why: self._checked(endpoint, why),
        )
        endpoint.prober.start()

    def _checked(self, endpoint: Endpoint, why: str) -> None:
        health = endpoint.health
        if health is None or not health.note(why):
            return
        endpoint.is_healthy = health.is_healthy
        if health.is_healthy:
            _log.info("cluster {cluster}: {address} is healthy again", cluster=self.name, address=endpoint.address)
        else:
            _log.warn(
                "cluster {cluster}: {address} is unhealthy: {why}",
                cluster=self.name,
                address=endpoint.address,
                why=why,
            )
        self._changed()

    def _ejection_over(self, endpoint: Endpoint) -> None:
        _log.info("cluster {cluster}: {address} gets requests again", cluster=self.name, address=endpoint.address)
        self._changed()

    def _changed(self) -> None:
        """Which endpoints are available may have changed."""
        now = self._now()
        self._balancer.refresh(now)
        self._only = self._balancer.only(now)
        is_panicking = self._balancer.is_panicking
        if is_panicking and not self._was_panicking and self.endpoints:
            _log.warn(
                "cluster {cluster}: {count} of {all} endpoints are available, under the panic_threshold of {limit} %: "
                "requests go to all of them",
                cluster=self.name,
                count=sum(endpoint.is_available(now) for endpoint in self.endpoints),
                all=len(self.endpoints),
                limit=self.spec.panic_threshold,
            )
        self._was_panicking = is_panicking


def _at(addresses: tuple[Address, ...]) -> Locate:
    return lambda attempt: attempt.start(addresses)
