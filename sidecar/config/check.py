"""
Rules between settings, and whether the key material they name can be used.

What one value may be alone, its parser and bounds say. A rule looks only at settings whose values were accepted
(`Loaded.sources` names them), so that one mistake is not reported as two.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import combinations

import attrs

from sidecar.config.load import Loaded
from sidecar.config.names import DEFAULT, SETTINGS
from sidecar.errors import ConfigError, Problem
from sidecar.settings import AccessLogFormat, ClientCertMode, ClientRefusal, HostPort

ALB_IDLE_TIMEOUT = 60
"""Seconds that an AWS Application Load Balancer keeps an idle connection. If we close first, it may lose a request."""

USUAL_GRACE_PERIOD = 30
"""Seconds from SIGTERM to SIGKILL on ECS (stopTimeout) and Kubernetes (terminationGracePeriodSeconds)."""

LONG_WAIT = 60
"""Seconds. Clients that say nothing hold a connection for this long: beyond, a few hosts can use up the limit."""


def check(loaded: Loaded, now: datetime, *, with_material: bool = True) -> list[Problem]:
    """
    All problems between settings and with the key material they name; empty if it can work.

    Args:
        loaded: From `load`, or from `gather` if some values were refused.
        now: The moment that certificates must be valid at; has a time zone.
        with_material: Whether to look at the files too.
    """
    case = _Case(loaded, now)
    rules = [(names, rule) for names, rule in _RULES if with_material or rule not in _ABOUT_MATERIAL]
    return [problem for names, rule in rules if case.has(*names) for problem in rule(case)]


def warnings(loaded: Loaded) -> list[str]:
    """What works but probably is not meant, one line each, naming setting and source."""
    settings = loaded.settings
    found = []
    if settings.timeouts.idle <= ALB_IDLE_TIMEOUT:
        found.append(
            ("idle_timeout", f"not longer than the {ALB_IDLE_TIMEOUT}s of an ALB, which answers 502 if we close first")
        )
    if settings.timeouts.drain >= USUAL_GRACE_PERIOD:
        fact = f"ECS and Kubernetes kill the container {USUAL_GRACE_PERIOD}s after SIGTERM unless told otherwise"
        found.append(("drain_timeout", fact))
    for name in ("handshake_timeout", "header_timeout"):
        if SETTINGS[name].of(settings) > LONG_WAIT:
            found.append((name, "clients that send nothing hold their connections for this long"))
    for name in ("client_allow", "client_deny"):
        if _looks_like_a_subject(SETTINGS[name].of(settings)):
            fact = 'any one of these terms is enough; for one whole subject write subject="…" with all of it in quotes'
            found.append((name, fact))
    if settings.admin is not None and not all(map(_is_loopback, _addresses(settings.admin.host))):
        found.append(("admin", "reachable from other machines, and it has no authentication"))
    return [_warning(loaded, name, fact) for name, fact in found]


def _looks_like_a_subject(text: str) -> bool:
    """Whether a list reads like a distinguished name from a log: several attributes of subjects, each another one."""
    fields = [term.partition("=")[0].strip() for term in text.split(",")]
    return len(fields) > 1 and len(set(fields)) == len(fields) and set(fields) <= {"cn", "ou", "o"}


def material_warnings(loaded: Loaded, now: datetime) -> list[str]:
    """The same for the certificates and lists that the settings name, which can be used."""
    from sidecar.certs.material import load_client_material, load_server_material

    clients, _ = load_client_material(loaded.settings.client, now, loaded.settings.tls.key_password)
    server, _ = load_server_material(loaded.settings.tls, now, clients.anchors)
    found = [(name, loaded.sources[name], text) for name, text in (*server.warnings, *clients.warnings)]
    return [f"{SETTINGS[name].written_in(source)} ({source}): {text}" for name, source, text in found]


def _warning(loaded: Loaded, name: str, fact: str) -> str:
    setting, source = SETTINGS[name], loaded.sources[name]
    return f"{setting.written_in(source)} ({source}): {setting.text(setting.of(loaded.settings))}: {fact}"


@attrs.frozen
class _Case:
    """The settings under check."""

    loaded: Loaded
    now: datetime

    def has(self, *names: str) -> bool:
        """Whether the values of all *names* are known."""
        return all(name in self.loaded.sources for name in names)

    def problem(self, name: str, fact: str, fix: str, beside: str | None = None) -> Problem:
        """
        A problem with setting *name*, named as the operator wrote it, or wrote *beside* it if it is not set.
        """
        source = self.loaded.sources[name]
        style = self.loaded.sources[beside] if beside is not None and source == DEFAULT else source
        return Problem(SETTINGS[name].written_in(style), source, fact, fix)

    def written(self, name: str, beside: str) -> str:
        """How *name* is called where *beside* was set."""
        return SETTINGS[name].written_in(self.loaded.sources[beside])


def _server_material_is_usable(case: _Case) -> Iterator[Problem]:
    tls = case.loaded.settings.tls
    if not tls.cert:
        return
    from sidecar.certs.material import load_server_material  # cryptography costs time; many runs have no files

    for trouble in load_server_material(tls, case.now)[1]:
        yield case.problem(trouble.setting, trouble.error.fact, trouble.error.fix, beside="tls_cert")


def _key_has_certificate(case: _Case) -> Iterator[Problem]:
    tls, client = case.loaded.settings.tls, case.loaded.settings.client
    password = tls.key_password if client.ca is None else None  # of a truststore it is as good
    for name, value, what in (("tls_key", tls.key, "a key"), ("tls_key_password", password, "a password")):
        if value and not tls.cert:
            fix = f"set {case.written('tls_cert', name)} too, or remove this"
            yield case.problem(name, f"there is {what} but no certificate", fix)


def _names_are_used(case: _Case) -> Iterator[Problem]:
    tls = case.loaded.settings.tls
    if tls.names and tls.cert:
        fact = f"the names would be ignored: {case.written('tls_cert', 'tls_cert')} gives a certificate with its own"
        yield case.problem("tls_names", fact, "remove one of the two")


def _client_settings_fit(case: _Case) -> Iterator[Problem]:
    """Nobody should think that clients are looked at when they are not, nor the other way round."""
    from sidecar.policy.access import access_of

    client = case.loaded.settings.client
    try:
        access = access_of(client, case.loaded.sources["client_rules"])
    except ConfigError as error:
        yield from error.problems
        return
    mode = access.handshake_mode
    if mode is ClientCertMode.NONE:
        for name in _FOR_CLIENTS:
            if SETTINGS[name].of(case.loaded.settings) != SETTINGS[name].default:
                fact = f"it would be ignored: {case.written('client_cert', name)} is none, so no client is asked"
                fix = f"set {case.written('client_cert', name)} to optional or required, or remove this"
                yield case.problem(name, fact, fix)
        return
    if client.ca is None:
        asking = "client_rules" if client.cert is ClientCertMode.NONE else "client_cert"
        fact = f"{case.written(asking, asking)} asks for client certificates, but there is no CA to check them with"
        yield case.problem("client_ca", fact, "set it to a PEM file of the CAs that you accept", beside=asking)
    if client.refusal is ClientRefusal.HANDSHAKE and not access.decides_per_connection:
        fact = "handshake: the handshake ends before the path is known, and there are rules or exempt paths"
        yield case.problem("client_refusal", fact, "set it to http, or do without rules by path, method and host")


_FOR_CLIENTS = ("client_ca", "client_crl", "client_cert_exempt", "client_allow", "client_deny")


def _client_material_is_usable(case: _Case) -> Iterator[Problem]:
    client = case.loaded.settings.client
    if client.ca is None:
        return
    from sidecar.certs.material import load_client_material  # as above

    for trouble in load_client_material(client, case.now, case.loaded.settings.tls.key_password)[1]:
        yield case.problem(trouble.setting, trouble.error.fact, trouble.error.fix)


def _log_format_is_used(case: _Case) -> Iterator[Problem]:
    log = case.loaded.settings.log
    if log.format and log.access is not AccessLogFormat.TEXT:
        written = case.written("access_log", "access_log_format")
        fact = f"it would be ignored: {written} is {log.access.value}"
        yield case.problem("access_log_format", fact, f"set {written} to text, or remove this")


def _lame_duck_fits(case: _Case) -> Iterator[Problem]:
    lame_duck, drain = case.loaded.settings.life.lame_duck, case.loaded.settings.timeouts.drain
    if lame_duck is not None and lame_duck >= drain:
        written = case.written("drain_timeout", "lame_duck")
        fact = f"it leaves no time to finish requests: it is part of {written}, which is {drain:g} s"
        yield case.problem("lame_duck", fact, f"set it lower, or {written} higher", beside="drain_timeout")


def _listeners_differ(case: _Case) -> Iterator[Problem]:
    settings = case.loaded.settings
    listeners = (
        ("listen", "TLS", settings.listen),
        ("admin", "admin", settings.admin),
        ("health", "health", settings.health),
    )
    on = [(name, kind, address) for name, kind, address in listeners if address is not None and case.has(name)]
    for (first, kind, taken), (second, _, address) in combinations(on, 2):
        if taken.port == address.port and _collide(taken.host, address.host):
            fact = f"{address} is taken by the {kind} listener, {taken}"
            yield case.problem(second, fact, "choose another port for one of them", beside=first)


def _upstream_is_elsewhere(case: _Case) -> Iterator[Problem]:
    settings = case.loaded.settings
    upstream = settings.upstream
    for name, listener in (("listen", settings.listen), ("admin", settings.admin), ("health", settings.health)):
        if not isinstance(upstream, HostPort) or listener is None or not case.has(name):
            continue
        if upstream.port == listener.port and _reaches(upstream.host, listener.host):
            fact = f"{upstream} is the sidecar itself ({case.written(name, 'upstream')} is {listener})"
            fix = "give the address of the app; if it is right, move the sidecar to another port"
            yield case.problem("upstream", fact, fix, beside=name)


# -- addresses --------------------------------------------------------------------------------------------------

_LOOPBACK = ("127.0.0.1", "::1")
_ANY_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not bound
_ANY = "::"
"""An IPv6 wildcard listener takes IPv4 too, unless the kernel is told otherwise."""

_CONNECTED = {_ANY_IPV4: "127.0.0.1", _ANY: "::1"}
"""Where a connection to a wildcard address ends."""


def _addresses(host: str) -> tuple[str, ...]:
    """What *host* stands for as far as that is known without asking a resolver."""
    return _LOOPBACK if host.lower() == "localhost" else (host.lower(),)


def _collide(one: str, other: str) -> bool:
    """Whether two listeners with these hosts cannot have the same port."""
    pairs = [(a, b) for a in _addresses(one) for b in _addresses(other)]
    return any(_covers(a, b) or _covers(b, a) for a, b in pairs)


def _reaches(target: str, listener: str) -> bool:
    """
    Whether a connection to host *target* is sure to end at a listener on host *listener*.

    A wildcard listener has all addresses of this machine, of which we know the loopback ones.
    """
    targets = [_CONNECTED.get(address, address) for address in _addresses(target)]
    pairs = [(a, b) for a in _addresses(listener) for b in targets]
    return any(a == b or (_is_loopback(b) and _covers(a, b)) for a, b in pairs)


def _covers(listener: str, address: str) -> bool:
    """Whether a listener on one host takes what goes to an address of this machine."""
    return listener in (address, _ANY) or (listener == _ANY_IPV4 and _version(address) == 4)


def _is_loopback(address: str) -> bool:
    return _version(address) is not None and ipaddress.ip_address(address).is_loopback


def _version(address: str) -> int | None:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None


_RULES: tuple[tuple[tuple[str, ...], Callable[[_Case], Iterator[Problem]]], ...] = (
    (("tls_cert", "tls_key", "tls_key_password", "client_ca"), _key_has_certificate),
    (("tls_cert", "tls_key", "tls_key_password"), _server_material_is_usable),
    (("tls_cert", "tls_names"), _names_are_used),
    (("client_cert", "client_rules", *_FOR_CLIENTS), _client_settings_fit),
    (("client_ca", "client_crl", "tls_key_password"), _client_material_is_usable),
    (("lame_duck", "drain_timeout"), _lame_duck_fits),
    (("access_log", "access_log_format"), _log_format_is_used),
    ((), _listeners_differ),
    (("upstream",), _upstream_is_elsewhere),
)
"""The settings that a rule cannot do without, and the rule."""

_ABOUT_MATERIAL = (_server_material_is_usable, _client_material_is_usable)
