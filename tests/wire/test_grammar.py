"""`sidecar.wire.grammar`: the character sets and patterns, octet by octet."""

from __future__ import annotations

import re
import time

import pytest

from sidecar.wire import grammar

DIGITS = b"0123456789"
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def octets(pattern: bytes) -> set[int]:
    """Which single octets *pattern* matches."""
    return {octet for octet in range(256) if re.fullmatch(pattern, bytes([octet]), re.DOTALL)}


class TestCharacterSets:
    def test_token_octets_are_those_of_the_rfc(self) -> None:
        """A token is letters, digits and the fifteen marks of RFC 9110 section 5.6.2."""
        assert octets(grammar.TCHAR) == set(b"!#$%&'*+-.^_`|~" + DIGITS + LETTERS)

    def test_field_octets_have_no_control_characters_but_tab(self) -> None:
        """A field value is tab, blank, visible ASCII and everything above 0x7f."""
        assert octets(grammar.FIELD_OCTET) == {9} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100))

    def test_target_octets_are_visible_ascii_less_number_sign(self) -> None:
        """A request target is visible ASCII without «#»."""
        assert octets(grammar.TARGET_OCTET) == set(range(0x21, 0x7F)) - set(b"#")


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            b"a",
            b"a.b",
            b"A-1_~",
            b"a:",
            b"a:1",
            b"a:65535",
            b"127.0.0.1",
            b"[::1]",
            b"[::1]:1",
            b"[::ffff:1.2.3.4]",
            b"%41",
            b"a!$&'()*+,;=b",
        ],
    )
    def test_host_with_or_without_port_matches(self, host: bytes) -> None:
        """A host is a name or an address, with or without a port."""
        assert grammar.HOST.fullmatch(host)

    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b"a%:4",
            b"a%4:1",
            b":",
            b":80",
            b"a:b",
            b"a:-1",
            b"a:123456",
            b"a:1:1",
            b"::1",
            b"[]",
            b"[::1",
            b"::1]",
            b"[::1]1",
            b"[g]",
            b"a b",
            b"a/b",
            b"a?b",
            b"a#b",
            b"u@a",
            b"a\\b",
            b"a\n",
            b"a\r\n",
            b"\xe9",
            b"%",
            b"%4",
            b"%zz",
            b'"a"',
            b"<a>",
        ],
    )
    def test_anything_else_does_not_match(self, host: bytes) -> None:
        """A host has no user, path, blank, line end, quote or broken percent-encoding, and it is not empty."""
        assert not grammar.HOST.fullmatch(host)

    @pytest.mark.parametrize("host", [b"a", b"127.0.0.1", b"[::1]"], ids=bytes.decode)
    def test_ports_are_those_that_there_are(self, host: bytes) -> None:
        """A port without leading zeros matches exactly when it is one of 0 to 65535."""
        matching = [port for port in range(100_001) if grammar.HOST.fullmatch(b"%b:%d" % (host, port))]
        assert matching == list(range(65_536))

    @pytest.mark.parametrize(
        ("port", "matches"),
        [
            (b"", True),
            (b"00000", True),
            (b"00080", True),
            (b"09999", True),
            (b"000080", False),
            (b"065535", False),
            (b"0000000443", False),
            (b"65536", False),
            (b"65540", False),
            (b"66000", False),
            (b"70000", False),
            (b"99999", False),
            (b"165535", False),
            (b"655350", False),
            (b"+80", False),
            (b"80 ", False),
            (b"8_0", False),
            (b"0x50", False),
            (b"\xb2", False),
        ],
    )
    def test_port_has_five_digits_at_most(self, port: bytes, matches: bool) -> None:
        """A port may be empty or begin with zeros, within five digits."""
        assert bool(grammar.HOST.fullmatch(b"a:" + port)) is matches


class TestNumbers:
    @pytest.mark.parametrize("value", [b"0", b"7", b"007", b"9" * 18])
    def test_content_length_of_digits_matches(self, value: bytes) -> None:
        """A length is one to eighteen digits."""
        assert grammar.CONTENT_LENGTH.fullmatch(value)

    @pytest.mark.parametrize(
        "value", [b"", b"-1", b"+1", b" 1", b"1 ", b"1,1", b"1.0", b"0x1", b"1\n", b"9" * 19, b"\xb2"]
    )
    def test_content_length_of_anything_else_does_not(self, value: bytes) -> None:
        """A length has no sign, blank, line end, point or list, and at most eighteen digits."""
        assert not grammar.CONTENT_LENGTH.fullmatch(value)


class TestBareLineEnds:
    @pytest.mark.parametrize("data", [b"", b"a", b"a\r\n", b"\r\n\r\n", b"a\r", b"\r\na\r"])
    def test_whole_line_ends_are_not_bare(self, data: bytes) -> None:
        """CRLF is not bare, nor is a CR after which nothing has arrived."""
        assert not grammar.BARE_CR_OR_LF.search(data)

    @pytest.mark.parametrize("data", [b"\n", b"a\n", b"\ra", b"\r\r\n", b"\r\n\n", b"\n\r", b"a\r\nb\nc"])
    def test_bare_line_ends_are_found(self, data: bytes) -> None:
        """An LF without its CR and a CR without its LF are found."""
        assert grammar.BARE_CR_OR_LF.search(data)


class TestMethodSoFar:
    @pytest.mark.parametrize("data", [b"G", b"GET", b"GET ", b"GET /", b"M" * 32, b"M" * 32 + b" "])
    def test_beginning_of_a_method_matches(self, data: bytes) -> None:
        """As much of a method as has come is accepted."""
        assert grammar.METHOD_SO_FAR.match(data)

    @pytest.mark.parametrize("data", [b"", b" ", b"G\t", b"G\r", b"G\n", b"M" * 33, b"\x16", b"(", b"GET\0"])
    def test_anything_else_does_not(self, data: bytes) -> None:
        """What can no longer become a method is not."""
        assert not grammar.METHOD_SO_FAR.match(data)


class TestCost:
    @pytest.mark.parametrize(
        ("pattern", "data"),
        [
            (grammar.REQUEST_HEAD, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\0"),
            (grammar.REQUEST_HEAD, b"GET " + b"/" * 60_000 + b"\0"),
            (grammar.RESPONSE_HEAD, b"HTTP/1.1 200 " + b" " * 60_000 + b"\0"),
            (grammar.FIELD_SECTION, b"a:" + b" \t" * 30_000 + b"\0"),
            (grammar.FIELD_SECTION, b"a" * 60_000),
            (grammar.CHUNK_LINE, b"1" + b" \t" * 30_000 + b"\r\n"),
            (grammar.CHUNK_LINE, b"1;" + b";" * 60_000 + b"\0"),
            (grammar.HOST, b"%41a" * 15_000 + b"%"),
            (grammar.HOST, b"[" + b":" * 60_000),
            (grammar.BARE_CR_OR_LF, b"\r\n" * 30_000),
        ],
    )
    def test_no_input_makes_a_pattern_backtrack(self, pattern: re.Pattern[bytes], data: bytes) -> None:
        """A match costs time in proportion to its input, whatever that is."""
        started_at = time.process_time()
        pattern.fullmatch(data)
        assert time.process_time() - started_at < 0.1
