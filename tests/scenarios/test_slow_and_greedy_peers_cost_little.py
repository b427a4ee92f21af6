"""Ensures that clients which are slow, many or greedy cost little memory and time, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from tests.scenarios.clients import HalfClosingClient, HttpsClient, client_context, in_parallel, request
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.program import Program, eventually

MIB = 1024 * 1024
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

CROWD = 2000
CROWD_DESCRIPTORS = 3 * CROWD
"""What the program needs for the crowd: one for each client, one to the app for each, and to spare."""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process, and what it starts, open enough of them for the crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CROWD_DESCRIPTORS:
        pytest.skip(f"the hard limit on descriptors is {hard}, needed are {CROWD_DESCRIPTORS}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CROWD_DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- looking at the process -------------------------------------------------------------------------------------


def cpu_seconds(program: Program) -> float:
    """CPU time that *program* has used so far, in user and system mode."""
    fields = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def cpu_share(program: Program, seconds: float) -> float:
    """What *program* uses of a core, when left alone for some *seconds*."""
    before = cpu_seconds(program)
    time.sleep(seconds)
    return (cpu_seconds(program) - before) / seconds


@attrs.define
class Growth:
    """By how much the largest resident memory in a span exceeded that at its start."""

    bytes: int = 0


@contextmanager
def growth_of(program: Program) -> Iterator[Growth]:
    """Measure the block; the kernel keeps the maximum, so none is missed."""
    Path(f"/proc/{program.pid}/clear_refs").write_text("5")
    before, growth = program.resident_bytes(), Growth()
    yield growth
    status = Path(f"/proc/{program.pid}/status").read_text()
    growth.bytes = int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before


def visit(program: Program) -> float:
    """Be a new client with one request; return how long that took, in seconds."""
    started_at = time.monotonic()
    with HttpsClient(program) as client:
        assert client.get("/hello").status == 200
    return time.monotonic() - started_at


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[len(latencies) * 99 // 100]


# -- the slow ---------------------------------------------------------------------------------------------------

AT_ONCE = 64
DRIP_SECONDS = 3.0
VISITS = 200


class Crowd:
    """
    Clients that have shaken hands and send next to nothing. For ``with``.

    Attributes:
        members: Their connections, which do not block.
        dripped: Bytes that they have sent by `drip`.
    """

    def __init__(self, program: Program, count: int) -> None:
        self.members: list[ssl.SSLSocket] = []
        self._program = program
        self._context = client_context()
        self._started_at = 0.0
        self.dripped = 0
        while len(self.members) < count:
            self._shake_hands(min(AT_ONCE, count - len(self.members)))

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            member.close()

    def all_send(self, data: bytes) -> None:
        """Let each send *data*."""
        for member in self.members:
            member.send(data)

    def drip(self) -> None:
        """Let as many of them, in turn, send another byte as makes one byte a second for each since the first call."""
        self._started_at = self._started_at or time.monotonic()
        due = int((time.monotonic() - self._started_at) * len(self.members))
        while self.dripped < due:
            self.members[self.dripped % len(self.members)].send(b"x")
            self.dripped += 1

    def answers(self) -> list[bytes]:
        """Wait until each has read something; return what."""
        found = []
        for member in self.members:
            member.settimeout(20)
            found.append(member.recv(65_536))
        return found

    def _shake_hands(self, count: int) -> None:
        with selectors.DefaultSelector() as selector:
            for _ in range(count):
                raw = socket.create_connection((self._program.host, self._program.port), 10)
                raw.setblocking(False)
                tls = self._context.wrap_socket(raw, server_hostname="localhost", do_handshake_on_connect=False)
                self.members.append(tls)
                selector.register(tls, selectors.EVENT_WRITE)
            while selector.get_map():
                ready = selector.select(10)
                assert ready, "nobody goes on with the handshake"
                for key, _ in ready:
                    self._go_on(selector, key.fileobj)  # type: ignore[arg-type]  # as it was registered

    def _go_on(self, selector: selectors.BaseSelector, tls: ssl.SSLSocket) -> None:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            selector.modify(tls, selectors.EVENT_READ)
        else:
            selector.unregister(tls)


class PatientApp:
    """
    An app on an event loop, as two thousand threads would themselves be the load: it answers GETs, and takes whatever
    else it is sent without a word. For ``with``.
    """

    def __init__(self) -> None:
        self._transports: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Patient(self._transports), "127.0.0.1", 0, backlog=4096)
        )
        self.upstream = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, name="patient-app")
        self._thread.start()

    def __enter__(self) -> PatientApp:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self._loop.close()

    @property
    def open_connections(self) -> int:
        return len(self._transports)

    def _end(self) -> None:
        self._server.close()
        for transport in self._transports:
            transport.abort()
        self._loop.call_soon(self._loop.call_soon, self._loop.stop)  # behind what the aborts have put off


class _Patient(asyncio.Protocol):
    def __init__(self, transports: set[asyncio.Transport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transports.add(transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transports.discard(self._transport)


@pytest.fixture
def patient_app() -> Iterator[PatientApp]:
    """A patient app for one test."""
    with PatientApp() as running:
        yield running


@attrs.frozen
class Slow:
    """
    How a crowd is slow.

    Attributes:
        opening: What each sends at once, before it drips.
        reaches_app: Whether the app is asked, over a connection for each.
        most_bytes: What one may cost more than while it was idle.
    """

    opening: bytes
    reaches_app: bool
    most_bytes: int


SLOW = {
    "head": Slow(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", False, 2 * 1024),
    "body": Slow(request("/sink", "Content-Length: 1000", method="POST"), True, 8 * 1024),
}


@pytest.mark.slow
@pytest.mark.usefixtures("many_descriptors")
class TestSlow:
    @pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW.keys())
    def test_crowd_that_drips_costs_little_more_than_an_idle_one(
        self, launch: Launch, patient_app: PatientApp, slow: Slow
    ) -> None:
        """
        When two thousand idle clients begin to send a byte a second each, that costs a little memory, a fraction of the
        time that as many newcomers would cost, and newcomers no time to speak of; a head that does not end is cut off.
        """
        program = launch(upstream=patient_app.upstream, header_timeout="5s", idle_timeout="60s", body_timeout="60s")
        quiet, visit_seconds = measured_visits(program, VISITS)
        with Crowd(program, CROWD) as crowd:
            idle_bytes = program.resident_bytes()
            crowd.all_send(slow.opening)
            if slow.reaches_app:
                eventually(lambda: patient_app.open_connections >= CROWD, "each of them has reached the app", 30)
            cpu_before = cpu_seconds(program)
            latencies = drip_and_visit(program, crowd)
            drip_seconds = cpu_seconds(program) - cpu_before - len(latencies) * visit_seconds
            more_bytes = program.resident_bytes() - idle_bytes
            answers = [] if slow.reaches_app else crowd.answers()

        assert more_bytes / CROWD < slow.most_bytes
        assert drip_seconds / crowd.dripped < visit_seconds / 5
        assert p99(latencies) < max(0.25, 10 * p99(quiet))
        assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 408 "}


def measured_visits(program: Program, count: int) -> tuple[list[float], float]:
    """Visit *program* so many times; return the latencies, and the CPU time that one visit cost it, in seconds."""
    before = cpu_seconds(program)
    latencies = [visit(program) for _ in range(count)]
    return latencies, (cpu_seconds(program) - before) / count


def drip_and_visit(program: Program, crowd: Crowd) -> list[float]:
    """Let the *crowd* drip for some seconds, among visits at even distances; return the latencies of these."""
    latencies: list[float] = []
    started_at = time.monotonic()
    while (passed := time.monotonic() - started_at) < DRIP_SECONDS:
        crowd.drip()
        if len(latencies) < VISITS * passed / DRIP_SECONDS:
            latencies.append(visit(program))
        else:
            time.sleep(0.001)  # evenly, not in bursts
    return latencies


# -- the many ---------------------------------------------------------------------------------------------------

IDLE_SHARE = 0.1
"""What a program that only waits may use of a core. It does use less than a tick; one that spins takes all it gets."""

SPAN_SECONDS = 1.5

FEW_DESCRIPTORS = 64


class TestOutOfDescriptors:
    def test_newcomers_wait_and_those_inside_are_served(self, launch: Launch, own_app: App) -> None:
        """
        Without descriptors the program says so once and does not spin; whoever is connected is served, and newcomers
        are, as soon as others leave.
        """
        program = launch(
            prefix=["prlimit", f"--nofile={FEW_DESCRIPTORS}"], upstream=own_app.upstream, handshake_timeout="30s"
        )
        with HttpsClient(program) as inside:
            assert inside.get("/hello").status == 200  # and its connection to the app is kept
            with newcomers(program, FEW_DESCRIPTORS):
                eventually(lambda: "cannot accept connections" in program.stderr, "it has said so")
                assert inside.get("/hello").status == 200
                assert cpu_share(program, SPAN_SECONDS) < IDLE_SHARE
                assert inside.get("/hello").status == 200
                assert program.stderr.count("cannot accept connections: Too many open files") == 1
            assert visit(program) < 5

    def test_request_without_a_connection_to_the_app_is_told_so(self, launch: Launch, own_app: App) -> None:
        """If it is the connection to the app that cannot be opened, the client reads so, and the next one is served."""
        program = launch(
            prefix=["prlimit", f"--nofile={FEW_DESCRIPTORS}"], upstream=own_app.upstream, handshake_timeout="30s"
        )
        with HttpsClient(program) as client:
            eventually(lambda: program.metric('tls_handshakes_total{version="TLSv1.3"}') == 1, "it has shaken hands")
            with newcomers(program, FEW_DESCRIPTORS):
                eventually(lambda: "cannot accept connections" in program.stderr, "it has said so")
                response = client.get("/hello")
                logged = program.logged("/hello")

        assert response.status == 502
        assert b"app" in response.body
        assert (logged["reason"], logged["detail"]) == (
            "upstream_unreachable",
            f"127.0.0.1:{own_app.port}: Too many open files",
        )
        assert visit(program) < 5


class TestConnectionLimit:
    def test_full_program_does_not_spin(self, launch: Launch, own_app: App) -> None:
        """At SIDECAR_MAX_CONNECTIONS those who wait cost nothing."""
        program = launch(upstream=own_app.upstream, max_connections="3", handshake_timeout="30s")
        with newcomers(program, 20):
            eventually(lambda: "SIDECAR_MAX_CONNECTIONS" in program.stderr, "the limit is reached")

            assert cpu_share(program, SPAN_SECONDS) < IDLE_SHARE
            assert program.metric("downstream_connections_total") == 3
        assert visit(program) < 5


@contextmanager
def newcomers(program: Program, count: int) -> Iterator[None]:
    """Clients that connect, and do nothing for the block."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((program.host, program.port), 10))
        yield


