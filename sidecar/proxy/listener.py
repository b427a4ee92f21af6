"""
The listening socket: accept, read the PROXY header, wrap in TLS, hand to HTTP or a tunnel; count, bound, and let go.

Workers accept from one socket. One that has more connections than another leaves newcomers to it for a moment, and
then lets them in: no connection is ever handed over, so none can be lost on the way, and none waits for one worker.

At the connection limit nothing more is accepted: newcomers wait in the kernel's backlog and are served as soon as a
connection ends, which costs them time and us nothing. The same holds, with a pause, when descriptors run out.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import math
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs
from OpenSSL import SSL
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python import failure
from zope.interface import implementer

from sidecar.errors import ListenError
from sidecar.policy.access import Access
from sidecar.policy.authz import NO_CERTIFICATE, Presented
from sidecar.policy.forwarding import NOBODY, Hop, TrustedProxies
from sidecar.policy.identity_headers import TlsFacts, identity_lines
from sidecar.proxy import replies
from sidecar.proxy.deadlines import Deadline, Deadlines
from sidecar.proxy.downstream import DRAIN_IDLE_SECONDS, DownstreamConnection
from sidecar.proxy.h2downstream import Http2Connection
from sidecar.proxy.intake import Forwarding
from sidecar.proxy.plain import PlainServer
from sidecar.proxy.preface import Preface
from sidecar.proxy.proxyheader import field_lines, proxy_header
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import MAX_READ_SIZE, READ_SIZE, SocketTransport
from sidecar.proxy.tunnel import Tunnel
from sidecar.proxy.turnend import TurnEnd
from sidecar.settings import HostPort, IdentityDialect, ListenerMode, ProxyProtocol, ProxyProtocolMissing
from sidecar.tls.context import HTTP2_PROTOCOL
from sidecar.tls.fastpath import records_for
from sidecar.tls.server import Application, TlsServer
from sidecar.tls.session import NO_TLS, TlsSession, read_session, verified_chain
from sidecar.tls.sni import NO_NAMES
from sidecar.tls.trust import ClientTrust, trust_of
from sidecar.tls.verify import verify_again
from sidecar.wire.proxyproto import ProxyHeader

if TYPE_CHECKING:
    from sidecar.proxy.tally import Place

JUDGED_PER_TURN: Final = 20

BACKLOG: Final = 4096
"""Connections that wait for us in the kernel, which lowers it to net.core.somaxconn."""

ACCEPTS_PER_TURN: Final = 64
"""A storm of newcomers must not starve those who are served."""

ACCEPT_PAUSE_SECONDS: Final = 0.1
"""How long to wait when a connection cannot be accepted for want of descriptors or memory."""

PROXY_HEADER_SECONDS: Final = 5.0
"""How long a connection may take to its PROXY header: balancers send it at once."""

ASIDE_SECONDS: Final = 0.001
"""How long newcomers are left to a worker that has fewer connections. It may be busy, or hang."""

ACCEPTS_AFTER_ASIDE: Final = 4
"""How many are let in then, whoever has fewer: enough that nobody waits for long, few enough not to be a burst."""

REFILL_SECONDS: Final = 0.1
MOST_REFILLED: Final = 16
"""
For how long after a connection has ended another may take its place, whoever has fewer, and how many at most: where
clients come and go all the time, to leave them to others costs more than it gives.
"""

WARNING_PAUSE_SECONDS: Final = 10.0
"""Under a flood the same warning would come with every newcomer."""

_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOTHING_TO_ACCEPT: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - looked for, not listened on

_REMEMBERED_CLIENTS: Final = 1024
"""Addresses whose field lines are kept, some 0.3 KB each: few clients make most connections."""

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


Server = TlsServer | PlainServer
"""What a downstream connection's bytes go through."""

Served = DownstreamConnection | Http2Connection | Tunnel
"""What speaks on it."""


@attrs.frozen(kw_only=True)
class Approach:
    """
    How clients come to a listener.

    Attributes:
        name: Of the listener.
        tls: Whether TLS is spoken.
        mode: What is inside.
        proxy_protocol, missing: What connections begin with.
        trusted: Proxies that are believed.
        with_forwarded: Whether the app gets Forwarded too.
    """

    name: str = "ingress"
    tls: bool = True
    mode: ListenerMode = ListenerMode.HTTP
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    missing: ProxyProtocolMissing = ProxyProtocolMissing.SERVE
    trusted: TrustedProxies = NOBODY
    with_forwarded: bool = False


