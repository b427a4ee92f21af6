"""
The operators of access log formats: Envoy's names where Envoy has one for it, with Envoy's meaning.

Ours are %REASON% and %DETAIL% (why we answered ourselves), %PRINCIPAL%, %DOWNSTREAM_TLS_GROUP% and
%DOWNSTREAM_TLS_RESUMED%; and durations may be written with decimals, as %DURATION(3)%.

Never to be had: query strings, also in fields that hold URLs, and fields that hold credentials.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from sidecar.observe.escaping import MAX_VALUE_BYTES, shown
from sidecar.observe.logsyntax import Command
from sidecar.observe.timeformat import RFC3339, TimeFormat, TimeFormatError

if TYPE_CHECKING:
    from sidecar.observe.accesslog import Entry, ExchangeEntry, TunnelEntry

IsOurs = Callable[[bytes], bool]
"""Whether a request field, by its name in lower case, is one that nobody but us may send to the app."""


@attrs.frozen
class OfConnection:
    """
    A value that every line has.

    Attributes:
        get: Reads it; "" for none.
        is_safe: Nobody else has a say in its characters, and it is never "" but ``-``: it is shown as it is.
    """

    get: Callable[[Entry], str]
    is_safe: bool = False


@attrs.frozen
class OfRequest:
    """A value that only the lines of readable requests have; else as `OfConnection`."""

    get: Callable[[ExchangeEntry], str]
    is_safe: bool = False


@attrs.frozen
class OfTraffic:
    """A value that the lines of readable requests and of connections in raw TCP mode have; else as `OfConnection`."""

    get: Callable[[ExchangeEntry | TunnelEntry], str]
    is_safe: bool = False


Value = OfConnection | OfRequest | OfTraffic


Bind = Callable[[Command, IsOurs], Value]
"""From an operator in a format to its value; raises FormatError."""

FLAGS: Final = {
    "upstream_connect_refused": "UF",
    "upstream_connect_timeout": "UF",
    "upstream_not_started": "UF",
    "upstream_unreachable": "UF",
    "upstream_overflow": "UO",
    "upstream_tls_failed": "UF",
    "upstream_not_http1": "UPE",
    "upstream_not_http2": "UF",
    "no_healthy_upstream": "UH",
    "no_route": "NR",
    "upstream_reset": "UC",
    "upstream_invalid_response": "UPE",
    "upstream_timeout": "UT",
    "upstream_stalled": "SI",
    "downstream_stalled": "SI",
    "body_timeout": "SI",
    "header_timeout": "SI",
    "downstream_lost": "DC",
    "downstream_reset": "DR",
    "drain_timeout": "LR",
    "bad_chunk": "DPE",
    "bad_trailer": "DPE",
    "bare_line_end": "DPE",
    "bytes_out_of_turn": "DPE",
    "trailers_too_large": "DPE",
}
"""Reason -> Envoy's response flag, where one says the same. Refused heads have DPE, whatever the reason."""


# -- arguments ---------------------------------------------------------------------------------------------------


def _plain(value: Value) -> Bind:
    """An operator without argument."""

    def bind(command: Command, is_ours: IsOurs) -> Value:
        _reject_limit(command)
        if command.argument is not None:
            raise command.error(f"%{command.name}% takes no argument", f"write %{command.name}%")
        return value

    return bind


def _reject_limit(command: Command) -> None:
    if command.limit is not None:
        raise command.error(f"%{command.name}% takes no limit", "leave :LIMIT out; only REQ and RESP have one")


def _moment(read: Callable[[Entry], float | None]) -> Bind:
    """An operator with a time format, or none for RFC 3339."""

    def bind(command: Command, is_ours: IsOurs) -> OfConnection:
        _reject_limit(command)
        try:
            write = TimeFormat(RFC3339 if command.argument is None else command.argument)
        except TimeFormatError as error:
            raise command.error(error.fact, error.fix, len(command.name) + 2 + error.position) from None

        def get(entry: Entry) -> str:
            moment = read(entry)
            return "-" if moment is None else write(moment)

        return OfConnection(get, is_safe=True)  # its blanks are the operator's own

    return bind


