"""
Texts an operator writes <-> values: durations, sizes, words, paths, key material, rules; addresses are in `addresses`.

Each ``parse_x`` takes a text without surrounding blanks, returns a value, and raises only `UnitError`. Each
``x_text`` is its inverse and gives the canonical form: ``parse_x(x_text(value)) == value``. Reads no files and
resolves no names. A text may be key material or hold a password by mistake: facts show texts through `quoted` only.
"""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from sidecar.certs.sources import may_be_secret
from sidecar.settings import (
    ByteCount,
    ClientCertMode,
    DenyText,
    Inline,
    MatcherText,
    Password,
    PathPatterns,
    Seconds,
    Source,
    TlsPolicy,
)

EnumT = TypeVar("EnumT", bound=enum.Enum)

LONGEST_DURATION = 86_400
"""Seconds. A day; what is longer is a slip of the unit."""

LARGEST_SIZE = 2**40
"""Bytes. No setting comes near; keeps arithmetic on the value harmless."""

_QUOTED_LENGTH = 60

_SHORTEST_SECRET = 40
"""Characters. The shortest key there is takes 43, without its ASN.1."""


class UnitError(ValueError):
    """
    A text is not a value of the kind that was asked for.

    Attributes:
        fact: What is wrong with the text, on one line.
        fix: What to write instead, on one line.
    """

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}; {fix}")
        self.fact = fact
        self.fix = fix


