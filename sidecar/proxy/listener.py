"""
The listening socket: accept, wrap in TLS, hand to HTTP; count, bound, and let go.

At the connection limit nothing more is accepted: newcomers wait in the kernel's backlog and are served as soon as a
connection ends, which costs them time and us nothing. The same holds, with a pause, when descriptors run out.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

import attrs
from OpenSSL import SSL
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python import failure
from zope.interface import implementer

from sidecar.errors import ListenError
from sidecar.policy.access import Access
from sidecar.policy.authz import NO_CERTIFICATE, Presented
from sidecar.policy.identity_headers import TlsFacts, identity_lines
from sidecar.policy.rewrite import forwarding_fields
from sidecar.proxy import replies
from sidecar.proxy.deadlines import Deadline, Deadlines
from sidecar.proxy.downstream import DRAIN_IDLE_SECONDS, DownstreamConnection, Forwarding
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import SocketTransport
from sidecar.settings import HostPort, IdentityDialect
from sidecar.tls.fastpath import records_for
from sidecar.tls.server import Application, TlsServer
from sidecar.tls.session import TlsSession, read_session, verified_chain
from sidecar.tls.trust import ClientTrust, trust_of
from sidecar.tls.verify import verify_again

JUDGED_PER_TURN: Final = 20

BACKLOG: Final = 4096
"""Connections that wait for us in the kernel, which lowers it to net.core.somaxconn."""

ACCEPTS_PER_TURN: Final = 64
"""A storm of newcomers must not starve those who are served."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long to wait when a connection cannot be accepted for want of descriptors or memory."""

WARNING_PAUSE_SECONDS: Final = 10.0
"""Under a flood the same warning would come with every newcomer."""

_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOTHING_TO_ACCEPT: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})

_HTTP_METHODS: Final = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ")

_WITH_CHAIN: Final = frozenset({IdentityDialect.XFCC, IdentityDialect.CLIENT_CERT})
"""Dialects that show the CAs of a client too."""

_log = Logger()


