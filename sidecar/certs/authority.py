"""
The private CA: its certificate, what it issues and revokes, and the directory that all of it is kept in.

`cli_certs` calls it; a running proxy never does. What is issued is what was asked for on the command line and nothing
more: a request's extensions are never copied. No message holds a key or a password, and no file is half written.
"""

from __future__ import annotations

import enum
import fcntl
import ipaddress
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs.describe import describe_key, rfc3339
from sidecar.certs.examine import MIN_RSA_BITS, PARSE_ERRORS, alternative_names, is_authority, read_file
from sidecar.errors import MaterialError

CA_CERT, CA_KEY, CA_CRL = "ca.crt", "ca.key", "ca.crl"
REGISTER = "issued.txt"
_LOCK = ".lock"

CLOCK_SKEW = timedelta(hours=1)
"""How far certificates and CRLs are backdated, for peers whose clock is behind ours."""

MAX_NAMES = 100
"""In one certificate; a handshake carries it each time."""

MAX_COMMON_NAME = 64
"""ub-common-name, ub-organization-name and ub-organizational-unit-name of RFC 5280 appendix A.1, in characters."""

MAX_REGISTER_BYTES = 16 * 1024 * 1024
"""About 100,000 certificates."""

MIN_PASSWORD_LENGTH = 8
"""Of what protects a key: the old encryption of PKCS#12 slows guessing down only a little."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
_CURVES = {"secp256r1", *_CURVE_HASHES}
_MAX_RSA_BITS = 16_384  # OpenSSL verifies no larger ones


class KeyKind(enum.Enum):
    """The kinds of key that are made here."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"

    def generate(self) -> PrivateKey:
        """Make a new key."""
        match self:
            case KeyKind.P256:
                return ec.generate_private_key(ec.SECP256R1())
            case KeyKind.P384:
                return ec.generate_private_key(ec.SECP384R1())
            case KeyKind.RSA2048:
                return rsa.generate_private_key(public_exponent=65537, key_size=2048)
            case KeyKind.RSA4096:
                return rsa.generate_private_key(public_exponent=65537, key_size=4096)
            case KeyKind.ED25519:
                return ed25519.Ed25519PrivateKey.generate()


class Purpose(enum.Enum):
    """What a certificate is for; each has one purpose, so that a stolen one serves no other."""

    SERVER = "server"
    CLIENT = "client"


