"""`sidecar.cli_inject`: arguments in, a manifest, notes and a status out. What is put in is tested with `inject`."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli_inject import main
from tests.inject.manifests import CERT_ARN, KEY_ARN, deployment, pod, removed, task

ROOT = Path(__file__).parent.parent


class Terminal(io.BytesIO):
    """Somebody who sits there and waits."""

    def isatty(self) -> bool:
        return True


class Broken(io.BytesIO):
    """A pipe that cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


def refusal(capsys: pytest.CaptureFixture[str], status: int, *arguments: str, text: str | None = None) -> str:
    """Run it where it must fail; what it says."""
    assert main(arguments, io.BytesIO((text if text is not None else pod()).encode())) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("sidecar inject: ") for line in err.splitlines())
    return err


def run(*arguments: str, text: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run it as a program."""
    command = [sys.executable, "-m", "sidecar", "inject", *arguments]
    return subprocess.run(command, input=text.encode(), stderr=subprocess.PIPE, cwd=ROOT, **options)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            pytest.param(["--sceret", "x"], "unrecognized arguments: --sceret x; see sidecar inject --help", id="slip"),
            pytest.param(["--sec", "x"], "unrecognized arguments", id="abbreviation"),
            pytest.param(["file.yaml"], "unrecognized arguments: file.yaml", id="file"),
            pytest.param(["--port", "0"], "'0' is not a port from 1 to 65535", id="port-0"),
            pytest.param(["--port", "65536"], "'65536' is not a port", id="port-65536"),
            pytest.param(["--app-port", "٣"], "is not a port", id="other-digits"),
            pytest.param(["--secret", "a/b"], "'a/b' is not a name", id="secret"),
            pytest.param(["--secret", ""], "'' is not a name", id="empty-secret"),
            pytest.param(["--image", "a b"], "'a b' is not an image", id="image"),
            pytest.param(["--image", "\x1b[2J"], "is not an image", id="control-characters"),
            pytest.param(["--only", "/web"], "'/web' is neither NAME nor KIND/NAME", id="only-without-kind"),
            pytest.param(["--only", "a/b/c"], "'a/b/c' is neither NAME nor KIND/NAME", id="only-of-three"),
            pytest.param(["--secret"], "expected one argument", id="no-value"),
        ],
    )
    def test_wrong_arguments_are_one_line(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        """Status 2, nothing written, and never a usage text of ten lines."""
        said = refusal(capsys, 2, *arguments)
        assert message in said
        assert said.count("\n") == 1
        assert said[:-1].isprintable()

    def test_help_is_an_answer(self, capsys: pytest.CaptureFixture[str]) -> None:
        """On standard output, with success, and without anything piped in."""
        assert main(["--help"], Terminal()) == 0
        assert capsys.readouterr().out.startswith("usage: sidecar inject")

    @pytest.mark.parametrize(
        ("source", "message"), [(Terminal(), "nothing is piped in"), (Broken(), "standard input: Input/output error")]
    )
    def test_input_that_there_is_not_is_said(
        self, capsys: pytest.CaptureFixture[str], source: io.BytesIO, message: str
    ) -> None:
        """It does not wait for somebody to type a manifest."""
        assert main([], source) == 2
        assert message in capsys.readouterr().err


class TestInput:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("", "there is no document in it", id="nothing"),
            pytest.param("a: [}", "line 1: ", id="no-yaml"),
            pytest.param(
                pod().replace("metrics", "sidecar"), "Pod web: there is a container sidecar already", id="pod"
            ),
        ],
    )
    def test_what_cannot_be_done_is_one_line(self, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
        """Status 78, nothing written."""
        said = refusal(capsys, 78, text=text)
        assert message in said
        assert said.count("\n") == 1

    def test_settings_that_cannot_work_are_told_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A line for each, and status 78, as sidecar check has it."""
        assert refusal(capsys, 78, "--set", "idle_timeuot=1", "--set", "mode").count("\n") == 2

    def test_name_in_the_manifest_cannot_steer_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever wrote the manifest chose much of what is printed."""
        said = refusal(capsys, 78, "--app", "x", text=pod().replace("name: metrics", 'name: "\\e[2J"'))
        assert "\x1b" not in said


class TestOptions:
    def test_every_option_arrives(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What is on the command line is in the manifest."""
        arguments = ["--image=i@sha256:ab", "--app=metrics", "--app-port=5000", "--port=9443", "--secret=tls"]
        arguments += ["--client-ca-secret=ca", "--classic", "--set=mode=tcp", "--only=deployment/web"]
        assert main(arguments, io.BytesIO(deployment().encode())) == 0
        out, err = capsys.readouterr()
        [container] = yaml.safe_load(out)["spec"]["template"]["spec"]["containers"][2:]
        env = {each["name"]: each["value"] for each in container["env"]}
        assert container["image"] == "i@sha256:ab"
        assert env == {
            "SIDECAR_LISTEN": "0.0.0.0:9443",
            "SIDECAR_UPSTREAM": "http://127.0.0.1:5000",
            "SIDECAR_HEALTH": "0.0.0.0:8082",
            "SIDECAR_MAX_CONNECTIONS": "4000",
            "SIDECAR_TLS_CERT": "/certs",
            "SIDECAR_CLIENT_CERT": "required",
            "SIDECAR_CLIENT_CA": "/client-ca",
            "SIDECAR_MODE": "tcp",
        }
        assert "in front of container metrics on port 5000" in err

    def test_every_option_of_ecs_arrives(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The same for task definitions."""
        arguments = ["--cert-arn", CERT_ARN, "--key-arn", KEY_ARN, "--client-ca-arn", CERT_ARN]
        assert main(arguments, io.BytesIO(yaml.safe_dump(task()).encode())) == 0
        secrets = yaml.safe_load(capsys.readouterr().out)["containerDefinitions"][-1]["secrets"]
        assert [each["valueFrom"] for each in secrets] == [CERT_ARN, KEY_ARN, CERT_ARN]

    def test_remove_takes_it_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Also with the options of the first run still there."""
        assert main(["--secret=tls"], io.BytesIO(pod().encode())) == 0
        once = capsys.readouterr().out
        assert main(["--secret=tls", "--remove"], io.BytesIO(once.encode())) == 0
        assert capsys.readouterr() == (removed(pod()), "")


class TestProgram:
    def test_pipe_works(self) -> None:
        """As in kubectl get | sidecar inject | kubectl apply, whatever the locale is."""
        text = pod().replace("registry.example", "bücher.example")
        result = run(text=text, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
        assert result.returncode == 0
        assert "bücher.example" in result.stdout.decode()
        assert b"warning: no --secret" in result.stderr

    def test_full_disk_is_one_line(self) -> None:
        """Output that cannot be written is status 1."""
        with open("/dev/full", "wb") as full:
            result = run("--remove", text=pod(), stdout=full)
        assert result.returncode == 1
        assert result.stderr.endswith(b"sidecar inject: standard output: No space left on device\n")

    def test_reader_that_went_away_is_no_traceback(self) -> None:
        """kubectl may end early, for its own reasons, and says them."""
        reader, writer = os.pipe()
        os.close(reader)
        result = run("--remove", text=pod(), stdout=writer)
        os.close(writer)
        assert result.returncode == 1
        assert b"Traceback" not in result.stderr

    def test_nothing_heavy_is_imported(self) -> None:
        """It needs neither Twisted nor OpenSSL."""
        code = "import io, sys, sidecar.cli_inject as command; command.main([], io.BytesIO(b'a: b')); "
        code += "print({'twisted', 'OpenSSL'} & {*sys.modules})"
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout == "set()\n"
