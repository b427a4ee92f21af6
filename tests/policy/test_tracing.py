"""`policy.tracing`: a client's trace is continued if it is named properly; every other request starts one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.tracing import TRACE_FIELDS, client_trace_id, dropped_trace_fields, naming_lines
from sidecar.wire.events import RequestHead
from sidecar.wire.head import parse_request_head

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"00f067aa0ba902b7"
VALID = b"00-%b-%b-01" % (TRACE, PARENT)


def head_with(*lines: bytes) -> RequestHead:
    section = b"".join(line + b"\r\n" for line in lines)
    return parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % section, 100)


class TestClientTraceId:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(VALID, id="sampled"),
            pytest.param(b"00-%b-%b-00" % (TRACE, PARENT), id="not sampled"),
            pytest.param(b"00-%b-%b-03" % (TRACE, PARENT), id="random flag of level 2"),
            pytest.param(b" \t" + VALID + b"  ", id="blanks around"),
            pytest.param(b"cc-%b-%b-01" % (TRACE, PARENT), id="later version"),
            pytest.param(b"01-%b-%b-01-what-the-future-brings" % (TRACE, PARENT), id="later version with more"),
            pytest.param(b"01-%b-%b-01-" % (TRACE, PARENT), id="later version with a hyphen"),
            pytest.param(b"01-%b-%b-01-%b" % (TRACE, PARENT, b"x" * 200), id="as much more as is let through"),
        ],
    )
    def test_valid_field_names_the_trace(self, value: bytes) -> None:
        """What the recommendation allows is continued."""
        assert client_trace_id(head_with(b"traceparent:" + value)) == TRACE

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(b"", id="empty"),
            pytest.param(VALID + b"-", id="more behind version 00"),
            pytest.param(VALID + b"0", id="a digit too many"),
            pytest.param(VALID[:-1], id="a digit too few"),
            pytest.param(b"ff-%b-%b-01" % (TRACE, PARENT), id="forbidden version"),
            pytest.param(b"01-%b-%b-01x" % (TRACE, PARENT), id="later version without a hyphen"),
            pytest.param(b"01-%b-%b-01-a b" % (TRACE, PARENT), id="later version with a blank"),
            pytest.param(b"01-%b-%b-01-%b" % (TRACE, PARENT, b"x" * 201), id="too much more"),
            pytest.param(b"0-%b-%b-01" % (TRACE, PARENT), id="short version"),
            pytest.param(VALID.upper(), id="upper case"),
            pytest.param(b"00-%b-%b-01" % (b"0" * 32, PARENT), id="trace-id of zeros"),
            pytest.param(b"00-%b-%b-01" % (TRACE, b"0" * 16), id="parent-id of zeros"),
            pytest.param(b"00-%b-%b-01" % (TRACE[:-1] + b"g", PARENT), id="no hexadecimal digit"),
            pytest.param(b"00_%b_%b_01" % (TRACE, PARENT), id="underscores"),
            pytest.param(b"%b, %b" % (VALID, VALID), id="a list"),
            pytest.param(b'"%b"' % VALID, id="quoted"),
        ],
    )
    def test_other_value_names_none(self, value: bytes) -> None:
        """A part of it is no trace."""
        assert client_trace_id(head_with(b"traceparent:" + value)) == b""

    def test_without_field_there_is_none(self) -> None:
        """A tracestate alone says nothing."""
        assert client_trace_id(head_with(b"tracestate: a=1")) == b""

    def test_name_has_any_case(self) -> None:
        """Field names have no case."""
        assert client_trace_id(head_with(b"TraceParent: " + VALID)) == TRACE

    def test_repeated_field_names_none(self) -> None:
        """Nobody knows which of two an app would take, even if they agree."""
        assert client_trace_id(head_with(b"traceparent: " + VALID, b"traceparent: " + VALID)) == b""

    def test_field_that_connection_nominates_names_none(self) -> None:
        """It is for us alone, so the app would not see the trace that the log shows."""
        assert client_trace_id(head_with(b"Connection: Traceparent", b"traceparent: " + VALID)) == b""


class TestDroppedTraceFields:
    @pytest.mark.parametrize(
        ("lines", "dropped"),
        [
            pytest.param([], frozenset(), id="none"),
            pytest.param([b"traceparent: " + VALID, b"tracestate: a=1"], frozenset(), id="valid"),
            pytest.param([b"traceparent: no", b"tracestate: a=1"], TRACE_FIELDS, id="not valid"),
            pytest.param([b"traceparent: no"], TRACE_FIELDS, id="not valid, without state"),
            pytest.param([b"tracestate: a=1"], TRACE_FIELDS, id="state without trace"),
        ],
    )
    def test_they_go_on_together_or_not_at_all(self, lines: list[bytes], dropped: frozenset[bytes]) -> None:
        """The state of a trace means nothing without it."""
        head = head_with(*lines)
        assert dropped_trace_fields(head, client_trace_id(head)) == dropped


class TestNamingLines:
    @given(st.integers(min_value=1, max_value=2**64 - 1), st.integers(min_value=1, max_value=2**64 - 1))
    def test_started_trace_is_valid_and_has_the_requests_id(self, high: int, low: int) -> None:
        """What we start, the next proxy of our kind continues; it is not sampled."""
        request_id = b"%016x%016x" % (high, low)
        named, line = naming_lines(b"abc", request_id).split(b"\r\n", 1)
        assert named == b"X-Request-Id: abc"
        assert client_trace_id(head_with(line.removesuffix(b"\r\n"))) == request_id
        assert re.fullmatch(rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\r\n", line)
