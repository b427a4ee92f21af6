"""
``sidecar certs``: a private CA in one command each, and what a certificate is worth.

Translates arguments into calls of `pki`, and answers into output and an exit status. Works offline, but for ``show``
of a server. Nothing it prints holds a key.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Never, TextIO

from sidecar.certs.authority import KeyKind
from sidecar.certs.identities import Purpose
from sidecar.certs.parsing import quiet
from sidecar.errors import EXIT_CONFIG, MaterialError
from sidecar.pki.issuing import issue_client, issue_server, make_ca
from sidecar.pki.outcome import EXIT_OK, EXIT_TROUBLE, EXIT_USAGE, Outcome, UsageError
from sidecar.pki.revoking import renew_crl, revoke
from sidecar.pki.signing import sign

MAX_CA_DAYS = 7300
MAX_LEAF_DAYS = 825
"""What Apple's clients take from a private CA at most."""

MAX_CRL_DAYS = 365

_MAX_LINE = 2_000


def main(argv: Sequence[str], now: datetime | None = None) -> int:
    """
    Run one of the commands.

    Args:
        argv: Arguments after ``certs``.
        now: Aware; None: the clock's.

    Returns:
        The exit status: 0; 1 if ``show --check`` found a problem or the output cannot be written; 2 for arguments that
        mean nothing; 78 for files that cannot be used or written.
    """
    try:
        arguments = _parser().parse_args(argv)
        moment = (now or datetime.now(UTC)).replace(microsecond=0)  # certificates know no parts of seconds
        with quiet():
            outcome: Outcome = arguments.call(arguments, moment)
    except _Help as text:
        return _print([*str(text).splitlines()], sys.stdout, EXIT_OK)
    except UsageError as error:
        return _print([f"sidecar certs: {error}"], sys.stderr, EXIT_USAGE)
    except MaterialError as error:
        return _print([f"sidecar certs: {error}"], sys.stderr, EXIT_CONFIG)
    _print([f"sidecar certs: warning: {line}" for line in outcome.warnings], sys.stderr, EXIT_OK)
    return _print(outcome.lines, sys.stdout, outcome.status)


# -- arguments --------------------------------------------------------------------------------------------------


