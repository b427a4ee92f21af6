"""`certs.cadir`: the CA that a directory holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidecar.certs.authority import Authority, KeyKind, Purpose, certificates_pem, issue, key_pem, make_authority
from sidecar.certs.cadir import load_authority
from sidecar.certs.identities import server_identity
from sidecar.certs.items import Password
from sidecar.certs.newfiles import NewFile, write_files
from sidecar.errors import MaterialError
from tests.support.certs import DAY, NOW, Issued, authority, ecdsa_key, make_root, rsa_key

PASSWORD = Password("the password in pw", "passphrase", b"correct horse")
WRONG = Password("the password in pw", "passphrase", b"wrong horse")


def weak_key_pem() -> bytes:
    return Issued(authority().certificate, rsa_key(1024)).key_pem


@pytest.fixture(scope="module")
def made() -> Authority:
    """A CA of the default kind."""
    return make_authority("Our CA", KeyKind.P256, NOW, 3650 * DAY)


def write_ca(directory: Path, made: Authority, password: bytes | None = None) -> Path:
    """Write ca.crt and ca.key as the command does."""
    key = NewFile(directory / "ca.key", key_pem(made.private_key, password), is_secret=True)
    write_files([key, NewFile(directory / "ca.crt", certificates_pem(*made.anchors))], replace=False)
    return directory


class TestLoadAuthority:
    def test_what_was_written_comes_back(self, made: Authority, tmp_path: Path) -> None:
        """The directory of the command is one that can be loaded."""
        assert load_authority(write_ca(tmp_path, made), None, NOW) == made

    def test_encrypted_key_opens_with_its_password(self, made: Authority, tmp_path: Path) -> None:
        """The password is needed, and only the right one does."""
        write_ca(tmp_path, made, b"correct horse")
        assert load_authority(tmp_path, PASSWORD, NOW) == made
        with pytest.raises(MaterialError, match=r"is encrypted; name the file .* --ca-password-file"):
            load_authority(tmp_path, None, NOW)
        with pytest.raises(MaterialError, match="the password in pw does not open the private key in") as refusal:
            load_authority(tmp_path, WRONG, NOW)
        assert "horse" not in str(refusal.value)

    @pytest.mark.parametrize("curve", [ec.SECP521R1, None])
    def test_ca_of_another_origin_issues(self, tmp_path: Path, curve: type[ec.EllipticCurve] | None) -> None:
        """Also one with a P-521 key, or without the identifier of its key."""
        key = ecdsa_key(curve() if curve else None)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Old CA")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
        builder = builder.public_key(key.public_key()).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        write_ca(tmp_path, Authority(builder.sign(key, hashes.SHA256()), (), key))
        made = load_authority(tmp_path, None, NOW)
        leaf = issue(made, Purpose.SERVER, server_identity(["localhost"]), ecdsa_key().public_key(), NOW, DAY)
        leaf.verify_directly_issued_by(made.certificate)
        assert leaf.signature_hash_algorithm is not None
        assert leaf.signature_hash_algorithm.name == ("sha512" if curve else "sha256")

    def test_needless_password_is_refused(self, made: Authority, tmp_path: Path) -> None:
        """Whoever gives a password believes that the key is encrypted; it is not."""
        with pytest.raises(MaterialError, match="is not encrypted, but there is a password"):
            load_authority(write_ca(tmp_path, made), PASSWORD, NOW)

    def test_missing_ca_says_how_to_make_one(self, tmp_path: Path) -> None:
        """The first thing that goes wrong is that there is no CA yet."""
        with pytest.raises(MaterialError, match=r"there is no CA in .* make a CA with: sidecar certs ca"):
            load_authority(tmp_path, None, NOW)

    @pytest.mark.parametrize(
        ("cert", "key", "message"),
        [
            pytest.param(lambda: b"", None, "ca.crt is empty", id="empty"),
            pytest.param(lambda: b"junk", None, "ca.crt is not PEM", id="junk"),
            pytest.param(lambda: authority().issue("a").cert_pem, None, "is not a CA certificate", id="leaf"),
            pytest.param(None, lambda: authority().key_pem, "is not the key of", id="other-key"),
            pytest.param(None, lambda: b"junk", "ca.key is not PEM", id="junk-key"),
            pytest.param(None, lambda: authority().cert_pem, "holds no private key", id="no-key"),
            pytest.param(None, weak_key_pem, "is RSA 1024", id="weak-key"),
            pytest.param(
                None,
                lambda: dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "is DSA, which is not supported",
                id="dsa-key",
            ),
            pytest.param(
                lambda: make_root("Old", NOW - 9 * DAY, NOW - DAY).cert_pem, None, "the clock says", id="expired"
            ),
            pytest.param(lambda: make_root("New", NOW + DAY).cert_pem, None, "the clock says", id="not-yet"),
            pytest.param(lambda: b"a" * (1024 * 1024 + 1), None, "over the limit of 1,048,576 bytes", id="huge"),
        ],
    )
    def test_bad_file_is_refused(
        self, made: Authority, tmp_path: Path, cert: object, key: object, message: str
    ) -> None:
        """Each way in which the two files cannot work has its own sentence."""
        write_ca(tmp_path, made)
        for name, content in (("ca.crt", cert), ("ca.key", key)):
            if content is not None:
                (tmp_path / name).write_bytes(content())  # type: ignore[operator]
        with pytest.raises(MaterialError, match=message) as refusal:
            load_authority(tmp_path, None, NOW)
        assert refusal.value.role == "ca"
