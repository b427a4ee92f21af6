"""`sidecar.config.case`: how rules say what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidecar.config import topology
from sidecar.config.case import Case
from sidecar.config.load import gather
from sidecar.errors import Problem


def case(**flags: str) -> Case:
    loaded, _ = gather(flags, {"SIDECAR_ADMIN": "off"})
    return Case(loaded, datetime(2026, 1, 1, tzinfo=UTC), topology.read(loaded))


class TestCase:
    def test_refused_values_are_not_known(self) -> None:
        """Rules stay silent about them."""
        found = case(listen="x", alpn="h2")
        assert found.has("alpn", "admin")
        assert not found.has("alpn", "listen")
        assert not found.is_given("listen")

    @pytest.mark.parametrize(("flags", "expected"), [({"alpn": "h2"}, True), ({"alpn": "none"}, False), ({}, False)])
    def test_setting_is_given_if_it_changes_something(self, flags: dict[str, str], expected: bool) -> None:
        """A default that is written out is as good as none."""
        assert case(**flags).is_given("alpn") is expected

    @pytest.mark.parametrize(
        ("name", "beside", "setting", "source"),
        [
            ("alpn", None, "--alpn", "flag"),
            ("admin", "alpn", "SIDECAR_ADMIN", "environment"),
            ("listen", "alpn", "--listen", "default"),
            ("listen", None, "SIDECAR_LISTEN", "default"),
            ("listen", "clusters[0]", "SIDECAR_LISTEN", "default"),
            ("clusters[0].tls", "alpn", "clusters[0].tls", "flag"),
        ],
    )
    def test_problem_is_in_the_words_of_who_wrote_it(
        self, name: str, beside: str | None, setting: str, source: str
    ) -> None:
        """Or who wrote what stands beside it; a place is called the same everywhere."""
        found = case(alpn="h2", clusters='[{"name": "a", "endpoints": "b:1"}]')
        assert found.problem(name, "x", "y", beside) == Problem(setting, source, "x", "y")

    @pytest.mark.parametrize(
        ("flags", "asking"),
        [
            ({"client_cert": "optional", "client_rules": "[{}]"}, "client_cert"),
            ({"client_rules": "[{}]"}, "client_rules"),
            ({"listeners": "[{}]"}, "listeners"),
            ({}, "virtual_hosts"),
        ],
    )
    def test_who_asks_for_certificates_is_known(self, flags: dict[str, str], asking: str) -> None:
        """The setting that comes first is told."""
        assert case(**flags).asking == asking

    @pytest.mark.parametrize(
        ("name", "beside", "written"),
        [
            ("mode", "alpn", "--mode"),
            ("mode", "admin", "SIDECAR_MODE"),
            ("mode", "clusters[0].name", "--mode"),
            ("clusters[0].name", "alpn", "clusters[0].name"),
        ],
    )
    def test_other_settings_are_named_alike(self, name: str, beside: str, written: str) -> None:
        """So that they can be found."""
        assert case(alpn="h2", clusters='[{"name": "a", "endpoints": "b:1"}]').written(name, beside) == written