def _decimals(command: Command) -> str:
    """Return how milliseconds are written; the argument is the number of decimals."""
    _reject_limit(command)
    if command.argument not in (None, "0", "1", "2", "3"):
        raise command.error(
            f"{command.argument[:20]!a} is no number of decimals", f"write 0 to 3, as %{command.name}(3)%"
        )
    return f"%.{command.argument or 0}f"


def _whole_duration(command: Command, is_ours: IsOurs) -> OfTraffic:
    how = _decimals(command)
    return OfTraffic(lambda entry: how % (entry.duration * 1000), is_safe=True)


def _duration(read: Callable[[ExchangeEntry], float | None]) -> Bind:
    """An operator for milliseconds of a part of an exchange."""

    def bind(command: Command, is_ours: IsOurs) -> OfRequest:
        how = _decimals(command)

        def get(entry: ExchangeEntry) -> str:
            seconds = read(entry)
            return "-" if seconds is None else how % (seconds * 1000)

        return OfRequest(get, is_safe=True)

    return bind


# -- fields ------------------------------------------------------------------------------------------------------

_SECRETS: Final = (
    *("accesskey", "apikey", "assertion", "authkey", "authorization", "cookie", "credential", "csrf", "dpop"),
    *(
        "functionskey",
        "jwt",
        "oidcdata",
        "passphrase",
        "passw",
        "privatekey",
        "pwd",
        "secret",
        "session",
        "subscriptionkey",
        "token",
        "xsrf",
    ),
    "websocketprotocol",  # where browsers, which can send no other field, put tokens
)
"""Parts of the names of fields that hold credentials, without hyphens."""

_URLS: Final = frozenset(
    {"content-location", "destination", "link", "location", "referer", "refresh"}
    | {"x-original-uri", "x-original-url", "x-rewrite-url"}
)
"""Fields that hold URLs: their queries are not shown."""

_NAME: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")

_Source = Callable[["ExchangeEntry", int], str]
"""Reads at most so many bytes of a field; "" if it is not there."""


def _pseudo(read: Callable[[ExchangeEntry], bytes]) -> _Source:
    return lambda entry, limit: shown(read(entry), limit)


_OF_REQUESTS: Final[dict[str, _Source]] = {
    ":authority": _pseudo(lambda entry: entry.exchange.head.host),
    ":method": _pseudo(lambda entry: entry.exchange.head.method),
    ":path": _pseudo(lambda entry: entry.exchange.head.target.partition(b"?")[0]),
    ":scheme": lambda entry, limit: _scheme(entry),
    "x-forwarded-for": lambda entry, limit: _peer(entry).host[:limit],
    "x-forwarded-host": _pseudo(lambda entry: entry.exchange.head.host),
    "x-forwarded-proto": lambda entry, limit: _scheme(entry),
    "x-request-id": _pseudo(lambda entry: entry.exchange.request_id),
}
"""What is no field, and the fields that we set, whatever the client sent in them."""

_OF_RESPONSES: Final[dict[str, _Source]] = {
    ":status": lambda entry, limit: str(entry.status),
    # Envoy tells its clients how long the app took; we do not, but this is what the name means.
    "x-envoy-upstream-service-time": lambda entry, limit: _milliseconds(_until_response(entry)),
}


def _sources(command: Command, special: dict[str, _Source], general: Callable[[str], _Source]) -> OfRequest:
    """Read the argument ``X?Y``: the field X, or else Y."""
    _require_names(command, special)
    limit = command.limit or MAX_VALUE_BYTES
    sources = [
        special[name] if name in special else general(name) for name in (command.argument or "").lower().split("?")
    ]

    def get(entry: ExchangeEntry) -> str:
        for source in sources:
            if value := source(entry, limit):
                return value
        return ""

    return OfRequest(get)


def _require_names(command: Command, special: dict[str, _Source]) -> None:
    names = (command.argument or "").split("?")
    offset = len(command.name) + 2
    if len(names) > 2:
        raise command.error("there are three fields or more", f"write %{command.name}(X?Y)%: X, or else Y", offset)
    for name in names:
        plain = re.sub("[^a-z0-9]", "", name.lower())
        if not _NAME.fullmatch(name):
            raise command.error(
                f"{name[:40]!a} is no field name", f"write one, as %{command.name}(Content-Type)%", offset
            )
        if name.startswith(":") and name.lower() not in special:
            known = ", ".join(known.upper() for known in special if known.startswith(":"))
            raise command.error(f"there is no {name[:40]}", f"write one of {known}", offset)
        if any(secret in plain for secret in _SECRETS):
            raise command.error(f"{name[:40]} may hold a credential, which is never logged", "leave it out", offset)
        offset += len(name) + 1


