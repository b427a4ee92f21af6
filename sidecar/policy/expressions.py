"""
Regular expressions of routes, in the syntax of RE2, as Envoy's: what they match is found in time that grows with the
length of the text alone, whatever a client sends.

Expressions are compared with all of a text, read as UTF-8; octets that are none count as U+FFFD each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

from sidecar.policy.conditions import ConditionError
from sidecar.values import Value

LONGEST_EXPRESSION: Final = 1024
"""Characters."""

LARGEST_PROGRAM: Final = 1500
"""
Instructions that RE2 makes of an expression. The worst of this size take some 20 ms for the longest path; a segment of
up to 255 word characters makes 1,279, the usual expression of routes less than 100.
"""

_MOST_MEMORY: Final = 1024 * 1024
"""Bytes that RE2 may use for one expression; beyond it, it goes on more slowly with less."""


@attrs.frozen(eq=False, repr=False)
class Expression(Value):
    """
    A compiled expression.

    Raises:
        ConditionError: It is none, or unsafe; from the constructor. See `check`.
    """

    text: str
    _strict: _Compiled = attrs.field(init=False, eq=False, repr=False)
    _careless: _Compiled = attrs.field(init=False, eq=False, repr=False)

    @_strict.default
    def _compile_strict(self) -> _Compiled:
        check_text(self.text)
        compiled = _Compiled(self.text, has_case=True)
        if compiled.size > LARGEST_PROGRAM:
            fact = f"{_shown(self.text)} makes a program of {compiled.size:,} instructions, limit {LARGEST_PROGRAM:,}"
            raise ConditionError(
                fact, "repeat less, as in {1,20}, or write [A-Za-z] in place of classes of all scripts"
            )
        check_repetitions(self.text)
        return compiled

    @_careless.default
    def _compile_careless(self) -> _Compiled:
        return _Compiled(self.text, has_case=False)

    def fits(self, text: bytes) -> bool:
        """Whether all of *text* fits it."""
        return self._strict.fits(text)

    def fits_without_case(self, text: bytes) -> bool:
        """Whether all of *text* fits it if upper and lower case are the same."""
        return self._careless.fits(text)


class _Compiled:
    """An RE2 object: the one place that knows the module."""

    __slots__ = ("_fullmatch", "size")

    def __init__(self, text: str, *, has_case: bool) -> None:
        # Imported late, since most sidecars have no expression and need not load its library.
        import re2  # type: ignore[import-untyped]

        options = re2.Options()
        options.max_mem = _MOST_MEMORY
        options.case_sensitive = has_case
        options.never_capture = True
        options.log_errors = False  # they would be written to stderr, beside our log
        try:
            compiled = re2.compile(text.encode(), options)
        except re2.error as error:
            reason = error.args[0] if error.args else "it does not compile"
            reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            fix = "use what RE2 knows: it has no lookaround, no backreferences and no large repetitions"
            raise ConditionError(f"{_shown(text)} does not compile: {_plain(reason)}", fix) from None
        self._fullmatch = compiled.fullmatch
        self.size = int(compiled.programsize)

    def fits(self, text: bytes) -> bool:
        if not text.isascii():
            text = text.decode("utf-8", "replace").encode()
        return self._fullmatch(text) is not None


def _plain(reason: str) -> str:
    """What RE2 says, on one line and not too long: it quotes the expression."""
    return reason[:120] if reason.isprintable() else ascii(reason[:120])


def _shown(text: str) -> str:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return f"'{shown}'" if shown.isprintable() else ascii(shown)


def check_text(text: str) -> None:
    """
    Check that *text* may be an expression at all.

    Raises:
        ConditionError: It is empty, too long, or has characters that there are not.
    """
    if not text:
        raise ConditionError("the expression is empty", "write one, or /.* for every path")
    if len(text) > LONGEST_EXPRESSION:
        fact = f"the expression has {len(text):,} characters, limit {LONGEST_EXPRESSION:,}"
        raise ConditionError(fact, "write several routes")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConditionError(f"{_shown(text)} has characters that there are not", "write it as UTF-8") from None


# -- what an expression looks like -------------------------------------------------------------------------------

# One piece of an expression that RE2 has accepted.
_TOKEN: Final = re.compile(
    r"""
    (?P<quoted>\\Q.*?(?:\\E|\Z))
    | (?P<edge>[\^$]|\\[AzbB])
    | (?P<escape>\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|[0-7]{1,3}|.))
    | (?P<set>\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^]\\])*\])
    | (?P<open>\((?:\?P?<[^>]*>|\?[a-zA-Z-]*:|(?!\?)))
    | (?P<flags>\(\?[a-zA-Z-]*\))
    | (?P<close>\))
    | (?P<bar>\|)
    | (?P<many>(?:[*+]|\{[0-9]+,\})\??)
    | (?P<few>(?:\?|\{[0-9]+(?:,[0-9]+)?\})\??)
    | (?P<any>\.)
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The pieces of an expression, each with its kind."""
    for match in _TOKEN.finditer(text):
        assert match.lastgroup is not None
        yield match.lastgroup, match[0]


@attrs.define(eq=False, repr=False)
class _Piece:
    """
    A piece of an expression with what repeats it, or an alternative with all of its pieces.

    Attributes:
        may_be_empty: It fits the empty text.
        is_endless: It is an endless repetition, and nothing else that must be there.
        has_anything: In it, `.` is repeated endlessly.
    """

    may_be_empty: bool = False
    is_endless: bool = False
    has_anything: bool = False
    is_dot: bool = False


def _joined(pieces: list[_Piece]) -> _Piece:
    """An alternative: *pieces* behind each other."""
    needed = [piece for piece in pieces if not piece.may_be_empty]
    return _Piece(
        may_be_empty=not needed,
        # Pieces that may be empty leave the endless one alone.
        is_endless=len(needed) <= 1 and any(piece.is_endless for piece in needed or pieces),
        has_anything=any(piece.has_anything for piece in pieces),
    )


def _either(alternatives: list[_Piece]) -> _Piece:
    """A group: one of *alternatives*."""
    return _Piece(
        may_be_empty=any(piece.may_be_empty for piece in alternatives),
        is_endless=any(piece.is_endless for piece in alternatives),
        has_anything=any(piece.has_anything for piece in alternatives),
    )


def check_repetitions(text: str) -> None:
    """
    Check that nothing is repeated endlessly that is an endless repetition itself.

    RE2 takes ``(a+)+`` and ``(.*/)*`` in its stride. Other engines, of an app or of another proxy that the expression
    is copied to, can be made to compute for years with one request; and it is always a slip, since it fits no more than
    without one of the two. ``(/[a-z]+)*`` is none: a slash must precede what is repeated.

    Args:
        text: What RE2 has accepted.

    Raises:
        ConditionError: There is such a repetition.
    """
    # For each open group, its alternatives, each with its pieces.
    groups: list[list[list[_Piece]]] = [[[]]]
    for kind, token in _tokens(text):
        pieces = groups[-1][-1]
        match kind:
            case "open":
                groups.append([[]])
            case "bar":
                groups[-1].append([])
            case "close":
                group = groups.pop()
                groups[-1][-1].append(_either([_joined(each) for each in group]))
            case "many":
                is_optional = token[0] == "*" or token.startswith("{0,")
                pieces[-1] = _repeated(pieces[-1], text, may_be_empty=is_optional)
            case "few":
                is_optional = pieces[-1].may_be_empty or token[0] == "?" or token.startswith("{0")
                pieces[-1] = attrs.evolve(pieces[-1], may_be_empty=is_optional)
            case "quoted":
                pieces.extend(_Piece() for _ in token[2:].removesuffix(r"\E"))
            case "flags":
                pass
            case _:
                pieces.append(_Piece(may_be_empty=kind == "edge", is_dot=kind == "any"))


def _repeated(piece: _Piece, text: str, *, may_be_empty: bool) -> _Piece:
    if piece.is_endless or piece.has_anything:
        fact = f"{_shown(text)} repeats endlessly what is repeated endlessly within, as in (a+)+ or (.*)*"
        raise ConditionError(fact, "leave out one of the two, or write [^/]+ in place of .*")
    return _Piece(
        may_be_empty=may_be_empty or piece.may_be_empty,
        is_endless=True,
        has_anything=piece.is_dot,
    )


def literal_start(text: str) -> str:
    """
    The characters, as they are, that every text that fits begins with; "" if they are not plain to see.

    Args:
        text: What RE2 has accepted.
    """
    if "|" in text:
        return ""  # it may part the expression as a whole
    found: list[str] = []
    for kind, token in _tokens(text):
        if kind in ("many", "few", "flags", "quoted"):
            del found[-1:]  # it may be missing: what repeats it may also stand behind flags or an empty quotation
            break
        if kind == "plain":
            found.append(token)
        elif kind == "escape" and not token[1].isalnum():
            found.append(token[1])
        elif kind != "edge" or found:
            break
    return "".join(found)
