"""
``sidecar certs``: a private CA in one command each, and what a certificate is worth.

Translates arguments into calls of `certs.authority` and `certs.examine`, and answers into output and an exit status;
besides, it connects to servers, which no module of `certs` may. Works offline. Nothing it prints holds a key.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import string
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never, TextIO, TypeVar

import attrs
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs import authority as ca
from sidecar.certs import examine
from sidecar.certs.describe import rfc3339
from sidecar.errors import EXIT_CONFIG, MaterialError

if TYPE_CHECKING:
    import socket

    from OpenSSL import SSL, crypto

EXIT_OK = 0
EXIT_TROUBLE = 1
"""`show --check` found a problem, or standard output takes no more."""
EXIT_USAGE = 2

MAX_CA_DAYS = 7300
MAX_LEAF_DAYS = 825
"""What Apple's clients take from a private CA at most."""

MAX_CRL_DAYS = 365

CONNECT_SECONDS = 5.0
"""For the connection, the handshake and a last look at it; the resolver has the system's own time limit."""

REFUSAL_SECONDS = 0.5
"""How long a server with TLS 1.3, where that comes after the handshake, has to refuse a client without certificate."""

MAX_HANDSHAKE_BYTES = 512 * 1024
"""OpenSSL takes a chain of up to 100 KiB."""

_MAX_LINE = 2_000

_Result = TypeVar("_Result")


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `cryptography`, about odd encodings that still work
            outcome: Outcome = arguments.call(arguments, moment)
    except _Help as text:
        return _print([*str(text).splitlines()], sys.stdout, EXIT_OK)
    except _UsageError as error:
        return _print([f"sidecar certs: {error}"], sys.stderr, EXIT_USAGE)
    except MaterialError as error:
        return _print([f"sidecar certs: {error}"], sys.stderr, EXIT_CONFIG)
    _print([f"sidecar certs: warning: {line}" for line in outcome.warnings], sys.stderr, EXIT_OK)
    return _print(outcome.lines, sys.stdout, outcome.status)


@attrs.frozen
class Outcome:
    """
    What a command has to say.

    Attributes:
        lines: For standard output. May hold a password that was made for the reader, so it is never shown.
        warnings: For standard error.
        status: The exit status.
    """

    lines: Sequence[str] = attrs.field(repr=False)
    warnings: Sequence[str] = ()
    status: int = EXIT_OK


# -- arguments --------------------------------------------------------------------------------------------------


class _UsageError(Exception):
    """The arguments mean nothing."""


class _Help(Exception):
    """The operator asked for help; the text."""


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> Never:
        raise _UsageError(f"{message}; see {self.prog} --help")

    def print_help(self, file: object = None) -> Never:
        raise _Help(self.format_help())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sidecar certs", description="A private CA, and what certificates are worth.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, call: Callable[[argparse.Namespace, datetime], Outcome], help: str) -> _Parser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(call=call)
        return added

    _describe_ca(command("ca", _ca, "make a CA"))
    _describe_server(command("server", _server, "issue a server certificate for names, addresses or URIs"))
    _describe_client(command("client", _client, "issue a client certificate for a person, service or SPIFFE ID"))
    _describe_sign(command("sign", _sign, "sign a request that somebody else made; only its key and names count"))
    _describe_revoke(command("revoke", _revoke, "revoke certificates, and sign a new list of the revoked ones"))
    _describe_crl(command("crl", _crl, "sign a new list of the revoked certificates, before the last one is overdue"))
    _describe_show(command("show", _show, "say what a file, directory or server has, and what is wrong with it"))
    return parser


def _describe_ca(parser: _Parser) -> None:
    parser.add_argument("--name", default="Private CA", help="what people see [Private CA]")
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
    kind.add_argument("--server", dest="purpose", action="store_const", const=ca.Purpose.SERVER, help="[default]")
    kind.add_argument("--client", dest="purpose", action="store_const", const=ca.Purpose.CLIENT)
    parser.set_defaults(purpose=ca.Purpose.SERVER)
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
    kinds = [kind.value for kind in ca.KeyKind]
    parser.add_argument("--key", choices=kinds, default="p256", help=f"{', '.join(kinds)} [p256]", metavar="KIND")


