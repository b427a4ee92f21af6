"""What holds for every request that is forwarded: generated heads, read again by us and by h11."""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import RequestError
from sidecar.policy import rewrite
from sidecar.policy.forwarding import Hop
from sidecar.settings import HostPort, UnderscoreHeaders
from sidecar.wire import framing
from sidecar.wire.events import END, BodyKind, Data, RequestHead
from sidecar.wire.http1 import ServerCodec
from sidecar.wire.target import origin_form

quick = settings(max_examples=400, deadline=None)

FORWARDING = Hop(peer="192.0.2.1", local=HostPort("192.0.2.9", 443)).common_lines
REQUEST_ID = rewrite.request_id_line(b"0123")

SET_BY_US = {
    b"x-forwarded-for": b"192.0.2.1",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-port": b"443",
    b"x-request-id": b"0123",
}
NEVER = {
    *(b"connection", b"forwarded", b"http2-settings", b"keep-alive", b"proxy-authorization", b"proxy-connection"),
    *(b"te", b"upgrade", b"client-cert", b"x-forwarded-client-cert", b"x-forwarded-user", b"x-real-ip"),
}
PLAIN = (b"accept", b"cookie", b"user-agent", b"x-a", b"x_b", b"expect", b"trailer")
NAMES = (*SET_BY_US, *NEVER, *PLAIN, b"x-forwarded-host", b"host", b"content-length", b"transfer-encoding")


@st.composite
def spelt(draw: st.DrawFn, name: bytes) -> bytes:
    """*name* in any case, with any of its hyphens as underscores."""
    spelling = bytearray(name)
    for i, octet in enumerate(name):
        change = draw(st.integers(0, 5))
        if octet == ord("-") and change == 0:
            spelling[i] = ord("_")
        elif change == 1:
            spelling[i : i + 1] = name[i : i + 1].upper()
    return bytes(spelling)


VALUES = (
    *(b"", b"a", b"6.6.6.6", b"5", b"0", b"chunked", b"close", b"keep-alive", b"upgrade", b"websocket", b"h2c", b"b:1"),
    *(b"host", b"content-length, x-forwarded-for", b"transfer-encoding", b"x-forwarded-proto, cookie", b"x-request-id"),
    *(b"upgrade, http2-settings", b"100-continue", b"trailers", b"a\x80\xff", b"\xa0h2c", b"a, chunked", b"[::1]:8080"),
)

