"""Ensures that the image holds what runs and nothing else: no key, no tools, no root, and a list of what is in it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.certs import authority
from tests.support.engines import HARDENED, docker
from tests.support.program import ROOT

MOST_BYTES = 120 * 1000 * 1000
"""Unpacked."""

KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+(?:[A-Za-z0-9+/=,: -]+\s+)*?[A-Za-z0-9+/=]{40}")
"""A key in PEM: code that only speaks of one has no base64 behind it."""

SUSPECT_NAMES = re.compile(r"\.(?:key|p12|pfx|jks|der|kdbx)$|(?:^|/)(?:id_\w+|\.netrc|\.pypirc|\.env|pip\.conf)$")


def members(image: str) -> Iterator[tuple[str, bytes]]:
    """Every file in every layer, also what a later layer hides: name and content."""
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            layer = archive.extractfile(name)
            assert layer is not None
            with tarfile.open(fileobj=io.BytesIO(layer.read())) as files:
                for member in files:
                    content = files.extractfile(member) if member.isfile() else None
                    if content is not None:
                        yield member.name, content.read()


def suspects(image: str) -> list[str]:
    """The files in the layers of *image* that are or look like secrets."""
    return [name for name, content in members(image) if SUSPECT_NAMES.search(name) or KEY.search(content)]


@pytest.fixture(scope="module")
def configuration(image: str) -> dict[str, Any]:
    """What the image says of how to run it."""
    inspected: list[dict[str, Any]] = json.loads(docker("inspect", image))
    return inspected[0]


@pytest.fixture(scope="module")
def files(image: str) -> dict[str, bytes]:
    """What is in it."""
    return dict(members(image))


class TestConfiguration:
    def test_it_says_how_it_is_run(self, configuration: dict[str, Any]) -> None:
        """Nobody's user by number, the signal that drains, the health check without a shell."""
        config = configuration["Config"]
        assert config["User"] == "65532:65532"
        assert config["StopSignal"] == "SIGTERM"
        assert config["Healthcheck"]["Test"] == ["CMD", "sidecar", "healthcheck"]
        assert config["Healthcheck"]["StartInterval"] >= 2e9, "sooner, it slows down the start that it waits for"
        assert config["Entrypoint"] == ["/usr/bin/entrypoint.sh"]
        assert list(config["ExposedPorts"]) == ["443/tcp"]

    def test_labels_are_the_standards(self, configuration: dict[str, Any]) -> None:
        """The OCI annotations that registries show; the version is the program's."""
        labels = configuration["Config"]["Labels"]
        version = docker("run", "--rm", *HARDENED, configuration["Id"], "version").splitlines()[0].split()[-1]
        assert labels["org.opencontainers.image.version"] == version
        assert {"title", "description", "licenses", "revision"} <= {name.rpartition(".")[2] for name in labels}

    def test_hot_path_is_compiled(self, configuration: dict[str, Any]) -> None:
        """The program in the image says that it is, and so has loaded what was compiled."""
        said = docker("run", "--rm", *HARDENED, configuration["Id"], "version").splitlines()
        assert said[-1] == "hot path compiled"

    def test_it_is_small(self, configuration: dict[str, Any]) -> None:
        """At most 120 MB unpacked."""
        assert configuration["Size"] <= MOST_BYTES


