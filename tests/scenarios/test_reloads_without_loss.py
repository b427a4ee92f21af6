"""
Ensures that certificates, keys, CAs and revocation lists change under load without a lost request, in every layout, and
that a set which cannot be used changes nothing but the log and the readiness page.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.scenarios.clients import HttpsClient, client_context, write_identity
from tests.scenarios.conftest import Launch
from tests.support.apps import App
from tests.support.certs import CLIENT, DAY, NOW, Issued, authority, other_authority
from tests.support.program import Program, eventually

SWAPS = 200
SWAP_SECONDS = 0.1

FIRST = authority().issue("localhost", "first.example")
SECOND = authority().issue("localhost", "second.example")


def in_place(directory: Path, issued: Issued) -> None:
    """Key first, as many tools do it: for a moment the pair is torn."""
    (directory / "tls.key").write_bytes(issued.key_pem)
    (directory / "tls.crt").write_bytes(issued.cert_pem)


def by_rename(directory: Path, issued: Issued) -> None:
    for name, content in (("tls.crt", issued.cert_pem), ("tls.key", issued.key_pem)):
        (directory / f".{name}").write_bytes(content)
        (directory / f".{name}").rename(directory / name)


def by_link(directory: Path, issued: Issued) -> None:
    """As Kubernetes swaps a secret."""
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir()
    issued.write(version)
    old = os.readlink(directory / "..data") if (directory / "..data").is_symlink() else None
    os.symlink(version.name, directory / "..data_tmp")
    os.rename(directory / "..data_tmp", directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).unlink(missing_ok=True)
            os.symlink(f"..data/{name}", directory / name)
    if old is not None:
        shutil.rmtree(directory / old)


LAYOUTS = {"in place": in_place, "by rename": by_rename, "by link": by_link}


class Load:
    """Clients that ask without a pause: one on a connection that it keeps, one on a new connection each time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.failures: list[BaseException] = []
        self.requests = 0
        self.serials: set[str] = set()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in (self._keep, self._renew)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(30.0)

    def _run(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except BaseException as failure:  # told in the main thread
            self.failures.append(failure)

    def _keep(self) -> None:
        with HttpsClient(self.program) as client:
            while not self._ended.is_set():
                assert client.get("/hello").status == 200
                self.requests += 1

    def _renew(self) -> None:
        while not self._ended.is_set():
            with HttpsClient(self.program) as client:
                assert client.get("/hello").status == 200
                certificate = client.socket.getpeercert()
                assert certificate is not None
                self.serials.add(str(certificate["serialNumber"]))
                self.requests += 1


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    directory.mkdir()
    return directory


def serial(program: Program) -> int:
    """Of the certificate that a new connection gets."""
    with HttpsClient(program) as client:
        certificate = client.socket.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def serves(program: Program, issued: Issued) -> Callable[[], bool]:
    return lambda: serial(program) == issued.certificate.serial_number


class TestSwaps:
    @pytest.mark.slow
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_two_hundred_swaps_lose_nothing(self, launch: Launch, app: App, certs: Path, layout: str) -> None:
        """20 seconds of swaps under load: no request fails, both certificates are served, memory stays."""
        LAYOUTS[layout](certs, FIRST)
        program = launch(upstream=app.upstream, tls_cert=str(certs), reload_interval="100ms")
        load = Load(program)
        with load.running():
            for number in range(SWAPS):
                if number == SWAPS // 4:
                    warm = program.resident_bytes()
                LAYOUTS[layout](certs, SECOND if number % 2 == 0 else FIRST)
                time.sleep(SWAP_SECONDS)
        assert load.failures == []
        assert load.requests > 200
        assert load.serials == {
            f"{issued.certificate.serial_number:X}".zfill(len(min(load.serials))) for issued in (FIRST, SECOND)
        }
        eventually(serves(program, FIRST), "the last certificate is served")
        assert program.resident_bytes() < warm * 1.05
        assert json.loads(program.admin("/ready")[1])["ready"]

    def test_new_certificate_is_for_new_connections(self, launch: Launch, app: App, certs: Path) -> None:
        """An open connection goes on as if nothing had happened."""
        in_place(certs, FIRST)
        program = launch(upstream=app.upstream, tls_cert=str(certs), reload_interval="100ms")
        with HttpsClient(program) as client:
            assert client.get("/hello").status == 200
            in_place(certs, SECOND)
            eventually(serves(program, SECOND), "the new certificate is served")
            assert client.get("/hello").status == 200

    @pytest.mark.parametrize("how", ["signal", "interval"])
    def test_bad_set_changes_nothing_but_the_alarm(self, launch: Launch, app: App, certs: Path, how: str) -> None:
        """The last good certificate serves; log and readiness say what is wrong; a good set ends it."""
        in_place(certs, FIRST)
        interval = "0" if how == "signal" else "100ms"
        program = launch(upstream=app.upstream, tls_cert=str(certs), reload_interval=interval)
        (certs / "tls.crt").write_bytes(SECOND.cert_pem)
        if how == "signal":
            program.signal(signal.SIGHUP)
        eventually(lambda: "does not match" in program.stderr, "the log says so", 20.0)
        assert serial(program) == FIRST.certificate.serial_number
        (certs / "tls.key").write_bytes(SECOND.key_pem)
        if how == "signal":
            program.signal(signal.SIGHUP)
        eventually(serves(program, SECOND), "the whole set is served")

    def test_hang_up_reads_the_settings_anew(self, launch: Launch, app: App, tmp_path: Path) -> None:
        """What can change at run time does; a slip in the file changes nothing."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("max_header_bytes: 8KiB\n")
        program = launch(upstream=app.upstream, config=str(file))

        def status() -> int:
            with HttpsClient(program) as client:
                return client.get("/hello", f"X: {'a' * 3000}").status

        assert status() == 200
        file.write_text("max_header_bytes: 1KiB\n")
        program.signal(signal.SIGHUP)
        eventually(lambda: status() == 431, "the new limit holds")
        file.write_text("max_header_bytes: [\n")
        program.signal(signal.SIGHUP)
        eventually(lambda: "reload failed" in program.stderr, "the log says what is wrong")
        assert status() == 431


class TestTrustFollowsConnections:
    def crl(self, *revoked: Issued) -> bytes:
        builder = x509.CertificateRevocationListBuilder(authority().certificate.subject, NOW - DAY, NOW + DAY)
        for issued in revoked:
            entry = x509.RevokedCertificateBuilder(issued.certificate.serial_number, NOW - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(authority().key, hashes.SHA256())  # type: ignore[arg-type]  # a CA's key signs
        return crl.public_bytes(Encoding.PEM)

    @pytest.fixture
    def good(self) -> Issued:
        return authority().issue("good.example", purposes=CLIENT)

    @pytest.fixture
    def context(self, good: Issued, tmp_path: Path) -> ssl.SSLContext:
        return client_context(identity=write_identity(good, tmp_path / "good.pem"))

    @pytest.fixture
    def settings_of(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "ca.crt").write_bytes(authority().cert_pem)
        (tmp_path / "ca.crl").write_bytes(self.crl())
        return {
            "client_cert": "required",
            "client_ca": str(tmp_path / "ca.crt"),
            "client_crl": str(tmp_path / "ca.crl"),
            "reload_interval": "100ms",
        }

    def test_revoked_client_is_refused_at_its_next_request(
        self,
        launch: Launch,
        app: App,
        tmp_path: Path,
        good: Issued,
        context: ssl.SSLContext,
        settings_of: dict[str, str],
    ) -> None:
        """With 403 and the end of its connection; an upgraded connection ends at once."""
        program = launch(upstream=app.upstream, **settings_of)
        with HttpsClient(program, context=context) as client, HttpsClient(program, context=context) as upgraded:
            assert client.get("/hello").status == 200
            assert upgraded.get("/upgrade", "Connection: Upgrade", "Upgrade: echo").status == 101
            (tmp_path / "ca.crl").write_bytes(self.crl(good))
            eventually(lambda: "reloaded" in program.stderr, "the new list is in force")
            response = client.get("/hello")
            assert (response.status, b"revoked" in response.body) == (403, True)
            assert client.is_closed()
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                upgraded.read_to_end()

    def test_client_with_an_unreadable_chain_shields_nobody(
        self,
        launch: Launch,
        app: App,
        tmp_path: Path,
        good: Issued,
        context: ssl.SSLContext,
        settings_of: dict[str, str],
    ) -> None:
        """What a client appends to its chain, and nobody needs, keeps neither it nor others from being looked at."""
        junk = authority().issue("junk.example").certificate.public_bytes(Encoding.DER)
        junk = junk.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020103"), 1)  # a version that is none
        chained = tmp_path / "chained.pem"
        chained.write_text((tmp_path / "good.pem").read_text() + ssl.DER_cert_to_PEM_cert(junk))
        program = launch(upstream=app.upstream, **settings_of)
        with (
            HttpsClient(program, context=context) as client,
            HttpsClient(program, context=client_context(identity=chained)) as other,
        ):
            assert (client.get("/hello").status, other.get("/hello").status) == (200, 200)
            (tmp_path / "ca.crl").write_bytes(self.crl(good))
            eventually(lambda: "reloaded" in program.stderr, "the new list is in force")
            assert (other.get("/hello").status, client.get("/hello").status) == (403, 403)

    def test_client_of_a_ca_that_is_gone_is_refused(
        self, launch: Launch, app: App, tmp_path: Path, context: ssl.SSLContext, settings_of: dict[str, str]
    ) -> None:
        """Trust that no longer holds ends with the next request."""
        del settings_of["client_crl"]
        program = launch(upstream=app.upstream, **settings_of)
        with HttpsClient(program, context=context) as client:
            assert client.get("/hello").status == 200
            (tmp_path / "ca.crt").write_bytes(other_authority().cert_pem)
            eventually(lambda: "reloaded" in program.stderr, "the new CA is in force")
            assert client.get("/hello").status == 403

    def test_recheck_can_be_turned_off(
        self,
        launch: Launch,
        app: App,
        tmp_path: Path,
        good: Issued,
        context: ssl.SSLContext,
        settings_of: dict[str, str],
    ) -> None:
        """Then only new connections meet the new trust."""
        program = launch(upstream=app.upstream, recheck="off", **settings_of)
        with HttpsClient(program, context=context) as client:
            assert client.get("/hello").status == 200
            (tmp_path / "ca.crl").write_bytes(self.crl(good))
            eventually(lambda: "reloaded" in program.stderr, "the new list is in force")
            assert client.get("/hello").status == 200
        with HttpsClient(program, context=context) as client:
            assert client.get("/hello").status == 403

    def test_server_certificate_alone_changes_no_trust(
        self, launch: Launch, app: App, certs: Path, context: ssl.SSLContext, settings_of: dict[str, str]
    ) -> None:
        """A renewal of ours is nothing to the clients."""
        in_place(certs, FIRST)
        program = launch(upstream=app.upstream, tls_cert=str(certs), **settings_of)
        with HttpsClient(program, context=context) as client:
            assert client.get("/hello").status == 200
            in_place(certs, SECOND)
            eventually(lambda: "reloaded" in program.stderr, "the new certificate is in force")
            assert client.get("/hello").status == 200


class TestWaiting:
    def test_certificate_that_comes_later_is_waited_for(self, app: App, certs: Path, tmp_path: Path) -> None:
        """Not ready until it is there, then as ever; the log says what is missing."""
        program = Program(tmp_path / "sidecar", upstream=app.upstream, tls_cert=str(certs))
        try:
            eventually(lambda: "waiting for" in program.stderr, "it says what it waits for")
            assert str(certs) in program.stderr
            assert program.admin("/live")[0] == 200
            status, body = program.admin("/ready")
            assert (status, json.loads(body)["reasons"]) == (503, [f"waiting for {certs}"])
            in_place(certs, FIRST)
            program.wait_until_ready()
            assert serial(program) == FIRST.certificate.serial_number
        finally:
            program.close()

    def test_wait_that_is_in_vain_ends_with_78(self, app: App, certs: Path, tmp_path: Path) -> None:
        """Bounded, and then the problem is told as at any start."""
        program = Program(tmp_path / "sidecar", upstream=app.upstream, tls_cert=str(certs), wait="1s", exit_status=78)
        assert program.wait() == 78
        assert f"{certs} is a directory without tls.crt" in program.stderr
        program.close()

    def test_stop_ends_the_wait(self, app: App, certs: Path, tmp_path: Path) -> None:
        """SIGTERM is obeyed before anything is served."""
        program = Program(tmp_path / "sidecar", upstream=app.upstream, tls_cert=str(certs))
        eventually(lambda: "waiting for" in program.stderr, "it waits")
        assert program.stop() == 0
        program.close()
