"""`sidecar.doctor.surroundings`: what is looked at, and who judges it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from sidecar.config.load import Loaded
from sidecar.config.show import effective
from sidecar.doctor import patience
from sidecar.doctor.app import Answer, Spoken
from sidecar.doctor.findings import Finding
from sidecar.doctor.material import load_material
from sidecar.doctor.platforms import Platform
from sidecar.doctor.ports import Binding
from sidecar.doctor.surroundings import surroundings
from sidecar.wire.proxyproto import LOCAL_V2
from tests.doctor.machine import LOOPBACK_8080, KnownMachine
from tests.doctor.settled import settled, severities
from tests.support.certs import NOW, authority

READY = b'{"ready": true, "reasons": []}'


def found(loaded: Loaded, machine: KnownMachine, platform: Platform = Platform.HOST) -> list[Finding]:
    return list(surroundings(loaded, load_material(loaded, NOW).servers, platform, machine))


def of(check: str, findings: list[Finding]) -> list[str]:
    """Severities of one check."""
    return [severity for name, severity in severities(findings) if name == check]


def pages_of(loaded: Loaded, **others: bytes) -> dict[str, bytes]:
    """What a program with these settings answers."""
    config = "\n".join(effective(loaded.settings, loaded.sources)).encode()
    return {"/ready": READY, "/config": config, "/certs": b"{}", **{f"/{name}": body for name, body in others.items()}}


class TestRunning:
    def test_program_that_does_not_run_is_told_and_ports_are_tried(self) -> None:
        """Before the start, what counts is whether it could."""
        findings = found(settled(), KnownMachine(bindings={443: Binding.FORBIDDEN}))
        assert of("running", findings) == ["unchecked"]
        assert of("port", findings) == ["error", "ok"]

    def test_running_program_has_its_ports(self) -> None:
        """That they are taken is as it should be."""
        loaded = settled()
        table = "h\n0: 00000000:01BB x:0 0A\n1: 0100007F:1F91 x:0 0A\n"
        texts = {"/proc/net/tcp": table}
        machine = KnownMachine(texts=texts, pages=pages_of(loaded), bindings={443: Binding.TAKEN, 8081: Binding.TAKEN})
        findings = found(loaded, machine)
        assert of("running", findings) == ["ok"]
        assert of("port", findings) == ["ok", "ok"]
        assert of("same-settings", findings) == ["ok"]

    def test_port_that_the_program_has_otherwise_is_not_judged(self) -> None:
        """The doctor has other settings, so what it would say might be wrong."""
        findings = found(settled(listen=":8443"), KnownMachine(pages=pages_of(settled())))
        assert of("same-settings", findings) == ["note"]
        assert of("port", findings) == ["unchecked", "error"]

    def test_health_page_tells_that_it_runs_where_admin_is_off(self) -> None:
        """Without an admin page nothing is compared."""
        loaded = settled(admin="off", health="0.0.0.0:8082")
        findings = found(loaded, KnownMachine(pages={"/ready": READY}))
        assert of("running", findings) == ["ok"]
        assert of("same-settings", findings) == []

    def test_nobody_is_accused_where_both_pages_are_off(self) -> None:
        """What is taken may be taken by ourselves."""
        findings = found(settled(admin="off"), KnownMachine(bindings={443: Binding.TAKEN}))
        assert of("running", findings) == []
        assert of("port", findings) == ["unchecked"]

    def test_certificate_in_the_file_is_compared_with_the_served(self, tmp_path: Path) -> None:
        """A renewal that is not served is found."""
        issued = authority().issue("app.example")
        loaded = settled(tls_cert=str(issued.write(tmp_path)))
        for sha256, severity in ((issued.certificate.fingerprint(hashes.SHA256()).hex(), "ok"), ("00", "error")):
            page = {"certificates": [{"source": str(tmp_path), "sha256": sha256, "not_after": "x"}]}
            machine = KnownMachine(pages=pages_of(loaded, certs=json.dumps(page).encode()))
            assert of("served", found(loaded, machine)) == [severity]


class TestApp:
    def test_missing_app_counts_more_once_clients_come(self) -> None:
        """The same answer, before and after the start."""
        nothing = Answer(Spoken.NOTHING, why="refused")
        assert of("app", found(settled(), KnownMachine(answer=nothing))) == ["warning"]
        running = KnownMachine(answer=nothing, pages=pages_of(settled()))
        assert of("app", found(settled(), running)) == ["error"]

    @pytest.mark.parametrize(
        ("settings", "question"),
        [
            pytest.param({}, ("127.0.0.1:8080", b"", Spoken.HTTP, True), id="http"),
            pytest.param({"upstream": "https://127.0.0.1:8443"}, ("127.0.0.1:8443", b"", Spoken.TLS, True), id="https"),
            pytest.param({"upstream": "h2c://127.0.0.1:50051"}, ("127.0.0.1:50051", b"", Spoken.H2C, True), id="h2c"),
            pytest.param({"mode": "tcp"}, ("127.0.0.1:8080", b"", Spoken.ANYTHING, False), id="tcp"),
            pytest.param(
                {"mode": "tcp", "upstream": "https://127.0.0.1:8443"},
                ("127.0.0.1:8443", b"", Spoken.TLS, False),
                id="tcp-in-tls",
            ),
            pytest.param({"upstream": "unix:/run/app"}, ("unix:/run/app", b"", Spoken.HTTP, True), id="unix"),
            pytest.param(
                {"upstream_proxy_protocol": "v2"}, ("127.0.0.1:8080", LOCAL_V2, Spoken.HTTP, True), id="proxy-protocol"
            ),
        ],
    )
    def test_app_is_asked_as_it_would_be(
        self, settings: dict[str, str], question: tuple[str, bytes, Spoken, bool]
    ) -> None:
        """With TLS, in HTTP/2, with a PROXY header, or only by a connection."""
        machine = KnownMachine()
        found(settled(**settings), machine)
        assert machine.asked == [question]

    def test_few_of_many_endpoints_are_asked(self) -> None:
        """Each may take a second."""
        machine = KnownMachine()
        found(settled(upstream=",".join(f"127.0.0.1:{port}" for port in range(9001, 9010))), machine)
        assert len(machine.asked) == 4

    def test_exposure_is_read_from_both_tables(self) -> None:
        """What listens on loopback and on everything is reachable."""
        open_to_all = "h\n0: 00000000000000000000000000000000:1F90 x:0 0A\n"
        texts = {"/proc/net/tcp": LOOPBACK_8080}
        assert of("app-exposed", found(settled(), KnownMachine(texts=texts))) == ["ok"]
        texts |= {"/proc/net/tcp6": open_to_all}
        assert of("app-exposed", found(settled(), KnownMachine(texts=texts))) == ["warning"]

    def test_app_elsewhere_in_the_clear_is_a_note(self) -> None:
        """With TLS it is as it should be."""
        assert of("app-exposed", found(settled(upstream="http://app:8080"), KnownMachine())) == ["note"]
        assert of("app-exposed", found(settled(upstream="https://app:8443"), KnownMachine())) == []


class TestFiles:
    def test_key_is_found_wherever_it_is_looked_for(self, tmp_path: Path) -> None:
        """In the directory, beside the certificate, or where the setting says."""
        issued = authority().issue("app.example")
        issued.write(tmp_path)
        issued.write(tmp_path, cert="other.crt", key="elsewhere.pem")
        (tmp_path / "tls.key").chmod(0o644)
        (tmp_path / "elsewhere.pem").chmod(0o600)
        for settings, severity in (
            ({"tls_cert": str(tmp_path)}, "warning"),
            ({"tls_cert": str(tmp_path / "tls.crt")}, "warning"),
            ({"tls_cert": str(tmp_path / "other.crt"), "tls_key": str(tmp_path / "elsewhere.pem")}, "ok"),
        ):
            assert of("key-file", found(settled(**settings), KnownMachine())) == [severity]

    def test_mounts_are_judged_in_containers_only(self, tmp_path: Path) -> None:
        """On a host, files lie where they lie."""
        issued = authority().issue("app.example")
        loaded = settled(tls_cert=str(issued.write(tmp_path)))
        (tmp_path / "tls.key").chmod(0o600)
        table = "1 0 0:1 / / rw - overlay overlay rw\n"
        table += f"2 1 0:2 /..2026_11_23_01_02_03.4/tls.crt {tmp_path.resolve()}/tls.crt ro - tmpfs tmpfs rw\n"
        texts = {"/proc/self/mountinfo": table}
        assert of("mount", found(loaded, KnownMachine(texts=texts))) == []
        findings = found(loaded, KnownMachine(texts=texts), Platform.KUBERNETES)
        assert of("mount", findings) == ["warning"]
        assert of("key-file", findings) == ["ok", "warning"]


class TestFilesThatDoNotAnswer:
    def test_looking_at_them_has_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other checks are made."""
        release = threading.Event()
        monkeypatch.setattr(patience, "FILE_SECONDS", 0.05)
        monkeypatch.setattr(KnownMachine, "file", lambda *_, **__: release.wait(10) and None)
        try:
            findings = found(settled(tls_cert="/certs/tls.crt"), KnownMachine())
        finally:
            release.set()
        assert of("mount", findings) == ["unchecked"]
        assert of("descriptors", findings) != []

    def test_they_are_left_alone_if_nobody_answers(self, tmp_path: Path) -> None:
        """Loading them has found that out."""
        loaded = settled(tls_cert=str(authority().issue("app.example").write(tmp_path)))
        left_out = list(surroundings(loaded, (), Platform.HOST, KnownMachine(), with_files=False))
        assert of("key-file", left_out) == []
        assert of("key-file", found(loaded, KnownMachine())) != []


