"""
``sidecar doctor``: what is wrong or risky with the program, its files and its surroundings, and how to mend it.

Translates arguments into the calls of `doctor`, and findings into output and an exit status. Changes nothing, writes no
files, needs no rights.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Never

from sidecar.config import addresses, flags
from sidecar.config.load import gather
from sidecar.config.units import UnitError, parse_duration
from sidecar.doctor import report
from sidecar.doctor.balancer import Balancer
from sidecar.doctor.examination import Options, examine
from sidecar.doctor.findings import EXIT_OK, exit_status, worst_first
from sidecar.doctor.looking import Machine
from sidecar.settings import HostPort

EXIT_OUTPUT: Final = 1
"""Standard output takes no more."""

EXIT_USAGE: Final = 2

USAGE: Final = """\
usage: sidecar doctor [OPTION ...] [--NAME VALUE ...]

Says what is wrong or risky, worst first, and how to mend it: settings, certificates, clock, ports, app, mounts, load
balancer, rights, limits, and the running program. It reads the settings where `sidecar run` does: give it the same
flags.

  --name NAME            a host name or IP address that clients use; may be repeated [SIDECAR_TLS_NAMES]
  --balancer KIND        what is in front: alb, nlb, nginx, envoy, haproxy, cloudfront, gclb or none
  --balancer-idle TIME   how long it keeps idle connections to us, if not its default
  --stop-timeout TIME    from SIGTERM to SIGKILL [30s on ECS and Kubernetes, 10s with Docker and podman]
  --clock HOST:PORT      compare the clock with that of this web server (plain HTTP)
  --outside              the program runs elsewhere: look at settings and files only
  --json                 one JSON object in place of lines

Exits with 78 if there is an error, 1 if there is a warning, else 0; 2 for wrong options.
"""


class UsageError(Exception):
    """The arguments mean nothing."""


def main(argv: Sequence[str], environ: Mapping[str, str], machine: Machine | None = None) -> int:
    """
    Examine, and print what was found.

    Args:
        argv: Arguments after ``doctor``.
        environ: The environment.
        machine: What is looked at; None: this one.

    Returns:
        The exit status.
    """
    try:
        arguments, rest = _parser().parse_known_args(argv)
        options = _options(arguments)
    except UsageError as error:
        return _print(report.printable(f"sidecar doctor: {error}; see sidecar doctor --help"), sys.stderr, EXIT_USAGE)
    given, problems = flags.parse(flags.make_parser("", ""), rest)
    if flags.HELP in given:
        return _print(USAGE.rstrip("\n"), sys.stdout, EXIT_OK)
    loaded, more = gather(given, environ)
    examination = examine(loaded, [*problems, *more], options, environ, Machine() if machine is None else machine)
    findings = worst_first(examination.findings)
    if arguments.json:
        output = report.as_json(examination.platform, findings)
    else:
        output = "\n".join(report.text(examination.platform, findings))
    return _print(output, sys.stdout, exit_status(findings))


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> Never:
        raise UsageError(message)


def _parser() -> _Parser:
    parser = _Parser(prog="sidecar doctor", add_help=False, allow_abbrev=False)
    parser.add_argument("--name", action="append", default=[], dest="names")
    parser.add_argument("--balancer", choices=[kind.value for kind in Balancer], default=Balancer.NONE.value)
    for option in ("--balancer-idle", "--stop-timeout", "--clock"):
        parser.add_argument(option)
    for switch in ("--outside", "--json"):
        parser.add_argument(switch, action="store_true")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        names=tuple(name for given in arguments.names for name in _parsed("--name", addresses.parse_names, given)),
        balancer=Balancer(arguments.balancer),
        balancer_idle=_duration("--balancer-idle", arguments.balancer_idle),
        stop_timeout=_duration("--stop-timeout", arguments.stop_timeout),
        clock=None if arguments.clock is None else _address("--clock", arguments.clock),
        is_outside=arguments.outside,
    )


def _duration(option: str, text: str | None) -> float | None:
    return None if text is None else float(_parsed(option, parse_duration, text))


def _address(option: str, text: str) -> HostPort:
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65_535:
        raise UsageError(f"{option}: {text!r} is not HOST:PORT")
    return HostPort(bare, int(port))


def _parsed(option: str, parse: Any, text: str) -> Any:  # any parser of `config`
    try:
        return parse(text)
    except UnitError as error:
        raise UsageError(f"{option}: {error.fact}; {error.fix}") from None


def _print(text: str, stream: Any, status: int) -> int:
    """Print; return *status*, or 1 if the stream takes no more and all was well."""
    if stream is None:
        return status
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        # What is left in the buffer would make the interpreter complain at exit, so it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return status or EXIT_OUTPUT
    return status
