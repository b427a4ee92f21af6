"""`certs.authority`: the private CA."""

from __future__ import annotations

import errno
import ipaddress
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs import authority as ca
from sidecar.certs.authority import Authority, Identity, KeyKind, Purpose, Register
from sidecar.certs.describe import describe
from sidecar.errors import MaterialError
from tests.support.certs import CLIENT, DAY, NOW, ecdsa_key, intermediate, make_root, rsa_key
from tests.support.certs import authority as root

Kind = TypeVar("Kind", bound=x509.ExtensionType)


MOMENT = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def made() -> Authority:
    """A CA of the default kind."""
    return ca.make_authority("Our CA", KeyKind.P256, NOW, 3650 * DAY)


def extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind:
    return certificate.extensions.get_extension_for_class(kind).value


def issue(made: Authority, identity: Identity, purpose: Purpose = Purpose.SERVER, days: int = 90) -> x509.Certificate:
    return ca.issue(made, purpose, identity, ecdsa_key().public_key(), NOW, days * DAY)


def write_ca(directory: Path, made: Authority, password: bytes | None = None) -> Path:
    """Write ca.crt and ca.key as the command does."""
    key = ca.NewFile(directory / "ca.key", ca.key_pem(made.private_key, password), is_secret=True)
    ca.write_files([key, ca.NewFile(directory / "ca.crt", ca.certificates_pem(*made.anchors))], replace=False)
    return directory


def request(*extensions: x509.ExtensionType, common_name: str = "") -> x509.CertificateSigningRequest:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Admins"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=False)
    return builder.sign(ecdsa_key(), hashes.SHA256())


