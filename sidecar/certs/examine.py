"""
What is in a file of certificates, keys, requests or revocation lists, in words, and what is wrong with it.

For ``sidecar certs show``: it takes what `bundle` would refuse, and says why. Private keys are looked at to see whose
they are and dropped at once: nothing here returns or holds one. What peers and files say is passed on as it is, control
characters included; whoever prints it has to escape it.
"""

from __future__ import annotations

import enum
import itertools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from sidecar.certs.describe import describe, describe_key, is_self_signed, rfc3339
from sidecar.errors import MaterialError

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

MAX_FILE_BYTES = 1024 * 1024
"""A chain with its key is a few KiB, the CA bundle of a Linux distribution about 220 KiB."""

MIN_RSA_BITS = 2048
"""NIST SP 800-57 part 1: 112 bits of security, the least that OpenSSL's default security level takes."""

SOON = timedelta(days=14)
"""A certificate that ends within this time is worth a note: people need the days to renew it."""

MAX_SHOWN = 20
"""Names or serial numbers in one line; a hostile server may send thousands."""

MAX_FILES = 50
"""Files of one directory; more are not for a person to read."""

_SUFFIXES = frozenset({".cer", ".crl", ".crt", ".csr", ".der", ".key", ".p12", ".pem", ".pfx"})

# RFC 7468. The body stops at the next dashes, so a file of BEGIN lines only costs linear time.
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----(?:(?!-----).)*-----END \1-----", re.DOTALL)

PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""Everything that `cryptography` raises for bytes that are not what they seem to be."""

_WEAK_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "SHA-1",
}

_MAX_PUBLIC_DAYS = 398
"""What browsers took from public CAs until March 2026; Apple takes 825 days from private ones."""

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
    ExtendedKeyUsageOID.CODE_SIGNING: "code signing",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "e-mail",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP signing",
}


class Level(enum.Enum):
    """How bad a finding is."""

    PROBLEM = "problem"
    NOTE = "note"


@attrs.frozen
class Finding:
    """
    Something to know about what was examined.

    Attributes:
        level: A problem keeps somebody from using it; a note may be as it should be.
        text: A sentence.
    """

    level: Level
    text: str


@attrs.frozen
class Report:
    """
    One thing that was examined.

    Attributes:
        title: What it is and where.
        facts: Labels and values in order.
        findings: What is wrong or odd with it.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...] = ()


@attrs.frozen
class KeyFile:
    """
    A private key, as far as it may be known.

    Attributes:
        public_key: In DER; None if the key is encrypted and no password was given.
        kind: E.g. ``ECDSA P-256``; empty if it is unknown.
        is_encrypted: Whether a password protects it.
    """

    public_key: bytes | None
    kind: str
    is_encrypted: bool