class _Help(Exception):
    """The operator asked for help; the text."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> Never:
        raise UsageError(f"{message}; see {self.prog} --help")

    def print_help(self, file: object = None) -> Never:
        raise _Help(self.format_help())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sidecar certs", description="A private CA, and what certificates are worth.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, call: Callable[[argparse.Namespace, datetime], Outcome], help: str) -> _Parser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(call=call)
        return added

    _describe_ca(command("ca", make_ca, "make a CA"))
    _describe_server(command("server", issue_server, "issue a server certificate for names, addresses or URIs"))
    _describe_client(command("client", issue_client, "issue a client certificate for a person, service or SPIFFE ID"))
    _describe_sign(command("sign", sign, "sign a request that somebody else made; only its key and names count"))
    _describe_revoke(command("revoke", revoke, "revoke certificates, and sign a new list of the revoked ones"))
    _describe_crl(
        command("crl", renew_crl, "sign a new list of the revoked certificates, before the last one is overdue")
    )
    _describe_show(command("show", _show, "say what a file, directory or server has, and what is wrong with it"))
    return parser


def _describe_ca(parser: _Parser) -> None:
    # Two CAs of one name are hard to tell apart, for people and for whoever looks for an issuer by its name.
    parser.add_argument(
        "--name", default=f"Private CA {secrets.token_hex(3)}", help="what people see [Private CA and some digits]"
    )
    parser.add_argument("--dir", type=Path, default=Path("ca"), help="where its files go [ca]")
    _add_days(parser, 3650, MAX_CA_DAYS)
    _add_key_kind(parser)
    parser.add_argument("--ca-password-file", type=Path, metavar="FILE", help="encrypt ca.key with its first line")


def _describe_server(parser: _Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="DNS name, *.wildcard, IP address or URI")
    _add_issuing(parser)
    _add_key_kind(parser)


def _describe_client(parser: _Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="plain name, e-mail address, DNS name or URI")
    _add_issuing(parser)
    _add_key_kind(parser)
    _add_organization(parser)
    parser.add_argument("--p12", action="store_true", help="write client.p12 for browsers, key chains and Java as well")
    parser.add_argument("--p12-modern", action="store_true", help="encrypt it with AES-256, which many cannot read yet")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="password of client.p12; none: one is made")
    parser.add_argument("--show-password", action="store_true", help="print the one made even if it is no terminal")


def _describe_sign(parser: _Parser) -> None:
    parser.add_argument("request", type=Path, metavar="CSR-FILE")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--server", dest="purpose", action="store_const", const=Purpose.SERVER, help="[default]")
    kind.add_argument("--client", dest="purpose", action="store_const", const=Purpose.CLIENT)
    parser.set_defaults(purpose=Purpose.SERVER)
    parser.add_argument("--name", dest="names", action="append", default=[], help="instead of its names; repeatable")
    _add_issuing(parser, out="where the certificate goes [CSR-FILE with the ending .crt]")
    _add_organization(parser)


def _describe_revoke(parser: _Parser) -> None:
    parser.add_argument("targets", nargs="+", metavar="SERIAL-or-FILE", help="as `show` prints it, or the certificate")
    _add_ca(parser)
    _add_days(parser, 7, MAX_CRL_DAYS)


def _describe_crl(parser: _Parser) -> None:
    _add_ca(parser)
    _add_days(parser, 7, MAX_CRL_DAYS)


def _describe_show(parser: _Parser) -> None:
    parser.add_argument("target", metavar="FILE-or-DIR-or-HOST:PORT")
    parser.add_argument("--name", metavar="SNI", help="the server's name, if it is not HOST")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="CAs to judge the chain by [of this system; ca.crt]")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="password of PKCS#12 files and keys")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if there is a problem")


def _add_issuing(parser: _Parser, out: str = "directory for the files [one of the first name]") -> None:
    _add_ca(parser)
    _add_days(parser, 90, MAX_LEAF_DAYS)
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--replace", action="store_true", help="overwrite what is there, to renew it")


def _add_ca(parser: _Parser) -> None:
    parser.add_argument("--ca", type=Path, metavar="DIR", default=Path("ca"), help="directory of the CA [ca]")
    parser.add_argument("--ca-password-file", type=Path, metavar="FILE", help="password of its key")


def _add_organization(parser: _Parser) -> None:
    parser.add_argument("--org", default="", help="organization in the subject")
    parser.add_argument("--ou", default="", help="unit in the subject")


def _add_key_kind(parser: _Parser) -> None:
    kinds = [kind.value for kind in KeyKind]
    parser.add_argument("--key", choices=kinds, default="p256", help=f"{', '.join(kinds)} [p256]", metavar="KIND")


def _add_days(parser: _Parser, default: int, limit: int) -> None:
    def lifetime(text: str) -> timedelta:
        days = int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0
        if not 1 <= days <= limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {limit:,}")
        return timedelta(days=days)

    parser.add_argument("--days", type=lifetime, default=timedelta(days=default), help=f"validity [{default}]")


def _show(arguments: argparse.Namespace, now: datetime) -> Outcome:
    from sidecar.pki.showing import show  # OpenSSL for servers: the other commands do without

    return show(arguments, now)


# -- output -----------------------------------------------------------------------------------------------------


def _print(lines: Sequence[str], stream: TextIO | None, status: int) -> int:
    """Print *lines*, or nothing if there are none; *status*, or 1 if the stream takes no more."""
    if stream is None or not lines:
        return status
    encoding = stream.encoding or "utf-8"
    text = "\n".join(_plain(line) for line in lines)
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        # What is left in the buffer would make the interpreter complain at exit, so it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return EXIT_TROUBLE
    return status


def _plain(line: str) -> str:
    """Escape what could steer a terminal: files and servers choose much of what is printed."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line[:_MAX_LINE])
    return shown if len(line) <= _MAX_LINE else f"{shown}..."
