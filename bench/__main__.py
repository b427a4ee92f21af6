"""
Command line of the benchmark: `python -m bench`, from the root of the repository.

Exit codes: 0 all was measured; 1 something failed, or sidecar exceeds a limit, or nothing could run;
2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import attrs

from bench import h2load, unary, wrk
from bench.app import find_executable, running_app
from bench.certificate import write_certificates
from bench.errors import BenchError, CannotRunError
from bench.lab import Cores, Effort, Lab, clean_environment
from bench.limits import GUARD_PROXIES, read_limits
from bench.machine import machine_facts, pick_cores, raise_open_files_limit
from bench.peers import PEERS, VERSION_PATTERN, hot_path, look_up
from bench.report import Report
from bench.rows import ROWS, Row
from bench.turns import MAX_ATTEMPTS, Plan, Run

QUICK_EFFORT = Effort(
    wrk_seconds=1,
    warm_up_requests=1_000,
    connections=400,
    requests=6_000,
    transfers=1,
    idle_connections=300,
    open_connections=(10, 100, 1_000),
    paced_seconds=2,
    starts=1,
)
GUARD_EFFORT = Effort(
    wrk_seconds=1,
    warm_up_requests=1_000,
    connections=400,
    requests=6_400,
    transfers=1,
    starts=1,
)
GUARD_TURNS = 3
GUARD_BUDGET_SECONDS = 85.0
"""For the turns; a run has a few seconds more to do, and is to take less than 90."""

DEFAULT_TURNS = 3
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
MEMORY_FOLDER = Path("/dev/shm")


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; prints usage and exits with 2 when it is wrong."""
    row_names = [row.name for row in ROWS]
    peer_names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure sidecar and its peers, in turns.")
    parser.add_argument("--rows", metavar="ROW,...", type=_names_of(row_names), default=row_names)
    parser.add_argument("--only", metavar="PROXY,...", type=_names_of(peer_names))
    parser.add_argument("--turns", type=_positive, help=f"default {DEFAULT_TURNS}")
    parser.add_argument("--seconds", type=_positive, help="per measurement with wrk; default 4")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the report there too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every value there")
    parser.add_argument("--python", default=sys.executable, help="interpreter for sidecar")
    parser.add_argument("--quick", action="store_true", help="one short turn: is all in order?")
    parser.add_argument("--guard", action="store_true", help="short turns beside Envoy and nginx, ratios only")
    parser.epilog = f"rows: {', '.join(row_names)}; proxies: {', '.join(peer_names)}"
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_options(arguments)
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        report = measure(options)
    except KeyboardInterrupt:
        _tell("interrupted; everything that was started has been ended")
        return 1
    except BenchError as error:
        _tell(str(error))
        return 1
    text = report.as_guard_text() if options.guard else report.as_text()
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(report.as_json())
    return 1 if report.is_bad else 0


def measure(options: argparse.Namespace) -> Report:
    """
    Measure what the options ask for.

    Raises:
        CannotRunError: Something the benchmark cannot do without is missing.
    """
    limits = read_limits().guarded() if options.guard else read_limits().strict()
    rows = [row for row in (limits.rows(ROWS) if options.guard else ROWS) if row.name in options.rows]
    if not rows:
        raise CannotRunError("None of the chosen rows has a limit that a guard judges.")
    programs = find_programs(rows)
    rows, missed = split_rows(rows, programs)
    names = options.only or (GUARD_PROXIES if options.guard else [peer.name for peer in PEERS])
    wanted = [peer for peer in PEERS if peer.name in names]
    found = [look_up(peer, options.python) for peer in wanted]
    peers = [peer for peer in found if peer]
    absent = [peer.name for peer, here in zip(wanted, found, strict=True) if not here]
    absent += missed
    if absent:
        _tell(f"not installed, left out: {', '.join(absent)}")
    if not peers:
        raise CannotRunError("None of the chosen proxies is installed.")
    cores = pick_cores()
    facts = machine_facts(options.python, _describe_generators(programs), cores)
    for peer in peers:
        if peer.name == "sidecar":
            facts["hot path of sidecar"] = hot_path(peer.program)
    raise_open_files_limit()
    with _lab(options, programs, cores) as lab:
        # A guard has no time to wait for a quiet machine; its allowance for noise is for that.
        attempts, budget = (1, GUARD_BUDGET_SECONDS) if options.guard else (MAX_ATTEMPTS, math.inf)
        plan = Plan(rows=rows, peers=peers, turns=_turns(options), attempts=attempts, budget_seconds=budget)
        run = Run(plan=plan, lab=lab, tell=_tell)
        run.take_all_turns()
    return Report(facts=facts, absent=absent, run=run, limits=limits)


