"""
Files to checked key material: a server certificate with its chain and key, and the anchors of client certificates.

What leaves this module can serve: it is parsed, in date, fit for its purpose and strong enough for OpenSSL. What
cannot serve is refused with a sentence of its own. `app` calls it at start and at each reload; nothing here logs, and
no message ever holds bytes of a key.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from sidecar.certs.describe import describe_key
from sidecar.errors import MaterialError

MAX_FILE_BYTES = 1024 * 1024
"""A bundle is a few KiB, the CA bundle of a Linux distribution about 220 KiB."""

MIN_RSA_BITS = 2048
"""NIST SP 800-57 part 1: 112 bits of security, the least that OpenSSL's default security level takes."""

_Result = TypeVar("_Result")
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_SUPPORTED_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SUPPORTED_KEYS = "RSA of 2048 bits or more, ECDSA P-256, P-384 or P-521, or Ed25519"

_SERVER_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

_WEAK_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "SHA-1",
}

# RFC 7468. The body stops at the next dashes, so a file of BEGIN lines only costs linear time.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?:(?!-----).)*)-----END \1-----", re.DOTALL)

# Everything that `cryptography` raises for bytes that are not what their label says.
_PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@attrs.frozen
class Bundle:
    """
    What a server proves its identity with.

    Attributes:
        leaf: The server's certificate.
        chain: The further certificates to send, the leaf's issuer first; may be empty.
        private_key: The leaf's key. Never shown, and not compared: it follows from the leaf.
    """

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = attrs.field(repr=False, eq=False)


def load_bundle(cert: Path, key: Path | None, now: datetime) -> Bundle:
    """
    Load a server certificate, its chain and its key.

    Args:
        cert: PEM file with the leaf first, or a directory in the ``kubernetes.io/tls`` layout (tls.crt, tls.key).
        key: PEM file, or a directory with tls.key. None: tls.key of the *cert* directory, or else the key inside
            the *cert* file, or else the file beside it with the ending ``.key``.
        now: Aware; what validity is judged by.

    Raises:
        MaterialError: With role ``cert`` or ``key``.
    """
    cert_pem = _read(cert, "tls.crt", "cert")
    certificates = _certificates(cert_pem)
    key_pem = _key_source(cert, key, cert_pem)
    private_key = _private_key(key_pem)
    _check_fit(certificates, private_key, cert_pem, key_pem)
    _check_dates(certificates[0], cert_pem, now)
    _check_purpose(certificates[0], cert_pem)
    _check_strength(certificates, cert_pem)
    return Bundle(leaf=certificates[0], chain=certificates[1:], private_key=private_key)


def find_problems(cert: Path, key: Path | None, now: datetime) -> list[MaterialError]:
    """Return everything that keeps `load_bundle` from succeeding with the same arguments; empty if nothing does."""
    found: list[MaterialError] = []

    def attempt(step: Callable[..., _Result], *args: object) -> _Result | None:
        try:
            return step(*args)
        except MaterialError as error:
            found.append(error)
            return None

    cert_pem = attempt(_read, cert, "tls.crt", "cert")
    certificates = attempt(_certificates, cert_pem) if cert_pem is not None else None
    key_pem = None
    if cert_pem is not None:
        key_pem = attempt(_key_source, cert, key, cert_pem)
    elif key is not None:
        key_pem = attempt(_read, key, "tls.key", "key")
    private_key = attempt(_private_key, key_pem) if key_pem is not None else None
    if certificates is not None:
        if private_key is not None:
            attempt(_check_fit, certificates, private_key, cert_pem, key_pem)
        attempt(_check_dates, certificates[0], cert_pem, now)
        attempt(_check_purpose, certificates[0], cert_pem)
        attempt(_check_strength, certificates, cert_pem)
    return found


def load_anchors(path: Path, now: datetime) -> tuple[x509.Certificate, ...]:
    """
    Load the CAs that client certificates must come from.

    Intermediate CAs may be among them, but a chain always ends at a root, so there must be one that is in date.

    Args:
        path: PEM file of one or more certificates, or a directory with ca.crt.
        now: Aware; what validity is judged by.

    Raises:
        MaterialError: With role ``ca``.
    """
    pem = _read(path, "ca.crt", "ca")
    anchors = _certificates(pem)
    for anchor in anchors:
        if not _is_authority(anchor):
            raise MaterialError(
                "ca",
                f"{anchor.subject.rfc4514_string()!r} in {pem.file} is not a CA certificate",
                "put only the certificates of the CAs there, not those of clients or servers",
            )
    roots = [anchor for anchor in anchors if anchor.issuer == anchor.subject]
    if not roots:
        raise MaterialError(
            "ca", f"{pem.file} holds intermediate CAs but no root", "add the self-signed root that they come from"
        )
    newest = max(root.not_valid_after_utc for root in roots)
    if newest < now:
        raise MaterialError(
            "ca", f"every root CA in {pem.file} has expired, the last on {_date(newest)}", "put the current CAs there"
        )
    return anchors


