"""
One line per exchange. Never logged: query strings, cookies, authorization values, or any other field's value but Host
and User-Agent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import RequestError
from sidecar.settings import AccessLogFormat

if TYPE_CHECKING:
    from sidecar.proxy.downstream import DownstreamConnection
    from sidecar.proxy.exchange import Exchange

MAX_VALUE_BYTES: Final = 256
"""Of a path or field value that a client chose; the rest is cut off."""

Line = Callable[[str], None]


class AccessLog:
    """Formats lines and hands them to a writer."""

    def __init__(self, write: Line, style: AccessLogFormat) -> None:
        """
        Args:
            write: Takes a line with its newline.
            style: JSON or TEXT.
        """
        self._write = write
        self._format = _as_json if style is AccessLogFormat.JSON else _as_text

    def exchange(self, exchange: Exchange, status: int, reason: str, detail: str, now: float) -> None:
        """Log an exchange that is over; arguments as in `Service.record`."""
        head = exchange.head
        record = self._common(exchange.downstream, status, reason, detail)
        record["request_id"] = exchange.request_id.decode()
        record["method"] = _shown(head.method)
        record["path"] = _shown(head.target.partition(b"?")[0])
        record["protocol"] = f"HTTP/1.{head.minor_version}"
        record["host"] = _shown(head.host)
        record["bytes_received"] = exchange.bytes_received
        record["bytes_sent"] = exchange.bytes_sent
        record["duration_ms"] = round((now - exchange.started_at) * 1000, 3)
        if exchange.first_byte_at is not None:
            record["upstream_ms"] = round((exchange.first_byte_at - exchange.started_at) * 1000, 3)
        if b"user-agent" in head.fields.names:
            record["user_agent"] = _shown(head.fields.values(b"user-agent")[0])
        self._write(self._format(record))

    def refused(self, downstream: DownstreamConnection, error: RequestError) -> None:
        """Log a request whose head was refused; nothing of it can be trusted, so nothing of it is shown."""
        self._write(self._format(self._common(downstream, error.status, error.reason, str(error))))

    @staticmethod
    def _common(downstream: DownstreamConnection, status: int, reason: str, detail: str) -> dict[str, Any]:
        session = downstream.session
        moment = time.time()
        record: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z",
            "client": downstream.peer.host,
            "status": status,
        }
        if reason:
            record["reason"] = reason
        if detail:
            record["detail"] = detail
        record["tls_version"] = session.version
        record["tls_cipher"] = session.cipher
        if session.server_name:
            record["sni"] = session.server_name
        identity = session.verification.identity
        if identity is not None:
            record["client_subject"] = identity.subject[:MAX_VALUE_BYTES]
        if downstream.principal:
            record["principal"] = downstream.principal[:MAX_VALUE_BYTES]
        return record


def _shown(value: bytes) -> str:
    return value[:MAX_VALUE_BYTES].decode("utf-8", "backslashreplace")


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def _as_json(record: dict[str, Any]) -> str:
    return _encode(record) + "\n"


def _as_text(record: dict[str, Any]) -> str:
    get = record.get
    request = f"{get('method', '-')} {get('path', '-')} {get('protocol', '-')}"
    rest = " ".join(f"{key}={_quoted(str(record[key]))}" for key in _TEXT_KEYS if key in record)
    return f"[{record['time']}] {record['client']} {_encode(request)} {record['status']} {rest}\n"


_TEXT_KEYS: Final = (
    "reason",
    "detail",
    "bytes_received",
    "bytes_sent",
    "duration_ms",
    "upstream_ms",
    "request_id",
    "host",
    "tls_version",
    "tls_cipher",
    "sni",
    "client_subject",
    "principal",
    "user_agent",
)


def _quoted(text: str) -> str:
    return _encode(text) if not text.isascii() or not text.isprintable() or " " in text or '"' in text else text
