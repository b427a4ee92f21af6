"""
Which route a request takes: virtual hosts, compiled once, and looked up for every request.

This is the module that others ask about routes; what is wrong with routes says `problems`, what a route makes of a
request target say `rewritten_target` and `location`.

Routes have two readings of a path, as rules have (`policy.conditions`). Where a request goes is decided by the strict
one. What its client must show, by both: the client rule of either route must let it in, so that ``/Admin`` does not get
past the rule of ``/admin``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from sidecar.policy import matchers
from sidecar.policy.authz import Rule
from sidecar.policy.conditions import Reading, plain_host, read_carelessly
from sidecar.policy.domains import ANY, DomainTable, check_domain
from sidecar.policy.expressions import Expression, literal_start
from sidecar.policy.route_problems import RouteProblem, problems
from sidecar.policy.targets import location, rewritten_target
from sidecar.settings import ClientCertMode
from sidecar.topology import HeaderCondition, HeaderMatch, PathMatch, Route, RouteMatch, VirtualHost
from sidecar.wire.fields import Fields

__all__ = ["RouteTable", "client_rule", "problems", "RouteProblem", "rewritten_target", "location"]


# -- one route ---------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class _Entry:
    """
    A route with what remains to be compared once its path or prefix has been found.

    Attributes:
        methods: None: all of them.
        headers: Each must be true.
        expression: None if its path is none.
    """

    route: Route
    methods: frozenset[bytes] | None
    headers: tuple[Callable[[Fields], bool], ...]
    expression: Expression | None

    @classmethod
    def of(cls, route: Route) -> _Entry:
        match = route.match
        return cls(
            route=route,
            methods=_methods(match),
            headers=tuple(map(_field_test, match.headers)),
            expression=Expression(match.path) if match.kind is PathMatch.REGEX else None,
        )

    def fits(self, method: bytes, fields: Fields) -> bool:
        """Whether it fits but for the path."""
        if self.methods is not None and method not in self.methods:
            return False
        return not self.headers or all(test(fields) for test in self.headers)


def _methods(match: RouteMatch) -> frozenset[bytes] | None:
    # GET includes HEAD, as in rules.
    methods = {method.encode("ascii") for method in match.methods}
    return frozenset(methods | {b"HEAD"} if b"GET" in methods else methods) or None


def _field_test(condition: HeaderCondition) -> Callable[[Fields], bool]:
    name = condition.name.lower().encode("ascii")
    fits = _value_test(condition)
    wanted = not condition.invert

    def test(fields: Fields) -> bool:
        values = fields.values(name)
        return (bool(values) and fits(b",".join(values))) is wanted

    return test


def _value_test(condition: HeaderCondition) -> Callable[[bytes], bool]:
    value = condition.value.encode()
    match condition.match:
        case HeaderMatch.PRESENT:
            return lambda found: True
        case HeaderMatch.EXACT:
            return lambda found: found == value
        case HeaderMatch.PREFIX:
            return lambda found: found.startswith(value)
        case HeaderMatch.SUFFIX:
            return lambda found: found.endswith(value)
        case HeaderMatch.CONTAINS:
            return lambda found: value in found
        case HeaderMatch.REGEX:
            return Expression(condition.value).fits


# -- the routes of a virtual host --------------------------------------------------------------------------------

_Paths = Sequence[tuple[int, bytes]]


def _by_path(paths: _Paths) -> dict[bytes, tuple[int, ...]]:
    found: dict[bytes, tuple[int, ...]] = {}
    for i, path in paths:
        found[path] = (*found.get(path, ()), i)
    return found


@attrs.frozen(eq=False, repr=False)
class _Index:
    """
    The routes of a virtual host by their paths, in one reading.

    It is asked for every length that a prefix has, not for every prefix.

    Attributes:
        exact: Places of routes by path.
        prefixes: Places of routes by prefix; of expressions, by what begins whatever fits them.
    """

    exact: dict[bytes, tuple[int, ...]] = attrs.field(converter=_by_path)
    prefixes: dict[bytes, tuple[int, ...]] = attrs.field(converter=_by_path)
    _lengths: tuple[int, ...] = attrs.field(init=False)

    @_lengths.default
    def _measure(self) -> tuple[int, ...]:
        return tuple(sorted({len(prefix) for prefix in self.prefixes}))

    def candidates(self, whole: bytes, start: bytes) -> list[int]:
        """
        The places of all routes that may fit, in order: of expressions that is not known yet.

        Args:
            whole: What paths are compared with.
            start: What prefixes are compared with.
        """
        found = list(self.exact.get(whole, ()))
        size = len(start)
        for length in self._lengths:
            if length > size:
                break
            found += self.prefixes.get(start[:length], ())
        found.sort()
        return found


def _careless(path: bytes) -> bytes:
    return read_carelessly(Reading(b"", "", path)).path


def _with_slash(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"


def _strict_index(matches: Sequence[RouteMatch]) -> _Index:
    prefixes = [(i, _prefix(path)) for i, path in _paths(matches, PathMatch.PREFIX)]
    expressions = [(i, literal_start(text.decode()).encode()) for i, text in _paths(matches, PathMatch.REGEX)]
    return _Index(exact=_paths(matches, PathMatch.EXACT), prefixes=[*prefixes, *expressions])


def _careless_index(matches: Sequence[RouteMatch]) -> _Index:
    prefixes = []
    for i, path in _paths(matches, PathMatch.PREFIX):
        plain = _careless(path)
        prefixes.append((i, _prefix(_with_slash(plain) if path.endswith(b"/") else plain)))
    # What begins an expression without case is not what begins a path of which parameters have been cut off.
    expressions = [(i, b"") for i, _ in _paths(matches, PathMatch.REGEX)]
    return _Index(
        exact=[(i, _careless(path)) for i, path in _paths(matches, PathMatch.EXACT)],
        prefixes=[*prefixes, *expressions],
    )


def _paths(matches: Iterable[RouteMatch], kind: PathMatch) -> _Paths:
    return [(i, match.path.encode("utf-8")) for i, match in enumerate(matches) if match.kind is kind]


def _prefix(path: bytes) -> bytes:
    """A prefix as it is looked up: ``/`` is about every request, that with the asterisk-form too."""
    return b"" if path == b"/" else path


@attrs.frozen(eq=False, repr=False)
class _Routes:
    """The routes of one virtual host."""

    entries: tuple[_Entry, ...]
    strict: _Index
    careless: _Index

    @classmethod
    def of(cls, routes: Sequence[Route]) -> _Routes:
        matches = [route.match for route in routes]
        return cls(tuple(map(_Entry.of, routes)), _strict_index(matches), _careless_index(matches))

    def find(self, method: bytes, path: bytes, fields: Fields) -> Route | None:
        for i in self.strict.candidates(path, path):
            entry = self.entries[i]
            if entry.fits(method, fields) and (entry.expression is None or entry.expression.fits(path)):
                return entry.route
        return None

    def find_carelessly(self, method: bytes, path: bytes, fields: Fields) -> Route | None:
        short = _careless(path)
        start = _with_slash(short)
        method = method.upper()
        # As it stands too, since an expression may be about parameters.
        readings = {path, short, start}
        for i in self.careless.candidates(short, start):
            entry = self.entries[i]
            if entry.fits(method, fields) and (
                entry.expression is None or any(map(entry.expression.fits_without_case, readings))
            ):
                return entry.route
        return None


# -- the table ---------------------------------------------------------------------------------------------------

_EVERYTHING: Final = RouteMatch()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouteTable:
    """
    The routes of a listener.

    Attributes:
        only: The route of every request, if there is one: then nobody has to look. Its own client rule still counts.
        looks_at_path: Whether paths make a difference; otherwise any may be given, and it need not be normalised.
    """

    only: Route | None
    looks_at_path: bool
    _domains: DomainTable[_Routes] = attrs.field(alias="domains", repr=False)

    @classmethod
    def compile(cls, virtual_hosts: Sequence[VirtualHost]) -> RouteTable:
        """
        Compile virtual hosts in which `problems` finds none.

        Raises:
            ConditionError: It would have found one.
        """
        domains: dict[str, _Routes] = {}
        for virtual_host in virtual_hosts:
            compiled = _Routes.of(virtual_host.routes)
            domains |= dict.fromkeys(map(check_domain, virtual_host.domains), compiled)
        routes = [route for virtual_host in virtual_hosts for route in virtual_host.routes]
        return cls(
            only=_only(virtual_hosts),
            looks_at_path=any((route.match.kind, route.match.path) != (PathMatch.PREFIX, "/") for route in routes),
            domains=DomainTable.of(domains),
        )

    def find(self, host: bytes | str, method: bytes, path: bytes, fields: Fields) -> Route | None:
        """
        The route of a request: of the virtual host whose domain fits best, the first route that fits.

        Args:
            host: Authority as the client sent it; or, as text, what `conditions.plain_host` made of it.
            method: As the client sent it.
            path: Normalised and decoded, without query; ``*`` for the asterisk-form, which only the prefix ``/`` and
                expressions fit.
            fields: Header section. Several lines of a name are compared as one value, joined by commas.

        Returns:
            None if there is no virtual host for it, or no route of its virtual host fits.
        """
        routes = self._routes(host)
        return None if routes is None else routes.find(method, path, fields)

    def find_carelessly(self, host: bytes | str, method: bytes, path: bytes, fields: Fields) -> Route | None:
        """
        The route that the same request takes if methods and paths are compared as the most careless app may do it.

        Case makes no difference, path parameters are cut off, slashes in a row are one, and one at the end is neither
        needed nor in the way. Of expressions, that one fits the path without case, be it as it stands or so changed,
        is enough.

        What is promised: whatever fits a route as `find` compares, fits it here too. So the route is that of `find` or
        one above it in the same virtual host, never one below, and there is one wherever `find` knows one. A client
        that is let in by the client rules of *both* cannot have spelt its path or method so as to get past a route
        that an app with all of these habits would take it to be for. An app with some of them only, such as one that
        ignores case but tells ``/admin`` from ``/admin/``, may still see another route in between, if the operator
        gave those two different client rules. Hosts and fields are compared as `find` does: whoever may choose them
        may choose the route, so they protect only an app that goes by them too.

        Args:
            host, method, path, fields: As for `find`.
        """
        routes = self._routes(host)
        return None if routes is None else routes.find_carelessly(method, path, fields)

    def tells_apart(self, host: str, other: str) -> bool:
        """Whether two hosts, as `conditions.plain_host` makes them, are not of the same virtual host."""
        return self._routes(host) is not self._routes(other)

    def _routes(self, host: bytes | str) -> _Routes | None:
        if self._domains.is_for_any:
            return self._domains.default
        return self._domains.find(host if isinstance(host, str) else plain_host(host))


def _only(virtual_hosts: Sequence[VirtualHost]) -> Route | None:
    if len(virtual_hosts) != 1 or ANY not in virtual_hosts[0].domains:
        return None
    first = next(iter(virtual_hosts[0].routes), None)
    return first if first is not None and first.match == _EVERYTHING else None


# -- clients -----------------------------------------------------------------------------------------------------


def client_rule(route: Route, default: Rule) -> Rule | None:
    """
    What clients must show on *route*; None if it says nothing of its own.

    As in `policy.rules`: a route without an allow list has that of the default, and whom the default denies is denied
    on every route that looks at certificates.

    Args:
        default: What holds for the listener, whose conditions are not looked at.

    Raises:
        MatcherError: One of its lists is none.
    """
    client = route.client
    if client is None:
        return None
    if client.mode is ClientCertMode.NONE:
        return Rule(name=route.name, mode=client.mode)
    denied = matchers.compile(client.deny)
    lists = [each for each in (denied, default.deny) if each is not None and each.terms]
    return Rule(
        name=route.name,
        mode=client.mode,
        allow=default.allow if client.allow is None else matchers.compile(client.allow),
        deny=matchers.any_of(lists) if lists else None,
    )
