"""
Access log lines as JSON: one object a line, its members as README.md names them.

They are written by hand, since a dict and `json.dumps` cost twice as much (bench row `requests`). What is the same for
all requests of a connection is remembered, and so are values that come again and again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from sidecar.observe.escaping import MAX_VALUE_BYTES, quoted, quoted_repeating, shown
from sidecar.observe.timeformat import TimeFormat

if TYPE_CHECKING:
    from sidecar.observe.accesslog import Entry, ExchangeEntry, TunnelEntry

_MOST_REMEMBERED: Final = 1024
"""Clients, by what is written of them. Typically some 2 MiB; 16 MiB if all are hostile."""

_MOST_UPSTREAMS: Final = 128

_quoted_upstream = functools.lru_cache(_MOST_UPSTREAMS)(quoted)


class JsonFormat:
    """Makes lines."""

    def __init__(self) -> None:
        self._timestamp = TimeFormat()

    def exchange(self, entry: ExchangeEntry) -> str:
        """Return the line of an exchange, with its newline."""
        exchange = entry.exchange
        head = exchange.head
        fields = head.fields
        path = quoted(shown(head.target.partition(b"?")[0]))
        trace = entry.trace_id and f',"trace_id":"{entry.trace_id}"'  # hexadecimal digits
        upstream = entry.upstream and f',"upstream":{_quoted_upstream(entry.upstream)}'
        line = (
            f'{self._common(entry)},"request_id":"{exchange.request_id.decode()}"{trace}'
            f',"method":{quoted_repeating(head.method)},"path":{path},"protocol":"{exchange.protocol}"'
            f',"host":{quoted_repeating(head.host[:MAX_VALUE_BYTES])}{upstream}'
            f',"bytes_received":{exchange.bytes_received},"bytes_sent":{exchange.bytes_sent}'
            f',"duration_ms":{entry.duration * 1000:.3f}'
        )
        if entry.route:
            line += f',"route":{quoted(entry.route)},"cluster":{quoted(entry.cluster)}'
        if exchange.grpc_status:
            line += f',"grpc_status":{exchange.grpc_status}'
        if exchange.first_byte_at is not None:
            line += f',"upstream_ms":{(exchange.first_byte_at - exchange.started_at) * 1000:.3f}'
        if b"user-agent" in fields.names:
            agent = fields.first(b"user-agent").strip(b" \t")
            line += f',"user_agent":{quoted_repeating(agent[:MAX_VALUE_BYTES])}'
        return line + "}\n"

    def tunnel(self, entry: TunnelEntry) -> str:
        """Return the line of a connection in raw TCP mode, with its newline."""
        upstream = entry.upstream and f',"upstream":{quoted(entry.upstream)}'
        return (
            f'{self._common(entry)},"protocol":"tcp"{upstream},"bytes_received":{entry.bytes_received}'
            f',"bytes_sent":{entry.bytes_sent},"duration_ms":{entry.duration * 1000:.3f}}}\n'
        )

    def refused(self, entry: Entry) -> str:
        """Return the line of a request whose head was refused, with its newline."""
        protocol = ',"protocol":"HTTP/2"' if entry.downstream.session.alpn == "h2" else ""  # else nobody knows
        return f"{self._common(entry)}{protocol}}}\n"

    def _common(self, entry: Entry) -> str:
        """Return the beginning of the object, with the members that every line has."""
        downstream = entry.downstream
        session = downstream.session
        identity = session.verification.identity
        subject = unverified = serial = uri = ""
        if identity is not None and session.verification.reason is None:
            subject, serial = identity.subject[:MAX_VALUE_BYTES], identity.serial
            uri = identity.uri[0][:MAX_VALUE_BYTES] if identity.uri else ""
        elif identity is not None:
            unverified = identity.subject[:MAX_VALUE_BYTES]
        client, connection = _of_connection(
            entry.client,
            entry.via,
            downstream.peer.proxied,
            session.version,
            session.cipher,
            session.resumed,
            session.server_name and session.server_name[:MAX_VALUE_BYTES],
            subject,
            unverified,
            serial,
            uri,
            downstream.principal[:MAX_VALUE_BYTES],
        )
        why = entry.reason and f',"reason":{quoted(entry.reason)}'
        if entry.detail:
            why += f',"detail":{quoted(entry.detail)}'
        return f'{{"time":"{self._timestamp(entry.moment)}","client":{client},"status":{entry.status}{why}{connection}'


@functools.lru_cache(_MOST_REMEMBERED)
def _of_connection(
    host: str,
    via: str,
    proxied: Any,  # Any: wire.proxyproto.ProxyHeader, which this package must not know
    version: str,
    cipher: str,
    resumed: bool,
    server_name: str | None,
    subject: str,
    unverified: str,
    serial: str,
    uri: str,
    principal: str,
) -> tuple[str, str]:
    """Return the client's address, and the members that are the same for all requests of a connection."""
    members = {
        "via": via,
        **_said_by_proxy(proxied),
        "sni": server_name,
        "client_subject": subject,
        "client_unverified_subject": unverified,
        "client_serial": serial,
        "client_uri": uri,
        "principal": principal,
    }
    text = ""
    if version:
        text = f',"tls_version":{quoted(version)},"tls_cipher":{quoted(cipher)},"tls_resumed":{str(resumed).lower()}'
    return quoted(host), text + "".join(f',"{name}":{quoted(value)}' for name, value in members.items() if value)


def _said_by_proxy(header: Any) -> dict[str, str]:
    """Return what a PROXY header says beside addresses."""
    if header is None:
        return {}
    return {
        "proxy_authority": header.authority,
        "proxy_unique_id": header.unique_id.hex(),
        "vpc_endpoint_id": header.vpc_endpoint_id,
    }
