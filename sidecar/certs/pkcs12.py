"""The PKCS#12 files that clients import."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from sidecar.certs.items import PrivateKey


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
