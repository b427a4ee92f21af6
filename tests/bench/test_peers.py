"""Rules of `bench.peers`: what the configurations say about client certificates."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bench.certificate import CertificateFiles
from bench.peers import PEERS, ClientCertificates, Peer, Placement

HTTP_PEERS = [peer for peer in PEERS if peer.name not in ("hitch", "stunnel")]
IDENTITY_WORDS = ("SIDECAR_IDENTITY_HEADERS", "SANITIZE_SET", "X-SSL-Client-S-DN")


def settings_of(peer: Peer, folder: Path, clients: ClientCertificates) -> str:
    """Return all that a peer is told: its environment and its files."""
    paths = {field.name: Path("/run", field.name) for field in attrs.fields(CertificateFiles)}
    place = Placement(
        folder=folder,
        port=1,
        admin_port=2,
        app_port=3,
        certificate=CertificateFiles(**paths),
        clients=clients,
    )
    start = peer.prepare(place)
    return "\n".join([repr(start.environment), *(path.read_text() for path in folder.iterdir())])


def named(peer: Peer) -> str:
    """Return the id of a case."""
    return peer.name


class TestPrepare:
    """`Peer.prepare` writes configurations for each row's demands."""

    @pytest.mark.parametrize("peer", PEERS, ids=named)
    def test_other_rows_know_nothing_of_client_certificates(self, peer: Peer, tmp_path: Path) -> None:
        """What is not asked for costs nothing: rows without client certificates stay comparable."""
        settings = settings_of(peer, tmp_path, ClientCertificates.NONE)
        assert "client_ca_path" not in settings
        assert not any(word in settings for word in IDENTITY_WORDS)

    @pytest.mark.parametrize("peer", PEERS, ids=named)
    def test_required_certificates_have_a_ca_and_are_not_told(self, peer: Peer, tmp_path: Path) -> None:
        """Handshakes are compared without what HTTP would add."""
        settings = settings_of(peer, tmp_path, ClientCertificates.REQUIRED)
        assert settings.count("/run/client_ca_path") == 1
        assert not any(word in settings for word in IDENTITY_WORDS)

    @pytest.mark.parametrize("peer", HTTP_PEERS, ids=named)
    def test_told_certificates_are_also_required(self, peer: Peer, tmp_path: Path) -> None:
        """The app hears only of clients that were verified."""
        settings = settings_of(peer, tmp_path, ClientCertificates.TOLD)
        assert settings.count("/run/client_ca_path") == 1
        assert any(word in settings for word in IDENTITY_WORDS)
