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
from contextlib import suppress
from typing import Any, Final

from sidecar.config import addresses, flags
from sidecar.config.units import UnitError, parse_duration
from sidecar.doctor import report
from sidecar.doctor.balancer import Balancer
from sidecar.doctor.configured import gather_in_time
from sidecar.doctor.examination import Options, examine
from sidecar.doctor.findings import EXIT_OK, exit_status, worst_first
from sidecar.doctor.looking import Machine
from sidecar.settings import HostPort

EXIT_OUTPUT: Final = 1
"""Standard output takes no more."""

EXIT_USAGE: Final = 2

_SWITCHES: Final = ("--outside", "--json")

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
        arguments, rest = _arguments(argv)
        options = _options(arguments)
    except UsageError as error:
        return _print(report.printable(f"sidecar doctor: {error}; see sidecar doctor --help"), sys.stderr, EXIT_USAGE)
    given, problems = flags.parse(flags.make_parser("", ""), rest)
    if flags.HELP in given:
        return _print(USAGE.rstrip("\n"), sys.stdout, EXIT_OK)
    machine = Machine() if machine is None else machine
    loaded, more = gather_in_time(given, environ)
    examination = examine(loaded, [*problems, *more], options, environ, machine)
    findings = worst_first(examination.findings)
    if arguments.json:
        output = report.as_json(examination.platform, findings)
    else:
        output = "\n".join(report.text(examination.platform, findings))
    return _print(output, sys.stdout, exit_status(findings))


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the other arguments."""
    try:
        return _parser().parse_known_args(argv)
    except argparse.ArgumentError as error:  # its text repeats values
        fact = "takes no value" if error.argument_name in _SWITCHES else "expected one argument"
        raise UsageError(f"{error.argument_name}: {fact}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sidecar doctor", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--name", action="append", default=[], dest="names")
    parser.add_argument("--balancer", default=Balancer.NONE.value)
    for option in ("--balancer-idle", "--stop-timeout", "--clock"):
        parser.add_argument(option)
    for switch in _SWITCHES:
        parser.add_argument(switch, action="store_true")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        names=_names(arguments.names),
        balancer=_balancer(arguments.balancer),
        balancer_idle=_duration("--balancer-idle", arguments.balancer_idle),
        stop_timeout=_duration("--stop-timeout", arguments.stop_timeout),
        clock=None if arguments.clock is None else _clock(arguments.clock),
        is_outside=arguments.outside,
    )


def _names(given: Sequence[str]) -> tuple[str, ...]:
    parts = [part for text in given for part in text.split(",")]
    names = dict.fromkeys(name for part in parts for name in _parsed("--name", addresses.parse_names, part.strip()))
    if len(names) > addresses.MOST_TLS_NAMES:
        raise UsageError(f"--name: {len(names)} names, limit {addresses.MOST_TLS_NAMES}")
    return tuple(names)


def _balancer(text: str) -> Balancer:
    try:
        return Balancer(text)
    except ValueError:
        kinds = ", ".join(kind.value for kind in Balancer)
        raise UsageError(f"--balancer: {report.echoed(text)} is none of {kinds}") from None


def _duration(option: str, text: str | None) -> float | None:
    return None if text is None else float(_parsed(option, parse_duration, text))


def _clock(text: str) -> HostPort:
    address = None
    with suppress(UnitError):
        address = addresses.parse_endpoint(text)
    # A password is often followed by a colon, and whatever is taken for a host name here is asked for in the DNS.
    if not isinstance(address, HostPort) or report.is_hidden(address.host):
        raise UsageError("--clock: the value is not HOST:PORT; write it as time.example:80")
    return address


def _parsed(option: str, parse: Any, text: str) -> Any:  # any parser of `config`
    try:
        return parse(text)
    except UnitError as error:
        fact = f"{report.echoed(text)} will not do" if report.is_hidden(text) else error.fact
        raise UsageError(f"{option}: {fact}; {error.fix}") from None


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
