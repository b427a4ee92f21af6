"""
A header or trailer section: field lines as they came, and their names.

The section keeps the exact bytes of every line, so that what nobody has to change is forwarded unchanged, in its
order and case. Values are looked at only when asked for.
"""

from __future__ import annotations

from collections.abc import Collection

from sidecar.wire.grammar import TOKEN


class Fields:
    """
    Validated field lines.

    Attributes:
        section: The lines, each with its CRLF, exactly as received.
        names: The field name of each line in lower case, in order.
    """

    # A plain class with slots: two are made per exchange (bench row `requests`).
    __slots__ = ("names", "section")

    def __init__(self, section: bytes) -> None:
        """
        Args:
            section: Field lines that `grammar.FIELD_SECTION` matches as a whole.
        """
        self.section = section
        # Faster than a pattern, which is not needed to be sure: every line has its colon and its CRLF.
        self.names = [line.partition(b":")[0] for line in section.lower().split(b"\r\n")]
        del self.names[-1]  # what follows the last CRLF

    def __repr__(self) -> str:
        return f"Fields({self.section!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.section == other.section

    __hash__ = None  # type: ignore[assignment]  # nothing keeps sections as keys

    def first(self, name: bytes) -> bytes:
        """Return what stands behind the colon of the first line called *name* (lower case), which must be there."""
        index = self.names.index(name)
        return self.section.split(b"\r\n", index + 1)[index].partition(b":")[2]

    def values(self, name: bytes) -> list[bytes]:
        """Return the value of every line called *name* (lower case), without surrounding blanks, in order."""
        if name not in self.names:
            return []
        lines = self.section.splitlines()
        return [lines[i].partition(b":")[2].strip(b" \t") for i, n in enumerate(self.names) if n == name]

    def without(self, unwanted: Collection[bytes]) -> bytes:
        """Return the section less every line whose name is in *unwanted* (lower-case names; a set is fastest)."""
        lines = self.section.splitlines(keepends=True)
        return b"".join([line for line, name in zip(lines, self.names, strict=True) if name not in unwanted])

    def tokens(self, name: bytes) -> list[bytes] | None:
        """
        Read the lines called *name* as one comma-separated list of tokens (RFC 9110 section 5.6.1).

        Returns:
            The tokens in lower case, empty members left out; None if a member is not a token.
        """
        members = [m.strip(b" \t").lower() for value in self.values(name) for m in value.split(b",")]
        tokens = [member for member in members if member]
        return tokens if all(TOKEN.fullmatch(token) for token in tokens) else None
