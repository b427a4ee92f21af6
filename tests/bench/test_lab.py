"""Rules of `bench.lab`: how a proxy is started, and what it must show before client certificates are measured."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import attrs
import pytest

from bench import lab
from bench.app import App
from bench.certificate import CertificateFiles
from bench.errors import StartError
from bench.httpsclient import BadAnswerError, Target
from bench.lab import Cores, Effort, Lab
from bench.peers import InstalledPeer, Peer
from bench.placement import ClientCertificates, Mode, Placement, Setup, StartLine

FILES = CertificateFiles(**{field.name: Path(field.name) for field in attrs.fields(CertificateFiles)})
TARGET = Target(port=1, certificate_path="", greeting=b"", transfer_bytes=0, client_path="client_path")


def make_lab(folder: Path) -> Lab:
    """Make a lab that can prepare proxies, and not start them."""
    return Lab(
        folder=folder,
        cores=Cores(proxy=0, load=0),
        app=App(port=2, grpc_port=3, transfer_path=Path("download")),
        call_path=Path("call"),
        certificate=FILES,
        effort=Effort(),
        programs={},
        environment={},
    )


def check(clients: ClientCertificates) -> None:
    """Check a proxy that is to do *clients*."""
    place = Placement(folder=Path(), port=1, admin_port=2, app_port=3, certificate=FILES, setup=Setup(clients=clients))
    lab.check_clients("nginx", place, TARGET)


def refuse(_target: Target) -> NoReturn:
    """Answer as a proxy does to a client without a valid certificate."""
    raise BadAnswerError("status line is b'HTTP/1.1 400 Bad Request'")


def serve(monkeypatch: pytest.MonkeyPatch, *served: str, told: str = "CN=loadclient") -> None:
    """Pretend a proxy that serves only clients with *served* certificates, and tells the app *told*."""

    def negotiate(target: Target) -> str:
        return "TLS_AES_256_GCM_SHA384" if target.client_path in served else refuse(target)

    monkeypatch.setattr(lab, "negotiated_cipher", negotiate)
    monkeypatch.setattr(lab, "told_client", lambda _target: told)


class TestRunning:
    """`Lab.running` tells a peer what it is to be."""

    @pytest.mark.parametrize("mode", Mode)
    def test_peer_is_prepared_for_the_mode(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: Mode) -> None:
        """A proxy in another mode than asked for, or before another app, would be measured at other work."""
        places: list[Placement] = []

        def prepare(place: Placement) -> StartLine:
            places.append(place)
            raise StartError("it is not to be started here")

        monkeypatch.setattr(lab, "free_port", lambda: 1)
        peer = Peer(name="envoy", find=lambda _python: None, prepare=prepare)
        running = make_lab(tmp_path).running(InstalledPeer(peer=peer, program=[], version=""), Setup(mode=mode))
        with pytest.raises(StartError), running:
            pass
        assert [(place.mode, place.app_port) for place in places] == [(mode, 3 if mode is Mode.GRPC else 2)]


class TestCheckClients:
    """`check_clients` lets nobody win by doing less."""

    @pytest.mark.parametrize(
        ("served", "whose"),
        [("", "no certificate"), ("stranger_path", "a stranger's certificate")],
        ids=["none", "stranger"],
    )
    def test_proxy_that_serves_who_is_to_be_refused_fails(
        self, monkeypatch: pytest.MonkeyPatch, served: str, whose: str
    ) -> None:
        """To require a certificate is not to verify it, and the other way round."""
        serve(monkeypatch, "client_path", served)
        with pytest.raises(StartError, match=f"serves a client with {whose}"):
            check(ClientCertificates.REQUIRED)

    def test_proxy_that_does_not_tell_the_app_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A request without identity fields is cheaper than one with them."""
        serve(monkeypatch, "client_path", told="")
        check(ClientCertificates.REQUIRED)
        with pytest.raises(StartError, match="told it ''"):
            check(ClientCertificates.TOLD)

    def test_proxy_that_fails_when_it_is_to_tell_the_app_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error of the client is the proxy's failure, not the end of the run."""
        serve(monkeypatch, "client_path")
        monkeypatch.setattr(lab, "told_client", refuse)
        with pytest.raises(StartError, match="400 Bad Request"):
            check(ClientCertificates.TOLD)

    def test_proxy_that_does_all_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The right client is served, all others are refused, and the app hears its name."""
        serve(monkeypatch, "client_path")
        check(ClientCertificates.TOLD)

    def test_rows_without_client_certificates_make_no_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A check would warm up a proxy whose start or memory is to be measured."""
        monkeypatch.setattr(lab, "negotiated_cipher", pytest.fail)
        monkeypatch.setattr(lab, "told_client", pytest.fail)
        check(ClientCertificates.NONE)
