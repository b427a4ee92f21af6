"""
Access log lines as JSON: one object a line, its members as README.md names them.

They are written by hand, since a dict and `json.dumps` cost twice as much (bench row `requests`). What is the same for
all requests of a connection is written once, and so is what comes from a head that the codec has seen before; values
that come again and again are remembered.
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


@functools.lru_cache(_MOST_UPSTREAMS)
def _of_upstream(address: str) -> str:
    return f',"upstream":{quoted(address)}'


class Remembered:
    """
    What the lines of a connection have in common, kept there: of its client, and of the head of its last request.

    Attributes:
        client: The member `client`, and all that stands between it and the status.
        members: Those that are the same for all requests.
        request: Those of the head, from the method to the host.
        agent: The last of them, if the head has it.
    """

    __slots__ = ("_claimed", "_head", "_host", "_principal", "_session", "agent", "client", "members", "request")

    def __init__(self, entry: ExchangeEntry) -> None:
        downstream = entry.downstream
        self._session: object = downstream.session
        self._principal: str = downstream.principal
        self._host: str = downstream.peer.host
        self._claimed: str = entry.exchange.client
        self._head: object = None
        host, self.members = _connection(entry)
        self.client = f'","client":{host},"status":'
        self.request = ""
        self.agent = ""

    def is_about(self, entry: ExchangeEntry) -> bool:
        """Whether the client is still the same, and what its certificate is worth."""
        exchange = entry.exchange
        downstream = exchange.downstream
        return (
            downstream.session is self._session
            and downstream.principal == self._principal
            and exchange.client == self._claimed
            and downstream.peer.host == self._host
        )

    def read(self, entry: ExchangeEntry) -> None:
        """Have the members of the request's head; one that serves several requests is read once."""
        exchange = entry.exchange
        head = exchange.head
        if head is self._head:
            return
        fields = head.fields
        self._head = head
        self.request = (
            f',"method":{quoted_repeating(head.method)},"path":{quoted(shown(head.target.partition(b"?")[0]))}'
            f',"protocol":"{exchange.protocol}","host":{quoted_repeating(head.host[:MAX_VALUE_BYTES])}'
        )
        self.agent = ""
        if b"user-agent" in fields.names:
            agent = fields.first(b"user-agent").strip(b" \t")
            self.agent = f',"user_agent":{quoted_repeating(agent[:MAX_VALUE_BYTES])}'


class JsonFormat:
    """Makes lines."""

    def __init__(self) -> None:
        self._timestamp = TimeFormat()

    def exchange(self, entry: ExchangeEntry) -> str:
        """Return the line of an exchange, with its newline."""
        exchange = entry.exchange
        downstream = exchange.downstream
        remembered = downstream.logged
        if remembered is None or not remembered.is_about(entry):
            remembered = downstream.logged = Remembered(entry)
        remembered.read(entry)
        trace = entry.trace_id and f',"trace_id":"{entry.trace_id}"'  # hexadecimal digits
        upstream = entry.upstream and _of_upstream(entry.upstream)
        why = _why(entry) if entry.reason or entry.detail else ""
        rest = f',"route":{quoted(entry.route)},"cluster":{quoted(entry.cluster)}' if entry.route else ""
        if exchange.grpc_status:
            rest += f',"grpc_status":{exchange.grpc_status}'
        if exchange.first_byte_at is not None:
            rest += f',"upstream_ms":{_milliseconds(exchange.first_byte_at - exchange.started_at)}'
        return (
            f'{{"time":"{self._timestamp(entry.moment)}{remembered.client}{entry.status}{why}{remembered.members}'
            f',"request_id":"{exchange.request_id.decode()}"{trace}{remembered.request}{upstream}'
            f',"bytes_received":{exchange.bytes_received},"bytes_sent":{exchange.bytes_sent}'
            f',"duration_ms":{_milliseconds(entry.duration)}{rest}{remembered.agent}}}\n'
        )

    def tunnel(self, entry: TunnelEntry) -> str:
        """Return the line of a connection in raw TCP mode, with its newline."""
        upstream = entry.upstream and f',"upstream":{quoted(entry.upstream)}'
        return (
            f'{self._common(entry)},"protocol":"tcp"{upstream},"bytes_received":{entry.bytes_received}'
            f',"bytes_sent":{entry.bytes_sent},"duration_ms":{_milliseconds(entry.duration)}}}\n'
        )

    def refused(self, entry: Entry) -> str:
        """Return the line of a request whose head was refused, with its newline."""
        protocol = ',"protocol":"HTTP/2"' if entry.downstream.session.alpn == "h2" else ""  # else nobody knows
        return f"{self._common(entry)}{protocol}}}\n"

    def _common(self, entry: Entry) -> str:
        """Return the beginning of the object, with the members that every line has."""
        client, connection = _connection(entry)
        time = self._timestamp(entry.moment)
        return f'{{"time":"{time}","client":{client},"status":{entry.status}{_why(entry)}{connection}'


def _why(entry: Entry) -> str:
    why = entry.reason and f',"reason":{quoted(entry.reason)}'
    if entry.detail:
        why += f',"detail":{quoted(entry.detail)}'
    return why


def _milliseconds(seconds: float) -> str:
    """Return a duration with three places; by whole numbers, which mypyc makes half as dear as a format."""
    if seconds < 0.0:  # the clock was set back
        return f"{seconds * 1000:.3f}"
    microseconds = int(seconds * 1_000_000 + 0.5)
    if microseconds < 1000:
        return "0." + str(1000 + microseconds)[1:]
    digits = str(microseconds)
    return digits[:-3] + "." + digits[-3:]


def _connection(entry: Entry) -> tuple[str, str]:
    """Return what `_of_connection` does, of the client of *entry*."""
    downstream = entry.downstream
    session = downstream.session
    identity = session.verification.identity
    subject = unverified = serial = uri = ""
    if identity is not None and session.verification.reason is None:
        subject, serial = identity.subject[:MAX_VALUE_BYTES], identity.serial
        uri = identity.uri[0][:MAX_VALUE_BYTES] if identity.uri else ""
    elif identity is not None:
        unverified = identity.subject[:MAX_VALUE_BYTES]
    return _of_connection(
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
