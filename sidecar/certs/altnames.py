"""
Alternative names from what people type, and back: DNS names, IP addresses, e-mail addresses and URIs.

Strict: a name that no peer could match is refused with a sentence for the operator.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from cryptography import x509

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 1123 section 2.1 labels. `_` is not in it, but container names have it and TLS clients match it.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}", re.ASCII | re.IGNORECASE)

# The dot-atom of RFC 5321 section 4.1.2.
_MAILBOX = re.compile(r"(?=.{1,64}\Z)[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)

# RFC 3986 with an authority, which RFC 5280 section 4.2.1.6 wants to be there.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[\w.~%:@\[\]-]+(?:[/?#][\w.~%:@!$&'()*+,;=/?#\[\]-]*)?", re.ASCII)
_MAX_URI = 2048

# SPIFFE ID section 2. The `.` and `..` segments are refused apart.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+", re.ASCII)


def general_name(text: str) -> x509.GeneralName:
    """
    Tell an IP address, a URI, an e-mail address and a DNS name apart.

    Raises:
        ValueError: It is none of them; the message is a sentence.
    """
    if "://" in text:
        return x509.UniformResourceIdentifier(_uri(text))
    address = ip_address(text)
    if address is not None:
        return x509.IPAddress(address)
    if "@" in text:
        return x509.RFC822Name(_email(text))
    return x509.DNSName(_dns_name(text))


def ip_address(text: str) -> IpAddress | None:
    """Parse an IP address; None if *text* is none; ValueError if it has a zone (``fe80::1%eth0``)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{text!r} has a zone, which a certificate cannot carry; leave the zone out")
    return address


def is_host_name(text: str) -> bool:
    """Whether *text* is a DNS name in ASCII, without a wildcard or a dot at its end."""
    return len(text) <= 253 and _DNS_NAME.fullmatch(text) is not None


def name_text(name: x509.GeneralName) -> str:
    """Write *name* as one would type it; ValueError with a sentence if it is of a kind that is not issued here."""
    match name:
        case x509.DNSName() | x509.RFC822Name() | x509.UniformResourceIdentifier():
            return name.value
        case x509.IPAddress(value=ipaddress.IPv4Address() | ipaddress.IPv6Address()):
            return str(name.value)
    kind = type(name).__name__
    raise ValueError(f"a name of the kind {kind} is not issued here; leave it out, or give the names with --name")


def _dns_name(text: str) -> str:
    prefix, host = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    host = _a_labels(host).lower()
    if len(prefix + host) > 253 or not is_host_name(host):
        raise ValueError(
            f"{text!r} is neither a DNS name nor an IP address; write it like api.example.com, *.example.com or "
            "10.0.0.5, without scheme, port or dot at its end"
        )
    if prefix and "." not in host:
        raise ValueError(f"{text!r} would cover a whole top-level domain, which clients refuse; name one level more")
    return prefix + host


def _a_labels(host: str) -> str:
    """
    Turn letters outside of ASCII into the ``xn--`` form.

    The standard library knows IDNA 2003 only. What that maps to something else, such as ß, has another form in
    IDNA 2008 (RFC 5894 section 7.2), so only names that come back unchanged are taken.
    """
    if host.isascii():
        return host
    try:
        encoded = host.encode("idna")
        is_certain = encoded.decode("idna") == unicodedata.normalize("NFC", host).lower()
    except UnicodeError:
        is_certain = False
    if not is_certain:
        raise ValueError(f"{host!r} has no certain xn-- form; write that form")
    return encoded.decode("ascii")


def _uri(text: str) -> str:
    if len(text) > _MAX_URI or not _URI.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is not a URI of at most {_MAX_URI:,} characters; encode it as RFC 3986 says")
    if not text.lower().startswith("spiffe:"):
        return text
    if not _SPIFFE_ID.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError(f"{text!r} is not a SPIFFE ID; write it like spiffe://example.org/ns/prod/api")
    return text


def _email(text: str) -> str:
    mailbox, _, domain = text.rpartition("@")
    if not _MAILBOX.fullmatch(mailbox) or domain.startswith("*"):
        raise ValueError(f"{text!r} is not an e-mail address; write it like alice@example.com")
    return f"{mailbox}@{_dns_name(domain)}"
