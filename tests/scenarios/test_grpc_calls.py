"""
Ensures that gRPC passes with everything that a call is made of: from grpcio's own client over TLS, through the sidecar,
to grpcio's own server over h2c.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.scenarios.clients import in_parallel
from tests.scenarios.conftest import Launch
from tests.support.apps import pattern, pattern_sha256
from tests.support.certs import CLIENT, Issued, authority
from tests.support.grpcapp import ADORNMENT, LARGEST_MESSAGE, GrpcApp, path
from tests.support.program import Port, Program, eventually

import grpc  # isort: skip - it reads at import what tests.support.grpcapp sets

TIMEOUT_SECONDS = 30.0
"""Of every call that is to end by itself."""

MANY = 10_000

LARGE = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcApp]:
    """The app of the module, whose gate stays shut."""
    with GrpcApp(tmp_path_factory.mktemp("grpc-app")) as running:
        yield running


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[GrpcApp]:
    """An app for one test, whose gate is shut."""
    with GrpcApp(tmp_path / "app") as running:
        yield running


@contextmanager
def connected(*programs: Program, identity: Issued | None = None) -> Iterator[grpc.Channel]:
    """
    A client that trusts the test root.

    Args:
        programs: Where it connects to: the first that it can.
        identity: Its certificate.
    """
    key, chain = (None, None) if identity is None else (identity.key_pem, identity.cert_pem)
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.default_authority", f"localhost:{programs[0].port}"),
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),  # connections of its own, as clients in several processes have
        ("grpc.enable_http_proxy", 0),
    ]
    target = "ipv4:" + ",".join(f"{program.host}:{program.port}" for program in programs)
    trust = grpc.ssl_channel_credentials(authority().cert_pem, key, chain)
    with grpc.secure_channel(target, trust, options) as channel:
        yield channel


@pytest.fixture
def channel(program: Program) -> Iterator[grpc.Channel]:
    """A client of the module's sidecar."""
    with connected(program) as channel:
        yield channel


def ask(channel: grpc.Channel, method: str, message: bytes = b"", **options: Any) -> bytes:
    """Make a unary call; return its answer."""
    return channel.unary_unary(path(method))(message, timeout=TIMEOUT_SECONDS, **options)


def seen(channel: grpc.Channel, **options: Any) -> dict[str, Any]:
    """What the app sees of a call beside its message."""
    return json.loads(ask(channel, "Seen", **options))


def values(metadata: Any, name: str) -> list[str | bytes]:
    """The values of *name* in the *metadata* of grpcio, or in what `seen` gives."""
    return [value for key, value in metadata or () if key == name]


def ours(metadata: Any) -> tuple[tuple[str, str | bytes], ...]:
    """What tests put into the *metadata* of grpcio."""
    return tuple((name, value) for name, value in metadata if name.startswith(("x-first", "x-last")))


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@attrs.frozen
class Pending:
    """
    A way to make a call that does not end before its client leaves it.

    Attributes:
        method: Whose message is the call's name.
        kind: Name of the channel's method for it.
        begin: Makes the call; what it returns is the call.
    """

    method: str
    kind: str
    begin: Callable[[Any, bytes, float], grpc.Future]

    def __call__(self, channel: grpc.Channel, name: str, timeout_seconds: float = TIMEOUT_SECONDS) -> grpc.Future:
        return self.begin(getattr(channel, self.kind)(path(self.method)), name.encode(), timeout_seconds)


def _of_one(call: Any, name: bytes, timeout_seconds: float) -> grpc.Future:
    return call.future(name, timeout=timeout_seconds)


def _that_streams(call: Any, name: bytes, timeout_seconds: float) -> grpc.Future:
    response = call(name, timeout=timeout_seconds)
    assert next(response) == b"wait"
    return response


def _that_is_streamed_to(call: Any, name: bytes, timeout_seconds: float) -> grpc.Future:
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    messages.put(name)
    pending: grpc.Future = call.future(iter(messages.get, None), timeout=timeout_seconds)
    pending.add_done_callback(lambda _: messages.put(None))  # the thread that reads them ends as well
    return pending


PENDING = pytest.mark.parametrize(
    "pending",
    [
        Pending("Wait", "unary_unary", _of_one),
        Pending("WaitInside", "unary_stream", _that_streams),
        Pending("WaitForMore", "stream_unary", _that_is_streamed_to),
    ],
    ids=["before-the-answer", "inside-the-answer", "inside-the-request"],
)


