"""`tls.server`: the states of a downstream TLS connection, with a client in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
from OpenSSL import SSL
from twisted.internet import error, task
from twisted.python import failure

from sidecar.settings import TlsPolicy
from sidecar.tls import server
from sidecar.tls.context import build_context
from sidecar.tls.fastpath import records_for
from sidecar.tls.server import TlsServer
from sidecar.tls.trust import ClientTrust
from sidecar.tls.verify import is_resumed
from tests.support.certs import authority
from tests.support.handshake import TLS12, TLS13, client_context, outgoing
from tests.support.ports import RecordingTransport, make_failure


class FakeApplication:
    """Notes what it is told; *on* runs something of its own at an event."""

    def __init__(self, tls: TlsServer) -> None:
        self.tls = tls
        self.received = b""
        self.events: list[str] = []
        self.on: dict[str, Callable[[], object]] = {}

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._note("data")

    def eofReceived(self, clean: bool) -> None:
        self._note("close_notify" if clean else "eof")

    def connectionLost(self, reason: failure.Failure) -> None:
        self._note("lost")

    def pauseProducing(self) -> None:
        self._note("pause")

    def resumeProducing(self) -> None:
        self._note("resume")

    def deadline_passed(self) -> None:
        self._note("deadline")

    def _note(self, event: str) -> None:
        self.events.append(event)
        if event in self.on:
            self.on[event]()


class FakeAcceptor:
    """Notes what it is told, and answers plain text."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.application: FakeApplication | None = None
        self.raises: Exception | None = None
        self.greeting = b""

    def established(self, tls: TlsServer, connection: SSL.Connection) -> FakeApplication:
        assert connection.get_protocol_version_name().startswith("TLSv1.")
        if self.raises is not None:
            raise self.raises
        self.events.append("established")
        self.application = FakeApplication(tls)
        if self.greeting:
            tls.write(self.greeting)
        return self.application

    def handshake_failed(self, tls: TlsServer, reason: str, message: str) -> None:
        assert message
        self.events.append(reason)

    def plaintext_reply(self, data: bytes) -> bytes:
        return b"use https" if data.startswith(b"GET ") else b""

    def closed(self, tls: TlsServer) -> None:
        self.events.append("closed")


