"""
TLS towards an upstream: a transport for what speaks HTTP or anything else, on top of a socket's transport.

What is written goes out in the same turn; nothing is queued here, so backpressure is the socket's alone. Deadlines are
the owner's, who aborts.

    NEW       -- start() ----------------> HANDSHAKE
    HANDSHAKE -- Finished, verified -----> OPEN
    HANDSHAKE -- anything else ----------> FAILED      also by abortConnection(): then nobody is told
    OPEN      -- shut_down_writing() ----> WE_DONE     after our close_notify; what the upstream sends is delivered
    OPEN      -- close_notify -----------> PEER_DONE   the upstream sends no more, but still reads
    WE_DONE, PEER_DONE -- the other one -> BOTH_DONE
    any of these four -- loseConnection()> CLOSED      after our close_notify
    OPEN, WE_DONE -- end without it -----> CLOSED      as a broken record: what was received must not look complete
    any of these four -- abortConnection()> CLOSED     without ours: what was sent must not look complete
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import attrs
from cryptography import x509
from OpenSSL import SSL
from twisted.python import failure

from sidecar.certs.bundle import Bundle
from sidecar.certs.describe import CertSummary, describe
from sidecar.certs.parsing import PARSE_ERRORS
from sidecar.errors import TlsError
from sidecar.settings import HostPort, TlsPolicy, UnixPath
from sidecar.tls.clientcontext import (
    TlsFailure,
    build_client_context,
    chain_failure,
    has_one_of,
    name_mismatch,
    no_certificate_to_read,
    peer_certificate,
    peer_failure,
    server_name,
)
from sidecar.tls.fastpath import records_on
from sidecar.tls.records import Records
from sidecar.tls.server import SocketStream
from sidecar.tls.verify import is_resumed
from sidecar.topology import UpstreamTls

MAX_HANDSHAKE_BYTES: Final = 64 * 1024
"""
All that an upstream may send until the handshake is complete: a server's chain with the largest keys in use takes
about 10 KB, with post-quantum ones 20, and some send all the roots that they know.
"""

MAX_SESSIONS: Final = 128
"""Endpoints whose sessions are kept. One takes some 10 KB; a server that wants to waste memory can make it 64."""

MAX_SESSION_AGE: Final = timedelta(hours=1)
"""How long a certificate that was verified once is not asked for again."""

_HANDSHAKE_RECORDS: Final = (0x15, 0x16)
"""First byte of what a TLS server can begin with: an alert or a handshake message (RFC 8446 section 5.1)."""

_CLOSED_BOTH_WAYS: Final = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN

Address = HostPort | UnixPath

Established = Callable[[TlsFailure | None], None]

UpstreamMaterial = tuple[Sequence[x509.Certificate] | None, Bundle | None]
"""CAs that certificates of servers must come from, None for those of this system; and our client certificate."""


class StreamProtocol(Protocol):
    """What speaks through the connection."""

    def dataReceived(self, data: bytes) -> None: ...

    def eofReceived(self) -> None:
        """The upstream has said that it will send no more (close_notify). Writing goes on until this side closes."""

    def connectionLost(self, reason: failure.Failure) -> None:
        """
        The connection is gone; called once, last. If it was not this side that closed, and `eofReceived` has not been
        called, what was received may not be all there was.
        """

    def pauseProducing(self) -> None:
        """What was written is stuck: write no more until `resumeProducing`."""

    def resumeProducing(self) -> None: ...


# -- sessions ---------------------------------------------------------------------------------------------------


@attrs.frozen
class _Resumable:
    """A session of a connection that was verified, and the moment from which on it is not to be resumed."""

    session: SSL.Session
    until: datetime


class _Sessions:
    """The last session of each endpoint."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._sessions: OrderedDict[Address, _Resumable] = OrderedDict()

    def offer(self, address: Address) -> _Resumable | None:
        found = self._sessions.get(address)
        if found is not None and found.until <= self._clock():
            del self._sessions[address]
            return None
        return found

    def keep(self, address: Address, connection: SSL.Connection, resumed: _Resumable | None) -> None:
        """Keep the session of *connection*, which was verified; *resumed* is what it was offered."""
        session = connection.get_session()
        until = resumed.until if resumed is not None and is_resumed(connection) else self._end_of(connection)
        if session is None or until is None:
            return
        self._sessions[address] = _Resumable(session, until)
        self._sessions.move_to_end(address)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def drop(self, address: Address) -> None:
        self._sessions.pop(address, None)

    def _end_of(self, connection: SSL.Connection) -> datetime | None:
        """
        OpenSSL looks at no date when it resumes, and from ticket to ticket a session could go on without end: the one
        that began with a whole handshake counts, and its chain.
        """
        try:
            chain = connection.get_verified_chain(as_cryptography=True) or []
            ends = [certificate.not_valid_after_utc for certificate in chain]
        except PARSE_ERRORS:  # OpenSSL parses more leniently
            return None
        return min(self._clock() + MAX_SESSION_AGE, *ends) if ends else None