class TestKinds:
    @pytest.mark.parametrize("message", [b"", b"hello", bytes(range(256)) * 300], ids=["empty", "short", "64-KiB"])
    def test_unary(self, channel: grpc.Channel, message: bytes) -> None:
        """One message there, one back; an empty one is a message, too."""
        assert ask(channel, "Echo", message) == message

    @pytest.mark.parametrize("count", [0, 1, 100])
    def test_stream_from_the_client(self, channel: grpc.Channel, count: int) -> None:
        """Any number of messages there, one back."""
        answer = channel.stream_unary(path("Collect"))(iter(numbers(count)), timeout=TIMEOUT_SECONDS)

        assert answer == f"{count} {hashlib.sha256(b''.join(numbers(count))).hexdigest()}".encode()

    @pytest.mark.parametrize("count", [0, 1, 100])
    def test_stream_from_the_app(self, channel: grpc.Channel, count: int) -> None:
        """One message there, any number back."""
        answers = channel.unary_stream(path("Count"))(b"%d" % count, timeout=TIMEOUT_SECONDS)

        assert list(answers) == numbers(count)

    def test_streams_both_ways_are_not_held_back(self, channel: grpc.Channel) -> None:
        """The app speaks first, and each message is answered before the next one is there: nothing waits for more."""
        messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        answers = channel.stream_stream(path("Chat"))(iter(messages.get, None), timeout=TIMEOUT_SECONDS)

        assert next(answers) == b"welcome"
        for message in numbers(100):
            messages.put(message)
            assert next(answers) == message
        messages.put(None)
        assert list(answers) == []
        assert answers.code() is grpc.StatusCode.OK

    def test_access_log_says_http_2(self, program: Program, channel: grpc.Channel) -> None:
        """A call is a line of its own."""
        ask(channel, "Adorned")
        line = program.logged(path("Adorned"))

        assert (line["method"], line["status"], line["protocol"]) == ("POST", 200, "HTTP/2")


class TestVolume:
    def test_many_messages_from_the_client(self, channel: grpc.Channel) -> None:
        """Ten thousand messages arrive in order, none twice."""
        answer = channel.stream_unary(path("Collect"))(iter(numbers(MANY)), timeout=TIMEOUT_SECONDS)

        assert answer == f"{MANY} {hashlib.sha256(b''.join(numbers(MANY))).hexdigest()}".encode()

    def test_many_messages_from_the_app(self, channel: grpc.Channel) -> None:
        """The same in the other direction."""
        answers = channel.unary_stream(path("Count"))(b"%d" % MANY, timeout=TIMEOUT_SECONDS)

        assert list(answers) == numbers(MANY)

    def test_many_messages_both_ways_at_once(self, channel: grpc.Channel) -> None:
        """Both directions of one call are busy at the same time."""
        answers = channel.stream_stream(path("Chat"))(iter(numbers(MANY)), timeout=TIMEOUT_SECONDS)

        assert list(answers) == [b"welcome", *numbers(MANY)]

    def test_large_message_from_the_client(self, channel: grpc.Channel) -> None:
        """16 MiB are far more than any window."""
        answer = ask(channel, "Digest", b"".join(pattern(LARGE)))

        assert answer == f"{LARGE} {pattern_sha256(LARGE)}".encode()

    def test_large_message_from_the_app(self, channel: grpc.Channel) -> None:
        """The same in the other direction."""
        answer = ask(channel, "Bytes", b"%d" % LARGE)

        assert (len(answer), hashlib.sha256(answer).hexdigest()) == (LARGE, pattern_sha256(LARGE))

    def test_large_messages_both_ways_at_once(self, channel: grpc.Channel) -> None:
        """Two calls on one connection do not stand in each other's way."""
        message = b"".join(pattern(LARGE))
        up, down = in_parallel([lambda: ask(channel, "Digest", message), lambda: ask(channel, "Bytes", b"%d" % LARGE)])

        assert up == f"{LARGE} {pattern_sha256(LARGE)}".encode()
        assert down == message

    def test_message_over_the_limit_of_the_app_is_its_refusal(self, channel: grpc.Channel) -> None:
        """An app that refuses inside of a message is heard, and what still comes of the message harms nobody."""
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, "Digest", bytes(LARGEST_MESSAGE + 1))

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(channel, "Echo", b"next") == b"next"

    def test_stream_that_nobody_reads_holds_up_no_other_call(self, program: Program, channel: grpc.Channel) -> None:
        """A client that stops to read a stream gets its other answers, and the stream is not piled up anywhere."""
        answers = channel.unary_stream(path("Endless"))(b"unread", timeout=TIMEOUT_SECONDS)
        next(answers)
        before = program.resident_bytes()
        for message in numbers(50):
            assert ask(channel, "Echo", message) == message

        assert program.resident_bytes() < before + 8 * 1024 * 1024
        answers.cancel()