def sans(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


class TestServerIdentity:
    def test_kinds_of_names_are_told_apart(self) -> None:
        """DNS names, addresses and URIs keep their order and appear once, in one spelling."""
        identity = ca.server_identity(
            ["API.example.com", "api.example.com", "*.example.com", "10.0.0.5", "::1", "spiffe://ex.org/api", "my_app"]
        )
        assert identity.names == (
            x509.DNSName("api.example.com"),
            x509.DNSName("*.example.com"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.5")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            x509.UniformResourceIdentifier("spiffe://ex.org/api"),
            x509.DNSName("my_app"),
        )
        assert identity.subject.rfc4514_string() == "CN=api.example.com"

    @pytest.mark.parametrize(
        ("name", "encoded"),
        [
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("例え.jp", "xn--r8jz45g.jp"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ],
    )
    def test_other_scripts_get_their_a_labels(self, name: str, encoded: str) -> None:
        """Certificates hold the xn-- form."""
        assert ca.server_identity([name]).names == (x509.DNSName(encoded),)

    @pytest.mark.parametrize(
        "name",
        ["a" * 64 + "ü.example", "straße.example", "σίγμας.example", "a\u200db.example", "a。example", "ﬁ.example"],
    )
    def test_name_with_two_forms_is_refused(self, name: str) -> None:
        """What IDNA 2003 maps to another name could become somebody else's name."""
        with pytest.raises(ValueError, match=r"no certain xn-- form; write that form"):
            ca.server_identity([name])

    @pytest.mark.parametrize(
        "name",
        [
            *["", " ", "a b", "-a", "a-", "a..b", "a.", ".a", "a\n", "a" * 64, "a." * 127, "*", "a.*.b", "a*.b.c"],
            *["*.*.b.c", "1.2.3", "10.0.0.256", "[::1]", "a:443", "10.0.0.0/8", "*.10.0.0.1"],
        ],
    )
    def test_bad_name_is_refused(self, name: str) -> None:
        """What no client could match is no name."""
        with pytest.raises(ValueError, match=r"neither a DNS name nor an IP address; write it like"):
            ca.server_identity(["localhost", name])

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            pytest.param([], "at least one name", id="none"),
            pytest.param(["*.com"], "whole top-level domain", id="wildcard-of-top-level"),
            pytest.param(["alice@example.com"], "which no server has", id="email"),
            pytest.param(["fe80::1%eth0"], "a zone", id="zone"),
            pytest.param(["http://a b"], "not a URI", id="blank-in-uri"),
            pytest.param(["https:///path"], "not a URI", id="uri-without-host"),
            pytest.param(["x://" + "a" * 2045], "not a URI", id="long-uri"),
            pytest.param([f"n{number}.example" for number in range(101)], "101 names", id="too-many"),
        ],
    )
    def test_bad_list_is_refused(self, names: list[str], message: str) -> None:
        """Each refusal says what to do."""
        with pytest.raises(ValueError, match=rf"{message}.*; "):
            ca.server_identity(names)

    def test_names_at_the_limit_are_taken(self) -> None:
        """The limit itself is allowed, also for a name of 253 characters and a URI of 2,048."""
        long = ".".join(["a" * 63] * 3 + ["b" * 61])
        uri = "x://" + "a" * 2044
        assert len(ca.server_identity([long, uri, *(f"n{number}" for number in range(98))]).names) == 100

    def test_long_first_name_leaves_the_subject_empty(self, made: Authority) -> None:
        """A common name has at most 64 characters; without any the alternative names are critical."""
        leaf = issue(made, ca.server_identity(["a." * 32 + "example"]))
        assert leaf.subject.rdns == []
        assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


class TestClientIdentity:
    @pytest.mark.parametrize(
        ("names", "subject", "alternatives"),
        [
            pytest.param(["ci"], "CN=ci", (), id="plain"),
            pytest.param(["Zoë O. Example"], "CN=Zoë O. Example", (), id="person"),
            pytest.param(["a@ex.org"], "CN=a@ex.org", ("email:a@ex.org",), id="email"),
            pytest.param(["spiffe://ex.org/a/b"], "CN=spiffe://ex.org/a/b", ("URI:spiffe://ex.org/a/b",), id="spiffe"),
            pytest.param(["job.ex.org", "Job"], "CN=Job", ("DNS:job.ex.org",), id="dns-and-plain"),
            pytest.param(["10.0.0.7"], "CN=10.0.0.7", ("IP:10.0.0.7",), id="address"),
        ],
    )
    def test_names_go_where_they_belong(
        self, made: Authority, names: list[str], subject: str, alternatives: tuple[str, ...]
    ) -> None:
        """A plain name is the common name; everything else is an alternative name."""
        summary = describe(issue(made, ca.client_identity(names), Purpose.CLIENT))
        assert (summary.subject, summary.sans) == (subject, alternatives)

    def test_organization_and_unit_are_in_the_subject(self) -> None:
        """They come before the common name."""
        subject = ca.client_identity(["ci"], "Example Ltd", "Build").subject
        assert subject.rfc4514_string() == "CN=ci,OU=Build,O=Example Ltd"

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            pytest.param([], "needs a name", id="none"),
            pytest.param([""], "an empty name", id="empty"),
            pytest.param([" "], "blanks at an end", id="blank"),
            pytest.param(["ci\x1b[2Jx"], "control characters", id="control"),
            pytest.param(["a\u202eb"], "control characters", id="direction"),
            pytest.param(["a" * 65], "65 characters, the limit is 64", id="long"),
            pytest.param(["alice", "bob"], "both plain names", id="two"),
            pytest.param(["*.example.com"], "wildcard", id="wildcard"),
            pytest.param(["alice@"], "neither a DNS name", id="email-without-domain"),
            pytest.param(["al..ice@example.com"], "not an e-mail address", id="email-dots"),
            pytest.param(["a..b"], "neither a DNS name", id="typo-is-no-plain-name"),
            pytest.param(["spiffe://EX.org/a"], "not a SPIFFE ID", id="spiffe-upper"),
            pytest.param(["spiffe://ex.org"], "not a SPIFFE ID", id="spiffe-without-path"),
            pytest.param(["spiffe://ex.org/a/"], "not a SPIFFE ID", id="spiffe-slash"),
            pytest.param(["spiffe://ex.org/../a"], "not a SPIFFE ID", id="spiffe-dots"),
            pytest.param(["SPIFFE://ex.org/a"], "not a SPIFFE ID", id="spiffe-scheme"),
            pytest.param(["spiffe://ex.org:1/a"], "not a SPIFFE ID", id="spiffe-port"),
            pytest.param(["spiffe://ex.org/a?b"], "not a SPIFFE ID", id="spiffe-query"),
            pytest.param(["spiffe://ex.org/a", "spiffe://ex.org/b"], "two SPIFFE IDs", id="two-spiffe"),
        ],
    )
    def test_bad_name_is_refused(self, names: list[str], message: str) -> None:
        """A name that is nearly right is an error, not a common name."""
        with pytest.raises(ValueError, match=message):
            ca.client_identity(names)


