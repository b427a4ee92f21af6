"""`certs.authority`: the private CA."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certs import authority as ca
from sidecar.certs.authority import Authority, KeyKind
from sidecar.certs.identities import Identity, Purpose, client_identity, server_identity
from sidecar.certs.register import Register
from tests.support.certs import DAY, NOW, ecdsa_key, intermediate, make_root, rsa_key
from tests.support.certs import authority as root

Kind = TypeVar("Kind", bound=x509.ExtensionType)


@pytest.fixture(scope="module")
def made() -> Authority:
    """A CA of the default kind."""
    return ca.make_authority("Our CA", KeyKind.P256, NOW, 3650 * DAY)


def extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind:
    return certificate.extensions.get_extension_for_class(kind).value


def issue(made: Authority, identity: Identity, purpose: Purpose = Purpose.SERVER, days: int = 90) -> x509.Certificate:
    return ca.issue(made, purpose, identity, ecdsa_key().public_key(), NOW, days * DAY)


class TestMakeAuthority:
    @pytest.mark.parametrize(
        "kind", [kind for kind in KeyKind if kind is not KeyKind.RSA4096], ids=lambda kind: kind.value
    )
    def test_it_is_a_root_for_leaves(self, kind: KeyKind) -> None:
        """It issues leaves and CRLs, no further CAs, and has what strict verifiers want."""
        made = ca.make_authority("Our CA", kind, NOW, 3650 * DAY)
        certificate = made.certificate
        certificate.verify_directly_issued_by(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
        usage = extension(certificate, x509.KeyUsage)
        assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
        own_id = extension(certificate, x509.SubjectKeyIdentifier).digest
        assert extension(certificate, x509.AuthorityKeyIdentifier).key_identifier == own_id
        assert made.chain == ()
        assert made.anchors == (certificate,)

    @pytest.mark.parametrize(
        ("kind", "digest"), [(KeyKind.P256, "sha256"), (KeyKind.P384, "sha384"), (KeyKind.RSA2048, "sha256")]
    )
    def test_hash_matches_the_key(self, kind: KeyKind, digest: str) -> None:
        """A signature is as strong as its hash."""
        algorithm = ca.make_authority("Our CA", kind, NOW, DAY).certificate.signature_hash_algorithm
        assert algorithm is not None
        assert algorithm.name == digest

    @pytest.mark.parametrize("name", ["", "a" * 65, "a\n"])
    def test_bad_name_is_refused(self, name: str) -> None:
        """A CA has a name that people can read."""
        with pytest.raises(ValueError, match=r"; "):
            ca.make_authority(name, KeyKind.P256, NOW, DAY)


class TestIssue:
    @pytest.mark.parametrize(("name", "is_critical"), [("a." * 32 + "example", True), ("a.example", False)])
    def test_names_are_critical_without_a_subject(self, made: Authority, name: str, is_critical: bool) -> None:
        """Whoever does not know them must not take it for nobody's (RFC 5280 section 4.2.1.6)."""
        leaf = issue(made, server_identity([name]))
        assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical is is_critical

    def test_server_chain_verifies_for_its_names(self, made: Authority) -> None:
        """A verifier with the rules of the web accepts the leaf, for its name and no other."""
        leaf = issue(made, server_identity(["api.example.com", "10.0.0.5"]))
        builder = verification.PolicyBuilder().store(verification.Store([made.certificate])).time(NOW)
        builder.build_server_verifier(x509.DNSName("api.example.com")).verify(leaf, [])
        builder.build_server_verifier(x509.IPAddress(ipaddress.ip_address("10.0.0.5"))).verify(leaf, [])
        with pytest.raises(verification.VerificationError):
            builder.build_server_verifier(x509.DNSName("other.example.com")).verify(leaf, [])

    def test_client_certificate_is_for_clients_only(self, made: Authority) -> None:
        """It verifies as a client's, and not as a server's of the same name."""
        leaf = issue(made, client_identity(["job.example.com"]), Purpose.CLIENT)
        builder = verification.PolicyBuilder().store(verification.Store([made.certificate])).time(NOW)
        builder.build_client_verifier().verify(leaf, [])
        with pytest.raises(verification.VerificationError):
            builder.build_server_verifier(x509.DNSName("job.example.com")).verify(leaf, [])
        assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_leaf_can_issue_nothing(self, made: Authority) -> None:
        """It is CA:FALSE, and its key usage is that of TLS."""
        leaf = issue(made, server_identity(["localhost"]))
        assert extension(leaf, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
        assert not extension(leaf, x509.KeyUsage).key_cert_sign
        assert not extension(leaf, x509.KeyUsage).key_encipherment

    def test_rsa_leaf_may_encipher(self, made: Authority) -> None:
        """The key exchange of old TLS 1.2 suites needs it, with RSA keys only."""
        key = rsa_key().public_key()
        leaf = ca.issue(made, Purpose.SERVER, server_identity(["localhost"]), key, NOW, DAY)
        assert extension(leaf, x509.KeyUsage).key_encipherment

    def test_dates_allow_for_slow_clocks(self, made: Authority) -> None:
        """It is backdated by an hour, and lives as long as asked."""
        leaf = issue(made, server_identity(["localhost"]), days=7)
        assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
        assert leaf.not_valid_after_utc == NOW + 7 * DAY

    def test_leaf_does_not_outlive_its_ca(self) -> None:
        """Nor is it older."""
        old = make_root("Short", NOW - timedelta(minutes=5), NOW + 10 * DAY)
        leaf = issue(Authority(old.certificate, (), old.key), server_identity(["localhost"]))
        assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
        assert leaf.not_valid_after_utc == NOW + 10 * DAY

    def test_intermediate_goes_with_the_leaf(self) -> None:
        """A CA that is no root is sent along; the root is not."""
        below = Authority(intermediate().certificate, (root().certificate,), intermediate().key)
        leaf = issue(below, server_identity(["localhost"]))
        leaf.verify_directly_issued_by(intermediate().certificate)
        assert below.chain == (intermediate().certificate,)

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(lambda: rsa.generate_private_key(65537, 1024), id="rsa-1024"),
            pytest.param(lambda: ec.generate_private_key(ec.SECP224R1()), id="p-224"),
            pytest.param(lambda: ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
            pytest.param(lambda: dsa.generate_private_key(1024), id="dsa"),
        ],
    )
    def test_weak_or_odd_key_is_refused(self, key: object) -> None:
        """A request cannot bring in a key that TLS peers refuse."""
        with pytest.raises(ValueError, match="is not signed here; use ECDSA"):
            ca.check_public_key(key().public_key())  # type: ignore[operator]


