"""`sidecar.config.load`: precedence and sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.config.load import gather, load
from sidecar.config.names import SETTINGS
from sidecar.errors import ConfigError, Problem
from sidecar.settings import ClientCertMode, HostPort, Settings, TlsPolicy, Upstream
from tests.config.bootstraps import address, bootstrap, listener


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


class TestEnvoy:
    """A bootstrap file in place of one of ours."""

    @pytest.fixture
    def envoy(self, tmp_path: Path) -> Path:
        """A file of which one field is not carried over; its listener begins in line 4."""
        file = tmp_path / "envoy.yaml"
        values = bootstrap(listener(port=8443, tcp_backlog_size=1), admin={"address": address(port=9901)})
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        return file

    def test_settings_come_from_its_lines(self, envoy: Path) -> None:
        """What it says is in force, and names its lines, those of what is inside as well."""
        loaded = load({"envoy": str(envoy)}, {})
        lines = envoy.read_text().splitlines()

        assert loaded.settings.admin == HostPort("127.0.0.1", 9901)
        assert lines[_line(loaded.sources["admin"], envoy)].startswith("  address:")
        assert lines[_line(loaded.source_of("listeners[0].address"), envoy)].startswith("  - address:")
        assert lines[_line(loaded.source_of("clusters[0].limits.requests"), envoy)].startswith("  - name: app")

    def test_flag_and_variable_win_over_it(self, envoy: Path) -> None:
        """As over a file of ours."""
        loaded = load({"envoy": str(envoy), "admin": "off"}, {"SIDECAR_ACCESS_LOG": "json"})

        assert loaded.settings.admin is None
        assert (loaded.sources["admin"], loaded.sources["access_log"]) == ("flag", "environment")

    def test_flag_wins_over_its_variable(self, envoy: Path) -> None:
        """--envoy names the file even if SIDECAR_ENVOY names another, which is not looked at."""
        assert load({"envoy": str(envoy)}, {"SIDECAR_ENVOY": "/nonexistent"}) == load({"envoy": str(envoy)}, {})

    def test_notes_name_file_and_place_first_what_is_left_out(self, envoy: Path) -> None:
        """What is not carried over comes before what means something else; each is one line with the file's name."""
        notes = load({}, {"SIDECAR_ENVOY": str(envoy)}).notes
        left_out = [note for note in notes if "not carried over" in note]

        assert all(note.startswith(f"{envoy}: ") and note.count("\n") == 0 for note in notes)
        assert notes[: len(left_out)] == tuple(left_out)
        [only] = left_out
        assert only.startswith(f"{envoy}: not carried over: static_resources.listeners[0].tcp_backlog_size (line ")
        assert len(notes) > 1

    def test_file_of_ours_has_no_notes(self, file: Path) -> None:
        """Nor do settings without any file."""
        assert load({"config": str(file)}, {}).notes == ()
        assert load({}, {}).notes == ()

    def test_strict_makes_problems_of_what_is_left_out(self, envoy: Path) -> None:
        """With path and line in place of setting and source; and nothing of the file is in force."""
        loaded, problems = gather({"envoy": str(envoy), "strict": "True"}, {})

        [problem] = problems
        assert problem.setting == "static_resources.listeners[0].tcp_backlog_size"
        assert "backlog" in envoy.read_text().splitlines()[_line(problem.source, envoy)]
        assert (loaded.settings, loaded.notes) == (Settings(), ())

    @pytest.mark.parametrize(
        ("flags", "environ", "setting"),
        [
            ({"envoy": "E", "config": "C"}, {}, "--envoy"),
            ({"envoy": "E"}, {"SIDECAR_CONFIG": "C"}, "--envoy"),
            ({"config": "C"}, {"SIDECAR_ENVOY": "E"}, "SIDECAR_ENVOY"),
            ({}, {"SIDECAR_ENVOY": "E", "SIDECAR_CONFIG": "C"}, "SIDECAR_ENVOY"),
        ],
    )
    def test_two_files_are_a_problem(self, flags: dict[str, str], environ: dict[str, str], setting: str) -> None:
        """Neither is read, whatever named them: which of them counts is nothing to guess."""
        loaded, problems = gather(flags, environ)

        [problem] = problems
        assert problem.setting == setting
        assert "C" in problem.fact
        assert loaded.settings == Settings()

    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            (None, "No such file"),
            (b"\xff\xfe", "UTF-8"),
            (b"#" * 2**20 + b"\n", "larger than 1MiB"),
            (b"static_resources: [", "expected"),
            (b"- x", "no mapping"),
            (b"", "no mapping"),
        ],
        ids=["missing", "binary", "too-large", "no-yaml", "a-list", "empty"],
    )
    def test_file_that_cannot_be_read_is_one_problem(self, tmp_path: Path, content: bytes | None, fact: str) -> None:
        """It names the file."""
        file = tmp_path / "envoy.yaml"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(ConfigError, match=fact) as caught:
            load({"envoy": str(file)}, {})

        [problem] = caught.value.problems
        assert str(file) in str(problem)

    def test_problems_of_it_come_with_all_others(self, envoy: Path) -> None:
        """What is wrong with the file does not hide what is wrong with variables and flags."""
        envoy.write_text("static_resources: {}\n")
        _, problems = gather({"envoy": str(envoy), "listen": "x"}, {"SIDECAR_LISTNE": ":1"})

        assert [problem.setting for problem in problems] == ["SIDECAR_LISTNE", "bootstrap", "--listen"]


def _line(source: str, file: Path) -> int:
    """The line that a source names, from 0."""
    name, _, number = source.rpartition(":")
    assert name == str(file)
    return int(number) - 1


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
