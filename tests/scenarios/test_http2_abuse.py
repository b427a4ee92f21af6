"""
Ensures that no client can make HTTP/2 cost more than it allows: each kind of abuse ends with its code, is counted with
its reason, takes a bounded amount of memory and time, leaves nothing behind, and others are served meanwhile.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import attrs
import pytest

from tests.scenarios.clients import HttpsClient, in_parallel, plain_socket
from tests.scenarios.conftest import Launch
from tests.scenarios.test_slow_and_greedy_peers_cost_little import MIB, cpu_seconds, growth_of, settled
from tests.support import frames
from tests.support.apps import App, RawApp
from tests.support.frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GET,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PADDED,
    POST,
    PREFACE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WHOLE,
    Field,
    Frame,
    block,
    data,
    frame,
    goaway,
    headers,
    integer,
    literal,
    ping,
    priority,
    rst_stream,
    window_update,
)
from tests.support.h2attack import Http2Client
from tests.support.program import Program, eventually

HEADER_TIMEOUT: Final = 1.0
BODY_TIMEOUT: Final = 2.0
IDLE_TIMEOUT: Final = 3.0


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """Short waits, so that the tests need not wait for the long ones."""
    return {
        "header_timeout": f"{HEADER_TIMEOUT:g}s",
        "body_timeout": f"{BODY_TIMEOUT:g}s",
        "idle_timeout": f"{IDLE_TIMEOUT:g}s",
    }


# -- what is asked for ------------------------------------------------------------------------------------------


def to(path: str, of: tuple[Field, ...] = GET) -> tuple[Field, ...]:
    """The fields of a request for *path*."""
    return (*(field for field in of if field[0] != b":path"), (b":path", path.encode()))


def each(count: int, make: Callable[[int], bytes]) -> bytes:
    """What *make* returns for each of so many streams of a client."""
    return b"".join(make(number) for number in range(1, 2 * count, 2))


# -- others meanwhile -------------------------------------------------------------------------------------------

ROUNDS: Final = 6

LISTENERS: Final = 2
NEIGHBOURS: Final = 2
"""Connections that stay."""


class Neighbours:
    """Clients that do as they should: one with HTTP/1.1 and one with HTTP/2 that stay, and new ones. For ``with``."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._stack = ExitStack()
        self._kept = self._stack.enter_context(HttpsClient(program))
        self._kept2 = self._stack.enter_context(Http2Client(program))
        self._kept2.begin()

    def __enter__(self) -> Neighbours:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def latencies(self) -> list[float]:
        """Let each of them ask some times; return how long the answers took, in seconds."""
        return [_seconds(ask) for _ in range(ROUNDS) for ask in (self._keep, self._keep2, self._come, self._come2)]

    def _keep(self) -> int:
        return self._kept.get("/hello").status

    def _keep2(self) -> int:
        return self._kept2.get("/hello")

    def _come(self) -> int:
        with HttpsClient(self._program) as client:
            return client.get("/hello").status

    def _come2(self) -> int:
        with Http2Client(self._program) as client:
            client.begin()
            return client.get("/hello")


def _seconds(ask: Callable[[], int]) -> float:
    started_at = time.monotonic()
    assert ask() == 200
    return time.monotonic() - started_at


@pytest.fixture
def fresh(launch: Launch, own_app: App, settings: dict[str, Any]) -> Program:
    """A program of the test's own: memory that others have needed before would hide what this one needs."""
    return launch(upstream=own_app.upstream, **{**settings, "idle_timeout": "60s"})


