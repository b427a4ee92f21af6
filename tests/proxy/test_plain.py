"""`proxy.plain`: a downstream connection without TLS, with the surface of one that has it."""

from __future__ import annotations

import gc
import weakref

import pytest
from twisted.internet import error, task
from twisted.python import failure

from sidecar.proxy.plain import PlainServer
from tests.support.ports import RecordingTransport, make_failure


class FakeApplication:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.raises: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def eofReceived(self, clean: bool) -> None:
        self.events.append("clean end" if clean else "end")

    def connectionLost(self, reason: failure.Failure) -> None:
        self.events.append("lost")
        if self.raises is not None:
            raise self.raises

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def deadline_passed(self) -> None:
        self.events.append("deadline")


class FakeAcceptor:
    """Lets a `FakeApplication` speak, or closes the door at once."""

    def __init__(self) -> None:
        self.application = FakeApplication()
        self.is_closing_at_once = False
        self.closed_count = 0

    def opened(self, plain: PlainServer) -> FakeApplication:
        if self.is_closing_at_once:
            plain.abort()
        return self.application

    def closed(self, plain: PlainServer) -> None:
        self.closed_count += 1


class Connection:
    """A server over a recording transport."""

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.acceptor = FakeAcceptor()
        self.application = self.acceptor.application
        self.plain = PlainServer(self.acceptor)
        self.transport = RecordingTransport(self.clock, self.plain)
        self.plain.transport = self.transport

    def begin(self) -> Connection:
        self.plain.begin()
        return self


@pytest.fixture
def new() -> Connection:
    return Connection()


@pytest.fixture
def open_() -> Connection:
    return Connection().begin()


class TestBefore:
    def test_nobody_speaks_before_it_begins(self, new: Connection) -> None:
        """A PROXY header may come first; until then whatever happens is nobody's."""
        assert new.plain.is_silent
        new.plain.dataReceived(b"early")
        new.plain.eofReceived()
        new.plain.pauseProducing()
        new.plain.resumeProducing()
        assert new.application.received == b""
        assert new.application.events == []

    def test_deadline_cuts(self, new: Connection) -> None:
        """There is nobody who could say what it was about."""
        new.plain.deadline_passed()
        assert new.transport.calls == ["abortConnection"]

    def test_loss_is_told_to_the_acceptor_alone(self, new: Connection) -> None:
        """Once."""
        new.transport.reset()
        assert new.acceptor.closed_count == 1
        assert new.application.events == []

    def test_client_that_is_turned_away_hears_nothing(self, new: Connection) -> None:
        """Whoever is to speak may cut it at once, and then gets nothing of it but its end."""
        new.acceptor.is_closing_at_once = True
        new.plain.begin()
        new.plain.dataReceived(b"early")
        new.plain.write(b"late")
        new.clock.advance(0)
        assert new.application.received == b""
        assert new.application.events == ["lost"]
        assert new.transport.sent == b""
        assert new.acceptor.closed_count == 1


class TestOpen:
    def test_bytes_go_through_as_they_are(self, open_: Connection) -> None:
        """Both ways."""
        open_.transport.deliver(b"\x16\x03\x01question")
        open_.plain.write(b"answer")
        assert open_.application.received == b"\x16\x03\x01question"
        assert open_.transport.sent == b"answer"
        assert not open_.plain.is_silent

    def test_backpressure_reaches_the_application(self, open_: Connection) -> None:
        """It is the transport's alone; nothing is held here."""
        open_.transport.stop_taking()
        open_.plain.write(b"a")
        assert not open_.plain.is_flushed
        open_.transport.take()
        assert open_.plain.is_flushed
        assert open_.application.events == ["pause", "resume"]

    def test_fin_is_the_end_that_a_client_has_in_the_clear(self, open_: Connection) -> None:
        """Nothing tells it from another, so it is taken for one that was meant."""
        open_.transport.deliver_eof()
        assert open_.application.events == ["clean end"]
        open_.plain.write(b"answer")
        assert open_.transport.sent == b"answer"

    def test_deadline_is_the_applications(self, open_: Connection) -> None:
        """As long as it speaks."""
        open_.plain.deadline_passed()
        assert open_.application.events == ["deadline"]
        assert open_.transport.calls == []

    def test_end_of_writing_leaves_reading(self, open_: Connection) -> None:
        """The client may go on."""
        open_.plain.write(b"all")
        open_.plain.shut_down_writing()
        assert open_.transport.calls == ["shut_down_writing"]
        open_.transport.deliver(b"more")
        open_.plain.write(b"late")
        assert open_.application.received == b"more"
        assert open_.transport.sent == b"all"


class TestClosing:
    @pytest.mark.parametrize(
        ("how", "call"),
        [("close", "loseConnection"), ("linger", "linger"), ("abort", "abortConnection")],
        ids=["close", "linger", "abort"],
    )
    def test_application_hears_no_more_of_the_client(self, open_: Connection, how: str, call: str) -> None:
        """Neither bytes nor an end; what it writes is dropped, and it closes once."""
        getattr(open_.plain, how)()
        open_.plain.dataReceived(b"late")
        open_.plain.eofReceived()
        open_.plain.write(b"late")
        open_.plain.shut_down_writing()
        open_.plain.close()
        open_.plain.linger()
        assert open_.transport.calls == [call]
        assert open_.application.received == b""
        assert open_.application.events == []
        assert open_.transport.sent == b""

    def test_what_was_written_is_sent_before_it_closes(self, open_: Connection) -> None:
        """Closing is not cutting."""
        open_.transport.stop_taking()
        open_.plain.write(b"answer")
        open_.plain.close()
        assert not open_.transport.is_closed
        open_.transport.take()
        assert open_.transport.sent == b"answer"
        assert open_.transport.is_closed

    @pytest.mark.parametrize("how", ["close", "linger"])
    def test_peer_that_does_not_let_go_is_cut(self, open_: Connection, how: str) -> None:
        """The deadline of a connection that is closing is nobody's but its own."""
        open_.transport.stop_taking()
        open_.plain.write(b"answer")
        getattr(open_.plain, how)()
        open_.plain.deadline_passed()
        assert open_.transport.calls[-1] == "abortConnection"
        assert "deadline" not in open_.application.events


class TestLost:
    def test_application_and_acceptor_are_told_once(self, open_: Connection) -> None:
        """In this order, so that the acceptor's word is the last."""
        open_.transport.reset()
        assert open_.application.events == ["lost"]
        assert open_.acceptor.closed_count == 1
        open_.plain.write(b"late")
        open_.plain.abort()
        open_.plain.deadline_passed()
        assert open_.application.events == ["lost"]
        assert open_.plain.is_flushed

    def test_acceptor_is_told_whatever_the_application_does(self, open_: Connection) -> None:
        """A connection that is not counted off would take its place for ever."""
        open_.application.raises = KeyError("a bug")
        with pytest.raises(KeyError):
            open_.plain.connectionLost(make_failure(error.ConnectionLost()))
        assert open_.acceptor.closed_count == 1

    def test_nothing_is_left_for_the_collector(self, open_: Connection) -> None:
        """No reference cycle outlives the connection."""
        open_.transport.reset()
        gone = weakref.ref(open_.plain)
        open_.transport.protocol = None
        gc.collect()
        gc.disable()
        try:
            del open_.plain
            assert gone() is None
        finally:
            gc.enable()
