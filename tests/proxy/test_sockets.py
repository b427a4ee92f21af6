"""`proxy.sockets`: a real socket pair, with a reactor that the test turns by hand."""

from __future__ import annotations

import errno
import gc
import select
import socket
import struct
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error, main
from twisted.python import failure

from sidecar.proxy import sockets as module
from sidecar.proxy.sockets import MAX_READ_SIZE, MIN_PROGRESS_BYTES, READ_SIZE, SocketTransport
from tests.support.ports import FakeReactor

MUCH = b"x" * 4_000_000


class Recorder:
    """A stream protocol that notes what it is told; *on* runs something of its own at an event."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.reasons: list[type[BaseException] | None] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.depth = 0

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._note("data")

    def eofReceived(self) -> None:
        self._note("eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        assert not self.depth, "told from inside"
        self.reasons.append(reason.type)
        self._note("lost")

    def pauseProducing(self) -> None:
        self._note("pause")

    def resumeProducing(self) -> None:
        self._note("resume")

    def _note(self, event: str) -> None:
        assert "lost" not in self.events, f"{event} after the end"
        self.events.append(event)
        if event in self.on:
            self.on[event]()


class End:
    """One end of a pair under test, and the other end in the test's hands."""

    def __init__(self) -> None:
        sock, self.peer = socket.socketpair()
        sock.setblocking(False)
        self.peer.setblocking(False)
        self.reactor = FakeReactor()
        self.protocol = Recorder()
        self.transport = SocketTransport(sock, self.protocol, self.reactor)
        self.sock = sock

    def read(self) -> None:
        """Let the reactor report input."""
        assert self.transport in self.reactor.readers
        self._disconnect(self.transport.doRead())

    def flush(self) -> None:
        """Let the reactor report room."""
        assert self.transport in self.reactor.writers
        self._disconnect(self.transport.doWrite())

    def guarded(self, call: Callable[..., None], *args: Any) -> None:
        """Call the transport; the protocol must not hear of an end meanwhile."""
        self.protocol.depth += 1
        call(*args)
        self.protocol.depth -= 1

    def peer_reads(self) -> bytes:
        data = b""
        try:
            while piece := self.peer.recv(1_000_000):
                data += piece
        except BlockingIOError:
            pass
        return data

    def exchange_until_flushed(self) -> bytes:
        data = b""
        while self.transport in self.reactor.writers:
            data += self.peer_reads()
            self.flush()
        return data + self.peer_reads()

    @property
    def is_closed(self) -> bool:
        return self.sock.fileno() < 0

    def _disconnect(self, why: Exception | None) -> None:
        """As the reactor does."""
        if why is not None:
            self.reactor.removeReader(self.transport)
            self.reactor.removeWriter(self.transport)
            self.transport.connectionLost(failure.Failure(why))


@pytest.fixture
def end() -> Iterator[End]:
    end = End()
    yield end
    end.peer.close()
    end.sock.close()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.fixture
