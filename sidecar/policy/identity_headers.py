"""
What the app is told about its client and the TLS in front of it: field lines, in the dialects that apps know.

Built once per connection, from a certificate that was verified: of any other, an app is told at most that it failed.
What a certificate says was chosen by somebody else, so a value is written only if the dialect has a way to write it in
visible ASCII without touching what its readers split at; otherwise it is left out whole, and the caller told. Nothing
is ever shortened or replaced: half a name is another name.

==============  ==================================================================================================
xfcc            Envoy's X-Forwarded-Client-Cert
client-cert     RFC 9440
x-ssl           as nginx is usually set up, with a SHA-256 fingerprint: nginx's own is SHA-1, which can be forged
x-amzn          as an AWS Application Load Balancer in verify mode
tls             facts of the connection, under the names of nginx's variables
==============  ==================================================================================================

Distinguished names are RFC 4514 strings in which everything but plain characters is a hexadecimal escape (``\\2C`` for
a comma), which section 2.4 allows. A reader that knows no escapes may see an odd value then, never an attribute that
the certificate does not have.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import attrs

from sidecar.policy.authz import Presented
from sidecar.policy.identity import PeerIdentity
from sidecar.settings import IdentityDialect
from sidecar.values import Value

LONGEST_LINE: Final = 8000
"""Bytes. gunicorn refuses fields over 8,190 bytes, Tomcat and Jetty heads over 8 KiB."""

LARGEST_SECTION: Final = 16 * 1024
"""Bytes of all lines together. Node.js refuses heads over 16 KiB."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TlsFacts(Value):
    """
    What a handshake agreed on.

    Attributes:
        version: ``TLSv1.3``.
        cipher: OpenSSL's name of the suite.
        group: Of the key exchange, e.g. ``X25519MLKEM768``; None if unknown.
        server_name: The name that the client asked for; None if none.
        resumed: It continued an earlier session.
    """

    version: str
    cipher: str
    group: str | None = None
    server_name: str | None = None
    resumed: bool


@attrs.frozen(eq=False, repr=False)
class IdentityLines(Value):
    """
    Field lines for the app.

    Attributes:
        section: The lines, each with its CRLF.
        left_out: What is missing from them, for the log: ``X-SSL-Client-Cert: too long``.
    """

    section: bytes
    left_out: tuple[str, ...] = ()


def identity_lines(
    dialects: Collection[IdentityDialect],
    presented: Presented,
    tls: TlsFacts,
    *,
    certificate: bytes = b"",
    chain: Sequence[bytes] = (),
) -> IdentityLines:
    """
    Write what *dialects* have to say, in the order of `IdentityDialect`.

    Args:
        presented: What the client showed, and what it was worth.
        certificate: Its DER; looked at only if it was verified.
        chain: DER of the certificates between it and the root, its issuer first, without itself.
    """
    writer = _Writer()
    identity = presented.verified
    if identity is not None:
        if IdentityDialect.XFCC in dialects:
            _write_xfcc(writer, identity, certificate, chain)
        if IdentityDialect.CLIENT_CERT in dialects:
            _write_client_cert(writer, certificate, chain)
    if IdentityDialect.X_SSL in dialects:
        _write_x_ssl(writer, presented, certificate)
    if identity is not None and IdentityDialect.X_AMZN in dialects:
        _write_x_amzn(writer, identity, certificate)
    if IdentityDialect.TLS in dialects:
        _write_tls(writer, tls)
    return IdentityLines(b"".join(writer.lines), tuple(writer.left_out))


# RFC 9110 section 5.5, without obs-text: visible ASCII, and blanks that are not at the ends.
_VISIBLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*+(?<=[\x21-\x7e]))?")

_TOO_LONG: Final = "too long"
_NOT_WRITABLE: Final = "has characters that cannot be written"
_EMPTY: Final = "empty"


@attrs.define(eq=False, repr=False)
class _Writer:
    """Collects lines up to the limit."""

    lines: list[bytes] = attrs.field(factory=list)
    left_out: list[str] = attrs.field(factory=list)
    room: int = LARGEST_SECTION

    def fits(self, name: str, value: str) -> bool:
        """Whether a line of that value can be added."""
        return len(name) + len(value) + 4 <= min(self.room, LONGEST_LINE)

    def line(self, name: str, value: str | None) -> bool:
        """Add a line if its value is there, visible, and not too long; return whether it was added."""
        if value is None or not _VISIBLE.fullmatch(value):
            self.omit(name, _NOT_WRITABLE if value != "" else _EMPTY)
            return False
        if not self.fits(name, value):
            self.omit(name, _TOO_LONG)
            return False
        line = f"{name}: {value}\r\n".encode("ascii")
        self.room -= len(line)
        self.lines.append(line)
        return True

    def omit(self, name: str, why: str) -> None:
        self.left_out.append(f"{name}: {why}")


