"""`tls.records` and `tls.fastpath`: one contract, the same tests over both, with a real OpenSSL client."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from sidecar.errors import TlsError
from sidecar.settings import TlsPolicy
from sidecar.tls import fastpath
from sidecar.tls.context import build_context
from sidecar.tls.fastpath import DirectRecords
from sidecar.tls.records import MAX_UNSENT_BYTES, Records
from sidecar.tls.trust import ClientTrust
from tests.support.certs import authority
from tests.support.forge import ForgingClient
from tests.support.handshake import TLS12, TLS13, client_context, outgoing

SIZES = [1, 16_383, 16_384, 16_385, 65_536, 147_000, 300_000, 600_000]

MakeRecords = Callable[[SSL.Connection], Records]

ALERT = 21


@pytest.fixture(scope="module")
def context() -> SSL.Context:
    bundle = authority().issue("localhost").bundle
    return build_context([bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)


@pytest.fixture(params=[Records, DirectRecords], ids=["public calls", "direct calls"])
def make(request: pytest.FixtureRequest) -> MakeRecords:
    chosen: type[Records] = request.param

    def make_in_server_role(connection: SSL.Connection) -> Records:
        connection.set_accept_state()
        return chosen(connection)

    return make_in_server_role


@pytest.fixture(params=[TLS12, TLS13], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Session:
    """A server's records and the client at the other end."""

    def __init__(self, records: Records, version: int) -> None:
        self.records = records
        self.client = SSL.Connection(client_context(version=version, alpn=[b"http/1.1"]), None)
        self.client.set_connect_state()

    def shake_hands(self) -> Session:
        done = False
        for _ in range(4):
            try:
                self.client.do_handshake()
            except SSL.WantReadError:
                pass
            if done:
                break
            done = self.records.handshake(outgoing(self.client))
            self.client.bio_write(self.records.take() or b"")
        assert done
        return self

    def client_seals(self, data: bytes) -> bytes:
        self.client.sendall(data)
        return outgoing(self.client)

    def client_opens(self, ciphertext: bytes) -> bytes:
        data = b""
        self.client.bio_write(ciphertext)
        try:
            while True:
                data += self.client.recv(65_536)
        except SSL.WantReadError:
            return data

    def client_closes(self) -> bytes:
        self.client.shutdown()
        return outgoing(self.client)


@pytest.fixture
def session(context: SSL.Context, make: MakeRecords, version: int) -> Session:
    return Session(make(SSL.Connection(context, None)), version).shake_hands()


def leave_stale_error() -> None:
    """Put an error into OpenSSL's queue of this thread, as a careless call elsewhere does."""
    fastpath._lib.ERR_clear_error()
    fastpath._lib.BIO_new_file(b"/does/not/exist", b"r")
    assert fastpath._lib.ERR_peek_error()


@pytest.fixture
def stale_error() -> None:
    leave_stale_error()