# -- security ---------------------------------------------------------------------------------------------------


class UpstreamSecurity:
    """How the connections to one cluster are secured: one per cluster and snapshot of key material."""

    def __init__(
        self, context: SSL.Context, tls: UpstreamTls, own: x509.Certificate | None, clock: Callable[[], datetime]
    ) -> None:
        self._context = context
        self._tls = tls
        self._own = own
        self._server_name = tls.sni or next(filter(None, map(server_name, tls.names)), "")
        self._sessions = _Sessions(clock)

    def connect(self, address: Address, protocol: StreamProtocol, established: Established) -> TlsClient:
        """
        Prepare a connection.

        The caller then puts it on a socket and starts it::

            tls = security.connect(address, protocol, established)
            tls.transport = SocketTransport(sock, tls.receiver, reactor)
            tls.start()

        Args:
            address: The endpoint as it is configured: if the cluster has no names, the certificate must be for its
                host.
            protocol: Hears of everything that happens once the connection is established.
            established: Called at most once: with None once the handshake is done and the upstream verified, before
                anything else is heard; or with why it came to nothing. The connection is closed then, and nothing else
                is called.
        """
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        name = self._server_name or server_name(_host_of(address))
        if name:
            connection.set_tlsext_host_name(name.encode())
        resumable = self._sessions.offer(address)
        if resumable is not None:
            connection.set_session(resumable.session)
        endpoint = _Endpoint(address, self._names_for(address), self._tls.verify, self._own, resumable, self._sessions)
        return TlsClient(records_on(connection), endpoint, protocol, established)

    def _names_for(self, address: Address) -> Sequence[str]:
        return self._tls.names or ((_host_of(address),) if isinstance(address, HostPort) else ())


