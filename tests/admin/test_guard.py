"""`admin.guard`: who may ask."""

from __future__ import annotations

import pytest

from sidecar.admin.guard import refusal
from sidecar.wire.events import RequestHead
from sidecar.wire.http1 import ServerCodec


def request(host: bytes | None, method: bytes = b"GET", extra: bytes = b"", version: bytes = b"1.1") -> RequestHead:
    """A request as it comes off the wire."""
    codec = ServerCodec(16_384, 100)
    field = b"" if host is None else b"Host: %b\r\n" % host
    codec.receive(b"%b /live HTTP/%b\r\n%b%b\r\n" % (method, version, field, extra))
    assert codec.request is not None
    return codec.request


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            b"evil.example",
            b"evil.example:8081",
            b"localhost.evil.example",
            b"evil.localhost:8081",
            b"127.0.0.1.evil.example",
            b"localhost.",
            b"sidecar",
            b"127.1",
            b"2130706433",
            b"0x7f.0.0.1",
            b"127.0.0.1.",
            b"256.0.0.1",
            b"[127.0.0.1]",
        ],
    )
    def test_name_of_anybodys_is_refused(self, host: bytes) -> None:
        """A name can be pointed at this machine by whoever owns it, and the answer names it and the way out."""
        text = refusal(request(host))
        assert text is not None
        assert host.decode() in text
        assert "write the address into the URL" in text

    @pytest.mark.parametrize(
        "host",
        [
            b"127.0.0.1",
            b"127.0.0.1:8081",
            b"10.1.2.3:8081",
            b"localhost",
            b"LocalHost:8081",
            b"localhost:",
            b"[::1]:8081",
            b"[::1]",
            b"[fd00::12:ab]:8081",
            b"[::ffff:127.0.0.1]",
        ],
    )
    def test_address_and_localhost_are_answered(self, host: bytes) -> None:
        """Nobody can make a page whose own name is one of these, whatever the port."""
        assert refusal(request(host)) is None

    def test_missing_host_is_refused(self) -> None:
        """HTTP/1.0 may leave it out, and then nothing says that the request is meant for us."""
        text = refusal(request(None, version=b"1.0"))
        assert text is not None
        assert text.startswith("The Host of this request is missing.")

    def test_long_name_is_cut(self) -> None:
        """A refusal is short, whatever was sent."""
        text = refusal(request(b"a." * 2000 + b"example"))
        assert text is not None
        assert len(text) < 400


class TestPages:
    @pytest.mark.parametrize(
        "field",
        [
            b"Origin: http://evil.example\r\n",
            b"Origin: null\r\n",
            b"origin: http://localhost:8081\r\n",
            b"Sec-Fetch-Site: cross-site\r\n",
            b"Sec-Fetch-Site: same-site\r\n",
            b"SEC-FETCH-SITE: none\r\n",
        ],
    )
    @pytest.mark.parametrize("method", [b"POST", b"DELETE"])
    def test_change_by_a_page_is_refused(self, method: bytes, field: bytes) -> None:
        """We serve no page that would change anything, so every browser's POST is somebody else's idea."""
        text = refusal(request(b"127.0.0.1:8081", method, field))
        assert text is not None
        assert "web page" in text

    def test_change_by_a_program_is_answered(self) -> None:
        """curl sends neither field."""
        assert refusal(request(b"127.0.0.1:8081", b"POST", b"Content-Type: text/plain\r\n")) is None

    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    def test_person_with_a_browser_may_look(self, method: bytes) -> None:
        """What only reads is answered; a page of another origin cannot see the answer."""
        assert refusal(request(b"localhost:8081", method, b"Sec-Fetch-Site: none\r\n")) is None