class TestHandshake:
    def test_it_completes_byte_by_byte(self, context: SSL.Context, make: MakeRecords, version: int) -> None:
        """However the client's messages are split, the handshake gets on."""
        session = Session(make(SSL.Connection(context, None)), version)
        done = False
        while not done:
            try:
                session.client.do_handshake()
            except SSL.WantReadError:
                pass
            for byte in outgoing(session.client):
                assert not done
                done = session.records.handshake(bytes([byte]))
            data = session.records.take()
            if data:
                session.client.bio_write(data)
        assert session.client_opens(session.records.seal(b"hello")) == b"hello"

    def test_plaintext_behind_it_is_read_afterwards(self, context: SSL.Context, make: MakeRecords) -> None:
        """A request in the packet of the client's Finished is not lost."""
        session = Session(make(SSL.Connection(context, None)), TLS13)
        with pytest.raises(SSL.WantReadError):
            session.client.do_handshake()
        assert not session.records.handshake(outgoing(session.client))
        session.client.bio_write(session.records.take())
        session.client.do_handshake()
        assert session.records.handshake(outgoing(session.client) + session.client_seals(b"early"))
        assert session.records.may_hold_more()
        assert session.records.open(b"") == (b"early", False)

    def test_part_of_a_record_behind_it_is_kept(self, context: SSL.Context, make: MakeRecords) -> None:
        """A request of which only some came in the packet of the client's Finished is read once the rest has come."""
        session = Session(make(SSL.Connection(context, None)), TLS13)
        with pytest.raises(SSL.WantReadError):
            session.client.do_handshake()
        assert not session.records.handshake(outgoing(session.client))
        session.client.bio_write(session.records.take())
        session.client.do_handshake()
        finished, early = outgoing(session.client), session.client_seals(b"early")
        assert session.records.handshake(finished + early[:-1])
        assert session.records.may_hold_more()
        assert session.records.open(b"") == (b"", False)
        assert session.records.open(early[-1:]) == (b"early", False)

    @pytest.mark.parametrize(
        ("rubbish", "is_answered"),
        [(b"\x16\x03\x01\x00\x05hello", True), (b"\x00" * 100, False), (b"\x80" * 100, False)],
        ids=["a record of rubbish", "zeros", "high bits"],
    )
    def test_rubbish_raises(self, context: SSL.Context, make: MakeRecords, rubbish: bytes, is_answered: bool) -> None:
        """What is not TLS is an error of ours, with an alert for whoever speaks records at least."""
        records = make(SSL.Connection(context, None))
        with pytest.raises(TlsError) as caught:
            records.handshake(rubbish)
        assert caught.value.reason
        assert (records.take()[:1] == b"\x15") is is_answered
        assert records.close() == b""

    def test_stale_error_breaks_nothing(self, context: SSL.Context, make: MakeRecords, version: int) -> None:
        """What another call left in the error queue does not end an innocent handshake."""
        session = Session(make(SSL.Connection(context, None)), version)
        with pytest.raises(SSL.WantReadError):
            session.client.do_handshake()
        hello = outgoing(session.client)
        leave_stale_error()
        assert not session.records.handshake(hello[:20])
        leave_stale_error()
        assert not session.records.handshake(hello[20:])
        assert session.records.take()

    def test_refused_protocol_leaves_no_error_behind(self, context: SSL.Context, make: MakeRecords) -> None:
        """A client that offers only other protocols is refused by name."""
        records = make(SSL.Connection(context, None))
        client = SSL.Connection(client_context(alpn=[b"h2"]), None)
        client.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        with pytest.raises(TlsError) as caught:
            records.handshake(outgoing(client))
        assert caught.value.reason == "no_shared_alpn"
        assert records.take()[:1] == b"\x15"
        assert not fastpath._lib.ERR_peek_error()