@contextmanager
def unharmed(program: Program, *, most_bytes: int) -> Iterator[Callable[[], None]]:
    """
    Fail unless the block costs *program* at most so much memory, leaves no connection and no descriptor behind, and its
    neighbours are served: the block calls what it is given while the abuse goes on.

    Latencies are compared with those before, generously: the machine is shared with others, and this process is both
    the abusers and their neighbours.
    """
    with Neighbours(program) as neighbours:
        before = neighbours.latencies()

        def look() -> None:
            during = neighbours.latencies()
            assert statistics.median(during) < max(0.25, 10 * statistics.median(before)), sorted(during)
            assert max(during) < max(2.0, 10 * max(before)), sorted(during)

        program.metric("downstream_connections_active")  # with the first look, what writes metrics is loaded
        with growth_of(program) as growth:
            yield look
    assert growth.bytes < most_bytes, f"{growth.bytes:,} bytes"
    eventually(lambda: program.metric("downstream_connections_active") == 0, "no connection is active")
    eventually(lambda: own_sockets(program) == LISTENERS, "the descriptors are those from before")


def own_sockets(program: Program) -> int:
    """Sockets of *program*, less the connections that it keeps to the app."""
    return program.descriptors().count("socket") - program.metric("upstream_connections")


def faults(program: Program, reason: str) -> int:
    """How many HTTP/2 connections *program* has ended for *reason*."""
    return program.metric(f'http2_faults_total{{reason="{reason}"}}')


# -- floods -----------------------------------------------------------------------------------------------------

MANY: Final = 5000
"""Of what is allowed at most a thousand times."""

VERY_MANY: Final = 30_000
"""Of frames that may have been on their way when their stream ended: twenty thousand are allowed."""


@attrs.frozen
class Flood:
    """
    What a client sends at once, without waiting for anything.

    Attributes:
        sent: Behind its SETTINGS.
        reason: Why it is cut, in the metrics.
        code: The same in GOAWAY.
    """

    sent: bytes
    reason: str
    code: int = ENHANCE_YOUR_CALM


_OPEN: Final = headers(1, to("/sink/flood", POST), END_HEADERS)
_UNENDED: Final = headers(1, GET, END_STREAM)
_ENTRY: Final = block(GET) + literal(b"x", b"y" * 3900, 0x40)
_FIRST_ENTRY: Final = b"\xbe"

