"""`proxy.replies`: responses that we originate."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from sidecar.proxy.replies import REPLIES, render, wants_json
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


class TestRender:
    @pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])
    @pytest.mark.parametrize("reason", REPLIES, ids=str)
    def test_each_is_a_whole_response(self, reason: str, as_json: bool) -> None:
        """The length is that of the body, the status has its phrase, and nothing is stored."""
        status, message = REPLIES[reason]
        head, _, body = render(status, reason, message, as_json=as_json).partition(b"\r\n\r\n")
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
        whole = render(502, "upstream_reset", "Gone.")
        assert render(502, "upstream_reset", "Gone.", with_body=False) == whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def test_503_says_when_to_try_again(self) -> None:
        """Clients and balancers need not guess; other answers are final."""
        assert b"\r\nRetry-After: 1\r\n" in render(503, "upstream_not_started", "Wait.")
        assert b"Retry-After" not in render(502, "upstream_reset", "No.")

    def test_hostile_message_stays_in_the_body(self) -> None:
        """Text of a message cannot become a field."""
        data = render(400, "bad", "a\r\nSet-Cookie: x=1")
        assert b"Set-Cookie" not in data.partition(b"\r\n\r\n")[0]