def _add_days(parser: _Parser, default: int, limit: int) -> None:
    def lifetime(text: str) -> timedelta:
        days = int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0
        if not 1 <= days <= limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to {limit:,}")
        return timedelta(days=days)

    parser.add_argument("--days", type=lifetime, default=timedelta(days=default), help=f"validity [{default}]")


# -- making and issuing -----------------------------------------------------------------------------------------


def _ca(arguments: argparse.Namespace, now: datetime) -> Outcome:
    directory: Path = arguments.dir
    password = _new_password(arguments.ca_password_file)
    cert_file, key_file = directory / ca.CA_CERT, directory / ca.CA_KEY
    fix = f"use the CA that is there with --ca {_quoted(directory)}, or name another directory with --dir"
    ca.check_free([cert_file, key_file, directory / ca.REGISTER], fix)
    with _naming():
        made = ca.make_authority(arguments.name, ca.KeyKind(arguments.key), now, arguments.days)
    ca.make_directory(directory)
    key = ca.NewFile(key_file, ca.key_pem(made.private_key, password), is_secret=True)
    ca.write_files([key, ca.NewFile(cert_file, ca.certificates_pem(made.certificate))], replace=False)
    option = _ca_option(directory)
    secret = "encrypted" if password is not None else "not encrypted"
    return Outcome(
        [
            f"wrote {cert_file}: CA certificate {arguments.name}, {_validity(made.certificate, now)}",
            f"wrote {key_file}: its key, {secret}; whoever has it can be anybody: keep it off servers and repositories",
            f"next, for a server: sidecar certs server NAME{option}",
            f"next, for a client: sidecar certs client NAME{option}",
        ]
    )


def _server(arguments: argparse.Namespace, now: datetime) -> Outcome:
    with _naming():
        identity = ca.server_identity(arguments.names)
    issuer, warnings = _load_ca(arguments, now)
    directory: Path = arguments.out or Path(_file_name(arguments.names[0]))
    files = [directory / name for name in ("tls.key", "tls.crt", "ca.crt")]
    _check_free(files, arguments)
    key = ca.KeyKind(arguments.key).generate()
    leaf = _issue(arguments, issuer, ca.Purpose.SERVER, identity, key.public_key(), now)
    contents = [ca.key_pem(key), ca.certificates_pem(leaf, *issuer.chain), ca.certificates_pem(*issuer.anchors)]
    _write(directory, files, contents, arguments)
    return Outcome(
        [
            f"wrote {files[1]}: server certificate for {_names(identity)}, {_validity(leaf, now)}",
            *_cap_lines(leaf, arguments, now),
            f"wrote {files[0]}: its key; for the server alone",
            f"wrote {files[2]}: the CA; for clients, to check the server with",
            f"serve it: SIDECAR_TLS_CERT={_quoted(directory.absolute())} sidecar run",
            f"try it: curl --cacert {_quoted(files[2])} https://{_url_host(identity)}/",
        ],
        warnings,
    )


def _client(arguments: argparse.Namespace, now: datetime) -> Outcome:
    with _naming():
        identity = ca.client_identity(arguments.names, arguments.org, arguments.ou)
    wants_p12 = arguments.p12 or arguments.p12_modern
    password, told = _p12_password(arguments) if wants_p12 else (b"", "")
    issuer, warnings = _load_ca(arguments, now)
    directory: Path = arguments.out or Path(_file_name(arguments.names[0]))
    files = [directory / name for name in ("client.key", "client.crt", "client.p12")[: 3 if wants_p12 else 2]]
    _check_free(files, arguments)
    key = ca.KeyKind(arguments.key).generate()
    leaf = _issue(arguments, issuer, ca.Purpose.CLIENT, identity, key.public_key(), now)
    contents = [ca.key_pem(key), ca.certificates_pem(leaf, *issuer.chain)]
    if wants_p12:
        label = arguments.names[0]
        contents.append(ca.pkcs12_file(label, leaf, key, issuer.chain, password, modern=arguments.p12_modern))
    _write(directory, files, contents, arguments)
    ca_file = _quoted(arguments.ca / ca.CA_CERT)
    lines = [
        f"wrote {files[1]}: client certificate for {_names(identity)}, {_validity(leaf, now)}",
        *_cap_lines(leaf, arguments, now),
        f"wrote {files[0]}: its key; for the client alone",
    ]
    if wants_p12:
        lines.append(f"wrote {files[2]}: both, to import into browsers, key chains and Java{told}")
    lines += [
        f"demand it: SIDECAR_CLIENT_CERT=required SIDECAR_CLIENT_CA={ca_file} sidecar run",
        f"use it: curl --cert {_quoted(files[1])} --key {_quoted(files[0])} --cacert {ca_file} https://HOST/",
    ]
    return Outcome(lines, warnings)


