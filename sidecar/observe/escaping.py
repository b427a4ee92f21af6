"""
What a client chose, as printable ASCII of bounded length: no value ends a line, a string or a column of the log.

Escapes are JSON's everywhere, so that one rule reads every style back.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Final

MAX_VALUE_BYTES: Final = 256
"""Of a value that a client chose; the rest is cut off."""

# The same values come again and again. They are cut before they are remembered: at most some MiB, whoever the clients
# are.
_MOST_REMEMBERED: Final = 1024
_MOST_REMEMBERED_BY_PLACE: Final = 128

Escape = Callable[[str], str]

_encode: Final = json.JSONEncoder().encode


def shown(value: bytes, limit: int = MAX_VALUE_BYTES) -> str:
    """Return the first *limit* bytes of *value* as text; what is not UTF-8 becomes ``\\xNN``."""
    return value[:limit].decode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    """Return *text* as a JSON string of printable ASCII, with its quotes."""
    return _encode(text).replace("\x7f", "\\u007f")  # JSON lets DEL pass


@functools.lru_cache(_MOST_REMEMBERED)
def quoted_repeating(value: bytes) -> str:
    """As `quoted` of *value*, which is cut to size, for values that come again and again."""
    return quoted(value.decode("utf-8", "backslashreplace"))


def escape(separators: str) -> Escape:
    """
    Return the function that escapes a value for a place in a line: quotes, backslashes, whatever is not printable
    ASCII, and *separators*, single ASCII characters that end the value there.
    """
    replacements = [(character, f"\\u{ord(character):04x}") for character in separators]

    @functools.lru_cache(_MOST_REMEMBERED_BY_PLACE)
    def escaped(text: str) -> str:
        text = quoted(text)[1:-1]
        for character, replacement in replacements:
            text = text.replace(character, replacement)
        return text

    return escaped
