"""`proxy.replies`: responses that we originate."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from sidecar.proxy.replies import REPLIES, direct, grpc_refusal, is_grpc, redirect, refusal, wants_json
from sidecar.topology import DirectResponse
from sidecar.wire.fields import Fields


class TestWantsJson:
    @pytest.mark.parametrize(
        ("section", "expected"),
        [
            (b"", False),
            (b"Accept: */*\r\n", False),
            (b"Accept: application/json\r\n", True),
            (b"ACCEPT: Application/JSON; charset=utf-8\r\n", True),
            (b"Accept: text/html, application/json\r\n", False),
            (b"Accept: application/json, text/plain, */*\r\n", True),
            (b"Accept: image/png\r\nAccept: application/json\r\n", True),
            (b"Accept: text/html\r\nAccept: application/json\r\n", False),
            (b"Accept:\r\n", False),
            (b"Content-Type: application/json\r\n", False),
        ],
        ids=[
            "no Accept",
            "anything",
            "JSON",
            "case and parameter",
            "browser",
            "JSON first",
            "two lines",
            "text in the first line",
            "empty",
            "another field",
        ],
    )
    def test_who_names_json_first_gets_it(self, section: bytes, expected: bool) -> None:
        """JSON is for those who name it, and do not name text before it."""
        assert wants_json(Fields(section)) is expected

    def test_unreadable_head_gets_text(self) -> None:
        """Without fields there is no wish."""
        assert wants_json(None) is False


class TestRefusal:
    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])
    @pytest.mark.parametrize("reason", REPLIES, ids=str)
    def test_each_is_a_whole_response(self, reason: str, as_json: bool) -> None:
        """The length is that of the body, the status has its phrase, and nothing is stored."""
        status, message = REPLIES[reason]
        head, _, body = refusal(status, reason, message, as_json=as_json).http1(keep_alive=False).partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
        assert b"Content-Length: %d" % len(body) in lines
        assert b"Cache-Control: no-store" in lines
        assert b"Connection: close" in lines
        if as_json:
            assert json.loads(body) == {"status": status, "reason": reason, "message": message}
        else:
            assert body.decode() == message + "\n"

    def test_head_gets_the_fields_alone(self) -> None:
        """The answer to HEAD is that to GET without its body."""
        reply = refusal(502, "upstream_reset", "Gone.")
        head = reply.http1(keep_alive=False, with_body=False)
        assert head + reply.body == reply.http1(keep_alive=False)
        assert head.endswith(b"\r\n\r\n")

    def test_503_says_when_to_try_again(self) -> None:
        """Clients and balancers need not guess; other answers are final."""
        assert b"\r\nRetry-After: 1\r\n" in refusal(503, "upstream_not_started", "Wait.").fields
        assert b"Retry-After" not in refusal(502, "upstream_reset", "No.").fields

    def test_hostile_message_stays_in_the_body(self) -> None:
        """Text of a message cannot become a field."""
        data = refusal(400, "bad", "a\r\nSet-Cookie: x=1").http1(keep_alive=False)
        assert b"Set-Cookie" not in data.partition(b"\r\n\r\n")[0]


class TestDirect:
    def test_response_is_what_the_route_says(self) -> None:
        """With its type and the length of its bytes; it may be stored, and the connection goes on."""
        data = direct(DirectResponse(status=200, body="é\n", content_type="text/html")).http1(keep_alive=True)
        assert data == b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n" + "é\n".encode()

    @pytest.mark.parametrize("status", [204, 304])
    def test_status_without_body_has_no_length_either(self, status: int) -> None:
        """RFC 9110 section 8.6: a 204 must not have one, and of a 304 it would be another's."""
        data = direct(DirectResponse(status=status, body="text")).http1(keep_alive=True)
        assert b"Content-Length" not in data
        assert data.endswith(b"\r\n\r\n")

    def test_empty_body_has_its_length(self) -> None:
        """Else it would last until the connection ends; its type is nobody's."""
        data = direct(DirectResponse(status=200)).http1(keep_alive=True)
        assert data == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    @pytest.mark.parametrize("status", [299, 599], ids=str)
    def test_status_of_an_operators_own_has_no_phrase(self, status: int) -> None:
        """The blank before it stays (RFC 9112 section 4)."""
        data = direct(DirectResponse(status=status)).http1(keep_alive=True)
        assert data.startswith(b"HTTP/1.1 %d \r\n" % status)

    def test_last_response_says_so(self) -> None:
        """In the same words as every other."""
        assert b"\r\nConnection: close\r\n\r\n" in direct(DirectResponse(status=200)).http1(keep_alive=False)


class TestRedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_client_is_told_where_to_go(self, status: int) -> None:
        """In the field, and in a body for those who look at it."""
        head, _, body = redirect(status, b"https://a/b").http1(keep_alive=True).partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
        assert b"Location: https://a/b" in lines
        assert b"Content-Length: %d" % len(body) in lines
        assert body == b"See https://a/b\n"

    def test_page_is_no_markup(self) -> None:
        """What a client put into its URL is not run by a browser."""
        data = redirect(301, b"https://a/?<script>").http1(keep_alive=True)
        assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in data


class TestIsGrpc:
    @pytest.mark.parametrize(
        ("content_type", "expected"),
        [
            (b"application/grpc", True),
            (b"application/grpc+proto", True),
            (b"Application/GRPC; x=1", True),
            (b"application/grpc-web", False),
            (b"application/grpc-web+proto", False),
            (b"application/json", False),
            (b"", False),
        ],
        ids=str,
    )
    def test_content_type_tells(self, content_type: bytes, expected: bool) -> None:
        """A subtype of gRPC is gRPC; gRPC-Web is another protocol, whose clients read the HTTP status."""
        assert is_grpc(Fields(b"content-type: %b\r\n" % content_type)) is expected

    def test_request_without_a_type_is_none(self) -> None:
        """Most requests."""
        assert not is_grpc(Fields(b"accept: */*\r\n"))


class TestGrpcRefusal:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (408, 2),
            (413, 8),
            (421, 2),
            (431, 8),
            (502, 14),
            (503, 14),
            (504, 14),
        ],
    )
    def test_status_becomes_the_code_that_clients_know(self, status: int, code: int) -> None:
        """So the call fails as it would without us in between, and a 503 is tried again."""
        reply = grpc_refusal(status, "why", "Because.")
        assert reply.status == 200
        assert b"\r\ngrpc-status: %d\r\n" % code in reply.fields
        assert reply.body == b""

    def test_message_is_percent_encoded(self) -> None:
        """Nothing in it can become a field, or end one."""
        reply = grpc_refusal(400, "bad", "100 % é\r\nset-cookie: x=1")
        assert reply.fields.endswith(b"grpc-message: 100 %25 %C3%A9%0D%0Aset-cookie: x=1 (bad)\r\n")
