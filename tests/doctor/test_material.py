"""`sidecar.doctor.material`: what the settings name, also where the program would refuse it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR

import pytest

from sidecar.certs import sources
from sidecar.doctor import patience
from sidecar.doctor.material import Material, load_in_time, load_material
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


class TestLoadInTime:
    @pytest.fixture
    def stuck(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Files below a path that has «dead» in it are asked for in vain, as on a server that is gone."""
        release, real = threading.Event(), os.stat

        def stat(path: Path, *arguments: object, **words: object) -> os.stat_result:
            if "dead" in str(path):
                release.wait(10)
            return real(path, *arguments, **words)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "stat", stat)
        monkeypatch.setattr(os.path, "isdir", lambda path: S_ISDIR(os.stat(path).st_mode))
        monkeypatch.setattr(patience, "FILE_SECONDS", 0.05)
        monkeypatch.setattr(patience, "SILENT_SECONDS", 0.2)
        yield
        release.set()

    @pytest.mark.usefixtures("stuck")
    def test_path_that_nobody_answers_for_is_named(self, tmp_path: Path) -> None:
        """And only that; nothing is claimed of the others."""
        (tmp_path / "dead").mkdir()
        authority().issue("app.example").write(tmp_path)
        loaded = settled(tls_cert=f"{tmp_path}/tls.crt,{tmp_path}/dead")
        material = load_in_time(loaded, NOW)
        assert severities(material.findings) == [("certificate", "unchecked")]
        assert material.findings[0].fact.startswith(f"{tmp_path}/dead cannot be looked at within 0.05 s")
        assert (material.has_come, material.servers) == (False, ())

    def test_pipe_that_keeps_us_waiting_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its path answers, so all that are named are."""
        monkeypatch.setattr(patience, "FILE_SECONDS", 0.05)
        monkeypatch.setattr(sources, "PIPE_SECONDS", 1.0)
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb"):
            material = load_in_time(settled(tls_cert=f"/dev/fd/{reader}"), NOW)
        assert severities(material.findings) == [("certificate", "unchecked")]
        assert f"/dev/fd/{reader}" in material.findings[0].fact

    def test_what_answers_is_loaded(self, tmp_path: Path) -> None:
        """As without a deadline."""
        loaded = settled(tls_cert=str(authority().issue("app.example").write(tmp_path)))
        assert load_in_time(loaded, NOW) == load_material(loaded, NOW)


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
