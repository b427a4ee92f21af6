"""
One proxy before one origin: send it the bytes of a case, and see what it makes of them.

Whether it has done all it is going to do is found out without a clock: while its work goes on, further requests on
another connection, the probes, are answered; proxy and origin serve their connections in turn, so what a few probes in
a row leave unchanged stays so. A probe is also the next client: it must get its own answer, whatever the case was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.conformance import proxies
from tests.conformance.loop import Loop, Stream
from tests.conformance.origin import BODY, PROBE_PREFIX, Origin, Seen

QUIET_PROBES: Final = 4
"""So many answered probes in a row without any progress of the case end it."""

_PROBE_ATTEMPTS: Final = 3

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])")


@attrs.frozen(kw_only=True)
class Verdict:
    """
    What one proxy did with one case.

    Attributes:
        seen: What reached the origin.
        statuses: Of its final answers to the client, in order. Those of a proxy that resets may be lost.
        is_closed: Whether it closed the client's connection.
        next_client_is_well: Whether the clients after this one got the answers to their own requests.
        has_let_go: Whether it gave up, at the origin, the requests that its client had left unfinished.
    """

    seen: Seen
    statuses: tuple[int, ...]
    is_closed: bool
    next_client_is_well: bool
    has_let_go: bool


class Lab:
    """A running proxy, its origin, and the loop that serves the latter and our clients."""

    def __init__(self, loop: Loop, origin: Origin, connect: proxies.Connect) -> None:
        self._loop = loop
        self._origin = origin
        self._connect = connect
        self._probes: Stream | None = None
        self._probe_count = 0

    def close(self) -> None:
        """Close the connection of the probes."""
        if self._probes is not None:
            self._probes.close()
            self._probes = None

    def run(self, *pieces: bytes) -> Verdict:
        """Send *pieces* on one connection, each when the proxy is done with the last, then close it."""
        client = Stream(self._loop, self._connect())
        try:
            is_well = True
            for piece in pieces:
                client.send(piece)
                is_well = self._settle(client) and is_well
        finally:
            client.close()
        # What the end of the client brings about still belongs to this case; nothing of it may reach into the next.
        is_well = self._probe() and is_well
        has_let_go = self._loop.run_until(lambda: self._origin.is_between_requests)
        seen = self._origin.seen()
        self._origin.forget()
        return Verdict(
            seen=seen,
            statuses=tuple(int(status) for status in _STATUS.findall(client.received)),
            is_closed=client.is_closed,
            next_client_is_well=is_well,
            has_let_go=has_let_go,
        )

    def _settle(self, client: Stream) -> bool:
        """Wait until nothing changes any more; return whether every probe meanwhile got its own answer."""
        quiet = 0
        progress: tuple[int, int, bool] | None = None
        while quiet < QUIET_PROBES:
            if not self._probe():
                return False
            before, progress = progress, (len(client.received), self._origin.kept_bytes, client.is_closed)
            quiet = quiet + 1 if progress == before else 0
        return True

    def _probe(self) -> bool:
        """Be the next client; return whether the answer is the one to its request."""
        for _ in range(_PROBE_ATTEMPTS):
            self._probe_count += 1
            target = b"%b%d" % (PROBE_PREFIX, self._probe_count)
            answer = self._ask(b"GET %b HTTP/1.1\r\nHost: probe\r\n\r\n" % target)
            if answer.startswith(b"HTTP/1.1 200"):
                return re.search(rb"(?i)\r\nx-probe: *" + target + rb"\r\n", answer) is not None
            # The proxy closed, or met an origin that did: both may happen to anybody after a broken request.
            self.close()
        return False

    def _ask(self, request: bytes) -> bytes:
        """Send a request on the connection of the probes; return what came, nothing if it is closed instead."""
        if self._probes is None or self._probes.is_closed:
            self.close()
            self._probes = Stream(self._loop, self._connect())
        stream = self._probes
        stream.received = b""
        stream.send(request)
        self._loop.run_until(lambda: stream.is_closed or _has_body(stream.received))
        return stream.received


def _has_body(answer: bytes) -> bool:
    """Whether an answer of the origin's, or the beginning of another one, has arrived."""
    return len(answer.partition(b"\r\n\r\n")[2]) >= len(BODY)


@contextmanager
def lab(name: str, program: str, directory: Path) -> Iterator[Lab]:
    """Start a proxy (see `proxies.running`) and its origin for the block."""
    with Loop() as loop, Origin(loop) as origin, proxies.running(name, program, origin.port, directory) as connect:
        built = Lab(loop, origin, connect)
        try:
            yield built
        finally:
            built.close()
