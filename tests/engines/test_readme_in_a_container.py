"""Ensures that what README says of the image works as it stands there, but for names and the port."""

from __future__ import annotations

import re
import uuid

import pytest

from tests.support.engines import APP_IMAGE, IMAGE, docker, run
from tests.support.program import ROOT, Port

BLOCK = re.search(
    r"^\*\*In a container\*\*.*?^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.usefixtures("image", "app_image")
class TestReadme:
    def test_commands_do_what_it_says(self) -> None:
        """Each succeeds, curl prints the app's line, and nothing is left."""
        assert BLOCK is not None
        own = f"sidecar-test-{uuid.uuid4().hex[:12]}"
        commands = [line[2:] for line in BLOCK[1].splitlines() if line.startswith("$ ")]
        said = [line for line in BLOCK[1].splitlines() if not line.startswith("$ ")]
        assert {IMAGE, APP_IMAGE} <= set(re.findall(r"[\w-]+:[\d.]+(?= |$)", "\n".join(commands), re.MULTILINE))
        with Port() as port:
            try:
                outputs = [run("bash", "-c", _renamed(command, own, port.number)).stdout for command in commands]
            finally:
                docker("rm", "--force", f"{own}-sidecar", f"{own}-app")

        # `until` and `curl` say something; what else is printed are identifiers.
        answers = [
            output.strip()
            for command, output in zip(commands, outputs, strict=True)
            if command.startswith(("until", "curl"))
        ]
        for lines in (said, answers):
            assert len(lines) == 2
            assert re.fullmatch(r"healthy: 127\.0\.0\.1:443 speaks TLSv1\.3, certificate until .+ left\)", lines[0])
            assert re.fullmatch(r"Hello from [0-9a-f]{12}", lines[1])
        assert docker("ps", "--all", "--quiet", "--filter", f"name={own}") == ""


def _renamed(command: str, own: str, port: int) -> str:
    """The same with other containers and another port."""
    command = re.sub(r"(--name |container:|docker exec )(app|sidecar)\b", rf"\1{own}-\2", command)
    command = re.sub(r"\b(docker (?:stop|rm)) sidecar app\b", rf"\1 {own}-sidecar {own}-app", command)
    command = command.replace(
        "curl ", "curl --silent --retry 20 --retry-connrefused --retry-all-errors --retry-delay 1 "
    )
    return command.replace("9443", str(port))