def _request_field(command: Command, is_ours: IsOurs) -> OfRequest:
    def general(name: str) -> _Source:
        wanted = name.encode()
        if name.startswith("x-envoy-"):
            return lambda entry, limit: ""  # Envoy's word: its formats look for it first, and a client might say it
        if is_ours(wanted):
            raise command.error(
                f"{name} is what a client only claims",
                "leave it out; what is known of clients are the DOWNSTREAM operators",
                len(command.name) + 2,
            )
        is_url = name in _URLS
        return lambda entry, limit: _field(entry.exchange.head.fields, wanted, limit, is_url)

    return _sources(command, _OF_REQUESTS, general)


def _response_field(command: Command, is_ours: IsOurs) -> OfRequest:
    def general(name: str) -> _Source:
        wanted = name.encode()
        is_url = name in _URLS

        def source(entry: ExchangeEntry, limit: int) -> str:
            response = entry.exchange.response
            return "" if response is None else _field(response.fields, wanted, limit, is_url)

        return source

    return _sources(command, _OF_RESPONSES, general)


# Any: wire.fields.Fields, which this package must not know.
def _field(fields: Any, name: bytes, limit: int, is_url: bool) -> str:
    count = fields.names.count(name)
    if not count:
        return ""
    # `first` is cheaper than `values`.
    value = fields.first(name).strip(b" \t") if count == 1 else b", ".join(fields.values(name))
    if is_url:
        value = re.split(rb"[?#]", value, maxsplit=1)[0]
    return shown(value, limit)


# -- values ------------------------------------------------------------------------------------------------------


def _until_response(entry: ExchangeEntry) -> float | None:
    first = entry.exchange.first_byte_at
    return None if first is None else first - entry.exchange.started_at


def _since_response(entry: ExchangeEntry) -> float | None:
    until = _until_response(entry)
    return None if until is None else entry.duration - until


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f}"


def _scheme(entry: Entry) -> str:
    return "https" if entry.downstream.session.version else "http"


def _peer(entry: Entry) -> Any:  # Any: proxy.listener.Peer, which this package must not know
    return entry.downstream.peer


def _certificate(read: Callable[[Any], str | Sequence[str]]) -> OfConnection:  # Any: policy.identity.PeerIdentity
    """What the client's certificate says, whether it was accepted or not; several values with commas."""

    def get(entry: Entry) -> str:
        identity = entry.downstream.session.verification.identity
        if identity is None:
            return ""
        value = read(identity)
        return (value if isinstance(value, str) else ",".join(value))[:MAX_VALUE_BYTES]

    return OfConnection(get)


def _validity(read: Callable[[Any], float]) -> Callable[[Entry], float | None]:
    def moment(entry: Entry) -> float | None:
        identity = entry.downstream.session.verification.identity
        return None if identity is None else read(identity)

    return moment


