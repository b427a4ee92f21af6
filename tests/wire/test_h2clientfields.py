"""Responses of HTTP/2 to heads that nobody can tell from those of HTTP/1.1, and requests to fields."""

from __future__ import annotations

import pytest
from hpack import Decoder

from sidecar.wire.events import BodyKind, InterimHead, ResponseHead
from sidecar.wire.h2clientfields import RequestWriter, ResponseReader, request_fields, response_head
from sidecar.wire.h2frames import Code, ConnectionFault, StreamFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.head import parse_response_head
from sidecar.wire.http1 import response_bytes
from tests.support.frames import OK, Field, block, decoded, literal

LIMITS = Http2Limits()


def status(value: bytes) -> tuple[Field, ...]:
    return ((b":status", value),)


def head_of(*fields: Field, is_whole: bool = False, method: bytes = b"GET") -> ResponseHead:
    head = response_head(list(fields), is_whole, method, LIMITS)
    assert isinstance(head, ResponseHead)
    return head


def fault_of(
    *fields: Field, is_whole: bool = False, method: bytes = b"GET", limits: Http2Limits = LIMITS
) -> StreamFault:
    with pytest.raises(StreamFault) as caught:
        response_head(list(fields), is_whole, method, limits)
    return caught.value


class TestResponseHead:
    SAME = (
        ("no length", OK, False, b"GET", b"200 OK\r\ntransfer-encoding: chunked\r\n"),
        ("no length, whole", OK, True, b"GET", b"200 OK\r\ntransfer-encoding: chunked\r\n"),
        ("length", (*OK, (b"content-length", b"5")), False, b"GET", b"200 OK\r\ncontent-length: 5\r\n"),
        ("length of nothing", (*OK, (b"content-length", b"0")), False, b"GET", b"200 OK\r\ncontent-length: 0\r\n"),
        (
            "length of nothing, whole",
            (*OK, (b"content-length", b"0")),
            True,
            b"GET",
            b"200 OK\r\ncontent-length: 0\r\n",
        ),
        ("HEAD", OK, True, b"HEAD", b"200 OK\r\n"),
        ("HEAD, not whole", OK, False, b"HEAD", b"200 OK\r\n"),
        ("HEAD with a length", (*OK, (b"content-length", b"5")), True, b"HEAD", b"200 OK\r\ncontent-length: 5\r\n"),
        ("204", status(b"204"), True, b"GET", b"204 No Content\r\n"),
        (
            "304",
            (*status(b"304"), (b"content-length", b"5")),
            True,
            b"GET",
            b"304 Not Modified\r\ncontent-length: 5\r\n",
        ),
        ("unknown status", status(b"299"), True, b"HEAD", b"299 \r\n"),
        (
            "fields",
            (*OK, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-empty", b""), (b"te", b"x")),
            False,
            b"HEAD",
            b"200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-empty: \r\nte: x\r\n",
        ),
    )

    @pytest.mark.parametrize(
        ("fields", "is_whole", "method", "as_http_1"), [row[1:] for row in SAME], ids=[row[0] for row in SAME]
    )
    def test_means_what_it_would_in_http_1(
        self, fields: tuple[Field, ...], is_whole: bool, method: bytes, as_http_1: bytes
    ) -> None:
        """The head is equal, in everything, to that of the same response in HTTP/1.1, and is written as that."""
        head = head_of(*fields, is_whole=is_whole, method=method)
        data = b"HTTP/1.1 %b\r\n" % as_http_1
        assert head == parse_response_head(data, 100, method)
        assert response_bytes(head.status, head.reason, head.fields.section) == data

    @pytest.mark.parametrize("value", [b"100", b"102", b"103", b"199"])
    def test_interim_head_is_one(self, value: bytes) -> None:
        """It has no body, and the final one follows."""
        head = response_head([*status(value), (b"link", b"x")], False, b"GET", LIMITS)
        assert isinstance(head, InterimHead)
        assert (head.status, head.fields.section) == (int(value), b"link: x\r\n")
        assert head.reason.startswith(b" ")

    MALFORMED = (
        ("no status", (), "bad_status"),
        ("empty status", status(b""), "bad_status"),
        ("status of two digits", status(b"20"), "bad_status"),
        ("status of four digits", status(b"2000"), "bad_status"),
        ("status with a reason", status(b"200 OK"), "bad_status"),
        ("status with a sign", status(b"+20"), "bad_status"),
        ("status 099", status(b"099"), "bad_status"),
        ("status 600", status(b"600"), "bad_status"),
        ("status 101", status(b"101"), "bad_status"),
        ("status in other digits", status("²00".encode("latin-1")), "bad_status"),
        ("status twice", (*OK, *OK), "bad_pseudo_field"),
        ("status behind", ((b"x", b"y"), *OK), "bad_pseudo_field"),
        ("pseudo-field of requests", (*OK, (b":path", b"/")), "bad_pseudo_field"),
        ("upper case", (*OK, (b"X", b"y")), "bad_header"),
        ("line in value", (*OK, (b"x", b"y\r\nset-cookie: z")), "bad_header"),
        ("NUL in value", (*OK, (b"x", b"y\0")), "bad_header"),
        ("colon in name", (*OK, (b"x:y", b"z")), "bad_header"),
        ("blank before value", (*OK, (b"x", b" y")), "bad_header"),
        ("connection", (*OK, (b"connection", b"close")), "connection_field"),
        ("keep-alive", (*OK, (b"keep-alive", b"timeout=5")), "connection_field"),
        ("transfer-encoding", (*OK, (b"transfer-encoding", b"chunked")), "connection_field"),
        ("upgrade", (*OK, (b"upgrade", b"h2c")), "connection_field"),
        ("upgrade in an interim head", (*status(b"103"), (b"upgrade", b"h2c")), "connection_field"),
        ("two lengths", (*OK, (b"content-length", b"1"), (b"content-length", b"1")), "bad_content_length"),
        ("list of lengths", (*OK, (b"content-length", b"1, 1")), "bad_content_length"),
        ("sign in length", (*OK, (b"content-length", b"-1")), "bad_content_length"),
    )

    @pytest.mark.parametrize(("fields", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    def test_malformed_response_is_a_fault_of_its_stream(
        self, fields: tuple[Field, ...], reason: str, method: bytes
    ) -> None:
        """RFC 9113 section 8.1.1: a malformed message is PROTOCOL_ERROR, on its stream alone."""
        fault = fault_of(*fields, method=method)
        assert (fault.code, fault.reason) == (Code.PROTOCOL_ERROR, reason)

    def test_length_without_a_body_is_malformed(self) -> None:
        """Content-Length is the sum of all DATA, of which there is none."""
        assert fault_of(*OK, (b"content-length", b"5"), is_whole=True).reason == "bad_content_length"

    def test_interim_head_does_not_end_a_stream(self) -> None:
        """RFC 9113 section 8.1: the final response is still to come."""
        assert fault_of(*status(b"103"), is_whole=True).reason == "bad_interim"

    def test_limits_themselves_are_allowed(self) -> None:
        """Each limit is the largest that passes."""
        head_of(*OK, *[(b"x-%d" % n, b"") for n in range(100)])
        room = LIMITS.header_list_bytes - (7 + 3 + 32) - (1 + 32)
        head_of(*OK, (b"x", b"y" * room))
        large = fault_of(*OK, (b"x", b"y" * (room + 1)))
        many = fault_of(*OK, *[(b"x-%d" % n, b"") for n in range(101)])
        assert (large.code, large.reason) == (Code.ENHANCE_YOUR_CALM, "response_header_too_large")
        assert (many.code, many.reason) == (Code.ENHANCE_YOUR_CALM, "too_many_headers")

    def test_value_is_not_in_a_message(self) -> None:
        """What is refused is named, not shown: a value may be secret."""
        assert "secret" not in str(fault_of(*OK, (b"set-cookie", b"secret\0")))


class TestResponseReader:
    def test_block_that_comes_again_is_the_same_head(self) -> None:
        """An app that repeats itself is understood at once; but not for another method or another end."""
        reader, data = ResponseReader(LIMITS), block(OK)
        assert reader.response(data, False, b"GET") is reader.response(data, False, b"GET")
        whole, for_head = reader.response(data, True, b"GET"), reader.response(data, False, b"HEAD")
        assert isinstance(for_head, ResponseHead)
        assert for_head.body is BodyKind.NONE
        assert whole is not reader.response(data, False, b"GET")

    def test_block_means_something_else_when_the_table_has_changed(self) -> None:
        """Equal bytes are not equal responses: an index is what the table says at that moment."""
        reader, again = ResponseReader(LIMITS), block(OK) + b"\xbe"
        for name in (b"alice", b"bob"):
            reader.response(block(OK) + literal(b"x-user", name, 0x40), False, b"GET")
            assert reader.response(again, False, b"GET").fields.values(b"x-user") == [name]

    def test_interim_head_is_not_remembered(self) -> None:
        """What is remembered are responses."""
        reader, data = ResponseReader(LIMITS), block(status(b"103"))
        assert reader.response(data, False, b"GET") is not reader.response(data, False, b"GET")

    def test_broken_block_is_a_fault_of_the_connection(self) -> None:
        """Nothing behind it can be read."""
        with pytest.raises(ConnectionFault):
            ResponseReader(LIMITS).response(b"\x80", True, b"GET")


class TestRequestFields:
    @pytest.mark.parametrize(
        ("section", "fields"),
        [
            (b"X-A: b\r\nx-c:d\r\n", [(b"x-a", b"b"), (b"x-c", b"d")]),
            (b"Cookie: a=1; b=2\r\n", [(b"cookie", b"a=1; b=2")]),
            (
                b"Content-Length: 5\r\nExpect: 100-continue\r\n",
                [(b"content-length", b"5"), (b"expect", b"100-continue")],
            ),
            (b"Connection: TE, close\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTransfer-Encoding: chunked\r\n", []),
            (b"Upgrade: websocket\r\n", []),
            (b"TE: trailers\r\n", [(b"te", b"trailers")]),
            (b"TE: gzip, Trailers ;q=1\r\n", []),
            (b"TE: gzip , TRAILERS\r\n", [(b"te", b"trailers")]),
            (b"TE: gzip\r\n", []),
        ],
        ids=["names", "cookie", "length", "connection", "upgrade", "te", "te with weight", "te with more", "no te"],
    )
    def test_what_belongs_to_a_connection_is_left_out(self, section: bytes, fields: list[Field]) -> None:
        """RFC 9113 section 8.2.2; what stays has its name in lower case, and TE says «trailers» or nothing."""
        assert request_fields(b"Host: a.example:80\r\n" + section) == (b"a.example:80", fields)

    def test_request_without_host_has_no_authority(self) -> None:
        """As one of HTTP/1.0 may be."""
        assert request_fields(b"X: y\r\n") == (b"", [(b"x", b"y")])


class TestRequestWriter:
    def test_block_is_read_as_the_request(self) -> None:
        """Pseudo-fields first, then the others, in any number of requests over one table."""
        writer, decoder = RequestWriter(), Decoder()
        for n in range(6):
            written = writer.head(b"POST", b"/pkg.Service/Call", b"Host: a\r\nX-N: %d\r\nX-Same: 1\r\n" % n)
            assert decoded(decoder, written) == [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":authority", b"a"),
                (b":path", b"/pkg.Service/Call"),
                (b"x-n", b"%d" % n),
                (b"x-same", b"1"),
            ]
        assert len(written) == 5 + len(b"\0\x03x-n\x01n")

    def test_table_of_another_size_is_heeded(self) -> None:
        """A server that forgets everything is told everything."""
        writer, decoder = RequestWriter(), Decoder()
        for n in range(6):
            if n == 3:
                writer.set_table_bytes(0)
            assert (b"x-a", b"b") in decoded(decoder, writer.head(b"GET", b"/x", b"Host: a\r\nX-A: b\r\n"))

    def test_secrets_are_never_indexed(self) -> None:
        """RFC 7541 section 7.1.3: many clients share the table."""
        writer = RequestWriter()
        section = b"Host: a\r\nCookie: k=abcdef\r\nAuthorization: Bearer ghijkl\r\n"
        blocks = [writer.head(b"GET", b"/x?token=mnopqr", section) for _ in range(4)]
        for secret in (b"abcdef", b"ghijkl", b"mnopqr"):
            assert all(secret in one for one in blocks)

    def test_trailers_are_fields(self) -> None:
        """A block of nothing is none."""
        writer = RequestWriter()
        assert decoded(Decoder(), writer.trailers(b"X-Sum: 1\r\n")) == [(b"x-sum", b"1")]
        assert writer.trailers(b"Connection: close\r\n") == b""
