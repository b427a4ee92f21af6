"""`sidecar.config.flags`: the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import flags
from sidecar.config.names import SETTINGS, Given
from sidecar.errors import Problem


def parse(*arguments: str) -> tuple[dict[str, str], list[Problem]]:
    return flags.parse(flags.make_parser("", ""), arguments)


_PIECES = ["--listen", "--", "-h", "--config=", "--listen=", "-", "--envoy", "--strict", "--strict="]


class TestParse:
    @pytest.mark.parametrize(
        ("arguments", "flag", "fix"),
        [
            (["--tls-kye", "x"], "--tls-kye", "did you mean --tls-key?"),
            (["--tls-kye=hunter2"], "--tls-kye", "did you mean --tls-key?"),
            (["--tls_key=x"], "--tls_key", "did you mean --tls-key?"),
            (["--confg", "x"], "--confg", "did you mean --config?"),
            (["--envyo", "x"], "--envyo", "did you mean --envoy?"),
            (["--strcit"], "--strcit", "did you mean --strict?"),
            (["--tls-ke", "x"], "--tls-ke", "did you mean --tls-key?"),
            (["-x"], "-x", "remove it, or see sidecar --help"),
        ],
    )
    def test_unknown_flag_is_a_problem_with_a_suggestion(self, arguments: list[str], flag: str, fix: str) -> None:
        """A flag that is no setting is reported once, without its value; abbreviations are unknown flags."""
        assert parse(*arguments) == ({}, [Problem(flag, "flag", "there is no such flag", fix)])

    def test_known_flags_beside_an_unknown_one_still_count(self) -> None:
        """One slip does not hide the other flags, so that their values are checked in the same round."""
        given_, problems = parse("--listne", ":1", "--admin", "off")

        assert given_ == {"admin": "off"}
        assert [problem.setting for problem in problems] == ["--listne"]

    def test_stray_word_is_a_problem(self) -> None:
        """An argument that belongs to no flag is reported."""
        _, problems = parse("config.yaml", "--admin", "off")

        assert problems == [Problem("config.yaml", "arguments", "only flags are expected here", "write --NAME VALUE")]

    def test_missing_value_is_a_problem(self) -> None:
        """A flag without its value is a configuration problem like any other, not an exit of its own."""
        given_, problems = parse("--tls-key")

        assert given_ == {}
        assert [str(problem) for problem in problems] == [
            "--tls-key (flag): expected one argument; write --tls-key VALUE, or see sidecar --help"
        ]

    def test_value_for_a_switch_is_a_problem(self) -> None:
        """--strict takes none; with one that means the opposite it is not taken for given."""
        given_, problems = parse("--strict=no")

        assert not flags.is_strict(given_)
        assert [problem.setting for problem in problems] == ["--strict"]

    def test_last_of_repeated_flags_counts(self) -> None:
        """A wrapper script that appends a flag overrides what stood before."""
        assert parse("--admin", "off", "--admin=:9") == ({"admin": ":9"}, [])

    def test_help_is_an_answer_not_an_exit(self) -> None:
        """Asking for help does not leave the program from within the parser."""
        assert flags.HELP in parse("--help")[0]

    @given(st.lists(st.text() | st.sampled_from(_PIECES)))
    def test_any_arguments_parse_or_are_problems(self, arguments: list[str]) -> None:
        """Whatever the arguments, the answer is flags and problems, never an exception."""
        given_, _ = parse(*arguments)

        assert set(given_) <= {*SETTINGS, "config", "envoy", "strict", flags.HELP}


class TestHelp:
    def test_help_lists_every_setting(self) -> None:
        """The help has the flag, variable and default of every setting."""
        text = " ".join(flags.make_parser("", "").format_help().split())

        for setting in SETTINGS.values():
            assert f"{setting.flag} VALUE" in text
            assert f"[{setting.variable}, default {setting.text(setting.default) or 'none'}]" in text
        assert "--config FILE" in text
        assert "--envoy FILE" in text
        assert "[SIDECAR_ENVOY]" in text
        assert "--strict" in text


class TestRead:
    def test_empty_flag_is_not_set(self) -> None:
        """`--listen=` in a template is as good as none."""
        assert flags.read({"listen": "", "admin": " off "}) == {"admin": Given("off", "--admin", "flag")}


class TestConfigFile:
    def test_named_file_is_given(self) -> None:
        """--config names the file; an empty one names none."""
        assert flags.config_file({"config": "a.yaml"}) == Given("a.yaml", "--config", "flag")
        assert flags.config_file({"config": ""}) is None


class TestEnvoyFile:
    def test_named_file_is_given(self) -> None:
        """--envoy names the file; an empty one names none, and --config is another."""
        assert flags.envoy_file({"envoy": " a.yaml "}) == Given("a.yaml", "--envoy", "flag")
        assert flags.envoy_file({"envoy": " ", "config": "b.yaml"}) is None


class TestIsStrict:
    def test_flag_without_value_is_strict(self) -> None:
        """--strict is given or not."""
        assert flags.is_strict(parse("--strict", "--envoy", "a.yaml")[0])
        assert not flags.is_strict(parse("--envoy", "strict")[0])
