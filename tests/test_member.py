"""`member`: a worker that is told what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar import control
from sidecar.certs import selfsigned
from sidecar.config.load import Loaded, load
from sidecar.config.names import SETTINGS
from sidecar.control import Kind, Message, encode
from sidecar.errors import Problem
from sidecar.member import Member, Start, receive_start, share_of, tell_failure
from sidecar.observe import logs
from sidecar.observe.metrics import Metrics
from tests.admin.fakes import GOOD, FakeOperator
from tests.support.certs import NOW
from tests.support.ports import FakeReactor


class FakeProgram:
    """Notes what it is told; the test says when it has drained."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stopped: Callable[[int], None] = lambda cut: None

    def drain(self, stopped: Callable[[int], None], *, replaced: bool) -> None:
        self.told.append("drain for a successor" if replaced else "drain")
        self.stopped = stopped

    def force(self) -> None:
        self.told.append("force")
        self.stopped(1)


class StoppableReactor(FakeReactor):
    """Counts stops."""

    stops = 0

    def stop(self) -> None:
        self.stops += 1


class Worker:
    """A member, with the supervisor's end of its channel."""

    def __init__(self) -> None:
        self.reactor = StoppableReactor()
        self.program = FakeProgram()
        self.supervisor, sock = socket.socketpair()
        self.supervisor.settimeout(5)
        self.member = Member(sock, self.program, self.reactor)
        self.member.start()

    def serve(self, operator: Any = None) -> None:
        self.member.serves(operator or FakeOperator(metrics=Metrics(requests=3)))
        assert self.hears() == Message(Kind.READY)

    def is_told(self, kind: Kind, body: Any = None, id: int = 0) -> None:
        self.supervisor.sendall(encode(Message(kind, body, id)))
        for reader in list(self.reactor.readers):
            reader.doRead()

    def hears(self) -> Message:
        return control.receive(self.supervisor)

    def loses_supervisor(self) -> None:
        self.supervisor.close()
        for reader in list(self.reactor.readers):
            reader.doRead()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.supervisor.close()
    for reader in list(worker.reactor.readers):
        reader.close()


class TestQuestions:
    def test_answer_has_the_number_of_the_question(self, worker: Worker) -> None:
        """So that one that comes late is not taken for another."""
        worker.serve()
        worker.is_told(Kind.QUESTION, "readiness", 12)
        assert worker.hears() == Message(Kind.ANSWER, [[GOOD.name, "ok", GOOD.text]], 12)

    @pytest.mark.parametrize("part", ["unknown", "connections"])
    def test_question_that_cannot_be_answered_gets_none(self, worker: Worker, part: str) -> None:
        """The supervisor must not wait for it; traffic goes on."""
        worker.serve(FakeOperator(open=None))  # type: ignore[arg-type]
        worker.is_told(Kind.QUESTION, part, 3)
        assert worker.hears() == Message(Kind.ANSWER, None, 3)

    def test_question_before_it_serves_gets_none(self, worker: Worker) -> None:
        """There is nothing to tell yet."""
        worker.is_told(Kind.QUESTION, "figures", 3)
        assert worker.hears() == Message(Kind.ANSWER, None, 3)


class TestEnd:
    @pytest.mark.parametrize(("replaced", "told"), [(False, "drain"), (True, "drain for a successor")])
    def test_drain_ends_with_the_last_figures(self, worker: Worker, replaced: bool, told: str) -> None:
        """What was counted until the end is not lost with the process."""
        worker.serve()
        worker.is_told(Kind.DRAIN, replaced)
        worker.is_told(Kind.DRAIN, replaced)
        assert worker.program.told == [told]
        assert worker.reactor.stops == 0
        worker.program.stopped(0)
        farewell = worker.hears()
        assert farewell.kind is Kind.FAREWELL
        assert farewell.body["sidecar_requests_total"] == [[[], 3]]
        assert worker.reactor.stops == 1

    def test_force_cuts_a_drain(self, worker: Worker) -> None:
        """The drain has been told where to report."""
        worker.serve()
        worker.is_told(Kind.DRAIN, False)
        worker.is_told(Kind.FORCE)
        assert worker.program.told == ["drain", "force"]
        assert worker.reactor.stops == 1

    def test_force_alone_ends_too(self, worker: Worker) -> None:
        """Whatever came before it."""
        worker.serve()
        worker.is_told(Kind.FORCE)
        assert worker.reactor.stops == 1

    @pytest.mark.parametrize("kind", [Kind.DRAIN, Kind.FORCE])
    def test_one_that_does_not_serve_yet_ends_at_once(self, worker: Worker, kind: Kind) -> None:
        """It has nothing in flight; told twice, it ends once."""
        worker.is_told(kind)
        worker.is_told(kind)
        assert (worker.program.told, worker.reactor.stops) == ([], 1)

    def test_lost_supervisor_is_a_drain(self, worker: Worker) -> None:
        """Nobody would ever tell it to stop."""
        worker.serve()
        worker.loses_supervisor()
        assert worker.program.told == ["drain"]
        worker.program.stopped(0)
        assert worker.reactor.stops == 1

    def test_supervisor_lost_before_it_serves_is_the_end(self, worker: Worker) -> None:
        """It is not needed any more."""
        worker.loses_supervisor()
        assert worker.reactor.stops == 1


