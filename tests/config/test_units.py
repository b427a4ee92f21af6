"""`sidecar.config.units`: texts to values and back."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import units
from sidecar.config.units import UnitError
from sidecar.settings import AccessLogFormat, HostPort, IdentityDialect, Inline, LogLevel, Password, TlsPolicy, UnixPath

PARSERS: list[Callable[[str], Any]] = [
    units.parse_duration,
    units.parse_size,
    units.parse_count,
    units.parse_path,
    units.parse_names,
    units.parse_listener,
    units.parse_optional_listener,
    units.parse_upstream,
    lambda text: units.parse_word(LogLevel, text),
]


class Fruit(enum.Enum):
    APPLE = "apple"
    PEAR = "pear"


class TestEveryParser:
    @given(st.sampled_from(PARSERS), st.text() | st.text("0123456789.:[]/%-*smhKiBunxhtp@,\n\0"))
    def test_any_text_parses_or_is_refused_in_one_line(self, parse: Callable[[str], Any], text: str) -> None:
        """Whatever the text, there is a value or a UnitError whose fact and fix fit on one line."""
        with suppress(UnitError):
            parse(text)
            return
        with pytest.raises(UnitError) as caught:
            parse(text)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("parse", PARSERS)
    def test_private_key_in_the_text_is_not_shown(self, parse: Callable[[str], Any]) -> None:
        """A refusal never shows PEM text, whichever setting it was given for."""
        with pytest.raises(UnitError) as caught:
            parse("-----BEGIN PRIVATE KEY-----\nMIIEsecret\n-----END PRIVATE KEY-----")

        assert "MIIE" not in str(caught.value)
        assert "BEGIN" not in str(caught.value)

    def test_long_text_is_shortened_in_the_fact(self) -> None:
        """A fact shows at most the beginning of a long text."""
        with pytest.raises(UnitError) as caught:
            units.parse_duration("x" * 10_000)

        assert len(caught.value.fact) < 120


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("0", 0.0),
            ("10", 10.0),
            ("10s", 10.0),
            ("500ms", 0.5),
            ("1.5s", 1.5),
            ("0.25", 0.25),
            ("0.5m", 30.0),
            ("2m", 120.0),
            ("1h", 3600.0),
            ("24h", 86400.0),
            ("86400000ms", 86400.0),
        ],
    )
    def test_documented_form_is_read(self, text: str, seconds: float) -> None:
        """A number is seconds; ms, s, m and h are units; fractions are allowed."""
        assert units.parse_duration(text) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "-5",
            "+5",
            "1e3",
            "inf",
            "nan",
            "1_000",
            "1,5",
            ".5",
            "5.",
            "5 s",
            "5S",
            "5sec",
            "0x10",
            "\u0665",
            "s",
            "1:30",
        ],
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """Signs, exponents, infinities, separators, blanks and other units are refused."""
        with pytest.raises(UnitError, match="is not a duration"):
            units.parse_duration(text)

    @pytest.mark.parametrize("text", ["86401", "24.001h", "86400001ms", "999999999h"])
    def test_over_a_day_is_refused(self, text: str) -> None:
        """More than 24 hours is refused."""
        with pytest.raises(UnitError, match="longer than 24h"):
            units.parse_duration(text)

    def test_part_of_a_millisecond_is_refused(self) -> None:
        """The clock's grain is a millisecond, and what is finer is refused instead of rounded."""
        with pytest.raises(UnitError, match="finer than a millisecond"):
            units.parse_duration("0.5ms")

    @given(st.integers(0, 86_400_000))
    def test_canonical_text_reads_back(self, milliseconds: int) -> None:
        """The canonical text of a duration parses to that duration."""
        value = units.Seconds(milliseconds / 1000)

        assert units.parse_duration(units.duration_text(value)) == value

    def test_canonical_text_uses_seconds_where_whole(self) -> None:
        """A duration is shown in seconds, or in milliseconds if it has to be."""
        assert units.duration_text(units.Seconds(75.0)) == "75s"
        assert units.duration_text(units.Seconds(1.5)) == "1500ms"


