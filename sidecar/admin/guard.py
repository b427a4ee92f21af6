"""
Who may ask: no web page may, whatever name it gives to our address. Pure.

The endpoint has no password; what protects it is that only this machine reaches it. A browser on this machine runs
pages from anywhere, though. One can point a name of its own at 127.0.0.1 and read us as its own site (DNS rebinding):
so the Host field must hold no name but localhost. And one can send us a form without reading the answer (cross-site
request forgery): so what changes something is refused if it bears the marks of a browser.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from sidecar.wire.events import RequestHead

_AUTHORITY: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")

_OF_BROWSERS: Final = (b"origin", b"sec-fetch-site")
"""Fields that a page cannot leave out of a request that it makes: every browser sends at least one with a POST."""


def refusal(request: RequestHead) -> str | None:
    """Say in words why *request* is not answered; None: it is."""
    if not _is_local(request.host):
        return (
            f"The Host of this request is {_shown(request.host)}. Only an IP address or localhost is answered here, so "
            "that no web page can get in by a name of its own; write the address into the URL."
        )
    marks = [name.decode() for name in _OF_BROWSERS if name in request.fields.names]
    if request.method not in (b"GET", b"HEAD") and marks:
        return f"This comes from a web page (it has the field {marks[0]}), and pages may change nothing here; use curl."
    return None


def _is_local(host: bytes) -> bool:
    match = _AUTHORITY.fullmatch(host)
    if match is None:
        return False
    if match[2] is not None and match[2].lower() == b"localhost":
        return True
    try:
        address = ipaddress.ip_address((match[1] or match[2]).decode("ascii"))
    except ValueError:
        return False
    return (address.version == 6) == (match[1] is not None)


def _shown(host: bytes) -> str:
    return repr(host[:100].decode("ascii", "backslashreplace")) if host else "missing"