def _sign(arguments: argparse.Namespace, now: datetime) -> Outcome:
    file: Path = arguments.request
    request = _read_request(file)
    purpose: ca.Purpose = arguments.purpose
    public_key, ignored = _check_request(request, file)
    identity = _request_identity(arguments, request)
    issuer, warnings = _load_ca(arguments, now)
    out: Path = arguments.out or file.with_suffix(".crt")
    _check_free([out], arguments)
    leaf = _issue(arguments, issuer, purpose, identity, public_key, now)
    _write(out.parent, [out], [ca.certificates_pem(leaf, *issuer.chain)], arguments)
    lines = [
        f"wrote {out}: {purpose.value} certificate for {_names(identity)}, {_validity(leaf, now)}",
        *_cap_lines(leaf, arguments, now),
        f"next: send it back to who made {file}, with {arguments.ca / ca.CA_CERT}",
    ]
    return Outcome(lines, [*warnings, *ignored])


def _read_request(file: Path) -> x509.CertificateSigningRequest:
    requests = examine.read(file).requests
    if len(requests) != 1:
        fact = f"{file} holds {len(requests)} certificate signing requests, one is wanted"
        raise MaterialError("cert", fact, "name a file with one CERTIFICATE REQUEST block")
    return requests[0]


def _check_request(request: x509.CertificateSigningRequest, file: Path) -> tuple[ca.PublicKey, list[str]]:
    """Return the key of *request*, which must have signed it, and what it asks for in vain."""
    anew = "have it made anew by whoever has the key"
    if not request.is_signature_valid:
        raise MaterialError("cert", f"the request in {file} is not signed by the key that is in it", anew)
    try:
        public_key = ca.check_public_key(request.public_key())
    except ValueError as error:
        raise MaterialError("cert", f"{file}: {error}", anew) from None
    return public_key, list(_ignored(request))


def _request_identity(arguments: argparse.Namespace, request: x509.CertificateSigningRequest) -> ca.Identity:
    if not arguments.names:
        try:
            return ca.requested_identity(request, arguments.purpose, arguments.org, arguments.ou)
        except ValueError as error:
            fact, _, fix = f"{arguments.request}: {error}".rpartition("; ")
            raise MaterialError("cert", fact, f"{fix}; --name gives other names") from None
    with _naming():
        if arguments.purpose is ca.Purpose.CLIENT:
            return ca.client_identity(arguments.names, arguments.org, arguments.ou)
        return ca.server_identity(arguments.names)


@contextmanager
def _naming() -> Iterator[None]:
    """Names come from the command line: what is wrong with them is wrong usage."""
    try:
        yield
    except ValueError as error:
        raise _UsageError(str(error)) from None


def _ignored(request: x509.CertificateSigningRequest) -> Iterator[str]:
    """Name what the request asks for and does not get, so that nobody counts on it."""
    for extension in request.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            yield "the request asks for a CA certificate; that was not granted"
        elif not isinstance(
            extension.value,
            x509.SubjectAlternativeName | x509.BasicConstraints | x509.KeyUsage | x509.ExtendedKeyUsage,
        ):
            yield f"the extension {extension.oid.dotted_string} of the request was left out"


def _load_ca(arguments: argparse.Namespace, now: datetime) -> tuple[ca.Authority, list[str]]:
    password = None if arguments.ca_password_file is None else _password(arguments.ca_password_file)
    loaded = ca.load_authority(arguments.ca, password, now)
    key_file = arguments.ca / ca.CA_KEY
    exposed = f"others than its owner may read {key_file}; chmod 600 {_quoted(key_file)}"
    return loaded, [exposed] if ca.is_exposed(key_file) else []


def _check_free(files: Sequence[Path], arguments: argparse.Namespace) -> None:
    if not arguments.replace:
        ca.check_free(files, "renew it with --replace, or name another place with --out")


