"""
Parsing DER with `cryptography`: wholly, as it parses late and what is damaged must show at once, and without a word
about odd encodings that still work, as OpenSSL has the last word on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    InternalError,  # of keys that OpenSSL refuses, such as those of the wrong length
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""Everything that `cryptography` raises for bytes that are not what they seem to be."""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings about odd encodings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse a certificate; raises one of `PARSE_ERRORS`."""
    with quiet():
        return whole(x509.load_der_x509_certificate(der))


def whole(certificate: x509.Certificate) -> x509.Certificate:
    """Return *certificate*, which others have parsed, if all of it can be; raises one of `PARSE_ERRORS`."""
    with quiet():
        _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid)
        _ = certificate.serial_number
    return certificate


def load_request(der: bytes) -> x509.CertificateSigningRequest:
    """Parse a certificate signing request; raises one of `PARSE_ERRORS`."""
    with quiet():
        request = x509.load_der_x509_csr(der)
        _ = (request.subject, request.extensions, request.public_key(), request.is_signature_valid)
    return request


def load_crl(der: bytes) -> x509.CertificateRevocationList:
    """Parse a certificate revocation list; raises one of `PARSE_ERRORS`."""
    with quiet():
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer, crl.extensions, crl.last_update_utc, crl.next_update_utc, crl.signature_algorithm_oid)
    return crl