# -- the dialects ------------------------------------------------------------------------------------------------

_XFCC: Final = "X-Forwarded-Client-Cert"


def _write_xfcc(writer: _Writer, identity: PeerIdentity, certificate: bytes, chain: Sequence[bytes]) -> None:
    """
    Write one element in Envoy's order. By is not there: it names the proxy by the URI in its certificate, and ours
    need not have one. If all is too long, the certificates go first.
    """
    pairs = dict(_xfcc_pairs(writer, identity, certificate, chain))
    for key in ("Chain", "Cert", "DNS", "URI", "Subject"):
        if writer.fits(_XFCC, ";".join(pairs.values())):
            break
        if pairs.pop(key, None) is not None:
            writer.omit(f"{_XFCC} {key}", _TOO_LONG)
    writer.line(_XFCC, ";".join(pairs.values()))


def _xfcc_pairs(
    writer: _Writer, identity: PeerIdentity, certificate: bytes, chain: Sequence[bytes]
) -> Iterator[tuple[str, str]]:
    """The text for each key: one pair, or several of a key that repeats."""
    yield "Hash", f"Hash={identity.sha256}"
    leaf = _escaped_pem(certificate)
    if leaf:
        yield "Cert", f'Cert="{leaf}"'
    if leaf and chain:
        yield "Chain", f'Chain="{"".join([leaf, *map(_escaped_pem, chain)])}"'  # with the leaf, unlike RFC 9440
    subject = escaped_dn(identity.subject)
    if subject is None:
        writer.omit(f"{_XFCC} Subject", _NOT_WRITABLE)
    else:
        yield "Subject", f'Subject="{subject}"'
    for key, names in (("URI", identity.uri), ("DNS", identity.dns)):
        values = [value for name in names if (value := _xfcc_value(name)) is not None]
        if len(values) < len(names):
            writer.omit(f"{_XFCC} {key}", _NOT_WRITABLE)
        if values:
            yield key, ";".join(f"{key}={value}" for value in values)


def _xfcc_value(name: str) -> str | None:
    """
    In quotes if it has a separator; None if it cannot be written.

    Envoy's documentation says how a quote is escaped, and nothing of a backslash, so neither is written: the next
    reader may not agree where such a value ends.
    """
    if not _VISIBLE.fullmatch(name) or '"' in name or "\\" in name:
        return None
    return f'"{name}"' if any(separator in name for separator in ",;= ") else name


def _write_client_cert(writer: _Writer, certificate: bytes, chain: Sequence[bytes]) -> None:
    """RFC 9440 section 2: byte sequences; the second field, without the leaf, only together with the first."""
    if writer.line("Client-Cert", _byte_sequence(certificate)) and chain:
        writer.line("Client-Cert-Chain", ", ".join(map(_byte_sequence, chain)))


def _write_x_ssl(writer: _Writer, presented: Presented, certificate: bytes) -> None:
    verify = "X-SSL-Client-Verify"
    if not presented.has_certificate:
        writer.line(verify, "NONE")
        return
    identity = presented.verified
    if identity is None:
        reason = presented.flaw or ""
        if not _VISIBLE.fullmatch(reason) or not writer.fits(verify, f"FAILED:{reason}"):
            reason = "invalid"
        writer.line(verify, f"FAILED:{reason}")
        return
    writer.line(verify, "SUCCESS")
    writer.line("X-SSL-Client-S-DN", escaped_dn(identity.subject))
    writer.line("X-SSL-Client-I-DN", escaped_dn(identity.issuer))
    writer.line("X-SSL-Client-Serial", _serial(identity))
    writer.line("X-SSL-Client-Fingerprint", identity.sha256)
    writer.line("X-SSL-Client-Cert", _escaped_pem(certificate))


def _write_x_amzn(writer: _Writer, identity: PeerIdentity, certificate: bytes) -> None:
    prefix = "X-Amzn-Mtls-Clientcert"
    validity = f"NotBefore={_iso8601(identity.not_before)};NotAfter={_iso8601(identity.not_after)}"
    writer.line(f"{prefix}-Serial-Number", _serial(identity))
    writer.line(f"{prefix}-Issuer", escaped_dn(identity.issuer))
    writer.line(f"{prefix}-Subject", escaped_dn(identity.subject))
    writer.line(f"{prefix}-Validity", validity)
    writer.line(f"{prefix}-Leaf", _pem(certificate))


# What a host name can have; the client chose it.
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")


