"""`sidecar.config.load`: precedence and sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.load import gather, load
from sidecar.config.names import SETTINGS
from sidecar.errors import ConfigError, Problem
from sidecar.settings import ClientCertMode, HostPort, Settings, TlsPolicy, Upstream


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("listen: :1\nadmin: :2\n")
    return file


class TestPrecedence:
    def test_nothing_given_is_all_defaults(self) -> None:
        """Without any input every setting has its default, and says so."""
        loaded = load({}, {})

        assert loaded.settings == Settings()
        assert loaded.sources == dict.fromkeys(SETTINGS, "default")

    def test_flag_wins_over_environment_over_file(self, file: Path) -> None:
        """Of three values the flag counts, of two the variable, then the file, and each names its source."""
        environ = {"SIDECAR_CONFIG": str(file), "SIDECAR_LISTEN": ":3", "SIDECAR_UPSTREAM": "app:4"}

        loaded = load({"upstream": "app:5"}, environ)

        assert loaded.settings.upstream == Upstream((HostPort("app", 5),))
        assert loaded.settings.listen == HostPort("0.0.0.0", 3)
        assert loaded.settings.admin == HostPort("0.0.0.0", 2)
        sources = {name: source for name, source in loaded.sources.items() if source != "default"}
        assert sources == {"listen": "environment", "upstream": "flag", "admin": f"{file}:2"}

    def test_empty_variable_leaves_the_file_in_force(self, file: Path) -> None:
        """An empty variable does not hide what the file says."""
        loaded = load({"config": str(file)}, {"SIDECAR_LISTEN": ""})

        assert loaded.settings.listen.port == 1

    def test_config_flag_wins_over_its_variable(self, file: Path) -> None:
        """--config names the file even if SIDECAR_CONFIG names another, which is not looked at."""
        loaded = load({"config": str(file)}, {"SIDECAR_CONFIG": "/nonexistent"})

        assert loaded.settings.listen.port == 1

    def test_none_takes_back_a_path_of_lower_precedence(self) -> None:
        """`none` on the command line undoes a variable."""
        loaded = load({"tls_cert": "none"}, {"SIDECAR_TLS_CERT": "/tls"})

        assert loaded.settings.tls.cert == ()

    def test_values_reach_their_nested_places(self) -> None:
        """Settings of nested classes are set beside each other."""
        environ = {"SIDECAR_TLS_CERT": "/tls", "SIDECAR_TLS_POLICY": "modern", "SIDECAR_CLIENT_CERT": "optional"}

        settings = load({}, environ).settings

        assert settings.tls.cert == (Path("/tls"),)
        assert settings.tls.policy is TlsPolicy.MODERN
        assert settings.client.cert is ClientCertMode.OPTIONAL


class TestPlaces:
    CONTENT = "clusters:\n- name: a\n  endpoints:\n  - b:1\n"

    def test_place_has_its_line_or_that_of_what_is_around_it(self, file: Path) -> None:
        """Also a key that is missing, and a setting that nobody gave."""
        file.write_text(self.CONTENT)
        loaded = load({"config": str(file)}, {})

        lines = {place: loaded.source_of(place).removeprefix(f"{file}:") for place in (*loaded.places, "clusters")}
        assert lines == {
            "clusters": "1",
            "clusters[0]": "2",
            "clusters[0].name": "2",
            "clusters[0].endpoints": "3",
            "clusters[0].endpoints[0]": "4",
        }
        assert loaded.source_of("clusters[0].endpoints[0].weight") == f"{file}:4"
        assert loaded.source_of("clusters[7].tls.ca") == f"{file}:1"
        assert loaded.source_of("listeners[0].name") == "default"

    def test_value_that_is_not_in_force_has_no_places(self, file: Path) -> None:
        """A flag hides what the file says, its lines included; of what was refused there are none."""
        file.write_text(self.CONTENT)
        loaded = load({"config": str(file), "clusters": '[{"name": "c", "endpoints": "d:1"}]'}, {})

        assert loaded.places == {}
        assert loaded.source_of("clusters[0].name") == "flag"
        file.write_text("clusters:\n- key: -----BEGIN PRIVATE KEY-----\n")
        refused, problems = gather({"config": str(file)}, {})
        assert len(problems) == 1
        assert refused.places == {}


class TestProblems:
    def test_all_problems_of_all_places_come_at_once(self, file: Path) -> None:
        """Variables, file and flags are judged in one round, each problem named as the operator wrote it."""
        file.write_text("tls: {polcy: x}\nidle_timeout: -1\n")
        environ = {"SIDECAR_CONFIG": str(file), "SIDECAR_LISTNE": ":1", "SIDECAR_MAX_HEADERS": "0"}

        with pytest.raises(ConfigError) as caught:
            load({"tls_names": "a_b"}, environ)

        assert [(problem.setting, problem.source) for problem in caught.value.problems] == [
            ("SIDECAR_LISTNE", "environment"),
            ("tls_polcy", f"{file}:1"),
            ("idle_timeout", f"{file}:2"),
            ("SIDECAR_MAX_HEADERS", "environment"),
            ("--tls-names", "flag"),
        ]

    def test_problem_reads_as_one_sentence(self) -> None:
        """A problem has name, source, fact and fix."""
        with pytest.raises(ConfigError) as caught:
            load({}, {"SIDECAR_MAX_HEADER_BYTES": "60KB"})

        assert str(caught.value) == "SIDECAR_MAX_HEADER_BYTES (environment): '60KB' has no known unit; write 60KiB"

    def test_missing_file_is_a_problem(self) -> None:
        """A file that was named must be there."""
        with pytest.raises(ConfigError, match=r"^SIDECAR_CONFIG \(environment\): /nonexistent: No such file"):
            load({}, {"SIDECAR_CONFIG": "/nonexistent"})


class TestGather:
    def test_refused_value_has_no_source(self) -> None:
        """What was refused is left at its default and marked by its absence from the sources."""
        loaded, problems = gather({}, {"SIDECAR_LISTEN": "x", "SIDECAR_ADMIN": "off"})

        assert [type(problem) for problem in problems] == [Problem]
        assert "listen" not in loaded.sources
        assert loaded.settings.listen == Settings().listen
        assert loaded.settings.admin is None
