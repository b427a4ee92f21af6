"""
The composition root: settings to listeners, pool and admin; start, renew, drain.

Everything that another module needs is handed to it here; nothing below looks for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.logger import Logger

from sidecar.admin.pages import Snapshot
from sidecar.admin.prometheus import Figures
from sidecar.admin.server import AdminConnection, AdminListener
from sidecar.certs import selfsigned
from sidecar.certs.bundle import Bundle
from sidecar.certs.describe import describe
from sidecar.certs.material import ClientMaterial, load_client_material, load_server_material
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.errors import ConfigError, ListenError, MaterialError, Problem
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.writer import LineWriter
from sidecar.policy.access import Access, access_of
from sidecar.policy.authz import Decision, Presented
from sidecar.policy.identity import identity_of
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.listener import Listener, listen
from sidecar.proxy.pool import Pool
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import SocketTransport
from sidecar.settings import AccessLogFormat, ClientCertMode, ClientRefusal, HostPort
from sidecar.tls.sni import build_contexts
from sidecar.tls.trust import ClientTrust

STDOUT: Final = 1
DRAIN_LOOK_SECONDS: Final = 0.05
"""How often a drain looks whether the last connection has gone."""

_T = TypeVar("_T")

_log = Logger()


class App:
    """One serving process."""

    def __init__(self, loaded: Loaded, reactor: Any, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """
        Args:
            loaded: Settings that passed `config.check`.
            reactor: IReactorFDSet, IReactorTime, IReactorThreads.
            now: The calendar, for certificates.
        """
        self._loaded = loaded
        self._settings = loaded.settings
        self._reactor = reactor
        self._now = now
        self._deadlines = Deadlines(reactor)
        self._metrics = Metrics()
        self._writer: LineWriter | None = None
        self._admin: AdminListener | None = None
        self._draining = False
        self._finished = False
        self._stopped: Callable[[int], None] = lambda cut: None
        self._renewal: Any = None
        self._bundles: tuple[Bundle, ...]
        self._clients = ClientMaterial()
        self._access: Access
        self._service: Service
        self._pool: Pool
        self._listener: Listener

    def start(self) -> None:
        """
        Load key material, open the listeners, begin to serve.

        Raises:
            ConfigError: Key material cannot be used, or an address cannot be listened on; all problems at once.
        """
        settings = self._settings
        problems: list[Problem] = []
        context = self._collect(problems, self._load)
        downstream_socket = self._collect(problems, lambda: self._listen("listen", settings.listen))
        admin = settings.admin
        admin_socket = None if admin is None else self._collect(problems, lambda: self._listen("admin", admin))
        if problems or context is None or downstream_socket is None:
            for sock in (downstream_socket, admin_socket):
                if sock is not None:
                    sock.close()
            if self._renewal is not None:
                self._renewal.cancel()
            raise ConfigError(problems)
        self._pool = Pool(settings.upstream, settings.timeouts.connect, settings.limits, self._reactor)
        self._service = Service(
            timeouts=settings.timeouts,
            limits=settings.limits,
            http=settings.http,
            pool=self._pool,
            metrics=self._metrics,
            rejecter=Rejecter(self._metrics, self._reactor.seconds),
            access_log=self._access_log(),
            now=self._reactor.seconds,
        )
        self._listener = Listener(
            downstream_socket, context, self._service, self._deadlines, self._access, self._reactor
        )
        self._listener.start()
        if not settings.tls.cert:
            self._tell_of_ephemeral()
        if admin_socket is not None:
            self._admin = AdminListener(admin_socket, self.snapshot, self._transport, self._reactor)
            self._admin.start()
        _log.info(
            "serving https on {listen}, forwarding to {upstream}; client certificates: {mode}; admin: {admin}",
            listen=self._listener.address,
            upstream=settings.upstream,
            mode=settings.client.cert.value + ("" if self._access.decides_per_connection else ", and by rules"),
            admin=settings.admin or "off",
        )

    def drain(self, stopped: Callable[[int], None]) -> None:
        """
        Accept no more, finish what is in flight, then call *stopped* with the number of exchanges that were cut.

        Bounded by SIDECAR_DRAIN_TIMEOUT.
        """
        self._draining = True
        self._stopped = stopped
        self._service.is_draining = True
        self._listener.stop()
        timeout = self._settings.timeouts.drain
        _log.info(
            "draining for at most {timeout:g} s; open connections: {count}",
            count=self._listener.open_connections,
            timeout=timeout,
        )
        self._look_drained(self._reactor.seconds() + timeout)

    def force(self) -> None:
        """Cut what a drain still waits for."""
        self._finish(self._listener.end_all())

    def snapshot(self) -> Snapshot:
        """Return the program as it is now, for the admin pages."""
        return Snapshot(
            now=self._now(),
            figures=Figures(
                metrics=self._metrics,
                certificates=tuple(describe(bundle.leaf) for bundle in self._bundles),
                upstream_connections=self._pool.open_count,
                upstream_idle=self._pool.idle_count,
                upstream_connects=self._pool.statistics.connects,
                upstream_connect_failures=self._pool.statistics.connect_failures,
                access_log_dropped=self._writer.dropped if self._writer is not None else 0,
                is_ready=not self._not_ready(),
            ),
            certificate_sources=tuple(map(str, self._settings.tls.cert)) or ("ephemeral",),
            certificate_pem=b"".join(
                certificate.public_bytes(Encoding.PEM)
                for certificate in (self._bundles[0].leaf, *self._bundles[0].chain)
            ),
            rejections=self._service.rejecter.rejections.as_json(),
            not_ready=self._not_ready(),
        )

    # -- start --

    @staticmethod
    def _collect(problems: list[Problem], step: Callable[[], _T]) -> _T | None:
        try:
            return step()
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    def _listen(self, name: str, address: HostPort) -> socket.socket:
        try:
            return listen(address)
        except ListenError as error:
            raise ConfigError([self._problem(name, error.fact, error.fix)]) from None

    def _load(self) -> SSL.Context:
        """Read rules and key material, and build what connections shake hands with."""
        settings, now = self._settings, self._now()
        self._access = access_of(settings.client, self._loaded.sources["client_rules"])
        server, troubles = load_server_material(settings.tls, now)
        if self._access.handshake_mode is not ClientCertMode.NONE:
            self._clients, more = load_client_material(settings.client, now)
            troubles += more
        if troubles:
            raise ConfigError([self._problem(each.setting, each.error.fact, each.error.fix) for each in troubles])
        for name, text in (*server.warnings, *self._clients.warnings):
            _log.warn("{name}: {text}", name=SETTINGS[name].written_in(self._loaded.sources[name]), text=text)
        self._bundles = server.bundles
        if not server.bundles:
            self._make_ephemeral()
        try:
            return self._contexts()
        except MaterialError as error:
            raise ConfigError([self._problem("tls_cert", error.fact, error.fix)]) from None

    def _contexts(self) -> SSL.Context:
        client = self._settings.client
        trust = ClientTrust(
            self._access.handshake_mode,
            self._clients.anchors,
            crls=self._clients.crls,
            crl_scope=client.crl_scope,
            crl_policy=client.crl_policy,
            depth=client.depth,
            refusal=client.refusal,
            admits=self._admits if client.refusal is ClientRefusal.HANDSHAKE else None,
            clock=self._now,
        )
        return build_contexts(self._bundles, trust, self._settings.tls.policy)

    def _admits(self, certificate: x509.Certificate) -> bool:
        """Whether a verified client may come in at all; asked inside the handshake."""
        admission = self._access.admit(Presented(identity_of(certificate)))
        return not isinstance(admission, Decision) or admission.is_allowed

    def _make_ephemeral(self) -> None:
        names = selfsigned.default_names(socket.gethostname(), local_addresses(), self._settings.tls.names)
        self._bundles = (selfsigned.make(names, self._now()),)
        wait = (selfsigned.renew_at(self._bundles[0]) - self._now()).total_seconds()
        self._renewal = self._reactor.callLater(max(1.0, wait), self._renew)

    def _tell_of_ephemeral(self) -> None:
        where = (
            "admin /certs/server.pem" if self._settings.admin else "/certs/server.pem of the admin listener, now off"
        )
        _log.warn(
            "no certificate given (SIDECAR_TLS_CERT): made one in memory for {names}, until {until:%Y-%m-%d}; it "
            "encrypts, but clients cannot know who we are unless they are given it ({where})",
            names=", ".join(name.partition(":")[2] for name in describe(self._bundles[0].leaf).sans),
            until=self._bundles[0].leaf.not_valid_after_utc,
            where=where,
        )

    def _renew(self) -> None:
        self._make_ephemeral()
        self._tell_of_ephemeral()
        self._listener.context = self._contexts()

    def _access_log(self) -> AccessLog | None:
        style = self._settings.log.access
        if style is AccessLogFormat.OFF:
            return None
        self._writer = LineWriter(STDOUT, self._reactor)
        return AccessLog(self._writer.write, style)

    def _transport(self, sock: socket.socket, connection: AdminConnection) -> SocketTransport:
        return SocketTransport(sock, connection, self._reactor)

    def _problem(self, name: str, fact: str, fix: str) -> Problem:
        source = self._loaded.sources[name]
        return Problem(SETTINGS[name].written_in(source), source, fact, fix)

    # -- state and stop --

    def _not_ready(self) -> tuple[str, ...]:
        reasons = []
        if self._draining:
            reasons.append("draining")
        if any(bundle.leaf.not_valid_after_utc <= self._now() for bundle in self._bundles):
            reasons.append("a certificate has expired")
        return tuple(reasons)

    def _look_drained(self, until: float) -> None:
        if not self._listener.open_connections:
            self._finish(0)
        elif self._reactor.seconds() >= until:
            self.force()
        else:
            self._reactor.callLater(DRAIN_LOOK_SECONDS, self._look_drained, until)

    def _finish(self, cut: int) -> None:
        if self._finished:
            return  # a forced end, while the drain was still looking
        self._finished = True
        self._pool.stop()
        if self._admin is not None:
            self._admin.stop()
            self._admin = None
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        if self._writer is not None:
            self._writer.stop()
            self._writer = None
        self._deadlines.stop()
        _log.info("stopped; exchanges cut: {cut}", cut=cut)
        self._stopped(cut)


def local_addresses() -> tuple[str, ...]:
    """
    Return the addresses that this machine has towards others.

    Connecting a datagram socket sends nothing: it only asks the kernel which address it would use.
    """
    found = []
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((elsewhere, 9))
            except OSError:
                continue
            found.append(sock.getsockname()[0])
    return tuple(found)
