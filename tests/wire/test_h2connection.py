"""What holds for an HTTP/2 connection in either role: every test runs in both, against a peer that writes by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.wire.events import END, Data
from sidecar.wire.h2connection import Connection
from sidecar.wire.h2frames import Code, ConnectionFault
from sidecar.wire.h2limits import Allowance, Http2Limits, Kind
from sidecar.wire.h2streams import WRITABLE, Reset
from tests.support import frames
from tests.support.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PADDED,
    PING,
    POST,
    PRIORITY,
    SETTINGS,
    WINDOW_UPDATE,
    Field,
    Frame,
    asking,
    begun,
    data,
    frame,
    headers,
    ping,
    priority,
    sent,
    settings,
    window_update,
)

Made = Callable[..., Connection[Any]]


def as_server(*pairs: tuple[int, int], limits: Http2Limits | None = None) -> Connection[Any]:
    """A server with two streams, on which heads were sent and bodies go both ways."""
    connection = begun(limits, *pairs)
    for stream_id in (1, 3):
        connection.receive(headers(stream_id, POST, END_HEADERS), 0.0)
        connection.send_head(stream_id, 200, b"")
    sent(connection)
    connection.sent(0)
    return connection


def as_client(*pairs: tuple[int, int], limits: Http2Limits | None = None) -> Connection[Any]:
    """The same of a client."""
    connection = asking(b"POST", b"POST", pairs=pairs, limits=limits, end=False)
    for stream_id in (1, 3):
        connection.receive(headers(stream_id, OK, END_HEADERS), 0.0)
    return connection


@pytest.fixture(params=[as_server, as_client], ids=["server", "client"])
def made(request: pytest.FixtureRequest) -> Made:
    """Makes a connection in one role."""
    found: Made = request.param
    return found


def fault_of(connection: Connection[Any], received: bytes) -> ConnectionFault:
    with pytest.raises(ConnectionFault) as caught:
        connection.receive(received, 0.0)
    return caught.value


class TestBreaking:
    def test_peer_is_told_the_reason(self, made: Made) -> None:
        """Programs print the debug data of GOAWAY: so whoever tripped a limit finds its name."""
        connection = made()
        connection.data_to_send()
        fault = fault_of(connection, frame(SETTINGS, 0, 1))
        goaway = frames.parse(connection.data_to_send())[-1]
        assert (goaway.code, goaway.payload[8:]) == (fault.code, fault.reason.encode())


class TestFrames:
    FAULTS: tuple[tuple[str, bytes, Code], ...] = (
        ("even stream", data(2, b"x"), Code.PROTOCOL_ERROR),
        ("DATA on stream 0", data(0, b"x"), Code.PROTOCOL_ERROR),
        ("idle stream", data(99, b"x"), Code.PROTOCOL_ERROR),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
        ("SETTINGS cut short", frame(SETTINGS, 0, 0, b"\0"), Code.FRAME_SIZE_ERROR),
        ("acknowledgement with a payload", frame(SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
        ("window over 2^31-1", settings((frames.INITIAL_WINDOW_SIZE, 2**31)), Code.FLOW_CONTROL_ERROR),
        ("PING cut short", ping(b"1"), Code.FRAME_SIZE_ERROR),
        ("GOAWAY cut short", frame(GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
        ("connection's window by nothing", window_update(0, 0), Code.PROTOCOL_ERROR),
        ("connection's window too large", window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        ("setting makes windows too large", window_update(1, 2**31 - 65_536) + settings((4, 65_536)),
         Code.FLOW_CONTROL_ERROR),
        ("PUSH_PROMISE", frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), Code.PROTOCOL_ERROR),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1), Code.PROTOCOL_ERROR),
        ("block of another stream", headers(1, (), 0) + frame(CONTINUATION, 0, 3), Code.PROTOCOL_ERROR),
        ("block without end", headers(1, (), 0) + frame(CONTINUATION, 0, 1) * 17, Code.ENHANCE_YOUR_CALM),
        ("frame too long", frame(DATA, 0, 1, b"", length=16_385), Code.FRAME_SIZE_ERROR),
        ("padding over the payload", data(1, b"\x02x", PADDED), Code.PROTOCOL_ERROR),
        ("window exceeded", data(1, bytes(16_384)) * 5, Code.FLOW_CONTROL_ERROR),
        ("idle stream depends on itself", priority(99, 99), Code.PROTOCOL_ERROR),
    )  # fmt: skip

    @pytest.mark.parametrize("size", [1 << 20, 1], ids=["whole", "byte by byte"])
    @pytest.mark.parametrize(("received", "code"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
    def test_fault_ends_the_connection(self, made: Made, received: bytes, code: Code, size: int) -> None:
        """GOAWAY is the last that is sent, and nothing is heard any more."""
        connection = made()
        pieces = [received[at : at + size] for at in range(0, len(received), size)]
        with pytest.raises(ConnectionFault) as caught:
            [connection.receive(piece, 0.0) for piece in pieces]
        assert caught.value.code is code
        last = sent(connection)[-1]
        assert (last.kind, last.code, connection.open_streams) == (GOAWAY, code, 0)
        assert connection.receive(ping(), 0.0) == []
        connection.go_away()
        connection.reset(1, 8)
        assert (connection.send_data(1, b"x", end=True), sent(connection)) == (0, [])

    def test_message_names_the_peer_by_its_role(self, made: Made) -> None:
        """Whoever reads a log knows on which side to look."""
        message = str(fault_of(made(), frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4))))
        assert ("no app" in message) == (made is as_client)
        assert ("no client" in message) == (made is as_server)

    @pytest.mark.parametrize(
        ("received", "kind"),
        [
            (ping(b"abcdefgh"), PING),
            (settings((frames.INITIAL_WINDOW_SIZE, 70_000)), SETTINGS),
            (settings((0xFF, 1)), SETTINGS),
        ],
    )
    def test_what_is_to_be_acknowledged_is(self, made: Made, received: bytes, kind: int) -> None:
        """RFC 9113 sections 6.5.3 and 6.7."""
        connection = made()
        assert connection.receive(received, 0.0) == []
        (answer,) = sent(connection)
        assert (answer.kind, answer.flags) == (kind, ACK)

    @pytest.mark.parametrize("received", [priority(1), priority(99), frame(0x20, 0, 7, b"x"), ping(flags=ACK)])
    def test_what_is_to_be_ignored_is(self, made: Made, received: bytes) -> None:
        """RFC 9113 sections 5.3.2 and 5.5."""
        connection = made()
        assert connection.receive(received, 0.0) == []
        assert sent(connection) == []

    @pytest.mark.parametrize(
        ("received", "code", "reason"),
        [
            (window_update(1, 0), Code.PROTOCOL_ERROR, "zero_increment"),
            (window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR, "window_overflow"),
            (priority(1, 1), Code.PROTOCOL_ERROR, "bad_priority"),
            (frame(PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR, "frame_size"),
            (headers(1, [(b"x", b"y")], END_HEADERS), Code.PROTOCOL_ERROR, "bad_trailer"),
            (headers(1, [(b"X", b"y")]), Code.PROTOCOL_ERROR, "bad_header"),
            (headers(1, [(b":status", b"200")]), Code.PROTOCOL_ERROR, "bad_pseudo_field"),
        ],
        ids=["window by nothing", "window", "self", "size", "second head", "trailer", "pseudo-field"],
    )
    def test_fault_of_a_stream_ends_that_alone(self, made: Made, received: bytes, code: Code, reason: str) -> None:
        """RST_STREAM to the peer and Reset to the caller; the other stream goes on."""
        connection = made()
        ((stream_id, reset),) = connection.receive(received, 0.0)
        assert isinstance(reset, Reset)
        assert (stream_id, reset.code, reset.reason) == (1, code, reason)
        assert [(found.kind, found.code) for found in sent(connection)] == [(frames.RST_STREAM, code)]
        assert connection.receive(data(3, b"x", END_STREAM), 0.0) == [(3, Data(b"x")), (3, END)]

    def test_block_in_many_frames_is_one(self, made: Made) -> None:
        """Where a block is cut makes no difference."""
        connection, block = made(), frames.block([(b"x-sum", b"1")])
        connection.receive(frame(HEADERS, END_STREAM, 1, block[:3]), 0.0)
        assert connection.is_head_unfinished
        events = connection.receive(frame(CONTINUATION, 0, 1) + frame(CONTINUATION, END_HEADERS, 1, block[3:]), 0.0)
        assert [type(event).__name__ for _, event in events] == ["Trailers", "End"]
        assert not connection.is_head_unfinished


class TestWindows:
    def test_no_more_is_sent_than_the_peer_takes(self, made: Made) -> None:
        """The rest stays with the caller, who is told when there is room."""
        connection = made((frames.INITIAL_WINDOW_SIZE, 10))
        assert connection.writable(1) == 10
        assert connection.send_data(1, b"x" * 12, end=True) == 10
        assert connection.blocked_streams == [1]
        assert connection.receive(window_update(1, 2), 0.0) == [(1, WRITABLE)]
        assert connection.send_data(1, b"x" * 2, end=True) == 2
        assert connection.blocked_streams == []

    def test_streams_share_the_window_of_the_connection(self, made: Made) -> None:
        """When it opens, those that wait are told, who has had the least first, as far as there is room."""
        connection = made((frames.INITIAL_WINDOW_SIZE, 2**30))
        assert connection.send_data(1, b"x" * 100_000) == 65_535
        assert connection.send_data(3, b"x") == 0
        assert connection.receive(window_update(3, 1), 0.0) == []
        assert connection.receive(window_update(0, 10), 0.0) == [(3, WRITABLE), (1, WRITABLE)]
        assert connection.send_data(3, b"x") == 1
        assert connection.send_data(1, b"x" * 34_465) == 9
        assert connection.receive(window_update(0, 10), 0.0) == [(1, WRITABLE)]

    def test_stream_that_was_served_waits_for_the_others(self, made: Made) -> None:
        """However fast it is filled again: else the oldest would take all that there is."""
        connection = made((frames.INITIAL_WINDOW_SIZE, 2**30))
        connection.send_data(1, b"x" * 100_000)
        connection.send_data(3, b"x" * 100_000)
        served = []
        for _ in range(6):
            ((stream_id, _),) = connection.receive(window_update(0, 1000), 0.0)
            served.append(stream_id)
            assert connection.send_data(stream_id, b"x" * 100_000) == 1000
        assert served == [3, 1, 3, 1, 3, 1]

    @pytest.mark.parametrize("held", range(0, 1024, 93))
    def test_what_is_held_does_not_keep_the_rest_of_the_window(self, made: Made, held: int) -> None:
        """Streams whose bytes nobody takes leave the others what is left of the window, down to a KiB."""
        connection = made(limits=Http2Limits(connection_window=1024 * 1024, stream_window=1024 * 1024))
        for _ in range(held):
            connection.receive(data(1, b"x" * 1024), 0.0)
        connection.data_to_send()
        credit = (1024 - held) * 1024
        for _ in range(3000):
            assert credit >= 1024, "the peer may send nothing more, and never will"
            connection.receive(data(3, b"x" * 1024), 0.0)
            connection.acknowledge(3, 1024)
            credit -= 1024
            for found in frames.parse(connection.data_to_send()):
                credit += int.from_bytes(found.payload, "big") if not found.stream_id else 0

    def test_setting_changes_the_windows_of_open_streams(self, made: Made) -> None:
        """RFC 9113 section 6.9.2: also to below nothing."""
        connection = made()
        connection.send_data(1, b"x" * 60_000)
        connection.receive(settings((frames.INITIAL_WINDOW_SIZE, 100)), 0.0)
        assert connection.send_data(1, b"x") == 0
        assert connection.receive(settings((frames.INITIAL_WINDOW_SIZE, 60_001)), 0.0) == [(1, WRITABLE)]
        assert connection.writable(1) == 1

    def test_padding_is_credited_at_once(self, made: Made) -> None:
        """Nobody holds it, so nobody will acknowledge it."""
        connection = made(limits=Http2Limits(connection_window=65_535, padded=Allowance(1000)))
        for _ in range(400):
            connection.receive(data(1, b"\xff" + b"x" * 256 + bytes(255), PADDED), 0.0)
            connection.acknowledge(1, 256)
        assert connection.open_streams == 2

    def test_late_data_is_credited_once_for_all(self, made: Made) -> None:
        """What was on its way when we ended a stream has used the connection's window."""
        connection = made()
        connection.reset(1, 8)
        sent(connection)
        assert connection.receive(data(1, b"x" * 1000) * 3, 0.0) == []
        assert sent(connection) == [Frame(WINDOW_UPDATE, 0, 0, (3000).to_bytes(4, "big"))]


