"""`observe.logformat`: formats make lines that no client can forge."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import RequestError
from sidecar.observe.accesslog import AccessLog
from sidecar.observe.logformat import DEFAULT_TEXT, compile_format
from sidecar.observe.logsyntax import LARGEST_LIMIT, MOST_OPERATORS, FormatError
from sidecar.observe.operators import OPERATORS
from sidecar.proxy.tunnel import Tunnel
from sidecar.settings import AccessLogFormat
from tests.support.pump import ADMITTED, SESSION, Pump

ENVOY_DEFAULT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)


def is_ours(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-")


def line_of(text: str, request: bytes) -> str:
    lines: list[str] = []
    pump = Pump()
    pump.service.access_log = AccessLog(lines.append, AccessLogFormat.TEXT, compile_format(text, is_ours))
    pump.start_exchange(request)
    pump.app_sends(b"HTTP/1.1 204 No Content\r\n\r\n")
    (line,) = lines
    return line


def get(agent: bytes = b"t/1", path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\n\r\n" % (path, agent)


# What may stand in a field's value (RFC 9110), so that every request is one that is served.
field_values = (
    st.binary(max_size=300).map(lambda value: bytes(o for o in value if o > 31 and o != 127)).map(bytes.strip)
)
paths = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?"))


class TestCompileFormat:
    def test_envoys_default_works_as_it_is(self) -> None:
        """Who comes from Envoy takes the format along."""
        line = line_of(ENVOY_DEFAULT, get(path=b"/x?secret"))
        assert re.fullmatch(
            r'\[[-0-9]{10}T[:0-9]{8}\.[0-9]{3}Z\] "GET /x HTTP/1.1" 204 - 0 0 0 0 '
            r'"192\.0\.2\.7" "t/1" "[0-9a-f]{32}" "a" "[^"]+"\n',
            line,
        )

    def test_text_is_written_as_it_stands(self) -> None:
        """Conversions of other languages mean nothing."""
        assert line_of("100%% %%s {0} $1 é %REQ(:METHOD)%", get()) == "100% %s {0} $1 é GET\n"

    @pytest.mark.parametrize(
        ("name", "fix"),
        [
            ("RESPONSE_CODES", "did you mean %RESPONSE_CODE%?"),
            ("start_time", "did you mean %START_TIME%?"),
            ("DOWNSTREAM_PEER_SUBJEKT", "did you mean %DOWNSTREAM_PEER_SUBJECT%?"),
            ("ZZZ", f"the operators are {', '.join(OPERATORS)}"),
            ("ENVIRONMENT(HOME)", None),
            ("DOWNSTREAM_PEER_CERT", None),
        ],
    )
    def test_unknown_operator_is_an_error_with_a_suggestion(self, name: str, fix: str | None) -> None:
        """A slip is found at start, with its place."""
        with pytest.raises(FormatError) as caught:
            compile_format(f"abc %PROTOCOL% %{name}%", is_ours)
        assert caught.value.fact == f"at character 16: there is no operator %{name.partition('(')[0]}%"
        assert fix in (None, caught.value.fix)

    def test_default_is_made_of_what_it_says(self) -> None:
        """The documented text is what text lines are made with."""
        assert line_of(DEFAULT_TEXT, get()).count("\n") == 1

    def test_refused_head_leaves_hyphens(self) -> None:
        """Its line has the same columns, and nothing of it."""
        lines: list[str] = []
        pump = Pump()
        text = compile_format("%RESPONSE_CODE% %REASON% '%DETAIL%' %REQ(:PATH)% %DURATION% 100%%", is_ours)
        pump.service.access_log = AccessLog(lines.append, AccessLogFormat.TEXT, text)
        pump.service.record_refused(pump.downstream, RequestError("bad_host", "it's no name"))
        assert lines == ["400 bad_host 'it\\u0027s\\u0020no\\u0020name' - - 100%\n"]

    def test_tunnel_shows_what_there_is_without_requests(self) -> None:
        """How long, how much and where to; of a request, nothing."""
        lines: list[str] = []
        pump = Pump()
        text = compile_format(
            "%REASON% '%DETAIL%' %RESPONSE_CODE% %REQ(:PATH)% %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %DURATION(3)% "
            "%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_TLS_VERSION%",
            is_ours,
        )
        pump.service.access_log = AccessLog(lines.append, AccessLogFormat.TEXT, text)
        tunnel = Tunnel(
            pump.tls, pump.peer, pump.service, SESSION, admission=ADMITTED, proxy_header=lambda *arguments: b""
        )
        pump.pool.accept_raw().deliver(b"hello")
        tunnel.dataReceived(b"abc")
        pump.clock.advance(1.5)
        tunnel.end()
        assert lines == ["drain_timeout '-' 0 - - 3 5 1500.000 127.0.0.1:8080 app - 192.0.2.7:50000 TLSv1.3\n"]

    def test_largest_line_is_bounded(self) -> None:
        """However long a format and the values are."""
        text = f"%REQ(USER-AGENT):{LARGEST_LIMIT}%" * MOST_OPERATORS
        assert len(line_of(text, get(b"\xff" * 4000))) < 400 * 1024


class TestForgery:
    @given(agent=field_values, path=paths)
    def test_json_format_makes_json(self, agent: bytes, path: str) -> None:
        """Between double quotes, whatever a client sends is the inside of a JSON string."""
        line = line_of(
            '{"path":"%REQ(:PATH)%","agent":"%REQ(USER-AGENT)%","status":%RESPONSE_CODE%}',
            get(agent, f"/{path}".encode()),
        )
        record = json.loads(line)
        assert record == {
            "path": f"/{path}"[:256],
            "agent": agent[:256].decode("utf-8", "backslashreplace") or "-",
            "status": 204,
        }

    @given(agent=field_values, path=paths)
    def test_columns_stay_columns(self, agent: bytes, path: str) -> None:
        """Outside quotes, no value has the separator that stands beside it, a blank, or a quote of its own."""
        request = get(agent, f"/{path}".encode())
        line = line_of("%REQ(:PATH)%|%REQ(USER-AGENT)%|%RESPONSE_CODE% a=%REQ(USER-AGENT)% b=1", request)
        assert re.fullmatch(r"[^| ]+\|[^| ]+\|204 a=\S+ b=1\n", line, re.ASCII)
        assert line[:-1].isprintable()
        assert line.isascii()

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("%REQ(USER-AGENT)%", 'a\\u0020\\"b\\\\\\u0020x=1|c'),
            ('"%REQ(USER-AGENT)%"', '"a \\"b\\\\ x=1|c"'),
            ("%REQ(USER-AGENT)%|", 'a\\u0020\\"b\\\\\\u0020x=1\\u007cc|'),
        ],
    )
    def test_escapes_are_those_of_json(self, text: str, line: str) -> None:
        """One way to read them back, in every place."""
        assert line_of(text, get(b'a "b\\ x=1|c')) == line + "\n"
