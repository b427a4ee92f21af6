"""`proxy.reactor`: the short way from the poller to our sockets, on real descriptors, one turn at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python import failure

from sidecar.proxy.reactor import DirectEPollReactor
from sidecar.proxy.sockets import SocketTransport


class Recorder:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""
        self.on: dict[str, Callable[[], object]] = {}

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._note("data")

    def eofReceived(self) -> None:
        self._note("eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        self._note("lost")

    def pauseProducing(self) -> None:
        self._note("pause")

    def resumeProducing(self) -> None:
        self._note("resume")

    def _note(self, event: str) -> None:
        self.events.append(event)
        if event in self.on:
            self.on[event]()


class Turns:
    """A reactor that never runs, and pairs of sockets on it."""

    def __init__(self) -> None:
        make: Any = DirectEPollReactor
        self.reactor = make()
        self.sockets: list[socket.socket] = []
        self.log: list[LogEvent] = []

    def connection(self) -> tuple[SocketTransport, Recorder, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sockets += [ours, theirs]
        protocol = Recorder()
        return SocketTransport(ours, protocol, self.reactor), protocol, theirs

    def turn(self) -> None:
        self.reactor.doPoll(0)
        self.reactor.runUntilCurrent()


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    globalLogPublisher.addObserver(turns.log.append)
    yield turns
    globalLogPublisher.removeObserver(turns.log.append)
    turns.reactor.removeAll()
    for reader in list(turns.reactor._internalReaders):
        turns.reactor._internalReaders.discard(reader)
        reader.connectionLost(None)
    for sock in turns.sockets:
        sock.close()
    turns.reactor._poller.close()


def broken() -> None:
    raise RuntimeError("a bug")


class TestSeconds:
    def test_nobody_sets_the_clock(self, turns: Turns) -> None:
        """It is not the time of day: a deadline is as far off as before where that is set back by an hour."""
        before = time.monotonic()
        assert before <= turns.reactor.seconds() <= time.monotonic()
        call = turns.reactor.callLater(5, broken)
        assert before + 5 <= call.getTime() <= time.monotonic() + 5
        call.cancel()


class TestDoPoll:
    def test_input_and_end_are_delivered(self, turns: Turns) -> None:
        """Data, then the end of the peer, each in its turn."""
        transport, protocol, peer = turns.connection()
        peer.send(b"hello")
        turns.turn()
        peer.close()
        turns.turn()
        assert protocol.received == b"hello"
        assert protocol.events == ["data", "eof"]
        transport.abortConnection()
        turns.turn()
        assert protocol.events == ["data", "eof", "lost"]

    def test_room_is_delivered(self, turns: Turns) -> None:
        """A stuck write goes on when there is room."""
        transport, protocol, peer = turns.connection()
        transport.write(b"x" * 2_000_000)
        peer.setblocking(False)
        received = 0
        for _ in range(10_000):
            try:
                received += len(peer.recv(1_000_000))
            except BlockingIOError:
                pass
            turns.turn()
            if received == 2_000_000:
                break
        assert protocol.events == ["pause", "resume"]

    @pytest.mark.parametrize("event", ["data", "eof"])
    def test_exception_costs_one_connection(self, turns: Turns, event: str) -> None:
        """A bug in one protocol ends its connection, is logged, and leaves the others alone."""
        _, protocol, peer = turns.connection()
        _, other, other_peer = turns.connection()
        protocol.on[event] = broken
        if event == "data":
            peer.send(b"x")
        else:
            peer.shutdown(socket.SHUT_WR)
        other_peer.send(b"fine")
        turns.turn()
        turns.turn()
        assert protocol.events == [event, "lost"]
        assert other.received == b"fine"
        assert any("log_failure" in each for each in turns.log)

    def test_exception_at_the_loss_does_not_stop_the_turn(self, turns: Turns) -> None:
        """A bug in the last callback is logged too, and the other events of the turn are acted on."""
        connections = [turns.connection() for _ in range(5)]
        for _, protocol, peer in connections:
            protocol.on["data"] = protocol.on["lost"] = broken
            peer.send(b"x")
        turns.turn()
        assert [protocol.events for _, protocol, _ in connections] == [["data", "lost"]] * 5

    def test_events_of_a_descriptor_that_is_gone_are_ignored(self, turns: Turns) -> None:
        """Of two events of one turn, the first may close the connection of the second."""
        first, second = turns.connection(), turns.connection()
        first[1].on["data"] = second[0].abortConnection
        second[1].on["data"] = first[0].abortConnection
        first[2].send(b"x")
        second[2].send(b"x")
        turns.turn()
        turns.turn()
        assert sorted([first[1].events, second[1].events]) == [["data"], ["lost"]]

    def test_events_of_a_descriptor_that_was_given_away_are_ignored(self, turns: Turns) -> None:
        """The number of a closed descriptor goes to the next connection; what was said of the old one does not."""
        first, second = turns.connection(), turns.connection()

        class Successor:
            """Has the number of a closed descriptor; must not hear of its events."""

            def __init__(self, sock: socket.socket) -> None:
                self.fileno = sock.fileno
                self.heard = False

            def logPrefix(self) -> str:
                return "successor"

            def doRead(self) -> None:
                self.heard = True

            def connectionLost(self, reason: failure.Failure) -> None:
                self.heard = True

        newcomers: list[Successor] = []

        def give_away(other: SocketTransport) -> Callable[[], None]:
            def act() -> None:
                number = other.fileno()
                other.abortConnection()
                pair = socket.socketpair()
                turns.sockets += pair
                (heir,) = [sock for sock in pair if sock.fileno() == number]
                newcomers.append(Successor(heir))
                turns.reactor.addReader(newcomers[0])

            return act

        first[1].on["data"] = give_away(second[0])
        second[1].on["data"] = give_away(first[0])
        first[2].send(b"x")
        second[2].send(b"x")
        turns.turn()
        assert [newcomer.heard for newcomer in newcomers] == [False]

    def test_reset_is_a_loss(self, turns: Turns) -> None:
        """A hang-up goes the stock way, and ends in the same callback."""
        transport, protocol, peer = turns.connection()
        transport.pauseProducing()
        transport.write(b"x" * 2_000_000)
        peer.close()
        turns.turn()
        assert protocol.events == ["pause", "lost"]

    def test_both_directions_at_once_survive_an_abort(self, turns: Turns) -> None:
        """An event with input and room is harmless for a transport that aborts at the input."""
        transport, protocol, peer = turns.connection()
        transport.write(b"x" * 2_000_000)
        protocol.on["data"] = transport.abortConnection
        peer.send(b"x")
        peer.recv(1_000_000)
        for _ in range(3):
            turns.turn()
        assert protocol.events == ["pause", "data", "lost"]
        assert not turns.log
