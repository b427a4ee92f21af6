"""
The composition root: settings to listeners, pool and admin; start, reload, drain.

Everything that another module needs is handed to it here; nothing below looks for it.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from OpenSSL import SSL
from twisted.logger import Logger

from sidecar import __version__
from sidecar.admin.pages import ADMIN, HEALTH
from sidecar.admin.server import AdminConnection, AdminListener
from sidecar.certs import selfsigned
from sidecar.certs.advice import expiry_level
from sidecar.certs.bundle import Bundle
from sidecar.certs.describe import describe
from sidecar.certs.files import fingerprint, watched
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.console import Console
from sidecar.credentials import Credentials, load_credentials
from sidecar.errors import ConfigError, ListenError, Problem
from sidecar.observe import logs
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.logformat import compile_format
from sidecar.observe.metrics import Metrics
from sidecar.observe.writer import LineWriter
from sidecar.policy.rewrite import is_ours
from sidecar.proxy.connect import ConnectFailed
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.listener import Listener, listen
from sidecar.proxy.pool import Pool
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import SocketTransport
from sidecar.proxy.upstream import UpstreamConnection
from sidecar.reloading import Reloader
from sidecar.settings import AccessLogFormat, HostPort, Switch
from sidecar.waiting import Waiting
from sidecar.watching import Watcher

STDOUT: Final = 1
DRAIN_LOOK_SECONDS: Final = 0.05
"""How often a drain looks whether the last connection has gone."""

DRAIN_IN_CONTAINERS_SECONDS: Final = 5.0
"""Lame-duck time where a balancer probably sends us requests."""

RECHECK_SECONDS: Final = 10.0
"""How often clients of open connections are looked at whose certificates may have run out."""

EXPIRY_CHECK_SECONDS: Final = 60.0

APP_LOOK_SECONDS: Final = 2.0
"""How often an app that cannot be reached is tried again."""

RENEWAL_RETRY_SECONDS: Final = 60.0

_T = TypeVar("_T")

_log = Logger()


class App:
    """One serving process."""

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        reread: Callable[[], Loaded] | None = None,
        listener: socket.socket | None = None,
        ephemeral: Bundle | None = None,
    ) -> None:
        """
        Args:
            loaded: Settings that passed `config.check`.
            reactor: IReactorFDSet, IReactorTime, IReactorThreads.
            now: The calendar, for certificates.
            reread: Reads the settings anew, checked, for a reload; raises ConfigError. None: they never change.
            listener: A listening socket, of a supervisor, which also serves the admin pages; None: it is opened here.
            ephemeral: What is served where no certificate is given; None: it is made here.
        """
        self._loaded = loaded
        self._settings = loaded.settings
        self._reactor = reactor
        self._now = now
        self._reread = reread or (lambda: loaded)
        self._deadlines = Deadlines(reactor)
        self._metrics = Metrics()
        self._writer: LineWriter | None = None
        self._pages: dict[str, AdminListener] = {}  # by the name of their setting
        self._waiting = Waiting(
            loaded=loaded,
            metrics=self._metrics,
            stop=lambda: self._call_later("stop", 0, self._reactor.stop),
            clock=now,
        )
        self._watcher: Watcher | None = None
        self._reloader: Reloader
        self._draining = False
        self._finished = False
        self._stopped: Callable[[int], None] = lambda cut: None
        self._calls: dict[str, Any] = {}  # what is to come, by what it is about
        self._told_of_expiry: dict[str, int] = {}
        self._ephemeral = ephemeral
        self._inherited = listener
        self._has_given_ephemeral = ephemeral is not None
        self._credentials: Credentials
        self._service: Service
        self._pool: Pool
        self._listener: Listener

    def wait(self, paths: Sequence[Path]) -> None:
        """
        Say on the pages for operators and probes that *paths* are waited for; to be called again when they change.

        Raises:
            ConfigError: An address cannot be listened on, which is not told only once the files are there.
        """
        problems: list[Problem] = []
        if self._inherited is None and not self._waiting.paths:
            self._collect(problems, lambda: self._listener_socket().close())
            self._open_pages(problems)
        if problems:
            self._close_pages()
            raise ConfigError(problems)
        self._waiting.paths = paths

    def start(self) -> None:
        """
        Load key material, open the listeners, begin to serve.

        Raises:
            ConfigError: Key material cannot be used, or an address cannot be listened on; all problems at once.
        """
        settings = self._settings
        problems: list[Problem] = []
        paths = watched(settings)
        seen = fingerprint(paths)
        credentials = self._collect(problems, lambda: self._load(self._loaded))
        downstream_socket = self._collect(problems, self._listener_socket)
        self._open_pages(problems)
        if problems or credentials is None or downstream_socket is None:
            if downstream_socket is not None:
                downstream_socket.close()
            self._close_pages()
            self._cancel("renewal")
            raise ConfigError(problems)
        self._credentials = credentials
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
            downstream_socket,
            credentials.context,
            self._service,
            self._deadlines,
            credentials.access,
            credentials.trust,
            self._reactor,
        )
        self._listener.start()
        self._tell_of(credentials)
        self._reloader = Reloader(
            self._loaded,
            reread=self._reread,
            load=self._load,
            apply=self._apply,
            clock=lambda: self._now().timestamp(),
            reactor=self._reactor,
        )
        self._watch(seen)
        self._call_later("recheck", RECHECK_SECONDS, self._recheck)
        self._check_expiry()
        self._call_later("app", APP_LOOK_SECONDS, self._look_for_app)
        self.console = self._console()
        for pages in self._pages.values():
            pages.show(self.console)
        if self._inherited is not None:
            return  # the supervisor has said it for all
        _log.info(
            "serving https on {listen}, forwarding to {upstream}; client certificates: {mode}; admin: {admin}",
            listen=self._listener.address,
            upstream=settings.upstream,
            mode=settings.client.cert.value + ("" if credentials.access.decides_per_connection else ", and by rules"),
            admin=settings.admin or "off",
        )

    def reload(self) -> tuple[str, ...]:
        """Read settings and files anew; return what is wrong, empty if all is in force now."""
        return self._reloader.reload()

    def drain(self, stopped: Callable[[int], None], *, replaced: bool = False) -> None:
        """
        Accept no more, finish what is in flight, then call *stopped* with the number of exchanges that were cut.

        Bounded by SIDECAR_DRAIN_TIMEOUT; asked for again, it goes on as it was, and the last *stopped* is called.
        """
        self._stopped = stopped
        if self._draining:
            return
        self._draining = True
        timeout = self._settings.timeouts.drain
        until = self._reactor.seconds() + timeout
        wait = 0.0 if replaced else min(self._lame_duck_seconds(), timeout)
        if wait:
            _log.info("not ready any more; still serving for {wait:g} s, so that balancers can take notice", wait=wait)
            self._call_later("lame duck", wait, self._stop_accepting, until)
        else:
            self._stop_accepting(until)

    def _stop_accepting(self, until: float) -> None:
        self._service.is_draining = True
        self._listener.stop()
        _log.info(
            "draining for at most {timeout:g} s; open connections: {count}",
            count=self._listener.open_connections,
            timeout=until - self._reactor.seconds(),
        )
        self._look_drained(until)

    def _lame_duck_seconds(self) -> float:
        given = self._settings.life.lame_duck
        if given is not None:
            return given
        if not is_in_container(os.environ, os.path.exists):
            return 0.0
        # What nobody asked for must leave time to finish what is in flight.
        return min(DRAIN_IN_CONTAINERS_SECONDS, self._settings.timeouts.drain / 2)

    def force(self) -> None:
        """Cut what a drain still waits for."""
        self._listener.stop()
        self._finish(self._listener.end_all())

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

    def _listener_socket(self) -> socket.socket:
        return self._inherited or self._listen("listen", self._settings.listen)

    def _open_pages(self, problems: list[Problem]) -> None:
        """Open those that are not open yet; with a supervisor they are its own."""
        settings = self._settings
        for name, address, surface in (("admin", settings.admin, ADMIN), ("health", settings.health, HEALTH)):
            if address is None or name in self._pages or self._inherited is not None:
                continue
            sock = self._collect(problems, functools.partial(self._listen, name, address))
            if sock is not None:
                pages = AdminListener(sock, self._waiting, self._transport, self._reactor, surface)
                self._pages[name] = pages
                pages.start()

    def _close_pages(self) -> None:
        for pages in self._pages.values():
            pages.stop()
        self._pages.clear()

    def _console(self) -> Console:
        openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")
        self._metrics.build_info = {(__version__, platform.python_version(), openssl): 1}
        self._metrics.started_at = self._now().timestamp()
        return Console(
            metrics=self._metrics,
            pool=self._pool,
            listener=self._listener,
            rejecter=self._service.rejecter,
            reloader=self._reloader,
            writer=self._writer,
            credentials=lambda: self._credentials,
            is_draining=lambda: self._draining,
            stop=lambda: self._call_later("stop", 0, self.drain, lambda cut: self._reactor.stop()),
            clock=self._now,
            seconds=self._reactor.seconds,
        )

    def _load(self, loaded: Loaded) -> Credentials:
        return load_credentials(loaded, self._make_ephemeral, self._now)

    def _apply(self, loaded: Loaded, credentials: Credentials) -> None:
        """Put new settings and key material in force; open connections go on."""
        changed = credentials.trust.digest() != self._credentials.trust.digest()
        changed = changed or credentials.access.rules != self._credentials.access.rules
        settings, before = loaded.settings, self._settings
        self._loaded, self._settings, self._credentials = loaded, settings, credentials
        service = self._service
        service.timeouts, service.limits, service.http = settings.timeouts, settings.limits, settings.http
        listener = self._listener
        listener.context, listener.access, listener.trust = credentials.context, credentials.access, credentials.trust
        logs.set_level(settings.log.level)
        if watched(settings) != watched(before) or settings.life != before.life:
            self._watch(fingerprint(watched(settings)))
        if changed and settings.life.recheck is Switch.ON:
            listener.judge_all_again()
        self._tell_of(credentials)
        self._check_expiry()

    def _watch(self, seen: bytes) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        paths, interval = watched(self._settings), self._settings.life.reload_interval
        if paths and interval:
            changed = self._files_changed
            self._watcher = Watcher(lambda: fingerprint(paths), seen, changed, interval, self._reactor)
            self._watcher.start()

    def _files_changed(self) -> None:
        if not self._finished:
            self._reloader.files_changed()

    def _recheck(self) -> None:
        self._call_later("recheck", RECHECK_SECONDS, self._recheck)
        if self._settings.life.recheck is Switch.ON:
            self._listener.judge_expired_again()

    def _look_for_app(self) -> None:
        """Find out that the app is back: while it is not ready for want of it, no request would."""
        self._call_later("app", APP_LOOK_SECONDS, self._look_for_app)
        if self._pool.statistics.last_error:
            self._pool.connect(self._app_found)

    def _app_found(self, outcome: UpstreamConnection | ConnectFailed) -> None:
        if isinstance(outcome, UpstreamConnection):
            self._pool.release(outcome)

    def _call_later(self, about: str, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        self._cancel(about)
        self._calls[about] = self._reactor.callLater(seconds, call, *arguments)

    def _cancel(self, about: str) -> None:
        call = self._calls.pop(about, None)
        if call is not None and call.active():
            call.cancel()

    def _make_ephemeral(self) -> Bundle:
        """Return the certificate that is served where none is given; made anew before it expires."""
        now = self._now()
        if self._has_given_ephemeral and self._ephemeral is not None:
            return self._ephemeral
        if self._ephemeral is None or selfsigned.renew_at(self._ephemeral) <= now:
            names = selfsigned.default_names(socket.gethostname(), local_addresses(), self._settings.tls.names)
            self._ephemeral = selfsigned.make(names, now)
            wait = (selfsigned.renew_at(self._ephemeral) - now).total_seconds()
            self._call_later("renewal", max(1.0, wait), self._renew)
        return self._ephemeral

    def _renew(self) -> None:
        try:
            self._apply(self._loaded, self._load(self._loaded))
        except ConfigError:  # of other key material, which has its own alarm
            self._call_later("renewal", RENEWAL_RETRY_SECONDS, self._renew)

    def _tell_of(self, credentials: Credentials) -> None:
        for name, text in credentials.warnings:
            _log.warn("{name}: {text}", name=SETTINGS[name].written_in(self._loaded.sources[name]), text=text)
        if not self._settings.tls.cert:
            self._tell_of_ephemeral()

    def _check_expiry(self) -> None:
        """Warn when a certificate has 30, 7 or 1 days left, and when a revocation list is overdue, once each."""
        self._call_later("expiry", EXPIRY_CHECK_SECONDS, self._check_expiry)
        for crl in self._credentials.clients.crls:
            issuer, end = crl.issuer.rfc4514_string(), crl.next_update_utc
            if end is not None and end < self._now() and f"{issuer} {end}" not in self._told_of_expiry:
                self._told_of_expiry[f"{issuer} {end}"] = 0
                _log.error(
                    "the revocation list of {issuer} was due for renewal at {end:%Y-%m-%d %H:%M} UTC; {then}",
                    issuer=issuer,
                    end=end,
                    then=self._credentials.trust.what_becomes_of_overdue(end),
                )
        for bundle in self._credentials.bundles:
            if bundle is self._ephemeral:
                continue
            level = expiry_level(bundle.leaf.not_valid_after_utc, self._now())
            serial = f"{bundle.leaf.serial_number:x}"
            if level is not None and level < self._told_of_expiry.get(serial, 31):
                if serial in self._told_of_expiry or level == 0:  # at start, the warnings have said so
                    _log.error(
                        "the certificate {what} {when}", what=bundle.leaf.subject.rfc4514_string(), when=_end(bundle)
                    )
                self._told_of_expiry[serial] = level

    def _tell_of_ephemeral(self) -> None:
        where = (
            "admin /certs/server.pem" if self._settings.admin else "/certs/server.pem of the admin listener, now off"
        )
        _log.warn(
            "no certificate given (SIDECAR_TLS_CERT): made one in memory for {names}, until {until:%Y-%m-%d}; it "
            "encrypts, but clients cannot know who we are unless they are given it ({where})",
            names=", ".join(name.partition(":")[2] for name in describe(self._credentials.bundles[0].leaf).sans),
            until=self._credentials.bundles[0].leaf.not_valid_after_utc,
            where=where,
        )

    def _access_log(self) -> AccessLog | None:
        style = self._settings.log.access
        if style is AccessLogFormat.OFF:
            return None
        self._writer = LineWriter(STDOUT, self._reactor, is_shared=self._inherited is not None)
        text = self._settings.log.format
        return AccessLog(self._writer.write, style, compile_format(text, is_ours) if text else None)

    def _transport(self, sock: socket.socket, connection: AdminConnection) -> SocketTransport:
        return SocketTransport(sock, connection, self._reactor)

    def _problem(self, name: str, fact: str, fix: str) -> Problem:
        source = self._loaded.sources[name]
        return Problem(SETTINGS[name].written_in(source), source, fact, fix)

    # -- state and stop --

    def _look_drained(self, until: float) -> None:
        if not self._listener.open_connections:
            self._finish(0)
        elif self._reactor.seconds() >= until:
            self.force()
        else:
            self._call_later("drain", DRAIN_LOOK_SECONDS, self._look_drained, until)

    def _finish(self, cut: int) -> None:
        if self._finished:
            return  # a forced end, while the drain was still looking
        self._finished = True
        self._pool.stop()
        self._close_pages()
        if self._watcher is not None:
            self._watcher.stop()
        self._reloader.stop()
        for about in list(self._calls):
            self._cancel(about)
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


def is_in_container(environ: Mapping[str, str], exists: Callable[[str], bool]) -> bool:
    """
    Say whether the process probably runs in a container, where a balancer or service sends it requests.

    Args:
        environ: Kubernetes, ECS and podman leave variables there.
        exists: Whether a file is there; Docker and podman leave one.
    """
    marks = ("KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4", "container")
    return any(name in environ for name in marks) or exists("/.dockerenv") or exists("/run/.containerenv")


def _end(bundle: Bundle) -> str:
    return f"is valid until {bundle.leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: renew it"