class TestSize:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("61440", 61440),
            ("1B", 1),
            ("60KiB", 61440),
            ("60 KiB", 61440),
            ("1MiB", 2**20),
            ("1024GiB", 2**40),
        ],
    )
    def test_documented_form_is_read(self, text: str, size: int) -> None:
        """A number is bytes; B, KiB, MiB and GiB are units."""
        assert units.parse_size(text) == size

    @pytest.mark.parametrize(
        ("text", "suggestion"), [("60KB", "60KiB"), ("60k", "60KiB"), ("60kib", "60KiB"), ("1mb", "1MiB"), ("5b", "5B")]
    )
    def test_ambiguous_unit_is_refused_with_a_suggestion(self, text: str, suggestion: str) -> None:
        """A unit that may mean 1000 or 1024 is refused, and the fix is the text to write."""
        with pytest.raises(UnitError) as caught:
            units.parse_size(text)

        assert caught.value.fix == f"write {suggestion}"

    @pytest.mark.parametrize(
        "text", ["", "-1", "1.5KiB", "1e3", "KiB", "1  KiB", "5XB", "9999999999999", "1025GiB", "٣"]
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """Signs, fractions, exponents, unknown units and more than 1 TiB are refused."""
        with pytest.raises(UnitError):
            units.parse_size(text)

    @given(st.integers(0, 2**40) | st.integers(0, 1024).map(lambda n: n * 2**20))
    def test_canonical_text_reads_back(self, size: int) -> None:
        """The canonical text of a size parses to that size."""
        assert units.parse_size(units.size_text(units.ByteCount(size))) == size


class TestCount:
    @pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1_000", "10,000", "0x10", "²", "1" * 13])
    def test_anything_but_digits_is_refused(self, text: str) -> None:
        """A count is ASCII digits, and not many."""
        with pytest.raises(UnitError, match="is not a whole number"):
            units.parse_count(text)

    @given(st.integers(0, 10**12 - 1))
    def test_canonical_text_reads_back(self, number: int) -> None:
        """The text of a count parses to that count."""
        assert units.parse_count(str(number)) == number


class TestWord:
    def test_unknown_word_names_the_allowed_and_the_nearest(self) -> None:
        """An unknown word is refused with all allowed ones and the one that was probably meant."""
        with pytest.raises(UnitError) as caught:
            units.parse_word(LogLevel, "warning")

        assert caught.value.fact == "'warning' is not one of debug, info, warn, error"
        assert caught.value.fix == "did you mean warn?"

    def test_word_like_no_other_gets_the_list_as_fix(self) -> None:
        """Without a near word the fix lists the allowed ones."""
        with pytest.raises(UnitError) as caught:
            units.parse_word(Fruit, "12")

        assert caught.value.fix == "write apple or pear"

    @pytest.mark.parametrize("word", list(AccessLogFormat))
    def test_upper_case_is_read_too(self, word: AccessLogFormat) -> None:
        """Case does not count."""
        assert units.parse_word(AccessLogFormat, word.value.upper()) is word


class TestPath:
    def test_none_is_no_path(self) -> None:
        """`none`, as the documentation writes the default, is no path."""
        assert units.parse_path("none") is None
        assert units.source_text(units.parse_source("none")) == "none"
        assert units.sources_text(units.parse_sources("none")) == "none"

    @pytest.mark.parametrize("text", ["a\nb", "a\0b", "\x1b[2J", "a\x7f", "\ud800"])
    def test_text_that_breaks_messages_or_calls_is_refused(self, text: str) -> None:
        """Control characters and what the file system cannot encode are refused."""
        with pytest.raises(UnitError):
            units.parse_path(text)

    @pytest.mark.parametrize("text", ["/etc/tls", "none.pem", "./none", "a b", "ü", "\udcff"])
    def test_canonical_text_reads_back(self, text: str) -> None:
        """The canonical text of a path parses to that path, also of a file named none."""
        assert units.parse_source(units.source_text(Path(text))) == Path(text)


PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
BASE64 = "MIIB" + "a" * 80


class TestSource:
    @pytest.mark.parametrize(
        "text",
        [PEM, PEM.replace("\n", "\\n"), BASE64, "LS0tLS1CRUdJTi" + "a" * 80, '{"key": "x"}', '[{"key": "x"}]'],
        ids=["PEM", "escaped PEM", "base64 of DER", "base64 of PEM", "JSON", "JSON list"],
    )
    def test_material_itself_is_no_path(self, text: str) -> None:
        """What secret managers put into a variable is taken as it is, and never shown."""
        assert units.parse_source(text) == Inline(text)
        assert units.parse_sources(text) == (Inline(text),)
        assert "MII" not in repr(units.parse_source(text))
        assert units.source_text(Inline(text)) == "***"

    @pytest.mark.parametrize("text", ["/certs", "certs/tls.crt", "MIIB", "./MII" + "a" * 99, "LS0t", "a b.pem"])
    def test_anything_else_is_a_path(self, text: str) -> None:
        """Short and odd names are files."""
        assert units.parse_source(text) == Path(text)

    def test_several_paths_are_separated_by_commas(self) -> None:
        """Several certificates are several paths."""
        assert units.parse_sources("/a, /b,,c") == (Path("/a"), Path("/b"), Path("c"))


class TestPassword:
    @pytest.mark.parametrize("text", ["/run/secrets/p", "./p", "../p"])
    def test_path_is_a_file(self, text: str) -> None:
        """A path is told by how it begins."""
        assert units.parse_password(text) == Password(Path(text))

    @pytest.mark.parametrize("text", ["changeit", "a/b", ".hidden", "~/x", "-----BEGIN"])
    def test_anything_else_is_the_password(self, text: str) -> None:
        """Passwords have no form; they are never shown."""
        password = units.parse_password(text)
        assert password == Password(Inline(text))
        assert text not in repr(password)
        assert units.password_text(password) == "***"


class TestTlsPolicy:
    @pytest.mark.parametrize(
        ("text", "policy"),
        [
            ("modern", TlsPolicy.MODERN),
            ("Mozilla-Intermediate", TlsPolicy.INTERMEDIATE),
            ("ELBSecurityPolicy-TLS13-1-3-2021-06", TlsPolicy.MODERN),
            ("elbsecuritypolicy-tls13-1-2-res-2021-06", TlsPolicy.INTERMEDIATE),
            ("ELBSecurityPolicy-TLS13-1-2-2021-06", TlsPolicy.INTERMEDIATE),
        ],
    )
    def test_names_that_people_know_are_read(self, text: str, policy: TlsPolicy) -> None:
        """The names of others stand for what ours mean."""
        assert units.parse_tls_policy(text) is policy

    @pytest.mark.parametrize("text", ["old", "ELBSecurityPolicy-2016-08", "ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04"])
    def test_weaker_policy_is_refused_in_words(self, text: str) -> None:
        """Who asks for what is not served is told so, rather than given something else."""
        with pytest.raises(UnitError, match="not served here"):
            units.parse_tls_policy(text)

    def test_slip_is_guessed(self) -> None:
        """As for every other word."""
        with pytest.raises(UnitError, match="did you mean intermediate"):
            units.parse_tls_policy("intermidiate")


class TestWords:
    def test_several_words_are_read_once_each(self) -> None:
        """A list of known words; `none` is none of them."""
        dialects = units.parse_words(IdentityDialect, "xfcc, x-ssl,,XFCC")
        assert dialects == (IdentityDialect.XFCC, IdentityDialect.X_SSL)
        assert units.words_text(dialects) == "xfcc,x-ssl"
        assert units.parse_words(IdentityDialect, "none") == ()
        with pytest.raises(UnitError, match="did you mean xfcc"):
            units.parse_words(IdentityDialect, "xfc")


class TestPaths:
    def test_patterns_are_read_in_order_once(self) -> None:
        """What may be exempt."""
        assert units.parse_paths("/service, /static/*,/service") == ("/service", "/static/*")

    @pytest.mark.parametrize("text", ["service", "/a?b", "/*", "/a/../b"])
    def test_what_is_no_path_or_everything_is_refused(self, text: str) -> None:
        """A slip must not exempt nothing, or all."""
        with pytest.raises(UnitError):
            units.parse_paths(text)


class TestMatcher:
    def test_text_is_brought_into_its_canonical_form(self) -> None:
        """What is shown is what is in force."""
        assert units.parse_matcher("dns=a.example ,cn=x") == "dns=a.example, cn=x"
        assert units.parse_matcher("none") == ""

    def test_error_says_where(self) -> None:
        """One line, with the place."""
        with pytest.raises(UnitError, match="at character") as caught:
            units.parse_matcher("dns=a.example, cm=x")
        assert "\n" not in str(caught.value)


class TestRules:
    def test_list_is_kept_as_json(self) -> None:
        """The file's list and a variable's JSON are the same text."""
        assert units.parse_rules('[ {"path": "/a"} ]') == '[{"path":"/a"}]'
        assert units.parse_rules("none") == ""

    @pytest.mark.parametrize("text", ["{}", "/rules.json", "[", "[" * 100_000])
    def test_anything_else_is_refused(self, text: str) -> None:
        """Also what would exhaust the stack."""
        with pytest.raises(UnitError):
            units.parse_rules(text)


class TestNames:
    def test_names_and_addresses_are_read_in_order_once(self) -> None:
        """DNS names come in lower case, addresses in their canonical form, blanks, gaps and repeats go."""
        text = " App.Example, *.example,, 10.0.0.1 ,2001:DB8::0:1,app.example,localhost,"

        assert units.parse_names(text) == ("app.example", "*.example", "10.0.0.1", "2001:db8::1", "localhost")

    @pytest.mark.parametrize(
        "name",
        [
            "a_b.example",
            "-a.example",
            "a-.example",
            "a..example",
            ".example",
            "example.",
            "*",
            "*.",
            "*.*.example",
            "a.*.example",
            "w*.example",
            "10.0.0.256",
            "10.0.0.0/8",
            "[::1]",
            "fe80::1%eth0",
            "münchen.example",
            "https://a.example",
            "a.example:443",
            "a b",
            "x" * 64,
            ".".join(["x" * 63] * 4),
        ],
    )
    def test_invalid_name_is_refused(self, name: str) -> None:
        """What a certificate cannot name is refused, also beside valid names."""
        with pytest.raises(UnitError, match="neither a DNS name nor an IP address"):
            units.parse_names(f"ok.example,{name}")

    def test_longest_name_is_read(self) -> None:
        """253 characters in labels of up to 63 are a name."""
        name = ".".join(["x" * 63, "x" * 63, "x" * 63, "x" * 61])

        assert units.parse_names(name) == (name,)


ADDRESSES = st.builds(
    HostPort,
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
    | st.sampled_from(["localhost", "my_app", "a.example"]),
    st.integers(1, 65535),
)


class TestListener:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:8443", HostPort("127.0.0.1", 8443)),
            ("[::]:443", HostPort("::", 443)),
            ("[2001:DB8::0]:443", HostPort("2001:db8::", 443)),
            ("[fe80::1%eth0]:443", HostPort("fe80::1%eth0", 443)),
            (":443", HostPort("0.0.0.0", 443)),
            ("443", HostPort("0.0.0.0", 443)),
            ("localhost:65535", HostPort("localhost", 65535)),
        ],
    )
    def test_documented_form_is_read(self, text: str, expected: HostPort) -> None:
        """HOST:PORT, with IPv6 in brackets; the host or both host and colon may be missing."""
        assert units.parse_listener(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ":",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "::1:443",
            "[127.0.0.1]:443",
            "[]:443",
            "[::1:443",
            "[::1]443",
            "*:443",
            "b@d:443",
            "10.0.0.256:443",
            "127.1:443",
            "010.0.0.1:443",
            "[fe80::1%a]b]:443",
            "host:-1",
            "host:0443x",
            "host:\uff14\uff14\uff13",
            "https://host:443",
            "host:443/",
        ],
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """A missing port, a wrong host, unbracketed IPv6 and URLs are refused, never read as every address."""
        with pytest.raises(UnitError):
            units.parse_listener(text)

    @pytest.mark.parametrize("port", ["0", "65536", "999999"])
    def test_port_out_of_range_is_refused(self, port: str) -> None:
        """A port is 1 to 65535, with or without a host."""
        for text in (port, f":{port}", f"127.0.0.1:{port}"):
            with pytest.raises(UnitError, match="not within 1 to 65535"):
                units.parse_listener(text)

    def test_unbracketed_ipv6_is_told_about_brackets(self) -> None:
        """The fix for `::1:443` says what is missing."""
        with pytest.raises(UnitError) as caught:
            units.parse_listener("::1:443")

        assert "brackets" in caught.value.fix

    @given(ADDRESSES)
    def test_canonical_text_reads_back(self, address: HostPort) -> None:
        """The canonical text of an address parses to that address."""
        assert units.parse_listener(str(address)) == address

    @given(st.none() | ADDRESSES)
    def test_canonical_text_of_optional_listener_reads_back(self, address: HostPort | None) -> None:
        """The same holds where there may be no listener."""
        assert units.parse_optional_listener(units.optional_listener_text(address)) == address

    def test_off_is_no_listener_and_part_of_the_fix(self) -> None:
        """`off` is no listener, and who writes another word for it is told."""
        with pytest.raises(UnitError) as caught:
            units.parse_optional_listener("none")

        assert caught.value.fix.endswith("or off")
        assert units.parse_optional_listener("OFF") is None


