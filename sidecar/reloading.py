"""
New settings and key material for a program that serves: read whole, checked whole, then handed over; or not at all.

What triggers it: a change of the files, SIGHUP, the admin endpoint. A set that cannot be used leaves the last good one
in force and raises an alarm, which stays until a good one is loaded. Files are rarely replaced in one step, so of a set
that was found on disk the alarm is raised only once it has stayed as it is for `SETTLE_SECONDS`: the key whose
certificate is still to come is no news. It is tried again from time to time as it is: a certificate may become valid, a
shortage may pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from twisted.logger import Logger

from sidecar.config.load import Loaded
from sidecar.config.names import SETTINGS
from sidecar.config.topology import topology_of
from sidecar.credentials import Credentials
from sidecar.errors import ConfigError, Problem
from sidecar.topology import Topology

SETTLE_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 60.0
"""Between two looks at a set that cannot be used; they begin with `SETTLE_SECONDS` and double."""

NEEDS_RESTART: Final = frozenset(
    {
        *("access_log", "access_log_format", "admin", "health", "http_redirect", "listen", "listen_tls", "mode"),
        *("wait", "workers"),
    }
)
"""Settings that are looked at only at start. Of listeners that is where they are and what is spoken on them."""

_OF_LISTENERS: Final = frozenset({"http_redirect", "listen", "listen_tls", "mode"})
"""Those among them that a list of listeners stands in place of."""

_log = Logger()


@attrs.define(eq=False, repr=False)
class ReloadState:
    """
    How the last reloads went, for readiness and metrics.

    Attributes:
        succeeded, failed: How many did, since start.
        last_success: Moment of the last, in seconds since the epoch; that of the start before the first.
        alarms: What is wrong with what should be in force; empty if it is.
    """

    last_success: float
    succeeded: int = 0
    failed: int = 0
    alarms: tuple[str, ...] = ()


class Reloader:
    """
    Attributes:
        loaded: The settings in force.
        state: How it went.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        reread: Callable[[], Loaded],
        load: Callable[[Loaded], Credentials],
        apply: Callable[[Loaded, Credentials], None],
        clock: Callable[[], float],
        reactor: Any,
    ) -> None:
        """
        Args:
            reread: Reads the settings anew; raises ConfigError.
            load: Reads and checks key material; raises ConfigError.
            apply: Puts both in force; cannot fail.
            clock: Seconds since the epoch.
            reactor: IReactorTime.
        """
        self.loaded = loaded
        self.state = ReloadState(clock())
        self._reread = reread
        self._load = load
        self._apply = apply
        self._clock = clock
        self._reactor = reactor
        self._retry_call: Any = None

    def files_changed(self) -> None:
        """What the settings name has other content now."""
        if self._try(self.loaded):
            self._retry_in(SETTLE_SECONDS)

    def reload(self) -> tuple[str, ...]:
        """
        Read settings and files anew, because somebody asked.

        Returns:
            What is wrong, a line each; empty if the new set is in force.
        """
        try:
            loaded = keep_what_needs_a_restart(self._reread(), self.loaded)
        except ConfigError as error:
            problems: Sequence[Problem] = error.problems
        else:
            problems = self._try(loaded)
        if problems:
            self._raise_alarm(problems)
        return self.state.alarms

    def stop(self) -> None:
        self._cancel_retry()

    def _try(self, loaded: Loaded) -> Sequence[Problem]:
        """Load and put in force, or return what is wrong."""
        try:
            credentials = self._load(loaded)
        except ConfigError as error:
            return error.problems
        self._cancel_retry()
        self.loaded = loaded
        self._apply(loaded, credentials)
        self.state.succeeded += 1
        self.state.last_success = self._clock()
        self.state.alarms = ()
        _log.info("reloaded; {certificates}", certificates=_describe(credentials))
        return ()

    def _raise_alarm(self, problems: Sequence[Problem]) -> None:
        self.state.failed += 1
        self.state.alarms = tuple(map(str, problems))
        for line in self.state.alarms:
            _log.error("reload failed, what was in force stays in force: {problem}", problem=line)

    def _retry_in(self, seconds: float) -> None:
        self._cancel_retry()
        self._retry_call = self._reactor.callLater(seconds, self._retry, seconds)

    def _retry(self, waited_seconds: float) -> None:
        problems = self._try(self.loaded)
        if problems:
            if tuple(map(str, problems)) != self.state.alarms:
                self._raise_alarm(problems)
            self._retry_in(min(2 * waited_seconds, MAX_RETRY_SECONDS))

    def _cancel_retry(self) -> None:
        if self._retry_call is not None and self._retry_call.active():
            self._retry_call.cancel()
        self._retry_call = None


def keep_what_needs_a_restart(loaded: Loaded, before: Loaded) -> Loaded:
    """
    Return *loaded* with those settings of *before* that are looked at only at start, and say so.

    Raises:
        ConfigError: The list of listeners describes other ones. Part of them with part of what they were would be
            something that nobody has written.
    """
    settings, sources = loaded.settings, dict(loaded.sources)
    is_list = any(each.settings.downstream.listeners for each in (loaded, before))
    for name in NEEDS_RESTART - _OF_LISTENERS if is_list else NEEDS_RESTART:
        setting, old = SETTINGS[name], SETTINGS[name].of(before.settings)
        if setting.of(settings) != old:
            _log.warn(
                "{name} is now {new}, and stays {old} until a restart",
                name=setting.written_in(sources[name]),
                new=setting.text(setting.of(settings)),
                old=setting.text(old),
            )
            settings = setting.put(settings, old)
            sources[name] = before.sources[name]
    kept = attrs.evolve(loaded, settings=settings, sources=sources)
    new, old = (_fixed(topology_of(each)) for each in (kept, before))
    if new != old:
        name = "listeners"
        source = sources[name] if settings.downstream.listeners else before.sources[name]
        written = SETTINGS[name].written_in(source)
        fact = f"the listeners are other ones than those that serve: {_named(new)} and not {_named(old)}, in this order"
        raise ConfigError([Problem(written, source, fact, "restart to change them, or undo it")])
    return kept


def _fixed(topology: Topology) -> list[tuple[str, str, bool, str]]:
    """What of listeners cannot change while they serve."""
    return [(spec.name, str(spec.address), spec.tls, spec.mode.value) for spec in topology.listeners]


def _named(listeners: list[tuple[str, str, bool, str]]) -> str:
    shown = (f"{name} on {address} ({mode}, TLS {'on' if tls else 'off'})" for name, address, tls, mode in listeners)
    return ", ".join(shown)


def _describe(credentials: Credentials) -> str:
    leafs = [bundle.leaf for bundle in credentials.bundles]
    named = ", ".join(f"{leaf.subject.rfc4514_string()!r} until {leaf.not_valid_after_utc:%Y-%m-%d}" for leaf in leafs)
    return f"serving {named}"