def listen(address: HostPort) -> socket.socket:
    """
    Open a listening socket.

    Raises:
        ListenError: The address is taken, not ours, or not permitted.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit these: two system calls less for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except (OSError, socket.gaierror) as problem:
        if sock is not None:
            sock.close()
        raise ListenError(f"cannot listen on {address}: {problem.strerror}", _remedy(problem, address)) from None
    return sock


def _remedy(problem: OSError, address: HostPort) -> str:
    if problem.errno == errno.EADDRINUSE:
        return "stop what listens there (`ss -ltnp` names it), or choose another port"
    if problem.errno in (errno.EACCES, errno.EPERM):
        return (
            f"allow it (sysctl net.ipv4.ip_unprivileged_port_start={address.port}, in Kubernetes and ECS a setting of "
            "the pod or task), or choose a port from 1024 up such as 8443 and map 443 to it, or run with "
            "CAP_NET_BIND_SERVICE as root"
        )
    if problem.errno == errno.EADDRNOTAVAIL:
        return "choose an address of this machine, or 0.0.0.0 for all"
    return "give an IP address of this machine and a free port"


class Peer:
    """The socket side of one connection: what its layers need of it besides bytes."""

    __slots__ = ("_patience_seconds", "_tls", "accepted_at", "deadline", "host", "local", "remote", "transport")

    transport: SocketTransport

    def __init__(
        self, remote: HostPort, local: HostPort, tls: TlsServer, deadlines: Deadlines, patience_seconds: float
    ) -> None:
        """
        Args:
            remote, local: Where the client is, and where it connected to.
            patience_seconds: How long a client that takes something of what it is sent may take for more.
        """
        self.host = remote.host
        self.remote = remote
        self.local = local
        self.accepted_at = deadlines.now()
        self.deadline = Deadline(self, deadlines)
        self._tls = tls
        self._patience_seconds = patience_seconds

    def deadline_passed(self) -> None:
        """Whatever the connection waits for has not come, unless the client is slow but steady in taking bytes."""
        if not self.transport.is_flushed and self.transport.has_progressed():
            self.deadline.set(self._patience_seconds)
        else:
            self._tls.deadline_passed()

    def abandon(self) -> None:
        self.transport.abortConnection()

    def pause_reading(self) -> None:
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self.transport.resumeProducing()


def _presented(session: TlsSession) -> Presented:
    """What the client of *session* has shown, as rules judge it."""
    verification = session.verification
    if verification.certificate is None and verification.reason is None:
        return NO_CERTIFICATE
    return Presented(verification.identity, verification.reason.sentence if verification.reason is not None else None)


@implementer(IReadDescriptor)
class Listener:
    """
    Serves TLS on a listening socket.

    Attributes:
        context: What new connections shake hands with; replaced as a whole when key material changes.
        access: Who may use it; replaced together with the context.
        trust: Under which the context verifies clients; likewise.
        address: Where it listens.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: SSL.Context,
        service: Service,
        deadlines: Deadlines,
        access: Access,
        trust: ClientTrust,
        reactor: Any,
    ) -> None:
        self.context = context
        self.access = access
        self.trust = trust
        host, port = sock.getsockname()[:2]
        self.address = HostPort(host, port)
        self._socket = sock
        self._service = service
        self._metrics = service.metrics
        self._deadlines = deadlines
        self._reactor = reactor
        self._peers: dict[TlsServer, Peer] = {}
        self._is_accepting = False
        self._resume_call: Any = None
        self._noted_at: dict[str, float] = {}  # what -> when it was last logged
        self._closed = False
        self._bytes_received = self._bytes_sent = 0  # of connections that are gone

    # -- life --

    def start(self) -> None:
        """Accept connections."""
        if not self._is_accepting and not self._closed:
            self._is_accepting = True
            self._reactor.addReader(self)

    def stop(self) -> None:
        """
        Accept no more, and let every connection end after what is in flight.

        Who has connected already, as far as the kernel is concerned, is still let in: closing would reset them.
        """
        if self._closed:
            return
        self._accept(BACKLOG)
        self._pause()
        self._closed = True
        if self._resume_call is not None and self._resume_call.active():
            self._resume_call.cancel()
        self._socket.close()
        for tls in list(self._peers):
            if isinstance(tls.application, DownstreamConnection):
                tls.application.drain()
        if self._peers:
            self._reactor.callLater(DRAIN_IDLE_SECONDS, self._end_silent)

    def _end_silent(self) -> None:
        """End what was connected in advance, as browsers and balancers do: nothing was on its way."""
        for tls in list(self._peers):
            if tls.is_silent:
                tls.abort()

    def end_all(self) -> int:
        """End every connection now; return how many had something in flight."""
        cut = 0
        for tls in list(self._peers):
            application = tls.application
            if isinstance(application, DownstreamConnection):
                cut += not application.is_idle
                application.end()
            else:
                tls.abort()
        return cut

    @property
    def open_connections(self) -> int:
        return len(self._peers)

    def open(self) -> Iterator[tuple[Peer, DownstreamConnection | None]]:
        """Yield what is open, the oldest first, each with what speaks on it once the handshake is done."""
        for tls, peer in self._peers.items():
            yield peer, tls.application if isinstance(tls.application, DownstreamConnection) else None

    def bytes_moved(self) -> tuple[int, int]:
        """Return how much was received from and sent to clients, since start."""
        transports = [peer.transport for peer in self._peers.values()]
        received = self._bytes_received + sum(transport.bytes_received for transport in transports)
        return received, self._bytes_sent + sum(transport.bytes_sent for transport in transports)

    # -- called by the reactor --

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "listener"

    def connectionLost(self, reason: failure.Failure) -> None:
        """Only the reactor's own shutdown ends up here."""
        self._is_accepting = False

    def doRead(self) -> None:
        self._accept(ACCEPTS_PER_TURN)
        if len(self._peers) >= self._service.limits.connections:
            self._note(
                "max_connections",
                "{count} connections are open, the limit (SIDECAR_MAX_CONNECTIONS): newcomers wait",
                count=len(self._peers),
            )
            self._pause()

    def _accept(self, at_most: int) -> None:
        for _ in range(min(at_most, self._service.limits.connections - len(self._peers))):
            try:
                sock, address = self._socket.accept()
            except OSError as problem:
                if problem.errno in _OUT_OF_RESOURCES:
                    self._back_off(problem)
                    return
                if problem.errno in _NOTHING_TO_ACCEPT:
                    return
                continue  # that one client is gone again (ECONNABORTED and its like)
            try:
                self._accepted(sock, address)
            except OSError as problem:  # no room in the poller
                sock.close()
                self._back_off(problem)
                return

    def _accepted(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        sock.setblocking(False)
        tls = TlsServer(records_for(self.context), self)
        transport = SocketTransport(sock, tls, self._reactor)
        remote = HostPort(address[0].removeprefix("::ffff:"), address[1])
        peer = Peer(remote, self.address, tls, self._deadlines, self._service.timeouts.body)
        self._peers[tls] = peer
        peer.transport = tls.transport = transport
        peer.deadline.set(self._service.timeouts.handshake)
        self._metrics.connections += 1
        self._metrics.connections_active += 1

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._reactor.removeReader(self)

    def _back_off(self, problem: OSError) -> None:
        self._note(
            "no_resources",
            "cannot accept connections: {why}; trying again in {pause:g} s",
            why=os.strerror(problem.errno or 0),
            pause=ACCEPT_PAUSE_SECONDS,
        )
        self._pause()
        self._resume_call = self._reactor.callLater(ACCEPT_PAUSE_SECONDS, self.start)

    def _note(self, key: str, text: str, **values: object) -> None:
        """Log what may happen with every newcomer, each *key* not more often than anybody reads it."""
        now = self._reactor.seconds()
        if now - self._noted_at.get(key, -math.inf) >= WARNING_PAUSE_SECONDS:
            self._noted_at[key] = now
            _log.warn(text, **values)

    # -- tls.server.Acceptor --

    def judge_all_again(self) -> None:
        """
        Look at the clients of all open connections again, under the `trust` and the `access` in force now.

        A few in a turn: a verification takes some 200 us, and others are waiting to be served. Handshakes that are
        under way are looked at when they are done.
        """
        self._judge_next([tls for tls, _ in self._served()])

    def judge_expired_again(self) -> None:
        """The same for those whose certificate has run out since; for all, once a revocation list is too old."""
        now, known_until = self.trust.clock(), self.trust.revocation_known_until()
        if known_until is not None and now > known_until:
            self.judge_all_again()
            return
        moment = now.timestamp()
        for tls, application in self._served():
            verification = application.session.verification
            if verification.is_accepted and verification.identity and verification.identity.not_after < moment:
                self._judge(tls, application)

    def _judge_next(self, waiting: list[TlsServer]) -> None:
        for _ in range(min(JUDGED_PER_TURN, len(waiting))):
            tls = waiting.pop()
            if isinstance(tls.application, DownstreamConnection):
                self._judge(tls, tls.application)
        if waiting:
            self._reactor.callLater(0, self._judge_next, waiting)

    def _judge(self, tls: TlsServer, application: DownstreamConnection) -> None:
        try:
            self._judge_again(tls, application)
        except Exception:  # of one client; it must not keep the others from being looked at
            _log.failure("a client could not be looked at again; its connection is closed")
            tls.abort()

    def _judge_again(self, tls: TlsServer, application: DownstreamConnection) -> None:
        session = self._verified_again(tls.connection, application.session)
        presented = _presented(session)
        forwarding = self._forwarding(application.peer.host, tls.connection, session, presented)
        application.judge_again(session, self.access.admit(presented), forwarding)

    def _verified_again(self, connection: SSL.Connection, session: TlsSession) -> TlsSession:
        verification = verify_again(connection, session.verification, self.trust)
        return session if verification is session.verification else attrs.evolve(session, verification=verification)

    def _served(self) -> list[tuple[TlsServer, DownstreamConnection]]:
        return [(tls, tls.application) for tls in self._peers if isinstance(tls.application, DownstreamConnection)]

    def established(self, tls: TlsServer, connection: SSL.Connection) -> Application:
        session = read_session(connection)
        self._metrics.handshake_done(session.version, resumed=session.resumed)
        if trust_of(connection) is not self.trust:  # it came before a reload
            session = self._verified_again(connection, session)
        peer, presented = self._peers[tls], _presented(session)
        forwarding = self._forwarding(peer.host, connection, session, presented)
        admission = self.access.admit(presented)
        return DownstreamConnection(tls, peer, self._service, session, forwarding=forwarding, admission=admission)

    def _forwarding(
        self, host: str, connection: SSL.Connection, session: TlsSession, presented: Presented
    ) -> Forwarding:
        common = forwarding_fields(host, self.address.port)
        if not self.access.dialects:
            return Forwarding(common, common)
        named = self._identity_fields(connection, session, presented)
        return Forwarding(common + named, common + self._identity_fields(connection, session, NO_CERTIFICATE))

    def _identity_fields(self, connection: SSL.Connection, session: TlsSession, presented: Presented) -> bytes:
        """Return the fields that tell the app who the client is."""
        dialects = self.access.dialects
        facts = TlsFacts(
            version=session.version,
            cipher=session.cipher,
            group=session.group,
            server_name=session.server_name,
            resumed=session.resumed,
        )
        wants_chain = not dialects.isdisjoint(_WITH_CHAIN) and presented.verified is not None
        lines = identity_lines(
            dialects,
            presented,
            facts,
            certificate=session.verification.der,
            chain=verified_chain(connection) if wants_chain else (),
        )
        for what in lines.left_out:
            self._note(what, "an app is not told all of a client: {what}", what=what)
        return lines.section

    def handshake_failed(self, tls: TlsServer, reason: str, message: str) -> None:
        peer = self._peers[tls]
        peer.deadline.set(1.0)  # for the alert to be read
        self._service.rejecter.handshake_failed(peer.host, tls, reason, message)

    def plaintext_reply(self, data: bytes) -> bytes:
        if not data.startswith(_HTTP_METHODS):
            return b""
        status, message = replies.REPLIES["plain_http"]
        self._metrics.count(status, "plain_http")
        return replies.render(status, "plain_http", message)

    def closed(self, tls: TlsServer) -> None:
        peer = self._peers.pop(tls)
        peer.deadline.end()
        self._bytes_received += peer.transport.bytes_received
        self._bytes_sent += peer.transport.bytes_sent
        self._metrics.connections_active -= 1
        if not self._is_accepting and len(self._peers) < self._service.limits.connections:
            self.start()