def quoted(text: str) -> str:
    """Show *text* in a message: on one line, at most about 60 characters, never PEM."""
    if "-----BEGIN" in text:
        return "PEM text"
    if len(text) > _SHORTEST_SECRET and may_be_secret(text):
        return "a value that may be key material"
    shortened = text if len(text) <= _QUOTED_LENGTH else text[:_QUOTED_LENGTH] + "…"
    return ascii(shortened) if not shortened.isprintable() else f"'{shortened}'"


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option that *word* was probably meant to be, or None; case does not count."""
    import difflib  # only a mistake needs it

    by_lower = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


# -- quantities -------------------------------------------------------------------------------------------------

_DURATION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?(ms|s|m|h)?", re.ASCII)
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, None: 1000}


def parse_duration(text: str) -> Seconds:
    """``10``, ``10s``, ``1.5s``, ``500ms``, ``2m``, ``1h`` -> seconds, a whole number of milliseconds up to a day."""
    fix = "write seconds as 10 or 10s, or another unit as 500ms, 2m, 1h"
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UnitError(f"{quoted(text)} is not a duration", fix)
    whole, fraction, unit = match.groups()
    thousandths = int(whole) * 1000 + int((fraction or "").ljust(3, "0"))
    milliseconds, rest = divmod(thousandths * _MILLISECONDS[unit], 1000)
    if rest:
        raise UnitError(f"{quoted(text)} is finer than a millisecond", fix)
    if milliseconds > LONGEST_DURATION * 1000:
        raise UnitError(f"{quoted(text)} is longer than 24h", fix)
    return Seconds(milliseconds / 1000)


def duration_text(value: Seconds) -> str:
    """Seconds -> ``75s``, or ``1500ms`` where it is not whole seconds."""
    milliseconds = round(value * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{milliseconds}ms" if rest else f"{seconds}s"


def parse_optional_duration(text: str) -> Seconds | None:
    """As `parse_duration`; ``auto`` is None."""
    return None if text.lower() == "auto" else parse_duration(text)


def optional_duration_text(value: Seconds | None) -> str:
    """As `duration_text`, or ``auto``."""
    return "auto" if value is None else duration_text(value)


_SIZE = re.compile(r"([0-9]{1,13})(?: ?([A-Za-z]{1,3}))?", re.ASCII)
_BYTES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def parse_size(text: str) -> ByteCount:
    """``61440``, ``60KiB``, ``1MiB`` -> bytes, up to 1 TiB. ``60KB`` is refused: it means two different numbers."""
    fix = "write bytes as 61440, or another unit as 60KiB, 1MiB"
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UnitError(f"{quoted(text)} is not a size", fix)
    number, unit = match.groups()
    if unit is not None and unit not in _BYTES:
        meant = next((known for known in _BYTES if known[0] == unit[0].upper()), None)
        raise UnitError(f"{quoted(text)} has no known unit", f"write {number}{meant}" if meant else fix)
    size = int(number) * _BYTES[unit or "B"]
    if size > LARGEST_SIZE:
        raise UnitError(f"{quoted(text)} is more than 1024GiB", fix)
    return ByteCount(size)


def size_text(value: ByteCount) -> str:
    """Bytes -> ``60KiB`` where that is exact, else ``61441``."""
    for unit, size in _BYTES.items():
        if value and value % size == 0 and size > 1:
            return f"{value // size}{unit}"
    return str(value)


def parse_count(text: str) -> int:
    """``100`` -> 100. No sign, no separators."""
    if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) is None:
        raise UnitError(f"{quoted(text)} is not a whole number", "write digits only, e.g. 100")
    return int(text)


def parse_optional_count(text: str) -> int | None:
    """As `parse_count`; ``auto`` is None."""
    return None if text.lower() == "auto" else parse_count(text)


def optional_count_text(value: int | None) -> str:
    """The count, or ``auto``."""
    return "auto" if value is None else str(value)


# -- words and paths --------------------------------------------------------------------------------------------


def parse_word(kind: type[EnumT], text: str) -> EnumT:
    """One of the values of the enum *kind*; upper case is taken too (``LOG_LEVEL=INFO`` is an old habit)."""
    words = {str(member.value): member for member in kind}
    if text.lower() in words:
        return words[text.lower()]
    # Nobody who writes "on" means to turn it off, however alike the words look.
    meant = None if text.lower() in _SWITCHES else closest(text, words)
    fix = f"did you mean {meant}?" if meant else f"write {' or '.join(words)}"
    raise UnitError(f"{quoted(text)} is not one of {', '.join(words)}", fix)


_SWITCHES = frozenset({"on", "off", "true", "false", "yes", "no", "1", "0"})


_AWS_POLICIES = {
    "ELBSecurityPolicy-TLS13-1-3-2021-06": TlsPolicy.MODERN,
    "ELBSecurityPolicy-TLS13-1-3-PQ-2025-09": TlsPolicy.MODERN,
    "ELBSecurityPolicy-TLS13-1-2-Res-2021-06": TlsPolicy.INTERMEDIATE,
    "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09": TlsPolicy.INTERMEDIATE,
    # With CBC suites there, which ours leaves out: every client of the last ten years has the others.
    "ELBSecurityPolicy-TLS13-1-2-2021-06": TlsPolicy.INTERMEDIATE,
}
"""The policies of AWS load balancers that mean, or nearly mean, what ours do."""

_FORMER_POLICIES = re.compile(r"old|mozilla-old|ELBSecurityPolicy-.*", re.IGNORECASE)


def parse_tls_policy(text: str) -> TlsPolicy:
    """``modern``, ``intermediate`` (Mozilla's names, which ours are), or the name of an AWS policy that means one."""
    by_name = {name.lower(): policy for name, policy in _AWS_POLICIES.items()}
    if text.lower() in by_name:
        return by_name[text.lower()]
    if _FORMER_POLICIES.fullmatch(text):
        fact = f"{quoted(text)} allows what is not served here: TLS 1.0 or 1.1, CBC or RSA key exchange, or FIPS alone"
        raise UnitError(fact, "write intermediate (TLS 1.2 and 1.3) or modern (TLS 1.3)")
    return parse_word(TlsPolicy, text.lower().removeprefix("mozilla-"))


def parse_words(kind: type[EnumT], text: str) -> tuple[EnumT, ...]:
    """Comma-separated values of the enum *kind*, each once; ``none`` is none of them."""
    words = (part.strip() for part in text.split(","))
    return tuple(dict.fromkeys(parse_word(kind, word) for word in words if word and word != "none"))


def text_or_none(value: str) -> str:
    """A text, or ``none`` if it is empty."""
    return value or "none"


def words_text(values: Iterable[enum.Enum]) -> str:
    """Words, comma-separated."""
    return ",".join(str(value.value) for value in values)


def parse_path(text: str) -> Path | None:
    """A file or directory; ``none``, the word the documentation uses for the default, is no path."""
    if text == "none":
        return None
    return Path(plain_path(text))


def plain_path(text: str) -> str:
    """
    Return *text*, if the operating system can be asked for it and it fits on one line of a message.

    Raises:
        UnitError: It does not.
    """
    if "-----BEGIN" in text:
        raise UnitError("this is PEM text, not a path", "write it to a file and give the path of the file")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise UnitError("a path with control characters or line breaks", "give the path of a file, on one line")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise UnitError("a path with characters that no file name has", "give the path of a file") from None
    return text


# What key material looks like that is no path: PEM; JSON; the base64 of DER (its first octet is 0x30), of PEM or of
# JSON. None of them begins with a slash or a point; the shortest is an Ed25519 key, of 64 characters.
_MATERIAL = re.compile(r"[{\[].*|(?:M[A-P]|LS0t|ey|WyJ7)[A-Za-z0-9+/=\s]{58,}", re.DOTALL)
_PATH_OF_A_SECRET = re.compile(r"\.{0,2}/.*", re.DOTALL)


def parse_source(text: str) -> Source | None:
    """A file or directory, or key material itself: PEM, base64 or JSON. ``none`` is neither."""
    if "-----BEGIN" in text or _MATERIAL.fullmatch(text):
        return Inline(text)
    return parse_path(text)


def parse_sources(text: str) -> tuple[Source, ...]:
    """As `parse_source`; several paths are comma-separated, and a value stands alone."""
    whole = parse_source(text) if "-----BEGIN" in text or _MATERIAL.fullmatch(text) else None
    if whole is not None:
        return (whole,)
    paths = (parse_path(part.strip()) for part in text.split(",") if part.strip())
    return tuple(path for path in paths if path is not None)


def parse_password(text: str) -> Password | None:
    """A file whose path begins with ``/``, ``./`` or ``../``, or the password itself; ``none`` is no password."""
    if text == "none":
        return None
    return Password(Path(plain_path(text)) if _PATH_OF_A_SECRET.fullmatch(text) else Inline(text))


def password_text(value: Password | None) -> str:
    """What stands for a password, which is not shown; the path of its file is."""
    return source_text(value.source if value is not None else None)


def source_text(value: Source | None) -> str:
    """A path, ``none``, or what stands for a value that is not shown."""
    if value is None:
        return "none"
    if isinstance(value, Inline) or (len(str(value)) > _SHORTEST_SECRET and may_be_secret(str(value))):
        return "***"
    return "./none" if str(value) == "none" else str(value)


def sources_text(values: Iterable[Source]) -> str:
    """As `source_text`, comma-separated."""
    return ",".join(source_text(value) for value in values) or "none"


def parse_paths(text: str) -> PathPatterns:
    """``/service, /static/*`` -> patterns of `policy.conditions`."""
    from sidecar.policy.authz import Rule, exempt  # here and below: what most runs do without
    from sidecar.policy.conditions import ConditionError

    paths = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    try:
        exempt(paths, Rule(name="default", mode=ClientCertMode.REQUIRED))
    except ConditionError as error:
        raise UnitError(error.fact, error.fix) from None
    return PathPatterns(paths)


def parse_matcher(text: str) -> MatcherText:
    """An expression of `policy.matchers`, in its canonical form; ``none`` is no expression."""
    if text == "none":
        return MatcherText("")
    from sidecar.policy import matchers

    try:
        return MatcherText(str(matchers.compile(text)))
    except matchers.MatcherError as error:
        raise UnitError(error.fact, error.fix) from None


def parse_log_format(text: str) -> str:
    """A format of `observe.logformat`; ``none`` is none of ours."""
    if text == "none":
        return ""
    from sidecar.observe.logformat import compile_format
    from sidecar.observe.logsyntax import FormatError
    from sidecar.policy.rewrite import is_ours

    try:
        compile_format(text, is_ours)
    except FormatError as error:
        raise UnitError(error.fact, error.fix) from None
    return text


def parse_deny(text: str) -> DenyText:
    """As `parse_matcher`, for a list that refuses."""
    from sidecar.policy import matchers

    parsed = parse_matcher(text)
    if parsed and matchers.compile(parsed).has_field("sha256"):
        raise UnitError(matchers.NO_FINGERPRINTS_TO_DENY, "write serial and issuer, or spki")
    return DenyText(parsed)


DEEPEST = 16
"""Levels of nesting of a structured setting. Routes need seven; more would only serve to exhaust the stack."""


def parse_structure(what: str, text: str) -> str:
    """
    A JSON list in its shortest form; ``none`` is no list. What is in it, `config.check` judges with everything else.

    Args:
        what: What it is a list of, for the refusal.
        text: As it was given.
    """
    if text == "none":
        return ""
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnitError):
            raise
        value = None
    if not isinstance(value, list):
        raise UnitError(f"this is not a list of {what}", "write it in the YAML file, or as a JSON list of objects")
    if _is_deeper(value, DEEPEST):
        raise UnitError(f"it is nested deeper than {DEEPEST} levels", f"write a list of {what}")
    _refuse_keys(value)
    return json.dumps(value, separators=(",", ":"))


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise UnitError(f"the key {quoted(again)} stands twice in one object", "keep one of them")
    return found


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects of *value* are nested in more than so many *levels*."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not levels:
        return isinstance(value, list | dict)
    return any(_is_deeper(each, levels - 1) for each in inner)


# Private keys in PEM, also escaped or in base64. What is neither is refused where a key is read, as no path.
_PRIVATE = ("PRIVATE KEY", "UFJJVkFURSBLRVk", "BSSVZBVEUgS0VZ", "QUklWQVRFIEtFW")


def _refuse_keys(value: object) -> None:
    """Refuse private keys inside a structure, which is shown in full by commands and pages."""
    if isinstance(value, str):
        if any(mark in value for mark in _PRIVATE):
            raise UnitError("a private key stands in it", "write it to a file and give the path of the file")
        return
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_keys(each)
