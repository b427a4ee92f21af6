"""The command that says what a file, a directory or a server has, and what is wrong with it: ``show``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509

from sidecar.certs.altnames import general_name
from sidecar.certs.cadir import CA_CERT
from sidecar.certs.chains import examine_chain
from sidecar.certs.examine import examine
from sidecar.certs.items import Password
from sidecar.certs.parsed import list_files, parse_chain, read
from sidecar.certs.report import Level, Report, problem
from sidecar.errors import MaterialError
from sidecar.pki.opening import password_in
from sidecar.pki.outcome import EXIT_OK, EXIT_TROUBLE, Outcome, UsageError, naming
from sidecar.pki.probe import probe
from sidecar.pki.refusals import refusals_of


def show(arguments: argparse.Namespace, now: datetime) -> Outcome:
    """Show what is behind the target."""
    target = Path(arguments.target)
    password = password_in(arguments.password_file)
    anchors = None if arguments.ca is None else read(_ca_file(arguments.ca)).certificates
    if not arguments.target:  # an unset variable of a script would be the current directory
        raise UsageError("there is nothing to show; name a file, a directory or HOST:PORT")
    if target.is_dir():
        reports = _examine_directory(target, now, password, anchors)
    elif target.exists():
        reports = _examine_file(target, now, password, anchors)
    else:
        reports = [_examine_server(arguments, now, anchors)]
    has_problem = any(finding.level is Level.PROBLEM for report in reports for finding in report.findings)
    lines = [line for report in reports for line in _report_lines(report)]
    return Outcome(lines, status=EXIT_TROUBLE if arguments.check and has_problem else EXIT_OK)


def _report_lines(report: Report) -> Iterator[str]:
    yield report.title
    for label, value in report.facts:
        yield f"  {label:<12} {value}"
    for finding in report.findings:
        yield f"  {finding.level.value}: {finding.text}"


def _examine_directory(
    directory: Path, now: datetime, password: Password | None, anchors: Sequence[x509.Certificate] | None
) -> list[Report]:
    """Everything that is in it; what cannot be read is a problem of that file, not the end."""
    reports: list[Report] = []
    for file in list_files(directory):
        try:
            reports += _examine_file(file, now, password, anchors)
        except MaterialError as error:
            reports.append(Report(str(file), (), (problem(str(error)),)))
    return reports


def _examine_file(
    file: Path, now: datetime, password: Password | None, anchors: Sequence[x509.Certificate] | None
) -> list[Report]:
    parsed = read(file, password)
    beside = file.with_suffix(".key")
    key = None
    if parsed.certificates and not parsed.keys and beside != file and beside.is_file():
        key = next(iter(read(beside, password).keys), None)
    own_ca = file.with_name(CA_CERT)
    if anchors is None and parsed.certificates and own_ca != file and own_ca.is_file():
        anchors = read(own_ca).certificates
    return examine(parsed, now, key=key, key_place=str(beside), anchors=anchors)


def _ca_file(path: Path) -> Path:
    return path / CA_CERT if path.is_dir() else path


def _examine_server(arguments: argparse.Namespace, now: datetime, anchors: Sequence[x509.Certificate] | None) -> Report:
    host, port = _host_and_port(arguments.target)
    with naming():
        name = general_name(arguments.name or host)
    seen = probe(host, port, name, arguments.target)
    chain = parse_chain(seen.chain, arguments.target)
    report = examine_chain(chain, arguments.target, now, has_judge=True)
    trusted = "the CAs of this system" if arguments.ca is None else arguments.ca
    refusals = [f"a client that trusts {trusted} refuses {why}" for why in refusals_of(chain, name, anchors)]
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
    problems = [problem(text) for text in refusals]
    return attrs.evolve(report, facts=tuple(facts), findings=(*report.findings, *problems))


def _host_and_port(target: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", target, re.ASCII)
    if match is None or not 1 <= int(match[3]) <= 65_535:
        fact = f"{target!r} is neither a file, nor a directory, nor HOST:PORT"
        raise MaterialError("cert", fact, "correct it; an IPv6 address goes in brackets")
    return match[1] or match[2], int(match[3])