def _issue(
    arguments: argparse.Namespace,
    issuer: ca.Authority,
    purpose: ca.Purpose,
    identity: ca.Identity,
    public_key: ca.PublicKey,
    now: datetime,
) -> x509.Certificate:
    """Issue, and record it before it is written: what is not in the register cannot be revoked by its number."""
    leaf = ca.issue(issuer, purpose, identity, public_key, now, arguments.days)
    with ca.locked(arguments.ca):
        ca.save_register(arguments.ca, ca.load_register(arguments.ca).add(leaf, purpose.value, now))
    return leaf


def _write(directory: Path, files: Sequence[Path], contents: Sequence[bytes], arguments: argparse.Namespace) -> None:
    ca.make_directory(directory)
    new = [
        ca.NewFile(file, content, is_secret=file.suffix in (".key", ".p12"))
        for file, content in zip(files, contents, strict=True)
    ]
    ca.write_files(new, replace=arguments.replace)


# -- revoking ---------------------------------------------------------------------------------------------------


def _revoke(arguments: argparse.Namespace, now: datetime) -> Outcome:
    issuer, warnings = _load_ca(arguments, now)
    lines = []
    with ca.locked(arguments.ca):
        register = ca.load_register(arguments.ca)
        for target in arguments.targets:
            serial, register = _find_revoked(target, arguments, issuer, register, now)
            before = register.find(serial)
            assert before is not None
            register = register.revoke(serial, now)
            when = "revoked" if before.revoked is None else f"was revoked on {rfc3339(before.revoked)}:"
            lines.append(f"{when} {serial:x} ({before.purpose}, {before.name})")
        lines += _sign_crl(arguments, issuer, register, now)
    return Outcome(lines, warnings)


def _crl(arguments: argparse.Namespace, now: datetime) -> Outcome:
    issuer, warnings = _load_ca(arguments, now)
    with ca.locked(arguments.ca):
        lines = _sign_crl(arguments, issuer, ca.load_register(arguments.ca), now)
    return Outcome(lines, warnings)


def _find_revoked(
    target: str, arguments: argparse.Namespace, issuer: ca.Authority, register: ca.Register, now: datetime
) -> tuple[int, ca.Register]:
    """Find the number of *target*, and the register with an entry for it."""
    if os.path.exists(target):
        certificate = next(iter(examine.read(Path(target)).certificates), None)
        if certificate is None or not examine.is_issued_by(certificate, issuer.certificate):
            fact = f"{target} is not a certificate of the CA in {arguments.ca}"
            raise MaterialError("cert", fact, "name one that it issued, or its CA with --ca")
        if certificate == issuer.certificate:
            fact = f"{target} is the CA itself, which no list of its own can revoke"
            raise MaterialError("cert", fact, "take it out of whatever trusts it")
        serial = certificate.serial_number
        if not ca.is_revocable(serial):
            fact = f"the serial number of {target}, {serial:x}, is not between 1 and 20 octets, so no list can name it"
            raise MaterialError("cert", fact, "take its issuer out of whatever trusts it")
        return serial, register if register.find(serial) else register.add(certificate, "unknown", now)
    digits = target.replace(":", "").removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{1,40}", digits):
        fact = f"{target!r} is neither a file nor a serial number in hexadecimal"
        raise MaterialError("cert", fact, "name the certificate's file, or a number out of issued.txt")
    if register.find(int(digits, 16)) is None:
        fact = f"the CA in {arguments.ca} has issued nothing with the serial number {digits}"
        raise MaterialError("cert", fact, "look into its issued.txt, or name the certificate's file")
    return int(digits, 16), register


def _sign_crl(arguments: argparse.Namespace, issuer: ca.Authority, register: ca.Register, now: datetime) -> list[str]:
    """Record the number before it is used: a crash between the two skips one, which is allowed; reuse is not."""
    register = register.next_crl()
    ca.save_register(arguments.ca, register)
    crl = ca.make_crl(issuer, register.revoked, register.crl_number, now, arguments.days)
    file = arguments.ca / ca.CA_CRL
    ca.write_files([ca.NewFile(file, ca.crl_pem(crl))], replace=True)
    due = rfc3339(now + arguments.days)
    return [
        f"wrote {file}: list number {register.crl_number}, revoked certificates: {len(register.revoked)}",
        f"check it: SIDECAR_CLIENT_CRL={_quoted(file)}, and the like wherever this CA is trusted",
        f"next: renew it before {due}, or peers that check it refuse everybody: "
        f"sidecar certs crl{_ca_option(arguments.ca)}",
    ]


