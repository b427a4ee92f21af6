"""The command line: translates arguments into calls, and answers into output and an exit status. Decides nothing."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

import attrs

from sidecar import __version__, cgroup
from sidecar.certs import files
from sidecar.config import flags
from sidecar.config.check import check, material_warnings, warnings
from sidecar.config.load import Loaded, gather
from sidecar.config.names import did_you_mean
from sidecar.errors import EXIT_CONFIG, ConfigError, Problem
from sidecar.proxy import lean
from sidecar.values import Value

EXIT_OK = 0
EXIT_OUTPUT = 1
"""Standard output takes no more, as in ``sidecar config | head``."""
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """
    Run the program.

    Args:
        argv: Arguments without the program's name; None: those of the process.
        environ: The environment; None: that of the process.

    Returns:
        The exit status: 0; 78 for settings that cannot work; 2 for an unknown command; 1 if the output cannot be
        written; and what the worker says, for ``run``.
    """
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("help", "--help", "-h"):
        return _write(_help("sidecar COMMAND [--NAME VALUE ...]"))
    if name in ("version", "--version"):
        return _write(_version())
    if name == "certs":
        from sidecar import cli_certs  # what `run` does without

        return cli_certs.main(arguments)
    if name == "healthcheck":
        from sidecar import healthcheck

        return healthcheck.main(arguments, os.environ if environ is None else environ)
    if name == "inject":
        from sidecar import cli_inject  # what `run` does without

        return cli_inject.main(arguments)
    if name == "doctor":
        from sidecar import cli_doctor  # as above

        return cli_doctor.main(arguments, os.environ if environ is None else environ)
    if name == "_worker":
        return _serve_supervised(arguments)
    if name not in _COMMANDS:
        return _refuse_command(name)
    if name == "import-envoy" and "--envoy" not in arguments:
        files = [argument for argument in arguments if not argument.startswith("-")]
        arguments = [*(f"--envoy={file}" for file in files[:1]), *(each for each in arguments if each not in files[:1])]
    given, problems = flags.parse(flags.make_parser("", ""), arguments) if arguments else ({}, [])
    if flags.HELP in given:
        return _write(_help(f"sidecar {name} [--NAME VALUE ...]"))
    return _call(_COMMANDS[name], _Input(given, problems, os.environ if environ is None else environ))


@attrs.frozen(eq=False, repr=False)
class _Input(Value):
    """What a command gets: flags, what was wrong with the flags, and the environment."""

    flags: Mapping[str, str]
    problems: Sequence[Problem]
    environ: Mapping[str, str]

    def load(self) -> Loaded:
        """The settings, each valid by itself; raises ConfigError."""
        loaded, problems = gather(self.flags, self.environ)
        return _unless_problems(loaded, [*self.problems, *problems])

    def load_to_run(self) -> Loaded:
        """As `load_checked`, but files that are not there yet may still come."""
        loaded, problems = gather(self.flags, self.environ)
        now = datetime.now(UTC)
        others = [*self.problems, *problems, *check(loaded, now, with_material=False)]
        if not others and loaded.settings.life.wait and files.missing(loaded.settings):
            return loaded
        return _unless_problems(loaded, [*self.problems, *problems, *check(loaded, now)])

    def load_checked(self) -> Loaded:
        """The settings, checked against each other and with their files; raises ConfigError."""
        loaded, problems = gather(self.flags, self.environ)
        return _unless_problems(loaded, [*self.problems, *problems, *check(loaded, datetime.now(UTC))])

    def load_looked_up(self) -> Loaded:
        """As `load_checked`; names of endpoints must have addresses too."""
        loaded, problems = gather(self.flags, self.environ)
        found = check(loaded, datetime.now(UTC), resolve=_has_address)
        return _unless_problems(loaded, [*self.problems, *problems, *found])


def _has_address(name: str) -> bool:
    """Whether the system's resolver knows an address of *name*."""
    try:
        return bool(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except OSError:
        return False


def _unless_problems(loaded: Loaded, problems: Sequence[Problem]) -> Loaded:
    if problems:
        raise ConfigError(problems)
    return loaded


@attrs.frozen(eq=False, repr=False)
class _Command(Value):
    """
    Attributes:
        summary: What it does, for the help.
        call: Does it; returns the exit status; raises ConfigError.
        prefix: What problems begin with on standard error.
    """

    summary: str
    call: Callable[[_Input], int]
    prefix: str


def _run(given: _Input) -> int:
    lean.import_libraries()  # before the checks, which want cryptography
    loaded = given.load_to_run()
    from sidecar import worker  # Twisted and OpenSSL: the other commands do without

    # The environment as it is now: a reload reads it again, and by then secrets have been taken out of it.
    again = attrs.evolve(given, environ=dict(given.environ))
    workers = _workers(loaded)
    if workers > 1:
        from sidecar import supervisor

        return supervisor.run(
            loaded, supervisor.Given(flags=given.flags, environ=again.environ, reread=again.load_checked), workers
        )
    return worker.run(loaded, again.load_checked)


def _workers(loaded: Loaded) -> int:
    given = loaded.settings.workers
    return cgroup.workers_for(cgroup.cpu_quota()) if given is None else given


def _serve_supervised(arguments: Sequence[str]) -> int:
    """What a supervisor starts."""
    lean.import_libraries()
    from sidecar import member, worker
    from sidecar.proxy.tally import Place

    channel, *listeners = (socket.socket(fileno=int(number)) for number in arguments)
    try:
        start = member.receive_start(channel)
    except OSError:
        return EXIT_OK  # the supervisor has gone
    given = _Input(start.flags, (), start.environ)
    place = None if start.place is None else Place(*start.place)
    inherited = worker.Inherited(channel=channel, listeners=listeners, ephemeral=start.ephemeral, place=place)
    try:
        return worker.run(
            member.share_of(start.loaded, start.workers),
            lambda: member.share_of(given.load_checked(), start.workers),
            inherited,
        )
    except ConfigError as error:
        member.tell_failure(channel, error.problems)
        return EXIT_CONFIG


def _check(given: _Input) -> int:
    loaded = given.load_looked_up()
    lines = [*loaded.notes, *warnings(loaded), *material_warnings(loaded, datetime.now(UTC))]
    return _write("\n".join(["configuration ok", *(f"warning: {line}" for line in lines)]))


def _config(given: _Input) -> int:
    from sidecar.config import show

    loaded = given.load()
    return _write("\n".join(show.effective(loaded.settings, loaded.sources)))


def _import_envoy(given: _Input) -> int:
    """Print the file of ours that means what an Envoy bootstrap file does."""
    from sidecar.config import envoy, yamlfile
    from sidecar.config.units import UnitError

    file = flags.envoy_file(given.flags)
    if given.problems:
        raise ConfigError(given.problems)
    if file is None:
        raise ConfigError(
            [Problem("sidecar import-envoy", "arguments", "no file is named", "write its path behind it")]
        )
    try:
        content = yamlfile.content_of(file.text)
    except UnitError as error:
        raise ConfigError([Problem(file.written, file.source, error.fact, error.fix)]) from None
    imported = envoy.import_bootstrap(content, file.text, strict=flags.is_strict(given.flags))
    return _write(envoy.to_yaml(imported).rstrip("\n"))


_COMMANDS = {
    "run": _Command("serve until SIGTERM", _run, "sidecar: "),
    "check": _Command("report everything that is wrong with the settings and their files", _check, ""),
    "import-envoy": _Command(
        "print the YAML file that means what an Envoy bootstrap FILE does", _import_envoy, "sidecar: "
    ),
    "config": _Command("print the effective settings and where each comes from", _config, "sidecar: "),
}


def _call(command: _Command, given: _Input) -> int:
    try:
        return command.call(given)
    except ConfigError as error:
        return _complain([f"{command.prefix}{problem}" for problem in error.problems], EXIT_CONFIG)


def _refuse_command(name: str) -> int:
    if not name or name.startswith("-"):
        return _complain(["sidecar: say what to do first: sidecar run, or see sidecar --help"], EXIT_USAGE)
    others = ("certs", "healthcheck", "doctor", "inject", "version", "help")
    fix = did_you_mean(name, [*_COMMANDS, *others], "see sidecar --help")
    return _complain([f"sidecar: there is no command {name!a}; {fix}"], EXIT_USAGE)


def _help(usage: str) -> str:
    commands = {name: command.summary for name, command in _COMMANDS.items()}
    commands["certs"] = "make a private CA and certificates, or look at some: see sidecar certs --help"
    commands["healthcheck"] = "ask the running program whether it is well: see sidecar healthcheck --help"
    commands["inject"] = "add the sidecar to a Kubernetes manifest or ECS task definition: see sidecar inject --help"
    commands["doctor"] = "say what is wrong or risky, here and now, and how to mend it: see sidecar doctor --help"
    commands["version"] = "print the versions of the program and what it is built on"
    lines = ["TLS in front of any app.", "", "commands:", *(f"  {name:<13}{text}" for name, text in commands.items())]
    lines += ["", "Each setting is a flag, a variable or a line in the YAML file, in this order of precedence."]
    return flags.make_parser(usage, "\n".join(lines)).format_help().rstrip("\n")


def _version() -> str:
    import platform

    import twisted
    from OpenSSL import SSL

    openssl = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")
    lines = [f"sidecar {__version__}", f"Python {platform.python_version()}", f"Twisted {twisted.__version__}", openssl]
    return "\n".join([*lines, f"hot path {'compiled' if _is_compiled() else 'interpreted'}"])


def _is_compiled() -> bool:
    """Whether the hot path is native code, as setup.py makes it; a file beside the source is what is loaded then."""
    from importlib.machinery import EXTENSION_SUFFIXES
    from importlib.util import find_spec

    spec = find_spec("sidecar.wire.http1")
    return spec is not None and (spec.origin or "").endswith(tuple(EXTENSION_SUFFIXES))


def _write(text: str) -> int:
    """Print to standard output; the exit status says whether that worked."""
    try:
        _print(text, sys.stdout)
    except OSError as error:
        # What is left in the buffer would make the interpreter complain at exit, so it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        silent = isinstance(error, BrokenPipeError)
        return EXIT_OUTPUT if silent else _complain([f"sidecar: standard output: {error.strerror}"], EXIT_OUTPUT)
    return EXIT_OK


def _complain(lines: Sequence[str], status: int) -> int:
    try:
        _print("\n".join(lines), sys.stderr)
    except OSError:  # full, or nobody reads it: the status still tells
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return status


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:
        return  # it was closed before we started
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
