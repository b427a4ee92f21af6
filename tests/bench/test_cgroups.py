"""Rules of `bench.cgroups`: both versions of control groups say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cgroups import cpu_seconds, directory, used_bytes

V1 = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/cd\n0::/docker/ef\n"
V2 = "0::/system.slice/docker-ab.scope\n"


class TestDirectory:
    @pytest.mark.parametrize(
        ("memberships", "controller", "found"),
        [
            pytest.param(V1, "memory", "memory/docker/ab", id="version 1"),
            pytest.param(V1, "cpuacct", "cpuacct/docker/cd", id="version 1, two controllers in one"),
            pytest.param(V2, "memory", "system.slice/docker-ab.scope", id="version 2"),
        ],
    )
    def test_is_that_of_the_controller(self, memberships: str, controller: str, found: str) -> None:
        """A controller of version 1 has a directory of its own, even where the newer version is mounted beside it."""
        assert directory(memberships, controller, Path("/groups")) == Path("/groups", found)

    def test_without_one_is_refused(self) -> None:
        """A figure of another group would be worse than none."""
        with pytest.raises(ValueError, match="no control group for memory"):
            directory("4:cpuset:/docker/ab\n", "memory")


class TestCpuSeconds:
    @pytest.mark.parametrize(
        ("file", "content"),
        [("cpuacct.usage", "250000000\n"), ("cpu.stat", "usage_usec 250000\nuser_usec 200000\nsystem_usec 50000\n")],
        ids=["version 1", "version 2"],
    )
    def test_is_all_that_was_used(self, tmp_path: Path, file: str, content: str) -> None:
        """Version 1 counts nanoseconds, version 2 microseconds."""
        (tmp_path / file).write_text(content)
        assert cpu_seconds(tmp_path) == 0.25


class TestUsedBytes:
    @pytest.mark.parametrize(
        ("usage", "stat"),
        [
            ("memory.usage_in_bytes", "cache 1\nrss 30000000\ntotal_cache 5000000\ntotal_rss 30000000\n"),
            ("memory.current", "anon 30000000\nfile 5000000\nkernel 1000000\n"),
        ],
        ids=["version 1", "version 2"],
    )
    def test_leaves_the_page_cache_out(self, tmp_path: Path, usage: str, stat: str) -> None:
        """What the kernel keeps of files is no need of the program, and differs from run to run."""
        (tmp_path / usage).write_text("36000000\n")
        (tmp_path / "memory.stat").write_text(stat)
        assert used_bytes(tmp_path) == 31_000_000