def _write_tls(writer: _Writer, tls: TlsFacts) -> None:
    writer.line("X-SSL-Protocol", tls.version)
    writer.line("X-SSL-Cipher", tls.cipher)
    if tls.group is not None:
        writer.line("X-SSL-Curve", tls.group)
    if tls.server_name is not None:
        writer.line("X-SSL-Server-Name", tls.server_name if _SERVER_NAME.fullmatch(tls.server_name) else None)
    writer.line("X-SSL-Session-Reused", "r" if tls.resumed else ".")


# -- values ------------------------------------------------------------------------------------------------------

# An escaped NUL, another escaped character, and what has no place in visible text or in quotes.
_IN_DN: Final = re.compile(r"(\\00)|\\(.)|([^\x20-\x7e]|[\";<>\\])", re.DOTALL)


def escaped_dn(name: str) -> str | None:
    """
    Write a distinguished name with hexadecimal escapes only (RFC 4514 section 2.4).

    Args:
        name: `PeerIdentity.subject` or `issuer`.

    Returns:
        Visible ASCII and inner blanks, without quotes and semicolons, and with commas between attributes only. None if
        it has what no UTF-8 has.
    """
    try:
        return _IN_DN.sub(_hexadecimal, name)
    except UnicodeEncodeError:
        return None


def _hexadecimal(match: re.Match[str]) -> str:
    nul, escaped, other = match.groups()
    if nul:
        return "\\00"
    return "".join(f"\\{octet:02X}" for octet in (escaped or other).encode("utf-8"))


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = "%0A".join(text[i : i + 64] for i in range(0, len(text), 64))
    return f"-----BEGIN%20CERTIFICATE-----%0A{lines}%0A-----END%20CERTIFICATE-----%0A" if der else ""


def _escaped_pem(der: bytes) -> str:
    """Percent-encoded PEM, as nginx's $ssl_client_escaped_cert and Envoy write it; empty if there is no DER."""
    return _pem(der).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def _byte_sequence(der: bytes) -> str:
    """RFC 8941 section 3.3.5; empty if there is no DER."""
    return f":{base64.b64encode(der).decode('ascii')}:" if der else ""


def _serial(identity: PeerIdentity) -> str | None:
    """Upper-case hexadecimal in whole bytes, as nginx and ALB write it; None for a negative number."""
    digits = identity.serial.upper()
    return digits.zfill(len(digits) + len(digits) % 2) if re.fullmatch("[0-9A-F]+", digits) else None


def _iso8601(moment: float) -> str:
    """Seconds since the epoch as ``2026-01-31T12:00:00Z``. The civil calendar by arithmetic: no clock is imported."""
    days, seconds = divmod(int(moment // 1), 86_400)
    # Years that begin in March have their leap day last; 400 of them have 146,097 days.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = f"{era * 400 + year + (month > 9):04}-{(month + 2) % 12 + 1:02}-{day - (153 * month + 2) // 5 + 1:02}"
    return f"{date}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"


# -- what clients may not claim ----------------------------------------------------------------------------------

CLAIMED_NAMES: Final = frozenset(
    {
        b"client-cert",
        b"client-cert-chain",
        # Tomcat's SSLValve: its names have underscores. ssl-client-cert and the like are a family.
        b"ssl-cipher",
        b"ssl-cipher-usekeysize",
        b"ssl-session-id",
        b"l5d-client-id",  # linkerd
        b"remote-user",
        b"x-remote-user",  # Kubernetes' front proxies
        b"x-remote-group",
        b"x-remote-uid",
        b"x-arr-clientcert",  # Azure App Service
        b"x-arr-ssl",
        b"x-client-verify",
        b"x-client-dn",
        b"x-spiffe-id",
        b"wl-proxy-client-cert",  # WebLogic
        b"wl-proxy-ssl",
    }
)
"""Fields in which some app expects a verified client or facts of TLS: lower case, hyphens for underscores."""

CLAIMED_FAMILIES: Final = (
    b"ssl-client",  # ingress-nginx, Tomcat, Apache
    b"tls-client",
    b"x-amzn-mtls-",
    b"x-amzn-tls-",
    b"x-client-cert",  # Google Cloud, and X-Client-Certificate
    b"x-clientcert",
    b"x-forwarded-client-cert",
    b"x-forwarded-tls-client-cert",  # Traefik
    b"x-remote-extra-",
    b"x-ssl-",
    b"x-tls-",
    b"cf-cert-",  # Cloudflare
    b"cf-client-cert-",
    b"cloudfront-viewer-cert-",
    b"-ws",  # WebSphere's $WSCC and the like: a dollar sign is read as a hyphen here
)
"""The same for all fields whose names begin like that."""
