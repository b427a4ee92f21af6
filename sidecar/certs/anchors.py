"""
The CAs that client certificates must come from, and the revocation lists that these CAs publish.

A certificate or list that could not do what the operator put it there for is refused: trust is what was meant, or the
program does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from sidecar.certs.certificates import called, certificates, date
from sidecar.certs.forms import parse
from sidecar.certs.items import Contents, Item, Kind
from sidecar.certs.keys import open_keystores
from sidecar.certs.parsing import PARSE_ERRORS, load_crl
from sidecar.certs.passwords import read_password
from sidecar.certs.sources import read
from sidecar.certs.traits import extension, is_authority, is_self_issued
from sidecar.settings import Source

_MAX_NAMED = 5
"""CAs in a message."""

_Warn = Callable[[str], object]


def load_anchors(
    source: Source, now: datetime, *, passphrase: Source | None = None, warn: _Warn | None = None
) -> tuple[x509.Certificate, ...]:
    """
    Load the CAs that client certificates must come from, each once.

    Intermediate CAs may be among them, but a chain always ends at a root, so there must be one that is in date.
    Those that have expired are left out.

    Args:
        source: A value, a file, or a directory with ca.crt or truststore.p12.
        now: Aware; what validity is judged by.
        passphrase: Opens an encrypted PKCS#12 truststore.
        warn: Told, in a sentence, of each CA that is left out.

    Raises:
        MaterialError: With role ``ca`` or ``passphrase``.
    """
    contents = parse(read(source, "ca"))
    if contents.has(Kind.PKCS12):
        own = [] if contents.password is None else [contents.password]
        given = [] if passphrase is None else [read_password(passphrase)]
        contents = open_keystores(contents, [*own, *given])
    anchors = certificates(contents)
    _check_authorities(anchors, contents)
    roots = [anchor for anchor in anchors if is_self_issued(anchor)]
    if not roots:
        fact = f"{contents.name} holds intermediate CAs but no root"
        raise contents.error(fact, "add the self-signed root that they come from")
    newest = max(root.not_valid_after_utc for root in roots)
    if newest < now:
        fact = f"every root CA in {contents.name} has expired, the last on {date(newest)}"
        raise contents.error(fact, "put the current CAs there")
    for anchor in anchors:
        if anchor.not_valid_after_utc < now and warn is not None:
            warn(f"{called(anchor)} in {contents.name} expired on {date(anchor.not_valid_after_utc)} and is left out")
    return tuple(anchor for anchor in anchors if anchor.not_valid_after_utc >= now)


def load_crls(
    source: Source, anchors: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.CertificateRevocationList, ...]:
    """
    Load certificate revocation lists, each signed by one of *anchors*.

    Of several of the same CA and scope, the newest is returned. One whose next update is overdue is returned as well:
    what that means is a matter of policy.

    Args:
        source: A value, a file, or a directory with ca.crl or crl.pem.
        anchors: From `load_anchors`.
        now: Aware; a list from after this moment is refused.

    Raises:
        MaterialError: With role ``crl``.
    """
    contents = parse(read(source, "crl"))
    items = contents.of(Kind.CRL)
    if not items:
        fact = f"{contents.name} holds no certificate revocation list, only: {contents.labels()}"
        raise contents.error(fact, "give what has a -----BEGIN X509 CRL----- block, as the CA publishes it")
    newest: dict[tuple[x509.Certificate, bytes], x509.CertificateRevocationList] = {}
    for number, item in enumerate(items, 1):
        name = _list_name(item, number, contents)
        crl = revocation_list(item, number, contents)
        _check_scope(crl, name, contents)
        signer = _signer(crl, anchors, name, contents)
        if crl.last_update_utc > now:
            fact = f"{name} is not valid until {date(crl.last_update_utc)}, and the clock says {date(now)}"
            raise contents.error(fact, "correct the clock of this machine, or wait")
        known = newest.get((signer, _scope(crl)))
        if known is None or _is_newer(crl, known):
            newest[signer, _scope(crl)] = crl
    return tuple(newest.values())


def revocation_list(item: Item, number: int, contents: Contents) -> x509.CertificateRevocationList:
    """Parse *item*, which is list *number*, from 1, of *contents*; MaterialError with the role of those if damaged."""
    try:
        return load_crl(item.data)
    except PARSE_ERRORS:
        fact = f"{_list_name(item, number, contents)} is damaged or of an unknown kind"
        raise contents.error(fact, "fetch it again from the CA") from None


# -- CAs --------------------------------------------------------------------------------------------------------


def _check_authorities(anchors: Sequence[x509.Certificate], contents: Contents) -> None:
    others = [anchor for anchor in anchors if not is_authority(anchor)]
    if len(others) == len(anchors):
        fact = f"{contents.name} holds no CA certificate: {called(others[0])} is {_kind_of(others[0])}"
        raise contents.error(fact, "give the certificate of the CA that issued it")
    if others:
        fact = f"{called(others[0])} in {contents.name} is not a CA certificate but {_kind_of(others[0])}"
        raise contents.error(fact, "put only the certificates of the CAs there, not those of clients or servers")


def _kind_of(certificate: x509.Certificate) -> str:
    purposes = extension(certificate, x509.ExtendedKeyUsage) or ()
    if ExtendedKeyUsageOID.CLIENT_AUTH in purposes:
        return "a client's"
    return "a server's" if ExtendedKeyUsageOID.SERVER_AUTH in purposes else "one that may not issue others"


# -- revocation lists -------------------------------------------------------------------------------------------

# What OpenSSL heeds. RFC 5280 section 5.2: a list with another critical extension must not be used.
_KNOWN_EXTENSIONS = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_NUMBER,
    ExtensionOID.ISSUING_DISTRIBUTION_POINT,
}


def _list_name(item: Item, number: int, contents: Contents) -> str:
    return f"revocation list {number} in {contents.where(item)}"


def _check_scope(crl: x509.CertificateRevocationList, name: str, contents: Contents) -> None:
    """Refuse lists that would have to be put together with others, which OpenSSL does not do unless told."""
    if extension(crl, x509.DeltaCRLIndicator) is not None:
        fact = f"{name} is a delta: it says only what changed since another list"
        raise contents.error(fact, "give the complete list of this CA")
    point = extension(crl, x509.IssuingDistributionPoint)
    if point is not None and point.indirect_crl:
        fact = f"{name} is indirect: it lists certificates of other CAs than the one that signed it"
        raise contents.error(fact, "give the list that the CA itself signs")
    if point is not None and (point.only_some_reasons or point.only_contains_attribute_certs):
        fact = f"{name} is partial: it leaves out certificates that are revoked for other reasons or of other kinds"
        raise contents.error(fact, "give the complete list of this CA")
    odd = next((one.oid for one in crl.extensions if one.critical and one.oid not in _KNOWN_EXTENSIONS), None)
    if odd is not None:
        fact = f"{name} has a critical extension that is not supported, {odd.dotted_string}"
        raise contents.error(fact, "have the CA issue it without")


def _signer(
    crl: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate], name: str, contents: Contents
) -> x509.Certificate:
    named = [anchor for anchor in anchors if anchor.subject == crl.issuer]
    issuer = repr(crl.issuer.rfc4514_string())
    if not named:
        ours = ", ".join(map(called, anchors[:_MAX_NAMED])) + (", …" if len(anchors) > _MAX_NAMED else "")
        fact = f"{name} is from {issuer}, and the client CAs are {ours or 'none'}"
        raise contents.error(fact, "give the list of a CA that client certificates come from, or add its CA to them")
    signer = next((anchor for anchor in named if _is_signed_by(crl, anchor)), None)
    if signer is None:
        fact = f"{name} is not signed by the client CA {issuer}: it is damaged, or of another CA of the same name"
        raise contents.error(fact, "fetch it again from the CA")
    usage = extension(signer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        fact = f"{name} is signed by {issuer}, whose key usage does not allow that"
        raise contents.error(fact, "have the CA's certificate issued with key usage cRLSign")
    return signer


def _is_signed_by(crl: x509.CertificateRevocationList, anchor: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]  # other kinds raise TypeError
    except PARSE_ERRORS:
        return False


def _is_newer(crl: x509.CertificateRevocationList, other: x509.CertificateRevocationList) -> bool:
    mine, others = extension(crl, x509.CRLNumber), extension(other, x509.CRLNumber)
    if mine is not None and others is not None and mine.crl_number != others.crl_number:
        return mine.crl_number > others.crl_number
    return crl.last_update_utc > other.last_update_utc


def _scope(crl: x509.CertificateRevocationList) -> bytes:
    """What tells apart the parts that a CA may divide its list into: where each is published, and for whom."""
    point = extension(crl, x509.IssuingDistributionPoint)
    return b"" if point is None else point.public_bytes()