class TestContents:
    def test_no_layer_has_a_key(self, image: str) -> None:
        """No private key and no file named like one, in any layer."""
        assert suspects(image) == []

    def test_a_key_would_be_found(self, image: str, tmp_path: Path) -> None:
        """Also one that a later layer deletes: this test's check can fail."""
        (tmp_path / "harmless.txt").write_bytes(authority().issue("localhost").key_pem)
        # The image has no `rm`, and no user but its own may change /certs.
        (tmp_path / "Dockerfile").write_text(
            f"FROM {image}\nCOPY --chown=65532 harmless.txt /certs/\n"
            'RUN ["python", "-c", "import os; os.remove(\'/certs/harmless.txt\')"]\n'
        )
        poisoned = docker("build", "--quiet", tmp_path)
        try:
            assert suspects(poisoned) == ["certs/harmless.txt"]
        finally:
            docker("rmi", poisoned)

    def test_there_is_nothing_to_run_but_the_program(self, files: dict[str, bytes]) -> None:
        """A shell for the entrypoint, Python, and ourselves."""
        programs = {name for name in files if re.search(r"(?:^|/)s?bin/[^/]+$", name)}
        python = {name for name in programs if re.fullmatch(r"usr/bin/python3\.\d+", name)}
        assert len(python) == 1
        assert programs - python == {"opt/sidecar/bin/sidecar", "usr/bin/dash", "usr/bin/entrypoint.sh"}

    def test_all_of_it_is_compiled(self, files: dict[str, bytes]) -> None:
        """No start compiles anything: beside each module lies its bytecode, which goes by no timestamp."""
        modules = [name for name in files if name.endswith(".py")]
        assert len(modules) > 400
        for name in modules:
            directory, _, module = name.rpartition("/")
            compiled = [each for each in files if each.startswith(f"{directory}/__pycache__/{module[:-3]}.cpython-")]
            assert len(compiled) == 1, name
            assert int.from_bytes(files[compiled[0]][4:8], "little") == 1, f"{name} is checked by timestamp or hash"

    def test_all_of_it_can_be_imported(self, image: str) -> None:
        """What was left out is missed by none of our modules."""
        script = (
            "import importlib, pkgutil, sidecar; "
            "print(len([importlib.import_module(each.name) for each in "
            "pkgutil.walk_packages(sidecar.__path__, 'sidecar.') if not each.name.endswith('__main__')]))"
        )
        count = docker("run", "--rm", *HARDENED, "--entrypoint", "python", image, "-W", "error", "-c", script)
        assert int(count) > 100

    def test_only_public_cas_are_trusted(self, image: str, files: dict[str, bytes]) -> None:
        """Those of Debian's package: none that the machine which built the image trusts for itself."""
        own = docker(
            "run",
            "--rm",
            "debian:trixie-slim",
            "sh",
            "-c",
            "cat /usr/local/share/ca-certificates/*.crt 2>/dev/null; true",
        )
        bundle = files["etc/ssl/certs/ca-certificates.crt"].decode()
        assert bundle.count("BEGIN CERTIFICATE") > 100
        for certificate in re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", own, re.DOTALL):
            assert certificate not in bundle

    def test_scanners_find_what_is_in_it(self, files: dict[str, bytes]) -> None:
        """The package database has the packages; the bill of materials has these, and what the lock file names."""
        stanzas = files["var/lib/dpkg/status"].decode().strip().split("\n\n")
        debian = {
            (fields["Package"], fields["Version"]) for fields in (HeaderParser().parsestr(each) for each in stanzas)
        }
        listed = {
            (each["name"].lower().replace("_", "-").replace(".", "-"), each["version"])
            for each in json.loads(files["usr/share/sbom/sbom.cdx.json"])["components"]
        }
        locked = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)

        assert {"dash", "libc6", "python3.13-minimal"} <= {name for name, _ in debian}
        assert {(name.replace(".", "-"), version) for name, version in debian} <= listed
        assert {(name, version) for name, version in locked} <= listed
        assert {"openssl", "tls-sidecar"} <= {name for name, _ in listed}, "of what is compiled in, and ourselves"
        for name, _ in debian:
            assert f"usr/share/doc/{name}/copyright" in files, "licences go with what they are for"


class TestSources:
    def test_no_architecture_is_named(self) -> None:
        """What makes the image does so on any architecture."""
        for name in ("Dockerfile", "entrypoint.sh", "image/rootfs.py", "image/sbom.py"):
            code = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
            assert not re.search(r"x86|amd64|arm64|aarch64", "\n".join(code)), name
