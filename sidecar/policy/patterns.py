"""
What may stand behind the ``=`` of a matcher's term, field by field, and which names it fits.

A pattern is text in which `WILD` stands for the wildcard, so that a literal ``*`` is only that; NUL can do it because
no text with control characters gets here, and no name with one is ever compared. Wildcards are compared piece by
piece from the left, without going back, so that no name can make it slow. There are no regular expressions: they
match too much when a dot is not escaped or an anchor forgotten, and some take for ever (ReDoS).

Names are compared by code points, without Unicode normalisation: letters that look alike are different letters, and
only ASCII letters have a case, as the Kelvin sign would be a ``k`` otherwise.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

import attrs

from sidecar.errors import SidecarError
from sidecar.policy.identity import PURPOSES, PeerIdentity
from sidecar.values import Value

WILD: Final = "\0"

Truth = bool | None
"""None: cannot be told."""

Test = Callable[[str], Truth]
"""Whether a name, which has no control characters, fits a pattern."""


class PatternError(SidecarError):
    """
    A text is no pattern of its field.

    Attributes:
        fact: What is wrong with it; it does not quote the text.
        fix: What to write instead.
    """

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix


@attrs.frozen(eq=False, repr=False)
class Field(Value):
    """
    One field that terms can be about.

    Attributes:
        values: Its names in an identity.
        compile: From a pattern to its canonical text and its test; raises PatternError.
        has_wildcards: Patterns may hold `WILD`.
        names_holder: Its names tell one holder from others, in words.
        is_dn: It holds distinguished names, whose commas a list would split: patterns must be quoted.
    """

    values: Callable[[PeerIdentity], tuple[str, ...]]
    compile: Callable[[str], tuple[str, Test]]
    has_wildcards: bool = False
    names_holder: bool = False
    is_dn: bool = False


# -- pieces ------------------------------------------------------------------------------------------------------


def _pieces(pattern: str) -> list[str]:
    return pattern.split(WILD)


def _fits(pieces: list[str], text: str) -> bool:
    """Whether *text* is the *pieces* in order, with anything or nothing between two of them."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, *inner, last = pieces
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in inner:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@attrs.frozen(eq=False, repr=False)
class _Parts(Value):
    """
    Patterns for the parts of a name, one for each.

    Attributes:
        patterns: The pieces of each.
        plain: What a part must look like that a wildcard may stand in; others are matched only when written out.
    """

    patterns: list[list[str]]
    plain: re.Pattern[str]

    def fit(self, parts: list[str]) -> Truth:
        """
        Whether there are as many *parts* as patterns, and each fits its own; None if that cannot be told.

        It cannot where a wildcard would have to stand for what is not plain: whoever reads that name may see another.
        """
        if len(parts) != len(self.patterns) or not all(map(_fits, self.patterns, parts)):
            return False
        wild = (part for pieces, part in zip(self.patterns, parts, strict=True) if len(pieces) > 1)
        return True if all(map(self.plain.fullmatch, wild)) else None


def lower(text: str) -> str:
    """*text* in lower case, if it is ASCII; other text stays as it is."""
    return text.lower() if text.isascii() else text


# -- host names --------------------------------------------------------------------------------------------------

# Letters, digits and hyphens (RFC 1123), and underscores, which service names have. service_identity is of no use
# here: it judges a server, where the certificate has the wildcard and the client the name. Here the rule has the
# wildcard, and a name with a `*` in it is nobody's.
_LABEL: Final = re.compile(r"[a-z0-9_-]+")
_LABEL_PATTERN: Final = re.compile(rf"[a-z0-9_{WILD}-]+")


def compile_dns(pattern: str) -> tuple[str, Test]:
    """
    Compile a host name; a wildcard stands for characters of one label, in any label.

    Raises:
        PatternError: It is no host name.
    """
    canonical = lower(pattern)
    labels = canonical.split(".")
    if not canonical.isascii():
        raise PatternError("a host name has ASCII letters only", "write the form that begins with xn--")
    if not all(map(_LABEL_PATTERN.fullmatch, labels)) or len(canonical) > 253:
        raise PatternError("this is not a host name", "write one like web.example.org or *.example.org")
    parts = _Parts([_pieces(label) for label in labels], _LABEL)

    def test(name: str) -> Truth:
        found = lower(name)
        fits = parts.fit(found.removesuffix(".").split("."))
        # With a final dot it is the same name to the DNS, and another one to many a program.
        return None if fits and found.endswith(".") else fits

    return canonical, test


