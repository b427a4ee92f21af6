"""
Under which conditions a client's certificate is accepted: one immutable snapshot, and how OpenSSL is made to keep it.

`tls.context` puts it into a context; `tls.verify` asks it again when a session is resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate

from sidecar.settings import ClientCertMode, ClientRefusal, CrlPolicy, CrlScope

CRL_GRACE: Final = timedelta(hours=24)
"""How long a revocation list is used after the moment by which the next was promised: CAs are late now and then."""

MAX_DOUBTFUL_CERTIFICATES: Final = 4
MAX_DOUBTFUL_BYTES: Final = 8 * 1024
"""Of a chain that has failed: what a client is still told about in HTTP. A longer one gets an alert."""

_Codes = SSL.X509VerificationCodes
_UNSPECIFIED: Final = 1
"""X509_V_ERR_UNSPECIFIED."""

_CERT_REJECTED: Final = 28
"""X509_V_ERR_CERT_REJECTED, which pyOpenSSL does not name; its alert is bad_certificate."""

_NOT_REVOKED: Final = {CrlScope.LEAF: 0x4, CrlScope.CHAIN: 0x4 | 0x8}
"""X509_V_FLAG_CRL_CHECK for the leaf, X509_V_FLAG_CRL_CHECK_ALL for the rest of its chain."""


@attrs.frozen
class ClientTrust:
    """
    Attributes:
        mode: Whether clients are asked for a certificate.
        anchors: CAs that certificates must come from; intermediates may be among them.
        crls: Revocation lists of those CAs, at most one each; none: nothing is looked up.
        crl_scope: Whether the leaf's list must be there, or one for each CA of the chain.
        crl_policy: What becomes of a list that is over its date by more than `CRL_GRACE`.
        depth: CA certificates between a client's certificate and its root.
        refusal: HTTP: neither a missing nor an invalid certificate ends the handshake. HANDSHAKE: an alert does.
        admits: With HANDSHAKE: whether a verified certificate is authorised; None: each is.
        clock: The time, aware.
    """

    mode: ClientCertMode = ClientCertMode.NONE
    anchors: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = attrs.field(default=(), kw_only=True)
    crl_scope: CrlScope = attrs.field(default=CrlScope.LEAF, kw_only=True)
    crl_policy: CrlPolicy = attrs.field(default=CrlPolicy.FAIL, kw_only=True)
    depth: int = attrs.field(default=10, kw_only=True)
    refusal: ClientRefusal = attrs.field(default=ClientRefusal.HTTP, kw_only=True)
    admits: Callable[[x509.Certificate], bool] | None = attrs.field(default=None, kw_only=True, eq=False)
    clock: Callable[[], datetime] = attrs.field(default=lambda: datetime.now(UTC), kw_only=True, eq=False)

    def revocation_known_until(self, issuer: x509.Name | None = None) -> datetime | None:
        """
        Return the moment from which on a list is too old to judge certificates of *issuer*; None: there is none.

        Every list counts for issuer None, and where the lists of a whole chain are asked for.
        """
        if self.crl_policy is CrlPolicy.WARN:
            return None
        all_count = issuer is None or self.crl_scope is CrlScope.CHAIN
        crls = [crl for crl in self.crls if all_count or crl.issuer == issuer]
        ends = [crl.next_update_utc for crl in crls if crl.next_update_utc is not None]
        return min(ends) + CRL_GRACE if ends else None

    @property
    def crl_flags(self) -> int:
        """What tells OpenSSL whose lists there must be."""
        return _NOT_REVOKED[self.crl_scope]

    def tolerates(self, issuer: x509.Name) -> bool:
        """Whether the list of *issuer*, which is over its date, may still judge."""
        if self.crl_policy is CrlPolicy.WARN:
            return True
        ends = [crl.next_update_utc for crl in self.crls if crl.issuer == issuer and crl.next_update_utc is not None]
        return bool(ends) and self.clock() <= min(ends) + CRL_GRACE

    def what_becomes_of_overdue(self, end: datetime) -> str:
        """Say in words what a revocation list is good for that was to be renewed at *end*."""
        if self.crl_policy is CrlPolicy.WARN:
            return "it is used on (SIDECAR_CRL_POLICY=warn)"
        last = end + CRL_GRACE
        when = f"{last:%Y-%m-%d %H:%M} UTC"
        return f"clients that it judges are refused since {when}" if last < self.clock() else f"it is used until {when}"

    def lists(self, certificate: x509.Certificate) -> bool:
        """Whether *certificate* stands on a list of its issuer."""
        serial = certificate.serial_number
        return any(
            crl.issuer == certificate.issuer and crl.get_revoked_certificate_by_serial_number(serial) is not None
            for crl in self.crls
        )

    def digest(self) -> bytes:
        """What tells sessions made under this trust from those made under another (32 bytes)."""
        rules = (self.mode.value, self.crl_scope.value, self.crl_policy.value, self.refusal.value, self.depth)
        trust = hashlib.sha256(repr(rules).encode())
        for anchor in self.anchors:
            trust.update(anchor.fingerprint(hashes.SHA256()))
        for crl in self.crls:
            trust.update(crl.fingerprint(hashes.SHA256()))
        return trust.digest()


def ask_for_certificate(context: SSL.Context, trust: ClientTrust) -> None:
    """
    Make *context* ask clients for a certificate and verify it under *trust*, whose mode is not NONE.

    The names of the anchors are sent to the client, so that browsers can offer the right certificates.
    """
    store = context.get_cert_store()
    assert store is not None
    for anchor in trust.anchors:
        store.add_cert(X509.from_cryptography(anchor))
        context.add_client_ca(anchor)
    for crl in trust.crls:
        store.add_crl(crl)
    if trust.crls:
        store.set_flags(trust.crl_flags)
    context.set_verify_depth(trust.depth)
    flags = SSL.VERIFY_PEER
    if trust.refusal is ClientRefusal.HANDSHAKE and trust.mode is ClientCertMode.REQUIRED:
        flags |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    callback = _ERROR_CALLBACK if trust.admits is None else _VERIFY_CALLBACK
    _lib.SSL_CTX_set_verify(context._context, flags, callback)
    _trusts[context] = trust


def trust_of(connection: SSL.Connection) -> ClientTrust:
    """Return the trust under which *connection* was made; one that asks for nothing where none was given."""
    return _trusts.get(connection.get_context(), _ASKS_NOTHING)


def refused_certificate(connection: SSL.Connection) -> tuple[int, X509] | None:
    """
    Return why the handshake of *connection* was ended, as an X509_V_ERR number, and the certificate of the client.

    OpenSSL itself forgets the certificate. None: not for its sake.
    """
    shown = _refused.get(connection)
    return None if shown is None else (_first_errors[connection], shown)


_ASKS_NOTHING: Final = ClientTrust()

# -- the callback -----------------------------------------------------------------------------------------------
#
# pyOpenSSL's own wrapper of the verify callback erases the error of every certificate that the callback accepts,
# in the session too. A resumed session would then pass for a verified one. So the callback is set below pyOpenSSL.

_trusts: WeakKeyDictionary[SSL.Context, ClientTrust] = WeakKeyDictionary()
_first_errors: WeakKeyDictionary[SSL.Connection, int] = WeakKeyDictionary()
_refused: WeakKeyDictionary[SSL.Connection, X509] = WeakKeyDictionary()


def _judge(ok: int, store_context: Any) -> int:  # Any: a cffi pointer
    """Say whether OpenSSL is to go on with the handshake: what cannot be judged ends it."""
    connection = _connection_of(store_context)
    try:
        return _judgement(ok, connection, store_context)
    except Exception:  # a certificate that our parser does not take: ValueError, TypeError, more
        return _end(connection, _first_errors.setdefault(connection, _UNSPECIFIED), store_context)


def _connection_of(store_context: Any) -> SSL.Connection:
    index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()
    return SSL.Connection._reverse_mapping[_lib.X509_STORE_CTX_get_ex_data(store_context, index)]


def _judgement(ok: int, connection: SSL.Connection, store_context: Any) -> int:
    """
    Judge one certificate of a chain; the leaf is the last.

    With HTTP refusal OpenSSL is to go on, the first error being kept as the result of the verification. OpenSSL keeps
    the last by itself; but a self-signed certificate that has also expired is foremost self-signed.
    """
    trust = _trusts[connection.get_context()]
    if ok:
        if _lib.X509_STORE_CTX_get_error_depth(store_context):
            return 1  # only the leaf is asked about
        if trust.admits is None or connection in _first_errors or trust.admits(_current(store_context)):
            return 1
        error = _CERT_REJECTED
    else:
        error = _lib.X509_STORE_CTX_get_error(store_context)
        if error == _Codes.ERR_CRL_HAS_EXPIRED and trust.tolerates(_current(store_context).issuer):
            _lib.X509_STORE_CTX_set_error(store_context, _first_errors.get(connection, _Codes.OK))
            return 1
    is_first = connection not in _first_errors
    error = _first_errors.setdefault(connection, error)
    if trust.refusal is ClientRefusal.HTTP and not (is_first and _is_costly(store_context)):
        _lib.X509_STORE_CTX_set_error(store_context, error)
        return 1
    return _end(connection, error, store_context)


def _end(connection: SSL.Connection, error: int, store_context: Any) -> int:
    """End the handshake, and keep what OpenSSL forgets with it."""
    _lib.X509_STORE_CTX_set_error(store_context, error)
    _refused[connection] = _owned(_lib.X509_STORE_CTX_get0_cert(store_context))
    return 0


def _is_costly(store_context: Any) -> bool:
    """
    Whether the chain, of which nothing is to be believed any more, would cost much to go on with.

    OpenSSL would check signatures with whatever keys stand in it, and name constraints, at the client's choice: nobody
    gets that much work for an answer in HTTP. Ordinary chains are two or three certificates of 1 to 2 KB.
    """
    chain = _lib.X509_STORE_CTX_get1_chain(store_context)
    try:
        certificates = [_owned(_lib.sk_X509_value(chain, i)) for i in range(_lib.sk_X509_num(chain))]
    finally:
        for i in range(_lib.sk_X509_num(chain)):
            _lib.X509_free(_lib.sk_X509_value(chain, i))
        _lib.sk_X509_free(chain)
    if len(certificates) > MAX_DOUBTFUL_CERTIFICATES:
        return True
    return sum(len(dump_certificate(FILETYPE_ASN1, each)) for each in certificates) > MAX_DOUBTFUL_BYTES


def _current(store_context: Any) -> x509.Certificate:
    return _owned(_lib.X509_STORE_CTX_get_current_cert(store_context)).to_cryptography()


def _owned(pointer: Any) -> X509:
    _lib.X509_up_ref(pointer)
    return X509._from_raw_x509_ptr(pointer)


def _judge_error(ok: int, store_context: Any) -> int:
    """The same where only errors matter: a good chain costs next to nothing (bench row `connections-mtls`)."""
    return 1 if ok else _judge(ok, store_context)


# They live as long as the module, as OpenSSL keeps their address.
_VERIFY_CALLBACK = _ffi.callback("int (*)(int, X509_STORE_CTX *)", _judge, error=0)
_ERROR_CALLBACK = _ffi.callback("int (*)(int, X509_STORE_CTX *)", _judge_error, error=0)
