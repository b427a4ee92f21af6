"""
Which client certificates are meant: one small language, for variables, files and rules.

A matcher is a list of terms, of which one must match::

    dns=*.example.org, uri=spiffe://prod/ns/*/sa/web, ip=10.0.0.0/8,
    all(ou=payments, not(cn="old, client")), any(spki=6c…, sha256=0A:1B:…)

==============  ==================================================================================================
dns             host name; `*` within a label; no case
uri             URI; `*` within a segment of the path, `/**` at its end for one segment or more; scheme and trust
                domain have no case, the path has one and keeps its percent-encoding
email           `*` within the local part, and within a label of the domain, which has no case
ip              address, or network as 10.0.0.0/8
cn, ou, o       attribute of the subject; exact, but for `*`
subject, issuer the whole name as RFC 4514 writes it, in quotes; `*` within one value
serial          hexadecimal
sha256, spki    fingerprint of the certificate, or of its public key, which stays the same when it is renewed
eku             purpose: clientAuth, serverAuth, … or a dotted number
==============  ==================================================================================================

A value is bare up to the next comma or bracket, or stands in double quotes, in which a backslash makes a quote, a
backslash or a `*` ordinary. A term matches if one of the names of that kind does.

*Not*: a certificate that has no name of a kind does not match ``not(cn=x)``; it says nothing about its cn, and what is
not said matches nothing, negated or not. Neither does one with a name that cannot be compared (see
`patterns.is_tainted`). Lists that refuse turn it round, so that doubt never lets anybody in: see `Matcher.may_match`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from sidecar.errors import SidecarError
from sidecar.policy.identity import PeerIdentity
from sidecar.policy.patterns import FIELDS, WILD, PatternError, Test, Truth, is_tainted
from sidecar.values import Value

LONGEST_TEXT: Final = 64 * 1024
"""Characters. Linux allows a variable 128 KiB."""

MOST_TERMS: Final = 1000
"""Terms of one matcher: each is compared with every name of its kind."""

DEEPEST: Final = 8
"""Levels of brackets. Nobody can read more."""


class MatcherError(SidecarError):
    """
    A text is no matcher. `str` shows it with a caret under the place, on lines of their own.

    Attributes:
        position: Where in the text it is wrong, from 0.
        fact: What is wrong, on one line, with the position counted from 1.
        fix: What was expected.
        excerpt: The text around the place, and below it the caret.
    """

    def __init__(self, text: str, position: int, fact: str, fix: str) -> None:
        self.position = position
        self.fact = f"at character {position + 1}: {fact}"
        self.fix = fix
        self.excerpt = _excerpt(text, position)
        super().__init__(f"{self.fact}; {fix}\n{self.excerpt}")


_EXCERPT_REACH: Final = 50


def _excerpt(text: str, position: int) -> str:
    if "-----BEGIN" in text:
        return "PEM text"  # it might be a key
    start = max(0, position - _EXCERPT_REACH)
    shown = "".join(c if c.isprintable() else " " for c in text[start : position + _EXCERPT_REACH])
    return f"  {shown}\n  {' ' * (position - start)}^"


# -- terms -------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class Term(Value):
    """
    ``field=pattern``.

    Attributes:
        field: A key of `patterns.FIELDS`.
        pattern: Canonical, with `patterns.WILD` for each wildcard.
    """

    field: str
    pattern: str
    _test: Test = attrs.field(eq=False, repr=False)

    def __str__(self) -> str:
        return f"{self.field}={_written(self.field, self.pattern)}"

    def truth(self, identity: PeerIdentity, absent: Truth) -> Truth:
        """Whether one of the names of that kind fits; *absent* if there is none, None if one cannot be compared."""
        names = FIELDS[self.field].values(identity)
        if not names:
            return absent
        result: Truth = False
        for name in names:
            fits = None if is_tainted(name) else self._test(name)
            if fits:
                return True
            if fits is None:
                result = None
        return result

    def name(self, identity: PeerIdentity) -> str | None:
        """The first name that fits, if the field is one that tells its holder from others."""
        field = FIELDS[self.field]
        names = field.values(identity) if field.names_holder else ()
        return next((name for name in names if not is_tainted(name) and self._test(name)), None)


@attrs.frozen(eq=False, repr=False)
class AnyOf(Value):
    """``any(…)``: one of them."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return f"any({', '.join(map(str, self.terms))})"

    def truth(self, identity: PeerIdentity, absent: Truth) -> Truth:
        result: Truth = False
        for term in self.terms:
            truth = term.truth(identity, absent)
            if truth:
                return True
            if truth is None:
                result = None
        return result

    def name(self, identity: PeerIdentity) -> str | None:
        """The name that the first true term is about."""
        return next((term.name(identity) for term in self.terms if term.truth(identity, None)), None)


