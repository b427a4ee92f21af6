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
from typing import TYPE_CHECKING, Any, Final, TypeVar

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
from sidecar.config.topology import MAIN, REDIRECT, topology_of
from sidecar.config.upstreams import files_of
from sidecar.console import Console
from sidecar.credentials import Credentials, Secured, asked_of_clients, load_credentials
from sidecar.errors import ConfigError, ListenError, Problem
from sidecar.observe import logs
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.observe.writer import LineWriter
from sidecar.policy.access import default_rule
from sidecar.policy.forwarding import TrustedProxies
from sidecar.proxy.cluster import Cluster
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.http2limits import limits_of
from sidecar.proxy.listener import Approach, Listener, Room, is_loopback, listen
from sidecar.proxy.proxyheader import local_header
from sidecar.proxy.rejecting import Rejecter
from sidecar.proxy.routing import Router
from sidecar.proxy.service import Service
from sidecar.proxy.sockets import SocketTransport
from sidecar.reloading import Reloader
from sidecar.settings import AccessLogFormat, HostPort, ListenerMode, Networks, Settings, Switch
from sidecar.tls.trust import ClientTrust
from sidecar.topology import ClusterSpec, ListenerSpec, Redirect, ToCluster, Topology, UpstreamProtocol
from sidecar.waiting import Waiting
from sidecar.watching import Watcher

if TYPE_CHECKING:
    from sidecar.observe.logformat import Format
    from sidecar.proxy.tally import Place
    from sidecar.tls.client import UpstreamSecurity

STDOUT: Final = 1
DRAIN_LOOK_SECONDS: Final = 0.05
"""How often a drain looks whether the last connection has gone."""

DRAIN_IN_CONTAINERS_SECONDS: Final = 5.0
"""Lame-duck time where a balancer probably sends us requests."""

RECHECK_SECONDS: Final = 10.0
"""How often clients of open connections are looked at whose certificates may have run out."""

EXPIRY_CHECK_SECONDS: Final = 60.0

LISTENER: Final = "listener "
"""What stands before the name of a listener where a setting could stand too."""

APP_LOOK_SECONDS: Final = 2.0
"""How often an app that was never reached, or cannot be, is tried."""

RENEWAL_RETRY_SECONDS: Final = 60.0