FLOODS: Final = {
    "requests taken back": Flood(each(MANY, lambda n: headers(n, to("/hello")) + rst_stream(n)), "reset_flood"),
    "requests that we are made to reset": Flood(
        each(MANY, lambda n: headers(n, to("/never")) + window_update(n, 0)), "reset_flood"
    ),
    "malformed requests": Flood(each(MANY, lambda n: headers(n, (*GET, (b"UPPER", b"")))), "reset_flood"),
    "more streams than allowed": Flood(each(1000, lambda n: headers(n, to("/never"))), "reset_flood"),
    "CONTINUATION, empty, no end": Flood(_UNENDED + frame(CONTINUATION, 0, 1) * MANY, "continuation_flood"),
    "CONTINUATION, long, no end": Flood(
        _UNENDED + frame(CONTINUATION, 0, 1, bytes(16_384)) * 100, "continuation_flood"
    ),
    "CONTINUATION, many, with an end": Flood(
        _UNENDED + frame(CONTINUATION, 0, 1) * 100 + frame(CONTINUATION, END_HEADERS, 1), "continuation_flood"
    ),
    "header list far too large": Flood(
        _UNENDED + frame(CONTINUATION, 0, 1, block([(b"x", b"y" * 4000)] * 4)) * 10, "continuation_flood"
    ),
    "HPACK: an entry thousands of times": Flood(
        frame(HEADERS, WHOLE, 1, _ENTRY + _FIRST_ENTRY * 10_000), "header_bomb"
    ),
    "HPACK: an entry as often as fields are allowed": Flood(
        frame(HEADERS, WHOLE, 1, _ENTRY + _FIRST_ENTRY * 300), "header_bomb"
    ),
    "HPACK: an entry in short blocks": Flood(
        frame(HEADERS, WHOLE, 1, _ENTRY) + frame(HEADERS, WHOLE, 3, _FIRST_ENTRY * 100),
        "header_bomb",
    ),
    "HPACK: table size updates": Flood(
        frame(HEADERS, WHOLE, 1, b"\x20\x3f\xe1\x1f" * 4000 + block(GET)), "table_size_flood"
    ),
    "HPACK: table too large": Flood(
        frame(HEADERS, WHOLE, 1, integer(2**28, 5, 0x20) + block(GET)), "bad_header_block", COMPRESSION_ERROR
    ),
    "SETTINGS": Flood(frames.settings() * MANY, "settings_flood"),
    "SETTINGS, acknowledgements": Flood(frame(SETTINGS, ACK) * MANY, "settings_flood"),
    "SETTINGS, many in one": Flood(frames.settings(*[(0xFF, 1)] * 2000), "settings_flood"),
    "SETTINGS, windows": Flood(
        _OPEN + b"".join(frames.settings((INITIAL_WINDOW_SIZE, size % 2)) for size in range(MANY)), "settings_flood"
    ),
    "PING": Flood(ping() * MANY, "ping_flood"),
    "PING, acknowledgements": Flood(ping(flags=ACK) * MANY, "ping_flood"),
    "PRIORITY": Flood(each(MANY, lambda n: priority(n)), "priority_flood"),
    "WINDOW_UPDATE of the connection": Flood(window_update(0, 1) * MANY, "window_update_flood"),
    "WINDOW_UPDATE of a stream": Flood(_OPEN + window_update(1, 1) * MANY, "window_update_flood"),
    "DATA, empty": Flood(_OPEN + data(1) * MANY, "empty_data_flood"),
    "DATA, padded": Flood(_OPEN + data(1, b"\xffx" + bytes(255), PADDED) * 2000, "padding_flood"),
    "DATA on a stream that the client has reset": Flood(_OPEN + rst_stream(1) + data(1, b"x") * MANY, "unread_replies"),
    "DATA on a stream that we have reset": Flood(
        _OPEN + window_update(1, 0) + data(1, b"x") * VERY_MANY, "closed_stream_flood"
    ),
    "RST_STREAM on a closed stream": Flood(_OPEN + rst_stream(1) * VERY_MANY, "closed_stream_flood"),
    "unknown frames": Flood(frame(0x16, 0, 0, b"unknown") * MANY, "unknown_frame_flood"),
    "GOAWAY": Flood(goaway() * MANY, "settings_flood"),
    "frame of 16 MiB": Flood(
        _OPEN + frame(DATA, 0, 1, bytes(2**20), length=2**24 - 1), "frame_too_large", FRAME_SIZE_ERROR
    ),
}

ATTACKERS: Final = 2

FLOOD_BYTES: Final = 16 * MIB
"""What a hundred connections may cost that do the worst, two at a time: what the collector of garbage is late with."""

FLOOD_CPU_SECONDS: Final = 0.25
"""What one connection may cost in all, with the handshake."""


class TestFlood:
    @pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
    def test_flood_is_cut_counted_and_harmless(self, program: Program, flood: Flood) -> None:
        """A client that floods is told why by GOAWAY, one after the other, and is nobody else's concern."""
        counted, cpu_before = faults(program, flood.reason), cpu_seconds(program)
        served = threading.Event()

        def attack() -> int:
            count = 0
            while not served.is_set():
                drown(program, flood)
                count += 1
            return count

        with unharmed(program, most_bytes=FLOOD_BYTES) as look:

            def others() -> int:
                try:
                    look()
                finally:
                    served.set()
                return 0

            attacks = sum(in_parallel([*[attack] * ATTACKERS, others]))
        assert faults(program, flood.reason) - counted == attacks
        assert (cpu_seconds(program) - cpu_before) / attacks < FLOOD_CPU_SECONDS


