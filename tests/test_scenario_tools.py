"""`scenarios/conftest`: what happens where a program that the scenarios use as a client is missing."""

from __future__ import annotations

import errno

import pytest

from tests.scenarios.conftest import TOOLS, pytest_runtest_call


def run_test_that_misses(filename: str) -> None:
    hook = pytest_runtest_call()
    next(hook)
    hook.throw(FileNotFoundError(errno.ENOENT, "No such file or directory", filename))


class TestMissingTool:
    @pytest.mark.parametrize("tool", sorted(TOOLS))
    def test_test_is_skipped_and_says_why(self, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine without the program skips the tests that need it, by name."""
        monkeypatch.delenv("TESTS_REQUIRE_TOOLS", raising=False)
        with pytest.raises(pytest.skip.Exception, match=f"the program {tool} is not installed"):
            run_test_that_misses(tool)

    @pytest.mark.parametrize("tool", sorted(TOOLS))
    def test_test_fails_where_all_are_required(self, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where TESTS_REQUIRE_TOOLS is set, no test is left out in silence."""
        monkeypatch.setenv("TESTS_REQUIRE_TOOLS", "1")
        with pytest.raises(FileNotFoundError):
            run_test_that_misses(tool)

    def test_other_missing_file_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What else is missing is a bug."""
        monkeypatch.delenv("TESTS_REQUIRE_TOOLS", raising=False)
        with pytest.raises(FileNotFoundError):
            run_test_that_misses("/etc/curl")
