"""The commands of ``sidecar certs``, as somebody types them in a directory."""

from __future__ import annotations

import stat
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from sidecar.cli_certs import main
from tests.support.certs import DAY, NOW


@attrs.frozen
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands in the current directory."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, days_later: int = 0) -> Answer:
        status = main(arguments, NOW + days_later * DAY)
        out, err = self._capsys.readouterr()
        assert "PRIVATE KEY" not in out + err
        return Answer(status, out, err)

    def good(self, *arguments: str, days_later: int = 0) -> str:
        """Run a command that must succeed without a warning; its output."""
        answer = self(*arguments, days_later=days_later)
        assert (answer.status, answer.err) == (0, "")
        return answer.out

    def refusal(self, *arguments: str, status: int = 78, days_later: int = 0) -> str:
        """Run a command that must fail; its one line."""
        answer = self(*arguments, days_later=days_later)
        assert (answer.status, answer.out) == (status, "")
        assert answer.err.startswith("sidecar certs: ")
        assert answer.err.count("\n") == 1
        return answer.err


def certificate(file: str) -> x509.Certificate:
    """The first certificate in *file*."""
    return x509.load_pem_x509_certificate(Path(file).read_bytes())


def files(directory: str) -> list[str]:
    """The names of what is in *directory*."""
    return sorted(path.name for path in Path(directory).iterdir())


def mode(file: str) -> int:
    """The permissions of *file*."""
    return stat.S_IMODE(Path(file).stat().st_mode)
