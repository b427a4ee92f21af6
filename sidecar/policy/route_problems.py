"""
What is wrong with virtual hosts and their routes: everything at once, in the operator's words.

Called while settings are checked; `policy.routes` compiles only what has no problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, assert_never

import attrs

from sidecar.policy.conditions import ConditionError, check_method, check_path
from sidecar.policy.domains import check_domain, check_host
from sidecar.policy.expressions import Expression, literal_start
from sidecar.policy.rewrite import is_ours
from sidecar.topology import (
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
from sidecar.values import Value

T = TypeVar("T")

LARGEST_BODY: Final = 64 * 1024
"""Bytes of a direct response: it is kept in memory, and written at once."""

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_WITHOUT_BODY: Final = (204, 205, 304)  # RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5
_TURN_INTO_GET: Final = (301, 302, 303)

# RFC 9110 section 5.1: field-name = token; in lower case.
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
# RFC 9110 section 5.5: what no field value has, or has not kept when it is compared.
_ODD_IN_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")
# RFC 9110 section 8.3.1, less quoted parameters, which no content type of a short text needs.
_CONTENT_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:; ?[\w-]+=[\w.-]+)*", re.ASCII)

# RFC 3986 section 3.3: path-absolute, of which each segment is *pchar; and its query (section 3.4).
_PCHAR: Final = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_PATH: Final = re.compile(rf"(?:/{_PCHAR}*)+")
_QUERY: Final = re.compile(rf"(?:{_PCHAR}|[/?])*")
_RESOLVED: Final = re.compile(r"//|/\.\.?(?:[/;]|\Z)")


@attrs.frozen(eq=False, repr=False)
class RouteProblem(Value):
    """
    One thing that is wrong.

    Attributes:
        place: Where it is written, e.g. ``virtual_hosts[0].routes[2].match.regex``.
        fact: What is wrong, with the value and the limit.
        fix: What to do about it.
    """

    place: str
    fact: str
    fix: str


def problems(virtual_hosts: Sequence[VirtualHost], place: str = "virtual_hosts") -> list[RouteProblem]:
    """
    Find all that is wrong with the virtual hosts of one listener, in the order in which it is written.

    That a route is never reached is found if one single route above it fits whatever fits it, as far as that is plain
    from the texts; that several together do is not. Clusters, what they are told as Host, and client rules are not
    looked at: `config` reads them.

    Args:
        place: What the list is called.
    """
    checker = _Checker()
    for i, virtual_host in enumerate(virtual_hosts):
        checker.virtual_host(f"{place}[{i}]", virtual_host)
    return checker.found


@attrs.define(eq=False, repr=False)
class _Checker:
    """
    Collects problems.

    Attributes:
        domains: Where each has been written.
    """

    found: list[RouteProblem] = attrs.field(factory=list)
    domains: dict[str, str] = attrs.field(factory=dict)

    def refuse(self, place: str, fact: str, fix: str) -> None:
        self.found.append(RouteProblem(place, fact, fix))

    def check(self, place: str, compile: Callable[[str], T], text: str) -> T | None:
        """What *compile* makes of *text*; None, and a problem, if it does not."""
        try:
            return compile(text)
        except ConditionError as error:
            self.refuse(place, error.fact, error.fix)
            return None

    # -- virtual hosts --

    def virtual_host(self, place: str, virtual_host: VirtualHost) -> None:
        own: set[str] = set()
        if not virtual_host.domains:
            self.refuse(f"{place}.domains", "the list is empty", 'write "*" for every host')
        for i, pattern in enumerate(virtual_host.domains):
            where = f"{place}.domains[{i}]"
            domain = self.check(where, check_domain, pattern)
            if domain is None:
                continue
            if domain in self.domains:
                self.refuse(where, f"'{domain}' stands in {self.domains[domain]} already", "write it once")
            self.domains.setdefault(domain, where)
            own.add(domain)
        above: list[_Sound] = []
        for i, route in enumerate(virtual_host.routes):
            self.route(f"{place}.routes[{i}]", route, above, own)

    def reach(self, sound: _Sound, above: Sequence[_Sound]) -> bool:
        """Whether a route is ever reached behind those above it."""
        for other in above:
            if other.covers(sound):
                is_same = other.match == sound.match
                fact = f"{other.place} above it is about {'the same' if is_same else 'all of its'} requests"
                self.refuse(sound.place, f"it is never reached: {fact}", "move it up, or remove it")
                return False
        return True

    # -- routes --

    def route(self, place: str, route: Route, above: list[_Sound], domains: set[str]) -> None:
        sound = self.sound(place, route)
        is_reached = sound is not None and self.reach(sound, above)
        before = len(self.found)
        self.action(place, route)
        if sound is None:
            return
        action = route.action
        is_well = is_reached and len(self.found) == before
        if is_well and isinstance(action, Redirect) and _leads_to_itself(sound, action, above, domains):
            fact = "it leads to a request that takes the same route again, without end"
            self.refuse(f"{place}.redirect", fact, "lead elsewhere, or put a route for its target above it")
        above.append(sound)

    def sound(self, place: str, route: Route) -> _Sound | None:
        """A route as it is compared with others; None if its match has a problem: nobody knows what it is about."""
        before = len(self.found)
        self.match(f"{place}.match", route.match)
        return _Sound.of(place, route) if len(self.found) == before else None

    def action(self, place: str, route: Route) -> None:
        action = route.action
        match action:
            case ToCluster():
                self.rewrite(f"{place}.prefix_rewrite", route.match, action.prefix_rewrite)
            case Redirect():
                self.redirect(f"{place}.redirect", route.match, action)
            case DirectResponse():
                self.direct_response(f"{place}.direct_response", action)
            case _:
                assert_never(action)

    def match(self, place: str, match: RouteMatch) -> None:
        where = f"{place}.{match.kind.value}"
        if match.kind is PathMatch.REGEX:
            self.check(where, _check_path_expression, match.path)
        else:
            self.check(where, _check_plain_path, match.path)
        for i, method in enumerate(match.methods):
            self.check(f"{place}.methods[{i}]", check_method, method)
        for i, header in enumerate(match.headers):
            self.header(f"{place}.headers[{i}]", header)

    def header(self, place: str, header: HeaderCondition) -> None:
        if not _FIELD_NAME.fullmatch(header.name):
            fix = "write one in lower case, such as x-version; methods and domains have keys of their own"
            self.refuse(f"{place}.name", f"{_shown(header.name)} is no name of a field", fix)
        elif is_ours(header.name.lower().encode()):
            fact = f"{header.name} is what a client only claims, and does not reach the app as it was sent"
            self.refuse(
                f"{place}.name", fact, "go by client certificates (client_cert, allow), or by a field of the app's"
            )
        where = f"{place}.{header.match.value}"
        match header.match:
            case HeaderMatch.PRESENT:
                if header.value:
                    self.refuse(
                        where, f"{_shown(header.value)} would be compared with nothing", "write exact, or no value"
                    )
            case HeaderMatch.REGEX:
                self.check(where, Expression, header.value)
            case HeaderMatch.EXACT:
                self.value(where, header.value)
            case HeaderMatch.PREFIX | HeaderMatch.SUFFIX | HeaderMatch.CONTAINS:
                if not header.value:
                    self.refuse(where, "it is empty, which every value fits", "write present: on, or a value")
                self.value(where, header.value)
            case _:
                assert_never(header.match)

    def value(self, place: str, value: str) -> None:
        if _ODD_IN_VALUE.search(value) or not _is_text(value):
            fact = f"{_shown(value)} has control characters, or blanks at an end, which no value has"
            self.refuse(place, fact, "leave them out")

    # -- actions --

    def rewrite(self, place: str, match: RouteMatch, rewrite: str | None) -> None:
        if rewrite is None:
            return
        if match.kind is PathMatch.REGEX:
            self.refuse(place, "an expression has no prefix that could be replaced", "match by prefix or path")
        elif self.path(place, rewrite) and _glues(match, rewrite):
            fact = f"{_shown(match.path + 'x')} would become {_shown(rewrite + 'x')}"
            self.refuse(place, fact, "end it with / as the prefix does, or the prefix without")

    def path(self, place: str, path: str) -> bool:
        """Check a path that is sent somewhere; whether it is one."""
        before = len(self.found)
        if not path.startswith("/"):
            self.refuse(place, f"{_shown(path)} is no path", "begin it with /")
        elif not _PATH.fullmatch(path):
            fix = "write other characters percent-encoded, such as %20 for a blank"
            self.refuse(place, f"{_shown(path)} has characters that no path has when it is sent", fix)
        elif odd := _RESOLVED.search(path):
            fact = f"{_shown(path)} has {_shown(odd[0])}, which programs read in different ways"
            self.refuse(place, fact, "write the path without dot segments and empty ones")
        return len(self.found) == before

    def redirect(self, place: str, match: RouteMatch, redirect: Redirect) -> None:
        if redirect.scheme not in ("", "http", "https"):
            self.refuse(f"{place}.scheme", f"{_shown(redirect.scheme)} is no scheme", "write http or https")
        if redirect.host:
            self.check(f"{place}.host", check_host, redirect.host)
        if redirect.port is not None and not 1 <= redirect.port <= 65535:
            self.refuse(f"{place}.port", f"{redirect.port:,} is no port", "write a number from 1 to 65535")
        if redirect.status not in _REDIRECTS:
            known = ", ".join(map(str, _REDIRECTS))
            self.refuse(f"{place}.status", f"{redirect.status} is no status of a redirect", f"write one of {known}")
        if redirect.path:
            path, _, query = redirect.path.partition("?")
            if self.path(f"{place}.path", path) and not _QUERY.fullmatch(query):
                fix = "write other characters percent-encoded, and no fragment"
                self.refuse(f"{place}.path", f"{_shown(query)} has characters that no query has", fix)
            if redirect.prefix_rewrite is not None:
                self.refuse(f"{place}.prefix_rewrite", "path replaces all of the path already", "write one of the two")
        else:
            self.rewrite(f"{place}.prefix_rewrite", match, redirect.prefix_rewrite)

    def direct_response(self, place: str, response: DirectResponse) -> None:
        status = response.status
        if not 200 <= status <= 599:
            self.refuse(f"{place}.status", f"{status} is no final status", "write a number from 200 to 599")
        if not _is_text(response.body):
            self.refuse(f"{place}.body", "it has characters that there are not", "write it as UTF-8")
        elif (size := len(response.body.encode())) > LARGEST_BODY:
            fact = f"it is {size:,} bytes, limit {LARGEST_BODY:,}"
            self.refuse(f"{place}.body", fact, "let an app serve it")
        elif size and status in _WITHOUT_BODY:
            self.refuse(
                f"{place}.body", f"a response with status {status} has none", "leave it out, or answer with 200"
            )
        if not _CONTENT_TYPE.fullmatch(response.content_type):
            fix = "write one such as text/plain; charset=utf-8"
            self.refuse(f"{place}.content_type", f"{_shown(response.content_type)} is no content type", fix)


def _shown(text: str) -> str:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return f"'{shown}'" if shown.isprintable() else ascii(shown)


def _is_text(text: str) -> bool:
    """Whether it has no halves of characters, as JSON may hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _glues(match: RouteMatch, rewrite: str) -> bool:
    """Whether a slash that parts two segments would be replaced by none."""
    return match.kind is PathMatch.PREFIX and match.path.endswith("/") and not rewrite.endswith("/")