# -- passwords --------------------------------------------------------------------------------------------------


def _password(file: Path) -> bytes:
    """The first line of *file*."""
    lines = examine.read_file(file, "key", 64 * 1024).splitlines()
    if not lines or not lines[0]:
        raise MaterialError("key", f"the first line of {file} is empty", "write the password there")
    return lines[0]


def _new_password(file: Path | None) -> bytes | None:
    """The same for something new, where a short one would be no protection."""
    if file is None:
        return None
    password = _password(file)
    if len(password) < ca.MIN_PASSWORD_LENGTH:
        fact = f"the password in {file} has {len(password)} bytes, the least is {ca.MIN_PASSWORD_LENGTH}"
        raise MaterialError("key", fact, "write a longer one there")
    return password


def _p12_password(arguments: argparse.Namespace) -> tuple[bytes, str]:
    """The password of a PKCS#12 file, and what to say about it: one that was made is shown once, to a person."""
    given = _new_password(arguments.password_file)
    if given is not None:
        return given, ""
    if not (arguments.show_password or (sys.stdout is not None and sys.stdout.isatty())):
        raise _UsageError(
            "client.p12 needs a password, and standard output, where one would be shown, is no terminal; "
            "give --password-file FILE, or --show-password"
        )
    made = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))  # 142 bits
    return made.encode(), f"; its password, shown only now: {made}"


# -- showing ----------------------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace, now: datetime) -> Outcome:
    target = Path(arguments.target)
    password = None if arguments.password_file is None else _password(arguments.password_file)
    anchors = None if arguments.ca is None else examine.read(_ca_file(arguments.ca)).certificates
    if not arguments.target:  # an unset variable of a script would be the current directory
        raise _UsageError("there is nothing to show; name a file, a directory or HOST:PORT")
    if target.is_dir():
        reports = _examine_directory(target, now, password, anchors)
    elif target.exists():
        reports = _examine_file(target, now, password, anchors)
    else:
        reports = [_examine_server(arguments, now)]
    has_problem = any(finding.level is examine.Level.PROBLEM for report in reports for finding in report.findings)
    lines = [line for report in reports for line in _report_lines(report)]
    return Outcome(lines, status=EXIT_TROUBLE if arguments.check and has_problem else EXIT_OK)


def _report_lines(report: examine.Report) -> Iterator[str]:
    yield report.title
    for label, value in report.facts:
        yield f"  {label:<12} {value}"
    for finding in report.findings:
        yield f"  {finding.level.value}: {finding.text}"


def _examine_directory(
    directory: Path, now: datetime, password: bytes | None, anchors: Sequence[x509.Certificate] | None
) -> list[examine.Report]:
    """Everything that is in it; what cannot be read is a problem of that file, not the end."""
    reports: list[examine.Report] = []
    for file in examine.list_files(directory):
        try:
            reports += _examine_file(file, now, password, anchors)
        except MaterialError as error:
            reports.append(examine.Report(str(file), (), (examine.Finding(examine.Level.PROBLEM, str(error)),)))
    return reports


def _examine_file(
    file: Path, now: datetime, password: bytes | None, anchors: Sequence[x509.Certificate] | None
) -> list[examine.Report]:
    contents = examine.read(file, password)
    beside = file.with_suffix(".key")
    key = None
    if contents.certificates and not contents.keys and beside != file and beside.is_file():
        key = next(iter(examine.read(beside, password).keys), None)
    own_ca = file.with_name(ca.CA_CERT)
    if anchors is None and contents.certificates and own_ca != file and own_ca.is_file():
        anchors = examine.read(own_ca).certificates
    return examine.examine(contents, now, key=key, key_place=str(beside), anchors=anchors)


def _ca_file(path: Path) -> Path:
    return path / ca.CA_CERT if path.is_dir() else path


# -- servers ----------------------------------------------------------------------------------------------------


@attrs.frozen
class _Seen:
    """
    What a handshake without any checks has shown.

    Attributes:
        version: Of TLS; empty if the handshake did not end well.
        cipher: The same.
        is_certificate_asked: Whether a client certificate is asked for.
        client_certificate: The same in words, with what is known of the consequences.
        chain: The server's certificates in DER, as sent.
        error: Why it did not end well; empty if it did.
    """

    version: str
    cipher: str
    is_certificate_asked: bool
    client_certificate: str
    chain: tuple[bytes, ...]
    error: str