# -- URIs --------------------------------------------------------------------------------------------------------

# RFC 3986 appendix B, less query and fragment, which count as path. Groups: scheme, authority with its //, path.
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*+):((?://[^/?#]*+)?)(.*)", re.DOTALL)

# Characters that mean themselves in a path segment (RFC 3986 section 3.3). A wildcard stands for nothing else: not for
# the segments `.` and `..`, and not for `%`, `?`, `#` or `\`, behind which another program may see another path.
_SEGMENT: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9\-._~!$&'()*+,;=:@]+")

_REST: Final = WILD + WILD


def _split_uri(text: str) -> tuple[str, str] | None:
    """
    Scheme and authority, which have no case, and the path, which has one; None if it is no URI.

    Percent-encoding stays as it is: SPIFFE IDs have none, and for other URIs programs disagree about what %2F is.
    """
    match = _URI.fullmatch(text)
    return None if match is None else (lower(f"{match[1]}:{match[2]}"), match[3])


def _compile_uri(pattern: str) -> tuple[str, Test]:
    split = _split_uri(pattern)
    if split is None:
        raise PatternError("this is not a URI", "write one like spiffe://example.org/ns/*/sa/web")
    root, path = split
    if WILD in root or "@" in root or not root.isascii():
        fix = "write the trust domain out, as in spiffe://example.org/**"
        raise PatternError("wildcards stand in the path only, and a trust domain is a plain host name", fix)
    segments = path.split("/")
    has_rest = segments[-1] == _REST and len(segments) > 1
    if has_rest:
        del segments[-1]
    if any(_REST in segment for segment in segments):
        raise PatternError("** stands for the rest of the path", "write it at the end, behind a /")
    return root + path, _uri_test(root, segments, has_rest)


def _uri_test(root: str, segments: list[str], has_rest: bool) -> Test:
    parts = _Parts([_pieces(segment) for segment in segments], _SEGMENT)
    count = len(segments)

    def test(name: str) -> Truth:
        split = _split_uri(name)
        if split is None or split[0] != root:
            return False
        found = split[1].split("/")
        rest = found[count:]
        if not has_rest:
            return parts.fit(found)
        fits = parts.fit(found[:count]) if rest else False
        return fits if not fits or all(map(_SEGMENT.fullmatch, rest)) else None

    return test


# -- other alternative names -------------------------------------------------------------------------------------

# RFC 5322 section 3.2.3, dot-atom; a wildcard stands for no quoted local part.
_LOCAL_PART: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+")


def _compile_email(pattern: str) -> tuple[str, Test]:
    local, at, domain = pattern.rpartition("@")
    if not at or not local:
        raise PatternError("this is not a mail address", "write one like ops@example.org or *@example.org")
    canonical_domain, domain_fits = compile_dns(domain)
    parts = _Parts([_pieces(local)], _LOCAL_PART)

    def test(name: str) -> Truth:
        found, at, found_domain = name.rpartition("@")
        local_fits, found_fits = parts.fit([found]) if at else False, domain_fits(found_domain)
        return False if False in (local_fits, found_fits) else None if None in (local_fits, found_fits) else True

    return f"{local}@{canonical_domain}", test


def _compile_ip(pattern: str) -> tuple[str, Test]:
    try:
        network = ipaddress.ip_network(pattern)
    except ValueError:
        raise _no_network(pattern) from None
    canonical = str(network) if network.num_addresses > 1 else str(network.network_address)

    def test(name: str) -> Truth:
        try:
            address = ipaddress.ip_address(name)
        except ValueError:  # the name is a whole network, which a certificate of a CA may have
            return None
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None and mapped in network:
            return None  # the same machine, written so that another program may not see it
        return address in network

    return canonical, test


def _no_network(pattern: str) -> PatternError:
    try:
        meant = ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return PatternError("this is not an address or network", "write one like 192.0.2.7 or 10.0.0.0/8")
    return PatternError("this is an address within a network", f"write {meant} for all of it, or leave out the /")


# -- subject and issuer ------------------------------------------------------------------------------------------


def _compile_text(pattern: str) -> tuple[str, Test]:
    pieces = _pieces(pattern)
    return pattern, lambda name: _fits(pieces, name)


# One attribute and the separator behind it: "," between sets, "+" within one, escaped by a backslash in values.
_ATTRIBUTE: Final = re.compile(r"((?:[^\\,+]|\\.)*+)([,+]?)", re.DOTALL)

_ANYTHING: Final = re.compile(r".*", re.DOTALL)


def _split_dn(text: str) -> list[str]:
    """The attributes and separators of a distinguished name, in order: a wildcard must not reach beyond a value."""
    return [part for match in _ATTRIBUTE.finditer(text) for part in match.groups()]


def _compile_dn(pattern: str) -> tuple[str, Test]:
    split = _split_dn(pattern)
    if "".join(split) != pattern or not all("=" in attribute.partition(WILD)[0] for attribute in split[:-2:2]):
        raise PatternError("this is not a distinguished name", 'write it as in "CN=web,OU=payments,O=Example"')
    parts = _Parts([_pieces(part) for part in split], _ANYTHING)
    return pattern, lambda name: parts.fit(_split_dn(name))


# -- numbers and purposes ----------------------------------------------------------------------------------------

_HEX: Final = re.compile(r"[0-9a-f]+")


def _exactly(text: str) -> tuple[str, Test]:
    return text, lambda name: name == text


def _compile_serial(pattern: str) -> tuple[str, Test]:
    digits = pattern.replace(":", "").lower().lstrip("0") or "0"
    if not _HEX.fullmatch(digits):
        raise PatternError("this is not a serial number", "write hexadecimal digits, with or without colons")
    return _exactly(digits)


def _compile_sha256(pattern: str) -> tuple[str, Test]:
    digits = pattern.replace(":", "").lower()
    if not _HEX.fullmatch(digits) or len(digits) != 64:
        raise PatternError("this is not a SHA-256 value", "write its 64 hexadecimal digits, with or without colons")
    return _exactly(digits)


_PURPOSES_BY_LOWER: Final = {name.lower(): name for name in PURPOSES.values()}
_OID: Final = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*+))++")


