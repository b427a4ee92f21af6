"""`certs.material`: what the settings name, read whole, with every trouble at its setting."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.certs.material import load_client_material, load_server_material
from sidecar.settings import ClientSettings, Inline, Password, TlsSettings
from tests.support.certs import DAY, NOW, Authority, authority, intermediate, other_authority, pem


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

    def test_late_and_missing_lists_are_warnings(self) -> None:
        """They decide about clients without being an error."""
        lists = Inline(crl(authority(), NOW - DAY).decode())
        material, troubles = load_client_material(ClientSettings(ca=self.CA, crl=lists), NOW)
        assert not troubles
        late, missing = (text for _, text in material.warnings)
        assert "Test Root CA" in late
        assert "was due for renewal" in late
        assert "no revocation list of 'CN=Test Intermediate CA'" in missing
