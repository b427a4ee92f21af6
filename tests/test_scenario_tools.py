"""What happens where a program that the scenarios use, as a client or as a neighbour, is missing."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

import pytest

from tests.scenarios.conftest import TOOLS, pytest_runtest_call
from tests.support.program import Neighbour, Port, eventually, installed, is_listening


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


NOWHERE = "no-such-program-anywhere"


class TestInstalled:
    def test_program_that_is_there_is_named(self) -> None:
        """What is found is run."""
        assert installed(sys.executable) == sys.executable

    def test_test_without_it_is_skipped_and_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As for clients."""
        monkeypatch.delenv("TESTS_REQUIRE_TOOLS", raising=False)
        with pytest.raises(pytest.skip.Exception, match=f"the program {NOWHERE} is not installed"):
            installed(NOWHERE)

    def test_test_without_it_fails_where_all_are_required(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """It is tried, and cannot be run."""
        monkeypatch.setenv("TESTS_REQUIRE_TOOLS", "1")
        with Port() as port, pytest.raises(FileNotFoundError):
            Neighbour(tmp_path, port, NOWHERE).start()


class TestNeighbour:
    LISTENS = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"

    def test_it_is_there_in_its_block_only(self, tmp_path: Path) -> None:
        """It listens when the block begins, and not behind its end; killed in between, it can be started anew."""
        with Port() as port:
            assert not is_listening(port)
            with Neighbour(tmp_path, port, sys.executable, "-c", self.LISTENS, str(port.number)) as neighbour:
                assert is_listening(port)
                neighbour.kill()
                assert not is_listening(port)
                neighbour.start()
                assert is_listening(port)
            assert not is_listening(port)

    def test_one_that_does_not_start_fails_the_test(self, tmp_path: Path) -> None:
        """With what it said."""
        with Port() as port, pytest.raises(AssertionError, match="what it said"):
            Neighbour(tmp_path, port, sys.executable, "-c", "raise SystemExit('what it said')").start()

    def test_one_that_ends_by_itself_fails_the_test(self, tmp_path: Path) -> None:
        """A crash that nobody asked for is not overlooked."""
        crash = self.LISTENS.replace("time.sleep(60)", "s.accept(); sys.exit('crashed')")
        with Port() as port:
            neighbour = Neighbour(tmp_path, port, sys.executable, "-c", crash, str(port.number))
            with pytest.raises(AssertionError, match="crashed"), neighbour:
                self.crash(neighbour)

    @staticmethod
    def crash(neighbour: Neighbour) -> None:
        """Give it the connection that it does not survive."""
        socket.create_connection((neighbour.port.host, neighbour.port.number), 5.0).close()
        eventually(lambda: not neighbour.is_running, "it has crashed")
