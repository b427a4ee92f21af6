"""
What a proxy changes in a head: hop-by-hop fields go, forwarding fields come, the rest stays as it is.

Every client is untrusted: what it sent in a field that we set is removed first, also when it is spelt with underscores
or other characters, which many application servers cannot tell from hyphens. What a trusted proxy says comes back in
the lines of `policy.forwarding`.
"""

from __future__ import annotations

from typing import Final

from sidecar.policy.identity_headers import CLAIMED_FAMILIES, CLAIMED_NAMES
from sidecar.policy.tracing import TRACE_FIELDS
from sidecar.settings import UnderscoreHeaders
from sidecar.wire.events import BodyKind, RequestHead, ResponseHead
from sidecar.wire.fields import Fields

# RFC 9110 section 7.6.1, and the older names still seen. Transfer-Encoding is not here: the body goes on in the same
# framing, so its line does too. Of TE only "trailers" goes on, newly written.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
    }
)

DEFAULT_HOST: Final = b"localhost"
"""What the app is told where the client named no host, as only HTTP/1.0 may."""

_SET_BY_US: Final = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)

# Fields in which other proxies put what they have verified, or say what we say in other words: nobody else may.
_CLAIMS: Final = CLAIMED_NAMES | frozenset(
    {
        *(b"forwarded", b"front-end-https", b"x-forwarded", b"x-host", b"x-original-host"),
        *(b"cf-connecting-ip", b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-real-ip"),
        # What other proxies say of the user, or of the client's certificate.
        *(b"iv-user", b"ns-client-cert", b"x-client-cn", b"x-ssl", b"x-webauth-user"),
        # Not about the client, but no client's to say: another path than the one decided about, and the proxy that CGI
        # programs are to use (CVE-2016-5385).
        *(b"proxy", b"x-original-url", b"x-rewrite-url"),
    }
)

# The same for whole families, by how their names begin.
_CLAIM_FAMILIES: Final = (
    *CLAIMED_FAMILIES,
    *(b"sslclientcert", b"x-auth-request-", b"x-envoy-", b"x-forwarded-", b"x-ms-client-principal"),
    b"x-proxy-protocol-",
)

# One of these is in every name of a family.
_IN_FAMILIES: Final = (
    *(b"x-forwarded-", b"ssl-", b"tls-", b"-cert", b"clientcert", b"x-remote-", b"-ws"),
    *(b"x-auth-request-", b"x-envoy-", b"x-ms-client-principal", b"x-proxy-protocol-"),
)

_DROPPED_FROM_REQUESTS: Final = _HOP_BY_HOP | _SET_BY_US | _CLAIMS

# Connection can nominate what it likes; these decide where the message ends or whom it is for.
_NEVER_NOMINATED: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})

_NEVER_IN_OTHER_SPELLINGS: Final = _DROPPED_FROM_REQUESTS | _NEVER_NOMINATED

_USUAL: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_USUAL_AND_BLANK: Final = _USUAL + b" "
_AS_HYPHEN: Final = bytes(octet if octet in _USUAL else ord("-") for octet in range(256))

_FRAMING: Final = frozenset({b"content-length", b"trailer", b"transfer-encoding"})
_CHUNKS: Final = frozenset({b"trailer", b"transfer-encoding"})

# RFC 9110 section 6.5.1: never in a trailer section: framing, routing, authentication, what a response control needs,
# and whatever only we may say.
_NOT_IN_TRAILERS: Final = (
    _DROPPED_FROM_REQUESTS
    | _NEVER_NOMINATED
    | TRACE_FIELDS
    | frozenset(
        {
            b"age",
            b"authorization",
            b"cache-control",
            b"content-encoding",
            b"content-range",
            b"content-type",
            b"cookie",
            b"date",
            b"expect",
            b"expires",
            b"if-match",
            b"if-modified-since",
            b"if-none-match",
            b"if-range",
            b"if-unmodified-since",
            b"location",
            b"max-forwards",
            b"pragma",
            b"range",
            b"retry-after",
            b"set-cookie",
            b"trailer",
            b"vary",
            b"warning",
            b"www-authenticate",
        }
    )
)


def underscored_name(head: RequestHead) -> bytes | None:
    """Return the first field name with an underscore, if there is one."""
    return next((name for name in head.fields.names if b"_" in name), None)


def accepts_trailers(head: RequestHead) -> bool:
    """Whether the client said that it does not discard trailers (TE, RFC 9110 section 10.1.4)."""
    if b"te" not in head.fields.names:
        return False
    members = [m.strip(b" \t").lower() for value in head.fields.values(b"te") for m in value.split(b",")]
    return b"trailers" in members


def is_ours(name: bytes) -> bool:
    """Whether a request field, by its name in lower case, is one that nobody but us may send to the app."""
    plain = name.translate(_AS_HYPHEN)
    return plain in _SET_BY_US or plain in _CLAIMS or plain.startswith(_CLAIM_FAMILIES)


