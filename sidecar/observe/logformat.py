"""
Access log lines by a format of the operator's, compiled once.

Values that others chose are escaped (`observe.escaping`), so that none can end the line, the quotes or the column that
it stands in; a format like ``{"path":"%REQ(:PATH)%"}`` makes JSON. A missing value is ``-``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.observe.escaping import escape
from sidecar.observe.logsyntax import Command, parse
from sidecar.observe.operators import OPERATORS, IsOurs, OfRequest, OfTraffic, Value

if TYPE_CHECKING:
    from sidecar.observe.accesslog import Entry, ExchangeEntry, TunnelEntry

DEFAULT_TEXT: Final = (
    '[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    'reason=%REASON% detail="%DETAIL%" bytes_received=%BYTES_RECEIVED% bytes_sent=%BYTES_SENT% '
    "duration_ms=%DURATION(3)% upstream_ms=%RESPONSE_DURATION(3)% upstream=%UPSTREAM_HOST% "
    "request_id=%STREAM_ID% trace_id=%TRACE_ID% host=%REQ(:AUTHORITY)% "
    "tls_version=%DOWNSTREAM_TLS_VERSION% tls_cipher=%DOWNSTREAM_TLS_CIPHER% "
    'sni=%REQUESTED_SERVER_NAME% client_subject="%DOWNSTREAM_PEER_SUBJECT%" principal="%PRINCIPAL%" '
    'user_agent="%REQ(USER-AGENT)%"'
)
"""What text lines look like if the operator does not say."""

_MISSING: Final = "-"

E = TypeVar("E")


class Format:
    """Makes lines."""

    def __init__(
        self,
        template: str,
        of_exchange: list[Callable[[ExchangeEntry], str]],
        of_tunnel: list[Callable[[TunnelEntry], str]],
        of_refused: list[Callable[[Entry], str]],
    ) -> None:
        """
        Args:
            template: The line, with ``%s`` for each operator.
            of_exchange: The operators' values, in their order.
            of_tunnel: The same for a connection in raw TCP mode.
            of_refused: The same where there is no request that could be shown.
        """
        self._template = template
        self._of_exchange = of_exchange
        self._of_tunnel = of_tunnel
        self._of_refused = of_refused

    def exchange(self, entry: ExchangeEntry) -> str:
        """Return the line of an exchange, with its newline."""
        return self._template % tuple([value(entry) for value in self._of_exchange])

    def tunnel(self, entry: TunnelEntry) -> str:
        """Return the line of a connection in raw TCP mode, with its newline."""
        return self._template % tuple([value(entry) for value in self._of_tunnel])

    def refused(self, entry: Entry) -> str:
        """Return the line of a request whose head was refused, with its newline."""
        return self._template % tuple([value(entry) for value in self._of_refused])


def compile_format(text: str, is_ours: IsOurs) -> Format:
    """
    Compile a format.

    Args:
        text: As `observe.logsyntax` reads it, with the operators of `observe.operators`.
        is_ours: Whether a request field, by its name in lower case, is one that nobody but us may send to the app: what
            a client claims there is no more true in a log.

    Raises:
        FormatError: It cannot be read, or has an operator that there is not, or one for what must not be logged.
    """
    template = ""
    of_exchange: list[Callable[[ExchangeEntry], str]] = []
    of_tunnel: list[Callable[[TunnelEntry], str]] = []
    of_refused: list[Callable[[Entry], str]] = []
    for part in parse(text):
        if isinstance(part, str):
            template += part.replace("%", "%%")
            continue
        template += "%s"
        operator = _operator(part, is_ours)
        if isinstance(operator, OfRequest):
            of_exchange.append(_written(operator.get, part, operator.is_safe))
            of_tunnel.append(_nothing)
            of_refused.append(_nothing)
        elif isinstance(operator, OfTraffic):
            of_traffic = _written(operator.get, part, operator.is_safe)
            of_exchange.append(of_traffic)
            of_tunnel.append(of_traffic)
            of_refused.append(_nothing)
        else:
            get = _written(operator.get, part, operator.is_safe)
            of_exchange.append(get)
            of_tunnel.append(get)
            of_refused.append(get)
    return Format(template + "\n", of_exchange, of_tunnel, of_refused)


def _nothing(entry: Entry) -> str:
    return _MISSING


def _operator(command: Command, is_ours: IsOurs) -> Value:
    bind = OPERATORS.get(command.name)
    if bind is None:
        import difflib  # only a mistake needs it

        close = difflib.get_close_matches(command.name[:50].upper(), OPERATORS, n=1)
        fix = f"did you mean %{close[0]}%?" if close else f"the operators are {', '.join(OPERATORS)}"
        raise command.error(f"there is no operator %{command.name[:50]}%", fix)
    return bind(command, is_ours)


def _written(get: Callable[[E], str], command: Command, is_safe: bool) -> Callable[[E], str]:
    """Return what writes a value where *command* stands."""
    if is_safe:
        return get
    escaped = escape(command.separators)
    return lambda entry: escaped(get(entry)) or _MISSING
