"""`observe.accesslog`: one line per exchange, whatever a client sends."""

from __future__ import annotations

import json
from typing import cast

import attrs
import pytest

from sidecar.observe.accesslog import AccessLog
from sidecar.observe.escaping import MAX_VALUE_BYTES
from sidecar.observe.logformat import compile_format
from sidecar.policy.identity import PeerIdentity
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.tunnel import Tunnel
from sidecar.settings import AccessLogFormat
from sidecar.tls.verify import Verification
from tests.support.pump import ADMITTED, SESSION, Pump

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

SECRETS = (
    b"GET /login?token=s3cret&x=1 HTTP/1.1\r\nHost: a\r\nCookie: sid=s3cret\r\nAuthorization: Bearer s3cret\r\n"
    b"Proxy-Authorization: Basic s3cret\r\nX-Api-Key: s3cret\r\nReferer: https://a/?s3cret\r\n\r\n"
)

IDENTITY = PeerIdentity(
    uri=("spiffe://prod/ns/a", "spiffe://prod/ns/b"),
    subject="CN=ci",
    issuer="CN=Private CA",
    serial="5e26",
    sha256="ab" * 32,
    spki_sha256="cd" * 32,
    not_before=0.0,
    not_after=0.0,
)


class Logged:
    """A pump whose access log writes into a list."""

    def __init__(self, style: AccessLogFormat) -> None:
        self.lines: list[str] = []
        self.pump = Pump()
        self.log = self.pump.service.access_log = AccessLog(
            self.lines.append, style, wall_clock=lambda: 1_000_000_000.125 + self.pump.clock.seconds()
        )

    def identify(self, identity: PeerIdentity | None) -> None:
        """Let the client have shown a certificate that says *identity*."""
        downstream = self.pump.downstream
        downstream.session = attrs.evolve(downstream.session, verification=Verification(None, None, identity))

    def serve(self, request: bytes, response: bytes = OK) -> str:
        self.pump.start_exchange(request)
        self.pump.app_sends(response)
        return self.line

    @property
    def line(self) -> str:
        (line,) = self.lines
        return line


@pytest.fixture
def as_text() -> Logged:
    return Logged(AccessLogFormat.TEXT)


@pytest.fixture(params=[AccessLogFormat.JSON, AccessLogFormat.TEXT], ids=["json", "text"])
def either(request: pytest.FixtureRequest) -> Logged:
    return Logged(request.param)


class TestStyles:
    def test_json_is_an_object_a_line(self) -> None:
        """For programs."""
        assert json.loads(Logged(AccessLogFormat.JSON).serve(SECRETS))["path"] == "/login"

    def test_upstream_and_trace_are_shown_if_known(self, either: Logged) -> None:
        """Both styles say what the caller does."""
        either.pump.start_exchange()
        exchange = cast(Exchange, either.pump.pool.opened[-1].lessee)
        either.log.exchange(exchange, 200, "", "", 1.0, upstream="127.0.0.1:8080", trace_id="4bf9")
        assert "127.0.0.1:8080" in either.line
        assert "4bf9" in either.line

    def test_tunnel_has_one_line_in_either(self, either: Logged) -> None:
        """When it is over, however it ended."""
        pump = either.pump
        tunnel = Tunnel(
            pump.tls, pump.peer, pump.service, SESSION, admission=ADMITTED, proxy_header=lambda *arguments: b""
        )
        app = pump.pool.accept_raw()
        assert either.lines == []
        tunnel.dataReceived(b"s3cret")
        app.reset()
        tunnel.end()
        assert "upstream_reset" in either.line
        assert "127.0.0.1:8080" in either.line
        assert "s3cret" not in either.line


