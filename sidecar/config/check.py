"""
Rules between settings, and whether the key material they name can be used.

What one value may be alone, its parser and bounds say. A rule looks only at settings whose values were accepted
(`Loaded.sources` names them), so that one mistake is not reported as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from sidecar.config import hosts, topology, traffic
from sidecar.config.case import Case, Rule
from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.config.upstreams import part_of, tls_of
from sidecar.errors import ConfigError, Problem
from sidecar.settings import AccessLogFormat, ClientCertMode, ClientRefusal

if TYPE_CHECKING:
    from sidecar.policy import authz

ALB_IDLE_TIMEOUT = 60
"""Seconds that an AWS Application Load Balancer keeps an idle connection. If we close first, it may lose a request."""

USUAL_GRACE_PERIOD = 30
"""Seconds from SIGTERM to SIGKILL on ECS (stopTimeout) and Kubernetes (terminationGracePeriodSeconds)."""

LONG_WAIT = 60
"""Seconds. Clients that say nothing hold a connection for this long: beyond, a few hosts can use up the limit."""


def check(
    loaded: Loaded, now: datetime, *, with_material: bool = True, resolve: Callable[[str], bool] | None = None
) -> list[Problem]:
    """
    All problems between settings and with the key material they name; empty if it can work.

    Args:
        loaded: From `load`, or from `gather` if some values were refused.
        now: The moment that certificates must be valid at; has a time zone.
        with_material: Whether to look at the files too.
        resolve: Says whether a host name has an address; None: nobody is asked.
    """
    case = Case(loaded, now, topology.read(loaded), resolve)
    rules = [(names, rule) for names, rule in _RULES if with_material or rule not in _ABOUT_MATERIAL]
    found = [problem for names, rule in rules if case.has(*names) for problem in rule(case)]
    return list(dict.fromkeys((*found, *case.reading.problems)))  # a password that opens nothing is told once


def warnings(loaded: Loaded, resolve: Callable[[str], bool] | None = None) -> list[str]:
    """
    What works but probably is not meant, one line each, naming setting and source.

    Args:
        loaded: From `load`.
        resolve: As for `check`; for who wants to start all the same.
    """
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
    if settings.admin is not None and not hosts.is_local(settings.admin.host):
        found.append(("admin", "reachable from other machines, and it has no authentication"))
    reading = topology.read(loaded)
    found += traffic.doubts(loaded, reading)
    for place, host in traffic.unresolved(reading, resolve):
        found.append((place, f"{host} has no address; it is asked for again and again"))
    return [_warning(loaded, name, fact) for name, fact in found]


def _looks_like_a_subject(text: str) -> bool:
    """Whether a list reads like a distinguished name from a log: several attributes of subjects, each another one."""
    fields = [term.partition("=")[0].strip() for term in text.split(",")]
    return len(fields) > 1 and len(set(fields)) == len(fields) and set(fields) <= {"cn", "ou", "o"}


def material_warnings(loaded: Loaded, now: datetime) -> list[str]:
    """The same for the certificates and lists that the settings name, which can be used."""
    from sidecar.certs.material import load_client_material, load_server_material, load_upstream_material

    clients, _ = load_client_material(loaded.settings.client, now, loaded.settings.tls.key_password)
    server, _ = load_server_material(loaded.settings.tls, now, clients.anchors)
    found = [*server.warnings, *clients.warnings]
    for place, tls in tls_of(topology.read(loaded)):
        upstream, _ = load_upstream_material(tls.ca, tls.cert, tls.key, now, loaded.settings.tls.key_password)
        found += [(part_of(place, part), text) for part, text in upstream.warnings]
    return [f"{_written(loaded, name)} ({loaded.source_of(name)}): {text}" for name, text in found]


def _written(loaded: Loaded, name: str) -> str:
    """A setting as it was written, or a place."""
    return SETTINGS[name].written_in(loaded.sources[name]) if name in SETTINGS else name


def _warning(loaded: Loaded, name: str, fact: str) -> str:
    if name not in SETTINGS:
        return f"{name} ({loaded.source_of(name)}): {fact}"
    setting, source = SETTINGS[name], loaded.sources[name]
    return f"{setting.written_in(source)} ({source}): {setting.text(setting.of(loaded.settings))}: {fact}"


def _server_material_is_usable(case: Case) -> Iterator[Problem]:
    tls = case.loaded.settings.tls
    if not tls.cert:
        return
    from sidecar.certs.material import load_server_material  # cryptography costs time; many runs have no files

    for trouble in load_server_material(tls, case.now)[1]:
        yield case.problem(trouble.setting, trouble.error.fact, trouble.error.fix, beside="tls_cert")


def _key_has_certificate(case: Case) -> Iterator[Problem]:
    tls, client = case.loaded.settings.tls, case.loaded.settings.client
    others = client.ca is not None or any(each.cert or each.ca for _, each in tls_of(case.reading))
    password = None if others else tls.key_password  # of a truststore, or of our own key, it is as good
    for name, value, what in (("tls_key", tls.key, "a key"), ("tls_key_password", password, "a password")):
        if value and not tls.cert:
            fix = f"set {case.written('tls_cert', name)} too, or remove this"
            yield case.problem(name, f"there is {what} but no certificate", fix)


def _names_are_used(case: Case) -> Iterator[Problem]:
    tls = case.loaded.settings.tls
    if tls.names and tls.cert:
        fact = f"the names would be ignored: {case.written('tls_cert', 'tls_cert')} gives a certificate with its own"
        yield case.problem("tls_names", fact, "remove one of the two")


def _client_settings_fit(case: Case) -> Iterator[Problem]:
    """Nobody should think that clients are looked at when they are not, nor the other way round."""
    from sidecar.policy.access import access_of

    client = case.loaded.settings.client
    try:
        access = access_of(client, case.loaded.sources["client_rules"], _rules_of_routes(case))
    except ConfigError as error:
        for problem in error.problems:
            yield attrs.evolve(problem, source=case.loaded.source_of(problem.setting))
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
        asking = case.asking
        fact = f"{case.written(asking, asking)} asks for client certificates, but there is no CA to check them with"
        yield case.problem("client_ca", fact, "set it to a PEM file of the CAs that you accept", beside=asking)
    if client.refusal is ClientRefusal.HANDSHAKE and not access.decides_per_connection:
        fact = "handshake: the handshake ends before the path is known, and there are rules or exempt paths"
        yield case.problem("client_refusal", fact, "set it to http, or do without rules by path, method and host")


def _rules_of_routes(case: Case) -> list[authz.Rule]:
    """What the routes of all listeners ask of clients."""
    from sidecar.policy.access import default_rule
    from sidecar.policy.routes import client_rule

    routes = [
        route
        for listener in case.reading.listeners.values()
        for virtual_host in listener.virtual_hosts
        for route in virtual_host.routes
        if route.client is not None
    ]
    if not routes:
        return []
    default = default_rule(case.loaded.settings.client)
    return [rule for route in routes if (rule := client_rule(route, default)) is not None]


_FOR_CLIENTS = ("client_ca", "client_crl", "client_cert_exempt", "client_allow", "client_deny")


def _client_material_is_usable(case: Case) -> Iterator[Problem]:
    client = case.loaded.settings.client
    if client.ca is None:
        return
    from sidecar.certs.material import load_client_material  # as above

    for trouble in load_client_material(client, case.now, case.loaded.settings.tls.key_password)[1]:
        yield case.problem(trouble.setting, trouble.error.fact, trouble.error.fix)


def _upstream_material_is_usable(case: Case) -> Iterator[Problem]:
    password = case.loaded.settings.tls.key_password
    for place, tls in tls_of(case.reading):
        from sidecar.certs.material import load_upstream_material  # as above

        for trouble in load_upstream_material(tls.ca, tls.cert, tls.key, case.now, password)[1]:
            name = part_of(place, trouble.setting)
            yield case.problem(name, trouble.error.fact, trouble.error.fix, beside="upstream_cert")


def _log_format_is_used(case: Case) -> Iterator[Problem]:
    log = case.loaded.settings.log
    if log.format and log.access is not AccessLogFormat.TEXT:
        written = case.written("access_log", "access_log_format")
        fact = f"it would be ignored: {written} is {log.access.value}"
        yield case.problem("access_log_format", fact, f"set {written} to text, or remove this")


def _lame_duck_fits(case: Case) -> Iterator[Problem]:
    lame_duck, drain = case.loaded.settings.life.lame_duck, case.loaded.settings.timeouts.drain
    if lame_duck is not None and lame_duck >= drain:
        written = case.written("drain_timeout", "lame_duck")
        fact = f"it leaves no time to finish requests: it is part of {written}, which is {drain:g} s"
        yield case.problem("lame_duck", fact, f"set it lower, or {written} higher", beside="drain_timeout")


_RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("tls_cert", "tls_key", "tls_key_password", "client_ca"), _key_has_certificate),
    (("tls_cert", "tls_key", "tls_key_password"), _server_material_is_usable),
    (("tls_cert", "tls_names"), _names_are_used),
    (("client_cert", "client_rules", *_FOR_CLIENTS), _client_settings_fit),
    (("client_ca", "client_crl", "tls_key_password"), _client_material_is_usable),
    (("lame_duck", "drain_timeout"), _lame_duck_fits),
    (("access_log", "access_log_format"), _log_format_is_used),
    *traffic.RULES,
    (("upstream_ca", "upstream_cert", "upstream_key", "tls_key_password"), _upstream_material_is_usable),
)
"""The settings that a rule cannot do without, and the rule."""

_ABOUT_MATERIAL = (_server_material_is_usable, _client_material_is_usable, _upstream_material_is_usable)
