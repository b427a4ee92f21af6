"""`sidecar.wire.head`: heads to values, and the reason why one is refused."""

from __future__ import annotations

import pytest

from sidecar.errors import RequestError, ResponseError
from sidecar.wire.events import BodyKind, InterimHead, RequestHead, ResponseHead
from sidecar.wire.fields import Fields
from sidecar.wire.head import parse_request_head, parse_response_head
from tests.support.cases import MAX_HEADERS, REQUESTS, Refusal, RequestCase

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

BY_OTHERS = {"bad_chunk", "bad_trailer", "trailers_too_large", "header_too_large", "bare_line_end"}

# The cases in which a head is complete, comes first, and decides.
WHOLE_HEADS = [
    case
    for case in REQUESTS
    if b"\r\n\r\n" in case.data
    and not case.data.startswith(b"\r\n")
    and not (isinstance(case.expected, Refusal) and BY_OTHERS & set(case.expected.reasons))
]


def refused(head: bytes) -> str:
    """The text of the refusal of a request head."""
    with pytest.raises(RequestError) as caught:
        parse_request_head(head, 100)
    return str(caught.value)


class TestRequest:
    def test_head_is_read_into_its_parts(self) -> None:
        """Every part of a request head has its attribute, the fields as they came."""
        section = b"hOsT: a:1\r\nContent-Length: 7\r\nConnection: X, Upgrade\r\nX:  y \r\n"
        assert parse_request_head(b"PUT /p?q HTTP/1.1\r\n" + section + b"\r\n", 100) == RequestHead(
            method=b"PUT",
            target=b"/p?q",
            minor_version=1,
            fields=Fields(section),
            host=b"a:1",
            body=BodyKind.LENGTH,
            length=7,
            options=(b"x", b"upgrade"),
            keep_alive=True,
            upgrade=(),
        )

    @pytest.mark.parametrize("case", WHOLE_HEADS, ids=lambda case: case.id)
    def test_head_of_a_case_is_read_as_the_table_says(self, case: RequestCase) -> None:
        """A complete head is accepted or refused by itself, whatever body follows it."""
        head = case.data[: case.data.index(b"\r\n\r\n") + 4]
        if isinstance(case.expected, Refusal):
            with pytest.raises(RequestError) as caught:
                parse_request_head(head, MAX_HEADERS)
            assert caught.value.status == case.expected.status
            assert caught.value.reason in case.expected.reasons
        else:
            read = parse_request_head(head, MAX_HEADERS)
            assert (read.method, read.target, read.host) == (
                case.expected.method,
                case.expected.target,
                case.expected.host,
            )
            assert (read.body, read.options, read.upgrade) == (
                case.expected.body,
                case.expected.options,
                case.expected.upgrade,
            )
            assert read.keep_alive is case.expected.keep_alive

    @pytest.mark.parametrize("count", [1, 2, 100])
    def test_number_of_fields_is_limited(self, count: int) -> None:
        """As many fields as allowed are read, one more is refused with 431."""
        head = GET + b"X: y\r\n" * (count - 1) + b"\r\n"
        assert len(parse_request_head(head, count).fields.names) == count
        with pytest.raises(RequestError) as caught:
            parse_request_head(head, count - 1)
        assert (caught.value.status, caught.value.reason) == (431, "too_many_headers")

    @pytest.mark.parametrize(
        ("head", "text"),
        [
            (b"GET /\r\n\r\n", "does not end in an HTTP version"),
            (b"GET /a b HTTP/1.1\r\n\r\n", "the request line is malformed: 'GET /a b HTTP/1.1'"),
            (GET + b" folded\r\n\r\n", "obs-fold"),
            (GET + b"nothing\r\n\r\n", "without a colon"),
            (GET + b": v\r\n\r\n", "the field name ''"),
            (GET + b"X : v\r\n\r\n", "the field name 'X '"),
            (GET + b"X: a\rb\r\n\r\n", "the value of 'X' holds a bare CR or LF"),
            (GET + b"X: a\nb\r\n\r\n", "the value of 'X' holds a bare CR or LF"),
            (GET + b"X: a\0b\r\n\r\n", "the value of 'X' holds a control character"),
            (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "version is 3.0"),
            (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "method TRACE"),
            (GET + b"Host: a\r\n\r\n", "exactly one Host field, this one has 2"),
        ],
    )
    def test_refusal_names_the_rule(self, head: bytes, text: str) -> None:
        """A refusal says which rule the head breaks."""
        assert text in refused(head)

    def test_refusal_shows_no_value(self) -> None:
        """The value of a malformed field may be secret, and is not quoted."""
        assert "hunter2" not in refused(GET + b"Authorization: hunter2\0\r\n\r\n")

    def test_refusal_is_short_and_printable(self) -> None:
        """However long and strange the bytes, a refusal is one short printable line."""
        for head in (b"\xff\0\n" * 500 + b" HTTP/1.1\r\n\r\n", GET + b"\xff\0" * 500 + b": v\r\n\r\n"):
            assert refused(head).isprintable()
            assert len(refused(head)) < 300

    @pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding", b"Host"])
    @pytest.mark.parametrize("spelling", [bytes.upper, bytes.lower, bytes.swapcase])
    def test_names_have_no_case(self, name: bytes, spelling: object) -> None:
        """The fields that decide on framing and host are found in any spelling."""
        line = spelling(name) + b": 5\r\n"  # type: ignore[operator]
        assert refused(GET + line + line + b"\r\n")


