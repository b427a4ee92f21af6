"""`credentials`: one set, read whole and checked whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.certs.bundle import Bundle
from sidecar.config.load import load
from sidecar.credentials import Credentials, load_credentials
from sidecar.errors import ConfigError
from sidecar.settings import ClientCertMode
from sidecar.tls.session import read_session
from sidecar.tls.trust import trust_of
from tests.support.certs import CLIENT, NOW, authority, other_authority, self_signed
from tests.support.handshake import client_context, connect

EPHEMERAL = self_signed("made.example").bundle


def load_with(**flags: str) -> Credentials:
    def ephemeral() -> Bundle:
        assert "tls_cert" not in flags
        return EPHEMERAL

    return load_credentials(load(flags, {}), ephemeral, lambda: NOW)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "ca.crt"
    file.write_bytes(authority().cert_pem)
    return file


class TestLoadCredentials:
    def test_without_settings_the_ephemeral_certificate_serves(self) -> None:
        """Nobody is asked for a certificate."""
        found = load_with()
        assert found.bundles == (EPHEMERAL,)
        assert found.trust.mode is ClientCertMode.NONE
        assert connect(found.context, client_context(trusted=[EPHEMERAL.leaf]), server_name="made.example")

    def test_context_serves_the_files_under_the_rules(self, tmp_path: Path, ca: Path) -> None:
        """What was loaded is what connections shake hands with."""
        issued = authority().issue("localhost")
        found = load_with(tls_cert=str(issued.write(tmp_path)), client_cert="required", client_ca=str(ca))
        identity = authority().issue("ci", purposes=CLIENT)
        server = connect(found.context, client_context(identity=identity)).server
        assert read_session(server).verification.is_accepted
        assert trust_of(server) is found.trust
        assert found.bundles[0].leaf == issued.certificate

    def test_everything_that_is_wrong_is_told(self, tmp_path: Path, ca: Path) -> None:
        """Server and clients, each at its setting and source."""
        (tmp_path / "key").write_bytes(other_authority().issue("x").key_pem)
        (tmp_path / "cert").write_bytes(authority().issue("localhost").cert_pem)
        with pytest.raises(ConfigError) as caught:
            load_with(
                tls_cert=str(tmp_path / "cert"),
                tls_key=str(tmp_path / "key"),
                client_cert="required",
                client_ca=str(tmp_path / "cert"),
            )
        assert [(problem.setting, problem.source) for problem in caught.value.problems] == [
            ("--tls-key", "flag"),
            ("--client-ca", "flag"),
        ]

    def test_clients_material_is_not_read_where_nobody_is_asked(self) -> None:
        """What is not used cannot stand in the way."""
        assert load_with(client_ca="/nonexistent").clients.anchors == ()

    @pytest.mark.parametrize(("allow", "admits"), [("cn=ci", True), ("cn=other", False)])
    def test_refusal_in_the_handshake_asks_the_rules(self, ca: Path, allow: str, admits: bool) -> None:
        """A verified client that no rule lets in does not get as far as HTTP."""
        found = load_with(client_cert="required", client_ca=str(ca), client_refusal="handshake", client_allow=allow)
        assert found.trust.admits is not None
        assert found.trust.admits(authority().issue("ci", purposes=CLIENT).certificate) is admits
