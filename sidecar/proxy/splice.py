"""
A two-way byte relay: what an upgraded connection becomes.

Each side is paused while the other does not take what it sent. When one side ends, the other gets what is still under
way and is then closed; silence of both, or a side that cannot be closed in time, ends at a deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ResponseError
from sidecar.proxy.upstream import Lessee, UpstreamConnection
from sidecar.settings import Timeouts
from sidecar.wire.events import Data, ResponseEvent

if TYPE_CHECKING:
    from sidecar.proxy.downstream import SecureTransport
    from sidecar.proxy.exchange import Downstream

LINGER_SECONDS = 2.0
"""How long the client may take to close after the app has ended."""


class Splice(Lessee):
    """The relay between one client and its leased connection to the app."""

    __slots__ = ("_downstream", "_is_client_stuck", "_timeouts", "_tls", "_upstream")

    def __init__(
        self,
        downstream: Downstream,
        tls: SecureTransport,
        upstream: UpstreamConnection,
        timeouts: Timeouts,
    ) -> None:
        self._downstream = downstream
        self._tls = tls
        self._upstream: UpstreamConnection | None = upstream
        self._timeouts = timeouts
        self._is_client_stuck = False

    def start(self, ahead: bytes) -> None:
        """
        Begin.

        Args:
            ahead: What the client sent before it saw the 101.
        """
        upstream = self._upstream
        assert upstream is not None
        upstream.lease(self)
        upstream.codec.upgrade()
        self._downstream.resume_reading()
        self._downstream.wait(self._timeouts.stream)
        if ahead:
            upstream.transport.write(ahead)

    # -- from the client --

    def from_downstream(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.transport.write(data)
            self._wait()

    def downstream_ended(self, clean: bool) -> None:
        """The client sends no more; if it said so, the app may still answer."""
        if self._upstream is None or not clean:
            self._tls.abort()
            return
        self._upstream.transport.shut_down_writing()

    def downstream_lost(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def downstream_full(self) -> None:
        self._is_client_stuck = True
        if self._upstream is not None:
            self._upstream.transport.pauseProducing()
        self._downstream.wait(self._timeouts.body)

    def downstream_drained(self) -> None:
        self._is_client_stuck = False
        if self._upstream is not None:
            self._upstream.transport.resumeProducing()
        self._wait()

    def deadline_passed(self) -> None:
        self._tls.abort()

    # -- from the app --

    def response_events(self, events: list[ResponseEvent]) -> None:
        for event in events:
            if isinstance(event, Data):
                self._tls.write(event.payload)
            else:
                self._upstream_ended()
                return
        self._wait()

    def response_failed(self, error: ResponseError) -> None:
        raise AssertionError("nothing is framed in a tunnel")

    def upstream_lost(self) -> None:
        """The connection broke: what the client has may not be all there was."""
        self._upstream = None
        self._tls.abort()

    def _upstream_ended(self) -> None:
        self.downstream_lost()
        self._tls.linger()
        self._downstream.wait(LINGER_SECONDS if self._tls.is_flushed else self._timeouts.body)

    def _wait(self) -> None:
        """Bytes have moved: wait for the next, unless the client still has to take some."""
        if not self._is_client_stuck:
            self._downstream.wait(self._timeouts.stream)

    def upstream_full(self) -> None:
        self._downstream.pause_reading()

    def upstream_drained(self) -> None:
        self._downstream.resume_reading()
