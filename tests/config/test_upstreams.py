"""`config.upstreams`: where the key material of upstreams is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.load import load
from sidecar.config.topology import read, topology_of
from sidecar.config.upstreams import files_of, part_of, tls_of

CLUSTERS = (
    '[{"name":"plain","endpoints":"127.0.0.1:1"},'
    '{"name":"shop","endpoints":"127.0.0.1:2","tls":{"ca":"/ca.pem","names":["shop"],"cert":"/own.crt"}}]'
)
FLAGS = {"clusters": CLUSTERS, "virtual_hosts": '[{"routes":[{"cluster":"shop"}]}]'}


class TestTlsOf:
    def test_only_clusters_with_tls_are_named(self) -> None:
        """Each with the place where it is written."""
        assert [(place, tls.names) for place, tls in tls_of(read(load(FLAGS, {})))] == [
            ("clusters[1].endpoints", ("shop",))
        ]

    def test_the_app_is_written_in_settings(self) -> None:
        """The small form has a place too."""
        assert [place for place, _ in tls_of(read(load({"upstream": "https://app.internal"}, {})))] == ["upstream"]


class TestPartOf:
    @pytest.mark.parametrize(
        ("place", "part", "expected"),
        [
            ("upstream", "ca", "upstream_ca"),
            ("clusters[1].endpoints", "cert", "clusters[1].tls.cert"),
            ("clusters[1].endpoints", "tls_key_password", "tls_key_password"),
        ],
    )
    def test_part_is_named_as_it_is_written(self, place: str, part: str, expected: str) -> None:
        """A setting, or a place in the file."""
        assert part_of(place, part) == expected


class TestFilesOf:
    def test_files_are_those_to_look_at_for_changes(self) -> None:
        """Also the key that is looked for beside a certificate."""
        assert files_of(topology_of(load(FLAGS, {}))) == (Path("/ca.pem"), Path("/own.crt"), Path("/own.key"))

    def test_clusters_without_tls_have_none(self) -> None:
        """There is nothing to look at."""
        assert files_of(topology_of(load({}, {}))) == ()