class TestUpstream:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("http://127.0.0.1:8080", HostPort("127.0.0.1", 8080)),
            ("http://127.0.0.1:8080/", HostPort("127.0.0.1", 8080)),
            ("HTTP://my_app", HostPort("my_app", 80)),
            ("http://[::1]", HostPort("::1", 80)),
            ("localhost:3000", HostPort("localhost", 3000)),
            ("unix:/run/app.sock", UnixPath("/run/app.sock")),
            ("unix:/run/a@b://c", UnixPath("/run/a@b://c")),
        ],
    )
    def test_documented_form_is_read(self, text: str, expected: HostPort | UnixPath) -> None:
        """http://HOST with or without a port, HOST:PORT, and unix:/path."""
        assert units.parse_upstream(text) == expected

    def test_https_is_refused_by_name(self) -> None:
        """TLS to the upstream is refused as what it is: not supported in this version."""
        with pytest.raises(UnitError, match="TLS to the upstream is not supported in this version"):
            units.parse_upstream("https://127.0.0.1:8443")

    @pytest.mark.parametrize("text", ["http://user:hunter2@app:80", "user:hunter2@app:80", "https://user:hunter2@app"])
    def test_password_is_refused_and_not_shown(self, text: str) -> None:
        """User information is refused, and the refusal does not repeat it."""
        with pytest.raises(UnitError, match="no place for a user name or password") as caught:
            units.parse_upstream(text)

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "text", ["http://app/path", "http://app:80/?q", "http://app?q", "http://app#f", "http://app//"]
    )
    def test_path_or_query_is_refused(self, text: str) -> None:
        """Requests keep their own path; one in the upstream is refused, not ignored."""
        with pytest.raises(UnitError, match="has a path or query"):
            units.parse_upstream(text)

    @pytest.mark.parametrize(
        "text",
        ["", "app", "8080", ":8080", "http://", "http://:80", "http:app:80", "tcp://app:80", "http://a:0", "//a:80"],
    )
    def test_other_form_is_refused(self, text: str) -> None:
        """A missing host, another scheme and port 0 are refused."""
        with pytest.raises(UnitError):
            units.parse_upstream(text)

    @pytest.mark.parametrize(
        "text", ["unix:", "unix:run/app.sock", "unix:@abstract", "unix:///run/app.sock", "unix:/a\nb"]
    )
    def test_unix_path_that_is_not_absolute_is_refused(self, text: str) -> None:
        """A socket has an absolute path on one line."""
        with pytest.raises(UnitError):
            units.parse_upstream(text)

    def test_unix_url_is_told_the_right_form(self) -> None:
        """The fix for the URL form is the text to write."""
        with pytest.raises(UnitError) as caught:
            units.parse_upstream("unix:///run/app.sock")

        assert caught.value.fix == "write unix:/run/app.sock"

    def test_unix_path_is_bounded_by_the_kernel(self) -> None:
        """107 bytes fit into a socket address, 108 do not."""
        assert units.parse_upstream("unix:/" + "x" * 106) == UnixPath("/" + "x" * 106)
        with pytest.raises(UnitError, match="108 bytes, limit 107"):
            units.parse_upstream("unix:/" + "x" * 107)

    @given(ADDRESSES | st.just(UnixPath("/run/a b.sock")))
    def test_canonical_text_reads_back(self, value: HostPort | UnixPath) -> None:
        """The canonical text of an upstream parses to that upstream."""
        assert units.parse_upstream(units.upstream_text(value)) == value