def build_security(
    tls: UpstreamTls,
    material: UpstreamMaterial,
    policy: TlsPolicy,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> UpstreamSecurity:
    """
    Build what secures the connections to a cluster.

    Args:
        tls: As `config` has checked it.
        material: What ``tls.ca``, ``tls.cert`` and ``tls.key`` lead to.
        policy: Versions and suites.
        clock: The time, aware.

    Raises:
        MaterialError: With role ``ca`` or ``cert``.
    """
    anchors, bundle = material
    context = build_client_context(anchors, bundle, policy, verify=tls.verify, alpn=tls.alpn)
    return UpstreamSecurity(context, tls, None if bundle is None else bundle.leaf, clock)


def _host_of(address: Address) -> str:
    return address.host if isinstance(address, HostPort) else ""


@attrs.frozen
class _Endpoint:
    """
    Whom one connection is to lead to.

    Attributes:
        names: Of which its certificate must have one.
        is_verified: Whether it must at all.
        own: Our client certificate.
        resumable: The session that is offered to it.
    """

    address: Address
    names: Sequence[str]
    is_verified: bool
    own: x509.Certificate | None
    resumable: _Resumable | None
    sessions: _Sessions

    def verify(self, connection: SSL.Connection) -> TlsFailure | None:
        """Return what is wrong with the upstream, whose chain OpenSSL has verified."""
        if not self.is_verified:
            return None
        certificate = peer_certificate(connection)
        if certificate is None:
            return no_certificate_to_read()
        return None if has_one_of(certificate, self.names) else name_mismatch(certificate, self.names)

    def explain(self, connection: SSL.Connection, error: TlsError) -> TlsFailure:
        """Return what *error* on *connection* means."""
        found = chain_failure(connection) if self.is_verified else None
        return found or peer_failure(error, connection, self.own)

    def keep_session(self, connection: SSL.Connection) -> None:
        """Have the session of *connection* resumed by the next one to the same endpoint."""
        if self.is_verified:
            self.sessions.keep(self.address, connection, self.resumable)

    def drop_session(self) -> None:
        """Let the next connection to the same endpoint begin anew."""
        self.sessions.drop(self.address)


# -- connections ------------------------------------------------------------------------------------------------


class _State(enum.Enum):
    NEW = "new"
    HANDSHAKE = "handshake"
    FAILED = "failed"
    OPEN = "open"
    WE_DONE = "we done"
    PEER_DONE = "peer done"
    BOTH_DONE = "both done"
    CLOSED = "closed"


_OPEN: Final = _State.OPEN
_BEFORE: Final = (_State.NEW, _State.HANDSHAKE)
_NEVER_OPEN: Final = (_State.NEW, _State.HANDSHAKE, _State.FAILED)
_READABLE: Final = (_State.OPEN, _State.WE_DONE)
_WRITABLE: Final = (_State.OPEN, _State.PEER_DONE)
_AFTER_OUR_END: Final = {_State.OPEN: _State.WE_DONE, _State.PEER_DONE: _State.BOTH_DONE}
_AFTER_PEERS_END: Final = {_State.OPEN: _State.PEER_DONE, _State.WE_DONE: _State.BOTH_DONE}


class _Nobody:
    """Stands above and below where there is nothing yet, or nothing any more."""

    is_open = False
    is_flushed = True
    bytes_received = bytes_sent = 0

    def has_progressed(self) -> bool:
        return False

    def write(self, data: bytes | memoryview) -> None: ...
    def loseConnection(self) -> None: ...
    def shut_down_writing(self) -> None: ...
    def abortConnection(self) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def eofReceived(self) -> None: ...
    def connectionLost(self, reason: failure.Failure) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def read_up_to(self, size: int) -> None: ...


_NOBODY: Final = _Nobody()


class TlsClient:
    """
    One TLS connection to an upstream, with the surface of a socket's transport.

    `connectionLost` of the protocol is called exactly once after ``established(None)``, in a later turn than whatever
    ended the connection, and not at all without it.

    A connection that ends without close_notify is lost: `connectionLost` comes in place of `eofReceived`. HTTP knows of
    a message with a length whether it is complete; one that lasts until the end of the connection could have been cut
    by anybody on the way.

    Attributes:
        protocol: Who is told what happens.
        transport: The socket below; set before `start`, with `receiver` as its protocol.
        last_error: What broke the connection, if anything did; `connectionLost` is given it as a `TlsError`.
    """

    __slots__ = (
        "__weakref__",
        "_endpoint",
        "_established",
        "_has_session_been_kept",
        "_records",
        "_room",
        "_state",
        "last_error",
        "protocol",
        "transport",
    )

    def __init__(
        self, records: Records, endpoint: _Endpoint, protocol: StreamProtocol, established: Established
    ) -> None:
        self._records = records
        self._endpoint = endpoint
        self._established = established
        self._state = _State.NEW
        self._room = MAX_HANDSHAKE_BYTES
        self._has_session_been_kept = False
        self.protocol: StreamProtocol = protocol
        self.transport: SocketStream = _NOBODY
        self.last_error: TlsFailure | None = None

    @property
    def receiver(self) -> Receiver:
        """What the socket's transport reports to."""
        return Receiver(self)

    def start(self) -> None:
        """Say hello to the upstream."""
        assert self._state is _State.NEW
        self._state = _State.HANDSHAKE
        self._shake_hands(b"")

    # -- for whoever speaks --

    @property
    def connection(self) -> SSL.Connection:
        return self._records.connection

    @property
    def peer_certificate(self) -> CertSummary | None:
        """The upstream's certificate, accepted or not; None before it came. Costs a parse."""
        certificate = peer_certificate(self._records.connection)
        return None if certificate is None else describe(certificate)

    @property
    def is_open(self) -> bool:
        """Whether writing makes sense."""
        return self._state in _WRITABLE and self.transport.is_open

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has taken everything written."""
        return self.transport.is_flushed

    @property
    def bytes_received(self) -> int:
        """On the wire, the handshake included."""
        return self.transport.bytes_received

    @property
    def bytes_sent(self) -> int:
        """The same; what the kernel has taken."""
        return self.transport.bytes_sent

    def has_progressed(self) -> bool:
        """Whether the peer has taken some of what was written since this was last asked."""
        return self.transport.has_progressed()

    def write(self, data: bytes) -> None:
        """Encrypt and send *data*."""
        if self._state in _WRITABLE and data:
            try:
                sealed = self._records.seal(data)
            except TlsError as error:
                self._break(error)
                return
            self.transport.write(sealed)

    def shut_down_writing(self) -> None:
        """Tell the upstream that no more will come, once everything written has been sent; go on reading."""
        if self._state in _WRITABLE:
            self._state = _AFTER_OUR_END[self._state]
            self.transport.write(self._records.close())
            self.transport.shut_down_writing()

    def loseConnection(self) -> None:
        """Say that this was all, and close once it has been sent; during the handshake, the same as aborting."""
        if self._state in _NEVER_OPEN:
            self.abortConnection()
            return
        if self._state in _WRITABLE:
            self.transport.write(self._records.close())
        self._state = _State.CLOSED
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Cut the connection so that the upstream cannot take what it has for all there is."""
        self._state = _State.FAILED if self._state in _NEVER_OPEN else _State.CLOSED
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Read no more for now: the upstream will notice."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def read_up_to(self, size: int) -> None:
        """Read at most *size* bytes at once, sealed, while a transfer flows; see `SocketTransport`."""
        self.transport.read_up_to(size)

    # -- from the socket's transport, through `Receiver` --

    def _data_received(self, data: bytes) -> None:
        if self._state is _OPEN or self._state is _State.WE_DONE:
            self._receive(data)
        elif self._state is _State.HANDSHAKE:
            if self._room == MAX_HANDSHAKE_BYTES and data[0] not in _HANDSHAKE_RECORDS:
                self._fail(TlsFailure("not_tls", "the upstream does not answer with TLS; is it plain HTTP there?"))
                return
            self._shake_hands(data)

    def _eof_received(self) -> None:
        if self._state in _BEFORE:
            self._fail(TlsFailure("closed", "the upstream closed the connection during the TLS handshake"))
        elif self._state in _READABLE:
            message = "the upstream ended the connection without close_notify: what it sent may have been cut"
            self._end(TlsFailure("truncated", message))

    def _connection_lost(self, reason: failure.Failure) -> None:
        if self._state in _BEFORE:
            self._fail(TlsFailure("closed", "the connection to the upstream was lost during the TLS handshake"))
        protocol, self.protocol = self.protocol, _NOBODY  # the two keep each other alive no longer
        self._established = _ignore
        if self._state is _State.FAILED:
            return
        self._state = _State.CLOSED
        # Otherwise OpenSSL would let nobody resume the session of a connection that was cut.
        self._records.connection.set_shutdown(_CLOSED_BOTH_WAYS)
        error = self.last_error
        if error is not None:
            reason = failure.Failure(TlsError(error.reason, error.message))  # type: ignore[no-untyped-call]
        protocol.connectionLost(reason)

    def _write_is_stuck(self) -> None:
        if self._state not in _NEVER_OPEN:
            self.protocol.pauseProducing()

    def _write_is_free(self) -> None:
        if self._state not in _NEVER_OPEN:
            self.protocol.resumeProducing()

    # -- inside --

    def _receive(self, data: bytes) -> None:
        try:
            plaintext, has_ended = self._records.open(data)
        except TlsError as error:
            self.transport.write(self._records.take())  # the alert
            self._break(error)
            return
        if not plaintext and not has_ended:
            return
        if not self._has_session_been_kept:
            # With TLS 1.3 what can be resumed comes behind the handshake, and as a rule before any data.
            self._has_session_been_kept = True
            self._endpoint.keep_session(self._records.connection)
        if plaintext:
            self.protocol.dataReceived(plaintext)
        if has_ended and self._state in _READABLE:
            self._state = _AFTER_PEERS_END[self._state]
            self.protocol.eofReceived()

    def _shake_hands(self, data: bytes) -> None:
        records = self._records
        data, behind = data[: self._room], data[self._room :]
        self._room -= len(data)
        try:
            done = records.handshake(data)
        except TlsError as error:
            self.transport.write(records.take())
            self._fail(self._endpoint.explain(records.connection, error))
            return
        if done:
            self._complete(behind)
            return
        self.transport.write(records.take())
        if behind:
            message = f"the upstream sent over {MAX_HANDSHAKE_BYTES:,} bytes in its TLS handshake"
            self._fail(TlsFailure("handshake_too_large", message))

    def _complete(self, behind: bytes) -> None:
        """The handshake is done, but for our last message: whoever has the wrong name does not get it."""
        wrong = self._endpoint.verify(self._records.connection)
        if wrong is not None:
            self._fail(wrong)
            return
        self.transport.write(self._records.take())
        self._state = _OPEN
        was_stuck = not self.transport.is_flushed  # the transport has told of it already
        self._established(None)
        if was_stuck and not self.transport.is_flushed:
            self._write_is_stuck()
        if self._state in _READABLE:
            self._receive(behind)

    def _fail(self, why: TlsFailure) -> None:
        """Give up a handshake. What has been sent is an alert, which the upstream should get to read."""
        self._state = _State.FAILED
        self.last_error = why
        self._endpoint.drop_session()
        if self.transport.is_flushed:
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
        self._established(why)

    def _break(self, error: TlsError) -> None:
        self._endpoint.drop_session()
        self._end(self._endpoint.explain(self._records.connection, error))

    def _end(self, why: TlsFailure) -> None:
        self.last_error = why
        self.abortConnection()


class Receiver:
    """
    A `TlsClient` as the protocol of the socket below it.

    It has both a protocol's and a transport's `pauseProducing`, which mean opposite directions; so there are two.
    """

    __slots__ = ("connectionLost", "dataReceived", "eofReceived", "pauseProducing", "resumeProducing")

    def __init__(self, tls: TlsClient) -> None:
        self.dataReceived = tls._data_received
        self.eofReceived = tls._eof_received
        self.connectionLost = tls._connection_lost
        self.pauseProducing = tls._write_is_stuck
        self.resumeProducing = tls._write_is_free


def _ignore(failure: TlsFailure | None) -> None:
    """Stands for the callback of a connection that is gone."""