class TestText:
    def test_line_begins_with_when_who_what(self, as_text: Logged) -> None:
        """The common part comes first, the rest by name."""
        line = as_text.serve(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert line.startswith(
            '[2001-09-09T01:46:40.125Z] 192.0.2.7 "GET /x HTTP/1.1" 200 reason=- detail="-" '
            "bytes_received=0 bytes_sent=2 "
        )
        assert " host=a.example " in line

    def test_line_has_the_moment_of_the_beginning(self, as_text: Logged) -> None:
        """Envoy's %START_TIME%, however long the exchange took."""
        as_text.pump.start_exchange()
        as_text.pump.pass_time(30)
        as_text.pump.app_sends(OK)
        assert as_text.line.startswith("[2001-09-09T01:46:40.125Z]")
        assert " duration_ms=30000.000 upstream_ms=30000.000 " in as_text.line

    def test_format_of_the_operator_is_used(self) -> None:
        """Instead of ours."""
        logged = Logged(AccessLogFormat.TEXT)
        text = compile_format("%RESPONSE_CODE% %REQ(:PATH)%", lambda name: False)
        logged.pump.service.access_log = AccessLog(logged.lines.append, AccessLogFormat.TEXT, text)
        assert logged.serve(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n") == "200 /x\n"

    def test_value_with_blanks_is_quoted(self, as_text: Logged) -> None:
        """So that it can be told from the next."""
        line = as_text.serve(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a b=c\r\n\r\n")
        assert line.endswith(' user_agent="a b=c"\n')

    def test_refused_head_has_dashes(self, as_text: Logged) -> None:
        """Nothing of it is shown."""
        as_text.pump.client_sends(b"GET /s3cret HTTP/1.1\r\nHost: a\r\nBad Name: s3cret\r\n\r\n")
        assert '"- - -" 400 reason=' in as_text.line
        assert "s3cret" not in as_text.line


class TestHostileValues:
    @pytest.mark.parametrize(
        "agent",
        [
            b'a" status=200 "b',
            b'","status":200,"x":"',
            b"\x80\xff\xc3",
            b"tab\there",
            "\N{LINE SEPARATOR}\N{NEXT LINE}\N{RIGHT-TO-LEFT OVERRIDE}".encode(),
            b"back\\slash\\n",
            b"z" * 5000,
            "é".encode() * 3000,
        ],
        ids=["quotes", "JSON", "not UTF-8", "tab", "separators", "backslash", "long", "long and not ASCII"],
    )
    def test_line_stays_one_line_of_ascii(self, either: Logged, agent: bytes) -> None:
        """No value can end a line, add a field, or fill the log."""
        line = either.serve(b"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\n\r\n" % agent)
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert line.isascii()
        assert line[:-1].isprintable()
        assert len(line) < 5 * MAX_VALUE_BYTES + 600

    def test_names_in_a_certificate_are_escaped_and_cut(self, either: Logged) -> None:
        """The holder may have chosen them, and a CA may sign anything."""
        evil = 'a"\\\r\n\0\x7f\x85\u2028' + "é" * 5000
        downstream = either.pump.downstream
        downstream.session = attrs.evolve(downstream.session, server_name=evil)
        either.identify(attrs.evolve(IDENTITY, subject=evil, uri=(evil,)))
        either.pump.judge_again(attrs.evolve(ADMITTED, principal=evil))
        line = either.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert line.isascii()
        assert len(line) < 4 * 6 * MAX_VALUE_BYTES + 1000


class TestSecrets:
    def test_nothing_secret_is_logged(self, either: Logged) -> None:
        """No query string, cookie, authorization or other field value is ever in the log."""
        line = either.serve(SECRETS, b"HTTP/1.1 200 OK\r\nSet-Cookie: s3cret\r\nContent-Length: 2\r\n\r\nok")
        assert "/login" in line
        assert "s3cret" not in line

    def test_not_even_when_it_fails(self, either: Logged) -> None:
        """An answer of ours shows no more."""
        either.pump.client_sends(SECRETS)
        either.pump.pool.refuse()
        assert "s3cret" not in either.line
        assert "/login" in either.line

    def test_not_even_of_a_broken_response(self, either: Logged) -> None:
        """The detail of an invalid response does not quote it."""
        line = either.serve(SECRETS, b"HTTP/1.1 200 OK\r\nBad Name: s3cret\r\n\r\n")
        assert "upstream_invalid_response" in line
        assert "s3cret" not in line

    def test_absolute_form_has_no_query_either(self, either: Logged) -> None:
        """The query is cut from every form of target."""
        line = either.serve(b"GET http://a/login?s3cret HTTP/1.1\r\nHost: a\r\n\r\n")
        assert "s3cret" not in line
