"""`pki.outcome`: what a command has to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.pki.outcome import Outcome, UsageError, naming, quoted


class TestOutcome:
    def test_lines_are_not_shown(self) -> None:
        """They may hold a password that was made for the reader."""
        assert "hush" not in repr(Outcome(["its password: hush"]))


class TestNaming:
    def test_bad_name_is_usage(self) -> None:
        """The sentence stays the same."""
        with pytest.raises(UsageError, match=r"^one; two$"), naming():
            raise ValueError("one; two")


class TestQuoted:
    def test_shell_takes_it_back(self) -> None:
        """No path ends the command that it is part of."""
        assert quoted(Path("a; rm b")) == "'a; rm b'"
