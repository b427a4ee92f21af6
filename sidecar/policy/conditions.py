"""
Which requests a rule is about: patterns for path, method and host, and the two ways in which a request is read.

A request is read strictly, as it stands, and carelessly, as apps do that ignore case, cut off path parameters
(``/admin;x``) or see no difference between ``/admin`` and ``/admin/``. Nobody knows which of them the app does, so a
request is allowed only if the rules allow both readings: a careless app cannot be talked past a rule, and a strict one
cannot be talked into an exemption.

Paths come normalised and decoded (`wire.target`): dot segments and ambiguous encodings never get here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import attrs

from sidecar.errors import SidecarError
from sidecar.policy.patterns import WILD, PatternError, Test, compile_dns
from sidecar.values import Value

MOST_PATTERNS: Final = 1000
"""Patterns of one kind in one rule."""

METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),  # WebDAV
)
"""The methods that rules can be about."""


class ConditionError(SidecarError):
    """
    A pattern for requests is none.

    Attributes:
        fact: What is wrong, with the pattern.
        fix: What to write instead.
    """

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix


@attrs.frozen(eq=False, repr=False)
class Request(Value):
    """
    What rules look at.

    Attributes:
        method: As the client sent it.
        host: Authority, as the client sent it; empty if it named none.
        path: Normalised and decoded, without query; ``*`` for the asterisk-form.
    """

    method: bytes
    host: bytes
    path: bytes


@attrs.frozen(eq=False, repr=False)
class Reading(Value):
    """One way to read a request: what is compared with the patterns of rules."""

    method: bytes
    host: str
    path: bytes


def read_strictly(request: Request) -> Reading:
    """The request as it stands; only the host loses its case, port and trailing dot, which never make a difference."""
    return Reading(request.method, plain_host(request.host), request.path)


def read_carelessly(strict: Reading) -> Reading:
    """The same request as the most careless app may see it."""
    path = strict.path
    if b";" in path:
        path = _PARAMETERS.sub(b"", path)
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return Reading(strict.method.upper(), strict.host, _without_case(path).rstrip(b"/") or b"/")


# RFC 3986 section 3.3: what follows a semicolon in a segment. Servlet containers cut it off before they compare.
_PARAMETERS: Final = re.compile(rb";[^/]*+")
_SLASHES: Final = re.compile(rb"//++")


def _without_case(path: bytes) -> bytes:
    if path.isascii():
        return path.lower()
    # Both ways round, since either may be what an app does: a dotless i has a case in one only, a Kelvin sign in the
    # other. Bytes that are no UTF-8 stay as they are.
    text = path.decode("utf-8", "surrogateescape")
    return text.upper().casefold().encode("utf-8", "surrogateescape")


_PORT: Final = re.compile(r":[0-9]*\Z")


def plain_host(host: bytes) -> str:
    """The host that an authority names, as it is compared: lower case, without port, brackets and trailing dot."""
    text = _PORT.sub("", host.decode("ascii", "backslashreplace"))
    if text.startswith("["):
        return _plain_address(text.strip("[]"))
    return text.lower().rstrip(".")


def _plain_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""  # a host that no rule is about


@attrs.frozen(eq=False, repr=False)
class Condition(Value):
    """
    Which requests one rule is about: those that fit one pattern of each kind. A kind without patterns fits all.

    Attributes:
        paths: ``/x`` is that path alone. ``/x/*`` or ``/x/`` is everything below it, though not ``/x``: list both to
            mean both. ``/`` is the root alone, ``/*`` is everything.
        methods: In upper case; GET includes HEAD, which is a GET without content (RFC 9110 section 9.3.2).
        hosts: Names, with wildcards as in ``dns=…``, or addresses. Clients choose what stands in Host: a rule that
            is about a host protects only an app that goes by Host too.

    Raises:
        ConditionError: A pattern is none; from the constructor.
    """

    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    _strict: Callable[[bytes], bool] = attrs.field(init=False, eq=False, repr=False)
    _careless: Callable[[bytes], bool] = attrs.field(init=False, eq=False, repr=False)
    _methods: frozenset[bytes] = attrs.field(init=False, eq=False, repr=False)
    _hosts: tuple[Test, ...] = attrs.field(init=False, eq=False, repr=False)

    @_strict.default
    def _compile_strict(self) -> Callable[[bytes], bool]:
        return _strict_paths([check_path(path) for path in self.paths])

    @_careless.default
    def _compile_careless(self) -> Callable[[bytes], bool]:
        return _careless_paths([check_path(path) for path in self.paths])

    @_methods.default
    def _compile_methods(self) -> frozenset[bytes]:
        methods = {check_method(method) for method in self.methods}
        return frozenset(methods | {b"HEAD"} if b"GET" in methods else methods)

    @_hosts.default
    def _compile_hosts(self) -> tuple[Test, ...]:
        return tuple(map(compile_host, self.hosts))

    def __attrs_post_init__(self) -> None:
        for patterns in (self.paths, self.methods, self.hosts):
            if len(patterns) > MOST_PATTERNS:
                fact = f"there are {len(patterns):,} patterns, limit {MOST_PATTERNS:,}"
                raise ConditionError(fact, "use wildcards, or several rules")

    @property
    def is_always_true(self) -> bool:
        """Whether it is about every request."""
        return (not self.paths or _EVERYTHING in self.paths) and not self.methods and not self.hosts

    def fits_strictly(self, reading: Reading) -> bool:
        """Whether it is about a request in its strict reading."""
        return self._fits_but_for_path(reading) and (not self.paths or self._strict(reading.path))

    def fits_carelessly(self, reading: Reading) -> bool:
        """Whether it is about a request in its careless reading."""
        return self._fits_but_for_path(reading) and (not self.paths or self._careless(reading.path))

    def fits_host(self, host: str) -> bool:
        """Whether it is about requests for *host*, as `plain_host` makes it, as far as that goes."""
        return not self._hosts or any(fits(host) for fits in self._hosts)

    def _fits_but_for_path(self, reading: Reading) -> bool:
        if self._methods and reading.method not in self._methods:
            return False
        return self.fits_host(reading.host)


# -- paths -------------------------------------------------------------------------------------------------------

_EVERYTHING: Final = "/*"

# What a pattern cannot have, because no normalised path has it, or because it would be read as something else.
_ODD_IN_PATH: Final = re.compile(r"[%?#;\\*\x00-\x1f\x7f]|//|/\.\.?(?:/|\Z)")


def check_path(pattern: str) -> bytes:
    """
    Return a path pattern as bytes, with what ends in ``/*`` ending in ``/``; ``/*`` itself stays as it is.

    Raises:
        ConditionError: It is none.
    """
    if pattern == _EVERYTHING:
        return b"/*"
    shown = _quoted(pattern)
    if not pattern.startswith("/"):
        raise ConditionError(f"{shown} is no path", "begin it with /")
    plain = pattern.removesuffix("*") if pattern.endswith("/*") else pattern
    odd = _ODD_IN_PATH.search(plain)
    if odd is None:
        try:
            return plain.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ConditionError(f"{shown} has characters that no path has", "write it as UTF-8") from None
    if odd[0] == "*":
        raise ConditionError(f"{shown} has a * that is not the end of /*", "write PATH/* for all that is below PATH")
    if odd[0] == "%":
        raise ConditionError(f"{shown} is percent-encoded", "write the character itself: paths are compared decoded")
    fix = "write the path as it is after normalisation, without dot segments, //, parameters, query and fragment"
    raise ConditionError(f"{shown} has {_quoted(odd[0])}, which is never compared", fix)


def _strict_paths(patterns: list[bytes]) -> Callable[[bytes], bool]:
    if b"/*" in patterns:
        return _always
    exact = frozenset(p for p in patterns if p == b"/" or not p.endswith(b"/"))
    below = tuple(set(patterns) - exact)
    return lambda path: path in exact or path.startswith(below)


def _careless_paths(patterns: list[bytes]) -> Callable[[bytes], bool]:
    if b"/*" in patterns:
        return _always
    plain = [_without_case(p) for p in patterns]
    exact = frozenset(p.rstrip(b"/") or b"/" for p in plain)
    below = tuple(p for p in plain if p.endswith(b"/") and p != b"/")
    return lambda path: path in exact or path.startswith(below)


def _always(path: bytes) -> bool:
    """Also the ``*`` of the asterisk-form: what is about everything is about that too."""
    return True


# -- methods and hosts -------------------------------------------------------------------------------------------


def check_method(pattern: str) -> bytes:
    """
    Return a method as bytes.

    Raises:
        ConditionError: There is no such method.
    """
    if pattern not in METHODS:
        meant = pattern.upper() if pattern.upper() in METHODS else None
        fix = f"did you mean {meant}?" if meant else f"write one of {', '.join(METHODS)}"
        raise ConditionError(f"there is no method {_quoted(pattern)}", fix)
    return pattern.encode("ascii")


def compile_host(pattern: str) -> Test:
    """
    Compile a host pattern: a test for what `plain_host` returns.

    Raises:
        ConditionError: It is none.
    """
    address = _plain_address(pattern.strip("[]"))
    if address:
        return lambda host: host == address
    try:
        _, test = compile_dns(pattern.replace(WILD, " ").replace("*", WILD))
    except PatternError as error:
        fix = "write a name without port, as api.example.org or *.example.org, or an address"
        raise ConditionError(f"{_quoted(pattern)} is no host: {error.fact}", fix) from None
    return test


def _quoted(text: str) -> str:
    """Show an operator's text on one line."""
    shown = text if len(text) <= 60 else text[:60] + "…"
    return f"'{shown}'" if shown.isprintable() else ascii(shown)


ALWAYS: Final = Condition()
"""Fits every request."""
