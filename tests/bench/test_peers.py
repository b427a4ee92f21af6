"""Rules of `bench.peers`: what the configurations say about client certificates, and about HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from bench.certificate import CertificateFiles
from bench.peers import PEERS, Peer, find_sidecar, hot_path
from bench.placement import ClientCertificates, Mode, Placement, Setup
from bench.rows import ROWS

RELAYS = [peer for peer in PEERS if peer.name in ("hitch", "stunnel")]
HTTP_PEERS = [peer for peer in PEERS if peer not in RELAYS]
TCP_PEERS = [peer for peer in PEERS if any(row.mode is Mode.TCP and peer.name not in row.left_out for row in ROWS)]
IDENTITY_WORDS = ("SIDECAR_IDENTITY_HEADERS", "SANITIZE_SET", "X-SSL-Client-S-DN")
HTTP_WORDS = ("http_connection_manager", "http {", "mode http", "http-re", "forwardfor", "X-Forwarded", "alpn")
ALPN_WORDS = ('"h2"', "ssl http2", "alpn h2")
GRPC_WORDS = ("h2c://", "http2_protocol_options", "grpc_pass", "proto h2")
LOG_WORDS = ("'SIDECAR_ACCESS_LOG': 'json'", "StdoutAccessLog", "access_log /dev/stdout", "log stdout")
TCP_WORDS = ("'SIDECAR_MODE': 'tcp'", "filters.network.tcp_proxy", "mode tcp")


def settings_of(
    peer: Peer,
    folder: Path,
    clients: ClientCertificates = ClientCertificates.NONE,
    mode: Mode = Mode.HTTP,
    **more: Any,
) -> str:
    """Return all that a peer is told: its environment and its files."""
    paths = {field.name: Path("/run", field.name) for field in attrs.fields(CertificateFiles)}
    place = Placement(
        folder=folder,
        port=1,
        admin_port=2,
        app_port=3,
        certificate=CertificateFiles(**paths),
        setup=Setup(clients=clients, mode=mode, **more),
    )
    start = peer.prepare(place)
    return "\n".join([repr(start.environment), *start.arguments, *(path.read_text() for path in folder.iterdir())])


def words_in(settings: str, words: tuple[str, ...]) -> list[str]:
    """Return which of *words* are in *settings*."""
    return [word for word in words if word in settings]


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
        assert not words_in(settings, IDENTITY_WORDS)

    @pytest.mark.parametrize("peer", PEERS, ids=named)
    def test_required_certificates_have_a_ca_and_are_not_told(self, peer: Peer, tmp_path: Path) -> None:
        """Handshakes are compared without what HTTP would add."""
        settings = settings_of(peer, tmp_path, ClientCertificates.REQUIRED)
        assert settings.count("/run/client_ca_path") == 1
        assert not words_in(settings, IDENTITY_WORDS)

    @pytest.mark.parametrize("peer", HTTP_PEERS, ids=named)
    def test_told_certificates_are_also_required(self, peer: Peer, tmp_path: Path) -> None:
        """The app hears only of clients that were verified."""
        settings = settings_of(peer, tmp_path, ClientCertificates.TOLD)
        assert settings.count("/run/client_ca_path") == 1
        assert words_in(settings, IDENTITY_WORDS)

    @pytest.mark.parametrize("peer", TCP_PEERS, ids=named)
    def test_raw_tcp_has_nothing_of_http(self, peer: Peer, tmp_path: Path) -> None:
        """A proxy that still looks at requests does other work than the rows are about."""
        assert not words_in(settings_of(peer, tmp_path, mode=Mode.TCP), HTTP_WORDS)

    @pytest.mark.parametrize("peer", [peer for peer in TCP_PEERS if peer in HTTP_PEERS], ids=named)
    def test_raw_tcp_is_asked_for_where_there_is_a_choice(self, peer: Peer, tmp_path: Path) -> None:
        """Each of them speaks HTTP unless it is told otherwise, and is told so in no other row."""
        folders = {mode: tmp_path / mode.value for mode in Mode}
        for folder in folders.values():
            folder.mkdir()
        counts = {mode: len(words_in(settings_of(peer, folders[mode], mode=mode), TCP_WORDS)) for mode in Mode}
        assert counts == {Mode.HTTP: 0, Mode.GRPC: 0, Mode.TCP: 1}

    @pytest.mark.parametrize("peer", HTTP_PEERS, ids=named)
    @pytest.mark.parametrize("mode", Mode)
    def test_app_hears_http2_in_the_grpc_rows_only(self, peer: Peer, tmp_path: Path, mode: Mode) -> None:
        """The app of the other rows knows HTTP/1.1 only, and that of these rows HTTP/2 only."""
        found = words_in(settings_of(peer, tmp_path, mode=mode), GRPC_WORDS)
        assert len(found) == (1 if mode is Mode.GRPC else 0)

    @pytest.mark.parametrize("peer", [peer for peer in HTTP_PEERS if peer.name != "sidecar"], ids=named)
    @pytest.mark.parametrize("mode", [Mode.HTTP, Mode.GRPC])
    def test_clients_are_offered_http2(self, peer: Peer, tmp_path: Path, mode: Mode) -> None:
        """Who must be told to agree on it is told; sidecar does so unless it is told not to."""
        assert words_in(settings_of(peer, tmp_path, mode=mode), ALPN_WORDS)

    @pytest.mark.parametrize("peer", HTTP_PEERS, ids=named)
    def test_app_is_told_of_the_client_with_grpc_too(self, peer: Peer, tmp_path: Path) -> None:
        """A call is forwarded with what a request is forwarded with."""
        settings = {mode: settings_of(peer, tmp_path, ClientCertificates.TOLD, mode) for mode in (Mode.HTTP, Mode.GRPC)}
        words = (*IDENTITY_WORDS, "X-Forwarded-For", "X-Forwarded-Proto", "forwardfor", "use_remote_address")
        assert words_in(settings[Mode.GRPC], words) == words_in(settings[Mode.HTTP], words)

    @pytest.mark.parametrize("peer", HTTP_PEERS, ids=named)
    def test_log_is_written_only_where_it_is_asked_for(self, peer: Peer, tmp_path: Path) -> None:
        """A row without a log does not pay for one, and a row with one pays for about the same on all."""
        folders = {is_logging: tmp_path / str(is_logging) for is_logging in (False, True)}
        for folder in folders.values():
            folder.mkdir()
        found = {
            is_logging: words_in(settings_of(peer, folder, is_logging=is_logging), LOG_WORDS)
            for is_logging, folder in folders.items()
        }
        assert len(found[True]) == 1
        assert found[False] == []

    @pytest.mark.parametrize("peer", [peer for peer in HTTP_PEERS if peer.name != "sidecar"], ids=named)
    @pytest.mark.parametrize("clients", [ClientCertificates.NONE, ClientCertificates.TOLD])
    def test_log_names_the_client_where_the_app_hears_of_it(
        self, peer: Peer, tmp_path: Path, clients: ClientCertificates
    ) -> None:
        """What is known of a client stands in the log of each, or in none."""
        settings = settings_of(peer, tmp_path, clients, is_logging=True)
        assert ("client_subject" in settings) is (clients is ClientCertificates.TOLD)

    @pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.name != "stunnel"], ids=named)
    def test_workers_are_as_many_as_asked_for(self, peer: Peer, tmp_path: Path) -> None:
        """Two of one and one of another would be compared otherwise."""
        folders = {workers: tmp_path / str(workers) for workers in (1, 2)}
        for folder in folders.values():
            folder.mkdir()
        settings = {workers: settings_of(peer, folders[workers], workers=workers) for workers in (1, 2)}
        one, two = (settings[n].replace(str(folders[n]), "").split() for n in (1, 2))
        differing = [(before, after) for before, after in zip(one, two, strict=True) if before != after]
        assert len(differing) == 1
        assert ("1" in differing[0][0], "2" in differing[0][1]) == (True, True)

    @pytest.mark.parametrize("peer", [peer for peer in HTTP_PEERS if peer.name in ("nginx", "haproxy")], ids=named)
    def test_room_for_connections_is_as_asked_for(self, peer: Peer, tmp_path: Path) -> None:
        """The others take as many by default."""
        settings = settings_of(peer, tmp_path, connections=11_000)
        assert words_in(settings, ("worker_connections 11096;", "maxconn 11000\n"))

    @pytest.mark.parametrize("peer", RELAYS, ids=named)
    def test_relay_is_the_same_in_either_mode(self, peer: Peer, tmp_path: Path) -> None:
        """It has one kind of work, so its figures in the two modes can be set side by side."""
        assert settings_of(peer, tmp_path, mode=Mode.TCP) == settings_of(peer, tmp_path, mode=Mode.HTTP)

    @pytest.mark.parametrize("peer", TCP_PEERS, ids=named)
    def test_raw_tcp_verifies_clients_like_http(self, peer: Peer, tmp_path: Path) -> None:
        """Client certificates are an affair of TLS, whatever is inside."""
        settings = settings_of(peer, tmp_path, ClientCertificates.REQUIRED, Mode.TCP)
        assert settings.count("/run/client_ca_path") == 1


def interpreter(folder: Path, installed: str, checkout: str) -> str:
    """Make a program that stands for Python: what it says as `-P -m sidecar version`, and as `-m sidecar version`."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nif [ \"$1\" = -P ]; then echo '{installed}'; else echo '{checkout}'; fi\n")
    path.chmod(0o755)
    return str(path)


