"""`sidecar.doctor.examination`: every check is made, and none on grounds that do not hold."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.config.load import gather
from sidecar.doctor import examination
from sidecar.doctor.examination import Examination, Options, examine
from sidecar.doctor.findings import Check, Severity, unchecked
from sidecar.doctor.material import Material
from sidecar.doctor.platforms import Platform
from sidecar.settings import HostPort
from tests.doctor.machine import KnownMachine
from tests.doctor.settled import severities
from tests.support.certs import DAY, NOW, authority


def examined(
    options: Options | None = None,
    machine: KnownMachine | None = None,
    environ: dict[str, str] | None = None,
    **settings: str,
) -> Examination:
    loaded, problems = gather({}, {f"SIDECAR_{name.upper()}": value for name, value in settings.items()})
    return examine(loaded, problems, options or Options(), environ or {}, machine or KnownMachine())


def of(check: Check, examination: Examination) -> list[str]:
    return [severity for name, severity in severities(examination.findings) if name == check.value]


class TestExamine:
    def test_settings_that_are_wrong_end_it_early(self, tmp_path: Path) -> None:
        """What depends on them would be false alarms; certificates are judged still."""
        issued = authority().issue("app.example", not_after=NOW - DAY / 24)
        examination = examined(listen="x", tls_cert=str(issued.write(tmp_path)))
        assert of(Check.SETTINGS, examination) == ["error"]
        assert of(Check.CERTIFICATE, examination) == ["error"]
        assert of(Check.MACHINE, examination) == ["unchecked"]
        assert of(Check.PORT, examination) == []

    @pytest.mark.parametrize("settings", [{"tls_policy": "best"}, {"client_cert": "perhaps"}])
    def test_certificates_are_not_judged_if_their_settings_cannot_be_read(self, settings: dict[str, str]) -> None:
        """Else a key that is written wrongly would be called missing."""
        examination = examined(**settings)
        assert of(Check.CERTIFICATE, examination) == ["unchecked"]

    def test_outside_only_settings_and_files_are_looked_at(self) -> None:
        """What the operator's own machine is like has nothing to do with it."""
        machine = KnownMachine()
        examination = examined(Options(is_outside=True), machine, {"KUBERNETES_SERVICE_HOST": "x"})
        assert examination.platform is Platform.HOST
        assert machine.asked == []
        assert of(Check.MACHINE, examination) == ["unchecked"]
        assert of(Check.USER, examination) == []

    def test_platform_gives_the_grace_period(self) -> None:
        """Told by the environment."""
        examination = examined(environ={"ECS_CONTAINER_METADATA_URI_V4": "x"}, drain_timeout="30s")
        assert examination.platform is Platform.ECS
        assert of(Check.STOP_TIMEOUT, examination) == ["warning"]


class TestCertificates:
    def test_expected_names_go_before_those_of_the_settings(self, tmp_path: Path) -> None:
        """The operator says what clients use."""
        issued = authority().issue("app.example")
        cert = str(issued.write(tmp_path))
        assert of(Check.NAMES, examined(Options(names=("app.example",)), tls_cert=cert)) == ["ok"]
        assert of(Check.NAMES, examined(Options(names=("other.example",)), tls_cert=cert)) == ["error"]

    def test_certificate_made_at_start_has_the_name_of_the_machine(self) -> None:
        """And those of the settings."""
        machine = KnownMachine(texts={"/proc/sys/kernel/hostname": "Web-1\n"})
        options = Options(names=("web-1", "app.example", "other.example"))
        examination = examined(options, machine, tls_names="app.example")
        assert of(Check.NAMES, examination) == ["ok", "ok", "warning"]

    def test_listener_without_tls_needs_none(self) -> None:
        """Nothing is made at start then."""
        assert of(Check.CERTIFICATE, examined(listen_tls="off", listen="127.0.0.1:8443")) == []


class TestClock:
    def test_file_from_the_future_is_noticed(self, tmp_path: Path) -> None:
        """By its time of change."""
        cert = authority().issue("app.example").write(tmp_path) / "tls.crt"
        later = NOW.timestamp() + 3600
        os.utime(cert, (later, later))
        assert of(Check.CLOCK, examined(tls_cert=str(cert))) == ["note"]

    def test_time_that_no_calendar_has_is_left_out(self, tmp_path: Path) -> None:
        """File systems can hold it."""
        cert = authority().issue("app.example").write(tmp_path) / "tls.crt"
        os.utime(cert, (2**33, 2**33))
        assert of(Check.CLOCK, examined(tls_cert=str(cert))) == ["ok"]

    @pytest.mark.parametrize(("hours", "severity"), [(0, "ok"), (1, "warning")])
    def test_web_server_is_asked_if_the_operator_says_so(self, hours: int, severity: str) -> None:
        """And nobody otherwise."""
        machine = KnownMachine(time=datetime.now(UTC) + timedelta(hours=hours))
        options = Options(clock=HostPort("time.example", 80))
        assert of(Check.CLOCK, examined(options, machine)) == ["ok", severity]
        assert of(Check.CLOCK, examined(None, machine)) == ["ok"]


class TestFilesThatDoNotAnswer:
    def test_they_are_looked_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other checks are made, without them."""
        late = unchecked(Check.CERTIFICATE, "late")
        monkeypatch.setattr(examination, "load_in_time", lambda *_: Material(findings=(late,), has_come=False))
        examined_ = examined(tls_cert="/dead/tls.crt")
        assert late in examined_.findings
        assert of(Check.PORT, examined_) == ["ok", "ok"]
        assert of(Check.NAMES, examined_) == []
        assert of(Check.KEY_FILE, examined_) == []
        assert of(Check.CLOCK, examined_) == ["ok"]


class TestSecrecy:
    def test_no_finding_shows_a_key_or_password(self) -> None:
        """Whatever is wrong with them."""
        key = authority().issue("a").key_pem.decode()
        examination = examined(tls_cert=key, tls_key=key, tls_key_password="correct horse")
        texts = "".join(finding.fact + finding.fix for finding in examination.findings)
        assert any(finding.severity is Severity.ERROR for finding in examination.findings)
        assert key[60:90] not in texts
        assert "correct horse" not in texts
