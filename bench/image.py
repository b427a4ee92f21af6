"""
The image beside Envoy's, both under the limits of a small container: `python -m bench.image`, from the repository.

What is measured: time and CPU time from `docker run` to the first HTTPS answer, memory at idle after it, size. In turns
(A B C, A B C), each with a new container in the network namespace of an app that is up already. The client runs
outside, so its work is not within the limit. Exit codes: 0 all was measured; 1 something failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from bench import cgroups
from bench.certificate import write_certificates
from bench.clients import REPOSITORY
from bench.envoy import envoy_bootstrap
from bench.errors import BenchError, CannotRunError, MeasurementError
from bench.machine import cpu_model
from bench.peers import find_envoy
from bench.placement import Placement
from bench.procfs import read_alone_bytes
from bench.ratios import paired_ratio, spread
from bench.table import ABSENT, align, format_ratio

LIMITS = ("--cpus", "0.25", "--memory", "128m", "--read-only", "--cap-drop", "ALL", "--no-healthcheck")
"""What every container gets. Envoy's image has no health check, and Kubernetes and ECS ignore that of an image."""

IMAGE = "tls-sidecar:0.1.0"
APP_IMAGE = "hello-app:0.1.0"
ENVOY_IMAGE = "sidecar-bench-envoy"
ENVOY_DOCKERFILE = """\
FROM debian:trixie-slim
COPY --chmod=0755 {name} /usr/bin/envoy
USER 65532:65532
ENTRYPOINT ["/usr/bin/envoy"]
"""

APP_PORT = 8080
PORT = 443
PATH = "/service"
CERTIFICATES = "/certs"
REFERENCE = "envoy"

POLL_SECONDS = 0.002
"""A refused connection costs the client 50 us and the container nothing."""
ANSWER_TIMEOUT_SECONDS = 60.0
IDLE_SECONDS = 5.0
"""Between the first answer and the look at the memory."""
DEFAULT_TURNS = 7


@attrs.frozen
class Contender:
    """Something that is started: options of `docker run` and arguments for the image."""

    name: str
    image: str
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@attrs.frozen
class Start:
    """
    What one start took.

    Attributes:
        since_run: Seconds from the call of `docker run` to the first answer.
        since_started: Seconds from the engine's StartedAt to the first answer: without the engine's own share.
        cpu: CPU seconds of the container until then.
        used_bytes: Memory of the container at idle, without the page cache.
        resident_bytes: Resident memory of all its processes at idle, file pages counted in full.
    """

    since_run: float
    since_started: float
    cpu: float
    used_bytes: int
    resident_bytes: int


@attrs.frozen
class Size:
    """Bytes of an image: of its files, and of `docker save` after gzip, which is about what is pulled."""

    unpacked: int
    compressed: int


@attrs.frozen
class Figure:
    """A line of the table: how it is called, where it is in a `Start`, what to multiply it with, digits to show."""

    title: str
    attribute: str
    factor: float
    digits: int = 0


FIGURES = (
    Figure("first answer after docker run (ms)", "since_run", 1e3),
    Figure("first answer after StartedAt (ms)", "since_started", 1e3),
    Figure("CPU until then (ms)", "cpu", 1e3),
    Figure("memory at idle, cgroup (MB)", "used_bytes", 1e-6, 1),
    Figure("memory at idle, resident (MB)", "resident_bytes", 1e-6, 1),
)

Starts = Mapping[str, Mapping[int, Start]]
"""By contender and turn."""


