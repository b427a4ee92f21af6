"""
Every input through every proxy, and each verdict in one word or two.

The words measure a proxy by the strict reading of what the client sent (`strict.read_all`):

- ``forwards``: all its requests, each with its method, path, host and body; ``forwards 1 of 2`` and the like where the
  proxy closed before the rest, as «Connection: close» asks it to;
- ``refuses``: nothing reached the origin; the client got an error, or a closed connection;
- ``cuts``: refused as well, after a part of the request had gone on: the origin saw no whole request;
- ``waits``: what came is no whole request yet, for this proxy;
- ``answers``: itself, instead of the origin;
- ``mends``: forwards, as well-formed requests, what is none by the strict reading, or more of them than there are;
- ``passes on``: forwards what is malformed, and the origin refuses it;
- ``skips``: answers a request itself, with an error, and forwards those behind it;
- ``alters``: forwards a request as another one.

``with evil`` follows where a field that holds «evil» arrived, be it one that the client sent or one that was made of
what it sent, and ``harms the next`` where another client did not get its own answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.conformance.lab import Verdict, lab
from tests.conformance.strict import Message, read_all
from tests.support.certs import authority, rsa_key

MARK: Final = b"evil"

Matrix = Mapping[str, Mapping[str, Verdict]]
"""Verdicts by proxy and input."""


def run(programs: Mapping[str, str], inputs: Mapping[str, tuple[bytes, ...]], directory: Path) -> Matrix:
    """
    Run every input through every proxy.

    Args:
        programs: By name of a proxy; see `proxies.running`.
        inputs: By id, in the pieces that they are sent in.
        directory: For the files of the proxies.
    """

    def run_one(name: str) -> dict[str, Verdict]:
        with lab(name, programs[name], directory / name) as built:
            return {input_id: built.run(*pieces) for input_id, pieces in inputs.items()}

    authority(), rsa_key()  # made on first use, which must not be in several threads at once
    with ThreadPoolExecutor(len(programs)) as pool:
        return dict(zip(programs, pool.map(run_one, programs), strict=True))


def whole(data: bytes) -> tuple[bytes, ...]:
    """In one piece."""
    return (data,)


def behind_head(data: bytes) -> tuple[bytes, ...]:
    """In two pieces: the first head, and all that follows; without a whole head, two halves."""
    end = data.find(b"\r\n\r\n") + 4
    cut_at = end if 4 <= end < len(data) else len(data) // 2
    return data[:cut_at], data[cut_at:]


def word(verdict: Verdict, data: bytes) -> str:
    """Put a verdict on the input *data* in words; see the module."""
    expected, got = read_all(data), verdict.seen.requests
    words = _forwarded(expected, got, verdict) if got else _kept_back(verdict)
    if verdict.seen.malformed:
        words = "passes on"
    if any(MARK in value for request in got for _, value in request.fields + request.trailers):
        words += " with evil"
    return words if verdict.next_client_is_well else f"{words}, harms the next"


def _forwarded(expected: list[Message], got: tuple[Message, ...], verdict: Verdict) -> str:
    if not is_beginning(got, expected):
        return "mends" if is_beginning(expected, got) else "skips" if is_beginning(got, expected[1:]) else "alters"
    if len(got) == len(expected):
        return "cuts" if verdict.seen.unfinished and verdict.is_closed else "forwards"
    return f"forwards {len(got)} of {len(expected)}"


def _kept_back(verdict: Verdict) -> str:
    if verdict.statuses and verdict.statuses[0] < 400:
        return "answers"
    if verdict.is_closed or verdict.statuses:
        return "cuts" if verdict.seen.unfinished else "refuses"
    return "waits"


def is_beginning(some: Iterable[Message], of: Iterable[Message]) -> bool:
    """Whether *some* requests are the same as the first ones *of* others; a host that was not named may be any."""
    some, of = list(some), list(of)
    return len(some) <= len(of) and all(_is_same(one, other) for one, other in zip(some, of, strict=False))


def _is_same(one: Message, other: Message) -> bool:
    is_for_same_host = one.host == other.host or not (one.host and other.host)
    return is_for_same_host and (one.method, one.path, one.body) == (other.method, other.path, other.body)