class TestMakeCrl:
    def test_revoked_certificates_are_listed(self, made: Authority) -> None:
        """The list is signed by the CA and names what was revoked, and nothing else."""
        leaves = [issue(made, server_identity(["localhost"])) for _ in range(2)]
        register = Register().add(leaves[0], "server", NOW).add(leaves[1], "server", NOW)
        register = register.revoke(leaves[0].serial_number, NOW)
        crl = ca.make_crl(made, register.revoked, 7, NOW, 7 * DAY)
        public_key = made.certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        assert crl.is_signature_valid(public_key)
        assert [entry.serial_number for entry in crl] == [leaves[0].serial_number]
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
        assert crl.next_update_utc == NOW + 7 * DAY
        assert crl.last_update_utc == NOW - timedelta(hours=1)


class TestKeyPem:
    @pytest.mark.parametrize("kind", [KeyKind.P384, KeyKind.RSA2048, KeyKind.ED25519], ids=lambda kind: kind.value)
    def test_key_comes_back(self, kind: KeyKind) -> None:
        """A key is written as PKCS#8, encrypted if there is a password."""
        key = kind.generate()
        assert load_pem_private_key(ca.key_pem(key), None).public_key() == key.public_key()
        encrypted = ca.key_pem(key, b"correct horse")
        assert encrypted.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert load_pem_private_key(encrypted, b"correct horse").public_key() == key.public_key()

    def test_key_is_not_shown(self, made: Authority) -> None:
        """The repr of a CA does not hold it."""
        assert "private_key" not in repr(made)
