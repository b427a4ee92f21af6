"""Rules of `bench.machine` and `bench.peers`: what programs and /proc say of themselves."""

from __future__ import annotations

import pytest

from bench.machine import cpu_model
from bench.peers import VERSION_PATTERN


class TestCpuModel:
    """`cpu_model` finds the processor's name."""

    def test_name_of_the_first_core(self) -> None:
        """All cores are taken to be alike."""
        assert cpu_model("processor\t: 0\nmodel name\t: Fast CPU\n") == "Fast CPU"


class TestVersionPattern:
    """`VERSION_PATTERN` finds a version in what a program prints."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("/x/python3.11/bin/envoy  version: 9e558093/1.40.0/Clean", "1.40.0"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6.12-1+deb12u4"),
            ("hitch 1.7.2", "1.7.2"),
            ("stunnel 5.68 on x86_64-pc-linux-gnu platform", "5.68"),
        ],
        ids=["envoy", "nginx", "haproxy", "hitch", "stunnel"],
    )
    def test_first_version_is_found(self, text: str, expected: str) -> None:
        """Numbers within paths and hashes are no versions."""
        match = VERSION_PATTERN.search(text)
        assert match is not None
        assert match[0] == expected
