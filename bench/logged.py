"""
The JSON access log of the peers: about the members that sidecar's has by default, in each one's own words.

All write to standard output, which `bench.sink` reads. How each buffers is left at its default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from bench.errors import MeasurementError
from bench.sink import LineSink

BUFFERED_BYTES = 128 * 1024
"""What may still be on its way when a load has ended: Envoy keeps back 64 KiB for up to 10 s, and so may a pipe."""


@attrs.frozen
class Member:
    """A member of the JSON object by its name in sidecar's log, and what each peer calls its value."""

    name: str
    envoy: str
    nginx: str
    haproxy: str
    is_number: bool = False


MEMBERS = (
    Member("time", "%START_TIME%", "$time_iso8601", "%tr"),
    Member("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "$remote_addr", "%ci"),
    Member("status", "%RESPONSE_CODE%", "$status", "%ST", is_number=True),
    Member("tls_version", "%DOWNSTREAM_TLS_VERSION%", "$ssl_protocol", "%sslv"),
    Member("tls_cipher", "%DOWNSTREAM_TLS_CIPHER%", "$ssl_cipher", "%sslc"),
    Member("request_id", "%REQ(X-REQUEST-ID)%", "$request_id", "%ID"),
    Member("method", "%REQ(:METHOD)%", "$request_method", "%HM"),
    Member("path", "%REQ(:PATH)%", "$uri", "%HP"),
    Member("protocol", "%PROTOCOL%", "$server_protocol", "%HV"),
    Member("host", "%REQ(:AUTHORITY)%", "$host", "%[capture.req.hdr(0)]"),
    Member("upstream", "%UPSTREAM_HOST%", "$upstream_addr", "%si:%sp"),
    Member("bytes_received", "%BYTES_RECEIVED%", "$request_length", "%U", is_number=True),
    Member("bytes_sent", "%BYTES_SENT%", "$body_bytes_sent", "%B", is_number=True),
    Member("duration_ms", "%DURATION%", "$request_time", "%Ta", is_number=True),
    Member("upstream_ms", "%RESPONSE_DURATION%", "$upstream_header_time", "%Tr", is_number=True),
)
IDENTITY_MEMBERS = (
    Member("client_subject", "%DOWNSTREAM_PEER_SUBJECT%", "$ssl_client_s_dn", "%{+Q}[ssl_c_s_dn]"),
    Member("client_serial", "%DOWNSTREAM_PEER_SERIAL%", "$ssl_client_serial", "%[ssl_c_serial,hex]"),
)


def members(*, are_clients_told: bool) -> tuple[Member, ...]:
    """Return what a line has; the client's name only where it is also in the request."""
    return MEMBERS + (IDENTITY_MEMBERS if are_clients_told else ())


def envoy_format(chosen: Iterable[Member]) -> dict[str, str]:
    """Return Envoy's `json_format`; it writes numbers as numbers by itself."""
    return {member.name: member.envoy for member in chosen}


def nginx_format(chosen: Iterable[Member]) -> str:
    """Return the text of nginx's `log_format`, to be used with `escape=json` between single quotes."""
    return _object((member, member.nginx) for member in chosen)


def haproxy_format(chosen: Iterable[Member]) -> str:
    """Return the text of haproxy's `log-format`, to be used between single quotes."""
    return _object((member, member.haproxy) for member in chosen)


def check_log(name: str, sink: LineSink, *, requests: int, subject: str) -> None:
    """
    Check that a proxy has written a line for each of at least *requests* requests.

    Args:
        name: The proxy's, for the message.
        sink: What it wrote to.
        requests: How many it has answered.
        subject: What the line must say of the client; empty if it need not say anything.

    Raises:
        MeasurementError: Lines are missing that cannot be buffered, or they are not what they should be: its figures
            would be those of less work.
    """
    line = sink.last_line.decode(errors="replace")
    try:
        found = json.loads(line)
    except ValueError as error:
        raise MeasurementError(f"{name} logs no JSON: {line[:200]!r}") from error
    wanted = [member.name for member in members(are_clients_told=bool(subject))]
    missing = [member for member in wanted if member not in found]
    if missing:
        raise MeasurementError(f"{name} does not log {', '.join(missing)}: {line[:200]!r}")
    if subject not in found.get("client_subject", ""):
        raise MeasurementError(f"{name} logs client_subject {found['client_subject']!r}, without {subject!r}")
    buffered = BUFFERED_BYTES // (len(line) + 1)
    if sink.lines + buffered < requests:
        raise MeasurementError(f"{name} logged {sink.lines:,} lines for {requests:,} requests")


def _object(values: Iterable[tuple[Member, str]]) -> str:
    """Return a JSON object as text, with numbers bare and all else quoted."""
    return "{" + ",".join(f'"{member.name}":{_value(member, text)}' for member, text in values) + "}"


def _value(member: Member, text: str) -> str:
    """Return one value as it stands in the object; haproxy's `+Q` brings its own quotes."""
    return text if member.is_number or text.startswith("%{+Q}") else f'"{text}"'