def _operators() -> dict[str, Bind]:
    # In a function, since mypy cannot infer attributes of modules that import this one while it reads a module's top.
    return {
        "START_TIME": _moment(lambda entry: entry.began),
        "REQ": _request_field,
        "RESP": _response_field,
        "GRPC_STATUS": _plain(OfRequest(lambda entry: entry.exchange.grpc_status or "-", is_safe=True)),
        "PROTOCOL": _plain(OfRequest(lambda entry: entry.exchange.protocol, is_safe=True)),
        "RESPONSE_CODE": _plain(OfConnection(lambda entry: str(entry.status), is_safe=True)),
        "RESPONSE_CODE_DETAILS": _plain(OfConnection(lambda entry: entry.reason or "via_upstream", is_safe=True)),
        "RESPONSE_FLAGS": _plain(OfConnection(lambda entry: FLAGS.get(entry.reason, entry.flag), is_safe=True)),
        "REASON": _plain(OfConnection(lambda entry: entry.reason or "-", is_safe=True)),
        "DETAIL": _plain(OfConnection(lambda entry: entry.detail[:MAX_VALUE_BYTES])),
        "BYTES_RECEIVED": _plain(OfTraffic(lambda entry: str(entry.bytes_received), is_safe=True)),
        "BYTES_SENT": _plain(OfTraffic(lambda entry: str(entry.bytes_sent), is_safe=True)),
        "DURATION": _whole_duration,
        "RESPONSE_DURATION": _duration(_until_response),
        "RESPONSE_TX_DURATION": _duration(_since_response),
        "STREAM_ID": _plain(OfRequest(lambda entry: entry.exchange.request_id.decode(), is_safe=True)),
        "TRACE_ID": _plain(OfRequest(lambda entry: entry.trace_id)),
        "UPSTREAM_HOST": _plain(OfTraffic(lambda entry: entry.upstream)),
        "UPSTREAM_REMOTE_ADDRESS": _plain(OfTraffic(lambda entry: entry.upstream)),
        "UPSTREAM_CLUSTER": _plain(OfTraffic(lambda entry: entry.cluster)),
        "ROUTE_NAME": _plain(OfRequest(lambda entry: entry.route)),
        "DOWNSTREAM_REMOTE_ADDRESS": _plain(OfConnection(lambda entry: str(_peer(entry).remote))),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _plain(OfConnection(lambda entry: entry.client)),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": _plain(OfConnection(lambda entry: entry.via or entry.client)),
        "DOWNSTREAM_REMOTE_PORT": _plain(OfConnection(lambda entry: str(_peer(entry).remote.port))),
        "DOWNSTREAM_LOCAL_ADDRESS": _plain(OfConnection(lambda entry: str(_peer(entry).local))),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _plain(OfConnection(lambda entry: _peer(entry).local.host)),
        "DOWNSTREAM_LOCAL_PORT": _plain(OfConnection(lambda entry: str(_peer(entry).local.port))),
        "REQUESTED_SERVER_NAME": _plain(
            OfConnection(lambda entry: (entry.downstream.session.server_name or "")[:MAX_VALUE_BYTES])
        ),
        "DOWNSTREAM_TLS_VERSION": _plain(
            OfConnection(lambda entry: entry.downstream.session.version or "-", is_safe=True)
        ),
        "DOWNSTREAM_TLS_CIPHER": _plain(OfConnection(lambda entry: entry.downstream.session.cipher)),
        "DOWNSTREAM_TLS_GROUP": _plain(OfConnection(lambda entry: entry.downstream.session.group or "")),
        "DOWNSTREAM_TLS_RESUMED": _plain(
            OfConnection(lambda entry: "true" if entry.downstream.session.resumed else "false", is_safe=True)
        ),
        "DOWNSTREAM_PEER_SUBJECT": _plain(_certificate(lambda identity: identity.subject)),
        "DOWNSTREAM_PEER_ISSUER": _plain(_certificate(lambda identity: identity.issuer)),
        "DOWNSTREAM_PEER_SERIAL": _plain(_certificate(lambda identity: identity.serial)),
        "DOWNSTREAM_PEER_FINGERPRINT_256": _plain(_certificate(lambda identity: identity.sha256)),
        "DOWNSTREAM_PEER_URI_SAN": _plain(_certificate(lambda identity: identity.uri)),
        "DOWNSTREAM_PEER_DNS_SAN": _plain(_certificate(lambda identity: identity.dns)),
        "DOWNSTREAM_PEER_IP_SAN": _plain(_certificate(lambda identity: identity.ip)),
        "DOWNSTREAM_PEER_EMAIL_SAN": _plain(_certificate(lambda identity: identity.email)),
        "DOWNSTREAM_PEER_CERT_V_START": _moment(_validity(lambda identity: identity.not_before)),
        "DOWNSTREAM_PEER_CERT_V_END": _moment(_validity(lambda identity: identity.not_after)),
        "PRINCIPAL": _plain(OfConnection(lambda entry: entry.downstream.principal[:MAX_VALUE_BYTES])),
    }


OPERATORS: Final = _operators()
"""Name -> operator."""