def main(arguments: Sequence[str]) -> int:
    """Measure; print the report, or say why there is none. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.image", description=__doc__)
    parser.add_argument("--image", default=IMAGE, help=f"default {IMAGE}; it is not built here")
    parser.add_argument("--turns", type=int, default=DEFAULT_TURNS, help=f"default {DEFAULT_TURNS}")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the report there too")
    options = parser.parse_args(arguments)
    try:
        text = measure(options.image, options.turns)
    except BenchError as error:
        _tell(str(error))
        return 1
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    return 0


def measure(image: str, turns: int) -> str:
    """
    Measure everything; return the report.

    Raises:
        BenchError: Something that is needed is missing, or a contender does not answer.
    """
    if shutil.which("docker") is None:
        raise CannotRunError("docker is not installed")
    starts: dict[str, dict[int, Start]] = {}
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, _app() as app:
        contenders = _contenders(image, _shared_folder(Path(name)))
        for turn in range(1, turns + 1):
            for contender in contenders:
                start = _start(contender, app, Path(name, f"{contender.name}-{turn}".replace(" ", "-")))
                starts.setdefault(contender.name, {})[turn] = start
                _tell(f"turn {turn}/{turns}  {contender.name:<20} {start.since_started:6.2f} s  {start.cpu:5.2f} s CPU")
    sizes = {contender.name: _size(contender.image) for contender in contenders}
    return render(_facts(image, turns), starts, sizes)


# -- what is compared -------------------------------------------------------------------------------------------------


def _contenders(image: str, folder: Path) -> list[Contender]:
    """Return what there is to compare; *folder* is mounted."""
    mount = ("--volume", f"{folder}:{CERTIFICATES}:ro")
    files = (f"SIDECAR_TLS_CERT={CERTIFICATES}/certificate.pem", f"SIDECAR_TLS_KEY={CERTIFICATES}/key.pem")
    given = tuple(part for each in files for part in ("--env", each))
    found = [Contender("sidecar", image, (*mount, *given)), Contender("sidecar, ephemeral", image)]
    binary = find_envoy("")
    if binary is None:
        _tell("Envoy is not installed (make peers); left out")
        return found
    path = Path(binary[0])
    _docker(
        *("build", "--quiet", "--tag", ENVOY_IMAGE, "--file", "-", str(path.parent)),
        stdin=ENVOY_DOCKERFILE.format(name=path.name),
    )
    # As in the other rows of the benchmark: one worker, no memory shared with a successor.
    arguments = ("--config-path", f"{CERTIFICATES}/envoy.json", "--concurrency", "1", "--disable-hot-restart")
    return [*found, Contender(REFERENCE, ENVOY_IMAGE, mount, (*arguments, "--log-level", "warning"))]


def _shared_folder(parent: Path) -> Path:
    """Make a folder with the certificate and Envoy's configuration, for any user; its parent is for nobody else."""
    folder = parent / "shared"
    folder.mkdir(mode=0o755)
    files = write_certificates(folder)
    inside = Path(CERTIFICATES)
    place = Placement(
        folder=inside,
        port=PORT,
        admin_port=0,
        app_port=APP_PORT,
        certificate=attrs.evolve(files, certificate_path=inside / "certificate.pem", key_path=inside / "key.pem"),
    )
    bootstrap = envoy_bootstrap(place)
    bootstrap["static_resources"]["listeners"][0]["address"]["socket_address"]["address"] = "0.0.0.0"
    (folder / "envoy.json").write_text(json.dumps(bootstrap))
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


