"""`strict`: the reader that all proxies are judged by."""

from __future__ import annotations

import pytest

from tests.conformance.strict import MalformedError, Message, read_all, read_one
from tests.support.cases import BEHIND

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def read(data: bytes) -> Message:
    message = read_one(data)
    assert message is not None
    return message


class TestReadOne:
    @pytest.mark.parametrize(
        ("data", "framing", "body"),
        [
            pytest.param(GET + b"\r\n", "none", b"", id="none"),
            pytest.param(b"\r\n\r\n" + GET + b"\r\n", "none", b"", id="empty lines before"),
            pytest.param(POST + b"Content-Length: 5\r\n\r\nhello", "length", b"hello", id="length"),
            pytest.param(POST + b"Content-Length: 0\r\n\r\n", "length", b"", id="length zero"),
            pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", "chunks", b"hello", id="chunks"),
            pytest.param(CHUNKED + b"5 ;a=b\r\nhello\r\n00;c\r\n\r\n", "chunks", b"hello", id="extensions"),
            pytest.param(CHUNKED + b"2\r\n\r\n\r\n0\r\n\r\n", "chunks", b"\r\n", id="line end in chunk"),
            pytest.param(b"GET / HTTP/1.0\r\n\r\n", "none", b"", id="HTTP/1.0 without Host"),
        ],
    )
    def test_request_ends_where_it_is_framed_to_end(self, data: bytes, framing: str, body: bytes) -> None:
        """A request is read with its body and without a byte of what follows; cut anywhere, it is not complete."""
        message = read(data + BEHIND)

        assert (message.framing, message.body, message.raw) == (framing, body, data)
        assert [read_one(data[:size]) for size in range(len(data))] == [None] * len(data)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(GET + b"X: a\nY: b\r\n\r\n", id="bare LF"),
            pytest.param(GET + b"X: a\rY: b\r\n\r\n", id="bare CR"),
            pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="bare LF everywhere"),
            pytest.param(GET + b"X : a\r\n\r\n", id="blank before colon"),
            pytest.param(GET + b"X: a\r\n b\r\n\r\n", id="folded"),
            pytest.param(GET + b"X: \0\r\n\r\n", id="NUL"),
            pytest.param(GET + b"Host: a\r\n\r\n", id="Host twice"),
            pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no Host"),
            pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", id="version"),
            pytest.param(b"GET /\r\n\r\n", id="no version"),
            pytest.param(b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", id="fragment"),
            pytest.param(POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", id="length twice"),
            pytest.param(POST + b"Content-Length: +5\r\n\r\nhello", id="length with plus"),
            pytest.param(POST + b"Content-Length: 5, 5\r\n\r\nhello", id="length in a list"),
            pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="two framings"),
            pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="another coding"),
            pytest.param(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks in HTTP/1.0"),
            pytest.param(CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", id="chunk size"),
            pytest.param(CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", id="blank behind chunk size"),
            pytest.param(CHUNKED + b"5\nhello\r\n0\r\n\r\n", id="bare LF behind chunk size"),
            pytest.param(CHUNKED + b"5\r\nhelloXX0\r\n\r\n", id="chunk not closed"),
            pytest.param(CHUNKED + b"0\r\nX : y\r\n\r\n", id="trailer"),
            pytest.param(CHUNKED + b"0\r\nX: y\n\r\n", id="bare LF in trailers"),
        ],
    )
    def test_ambiguous_request_is_malformed(self, data: bytes) -> None:
        """What two readers could read differently is no request."""
        with pytest.raises(MalformedError):
            read_one(data + BEHIND)

    @pytest.mark.parametrize(
        ("line", "path", "host"),
        [
            (b"GET /p?q", b"/p?q", b"a"),
            (b"GET http://B:1/p", b"/p", b"b:1"),
            (b"GET https://b?q", b"/?q", b"b"),
            (b"OPTIONS http://b", b"*", b"b"),
            (b"OPTIONS *", b"*", b"a"),
        ],
    )
    def test_target_in_whatever_form_names_path_and_host(self, line: bytes, path: bytes, host: bytes) -> None:
        """An absolute-form target names the same as an origin-form one with its Host."""
        message = read(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (message.path, message.host) == (path, host)

    def test_trailers_are_no_fields(self) -> None:
        """What follows a chunked body is kept apart: a Host there is none."""
        message = read(CHUNKED + b"0\r\nHost: b\r\n\r\n")
        assert message.trailers == ((b"host", b"b"),)
        assert message.host == b"a"


class TestReadAll:
    @pytest.mark.parametrize("end", [b"", b"GET", b"rubbish\r\n\r\n" + BEHIND])
    def test_requests_are_read_up_to_what_is_none(self, end: bytes) -> None:
        """Requests are read in order, and nothing behind one that is malformed or unfinished."""
        assert [message.path for message in read_all(GET + b"\r\n" + BEHIND + end)] == [b"/", b"/behind"]
