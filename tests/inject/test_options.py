"""`sidecar.inject.options`: settings of the sidecar, checked before anything is written."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.inject.options import HEALTH, Options, make_environment, parse_settings
from sidecar.inject.tree import InjectError

GIVEN = {"listen": "0.0.0.0:8443", "upstream": "http://127.0.0.1:8080", "health": HEALTH}
KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAA\n-----END PRIVATE KEY-----"


def refusal_of(texts: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(texts)
    return str(caught.value)


class TestParseSettings:
    @pytest.mark.parametrize("name", ["SIDECAR_IDLE_TIMEOUT", "idle_timeout", "idle-timeout", " Idle_Timeout "])
    def test_names_may_be_written_in_every_usual_way(self, name: str) -> None:
        """A name as a variable, as in the YAML file or as a flag is the same setting."""
        assert parse_settings([f"{name}= 2m "]) == {"idle_timeout": "2m"}

    def test_last_of_one_name_counts(self) -> None:
        """As with flags: wrapper scripts append theirs."""
        assert parse_settings(["mode=http", "mode=tcp"]) == {"mode": "tcp"}

    def test_path_of_a_secret_is_none(self) -> None:
        """Where a password is may be told; only the password itself may not."""
        assert parse_settings(["tls_key_password=/certs/password"]) == {"tls_key_password": "/certs/password"}

    def test_value_may_have_equals_signs(self) -> None:
        """Only the first divides."""
        assert parse_settings(["client_allow=ou=payments"]) == {"client_allow": "ou=payments"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("idle_timeuot=2m", "is no such setting; did you mean idle_timeout?", id="slip"),
            pytest.param("idle_timeout", "idle_timeout (--set): it has no value; write NAME=VALUE", id="no-value"),
            pytest.param("idle_timeout=", "it has no value", id="empty"),
            pytest.param("\x1b[2J=1", "'\\x1b[2J' (--set): there is no such setting", id="control-characters"),
            pytest.param(f"tls_key={KEY}", "SIDECAR_TLS_KEY (--set): a secret in a manifest is none", id="key"),
            pytest.param("tls_key_password=hunter2", "a secret in a manifest is none", id="password"),
        ],
    )
    def test_slip_is_refused(self, text: str, message: str) -> None:
        """A slip says what was meant; a secret is not shown."""
        shown = refusal_of([text])
        assert message in shown
        assert "hunter2" not in shown
        assert "MC4C" not in shown

    def test_all_slips_are_told_at_once(self) -> None:
        """One round of mending is enough."""
        assert refusal_of(["a=1", "mode"]).count("\n") == 1


class TestSaysAppPort:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            pytest.param(Options(app_port=8080), True, id="flag"),
            pytest.param(Options(settings={"upstream": "unix:/run/app.sock"}), True, id="setting"),
            pytest.param(Options(app="web", port=8443, settings={"mode": "tcp"}), False, id="neither"),
        ],
    )
    def test_flag_or_setting_says_it(self, options: Options, expected: bool) -> None:
        """Where neither does, the first port of the container is a guess."""
        assert options.says_app_port is expected


class TestUpstream:
    @pytest.mark.parametrize(
        ("settings", "is_h2c", "expected"),
        [
            pytest.param({}, False, "http://127.0.0.1:8080", id="http"),
            pytest.param({}, True, "h2c://127.0.0.1:8080", id="h2c"),
            pytest.param({"mode": "http"}, True, "h2c://127.0.0.1:8080", id="h2c-said-twice"),
            pytest.param({"mode": "TCP"}, True, "http://127.0.0.1:8080", id="raw"),
        ],
    )
    def test_protocol_is_said_unless_bytes_are_passed_on(
        self, settings: dict[str, str], is_h2c: bool, expected: str
    ) -> None:
        """In raw TCP mode clients speak it themselves, and the setting would be refused."""
        assert Options(settings=settings).upstream(8080, is_h2c=is_h2c) == expected


class TestMakeEnvironment:
    def test_set_wins_over_what_is_worked_out(self) -> None:
        """What an operator writes counts, in the place where it would have stood."""
        made = make_environment(Options(settings={"health": "[::]:9000", "mode": "tcp"}), GIVEN, {}, {})
        assert [*made.variables.items()][2:] == [("SIDECAR_HEALTH", "[::]:9000"), ("SIDECAR_MODE", "tcp")]
        assert made.health_port == 9000

    def test_ports_are_those_that_will_be_open(self) -> None:
        """A redirect listener is one of them, and an admin listener that is off is not."""
        made = make_environment(Options(settings={"admin": "off", "http_redirect": ":8000"}), GIVEN, {}, {})
        assert made.ports == {8443: "SIDECAR_LISTEN", 8082: "SIDECAR_HEALTH", 8000: "SIDECAR_HTTP_REDIRECT"}

    @pytest.mark.parametrize(
        ("upstream", "port"), [("https://127.0.0.1:9443", 9443), ("unix:/run/app.sock", None), ("app:1,app:2", None)]
    )
    def test_app_port_is_that_of_the_upstream(self, upstream: str, port: int | None) -> None:
        """An upstream that was set by hand says where the app is."""
        assert make_environment(Options(settings={"upstream": upstream}), GIVEN, {}, {}).app_port == port

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param(
                Options(settings={"idle_timeout": "soon"}), "SIDECAR_IDLE_TIMEOUT (--set): 'soon'", id="value"
            ),
            pytest.param(
                Options(settings={"client_cert": "required"}),
                "SIDECAR_CLIENT_CA (from the other options): SIDECAR_CLIENT_CERT asks for client certificates",
                id="between-settings",
            ),
            pytest.param(Options(settings={"health": "off"}), "SIDECAR_HEALTH (--set): probes need it", id="no-health"),
            pytest.param(
                Options(port=1, settings={"listen": ":2"}), "SIDECAR_LISTEN (--set): a flag says it already", id="port"
            ),
            pytest.param(
                Options(app_port=1, settings={"upstream": ":2"}), "SIDECAR_UPSTREAM (--set): a flag", id="app"
            ),
            pytest.param(
                Options(secret="s", settings={"tls_cert": "/x"}), "SIDECAR_TLS_CERT (--set): a flag", id="cert"
            ),
            pytest.param(
                Options(cert_arn="s", settings={"tls_key": "/x"}), "SIDECAR_TLS_KEY (--set): a flag", id="key"
            ),
            pytest.param(
                Options(client_ca_arn="s", settings={"client_ca": "/x"}), "SIDECAR_CLIENT_CA (--set): a flag", id="ca"
            ),
        ],
    )
    def test_settings_that_cannot_work_are_refused(self, options: Options, message: str) -> None:
        """What `sidecar check` would refuse in the pod is refused here."""
        with pytest.raises(ConfigError) as caught:
            make_environment(options, GIVEN, {}, {})
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("port", "advice"),
        [
            pytest.param(8443, "give another with --port", id="listener"),
            pytest.param(8081, "give another with --set SIDECAR_ADMIN=127.0.0.1:PORT", id="admin"),
            pytest.param(8082, "give another with --set SIDECAR_HEALTH=0.0.0.0:PORT", id="health"),
        ],
    )
    def test_taken_port_is_refused(self, port: int, advice: str) -> None:
        """Containers beside the sidecar have their ports on the same addresses."""
        with pytest.raises(InjectError) as caught:
            make_environment(Options(), GIVEN, {}, {range(port - 1, port + 1): "metrics"})
        assert f"the container 'metrics' has the port {port}, and so has" in caught.value.fact
        assert caught.value.fix == advice

    def test_port_of_the_app_is_taken(self) -> None:
        """Also where no container names it."""
        with pytest.raises(InjectError, match="the app has the port 8081, and so has SIDECAR_ADMIN"):
            make_environment(Options(), {**GIVEN, "upstream": "http://127.0.0.1:8081"}, {}, {})

    def test_secrets_count_as_given_and_are_not_written(self) -> None:
        """What the platform fills in satisfies the checks, and stands in no variable of ours."""
        given = {**GIVEN, "client_cert": "required"}
        made = make_environment(Options(), given, {"client_ca": "/from/secret"}, {})
        assert "SIDECAR_CLIENT_CA" not in made.variables