def _examine_server(arguments: argparse.Namespace, now: datetime) -> examine.Report:
    host, port = _host_and_port(arguments.target)
    with _naming():
        name = ca.general_name(arguments.name or host)
    seen = _look(host, port, name, arguments.target)
    chain = examine.parse_chain(seen.chain, arguments.target)
    report = examine.examine_chain(chain, arguments.target, now, has_judge=True)
    trusted = "the CAs of this system" if arguments.ca is None else arguments.ca
    refusals = [f"a client that trusts {trusted} refuses {why}" for why in _refusals(chain, name, arguments.ca)]
    if seen.error and not seen.is_certificate_asked:
        refusals.append(f"the TLS handshake failed: {seen.error}")
    verdict = "refused" if refusals else f"leads to {trusted} and is for {name.value}"
    facts = [
        ("connection", f"{seen.version}, {seen.cipher}" if seen.version else f"ended by the server: {seen.error}"),
        ("client cert", seen.client_certificate),
        ("sent", f"{len(chain)} certificate{'s' if len(chain) > 1 else ''}; shown is the first"),
        *report.facts,
        ("trust", f"connected without checks; checked since: {verdict}"),
    ]
    problems = [examine.Finding(examine.Level.PROBLEM, text) for text in refusals]
    return attrs.evolve(report, facts=tuple(facts), findings=(*report.findings, *problems))


