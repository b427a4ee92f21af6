"""`sidecar.config.yamlfile`: the file of settings."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import yamlfile
from sidecar.config.names import Given
from sidecar.errors import Problem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def read(file: Path, content: str | bytes) -> tuple[dict[str, Given], list[Problem]]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return yamlfile.read(Given(str(file), "--config", "flag"))


def texts(file: Path, content: str) -> dict[str, str]:
    given_, problems = read(file, content)
    assert problems == []
    return {name: value.text for name, value in given_.items()}


class TestSettings:
    def test_value_is_given_with_its_line(self, file: Path) -> None:
        """A setting's source is file and line of its key."""
        given_, _ = read(file, "# comment\n\nadmin: off\n")

        assert given_ == {"admin": Given("off", "admin", f"{file}:3")}

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("off", "off"),
            ("yes", "yes"),
            ("443", "443"),
            ("010", "010"),
            ("1:30", "1:30"),
            ("1e3", "1e3"),
            ("1.50", "1.50"),
            ("2026-01-01", "2026-01-01"),
            ("'[::]:443'", "[::]:443"),
            ('" :443 "', ":443"),
            ("=", "="),
        ],
    )
    def test_scalar_is_the_text_in_the_file(self, file: Path, value: str, text: str) -> None:
        """YAML's own reading of numbers, switches and dates does not come between the file and the parsers."""
        assert texts(file, f"listen: {value}") == {"listen": text}

    @pytest.mark.parametrize("value", ["", "~", "null", "''", '" "'])
    def test_empty_value_is_not_set(self, file: Path, value: str) -> None:
        """An empty value and null are as good as none."""
        assert texts(file, f"tls_cert: {value}") == {}

    @pytest.mark.parametrize(
        "content",
        [
            "max_header_bytes: 1KiB",
            "max: {header_bytes: 1KiB}",
            "max: {header: {bytes: 1KiB}}",
            "max_header: {bytes: 1KiB}",
            "max:\n  header_bytes: 1KiB",
        ],
    )
    def test_any_beginning_of_a_name_can_be_nested(self, file: Path, content: str) -> None:
        """The keys of nested mappings join with an underscore."""
        assert texts(file, content) == {"max_header_bytes": "1KiB"}

    def test_group_without_settings_is_allowed(self, file: Path) -> None:
        """A group whose settings are all commented out is no mistake."""
        assert texts(file, "tls:\n  # cert: x\nclient: {}\n") == {}

    @pytest.mark.parametrize(
        "content",
        ["tls_names: [a.example, '::1']", "tls:\n  names:\n  - a.example\n  - ::1", "tls_names: a.example,::1"],
    )
    def test_names_can_be_a_list(self, file: Path, content: str) -> None:
        """Where a setting has several values, the file may list them."""
        assert texts(file, content) == {"tls_names": "a.example,::1"}

    @pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "{}", "\ufeffadmin:\n"])
    def test_empty_file_sets_nothing(self, file: Path, content: str) -> None:
        """A file without settings is allowed."""
        assert texts(file, content) == {}


class TestMistakes:
    @pytest.mark.parametrize(
        ("content", "setting", "fix"),
        [
            ("tls_kye: x", "tls_kye", "did you mean tls_key?"),
            ("tls: {kye: x}", "tls_kye", "did you mean tls_key?"),
            ("tls-key: x", "tls-key", "did you mean tls_key?"),
            ("SIDECAR_TLS_KEY: x", "SIDECAR_TLS_KEY", "did you mean tls_key?"),
            ("Listen: x", "Listen", "did you mean listen?"),
            ("xyzzy: {deep: {er: 1}}", "xyzzy", "remove it, or see sidecar --help"),
            ("config: other.yaml", "config", "remove it, or see sidecar --help"),
        ],
    )
    def test_unknown_key_is_a_problem_with_a_suggestion(self, file: Path, content: str, setting: str, fix: str) -> None:
        """A key that is no setting is reported once, with its line and the likely name."""
        assert read(file, content) == ({}, [Problem(setting, f"{file}:1", "there is no such setting", fix)])

    @pytest.mark.parametrize(
        ("content", "fact"),
        [
            ("admin: off\nlisten: :1\nadmin: :2", "the key stands in {file}:1 already"),
            ("tls:\n  key: x\ntls: {cert: y}", "the key stands in {file}:1 already"),
            ("tls: {key: x}\n\ntls_key: y", "the setting stands in {file}:1 already"),
        ],
    )
    def test_setting_given_twice_is_a_problem(self, file: Path, content: str, fact: str) -> None:
        """A key or setting that stands twice is reported where it stands again."""
        _, problems = read(file, content)

        assert [(problem.fact, problem.source) for problem in problems] == [(fact.format(file=file), f"{file}:3")]

    @pytest.mark.parametrize(
        "content",
        [
            "listen: [a]",
            "tls_cert: {file: x}",
            "tls_names: {a: b}",
            "tls_names: [[a]]",
            "tls: on",
            "tls: [cert, key]",
            "[listen]: x",
            "{a: b}: x",
            "? \n: x",
            "listen: !!binary aGk=",
            "listen: !Ref Port",
            "tls_names: [!Sub a]",
            "listen: !!python/name:os.system x",
        ],
    )
    def test_value_of_the_wrong_shape_is_a_problem_with_its_line(self, file: Path, content: str) -> None:
        """Lists, mappings, groups and tags in the wrong place are reported; nothing is guessed."""
        given_, problems = read(file, f"admin: off\n{content}")

        assert list(given_) == ["admin"]
        assert [problem.source for problem in problems] == [f"{file}:2"]

    def test_all_mistakes_are_reported_together(self, file: Path) -> None:
        """One mistake does not hide the next."""
        _, problems = read(file, "a1: 1\ntls: {b1: 2, names: {}}\nclient: x\n")

        assert [problem.setting for problem in problems] == ["a1", "tls_b1", "tls_names", "client"]

    def test_line_breaks_in_a_key_do_not_reach_the_message(self, file: Path) -> None:
        """A problem stays on one line whatever the key is."""
        _, problems = read(file, '"a\\nb\\e[2J": 1')

        assert str(problems[0]).isprintable()