# -- the greedy -------------------------------------------------------------------------------------------------

PIECE_BYTES = 16 * 1024

LONGEST_SECONDS = 15.0
"""Limits and timeouts are reached after two seconds; then the program lingers for two, for its answer to be read."""


@attrs.frozen
class Greedy:
    """
    A client that never comes to an end.

    Attributes:
        opening: What it sends first.
        unit: What it then sends again and again, without reading.
        reason: Why it is refused; empty: it has asked for nothing, and is closed as idle.
    """

    opening: bytes
    unit: bytes
    reason: str


_GET = b"GET /greedy HTTP/1.1\r\nHost: localhost\r\n"
_POST = request("/sink/greedy", "Transfer-Encoding: chunked", method="POST")

GREEDY = (
    Greedy(b"GET /", b"a", "uri_too_long"),
    Greedy(_GET + b"X: ", b"v", "header_too_large"),
    Greedy(_GET, b"X: y\r\n", "header_too_large"),
    Greedy(b"", b"\r\n", ""),
    Greedy(_POST + b"1;", b"e", "bad_chunk"),
    Greedy(_POST, b"0", "bad_chunk"),
    Greedy(_POST + b"0\r\nX: ", b"t", "trailers_too_large"),
    Greedy(_POST + b"0\r\n", b"X: y\r\n", "trailers_too_large"),
)
"""Request lines, values, fields, empty lines, chunk extensions and sizes, trailers and their values without end."""

