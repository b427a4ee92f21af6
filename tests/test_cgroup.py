"""`cgroup`: trees of files to a number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar import cgroup

V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/cpu,cpuacct"


def tree(membership: str, files: Mapping[str, str]) -> cgroup.Read:
    return lambda path: {"/proc/self/cgroup": membership, **files}.get(str(path))


def quota(files: Mapping[str, str]) -> float | None:
    return cgroup.cpu_quota(lambda path: files.get(str(path)))


def v1(directory: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {f"{directory}/cpu.cfs_quota_us": f"{quota}\n", f"{directory}/cpu.cfs_period_us": f"{period}\n"}


class TestCpuQuota:
    @pytest.mark.parametrize(
        ("membership", "files", "expected"),
        [
            pytest.param("0::/\n", {f"{V2}/cpu.max": "250000 100000\n"}, 2.5, id="v2, own namespace"),
            pytest.param("0::/a/b\n", {f"{V2}/a/b/cpu.max": "150000 50000\n"}, 3.0, id="v2, own group"),
            pytest.param("0::/a/b\n", {f"{V2}/cpu.max": "50000 100000\n"}, 0.5, id="v2, path of the host"),
            pytest.param(
                "0::/a/b\n",
                {f"{V2}/a/cpu.max": "200000 100000\n", f"{V2}/a/b/cpu.max": "max 100000\n"},
                2.0,
                id="v2, the limit is further up",
            ),
            pytest.param(
                "0::/a/b\n",
                {f"{V2}/a/cpu.max": "100000 100000\n", f"{V2}/a/b/cpu.max": "400000 100000\n"},
                1.0,
                id="v2, the least counts",
            ),
            pytest.param("0::/../x\n", {f"{V2}/cpu.max": "200000 100000\n"}, 2.0, id="v2, outside of the mount"),
            pytest.param("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, None, id="v2, no quota"),
            pytest.param("4:cpu,cpuacct:/d\n", v1(f"{V1}/d", "300000"), 3.0, id="v1, own group"),
            pytest.param("4:cpu,cpuacct:/docker/x\n", v1(V1, "200000"), 2.0, id="v1, path of the host"),
            pytest.param("1:cpu:/\n", v1(f"{V2}/cpu", "50000", "25000"), 2.0, id="v1, alone"),
            pytest.param("4:cpu,cpuacct:/\n", v1(f"{V2}/cpu", "200000"), 2.0, id="v1, by its link"),
            pytest.param("1:cpu:/\n", v1(f"{V2}/cpu", "-1"), None, id="v1, no quota"),
            pytest.param("2:cpuacct:/\n", v1(f"{V2}/cpuacct", "200000"), None, id="v1, another controller"),
            pytest.param(
                "1:cpu:/d\n0::/d\n", v1(f"{V2}/cpu/d", "200000") | {f"{V2}/unified/d/cpu.max": ""}, 2.0, id="hybrid"
            ),
            pytest.param("", {}, None, id="no control groups"),
            pytest.param("nonsense\n0\n::\n", {}, None, id="unreadable membership"),
        ],
    )
    def test_least_quota_on_the_way_up_counts(
        self, membership: str, files: dict[str, str], expected: float | None
    ) -> None:
        """Version 1 and 2, seen from inside a container or from the host."""
        assert quota({"/proc/self/cgroup": membership, **files}) == expected

    @pytest.mark.parametrize("text", ["", "max", "0 100000", "100000 0", "-5 100000", "1e5 100000", "1 2 3", "² 1"])
    def test_other_text_is_no_quota(self, text: str) -> None:
        """What is not understood limits nothing."""
        assert quota({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": text}) is None


class TestMemoryLimit:
    @pytest.mark.parametrize(
        ("membership", "files", "expected"),
        [
            pytest.param("0::/\n", {f"{V2}/memory.max": "536870912\n"}, 2**29, id="v2"),
            pytest.param(
                "0::/a/b\n",
                {f"{V2}/a/memory.max": "1000\n", f"{V2}/a/b/memory.max": "2000\n"},
                1000,
                id="v2, the least counts",
            ),
            pytest.param("0::/\n", {f"{V2}/memory.max": "max\n"}, None, id="v2, no limit"),
            pytest.param("9:memory:/d\n", {f"{V2}/memory/memory.limit_in_bytes": "4096\n"}, 4096, id="v1"),
            pytest.param(
                "9:memory:/d\n4:cpu:/d\n", {f"{V2}/cpu/d/memory.limit_in_bytes": "4096\n"}, None, id="v1, elsewhere"
            ),
            pytest.param("", {}, None, id="no control groups"),
            pytest.param("0::/\n", {f"{V2}/memory.max": "1e9"}, None, id="other text"),
        ],
    )
    def test_least_limit_on_the_way_up_counts(
        self, membership: str, files: dict[str, str], expected: int | None
    ) -> None:
        """Version 1 and 2, as of the CPU."""
        assert cgroup.memory_limit(tree(membership, files)) == expected


class TestReadText:
    def test_text_of_a_file(self, tmp_path: Path) -> None:
        """A file is read as it is."""
        (tmp_path / "cpu.max").write_text("max 100000\n")
        assert cgroup.read_text(tmp_path / "cpu.max") == "max 100000\n"

    @pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no text"])
    def test_what_cannot_be_read_is_none(self, tmp_path: Path, content: bytes | None) -> None:
        """Nothing here may keep the program from starting."""
        if content is not None:
            (tmp_path / "x").write_bytes(content)
        assert cgroup.read_text(tmp_path / "x") is None


class TestWorkersFor:
    @pytest.mark.parametrize(
        ("quota", "expected"), [(None, 1), (0.1, 1), (0.99, 1), (1.0, 1), (1.99, 1), (2.0, 2), (7.5, 7)]
    )
    def test_quota_is_rounded_down_to_one_at_least(self, quota: float | None, expected: int) -> None:
        """More workers than CPUs would only take time from each other."""
        assert cgroup.workers_for(quota, tree("", {})) == expected

    @pytest.mark.parametrize(
        ("mebibytes", "expected"),
        [
            pytest.param(64, 1, id="for one at least"),
            pytest.param(255, 1, id="not for two"),
            pytest.param(256, 2, id="for two"),
            pytest.param(4096, 4, id="for more than there is CPU time"),
            pytest.param(2**43 - 1, 4, id="v1 without a limit"),
        ],
    )
    def test_memory_must_do_for_all(self, mebibytes: int, expected: int) -> None:
        """Workers that the kernel kills for want of memory serve fewer than one that it lets live."""
        files = {f"{V2}/memory/memory.limit_in_bytes": str(mebibytes * 2**20)}
        assert cgroup.workers_for(4.0, tree("1:memory:/\n", files)) == expected