USUAL: Final = Approach()


class Room:
    """
    The connections of all listeners together.

    Attributes:
        taken: How many are open.
    """

    def __init__(self, place: Place | None = None) -> None:
        """
        Args:
            place: Where other workers see how many they are; None: there are no others.
        """
        self.taken = 0
        self._place = place
        self._accepting = 0  # listeners
        self._vacated = 0  # places that were taken a moment ago
        self._vacated_at = -math.inf
        self._waiting: list[Listener] = []

    def open(self) -> None:
        """A listener accepts from now on."""
        self._accepting += 1
        self._tell()

    def shut(self) -> None:
        """A listener accepts no more."""
        self._accepting -= 1
        if self._place is not None and not self._accepting:
            self._place.note_away()

    def enter(self) -> None:
        """A connection has been accepted."""
        self.taken += 1
        if self._vacated:
            self._vacated -= 1
        self._tell()

    def leaves_newcomers(self, now: float) -> bool:
        """Whether another worker has fewer connections, and this one had no more a moment ago."""
        if self._place is None or not self._place.is_fullest():
            return False
        return not self._vacated or now - self._vacated_at > REFILL_SECONDS

    def wait(self, listener: Listener) -> None:
        """Have *listener* started again once a connection has ended."""
        if listener not in self._waiting:
            self._waiting.append(listener)

    def leave(self, now: float) -> None:
        """A connection has ended."""
        self.taken -= 1
        self._vacated = min(self._vacated + 1, MOST_REFILLED) if now - self._vacated_at <= REFILL_SECONDS else 1
        self._vacated_at = now
        self._tell()
        waiting, self._waiting = self._waiting, []
        for listener in waiting:
            listener.start()

    def _tell(self) -> None:
        if self._place is not None and self._accepting:
            self._place.note(self.taken)


class Peer:
    """
    The socket side of one connection: what its layers need of it besides bytes.

    Attributes:
        host: Address of the client.
        remote, local: Where it is, and where it connected to, as far as is known.
        via: Who really connected, if a PROXY header named another; else None.
        proxied: That header.
        preface: Finds out whether there is one; None once that is known.
        accepted_at: Moment on the clock.
    """

    __slots__ = (
        "_patience_seconds",
        "_server",
        "accepted_at",
        "deadline",
        "host",
        "local",
        "preface",
        "proxied",
        "remote",
        "transport",
        "via",
    )

    transport: SocketTransport

    def __init__(
        self, remote: HostPort, local: HostPort, server: Server, deadlines: Deadlines, patience_seconds: float
    ) -> None:
        """
        Args:
            remote, local: Where the client is, and where it connected to.
            patience_seconds: How long a client that takes something of what it is sent may take for more.
        """
        self.host = remote.host
        self.remote = remote
        self.local = local
        self.via: HostPort | None = None
        self.proxied: ProxyHeader | None = None
        self.preface: Preface | None = None
        self.accepted_at = deadlines.now()
        self.deadline = Deadline(self, deadlines)
        self._server = server
        self._patience_seconds = patience_seconds

    def believe(self, header: ProxyHeader) -> None:
        """Take from a PROXY header who the client is; a balancer that speaks for itself names none."""
        self.proxied = header
        if header.source is not None and header.destination is not None:
            self.via = self.remote
            self.remote = HostPort(header.source.host, header.source.port)
            self.local = HostPort(header.destination.host, header.destination.port)
            self.host = self.remote.host

    @property
    def is_known(self) -> bool:
        """Whether `host` is who sends: not if a balancer relays somebody whom it does not name."""
        return self.proxied is None or self.proxied.is_local or self.via is not None

    def deadline_passed(self) -> None:
        """Whatever the connection waits for has not come, unless the client is slow but steady in taking bytes."""
        if self.preface is not None:
            self.preface.deadline_passed()
        elif not self.transport.is_flushed and self.transport.has_progressed():
            self.deadline.set(self._patience_seconds)
        else:
            self._server.deadline_passed()

    def abandon(self) -> None:
        self.transport.abortConnection()

    def pause_reading(self) -> None:
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self.transport.resumeProducing()

    def read_up_to(self, size: int) -> None:
        self.transport.read_up_to(size)


