"""`proxy.preface`: what a fresh connection begins with. The headers themselves: tests/conformance."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from sidecar.proxy.preface import Preface
from sidecar.proxy.sockets import StreamProtocol
from sidecar.wire.proxyproto import MAX_HEADER_BYTES, ProxyHeader, SocketAddress
from tests.support.proxyheaders import HELLO, HTTP, SIGNATURE, v2

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
HEADER = ProxyHeader(
    version=1, source=SocketAddress("192.0.2.1", 56324), destination=SocketAddress("198.51.100.2", 443)
)
LOST = Failure(ConnectionDone())


@attrs.define
class Owner:
    """Whoever has the transport: writes down what it is told, and does then what a test wants."""

    calls: list[tuple[object, ...]] = attrs.field(factory=list)
    then: Callable[[], None] = lambda: None

    def received(self, header: ProxyHeader | None, rest: bytes) -> None:
        self._told("received", header, rest)

    def refused(self, reason: str, text: str) -> None:
        self._told("refused", reason, text)

    def gone(self, count: int) -> None:
        self._told("gone", count)

    def _told(self, *call: object) -> None:
        self.calls.append(call)
        self.then()


@pytest.fixture
def owner() -> Owner:
    return Owner()


def make(owner: Owner, *, may_have: bool = True, is_required: bool = False) -> Preface:
    return Preface(
        is_required=is_required,
        may_have=may_have,
        received=owner.received,
        refused=owner.refused,
        gone=owner.gone,
    )


def close(preface: Preface) -> None:
    preface.eofReceived()


def lose(preface: Preface) -> None:
    preface.connectionLost(LOST)


class TestTrustedPeer:
    def test_header_is_handed_over_with_what_follows(self, owner: Owner) -> None:
        """The bytes of a segment behind the header belong to the next protocol."""
        make(owner).dataReceived(LINE + HELLO)
        assert owner.calls == [("received", HEADER, HELLO)]

    def test_nothing_is_said_before_all_is_there(self, owner: Owner) -> None:
        """The verdict comes with the last byte of the header, and not earlier."""
        preface = make(owner, is_required=True)
        for octet in LINE[:-1]:
            preface.dataReceived(bytes((octet,)))
        assert owner.calls == []
        preface.dataReceived(LINE[-1:])
        assert owner.calls == [("received", HEADER, b"")]

    @pytest.mark.parametrize("data", [HELLO, HTTP, b"\0"], ids=["TLS", "HTTP", "else"])
    def test_connection_without_header_goes_on(self, owner: Owner, data: bytes) -> None:
        """Where none is required, what came is handed over whole."""
        make(owner).dataReceived(data)
        assert owner.calls == [("received", None, data)]

    def test_request_that_begins_in_the_same_way_goes_on_whole(self, owner: Owner) -> None:
        """What was held back to find out is handed over too."""
        preface = make(owner)
        for piece in (b"P", b"RO", b"PFIND / HTTP/1.1\r\n"):
            preface.dataReceived(piece)
        assert owner.calls == [("received", None, b"PROPFIND / HTTP/1.1\r\n")]

    @pytest.mark.parametrize(("data", "what"), [(HELLO, "a TLS handshake"), (HTTP, "something else")])
    def test_required_header_that_is_missing_is_refused(self, owner: Owner, data: bytes, what: str) -> None:
        """The operator learns what came in its place, and what to do."""
        make(owner, is_required=True).dataReceived(data)
        ((call, reason, text),) = owner.calls
        assert (call, reason) == ("refused", "proxy_header_missing")
        assert f"begins with {what} and not" in str(text)
        assert "proxy_protocol_v2.enabled" in str(text)

    def test_invalid_header_is_refused_with_its_fault(self, owner: Owner) -> None:
        """Also where none is required: what begins as a header is nothing else."""
        make(owner).dataReceived(LINE.replace(b"443", b"0443"))
        ((call, reason, text),) = owner.calls
        assert (call, reason) == ("refused", "proxy_header_invalid")
        assert "(bad_port): the destination port '0443' is not a number from 0 to 65535;" in str(text)

    @pytest.mark.parametrize("data", [b"PROXY " + bytes(MAX_HEADER_BYTES), v2(b"", length=0xFFFF)], ids=["v1", "v2"])
    def test_peer_that_does_not_stop_is_refused(self, owner: Owner, data: bytes) -> None:
        """What is held while nothing is decided has a limit."""
        preface = make(owner)
        for octet in data:
            preface.dataReceived(bytes((octet,)))
        ((call, reason, _),) = owner.calls
        assert (call, reason) == ("refused", "proxy_header_invalid")


class TestUntrustedPeer:
    @pytest.mark.parametrize("is_required", [False, True])
    @pytest.mark.parametrize("data", [LINE, b"PROXY ", SIGNATURE, v2(b"", 0, command=0), b"PROXY rubbish\r\n"])
    def test_header_is_refused(self, owner: Owner, data: bytes, is_required: bool) -> None:
        """Anybody could send one: it is neither believed nor skipped, and its rest is not waited for."""
        make(owner, may_have=False, is_required=is_required).dataReceived(data)
        ((call, reason, text),) = owner.calls
        assert (call, reason) == ("refused", "proxy_header_untrusted")
        assert "SIDECAR_TRUSTED_PROXIES" in str(text)

    @pytest.mark.parametrize("data", [HELLO[:1], HTTP, b"\r\nGET", b"PROXYX"])
    def test_connection_without_header_goes_on_at_once(self, owner: Owner, data: bytes) -> None:
        """A client beside the balancer is served with its first bytes."""
        make(owner, may_have=False).dataReceived(data)
        assert owner.calls == [("received", None, data)]

    def test_beginning_of_a_signature_is_held_until_it_is_none(self, owner: Owner) -> None:
        """A signature cut in two does not slip through."""
        preface = make(owner, may_have=False)
        preface.dataReceived(b"PRO")
        assert owner.calls == []
        preface.dataReceived(b"XY ")
        assert [call[:2] for call in owner.calls] == [("refused", "proxy_header_untrusted")]

    def test_required_header_is_missing_all_the_same(self, owner: Owner) -> None:
        """Whoever is not trusted cannot give what is required."""
        make(owner, may_have=False, is_required=True).dataReceived(HELLO)
        assert [call[:2] for call in owner.calls] == [("refused", "proxy_header_missing")]


@pytest.mark.parametrize("may_have", [True, False])
class TestPeerThatGoes:
    @pytest.mark.parametrize("end", [close, lose])
    def test_ping_is_counted_and_no_news(self, owner: Owner, end: Callable[[Preface], None], may_have: bool) -> None:
        """A balancer that only looks whether somebody listens has sent nothing."""
        end(make(owner, may_have=may_have, is_required=True))
        assert owner.calls == [("gone", 0)]

    @pytest.mark.parametrize("end", [close, lose])
    def test_bytes_that_came_are_told(self, owner: Owner, end: Callable[[Preface], None], may_have: bool) -> None:
        """A peer that breaks off within a header is told from one that sends nothing."""
        preface = make(owner, may_have=may_have)
        preface.dataReceived(b"PR")
        preface.dataReceived(b"O")
        end(preface)
        assert owner.calls == [("gone", 3)]

    def test_deadline_forgets_a_silent_peer(self, owner: Owner, may_have: bool) -> None:
        """It is the same as if it had closed."""
        make(owner, may_have=may_have, is_required=True).deadline_passed()
        assert owner.calls == [("gone", 0)]

    def test_deadline_refuses_a_peer_that_stops_within(self, owner: Owner, may_have: bool) -> None:
        """Whoever sends half of it is told apart from a silent one, and named."""
        preface = make(owner, may_have=may_have)
        preface.dataReceived(b"PROX")
        preface.deadline_passed()
        ((call, reason, text),) = owner.calls
        assert (call, reason) == ("refused", "proxy_header_timeout")
        assert "with 4 bytes" in str(text)


AFTERWARDS: dict[str, Callable[[Preface], None]] = {
    "more bytes": lambda preface: preface.dataReceived(LINE),
    "the end": close,
    "the loss": lose,
    "the deadline": Preface.deadline_passed,
    "a pause": Preface.pauseProducing,
    "its end": Preface.resumeProducing,
}

VERDICTS: dict[str, Callable[[Preface], None]] = {
    "received": lambda preface: preface.dataReceived(LINE),
    "absent": lambda preface: preface.dataReceived(HELLO),
    "refused": lambda preface: preface.dataReceived(b"PROXY \r\n"),
    "gone": close,
    "forgotten": Preface.deadline_passed,
}


class TestOnce:
    @pytest.mark.parametrize("afterwards", AFTERWARDS.values(), ids=AFTERWARDS.keys())
    @pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS.keys())
    def test_nothing_is_said_twice(
        self, owner: Owner, verdict: Callable[[Preface], None], afterwards: Callable[[Preface], None]
    ) -> None:
        """After one call-back there is no other, whatever happens to the connection."""
        preface = make(owner)
        verdict(preface)
        assert len(owner.calls) == 1
        afterwards(preface)
        assert len(owner.calls) == 1

    @pytest.mark.parametrize("afterwards", AFTERWARDS.values(), ids=AFTERWARDS.keys())
    @pytest.mark.parametrize("verdict", VERDICTS.values(), ids=VERDICTS.keys())
    def test_nothing_is_said_from_within(
        self, owner: Owner, verdict: Callable[[Preface], None], afterwards: Callable[[Preface], None]
    ) -> None:
        """An owner that closes the connection while it is being told is not told again."""
        preface = make(owner)
        owner.then = lambda: afterwards(preface)
        verdict(preface)
        assert len(owner.calls) == 1

    def test_pause_changes_nothing(self, owner: Owner) -> None:
        """Nothing is written here, so nothing gets stuck; it is a `StreamProtocol` all the same."""
        preface: StreamProtocol = make(owner)
        preface.pauseProducing()
        preface.resumeProducing()
        preface.dataReceived(LINE)
        assert owner.calls == [("received", HEADER, b"")]
