"""`sidecar.policy.domains`: domain patterns, and which of them a host belongs to."""

from __future__ import annotations

import pytest

from sidecar.policy.conditions import ConditionError, plain_host
from sidecar.policy.domains import LONGEST_NAME, DomainTable, check_domain, check_host


def table(*domains: str) -> DomainTable[str]:
    """A table in which each domain is its own value."""
    return DomainTable.of({check_domain(domain): domain for domain in domains})


class TestFind:
    @pytest.mark.parametrize(
        ("domains", "host", "found"),
        [
            (("a.b.example", "*.b.example", "a.b.*", "*"), "a.b.example", "a.b.example"),
            (("*.example", "*.b.example", "a.b.*", "*"), "a.b.example", "*.b.example"),
            (("a.*", "a.b.*", "*"), "a.b.example", "a.b.*"),
            (("*.example", "a.b.*"), "a.b.example", "*.example"),
            (("a.example", "*"), "b.example", "*"),
            (("a.example",), "b.example", None),
            (("*.example",), "x.y.z.example", "*.example"),
            (("*.example",), "example", None),
            (("*.example",), ".example", None),
            (("*.example",), "anexample", None),
            (("example.*",), "example", None),
            (("example.*",), "example.", None),
            (("example.*",), "example.co.uk", "example.*"),
            (("example.*",), "examples.org", None),
            (("*.example", "example.*", "*"), "", "*"),
            (("*.example", "example.*"), "", None),
            (("API.Example",), "api.example", "API.Example"),
            (("[2001:DB8:0::1]",), "2001:db8::1", "[2001:DB8:0::1]"),
            (("192.0.2.1",), "192.0.2.1", "192.0.2.1"),
        ],
    )
    def test_host_belongs_to_the_domain_that_fits_best(
        self, domains: tuple[str, ...], host: str, found: str | None
    ) -> None:
        """The whole name comes first, then the longest suffix, then the longest prefix, then the star."""
        assert table(*domains).find(host) == found
        assert table(*reversed(domains)).find(host) == found

    @pytest.mark.parametrize("host", [b"A.example", b"a.example:8443", b"a.example.", b"a.EXAMPLE.:1"])
    def test_spellings_of_a_host_belong_to_one_domain(self, host: bytes) -> None:
        """What `plain_host` makes of an authority is what the table compares with."""
        assert table("a.example").find(plain_host(host)) == "a.example"

    @pytest.mark.parametrize(
        ("domains", "result"), [(("*",), True), ((), True), (("*", "a"), False), (("*.a",), False), (("a.*",), False)]
    )
    def test_whether_hosts_make_a_difference_is_known(self, domains: tuple[str, ...], result: bool) -> None:
        """Without a domain but the star nobody needs to look at hosts."""
        assert table(*domains).is_for_any is result


class TestCheckDomain:
    @pytest.mark.parametrize(
        ("pattern", "hint"),
        [
            ("", "is no host"),
            ("a.example:443", "without scheme, port and path"),
            ("https://a.example", "without scheme, port and path"),
            ("a.example/x", "without scheme, port and path"),
            ("a..example", "is no host"),
            (".example", "is no host"),
            ("a.example.", "leave it out"),
            ("*.", "is no host"),
            (".*", "is no host"),
            ("*example.org", "* where none can be"),
            ("a.*.example", "* where none can be"),
            ("*.a.*", "* where none can be"),
            ("**", "* where none can be"),
            ("*.*", "* where none can be"),
            ("bücher.example", "begins with xn--"),
            ("\u212aelvin.example", "begins with xn--"),
            ("a\n.example", "is no host"),
            ("a b", "is no host"),
            ("fe80::1%eth0", "is no host"),
            ("[::1", "is no host"),
            ("[192.0.2.1]", "is no host"),
            (f"{'a' * 64}.example", "is no host"),
        ],
    )
    def test_what_no_host_belongs_to_is_refused(self, pattern: str, hint: str) -> None:
        """A pattern that no host could fit is an error, on one line, that says what to write."""
        with pytest.raises(ConditionError, match=r"\A[ -~…]+\Z") as caught:
            check_domain(pattern)
        assert hint in str(caught.value)

    def test_names_are_bounded(self) -> None:
        """A name as long as the DNS allows is taken, one character more is not."""
        longest = ".".join(["a" * 49] * 5)[:LONGEST_NAME].ljust(LONGEST_NAME, "b")
        assert check_domain(longest) == longest
        with pytest.raises(ConditionError, match="254 characters, limit 253"):
            check_domain(longest + "b")


class TestCheckHost:
    @pytest.mark.parametrize("text", ["*", "*.example", "example.*"])
    def test_host_has_no_wildcards(self, text: str) -> None:
        """Where one host is meant, a pattern is an error."""
        with pytest.raises(ConditionError):
            check_host(text)