class TestDeadline:
    def test_app_sees_it(self, channel: grpc.Channel) -> None:
        """The time that the client gives the call is the time that the app has left."""
        assert TIMEOUT_SECONDS - 10 < seen(channel)["remaining"] <= TIMEOUT_SECONDS

    def test_call_without_one_has_none_at_the_app(self, channel: grpc.Channel) -> None:
        """Nobody makes up a deadline on the way."""
        answer = channel.unary_unary(path("Seen")).future(b"").result(TIMEOUT_SECONDS)

        assert json.loads(answer)["remaining"] > 1e9

    @PENDING
    def test_call_that_misses_it_ends_on_both_sides(
        self, channel: grpc.Channel, app: GrpcApp, pending: Pending
    ) -> None:
        """The client is told DEADLINE_EXCEEDED, and the app works on it no longer."""
        call = pending(channel, f"late-{pending.method}", timeout_seconds=2.0)

        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        app.wait_for("left", f"late-{pending.method}")


class TestCancellation:
    @PENDING
    def test_app_learns_of_it(self, channel: grpc.Channel, app: GrpcApp, pending: Pending) -> None:
        """A call that its client cancels ends at the app, at once, wherever it was."""
        name = f"cancelled-{pending.method}"
        call = pending(channel, name)
        app.wait_for("begun", name)
        call.cancel()

        app.wait_for("left", name)

    @PENDING
    def test_app_learns_of_a_client_that_vanishes(self, program: Program, app: GrpcApp, pending: Pending) -> None:
        """So does a call whose client closes its connection."""
        name = f"vanished-{pending.method}"
        with connected(program) as channel:
            call = pending(channel, name)
            app.wait_for("begun", name)

        app.wait_for("left", name)
        assert call.code() is grpc.StatusCode.CANCELLED

    def test_endless_stream_stops_at_the_app(self, channel: grpc.Channel, app: GrpcApp) -> None:
        """An app in the middle of sending is told, too, though its stream was stopped by flow control."""
        answers = channel.unary_stream(path("Endless"))(b"endless", timeout=TIMEOUT_SECONDS)
        for _ in range(10):
            next(answers)
        answers.cancel()

        app.wait_for("left", "endless")

    def test_other_calls_on_the_connection_go_on(self, program: Program, own_app: GrpcApp, launch: Launch) -> None:
        """It is one call that ends, not the connection that others share."""
        with connected(launch(upstream=own_app.upstream)) as channel:
            held = channel.unary_unary(path("Held")).future(b"held", timeout=TIMEOUT_SECONDS)
            own_app.wait_for("begun", "held")
            cancelled = channel.unary_unary(path("Wait")).future(b"cancelled", timeout=TIMEOUT_SECONDS)
            own_app.wait_for("begun", "cancelled")
            cancelled.cancel()
            own_app.wait_for("left", "cancelled")
            own_app.open_gate()

            assert held.result(TIMEOUT_SECONDS) == b"held"


class TestMetadata:
    def test_app_sees_what_the_client_sends(self, channel: grpc.Channel) -> None:
        """Text, several values of one name, and bytes in -bin."""
        sent = (("x-text", "a b,c"), ("x-text", "d"), ("x-bytes-bin", bytes(range(256))))
        metadata = seen(channel, metadata=sent)["metadata"]

        assert values(metadata, "x-text") == ["a b,c", "d"]
        assert values(metadata, "x-bytes-bin") == [bytes(range(256)).hex()]

    def test_app_sees_who_asks_and_how(self, program: Program, channel: grpc.Channel) -> None:
        """It gets what any app gets, in the way of HTTP/2."""
        metadata = seen(channel)["metadata"]

        assert values(metadata, "x-forwarded-proto") == ["https"]
        assert values(metadata, "x-forwarded-for") == ["127.0.0.1"]
        assert values(metadata, "x-forwarded-host") == [f"localhost:{program.port}"]
        assert "grpc-python" in values(metadata, "user-agent")[0]

    def test_client_sees_what_the_app_sends(self, channel: grpc.Channel) -> None:
        """Around the answer: before it, and after it in the trailers, several values of one name, and bytes in -bin."""
        answer, call = channel.unary_unary(path("Adorned")).with_call(b"answer", timeout=TIMEOUT_SECONDS)

        assert answer == b"answer"
        assert ours(call.initial_metadata()) == ADORNMENT.initial
        assert ours(call.trailing_metadata()) == ADORNMENT.trailing