class TestOpen:
    @pytest.mark.parametrize("size", SIZES)
    def test_all_of_it_is_decrypted(self, session: Session, size: int) -> None:
        """Many records in one feed are opened at once."""
        data = bytes(range(256)) * (size // 256 + 1)
        assert session.records.open(session.client_seals(data[:size])) == (data[:size], False)

    def test_records_of_several_sizes_in_one_feed(self, session: Session) -> None:
        """Records do not have to be full."""
        ciphertext = b"".join(session.client_seals(piece) for piece in (b"a", b"b" * 20_000, b"c"))
        assert session.records.open(ciphertext) == (b"a" + b"b" * 20_000 + b"c", False)

    @pytest.mark.parametrize("cut", [40_000, 131_072, 262_144, 300_000, 600_000, 650_000])
    def test_much_may_be_split_anywhere(self, session: Session, cut: int) -> None:
        """Where a large feed ends in the middle of a record, the next one goes on there, large or small."""
        data = bytes(range(256)) * 3_000
        ciphertext = session.client_seals(data)
        pieces = [ciphertext[:cut], ciphertext[cut:-7], ciphertext[-7:]]
        opened = [session.records.open(piece) for piece in pieces]
        assert b"".join(plaintext for plaintext, _ in opened) == data
        assert not any(ended for _, ended in opened)

    def test_much_behind_the_handshake_is_in_order(self, context: SSL.Context, make: MakeRecords) -> None:
        """Data in the packet of the client's Finished goes before a large feed that follows it."""
        session = Session(make(SSL.Connection(context, None)), TLS13)
        with pytest.raises(SSL.WantReadError):
            session.client.do_handshake()
        assert not session.records.handshake(outgoing(session.client))
        session.client.bio_write(session.records.take())
        session.client.do_handshake()
        assert session.records.handshake(outgoing(session.client) + session.client_seals(b"early"))
        assert session.records.open(session.client_seals(b"l" * 100_000)) == (b"early" + b"l" * 100_000, False)

    def test_end_behind_the_handshake_is_the_end(self, context: SSL.Context, make: MakeRecords) -> None:
        """What follows a close_notify in the packet of the client's Finished is not looked at, however much it is."""
        session = Session(make(SSL.Connection(context, None)), TLS13)
        with pytest.raises(SSL.WantReadError):
            session.client.do_handshake()
        assert not session.records.handshake(outgoing(session.client))
        session.client.bio_write(session.records.take())
        session.client.do_handshake()
        assert session.records.handshake(outgoing(session.client) + session.client_closes())
        assert session.records.open(b"x" * 100_000) == (b"", True)

    def test_changed_record_among_much_raises(self, session: Session) -> None:
        """One record that is not authentic breaks the connection, wherever in a large feed it is."""
        ciphertext = bytearray(session.client_seals(b"m" * 200_000))
        ciphertext[150_000] ^= 0x80
        with pytest.raises(TlsError):
            session.records.open(bytes(ciphertext))
        with pytest.raises(TlsError):
            session.records.open(session.client_seals(b"good"))

    def test_connection_is_whole_after_much(self, session: Session) -> None:
        """pyOpenSSL's own calls go on working on the connection, whatever was done to it for speed."""
        assert session.records.open(session.client_seals(b"m" * 100_000)) == (b"m" * 100_000, False)
        session.records.connection.bio_write(session.client_seals(b"more"))
        assert session.records.connection.recv(100) == b"more"

    def test_record_may_be_split_anywhere(self, session: Session) -> None:
        """Bytes come as they like; nothing is handed on before the record is whole."""
        cut, size = 1, 7
        while cut < size:
            ciphertext = session.client_seals(b"hello")
            assert session.records.open(ciphertext[:cut]) == (b"", False)
            assert session.records.open(ciphertext[cut:]) == (b"hello", False)
            cut, size = cut + 1, len(ciphertext)

    def test_whole_record_and_part_of_the_next(self, session: Session) -> None:
        """What is whole is handed on, the rest waits."""
        first, second = session.client_seals(b"first"), session.client_seals(b"second")
        assert session.records.open(first + second[:7]) == (b"first", False)
        assert session.records.open(second[7:]) == (b"second", False)

    def test_after_whole_records_too(self, session: Session) -> None:
        """However well records and feeds have matched before."""
        for _ in range(3):
            assert session.records.open(session.client_seals(b"whole")) == (b"whole", False)
        first, second = session.client_seals(b"first"), session.client_seals(b"second")
        assert session.records.open(first + second[:3]) == (b"first", False)
        assert session.records.open(second[3:] + session.client_seals(b"third")) == (b"secondthird", False)
        assert session.records.open(session.client_seals(b"fourth")) == (b"fourth", False)
        assert session.records.open(session.client_seals(b"fifth") + session.client_closes()) == (b"fifth", True)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(
        pieces=st.lists(st.integers(1, 60), min_size=1, max_size=8),
        feeds=st.lists(st.one_of(st.none(), st.integers(1, 200)), max_size=12),
    )
    def test_any_records_in_any_feeds(
        self, context: SSL.Context, make: MakeRecords, version: int, pieces: list[int], feeds: list[int | None]
    ) -> None:
        """
        What has been handed on after each feed are the records that were whole by then.

        Args:
            feeds: Sizes; None: up to the end of a record.
        """
        session = Session(make(SSL.Connection(context, None)), version).shake_hands()
        data = [bytes([number]) * size for number, size in enumerate(pieces)]
        records = [session.client_seals(piece) for piece in data]
        ends = list(itertools.accumulate(map(len, records)))
        ciphertext, heard, position = b"".join(records), b"", 0
        for size in (*feeds, len(ciphertext)):
            start, whole = position, sum(end <= position for end in ends)
            position = ends[min(whole, len(ends) - 1)] if size is None else start + size
            plaintext, ended = session.records.open(ciphertext[start:position])
            assert not ended
            heard += plaintext
            assert heard == b"".join(data[: sum(end <= position for end in ends)])

    def test_byte_by_byte(self, session: Session) -> None:
        """The slowest client is read too."""
        opened = [session.records.open(bytes([byte])) for byte in session.client_seals(b"slow")]
        assert opened == [(b"", False)] * (len(opened) - 1) + [(b"slow", False)]

    @pytest.mark.parametrize("data", [b"", b"last", b"l" * 40_000], ids=["alone", "behind data", "behind much"])
    def test_close_notify_is_the_end(self, session: Session, data: bytes) -> None:
        """The client has said that this was all; so it stays."""
        ciphertext = session.client_seals(data) if data else b""
        assert session.records.open(ciphertext + session.client_closes()) == (data, True)
        assert session.records.open(b"") == (b"", True)

    @pytest.mark.parametrize("where", ["header", "middle", "tag"])
    def test_changed_record_raises(self, session: Session, where: str) -> None:
        """A record that is not authentic is an error, with an alert for the client."""
        ciphertext = bytearray(session.client_seals(b"hello" * 10))
        ciphertext[{"header": 0, "middle": len(ciphertext) // 2, "tag": -1}[where]] ^= 0x80
        with pytest.raises(TlsError):
            session.records.open(bytes(ciphertext))
        assert session.records.take()[:1] in (b"\x15", b"\x17")  # an alert, in 1.3 inside a record

    def test_replayed_record_raises(self, session: Session) -> None:
        """A record counts once."""
        ciphertext = session.client_seals(b"hello")
        session.records.open(ciphertext)
        with pytest.raises(TlsError):
            session.records.open(ciphertext)

    def test_broken_connection_stays_broken(self, session: Session) -> None:
        """After an error nothing more is read."""
        good = session.client_seals(b"good")
        with pytest.raises(TlsError):
            session.records.open(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        with pytest.raises(TlsError):
            session.records.open(good)

    def test_stale_error_breaks_nothing(self, session: Session, stale_error: None) -> None:
        """What another call left in the error queue does not end an innocent connection."""
        ciphertext = session.client_seals(b"hello")
        leave_stale_error()
        assert session.records.open(ciphertext[:7]) == (b"", False)
        leave_stale_error()
        assert session.records.open(ciphertext[7:]) == (b"hello", False)
        leave_stale_error()
        assert session.records.open(session.client_closes()) == (b"", True)

    def test_error_of_one_connection_is_not_anothers(self, context: SSL.Context, make: MakeRecords) -> None:
        """A broken connection leaves nothing behind that ends its neighbour."""
        broken = Session(make(SSL.Connection(context, None)), TLS13).shake_hands()
        good = Session(make(SSL.Connection(context, None)), TLS13).shake_hands()
        with pytest.raises(TlsError):
            broken.records.open(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        ciphertext = good.client_seals(b"hello")
        assert good.records.open(ciphertext[:9]) == (b"", False)
        assert good.records.open(ciphertext[9:]) == (b"hello", False)

    def test_renegotiation_is_not_done(self, context: SSL.Context, make: MakeRecords) -> None:
        """A TLS 1.2 client that wants to shake hands again goes on without, or fails; the server does no work."""
        session = Session(make(SSL.Connection(context, None)), TLS12).shake_hands()
        session.client.renegotiate()
        try:
            session.client.do_handshake()
        except SSL.Error:
            pass
        try:
            assert session.records.open(outgoing(session.client)) == (b"", False)
        except TlsError:
            pass
        assert len(session.records.take()) < 100


class TestSeal:
    @pytest.mark.parametrize("size", SIZES)
    def test_client_reads_all_of_it(self, session: Session, size: int) -> None:
        """One call seals everything it is given, in order."""
        data = bytes(range(256)) * (size // 256 + 1)
        assert session.client_opens(session.records.seal(data[:size])) == data[:size]
        assert session.records.take() == b""

    def test_both_directions_at_once(self, session: Session) -> None:
        """Half a record on its way in does not keep anything from going out."""
        ciphertext = session.client_seals(b"question")
        session.records.open(ciphertext[:10])
        assert session.client_opens(session.records.seal(b"answer")) == b"answer"
        assert session.records.open(ciphertext[10:]) == (b"question", False)

    def test_seal_after_close_raises(self, session: Session) -> None:
        """Nothing follows close_notify."""
        session.records.close()
        with pytest.raises(TlsError):
            session.records.seal(b"late")
        assert not fastpath._lib.ERR_peek_error()

    def test_seal_after_the_clients_end_works(self, session: Session) -> None:
        """A client that sends no more still reads."""
        session.records.open(session.client_closes())
        assert session.records.seal(b"answer")

    def test_seal_on_a_broken_connection_raises(self, session: Session) -> None:
        """A connection that met a forged record sends no more."""
        with pytest.raises(TlsError):
            session.records.open(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        session.records.take()
        with pytest.raises(TlsError):
            session.records.seal(b"late")

    def test_stale_error_breaks_nothing(self, session: Session, stale_error: None) -> None:
        """What another call left in the error queue does not end an innocent connection."""
        leave_stale_error()
        sealed = session.records.seal(b"hello")
        assert session.client_opens(sealed) == b"hello"


class TestClose:
    def test_client_reads_the_end(self, session: Session) -> None:
        """close_notify tells the client that it has everything."""
        session.client.bio_write(session.records.seal(b"last") + session.records.close())
        assert session.client.recv(100) == b"last"
        with pytest.raises(SSL.ZeroReturnError):
            session.client.recv(100)

    def test_it_can_be_said_after_the_client_has(self, session: Session) -> None:
        """The second close_notify is ours."""
        session.records.open(session.client_closes())
        assert session.records.close()

    def test_stale_error_breaks_nothing(self, session: Session, stale_error: None) -> None:
        """What another call left in the error queue does not keep the end from being told."""
        leave_stale_error()
        assert session.records.close()

    def test_before_the_handshake_there_is_nobody_to_tell(self, context: SSL.Context, make: MakeRecords) -> None:
        """A connection without keys ends in silence."""
        assert make(SSL.Connection(context, None)).close() == b""


class ForgedSession(Session):
    """The same with a client whose records are forged: it asks for answers that OpenSSL gives by itself."""

    def __init__(self, records: Records, version: int) -> None:
        super().__init__(records, version)
        self.forger = ForgingClient(version)
        self.client = self.forger.connection

    def ask(self, count: int = 1) -> bytes:
        return b"".join(self.forger.forge_question() for _ in range(count))


@pytest.fixture
def forged(context: SSL.Context, make: MakeRecords, version: int) -> ForgedSession:
    return _shaken(make(SSL.Connection(context, None)), version)


def _shaken(records: Records, version: int) -> ForgedSession:
    session = ForgedSession(records, version)
    session.shake_hands()
    assert session.client_opens(session.records.seal(b"hello")) == b"hello"  # and the tickets
    assert session.records.open(session.forger.forge(b"hello")) == (b"hello", False)
    return session


@pytest.fixture
def updating(context: SSL.Context, make: MakeRecords) -> ForgedSession:
    """One of TLS 1.3, whose client can go on after its questions: in TLS 1.2 every answer is a refusal."""
    return _shaken(make(SSL.Connection(context, None)), TLS13)


FLOODS: dict[str, Callable[[ForgedSession], list[bytes]]] = {
    "alone": lambda session: [session.ask()],
    "many at once": lambda session: [session.ask(100)],
    "more than the most that is read": lambda session: [session.ask(2_000)],
    "before data": lambda session: [session.ask() + session.forger.forge(b"x")],
    "behind data": lambda session: [session.forger.forge(b"x") + session.ask()],
    "before much data": lambda session: [session.ask() + session.forger.forge(b"x" * 16_000)],
    "many before data": lambda session: [session.ask(100) + session.forger.forge(b"x")],
    "half with the data before, half with that behind": lambda session: _straddling(session, 13),
    "all but its last byte before": lambda session: _straddling(session, -1),
    "byte by byte": lambda session: [bytes([byte]) for byte in session.ask()],
}


def _straddling(session: ForgedSession, cut: int) -> list[bytes]:
    before = session.forger.forge(b"x")
    question = session.ask()
    return [before + question[:cut], question[cut:] + session.forger.forge(b"x")]


def _flood(session: ForgedSession, flood: Callable[[ForgedSession], list[bytes]]) -> None:
    for _ in range(1_000):
        for data in flood(session):
            session.records.open(data)


class TestAnswersOfOpenssl:
    @pytest.mark.parametrize("flood", FLOODS)
    def test_questions_without_end_are_an_error(self, forged: ForgedSession, flood: str) -> None:
        """A peer that only asks for answers makes us hold a bounded number of them, however it sends its questions."""
        with pytest.raises(TlsError) as caught:
            _flood(forged, FLOODS[flood])
        assert caught.value.reason == "control_flood"
        assert len(forged.records.take()) <= 2 * 65_536

    def test_answers_go_out_with_data(self, updating: ForgedSession) -> None:
        """Questions among a conversation are answered, in order, and cost nobody the connection, however many."""
        for number in range(300):
            assert updating.records.open(updating.ask(10) + updating.forger.forge(b"%d" % number)) == (
                b"%d" % number,
                False,
            )
            assert updating.client_opens(updating.records.seal(b"=%d" % number)) == b"=%d" % number

    @pytest.mark.parametrize("size", SIZES)
    def test_much_data_goes_out_behind_the_answers(self, updating: ForgedSession, size: int) -> None:
        """With about as many answers as may wait, data of every size goes out behind them, whole."""
        try:
            for _ in range(1_000):
                updating.records.open(updating.ask(2) + updating.forger.forge(b"x"))
                if _waiting(updating.records) > MAX_UNSENT_BYTES - 64:
                    break
        except TlsError:
            raise AssertionError("cut below the limit") from None
        data = bytes(range(256)) * (size // 256 + 1)
        assert updating.client_opens(updating.records.seal(data[:size])) == data[:size]
        assert _waiting(updating.records) == 0
        assert updating.records.open(updating.forger.forge(b"y")) == (b"y", False)

    def test_alert_is_named(self, forged: ForgedSession) -> None:
        """What the peer says in an alert is in the error: towards an upstream, a refusal of our certificate."""
        with pytest.raises(TlsError, match="alert bad certificate"):
            forged.records.open(forged.forger.forge(b"\x02\x2a", ALERT))

    def test_close_follows_the_answers(self, updating: ForgedSession) -> None:
        """The last word is close_notify, also with answers before it."""
        updating.records.open(updating.ask(10))
        updating.client.bio_write(updating.records.close())
        with pytest.raises(SSL.ZeroReturnError):
            updating.client.recv(100)


def _waiting(records: Records) -> int:
    """Bytes of answers that wait to be sent."""
    if isinstance(records, DirectRecords):
        return int(fastpath._lib.BIO_get_mem_data(records._from_ssl, fastpath._ffi.NULL))
    return len(records._unsent)
