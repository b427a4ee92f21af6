"""`proxy.proxyheader`: what apps are told in PROXY headers, and what balancers said in theirs."""

from __future__ import annotations

import attrs
import pytest

from sidecar.policy.identity import identity_of
from sidecar.policy.rewrite import is_ours
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.proxyheader import facts_of, field_lines, local_header, proxy_header
from sidecar.settings import HostPort, ProxyProtocolOut
from sidecar.tls.session import NO_TLS, TlsSession
from sidecar.tls.verify import Verification, VerifyReason
from sidecar.wire.proxyproto import Parsed, ProxyHeader, SocketAddress, TlvType, parse
from tests.support.certs import CLIENT, authority
from tests.support.ports import FakePeer, FakeReactor
from tests.support.pump import SESSION

V1, V2 = ProxyProtocolOut.V1, ProxyProtocolOut.V2
ISSUED = authority().issue("ci.example", purposes=CLIENT)
IDENTITY = identity_of(ISSUED.certificate)


@pytest.fixture
def peer() -> FakePeer:
    class Owner:
        def deadline_passed(self) -> None: ...
        def abandon(self) -> None: ...

    return FakePeer(Owner(), Deadlines(FakeReactor()))


def parsed(data: bytes) -> ProxyHeader:
    found = parse(data)
    assert isinstance(found, Parsed)
    assert found.size == len(data), "nothing stands behind the header"
    return found.header


def session(verification: Verification, *, resumed: bool = False) -> TlsSession:
    return attrs.evolve(SESSION, verification=verification, resumed=resumed)


class TestProxyHeader:
    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    @pytest.mark.parametrize(
        ("remote", "local"),
        [
            (HostPort("192.0.2.7", 50_000), HostPort("192.0.2.1", 443)),
            (HostPort("2001:db8::7", 1), HostPort("2001:db8::1", 65_535)),
        ],
        ids=["IPv4", "IPv6"],
    )
    def test_it_names_both_ends_of_the_clients_connection(
        self, peer: FakePeer, version: ProxyProtocolOut, remote: HostPort, local: HostPort
    ) -> None:
        """As far as is known: behind a balancer these are the ends that its own header named."""
        peer.remote, peer.local = remote, local
        header = parsed(proxy_header(version, peer, SESSION))
        assert header.source == SocketAddress(remote.host, remote.port)
        assert header.destination == SocketAddress(local.host, local.port)

    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    def test_socket_for_both_families_is_no_trouble(self, peer: FakePeer, version: ProxyProtocolOut) -> None:
        """A client with an IPv4 address may have come to an IPv6 one."""
        peer.local = HostPort("::", 443)
        assert parsed(proxy_header(version, peer, SESSION)).source == SocketAddress("192.0.2.7", 50_000)

    def test_version_1_says_nothing_else(self, peer: FakePeer) -> None:
        """It has no room for it."""
        assert proxy_header(V1, peer, SESSION) == b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n"

    def test_version_2_tells_of_tls(self, peer: FakePeer) -> None:
        """What the handshake agreed on, and the name that was asked for."""
        header = parsed(proxy_header(V2, peer, SESSION))
        assert (header.alpn, header.authority) == (b"http/1.1", "localhost")
        assert header.ssl is not None
        assert (header.ssl.is_tls, header.ssl.version, header.ssl.cipher) == (True, SESSION.version, SESSION.cipher)

    def test_connection_in_the_clear_has_nothing_to_tell(self, peer: FakePeer) -> None:
        """Not even that there is no TLS."""
        assert parsed(proxy_header(V2, peer, NO_TLS)).tlvs == ()

    @pytest.mark.parametrize(
        ("verification", "resumed", "has", "had", "is_verified", "name"),
        [
            (Verification(None, None, None), False, False, False, False, ""),
            (Verification(ISSUED.certificate, None, IDENTITY), False, True, True, True, "ci.example"),
            (Verification(ISSUED.certificate, None, IDENTITY), True, False, True, True, "ci.example"),
            (Verification(ISSUED.certificate, VerifyReason.EXPIRED, IDENTITY), False, True, True, False, ""),
            (Verification(None, VerifyReason.EXPIRED, IDENTITY), False, True, True, False, ""),
        ],
        ids=["none", "good", "good, resumed", "expired", "expired and forgotten"],
    )
    def test_version_2_tells_of_the_certificate(
        self,
        peer: FakePeer,
        verification: Verification,
        resumed: bool,
        has: bool,
        had: bool,
        is_verified: bool,
        name: str,
    ) -> None:
        """Whether there was one, now or in the session, and its name only if it is good."""
        ssl = parsed(proxy_header(V2, peer, session(verification, resumed=resumed))).ssl
        assert ssl is not None
        assert (ssl.has_certificate, ssl.had_certificate, ssl.is_verified) == (has, had, is_verified)
        # An app that looks at nothing else must not take somebody without a certificate for authenticated.
        assert (ssl.verify == 0) is is_verified
        assert ssl.common_name == name

    def test_one_of_two_names_is_none(self, peer: FakePeer) -> None:
        """Two readers could take different ones."""
        assert IDENTITY is not None
        two = attrs.evolve(IDENTITY, subject="CN=a,CN=b", common_names=("a", "b"))
        ssl = parsed(proxy_header(V2, peer, session(Verification(ISSUED.certificate, None, two)))).ssl
        assert ssl is not None
        assert ssl.common_name == ""
        assert ssl.is_verified

    def test_name_of_the_balancer_for_the_connection_goes_on(self, peer: FakePeer) -> None:
        """One name finds it in every log."""
        peer.proxied = ProxyHeader(version=2, tlvs=((TlvType.UNIQUE_ID, b"\x01id"),))
        assert parsed(proxy_header(V2, peer, SESSION)).unique_id == b"\x01id"

    def test_other_claims_of_a_balancer_do_not(self, peer: FakePeer) -> None:
        """What TLS it has spoken to whom is not what we have."""
        peer.proxied = ProxyHeader(
            version=2, tlvs=((TlvType.AUTHORITY, b"evil.example"), (TlvType.SSL, b"\x07\0\0\0\0"), (0xEA, b"\x01vpce"))
        )
        header = parsed(proxy_header(V2, peer, SESSION))
        assert header.authority == "localhost"
        assert header.ssl is not None
        assert not header.ssl.is_verified
        assert header.vpc_endpoint_id == ""

    @pytest.mark.parametrize("server_name", ["a b", "a\r\nPROXY", "x" * 300, "\udcff"], ids=ascii)
    def test_odd_server_name_is_left_out(self, peer: FakePeer, server_name: str) -> None:
        """A client chooses it."""
        odd = attrs.evolve(SESSION, server_name=server_name)
        assert parsed(proxy_header(V2, peer, odd)).authority == ""


