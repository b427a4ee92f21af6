"""
What is in a file of certificates, keys, requests or revocation lists, in words, and what is wrong with it.

For ``sidecar certs show``: it takes what the server would refuse, and says why. What files say is passed on as it is,
control characters included; whoever prints it has to escape it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509

from sidecar.certs.chains import examine_chain
from sidecar.certs.describe import describe_key, rfc3339
from sidecar.certs.parsed import KeyFile, Parsed
from sidecar.certs.parsing import quiet
from sidecar.certs.report import Report, note, problem, shorten
from sidecar.certs.sources import is_exposed
from sidecar.certs.traits import alternative_names, extension
from sidecar.errors import MaterialError


def examine(
    parsed: Parsed,
    now: datetime,
    *,
    key: KeyFile | None = None,
    key_place: str = "",
    anchors: Sequence[x509.Certificate] | None = None,
) -> list[Report]:
    """
    Describe everything in *parsed*.

    Args:
        parsed: As read.
        now: Aware; what validity is judged by.
        key: That of the first certificate, from the file beside it; those within *parsed* go first.
        key_place: The name of that file.
        anchors: CAs that the chain should lead to; None: unknown.
    """
    with quiet():
        reports = list(_reports(parsed, now, key, key_place, anchors))
    if not reports:
        fix = "name a certificate, key, CSR or CRL"
        raise MaterialError("cert", f"{parsed.file} holds nothing that can be shown", fix)
    return reports


def _reports(
    parsed: Parsed,
    now: datetime,
    key: KeyFile | None,
    key_place: str,
    anchors: Sequence[x509.Certificate] | None,
) -> Iterator[Report]:
    where = str(parsed.file)
    if parsed.certificates:
        own_key, place = (parsed.keys[0], where) if parsed.keys else (key, key_place)
        report = examine_chain(parsed.certificates, where, now, anchors)
        yield _with_key(report, parsed.certificates[0], own_key, place)
    else:
        yield from (_examine_key(found, parsed.file) for found in parsed.keys)
    yield from (_examine_request(request, where) for request in parsed.requests)
    yield from (_examine_crl(crl, where, now) for crl in parsed.crls)


def _with_key(report: Report, leaf: x509.Certificate, key: KeyFile | None, place: str) -> Report:
    if key is None:
        return report
    findings = report.findings
    if key.public_key is None:
        fact = f"{place} is encrypted; --password-file tells whether it fits"
    elif key.public_key == leaf.public_key():
        fact = f"{place} fits"
    else:
        fact = f"{place} does NOT fit"
        findings = (*findings, problem(f"the key in {place} does not belong to the certificate"))
    return attrs.evolve(report, facts=(*report.facts, ("private key", fact)), findings=findings)


def _examine_key(key: KeyFile, file: Path) -> Report:
    state = "encrypted" if key.is_encrypted else "not encrypted"
    findings = []
    if not key.is_encrypted and is_exposed(file):
        findings.append(note(f"others than its owner may read it: chmod 600 {file}"))
    return Report(f"{file}: private key", (("key", key.kind), ("state", state)), tuple(findings))


def _examine_request(request: x509.CertificateSigningRequest, where: str) -> Report:
    findings = []
    names = shorten(str(name.value) for name in alternative_names(request))
    kind = describe_key(request.public_key())
    if not request.is_signature_valid:
        findings.append(problem("its signature is not valid: whoever made it does not have the key"))
    facts = (("subject", request.subject.rfc4514_string() or "(empty)"), ("names", names or "(none)"), ("key", kind))
    return Report(f"{where}: certificate signing request", facts, tuple(findings))


def _examine_crl(crl: x509.CertificateRevocationList, where: str, now: datetime) -> Report:
    findings = []
    due = crl.next_update_utc
    if due is not None and due < now:
        findings.append(problem(f"a newer list was due on {rfc3339(due)}: peers that check it refuse everybody"))
    number = extension(crl, x509.CRLNumber)
    facts = (
        ("issuer", crl.issuer.rfc4514_string()),
        ("number", "(none)" if number is None else str(number.crl_number)),
        ("made", rfc3339(crl.last_update_utc)),
        ("next due", "(never)" if due is None else rfc3339(due)),
        ("revoked", f"{len(crl)}: {shorten(f'{entry.serial_number:x}' for entry in crl)}" if len(crl) else "none"),
    )
    return Report(f"{where}: certificate revocation list", facts, tuple(findings))
