"""Whether the app is there, speaks what we speak to it, and can be reached only through us."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence

import attrs

from sidecar.config import hosts
from sidecar.doctor.findings import Check, Finding, error, note, ok, warning
from sidecar.doctor.listening import Listening, takes
from sidecar.settings import HostPort, UnixPath

SHORT_KEEP_ALIVE = 2
"""Seconds. We let go of a connection one second before the app does."""


class Spoken(enum.Enum):
    """What is asked in, or what answered."""

    HTTP = "http"  # HTTP/1.1
    H2C = "h2c"  # HTTP/2 without TLS
    TLS = "tls"
    OTHER = "other"
    SILENCE = "silence"
    ANYTHING = "anything"  # nobody was asked: the connection was all there is to find out
    NOTHING = "nothing"  # no connection


@attrs.frozen
class Answer:
    """
    What came of a question to the app.

    Attributes:
        spoken: What it speaks.
        status: Of its HTTP answer, else 0.
        keep_alive: Seconds that it promises to keep an idle connection; None: it says nothing.
        why: With NOTHING, why.
    """

    spoken: Spoken
    status: int = 0
    keep_alive: int | None = None
    why: str = ""


def exposure(address: HostPort, table: Sequence[Listening]) -> Iterator[Finding]:
    """Say who else reaches the app at *address*, a loopback one, by what is listened on here."""
    if not takes(table, address.host, address.port):
        return
    open_ones = [each for each in table if each.port == address.port and not hosts.is_local(each.host)]
    if not open_ones:
        yield ok(Check.APP_EXPOSED, f"the app at {address} is for this machine, pod or task only")
        return
    fact = f"the app listens on {', '.join(map(str, open_ones))}: whoever reaches that goes round TLS and its rules"
    fix = "let it listen on 127.0.0.1, or close the port to others (security group, NetworkPolicy, no published port)"
    yield warning(Check.APP_EXPOSED, fact, fix)


def hop(address: HostPort) -> Finding:
    """Say that requests to *address*, which is not of this machine, go in the clear."""
    fact = f"the app at {address} may be on another machine, and what is sent there is not encrypted"
    return note(Check.APP_EXPOSED, fact, "put it beside the sidecar (127.0.0.1), or let it speak TLS (https://)")


def answer(address: HostPort | UnixPath, found: Answer, wanted: Spoken, *, is_running: bool) -> Finding:
    """
    Judge what the app answered.

    Args:
        address: Where it was asked.
        found: What came.
        wanted: What we would speak with it: HTTP, H2C or TLS; ANYTHING if that is not known here.
        is_running: Whether the sidecar serves already, so that clients notice.
    """
    what = f"the app at {address}"
    if found.spoken is Spoken.NOTHING:
        return _no_app(address, found.why, is_running)
    if found.spoken is Spoken.SILENCE:
        fact = f"{what} takes connections and did not answer in time"
        return warning(Check.APP, fact, "look whether it is overloaded, or still starting")
    if (mistake := _MISTAKES.get((wanted, found.spoken))) is not None:
        fact, fix = mistake
        return error(Check.APP, f"{what} {fact}", fix)
    if found.keep_alive is not None and found.keep_alive < SHORT_KEEP_ALIVE:
        fact = f"{what} keeps idle connections for {found.keep_alive} s, too short to use them again"
        return note(Check.APP, fact, "raise its keep-alive timeout to 5 s or more: it saves a connection per request")
    return ok(Check.APP, f"{what} {_IN_WORDS[found.spoken]}{f' {found.status}' if found.status else ''}")


_SAYS_HTTP = "and SIDECAR_UPSTREAM says http"
_SAYS_HTTPS = "and SIDECAR_UPSTREAM says https"
_SAYS_H2C = "and SIDECAR_UPSTREAM says h2c"
_WRITE_H2C = "write h2c:// there, or protocol: h2c for a cluster"

_MISTAKES: Mapping[tuple[Spoken, Spoken], tuple[str, str]] = {
    (Spoken.HTTP, Spoken.TLS): (f"speaks TLS, {_SAYS_HTTP}", "write https:// there"),
    (Spoken.HTTP, Spoken.H2C): (f"speaks HTTP/2 without TLS, {_SAYS_HTTP}", _WRITE_H2C),
    (Spoken.HTTP, Spoken.OTHER): (
        "answers with something that is not HTTP/1.1",
        "name the app's HTTP port in SIDECAR_UPSTREAM; for another protocol set SIDECAR_MODE=tcp",
    ),
    (Spoken.H2C, Spoken.TLS): (
        f"speaks TLS, {_SAYS_H2C}",
        "name a port without TLS; or write https:// there if it speaks HTTP/1.1",
    ),
    (Spoken.H2C, Spoken.HTTP): (
        f"does not speak HTTP/2 without TLS but HTTP/1.1, {_SAYS_H2C}",
        "write http:// there, or leave out protocol: h2c of a cluster",
    ),
    (Spoken.H2C, Spoken.OTHER): (
        "answers with something that is not HTTP/2",
        "name the app's port for HTTP/2 without TLS in SIDECAR_UPSTREAM",
    ),
    (Spoken.TLS, Spoken.HTTP): (f"speaks plain HTTP, {_SAYS_HTTPS}", "write http:// there"),
    (Spoken.TLS, Spoken.H2C): (f"speaks HTTP/2 without TLS, {_SAYS_HTTPS}", _WRITE_H2C),
    (Spoken.TLS, Spoken.OTHER): (f"does not speak TLS, {_SAYS_HTTPS}", "name its TLS port"),
}
"""What is wanted, and what is spoken in its stead -> the fact, and what to do."""

_IN_WORDS = {
    Spoken.HTTP: "answers",
    Spoken.H2C: "speaks HTTP/2",
    Spoken.TLS: "speaks TLS",
    Spoken.ANYTHING: "takes connections",
}


def _no_app(address: HostPort | UnixPath, why: str, is_running: bool) -> Finding:
    fact = f"no connection to the app at {address}: {why}; clients get 502 or 503"
    fix = "start it, or correct SIDECAR_UPSTREAM"
    if isinstance(address, HostPort) and hosts.is_local(address.host):
        fix += f"; in containers {address.host} is shared only within one pod, task or `network_mode: service:NAME`"
    return error(Check.APP, fact, fix) if is_running else warning(Check.APP, fact, fix)