class TestLocalHeader:
    def test_our_own_connections_name_nobody(self) -> None:
        """A health check is made for no client."""
        assert local_header(ProxyProtocolOut.OFF) == b""
        assert parsed(local_header(V1)).source is None
        assert parsed(local_header(V2)).is_local


HEADER = ProxyHeader(
    version=2,
    source=SocketAddress("192.0.2.7", 1),
    tlvs=(
        (TlvType.AUTHORITY, b"a.example"),
        (TlvType.ALPN, b"h2"),
        (TlvType.UNIQUE_ID, b"id-1"),
        (TlvType.AWS, b"\x01vpce-08d2bf15fac5001c9"),
    ),
)


class TestFacts:
    def test_facts_have_names(self) -> None:
        """What addresses do not say."""
        assert facts_of(HEADER) == {
            "authority": "a.example",
            "alpn": "h2",
            "unique_id": "id-1",
            "vpc_endpoint_id": "vpce-08d2bf15fac5001c9",
        }

    @pytest.mark.parametrize("header", [None, ProxyHeader(version=1), ProxyHeader(version=2, is_local=True)], ids=str)
    def test_nothing_said_is_nothing(self, header: ProxyHeader | None) -> None:
        """No field for what there is not."""
        assert facts_of(header) == {}
        assert field_lines(header) == b""

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(b"id-1", "id-1"), (b"a b", "612062"), (b"\x00\xff", "00ff"), (b"\r\n", "0d0a"), ("é".encode(), "c3a9")],
        ids=["visible", "blank", "binary", "line end", "not ASCII"],
    )
    def test_odd_name_of_a_connection_is_shown_as_digits(self, value: bytes, shown: str) -> None:
        """It may be any bytes."""
        header = ProxyHeader(version=2, tlvs=((TlvType.UNIQUE_ID, value),))
        assert facts_of(header) == {"unique_id": shown}


class TestFieldLines:
    def test_app_gets_a_line_for_each_fact(self) -> None:
        """Under names that nobody else may send."""
        lines = field_lines(HEADER)
        assert lines == (
            b"X-Proxy-Protocol-Authority: a.example\r\nX-Proxy-Protocol-Alpn: h2\r\n"
            b"X-Proxy-Protocol-Unique-Id: id-1\r\nX-Proxy-Protocol-Vpc-Endpoint-Id: vpce-08d2bf15fac5001c9\r\n"
        )
        assert all(is_ours(line.partition(b":")[0].lower()) for line in lines.split(b"\r\n")[:-1])

    @pytest.mark.parametrize(
        "kind", [TlvType.AUTHORITY, TlvType.ALPN, TlvType.UNIQUE_ID], ids=lambda kind: str(kind.name)
    )
    @pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\0", "é".encode(), b"\xff"], ids=repr)
    def test_no_value_can_end_its_line(self, kind: TlvType, value: bytes) -> None:
        """What is not fit to stand in a field is left out, or written so that it is."""
        lines = field_lines(ProxyHeader(version=2, tlvs=((kind, value),)))
        assert lines.count(b"\r\n") <= 1
        assert b"Evil" not in lines
        assert lines.decode("ascii").replace("\r\n", "").isprintable()