def _host_and_port(target: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", target, re.ASCII)
    if match is None or not 1 <= int(match[3]) <= 65_535:
        fact = f"{target!r} is neither a file, nor a directory, nor HOST:PORT"
        raise MaterialError("cert", fact, "correct it; an IPv6 address goes in brackets")
    return match[1] or match[2], int(match[3])


def _look(host: str, port: int, name: x509.GeneralName, target: str) -> _Seen:
    import socket

    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MaterialError("cert", f"{host} has no address: {reason}", "correct the name") from None
    failure = ""
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as sock:
            try:
                sock.settimeout(_left(deadline))
                sock.connect(address)
                return _Handshake(sock, deadline).look(name)
            except TimeoutError:
                failure = f"no answer within {CONNECT_SECONDS:g} s"
                break
            except OSError as error:
                failure = error.strerror or str(error)
    raise MaterialError("cert", f"{target}: {failure}", "check the address, and that a TLS server listens there")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Handshake:
    """One handshake with a server, over memory BIOs so that the deadline holds for all of it and all is counted."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        from OpenSSL import SSL

        self._socket = sock
        self._deadline = deadline
        self._received = 0
        self._is_asked = False
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # to see what is weak there, not to be kept from it
        context.set_verify(SSL.VERIFY_NONE)
        context.set_info_callback(self._note_state)
        self._connection = SSL.Connection(context, None)
        self._connection.set_connect_state()

    def look(self, name: x509.GeneralName) -> _Seen:
        """Shake hands; raises OSError if the server has no certificate to show, TimeoutError past the deadline."""
        from OpenSSL import SSL

        if isinstance(name, x509.DNSName):
            self._connection.set_tlsext_host_name(name.value.encode())
        error = ""
        try:
            self._run(self._connection.do_handshake)
        except SSL.Error as failure:
            error = _reason(failure)
        chain = self._connection.get_peer_cert_chain() or []
        if not chain:
            raise OSError(f"the TLS handshake failed: {error or 'the server has no certificate'}")
        asked = "not asked for"
        if self._is_asked:
            asked = "required" if error or self._is_refused() else "asked for (optional, or refused later)"
        version = "" if error else self._connection.get_protocol_version_name()
        cipher = self._connection.get_cipher_name() or ""
        return _Seen(version, cipher, self._is_asked, asked, tuple(_der(found) for found in chain), error)

    def _note_state(self, connection: SSL.Connection, where: int, status: int) -> None:
        if b"read server certificate request" in connection.get_state_string():
            self._is_asked = True

    def _is_refused(self) -> bool:
        from OpenSSL import SSL

        self._deadline = min(self._deadline, time.monotonic() + REFUSAL_SECONDS)
        try:
            self._run(lambda: self._connection.recv(1))
        except SSL.ZeroReturnError:
            return False
        except SSL.Error:
            return True
        except OSError:  # nothing came, or the connection went
            return False
        return False

    def _run(self, step: Callable[[], _Result]) -> _Result:
        from OpenSSL import SSL

        while True:
            try:
                result = step()
            except SSL.WantReadError:
                self._send()
                self._receive()
            else:
                self._send()
                return result

    def _send(self) -> None:
        from OpenSSL import SSL

        while True:
            try:
                data = self._connection.bio_read(65_536)
            except SSL.WantReadError:
                return
            self._socket.settimeout(_left(self._deadline))
            self._socket.sendall(data)

    def _receive(self) -> None:
        self._socket.settimeout(_left(self._deadline))
        data = self._socket.recv(16_384)
        self._received += len(data)
        if not data:
            raise OSError("the server closed the connection during the TLS handshake")
        if self._received > MAX_HANDSHAKE_BYTES:
            raise OSError(f"the server sent over {MAX_HANDSHAKE_BYTES:,} bytes and the TLS handshake is not done")
        self._connection.bio_write(data)


def _reason(error: Exception) -> str:
    """What OpenSSL says, e.g. ``wrong version number``: does the server speak TLS at all?"""
    queue = error.args[0] if error.args else ()
    return str(queue[0][2]) if isinstance(queue, list) and queue else "the connection was closed"


def _der(certificate: crypto.X509) -> bytes:
    from OpenSSL import crypto

    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def _refusals(chain: Sequence[x509.Certificate], name: x509.GeneralName, ca_file: Path | None) -> Iterator[str]:
    """What a client that checks does not accept *chain* for; nothing if it is fine."""
    from OpenSSL import crypto

    store = crypto.X509Store()
    _fill(store, ca_file)
    certificates = [crypto.X509.from_cryptography(certificate) for certificate in chain]
    try:
        crypto.X509StoreContext(store, certificates[0], certificates[1:]).verify_certificate()
    except crypto.X509StoreContextError as error:
        yield f"the chain: {error}"
    usage = examine.extension(chain[0], x509.ExtendedKeyUsage)
    if usage is not None and {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.isdisjoint(
        usage
    ):
        yield "the purpose: the certificate is not for servers"
    if not _matches(chain[0], name):
        yield f"the name: the certificate is not for {name.value}"


def _fill(store: crypto.X509Store, ca_file: Path | None) -> None:
    import ssl

    from OpenSSL import crypto

    if ca_file is not None:
        for anchor in examine.read(_ca_file(ca_file)).certificates:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        return
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        store.load_locations(paths.cafile, paths.capath)


def _matches(leaf: x509.Certificate, name: x509.GeneralName) -> bool:
    from service_identity import CertificateError, VerificationError
    from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

    verify = verify_certificate_ip_address if isinstance(name, x509.IPAddress) else verify_certificate_hostname
    try:
        verify(leaf, str(name.value))
    except (CertificateError, VerificationError):
        return False
    return True


# -- output -----------------------------------------------------------------------------------------------------


def _names(identity: ca.Identity) -> str:
    commons = [str(attribute.value) for attribute in identity.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return examine.shorten(dict.fromkeys([*commons, *ca.name_texts(identity.names)]))


def _validity(certificate: x509.Certificate, now: datetime) -> str:
    return f"until {certificate.not_valid_after_utc:%Y-%m-%d} ({examine.days_left(certificate, now)})"


def _cap_lines(leaf: x509.Certificate, arguments: argparse.Namespace, now: datetime) -> list[str]:
    if leaf.not_valid_after_utc >= (now + arguments.days).replace(microsecond=0):
        return []
    return [f"note: it ends with its CA, earlier than the {arguments.days.days} days asked for; make a new CA soon"]


def _file_name(name: str) -> str:
    """A name for a directory: no separators, no dot or dash first, not too long."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("*", "wildcard")).lstrip(".-_")
    return plain[:100] or "issued"


def _url_host(identity: ca.Identity) -> str:
    for name in identity.names:
        if isinstance(name, x509.DNSName):
            return name.value.replace("*", "HOST")
        if isinstance(name, x509.IPAddress):
            return f"[{name.value}]" if ":" in str(name.value) else str(name.value)
    return "HOST"


def _ca_option(directory: Path) -> str:
    return "" if directory == Path("ca") else f" --ca {_quoted(directory)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


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