def find_programs(rows: Sequence[Row]) -> dict[str, str]:
    """
    Return the paths of wrk and of what else *rows* cannot be measured without, by name; without those not installed.

    Raises:
        CannotRunError: There is no wrk.
    """
    names = dict.fromkeys(["wrk", *(name for row in rows for name in row.programs)])
    programs = {name: path for name in names if (path := find_executable(name))}
    if "wrk" not in programs:
        raise CannotRunError("wrk is not installed; it is the load generator.")
    return programs


def split_rows(rows: Sequence[Row], programs: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """
    Return the rows that can be measured with *programs*, and a note on each that cannot.

    Raises:
        CannotRunError: None can.
    """
    missing = {row.name: [name for name in row.programs if name not in programs] for row in rows}
    notes = [f"{' and '.join(names)} (row {row})" for row, names in missing.items() if names]
    able = [row for row in rows if not missing[row.name]]
    if not able:
        raise CannotRunError(f"None of the chosen rows can be measured. Not installed: {', '.join(notes)}.")
    return able, notes


@contextlib.contextmanager
def _lab(options: argparse.Namespace, programs: Mapping[str, str], cores: Cores) -> Iterator[Lab]:
    """Set up folder, certificate and app for a run; take everything down afterwards."""
    parent = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
    environment = clean_environment()
    # The benchmark itself keeps off the proxies' core, too.
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir=parent) as name:
        folder = Path(name)
        call_path = folder / "call"
        call_path.write_text(unary.REQUEST)
        with running_app(folder / "app", core=cores.load, environment=environment) as app:
            yield Lab(
                folder=folder,
                cores=cores,
                app=app,
                call_path=call_path,
                certificate=write_certificates(folder),
                effort=_effort(options),
                programs=programs,
                environment=environment,
            )


def _turns(options: argparse.Namespace) -> int:
    """Return how often to measure everything."""
    usual = GUARD_TURNS if options.guard else 1 if options.quick else DEFAULT_TURNS
    turns: int = options.turns or usual
    return turns


def _effort(options: argparse.Namespace) -> Effort:
    """Return how much work to do per measurement."""
    effort = GUARD_EFFORT if options.guard else QUICK_EFFORT if options.quick else Effort()
    return attrs.evolve(effort, wrk_seconds=options.seconds or effort.wrk_seconds)


def _describe_generators(programs: Mapping[str, str]) -> dict[str, str]:
    """Return version and concurrency of each load generator, by name."""
    facts = {"wrk": f"{_version([programs['wrk'], '-v'])}, {wrk.CONNECTIONS} connections, 1 thread"}
    if "h2load" in programs:
        version = _version([programs["h2load"], "--version"])
        facts["h2load"] = f"{version}, {h2load.CONNECTIONS} connections x {h2load.STREAMS} streams"
    return facts


def _version(command: Sequence[str]) -> str:
    """Return a load generator's version; wrk prints it with its usage, and fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = VERSION_PATTERN.search(done.stdout + done.stderr)
    return match[0] if match else "unknown version"


def _names_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return an argument type: a comma-separated choice of *known*."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> int:
    """Parse a whole number above zero, as an argument type."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End the run on Ctrl-C or SIGTERM; a second one must not disturb the taking down."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    """Report progress on standard error; the report alone goes to standard output."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