LOOPBACK_NETWORKS: Final = ("127.0.0.0/8", "::1/128")

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
        listeners: Sequence[socket.socket] | None = None,
        ephemeral: Bundle | None = None,
        place: Place | None = None,
    ) -> None:
        """
        Args:
            loaded: Settings that passed `config.check`.
            reactor: IReactorFDSet, IReactorTime, IReactorThreads.
            now: The calendar, for certificates.
            reread: Reads the settings anew, checked, for a reload; raises ConfigError. None: they never change.
            listeners: Listening sockets, in the order of `Topology.listeners`, of a supervisor, which also serves the
                admin pages; None: they are opened here.
            ephemeral: What is served where no certificate is given; None: it is made here.
            place: Where other workers see how many connections this one has; None: there are no others.
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
        self._watched: tuple[Path, ...] = ()
        self._reloader: Reloader
        self._draining = False
        self._finished = False
        self._stopped: Callable[[int], None] = lambda cut: None
        self._calls: dict[str, Any] = {}  # what is to come, by what it is about
        self._told_of_expiry: dict[str, int] = {}
        self._ephemeral = ephemeral
        self._inherited = listeners
        self._place = place
        self._has_given_ephemeral = ephemeral is not None
        self._credentials: Credentials
        self._clusters: dict[str, Cluster] = {}
        self._secured: dict[str, Secured] = {}
        self._listeners: list[Listener] = []

    def wait(self, paths: Sequence[Path]) -> None:
        """
        Say on the pages for operators and probes that *paths* are waited for; to be called again when they change.

        Raises:
            ConfigError: An address cannot be listened on, which is not told only once the files are there.
        """
        problems: list[Problem] = []
        if self._inherited is None and not self._waiting.paths:
            for sock in self._listening_sockets(problems).values():
                sock.close()
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
        seen = fingerprint(_files(settings, topology_of(self._loaded)))
        credentials = self._collect(problems, lambda: self._load(self._loaded))
        sockets = self._listening_sockets(problems)
        self._open_pages(problems)
        if problems or credentials is None:
            for sock in sockets.values():
                sock.close()
            self._close_pages()
            self._cancel("renewal")
            raise ConfigError(problems)
        self._credentials = credentials
        self._arrange_clusters(credentials)
        rejecter = Rejecter(self._metrics, self._reactor.seconds)
        access_log, room = self._access_log(), Room(self._place)
        for spec in credentials.topology.listeners:
            keys = credentials.keys[spec.name]
            service = Service(
                timeouts=settings.timeouts,
                limits=settings.limits,
                http=settings.http,
                router=self._router(spec, settings),
                metrics=self._metrics,
                rejecter=rejecter,
                access_log=access_log,
                now=self._reactor.seconds,
                http2=limits_of(settings.limits, settings.http2),
            )
            listener = Listener(
                sockets[spec.name],
                keys.context,
                service,
                self._deadlines,
                keys.access,
                keys.trust,
                self._reactor,
                _approach(spec, settings),
                room,
            )
            listener.names = keys.names
            self._listeners.append(listener)
            listener.start()
        self._rejecter = rejecter
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
        for what in in_words(credentials.topology, settings.http2.enabled):
            _log.info("{what}", what=what)
        has_rules = not all(keys.access.decides_per_connection for keys in credentials.keys.values())
        _log.info(
            "client certificates: {mode}; admin: {admin}",
            mode=settings.client.cert.value + (", and by rules" if has_rules else ""),
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
        for listener in self._listeners:
            listener.service.is_draining = True
            listener.stop()
        _log.info(
            "draining for at most {timeout:g} s; open connections: {count}",
            count=self._open_connections,
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
        for listener in self._listeners:
            listener.stop()
        self._finish(sum(listener.end_all() for listener in self._listeners))

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
            raise ConfigError([listen_problem(self._loaded, name, error)]) from None

    def _listening_sockets(self, problems: list[Problem]) -> dict[str, socket.socket]:
        """Open those of the listeners, by name, or take what the supervisor has opened."""
        topology = topology_of(self._loaded)
        if self._inherited is not None:
            return {spec.name: sock for spec, sock in zip(topology.listeners, self._inherited, strict=True)}
        sockets: dict[str, socket.socket] = {}
        for spec in topology.listeners:
            sock = self._collect(problems, functools.partial(self._listen, LISTENER + spec.name, spec.address))
            if sock is not None:
                sockets[spec.name] = sock
        return sockets

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
            clusters_by_name=self._clusters,
            listeners=self._listeners,
            rejecter=self._rejecter,
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
        before_keys = self._credentials.keys
        changed = credentials.trusts != self._credentials.trusts
        changed = changed or credentials.topology.listeners != self._credentials.topology.listeners
        settings, before = loaded.settings, self._settings
        self._loaded, self._settings, self._credentials = loaded, settings, credentials
        self._arrange_clusters(credentials)
        for spec, listener in zip(credentials.topology.listeners, self._listeners, strict=True):
            service, keys = listener.service, credentials.keys[spec.name]
            service.timeouts, service.limits, service.http = settings.timeouts, settings.limits, settings.http
            service.router = self._router(spec, settings)
            service.http2 = limits_of(settings.limits, settings.http2)
            listener.context, listener.access, listener.trust = keys.context, keys.access, keys.trust
            listener.names = keys.names
            listener.approach = _approach(spec, settings)
            changed = changed or keys.access.rules != before_keys[spec.name].access.rules
        logs.set_level(settings.log.level)
        paths = _files(settings, credentials.topology)
        if self._watched != paths or settings.life != before.life:
            self._watch(fingerprint(paths))
        if changed and settings.life.recheck is Switch.ON:
            for listener in self._listeners:
                listener.judge_all_again()
        self._tell_of(credentials)
        self._check_expiry()

    def _watch(self, seen: bytes) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        paths = _files(self._settings, self._credentials.topology)
        interval = self._settings.life.reload_interval
        self._watched = paths
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
            for listener in self._listeners:
                listener.judge_expired_again()

    def _look_for_app(self) -> None:
        """
        Find out that the app is not there, before it costs a client's request; and that it is back, since while we are
        not ready for want of it, no request would.
        """
        self._call_later("app", APP_LOOK_SECONDS, self._look_for_app)
        for cluster in self._clusters.values():
            for endpoint in cluster.endpoints:
                is_unknown = not endpoint.pool.statistics.connects
                if (is_unknown or cluster.problem) and cluster.spec.health_check is None:
                    endpoint.pool.look(local_header(cluster.proxy_protocol))

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
        self._plan_renewal(self._ephemeral)
        return self._ephemeral

    def _plan_renewal(self, ephemeral: Bundle) -> None:
        wait = selfsigned.seconds_to_look(ephemeral, self._now())
        self._call_later("renewal", wait, self._look_at_renewal, ephemeral)

    def _look_at_renewal(self, ephemeral: Bundle) -> None:
        if selfsigned.renew_at(ephemeral) <= self._now():
            self._renew()
        else:
            self._plan_renewal(ephemeral)

    def _renew(self) -> None:
        try:
            self._apply(self._loaded, self._load(self._loaded))
        except ConfigError:  # of other key material, which has its own alarm
            self._call_later("renewal", RENEWAL_RETRY_SECONDS, self._renew)

    def _tell_of(self, credentials: Credentials) -> None:
        for name, text in credentials.warnings:
            _log.warn("{name}: {text}", name=SETTINGS[name].written_in(self._loaded.sources[name]), text=text)
        if credentials.bundles and not self._settings.tls.cert:
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
                    then=self._any_trust.what_becomes_of_overdue(end),
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

    @property
    def _any_trust(self) -> ClientTrust:
        """What all listeners think of revocation lists."""
        return next(iter(self._credentials.keys.values())).trust

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
        return AccessLog(self._writer.write, style, _compiled(text) if text else None)

    def _transport(self, sock: socket.socket, connection: AdminConnection) -> SocketTransport:
        return SocketTransport(sock, connection, self._reactor)

    # -- clusters and routes --

    def _arrange_clusters(self, credentials: Credentials) -> None:
        """Make, change and stop clusters until they are those of the topology."""
        settings, wanted = self._settings, credentials.topology.clusters
        for spec in wanted:
            security = self._security(spec.name, credentials)
            timeout = settings.timeouts.connect
            if spec.name in self._clusters:
                self._clusters[spec.name].update(spec, connect_timeout=timeout, security=security)
            else:
                self._clusters[spec.name] = Cluster(
                    spec,
                    limits=settings.limits,
                    connect_timeout=timeout,
                    security=security,
                    reactor=self._reactor,
                )
        for name in self._clusters.keys() - {spec.name for spec in wanted}:
            self._clusters.pop(name).stop()

    def _security(self, name: str, credentials: Credentials) -> UpstreamSecurity | None:
        """Return TLS towards a cluster: as it was, unless it is made of something else now."""
        new, old = credentials.upstreams.get(name), self._secured.get(name)
        if new is None:
            return None
        if old is None or old.digest != new.digest:
            old = self._secured[name] = new
        return old.security

    def _router(self, spec: ListenerSpec, settings: Settings) -> Router:
        if spec.mode is ListenerMode.TCP:
            return Router.to(self._clusters[spec.cluster], settings.timeouts)
        default = default_rule(asked_of_clients(spec, settings))
        return Router.compile(spec.virtual_hosts, self._clusters, settings.timeouts, default)

    # -- state and stop --

    @property
    def _open_connections(self) -> int:
        return sum(listener.open_connections for listener in self._listeners)

    def _look_drained(self, until: float) -> None:
        if not self._open_connections:
            self._finish(0)
        elif self._reactor.seconds() >= until:
            self.force()
        else:
            self._call_later("drain", DRAIN_LOOK_SECONDS, self._look_drained, until)

    def _finish(self, cut: int) -> None:
        if self._finished:
            return  # a forced end, while the drain was still looking
        self._finished = True
        for cluster in self._clusters.values():
            cluster.stop()
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


def _compiled(text: str) -> Format:
    from sidecar.observe.logformat import compile_format  # few have a format of their own
    from sidecar.policy.rewrite import is_ours

    return compile_format(text, is_ours)


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


def listen_problem(loaded: Loaded, name: str, error: ListenError) -> Problem:
    """
    Say which setting is to blame for *error*.

    Args:
        name: Of a setting, or of a listener behind `LISTENER`.
    """
    if name.startswith(LISTENER):
        name = name.removeprefix(LISTENER)
        for number, spec in enumerate(topology_of(loaded).listeners):
            place = f"listeners[{number}].address"
            if spec.name == name and place in loaded.places:
                return Problem(place, loaded.places[place], error.fact, error.fix)
        name = _SETTING_OF_LISTENER.get(name, "listeners")
    source = loaded.sources[name]
    return Problem(SETTINGS[name].written_in(source), source, error.fact, error.fix)


_SETTING_OF_LISTENER: Final = {MAIN: "listen", REDIRECT: "http_redirect"}


def _files(settings: Settings, topology: Topology) -> tuple[Path, ...]:
    """Return everything that is looked at for changes."""
    return tuple(dict.fromkeys((*watched(settings), *files_of(topology))))


def in_words(topology: Topology, http2: Switch) -> list[str]:
    """
    Say what each listener does, in one line for the log.

    Args:
        http2: Whether clients may agree on it.
    """
    clusters = {
        spec.name: ", ".join(f"{_scheme(spec)}{each.address}" for each in spec.endpoints) for spec in topology.clusters
    }
    versions = "HTTP/2, HTTP/1.1" if http2 is Switch.ON else "HTTP/1.1"
    return [_in_words(spec, clusters, versions) for spec in topology.listeners]


def _scheme(spec: ClusterSpec) -> str:
    """What addresses begin with in the log; "" for what they usually speak."""
    if spec.protocol is UpstreamProtocol.H2C:
        return "h2c://"
    return "https://" if spec.tls else ""


def _in_words(spec: ListenerSpec, clusters: Mapping[str, str], versions: str) -> str:
    what = f"https ({versions})" if spec.tls else "plain http"
    if spec.mode is ListenerMode.TCP:
        what = "tcp in TLS" if spec.tls else "plain tcp"
    actions = [route.action for host in spec.virtual_hosts for route in host.routes]
    led_to = [spec.cluster] if spec.cluster else [each.cluster for each in actions if isinstance(each, ToCluster)]
    if not led_to:
        does = "redirecting" if any(isinstance(action, Redirect) for action in actions) else "forwarding nothing"
        return f"serving {what} on {spec.address}, {does}"
    where = [clusters[name] if len(clusters) == 1 else f"{name} ({clusters[name]})" for name in dict.fromkeys(led_to)]
    return f"serving {what} on {spec.address}, forwarding to {', '.join(where)}"


def _approach(spec: ListenerSpec, settings: Settings) -> Approach:
    downstream = settings.downstream
    networks = downstream.trusted_proxies
    if not spec.tls and is_loopback(spec.address.host):
        networks = Networks((*networks, *LOOPBACK_NETWORKS))  # the app, whose requests go out with TLS
    return Approach(
        name=spec.name,
        tls=spec.tls,
        mode=spec.mode,
        proxy_protocol=spec.proxy_protocol,
        missing=downstream.proxy_protocol_missing,
        trusted=TrustedProxies(networks),
        with_forwarded=downstream.forwarded is Switch.ON,
    )


def _end(bundle: Bundle) -> str:
    return f"is valid until {bundle.leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: renew it"
