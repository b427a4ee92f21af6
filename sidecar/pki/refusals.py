"""Why a client that checks would refuse a server's certificates: as OpenSSL and `service_identity` judge them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from sidecar.certs.traits import extension

_SERVER_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


def refusals_of(
    chain: Sequence[x509.Certificate], name: x509.GeneralName, anchors: Sequence[x509.Certificate] | None
) -> Iterator[str]:
    """
    List what a client does not accept *chain* for; nothing if it is fine.

    Args:
        chain: As sent, the server's own certificate first.
        name: What the client calls the server.
        anchors: CAs that the client trusts; None: those of this system.
    """
    certificates = [crypto.X509.from_cryptography(certificate) for certificate in chain]
    try:
        crypto.X509StoreContext(_store(anchors), certificates[0], certificates[1:]).verify_certificate()
    except crypto.X509StoreContextError as error:
        yield f"the chain: {error}"
    usage = extension(chain[0], x509.ExtendedKeyUsage)
    if usage is not None and _SERVER_PURPOSES.isdisjoint(usage):
        yield "the purpose: the certificate is not for servers"
    if not _matches(chain[0], name):
        yield f"the name: the certificate is not for {name.value}"


def _store(anchors: Sequence[x509.Certificate] | None) -> crypto.X509Store:
    store = crypto.X509Store()
    for anchor in anchors or ():
        store.add_cert(crypto.X509.from_cryptography(anchor))
    if anchors is None:
        paths = ssl.get_default_verify_paths()
        if paths.cafile or paths.capath:
            store.load_locations(paths.cafile, paths.capath)
    return store


def _matches(leaf: x509.Certificate, name: x509.GeneralName) -> bool:
    verify = verify_certificate_ip_address if isinstance(name, x509.IPAddress) else verify_certificate_hostname
    try:
        verify(leaf, str(name.value))
    except (CertificateError, VerificationError):
        return False
    return True
