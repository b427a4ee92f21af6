"""`control`: messages to bytes and back, and the channel over a socket pair."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from twisted.internet import error

from sidecar import control
from sidecar.control import Channel, Decoder, Kind, Message, encode
from sidecar.errors import Problem
from tests.support.ports import FakeReactor, make_failure


def framed(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


MESSAGES = [
    Message(Kind.READY),
    Message(Kind.START, [{"tls_key": "secret"}, {}]),
    Message(Kind.ANSWER, {"name": "Ü", "numbers": [1, 2.5, None]}, 7),
]


class TestDecoder:
    @pytest.mark.parametrize("size", [1, 3, 5, 1000])
    def test_messages_come_back_however_they_are_cut(self, size: int) -> None:
        """In pieces of any size, none is lost and none is early."""
        data = b"".join(map(encode, MESSAGES))
        decoder = Decoder()
        found = [message for at in range(0, len(data), size) for message in decoder.feed(data[at : at + size])]
        assert found == MESSAGES

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"x",
            b"\xff",
            b"{}",
            b"[]",
            b'["ready",0]',
            b'["unknown",0,null]',
            b'["ready","0",null]',
            b'["ready",true,null]',
            b'["ready",0,null,1]',
            b'[["ready"],0,null]',
            b"[" * 100_000,
        ],
    )
    def test_what_is_no_message_is_refused(self, data: bytes) -> None:
        """Without a word of its text, which may have a secret in it."""
        with pytest.raises(ValueError, match=r"^a message that is none$"):
            Decoder().feed(framed(data))

    def test_longest_message_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At the limit it is taken."""
        message = Message(Kind.ANSWER, "x" * 100)
        monkeypatch.setattr(control, "MAX_MESSAGE_BYTES", len(encode(message)) - 4)
        assert Decoder().feed(encode(message)) == [message]

    def test_longer_message_is_refused_before_it_has_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One byte over the limit is refused by its length alone; the sender does not send it either."""
        message = Message(Kind.ANSWER, "x" * 100)
        data = encode(message)
        monkeypatch.setattr(control, "MAX_MESSAGE_BYTES", len(data) - 5)
        with pytest.raises(ValueError, match="the limit is"):
            Decoder().feed(data[:4])
        with pytest.raises(ValueError, match="the limit is"):
            encode(message)


class TestMessage:
    def test_body_is_not_shown(self) -> None:
        """The settings of a worker may have key material in them."""
        assert "secret" not in repr(Message(Kind.START, "secret"))


class TestProblems:
    def test_problems_come_back(self) -> None:
        """As they were."""
        problems = (Problem("A", "flag", "is wrong", "mend it"), Problem("B", "x.yaml:3", "too", "likewise"))
        assert control.unpack_problems(control.pack_problems(problems)) == problems


class Pair:
    """A channel, and the socket at its other end."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.received: list[Message] = []
        self.closed = 0
        self.other, sock = socket.socketpair()
        self.other.settimeout(5)
        self.channel = Channel(sock, self.received.append, self._closed, self.reactor)
        self.channel.start()

    def _closed(self) -> None:
        self.closed += 1


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.channel.close()
    pair.other.close()


class TestReceive:
    def test_not_a_byte_more_is_read(self) -> None:
        """What follows the first message is left for the channel."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"".join(map(encode, MESSAGES)))
            ours.settimeout(5)
            assert [control.receive(ours) for _ in MESSAGES] == MESSAGES

    def test_end_in_a_message_is_an_error(self) -> None:
        """The other process has ended."""
        ours, theirs = socket.socketpair()
        with ours:
            theirs.sendall(encode(MESSAGES[1])[:-1])
            theirs.close()
            with pytest.raises(ConnectionResetError):
                control.receive(ours)

    def test_empty_message_is_an_error(self) -> None:
        """It is none."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(framed(b""))
            with pytest.raises(ValueError, match="none"):
                control.receive(ours)