@pytest.fixture(scope="module")
def context() -> SSL.Context:
    bundle = authority().issue("localhost").bundle
    return build_context([bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)


class Connection:
    """A server over a recording transport, and its client."""

    def __init__(self, context: SSL.Context, version: int = TLS13) -> None:
        self.context = context
        self.clock = task.Clock()
        self.acceptor = FakeAcceptor()
        self.tls = TlsServer(records_for(context), self.acceptor)
        self.transport = RecordingTransport(self.clock, self.tls)
        self.tls.transport = self.transport
        self.client = SSL.Connection(client_context(version=version), None)
        self.client.set_connect_state()

    @property
    def application(self) -> FakeApplication:
        assert self.acceptor.application is not None
        return self.acceptor.application

    def hello(self) -> bytes:
        with pytest.raises(SSL.WantReadError):
            self.client.do_handshake()
        return outgoing(self.client)

    def shake_hands(self) -> Connection:
        for _ in range(4):
            try:
                self.client.do_handshake()
            except SSL.WantReadError:
                pass
            data = outgoing(self.client)
            if data:
                self.transport.deliver(data)
            self.to_client()
        return self

    def last_flight(self) -> bytes:
        """Shake hands up to the client's last message, and return that."""
        self.transport.deliver(self.hello())
        self.to_client()
        try:
            self.client.do_handshake()
        except SSL.WantReadError:
            pass
        return outgoing(self.client)

    def sealed(self, data: bytes) -> bytes:
        self.client.sendall(data)
        return outgoing(self.client)

    def sends(self, data: bytes) -> None:
        self.transport.deliver(self.sealed(data))

    def close_notify(self) -> bytes:
        self.client.shutdown()
        return outgoing(self.client)

    def to_client(self) -> None:
        if self.transport.sent:
            self.client.bio_write(self.transport.sent)
            self.transport.sent = b""

    def client_can_resume(self) -> bool:
        """Whether the client has got a ticket that is worth something."""
        session = self.client.get_session()
        assert session is not None
        self.client.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        again = Connection(self.context)
        again.client = SSL.Connection(self.client.get_context(), None)
        again.client.set_connect_state()
        again.client.set_session(session)
        return is_resumed(again.shake_hands().tls.connection)

    def client_reads(self) -> tuple[bytes, bool]:
        """Return what the client can read, and whether it was told that this is all."""
        self.to_client()
        data = b""
        try:
            while True:
                data += self.client.recv(65_536)
        except SSL.WantReadError:
            return data, False
        except SSL.ZeroReturnError:
            return data, True


@pytest.fixture
def new(context: SSL.Context) -> Connection:
    return Connection(context)


@pytest.fixture(params=[TLS12, TLS13], ids=["1.2", "1.3"])
def open_(context: SSL.Context, request: pytest.FixtureRequest) -> Connection:
    return Connection(context, request.param).shake_hands()


class TestNew:
    def test_plain_http_is_told_so(self, new: Connection) -> None:
        """A client that forgot the s gets a readable answer, and may still be sending."""
        new.transport.deliver(b"GET / HTTP/1.1\r\n\r\n")
        assert new.transport.sent == b"use https"
        assert new.transport.calls == ["linger"]
        assert new.acceptor.events == ["plain_http"]

    @pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 1], [1, 2], [2, 1], [1, 1, 1], [1] * 17], ids=str)
    def test_plain_http_in_tiny_pieces_is_told_so(self, new: Connection, sizes: list[int]) -> None:
        """However little of a method comes first, the answer waits for the rest of it."""
        request = b"GET / HTTP/1.1\r\n\r\n"
        for size in sizes:
            piece, request = request[:size], request[size:]
            new.tls.dataReceived(piece)
            if len(request) > 18 - 4:
                assert new.transport.sent == b""
                assert new.transport.calls == []
                assert new.acceptor.events == []
        new.tls.dataReceived(request)
        assert new.transport.sent == b"use https"
        assert new.transport.calls == ["linger"]
        assert new.acceptor.events == ["plain_http"]

    @pytest.mark.parametrize("letters", [b"G", b"GE", b"GET"], ids=bytes.decode)
    @pytest.mark.parametrize("rest", [b"\x00\x01\x02\x03", b"TING", b"\x16\x03\x01\x00\x05hello"], ids=repr)
    def test_letters_before_rubbish_are_closed(self, new: Connection, letters: bytes, rest: bytes) -> None:
        """Letters that no HTTP method begins with fail as soon as that is known, also before a TLS record."""
        new.transport.deliver(letters)
        assert new.transport.calls == []
        new.transport.deliver(rest)
        assert new.transport.calls == ["linger"]
        assert len(new.acceptor.events) == 1
        assert new.acceptor.events != ["plain_http"]

    @pytest.mark.parametrize("data", [b"\x00", b"5", b" ", b"G1", b"GE\r", b"\xe9", b"ABCD"], ids=repr)
    def test_what_cannot_be_a_method_is_not_waited_for(self, new: Connection, data: bytes) -> None:
        """Only up to three letters are held; anything else that is no TLS record goes to the handshake at once."""
        new.transport.deliver(data)
        new.tls.deadline_passed()
        assert len(new.acceptor.events) == 1
        assert not new.tls.is_silent

    def test_letters_alone_end_at_the_deadline(self, new: Connection) -> None:
        """A client that says no more than three letters is cut as one that says nothing."""
        new.transport.deliver(b"GET")
        new.tls.deadline_passed()
        assert new.acceptor.events == ["handshake_timeout"]

    def test_letters_and_an_end_are_a_failed_handshake(self, new: Connection) -> None:
        """A client that leaves after a letter has closed."""
        new.transport.deliver(b"G")
        new.transport.deliver_eof()
        assert new.acceptor.events == ["closed_by_peer"]

    def test_hello_in_single_bytes_is_a_handshake(self, new: Connection) -> None:
        """A TLS record is known by its first byte, and nothing of it is held back or lost."""
        for octet in new.hello():
            new.transport.deliver(bytes([octet]))
        new.shake_hands()
        assert new.acceptor.events == ["established"]

    def test_rubbish_is_closed(self, new: Connection) -> None:
        """What is neither TLS nor HTTP ends."""
        new.transport.deliver(b"\x00\x01\x02" * 10)
        assert new.transport.calls == ["linger"]
        assert len(new.acceptor.events) == 1

    def test_end_is_a_failed_handshake(self, new: Connection) -> None:
        """A client that opens and closes, as a health check does, is told from others by its reason."""
        new.transport.deliver_eof()
        assert new.acceptor.events == ["closed_by_peer"]
        assert new.transport.calls == ["linger"]

    def test_loss_is_a_failed_handshake_and_closed(self, new: Connection) -> None:
        """The acceptor hears of each connection's end, last and once."""
        new.transport.reset()
        assert new.acceptor.events == ["closed_by_peer", "closed"]

    def test_deadline_is_a_failed_handshake(self, new: Connection) -> None:
        """A client that says nothing is cut at the deadline, and again if it stays."""
        new.tls.deadline_passed()
        assert new.acceptor.events == ["handshake_timeout"]
        new.tls.deadline_passed()
        new.clock.advance(0)
        assert new.transport.calls == ["linger", "abortConnection"]
        assert new.acceptor.events == ["handshake_timeout", "closed"]

    def test_abort_before_anything(self, new: Connection) -> None:
        """A forced stop cuts connections in any state."""
        new.tls.abort()
        new.clock.advance(0)
        assert new.acceptor.events == ["closed"]

    def test_writing_is_not_possible_yet(self, new: Connection) -> None:
        """There are no keys."""
        new.tls.write(b"early")
        new.tls.close()
        new.tls.linger()
        assert new.transport.sent == b""
        assert new.transport.calls == []