DETAILS = "100% no: ä\r\n😀 %41"

CODES = pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=str)


def failure(code: grpc.StatusCode) -> bytes:
    """The message that makes the app fail in this way."""
    return json.dumps({"code": code.value[0], "details": DETAILS}).encode()


class TestStatus:
    @CODES
    def test_failure_comes_as_the_app_says_it(self, channel: grpc.Channel, code: grpc.StatusCode) -> None:
        """Status, details with any character, and trailing metadata."""
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, "Fail", failure(code))

        assert (caught.value.code(), caught.value.details()) == (code, DETAILS)
        assert ours(caught.value.trailing_metadata()) == ADORNMENT.trailing

    @CODES
    def test_failure_after_messages_comes_after_them(self, channel: grpc.Channel, code: grpc.StatusCode) -> None:
        """What came before the failure is not lost, and not taken for all there is."""
        answers = channel.unary_stream(path("FailInside"))(failure(code), timeout=TIMEOUT_SECONDS)
        received = [next(answers) for _ in range(3)]
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)

        assert received == numbers(3)
        assert (caught.value.code(), caught.value.details()) == (code, DETAILS)
        assert ours(caught.value.trailing_metadata()) == ADORNMENT.trailing

    def test_method_that_is_not_there(self, channel: grpc.Channel) -> None:
        """What the app does not have is UNIMPLEMENTED, by the app."""
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, "Missing")

        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestAppAway:
    def test_app_that_is_not_there_is_unavailable(self, launch: Launch) -> None:
        """The client may try again, and knows it."""
        with Port() as port, connected(launch(upstream=f"h2c://{port}")) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, "Echo")

            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize(
        ("method", "kind", "codes"),
        [
            ("Wait", "unary_unary", {grpc.StatusCode.UNAVAILABLE}),
            ("WaitInside", "unary_stream", {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}),
        ],
        ids=["before-the-answer", "inside-the-answer"],
    )
    def test_app_that_dies_ends_its_calls(
        self, launch: Launch, tmp_path: Path, method: str, kind: str, codes: set[grpc.StatusCode]
    ) -> None:
        """A call that the app took to its grave fails; half of a stream never passes for all of it."""
        with GrpcApp(tmp_path / "app") as mortal, connected(launch(upstream=mortal.upstream)) as channel:
            begin = _of_one if kind == "unary_unary" else _that_streams
            call = begin(getattr(channel, kind)(path(method)), b"orphan", TIMEOUT_SECONDS)
            mortal.wait_for("begun", "orphan")
            mortal.kill()

            assert call.code() in codes

    def test_app_that_comes_back_is_used_again(self, launch: Launch, tmp_path: Path) -> None:
        """After a crash of the app and its new start, the next call is answered, on the client's old connection."""
        with GrpcApp(tmp_path / "first") as first, connected(launch(upstream=first.upstream)) as channel:
            assert ask(channel, "Echo", b"one") == b"one"
            first.kill()
            with GrpcApp(tmp_path / "second", port=int(first.address.rpartition(":")[2])):
                assert ask(channel, "Echo", b"two") == b"two"


class TestSharing:
    def test_calls_at_the_same_time_share_the_connection_to_the_app(self, launch: Launch, own_app: GrpcApp) -> None:
        """Clients come on connections of their own; towards the app one is enough for all."""
        program = launch(upstream=own_app.upstream)
        with ExitStack() as stack:
            channels = [stack.enter_context(connected(program)) for _ in range(4)]
            peers = {seen(channels[0])["peer"]}
            held = [
                channel.unary_unary(path("Held")).future(b"held", timeout=TIMEOUT_SECONDS) for channel in channels * 10
            ]
            own_app.wait_for("begun", "held", len(held))
            peers |= {seen(channel)["peer"] for channel in channels}
            own_app.open_gate()

            assert [call.result(TIMEOUT_SECONDS) for call in held] == [b"held"] * len(held)
        assert len(peers) == 1

    def test_app_that_takes_few_calls_at_once_is_not_overrun(self, launch: Launch, tmp_path: Path) -> None:
        """SETTINGS_MAX_CONCURRENT_STREAMS of the app is kept; calls beyond it wait, or take another connection."""
        with (
            GrpcApp(tmp_path / "app", max_streams=2) as narrow,
            connected(launch(upstream=narrow.upstream)) as channel,
        ):
            echo = channel.unary_unary(path("Echo"))
            calls = [echo.future(message, timeout=TIMEOUT_SECONDS) for message in numbers(50)]

            assert [call.result(TIMEOUT_SECONDS) for call in calls] == numbers(50)