def tcp() -> Iterator[End]:
    """The same over TCP, which knows resets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    end = End()
    end.peer.close()
    end.sock.close()
    accepted.setblocking(False)
    client.setblocking(False)
    end.peer, end.sock = client, accepted
    end.reactor = FakeReactor()
    end.transport = SocketTransport(accepted, end.protocol, end.reactor)
    yield end
    end.peer.close()
    end.sock.close()


class TestWrite:
    def test_bytes_go_out_at_once(self, end: End) -> None:
        """While nothing is queued, a write is a send: no turn of the loop in between."""
        end.transport.write(b"hello")
        assert end.peer_reads() == b"hello"
        assert not end.reactor.writers
        assert end.transport.is_flushed

    def test_short_write_queues_and_pauses(self, end: End) -> None:
        """What the kernel does not take waits, and the protocol hears of it once."""
        end.transport.write(MUCH)
        assert not end.transport.is_flushed
        assert end.transport in end.reactor.writers
        end.transport.write(b"more")
        assert end.protocol.events == ["pause"]

    def test_drain_sends_the_rest_in_order_and_resumes(self, end: End) -> None:
        """Once the kernel has taken everything, the protocol may go on."""
        end.transport.write(MUCH)
        end.transport.write(b"more")
        assert end.exchange_until_flushed() == MUCH + b"more"
        assert end.protocol.events == ["pause", "resume"]
        assert end.transport.is_flushed

    def test_memory_that_was_lent_may_be_used_again(self, end: End) -> None:
        """Of a view only a copy waits, whether it stands first in the queue or behind others."""
        lent = bytearray(MUCH)
        end.transport.write(memoryview(lent))
        lent[:] = b"y" * len(lent)
        end.transport.write(memoryview(lent)[:5])
        lent[:] = b"z" * len(lent)
        assert end.exchange_until_flushed() == MUCH + b"yyyyy"

    def test_write_from_the_resume_keeps_its_place(self, end: End) -> None:
        """A protocol that fills the socket again when it is resumed is paused again."""
        end.transport.write(MUCH)
        end.protocol.on["resume"] = lambda: end.transport.write(end.protocol.on.pop("resume") and MUCH)
        assert len(end.exchange_until_flushed()) == 2 * len(MUCH)
        assert end.protocol.events == ["pause", "resume", "pause", "resume"]

    def test_nothing_is_written_as_nothing(self, end: End) -> None:
        """An empty write does not pause anybody."""
        end.transport.write(b"")
        assert end.protocol.events == []

    def test_write_after_the_end_is_dropped(self, end: End) -> None:
        """Whoever writes late does no harm."""
        end.transport.abortConnection()
        end.guarded(end.transport.write, b"late")
        end.reactor.turn()
        assert end.protocol.events == ["lost"]

    def test_peer_that_closed_ends_the_connection_later(self, end: End) -> None:
        """EPIPE is an end, told in a later turn and once."""
        end.peer.close()
        end.guarded(end.transport.write, b"a")
        end.guarded(end.transport.write, b"b")
        end.read()
        end.reactor.turn()
        assert end.protocol.events == ["lost"]
        assert end.protocol.reasons == [error.ConnectionLost]
        assert end.is_closed

    def test_peer_that_reset_ends_the_connection_later(self, tcp: End) -> None:
        """ECONNRESET is an end, told in a later turn and once."""
        reset(tcp.peer)
        tcp.guarded(tcp.transport.write, b"a")
        tcp.guarded(tcp.transport.write, b"b")
        if tcp.transport in tcp.reactor.readers:
            tcp.read()
        tcp.reactor.turn()
        assert tcp.protocol.events == ["lost"]
        assert tcp.is_closed

    def test_what_a_peer_said_before_it_closed_is_read_after_a_failed_write(self, tcp: End) -> None:
        """An app that answers early and closes is heard, although it takes no more of the request."""
        tcp.transport.write(b"request")
        tcp.peer.sendall(b"early answer")
        tcp.peer.close()  # with unread bytes: a reset follows
        tcp.guarded(tcp.transport.write, b"body")
        tcp.guarded(tcp.transport.write, b"body")
        while "lost" not in tcp.protocol.events:
            tcp.read()
            tcp.reactor.turn()
        assert tcp.protocol.received == b"early answer"
        assert tcp.protocol.events == ["data", "lost"]

    def test_failed_write_while_paused_ends_the_connection(self, tcp: End) -> None:
        """Nobody would read what is left."""
        tcp.transport.write(b"request")
        tcp.transport.pauseProducing()
        tcp.peer.close()
        tcp.guarded(tcp.transport.write, b"body")
        tcp.guarded(tcp.transport.write, b"body")
        tcp.reactor.turn()
        assert tcp.protocol.events == ["lost"]

    def test_pause_after_a_failed_write_ends_the_connection(self, tcp: End) -> None:
        """The same if it is paused only then."""
        tcp.transport.write(b"request")
        tcp.peer.sendall(b"early answer")
        tcp.peer.close()
        tcp.guarded(tcp.transport.write, b"body")
        tcp.guarded(tcp.transport.write, b"body")
        tcp.guarded(tcp.transport.pauseProducing)
        tcp.reactor.turn()
        assert tcp.protocol.events == ["lost"]

    def test_reset_while_draining_ends_the_connection(self, tcp: End) -> None:
        """A queue whose reader has gone is let go."""
        tcp.transport.write(MUCH * 4)
        reset(tcp.peer)
        tcp.flush()
        assert tcp.protocol.events == ["pause", "lost"]
        assert tcp.transport.is_flushed


class TestProgress:
    def eventually_progresses(self, end: End) -> bool:
        """Ask for a while: over TCP the acknowledgement may take a moment."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            if end.transport.has_progressed():
                return True
            time.sleep(0.005)
        return False

    @pytest.mark.parametrize("which", ["end", "tcp"])
    def test_slow_reader_progresses_and_silent_one_does_not(self, which: str, request: pytest.FixtureRequest) -> None:
        """Each question is about the time since the one before it, and writing does not change the answer."""
        end: End = request.getfixturevalue(which)
        end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        end.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        end.transport.write(MUCH)
        for _ in range(3):
            assert not end.transport.has_progressed()
        for _ in range(3):
            assert end.peer_reads()
            end.flush()
            assert self.eventually_progresses(end)
            assert not end.transport.has_progressed()

    def test_reader_too_slow_for_the_poller_progresses(self, tcp: End) -> None:
        """A reader is steady although it takes too little for its socket to be called writable."""
        tcp.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)  # or the most that the kernel grants
        tcp.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        tcp.transport.write(MUCH)
        while select.select([], [tcp.sock], [], 0.05)[1]:
            tcp.flush()
        assert not tcp.transport.is_flushed
        tcp.transport.has_progressed()
        taken = 0
        while taken < 32_768:
            assert select.select([tcp.peer], [], [], 2.0)[0]
            taken += len(tcp.peer.recv(32_768 - taken))
        assert not select.select([], [tcp.sock], [], 0)[1]
        assert self.eventually_progresses(tcp)
        assert not tcp.transport.has_progressed()

    def test_first_bytes_taken_after_it_got_stuck_count(self, end: End) -> None:
        """The first question is about the time since writing got stuck."""
        end.transport.write(MUCH)
        assert end.peer_reads()
        assert end.transport.has_progressed()

    @pytest.mark.parametrize(("taken", "progressed"), [(MIN_PROGRESS_BYTES - 1, False), (MIN_PROGRESS_BYTES, True)])
    def test_a_few_bytes_are_no_progress(
        self, end: End, monkeypatch: pytest.MonkeyPatch, taken: int, progressed: bool
    ) -> None:
        """Whoever takes a byte now and then, only to be seen, does not progress."""
        end.transport.write(MUCH)
        pending = 200_000
        monkeypatch.setattr(module.fcntl, "ioctl", lambda *_: pending.to_bytes(4, sys.byteorder))
        end.transport.has_progressed()
        for _ in range(5):
            pending -= taken
            assert end.transport.has_progressed() is progressed

    def test_rest_is_progress_however_small(self, end: End, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has taken all there was has done what could be asked; but all of it, and once."""
        pending = 10
        monkeypatch.setattr(module.fcntl, "ioctl", lambda *_: pending.to_bytes(4, sys.byteorder))
        assert not end.transport.has_progressed()
        pending = 1
        assert not end.transport.has_progressed()
        pending = 0
        assert end.transport.has_progressed()
        assert not end.transport.has_progressed()

    def test_bytes_written_meanwhile_do_not_hide_it(self, end: End) -> None:
        """A reader that takes less than is written to it in that time is steady too."""
        end.transport.write(MUCH)
        end.transport.write(MUCH)
        assert end.peer_reads()
        assert end.transport.has_progressed()

    def test_bytes_written_meanwhile_are_none_taken(self, end: End) -> None:
        """Writing alone is no progress."""
        end.transport.write(MUCH)
        for _ in range(3):
            end.transport.write(b"more")
            assert not end.transport.has_progressed()

    def test_what_was_stuck_before_is_forgotten(self, end: End) -> None:
        """A queue that has gone out is no progress later."""
        end.transport.write(MUCH)
        end.exchange_until_flushed()
        assert not end.transport.has_progressed()

    def test_bytes_that_only_the_kernel_has_count(self, end: End) -> None:
        """What was taken by the kernel at once is not taken by the peer: from the first question on, that is seen."""
        end.transport.write(b"x" * 10_000)
        assert end.transport.is_flushed
        assert not end.transport.has_progressed()
        assert not end.transport.has_progressed()
        end.peer_reads()
        assert end.transport.has_progressed()
        assert not end.transport.has_progressed()

    @pytest.mark.parametrize("how", ["abortConnection", "loseConnection"])
    def test_connection_that_has_ended_can_be_asked(self, end: End, how: str) -> None:
        """Between its end and the word of it, a connection has no descriptor left and does not raise."""
        end.guarded(getattr(end.transport, how))
        assert not end.transport.has_progressed()
        end.reactor.turn()
        assert not end.transport.has_progressed()

    def test_connection_that_ended_at_a_write_can_be_asked(self, tcp: End) -> None:
        """Also if that very write was its end, as for an app that resets while it is not read from."""
        tcp.transport.pauseProducing()
        reset(tcp.peer)
        tcp.guarded(tcp.transport.write, b"body")
        tcp.guarded(tcp.transport.write, b"body")
        assert tcp.is_closed
        assert not tcp.transport.has_progressed()

    def test_socket_that_does_not_tell_is_no_error(self, end: End, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the kernel cannot be asked, nothing has been taken."""

        def refuse(*args: Any) -> bytes:
            raise OSError(errno.EINVAL, "cannot tell")

        monkeypatch.setattr(module.fcntl, "ioctl", refuse)
        end.transport.write(MUCH)
        assert not end.transport.has_progressed()


class TestReadSize:
    def read_sizes(self, transport: SocketTransport) -> list[int]:
        """Read what flows without end, so much at a time as it likes."""
        sizes: list[int] = []
        transport._recv = lambda size: sizes.append(size) or b"x" * size  # type: ignore[func-returns-value]
        for _ in range(6):
            transport.doRead()
        return sizes

    def test_reads_stay_small(self, end: End) -> None:
        """Unless told otherwise, one turn reads 64 KiB, however fast they come."""
        assert self.read_sizes(end.transport) == [READ_SIZE] * 6

    def test_reads_grow_to_what_is_allowed(self, end: End) -> None:
        """From a peer that is trusted with it, more is read while it flows, up to the limit."""
        transport = SocketTransport(end.sock, end.protocol, end.reactor, MAX_READ_SIZE)
        sizes = self.read_sizes(transport)
        assert sizes == [READ_SIZE, 2 * READ_SIZE, *[MAX_READ_SIZE] * 4]

    def test_limit_may_change_while_it_flows(self, end: End) -> None:
        """A new limit holds from the next read on, in either direction, and never keeps anybody from reading."""
        end.transport.read_up_to(150_000)
        assert self.read_sizes(end.transport)[-2:] == [150_000] * 2
        end.transport.read_up_to(100_000)
        assert self.read_sizes(end.transport) == [100_000] * 6
        end.transport.read_up_to(0)
        assert self.read_sizes(end.transport) == [READ_SIZE] * 6


class TestRead:
    def test_data_is_handed_on(self, end: End) -> None:
        """What the peer sends is delivered."""
        end.peer.send(b"hello")
        end.read()
        assert end.protocol.received == b"hello"

    def test_spurious_event_is_nothing(self, end: End) -> None:
        """An event without data, as after a reused descriptor number, does no harm."""
        end.read()
        assert end.transport.doWrite() is None
        assert "data" not in end.protocol.events
        assert not end.protocol.reasons

    def test_pause_stops_reading(self, end: End) -> None:
        """A paused connection is not read from, and may be paused and resumed twice."""
        end.transport.pauseProducing()
        end.transport.pauseProducing()
        assert not end.reactor.readers
        end.transport.resumeProducing()
        end.transport.resumeProducing()
        assert end.reactor.readers == {end.transport}

    def test_eof_is_told_once_and_stops_reading(self, end: End) -> None:
        """A closed side stays readable for ever: the poller must not hear of it again."""
        end.peer.shutdown(socket.SHUT_WR)
        end.read()
        assert end.protocol.events == ["eof"]
        end.transport.resumeProducing()
        assert not end.reactor.readers
        end.transport.write(b"still")
        assert end.peer_reads() == b"still"

    def test_reset_ends_the_connection(self, tcp: End) -> None:
        """A reset is a loss."""
        reset(tcp.peer)
        tcp.read()
        assert tcp.protocol.events == ["lost"]
        assert tcp.protocol.reasons == [error.ConnectionLost]

    def test_abort_from_inside_is_told_later(self, end: End) -> None:
        """A protocol may abort in the middle of what it is told."""
        end.protocol.on["data"] = lambda: end.guarded(end.transport.abortConnection)
        end.peer.send(b"x")
        end.read()
        assert end.protocol.events == ["data"]
        assert end.transport.doRead() in (None, main.CONNECTION_LOST)
        end.reactor.turn()
        assert end.protocol.events == ["data", "lost"]

    def test_events_after_an_abort_in_the_same_turn_are_harmless(self, end: End) -> None:
        """A poller that reports both directions at once calls `doWrite` of a transport that ended in `doRead`."""
        end.transport.write(MUCH)
        end.protocol.on["data"] = end.transport.abortConnection
        end.peer.send(b"x")
        end.read()
        why = end.transport.doWrite()
        if why is not None:
            end.transport.connectionLost(failure.Failure(why))
        end.reactor.turn()
        assert end.protocol.events == ["pause", "data", "lost"]


class TestAcknowledge:
    def test_socket_that_is_none_of_tcp_has_nothing_to_acknowledge(self, end: End) -> None:
        """Nor has one that is gone; neither is an error."""
        end.guarded(end.transport.acknowledge)
        end.sock.close()
        end.guarded(end.transport.acknowledge)
        assert end.protocol.events == []


class TestLoseConnection:
    def test_flushed_connection_closes_at_once(self, end: End) -> None:
        """Nothing is under way; the protocol hears of it in the next turn."""
        end.guarded(end.transport.loseConnection)
        assert end.is_closed
        assert end.protocol.events == []
        end.reactor.turn()
        assert end.protocol.reasons == [error.ConnectionDone]

    def test_what_was_written_goes_out_first(self, end: End) -> None:
        """A close waits for the queue, and drops what arrives meanwhile."""
        end.transport.write(MUCH)
        end.guarded(end.transport.loseConnection)
        end.transport.write(b"late")
        end.peer.send(b"ignored")
        end.read()
        assert end.exchange_until_flushed() == MUCH
        assert end.protocol.events == ["pause", "lost"]
        assert end.protocol.received == b""
        assert end.is_closed

    def test_end_of_the_peer_meanwhile_is_no_end(self, end: End) -> None:
        """A peer that has closed its side still gets the rest."""
        end.transport.write(MUCH)
        end.transport.loseConnection()
        end.peer.shutdown(socket.SHUT_WR)
        end.read()
        assert end.exchange_until_flushed() == MUCH
        assert end.protocol.events == ["pause", "lost"]

    def test_twice_is_once(self, end: End) -> None:
        """A second close changes nothing."""
        end.transport.loseConnection()
        end.transport.loseConnection()
        end.transport.abortConnection()
        end.reactor.turn()
        assert end.protocol.events == ["lost"]


class TestHalfClose:
    def test_peer_reads_the_end_and_can_go_on_sending(self, end: End) -> None:
        """We send no more; what the peer sends still arrives."""
        end.transport.shut_down_writing()
        assert end.peer.recv(1) == b""
        end.transport.write(b"late")
        end.peer.send(b"answer")
        end.read()
        assert end.protocol.received == b"answer"
        end.peer.close()
        end.read()
        assert end.protocol.events == ["data", "eof"]
        end.transport.loseConnection()
        end.reactor.turn()
        assert end.protocol.events == ["data", "eof", "lost"]

    def test_what_was_written_goes_out_first_and_resumes(self, end: End) -> None:
        """The end comes behind the queue; a protocol that was paused for it is resumed."""
        end.transport.write(MUCH)
        end.transport.shut_down_writing()
        assert end.exchange_until_flushed() == MUCH
        assert end.protocol.events == ["pause", "resume"]
        assert end.peer.recv(1) == b""

    def test_close_after_it_flushes_too(self, end: End) -> None:
        """A close behind a half-close behind a queue waits for the queue."""
        end.transport.write(MUCH)
        end.transport.shut_down_writing()
        end.transport.loseConnection()
        assert end.exchange_until_flushed() == MUCH
        assert end.protocol.events == ["pause", "lost"]


class TestLinger:
    def test_input_is_dropped_until_the_peer_closes(self, end: End) -> None:
        """The peer reads our last words although it is still sending."""
        end.transport.write(b"last")
        end.transport.linger()
        for _ in range(3):
            end.peer.send(b"x" * 1000)
            end.read()
        assert end.peer_reads() == b"last"
        end.peer.close()
        end.read()
        assert end.protocol.events == ["lost"]
        assert end.protocol.reasons == [error.ConnectionDone]

    def test_paused_connection_reads_again(self, end: End) -> None:
        """Only by reading is the end seen."""
        end.transport.pauseProducing()
        end.transport.linger()
        assert end.transport in end.reactor.readers

    def test_queue_goes_out_before_the_end(self, end: End) -> None:
        """The peer sees the end behind all that was written."""
        end.transport.write(MUCH)
        end.transport.linger()
        assert end.exchange_until_flushed() == MUCH
        assert end.peer.recv(1) == b""
        assert end.protocol.events == ["pause"]

    def test_peer_that_has_closed_already_is_not_waited_for(self, end: End) -> None:
        """Its end has been seen, and will not be seen again."""
        end.protocol.on["eof"] = end.transport.linger
        end.peer.shutdown(socket.SHUT_WR)
        end.read()
        end.reactor.turn()
        assert end.protocol.events == ["eof", "lost"]

    def test_abort_ends_it(self, end: End) -> None:
        """A peer that never closes is cut by whoever set the deadline."""
        end.transport.linger()
        end.guarded(end.transport.abortConnection)
        end.reactor.turn()
        assert end.protocol.events == ["lost"]

    def test_linger_after_the_end_is_nothing(self, end: End) -> None:
        """A connection that is gone does not come back."""
        end.transport.abortConnection()
        end.transport.linger()
        end.transport.shut_down_writing()
        end.transport.resumeProducing()
        end.reactor.turn()
        assert end.protocol.events == ["lost"]
        assert not end.reactor.readers


class TestAbort:
    def test_peer_sees_a_reset(self, tcp: End) -> None:
        """What the peer has must not pass for all there is."""
        tcp.transport.write(b"part")
        tcp.transport.abortConnection()
        with pytest.raises(ConnectionResetError):
            tcp.peer_reads()

    def test_queue_is_dropped(self, end: End) -> None:
        """Nothing waits for a peer that was cut."""
        end.transport.write(MUCH)
        end.guarded(end.transport.abortConnection)
        assert end.transport.is_flushed
        assert not end.reactor.readers
        assert not end.reactor.writers
        end.reactor.turn()
        assert end.protocol.events == ["pause", "lost"]
        assert end.protocol.reasons == [error.ConnectionAborted]

    def test_socket_that_is_gone_does_not_raise(self, tcp: End) -> None:
        """A peer that was faster leaves nothing to reset."""
        reset(tcp.peer)
        tcp.transport.abortConnection()
        tcp.reactor.turn()
        assert tcp.protocol.events == ["lost"]


class TestEnd:
    @pytest.mark.parametrize("how", ["abortConnection", "loseConnection", "reset"])
    def test_nothing_is_kept(self, tcp: End, how: str) -> None:
        """Protocol and transport let go of each other: no reference cycle is left for the collector."""

        class Owner(Recorder):
            transport: SocketTransport

        owner = Owner()
        owner.transport = tcp.transport = SocketTransport(tcp.sock, owner, FakeReactor())
        reactor = tcp.transport._reactor
        if how == "reset":
            reset(tcp.peer)
            tcp.transport.connectionLost(failure.Failure(main.CONNECTION_LOST))
        else:
            getattr(tcp.transport, how)()
            reactor.turn()
        assert owner.events == ["lost"]
        gone = weakref.ref(owner)
        tcp.transport = SocketTransport(socket.socket(), Recorder(), FakeReactor())
        tcp.transport._socket.close()
        gc.disable()
        try:
            del owner, reactor
            assert gone() is None
        finally:
            gc.enable()

    def test_errors_that_pass_are_no_end(self, end: End, monkeypatch: pytest.MonkeyPatch) -> None:
        """EAGAIN, EINTR and ENOBUFS are tried again."""
        for number in (errno.EAGAIN, errno.EINTR, errno.ENOBUFS):

            def refuse(data: bytes, number: int = number) -> int:
                raise OSError(number, "not now")

            monkeypatch.setattr(end.transport, "_send", refuse)
            end.transport.write(b"a")
            if end.reactor.writers:
                end.flush()
        assert end.protocol.events == ["pause"]
        monkeypatch.setattr(end.transport, "_send", end.sock.send)
        end.flush()
        assert end.peer_reads() == b"aaa"