def request_section(
    head: RequestHead,
    forwarding: bytes,
    underscores: UnderscoreHeaders = UnderscoreHeaders.DROP,
    dropped: frozenset[bytes] = frozenset(),
    host: bytes = b"",
    says_host: bool = False,
) -> bytes:
    """
    Return the header section for the app, less the request id, which `request_id_line` gives.

    Args:
        head: What the client sent.
        forwarding: Lines of `policy.forwarding`.
        underscores: What becomes of names with an underscore. With ALLOW they stay, except those that an app could
            take for one that nobody but us may send.
        dropped: More names that do not go on.
        host: What the app is told as Host; b"": what the client said.
        says_host: Whether X-Forwarded-Host is in *forwarding*.
    """
    fields = head.fields
    section = fields.section
    if host:
        dropped |= {b"host"}
    if dropped or not _DROPPED_FROM_REQUESTS.isdisjoint(fields.names) or _is_suspect(b" ".join(fields.names)):
        section = fields.without(_unwanted(head, underscores) | dropped)
    ours = b"X-Forwarded-Host: %b\r\n" % head.host if head.host and not says_host else b""
    if head.body is BodyKind.CHUNKED and fields.first(b"transfer-encoding") != b" chunked":
        # In other cases or blanks than everybody's, an app might not see the framing that we saw.
        section = fields.without(_unwanted(head, underscores) | dropped | {b"transfer-encoding"})
        ours += b"Transfer-Encoding: chunked\r\n"
    if host or b"host" not in fields.names:
        # Only HTTP/1.0 may leave it out; towards the app we speak 1.1.
        section = b"Host: %b\r\n%b" % (host or head.host or DEFAULT_HOST, section)
    if head.upgrade:
        ours += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % b", ".join(head.upgrade)
    elif accepts_trailers(head):
        ours += b"Connection: TE\r\nTE: trailers\r\n"
    return section + forwarding + ours


def _is_suspect(names: bytes) -> bool:
    """
    Whether joined names may hold a family of claims, or a character that an application server takes for a hyphen.

    A quick look, on the path of every request: it may be wrong in this direction only.
    """
    if names.translate(None, _USUAL_AND_BLANK):
        return True
    for part in _IN_FAMILIES:  # noqa: SIM110 - a generator costs more (bench row `requests-varied`)
        if part in names:
            return True
    return False


def _unwanted(head: RequestHead, underscores: UnderscoreHeaders) -> set[bytes]:
    unwanted = set(head.options) - _NEVER_NOMINATED | _DROPPED_FROM_REQUESTS
    if underscores is not UnderscoreHeaders.ALLOW:
        unwanted.update(name for name in head.fields.names if b"_" in name)
    for name in head.fields.names:
        plain = name.translate(_AS_HYPHEN)
        if plain.startswith(_CLAIM_FAMILIES) or (plain != name and plain in _NEVER_IN_OTHER_SPELLINGS):
            unwanted.add(name)
    return unwanted


def request_id_line(request_id: bytes) -> bytes:
    """Return the field line that names a request; *request_id* is visible ASCII."""
    return b"X-Request-Id: %b\r\n" % request_id


def response_section(head: ResponseHead, kind: BodyKind, request_minor_version: int, keep_alive: bool) -> bytes:
    """
    Return the header section for the client.

    Args:
        head: What the app sent.
        kind: Framing towards the client; differs from the app's where that was UNTIL_CLOSE or the client speaks 1.0.
        request_minor_version: Of the client.
        keep_alive: Whether the client's connection goes on afterwards.
    """
    fields = head.fields
    section = fields.section
    unwanted: set[bytes] | frozenset[bytes] | None = None
    if not _HOP_BY_HOP.isdisjoint(fields.names):
        unwanted = _HOP_BY_HOP | (set(head.options) - _NEVER_NOMINATED)
    if head.status in (101, 204):
        # RFC 9112 section 6: neither has a body, and neither may say that it has one.
        unwanted = (unwanted or frozenset()) | _FRAMING
    elif not request_minor_version:
        unwanted = (unwanted or frozenset()) | _CHUNKS
    if unwanted is not None:
        section = fields.without(unwanted)
    if head.body is BodyKind.UNTIL_CLOSE and kind is BodyKind.CHUNKED:
        section += b"Transfer-Encoding: chunked\r\n"
    if head.status == 101:
        return section + b"Connection: Upgrade\r\nUpgrade: %b\r\n" % b", ".join(fields.values(b"upgrade"))
    if not keep_alive:
        return section + b"Connection: close\r\n"
    if request_minor_version == 0:
        return section + b"Connection: keep-alive\r\n"
    return section


def interim_section(fields: Fields) -> bytes:
    """Return the header section of a 1xx response for the client; like a 204, it has no framing."""
    return fields.without(_HOP_BY_HOP | _FRAMING)


def request_trailer_section(fields: Fields, underscores: UnderscoreHeaders) -> bytes:
    """Return those trailer fields of a request that may be forwarded."""
    unwanted = _unwanted_trailers(fields)
    if underscores is not UnderscoreHeaders.ALLOW:
        unwanted.update(name for name in fields.names if b"_" in name)
    return fields.without(unwanted)


def response_trailer_section(fields: Fields) -> bytes:
    """Return those trailer fields of a response that may be forwarded to a client which `accepts_trailers`."""
    return fields.without(_unwanted_trailers(fields))


def _unwanted_trailers(fields: Fields) -> set[bytes]:
    unwanted = set()
    for name in fields.names:
        plain = name.translate(_AS_HYPHEN)
        if plain in _NOT_IN_TRAILERS or plain.startswith(_CLAIM_FAMILIES):
            unwanted.add(name)
    return unwanted
