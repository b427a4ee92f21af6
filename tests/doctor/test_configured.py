"""`sidecar.doctor.configured`: settings that do not fit, and secrets where others can read them."""

from __future__ import annotations

import os

import pytest

from sidecar.certs import sources
from sidecar.config.load import Loaded, gather, load
from sidecar.doctor import patience
from sidecar.doctor.configured import admin, gather_in_time, secrets, settings, written
from sidecar.doctor.findings import Check, Severity
from sidecar.errors import Problem
from tests.doctor.settled import only, settled, severities
from tests.support.certs import NOW, authority, reveals

ISSUED = authority().issue("app.example")
KEY = ISSUED.key_pem.decode()


class TestSettings:
    def test_every_problem_is_told_at_once(self) -> None:
        """Values that cannot be read and rules between those that can come in one round."""
        loaded, problems = gather({}, {"SIDECAR_LISTEN": "x", "SIDECAR_CLIENT_CERT": "required"})
        found = settings(loaded, problems, NOW, knows_balancer=False)
        assert severities(found) == [("settings", "error")] * 2
        assert found[0].fact.startswith("SIDECAR_LISTEN (environment): ")
        assert "SIDECAR_CLIENT_CA" in found[1].fact

    def test_good_settings_are_ok(self) -> None:
        """The defaults are."""
        only(settings(settled(), [], NOW, knows_balancer=False), Severity.OK, Check.SETTINGS)

    def test_files_are_not_looked_at(self) -> None:
        """Whether they can be used is said by other checks."""
        only(
            settings(settled(tls_cert="/nonexistent/tls.crt"), [], NOW, knows_balancer=False),
            Severity.OK,
            Check.SETTINGS,
        )

    def test_idle_timeout_is_left_to_whoever_knows_the_balancer(self) -> None:
        """The warning about an ALB is for those who do not say what is in front."""
        loaded = settled(idle_timeout="30s")
        assert severities(settings(loaded, [], NOW, knows_balancer=False))[1:] == [("settings", "warning")]
        assert severities(settings(loaded, [], NOW, knows_balancer=True))[1:] == []

    def test_what_other_checks_judge_is_not_said_twice(self) -> None:
        """The admin listener and the drain have checks of their own."""
        loaded = settled(admin="0.0.0.0:8081", drain_timeout="60s")
        only(settings(loaded, [], NOW, knows_balancer=False), Severity.OK, Check.SETTINGS)

    def test_what_an_envoy_file_leaves_out_is_a_note(self) -> None:
        """It may be on purpose."""
        loaded = settled()
        noted = Loaded(loaded.settings, loaded.sources, notes=("file: not carried over: x",))
        assert severities(settings(noted, [], NOW, knows_balancer=False))[1:] == [("settings", "note")]


class TestSecretArgument:
    def test_argument_that_may_be_a_key_is_not_repeated(self) -> None:
        """It stands where only flags are expected."""
        key = authority().issue("a").key_pem.decode()
        problem = Problem(key, "arguments", "only flags are expected here", "write --NAME VALUE")
        finding = only(settings(load({}, {}), [problem], NOW, knows_balancer=False), Severity.ERROR, Check.SETTINGS)
        assert finding.fact == "an argument that may be key material (arguments): only flags are expected here"


class TestAdmin:
    @pytest.mark.parametrize(
        ("address", "severity"),
        [
            pytest.param("0.0.0.0:8081", Severity.WARNING, id="all"),
            pytest.param("10.0.0.1:8081", Severity.WARNING, id="one"),
            pytest.param("127.0.0.1:8081", Severity.OK, id="loopback"),
            pytest.param("[::1]:8081", Severity.OK, id="loopback-6"),
        ],
    )
    def test_admin_is_for_this_machine(self, address: str, severity: Severity) -> None:
        """It has no authentication, and takes POST /drain."""
        only(admin(settled(admin=address)), severity, Check.ADMIN)

    def test_no_admin_is_nothing_to_say(self) -> None:
        """What is off harms nobody."""
        assert list(admin(settled(admin="off"))) == []


class TestGatherInTime:
    def test_pipe_that_says_nothing_is_a_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is known of the settings then."""
        monkeypatch.setattr(patience, "FILE_SECONDS", 0.05)
        monkeypatch.setattr(sources, "PIPE_SECONDS", 1.0)
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb"):
            loaded, problems = gather_in_time({}, {"SIDECAR_CONFIG": f"/dev/fd/{reader}"})
        assert [str(each).partition(";")[0] for each in problems] == [
            f"SIDECAR_CONFIG (environment): /dev/fd/{reader} could not be read within 0.05 s"
        ]
        assert loaded.sources == {}

    @pytest.mark.parametrize("environ", [{}, {"SIDECAR_CONFIG": "/dev/null"}], ids=["none", "file"])
    def test_settings_are_gathered(self, environ: dict[str, str]) -> None:
        """With a file and without."""
        assert gather_in_time({"admin": "off"}, environ) == gather({"admin": "off"}, environ)


class TestSecrets:
    @pytest.mark.parametrize(
        "given",
        [
            pytest.param({"tls_cert": ISSUED.cert_pem.decode(), "tls_key": KEY}, id="key"),
            pytest.param({"tls_cert": ISSUED.cert_pem.decode() + KEY}, id="key-in-certificate"),
            pytest.param({"tls_key_password": "correct horse battery"}, id="password"),
            pytest.param({"upstream_cert": ISSUED.cert_pem.decode(), "upstream_key": KEY}, id="upstream"),
        ],
    )
    def test_secret_in_a_variable_is_a_note_without_the_secret(self, given: dict[str, str]) -> None:
        """`docker inspect` shows it; the doctor does not."""
        found = only(secrets(settled(**given)), Severity.NOTE, Check.SECRETS)
        text = found.fact + found.fix
        assert not any(reveals(text, each, 12) for each in given.values())

    def test_secret_on_the_command_line_is_a_warning(self) -> None:
        """Every user of the machine sees it."""
        found = only(secrets(load({"tls_key_password": "hunter2"}, {})), Severity.WARNING, Check.SECRETS)
        assert "SIDECAR_TLS_KEY_PASSWORD" in found.fix
        assert "hunter2" not in found.fact

    @pytest.mark.parametrize(
        "given",
        [
            pytest.param({"tls_cert": "/certs", "tls_key_password": "/run/password"}, id="files"),
            pytest.param({"tls_cert": ISSUED.cert_pem.decode(), "tls_key": "/certs/tls.key"}, id="public-half"),
            pytest.param({"client_ca": authority().cert_pem.decode()}, id="ca"),
        ],
    )
    def test_what_is_no_secret_is_not_mentioned(self, given: dict[str, str]) -> None:
        """Certificates and paths may be read by anybody."""
        assert list(secrets(settled(**given))) == []


class TestWritten:
    def test_setting_is_named_with_its_source(self) -> None:
        """As everywhere in messages."""
        assert written(settled(listen=":8443"), "listen") == "SIDECAR_LISTEN (environment)"
        assert written(settled(), "clusters[0].endpoints") == "clusters[0].endpoints (default)"