@attrs.frozen
class Contents:
    """
    What a file holds.

    Attributes:
        file: Which.
        form: ``PEM``, ``DER`` or ``PKCS#12``.
        certificates: In the order of the file.
        keys: Private keys.
        requests: Certificate signing requests.
        crls: Revocation lists.
    """

    file: Path
    form: str
    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[KeyFile, ...] = ()
    requests: tuple[x509.CertificateSigningRequest, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()


# -- reading ----------------------------------------------------------------------------------------------------


def read_file(file: Path, role: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read all of *file*, up to *limit* bytes; MaterialError with that *role* if that cannot be."""
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise MaterialError(role, f"{file} cannot be read: {reason}", "correct the path or the permissions") from None
    if len(data) > limit:
        raise MaterialError(role, f"{file} is over the limit of {limit:,} bytes", "name the right file")
    if not data:
        raise MaterialError(role, f"{file} is empty", "copy it again")
    return data


def read(file: Path, password: bytes | None = None) -> Contents:
    """
    Find out what *file* is and parse it.

    Args:
        file: PEM, DER or PKCS#12.
        password: For PKCS#12 and encrypted keys.

    Raises:
        MaterialError: With role ``cert``: it is none of these, damaged, or the password is missing or wrong.
    """
    data = read_file(file, "cert")
    with _tolerance():
        return _read_pem(file, data, password) if b"-----BEGIN " in data else _read_der(file, data, password)


def parse_chain(chain: Sequence[bytes], where: str) -> tuple[x509.Certificate, ...]:
    """Parse certificates in DER, as a peer sent them; MaterialError with role ``cert`` if one is damaged."""
    try:
        with _tolerance():
            return tuple(_whole(x509.load_der_x509_certificate(der)) for der in chain)
    except PARSE_ERRORS:
        fact = f"{where} sent a certificate that is damaged or of an unknown kind"
        raise MaterialError("cert", fact, "replace the certificate there") from None


def list_files(directory: Path) -> list[Path]:
    """
    List the files in *directory* that are named like something that can be read, by name.

    Raises:
        MaterialError: With role ``cert``: there is none, there are too many, or the directory cannot be read.
    """
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as error:
        raise MaterialError("cert", f"{directory} cannot be read: {error.strerror}", "correct the path") from None
    if not found:
        fact = f"{directory} holds no file with one of the endings {', '.join(sorted(_SUFFIXES))}"
        raise MaterialError("cert", fact, "name a file")
    if len(found) > MAX_FILES:
        raise MaterialError("cert", f"{directory} holds {len(found)} such files, the limit is {MAX_FILES}", "name one")
    return found


@contextmanager
def _tolerance() -> Iterator[None]:
    """Be silent about odd encodings that still work; what OpenSSL thinks of them shows elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_pem(file: Path, data: bytes, password: bytes | None) -> Contents:
    contents = Contents(file, "PEM")
    blocks = list(_PEM_BLOCK.finditer(data))
    if len(blocks) < data.count(b"-----BEGIN "):
        fact = f"{file} is cut short or damaged: a BEGIN line in it has no matching END line"
        raise MaterialError("cert", fact, "copy the whole file again")
    for number, block in enumerate(blocks, 1):
        label = block[1].decode("ascii")
        try:
            contents = _with_block(contents, label, block[0], password)
        except PARSE_ERRORS:
            fact = f"block {number} of {file}, {label}, is damaged or of an unknown kind"
            raise MaterialError("cert", fact, _key_fix(label, password)) from None
    return contents


def _key_fix(label: str, password: bytes | None) -> str:
    if label.endswith("PRIVATE KEY") and password is not None:
        return "check the password, or copy the file again"
    return "copy the file again"


def _with_block(contents: Contents, label: str, text: bytes, password: bytes | None) -> Contents:
    match label:
        case "CERTIFICATE" | "X509 CERTIFICATE":
            certificate = _whole(x509.load_pem_x509_certificate(text))
            return attrs.evolve(contents, certificates=(*contents.certificates, certificate))
        case "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST":
            return attrs.evolve(contents, requests=(*contents.requests, _whole_request(x509.load_pem_x509_csr(text))))
        case "X509 CRL":
            return attrs.evolve(contents, crls=(*contents.crls, _whole_crl(x509.load_pem_x509_crl(text))))
    if label.endswith("PRIVATE KEY"):
        is_encrypted = label.startswith("ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in text
        if is_encrypted and password is None:
            key = KeyFile(None, "", is_encrypted=True)
        else:
            key = _key_file(load_pem_private_key(text, password if is_encrypted else None), is_encrypted=is_encrypted)
        return attrs.evolve(contents, keys=(*contents.keys, key))
    return contents  # parameters, public keys: beside the point


def _read_der(file: Path, data: bytes, password: bytes | None) -> Contents:
    if b"\x02\x01\x03" in data[2:8]:  # version 3 of RFC 7292 section 4, right after the outer length
        return _read_pkcs12(file, data, password)
    parsers: list[Callable[[], Contents]] = [
        lambda: Contents(file, "DER", certificates=(_whole(x509.load_der_x509_certificate(data)),)),
        lambda: Contents(file, "DER", requests=(_whole_request(x509.load_der_x509_csr(data)),)),
        lambda: Contents(file, "DER", crls=(_whole_crl(x509.load_der_x509_crl(data)),)),
        lambda: Contents(file, "DER", keys=(_key_file(load_der_private_key(data, None), is_encrypted=False),)),
    ]
    for parse in parsers:
        try:
            return parse()
        except PARSE_ERRORS:
            continue
    fact = f"{file} is no certificate, key, request, CRL or PKCS#12 file, or it is damaged"
    raise MaterialError("cert", fact, "name the right file, or copy it again")


def _read_pkcs12(file: Path, data: bytes, password: bytes | None) -> Contents:
    if password is None:
        raise MaterialError("cert", f"{file} is PKCS#12, which has a password", "name its file with --password-file")
    try:
        store = pkcs12.load_pkcs12(data, password)
    except PARSE_ERRORS:
        fact = f"{file} is PKCS#12 and does not open with the password given, or is damaged"
        raise MaterialError("cert", fact, "check the file that --password-file names") from None
    found = [] if store.cert is None else [store.cert]
    certificates = tuple(_whole(entry.certificate) for entry in [*found, *store.additional_certs])
    keys = () if store.key is None else (_key_file(store.key, is_encrypted=True),)
    return Contents(file, "PKCS#12", certificates=certificates, keys=keys)


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """Parse all of it: `cryptography` parses late, and what is damaged must show here."""
    _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
    _ = certificate.serial_number
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
    return certificate


def _whole_request(request: x509.CertificateSigningRequest) -> x509.CertificateSigningRequest:
    _ = (request.subject, request.extensions, request.public_key(), request.is_signature_valid)
    return request


def _whole_crl(crl: x509.CertificateRevocationList) -> x509.CertificateRevocationList:
    _ = (crl.issuer, crl.extensions, crl.last_update_utc, crl.next_update_utc)
    _ = [entry.serial_number for entry in crl]
    return crl


def _key_file(key: object, *, is_encrypted: bool) -> KeyFile:
    if not hasattr(key, "public_key"):
        raise ValueError("a key without a public half")
    return KeyFile(_public_der(key.public_key()), describe_key(key), is_encrypted)


def _public_der(key: object) -> bytes:
    assert hasattr(key, "public_bytes")  # every public key of `cryptography`
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(der, bytes)
    return der


# -- reports ----------------------------------------------------------------------------------------------------


def examine(
    contents: Contents,
    now: datetime,
    *,
    key: KeyFile | None = None,
    key_place: str = "",
    anchors: Sequence[x509.Certificate] | None = None,
) -> list[Report]:
    """
    Describe everything in *contents*.

    Args:
        contents: As read.
        now: Aware; what validity is judged by.
        key: That of the first certificate, from the file beside it; those within *contents* go first.
        key_place: The name of that file.
        anchors: CAs that the chain should lead to; None: unknown.
    """
    with _tolerance():
        reports = list(_reports(contents, now, key, key_place, anchors))
    if not reports:
        fix = "name a certificate, key, CSR or CRL"
        raise MaterialError("cert", f"{contents.file} holds nothing that can be shown", fix)
    return reports


def _reports(
    contents: Contents,
    now: datetime,
    key: KeyFile | None,
    key_place: str,
    anchors: Sequence[x509.Certificate] | None,
) -> Iterator[Report]:
    where = str(contents.file)
    if contents.certificates:
        own_key, place = (contents.keys[0], where) if contents.keys else (key, key_place)
        report = _chain_report(contents.certificates, where, now, anchors, has_judge=False)
        yield _with_key(report, contents.certificates[0], own_key, place)
    else:
        yield from (_examine_key(found, where) for found in contents.keys)
    yield from (_examine_request(request, where) for request in contents.requests)
    yield from (_examine_crl(crl, where, now) for crl in contents.crls)


def examine_chain(
    certificates: Sequence[x509.Certificate],
    where: str,
    now: datetime,
    anchors: Sequence[x509.Certificate] | None = None,
    *,
    has_judge: bool = False,
) -> Report:
    """
    Describe the first of *certificates*, and how the others lead on from it.

    Args:
        certificates: At least one; in the order of the file, or as sent.
        where: What the title calls their place.
        now: Aware; what validity is judged by.
        anchors: As for `examine`.
        has_judge: The caller finds out by itself whether the chain leads to a CA that is trusted.
    """
    with _tolerance():
        return _chain_report(certificates, where, now, anchors, has_judge=has_judge)


def _chain_report(
    certificates: Sequence[x509.Certificate],
    where: str,
    now: datetime,
    anchors: Sequence[x509.Certificate] | None,
    *,
    has_judge: bool,
) -> Report:
    leaf = certificates[0]
    summary = describe(leaf)
    facts = [
        ("subject", summary.subject or "(empty)"),
        ("names", shorten(summary.sans) or "(none)"),
        ("issuer", summary.issuer),
        ("serial", summary.serial),
        ("valid", f"{rfc3339(summary.not_before)} to {rfc3339(summary.not_after)} ({days_left(leaf, now)})"),
        ("key", summary.key),
        ("SHA-256", summary.sha256),
        ("purposes", purposes(leaf)),
    ]
    findings = [*_leaf_findings(leaf, now)]
    if not (is_authority(leaf) and len(certificates) > 1):
        facts += _chain_facts(certificates)
        findings += _chain_findings(certificates, now, anchors)
        findings += [] if has_judge else _trust_findings(certificates, anchors)
    else:  # a bundle of CAs is no chain
        facts += [("also", f"{describe_subject(ca)} ({days_left(ca, now)})") for ca in certificates[1:]]
    return Report(f"{where}: {kind_of(leaf)}", tuple(facts), tuple(findings))


def kind_of(certificate: x509.Certificate) -> str:
    """Say what *certificate* is for, e.g. ``server certificate``."""
    if is_authority(certificate):
        return "root CA certificate" if is_self_signed(certificate) else "intermediate CA certificate"
    usage = extension(certificate, x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return "certificate for any purpose"
    kinds = [
        _PURPOSES[oid] for oid in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH) if oid in usage
    ]
    return f"{' and '.join(kinds)} certificate" if kinds else "certificate that is neither for servers nor clients"


def purposes(certificate: x509.Certificate) -> str:
    """List the extended key usage, and what a CA may issue."""
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        depth = "any depth" if constraints.path_length is None else f"{constraints.path_length} further CAs below it"
        return f"issuing certificates, {depth}"
    usage = extension(certificate, x509.ExtendedKeyUsage)
    if usage is None:
        return "any (no extended key usage)"
    return shorten([_PURPOSES.get(oid, oid.dotted_string) for oid in usage])


def days_left(certificate: x509.Certificate, now: datetime) -> str:
    """Say how many whole days *certificate* has left."""
    days = math.floor((certificate.not_valid_after_utc - now) / timedelta(days=1))
    return f"{days} days left" if days >= 0 else f"expired {-days} days ago"


def describe_subject(certificate: x509.Certificate) -> str:
    """The subject, or the first alternative name if that is empty."""
    return certificate.subject.rfc4514_string() or next(iter(describe(certificate).sans), "(no name)")


def shorten(values: Iterable[str]) -> str:
    """Join *values*, up to a number that is for people to read."""
    listed = list(values)
    more = [f"and {len(listed) - MAX_SHOWN} more"] if len(listed) > MAX_SHOWN else []
    return ", ".join([*listed[:MAX_SHOWN], *more])


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue: CA:TRUE, and no key usage that says otherwise."""
    usage = extension(certificate, x509.KeyUsage)
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def alternative_names(signed: x509.Certificate | x509.CertificateSigningRequest) -> tuple[x509.GeneralName, ...]:
    """The alternative names of a certificate or request that was `read`; none if it has none."""
    try:
        return tuple(signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """The extension of that kind, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# -- findings ---------------------------------------------------------------------------------------------------


def _problem(text: str) -> Finding:
    return Finding(Level.PROBLEM, text)


def _note(text: str) -> Finding:
    return Finding(Level.NOTE, text)


def _leaf_findings(leaf: x509.Certificate, now: datetime) -> Iterator[Finding]:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now > end:
        yield _problem(f"it expired on {rfc3339(end)}: renew it")
    elif now < start:
        yield _problem(f"it is not valid before {rfc3339(start)}, and the clock says {rfc3339(now)}")
    elif end - now < SOON and not is_authority(leaf):
        yield _note("it ends soon: renew it")
    yield from _strength_findings(leaf)
    if is_authority(leaf):
        return
    serves = kind_of(leaf) in ("server certificate", "server and client certificate", "certificate for any purpose")
    if serves and extension(leaf, x509.SubjectAlternativeName) is None:
        yield _problem("it has no alternative names: clients do not look at the common name")
    usage = extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.key_encipherment or usage.key_agreement):
        yield _problem("its key usage allows no TLS: it lacks digitalSignature")
    if kind_of(leaf).endswith("clients"):
        yield _problem("its extended key usage has neither serverAuth nor clientAuth: TLS peers refuse it")
    days = (end - start) // timedelta(days=1)
    if serves and days > _MAX_PUBLIC_DAYS:
        yield _note(
            f"it is valid for {days} days: browsers refuse more than {_MAX_PUBLIC_DAYS} from public CAs, "
            "and Apple's more than 825 from any"
        )


def _strength_findings(certificate: x509.Certificate) -> Iterator[Finding]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        yield _problem(f"its RSA key has {key.key_size} bits, peers take no less than {MIN_RSA_BITS}")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 256:
        yield _problem(f"its key is on the curve {key.curve.name}, which peers refuse")
    digest = _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
    if digest is not None and certificate.issuer != certificate.subject:
        yield _problem(f"it is signed with {digest}, which peers refuse")


def _chain_facts(certificates: Sequence[x509.Certificate]) -> Iterator[tuple[str, str]]:
    for number, (below, above) in enumerate(itertools.pairwise(certificates), 1):
        verdict = "signed by" if is_issued_by(below, above) else "NOT signed by"
        yield f"chain {number}", f"{describe_subject(below)} is {verdict} {describe_subject(above)}"


def _chain_findings(
    certificates: Sequence[x509.Certificate], now: datetime, anchors: Sequence[x509.Certificate] | None
) -> Iterator[Finding]:
    for number, (below, above) in enumerate(itertools.pairwise(certificates), 2):
        if not is_issued_by(below, above):
            yield _broken_link(certificates, number, anchors)
            return
        if not is_authority(above):
            yield _problem(f"certificate {number} of the chain, {describe_subject(above)}, is no CA certificate")
        elif not above.not_valid_before_utc <= now <= above.not_valid_after_utc:
            start, end = rfc3339(above.not_valid_before_utc), rfc3339(above.not_valid_after_utc)
            yield _problem(f"certificate {number} of the chain, {describe_subject(above)}, is valid {start} to {end}")
        for finding in _strength_findings(above):
            yield _problem(f"certificate {number} of the chain, {describe_subject(above)}: {finding.text}")
    leaf, last = certificates[0], certificates[-1]
    if last != leaf and is_self_signed(last) and is_authority(last):
        yield _note("the root is in the chain: peers have it anyway, leaving it out saves bytes in each handshake")


def _broken_link(
    certificates: Sequence[x509.Certificate], number: int, anchors: Sequence[x509.Certificate] | None
) -> Finding:
    below, above = certificates[number - 2], certificates[number - 1]
    issuers = [place for place, other in enumerate(certificates, 1) if other != below and is_issued_by(below, other)]
    if issuers:
        return _problem(
            f"wrong order: certificate {number - 1} is signed by certificate {issuers[0]}, which must come next"
        )
    if below.issuer == above.subject:
        return _problem(f"certificate {number} has the name of the issuer of {number - 1} but did not sign it")
    if is_self_signed(below) or any(is_issued_by(below, anchor) for anchor in anchors or ()):
        return _note(f"certificate {number}, {describe_subject(above)}, does not belong to the chain")
    return _problem(
        f"the chain is incomplete: {below.issuer.rfc4514_string()}, which signed certificate {number - 1}, is missing"
    )


def _trust_findings(
    certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate] | None
) -> Iterator[Finding]:
    if any(not is_issued_by(below, above) for below, above in itertools.pairwise(certificates)):
        return  # said before
    leaf, last = certificates[0], certificates[-1]
    if anchors is not None:
        if last not in anchors and not any(is_issued_by(last, anchor) for anchor in anchors):
            yield _problem(f"the chain does not lead to a CA that is trusted: {_missing_issuer(last)}")
    elif is_self_signed(last):
        if not is_authority(leaf) and len(certificates) == 1:
            yield _note("it is self-signed: each peer has to be given this very certificate")
    else:
        yield _note(
            f"peers must know the issuer, {last.issuer.rfc4514_string()}; if that is an intermediate, its certificate "
            "is missing here (--ca FILE checks that)"
        )


def _missing_issuer(last: x509.Certificate) -> str:
    if is_self_signed(last):
        return f"{describe_subject(last)} is not among them"
    return f"the issuer {last.issuer.rfc4514_string()} is not among them, or an intermediate is missing"


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer* has the name that *certificate* gives, and its key verifies the signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _with_key(report: Report, leaf: x509.Certificate, key: KeyFile | None, place: str) -> Report:
    if key is None:
        return report
    findings = report.findings
    if key.public_key is None:
        fact = f"{place} is encrypted; --password-file tells whether it fits"
    elif key.public_key == _public_der(leaf.public_key()):
        fact = f"{place} fits"
    else:
        fact = f"{place} does NOT fit"
        findings = (*findings, _problem(f"the key in {place} does not belong to the certificate"))
    return attrs.evolve(report, facts=(*report.facts, ("private key", fact)), findings=findings)


def _examine_key(key: KeyFile, where: str) -> Report:
    state = "encrypted" if key.is_encrypted else "not encrypted"
    findings = []
    if not key.is_encrypted and os.stat(where).st_mode & 0o077:
        findings.append(_note(f"others than its owner may read it: chmod 600 {where}"))
    return Report(f"{where}: private key", (("key", key.kind or "unknown"), ("state", state)), tuple(findings))


def _examine_request(request: x509.CertificateSigningRequest, where: str) -> Report:
    findings = []
    names = shorten(str(name.value) for name in alternative_names(request))
    kind = describe_key(request.public_key())
    if not request.is_signature_valid:
        findings.append(_problem("its signature is not valid: whoever made it does not have the key"))
    facts = (("subject", request.subject.rfc4514_string() or "(empty)"), ("names", names or "(none)"), ("key", kind))
    return Report(f"{where}: certificate signing request", facts, tuple(findings))


def _examine_crl(crl: x509.CertificateRevocationList, where: str, now: datetime) -> Report:
    findings = []
    due = crl.next_update_utc
    if due is not None and due < now:
        findings.append(_problem(f"a newer list was due on {rfc3339(due)}: peers that check it refuse everybody"))
    try:
        number = str(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    except x509.ExtensionNotFound:
        number = "(none)"
    facts = (
        ("issuer", crl.issuer.rfc4514_string()),
        ("number", number),
        ("made", rfc3339(crl.last_update_utc)),
        ("next due", "(never)" if due is None else rfc3339(due)),
        ("revoked", f"{len(crl)}: {shorten(f'{entry.serial_number:x}' for entry in crl)}" if len(crl) else "none"),
    )
    return Report(f"{where}: certificate revocation list", facts, tuple(findings))