def drown(program: Program, flood: Flood, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
    """Be a client that floods, and hear the end."""
    with Http2Client(program, version=version) as client:
        client.begin()
        client.send(flood.sent)
        *_, last = client.hear_to_end()
    assert (last.kind, last.code) == (GOAWAY, flood.code), last


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
class TestEndOfTheConnection:
    def test_who_does_not_stop_hears_why_all_the_same(self, program: Program, version: ssl.TLSVersion) -> None:
        """GOAWAY reaches a client that is still sending, and close_notify behind it; it is not reset."""
        for name in ("PING", "CONTINUATION, long, no end", "requests taken back"):
            drown(program, FLOODS[name], version)


# -- what is refused and goes on --------------------------------------------------------------------------------


def in_frames(stream_id: int, header_block: bytes) -> bytes:
    """HEADERS and as many CONTINUATION as a *header_block* needs."""
    pieces = [header_block[at : at + 16_384] for at in range(0, len(header_block), 16_384)]
    sent = []
    for index, piece in enumerate(pieces):
        flags = 0 if index else END_STREAM
        flags |= END_HEADERS if index == len(pieces) - 1 else 0
        sent.append(frame(CONTINUATION if index else HEADERS, flags, stream_id, piece))
    return b"".join(sent)


def answer(client: Http2Client, stream_id: int) -> int:
    """Wait until the response on a stream has ended; return its status."""
    status = 0
    while True:
        found = client.hear()
        assert found is not None
        assert found.kind not in (GOAWAY, RST_STREAM), found
        if found.stream_id == stream_id:
            status = client.status(found.payload) if found.kind == HEADERS else status
            if found.flags & END_STREAM and found.kind in (HEADERS, DATA):
                return status


LARGE_LISTS: Final = 200

LARGE: Final = {
    "one large field": [(b"x", b"y" * 100_000)],
    "many fields": [(b"x", b"y" * 100)] * 150,
}


class TestRefused:
    @pytest.mark.parametrize("fields", LARGE.values(), ids=LARGE.keys())
    def test_header_lists_too_large_are_answered_and_not_kept(self, fresh: Program, fields: list[Field]) -> None:
        """Too large a head is answered with 431, on a connection that goes on, and nothing of it is kept."""
        with unharmed(fresh, most_bytes=2 * MIB) as look, Http2Client(fresh) as client:
            client.begin()
            for stream_id in range(1, 2 * LARGE_LISTS, 2):
                client.send(in_frames(stream_id, block((*GET, *fields))))
                assert answer(client, stream_id) == 431
            look()
            client.send(headers(2 * LARGE_LISTS + 1, to("/hello")))
            assert answer(client, 2 * LARGE_LISTS + 1) == 200

    def test_streams_over_the_limit_are_refused_and_may_come_again(self, program: Program, app: App) -> None:
        """The 101st request at a time is told REFUSED_STREAM, which is no answer, and the app never sees it."""
        asked = len(app.requests)
        with unharmed(program, most_bytes=8 * MIB) as look, Http2Client(program) as client:
            client.begin()
            client.send(each(130, lambda n: headers(n, to("/never/limit"))))
            heard = client.hear_until_answered()
            look()

            refused = {found.stream_id: found.code for found in heard if found.kind == RST_STREAM}
            assert refused == dict.fromkeys(range(201, 260, 2), REFUSED_STREAM)
            client.send(rst_stream(1) + headers(261, to("/hello")))
            assert answer(client, 261) == 200
        assert sum(request.path == "/never/limit" for request in app.requests[asked:]) == 100


# -- stalls -----------------------------------------------------------------------------------------------------

HALVES: Final = {
    "nothing": b"",
    "half a preface": PREFACE[:12],
    "no SETTINGS": PREFACE,
    "half of SETTINGS": PREFACE + frames.settings((1, 1))[:11],
    "half of a frame": PREFACE + frames.settings() + ping()[:10],
    "half of a header block": PREFACE + frames.settings() + headers(1, GET, END_STREAM),
}

BRINKS: Final = {
    "preface": (b"", PREFACE),
    "frame": (PREFACE + frames.settings() + frame(0x16, 0, 0, length=10_000), bytes(10_000)),
    "header block": (PREFACE + frames.settings() + headers(1, GET, END_STREAM), frame(CONTINUATION, 0, 1)),
}


class TestStall:
    @pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES.keys())
    def test_half_of_anything_is_given_up(self, program: Program, sent: bytes) -> None:
        """A client that does not go on is closed in order after SIDECAR_HEADER_TIMEOUT, which is counted."""
        counted = faults(program, "header_timeout")
        with unharmed(program, most_bytes=MIB) as look, Http2Client(program) as client:
            started_at = time.monotonic()
            client.send(sent)
            look()
            last = client.hear_to_end()[-1]
            waited = time.monotonic() - started_at

        assert (last.kind, last.code) == (GOAWAY, NO_ERROR)
        assert 0.9 * HEADER_TIMEOUT < waited < HEADER_TIMEOUT + 2
        assert faults(program, "header_timeout") == counted + 1

    @pytest.mark.parametrize(("sent", "drips"), BRINKS.values(), ids=BRINKS.keys())
    def test_drops_buy_no_time(self, program: Program, sent: bytes, drips: bytes) -> None:
        """A client that goes on byte by byte is closed as late as one that does not."""
        with Http2Client(program) as client:
            started_at = time.monotonic()
            client.send(sent)
            client.socket.settimeout(0.2)
            heard: list[Frame] = []
            for at in range(len(drips) or 1):
                try:
                    heard += client.hear_to_end()
                    break
                except TimeoutError:
                    client.send(drips[at : at + 1])

        assert heard[-1].kind == GOAWAY
        assert 0.9 * HEADER_TIMEOUT < time.monotonic() - started_at < HEADER_TIMEOUT + 2

    def test_header_block_that_stalls_beside_a_request_is_given_up(self, program: Program) -> None:
        """What is under way buys a header block SIDECAR_BODY_TIMEOUT, no more."""
        counted = faults(program, "header_timeout")
        with unharmed(program, most_bytes=MIB) as look, Http2Client(program) as client:
            client.begin()
            started_at = time.monotonic()
            client.send(headers(1, to("/never")) + headers(3, GET, END_STREAM))
            look()

            assert client.hear_to_end()[-1].kind == GOAWAY
            assert 0.9 * BODY_TIMEOUT < time.monotonic() - started_at < BODY_TIMEOUT + 2
        assert faults(program, "header_timeout") == counted + 1

    def test_silence_after_goaway_is_idle(self, program: Program) -> None:
        """A client that says GOAWAY is served what it has asked for, and closed once it is silent for too long."""
        with unharmed(program, most_bytes=MIB) as look, Http2Client(program) as client:
            client.begin()
            client.send(headers(1, to("/hello")) + goaway())
            assert answer(client, 1) == 200
            started_at = time.monotonic()
            look()

            assert client.hear_to_end()[-1].code == NO_ERROR
            assert time.monotonic() - started_at < IDLE_TIMEOUT + 2