class TestRequestedIdentity:
    def test_server_names_come_from_the_alternative_names(self) -> None:
        """The common name counts only if there are none, as with clients."""
        wanted = request(sans(x509.DNSName("a.example")), common_name="b.example")
        assert ca.requested_identity(wanted, Purpose.SERVER).names == (x509.DNSName("a.example"),)
        assert ca.requested_identity(request(common_name="B.example"), Purpose.SERVER).names == (
            x509.DNSName("b.example"),
        )

    def test_organization_of_the_request_is_not_taken(self) -> None:
        """Whoever makes a request must not choose a group that rules may go by."""
        identity = ca.requested_identity(request(common_name="ci"), Purpose.CLIENT, "Builders")
        assert identity.subject.rfc4514_string() == "CN=ci,O=Builders"

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"), id="upn"),
            pytest.param(x509.DirectoryName(x509.Name([])), id="directory"),
            pytest.param(x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), id="registered"),
            pytest.param(x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")), id="network"),
            pytest.param(x509.DNSName("a\x00.example"), id="nul"),
            pytest.param(x509.DNSName("*.com"), id="top-level"),
            pytest.param(x509.DNSName("10.0.0.1"), id="address-as-dns"),
            pytest.param(x509.RFC822Name("a.example"), id="dns-as-email"),
            pytest.param(x509.UniformResourceIdentifier("a.example"), id="dns-as-uri"),
        ],
    )
    def test_name_that_is_not_issued_here_is_refused(self, name: x509.GeneralName) -> None:
        """Nothing gets into a certificate that could not be asked for on the command line."""
        with pytest.raises(ValueError, match=r"; "):
            ca.requested_identity(request(sans(x509.DNSName("a.example"), name)), Purpose.SERVER)

    def test_client_names_keep_their_kinds(self) -> None:
        """A DNS name of one label is none for the subject, and a technical common name adds nothing."""
        wanted = request(sans(x509.DNSName("ci"), x509.RFC822Name("ci@ex.org")), common_name="admin.example")
        identity = ca.requested_identity(wanted, Purpose.CLIENT)
        assert identity.names == (x509.DNSName("ci"), x509.RFC822Name("ci@ex.org"))
        assert identity.subject.rfc4514_string() == "CN=ci"

    def test_plain_common_name_goes_with_the_alternative_names(self) -> None:
        """A person has both."""
        wanted = request(sans(x509.RFC822Name("alice@ex.org")), common_name="Alice Example")
        identity = ca.requested_identity(wanted, Purpose.CLIENT)
        assert identity.subject.rfc4514_string() == "CN=Alice Example"
        assert identity.names == (x509.RFC822Name("alice@ex.org"),)

    def test_request_without_names_is_refused(self) -> None:
        """There is nobody to issue it to."""
        for purpose in Purpose:
            with pytest.raises(ValueError, match="needs a"):
                ca.requested_identity(request(), purpose)


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
    def test_server_chain_verifies_for_its_names(self, made: Authority) -> None:
        """A verifier with the rules of the web accepts the leaf, for its name and no other."""
        leaf = issue(made, ca.server_identity(["api.example.com", "10.0.0.5"]))
        builder = verification.PolicyBuilder().store(verification.Store([made.certificate])).time(NOW)
        builder.build_server_verifier(x509.DNSName("api.example.com")).verify(leaf, [])
        builder.build_server_verifier(x509.IPAddress(ipaddress.ip_address("10.0.0.5"))).verify(leaf, [])
        with pytest.raises(verification.VerificationError):
            builder.build_server_verifier(x509.DNSName("other.example.com")).verify(leaf, [])

    def test_client_certificate_is_for_clients_only(self, made: Authority) -> None:
        """It verifies as a client's, and not as a server's of the same name."""
        leaf = issue(made, ca.client_identity(["job.example.com"]), Purpose.CLIENT)
        builder = verification.PolicyBuilder().store(verification.Store([made.certificate])).time(NOW)
        builder.build_client_verifier().verify(leaf, [])
        with pytest.raises(verification.VerificationError):
            builder.build_server_verifier(x509.DNSName("job.example.com")).verify(leaf, [])
        assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_leaf_can_issue_nothing(self, made: Authority) -> None:
        """It is CA:FALSE, and its key usage is that of TLS."""
        leaf = issue(made, ca.server_identity(["localhost"]))
        assert extension(leaf, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
        assert not extension(leaf, x509.KeyUsage).key_cert_sign
        assert not extension(leaf, x509.KeyUsage).key_encipherment

    def test_rsa_leaf_may_encipher(self, made: Authority) -> None:
        """The key exchange of old TLS 1.2 suites needs it, with RSA keys only."""
        key = rsa_key().public_key()
        leaf = ca.issue(made, Purpose.SERVER, ca.server_identity(["localhost"]), key, NOW, DAY)
        assert extension(leaf, x509.KeyUsage).key_encipherment

    def test_dates_allow_for_slow_clocks(self, made: Authority) -> None:
        """It is backdated by an hour, and lives as long as asked."""
        leaf = issue(made, ca.server_identity(["localhost"]), days=7)
        assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
        assert leaf.not_valid_after_utc == NOW + 7 * DAY

    def test_leaf_does_not_outlive_its_ca(self) -> None:
        """Nor is it older."""
        old = make_root("Short", NOW - timedelta(minutes=5), NOW + 10 * DAY)
        leaf = issue(Authority(old.certificate, (), old.key), ca.server_identity(["localhost"]))
        assert leaf.not_valid_before_utc == NOW - timedelta(minutes=5)
        assert leaf.not_valid_after_utc == NOW + 10 * DAY

    def test_serial_numbers_are_random(self, made: Authority) -> None:
        """Nobody can foresee one; each is positive and fits in 20 octets."""
        numbers = {issue(made, ca.server_identity(["localhost"])).serial_number for _ in range(8)}
        assert len(numbers) == 8
        assert all(0 < number < 1 << 159 for number in numbers)
        assert max(numbers) > 1 << 140

    def test_intermediate_goes_with_the_leaf(self) -> None:
        """A CA that is no root is sent along; the root is not."""
        below = Authority(intermediate().certificate, (root().certificate,), intermediate().key)
        leaf = issue(below, ca.server_identity(["localhost"]))
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
        leaves = [issue(made, ca.server_identity(["localhost"])) for _ in range(2)]
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


class TestKeyFiles:
    @pytest.mark.parametrize("kind", [KeyKind.P384, KeyKind.RSA2048, KeyKind.ED25519], ids=lambda kind: kind.value)
    def test_key_comes_back(self, kind: KeyKind) -> None:
        """A key is written as PKCS#8, encrypted if there is a password."""
        key = kind.generate()
        assert load_pem_private_key(ca.key_pem(key), None).public_key() == key.public_key()
        encrypted = ca.key_pem(key, b"correct horse")
        assert encrypted.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert load_pem_private_key(encrypted, b"correct horse").public_key() == key.public_key()

    @pytest.mark.parametrize(("modern", "oid"), [(False, "2a864886f70d010c0103"), (True, "60864801650304012a")])
    def test_pkcs12_is_encrypted_as_asked(self, made: Authority, modern: bool, oid: str) -> None:
        """By default with what everything reads, PBE-SHA1-3DES; or else with AES-256."""
        key = ecdsa_key()
        leaf = ca.issue(made, Purpose.CLIENT, ca.client_identity(["ci"]), key.public_key(), NOW, DAY)
        packed = ca.pkcs12_file("ci", leaf, key, [], b"correct horse", modern=modern)
        assert bytes.fromhex(oid) in packed
        assert pkcs12.load_pkcs12(packed, b"correct horse").cert == pkcs12.PKCS12Certificate(leaf, b"ci")

    def test_key_is_not_shown(self, made: Authority) -> None:
        """No repr holds a key."""
        assert "PRIVATE" not in repr(made) + repr(ca.NewFile(Path("k"), ca.key_pem(made.private_key)))
        assert "private_key" not in repr(made)


class TestLoadAuthority:
    def test_what_was_written_comes_back(self, made: Authority, tmp_path: Path) -> None:
        """The directory of the command is one that can be loaded."""
        assert ca.load_authority(write_ca(tmp_path, made), None, NOW) == made

    def test_encrypted_key_opens_with_its_password(self, made: Authority, tmp_path: Path) -> None:
        """The password is needed, and only the right one does."""
        write_ca(tmp_path, made, b"correct horse")
        assert ca.load_authority(tmp_path, b"correct horse", NOW) == made
        with pytest.raises(MaterialError, match=r"is encrypted; name the file .* --ca-password-file"):
            ca.load_authority(tmp_path, None, NOW)
        with pytest.raises(MaterialError, match="does not open with the password given") as refusal:
            ca.load_authority(tmp_path, b"wrong horse", NOW)
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
        made = ca.load_authority(tmp_path, None, NOW)
        leaf = issue(made, ca.server_identity(["localhost"]))
        leaf.verify_directly_issued_by(made.certificate)
        assert leaf.signature_hash_algorithm is not None
        assert leaf.signature_hash_algorithm.name == ("sha512" if curve else "sha256")

    def test_needless_password_is_refused(self, made: Authority, tmp_path: Path) -> None:
        """Whoever gives a password believes that the key is encrypted; it is not."""
        with pytest.raises(MaterialError, match="is not encrypted, but there is a password"):
            ca.load_authority(write_ca(tmp_path, made), b"correct horse", NOW)

    def test_missing_ca_says_how_to_make_one(self, tmp_path: Path) -> None:
        """The first thing that goes wrong is that there is no CA yet."""
        with pytest.raises(MaterialError, match=r"there is no CA in .* make a CA with: sidecar certs ca"):
            ca.load_authority(tmp_path, None, NOW)

    @pytest.mark.parametrize(
        ("cert", "key", "message"),
        [
            pytest.param(lambda: b"", None, "ca.crt is empty", id="empty"),
            pytest.param(lambda: b"junk", None, "not a PEM file of certificates", id="junk"),
            pytest.param(lambda: root().issue("a").cert_pem, None, "is not a CA certificate", id="leaf"),
            pytest.param(None, lambda: root().key_pem, "is not the key of", id="other-key"),
            pytest.param(None, lambda: b"junk", "holds no private key", id="junk-key"),
            pytest.param(
                None,
                lambda: dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "a key of the kind DSA",
                id="dsa-key",
            ),
            pytest.param(
                lambda: make_root("Old", NOW - 9 * DAY, NOW - DAY).cert_pem, None, "the clock says", id="expired"
            ),
            pytest.param(lambda: make_root("New", NOW + DAY).cert_pem, None, "the clock says", id="not-yet"),
            pytest.param(lambda: b"\n" * (1024 * 1024 + 1), None, "over the limit of 1,048,576 bytes", id="huge"),
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
            ca.load_authority(tmp_path, None, NOW)
        assert refusal.value.role == "ca"

    def test_exposed_key_is_noticed(self, made: Authority, tmp_path: Path) -> None:
        """What is written here is for its owner alone."""
        key = write_ca(tmp_path, made) / "ca.key"
        assert not ca.is_exposed(key)
        key.chmod(0o640)
        assert ca.is_exposed(key)


class TestRegister:
    def test_it_comes_back_from_its_file(self, made: Authority, tmp_path: Path) -> None:
        """What was issued and revoked survives, also names with blanks and certificates without a subject."""
        leaves = [
            issue(made, ca.client_identity(["Alice Example"], "Example Ltd"), Purpose.CLIENT),
            issue(made, ca.server_identity(["a." * 32 + "example"])),
        ]
        register = Register().add(leaves[0], "client", NOW).add(leaves[1], "server", NOW).next_crl()
        register = register.revoke(leaves[1].serial_number, NOW + DAY)
        ca.save_register(tmp_path, register)
        assert ca.load_register(tmp_path) == register
        assert [entry.name for entry in register.entries] == ["CN=Alice Example,O=Example Ltd", "a." * 32 + "example"]

    def test_moments_have_whole_seconds(self) -> None:
        """The file has no parts of a second, so the value has none either."""
        moment = datetime.fromisoformat("2026-01-01T00:00:00.5+00:00")
        register = Register().add(root().issue("a").certificate, "server", moment)
        assert register.entries[0].issued == moment.replace(microsecond=0)

    def test_second_revocation_keeps_the_first_date(self, made: Authority) -> None:
        """A certificate is revoked once."""
        leaf = issue(made, ca.server_identity(["localhost"]))
        register = Register().add(leaf, "server", NOW).revoke(leaf.serial_number, NOW)
        assert register.revoke(leaf.serial_number, NOW + DAY) == register

    def test_no_name_can_forge_a_line(self) -> None:
        """A certificate made elsewhere may have a line feed in its name."""
        odd = root().issue("a\nf 2026-01-01T00:00:00Z", purposes=CLIENT).certificate
        assert Register().add(odd, "unknown", NOW).text().count("\n") == 4

    def test_no_file_is_an_empty_register(self, tmp_path: Path) -> None:
        """A CA of another origin has none."""
        assert ca.load_register(tmp_path) == Register()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("crl-number 1\nhello\n", "line 2 of", id="word"),
            pytest.param("crl-number x\n", "line 1 of", id="number"),
            pytest.param("crl-number -1\n", "line 1 of", id="negative-number"),
            pytest.param(f"crl-number 1\n0 {MOMENT} {MOMENT} - server a\n", "line 2 of", id="zero"),
            pytest.param(f"crl-number 1\n8{'0' * 39} {MOMENT} {MOMENT} - server a\n", "line 2 of", id="too-long"),
            pytest.param(f"crl-number 1\n{'a' * 41} {MOMENT} {MOMENT} - server a\n", "line 2 of", id="longer"),
            pytest.param(f"crl-number 1\nab 1949{MOMENT[4:]} {MOMENT} - server a\n", "line 2 of", id="too-old"),
            pytest.param(
                "crl-number 1\nzz 2026-01-01T00:00:00Z 2026-01-01T00:00:00Z - server a\n", "line 2 of", id="hex"
            ),
            pytest.param("crl-number 1\nab 2026-01-01 2026-01-01T00:00:00Z - server a\n", "line 2 of", id="date"),
            pytest.param("# nothing\n", "no line with the crl-number", id="without-number"),
            pytest.param("", "is empty", id="empty"),
        ],
    )
    def test_damaged_file_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        """A revocation must not get lost because a line could not be read."""
        (tmp_path / "issued.txt").write_text(text)
        with pytest.raises(MaterialError, match=message):
            ca.load_register(tmp_path)

    def test_lock_is_for_one_at_a_time(self, tmp_path: Path) -> None:
        """While one run changes the register another waits; here it sees that it would have to."""
        import fcntl

        with ca.locked(tmp_path), (tmp_path / ".lock").open("r+") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (tmp_path / ".lock").open("r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_directory_that_cannot_be_written_is_a_sentence(self, tmp_path: Path) -> None:
        """The lock is the first file that is needed."""
        with pytest.raises(MaterialError, match="cannot be written"), ca.locked(tmp_path / "none"):
            pass


class TestWriteFiles:
    def files(self, directory: Path) -> list[ca.NewFile]:
        return [ca.NewFile(directory / "k", b"key", is_secret=True), ca.NewFile(directory / "c", b"cert")]

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in directory.iterdir())

    def test_secret_files_are_for_their_owner(self, tmp_path: Path) -> None:
        """Modes do not depend on the umask; nothing else is left behind."""
        before = os.umask(0)
        try:
            ca.write_files(self.files(tmp_path), replace=False)
        finally:
            os.umask(before)
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "kc"] == [0o600, 0o644]
        assert [(tmp_path / name).read_bytes() for name in "kc"] == [b"key", b"cert"]
        assert self.names(tmp_path) == ["c", "k"]

    def test_existing_file_is_kept_and_nothing_written(self, tmp_path: Path) -> None:
        """If the second is there, the first does not stay either."""
        (tmp_path / "c").write_bytes(b"old")
        with pytest.raises(MaterialError, match="already there, and not overwritten; choose another place"):
            ca.write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == ["c"]
        assert (tmp_path / "c").read_bytes() == b"old"

    def test_dangling_link_counts_as_existing(self, tmp_path: Path) -> None:
        """A link that somebody put there does not lead the key elsewhere."""
        (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(MaterialError, match="already there"):
            ca.check_free([tmp_path / "k"], "move it")
        with pytest.raises(MaterialError, match="already there"):
            ca.write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == ["k"]

    def test_replacing_renews_both(self, tmp_path: Path) -> None:
        """A link is replaced, not followed, and the mode is the new one."""
        (tmp_path / "elsewhere").write_bytes(b"other")
        (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
        ca.write_files(self.files(tmp_path), replace=True)
        assert (tmp_path / "elsewhere").read_bytes() == b"other"
        assert (tmp_path / "k").read_bytes() == b"key"
        assert not (tmp_path / "k").is_symlink()

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        """Neither half a file nor half a pair, and the sentence names the file and the reason."""
        calls = []
        real = getattr(os, step)

        def full(*args: object) -> object:
            calls.append(args)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        monkeypatch.setattr(os, step, full)
        with pytest.raises(MaterialError, match=r"c cannot be written: No space left on device; name a directory"):
            ca.write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == []

    def test_directory_is_made_for_its_owner(self, tmp_path: Path) -> None:
        """One that is there keeps its mode."""
        ca.make_directory(tmp_path / "a" / "b")
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
        tmp_path.chmod(0o755)
        ca.make_directory(tmp_path)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755

    def test_file_in_place_of_the_directory_is_a_sentence(self, tmp_path: Path) -> None:
        """A path that leads through a file cannot be made."""
        (tmp_path / "f").write_bytes(b"")
        with pytest.raises(MaterialError, match="cannot be written: Not a directory"):
            ca.make_directory(tmp_path / "f" / "d")
        with pytest.raises(MaterialError, match="already there"):
            ca.make_directory(tmp_path / "f")
