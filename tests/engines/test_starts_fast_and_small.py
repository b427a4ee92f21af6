"""
Ensures that the image, on a quarter of a CPU and 128 MiB, answers within 1.5 s, idles in 60 MB and fails within 2 s.

The first is judged by the CPU time that the kernel charged to the container, and not by the clock, which on a busy
machine measures the neighbours: a quota of 0.25 CPUs is 25 ms in each period of 100 ms, so in 1.5 s, whenever they
begin, a container can use that of 15 periods and of the one that is cut. What needs no more is in time on a CPU that is
free. Neighbours that push it out of the caches add CPU time, too, so one start of several has to be in time.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bench import cgroups
from bench.procfs import read_alone_bytes
from tests.support.certs import authority
from tests.support.engines import Container
from tests.support.program import eventually

LIMITS = ("--cpus", "0.25", "--memory", "128m")

MOST_CPU_SECONDS = (15 + 1) * 0.025
MOST_BYTES = 60_000_000
MOST_SECONDS_TO_FAIL = 2.0

STARTS = 10
"""At most: one that is in time shows that the image can be."""
POLL_SECONDS = 0.005
ANSWER_SECONDS = 60.0
IDLE_SECONDS = 3.0


@pytest.fixture(scope="module")
def app(app_image: str) -> Iterator[Container]:
    """An app that is up already."""
    with Container(app_image, hardened=False) as app:
        app.wait_until_healthy()
        yield app


def beside(app: Container, image: str, *options: str) -> Container:
    # On a busy machine the first check would begin before the answer has come, and be counted with the start.
    return Container(image, options=(*LIMITS, "--no-healthcheck", "--network", f"container:{app.name}", *options))


def answers(address: str) -> bool:
    """Ask for a page over TLS; False: nobody is there yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        raw = socket.create_connection((address, 443), timeout=ANSWER_SECONDS)
        with raw, context.wrap_socket(raw) as tls:
            tls.sendall(b"GET /service HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return tls.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        time.sleep(POLL_SECONDS)
        return False


def group(container: Container, controller: str) -> Path:
    return cgroups.of_process(container.state["Pid"], controller)


class TestStart:
    @pytest.mark.parametrize("form", ["files", "ephemeral"])
    def test_first_answer_takes_no_more_than_a_quarter_cpu_gives_in_time(
        self, image: str, app: Container, form: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """From the container's first instruction to the answer of the app, through TLS."""
        options: tuple[str, ...] = ()
        if form == "files":
            directory = tmp_path_factory.mktemp("certs")
            authority().issue("localhost").write(directory)
            directory.chmod(0o755)  # the image's user is nobody here
            for file in directory.iterdir():
                file.chmod(0o444)
            options = ("--volume", f"{directory}:/certs:ro", "--env", "SIDECAR_TLS_CERT=/certs")
        used: list[float] = []
        while len(used) < STARTS and min(used, default=math.inf) > MOST_CPU_SECONDS:
            with beside(app, image, *options) as sidecar:
                eventually(lambda: answers(app.address), f"{sidecar.name} answers", ANSWER_SECONDS)
                used.append(cgroups.cpu_seconds(group(sidecar, "cpuacct")))
        assert min(used) <= MOST_CPU_SECONDS, used

    def test_idles_in_60_mb(self, image: str, app: Container) -> None:
        """By what the limit counts but the page cache, and by what all its processes map."""
        with beside(app, image) as sidecar:
            eventually(lambda: answers(app.address), f"{sidecar.name} answers", ANSWER_SECONDS)
            time.sleep(IDLE_SECONDS)
            assert cgroups.used_bytes(group(sidecar, "memory")) <= MOST_BYTES
            assert read_alone_bytes(sidecar.state["Pid"]) <= MOST_BYTES

    def test_wrong_settings_are_told_in_time(self, image: str, app: Container) -> None:
        """On the same quarter of a CPU, by the engine's clock; one of several again."""
        taken: list[float] = []
        while len(taken) < STARTS and min(taken, default=math.inf) >= MOST_SECONDS_TO_FAIL:
            with beside(app, image, "--env", "SIDECAR_LISTEN=nowhere") as sidecar:
                eventually(lambda: sidecar.state["Status"] == "exited", f"{sidecar.name} ends", ANSWER_SECONDS)
                state = sidecar.state
                assert state["ExitCode"] == 78
                assert sidecar.log.count("\n") == 1
                taken.append((moment(state["FinishedAt"]) - moment(state["StartedAt"])).total_seconds())
        assert min(taken) < MOST_SECONDS_TO_FAIL, taken


def moment(text: str) -> datetime:
    """A time as the engine writes it; a datetime holds microseconds, so further digits go."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