class TestChannel:
    def test_messages_go_both_ways(self, pair: Pair) -> None:
        """Each is read and written as soon as it can be."""
        pair.channel.send(MESSAGES[0])
        assert control.receive(pair.other) == MESSAGES[0]
        pair.other.sendall(encode(MESSAGES[1]) + encode(MESSAGES[2]))
        pair.channel.doRead()
        assert pair.received == MESSAGES[1:]

    def test_what_is_not_taken_at_once_waits_for_the_reactor(self, pair: Pair) -> None:
        """A process that does not read holds up nobody; all of it arrives once it does."""
        large = Message(Kind.ANSWER, "x" * 4_000_000)
        pair.channel.send(large)
        assert pair.channel in pair.reactor.writers
        decoder, found = Decoder(), list[Message]()
        while not found:
            found += decoder.feed(pair.other.recv(1_000_000))
            pair.channel.doWrite()
        assert found == [large]
        assert pair.channel not in pair.reactor.writers

    def test_other_end_that_never_reads_is_given_up(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        """What waits for it is bounded."""
        monkeypatch.setattr(control, "MAX_MESSAGE_BYTES", 1_000_000)
        for _ in range(10):
            pair.channel.send(Message(Kind.ANSWER, "x" * 900_000))
        assert pair.closed == 1
        assert pair.reactor.readers == pair.reactor.writers == set()

    def test_end_is_told_once_and_after_the_last_message(self, pair: Pair) -> None:
        """Nothing of what was sent before is lost."""
        pair.other.sendall(encode(MESSAGES[2]))
        pair.other.close()
        pair.channel.connectionLost(make_failure(error.ConnectionLost()))
        pair.channel.connectionLost(make_failure(error.ConnectionLost()))
        assert (pair.received, pair.closed) == ([MESSAGES[2]], 1)
        assert pair.reactor.readers == set()

    def test_end_of_the_reactor_does_not_close_it(self, pair: Pair) -> None:
        """Then there may still be something to say."""
        pair.channel.connectionLost(make_failure(error.ConnectionLost()))
        assert pair.closed == 0
        pair.channel.send(MESSAGES[0])
        assert control.receive(pair.other) == MESSAGES[0]

    def test_message_that_is_none_closes_it(self, pair: Pair) -> None:
        """What comes after it cannot be told from it."""
        pair.other.sendall(framed(b"secret") + encode(MESSAGES[0]))
        pair.channel.doRead()
        assert (pair.received, pair.closed) == ([], 1)
        assert pair.other.recv(1) == b""

    def test_send_after_the_end_is_nothing(self, pair: Pair) -> None:
        """Who sends need not know yet that the other one has gone."""
        pair.other.close()
        pair.channel.send(MESSAGES[0])
        pair.channel.doRead()
        pair.channel.send(MESSAGES[0])
        pair.channel.flush(1)
        assert pair.closed == 1

    def test_flush_waits_until_all_is_sent(self, pair: Pair) -> None:
        """At the end of a process there is no reactor that would go on with it."""
        pair.channel.send(MESSAGES[2])
        pair.channel.flush(1)
        pair.channel.close()
        assert control.receive(pair.other) == MESSAGES[2]

    def test_flush_gives_up(self, pair: Pair) -> None:
        """A process that does not read is not waited for without end."""
        pair.channel.send(Message(Kind.ANSWER, "x" * 4_000_000))
        pair.channel.flush(0.01)
        assert not pair.channel.wants_to_write


class TestPump:
    def test_reads_what_is_there(self, pair: Pair) -> None:
        """It returns as soon as something has come."""
        pair.other.sendall(encode(MESSAGES[0]))
        control.pump([pair.channel], 5)
        assert pair.received == [MESSAGES[0]]

    def test_writes_what_waits(self, pair: Pair) -> None:
        """An answer cannot come before the question has gone out."""
        pair.channel.send(Message(Kind.ANSWER, "x" * 1_000_000))
        before = len(pair.channel._unsent)
        pair.other.recv(500_000)
        control.pump([pair.channel], 5)
        assert len(pair.channel._unsent) < before

    def test_end_is_noticed(self, pair: Pair) -> None:
        """Nobody waits for a process that has gone."""
        pair.other.close()
        control.pump([pair.channel], 5)
        assert pair.closed == 1

    def test_returns_without_anything_in_time(self, pair: Pair) -> None:
        """It is bounded."""
        control.pump([pair.channel], 0.0)
        assert pair.received == []
