"""`tls.hello`: what a client offered, from real OpenSSL and from hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from sidecar.tls.hello import ClientHello, read_client_hello
from tests.support.handshake import TLS12, TLS13, client_context, outgoing


def hello(
    server_name: bytes | None = b"app.example", version: int | None = None, alpn: tuple[bytes, ...] = ()
) -> bytes:
    """The first flight of OpenSSL as a client."""
    client = SSL.Connection(client_context(version=version, alpn=alpn), None)
    client.set_connect_state()
    if server_name is not None:
        client.set_tlsext_host_name(server_name)
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return outgoing(client)


def in_records(data: bytes, size: int) -> bytes:
    """The same message, cut into records of *size* bytes."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


class TestReadClientHello:
    @pytest.mark.parametrize(
        ("version", "versions"),
        [(None, ("TLSv1.3", "TLSv1.2")), (TLS12, ("TLSv1.2", "TLSv1.1", "TLSv1.0", "SSLv3")), (TLS13, ("TLSv1.3",))],
        ids=["both", "1.2", "1.3"],
    )
    def test_offer_is_read(self, version: int | None, versions: tuple[str, ...]) -> None:
        """Name, versions and protocols; a client that lists no versions speaks all up to its own."""
        found = read_client_hello(hello(version=version, alpn=(b"h2", b"http/1.1")))
        assert found == ClientHello("app.example", versions, ("h2", "http/1.1"))

    def test_what_is_left_out_is_none(self) -> None:
        """Load balancers name no server and offer no protocols."""
        assert read_client_hello(hello(None, TLS13)) == ClientHello(None, ("TLSv1.3",), ())

    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_message_in_several_records_is_one(self, size: int) -> None:
        """A client may cut its message as it likes."""
        data = hello()
        assert read_client_hello(in_records(data, size)) == read_client_hello(data)

    def test_what_follows_does_not_matter(self) -> None:
        """Later flights may stand behind it."""
        data = hello()
        assert read_client_hello(data + b"\x14\x03\x03\x00\x01\x01") == read_client_hello(data)

    def test_unfinished_message_is_none(self) -> None:
        """Every byte counts."""
        data = hello()
        assert all(read_client_hello(data[:end]) is None for end in range(len(data)))

    @pytest.mark.parametrize(
        "data",
        [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"],
        ids=["nothing", "HTTP", "an alert", "a ServerHello"],
    )
    def test_anything_else_is_none(self, data: bytes) -> None:
        """Scanners send all sorts of things."""
        assert read_client_hello(data) is None

    def test_name_cannot_break_a_line(self) -> None:
        """Bytes that no name has are escaped; control characters are the log's to escape."""
        data = hello(b"a" * 11).replace(b"a" * 11, b"b\xff\xfe" + b"c" * 8)
        found = read_client_hello(data)
        assert found is not None
        assert found.server_name == "b\\xff\\xfecccccccc"

    @given(st.data())
    def test_changed_bytes_raise_nothing(self, data: st.DataObject) -> None:
        """A peer chooses every byte."""
        message = bytearray(SAMPLE)
        for _ in range(data.draw(st.integers(1, 6))):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        read_client_hello(bytes(message))


SAMPLE = hello(alpn=(b"http/1.1",))
