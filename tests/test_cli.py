"""`sidecar.cli`: the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

import sidecar
from sidecar import __version__
from sidecar.cli import main
from sidecar.config.load import Loaded, load
from sidecar.config.names import SETTINGS
from sidecar.config.topology import topology_of
from sidecar.errors import ConfigError, Problem
from tests.support.program import environment

ROOT = Path(sidecar.__file__).parent.parent


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """What the worker was started with; the worker is a fake that ends with status 3."""
    calls: list[Loaded] = []

    def run(loaded: Loaded, reread: Callable[[], Loaded]) -> int:
        calls.append(loaded)
        return 3

    worker = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "sidecar.worker", worker)  # type: ignore[arg-type]
    monkeypatch.setattr("sidecar.worker", worker, raising=False)
    return calls


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which $PYTHON is the interpreter."""
    environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    return subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT)


class TestRun:
    def test_good_settings_reach_the_worker(self, served: list[Loaded]) -> None:
        """`run` hands the settings to the worker and ends with its status."""
        assert main(["run", "--admin", "off"], {"SIDECAR_LISTEN": ":8443"}) == 3
        assert served[0].settings.admin is None
        assert served[0].sources["listen"] == "environment"

    def test_all_problems_are_lines_on_standard_error(
        self, served: list[Loaded], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Problems of flags, variables, values, rules and files come in one round; status 78; no start."""
        environ = {"SIDECAR_LISTNE": ":1", "SIDECAR_MAX_HEADERS": "0", "SIDECAR_TLS_CERT": "/nonexistent"}

        assert main(["run", "--tls-kye=x", "--client-cert=required"], environ) == 78

        captured = capsys.readouterr()
        assert served == []
        assert captured.out == ""
        assert [line.split(" (")[0] for line in captured.err.splitlines()] == [
            "sidecar: --tls-kye",
            "sidecar: SIDECAR_LISTNE",
            "sidecar: SIDECAR_MAX_HEADERS",
            "sidecar: SIDECAR_TLS_CERT",
            "sidecar: --client-ca",
        ]

    def test_problem_found_by_the_worker_is_a_line_too(
        self, served: list[Loaded], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A ConfigError from the worker ends like any other."""

        def run(loaded: Loaded, reread: Callable[[], Loaded]) -> int:
            raise ConfigError([Problem("SIDECAR_LISTEN", "default", "the port is taken", "choose another")])

        monkeypatch.setattr("sidecar.worker.run", run)

        assert main(["run"], {}) == 78
        assert capsys.readouterr().err == "sidecar: SIDECAR_LISTEN (default): the port is taken; choose another\n"


class TestWaiting:
    def test_file_that_may_still_come_is_left_to_the_worker(self, served: list[Loaded], tmp_path: Path) -> None:
        """A volume may be filled a moment later."""
        assert main(["run", "--tls-cert", str(tmp_path / "tls.crt")], {}) == 3

    def test_nothing_is_waited_for_in_vain(
        self, served: list[Loaded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Where something else is wrong as well, or waiting is off, all that is wrong is told at once."""
        cert = ["--tls-cert", str(tmp_path / "tls.crt")]
        assert main(["run", *cert, "--wait", "0"], {}) == 78
        assert main(["run", *cert, "--client-cert", "required"], {}) == 78
        assert capsys.readouterr().err.count("--tls-cert (flag)") == 2
        assert served == []


class TestCheck:
    def test_good_settings_are_ok(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`check` says so on standard output."""
        assert main(["check"], {}) == 0
        assert capsys.readouterr().out == "configuration ok\n"

    def test_warnings_follow_and_do_not_fail(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What is only doubtful is a warning."""
        assert main(["check", "--idle-timeout=30"], {}) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == "configuration ok"
        assert out[1].startswith("warning: --idle-timeout (flag): 30s")

    def test_problems_fail_with_78(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Problems go to standard error, one a line."""
        assert main(["check", "--log-level=loud", "--admin=x"], {}) == 78
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 2

    def test_private_key_in_a_variable_is_not_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Key material given where a path belongs does not reach a terminal or log."""
        pem = "-----BEGIN PRIVATE KEY-----\nMIIEsecret\n-----END PRIVATE KEY-----\n"

        assert main(["check"], {"SIDECAR_TLS_KEY": pem, "SIDECAR_TLS_PEM": pem, "SIDECAR_LISTEN": pem}) == 78
        captured = capsys.readouterr()
        assert "MIIE" not in captured.out + captured.err
        assert len(captured.err.splitlines()) == 3


class TestConfig:
    def test_effective_settings_are_printed_with_sources(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`config` prints every setting."""
        assert main(["config", "--tls-cert=/nonexistent"], {"SIDECAR_ADMIN": "off"}) == 0
        out = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
        assert list(out) == list(SETTINGS)
        assert out["tls_cert"].split() == ["tls_cert:", "/nonexistent", "#", "flag"]
        assert out["admin"].split() == ["admin:", "off", "#", "environment"]

    def test_value_that_cannot_be_read_fails_with_78(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Settings that cannot be read cannot be shown."""
        assert main(["config", "--listen=x"], {}) == 78
        assert capsys.readouterr().err.startswith("sidecar: --listen (flag): ")


ENVOY_FILES = sorted((ROOT / "tests" / "config" / "envoy").glob("*.yaml"))
"""Examples of bootstrap files."""


class TestEnvoy:
    @pytest.fixture
    def envoy(self, tmp_path: Path) -> str:
        """A bootstrap file of which line 6 is not carried over; it needs no key material."""
        file = tmp_path / "envoy.yaml"
        file.write_text(
            """\
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: 10080}}
    stat_prefix: plain
    surprise: 1
    filter_chains:
    - filters:
      - name: http_connection_manager
        typed_config:
          route_config:
            virtual_hosts:
            - domains: ["*"]
              routes:
              - match: {prefix: /}
                redirect: {https_redirect: true}
"""
        )
        return str(file)

    @pytest.mark.parametrize("by_flag", [True, False])
    def test_file_reaches_the_worker_with_its_notes(self, served: list[Loaded], envoy: str, by_flag: bool) -> None:
        """`run --envoy FILE`, or SIDECAR_ENVOY, takes the settings from there; what is left out goes along."""
        arguments, environ = (["--envoy", envoy], {}) if by_flag else ([], {"SIDECAR_ENVOY": envoy})

        assert main(["run", *arguments], environ) == 3
        assert served[0].source_of("listeners[0].name") == f"{envoy}:3"
        assert served[0].notes[0].startswith(f"{envoy}: not carried over: static_resources.listeners[0].surprise (line")

    def test_what_is_left_out_is_a_warning_of_check(self, envoy: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It does not fail; the warning names file, path and line."""
        assert main(["check", "--envoy", envoy], {}) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == "configuration ok"
        start = f"warning: {envoy}: not carried over: static_resources.listeners[0].surprise (line 6): '1': "
        assert out[1].startswith(start)

    @pytest.mark.parametrize(
        ("arguments", "prefix"),
        [
            (["check", "--envoy"], ""),
            (["run", "--envoy"], "sidecar: "),
            (["config", "--envoy"], "sidecar: "),
            (["import-envoy"], "sidecar: "),
        ],
        ids=lambda each: each[0] if isinstance(each, list) else "",
    )
    def test_strict_makes_it_an_error(
        self, served: list[Loaded], envoy: str, arguments: list[str], prefix: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With --strict no command does anything but say so, on standard error, and end with 78."""
        assert main([*arguments, envoy, "--strict"], {}) == 78
        captured = capsys.readouterr()
        assert (captured.out, served) == ("", [])
        assert captured.err.startswith(
            f"{prefix}static_resources.listeners[0].surprise ({envoy}:6): '1' is not carried"
        )
        assert captured.err.count("\n") == 1

    @pytest.mark.parametrize("command", ["check", "run", "config"])
    @pytest.mark.parametrize("variables", [{"SIDECAR_CONFIG": "x.yaml"}, {}], ids=["variable", "flag"])
    def test_file_beside_one_of_ours_is_an_error(
        self,
        served: list[Loaded],
        envoy: str,
        command: str,
        variables: dict[str, str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Which of the two counts is nothing to guess."""
        flag = [] if variables else ["--config", "x.yaml"]

        assert main([command, "--envoy", envoy, *flag], variables) == 78
        assert served == []
        [line] = capsys.readouterr().err.splitlines()
        assert "--envoy (flag): " in line
        assert "x.yaml; give one of the two" in line

    @pytest.mark.parametrize("arguments", [["check", "--envoy"], ["run", "--envoy"], ["import-envoy"]])
    @pytest.mark.parametrize(
        ("content", "fact"),
        [(None, "No such file"), (b"\xff", "UTF-8"), (b"- x", "no mapping"), (b"{}", "there are no listeners")],
        ids=["missing", "binary", "no-bootstrap", "empty"],
    )
    def test_file_that_cannot_be_read_is_one_line(
        self,
        served: list[Loaded],
        tmp_path: Path,
        arguments: list[str],
        content: bytes | None,
        fact: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The line names the file, and the status is 78."""
        file = tmp_path / "envoy.yaml"
        if content is not None:
            file.write_bytes(content)

        assert main([*arguments, str(file)], {}) == 78
        captured = capsys.readouterr()
        assert (captured.out, served) == ("", [])
        [line] = captured.err.splitlines()
        assert str(file) in line
        assert fact in line

    def test_settings_that_the_listeners_would_hide_are_an_error(
        self, envoy: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A flag that would have no effect beside the listeners of the file is not ignored."""
        assert main(["check", "--envoy", envoy, "--listen", ":9000"], {}) == 78
        assert capsys.readouterr().err.startswith("--listen (flag): it would be ignored")


class TestImportEnvoy:
    @pytest.mark.parametrize("file", ENVOY_FILES, ids=lambda file: file.stem)
    @pytest.mark.parametrize("arguments", [["import-envoy"], ["import-envoy", "--envoy"]], ids=["word", "flag"])
    def test_printed_file_means_the_same(
        self, file: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is printed, given as --config, makes the same listeners, routes, clusters and settings as --envoy."""
        assert main([*arguments, str(file)], {}) == 0
        captured = capsys.readouterr()
        printed = tmp_path / "sidecar.yaml"
        printed.write_text(captured.out)
        ours, theirs = load({"config": str(printed)}, {}), load({"envoy": str(file)}, {})

        assert captured.err == ""
        assert topology_of(ours) == topology_of(theirs)
        assert ours.settings == theirs.settings

    def test_no_file_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A file has to be named; SIDECAR_ENVOY is for the program that runs."""
        assert main(["import-envoy"], {"SIDECAR_ENVOY": "envoy.yaml"}) == 78
        assert "no file is named; write its path behind it" in capsys.readouterr().err

    @pytest.mark.parametrize("argument", ["--strcit", "other.yaml"])
    def test_wrong_argument_is_an_error(self, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A slip in --strict does not pass for a strict import."""
        assert main(["import-envoy", str(ENVOY_FILES[0]), argument], {}) == 78
        assert argument in capsys.readouterr().err


class TestHelp:
    @pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["run", "--help"], ["check", "-h", "--bad"]])
    def test_help_lists_commands_and_settings(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Help is on standard output and a success, whatever else is on the line."""
        assert main(arguments, {}) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: sidecar ")
        assert "--tls-cert VALUE" in out
        assert "\n  version " in out
        assert "\n  import-envoy " in out
        assert "\n  inject " in out

    @pytest.mark.parametrize("arguments", [["version"], ["--version"]])
    def test_version_names_what_it_runs_on(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """The version has a line each for the program, Python, Twisted and OpenSSL, and for how our code runs."""
        assert main(arguments, {}) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"sidecar {__version__}"
        assert [line.split()[0] for line in out] == ["sidecar", "Python", "Twisted", "OpenSSL", "hot"]

    @pytest.mark.parametrize(
        ("suffix", "form"), [(EXTENSION_SUFFIXES[0], "compiled"), (".py", "interpreted")], ids=["native", "source"]
    )
    def test_version_says_whether_the_hot_path_is_compiled(
        self, suffix: str, form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is loaded for the codec of HTTP/1.1 tells."""
        spec = ModuleSpec("sidecar.wire.http1", None, origin=f"/lib/sidecar/wire/http1{suffix}")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == spec.name else None)
        assert main(["version"], {}) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"hot path {form}"


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "say what to do first"),
            (["--listen", ":443"], "say what to do first"),
            (["chekc"], "did you mean check?"),
            (["injetc"], "did you mean inject?"),
            (["\n"], "there is no command '\\n'"),
        ],
    )
    def test_unknown_command_is_a_usage_error(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A wrong command is one line and status 2."""
        assert main(arguments, {}) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.count("\n") == 1


class TestProgram:
    def test_arguments_and_environment_default_to_the_process(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The console script calls main without arguments."""
        monkeypatch.setattr(sys, "argv", ["sidecar", "config"])
        for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("SIDECAR_ADMIN", "off")

        assert main() == 0
        assert "off" in capsys.readouterr().out

    def test_exit_status_reaches_the_shell(self) -> None:
        """`python -m sidecar` ends with the status of main."""
        assert shell("$PYTHON -m sidecar check --listen=x").returncode == 78

    @pytest.mark.parametrize("command", ["config", "--help", "check", "version"])
    def test_closed_output_is_silent(self, command: str) -> None:
        """A reader that went away, as `head` does, causes no traceback."""
        reader, writer = os.pipe()
        os.close(reader)

        result = subprocess.run(
            [sys.executable, "-m", "sidecar", command],
            env=environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )

        os.close(writer)
        assert (result.returncode, result.stderr) == (1, b"")

    def test_full_disk_is_one_line(self) -> None:
        """Output that cannot be written is reported in one line."""
        result = shell("$PYTHON -m sidecar config > /dev/full")

        assert result.returncode == 1
        assert result.stderr == "sidecar: standard output: No space left on device\n"

    @pytest.mark.parametrize("command", ["run --listen=x", "check --listen=x", "config --listen=x"])
    @pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "1>&- 2>&-", "0<&- 1>&- 2>/dev/full"])
    def test_problems_that_nobody_can_read_keep_their_status(self, command: str, where: str) -> None:
        """A standard error that is closed or full changes no status, and nothing goes elsewhere."""
        result = shell(f"$PYTHON -m sidecar {command} {where}")

        assert (result.returncode, result.stdout, result.stderr) == (78, "", "")

    def test_usage_error_that_nobody_can_read_keeps_its_status(self) -> None:
        """The same for a wrong command."""
        assert shell("$PYTHON -m sidecar chekc 2>/dev/full").returncode == 2
        assert shell("$PYTHON -m sidecar chekc 2>&-").returncode == 2

    def test_problems_whose_reader_went_away_keep_their_status(self) -> None:
        """A broken pipe on standard error is no traceback either."""
        reader, writer = os.pipe()
        os.close(reader)

        result = subprocess.run(
            [sys.executable, "-m", "sidecar", "check", "--listen=x"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=writer,
            cwd=ROOT,
        )

        os.close(writer)
        assert (result.returncode, result.stdout) == (78, b"")

    @pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
    def test_full_disk_on_both_keeps_its_status(self, where: str) -> None:
        """Output that cannot be written is a failure also where that cannot be told."""
        assert shell(f"$PYTHON -m sidecar config >/dev/full {where}").returncode == 1

    def test_output_that_was_closed_before_is_no_failure(self) -> None:
        """Who closes standard output wants the status only."""
        result = shell("$PYTHON -m sidecar check >&-")

        assert (result.returncode, result.stderr) == (0, "")

    def test_missing_standard_error_is_no_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python has None for a standard error that was closed before it started."""
        monkeypatch.setattr(sys, "stderr", None)

        assert main(["check", "--listen=x"], {}) == 78

    def test_ascii_terminal_gets_escapes(self) -> None:
        """Text that the terminal's encoding lacks is escaped, not a traceback."""
        result = shell("PYTHONIOENCODING=ascii $PYTHON -m sidecar check --listen=ü")

        assert result.returncode == 78
        assert "\\xfc" in result.stderr

    def test_commands_without_a_file_do_not_import_yaml_or_twisted(self) -> None:
        """What a start does not need is not imported."""
        code = "import sys, sidecar.cli; sidecar.cli.main(['check'], {}); print({'yaml', 'twisted'} & {*sys.modules})"

        assert shell(f'$PYTHON -c "{code}"').stdout.splitlines() == ["configuration ok", "set()"]
