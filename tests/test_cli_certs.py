"""`sidecar.cli_certs`: arguments in, lines and a status out. What the commands do is tested with `pki`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from sidecar.cli_certs import main
from tests.support.certs import NOW, authority
from tests.support.shell import Shell, files


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def shell(bare: Shell) -> Shell:
    """A shell beside a CA."""
    bare.good("ca")
    return bare


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param([], "COMMAND", id="nothing"),
            pytest.param(["sever"], "invalid choice: 'sever'", id="command"),
            pytest.param(["server"], "NAME; see sidecar certs server --help", id="no-name"),
            pytest.param(["server", "a..b"], "neither a DNS name nor an IP address", id="name"),
            pytest.param(["server", "a", "--days", "0"], "from 1 to 825", id="no-days"),
            pytest.param(["server", "a", "--days", "826"], "from 1 to 825", id="many-days"),
            pytest.param(["server", "a", "--days", "1.5"], "from 1 to 825", id="half-days"),
            pytest.param(["server", "a", "--days", "٣"], "from 1 to 825", id="other-digits"),
            pytest.param(["ca", "--days", "7301"], "from 1 to 7,300", id="ca-days"),
            pytest.param(["crl", "--days", "366"], "from 1 to 365", id="crl-days"),
            pytest.param(["ca", "--key", "rsa1024"], "invalid choice: 'rsa1024'", id="key"),
            pytest.param(["server", "a", "--rep"], "--rep", id="abbreviation"),
            pytest.param(["sign", "x", "--server", "--client"], "not allowed with", id="both"),
            pytest.param(["show", ""], "nothing to show", id="empty-target"),
            pytest.param(["client", "alice", "bob"], "both plain names", id="two-names"),
        ],
    )
    def test_wrong_arguments_are_one_line(self, bare: Shell, arguments: list[str], message: str) -> None:
        """Status 2, nothing made, and never a usage text of ten lines."""
        assert message in bare.refusal(*arguments, status=2)
        assert files(".") == []

    @pytest.mark.parametrize("arguments", [["--help"], ["server", "-h"], ["show", "--help"]])
    def test_help_is_an_answer(self, bare: Shell, arguments: list[str]) -> None:
        """On standard output, with success."""
        assert bare.good(*arguments).startswith("usage: sidecar certs")


class TestOutput:
    def test_closed_output_is_status_1(self, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What was to be read was not; nothing is raised."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as closed:
            monkeypatch.setattr(sys, "stdout", closed)
            assert main(["show", "ca"], NOW) == 1

    def test_odd_terminal_gets_escapes(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name in another script does not end in a traceback where the terminal knows ASCII only."""
        shell.good("client", "Zoë")
        written = io.BytesIO()
        with io.TextIOWrapper(written, "ascii") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert main(["show", "Zo_/client.crt"], NOW) == 0
            assert b"CN=Zo\\xeb" in written.getvalue()

    def test_control_characters_do_not_reach_the_terminal(self, shell: Shell) -> None:
        """Names are chosen by whoever made the certificate."""
        Path("evil.crt").write_bytes(authority().issue("http://a\x1b[2J\nnote: fine").cert_pem)
        out = shell.good("show", "evil.crt")
        assert "\x1b" not in out
        assert "URI:http://a\\x1b[2J\\nnote: fine" in out

    def test_endless_line_is_cut(self, shell: Shell) -> None:
        """A name may have 64 KiB."""
        Path("long.crt").write_bytes(authority().issue("a", "http://" + "a" * 60_000).cert_pem)
        assert max(len(line) for line in shell.good("show", "long.crt").splitlines()) <= 2_003
