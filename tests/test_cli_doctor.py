"""`sidecar.cli_doctor`: arguments in, findings and a status out. What the checks do is tested with `doctor`."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sidecar.cli import main as cli_main
from sidecar.cli_doctor import main
from sidecar.doctor.app import Answer, Spoken
from tests.doctor.machine import KnownMachine
from tests.support.certs import NOW, authority

KEY = "MC4CAQAwBQYDK2VwBCIEIJ8b3xQmZ7Tn1Kw9Rf"

GOOD = {"SIDECAR_LISTEN": ":8443", "SIDECAR_DRAIN_TIMEOUT": "8s"}


def doctor(*argv: str, answer: Answer | None = None, **environ: str) -> int:
    machine = KnownMachine(answer=answer or Answer(Spoken.HTTP, 200))
    return main(argv, {**GOOD, **environ}, machine)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param(["--balancer", "elb"], "--balancer: 'elb' is none of alb, nlb", id="balancer"),
            pytest.param(["--balancer"], "expected one argument", id="no-value"),
            pytest.param(["--stop-timeout", "soon"], "--stop-timeout: 'soon' is not a duration", id="time"),
            pytest.param(["--balancer-idle", "1y"], "--balancer-idle: '1y' is not a duration", id="idle"),
            pytest.param(["--name", "a..b"], "--name: ", id="name"),
            pytest.param(["--clock", "time.example"], "is not HOST:PORT", id="no-port"),
            pytest.param(["--clock", ":80"], "is not HOST:PORT", id="no-host"),
            pytest.param(["--clock", "a:65536"], "is not HOST:PORT", id="high-port"),
            pytest.param(["--clock", "a:\u0663"], "is not HOST:PORT", id="other-digits"),
            pytest.param(["--clock", "unix:/run/x"], "is not HOST:PORT", id="socket"),
            pytest.param(["--clock", "a\r\nX-Y: z:80"], "is not HOST:PORT", id="header"),
            pytest.param(["--name", ",".join(f"a{n}.example" for n in range(101))], "limit 100", id="names"),
            pytest.param(["--outside=x"], "--outside: takes no value", id="value"),
        ],
    )
    def test_wrong_option_is_one_line_with_status_2(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        """Nothing is examined."""
        assert doctor(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.endswith("; see sidecar doctor --help\n")
        assert captured.err.count("\n") == 1

    @pytest.mark.parametrize("option", ["--balancer", "--balancer-idle", "--stop-timeout", "--clock", "--name"])
    @pytest.mark.parametrize("text", [f"{KEY}:80", "-----BEGIN PRIVATE KEY-----", "x" * 5000], ids=["key", "pem", "x"])
    def test_value_that_may_be_secret_is_not_repeated(
        self, capsys: pytest.CaptureFixture[str], option: str, text: str
    ) -> None:
        """It was put in the wrong place, and the output goes to logs."""
        assert doctor(f"{option}={text}") == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert text[:30] not in captured.err
        assert len(captured.err) < 400

    @pytest.mark.parametrize("option", ["--json", "--outside"])
    def test_value_of_a_switch_is_not_repeated(self, capsys: pytest.CaptureFixture[str], option: str) -> None:
        """Whatever it is."""
        assert doctor(f"{option}=hunter2") == 2
        assert "hunter2" not in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["KEYMATERIAL:80x", "hunter2", f"{KEY}:80"])
    def test_clock_is_not_repeated_unless_it_is_an_address(self, capsys: pytest.CaptureFixture[str], text: str) -> None:
        """What stands before a colon may be a password, and a host name is asked for in the DNS."""
        assert doctor("--clock", text) == 2
        assert capsys.readouterr().err == (
            "sidecar doctor: --clock: the value is not HOST:PORT; write it as time.example:80"
            "; see sidecar doctor --help\n"
        )

    def test_help_is_an_answer(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It lists each option."""
        assert doctor("--help") == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: sidecar doctor")
        assert all(option in out for option in ("--name", "--balancer-idle", "--stop-timeout", "--clock", "--outside"))

    def test_unknown_setting_is_a_finding(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As for every command that reads the settings."""
        assert doctor("--lisen=:1") == 78
        assert "error: settings: --lisen (flag): there is no such flag" in capsys.readouterr().out


class TestStatus:
    @pytest.mark.parametrize(
        ("arguments", "answer", "status"),
        [
            pytest.param([], None, 0, id="well"),
            pytest.param([], Answer(Spoken.NOTHING, why="refused"), 1, id="warning"),
            pytest.param([], Answer(Spoken.TLS), 78, id="error"),
        ],
    )
    def test_status_is_that_of_the_worst_finding(
        self, arguments: list[str], answer: Answer | None, status: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The last line counts them."""
        assert doctor(*arguments, answer=answer) == status
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"{int(status == 78)} error")

    def test_options_reach_the_checks(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each of them, beside flags of settings in any order."""
        cert = str(authority().issue("app.example").write(tmp_path))
        options = ["--name", "app.example", "--idle-timeout", "50s", "--balancer=alb", "--balancer-idle", "40s"]
        options += ["--stop-timeout=8s", "--clock", "[::1]:80", "--tls-cert", cert, "--name", "b.example,c.example"]
        doctor(*options)
        out = capsys.readouterr().out
        for line in (
            f"ok: names: {cert} is for app.example",
            "error: names: no certificate is for b.example",
            "error: names: no certificate is for c.example",
            "ok: balancer-idle: idle connections: ours close after 50s, those of an ALB after 40s",
            "SIGKILL comes 8s after SIGTERM (as --stop-timeout says)",
            "unchecked: clock: [::1]:80 did not tell the time",
        ):
            assert line in out


class TestJson:
    def test_object_is_all_there_is_on_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With the same status."""
        assert doctor("--json", answer=Answer(Spoken.TLS)) == 78
        answer = json.loads(capsys.readouterr().out)
        assert set(answer) == {"version", "platform", "findings", "counts"}
        assert answer["findings"][0]["severity"] == "error"
        assert sum(answer["counts"].values()) == len(answer["findings"])


class TestOutput:
    def test_closed_output_shows_in_the_status(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was to be read was not; nothing is raised."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as closed:
            monkeypatch.setattr(sys, "stdout", closed)
            assert doctor() == 1

    def test_no_output_at_all_leaves_the_status(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was closed before the start."""
        monkeypatch.setattr(sys, "stdout", None)
        assert doctor(answer=Answer(Spoken.TLS)) == 78

    def test_full_disk_shows_in_the_status(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error stays one."""
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert doctor() == 1
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert doctor(answer=Answer(Spoken.TLS)) == 78

    def test_odd_terminal_gets_escapes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host name in another script does not end in a traceback where the terminal knows ASCII only."""
        written = io.BytesIO()
        with io.TextIOWrapper(written, "ascii") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            doctor("--listen=ü")
            assert b"\\xfc" in written.getvalue()


class TestTerminal:
    @pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
    def test_files_and_certificates_do_not_steer_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
    ) -> None:
        """Neither a file's name nor a subject gets an escape sequence or a line break through."""
        odd = "\x1b]0;x\x07\x9b31m\u202e\x7f\r\n"
        issued = authority().issue(
            "a.example", subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"a{odd}b")]), not_after=NOW
        )
        directory = tmp_path / odd.replace("\r\n", "")
        directory.mkdir()
        issued.write(directory)
        doctor(*arguments, SIDECAR_TLS_CERT=str(issued.write(tmp_path)))
        doctor(*arguments, SIDECAR_TLS_CERT=str(directory), SIDECAR_CONFIG=f"{directory}/none")
        doctor(*arguments, f"--no-such{odd}", odd)
        out = capsys.readouterr().out
        assert "u202e" in out
        assert all(c == "\n" or c.isprintable() for c in out)


class TestDispatch:
    def test_command_is_known_to_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        """In the help, and as a guess."""
        assert cli_main(["doctor", "--help"], {}) == 0
        assert cli_main(["help"], {}) == 0
        assert "sidecar doctor --help" in capsys.readouterr().out
        assert cli_main(["docter"], {}) == 2
        assert "doctor" in capsys.readouterr().err
