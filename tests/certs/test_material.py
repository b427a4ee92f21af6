"""`certs.material`: what the settings name, read whole, with every trouble at its setting."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ObjectIdentifier

from sidecar.certs.material import load_client_material, load_server_material, load_upstream_material
from sidecar.settings import ClientSettings, Inline, Password, TlsSettings
from tests.support.certs import (
    DAY,
    NOW,
    Authority,
    Issued,
    authority,
    ecdsa_key,
    intermediate,
    other_authority,
    pem,
    truststore,
)


def crl(issuer: Authority, next_update: datetime = NOW + DAY) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, NOW - 9 * DAY, next_update)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


class TestServer:
    def test_nothing_is_named(self) -> None:
        """Without settings there is nothing, and nothing wrong."""
        material, troubles = load_server_material(TlsSettings(), NOW)
        assert (material.bundles, material.warnings, troubles) == ((), (), [])

    def test_files_and_values_are_read(self, tmp_path: Path) -> None:
        """Several certificates, each in its own form."""
        first, second = authority().issue("a.example"), authority().issue("b.example")
        tls = TlsSettings(cert=(first.write(tmp_path), Inline((second.cert_pem + second.key_pem).decode())))
        material, troubles = load_server_material(tls, NOW)
        assert not troubles
        assert [bundle.leaf for bundle in material.bundles] == [first.certificate, second.certificate]

    def test_trouble_is_told_at_its_setting(self, tmp_path: Path) -> None:
        """A key beside the certificate is a matter of tls_cert, unless tls_key names it."""
        issued = authority().issue("a.example")
        cert = tmp_path / "c.pem"
        cert.write_bytes(issued.cert_pem)
        _, troubles = load_server_material(TlsSettings(cert=(cert,)), NOW)
        assert [trouble.setting for trouble in troubles] == ["tls_cert"]
        _, troubles = load_server_material(TlsSettings(cert=(cert,), key=(tmp_path / "k.pem",)), NOW)
        assert [trouble.setting for trouble in troubles] == ["tls_key"]

    def test_password_opens_the_key(self, tmp_path: Path) -> None:
        """A wrong password is a trouble of its own setting, a missing one of that which needs it."""
        issued = authority().issue("a.example")
        value = (Inline((issued.cert_pem + issued.encrypted_key_pem()).decode()),)
        good = TlsSettings(cert=value, key_password=Password(Inline("secret")))
        assert load_server_material(good, NOW)[1] == []
        for password, setting in ((Password(Inline("wrong")), "tls_key_password"), (None, "tls_cert")):
            _, troubles = load_server_material(TlsSettings(cert=value, key_password=password), NOW)
            assert [trouble.setting for trouble in troubles] == [setting]
            assert "wrong" not in troubles[0].error.fact.replace("wrong password", "")

    def test_what_will_not_last_is_a_warning(self, tmp_path: Path) -> None:
        """A certificate can serve and still need attention."""
        issued = authority().issue("a.example", not_after=NOW + timedelta(days=5))
        material, _ = load_server_material(TlsSettings(cert=(issued.write(tmp_path),)), NOW)
        assert [name for name, _ in material.warnings] == ["tls_cert"]
        assert "expires in 5 days" in material.warnings[0][1]

    def test_password_without_a_key_is_no_matter(self) -> None:
        """Nothing is read where no certificate is named."""
        tls = TlsSettings(key=(Inline("x"),), key_password=Password(Inline("secret")))
        material, troubles = load_server_material(tls, NOW)
        assert (material.bundles, troubles) == ((), [])

    def test_one_bad_certificate_is_enough(self, tmp_path: Path) -> None:
        """What is served is all that is named, or nothing."""
        good = authority().issue("a.example").write(tmp_path)
        material, troubles = load_server_material(TlsSettings(cert=(good, Inline("x"))), NOW)
        assert (material.bundles, len(troubles)) == ((), 1)


class TestRoots:
    """A leaf alone whose issuer can be fetched is suspected, unless its issuer is known."""

    @pytest.fixture
    def tls(self, tmp_path: Path) -> TlsSettings:
        """The settings of such a leaf, in a directory."""
        key = ecdsa_key()
        where = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.DNSName("ca.example"))
        issuer = intermediate()
        builder = x509.CertificateBuilder(
            issuer.certificate.subject, x509.Name([]), key.public_key(), 1, NOW - DAY, NOW + 90 * DAY
        )
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=True)
        builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
        Issued(builder.sign(issuer.key, hashes.SHA256()), key).write(tmp_path)  # type: ignore[arg-type]
        return TlsSettings(cert=(tmp_path,))

    def test_unknown_issuer_is_a_warning(self, tls: TlsSettings) -> None:
        """As after copying only the first certificate of what a public CA sent."""
        material, _ = load_server_material(tls, NOW)
        assert ["may be incomplete" in text for _, text in material.warnings] == [True]

    def test_authority_of_clients_is_known(self, tls: TlsSettings) -> None:
        """It is the same private CA for both sides."""
        material, _ = load_server_material(tls, NOW, [intermediate().certificate])
        assert material.warnings == ()

    def test_authority_beside_the_certificate_is_known(self, tls: TlsSettings, tmp_path: Path) -> None:
        """cert-manager writes it there."""
        (tmp_path / "ca.crt").write_bytes(pem(intermediate().certificate))
        assert load_server_material(tls, NOW)[0].warnings == ()

    @pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
    def test_damaged_authority_beside_it_is_no_trouble(self, tls: TlsSettings, tmp_path: Path, content: bytes) -> None:
        """It is not what was asked for."""
        (tmp_path / "ca.crt").write_bytes(content)
        material, troubles = load_server_material(tls, NOW)
        assert (len(material.bundles), len(material.warnings), troubles) == (1, 1, [])


class TestUpstream:
    CA = Inline(pem(authority().certificate).decode())

    @staticmethod
    def certificate(purpose: ObjectIdentifier) -> Issued:
        """One for *purpose* alone."""
        key = ecdsa_key()
        builder = x509.CertificateBuilder(
            authority().certificate.subject, x509.Name([]), key.public_key(), 1, NOW - DAY, NOW + 9 * DAY
        )
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return Issued(builder.sign(authority().key, hashes.SHA256()), key)  # type: ignore[arg-type]

    def test_nothing_is_named(self) -> None:
        """The CAs are those of the system, which is something else than none."""
        material, troubles = load_upstream_material(None, None, None, NOW)
        assert (material.anchors, material.bundle, material.warnings, troubles) == (None, None, (), [])

    def test_authorities_and_our_certificate_are_read(self, tmp_path: Path) -> None:
        """Each alone, or both; the key may stand beside it."""
        issued = self.certificate(ExtendedKeyUsageOID.CLIENT_AUTH)
        material, troubles = load_upstream_material(self.CA, issued.write(tmp_path), None, NOW)
        assert troubles == []
        assert material.anchors == (authority().certificate,)
        assert material.bundle is not None
        assert material.bundle.leaf == issued.certificate
        assert [part for part, _ in material.warnings] == ["cert"]
        assert "expires on 20" in material.warnings[0][1]

    def test_certificate_must_be_for_clients(self, tmp_path: Path) -> None:
        """As a listener's must be for servers."""
        issued = self.certificate(ExtendedKeyUsageOID.SERVER_AUTH)
        material, (trouble,) = load_upstream_material(None, issued.write(tmp_path), None, NOW)
        assert material.bundle is None
        assert trouble.setting == "cert"
        assert "not for clients: its extended key usage lacks clientAuth" in trouble.error.fact

    def test_every_trouble_is_told_at_its_part(self, tmp_path: Path) -> None:
        """A key beside the certificate is a matter of that, unless it is named."""
        cert = tmp_path / "c.pem"
        cert.write_bytes(self.certificate(ExtendedKeyUsageOID.CLIENT_AUTH).cert_pem)
        leaf = Inline(authority().issue("a.example").cert_pem.decode())
        for key, parts in ((None, ["ca", "cert"]), (tmp_path / "k.pem", ["ca", "key"])):
            material, troubles = load_upstream_material(leaf, cert, key, NOW)
            assert [trouble.setting for trouble in troubles] == parts
            assert (material.anchors, material.bundle) == (None, None)

    def test_password_opens_key_and_truststore(self, tmp_path: Path) -> None:
        """A wrong one is a trouble of its own setting."""
        (tmp_path / "truststore.p12").write_bytes(truststore(authority().certificate))
        issued = self.certificate(ExtendedKeyUsageOID.CLIENT_AUTH)
        value = Inline((issued.cert_pem + issued.encrypted_key_pem()).decode())
        material, troubles = load_upstream_material(tmp_path, value, None, NOW, Password(Inline("secret")))
        assert (troubles, material.anchors) == ([], (authority().certificate,))
        _, troubles = load_upstream_material(tmp_path, value, None, NOW, Password(Inline("wrong")))
        assert {trouble.setting for trouble in troubles} == {"tls_key_password"}


