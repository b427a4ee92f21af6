"""Whether clients can get from a certificate of ours to a CA that they trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from sidecar.certs.certificates import called, date
from sidecar.certs.traits import extension, is_authority, is_issued_by, is_self_issued, is_self_signed
from sidecar.doctor.findings import Check, Finding, error, note, ok, warning
from sidecar.doctor.material import Own

_MOST_NAMED = 5


def chain(own: Own, roots: Sequence[x509.Certificate], now: datetime) -> list[Finding]:
    """
    Judge the certificate of *own* with what is sent after it. The order they were given in does not matter: the program
    puts them in order.

    Args:
        own: What is shown.
        roots: CAs that its peers are known to have, beside those of `Own.roots`.
        now: Aware; what intermediates are judged by.
    """
    found = [*_of_issuers(own, now), *_of_its_end(own, roots)]
    if own.extras:
        names = ", ".join(map(called, own.extras[:_MOST_NAMED])) + (", …" if own.extras[_MOST_NAMED:] else "")
        fact = f"{own.source}: certificates that do not belong to the chain of {called(own.leaf)} are not sent: {names}"
        found.append(note(Check.CHAIN, fact, "remove them"))
    if found:
        return found
    return [ok(Check.CHAIN, f"{called(own.leaf)} leads to {_issuer(own.chain[-1] if own.chain else own.leaf)}")]


def _of_issuers(own: Own, now: datetime) -> Iterator[Finding]:
    for issuer in own.chain:
        if not is_authority(issuer):
            fact = (
                f"{own.source}: {called(issuer)} has signed a certificate of the chain and is no CA: clients refuse it"
            )
            yield error(Check.CHAIN, fact, "have the certificate issued by a CA")
        elif not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
            start, end = date(issuer.not_valid_before_utc), date(issuer.not_valid_after_utc)
            fact = f"{own.source}: {called(issuer)} in the chain is valid from {start} to {end} only"
            yield warning(Check.CHAIN, fact, "put the CA's current certificate there; few clients find another way")


def _of_its_end(own: Own, roots: Sequence[x509.Certificate]) -> Iterator[Finding]:
    leaf, last = own.leaf, own.chain[-1] if own.chain else own.leaf
    if own.chain and is_self_signed(last):
        fact = f"{own.source}: the root, {called(last)}, is sent with each handshake, and clients have it anyway"
        yield note(Check.CHAIN, fact, "leave it out: the certificate, then the intermediate CAs")
    elif is_self_issued(leaf):
        fact = f"{own.source}: {called(leaf)} is its own issuer: only clients that were given this very one accept it"
        yield note(Check.CHAIN, fact, "fine behind an ALB, which verifies nothing; else get one from a CA")
    elif (
        not own.chain and _names_its_issuer(leaf) and not any(is_issued_by(leaf, root) for root in (*own.roots, *roots))
    ):
        fact = f"{own.source}: {_issuer(leaf)}, which issued {called(leaf)}, is not with it"
        yield warning(Check.CHAIN, fact, "if that is an intermediate CA, append its certificate: many clients need it")


def _names_its_issuer(leaf: x509.Certificate) -> bool:
    """Whether it says where to fetch its issuer, as those of public CAs do, which come from intermediates."""
    access = extension(leaf, x509.AuthorityInformationAccess) or ()
    return any(description.access_method == AuthorityInformationAccessOID.CA_ISSUERS for description in access)


def _issuer(certificate: x509.Certificate) -> str:
    return repr(certificate.issuer.rfc4514_string())
