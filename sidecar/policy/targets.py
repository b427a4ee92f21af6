"""
What a route makes of a request target: what the app is asked for, and where a redirect leads.

Both go by the canonical form of the target (`wire.target.canonical`), since it is what routes were compared with;
paths that stand in place of another are put in as the operator wrote them, percent-encoded where they have to be.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import RequestError
from sidecar.topology import PathMatch, Redirect, Route, RouteMatch, ToCluster

_ASTERISK: Final = b"*"

_PORT: Final = re.compile(rb":[0-9]*\Z")
_PORTS: Final = {b"http": 80, b"https": 443}

# What `wire.target.canonical` has resolved or refused, and which may come back where two paths are put together.
_DOTS: Final = re.compile(rb"/\.\.?(?:[/;]|%3B|\Z)")


def rewritten_target(route: Route, target: bytes, canonical: bytes) -> bytes:
    """
    The target that the app is sent.

    The prefix that matched is replaced literally, as Envoy does it, wherever in a segment it ends: with /api for
    /v1, /api/x becomes /v1/x, and /apix becomes /v1x. A slash at the end of the new prefix and one behind the old are
    one, where Envoy would leave both: with /api for /, /api/x becomes /x.

    Args:
        route: Of the request, in its strict reading.
        target: As it would be sent otherwise.
        canonical: The same in its canonical form.

    Returns:
        *target* itself if the route rewrites nothing, or if it is ``*``. Else a path and the query, in canonical form.

    Raises:
        RequestError: ``ambiguous_path``: the path does not begin with the prefix, or has dot segments without it, so
            that it would lead out of where the operator put it: with /files for /srv/, /files../x would be /srv/../x.
    """
    rewrite = route.action.prefix_rewrite if isinstance(route.action, ToCluster) else None
    if rewrite is None or canonical == _ASTERISK:
        return target
    path, mark, query = canonical.partition(b"?")
    return _swapped(route.match, rewrite, path) + mark + query


def location(redirect: Redirect, match: RouteMatch, scheme: bytes, host: bytes, canonical: bytes) -> bytes:
    """
    The URL that a redirect leads to: always an absolute one, so that no path can be taken for a host.

    Args:
        match: Of the route of the request, in its strict reading.
        scheme: Of the request, ``http`` or ``https``.
        host: Authority of the request, which `wire.grammar.HOST` matches, or empty.
        canonical: Its target in canonical form.

    Returns:
        Visible ASCII. A port that is the scheme's own is left out if the redirect names it. A query of the redirect's
        own path stands in place of that of the request.

    Raises:
        RequestError: ``bad_host``: the URL would need the host of a request that has none. ``ambiguous_path``: as for
            `rewritten_target`.
    """
    new_scheme = redirect.scheme.encode("ascii") or scheme
    authority = _authority(redirect, host, has_other_scheme=new_scheme != scheme)
    if redirect.port is not None and redirect.port != _PORTS[new_scheme]:
        authority += b":%d" % redirect.port
    return new_scheme + b"://" + authority + _path_and_query(redirect, match, canonical)


def _authority(redirect: Redirect, host: bytes, *, has_other_scheme: bool) -> bytes:
    if redirect.host:
        name = redirect.host.encode("ascii")
        return b"[%b]" % name if b":" in name and not name.startswith(b"[") else name
    if has_other_scheme or redirect.port is not None:
        host = _PORT.sub(b"", host)
    if not host:
        raise RequestError("bad_host", "the request names no host, which its redirect would lead to")
    return host


def _path_and_query(redirect: Redirect, match: RouteMatch, canonical: bytes) -> bytes:
    path, mark, query = canonical.partition(b"?")
    if redirect.strip_query:
        mark = query = b""
    if path == _ASTERISK:
        path = b"/"
    if redirect.path:
        path, own_mark, own_query = redirect.path.encode("ascii").partition(b"?")
        if own_mark:
            mark, query = own_mark, own_query
    elif redirect.prefix_rewrite is not None:
        path = _swapped(match, redirect.prefix_rewrite, path)
    return path + mark + query


def _swapped(match: RouteMatch, rewrite: str, path: bytes) -> bytes:
    new = rewrite.encode("ascii")
    rest = path[_length(match.path.encode(), path) :] if match.kind is PathMatch.PREFIX else b""
    if new.endswith(b"/") and rest.startswith(b"/"):
        rest = rest[1:]
    result = new + rest
    if _DOTS.search(result):
        raise RequestError("ambiguous_path", "the path has dots where its prefix ends, which programs would resolve")
    return result


def _length(prefix: bytes, path: bytes) -> int:
    """How much of a canonical *path* is *prefix*, which is decoded: of some characters there are two spellings."""
    if path.startswith(prefix):
        return len(prefix)
    at = 0
    for octet in prefix:
        encoded = b"%%%02X" % octet
        if path.startswith(encoded, at):
            at += len(encoded)
        elif path[at : at + 1] == bytes((octet,)):
            at += 1
        else:
            raise RequestError("ambiguous_path", "the path does not begin with the prefix of its route")
    return at