class TestClients:
    CA = Inline(pem(authority().certificate, intermediate().certificate).decode())

    def test_authorities_and_lists_are_read(self) -> None:
        """Both belong together."""
        lists = Inline((crl(authority()) + crl(intermediate())).decode())
        material, troubles = load_client_material(ClientSettings(ca=self.CA, crl=lists), NOW)
        assert (len(material.anchors), len(material.crls), material.warnings, troubles) == (2, 2, (), [])

    def test_trouble_is_told_at_its_setting(self) -> None:
        """A list of another CA is a trouble of client_crl, a file without a CA one of client_ca."""
        lists = Inline(crl(other_authority()).decode())
        _, troubles = load_client_material(ClientSettings(ca=self.CA, crl=lists), NOW)
        assert [trouble.setting for trouble in troubles] == ["client_crl"]
        leaf = Inline(authority().issue("a.example").cert_pem.decode())
        _, troubles = load_client_material(ClientSettings(ca=leaf, crl=lists), NOW)
        assert [trouble.setting for trouble in troubles] == ["client_ca"]

    def test_key_password_opens_the_truststore(self, tmp_path: Path) -> None:
        """A wrong one is a trouble of its own setting, a missing one of that which needs it."""
        (tmp_path / "truststore.p12").write_bytes(truststore(authority().certificate))
        client = ClientSettings(ca=tmp_path)
        material, troubles = load_client_material(client, NOW, Password(Inline("secret")))
        assert (material.anchors, troubles) == ((authority().certificate,), [])
        for password, setting in ((Password(Inline("wrong")), "tls_key_password"), (None, "client_ca")):
            _, troubles = load_client_material(client, NOW, password)
            assert [trouble.setting for trouble in troubles] == [setting]

    def test_password_that_nothing_needs_is_not_read(self, tmp_path: Path) -> None:
        """PEM has none: what is wrong with it is a matter of the keys."""
        assert load_client_material(ClientSettings(ca=self.CA), NOW, Password(tmp_path / "missing"))[1] == []

    def test_late_and_missing_lists_are_warnings(self) -> None:
        """They decide about clients without being an error."""
        lists = Inline(crl(authority(), NOW - DAY).decode())
        material, troubles = load_client_material(ClientSettings(ca=self.CA, crl=lists), NOW)
        assert not troubles
        late, missing = (text for _, text in material.warnings)
        assert "Test Root CA" in late
        assert "was due for renewal" in late
        assert "no revocation list of 'CN=Test Intermediate CA'" in missing