class TestLogLevel:
    def test_level_is_set(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        """From then on, in this process."""
        levels: list[Any] = []
        monkeypatch.setattr(logs, "set_level", levels.append)
        worker.is_told(Kind.LOG_LEVEL, "debug")
        assert [level.value for level in levels] == ["debug"]


class TestStrangeMessages:
    def test_those_for_the_supervisor_do_nothing(self, worker: Worker) -> None:
        """They are noted in the log, and the worker serves on."""
        worker.serve()
        worker.is_told(Kind.READY)
        assert (worker.program.told, worker.reactor.stops) == ([], 0)


class TestStart:
    @pytest.mark.parametrize("given", [True, False])
    def test_it_survives_the_channel(self, given: bool) -> None:
        """With the certificate, whose key is the same."""
        bundle = selfsigned.make(["localhost"], NOW) if given else None
        start = Start(
            loaded=load({"listen": ":443"}, {}),
            flags={"listen": ":443"},
            environ={"SIDECAR_TLS_KEY": "x"},
            workers=3,
            ephemeral=bundle,
            place=(5, 2) if given else None,
        )
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(encode(Message(Kind.START, start.pack())))
            found = receive_start(ours)
        assert found == start
        if bundle is not None:
            assert found.ephemeral is not None
            key: Any = found.ephemeral.private_key
            assert key.public_key() == bundle.leaf.public_key()

    def test_secrets_are_not_shown(self) -> None:
        """Neither settings nor keys."""
        loaded = load({"tls_key_password": "secret"}, {})
        start = Start(loaded=loaded, flags={"a": "secret"}, environ={"b": "secret"}, workers=1)
        assert "secret" not in repr(start)

    @pytest.mark.parametrize(
        "flags",
        [
            pytest.param({}, id="defaults"),
            pytest.param(
                {"tls_key": "-----BEGIN PRIVATE KEY-----", "tls_cert": "-----BEGIN CERTIFICATE-----"}, id="PEM"
            ),
            pytest.param({"tls_key_password": "./none", "tls_cert": "./none,/b"}, id="paths that look like words"),
            pytest.param({"tls_key_password": "p,äß\udcff"}, id="password that is no text"),
            pytest.param({"upstream": "unix:/run/app.sock", "health": "[::1]:8080", "workers": "auto"}, id="addresses"),
            pytest.param(
                {
                    "upstream": "https://a,https+unix:/b",
                    "trusted_proxies": "10.0.0.0/8",
                    "upstream_names": "spiffe://a/b",
                    "proxy_protocol": "trusted",
                    "upstream_cert": "-----BEGIN CERTIFICATE-----",
                    "http_redirect": ":80",
                    "clusters": '[{"name":"a","endpoints":"b:1"}]',
                },
                id="upstreams",
            ),
            pytest.param({"client_rules": '[{"paths":["/a"],"mode":"none"}]', "idle_timeout": "1500ms"}, id="rules"),
            pytest.param({"identity_headers": "xfcc,tls", "client_allow": "cn=a", "log_level": "debug"}, id="words"),
        ],
    )
    def test_settings_arrive_as_they_are(self, flags: dict[str, str]) -> None:
        """Secrets and types included, with the source of each; no text of an operator is read again."""
        start = Start(loaded=load(flags, {}), flags=flags, environ={}, workers=2)
        found = Start.unpack(json.loads(json.dumps(start.pack())))
        assert found.loaded == start.loaded
        assert types_in(found.loaded) == types_in(start.loaded)

    def test_places_arrive(self, tmp_path: Path) -> None:
        """What a worker finds wrong is said with its line."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("clusters:\n- name: a\n  endpoints: b:1\n")
        flags = {"config": str(file)}
        start = Start(loaded=load(flags, {}), flags=flags, environ={}, workers=2)
        found = Start.unpack(json.loads(json.dumps(start.pack())))
        assert found.loaded.places["clusters[0].endpoints"] == f"{file}:3"
        assert found.loaded == start.loaded

    def test_file_is_not_read_again(self, tmp_path: Path) -> None:
        """What was written to it since is in force nowhere."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("max_headers: 50\n")
        flags = {"config": str(file)}
        start = Start(loaded=load(flags, {}), flags=flags, environ={}, workers=2)
        file.write_text("max_headers: 60\n")
        loaded = Start.unpack(start.pack()).loaded
        assert (loaded.settings.limits.headers, loaded.sources["max_headers"]) == (50, f"{file}:1")

    def test_another_first_message_is_refused(self) -> None:
        """A supervisor of another version, at best."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(encode(Message(Kind.READY)))
            with pytest.raises(ValueError, match="ready"):
                receive_start(ours)


def types_in(loaded: Loaded) -> list[type]:
    """Of each value: what is equal need not be the same, as 1 and 1.0."""
    return [type(setting.of(loaded.settings)) for setting in SETTINGS.values()]


class TestShareOf:
    @pytest.mark.parametrize(("workers", "expected"), [(1, 100), (3, 33), (200, 1)])
    def test_limits_for_all_are_divided(self, workers: int, expected: int) -> None:
        """Rounded down, but each worker can serve somebody; other limits are per connection and stay."""
        loaded = load({"max_connections": "100", "max_upstream_connections": "100"}, {})
        limits = share_of(loaded, workers).settings.limits
        assert (limits.connections, limits.upstream_connections) == (expected, expected)
        assert limits.headers == loaded.settings.limits.headers


class TestTellFailure:
    def test_problems_reach_the_supervisor(self) -> None:
        """All of them, as they are."""
        problem = Problem("SIDECAR_TLS_CERT", "environment", "is missing", "put it there")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            tell_failure(theirs, [problem])
            message = control.receive(ours)
        assert message.kind is Kind.FAILED
        assert control.unpack_problems(message.body) == (problem,)

    def test_supervisor_that_has_gone_is_no_error(self) -> None:
        """The exit status says it too."""
        ours, theirs = socket.socketpair()
        ours.close()
        with theirs:
            tell_failure(theirs, [])
            assert theirs.gettimeout() is not None
