"""
One line per exchange. Never logged: query strings, cookies, authorization values, or, unless the operator's own format
asks for it, any other field's value but Host and User-Agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.errors import RequestError
from sidecar.observe.jsonline import JsonFormat
from sidecar.settings import AccessLogFormat

if TYPE_CHECKING:
    from sidecar.observe.logformat import Format
    from sidecar.proxy.exchange import Client, Exchange
    from sidecar.proxy.tunnel import Tunnel

Line = Callable[[str], None]


# Plain classes with slots: one is made for each request, and mypyc compiles no decorated ones (bench row
# `requests-logged`).


class Entry:
    """
    What is known of a request whose head was refused: nothing of it can be trusted, so there is nothing of it.

    Attributes:
        status: What the client was answered with; 0: nothing.
        reason: Why we answered ourselves or cut the answer; "" if the app's response went through.
        detail: More about the reason, for operators.
        moment: When it was over, in seconds since the epoch.
    """

    __slots__ = ("detail", "downstream", "moment", "reason", "status")

    def __init__(self, downstream: Client | Tunnel, status: int, reason: str, detail: str, moment: float) -> None:
        self.downstream: Client | Tunnel = downstream
        self.status: int = status
        self.reason: str = reason
        self.detail: str = detail
        self.moment: float = moment

    @property
    def flag(self) -> str:
        """Envoy's response flag where the reason has none of its own."""
        return "DPE"

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch."""
        return self.moment

    @property
    def client(self) -> str:
        """Address of the client."""
        return self.downstream.peer.host

    @property
    def via(self) -> str:
        """Address of the proxy that connected on behalf of the client; "" if it connected itself."""
        via = self.downstream.peer.via
        return "" if via is None else via.host


class ExchangeEntry(Entry):
    """
    What is known of an exchange that is over.

    Attributes:
        exchange: The exchange itself.
        duration: In seconds.
        upstream: Where the request went; "" if nowhere.
        trace_id: Of the trace it belongs to; "" if none is known.
    """

    __slots__ = ("duration", "exchange", "trace_id", "upstream")

    def __init__(
        self,
        exchange: Exchange,
        status: int,
        reason: str,
        detail: str,
        moment: float,
        duration: float,
        upstream: str,
        trace_id: str,
    ) -> None:
        super().__init__(exchange.downstream, status, reason, detail, moment)
        self.exchange: Exchange = exchange
        self.duration: float = duration
        self.upstream: str = upstream
        self.trace_id: str = trace_id

    @property
    def flag(self) -> str:
        return "-"

    @property
    def began(self) -> float:
        return self.moment - self.duration

    @property
    def client(self) -> str:
        return self.exchange.client or self.downstream.peer.host

    @property
    def via(self) -> str:
        peer = self.downstream.peer
        return peer.via.host if peer.via is not None else peer.host if self.exchange.client else ""

    @property
    def bytes_received(self) -> int:
        """Of the body, from the client."""
        return self.exchange.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Of the body, to the client."""
        return self.exchange.bytes_sent

    @property
    def cluster(self) -> str:
        """Name of the cluster that it went to; "" if nowhere."""
        destination = self.exchange.destination
        return "" if destination is None else destination.cluster.name

    @property
    def route(self) -> str:
        """Name of its route; "" if there is only one."""
        destination = self.exchange.destination
        return "" if destination is None else destination.name


class TunnelEntry(Entry):
    """
    What is known of a connection in raw TCP mode that is over.

    Attributes:
        tunnel: The connection itself.
        duration: In seconds.
    """

    __slots__ = ("duration", "tunnel")

    def __init__(self, tunnel: Tunnel, reason: str, detail: str, moment: float, duration: float) -> None:
        super().__init__(tunnel, 0, reason, detail, moment)
        self.tunnel: Tunnel = tunnel
        self.duration: float = duration

    @property
    def flag(self) -> str:
        return "-"

    @property
    def began(self) -> float:
        return self.moment - self.duration

    @property
    def bytes_received(self) -> int:
        """From the client, inside TLS."""
        return self.tunnel.bytes_received

    @property
    def bytes_sent(self) -> int:
        """To the client, inside TLS."""
        return self.tunnel.bytes_sent

    @property
    def upstream(self) -> str:
        """Where it was connected to; "" if nowhere."""
        return self.tunnel.upstream

    @property
    def cluster(self) -> str:
        """Name of the cluster that it was meant for."""
        return self.tunnel.cluster


class AccessLog:
    """Formats lines and hands them to a writer."""

    def __init__(
        self,
        write: Line,
        style: AccessLogFormat,
        text: Format | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            write: Takes a line with its newline.
            style: JSON or TEXT.
            text: Of TEXT lines; None: `logformat.DEFAULT_TEXT`.
            wall_clock: Seconds since the epoch.
        """
        self._write = write
        self._wall_clock = wall_clock
        self._format: Format | JsonFormat
        if style is AccessLogFormat.JSON:
            self._format = JsonFormat()
        else:
            from sidecar.observe.logformat import DEFAULT_TEXT, compile_format  # JSON, the default, does without

            self._format = text or compile_format(DEFAULT_TEXT, lambda name: False)

    def exchange(
        self,
        exchange: Exchange,
        status: int,
        reason: str,
        detail: str,
        now: float,
        *,
        upstream: str = "",
        trace_id: str = "",
    ) -> None:
        """
        Log an exchange that is over.

        Args:
            exchange, status, reason, detail: As in `Service.record`.
            now: On the clock of *exchange*.
            upstream: Address that it was sent to; "" if it was not.
            trace_id: Of the trace it belongs to; "" if none is known.
        """
        self._write(
            self._format.exchange(
                ExchangeEntry(
                    exchange,
                    status,
                    reason,
                    detail,
                    self._wall_clock(),
                    now - exchange.started_at,
                    upstream,
                    trace_id,
                )
            )
        )

    def tunnel(self, tunnel: Tunnel, reason: str, detail: str, duration: float) -> None:
        """
        Log a connection in raw TCP mode that is over.

        Args:
            reason, detail: As in `Service.record_tunnel`.
            duration: In seconds.
        """
        self._write(self._format.tunnel(TunnelEntry(tunnel, reason, detail, self._wall_clock(), duration)))

    def refused(self, downstream: Client, error: RequestError) -> None:
        """Log a request whose head was refused; nothing of it can be trusted, so nothing of it is shown."""
        entry = Entry(downstream, error.status, error.reason, str(error), self._wall_clock())
        self._write(self._format.refused(entry))