def is_loopback(host: str) -> bool:
    """Whether an address is one by which a machine speaks to itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _presented(session: TlsSession) -> Presented:
    """What the client of *session* has shown, as rules judge it."""
    verification = session.verification
    if verification.certificate is None and verification.reason is None:
        return NO_CERTIFICATE
    return Presented(verification.identity, verification.reason.sentence if verification.reason is not None else None)


@functools.lru_cache(_REMEMBERED_CLIENTS)
def _usual_forwarding(host: str, local_host: str, local_port: int, scheme: str) -> Forwarding:
    """
    What the app is told of a client of which nothing is known but where it is.

    By plain values, which are hashed in C (bench row `connections-full`).
    """
    lines = Hop(peer=host, local=HostPort(local_host, local_port), scheme=scheme).common_lines
    return Forwarding(lines, lines)


@implementer(IReadDescriptor)
class Listener:
    """
    Serves clients of a listening socket.

    Attributes:
        context: What new connections shake hands with; replaced as a whole when key material changes. None: no TLS.
        access: Who may use it; replaced together with the context.
        trust: Under which the context verifies clients; likewise.
        names: Of the certificates in the context; likewise.
        approach: How clients come; for new connections.
        service: What its connections share.
        address: Where it listens.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: SSL.Context | None,
        service: Service,
        deadlines: Deadlines,
        access: Access,
        trust: ClientTrust,
        reactor: Any,
        approach: Approach = USUAL,
        room: Room | None = None,
    ) -> None:
        self.context = context
        self.access = access
        self.trust = trust
        self.names = NO_NAMES
        self.approach = approach
        self._room = room or Room()
        host, port = sock.getsockname()[:2]
        self.address = HostPort(host, port)
        self._socket = sock
        self.service = service
        self._metrics = service.metrics
        self._deadlines = deadlines
        self._reactor = reactor
        self._turns = TurnEnd(reactor)
        self._peers: dict[Server, Peer] = {}
        self._is_accepting = False
        self._resume_call: Any = None
        self._return_call: Any = None
        self._noted_at: dict[str, float] = {}  # what -> when it was last logged
        self._closed = False
        self._bytes_received = self._bytes_sent = 0  # of connections that are gone

    # -- life --

    def start(self) -> None:
        """Accept connections."""
        if not self._is_accepting and not self._closed:
            self._is_accepting = True
            self._room.open()
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
            if isinstance(tls.application, Served):
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
            if isinstance(application, Served):
                cut += not application.is_idle
                application.end()
            else:
                tls.abort()
        return cut

    @property
    def open_connections(self) -> int:
        return len(self._peers)

    def open(self) -> Iterator[tuple[Peer, Served | None]]:
        """Yield what is open, the oldest first, each with what speaks on it once the handshake is done."""
        for tls, peer in self._peers.items():
            yield peer, tls.application if isinstance(tls.application, Served) else None

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
        self._accept(ACCEPTS_PER_TURN, leaves_to_others=True)
        self._look_at_limit()

    def _look_at_limit(self) -> None:
        if self._room.taken >= self.service.limits.connections:
            self._note(
                "max_connections",
                "{count} connections are open, the limit (SIDECAR_MAX_CONNECTIONS): newcomers wait",
                count=self._room.taken,
            )
            self._pause()
            self._room.wait(self)

    def _accept(self, at_most: int, *, leaves_to_others: bool = False) -> None:
        for number in range(min(at_most, self.service.limits.connections - self._room.taken)):
            if leaves_to_others and self._room.leaves_newcomers(self._reactor.seconds()):
                if not number:
                    self._step_aside()
                return
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
        server = PlainServer(self) if self.context is None else TlsServer(records_for(self.context), self)
        remote = HostPort(address[0].removeprefix("::ffff:"), address[1])
        peer = Peer(remote, self._local(sock), server, self._deadlines, self.service.timeouts.body)
        timeout: float = self.service.timeouts.handshake
        if self.approach.proxy_protocol is not ProxyProtocol.OFF:
            peer.preface = self._preface(server, peer)
            timeout = min(timeout, PROXY_HEADER_SECONDS)
        # What is only relayed costs nothing to parse, so there may be more of it at once (bench row `tcp-upload`).
        at_once = MAX_READ_SIZE if self.approach.mode is ListenerMode.TCP else READ_SIZE
        transport = SocketTransport(sock, peer.preface or server, self._reactor, at_once)
        self._peers[server] = peer
        self._room.enter()
        peer.transport = server.transport = transport
        peer.deadline.set(timeout)
        self._metrics.connections += 1
        self._metrics.connections_active += 1
        if peer.preface is None and isinstance(server, PlainServer):
            try:
                server.begin()
            except Exception:  # of one client; raised, it would cost the listener its socket
                _log.failure("a client could not be served; its connection is closed")
                server.abort()

    def _local(self, sock: socket.socket) -> HostPort:
        """Return where a client has connected to."""
        if self.address.host not in _WILDCARDS:
            return self.address
        host, port = sock.getsockname()[:2]
        return HostPort(host.removeprefix("::ffff:"), port)

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._room.shut()
            self._reactor.removeReader(self)
            if self._return_call is not None:
                self._return_call.cancel()
                self._return_call = None

    def _step_aside(self) -> None:
        """Leave newcomers to others for a moment: the poller would report them again and again."""
        self._reactor.removeReader(self)
        self._return_call = self._reactor.callLater(ASIDE_SECONDS, self._return)

    def _return(self) -> None:
        """Let in who is still waiting: the others have had their moment, and may be busy or hang."""
        self._return_call = None
        self._reactor.addReader(self)
        self._accept(ACCEPTS_AFTER_ASIDE)
        self._look_at_limit()

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

    # -- PROXY headers --

    def _preface(self, server: Server, peer: Peer) -> Preface:
        approach, host = self.approach, peer.host
        # Where everything comes through the balancer and nobody is named, it is whoever connects.
        is_trusted = approach.trusted.trusts(host) if approach.trusted.networks else self._requires_header
        return Preface(
            is_required=self._requires_header or (is_trusted and approach.missing is ProxyProtocolMissing.REFUSE),
            # Our own health check, which says nothing of others, comes from this machine.
            may_have=is_trusted or is_loopback(host),
            received=lambda header, rest: self._header_received(server, peer, header, rest, is_trusted),
            refused=lambda reason, text: self._header_refused(server, peer, reason, text),
            gone=lambda count: self._left_early(server, peer, count),
        )

    @property
    def _requires_header(self) -> bool:
        return self.approach.proxy_protocol is ProxyProtocol.REQUIRED

    def _header_received(
        self, server: Server, peer: Peer, header: ProxyHeader | None, rest: bytes, is_trusted: bool
    ) -> None:
        if header is not None and not is_trusted and not header.is_local:
            text = "it is from this machine, whose word about other clients is taken only if it is a trusted proxy"
            self._header_refused(server, peer, "proxy_header_untrusted", text)
            return
        peer.preface = None
        if header is not None:
            peer.believe(header)
            self._metrics.proxy_headers += 1
        peer.transport.protocol = server
        peer.deadline.set(self.service.timeouts.handshake)
        if isinstance(server, PlainServer):
            server.begin()
        if rest:
            server.dataReceived(rest)

    def _header_refused(self, server: Server, peer: Peer, reason: str, text: str) -> None:
        self.service.rejecter.connection_refused(peer.host, reason, text)
        peer.transport.abortConnection()
        self.closed(server)

    def _left_early(self, server: Server, peer: Peer, count: int) -> None:
        self._metrics.handshake_failed("closed_by_peer" if count else "ping")
        peer.transport.abortConnection()
        self.closed(server)

    # -- tls.server.Acceptor and plain.Acceptor --

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

    def _judge_next(self, waiting: list[Server]) -> None:
        for _ in range(min(JUDGED_PER_TURN, len(waiting))):
            tls = waiting.pop()
            if isinstance(tls.application, Served):
                self._judge(tls, tls.application)
        if waiting:
            self._reactor.callLater(0, self._judge_next, waiting)

    def _judge(self, tls: Server, application: Served) -> None:
        try:
            self._judge_again(tls, application)
        except Exception:  # of one client; it must not keep the others from being looked at
            _log.failure("a client could not be looked at again; its connection is closed")
            tls.abort()

    def _judge_again(self, tls: Server, application: Served) -> None:
        session, peer = application.session, self._peers[tls]
        if isinstance(tls, TlsServer):
            session = self._verified_again(tls.connection, session)
        presented = _presented(session)
        application.judge_again(session, self.access.admit(presented), self._forwarding(peer, tls, session, presented))

    def _verified_again(self, connection: SSL.Connection, session: TlsSession) -> TlsSession:
        verification = verify_again(connection, session.verification, self.trust)
        return session if verification is session.verification else attrs.evolve(session, verification=verification)

    def _served(self) -> list[tuple[Server, Served]]:
        return [(tls, tls.application) for tls in self._peers if isinstance(tls.application, Served)]

    def established(self, tls: TlsServer, connection: SSL.Connection) -> Application:
        session = read_session(connection)
        self._metrics.handshake_done(session.version, resumed=session.resumed)
        if session.verification.certificate is not None and trust_of(connection) is not self.trust:
            # It came before a reload.
            session = self._verified_again(connection, session)
        return self._application(tls, session)

    def opened(self, plain: PlainServer) -> Application:
        return self._application(plain, NO_TLS)

    def _application(self, server: Server, session: TlsSession) -> Application:
        peer, presented = self._peers[server], _presented(session)
        admission = self.access.admit(presented)
        if self.approach.mode is ListenerMode.TCP:
            return Tunnel(server, peer, self.service, session, admission=admission, proxy_header=proxy_header)
        forwarding = self._forwarding(peer, server, session, presented)
        if session.alpn == HTTP2_PROTOCOL:
            return Http2Connection(
                server,
                peer,
                self.service,
                session,
                forwarding=forwarding,
                admission=admission,
                names=self.names,
                turns=self._turns,
            )
        return DownstreamConnection(server, peer, self.service, session, forwarding=forwarding, admission=admission)

    def _forwarding(self, peer: Peer, server: Server, session: TlsSession, presented: Presented) -> Forwarding:
        approach = self.approach
        is_trusted = peer.is_known and approach.trusted.trusts(peer.host)
        scheme = "https" if session.version else "http"
        if not (is_trusted or approach.with_forwarded or peer.proxied is not None or self.access.dialects):
            return _usual_forwarding(peer.host, peer.local.host, peer.local.port, scheme)
        hop = Hop(
            peer=peer.host,
            local=peer.local,
            scheme=scheme,
            is_trusted=is_trusted,
            with_forwarded=approach.with_forwarded,
            extra=field_lines(peer.proxied),
        )
        is_simple = hop.is_the_same_for_all
        common = hop.common_lines if is_simple else b""
        of_request, trusted = (None, NOBODY) if is_simple else (hop, approach.trusted)
        if not self.access.dialects or not isinstance(server, TlsServer):
            return Forwarding(common, common, of_request, trusted)
        connection = server.connection
        named = self._identity_fields(connection, session, presented)
        anonymous = self._identity_fields(connection, session, NO_CERTIFICATE)
        return Forwarding(common + named, common + anonymous, of_request, trusted)

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
        self.service.rejecter.handshake_failed(peer.host, tls, reason, message)

    def plaintext_reply(self, data: bytes) -> bytes:
        if not data.startswith(_HTTP_METHODS):
            return b""
        status, message = replies.REPLIES["plain_http"]
        self.service.count(status, "plain_http")
        return replies.refusal(status, "plain_http", message).http1(keep_alive=False)

    def closed(self, tls: Server) -> None:
        peer = self._peers.pop(tls)
        peer.deadline.end()
        self._bytes_received += peer.transport.bytes_received
        self._bytes_sent += peer.transport.bytes_sent
        self._metrics.connections_active -= 1
        self._room.leave(self._reactor.seconds())
        if not self._is_accepting and self._room.taken < self.service.limits.connections:
            self.start()
