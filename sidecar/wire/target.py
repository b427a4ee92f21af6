"""
The four forms of a request target (RFC 9112 section 3.2), and the one normalisation of paths.

What is forwarded stays as it came unless the operator asks for `canonical`. Whoever decides by path looks at
`readings`: every way in which an app may understand the target.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from sidecar.errors import RequestError
from sidecar.wire import grammar

MAX_TARGET_BYTES: Final = 16 * 1024
"""RFC 9112 section 3 asks for at least 8,000; Apache and nginx stop at 8 KiB."""

# absolute-form: scheme "://" authority path-abempty [ "?" query ]. Groups: authority.
_ABSOLUTE: Final = re.compile(rb"https?://([^/?@\\]*+)(?:[/?].*)?", re.IGNORECASE | re.DOTALL)

_TRIPLET: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_ENCODED_TWICE: Final = re.compile(rb"%25[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# In a path as it came: whatever makes it other than its own normal form.
_SUSPECT: Final = re.compile(rb"[%\\]|//|/\.")


def check(method: bytes, target: bytes) -> bytes | None:
    """
    Check the form of a request target.

    Args:
        method: Request method; asterisk-form is for OPTIONS only.
        target: Visible ASCII, as `grammar.REQUEST_LINE` accepts it.

    Returns:
        The authority of an absolute-form target; None for origin-form and asterisk-form.

    Raises:
        RequestError: The target is too long (414) or has no form that a server may be sent (400).
    """
    if len(target) > MAX_TARGET_BYTES:
        raise RequestError("uri_too_long", f"target is {len(target):,} bytes, limit {MAX_TARGET_BYTES:,}", 414)
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not grammar.HOST.fullmatch(match[1]):
        raise RequestError("bad_target", "the request target is neither a path nor an http(s) URL")
    return match[1]


def origin_form(method: bytes, target: bytes) -> bytes:
    """
    Return what an origin server is sent for *target*, which `check` accepted with *method*.

    An absolute-form target loses its scheme and authority (RFC 9112 sections 3.2.1 and 3.2.4); the others stay as
    they are.
    """
    match = None if target.startswith(b"/") else _ABSOLUTE.fullmatch(target)
    if match is None:
        return target
    path = target[match.end(1) :]
    if not path and method == b"OPTIONS":
        return b"*"
    return path if path.startswith(b"/") else b"/" + path


def normalise(target: bytes) -> bytes:
    """
    Return the path of *target*, which `check` accepted, as rules match it: decoded, collapsed, resolved.

    Without the query, scheme and authority; percent-encodings decoded once; slashes in a row made one; dot segments
    resolved (RFC 3986 section 5.2.4). ``*`` stays as it is.

    Raises:
        RequestError: ``ambiguous_path``, 400: as for `canonical`.
    """
    return unquote_to_bytes(canonical(target).partition(b"?")[0])


def readings(target: bytes) -> tuple[bytes, ...]:
    """
    Return every path that an app may understand by *target*, decoded; usually one.

    Some apps resolve dot segments and merge slashes, others take them as they are: what is to be allowed must be
    allowed under each reading.

    Raises:
        RequestError: ``ambiguous_path``, 400: as for `canonical`.
    """
    path = origin_form(b"", target).partition(b"?")[0]
    if not _SUSPECT.search(path):
        return (path,)
    normal, plain = normalise(target), unquote_to_bytes(path)
    return (normal,) if normal == plain else (normal, plain)


def canonical(target: bytes) -> bytes:
    """
    Return the origin-form of *target*, which `check` accepted, in its normal form (RFC 3986 section 6.2.2).

    Unreserved characters are decoded, other encodings written in upper case, slashes in a row made one, dot segments
    resolved. The query stays as it is.

    Raises:
        RequestError: ``ambiguous_path``, 400: programs are known to read the path in different ways: it has an encoded
            slash, backslash or control character, a bare backslash, an encoding of an encoding or a broken one, dots
            before a path parameter, dots behind an empty segment, octets that are no UTF-8 (old decoders take some of
            them for dots and slashes), or leaves the root.
    """
    path, mark, query = origin_form(b"", target).partition(b"?")
    if _SUSPECT.search(path):
        if b"\\" in path:
            raise _ambiguous("a backslash")
        path = _TRIPLET.sub(_decode, path)
        if _ENCODED_TWICE.search(path):
            raise _ambiguous("an encoding of an encoding")
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            raise _ambiguous("octets that are not UTF-8") from None
        path = _resolve(path)
    return path + mark + query


def _decode(triplet: re.Match[bytes]) -> bytes:
    if triplet[1] is None:
        raise _ambiguous("a percent sign without two hexadecimal digits")
    octet = int(triplet[1], 16)
    if octet in _UNRESERVED:
        return bytes((octet,))
    if octet in b"/\\":
        raise _ambiguous("an encoded slash or backslash")
    if octet < 0x20 or octet == 0x7F:
        raise _ambiguous("an encoded control character")
    return triplet[0].upper()


def _resolve(path: bytes) -> bytes:
    """Merge slashes and remove dot segments; *path* has its unreserved characters decoded."""
    kept: list[bytes] = []
    first, *segments = path.split(b"/")
    has_empty = False
    for segment in segments:
        name, parameter = _cut_parameter(segment)
        if name not in (b".", b".."):
            has_empty = has_empty or not name  # ";x" too, of which servlet containers leave an empty segment
            if segment:
                kept.append(segment)
            continue
        if parameter:
            raise _ambiguous("dots before a path parameter")  # servlet containers resolve them, others do not
        if name == b"..":
            if has_empty:
                raise _ambiguous("dots behind an empty segment")  # which of the two is taken back?
            if not kept:
                raise _ambiguous("more dots than it has segments")
            kept.pop()
    if segments and kept and segments[-1] in (b"", b".", b".."):
        kept.append(b"")
    return b"/".join((first, *kept)) if kept or not segments else first + b"/"


def _cut_parameter(segment: bytes) -> tuple[bytes, bytes]:
    name, mark, _ = segment.replace(b"%3B", b";").partition(b";")
    return name, mark


def _ambiguous(what: str) -> RequestError:
    return RequestError("ambiguous_path", f"the path has {what}, which programs read in different ways")