_PURPOSE_IDS = {
    Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


# -- names ------------------------------------------------------------------------------------------------------

# RFC 1123 section 2.1 labels. `_` is not in it, but container names have it and TLS clients match it.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}", re.ASCII)

# The dot-atom of RFC 5321 section 4.1.2.
_MAILBOX = re.compile(r"(?=.{1,64}\Z)[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)

# RFC 3986 with an authority, which RFC 5280 section 4.2.1.6 wants to be there.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[\w.~%:@\[\]-]+(?:[/?#][\w.~%:@!$&'()*+,;=/?#\[\]-]*)?", re.ASCII)
_MAX_URI = 2048

# SPIFFE ID section 2. The `.` and `..` segments are refused apart.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+", re.ASCII)


@attrs.frozen
class Identity:
    """
    Who a certificate is for.

    Attributes:
        subject: May be empty if there are alternative names.
        names: Alternative names, without duplicates.
    """

    subject: x509.Name
    names: tuple[x509.GeneralName, ...]


def server_identity(names: Sequence[str]) -> Identity:
    """
    Make the identity of a server from DNS names (also wildcards and those of other scripts), addresses and URIs.

    Raises:
        ValueError: No name, too many, or one that no client could match; the message is a sentence for the operator.
    """
    found = _unique([_server_name(name) for name in names])
    if not found:
        raise ValueError("a server certificate needs at least one name; give the names that clients connect to")
    return Identity(_subject(_first_text(found)), found)


def client_identity(names: Sequence[str], organization: str = "", unit: str = "") -> Identity:
    """
    Make the identity of a client.

    Args:
        names: At most one plain name such as ``ci`` or ``Alice Example``, which becomes the common name; the others are
            e-mail addresses, DNS names, IP addresses or URIs such as a SPIFFE ID, and become alternative names. Without
            a plain name the first one is the common name as well.
        organization: For the subject; empty: none.
        unit: The same.

    Raises:
        ValueError: No name, too many, or one that is malformed; the message is a sentence for the operator.
    """
    if not all(names):
        raise ValueError("an empty name says nothing about who a client is; give its name")
    plain = [name for name in names if _is_plain(name)]
    return _client([*plain], [general_name(name) for name in names if name not in plain], organization, unit)


def requested_identity(
    request: x509.CertificateSigningRequest, purpose: Purpose, organization: str = "", unit: str = ""
) -> Identity:
    """
    Take the names out of *request*, and nothing else; each must be one that could have been asked for directly.

    Raises:
        ValueError: As for `server_identity` and `client_identity`, and for kinds of names that are not issued here.
    """
    names = [_checked(name) for name in alternative_names(request)]
    commons = [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if purpose is Purpose.SERVER:
        return server_identity([_text(name) for name in names] or commons)
    if not names:
        return client_identity(commons, organization, unit)
    # A common name that looks technical is left to the alternative names, where it would have to be right.
    return _client([common for common in commons if _is_plain(common)], names, organization, unit)


def general_name(text: str) -> x509.GeneralName:
    """Tell an IP address, a URI, an e-mail address and a DNS name apart; ValueError with a sentence if it is none."""
    if "://" in text:
        return x509.UniformResourceIdentifier(_uri(text))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which a certificate cannot carry; leave the zone out")
        return x509.IPAddress(address)
    if "@" in text:
        return x509.RFC822Name(_email(text))
    return x509.DNSName(_dns_name(text))


def name_texts(names: Sequence[x509.GeneralName]) -> tuple[str, ...]:
    """The *names* of an `Identity` as one would type them."""
    return tuple(_text(name) for name in names)


def _server_name(text: str) -> x509.GeneralName:
    if "@" in text and "://" not in text:
        raise ValueError(f"{text!r} is an e-mail address, which no server has; name the host")
    return general_name(text)


def _client(plain: list[str], names: list[x509.GeneralName], organization: str, unit: str) -> Identity:
    plain, found = list(dict.fromkeys(plain)), _unique(names)
    if not plain and not found:
        raise ValueError("a client certificate needs a name; give one such as ci, an e-mail address or a SPIFFE ID")
    if len(plain) > 1:
        raise ValueError(f"{plain[0]!r} and {plain[1]!r} are both plain names, a certificate has one; drop one")
    texts = [_text(name) for name in found]
    if any(text.startswith("*") for text in texts):
        raise ValueError("a wildcard says nothing about who a client is; give its name")
    if sum(text.startswith("spiffe:") for text in texts) > 1:
        raise ValueError("there are two SPIFFE IDs, a certificate may have one; issue two certificates")
    common_name = _attribute(plain[0], "the name") if plain else _first_text(found)
    return Identity(_subject(common_name, organization, unit), found)


def _checked(name: x509.GeneralName) -> x509.GeneralName:
    """Return *name* as it would have been typed. One that claims to be of another kind would match other rules."""
    text = _text(name)
    checked = general_name(text)
    if type(checked) is not type(name):
        raise ValueError(f"{text!r} is not what its kind, {type(name).__name__}, says; correct the request")
    return checked


def _is_plain(name: str) -> bool:
    """Whether it is meant for people. What looks technical must be right: a typo must not end as a common name."""
    return " " in name or not set("@.:*") & set(name)


def _text(name: x509.GeneralName) -> str:
    match name:
        case x509.DNSName() | x509.RFC822Name() | x509.UniformResourceIdentifier():
            return name.value
        case x509.IPAddress(value=ipaddress.IPv4Address() | ipaddress.IPv6Address()):
            return str(name.value)
    kind = type(name).__name__
    raise ValueError(f"a name of the kind {kind} is not issued here; leave it out, or give the names with --name")


def _first_text(names: Sequence[x509.GeneralName]) -> str:
    """The first name, if it is short enough for a common name: clients look at the alternative names anyway."""
    text = _text(names[0])
    return text if len(text) <= MAX_COMMON_NAME else ""


def _dns_name(text: str) -> str:
    prefix, host = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    host = _a_labels(host).lower()
    if len(prefix + host) > 253 or not _DNS_NAME.fullmatch(host):
        raise ValueError(
            f"{text!r} is neither a DNS name nor an IP address; write it like api.example.com, *.example.com or "
            "10.0.0.5, without scheme, port or dot at its end"
        )
    if prefix and "." not in host:
        raise ValueError(f"{text!r} would cover a whole top-level domain, which clients refuse; name one level more")
    return prefix + host


def _a_labels(host: str) -> str:
    """
    Turn letters outside of ASCII into the ``xn--`` form.

    The standard library knows IDNA 2003 only. What that maps to something else, such as ß, has another form in
    IDNA 2008 (RFC 5894 section 7.2), so only names that come back unchanged are taken.
    """
    if host.isascii():
        return host
    try:
        encoded = host.encode("idna")
        is_certain = encoded.decode("idna") == unicodedata.normalize("NFC", host).lower()
    except UnicodeError:
        is_certain = False
    if not is_certain:
        raise ValueError(f"{host!r} has no certain xn-- form; write that form")
    return encoded.decode("ascii")


def _uri(text: str) -> str:
    if len(text) > _MAX_URI or not _URI.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is not a URI of at most {_MAX_URI:,} characters; encode it as RFC 3986 says")
    if not text.lower().startswith("spiffe:"):
        return text
    if not _SPIFFE_ID.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError(f"{text!r} is not a SPIFFE ID; write it like spiffe://example.org/ns/prod/api")
    return text


def _email(text: str) -> str:
    mailbox, _, domain = text.rpartition("@")
    if not _MAILBOX.fullmatch(mailbox) or domain.startswith("*"):
        raise ValueError(f"{text!r} is not an e-mail address; write it like alice@example.com")
    return f"{mailbox}@{_dns_name(domain)}"


def _unique(names: Sequence[x509.GeneralName]) -> tuple[x509.GeneralName, ...]:
    found = tuple(dict.fromkeys(names))
    if len(found) > MAX_NAMES:
        raise ValueError(f"there are {len(found)} names, a certificate may have {MAX_NAMES}; issue several")
    return found


def _subject(common_name: str, organization: str = "", unit: str = "") -> x509.Name:
    attributes = [
        (NameOID.ORGANIZATION_NAME, _attribute(organization, "the organization")),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, _attribute(unit, "the unit")),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes if value])


def _attribute(text: str, what: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"{what} {text!r} has control characters, or blanks at an end; leave them out")
    if len(text) > MAX_COMMON_NAME:
        raise ValueError(f"{what} {text!r} has {len(text)} characters, the limit is {MAX_COMMON_NAME}; shorten it")
    return text


# -- issuing ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Authority:
    """
    A CA that can issue.

    Attributes:
        certificate: Its own.
        others: What else its ca.crt holds, e.g. the root that it comes from.
        private_key: Never shown, and not compared: it follows from the certificate.
    """

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]
    private_key: PrivateKey = attrs.field(repr=False, eq=False)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What goes with a leaf: itself and its issuers, without roots, which peers have."""
        return tuple(cert for cert in (self.certificate, *self.others) if cert.issuer != cert.subject)

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """What those who trust this CA need."""
        return (self.certificate, *self.others)


def make_authority(name: str, kind: KeyKind, now: datetime, lifetime: timedelta) -> Authority:
    """
    Make a root CA that issues leaves, but no further CAs.

    Raises:
        ValueError: *name* is empty or not fit for a common name.
    """
    if not name:
        raise ValueError("the CA needs a name; give one, people see it in their browsers")
    key = kind.generate()
    public_key = key.public_key()
    subject = _subject(_attribute(name, "the name"))
    builder = _builder(subject, subject, public_key, now - CLOCK_SKEW, now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    own_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    builder = builder.add_extension(own_id, critical=False)
    return Authority(builder.sign(key, _hash_for(key)), (), key)


def issue(
    authority: Authority,
    purpose: Purpose,
    identity: Identity,
    public_key: PublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """
    Issue a leaf. It never outlives its CA: the end of its validity is the earlier of the two.

    Args:
        authority: In date at *now*.
        purpose: What it is for.
        identity: Whom it is for.
        public_key: One that `check_public_key` takes.
        now: Aware; the leaf is valid from an hour earlier, but not before its CA.
        lifetime: From *now* to its end.
    """
    issuer = authority.certificate
    start = max(now - CLOCK_SKEW, issuer.not_valid_before_utc)
    end = min(now + lifetime, issuer.not_valid_after_utc)
    builder = _builder(identity.subject, issuer.subject, public_key, start, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usage = _key_usage(digital_signature=True, key_encipherment=isinstance(public_key, rsa.RSAPublicKey))
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_PURPOSE_IDS[purpose]]), critical=False)
    if identity.names:
        is_only_name = not identity.subject.rdns  # RFC 5280 section 4.2.1.6
        builder = builder.add_extension(x509.SubjectAlternativeName(identity.names), critical=is_only_name)
    builder = builder.add_extension(_issuer_id(issuer), critical=False)
    return builder.sign(authority.private_key, _hash_for(authority.private_key))


def check_public_key(key: object) -> PublicKey:
    """Return *key* if a certificate for it can be used; ValueError with a sentence if not."""
    match key:
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            return key
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return key
        case ed25519.Ed25519PublicKey():
            return key
    fix = f"use ECDSA P-256 or P-384, Ed25519, or RSA of {MIN_RSA_BITS} bits or more"
    raise ValueError(f"a key of the kind {describe_key(key)} is not signed here; {fix}")


def make_crl(
    authority: Authority, revoked: Sequence[Entry], number: int, now: datetime, lifetime: timedelta
) -> x509.CertificateRevocationList:
    """Sign the list of all *revoked* certificates; *number* must grow from one list to the next."""
    start = max(now - CLOCK_SKEW, authority.certificate.not_valid_before_utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(start)
        .next_update(now + lifetime)
        .add_extension(_issuer_id(authority.certificate), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in revoked:
        assert entry.revoked is not None
        revocation = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.revoked)
        builder = builder.add_revoked_certificate(revocation.build())
    return builder.sign(authority.private_key, _hash_for(authority.private_key))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())  # 20 octets, positive, 159 random bits
        .not_valid_before(start.replace(microsecond=0))
        .not_valid_after(end.replace(microsecond=0))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What the issuer calls its key, which need not be the hash that we would take."""
    try:
        own_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(check_public_key(issuer.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    match key:
        case ed25519.Ed25519PrivateKey():
            return None
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return hashes.SHA384()
        case ec.EllipticCurvePrivateKey(curve=ec.SECP521R1()):
            return hashes.SHA512()
    return hashes.SHA256()


# -- files of keys ----------------------------------------------------------------------------------------------


def certificates_pem(*certificates: x509.Certificate) -> bytes:
    """PEM text, in the order given."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def crl_pem(crl: x509.CertificateRevocationList) -> bytes:
    """PEM text."""
    return crl.public_bytes(Encoding.PEM)


def key_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """PKCS#8 PEM text, encrypted if there is a *password*."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def pkcs12_file(
    label: str,
    certificate: x509.Certificate,
    key: PrivateKey,
    others: Sequence[x509.Certificate],
    password: bytes,
    *,
    modern: bool,
) -> bytes:
    """
    Pack a client's certificate, key and CAs for import into browsers, key chains and Java.

    Args:
        label: What the importing program calls it.
        certificate: The client's.
        key: Its key.
        others: CAs to go with it.
        password: Protects it; also asked for on import.
        modern: False: PBE-SHA1-3DES with a SHA-1 MAC, which everything reads without options. True: PBES2 with AES-256
            and a SHA-256 MAC, for those whose rules forbid the former; key chains of macOS, Windows Server 2016 and
            Java 8 before 8u301 call the right password wrong then.
    """
    scheme, digest = (
        (pkcs12.PBES.PBESv2SHA256AndAES256CBC, hashes.SHA256())
        if modern
        else (pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC, hashes.SHA1())  # noqa: S303  the MAC that all of them know
    )
    builder = PrivateFormat.PKCS12.encryption_builder()
    encryption = builder.key_cert_algorithm(scheme).hmac_hash(digest).build(password)
    return pkcs12.serialize_key_and_certificates(label.encode(), key, certificate, list(others), encryption)


# -- the directory of a CA --------------------------------------------------------------------------------------


def load_authority(directory: Path, password: bytes | None, now: datetime) -> Authority:
    """
    Load the CA in *directory*: ca.crt, whose first certificate is the CA's own, and ca.key.

    Args:
        directory: As made by ``sidecar certs ca``; files of another origin do as well.
        password: Of ca.key, if that is encrypted.
        now: Aware; what validity is judged by.

    Raises:
        MaterialError: With role ``ca``.
    """
    cert_file, key_file = directory / CA_CERT, directory / CA_KEY
    if not cert_file.exists():
        fix = "make a CA with: sidecar certs ca, or name its directory with --ca"
        raise MaterialError("ca", f"there is no CA in {directory}: {cert_file} is missing", fix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate, *others = x509.load_pem_x509_certificates(read_file(cert_file, "ca"))
            may_issue = is_authority(certificate)
    except PARSE_ERRORS:
        fact = f"{cert_file} is not a PEM file of certificates, or damaged"
        raise MaterialError("ca", fact, "put the CA's certificate there") from None
    if not may_issue:
        fact = f"{certificate.subject.rfc4514_string()!r} in {cert_file} is not a CA certificate"
        raise MaterialError("ca", fact, "put the certificate of the CA first")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        start, end = rfc3339(certificate.not_valid_before_utc), rfc3339(certificate.not_valid_after_utc)
        fact = f"the CA in {cert_file} is valid from {start} to {end}, and the clock says {rfc3339(now)}"
        raise MaterialError("ca", fact, "correct the clock, or make a new CA in another directory")
    private_key = _load_key(key_file, password)
    if private_key.public_key() != certificate.public_key():
        fact = f"{key_file} is not the key of {cert_file}"
        raise MaterialError("ca", fact, "put the two that belong together there")
    return Authority(certificate, tuple(others), private_key)


def is_exposed(file: Path) -> bool:
    """Whether others than the owner may read *file*, a key."""
    return bool(os.stat(file).st_mode & 0o077)


def _load_key(file: Path, password: bytes | None) -> PrivateKey:
    data = read_file(file, "ca")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = load_pem_private_key(data, password)
    except TypeError:
        if password is None:
            fact = f"{file} is encrypted"
            raise MaterialError("ca", fact, "name the file of its password with --ca-password-file") from None
        fact = f"{file} is not encrypted, but there is a password for it"
        raise MaterialError("ca", fact, "leave --ca-password-file out") from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None:
            fact = f"{file} does not open with the password given, or is damaged"
            raise MaterialError("ca", fact, "check the file that --ca-password-file names") from None
        raise MaterialError("ca", f"{file} holds no private key that can be read", "put the CA's key there") from None
    match key:
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey() | ed25519.Ed25519PrivateKey():
            return key
    fact = f"{file} is a key of the kind {describe_key(key)}"
    raise MaterialError("ca", fact, "a CA here has an RSA, ECDSA or Ed25519 key")


@attrs.frozen
class Entry:
    """
    A certificate in the register.

    Attributes:
        serial: Its serial number.
        issued: When.
        expires: The end of its validity.
        revoked: When it was, or None.
        purpose: ``server`` or ``client``; ``unknown`` for one that was revoked without being in the register.
        name: For people, without control characters.
    """

    serial: int
    issued: datetime
    expires: datetime
    revoked: datetime | None
    purpose: str
    name: str

    def line(self) -> str:
        """As it stands in the file."""
        revoked = "-" if self.revoked is None else rfc3339(self.revoked)
        return f"{self.serial:040x} {rfc3339(self.issued)} {rfc3339(self.expires)} {revoked} {self.purpose} {self.name}"


@attrs.frozen
class Register:
    """
    What a CA has issued and revoked: the content of issued.txt.

    Attributes:
        entries: In the order of issue.
        crl_number: Of the newest CRL; 0 before the first.
    """

    entries: tuple[Entry, ...] = ()
    crl_number: int = 0

    @property
    def revoked(self) -> tuple[Entry, ...]:
        """Those that a CRL lists."""
        return tuple(entry for entry in self.entries if entry.revoked is not None)

    def find(self, serial: int) -> Entry | None:
        """The entry with that number."""
        return next((entry for entry in self.entries if entry.serial == serial), None)

    def add(self, certificate: x509.Certificate, purpose: str, now: datetime) -> Register:
        """With *certificate* as a new entry."""
        name = _register_name(certificate)
        expires = certificate.not_valid_after_utc
        entry = Entry(certificate.serial_number, now.replace(microsecond=0), expires, None, purpose, name)
        return attrs.evolve(self, entries=(*self.entries, entry))

    def revoke(self, serial: int, now: datetime) -> Register:
        """With the entry of that number revoked at *now*, unless it was before."""
        moment = now.replace(microsecond=0)
        entries = tuple(
            attrs.evolve(entry, revoked=moment) if entry.serial == serial and entry.revoked is None else entry
            for entry in self.entries
        )
        return attrs.evolve(self, entries=entries)

    def next_crl(self) -> Register:
        """With the number of one CRL more."""
        return attrs.evolve(self, crl_number=self.crl_number + 1)

    def text(self) -> str:
        """As it stands in the file."""
        head = [
            "# What this CA has issued; kept by `sidecar certs`. One certificate a line:",
            "# serial issued expires revoked-or-dash purpose name",
            f"crl-number {self.crl_number}",
        ]
        return "\n".join([*head, *(entry.line() for entry in self.entries)]) + "\n"


def load_register(directory: Path) -> Register:
    """Read the register in *directory*; an empty one if there is none; MaterialError (``ca``) if it is damaged."""
    file = directory / REGISTER
    if not file.exists():
        return Register()
    entries: list[Entry] = []
    crl_number: int | None = None
    lines = read_file(file, "ca", MAX_REGISTER_BYTES).decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            match line.split(" ", 5):
                case ["#", *_]:
                    pass
                case ["crl-number", value]:
                    crl_number = _number(value, 10)
                case [serial, issued, expires, revoked, purpose, name]:
                    gone = None if revoked == "-" else _moment(revoked)
                    entries.append(Entry(_serial(serial), _moment(issued), _moment(expires), gone, purpose, name))
                case _:
                    raise ValueError
        except ValueError:
            fact = f"line {number} of {file} cannot be read"
            raise MaterialError("ca", fact, "mend that line, or bring the file back from a backup") from None
    if crl_number is None:  # starting again at 1 would make lists that nobody takes
        fact = f"{file} has no line with the crl-number"
        raise MaterialError("ca", fact, "add the line, with the number of the newest CRL, or 0")
    return Register(tuple(entries), crl_number)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs from changing the register in *directory* meanwhile."""
    file = directory / _LOCK
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _cannot_write(file, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_revocable(serial: int) -> bool:
    """Whether a CRL can name a certificate of that number: positive, 20 octets (RFC 5280 section 4.1.2.2)."""
    return 0 < serial < 1 << 159


def save_register(directory: Path, register: Register) -> None:
    """Replace the register in *directory*, which must be `locked`, in one step."""
    write_files([NewFile(directory / REGISTER, register.text().encode())], replace=True)


def _register_name(certificate: x509.Certificate) -> str:
    name = certificate.subject.rfc4514_string()
    if not name:
        name = ", ".join(str(general.value) for general in alternative_names(certificate))
    return "".join(character if character.isprintable() else "?" for character in name)[:200] or "?"


def _serial(text: str) -> int:
    serial = _number(text, 16)
    if not is_revocable(serial):
        raise ValueError
    return serial


def _number(text: str, base: int) -> int:
    if not re.fullmatch(r"[0-9a-f]{1,40}", text, re.ASCII):
        raise ValueError
    return int(text, base)


def _moment(text: str) -> datetime:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if moment.year < 1950:  # the first that a CRL can hold, RFC 5280 section 5.1.2.4
        raise ValueError
    return moment


# -- writing ----------------------------------------------------------------------------------------------------


@attrs.frozen
class NewFile:
    """
    A file to write.

    Attributes:
        path: Where.
        data: Never shown: it may be a key.
        is_secret: Whether only the owner may read it.
    """

    path: Path
    data: bytes = attrs.field(repr=False)
    is_secret: bool = False


def make_directory(directory: Path) -> None:
    """Make *directory* for its owner alone, unless it is there; MaterialError (``cert``) if that fails."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(directory, error) from None


def check_free(paths: Sequence[Path], fix: str) -> None:
    """Raise MaterialError (``cert``) if one of *paths* is there already."""
    taken = [str(path) for path in paths if os.path.lexists(path)]
    if taken:
        raise MaterialError("cert", f"already there, and not overwritten: {', '.join(taken)}", fix)


def write_files(files: Sequence[NewFile], *, replace: bool) -> None:
    """
    Write all of *files* or none.

    Each is complete under another name before any gets its own. With *replace* a crash between two of the last steps
    can leave a new file beside an old one; readers that check the pair, as the proxy does, wait for the second.

    Raises:
        MaterialError: With role ``cert``: one is there already and *replace* is not set, or the system refuses.
    """
    drafts: list[Path] = []
    reserved: list[Path] = []
    current = files[0].path
    try:
        for file in files:
            current = file.path
            drafts.append(_draft(file))
        for file, draft in zip(files, drafts, strict=True):
            current = file.path
            if not replace:  # a hard link would do it in one step, but many shared file systems have none
                os.close(os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                reserved.append(file.path)
            os.replace(draft, file.path)
    except OSError as error:
        for path in reserved:
            path.unlink()
        raise _cannot_write(current, error) from None
    finally:
        for draft in drafts:
            with suppress(FileNotFoundError):  # renamed
                draft.unlink()


def _draft(file: NewFile) -> Path:
    """Write and sync *file* beside its place; `mkstemp` creates it for the owner only and follows no links."""
    descriptor, name = tempfile.mkstemp(prefix=".sidecar-", dir=file.path.parent)
    draft = Path(name)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(file.data)
            stream.flush()
            if not file.is_secret:
                os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def _cannot_write(path: Path, error: OSError) -> MaterialError:
    if isinstance(error, FileExistsError):
        fact = f"{path} is already there, and not overwritten"
        return MaterialError("cert", fact, "choose another place, or move it away")
    fix = "name a directory that this user can write to, on a file system with space left"
    return MaterialError("cert", f"{path} cannot be written: {error.strerror}", fix)
