"""`observe.accesslog`: one line per exchange, whatever a client sends."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from sidecar.observe.accesslog import MAX_VALUE_BYTES, AccessLog
from sidecar.policy.identity import identity_of
from sidecar.settings import AccessLogFormat
from sidecar.tls.verify import Verification
from tests.support.certs import CLIENT, authority
from tests.support.pump import Pump

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

SECRETS = (
    b"GET /login?token=s3cret&x=1 HTTP/1.1\r\nHost: a\r\nCookie: sid=s3cret\r\nAuthorization: Bearer s3cret\r\n"
    b"Proxy-Authorization: Basic s3cret\r\nX-Api-Key: s3cret\r\nReferer: https://a/?s3cret\r\n\r\n"
)


class Logged:
    """A pump whose access log writes into a list."""

    def __init__(self, style: AccessLogFormat) -> None:
        self.lines: list[str] = []
        self.pump = Pump()
        self.pump.service.access_log = AccessLog(self.lines.append, style)

    def serve(self, request: bytes, response: bytes = OK) -> str:
        self.pump.start_exchange(request)
        self.pump.app_sends(response)
        return self.line

    @property
    def line(self) -> str:
        (line,) = self.lines
        return line

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.line)
        return record


@pytest.fixture
def as_json() -> Logged:
    return Logged(AccessLogFormat.JSON)


@pytest.fixture
def as_text() -> Logged:
    return Logged(AccessLogFormat.TEXT)


@pytest.fixture(params=[AccessLogFormat.JSON, AccessLogFormat.TEXT], ids=["json", "text"])
def either(request: pytest.FixtureRequest) -> Logged:
    return Logged(request.param)


class TestJson:
    def test_all_fields_are_there(self, as_json: Logged) -> None:
        """What an operator needs of an exchange, and numbers as numbers."""
        as_json.pump.start_exchange(
            b"POST /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: t/1\r\nContent-Length: 3\r\n\r\nab"
        )
        as_json.pump.pass_time(0.25)
        as_json.pump.client_sends(b"c")
        as_json.pump.app_sends(OK[:-1])
        as_json.pump.pass_time(0.5)
        as_json.pump.app_sends(OK[-1:])
        record = as_json.record
        assert record.pop("time").endswith("Z")
        assert len(record.pop("request_id")) == 32
        assert record == {
            "client": "192.0.2.7",
            "status": 200,
            "tls_version": "TLSv1.3",
            "tls_cipher": "TLS_AES_256_GCM_SHA384",
            "sni": "localhost",
            "method": "POST",
            "path": "/x",
            "protocol": "HTTP/1.1",
            "host": "a.example",
            "bytes_received": 3,
            "bytes_sent": 2,
            "duration_ms": 750.0,
            "upstream_ms": 250.0,
            "user_agent": "t/1",
        }

    def test_request_id_is_the_apps(self, as_json: Logged) -> None:
        """The line can be found from the app's own log."""
        as_json.pump.start_exchange()
        sent = as_json.pump.app_receives()
        as_json.pump.app_sends(OK)
        assert b"X-Request-Id: %b\r\n" % as_json.record["request_id"].encode() in sent

    def test_own_answer_has_its_reason(self, as_json: Logged) -> None:
        """Why we answered, and the detail that the client does not get."""
        as_json.pump.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        as_json.pump.pool.refuse("upstream_unreachable", "No route to host")
        assert as_json.record["status"] == 502
        assert as_json.record["reason"] == "upstream_unreachable"
        assert as_json.record["detail"] == "No route to host"
        assert "upstream_ms" not in as_json.record

    def test_refused_head_shows_nothing_of_it(self, as_json: Logged) -> None:
        """A request that breaks a rule cannot be trusted in any part."""
        as_json.pump.client_sends(b"GET /s3cret HTTP/1.1\r\nHost: a\r\nBad Name: s3cret\r\n\r\n")
        assert as_json.record["status"] == 400
        assert as_json.record["reason"]
        assert "s3cret" not in as_json.line

    def test_client_certificate_is_named(self, as_json: Logged) -> None:
        """Whoever shows a certificate is in the log by its subject, cut to size."""
        certificate = authority().issue("ci", purposes=CLIENT).certificate
        session = as_json.pump.downstream.session
        as_json.pump.downstream.session = attrs.evolve(
            session, verification=Verification(certificate, None, identity_of(certificate))
        )
        as_json.serve(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert as_json.record["client_subject"] == "CN=ci"

    def test_lost_client_has_status_0(self, as_json: Logged) -> None:
        """Nothing was answered."""
        as_json.pump.start_exchange()
        as_json.pump.client_vanishes()
        assert (as_json.record["status"], as_json.record["reason"]) == (0, "downstream_lost")


class TestText:
    def test_line_begins_with_when_who_what(self, as_text: Logged) -> None:
        """The common part comes first, the rest by name."""
        line = as_text.serve(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert line[0] == "["
        assert '] 192.0.2.7 "GET /x HTTP/1.1" 200 bytes_received=0 bytes_sent=2 ' in line
        assert " host=a.example " in line

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

    def test_json_keeps_its_status(self, as_json: Logged) -> None:
        """A value that looks like JSON stays a value."""
        as_json.serve(b'GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: ","status":500,"x":"\r\n\r\n')
        assert as_json.record["status"] == 200
        assert as_json.record["user_agent"] == '","status":500,"x":"'

    def test_long_path_and_method_are_cut(self, as_json: Logged) -> None:
        """Each value has its limit."""
        as_json.serve(b"%b /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"M" * 30, b"p" * 5000))
        assert len(as_json.record["path"]) == MAX_VALUE_BYTES

    def test_empty_value_is_there(self, as_text: Logged) -> None:
        """An empty user agent is no missing one."""
        line = as_text.serve(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent:\r\n\r\n")
        assert line.rstrip("\n").endswith("user_agent=")


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
