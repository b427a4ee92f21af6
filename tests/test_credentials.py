"""`credentials`: one set, read whole and checked whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from OpenSSL import SSL

from sidecar.certs.bundle import Bundle
from sidecar.config.load import load
from sidecar.config.topology import MAIN, REDIRECT
from sidecar.credentials import Credentials, load_credentials
from sidecar.errors import ConfigError
from sidecar.settings import ClientCertMode, ClientRefusal
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


def context_of(found: Credentials) -> SSL.Context:
    """What clients of the main listener shake hands with."""
    context = found.keys[MAIN].context
    assert context is not None
    return context


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
        assert found.keys[MAIN].trust.mode is ClientCertMode.NONE
        assert connect(context_of(found), client_context(trusted=[EPHEMERAL.leaf]), server_name="made.example")

    def test_context_serves_the_files_under_the_rules(self, tmp_path: Path, ca: Path) -> None:
        """What was loaded is what connections shake hands with."""
        issued = authority().issue("localhost")
        found = load_with(tls_cert=str(issued.write(tmp_path)), client_cert="required", client_ca=str(ca))
        identity = authority().issue("ci", purposes=CLIENT)
        server = connect(context_of(found), client_context(identity=identity)).server
        assert read_session(server).verification.is_accepted
        assert trust_of(server) is found.keys[MAIN].trust
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
        assert found.keys[MAIN].trust.admits is not None
        assert found.keys[MAIN].trust.admits(authority().issue("ci", purposes=CLIENT).certificate) is admits


class TestListeners:
    def test_bytes_of_nobodys_protocol_are_refused_by_an_alert(self, ca: Path) -> None:
        """In raw TCP mode there is no other way to say it, whatever the setting for HTTP is."""
        found = load_with(mode="tcp", client_cert="required", client_ca=str(ca))
        assert found.keys[MAIN].trust.refusal is ClientRefusal.HANDSHAKE

    def test_listener_in_the_clear_has_no_context(self) -> None:
        """There is nothing to shake hands with."""
        assert load_with(listen="127.0.0.1:1443", listen_tls="off").keys[MAIN].context is None

    def test_redirecting_listener_asks_nobody(self, ca: Path) -> None:
        """It is beside the main one, and has no TLS."""
        found = load_with(http_redirect="127.0.0.1:1080", client_cert="required", client_ca=str(ca))
        assert found.keys[REDIRECT].context is None
        assert found.keys[REDIRECT].access.handshake_mode is ClientCertMode.NONE
        assert found.keys[MAIN].trust.mode is ClientCertMode.REQUIRED

    def test_rules_of_routes_decide_what_the_handshake_asks(self, ca: Path) -> None:
        """One route that needs no certificate makes it optional for all."""
        hosts = '[{"routes":[{"match":{"path":"/up"},"cluster":"app","client_cert":"none"},{"cluster":"app"}]}]'
        found = load_with(client_cert="required", client_ca=str(ca), virtual_hosts=hosts)
        assert found.keys[MAIN].trust.mode is ClientCertMode.OPTIONAL
        assert len(found.keys[MAIN].access.rules.of_routes) == 1


class TestUpstreams:
    def test_upstream_with_tls_is_secured(self, ca: Path) -> None:
        """What is verified with belongs to the set."""
        assert set(load_with(upstream="https://app.internal", upstream_ca=str(ca)).upstreams) == {"app"}
        assert not load_with().upstreams

    def test_ca_that_cannot_be_read_is_told_at_its_setting(self, tmp_path: Path) -> None:
        """Like any other key material."""
        with pytest.raises(ConfigError) as caught:
            load_with(upstream="https://app.internal", upstream_ca=str(tmp_path / "none.pem"))
        assert [problem.setting for problem in caught.value.problems] == ["--upstream-ca"]