def _compile_purpose(pattern: str) -> tuple[str, Test]:
    name = _PURPOSES_BY_LOWER.get(pattern.lower()) or PURPOSES.get(pattern, pattern)
    if name not in PURPOSES.values() and not _OID.fullmatch(name):
        known = ", ".join(PURPOSES.values())
        raise PatternError("this is not a purpose that has a name", f"write one of {known}, or a dotted number")
    return _exactly(name)


# -- the table ---------------------------------------------------------------------------------------------------


def _if_any(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


FIELDS: Final = {
    "dns": Field(lambda who: who.dns, compile_dns, has_wildcards=True, names_holder=True),
    "uri": Field(lambda who: who.uri, _compile_uri, has_wildcards=True, names_holder=True),
    "email": Field(lambda who: who.email, _compile_email, has_wildcards=True, names_holder=True),
    "ip": Field(lambda who: who.ip, _compile_ip),
    "cn": Field(lambda who: who.common_names, _compile_text, has_wildcards=True, names_holder=True),
    "ou": Field(lambda who: who.organizational_units, _compile_text, has_wildcards=True),
    "o": Field(lambda who: who.organizations, _compile_text, has_wildcards=True),
    "subject": Field(lambda who: _if_any(who.subject), _compile_dn, has_wildcards=True, names_holder=True, is_dn=True),
    "issuer": Field(lambda who: _if_any(who.issuer), _compile_dn, has_wildcards=True, is_dn=True),
    "serial": Field(lambda who: _if_any(who.serial), _compile_serial),
    "sha256": Field(lambda who: _if_any(who.sha256), _compile_sha256),
    "spki": Field(lambda who: _if_any(who.spki_sha256), _compile_sha256),
    "eku": Field(lambda who: who.purposes, _compile_purpose),
}

# What a name cannot have and be matched, whatever the pattern: control characters, which different programs cut or
# show differently. In a distinguished name `cryptography` has escaped NUL.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]|\\00")


def is_tainted(name: str) -> bool:
    """Whether a name has a control character, and so can be compared with nothing."""
    return _CONTROL.search(name) is not None