FLOODS: dict[str, tuple[bytes, str]] = {
    "PING": (ping(), "ping_flood"),
    "SETTINGS": (settings(), "settings_flood"),
    "PRIORITY": (priority(1), "priority_flood"),
    "WINDOW_UPDATE": (window_update(0, 1), "window_update_flood"),
    "empty DATA": (data(1), "empty_data_flood"),
    "padding": (data(1, b"\x02x\0\0", PADDED), "padding_flood"),
    "unknown frames": (frame(0x20, 0, 0, bytes(100)), "unknown_frame_flood"),
}


def flood(connection: Connection[Any], received: bytes) -> None:
    """Send more of them than the largest account has, and read what comes back."""
    for _ in range(1200):
        connection.receive(received, 0.0)
        connection.data_to_send()
        connection.sent(0)


class TestFloods:
    @pytest.mark.parametrize(("received", "reason"), FLOODS.values(), ids=FLOODS)
    def test_flood_ends_the_connection(self, made: Made, received: bytes, reason: str) -> None:
        """An app that is broken, or taken over, costs no more than a hostile client."""
        connection = made()
        with pytest.raises(ConnectionFault) as caught:
            flood(connection, received)
        assert (caught.value.code, caught.value.reason) == (Code.ENHANCE_YOUR_CALM, reason)

    def test_replies_that_nobody_reads_have_an_end(self, made: Made) -> None:
        """CVE-2019-9512 and its like, by a peer within its allowance: what it makes us say is bounded."""
        connection = made(limits=Http2Limits(control_bytes=1700, pings=Allowance(10_000)))
        for _ in range(100):
            connection.receive(ping(), 0.0)
        assert fault_of(connection, ping()).reason == "unread_replies"

    def test_replies_that_are_read_do_not_add_up(self, made: Made) -> None:
        """What the transport says it has left is all that counts."""
        connection = made(limits=Http2Limits(control_bytes=1700, pings=Allowance(10_000)))
        for _ in range(1000):
            connection.receive(ping(), 0.0)
            connection.data_to_send()
            connection.sent(1683)
        assert connection.counts[Kind.PING] == 1000

    @pytest.mark.parametrize("fields", [GET, OK], ids=["request", "response"])
    def test_header_block_is_bounded_in_bytes(self, made: Made, fields: tuple[Field, ...]) -> None:
        """CVE-2024-27316: nothing beyond the limit is kept, nor waited for."""
        connection = made()
        connection.receive(headers(1, fields, END_STREAM), 0.0)
        piece = frame(CONTINUATION, 0, 1, bytes(16_384))
        connection.receive(piece * 7, 0.0)
        assert fault_of(connection, piece).reason == "continuation_flood"

    def test_table_of_the_compression_has_our_size(self, made: Made) -> None:
        """A peer that allows a table of gigabytes does not make us keep one."""
        connection = made((frames.HEADER_TABLE_SIZE, 2**32 - 1))
        for n in range(300):
            for _ in range(2):
                connection._writer.trailers(b"X-%d: %b\r\n" % (n, b"y" * 100))
        assert len(connection._writer._encoder._entries) < 40  # type: ignore[attr-defined]


class TestEnds:
    def test_trailers_end_our_half(self, made: Made) -> None:
        """Fields that may be sent are a block; if there are none, an empty frame ends it as well."""
        connection = made()
        connection.receive(data(1, b"", END_STREAM) + data(3, b"", END_STREAM), 0.0)
        connection.send_trailers(1, b"Grpc-Status: 0\r\n")
        connection.send_trailers(3, b"Connection: close\r\n")
        assert [(found.kind, found.flags) for found in sent(connection)] == [
            (HEADERS, END_HEADERS | END_STREAM),
            (DATA, END_STREAM),
        ]
        assert connection.open_streams == 0

    def test_data_is_cut_into_frames(self, made: Made) -> None:
        """A frame is at most 16 KiB, whatever the peer would take: others have their turn."""
        connection = made((frames.MAX_FRAME_SIZE, 2**20))
        connection.receive(data(1, b"", END_STREAM), 0.0)
        assert connection.send_data(1, b"x" * 40_000, end=True) == 40_000
        assert [(len(found.payload), found.flags) for found in sent(connection)] == [
            (16_384, 0),
            (16_384, 0),
            (7232, 1),
        ]