def _check_plain_path(path: str) -> None:
    if "*" in path:
        fix = "write the path without it: a prefix is about all that begins with it; or use regex"
        raise ConditionError(f"{_shown(path)} has a *, which would mean itself", fix)
    check_path(path)
    if not _is_text(path):
        raise ConditionError(f"{_shown(path)} has octets that no path has", "write it as UTF-8")


def _check_path_expression(text: str) -> None:
    Expression(text)
    start = literal_start(text)
    if start and not start.startswith("/"):
        raise ConditionError(f"{_shown(text)} fits no path", "begin it with /: all of the path is compared")


# -- routes together ---------------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class _Sound(Value):
    """
    A route that has no problem of its own.

    Attributes:
        start: What every path that it is about begins with; "" if that is not plain.
        expression: None if its path is none.
    """

    place: str
    route: Route
    start: str
    expression: Expression | None

    @classmethod
    def of(cls, place: str, route: Route) -> _Sound:
        match = route.match
        if match.kind is PathMatch.REGEX:
            return cls(place, route, literal_start(match.path), Expression(match.path))
        return cls(place, route, match.path, None)

    @property
    def match(self) -> RouteMatch:
        return self.route.match

    def covers(self, below: _Sound) -> bool:
        """Whether it is plain that whatever fits *below* fits this one too."""
        return (
            self._covers_path(below)
            and _covers_methods(self.match, below.match)
            and set(self.match.headers) <= set(below.match.headers)
        )

    def _covers_path(self, below: _Sound) -> bool:
        own, other = self.match, below.match
        if own.kind is other.kind and own.path == other.path:
            return True
        if other.kind is PathMatch.EXACT:
            return self.fits_path(other.path)
        # Of all prefixes only / is about the asterisk-form, which an expression may be about.
        if own.kind is PathMatch.PREFIX:
            return own.path == "/" or below.start.startswith(own.path)
        is_root = other.kind is PathMatch.PREFIX and other.path == "/"
        return own.path == ".*" or (own.path == "/.*" and below.start.startswith("/") and not is_root)

    def fits_path(self, path: str) -> bool:
        """Whether a path that begins with a slash fits it."""
        match self.match.kind:
            case PathMatch.PREFIX:
                return path.startswith(self.match.path)
            case PathMatch.EXACT:
                return path == self.match.path
            case PathMatch.REGEX:
                return self.expression is not None and self.expression.fits(path.encode())


def _covers_methods(above: RouteMatch, below: RouteMatch) -> bool:
    if not above.methods:
        return True
    fitting = set(above.methods) | ({"HEAD"} if "GET" in above.methods else set())
    return bool(below.methods) and fitting >= set(below.methods)


def _leads_to_itself(sound: _Sound, redirect: Redirect, above: Sequence[_Sound], domains: set[str]) -> bool:
    """
    Whether the request that a redirect leads to is plainly one that takes its route again.

    Whether this listener is meant is known only if scheme and port stay, and the host stays or is one of *domains*;
    and of fields nobody knows whether they come again.
    """
    has_other_place = redirect.scheme or redirect.port is not None
    if has_other_place or sound.match.headers or (redirect.host and check_host(redirect.host) not in domains):
        return False
    if redirect.status in _TURN_INTO_GET and sound.match.methods and "GET" not in sound.match.methods:
        return False
    if not redirect.path and redirect.prefix_rewrite in (None, sound.match.path):
        return True  # the path stays
    target = redirect.path.partition("?")[0] or redirect.prefix_rewrite or ""
    return sound.fits_path(target) and not any(other.fits_path(target) for other in above)