class Load:
    """Clients that make unary calls without a pause, each in a thread of its own."""

    def __init__(self, channel: grpc.Channel, clients: int) -> None:
        self.answered = 0
        self.failures: list[grpc.RpcError] = []
        self._channel = channel
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(b"%d" % number,)) for number in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(TIMEOUT_SECONDS)

    def go_on(self, count: int) -> None:
        """Wait for *count* more answers."""
        wanted = self.answered + count
        eventually(lambda: self.answered >= wanted, f"{count} more calls are answered")

    def _run(self, message: bytes) -> None:
        while not self._ended.is_set():
            try:
                assert ask(self._channel, "Echo", message) == message
            except grpc.RpcError as failure:  # judged by the test
                self.failures.append(failure)
                return
            with self._lock:
                self.answered += 1


class TestDrain:
    def test_calls_in_flight_are_answered(self, launch: Launch, own_app: GrpcApp) -> None:
        """SIGTERM cuts no call that the app is working on, and the program ends with 0 after the last one."""
        program = launch(upstream=own_app.upstream)
        with connected(program) as channel:
            names = numbers(20)
            calls = [channel.unary_unary(path("Held")).future(name, timeout=TIMEOUT_SECONDS) for name in names]
            for name in names:
                own_app.wait_for("begun", name.decode())
            program.signal()
            eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
            own_app.open_gate()

            assert [call.result(TIMEOUT_SECONDS) for call in calls] == names
        assert program.wait() == 0

    def test_stream_in_flight_gets_to_its_end(self, launch: Launch, own_app: GrpcApp) -> None:
        """So does a stream of which most is still to come."""
        program = launch(upstream=own_app.upstream)
        with connected(program) as channel:
            answers = channel.unary_stream(path("HeldInside"))(b"stream", timeout=TIMEOUT_SECONDS)
            assert next(answers) == b"first"
            program.signal()
            eventually(lambda: program.admin("/ready")[0] == 503, "it says that it is not ready")
            own_app.open_gate()

            assert list(answers) == numbers(100)
        assert program.wait() == 0

    def test_clients_move_on_without_losing_a_call(self, launch: Launch, app: GrpcApp) -> None:
        """Of calls from several threads none fails while one sidecar ends and another takes over: GOAWAY says which."""
        first, second = (launch(upstream=app.upstream) for _ in range(2))
        with connected(first, second) as channel:
            load = Load(channel, clients=8)
            with load.running():
                load.go_on(200)
                assert first.stop() == 0
                load.go_on(200)

        assert load.failures == []
        assert second.access_log()

    def test_stream_that_does_not_end_is_cut_at_the_deadline(self, launch: Launch, app: GrpcApp) -> None:
        """SIDECAR_DRAIN_TIMEOUT holds for calls as well: the client is told, and the app."""
        program = launch(upstream=app.upstream, drain_timeout="500ms")
        with connected(program) as channel:
            answers = channel.unary_stream(path("WaitInside"))(b"drained", timeout=TIMEOUT_SECONDS)
            next(answers)
            program.signal()

            assert answers.code() not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert program.wait() == 0
        app.wait_for("left", "drained")


@pytest.fixture(scope="module")
def mutual(app: GrpcApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sidecar that requires certificates, and tells the app whose they are."""
    directory = tmp_path_factory.mktemp("mutual")
    ca = directory / "ca.crt"
    ca.write_bytes(authority().cert_pem)
    with Program(
        directory, upstream=app.upstream, client_cert="required", client_ca=str(ca), identity_headers="xfcc"
    ) as running:
        yield running


class TestIdentity:
    def test_app_learns_who_calls(self, mutual: Program) -> None:
        """The verified certificate's name is in the metadata, and what the client wrote there itself is not."""
        identity = authority().issue("web.example", purposes=CLIENT)
        forged = (("x-forwarded-client-cert", "Subject=CN=root"),)
        with connected(mutual, identity=identity) as channel:
            [xfcc] = values(seen(channel, metadata=forged)["metadata"], "x-forwarded-client-cert")

        assert 'Subject="CN=web.example"' in xfcc
        assert "CN=root" not in xfcc

    def test_call_without_a_certificate_fails_and_never_reaches_the_app(self, mutual: Program, app: GrpcApp) -> None:
        """A client that shows no certificate is refused by the sidecar."""
        before = len(app.journal())
        with connected(mutual) as channel, pytest.raises(grpc.RpcError) as caught:
            ask(channel, "Held", b"anonymous")

        assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(app.journal()) == before
