"""Rules of `bench.certificate`: who issued what."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench.certificate import CLIENT_NAME, CertificateFiles, write_certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """Make the certificates of one run."""
    return write_certificates(tmp_path_factory.mktemp("run"))


def certificate_of(path: Path) -> x509.Certificate:
    """Read the certificate of a PEM file, which may also hold a key."""
    return x509.load_pem_x509_certificate(path.read_bytes())


class TestWriteCertificates:
    """`write_certificates` makes what proxies are to accept, and what they are to refuse."""

    def test_client_comes_from_the_client_ca(self, files: CertificateFiles) -> None:
        """The accepted client has the name that the app must hear, from the CA that proxies get."""
        client = certificate_of(files.client_path)
        client.verify_directly_issued_by(certificate_of(files.client_ca_path))
        assert CLIENT_NAME in client.subject.rfc4514_string()

    def test_stranger_differs_by_its_keys_only(self, files: CertificateFiles) -> None:
        """A proxy that compares names instead of verifying takes the stranger for the client."""
        client, stranger = certificate_of(files.client_path), certificate_of(files.stranger_path)
        assert (stranger.issuer, stranger.subject) == (client.issuer, client.subject)
        with pytest.raises(InvalidSignature):
            stranger.verify_directly_issued_by(certificate_of(files.client_ca_path))

    @pytest.mark.parametrize("name", ["both_path", "client_path", "stranger_path"], ids=str)
    def test_key_fits_and_is_private(self, files: CertificateFiles, name: str) -> None:
        """A file of both can be used as it is, by its owner only."""
        path: Path = getattr(files, name)
        key = load_pem_private_key(path.read_bytes(), None)
        assert key.public_key() == certificate_of(path).public_key()
        assert path.stat().st_mode & 0o077 == 0
