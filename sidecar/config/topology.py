"""
Settings -> `topology.Topology`: what is listened on and where requests go, or everything that is wrong with it.

In the small form, ``listen``, ``mode`` and the like describe one listener, and ``upstream`` with ``upstream_*`` one
cluster, `clusters.APP`, that routes can name. ``virtual_hosts`` says what goes elsewhere; ``clusters`` adds others;
``listeners`` stands in place of all that describes the one listener::

    listeners:
      - name: ingress
        address: 0.0.0.0:443
        cluster: shop
      - name: database
        address: 127.0.0.1:5432
        tls: off
        mode: tcp
        cluster: database
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from sidecar.config import addresses
from sidecar.config.clusters import APP, app_cluster, read_clusters
from sidecar.config.entries import Entry, Reader, parse_name
from sidecar.config.load import Loaded
from sidecar.config.names import DEFAULT, SETTINGS, did_you_mean
from sidecar.config.units import parse_word
from sidecar.config.virtualhosts import (
    MOST_ROUTES,
    MOST_VIRTUAL_HOSTS,
    VirtualHosts,
    everything_to,
    everything_to_https,
    read_virtual_hosts,
)
from sidecar.errors import ConfigError, Problem
from sidecar.settings import HostPort, ListenerMode, ProxyProtocol, Switch
from sidecar.topology import ClusterSpec, ListenerSpec, ToCluster, Topology, UpstreamProtocol
from sidecar.values import Value

MAIN = "main"
"""The listener that the settings describe, if they describe one."""

REDIRECT = "redirect"
"""The listener of ``http_redirect``."""

MOST_LISTENERS = 16
"""Each is a socket in every worker."""

_NOWHERE = HostPort("127.0.0.1", 1)
"""What stands for an address that was refused; it is in no topology."""

_HTTP_VERSIONS = frozenset({"http/1.1", "http/1.0"})
"""What may be offered to a cluster that gets requests."""

_LISTENER = ("name", "address", "tls", "mode", "proxy_protocol", "virtual_hosts", "cluster", "alpn")

_OF_ONE_LISTENER = ("listen", "mode", "listen_tls", "alpn", "http_redirect", "proxy_protocol", "virtual_hosts")
_OF_THE_APP = (
    "upstream",
    *(name for name in SETTINGS if name.startswith("upstream_") and name != "upstream_timeout"),
)


@attrs.frozen(eq=False, repr=False)
class Reading(Value):
    """
    What could be read.

    Attributes:
        topology: None if there are problems.
        listeners: Those whose address is known, by its place: the name of a setting, or ``listeners[0].address``.
        clusters: Those without problems of their own, likewise: ``upstream`` if it is used, or
            ``clusters[0].endpoints``.
        unused: Places of clusters that nobody is sent to, and settings of such a one.
    """

    topology: Topology | None
    problems: tuple[Problem, ...]
    listeners: Mapping[str, ListenerSpec]
    clusters: Mapping[str, ClusterSpec]
    unused: tuple[str, ...]


def topology_of(loaded: Loaded) -> Topology:
    """
    Return what *loaded* describes.

    Raises:
        ConfigError: With every problem; `Problem.setting` is the place, such as ``listeners[0].address``.
    """
    reading = read(loaded)
    if reading.topology is None:
        raise ConfigError(reading.problems)
    return reading.topology


def read(loaded: Loaded) -> Reading:
    """As `topology_of`, but returns what could be read beside the problems, so that other checks can follow."""
    return _Reading(Reader(loaded)).whole()


@attrs.define(eq=False, repr=False)
class _Reading:
    """
    Attributes:
        listeners, clusters: As in `Reading`.
        defined: Names of clusters, those with problems too, with their places.
        named: Places where clusters are named, with the names.
    """

    reader: Reader
    listeners: dict[str, ListenerSpec] = attrs.field(factory=dict)
    clusters: dict[str, ClusterSpec] = attrs.field(factory=dict)
    defined: dict[str, str] = attrs.field(factory=dict)
    named: list[tuple[str, str]] = attrs.field(factory=list)
    routes: int = 0

    @property
    def loaded(self) -> Loaded:
        return self.reader.loaded

    def is_given(self, name: str) -> bool:
        """Whether somebody gave a setting, and it was accepted."""
        return self.loaded.sources.get(name, DEFAULT) != DEFAULT

    def is_known(self, *names: str) -> bool:
        return all(name in self.loaded.sources for name in names)

    def refuse_setting(self, name: str, fact: str, fix: str) -> None:
        """Note a problem with a whole setting, in the words in which it was given."""
        source = self.loaded.sources[name]
        self.reader.problems.append(Problem(SETTINGS[name].written_in(source), source, fact, fix))

    def whole(self) -> Reading:
        downstream = self.loaded.settings.downstream
        self.read_clusters()
        if downstream.listeners:
            self.read_listeners()
        else:
            self.read_one_listener()
        self.check_names()
        named = {name for _, name in self.named}
        unused = [place for name, place in self.defined.items() if name not in named and place != "upstream"]
        if APP not in named and self.defined[APP] == "upstream":
            unused += filter(self.is_given, _OF_THE_APP)
            self.clusters.pop("upstream", None)
        problems = tuple(self.reader.problems)
        used = tuple(cluster for cluster in self.clusters.values() if cluster.name in named)
        topology = Topology(listeners=tuple(self.listeners.values()), clusters=used)
        return Reading(None if problems else topology, problems, self.listeners, self.clusters, tuple(unused))

    # -- clusters --

    def read_clusters(self) -> None:
        settings = self.loaded.settings
        for place, name, cluster in read_clusters(self.reader, settings.app.clusters):
            if name:
                self.defined.setdefault(name, place)
            if cluster is not None:
                self.clusters[f"{place}.endpoints"] = cluster
        if APP not in self.defined:
            self.defined[APP] = "upstream"
            if self.is_known("upstream"):
                self.clusters["upstream"] = app_cluster(settings)
            return
        for name in _OF_THE_APP:
            if self.is_given(name):
                fact = f"it would be ignored: {self.defined[APP]} describes the cluster {APP}"
                self.refuse_setting(name, fact, "write it there, or call that cluster otherwise")

    def check_names(self) -> None:
        """Look for what routes and listeners name."""
        if not self.is_known("clusters"):
            return
        for place, name in self.named:
            if name not in self.defined:
                known = ", ".join(list(self.defined)[:10]) + (", …" if len(self.defined) > 10 else "")
                fix = did_you_mean(name, self.defined, otherwise=f"the clusters are {known}")
                self.reader.refuse(place, f"there is no cluster {name}", fix)
        self.check_protocols()
        self.check_raw()

    def check_protocols(self) -> None:
        """An upstream that agrees to HTTP/2 over TLS would not understand what it is sent."""
        asked = {
            route.action.cluster
            for listener in self.listeners.values()
            for virtual_host in listener.virtual_hosts
            for route in virtual_host.routes
            if isinstance(route.action, ToCluster)
        }
        for place, cluster in self.clusters.items():
            others = [name for name in (cluster.tls.alpn if cluster.tls else ()) if name not in _HTTP_VERSIONS]
            if others and cluster.name in asked:
                fact = f"{others[0]}: over TLS, requests are sent to {cluster.name} in HTTP/1.1"
                self.reader.refuse(place.replace(".endpoints", ".tls.alpn"), fact, "write http/1.1, or remove it")

    def check_raw(self) -> None:
        """Where bytes are passed on as they come, nobody translates them into what an upstream is said to speak."""
        raw = {listener.cluster: listener.name for listener in self.listeners.values() if listener.cluster}
        for place, cluster in self.clusters.items():
            if cluster.protocol is UpstreamProtocol.H2C and cluster.name in raw:
                fact = f"h2c: the listener {raw[cluster.name]} has mode tcp, and passes bytes on as they come"
                fix = "write it without h2c: clients and app may speak it all the same; or set the mode to http"
                if place == "upstream":
                    self.refuse_setting(place, fact, fix)
                else:
                    self.reader.refuse(place.replace(".endpoints", ".protocol"), fact, fix)

    # -- the listener of the settings --

    def read_one_listener(self) -> None:
        settings = self.loaded.settings
        downstream = settings.downstream
        if not self.is_known("listeners"):
            return
        virtual_hosts, cluster = VirtualHosts(everything_to(APP, APP, settings.app.host)), ""
        if downstream.mode is ListenerMode.TCP:
            virtual_hosts, cluster = VirtualHosts(), APP
        elif downstream.virtual_hosts:
            virtual_hosts = self.virtual_hosts("virtual_hosts", downstream.virtual_hosts)
        elif not self.is_known("virtual_hosts"):
            virtual_hosts = VirtualHosts()
        if cluster or not downstream.virtual_hosts:
            self.named.append(("upstream", APP))
        if self.is_known("listen"):
            self.listeners["listen"] = ListenerSpec(
                name=MAIN,
                address=settings.listen,
                tls=downstream.tls is Switch.ON,
                mode=downstream.mode,
                proxy_protocol=downstream.proxy_protocol,
                virtual_hosts=virtual_hosts.values,
                cluster=cluster,
                alpn=downstream.alpn if downstream.mode is ListenerMode.TCP else (),
            )
        if downstream.http_redirect is not None:
            self.listeners["http_redirect"] = ListenerSpec(
                name=REDIRECT,
                address=downstream.http_redirect,
                tls=False,
                proxy_protocol=downstream.proxy_protocol,
                virtual_hosts=everything_to_https(settings.listen.port, REDIRECT),
            )

    def virtual_hosts(self, place: str, text: str) -> VirtualHosts:
        """Those of a setting that is a JSON list."""
        items = self.reader.listed(place, text, MOST_VIRTUAL_HOSTS)
        if text == "[]":
            self.reader.refuse(place, "the list is empty", "fill it in, or remove it")
        return self.routed(read_virtual_hosts(self.reader, items, place, self.loaded.settings.app.host))

    def routed(self, virtual_hosts: VirtualHosts) -> VirtualHosts:
        self.named += virtual_hosts.clusters
        self.routes += sum(len(each.routes) for each in virtual_hosts.values)
        return virtual_hosts

    # -- listeners --

    def read_listeners(self) -> None:
        downstream = self.loaded.settings.downstream
        for name in _OF_ONE_LISTENER:
            if self.is_given(name):
                fact = "it would be ignored: listeners describes them all"
                self.refuse_setting(name, fact, "write it into the listener that it is about, or remove it")
        names: dict[str, str] = {}
        items = self.reader.listed("listeners", downstream.listeners, MOST_LISTENERS)
        if downstream.listeners == "[]":
            self.reader.refuse("listeners", "the list is empty", "fill it in, or remove it")
        for place, value in items:
            entry = self.reader.entry(place, value, _LISTENER)
            listener = self.listener(entry)
            if listener.name in names:
                fact = f"{names[listener.name]} is called {listener.name} already"
                entry.refuse("name", fact, "call one of them otherwise")
            names.setdefault(listener.name, place)
            if listener.address is not _NOWHERE:
                self.listeners[f"{place}.address"] = listener
        if self.routes > MOST_ROUTES:
            self.reader.refuse(
                "listeners", f"there are {self.routes:,} routes, limit {MOST_ROUTES:,}", "leave some out"
            )

    def listener(self, entry: Entry) -> ListenerSpec:
        entry.require("name", "write name: NAME, by which logs and metrics call it")
        entry.require("address", "write address: HOST:PORT")
        mode = entry.get("mode", partial(parse_word, ListenerMode), ListenerMode.HTTP)
        name = entry.get("name", parse_name, entry.place)
        virtual_hosts, cluster = self.destination(entry, mode)
        tls = entry.is_on("tls", default=True)
        if entry.has("alpn") and (mode is ListenerMode.HTTP or not tls):
            fact = "it would be ignored: " + (
                "with mode http it is known" if tls else "without TLS nothing is agreed on"
            )
            entry.refuse("alpn", fact, "remove it")
        return ListenerSpec(
            name=name,
            address=entry.get("address", addresses.parse_listener, _NOWHERE),
            tls=tls,
            mode=mode,
            proxy_protocol=entry.get("proxy_protocol", partial(parse_word, ProxyProtocol), ProxyProtocol.OFF),
            virtual_hosts=virtual_hosts.values,
            cluster=cluster,
            alpn=tuple(name for names in entry.several("alpn", addresses.parse_alpn, 16) for name in names),
        )

    def destination(self, entry: Entry, mode: ListenerMode) -> tuple[VirtualHosts, str]:
        """Virtual hosts, or with TCP the name of a cluster."""
        cluster = entry.get("cluster", parse_name, "")
        if cluster:
            self.named.append((entry.at("cluster"), cluster))
        given = entry.given("cluster", "virtual_hosts")
        if mode is ListenerMode.TCP:
            if "virtual_hosts" in given:
                entry.refuse("virtual_hosts", "mode is tcp, where there are no requests", "write cluster: NAME instead")
            elif not given:
                entry.refuse_whole("it does not say where the bytes go", "write cluster: NAME")
            return VirtualHosts(), cluster
        if len(given) != 1:
            fact = "it has cluster and virtual_hosts" if given else "it does not say where requests go"
            entry.refuse_whole(fact, "write either cluster: NAME, or virtual_hosts")
            return VirtualHosts(), ""
        if cluster:
            host = self.loaded.settings.app.host if cluster == APP else ""
            return VirtualHosts(everything_to(cluster, cluster, host)), ""
        items = entry.rows("virtual_hosts", MOST_VIRTUAL_HOSTS)
        place, host = entry.at("virtual_hosts"), self.loaded.settings.app.host
        return self.routed(read_virtual_hosts(self.reader, items, place, host)), ""