class TestHandshake:
    def test_end_is_a_failure(self, new: Connection) -> None:
        """A client that leaves in the middle has failed."""
        new.transport.deliver(new.hello())
        new.transport.deliver_eof()
        assert new.acceptor.events == ["closed_by_peer"]

    def test_deadline_is_a_failure(self, new: Connection) -> None:
        """A client that stalls in the middle has failed."""
        new.transport.deliver(new.hello()[:50])
        new.tls.deadline_passed()
        assert new.acceptor.events == ["handshake_timeout"]

    def test_error_is_answered_with_an_alert(self, new: Connection) -> None:
        """A client that cannot be served is told in TLS."""
        new.transport.deliver(b"\x16\x03\x01\x00\x05hello")
        assert new.transport.sent[:1] == b"\x15"
        assert new.transport.calls == ["linger"]
        assert len(new.acceptor.events) == 1

    def test_data_after_a_failure_is_dropped(self, new: Connection) -> None:
        """A failed handshake is not begun again."""
        hello = new.hello()
        new.transport.deliver(b"\x16\x03\x01\x00\x05hello")
        new.tls.dataReceived(hello)
        new.tls.eofReceived()
        assert len(new.acceptor.events) == 1

    def test_request_behind_finished_is_delivered(self, new: Connection) -> None:
        """The first request may come in the packet that ends the handshake."""
        new.transport.deliver(new.hello())
        new.to_client()
        new.client.do_handshake()
        new.transport.deliver(outgoing(new.client) + new.sealed(b"request"))
        assert new.application.received == b"request"
        assert not new.transport.acknowledged

    def test_part_of_a_request_behind_finished_is_acknowledged(self, new: Connection) -> None:
        """The rest of it may be held back until then."""
        new.transport.deliver(new.hello())
        new.to_client()
        new.client.do_handshake()
        flight, record = outgoing(new.client), new.sealed(b"request")
        new.transport.deliver(flight + record[:9])
        assert new.transport.acknowledged == 1
        new.transport.deliver(record[9:])
        assert new.application.received == b"request"

    def test_close_behind_finished_is_delivered(self, new: Connection) -> None:
        """So may the end."""
        new.transport.deliver(new.hello())
        new.to_client()
        new.client.do_handshake()
        new.transport.deliver(outgoing(new.client) + new.sealed(b"request") + new.close_notify())
        assert new.application.events == ["data", "close_notify"]

    def test_acceptor_may_write_at_once(self, new: Connection) -> None:
        """An application that speaks first is heard."""
        new.acceptor.greeting = b"hello"
        new.shake_hands()
        assert new.client_reads() == (b"hello", False)

    def test_tickets_leave_with_the_first_answer(self, new: Connection) -> None:
        """In TLS 1.3 nothing is sent for them alone; the client can resume once it has read something."""
        new.shake_hands()
        assert new.transport.times_written == 1
        assert new.transport.acknowledged == 1
        new.tls.write(b"answer")
        assert new.transport.times_written == 2
        assert new.client_reads() == (b"answer", False)
        assert new.client_can_resume()

    @pytest.mark.parametrize("end", ["close", "shut_down_writing", "linger"])
    def test_tickets_leave_with_the_end(self, new: Connection, end: str) -> None:
        """A connection on which nothing was said gives its client what it can resume with all the same."""
        new.shake_hands()
        getattr(new.tls, end)()
        assert new.client_reads() == (b"", True)
        assert new.client_can_resume()

    def test_alert_is_sealed_behind_the_tickets(self, new: Connection) -> None:
        """A client that breaks a record hears why: records count from one to the next, so none is left out."""
        new.shake_hands()
        new.transport.deliver(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        with pytest.raises(SSL.Error, match="bad record mac"):
            new.client_reads()

    def test_large_tickets_leave_at_once(self, new: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        """An idle connection does not keep what it would not miss."""
        monkeypatch.setattr(server, "_MAX_HELD_TICKETS", 500)
        new.shake_hands()
        assert new.transport.times_written == 2
        assert not new.transport.acknowledged
        assert new.client_reads() == (b"", False)
        assert new.client_can_resume()

    def test_last_flight_of_tls12_leaves_at_once(self, context: SSL.Context) -> None:
        """There the client waits for it."""
        connection = Connection(context, TLS12).shake_hands()
        assert connection.transport.times_written == 2
        connection.sends(b"question")
        assert connection.application.received == b"question"

    def test_exception_of_the_acceptor_ends_cleanly(self, new: Connection) -> None:
        """A bug above costs this connection only: its end is told as usual."""
        new.acceptor.raises = RuntimeError("a bug")
        with pytest.raises(RuntimeError, match="a bug"):
            new.shake_hands()
        new.transport.reset()
        assert new.acceptor.events[-1] == "closed"


class TestOpen:
    def test_bytes_pass_both_ways(self, open_: Connection) -> None:
        """What one side writes the other reads."""
        open_.sends(b"question")
        assert open_.application.received == b"question"
        open_.tls.write(b"answer")
        assert open_.client_reads() == (b"answer", False)

    def test_much_on_two_connections_in_turns(self, context: SSL.Context) -> None:
        """What is sealed is with the transport before anything else is sealed, in whatever memory that is done."""
        first, second = (Connection(context).shake_hands() for _ in range(2))
        for connection, letter in ((first, b"a"), (second, b"b"), (first, b"c")):
            connection.tls.write(letter * 200_000)
        assert first.client_reads() == (b"a" * 200_000 + b"c" * 200_000, False)
        assert second.client_reads() == (b"b" * 200_000, False)

    def test_empty_write_is_nothing(self, open_: Connection) -> None:
        """No record is made for no bytes."""
        open_.to_client()
        open_.tls.write(b"")
        assert open_.transport.sent == b""

    def test_close_says_so_first(self, open_: Connection) -> None:
        """The client knows that it has everything."""
        open_.tls.write(b"last")
        open_.tls.close()
        assert open_.client_reads() == (b"last", True)
        assert open_.transport.calls == ["loseConnection"]

    def test_linger_says_so_first(self, open_: Connection) -> None:
        """The same for a client that is still sending."""
        open_.tls.write(b"last")
        open_.tls.linger()
        assert open_.client_reads() == (b"last", True)
        assert open_.transport.calls == ["linger"]

    @pytest.mark.parametrize("end", ["close", "linger"])
    def test_last_write_and_the_end_leave_as_one(self, open_: Connection, end: str) -> None:
        """A short answer, behind which the connection ends, is one packet with the close_notify."""
        open_.tls.write(b"first")
        writes = open_.transport.times_written
        open_.tls.write_last(b"last")
        getattr(open_.tls, end)()
        assert open_.client_reads() == (b"firstlast", True)
        assert open_.transport.times_written == writes + 1

    def test_long_last_write_is_not_copied(self, open_: Connection) -> None:
        """It fills packets by itself, so it leaves at once."""
        data = bytes(16 * 1024 + 1)
        open_.tls.write_last(data)
        assert open_.client_reads() == (data, False)
        open_.tls.close()
        assert open_.client_reads() == (b"", True)

    def test_last_write_is_not_sent_when_the_connection_is_cut(self, open_: Connection) -> None:
        """Without its end it may as well be missing."""
        open_.client_reads()
        open_.tls.write_last(b"last")
        open_.tls.abort()
        assert open_.transport.sent == b""

    def test_abort_does_not_say_so(self, open_: Connection) -> None:
        """A cut must not look like an end."""
        open_.tls.write(b"part")
        open_.tls.abort()
        assert open_.client_reads() == (b"part", False)
        assert open_.transport.calls == ["abortConnection"]

    def test_broken_record_cuts(self, open_: Connection) -> None:
        """A forged record ends the connection without close_notify; the application hears of the loss only."""
        open_.transport.deliver(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        open_.clock.advance(0)
        assert open_.transport.calls == ["abortConnection"]
        assert open_.application.events == ["lost"]

    def test_end_without_close_notify_is_not_clean(self, open_: Connection) -> None:
        """A connection that just ends may have been cut by anybody."""
        open_.transport.deliver_eof()
        assert open_.application.events == ["eof"]

    def test_deadline_is_the_applications(self, open_: Connection) -> None:
        """After the handshake the application waits for things."""
        open_.tls.deadline_passed()
        assert open_.application.events == ["deadline"]

    def test_backpressure_is_the_applications(self, open_: Connection) -> None:
        """A stuck socket pauses who writes, and its drain resumes it."""
        open_.transport.stop_taking()
        assert open_.tls.is_flushed
        open_.tls.write(b"a")
        assert not open_.tls.is_flushed
        open_.transport.take()
        assert open_.application.events == ["pause", "resume"]
        assert open_.client_reads() == (b"a", False)

    def test_application_may_abort_when_it_is_told_something(self, open_: Connection) -> None:
        """An abort in the middle of data keeps the end behind it from being told."""
        open_.application.on["data"] = open_.tls.abort
        open_.transport.deliver(open_.sealed(b"x") + open_.close_notify())
        open_.clock.advance(0)
        assert open_.application.events == ["data", "lost"]

    def test_application_may_close_when_it_is_told_something(self, open_: Connection) -> None:
        """A close in the middle of data does as well."""
        open_.application.on["data"] = open_.tls.close
        open_.transport.deliver(open_.sealed(b"x") + open_.close_notify())
        open_.clock.advance(0)
        assert open_.application.events == ["data", "lost"]

    def test_loss_is_told_to_both(self, open_: Connection) -> None:
        """First the application, last the acceptor."""
        open_.transport.reset()
        assert open_.application.events == ["lost"]
        assert open_.acceptor.events == ["established", "closed"]

    def test_exception_at_the_loss_does_not_hide_it(self, open_: Connection) -> None:
        """A bug of the application must not keep its place in the count of connections."""

        def broken() -> None:
            raise RuntimeError("a bug")

        open_.application.on["lost"] = broken
        with pytest.raises(RuntimeError, match="a bug"):
            open_.tls.connectionLost(make_failure(error.ConnectionLost()))
        assert open_.acceptor.events[-1] == "closed"

    def test_exception_at_data_is_the_reactors(self, open_: Connection) -> None:
        """It is not swallowed here; whoever reads the socket ends the connection for it."""

        def broken() -> None:
            raise RuntimeError("a bug")

        open_.application.on["data"] = broken
        with pytest.raises(RuntimeError, match="a bug"):
            open_.sends(b"x")
        open_.transport.reset()
        assert open_.acceptor.events[-1] == "closed"


class TestPeerDone:
    def test_client_still_reads(self, open_: Connection) -> None:
        """close_notify closes one direction only."""
        open_.transport.deliver(open_.close_notify())
        assert open_.application.events == ["close_notify"]
        open_.tls.write(b"answer")
        open_.to_client()
        open_.tls.close()
        assert open_.transport.sent
        assert open_.transport.calls == ["loseConnection"]

    def test_end_of_the_socket_is_not_told_again(self, open_: Connection) -> None:
        """It is no news."""
        open_.transport.deliver(open_.close_notify())
        open_.transport.deliver_eof()
        assert open_.application.events == ["close_notify"]

    def test_data_behind_it_is_dropped(self, open_: Connection) -> None:
        """Who said that this was all has said all."""
        open_.transport.deliver(open_.close_notify())
        open_.tls.dataReceived(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        assert open_.application.events == ["close_notify"]
        assert open_.transport.calls == []

    def test_deadline_and_linger_work_as_before(self, open_: Connection) -> None:
        """The application still decides."""
        open_.transport.deliver(open_.close_notify())
        open_.tls.deadline_passed()
        assert open_.application.events == ["close_notify", "deadline"]
        open_.tls.linger()
        assert open_.transport.calls == ["linger"]


class TestDone:
    """We have said that no more will come; the client may go on."""

    @pytest.fixture
    def done(self, open_: Connection) -> Connection:
        open_.tls.write(b"all")
        open_.tls.shut_down_writing()
        return open_

    def test_client_is_told_and_goes_on(self, done: Connection) -> None:
        """It reads our end, and what it sends afterwards still arrives, however much that is."""
        assert done.client_reads() == (b"all", True)
        assert done.transport.calls == []
        for piece in (b"a", b"b" * 100_000, b"c"):
            done.sends(piece)
        assert done.application.received == b"a" + b"b" * 100_000 + b"c"
        assert "close_notify" not in done.application.events

    def test_data_that_crosses_our_end_arrives(self, done: Connection) -> None:
        """The client had not heard of it yet."""
        done.sends(b"crossing")
        assert done.application.received == b"crossing"
        assert done.client_reads() == (b"all", True)

    def test_end_of_the_client_is_told(self, done: Connection) -> None:
        """Once; then it is the application that lets go."""
        done.client_reads()
        done.transport.deliver(done.sealed(b"last") + done.close_notify())
        assert done.application.received == b"last"
        assert done.application.events == ["data", "close_notify"]
        assert done.transport.calls == []
        done.tls.close()
        assert done.transport.calls == ["loseConnection"]
        assert done.transport.sent == b"", "close_notify is said once"

    def test_end_without_close_notify_is_not_clean(self, done: Connection) -> None:
        """As before."""
        done.transport.deliver_eof()
        assert done.application.events == ["eof"]

    def test_nothing_is_written_behind_it(self, done: Connection) -> None:
        """Neither data nor a second end."""
        done.client_reads()
        done.tls.write(b"late")
        done.tls.shut_down_writing()
        assert done.transport.sent == b""

    @pytest.mark.parametrize(("how", "call"), [("close", "loseConnection"), ("linger", "linger")], ids=str)
    def test_application_may_let_go_at_once(self, done: Connection, how: str, call: str) -> None:
        """What the client sends from then on is dropped."""
        getattr(done.tls, how)()
        assert done.transport.calls == [call]
        done.tls.dataReceived(done.sealed(b"late"))
        assert done.application.received == b""

    def test_broken_record_cuts(self, done: Connection) -> None:
        """What arrives is checked as before."""
        done.transport.deliver(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        done.clock.advance(0)
        assert done.transport.calls == ["abortConnection"]
        assert done.application.events == ["lost"]

    def test_deadline_is_the_applications(self, done: Connection) -> None:
        """Only it knows how long to wait for the other side."""
        done.tls.deadline_passed()
        assert done.application.events == ["deadline"]

    def test_application_may_end_its_side_when_the_client_ends(self, open_: Connection) -> None:
        """In whichever order: after the client's end there is nothing to shut down but all."""
        open_.transport.deliver(open_.close_notify())
        open_.tls.shut_down_writing()
        assert open_.transport.sent == b""
        open_.tls.close()
        assert open_.client_reads() == (b"", True)

    @pytest.mark.parametrize("when", ["new", "closed"])
    def test_there_must_be_something_to_shut_down(self, new: Connection, when: str) -> None:
        """Before the handshake and after the end it is nothing."""
        if when == "closed":
            new.tls.abort()
        new.tls.shut_down_writing()
        assert new.transport.sent == b""


class TestClosed:
    @pytest.fixture
    def closed(self, context: SSL.Context) -> Connection:
        connection = Connection(context).shake_hands()
        connection.transport.stop_taking()
        connection.tls.write(b"stuck")
        connection.tls.close()
        connection.application.events.clear()
        return connection

    def test_data_is_dropped(self, closed: Connection) -> None:
        """The application is done with this client."""
        closed.tls.dataReceived(closed.sealed(b"late"))
        closed.tls.eofReceived()
        assert closed.application.received == b""
        assert closed.application.events == []

    def test_writes_are_dropped(self, closed: Connection) -> None:
        """Nothing follows close_notify."""
        queued = closed.transport.queued
        closed.tls.write(b"late")
        closed.tls.close()
        closed.tls.linger()
        assert closed.transport.queued == queued
        assert closed.transport.calls == ["loseConnection"]

    def test_deadline_cuts(self, closed: Connection) -> None:
        """A client that does not take the rest in time is cut."""
        closed.tls.deadline_passed()
        closed.clock.advance(0)
        assert closed.transport.calls == ["loseConnection", "abortConnection"]
        assert closed.application.events == ["lost"]

    def test_events_after_the_end_are_harmless(self, closed: Connection) -> None:
        """Whoever still holds a connection that is gone can do no harm."""
        closed.transport.reset()
        tls = closed.tls
        tls.write(b"late")
        tls.close()
        tls.linger()
        tls.abort()
        tls.deadline_passed()
        tls.pauseProducing()
        tls.resumeProducing()
        tls.dataReceived(b"late")
        tls.eofReceived()
        assert tls.is_flushed
        assert closed.application.events == ["lost"]
        assert closed.acceptor.events == ["established", "closed"]


class TestMemory:
    @pytest.mark.parametrize("end", ["reset", "close", "abort", "linger"])
    def test_nothing_is_left_for_the_collector(self, context: SSL.Context, end: str) -> None:
        """A connection that ended is freed by reference counting alone."""
        connection = Connection(context).shake_hands()
        connection.sends(b"x")
        tls, transport = connection.tls, connection.transport
        if end == "reset":
            transport.reset()
        else:
            getattr(tls, end)()
            transport.reset()
            connection.clock.advance(0)
        assert connection.acceptor.events[-1] == "closed"
        transport.protocol = None  # as a socket transport does
        # What it alone keeps stands for it, which has no weak references.
        gone = [weakref.ref(tls.connection), weakref.ref(connection.application)]
        connection.acceptor.application = None
        gc.collect()
        gc.disable()
        try:
            del connection, tls, transport
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


class TestHandshakeSize:
    def test_endless_handshake_is_cut(self, context: SSL.Context) -> None:
        """What a client may send before it is anybody is bounded."""
        connection = Connection(context)
        hello = connection.hello()
        connection.transport.deliver(hello)
        record = b"\x16\x03\x03\x40\x00" + b"\x0b\x00\xff\xff" + bytes(0x4000 - 4)
        for _ in range(3):
            if connection.transport.is_open:
                connection.transport.deliver(record)
        assert connection.acceptor.events[0] in ("handshake_too_large", "protocol_error")

    def test_data_behind_a_handshake_is_no_part_of_it(self, context: SSL.Context) -> None:
        """A client may send a large request together with its Finished."""
        connection = Connection(context)
        flight = connection.last_flight()
        data = b"a" * 60_000
        connection.transport.deliver(flight + connection.sealed(data))
        assert connection.acceptor.events == ["established"]
        assert connection.application.received == data

    def test_bytes_that_are_too_many_are_told(self, context: SSL.Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reason is one of its own."""
        monkeypatch.setattr("sidecar.tls.server.MAX_HANDSHAKE_BYTES", 100)
        connection = Connection(context)
        connection.transport.deliver(connection.hello())
        assert connection.acceptor.events == ["handshake_too_large"]
        assert not connection.transport.is_open
