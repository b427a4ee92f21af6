"""`reloading`: a new set is put in force whole, or not at all, and what is wrong is told for as long as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet import task
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from sidecar.config.load import Loaded, load
from sidecar.credentials import Credentials
from sidecar.errors import ConfigError, Problem
from sidecar.reloading import MAX_RETRY_SECONDS, NEEDS_RESTART, SETTLE_SECONDS, Reloader
from tests.support.certs import authority

A = {"name": "a", "address": "127.0.0.1:1443", "cluster": "app"}
B = {"name": "b", "address": "127.0.0.1:2443", "cluster": "app"}
MAIN = {"name": "main", "address": "0.0.0.0:443", "cluster": "app"}


def listeners(*written: dict[str, Any]) -> dict[str, str]:
    return {"listeners": json.dumps(written)}


def routed(listener: dict[str, Any], path: str) -> dict[str, Any]:
    """The same listener, with a route instead of a cluster."""
    routes = [{"match": {"prefix": path}, "cluster": "app"}]
    return {key: value for key, value in listener.items() if key != "cluster"} | {"virtual_hosts": [{"routes": routes}]}


# What is in force, what is wanted now, and what the operator reads of it.
OTHER_LISTENERS: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "another address": (listeners(A), listeners(A | {"address": "127.0.0.1:3443"}), "a on 127.0.0.1:3443 (http, TLS"),
    "another name": (listeners(A), listeners(A | {"name": "c"}), "c on 127.0.0.1:1443 (http, TLS on) and not a on"),
    "no TLS": (
        listeners(A),
        listeners(A | {"tls": "off"}),
        "(http, TLS off) and not a on 127.0.0.1:1443 (http, TLS on)",
    ),
    "another mode": (listeners(A), listeners(A | {"mode": "tcp"}), "a on 127.0.0.1:1443 (tcp, TLS on) and not"),
    "reordered": (listeners(A, B), listeners(B, A), "in this order"),
    "one more": (listeners(A), listeners(A, B), "b on 127.0.0.1:2443"),
    "one less": (listeners(A, B), listeners(A), "and not a on 127.0.0.1:1443 (http, TLS on), b on 127.0.0.1:2443"),
    "one changed, with new routes": (listeners(A, B), listeners(routed(A, "/x"), B | {"name": "c"}), "c on"),
    "from the small form": ({}, listeners(A), "and not main on 0.0.0.0:443"),
    "back to the small form": (listeners(A), {"listen": "127.0.0.1:1443"}, "and not a on 127.0.0.1:1443"),
}

SAME_LISTENERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "PROXY headers": (listeners(A, B), listeners(A, B | {"proxy_protocol": "required"})),
    "routes": (listeners(A, B), listeners(routed(A, "/"), B)),
    "other routes": (listeners(routed(A, "/x")), listeners(routed(A, "/y"))),
    "written otherwise": ({}, listeners(routed(MAIN, "/"))),
    "from a given address": (
        {"listen": "127.0.0.1:1443"},
        listeners({"name": "main", "address": "127.0.0.1:1443", "cluster": "app"}),
    ),
}

PROBLEM = Problem("SIDECAR_TLS_KEY", "environment", "the key does not fit", "give the right one")


class World:
    """Settings and files that a test changes, and what was put in force."""

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.loaded = load({}, {})
        self.problems: tuple[Problem, ...] = ()
        self.applied: list[tuple[Loaded, object]] = []
        self.credentials = SimpleNamespace(bundles=(authority().issue("localhost").bundle,))
        self.reloader = Reloader(
            self.loaded,
            reread=self.reread,
            load=self.load,
            apply=lambda loaded, credentials: self.applied.append((loaded, credentials)),
            clock=lambda: 1000.0 + self.clock.seconds(),
            reactor=self.clock,
        )

    def reread(self) -> Loaded:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded

    def load(self, loaded: Loaded) -> Credentials:
        if self.problems:
            raise ConfigError(self.problems)
        return cast(Credentials, self.credentials)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def errors(log: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in log if event["log_level"] is LogLevel.error]


class TestFilesChanged:
    def test_good_set_is_put_in_force(self, world: World) -> None:
        """At once, with the settings that are in force already."""
        world.clock.advance(5)
        world.reloader.files_changed()
        assert world.applied == [(world.loaded, world.credentials)]
        state = world.reloader.state
        assert (state.succeeded, state.failed, state.last_success, state.alarms) == (1, 0, 1005.0, ())

    def test_torn_set_waits_for_its_other_half(self, world: World, log: list[LogEvent]) -> None:
        """The key whose certificate is still to come is no news."""
        world.problems = (PROBLEM,)
        world.reloader.files_changed()
        world.clock.advance(SETTLE_SECONDS - 0.1)
        world.problems = ()
        world.reloader.files_changed()
        world.clock.advance(SETTLE_SECONDS)
        assert len(world.applied) == 1
        assert world.reloader.state.failed == 0
        assert errors(log) == []

    def test_bad_set_that_stays_raises_an_alarm(self, world: World, log: list[LogEvent]) -> None:
        """The last good one serves on; the alarm stays until there is a good one."""
        world.problems = (PROBLEM,)
        world.reloader.files_changed()
        world.clock.advance(1.0)
        world.reloader.files_changed()
        world.clock.advance(SETTLE_SECONDS)
        assert world.applied == []
        assert world.reloader.state.alarms == (str(PROBLEM),)
        assert world.reloader.state.failed == 1
        assert errors(log) == [f"reload failed, what was in force stays in force: {PROBLEM}"]
        world.problems = ()
        world.reloader.files_changed()
        assert world.reloader.state.alarms == ()
        assert not world.clock.getDelayedCalls()

    def test_bad_set_that_becomes_good_by_itself_is_put_in_force(self, world: World, log: list[LogEvent]) -> None:
        """A certificate becomes valid, a shortage passes: no file changes then. The alarm is told once."""
        world.problems = (PROBLEM,)
        world.reloader.files_changed()
        world.clock.pump([1.0] * 200)
        assert len(errors(log)) == 1
        world.problems = ()
        world.clock.advance(MAX_RETRY_SECONDS)
        assert len(world.applied) == 1
        assert world.reloader.state.alarms == ()
        assert not world.clock.getDelayedCalls()

    def test_nothing_is_tried_after_a_stop(self, world: World) -> None:
        """Neither now nor later."""
        world.problems = (PROBLEM,)
        world.reloader.files_changed()
        world.reloader.stop()
        assert not world.clock.getDelayedCalls()


class TestReload:
    def test_settings_are_read_anew(self, world: World) -> None:
        """What can change at run time does."""
        world.loaded = load({"idle_timeout": "99s"}, {})
        assert world.reloader.reload() == ()
        assert world.applied[0][0].settings.timeouts.idle == 99
        assert world.reloader.loaded is world.applied[0][0]

    def test_what_is_wrong_is_the_answer(self, world: World, log: list[LogEvent]) -> None:
        """Whoever asked is told at once, and the log too."""
        world.problems = (PROBLEM,)
        assert world.reloader.reload() == (str(PROBLEM),)
        assert len(errors(log)) == 1
        assert world.applied == []

    def test_settings_that_cannot_be_read_change_nothing(self, world: World) -> None:
        """A slip in the file is not the end."""
        world.loaded = cast(Any, ConfigError([PROBLEM, PROBLEM]))
        assert len(world.reloader.reload()) == 2
        assert world.applied == []

    @pytest.mark.parametrize(
        ("name", "value"), [("listen", "127.0.0.1:1"), ("mode", "tcp"), ("listen_tls", "off"), ("access_log", "off")]
    )
    def test_what_needs_a_restart_stays(self, world: World, log: list[LogEvent], name: str, value: str) -> None:
        """And is said so; the rest is put in force."""
        before = world.loaded
        world.loaded = load({name: value, "idle_timeout": "99s"}, {})
        assert world.reloader.reload() == ()
        ((loaded, _),) = world.applied
        assert loaded.settings.timeouts.idle == 99
        assert (loaded.settings.listen, loaded.settings.downstream) == (
            before.settings.listen,
            before.settings.downstream,
        )
        assert loaded.sources[name] == "default"
        warnings = [formatEvent(event) for event in log if event["log_level"] is LogLevel.warn]
        assert len(warnings) == 1
        assert "until a restart" in warnings[0]

    def test_routes_and_clusters_need_none(self, world: World) -> None:
        """Where requests go is looked at anew."""
        world.loaded = load({"upstream": "http://127.0.0.1:1", "virtual_hosts": '[{"routes":[{"cluster":"app"}]}]'}, {})
        assert world.reloader.reload() == ()
        ((loaded, _),) = world.applied
        assert str(loaded.settings.upstream) == "127.0.0.1:1"
        assert loaded.settings.downstream.virtual_hosts

    @pytest.mark.parametrize(("before", "after", "hint"), OTHER_LISTENERS.values(), ids=OTHER_LISTENERS)
    def test_other_listeners_refuse_the_whole_set(
        self, world: World, log: list[LogEvent], before: dict[str, str], after: dict[str, str], hint: str
    ) -> None:
        """Routes of the new set on listeners of the old one would be something that nobody has written."""
        world.reloader.loaded = load(before, {})
        world.loaded = load({**after, "idle_timeout": "99s"}, {})
        (alarm,) = world.reloader.reload()
        assert "the listeners are other ones than those that serve" in alarm
        assert hint in alarm
        assert "restart to change them" in alarm
        assert world.applied == []
        assert world.reloader.loaded.settings.timeouts.idle != 99
        assert (world.reloader.state.failed, world.reloader.state.alarms) == (1, (alarm,))
        assert len(errors(log)) == 1

    @pytest.mark.parametrize(("before", "after"), SAME_LISTENERS.values(), ids=SAME_LISTENERS)
    def test_same_listeners_take_what_is_new_about_them(
        self, world: World, before: dict[str, str], after: dict[str, str]
    ) -> None:
        """Where they are and what is spoken on them is all that a restart is needed for."""
        world.reloader.loaded = load(before, {})
        world.loaded = load(after, {})
        assert world.reloader.reload() == ()
        ((loaded, _),) = world.applied
        assert loaded.settings.downstream == world.loaded.settings.downstream

    @pytest.mark.parametrize("wanted", [A, MAIN], ids=["elsewhere", "another address"])
    def test_small_form_with_an_address_is_not_mixed_with_a_list(self, world: World, wanted: dict[str, Any]) -> None:
        """Neither the address of the one nor the routes of the other are put in force."""
        world.reloader.loaded = before = load({"listen": "127.0.0.1:1443"}, {})
        world.loaded = load({**listeners(wanted), "idle_timeout": "99s"}, {})
        assert len(world.reloader.reload()) == 1
        assert world.applied == []
        assert world.reloader.loaded is before

    def test_refused_listeners_are_forgotten_once_they_are_undone(self, world: World) -> None:
        """The alarm ends with the set that is no longer wanted."""
        world.reloader.loaded = load(listeners(A), {})
        world.loaded = load(listeners(A, B), {})
        assert world.reloader.reload() != ()
        world.loaded = load({**listeners(A), "idle_timeout": "99s"}, {})
        assert world.reloader.reload() == ()
        assert world.reloader.state.alarms == ()
        assert world.reloader.loaded.settings.timeouts.idle == 99

    def test_names_that_need_a_restart_exist(self) -> None:
        """A setting that is renamed must not slip out of the list."""
        assert set(load({}, {}).sources) >= NEEDS_RESTART