class TestRights:
    STATUS = "Uid:\t0\t0\t0\t0\n"

    def test_process_one_is_looked_at_if_it_is_the_program(self) -> None:
        """Whoever runs the doctor as root in the container sees what the program may, not he."""
        texts = {
            "/proc/1/cmdline": "/usr/bin/python3\0/opt/bin/sidecar\0run\0",
            "/proc/1/status": "Uid:\t65532\t65532\t65532\t65532\n",
            "/proc/self/status": self.STATUS,
        }
        assert of("user", found(settled(), KnownMachine(texts=texts), Platform.DOCKER)) == ["ok"]

    def test_this_command_is_looked_at_otherwise(self) -> None:
        """A container that only runs the doctor has the same rights."""
        texts = {"/proc/1/cmdline": "/pause\0", "/proc/self/status": self.STATUS}
        assert of("user", found(settled(), KnownMachine(texts=texts), Platform.DOCKER)) == ["warning"]

    def test_rights_outside_of_containers_are_not_judged(self) -> None:
        """The operator's are not the program's."""
        findings = found(settled(), KnownMachine(texts={"/proc/self/status": self.STATUS}))
        assert of("user", findings) == ["unchecked"]

    @pytest.mark.parametrize(("free_from", "expected"), [("1024\n", ["ok"]), ("0\n", ["warning"])])
    def test_capability_is_needed_where_the_port_is_not_free(self, free_from: str, expected: list[str]) -> None:
        """The sysctl decides from which port on."""
        texts = {
            "/proc/self/status": "CapEff:\t0000000000000400\nCapBnd:\t0000000000000400\n",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start": free_from,
        }
        assert of("capabilities", found(settled(), KnownMachine(texts=texts), Platform.DOCKER)) == expected


class TestLimits:
    def test_limits_are_those_of_the_process(self) -> None:
        """In a container they are the program's."""
        texts = {"/proc/self/limits": "Max open files            1024                 4096                 files\n"}
        loaded = settled(max_connections="5000")
        assert of("descriptors", found(loaded, KnownMachine(texts=texts), Platform.ECS)) == ["warning"]
        assert of("descriptors", found(loaded, KnownMachine(texts=texts))) == ["note"]
