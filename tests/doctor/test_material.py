"""`sidecar.doctor.material`: what the settings name, also where the program would refuse it."""

from __future__ import annotations

from pathlib import Path

from sidecar.doctor.material import Material, load_material
from tests.doctor.settled import settled, severities
from tests.support.certs import CLIENT, DAY, NOW, authority, intermediate, keystore, pem


def load(**settings: str) -> Material:
    return load_material(settled(**settings), NOW)


class TestServers:
    def test_good_certificate_is_there_with_its_chain_and_roots(self, tmp_path: Path) -> None:
        """The CA in its directory is one that peers are known to have."""
        issued = intermediate().issue("app.example")
        issued.write(tmp_path)
        (tmp_path / "ca.crt").write_bytes(authority().cert_pem)
        (own,) = load(tls_cert=str(tmp_path)).servers
        assert (own.leaf, own.chain, own.roots) == (issued.certificate, issued.chain, (authority().certificate,))

    def test_certificate_that_is_refused_is_looked_at_all_the_same(self, tmp_path: Path) -> None:
        """All that is wrong with it shall come at once, so the other checks need it."""
        issued = intermediate().issue("app.example", not_after=NOW - DAY / 24)
        issued.write(tmp_path)
        (tmp_path / "tls.crt").write_bytes(pem(*issued.chain, issued.certificate))
        material = load(tls_cert=str(tmp_path))
        assert severities(material.findings) == [("certificate", "error")]
        assert "expired" in material.findings[0].fact
        assert material.servers[0].leaf == issued.certificate

    def test_key_of_another_certificate_is_an_error_of_the_key(self, tmp_path: Path) -> None:
        """The setting to look at is named."""
        authority().issue("app.example").write(tmp_path)
        (tmp_path / "other.key").write_bytes(authority().issue("b").key_pem)
        material = load(tls_cert=str(tmp_path / "tls.crt"), tls_key=str(tmp_path / "other.key"))
        assert severities(material.findings) == [("key", "error")]
        assert material.findings[0].fact.startswith("SIDECAR_TLS_KEY (environment): ")

    def test_wrong_password_is_an_error_and_nothing_is_invented(self, tmp_path: Path) -> None:
        """Of what cannot be opened nothing is known."""
        (tmp_path / "keystore.p12").write_bytes(keystore(authority().issue("app.example")))
        material = load(tls_cert=str(tmp_path), tls_key_password="not this one")
        assert {finding.check.value for finding in material.findings} == {"password"}
        assert material.servers == ()
        assert "not this one" not in material.findings[0].fact

    def test_damaged_ca_beside_it_is_no_matter(self, tmp_path: Path) -> None:
        """Nobody has asked for it."""
        authority().issue("app.example").write(tmp_path)
        (tmp_path / "ca.crt").write_text("damaged")
        material = load(tls_cert=str(tmp_path))
        assert material.findings == ()
        assert material.servers[0].roots == ()


class TestClients:
    def test_file_that_is_missing_is_an_error_of_the_ca(self) -> None:
        """So is one that is no CA."""
        material = load(client_cert="required", client_ca="/nonexistent/ca.crt")
        assert severities(material.findings) == [("client-ca", "error")]


class TestUpstreams:
    def test_certificate_for_servers_is_refused(self, tmp_path: Path) -> None:
        """An upstream would not take it for a client's."""
        authority().issue("us").write(tmp_path)
        material = load(upstream="https://127.0.0.1:9", upstream_cert=str(tmp_path))
        assert severities(material.findings) == [("upstream-certificate", "error")]
        assert "clientAuth" in material.findings[0].fact
        assert len(material.upstreams) == 1

    def test_good_certificate_and_ca_are_there(self, tmp_path: Path) -> None:
        """With the anchors, whose dates count too."""
        issued = authority().issue("us", purposes=CLIENT)
        issued.write(tmp_path)
        (tmp_path / "ca.crt").write_bytes(authority().cert_pem)
        material = load(
            upstream="https://127.0.0.1:9", upstream_cert=str(tmp_path), upstream_ca=str(tmp_path / "ca.crt")
        )
        assert [own.leaf for own in material.upstreams] == [issued.certificate]
        assert material.upstream_anchors == (authority().certificate,)
