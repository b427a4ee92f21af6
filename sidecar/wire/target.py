"""The four forms of a request target (RFC 9112 section 3.2); no normalisation."""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import RequestError
from sidecar.wire import grammar

MAX_TARGET_BYTES: Final = 16 * 1024
"""RFC 9112 section 3 asks for at least 8,000; Apache and nginx stop at 8 KiB."""

# absolute-form: scheme "://" authority path-abempty [ "?" query ]. Groups: authority.
_ABSOLUTE: Final = re.compile(rb"https?://([^/?@\\]*+)(?:[/?].*)?", re.IGNORECASE | re.DOTALL)


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
