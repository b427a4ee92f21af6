"""`sidecar.doctor.limits`: descriptors, memory and CPU time against the connections that are allowed."""

from __future__ import annotations

import pytest

from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.limits import cpu, descriptors, memory, open_files
from tests.doctor.settled import only, settled, severities

MIB = 1024 * 1024


class TestOpenFiles:
    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("Limit  Soft Limit  Hard Limit  Units\nMax open files            1024      4096      files\n", 1024),
            ("Max open files            unlimited            unlimited            files     \n", 2**31),
            ("Max processes             1024                 4096                 processes\n", None),
            ("", None),
        ],
    )
    def test_soft_limit_is_read(self, text: str, limit: int | None) -> None:
        """It is the one that holds."""
        assert open_files(text) == limit


class TestDescriptors:
    @pytest.mark.parametrize(
        ("settings", "workers", "limit", "severity"),
        [
            pytest.param({"max_connections": "1000"}, 1, 2064, Severity.OK, id="enough"),
            pytest.param({"max_connections": "1000"}, 1, 2063, Severity.WARNING, id="one-short"),
            pytest.param({"max_connections": "1000"}, 2, 1064, Severity.OK, id="two-workers"),
            pytest.param({}, 1, 1024, Severity.NOTE, id="default"),
            pytest.param({}, 1, None, Severity.UNCHECKED, id="unknown"),
        ],
    )
    def test_each_connection_needs_two(
        self, settings: dict[str, str], workers: int, limit: int | None, severity: Severity
    ) -> None:
        """Whoever set the number counts on it; the default is a ceiling. Workers share."""
        finding = descriptors(settled(**settings), workers, limit, is_known=True)
        assert (finding.severity, finding.check) == (severity, Check.DESCRIPTORS)

    def test_limit_of_this_command_alone_is_no_warning(self) -> None:
        """On a host the program has one of its own."""
        finding = descriptors(settled(max_connections="1000"), 1, 1024, is_known=False)
        assert "this command" in only([finding], Severity.NOTE, Check.DESCRIPTORS).fact


class TestMemory:
    @pytest.mark.parametrize(
        ("settings", "limit", "severity"),
        [
            pytest.param({}, None, Severity.OK, id="unlimited"),
            pytest.param({}, 2**63 - 4096, Severity.OK, id="unlimited-1"),
            pytest.param({}, 512 * MIB, Severity.OK, id="fargate"),
            pytest.param({}, 256 * MIB, Severity.NOTE, id="default"),
            pytest.param({"max_connections": "20000"}, 512 * MIB, Severity.WARNING, id="set"),
            pytest.param({"max_connections": "1"}, 16 * MIB, Severity.WARNING, id="tiny"),
        ],
    )
    def test_idle_connections_alone_must_fit(
        self, settings: dict[str, str], limit: int | None, severity: Severity
    ) -> None:
        """The kernel kills what goes over."""
        only([memory(settled(**settings), 1, limit)], severity, Check.MEMORY)

    def test_number_that_would_fit_is_told_if_there_is_one(self) -> None:
        """A limit below what one process takes by itself can only be raised."""
        loaded = settled(max_connections="10000")
        assert "SIDECAR_MAX_CONNECTIONS, to 3,883 say" in memory(loaded, 1, 256 * MIB).fix
        assert "SIDECAR_MAX_CONNECTIONS" not in memory(loaded, 1, 16 * MIB).fix


class TestCpu:
    @pytest.mark.parametrize(
        ("given", "workers", "quota", "limit", "expected"),
        [
            pytest.param("auto", 1, 0.25, None, [("cpu", "ok")], id="auto"),
            pytest.param("4", 4, 2.0, None, [("cpu", "note")], id="more-than-cpus"),
            pytest.param("4", 4, None, None, [], id="no-quota"),
            pytest.param("2", 2, 1.5, 200 * MIB, [("memory", "warning")], id="little-memory"),
            pytest.param("1", 1, 0.25, 64 * MIB, [("cpu", "ok")], id="one"),
        ],
    )
    def test_workers_must_have_cpus_and_memory(
        self, given: str, workers: int, quota: float | None, limit: int | None, expected: list[tuple[str, str]]
    ) -> None:
        """Left to us, they are counted by both."""
        assert severities(cpu(settled(workers=given), workers, quota, limit)) == expected
