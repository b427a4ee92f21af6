"""
``sidecar inject``: TLS in front of the app of any manifest, in one command.

Translates arguments into a call of `inject`, and its answer into output, notes and an exit status. Reads standard
input and nothing else; writes standard output only if everything went well.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO, Never, TextIO

from sidecar.errors import EXIT_CONFIG, ConfigError, SidecarError
from sidecar.inject import documents, ecs, options, stream
from sidecar.inject.container import PORT
from sidecar.inject.options import Options
from sidecar.inject.tree import InjectError

EXIT_OK = 0
EXIT_TROUBLE = 1
"""Standard output takes no more."""
EXIT_USAGE = 2

_MAX_LINE = 2_000

_ABOUT = """\
Reads Kubernetes manifests or an ECS task definition, YAML or JSON, on standard input, and writes them to standard
output with the sidecar in front of the app. Running it again updates what it added; --remove takes it out again.

  kubectl get deploy web -o yaml | sidecar inject --secret web-tls | kubectl apply -f -
  kustomize build | sidecar inject --secret web-tls --only web | kubectl apply -f -
"""


class UsageError(SidecarError):
    """The arguments mean nothing."""


class _Help(Exception):
    """The operator asked for help; the text."""


def main(argv: Sequence[str], stdin: BinaryIO | None = None) -> int:
    """
    Run the command.

    Args:
        argv: Arguments after ``inject``.
        stdin: What to read; None: standard input.

    Returns:
        The exit status: 0; 1 if the output cannot be written; 2 for arguments that mean nothing; 78 for an input that
        the sidecar cannot be put into, and for settings that cannot work.
    """
    try:
        arguments = _parser().parse_args(argv)
        call = stream.remove if arguments.remove else stream.inject
        injected = call(_read(stdin), _options(arguments))
    except _Help as text:
        return _write(f"{text}")
    except UsageError as error:
        return _say([str(error)], EXIT_USAGE)
    except ConfigError as error:
        return _say([str(problem) for problem in error.problems], EXIT_CONFIG)
    except InjectError as error:
        return _say([str(error)], EXIT_CONFIG)
    _say(injected.notes, EXIT_OK)
    return _write(injected.text)


# -- arguments ------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> Never:
        raise UsageError(f"{message}; see {self.prog} --help")

    def print_help(self, file: object = None) -> Never:
        raise _Help(self.format_help())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sidecar inject",
        usage="sidecar inject [OPTION ...] < MANIFEST",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    name, port, image = _matching(_NAME, "a name"), _port, _matching(_IMAGE, "an image")
    add = parser.add_argument
    add("--remove", action="store_true", help="take the sidecar out; other options but --only do nothing then")
    add("--image", type=image, default=options.IMAGE, help=f"image of the sidecar, best by digest [{options.IMAGE}]")
    add(
        "--app", type=name, metavar="NAME", help="container it stands in front of [the first, on ECS that is essential]"
    )
    add("--app-port", type=port, metavar="PORT", help="the app's port [the first that its container names]")
    add("--port", type=port, help=f"the sidecar's port [{PORT}, on ECS {ecs.PORT}]")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, as sidecar --help lists them")
    kubernetes = parser.add_argument_group("Kubernetes")
    add = kubernetes.add_argument
    add("--secret", type=name, metavar="NAME", help="Secret with tls.crt and tls.key [a certificate made at start]")
    add("--client-ca-secret", type=name, metavar="NAME", help="Secret with ca.crt: clients must show a certificate")
    add("--classic", action="store_true", help="a container among the app's, for clusters before 1.29")
    add("--only", action="append", type=_only, default=[], metavar="[KIND/]NAME", help="change this alone; repeatable")
    aws = parser.add_argument_group("ECS (ARNs of Secrets Manager or the Parameter Store)")
    add = aws.add_argument
    add("--cert-arn", metavar="ARN", help="certificate with its chain, as PEM or JSON [made at start]")
    add("--key-arn", metavar="ARN", help="its key, if that is not in there")
    add("--client-ca-arn", metavar="ARN", help="CAs of clients: they must show a certificate")
    return parser


_NAME = re.compile(r"[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,251}[a-zA-Z0-9])?", re.ASCII)
_IMAGE = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9._:/@]{0,500}", re.ASCII)


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise argparse.ArgumentTypeError(f"{text[:60]!a} is not {what}")
        return text

    return parse


def _port(text: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,4}", text, re.ASCII) is None or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is not a port from 1 to 65535")
    return int(text)


def _only(text: str) -> str:
    kind, separator, name = text.rpartition("/")
    if _NAME.fullmatch(name) is None or bool(separator) != bool(re.fullmatch("[A-Za-z]+", kind)):
        raise argparse.ArgumentTypeError(f"{text[:60]!a} is neither NAME nor KIND/NAME")
    return text


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        image=arguments.image,
        app=arguments.app,
        port=arguments.port,
        app_port=arguments.app_port,
        secret=arguments.secret,
        client_ca_secret=arguments.client_ca_secret,
        cert_arn=arguments.cert_arn,
        key_arn=arguments.key_arn,
        client_ca_arn=arguments.client_ca_arn,
        classic=arguments.classic,
        only=tuple(arguments.only),
        settings=options.parse_settings(arguments.set),
    )


# -- input and output -----------------------------------------------------------------------------------------------


def _read(given: BinaryIO | None) -> bytes:
    source = given if given is not None else sys.stdin.buffer if sys.stdin is not None else None
    if source is None or source.isatty():
        raise UsageError("nothing is piped in; write kubectl get deploy NAME -o yaml | sidecar inject")
    try:
        return source.read(documents.LARGEST_INPUT + 1)
    except OSError as error:
        raise UsageError(f"standard input: {error.strerror}; pipe in a manifest") from None


def _write(text: str) -> int:
    """Print to standard output, as UTF-8 whatever the terminal has: programs read it."""
    if sys.stdout is None:
        return EXIT_OK  # it was closed before we started
    try:
        # A lone surrogate, which JSON can have, becomes the escape that it was.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would make the interpreter complain at exit, so it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        lines = [] if isinstance(error, BrokenPipeError) else [f"standard output: {error.strerror}"]
        return _say(lines, EXIT_TROUBLE)
    return EXIT_OK


def _say(lines: Sequence[str], status: int) -> int:
    """Print *lines* to standard error; returns *status*, which tells also where nobody reads them."""
    stream: TextIO | None = sys.stderr
    if stream is None or not lines:
        return status
    encoding = stream.encoding or "utf-8"
    text = "\n".join(f"sidecar inject: {_plain(line)}" for line in lines)
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status


def _plain(line: str) -> str:
    """Escape what could steer a terminal: whoever wrote the manifest chose much of what is printed."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line[:_MAX_LINE])
    return shown if len(line) <= _MAX_LINE else f"{shown}..."
