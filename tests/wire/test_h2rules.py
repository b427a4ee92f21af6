"""What holds for the fields of every message."""

from __future__ import annotations

import pytest

from sidecar.wire.h2frames import StreamFault
from sidecar.wire.h2limits import Http2Limits
from sidecar.wire.h2rules import (
    MAX_TRAILER_BYTES,
    check_field,
    content_length,
    message_fields,
    quote,
    split,
    trailer_fields,
)
from tests.support.frames import Field

LIMITS = Http2Limits()


class TestTrailerFields:
    def test_good_trailers_are_lines(self) -> None:
        """Trailers are what a chunked body would have had."""
        assert trailer_fields([(b"grpc-status", b"0"), (b"x", b"")], LIMITS).section == b"grpc-status: 0\r\nx: \r\n"

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ([(b":path", b"/")], "bad_pseudo_field"),
            ([(b"x", b"y"), (b":status", b"200")], "bad_pseudo_field"),
            ([(b"X", b"y")], "bad_header"),
            ([(b"x", b"y\r\nz: 1")], "bad_header"),
            ([(b"connection", b"close")], "connection_field"),
            ([(b"transfer-encoding", b"chunked")], "connection_field"),
            ([(b"x", b"y" * MAX_TRAILER_BYTES)], "trailers_too_large"),
            ([(b"x", b"y")] * 101, "trailers_too_large"),
        ],
        ids=["pseudo-field", "pseudo-field behind", "upper case", "line", "connection", "framing", "large", "many"],
    )
    def test_wrong_trailers_are_a_fault_of_their_stream(self, fields: list[Field], reason: str) -> None:
        """Trailers have the rules of heads, and no pseudo-fields."""
        with pytest.raises(StreamFault) as caught:
            trailer_fields(fields, LIMITS)
        assert caught.value.reason == reason

    def test_limit_itself_is_allowed(self) -> None:
        """A trailer section may have exactly as many bytes as there is room for."""
        assert trailer_fields([(b"x", b"y" * (MAX_TRAILER_BYTES - 5))], LIMITS).names == [b"x"]


class TestSplit:
    KNOWN = frozenset({b":a", b":b"})

    def test_pseudo_fields_are_taken_off(self) -> None:
        """What is before the first regular field, and that is all there may be of them."""
        assert split([(b":b", b"1"), (b":a", b"2"), (b"x", b"y")], self.KNOWN) == (
            {b":b": b"1", b":a": b"2"},
            [(b"x", b"y")],
        )

    @pytest.mark.parametrize(
        "fields",
        [
            [(b":c", b"1")],
            [(b":a", b"1"), (b":a", b"1")],
            [(b"x", b"y"), (b":a", b"1")],
            [(b":", b"1")],
        ],
        ids=["unknown", "twice", "behind", "nameless"],
    )
    def test_pseudo_field_out_of_place_is_a_fault(self, fields: list[Field]) -> None:
        """RFC 9113 section 8.3: known, once, and before all others."""
        with pytest.raises(StreamFault) as caught:
            split(fields, self.KNOWN)
        assert caught.value.reason == "bad_pseudo_field"


class TestCheckField:
    @pytest.mark.parametrize(
        ("name", "value"),
        [(b"X", b""), (b"", b""), (b"a:b", b""), (b"a b", b""), (b"a", b" b"), (b"a", b"b\t"), (b"a", b"b\r\nc: d")],
    )
    def test_what_would_be_other_lines_in_http_1_is_a_fault(self, name: bytes, value: bytes) -> None:
        """A name or value that HTTP/1.1 would read as something else goes no further; the value is not shown."""
        with pytest.raises(StreamFault) as caught:
            check_field(name, value)
        assert caught.value.reason == "bad_header"

    @pytest.mark.parametrize("value", [b"", b"a  b\tc", b"\xff", b"a"])
    def test_good_value_passes(self, value: bytes) -> None:
        """Blanks inside, octets above 0x7f and nothing at all are values."""
        check_field(b"x-a_b", value)


class TestContentLength:
    @pytest.mark.parametrize("values", [[b""], [b"+1"], [b"1,1"], [b"1", b"1"], [b"0x1"], [b"1" * 19]])
    def test_anything_but_one_number_is_a_fault(self, values: list[bytes]) -> None:
        """Two readers of a length that is not clear would find two lengths."""
        with pytest.raises(StreamFault) as caught:
            content_length(values)
        assert caught.value.reason == "bad_content_length"

    def test_longest_number_is_one(self) -> None:
        """Eighteen digits are a length."""
        assert content_length([b"9" * 18]) == 10**18 - 1


class TestMessageFields:
    def test_lines_become_fields(self) -> None:
        """Names in lower case, values bare, and nothing that is about a connection."""
        section = b"X-A:  b \r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n"
        assert message_fields(section) == [(b"x-a", b"b"), (b"te", b"trailers")]


class TestQuote:
    def test_long_name_is_cut(self) -> None:
        """A log line is not as long as a peer likes."""
        assert quote(b"\n" * 1000) == repr("\n" * 40)