PIPELINED = 10_000


@pytest.mark.slow
class TestGreedy:
    def test_whatever_has_no_end_is_not_held(self, launch: Launch, own_app: App) -> None:
        """
        Clients that send parts of requests without end, all at once, are refused or closed at their limits, and none of
        it is kept; others are served all the while.
        """
        program = launch(upstream=own_app.upstream, idle_timeout="2s")
        visit(program)
        with growth_of(program) as growth:
            in_parallel(
                [lambda greedy=greedy: send_without_end(program, greedy) for greedy in GREEDY]
                + [lambda: [visit(program) for _ in range(50)]]
            )

        assert growth.bytes < 8 * MIB
        refused = sorted(line["reason"] for line in program.access_log() if line.get("reason"))
        assert refused == sorted(greedy.reason for greedy in GREEDY if greedy.reason)
        eventually(lambda: program.metric("downstream_connections_active") == 0, "all of them are gone")

    def test_pipeline_whose_answers_nobody_reads_is_not_held(self, launch: Launch, own_app: App) -> None:
        """
        Of ten thousand pipelined requests the program takes only as many as it can send answers for; when the client
        reads at last, it gets all answers, in order.
        """
        program = launch(upstream=own_app.upstream)
        visit(program)
        requests = [request(f"/echo/{number}", "X: " + "v" * 1000) for number in range(PIPELINED)]
        with HalfClosingClient(program) as client, growth_of(program) as growth:
            client.socket.settimeout(2 * LONGEST_SECONDS)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
            sender = client.start_sending(b"".join(requests))
            assert settled(lambda: len(own_app.requests)) < PIPELINED * 9 // 10
            latencies = [visit(program) for _ in range(20)]
            answered = [client.response().json()["head"].split(" ")[1] for _ in requests]
            sender.join()

        assert answered == [f"/echo/{number}" for number in range(PIPELINED)]
        assert growth.bytes < 4 * MIB
        assert max(latencies) < 1


def send_without_end(program: Program, greedy: Greedy) -> None:
    """Send until the program hangs up."""
    piece = greedy.unit * (PIECE_BYTES // len(greedy.unit))
    until = time.monotonic() + LONGEST_SECONDS
    with HttpsClient(program) as client:
        try:
            client.send(greedy.opening + piece)
            while True:
                client.send(piece)
                assert time.monotonic() < until, f"it is still listened to: {greedy}"
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            pass


def settled(count: Callable[[], int]) -> int:
    """Wait until *count* has not changed for a while; return it."""
    seen, since = count(), time.monotonic()

    def has_settled() -> bool:
        nonlocal seen, since
        if (now := count()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    eventually(has_settled, "nothing moves any more")
    return seen
