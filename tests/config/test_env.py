"""`sidecar.config.env`: variables."""

from __future__ import annotations

import pytest

from sidecar.config import env
from sidecar.config.names import Given
from sidecar.errors import Problem


class TestRead:
    @pytest.mark.parametrize(
        ("variable", "suggestion"),
        [
            ("SIDECAR_TLS_CERTS", "did you mean SIDECAR_TLS_CERT?"),
            ("SIDECAR_UPSTRAEM", "did you mean SIDECAR_UPSTREAM?"),
            ("SIDECAR_CONFG", "did you mean SIDECAR_CONFIG?"),
            ("SIDECAR_ENVYO", "did you mean SIDECAR_ENVOY?"),
            ("SIDECAR_tls_key", "did you mean SIDECAR_TLS_KEY?"),
            ("SIDECAR_XYZZY", "remove it, or see sidecar --help"),
            ("SIDECAR_", "remove it, or see sidecar --help"),
        ],
    )
    def test_unknown_variable_is_a_problem_with_a_suggestion(self, variable: str, suggestion: str) -> None:
        """A SIDECAR_ variable that is no setting is reported, without its value."""
        given, problems = env.read({variable: "hunter2"})

        assert given == {}
        assert problems == [Problem(variable, "environment", "there is no such setting", suggestion)]

    def test_unknown_variable_counts_even_if_empty(self) -> None:
        """An empty unknown variable is a slip all the same."""
        _, problems = env.read({"SIDECAR_TLS_CRET": ""})

        assert [problem.setting for problem in problems] == ["SIDECAR_TLS_CRET"]

    @pytest.mark.parametrize("value", ["", " ", "\n"])
    def test_empty_variable_is_not_set(self, value: str) -> None:
        """Compose files pass empty variables for what was left out."""
        assert env.read({"SIDECAR_LISTEN": value}) == ({}, [])

    def test_value_loses_surrounding_blanks(self) -> None:
        """A line break at the end, as `cat` of a file leaves it, is no part of the value."""
        given, _ = env.read({"SIDECAR_LISTEN": " :443\n"})

        assert given == {"listen": Given(":443", "SIDECAR_LISTEN", "environment")}

    def test_other_variables_are_not_ours(self) -> None:
        """Variables without the prefix do not matter, nor do those that name a file, which are no settings."""
        files = {"SIDECAR_CONFIG": "x", "SIDECAR_ENVOY": "y"}

        assert env.read({"PATH": "/bin", "MY_SIDECAR_LISTEN": ":1", "SIDECARS": "2", **files}) == ({}, [])

    @pytest.mark.parametrize("service", ["SIDECAR", "SIDECAR_WEB", "SIDECAR_MY_TLS_V2"])
    def test_kubernetes_service_links_are_ignored(self, service: str) -> None:
        """What Kubernetes sets for a Service named sidecar or sidecar-… is nobody's mistake."""
        links = {
            f"{service}_SERVICE_HOST": "10.96.0.12",
            f"{service}_SERVICE_PORT": "443",
            f"{service}_SERVICE_PORT_HTTPS": "443",
            f"{service}_PORT": "tcp://10.96.0.12:443",
            f"{service}_PORT_443_TCP": "tcp://10.96.0.12:443",
            f"{service}_PORT_443_TCP_PROTO": "tcp",
            f"{service}_PORT_443_TCP_PORT": "443",
            f"{service}_PORT_443_TCP_ADDR": "10.96.0.12",
            f"{service}_PORT_53_UDP": "udp://10.96.0.12:53",
            f"{service}_PORT_9_SCTP_ADDR": "10.96.0.12",
        }

        assert env.read(links) == ({}, [])

    @pytest.mark.parametrize("variable", ["SIDECAR_PORT", "SIDECAR_LISTEN_PORT", "SIDECAR_ADMIN_PORT"])
    def test_port_that_a_person_wrote_is_a_problem(self, variable: str) -> None:
        """A number is no service link: who sets SIDECAR_PORT=8443 wants to hear that it does nothing."""
        _, problems = env.read({variable: "8443"})

        assert [problem.setting for problem in problems] == [variable]


class TestConfigFile:
    def test_named_file_is_given(self) -> None:
        """SIDECAR_CONFIG names the file."""
        assert env.config_file({"SIDECAR_CONFIG": "a.yaml"}) == Given("a.yaml", "SIDECAR_CONFIG", "environment")

    @pytest.mark.parametrize("environ", [{}, {"SIDECAR_CONFIG": ""}])
    def test_unset_or_empty_variable_is_no_file(self, environ: dict[str, str]) -> None:
        """Without a name there is no file."""
        assert env.config_file(environ) is None


class TestEnvoyFile:
    def test_named_file_is_given(self) -> None:
        """SIDECAR_ENVOY names the file, less the line break of a script."""
        assert env.envoy_file({"SIDECAR_ENVOY": "a.yaml\n"}) == Given("a.yaml", "SIDECAR_ENVOY", "environment")

    @pytest.mark.parametrize("environ", [{}, {"SIDECAR_ENVOY": " "}, {"SIDECAR_CONFIG": "a.yaml"}])
    def test_unset_or_empty_variable_is_no_file(self, environ: dict[str, str]) -> None:
        """Without a name there is no file."""
        assert env.envoy_file(environ) is None
