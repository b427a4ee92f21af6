"""`sidecar.config.units`: texts to values and back."""

from __future__ import annotations

import base64
import enum
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import units
from sidecar.config.units import UnitError
from sidecar.settings import AccessLogFormat, IdentityDialect, Inline, LogLevel, Password, TlsPolicy

PARSERS: list[Callable[[str], Any]] = [
    units.parse_duration,
    units.parse_size,
    units.parse_count,
    units.parse_path,
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


class TestStructure:
    def test_list_is_kept_as_json(self) -> None:
        """The file's list and a variable's JSON are the same text."""
        assert units.parse_structure("rules", '[ {"path": "/a"} ]') == '[{"path":"/a"}]'
        assert units.parse_structure("rules", "none") == ""

    @pytest.mark.parametrize("text", ["{}", "/rules.json", "[", "[" * 100_000, "443"])
    def test_anything_else_is_refused(self, text: str) -> None:
        """Also what would exhaust the stack."""
        with pytest.raises(UnitError, match="not a list of clusters"):
            units.parse_structure("clusters", text)

    def test_nesting_is_bounded(self) -> None:
        """Sixteen levels are read, one more is refused, as in a file."""
        units.parse_structure("clusters", "[" * 16 + "]" * 16)
        with pytest.raises(UnitError, match="nested deeper than 16 levels"):
            units.parse_structure("clusters", "[" * 16 + "{}" + "]" * 16)

    def test_key_that_stands_twice_is_refused(self) -> None:
        """The second would silently win."""
        with pytest.raises(UnitError, match="the key 'path' stands twice"):
            units.parse_structure("rules", '[{"path": "/a", "client_cert": "required", "path": "/b"}]')

    @pytest.mark.parametrize(
        "encode",
        [str, lambda pem: pem.replace("\n", "\\n"), *(lambda pem, i=i: encoded(" " * i + pem) for i in range(3))],
        ids=["PEM", "escaped", "base64", "base64 after one", "base64 after two"],
    )
    def test_private_key_inside_is_refused_and_not_shown(self, encode: Callable[[str], str]) -> None:
        """Structures are shown in full, so a key must not be in them, in whatever form."""
        pem = "-----BEGIN EC PRIVATE KEY-----\nMIIEsecret\n-----END EC PRIVATE KEY-----\n"
        with pytest.raises(UnitError, match="a private key stands in it") as caught:
            units.parse_structure("clusters", json.dumps([{"name": "a", "tls": {"key": encode(pem)}}]))
        assert "MII" not in str(caught.value)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
