"""
What OpenSSL found out about a client's certificate, as our own values.

OpenSSL checks the chain, the dates and the purpose inside the handshake but never ends it for them (see
`tls.context`): the proxy reads the result here, once, and answers over HTTP. Decisions look at X509_V_ERR numbers,
never at OpenSSL's text.
"""

from __future__ import annotations

import enum
import functools
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL._util import lib as _lib
from OpenSSL.crypto import (
    FILETYPE_ASN1,
    X509,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    dump_certificate,
)

from sidecar.policy.identity import PeerIdentity, identity_of
from sidecar.settings import ClientCertMode, CrlScope
from sidecar.tls.trust import ClientTrust, refused_certificate

_Codes = SSL.X509VerificationCodes


class VerifyReason(enum.Enum):
    """Why a client certificate was not accepted. The value is the token for logs and metrics."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_CA = "unknown_ca"
    SELF_SIGNED = "self_signed"
    WRONG_PURPOSE = "wrong_purpose"
    REVOKED = "revoked"
    CHAIN_TOO_LONG = "chain_too_long"
    BAD_SIGNATURE = "bad_signature"
    TOO_WEAK = "too_weak"
    NO_CRL = "no_crl"
    CRL_OVERDUE = "crl_overdue"
    CRL_INVALID = "crl_invalid"
    CLIENT_NOT_AUTHORIZED = "client_not_authorized"
    INVALID = "invalid"

    @property
    def sentence(self) -> str:
        """The reason for people, fit for a response body: no names, no punctuation at the end."""
        return _SENTENCES[self]


_SENTENCES = {
    VerifyReason.EXPIRED: "the client certificate or one of its issuers has expired",
    VerifyReason.NOT_YET_VALID: "the client certificate or one of its issuers is not valid yet",
    VerifyReason.UNKNOWN_CA: "the client certificate does not come from a CA that is trusted here",
    VerifyReason.SELF_SIGNED: "the client certificate is self-signed and not trusted here",
    VerifyReason.WRONG_PURPOSE: "the client certificate is not for client authentication",
    VerifyReason.REVOKED: "the client certificate has been revoked",
    VerifyReason.CHAIN_TOO_LONG: "the chain of the client certificate is too long",
    VerifyReason.BAD_SIGNATURE: "the client certificate or one of its issuers has a wrong signature",
    VerifyReason.TOO_WEAK: "the client certificate or one of its issuers has too weak a key or signature",
    VerifyReason.NO_CRL: "there is no revocation list here for the CA of the client certificate",
    VerifyReason.CRL_OVERDUE: "the revocation list for the client certificate is out of date",
    VerifyReason.CRL_INVALID: "the revocation list for the client certificate is not valid",
    VerifyReason.CLIENT_NOT_AUTHORIZED: "the client certificate is not allowed here",
    VerifyReason.INVALID: "the client certificate is not valid",
}

# Every number that is not here is INVALID.
_REASONS = {
    _Codes.ERR_CERT_HAS_EXPIRED: VerifyReason.EXPIRED,
    _Codes.ERR_CERT_NOT_YET_VALID: VerifyReason.NOT_YET_VALID,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: VerifyReason.UNKNOWN_CA,
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: VerifyReason.UNKNOWN_CA,
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: VerifyReason.UNKNOWN_CA,
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: VerifyReason.UNKNOWN_CA,
    _Codes.ERR_CERT_UNTRUSTED: VerifyReason.UNKNOWN_CA,
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: VerifyReason.SELF_SIGNED,
    _Codes.ERR_INVALID_PURPOSE: VerifyReason.WRONG_PURPOSE,
    _Codes.ERR_CERT_REVOKED: VerifyReason.REVOKED,
    _Codes.ERR_CERT_CHAIN_TOO_LONG: VerifyReason.CHAIN_TOO_LONG,
    _Codes.ERR_PATH_LENGTH_EXCEEDED: VerifyReason.CHAIN_TOO_LONG,
    _Codes.ERR_CERT_SIGNATURE_FAILURE: VerifyReason.BAD_SIGNATURE,
    _Codes.ERR_UNABLE_TO_GET_CRL: VerifyReason.NO_CRL,
    _Codes.ERR_CRL_HAS_EXPIRED: VerifyReason.CRL_OVERDUE,
    _Codes.ERR_CRL_NOT_YET_VALID: VerifyReason.CRL_INVALID,
    _Codes.ERR_CRL_SIGNATURE_FAILURE: VerifyReason.CRL_INVALID,
    _Codes.ERR_CERT_REJECTED: VerifyReason.CLIENT_NOT_AUTHORIZED,
    # X509_V_ERR_EE_KEY_TOO_SMALL, _CA_KEY_TOO_SMALL and _CA_MD_TOO_WEAK, which pyOpenSSL does not name.
    66: VerifyReason.TOO_WEAK,
    67: VerifyReason.TOO_WEAK,
    68: VerifyReason.TOO_WEAK,
}


@attrs.frozen
class Verification:
    """
    A client's certificate and what is wrong with it.

    Attributes:
        certificate: What the client showed, accepted or not. None: it showed none, or was not asked, or (with the
            reason INVALID) what it showed cannot be read.
        reason: Why it was not accepted. None: it was, or there is none. To be looked at first.
        identity: What the certificate says of its holder; None without one.
    """

    certificate: x509.Certificate | None
    reason: VerifyReason | None
    identity: PeerIdentity | None = None

    @property
    def is_accepted(self) -> bool:
        """There is a certificate, and nothing is wrong with it."""
        return self.certificate is not None and self.reason is None

    @property
    def der(self) -> bytes:
        """The certificate in DER; b"" without one."""
        return b"" if self.certificate is None else self.certificate.public_bytes(Encoding.DER)


NO_CERTIFICATE = Verification(certificate=None, reason=None)


def verification(connection: SSL.Connection, trust: ClientTrust) -> Verification:
    """
    Read what OpenSSL found out about the client's certificate.

    A resumed session keeps the result of its original handshake. OpenSSL does not look at any date again, and a
    TLS 1.3 client can resume from ticket to ticket without end, so the leaf's last day and the age of the revocation
    lists are checked here then.

    Args:
        connection: Its handshake is done. Costs a parse of the certificate, so it is read once, and only when the
            context asks for certificates.
        trust: Under which it was made.
    """
    shown = connection.get_peer_certificate()
    if shown is None:
        return NO_CERTIFICATE
    try:
        certificate, identity = _read(shown)
    except Exception:  # OpenSSL parses more leniently, and the peer chooses the bytes: ours, ValueError, TypeError…
        return Verification(None, VerifyReason.INVALID)
    code = _verify_result(connection)
    if code != _Codes.OK:
        return Verification(certificate, reason_of(code), identity)
    if is_resumed(connection):
        now, known_until = trust.clock(), trust.revocation_known_until(certificate.issuer)
        if now > _chain_ends.get(identity.sha256, certificate.not_valid_after_utc):
            return Verification(certificate, VerifyReason.EXPIRED, identity)
        if known_until is not None and now > known_until:
            return Verification(certificate, VerifyReason.CRL_OVERDUE, identity)
    elif identity.sha256 not in _chain_ends:
        _remember_end(connection, identity)
    return Verification(certificate, None, identity)


_MAX_CHAIN_ENDS: Final = 4096
_chain_ends: OrderedDict[str, datetime] = OrderedDict()
"""When the first certificate of a client's chain ends, by the client's SHA-256: a resumed session has no chain."""


def _remember_end(connection: SSL.Connection, identity: PeerIdentity) -> None:
    chain = connection.get_verified_chain(as_cryptography=True) or []
    if chain:
        _chain_ends[identity.sha256] = min(certificate.not_valid_after_utc for certificate in chain)
        if len(_chain_ends) > _MAX_CHAIN_ENDS:
            _chain_ends.popitem(last=False)


def verify_again(connection: SSL.Connection, earlier: Verification, trust: ClientTrust) -> Verification:
    """
    Judge the certificate of an established *connection* under the *trust* in force now, or at the time it is now.

    What was refused once stays refused: a new handshake may change that. Of a resumed session OpenSSL no longer has
    the intermediates that the client showed: one whose issuer is not an anchor itself is UNKNOWN_CA then, and gets
    through with a new handshake, too.

    Args:
        earlier: What was found out before; returned as it is where there is no certificate.
    """
    certificate = earlier.certificate
    if certificate is None or earlier.reason is not None or trust.mode is ClientCertMode.NONE:
        return earlier
    try:
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
    except Exception:  # as in `read_verification`: the client may append what only OpenSSL can read
        return attrs.evolve(earlier, reason=VerifyReason.INVALID)
    code = _verify_chain(certificate, chain, trust, with_lists=bool(trust.crls))
    if code == _Codes.ERR_CRL_HAS_EXPIRED and trust.tolerates(certificate.issuer):
        code = _verify_chain(certificate, chain, trust, with_lists=False)
        if code == _Codes.OK:
            code = _look_up(certificate, chain, trust)
    return attrs.evolve(earlier, reason=None if code == _Codes.OK else reason_of(code))


def _look_up(certificate: x509.Certificate, chain: Sequence[x509.Certificate], trust: ClientTrust) -> int:
    """Look by ourselves whether lists, one of which OpenSSL takes for too old, speak of a certificate."""
    issuers = {crl.issuer for crl in trust.crls}
    looked_at = (certificate, *chain) if trust.crl_scope is CrlScope.CHAIN else (certificate,)
    if any(each.issuer not in issuers for each in looked_at):
        return cast(int, _Codes.ERR_UNABLE_TO_GET_CRL)
    return cast(int, _Codes.ERR_CERT_REVOKED if any(map(trust.lists, looked_at)) else _Codes.OK)


_PURPOSE_CLIENT: Final = 1
"""X509_PURPOSE_SSL_CLIENT."""


def _verify_chain(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], trust: ClientTrust, *, with_lists: bool
) -> int:
    """Return an X509_V_ERR number, X509_V_OK if nothing is wrong."""
    store = X509Store()
    store.set_time(trust.clock())
    _lib.X509_STORE_set_purpose(store._store, _PURPOSE_CLIENT)
    for anchor in trust.anchors:
        store.add_cert(X509.from_cryptography(anchor))
    if with_lists:
        for crl in trust.crls:
            store.add_crl(crl)
        store.set_flags(trust.crl_flags)
    context = X509StoreContext(store, X509.from_cryptography(certificate), [*map(X509.from_cryptography, chain)])
    try:
        context.verify_certificate()
    except X509StoreContextError as error:
        return cast(int, error.errors[0])
    return cast(int, _Codes.OK)


def refused_verification(connection: SSL.Connection) -> Verification | None:
    """Return what ended the handshake of *connection*, if it was the client's certificate."""
    refused = refused_certificate(connection)
    if refused is None:
        return None
    code, shown = refused
    try:
        certificate, identity = _read(shown)
        return Verification(certificate, reason_of(code), identity)
    except Exception:  # as above
        return Verification(None, reason_of(code))


def reason_of(code: int) -> VerifyReason:
    """Translate the X509_V_ERR number *code*, which is not X509_V_OK."""
    return _REASONS.get(code, VerifyReason.INVALID)


def _read(shown: X509) -> tuple[x509.Certificate, PeerIdentity]:
    """Parse a certificate, wholly; clients come again and again with the same (bench row `connections-mtls`)."""
    der = dump_certificate(FILETYPE_ASN1, shown)
    return _read_known(der) if len(der) <= _MAX_KNOWN_BYTES else _read_new(der)


def _read_new(der: bytes) -> tuple[x509.Certificate, PeerIdentity]:
    certificate = x509.load_der_x509_certificate(der)
    return certificate, identity_of(certificate)


_MAX_KNOWN_BYTES: Final = 8 * 1024
_read_known = functools.lru_cache(maxsize=256)(_read_new)
"""What it remembers is at most some 4 MiB, whoever the clients are."""


# pyOpenSSL has no public call for either of these two (26.4).


def _verify_result(connection: SSL.Connection) -> int:
    return cast(int, _lib.SSL_get_verify_result(connection._ssl))


def is_resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake of *connection*, now done, resumed an earlier session."""
    return cast(int, _lib.SSL_session_reused(connection._ssl)) == 1