lines = st.tuples(
    st.sampled_from(NAMES).flatmap(spelt),
    st.sampled_from([b":", b": ", b":\t", b":  "]),
    st.sampled_from(VALUES),
    st.sampled_from([b"", b" ", b"\t"]),
).map(b"".join)
UPGRADES = (
    b"",
    b"",
    b"Connection: Upgrade\r\nUpgrade: WebSocket, h2c\r\n",
    b"Connection: upgrade, host\r\nUpgrade: x/1\r\n",
)
FRAMINGS = (b"", b"", b"Content-Length: 5\r\n", b"content-length:0\r\n", b"Transfer-Encoding: chunked\r\n")
STARTS = (
    *(b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET http://a/x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PUT //b HTTP/1.1"),
    *(b"GET / HTTP/1.0", b"POST http://a?q HTTP/1.0", b"HEAD http://a HTTP/1.1", b"OPTIONS http://a HTTP/1.1"),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Request heads of which most are good, and all are meant badly."""
    section = draw(st.lists(lines, max_size=6))
    host = draw(st.sampled_from([b"Host: a\r\n", b"Host: a\r\n", b"hOST:A\r\n", b""]))
    return b"%b\r\n%b%b%b%b\r\n" % (
        draw(st.sampled_from(STARTS)),
        host,
        b"".join(line + b"\r\n" for line in section),
        draw(st.sampled_from(UPGRADES)),
        draw(st.sampled_from(FRAMINGS)),
    )


def accepted(data: bytes) -> RequestHead | None:
    codec = ServerCodec(61_440, 100)
    try:
        head = codec.receive(data)[0]
    except RequestError:
        return None
    assert isinstance(head, RequestHead)
    return head


def forwarded(head: RequestHead) -> bytes:
    """The head that the app is sent."""
    section = rewrite.request_section(head, FORWARDING) + REQUEST_ID
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, origin_form(head.method, head.target), section)


def body_of(head: RequestHead, payload: bytes) -> bytes:
    """What follows the head on the way to the app."""
    if head.body is BodyKind.LENGTH:
        return payload[: head.length].ljust(head.length, b".")
    if head.body is BodyKind.CHUNKED:
        return (framing.chunk(payload) if payload else b"") + framing.last_chunk(b"")
    return b""


class TestForwardedHead:
    @quick
    @given(heads())
    def test_it_means_to_the_app_what_it_meant_to_us(self, data: bytes) -> None:
        """Read again, a forwarded head has the same method, host and framing, and its connection goes on."""
        head = accepted(data)
        if head is None:
            return
        again = accepted(forwarded(head))
        assert again is not None
        assert again.method == head.method
        assert again.host.lower() == (head.host.lower() or b"localhost")
        assert (again.body, again.length) == (head.body, head.length)
        assert again.upgrade == head.upgrade
        assert again.keep_alive
        assert again.target == origin_form(head.method, head.target)

    @quick
    @given(heads())
    def test_client_has_no_say_in_what_is_ours(self, data: bytes) -> None:
        """No spelling of a field that we set, or that is of one connection, gets through; none stands twice."""
        head = accepted(data)
        if head is None:
            return
        rewritten = accepted(forwarded(head))
        assert rewritten is not None
        fields = rewritten.fields
        dashed = [name.replace(b"_", b"-") for name in fields.names]
        for name, value in SET_BY_US.items():
            assert dashed.count(name) == 1
            assert fields.values(name) == [value]
        assert dashed.count(b"x-forwarded-host") == bool(head.host)
        assert fields.values(b"x-forwarded-host") == ([head.host] if head.host else [])
        assert dashed.count(b"host") == 1
        assert dashed.count(b"content-length") + dashed.count(b"transfer-encoding") <= 1
        ours = set()
        if head.upgrade:
            ours = {b"connection", b"upgrade"}
        elif rewrite.accepts_trailers(head):
            ours = {b"connection", b"te"}
        assert NEVER & set(dashed) == ours
        for name in ours:
            assert dashed.count(name) == 1
        assert b"h2c" not in rewritten.upgrade

    @quick
    @given(heads(), st.sampled_from(UnderscoreHeaders))
    def test_all_else_stays_as_it_came(self, data: bytes, underscores: UnderscoreHeaders) -> None:
        """The lines that are neither ours nor the connection's are forwarded byte for byte, in their order."""
        head = accepted(data)
        if head is None:
            return
        stay = [
            line
            for line, name in zip(head.fields.section.splitlines(keepends=True), head.fields.names, strict=True)
            if name in PLAIN
            and name not in head.options
            and (b"_" not in name or underscores is UnderscoreHeaders.ALLOW)
        ]
        section = rewrite.request_section(head, FORWARDING, underscores)
        assert [line for line in section.splitlines(keepends=True) if line.partition(b":")[0].lower() in PLAIN] == stay

    @quick
    @given(heads(), st.binary(max_size=30))
    def test_h11_reads_the_same(self, data: bytes, payload: bytes) -> None:
        """Another parser accepts what is forwarded, with the same method, target and payload, and nothing left over."""
        head = accepted(data)
        if head is None:
            return
        body = body_of(head, payload)
        app = h11.Connection(h11.SERVER)
        app.receive_data(forwarded(head) + body)
        request = app.next_event()
        assert isinstance(request, h11.Request)
        assert (request.method, request.target) == (head.method, origin_form(head.method, head.target))
        read = b""
        while isinstance(event := app.next_event(), h11.Data):
            read += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert app.trailing_data[0] == b""
        ours = ServerCodec(61_440, 100)
        events = ours.receive(forwarded(head) + body)
        assert events[-1] is END
        assert not ours.has_pipelined
        assert read == b"".join(event.payload for event in events if isinstance(event, Data))