@attrs.frozen(eq=False, repr=False)
class AllOf(Value):
    """``all(…)``: each of them."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return f"all({', '.join(map(str, self.terms))})"

    def truth(self, identity: PeerIdentity, absent: Truth) -> Truth:
        result: Truth = True
        for term in self.terms:
            truth = term.truth(identity, absent)
            if truth is False:
                return False
            if truth is None:
                result = None
        return result

    def name(self, identity: PeerIdentity) -> str | None:
        """The first name that one of them is about."""
        return next((name for term in self.terms if (name := term.name(identity)) is not None), None)


@attrs.frozen(eq=False, repr=False)
class Not(Value):
    """``not(…)``: the certificate says enough to tell that it is not so."""

    term: Node

    def __str__(self) -> str:
        return f"not({self.term})"

    def truth(self, identity: PeerIdentity, absent: Truth) -> Truth:
        truth = self.term.truth(identity, absent)
        return None if truth is None else not truth

    def name(self, identity: PeerIdentity) -> str | None:
        """None: what a client is not, is no name for it."""
        return None


Node = Term | AnyOf | AllOf | Not


@attrs.frozen(eq=False, repr=False)
class Matcher(Value):
    """
    A list of terms of which one must match. Without terms it matches nobody.

    `str` gives its canonical text, which compiles to an equal matcher.
    """

    terms: tuple[Node, ...] = ()

    def __str__(self) -> str:
        return ", ".join(map(str, self.terms))

    @property
    def description(self) -> str:
        """Whom it matches, for people."""
        return str(self) or "nobody (the list is empty)"

    def matches(self, identity: PeerIdentity) -> bool:
        """Whether *identity* certainly matches: to be asked by lists that let in."""
        return AnyOf(self.terms).truth(identity, absent=None) is True

    def may_match(self, identity: PeerIdentity) -> bool:
        """
        Whether *identity* cannot be told not to match: to be asked by lists that refuse.

        Here a name that is not there is simply none that fits: ``cn=x`` does not refuse a certificate without a cn,
        ``not(ou=payments)`` refuses one without an ou. What cannot be compared is taken to fit.
        """
        return AnyOf(self.terms).truth(identity, absent=False) is not False

    def has_field(self, field: str) -> bool:
        """Whether a term, at whatever depth, looks at *field*."""
        return any(_has_field(term, field) for term in self.terms)

    def name(self, identity: PeerIdentity) -> str | None:
        """The name of *identity* by which it matches; None if it does not, or by nothing that names its holder."""
        return AnyOf(self.terms).name(identity)


def _has_field(node: Node, field: str) -> bool:
    match node:
        case Term():
            return node.field == field
        case Not():
            return _has_field(node.term, field)
        case _:
            return any(_has_field(term, field) for term in node.terms)


NOBODY: Final = Matcher()

NO_FINGERPRINTS_TO_DENY: Final = (
    "a list that refuses cannot go by sha256: of a certificate with an ECDSA signature anybody can make another "
    "that is as valid"
)
"""Of the two numbers of such a signature, one may be negated (SEC 1 section 4.1.4); the fingerprint is another then."""


def any_of(matchers: Iterable[Matcher]) -> Matcher:
    """One matcher for whoever one of *matchers* matches."""
    return Matcher(tuple(term for matcher in matchers for term in matcher.terms))


# -- text --------------------------------------------------------------------------------------------------------

_PLAIN: Final = re.compile(rf"[A-Za-z0-9:/._~@{WILD}-]+")
_SPECIAL: Final = re.compile(r'(["\\*])')
_BACKSLASHED: Final = r"\\\1"


def _written(field: str, pattern: str) -> str:
    """A pattern as it stands in canonical text: bare if that is beyond doubt."""
    if _PLAIN.fullmatch(pattern) and not FIELDS[field].is_dn:
        return pattern.replace(WILD, "*")
    return f'"{_SPECIAL.sub(_BACKSLASHED, pattern).replace(WILD, "*")}"'


# Control characters that are no blanks; among them `WILD`, which must come from a `*` only.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_BLANKS: Final = re.compile(r"[ \t\r\n]*+")
_WORD: Final = re.compile(r"[^\s,()=\"]*+")
_BARE: Final = re.compile(r'[^,()="\\]*+')
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)("?)', re.DOTALL)
_IN_QUOTES: Final = re.compile(r"\\(.)|(\*)", re.DOTALL)

# Names that other programs use for what is called otherwise here.
_MEANT: Final = {"cidr": "ip", "fingerprint": "sha256", "hash": "sha256", "host": "dns", "mail": "email"} | {
    "org": "o",
    "pin": "spki",
    "purpose": "eku",
    "san": "dns",
    "spiffe": "uri",
}


def compile(text: str) -> Matcher:  # noqa: A001 - read as `matchers.compile`, as with `re.compile`
    """
    Compile a matcher; a text of blanks is one that matches nobody.

    Raises:
        MatcherError: It is none, or too long or deep.
    """
    if len(text) > LONGEST_TEXT:
        fact = f"the text has {len(text):,} characters, limit {LONGEST_TEXT:,}"
        raise MatcherError(text, LONGEST_TEXT, fact, "use wildcards, or several rules")
    control = _CONTROL.search(text)
    if control:
        raise MatcherError(text, control.start(), "there is a control character", "remove it")
    return _Parser(text).matcher()


@attrs.define(eq=False, repr=False)
class _Parser:
    """Reads one text from left to right."""

    text: str
    at: int = 0
    depth: int = 0
    count: int = 0

    def matcher(self) -> Matcher:
        if self._is_at_end():
            return NOBODY
        terms = self._terms()
        if not self._is_at_end():
            raise self._error(self.at, "a bracket is closed that was not opened", "remove it")
        return Matcher(terms)

    def _terms(self) -> tuple[Node, ...]:
        """Terms with commas between them; stops behind the last."""
        terms = [self._term()]
        while self._take(","):
            terms.append(self._term())
        return tuple(terms)

    def _term(self) -> Node:
        self._skip_blanks()
        start = self.at
        self.count += 1
        if self.count > MOST_TERMS:
            raise self._error(start, f"there are more than {MOST_TERMS:,} terms", "use wildcards, or several rules")
        match = _WORD.match(self.text, start)
        assert match is not None  # it matches nothing at all
        word = match[0].lower()
        self.at = match.end()
        if self._take("("):
            return self._group(start, word)
        if word in ("all", "any", "not") and not self._is_next("="):
            raise self._error(self.at, f"{word} has no bracket", f"write {word}(…)")
        if word not in FIELDS:
            raise self._unknown(start, word)
        if not self._take("="):
            raise self._error(self.at, f"there is no value for {word}", f"expected =, as in {word}=VALUE")
        return self._value(word)

    def _group(self, start: int, word: str) -> Node:
        if word not in ("all", "any", "not"):
            raise self._error(start, f"brackets stand behind {word or 'nothing'}", "expected all(…), any(…) or not(…)")
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._error(start, f"brackets are nested deeper than {DEEPEST} levels", "write it flatter")
        terms = self._terms()
        if not self._take(")"):
            raise self._error(self.at, f"{word}( is not closed", "expected , or )")
        self.depth -= 1
        if word == "all":
            return AllOf(terms)
        if word == "any":
            return AnyOf(terms)
        if len(terms) > 1:
            raise self._error(start, f"not has {len(terms)} terms", "write not(any(…)) or not(all(…))")
        return Not(terms[0])

    def _value(self, word: str) -> Term:
        self._skip_blanks()
        start = self.at
        field = FIELDS[word]
        if self._is_next('"'):
            pattern = self._quoted()
        elif field.is_dn:
            fix = f'expected {word}="…": its commas would begin new terms'
            raise self._error(start, f"the {word} is not in quotes", fix)
        else:
            pattern = self._bare()
        if not pattern:
            raise self._error(start, f"there is no value for {word}", f"expected one, as in {word}=VALUE")
        if is_tainted(pattern.replace(WILD, "")):
            raise self._error(start, "the value has a control character", "remove it: no name with one ever matches")
        if WILD in pattern and not field.has_wildcards:
            raise self._error(start, f"{word} has no wildcards", "write the value out")
        try:
            canonical, test = field.compile(pattern)
        except PatternError as error:
            raise self._error(start, f"{word}: {error.fact}", error.fix) from None
        return Term(word, canonical, test)

    def _bare(self) -> str:
        match = _BARE.match(self.text, self.at)
        assert match is not None  # as above
        self.at = match.end()
        if self.at < len(self.text) and self.text[self.at] not in ",)":
            fix = "put the value in double quotes, or a comma before the next term"
            raise self._error(self.at, f"a bare value has no {self.text[self.at]}", fix)
        return match[0].rstrip().replace("*", WILD)

    def _quoted(self) -> str:
        start = self.at
        match = _QUOTED.match(self.text, start)
        assert match is not None  # the quote is there
        if not match[2]:
            raise self._error(start, "the quote is not closed", 'expected " at the end of the value')
        for escape in re.finditer(r"\\(.)", match[1], re.DOTALL):
            if escape[1] not in '"\\*':
                position = start + 1 + escape.start()
                raise self._error(position, "a backslash stands before an ordinary character", r"expected \", \\ or \*")
        self.at = match.end()
        return _IN_QUOTES.sub(lambda found: found[1] or WILD, match[1])

    # -- small steps --

    def _skip_blanks(self) -> None:
        match = _BLANKS.match(self.text, self.at)
        assert match is not None  # as above
        self.at = match.end()

    def _is_next(self, character: str) -> bool:
        self._skip_blanks()
        return self.text.startswith(character, self.at)

    def _take(self, character: str) -> bool:
        found = self._is_next(character)
        self.at += found
        return found

    def _is_at_end(self) -> bool:
        self._skip_blanks()
        return self.at == len(self.text)

    def _error(self, position: int, fact: str, fix: str) -> MatcherError:
        return MatcherError(self.text, position, fact, fix)

    def _unknown(self, position: int, word: str) -> MatcherError:
        if not word:
            return self._error(position, "there is no term", "expected a field, all(…), any(…) or not(…)")
        options = [*FIELDS, "all", "any", "not"]
        import difflib  # only a mistake needs it

        close = _MEANT.get(word) or next(iter(difflib.get_close_matches(word[:20], options, n=1)), None)
        fact = f"there is no field {word[:20]!a}"
        return self._error(
            position, fact, f"did you mean {close}?" if close else f"expected one of {', '.join(FIELDS)}"
        )