# -- readers that do not read -----------------------------------------------------------------------------------

STALLED_CONNECTIONS: Final = 4
STREAMS: Final = 100

BODY: Final = 300_000
"""More than is read ahead of a client that takes nothing, and little enough for the kernel to hold."""

HELD_AHEAD: Final = 64 * 1024
"""What may be held of each response: one read from the app."""

READ_AT_ONCE: Final = 256 * 1024
"""The longest read from an app, while its response flows."""

WIDE: Final = 2**31 - 1


class TestUnread:
    def test_windows_that_stay_shut_hold_one_read_each(self, fresh: Program, own_app: App) -> None:
        """
        Of a response for which the client gives no credit, no more is held than one read from the app, however many
        streams and connections do so; after SIDECAR_BODY_TIMEOUT each is ended by CANCEL and the app is let go.
        """
        count = STALLED_CONNECTIONS * STREAMS
        with unharmed(fresh, most_bytes=count * HELD_AHEAD * 3 // 2) as look, ExitStack() as stack:
            clients = [stack.enter_context(Http2Client(fresh)) for _ in range(STALLED_CONNECTIONS)]
            for client in clients:
                client.begin((INITIAL_WINDOW_SIZE, 0))
                client.send(each(STREAMS, lambda n: headers(n, to(f"/bytes/stalled?n={BODY}"))))
            look()
            for client in clients:
                assert resets(client, STREAMS) == Counter({CANCEL: STREAMS})
                client.send(frames.settings((INITIAL_WINDOW_SIZE, 65_535)) + headers(2 * STREAMS + 1, to("/hello")))
                assert answer(client, 2 * STREAMS + 1) == 200
        assert sum(request.behaviour == "/bytes" for request in own_app.requests) == count
        eventually(lambda: own_app.open_connections == fresh.metric("upstream_connections"), "the app is let go")

    def test_credit_in_drops_is_not_enough(self, program: Program) -> None:
        """A client that gives credit for a byte now and then is cut as one that gives none."""
        with unharmed(program, most_bytes=MIB) as look, Http2Client(program) as client:
            client.begin((INITIAL_WINDOW_SIZE, 0))
            client.send(headers(1, to(f"/bytes?n={BODY}")))
            look()
            client.socket.settimeout(0.1)
            until = time.monotonic() + 3 * BODY_TIMEOUT
            found = None
            while found is None or found.kind != RST_STREAM:
                assert time.monotonic() < until, "it is still served"
                try:
                    found = client.hear()
                except TimeoutError:
                    client.send(window_update(1, 1))

        assert (found.stream_id, found.code) == (1, CANCEL)

    def test_client_that_reads_nothing_is_cut(self, fresh: Program) -> None:
        """
        A client whose windows are wide open, and that reads nothing of what it asks for on all its streams, is cut
        after SIDECAR_BODY_TIMEOUT; until then it costs no more than the longest read for each stream, and its copy.
        """
        with (
            unharmed(fresh, most_bytes=STREAMS * READ_AT_ONCE * 2) as look,
            Http2Client(fresh, receive_buffer=8192) as client,
        ):
            client.begin((INITIAL_WINDOW_SIZE, WIDE))
            client.send(window_update(0, WIDE - 65_535))
            client.send(each(STREAMS, lambda n: headers(n, to("/bytes/unread?n=1000000"))))
            look()
            eventually(lambda: fresh.metric("downstream_connections_active") == NEIGHBOURS, "it is cut, and it alone")

    def test_what_it_sends_meanwhile_buys_no_time_and_is_not_piled_up(self, fresh: Program) -> None:
        """A client that reads nothing, and makes us say much in frames of kinds that are allowed, is cut as well."""
        late = headers(3, to("/sink", POST), END_HEADERS) + rst_stream(3) + data(3, b"x") * 950
        faulty = each(190, lambda n: headers(n + 4) + window_update(n + 4, 0))
        with unharmed(fresh, most_bytes=4 * MIB) as look, Http2Client(fresh, receive_buffer=8192) as client:
            client.begin((INITIAL_WINDOW_SIZE, WIDE))
            client.send(window_update(0, WIDE - 65_535) + headers(1, to("/endless")))
            assert settled(lambda: fresh.metric("downstream_sent_bytes_total")) > 0
            client.send(late + faulty + ping() * 95)

            def is_cut() -> bool:
                try:
                    client.send(window_update(0, 1))
                except OSError:
                    return True
                return fresh.metric("downstream_connections_active") == NEIGHBOURS

            look()
            eventually(is_cut, "it is cut", 3 * BODY_TIMEOUT)


def resets(client: Http2Client, count: int) -> Counter[int]:
    """Wait for so many RST_STREAM; return how many there were of each code."""
    codes: Counter[int] = Counter()
    while codes.total() < count:
        found = client.hear()
        assert found is not None
        if found.kind == RST_STREAM:
            codes[found.code] += 1
    return codes


# -- an app that does not read ----------------------------------------------------------------------------------

UPLOADERS: Final = 4
STREAM_WINDOW: Final = 64 * 1024
CONNECTION_WINDOW: Final = 1024 * 1024

QUIET_SECONDS: Final = 0.5


class StuckApp(RawApp):
    """Answers /hello, and reads next to nothing of any other request."""

    def __init__(self) -> None:
        super().__init__(self._stick)

    def _stick(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while sock.recv(4096).startswith(b"GET /hello "):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        self.gate.wait()


@pytest.fixture
def stuck_app() -> Iterator[StuckApp]:
    """A stuck app for one test."""
    with StuckApp() as running:
        yield running


class Uploader:
    """
    A client with an upload on each of its streams, that sends whatever the program's windows allow.

    Attributes:
        left: Bytes that the window of the connection still has room for.
    """

    def __init__(self, client: Http2Client) -> None:
        self._client = client
        self.left = 65_535  # RFC 9113 section 6.9.2, until it hears of more
        self._windows = dict.fromkeys(range(1, 2 * STREAMS, 2), STREAM_WINDOW)
        client.begin()
        client.send(each(STREAMS, lambda n: headers(n, to("/upload", POST), END_HEADERS)))

    def send_all(self) -> None:
        """Send until there has been no credit for a while."""
        self._client.socket.settimeout(QUIET_SECONDS)
        while True:
            for stream_id in self._windows:
                self._send(stream_id)
            try:
                self._take(self._client.hear())
            except TimeoutError:
                return

    def _send(self, stream_id: int) -> None:
        size = min(self._windows[stream_id], self.left, 16_384)
        if size:
            self._client.send(data(stream_id, bytes(size)))
            self._windows[stream_id] -= size
            self.left -= size

    def _take(self, found: Frame | None) -> None:
        assert found is not None
        assert found.kind not in (GOAWAY, RST_STREAM), found
        if found.kind == frames.WINDOW_UPDATE:
            increment = int.from_bytes(found.payload, "big")
            if found.stream_id:
                self._windows[found.stream_id] += increment
            else:
                self.left += increment


class TestStuckUpload:
    def test_uploads_that_the_app_does_not_read_are_bounded_by_the_windows(
        self, launch: Launch, stuck_app: StuckApp
    ) -> None:
        """Of uploads on all streams into an app that does not read, a connection's window is held, and no more."""
        program = launch(upstream=stuck_app.upstream)
        with (
            unharmed(program, most_bytes=2 * UPLOADERS * CONNECTION_WINDOW + 4 * MIB) as look,
            ExitStack() as stack,
        ):
            uploaders = [Uploader(stack.enter_context(Http2Client(program))) for _ in range(UPLOADERS)]
            in_parallel([uploader.send_all for uploader in uploaders])
            look()
            assert {uploader.left for uploader in uploaders} == {0}, "the windows are not full"


# -- what is no HTTP/2 ------------------------------------------------------------------------------------------


class TestPriorKnowledge:
    def test_without_tls_it_is_not_spoken(self, program: Program) -> None:
        """The preface in clear text on the TLS port is no way in: it is answered as any other noise."""
        with unharmed(program, most_bytes=MIB) as look, plain_socket(program) as sock:
            sock.sendall(PREFACE + frames.settings() + headers(1, to("/hello")))
            heard = b""
            try:
                while piece := sock.recv(65_536):
                    heard += piece
            except ConnectionResetError:
                pass  # unread bytes make it a reset
            look()

        assert not heard or heard.startswith(b"HTTP/1.1 400 ")

    def test_where_http1_was_agreed_on_it_is_not_spoken(self, program: Program) -> None:
        """The preface on a connection that agreed on HTTP/1.1 is a request of a version that there is not."""
        with unharmed(program, most_bytes=MIB) as look, HttpsClient(program) as client:
            client.send(PREFACE + frames.settings() + headers(1, to("/hello")))
            heard = client.read_to_end()
            look()

        assert heard.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))