# -- one start --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _app() -> Iterator[str]:
    """Keep an app running, for any number of proxies one after another; yield its container's name."""
    _docker("build", "--quiet", "--tag", APP_IMAGE, str(REPOSITORY / "examples" / "hello"))
    name = _docker("run", "--detach", APP_IMAGE)
    try:
        until = time.monotonic() + ANSWER_TIMEOUT_SECONDS
        while _docker("inspect", "--format", "{{.State.Health.Status}}", name) != "healthy":
            if time.monotonic() > until:
                raise CannotRunError(f"the app's container is not healthy after {ANSWER_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.1)
        yield name
    finally:
        _docker("rm", "--force", name)


def _start(contender: Contender, app: str, id_file: Path) -> Start:
    """
    Start a contender beside the app, ask it, and let it idle.

    Raises:
        MeasurementError: It does not answer.
    """
    address = _docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", app)
    command = ["docker", "run", "--detach", "--cidfile", str(id_file), "--network", f"container:{app}", *LIMITS]
    began = time.time()
    try:
        with subprocess.Popen(
            [*command, *contender.options, contender.image, *contender.arguments], stdout=subprocess.DEVNULL
        ) as run:
            answered = _first_answer(address, contender.name)
        if run.returncode != 0:
            raise MeasurementError(f"{contender.name}: docker run failed with status {run.returncode}")
        name = id_file.read_text()
        state = json.loads(_docker("inspect", "--format", "{{json .State}}", name))
        pid = state["Pid"]
        cpu = cgroups.cpu_seconds(cgroups.of_process(pid, "cpuacct"))
        time.sleep(IDLE_SECONDS)
        return Start(
            since_run=answered - began,
            since_started=answered - moment(state["StartedAt"]),
            cpu=cpu,
            used_bytes=cgroups.used_bytes(cgroups.of_process(pid, "memory")),
            resident_bytes=read_alone_bytes(pid),
        )
    finally:
        if id_file.exists():
            _docker("rm", "--force", id_file.read_text())


def _first_answer(address: str, name: str) -> float:
    """Ask until there is an answer; return the moment when it came, on the wall clock that the engine uses."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who answers is not in question, and one certificate is made anew each time
    until = time.monotonic() + ANSWER_TIMEOUT_SECONDS
    while time.monotonic() < until:
        try:
            raw = socket.create_connection((address, PORT), timeout=ANSWER_TIMEOUT_SECONDS)
            with raw, context.wrap_socket(raw) as tls:
                tls.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answer = tls.recv(4096)
                if answer.startswith(b"HTTP/1.1 200 "):
                    return time.time()
                raise MeasurementError(f"{name} answers {answer[:80]!r}")
        except OSError:
            time.sleep(POLL_SECONDS)
    raise MeasurementError(f"{name} does not answer within {ANSWER_TIMEOUT_SECONDS:.0f} s")


def moment(text: str) -> float:
    """Return seconds since 1970 of a time as the engine writes it: RFC 3339 with up to nanoseconds, in UTC."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.datetime.fromisoformat(seconds).replace(tzinfo=datetime.UTC)
    return whole.timestamp() + float(f"0.{fraction or 0}")


def _size(image: str) -> Size:
    unpacked = int(_docker("image", "inspect", "--format", "{{.Size}}", image))
    gzip = zlib.compressobj()
    compressed = 0
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        while data := saving.stdout.read(1024 * 1024):
            compressed += len(gzip.compress(data))
    return Size(unpacked, compressed + len(gzip.flush()))


# -- the report -------------------------------------------------------------------------------------------------------


def render(facts: Mapping[str, str], starts: Starts, sizes: Mapping[str, Size]) -> str:
    """Return the report in Markdown: facts, the table, how to read it."""
    lines = [["figure", "image", "median", "min - max", f"x {REFERENCE}"]]
    for figure in FIGURES:
        values = {
            name: {turn: getattr(start, figure.attribute) * figure.factor for turn, start in by_turn.items()}
            for name, by_turn in starts.items()
        }
        for index, (name, by_turn) in enumerate(values.items()):
            found = spread(list(by_turn.values()))
            assert found is not None
            cells = [f"{value:,.{figure.digits}f}" for value in (found.median, found.low, found.high)]
            ratio = format_ratio(paired_ratio(by_turn, values.get(REFERENCE, {})))
            lines.append([figure.title if index == 0 else "", name, cells[0], f"{cells[1]} - {cells[2]}", ratio])
    lines += _size_lines(sizes)
    listed = "\n".join(f"- {title}: {fact}" for title, fact in facts.items())
    return f"# The image beside Envoy's\n\n{listed}\n\n{align(lines)}\n\n{HOW_TO_READ}"


def _size_lines(sizes: Mapping[str, Size]) -> list[list[str]]:
    lines = []
    for title, attribute in (("size unpacked (MB)", "unpacked"), ("size compressed (MB)", "compressed")):
        for index, (name, size) in enumerate(sizes.items()):
            bytes_ = getattr(size, attribute)
            reference = getattr(sizes[REFERENCE], attribute) if REFERENCE in sizes else 0
            ratio = f"{bytes_ / reference:.2f}" if reference else ABSENT
            lines.append([title if index == 0 else "", name, f"{bytes_ / 1e6:,.0f}", "", ratio])
    return lines


HOW_TO_READ = f"""\
Every container runs with `{" ".join(LIMITS)}`.
It is asked from outside, from `docker run` on. A quarter of a CPU is 25 ms in each 100 ms: a start that takes 300 ms of
CPU time takes 1.2 s, if the CPU is free. On a busy machine believe CPU time and ratios, which are taken within a turn.
Memory is looked at {IDLE_SECONDS:.0f} s after the first answer: `cgroup` is what counts against the limit, less the
page cache; `resident` has the pages of files, too. `sidecar` and `envoy` read certificate and key from files;
`ephemeral` makes its own. All have the same app behind them, in whose network namespace they run.
"""


def _facts(image: str, turns: int) -> dict[str, str]:
    """Return facts by title, in the order to print them."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "command": f"`python -m bench.image --image {image} --turns {turns}`",
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "CPU": f"{cpu_model(Path('/proc/cpuinfo').read_text())}, {os.cpu_count()} cores; load at the end "
        f"{os.getloadavg()[0]:.1f}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "engine": _docker("info", "--format", "Docker {{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}"),
    }


def _docker(*arguments: str, stdin: str | None = None) -> str:
    """
    Run `docker`; return what it prints.

    Raises:
        CannotRunError: It failed.
    """
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