class TestResponse:
    def test_head_is_read_into_its_parts(self) -> None:
        """Every part of a response head has its attribute, the fields as they came."""
        section = b"content-length: 7\r\nConnection: close\r\nX:  y \r\n"
        assert parse_response_head(b"HTTP/1.0 404 Not  Found\r\n" + section + b"\r\n", 100, b"GET") == ResponseHead(
            status=404,
            reason=b" Not  Found",
            minor_version=0,
            fields=Fields(section),
            body=BodyKind.LENGTH,
            length=7,
            options=(b"close",),
            keep_alive=False,
        )

    @pytest.mark.parametrize("status", [100, 102, 103, 199])
    def test_interim_head_is_an_event_of_its_own(self, status: int) -> None:
        """A 1xx status other than 101 announces another response."""
        head = parse_response_head(b"HTTP/1.1 %d X\r\nLink: a\r\n\r\n" % status, 100, b"GET")
        assert head == InterimHead(status, b" X", Fields(b"Link: a\r\n"))

    @pytest.mark.parametrize(
        ("head", "text"),
        [
            (b"HTTP/2.0 200 OK\r\n\r\n", "the first line"),
            (OK + b"X : v\r\n\r\n", "the field name 'X '"),
            (OK + b" v\r\n\r\n", "obs-fold"),
        ],
    )
    def test_refusal_names_the_rule(self, head: bytes, text: str) -> None:
        """A refusal says which line of the head is malformed, and how."""
        with pytest.raises(ResponseError) as caught:
            parse_response_head(head, 100, b"GET")
        assert caught.value.reason == "bad_response_head"
        assert text in str(caught.value)

    @pytest.mark.parametrize("status", [600, 999])
    def test_status_of_no_class_is_refused(self, status: int) -> None:
        """A status above 599 has no meaning (RFC 9110 section 15)."""
        with pytest.raises(ResponseError) as caught:
            parse_response_head(b"HTTP/1.1 %d X\r\n\r\n" % status, 100, b"GET")
        assert caught.value.reason == "bad_status"

    def test_101_is_a_final_response(self) -> None:
        """101 ends HTTP on its connection: nothing follows it."""
        head = parse_response_head(b"HTTP/1.1 101 X\r\nUpgrade: a\r\n\r\n", 100, b"GET")
        assert isinstance(head, ResponseHead)
        assert head.body is BodyKind.NONE

    @pytest.mark.parametrize("status", [100, 200])
    def test_number_of_fields_is_limited(self, status: int) -> None:
        """As many fields as allowed are read, one more is refused, in interim responses too."""
        head = b"HTTP/1.1 %d X\r\n" % status + b"X: y\r\n" * 3 + b"\r\n"
        assert len(parse_response_head(head, 3, b"GET").fields.names) == 3
        with pytest.raises(ResponseError) as caught:
            parse_response_head(head, 2, b"GET")
        assert caught.value.reason == "too_many_headers"

    @pytest.mark.parametrize(
        ("version", "field", "keep_alive"),
        [
            (b"1.1", b"", True),
            (b"1.1", b"Connection: close\r\n", False),
            (b"1.1", b"Connection: keep-alive\r\n", True),
            (b"1.1", b"Connection: x\r\nConnection: Close\r\n", False),
            (b"1.1", b"Connection: a b\r\n", False),
            (b"1.0", b"", False),
            (b"1.0", b"Connection: Keep-Alive\r\n", True),
            (b"1.0", b"Connection: keep-alive, close\r\n", False),
        ],
    )
    def test_whether_the_connection_goes_on(self, version: bytes, field: bytes, keep_alive: bool) -> None:
        """HTTP/1.1 goes on unless told, HTTP/1.0 only if told; close wins; what is unreadable ends it."""
        head = parse_response_head(b"HTTP/%b 200 OK\r\n%b\r\n" % (version, field), 100, b"GET")
        assert isinstance(head, ResponseHead)
        assert head.keep_alive is keep_alive

    def test_refusal_shows_no_value(self) -> None:
        """The value of a malformed field may be secret, and is not quoted."""
        with pytest.raises(ResponseError) as caught:
            parse_response_head(OK + b"Set-Cookie: hunter2\0\r\n\r\n", 100, b"GET")
        assert "hunter2" not in str(caught.value)
        assert "Set-Cookie" in str(caught.value)