class TestFile:
    @pytest.mark.parametrize("content", ["- listen", "listen", "443", "'x'"])
    def test_file_that_is_no_mapping_is_a_problem(self, file: Path, content: str) -> None:
        """The top level is a mapping."""
        _, problems = read(file, content)

        assert [problem.fact for problem in problems] == ["the file is not a mapping"]

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            ("admin: off\nlisten: [", 2),
            ("admin: off\n\tlisten: x", 2),
            ("admin: a: b", 1),
            ("a: 1\n---\nb: 1", 2),
            ("a: *nowhere", 1),
            ("tls: &a\n  key: x\nclient: *a", 3),
            ("a: " + "[" * 100_000, 1),
            ("a: " + "{b: " * 17 + "1" + "}" * 17, 1),
        ],
        ids=["open list", "tab", "two colons", "two documents", "no anchor", "alias", "deep lists", "deep mappings"],
    )
    def test_broken_yaml_is_a_problem_with_its_line(self, file: Path, content: str, line: int) -> None:
        """Syntax errors, aliases and deep nesting are reported for the file, at their line, on one line."""
        given_, problems = read(file, content)

        assert given_ == {}
        assert [(problem.setting, problem.source) for problem in problems] == [("--config", f"{file}:{line}")]
        assert str(problems[0]).isprintable()

    def test_list_of_mappings_becomes_json(self, file: Path) -> None:
        """Rules stand in the file as they are; values stay texts."""
        content = "client:\n  rules:\n  - path: [/a, /b]\n    client_cert: none\n  - name: off\n    allow: []\n"
        assert json.loads(texts(file, content)["client_rules"]) == [
            {"path": ["/a", "/b"], "client_cert": "none"},
            {"name": "off", "allow": []},
        ]

    @pytest.mark.parametrize("name", ["client_rules", "listeners", "virtual_hosts", "clusters"])
    def test_every_place_inside_a_structure_has_its_line(self, file: Path, name: str) -> None:
        """Keys have the line of the key, items that where they begin."""
        content = f"# x\n{name}:\n- a: 1\n  b:\n    - c\n    - {{d: 2,\n       e: 3}}\n-\n  f: 4\n"
        given_, problems = read(file, content)

        assert problems == []
        assert {
            place.removeprefix(name): line.removeprefix(f"{file}:") for place, line in given_[name].places.items()
        } == {
            "[0]": "3",
            "[0].a": "3",
            "[0].b": "4",
            "[0].b[0]": "5",
            "[0].b[1]": "6",
            "[0].b[1].d": "6",
            "[0].b[1].e": "7",
            "[1]": "9",
            "[1].f": "9",
        }

    def test_number_of_places_is_bounded(self, file: Path) -> None:
        """They are kept as long as the settings."""
        content = f"client_rules: [{{path: [{'/,' * yamlfile.MOST_PLACES}]}}]"
        given_, problems = read(file, content)

        assert problems == []
        assert len(given_["client_rules"].places) == yamlfile.MOST_PLACES
        assert len(json.loads(given_["client_rules"].text)[0]["path"]) == yamlfile.MOST_PLACES

    def test_other_settings_have_no_places(self, file: Path) -> None:
        """Their line is enough."""
        given_, _ = read(file, "tls_names: [a.example, b.example]\nclusters: '[]'\n")
        assert [value.places for value in given_.values()] == [{}, {}]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ('"ok\\n"', "ok\n"),
            ("|\n    a\n    b", "a\nb\n"),
            ("' '", " "),
            ("''", ""),
            ("off", "off"),
            ("~", None),
            ("", None),
            ("null", None),
        ],
    )
    def test_text_inside_a_structure_keeps_its_blanks(self, file: Path, value: str, expected: str | None) -> None:
        """A body is what stands there; nothing is null."""
        found = texts(file, f"virtual_hosts:\n- body: {value}\n")
        assert json.loads(found["virtual_hosts"]) == [{"body": expected}]

    def test_problem_inside_a_structure_names_its_place(self, file: Path) -> None:
        """A tag and a second key, each at its line."""
        _, problems = read(file, "clusters:\n- name: !Ref x\n  tls: {ca: a,\n    ca: b}\n")
        assert [(problem.setting, problem.source) for problem in problems] == [
            ("clusters[0].name", f"{file}:2"),
            ("clusters[0].tls.ca", f"{file}:4"),
        ]

    def test_key_that_stands_twice_in_a_rule_is_a_problem(self, file: Path) -> None:
        """The second would silently win."""
        _, problems = read(file, "client_rules:\n- path: /a\n  path: /b\n")
        assert [problem.source for problem in problems] == [f"{file}:3"]

    def test_control_character_is_a_problem(self, file: Path) -> None:
        """Bytes that YAML does not allow are reported on one line."""
        _, problems = read(file, "a: \x01")

        assert [problem.setting for problem in problems] == ["--config"]
        assert str(problems[0]).isprintable()

    def test_other_encoding_is_a_problem_with_its_line(self, file: Path) -> None:
        """The file is UTF-8."""
        _, problems = read(file, b"# a\n# \xff\n")

        assert problems[0].fact == f"{file} is not UTF-8 in line 2"

    def test_file_at_the_size_limit_is_read(self, file: Path) -> None:
        """One MiB is read, one byte more is refused."""
        content = "admin: off\n".ljust(yamlfile.LARGEST_FILE, "#").replace("\n#", "\n #")[: yamlfile.LARGEST_FILE]

        assert texts(file, content) == {"admin": "off"}
        assert [problem.fact for problem in read(file, content + "#")[1]] == [f"{file} is larger than 1MiB"]

    def test_missing_file_is_a_problem_of_what_named_it(self, file: Path) -> None:
        """The problem names flag or variable, the path and the system's reason."""
        _, problems = yamlfile.read(Given(str(file), "SIDECAR_CONFIG", "environment"))

        assert problems == [
            Problem(
                "SIDECAR_CONFIG",
                "environment",
                f"{file}: No such file or directory",
                "give the path of a readable YAML file",
            )
        ]

    @pytest.mark.parametrize("path", ["/", "a\0b", "a\nb", "/dev/null/x"])
    def test_path_that_cannot_be_a_file_is_a_problem(self, path: str) -> None:
        """Directories and impossible paths are reported, not raised."""
        _, problems = yamlfile.read(Given(path, "--config", "flag"))

        assert [problem.setting for problem in problems] == ["--config"]

    def test_named_pipe_that_nobody_writes_to_is_a_problem(self, tmp_path: Path) -> None:
        """It is told at once, and not waited for."""
        os.mkfifo(tmp_path / "f")
        _, problems = yamlfile.read(Given(f"{tmp_path}/f", "SIDECAR_CONFIG", "environment"))

        assert [problem.fact for problem in problems] == [
            f"{tmp_path}/f is a pipe from which nothing comes: nobody writes to it"
        ]

    def test_settings_come_through_a_pipe(self) -> None:
        """From a command that fills in a template."""
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb") as stream:
            stream.write(b"admin: off")
            stream.close()
            given_, problems = yamlfile.read(Given(f"/dev/fd/{reader}", "--config", "flag"))

        assert problems == []
        assert given_["admin"].text == "off"

    def test_null_device_sets_nothing(self) -> None:
        """It stands for an empty file."""
        assert yamlfile.read(Given("/dev/null", "--config", "flag")) == ({}, [])

    @given(st.binary(max_size=200) | st.text("tlskey: \n-[]{}&*!|>'\"%#?,~", max_size=60).map(str.encode))
    def test_any_content_is_read_or_reported(self, content: bytes) -> None:
        """Whatever the bytes, the answer is settings and problems on one line each, never an exception."""
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(content)
            stream.flush()
            _, problems = yamlfile.read(Given(stream.name, "--config", "flag"))

        assert all(str(problem).isprintable() for problem in problems)
