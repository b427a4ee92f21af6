"""
One line per exchange. Never logged: query strings, cookies, authorization values, or, unless the operator's own format
asks for it, any other field's value but Host and User-Agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import attrs

from sidecar.errors import RequestError
from sidecar.observe.jsonline import JsonFormat
from sidecar.observe.logformat import DEFAULT_TEXT, Format, compile_format
from sidecar.settings import AccessLogFormat

if TYPE_CHECKING:
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.exchange import Exchange

Line = Callable[[str], None]


@attrs.define
class Entry:
    """
    What is known of a request whose head was refused: nothing of it can be trusted, so there is nothing of it.

    Attributes:
        status: What the client was answered with; 0: nothing.
        reason: Why we answered ourselves or cut the answer; "" if the app's response went through.
        detail: More about the reason, for operators.
        moment: When it was over, in seconds since the epoch.
        flag: Envoy's response flag where the reason has none of its own.
    """

    flag: ClassVar[str] = "DPE"

    downstream: DownstreamConnection
    status: int
    reason: str
    detail: str
    moment: float

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch."""
        return self.moment


@attrs.define
class ExchangeEntry(Entry):
    """
    What is known of an exchange that is over.

    Attributes:
        duration: In seconds.
        upstream: Where the request went; "" if nowhere.
        trace_id: Of the trace it belongs to; "" if none is known.
    """

    flag: ClassVar[str] = "-"

    exchange: Exchange
    duration: float
    upstream: str
    trace_id: str

    @property
    def began(self) -> float:
        return self.moment - self.duration


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
                    exchange.downstream,
                    status,
                    reason,
                    detail,
                    self._wall_clock(),
                    exchange,
                    now - exchange.started_at,
                    upstream,
                    trace_id,
                )
            )
        )

    def refused(self, downstream: DownstreamConnection, error: RequestError) -> None:
        """Log a request whose head was refused; nothing of it can be trusted, so nothing of it is shown."""
        entry = Entry(downstream, error.status, error.reason, str(error), self._wall_clock())
        self._write(self._format.refused(entry))