# -- reading ----------------------------------------------------------------------------------------------------


@attrs.frozen
class _Block:
    """One PEM block, markers included. Its text may be a key, so it is never shown."""

    label: str
    text: bytes = attrs.field(repr=False)

    @property
    def is_certificate(self) -> bool:
        return self.label in ("CERTIFICATE", "X509 CERTIFICATE")

    @property
    def is_private_key(self) -> bool:
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_encrypted(self) -> bool:
        return self.label.startswith("ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in self.text


@attrs.frozen
class _Pem:
    """The blocks of one file, and the role it is read for; `file` is the path as the operator would write it."""

    file: Path
    role: str
    blocks: tuple[_Block, ...]

    def contents(self) -> str:
        return ", ".join(dict.fromkeys(block.label for block in self.blocks))


def _read(path: Path, name: str, role: str) -> _Pem:
    """Read the PEM blocks of *path*, or of the file *name* in it when it is a directory."""
    file = path / name if os.path.isdir(path) else path
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if file == path:
            raise MaterialError(role, f"{file} does not exist", "correct the path, or put the file there") from None
        raise MaterialError(role, f"{path} is a directory without {name}", f"put {name} there or name a file") from None
    except PermissionError:
        who = f"user {os.geteuid()}, who runs this program, may not read {file}"
        raise MaterialError(role, who, "let that user read it (chown or chmod, and every directory above)") from None
    except IsADirectoryError:
        fix = "name a file (container engines make a directory where the file to mount does not exist)"
        raise MaterialError(role, f"{file} is a directory", fix) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise MaterialError(role, f"{str(file)!r} cannot be read: {reason}", "correct the path") from None
    return _Pem(file, role, _blocks(data, file, role))


def _blocks(data: bytes, file: Path, role: str) -> tuple[_Block, ...]:
    if not data.strip():
        raise MaterialError(role, f"{file} is empty", "write the PEM text into it")
    if len(data) > MAX_FILE_BYTES:
        raise MaterialError(role, f"{file} is over the limit of {MAX_FILE_BYTES:,} bytes", "name the right file")
    blocks = tuple(_Block(match[1].decode("ascii"), match[0]) for match in _BLOCK.finditer(data))
    begins = data.count(b"-----BEGIN ")
    if begins == 0:
        raise _not_pem(data, file, role)
    if begins > len(blocks):
        fact = f"{file} is cut short or damaged: a BEGIN line in it has no matching END line"
        raise MaterialError(role, fact, "copy the whole file again")
    return blocks


def _not_pem(data: bytes, file: Path, role: str) -> MaterialError:
    what = "pkey" if role == "key" else "x509"
    if data[:1] != b"\x30":  # every one of these formats starts with an ASN.1 SEQUENCE
        return MaterialError(role, f"{file} is not PEM", "it must hold a block that starts with -----BEGIN …-----")
    if b"\x02\x01\x03" in data[2:8]:  # version 3 of RFC 7292 section 4, right after the outer length
        fix = f"convert it: openssl pkcs12 -in {file} -out {file}.pem -nodes"
        return MaterialError(role, f"{file} is PKCS#12, not PEM", fix)
    fix = f"convert it: openssl {what} -inform DER -in {file} -out {file}.pem"
    return MaterialError(role, f"{file} looks like DER, not PEM", fix)


# -- certificates -----------------------------------------------------------------------------------------------


def _certificates(pem: _Pem) -> tuple[x509.Certificate, ...]:
    blocks = [block for block in pem.blocks if block.is_certificate]
    if not blocks:
        raise _no_certificate(pem)
    return tuple(_certificate(block, number, pem) for number, block in enumerate(blocks, 1))


def _no_certificate(pem: _Pem) -> MaterialError:
    fact = f"{pem.file} holds no certificate, only: {pem.contents()}"
    if any(block.is_private_key for block in pem.blocks):
        return MaterialError(pem.role, fact, "name the certificate file here (are certificate and key swapped?)")
    if any("CERTIFICATE REQUEST" in block.label for block in pem.blocks):
        return MaterialError(pem.role, fact, "a request must be signed: name the certificate that the CA sent back")
    if any(block.label == "TRUSTED CERTIFICATE" for block in pem.blocks):
        fix = f"convert it: openssl x509 -in {pem.file} -out {pem.file}.pem"
        return MaterialError(pem.role, fact, fix)
    return MaterialError(pem.role, fact, "name a file with a -----BEGIN CERTIFICATE----- block")


def _certificate(block: _Block, number: int, pem: _Pem) -> x509.Certificate:
    """Parse *block* wholly: `cryptography` parses late, and what is damaged must show here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd but working encodings; OpenSSL has the last word
            certificate = x509.load_pem_x509_certificate(block.text)
            _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
    except _PARSE_ERRORS:
        fact = f"certificate {number} in {pem.file} is damaged or of an unknown kind"
        raise MaterialError(pem.role, fact, f"look at it with: openssl x509 -in {pem.file} -noout -text") from None
    return certificate


def _check_dates(leaf: x509.Certificate, pem: _Pem, now: datetime) -> None:
    """Judge the leaf only: chains with an expired cross-signature are in honest use."""
    if now > leaf.not_valid_after_utc:
        fact = f"the certificate in {pem.file} expired on {_date(leaf.not_valid_after_utc)}"
        raise MaterialError("cert", fact, "renew it")
    if now < leaf.not_valid_before_utc:
        fact = (
            f"the certificate in {pem.file} is not valid until {_date(leaf.not_valid_before_utc)}, "
            f"and the clock says {_date(now)}"
        )
        raise MaterialError("cert", fact, "correct the clock of this machine, or wait")


def _check_purpose(leaf: x509.Certificate, pem: _Pem) -> None:
    """
    Refuse what no client would take from a server (RFC 5280 sections 4.2.1.3 and 4.2.1.12).

    CA:TRUE alone is no reason: `openssl req -x509` makes such certificates, and people develop with them.
    """
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and _SERVER_PURPOSES.isdisjoint(purposes):
        fact = f"the certificate in {pem.file} is not for servers: its extended key usage lacks serverAuth"
        raise MaterialError("cert", fact, "get one issued for server authentication")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.key_encipherment or usage.key_agreement):
        kind = "a CA's" if usage.key_cert_sign else "not a server's"
        fact = f"the certificate in {pem.file} is {kind}: its key usage does not allow TLS"
        raise MaterialError("cert", fact, "issue a server certificate, with key usage digitalSignature")


def _check_strength(certificates: tuple[x509.Certificate, ...], pem: _Pem) -> None:
    """Refuse what OpenSSL's default security level would refuse, some of it only during each handshake."""
    for certificate in certificates:
        subject = certificate.subject.rfc4514_string()
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            fact = f"{subject!r} in {pem.file} has an RSA key of {key.key_size} bits, the least is {MIN_RSA_BITS}"
            raise MaterialError("cert", fact, "replace it")
        digest = _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
        if digest is not None and certificate.issuer != certificate.subject:
            fact = f"{subject!r} in {pem.file} is signed with {digest}, which clients refuse"
            raise MaterialError("cert", fact, "have it issued again with SHA-256")


def _is_authority(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL takes it as an issuer: CA:TRUE, or a root from before there were extensions (version 1)."""
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None:
        return constraints.ca
    return certificate.version is x509.Version.v1 and certificate.issuer == certificate.subject


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# -- keys -------------------------------------------------------------------------------------------------------


def _key_source(cert: Path, key: Path | None, cert_pem: _Pem) -> _Pem:
    if key is not None:
        return _read(key, "tls.key", "key")
    if cert_pem.file != cert:
        return _read(cert, "tls.key", "key")
    if any(block.is_private_key for block in cert_pem.blocks):
        return attrs.evolve(cert_pem, role="key")
    beside = cert.with_suffix(".key")
    if os.path.isfile(beside):
        return _read(beside, "tls.key", "key")
    fact = f"no private key: {cert} holds none, and there is no {beside}"
    raise MaterialError("key", fact, "name the file of the key")


def _private_key(pem: _Pem) -> PrivateKey:
    """Parse the first private key of *pem*."""
    block = next((block for block in pem.blocks if block.is_private_key), None)
    if block is None:
        fact = f"{pem.file} holds no private key, only: {pem.contents()}"
        raise MaterialError("key", fact, "name the key file here (are certificate and key swapped?)")
    if block.is_encrypted:
        fact = f"the private key in {pem.file} is encrypted"
        raise MaterialError("key", fact, f"decrypt it: openssl pkey -in {pem.file} -out {pem.file}.pem")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = load_pem_private_key(block.text, password=None)
    except _PARSE_ERRORS:
        fact = f"the private key in {pem.file} is damaged or of an unknown kind"
        raise MaterialError("key", fact, f"look at it with: openssl pkey -in {pem.file} -noout -text_pub") from None
    match key:
        case rsa.RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return key
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, _SUPPORTED_CURVES):
            return key
        case ed25519.Ed25519PrivateKey():
            return key
    fact = f"the private key in {pem.file} is {describe_key(key)}, which is not supported"
    raise MaterialError("key", fact, f"use {_SUPPORTED_KEYS}")


def _check_fit(certificates: tuple[x509.Certificate, ...], key: PrivateKey, cert_pem: _Pem, key_pem: _Pem) -> None:
    public_key = key.public_key()
    fits = [certificate.public_key() == public_key for certificate in certificates]
    if fits[0]:
        return
    if any(fits):
        fact = (
            f"the chain in {cert_pem.file} is in the wrong order: "
            f"the private key belongs to certificate {fits.index(True) + 1} in it, not to the first"
        )
        raise MaterialError("cert", fact, "put the server's own certificate first, then its issuer, and so on")
    fact = f"the private key in {key_pem.file} does not match the certificate in {cert_pem.file}"
    raise MaterialError("key", fact, "name the key that this certificate was made for")


def _date(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
