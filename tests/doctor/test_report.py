"""`sidecar.doctor.report`: findings as lines and as JSON."""

from __future__ import annotations

import json

import pytest

from sidecar import __version__
from sidecar.doctor.findings import Check, error, note, ok
from sidecar.doctor.platforms import Platform
from sidecar.doctor.report import MAX_LINE, as_json, echoed, printable, summary, text

FINDINGS = [error(Check.PORT, "taken", "stop it"), note(Check.MOUNT, "odd"), ok(Check.CHAIN, "fine")]


class TestText:
    def test_finding_is_a_line_and_its_mending_the_next(self) -> None:
        """The counts come last."""
        assert text(Platform.ECS, FINDINGS) == [
            "error: port: taken",
            "    stop it",
            "note: mount: odd",
            "ok: chain: fine",
            "1 error, 0 warnings, 1 note, 0 unchecked, 1 ok (platform: ECS)",
        ]

    def test_plurals_are_right(self) -> None:
        """People read it."""
        assert summary(Platform.HOST, FINDINGS * 2).startswith("2 errors, 0 warnings, 2 notes, ")


class TestAsJson:
    def test_object_has_everything(self) -> None:
        """For programs that sort by severity."""
        answer = json.loads(as_json(Platform.ECS, FINDINGS))
        assert answer["version"] == __version__
        assert answer["platform"] == "ecs"
        assert answer["findings"][0] == {"severity": "error", "check": "port", "fact": "taken", "fix": "stop it"}
        assert answer["counts"] == {"error": 1, "warning": 0, "note": 1, "unchecked": 0, "ok": 1}

    def test_no_control_character_is_in_it(self) -> None:
        """People look at it in terminals, too."""
        odd = "a\x1b[2J\x7f\x9b\u202e"
        written = as_json(Platform.ECS, [ok(Check.CHAIN, odd)])
        assert written.isascii()
        assert written.replace("\n", "").isprintable()
        assert json.loads(written)["findings"][0]["fact"] == odd


class TestEchoed:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            pytest.param("soon", "'soon'", id="word"),
            pytest.param("a\x1b[0m", "a value that may be key material", id="control"),
            pytest.param("ab " * 40, f"'{'ab ' * 20}…'", id="long"),
            pytest.param("MC4CAQAwBQYDK2VwBCIEIJ", "a value that may be key material", id="key"),
        ],
    )
    def test_argument_is_bounded_and_no_secret(self, given: str, shown: str) -> None:
        """Even one that is too short for the messages about settings to suspect it."""
        assert echoed(given) == shown


class TestPrintable:
    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        """Whoever made a certificate chose its names."""
        assert printable("CN=\x1b[2J\nok: all well") == "CN=\\x1b[2J\\nok: all well"

    def test_endless_line_is_cut(self) -> None:
        """At the limit it is whole."""
        assert printable("a" * MAX_LINE) == "a" * MAX_LINE
        assert printable("a" * (MAX_LINE + 1)) == "a" * MAX_LINE + "..."
