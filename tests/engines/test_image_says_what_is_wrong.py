"""Ensures that a container that cannot work ends within two seconds, with a status that tells and one readable line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from tests.support.certs import authority
from tests.support.engines import HARDENED, Container, docker, run

MOST_SECONDS = 2.0
OTHER_MACHINE = 0xF7
"""Of an ELF file: one that this is not (Berkeley Packet Filter)."""


@attrs.frozen
class End:
    """How a container ended: its exit status, what it said, and how long the engine says that it ran."""

    status: int
    out: str
    err: str
    seconds: float


def run_to_end(image: str, *command: str, options: Sequence[str] = ()) -> End:
    """Run a container that ends by itself."""
    began_at = time.monotonic()
    done = run("docker", "run", "--rm", *HARDENED, *options, image, *command, statuses=range(256), seconds=60)
    return End(done.returncode, done.stdout, done.stderr, time.monotonic() - began_at)


def assert_one_line(end: End, pattern: str, status: int = 78) -> None:
    """It said one line on standard error that *pattern* describes, in time."""
    assert end.status == status, end
    assert end.out == ""
    assert end.err.count("\n") == 1, end.err
    assert re.match(pattern, end.err), end.err
    assert end.seconds < MOST_SECONDS, end


@pytest.fixture
def foreign(image: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The image with one file that was made for another machine."""
    change = (
        f"import glob; path, = glob.glob('{request.param}'); file = open(path, 'r+b'); file.seek(18); "
        f"file.write(bytes([{OTHER_MACHINE}, 0]))"
    )
    (tmp_path / "Dockerfile").write_text(f'FROM {image}\nUSER 0\nRUN ["python", "-c", "{change}"]\nUSER 65532:65532\n')
    made = docker("build", "--quiet", tmp_path)
    yield made
    docker("rmi", made)


class TestArchitecture:
    @pytest.mark.parametrize("foreign", ["/usr/bin/dash"], indirect=True)
    def test_wrong_image_is_the_engines_to_name(self, foreign: str) -> None:
        """Not one of our instructions can run: the kernel says so, and the engine passes it on, in one line."""
        end = run_to_end(foreign)
        assert end.status in (1, 255)
        assert re.search(r"exec /usr/bin/entrypoint\.sh: exec format error", end.out + end.err)
        assert end.seconds < MOST_SECONDS

    @pytest.mark.parametrize(
        "foreign", ["/opt/sidecar/lib/python3*/site-packages/cryptography/hazmat/bindings/_rust.abi3.so"], indirect=True
    )
    def test_wrong_library_is_one_line(self, foreign: str) -> None:
        """An image that was put together from two architectures."""
        assert_one_line(run_to_end(foreign), r"sidecar: /opt/\S+\.so cannot be loaded \(.+\): .+; .+ linux/\w+\n")


class TestSecrets:
    def test_nothing_mounted(self, image: str) -> None:
        """Nobody can put a certificate there any more, so it is not waited for."""
        end = run_to_end(image, options=["--env", "SIDECAR_TLS_CERT=/certs"])
        assert_one_line(
            end, r"sidecar: SIDECAR_TLS_CERT \(environment\): /certs is a directory without tls\.crt; put .+"
        )

    def test_wrong_path(self, image: str) -> None:
        """The same for a path that is not in the image."""
        end = run_to_end(image, options=["--env", "SIDECAR_TLS_CERT=/run/secrets/cert"])
        assert_one_line(end, r"sidecar: SIDECAR_TLS_CERT \(environment\): /run/secrets/cert does not exist; correct .+")

    def test_key_is_missing(self, image: str) -> None:
        """A certificate as a value, without its key."""
        pem = authority().issue("app.example").cert_pem.decode()
        end = run_to_end(image, options=["--env", f"SIDECAR_TLS_CERT={pem}"])
        assert_one_line(end, r"sidecar: SIDECAR_TLS_CERT \(environment\): .*key.*; .+")

    def test_unreadable_mount(self, image: str, tmp_path: Path) -> None:
        """The line names the user who may not read it."""
        authority().issue("app.example").write(tmp_path)
        for file in tmp_path.iterdir():
            file.chmod(0o600)
        tmp_path.chmod(0o755)
        end = run_to_end(image, options=["--volume", f"{tmp_path}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs"])
        assert_one_line(
            end, r"sidecar: SIDECAR_TLS_\w+ \(environment\): user 65532, .+ may not read /certs/tls\.\w+; .+"
        )

    def test_unreadable_directory(self, image: str, tmp_path: Path) -> None:
        """A mount that may not even be looked into."""
        authority().issue("app.example").write(tmp_path)
        tmp_path.chmod(0o700)
        end = run_to_end(image, options=["--volume", f"{tmp_path}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs"])
        assert_one_line(end, r"sidecar: SIDECAR_TLS_CERT \(environment\): user 65532, .+ may not read /certs.*; .+")


class TestWriting:
    def test_certs_need_a_place_to_write(self, image: str) -> None:
        """The one command that writes files says where it cannot."""
        end = run_to_end(image, "certs", "ca")
        assert_one_line(end, r"sidecar certs: ca/ca\.key cannot be written: [Rr]ead-only file system; name .+")

    def test_full_standard_output_is_no_reason_to_stop(self, image: str) -> None:
        """Nothing else is written: what cannot be said is lost, and `check` tells so by its status."""
        end = run_to_end(image, "-c", "exec sidecar check >/dev/full", options=["--entrypoint", "/bin/sh"])
        assert_one_line(end, r"sidecar: standard output: No space left on device\n", status=1)


class TestPort:
    def test_line_names_the_ways_out(self, image: str) -> None:
        """Where users may not listen below 1024, as in many clusters: three ways, in one line."""
        end = run_to_end(image, options=["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"])
        assert_one_line(
            end, r"sidecar: SIDECAR_LISTEN \(default\): cannot listen on 0\.0\.0\.0:443: Permission denied; .+"
        )
        for way in ("net.ipv4.ip_unprivileged_port_start=443", "8443", "CAP_NET_BIND_SERVICE"):
            assert way in end.err

    def test_each_way_leads_out(self, image: str) -> None:
        """The setting of the pod or task, another port, and root with the capability."""
        forbidden = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"]
        ways = [
            ["--sysctl", "net.ipv4.ip_unprivileged_port_start=443"],
            [*forbidden, "--env", "SIDECAR_LISTEN=0.0.0.0:8443"],
            [*forbidden, "--user", "0", "--cap-add", "NET_BIND_SERVICE"],
        ]
        for way in ways:
            with Container(image, options=[*way, "--env", "SIDECAR_LAME_DUCK=0"]) as sidecar:
                sidecar.wait_until_it_says("serving https")
                assert sidecar.stop() == 0
