"""`proxy.dispatch`: who is told of an event, and how; on real descriptors it is tested with `proxy.reactor`."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import main
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python import failure

from sidecar.proxy.dispatch import dispatch
from sidecar.proxy.sockets import SocketTransport
from tests.support.ports import FakeReactor

IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Listener:
    """A protocol that does what the test says when there is data."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.on_data: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data.decode())
        self.on_data()

    def eofReceived(self) -> None:
        self.events.append("eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        self.events.append("lost")

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None:
        self.events.append("resume")


class Turn:
    """Sockets with a reactor that only remembers, and what `dispatch` asks of the real one."""

    def __init__(self) -> None:
        self.selectables: dict[int, Any] = {}
        self.ended: list[tuple[object, Exception, bool]] = []
        self.others: list[tuple[object, int, int]] = []
        self.sockets: list[socket.socket] = []
        self.log: list[LogEvent] = []

    def connection(self) -> tuple[SocketTransport, Listener, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sockets += [ours, theirs]
        protocol = Listener()
        transport = SocketTransport(ours, protocol, FakeReactor())
        self.selectables[ours.fileno()] = transport
        return transport, protocol, theirs

    def act(self, *events: tuple[int, int]) -> None:
        dispatch(
            list(events),
            self.selectables,
            lambda *ended: self.ended.append(ended),
            lambda *other: self.others.append(other),
        )


@pytest.fixture
def turn() -> Iterator[Turn]:
    turn = Turn()
    globalLogPublisher.addObserver(turn.log.append)
    yield turn
    globalLogPublisher.removeObserver(turn.log.append)
    for sock in turn.sockets:
        sock.close()


class TestDispatch:
    def test_input_is_read(self, turn: Turn) -> None:
        """A socket of ours with input gives it to its protocol, and nobody else hears of it."""
        transport, protocol, peer = turn.connection()
        peer.send(b"hello")
        turn.act((transport.fileno(), IN))
        assert protocol.events == ["hello"]
        assert (turn.ended, turn.others) == ([], [])

    def test_room_is_written_to(self, turn: Turn) -> None:
        """A socket of ours with room sends what waits for it."""
        transport, protocol, peer = turn.connection()
        transport._queue.append(b"waiting")
        turn.act((transport.fileno(), OUT))
        assert peer.recv(100) == b"waiting"
        assert protocol.events == ["resume"]

    @pytest.mark.parametrize(("event", "is_reading"), [(IN, True), (OUT, False)], ids=["reading", "writing"])
    def test_loss_is_reported_with_its_direction(self, turn: Turn, event: int, is_reading: bool) -> None:
        """What reading or writing says of the end goes to whoever ends sockets."""
        transport, _, _ = turn.connection()
        number = transport.fileno()
        transport._queue.append(b"x")
        transport._socket.close()
        turn.act((number, event))
        assert turn.ended == [(transport, main.CONNECTION_LOST, is_reading)]

    def test_bug_ends_one_connection(self, turn: Turn) -> None:
        """An exception is logged and ends its own connection; the events behind it are acted on."""
        first, second = turn.connection(), turn.connection()
        error = RuntimeError("a bug")

        def fail() -> None:
            raise error

        first[1].on_data = fail
        first[2].send(b"x")
        second[2].send(b"fine")
        turn.act((first[0].fileno(), IN), (second[0].fileno(), IN))
        assert turn.ended == [(first[0], error, True)]
        assert second[1].events == ["fine"]
        assert len(turn.log) == 1

    @pytest.mark.parametrize("event", [IN | OUT, IN | select.EPOLLHUP, select.EPOLLERR], ids=str)
    def test_unusual_event_is_left_to_the_stock_way(self, turn: Turn, event: int) -> None:
        """Only plain input and plain room take the short way."""
        transport, protocol, _ = turn.connection()
        turn.act((transport.fileno(), event))
        assert turn.others == [(transport, transport.fileno(), event)]
        assert protocol.events == []

    def test_descriptor_of_somebody_else_is_left_to_the_stock_way(self, turn: Turn) -> None:
        """Listening sockets, pipes and the like are not ours to read."""
        stranger = object()
        turn.selectables[7] = stranger
        turn.act((7, IN))
        assert turn.others == [(stranger, 7, IN)]

    def test_unknown_descriptor_is_ignored(self, turn: Turn) -> None:
        """Nobody has it any more: there is nobody to tell."""
        turn.act((7, IN))
        assert (turn.ended, turn.others) == ([], [])

    @pytest.mark.parametrize("heir", [None, object()], ids=["gone", "given away"])
    def test_event_is_for_who_had_the_descriptor(self, turn: Turn, heir: object) -> None:
        """An earlier event of the turn may close a descriptor, whose number may go to another at once."""
        first, second = turn.connection(), turn.connection()
        number = second[0].fileno()

        def give_away() -> None:
            del turn.selectables[number]
            if heir is not None:
                turn.selectables[number] = heir

        first[1].on_data = give_away
        first[2].send(b"x")
        second[2].send(b"x")
        turn.act((first[0].fileno(), IN), (number, IN))
        assert second[1].events == []
        assert turn.others == []