class TestFindSidecar:
    """`find_sidecar` measures the checkout, or what is installed if that is compiled."""

    @pytest.mark.parametrize(
        ("installed", "checkout", "options"),
        [
            ("hot path compiled", "hot path interpreted", ["-P"]),
            ("hot path interpreted", "hot path interpreted", []),
            ("No module named sidecar", "hot path interpreted", []),
            ("No module named sidecar", "hot path compiled", []),
        ],
        ids=["compiled", "another one", "not installed", "compiled in place"],
    )
    def test_checkout_unless_what_is_installed_is_compiled(
        self, tmp_path: Path, installed: str, checkout: str, options: list[str]
    ) -> None:
        """Another installation that is interpreted too, perhaps an older one, is not what is to be measured."""
        python = interpreter(tmp_path, installed, checkout)
        assert find_sidecar(python) == [python, *options, "-m", "sidecar"]

    def test_none_where_neither_runs(self, tmp_path: Path) -> None:
        """It is left out, as any peer that is not there."""
        assert find_sidecar(interpreter(tmp_path, "No module", "No module")) is None


class TestHotPath:
    """`hot_path` reads the last line of `sidecar version`."""

    def test_line_is_found_among_the_others(self, tmp_path: Path) -> None:
        """What else it says does not matter."""
        python = interpreter(tmp_path, "sidecar 0.1.0\nhot path compiled", "")
        assert hot_path([python, "-P", "-m", "sidecar"]) == "compiled"

    def test_program_that_does_not_say_it(self, tmp_path: Path) -> None:
        """What says nothing, is nothing that we know."""
        assert hot_path([interpreter(tmp_path, "", "sidecar 0.1.0"), "-m", "sidecar"]) == ""
