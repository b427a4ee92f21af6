"""`sidecar.policy.matchers`: the language in which operators say which certificates they mean."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy import matchers
from sidecar.policy.identity import PeerIdentity
from sidecar.policy.matchers import DEEPEST, LONGEST_TEXT, MOST_TERMS, NOBODY, Matcher, MatcherError, any_of

WEB = PeerIdentity(
    dns=("web.example.org", "web.internal"),
    uri=("spiffe://prod/ns/shop/sa/web",),
    ip=("10.1.2.3",),
    common_names=("web",),
    organizational_units=("shop", "payments"),
    organizations=("Acme, Inc.",),
    subject=r"CN=web,OU=shop,OU=payments,O=Acme\, Inc.",
    issuer="CN=Acme CA",
    serial="a1b",
    sha256="ab" * 32,
    spki_sha256="cd" * 32,
    purposes=("clientAuth",),
    not_before=0.0,
    not_after=1.0,
)
BARE = PeerIdentity(subject="", issuer="", serial="", sha256="", spki_sha256="", not_before=0.0, not_after=1.0)


def who(**names: tuple[str, ...]) -> PeerIdentity:
    """A certificate that has these names and no others."""
    return attrs.evolve(BARE, **names)


def matches(text: str, identity: PeerIdentity = WEB) -> bool:
    return matchers.compile(text).matches(identity)


def may_match(text: str, identity: PeerIdentity) -> bool:
    return matchers.compile(text).may_match(identity)


class TestMatches:
    @pytest.mark.parametrize(
        "text",
        [
            "dns=*.example.org",
            "DNS = web.internal",
            "uri=spiffe://prod/ns/*/sa/web",
            "ip=10.0.0.0/8",
            "cn=web",
            "ou=payments",
            'o="Acme, Inc."',
            r'subject="CN=web,OU=*,OU=*,O=Acme\\, Inc."',
            'issuer="CN=Acme CA"',
            "serial=0A:1B",
            "sha256=" + ":".join(["AB"] * 32),
            "spki=" + "cd" * 32,
            "eku=clientAuth",
            "cn=other, cn=web",
            "cn=other,\n  any(ou=none, dns=web.internal)",
            "all(ou=shop, ou=payments, not(cn=old))",
            'all(o="Acme*", not(any(cn=old, cn="older, still")))',
            "not(not(cn=web))",
        ],
    )
    def test_certificate_that_fits_one_term_matches(self, text: str) -> None:
        """The list at the top is an any; a term is true if one name of its kind fits."""
        assert matches(text)

    @pytest.mark.parametrize(
        "text",
        [
            "cn=Web",
            "email=*@example.org",
            "dns=example.org, cn=other",
            "all(ou=shop, cn=other)",
            "all(ou=shop, not(ou=payments))",
            "not(cn=web)",
            "not(any(cn=old, ou=shop))",
            "eku=serverAuth",
        ],
    )
    def test_certificate_that_fits_none_does_not(self, text: str) -> None:
        """A certificate that no term is true of does not match."""
        assert not matches(text)

    def test_literal_asterisk_is_no_wildcard(self) -> None:
        """A `*` behind a backslash in quotes is that character."""
        assert matches(r'cn="a\*b"', who(common_names=("a*b",)))
        assert not matches(r'cn="a\*b"', who(common_names=("axb",)))

    def test_characters_that_look_alike_are_different(self) -> None:
        """Names are compared by code points: no Cyrillic letter passes for a Latin one, composed or not."""
        assert not matches("cn=web", who(common_names=("w\u0435b",)))
        assert not matches('cn="\u00e9"', who(common_names=("e\u0301",)))


class TestNot:
    @pytest.mark.parametrize(
        "text",
        [
            "not(dns=old.example.org)",
            "not(cn=old)",
            "not(eku=serverAuth)",
            'not(subject="CN=old")',
            "not(serial=ff)",
            "all(uri=spiffe://prod/**, not(cn=old))",
            "not(all(uri=spiffe://prod/**, cn=old))",
            "not(not(not(cn=old)))",
            "not(any(dns=a, cn=old))",
        ],
    )
    def test_what_is_not_said_matches_no_negation(self, text: str) -> None:
        """A certificate without a name of that kind is not let in because it lacks the wrong one."""
        assert not matches(text, who(uri=("spiffe://prod/x",)))

    def test_negation_holds_if_another_part_decides(self) -> None:
        """A negation is not in doubt where a name that is there makes it true."""
        assert matches("not(all(uri=spiffe://other/**, cn=old))", who(uri=("spiffe://prod/x",)))

    def test_one_name_that_cannot_be_compared_spoils_the_negation(self) -> None:
        """A name with a control character is not told from the one that is excluded."""
        assert not matches("not(cn=old)", who(common_names=("new", "old\0")))

    def test_list_that_refuses_turns_doubt_round(self) -> None:
        """A deny list with a negation refuses who does not say that he is excepted."""
        assert may_match("not(ou=payments)", who(common_names=("a",)))
        assert not may_match("not(ou=payments)", WEB)


class TestMayMatch:
    def test_missing_name_is_not_the_denied_one(self) -> None:
        """A certificate without a common name is not refused for having the wrong one."""
        assert not may_match("cn=old, dns=old.example.org", who(uri=("spiffe://prod/x",)))

    @pytest.mark.parametrize("name", ["old\0", "old\0.example.org", "\r\n", "new\x1b"])
    def test_name_that_cannot_be_compared_is_refused(self, name: str) -> None:
        """A name with a control character might be shown as the denied one anywhere, so it is denied."""
        assert may_match("cn=old", who(common_names=(name,)))
        assert not matches("cn=old, cn=*", who(common_names=(name,)))

    def test_tainted_name_of_another_kind_does_not_matter(self) -> None:
        """A deny list is about the kinds of names that it lists."""
        assert not may_match("cn=old", who(organizations=("a\0",), common_names=("new",)))

    def test_nul_in_a_subject_is_seen_as_escaped(self) -> None:
        """In a distinguished name, NUL is written as an escape, and taints it all the same."""
        identity = attrs.evolve(BARE, subject=r"CN=web\00.evil")
        assert not matches('subject="CN=*"', identity)
        assert may_match('subject="CN=web"', identity)


class TestName:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("dns=*.internal", "web.internal"),
            ("uri=spiffe://other/**, cn=web", "web"),
            ("all(ou=shop, uri=spiffe://prod/**)", "spiffe://prod/ns/shop/sa/web"),
            ("any(cn=other, any(dns=web.*))", "web.internal"),
            ("ou=shop, cn=web", None),
            ("sha256=" + "ab" * 32, None),
            ("not(cn=old)", None),
            ("cn=old", None),
        ],
    )
    def test_name_is_the_one_that_matched(self, text: str, name: str | None) -> None:
        """The name that the first true term is about, if it tells its holder from others."""
        assert matchers.compile(text).name(WEB) == name


class TestEmptyMatcher:
    @pytest.mark.parametrize("text", ["", "  ", "\n\t"])
    def test_matches_nobody_and_says_so(self, text: str) -> None:
        """A list without terms lets nobody in, refuses nobody, and says whom it matches."""
        matcher = matchers.compile(text)
        assert matcher == NOBODY
        assert not matcher.matches(WEB)
        assert not matcher.may_match(WEB)
        assert str(matcher) == ""
        assert "nobody" in matcher.description


class TestCompile:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("DNS = *.Example.org ,cn=a", "dns=*.example.org, cn=a"),
            ("ALL( ou=a ,NOT(cn=b) )", "all(ou=a, not(cn=b))"),
            ('cn="web"', "cn=web"),
            ("cn=old client", 'cn="old client"'),
            (r'cn="a\"b\\c\*d*"', r'cn="a\"b\\c\*d*"'),
            ('subject="CN=a"', 'subject="CN=a"'),
            ("serial=00:0A", "serial=a"),
        ],
    )
    def test_text_becomes_canonical(self, text: str, canonical: str) -> None:
        """Every spelling of a matcher has one canonical text, which compiles to the same."""
        assert str(matchers.compile(text)) == canonical
        assert matchers.compile(canonical) == matchers.compile(text)
        assert matchers.compile(text).description == canonical

    @pytest.mark.parametrize(
        ("text", "position", "hint"),
        [
            ("dsn=a", 0, "did you mean dns?"),
            ("cn=a, spiffe=b", 6, "did you mean uri?"),
            ("fingerprint=ab", 0, "did you mean sha256?"),
            ("zzzzzz=a", 0, "expected one of dns, uri"),
            ("alll(cn=a)", 0, "expected all(…), any(…) or not(…)"),
            ("cn=a,", 5, "there is no term"),
            (",cn=a", 0, "there is no term"),
            ("cn=a,,cn=b", 5, "there is no term"),
            ("all()", 4, "there is no term"),
            ("any(", 4, "there is no term"),
            ("all(cn=a", 8, "expected , or )"),
            ("all(cn=a, (cn=b))", 10, "brackets stand behind nothing"),
            ("cn=a)", 4, "closed that was not opened"),
            ("not(cn=a, cn=b)", 0, "write not(any(…))"),
            ("cn", 2, "as in cn=VALUE"),
            ("cn a", 3, "as in cn=VALUE"),
            ("cn=", 3, "there is no value"),
            ('cn=""', 3, "there is no value"),
            ("cn= , dns=a", 4, "there is no value"),
            ("not cn=a", 4, "write not(…)"),
            ("any", 3, "write any(…)"),
            ("cn=a ou=b", 7, "a comma before the next term"),
            ("cn=a(b)", 4, "put the value in double quotes"),
            ('cn=a"b', 4, "put the value in double quotes"),
            ("cn=a\\,b", 4, "put the value in double quotes"),
            ('cn="a', 3, 'expected " at the end'),
            ('cn="a\\', 3, 'expected " at the end'),
            ('cn="a" b', 7, "closed"),
            (r'cn="a\n"', 5, r"expected \", \\ or \*"),
            ("cn=a\x00b", 4, "control character"),
            ('cn="a\nb"', 3, "control character"),
            (r'subject="CN=a\\00b"', 8, "control character"),
            ("subject=CN=a,O=b", 8, 'expected subject="…"'),
            ("ip=10.*", 3, "ip has no wildcards"),
            ("ip=10.0.0.1/8", 3, "write 10.0.0.0/8"),
            ("cn=a, dns=a..b", 10, "dns: this is not a host name"),
        ],
    )
    def test_mistake_is_shown_where_it_is(self, text: str, position: int, hint: str) -> None:
        """An error has the place, shows the text with a caret below it, and says what was expected."""
        with pytest.raises(MatcherError) as caught:
            matchers.compile(text)
        error = caught.value
        assert error.position == position
        message, shown, caret = str(error).split("\n")
        assert hint in message
        assert message == f"{error.fact}; {error.fix}"
        assert f"at character {position + 1}:" in error.fact
        assert caret.index("^") == len("  ") + position
        assert len(shown) == len("  ") + len(text)

    def test_long_text_is_shown_around_the_place(self) -> None:
        """Of a long text, only the surroundings of the mistake are shown."""
        with pytest.raises(MatcherError) as caught:
            matchers.compile("cn=a, " * 100 + "dsn=b, " + "cn=a, " * 99)
        shown, caret = caught.value.excerpt.split("\n")
        assert len(shown) < 110
        assert shown[caret.index("^") :].startswith("dsn=b")

    def test_key_material_is_not_shown(self) -> None:
        """Whoever puts a key where a matcher belongs does not find it in the log."""
        with pytest.raises(MatcherError) as caught:
            matchers.compile("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw")
        assert "MC4C" not in str(caught.value)

    def test_depth_is_bounded(self) -> None:
        """Brackets nest as deep as the limit, and not one level deeper."""
        assert matches("any(" * DEEPEST + "cn=web" + ")" * DEEPEST)
        with pytest.raises(MatcherError, match="deeper than 8 levels"):
            matchers.compile("not(" * (DEEPEST + 1) + "cn=web" + ")" * (DEEPEST + 1))

    def test_depth_is_that_of_one_branch(self) -> None:
        """Brackets beside each other are not nested."""
        assert matches(", ".join(["any(cn=web)"] * (DEEPEST + 1)))

    def test_terms_are_bounded(self) -> None:
        """As many terms as the limit are taken, one more is not."""
        assert matches(",".join(["cn=a"] * (MOST_TERMS - 1) + ["cn=web"]))
        with pytest.raises(MatcherError, match="more than 1,000 terms"):
            matchers.compile(",".join(["cn=a"] * (MOST_TERMS + 1)))

    def test_length_is_bounded(self) -> None:
        """A text as long as the limit is taken, one character more is not."""
        text = "cn=" + "a" * (LONGEST_TEXT - 3)
        assert matchers.compile(text)
        with pytest.raises(MatcherError, match=f"65,537 characters, limit {LONGEST_TEXT:,}"):
            matchers.compile(text + "a")


# Values of each field that compile, chosen to be awkward to write.
VALUES = {
    "dns": st.sampled_from(["a", "*.example.org", "x-*.b"]),
    "uri": st.sampled_from(["spiffe://a/b", "spiffe://a/*/c/**", "https://a/x,y(z)?q=1", "urn:a"]),
    "email": st.sampled_from(["a@b", "*@b.example"]),
    "ip": st.sampled_from(["10.0.0.0/8", "::1", "192.0.2.1"]),
    "cn": st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
    "o": st.text('ab ,()="*', min_size=1, max_size=8),
    "subject": st.sampled_from(["CN=a", "CN=a,O=*", 'CN=a\\"b', "CN=a+OU=b,O=c\\,d"]),
    "serial": st.sampled_from(["0", "ff"]),
    "spki": st.just("ab" * 32),
    "eku": st.sampled_from(["clientAuth", "1.2.3"]),
}


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


term_texts = st.sampled_from(sorted(VALUES)).flatmap(
    lambda field: VALUES[field].map(lambda value: f"{field}={_quoted(value)}")
)
node_texts = st.recursive(
    term_texts,
    lambda inner: st.one_of(
        inner.map("not({})".format),
        st.lists(inner, min_size=1, max_size=3).map(lambda terms: f"any({','.join(terms)})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda terms: f"all( {' , '.join(terms)} )"),
    ),
    max_leaves=6,
)
texts = st.lists(node_texts, max_size=3).map(", ".join)

names = st.lists(st.sampled_from(["a", "b", "x", "a\0", "", "*"]), max_size=2).map(tuple)
identities = st.builds(who, dns=names, common_names=names, organizations=names, uri=names)


class TestProperties:
    @settings(deadline=None)
    @given(texts)
    def test_canonical_text_is_a_round_trip(self, text: str) -> None:
        """The canonical text of any matcher compiles to an equal one, whose text is the same."""
        matcher = matchers.compile(text)
        assert matchers.compile(str(matcher)) == matcher
        assert str(matchers.compile(str(matcher))) == str(matcher)

    @settings(deadline=None)
    @given(texts, identities)
    def test_whoever_matches_may_match(self, text: str, identity: PeerIdentity) -> None:
        """Nobody is let in by a list that would not refuse him as a deny list."""
        matcher = matchers.compile(text)
        assert not matcher.matches(identity) or matcher.may_match(identity)

    @settings(deadline=None)
    @given(texts, identities)
    def test_nobody_matches_a_matcher_and_its_negation(self, text: str, identity: PeerIdentity) -> None:
        """A certificate is let in by a matcher, by its opposite, or by neither."""
        matcher = matchers.compile(text)
        if matcher.terms:
            opposite = matchers.compile(f"not(any({matcher}))")
            assert not (matcher.matches(identity) and opposite.matches(identity))

    @settings(deadline=None)
    @given(st.text('abcn=*",()\\ \n\0dnsotl', max_size=30))
    def test_any_text_compiles_or_is_our_error(self, text: str) -> None:
        """Whatever an operator writes is a matcher or a `MatcherError` within the text."""
        assert 0 <= _mistake_in(text) <= len(text)


def _mistake_in(text: str) -> int:
    try:
        assert isinstance(matchers.compile(text), Matcher)
    except MatcherError as error:
        return error.position
    return 0


class TestAnyOf:
    def test_lists_are_joined(self) -> None:
        """Several texts are as one with commas between them; none at all is nobody."""
        assert any_of(map(matchers.compile, ["cn=a, cn=b", "ou=c"])) == matchers.compile("cn=a, cn=b, ou=c")
        assert any_of([]) == NOBODY
