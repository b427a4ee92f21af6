"""Fields of HTTP/2 to heads that nobody can tell from those of HTTP/1.1."""

from __future__ import annotations

import pytest
from hpack import Decoder

from sidecar.errors import RequestError
from sidecar.policy.rewrite import request_section
from sidecar.wire.events import BodyKind, RequestHead
from sidecar.wire.h2fields import RequestReader, ResponseWriter, request_head, response_fields
from sidecar.wire.h2frames import Code, ConnectionFault, StreamFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2rules import MAX_REMEMBERED_HEADS
from sidecar.wire.head import parse_request_head
from sidecar.wire.target import MAX_TARGET_BYTES
from tests.support.frames import GET, POST, WEBSOCKET, WEBSOCKET_KEY, Field, block, decoded, literal

LIMITS = Http2Limits()


def head_of(*fields: Field, is_whole: bool = True, limits: Http2Limits = LIMITS) -> RequestHead:
    return request_head(list(fields), is_whole, limits, lambda: WEBSOCKET_KEY)


def refusal(*fields: Field, is_whole: bool = True, limits: Http2Limits = LIMITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        head_of(*fields, is_whole=is_whole, limits=limits)
    return caught.value


def changed(fields: tuple[Field, ...], name: bytes, value: bytes | None) -> tuple[Field, ...]:
    """*fields* with another value for *name*, or (None) without it."""
    return tuple((n, v if n != name else value) for n, v in fields if n != name or value is not None)  # type: ignore[misc]


class TestRequestHead:
    SAME = (
        ("whole", GET, True, b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"),
        (
            "fields",
            (*GET, (b"accept", b"*/*"), (b"x-empty", b""), (b"x-two", b"a  b"), (b"x-obs", b"\xe9")),
            True,
            b"GET / HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\nx-empty: \r\nx-two: a  b\r\nx-obs: \xe9\r\n\r\n",
        ),
        (
            "no length",
            POST,
            False,
            b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "length",
            (*POST, (b"content-length", b"5")),
            False,
            b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            "length of nothing",
            (*POST, (b"content-length", b"0")),
            False,
            b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "length of nothing, whole",
            (*POST, (b"content-length", b"0")),
            True,
            b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "crumbs",
            (*GET, (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b""), (b"cookie", b"b=2; c=3")),
            True,
            b"GET / HTTP/1.1\r\nhost: a.example\r\ncookie: a=1; b=2; c=3\r\naccept: */*\r\n\r\n",
        ),
        (
            "host beside authority",
            (*GET, (b"accept", b"*/*"), (b"host", b"A.example")),
            True,
            b"GET / HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\n\r\n",
        ),
        (
            "host instead of authority",
            (*GET[:2], GET[3], (b"host", b"a.example:8443")),
            True,
            b"GET / HTTP/1.1\r\nhost: a.example:8443\r\n\r\n",
        ),
        (
            "trailers are welcome",
            (*POST, (b"te", b"trailers")),
            False,
            b"POST / HTTP/1.1\r\nhost: a.example\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "asterisk",
            ((b":method", b"OPTIONS"), (b":scheme", b"http"), (b":path", b"*"), (b":authority", b"[::1]:80")),
            True,
            b"OPTIONS * HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        ),
        (
            "websocket",
            WEBSOCKET,
            False,
            b"GET /chat HTTP/1.1\r\nhost: a.example\r\nsec-websocket-version: 13\r\nconnection: Upgrade\r\n"
            b"upgrade: websocket\r\nsec-websocket-key: " + WEBSOCKET_KEY + b"\r\n\r\n",
        ),
    )

    @pytest.mark.parametrize(("fields", "is_whole", "as_http_1"), [row[1:] for row in SAME], ids=[r[0] for r in SAME])
    def test_means_what_it_would_in_http_1(self, fields: tuple[Field, ...], is_whole: bool, as_http_1: bytes) -> None:
        """The head is equal, in everything, to that of the same request in HTTP/1.1; and so is what the app gets."""
        head, other = head_of(*fields, is_whole=is_whole), parse_request_head(as_http_1, 100)
        assert head == other
        assert head.fields.names == other.fields.names
        assert request_section(head, b"Via: x\r\n") == request_section(other, b"Via: x\r\n")

    def test_key_of_the_client_is_kept(self) -> None:
        """A client that sends Sec-WebSocket-Key all the same has said it; two would be one too many."""
        head = head_of(*WEBSOCKET, (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="), is_whole=False)
        assert head.fields.values(b"sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]

    MALFORMED = (
        ("no method", GET[1:], "bad_pseudo_field"),
        ("empty method", changed(GET, b":method", b""), "bad_pseudo_field"),
        ("method with a blank", changed(GET, b":method", b"GET /x"), "bad_pseudo_field"),
        ("method too long", changed(GET, b":method", b"G" * 33), "bad_pseudo_field"),
        ("method twice", (GET[0], *GET), "bad_pseudo_field"),
        ("no scheme", changed(GET, b":scheme", None), "bad_pseudo_field"),
        ("other scheme", changed(GET, b":scheme", b"ftp"), "bad_pseudo_field"),
        ("scheme with more", changed(GET, b":scheme", b"https://x/ HTTP/1.1\r\n"), "bad_pseudo_field"),
        ("no path", changed(GET, b":path", None), "bad_target"),
        ("empty path", changed(GET, b":path", b""), "bad_target"),
        ("path without slash", changed(GET, b":path", b"x"), "bad_target"),
        ("asterisk without OPTIONS", changed(GET, b":path", b"*"), "bad_target"),
        ("URL as path", changed(GET, b":path", b"https://a.example/"), "bad_target"),
        ("blank in path", changed(GET, b":path", b"/ HTTP/1.1"), "bad_target"),
        ("line end in path", changed(GET, b":path", b"/\r\nx: y"), "bad_target"),
        ("fragment", changed(GET, b":path", b"/#x"), "bad_target"),
        ("octet above 0x7e", changed(GET, b":path", b"/\xe9"), "bad_target"),
        ("no authority", changed(GET, b":authority", None), "bad_host"),
        ("empty authority", changed(GET, b":authority", b""), "bad_host"),
        ("user in authority", changed(GET, b":authority", b"u@a.example"), "bad_host"),
        ("path in authority", changed(GET, b":authority", b"a.example/x"), "bad_host"),
        ("line end in authority", changed(GET, b":authority", b"a\r\nx: y"), "bad_host"),
        ("two hosts", (*GET, (b"host", b"a.example"), (b"host", b"a.example")), "bad_host"),
        ("another host", (*GET, (b"host", b"b.example")), "host_mismatch"),
        ("another port", (*GET, (b"host", b"a.example:443")), "host_mismatch"),
        ("status", (*GET, (b":status", b"200")), "bad_pseudo_field"),
        ("unknown pseudo-field", (*GET, (b":x", b"y")), "bad_pseudo_field"),
        ("pseudo-field behind", (*GET[:3], (b"accept", b"*/*"), GET[3]), "bad_pseudo_field"),
        ("pseudo-field repeated behind", (*GET, (b"accept", b"*/*"), GET[3]), "bad_pseudo_field"),
        ("protocol without CONNECT", (*GET, (b":protocol", b"websocket")), "bad_pseudo_field"),
        ("upper case", (*GET, (b"Accept", b"*/*")), "bad_header"),
        ("empty name", (*GET, (b"", b"x")), "bad_header"),
        ("colon in name", (*GET, (b"a:b", b"x")), "bad_header"),
        ("blank in name", (*GET, (b"a b", b"x")), "bad_header"),
        ("line end in name", (*GET, (b"a\r\nhost", b"x")), "bad_header"),
        ("octet above 0x7e in name", (*GET, (b"a\xe9", b"x")), "bad_header"),
        ("CR in value", (*GET, (b"a", b"x\ry")), "bad_header"),
        ("LF in value", (*GET, (b"a", b"x\ny")), "bad_header"),
        ("line in value", (*GET, (b"a", b"x\r\nhost: b.example")), "bad_header"),
        ("NUL in value", (*GET, (b"a", b"x\0y")), "bad_header"),
        ("DEL in value", (*GET, (b"a", b"x\x7f")), "bad_header"),
        ("blank before value", (*GET, (b"a", b" x")), "bad_header"),
        ("blank behind value", (*GET, (b"a", b"x ")), "bad_header"),
        ("tab behind value", (*GET, (b"a", b"x\t")), "bad_header"),
        ("value of a blank", (*GET, (b"a", b" ")), "bad_header"),
        ("line in a crumb", (*GET, (b"cookie", b"a\r\nhost: b")), "bad_header"),
        ("line in host", (*GET[:2], GET[3], (b"host", b"a\r\nx: y")), "bad_header"),
        ("connection", (*GET, (b"connection", b"close")), "connection_field"),
        ("keep-alive", (*GET, (b"keep-alive", b"5")), "connection_field"),
        ("proxy-connection", (*GET, (b"proxy-connection", b"close")), "connection_field"),
        ("transfer-encoding", (*GET, (b"transfer-encoding", b"chunked")), "connection_field"),
        ("upgrade", (*GET, (b"upgrade", b"websocket")), "connection_field"),
        ("te", (*GET, (b"te", b"gzip")), "bad_te"),
        ("te with more", (*GET, (b"te", b"trailers, deflate")), "bad_te"),
        ("two lengths", (*POST, (b"content-length", b"0"), (b"content-length", b"0")), "bad_content_length"),
        ("sign in length", (*POST, (b"content-length", b"+0")), "bad_content_length"),
        ("list of lengths", (*POST, (b"content-length", b"0, 0")), "bad_content_length"),
        ("empty length", (*POST, (b"content-length", b"")), "bad_content_length"),
        ("length of 19 digits", (*POST, (b"content-length", b"0" * 19)), "bad_content_length"),
        ("length without body", (*POST, (b"content-length", b"5")), "bad_content_length"),
        ("CONNECT with a path", ((b":method", b"CONNECT"), *GET[2:]), "bad_pseudo_field"),
        ("CONNECT for nobody", ((b":method", b"CONNECT"),), "bad_pseudo_field"),
        ("websocket without a path", changed(WEBSOCKET, b":path", None), "bad_target"),
        ("websocket without a scheme", changed(WEBSOCKET, b":scheme", None), "bad_pseudo_field"),
        ("websocket for nobody", changed(WEBSOCKET, b":authority", None), "bad_host"),
        ("websocket with a length", (*WEBSOCKET, (b"content-length", b"0")), "bad_content_length"),
    )

    @pytest.mark.parametrize(("fields", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
    def test_malformed_request_is_a_fault_of_its_stream(self, fields: tuple[Field, ...], reason: str) -> None:
        """RFC 9113 section 8.1.1: a malformed message is PROTOCOL_ERROR, on its stream alone."""
        fault = refusal(*fields)
        assert isinstance(fault, StreamFault)
        assert (fault.code, fault.reason) == (Code.PROTOCOL_ERROR, reason)

    @pytest.mark.parametrize(
        ("fields", "reason", "status"),
        [
            (((b":method", b"CONNECT"), (b":authority", b"a.example:443")), "method_refused", 405),
            (changed(GET, b":method", b"TRACE"), "method_refused", 405),
            (changed(GET, b":method", b"trace"), "method_refused", 405),
            (changed(GET, b":method", b"connect"), "method_refused", 405),
            (changed(WEBSOCKET, b":protocol", b"connect-udp"), "unsupported_protocol", 501),
            (changed(GET, b":path", b"/" * (MAX_TARGET_BYTES + 1)), "uri_too_long", 414),
            ((*GET, *[(b"x-%d" % n, b"") for n in range(101)]), "too_many_headers", 431),
            ((*GET, (b"x", b"y" * LIMITS.header_list_bytes)), "header_too_large", 431),
        ],
        ids=["CONNECT", "TRACE", "trace", "connect", "protocol", "long path", "many fields", "large fields"],
    )
    def test_good_request_that_we_refuse_has_a_status(
        self, fields: tuple[Field, ...], reason: str, status: int
    ) -> None:
        """What HTTP/1.1 clients are answered, those of HTTP/2 are too."""
        error = refusal(*fields)
        assert not isinstance(error, StreamFault)
        assert (error.reason, error.status) == (reason, status)

    def test_limits_themselves_are_allowed(self) -> None:
        """Each limit is the largest that passes."""
        head_of(*GET, *[(b"x-%d" % n, b"") for n in range(100)])
        head_of(*changed(GET, b":path", b"/" * MAX_TARGET_BYTES))
        room = LIMITS.header_list_bytes - sum(len(name) + len(value) + 32 for name, value in GET) - 33
        head_of(*GET, (b"x", b"y" * room))
        assert refusal(*GET, (b"x", b"y" * (room + 1))).reason == "header_too_large"

    def test_crumbs_are_one_field(self) -> None:
        """A browser that breaks its cookie up sends no more fields than one that does not."""
        assert head_of(*GET, *[(b"cookie", b"a=%d" % n) for n in range(300)]).fields.names.count(b"cookie") == 1

    def test_value_is_not_in_a_message(self) -> None:
        """What is refused is named, not shown: a value may be secret."""
        for fields in ((b"authorization", b"secret\0"), (b"cookie", b" secret"), (b"host", b"secret")):
            assert "secret" not in str(refusal(*GET, fields))


def reader(limits: Http2Limits = LIMITS) -> RequestReader:
    return RequestReader(limits, lambda: WEBSOCKET_KEY)


class TestRequestReader:
    def test_block_that_comes_again_is_the_same_head(self) -> None:
        """A client that repeats itself is understood at once; whoever compares heads by identity sees it too."""
        requests, data = reader(), block(GET)
        assert requests.request(data, True) is requests.request(data, True)
        assert requests.request(data, False) is not requests.request(data, True)
        assert requests.request(data, False).body is BodyKind.CHUNKED

    def test_block_means_something_else_when_the_table_has_changed(self) -> None:
        """Equal bytes are not equal requests: an index is what the table says at that moment."""
        requests = reader()
        requests.request(block(GET) + literal(b"x-user", b"alice", 0x40), True)
        again = block(GET) + b"\xbe"
        assert requests.request(again, True).fields.values(b"x-user") == [b"alice"]
        requests.request(block(GET) + literal(b"x-user", b"bob", 0x40), True)
        assert requests.request(again, True).fields.values(b"x-user") == [b"bob"]

    @pytest.mark.parametrize("how", ["malformed", "refused", "trailers", "skipped"])
    def test_block_of_no_request_changes_the_table_too(self, how: str) -> None:
        """Whatever becomes of a block, what it does to the table is done."""
        requests = reader()
        requests.request(block(GET) + literal(b"x-user", b"alice", 0x40), True)
        again = block(GET) + b"\xbe"
        requests.request(again, True)
        bob = literal(b"x-user", b"bob", 0x40)
        if how == "malformed":
            with pytest.raises(StreamFault):
                requests.request(bob, True)
        elif how == "refused":
            with pytest.raises(RequestError):
                requests.request(block(changed(GET, b":method", b"TRACE")) + bob, True)
        elif how == "trailers":
            requests.trailers(bob)
        else:
            requests.skip(bob)
        assert requests.request(again, True).fields.values(b"x-user") == [b"bob"]

    def test_block_that_changes_the_table_is_read_each_time(self) -> None:
        """It would be wrong to skip it: the next block counts on what it does."""
        requests = reader()
        data = block(GET) + literal(b"x-n", b"1", 0x40)
        assert requests.request(data, True) is not requests.request(data, True)
        assert requests.request(block(GET) + b"\xbe\xbf", True).fields.values(b"x-n") == [b"1", b"1"]

    def test_few_heads_are_remembered(self) -> None:
        """A client with many paths costs no more memory than one with few."""
        requests = reader()
        blocks = [block(changed(GET, b":path", b"/%d" % n)) for n in range(MAX_REMEMBERED_HEADS + 1)]
        heads = [requests.request(data, True) for data in blocks]
        assert requests.request(blocks[-1], True) is heads[-1]
        assert requests.request(blocks[0], True) is not heads[0]

    def test_long_head_is_not_remembered(self) -> None:
        """What is remembered is small, whatever it takes to write it."""
        requests, data = reader(), block((*GET, (b"x", b"y" * 2048)))
        assert requests.request(data, True) is not requests.request(data, True)

    def test_each_websocket_has_its_own_key(self) -> None:
        """A request that is made unique is not remembered."""
        keys = iter([b"1", b"2"])
        requests = RequestReader(LIMITS, lambda: next(keys))
        found = [requests.request(block(WEBSOCKET), False).fields.values(b"sec-websocket-key") for _ in range(2)]
        assert found == [[b"1"], [b"2"]]

    def test_broken_block_is_a_fault_of_the_connection(self) -> None:
        """Nothing behind it can be read."""
        with pytest.raises(ConnectionFault):
            reader().request(b"\x80", True)

    def test_empty_trailers_are_none(self) -> None:
        """A block of nothing is the end of a body."""
        assert reader().trailers(b"") is None


SECTION = b"Content-Type: text/plain\r\nContent-Length:5\r\nX-A:  b \r\n"


class TestResponses:
    def test_names_are_lower_case_and_values_bare(self) -> None:
        """RFC 9113 section 8.2.1 for what an app writes as it likes."""
        assert response_fields(SECTION) == [(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"x-a", b"b")]

    @pytest.mark.parametrize(
        "name", [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade"]
    )
    def test_fields_of_a_connection_are_left_out(self, name: bytes) -> None:
        """RFC 9113 section 8.2.2: they are about the app's connection."""
        assert response_fields(b"A: 1\r\n" + name + b": chunked\r\nB: 2\r\n") == [(b"a", b"1"), (b"b", b"2")]

    def test_head_that_is_repeated_is_remembered_once_it_is_short(self) -> None:
        """Equal heads are not compressed again, but only when all that can be indexed is."""
        responses, decoder = ResponseWriter(), Decoder()
        made = [responses.head(200, SECTION, is_tunnel=False) for _ in range(5)]
        assert [decoded(decoder, one)[1:] for one in made] == [response_fields(SECTION)] * 5
        assert made[3] is made[4]
        assert len(made[4]) < 10 < len(made[0])

    def test_remembered_head_is_forgotten_when_the_table_changes(self) -> None:
        """An index that was right is not any more when a line has entered the table, or the client has emptied it."""
        responses, decoder = ResponseWriter(), Decoder()
        for step in range(12):
            section = b"X-Other: 1\r\n" if 4 <= step < 7 else SECTION
            if step == 9:
                responses.set_table_bytes(0)
            assert decoded(decoder, responses.head(200, section, is_tunnel=False))[1:] == response_fields(section)

    def test_nothing_to_send_is_no_block(self) -> None:
        """Trailers of which nothing may be sent are none."""
        assert ResponseWriter().trailers(b"Connection: close\r\n") == b""
